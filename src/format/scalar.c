/*
 * scalar.c
 *		Direct readers for the common types.
 *
 * On the hot path a reader takes the usual form of a value in one look; the
 * unusual forms go the long way, which is the type's own code wherever that can
 * be called without raising errors.
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>

#include "catalog/pg_type.h"
#include "core/compat.h"
#include "format/scalar.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* Longest excerpt of a value in a message, in bytes. */
#define EXCERPT 64

/*
 * In the words of the server's input functions, so that an error reads the same
 * whether they found it or we: the value in quotes between "before" and "after".
 */
static bool
fail(const IngestReader *reader, const char *text, Size len, int sqlstate,
	 const char *before, const char *after, IngestRowError *err)
{
	int			clip = pg_mbcliplen(text, len, EXCERPT);

	err->sqlstate = sqlstate;
	err->message = psprintf("%s\"%.*s%s\"%s", before, clip, text, clip < len ? "..." : "", after);
	err->detail = NULL;
	err->column = reader->column;
	return false;
}

static bool
fail_syntax(const IngestReader *reader, const char *text, Size len, IngestRowError *err)
{
	bool		is_datetime = reader->typid == DATEOID || reader->typid == TIMESTAMPOID ||
		reader->typid == TIMESTAMPTZOID;

	/* Names of these types come without precision, and with a zone or nothing. */
	return fail(reader, text, len,
				is_datetime ? ERRCODE_INVALID_DATETIME_FORMAT : ERRCODE_INVALID_TEXT_REPRESENTATION,
				psprintf("invalid input syntax for type %s: ",
						 reader->typid == TIMESTAMPOID ? "timestamp" :
						 reader->typid == TIMESTAMPTZOID ? "timestamp with time zone" :
						 reader->type_name), "", err);
}

static bool
fail_range(const IngestReader *reader, const char *text, Size len, IngestRowError *err)
{
	bool		is_float = reader->typid == FLOAT4OID || reader->typid == FLOAT8OID;

	return fail(reader, text, len, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, is_float ? "" : "value ",
				psprintf(" is out of range for type %s", reader->type_name), err);
}

bool
ingest_reader_input(const IngestReader *reader, const char *text, Size len, Datum *value,
					IngestRowError *err)
{
	char	   *copy = pnstrdup(text, len);

	if (ingest_compat_input_call((FmgrInfo *) &reader->input, copy, reader->ioparam,
								 reader->typmod, value, &err->sqlstate, &err->message))
		return true;
	err->detail = NULL;
	err->column = reader->column;
	return false;
}

/* What an input function calls white space. */
static void
trim(const char **text, Size *len)
{
	while (*len > 0 && isspace((unsigned char) **text))
	{
		(*text)++;
		(*len)--;
	}
	while (*len > 0 && isspace((unsigned char) (*text)[*len - 1]))
		(*len)--;
}

static bool
read_bool(const IngestReader *reader, const char *text, Size len, Datum *value,
		  IngestRowError *err)
{
	const char *all = text;
	Size		all_len = len;
	bool		flag;

	trim(&text, &len);
	/* Of no bytes it would read the one behind them. */
	if (len == 0 || !parse_bool_with_len(text, len, &flag))
		return fail_syntax(reader, all, all_len, err);
	*value = BoolGetDatum(flag);
	return true;
}

/*
 * Digits with an optional sign.  From 16 on integers have further forms (hex,
 * underscores), for which the input function is asked; it can be there without
 * raising.
 */
static bool
parse_integer(const IngestReader *reader, const char *text, Size len, int64 min, int64 max,
			  int64 *number, Datum *value, bool *handed_over, IngestRowError *err)
{
	const char *all = text;
	Size		all_len = len;
	uint64		n = 0;
	bool		negative = false;
	Size		i = 0;

	*handed_over = false;
	if (len == 0 || isspace((unsigned char) text[0]) || isspace((unsigned char) text[len - 1]))
		trim(&text, &len);
	if (i < len && (text[i] == '-' || text[i] == '+'))
		negative = text[i++] == '-';
	if (i == len)
		return fail_syntax(reader, all, all_len, err);
	for (; i < len; i++)
	{
		unsigned	digit = (unsigned char) text[i] - '0';

		if (digit > 9)
		{
#if INGEST_COMPAT_SOFT_INPUT
			*handed_over = true;
			return ingest_reader_input(reader, all, all_len, value, err);
#else
			return fail_syntax(reader, all, all_len, err);
#endif
		}
		if (n > (PG_UINT64_MAX - digit) / 10)
		{
			/* Out of range, if the rest are digits. */
			for (; i < len; i++)
				if (!isdigit((unsigned char) text[i]))
					return fail_syntax(reader, all, all_len, err);
			return fail_range(reader, all, all_len, err);
		}
		n = n * 10 + digit;
	}
	if (n > (uint64) max + (negative ? 1 : 0))
		return fail_range(reader, all, all_len, err);
	*number = negative ? (int64) (0 - n) : (int64) n;
	if (*number < min)
		return fail_range(reader, all, all_len, err);
	return true;
}

