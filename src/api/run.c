/*
 * run.c
 *		CALL ingest.run(): drain a pipeline in the caller's session.
 *
 * The same turns as a worker makes (pipeline/turn.h), one commit a batch, up
 * to what the source held when the call began.  Between turns there is no
 * snapshot and no lock but the one that keeps workers away.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "core/compat.h"
#include "core/error.h"
#include "catalog/pg_type.h"
#include "catalog/state.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "pipeline/turn.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/drain.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_run);

/* Positions moved by somebody else, deadlocks: tries in a row. */
#define MAX_TRIES 5

typedef struct Drain
{
	IngestRun  *run;
	char	   *quoted_name;
	int64		max_batches;	/* 0: no limit */
	int64		batches;
	IngestCounts total;
	int			tries;			/* turns in a row that were rolled back */
	IngestDrain *ends;			/* where to stop */
} Drain;

/*
 * Transactions of a procedure: one is always open, but without a snapshot it
 * holds nothing.
 */
static void
begin_nothing(void)
{
}

static void
commit_transaction(void)
{
	SPI_commit();
}

static void
roll_transaction_back(void)
{
	SPI_rollback();
}

static const IngestXact procedure_xact = {begin_nothing, commit_transaction, roll_transaction_back};

static void
check_top_level(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("ingest.run() cannot be called inside a transaction block or a function"),
				 errdetail("It commits after each batch."),
				 errhint("CALL it by itself.")));
}

/* ---- turns ---- */

static void
show_progress(const Drain *drain)
{
	int64		left = ingest_drain_count_left(drain->ends, drain->run);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "CALL ingest.run(%s): " INT64_FORMAT " messages in " INT64_FORMAT " batches",
					 drain->quoted_name, drain->total.messages, drain->batches);
	if (left >= 0)
		appendStringInfo(&text, ", about " INT64_FORMAT " to go", left);
	pgstat_report_activity(STATE_RUNNING, text.data);
	pfree(text.data);
}

static bool
may_try_again(const Drain *drain, const IngestError *err)
{
	return drain->tries < MAX_TRIES &&
		(err->sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		 err->sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED);
}

/* An error ends the call; when the pipeline is gone, that is what there is to say. */
pg_noreturn static void
raise_failure(const Drain *drain, const IngestError *err)
{
	const IngestPipeline *pl = ingest_run_pipeline(drain->run);
	bool		enabled;

	if (err->class == INGEST_ERROR_NONE || ingest_pipeline_version(pl->id, &enabled) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" was dropped while it ran", pl->name)));
	ingest_error_report(err, ERROR);
	pg_unreachable();
}

static void
make_turn(Drain *drain)
{
	IngestCounts counts;
	IngestError err = {0};

	if (ingest_run_turn(drain->run, &procedure_xact, &counts, &err))
	{
		drain->tries = 0;
		if (counts.messages > 0)
		{
			drain->batches++;
			ingest_counts_add(&drain->total, &counts);
		}
		show_progress(drain);
		return;
	}
	drain->tries++;
	if (!may_try_again(drain, &err))
		raise_failure(drain, &err);
	ingest_run_reset(drain->run);
}

static void
assign_shards(Drain *drain)
{
	IngestError err = {0};

	if (!ingest_run_assign(drain->run, &procedure_xact, &err))
		raise_failure(drain, &err);
}

static void
deal_with_error(Drain *drain, IngestError *err)
{
	IngestError skip = {0};

	if (err->class == INGEST_ERROR_GAP && ingest_run_skip_gap(drain->run, &procedure_xact, &skip))
		return;
	ingest_error_report(skip.class == INGEST_ERROR_NONE ? err : &skip, ERROR);
}

