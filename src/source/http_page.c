/*
 * http_page.c
 *		From an answer to messages: records cut out, rows that were delivered
 *		before marked, the mark and what may come again noted.
 *
 * A page keeps its bytes until the batch gives it back, and the state the shard
 * had before it: the position behind any of its records follows from both.
 */
#include "postgres.h"

#include <iconv.h>

#include "format/document.h"
#include "format/records.h"
#include "mb/pg_wchar.h"
#include "port/pg_crc32c.h"
#include "source/http.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Bytes of the body that an error shows, and that are searched for secrets for it. */
#define SHOWN_BODY 200
#define SEARCHED_BODY 8192

/* ---- errors ---- */

/* A secret that is cut would not be recognised: cut afterwards. */
char *
http_begin_of_body(Http *http, const char *body, Size len)
{
	char	   *text = ingest_http_auth_redact(http->auth, body, Min(len, SEARCHED_BODY));

	return ingest_error_clean(text, strlen(text), SHOWN_BODY);
}

/* The answer cannot be used: what it was, and how it begins. */
static bool
fail_answer(Http *http, HttpShard *shard, const char *body, Size len, IngestError *err,
			int sqlstate, const char *message)
{
	const char *type = ingest_http_header(shard->transfer, "content-type");

	ingest_error_set(err, INGEST_ERROR_PERMANENT, sqlstate, "%s: %s",
					 ingest_http_public_url(ingest_http_url(shard->transfer)), message);
	ingest_error_detail(err, "Status %d, type %s; it begins: %s", ingest_http_status(shard->transfer),
						type ? type : "unknown", http_begin_of_body(http, body, len));
	return false;
}

/* ---- encodings ---- */

/* charset=... of the type, or what the option says; NULL: UTF-8. */
static char *
find_charset(Http *http, HttpShard *shard)
{
	const char *type = ingest_http_header(shard->transfer, "content-type");
	const char *found = type ? strcasestr(type, "charset=") : NULL;
	char	   *name;

	if (http->options->encoding)
		name = pstrdup(http->options->encoding);
	else if (found && http->plan->framing != HTTP_FRAMING_WHOLE && http->plan->framing != HTTP_FRAMING_XML)
	{
		found += strlen("charset=");
		found += *found == '"';
		name = pnstrdup(found, strcspn(found, "\"; \t"));
	}
	else
		return NULL;
	if (pg_strcasecmp(name, "utf-8") == 0 || pg_strcasecmp(name, "utf8") == 0 || pg_strcasecmp(name, "us-ascii") == 0 ||
		*name == '\0')
		return NULL;
	return name;
}

bool
http_encoding_is_known(const char *name)
{
	static const char *const others[] = {"utf-16", "utf-16le", "utf-16be", "us-ascii", "ascii"};

	for (int i = 0; i < lengthof(others); i++)
		if (pg_strcasecmp(name, others[i]) == 0)
			return true;
	return pg_char_to_encoding(name) >= 0;
}

/*
 * The text in UTF-8.  The server's own conversions need catalogs, which are
 * not at hand.  NULL: it is not of that encoding, or nobody knows it.
 */
