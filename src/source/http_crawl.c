/*
 * http_crawl.c
 *		One shard's crawls: when to ask, what to do with an answer, when to ask
 *		again, when it is over.
 *
 * Nothing waits here.  A shard is in one of four phases; http_crawl_work() goes
 * as far as it can and http_crawl_wait() says how long nothing can be done.
 * Everything that must outlive the process is in the shard's state.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "core/clock.h"
#include "lib/stringinfo.h"
#include "port/pg_crc32c.h"
#include "source/http.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* Rows of a crawl that are remembered at most; 40 MB. */
#define MAX_CRAWLED 1000000

/* So many pages in a row without a row are no pages. */
#define MAX_EMPTY_PAGES 1000

/* Longest wait for the circuit breaker within a turn; in ms. */
#define BREAKER_PATIENCE 1000

/* First wait before a request is sent again, in ms; doubles. */
#define RETRY_MIN 500

/* Nobody is left alone for longer than this at a time, whatever it asks for; in ms. */
#define LONGEST_PAUSE (24 * 3600 * INT64CONST(1000))

/* ---- the state ---- */

void
http_crawl_adopt(HttpShard *shard, const HttpState *state)
{
	MemoryContext mcxt = AllocSetContextCreate(MemoryContextGetParent(shard->mcxt), "ingest http state",
											   ALLOCSET_SMALL_SIZES);

	shard->state = http_state_copy(state, mcxt);
	MemoryContextDelete(shard->mcxt);
	shard->mcxt = mcxt;
	shard->moved = true;
}

static HTAB *
make_table(HttpShard *shard, const char *name, Size key)
{
	HASHCTL		ctl = {.keysize = key, .entrysize = key, .hcxt = MemoryContextGetParent(shard->mcxt)};

	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* What is known of the crawl under way by this process alone. */
static void
forget_crawl(HttpShard *shard)
{
	if (shard->visited)
		hash_destroy(shard->visited);
	if (shard->crawled)
		hash_destroy(shard->crawled);
	shard->visited = shard->crawled = NULL;
	shard->empty_pages = 0;
}

static void
begin_visited(HttpShard *shard)
{
	if (shard->visited)
		return;
	shard->visited = make_table(shard, "ingest http pages", sizeof(uint64));
	for (int i = 0; i < shard->state->visited.n; i++)
		(void) hash_search(shard->visited, &shard->state->visited.items[i].a, HASH_ENTER, NULL);
}

/* Have we been here in this crawl?  "after" is to remember it. */
static bool
visit(HttpShard *shard, HttpState *after, HttpHash what)
{
	HttpHashes *visited = &after->visited;
	bool		found;

	begin_visited(shard);
	(void) hash_search(shard->visited, &what.a, HASH_ENTER, &found);
	if (found)
		return true;
	if (visited->n >= HTTP_MAX_VISITED)
	{
		visited->n--;
		memmove(visited->items, visited->items + 1, sizeof(HttpHash) * visited->n);
	}
	http_hashes_add(visited, what);
	return false;
}

/*
 * Rows of the page that is done: should they come again in this crawl, on
 * whichever page, they are the same rows.
 */
static void
note_crawled(HttpShard *shard, const HttpHashes *rows)
{
	if (rows->n == 0)
		return;
	if (shard->crawled == NULL)
		shard->crawled = make_table(shard, "ingest http rows", HTTP_HASH_KEY);
	for (int i = 0; i < rows->n && hash_get_num_entries(shard->crawled) < MAX_CRAWLED; i++)
		(void) hash_search(shard->crawled, &rows->items[i], HASH_ENTER, NULL);
}

/* The first page of a crawl, or of one of its windows. */
static void
begin_window(HttpPlan *plan, HttpShard *shard)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(shard->mcxt);
	HttpState  *state = shard->state;
	bool		last;

	state->under_way = true;
	state->pages = state->crawl_rows = state->byte = state->crc = 0;
	state->next = state->high = state->to = state->header = NULL;
	state->last = state->taken = state->visited = (HttpHashes) {NULL, 0};
	if (plan->window > 0)
		state->to = http_mark_window_end(plan, state->cursor, &last);
	MemoryContextSwitchTo(oldcontext);
}

