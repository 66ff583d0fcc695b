/*
 * backfill.c
 *		ingest._backfill: parts of a source that are read beside the live
 *		pipeline.
 *
 * Bounds are texts of a type that the source names; the server does the
 * arithmetic.
 */
#include "postgres.h"

#include "catalog/backfill.h"
#include "catalog/pg_type.h"
#include "core/spi.h"
#include "executor/spi.h"
#include "source/source.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

static bool
is_time(Oid type)
{
	return type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID;
}

/* SQL with texts as parameters; its one row's one value as text, or NULL. */
static char *
compute(const char *sql, int n, const char **texts)
{
	MemoryContext mcxt = CurrentMemoryContext;
	Oid			types[4];
	Datum		values[4];
	char		nulls[5] = "    ";
	char	   *result;
	int			level = NewGUCNestLevel();

	/* What is written down is read by other sessions. */
	(void) set_config_option("datestyle", "ISO", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < n; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = texts[i] ? ' ' : 'n';
		values[i] = texts[i] ? CStringGetTextDatum(texts[i]) : (Datum) 0;
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, n, types, values, nulls, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not compute \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	result = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (result)
		result = MemoryContextStrdup(mcxt, result);
	SPI_finish();
	AtEOXact_GUC(true, level);
	return result;
}

static bool
is_true(const char *text)
{
	return text && strcmp(text, "t") == 0;
}

static void
check_bounds(Oid type, const char *from, const char *to, const char *step)
{
	const char *name = format_type_be_qualified(type);
	const char *texts[] = {from, to};
	const char *steps[] = {step};

	if (!is_true(compute(psprintf("SELECT $1::%s < $2::%s", name, name), 2, texts)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a backfill from \"%s\" to \"%s\" is empty", from, to),
				 errdetail("It goes from the first value until before the second.")));
	if (step && !is_true(compute(psprintf("SELECT $1::%s", is_time(type) ? "pg_catalog.interval > '0'" : "pg_catalog.numeric > 0"), 1, steps)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\": \"%s\"", "step", step)));
}

/* The bounds of earlier ones of this kind, as pairs. */
static List *
read_bounds(int32 pipeline_id, Oid type)
{
	static IngestStatement find = {
		"SELECT from_value, to_value FROM ingest._backfill WHERE pipeline_id = $1 AND type = $2",
		2, {INT4OID, REGTYPEOID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), ObjectIdGetDatum(type)};
	MemoryContext mcxt = CurrentMemoryContext;
	List	   *bounds = NIL;
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(&find, values, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		char	   *from = ingest_spi_text(i, "from_value", mcxt);
		char	   *to = ingest_spi_text(i, "to_value", mcxt);
		MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

		bounds = lappend(lappend(bounds, from), to);
		MemoryContextSwitchTo(oldcontext);
	}
	ingest_spi_end();
	return bounds;
}

/* One of them that has a part of this one, or NULL. */
static char *
find_overlap(int32 pipeline_id, Oid type, const char *from, const char *to)
{
	const char *name = format_type_be_qualified(type);
	List	   *bounds = read_bounds(pipeline_id, type);

	for (int i = 0; i < list_length(bounds); i += 2)
	{
		const char *texts[] = {list_nth(bounds, i), list_nth(bounds, i + 1), from, to};

		if (is_true(compute(psprintf("SELECT $1::%s < $4::%s AND $2::%s > $3::%s", name, name, name, name),
							4, texts)))
			return psprintf("%s to %s", texts[0], texts[1]);
	}
	return NULL;
}

/*
 * Rows that are added would be there twice.  What the live pipeline has read is known
 * when it began at a time; the rest of it is what earlier backfills have read.
 */
static void
check_duplicates(const IngestPipeline *pl, Oid type, const char *from, const char *to)
{
	TimestampTz start;
	char	   *overlap;
	const char *texts[2];

	if (pl->options.mode == INGEST_MODE_UPSERT)
		return;
	if (!is_time(type) || ingest_start_parse(pl->options.start_at, &start) != INGEST_START_TIMESTAMP)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a backfill could write rows that pipeline \"%s\" has written before", pl->name),
				 errdetail("It adds rows, and it is not known where it began."),
				 errhint("Write by key (mode \"upsert\"), or let the option \"start_at\" be a time, and end the backfill there.")));
	texts[0] = to;
	texts[1] = pl->options.start_at;
	if (!is_true(compute("SELECT $1::pg_catalog.timestamptz <= $2::pg_catalog.timestamptz", 2, texts)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a backfill up to \"%s\" could write rows that pipeline \"%s\" has written before", to, pl->name),
				 errdetail("It adds rows, and began at %s.", pl->options.start_at),
				 errhint("End the backfill there, or write by key (mode \"upsert\").")));
	overlap = find_overlap(pl->id, type, from, to);
	if (overlap)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a backfill has read a part of that before"),
				 errdetail("It went from %s.", overlap)));
}

