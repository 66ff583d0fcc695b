/*
 * document.c
 *		Rows and single values out of a JSON document, in one go.
 *
 * The server's parser goes through the document and calls back at each member
 * and each element; here is noted which of them the paths lead to.  Keys and
 * strings are not unescaped by it, since nearly all are of no interest: a key is
 * looked at where it is written, and only on levels that a path can reach.
 *
 * The parser raises when the stack gets too deep, and before 16 an action cannot
 * stop it, so that the depth is counted before.
 */
#include "postgres.h"

#include "core/compat.h"
#include "format/document.h"
#include "format/json.h"
#include "format/path.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

/* A longer token is not repeated in an error. */
#define MAX_TOKEN 100

/* A path on its way through the document. */
typedef struct Matcher
{
	IngestPath	path;
	int			wanted;			/* steps that make it whole; one more for elements of an array */
	int			matched;		/* steps that lead to where the parser is */
	const char *begin;			/* of the value that the whole path led to, or NULL */
	const char *text;			/* a single value that was found, or NULL */
	Size		len;
} Matcher;

/* What was found before a value on the way to the rows was come to. */
typedef struct Mark
{
	int			nrows;
	bool		found;
} Mark;

typedef struct Reader
{
	JsonLexContext *lex;
	const char *end;
	Matcher    *rows;			/* or NULL */
	Matcher    *values;
	int			nvalues;
	int			deepest;		/* level up to which something can match */
	int		   *elements;		/* by level: elements that the array has had */
	Mark	   *marks;			/* by level */
	IngestDocument *document;
	int			max_rows;
	StringInfoData key;			/* unescaped */
} Reader;

/* Where the parser is: a member's key, or (key NULL) an element's index. */
typedef struct Place
{
	const char *key;
	int			len;
	int			index;
	const char *value;			/* its first byte */
} Place;

/*
 * ---- What is found
 */

static void
add_row(Reader *r, const char *data, Size len)
{
	IngestDocument *document = r->document;

	if (document->nrows == r->max_rows)
	{
		r->max_rows = r->max_rows ? r->max_rows * 2 : 64;
		document->rows = document->rows ?
			repalloc_huge(document->rows, sizeof(IngestDocumentRow) * r->max_rows) :
			palloc(sizeof(IngestDocumentRow) * r->max_rows);
	}
	document->rows[document->nrows++] = (IngestDocumentRow) {data, len};
	document->found = true;
}

static bool
is_empty_array(const Reader *r, const char *p)
{
	for (p++; p < r->end && strchr(" \t\r\n", *p); p++)
		 /* skip */ ;
	return p < r->end && *p == ']';
}

/* The path of the rows has come one step further, to level. */
static void
enter_rows(Reader *r, int level, const Place *place)
{
	Matcher    *m = r->rows;

	/* A key once more: the last one counts. */
	if (place->key)
	{
		r->document->nrows = r->marks[level - 1].nrows;
		r->document->found = r->marks[level - 1].found;
	}
	r->marks[level] = (Mark) {r->document->nrows, r->document->found};

	/* A path without [*] that leads to an array means its elements. */
	if (level == m->path.nsteps && !m->path.many && *place->value == '[')
		m->wanted++;

	if (level < m->wanted)
	{
		/* No rows are there for certain, rather than that nothing is. */
		if ((level == m->path.nsteps || m->path.steps[level].kind == INGEST_PATH_ALL) &&
			(*place->value == 'n' || (*place->value == '[' && is_empty_array(r, place->value))))
			r->document->found = true;
	}
	else if (level == m->path.nsteps && !m->path.many && *place->value == 'n')
		r->document->found = true;
	else
		m->begin = place->value;
}

static void
leave_rows(Reader *r, int level, const char *end)
{
	Matcher    *m = r->rows;

	if (m->begin && level == m->wanted)
	{
		add_row(r, m->begin, end - m->begin);
		m->begin = NULL;
	}
	if (level == m->path.nsteps)
		m->wanted = m->path.nsteps;
	m->matched = level - 1;
}

static void
enter_value(Matcher *m, int level, const Place *place)
{
	m->text = NULL;
	if (level == m->wanted)
		m->begin = place->value;
}

static void
leave_value(Matcher *m, int level, const char *end)
{
	if (m->begin && level == m->wanted)
	{
		m->text = m->begin;
		m->len = end - m->begin;
		m->begin = NULL;
	}
	m->matched = level - 1;
}

/*
 * ---- Where the parser is
 */

/* Does the path go on to this place?  It has led up to the level before. */
static bool
step_leads(const Matcher *m, int level, const Place *place)
{
	const IngestPathStep *step = &m->path.steps[level - 1];

	if (m->matched != level - 1 || level > m->wanted)
		return false;
	if (level > m->path.nsteps)
		return place->key == NULL;
	if (place->key)
		return step->kind == INGEST_PATH_KEY && step->len == place->len &&
			memcmp(step->key, place->key, place->len) == 0;
	return step->kind == INGEST_PATH_ALL ||
		(step->kind == INGEST_PATH_INDEX && step->index == place->index);
}

