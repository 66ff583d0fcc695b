/*
 * json.c
 *		JSON messages: one object, or an array of objects; or a line each (ndjson).
 *
 * A pull reader of our own: one pass over the bytes checks the syntax (RFC 8259,
 * strictly) and notes where the values of wanted keys are; only when the row
 * turned out whole are these converted (scalar.c).  Paths are compiled into a
 * tree of keys, so that all columns come out of the one pass; each node
 * remembers in which order the keys came last time and tries that first.
 */
#include "postgres.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "catalog/pg_type.h"
#include "core/compat.h"
#include "format/json.h"
#include "format/path.h"
#include "format/scalar.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

typedef struct JsonOptions
{
	int64		max_depth;
} JsonOptions;

static const IngestOptionDef json_options[] = {
	{"max_depth", INGEST_SCOPE_TABLE, INGEST_OPTION_INT, offsetof(JsonOptions, max_depth),
		.fallback = "64", .min = 1, .max = 1000,
	.help = "Deepest nesting of objects and arrays that is accepted."},
	INGEST_OPTION_END
};

/* Where a value was found. */
typedef struct JsonValue
{
	const char *text;			/* NULL: not found; of strings without quotes */
	int32		len;
	char		kind;			/* first byte: " { [ t f n, or 0 for a number */
	bool		escaped;		/* a string with backslashes */
} JsonValue;

/* A key the message was seen to have at some place, and the node it leads to. */
typedef struct JsonSeen
{
	char	   *key;
	int			len;
	int			capacity;
	struct JsonNode *node;		/* NULL: nobody wants it */
} JsonSeen;

/* A step of the paths. */
typedef struct JsonNode
{
	char	   *key;			/* of an object's member; NULL: an array's element */
	int			len;
	int			index;			/* of the element */
	struct JsonNode *children;	/* list */
	struct JsonNode *next;
	int		   *columns;		/* that want this very value */
	int			ncolumns;
	uint64		touched;		/* row it was last found in */
	JsonSeen   *seen;			/* keys in the order they came last */
	int			nseen;
	int			max_seen;
} JsonNode;

typedef struct JsonColumn
{
	IngestReader reader;
	AttrNumber	attnum;
	bool		verbatim;		/* json, jsonb: the value as it is written */
	bool		is_array;		/* of SQL: made from an array of JSON */
} JsonColumn;

typedef struct Json
{
	JsonNode	root;
	JsonColumn *columns;
	JsonValue  *values;
	int			ncolumns;
	int			max_depth;
	uint64		row;			/* counts rows, for "touched" */
	StringInfoData scratch;		/* unescaped text */

	/* the message */
	const char *start;
	const char *p;
	const char *end;			/* of the message, or of the line */
	const char *message_end;	/* lines only */
	bool		in_array;
	bool		done;
	const char *message;		/* first syntax error, or NULL */
	const char *at;
	int			sqlstate;
} Json;

/* Keys longer than this are looked up each time. */
#define MAX_SEEN_KEY 128
#define MAX_SEEN 256

/*
 * ---- Scanning
 */

static bool
fail_at(Json *j, const char *at, int sqlstate, const char *message)
{
	if (j->message == NULL)
	{
		j->message = message;
		j->at = at;
		j->sqlstate = sqlstate;
	}
	return false;
}

static bool
fail_syntax(Json *j, const char *at, const char *message)
{
	return fail_at(j, at, ERRCODE_INVALID_TEXT_REPRESENTATION,
				   at >= j->end ? "JSON ends too early" : message);
}

static inline void
skip_space(Json *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t'))
		j->p++;
}

/* The next quote, backslash, control character or byte above ASCII, or the end. */
static inline const char *
find_special(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"');
	const __m128i backslash = _mm_set1_epi8('\\');
	const __m128i space = _mm_set1_epi8(0x20);

	while (end - p >= 16)
	{
		__m128i		chunk = _mm_loadu_si128((const __m128i *) p);

		/* As signed bytes, those above ASCII are below the space too. */
		__m128i		hits = _mm_or_si128(_mm_cmplt_epi8(chunk, space),
										_mm_or_si128(_mm_cmpeq_epi8(chunk, quote),
													 _mm_cmpeq_epi8(chunk, backslash)));
		int			mask = _mm_movemask_epi8(hits);

		if (mask != 0)
			return p + __builtin_ctz(mask);
		p += 16;
	}
#endif
	while (p < end && *p != '"' && *p != '\\' && (signed char) *p >= 0x20)
		p++;
	return p;
}

