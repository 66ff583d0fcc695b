/*
 * decode.c
 *		Fuzz targets of the formats.
 *
 * An input is a first byte, which picks columns and options, and messages with
 * the byte 0x1E between them.  Besides not crashing, a decoder must
 *
 *	- answer with rows, bad rows and nothing else; raise only errors of data;
 *	- give the same rows whatever it has seen before (a decoder that sees all
 *	  messages, twice, and a new one for each message agree);
 *	- find the same rows when it passes over them without converting;
 *	- stay within the payload, with slices and positions too, and keep no
 *	  pointer into it;
 *	- set all of an error;
 *	- keep no more memory after it has seen the messages a second time;
 *
 * and agree with the server: JSON that is accepted is JSON for the server too
 * and the other way round, a column of type jsonb is what #> gives, and a
 * scalar is what the type's input function makes of the text.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/jsonapi.h"
#include "format/format.h"
#include "format/scalar.h"
#include "fuzz.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/primnodes.h"
#include "parser/parse_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonfuncs.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/xml.h"

#define SEPARATOR '\x1e'
#define MAX_COLUMNS 24
#define MAX_SETS 24

/* Columns and options that an input can choose. */
typedef struct Choice
{
	const char *columns;		/* name type [$path, or =path as it is], one a line */
	const char *options;		/* jsonb */
} Choice;

typedef struct Setup
{
	IngestColumn columns[MAX_COLUMNS];
	int			ncolumns;
	void	   *options;
	FmgrInfo	output[MAX_COLUMNS];
	const char *json_path;		/* of a column of type jsonb, as of #>; or NULL */
	int			json_column;
} Setup;

/* What a message came to. */
typedef struct Outcome
{
	StringInfoData text;		/* the rows, as text */
	StringInfoData slices;
	int			nrows;			/* bad ones, too */
	bool		broken;			/* as a whole, by its syntax */
	IngestRowError error;		/* of the last bad row */
	bool		any_row;		/* one that is not bad */
} Outcome;

static const IngestFormatOps *format;
static Setup setups[MAX_SETS];
static int	nsetups;

/*
 * ---- Setting up
 */

static void
add_column(Setup *setup, const char *line)
{
	IngestColumn *column = &setup->columns[setup->ncolumns];
	char	   *copy = pstrdup(line);
	char	   *type = strchr(copy, ' ');
	char	   *path;
	Oid			output;
	bool		varlena;

	*type++ = '\0';
	if ((path = strpbrk(type, "$=")) != NULL)
		path[-1] = '\0';
	if (path && *path == '=')
		path++;
	column->attnum = setup->ncolumns + 1;
	column->name = copy;
	column->path = path;
	parseTypeString(type, &column->typid, &column->typmod, false);
	column->collation = get_typcollation(column->typid);
	getTypeOutputInfo(column->typid, &output, &varlena);
	fmgr_info(output, &setup->output[setup->ncolumns++]);
}

static void
add_setup(const Choice *choice)
{
	Setup	   *setup = &setups[nsetups++];
	char	   *lines = pstrdup(choice->columns);
	List	   *options = ingest_option_from_jsonb(
		DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(choice->options))));

	for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n"))
		add_column(setup, line);
	setup->options = palloc0(Max(format->options_size, 1));
	ingest_option_parse(format->options, options, setup->options);
	if (format->check)
		format->check(setup->columns, setup->ncolumns, setup->options);
}

static void
start_format(const char *name, const Choice *choices, int n)
{
	format = ingest_format_get(name);
	for (int i = 0; i < n; i++)
		add_setup(&choices[i]);
}

/*
 * ---- One message
 */

static void
check_slice(const IngestRow *row, const char *payload, Size len)
{
	if (row->slice < payload || row->slice > payload + len ||
		row->slice_len > payload + len - row->slice)
		fuzz_finding("the slice is not within the payload");
}

