/*
 * http.c
 *		A resource of a REST or GraphQL API as a source.
 *
 * The source's callbacks; what they stand on is listed in http.h.  One client
 * with one descriptor serves all shards of the instance.
 *
 * Position: how far the crawl under way is, or the mark the next one begins
 * at, as JSON; proof: what rows may come again (http_state.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/token.h"
#include "common/hashfn.h"
#include "core/clock.h"
#include "executor/spi.h"
#include "format/document.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "source/http.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

enum
{
	META_URL, META_PAGE, META_ROW, META_FETCHED_AT, META_PARAMETERS, META_FILE
};

static const IngestMetadataDef http_metadata[] = {
	[META_URL] = {"url", TEXTOID, "URL of the page the row came with, without credentials."},
	[META_PAGE] = {"page", INT8OID, "Number of the page in its crawl, from 0."},
	[META_ROW] = {"row", INT8OID, "Number of the row among all that were read, from 0."},
	[META_FETCHED_AT] = {"fetched_at", TIMESTAMPTZOID, "When the page came."},
	[META_PARAMETERS] = {"parameters", JSONBOID, "The row of \"parameters\" it was asked for with."},
	[META_FILE] = {"file", TEXTOID, "Name of the file the row is from."},
	{NULL}
};

/* ---- opening ---- */

/* Pages outlive what else the source has: batches that are given back point to them. */
static void
free_pages(void *arg)
{
	Http	   *http = arg;

	while (http->pages)
	{
		HttpPage   *page = http->pages;

		http->pages = page->next;
		http_page_free(page);
	}
}

static bool
open_http(IngestSource *src, IngestError *err)
{
	Http	   *http = (Http *) src;
	HttpPlan   *plan = src->prepared;
	const HttpOptions *options = src->options;
	IngestHttpClientOptions *client = palloc0(sizeof(IngestHttpClientOptions));

	http->options = options;
	http->plan = plan;
	http->cleanup.func = free_pages;
	http->cleanup.arg = http;
	MemoryContextRegisterResetCallback(src->mcxt, &http->cleanup);
	client->allow_http = options->allow_http;
	client->trusted = plan->trusted;
	client->ca = options->ssl_ca;
	client->client_cert = options->auth.client_cert;
	client->client_key = options->auth.client_key;
	client->connect_timeout = options->connect_timeout;
	client->timeout = options->timeout;
	client->idle_timeout = options->idle_timeout;
	client->max_response = options->max_response;
	client->max_headers = options->max_headers;
	client->max_redirects = (int) options->max_redirects;
	client->compress = options->compress;
	client->user_agent = options->user_agent;
	http->client = ingest_http_client_create(client, src->mcxt, err);
	if (http->client == NULL)
		return false;
	http->auth = ingest_http_auth_create(&options->auth, plan->token, http->client, src->mcxt);
	http->limit = ingest_http_limit_open(MyDatabaseId, plan->server, plan->rate, (int) options->concurrency);
	http->list_mcxt = AllocSetContextCreate(src->mcxt, "ingest http parameters", ALLOCSET_SMALL_SIZES);
	return true;
}

/* ---- shards ---- */

void
http_shard_name(StringInfo name, const char *const *names, const char *const *values)
{
	appendStringInfoChar(name, '{');
	for (int i = 0; names[i]; i++)
	{
		if (i > 0)
			appendStringInfoString(name, ", ");
		escape_json(name, names[i]);
		appendStringInfoString(name, ": ");
		if (values[i])
			escape_json(name, values[i]);
		else
			appendStringInfoString(name, "null");
	}
	appendStringInfoChar(name, '}');
}

static void
add_listed(Http *http, char **values, HTAB *names)
{
	IngestShard *shard;
	StringInfoData name;
	HttpHash	hash;
	bool		found;

	initStringInfo(&name);
	http_shard_name(&name, (const char *const *) http->plan->parameters, (const char *const *) values);
	hash = http_hash_bytes(name.data, name.len);
	(void) hash_search(names, &hash, HASH_ENTER, &found);
	if (found)
		return;
	shard = &http->listed[http->nlisted++];
	memset(shard, 0, sizeof(*shard));
	shard->name = name.data;
	shard->number = (int32) (hash.a & 0x7fffffff);
	shard->lag = -1;
}

/* The rows of the query, which has just run. */
static void
list_rows(Http *http)
{
	HASHCTL		ctl = {.keysize = HTTP_HASH_KEY, .entrysize = sizeof(HttpHash), .hcxt = CurrentMemoryContext};
	HTAB	   *names = hash_create("ingest http parameters", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	TupleDesc	desc = SPI_tuptable->tupdesc;
	MemoryContext oldcontext;
	char	  **values = palloc(sizeof(char *) * desc->natts);

	MemoryContextReset(http->list_mcxt);
	http->nlisted = 0;
	http->listed = MemoryContextAllocHuge(http->list_mcxt, sizeof(IngestShard) * Max(SPI_processed, 1));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		for (int i = 0; i < desc->natts; i++)
			values[i] = SPI_getvalue(SPI_tuptable->vals[row], desc, i + 1);
		oldcontext = MemoryContextSwitchTo(http->list_mcxt);
		add_listed(http, values, names);
		MemoryContextSwitchTo(oldcontext);
	}
	hash_destroy(names);
}

