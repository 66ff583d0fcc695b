/*
 * supervisor.c
 *		The supervisor: one a database.  Decides which workers should exist.
 *
 * A round: see which workers have ended, and write down what that means; read
 * the pipelines; stop what should not run, start what should.  Between rounds it
 * waits for a commit that changes something, for a worker that ends, or for the
 * next thing that is due.
 *
 * What is right can always be told from the catalogs and the table of processes:
 * a supervisor that fails ends, and the next one takes its workers over.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "catalog/state.h"
#include "core/clock.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "worker/agenda.h"
#include "worker/backoff.h"
#include "worker/marker.h"
#include "worker/process.h"
#include "worker/session.h"

/* Looks at the catalogs at least this often, for what nobody has told it. */
#define LOOK_INTERVAL_MS	60000
#define LOG_INTERVAL_MS		60000

/* A worker asked to stop finishes its turn; after this it is terminated. */
#define STOP_PATIENCE_MS	5000

/* The same for one that is not in a turn, but perhaps asks a peer that is silent. */
#define STOP_PATIENCE_IDLE_MS	300

/* While others wait for a slot, a worker runs this long before it makes room. */
#define SLICE_MS			30000

/* Between upkeeps; shorter where partitions are short. */
#define UPKEEP_MAX_MS		600000
#define UPKEEP_MIN_MS		60000

/* A worker that should run and does not. */
typedef struct Candidate
{
	IngestAgendaItem *item;
	int			ordinal;
} Candidate;

/* A process that has ended, as it was. */
typedef struct Ended
{
	IngestProcessKind kind;
	int32		pipeline_id;
	int32		ordinal;
	IngestResult result;
	bool		on_purpose;		/* it was told to */
} Ended;

static BackgroundWorkerHandle **handles;	/* by entry; NULL: not registered by us */
static int64 *stop_since;		/* by entry: when it was asked to stop, by ingest_clock_ms() */
static MemoryContext round_mcxt;

static TimestampTz next_upkeep;
static int64 upkeep_interval;	/* ms; 0: there is nothing to see to */
static int64 wake_at;			/* the next thing that is due, by ingest_clock_ms() */

/* No free process slot: when to try again, and when to complain again. */
static int	full_attempts = 0;
static int64 full_until = 0;	/* these by ingest_clock_ms() */
static int64 complained_at = -LOG_INTERVAL_MS;

static void
wake_no_later_than(int64 at)
{
	if (at < wake_at)
		wake_at = at;
}

/* What is due at a time of day: when the clock is set meanwhile, the next round sees it. */
static void
wake_for(TimestampTz at, TimestampTz now)
{
	wake_no_later_than(ingest_clock_ms() + TimestampDifferenceMilliseconds(now, at));
}

/* ---- workers that ended ---- */

static bool
is_ours(const IngestProcess *process)
{
	return process->state != INGEST_PROCESS_FREE && process->database == MyDatabaseId &&
		process->kind != INGEST_PROCESS_SUPERVISOR;
}

/* Has it ended, or never come to life?  Then note it and free the entry; holds the lock. */
static void
collect_process(int index, IngestProcess *process, List **ended)
{
	bool		lost = false;
	pid_t		pid;

	if (process->state == INGEST_PROCESS_RUNNING)
	{
		/* Of a supervisor before us: it shall tell us when it ends. */
		process->parent = MyProcPid;
		return;
	}
	if (process->state == INGEST_PROCESS_REGISTERED)
	{
		if (handles[index] && GetBackgroundWorkerPid(handles[index], &pid) != BGWH_STOPPED)
			return;
		lost = handles[index] != NULL;
	}
	if (process->state == INGEST_PROCESS_ENDED || lost)
	{
		Ended	   *e = palloc(sizeof(*e));

		e->kind = process->kind;
		e->pipeline_id = process->pipeline_id;
		e->ordinal = process->ordinal;
		e->result = process->result;
		e->on_purpose = process->terminated;
		*ended = lappend(*ended, e);
	}
	if (handles[index])
		pfree(handles[index]);
	handles[index] = NULL;
	stop_since[index] = 0;
	ingest_process_free(process);
}

static List *
collect_processes(void)
{
	List	   *ended = NIL;

	ingest_process_lock(true);
	for (int i = 0; i < ingest_process_count(); i++)
		if (is_ours(ingest_process_get(i)))
			collect_process(i, ingest_process_get(i), &ended);
	ingest_process_unlock();
	return ended;
}