#define INTEGER_READER(name, min, max, to_datum) \
static bool \
name(const IngestReader *reader, const char *text, Size len, Datum *value, IngestRowError *err) \
{ \
	int64		number = 0; \
	bool		handed_over; \
\
	if (!parse_integer(reader, text, len, min, max, &number, value, &handed_over, err)) \
		return false; \
	if (!handed_over) \
		*value = to_datum(number); \
	return true; \
}

INTEGER_READER(read_int2, PG_INT16_MIN, PG_INT16_MAX, Int16GetDatum)
INTEGER_READER(read_int4, PG_INT32_MIN, PG_INT32_MAX, Int32GetDatum)
INTEGER_READER(read_int8, PG_INT64_MIN, PG_INT64_MAX, Int64GetDatum)

/*
 * Up to 15 digits and a power of ten that a double holds exactly: one
 * multiplication or division gives the correctly rounded result (Clinger 1990,
 * "How to read floating point numbers accurately").
 */
static bool
quick_float(const char *text, Size len, double *result)
{
	static const double powers[] = {
		1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
		1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22
	};
	const char *end = text + len;
	uint64		digits = 0;
	int			ndigits = 0;
	int			scale = 0;
	bool		negative = false;
	bool		point = false;
	bool		any = false;

	if (text < end && *text == '-')
	{
		negative = true;
		text++;
	}
	for (; text < end; text++)
	{
		unsigned	digit = (unsigned char) *text - '0';

		if (digit <= 9)
		{
			any = true;
			digits = digits * 10 + digit;
			if (digits != 0 && ++ndigits > 15)
				return false;
			if (point)
				scale++;
		}
		else if (*text == '.' && !point)
			point = true;
		else
			return false;		/* an exponent, a name: the long way */
	}
	if (!any || scale > 22)
		return false;
	*result = scale > 0 ? (double) digits / powers[scale] : (double) digits;
	if (negative)
		*result = -*result;
	return true;
}

static bool
read_float8(const IngestReader *reader, const char *text, Size len, Datum *value,
			IngestRowError *err)
{
	double		number;

	if (quick_float(text, len, &number))
	{
		*value = Float8GetDatum(number);
		return true;
	}
#if INGEST_COMPAT_SOFT_INPUT
	return ingest_reader_input(reader, text, len, value, err);
#else
	{
		char	   *copy = pnstrdup(text, len);
		bool		bad = false;

		number = float8in_internal_opt_error(copy, NULL, "double precision", copy, &bad);
		if (!bad)
			*value = Float8GetDatum(number);
		else
		{
			/* Which of the two errors?  strtod() tells. */
			const char *all = text;
			Size		all_len = len;
			char	   *end;

			trim(&text, &len);
			copy = pnstrdup(text, len);
			errno = 0;
			number = strtod(copy, &end);
			if (errno == ERANGE && (number == 0.0 || number >= HUGE_VAL || number <= -HUGE_VAL))
				return fail_range(reader, text, end - copy, err);
			return fail_syntax(reader, all, all_len, err);
		}
		return true;
	}
#endif
}

static bool
read_float4(const IngestReader *reader, const char *text, Size len, Datum *value,
			IngestRowError *err)
{
#if INGEST_COMPAT_SOFT_INPUT
	return ingest_reader_input(reader, text, len, value, err);
#else
	static const struct
	{
		const char *name;
		float		value;
	}			names[] = {
		{"nan", NAN}, {"infinity", INFINITY}, {"+infinity", INFINITY}, {"-infinity", -INFINITY},
		{"inf", INFINITY}, {"+inf", INFINITY}, {"-inf", -INFINITY}
	};
	const char *all = text;
	Size		all_len = len;
	char	   *copy;
	char	   *end;
	float		number;

	/* As float4in(): strtof() decides, and names it may not know. */
	trim(&text, &len);
	copy = pnstrdup(text, len);
	errno = 0;
	number = strtof(copy, &end);
	if (end != copy && errno == ERANGE &&
		(number == 0.0 || number >= HUGE_VALF || number <= -HUGE_VALF))
		return fail_range(reader, all, all_len, err);
	if (len > 0 && *end == '\0' && end != copy && strlen(copy) == len)
	{
		*value = Float4GetDatum(number);
		return true;
	}
	for (int i = 0; i < lengthof(names); i++)
		if (pg_strcasecmp(copy, names[i].name) == 0)
		{
			*value = Float4GetDatum(names[i].value);
			return true;
		}
	return fail_syntax(reader, all, all_len, err);
#endif
}

