/*
 * run.c
 *		A pipeline made ready in this process: opened, its shards assigned,
 *		messages fetched, gaps passed.
 *
 * What happens to the messages is in turn.c; when to do what is decided by the
 * worker, or by ingest.run().
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/gap.h"
#include "catalog/position.h"
#include "core/clock.h"
#include "core/fault.h"
#include "miscadmin.h"
#include "pipeline/run.h"
#include "pipeline/usersql.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Positions that move without a message (control records, holes left by
 * compaction), and ends that move without us, are committed at most this often:
 * an idle pipeline rests.
 */
#define IDLE_COMMIT_MS 10000

/* ---- transactions ---- */

void
ingest_run_error(IngestRun *run, IngestError *err, const ErrorData *edata)
{
	MemoryContext oldcontext;

	MemoryContextReset(run->error_mcxt);
	oldcontext = MemoryContextSwitchTo(run->error_mcxt);
	ingest_error_from_edata(err, edata);
	ingest_error_blame_definition(err);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * An error value of a source, kept in the run's memory; sources allocate in
 * the context that was current.
 */
static void
keep_error(IngestRun *run, IngestError *err)
{
	IngestError copy;

	/* err may itself be what the context holds */
	ingest_error_copy(&copy, err, CurrentMemoryContext);
	MemoryContextReset(run->error_mcxt);
	ingest_error_copy(err, &copy, run->error_mcxt);
}

bool
ingest_run_in_transaction(IngestRun *run, const IngestXact *xact,
						  void (*work) (IngestRun *, void *), void *arg, IngestError *err)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	volatile ResourceOwner oldowner = NULL;
	volatile bool in_subxact = false;
	volatile bool ok = false;

	PG_TRY();
	{
		xact->begin();
		oldowner = CurrentResourceOwner;
		BeginInternalSubTransaction(NULL);
		in_subxact = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(run->turn_mcxt);
		work(run, arg);
		PopActiveSnapshot();
		ReleaseCurrentSubTransaction();
		in_subxact = false;
		CurrentResourceOwner = oldowner;
		MemoryContextSwitchTo(run->turn_mcxt);
		INGEST_FAULT("before-commit");
		xact->commit();
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(run->turn_mcxt);
		edata = CopyErrorData();
		FlushErrorState();
		/* One whose beginning has failed could not be released. */
		if (in_subxact && !xact->ends_all)
		{
			RollbackAndReleaseCurrentSubTransaction();
			CurrentResourceOwner = oldowner;
		}
		MemoryContextSwitchTo(run->turn_mcxt);
		xact->rollback();
		ingest_run_error(run, err, edata);
	}
	PG_END_TRY();

	MemoryContextSwitchTo(oldcontext);
	return ok;
}

/* ---- opening and closing ---- */

static void
close_source(IngestRun *run)
{
	if (run->source)
	{
		ingest_run_release_batch(run);
		ingest_source_close(run->source);
		run->source = NULL;
	}
	if (run->opened && run->opened != run->prepared)
		ingest_prepared_free(run->opened);
	run->opened = NULL;
	run->assigned = false;
}

/* However the source is closed, it gets its messages back before. */
static void
release_messages(void *arg)
{
	IngestRun  *run = arg;

	run->source->ops->release(run->source, run->batch);
	run->batch->nmessages = 0;
}

static bool
open_source(IngestRun *run, IngestError *err)
{
	MemoryContextCallback *callback;

	run->source = ingest_source_open(run->prepared->rel, run->mcxt, err);
	if (run->source == NULL)
		return false;
	callback = MemoryContextAllocZero(run->source->mcxt, sizeof(*callback));
	callback->func = release_messages;
	callback->arg = run;
	MemoryContextRegisterResetCallback(run->source->mcxt, callback);
	run->source->background = run->ordinal >= 0;
	run->source->patient = run->patient;
	run->opened = run->prepared;
	run->reopen = false;
	return true;
}

static IngestBatchLimits
batch_limits(const IngestPipeline *pl)
{
	IngestBatchLimits limits = {pl->options.batch_rows, pl->options.batch_bytes};

	return limits;
}

