/*
 * schedule.c
 *		When a pipeline runs: pure arithmetic on texts, intervals and timestamps.
 *
 * Who keeps the time of the next run, and acts on it, is the supervisor.
 */
#include "postgres.h"

#include <ctype.h>

#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "worker/schedule.h"

#define SCHEDULE_HINT \
	"It is 'continuous', an interval such as '5 minutes', a cron expression such as '0 * * * *', 'after other_pipeline', or 'manual'."

#define MAX_ACTIVE_SPANS 100

/* ---- texts ---- */

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

/* 'after a, b': names as identifiers are written. */
static bool
parse_after(const char *text, List **names)
{
	if (pg_strncasecmp(text, "after", 5) != 0 || !isspace((unsigned char) text[5]))
		return false;
	return SplitIdentifierString(pstrdup(text + 6), ',', names) && *names != NIL;
}

/* Words and signs that no interval begins with. */
static bool
looks_like_cron(const char *text)
{
	int			words = 0;
	bool		in_word = false;

	while (isspace((unsigned char) *text))
		text++;
	if (*text == '@' || strchr(text, '*') || strchr(text, '?'))
		return true;
	for (const char *p = text; *p; p++)
	{
		if (!isspace((unsigned char) *p) && !in_word)
			words++;
		in_word = !isspace((unsigned char) *p);
	}
	return words >= 5 && isdigit((unsigned char) *text) && strchr(text, ':') == NULL;
}

static bool
parse_cron(const char *text, IngestCron *cron)
{
	const char *field;
	const char *why;

	return ingest_cron_parse(text, cron, &field, &why);
}

bool
ingest_schedule_find(const char *text, IngestSchedule *schedule)
{
	memset(schedule, 0, sizeof(*schedule));
	schedule->zone = session_timezone;
	if (strcmp(text, "continuous") == 0)
		schedule->kind = INGEST_SCHEDULE_CONTINUOUS;
	else if (strcmp(text, "manual") == 0)
		schedule->kind = INGEST_SCHEDULE_MANUAL;
	else if (parse_after(text, &schedule->after))
		schedule->kind = INGEST_SCHEDULE_AFTER;
	else if (looks_like_cron(text))
	{
		schedule->kind = INGEST_SCHEDULE_CRON;
		return parse_cron(text, &schedule->cron);
	}
	else
	{
		schedule->kind = INGEST_SCHEDULE_INTERVAL;
		return parse_interval(text, &schedule->every) && is_long_enough(&schedule->every);
	}
	return true;
}

/* ---- checking ---- */

static void
check_cron(const char *text)
{
	IngestCron	cron;
	const char *field;
	const char *why;

	if (!ingest_cron_parse(text, &cron, &field, &why))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: \"%s\"", text),
				 field ? errdetail("The %s is wrong. %s", field, why) : errdetail("%s", why),
				 errhint("The fields are: minute, hour, day of month, month, day of week; with six, the first one is the second.")));
	if (ingest_cron_next(&cron, 0, pg_tzset("GMT")) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule \"%s\" never comes", text),
				 errdetail("No day is like that.")));
}

static void
check_after(const IngestSchedule *schedule)
{
	ListCell   *a;
	ListCell   *b;

	foreach(a, schedule->after)
		foreach(b, schedule->after)
			if (lfirst(a) != lfirst(b) && strcmp(lfirst(a), lfirst(b)) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("schedule names pipeline \"%s\" twice", (char *) lfirst(a))));
}

void
ingest_schedule_check(const char *text)
{
	IngestSchedule schedule;

	if (looks_like_cron(text))
		check_cron(text);
	else if (ingest_schedule_find(text, &schedule))
		check_after(&schedule);
	else if (parse_interval(text, &schedule.every))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule \"%s\" is shorter than a second", text),
				 errhint(SCHEDULE_HINT)));
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\": \"%s\"", "schedule", text),
				 errhint(SCHEDULE_HINT)));
}

