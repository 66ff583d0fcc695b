/*
 * http_mark.c
 *		Values of the cursor: as they are kept, compared and written in requests.
 *
 * Kept is a canonical text that does not depend on settings: ISO 8601 in UTC
 * for times.  Pure; runs outside transactions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "miscadmin.h"
#include "source/http.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define EPOCH_MICROS ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* "2026-01-31T12:00:00.5Z"; a timestamp without zone is written likewise. */
static char *
timestamp_text(Timestamp at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (TIMESTAMP_NOT_FINITE(at) || timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		return pstrdup(TIMESTAMP_IS_NOBEGIN(at) ? "-infinity" : "infinity");
	EncodeDateTime(&tm, fsec, false, 0, NULL, USE_XSD_DATES, text);
	return psprintf("%sZ", text);
}

static char *
date_text(DateADT date)
{
	struct pg_tm tm;
	char		text[MAXDATELEN + 1];

	if (DATE_NOT_FINITE(date))
		return pstrdup(DATE_IS_NOBEGIN(date) ? "-infinity" : "infinity");
	j2date(date + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	EncodeDateOnly(&tm, USE_ISO_DATES, text);
	return pstrdup(text);
}

char *
http_mark_text(HttpPlan *plan, Datum value)
{
	switch (plan->cursor_type)
	{
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
			return timestamp_text(DatumGetTimestamp(value));
		case DATEOID:
			return date_text(DatumGetDateADT(value));
		default:
			return OutputFunctionCall(&plan->cursor_out, value);
	}
}

Datum
http_mark_value(HttpPlan *plan, const char *text)
{
	return InputFunctionCall(&plan->cursor_in, unconstify(char *, text), plan->cursor_ioparam, -1);
}

int
http_mark_compare(HttpPlan *plan, Datum a, Datum b)
{
	return DatumGetInt32(FunctionCall2Coll(&plan->cursor_cmp, plan->collation, a, b));
}

/* Moved by so much, which is never beyond what the type holds. */
static Datum
move(HttpPlan *plan, Datum value, int64 by)
{
	int64		moved;

	switch (plan->cursor_type)
	{
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
			if (TIMESTAMP_NOT_FINITE(DatumGetTimestamp(value)) ||
				pg_add_s64_overflow(DatumGetTimestamp(value), by, &moved) || !IS_VALID_TIMESTAMP(moved))
				return value;
			return TimestampGetDatum(moved);
		case DATEOID:
			moved = by / USECS_PER_DAY - (by % USECS_PER_DAY < 0);
			if (DATE_NOT_FINITE(DatumGetDateADT(value)) || !IS_VALID_DATE(DatumGetDateADT(value) + moved))
				return value;
			return DateADTGetDatum(DatumGetDateADT(value) + (DateADT) moved);
		case INT2OID:
			return Int16GetDatum((int16) Max(DatumGetInt16(value) + by, PG_INT16_MIN));
		case INT4OID:
			return Int32GetDatum((int32) Max(DatumGetInt32(value) + by, PG_INT32_MIN));
		case INT8OID:
			return pg_add_s64_overflow(DatumGetInt64(value), by, &moved) ? value : Int64GetDatum(moved);
		default:
			return value;
	}
}

static char *
unix_text(int64 micros, bool ms)
{
	int64		unit = ms ? 1000 : USECS_PER_SEC;
	int64		since = micros + EPOCH_MICROS;
	int64		whole = since / unit - (since % unit < 0);

	return psprintf(INT64_FORMAT, whole);
}

char *
http_mark_request(HttpPlan *plan, const char *text, bool back)
{
	Datum		value = http_mark_value(plan, text);
	int64		micros;

	if (back && plan->lag > 0)
		value = move(plan, value, -plan->lag);
	switch (plan->cursor_type)
	{
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
			micros = DatumGetTimestamp(value);
			break;
		case DATEOID:
			micros = DatumGetDateADT(value) * USECS_PER_DAY;
			break;
		default:
			return http_mark_text(plan, value);
	}
	switch ((HttpCursorFormat) plan->options->cursor_format)
	{
		case HTTP_CURSOR_UNIX:
		case HTTP_CURSOR_UNIX_MS:
			return unix_text(micros, plan->options->cursor_format == HTTP_CURSOR_UNIX_MS);
		case HTTP_CURSOR_DATE:
			return pnstrdup(http_mark_text(plan, value), 10);
		case HTTP_CURSOR_PLAIN:
			{
				char	   *plain = http_mark_text(plan, value);

				/* "2026-01-31 12:00:00.5" */
				for (char *p = plain; *p; p++)
					if (*p == 'T')
						*p = ' ';
					else if (*p == 'Z')
						*p = '\0';
				return plain;
			}
		case HTTP_CURSOR_ISO:
			break;
	}
	return http_mark_text(plan, value);
}

int64
http_mark_number(HttpPlan *plan, Datum value)
{
	switch (plan->cursor_type)
	{
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
			return DatumGetTimestamp(value);
		case DATEOID:
			return DatumGetDateADT(value) * USECS_PER_DAY;
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			return 0;
	}
}

int64
http_mark_resolution(const HttpPlan *plan)
{
	if (plan->cursor_type != TIMESTAMPTZOID && plan->cursor_type != TIMESTAMPOID)
		return 1;
	switch ((HttpCursorFormat) plan->options->cursor_format)
	{
		case HTTP_CURSOR_DATE:
			return USECS_PER_DAY;
		case HTTP_CURSOR_UNIX:
			return USECS_PER_SEC;
		case HTTP_CURSOR_UNIX_MS:
			return 1000;
		default:
			return 1;
	}
}

int64
http_mark_floor(HttpPlan *plan, int64 number)
{
	int64		resolution = http_mark_resolution(plan);
	int64		floor;
	int64		rest;

	if (pg_sub_s64_overflow(number, plan->lag, &floor))
		return PG_INT64_MIN;
	rest = floor % resolution;
	return floor - (rest < 0 ? rest + resolution : rest);
}

char *
http_mark_window_end(HttpPlan *plan, const char *text, bool *last)
{
	Datum		from = http_mark_value(plan, text);
	Datum		end = move(plan, from, plan->window);
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());

	if (plan->cursor_type == DATEOID)
		now = DateADTGetDatum((DateADT) (DatumGetTimestampTz(now) / USECS_PER_DAY));
	*last = http_mark_compare(plan, end, now) >= 0 || http_mark_compare(plan, end, from) <= 0;
	if (!*last)
		return http_mark_text(plan, end);
	return http_mark_text(plan, http_mark_compare(plan, now, from) > 0 ? now : from);
}