void
http_crawl_begin(Http *http, HttpShard *shard)
{
	HttpPlan   *plan = http->plan;

	shard->phase = HTTP_WANT;
	shard->until = 0;
	shard->attempts = 0;
	forget_crawl(shard);
	if (shard->state->under_way)
		return;
	if (shard->state->cursor == NULL && http->options->cursor_start)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(shard->mcxt);

		shard->state->cursor = http_mark_text(plan, http_mark_value(plan, http->options->cursor_start));
		MemoryContextSwitchTo(oldcontext);
	}
	begin_window(plan, shard);
}

/* ---- the end of a crawl ---- */

/* Rows that may come again: those of this crawl, and those of before that still lie high enough. */
static HttpHashes
merge_seen(HttpPlan *plan, const HttpState *state, const char *cursor)
{
	HASHCTL		ctl = {.keysize = HTTP_HASH_KEY, .entrysize = sizeof(HttpHash), .hcxt = CurrentMemoryContext};
	HTAB	   *known = hash_create("ingest http rows", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	const HttpHashes *lists[] = {&state->fresh, &state->seen};
	HttpHashes	merged = {NULL, 0};
	int64		floor = PG_INT64_MIN;
	bool		rose = cursor != NULL && (state->cursor == NULL || strcmp(cursor, state->cursor) != 0);

	if (plan->spans && cursor)
		floor = http_mark_floor(plan, http_mark_number(plan, http_mark_value(plan, cursor)));
	for (int l = 0; l < lengthof(lists); l++)
		for (int i = 0; i < lists[l]->n; i++)
		{
			HttpHash   *hash = &lists[l]->items[i];
			bool		found;

			/* Without a lag only what lies at the very mark comes again. */
			if (hash->mark < floor || (!plan->spans && l == 1 && rose && hash->mark != PG_INT64_MAX))
				continue;
			(void) hash_search(known, hash, HASH_ENTER, &found);
			if (!found)
				http_hashes_add(&merged, *hash);
		}
	hash_destroy(known);
	return merged;
}

/* The mark goes up, or stays. */
static char *
next_cursor(HttpPlan *plan, const HttpState *state)
{
	if (plan->window > 0)
		return state->to;
	if (state->high == NULL ||
		(state->cursor && http_mark_compare(plan, http_mark_value(plan, state->high),
											http_mark_value(plan, state->cursor)) <= 0))
		return state->cursor;
	return state->high;
}

static void
end_crawl(Http *http, HttpShard *shard, HttpState *after)
{
	HttpPlan   *plan = http->plan;
	char	   *cursor = OidIsValid(plan->cursor_type) ? next_cursor(plan, after) : NULL;
	bool		last = true;

	if (plan->window > 0)
		(void) http_mark_window_end(plan, after->cursor, &last);
	after->seen = merge_seen(plan, after, cursor);
	after->fresh = (HttpHashes) {NULL, 0};
	after->cursor = cursor;
	after->under_way = false;
	after->pages = after->crawl_rows = after->byte = after->crc = 0;
	after->next = after->high = after->to = after->header = NULL;
	after->last = after->taken = after->visited = (HttpHashes) {NULL, 0};
	after->crawls += last;
	http_crawl_adopt(shard, after);
	forget_crawl(shard);
	if (last)
	{
		shard->phase = HTTP_REST;
		shard->until = ingest_clock_ms() + http->options->poll;
		return;
	}
	begin_window(plan, shard);
	shard->phase = HTTP_WANT;
}

/* ---- requests ---- */

static void
end_transfer(Http *http, HttpShard *shard)
{
	if (shard->transfer)
		ingest_http_end(shard->transfer);
	shard->transfer = NULL;
	shard->records = NULL;
	if (shard->taken)
	{
		ingest_http_limit_give_back(http->limit);
		http->ended++;
	}
	shard->taken = false;
}

void
http_crawl_stop(Http *http, HttpShard *shard)
{
	end_transfer(http, shard);
	forget_crawl(shard);
}

/*
 * Our refresh token is refused: another worker may have been given a new one
 * for it meanwhile, which it keeps in the catalog.
 */
static bool
ask_others_for_token(Http *http, HttpShard *shard, IngestError *err)
{
	if (http->plan->origin == NULL || http->token_final || http->base.peek ||
		err->sqlstate != ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		return false;
	ingest_error_reset(err);
	http->token_refused = true;
	shard->until = 0;
	return true;
}

/* The server has asked for more time than anybody would sit out: see retry(). */
static bool
is_left_alone(Http *http, IngestError *err)
{
	int64		left = ingest_http_limit_broken(http->limit);

	/* Who waits for others' failures to be over should be seen to. */
	if (http->base.background && left > BREAKER_PATIENCE)
	{
		if (http->failure.class != INGEST_ERROR_NONE)
			ingest_error_copy(err, &http->failure, CurrentMemoryContext);
		else
			ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE,
							 "requests to server %s have failed too often", http->plan->server_name);
		err->retry_after = left;
		return true;
	}
	left = ingest_http_limit_paused(http->limit);
	if (left <= http->options->retry_max)
		return false;
	ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
					 "server %s has asked to be left alone for now", http->plan->server_name);
	ingest_error_detail(err, "It wants no requests in the next " INT64_FORMAT " seconds.", (left + 999) / 1000);
	err->retry_after = left;
	return true;
}

