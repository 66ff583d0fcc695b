/*
 * limit_text.c
 *		What options and servers say about limits: rates, Retry-After, budgets.
 *
 * What comes from servers may be anything: it is read byte by byte, without
 * regard to the locale, and what makes no sense is as if it were not there.
 * What is done about it is in limit.c.
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>

#include "core/compat.h"
#include "core/options.h"
#include "http/limit.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#define MAX_REQUESTS 1000000
#define MAX_PERIOD_MS (INT64CONST(366) * 24 * 3600 * 1000)

/* Larger numbers of seconds are times since 1970, and from here on in ms. */
#define LEAST_UNIX_TIME 1e9
#define LEAST_UNIX_TIME_MS 1e11

/* ---- small parts ---- */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *
skip_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

/* A decimal number without sign or exponent; however long.  NULL: there is none. */
static const char *
read_number(const char *p, double *number)
{
	double		scale = 1;

	if (!is_digit(*p))
		return NULL;
	for (*number = 0; is_digit(*p); p++)
		*number = Min(*number * 10 + (*p - '0'), 1e18);
	if (*p != '.')
		return p;
	for (p++; is_digit(*p); p++)
	{
		scale /= 10;
		*number += scale * (*p - '0');
	}
	return p;
}

/* Between min_digits and max_digits digits.  NULL: there are not. */
static const char *
read_digits(const char *p, int min_digits, int max_digits, int *number)
{
	int			n = 0;

	for (*number = 0; is_digit(p[n]) && n < max_digits; n++)
		*number = *number * 10 + (p[n] - '0');
	return n < min_digits || is_digit(p[n]) ? NULL : p + n;
}

/* Milliseconds since 1970. */
static double
unix_now(void)
{
	return GetCurrentTimestamp() / 1000.0 +
		(double) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;
}

static int64
clamp_wait(double ms, int64 max)
{
	if (isnan(ms) || ms <= 0)
		return 0;
	return ms >= (double) max ? Max(max, 0) : (int64) ceil(ms);
}

/* ---- rates ---- */

static const struct
{
	const char *name;
	int64		ms;
}			units[] = {
	{"ms", 1}, {"msec", 1}, {"millisecond", 1}, {"milliseconds", 1},
	{"s", 1000}, {"sec", 1000}, {"secs", 1000}, {"second", 1000}, {"seconds", 1000},
	{"m", 60000}, {"min", 60000}, {"mins", 60000}, {"minute", 60000}, {"minutes", 60000},
	{"h", 3600000}, {"hr", 3600000}, {"hour", 3600000}, {"hours", 3600000},
	{"d", 86400000}, {"day", 86400000}, {"days", 86400000},
};

pg_noreturn static void
raise_rate(const char *option, const char *text, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option, text),
			 errdetail("%s", detail),
			 errhint("%s", hint ? hint :
					 "A rate is a number of requests and a period, such as '10/s', '600/min' or '1/15 minutes'.")));
	pg_unreachable();
}

/* Milliseconds of the unit that the text ends with. */
static int64
read_unit(const char *option, const char *text, const char *p)
{
	int			len = strlen(p);
	char	   *unit;
	IngestClosest closest;

	while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
		len--;
	unit = pnstrdup(p, len);
	for (int i = 0; i < lengthof(units); i++)
		if (pg_strcasecmp(units[i].name, unit) == 0)
			return units[i].ms;

	if (len == 0)
		raise_rate(option, text, "The period has no unit.", NULL);
	ingest_closest_begin(&closest, unit);
	for (int i = 0; i < lengthof(units); i++)
		if (strlen(units[i].name) > 2)
			ingest_closest_consider(&closest, units[i].name);
	raise_rate(option, text, psprintf("There is no unit \"%s\".", unit),
			   closest.match ? psprintf("Did you mean \"%s\"?", closest.match) : NULL);
}

