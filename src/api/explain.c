/*
 * explain.c
 *		ingest.explain(): how a pipeline reads its relation.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "catalog/position.h"
#include "funcapi.h"
#include "pipeline/prepared.h"
#include "source/relation.h"
#include "utils/builtins.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_explain);

static char *
stored_position(int32 pipeline_id)
{
	IngestShard shard = {.name = "0"};

	ingest_position_read(pipeline_id, &shard, 1, CurrentMemoryContext);
	return shard.position;
}

/* explain(pipeline text) */
Datum
ingest_sql_explain(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");
	IngestPrepared *prepared;
	IngestOwnerScope scope;
	ListCell   *lc;

	ingest_pipeline_check_runner(pl);
	if (ingest_source_is_ours(pl->source))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the source of pipeline \"%s\" is not read with SQL", pl->name)));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	prepared = ingest_prepared_make(pl->id, CurrentMemoryContext);
	ingest_owner_begin(pl, &scope);
	foreach(lc, ingest_relation_explain(prepared->rel, stored_position(pl->id), pl->options.batch_rows))
	{
		Datum		line = CStringGetTextDatum(lfirst(lc));
		bool		isnull = false;

		tuplestore_putvalues(result->setResult, result->setDesc, &line, &isnull);
	}
	ingest_owner_end(&scope);
	ingest_prepared_free(prepared);
	return (Datum) 0;
}