/* It did not say why: terminated by somebody, or an error that ends a session. */
static void
note_failure(IngestAgendaItem *item, const Ended *ended)
{
	IngestError err;

	ingest_error_set(&err, INGEST_ERROR_TRANSIENT, ERRCODE_ADMIN_SHUTDOWN,
					 "worker %d of the pipeline ended unexpectedly", ended->ordinal);
	ingest_error_hint(&err, "The server log says why.");
	ingest_agenda_failed(item, &err, INGEST_OUTCOME_FAILED);
}

/* xact: in.  Returns the pipelines of which something is new, by their numbers. */
static List *
judge_ended(List *ended)
{
	List	   *changed = NIL;
	ListCell   *cell;

	foreach(cell, ended)
	{
		const Ended *e = lfirst(cell);
		IngestAgendaItem *item = ingest_agenda_find(e->pipeline_id);

		if (e->kind != INGEST_PROCESS_WORKER || item == NULL)
			continue;
		changed = list_append_unique_int(changed, item->id);
		if (e->result == INGEST_RESULT_DRAINED)
		{
			ingest_agenda_drained(item, e->ordinal);
			if (!item->running)
				changed = ingest_agenda_add_followers(changed, item->id);
		}
		else if (e->result == INGEST_RESULT_GAVE_UP)
			ingest_agenda_given_up(item);
		else if (e->result == INGEST_RESULT_NONE && !e->on_purpose)
			note_failure(item, e);
	}
	return changed;
}

/* Runs that have taken too long, and whose workers have left.  xact: in */
static void
judge_timeouts(void)
{
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;

	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
	{
		IngestError err;

		if (!item->timing_out || item->live != NULL)
			continue;
		ingest_error_set(&err, INGEST_ERROR_TRANSIENT, ERRCODE_QUERY_CANCELED,
						 "the run took longer than its timeout");
		ingest_error_hint(&err, "Set the option \"timeout\" higher, or let it read less at a time.");
		ingest_agenda_failed(item, &err, INGEST_OUTCOME_TIMEOUT);
	}
}

/* ---- crashes ---- */

/* Marks of workers that died are only found after a restart: once is enough. */
static void
judge_crashes(void)
{
	ListCell   *cell;

	foreach(cell, ingest_marker_collect())
	{
		int32		id = lfirst_int(cell);
		int			crashes = ingest_state_crashes(id);
		TimestampTz retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   ingest_backoff_next(crashes + 1, 0));

		crashes = ingest_state_crashed(id, retry_at);
		ereport(LOG,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("a worker of ingest pipeline %d crashed", id),
				 errdetail("%d in a row without a committed batch.", crashes)));
	}
}

/* ---- looking ---- */

/* Is this still a database to work in?  xact: in */
static bool
is_open_database(void)
{
	static IngestStatement find = {
		"SELECT datallowconn AND NOT datistemplate AS open FROM pg_catalog.pg_database WHERE oid = $1",
		1, {OIDOID}
	};
	Datum		oid = ObjectIdGetDatum(MyDatabaseId);
	bool		open;

	ingest_spi_begin();
	open = ingest_spi_run(&find, &oid, NULL) > 0 && ingest_spi_bool(0, "open", false);
	ingest_spi_end();
	return open;
}

/* How often partitions want to be seen to; 0: there is nothing to see to.  xact: in */
static int64
read_upkeep_interval(void)
{
	static IngestStatement find = {
		"SELECT (SELECT count(*) FROM ingest._pipeline) AS pipelines, count(*) AS policies,"
		" (1000 * date_part('epoch', min(every)))::bigint AS shortest FROM ingest._partition_policy",
		0
	};
	int64		interval = 0;

	ingest_spi_begin();
	ingest_spi_run(&find, NULL, NULL);
	if (ingest_spi_int64(0, "policies", 0) > 0)
		interval = Max(ingest_spi_int64(0, "shortest", 0) / 2, UPKEEP_MIN_MS);
	else if (ingest_spi_int64(0, "pipelines", 0) > 0)
		interval = UPKEEP_MAX_MS;
	ingest_spi_end();
	return Min(interval, UPKEEP_MAX_MS);
}

/* ---- stopping ---- */

/*
 * It was asked to stop, or to make room: end it when it does not hear, or does
 * not come to an end.
 */
