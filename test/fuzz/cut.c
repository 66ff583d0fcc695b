/*
 * cut.c
 *		Fuzz targets of what cuts bodies: JSON documents, and streams of records.
 *
 * A document (first byte: the paths) that is accepted is JSON for the server
 * too, and the other way round; its rows and values are those that a walk over
 * the same document as jsonb finds.
 *
 * A body (first byte: the options, second: how it comes in pieces) has the same
 * records and the same end whether it comes at once, in pieces, or is gone on
 * with behind any of its records.  And they are the right ones: lines as a plain
 * loop finds them, those of CSV as the format finds rows in the whole, elements
 * as libxml2 finds them.
 */
#include "postgres.h"

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "common/jsonapi.h"
#include "format/document.h"
#include "format/format.h"
#include "format/records.h"
#include "fuzz.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/jsonfuncs.h"
#include "utils/memutils.h"

typedef struct Bytes
{
	const char *data;
	Size		len;
} Bytes;

static void
check_error(const IngestRowError *err, Size len)
{
	if (err->sqlstate == 0 || err->message == NULL)
		fuzz_finding("an error does not say why");
	if (!pg_verifymbstr(err->message, strlen(err->message), true) ||
		(err->detail && !pg_verifymbstr(err->detail, strlen(err->detail), true)))
		fuzz_finding("a message is no valid text");
	if (err->column != NULL)
		fuzz_finding("an error is of a column");
	if (err->position < -1 || err->position > (int64) len)
		fuzz_finding("position " INT64_FORMAT " is not within the data", err->position);
}

/* Whether the server finds this bad. */
static bool
raises(Datum (*call) (const Bytes *bytes), const Bytes *bytes, Datum *result)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool raised = false;

	PG_TRY();
	{
		*result = call(bytes);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (!fuzz_is_data_error(error->sqlerrcode) && error->sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX)
			ReThrowError(error);
		raised = true;
	}
	PG_END_TRY();
	return raised;
}

/*
 * ---- Documents
 */

typedef struct Query
{
	const char *rows;
	const char *row_steps;		/* the same: keys and *, by spaces */
	const char *paths[3];
	const char *path_steps[3];
	int			max_depth;
} Query;

static const Query queries[] = {
	{"$", "", {"$.next", "$.a.b", "$"}, {"next", "a b", ""}, 64},
	{"$.items[*]", "items *", {"$.next", NULL, "$.items[1].k"}, {"next", NULL, "items 1 k"}, 64},
	{"$.items", "items", {"$.items[0]", "$.items", "$.items.next"}, {"items 0", "items", "items next"}, 64},
	{"$.data.edges[*].node", "data edges * node", {"$.data.page.end", "$.data.page.more", NULL},
		{"data page end", "data page more", NULL}, 64},
	{"$.a[*].b[*]", "a * b *", {"$.a[1].b[0]", "$.\"odd key\".\"q\\\"x\"", NULL}, {"a 1 b 0", NULL, NULL}, 64},
	{NULL, NULL, {"$[0].k", "$[1][1]", "$.k"}, {"0 k", "1 1", "k"}, 5},
	{"$.a[1]", "a 1", {"$.a", "$.a[0]", "$.a[1][0]"}, {"a", "a 0", "a 1 0"}, 1000},
};

static Datum
parse_as_json(const Bytes *bytes)
{
	JsonLexContext *lex;

	if (pg_encoding_verifymbstr(PG_UTF8, bytes->data, bytes->len) != bytes->len)
		ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE), errmsg_internal("invalid text")));
	lex = makeJsonLexContextCstringLen(unconstify(char *, bytes->data), bytes->len, PG_UTF8, false);
	pg_parse_json_or_ereport(lex, &nullSemAction);
	return (Datum) 0;
}

static Datum
parse_as_jsonb(const Bytes *bytes)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(bytes->data, bytes->len)));
}

/* What a walk over jsonb came to. */
typedef struct Walk
{
	StringInfoData found;		/* as text, a line each */
	int			n;
} Walk;