static int
hex4(const char *p, const char *end)
{
	int			result = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char		c = p[i];

		result <<= 4;
		if (c >= '0' && c <= '9')
			result |= c - '0';
		else if (c >= 'a' && c <= 'f')
			result |= c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			result |= c - 'A' + 10;
		else
			return -1;
	}
	return result;
}

/* At a backslash: check what follows, and go behind it. */
static bool
scan_escape(Json *j)
{
	const char *at = j->p++;
	int			unit;

	if (j->p >= j->end)
		return fail_syntax(j, j->p, "");
	if (*j->p != 'u')
	{
		if (strchr("\"\\/bfnrt", *j->p) == NULL || *j->p == '\0')
			return fail_syntax(j, at, "invalid escape sequence");
		j->p++;
		return true;
	}
	unit = hex4(j->p + 1, j->end);
	if (unit < 0)
		return fail_syntax(j, at, "\"\\u\" must be followed by four hexadecimal digits");
	if (unit == 0)
		return fail_at(j, at, ERRCODE_UNTRANSLATABLE_CHARACTER, "\"\\u0000\" cannot be converted to text");
	j->p += 5;
	if (unit >= 0xDC00 && unit <= 0xDFFF)
		return fail_syntax(j, at, "lone low surrogate");
	if (unit >= 0xD800 && unit <= 0xDBFF)
	{
		int			low = j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u' ?
			hex4(j->p + 2, j->end) : -1;

		if (low < 0xDC00 || low > 0xDFFF)
			return fail_syntax(j, at, "lone high surrogate");
		j->p += 6;
	}
	return true;
}

/* At the opening quote: the text between the quotes. */
static bool
scan_string(Json *j, JsonValue *value)
{
	const char *first = ++j->p;
	bool		high = false;

	value->kind = '"';
	value->escaped = false;
	for (;;)
	{
		j->p = find_special(j->p, j->end);
		if (j->p >= j->end)
			return fail_syntax(j, j->end, "");
		if (*j->p == '"')
			break;
		if (*j->p == '\\')
		{
			value->escaped = true;
			if (!scan_escape(j))
				return false;
		}
		else if ((unsigned char) *j->p >= 0x80)
		{
			high = true;
			j->p++;
		}
		else
			return fail_syntax(j, j->p, "control character in a string");
	}
	value->text = first;
	value->len = j->p++ - first;
	if (high && pg_encoding_verifymbstr(PG_UTF8, first, value->len) != value->len)
		return fail_at(j, first + pg_encoding_verifymbstr(PG_UTF8, first, value->len),
					   ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
					   "invalid byte sequence for encoding \"UTF8\"");
	return true;
}

static inline bool
is_digit(const Json *j, const char *p)
{
	return p < j->end && (unsigned char) (*p - '0') <= 9;
}

static bool
scan_number(Json *j, JsonValue *value)
{
	const char *p = j->p;

	value->kind = 0;
	value->escaped = false;
	value->text = p;
	if (*p == '-')
		p++;
	if (!is_digit(j, p))
		return fail_syntax(j, p, "invalid token");
	if (*p == '0')
		p++;
	else
		while (is_digit(j, p))
			p++;
	if (is_digit(j, p))
		return fail_syntax(j, p, "a number must not begin with a zero");
	if (p < j->end && *p == '.')
	{
		if (!is_digit(j, ++p))
			return fail_syntax(j, p, "invalid number");
		while (is_digit(j, p))
			p++;
	}
	if (p < j->end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < j->end && (*p == '+' || *p == '-'))
			p++;
		if (!is_digit(j, p))
			return fail_syntax(j, p, "invalid number");
		while (is_digit(j, p))
			p++;
	}
	value->len = p - value->text;
	j->p = p;
	return true;
}

