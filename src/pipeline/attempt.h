/*
 * attempt.h
 *		Taking messages through decode, rules and load, and isolating those that
 *		make an error.
 *
 * On the good path everything is one subtransaction.  When it fails by the
 * fault of the data, the messages are gone through again in smaller ranges,
 * each in a subtransaction, until the guilty row stands alone and becomes a
 * dead letter.  Turn, replay and preview all use this.
 */
#ifndef INGEST_ATTEMPT_H
#define INGEST_ATTEMPT_H

#include "postgres.h"

#include "catalog/batch_history.h"
#include "catalog/dead_letter.h"
#include "nodes/bitmapset.h"
#include "pipeline/batch.h"
#include "pipeline/load.h"
#include "pipeline/prepared.h"
#include "pipeline/turn.h"
#include "utils/tuplestore.h"

/* As many rows as there are. */
#define INGEST_STRIDE_ALL PG_INT64_MAX

/* A row: its message, and how many of that message's rows come before. */
typedef struct IngestPlace
{
	int			message;
	int			row;
} IngestPlace;

/* What is being done; with the place, it tells who is to blame for an error. */
typedef enum IngestStep
{
	INGEST_STEP_OPEN,			/* no row */
	INGEST_STEP_DECODE,
	INGEST_STEP_RULE,
	INGEST_STEP_PUT,
	INGEST_STEP_FLUSH,			/* any row since the last flush */
	INGEST_STEP_LAST			/* any row of the range: deferred constraints */
} IngestStep;

/* Of a message that was a dead letter. */
typedef struct IngestReplayed
{
	int64		id;
	int32		row_number;
} IngestReplayed;

/* What became of one row, when the caller wants to know. */
typedef struct IngestNote
{
	IngestPlace place;
	IngestVerdict verdict;
} IngestNote;

typedef struct IngestAttempt
{
	/* given; zeroed otherwise */
	MemoryContext mcxt;			/* of the results */
	const IngestPrepared *prepared;
	const IngestLoadOps *lane;
	IngestSource *source;
	const IngestBatch *batch;
	int			first;			/* message to begin with */
	const IngestReplayed *replayed; /* by message, in a replay */
	bool		take_notes;		/* fill in notes */
	bool		tell_dropped;	/* fill in dropped */
	bool		preview;		/* a rule that fails the pipeline is a verdict only */
	int64		stride;			/* rows to try at once; what is left of earlier trouble */

	/* results */
	int			settled;		/* messages before this one have been dealt with */
	IngestCounts counts;
	IngestDeadLetterList *letters;
	Tuplestorestate *accepted;	/* rows, when the pipeline has transforms */
	IngestNote *notes;
	int			nnotes;
	Bitmapset  *dropped;		/* messages of which a rule dropped a row */

	/* private to attempt.c, verdict.c and collect.c */
	IngestStep	step;
	IngestPlace at;				/* row being worked on */
	int			max_notes;
	MemoryContext try_mcxt;		/* reset for each range */
	MemoryContext row_mcxt;		/* reset after each flush */
	TupleTableSlot *slot;
	int			savepoints;		/* subtransactions spent */
	bool		timed_out;		/* one of them came to statement_timeout */
	int			runaways;		/* rows that did, alone */
	bool		fatal;			/* a rule wants the pipeline to stop */
	bool		full;			/* the transaction holds no more than what comes before "at" */
	struct IngestCollected *collected;	/* when the rules need a query */
} IngestAttempt;

/*
 * Go through batch->messages from "first"; all of them, or as far as a bounded
 * number of subtransactions goes, but always at least one message.  The
 * target is written, everything else is in the results.
 * xact: in, user SQL's settings in force, a snapshot active.
 * raises: what is not the data's fault
 */
extern void ingest_attempt_run(IngestAttempt *att);

/* Rows of one attempt behind those of others. */
extern void ingest_attempt_append_rows(Tuplestorestate *to, Tuplestorestate *from, TupleDesc rowtype);

/* Close what the results hold open; not needed when the transaction is undone. */
extern void ingest_attempt_end(IngestAttempt *att);

#endif							/* INGEST_ATTEMPT_H */
