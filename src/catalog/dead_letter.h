/*
 * dead_letter.h
 *		ingest._dead_letter: rows and messages that were rejected.
 */
#ifndef INGEST_CATALOG_DEAD_LETTER_H
#define INGEST_CATALOG_DEAD_LETTER_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef enum IngestStage
{
	INGEST_STAGE_DECODE,
	INGEST_STAGE_RULE,
	INGEST_STAGE_LOAD,
	INGEST_STAGE_TRANSFORM
} IngestStage;

typedef struct IngestDeadLetter
{
	const char *shard;
	int64		offset;
	int32		row_number;		/* within the message, from 1; 0: the whole message */
	const char *payload;		/* NULL: none */
	Size		payload_len;
	const char *key;
	Size		key_len;
	char	   *headers;		/* JSON text or NULL */
	bool		has_timestamp;
	TimestampTz timestamp;
	IngestStage stage;
	const char *rule;			/* or NULL */
	int			sqlstate;		/* 0: none */
	const char *message;
	const char *detail;
	const char *column;
	int64		replay_of;		/* 0: none */
} IngestDeadLetter;

/*
 * Dead letters of one batch, written together: append copies into the list's
 * context; write inserts all of them with one statement (arrays) and forgets
 * them.  truncate takes back those appended after "mark" when a
 * subtransaction was undone.
 */
typedef struct IngestDeadLetterList IngestDeadLetterList;

extern IngestDeadLetterList *ingest_dead_letter_list(MemoryContext parent);
extern void ingest_dead_letter_append(IngestDeadLetterList *list, const IngestDeadLetter *letter);
extern int	ingest_dead_letter_count(const IngestDeadLetterList *list);
extern void ingest_dead_letter_truncate(IngestDeadLetterList *list, int mark);
extern void ingest_dead_letter_write(IngestDeadLetterList *list, int32 pipeline_id,
									 int64 version, int64 batch_id);	/* xact: in, raises */
extern const char *ingest_stage_name(IngestStage stage);

/*
 * Pending dead letters of batches before this one are superseded: all rows of the
 * source were read anew.  xact: in.  raises: yes
 */
extern void ingest_dead_letter_supersede(int32 pipeline_id, int64 batch_id);

#endif							/* INGEST_CATALOG_DEAD_LETTER_H */
