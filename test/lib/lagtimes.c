/*
 * lagtimes.c
 *		src/worker/lag.c as SQL functions, for its tests.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"
#include "worker/lag.h"

PG_MODULE_MAGIC;

PGDLLEXPORT PG_FUNCTION_INFO_V1(lag_allowed);
PGDLLEXPORT PG_FUNCTION_INFO_V1(lag_start);
PGDLLEXPORT PG_FUNCTION_INFO_V1(lag_duration);

/* lag_allowed(own bigint, follower bigint, follower_duration bigint) */
Datum
lag_allowed(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(ingest_lag_allowed(PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2)));
}

/*
 * lag_start(allowed bigint, duration bigint, last_start bigint, last_end bigint, now bigint):
 * times as ms, NULL when nothing is wanted; 0: there was no last run
 */
Datum
lag_start(PG_FUNCTION_ARGS)
{
	TimestampTz start = ingest_lag_start(PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2) * 1000,
										 PG_GETARG_INT64(3) * 1000, PG_GETARG_INT64(4) * 1000);

	if (start == DT_NOEND)
		PG_RETURN_NULL();
	PG_RETURN_INT64(start / 1000);
}

/* lag_duration(expected bigint, took bigint) */
Datum
lag_duration(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(ingest_lag_duration(PG_GETARG_INT64(0), PG_GETARG_INT64(1)));
}
