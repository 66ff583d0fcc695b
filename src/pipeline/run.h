/*
 * run.h
 *		A pipeline made ready in this process: what run.c and turn.c share.
 */
#ifndef INGEST_RUN_H
#define INGEST_RUN_H

#include "postgres.h"

#include "pipeline/prepared.h"
#include "pipeline/turn.h"

struct IngestRun
{
	MemoryContext mcxt;
	MemoryContext turn_mcxt;	/* reset before each turn */
	MemoryContext shard_mcxt;	/* of the present assignment */
	MemoryContext pending_mcxt; /* of pending and gap_reason */
	MemoryContext error_mcxt;	/* strings of the last error */
	int32		pipeline_id;
	int32		ordinal;		/* of the workers; -1: alone */
	IngestCause cause;
	TimestampTz began;			/* 0: a stream */
	bool		patient;		/* see IngestSource */
	const char *slice_prefix;	/* of a part of the source; NULL: all of it */
	const char *slice_from;
	const char *slice_to;
	char	  **slice_ends;		/* by assigned shard */

	IngestPrepared *prepared;
	IngestPrepared *opened;		/* what the source was opened with; often the same */
	IngestSource *source;

	IngestBatch *batch;			/* its shards are the assignment */
	char	  **stored;			/* committed position of each shard */
	int			done;			/* messages of the batch that were committed before */
	bool		whole;			/* the source wants to be read within the turn */
	bool		refused;		/* the turn would have left too little: see refresh.c */
	int64		first_at;		/* when the batch's first message came, by ingest_clock_ms(); 0: none */
	int64		committed_at;	/* last time positions were committed, likewise */
	int64		stride;			/* rows to try at once, see attempt.h; 0: all */

	bool		positioned;		/* the start position has been resolved */
	bool		assigned;
	bool		reopen;			/* the source's definition changed */
	IngestError pending;		/* what the next fetch reports */
	int			gap_shard;		/* of the GAP error that was reported last; -1 */
	char	   *gap_reason;
};

/* Give the messages back to the source and forget them. */
extern void ingest_run_release_batch(IngestRun *run);

/* Put a new definition in the place of the present one.  xact: in */
extern void ingest_run_replace_prepared(IngestRun *run, IngestPrepared *prepared);

/* Any shard read further than what is committed, or further from its end? */
extern bool ingest_run_moved(const IngestRun *run);

/*
 * The error that was caught, as a value in the run's memory.  An error in the
 * definition (class 42 and the like) is one of class CONFIG.
 */
extern void ingest_run_error(IngestRun *run, IngestError *err, const ErrorData *edata);

/*
 * Do work in a transaction of its own: begin, a subtransaction that cleans up
 * behind an error also where the transaction is a procedure's, commit.
 * false: rolled back, *err says why.  xact: out
 */
extern bool ingest_run_in_transaction(IngestRun *run, const IngestXact *xact,
									  void (*work) (IngestRun *, void *), void *arg,
									  IngestError *err);

#endif							/* INGEST_RUN_H */
