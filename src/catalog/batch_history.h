/*
 * batch_history.h
 *		ingest._batch: one row for each committed batch.
 */
#ifndef INGEST_CATALOG_BATCH_HISTORY_H
#define INGEST_CATALOG_BATCH_HISTORY_H

#include "postgres.h"

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

typedef struct IngestBatchRecord
{
	int32		pipeline_id;
	int64		version;
	const char *kind;			/* "turn" or "replay" */
	int32		worker;			/* ordinal; -1 foreground */
	const char *lane;
	IngestCounts counts;
	char	   *shards;			/* JSON text: {"0": ["from", "to"]} */
	TimestampTz started_at;
} IngestBatchRecord;

/* An id for the batch, drawn before its dead letters are written. xact: in */
extern int64 ingest_batch_next_id(void);

/*
 * Write the record.  raises: ERRCODE_INTERNAL_ERROR when the counts do not add
 * up, so that the batch does not commit.  xact: in
 */
extern void ingest_batch_record(int64 id, const IngestBatchRecord *record);

/* Rejected and read rows of the last "window" rows since the pipeline was last started. */
extern void ingest_batch_error_rate(int32 pipeline_id, int64 window, int64 *read, int64 *rejected);

/* Dead letters of the pipeline rejected since it was last started. */
extern int64 ingest_batch_error_count(int32 pipeline_id);

/* Delete all but the last "keep" records; returns how many. xact: in */
extern int64 ingest_batch_trim(int32 pipeline_id, int64 keep);

#endif							/* INGEST_CATALOG_BATCH_HISTORY_H */
