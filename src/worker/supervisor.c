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
#include "utils/guc.h"
#include "utils/memutils.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "worker/agenda.h"
#include "worker/backoff.h"
#include "worker/marker.h"
#include "worker/process.h"
#include "worker/session.h"
#include "worker/waiting.h"

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

/* After so many pipelines a worker makes room for a fresh one: caches grow. */
#define MAX_USES			200

/* A worker without work is kept when there will be some so soon. */
#define REST_MS				1000

/* Definitions are read anew in a tenth of the time at most. */
#define LOOK_SHARE			10

/* What somebody holds is tried again after. */
#define WRITE_AGAIN_MS		1000

/* Nobody's lock holds up the supervisor for longer. */
#define LOCK_TIMEOUT		"10s"

/* A process that has ended, or a worker that is done with its work, as it was. */
typedef struct Ended
{
	int32		pipeline_id;
	int32		ordinal;
	IngestResult result;
	bool		on_purpose;		/* it was told to */
	TimestampTz retry_at;
	int64		batches;
	IngestCause cause;
	TimestampTz run;
} Ended;

static BackgroundWorkerHandle **handles;	/* by entry; NULL: not registered by us */
static int64 *stop_since;		/* by entry: when it was asked to stop, by ingest_clock_ms() */
static MemoryContext round_mcxt;

static bool look_wanted = false;	/* somebody has changed something */
static int64 looked_at = 0;			/* at all definitions; these by ingest_clock_ms() */
static int64 look_not_before = 0;
static int64 write_not_before = 0;	/* what could not be written */

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

static void
note_ended(IngestProcess *process, List **ended)
{
	Ended	   *e;

	if (process->kind != INGEST_PROCESS_WORKER || process->pipeline_id == 0)
		return;
	e = palloc(sizeof(*e));
	e->pipeline_id = process->pipeline_id;
	e->ordinal = process->ordinal;
	e->result = process->result;
	e->on_purpose = process->terminated;
	e->retry_at = process->retry_at;
	e->batches = (int64) pg_atomic_read_u64(&process->batches);
	e->cause = process->cause;
	e->run = process->run;
	*ended = lappend(*ended, e);
	process->pipeline_id = 0;
}

/*
 * Has it ended, or never come to life?  Then note it and free the entry.  A worker
 * that is done with its work stays.  Holds the lock.
 */
static void
collect_process(int index, IngestProcess *process, List **ended)
{
	bool		lost = false;
	pid_t		pid;

	if (process->state == INGEST_PROCESS_RUNNING)
	{
		/* Of a supervisor before us: it shall tell us when it ends. */
		process->parent = MyProcPid;
		if (process->resting)
			note_ended(process, ended);
		return;
	}
	if (process->state == INGEST_PROCESS_REGISTERED)
	{
		if (handles[index] && GetBackgroundWorkerPid(handles[index], &pid) != BGWH_STOPPED)
			return;
		lost = handles[index] != NULL;
	}
	if (process->state == INGEST_PROCESS_ENDED || lost)
		note_ended(process, ended);
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

/*
 * Returns the pipelines of which something is new, by their numbers.  foreign: of a
 * supervisor before us.  xact: in
 */
static List *
judge_ended(List *ended, bool foreign)
{
	List	   *ids = NIL;
	ListCell   *cell;

	foreach(cell, ended)
	{
		const Ended *e = lfirst(cell);
		IngestAgendaItem *item = ingest_agenda_find(e->pipeline_id);

		if (item && foreign)
			ingest_agenda_adopt(item, e->ordinal, e->cause, e->run);
		if (item)
			ids = ingest_agenda_left(item, e->ordinal, e->result, e->on_purpose, e->retry_at,
									 e->batches, ids);
	}
	return ids;
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

	/* It makes room after its turn: one that replaces a target must not begin anew each time. */
	if (!process->stop && process->phase == INGEST_PHASE_LOADING)
	{
		stop_since[index] = 0;
		wake_no_later_than(now + STOP_PATIENCE_MS);
		return;
	}
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

	return item && item->wanted && !item->ending && process->ordinal < item->workers &&
		process->role == item->owner;
}

/* Workers that were started by a supervisor before us. */
static void
adopt_workers(void)
{
	ingest_process_lock(false);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);
		IngestAgendaItem *item = ingest_agenda_find(process->pipeline_id);

		if (is_ours(process) && process->kind == INGEST_PROCESS_WORKER && item)
			ingest_agenda_adopt(item, process->ordinal, process->cause, process->run);
	}
	ingest_process_unlock();
}

/* A run that takes too long is to end. */
static void
review_time(const IngestProcess *process)
{
	IngestAgendaItem *item = ingest_agenda_find(process->pipeline_id);
	int64		left = item && !item->ending ? ingest_agenda_time_left(item) : PG_INT64_MAX;

	if (left == PG_INT64_MAX)
		return;
	if (left <= 0)
		ingest_agenda_time_out(item);
	else
		wake_no_later_than(ingest_clock_ms() + left);
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
		if (process->resting)
			continue;
		review_time(process);
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
		process->state == INGEST_PROCESS_RUNNING && !process->stop && !process->resting;
}

/* One that only waits until it tries again makes room first, and at once. */
static int64
runs_since(const IngestProcess *process)
{
	return process->phase == INGEST_PHASE_BACKOFF ? process->started_ms - SLICE_MS : process->started_ms;
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
		else if (oldest == NULL || runs_since(process) < runs_since(oldest))
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
		if (now - runs_since(process) < slice)
		{
			wake_no_later_than(runs_since(process) + slice);
			break;
		}
		process->yield = true;
		ingest_process_wake(process->pid);
		wake_no_later_than(now + STOP_PATIENCE_IDLE_MS);
	}
	ingest_process_unlock();
}

