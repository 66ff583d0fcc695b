/*
 * foreground.h
 *		Turns in the caller's session.
 */
#ifndef INGEST_FOREGROUND_H
#define INGEST_FOREGROUND_H

#include "postgres.h"

#include "core/compat.h"
#include "fmgr.h"
#include "pipeline/turn.h"
#include "worker/drain.h"

typedef struct IngestForeground
{
	IngestRun  *run;
	const char *label;			/* of the call, for pg_stat_activity */
	int64		max_batches;	/* 0: no limit */

	/* results */
	int64		batches;
	IngestCounts total;

	/* private */
	int			tries;			/* turns in a row that were rolled back */
	IngestDrain *ends;			/* where to stop */
} IngestForeground;

/* Transactions of a procedure that was called by itself, with SPI connected. */
extern const IngestXact ingest_foreground_xact;

/* raises: ERRCODE_INVALID_TRANSACTION_TERMINATION when the call cannot commit */
extern void ingest_foreground_check(FunctionCallInfo fcinfo, const char *procedure);

/* Fill in drain->run, alone with the pipeline.  xact: between commits.  raises: yes */
extern void ingest_foreground_open(IngestForeground *drain, int32 pipeline_id, IngestCause cause,
								   TimestampTz began);

/* Read up to what the source holds now.  xact: between commits.  raises: yes */
extern void ingest_foreground_drain(IngestForeground *drain);

/*
 * In a PG_CATCH, after the first commit of the call: roll back, write down in the
 * history that the run has failed, and raise the error again.  mcxt: of the procedure
 */
pg_noreturn extern void ingest_foreground_fail(int32 pipeline_id, IngestCause cause, TimestampTz began,
											   MemoryContext mcxt);

#endif							/* INGEST_FOREGROUND_H */