void
ingest_run_replace_prepared(IngestRun *run, IngestPrepared *prepared)
{
	IngestPrepared *old = run->prepared;

	if (!ingest_prepared_same_source(old, prepared))
		run->reopen = true;
	if (old->pl->options.workers != prepared->pl->options.workers)
		run->assigned = false;
	run->prepared = prepared;
	run->batch->limits = batch_limits(prepared->pl);
	if (old != run->opened)
		ingest_prepared_free(old);
}

IngestRun *
ingest_run_open(int32 pipeline_id, int32 ordinal, MemoryContext parent)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest run", ALLOCSET_DEFAULT_SIZES);
	IngestRun  *run = MemoryContextAllocZero(mcxt, sizeof(IngestRun));
	IngestError err = {0};

	run->mcxt = mcxt;
	run->turn_mcxt = AllocSetContextCreate(mcxt, "ingest turn", ALLOCSET_DEFAULT_SIZES);
	run->shard_mcxt = AllocSetContextCreate(mcxt, "ingest shards", ALLOCSET_SMALL_SIZES);
	run->pending_mcxt = AllocSetContextCreate(mcxt, "ingest pending error", ALLOCSET_SMALL_SIZES);
	run->error_mcxt = AllocSetContextCreate(mcxt, "ingest error", ALLOCSET_SMALL_SIZES);
	run->pipeline_id = pipeline_id;
	run->ordinal = ordinal;
	run->gap_shard = -1;

	PG_TRY();
	{
		run->prepared = ingest_prepared_make(pipeline_id, mcxt);
		ingest_pipeline_check_trust(run->prepared->pl);
		run->batch = ingest_batch_create(mcxt, batch_limits(run->prepared->pl));
		if (!open_source(run, &err))
			ingest_error_report(&err, ERROR);
	}
	PG_CATCH();
	{
		MemoryContextDelete(mcxt);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return run;
}

void
ingest_run_close(IngestRun *run)
{
	close_source(run);
	MemoryContextDelete(run->mcxt);
}

void
ingest_run_set_cause(IngestRun *run, IngestCause cause, TimestampTz began)
{
	run->cause = cause;
	run->began = began;
}

void
ingest_run_set_patient(IngestRun *run, bool patient)
{
	run->patient = patient;
	if (run->source)
		run->source->patient = patient;
}

void
ingest_run_set_slice(IngestRun *run, const char *prefix, const char *from, const char *to)
{
	run->slice_prefix = prefix;
	run->slice_from = from;
	run->slice_to = to;
}

const char *
ingest_run_slice_end(const IngestRun *run, int shard)
{
	return run->slice_ends ? run->slice_ends[shard] : NULL;
}

const IngestPipeline *
ingest_run_pipeline(const IngestRun *run)
{
	return run->prepared->pl;
}

IngestSource *
ingest_run_source(const IngestRun *run)
{
	return run->source;
}

IngestBatch *
ingest_run_batch(const IngestRun *run)
{
	return run->batch;
}

void
ingest_run_release_batch(IngestRun *run)
{
	if (run->source && run->batch->nmessages > 0)
		run->source->ops->release(run->source, run->batch);
	ingest_batch_reset(run->batch);
	run->done = 0;
	run->first_at = 0;
	run->whole = false;
}

void
ingest_run_reset(IngestRun *run)
{
	ingest_run_release_batch(run);
	ingest_error_reset(&run->pending);
	run->gap_shard = -1;
	run->assigned = false;
}

bool
ingest_run_moved(const IngestRun *run)
{
	for (int i = 0; i < run->batch->nshards; i++)
	{
		const IngestShard *shard = &run->batch->shards[i];

		if (shard->position && run->stored[i] &&
			(shard->lag != shard->stored_lag || strcmp(shard->position, run->stored[i]) != 0))
			return true;
	}
	return false;
}

/* ---- asking the source ---- */

/* A question to a source, and whether it could answer. */
typedef struct Question
{
	bool		(*ask) (IngestRun *run, void *arg, IngestError *err);
	void	   *arg;
	IngestError *err;
	bool		answered;
} Question;