static void
check_error(const Setup *setup, const IngestRowError *error, Size len)
{
	bool		known = error->column == NULL;

	if (error->sqlstate == 0 || error->message == NULL)
		fuzz_finding("a bad row does not say why");
	if (pg_verifymbstr(error->message, strlen(error->message), true) == false)
		fuzz_finding("a message is no valid text");
	if (error->detail)
		(void) strlen(error->detail);
	if (error->position < -1 || error->position > (int64) len)
		fuzz_finding("position " INT64_FORMAT " is not within the payload", error->position);
	for (int i = 0; i < setup->ncolumns && !known; i++)
		known = strcmp(error->column, setup->columns[i].name) == 0;
	if (!known)
		fuzz_finding("an error is of an unknown column");
}

static void
append_row(const Setup *setup, const IngestRow *row, StringInfo out)
{
	for (int i = 0; i < setup->ncolumns; i++)
	{
		char	   *text;

		if (row->isnull[i])
		{
			appendStringInfoString(out, "|null");
			continue;
		}
		text = OutputFunctionCall(unconstify(FmgrInfo *, &setup->output[i]), row->values[i]);
		if (!pg_verifymbstr(text, strlen(text), true))
			fuzz_finding("a value is no valid text");
		appendStringInfo(out, "|%s", text);
	}
	appendStringInfoChar(out, '\n');
}

/* The next row; false: it raised an error of data. */
static bool
try_next(void *decoder, IngestRow *row, IngestNext *next, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = true;

	PG_TRY();
	{
		*next = format->next(decoder, row);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		if (!fuzz_is_data_error((*error)->sqlerrcode))
			ReThrowError(*error);
		ok = false;
	}
	PG_END_TRY();
	return ok;
}

/* Begin again, and pass over so many rows. */
static void
pass_over(void *decoder, const char *payload, Size len, int nrows)
{
	IngestRow	row = {0};

	format->begin(decoder, payload, len);
	for (int i = 0; i < nrows; i++)
		(void) format->next(decoder, &row);
}

static void
decode(const Setup *setup, void *decoder, const char *payload, Size len, Outcome *outcome)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = fuzz_context_create(context, "fuzz row");
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];

	initStringInfo(&outcome->text);
	initStringInfo(&outcome->slices);
	outcome->nrows = 0;
	outcome->broken = outcome->any_row = false;
	memset(&outcome->error, 0, sizeof(outcome->error));
	format->begin(decoder, payload, len);
	for (;; outcome->nrows++)
	{
		IngestRow	row = {.values = values, .isnull = isnull};
		IngestNext	next = INGEST_NEXT_BAD;
		ErrorData  *error = NULL;
		bool		raised;

		/* What is left unset shows. */
		memset(values, 0x5a, sizeof(values));
		memset(isnull, true, sizeof(isnull));
		memset(&row.error, 0x5a, sizeof(row.error));
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		raised = !try_next(decoder, &row, &next, &error);
		MemoryContextSwitchTo(context);
		if (raised)
		{
			appendStringInfo(&outcome->text, "raised %s\n", error->message);
			pass_over(decoder, payload, len, outcome->nrows + 1);
			appendStringInfo(&outcome->slices, "raised\n");
			continue;
		}
		if (next == INGEST_NEXT_NONE)
			break;
		check_slice(&row, payload, len);
		appendStringInfo(&outcome->slices, "%d+%d\n", (int) (row.slice - payload), (int) row.slice_len);
		if (next == INGEST_NEXT_BAD)
		{
			check_error(setup, &row.error, len);
			appendStringInfo(&outcome->text, "bad %s: %s %s at %d\n", unpack_sql_state(row.error.sqlstate),
							 row.error.message, row.error.column ? row.error.column : "",
							 (int) row.error.position);
			outcome->error = row.error;
			outcome->error.message = pstrdup(row.error.message);
			outcome->broken = row.error.column == NULL;
		}
		else
		{
			outcome->any_row = true;
			append_row(setup, &row, &outcome->text);
		}
	}
	MemoryContextDelete(scratch);
}

