/*
 * schedule.c
 *		When a pipeline runs: pure arithmetic on texts, intervals and timestamps.
 *
 * Who keeps the time of the next run, and acts on it, is the supervisor.
 */
#include "postgres.h"

#include <ctype.h>

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "worker/schedule.h"

/* Longer intervals are mistakes, and would leave the range of timestamps. */
#define MAX_YEARS 100

/* What is wrong with a text: a DETAIL or NULL, and a HINT. */
typedef struct Complaint
{
	const char *detail;
	const char *hint;
} Complaint;

#define SCHEDULE_HINT \
	"It is 'continuous', an interval such as '5 minutes', a cron expression such as '0 * * * *', 'after other_pipeline', or 'manual'."
#define CRON_HINT \
	"The fields are: minute, hour, day of month, month, day of week; with six, the first one is the second."
#define AFTER_HINT \
	"Write 'after a, b'; a name that is no identifier in double quotes."

/* ---- texts ---- */

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
has_good_length(const Interval *every, Complaint *complaint)
{
	complaint->hint = SCHEDULE_HINT;
	complaint->detail = "The shortest interval is a second.";
	if (every->month < 0 || every->day < 0 || every->time < 0 ||
		(every->month == 0 && every->day == 0 && every->time < USECS_PER_SEC))
		return false;
	complaint->detail = psprintf("The longest interval is %d years.", MAX_YEARS);
	return (double) every->month / MONTHS_PER_YEAR +
		(every->day + (double) every->time / USECS_PER_DAY) / DAYS_PER_YEAR <= MAX_YEARS;
}

static void
skip_blanks(const char **p)
{
	while (isspace((unsigned char) **p))
		(*p)++;
}

/* In double quotes, of which two stand for one.  NULL: no end. */
static char *
read_quoted(const char **p)
{
	StringInfoData name;

	initStringInfo(&name);
	for ((*p)++; **p != '\0'; (*p)++)
	{
		if (**p == '"' && *++(*p) != '"')
			return name.data;
		appendStringInfoChar(&name, **p);
	}
	return NULL;
}

/* As an identifier is written, but that a name is not cut off. */
static char *
read_name(const char **p, Complaint *complaint)
{
	const char *begin = *p;
	char	   *name;

	if (**p == '"')
		name = read_quoted(p);
	else
	{
		while (**p != '\0' && **p != ',' && **p != '"' && !isspace((unsigned char) **p))
			(*p)++;
		name = downcase_identifier(begin, (int) (*p - begin), false, false);
	}
	if (name && *name && strlen(name) < NAMEDATALEN)
		return name;
	if (name == NULL)
		complaint->detail = "A quote is not closed.";
	else if (*name == '\0')
		complaint->detail = "There is an empty name.";
	else
		complaint->detail = psprintf("The name \"%s\" is too long.", name);
	return NULL;
}

static bool
is_named(const List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/* What follows "after". */
static bool
parse_after(const char *text, List **names, Complaint *complaint)
{
	const char *p = text;

	complaint->hint = AFTER_HINT;
	for (;;)
	{
		char	   *name;

		skip_blanks(&p);
		name = read_name(&p, complaint);
		if (name == NULL)
			return false;
		complaint->detail = psprintf("It names \"%s\" twice.", name);
		if (is_named(*names, name))
			return false;
		*names = lappend(*names, name);
		skip_blanks(&p);
		if (*p == '\0')
			return true;
		complaint->detail = psprintf("There is no comma before \"%s\".", p);
		if (*p++ != ',')
			return false;
	}
}

static bool
begins_with_after(const char *text)
{
	return pg_strncasecmp(text, "after", 5) == 0 && (text[5] == '\0' || isspace((unsigned char) text[5]));
}

/*
 * Meant as one, even when it is wrong.  What reads intervals takes some of them, too,
 * for it passes over asterisks; but no interval has two numbers in its first two words
 * and five words.
 */
static bool
looks_like_cron(const char *text)
{
	int			words = 0;
	bool		in_word = false;

	skip_blanks(&text);
	if (strchr(text, '*') || strchr(text, '?') || (*text == '@' && isalpha((unsigned char) text[1])))
		return true;
	for (const char *p = text; *p; p++)
	{
		if (!isspace((unsigned char) *p) && !in_word && ++words <= 2 && !isdigit((unsigned char) *p))
			return false;
		in_word = !isspace((unsigned char) *p);
	}
	return words >= 5;
}

static bool
parse_schedule(const char *text, IngestSchedule *schedule, Complaint *complaint)
{
	memset(schedule, 0, sizeof(*schedule));
	complaint->detail = NULL;
	complaint->hint = SCHEDULE_HINT;
	if (strcmp(text, "continuous") == 0)
		schedule->kind = INGEST_SCHEDULE_CONTINUOUS;
	else if (strcmp(text, "manual") == 0)
		schedule->kind = INGEST_SCHEDULE_MANUAL;
	else if (begins_with_after(text))
	{
		schedule->kind = INGEST_SCHEDULE_AFTER;
		return parse_after(text + 5, &schedule->after, complaint);
	}
	else if (looks_like_cron(text))
	{
		schedule->kind = INGEST_SCHEDULE_CRON;
		complaint->hint = CRON_HINT;
		return ingest_cron_parse(text, &schedule->cron, &complaint->detail);
	}
	else
	{
		schedule->kind = INGEST_SCHEDULE_INTERVAL;
		return parse_interval(text, &schedule->every) && has_good_length(&schedule->every, complaint);
	}
	return true;
}

bool
ingest_schedule_find(const char *text, IngestSchedule *schedule)
{
	Complaint	complaint;

	return parse_schedule(text, schedule, &complaint);
}

/* ---- checking ---- */

void
ingest_schedule_check(const char *text)
{
	IngestSchedule schedule;
	Complaint	complaint;
	TimestampTz next;

	if (!parse_schedule(text, &schedule, &complaint))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: \"%s\"", text),
				 complaint.detail ? errdetail("%s", complaint.detail) : 0,
				 errhint("%s", complaint.hint)));
	if (schedule.kind == INGEST_SCHEDULE_CRON && !ingest_cron_next(&schedule.cron, 0, pg_tzset("GMT"), &next))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule \"%s\" never comes", text),
				 errdetail("No month that it names has such a day."),
				 errhint("L stands for the last day of a month, however long it is.")));
}

