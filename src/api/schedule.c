/*
 * schedule.c
 *		ingest.next_runs(): when a schedule comes.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/schedule.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_next_runs);

#define MAX_RUNS 100000

/* next_runs(schedule text, after timestamptz, count integer, options jsonb) */
Datum
ingest_sql_next_runs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *text = ingest_argument_text(fcinfo, 0, "schedule");
	TimestampTz at = PG_ARGISNULL(1) ? GetCurrentTimestamp() : PG_GETARG_TIMESTAMPTZ(1);
	int			count = PG_ARGISNULL(2) ? 5 : PG_GETARG_INT32(2);
	IngestPipelineOptions options;
	IngestSchedule schedule;

	ingest_schedule_check(text);
	if (count < 0 || count > MAX_RUNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between 0 and %d", "count", MAX_RUNS)));
	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be finite", "after")));
	ingest_pipeline_check_options(PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3));
	ingest_pipeline_parse_options(PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3), &options);
	(void) ingest_schedule_find(text, &schedule);
	ingest_schedule_settings(&schedule, &options, 0);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < count; i++)
	{
		TimestampTz next = ingest_schedule_next(&schedule, at, at);
		Datum		value = TimestampTzGetDatum(next);
		bool		isnull = false;

		CHECK_FOR_INTERRUPTS();
		if (next == DT_NOEND)
			break;
		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
		at = next;
	}
	return (Datum) 0;
}