static void
ask_for_parameters(Http *http)
{
	HttpQuery	as;

	http_query_begin(http->plan, &as);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute(http->options->parameters, true, HTTP_MAX_SHARDS + 1) != SPI_OK_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"parameters\" is not a query")));
	if (SPI_processed > HTTP_MAX_SHARDS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("query of option \"parameters\" has more than %d rows", HTTP_MAX_SHARDS)));
	list_rows(http);
	PopActiveSnapshot();
	SPI_finish();
	http_query_end(&as);
	http->list_at = ingest_clock_ms() + http->options->poll;
}

/*
 * A refresh token that replaces ours is kept at once, and is safe once this
 * transaction is committed: see list_shards().
 */
static void
keep_token(Http *http)
{
	const char *rotated = ingest_http_auth_rotated(http->auth);
	const HttpPlan *plan = http->plan;

	if (rotated)
	{
		ingest_token_write(plan->server_name, plan->mapping, plan->origin, rotated);
		http->token_written = true;
	}
	else if (http->token_refused)
		http->token_final = !ingest_http_auth_reload(http->auth, ingest_token_read(plan->server_name, plan->mapping,
																				   plan->origin, CurrentMemoryContext));
	http->token_refused = false;
}

static void
use_sql(IngestSource *src)
{
	Http	   *http = (Http *) src;

	keep_token(http);
	if (http->options->parameters)
		ask_for_parameters(http);
}

static bool
list_shards(IngestSource *src, IngestShard **shards, int *nshards, IngestError *err)
{
	Http	   *http = (Http *) src;
	int			n = http->plan->parameters ? http->nlisted : 1;

	if (http->token_written)
		ingest_http_auth_stored(http->auth);
	http->token_written = false;
	if (http->options->files != HTTP_FILES_NONE)
		return http_files_list(http, shards, nshards, err);
	*nshards = n;
	*shards = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(IngestShard) * Max(n, 1),
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	if (http->plan->parameters == NULL)
	{
		(*shards)[0].name = pstrdup("0");
		(*shards)[0].lag = -1;
		return true;
	}
	for (int i = 0; i < n; i++)
	{
		(*shards)[i] = http->listed[i];
		(*shards)[i].name = pstrdup(http->listed[i].name);
	}
	return true;
}

/* ---- positions ---- */

static bool
find_position(IngestSource *src, const IngestShard *shard, IngestStart start, TimestampTz at,
			  char **position, IngestError *err)
{
	Http	   *http = (Http *) src;
	Oid			type = http->plan->cursor_type;
	HttpState	state = {0};

	if (start != INGEST_START_EARLIEST)
	{
		if (type != TIMESTAMPTZOID && type != TIMESTAMPOID && type != DATEOID)
		{
			ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
							 "%s can only be read from its beginning", src->name);
			ingest_error_hint(err, "A cursor of times (option \"cursor\") would know where to begin.");
			return false;
		}
		if (start == INGEST_START_LATEST)
			at = GetCurrentTimestamp();
		state.cursor = http_mark_text(http->plan, type == DATEOID ?
									  Int32GetDatum((int32) (at / USECS_PER_DAY - (at % USECS_PER_DAY < 0))) :
									  TimestampTzGetDatum(at));
	}
	*position = http_state_position(&state);
	return true;
}

static bool
check_position(const char *position)
{
	return http_state_parse(position, NULL) != NULL;
}

/* When the crawl under way, or else the next one, is over. */
static bool
find_end(IngestSource *src, const IngestShard *shard, char **position, IngestError *err)
{
	HttpState  *state = shard->position ? http_state_parse(shard->position, NULL) : NULL;

	if (((Http *) src)->options->files != HTTP_FILES_NONE)
		state = NULL;			/* once, and never again */
	*position = http_state_end((state ? state->crawls : 0) + 1);
	return true;
}

/* A file that has been read is done with. */
static bool
is_finished(IngestSource *src, const char *position)
{
	HttpState  *state;

	if (((Http *) src)->options->files == HTTP_FILES_NONE)
		return false;
	state = http_state_parse(position, NULL);
	return state != NULL && state->crawls > 0;
}

/* ---- assigning ---- */

