/*
 * process.h
 *		The table of our processes in shared memory, and what they tell each
 *		other through it.
 *
 * Inside worker/ only; others use worker.h.
 *
 * An entry is made by the parent (launcher or supervisor) before it registers
 * the process, taken by the process, and given back by the parent after it has
 * read the result:
 *
 *	FREE --parent--> REGISTERED --process--> RUNNING --process--> ENDED --parent--> FREE
 *
 * A parent that dies leaves entries behind: its successor frees those that are
 * only REGISTERED (a process that comes late finds another generation and goes
 * away) and takes over the others.  A crash of any process makes the server
 * start over with an empty table.  Nothing here is a pointer or a descriptor.
 */
#ifndef INGEST_PROCESS_H
#define INGEST_PROCESS_H

#include "postgres.h"

#include "catalog/batch_history.h"
#include "core/compat.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"

typedef enum IngestProcessKind
{
	INGEST_PROCESS_SUPERVISOR,
	INGEST_PROCESS_WORKER,		/* of a pipeline */
	INGEST_PROCESS_UPKEEP		/* of the partitions of one role's tables */
} IngestProcessKind;

typedef enum IngestProcessState
{
	INGEST_PROCESS_FREE,
	INGEST_PROCESS_REGISTERED,
	INGEST_PROCESS_RUNNING,
	INGEST_PROCESS_ENDED
} IngestProcessState;

/* What a process does at the moment; shown by ingest._workers(). */
typedef enum IngestPhase
{
	INGEST_PHASE_STARTING,		/* logging in, or waiting for another run to end */
	INGEST_PHASE_ASSIGNING,		/* asking the source for its shards */
	INGEST_PHASE_WAITING,		/* for messages, or for something to do */
	INGEST_PHASE_LOADING,		/* in a turn */
	INGEST_PHASE_BACKOFF,		/* something failed; trying again later */
	INGEST_PHASE_ENDING
} IngestPhase;

/* Why a process ended. */
typedef enum IngestResult
{
	INGEST_RESULT_NONE,			/* it was terminated, or a FATAL error */
	INGEST_RESULT_STOPPED,		/* it should not run any more */
	INGEST_RESULT_HALTED,		/* the reason is in ingest._state */
	INGEST_RESULT_DRAINED,		/* a run is done */
	INGEST_RESULT_BACKOFF,		/* a try of a run has failed; the next one is at retry_at */
	INGEST_RESULT_GAVE_UP,		/* it has failed as often as it may */
	INGEST_RESULT_YIELDED,		/* somebody else's turn */
	INGEST_RESULT_ABSENT		/* supervisor: nothing to do in this database */
} IngestResult;

typedef struct IngestProcess
{
	/* Under the lock. */
	IngestProcessState state;
	uint32		generation;
	IngestProcessKind kind;
	pid_t		pid;			/* RUNNING: cannot end while the lock is held */
	pid_t		parent;			/* who registered it */
	Oid			database;
	Oid			role;			/* to log in as */
	int32		pipeline_id;
	int32		ordinal;
	TimestampTz started_at;
	int64		started_ms;		/* the same by ingest_clock_ms(), which all processes share */
	IngestCause cause;			/* of its run */
	TimestampTz run;			/* when that began; 0: it is a stream's */
	IngestResult result;
	TimestampTz retry_at;		/* of result BACKOFF */
	bool		terminated;		/* we sent it SIGTERM */

	/* Of a worker that has no work: result is of its last; 0 as pipeline_id: that was read. */
	volatile bool resting;
	int			uses;			/* pipelines it has worked for */

	/* Requests, set by others under the lock, read by the process at any time. */
	volatile bool look;			/* something may have changed */
	volatile bool stop;			/* end after this turn */
	volatile bool yield;		/* the same, but it may come back later */

	/* Of a stream: others run after it, and shall be told when it has committed. */
	volatile bool followed;
	volatile bool progressed;

	/* Written by the process alone, read by anybody. */
	volatile IngestPhase phase;
	volatile bool full;			/* supervisor: there is no room for all workers */
	pg_atomic_uint64 batches;	/* committed */
	pg_atomic_uint64 messages;
	pg_atomic_uint64 progress_at;	/* TimestampTz of the last commit, 0 */
} IngestProcess;

