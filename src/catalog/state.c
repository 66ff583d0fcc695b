/*
 * state.c
 *		ingest._state: why a pipeline does not run, and when it does again.
 *
 * Keeps book; what an error leads to is decided by the worker, and what follows
 * from the state by the supervisor.  A pipeline without a row is well.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/state.h"
#include "core/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static const char *
halt_name(IngestHalt halt)
{
	switch (halt)
	{
		case INGEST_HALT_PAUSED:
			return "paused";
		case INGEST_HALT_FAILED:
			return "failed";
		case INGEST_HALT_BROKEN:
			return "broken";
		case INGEST_HALT_GAP:
			return "gap";
		case INGEST_HALT_NONE:
			break;
	}
	elog(ERROR, "unexpected halt %d", (int) halt);
	return NULL;
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/* sqlstate, message, detail, hint. */
static void
put_error(const IngestError *err, Datum *values, bool *nulls)
{
	bool		has_code = err && err->sqlstate != 0;

	values[0] = text_or_null(has_code ? unpack_sql_state(err->sqlstate) : NULL, &nulls[0]);
	values[1] = text_or_null(err ? err->message : NULL, &nulls[1]);
	values[2] = text_or_null(err ? err->detail : NULL, &nulls[2]);
	values[3] = text_or_null(err ? err->hint : NULL, &nulls[3]);
}

/* Run and give back column "n" of its row; 0 without one. */
static int64
run_for_number(IngestStatement *statement, Datum *values, const bool *nulls)
{
	int64		n = 0;

	ingest_spi_begin();
	if (ingest_spi_run(statement, values, nulls) > 0 && SPI_tuptable)
		n = ingest_spi_int64(0, "n", 0);
	ingest_spi_end();
	return n;
}

static void
run_for_pipeline(IngestStatement *statement, int32 pipeline_id)
{
	Datum		id = Int32GetDatum(pipeline_id);

	ingest_spi_begin();
	ingest_spi_run(statement, &id, NULL);
	ingest_spi_end();
}

