/*
 * csv.c
 *		Lines of comma-separated values, as COPY ... (FORMAT csv) reads them.
 *
 * The fields of a line are the columns in their order.  A message may hold many
 * lines.  Quotes that do not end make the whole message bad; a line with too
 * many or too few fields, or a value that does not fit, is bad alone.
 */
#include "postgres.h"

#include "format/scalar.h"
#include "lib/stringinfo.h"

typedef struct CsvOptions
{
	char	   *delimiter;
	char	   *quote;
	char	   *escape;
	char	   *null;
} CsvOptions;

static void check_byte(const char *name, const char *value);

static const IngestOptionDef csv_options[] = {
	{"delimiter", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, offsetof(CsvOptions, delimiter),
		.fallback = ",", .check = check_byte,
	.help = "Character between fields."},
	{"quote", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, offsetof(CsvOptions, quote),
		.fallback = "\"", .check = check_byte,
	.help = "Character around fields that hold delimiters or line ends."},
	{"escape", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, offsetof(CsvOptions, escape),
		.check = check_byte,
	.help = "Character before a quote within quotes; the quote itself when not given."},
	{"null", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, offsetof(CsvOptions, null),
		.fallback = "",
	.help = "Unquoted text that stands for NULL."},
	INGEST_OPTION_END
};

typedef struct CsvColumn
{
	IngestReader reader;
	AttrNumber	attnum;
} CsvColumn;

typedef struct Csv
{
	const CsvOptions *options;
	char		delimiter;
	char		quote;
	char		escape;
	CsvColumn  *columns;
	int			ncolumns;
	StringInfoData field;

	const char *start;
	const char *p;
	const char *end;
	bool		broken;			/* the message as a whole */
	bool		done;
} Csv;

static void
check_byte(const char *name, const char *value)
{
	if (strlen(value) != 1 || *value == '\n' || *value == '\r' || (unsigned char) *value >= 0x80)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" must be a single one-byte character", name)));
}

static void
csv_check(const IngestColumn *columns, int ncolumns, const void *options)
{
	const CsvOptions *o = options;

	ingest_format_check_encoding("csv");
	if (*o->delimiter == *o->quote)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("options \"delimiter\" and \"quote\" must differ")));
}

static void *
csv_start(const IngestColumn *columns, int ncolumns, const void *options)
{
	Csv		   *csv = palloc0(sizeof(Csv));

	csv->options = options;
	csv->delimiter = *csv->options->delimiter;
	csv->quote = *csv->options->quote;
	csv->escape = csv->options->escape ? *csv->options->escape : csv->quote;
	csv->ncolumns = ncolumns;
	csv->columns = palloc0(sizeof(CsvColumn) * Max(ncolumns, 1));
	for (int i = 0; i < ncolumns; i++)
	{
		ingest_reader_init(&csv->columns[i].reader, &columns[i]);
		csv->columns[i].attnum = columns[i].attnum;
	}
	initStringInfo(&csv->field);
	return csv;
}

/*
 * Read a field at p into csv->field, or go over it only.  Answers where it
 * ends: at a delimiter, a line end or the end; NULL when a quote is open.
 */
static const char *
scan_field(Csv *csv, const char *p, bool keep, bool *quoted)
{
	bool		inside = false;

	*quoted = false;
	if (keep)
		resetStringInfo(&csv->field);
	for (; p < csv->end; p++)
	{
		if (inside && *p == csv->escape && p + 1 < csv->end &&
			(p[1] == csv->quote || p[1] == csv->escape))
			p++;
		else if (*p == csv->quote)
		{
			inside = !inside;
			*quoted = true;
			continue;
		}
		else if (!inside && (*p == csv->delimiter || *p == '\n' || *p == '\r'))
			return p;
		if (keep)
			appendStringInfoCharMacro(&csv->field, *p);
	}
	return inside ? NULL : p;
}

static const char *
skip_line_end(const Csv *csv, const char *p)
{
	if (p < csv->end && *p == '\r')
		p++;
	if (p < csv->end && *p == '\n')
		p++;
	return p;
}

static void
csv_begin(void *fmt, const char *payload, Size len)
{
	Csv		   *csv = fmt;
	const char *p = payload;
	bool		quoted;

	csv->start = csv->p = payload;
	csv->end = payload + len;
	csv->done = false;
	csv->broken = false;

	/* One look ahead: do all quotes end? */
	if (memchr(payload, csv->quote, len) != NULL)
		while (p && p < csv->end)
		{
			p = scan_field(csv, p, false, &quoted);
			if (p && p < csv->end)
				p++;
		}
	csv->broken = p == NULL;
}

static bool
read_field(Csv *csv, CsvColumn *column, const char *at, bool quoted, IngestRow *row)
{
	int			i = column->attnum - 1;
	const char *null = csv->options->null;

	row->values[i] = (Datum) 0;
	row->isnull[i] = !quoted && csv->field.len == strlen(null) &&
		memcmp(csv->field.data, null, csv->field.len) == 0;
	if (row->isnull[i])
		return true;
	if (ingest_text_check(csv->field.data, csv->field.len, &row->error) &&
		column->reader.read(&column->reader, csv->field.data, csv->field.len,
							&row->values[i], &row->error))
		return true;
	row->error.column = column->reader.column;
	row->error.position = at - csv->start;
	return false;
}

/* The line at csv->p.  Goes behind it whatever happens. */
static bool
read_line(Csv *csv, IngestRow *row)
{
	const char *p = csv->p;
	int			n = 0;
	bool		ok = true;

	row->slice = p;
	for (;; p++, n++)
	{
		const char *first = p;
		bool		keep = ok && row->values != NULL;
		bool		quoted;

		p = scan_field(csv, p, keep, &quoted);
		if (keep && n < csv->ncolumns)
			ok = read_field(csv, &csv->columns[n], first, quoted, row);
		if (p >= csv->end || *p != csv->delimiter)
			break;
	}
	n++;
	row->slice_len = p - row->slice;
	csv->p = skip_line_end(csv, p);
	if (ok && n != csv->ncolumns && row->values != NULL)
	{
		row->error.sqlstate = ERRCODE_BAD_COPY_FILE_FORMAT;
		row->error.message = psprintf("line has %d fields, expected %d", n, csv->ncolumns);
		row->error.detail = row->error.column = NULL;
		row->error.position = row->slice - csv->start;
		return false;
	}
	return ok;
}

static IngestNext
csv_next(void *fmt, IngestRow *row)
{
	Csv		   *csv = fmt;

	if (csv->done)
		return INGEST_NEXT_NONE;
	if (csv->broken)
	{
		csv->done = true;
		row->slice = csv->start;
		row->slice_len = csv->end - csv->start;
		row->error.sqlstate = ERRCODE_BAD_COPY_FILE_FORMAT;
		row->error.message = "unterminated quoted field";
		row->error.detail = row->error.column = NULL;
		row->error.position = -1;
		return INGEST_NEXT_BAD;
	}
	/* Empty lines are no rows. */
	while (csv->p < csv->end && (*csv->p == '\n' || *csv->p == '\r'))
		csv->p++;
	if (csv->p >= csv->end)
	{
		csv->done = true;
		return INGEST_NEXT_NONE;
	}
	return read_line(csv, row) ? INGEST_NEXT_ROW : INGEST_NEXT_BAD;
}

const IngestFormatOps ingest_format_csv = {
	.name = "csv",
	.description = "Lines of comma-separated values; fields are the columns in their order",
	.options = csv_options,
	.options_size = sizeof(CsvOptions),
	.check = csv_check,
	.start = csv_start,
	.begin = csv_begin,
	.next = csv_next,
};
