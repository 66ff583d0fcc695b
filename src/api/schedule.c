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

static TimestampTz
get_time(FunctionCallInfo fcinfo, int argno, const char *name)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(argno);

	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be finite", name)));
	return at;
}

static int
get_count(FunctionCallInfo fcinfo, int argno)
{
	int			count = PG_ARGISNULL(argno) ? 5 : PG_GETARG_INT32(argno);

	if (count < 0 || count > MAX_RUNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between 0 and %d", "count", MAX_RUNS)));
	return count;
}

/* What next_runs() is asked about, of which 0 is the seed. */
static void
get_schedule(FunctionCallInfo fcinfo, IngestSchedule *schedule)
{
	char	   *text = ingest_argument_text(fcinfo, 0, "schedule");
	Jsonb	   *json = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	IngestPipelineOptions options;

	ingest_schedule_check(text);
	ingest_pipeline_check_options(json);
	ingest_pipeline_parse_options(json, &options);
	(void) ingest_schedule_find(text, schedule);
	ingest_schedule_settings(schedule, &options, 0);
}

/*
 * next_runs(schedule text, after timestamptz, count integer, options jsonb, previous timestamptz)
 *
 * As the supervisor goes: what is due is done at once, and then the next time is found.
 */
Datum
ingest_sql_next_runs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = PG_ARGISNULL(1) ? GetCurrentTimestamp() : get_time(fcinfo, 1, "after");
	TimestampTz previous = PG_ARGISNULL(4) ? now : get_time(fcinfo, 4, "previous");
	int			count = get_count(fcinfo, 2);
	IngestSchedule schedule;
	TimestampTz next;

	get_schedule(fcinfo, &schedule);
	if (previous > now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be later than argument \"%s\"", "previous", "after")));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	next = ingest_schedule_next(&schedule, previous, previous);
	for (int i = 0; i < count; i++)
	{
		Datum		value;
		bool		isnull = false;

		CHECK_FOR_INTERRUPTS();
		next = ingest_schedule_due(&schedule, next, now);
		if (next == DT_NOEND)
			break;
		value = TimestampTzGetDatum(next);
		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
		now = Max(now, next);
		next = ingest_schedule_next(&schedule, next, now);
	}
	return (Datum) 0;
}