static void
add_found(Walk *walk, const JsonbValue *value)
{
	Jsonb	   *jsonb = JsonbValueToJsonb((JsonbValue *) value);

	appendStringInfo(&walk->found, "%s\n", JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
	walk->n++;
}

/* Root is a container's value. */
static JsonbValue *
root_value(Jsonb *jsonb)
{
	JsonbValue *value = palloc0(sizeof(JsonbValue));

	if (JB_ROOT_IS_SCALAR(jsonb))
		(void) JsonbExtractScalar(&jsonb->root, value);
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = &jsonb->root;
		value->val.binary.len = VARSIZE_ANY_EXHDR(jsonb);
	}
	return value;
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data) &&
		!JsonContainerIsScalar(value->val.binary.data);
}

static void
walk_elements(Walk *walk, const JsonbValue *value, const char *steps, bool many,
			  void (*visit) (Walk *, const JsonbValue *, const char *, bool))
{
	for (uint32 i = 0; i < JsonContainerSize(value->val.binary.data); i++)
		visit(walk, getIthJsonbValueFromContainer(value->val.binary.data, i), steps, many);
}

static void
walk_rows(Walk *walk, const JsonbValue *value, const char *steps, bool many)
{
	int			len = strcspn(steps, " ");
	const char *rest = steps + len + (steps[len] ? 1 : 0);
	JsonbValue *next = NULL;

	if (*steps == '\0')
	{
		if (!many && is_array(value))
			walk_elements(walk, value, "", true, walk_rows);
		else if (many || value->type != jbvNull)
			add_found(walk, value);
		return;
	}
	if (*steps == '*')
	{
		if (is_array(value))
			walk_elements(walk, value, rest, true, walk_rows);
		return;
	}
	if (value->type != jbvBinary)
		return;
	if (isdigit((unsigned char) *steps) && is_array(value))
		next = getIthJsonbValueFromContainer(value->val.binary.data, atoi(steps));
	else if (!isdigit((unsigned char) *steps) && JsonContainerIsObject(value->val.binary.data))
		next = getKeyJsonValueFromContainer(value->val.binary.data, steps, len, NULL);
	if (next)
		walk_rows(walk, next, rest, many);
}

static void
check_rows(const Query *query, Jsonb *jsonb, const IngestDocument *document)
{
	Walk		walk = {.n = 0};
	StringInfoData rows;

	initStringInfo(&walk.found);
	initStringInfo(&rows);
	walk_rows(&walk, root_value(jsonb), query->row_steps, strchr(query->row_steps, '*') != NULL);
	for (int i = 0; i < document->nrows; i++)
	{
		Bytes		bytes = {document->rows[i].data, document->rows[i].len};
		Jsonb	   *row = DatumGetJsonbP(parse_as_jsonb(&bytes));

		appendStringInfo(&rows, "%s\n", JsonbToCString(NULL, &row->root, VARSIZE(row)));
	}
	if (walk.n != document->nrows || strcmp(walk.found.data, rows.data) != 0)
		fuzz_finding("%d rows instead of %d: %s instead of %s", document->nrows, walk.n, rows.data,
					 walk.found.data);
	if (document->nrows > 0 && !document->found)
		fuzz_finding("there are rows, but nothing was found");
}

static void
check_value(const char *steps, Jsonb *jsonb, const IngestDocumentValue *value)
{
	JsonbValue *expected = root_value(jsonb);
	Jsonb	   *found;
	const char *text;

	for (; *steps && expected; steps += strcspn(steps, " ") + (strchr(steps, ' ') ? 1 : 0))
	{
		const JsonbValue *container = expected;

		expected = NULL;
		if (container->type != jbvBinary)
			continue;
		if (isdigit((unsigned char) *steps) && is_array(container))
			expected = getIthJsonbValueFromContainer(container->val.binary.data, atoi(steps));
		else if (!isdigit((unsigned char) *steps) && JsonContainerIsObject(container->val.binary.data))
			expected = getKeyJsonValueFromContainer(container->val.binary.data, steps,
													strcspn(steps, " "), NULL);
	}
	if ((expected != NULL) != (value->text != NULL))
		fuzz_finding("value %s is %s", steps, expected ? "not found" : "found");
	if (expected == NULL)
		return;
	if (expected->type == jbvString)
	{
		if (value->kind != '"' || strlen(value->text) != expected->val.string.len ||
			memcmp(value->text, expected->val.string.val, expected->val.string.len) != 0)
			fuzz_finding("a string is %s instead of %.*s", value->text, expected->val.string.len,
						 expected->val.string.val);
		return;
	}
	found = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(value->text)));
	text = JsonbToCString(NULL, &found->root, VARSIZE(found));
	found = JsonbValueToJsonb(expected);
	if (strcmp(text, JsonbToCString(NULL, &found->root, VARSIZE(found))) != 0)
		fuzz_finding("a value is %s", text);
}