static bool
scan_word(Json *j, const char *word, int len, JsonValue *value)
{
	if (j->end - j->p < len || memcmp(j->p, word, len) != 0)
		return fail_syntax(j, j->p, "invalid token");
	value->kind = *word;
	value->escaped = false;
	value->text = j->p;
	value->len = len;
	j->p += len;
	return true;
}

static bool scan_value(Json *j, JsonNode *node, int depth);

/*
 * ---- The tree of wanted keys
 */

static JsonNode *
find_child(JsonNode *node, const char *key, int len)
{
	for (JsonNode *child = node->children; child; child = child->next)
		if (child->key && child->len == len && memcmp(child->key, key, len) == 0)
			return child;
	return NULL;
}

static JsonNode *
find_element(JsonNode *node, int index)
{
	for (JsonNode *child = node ? node->children : NULL; child; child = child->next)
		if (child->key == NULL && child->index == index)
			return child;
	return NULL;
}

/* Remember what came at this place. */
static void
learn_key(JsonNode *node, int place, const char *key, int len, JsonNode *child)
{
	JsonSeen   *seen;
	MemoryContext old;

	if (len > MAX_SEEN_KEY || place >= MAX_SEEN)
		return;
	old = MemoryContextSwitchTo(GetMemoryChunkContext(node->seen));
	if (place >= node->max_seen)
	{
		int			max = node->max_seen * 2;

		node->seen = repalloc(node->seen, max * sizeof(JsonSeen));
		memset(node->seen + node->max_seen, 0, (max - node->max_seen) * sizeof(JsonSeen));
		node->max_seen = max;
	}
	seen = &node->seen[place];
	if (seen->key == NULL || len > seen->capacity)
	{
		if (seen->key)
			pfree(seen->key);
		seen->key = palloc(len);
		seen->capacity = len;
	}
	memcpy(seen->key, key, len);
	seen->len = len;
	seen->node = child;
	node->nseen = Max(node->nseen, place + 1);
	MemoryContextSwitchTo(old);
}

/* Forget what an earlier member of the same name brought: the last one wins. */
static void
clear_node(Json *j, JsonNode *node)
{
	for (int i = 0; i < node->ncolumns; i++)
		j->values[node->columns[i]].text = NULL;
	for (JsonNode *child = node->children; child; child = child->next)
		if (child->touched == j->row)
		{
			child->touched = 0;
			clear_node(j, child);
		}
}

static void unescape(Json *j, const char *text, int len);

/* The key that came here last time, at its opening quote: no need to look at it again. */
static inline bool
skip_known_key(Json *j, const JsonNode *node, int place, JsonNode **child)
{
	const JsonSeen *seen;

	if (place >= node->nseen)
		return false;
	seen = &node->seen[place];
	if (seen->key == NULL || j->end - j->p < seen->len + 2 || *j->p != '"' ||
		j->p[seen->len + 1] != '"' || memcmp(j->p + 1, seen->key, seen->len) != 0)
		return false;
	*child = seen->node;
	j->p += seen->len + 2;
	return true;
}

static bool
scan_key(Json *j, JsonNode *node, int place, JsonNode **child)
{
	JsonValue	key;

	if (j->p >= j->end || *j->p != '"')
		return fail_syntax(j, j->p, "expected a key in double quotes");
	if (!scan_string(j, &key))
		return false;
	if (node == NULL || node->children == NULL)
		return true;
	if (key.escaped)
	{
		unescape(j, key.text, key.len);
		*child = find_child(node, j->scratch.data, j->scratch.len);
	}
	else
	{
		*child = find_child(node, key.text, key.len);
		learn_key(node, place, key.text, key.len, *child);
	}
	return true;
}

static bool
scan_member(Json *j, JsonNode *node, int place, int depth)
{
	JsonNode   *child = NULL;

	if ((node == NULL || !skip_known_key(j, node, place, &child)) &&
		!scan_key(j, node, place, &child))
		return false;
	skip_space(j);
	if (j->p >= j->end || *j->p != ':')
		return fail_syntax(j, j->p, "expected \":\"");
	j->p++;
	skip_space(j);
	return scan_value(j, child, depth);
}