/* Passing over all rows: as many, and with the same slices where there are any. */
static void
check_passing(void *decoder, const char *payload, Size len, const Outcome *outcome)
{
	StringInfoData slices;
	const char *expected = outcome->slices.data;
	IngestRow	row = {0};
	int			n = 0;

	initStringInfo(&slices);
	format->begin(decoder, payload, len);
	for (; format->next(decoder, &row) != INGEST_NEXT_NONE; n++)
	{
		size_t		line = strcspn(expected, "\n") + 1;

		if (n >= outcome->nrows)
			fuzz_finding("passing over finds more rows than %d", outcome->nrows);
		check_slice(&row, payload, len);
		resetStringInfo(&slices);
		appendStringInfo(&slices, "%d+%d\n", (int) (row.slice - payload), (int) row.slice_len);
		if (strncmp(expected, "raised", 6) != 0 && strncmp(expected, slices.data, line) != 0)
			fuzz_finding("passing over finds row %d at %s instead of %s", n, slices.data, expected);
		expected += line;
	}
	if (n != outcome->nrows)
		fuzz_finding("passing over finds %d rows instead of %d", n, outcome->nrows);
}

static void
check_same(const Outcome *a, const Outcome *b, const char *what)
{
	if (a->nrows != b->nrows || strcmp(a->text.data, b->text.data) != 0 ||
		strcmp(a->slices.data, b->slices.data) != 0)
		fuzz_finding("%s: %s instead of %s", what, b->text.data, a->text.data);
}

/*
 * ---- Inputs
 */

typedef void (*CheckFn) (const Setup *setup, const char *message, Size len, const Outcome *outcome);

static void
run_message(const Setup *setup, void *shared, const char *message, Size len, CheckFn check)
{
	char	   *payload = fuzz_copy(message, len);
	void	   *own = format->start(setup->columns, setup->ncolumns, setup->options);
	Outcome		first;
	Outcome		second;

	decode(setup, own, payload, len, &first);
	check_passing(own, payload, len, &first);
	decode(setup, shared, payload, len, &second);
	check_same(&first, &second, "a decoder that has seen other messages differs");
	if (check)
		check(setup, payload, len, &first);
	free(payload);
}

static void
run_messages(const char *data, Size len, CheckFn check)
{
	MemoryContext keep = fuzz_context_create(CurrentMemoryContext, "fuzz decoder");
	MemoryContext scratch = fuzz_context_create(CurrentMemoryContext, "fuzz message");
	const Setup *setup;
	void	   *shared;
	Size		kept = 0;

	if (len == 0)
		return;
	setup = &setups[(unsigned char) *data % nsetups];
	MemoryContextSwitchTo(keep);
	shared = format->start(setup->columns, setup->ncolumns, setup->options);
	for (int round = 0; round < 2; round++)
	{
		const char *p = data + 1;
		const char *end = data + len;

		while (p)
		{
			const char *separator = memchr(p, SEPARATOR, end - p);

			MemoryContextSwitchTo(scratch);
			run_message(setup, shared, p, (separator ? separator : end) - p, round == 0 ? check : NULL);
			MemoryContextReset(scratch);
			p = separator ? separator + 1 : NULL;
		}
		if (round > 0 && fuzz_context_size(keep) > kept)
			fuzz_finding("a decoder grows from %zu to %zu bytes with messages that it knows", kept,
						 fuzz_context_size(keep));
		kept = fuzz_context_size(keep);
	}
	if (format->end)
		format->end(shared);
}

/*
 * ---- The targets
 */

/* Whether the server finds this bad, and its message. */
static bool
raises(Datum (*call) (const void *arg), const void *arg, Datum *result, char **why)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool raised = false;

	PG_TRY();
	{
		*result = call(arg);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (!fuzz_is_data_error(error->sqlerrcode) && error->sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX)
			ReThrowError(error);
		*why = error->message;
		raised = true;
	}
	PG_END_TRY();
	return raised;
}

typedef struct Bytes
{
	const char *data;
	Size		len;
} Bytes;

static Datum
parse_as_json(const void *arg)
{
	const Bytes *bytes = arg;
	JsonLexContext *lex;

	/* The server's parser trusts in valid text. */
	if (!pg_verify_mbstr(PG_UTF8, bytes->data, bytes->len, true) ||
		memchr(bytes->data, '\0', bytes->len))
		ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE), errmsg_internal("invalid text")));
	lex = makeJsonLexContextCstringLen(unconstify(char *, bytes->data), bytes->len, PG_UTF8, true);
	pg_parse_json_or_ereport(lex, &nullSemAction);
	return (Datum) 0;
}

typedef struct PathOf
{
	const char *text;
	Size		len;
	const char *path;
} PathOf;

