/*
 * partition.h
 *		Ranges of a time-partitioned target: created when a batch needs them,
 *		ahead of time, and dropped when they are old.
 */
#ifndef INGEST_PARTITION_H
#define INGEST_PARTITION_H

#include "postgres.h"

#include "pipeline/load.h"
#include "utils/rel.h"

/* Partitioned by range of one column that is a time.  raises: no */
extern bool ingest_partition_possible(Relation target);

/* What ingest.manage_partitions() was told, as of one load. */
typedef struct IngestPartitionPolicy IngestPartitionPolicy;

/*
 * The policy of a relation, in CurrentMemoryContext; NULL when its partitions
 * are not managed.  xact: in.  raises: yes
 */
extern IngestPartitionPolicy *ingest_partition_policy(Relation target);

/*
 * There is no partition for this key: may one be made?  False: *err says why
 * not (NULL, outside the bounds, too many new ones in this load).  raises: no
 */
extern bool ingest_partition_accepts(const IngestPartitionPolicy *policy, Datum key, bool isnull,
									 IngestLoadError *err);

/*
 * Create the partition that an accepted key needs, as the current user, in
 * this transaction, waiting for locks no longer than lock_timeout; afterwards
 * there is one, by us or by somebody else.  The target is not open.
 * raises: yes
 */
extern void ingest_partition_create(IngestPartitionPolicy *policy, Datum key);

/*
 * Upkeep of one target's policy: make the ranges ahead, drop what is older
 * than keep; forget the policy of a table that is gone.  Works as the table's
 * owner, if the policy's owner still may.  A partition that cannot be dropped
 * now is a WARNING.  A transaction of its own is best.
 * xact: in, with a snapshot.  raises: yes
 */
extern void ingest_partition_upkeep(Oid target);

#endif							/* INGEST_PARTITION_H */