/* *started: a request is on its way. */
static bool
send_request(Http *http, HttpShard *shard, bool *started, IngestError *err)
{
	MemoryContext oldcontext;
	IngestHttpRequest request;
	long		wait;
	bool		ok;

	*started = false;
	switch (ingest_http_auth_ready(http->auth, err))
	{
		case INGEST_HTTP_AUTH_READY:
			shard->on_auth = false;
			break;
		case INGEST_HTTP_AUTH_WAIT:
			shard->on_auth = true;
			return true;
		case INGEST_HTTP_AUTH_FAILED:
			shard->on_auth = false;
			return ask_others_for_token(http, shard, err);
	}
	wait = ingest_http_limit_take(http->limit);
	shard->on_limit = wait > 0;
	shard->ended = http->ended;
	if (wait > 0)
	{
		shard->until = ingest_clock_ms() + wait;
		return !is_left_alone(http, err);
	}
	shard->taken = true;
	MemoryContextReset(shard->request_mcxt);
	shard->last_id = NULL;
	oldcontext = MemoryContextSwitchTo(shard->request_mcxt);
	ok = http_request_make(http, shard, &request, err);
	if (ok)
	{
		shard->transfer = ingest_http_start(http->client, &request);
		shard->phase = HTTP_TRANSFER;
		shard->records = NULL;
		shard->streamed = shard->state->byte;
		shard->crc = (uint32) shard->state->crc;
		shard->skip = 0;
		if (shard->state->byte == 0)
			INIT_CRC32C(shard->crc);
		/* Of a body that is gone on with the number is not known: it was no short one. */
		shard->page_rows = shard->state->byte > 0 ? Max(http->options->page_size, 1) : 0;
		*started = true;
	}
	MemoryContextSwitchTo(oldcontext);
	if (!ok)
	{
		IngestError copy;

		ingest_error_copy(&copy, err, oldcontext);
		*err = copy;
		end_transfer(http, shard);
	}
	return ok;
}

/* ---- trouble ---- */