/* [sign] digits [. digits] [e [sign] digits], of a size that cannot overflow */
static bool
is_plain_numeric(const char *text, Size len)
{
	Size		i = 0;
	int			digits = 0;
	int			exponent = 0;

	if (len > 1000)
		return false;
	if (i < len && (text[i] == '-' || text[i] == '+'))
		i++;
	for (; i < len && isdigit((unsigned char) text[i]); i++)
		digits++;
	if (i < len && text[i] == '.')
		for (i++; i < len && isdigit((unsigned char) text[i]); i++)
			digits++;
	if (digits == 0)
		return false;
	if (i < len && (text[i] == 'e' || text[i] == 'E'))
	{
		Size		first;

		i++;
		if (i < len && (text[i] == '-' || text[i] == '+'))
			i++;
		for (first = i; i < len && isdigit((unsigned char) text[i]) && exponent < 1000; i++)
			exponent = exponent * 10 + (text[i] - '0');
		if (i == first || exponent >= 1000)
			return false;
	}
	return i == len;
}

static bool
read_numeric(const IngestReader *reader, const char *text, Size len, Datum *value,
			 IngestRowError *err)
{
	Datum		number;
	int			scale;

	if (!is_plain_numeric(text, len))
		return ingest_reader_input(reader, text, len, value, err);
	number = DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(text, len)),
								 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	if (reader->typmod < (int32) VARHDRSZ)
	{
		*value = number;
		return true;
	}
	/* numeric(p,s): does it still fit when it is rounded? */
	scale = (((reader->typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
	number = DirectFunctionCall2(numeric_round, number, Int32GetDatum(scale));
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, DirectFunctionCall1(numeric_abs, number),
										  reader->limit)) >= 0)
		return fail(reader, text, len, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
					"numeric field overflow: ", "", err);
	*value = DirectFunctionCall2(numeric, number, Int32GetDatum(reader->typmod));
	return true;
}

static Datum
make_text(const char *text, Size len, Size padded)
{
	struct varlena *result = palloc(VARHDRSZ + padded);

	SET_VARSIZE(result, VARHDRSZ + padded);
	memcpy(VARDATA(result), text, len);
	if (padded > len)
		memset(VARDATA(result) + len, ' ', padded - len);
	return PointerGetDatum(result);
}

static bool
read_text(const IngestReader *reader, const char *text, Size len, Datum *value,
		  IngestRowError *err)
{
	*value = make_text(text, len, len);
	return true;
}

/* varchar(n), char(n): longer ones are cut when only blanks are lost */
static bool
read_limited(const IngestReader *reader, const char *text, Size len, Datum *value,
			 IngestRowError *err)
{
	int			limit = reader->typmod - VARHDRSZ;
	int			chars = 0;
	Size		padding = 0;

	if (reader->typid == BPCHAROID || len > limit)
		chars = pg_mbstrlen_with_len(text, len);
	if (chars > limit)
	{
		Size		keep = pg_mbcharcliplen(text, len, limit);

		for (Size i = keep; i < len; i++)
			if (text[i] != ' ')
			{
				err->sqlstate = ERRCODE_STRING_DATA_RIGHT_TRUNCATION;
				err->message = psprintf("value too long for type %s", reader->type_name);
				err->detail = NULL;
				err->column = reader->column;
				return false;
			}
		len = keep;
		chars = limit;
	}
	if (reader->typid == BPCHAROID)
		padding = limit - chars;
	*value = make_text(text, len, len + padding);
	return true;
}

/* Two digits at p, or -1 (of which the sum with others stays negative). */
static inline int
two(const char *p)
{
	unsigned	a = (unsigned char) p[0] - '0';
	unsigned	b = (unsigned char) p[1] - '0';

	return (a > 9 || b > 9) ? -10000 : (int) (a * 10 + b);
}

