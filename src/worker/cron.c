/*
 * cron.c
 *		Cron expressions: from text to bits, and the times they match.
 *
 * When clocks are changed: an expression that names hours and minutes means times
 * of the day, and each of them happens once.  One that is skipped happens at the
 * moment of the change, one that comes twice at the first.  An expression whose
 * hours or minutes begin with an asterisk means how often: it follows the clock as
 * it goes, through both of two equal hours.  That is Vixie cron's rule, too.
 */
#include "postgres.h"

#include <ctype.h>

#include "port/pg_bitutils.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "worker/cron.h"

/* An expression that matches no day of so many years matches none at all. */
#define YEARS_AHEAD 40

#define BLANKS " \t\n\r\f\v"

#define SECONDS_OF_EPOCH ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* ---- parsing ---- */

typedef struct Field
{
	const char *name;
	int			min;
	int			max;
	const char *const *names;	/* of the values from min on, three letters each; or NULL */
} Field;

static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", NULL
};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static const Field second_field = {"second", 0, 59, NULL};
static const Field minute_field = {"minute", 0, 59, NULL};
static const Field hour_field = {"hour", 0, 23, NULL};
static const Field day_field = {"day of month", 1, 31, NULL};
static const Field month_field = {"month", 1, 12, month_names};
static const Field weekday_field = {"day of week", 0, 7, weekday_names};

