/*
 * csv.c
 *		Lines of comma-separated values, as COPY ... (FORMAT csv) reads them.
 *
 * The fields of a line are the columns in their order or, with a header, as the
 * first line of the message names them.  A message may hold many lines.  Quotes
 * that do not end and a header that names no column make the whole message bad;
 * a line with too many or too few fields, or a value that does not fit, is bad
 * alone.
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
	bool		header;
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
	{"header", INGEST_SCOPE_TABLE, INGEST_OPTION_BOOL, offsetof(CsvOptions, header),
		.fallback = "false",
	.help = "The first line of each message names the fields; a column is found by its path, else by its name."},
	INGEST_OPTION_END
};

typedef struct CsvColumn
{
	IngestReader reader;
	AttrNumber	attnum;
	const char *name;			/* in the header */
	int			next;			/* column of the same name, or -1 */
	bool		named;			/* by this header */
} CsvColumn;

typedef struct Csv
{
	const CsvOptions *options;
	char		delimiter;
	char		quote;
	char		escape;
	CsvColumn  *columns;
	int			ncolumns;
	int		   *fields;			/* the column of each field, or -1 */
	int			nfields;
	int			max_fields;
	StringInfoData header;		/* what "fields" was made from */
	StringInfoData field;

	const char *start;
	const char *p;
	const char *end;
	const char *broken;			/* why the message is bad as a whole, or NULL */
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
	csv->nfields = ncolumns;
	csv->max_fields = Max(ncolumns, 1);
	csv->fields = palloc(sizeof(int) * csv->max_fields);
	for (int i = 0; i < ncolumns; i++)
	{
		CsvColumn  *column = &csv->columns[i];

		ingest_reader_init(&column->reader, &columns[i]);
		column->attnum = columns[i].attnum;
		column->name = columns[i].path ? columns[i].path : columns[i].name;
		column->next = -1;
		csv->fields[i] = i;
	}
	initStringInfo(&csv->header);
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

/*
 * ---- The header
 */

static void
add_field(Csv *csv, int column)
{
	if (csv->nfields == csv->max_fields)
	{
		csv->max_fields *= 2;
		csv->fields = repalloc_huge(csv->fields, sizeof(int) * csv->max_fields);
	}
	csv->fields[csv->nfields++] = column;
}

/* The columns that the field names, chained; -1: none, or they were named before. */
static int
find_columns(Csv *csv, const char *name, int len)
{
	int			found = -1;

	for (int i = csv->ncolumns - 1; i >= 0; i--)
	{
		CsvColumn  *column = &csv->columns[i];

		if (column->named || strlen(column->name) != len || memcmp(column->name, name, len) != 0)
			continue;
		column->named = true;
		column->next = found;
		found = i;
	}
	return found;
}

/* The header between csv->p and end.  False: no column is in it. */
static bool
read_header(Csv *csv, const char *end)
{
	bool		any = false;
	bool		quoted;

	resetStringInfo(&csv->header);
	csv->nfields = 0;
	for (int i = 0; i < csv->ncolumns; i++)
		csv->columns[i].named = false;
	for (const char *p = csv->p;; p++)
	{
		int			column;

		p = scan_field(csv, p, true, &quoted);
		column = find_columns(csv, csv->field.data, csv->field.len);
		any = any || column >= 0;
		add_field(csv, column);
		if (p >= end)
			break;
	}
	/* The same header need not be read again. */
	if (any)
		appendBinaryStringInfo(&csv->header, csv->p, end - csv->p);
	return any;
}

static const char *
skip_mark(const char *p, Size len)
{
	return len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0 ? p + 3 : p;
}

/* Empty lines are no rows. */
static const char *
skip_empty_lines(const Csv *csv, const char *p)
{
	while (p < csv->end && (*p == '\n' || *p == '\r'))
		p++;
	return p;
}

static const char *
find_line_end(Csv *csv, const char *p)
{
	bool		quoted;

	while ((p = scan_field(csv, p, false, &quoted)) < csv->end && *p == csv->delimiter)
		p++;
	return p;
}

static void
begin_header(Csv *csv)
{
	const char *end;

	csv->p = skip_empty_lines(csv, csv->p);
	if (csv->p == csv->end)
		return;
	end = find_line_end(csv, csv->p);
	if ((csv->header.len != end - csv->p || memcmp(csv->header.data, csv->p, csv->header.len) != 0) &&
		!read_header(csv, end))
		csv->broken = "the header names none of the columns";
	csv->p = skip_line_end(csv, end);
}

static Size
csv_head(void *fmt, const char *payload, Size len)
{
	Csv			csv = *(Csv *) fmt;
	const char *p;

	if (!csv.options->header)
		return 0;
	csv.end = payload + len;
	p = skip_empty_lines(&csv, skip_mark(payload, len));
	return skip_line_end(&csv, find_line_end(&csv, p)) - payload;
}

/*
 * ---- Rows
 */

static void
csv_begin(void *fmt, const char *payload, Size len)
{
	Csv		   *csv = fmt;
	const char *p = payload;
	bool		quoted;

	csv->start = payload;
	csv->p = skip_mark(payload, len);
	csv->end = payload + len;
	csv->done = false;
	csv->broken = NULL;

	/* One look ahead: do all quotes end? */
	if (memchr(payload, csv->quote, len) != NULL)
		while (p && p < csv->end)
		{
			p = scan_field(csv, p, false, &quoted);
			if (p && p < csv->end)
				p++;
		}
	if (p == NULL)
		csv->broken = "unterminated quoted field";
	else if (csv->options->header)
		begin_header(csv);
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

/* Columns that the header does not name are NULL. */
static void
clear_unnamed(const Csv *csv, IngestRow *row)
{
	for (int i = 0; i < csv->ncolumns; i++)
		if (!csv->columns[i].named)
		{
			row->values[csv->columns[i].attnum - 1] = (Datum) 0;
			row->isnull[csv->columns[i].attnum - 1] = true;
		}
}

/* The line at csv->p.  Goes behind it whatever happens. */
static bool
read_line(Csv *csv, IngestRow *row)
{
	const char *p = csv->p;
	int			n = 0;
	bool		ok = true;

	row->slice = p;
	if (csv->options->header && row->values)
		clear_unnamed(csv, row);
	for (;; p++, n++)
	{
		const char *first = p;
		int			column = n < csv->nfields ? csv->fields[n] : -1;
		bool		keep = ok && row->values != NULL && column >= 0;
		bool		quoted;

		p = scan_field(csv, p, keep, &quoted);
		for (; keep && ok && column >= 0; column = csv->columns[column].next)
			ok = read_field(csv, &csv->columns[column], first, quoted, row);
		if (p >= csv->end || *p != csv->delimiter)
			break;
	}
	n++;
	row->slice_len = p - row->slice;
	csv->p = skip_line_end(csv, p);
	if (ok && n != csv->nfields && row->values != NULL)
	{
		row->error.sqlstate = ERRCODE_BAD_COPY_FILE_FORMAT;
		row->error.message = psprintf("line has %d fields, expected %d", n, csv->nfields);
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
		row->error.message = csv->broken;
		row->error.detail = row->error.column = NULL;
		row->error.position = -1;
		return INGEST_NEXT_BAD;
	}
	csv->p = skip_empty_lines(csv, csv->p);
	if (csv->p >= csv->end)
	{
		csv->done = true;
		return INGEST_NEXT_NONE;
	}
	return read_line(csv, row) ? INGEST_NEXT_ROW : INGEST_NEXT_BAD;
}

const IngestFormatOps ingest_format_csv = {
	.name = "csv",
	.description = "Lines of comma-separated values; fields are the columns in their order, or by a header",
	.options = csv_options,
	.options_size = sizeof(CsvOptions),
	.check = csv_check,
	.start = csv_start,
	.begin = csv_begin,
	.next = csv_next,
	.head = csv_head,
};