static void
note_failure(Http *http, const IngestError *err)
{
	if (http->failure.message)
		pfree(http->failure.message);
	if (http->failure.detail)
		pfree(http->failure.detail);
	if (http->failure.hint)
		pfree(http->failure.hint);
	ingest_error_copy(&http->failure, err, http->base.mcxt);
}

/*
 * Once more, after a while; when that was too often, or the server wants to be
 * left alone for long, it is the pipeline that waits.
 */
static bool
retry(Http *http, HttpShard *shard, int64 wait, IngestError *err)
{
	int64		longest = http->options->retry_max;
	int64		delay = wait;

	end_transfer(http, shard);
	note_failure(http, err);
	if (delay < 0)
	{
		delay = Min((int64) RETRY_MIN << Min(shard->attempts, 20), longest);
		delay = (int64) (delay * (0.5 + pg_prng_double(&pg_global_prng_state) / 2));
	}
	if (++shard->attempts > http->options->retries || delay > longest)
	{
		err->retry_after = Max(wait, 0);
		shard->attempts = 0;
		return false;
	}
	ingest_error_reset(err);
	shard->phase = HTTP_BACKOFF;
	shard->until = ingest_clock_ms() + delay;
	return true;
}

static bool
transfer_failed(Http *http, HttpShard *shard, IngestError *err)
{
	ingest_error_copy(err, ingest_http_error(shard->transfer), CurrentMemoryContext);
	if (err->class != INGEST_ERROR_TRANSIENT)
	{
		end_transfer(http, shard);
		return false;
	}
	ingest_http_limit_failed(http->limit);
	return retry(http, shard, -1, err);
}

/* What the server says, and how its answer begins, without what is secret. */
static void
describe_status(Http *http, HttpShard *shard, IngestErrorClass class, int sqlstate, IngestError *err)
{
	Size		len;
	const char *body = ingest_http_body(shard->transfer, &len);
	char	   *begin = http_begin_of_body(http, body, len);

	ingest_error_set(err, class, sqlstate, "%s answered with status %d",
					 ingest_http_public_url(ingest_http_url(shard->transfer)), ingest_http_status(shard->transfer));
	if (*begin)
		ingest_error_detail(err, "It begins: %s", begin);
}

static const char *
find_header(const void *arg, const char *name)
{
	return ingest_http_header(arg, name);
}

static bool
is_ignored(const HttpPlan *plan, int status)
{
	for (int i = 0; plan->ignored[i]; i++)
		if (plan->ignored[i] == status)
			return true;
	return false;
}

bool
http_status_passes(int status)
{
	return status == 408 || status == 425 || status == 429 || status >= 500;
}

static bool
server_is_busy(Http *http, HttpShard *shard, IngestError *err)
{
	int			status = ingest_http_status(shard->transfer);
	int64		wait = ingest_http_retry_after(ingest_http_header(shard->transfer, "retry-after"),
											   ingest_http_header(shard->transfer, "date"), LONGEST_PAUSE);

	if (wait < 0 && status == 429)
	{
		wait = ingest_http_budget_wait(find_header, shard->transfer, LONGEST_PAUSE);
		wait = wait > 0 ? wait : -1;
	}
	describe_status(http, shard, INGEST_ERROR_TRANSIENT,
					status == 429 ? ERRCODE_CONFIGURATION_LIMIT_EXCEEDED : ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, err);
	if (wait > 0)
		ingest_http_limit_pause(http->limit, wait);
	if (status != 429)
		ingest_http_limit_failed(http->limit);
	return retry(http, shard, wait, err);
}

static bool
not_authorized(Http *http, HttpShard *shard, IngestError *err)
{
	if (ingest_http_auth_refused(http->auth, shard->token))
	{
		end_transfer(http, shard);
		shard->phase = HTTP_WANT;
		return true;
	}
	describe_status(http, shard, INGEST_ERROR_PERMANENT, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, err);
	ingest_error_hint(err, "Look at the user mapping of server %s.", http->plan->server_name);
	end_transfer(http, shard);
	return false;
}

