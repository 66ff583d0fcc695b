/*
 * pipeline.c
 *		ingest.create_pipeline(), alter_pipeline() and drop_pipeline().
 *
 * Checking needs no network; ingest.preview() is the test against the real
 * source.
 */
#include "postgres.h"

#include "access/table.h"
#include "api/arguments.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "catalog/upstream.h"
#include "core/compat.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "source/source.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/schedule.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_create_pipeline);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_alter_pipeline);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_drop_pipeline);

/*
 * The schemas that rules and transforms are looked up in: those of now, by
 * name, without temporary ones; pg_temp goes last, so that nobody's temporary
 * objects stand before real ones.
 */
static char *
current_search_path(void)
{
	StringInfoData path;
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, fetch_search_path(false))
	{
		char	   *schema = isAnyTempNamespace(lfirst_oid(lc)) ? NULL : get_namespace_name(lfirst_oid(lc));

		if (schema)
			appendStringInfo(&path, "%s, ", quote_identifier(schema));
	}
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/* stored, with the keys of "changes" replaced, and those that are null removed */
static Jsonb *
merge_options(Jsonb *stored, Jsonb *changes)
{
	Datum		merged = DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(stored), JsonbPGetDatum(changes));

	return DatumGetJsonbP(DirectFunctionCall1(jsonb_strip_nulls, merged));
}

static Jsonb *
parse_jsonb(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

/*
 * A timestamp means what it meant when it was given ("yesterday", a time
 * without zone), not what it would mean to the worker that starts there.
 */
static Jsonb *
freeze_start(Jsonb *options, const char *start_at)
{
	TimestampTz at;
	char		text[MAXDATELEN + 1];

	if (ingest_start_parse(start_at, &at) != INGEST_START_TIMESTAMP)
		return options;
	JsonEncodeDateTime(text, TimestampTzGetDatum(at), TIMESTAMPTZOID, NULL);
	return merge_options(options, parse_jsonb(psprintf("{\"start_at\": \"%s\"}", text)));
}

/* {"name": "value"}, over what the options say; they must not say something else. */
static Jsonb *
add_option(Jsonb *options, const char *name, const char *value)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "{\"%s\": ", name);
	escape_json(&text, value);
	appendStringInfoChar(&text, '}');
	return merge_options(options, parse_jsonb(text.data));
}

/* Columns as a list of identifiers. */
static char *
join_columns(ArrayType *columns, const char *argument)
{
	StringInfoData list;
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(columns, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not hold nulls", argument)));
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(TextDatumGetCString(names[i])));
	}
	return list.data;
}

/* The arguments "mode" and "key" are options that are worth a name of their own. */
static Jsonb *
add_shorthands(FunctionCallInfo fcinfo, Jsonb *options)
{
	char	   *mode = ingest_argument_text_or_null(fcinfo, 5);

	if (mode)
		options = add_option(options, "mode", mode);
	if (!PG_ARGISNULL(6))
		options = add_option(options, "key", join_columns(PG_GETARG_ARRAYTYPE_P(6), "key"));
	return options;
}

static Jsonb *
stored_options(int32 pipeline_id)
{
	static IngestStatement find = {
		"SELECT options FROM ingest._pipeline WHERE id = $1", 1, {INT4OID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		id = Int32GetDatum(pipeline_id);
	Jsonb	   *options;
	bool		isnull;

	ingest_spi_begin();
	if (ingest_spi_run(&find, &id, NULL) == 0)
		elog(ERROR, "pipeline %d is gone", pipeline_id);
	options = DatumGetJsonbP(ingest_spi_value(0, "options", &isnull));
	MemoryContextSwitchTo(mcxt);
	options = (Jsonb *) memcpy(palloc(VARSIZE(options)), options, VARSIZE(options));
	ingest_spi_end();
	return options;
}

/*
 * Columns go by name.  What the target lacks may be there for rules alone, or
 * be a slip of the pen.
 */
static void
tell_unloaded_columns(const IngestPipeline *pl)
{
	Relation	source = table_open(pl->source, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(source);
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && get_attnum(pl->target, NameStr(att->attname)) <= 0)
			appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "", NameStr(att->attname));
	}
	if (names.len > 0)
		ereport(NOTICE,
				(errmsg("not loaded, since the target has no such column: %s", names.data)));
	table_close(source, NoLock);
}

static void
raise_exists(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("pipeline \"%s\" already exists", name)));
}

/* ---- create ---- */