/* Reading is reading: whatever a view of the source calls, nothing is written. */
static void
ask_with_sql(IngestRun *run, void *arg)
{
	Question   *question = arg;
	const IngestPipeline *pl = run->prepared->pl;
	int			level = ingest_usersql_begin(pl);
	bool		armed = ingest_usersql_arm(pl);

	XactReadOnly = true;
	PG_TRY();
	{
		question->answered = question->ask(run, question->arg, question->err);
	}
	PG_FINALLY();
	{
		ingest_usersql_disarm(armed);
	}
	PG_END_TRY();
	ingest_usersql_end(level);
}

/* Outside transactions, or, when the source is read with SQL, in one of its own. */
static bool
ask_source(IngestRun *run, const IngestXact *xact,
		   bool (*ask) (IngestRun *run, void *arg, IngestError *err), void *arg, IngestError *err)
{
	Question	question = {ask, arg, err};

	if (!run->source->ops->in_transaction)
		return ask(run, arg, err);
	if (ingest_run_in_transaction(run, xact, ask_with_sql, &question, err))
		return question.answered;
	if (err->sqlstate == ERRCODE_READ_ONLY_SQL_TRANSACTION)
		err->class = INGEST_ERROR_CONFIG;	/* a source that writes */
	return false;
}

/* ---- assigning ---- */

/* All shards of the source, and the first positions that were found for some. */
typedef struct Assignment
{
	IngestShard *all;
	int			nall;
	IngestShard *ours;			/* in the context of the assignment to be */
	int			nours;
	MemoryContext mcxt;			/* of ours */
	IngestStart where;			/* to find positions, with a time */
	TimestampTz at;
	char	  **found;			/* positions by index in all, or NULL */
	char	  **ends;			/* of the parts, likewise */
	bool		start;			/* they are where the pipeline starts */
} Assignment;

static bool
is_ours(const IngestRun *run, const IngestShard *shard)
{
	return run->ordinal < 0 ||
		shard->number % Max(run->prepared->pl->options.workers, 1) == run->ordinal;
}

static void
choose_shards(IngestRun *run, Assignment *as)
{
	as->ours = MemoryContextAllocZero(as->mcxt, sizeof(IngestShard) * Max(as->nall, 1));
	for (int i = 0; i < as->nall; i++)
		if (is_ours(run, &as->all[i]))
		{
			IngestShard *shard = &as->ours[as->nours++];

			shard->number = as->all[i].number;
			shard->name = MemoryContextStrdup(as->mcxt, as->all[i].name);
			shard->lag = -1;
		}
}

/* A part of the source: where it begins and ends in our shards. */
static bool
ask_slices(IngestRun *run, Assignment *as, IngestError *err)
{
	for (int i = 0; i < as->nall; i++)
		if (!run->source->ops->slice(run->source, &as->all[i], run->slice_from, run->slice_to,
									 &as->found[i], &as->ends[i], err))
			return false;
	return true;
}

static bool
ask_positions(IngestRun *run, Assignment *as, IngestError *err)
{
	if (run->slice_prefix)
		return ask_slices(run, as, err);
	for (int i = 0; i < as->nall; i++)
		if (as->all[i].position == NULL &&
			!run->source->ops->find_position(run->source, &as->all[i], as->where, as->at,
											 &as->found[i], err))
			return false;
	return true;
}

static bool
do_ask_positions(IngestRun *run, void *arg, IngestError *err)
{
	return ask_positions(run, arg, err);
}

/* Ask the source where to begin; only for shards of the list that have no position. */
static bool
find_positions(IngestRun *run, const IngestXact *xact, Assignment *as, IngestStart start,
			   TimestampTz at, IngestError *err)
{
	as->where = start;
	as->at = at;
	as->found = palloc0(sizeof(char *) * Max(as->nall, 1));
	as->ends = palloc0(sizeof(char *) * Max(as->nall, 1));
	return ask_source(run, xact, do_ask_positions, as, err);
}

/* Store what was found, then claim our shards. */
static void
store_and_claim(IngestRun *run, void *arg)
{
	Assignment *as = arg;

	if (as->found && (!as->start || ingest_position_first(run->pipeline_id)))
		for (int i = 0; i < as->nall; i++)
			if (as->found[i])
				ingest_position_add(run->pipeline_id, as->all[i].name, as->found[i]);
	ingest_position_claim(run->pipeline_id, as->ours, as->nours, as->mcxt);
}