/* ---- answers ---- */

static bool
refuse_loop(Http *http, const char *why, IngestError *err)
{
	ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
					 "pagination of %s does not end", http->base.name);
	ingest_error_detail(err, "%s", why);
	return false;
}

/* All Link headers as one. */
static char *
join_links(const IngestHttpTransfer *transfer)
{
	StringInfoData links;
	const char *link;

	initStringInfo(&links);
	for (int i = 0; (link = ingest_http_header_nth(transfer, "link", i)) != NULL; i++)
		appendStringInfo(&links, "%s%s", i > 0 ? ", " : "", link);
	return links.data;
}

/* Where a page that is whole leads to. */
static bool
end_page(Http *http, HttpShard *shard, HttpState *after, HttpEnvelope *envelope, IngestError *err)
{
	const HttpOptions *options = http->options;
	bool		by_content = options->paging == HTTP_PAGING_PAGE || options->paging == HTTP_PAGING_OFFSET ||
		options->paging == HTTP_PAGING_LAST_ID;
	const char *etag = ingest_http_header(shard->transfer, "etag");
	const char *modified = ingest_http_header(shard->transfer, "last-modified");
	bool		end;

	after->pages++;
	after->byte = after->crc = 0;
	after->header = NULL;
	if (!http_next_page(http->plan, ingest_http_url(shard->transfer), join_links(shard->transfer), envelope, after,
						&end, err))
		return false;
	if (after->next)
		after->next = ingest_http_auth_redact(http->auth, after->next, strlen(after->next));
	if (!end && after->pages >= options->max_pages)
	{
		ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						 "%s has more than " INT64_FORMAT " pages", http->base.name, options->max_pages);
		ingest_error_hint(err, "Option \"max_pages\" is the limit.");
		return false;
	}
	if (!end && ((by_content && envelope->nrows > 0 && visit(shard, after, envelope->content)) ||
				 (after->next && visit(shard, after, http_hash_bytes(after->next, strlen(after->next))))))
		return refuse_loop(http, psprintf("Page " INT64_FORMAT " leads back to one that was read before.", after->pages), err);
	shard->empty_pages = envelope->nrows > 0 ? 0 : shard->empty_pages + 1;
	if (!end && shard->empty_pages > MAX_EMPTY_PAGES)
		return refuse_loop(http, psprintf("%d pages in a row had no rows.", MAX_EMPTY_PAGES), err);
	note_crawled(shard, &after->last);

	/* Of a crawl of one page it can be asked whether it has changed. */
	after->etag = end && after->pages == 1 && etag ? pstrdup(etag) : NULL;
	after->modified = end && after->pages == 1 && modified ? pstrdup(modified) : NULL;
	after->asked = after->etag || after->modified ? pstrdup(shard->asked) : NULL;
	if (end)
		end_crawl(http, shard, after);
	else
	{
		http_crawl_adopt(shard, after);
		shard->phase = HTTP_WANT;
		shard->until = 0;
	}
	return true;
}

static void
answer_is_well(Http *http, HttpShard *shard)
{
	int64		wait = ingest_http_budget_wait(find_header, shard->transfer, 3600000);

	ingest_http_limit_succeeded(http->limit);
	ingest_http_auth_accepted(http->auth);
	http->token_final = false;
	if (wait > 0)
		ingest_http_limit_pause(http->limit, wait);
	shard->attempts = 0;
}