/* What we refuse although it is JSON: too deep, and strings that are no text. */
static bool
may_refuse(const IngestRowError *err)
{
	return err->sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		err->sqlstate == ERRCODE_UNTRANSLATABLE_CHARACTER ||
		strstr(err->message, "surrogate") != NULL;
}

static void
run_document(const char *data, Size len)
{
	const Query *query;
	IngestDocumentQuery real;
	IngestDocument document;
	IngestRowError err = {0};
	Bytes		bytes;
	Datum		jsonb;
	bool		ok;
	bool		bad;
	const char *after;

	if (len == 0)
		return;
	query = &queries[(unsigned char) *data % lengthof(queries)];
	real = (IngestDocumentQuery) {query->rows, query->paths, lengthof(query->paths), query->max_depth};
	bytes.len = len - 1;
	bytes.data = fuzz_copy(data + 1, bytes.len);
	ok = ingest_document_read(&real, bytes.data, bytes.len, &document, &err);
	if (!ok)
		check_error(&err, bytes.len);

	after = bytes.data;
	for (int i = 0; ok && i < document.nrows; i++)
	{
		const IngestDocumentRow *row = &document.rows[i];

		if (row->data < after || row->len > bytes.data + bytes.len - row->data)
			fuzz_finding("row %d is not behind the one before, or not within the document", i);
		after = row->data + row->len;
	}

	if (bytes.len >= 3 && memcmp(bytes.data, "\xef\xbb\xbf", 3) == 0)
	{
		bytes.data += 3;
		bytes.len -= 3;
	}
	bad = raises(parse_as_json, &bytes, &jsonb);
	if (ok && bad)
		fuzz_finding("a document is accepted that the server refuses");
	if (!ok && !bad && !may_refuse(&err))
		fuzz_finding("a document is refused that the server accepts: %s", err.message);
	if (ok && !raises(parse_as_jsonb, &bytes, &jsonb))
	{
		if (query->rows)
			check_rows(query, DatumGetJsonbP(jsonb), &document);
		for (int i = 0; i < lengthof(query->paths); i++)
			if (query->path_steps[i])
				check_value(query->path_steps[i], DatumGetJsonbP(jsonb), &document.values[i]);
	}
	free(unconstify(char *, bytes.data) - (bytes.len == len - 1 ? 0 : 3));
}

/*
 * ---- Records
 */

static const IngestRecordsOptions kinds[] = {
	{.kind = INGEST_RECORDS_LINES, .max_record = 1000000},
	{.kind = INGEST_RECORDS_LINES, .max_record = 10},
	{.kind = INGEST_RECORDS_CSV, .quote = '"', .max_record = 1000000},
	{.kind = INGEST_RECORDS_CSV, .quote = '"', .max_record = 1000000, .header = true},
	{.kind = INGEST_RECORDS_CSV, .quote = '\'', .escape = '\\', .max_record = 20, .header = true},
	{.kind = INGEST_RECORDS_XML, .element = "a", .max_record = 1000000, .max_depth = 64},
	{.kind = INGEST_RECORDS_XML, .element = "item", .max_record = 100, .max_depth = 4},
};

/* Where another one can go on: behind a record, or behind what is done with. */
typedef struct Stop
{
	Size		byte;
	int			n;				/* records up to there */
	int			at;				/* where they end in "records" */
	StringInfoData header;
	bool		has_header;
} Stop;

