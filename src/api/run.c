/*
 * run.c
 *		CALL ingest.run(): drain a pipeline in the caller's session.
 *
 * How a turn is made here is in foreground.c.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "api/foreground.h"
#include "catalog/pg_type.h"
#include "catalog/state.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "pipeline/turn.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_run);

/* ---- the call ---- */

static void
renew_budget(int32 pipeline_id)
{
	static IngestStatement renew = {
		"INSERT INTO ingest._state (pipeline_id) VALUES ($1)"
		" ON CONFLICT (pipeline_id) DO UPDATE SET budget_since = now()",
		1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);

	ingest_spi_begin();
	ingest_spi_run(&renew, &id, NULL);
	ingest_spi_end();
}

/* For the history, and for those that run after this pipeline. */
static void
end_run(const IngestForeground *drain, TimestampTz began)
{
	int32		id = ingest_run_pipeline(drain->run)->id;
	IngestRunEnd end = {.completed = drain->max_batches == 0 || drain->batches < drain->max_batches, .runs = 1, .started = began};

	PushActiveSnapshot(GetTransactionSnapshot());
	if (drain->batches == 0)
		ingest_batch_record_run(id, began, INGEST_CAUSE_MANUAL, INGEST_OUTCOME_DONE, NULL);
	if (end.completed)
		(void) ingest_state_run_ended(id, &end, true);
	PopActiveSnapshot();
	ingest_worker_wake_at_commit();
	SPI_commit();
}

static void
lock_pipeline(const IngestPipeline *pl)
{
	if (!ingest_worker_lock(pl->id, -1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pipeline \"%s\" is already running", pl->name),
				 pl->enabled ? errhint("Its workers do this in background; ingest.stop() ends them.") :
				 errhint("Wait for the other session, or for its workers, to end.")));
}

static void
report_total(const char *name, const IngestForeground *drain)
{
	const IngestCounts *total = &drain->total;

	ereport(NOTICE,
			(errmsg("pipeline \"%s\": read " INT64_FORMAT ", written " INT64_FORMAT ", rejected "
					INT64_FORMAT ", dropped " INT64_FORMAT ", merged " INT64_FORMAT ", skipped "
					INT64_FORMAT " in " INT64_FORMAT " batches",
					name, total->read, total->written, total->rejected, total->dropped,
					total->merged, total->skipped, drain->batches)));
}

static void
drain_pipeline(const IngestPipeline *pl, IngestForeground *drain, TimestampTz began)
{
	ingest_foreground_open(drain, pl->id, INGEST_CAUSE_MANUAL, began);
	ingest_foreground_drain(drain);
	end_run(drain, began);
	ingest_run_close(drain->run);
}

/* run(pipeline text, max_batches bigint) */
Datum
ingest_sql_run(PG_FUNCTION_ARGS)
{
	IngestForeground drain = {0};
	TimestampTz began = GetCurrentTimestamp();
	MemoryContext mcxt;
	IngestPipeline *pl;

	ingest_foreground_check(fcinfo, "ingest.run");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	mcxt = CurrentMemoryContext;

	pl = ingest_pipeline_get(ingest_argument_text(fcinfo, 0, "pipeline"));
	ingest_pipeline_check_runner(pl);
	drain.label = psprintf("CALL ingest.run(%s)", quote_literal_cstr(pl->name));
	drain.max_batches = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	lock_pipeline(pl);
	PG_TRY();
	{
		renew_budget(pl->id);
		SPI_commit();			/* and with it the snapshot of the CALL goes */
		drain_pipeline(pl, &drain, began);
	}
	PG_CATCH();
	{
		ingest_worker_unlock(pl->id, -1);
		ingest_foreground_fail(pl->id, INGEST_CAUSE_MANUAL, began, mcxt);
	}
	PG_END_TRY();
	ingest_worker_unlock(pl->id, -1);

	SPI_finish();
	if (debug_query_string)
		pgstat_report_activity(STATE_RUNNING, debug_query_string);
	report_total(pl->name, &drain);
	PG_RETURN_VOID();
}
