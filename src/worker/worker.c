/*
 * worker.c
 *		The worker: one pipeline, or its share of one; makes turns as the
 *		pipeline's owner.
 *
 * What a turn is, is in pipeline/turn.c.  Here: when to make one, when to wait,
 * and what an error leads to.  There is one place to wait for messages and one
 * to wait after a failure; no transaction, snapshot or lock is held in either.
 *
 * Whatever goes wrong comes as an IngestError, raised errors too.  Transient:
 * wait in this process and go on; a process for each try would be dear.
 * Everything else: write down why and end; an operator has to look.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pipeline.h"
#include "catalog/state.h"
#include "common/pg_prng.h"
#include "core/clock.h"
#include "core/compat.h"
#include "core/guc.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "pipeline/turn.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "worker/backoff.h"
#include "worker/drain.h"
#include "worker/lock.h"
#include "worker/marker.h"
#include "worker/process.h"
#include "worker/schedule.h"
#include "worker/session.h"
#include "worker/waiting.h"

/* An idle worker looks at its definition at least this often. */
#define LOOK_INTERVAL_MS	60000

/*
 * What ended the process before may end this one, too, and the messages that were
 * not written come again: such an error is taken for over when nothing has happened
 * for a while, or a batch was committed.
 */
#define PROBATION_MS		5000

/* Deadlocks and positions moved by somebody else: tries before it is a failure. */
#define MAX_QUICK_TRIES		5
#define QUICK_PAUSE_MS		50

typedef struct Worker
{
	int32		id;				/* of the pipeline */
	int32		ordinal;
	MemoryContext mcxt;
	MemoryContext error_mcxt;	/* of errors caught here */

	IngestRun  *run;			/* NULL: to be opened */
	char	   *name;			/* of the pipeline */
	char	   *activity;		/* what pg_stat_activity shows during work */
	char	   *schedule;
	IngestDrain *drain;			/* of a scheduled run, once it is assigned */
	bool		continuous;

	/* Of a stream, for those who wait until it has come there; NULL: nobody does. */
	IngestDrain *fence;
	MemoryContext fence_mcxt;
	uint64		fence_for;		/* by ingest_waiting_take() */

	int64		retries;		/* of a run; -1: no limit */
	int			attempts;		/* failures in a row */
	int			quick_tries;
	bool		unwell;			/* the state may show an error that is over */
	int64		probation;		/* not before this, by ingest_clock_ms(); 0 when the source's answer is enough */
	bool		unproven;		/* no batch committed since the start or an error */
	bool		failed_turn;	/* the error was met with messages in hand */
	int64		looked_at;		/* at the definition, likewise */

	bool		done;			/* with this work; result says how it went */
	IngestResult result;
} Worker;

/* ---- context of messages ---- */

static void
add_context(void *arg)
{
	Worker	   *w = arg;

	if (w->name)
		errcontext("ingest pipeline \"%s\", worker %d", w->name, w->ordinal);
	else
		errcontext("ingest pipeline %d, worker %d", w->id, w->ordinal);
}

static void
show_name(Worker *w)
{
	char	   *text = psprintf("ingest: %s[%d]", w->name, w->ordinal);

	SetConfigOption("application_name", text, PGC_USERSET, PGC_S_SESSION);
	pfree(text);
	if (w->activity)
		pfree(w->activity);
	text = psprintf("turns of pipeline %s", quote_identifier(w->name));
	w->activity = MemoryContextStrdup(w->mcxt, text);
	pfree(text);
}

static void wait_before_retry(Worker *w, int64 delay);

/* ---- the definition ---- */

static void
adopt_definition(Worker *w)
{
	const IngestPipeline *pl = ingest_run_pipeline(w->run);
	IngestSchedule schedule;

	if (w->schedule && strcmp(w->schedule, pl->schedule) != 0)
		ingest_process_exit(INGEST_RESULT_YIELDED); /* come back with the new one */
	if (w->schedule == NULL)
	{
		w->schedule = MemoryContextStrdup(w->mcxt, pl->schedule);
		w->continuous = !ingest_schedule_find(pl->schedule, &schedule) || schedule.kind == INGEST_SCHEDULE_CONTINUOUS;
	}
	if (w->name == NULL || strcmp(w->name, pl->name) != 0)
	{
		if (w->name)
			pfree(w->name);
		w->name = MemoryContextStrdup(w->mcxt, pl->name);
		show_name(w);
	}
	w->retries = pl->options.retries;
	w->looked_at = ingest_clock_ms();
}