static char *
to_utf8(const char *charset, char *data, Size len, Size *new_len)
{
	iconv_t		converter = http_encoding_is_known(charset) ? iconv_open("UTF-8", charset) : (iconv_t) -1;
	Size		room = len * 4 + 16;
	char	   *result;
	char	   *out;
	size_t		in_left = len;
	size_t		out_left = room;
	size_t		rc;

	if (converter == (iconv_t) -1)
		return NULL;
	result = MemoryContextAllocExtended(CurrentMemoryContext, room, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (result == NULL)
	{
		iconv_close(converter);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	out = result;
	rc = iconv(converter, &data, &in_left, &out, &out_left);
	if (rc != (size_t) -1)
		rc = iconv(converter, NULL, NULL, &out, &out_left);
	iconv_close(converter);
	if (rc == (size_t) -1)
		return NULL;
	*new_len = out - result;
	return result;
}

/* ---- pages ---- */

static HttpPage *
make_page(Http *http, HttpShard *shard)
{
	MemoryContext mcxt = AllocSetContextCreate(TopMemoryContext, "ingest http page", ALLOCSET_DEFAULT_SIZES);
	HttpPage   *page = MemoryContextAllocZero(mcxt, sizeof(HttpPage));
	char	   *url = ingest_http_auth_redact(http->auth, ingest_http_url(shard->transfer),
											  strlen(ingest_http_url(shard->transfer)));

	page->mcxt = mcxt;
	page->before = http_state_copy(shard->state, mcxt);
	page->url = MemoryContextStrdup(mcxt, url);
	page->number = shard->state->pages;
	page->fetched_at = GetCurrentTimestamp();
	page->shard = shard - http->shards;
	return page;
}

void
http_page_free(HttpPage *page)
{
	MemoryContextDelete(page->mcxt);
}

static void
hand_out(Http *http, HttpPage *page)
{
	page->next = http->pages;
	http->pages = page;
}

/* ---- the look at a record ---- */

typedef struct Look
{
	bool		has_mark;
	Datum		mark;
	char	   *last_id;
	char	   *key;			/* NULL: not to be had */
} Look;

/* Decode the columns that matter; what raises or is bad has none of them. */
static bool
probe_record(HttpPlan *plan, const char *data, Size len, Datum *values, bool *isnull)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	IngestRow	row = {.values = values, .isnull = isnull};
	volatile bool ok = false;

	memset(isnull, true, plan->nprobe);
	PG_TRY();
	{
		plan->format->begin(plan->probe, data, len);
		ok = plan->format->next(plan->probe, &row) == INGEST_NEXT_ROW;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		/* An interrupt is not of the row. */
		if (geterrcode() == ERRCODE_QUERY_CANCELED || geterrcode() == ERRCODE_ADMIN_SHUTDOWN ||
			geterrcode() == ERRCODE_OUT_OF_MEMORY)
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return ok;
}

static char *
column_text(HttpPlan *plan, int column, const Datum *values, const bool *isnull)
{
	if (isnull[column])
		return NULL;
	return column == plan->cursor ? http_mark_text(plan, values[column]) : TextDatumGetCString(values[column]);
}

static void
look_at(HttpPlan *plan, const char *data, Size len, Look *look)
{
	Datum	   *values;
	bool	   *isnull;
	StringInfoData key;

	memset(look, 0, sizeof(*look));
	if (plan->probe == NULL)
		return;
	values = palloc(sizeof(Datum) * plan->nprobe);
	isnull = palloc(sizeof(bool) * plan->nprobe);
	if (!probe_record(plan, data, len, values, isnull))
		return;
	if (plan->cursor >= 0 && !isnull[plan->cursor])
	{
		look->has_mark = true;
		look->mark = values[plan->cursor];
	}
	if (plan->last_id >= 0)
		look->last_id = column_text(plan, plan->last_id, values, isnull);
	if (plan->nkey == 0)
		return;
	initStringInfo(&key);
	for (int i = 0; i < plan->nkey; i++)
	{
		char	   *text = column_text(plan, plan->key[i], values, isnull);

		/* Without a key a row is known by its bytes. */
		if (text == NULL)
			return;
		appendStringInfo(&key, "%zu:%s", strlen(text), text);
	}
	/* The same key with another mark is another version of the row. */
	if (look->has_mark)
		appendStringInfoString(&key, http_mark_text(plan, look->mark));
	look->key = key.data;
}

/* ---- rows that may come again ---- */

/*
 * While a page is gone through.  What the state knows of earlier rows is put
 * into a table, for there may be many.
 */
typedef struct Marking
{
	Http	   *http;
	HttpState  *after;			/* being made; in the current context */
	HttpHashes	taken;			/* of before, what is left */
	HttpHashes	page;			/* of this page's records, when there is a key */
	HTAB	   *known;			/* seen and, with a key, fresh and last */
	HTAB	   *crawled;		/* or NULL: rows of earlier pages */
	bool		has_high;
	bool		rose;			/* the highest is of this page */
	Datum		high;
	HttpHashes	near;			/* records with a mark that may come again */
} Marking;

static void
know(HTAB *known, const HttpHashes *hashes)
{
	for (int i = 0; i < hashes->n; i++)
		(void) hash_search(known, &hashes->items[i], HASH_ENTER, NULL);
}

/* Hashes are needed only where something may be delivered twice. */
static bool
marks_rows(const HttpPlan *plan)
{
	return plan->cursor >= 0 || plan->nkey > 0 || plan->window > 0;
}

static void
begin_marking(Marking *marking, Http *http, HttpShard *shard, HttpState *after)
{
	HASHCTL		ctl = {.keysize = HTTP_HASH_KEY, .entrysize = sizeof(HttpHash), .hcxt = CurrentMemoryContext};
	const HttpState *before = shard->state;

	memset(marking, 0, sizeof(*marking));
	marking->http = http;
	marking->after = after;
	marking->crawled = shard->crawled;
	for (int i = 0; i < before->taken.n; i++)
		http_hashes_add(&marking->taken, before->taken.items[i]);
	if (marks_rows(http->plan))
	{
		marking->known = hash_create("ingest http rows", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		know(marking->known, &before->seen);
		if (http->plan->nkey > 0)
		{
			know(marking->known, &before->fresh);
			know(marking->known, &before->last);
		}
	}
	if (before->high && http->plan->cursor >= 0)
	{
		marking->high = http_mark_value(http->plan, before->high);
		marking->has_high = true;
	}
}

/* Rows with a lower mark do not come again. */
static void
keep_unmarked(HttpHashes *hashes)
{
	HttpHashes	left = {NULL, 0};

	for (int i = 0; i < hashes->n; i++)
		if (hashes->items[i].mark == PG_INT64_MAX)
			http_hashes_add(&left, hashes->items[i]);
	*hashes = left;
}

/*
 * What is a record: one to be delivered, one that was delivered before, or one
 * of this very page that is committed already (false)?
 */
static bool
mark_record(Marking *marking, HttpRecord *record, Look *look)
{
	HttpPlan   *plan = marking->http->plan;

	if (!marks_rows(plan) && marking->taken.n == 0)
		return true;
	record->hash = look->key ? http_hash_bytes(look->key, strlen(look->key)) :
		http_hash_bytes(record->data, record->len);
	if (look->has_mark)
	{
		bool		rose = !marking->has_high || http_mark_compare(plan, look->mark, marking->high) > 0;

		if (rose)
		{
			marking->high = look->mark;
			marking->has_high = marking->rose = true;
		}
		record->hash.mark = http_mark_number(plan, look->mark);
		if (plan->spans ? record->hash.mark >= http_mark_floor(plan, http_mark_number(plan, marking->high)) :
			http_mark_compare(plan, look->mark, marking->high) == 0)
		{
			/* Without a lag the next crawl begins at the highest, and what lies below does not come again. */
			if (!plan->spans && rose)
				keep_unmarked(&marking->near);
			http_hashes_add(&marking->near, record->hash);
		}
	}
	else if (marking->known && (plan->cursor >= 0 || plan->window > 0))
	{
		/* Without a mark it may always come again. */
		record->hash.mark = PG_INT64_MAX;
		http_hashes_add(&marking->near, record->hash);
	}
	if (http_hashes_remove(&marking->taken, record->hash))
		return false;
	if (marking->known)
	{
		bool		found;

		(void) hash_search(marking->known, &record->hash, plan->nkey > 0 ? HASH_ENTER : HASH_FIND, &found);
		if (!found && marking->crawled)
			(void) hash_search(marking->crawled, &record->hash, HASH_FIND, &found);
		record->repeated = found;
		if (plan->nkey > 0)
			http_hashes_add(&marking->page, record->hash);
	}
	return true;
}

/* Forget those that do not come again now that the mark is as high as this. */
static void
prune(HttpPlan *plan, HttpHashes *hashes, Datum high)
{
	int64		floor = http_mark_floor(plan, http_mark_number(plan, high));
	int			kept = 0;
	HttpHashes	left = {NULL, 0};

	for (int i = 0; i < hashes->n; i++)
		kept += hashes->items[i].mark >= floor;
	if (kept == hashes->n)
		return;
	for (int i = 0; i < hashes->n; i++)
		if (hashes->items[i].mark >= floor)
			http_hashes_add(&left, hashes->items[i]);
	*hashes = left;
}

/* The mark, and the rows near it, go into the state. */
static bool
end_marking(Marking *marking, HttpShard *shard, bool whole, IngestError *err)
{
	HttpPlan   *plan = marking->http->plan;
	HttpState  *after = marking->after;

	if (marking->rose)
	{
		after->high = http_mark_text(plan, marking->high);
		if (!plan->spans)
			keep_unmarked(&after->fresh);
	}
	for (int i = 0; i < marking->near.n; i++)
		http_hashes_add(&after->fresh, marking->near.items[i]);
	if (plan->spans && marking->has_high)
		prune(plan, &after->fresh, marking->high);
	if (after->fresh.n > HTTP_MAX_HASHES)
	{
		ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						 "more than %d rows lie within the overlap of two crawls of %s", HTTP_MAX_HASHES,
						 marking->http->base.name);
		ingest_error_hint(err, "Make \"lag\" shorter.");
		return false;
	}
	if (plan->nkey > 0)
		after->last = marking->page;
	/* A piece of a stream may be shorter than the one whose records are known. */
	after->taken = whole ? (HttpHashes) {NULL, 0} : marking->taken;
	return true;
}

/* ---- messages ---- */

static void
append_message(Http *http, HttpPage *page, HttpRecord *record, IngestBatch *batch, HttpState *after)
{
	IngestMessage *msg = ingest_batch_append(batch);

	record->page = page;
	record->index = page->nrecords++;
	msg->payload = record->data;
	msg->payload_len = (int32) record->len;
	msg->shard = page->shard;
	msg->offset = after->rows++;
	msg->repeated = record->repeated;
	msg->handle = record;
	batch->bytes += record->len;
	after->crawl_rows++;
}

/* The position does not move over this page: its messages must not be written. */
static void
give_up(IngestBatch *batch, int nmessages, int64 bytes, MemoryContext mcxt, IngestError *err)
{
	IngestError copy;

	batch->nmessages = nmessages;
	batch->bytes = bytes;
	ingest_error_copy(&copy, err, mcxt);
	*err = copy;
}

/* ---- whole answers ---- */

typedef struct Body
{
	char	   *data;
	Size		len;
} Body;

static bool
take_body(Http *http, HttpShard *shard, HttpPage *page, Body *body, IngestError *err)
{
	char	   *charset = find_charset(http, shard);

	body->data = ingest_http_take_body(shard->transfer, page->mcxt, &body->len);
	if (charset)
	{
		char	   *converted = to_utf8(charset, body->data, body->len, &body->len);

		if (converted == NULL)
			return fail_answer(http, shard, body->data, body->len, err, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
							   psprintf("answer is not in encoding \"%s\"", ingest_error_clean(charset, strlen(charset), 40)));
		body->data = converted;
	}
	if (body->len >= 3 && http->plan->framing == HTTP_FRAMING_DOCUMENT && memcmp(body->data, "\xEF\xBB\xBF", 3) == 0)
	{
		body->data += 3;
		body->len -= 3;
	}
	return true;
}

/* The rows of an answer, and what is around them. */
static bool
read_document(Http *http, HttpShard *shard, const Body *body, IngestDocument *document,
			  HttpEnvelope *envelope, IngestError *err)
{
	HttpPlan   *plan = http->plan;
	IngestDocumentQuery query = {
		.rows = http->options->rows ? http->options->rows : "$",
		.paths = plan->paths,
		.npaths = HTTP_VALUES,
		.max_depth = plan->max_depth + 16
	};
	IngestRowError wrong;

	if (!ingest_document_read(&query, body->data, body->len, document, &wrong))
		return fail_answer(http, shard, body->data, body->len, err, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
						   psprintf("answer is not JSON: %s at byte " INT64_FORMAT, wrong.message, wrong.position));
	for (int i = 0; i < HTTP_VALUES; i++)
		if (document->values[i].text && document->values[i].kind != 'n')
			envelope->values[i] = document->values[i].text;
	if (envelope->values[HTTP_VALUE_ERROR] && strcmp(envelope->values[HTTP_VALUE_ERROR], "false") != 0 &&
		*envelope->values[HTTP_VALUE_ERROR] != '\0')
		return fail_answer(http, shard, body->data, body->len, err, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
						   "answer has an error in it");
	if (!document->found)
		return fail_answer(http, shard, body->data, body->len, err, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
						   psprintf("answer has no rows at %s", query.rows));
	return true;
}

static void
take_records(Http *http, HttpPage *page, IngestDocument *document, IngestBatch *batch, Marking *marking,
			 HttpState *after, HttpEnvelope *envelope)
{
	HttpRecord *records = MemoryContextAllocExtended(page->mcxt, sizeof(HttpRecord) * Max(document->nrows, 1),
													 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	for (int i = 0; i < document->nrows; i++)
	{
		HttpRecord *record = &records[i];
		HttpHash	content;
		Look		look;

		record->data = document->rows[i].data;
		record->len = document->rows[i].len;
		look_at(http->plan, record->data, record->len, &look);
		content = http_hash_bytes(record->data, record->len);
		envelope->content.a = envelope->content.a * 31 + content.a;
		envelope->content.b = envelope->content.b * 31 + content.b;
		if (look.last_id)
			envelope->last_id = look.last_id;
		if (mark_record(marking, record, &look))
			append_message(http, page, record, batch, after);
	}
	envelope->nrows = document->nrows;
}

bool
http_page_take(Http *http, HttpShard *shard, IngestBatch *batch, HttpState *after,
			   HttpEnvelope *envelope, IngestError *err)
{
	HttpPage   *page = make_page(http, shard);
	MemoryContext oldcontext = MemoryContextSwitchTo(page->mcxt);
	IngestDocument document = {0};
	IngestDocumentRow whole;
	Marking		marking;
	Body		body;
	int			nmessages = batch->nmessages;
	int64		bytes = batch->bytes;
	bool		ok;

	memset(envelope, 0, sizeof(*envelope));
	ok = take_body(http, shard, page, &body, err);
	/* Nothing is no document: a 200 without a body must say that it means that. */
	if (ok && (ingest_http_status(shard->transfer) == 204 ||
			   (http->plan->framing == HTTP_FRAMING_WHOLE && body.len == 0)))
		 /* no rows */ ;
	else if (ok && http->plan->framing == HTTP_FRAMING_WHOLE)
	{
		whole = (IngestDocumentRow) {body.data, body.len};
		document.rows = &whole;
		document.nrows = 1;
	}
	else if (ok)
		ok = read_document(http, shard, &body, &document, envelope, err);
	if (ok)
	{
		begin_marking(&marking, http, shard, after);
		take_records(http, page, &document, batch, &marking, after, envelope);
		ok = end_marking(&marking, shard, true, err);
	}
	MemoryContextSwitchTo(oldcontext);
	if (!ok)
		give_up(batch, nmessages, bytes, oldcontext, err);
	/* What after points to lives as long as the page; whoever keeps it copies it. */
	hand_out(http, page);
	return ok;
}

/* ---- streams ---- */

static struct IngestRecords *
start_records(Http *http, HttpShard *shard)
{
	const HttpPlan *plan = http->plan;
	IngestRecordsOptions options = {
		.kind = plan->framing == HTTP_FRAMING_CSV ? INGEST_RECORDS_CSV :
		plan->framing == HTTP_FRAMING_XML ? INGEST_RECORDS_XML : INGEST_RECORDS_LINES,
		.header = plan->csv_header,
		.quote = plan->csv_quote,
		.escape = plan->csv_escape,
		.element = http->options->rows,
		.max_record = http->options->max_response,
		.max_depth = plan->max_depth
	};
	MemoryContext oldcontext = MemoryContextSwitchTo(shard->request_mcxt);
	IngestRecords *records = ingest_records_create(&options);
	const char *digits = shard->state->header;
	char	   *header = NULL;
	Size		len = 0;

	if (digits)
	{
		header = palloc(strlen(digits) / 2 + 1);
		len = hex_decode(digits, strlen(digits), header);
	}
	ingest_records_begin(records, header, len);
	MemoryContextSwitchTo(oldcontext);
	return records;
}

static bool
convert_record(Http *http, HttpShard *shard, const char *charset, HttpRecord *record, IngestError *err)
{
	char	   *converted;

	converted = to_utf8(charset, unconstify(char *, record->data), record->len, &record->len);
	if (converted == NULL)
		return fail_answer(http, shard, record->data, record->len, err, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
						   "answer is not in its encoding");
	record->data = converted;
	return true;
}

static void
keep_last_id(HttpShard *shard, const char *id)
{
	if (id == NULL)
		return;
	if (shard->last_id)
		pfree(shard->last_id);
	shard->last_id = MemoryContextStrdup(shard->request_mcxt, id);
}

/* The records of a piece of the body, as long as the batch has room; how many bytes they were. */
static bool
cut_records(Http *http, HttpShard *shard, HttpPage *page, char *data, Size len, bool last, IngestBatch *batch,
			Marking *marking, HttpState *after, Size *used, bool *ended, IngestError *err)
{
	const char *charset = find_charset(http, shard);
	char	   *last_id = NULL;
	bool		ok = true;

	*used = 0;
	*ended = false;
	while (ok && !ingest_batch_full(batch))
	{
		HttpRecord *record;
		const char *bytes;
		Size		bytes_len;
		Size		consumed;
		Look		look;
		IngestRowError wrong;

		switch (ingest_records_next(shard->records, data + *used, len - *used, last, &consumed, &bytes, &bytes_len, &wrong))
		{
			case INGEST_RECORDS_MORE:
				*used += consumed;
				keep_last_id(shard, last_id);
				return true;
			case INGEST_RECORDS_END:
				*used += consumed;
				*ended = true;
				keep_last_id(shard, last_id);
				return true;
			case INGEST_RECORDS_BAD:
				return fail_answer(http, shard, data, len, err, wrong.sqlstate,
								   psprintf("%s at byte " INT64_FORMAT, wrong.message,
											shard->streamed + (int64) *used + Max(wrong.position, 0)));
			case INGEST_RECORDS_RECORD:
				break;
		}
		*used += consumed;
		record = palloc0(sizeof(HttpRecord));
		record->data = bytes;
		record->len = bytes_len;
		/* Part of the piece, which stays; or the cutter's own. */
		if (bytes < data || bytes > data + len)
		{
			char	   *copy = palloc_extended(bytes_len + 1, MCXT_ALLOC_HUGE);

			memcpy(copy, bytes, bytes_len);
			record->data = copy;
		}
		ok = charset == NULL || convert_record(http, shard, charset, record, err);
		if (!ok)
			break;
		look_at(http->plan, record->data, record->len, &look);
		last_id = look.last_id ? look.last_id : last_id;
		shard->page_rows++;
		if (mark_record(marking, record, &look))
			append_message(http, page, record, batch, after);
	}
	keep_last_id(shard, last_id);
	return ok;
}

static const char *
copy_header(HttpShard *shard)
{
	Size		len;
	const char *header = ingest_records_header(shard->records, &len);
	char	   *digits;

	/* Bytes of any encoding. */
	if (header == NULL)
		return NULL;
	digits = palloc(len * 2 + 1);
	digits[hex_encode(header, len, digits)] = '\0';
	return digits;
}

bool
http_page_stream(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress, bool *ended, IngestError *err)
{
	bool		last = ingest_http_state(shard->transfer) == INGEST_HTTP_DONE;
	HttpPage   *page;
	MemoryContext oldcontext;
	HttpState  *after;
	Marking		marking;
	const char *body;
	char	   *data;
	Size		len;
	Size		used;
	int			nmessages = batch->nmessages;
	int64		bytes = batch->bytes;
	bool		ok;

	*ended = false;
	if (shard->records == NULL)
		shard->records = start_records(http, shard);
	body = ingest_http_body(shard->transfer, &len);
	if (len == 0 && !last)
		return true;

	page = make_page(http, shard);
	oldcontext = MemoryContextSwitchTo(page->mcxt);
	data = palloc_extended(len + 1, MCXT_ALLOC_HUGE);
	memcpy(data, body, len);
	data[len] = '\0';
	after = http_state_copy(shard->state, page->mcxt);
	begin_marking(&marking, http, shard, after);
	ok = cut_records(http, shard, page, data, len, last, batch, &marking, after, &used, ended, err) &&
		end_marking(&marking, shard, *ended, err);
	if (ok && used == 0 && !last)
		ingest_http_consume(shard->transfer, 0);	/* the record is longer than what was let in */
	if (ok && used > 0)
	{
		ingest_http_consume(shard->transfer, used);
		shard->streamed += used;
		COMP_CRC32C(shard->crc, data, used);
		after->byte = shard->streamed;
		after->crc = shard->crc;
		after->header = unconstify(char *, copy_header(shard));
		after->etag = after->byte > 0 && ingest_http_header(shard->transfer, "etag") ?
			pstrdup(ingest_http_header(shard->transfer, "etag")) : NULL;
		after->modified = ingest_http_header(shard->transfer, "last-modified") ?
			pstrdup(ingest_http_header(shard->transfer, "last-modified")) : NULL;
		after->asked = shard->asked;
		http_crawl_adopt(shard, after);
		*progress = true;
	}
	MemoryContextSwitchTo(oldcontext);
	if (!ok)
		give_up(batch, nmessages, bytes, oldcontext, err);
	hand_out(http, page);
	return ok;
}

/* ---- positions within a page ---- */

/*
 * The page, or piece, is asked for again; the records up to this one are known
 * by their hashes then, and the marks of all are looked at anew.
 */
HttpState *
http_page_state_after(const IngestBatch *batch, const IngestMessage *msg)
{
	const HttpRecord *record = msg->handle;
	const HttpPage *page = record->page;
	HttpState  *state = http_state_copy(page->before, CurrentMemoryContext);
	const IngestMessage *first = msg - record->index;

	state->rows = msg->offset + 1;
	state->crawl_rows = page->before->crawl_rows + record->index + 1;
	for (const IngestMessage *m = first; m <= msg; m++)
	{
		const HttpRecord *r = m->handle;

		/* Of one that was not looked at, the bytes are what it is known by. */
		http_hashes_add(&state->taken, r->hash.a == 0 && r->hash.b == 0 ? http_hash_bytes(r->data, r->len) : r->hash);
	}
	return state;
}
