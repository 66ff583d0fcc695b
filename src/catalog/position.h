/*
 * position.h
 *		ingest._position: how far each shard was read.
 */
#ifndef INGEST_CATALOG_POSITION_H
#define INGEST_CATALOG_POSITION_H

#include "postgres.h"

#include "pipeline/batch.h"

/*
 * Claim the shards: fill in the stored position and proof and take a new
 * epoch; whoever held them before can no longer commit.  Shards without a row
 * keep position NULL; their names decide nothing else.
 * xact: in.  mcxt of strings: the given one.  raises: yes
 */
extern void ingest_position_claim(int32 pipeline_id, IngestShard *shards, int nshards,
								  MemoryContext mcxt);

/*
 * The stored positions and proofs, without claiming: for looking only.  Shards
 * without one keep position NULL.  xact: in.  raises: yes
 */
extern void ingest_position_read(int32 pipeline_id, IngestShard *shards, int nshards,
								 MemoryContext mcxt);

/*
 * Insert the first position of a shard (epoch 0).  Does nothing when there is
 * one already.  xact: in.  raises: yes
 */
extern void ingest_position_add(int32 pipeline_id, const char *shard, const char *position);

/*
 * Take the right to resolve the start position: true for the one caller that
 * finds the pipeline without one (holds a row lock until its transaction
 * ends); shards that appear later begin at their beginning.  xact: in
 */
extern bool ingest_position_first(int32 pipeline_id);

/*
 * Compare and set: move the shard from "from" to shard->position under
 * shard->epoch.  raises: ERRCODE_T_R_SERIALIZATION_FAILURE when somebody else
 * moved or claimed it.  xact: in
 */
extern void ingest_position_move(int32 pipeline_id, const IngestShard *shard, const char *from);

#endif							/* INGEST_CATALOG_POSITION_H */