/* The values a shard's name was made of; they go into requests. */
static bool
read_parameters(Http *http, HttpShard *shard, const char *name)
{
	const char *const *names = (const char *const *) http->plan->parameters;
	int			n = 0;
	IngestDocumentQuery query = {.rows = "$", .max_depth = 3};
	IngestDocument document;
	IngestRowError wrong;
	char	  **paths;

	while (names[n])
		n++;
	paths = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		StringInfoData path;

		initStringInfo(&path);
		appendStringInfoString(&path, "$.");
		escape_json(&path, names[i]);
		paths[i] = path.data;
	}
	query.paths = (const char *const *) paths;
	query.npaths = n;
	if (!ingest_document_read(&query, name, strlen(name), &document, &wrong))
		return false;
	shard->parameters = palloc0(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		shard->parameters[i] = document.values[i].kind == 'n' ? NULL : document.values[i].text;
	return true;
}

static bool
assign_shard(Http *http, HttpShard *shard, IngestShard *pub, IngestError *err)
{
	HttpState  *state = http_state_parse(pub->position, pub->proof);

	if (state == NULL || (http->plan->parameters && !read_parameters(http, shard, pub->name)))
	{
		ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_DATA_CORRUPTED,
						 "position of shard %s of %s cannot be read", pub->name, http->base.name);
		ingest_error_hint(err, "ingest.seek() sets another one.");
		return false;
	}
	shard->pub = pub;
	shard->mcxt = AllocSetContextCreate(http->shard_mcxt, "ingest http state", ALLOCSET_SMALL_SIZES);
	shard->request_mcxt = AllocSetContextCreate(http->shard_mcxt, "ingest http request", ALLOCSET_SMALL_SIZES);
	shard->state = http_state_copy(state, shard->mcxt);
	if (is_finished(&http->base, pub->position))
	{
		shard->phase = HTTP_REST;
		shard->until = PG_INT64_MAX;
	}
	else
		http_crawl_begin(http, shard);
	return true;
}