/* Of the listed shards, leave only ours without a position in need of one. */
static bool
mark_missing(Assignment *as)
{
	bool		missing = false;

	for (int i = 0; i < as->nall; i++)
	{
		as->all[i].position = "";
		for (int j = 0; j < as->nours; j++)
			if (as->ours[j].number == as->all[i].number && as->ours[j].position == NULL)
			{
				as->all[i].position = NULL;
				missing = true;
			}
	}
	return missing;
}

/*
 * Positions for all our shards.  A pipeline that has never run begins where
 * start_at says, in all shards there are; shards that appear later begin at
 * their beginning.  The source is asked between transactions.
 */
static bool
claim_shards(IngestRun *run, const IngestXact *xact, Assignment *as, IngestError *err)
{
	if (run->slice_prefix)
		return find_positions(run, xact, as, INGEST_START_EARLIEST, 0, err) &&
			ingest_run_in_transaction(run, xact, store_and_claim, as, err);
	if (!run->positioned && !run->prepared->pl->positioned)
	{
		as->start = true;
		if (!find_positions(run, xact, as, run->prepared->start, run->prepared->start_at, err))
			return false;
	}
	if (!ingest_run_in_transaction(run, xact, store_and_claim, as, err))
		return false;
	run->positioned = true;
	if (!mark_missing(as))
		return true;

	as->start = false;
	return find_positions(run, xact, as, INGEST_START_EARLIEST, 0, err) &&
		ingest_run_in_transaction(run, xact, store_and_claim, as, err);
}

static void
adopt_assignment(IngestRun *run, Assignment *as)
{
	run->stored = MemoryContextAllocZero(as->mcxt, sizeof(char *) * Max(as->nours, 1));
	for (int i = 0; i < as->nours; i++)
		run->stored[i] = MemoryContextStrdup(as->mcxt, as->ours[i].position);
	run->slice_ends = NULL;
	if (run->slice_prefix)
	{
		run->slice_ends = MemoryContextAllocZero(as->mcxt, sizeof(char *) * Max(as->nours, 1));
		for (int i = 0; i < as->nours; i++)
			if (as->ends[i])
				run->slice_ends[i] = MemoryContextStrdup(as->mcxt, as->ends[i]);
	}
	run->batch->shards = as->ours;
	run->batch->nshards = as->nours;
	MemoryContextDelete(run->shard_mcxt);
	run->shard_mcxt = as->mcxt;
	run->assigned = true;
	run->committed_at = ingest_clock_ms();
}

/* Shards that nothing will come of any more are left out. */
static void
drop_finished(IngestRun *run, void *arg)
{
	Assignment *as = arg;
	int			kept = 0;

	ingest_position_read(run->pipeline_id, as->all, as->nall, CurrentMemoryContext);
	for (int i = 0; i < as->nall; i++)
	{
		IngestShard *shard = &as->all[i];

		if (shard->position && run->source->ops->is_finished(run->source, shard->position))
			continue;
		shard->position = shard->proof = NULL;
		as->all[kept++] = *shard;
	}
	as->nall = kept;
}

static void
use_sql(IngestRun *run, void *arg)
{
	int			level = ingest_usersql_begin(run->prepared->pl);

	run->source->ops->use_sql(run->source);
	ingest_usersql_end(level);
}

/* A part has positions of its own. */
static bool
name_parts(const IngestRun *run, Assignment *as)
{
	for (int i = 0; run->slice_prefix && i < as->nall; i++)
		as->all[i].name = psprintf("%s%s", run->slice_prefix, as->all[i].name);
	return true;
}

static bool
assign_shards(IngestRun *run, const IngestXact *xact, IngestError *err)
{
	Assignment	as = {0};

	if (run->reopen)
		close_source(run);
	if (run->source == NULL && !open_source(run, err))
		return false;

	/* Messages of the assignment before are not ours any more. */
	ingest_run_release_batch(run);
	if (run->source->ops->use_sql && !ingest_run_in_transaction(run, xact, use_sql, NULL, err))
		return false;
	as.mcxt = AllocSetContextCreate(run->mcxt, "ingest shards", ALLOCSET_SMALL_SIZES);
	if (run->source->ops->list_shards(run->source, &as.all, &as.nall, err) &&
		name_parts(run, &as) &&
		(run->source->ops->is_finished == NULL ||
		 ingest_run_in_transaction(run, xact, drop_finished, &as, err)))
	{
		choose_shards(run, &as);
		if (claim_shards(run, xact, &as, err) &&
			run->source->ops->assign(run->source, as.ours, as.nours, err))
		{
			adopt_assignment(run, &as);
			return true;
		}
	}
	MemoryContextDelete(as.mcxt);
	return false;
}

