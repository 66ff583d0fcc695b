/*
 * turn.c
 *		The story of one turn: a batch from source to target in one
 *		transaction, with its dead letters, its record and its positions.
 *
 * The chapters are elsewhere: fetching in run.c, decode, rules and load in
 * attempt.c, the rest behind the headers below.
 */
#include "postgres.h"

#include "catalog/batch_history.h"
#include "catalog/dead_letter.h"
#include "catalog/position.h"
#include "core/clock.h"
#include "core/fault.h"
#include "pipeline/attempt.h"
#include "pipeline/refresh.h"
#include "pipeline/run.h"
#include "pipeline/transform.h"
#include "pipeline/usersql.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Where a shard stands after the turn. */
typedef struct ShardMove
{
	char	   *position;		/* NULL: it has not moved */
	char	   *proof;
	int64		lag;
} ShardMove;

typedef struct Turn
{
	IngestAttempt attempt;
	TimestampTz started_at;
	int			settled;		/* messages of the batch that are dealt with */
	ShardMove  *moves;			/* by shard */
	IngestCounts counts;
	bool		stopped;		/* the pipeline was stopped or dropped */
	bool		outdated;		/* the batch is of a source that is no longer ours */
	IngestError over_budget;
} Turn;

/* ---- the definition ---- */

/*
 * One version of the definition serves the whole batch: the present one.
 * False: there is nothing to do for this batch.
 */
static bool
refresh_definition(IngestRun *run, Turn *turn)
{
	bool		enabled;
	int64		version = ingest_pipeline_version(run->pipeline_id, &enabled);

	if (version < 0 || (!enabled && run->ordinal >= 0))
	{
		turn->stopped = true;
		return false;
	}
	if (version != run->prepared->pl->version || !ingest_prepared_current(run->prepared))
	{
		ingest_run_replace_prepared(run, ingest_prepared_make(run->pipeline_id, run->mcxt));
		if (run->reopen)
		{
			turn->outdated = true;
			return false;
		}
	}
	return true;
}

/* ---- messages ---- */

static void
prepare_attempt(IngestRun *run, IngestAttempt *att, MemoryContext mcxt)
{
	memset(att, 0, sizeof(*att));
	att->mcxt = mcxt;
	att->prepared = run->prepared;
	att->lane = ingest_load_choose(run->prepared->pl, NULL);
	att->source = run->source;
	att->batch = run->batch;
	att->first = run->done;
	att->stride = run->stride;
}

/* Decode, rules, load; what was rejected; transforms over what was accepted. */
static void
load_batch(IngestRun *run, Turn *turn, int64 batch_id)
{
	const IngestPipeline *pl = run->prepared->pl;
	IngestAttempt *att = &turn->attempt;

	prepare_attempt(run, att, run->turn_mcxt);
	ingest_attempt_run(att);

	ingest_dead_letter_write(att->letters, pl->id, pl->version, batch_id);
	if (att->counts.written > 0)
		ingest_transforms_run(pl, att->accepted, run->prepared->rowtype);
	ingest_attempt_end(att);
	turn->settled = att->settled;
	turn->counts = att->counts;
}

/*
 * A source that is read whole: batch after batch in this one transaction, until
 * there is nothing more; the target is what the source is, or stays as it was.
 */
static void
load_whole(IngestRun *run, Turn *turn, int64 batch_id)
{
	const IngestPipeline *pl = run->prepared->pl;
	MemoryContext mcxt = AllocSetContextCreate(run->turn_mcxt, "ingest part", ALLOCSET_DEFAULT_SIZES);
	IngestRefresh *refresh = ingest_refresh_begin(run);

	while (ingest_refresh_fetch(refresh))
	{
		IngestAttempt *att = &turn->attempt;

		MemoryContextReset(mcxt);
		prepare_attempt(run, att, mcxt);
		att->tell_dropped = true;
		ingest_attempt_run(att);
		ingest_dead_letter_write(att->letters, pl->id, pl->version, batch_id);
		ingest_refresh_take(refresh, att);
		ingest_attempt_end(att);
		ingest_rules_store_counts(run->prepared->rules, pl->id);
		ingest_counts_add(&turn->counts, &att->counts);
	}
	ingest_refresh_finish(refresh, &turn->counts, batch_id);
	turn->settled = run->batch->nmessages;
}

/* ---- positions ---- */

/* The last settled message of a shard, or NULL; *more: there are unsettled ones. */
static const IngestMessage *
last_settled(const IngestRun *run, const Turn *turn, int shard, bool *more)
{
	const IngestBatch *batch = run->batch;

	*more = false;
	for (int m = turn->settled; m < batch->nmessages && !*more; m++)
		*more = batch->messages[m].shard == shard;
	for (int m = turn->settled - 1; m >= run->done; m--)
		if (batch->messages[m].shard == shard)
			return &batch->messages[m];
	return NULL;
}