/*
 * The source has asked for more time than we would have waited ourselves: that
 * holds also when this process is another one by now.
 */
static bool
must_wait(Worker *w, int64 left)
{
	if (left <= 0)
		return false;
	w->unwell = w->unproven = true;
	ingest_process_self->look = false;
	wait_before_retry(w, left);
	return true;
}

/* May leave without one: there was something to wait for. */
static void
open_run(Worker *w)
{
	bool		enabled;
	TimestampTz retry_at;
	int64		left;

	ingest_session_begin();
	if (ingest_pipeline_version(w->id, &enabled) < 0 || !enabled)
	{
		ingest_session_commit();
		ingest_process_exit(INGEST_RESULT_STOPPED);
	}
	w->attempts = ingest_state_attempts(w->id, &retry_at);
	left = ingest_state_asked_wait(w->id, INGEST_LONGEST_BACKOFF);
	ingest_session_commit();
	MemoryContextSwitchTo(w->mcxt);
	if (must_wait(w, left))
		return;
	ingest_session_begin();
	w->run = ingest_run_open(w->id, w->ordinal, w->mcxt);
	ingest_run_set_cause(w->run, ingest_process_self->cause, ingest_process_self->run);
	ingest_session_commit();
	MemoryContextSwitchTo(w->mcxt);
	adopt_definition(w);
}

/* Somebody has changed something, or might have. */
static bool
refresh_run(Worker *w, IngestError *err)
{
	if (!ingest_run_refresh(w->run, &ingest_session_xact, err))
		return false;
	adopt_definition(w);
	return true;
}

/* ---- requests of others ---- */

/* The one who ends the worker between turns.  False: *err. */
static bool
check_requests(Worker *w, IngestError *err)
{
	IngestProcess *self = ingest_process_self;

	CHECK_FOR_INTERRUPTS();
	if (!PostmasterIsAlive())
		proc_exit(1);
	ingest_session_reload();
	if (self->stop)
		ingest_process_exit(INGEST_RESULT_STOPPED);
	if (self->yield)
		ingest_process_exit(INGEST_RESULT_YIELDED);
	if (w->run && (self->look || ingest_clock_ms() - w->looked_at >= LOOK_INTERVAL_MS))
	{
		self->look = false;
		return refresh_run(w, err);
	}
	return true;
}

/* ---- the state ---- */

/* Why a pipeline does not run is written down also when its owner's transactions are read-only. */
static void
begin_note(void)
{
	ingest_session_begin();
	XactReadOnly = false;
}

/* For the history: a try that has failed.  Those of a stream would be without number. */
static void
record_failure(Worker *w, const IngestError *err)
{
	const IngestProcess *self = ingest_process_self;

	ingest_batch_record_run(w->id, self->run, self->cause, INGEST_OUTCOME_FAILED, err);
}

/* ---- going well ---- */

/* The source answers: an error that is shown is over. */
static void
note_recovery(Worker *w)
{
	if (!w->unwell || w->probation > ingest_clock_ms())
		return;
	begin_note();
	ingest_state_recovered(w->id);
	ingest_session_commit();
	w->unwell = false;
	w->attempts = 0;
}

static void
note_batch(Worker *w, const IngestCounts *counts)
{
	IngestProcess *self = ingest_process_self;

	w->quick_tries = 0;
	if (counts->messages == 0)
		return;
	pg_atomic_write_u64(&self->batches, pg_atomic_read_u64(&self->batches) + 1);
	pg_atomic_write_u64(&self->messages, pg_atomic_read_u64(&self->messages) + counts->messages);
	pg_atomic_write_u64(&self->progress_at, (uint64) GetCurrentTimestamp());
	if (w->continuous && self->followed)
	{
		self->progressed = true;
		ingest_process_wake(self->parent);
	}
	if (w->unproven)
	{
		begin_note();
		ingest_state_well(w->id);
		ingest_session_commit();
		w->unproven = w->unwell = false;
		w->attempts = 0;
	}
	pgstat_report_stat(false);
}