void
ingest_state_halt(int32 pipeline_id, IngestHalt halt, const IngestError *err)
{
	static IngestStatement statement = {
		"INSERT INTO ingest._state AS s (pipeline_id, halt, sqlstate, message, detail, hint, error_at)"
		" SELECT id, $2, $3, $4, $5, $6, clock_timestamp() FROM ingest._pipeline WHERE id = $1"
		" ON CONFLICT (pipeline_id) DO UPDATE SET halt = excluded.halt,"
		" sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail,"
		" hint = excluded.hint, error_at = excluded.error_at, retry_at = NULL"
		" RETURNING 1 AS n",
		6, {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[6] = {Int32GetDatum(pipeline_id), CStringGetTextDatum(halt_name(halt))};
	bool		nulls[6] = {false};

	put_error(err, &values[2], &nulls[2]);
	(void) run_for_number(&statement, values, nulls);
}

int
ingest_state_retry(int32 pipeline_id, const IngestError *err, TimestampTz retry_at)
{
	static IngestStatement statement = {
		"INSERT INTO ingest._state AS s (pipeline_id, attempts, sqlstate, message, detail, hint,"
		" error_at, retry_at)"
		" SELECT id, 1, $2, $3, $4, $5, clock_timestamp(), $6 FROM ingest._pipeline WHERE id = $1"
		" ON CONFLICT (pipeline_id) DO UPDATE SET attempts = s.attempts + 1,"
		" sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail,"
		" hint = excluded.hint, error_at = excluded.error_at, retry_at = excluded.retry_at"
		" WHERE s.halt IS NULL"
		" RETURNING s.attempts AS n",
		6, {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	};
	Datum		values[6] = {Int32GetDatum(pipeline_id)};
	bool		nulls[6] = {false};

	put_error(err, &values[1], &nulls[1]);
	values[5] = TimestampTzGetDatum(retry_at);
	return (int) run_for_number(&statement, values, nulls);
}

int
ingest_state_attempts(int32 pipeline_id, TimestampTz *retry_at)
{
	static IngestStatement statement = {
		"SELECT attempts AS n, retry_at FROM ingest._state WHERE pipeline_id = $1", 1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);
	int			attempts = 0;

	*retry_at = 0;
	ingest_spi_begin();
	if (ingest_spi_run(&statement, &id, NULL) > 0)
	{
		bool		isnull;
		Datum		value = ingest_spi_value(0, "retry_at", &isnull);

		attempts = (int) ingest_spi_int64(0, "n", 0);
		if (!isnull)
			*retry_at = DatumGetTimestampTz(value);
	}
	ingest_spi_end();
	return attempts;
}

int64
ingest_state_asked_wait(int32 pipeline_id, int64 longest)
{
	/* Not longer than it was, though the clock be set back. */
	static IngestStatement statement = {
		"SELECT (1000 * greatest(0, extract(epoch FROM least(retry_at - clock_timestamp(), retry_at - error_at))))::bigint AS n"
		"  FROM ingest._state"
		" WHERE pipeline_id = $1 AND halt IS NULL AND retry_at - error_at > $2 * interval '1 ms'",
		2, {INT4OID, INT8OID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), Int64GetDatum(longest)};
	int64		left = 0;

	ingest_spi_begin();
	if (ingest_spi_run(&statement, values, NULL) > 0)
		left = ingest_spi_int64(0, "n", 0);
	ingest_spi_end();
	return left;
}

void
ingest_state_recovered(int32 pipeline_id)
{
	static IngestStatement statement = {
		"UPDATE ingest._state SET attempts = 0, sqlstate = NULL, message = NULL, detail = NULL,"
		" hint = NULL, error_at = NULL, retry_at = NULL"
		" WHERE pipeline_id = $1 AND halt IS NULL AND (attempts > 0 OR message IS NOT NULL)",
		1, {INT4OID}
	};

	run_for_pipeline(&statement, pipeline_id);
}

void
ingest_state_well(int32 pipeline_id)
{
	static IngestStatement statement = {
		"UPDATE ingest._state SET attempts = 0, crashes = 0, sqlstate = NULL, message = NULL,"
		" detail = NULL, hint = NULL, error_at = NULL, retry_at = NULL"
		" WHERE pipeline_id = $1 AND halt IS NULL"
		" AND (attempts > 0 OR crashes > 0 OR message IS NOT NULL)",
		1, {INT4OID}
	};

	run_for_pipeline(&statement, pipeline_id);
}

void
ingest_state_clear(int32 pipeline_id)
{
	static IngestStatement statement = {
		"INSERT INTO ingest._state (pipeline_id) VALUES ($1)"
		" ON CONFLICT (pipeline_id) DO UPDATE SET halt = NULL, sqlstate = NULL, message = NULL,"
		" detail = NULL, hint = NULL, error_at = NULL, attempts = 0, crashes = 0, retry_at = NULL,"
		" next_run = NULL, asked_at = NULL, budget_since = excluded.budget_since",
		1, {INT4OID}
	};

	run_for_pipeline(&statement, pipeline_id);
}

void
ingest_state_accept_fewer(int32 pipeline_id, bool accept)
{
	static IngestStatement statement = {
		"UPDATE ingest._state SET accept_fewer = $2 WHERE pipeline_id = $1 AND accept_fewer <> $2",
		2, {INT4OID, BOOLOID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), BoolGetDatum(accept)};

	ingest_spi_begin();
	ingest_spi_run(&statement, values, NULL);
	ingest_spi_end();
}

bool
ingest_state_accepts_fewer(int32 pipeline_id)
{
	static IngestStatement statement = {
		"SELECT accept_fewer::integer AS n FROM ingest._state WHERE pipeline_id = $1", 1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);

	return run_for_number(&statement, &id, NULL) != 0;
}

static Datum
number_array(const int64 *numbers, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

#define RUN_ENDED \
	"UPDATE ingest._state s SET" \
	" next_run = CASE WHEN $2 THEN s.next_run ELSE $3 END," \
	" last_run = CASE WHEN $4 THEN $5 ELSE s.last_run END, runs = s.runs + $6," \
	" asked_at = nullif(s.asked_at, $7), duration = coalesce($8, s.duration), seen = coalesce($9, s.seen)," \
	" attempts = 0, retry_at = NULL, crashes = CASE WHEN $4 THEN 0 ELSE s.crashes END," \
	" sqlstate = CASE WHEN NOT $4 THEN s.sqlstate END, message = CASE WHEN NOT $4 THEN s.message END," \
	" detail = CASE WHEN NOT $4 THEN s.detail END, hint = CASE WHEN NOT $4 THEN s.hint END," \
	" error_at = CASE WHEN NOT $4 THEN s.error_at END" \
	" FROM mine WHERE s.pipeline_id = mine.pipeline_id RETURNING 1 AS n"
#define RUN_ENDED_TYPES \
	{INT4OID, BOOLOID, TIMESTAMPTZOID, BOOLOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8ARRAYOID}

bool
ingest_state_run_ended(int32 pipeline_id, const IngestRunEnd *end, bool wait)
{
	static IngestStatement update = {
		"WITH mine AS (SELECT pipeline_id FROM ingest._state WHERE pipeline_id = $1 FOR NO KEY UPDATE)"
		RUN_ENDED, 9, RUN_ENDED_TYPES
	};
	static IngestStatement update_free = {
		"WITH mine AS (SELECT pipeline_id FROM ingest._state WHERE pipeline_id = $1 FOR NO KEY UPDATE SKIP LOCKED)"
		RUN_ENDED, 9, RUN_ENDED_TYPES
	};
	Datum		values[9] = {
		Int32GetDatum(pipeline_id), BoolGetDatum(end->next_run == 0), TimestampTzGetDatum(end->next_run),
		BoolGetDatum(end->completed), TimestampTzGetDatum(end->started), Int64GetDatum(end->runs),
		TimestampTzGetDatum(end->asked_at), Int64GetDatum(end->duration)
	};
	bool		nulls[9] = {
		false, false, end->next_run == DT_NOEND || end->next_run == 0, false, false, false,
		end->asked_at == 0, end->duration == 0, end->seen == NULL
	};
	bool		written;

	ingest_spi_begin();
	if (end->seen)
		values[8] = number_array(end->seen, end->nseen);
	written = ingest_spi_run(wait ? &update : &update_free, values, nulls) > 0;
	ingest_spi_end();
	return written;
}

bool
ingest_state_first_run(int32 pipeline_id, TimestampTz next_run)
{
	static IngestStatement statement = {
		"WITH mine AS (SELECT pipeline_id FROM ingest._state WHERE pipeline_id = $1"
		"  FOR NO KEY UPDATE SKIP LOCKED)"
		"UPDATE ingest._state s SET next_run = $2 FROM mine WHERE s.pipeline_id = mine.pipeline_id",
		2, {INT4OID, TIMESTAMPTZOID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), TimestampTzGetDatum(next_run)};
	bool		written;

	ingest_spi_begin();
	written = ingest_spi_run(&statement, values, NULL) > 0;
	ingest_spi_end();
	return written;
}

bool
ingest_state_ask(int32 pipeline_id)
{
	static IngestStatement statement = {
		"UPDATE ingest._state SET asked_at = clock_timestamp(), retry_at = NULL"
		" WHERE pipeline_id = $1 AND halt IS NULL",
		1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);
	bool		asked;

	ingest_spi_begin();
	asked = ingest_spi_run(&statement, &id, NULL) > 0;
	ingest_spi_end();
	return asked;
}

int
ingest_state_crashes(int32 pipeline_id)
{
	static IngestStatement statement = {
		"SELECT crashes AS n FROM ingest._state WHERE pipeline_id = $1", 1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);

	return (int) run_for_number(&statement, &id, NULL);
}

int
ingest_state_crashed(int32 pipeline_id, TimestampTz retry_at)
{
	/* A worker that waits for messages commits nothing: what was long ago is not "in a row". */
	static IngestStatement statement = {
		"INSERT INTO ingest._state AS s (pipeline_id, crashes, crashed_at, sqlstate, message, hint, error_at, retry_at)"
		" SELECT id, 1, clock_timestamp(), '58000', 'a worker of the pipeline crashed',"
		" 'The server log says how it ended.', clock_timestamp(), $2 FROM ingest._pipeline WHERE id = $1"
		" ON CONFLICT (pipeline_id) DO UPDATE SET crashed_at = excluded.crashed_at,"
		" crashes = CASE WHEN s.crashed_at < clock_timestamp() - interval '1 hour' THEN 1 ELSE s.crashes + 1 END,"
		" sqlstate = excluded.sqlstate, message = excluded.message, hint = excluded.hint,"
		" detail = NULL, error_at = excluded.error_at, retry_at = excluded.retry_at"
		" WHERE s.halt IS NULL"
		" RETURNING s.crashes AS n",
		2, {INT4OID, TIMESTAMPTZOID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), TimestampTzGetDatum(retry_at)};
	int			crashes = (int) run_for_number(&statement, values, NULL);
	IngestError err = {0};

	if (crashes < INGEST_MAX_CRASHES)
		return crashes;
	ingest_error_set(&err, INGEST_ERROR_PERMANENT, ERRCODE_SYSTEM_ERROR,
					 "workers of the pipeline crashed %d times without committing a batch", crashes);
	ingest_error_detail(&err, "Each crash of a worker restarts the whole server.");
	ingest_error_hint(&err, "The server log says how they ended; ingest.start() tries again.");
	ingest_state_halt(pipeline_id, INGEST_HALT_FAILED, &err);
	return crashes;
}