bool
ingest_run_assign(IngestRun *run, const IngestXact *xact, IngestError *err)
{
	MemoryContext oldcontext;
	bool		ok;

	INGEST_FAULT("before-assign");
	MemoryContextReset(run->turn_mcxt);
	oldcontext = MemoryContextSwitchTo(run->turn_mcxt);
	run->assigned = false;
	ok = assign_shards(run, xact, err);
	if (!ok)
		keep_error(run, err);
	MemoryContextSwitchTo(oldcontext);
	return ok;
}

/* ---- fetching ---- */

static long
milliseconds_left(int64 since, int64 wait)
{
	int64		left = wait - (ingest_clock_ms() - since);

	return (long) Max(left, 0);
}

/* An error ends the fetch; messages that came before it are dealt with first. */
static IngestReady
fetch_failed(IngestRun *run, int gap_shard, IngestError *err)
{
	MemoryContextReset(run->pending_mcxt);
	if (err->class == INGEST_ERROR_GAP)
	{
		run->gap_shard = gap_shard;
		run->gap_reason = MemoryContextStrdup(run->pending_mcxt,
											  err->detail ? err->detail : err->message);
	}
	if (run->batch->nmessages > 0)
	{
		ingest_error_copy(&run->pending, err, run->pending_mcxt);
		ingest_error_reset(err);
		return INGEST_READY_TURN;
	}
	keep_error(run, err);
	return INGEST_READY_ERROR;
}

/* Nothing to fetch now: is there something to do, or how long to wait? */
static IngestReady
fetch_nothing(IngestRun *run, pgsocket *fd, long *timeout)
{
	long		left = -1;

	if (run->batch->nmessages > 0)
		left = milliseconds_left(run->first_at, run->prepared->pl->options.batch_wait);
	else if (ingest_run_moved(run))
		left = milliseconds_left(run->committed_at, IDLE_COMMIT_MS);
	if (left == 0)
		return INGEST_READY_TURN;

	run->source->ops->wait_hint(run->source, fd, timeout);
	if (left > 0 && (*timeout < 0 || left < *timeout))
		*timeout = left;
	return INGEST_READY_WAIT;
}

typedef struct Fetch
{
	IngestFetch result;
	int			gap_shard;
} Fetch;

/* What came from behind the end of the part is not of it. */
static void
pass_over_rest(IngestRun *run, int first)
{
	const IngestSourceOps *ops = run->source->ops;

	for (int m = first; m < run->batch->nmessages; m++)
	{
		IngestMessage *msg = &run->batch->messages[m];
		const char *end = run->slice_ends[msg->shard];
		char	   *position;
		char	   *proof;

		if (end == NULL)
			continue;
		ops->position_after(run->source, run->batch, msg, &position, &proof);
		msg->repeated = ops->distance(end, position) > 0;
	}
}

static bool
do_fetch(IngestRun *run, void *arg, IngestError *err)
{
	Fetch	   *fetch = arg;
	int			before = run->batch->nmessages;

	fetch->result = run->source->ops->fetch(run->source, run->batch, &fetch->gap_shard, err);
	if (run->slice_ends)
		pass_over_rest(run, before);
	return fetch->result != INGEST_FETCH_ERROR;
}