void
ingest_http_rate_parse(const char *option, const char *text, IngestHttpRate *rate)
{
	const char *p = read_number(skip_blanks(text), &rate->requests);
	const char *after;
	double		period = 1;

	if (p == NULL)
		raise_rate(option, text, "It does not begin with a number.", NULL);
	p = skip_blanks(p);
	if (*p != '/')
		raise_rate(option, text, "There is no slash behind the number of requests.", NULL);
	p = skip_blanks(p + 1);
	after = read_number(p, &period);
	if (after)
		p = skip_blanks(after);
	period *= read_unit(option, text, p);

	if (rate->requests <= 0)
		raise_rate(option, text, "With no requests nothing would ever be read.",
				   "Leave the option out for no limit.");
	if (rate->requests > MAX_REQUESTS)
		raise_rate(option, text, psprintf("A period has at most %d requests.", MAX_REQUESTS), NULL);
	if (period < 1 || period > MAX_PERIOD_MS)
		raise_rate(option, text, "A period is between a millisecond and 366 days.", NULL);
	if (period / rate->requests > MAX_PERIOD_MS)
		raise_rate(option, text, "This is less than a request in 366 days.", NULL);
	rate->period = (int64) period;
}

char *
ingest_http_rate_text(const IngestHttpRate *rate)
{
	static const struct
	{
		const char *name;
		int64		ms;
	}			shown[] = {{"day", 86400000}, {"h", 3600000}, {"min", 60000}, {"s", 1000}, {"ms", 1}};
	int			unit = 0;

	if (rate->requests <= 0 || rate->period <= 0)
		return NULL;
	while (rate->period % shown[unit].ms != 0)
		unit++;
	if (rate->period == shown[unit].ms)
		return psprintf("%.10g/%s", rate->requests, shown[unit].name);
	return psprintf("%.10g/" INT64_FORMAT " %s", rate->requests,
					rate->period / shown[unit].ms, shown[unit].name);
}

/* ---- dates ---- */

static const char *const weekdays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"
};

/* The index of the name that begins here, or -1. */
static int
find_name(const char *p, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
		if (pg_strncasecmp(p, names[i], 3) == 0)
			return i;
	return -1;
}

static const char *
read_month(const char *p, int *month)
{
	*month = find_name(p, month_names, lengthof(month_names)) + 1;
	return *month == 0 || is_letter(p[3]) ? NULL : p + 3;
}

static const char *
read_time(const char *p, int *seconds)
{
	int			parts[3];

	for (int i = 0; i < 3; i++)
	{
		if (i > 0 && *p++ != ':')
			return NULL;
		p = read_digits(p, 2, 2, &parts[i]);
		if (p == NULL)
			return NULL;
	}
	if (parts[0] > 23 || parts[1] > 59 || parts[2] > 60)
		return NULL;
	*seconds = parts[0] * SECS_PER_HOUR + parts[1] * SECS_PER_MINUTE + parts[2];
	return p;
}

/* A year of two digits is at most 50 years ahead (RFC 9110, 5.6.7). */
static int
complete_year(int year)
{
	int			this_year;
	int			month;
	int			day;

	j2date((int) (unix_now() / 1000 / SECS_PER_DAY) + UNIX_EPOCH_JDATE, &this_year, &month, &day);
	year += this_year / 100 * 100;
	if (year > this_year + 50)
		return year - 100;
	return year <= this_year - 50 ? year + 100 : year;
}

/* "06 Nov 1994 08:49:37 GMT", also with dashes and a year of two digits. */
static const char *
read_usual_date(const char *p, int *year, int *month, int *day, int *seconds)
{
	const char *digits;
	char		separator;

	p = read_digits(p, 1, 2, day);
	if (p == NULL || (*p != ' ' && *p != '-'))
		return NULL;
	separator = *p++;
	p = read_month(p, month);
	if (p == NULL || *p++ != separator)
		return NULL;
	digits = p;
	p = read_digits(p, 2, 4, year);
	if (p == NULL || p - digits == 3 || *p != ' ')
		return NULL;
	if (p - digits == 2)
		*year = complete_year(*year);
	p = read_time(skip_blanks(p), seconds);
	if (p == NULL)
		return NULL;
	p = skip_blanks(p);
	return pg_strncasecmp(p, "GMT", 3) == 0 || pg_strncasecmp(p, "UTC", 3) == 0 ? p + 3 : NULL;
}

