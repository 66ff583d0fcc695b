/*
 * backfill.c
 *		CALL ingest.backfill(): a part of the source once, slice by slice,
 *		beside the live pipeline.
 *
 * Each slice has positions of its own, committed with its rows, so that a call
 * that was interrupted goes on where it was when it is made again.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "api/foreground.h"
#include "catalog/backfill.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/lock.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_backfill);

typedef struct Call
{
	IngestPipeline *pl;
	IngestBackfill *backfill;
	char	   *prefix;
	TimestampTz began;
	IngestCounts total;
	int64		slices;
} Call;

/* In what the source counts its parts. */
static Oid
find_type(const IngestPipeline *pl, const char *from)
{
	IngestRun  *run = ingest_run_open(pl->id, -1, CurrentMemoryContext);
	IngestSource *source = ingest_run_source(run);
	Oid			type = source->ops->slice_type ? source->ops->slice_type(source, from) : InvalidOid;

	ingest_run_close(run);
	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("pipeline \"%s\" cannot be backfilled", pl->name),
				 errdetail("Its source cannot be read in parts."),
				 errhint("A relation that is read by a cursor can, and a Kafka topic.")));
	return type;
}

/* In a transaction, with a snapshot. */
static bool
find_slice(Call *call)
{
	bool		found;

	PushActiveSnapshot(GetTransactionSnapshot());
	found = ingest_backfill_next_slice(call->backfill);
	if (!found)
		ingest_backfill_finish(call->backfill);
	PopActiveSnapshot();
	return found;
}

static void
read_slice(Call *call)
{
	IngestForeground drain = {
		.label = psprintf("CALL ingest.backfill(%s), from %s", quote_literal_cstr(call->pl->name),
						  call->backfill->next)
	};

	ingest_foreground_open(&drain, call->pl->id, INGEST_CAUSE_BACKFILL, call->began);
	ingest_run_set_slice(drain.run, call->prefix, call->backfill->next, call->backfill->slice_end);
	ingest_foreground_drain(&drain);
	ingest_run_close(drain.run);

	PushActiveSnapshot(GetTransactionSnapshot());
	ingest_backfill_slice_done(call->backfill, call->prefix, &drain.total);
	PopActiveSnapshot();
	SPI_commit();
	ingest_counts_add(&call->total, &drain.total);
	call->slices++;
}

static void
begin_call(Call *call, FunctionCallInfo fcinfo)
{
	char	   *from = ingest_argument_text(fcinfo, 1, "from_value");
	char	   *to = ingest_argument_text(fcinfo, 2, "to_value");

	call->backfill = ingest_backfill_begin(call->pl, find_type(call->pl, from), from, to,
										   ingest_argument_text_or_null(fcinfo, 3));
	call->prefix = psprintf("backfill " INT64_FORMAT ": ", call->backfill->id);
	SPI_commit();
	call->began = GetCurrentTimestamp();
}

/* backfill(pipeline text, from_value text, to_value text, step text) */
Datum
ingest_sql_backfill(PG_FUNCTION_ARGS)
{
	Call		call = {0};
	MemoryContext mcxt;

	ingest_foreground_check(fcinfo, "ingest.backfill");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	mcxt = CurrentMemoryContext;
	call.pl = ingest_pipeline_get(ingest_argument_text(fcinfo, 0, "pipeline"));
	ingest_pipeline_check_runner(call.pl);
	if (call.pl->options.mode == INGEST_MODE_REPLACE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" reads everything each time: there is nothing to fill in", call.pl->name)));
	if (!ingest_worker_lock_backfill(call.pl->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a backfill of pipeline \"%s\" is already running", call.pl->name)));
	PG_TRY();
	{
		begin_call(&call, fcinfo);
		while (find_slice(&call))
			read_slice(&call);
	}
	PG_CATCH();
	{
		ingest_worker_unlock_backfill(call.pl->id);
		if (call.began == 0)
			PG_RE_THROW();		/* what was asked for is not possible */
		ingest_foreground_fail(call.pl->id, INGEST_CAUSE_BACKFILL, call.began, mcxt);
	}
	PG_END_TRY();
	ingest_worker_unlock_backfill(call.pl->id);

	SPI_finish();
	ereport(NOTICE,
			(errmsg("backfill of pipeline \"%s\": read " INT64_FORMAT ", written " INT64_FORMAT ", rejected "
					INT64_FORMAT " in " INT64_FORMAT " slices",
					call.pl->name, call.total.read, call.total.written, call.total.rejected, call.slices)));
	PG_RETURN_VOID();
}