static void
enter(Reader *r, int level, const Place *place)
{
	for (int i = 0; i < r->nvalues; i++)
		if (step_leads(&r->values[i], level, place))
		{
			r->values[i].matched = level;
			enter_value(&r->values[i], level, place);
		}
	if (r->rows && step_leads(r->rows, level, place))
	{
		r->rows->matched = level;
		enter_rows(r, level, place);
	}
}

static void
leave(Reader *r)
{
	int			level = r->lex->lex_level;

	if (level > r->deepest)
		return;
	for (int i = 0; i < r->nvalues; i++)
		if (r->values[i].matched == level)
			leave_value(&r->values[i], level, r->lex->prev_token_terminator);
	if (r->rows && r->rows->matched == level)
		leave_rows(r, level, r->lex->prev_token_terminator);
}

static bool
any_wants(const Reader *r, int level)
{
	for (int i = 0; i < r->nvalues; i++)
		if (r->values[i].matched == level - 1)
			return true;
	return r->rows && r->rows->matched == level - 1;
}

/*
 * The key of the member whose value the parser is at: before it are the colon
 * and the key's closing quote.  A quote within the key has a backslash before
 * it, the opening one never has.
 */
static void
find_key(Reader *r, Place *place)
{
	const char *end = r->lex->prev_token_terminator;
	const char *begin;

	do
		end--;
	while (*end != '"');
	begin = end;
	do
		begin--;
	while (*begin != '"' || begin[-1] == '\\');
	place->key = begin + 1;
	place->len = end - begin - 1;
	if (memchr(place->key, '\\', place->len))
	{
		IngestRowError ignored;

		/* What cannot be unescaped is no key that a path has. */
		if (!ingest_json_unescape(begin, end + 1 - begin, &r->key, &ignored))
			resetStringInfo(&r->key);
		place->key = r->key.data;
		place->len = r->key.len;
	}
}

static ingest_compat_json_action
start_member(void *state, char *name, bool isnull)
{
	Reader	   *r = state;
	int			level = r->lex->lex_level;
	Place		place = {.value = r->lex->token_start};

	/* At the end of the document there is no token. */
	if (place.value && level <= r->deepest && any_wants(r, level))
	{
		find_key(r, &place);
		enter(r, level, &place);
	}
	ingest_compat_json_done;
}

static ingest_compat_json_action
end_member(void *state, char *name, bool isnull)
{
	leave(state);
	ingest_compat_json_done;
}

static ingest_compat_json_action
start_array(void *state)
{
	Reader	   *r = state;

	if (r->lex->lex_level < r->deepest)
		r->elements[r->lex->lex_level + 1] = 0;
	ingest_compat_json_done;
}

static ingest_compat_json_action
start_element(void *state, bool isnull)
{
	Reader	   *r = state;
	int			level = r->lex->lex_level;
	Place		place = {.value = r->lex->token_start};

	if (place.value && level <= r->deepest)
	{
		place.index = r->elements[level]++;
		enter(r, level, &place);
	}
	ingest_compat_json_done;
}

static ingest_compat_json_action
end_element(void *state, bool isnull)
{
	leave(state);
	ingest_compat_json_done;
}

/*
 * ---- Before the parser
 */

static bool
fail(IngestRowError *err, int sqlstate, const char *message, int64 position)
{
	err->sqlstate = sqlstate;
	err->message = message;
	err->detail = err->column = NULL;
	err->position = position;
	return false;
}

/*
 * Up to the first error of syntax this sees the same nesting as the parser, and
 * there the parser stops.
 */
static bool
check_depth(const char *data, Size len, int max_depth, IngestRowError *err)
{
	const char *end = data + len;
	int			depth = 0;

	for (const char *p = data; p < end; p++)
	{
		switch (*p)
		{
			case '"':
				for (p++; p < end && *p != '"'; p++)
					if (*p == '\\')
						p++;
				break;
			case '{':
			case '[':
				if (++depth > max_depth)
					return fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "JSON is nested too deeply",
								p - data);
				break;
			case '}':
			case ']':
				depth--;
				break;
			default:
				break;
		}
	}
	return true;
}

static bool
check_bytes(const char *data, Size len, int max_depth, IngestRowError *err)
{
	int			verified;

	/* The parser counts in int. */
	if (len > MaxAllocSize)
		return fail(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "JSON is too long", -1);
	verified = pg_encoding_verifymbstr(PG_UTF8, data, len);
	if (verified != len)
		return fail(err, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
					"invalid byte sequence for encoding \"UTF8\"", verified);
	return check_depth(data, len, max_depth, err);
}

/*
 * ---- The parser's errors
 */

static bool
fail_syntax(const Reader *r, const char *data, JsonParseErrorType error, IngestRowError *err)
{
	JsonLexContext *lex = r->lex;
	const char *at = lex->token_start ? lex->token_start : r->end;

	if (error == JSON_EXPECTED_MORE || at >= r->end ||
		(error == JSON_INVALID_TOKEN && *at == '"' && lex->token_terminator >= r->end))
		return fail(err, ERRCODE_INVALID_TEXT_REPRESENTATION, "JSON ends too early", r->end - data);
	fail(err, ERRCODE_INVALID_TEXT_REPRESENTATION, "invalid JSON", at - data);
	if (lex->token_terminator - at <= MAX_TOKEN)
		err->detail = json_errdetail(error, lex);
	return false;
}

