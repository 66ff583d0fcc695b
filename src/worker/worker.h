/*
 * worker.h
 *		The processes: launcher, supervisor, worker; and how others wake them.
 *
 *	launcher     one a cluster, static, without a database: starts a supervisor
 *	             in every database that may have the extension
 *	supervisor   one a database: decides which workers should exist
 *	worker       one or more a running pipeline: runs turns as its owner
 */
#ifndef INGEST_WORKER_H
#define INGEST_WORKER_H

#include "postgres.h"

/* Shared memory and the launcher, from _PG_init under shared_preload_libraries. */
extern void ingest_worker_init(void);

/* The library was preloaded: background running is possible. raises: no */
extern bool ingest_worker_available(void);

/* raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE with a hint when it is not */
extern void ingest_worker_check_available(void);

/*
 * When the current transaction commits, tell the supervisor of this database
 * (and the launcher, when there is none yet) to look again.  Nothing happens
 * on rollback.  raises: out of memory
 */
extern void ingest_worker_wake_at_commit(void);

/*
 * The lock that keeps pipelines from running twice: session-level, released at
 * exit.  A worker takes (id, ordinal) alone and (id, all) shared; a foreground
 * run takes (id, all) alone.  false when somebody has it.
 */
extern bool ingest_worker_lock(int32 pipeline_id, int32 ordinal);
extern void ingest_worker_unlock(int32 pipeline_id, int32 ordinal);

/* The same for its backfills, of which one runs at a time. */
extern bool ingest_worker_lock_backfill(int32 pipeline_id);
extern void ingest_worker_unlock_backfill(int32 pipeline_id);

#endif							/* INGEST_WORKER_H */