static void
see_it_end(int index, IngestProcess *process, int64 now)
{
	int			patience = process->phase == INGEST_PHASE_LOADING ?
		STOP_PATIENCE_MS : STOP_PATIENCE_IDLE_MS;

	if (stop_since[index] == 0)
		stop_since[index] = now;
	else if (now - stop_since[index] >= patience)
		ingest_process_terminate(process);
	if (!process->terminated)
		wake_no_later_than(stop_since[index] + patience);
}

static bool
should_run(const IngestProcess *process)
{
	const IngestAgendaItem *item = ingest_agenda_find(process->pipeline_id);

	return item && process->ordinal < item->workers && process->role == item->owner && !item->timing_out;
}

/* Which workers have a process, before anything is decided. */
static void
count_live(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;

	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
	{
		bms_free(item->live);
		item->live = NULL;
	}
	ingest_process_lock(false);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (!is_ours(process) || process->kind != INGEST_PROCESS_WORKER ||
			(item = ingest_agenda_find(process->pipeline_id)) == NULL)
			continue;
		item->live = bms_add_member(item->live, process->ordinal);
		if (process->run != 0)
			ingest_agenda_adopt_run(item, process->cause, process->run);
	}
	ingest_process_unlock();
	MemoryContextSwitchTo(oldcontext);
}

/* Runs that take too long are to end. */
static void
review_timeouts(void)
{
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;

	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
	{
		int64		left = ingest_agenda_time_left(item);

		if (left == PG_INT64_MAX || item->timing_out)
			continue;
		if (left <= 0)
			item->timing_out = true;
		else
			wake_no_later_than(ingest_clock_ms() + left);
	}
}

/* Returns how many worker entries are in use.  changed: somebody has committed something. */
static int
review_workers(bool changed)
{
	int64		now = ingest_clock_ms();
	int			in_use = 0;

	ingest_process_lock(true);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (!is_ours(process) || process->kind != INGEST_PROCESS_WORKER)
			continue;
		in_use++;
		process->followed = ingest_agenda_is_followed(process->pipeline_id);
		if (!should_run(process) && !process->stop)
		{
			process->stop = true;
			ingest_process_wake(process->pid);
		}
		if (process->stop || process->yield)
			see_it_end(i, process, now);
		else if (changed)
		{
			process->look = true;
			ingest_process_wake(process->pid);
		}
	}
	ingest_process_unlock();
	return in_use;
}

/* Nobody looks after them any more: leave. */
static void
stop_all(void)
{
	ingest_process_lock(true);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (!is_ours(process))
			continue;
		process->stop = true;
		ingest_process_wake(process->pid);
	}
	ingest_process_unlock();
}

/* ---- starting ---- */

static bool
has_entry(IngestProcessKind kind, int32 pipeline_id, int ordinal)
{
	bool		found = false;

	ingest_process_lock(false);
	for (int i = 0; i < ingest_process_count() && !found; i++)
	{
		IngestProcess *process = ingest_process_get(i);

		found = is_ours(process) && process->kind == kind &&
			process->pipeline_id == pipeline_id && process->ordinal == ordinal;
	}
	ingest_process_unlock();
	return found;
}

/* Who waits longest comes first; of several workers the first. */
static int
compare_candidates(const ListCell *a, const ListCell *b)
{
	const Candidate *first = lfirst(a);
	const Candidate *second = lfirst(b);

	if (first->item->due_since != second->item->due_since)
		return first->item->due_since < second->item->due_since ? -1 : 1;
	if (first->ordinal != second->ordinal)
		return first->ordinal - second->ordinal;
	return first->item->id - second->item->id;
}

/* The workers of a pipeline that is due and have no process. */
static List *
add_candidates(List *candidates, IngestAgendaItem *item)
{
	bool		waits = false;

	for (int ordinal = 0; ordinal < item->workers; ordinal++)
	{
		Candidate  *candidate;

		if (bms_is_member(ordinal, item->drained) || bms_is_member(ordinal, item->live))
			continue;
		candidate = palloc(sizeof(*candidate));
		candidate->item = item;
		candidate->ordinal = ordinal;
		candidates = lappend(candidates, candidate);
		waits = true;
	}
	if (!waits)
		item->due_since = 0;
	else if (item->due_since == 0)
		item->due_since = ingest_clock_ms();
	return candidates;
}