void
ingest_schedule_check_zone(const char *name, const char *value)
{
	pg_tz	   *zone = pg_tzset(value);

	if (zone == NULL || !pg_tz_acceptable(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
				 errdetail("The server knows no such time zone."),
				 errhint("The view pg_timezone_names lists them, such as 'Europe/Berlin'.")));
}

/* ---- active hours ---- */

/* One or two digits. */
static bool
read_number(const char **p, int *number)
{
	const char *begin = *p;

	for (*number = 0; isdigit((unsigned char) **p) && *p < begin + 2; (*p)++)
		*number = *number * 10 + **p - '0';
	return *p > begin;
}

/* 'hh:mm'; 24:00 is the end of the day. */
static bool
read_time(const char **p, int *seconds)
{
	int			hour;
	int			minute;

	skip_blanks(p);
	if (!read_number(p, &hour) || *(*p)++ != ':' || !isdigit((unsigned char) (*p)[0]) ||
		!isdigit((unsigned char) (*p)[1]) || !read_number(p, &minute))
		return false;
	*seconds = (hour * 60 + minute) * 60;
	skip_blanks(p);
	return minute <= 59 && *seconds <= SECS_PER_DAY;
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
	return read_time(p, &span->from) && span->from < SECS_PER_DAY && *(*p)++ == '-' &&
		read_time(p, &span->to) && span->from != span->to;
}

static bool
parse_active_hours(const char *text, IngestActiveSpan **spans, int *n)
{
	const char *p = text;
	int			commas = 0;

	while (*p)
		commas += *p++ == ',';
	*spans = palloc(sizeof(IngestActiveSpan) * (commas + 1));
	*n = 0;
	for (p = text;;)
	{
		if (!read_span(&p, &(*spans)[(*n)++]))
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

static const pg_tz *
zone_of(const IngestSchedule *schedule)
{
	return schedule->zone ? schedule->zone : session_timezone;
}

/* The span that begins on a day (since 1970), if one does and the clock is not set over it. */
static bool
find_span(const IngestSchedule *schedule, const IngestActiveSpan *span, int64 day, pg_time_t *from, pg_time_t *to)
{
	int64		end_day = span->to <= span->from ? day + 1 : day;

	if (!(span->weekdays & (1 << j2day((int) day + UNIX_EPOCH_JDATE))))
		return false;
	*from = ingest_zone_time(day * SECS_PER_DAY + span->from, zone_of(schedule));
	*to = ingest_zone_time(end_day * SECS_PER_DAY + span->to, zone_of(schedule));
	return *from < *to;
}

/*
 * This moment when it is within a span, or else the beginning of the next one.  In
 * two weeks each comes, the one that the clock was set over, too.
 */
TimestampTz
ingest_schedule_first_active(const IngestSchedule *schedule, TimestampTz at)
{
	pg_time_t	now = timestamptz_to_time_t(at);
	int64		today = ingest_zone_clock(now, zone_of(schedule)) / SECS_PER_DAY;
	TimestampTz earliest = DT_NOEND;

	if (schedule->active == NULL || at == DT_NOEND)
		return at;
	for (int64 day = today - 2; day <= today + 14; day++)
		for (int i = 0; i < schedule->nactive; i++)
		{
			pg_time_t	from;
			pg_time_t	to;

			if (!find_span(schedule, &schedule->active[i], day, &from, &to))
				continue;
			if (from <= now && now < to)
				return at;
			if (from > now)
				earliest = Min(earliest, time_t_to_timestamptz(from));
		}
	return earliest;
}

/* ---- times ---- */

void
ingest_schedule_settings(IngestSchedule *schedule, const IngestPipelineOptions *options, uint32 seed)
{
	schedule->zone = options->time_zone ? pg_tzset(options->time_zone) : NULL;
	schedule->catch_up = options->catch_up;
	schedule->jitter = options->jitter;
	schedule->seed = seed;
	schedule->active = NULL;
	if (options->active_hours &&
		!parse_active_hours(options->active_hours, &schedule->active, &schedule->nactive))
		schedule->active = NULL;
}

/* Months and days by the clock of the zone, as many hours as they have there. */
static TimestampTz
add_days(TimestampTz at, const Interval *every, const pg_tz *zone)
{
	Interval	days = {.month = every->month, .day = every->day};
	pg_time_t	seconds = timestamptz_to_time_t(at);
	TimestampTz fraction = at - time_t_to_timestamptz(seconds);
	Timestamp	clock = time_t_to_timestamptz(ingest_zone_clock(seconds, zone));

	clock = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(clock),
												  IntervalPGetDatum(&days)));
	return time_t_to_timestamptz(ingest_zone_time(timestamptz_to_time_t(clock), zone)) + fraction;
}

