/*
 * drain.c
 *		Reading up to what the source holds now, and no further: for runs that
 *		end, scheduled or called for.
 *
 * Shards that appear after the beginning are left to the next run.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "worker/drain.h"

struct IngestDrain
{
	int			nshards;
	char	  **names;
	char	  **ends;
};

static IngestDrain *
find_ends(const IngestRun *run, const IngestBatch *batch, IngestError *err)
{
	IngestSource *src = ingest_run_source(run);
	IngestDrain *drain = palloc0(sizeof(*drain));

	drain->nshards = batch->nshards;
	drain->names = palloc0(sizeof(char *) * Max(batch->nshards, 1));
	drain->ends = palloc0(sizeof(char *) * Max(batch->nshards, 1));
	for (int i = 0; i < batch->nshards; i++)
	{
		const char *end = ingest_run_slice_end(run, i);

		drain->names[i] = pstrdup(batch->shards[i].name);
		if (end)
			drain->ends[i] = pstrdup(end);
		else if (!src->ops->find_end(src, &batch->shards[i], &drain->ends[i], err))
			return NULL;
	}
	return drain;
}

IngestDrain *
ingest_drain_begin(IngestRun *run, MemoryContext parent, IngestError *err)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest drain", ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	IngestDrain *drain = find_ends(run, ingest_run_batch(run), err);

	MemoryContextSwitchTo(oldcontext);
	if (drain == NULL)
	{
		IngestError copy;

		ingest_error_copy(&copy, err, oldcontext);
		*err = copy;
		MemoryContextDelete(mcxt);
	}
	return drain;
}

static const char *
find_end(const IngestDrain *drain, const IngestShard *shard)
{
	for (int i = 0; i < drain->nshards; i++)
		if (strcmp(drain->names[i], shard->name) == 0)
			return drain->ends[i];
	return NULL;
}

bool
ingest_drain_is_done(const IngestDrain *drain, IngestRun *run)
{
	const IngestSourceOps *ops = ingest_run_source(run)->ops;
	const IngestBatch *batch = ingest_run_batch(run);

	for (int i = 0; i < batch->nshards; i++)
	{
		const IngestShard *shard = &batch->shards[i];
		const char *end = find_end(drain, shard);

		if (end == NULL)
			continue;
		if (!ingest_source_reached(ops, shard->position, end))
			return false;
	}
	return true;
}

int64
ingest_drain_count_left(const IngestDrain *drain, IngestRun *run)
{
	const IngestSourceOps *ops = ingest_run_source(run)->ops;
	const IngestBatch *batch = ingest_run_batch(run);
	int64		left = 0;

	for (int i = 0; i < batch->nshards; i++)
	{
		const IngestShard *shard = &batch->shards[i];
		const char *end = find_end(drain, shard);
		int64		distance;

		if (end == NULL || shard->position == NULL)
			continue;
		distance = ops->distance(shard->position, end);
		if (distance < 0 && ops->distance(end, shard->position) < 0)
			return -1;
		left += Max(distance, 0);
	}
	return left;
}