static void
insert_pipeline(const IngestPipeline *pl, Jsonb *options)
{
	static IngestStatement insert = {
		"WITH created AS ("
		"  INSERT INTO ingest._pipeline (name, owner, source, target, schedule, options, search_path)"
		"  VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING RETURNING id)"
		"INSERT INTO ingest._state (pipeline_id) SELECT id FROM created",
		7, {TEXTOID, REGROLEOID, REGCLASSOID, REGCLASSOID, TEXTOID, JSONBOID, TEXTOID}
	};
	Datum		values[7] = {
		CStringGetTextDatum(pl->name),
		ObjectIdGetDatum(pl->owner),
		ObjectIdGetDatum(pl->source),
		ObjectIdGetDatum(pl->target),
		CStringGetTextDatum(pl->schedule),
		JsonbPGetDatum(options),
		CStringGetTextDatum(pl->search_path)
	};
	uint64		created;

	ingest_spi_begin();
	created = ingest_spi_run(&insert, values, NULL);
	ingest_spi_end();
	if (created == 0)
		raise_exists(pl->name);
}

/* The pipelines that a schedule 'after ...' names, while it is being defined. */
static void
set_upstream(IngestPipeline *pl)
{
	IngestSchedule schedule;

	(void) ingest_schedule_find(pl->schedule, &schedule);
	if (pl->id == 0)
		pl->id = ingest_pipeline_get(pl->name)->id;
	ingest_upstream_set(pl, schedule.kind == INGEST_SCHEDULE_AFTER ? schedule.after : NIL);
}

/* A source that is read whole would be read again and again. */
static void
check_schedule(const IngestPipeline *pl)
{
	if (pl->options.mode == INGEST_MODE_REPLACE && strcmp(pl->schedule, "continuous") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pipeline of mode \"%s\" needs a schedule that is not continuous", "replace"),
				 errhint("Say schedule => '1 hour', for instance, or 'manual'.")));
}

/*
 * create_pipeline(name text, source regclass, target regclass, schedule text,
 * options jsonb, mode text, key text[])
 */
Datum
ingest_sql_create_pipeline(PG_FUNCTION_ARGS)
{
	Jsonb	   *options = add_shorthands(fcinfo, PG_ARGISNULL(4) ? parse_jsonb("{}") : PG_GETARG_JSONB_P(4));
	IngestPipeline pl = {
		.name = ingest_argument_name(fcinfo, 0, "name"),
		.owner = GetUserId(),
		.source = ingest_argument_oid(fcinfo, 1, "source"),
		.target = ingest_argument_oid(fcinfo, 2, "target"),
		.schedule = PG_ARGISNULL(3) ? "continuous" : ingest_argument_text(fcinfo, 3, "schedule"),
		.search_path = current_search_path()
	};

	ingest_pipeline_check_options(options);
	options = merge_options(parse_jsonb("{}"), options);
	ingest_pipeline_parse_options(options, &pl.options);
	options = freeze_start(options, pl.options.start_at);
	ingest_schedule_check(pl.schedule);
	check_schedule(&pl);
	ingest_definition_check(&pl);
	insert_pipeline(&pl, options);
	set_upstream(&pl);
	tell_unloaded_columns(&pl);
	ingest_source_relation_advise(&pl);
	PG_RETURN_VOID();
}

/* ---- alter ---- */

static bool
has_positions(int32 pipeline_id)
{
	static IngestStatement find = {
		"SELECT FROM ingest._position WHERE pipeline_id = $1 LIMIT 1", 1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);
	bool		found;

	ingest_spi_begin();
	found = ingest_spi_run(&find, &id, NULL) > 0;
	ingest_spi_end();
	return found;
}

static void
forget_positions(int32 pipeline_id)
{
	static IngestStatement forget = {
		"WITH forgotten AS (DELETE FROM ingest._position WHERE pipeline_id = $1)"
		"UPDATE ingest._pipeline SET positioned = false WHERE id = $1",
		1, {INT4OID}
	};
	Datum		id = Int32GetDatum(pipeline_id);

	ingest_spi_begin();
	ingest_spi_run(&forget, &id, NULL);
	ingest_spi_end();
}

/*
 * Positions belong to a source.  Whether those of the old one mean something
 * in the new one (the same topic under another table) only the caller knows.
 */