/* Records as they come, and how it ends. */
typedef struct Cut
{
	StringInfoData records;		/* length and bytes of each */
	Stop	   *stops;
	int			nstops;
	int			n;
	bool		bad;
	bool		limited;		/* bad for a limit */
} Cut;

/* The next piece is so much longer; a small generator, that an input has the same each time. */
static Size
next_piece(uint32 *state, int mode)
{
	if (mode <= 1)
		return 1;
	*state = *state * 1664525 + 1013904223;
	return 1 + (*state >> 16) % mode;
}

static void
add_stop(Cut *cut, const IngestRecords *r, Size byte)
{
	Stop	   *stop = &cut->stops[cut->nstops++];
	Size		header_len;
	const char *header = ingest_records_header(r, &header_len);

	stop->byte = byte;
	stop->n = cut->n;
	stop->at = cut->records.len;
	initStringInfo(&stop->header);
	stop->has_header = header != NULL;
	if (header)
		appendBinaryStringInfo(&stop->header, header, header_len);
}

/* mode 0: all at once. */
static void
cut_body(IngestRecords *r, const char *header, Size header_len, const char *body, Size len, int mode,
		 Cut *cut)
{
	Size		begin = 0;
	Size		given = mode == 0 ? len : 0;
	uint32		state = mode;

	memset(cut, 0, sizeof(*cut));
	initStringInfo(&cut->records);
	cut->stops = palloc(sizeof(Stop) * (len + 1));
	ingest_records_begin(r, header, header_len);
	for (;;)
	{
		/* In a block of its own, so that nothing is looked at behind it. */
		char	   *piece = fuzz_copy(body + begin, given - begin);
		const char *record = NULL;
		Size		record_len = 0;
		Size		consumed = 0;
		IngestRowError err = {0};
		IngestRecordsNext next = ingest_records_next(r, piece, given - begin, given == len, &consumed,
													 &record, &record_len, &err);

		if (consumed > given - begin)
			fuzz_finding("more is consumed than there is");
		if (next == INGEST_RECORDS_RECORD)
		{
			if (consumed == 0)
				fuzz_finding("a record is of no bytes");
			appendStringInfo(&cut->records, "%d:", (int) record_len);
			appendBinaryStringInfo(&cut->records, record, record_len);
			cut->n++;
		}
		if (next == INGEST_RECORDS_BAD)
			check_error(&err, given - begin);
		free(piece);
		begin += consumed;
		if (consumed > 0 && next != INGEST_RECORDS_BAD)
			add_stop(cut, r, begin);
		if (next == INGEST_RECORDS_MORE)
		{
			if (given == len)
				fuzz_finding("more is asked for than there is");
			given += next_piece(&state, mode);
			given = Min(given, len);
		}
		else if (next == INGEST_RECORDS_BAD)
		{
			cut->bad = true;
			cut->limited = err.sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
			return;
		}
		else if (next == INGEST_RECORDS_END)
		{
			if (begin != len || given != len)
				fuzz_finding("it ends before the end");
			return;
		}
	}
}

static void
check_same(const Cut *a, const char *rest, Size rest_len, int n, const Cut *b, const char *what)
{
	if (b->n != n || b->bad != a->bad || b->records.len != rest_len ||
		memcmp(b->records.data, rest, rest_len) != 0)
		fuzz_finding("%s: %d records (%s) instead of %d (%s): %s instead of %.*s", what,
					 b->n, b->bad ? "bad" : "end", n, a->bad ? "bad" : "end", b->records.data,
					 (int) rest_len, rest);
}

/* ---- what is right ---- */

static void
check_record(const Cut *cut, const char **p, int *n, const char *expected, Size len)
{
	Size		record_len;
	char	   *after;

	if (*n == cut->n)
	{
		if (!cut->bad)
			fuzz_finding("record %d is missing: %.*s", *n, (int) len, expected);
		return;
	}
	record_len = strtoul(*p, &after, 10);
	after++;
	if (record_len != len || memcmp(after, expected, len) != 0)
		fuzz_finding("record %d is %.*s instead of %.*s", *n, (int) record_len, after, (int) len, expected);
	*p = after + record_len;
	(*n)++;
}