/* YYYY-MM-DD within the years that all forms agree on */
static bool
quick_date(const char *p, int *jd)
{
	int			year = two(p) * 100 + two(p + 2);
	int			month = two(p + 5);
	int			day = two(p + 8);

	if (p[4] != '-' || p[7] != '-' || year < 1000 || month < 1 || month > 12 || day < 1 ||
		day > day_tab[isleap(year)][month - 1])
		return false;
	*jd = date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
	return true;
}

/* [hh:mm[:ss[.ffffff]]] up to the end or a zone */
static bool
quick_time(const char **text, const char *end, int64 *micros)
{
	static const int scales[] = {100000, 10000, 1000, 100, 10, 1};
	const char *p = *text;
	int			hour;
	int			minute;
	int			second = 0;
	int			fraction = 0;

	if (end - p < 5 || p[2] != ':')
		return false;
	hour = two(p);
	minute = two(p + 3);
	p += 5;
	if (end - p >= 3 && *p == ':')
	{
		second = two(p + 1);
		p += 3;
		if (p < end && *p == '.')
		{
			int			i = 0;

			for (p++; p < end && isdigit((unsigned char) *p); p++)
			{
				if (i >= 6)
					return false;	/* to be rounded: the long way */
				fraction += (*p - '0') * scales[i++];
			}
			if (i == 0)
				return false;
		}
	}
	/* 24:00:00 and leap seconds go the long way */
	if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
		return false;
	*micros = ((hour * INT64CONST(60) + minute) * 60 + second) * USECS_PER_SEC + fraction;
	*text = p;
	return true;
}

/* Z, +hh, +hhmm, +hh:mm: seconds east of Greenwich */
static bool
quick_zone(const char *p, const char *end, int *east)
{
	int			hours;
	int			minutes = 0;

	if (end - p == 1 && (*p == 'Z' || *p == 'z'))
	{
		*east = 0;
		return true;
	}
	if (end - p < 3 || (*p != '+' && *p != '-'))
		return false;
	hours = two(p + 1);
	if (end - p == 6 && p[3] == ':')
		minutes = two(p + 4);
	else if (end - p == 5)
		minutes = two(p + 3);
	else if (end - p != 3)
		return false;
	if (hours < 0 || hours > 15 || minutes < 0 || minutes > 59)
		return false;
	*east = (hours * 60 + minutes) * 60 * (*p == '-' ? -1 : 1);
	return true;
}

/* The long way: the server's own date parser, which answers with a code. */
static bool
parse_datetime(const IngestReader *reader, const char *text, Size len, Datum *value,
			   IngestRowError *err)
{
#if INGEST_COMPAT_SOFT_INPUT
	return ingest_reader_input(reader, text, len, value, err);
#else
	char	   *copy = pnstrdup(text, len);
	char	   *field[MAXDATEFIELDS];
	int			ftype[MAXDATEFIELDS];
	char		work[MAXDATELEN + MAXDATEFIELDS];
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz = 0;
	int			nfields;
	int			dtype;
	int			code = ParseDateTime(copy, work, sizeof(work), field, ftype, MAXDATEFIELDS, &nfields);

	if (code == 0)
		code = DecodeDateTime(field, ftype, nfields, &dtype, &tm, &fsec, &tz);
	if (code == DTERR_TZDISP_OVERFLOW)
		return fail(reader, text, len, ERRCODE_INVALID_TIME_ZONE_DISPLACEMENT_VALUE,
					"time zone displacement out of range: ", "", err);
	if (code == DTERR_FIELD_OVERFLOW || code == DTERR_MD_FIELD_OVERFLOW)
		return fail(reader, text, len, ERRCODE_DATETIME_FIELD_OVERFLOW,
					"date/time field value out of range: ", "", err);
	if (code != 0)
		return fail_syntax(reader, text, len, err);
	/* It is well formed; what can still be raised is a year out of the type's range. */
	*value = InputFunctionCall((FmgrInfo *) &reader->input, copy, reader->ioparam, reader->typmod);
	return true;
#endif
}

static bool
read_date(const IngestReader *reader, const char *text, Size len, Datum *value,
		  IngestRowError *err)
{
	int			jd;

	if (len == 10 && quick_date(text, &jd))
	{
		*value = DateADTGetDatum(jd);
		return true;
	}
	return parse_datetime(reader, text, len, value, err);
}