/* "Nov  6 08:49:37 1994": as of asctime(). */
static const char *
read_asctime(const char *p, int *year, int *month, int *day, int *seconds)
{
	p = read_month(p, month);
	if (p == NULL || *p != ' ')
		return NULL;
	p = read_digits(skip_blanks(p), 1, 2, day);
	if (p == NULL || *p != ' ')
		return NULL;
	p = read_time(skip_blanks(p), seconds);
	if (p == NULL || *p != ' ')
		return NULL;
	return read_digits(skip_blanks(p), 4, 4, year);
}

/* An HTTP date in each of its three forms, as ms since 1970. */
static bool
read_http_date(const char *p, double *ms)
{
	int			year;
	int			month;
	int			day;
	int			seconds;

	p = skip_blanks(p);
	if (find_name(p, weekdays, lengthof(weekdays)) < 0)
		return false;
	while (is_letter(*p))
		p++;
	if (*p == ',')
		p++;
	p = skip_blanks(p);
	p = is_digit(*p) ? read_usual_date(p, &year, &month, &day, &seconds) :
		read_asctime(p, &year, &month, &day, &seconds);
	if (p == NULL || *skip_blanks(p) != '\0')
		return false;
	if (day < 1 || day > day_tab[isleap(year)][month - 1])
		return false;
	*ms = ((double) (date2j(year, month, day) - UNIX_EPOCH_JDATE) * SECS_PER_DAY + seconds) * 1000;
	return true;
}

/* The time that the server had when it answered, else ours; ms since 1970. */
static double
find_now(const char *date)
{
	double		now;

	return date && read_http_date(date, &now) ? now : unix_now();
}

int64
ingest_http_retry_after(const char *value, const char *date, int64 max)
{
	const char *p;
	const char *end;
	double		number;
	bool		negative;

	if (value == NULL)
		return -1;
	p = skip_blanks(value);
	negative = *p == '-';
	end = read_number(negative ? p + 1 : p, &number);
	if (end)
	{
		if (*skip_blanks(end) != '\0')
			return -1;
		return negative ? 0 : clamp_wait(number * 1000, max);
	}
	if (!read_http_date(p, &number))
		return -1;
	return clamp_wait(number - find_now(date), max);
}

/* ---- budgets ---- */

/* "2026-11-23T10:00:00.5+01:00" (RFC 3339), as ms since 1970. */
static bool
read_timestamp(const char *p, double *ms)
{
	int			year;
	int			month;
	int			day;
	int			seconds;
	double		fraction = 0;
	int			sign = 0;
	int			hours = 0;
	int			minutes = 0;

	if ((p = read_digits(p, 4, 4, &year)) == NULL || *p++ != '-' ||
		(p = read_digits(p, 2, 2, &month)) == NULL || *p++ != '-' ||
		(p = read_digits(p, 2, 2, &day)) == NULL || (*p != 'T' && *p != 't' && *p != ' ') ||
		(p = read_time(p + 1, &seconds)) == NULL)
		return false;
	if (*p == '.')
	{
		double		scale = 1;

		for (p++; is_digit(*p); p++)
			fraction += (scale /= 10) * (*p - '0');
	}
	if (*p == '+' || *p == '-')
	{
		sign = *p == '+' ? 1 : -1;
		if ((p = read_digits(p + 1, 2, 2, &hours)) == NULL || *p++ != ':' ||
			(p = read_digits(p, 2, 2, &minutes)) == NULL)
			return false;
	}
	else if (*p++ != 'Z')
		return false;
	if (*skip_blanks(p) != '\0' || month < 1 || month > 12 || day < 1 || day > day_tab[isleap(year)][month - 1])
		return false;
	*ms = ((double) (date2j(year, month, day) - UNIX_EPOCH_JDATE) * SECS_PER_DAY + seconds + fraction -
		   sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE)) * 1000;
	return true;
}

/* "1m30s", "250ms": numbers with their units.  -1: it is none. */
static double
read_duration(const char *p)
{
	double		ms = 0;

	while (is_digit(*p))
	{
		double		number;

		p = read_number(p, &number);
		if (strncmp(p, "ms", 2) == 0)
		{
			ms += number;
			p += 2;
			continue;
		}
		if (*p == '\0' || strchr("dhms", *p) == NULL)
			return -1;
		ms += number * (*p == 'd' ? 86400000 : *p == 'h' ? 3600000 : *p == 'm' ? 60000 : 1000);
		p++;
	}
	return *skip_blanks(p) == '\0' ? ms : -1;
}

