/*
 * batch.c
 *		The array of messages that a source appends to and a turn reads.
 *
 * Knows nothing of sources or positions; the messages' bytes are not copied.
 */
#include "postgres.h"

#include "pipeline/batch.h"
#include "utils/memutils.h"

#define FIRST_MESSAGES 256

IngestBatch *
ingest_batch_create(MemoryContext parent, IngestBatchLimits limits)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest batch", ALLOCSET_DEFAULT_SIZES);
	IngestBatch *batch = MemoryContextAllocZero(parent, sizeof(IngestBatch));

	batch->mcxt = mcxt;
	batch->limits = limits;
	return batch;
}

IngestMessage *
ingest_batch_append(IngestBatch *batch)
{
	IngestMessage *msg;

	if (unlikely(batch->nmessages == batch->max_messages))
	{
		int			wanted = batch->max_messages ? batch->max_messages * 2 : FIRST_MESSAGES;
		Size		size = (Size) wanted * sizeof(IngestMessage);

		batch->messages = batch->messages ?
			repalloc_huge(batch->messages, size) :
			MemoryContextAllocHuge(MemoryContextGetParent(batch->mcxt), size);
		batch->max_messages = wanted;
	}
	msg = &batch->messages[batch->nmessages++];
	memset(msg, 0, sizeof(*msg));
	return msg;
}

bool
ingest_batch_full(const IngestBatch *batch)
{
	return batch->nmessages >= batch->limits.rows || batch->bytes >= batch->limits.bytes;
}

/* The array stays for the next batch, which is likely to be as large. */
void
ingest_batch_reset(IngestBatch *batch)
{
	MemoryContextReset(batch->mcxt);
	batch->nmessages = 0;
	batch->bytes = 0;
}
