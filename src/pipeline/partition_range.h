/*
 * partition_range.h
 *		Which ranges a table partitioned by time is cut into.  Arithmetic only.
 *
 * Everything is in UTC, or, for timestamp and date, in the time as written.
 */
#ifndef INGEST_PARTITION_RANGE_H
#define INGEST_PARTITION_RANGE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/rel.h"

typedef struct IngestTimeRange
{
	TimestampTz from;
	TimestampTz to;				/* excluded */
} IngestTimeRange;

/* at + times * span; months first.  False when that is no timestamp.  raises: no */
extern bool ingest_range_shift(TimestampTz at, const Interval *span, int times, TimestampTz *result);

/*
 * The step of the grid that holds "at".  Steps of months are counted from
 * January 2000, those of days and less from 2000-01-01 00:00, those of whole
 * weeks from Monday 2000-01-03.  False when an end is no timestamp.  raises: no
 */
extern bool ingest_range_step(TimestampTz at, const Interval *every, IngestTimeRange *range);

/*
 * Keys of type date, timestamp and timestamptz as moments, and back; what is
 * beyond timestamps is infinite.  raises: no
 */
extern TimestampTz ingest_range_from_key(Oid type, Datum key);
extern Datum ingest_range_to_key(Oid type, TimestampTz at);

/*
 * A partition of the table holds "at", a default partition aside; with or
 * without one that is being detached concurrently.  raises: no
 */
extern bool ingest_range_covered(Relation table, TimestampTz at, bool with_detached);

/* "at" is not covered: cut the range where it meets partitions that are there. */
extern void ingest_range_cut(Relation table, TimestampTz at, IngestTimeRange *range);

/* OIDs of the partitions whose ranges end at limit or before.  raises: no */
extern List *ingest_range_until(Relation table, TimestampTz limit);

#endif							/* INGEST_PARTITION_RANGE_H */