/* A whole answer that is not streamed. */
static bool
take_answer(Http *http, HttpShard *shard, IngestBatch *batch, IngestError *err)
{
	MemoryContext mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest http answer", ALLOCSET_SMALL_SIZES);
	HttpState  *after = http_state_copy(shard->state, mcxt);
	HttpEnvelope envelope;
	int			nmessages = batch->nmessages;
	int64		bytes = batch->bytes;
	bool		ok;

	ok = http_page_take(http, shard, batch, after, &envelope, err);
	if (!ok && !http->base.peek && err->sqlstate == ERRCODE_FDW_UNABLE_TO_CREATE_REPLY)
	{
		/* A page of some proxy, perhaps, that is gone in a moment. */
		MemoryContextDelete(mcxt);
		return retry(http, shard, -1, err);
	}
	ok = ok && end_page(http, shard, after, &envelope, err);
	if (!ok)
	{
		batch->nmessages = nmessages;
		batch->bytes = bytes;
	}
	else
		answer_is_well(http, shard);
	MemoryContextDelete(mcxt);
	return ok;
}

/* Nothing there, or nothing new. */
static void
end_without_rows(Http *http, HttpShard *shard)
{
	MemoryContext mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest http answer", ALLOCSET_SMALL_SIZES);
	HttpState  *after = http_state_copy(shard->state, mcxt);

	answer_is_well(http, shard);
	end_crawl(http, shard, after);
	MemoryContextDelete(mcxt);
}

/* A page for people is no data, though it has lines. */
static bool
is_page_for_people(const Http *http, const HttpShard *shard)
{
	const char *type = ingest_http_header(shard->transfer, "content-type");

	return http->plan->framing != HTTP_FRAMING_XML && type && pg_strncasecmp(type, "text/html", 9) == 0;
}

/*
 * The answer's headers of a stream are there.  A body that was begun goes on
 * behind the bytes that were read: the server sends from there, or all of it
 * again, and then the bytes must be the same.
 */
static bool
check_stream(Http *http, HttpShard *shard, IngestError *err)
{
	if (shard->state->byte == 0 || shard->records != NULL || shard->skip > 0)
		return true;
	if (ingest_http_status(shard->transfer) == 206)
	{
		char	   *expected = psprintf("bytes " INT64_FORMAT "-", shard->state->byte);
		const char *range = ingest_http_header(shard->transfer, "content-range");

		if (range && strncmp(range, expected, strlen(expected)) == 0)
			return true;
		describe_status(http, shard, INGEST_ERROR_PERMANENT, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, err);
		ingest_error_detail(err, "It is not of the range that was asked for.");
		return false;
	}
	shard->skip = shard->state->byte;
	shard->streamed = 0;
	INIT_CRC32C(shard->crc);
	return true;
}

static bool
compare_begun(Http *http, HttpShard *shard, bool *progress, IngestError *err)
{
	Size		len;
	const char *body = ingest_http_body(shard->transfer, &len);
	Size		part = Min((int64) len, shard->skip);

	COMP_CRC32C(shard->crc, body, part);
	ingest_http_consume(shard->transfer, part);
	shard->skip -= part;
	shard->streamed += part;
	*progress |= part > 0;
	if (shard->skip > 0 && ingest_http_state(shard->transfer) != INGEST_HTTP_DONE)
		return true;
	if (shard->skip == 0 && shard->crc == (uint32) shard->state->crc)
		return true;
	ingest_error_set(err, INGEST_ERROR_GAP, ERRCODE_DATA_CORRUPTED,
					 "%s has changed while it was being read", ingest_http_public_url(ingest_http_url(shard->transfer)));
	ingest_error_detail(err, "Its first " INT64_FORMAT " bytes are not what they were.", shard->state->byte);
	return false;
}

static bool
end_stream(Http *http, HttpShard *shard, IngestError *err)
{
	MemoryContext mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest http answer", ALLOCSET_SMALL_SIZES);
	HttpState  *after = http_state_copy(shard->state, mcxt);
	HttpEnvelope envelope = {
		.nrows = (int) Min(shard->page_rows, PG_INT32_MAX),
		.last_id = shard->last_id,
		.content = {shard->crc, shard->streamed, 0}
	};
	bool		ok = end_page(http, shard, after, &envelope, err);

	if (ok)
		answer_is_well(http, shard);
	MemoryContextDelete(mcxt);
	return ok;
}

