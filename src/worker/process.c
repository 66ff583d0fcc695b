/*
 * process.c
 *		The table of our processes in shared memory; how they begin and end.
 *
 * What the processes do is in launcher.c, supervisor.c, worker.c and upkeep.c.
 */
#include "postgres.h"

#include <unistd.h>

#include "core/clock.h"
#include "core/compat.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"
#include "worker/marker.h"
#include "worker/process.h"
#include "worker/waiting.h"

#define TRANCHE_NAME "IngestProcess"
#define MAX_REQUESTS 64

typedef struct Hold
{
	pid_t		pid;			/* of the backend; 0: free */
	Oid			database;
} Hold;

typedef struct Shared
{
	ConditionVariable left;		/* a process has left its entry */
	pid_t		launcher;		/* 0: none at the moment */

	/* Databases the launcher shall look at again. */
	bool		look_at_all;
	int			nrequests;
	Oid			requests[MAX_REQUESTS];

	int			nholds;			/* length of the array behind the processes */
	int			nprocesses;
	IngestProcess processes[FLEXIBLE_ARRAY_MEMBER];
} Shared;

static Shared *shared = NULL;
static Hold *holds;
static LWLock *lock;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

IngestProcess *ingest_process_self = NULL;

static bool holding = false;	/* this backend has a hold */

/* ---- shared memory ---- */

/* More than can live, since an entry stays until its parent has read it. */
static int
max_processes(void)
{
	return 2 * max_worker_processes + 8;
}

static Size
processes_size(void)
{
	return MAXALIGN(add_size(offsetof(Shared, processes),
							 mul_size(max_processes(), sizeof(IngestProcess))));
}

static Size
shared_size(void)
{
	return add_size(processes_size(), mul_size(MaxBackends, sizeof(Hold)));
}

static void
request_shared_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestAddinShmemSpace(ingest_waiting_size());
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

static void
start_shared_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	lock = &GetNamedLWLockTranche(TRANCHE_NAME)->lock;
	shared = ShmemInitStruct("ingest processes", shared_size(), &found);
	holds = (Hold *) ((char *) shared + processes_size());
	if (!found)
	{
		memset(shared, 0, shared_size());
		ConditionVariableInit(&shared->left);
		shared->nprocesses = max_processes();
		shared->nholds = MaxBackends;
		for (int i = 0; i < shared->nprocesses; i++)
		{
			pg_atomic_init_u64(&shared->processes[i].batches, 0);
			pg_atomic_init_u64(&shared->processes[i].messages, 0);
			pg_atomic_init_u64(&shared->processes[i].progress_at, 0);
		}
	}
	ingest_waiting_start();
	LWLockRelease(AddinShmemInitLock);
}

void
ingest_process_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

bool
ingest_process_available(void)
{
	return shared != NULL;
}

/* ---- the table ---- */

int
ingest_process_count(void)
{
	return shared->nprocesses;
}

void
ingest_process_lock(bool exclusive)
{
	LWLockAcquire(lock, exclusive ? LW_EXCLUSIVE : LW_SHARED);
}

void
ingest_process_unlock(void)
{
	LWLockRelease(lock);
}

IngestProcess *
ingest_process_get(int index)
{
	return &shared->processes[index];
}

IngestProcess *
ingest_process_find_supervisor(Oid database)
{
	for (int i = 0; i < shared->nprocesses; i++)
	{
		IngestProcess *process = &shared->processes[i];

		if (process->kind == INGEST_PROCESS_SUPERVISOR && process->database == database &&
			(process->state == INGEST_PROCESS_REGISTERED || process->state == INGEST_PROCESS_RUNNING))
			return process;
	}
	return NULL;
}

void
ingest_process_free(IngestProcess *process)
{
	process->state = INGEST_PROCESS_FREE;
	process->generation++;
	process->pid = 0;
}

/* ---- starting ---- */

