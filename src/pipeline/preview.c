/*
 * preview.c
 *		What would happen to the next messages: verdicts, nothing else.
 *
 * The messages go through the same attempt as in a turn, load included, in a
 * subtransaction that is undone; no position is claimed or moved.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/position.h"
#include "core/clock.h"
#include "core/compat.h"
#include "miscadmin.h"
#include "pipeline/attempt.h"
#include "pipeline/run.h"
#include "pipeline/usersql.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* How long to wait for messages that the source says it has. */
#define PREVIEW_WAIT_MS 30000

/* From where the pipeline stands, or would begin. */
static void
assign_all_shards(IngestRun *run, char ***ends)
{
	const IngestSourceOps *ops = run->source->ops;
	IngestStart start = run->prepared->pl->positioned ? INGEST_START_EARLIEST : run->prepared->start;
	IngestShard *shards;
	IngestError err = {0};
	int			nshards;

	run->source->peek = true;
	if (ops->use_sql)
		ops->use_sql(run->source);
	if (!ops->list_shards(run->source, &shards, &nshards, &err))
		ingest_error_report(&err, ERROR);
	ingest_position_read(run->pipeline_id, shards, nshards, CurrentMemoryContext);
	*ends = palloc0(sizeof(char *) * Max(nshards, 1));
	for (int i = 0; i < nshards; i++)
	{
		if (shards[i].position == NULL &&
			!ops->find_position(run->source, &shards[i], start, run->prepared->start_at,
								&shards[i].position, &err))
			ingest_error_report(&err, ERROR);
		if (!ops->find_end(run->source, &shards[i], &(*ends)[i], &err))
			ingest_error_report(&err, ERROR);
	}
	if (!ops->assign(run->source, shards, nshards, &err))
		ingest_error_report(&err, ERROR);
	run->batch->shards = shards;
	run->batch->nshards = nshards;
}

static bool
at_end(const IngestRun *run, char **ends)
{
	for (int i = 0; i < run->batch->nshards; i++)
		if (!ingest_source_reached(run->source->ops, run->batch->shards[i].position, ends[i]))
			return false;
	return true;
}

static void
wait_for_source(IngestRun *run)
{
	pgsocket	fd;
	long		timeout;

	run->source->ops->wait_hint(run->source, &fd, &timeout);
	if (timeout < 0 || timeout > 1000)
		timeout = 1000;
	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
							 (fd != PGINVALID_SOCKET ? WL_SOCKET_READABLE : 0),
							 fd, timeout, ingest_compat_wait_event("IngestPreview"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Until there are enough, or no more. */
static void
fetch_some(IngestRun *run, char **ends)
{
	int64		deadline = ingest_clock_ms() + PREVIEW_WAIT_MS;

	while (!ingest_batch_full(run->batch) && !at_end(run, ends))
	{
		IngestError err = {0};
		int			gap_shard;

		switch (run->source->ops->fetch(run->source, run->batch, &gap_shard, &err))
		{
			case INGEST_FETCH_GOT:
			case INGEST_FETCH_SHARDS:
			case INGEST_FETCH_WHOLE:
				CHECK_FOR_INTERRUPTS();
				break;
			case INGEST_FETCH_EMPTY:
				if (ingest_clock_ms() >= deadline)
					return;
				wait_for_source(run);
				break;
			case INGEST_FETCH_ERROR:
				ingest_error_report(&err, ERROR);
				break;
		}
	}
}

/*
 * Go through the messages and undo it; through a part of them only when many
 * make errors.
 */
static void
attempt_rest(IngestRun *run, IngestVerdictFn take, void *arg)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	IngestAttempt att = {
		.mcxt = run->turn_mcxt,
		.prepared = run->prepared,
		.source = run->source,
		.batch = run->batch,
		.first = run->done,
		.take_notes = true,
		.preview = true
	};

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(run->turn_mcxt);
	(void) ingest_usersql_begin(run->prepared->pl);
	att.lane = ingest_load_choose(run->prepared->pl, NULL);
	ingest_attempt_run(&att);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;

	for (int i = 0; i < att.nnotes; i++)
		take(&att.notes[i].verdict, run->prepared->rowtype, arg);
	run->done = att.settled;
}

void
ingest_preview(int32 pipeline_id, int64 limit, IngestVerdictFn take, void *arg)
{
	IngestRun  *run = ingest_run_open(pipeline_id, -1, CurrentMemoryContext);
	MemoryContext oldcontext = MemoryContextSwitchTo(run->shard_mcxt);
	char	  **ends;

	run->batch->limits.rows = limit;
	assign_all_shards(run, &ends);
	fetch_some(run, ends);
	/* A source may give a page at a time. */
	run->batch->nmessages = (int) Min(run->batch->nmessages, limit);
	MemoryContextSwitchTo(oldcontext);

	while (run->done < run->batch->nmessages)
	{
		MemoryContextReset(run->turn_mcxt);
		attempt_rest(run, take, arg);
	}
	ingest_run_close(run);
}