static bool
has_mark(const char *p, Size len)
{
	return len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0;
}

static int
check_lines(const Cut *cut, const char *data, Size len)
{
	const char *p = cut->records.data;
	int			n = 0;

	for (Size begin = 0; begin < len;)
	{
		Size		end = begin;
		Size		stop;

		while (end < len && data[end] != '\n')
			end++;
		stop = end > begin && data[end - 1] == '\r' ? end - 1 : end;
		if (has_mark(data + begin, stop - begin))
			begin += 3;
		if (stop > begin)
			check_record(cut, &p, &n, data + begin, stop - begin);
		begin = end + 1;
	}
	return n;
}

/* As the layout of the format's options is its own, they are given as text. */
static int
check_csv(const IngestRecordsOptions *kind, const Cut *cut, const char *data, Size len)
{
	const IngestFormatOps *csv = ingest_format_get("csv");
	char	   *options = palloc0(csv->options_size);
	const char *p = cut->records.data;
	const char *header = NULL;
	Size		header_len = 0;
	IngestRow	row = {0};
	void	   *decoder;
	int			n = 0;
	char	   *text = psprintf("{\"quote\": \"%s%c\"%s}", kind->quote == '"' ? "\\" : "", kind->quote,
								kind->escape ? ", \"escape\": \"\\\\\"" : "");

	/* A delimiter that is no other: fields are no business of records. */
	ingest_option_parse(csv->options, ingest_option_from_jsonb(
		DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)))), options);
	decoder = csv->start(NULL, 0, options);
	csv->begin(decoder, data, len);
	while (csv->next(decoder, &row) == INGEST_NEXT_ROW)
	{
		/* A mark within the body is cut where a record would begin with it. */
		if (header == NULL && has_mark(row.slice, row.slice_len))
		{
			row.slice += 3;
			row.slice_len -= 3;
			if (row.slice_len == 0)
				continue;
		}
		if (kind->header && header == NULL)
		{
			header = row.slice;
			header_len = row.slice_len;
		}
		else if (header)
		{
			char	   *both = palloc(header_len + 1 + row.slice_len);

			memcpy(both, header, header_len);
			both[header_len] = '\n';
			memcpy(both + header_len + 1, row.slice, row.slice_len);
			check_record(cut, &p, &n, both, header_len + 1 + row.slice_len);
		}
		else
			check_record(cut, &p, &n, row.slice, row.slice_len);
	}
	/* Quotes that do not end: nothing is known of it. */
	return cut->bad ? cut->n : n;
}

static bool
same_text(const xmlChar *a, const xmlChar *b)
{
	return xmlStrEqual(a ? a : (const xmlChar *) "", b ? b : (const xmlChar *) "");
}

static bool
same_space(const xmlNs *a, const xmlNs *b)
{
	return same_text(a ? a->href : NULL, b ? b->href : NULL);
}

static bool
same_tree(const xmlNode *a, const xmlNode *b)
{
	for (; a && b; a = a->next, b = b->next)
	{
		const xmlAttr *x;
		const xmlAttr *y;

		if (a->type != b->type || !same_text(a->name, b->name))
			return false;
		if (a->type != XML_ELEMENT_NODE)
		{
			if (!same_text(a->content, b->content))
				return false;
			continue;
		}
		if (!same_space(a->ns, b->ns) || !same_tree(a->children, b->children))
			return false;
		for (x = a->properties, y = b->properties; x && y; x = x->next, y = y->next)
			if (!same_text(x->name, y->name) || !same_space(x->ns, y->ns) ||
				!same_tree(x->children, y->children))
				return false;
		if (x || y)
			return false;
	}
	return a == NULL && b == NULL;
}

static xmlDocPtr
read_xml(const char *data, Size len)
{
	return xmlReadMemory(data, len, NULL, "UTF-8", XML_PARSE_NONET | XML_PARSE_NOERROR |
						 XML_PARSE_NOWARNING | XML_PARSE_IGNORE_ENC | XML_PARSE_NOCDATA);
}