static void
settle_positions(const IngestPipeline *pl, const char *positions)
{
	bool		forget = positions && strcmp(positions, "forget") == 0;

	if (positions && !forget && strcmp(positions, "keep") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\": \"%s\"", "positions", positions),
				 errhint("It is one of \"keep\", \"forget\".")));
	if (positions == NULL && has_positions(pl->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has positions in its present source", pl->name),
				 errhint("Say positions => 'keep' when the new source holds the same messages,"
						 " or positions => 'forget' to begin anew at start_at.")));
	if (forget)
		forget_positions(pl->id);
}

static void
check_new_owner(Oid owner)
{
	if (!ingest_compat_member_can_set_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be able to SET ROLE \"%s\"", GetUserNameFromId(owner, false))));
}

static void
check_new_name(const char *name)
{
	if (ingest_pipeline_find(name))
		raise_exists(name);
}

static void
update_pipeline(const IngestPipeline *pl, Jsonb *options)
{
	static IngestStatement update = {
		"UPDATE ingest._pipeline SET name = $2, owner = $3, source = $4, target = $5, schedule = $6,"
		" options = $7 WHERE id = $1",
		7, {INT4OID, TEXTOID, REGROLEOID, REGCLASSOID, REGCLASSOID, TEXTOID, JSONBOID}
	};
	Datum		values[7] = {
		Int32GetDatum(pl->id),
		CStringGetTextDatum(pl->name),
		ObjectIdGetDatum(pl->owner),
		ObjectIdGetDatum(pl->source),
		ObjectIdGetDatum(pl->target),
		CStringGetTextDatum(pl->schedule),
		JsonbPGetDatum(options)
	};

	ingest_spi_begin();
	ingest_spi_run(&update, values, NULL);
	ingest_spi_end();
}

/*
 * alter_pipeline(name text, source regclass, target regclass, schedule text,
 * options jsonb, new_name text, owner regrole, positions text); NULL leaves
 * things as they are
 */
Datum
ingest_sql_alter_pipeline(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_definition_lock(fcinfo, "name");
	Jsonb	   *options = stored_options(pl->id);
	char	   *positions = ingest_argument_text_or_null(fcinfo, 7);
	bool		new_source = !PG_ARGISNULL(1) && PG_GETARG_OID(1) != pl->source;

	if (new_source || positions)
		settle_positions(pl, positions);
	if (!PG_ARGISNULL(1))
		pl->source = PG_GETARG_OID(1);
	if (!PG_ARGISNULL(2))
		pl->target = PG_GETARG_OID(2);
	if (!PG_ARGISNULL(3))
	{
		pl->schedule = ingest_argument_text(fcinfo, 3, "schedule");
		ingest_schedule_check(pl->schedule);
	}
	if (!PG_ARGISNULL(4))
	{
		ingest_pipeline_check_options(PG_GETARG_JSONB_P(4));
		options = merge_options(options, PG_GETARG_JSONB_P(4));
		ingest_pipeline_parse_options(options, &pl->options);
		options = freeze_start(options, pl->options.start_at);
	}
	if (!PG_ARGISNULL(5))
	{
		pl->name = ingest_argument_name(fcinfo, 5, "new_name");
		check_new_name(pl->name);
	}
	if (!PG_ARGISNULL(6))
	{
		pl->owner = PG_GETARG_OID(6);
		check_new_owner(pl->owner);
	}

	check_schedule(pl);
	ingest_definition_check(pl);
	update_pipeline(pl, options);
	if (!PG_ARGISNULL(3))
		set_upstream(pl);
	if (!PG_ARGISNULL(5))
		ingest_upstream_rename(pl->id);
	if (!PG_ARGISNULL(1) || !PG_ARGISNULL(2))
		tell_unloaded_columns(pl);
	PG_RETURN_VOID();
}

/* ---- drop ---- */

/* drop_pipeline(name text) */
Datum
ingest_sql_drop_pipeline(PG_FUNCTION_ARGS)
{
	static IngestStatement delete = {
		"DELETE FROM ingest._pipeline WHERE id = $1", 1, {INT4OID}
	};
	static IngestStatement delete_letters = {
		"DELETE FROM ingest._dead_letter WHERE pipeline_id = $1", 1, {INT4OID}
	};
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "name");
	Datum		id = Int32GetDatum(pl->id);

	ingest_upstream_check_drop(pl);
	ingest_spi_begin();
	ingest_spi_run(&delete, &id, NULL);
	/* A batch that was about to commit has done so, or fails: we see all letters. */
	ingest_spi_run(&delete_letters, &id, NULL);
	ingest_spi_end();
	ingest_worker_wake_at_commit();
	PG_RETURN_VOID();
}
