/*
 * waiting.c
 *		Sessions that wait until a pipeline has caught up.
 *
 * What they wait for is said in api/wait.c; what a worker does for them in
 * worker.c.  The table is under the lock of the table of processes.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "worker/process.h"
#include "worker/waiting.h"

#define MAX_WORKERS 256			/* of a pipeline */

typedef struct Waiter
{
	pid_t		pid;			/* 0: free */
	Oid			database;
	int32		pipeline_id;
	uint64		number;			/* they come in this order */
	uint64		reached[MAX_WORKERS / 64];	/* a bit for each worker that has caught up */
} Waiter;

typedef struct Waiting
{
	pg_atomic_uint32 count;
	uint64		last;			/* number that was given */
	int			nwaiters;		/* length of the array */
	Waiter		waiters[FLEXIBLE_ARRAY_MEMBER];
} Waiting;

static Waiting *waiting = NULL;
static Waiter *self = NULL;		/* of this session */

Size
ingest_waiting_size(void)
{
	return MAXALIGN(add_size(offsetof(Waiting, waiters), mul_size(MaxBackends, sizeof(Waiter))));
}

void
ingest_waiting_start(void)
{
	bool		found;

	waiting = ShmemInitStruct("ingest waiting sessions", ingest_waiting_size(), &found);
	if (found)
		return;
	memset(waiting, 0, ingest_waiting_size());
	pg_atomic_init_u32(&waiting->count, 0);
	waiting->nwaiters = MaxBackends;
}

/* ---- the session ---- */

static void
leave_at_exit(int code, Datum arg)
{
	ingest_waiting_end();
}

static void
wake_workers(int32 pipeline_id)
{
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (process->state == INGEST_PROCESS_RUNNING && process->kind == INGEST_PROCESS_WORKER &&
			process->database == MyDatabaseId && process->pipeline_id == pipeline_id)
			ingest_process_wake(process->pid);
	}
}

void
ingest_waiting_begin(int32 pipeline_id)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	registered = true;
	ingest_waiting_end();
	ingest_process_lock(true);
	for (int i = 0; i < waiting->nwaiters && self == NULL; i++)
		if (waiting->waiters[i].pid == 0)
			self = &waiting->waiters[i];
	memset(self, 0, sizeof(*self)); /* there is one for every backend */
	self->pid = MyProcPid;
	self->database = MyDatabaseId;
	self->pipeline_id = pipeline_id;
	self->number = ++waiting->last;
	pg_atomic_fetch_add_u32(&waiting->count, 1);
	wake_workers(pipeline_id);
	ingest_process_unlock();
}

void
ingest_waiting_end(void)
{
	if (self == NULL)
		return;
	ingest_process_lock(true);
	self->pid = 0;
	pg_atomic_fetch_sub_u32(&waiting->count, 1);
	ingest_process_unlock();
	self = NULL;
}

bool
ingest_waiting_is_over(int nworkers)
{
	bool		over = true;

	ingest_process_lock(false);
	for (int i = 0; i < Min(nworkers, MAX_WORKERS) && over; i++)
		over = (self->reached[i / 64] & (UINT64CONST(1) << (i % 64))) != 0;
	ingest_process_unlock();
	return over;
}

/* ---- workers ---- */

static bool
waits_for(const Waiter *waiter, int32 pipeline_id, int ordinal)
{
	return waiter->pid != 0 && waiter->database == MyDatabaseId && waiter->pipeline_id == pipeline_id &&
		(waiter->reached[ordinal / 64] & (UINT64CONST(1) << (ordinal % 64))) == 0;
}

uint64
ingest_waiting_take(int32 pipeline_id, int ordinal)
{
	bool		found = false;
	uint64		taken = 0;

	if (ordinal >= MAX_WORKERS || pg_atomic_read_u32(&waiting->count) == 0)
		return 0;
	ingest_process_lock(false);
	for (int i = 0; i < waiting->nwaiters && !found; i++)
		found = waits_for(&waiting->waiters[i], pipeline_id, ordinal);
	if (found)
		taken = waiting->last;
	ingest_process_unlock();
	return taken;
}

void
ingest_waiting_reached(int32 pipeline_id, int ordinal, uint64 taken)
{
	ingest_process_lock(true);
	for (int i = 0; i < waiting->nwaiters; i++)
	{
		Waiter	   *waiter = &waiting->waiters[i];

		if (!waits_for(waiter, pipeline_id, ordinal) || waiter->number > taken)
			continue;
		waiter->reached[ordinal / 64] |= UINT64CONST(1) << (ordinal % 64);
		ingest_process_wake(waiter->pid);
	}
	ingest_process_unlock();
}

/* ---- others ---- */

void
ingest_waiting_wake(void)
{
	if (pg_atomic_read_u32(&waiting->count) == 0)
		return;
	ingest_process_lock(false);
	for (int i = 0; i < waiting->nwaiters; i++)
		if (waiting->waiters[i].pid != 0 && waiting->waiters[i].database == MyDatabaseId)
			ingest_process_wake(waiting->waiters[i].pid);
	ingest_process_unlock();
}

bool
ingest_waiting_is(int pid)
{
	bool		found = false;

	if (waiting == NULL || pid == 0 || pg_atomic_read_u32(&waiting->count) == 0)
		return false;
	ingest_process_lock(false);
	for (int i = 0; i < waiting->nwaiters && !found; i++)
		found = waiting->waiters[i].pid == pid;
	ingest_process_unlock();
	return found;
}