/* ---- waiting ---- */

/*
 * Until the latch is set, the descriptor becomes readable, or the time is over
 * (-1: as long as it takes).
 */
static void
wait_for(Worker *w, IngestPhase phase, pgsocket fd, long timeout, uint32 wait_event)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT;
	long		stats = pgstat_report_stat(false);

	ingest_process_set_phase(phase);
	pgstat_report_activity(STATE_IDLE, NULL);
	if (timeout < 0 || timeout > LOOK_INTERVAL_MS)
		timeout = LOOK_INTERVAL_MS;
	if (stats > 0 && stats < timeout)
		timeout = stats;		/* come back to report the rest */
	if (fd != PGINVALID_SOCKET)
		events |= WL_SOCKET_READABLE;
	(void) WaitLatchOrSocket(MyLatch, events, fd, timeout, wait_event);
	ResetLatch(MyLatch);
}

static void
wait_for_source(Worker *w, pgsocket fd, long timeout)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestSourceFetch");
	if (w->unwell)
	{
		long		left = Max(w->probation - ingest_clock_ms(), 0) + 1;

		timeout = timeout < 0 ? left : Min(timeout, left);
	}
	wait_for(w, INGEST_PHASE_WAITING, fd, timeout, wait_event);
}

/* ---- who waits for us ---- */