/* ms until a time that a server names in one of the ways there are; -1: it is none. */
static double
read_reset(const char *value, const char *date)
{
	const char *p;
	const char *end;
	double		number;

	if (value == NULL)
		return -1;
	p = skip_blanks(value);
	if (!is_digit(*p))
		return read_http_date(p, &number) ? number - find_now(date) : -1;
	end = read_number(p, &number);
	if (is_letter(*end))
		return read_duration(p);
	if (*end == '-')
		return read_timestamp(p, &number) ? number - find_now(date) : -1;
	if (*end != '\0' && strchr(" \t,;", *end) == NULL)
		return -1;
	if (number >= LEAST_UNIX_TIME_MS)
		return number - find_now(date);
	return number >= LEAST_UNIX_TIME ? number * 1000 - find_now(date) : number * 1000;
}

/* Does a header say that nothing is left? */
static bool
is_used_up(const char *value)
{
	double		number;

	if (value == NULL)
		return false;
	value = skip_blanks(value);
	if (*value == '-')
		return is_digit(value[1]);
	return read_number(value, &number) && number < 1;
}

/* Behind a quoted string that begins here. */
static const char *
skip_string(const char *p)
{
	for (p++; *p != '\0' && *p != '"'; p++)
		if (*p == '\\' && p[1] != '\0')
			p++;
	return *p == '"' ? p + 1 : p;
}

/* What a RateLimit header says, of one policy or of all. */
typedef struct Quota
{
	bool		used_up;
	const char *reset;
} Quota;

static void
note_parameter(Quota *policy, Quota *all, const char *name, size_t len, const char *value)
{
	if (len == 1 && *name == 'r')
		policy->used_up = is_used_up(value);
	else if (len == 1 && *name == 't')
		policy->reset = value;
	else if (len == 9 && pg_strncasecmp(name, "remaining", 9) == 0)
		all->used_up = is_used_up(value);
	else if (len == 5 && pg_strncasecmp(name, "reset", 5) == 0)
		all->reset = value;
}

static double
wait_for_quota(const Quota *quota, const char *date)
{
	return quota->used_up && quota->reset ? read_reset(quota->reset, date) : 0;
}

/*
 * "burst";r=0;t=30, "daily";r=100;t=3600 -- one policy each.  Until draft 7 there
 * was but one, as limit=100, remaining=0, reset=30.
 */
static double
read_rate_limit(const char *p, const char *date)
{
	Quota		policy = {0};
	Quota		all = {0};
	double		wait = 0;

	while (*p != '\0')
	{
		const char *name = p;

		while (is_letter(*p) || is_digit(*p) || *p == '_' || *p == '-')
			p++;
		if (p > name && *p == '=')
			note_parameter(&policy, &all, name, p - name, p + 1);
		else if (*p == '"')
			p = skip_string(p);
		else if (*p == ',')
		{
			wait = Max(wait, wait_for_quota(&policy, date));
			memset(&policy, 0, sizeof(policy));
			p++;
		}
		else if (p == name)
			p++;
	}
	return Max(Max(wait, wait_for_quota(&policy, date)), wait_for_quota(&all, date));
}

int64
ingest_http_budget_wait(const char *(*header) (const void *arg, const char *name),
						const void *arg, int64 max)
{
	static const char *const families[] = {"RateLimit", "X-RateLimit", "X-Rate-Limit"};
	const char *date = header(arg, "Date");
	const char *combined = header(arg, "RateLimit");
	double		wait = combined ? read_rate_limit(combined, date) : 0;

	for (int i = 0; i < lengthof(families); i++)
	{
		char		name[40];
		const char *after;

		snprintf(name, sizeof(name), "%s-Remaining", families[i]);
		if (!is_used_up(header(arg, name)))
			continue;
		snprintf(name, sizeof(name), "%s-Reset-After", families[i]);
		after = header(arg, name);
		snprintf(name, sizeof(name), "%s-Reset", families[i]);
		wait = Max(wait, read_reset(after ? after : header(arg, name), date));
	}
	return clamp_wait(wait, max);
}