static Datum
get_path(const void *arg)
{
	const PathOf *of = arg;
	LOCAL_FCINFO(fcinfo, 2);
	Datum		json = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(of->text, of->len)));
	FmgrInfo	array_input;
	Datum		path;
	Datum		result;

	fmgr_info(F_ARRAY_IN, &array_input);
	path = InputFunctionCall(&array_input, unconstify(char *, of->path), TEXTOID, -1);
	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum) {json, false};
	fcinfo->args[1] = (NullableDatum) {path, false};
	result = jsonb_extract_path(fcinfo);
	return fcinfo->isnull ? CStringGetDatum("null") : DirectFunctionCall1(jsonb_out, result);
}

/* The first column is jsonb at $.p.q[1]: what #> says of the same object. */
static void
check_path(const char *object, Size len, const Outcome *outcome)
{
	PathOf		of = {object, len, "{p,q,1}"};
	const char *got = outcome->text.data + 1;
	size_t		got_len = strlen(got) - 1;
	Datum		expected;
	char	   *why;

	if (raises(get_path, &of, &expected, &why))
		return;
	if (strcmp(DatumGetCString(expected), pnstrdup(got, got_len)) != 0)
		fuzz_finding("a path finds %s instead of %s", pnstrdup(got, got_len), DatumGetCString(expected));
}

static void
check_json(const Setup *setup, const char *message, Size len, const Outcome *outcome)
{
	Bytes		bytes = {message, len};
	Datum		ignored;
	char	   *why;
	bool		bad = raises(parse_as_json, &bytes, &ignored, &why);

	/* What we refuse although it is JSON: not made of objects, too deep. */
	bool		ours = outcome->broken &&
		(strcmp(outcome->error.message, "expected an object") == 0 ||
		 outcome->error.sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED);

	if (bad && !outcome->broken)
		fuzz_finding("JSON is accepted that the server refuses: %s", why);
	if (!bad && outcome->broken && !ours)
		fuzz_finding("JSON is refused that the server accepts: %s", outcome->error.message);
	if (outcome->nrows == 1 && outcome->any_row && setup == &setups[1] && message[strspn(message, " \t\r\n")] == '{')
		check_path(message, len, outcome);
}

static const Choice json_choices[] = {
	{"a integer\nb text\nc float8\nd jsonb\ne integer[]\nf timestamptz\nt text[]\nn numeric(6,2)\n"
		"u uuid\nv varchar(3)\no boolean\ns smallint\ni bigint\nj json\nr real\ng date\nc1 char(3)\n"
	"w timestamp(2)\nx numeric", "{}"},
	{"x jsonb $.p.q[1]", "{}"},
	{"x integer $.a.b[1].c\nwhole jsonb $.a\nodd text $.\"odd key\".\"a\\\"b\"\nfirst text $.l[0]\nb text $.a.b", "{}"},
	{"a text\nb text $.a.b", "{\"max_depth\": 2}"},
	{"a text[]\nb integer[] $.a[0]", "{\"max_depth\": 1000}"},
	{"a jsonb $\nb text $\nc json $\nd integer $.a", "{}"},
	{"a bytea\nb inet\nc interval\nd point\ne int4range\nf bit(3)\ng xid8\nh tsvector", "{}"},
};

static void
start_json(void)
{
	start_format("json", json_choices, lengthof(json_choices));
}

static void
run_json(const char *data, Size len)
{
	run_messages(data, len, check_json);
}

/*
 * Lines: as many rows as there are lines that are not blank, and each the row
 * that the line is by itself.
 */
