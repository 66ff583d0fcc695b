/*
 * batch.h
 *		The messages of one turn, as a source delivered them.
 *
 * A source appends, the pipeline reads, nobody keeps a pointer past
 * ingest_batch_reset().  The bytes of a message belong to the source (they
 * may be the library's own buffers) and stay valid until its release().
 */
#ifndef INGEST_BATCH_H
#define INGEST_BATCH_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct IngestMessage
{
	const char *payload;		/* NULL: no value (a tombstone) */
	const char *key;			/* NULL: no key */
	int32		payload_len;
	int32		key_len;
	int32		shard;			/* index in batch->shards */
	bool		has_timestamp;
	bool		repeated;		/* the source knows that it was delivered before: passed over */
	TimestampTz timestamp;
	int64		offset;			/* of the source, ascending within a shard */
	void	   *handle;			/* the source's own; NULL in a replayed message */
	const char *headers;		/* of a replayed message: JSON text or NULL */
} IngestMessage;

/* Anything to decode? */
static inline bool
ingest_message_has_rows(const IngestMessage *msg)
{
	return msg->payload != NULL && !msg->repeated;
}

/* A part of a source that is read in order and has a position of its own. */
typedef struct IngestShard
{
	int32		number;			/* a Kafka partition; decides which worker owns it */
	char	   *name;			/* key in the catalog: "0", "1", ... */
	char	   *position;		/* where to go on, in the source's words; NULL: not yet known */
	char	   *proof;			/* fingerprint of what was read last, or NULL */
	int64		epoch;			/* of the claim on the position row */
	char	   *end;			/* end of the source as last seen, or NULL */
	int64		lag;			/* messages between position and end; -1 unknown */
	int64		stored_lag;		/* as of the last commit; -1 unknown */
} IngestShard;

typedef struct IngestBatchLimits
{
	int64		rows;			/* messages */
	int64		bytes;
} IngestBatchLimits;

typedef struct IngestBatch
{
	MemoryContext mcxt;			/* of what a source allocates per batch; reset with it */

	IngestMessage *messages;
	int			nmessages;
	int			max_messages;	/* allocated */
	int64		bytes;			/* payload and key */

	/*
	 * The shards this worker reads.  position/proof/end/lag are those after
	 * the whole batch, also when it holds no message (control records).
	 * Allocated in the context of the open source.
	 */
	IngestShard *shards;
	int			nshards;

	IngestBatchLimits limits;
} IngestBatch;

/* An empty batch, in a context of its own under parent. */
extern IngestBatch *ingest_batch_create(MemoryContext parent, IngestBatchLimits limits);

/* A place for one more message, zeroed; grows the array.  raises: out of memory */
extern IngestMessage *ingest_batch_append(IngestBatch *batch);

/* True when a limit is reached. raises: no */
extern bool ingest_batch_full(const IngestBatch *batch);

/* Forget the messages; keeps shards and limits. The source has released them. raises: no */
extern void ingest_batch_reset(IngestBatch *batch);

#endif							/* INGEST_BATCH_H */