/* Somebody is new: find out how far he wants us to come.  False: *err. */
static bool
set_fence(Worker *w, IngestError *err)
{
	if (w->fence_mcxt == NULL)
		w->fence_mcxt = AllocSetContextCreate(w->mcxt, "ingest fence", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(w->fence_mcxt);
	w->fence = ingest_drain_begin(w->run, w->fence_mcxt, err);
	return w->fence != NULL;
}

/*
 * Between turns, with an assignment.  *again: there may be something to fetch now.
 * False: *err.
 */
static bool
serve_waiters(Worker *w, bool *again, IngestError *err)
{
	*again = false;
	if (!w->continuous)
		return true;
	if (w->fence == NULL)
	{
		uint64		taken = ingest_waiting_take(w->id, w->ordinal);

		if (taken == 0)
			return true;
		w->fence_for = taken;
		*again = true;
		return set_fence(w, err);
	}
	if (ingest_run_batch(w->run)->nmessages > 0 || !ingest_drain_is_done(w->fence, w->run))
		return true;
	w->fence = NULL;
	ingest_waiting_reached(w->id, w->ordinal, w->fence_for);
	*again = true;				/* somebody may have come meanwhile */
	return true;
}

/* ---- one step ---- */

static bool
make_turn(Worker *w, IngestError *err)
{
	IngestCounts counts;

	ingest_process_set_phase(INGEST_PHASE_LOADING);
	pgstat_report_activity(STATE_RUNNING, w->activity);
	if (!ingest_run_turn(w->run, &ingest_session_xact, &counts, err))
	{
		w->failed_turn = true;
		return false;
	}
	note_batch(w, &counts);
	return true;
}

static bool
make_turn_of_many(Worker *w, IngestError *err)
{
	bool		again;

	return make_turn(w, err) && serve_waiters(w, &again, err);
}

static bool
assign_shards(Worker *w, IngestError *err)
{
	ingest_process_set_phase(INGEST_PHASE_ASSIGNING);
	pgstat_report_activity(STATE_RUNNING, w->activity);
	w->fence = NULL;			/* its ends may be of other shards */
	if (!ingest_run_assign(w->run, &ingest_session_xact, err))
		return false;
	if (!w->continuous && w->drain == NULL)
	{
		w->drain = ingest_drain_begin(w->run, w->mcxt, err);
		if (w->drain == NULL)
			return false;
	}
	return true;
}

/* Nothing to fetch at the moment. */
static bool
rest(Worker *w, pgsocket fd, long timeout, IngestError *err)
{
	bool		again;

	note_recovery(w);
	if (!serve_waiters(w, &again, err))
		return false;
	if (again)
		return true;
	if (w->drain == NULL || !ingest_drain_is_done(w->drain, w->run))
	{
		wait_for_source(w, fd, timeout);
		return true;
	}

	/* What is there is all there will be in this run: do not wait for more. */
	if (!make_turn(w, err))
		return false;
	if (ingest_drain_is_done(w->drain, w->run) && ingest_run_batch(w->run)->nmessages == 0)
	{
		w->done = true;
		w->result = INGEST_RESULT_DRAINED;
	}
	return true;
}

static bool
step(Worker *w, IngestError *err)
{
	pgsocket	fd;
	long		timeout;

	if (!check_requests(w, err))
		return false;
	if (w->run == NULL)
		open_run(w);
	if (w->run == NULL)
		return true;
	ingest_run_set_patient(w->run, w->continuous || ingest_waiting_take(w->id, w->ordinal) != 0);
	switch (ingest_run_fetch(w->run, &ingest_session_xact, &fd, &timeout, err))
	{
		case INGEST_READY_TURN:
			return make_turn_of_many(w, err);
		case INGEST_READY_WAIT:
			return rest(w, fd, timeout, err);
		case INGEST_READY_ASSIGN:
			return assign_shards(w, err);
		case INGEST_READY_ERROR:
			if (err->class == INGEST_ERROR_GAP)
			{
				IngestError skip = {0};

				if (ingest_run_skip_gap(w->run, &ingest_session_xact, &skip))
					return true;
				if (skip.class != INGEST_ERROR_NONE)
					*err = skip;
			}
			return false;
	}
	return true;
}

/* As step(), with raised errors as values. */
static bool
try_step(Worker *w, IngestError *err)
{
	volatile bool ok = false;

	PG_TRY();
	{
		ok = step(w, err);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextReset(w->error_mcxt);
		MemoryContextSwitchTo(w->error_mcxt);
		edata = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		LWLockReleaseAll();
		MemoryContextSwitchTo(w->error_mcxt);
		ingest_error_from_edata(err, edata);
		ingest_error_blame_definition(err);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(w->mcxt);
	return ok;
}

/* ---- errors ---- */

/* Has ingest.start() or a change of the definition made waiting pointless? */
static bool
is_retry_off(Worker *w)
{
	TimestampTz retry_at;

	if (!ingest_process_self->look)
		return false;
	ingest_process_self->look = false;
	ingest_session_begin();
	(void) ingest_state_attempts(w->id, &retry_at);
	ingest_session_commit();
	MemoryContextSwitchTo(w->mcxt);
	return retry_at == 0;
}

/* Wait for so many ms, or until waiting has become pointless. */
static void
wait_before_retry(Worker *w, int64 delay)
{
	int64		until = ingest_clock_ms() + delay;
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestBackoff");
	for (;;)
	{
		long		left = until - ingest_clock_ms();

		if (left <= 0 || is_retry_off(w))
			break;
		wait_for(w, INGEST_PHASE_BACKOFF, PGINVALID_SOCKET, left, wait_event);
		CHECK_FOR_INTERRUPTS();
		ingest_session_reload();
		if (ingest_process_self->stop || ingest_process_self->yield)
			break;				/* check_requests() knows */
	}
}

/* Does a run end with this failure? */
static bool
is_last_try(const Worker *w)
{
	return !w->continuous && w->retries >= 0 && w->attempts > w->retries;
}

/* A run does not keep its slot while it waits: somebody else may have use for it. */
static void
leave_try(Worker *w, TimestampTz retry_at)
{
	ingest_process_self->retry_at = retry_at;
	w->done = true;
	w->result = is_last_try(w) ? INGEST_RESULT_GAVE_UP : INGEST_RESULT_BACKOFF;
}

static void
retry_later(Worker *w, const IngestError *err)
{
	int64		delay = ingest_backoff_next(w->attempts + 1, err->retry_after);
	TimestampTz retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);

	begin_note();
	w->attempts = ingest_state_retry(w->id, err, retry_at);
	if (ingest_process_self->run != 0)
		record_failure(w, err);
	ingest_session_commit();
	MemoryContextSwitchTo(w->mcxt);
	ingest_error_report(err, LOG);
	if (ingest_process_self->run != 0)
	{
		leave_try(w, retry_at);
		return;
	}
	w->unwell = w->unproven = true;
	/* That the source answers proves nothing while its messages are to come again. */
	w->probation = w->failed_turn ? ingest_clock_ms() + delay + PROBATION_MS : 0;
	w->failed_turn = false;

	ingest_process_self->look = false;
	wait_before_retry(w, delay);
	w->looked_at = -LOOK_INTERVAL_MS;	/* the next try begins with a look at the definition */
}

/* No failure yet: somebody else was in the way. */
static bool
retry_quickly(Worker *w, const IngestError *err)
{
	static uint32 wait_event = 0;

	if (ERRCODE_TO_CATEGORY(err->sqlstate) != ERRCODE_TRANSACTION_ROLLBACK ||
		w->quick_tries >= MAX_QUICK_TRIES)
		return false;
	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestRetry");
	w->quick_tries++;
	wait_for(w, INGEST_PHASE_BACKOFF, PGINVALID_SOCKET,
			 (long) (pg_prng_double(&pg_global_prng_state) * QUICK_PAUSE_MS), wait_event);
	return true;
}

static void
halt(Worker *w, IngestHalt why, const IngestError *err)
{
	begin_note();
	ingest_state_halt(w->id, why, err);
	record_failure(w, err);
	ingest_session_commit();
	MemoryContextSwitchTo(w->mcxt);
	ingest_error_report(err, WARNING);
	pgstat_report_stat(true);
	ingest_process_exit(INGEST_RESULT_HALTED);
}

static void
deal_with_error(Worker *w, const IngestError *err)
{
	/* A timeout of the statement that failed must not hit the next one. */
	disable_all_timeouts(false);
	QueryCancelPending = false;

	switch (err->class)
	{
		case INGEST_ERROR_NONE:
			ingest_process_exit(INGEST_RESULT_STOPPED);
		case INGEST_ERROR_TRANSIENT:
			if (w->run)
				ingest_run_reset(w->run);
			if (!retry_quickly(w, err))
				retry_later(w, err);
			break;
		case INGEST_ERROR_PERMANENT:
			halt(w, INGEST_HALT_FAILED, err);
			break;
		case INGEST_ERROR_CONFIG:
			halt(w, INGEST_HALT_BROKEN, err);
			break;
		case INGEST_ERROR_GAP:
			halt(w, INGEST_HALT_GAP, err);
			break;
		case INGEST_ERROR_PAUSE:
			halt(w, INGEST_HALT_PAUSED, err);
			break;
	}
}

/* ---- main ---- */

static void
begin_work(Worker *w)
{
	memset(w, 0, sizeof(*w));
	w->id = ingest_process_self->pipeline_id;
	w->ordinal = ingest_process_self->ordinal;
	w->unwell = w->unproven = true;
	w->retries = -1;
	w->probation = ingest_clock_ms() + PROBATION_MS;
	w->mcxt = AllocSetContextCreate(TopMemoryContext, "ingest worker", ALLOCSET_DEFAULT_SIZES);
	w->error_mcxt = AllocSetContextCreate(w->mcxt, "ingest worker error", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(w->mcxt);
	ingest_marker_leave();

	/* Until a foreground run, or a worker that is about to end, lets go. */
	ingest_worker_lock_wait(w->id, w->ordinal);
}

/* Leave nothing behind: the next work finds the session as a new one would. */
static void
end_work(Worker *w)
{
	if (w->run)
		ingest_run_close(w->run);
	w->run = NULL;
	ingest_session_clean("ingest worker");
	ingest_marker_remove();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(w->mcxt);
	w->mcxt = w->error_mcxt = NULL;
	w->name = NULL;
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
do_work(Worker *w)
{
	while (!w->done)
	{
		IngestError err = {0};

		if (!try_step(w, &err))
			deal_with_error(w, &err);
	}
}

void
ingest_worker_main(Datum arg)
{
	Worker		w = {0};
	ErrorContextCallback context = {.callback = add_context, .arg = &w};

	ingest_process_setup();
	if (!ingest_process_attach())
		proc_exit(0);
	w.id = ingest_process_self->pipeline_id;
	w.ordinal = ingest_process_self->ordinal;
	context.previous = error_context_stack;
	error_context_stack = &context;

	ingest_marker_leave();
	ingest_session_open("ingest worker");
	for (;;)
	{
		begin_work(&w);
		do_work(&w);
		end_work(&w);
		ingest_process_rest(w.result);
	}
}
