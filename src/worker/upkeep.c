/*
 * upkeep.c
 *		What is done now and then in a database: ranges ahead, old partitions,
 *		the history of batches.
 *
 * A process of its own, so that the supervisor never waits for a lock on
 * somebody's table; started by it when it is time.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/batch_history.h"
#include "catalog/pipeline.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "pipeline/partition.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/process.h"
#include "worker/session.h"

/* Partitions are no reason to keep others waiting. */
#define LOCK_TIMEOUT "2s"

/* Column "id" of the rows of a statement. */
static List *
read_ids(IngestStatement *statement, MemoryContext mcxt)
{
	List	   *ids = NIL;
	uint64		nrows;

	ingest_session_begin();
	ingest_spi_begin();
	nrows = ingest_spi_run(statement, NULL, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

		ids = lappend_oid(ids, (Oid) ingest_spi_int64(i, "id", 0));
		MemoryContextSwitchTo(oldcontext);
	}
	ingest_spi_end();
	ingest_session_commit();
	MemoryContextSwitchTo(mcxt);
	return ids;
}

static void
keep_up_partitions(Oid target)
{
	char	   *name = get_rel_name(target);

	pgstat_report_activity(STATE_RUNNING, name ? name : "");
	PushActiveSnapshot(GetTransactionSnapshot());
	ingest_partition_upkeep(target);
	PopActiveSnapshot();
}

static void
trim_history(Oid id)
{
	IngestPipeline *pl = ingest_pipeline_find_id((int32) id);

	if (pl)
		(void) ingest_batch_trim(pl->id, pl->options.history);
}

typedef struct Task
{
	const char *what;
	void		(*work) (Oid);
	Oid			id;
} Task;

static void
add_context(void *arg)
{
	const Task *task = arg;

	errcontext("%s %u", task->what, task->id);
}

/* In a transaction of its own; what fails is logged, and tried again next time. */
static void
do_task(Task *task)
{
	ErrorContextCallback context = {.previous = error_context_stack, .callback = add_context, .arg = task};

	error_context_stack = &context;
	PG_TRY();
	{
		ingest_session_begin();
		task->work(task->id);
		ingest_session_commit();
	}
	PG_CATCH();
	{
		EmitErrorReport();
		FlushErrorState();
		ingest_session_rollback();
	}
	PG_END_TRY();
	error_context_stack = context.previous;
}

static void
do_tasks(IngestStatement *statement, void (*work) (Oid), const char *what, MemoryContext mcxt)
{
	ListCell   *cell;

	foreach(cell, read_ids(statement, mcxt))
	{
		Task		task = {what, work, lfirst_oid(cell)};

		if (ingest_process_self->stop)
			break;
		do_task(&task);
		MemoryContextSwitchTo(mcxt);
		pgstat_report_stat(false);
	}
}

void
ingest_upkeep_main(Datum arg)
{
	static IngestStatement policies = {
		"SELECT target::oid AS id FROM ingest._partition_policy ORDER BY target", 0
	};
	static IngestStatement pipelines = {
		"SELECT id FROM ingest._pipeline ORDER BY id", 0
	};
	MemoryContext mcxt;

	ingest_process_setup();
	if (!ingest_process_attach())
		proc_exit(0);
	ingest_session_open("ingest upkeep");
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION);

	mcxt = AllocSetContextCreate(TopMemoryContext, "ingest upkeep", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(mcxt);
	ingest_process_set_phase(INGEST_PHASE_LOADING);
	do_tasks(&policies, keep_up_partitions, "upkeep of the partitions of relation", mcxt);
	do_tasks(&pipelines, trim_history, "trimming the history of pipeline", mcxt);
	pgstat_report_stat(true);
	ingest_process_exit(INGEST_RESULT_STOPPED);
}