/* This process's entry; NULL in launcher and backends. */
extern IngestProcess *ingest_process_self;

/* Ask for shared memory, from shared_preload_libraries. */
extern void ingest_process_init(void);

/* Is there shared memory?  raises: no */
extern bool ingest_process_available(void);

/* ---- the table ---- */

extern int	ingest_process_count(void); /* of entries, used or not */
extern void ingest_process_lock(bool exclusive);
extern void ingest_process_unlock(void);

/* An entry by its index; hold the lock. */
extern IngestProcess *ingest_process_get(int index);

/* The supervisor of a database that is registered or runs, or NULL; hold the lock. */
extern IngestProcess *ingest_process_find_supervisor(Oid database);

/* Free an entry whose process has ended or never came; hold the lock exclusively. */
extern void ingest_process_free(IngestProcess *process);

/* ---- starting ---- */

typedef struct IngestProcessRequest
{
	IngestProcessKind kind;
	Oid			database;
	Oid			role;
	int32		pipeline_id;
	int32		ordinal;
	IngestCause cause;
	TimestampTz run;
} IngestProcessRequest;

/*
 * Register a process; it is told of by SIGUSR1 when it starts and ends.
 * Returns the entry's index, or -1: no room in our table or in
 * max_worker_processes, or the database is held.  The handle is allocated in
 * the current context.  raises: out of memory
 */
extern int	ingest_process_register(const IngestProcessRequest *request,
									BackgroundWorkerHandle **handle);

/*
 * In a new process: take the entry that bgw_main_arg and bgw_extra name.
 * False: nobody waits for this process any more.
 */
extern bool ingest_process_attach(void);

/*
 * A worker that is done with its run, and as good as new, waits here for other work
 * of its role, which is then in its entry.  Does not return when there is none:
 * the process ends.
 */
extern void ingest_process_rest(IngestResult result);

/* Give a resting worker work of its role; hold the lock exclusively. */
extern void ingest_process_assign(IngestProcess *process, const IngestProcessRequest *request);

/* Signals, the way out, and what everybody does first.  See process.c. */
extern void ingest_process_setup(void);

/* End, with a result for the parent.  Never returns. */
pg_noreturn extern void ingest_process_exit(IngestResult result);

extern void ingest_process_set_phase(IngestPhase phase);
extern const char *ingest_phase_name(IngestPhase phase);

/* ---- telling others ---- */

/* Set the latch of a process; nothing happens when it is gone.  Lock or not.  raises: no */
extern void ingest_process_wake(pid_t pid);

/* SIGTERM to a running one; hold the lock exclusively. */
extern void ingest_process_terminate(IngestProcess *process);

/* The launcher is this process / shall look at a database again. */
extern void ingest_launcher_attach(void);
extern void ingest_launcher_wake(Oid database);

/* A supervisor has found its feet; the launcher may start the next one. */
extern void ingest_launcher_nudge(void);

/*
 * Databases to look at again since the last call, in CurrentMemoryContext;
 * *all: too many to list.  For the launcher.
 */
extern List *ingest_launcher_take_requests(bool *all);

/* ---- holding ---- */

/*
 * Keep a database free of our processes until this backend lets go: send them
 * away, wait until they have left, at most the given time.  Releasing lets the
 * launcher start them again.  raises: on interrupt, still holding
 */
extern void ingest_hold_database(Oid database, int timeout_ms);
extern void ingest_hold_until_transaction_end(Oid database, int timeout_ms);
extern void ingest_hold_release(void);
extern bool ingest_hold_is_held(Oid database);	/* hold the lock */

/* The utility hook that does so; see hold.c. */
extern void ingest_hold_init(void);

/* ---- entry points ---- */

extern PGDLLEXPORT void ingest_launcher_main(Datum arg);
extern PGDLLEXPORT void ingest_supervisor_main(Datum arg);
extern PGDLLEXPORT void ingest_worker_main(Datum arg);
extern PGDLLEXPORT void ingest_upkeep_main(Datum arg);

#endif							/* INGEST_PROCESS_H */
