/*
 * lock.h
 *		The lock that keeps a pipeline from running twice: the waiting form.
 *
 * Everybody else tries and gives up (worker.h).
 */
#ifndef INGEST_WORKER_LOCK_H
#define INGEST_WORKER_LOCK_H

#include "postgres.h"

/* As ingest_worker_lock(), but waits, interruptibly.  raises: on interrupt */
extern void ingest_worker_lock_wait(int32 pipeline_id, int32 ordinal);

#endif							/* INGEST_WORKER_LOCK_H */
