/*
 * background.c
 *		What the rest of the extension asks of its processes: are there any, look
 *		again when I commit, who is running.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/process.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_wake);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_workers);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_supervisor);

/* Seconds until the server starts a launcher that has ended anew. */
#define LAUNCHER_RESTART_SECONDS 5

static bool wake_pending = false;
static bool callback_registered = false;

/* ---- wake at commit ---- */

/* Tell the supervisor of this database, or the launcher when there is none. */
static void
wake_supervisor(void)
{
	IngestProcess *supervisor;
	pid_t		pid = 0;
	bool		found;

	ingest_process_lock(false);
	supervisor = ingest_process_find_supervisor(MyDatabaseId);
	found = supervisor != NULL;
	if (found)
	{
		supervisor->look = true;
		pid = supervisor->pid;
	}
	ingest_process_unlock();

	if (found)
		ingest_process_wake(pid);
	else
		ingest_launcher_wake(MyDatabaseId);
}

/*
 * The changes are visible to others by the time a commit comes here.  What a
 * prepared transaction changed is found when the supervisor looks by itself.
 */
static void
handle_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (wake_pending)
				wake_supervisor();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	wake_pending = false;
	ingest_hold_release();
}

static void
register_callback(void)
{
	if (!callback_registered)
		RegisterXactCallback(handle_transaction_end, NULL);
	callback_registered = true;
}

void
ingest_worker_wake_at_commit(void)
{
	if (!ingest_process_available())
		return;
	register_callback();
	wake_pending = true;
}

/* Let go of what hold.c holds, at the end of this transaction at the latest. */
void
ingest_hold_until_transaction_end(Oid database, int timeout_ms)
{
	register_callback();
	ingest_hold_database(database, timeout_ms);
}

/* ---- available? ---- */

bool
ingest_worker_available(void)
{
	return ingest_process_available();
}

void
ingest_worker_check_available(void)
{
	if (!ingest_process_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipelines cannot run in background"),
				 errdetail("The library \"%s\" was not loaded when the server started.", "ingest"),
				 errhint("Add it to shared_preload_libraries and restart the server, or CALL ingest.run().")));
}

/* ---- init ---- */

static void
register_launcher(void)
{
	BackgroundWorker launcher = {
		.bgw_name = "ingest launcher",
		.bgw_type = "ingest launcher",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = LAUNCHER_RESTART_SECONDS,
		.bgw_library_name = "ingest",
		.bgw_function_name = "ingest_launcher_main"
	};

	RegisterBackgroundWorker(&launcher);
}

void
ingest_worker_init(void)
{
	/* pg_upgrade must find the databases as they are. */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	ingest_process_init();
	ingest_hold_init();
	register_launcher();
}

/* ---- SQL ---- */

/* _wake(): look again when this transaction commits; for install scripts */
Datum
ingest_sql_wake(PG_FUNCTION_ARGS)
{
	ingest_worker_wake_at_commit();
	PG_RETURN_VOID();
}

static Datum
timestamp_or_null(TimestampTz at, bool *isnull)
{
	*isnull = at == 0;
	return TimestampTzGetDatum(at);
}

static void
put_worker(ReturnSetInfo *rsinfo, IngestProcess *process)
{
	Datum		values[8];
	bool		nulls[8] = {false};

	values[0] = Int32GetDatum(process->pipeline_id);
	values[1] = Int32GetDatum(process->ordinal);
	values[2] = Int32GetDatum((int32) process->pid);
	values[3] = CStringGetTextDatum(ingest_phase_name(process->phase));
	values[4] = TimestampTzGetDatum(process->started_at);
	values[5] = timestamp_or_null((TimestampTz) pg_atomic_read_u64(&process->progress_at), &nulls[5]);
	values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&process->batches));
	values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&process->messages));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* _workers(): the workers of this database that run now; views decide who sees which */
Datum
ingest_sql_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			nworkers = 0;
	IngestProcess *workers;

	InitMaterializedSRF(fcinfo, 0);
	if (!ingest_process_available())
		return (Datum) 0;

	/* Copied, so that nothing that can fail is done under the lock. */
	workers = palloc(sizeof(IngestProcess) * ingest_process_count());
	ingest_process_lock(false);
	for (int i = 0; i < ingest_process_count(); i++)
	{
		IngestProcess *process = ingest_process_get(i);

		if (process->state == INGEST_PROCESS_RUNNING && process->kind == INGEST_PROCESS_WORKER &&
			process->database == MyDatabaseId && process->pipeline_id != 0)
			memcpy(&workers[nworkers++], process, sizeof(IngestProcess));
	}
	ingest_process_unlock();

	for (int i = 0; i < nworkers; i++)
		put_worker(rsinfo, &workers[i]);
	return (Datum) 0;
}

/* _supervisor(): NULLs when there is none */
Datum
ingest_sql_supervisor(PG_FUNCTION_ARGS)
{
	IngestProcess *supervisor = NULL;
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3] = {true, true, true};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (ingest_process_available())
	{
		ingest_process_lock(false);
		supervisor = ingest_process_find_supervisor(MyDatabaseId);
		if (supervisor && supervisor->state == INGEST_PROCESS_RUNNING)
		{
			values[0] = Int32GetDatum((int32) supervisor->pid);
			values[1] = TimestampTzGetDatum(supervisor->started_at);
			values[2] = BoolGetDatum(supervisor->full);
			nulls[0] = nulls[1] = nulls[2] = false;
		}
		ingest_process_unlock();
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