static void
check_row(const xmlNode *element, const char *record, Size len)
{
	xmlDocPtr	doc = read_xml(record, len);
	xmlNodePtr	root = doc ? xmlDocGetRootElement(doc) : NULL;
	xmlNode		alone = *element;
	bool		same;

	alone.next = NULL;
	same = root && same_tree(&alone, root);
	if (doc)
		xmlFreeDoc(doc);
	if (!same)
		fuzz_finding("a record is another element: %.*s", (int) len, record);
}

/* Elements of the name that are in none of it, in order. */
static int
check_xml(const IngestRecordsOptions *kind, const Cut *cut, const char *data, Size len)
{
	xmlDocPtr	doc;
	const xmlNode *node;
	const char *p = cut->records.data;
	int			n = 0;

	if (len == 0 || pg_encoding_verifymbstr(PG_UTF8, data, len) != len ||
		memmem(data, len, "<!DOCTYPE", 9) || (doc = read_xml(data, len)) == NULL)
		return cut->n;
	if (cut->bad && !cut->limited)
		fuzz_finding("XML is bad that libxml2 accepts");
	for (node = xmlDocGetRootElement(doc); node;)
	{
		const char *colon = strchr((const char *) node->name, ':');
		const char *local = colon && node->ns == NULL ? colon + 1 : (const char *) node->name;

		if (node->type == XML_ELEMENT_NODE && strcmp(local, kind->element) == 0)
		{
			char	   *after;
			Size		record_len;

			if (n == cut->n)
				break;
			record_len = strtoul(p, &after, 10);
			check_row(node, after + 1, record_len);
			p = after + 1 + record_len;
			n++;
		}
		else if (node->type == XML_ELEMENT_NODE && node->children)
		{
			node = node->children;
			continue;
		}
		while (node && node->next == NULL && node->parent != (xmlNode *) doc)
			node = node->parent;
		node = node->parent == (xmlNode *) doc ? NULL : node->next;
	}
	if (node && !cut->bad)
		fuzz_finding("an element is missing");
	xmlFreeDoc(doc);
	return n;
}

static void
check_right(const IngestRecordsOptions *kind, const Cut *cut, const char *data, Size len)
{
	int			n = kind->kind == INGEST_RECORDS_LINES ? check_lines(cut, data, len) :
		kind->kind == INGEST_RECORDS_CSV ? check_csv(kind, cut, data, len) :
		check_xml(kind, cut, data, len);

	if (n != cut->n)
		fuzz_finding("there are %d records instead of %d", cut->n, n);
}

static void
run_records(const char *data, Size len)
{
	const IngestRecordsOptions *kind;
	IngestRecords *r;
	int			mode;
	Cut			all;
	Cut			pieces;

	if (len < 2)
		return;
	kind = &kinds[(unsigned char) data[0] % lengthof(kinds)];
	mode = Max(1, (unsigned char) data[1] % 40);
	data += 2;
	len -= 2;
	r = ingest_records_create(kind);
	cut_body(r, NULL, 0, data, len, 0, &all);
	check_right(kind, &all, data, len);
	cut_body(r, NULL, 0, data, len, mode, &pieces);
	check_same(&all, all.records.data, all.records.len, all.n, &pieces, "in pieces");
	cut_body(r, NULL, 0, data, len, 1, &pieces);
	check_same(&all, all.records.data, all.records.len, all.n, &pieces, "byte by byte");
	for (int k = 0; k < pieces.nstops; k += Max(1, pieces.nstops / 8))
	{
		const Stop *stop = &pieces.stops[k];
		Cut			rest;

		cut_body(r, stop->has_header ? stop->header.data : NULL, stop->header.len, data + stop->byte,
				 len - stop->byte, k % 2 ? 0 : mode, &rest);
		check_same(&all, all.records.data + stop->at, all.records.len - stop->at, all.n - stop->n, &rest,
				   "gone on with");
	}
}

static void
start_nothing(void)
{
}

const FuzzTarget fuzz_document = {"document", start_nothing, run_document};
const FuzzTarget fuzz_records = {"records", start_nothing, run_records};