static IngestReady
fetch_messages(IngestRun *run, const IngestXact *xact, pgsocket *fd, long *timeout, IngestError *err)
{
	IngestBatch *batch = run->batch;

	for (;;)
	{
		Fetch		fetch = {INGEST_FETCH_ERROR, -1};

		CHECK_FOR_INTERRUPTS();
		if (!ask_source(run, xact, do_fetch, &fetch, err))
			fetch.result = INGEST_FETCH_ERROR;
		switch (fetch.result)
		{
			case INGEST_FETCH_GOT:
				break;
			case INGEST_FETCH_EMPTY:
				return fetch_nothing(run, fd, timeout);
			case INGEST_FETCH_SHARDS:
				run->assigned = false;
				return batch->nmessages > 0 ? INGEST_READY_TURN : INGEST_READY_ASSIGN;
			case INGEST_FETCH_WHOLE:
				run->whole = true;
				return INGEST_READY_TURN;
			case INGEST_FETCH_ERROR:
				return fetch_failed(run, fetch.gap_shard, err);
		}
		if (batch->nmessages == 0)
			continue;
		if (run->first_at == 0)
			run->first_at = ingest_clock_ms();
		if (ingest_batch_full(batch) ||
			milliseconds_left(run->first_at, run->prepared->pl->options.batch_wait) == 0)
		{
			INGEST_FAULT("after-fetch");
			return INGEST_READY_TURN;
		}
	}
}

IngestReady
ingest_run_fetch(IngestRun *run, const IngestXact *xact, pgsocket *fd, long *timeout,
				 IngestError *err)
{
	MemoryContext oldcontext;
	IngestReady ready;

	*fd = PGINVALID_SOCKET;
	*timeout = -1;
	if (run->done < run->batch->nmessages && run->done > 0)
		return INGEST_READY_TURN;
	if (run->pending.class != INGEST_ERROR_NONE)
	{
		*err = run->pending;
		ingest_error_reset(&run->pending);
		keep_error(run, err);
		return INGEST_READY_ERROR;
	}
	if (!run->assigned || run->reopen || run->source == NULL)
		return INGEST_READY_ASSIGN;

	/* Turns and assignments have reset it; what a fetch leaves is little. */
	oldcontext = MemoryContextSwitchTo(run->turn_mcxt);
	if (run->batch->nmessages == 0)
		MemoryContextReset(run->turn_mcxt);
	ready = fetch_messages(run, xact, fd, timeout, err);
	MemoryContextSwitchTo(oldcontext);
	return ready;
}

/* ---- gaps ---- */

typedef struct GapSkip
{
	IngestShard shard;			/* position: where to go on */
	const char *from;
	int64		messages;
} GapSkip;

static void
store_gap(IngestRun *run, void *arg)
{
	GapSkip    *gap = arg;

	ingest_position_move(run->pipeline_id, &gap->shard, gap->from);
	ingest_gap_add(run->pipeline_id, gap->shard.name, gap->from, gap->shard.position,
				   gap->messages, run->gap_reason, "on_gap");
}

/*
 * Where to go on: at the source's first message.  That is behind us when the
 * source was made anew under the same name, or was cut; which of the two cannot
 * be told, and to read something twice is better than not at all.
 */
static bool
find_gap_end(IngestRun *run, GapSkip *gap, IngestError *err)
{
	const IngestSourceOps *ops = run->source->ops;

	if (!ops->find_position(run->source, &gap->shard, INGEST_START_EARLIEST, 0,
							&gap->shard.position, err))
		return false;
	gap->messages = ops->distance(gap->from, gap->shard.position);
	gap->shard.proof = NULL;
	return true;
}

bool
ingest_run_skip_gap(IngestRun *run, const IngestXact *xact, IngestError *err)
{
	MemoryContext oldcontext;
	GapSkip		gap = {0};
	bool		ok;

	if (run->gap_shard < 0 || run->prepared->pl->options.on_gap == 0)
		return false;

	MemoryContextReset(run->turn_mcxt);
	oldcontext = MemoryContextSwitchTo(run->turn_mcxt);
	gap.shard = run->batch->shards[run->gap_shard];
	gap.from = run->stored[run->gap_shard];
	ok = find_gap_end(run, &gap, err) &&
		ingest_run_in_transaction(run, xact, store_gap, &gap, err);
	if (ok)
	{
		ereport(WARNING,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("pipeline \"%s\" skipped a gap in shard \"%s\", from %s to %s",
						run->prepared->pl->name, gap.shard.name, gap.from, gap.shard.position),
				 errdetail("%s", run->gap_reason)));
		ingest_run_reset(run);
	}
	else
		keep_error(run, err);
	MemoryContextSwitchTo(oldcontext);
	return ok;
}