/* At the brace. */
static bool
scan_object(Json *j, JsonNode *node, int depth)
{
	int			place = 0;

	if (depth > j->max_depth)
		return fail_at(j, j->p, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "JSON is nested too deeply");
	j->p++;
	skip_space(j);
	if (j->p < j->end && *j->p == '}')
	{
		j->p++;
		return true;
	}
	for (;; place++)
	{
		if (!scan_member(j, node, place, depth))
			return false;
		skip_space(j);
		if (j->p < j->end && *j->p == ',')
		{
			j->p++;
			skip_space(j);
			continue;
		}
		if (j->p >= j->end || *j->p != '}')
			return fail_syntax(j, j->p, "expected \",\" or \"}\"");
		j->p++;
		return true;
	}
}

/* At the bracket. */
static bool
scan_array(Json *j, JsonNode *node, int depth)
{
	int			index = 0;

	if (depth > j->max_depth)
		return fail_at(j, j->p, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "JSON is nested too deeply");
	j->p++;
	skip_space(j);
	if (j->p < j->end && *j->p == ']')
	{
		j->p++;
		return true;
	}
	for (;; index++)
	{
		if (!scan_value(j, find_element(node, index), depth))
			return false;
		skip_space(j);
		if (j->p < j->end && *j->p == ',')
		{
			j->p++;
			skip_space(j);
			continue;
		}
		if (j->p >= j->end || *j->p != ']')
			return fail_syntax(j, j->p, "expected \",\" or \"]\"");
		j->p++;
		return true;
	}
}

/* node is NULL when nobody wants the value. */
static bool
scan_value(Json *j, JsonNode *node, int depth)
{
	const char *first = j->p;
	JsonValue	value;
	bool		ok;

	if (j->p >= j->end)
		return fail_syntax(j, j->p, "");
	if (node)
	{
		if (node->touched == j->row)
			clear_node(j, node);
		node->touched = j->row;
	}
	switch (*j->p)
	{
		case '"':
			ok = scan_string(j, &value);
			break;
		case '{':
			ok = scan_object(j, node, depth + 1);
			value.kind = '{';
			break;
		case '[':
			ok = scan_array(j, node, depth + 1);
			value.kind = '[';
			break;
		case 't':
			ok = scan_word(j, "true", 4, &value);
			break;
		case 'f':
			ok = scan_word(j, "false", 5, &value);
			break;
		case 'n':
			ok = scan_word(j, "null", 4, &value);
			break;
		default:
			ok = scan_number(j, &value);
			break;
	}
	if (!ok || node == NULL || node->ncolumns == 0)
		return ok;
	if (value.kind == '{' || value.kind == '[')
	{
		value.text = first;
		value.len = j->p - first;
		value.escaped = false;
	}
	for (int i = 0; i < node->ncolumns; i++)
		j->values[node->columns[i]] = value;
	return true;
}

/*
 * ---- Conversion
 */

/* Into scratch; the escapes have been checked. */
static void
unescape(Json *j, const char *text, int len)
{
	const char *end = text + len;

	resetStringInfo(&j->scratch);
	while (text < end)
	{
		const char *backslash = memchr(text, '\\', end - text);
		pg_wchar	c;
		unsigned char utf8[4];

		if (backslash == NULL)
			backslash = end;
		appendBinaryStringInfo(&j->scratch, text, backslash - text);
		if (backslash == end)
			break;
		text = backslash + 2;
		switch (backslash[1])
		{
			case 'b':
				appendStringInfoChar(&j->scratch, '\b');
				break;
			case 'f':
				appendStringInfoChar(&j->scratch, '\f');
				break;
			case 'n':
				appendStringInfoChar(&j->scratch, '\n');
				break;
			case 'r':
				appendStringInfoChar(&j->scratch, '\r');
				break;
			case 't':
				appendStringInfoChar(&j->scratch, '\t');
				break;
			case 'u':
				c = hex4(text, end);
				text += 4;
				if (c >= 0xD800 && c <= 0xDBFF)
				{
					c = 0x10000 + ((c & 0x3FF) << 10) + (hex4(text + 2, end) & 0x3FF);
					text += 6;
				}
				unicode_to_utf8(c, utf8);
				appendBinaryStringInfo(&j->scratch, (char *) utf8, pg_utf_mblen(utf8));
				break;
			default:
				appendStringInfoChar(&j->scratch, backslash[1]);
				break;
		}
	}
}

