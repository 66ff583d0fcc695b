/*
 * replay.c
 *		ingest.replay() and ingest.discard(): what becomes of dead letters.
 *
 * A condition is the caller's SQL over the view ingest.dead_letter, run as the
 * caller; only the ids it finds go further.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/arguments.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "pipeline/turn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_replay);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_discard);

#define FETCH_ROWS 10000
#define REPLAY_ROWS 1000000

typedef struct Ids
{
	int64	   *ids;
	int64		n;
	int64		allocated;
	MemoryContext mcxt;
} Ids;

static void
append_ids(Ids *ids, SPITupleTable *rows, uint64 nrows)
{
	if (ids->n + (int64) nrows > ids->allocated)
	{
		ids->allocated = Max(ids->allocated * 2, ids->n + (int64) nrows);
		ids->ids = ids->ids ?
			repalloc_huge(ids->ids, ids->allocated * sizeof(int64)) :
			MemoryContextAllocHuge(ids->mcxt, ids->allocated * sizeof(int64));
	}
	for (uint64 i = 0; i < nrows; i++)
	{
		bool		isnull;

		ids->ids[ids->n++] = DatumGetInt64(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull));
	}
}

typedef struct Condition
{
	const char *text;
	int			offset;			/* characters before it in the query around it */
} Condition;

/* Points into the condition, not into the query around it. */
static void
show_condition(void *arg)
{
	Condition  *condition = arg;
	int			position = geterrposition();

	if (position == 0)
		position = getinternalerrposition() - condition->offset;
	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(condition->text);
	}
}

/* One expression: nothing that closes our parentheses and goes on. */
static void
check_condition(const char *condition)
{
	Condition	alone = {condition, 0};
	ErrorContextCallback context = {error_context_stack, show_condition, &alone};

	error_context_stack = &context;
	(void) raw_parser(condition, RAW_PARSE_PLPGSQL_EXPR);
	error_context_stack = context.previous;
}

/*
 * Dead letters of the pipeline that the condition is true for, oldest first.
 * A newline before the parenthesis: the condition may end in a comment.
 */
static Ids
find_ids(const IngestPipeline *pl, const char *condition, const char *outcomes, int64 limit)
{
	Ids			found = {.mcxt = CurrentMemoryContext};
	Oid			types[2] = {TEXTOID, INT8OID};
	Datum		values[2] = {CStringGetTextDatum(pl->name), Int64GetDatum(limit)};
	char		nulls[2] = {' ', limit < 0 ? 'n' : ' '};
	StringInfoData query;
	Condition	inside = {condition, 0};
	ErrorContextCallback context = {error_context_stack, show_condition, &inside};
	Portal		portal;

	initStringInfo(&query);
	appendStringInfo(&query, "SELECT id FROM ingest.dead_letter WHERE pipeline OPERATOR(pg_catalog.=) $1"
					 " AND outcome OPERATOR(pg_catalog.=) ANY ('%s'::pg_catalog.text[])", outcomes);
	if (condition)
	{
		check_condition(condition);
		appendStringInfoString(&query, " AND (");
		inside.offset = query.len;
		appendStringInfo(&query, "%s\n)", condition);
	}
	appendStringInfoString(&query, " ORDER BY id LIMIT $2");

	SPI_connect();
	if (condition)
		error_context_stack = &context;
	portal = SPI_cursor_open_with_args(NULL, query.data, 2, types, values, nulls, true, 0);
	do
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		append_ids(&found, SPI_tuptable, SPI_processed);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed == FETCH_ROWS);
	error_context_stack = context.previous;
	SPI_cursor_close(portal);
	SPI_finish();
	return found;
}

/* replay(pipeline text, condition text, limit_rows bigint) */
Datum
ingest_sql_replay(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");
	char	   *condition = ingest_argument_text_or_null(fcinfo, 1);
	int64		limit = PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2);
	IngestCounts total = {0};
	TupleDesc	tupdesc;
	Datum		values[5];
	bool		nulls[5] = {false};
	Ids			found;

	ingest_pipeline_check_runner(pl);
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	found = find_ids(pl, condition, "{pending}", limit);
	for (int64 done = 0; done < found.n; done += REPLAY_ROWS)
	{
		IngestCounts counts = ingest_replay(pl->id, found.ids + done,
											(int) Min(found.n - done, REPLAY_ROWS));

		ingest_counts_add(&total, &counts);
		CHECK_FOR_INTERRUPTS();
	}

	values[0] = Int64GetDatum(total.read);
	values[1] = Int64GetDatum(total.written);
	values[2] = Int64GetDatum(total.rejected);
	values[3] = Int64GetDatum(total.dropped);
	values[4] = Int64GetDatum(total.skipped);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

static int64
discard_letters(const IngestPipeline *pl, Datum ids)
{
	static IngestStatement discard = {
		"UPDATE ingest._dead_letter SET outcome = 'discarded', resolved_at = now()"
		" WHERE pipeline_id = $1 AND id = ANY ($2) AND outcome = 'pending'",
		2, {INT4OID, INT8ARRAYOID}
	};
	Datum		values[2] = {Int32GetDatum(pl->id), ids};
	int64		n;

	ingest_spi_begin();
	n = ingest_spi_run(&discard, values, NULL);
	ingest_spi_end();
	return n;
}

static int64
remove_letters(const IngestPipeline *pl, Datum ids)
{
	static IngestStatement remove = {
		"DELETE FROM ingest._dead_letter WHERE pipeline_id = $1 AND id = ANY ($2)",
		2, {INT4OID, INT8ARRAYOID}
	};
	Datum		values[2] = {Int32GetDatum(pl->id), ids};
	int64		n;

	ingest_spi_begin();
	n = ingest_spi_run(&remove, values, NULL);
	ingest_spi_end();
	return n;
}

static Datum
ids_array(const int64 *ids, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(datums, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* discard(pipeline text, condition text, remove boolean) */
Datum
ingest_sql_discard(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");
	char	   *condition = ingest_argument_text_or_null(fcinfo, 1);
	bool		remove = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Ids			found = find_ids(pl, condition,
								 remove ? "{pending,replayed,rejected again,dropped,discarded}" : "{pending}", -1);
	int64		discarded = 0;

	for (int64 done = 0; done < found.n; done += FETCH_ROWS)
	{
		Datum		ids = ids_array(found.ids + done, (int) Min(found.n - done, FETCH_ROWS));

		discarded += remove ? remove_letters(pl, ids) : discard_letters(pl, ids);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_INT64(discarded);
}