/* Work for a process that is about to begin. */
static void
take_request(IngestProcess *process, const IngestProcessRequest *request)
{
	process->pipeline_id = request->pipeline_id;
	process->ordinal = request->ordinal;
	process->cause = request->cause;
	process->run = request->run;
	process->followed = process->progressed = false;
	process->started_at = GetCurrentTimestamp();
	process->started_ms = ingest_clock_ms();
	process->result = INGEST_RESULT_NONE;
	process->retry_at = 0;
	process->look = process->yield = process->resting = false;
	process->uses++;
	process->phase = INGEST_PHASE_STARTING;
	pg_atomic_write_u64(&process->batches, 0);
	pg_atomic_write_u64(&process->messages, 0);
	pg_atomic_write_u64(&process->progress_at, 0);
}

/* An entry for a process to be; -1 when there is none, or it must not be. */
static int
allocate_entry(const IngestProcessRequest *request)
{
	int			index = -1;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (!ingest_hold_is_held(request->database))
		for (int i = 0; i < shared->nprocesses && index < 0; i++)
		{
			IngestProcess *process = &shared->processes[i];

			if (process->state != INGEST_PROCESS_FREE)
				continue;
			index = i;
			process->state = INGEST_PROCESS_REGISTERED;
			process->generation++;
			process->kind = request->kind;
			process->pid = 0;
			process->parent = MyProcPid;
			process->database = request->database;
			process->role = request->role;
			process->terminated = process->stop = process->full = false;
			process->uses = 0;
			take_request(process, request);
		}
	LWLockRelease(lock);
	return index;
}

static void
describe_worker(BackgroundWorker *worker, const IngestProcessRequest *request)
{
	switch (request->kind)
	{
		case INGEST_PROCESS_SUPERVISOR:
			strlcpy(worker->bgw_type, "ingest supervisor", BGW_MAXLEN);
			strlcpy(worker->bgw_function_name, "ingest_supervisor_main", BGW_MAXLEN);
			snprintf(worker->bgw_name, BGW_MAXLEN, "ingest supervisor of database %u", request->database);
			break;
		case INGEST_PROCESS_WORKER:
			strlcpy(worker->bgw_type, "ingest worker", BGW_MAXLEN);
			strlcpy(worker->bgw_function_name, "ingest_worker_main", BGW_MAXLEN);
			snprintf(worker->bgw_name, BGW_MAXLEN, "ingest worker %d of pipeline %d in database %u",
					 request->ordinal, request->pipeline_id, request->database);
			break;
		case INGEST_PROCESS_UPKEEP:
			strlcpy(worker->bgw_type, "ingest upkeep", BGW_MAXLEN);
			strlcpy(worker->bgw_function_name, "ingest_upkeep_main", BGW_MAXLEN);
			snprintf(worker->bgw_name, BGW_MAXLEN, "ingest upkeep in database %u", request->database);
			break;
	}
}

int
ingest_process_register(const IngestProcessRequest *request, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "ingest",
		.bgw_notify_pid = MyProcPid
	};
	int			index = allocate_entry(request);

	if (index < 0)
		return -1;
	describe_worker(&worker, request);
	worker.bgw_main_arg = Int32GetDatum(index);
	memcpy(worker.bgw_extra, &shared->processes[index].generation, sizeof(uint32));
	if (RegisterDynamicBackgroundWorker(&worker, handle))
		return index;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	ingest_process_free(&shared->processes[index]);
	LWLockRelease(lock);
	return -1;
}

/*
 * Leave the entry.  Runs after the transaction was aborted and its locks were
 * given back, since it was registered before the connection was made.
 */
static void
leave_entry(int code, Datum arg)
{
	IngestProcess *self = ingest_process_self;
	pid_t		parent;

	if (!LWLockHeldByMe(lock))
		LWLockAcquire(lock, LW_EXCLUSIVE);
	self->state = INGEST_PROCESS_ENDED;
	self->phase = INGEST_PHASE_ENDING;
	parent = self->kind == INGEST_PROCESS_SUPERVISOR ? shared->launcher : self->parent;
	LWLockRelease(lock);

	ConditionVariableBroadcast(&shared->left);
	ingest_process_wake(parent);
}