/* Give the work to a worker of this role that has none.  False: there is none. */
static bool
hand_over(const IngestProcessRequest *request)
{
	bool		found = false;

	ingest_process_lock(true);
	for (int i = 0; i < ingest_process_count() && !found; i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (!is_ours(process) || !process->resting || process->stop || process->pipeline_id != 0 ||
			process->state != INGEST_PROCESS_RUNNING || process->role != request->role ||
			process->uses >= MAX_USES)
			continue;
		ingest_process_assign(process, request);
		stop_since[i] = 0;
		found = true;
	}
	ingest_process_unlock();
	return found;
}

/* The others without work end, but for those that will have some at once. */
static void
send_away(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Oid			owner;
	TimestampTz next = ingest_agenda_first_later(&owner);
	bool		soon = ingest_agenda_count_due() == 0 && next != DT_NOEND &&
		TimestampDifferenceMilliseconds(now, next) < REST_MS;

	ingest_process_lock(true);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (!is_ours(process) || !process->resting || process->stop ||
			(soon && process->role == owner && process->uses < MAX_USES))
			continue;
		process->stop = true;
		ingest_process_wake(process->pid);
	}
	ingest_process_unlock();
}

/*
 * Those that are due, in that order, as long as there is room.  Returns how many worker
 * entries are in use then.
 */
static int
give_work(int in_use)
{
	int64		now = ingest_clock_ms();
	IngestAgendaItem *item;
	IngestCause cause;
	int			ordinal;

	while ((item = ingest_agenda_first_due(&ordinal, &cause)) != NULL)
	{
		TimestampTz begin = GetCurrentTimestamp();
		IngestProcessRequest request = {
			.kind = INGEST_PROCESS_WORKER,
			.database = MyDatabaseId,
			.role = item->owner,
			.pipeline_id = item->id,
			.ordinal = ordinal,
			.cause = cause,
			.run = cause == INGEST_CAUSE_STREAM ? 0 : item->running ? item->run_started : begin
		};

		if (!hand_over(&request))
		{
			if (in_use >= ingest_guc_max_workers)
				break;
			if (full_until > now)
			{
				wake_no_later_than(full_until);
				break;
			}
			if (!start_process(&request))
			{
				back_off(now);
				wake_no_later_than(full_until);
				break;
			}
			full_attempts = 0;
			in_use++;
		}
		ingest_agenda_started(item, ordinal, cause, begin);
	}
	return in_use;
}

static void
start_workers(int in_use)
{
	int64		now = ingest_clock_ms();
	int			waiting;

	in_use = give_work(in_use);
	send_away();
	waiting = ingest_agenda_count_due();
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

/* Streams that have committed something, and are followed. */
static List *
find_progressed(void)
{
	List	   *streams = NIL;

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
	return streams;
}

/* Everything is read anew when somebody has changed something, and now and then. */
static void
look(void)
{
	int64		began = ingest_clock_ms();

	ingest_agenda_read();
	upkeep_interval = read_upkeep_interval();
	if (!is_open_database())
		leave(INGEST_RESULT_STOPPED);
	looked_at = ingest_clock_ms();
	look_not_before = looked_at + LOOK_SHARE * (looked_at - began);
}

/* What is in the catalogs, or shall be. */
static void
keep_books(bool first, bool looking, List *ended, List *streams)
{
	List	   *ids;
	ListCell   *cell;

	check_extension();
	ingest_session_begin();
	MemoryContextSwitchTo(round_mcxt);
	if (first)
	{
		judge_crashes();
		look();
	}
	ids = judge_ended(ended, first);
	/* Who has no work need not wait for our commit; those that run after others do. */
	if (ended != NIL && !first)
		(void) give_work(review_workers(false));
	foreach(cell, streams)
		ids = ingest_agenda_progressed(lfirst_int(cell), ids);
	ids = ingest_agenda_write(ids);
	if (looking)
		look();
	else
		ingest_agenda_read_some(ids);
	/* The times of next runs that were found just now. */
	if (ingest_agenda_count_unwritten() > 0)
		ingest_agenda_read_some(ingest_agenda_write(NIL));
	write_not_before = ingest_clock_ms() + WRITE_AGAIN_MS;
	ingest_session_commit();
	MemoryContextSwitchTo(round_mcxt);
	ingest_waiting_wake();
	if (first)
		adopt_workers();
}

/* What waits for a time, when there is room: the end of a worker is told of. */
static void
wake_for_next(void)
{
	Oid			owner;
	TimestampTz next = ingest_agenda_first_later(&owner);

	if (next != DT_NOEND)
		wake_for(next, GetCurrentTimestamp());
}

static void
do_round(bool first)
{
	int64		now = ingest_clock_ms();
	bool		looking;
	List	   *ended;
	List	   *streams;

	if (ingest_process_self->look)
		look_wanted = true;
	ingest_process_self->look = false;
	ended = collect_processes();
	streams = find_progressed();
	looking = first || (look_wanted && now >= look_not_before) || now - looked_at >= LOOK_INTERVAL_MS;
	if (looking)
		look_wanted = false;
	if (looking || ended != NIL || streams != NIL ||
		(ingest_agenda_count_unwritten() > 0 && now >= write_not_before))
		keep_books(first, looking, ended, streams);
	if (look_wanted)
		wake_no_later_than(look_not_before);
	wake_no_later_than(looked_at + LOOK_INTERVAL_MS);

	start_workers(review_workers(looking));
	if (ingest_agenda_count_unwritten() > 0)
		wake_no_later_than(write_not_before);
	wake_for_next();
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
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION);
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