static TimestampTz
add_interval(const IngestSchedule *schedule, TimestampTz at)
{
	const Interval *every = &schedule->every;

	if (every->month != 0 || every->day != 0)
		at = add_days(at, every, zone_of(schedule));
	at += every->time;
	if (!IS_VALID_TIMESTAMP(at))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return at;
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
	const pg_tz *zone = zone_of(schedule);
	TimestampTz next;
	TimestampTz second;

	if (!ingest_cron_next(&schedule->cron, after, zone, &next))
		return DT_NOEND;
	if (schedule->jitter == 0)
		return next;
	if (!ingest_cron_next(&schedule->cron, next, zone, &second))
		return next;
	return next + jitter_of(schedule, next, second - next);
}

/* The first one after "now", in the beat that "previous" was in. */
static TimestampTz
next_of_interval(const IngestSchedule *schedule, TimestampTz previous, TimestampTz now)
{
	const Interval *every = &schedule->every;
	TimestampTz next;

	if (previous == 0 || previous > now)
		return add_interval(schedule, now);
	next = add_interval(schedule, previous);
	if (next > now || schedule->catch_up == INGEST_CATCH_UP_ALL)
		return next;
	if (every->month == 0 && every->day == 0)
		return previous + ((now - previous) / every->time + 1) * every->time;
	/* At least a day each: a few thousand, should it have been missed for years. */
	while (next <= now)
	{
		CHECK_FOR_INTERRUPTS();
		next = add_interval(schedule, next);
	}
	return next;
}

TimestampTz
ingest_schedule_next(const IngestSchedule *schedule, TimestampTz previous, TimestampTz now)
{
	bool		all = schedule->catch_up == INGEST_CATCH_UP_ALL && previous != 0 && previous <= now;

	switch (schedule->kind)
	{
		case INGEST_SCHEDULE_INTERVAL:
			return ingest_schedule_first_active(schedule, next_of_interval(schedule, previous, now));
		case INGEST_SCHEDULE_CRON:
			return ingest_schedule_first_active(schedule, next_of_cron(schedule, all ? previous : now));
		default:
			return DT_NOEND;
	}
}

/* When nothing was written down yet: an interval begins now, or as much later as it has jitter. */
static TimestampTz
first_due(const IngestSchedule *schedule, TimestampTz now)
{
	int64		room;

	if (schedule->kind == INGEST_SCHEDULE_CRON)
		return ingest_schedule_next(schedule, 0, now);
	room = add_interval(schedule, now) - now;
	return ingest_schedule_first_active(schedule, now + jitter_of(schedule, 0, room));
}

/* Has the time after this one come as well?  Before that, a run is only late. */
static bool
was_missed(const IngestSchedule *schedule, TimestampTz stored, TimestampTz now)
{
	TimestampTz next = schedule->kind == INGEST_SCHEDULE_CRON ? next_of_cron(schedule, stored) :
	add_interval(schedule, stored);

	return next <= now;
}

TimestampTz
ingest_schedule_due(const IngestSchedule *schedule, TimestampTz stored, TimestampTz now)
{
	TimestampTz active;

	if (schedule->kind != INGEST_SCHEDULE_INTERVAL && schedule->kind != INGEST_SCHEDULE_CRON)
		return DT_NOEND;
	if (stored == 0)
		return first_due(schedule, now);
	if (stored > now)
	{
		/* Further away than the next one from now: the clock was set back meanwhile. */
		TimestampTz next = ingest_schedule_next(schedule, 0, now);

		return stored <= next ? stored : first_due(schedule, now);
	}
	if (schedule->catch_up == INGEST_CATCH_UP_SKIP && was_missed(schedule, stored, now))
		return ingest_schedule_next(schedule, stored, now);
	active = ingest_schedule_first_active(schedule, now);
	return active == now ? stored : active;
}