static bool
find_unfinished(const IngestPipeline *pl, IngestBackfill *backfill)
{
	static IngestStatement find = {
		"SELECT id, next_value FROM ingest._backfill WHERE pipeline_id = $1 AND from_value = $2"
		" AND to_value = $3 AND step IS NOT DISTINCT FROM $4 AND finished_at IS NULL",
		4, {INT4OID, TEXTOID, TEXTOID, TEXTOID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		values[4] = {
		Int32GetDatum(pl->id), CStringGetTextDatum(backfill->from), CStringGetTextDatum(backfill->to),
		backfill->step ? CStringGetTextDatum(backfill->step) : (Datum) 0
	};
	bool		nulls[4] = {false, false, false, backfill->step == NULL};
	bool		found;

	ingest_spi_begin();
	found = ingest_spi_run(&find, values, nulls) > 0;
	if (found)
	{
		backfill->id = ingest_spi_int64(0, "id", 0);
		backfill->next = ingest_spi_text(0, "next_value", mcxt);
	}
	ingest_spi_end();
	return found;
}

static void
insert_backfill(const IngestPipeline *pl, IngestBackfill *backfill)
{
	static IngestStatement insert = {
		"INSERT INTO ingest._backfill (pipeline_id, type, from_value, to_value, step, next_value)"
		" VALUES ($1, $2, $3, $4, $5, $3) RETURNING id",
		5, {INT4OID, REGTYPEOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[5] = {
		Int32GetDatum(pl->id), ObjectIdGetDatum(backfill->type), CStringGetTextDatum(backfill->from),
		CStringGetTextDatum(backfill->to), backfill->step ? CStringGetTextDatum(backfill->step) : (Datum) 0
	};
	bool		nulls[5] = {false, false, false, false, backfill->step == NULL};

	ingest_spi_begin();
	ingest_spi_run(&insert, values, nulls);
	backfill->id = ingest_spi_int64(0, "id", 0);
	ingest_spi_end();
}

IngestBackfill *
ingest_backfill_begin(const IngestPipeline *pl, Oid type, const char *from, const char *to, const char *step)
{
	IngestBackfill *backfill = palloc0(sizeof(IngestBackfill));

	backfill->type = type;
	backfill->from = pstrdup(from);
	backfill->to = pstrdup(to);
	backfill->step = step ? pstrdup(step) : NULL;
	check_bounds(type, from, to, step);
	if (find_unfinished(pl, backfill))
		return backfill;
	check_duplicates(pl, type, from, to);
	backfill->next = backfill->from;
	insert_backfill(pl, backfill);
	return backfill;
}

bool
ingest_backfill_next_slice(IngestBackfill *backfill)
{
	const char *name = format_type_be_qualified(backfill->type);
	const char *texts[] = {backfill->next, backfill->to, backfill->step};

	if (!is_true(compute(psprintf("SELECT $1::%s < $2::%s", name, name), 2, texts)))
		return false;
	backfill->slice_end = backfill->step == NULL ? backfill->to :
		compute(psprintf("SELECT least(($1::%s + $3::%s)::%s, $2::%s)", name,
						 is_time(backfill->type) ? "pg_catalog.interval" : "pg_catalog.numeric", name, name), 3, texts);
	return true;
}

void
ingest_backfill_slice_done(IngestBackfill *backfill, const char *prefix, const IngestCounts *counts)
{
	static IngestStatement update = {
		"WITH gone AS (DELETE FROM ingest._position p USING ingest._backfill b"
		"   WHERE b.id = $1 AND p.pipeline_id = b.pipeline_id AND pg_catalog.starts_with(p.shard, $6))"
		"UPDATE ingest._backfill SET next_value = $2, slices = slices + 1, read = read + $3,"
		" written = written + $4, rejected = rejected + $5, moved_at = clock_timestamp()"
		" WHERE id = $1",
		6, {INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID, TEXTOID}
	};
	Datum		values[6] = {
		Int64GetDatum(backfill->id), CStringGetTextDatum(backfill->slice_end),
		Int64GetDatum(counts->read), Int64GetDatum(counts->written), Int64GetDatum(counts->rejected),
		CStringGetTextDatum(prefix)
	};

	ingest_spi_begin();
	ingest_spi_run(&update, values, NULL);
	ingest_spi_end();
	backfill->next = backfill->slice_end;
}

void
ingest_backfill_finish(const IngestBackfill *backfill)
{
	static IngestStatement finish = {
		"UPDATE ingest._backfill SET finished_at = clock_timestamp() WHERE id = $1", 1, {INT8OID}
	};
	Datum		id = Int64GetDatum(backfill->id);

	ingest_spi_begin();
	ingest_spi_run(&finish, &id, NULL);
	ingest_spi_end();
}