/*
 * ---- The interface
 */

void
ingest_document_check_path(const char *option, const char *path, bool many)
{
	IngestPath	parsed;
	const char *why;

	if (!ingest_path_parse(path, many, &parsed, &why))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid path in option \"%s\": \"%s\"", option, path),
				 errdetail("%s", why),
				 many ? errhint("A path is written like $.items[*] or $.data.\"odd key\"[0].") :
				 errhint("A path is written like $.a.b[0] or $.\"odd key\".c.")));
}

static void
start_matcher(Matcher *m, const char *path, bool many)
{
	const char *why;

	/* They have been checked. */
	if (!ingest_path_parse(path, many, &m->path, &why))
		elog(ERROR, "invalid path \"%s\"", path);
	m->wanted = m->path.nsteps;
}

static void
start_matchers(Reader *r, const IngestDocumentQuery *query)
{
	if (query->rows)
	{
		r->rows = palloc0(sizeof(Matcher));
		start_matcher(r->rows, query->rows, true);
		r->deepest = r->rows->wanted + 1;
	}
	r->nvalues = query->npaths;
	r->values = palloc0(sizeof(Matcher) * Max(r->nvalues, 1));
	for (int i = 0; i < r->nvalues; i++)
	{
		/* Of no level, when nobody asks for it. */
		r->values[i].matched = -1;
		if (query->paths[i] == NULL)
			continue;
		r->values[i].matched = 0;
		start_matcher(&r->values[i], query->paths[i], false);
		r->deepest = Max(r->deepest, r->values[i].wanted);
	}
	r->elements = palloc0(sizeof(int) * (r->deepest + 1));
	r->marks = palloc0(sizeof(Mark) * (r->deepest + 1));
	initStringInfo(&r->key);
}

/* The document itself is what a path of no steps leads to. */
static void
enter_document(Reader *r, const char *data)
{
	Place		place = {.value = data};

	for (int i = 0; i < r->nvalues; i++)
		if (r->values[i].matched == 0)
			enter_value(&r->values[i], 0, &place);
	if (r->rows)
		enter_rows(r, 0, &place);
}

static void
leave_document(Reader *r, const char *end)
{
	for (int i = 0; i < r->nvalues; i++)
		if (r->values[i].matched == 0)
			leave_value(&r->values[i], 0, end);
	if (r->rows)
		leave_rows(r, 0, end);
}

static bool
fill_value(const Matcher *m, const char *data, IngestDocumentValue *value, IngestRowError *err)
{
	StringInfoData text;

	if (m->text == NULL)
		return true;
	value->kind = strchr("\"{[tfn", *m->text) ? *m->text : 0;
	if (value->kind != '"')
	{
		value->text = pnstrdup(m->text, m->len);
		return true;
	}
	initStringInfo(&text);
	if (!ingest_json_unescape(m->text, m->len, &text, err))
	{
		err->position += m->text - data;
		return false;
	}
	value->text = text.data;
	return true;
}

static bool
parse(Reader *r, const char *data, const char *begin, IngestRowError *err)
{
	JsonSemAction actions = {
		.semstate = r,
		.object_field_start = start_member,
		.object_field_end = end_member,
		.array_start = start_array,
		.array_element_start = start_element,
		.array_element_end = end_element
	};
	JsonParseErrorType error;

	r->lex = ingest_compat_json_lexer(begin, r->end - begin);
	enter_document(r, begin);
	error = pg_parse_json(r->lex, &actions);
	if (error != JSON_SUCCESS)
		return fail_syntax(r, data, error, err);
	leave_document(r, r->end);
	return true;
}

bool
ingest_document_read(const IngestDocumentQuery *query, const char *data, Size len,
					 IngestDocument *document, IngestRowError *err)
{
	Reader		r = {.document = document, .end = data + len};
	const char *begin = data;

	memset(document, 0, sizeof(*document));
	document->values = palloc0(sizeof(IngestDocumentValue) * Max(query->npaths, 1));
	if (!check_bytes(data, len, query->max_depth, err))
		return false;

	/* A byte order mark and space around the document are no part of it. */
	if (len >= 3 && memcmp(begin, "\xef\xbb\xbf", 3) == 0)
		begin += 3;
	while (begin < r.end && strchr(" \t\r\n", *begin))
		begin++;
	while (r.end > begin && strchr(" \t\r\n", r.end[-1]))
		r.end--;
	if (begin == r.end)
		return fail(err, ERRCODE_INVALID_TEXT_REPRESENTATION, "JSON ends too early", len);

	start_matchers(&r, query);
	if (!parse(&r, data, begin, err))
		return false;
	for (int i = 0; i < query->npaths; i++)
		if (!fill_value(&r.values[i], data, &document->values[i], err))
			return false;
	return true;
}