static bool
assign(IngestSource *src, IngestShard *shards, int nshards, IngestError *err)
{
	Http	   *http = (Http *) src;
	MemoryContext oldcontext;
	bool		ok = true;

	for (int i = 0; i < http->nshards; i++)
		http_crawl_stop(http, &http->shards[i]);
	http->nshards = 0;
	if (http->shard_mcxt)
		MemoryContextDelete(http->shard_mcxt);
	http->shard_mcxt = AllocSetContextCreate(src->mcxt, "ingest http shards", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(http->shard_mcxt);
	http->shards = MemoryContextAllocExtended(http->shard_mcxt, sizeof(HttpShard) * Max(nshards, 1),
											  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < nshards && ok; i++)
	{
		ok = assign_shard(http, &http->shards[i], &shards[i], err);
		http->nshards += ok;
	}
	MemoryContextSwitchTo(oldcontext);
	if (!ok)
	{
		IngestError copy;

		ingest_error_copy(&copy, err, oldcontext);
		*err = copy;
	}
	return ok;
}

/* ---- fetching ---- */

/* The positions behind what was taken, as text. */
static void
render_positions(Http *http)
{
	for (int i = 0; i < http->nshards; i++)
	{
		HttpShard  *shard = &http->shards[i];
		MemoryContext oldcontext;

		if (!shard->moved)
			continue;
		oldcontext = MemoryContextSwitchTo(http->shard_mcxt);
		pfree(shard->pub->position);
		if (shard->pub->proof)
			pfree(shard->pub->proof);
		shard->pub->position = http_state_position(shard->state);
		shard->pub->proof = http_state_proof(shard->state);
		MemoryContextSwitchTo(oldcontext);
		shard->moved = false;
	}
}

/* All crawls are over, and it is time to ask which ones there are. */
static bool
wants_list(const Http *http)
{
	if (http->plan->parameters == NULL || http->base.peek || ingest_clock_ms() < http->list_at)
		return false;
	for (int i = 0; i < http->nshards; i++)
		if (http->shards[i].phase != HTTP_REST)
			return false;
	return true;
}

static IngestFetch
fetch(IngestSource *src, IngestBatch *batch, int *gap_shard, IngestError *err)
{
	Http	   *http = (Http *) src;
	bool		progress = false;
	bool		ok = true;

	ingest_http_client_work(http->client);
	/* A refresh token that was replaced is no good any more: keep the new one first. */
	if (src->peek && ingest_http_auth_rotated(http->auth))
	{
		keep_token(http);		/* with the transaction of who looks */
		ingest_http_auth_stored(http->auth);
	}
	if (wants_list(http) || http->token_refused || ingest_http_auth_rotated(http->auth))
		return INGEST_FETCH_SHARDS;
	for (int i = 0; i < http->nshards && ok; i++)
	{
		ok = http_crawl_work(http, &http->shards[i], batch, &progress, err);
		if (!ok && err->class == INGEST_ERROR_GAP)
			*gap_shard = i;
		/* For one who looks, one after the other: the next may not be needed. */
		if (src->peek && http->shards[i].phase != HTTP_REST)
			break;
	}
	render_positions(http);
	if (ok && http->token_refused)
		return INGEST_FETCH_SHARDS;
	if (!ok)
		return INGEST_FETCH_ERROR;
	return progress ? INGEST_FETCH_GOT : INGEST_FETCH_EMPTY;
}

static void
wait_hint(IngestSource *src, pgsocket *fd, long *timeout)
{
	Http	   *http = (Http *) src;

	ingest_http_client_wait_hint(http->client, fd, timeout);
	for (int i = 0; i < http->nshards; i++)
	{
		long		wait = http_crawl_wait(&http->shards[i]);

		if (http->shards[i].phase == HTTP_REST && http->plan->parameters)
			wait = (long) Min(Max(http->list_at - ingest_clock_ms(), 0), 3600000);
		if (wait >= 0 && (*timeout < 0 || wait < *timeout))
			*timeout = wait;
	}
	if (http->nshards == 0 && http->plan->parameters)
		*timeout = (long) Min(Max(http->list_at - ingest_clock_ms(), 0), 3600000);
}

static void
position_after(IngestSource *src, const IngestBatch *batch, const IngestMessage *msg,
			   char **position, char **proof)
{
	HttpState  *state = http_page_state_after(batch, msg);

	*position = http_state_position(state);
	*proof = http_state_proof(state);
}

static void
release(IngestSource *src, IngestBatch *batch)
{
	free_pages(src);
}

/* ---- metadata ---- */

static Datum
get_parameters(const IngestBatch *batch, const IngestMessage *msg, bool *isnull)
{
	const char *name = batch->shards ? batch->shards[msg->shard].name : NULL;

	*isnull = name == NULL || *name != '{';
	return *isnull ? (Datum) 0 : DirectFunctionCall1(jsonb_in, CStringGetDatum(name));
}

static Datum
get_file(const IngestBatch *batch, const IngestMessage *msg, bool *isnull)
{
	const char *name = batch->shards ? batch->shards[msg->shard].name : NULL;
	static const char *const paths[] = {"$.file"};
	IngestDocumentQuery query = {.rows = "$", .paths = paths, .npaths = 1, .max_depth = 3};
	IngestDocument document;
	IngestRowError err;

	*isnull = name == NULL || *name != '{' ||
		!ingest_document_read(&query, name, strlen(name), &document, &err) || document.values[0].text == NULL;
	return *isnull ? (Datum) 0 : CStringGetTextDatum(document.values[0].text);
}

static Datum
get_metadata(IngestSource *src, const IngestBatch *batch, const IngestMessage *msg, int which, bool *isnull)
{
	const HttpRecord *record = msg->handle;

	*isnull = record == NULL && which != META_FILE && which != META_ROW && which != META_PARAMETERS;
	if (*isnull)
		return (Datum) 0;
	switch (which)
	{
		case META_FILE:
			return get_file(batch, msg, isnull);
		case META_URL:
			return CStringGetTextDatum(ingest_error_clean(record->page->url, strlen(record->page->url), 8192));
		case META_PAGE:
			return Int64GetDatum(record->page->number);
		case META_ROW:
			return Int64GetDatum(msg->offset);
		case META_FETCHED_AT:
			return TimestampTzGetDatum(record->page->fetched_at);
		default:
			return get_parameters(batch, msg, isnull);
	}
}

/* Where a dead letter came from. */
static char *
get_headers(IngestSource *src, const IngestMessage *msg)
{
	const HttpRecord *record = msg->handle;
	StringInfoData text;

	if (record == NULL)
		return NULL;
	initStringInfo(&text);
	appendStringInfoString(&text, "[{\"url\": ");
	escape_json(&text, ingest_error_clean(record->page->url, strlen(record->page->url), 8192));
	appendStringInfo(&text, "}, {\"page\": \"" INT64_FORMAT "\"}]", record->page->number);
	return text.data;
}

const IngestSourceOps ingest_source_http = {
	.name = "http",
	.description = "REST and GraphQL APIs: a server is an API, a foreign table a resource",
	.options = http_options,
	.options_size = sizeof(HttpOptions),
	.metadata = http_metadata,
	.check = http_check_options,
	.prepare = http_prepare,
	.use_sql = use_sql,
	.instance_size = sizeof(Http),
	.open = open_http,
	.list_shards = list_shards,
	.find_position = find_position,
	.check_position = check_position,
	.distance = http_state_distance,
	.assign = assign,
	.wait_hint = wait_hint,
	.fetch = fetch,
	.position_after = position_after,
	.find_end = find_end,
	.is_finished = is_finished,
	.get_metadata = get_metadata,
	.get_headers = get_headers,
	.release = release
};
