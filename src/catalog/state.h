/*
 * state.h
 *		ingest._state and ingest._worker: why a pipeline does not run, and the
 *		mark a worker leaves while it does.
 */
#ifndef INGEST_CATALOG_STATE_H
#define INGEST_CATALOG_STATE_H

#include "postgres.h"

#include "core/error.h"
#include "datatype/timestamp.h"

typedef enum IngestHalt
{
	INGEST_HALT_NONE,
	INGEST_HALT_PAUSED,			/* the error budget is used up */
	INGEST_HALT_FAILED,			/* a permanent error, a rule with on_violation 'fail', crashes */
	INGEST_HALT_BROKEN,			/* the definition no longer fits */
	INGEST_HALT_GAP				/* a part of the source cannot be read */
} IngestHalt;

/* All: xact: in, raises: yes. */

/* Stop until an operator calls ingest.start(); NULL error for none. */
extern void ingest_state_halt(int32 pipeline_id, IngestHalt halt, const IngestError *err);

/* Count a failure and back off until retry_at; the error is shown. Returns attempts. */
extern int	ingest_state_retry(int32 pipeline_id, const IngestError *err, TimestampTz retry_at);

/* Things go well again: forget attempts, crashes and the error. No write when there are none. */
extern void ingest_state_well(int32 pipeline_id);

/* ingest.start(): forget the halt, the back-off and the budget's past. */
extern void ingest_state_clear(int32 pipeline_id);

/* A worker begins / ended well. */
extern void ingest_state_worker_begin(int32 pipeline_id, int32 ordinal, int pid);
extern void ingest_state_worker_end(int32 pipeline_id, int32 ordinal);

/*
 * Workers of the table whose process is gone: count a crash for each of their
 * pipelines, forget the row; halts a pipeline as failed after
 * INGEST_MAX_CRASHES in a row without a committed batch.
 */
#define INGEST_MAX_CRASHES 3
extern void ingest_state_reap(void);

#endif							/* INGEST_CATALOG_STATE_H */
