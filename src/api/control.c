/*
 * control.c
 *		ingest.start() and ingest.stop(): background running on and off.
 *
 * Both only change the catalog; the supervisor acts when the transaction has
 * committed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/arguments.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "catalog/state.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_start);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_stop);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_run_now);

/* Workers log in as the owner. */
static void
check_login(const IngestPipeline *pl)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(pl->owner));
	bool		login = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!login)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\", the owner of pipeline \"%s\", is not permitted to log in",
						GetUserNameFromId(pl->owner, true), pl->name),
				 errdetail("A background worker logs in as the pipeline's owner."),
				 errhint("ALTER ROLE ... LOGIN; a password is not needed.")));
}

static void
set_enabled(int32 pipeline_id, const char *home)
{
	static IngestStatement enable = {
		"UPDATE ingest._pipeline SET enabled = $2 IS NOT NULL, home = coalesce($2, home) WHERE id = $1",
		2, {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id)};
	bool		nulls[2] = {false, home == NULL};

	ingest_spi_begin();
	if (home)
		values[1] = CStringGetTextDatum(home);
	ingest_spi_run(&enable, values, nulls);
	ingest_spi_end();
	ingest_worker_wake_at_commit();
}

/* start(pipeline text, accept_fewer boolean) */
Datum
ingest_sql_start(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");

	ingest_definition_check(pl);
	check_login(pl);
	ingest_worker_check_available();
	set_enabled(pl->id, ingest_pipeline_home());
	ingest_state_clear(pl->id);
	ingest_state_accept_fewer(pl->id, !PG_ARGISNULL(1) && PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

/* run_now(pipeline text) */
Datum
ingest_sql_run_now(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");

	if (!pl->enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is stopped", pl->name),
				 errhint("ingest.start() starts it; CALL ingest.run() runs it in this session.")));
	if (strcmp(pl->schedule, "continuous") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" runs all the time", pl->name),
				 errdetail("Its schedule is \"%s\".", pl->schedule)));
	if (!ingest_state_ask(pl->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has been halted", pl->name),
				 errdetail("The view ingest.pipeline_status says why."),
				 errhint("ingest.start() goes on.")));
	ingest_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/* stop(pipeline text) */
Datum
ingest_sql_stop(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");

	set_enabled(pl->id, NULL);
	PG_RETURN_VOID();
}