/* What there is of a streamed body; *ended: all of it was taken. */
static bool
take_stream(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress, bool *ended, IngestError *err)
{
	*ended = false;
	if (is_page_for_people(http, shard))
	{
		describe_status(http, shard, INGEST_ERROR_PERMANENT, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, err);
		ingest_error_detail(err, "It is a page of HTML.");
		return false;
	}
	if (!check_stream(http, shard, err))
		return false;
	if (shard->skip > 0 && !compare_begun(http, shard, progress, err))
		return false;
	if (shard->skip > 0)
		return true;
	return http_page_stream(http, shard, batch, progress, ended, err);
}

/* ---- phases ---- */

static bool
is_stream(const HttpPlan *plan)
{
	return plan->framing != HTTP_FRAMING_DOCUMENT && plan->framing != HTTP_FRAMING_WHOLE;
}

/* A range that begins where the body ends: all of it has been read before. */
static bool
is_at_end(const HttpShard *shard)
{
	const char *range = ingest_http_header(shard->transfer, "content-range");

	return range && strncmp(range, "bytes */", 8) == 0 && strtoll(range + 8, NULL, 10) == shard->state->byte;
}

/*
 * A part of something that is kept compressed, while our position is one of what
 * it becomes; or no part, since it has become shorter.  Then all of the body
 * must come again.
 */
static bool
is_useless_part(const HttpShard *shard)
{
	int			status = ingest_http_status(shard->transfer);
	const char *coding = ingest_http_header(shard->transfer, "content-encoding");

	if (shard->state->byte == 0 || shard->no_parts)
		return false;
	if (status == 416)
		return !is_at_end(shard);
	return status == 206 && coding && *coding && pg_strcasecmp(coding, "identity") != 0;
}

static void
ask_for_all(Http *http, HttpShard *shard)
{
	end_transfer(http, shard);
	shard->no_parts = true;
	shard->phase = HTTP_WANT;
	shard->until = 0;
}

/*
 * Take what has come of a body that is read as it comes; also of one that broke
 * off: a piece is a step forward, however often that happens.
 */
static bool
work_on_stream(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress, bool *more, IngestError *err)
{
	int64		begin = shard->state->byte;
	bool		taken = false;
	bool		ended = false;

	if (ingest_batch_full(batch))
		return true;
	if (!take_stream(http, shard, batch, &taken, &ended, err) || (ended && !end_stream(http, shard, err)))
	{
		end_transfer(http, shard);
		return false;
	}
	if (shard->state->byte > begin)
		shard->attempts = 0;
	*more = ended || taken;
	*progress |= *more;
	if (ended)
		end_transfer(http, shard);
	return true;
}

/* The answer's ETag is not the one that was listed. */
static bool
is_other_file(const HttpShard *shard)
{
	const char *listed = http_files_etag(shard);
	const char *etag = ingest_http_header(shard->transfer, "etag");

	return listed && etag && strncmp(etag, "W/", 2) != 0 && strcmp(listed, etag) != 0;
}

