/*
 * waiting.h
 *		Sessions that wait until a pipeline has caught up: CALL ingest.wait_for().
 *
 * In shared memory, so that workers know of them, and nobody asks again and again.
 * A stream's worker that finds somebody new finds out where its shards end at that
 * moment, and tells when all up to there is committed.
 */
#ifndef INGEST_WAITING_H
#define INGEST_WAITING_H

#include "postgres.h"

/* Shared memory, for process.c. */
extern Size ingest_waiting_size(void);
extern void ingest_waiting_start(void);

/* ---- the session ---- */

/*
 * Be known as one that waits, from now on until ingest_waiting_end() or the end of the
 * process; and tell the workers.  Its latch is set when there may be something new.
 */
extern void ingest_waiting_begin(int32 pipeline_id);
extern void ingest_waiting_end(void);

/* Have the workers 0 to nworkers - 1 all caught up since?  raises: no */
extern bool ingest_waiting_is_over(int nworkers);

/* ---- workers ---- */

/*
 * Does somebody wait for this worker?  A number for ingest_waiting_reached(), which
 * means all that waited until now; 0: nobody.  Cheap when nobody does.  raises: no
 */
extern uint64 ingest_waiting_take(int32 pipeline_id, int ordinal);

/* What the source held when that was taken is committed.  raises: no */
extern void ingest_waiting_reached(int32 pipeline_id, int ordinal, uint64 taken);

/* ---- others ---- */

/* The state of some pipeline of this database may have changed.  raises: no */
extern void ingest_waiting_wake(void);

/*
 * Does the process wait, and do nothing else?  Its transaction has written nothing and
 * will not.  raises: no
 */
extern bool ingest_waiting_is(int pid);

#endif							/* INGEST_WAITING_H */
