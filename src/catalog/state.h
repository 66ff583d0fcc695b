/*
 * state.h
 *		ingest._state: why a pipeline does not run, and when it does again.
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

/* All: xact: in, raises: yes.  A pipeline that was dropped meanwhile is passed over. */

/* Stop until an operator calls ingest.start(); NULL error for none. */
extern void ingest_state_halt(int32 pipeline_id, IngestHalt halt, const IngestError *err);

/* Count a failure and back off until retry_at; the error is shown.  Returns attempts. */
extern int	ingest_state_retry(int32 pipeline_id, const IngestError *err, TimestampTz retry_at);

/* Failures in a row until now, and until when to back off (0: not).  raises: yes */
extern int	ingest_state_attempts(int32 pipeline_id, TimestampTz *retry_at);

/*
 * ms that are left of a back-off that was longer than "longest" ms when it
 * began: one that the source had asked for.  0: there is none.
 */
extern int64 ingest_state_asked_wait(int32 pipeline_id, int64 longest);

/* A worker came as far as reading: forget attempts and the error.  No write when there are none. */
extern void ingest_state_recovered(int32 pipeline_id);

/* A batch was committed: forget the crashes, too.  No write when there is nothing. */
extern void ingest_state_well(int32 pipeline_id);

/* ingest.start(): forget the halt, the back-off and the budget's past. */
extern void ingest_state_clear(int32 pipeline_id);

/* The next replacement of the target may lose as many rows as it likes, or not. */
extern void ingest_state_accept_fewer(int32 pipeline_id, bool accept);
extern bool ingest_state_accepts_fewer(int32 pipeline_id);

/* How a run has ended. */
typedef struct IngestRunEnd
{
	bool		completed;		/* all was read; else it was given up, and its error stays */
	int			runs;			/* completed ones that this is the end of */
	TimestampTz started;
	TimestampTz next_run;		/* DT_NOEND: not by the clock; 0: as it was */
	TimestampTz asked_at;		/* the request that it has answered; 0: none */
	int64		duration;		/* ms that a run takes; 0: not known */
	const int64 *seen;			/* counters of the upstream pipelines, or NULL */
	int			nseen;
} IngestRunEnd;

/*
 * Write it down.  False: somebody holds the pipeline's state just now, and nothing
 * was written; unless wait, with which that is waited for.
 */
extern bool ingest_state_run_ended(int32 pipeline_id, const IngestRunEnd *end, bool wait);

/* When the first run is due, before there was one.  False: somebody holds the state. */
extern bool ingest_state_first_run(int32 pipeline_id, TimestampTz next_run);

/* Somebody asks for a run.  False: it has been halted. */
extern bool ingest_state_ask(int32 pipeline_id);

/*
 * A worker of the pipeline died: hold the pipeline back until retry_at, or, after
 * INGEST_MAX_CRASHES in a row without a committed batch, halt it as failed.
 * Returns the crashes in a row.
 */
#define INGEST_MAX_CRASHES 3
extern int	ingest_state_crashed(int32 pipeline_id, TimestampTz retry_at);

/* Crashes in a row until now. */
extern int	ingest_state_crashes(int32 pipeline_id);

#endif							/* INGEST_CATALOG_STATE_H */
