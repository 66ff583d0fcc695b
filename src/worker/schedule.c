/*
 * schedule.c
 *		When a pipeline runs: pure arithmetic on intervals and timestamps.
 *
 * Who keeps the time of the next run, and acts on it, is the supervisor.
 */
#include "postgres.h"

#include <ctype.h>

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "worker/schedule.h"

#define SCHEDULE_HINT "It is 'continuous', or an interval such as '5 minutes'."

/* Five fields of digits, asterisks and the like: what cron understands. */
static bool
looks_like_cron(const char *text)
{
	int			fields = 0;
	bool		in_field = false;

	for (const char *p = text; *p; p++)
	{
		if (*p == '*')
			return true;
		if (isalpha((unsigned char) *p) || *p == ':')
			return false;
		if (isspace((unsigned char) *p))
			in_field = false;
		else if (!in_field)
		{
			in_field = true;
			fields++;
		}
	}
	return fields == 5;
}

static TimestampTz
add_interval(TimestampTz at, const Interval *every)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(at),
												   IntervalPGetDatum(every)));
}

/* What an interval's input function does, but without raising errors. */
static bool
parse_interval(const char *text, Interval *interval)
{
	struct pg_itm_in itm = {0};
	int			nfields;
	int			dtype;
	char	   *fields[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	char		work[256];
	int			error;

	error = ParseDateTime(text, work, sizeof(work), fields, types, MAXDATEFIELDS, &nfields);
	if (error == 0)
		error = DecodeInterval(fields, types, nfields, INTERVAL_FULL_RANGE, &dtype, &itm);
	if (error == DTERR_BAD_FORMAT)
	{
		char	   *copy = pstrdup(text);

		error = DecodeISO8601Interval(copy, &dtype, &itm);
		pfree(copy);
	}
	return error == 0 && dtype == DTK_DELTA && itmin2interval(&itm, interval) == 0;
}

static bool
is_long_enough(const Interval *every)
{
	if (every->month < 0 || every->day < 0 || every->time < 0)
		return false;
	return every->month > 0 || every->day > 0 || every->time >= USECS_PER_SEC;
}

bool
ingest_schedule_find(const char *text, IngestSchedule *schedule)
{
	memset(schedule, 0, sizeof(*schedule));
	schedule->continuous = strcmp(text, "continuous") == 0;
	return schedule->continuous ||
		(parse_interval(text, &schedule->every) && is_long_enough(&schedule->every));
}

void
ingest_schedule_check(const char *text)
{
	IngestSchedule schedule;

	if (ingest_schedule_find(text, &schedule))
		return;
	if (looks_like_cron(text) || pg_strncasecmp(text, "after ", 6) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schedule \"%s\" is not supported", text),
				 errdetail("This version knows no cron schedules, and none that follow another pipeline."),
				 errhint(SCHEDULE_HINT)));
	if (parse_interval(text, &schedule.every))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule \"%s\" is shorter than a second", text),
				 errhint(SCHEDULE_HINT)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for argument \"%s\": \"%s\"", "schedule", text),
			 errhint(SCHEDULE_HINT)));
}

TimestampTz
ingest_schedule_next(const IngestSchedule *schedule, TimestampTz previous, TimestampTz now)
{
	const Interval *every = &schedule->every;
	TimestampTz latest = add_interval(now, every);
	TimestampTz next;

	if (previous == 0 || previous > now)
		return latest;
	next = add_interval(previous, every);
	if (next > now)
		return next;

	/* Missed some.  Keep the beat where that is a matter of a division. */
	if (every->month == 0 && every->day == 0)
		return previous + ((now - previous) / every->time + 1) * every->time;
	return latest;
}

bool
ingest_schedule_is_due(const IngestSchedule *schedule, TimestampTz next, TimestampTz now)
{
	if (schedule->continuous || next <= now)
		return true;

	/* Further away than one interval: the clock was set back meanwhile. */
	return next > add_interval(now, &schedule->every);
}