static bool
read_timestamp(const IngestReader *reader, const char *text, Size len, Datum *value,
			   IngestRowError *err)
{
	const char *p = text + 11;
	const char *end = text + len;
	Timestamp	result;
	int64		micros;
	int			east = 0;
	int			jd;
	bool		zoned = reader->typid == TIMESTAMPTZOID;

	if (len >= 16 && quick_date(text, &jd) && (text[10] == 'T' || text[10] == ' ') &&
		quick_time(&p, end, &micros) &&
		(zoned ? quick_zone(p, end, &east) : p == end))
	{
		result = (int64) jd * USECS_PER_DAY + micros - east * USECS_PER_SEC;
		if (reader->typmod >= 0)
			ingest_compat_adjust_timestamp(&result, reader->typmod);
		*value = TimestampGetDatum(result);
		return true;
	}
	return parse_datetime(reader, text, len, value, err);
}

static inline int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* As uuid_in(): braces, and hyphens after any group of four digits. */
static bool
read_uuid(const IngestReader *reader, const char *text, Size len, Datum *value,
		  IngestRowError *err)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	const char *p = text;
	const char *end = text + len;
	bool		braces = p < end && *p == '{';

	if (braces)
		p++;
	for (int i = 0; i < UUID_LEN; i++)
	{
		int			high = p < end ? hex_digit(p[0]) : -1;
		int			low = p + 1 < end ? hex_digit(p[1]) : -1;

		if (high < 0 || low < 0)
			return fail_syntax(reader, text, len, err);
		uuid->data[i] = high << 4 | low;
		p += 2;
		if (p < end && *p == '-' && i % 2 == 1 && i < UUID_LEN - 1)
			p++;
	}
	if (braces)
	{
		if (p >= end || *p != '}')
			return fail_syntax(reader, text, len, err);
		p++;
	}
	if (p != end)
		return fail_syntax(reader, text, len, err);
	*value = UUIDPGetDatum(uuid);
	return true;
}

static IngestReadFn
find_reader(Oid typid, int32 typmod)
{
	switch (typid)
	{
		case BOOLOID:
			return read_bool;
		case INT2OID:
			return read_int2;
		case INT4OID:
			return read_int4;
		case INT8OID:
			return read_int8;
		case FLOAT4OID:
			return read_float4;
		case FLOAT8OID:
			return read_float8;
		case NUMERICOID:
			return read_numeric;
		case TEXTOID:
			return read_text;
		case VARCHAROID:
		case BPCHAROID:
			return typmod >= (int32) VARHDRSZ ? read_limited : read_text;
		case DATEOID:
			return read_date;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return read_timestamp;
		case UUIDOID:
			return read_uuid;
		default:
			return ingest_reader_input;
	}
}

void
ingest_reader_init(IngestReader *reader, const IngestColumn *column)
{
	Oid			input;

	memset(reader, 0, sizeof(*reader));
	reader->typid = column->typid;
	reader->typmod = column->typmod;
	reader->column = column->name;
	reader->type_name = format_type_with_typemod(column->typid, column->typmod);
	getTypeInputInfo(column->typid, &input, &reader->ioparam);
	fmgr_info(input, &reader->input);
	reader->read = find_reader(column->typid, column->typmod);

	if (reader->typid == NUMERICOID && reader->typmod >= (int32) VARHDRSZ)
	{
		int			precision = ((reader->typmod - VARHDRSZ) >> 16) & 0xffff;
		int			scale = (((reader->typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;

		reader->limit = DirectFunctionCall3(numeric_in,
											CStringGetDatum(psprintf("1e%d", precision - scale)),
											ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
}

bool
ingest_text_check(const char *text, Size len, IngestRowError *err)
{
	if (pg_encoding_verifymbstr(PG_UTF8, text, len) == len && memchr(text, '\0', len) == NULL)
		return true;
	err->sqlstate = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
	err->message = "invalid byte sequence for encoding \"UTF8\"";
	err->detail = NULL;
	err->column = NULL;
	return false;
}

void
ingest_append_array_element(StringInfo array, const char *text, Size len)
{
	appendStringInfoChar(array, '"');
	for (Size i = 0; i < len; i++)
	{
		if (text[i] == '"' || text[i] == '\\')
			appendStringInfoChar(array, '\\');
		appendStringInfoChar(array, text[i]);
	}
	appendStringInfoChar(array, '"');
}

void
ingest_format_check_encoding(const char *format)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("format \"%s\" needs a database with encoding UTF8", format),
				 errdetail("This database has encoding %s.", GetDatabaseEncodingName()),
				 errhint("Format \"raw\" works with every encoding.")));
}