static void
wait_for_source(pgsocket fd, long timeout)
{
	static uint32 wait_event = 0;
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestRunFetch");
	if (fd != PGINVALID_SOCKET)
		events |= WL_SOCKET_READABLE;
	if (timeout >= 0)
		events |= WL_TIMEOUT;
	(void) WaitLatchOrSocket(MyLatch, events, fd, timeout, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
drain_pipeline(Drain *drain)
{
	IngestError unready = {0};
	bool		settled = false;	/* all that was there is committed */

	assign_shards(drain);
	drain->ends = ingest_drain_begin(drain->run, CurrentMemoryContext, &unready);
	if (drain->ends == NULL)
		ingest_error_report(&unready, ERROR);
	show_progress(drain);

	for (;;)
	{
		pgsocket	fd;
		long		timeout;
		IngestError err = {0};
		IngestReady ready = ingest_run_fetch(drain->run, &procedure_xact, &fd, &timeout, &err);

		CHECK_FOR_INTERRUPTS();
		switch (ready)
		{
			case INGEST_READY_TURN:
				settled = false;
				make_turn(drain);
				if (drain->max_batches > 0 && drain->batches >= drain->max_batches)
					return;
				break;
			case INGEST_READY_WAIT:
				if (!ingest_drain_is_done(drain->ends, drain->run))
				{
					wait_for_source(fd, timeout);
					break;
				}
				/* What is there is all there will be: do not wait for more. */
				if (settled)
					return;
				make_turn(drain);
				settled = true;
				break;
			case INGEST_READY_ASSIGN:
				assign_shards(drain);
				break;
			case INGEST_READY_ERROR:
				deal_with_error(drain, &err);
				break;
		}
	}
}

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
end_run(const Drain *drain, TimestampTz began)
{
	int32		id = ingest_run_pipeline(drain->run)->id;
	IngestRunEnd end = {.completed = drain->max_batches == 0 || drain->batches < drain->max_batches, .started = began};

	PushActiveSnapshot(GetTransactionSnapshot());
	if (drain->batches == 0)
		ingest_batch_record_run(id, began, INGEST_CAUSE_MANUAL, INGEST_OUTCOME_DONE, NULL);
	if (end.completed)
		ingest_state_run_ended(id, &end);
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
report_total(const char *name, const Drain *drain)
{
	const IngestCounts *total = &drain->total;

	ereport(NOTICE,
			(errmsg("pipeline \"%s\": read " INT64_FORMAT ", written " INT64_FORMAT ", rejected "
					INT64_FORMAT ", dropped " INT64_FORMAT ", skipped " INT64_FORMAT " in "
					INT64_FORMAT " batches",
					name, total->read, total->written, total->rejected, total->dropped,
					total->skipped, drain->batches)));
}

/* run(pipeline text, max_batches bigint) */
Datum
ingest_sql_run(PG_FUNCTION_ARGS)
{
	Drain		drain = {0};
	TimestampTz began = GetCurrentTimestamp();
	IngestPipeline *pl;

	check_top_level(fcinfo);
	SPI_connect_ext(SPI_OPT_NONATOMIC);

	pl = ingest_pipeline_get(ingest_argument_text(fcinfo, 0, "pipeline"));
	ingest_pipeline_check_runner(pl);
	drain.quoted_name = quote_literal_cstr(pl->name);
	drain.max_batches = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	lock_pipeline(pl);
	PG_TRY();
	{
		renew_budget(pl->id);
		drain.run = ingest_run_open(pl->id, -1, CurrentMemoryContext);
		ingest_run_set_cause(drain.run, INGEST_CAUSE_MANUAL, began);
		SPI_commit();			/* and with it the snapshot of the CALL goes */
		drain_pipeline(&drain);
		end_run(&drain, began);
		ingest_run_close(drain.run);
	}
	PG_FINALLY();
	{
		ingest_worker_unlock(pl->id, -1);
	}
	PG_END_TRY();

	SPI_finish();
	if (debug_query_string)
		pgstat_report_activity(STATE_RUNNING, debug_query_string);
	report_total(pl->name, &drain);
	PG_RETURN_VOID();
}
