/*
 * turn.h
 *		One turn: a batch from source to target in one transaction, together
 *		with its dead letters, its record and its positions.
 *
 * turn.c is the only file that knows all stages.  A run is a pipeline made
 * ready in this process: the worker keeps one, ingest.run() opens one.
 */
#ifndef INGEST_TURN_H
#define INGEST_TURN_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "catalog/batch_history.h"
#include "catalog/pipeline.h"
#include "core/error.h"
#include "pipeline/batch.h"
#include "source/source.h"

typedef struct IngestRun IngestRun;

/*
 * Read the definition, check trust, open the source.  ordinal of workers
 * decides which shards are ours; -1: all (foreground).
 * xact: in (the source is opened without I/O).  mcxt: a context under parent.
 * raises: yes
 */
extern IngestRun *ingest_run_open(int32 pipeline_id, int32 ordinal, MemoryContext parent);

/* Why there is this run, and when it began (0: it is a stream's), for the history.  raises: no */
extern void ingest_run_set_cause(IngestRun *run, IngestCause cause, TimestampTz began);

/* Whether what the source could leave to a next run is waited for, from now on.  raises: no */
extern void ingest_run_set_patient(IngestRun *run, bool patient);

/*
 * Read a part of the source only, see IngestSourceOps.slice: with positions of its own,
 * of shards whose names begin with "prefix".  Before the first assignment; the texts
 * have to stay.  raises: no
 */
extern void ingest_run_set_slice(IngestRun *run, const char *prefix, const char *from, const char *to);

/* Where the part ends in the n-th assigned shard; NULL: where the source says. */
extern const char *ingest_run_slice_end(const IngestRun *run, int shard);

extern const IngestPipeline *ingest_run_pipeline(const IngestRun *run);
extern IngestSource *ingest_run_source(const IngestRun *run);
extern IngestBatch *ingest_run_batch(const IngestRun *run);

/*
 * Find out about the shards, resolve missing positions, claim them, assign.
 * Network I/O happens between transactions, which begin/commit here through
 * the given functions (a worker: Start/CommitTransactionCommand; the
 * procedure: SPI_commit).  xact: out.  false: *err
 */
typedef struct IngestXact
{
	void		(*begin) (void);
	void		(*commit) (void);
	void		(*rollback) (void);
	bool		ends_all;		/* rollback ends subtransactions, too */
} IngestXact;

extern bool ingest_run_assign(IngestRun *run, const IngestXact *xact, IngestError *err);

/*
 * Fetch until the batch is full or batch_wait has passed since its first
 * message.  Never waits itself: returns what the worker should do.
 *
 * Errors: a GAP may be passed by ingest_run_skip_gap(); PAUSE comes after a
 * turn that used up the error budget (its batch is committed).  The strings of
 * an error of these functions live until the run is closed or the next error.
 */
typedef enum IngestReady
{
	INGEST_READY_TURN,			/* call ingest_run_turn() */
	INGEST_READY_WAIT,			/* wait for the source's hint, at most *timeout ms */
	INGEST_READY_ASSIGN,		/* call ingest_run_assign() */
	INGEST_READY_ERROR			/* *err */
} IngestReady;

extern IngestReady ingest_run_fetch(IngestRun *run, const IngestXact *xact, pgsocket *fd,
									long *timeout, IngestError *err);

/*
 * One transaction over the fetched batch (or, when loading it needs too many
 * subtransactions, over its beginning: the rest stays for the next turn).
 * Errors of the data are dealt with inside; false: the transaction was rolled
 * back, *err says why, the batch stays fetched and may be tried again; with
 * class NONE the pipeline was stopped or dropped meanwhile.  May be called at
 * any time: without messages it commits positions that moved, or nothing.
 * *counts gets what was committed.  Afterwards acknowledges.
 * xact: out
 */
extern bool ingest_run_turn(IngestRun *run, const IngestXact *xact, IngestCounts *counts,
							IngestError *err);

/*
 * Take over a definition that changed, between turns: for a run that waits and
 * would not notice before the next message.  false: *err, of class NONE when the
 * pipeline was stopped or dropped.  xact: out
 */
extern bool ingest_run_refresh(IngestRun *run, const IngestXact *xact, IngestError *err);

/* A gap was reported by fetch: skip it when on_gap says so, with a row in ingest._gap. */
extern bool ingest_run_skip_gap(IngestRun *run, const IngestXact *xact, IngestError *err);

/*
 * Forget what was fetched and start anew from the stored positions (after an
 * error, or when positions were moved by somebody else).
 */
extern void ingest_run_reset(IngestRun *run);

/* Close everything, deletes the run's context. */
extern void ingest_run_close(IngestRun *run);

/*
 * Dead letters once more through today's definition, in the caller's
 * transaction; each locked, each at most once.  ids: of pending dead letters.
 * Returns the counts.  xact: in.  raises: yes
 */
extern IngestCounts ingest_replay(int32 pipeline_id, const int64 *ids, int nids);

/* Verdicts for ingest.preview(): nothing is consumed, nothing is written. */
typedef struct IngestVerdict
{
	const char *shard;
	int64		offset;
	int32		row_number;
	const char *verdict;		/* "accepted", "rejected", "dropped", "warned", "failed", "skipped" */
	const char *stage;			/* or NULL */
	const char *rule;
	int			sqlstate;
	const char *message;
	const char *column;
	HeapTuple	row;			/* of the source's row type, or NULL */
	const char *payload;
	Size		payload_len;
} IngestVerdict;

typedef void (*IngestVerdictFn) (const IngestVerdict *verdict, TupleDesc rowtype, void *arg);

/* Up to "limit" messages from where the pipeline stands. xact: in. raises: yes */
extern void ingest_preview(int32 pipeline_id, int64 limit, IngestVerdictFn take, void *arg);

#endif							/* INGEST_TURN_H */
