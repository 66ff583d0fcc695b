/*
 * transform.c
 *		ingest.add_transform() and ingest.drop_transform().
 */
#include "postgres.h"

#include "api/arguments.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_add_transform);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_drop_transform);

static void
insert_transform(const IngestPipeline *pl, const IngestTransform *transform)
{
	static IngestStatement insert = {
		"INSERT INTO ingest._transform (pipeline_id, name, ordinal, statement)"
		" SELECT $1, $2, coalesce(max(ordinal), 0) + 1, $3 FROM ingest._transform WHERE pipeline_id = $1"
		" ON CONFLICT (pipeline_id, name) DO NOTHING",
		3, {INT4OID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {
		Int32GetDatum(pl->id),
		CStringGetTextDatum(transform->name),
		CStringGetTextDatum(transform->statement)
	};

	ingest_definition_add_part(pl, &insert, values, "transform", transform->name);
}

/* add_transform(pipeline text, name text, statement text) */
Datum
ingest_sql_add_transform(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_definition_lock(fcinfo, "pipeline");
	IngestTransform transform = {
		.name = ingest_argument_name(fcinfo, 1, "name"),
		.statement = ingest_argument_text(fcinfo, 2, "statement")
	};

	ingest_pipeline_check_trust(pl);
	ingest_definition_check_transforms(pl, list_make1(&transform));
	insert_transform(pl, &transform);
	PG_RETURN_VOID();
}

/* drop_transform(pipeline text, name text) */
Datum
ingest_sql_drop_transform(PG_FUNCTION_ARGS)
{
	static IngestStatement delete = {
		"DELETE FROM ingest._transform WHERE pipeline_id = $1 AND name = $2", 2, {INT4OID, TEXTOID}
	};

	ingest_definition_drop_part(fcinfo, &delete, "transform");
	PG_RETURN_VOID();
}