bool
ingest_json_unescape(const char *string, Size len, StringInfo out, IngestRowError *err)
{
	Json		j = {.start = string, .p = string, .end = string + len, .scratch = *out};
	JsonValue	value;

	if (!scan_string(&j, &value))
	{
		err->sqlstate = j.sqlstate;
		err->message = j.message;
		err->detail = err->column = NULL;
		err->position = j.at - string;
		return false;
	}
	unescape(&j, value.text, value.len);
	*out = j.scratch;
	return true;
}

/*
 * An SQL array's text from an array of JSON, at j->p; the syntax has been
 * checked.  Nested arrays are further dimensions, objects stay as they are
 * written.
 */
static void
append_array(Json *j, StringInfo out)
{
	JsonValue	value;

	appendStringInfoChar(out, '{');
	j->p++;
	for (skip_space(j); *j->p != ']'; skip_space(j))
	{
		const char *first = j->p;

		switch (*j->p)
		{
			case ',':
				appendStringInfoChar(out, ',');
				j->p++;
				break;
			case '[':
				append_array(j, out);
				break;
			case '"':
				(void) scan_string(j, &value);
				if (value.escaped)
					unescape(j, value.text, value.len);
				ingest_append_array_element(out, value.escaped ? j->scratch.data : value.text,
											value.escaped ? j->scratch.len : value.len);
				break;
			case 'n':
				appendStringInfoString(out, "NULL");
				j->p += 4;
				break;
			default:
				(void) scan_value(j, NULL, 0);
				ingest_append_array_element(out, first, j->p - first);
				break;
		}
	}
	j->p++;
	appendStringInfoChar(out, '}');
}

static bool
convert_value(Json *j, JsonColumn *column, const JsonValue *value, Datum *datum,
			  IngestRowError *err)
{
	const char *text = value->text;
	int			len = value->len;

	if (column->verbatim)
	{
		/* With its quotes, if it has any. */
		if (value->kind == '"')
		{
			text--;
			len += 2;
		}
		return column->reader.read(&column->reader, text, len, datum, err);
	}
	if (column->is_array && value->kind == '[')
	{
		StringInfoData literal;
		const char *after;

		initStringInfo(&literal);
		after = j->p;
		j->p = text;
		append_array(j, &literal);
		j->p = after;
		return column->reader.read(&column->reader, literal.data, literal.len, datum, err);
	}
	if (value->escaped)
	{
		unescape(j, text, len);
		text = j->scratch.data;
		len = j->scratch.len;
	}
	return column->reader.read(&column->reader, text, len, datum, err);
}

static bool
convert_row(Json *j, IngestRow *row)
{
	for (int i = 0; i < j->ncolumns; i++)
	{
		JsonColumn *column = &j->columns[i];
		JsonValue  *value = &j->values[i];
		int			at = column->attnum - 1;

		/* JSON's null is SQL's, also in a column of json. */
		if (value->text == NULL || value->kind == 'n')
		{
			row->isnull[at] = true;
			row->values[at] = (Datum) 0;
			continue;
		}
		row->isnull[at] = false;
		if (!convert_value(j, column, value, &row->values[at], &row->error))
		{
			row->error.position = value->text - j->start;
			return false;
		}
	}
	return true;
}

/*
 * ---- The interface
 */

static IngestNext
answer_syntax(Json *j, IngestRow *row)
{
	row->slice = j->start;
	row->slice_len = j->end - j->start;
	row->error.sqlstate = j->sqlstate;
	row->error.message = j->message;
	row->error.detail = NULL;
	row->error.column = NULL;
	row->error.position = j->at - j->start;
	j->done = true;
	return INGEST_NEXT_BAD;
}

static void
forget_values(Json *j)
{
	j->row++;
	for (int i = 0; i < j->ncolumns; i++)
		j->values[i].text = NULL;
}

