/*
 * wait.c
 *		CALL ingest.wait_for(): until a pipeline has committed what its source held
 *		when the call began.
 *
 * A stream is asked for the end of its shards, and tells when it has come there; one
 * that runs after others must have seen what those had done by then; of any other a
 * run has to be completed that began after the call.  A procedure, so that nothing is
 * held while it waits: no snapshot, no lock.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "api/foreground.h"
#include "catalog/pg_type.h"
#include "core/clock.h"
#include "core/compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/waiting.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_wait_for);

/* Whoever has something to tell sets the latch; should he have died, we look ourselves. */
#define LOOK_INTERVAL_MS 10000

typedef struct Wait
{
	int32		id;				/* of the pipeline */
	char	   *name;
	TimestampTz began;
	int64		deadline;		/* by ingest_clock_ms(); -1: none */
	Datum		upstream;		/* bigint[]: how far those were that it runs after; 0: none */
} Wait;

typedef struct State
{
	bool		exists;
	bool		enabled;
	bool		stream;
	int			workers;
	char	   *halt;			/* or NULL */
	char	   *message;
	bool		has_run;		/* a run that began after the call is completed */
	bool		has_seen;		/* one that began when the upstream pipelines were there */
} State;

/* As the supervisor counts: see worker/agenda.c. */
static Datum
read_upstream(int32 pipeline_id)
{
	static IngestStatement find = {
		"SELECT ARRAY(SELECT CASE WHEN up.schedule = 'continuous'"
		"   THEN coalesce((SELECT max(b.id) FROM ingest._batch b WHERE b.pipeline_id = up.id AND b.kind = 'turn'), 0)"
		"   ELSE coalesce(s.runs, 0) END"
		"  FROM unnest(p.upstream) WITH ORDINALITY u (id, place)"
		"  LEFT JOIN ingest._pipeline up ON up.id = u.id LEFT JOIN ingest._state s ON s.pipeline_id = u.id"
		"  ORDER BY u.place) AS counters"
		" FROM ingest._pipeline p WHERE p.id = $1 AND p.upstream IS NOT NULL",
		1, {INT4OID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		id = Int32GetDatum(pipeline_id);
	Datum		counters = (Datum) 0;

	ingest_spi_begin();
	if (ingest_spi_run(&find, &id, NULL) > 0)
	{
		bool		isnull;
		Datum		value = ingest_spi_value(0, "counters", &isnull);
		MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

		if (!isnull)
			counters = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		MemoryContextSwitchTo(oldcontext);
	}
	ingest_spi_end();
	return counters;
}

static State
read_state(const Wait *wait)
{
	static IngestStatement find = {
		"SELECT p.enabled AND p.home = $2 AS enabled, p.schedule = 'continuous' AS stream,"
		" coalesce((p.options ->> 'workers')::integer, 1) AS workers, s.halt, s.message,"
		" s.last_run >= $3 AS has_run, $4 IS NOT NULL AND NOT EXISTS ("
		"   SELECT FROM unnest($4, s.seen) AS u (wanted, seen) WHERE coalesce(seen, 0) < wanted) AS has_seen"
		" FROM ingest._pipeline p LEFT JOIN ingest._state s ON s.pipeline_id = p.id WHERE p.id = $1",
		4, {INT4OID, TEXTOID, TIMESTAMPTZOID, INT8ARRAYOID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		values[4] = {
		Int32GetDatum(wait->id), CStringGetTextDatum(ingest_pipeline_home()),
		TimestampTzGetDatum(wait->began), wait->upstream
	};
	bool		nulls[4] = {false, false, false, wait->upstream == (Datum) 0};
	State		state = {0};

	PushActiveSnapshot(GetTransactionSnapshot());
	ingest_spi_begin();
	if (ingest_spi_run(&find, values, nulls) > 0)
	{
		state.exists = true;
		state.enabled = ingest_spi_bool(0, "enabled", false);
		state.stream = ingest_spi_bool(0, "stream", false);
		state.workers = (int) ingest_spi_int64(0, "workers", 1);
		state.halt = ingest_spi_text(0, "halt", mcxt);
		state.message = ingest_spi_text(0, "message", mcxt);
		state.has_run = ingest_spi_bool(0, "has_run", false);
		state.has_seen = ingest_spi_bool(0, "has_seen", false);
	}
	ingest_spi_end();
	PopActiveSnapshot();
	SPI_commit();
	return state;
}

static void
check_state(const Wait *wait, const State *state)
{
	if (!state->exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" was dropped", wait->name)));
	if (!state->enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is stopped", wait->name),
				 errhint("ingest.start() starts it; CALL ingest.run() runs it in this session.")));
	if (state->halt)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" does not run: %s", wait->name, state->halt),
				 state->message ? errdetail("%s", state->message) : 0,
				 errhint("ingest.start() goes on.")));
}

pg_noreturn static void
raise_timeout(const Wait *wait)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("timeout: pipeline \"%s\" has not caught up", wait->name),
			 errhint("The view ingest.pipeline_status tells what it does.")));
	pg_unreachable();
}

static void
sleep_a_while(const Wait *wait)
{
	static uint32 wait_event = 0;
	int64		left = LOOK_INTERVAL_MS;

	if (wait_event == 0)
		wait_event = ingest_compat_wait_event("IngestWaitFor");
	if (wait->deadline >= 0)
		left = Min(left, wait->deadline - ingest_clock_ms());
	if (left <= 0)
		raise_timeout(wait);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) left, wait_event);
	CHECK_FOR_INTERRUPTS();
}

static void
wait_until_caught_up(const Wait *wait)
{
	for (;;)
	{
		State		state;

		ResetLatch(MyLatch);
		state = read_state(wait);
		check_state(wait, &state);
		if (state.stream ? ingest_waiting_is_over(state.workers) : state.has_run || state.has_seen)
			return;
		sleep_a_while(wait);
	}
}

/* When it is too late; -1: never. */
static int64
find_deadline(FunctionCallInfo fcinfo, TimestampTz began)
{
	TimestampTz until;

	if (PG_ARGISNULL(1))
		return -1;
	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(began),
													PG_GETARG_DATUM(1)));
	return ingest_clock_ms() + Max((until - began) / 1000, 0);
}

/* With workers and supervisor knowing of it. */
static void
wait_in_public(const Wait *wait)
{
	PG_TRY();
	{
		ingest_waiting_begin(wait->id);
		SPI_commit();			/* and with it the snapshot of the CALL goes */
		wait_until_caught_up(wait);
	}
	PG_CATCH();
	{
		ingest_waiting_end();
		PG_RE_THROW();
	}
	PG_END_TRY();
	ingest_waiting_end();
}

/* wait_for(pipeline text, timeout interval) */
Datum
ingest_sql_wait_for(PG_FUNCTION_ARGS)
{
	TimestampTz began = GetCurrentTimestamp();
	IngestPipeline *pl;
	Wait		wait;

	ingest_foreground_check(fcinfo, "ingest.wait_for");
	ingest_worker_check_available();
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	pl = ingest_argument_pipeline(fcinfo, "pipeline");
	wait = (Wait) {pl->id, pl->name, began, find_deadline(fcinfo, began), read_upstream(pl->id)};
	wait_in_public(&wait);
	SPI_finish();
	PG_RETURN_VOID();
}
