/*
 * launcher.c
 *		The launcher: one a cluster, without a database.  Keeps a supervisor in
 *		every database that has the extension.
 *
 * Which databases have it can only be seen from inside, so each is tried once: a
 * supervisor that finds nothing goes away, and the database is left alone until
 * somebody there asks to be looked at (CREATE EXTENSION does, when it commits).
 * New databases are noticed at the next look, once a minute.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "core/clock.h"
#include "core/compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/backoff.h"
#include "worker/process.h"

#define LOOK_INTERVAL_MS	60000
#define LOG_INTERVAL_MS		60000

/* Supervisors that have not yet found out whether there is anything to do. */
#define MAX_PROBES 2

typedef struct Database
{
	Oid			oid;			/* hash key */
	bool		exists;			/* seen in this round, and open to connections */
	bool		absent;			/* the extension is not there */
	int			attempts;		/* failures in a row */
	int64		retry_at;		/* by ingest_clock_ms() */
	int			entry;			/* of the supervisor we registered, or -1 */
	BackgroundWorkerHandle *handle;
} Database;

static HTAB *databases;

/* No free process slot: when to try again, and when to complain again. */
static int	full_attempts = 0;
static int64 full_until = 0;
static int64 complained_at = -LOG_INTERVAL_MS;

static Database *
find_database(Oid oid)
{
	bool		found;
	Database   *database = hash_search(databases, &oid, HASH_ENTER, &found);

	if (!found)
	{
		memset(database, 0, sizeof(*database));
		database->oid = oid;
		database->entry = -1;
	}
	return database;
}

static void
forget_handle(Database *database)
{
	if (database->handle)
		pfree(database->handle);
	database->handle = NULL;
	database->entry = -1;
}

/* ---- which databases ---- */

static void
note_database(Form_pg_database row)
{
	if (!row->datallowconn || row->datistemplate || row->datconnlimit == DATCONNLIMIT_INVALID_DB)
		return;
	find_database(row->oid)->exists = true;
}

static void
scan_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	HASH_SEQ_STATUS status;
	Database   *database;

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
		database->exists = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
		note_database((Form_pg_database) GETSTRUCT(tuple));
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
		if (!database->exists && database->entry < 0)
			hash_search(databases, &database->oid, HASH_REMOVE, NULL);
}

/* Somebody committed something there: it is worth another look. */
static void
forget_absence(Database *database)
{
	database->absent = false;
	database->attempts = 0;
	database->retry_at = 0;
}

static void
take_requests(void)
{
	bool		all;
	List	   *oids = ingest_launcher_take_requests(&all);
	ListCell   *cell;
	HASH_SEQ_STATUS status;
	Database   *database;

	foreach(cell, oids)
		forget_absence(find_database(lfirst_oid(cell)));
	list_free(oids);
	if (!all)
		return;
	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
		forget_absence(database);
}

/* ---- supervisors that ended ---- */

static void
count_failure(Database *database)
{
	database->attempts++;
	database->retry_at = ingest_clock_ms() + ingest_backoff_next(database->attempts, 0);
}

/* What has become of the one behind this entry?  Holds the lock. */
static void
judge_supervisor(int index, IngestProcess *process)
{
	Database   *database = find_database(process->database);
	pid_t		pid;

	switch (process->state)
	{
		case INGEST_PROCESS_RUNNING:
			if (process->phase != INGEST_PHASE_STARTING)
				database->attempts = 0;
			return;
		case INGEST_PROCESS_REGISTERED:
			/* Of a launcher before us, or never came to life? */
			if (database->entry == index &&
				GetBackgroundWorkerPid(database->handle, &pid) != BGWH_STOPPED)
				return;
			if (database->entry == index)
				count_failure(database);
			break;
		case INGEST_PROCESS_ENDED:
			if (process->result == INGEST_RESULT_ABSENT)
				database->absent = !process->look;
			else if (process->result == INGEST_RESULT_NONE && !process->terminated)
				count_failure(database);
			break;
		case INGEST_PROCESS_FREE:
			return;
	}
	if (database->entry == index)
		forget_handle(database);
	ingest_process_free(process);
}

/* Returns how many are still finding out what there is to do. */
static int
collect_supervisors(void)
{
	int			probes = 0;

	ingest_process_lock(true);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (process->state == INGEST_PROCESS_FREE || process->kind != INGEST_PROCESS_SUPERVISOR)
			continue;
		judge_supervisor(i, process);
		if ((process->state == INGEST_PROCESS_REGISTERED || process->state == INGEST_PROCESS_RUNNING) &&
			process->phase == INGEST_PHASE_STARTING)
			probes++;
	}
	ingest_process_unlock();
	return probes;
}

/* ---- starting supervisors ---- */

static bool
is_wanted(const Database *database, int64 now)
{
	bool		wanted;

	if (!database->exists || database->absent || database->retry_at > now)
		return false;
	ingest_process_lock(false);
	wanted = !ingest_hold_is_held(database->oid) &&
		ingest_process_find_supervisor(database->oid) == NULL;
	ingest_process_unlock();
	return wanted;
}

/* No process slot is free.  Say so, but not every time. */
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
			 errmsg("out of background worker slots for ingest supervisors"),
			 errhint("You might need to increase max_worker_processes.")));
}

/* False: no room. */
static bool
start_supervisor(Database *database)
{
	IngestProcessRequest request = {
		.kind = INGEST_PROCESS_SUPERVISOR,
		.database = database->oid
	};
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	database->entry = ingest_process_register(&request, &database->handle);
	MemoryContextSwitchTo(oldcontext);
	return database->entry >= 0;
}

/* Returns when to try again, 0 when there is nothing to wait for. */
static int64
start_supervisors(int probes)
{
	int64		now = ingest_clock_ms();
	int64		earliest = 0;
	HASH_SEQ_STATUS status;
	Database   *database;

	if (full_until > now)
		return full_until;
	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		if (database->exists && database->retry_at > now &&
			(earliest == 0 || database->retry_at < earliest))
			earliest = database->retry_at;
		if (probes >= MAX_PROBES || !is_wanted(database, now))
			continue;
		if (!start_supervisor(database))
		{
			hash_seq_term(&status);
			back_off(now);
			return full_until;
		}
		full_attempts = 0;
		probes++;
	}
	return earliest;
}

/* ---- the loop ---- */

static void
wait_until(int64 at)
{
	static uint32 wait_event = 0;
	long		timeout = LOOK_INTERVAL_MS;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestLauncherMain");
	if (at != 0)
		timeout = Min(timeout, Max(at - ingest_clock_ms(), 0) + 1);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		full_until = 0;
	}
}

void
ingest_launcher_main(Datum arg)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Database)};

	ingest_process_setup();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	ingest_launcher_attach();
	pgstat_report_appname("ingest launcher");
	databases = hash_create("ingest databases", 64, &ctl, HASH_ELEM | HASH_BLOBS);

	for (;;)
	{
		int			probes;

		take_requests();
		probes = collect_supervisors();
		scan_databases();
		wait_until(start_supervisors(probes));
	}
}