static void
find_move(IngestRun *run, Turn *turn, int i)
{
	const IngestSourceOps *ops = run->source->ops;
	IngestShard *shard = &run->batch->shards[i];
	ShardMove  *move = &turn->moves[i];
	const IngestMessage *last = NULL;
	bool		more = false;

	if (turn->settled < run->batch->nmessages)
		last = last_settled(run, turn, i, &more);

	if (!more)
	{
		/* All of its messages: it stands where the source stands. */
		move->position = shard->position ? pstrdup(shard->position) : NULL;
		move->proof = shard->proof ? pstrdup(shard->proof) : NULL;
		move->lag = shard->lag;
	}
	else if (last)
	{
		ops->position_after(run->source, run->batch, last, &move->position, &move->proof);
		move->lag = shard->end ? ops->distance(move->position, shard->end) : -1;
	}
	/* A lag alone is worth a commit when there is nothing else to do. */
	if (move->position && strcmp(move->position, run->stored[i]) == 0 &&
		(run->batch->nmessages > 0 || move->lag == shard->stored_lag))
		move->position = NULL;
}

static void
find_moves(IngestRun *run, Turn *turn)
{
	turn->moves = palloc0(sizeof(ShardMove) * Max(run->batch->nshards, 1));
	for (int i = 0; i < run->batch->nshards; i++)
		find_move(run, turn, i);
}

static void
move_positions(IngestRun *run, Turn *turn)
{
	INGEST_FAULT("before-position");
	for (int i = 0; i < run->batch->nshards; i++)
	{
		IngestShard shard = run->batch->shards[i];

		if (turn->moves[i].position == NULL)
			continue;
		shard.position = turn->moves[i].position;
		shard.proof = turn->moves[i].proof;
		shard.lag = turn->moves[i].lag;
		ingest_position_move(run->pipeline_id, &shard, run->stored[i]);
	}
}

/* What was committed is where we stand. */
static void
adopt_positions(IngestRun *run, const Turn *turn)
{
	for (int i = 0; i < run->batch->nshards; i++)
	{
		IngestShard *shard = &run->batch->shards[i];

		if (turn->moves[i].position)
		{
			pfree(run->stored[i]);
			run->stored[i] = MemoryContextStrdup(run->shard_mcxt, turn->moves[i].position);
			shard->stored_lag = turn->moves[i].lag;
		}
	}
	run->committed_at = ingest_clock_ms();
}

/* ---- the record ---- */

/* {"0": ["from", "to"], ...} of the shards that moved. */
static char *
describe_moves(const IngestRun *run, const Turn *turn)
{
	StringInfoData buf;
	const char *separator = "";

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < run->batch->nshards; i++)
	{
		if (turn->moves[i].position == NULL)
			continue;
		appendStringInfoString(&buf, separator);
		escape_json(&buf, run->batch->shards[i].name);
		appendStringInfoString(&buf, ": [");
		escape_json(&buf, run->stored[i]);
		appendStringInfoString(&buf, ", ");
		escape_json(&buf, turn->moves[i].position);
		appendStringInfoChar(&buf, ']');
		separator = ", ";
	}
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

static void
record_batch(IngestRun *run, Turn *turn, int64 batch_id)
{
	IngestBatchRecord record = {
		.pipeline_id = run->pipeline_id,
		.version = run->prepared->pl->version,
		.kind = "turn",
		.worker = run->ordinal,
		.lane = ingest_load_choose(run->prepared->pl, NULL)->name,
		.counts = turn->counts,
		.shards = describe_moves(run, turn),
		.cause = run->cause,
		.run = run->began,
		.started_at = turn->started_at
	};

	ingest_batch_record(batch_id, &record);
}

/*
 * Too many rejects?  The batch is committed all the same, nothing is lost by
 * it; what comes next has to wait for somebody to look.
 */
static void
check_budget(IngestRun *run, Turn *turn)
{
	const IngestPipelineOptions *options = &run->prepared->pl->options;

	if (turn->counts.rejected == 0)
		return;

	if (options->error_limit >= 0)
	{
		int64		count = ingest_batch_error_count(run->pipeline_id);

		if (count > options->error_limit)
		{
			ingest_error_set(&turn->over_budget, INGEST_ERROR_PAUSE, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
							 "pipeline \"%s\" has rejected more rows than its error budget allows",
							 run->prepared->pl->name);
			ingest_error_detail(&turn->over_budget,
								"There are " INT64_FORMAT " dead letters since it was started; error_limit is " INT64_FORMAT ".",
								count, options->error_limit);
		}
	}
	if (options->error_rate < 1 && turn->over_budget.class == INGEST_ERROR_NONE)
	{
		int64		read;
		int64		rejected;

		ingest_batch_error_rate(run->pipeline_id, options->error_window, &read, &rejected);
		if (read >= options->error_window &&
			rejected > options->error_rate * read)
		{
			ingest_error_set(&turn->over_budget, INGEST_ERROR_PAUSE, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
							 "pipeline \"%s\" rejects a larger share of rows than its error budget allows",
							 run->prepared->pl->name);
			ingest_error_detail(&turn->over_budget,
								"Of the last " INT64_FORMAT " rows " INT64_FORMAT " were rejected; error_rate is %g.",
								read, rejected, options->error_rate);
		}
	}
	if (turn->over_budget.class != INGEST_ERROR_NONE)
		ingest_error_hint(&turn->over_budget,
						  "Look at ingest.dead_letter; ingest.start() goes on.");
}

