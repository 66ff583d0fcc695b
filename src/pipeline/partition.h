/*
 * partition.h
 *		Ranges of a time-partitioned target: created when a batch needs them,
 *		ahead of time, and dropped when they are old.
 */
#ifndef INGEST_PARTITION_H
#define INGEST_PARTITION_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "pipeline/load.h"
#include "utils/rel.h"

/*
 * A managed target lacks a partition for this row: what to do?
 * true: from and to are the range to create (ingest_partition_create), false:
 * *err says why not (not managed, outside bounds, too many).
 * key/isnull: the partition key.  xact: in.  raises: yes
 */
extern bool ingest_partition_wanted(Relation target, Datum key, bool isnull,
									Datum *from, Datum *to, IngestLoadError *err);

/*
 * Create the range's partition, as the current user, in this transaction,
 * waiting for locks no longer than lock_timeout.  Does nothing when another
 * transaction made it meanwhile.  The target is not open.  raises: yes
 */
extern void ingest_partition_create(Oid target, Datum from, Datum to);

/*
 * Upkeep of one target's policy: make the ranges ahead, detach and drop what
 * is older than keep.  One transaction of its own, as the policy's owner.
 * xact: in.  raises: yes
 */
extern void ingest_partition_upkeep(Oid target);

#endif							/* INGEST_PARTITION_H */
