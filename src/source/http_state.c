/*
 * http_state.c
 *		How far a shard of an HTTP source has read, as text and back.
 *
 * The position is for people as well: where the crawl under way is, and the
 * mark.  The proof holds what makes reading on exact: hashes of rows that may
 * be delivered again, validators.  Both are JSON, members in a fixed order, so
 * that equal states are equal texts.  Pure.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "format/document.h"
#include "lib/stringinfo.h"
#include "source/http.h"
#include "utils/builtins.h"
#include "utils/json.h"

#define HASH_DIGITS 48

/* ---- hashes ---- */

HttpHash
http_hash_bytes(const char *data, Size len)
{
	HttpHash	hash = {0};

	hash.a = hash_bytes_extended((const unsigned char *) data, (int) len, UINT64CONST(0x9E3779B97F4A7C15));
	hash.b = hash_bytes_extended((const unsigned char *) data, (int) len, UINT64CONST(0xC2B2AE3D27D4EB4F));
	return hash;
}

static int
find_hash(const HttpHashes *hashes, HttpHash hash)
{
	for (int i = 0; i < hashes->n; i++)
		if (hashes->items[i].a == hash.a && hashes->items[i].b == hash.b)
			return i;
	return -1;
}

bool
http_hashes_have(const HttpHashes *hashes, HttpHash hash)
{
	return find_hash(hashes, hash) >= 0;
}

bool
http_hashes_remove(HttpHashes *hashes, HttpHash hash)
{
	int			i = find_hash(hashes, hash);

	if (i < 0)
		return false;
	hashes->items[i] = hashes->items[--hashes->n];
	return true;
}

/* Grows by doubling: the room is the next power of two. */
void
http_hashes_add(HttpHashes *hashes, HttpHash hash)
{
	if ((hashes->n & (hashes->n - 1)) == 0)
	{
		Size		size = sizeof(HttpHash) * Max(hashes->n * 2, 1);

		hashes->items = hashes->items ? repalloc(hashes->items, size) : palloc(size);
	}
	hashes->items[hashes->n++] = hash;
}

static HttpHashes
copy_hashes(const HttpHashes *hashes)
{
	HttpHashes	copy = {NULL, 0};

	int			room = 1;

	if (hashes->n == 0)
		return copy;
	while (room <= hashes->n)
		room *= 2;
	copy.items = palloc(sizeof(HttpHash) * room);
	memcpy(copy.items, hashes->items, sizeof(HttpHash) * hashes->n);
	copy.n = hashes->n;
	return copy;
}

/* ---- copies ---- */

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

HttpState *
http_state_copy(const HttpState *state, MemoryContext mcxt)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	HttpState  *copy = palloc(sizeof(HttpState));

	*copy = *state;
	copy->next = copy_text(state->next);
	copy->cursor = copy_text(state->cursor);
	copy->high = copy_text(state->high);
	copy->to = copy_text(state->to);
	copy->header = copy_text(state->header);
	copy->etag = copy_text(state->etag);
	copy->modified = copy_text(state->modified);
	copy->asked = copy_text(state->asked);
	copy->seen = copy_hashes(&state->seen);
	copy->fresh = copy_hashes(&state->fresh);
	copy->last = copy_hashes(&state->last);
	copy->taken = copy_hashes(&state->taken);
	copy->visited = copy_hashes(&state->visited);
	MemoryContextSwitchTo(oldcontext);
	return copy;
}

/* ---- to text ---- */

static void
add_name(StringInfo buf, const char *name)
{
	appendStringInfo(buf, "%s\"%s\": ", buf->len > 1 ? ", " : "", name);
}

static void
add_number(StringInfo buf, const char *name, int64 number)
{
	if (number == 0)
		return;
	add_name(buf, name);
	appendStringInfo(buf, INT64_FORMAT, number);
}

static void
add_text(StringInfo buf, const char *name, const char *text)
{
	if (text == NULL)
		return;
	add_name(buf, name);
	escape_json(buf, text);
}

static void
add_hashes(StringInfo buf, const char *name, const HttpHashes *hashes)
{
	if (hashes->n == 0)
		return;
	add_name(buf, name);
	appendStringInfoChar(buf, '"');
	for (int i = 0; i < hashes->n; i++)
		appendStringInfo(buf, "%016llx%016llx%016llx", (unsigned long long) hashes->items[i].a,
						 (unsigned long long) hashes->items[i].b, (unsigned long long) hashes->items[i].mark);
	appendStringInfoChar(buf, '"');
}

/* Pages: half a hash is enough, and there may be many. */
static void
add_visited(StringInfo buf, const HttpHashes *visited)
{
	if (visited->n == 0)
		return;
	add_name(buf, "visited");
	appendStringInfoChar(buf, '"');
	for (int i = 0; i < visited->n; i++)
		appendStringInfo(buf, "%016llx", (unsigned long long) visited->items[i].a);
	appendStringInfoChar(buf, '"');
}

char *
http_state_position(const HttpState *state)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	add_number(&buf, "crawls", state->crawls);
	add_number(&buf, "rows", state->rows);
	add_text(&buf, "cursor", state->cursor);
	if (state->under_way)
	{
		/* Also when nothing is read yet: that it has begun matters. */
		add_name(&buf, "pages");
		appendStringInfo(&buf, INT64_FORMAT, state->pages);
		add_number(&buf, "crawl_rows", state->crawl_rows);
		add_number(&buf, "byte", state->byte);
		add_text(&buf, "next", state->next);
		add_text(&buf, "high", state->high);
		add_text(&buf, "to", state->to);
	}
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