/* ---- the turn ---- */

/* A function of the owner may have said SET ROLE, which lasts: the next batch is the owner's again. */
static void
keep_role(const char *role)
{
	if (strcmp(GetConfigOption("role", false, false), role) != 0)
		SetConfigOption("role", role, PGC_USERSET, PGC_S_SESSION);
}

/* Everything between BEGIN and COMMIT. */
static void
do_turn(IngestRun *run, void *arg)
{
	Turn	   *turn = arg;
	bool		has_messages = run->done < run->batch->nmessages || run->whole;
	int64		batch_id = 0;
	int			level;

	if (!refresh_definition(run, turn))
		return;
	ingest_pipeline_check_trust(run->prepared->pl);

	if (has_messages)
	{
		char	   *role = pstrdup(GetConfigOption("role", false, false));

		level = ingest_usersql_begin(run->prepared->pl);
		batch_id = ingest_batch_next_id();
		if (run->whole)
			load_whole(run, turn, batch_id);
		else
			load_batch(run, turn, batch_id);
		ingest_usersql_end(level);
		keep_role(role);
	}
	find_moves(run, turn);
	if (has_messages)
	{
		/* before the positions: whoever changes a pipeline locks in this order */
		record_batch(run, turn, batch_id);
		check_budget(run, turn);
	}
	move_positions(run, turn);
	if (has_messages)
		/* last, since workers of one pipeline meet here */
		ingest_rules_store_counts(run->prepared->rules, run->pipeline_id);
}

/* After the commit, nothing can go wrong that matters. */
static void
acknowledge(IngestRun *run)
{
	const IngestSourceOps *ops = run->source->ops;
	IngestShard *shards;

	INGEST_FAULT("before-acknowledge");
	if (!run->prepared->pl->options.acknowledge || ops->acknowledge == NULL)
		return;
	shards = palloc(sizeof(IngestShard) * Max(run->batch->nshards, 1));
	for (int i = 0; i < run->batch->nshards; i++)
	{
		shards[i] = run->batch->shards[i];
		shards[i].position = run->stored[i];
	}
	ops->acknowledge(run->source, shards, run->batch->nshards);
}

static void
finish_turn(IngestRun *run, Turn *turn)
{
	adopt_positions(run, turn);
	acknowledge(run);

	run->stride = turn->attempt.stride;
	if (turn->settled < run->batch->nmessages)
		run->done = turn->settled;
	else
		ingest_run_release_batch(run);

	if (turn->over_budget.class != INGEST_ERROR_NONE)
	{
		MemoryContextReset(run->pending_mcxt);
		ingest_error_copy(&run->pending, &turn->over_budget, run->pending_mcxt);
	}
}

bool
ingest_run_turn(IngestRun *run, const IngestXact *xact, IngestCounts *counts, IngestError *err)
{
	MemoryContext oldcontext;
	Turn		turn = {.started_at = GetCurrentTimestamp()};
	bool		ok;

	memset(counts, 0, sizeof(*counts));
	ingest_error_reset(err);
	if (run->source == NULL || !run->assigned ||
		(run->batch->nmessages == 0 && !run->whole && !ingest_run_moved(run)))
		return true;

	INGEST_FAULT("before-turn");
	MemoryContextReset(run->turn_mcxt);
	oldcontext = MemoryContextSwitchTo(run->turn_mcxt);
	ok = ingest_run_in_transaction(run, xact, do_turn, &turn, err);
	run->source->in_turn = false;
	run->whole = false;
	if (!ok && run->refused)
		err->class = INGEST_ERROR_PAUSE;
	run->refused = false;
	if (ok && turn.stopped)
		ok = false;				/* and *err is of class NONE */
	else if (ok && turn.outdated)
		ingest_run_release_batch(run);
	else if (ok)
	{
		INGEST_FAULT("after-commit");
		finish_turn(run, &turn);
		*counts = turn.counts;
	}
	MemoryContextSwitchTo(oldcontext);
	return ok;
}

static void
do_refresh(IngestRun *run, void *arg)
{
	Turn	   *turn = arg;

	if (refresh_definition(run, turn))
		ingest_pipeline_check_trust(run->prepared->pl);
}

bool
ingest_run_refresh(IngestRun *run, const IngestXact *xact, IngestError *err)
{
	Turn		turn = {0};

	ingest_error_reset(err);
	MemoryContextReset(run->turn_mcxt);
	return ingest_run_in_transaction(run, xact, do_refresh, &turn, err) && !turn.stopped;
}
