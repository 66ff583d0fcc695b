/*
 * foreground.c
 *		Turns in the caller's session: what CALL ingest.run() and
 *		CALL ingest.backfill() share.
 *
 * The same turns as a worker makes (pipeline/turn.h), one commit a batch, up
 * to what the source held when the drain began.  Between turns there is no
 * snapshot and no lock but the one that keeps workers away.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "api/foreground.h"
#include "core/compat.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "worker/worker.h"

/* Positions moved by somebody else, deadlocks: tries in a row. */
#define MAX_TRIES 5

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

const IngestXact ingest_foreground_xact = {begin_nothing, commit_transaction, roll_transaction_back};

void
ingest_foreground_check(FunctionCallInfo fcinfo, const char *procedure)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s() cannot be called inside a transaction block or a function", procedure),
				 errdetail("It commits after each batch."),
				 errhint("CALL it by itself.")));
}

/* ---- turns ---- */

static void
show_progress(const IngestForeground *drain)
{
	int64		left = ingest_drain_count_left(drain->ends, drain->run);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s: " INT64_FORMAT " messages in " INT64_FORMAT " batches", drain->label, drain->total.messages, drain->batches);
	if (left >= 0)
		appendStringInfo(&text, ", about " INT64_FORMAT " to go", left);
	pgstat_report_activity(STATE_RUNNING, text.data);
	pfree(text.data);
}

static bool
may_try_again(const IngestForeground *drain, const IngestError *err)
{
	return drain->tries < MAX_TRIES &&
		(err->sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		 err->sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED);
}

/* An error ends the call; when the pipeline is gone, that is what there is to say. */
pg_noreturn static void
raise_failure(const IngestForeground *drain, const IngestError *err)
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
make_turn(IngestForeground *drain)
{
	IngestCounts counts;
	IngestError err = {0};

	if (ingest_run_turn(drain->run, &ingest_foreground_xact, &counts, &err))
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
assign_shards(IngestForeground *drain)
{
	IngestError err = {0};

	if (!ingest_run_assign(drain->run, &ingest_foreground_xact, &err))
		raise_failure(drain, &err);
}

static void
deal_with_error(IngestForeground *drain, IngestError *err)
{
	IngestError skip = {0};

	if (err->class == INGEST_ERROR_GAP && ingest_run_skip_gap(drain->run, &ingest_foreground_xact, &skip))
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

void
ingest_foreground_open(IngestForeground *drain, int32 pipeline_id, IngestCause cause, TimestampTz began)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	drain->run = ingest_run_open(pipeline_id, -1, CurrentMemoryContext);
	PopActiveSnapshot();
	ingest_run_set_cause(drain->run, cause, began);
	SPI_commit();
}

void
ingest_foreground_drain(IngestForeground *drain)
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
		IngestReady ready = ingest_run_fetch(drain->run, &ingest_foreground_xact, &fd, &timeout, &err);

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

/* ---- failure ---- */

/* As at the beginning of the call: no statement of ours, no snapshot, a transaction. */
static void
leave_everything(void)
{
	while (!SPI_inside_nonatomic_context())
		if (SPI_finish() != SPI_OK_FINISH)
			elog(ERROR, "the procedure has lost its connection");
	while (ActiveSnapshotSet())
		PopActiveSnapshot();
	SPI_rollback();
}

static void
record_failure(int32 pipeline_id, IngestCause cause, TimestampTz began, ErrorData *edata)
{
	IngestError err = {0};

	leave_everything();
	ingest_error_from_edata(&err, edata);
	PushActiveSnapshot(GetTransactionSnapshot());
	ingest_batch_record_run(pipeline_id, began, cause, INGEST_OUTCOME_FAILED, &err);
	PopActiveSnapshot();
	ingest_worker_wake_at_commit();
	SPI_commit();
}

void
ingest_foreground_fail(int32 pipeline_id, IngestCause cause, TimestampTz began, MemoryContext mcxt)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(mcxt);
	edata = CopyErrorData();
	FlushErrorState();
	PG_TRY();
	{
		record_failure(pipeline_id, cause, began, edata);
	}
	PG_CATCH();
	{
		/* What went wrong first is what there is to say. */
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mcxt);
	ReThrowError(edata);
}