static void
check_lines(const Setup *setup, const char *message, Size len, const Outcome *outcome)
{
	const IngestFormatOps *ndjson = format;
	const char *end = message + len;
	StringInfoData rows;
	int			nrows = 0;
	bool		all_good = true;

	initStringInfo(&rows);
	format = ingest_format_get("json");
	for (const char *p = message; p < end;)
	{
		const char *lf = memchr(p, '\n', end - p);
		const char *line_end = lf ? lf : end;
		const char *first = p;

		p = lf ? lf + 1 : end;
		while (first < line_end && strchr(" \t\r", *first) && *first)
			first++;
		if (first < line_end)
		{
			void	   *decoder = format->start(setup->columns, setup->ncolumns, setup->options);
			char	   *line = fuzz_copy(first, line_end - first);
			Outcome		by_itself;

			decode(setup, decoder, line, line_end - first, &by_itself);
			free(line);
			all_good = all_good && *first == '{' && by_itself.nrows == 1 && by_itself.any_row;
			appendStringInfoString(&rows, by_itself.text.data);
			nrows++;
		}
	}
	format = ndjson;
	if (nrows != outcome->nrows)
		fuzz_finding("%d lines are %d rows", nrows, outcome->nrows);
	if (all_good && strcmp(rows.data, outcome->text.data) != 0)
		fuzz_finding("lines are %s instead of %s", outcome->text.data, rows.data);
}

static void
start_ndjson(void)
{
	start_format("ndjson", json_choices, lengthof(json_choices));
}

static void
run_ndjson(const char *data, Size len)
{
	run_messages(data, len, check_lines);
}

static const Choice xml_choices[] = {
	{"id integer =@id\ntitle text\nat timestamptz =dates/at\nprice numeric", "{}"},
	{"cat text[] =category\nref text =link/@href\nown text =text()\nn integer[] =n/@v", "{}"},
	{"body xml =content\nwhole xml =.\ntext text =.\nall xml[] =p", "{}"},
	{"a text =x:a\nb text =a/b/c\nlang text =@xml:lang\nown xml =a/text()\nc varchar(3) =a/@x:b", "{\"max_depth\": 5}"},
	{"a text =a/a/a/a/a/a/a/a/a/a/a/a/a/@a\nb text[] =a/a/a/text()", "{\"max_depth\": 1000}"},
};

static Datum
parse_as_xml(const void *arg)
{
	const Bytes *bytes = arg;

	if (pg_encoding_verifymbstr(PG_UTF8, bytes->data, bytes->len) != bytes->len)
		ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE), errmsg_internal("invalid text")));
	return PointerGetDatum(xmlparse(cstring_to_text_with_len(bytes->data, bytes->len), XMLOPTION_DOCUMENT,
									true));
}

