/*
 * load_fitness.h
 *		What keeps a relation from being written by the direct lane.
 */
#ifndef INGEST_LOAD_FITNESS_H
#define INGEST_LOAD_FITNESS_H

#include "postgres.h"

#include "utils/rel.h"

/*
 * A constant text that follows "because", or NULL.  The target is looked at
 * with its partitions, for a role that row security may apply to; a partition, when it is opened, once more by itself,
 * since it may have changed meanwhile.  raises: yes
 */
extern const char *ingest_load_target_obstacle(Relation target, Oid role);
extern const char *ingest_load_partition_obstacle(Relation partition);

/* Row triggers that may change or discard what is inserted; raises: no */
extern bool ingest_load_has_before_triggers(Relation rel);

#endif							/* INGEST_LOAD_FITNESS_H */
