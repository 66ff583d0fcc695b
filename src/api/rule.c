/*
 * rule.c
 *		ingest.add_rule() and ingest.drop_rule().
 */
#include "postgres.h"

#include "api/arguments.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_add_rule);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_drop_rule);

static IngestViolation
get_violation(const char *name)
{
	IngestViolation violation;

	if (!ingest_violation_find(name, &violation))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\": \"%s\"", "on_violation", name),
				 errhint("It is one of \"reject\", \"drop\", \"warn\", \"fail\".")));
	return violation;
}

static void
insert_rule(const IngestPipeline *pl, const IngestRule *rule)
{
	static IngestStatement insert = {
		"INSERT INTO ingest._rule (pipeline_id, name, ordinal, expression, on_violation, null_ok)"
		" SELECT $1, $2, coalesce(max(ordinal), 0) + 1, $3, $4, $5 FROM ingest._rule WHERE pipeline_id = $1"
		" ON CONFLICT (pipeline_id, name) DO NOTHING",
		5, {INT4OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID}
	};
	Datum		values[5] = {
		Int32GetDatum(pl->id),
		CStringGetTextDatum(rule->name),
		CStringGetTextDatum(rule->expression),
		CStringGetTextDatum(ingest_violation_name(rule->on_violation)),
		BoolGetDatum(rule->null_ok)
	};

	ingest_definition_add_part(pl, &insert, values, "rule", rule->name);
}

/* add_rule(pipeline text, name text, expression text, on_violation text, null_ok boolean) */
Datum
ingest_sql_add_rule(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_definition_lock(fcinfo, "pipeline");
	IngestRule	rule = {
		.name = ingest_argument_name(fcinfo, 1, "name"),
		.expression = ingest_argument_text(fcinfo, 2, "expression"),
		.on_violation = get_violation(ingest_argument_text(fcinfo, 3, "on_violation")),
		.null_ok = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4)
	};

	ingest_pipeline_check_trust(pl);
	ingest_definition_check_rules(pl, list_make1(&rule));
	insert_rule(pl, &rule);
	PG_RETURN_VOID();
}

/* drop_rule(pipeline text, name text) */
Datum
ingest_sql_drop_rule(PG_FUNCTION_ARGS)
{
	static IngestStatement delete = {
		"DELETE FROM ingest._rule WHERE pipeline_id = $1 AND name = $2", 2, {INT4OID, TEXTOID}
	};

	ingest_definition_drop_part(fcinfo, &delete, "rule");
	PG_RETURN_VOID();
}