/* Declarations of XML and of its type are the server's own business. */
static void
check_xml(const Setup *setup, const char *message, Size len, const Outcome *outcome)
{
	Bytes		bytes = {message, len};
	Datum		ignored;
	char	   *why;
	bool		bad;

	if (outcome->nrows != 1)
		fuzz_finding("a message is %d rows", outcome->nrows);
	if (memmem(message, len, "<?xml", 5) || memmem(message, len, "<!DOCTYPE", 9))
		return;
	if (len >= 3 && memcmp(message, "\xef\xbb\xbf", 3) == 0)
	{
		bytes.data += 3;
		bytes.len -= 3;
	}
	bad = raises(parse_as_xml, &bytes, &ignored, &why);
	if (bad && outcome->any_row)
		fuzz_finding("XML is accepted that the server refuses: %s", why);
	if (!bad && outcome->broken && outcome->error.sqlstate != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		fuzz_finding("XML is refused that the server accepts: %s", outcome->error.message);
}

static void
start_xml(void)
{
	start_format("xml", xml_choices, lengthof(xml_choices));
}

static void
run_xml(const char *data, Size len)
{
	run_messages(data, len, check_xml);
}

static const Choice csv_choices[] = {
	{"a integer\nb text", "{}"},
	{"a text\nb text\nc text", "{}"},
	{"a text", "{}"},
	{"a integer\nb text", "{\"delimiter\": \";\", \"null\": \"NIL\"}"},
	{"a text\nb text", "{\"escape\": \"\\\\\", \"quote\": \"'\", \"delimiter\": \"\\t\"}"},
	{"a float8\nb timestamptz\nc numeric(6,2)\nd boolean\ne uuid\nf varchar(3)", "{}"},
	{"a jsonb\nb integer[]\nc inet", "{\"quote\": \"'\"}"},
	{"a integer\nb text\nc text =b\nd text =other name", "{\"header\": true}"},
	{"a text\nb text", "{\"header\": true, \"delimiter\": \";\", \"escape\": \"\\\\\"}"},
};

static void
start_csv(void)
{
	start_format("csv", csv_choices, lengthof(csv_choices));
}

static void
run_csv(const char *data, Size len)
{
	run_messages(data, len, NULL);
}

/* Text is how to get at the readers of scalars. */
static const Choice text_choices[] = {
	{"a text", "{}"}, {"a boolean", "{}"}, {"a smallint", "{}"}, {"a integer", "{}"},
	{"a bigint", "{}"}, {"a real", "{}"}, {"a float8", "{}"}, {"a numeric", "{}"},
	{"a numeric(6,2)", "{}"}, {"a numeric(5,-2)", "{}"}, {"a varchar(3)", "{}"}, {"a char(3)", "{}"},
	{"a date", "{}"}, {"a timestamp", "{}"}, {"a timestamp(2)", "{}"}, {"a timestamptz", "{}"},
	{"a timestamptz(0)", "{}"}, {"a uuid", "{}"}, {"a numeric(3,5)", "{}"}, {"a varchar", "{}"},
};

typedef struct TextOf
{
	const Setup *setup;
	const char *text;
	Size		len;
} TextOf;

static Datum
call_input(const void *arg)
{
	const TextOf *of = arg;
	IngestColumn column = of->setup->columns[0];
	IngestRowError ignored;
	Oid			input;
	Oid			ioparam;
	Datum		value;

	if (!ingest_text_check(of->text, of->len, &ignored))
		ereport(ERROR, (errcode(ignored.sqlstate), errmsg_internal("%s", ignored.message)));
	getTypeInputInfo(column.typid, &input, &ioparam);
	value = OidInputFunctionCall(input, pnstrdup(of->text, of->len), ioparam, column.typmod);
	return CStringGetDatum(OutputFunctionCall(unconstify(FmgrInfo *, &of->setup->output[0]), value));
}

static void
check_scalar(const Setup *setup, const char *message, Size len, const Outcome *outcome)
{
	TextOf		of = {setup, message, len};
	Datum		expected;
	char	   *why;
	const char *got = outcome->text.data;

	if (raises(call_input, &of, &expected, &why))
	{
		if (outcome->any_row)
			fuzz_finding("a reader makes %s of what the input function refuses: %s", got, why);

		/*
		 * In the same words; but long values are clipped, an overflow has one,
		 * and of a value that is wrong in two ways either may be said.
		 */
		if (outcome->error.message && len <= 60 &&
			!strstr(why, "out of range") == !strstr(outcome->error.message, "out of range") &&
			strcmp(why, "numeric field overflow") != 0 && strcmp(outcome->error.message, why) != 0)
			fuzz_finding("a reader says %s where the input function says %s", outcome->error.message, why);
	}
	else if (!outcome->any_row)
		fuzz_finding("a reader says %s where the input function makes %s", got, DatumGetCString(expected));
	else if (strcmp(got, psprintf("|%s\n", DatumGetCString(expected))) != 0)
		fuzz_finding("a reader makes %s where the input function makes %s", got, DatumGetCString(expected));
}

static void
start_text(void)
{
	start_format("text", text_choices, lengthof(text_choices));
}

static void
run_text(const char *data, Size len)
{
	run_messages(data, len, check_scalar);
}

static const Choice raw_choices[] = {
	{"a bytea", "{}"},
};

static void
start_raw(void)
{
	start_format("raw", raw_choices, lengthof(raw_choices));
}

static void
check_raw(const Setup *setup, const char *message, Size len, const Outcome *outcome)
{
	if (outcome->nrows != 1 || outcome->text.len != 2 * len + 4)
		fuzz_finding("%zu bytes become %s", len, outcome->text.data);
}

static void
run_raw(const char *data, Size len)
{
	run_messages(data, len, check_raw);
}

const FuzzTarget fuzz_json = {"json", start_json, run_json};
const FuzzTarget fuzz_ndjson = {"ndjson", start_ndjson, run_ndjson};
const FuzzTarget fuzz_xml = {"xml", start_xml, run_xml};
const FuzzTarget fuzz_csv = {"csv", start_csv, run_csv};
const FuzzTarget fuzz_text = {"text", start_text, run_text};
const FuzzTarget fuzz_raw = {"raw", start_raw, run_raw};
