/*
 * status.c
 *		What the views of 20_views.sql ask that is not in a table.
 *
 * Anybody may call these; they tell about a pipeline only what its views show.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/arguments.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "catalog/pipeline.h"
#include "core/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pipeline/load.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_home);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_background);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_lane);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_blocked);

/* _home(): this database, as in _pipeline.home */
Datum
ingest_sql_home(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(ingest_pipeline_home()));
}

/* _background(): pipelines can run in background */
Datum
ingest_sql_background(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(ingest_worker_available());
}

static bool
may_see(const IngestPipeline *pl)
{
	return has_privs_of_role(GetUserId(), pl->owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/*
 * The lane, without an error where the definition is broken and without
 * waiting where the target is locked: a status view has to answer.
 */
static const char *
find_lane(IngestPipeline *pl, const char **reason)
{
	const char *lane;

	if (!ConditionalLockRelationOid(pl->target, AccessShareLock))
	{
		*reason = "target is locked";
		return NULL;
	}
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(pl->target)))
	{
		*reason = "target does not exist";
		lane = NULL;
	}
	else
	{
		IngestOwnerScope scope;

		if (pl->options.lane == INGEST_LANE_DIRECT)
			pl->options.lane = INGEST_LANE_AUTO;
		ingest_owner_begin(pl, &scope); /* row security depends on who it is */
		lane = ingest_load_choose(pl, reason)->name;
		ingest_owner_end(&scope);
	}
	UnlockRelationOid(pl->target, AccessShareLock);
	return lane;
}

/* _lane(pipeline_id integer, OUT lane text, OUT reason text) */
Datum
ingest_sql_lane(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_pipeline_find_id(PG_GETARG_INT32(0));
	const char *reason = NULL;
	const char *lane;
	TupleDesc	tupdesc;
	Datum		values[2];
	bool		nulls[2];

	if (pl == NULL || !may_see(pl))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	lane = find_lane(pl, &reason);
	nulls[0] = lane == NULL;
	nulls[1] = reason == NULL;
	if (lane)
		values[0] = CStringGetTextDatum(lane);
	if (reason)
		values[1] = CStringGetTextDatum(reason);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* _blocked(pipeline_id integer, OUT name text, OUT why text): NULLs when nothing stands in its way */
Datum
ingest_sql_blocked(PG_FUNCTION_ARGS)
{
	static IngestStatement find = {
		"WITH RECURSIVE above (id) AS ("
		"  SELECT u.id FROM ingest._pipeline p CROSS JOIN unnest(p.upstream) AS u (id) WHERE p.id = $1"
		"  UNION"
		"  SELECT u.id FROM above JOIN ingest._pipeline p ON p.id = above.id CROSS JOIN unnest(p.upstream) AS u (id))"
		" SELECT p.name, CASE WHEN NOT p.enabled OR p.home IS DISTINCT FROM $2 THEN 'stopped'"
		"   ELSE coalesce(s.halt, 'backoff') END AS why"
		" FROM above JOIN ingest._pipeline p ON p.id = above.id LEFT JOIN ingest._state s ON s.pipeline_id = p.id"
		" WHERE NOT p.enabled OR p.home IS DISTINCT FROM $2 OR s.halt IS NOT NULL OR s.retry_at > clock_timestamp()"
		" ORDER BY p.name LIMIT 1",
		2, {INT4OID, TEXTOID}
	};
	IngestPipeline *pl = ingest_pipeline_find_id(PG_GETARG_INT32(0));
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		args[2] = {PG_GETARG_DATUM(0), CStringGetTextDatum(ingest_pipeline_home())};
	TupleDesc	tupdesc;
	Datum		values[2] = {0};
	bool		nulls[2] = {true, true};

	if (pl == NULL || !may_see(pl))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	ingest_spi_begin();
	if (ingest_spi_run(&find, args, NULL) > 0)
	{
		values[0] = CStringGetDatum(ingest_spi_text(0, "name", mcxt));
		values[1] = CStringGetDatum(ingest_spi_text(0, "why", mcxt));
		nulls[0] = nulls[1] = false;
	}
	ingest_spi_end();
	for (int i = 0; i < 2; i++)
		if (!nulls[i])
			values[i] = CStringGetTextDatum(DatumGetCString(values[i]));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