/* One object of the message, at j->p. */
static bool
scan_row(Json *j, IngestRow *row)
{
	forget_values(j);
	row->slice = j->p;
	if (j->p >= j->end || *j->p != '{')
		return fail_syntax(j, j->p, "expected an object");
	if (!scan_object(j, &j->root, j->in_array ? 2 : 1))
		return false;
	row->slice_len = j->p - row->slice;

	/* Columns at $ are the object as it is written. */
	for (int i = 0; i < j->root.ncolumns; i++)
		j->values[j->root.columns[i]] = (JsonValue)
		{
			.text = row->slice, .len = row->slice_len, .kind = '{'
		};
	skip_space(j);
	return true;
}

/* Is the whole array well-formed, and made of objects? */
static bool
check_array(Json *j)
{
	const char *first = j->p;
	bool		ok = scan_array(j, NULL, 1);

	if (ok)
	{
		skip_space(j);
		if (j->p < j->end)
			ok = fail_syntax(j, j->p, "trailing bytes after the value");
	}
	j->p = first + 1;
	skip_space(j);
	return ok;
}

static void
json_begin(void *fmt, const char *payload, Size len)
{
	Json	   *j = fmt;

	j->start = j->p = payload;
	j->end = payload + len;
	j->message = NULL;
	j->done = false;
	skip_space(j);
	j->in_array = j->p < j->end && *j->p == '[';
	if (j->in_array)
		(void) check_array(j);
}

static IngestNext
next_of_array(Json *j, IngestRow *row)
{
	if (*j->p == ']')
	{
		j->done = true;
		return INGEST_NEXT_NONE;
	}
	if (*j->p != '{')
	{
		/* Well-formed, but no object: this element alone is bad. */
		const char *first = j->p;

		(void) scan_value(j, NULL, 1);
		row->slice = first;
		row->slice_len = j->p - first;
		row->error.sqlstate = ERRCODE_INVALID_TEXT_REPRESENTATION;
		row->error.message = "expected an object";
		row->error.detail = row->error.column = NULL;
		row->error.position = first - j->start;
		skip_space(j);
		if (*j->p == ',')
			j->p++;
		skip_space(j);
		return INGEST_NEXT_BAD;
	}
	(void) scan_row(j, row);
	if (*j->p == ',')
		j->p++;
	skip_space(j);
	return INGEST_NEXT_ROW;
}

static IngestNext
json_next(void *fmt, IngestRow *row)
{
	Json	   *j = fmt;
	IngestNext	result = INGEST_NEXT_ROW;

	if (j->done)
		return INGEST_NEXT_NONE;
	if (j->message)
		return answer_syntax(j, row);
	if (j->in_array)
		result = next_of_array(j, row);
	else
	{
		if (!scan_row(j, row))
			return answer_syntax(j, row);
		if (j->p < j->end)
		{
			fail_syntax(j, j->p, "trailing bytes after the value");
			return answer_syntax(j, row);
		}
		j->done = true;
	}
	if (result == INGEST_NEXT_ROW && row->values && !convert_row(j, row))
		result = INGEST_NEXT_BAD;
	return result;
}

/*
 * ---- Lines
 */

static void
ndjson_begin(void *fmt, const char *payload, Size len)
{
	Json	   *j = fmt;

	j->start = j->end = payload;
	j->message_end = payload + len;
	j->in_array = false;
}

/* Turn to the next line that is not blank; false: there is none. */
static bool
next_line(Json *j)
{
	while (j->end < j->message_end)
	{
		const char *lf;

		j->p = j->end;
		lf = memchr(j->p, '\n', j->message_end - j->p);
		j->end = lf ? lf : j->message_end;
		skip_space(j);
		if (j->p < j->end)
			return true;
		if (lf)
			j->end++;
	}
	return false;
}

static IngestNext
ndjson_next(void *fmt, IngestRow *row)
{
	Json	   *j = fmt;
	const char *first;
	IngestNext	result = INGEST_NEXT_ROW;

	/* An error is of its line, and gone with it. */
	j->message = NULL;
	if (!next_line(j))
		return INGEST_NEXT_NONE;
	first = j->p;
	if (scan_row(j, row) && j->p < j->end)
		fail_syntax(j, j->p, "trailing bytes after the value");
	if (j->message)
	{
		(void) answer_syntax(j, row);
		row->slice = first;
		row->slice_len = j->end - first;
		result = INGEST_NEXT_BAD;
	}
	else if (row->values && !convert_row(j, row))
		result = INGEST_NEXT_BAD;
	if (j->end < j->message_end)
		j->end++;
	return result;
}

