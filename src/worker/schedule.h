/*
 * schedule.h
 *		When a pipeline runs: all the time, or every so often.
 */
#ifndef INGEST_SCHEDULE_H
#define INGEST_SCHEDULE_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct IngestSchedule
{
	bool		continuous;
	Interval	every;			/* when it is not continuous */
} IngestSchedule;

/*
 * 'continuous', or an interval of at least a second such as '5 minutes'.  False:
 * it is neither.  raises: out of memory
 */
extern bool ingest_schedule_find(const char *text, IngestSchedule *schedule);

/*
 * raises: ERRCODE_INVALID_PARAMETER_VALUE or ERRCODE_FEATURE_NOT_SUPPORTED with
 * a hint, when it is no schedule
 */
extern void ingest_schedule_check(const char *text);

/*
 * The run after the one that was due at "previous" (0: there was none): runs
 * that were missed are not made up for, so it is always after "now", and at
 * most one interval after it, wherever the clock was when "previous" was
 * written down.  Pure.  raises: when the timestamp is out of range
 */
extern TimestampTz ingest_schedule_next(const IngestSchedule *schedule, TimestampTz previous,
										TimestampTz now);

/* The run stored as due at "next" (0: none) is due now.  Pure. */
extern bool ingest_schedule_is_due(const IngestSchedule *schedule, TimestampTz next,
								   TimestampTz now);

#endif							/* INGEST_SCHEDULE_H */
