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
#include "catalog/pipeline.h"
#include "catalog/state.h"
#include "core/clock.h"
#include "core/compat.h"
#include "core/guc.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "worker/backoff.h"
#include "worker/marker.h"
#include "worker/process.h"
#include "worker/schedule.h"
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

typedef struct Pipeline
{
	int32		id;				/* hash key */
	bool		wanted;			/* as of the last look */
	NameData	name;
	Oid			owner;
	int			workers;
	IngestSchedule schedule;
	TimestampTz retry_at;		/* 0: need not wait */
	TimestampTz next_run;		/* 0: now */

	bool		running;		/* a run has begun, and not all its workers are done */
	TimestampTz run_started;
	Bitmapset  *drained;		/* workers that are done with this run */
	int64		waiting_since;	/* by ingest_clock_ms(): some worker of it has no slot; 0: none */
} Pipeline;

/* A worker that should run and does not. */
typedef struct Candidate
{
	Pipeline   *pipeline;
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

static HTAB *pipelines;
static BackgroundWorkerHandle **handles;	/* by entry; NULL: not registered by us */
static int64 *stop_since;		/* by entry: when it was asked to stop, by ingest_clock_ms() */
static MemoryContext round_mcxt;

static TimestampTz next_upkeep;
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

static Pipeline *
find_pipeline(int32 id)
{
	return hash_search(pipelines, &id, HASH_FIND, NULL);
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

/* All its workers have read what there was. */
static void
finish_run(Pipeline *pl)
{
	TimestampTz now = GetCurrentTimestamp();

	pl->running = false;
	bms_free(pl->drained);
	pl->drained = NULL;
	pl->next_run = ingest_schedule_next(&pl->schedule, pl->next_run ? pl->next_run : pl->run_started, now);
	ingest_state_next_run(pl->id, pl->next_run);
}

static void
note_drained(Pipeline *pl, int ordinal)
{
	MemoryContext oldcontext;

	if (pl->schedule.kind == INGEST_SCHEDULE_CONTINUOUS || !pl->running)
		return;
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	pl->drained = bms_add_member(pl->drained, ordinal);
	MemoryContextSwitchTo(oldcontext);
	if (bms_num_members(pl->drained) >= pl->workers)
		finish_run(pl);
}

/* It did not say why: terminated by somebody, or an error that ends a session. */
static void
note_failure(const Ended *ended)
{
	TimestampTz retry_at;
	int			attempts = ingest_state_attempts(ended->pipeline_id, &retry_at);
	IngestError err;

	ingest_error_set(&err, INGEST_ERROR_TRANSIENT, ERRCODE_ADMIN_SHUTDOWN,
					 "worker %d of the pipeline ended unexpectedly", ended->ordinal);
	ingest_error_hint(&err, "The server log says why.");
	retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   ingest_backoff_next(attempts + 1, 0));
	(void) ingest_state_retry(ended->pipeline_id, &err, retry_at);
}

/* xact: in */
static void
judge_ended(List *ended)
{
	ListCell   *cell;

	foreach(cell, ended)
	{
		const Ended *e = lfirst(cell);
		Pipeline   *pl = find_pipeline(e->pipeline_id);

		if (e->kind != INGEST_PROCESS_WORKER || pl == NULL)
			continue;
		if (e->result == INGEST_RESULT_DRAINED)
			note_drained(pl, e->ordinal);
		else if (e->result == INGEST_RESULT_NONE && !e->on_purpose)
			note_failure(e);
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

static TimestampTz
read_timestamp(uint64 row, const char *column)
{
	bool		isnull;
	Datum		value = ingest_spi_value(row, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

/* A row of _pipeline and what belongs to it. */
typedef struct Row
{
	int32		id;
	char	   *name;
	Oid			owner;
	char	   *schedule;
	char	   *workers;
	TimestampTz retry_at;
	TimestampTz next_run;
	bool		role_exists;
	bool		may_login;
	bool		may_connect;
} Row;

/* Pipelines that are to run in this database. */
static List *
read_rows(void)
{
	static IngestStatement find = {
		"SELECT p.id, p.name, p.owner::oid AS owner, p.schedule, p.options ->> 'workers' AS workers,"
		" s.retry_at, s.next_run, r.oid IS NOT NULL AS role_exists, r.rolcanlogin AS may_login,"
		" has_database_privilege(r.oid, current_database(), 'CONNECT') AS may_connect"
		" FROM ingest._pipeline p"
		" LEFT JOIN ingest._state s ON s.pipeline_id = p.id"
		" LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.owner"
		" WHERE p.enabled AND p.home = $1 AND s.halt IS NULL ORDER BY p.id",
		1, {TEXTOID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		home = CStringGetTextDatum(ingest_pipeline_home());
	List	   *rows = NIL;
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(&find, &home, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		Row		   *row = MemoryContextAllocZero(mcxt, sizeof(Row));
		MemoryContext oldcontext;

		row->id = (int32) ingest_spi_int64(i, "id", 0);
		row->name = ingest_spi_text(i, "name", mcxt);
		row->owner = (Oid) ingest_spi_int64(i, "owner", InvalidOid);
		row->schedule = ingest_spi_text(i, "schedule", mcxt);
		row->workers = ingest_spi_text(i, "workers", mcxt);
		row->retry_at = read_timestamp(i, "retry_at");
		row->next_run = read_timestamp(i, "next_run");
		row->role_exists = ingest_spi_bool(i, "role_exists", false);
		row->may_login = ingest_spi_bool(i, "may_login", false);
		row->may_connect = ingest_spi_bool(i, "may_connect", false);
		oldcontext = MemoryContextSwitchTo(mcxt);
		rows = lappend(rows, row);
		MemoryContextSwitchTo(oldcontext);
	}
	ingest_spi_end();
	return rows;
}

static void
break_pipeline(const Row *row, int sqlstate, const char *message, const char *hint)
{
	IngestError err;

	ingest_error_set(&err, INGEST_ERROR_CONFIG, sqlstate, "%s", message);
	ingest_error_hint(&err, "%s", hint);
	ingest_state_halt(row->id, INGEST_HALT_BROKEN, &err);
	ereport(LOG,
			(errcode(sqlstate),
			 errmsg("ingest pipeline \"%s\" cannot run: %s", row->name, message)));
}

/* False: the worker could not log in. */
static bool
check_login(const Row *row)
{
	if (!row->role_exists)
		break_pipeline(row, ERRCODE_UNDEFINED_OBJECT, "its owner does not exist",
					   "Give it another owner with ingest.alter_pipeline(), then ingest.start().");
	else if (!row->may_login)
		break_pipeline(row, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
					   "its owner is not permitted to log in",
					   "Workers log in as the pipeline's owner: ALTER ROLE ... LOGIN, then ingest.start().");
	else if (!row->may_connect)
		break_pipeline(row, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "its owner has no CONNECT privilege on this database",
					   "GRANT CONNECT ON DATABASE ... TO the owner, then ingest.start().");
	else
		return true;
	return false;
}

/* What was checked when it was written may have come from a dump, or by hand. */
static bool
check_schedule(const Row *row, IngestSchedule *schedule)
{
	if (ingest_schedule_find(row->schedule, schedule))
		return true;
	break_pipeline(row, ERRCODE_INVALID_PARAMETER_VALUE, "its schedule cannot be understood",
				   "Set another with ingest.alter_pipeline(), then ingest.start().");
	return false;
}

static void
note_pipeline(const Row *row)
{
	long		workers = row->workers ? strtol(row->workers, NULL, 10) : 1;
	IngestSchedule schedule;
	Pipeline   *pl;
	bool		found;

	if (!check_login(row) || !check_schedule(row, &schedule))
		return;
	pl = hash_search(pipelines, &row->id, HASH_ENTER, &found);
	if (!found)
	{
		memset(pl, 0, sizeof(*pl));
		pl->id = row->id;
	}
	pl->wanted = true;
	namestrcpy(&pl->name, row->name);
	pl->owner = row->owner;
	pl->workers = Min(Max(workers, 1), 256);
	pl->schedule = schedule;
	pl->retry_at = row->retry_at;
	pl->next_run = row->next_run;
}

/* xact: in */
static void
read_pipelines(void)
{
	HASH_SEQ_STATUS status;
	Pipeline   *pl;
	ListCell   *cell;

	hash_seq_init(&status, pipelines);
	while ((pl = hash_seq_search(&status)) != NULL)
		pl->wanted = false;

	foreach(cell, read_rows())
		note_pipeline(lfirst(cell));

	hash_seq_init(&status, pipelines);
	while ((pl = hash_seq_search(&status)) != NULL)
		if (!pl->wanted)
		{
			bms_free(pl->drained);
			hash_search(pipelines, &pl->id, HASH_REMOVE, NULL);
		}
}

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
	const Pipeline *pl = find_pipeline(process->pipeline_id);

	return pl && pl->wanted && process->ordinal < pl->workers && process->role == pl->owner;
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

/* Is it time for this pipeline?  A run that has begun goes on. */
static bool
is_due(Pipeline *pl, TimestampTz now)
{
	if (!ingest_backoff_is_over(pl->retry_at, now))
	{
		wake_for(pl->retry_at, now);
		return false;
	}
	if (pl->schedule.kind == INGEST_SCHEDULE_CONTINUOUS || pl->running)
		return true;
	pl->next_run = ingest_schedule_due(&pl->schedule, pl->next_run, now);
	if (pl->next_run <= now)
	{
		pl->running = true;
		pl->run_started = now;
		return true;
	}
	wake_for(pl->next_run, now);
	return false;
}

/* Who waits longest comes first; of several workers the first. */
static int
compare_candidates(const ListCell *a, const ListCell *b)
{
	const Candidate *first = lfirst(a);
	const Candidate *second = lfirst(b);

	if (first->pipeline->waiting_since != second->pipeline->waiting_since)
		return first->pipeline->waiting_since < second->pipeline->waiting_since ? -1 : 1;
	if (first->ordinal != second->ordinal)
		return first->ordinal - second->ordinal;
	return first->pipeline->id - second->pipeline->id;
}

static List *
find_candidates(TimestampTz now)
{
	HASH_SEQ_STATUS status;
	Pipeline   *pl;
	List	   *candidates = NIL;

	hash_seq_init(&status, pipelines);
	while ((pl = hash_seq_search(&status)) != NULL)
	{
		bool		waits = false;
		bool		due = is_due(pl, now);

		for (int ordinal = 0; due && ordinal < pl->workers; ordinal++)
		{
			Candidate  *candidate;

			if (bms_is_member(ordinal, pl->drained) ||
				has_entry(INGEST_PROCESS_WORKER, pl->id, ordinal))
				continue;
			candidate = palloc(sizeof(*candidate));
			candidate->pipeline = pl;
			candidate->ordinal = ordinal;
			candidates = lappend(candidates, candidate);
			waits = true;
		}
		if (!waits)
			pl->waiting_since = 0;
		else if (pl->waiting_since == 0)
			pl->waiting_since = ingest_clock_ms();
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
		.role = candidate->pipeline->owner,
		.pipeline_id = candidate->pipeline->id,
		.ordinal = candidate->ordinal
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

static void
do_round(bool first)
{
	bool		changed = ingest_process_self->look;
	List	   *ended;
	int64		upkeep;
	bool		open;

	ingest_process_self->look = false;
	ended = collect_processes();

	check_extension();
	ingest_session_begin();
	MemoryContextSwitchTo(round_mcxt);
	if (first)
		judge_crashes();
	judge_ended(ended);
	read_pipelines();
	upkeep = read_upkeep_interval();
	open = is_open_database();
	ingest_session_commit();
	MemoryContextSwitchTo(round_mcxt);
	if (!open)
		leave(INGEST_RESULT_STOPPED);

	start_workers(review_workers(changed));
	start_upkeep(upkeep);
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
	HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(Pipeline)};

	pipelines = hash_create("ingest pipelines", 64, &ctl, HASH_ELEM | HASH_BLOBS);
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