bool
ingest_process_attach(void)
{
	IngestProcess *process = &shared->processes[DatumGetInt32(MyBgworkerEntry->bgw_main_arg)];
	uint32		generation;

	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(uint32));
	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (process->state == INGEST_PROCESS_REGISTERED && process->generation == generation &&
		!ingest_hold_is_held(process->database))
	{
		process->state = INGEST_PROCESS_RUNNING;
		process->pid = MyProcPid;
		process->started_at = GetCurrentTimestamp();
		process->started_ms = ingest_clock_ms();
		ingest_process_self = process;
	}
	LWLockRelease(lock);
	if (ingest_process_self == NULL)
		return false;
	before_shmem_exit(leave_entry, (Datum) 0);
	return true;
}

void
ingest_process_assign(IngestProcess *process, const IngestProcessRequest *request)
{
	Assert(LWLockHeldByMeInMode(lock, LW_EXCLUSIVE));
	Assert(process->resting && process->role == request->role && !process->stop);
	take_request(process, request);
	ingest_process_wake(process->pid);
}

/* How long to wait when nobody says anything: the supervisor may be gone. */
#define REST_PATIENCE_MS 10000

void
ingest_process_rest(IngestResult result)
{
	static uint32 wait_event = 0;
	IngestProcess *self = ingest_process_self;
	int64		until = ingest_clock_ms() + REST_PATIENCE_MS;
	pid_t		parent;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestRest");
	LWLockAcquire(lock, LW_EXCLUSIVE);
	self->result = result;
	self->phase = INGEST_PHASE_ENDING;
	self->resting = true;
	parent = self->parent;
	LWLockRelease(lock);
	ingest_process_wake(parent);
	while (self->resting && !self->stop)
	{
		long		left = until - ingest_clock_ms();

		if (left <= 0)
		{
			LWLockAcquire(lock, LW_EXCLUSIVE);
			if (self->resting)
				self->stop = true;	/* too late for more work */
			LWLockRelease(lock);
			break;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	/* What is in the entry is ours from here on. */
	LWLockAcquire(lock, LW_SHARED);
	LWLockRelease(lock);
	if (self->resting)
		proc_exit(0);
}

/*
 * Leave without a look back.  exit() would run the exit handlers of libraries
 * (OpenSSL, librdkafka, whatever a trigger's language has loaded) while threads
 * of theirs still run, and what crashes there restarts the whole server.  By
 * now PostgreSQL has done all it has to do: this was registered first, and so
 * is called last.
 */
static void
exit_at_once(int code, Datum arg)
{
	_exit(code);
}

/*
 * Before signals are unblocked.  SIGTERM must be die(), which makes the server's
 * own waits (locks, synchronous replication) end; a flag of our own would not.
 */
void
ingest_process_setup(void)
{
	on_proc_exit(exit_at_once, (Datum) 0);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
}

void
ingest_process_exit(IngestResult result)
{
	ingest_process_self->result = result;
	proc_exit(0);
}

void
ingest_process_set_phase(IngestPhase phase)
{
	ingest_process_self->phase = phase;
}

const char *
ingest_phase_name(IngestPhase phase)
{
	switch (phase)
	{
		case INGEST_PHASE_STARTING:
			return "starting";
		case INGEST_PHASE_ASSIGNING:
			return "assigning";
		case INGEST_PHASE_WAITING:
			return "waiting";
		case INGEST_PHASE_LOADING:
			return "loading";
		case INGEST_PHASE_BACKOFF:
			return "backoff";
		case INGEST_PHASE_ENDING:
			return "ending";
	}
	return "unknown";
}

/* ---- telling others ---- */

void
ingest_process_wake(pid_t pid)
{
	PGPROC	   *proc = pid == 0 ? NULL : BackendPidGetProc(pid);

	/* Should the number have been taken over, somebody looks up for nothing. */
	if (proc)
		SetLatch(&proc->procLatch);
}

void
ingest_process_terminate(IngestProcess *process)
{
	Assert(LWLockHeldByMeInMode(lock, LW_EXCLUSIVE));
	if (process->state != INGEST_PROCESS_RUNNING || process->pid == MyProcPid)
		return;
	process->terminated = true;
	if (kill(process->pid, SIGTERM) != 0 && errno != ESRCH)
		ereport(LOG,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not send signal to process %d: %m", (int) process->pid)));
}

static void
detach_launcher(int code, Datum arg)
{
	shared->launcher = 0;
}

void
ingest_launcher_attach(void)
{
	shared->launcher = MyProcPid;
	before_shmem_exit(detach_launcher, (Datum) 0);
}

void
ingest_launcher_wake(Oid database)
{
	pid_t		launcher;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (shared->nrequests < MAX_REQUESTS)
		shared->requests[shared->nrequests++] = database;
	else
		shared->look_at_all = true;
	launcher = shared->launcher;
	LWLockRelease(lock);
	ingest_process_wake(launcher);
}

void
ingest_launcher_nudge(void)
{
	ingest_process_wake(shared->launcher);
}

List *
ingest_launcher_take_requests(bool *all)
{
	Oid			requests[MAX_REQUESTS];
	List	   *databases = NIL;
	int			n;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	n = shared->nrequests;
	memcpy(requests, shared->requests, n * sizeof(Oid));
	shared->nrequests = 0;
	*all = shared->look_at_all;
	shared->look_at_all = false;
	LWLockRelease(lock);

	for (int i = 0; i < n; i++)
		databases = lappend_oid(databases, requests[i]);
	return databases;
}

/* ---- holding ---- */

bool
ingest_hold_is_held(Oid database)
{
	for (int i = 0; i < shared->nholds; i++)
		if (holds[i].pid != 0 && holds[i].database == database)
			return true;
	return false;
}

/* Make the hold and send everybody away. */
static void
begin_hold(Oid database)
{
	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nholds; i++)
		if (holds[i].pid == 0)
		{
			holds[i].pid = MyProcPid;
			holds[i].database = database;
			holding = true;
			break;
		}
	for (int i = 0; i < shared->nprocesses; i++)
		if (shared->processes[i].database == database)
			ingest_process_terminate(&shared->processes[i]);
	LWLockRelease(lock);
}

static bool
has_others(Oid database)
{
	bool		found = false;

	LWLockAcquire(lock, LW_SHARED);
	for (int i = 0; i < shared->nprocesses && !found; i++)
		found = shared->processes[i].state == INGEST_PROCESS_RUNNING &&
			shared->processes[i].database == database &&
			shared->processes[i].pid != MyProcPid;
	LWLockRelease(lock);
	return found;
}

void
ingest_hold_database(Oid database, int timeout_ms)
{
	static uint32 wait_event = 0;
	int64		deadline = ingest_clock_ms() + timeout_ms;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestHold");
	begin_hold(database);
	ConditionVariablePrepareToSleep(&shared->left);
	while (has_others(database))
	{
		long		left = deadline - ingest_clock_ms();

		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&shared->left, left, wait_event);
	}
	ConditionVariableCancelSleep();
}

void
ingest_hold_release(void)
{
	/* One after the other: this runs at the end of a transaction and must not allocate. */
	while (holding)
	{
		Oid			database = InvalidOid;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		for (int i = 0; i < shared->nholds; i++)
			if (holds[i].pid == MyProcPid)
			{
				database = holds[i].database;
				holds[i].pid = 0;
				break;
			}
		LWLockRelease(lock);
		if (OidIsValid(database))
			ingest_launcher_wake(database);
		else
			holding = false;
	}
}