/*
 * ---- Paths
 */

pg_noreturn static void
raise_path(const IngestColumn *column, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid path of column \"%s\": \"%s\"", column->name, column->path),
			 errdetail("%s", why),
			 errhint("A path is written like $.a.b[0] or $.\"odd key\".c.")));
	pg_unreachable();
}

static JsonNode *
add_child(JsonNode *node, const char *key, int len, int index)
{
	JsonNode   *child = key ? find_child(node, key, len) : find_element(node, index);

	if (child)
		return child;
	child = palloc0(sizeof(JsonNode));
	child->key = key ? pnstrdup(key, len) : NULL;
	child->len = len;
	child->index = index;
	child->max_seen = 8;
	child->seen = palloc0(sizeof(JsonSeen) * child->max_seen);
	child->next = node->children;
	node->children = child;
	return child;
}

static JsonNode *
compile_path(JsonNode *root, const IngestColumn *column)
{
	JsonNode   *node = root;
	IngestPath	path;
	const char *why;

	if (column->path == NULL)
		return add_child(root, column->name, strlen(column->name), 0);
	if (!ingest_path_parse(column->path, false, &path, &why))
		raise_path(column, why);
	for (int i = 0; i < path.nsteps; i++)
		node = add_child(node, path.steps[i].key, path.steps[i].len, path.steps[i].index);
	return node;
}

static void
add_column(JsonNode *root, const IngestColumn *column, int index)
{
	JsonNode   *node = compile_path(root, column);

	node->columns = node->columns ?
		repalloc(node->columns, sizeof(int) * (node->ncolumns + 1)) : palloc(sizeof(int));
	node->columns[node->ncolumns++] = index;
}

static void
check_columns(const char *format, const IngestColumn *columns, int ncolumns)
{
	JsonNode	root = {0};

	ingest_format_check_encoding(format);
	for (int i = 0; i < ncolumns; i++)
		add_column(&root, &columns[i], i);
}

static void
json_check(const IngestColumn *columns, int ncolumns, const void *options)
{
	check_columns("json", columns, ncolumns);
}

static void
ndjson_check(const IngestColumn *columns, int ncolumns, const void *options)
{
	check_columns("ndjson", columns, ncolumns);
}

static void *
json_start(const IngestColumn *columns, int ncolumns, const void *options)
{
	Json	   *j = palloc0(sizeof(Json));

	j->max_depth = ((const JsonOptions *) options)->max_depth;
	j->ncolumns = ncolumns;
	j->columns = palloc0(sizeof(JsonColumn) * Max(ncolumns, 1));
	j->values = palloc0(sizeof(JsonValue) * Max(ncolumns, 1));
	j->root.max_seen = 8;
	j->root.seen = palloc0(sizeof(JsonSeen) * j->root.max_seen);
	initStringInfo(&j->scratch);
	for (int i = 0; i < ncolumns; i++)
	{
		Oid			base = getBaseType(columns[i].typid);

		ingest_reader_init(&j->columns[i].reader, &columns[i]);
		j->columns[i].attnum = columns[i].attnum;
		j->columns[i].verbatim = base == JSONOID || base == JSONBOID;
		j->columns[i].is_array = OidIsValid(get_element_type(base));
		add_column(&j->root, &columns[i], i);
	}
	return j;
}

const IngestFormatOps ingest_format_json = {
	.name = "json",
	.description = "One JSON object a message, or an array of objects",
	.options = json_options,
	.options_size = sizeof(JsonOptions),
	.check = json_check,
	.start = json_start,
	.begin = json_begin,
	.next = json_next,
};

const IngestFormatOps ingest_format_ndjson = {
	.name = "ndjson",
	.description = "One JSON object a line",
	.options = json_options,
	.options_size = sizeof(JsonOptions),
	.check = ndjson_check,
	.start = json_start,
	.begin = ndjson_begin,
	.next = ndjson_next,
};