/* *more: something has changed, go on. */
static bool
work_on_transfer(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress, bool *more, IngestError *err)
{
	int			status = ingest_http_status(shard->transfer);
	IngestHttpState state = ingest_http_state(shard->transfer);
	bool		failed = state == INGEST_HTTP_FAILED;
	bool		well = status >= 200 && status <= 299;

	*more = false;
	if (well && http->options->files != HTTP_FILES_NONE && is_other_file(shard))
		status = 412;			/* from a server that does not know If-Match */
	well = well && status != 412;
	if (is_useless_part(shard))
	{
		ask_for_all(http, shard);
		*more = true;
		return true;
	}
	if (well && is_stream(http->plan) &&
		(!failed || ingest_http_error(shard->transfer)->class == INGEST_ERROR_TRANSIENT))
	{
		if (!work_on_stream(http, shard, batch, progress, more, err))
			return false;
		if (!failed || *more || ingest_batch_full(batch))
			return true;
	}
	if (failed)
	{
		*more = true;
		return transfer_failed(http, shard, err);
	}
	if (state == INGEST_HTTP_RUNNING)
		return true;

	*more = true;
	if (well)
	{
		bool		ok;

		*more = !ingest_batch_full(batch);
		if (!*more)
			return true;
		ok = take_answer(http, shard, batch, err);
		*progress |= ok;
		end_transfer(http, shard);
		return ok;
	}
	if ((status == 304 && shard->conditional) || is_ignored(http->plan, status) ||
		(http->options->files != HTTP_FILES_NONE && shard->state->byte == 0 && (status == 404 || status == 412)))
	{
		/* A file that is gone, or is another one by now, which the next listing tells. */
		end_without_rows(http, shard);
		end_transfer(http, shard);
		*progress = true;
		return true;
	}
	if (status == 416 && shard->state->byte > 0 && is_at_end(shard))
	{
		bool		ok = end_stream(http, shard, err);

		*progress |= ok;
		end_transfer(http, shard);
		return ok;
	}
	if (status == 412 && http->options->files != HTTP_FILES_NONE)
	{
		ingest_error_set(err, INGEST_ERROR_GAP, ERRCODE_DATA_CORRUPTED,
						 "%s has changed while it was being read", ingest_http_public_url(ingest_http_url(shard->transfer)));
		end_transfer(http, shard);
		return false;
	}
	if (status == 401)
		return not_authorized(http, shard, err);
	if (http_status_passes(status))
		return server_is_busy(http, shard, err);
	describe_status(http, shard, INGEST_ERROR_PERMANENT,
					status == 403 ? ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION : ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, err);
	end_transfer(http, shard);
	return false;
}

/* A token may have come, or a request of another shard given back its place. */
static bool
may_ask(const Http *http, const HttpShard *shard)
{
	return shard->on_auth || ingest_clock_ms() >= shard->until ||
		(shard->on_limit && shard->ended != http->ended);
}

/* As far as the shard can go now. */
static bool
work(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress, IngestError *err)
{
	for (;;)
	{
		bool		more = false;

		switch (shard->phase)
		{
			case HTTP_REST:
				if (http->plan->parameters || ingest_clock_ms() < shard->until)
					return true;
				http_crawl_begin(http, shard);
				break;
			case HTTP_WANT:
				/* For one who looks, only what is needed: it comes back for more. */
				if ((http->base.peek && *progress) || !may_ask(http, shard))
					return true;
				if (!send_request(http, shard, &more, err))
					return false;
				if (!more)
					return true;
				ingest_http_client_work(http->client);
				break;
			case HTTP_TRANSFER:
				if (!work_on_transfer(http, shard, batch, progress, &more, err))
					return false;
				if (!more)
					return true;
				break;
			case HTTP_BACKOFF:
				if (ingest_clock_ms() < shard->until)
					return true;
				shard->phase = HTTP_WANT;
				break;
		}
	}
}

/* URLs, types and all else that the server has a say in may hold what it was sent. */
static char *
redact(const Http *http, const char *text)
{
	return text ? ingest_http_auth_redact(http->auth, text, strlen(text)) : NULL;
}

bool
http_crawl_work(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress, IngestError *err)
{
	if (work(http, shard, batch, progress, err))
		return true;
	err->message = redact(http, err->message);
	err->detail = redact(http, err->detail);
	err->hint = redact(http, err->hint);
	return false;
}

long
http_crawl_wait(const HttpShard *shard)
{
	int64		left = shard->until - ingest_clock_ms();

	if (shard->phase == HTTP_TRANSFER || (shard->phase == HTTP_WANT && shard->on_auth))
		return -1;
	return (long) Min(Max(left, 0), 3600000);
}
