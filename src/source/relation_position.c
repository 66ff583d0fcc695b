/*
 * relation_position.c
 *		How far a relation was read, as text: JSON that people can read, and
 *		write for ingest.seek().
 *
 * {"pass": 3, "rows": 1200, "after": ["2026-01-01 00:00:00+00", "17"],
 *  "until": ["2026-01-02 00:00:00+00", "93"], "running": "4/1283"}
 *
 * "from" instead of "after" says that the row itself is still to be read.  A part has
 * a "stop", the value of the first column before which it ends.
 *
 * The end of a pass is {"end": 4}: a position has reached it when so many passes
 * are done.
 */
#include "postgres.h"

#include "format/document.h"
#include "source/relation.h"
#include "utils/json.h"

/* Paths of the members: those by name, and the elements of two arrays. */
enum
{
	PATH_PASS, PATH_ROWS, PATH_RUNNING, PATH_END, PATH_STOP, PATH_AFTER,
	PATH_FROM = PATH_AFTER + INGEST_CURSOR_MAX,
	PATH_UNTIL = PATH_FROM + INGEST_CURSOR_MAX,
	PATH_COUNT = PATH_UNTIL + INGEST_CURSOR_MAX
};

/* ---- to text ---- */

static void
add_values(StringInfo into, const char *name, const IngestCursorValues *values)
{
	if (values->n == 0)
		return;
	appendStringInfo(into, ", \"%s\": [", name);
	for (int i = 0; i < values->n; i++)
	{
		if (i > 0)
			appendStringInfoString(into, ", ");
		escape_json(into, values->texts[i]);
	}
	appendStringInfoChar(into, ']');
}

char *
ingest_relation_position_text(const IngestRelationPosition *position)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "{\"pass\": " INT64_FORMAT ", \"rows\": " INT64_FORMAT,
					 position->pass, position->rows);
	add_values(&text, position->inclusive ? "from" : "after", &position->after);
	if (position->stop)
	{
		appendStringInfoString(&text, ", \"stop\": ");
		escape_json(&text, position->stop);
	}
	if (position->running)
	{
		add_values(&text, "until", &position->until);
		appendStringInfoString(&text, ", \"running\": ");
		escape_json(&text, position->running);
	}
	appendStringInfoChar(&text, '}');
	return text.data;
}

char *
ingest_relation_end_text(int64 pass)
{
	return psprintf("{\"end\": " INT64_FORMAT "}", pass);
}

/* ---- from text ---- */

static const char *const *
get_paths(void)
{
	static const char *paths[PATH_COUNT] = {"$.pass", "$.rows", "$.running", "$.end", "$.stop"};
	static char elements[PATH_COUNT][16];

	if (paths[PATH_AFTER] == NULL)
		for (int i = 0; i < INGEST_CURSOR_MAX; i++)
		{
			snprintf(elements[PATH_AFTER + i], sizeof(elements[0]), "$.after[%d]", i);
			snprintf(elements[PATH_UNTIL + i], sizeof(elements[0]), "$.until[%d]", i);
			snprintf(elements[PATH_FROM + i], sizeof(elements[0]), "$.from[%d]", i);
			paths[PATH_FROM + i] = elements[PATH_FROM + i];
			paths[PATH_AFTER + i] = elements[PATH_AFTER + i];
			paths[PATH_UNTIL + i] = elements[PATH_UNTIL + i];
		}
	return paths;
}

static bool
get_number(const IngestDocumentValue *value, int64 *number)
{
	char	   *end;

	*number = 0;
	if (value->text == NULL)
		return true;
	errno = 0;
	*number = strtoll(value->text, &end, 10);
	return errno == 0 && end != value->text && *end == '\0' && *number >= 0;
}

static void
get_values(const IngestDocumentValue *elements, IngestCursorValues *values)
{
	values->n = 0;
	while (values->n < INGEST_CURSOR_MAX && elements[values->n].text)
	{
		values->texts[values->n] = elements[values->n].text;
		values->n++;
	}
}

/* *end: the pass that an end waits for; -1 for a position. */
static bool
parse(const char *text, IngestRelationPosition *position, int64 *end)
{
	IngestDocumentQuery query = {
		.rows = "$", .paths = get_paths(), .npaths = PATH_COUNT, .max_depth = 3
	};
	IngestDocument document = {0};
	IngestRowError err;
	IngestDocumentValue *values;

	if (!ingest_document_read(&query, text, strlen(text), &document, &err) ||
		document.nrows != 1 || *document.rows[0].data != '{')
		return false;
	values = document.values;
	if (values[PATH_END].text)
		return get_number(&values[PATH_END], end);
	*end = -1;
	get_values(&values[PATH_AFTER], &position->after);
	if (position->after.n == 0)
	{
		get_values(&values[PATH_FROM], &position->after);
		position->inclusive = position->after.n > 0;
	}
	position->stop = values[PATH_STOP].text;
	get_values(&values[PATH_UNTIL], &position->until);
	position->running = values[PATH_RUNNING].text;
	return get_number(&values[PATH_PASS], &position->pass) &&
		get_number(&values[PATH_ROWS], &position->rows);
}

bool
ingest_relation_position_parse(const char *text, IngestRelationPosition *position)
{
	int64		end;

	memset(position, 0, sizeof(*position));
	return parse(text, position, &end) && end < 0;
}

bool
ingest_relation_check_position(const char *text)
{
	IngestRelationPosition position;

	return ingest_relation_position_parse(text, &position);
}

static bool
same_values(const IngestCursorValues *a, const IngestCursorValues *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
		if (strcmp(a->texts[i], b->texts[i]) != 0)
			return false;
	return true;
}

/* Rows between two positions as far as they were counted; 0 when an end is reached. */
int64
ingest_relation_distance(const char *from, const char *to)
{
	IngestRelationPosition a = {0};
	IngestRelationPosition b = {0};
	int64		end_a;
	int64		end_b;

	if (!parse(from, &a, &end_a) || !parse(to, &b, &end_b))
		return -1;
	if (end_a >= 0)
		return b.pass >= end_a ? 0 : -1;
	if (end_b >= 0)
		return a.pass >= end_b ? 0 : -1;
	if (same_values(&a.after, &b.after))
		return 0;
	return b.rows > a.rows && a.rows > 0 ? b.rows - a.rows : -1;
}