static const struct
{
	const char *name;
	const char *expression;
}			macros[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

static bool
is_last(const char *p)
{
	return *p == 'L' || *p == 'l';
}

/* Of days, an L may follow: friL. */
static bool
ends_name(const Field *field, const char *p)
{
	if (field == &weekday_field && is_last(p))
		p++;
	return !isalpha((unsigned char) *p);
}

/* A number or a name; moves *p behind it, or leaves it at what is wrong. */
static bool
read_value(const Field *field, const char **p, int *value, const char **why)
{
	if (isdigit((unsigned char) **p))
	{
		char	   *end;
		long		number = strtol(*p, &end, 10);

		*why = psprintf("it goes from %d to %d", field->min, field->max);
		if (number < field->min || number > field->max)
			return false;
		*p = end;
		*value = (int) number;
		return true;
	}
	for (int i = 0; field->names && field->names[i]; i++)
		if (pg_strncasecmp(*p, field->names[i], 3) == 0 && ends_name(field, *p + 3))
		{
			*p += 3;
			*value = field->min + i;
			return true;
		}
	*why = field->names ? "it takes numbers, and names of three letters" : "it takes numbers";
	return false;
}

static bool
read_step(const char **p, int *step, const char **why)
{
	char	   *end;
	long		number = strtol(*p, &end, 10);

	*why = "a step is a number of at least 1";
	if (!isdigit((unsigned char) **p) || number < 1 || number > 10000)
		return false;
	*p = end;
	*step = (int) number;
	return true;
}

/* from-to/step; a range may go over the end of the week or the year. */
static void
set_range(const Field *field, uint64 *bits, int from, int to, int step)
{
	int			size = field->max - field->min + 1;
	int			length;

	if (field == &weekday_field)
		size = 7;				/* 0 and 7 are the same day */
	length = to >= from ? to - from : to - from + size;
	for (int i = 0; i <= length; i += step)
	{
		int			value = from + i;

		if (value > field->max || (to < from && value >= field->min + size))
			value -= size;
		*bits |= UINT64CONST(1) << value;
	}
}

/*
 * What counts once a month: L, the last day; L5 or 5L, the last Friday; 5#2, the
 * second one.  *found: it was such a thing, or was meant to be.
 */
static bool
read_once_a_month(const Field *field, const char **p, IngestCron *cron, bool *found, const char **why)
{
	bool		last = is_last(*p);
	const char *end = last ? *p + 1 : *p;
	int			weekday;

	*found = last && (field == &day_field || field == &weekday_field);
	if (field == &day_field && last)
	{
		cron->last_day = true;
		*p = end;
		return true;
	}
	if (field != &weekday_field || !read_value(field, &end, &weekday, why))
		return !*found;
	*found = last || is_last(end) || *end == '#';
	if (!*found)
		return true;
	*p = end;
	if (*end == '#')
	{
		int			n = end[1] - '0';

		*why = "behind # comes a number from 1 to 5";
		if (last || n < 1 || n > 5)
			return false;
		cron->nth[n - 1] |= 1 << (weekday % 7);
		*p += 2;
		return true;
	}
	cron->last |= 1 << (weekday % 7);
	if (!last)
		(*p)++;
	return true;
}

/* One element of a list. */
static bool
read_element(const Field *field, const char **p, uint64 *bits, IngestCron *cron, const char **why)
{
	int			from = field->min;
	int			to = field->max;
	int			step = 1;
	bool		single = false;
	bool		once_a_month;

	if (!read_once_a_month(field, p, cron, &once_a_month, why))
		return false;
	if (once_a_month)
		return true;
	if (**p == '*' || (**p == '?' && (field == &day_field || field == &weekday_field)))
	{
		(*p)++;
		to = field == &weekday_field ? 6 : field->max;
	}
	else
	{
		if (!read_value(field, p, &from, why))
			return false;
		to = from;
		single = **p != '-';
		if (!single)
		{
			(*p)++;
			if (!read_value(field, p, &to, why))
				return false;
		}
	}
	if (**p == '/')
	{
		(*p)++;
		if (!read_step(p, &step, why))
			return false;
		if (single)
			to = field == &weekday_field ? 6 : field->max;
	}
	set_range(field, bits, from, to, step);
	return true;
}

static bool
read_list(const Field *field, const char **p, uint64 *bits, IngestCron *cron, const char **why)
{
	*bits = 0;
	for (;;)
	{
		if (!read_element(field, p, bits, cron, why))
			return false;
		if (**p == '\0')
			break;
		*why = "nothing like that can follow there";
		if (**p != ',')
			return false;
		(*p)++;
	}
	if (field == &weekday_field && (*bits & (1 << 7)))
		*bits = (*bits & 0x7f) | 1;
	return true;
}

static bool
read_field(const Field *field, const char *text, uint64 *bits, IngestCron *cron, const char **why)
{
	const char *p = text;

	if (read_list(field, &p, bits, cron, why))
		return true;
	if (p == text)
		*why = psprintf("The %s \"%s\" is wrong: %s.", field->name, text, *why);
	else if (*p == '\0')
		*why = psprintf("The %s \"%s\" ends too early: %s.", field->name, text, *why);
	else
		*why = psprintf("The %s \"%s\" is wrong at \"%s\": %s.", field->name, text, p, *why);
	return false;
}

/* The words of the text; returns how many, at most one more than there may be. */
static int
split_words(char *text, char **words, int max)
{
	int			n = 0;
	char	   *rest;

	for (char *word = strtok_r(text, BLANKS, &rest); word && n <= max; word = strtok_r(NULL, BLANKS, &rest))
		words[n++] = word;
	return n;
}

static bool
read_fields(char **words, int n, IngestCron *cron, const char **why)
{
	static const Field *const fields[] = {
		&second_field, &minute_field, &hour_field, &day_field, &month_field, &weekday_field
	};
	uint64		bits[6] = {1};	/* at second 0, when there is no field for it */
	int			first = 6 - n;

	for (int i = 0; i < n; i++)
		if (!read_field(fields[first + i], words[i], &bits[first + i], cron, why))
			return false;
	cron->seconds = bits[0];
	cron->minutes = bits[1];
	cron->hours = (uint32) bits[2];
	cron->days = (uint32) bits[3];
	cron->months = (uint16) bits[4];
	cron->weekdays = (uint8) bits[5];
	words += n - 5;
	cron->by_clock = *words[0] != '*' && *words[1] != '*';
	cron->any_day = *words[2] == '*' || *words[2] == '?';
	cron->any_weekday = *words[4] == '*' || *words[4] == '?';
	return true;
}

bool
ingest_cron_parse(const char *text, IngestCron *cron, const char **why)
{
	char	   *words[7];
	char	   *copy = pstrdup(text);
	int			n;

	memset(cron, 0, sizeof(*cron));
	n = split_words(copy, words, 6);
	if (n == 1 && *words[0] == '@')
	{
		for (int i = 0; i < lengthof(macros); i++)
			if (pg_strcasecmp(words[0], macros[i].name) == 0)
				return ingest_cron_parse(macros[i].expression, cron, why);
		*why = "The names are @hourly, @daily or @midnight, @weekly, @monthly, and @yearly or @annually.";
		return false;
	}
	if (n != 5 && n != 6)
	{
		*why = "There are five fields, or six, of which the first one is for seconds.";
		return false;
	}
	return read_fields(words, n, cron, why);
}

/* ---- clocks of zones ---- */

static long
zone_offset(pg_time_t at, const pg_tz *zone)
{
	struct pg_tm *tm = pg_localtime(&at, zone);

	return tm ? tm->tm_gmtoff : 0;
}

int64
ingest_zone_clock(pg_time_t at, const pg_tz *zone)
{
	return at + zone_offset(at, zone);
}

/* The change of the clock after "from". */
static bool
next_change(pg_time_t from, const pg_tz *zone, pg_time_t *change)
{
	long		before;
	long		after;
	int			before_dst;
	int			after_dst;

	return pg_next_dst_boundary(&from, &before, &before_dst, change, &after, &after_dst, zone) > 0;
}

pg_time_t
ingest_zone_time(int64 clock, const pg_tz *zone)
{
	/* A day before and a day after, there is at most one change in between. */
	long		before = zone_offset(clock - SECS_PER_DAY, zone);
	long		after = zone_offset(clock + SECS_PER_DAY, zone);
	pg_time_t	first = clock - Max(before, after);
	pg_time_t	second = clock - Min(before, after);
	pg_time_t	change = first;

	if (ingest_zone_clock(first, zone) == clock)
		return first;
	if (ingest_zone_clock(second, zone) == clock)
		return second;
	while (next_change(change, zone, &change))
		if (ingest_zone_clock(change, zone) > clock)
			return change;
	return second;
}

/* ---- matching ---- */

static int
days_of_month(int year, int month)
{
	return day_tab[isleap(year)][month - 1];
}

/* Does the day of the month, or the day of the week, or both, match? */
static bool
day_matches(const IngestCron *cron, int year, int month, int day)
{
	int			length = days_of_month(year, month);
	int			weekday = j2day(date2j(year, month, day));
	uint8		bit = 1 << weekday;
	bool		by_day = (cron->days & (1U << day)) || (cron->last_day && day == length);
	bool		by_weekday = (cron->weekdays & bit) || (cron->nth[(day - 1) / 7] & bit) ||
		((cron->last & bit) && day + 7 > length);

	if (cron->any_day || cron->any_weekday)
		return by_day && by_weekday;
	return by_day || by_weekday;
}

/* The lowest bit set from "from" on; -1: none. */
static int
next_bit(uint64 bits, int from)
{
	if (from > 63)
		return -1;
	bits &= ~UINT64CONST(0) << from;
	return bits ? pg_rightmost_one_pos64(bits) : -1;
}

/* The first time of day from "from" (seconds) on; -1: none. */
static int
next_second_of_day(const IngestCron *cron, int from)
{
	int			h = from / 3600;
	int			m = from / 60 % 60;
	int			s = from % 60;
	int			hour = next_bit(cron->hours, h);

	if (hour == h)
	{
		int			minute = next_bit(cron->minutes, m);

		if (minute == m)
		{
			int			second = next_bit(cron->seconds, s);

			if (second >= 0)
				return hour * 3600 + minute * 60 + second;
			minute = next_bit(cron->minutes, m + 1);
		}
		if (minute >= 0)
			return hour * 3600 + minute * 60 + next_bit(cron->seconds, 0);
		hour = next_bit(cron->hours, h + 1);
	}
	if (hour < 0)
		return -1;
	return hour * 3600 + next_bit(cron->minutes, 0) * 60 + next_bit(cron->seconds, 0);
}

/* The first day from this one on that matches, as days since 1970; false: none. */
static bool
next_day(const IngestCron *cron, int64 from, int64 *found)
{
	int			year;
	int			month;
	int			day;
	int			last_year;

	j2date((int) from + UNIX_EPOCH_JDATE, &year, &month, &day);
	last_year = year + YEARS_AHEAD;
	for (; year <= last_year; month++, day = 1)
	{
		if (month > 12)
		{
			month = 1;
			year++;
		}
		if (!(cron->months & (1 << month)))
			continue;
		for (; day <= days_of_month(year, month); day++)
			if (day_matches(cron, year, month, day))
			{
				*found = date2j(year, month, day) - UNIX_EPOCH_JDATE;
				return true;
			}
	}
	return false;
}

/* The first time of the clock, in seconds, from this one on; false: none. */
static bool
next_clock(const IngestCron *cron, int64 from, int64 *found)
{
	int64		day = from / SECS_PER_DAY;
	int			second = (int) (from % SECS_PER_DAY);
	int64		match;

	if (second < 0)
	{
		second += SECS_PER_DAY;
		day--;
	}
	while (next_day(cron, day, &match))
	{
		int			of_day = next_second_of_day(cron, match == day ? second : 0);

		if (of_day >= 0)
		{
			*found = match * SECS_PER_DAY + of_day;
			return true;
		}
		day = match + 1;
		second = 0;
	}
	return false;
}

/* Times of the day: each happens once. */
static bool
next_by_clock(const IngestCron *cron, pg_time_t after, const pg_tz *zone, pg_time_t *found)
{
	/* What this clock has shown before came before. */
	int64		clock = ingest_zone_clock(after, zone);

	while (next_clock(cron, clock + 1, &clock))
	{
		*found = ingest_zone_time(clock, zone);
		if (*found > after)
			return true;
	}
	return false;
}

/* As the clock goes: from one change to the next, time and clock run alike. */
static bool
next_as_it_goes(const IngestCron *cron, pg_time_t after, const pg_tz *zone, pg_time_t *found)
{
	pg_time_t	from = after + 1;
	int64		clock;

	while (next_clock(cron, ingest_zone_clock(from, zone), &clock))
	{
		pg_time_t	change;

		*found = clock - zone_offset(from, zone);
		if (!next_change(from, zone, &change) || *found < change)
			return true;
		from = change;
	}
	return false;
}

bool
ingest_cron_next(const IngestCron *cron, TimestampTz after, const pg_tz *zone, TimestampTz *next)
{
	int64		seconds = after / USECS_PER_SEC;
	pg_time_t	from;
	pg_time_t	found = 0;

	if (after < 0 && after % USECS_PER_SEC != 0)
		seconds--;
	from = seconds + SECONDS_OF_EPOCH;
	if (cron->by_clock ? !next_by_clock(cron, from, zone, &found) :
		!next_as_it_goes(cron, from, zone, &found))
		return false;
	found -= SECONDS_OF_EPOCH;
	if (found >= END_TIMESTAMP / USECS_PER_SEC)
		return false;
	*next = found * USECS_PER_SEC;
	return true;
}