void
ingest_schedule_check_zone(const char *name, const char *value)
{
	pg_tz	   *zone = pg_tzset(value);

	if (zone == NULL || !pg_tz_acceptable(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
				 errdetail("There is no such time zone."),
				 errhint("The view pg_timezone_names lists them, such as 'Europe/Berlin'.")));
}

/* ---- active hours ---- */

/* 'hh:mm'; 24:00 is the end of the day. */
static bool
read_time(const char **p, int *seconds)
{
	int			hour;
	int			minute;
	int			length = 0;

	if (sscanf(*p, "%2d:%2d%n", &hour, &minute, &length) != 2 || length == 0 ||
		hour < 0 || minute < 0 || minute > 59 || hour * 60 + minute > 24 * 60)
		return false;
	*p += length;
	*seconds = (hour * 60 + minute) * 60;
	return true;
}

static bool
read_weekday(const char **p, int *weekday)
{
	static const char *const names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

	for (int i = 0; i < 7; i++)
		if (pg_strncasecmp(*p, names[i], 3) == 0)
		{
			*p += 3;
			*weekday = i;
			return true;
		}
	return false;
}

static void
skip_blanks(const char **p)
{
	while (isspace((unsigned char) **p))
		(*p)++;
}

/* 'mon-fri 08:00-18:00' or '22:00-06:00' */
static bool
read_span(const char **p, IngestActiveSpan *span)
{
	int			from;
	int			to;

	skip_blanks(p);
	span->weekdays = 0x7f;
	if (read_weekday(p, &from))
	{
		to = from;
		if (**p == '-' && ((*p)++, !read_weekday(p, &to)))
			return false;
		span->weekdays = 1 << from;
		for (int day = from; day != to;)
		{
			day = (day + 1) % 7;
			span->weekdays |= 1 << day;
		}
		skip_blanks(p);
		if (**p == '\0' || **p == ',')
		{
			span->from = 0;
			span->to = SECS_PER_DAY;
			return true;
		}
	}
	if (!read_time(p, &span->from) || span->from >= SECS_PER_DAY || *(*p)++ != '-' || !read_time(p, &span->to))
		return false;
	skip_blanks(p);
	return span->from != span->to;
}

static bool
parse_active_hours(const char *text, IngestActiveSpan **spans, int *n)
{
	const char *p = text;

	*spans = palloc(sizeof(IngestActiveSpan) * MAX_ACTIVE_SPANS);
	*n = 0;
	for (;;)
	{
		if (*n >= MAX_ACTIVE_SPANS || !read_span(&p, &(*spans)[(*n)++]))
			return false;
		if (*p == '\0')
			return true;
		if (*p++ != ',')
			return false;
	}
}

void
ingest_schedule_check_active_hours(const char *name, const char *value)
{
	IngestActiveSpan *spans;
	int			n;

	if (!parse_active_hours(value, &spans, &n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
				 errhint("It is a list such as '22:00-06:00' or 'mon-fri 08:00-18:00, sat'.")));
	pfree(spans);
}

/* This moment when it is within a span, or else the beginning of the next one. */
static TimestampTz
first_active(const IngestSchedule *schedule, TimestampTz at)
{
	pg_time_t	now = timestamptz_to_time_t(at);
	int64		today = ingest_zone_clock(now, schedule->zone) / SECS_PER_DAY;
	pg_time_t	earliest = 0;

	if (schedule->active == NULL)
		return at;
	for (int64 day = today - 1; day <= today + 8; day++)
		for (int i = 0; i < schedule->nactive; i++)
		{
			const IngestActiveSpan *span = &schedule->active[i];
			int64		end_day = span->to <= span->from ? day + 1 : day;
			pg_time_t	from;

			if (!(span->weekdays & (1 << j2day((int) day + UNIX_EPOCH_JDATE))))
				continue;
			from = ingest_zone_time(day * SECS_PER_DAY + span->from, schedule->zone);
			if (from <= now && now < ingest_zone_time(end_day * SECS_PER_DAY + span->to, schedule->zone))
				return at;
			if (from > now && (earliest == 0 || from < earliest))
				earliest = from;
		}
	return time_t_to_timestamptz(earliest);
}

/* ---- times ---- */