static List *
find_candidates(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;
	List	   *candidates = NIL;

	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
	{
		TimestampTz wake = DT_NOEND;

		if (ingest_agenda_is_due(item, now, &wake))
			candidates = add_candidates(candidates, item);
		else if (wake != DT_NOEND)
			wake_for(wake, now);
	}
	list_sort(candidates, compare_candidates);
	return candidates;
}

/* False: no room. */
static bool
start_process(const IngestProcessRequest *request)
{
	BackgroundWorkerHandle *handle;
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	int			index = ingest_process_register(request, &handle);

	MemoryContextSwitchTo(oldcontext);
	if (index < 0)
		return false;
	handles[index] = handle;
	stop_since[index] = 0;
	return true;
}

static bool
start_worker(const Candidate *candidate)
{
	IngestProcessRequest request = {
		.kind = INGEST_PROCESS_WORKER,
		.database = MyDatabaseId,
		.role = candidate->item->owner,
		.pipeline_id = candidate->item->id,
		.ordinal = candidate->ordinal,
		.cause = candidate->item->running ? candidate->item->cause : INGEST_CAUSE_STREAM,
		.run = candidate->item->running ? candidate->item->run_started : 0
	};

	return start_process(&request);
}

/* No process slot is free in the whole cluster.  Say so, but not every time. */
static void
back_off(int64 now)
{
	full_attempts++;
	full_until = now + ingest_backoff_delay(full_attempts, 0, 1000, LOOK_INTERVAL_MS, 0.5);
	if (now - complained_at < LOG_INTERVAL_MS)
		return;
	complained_at = now;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("out of background worker slots for ingest workers"),
			 errdetail("Pipelines wait for a free one."),
			 errhint("You might need to increase max_worker_processes.")));
}

static bool
is_running_worker(const IngestProcess *process)
{
	return is_ours(process) && process->kind == INGEST_PROCESS_WORKER &&
		process->state == INGEST_PROCESS_RUNNING && !process->stop;
}

/* The worker that has run longest and was not yet asked to make room, or NULL; hold the lock. */
static IngestProcess *
find_longest_running(int *yielding)
{
	IngestProcess *oldest = NULL;

	*yielding = 0;
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (!is_running_worker(process))
			continue;
		if (process->yield)
			(*yielding)++;
		else if (oldest == NULL || process->started_ms < oldest->started_ms)
			oldest = process;
	}
	return oldest;
}

/*
 * Let so many workers make room, the longest running first; only those that
 * have run for slice milliseconds.
 */
static void
make_room(int count, int slice, int64 now)
{
	ingest_process_lock(true);
	for (;;)
	{
		int			yielding;
		IngestProcess *process = find_longest_running(&yielding);

		if (process == NULL || yielding >= count)
			break;
		if (now - process->started_ms < slice)
		{
			wake_no_later_than(process->started_ms + slice);
			break;
		}
		process->yield = true;
		ingest_process_wake(process->pid);
		wake_no_later_than(now + STOP_PATIENCE_IDLE_MS);
	}
	ingest_process_unlock();
}

static void
start_workers(int in_use)
{
	int64		now = ingest_clock_ms();
	List	   *candidates = find_candidates(GetCurrentTimestamp());
	ListCell   *cell;
	int			waiting = list_length(candidates);

	foreach(cell, candidates)
	{
		if (in_use >= ingest_guc_max_workers)
			break;
		if (full_until > now)
		{
			wake_no_later_than(full_until);
			break;
		}
		if (!start_worker(lfirst(cell)))
		{
			back_off(now);
			wake_no_later_than(full_until);
			break;
		}
		full_attempts = 0;
		in_use++;
		waiting--;
	}
	ingest_process_self->full = waiting > 0;
	if (in_use > ingest_guc_max_workers)
		make_room(in_use - ingest_guc_max_workers, 0, now);
	else if (waiting > 0)
		make_room(waiting, SLICE_MS, now);
}

static void
start_upkeep(int64 interval)
{
	IngestProcessRequest request = {
		.kind = INGEST_PROCESS_UPKEEP,
		.database = MyDatabaseId
	};
	TimestampTz now = GetCurrentTimestamp();

	if (interval == 0)
		return;
	if (next_upkeep > TimestampTzPlusMilliseconds(now, interval))
		next_upkeep = TimestampTzPlusMilliseconds(now, interval);
	if (next_upkeep <= now && !has_entry(INGEST_PROCESS_UPKEEP, 0, 0))
	{
		next_upkeep = TimestampTzPlusMilliseconds(now, interval);
		if (!start_process(&request))
			next_upkeep = TimestampTzPlusMilliseconds(now, UPKEEP_MIN_MS);
	}
	wake_for(Max(next_upkeep, TimestampTzPlusMilliseconds(now, 1000)), now);
}

