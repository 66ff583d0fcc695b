/*
 * batch_history.h
 *		ingest._batch: one row for each committed batch.
 */
#ifndef INGEST_CATALOG_BATCH_HISTORY_H
#define INGEST_CATALOG_BATCH_HISTORY_H

#include "postgres.h"

#include "core/error.h"
#include "datatype/timestamp.h"

/* Rows, but for messages and bytes.  read = written + rejected + dropped + merged + skipped. */
typedef struct IngestCounts
{
	int64		messages;
	int64		bytes;
	int64		read;
	int64		written;
	int64		rejected;
	int64		dropped;
	int64		merged;
	int64		skipped;
	int64		warned;
} IngestCounts;

extern void ingest_counts_add(IngestCounts *to, const IngestCounts *from);

/* Why a run began; a stream has none. */
typedef enum IngestCause
{
	INGEST_CAUSE_STREAM,
	INGEST_CAUSE_SCHEDULE,
	INGEST_CAUSE_AFTER,
	INGEST_CAUSE_MANUAL,
	INGEST_CAUSE_REPLAY,
	INGEST_CAUSE_BACKFILL
} IngestCause;

typedef enum IngestOutcome
{
	INGEST_OUTCOME_DONE,
	INGEST_OUTCOME_FAILED,
	INGEST_OUTCOME_TIMEOUT,
	INGEST_OUTCOME_CANCELLED
} IngestOutcome;

typedef struct IngestBatchRecord
{
	int32		pipeline_id;
	int64		version;
	const char *kind;			/* "turn" or "replay" */
	int32		worker;			/* ordinal; -1 foreground */
	const char *lane;
	IngestCounts counts;
	char	   *shards;			/* JSON text: {"0": ["from", "to"]} */
	IngestCause cause;
	TimestampTz run;			/* when the run began; 0: none */
	TimestampTz started_at;
} IngestBatchRecord;

/* An id for the batch, drawn before its dead letters are written. xact: in */
extern int64 ingest_batch_next_id(void);

/*
 * Write the record.  raises: ERRCODE_INTERNAL_ERROR when the counts do not add
 * up, so that the batch does not commit.  xact: in
 */
extern void ingest_batch_record(int64 id, const IngestBatchRecord *record);

/*
 * A run, or a try of one, that has ended without a batch to tell of it: nothing was
 * there, or it failed; run 0: a stream.  A pipeline that is gone, or, for CANCELLED,
 * that was not stopped but halted, is passed over.  err: or NULL.  xact: in.  raises: yes
 */
extern void ingest_batch_record_run(int32 pipeline_id, TimestampTz run, IngestCause cause,
									IngestOutcome outcome, const IngestError *err);

/* Rejected and read rows of the last "window" rows since the pipeline was last started. */
extern void ingest_batch_error_rate(int32 pipeline_id, int64 window, int64 *read, int64 *rejected);

/* Dead letters of the pipeline rejected since it was last started. */
extern int64 ingest_batch_error_count(int32 pipeline_id);

/* Delete all but the last "keep" records; returns how many. xact: in */
extern int64 ingest_batch_trim(int32 pipeline_id, int64 keep);

#endif							/* INGEST_CATALOG_BATCH_HISTORY_H */