void
ingest_schedule_settings(IngestSchedule *schedule, const IngestPipelineOptions *options, uint32 seed)
{
	pg_tz	   *zone = options->time_zone ? pg_tzset(options->time_zone) : NULL;

	schedule->zone = zone ? zone : session_timezone;
	schedule->catch_up = options->catch_up;
	schedule->jitter = options->jitter;
	schedule->seed = seed;
	schedule->active = NULL;
	if (options->active_hours &&
		!parse_active_hours(options->active_hours, &schedule->active, &schedule->nactive))
		schedule->active = NULL;
}

/* Always the same for a pipeline and a time, and less than "room". */
static int64
jitter_of(const IngestSchedule *schedule, TimestampTz at, int64 room)
{
	int64		most = Min(schedule->jitter * 1000, room);
	uint64		hash = hash_bytes_extended((const unsigned char *) &at, sizeof(at), schedule->seed);

	return most > 0 ? (int64) (hash % (uint64) most) : 0;
}

/* The next time of a cron expression, put off by the jitter. */
static TimestampTz
next_of_cron(const IngestSchedule *schedule, TimestampTz after)
{
	TimestampTz next = ingest_cron_next(&schedule->cron, after, schedule->zone);
	TimestampTz second;

	if (next == 0)
		return DT_NOEND;
	if (schedule->jitter == 0)
		return next;
	second = ingest_cron_next(&schedule->cron, next, schedule->zone);
	return next + jitter_of(schedule, next, second > next ? second - next : PG_INT64_MAX);
}

static TimestampTz
next_of_interval(const IngestSchedule *schedule, TimestampTz previous, TimestampTz now)
{
	const Interval *every = &schedule->every;
	TimestampTz latest = add_interval(now, every);
	TimestampTz next;

	if (previous == 0 || previous > now)
		return latest;
	next = add_interval(previous, every);
	if (next > now || schedule->catch_up == INGEST_CATCH_UP_ALL)
		return next;

	/* Missed some.  Keep the beat where that is a matter of a division. */
	if (every->month == 0 && every->day == 0)
		return previous + ((now - previous) / every->time + 1) * every->time;
	return latest;
}

TimestampTz
ingest_schedule_next(const IngestSchedule *schedule, TimestampTz previous, TimestampTz now)
{
	bool		all = schedule->catch_up == INGEST_CATCH_UP_ALL && previous != 0 && previous <= now;
	TimestampTz next;

	switch (schedule->kind)
	{
		case INGEST_SCHEDULE_INTERVAL:
			next = next_of_interval(schedule, previous, now);
			break;
		case INGEST_SCHEDULE_CRON:
			next = next_of_cron(schedule, all ? previous : now);
			break;
		default:
			return DT_NOEND;
	}
	return next == DT_NOEND ? next : first_active(schedule, next);
}

/* When nothing was written down yet: an interval begins now, though not all at once. */
static TimestampTz
first_due(const IngestSchedule *schedule, TimestampTz now)
{
	if (schedule->kind == INGEST_SCHEDULE_CRON)
		return ingest_schedule_next(schedule, 0, now);
	return first_active(schedule, now);
}

TimestampTz
ingest_schedule_due(const IngestSchedule *schedule, TimestampTz stored, TimestampTz now)
{
	TimestampTz next;

	if (schedule->kind != INGEST_SCHEDULE_INTERVAL && schedule->kind != INGEST_SCHEDULE_CRON)
		return DT_NOEND;
	if (stored == 0)
		return first_due(schedule, now);
	if (stored > now)
	{
		/* Further away than the next one from now: the clock was set back meanwhile. */
		next = ingest_schedule_next(schedule, 0, now);
		return stored <= next ? stored : first_due(schedule, now);
	}
	if (schedule->catch_up == INGEST_CATCH_UP_SKIP)
	{
		next = schedule->kind == INGEST_SCHEDULE_CRON ? next_of_cron(schedule, stored) :
			add_interval(stored, &schedule->every);
		if (next <= now)
			return ingest_schedule_next(schedule, stored, now);
	}
	return first_active(schedule, now) == now ? stored : first_active(schedule, now);
}