/* ---- the rounds ---- */

static void
leave(IngestResult result)
{
	stop_all();
	ingest_process_exit(result);
}

/*
 * Is there anything to do here?  Otherwise this process ends.  A commit that came
 * while we looked is not missed: the launcher sees the request for a look.
 */
static void
check_extension(void)
{
	char	   *version;
	IngestPresence presence;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	presence = ingest_session_find_extension(&version);
	if (presence == INGEST_OTHER_VERSION)
		ereport(LOG,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipelines of database %u do not run: extension \"%s\" has version %s there, the library has %s",
						MyDatabaseId, "ingest", version, INGEST_VERSION),
				 errhint("ALTER EXTENSION ingest UPDATE, or restart the server when another library was installed.")));
	CommitTransactionCommand();
	if (presence != INGEST_PRESENT)
		leave(presence == INGEST_REPLACED ? INGEST_RESULT_STOPPED : INGEST_RESULT_ABSENT);
}

/* Pipelines that follow a stream which has committed something. */
static List *
add_followers_of_streams(List *ids)
{
	List	   *streams = NIL;
	ListCell   *cell;

	ingest_process_lock(false);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (is_ours(process) && process->kind == INGEST_PROCESS_WORKER && process->progressed)
		{
			process->progressed = false;
			streams = list_append_unique_int(streams, process->pipeline_id);
		}
	}
	ingest_process_unlock();
	foreach(cell, streams)
		ids = ingest_agenda_add_followers(ids, lfirst_int(cell));
	return ids;
}

/*
 * Everything is read anew when somebody has changed something, and now and then; else
 * what the processes that have ended, and the streams, have changed.
 */
static void
look(bool first, bool changed, List *ended)
{
	static int64 looked_at = 0;
	int64		now = ingest_clock_ms();
	List	   *ids;

	if (first)
		judge_crashes();
	ids = judge_ended(ended);
	if (first || changed || now - looked_at >= LOOK_INTERVAL_MS)
	{
		ingest_agenda_read();
		looked_at = now;
		upkeep_interval = read_upkeep_interval();
	}
	else
		ingest_agenda_read_some(add_followers_of_streams(ids));
	count_live();
	judge_timeouts();
}

static void
do_round(bool first)
{
	bool		changed = ingest_process_self->look;
	List	   *ended;
	bool		open;

	ingest_process_self->look = false;
	ended = collect_processes();

	check_extension();
	ingest_session_begin();
	MemoryContextSwitchTo(round_mcxt);
	look(first, changed, ended);
	open = is_open_database();
	ingest_session_commit();
	MemoryContextSwitchTo(round_mcxt);
	if (!open)
		leave(INGEST_RESULT_STOPPED);

	review_timeouts();
	start_workers(review_workers(changed));
	start_upkeep(upkeep_interval);
}

static void
wait_for_something(void)
{
	static uint32 wait_event = 0;
	long		timeout;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestSupervisorMain");
	timeout = Max(wake_at - ingest_clock_ms(), 0);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	if (!ingest_process_self->look && !ingest_process_self->stop)
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	pgstat_report_activity(STATE_RUNNING, NULL);
}

static void
prepare_memory(void)
{
	ingest_agenda_init();
	handles = MemoryContextAllocZero(TopMemoryContext, ingest_process_count() * sizeof(*handles));
	stop_since = MemoryContextAllocZero(TopMemoryContext, ingest_process_count() * sizeof(*stop_since));
	round_mcxt = AllocSetContextCreate(TopMemoryContext, "ingest round", ALLOCSET_DEFAULT_SIZES);
}

void
ingest_supervisor_main(Datum arg)
{
	bool		first = true;

	ingest_process_setup();
	if (!ingest_process_attach())
		proc_exit(0);
	ingest_session_open("ingest supervisor");
	prepare_memory();
	check_extension();
	ingest_process_set_phase(INGEST_PHASE_WAITING);
	ingest_launcher_nudge();

	for (;;)
	{
		MemoryContextReset(round_mcxt);
		MemoryContextSwitchTo(round_mcxt);
		wake_at = ingest_clock_ms() + LOOK_INTERVAL_MS;
		do_round(first);
		first = false;
		wait_for_something();
		ingest_session_reload();
	}
}