char *
http_state_proof(const HttpState *state)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	add_hashes(&buf, "seen", &state->seen);
	add_hashes(&buf, "fresh", &state->fresh);
	add_hashes(&buf, "last", &state->last);
	add_hashes(&buf, "taken", &state->taken);
	add_visited(&buf, &state->visited);
	add_number(&buf, "crc", state->crc);
	add_text(&buf, "header", state->header);
	add_text(&buf, "etag", state->etag);
	add_text(&buf, "modified", state->modified);
	add_text(&buf, "asked", state->asked);
	appendStringInfoChar(&buf, '}');
	return buf.len > 2 ? buf.data : NULL;
}

/* ---- from text ---- */

/* The members of an object; others than these are an error, lest a misspelt one is overlooked. */
static bool
read_object(const char *text, const char *const *paths, int n, IngestDocumentValue **values)
{
	IngestDocumentQuery query = {.rows = "$", .paths = paths, .npaths = n, .max_depth = 3};
	IngestDocument document = {0};
	IngestRowError err;

	if (!ingest_document_read(&query, text, strlen(text), &document, &err) ||
		document.nrows != 1 || *document.rows[0].data != '{')
		return false;
	*values = document.values;
	return true;
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

static bool
get_text(const IngestDocumentValue *value, char **text)
{
	*text = value->text;
	return value->text == NULL || value->kind == '"';
}

static bool
get_hashes(const IngestDocumentValue *value, HttpHashes *hashes)
{
	const char *p = value->text;

	while (p && *p)
	{
		HttpHash	hash;
		char		digits[17] = {0};
		char	   *end;

		if (strspn(p, "0123456789abcdef") < HASH_DIGITS)
			return false;
		memcpy(digits, p, 16);
		hash.a = strtou64(digits, &end, 16);
		memcpy(digits, p + 16, 16);
		hash.b = strtou64(digits, &end, 16);
		memcpy(digits, p + 32, 16);
		hash.mark = (int64) strtou64(digits, &end, 16);
		http_hashes_add(hashes, hash);
		p += HASH_DIGITS;
	}
	return true;
}

static bool
get_visited(const IngestDocumentValue *value, HttpHashes *visited)
{
	const char *p = value->text;

	for (; p && *p; p += 16)
	{
		HttpHash	hash = {0};
		char		digits[17] = {0};

		if (strspn(p, "0123456789abcdef") < 16)
			return false;
		memcpy(digits, p, 16);
		hash.a = strtou64(digits, NULL, 16);
		http_hashes_add(visited, hash);
	}
	return true;
}

static bool
parse_position(const char *text, HttpState *state)
{
	static const char *const paths[] = {
		"$.crawls", "$.rows", "$.cursor", "$.pages", "$.crawl_rows", "$.byte", "$.next", "$.high", "$.to"
	};
	IngestDocumentValue *values;

	if (!read_object(text, paths, lengthof(paths), &values))
		return false;
	state->under_way = values[3].text != NULL;
	return get_number(&values[0], &state->crawls) && get_number(&values[1], &state->rows) &&
		get_text(&values[2], &state->cursor) && get_number(&values[3], &state->pages) &&
		get_number(&values[4], &state->crawl_rows) && get_number(&values[5], &state->byte) &&
		get_text(&values[6], &state->next) && get_text(&values[7], &state->high) &&
		get_text(&values[8], &state->to);
}

static bool
parse_proof(const char *text, HttpState *state)
{
	static const char *const paths[] = {
		"$.seen", "$.fresh", "$.last", "$.taken", "$.header", "$.etag", "$.modified", "$.asked",
		"$.crc", "$.visited"
	};
	IngestDocumentValue *values;

	return read_object(text, paths, lengthof(paths), &values) &&
		get_hashes(&values[0], &state->seen) && get_hashes(&values[1], &state->fresh) &&
		get_hashes(&values[2], &state->last) && get_hashes(&values[3], &state->taken) &&
		get_text(&values[4], &state->header) && get_text(&values[5], &state->etag) &&
		get_text(&values[6], &state->modified) && get_text(&values[7], &state->asked) &&
		get_number(&values[8], &state->crc) && get_visited(&values[9], &state->visited);
}

HttpState *
http_state_parse(const char *position, const char *proof)
{
	HttpState  *state = palloc0(sizeof(HttpState));

	if (!parse_position(position, state) || (proof && !parse_proof(proof, state)))
		return NULL;
	return state;
}

/* ---- ends ---- */

char *
http_state_end(int64 crawls)
{
	return psprintf("{\"end\": " INT64_FORMAT "}", crawls);
}

/* The number of the crawl that an end waits for, or -1 for a position. */
static int64
parse_end(const char *text)
{
	static const char *const paths[] = {"$.end"};
	IngestDocumentValue *values;
	int64		end;

	if (!read_object(text, paths, 1, &values) || values[0].text == NULL || !get_number(&values[0], &end))
		return -1;
	return end;
}

/*
 * Rows between two positions, if both are of the same reading; to and from an
 * end: 0 when it is reached, else unknown.
 */
int64
http_state_distance(const char *from, const char *to)
{
	int64		end = parse_end(from);
	const char *position = to;
	HttpState  *a;
	HttpState  *b;

	if (end < 0)
	{
		end = parse_end(to);
		position = from;
	}
	a = http_state_parse(position, NULL);
	if (a == NULL)
		return -1;
	if (end >= 0)
		return a->crawls >= end ? 0 : -1;
	a = http_state_parse(from, NULL);
	b = http_state_parse(to, NULL);
	if (a == NULL || b == NULL || b->rows < a->rows || b->crawls < a->crawls || a->rows == 0)
		return -1;
	return b->rows - a->rows;
}
