/*
 * http_files.c
 *		Objects behind HTTP: a bucket's listing, or a manifest, as shards.
 *
 * Each object is a shard of its own, named by what identifies its content (name,
 * ETag, size): it is read once, as a streamed body, and a changed object is
 * another shard.  Finished ones are left out of the assignment.
 */
#include "postgres.h"

#include <fnmatch.h>

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "core/clock.h"
#include "core/compat.h"
#include "format/document.h"
#include "format/records.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "source/http.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Members of a shard's name, and what a template can use. */
static char *file_parameters[] = {"file", "etag", "size", "url", NULL};

typedef struct Listing
{
	Http	   *http;
	IngestShard *shards;
	int			n;
	int			room;
	char	   *token;			/* of the next page, or NULL */
	char	   *url;			/* the listing was read from */
} Listing;

/* ---- definition ---- */

static void *
start_xml(const char *const *paths, int n)
{
	const IngestFormatOps *xml = ingest_format_get("xml");
	IngestColumn *columns = palloc0(sizeof(IngestColumn) * n);
	void	   *options = palloc0(Max(xml->options_size, 1));

	for (int i = 0; i < n; i++)
	{
		columns[i].attnum = i + 1;
		columns[i].name = columns[i].path = paths[i];
		columns[i].typid = TEXTOID;
		columns[i].typmod = -1;
		columns[i].collation = DEFAULT_COLLATION_OID;
	}
	ingest_option_parse(xml->options, NIL, options);
	return xml->start(columns, n, options);
}

void
http_files_prepare(HttpPlan *plan)
{
	static const char *const object[] = {"Key", "ETag", "Size"};
	static const char *const token[] = {"text()"};

	if (plan->options->parameters)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("options \"files\" and \"parameters\" exclude each other")));
	if (plan->options->paging != HTTP_PAGING_NONE || plan->options->cursor || plan->options->window)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("files have neither pages nor a cursor")));
	plan->parameters = file_parameters;
	if (plan->options->files == HTTP_FILES_S3)
	{
		plan->list_object = start_xml(object, lengthof(object));
		plan->list_token = start_xml(token, lengthof(token));
	}
}

/* ---- one request of a listing ---- */

/* Until something has happened; never long, since others may want something of us. */
static void
wait_a_little(Http *http)
{
	pgsocket	fd;
	long		timeout;

	ingest_http_client_wait_hint(http->client, &fd, &timeout);
	if (timeout < 0 || timeout > INGEST_SOURCE_PATIENCE)
		timeout = INGEST_SOURCE_PATIENCE;
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 fd, timeout, ingest_compat_wait_event("IngestHttpList"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	ingest_http_client_work(http->client);
}

static bool
wait_for_turn(Http *http, IngestError *err)
{
	for (;;)
	{
		switch (ingest_http_auth_ready(http->auth, err))
		{
			case INGEST_HTTP_AUTH_READY:
				if (ingest_http_limit_take(http->limit) == 0)
					return true;
				break;
			case INGEST_HTTP_AUTH_WAIT:
				break;
			case INGEST_HTTP_AUTH_FAILED:
				return false;
		}
		wait_a_little(http);
	}
}

/* A listing's URL, with what asks for its next page. */
static char *
listing_url(const Listing *listing)
{
	const HttpOptions *options = listing->http->options;
	char	   *url = ingest_template_join(options->url, options->path);

	if (options->files != HTTP_FILES_S3)
		return url;
	url = ingest_template_set_parameter(url, "list-type", "2");
	if (options->prefix)
		url = ingest_template_set_parameter(url, "prefix", options->prefix);
	if (listing->token)
		url = ingest_template_set_parameter(url, "continuation-token", listing->token);
	return url;
}

static bool
fail_listing(Http *http, IngestHttpTransfer *transfer, const char *why, IngestError *err)
{
	int			status = ingest_http_status(transfer);
	Size		len;
	const char *body = ingest_http_body(transfer, &len);
	char	   *begin = http_begin_of_body(http, body, len);

	if (ingest_http_state(transfer) == INGEST_HTTP_FAILED)
	{
		ingest_error_copy(err, ingest_http_error(transfer), CurrentMemoryContext);
		return false;
	}
	ingest_error_set(err, http_status_passes(status) || why ? INGEST_ERROR_TRANSIENT : INGEST_ERROR_PERMANENT,
					 status == 401 || status == 403 ? ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION :
					 ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, "%s: %s",
					 ingest_http_public_url(ingest_http_url(transfer)),
					 why ? why : psprintf("listing answered with status %d", status));
	if (*begin)
		ingest_error_detail(err, "It begins: %s", begin);
	err->retry_after = Max(ingest_http_retry_after(ingest_http_header(transfer, "retry-after"),
												   ingest_http_header(transfer, "date"), PG_INT32_MAX), 0);
	return false;
}

/* The answer to a page of the listing, whatever it is; NULL: *err. */
static IngestHttpTransfer *
ask(Listing *listing, IngestError *err)
{
	Http	   *http = listing->http;
	IngestHttpTransfer *transfer;
	bool		again;

	do
	{
		IngestHttpRequest request = {.method = "GET", .url = listing_url(listing)};
		uint32		token;

		if (!wait_for_turn(http, err))
			return NULL;
		token = ingest_http_auth_apply(http->auth, &request);
		transfer = ingest_http_start(http->client, &request);
		ingest_http_client_work(http->client);
		while (ingest_http_state(transfer) == INGEST_HTTP_RUNNING)
			wait_a_little(http);
		ingest_http_limit_give_back(http->limit);
		again = ingest_http_status(transfer) == 401 && ingest_http_auth_refused(http->auth, token);
		if (again)
			ingest_http_end(transfer);
	} while (again);
	return transfer;
}

/* ---- objects ---- */

static bool
add_object(Listing *listing, const char *file, const char *etag, const char *size, const char *url)
{
	const char *pattern = listing->http->options->files_match;
	const char *values[] = {file, etag, size, url};
	StringInfoData name;
	IngestShard *shard;
	HttpHash	hash;

	/* What ends with a slash stands for a directory. */
	if (*file == '\0' || file[strlen(file) - 1] == '/' || (pattern && fnmatch(pattern, file, 0) != 0))
		return true;
	if (listing->n == HTTP_MAX_SHARDS)
		return false;
	if (listing->n == listing->room)
	{
		listing->room = Max(listing->room * 2, 64);
		listing->shards = listing->shards ?
			repalloc_huge(listing->shards, sizeof(IngestShard) * listing->room) :
			palloc_extended(sizeof(IngestShard) * listing->room, MCXT_ALLOC_HUGE);
	}
	initStringInfo(&name);
	http_shard_name(&name, (const char *const *) file_parameters, values);
	hash = http_hash_bytes(name.data, name.len);
	shard = &listing->shards[listing->n++];
	memset(shard, 0, sizeof(*shard));
	shard->name = name.data;
	shard->number = (int32) (hash.a & 0x7fffffff);
	shard->lag = -1;
	return true;
}

/* The next element of a name, decoded into texts; false: no more, or *wrong. */
static bool
next_element(IngestRecords *records, void *decoder, const char *body, Size len, Size *done, char **texts, int n,
			 const char **wrong)
{
	const IngestFormatOps *xml = ingest_format_get("xml");
	Datum		values[3];
	bool		isnull[3] = {true, true, true};
	IngestRow	row = {.values = values, .isnull = isnull};
	IngestRowError err;
	const char *record;
	Size		record_len;
	Size		consumed;

	*wrong = NULL;
	switch (ingest_records_next(records, body + *done, len - *done, true, &consumed, &record, &record_len, &err))
	{
		case INGEST_RECORDS_RECORD:
			break;
		case INGEST_RECORDS_BAD:
			*wrong = err.message;
			return false;
		default:
			return false;
	}
	*done += consumed;
	xml->begin(decoder, record, record_len);
	if (xml->next(decoder, &row) != INGEST_NEXT_ROW)
	{
		*wrong = row.error.message;
		return false;
	}
	for (int i = 0; i < n; i++)
		texts[i] = isnull[i] ? NULL : TextDatumGetCString(values[i]);
	return true;
}

static IngestRecords *
cut_elements(const char *element)
{
	IngestRecordsOptions options = {
		.kind = INGEST_RECORDS_XML, .element = element, .max_record = 1024 * 1024, .max_depth = 16
	};
	IngestRecords *records = ingest_records_create(&options);

	ingest_records_begin(records, NULL, 0);
	return records;
}

/* <ListBucketResult>, version 2. */
static const char *
read_bucket(Listing *listing, const char *body, Size len)
{
	HttpPlan   *plan = listing->http->plan;
	IngestRecords *records = cut_elements("Contents");
	const char *before;
	const char *wrong;
	char	   *texts[3];
	Size		done = 0;

	if (strstr(pnstrdup(body, Min(len, 2000)), "ListBucketResult") == NULL)
		return "answer is no listing of a bucket";
	while (next_element(records, plan->list_object, body, len, &done, texts, 3, &wrong))
	{
		if (texts[0] == NULL)
			return "listing has an object without a key";
		if (!add_object(listing, texts[0], texts[1], texts[2], NULL))
			return "listing has too many objects";
	}
	if (wrong)
		return wrong;
	done = 0;
	before = listing->token;
	listing->token = NULL;
	if (next_element(cut_elements("NextContinuationToken"), plan->list_token, body, len, &done, texts, 1, &wrong))
		listing->token = texts[0];
	if (before && listing->token && strcmp(before, listing->token) == 0)
		return "listing does not end";
	return wrong;
}

/* An entry of a manifest: a name, or an object with one. */
static const char *
read_entry(Listing *listing, const IngestDocumentRow *entry)
{
	static const char *const paths[] = {"$.file", "$.name", "$.key", "$.path", "$.url", "$.etag", "$.size"};
	const IngestDocumentValue *values;
	bool		plain = *entry->data == '"';
	const char *self[] = {"$"};
	IngestDocumentQuery query = {
		.rows = "$", .paths = plain ? self : paths, .npaths = plain ? 1 : lengthof(paths), .max_depth = 16
	};
	IngestDocument document;
	IngestRowError err;
	const char *file = NULL;

	if (!ingest_document_read(&query, entry->data, entry->len, &document, &err))
		return err.message;
	values = document.values;
	if (plain)
		file = values[0].text;
	for (int i = 0; !plain && i < 5 && file == NULL; i++)
		file = values[i].text;
	if (file == NULL)
		return "manifest has an entry without a name";
	if (plain ? !add_object(listing, file, NULL, NULL, NULL) :
		!add_object(listing, file, values[5].text, values[6].text, values[4].text))
		return "manifest has too many entries";
	return NULL;
}

static const char *
read_manifest(Listing *listing, const char *body, Size len)
{
	const char *rows = listing->http->options->files_rows;
	IngestDocumentQuery query = {.rows = rows ? rows : "$", .max_depth = 80};
	IngestDocument document;
	IngestRowError err;
	const char *wrong = NULL;

	if (!ingest_document_read(&query, body, len, &document, &err))
		return err.message;
	if (!document.found)
		return "manifest has no entries at \"files_rows\"";
	for (int i = 0; i < document.nrows && wrong == NULL; i++)
		wrong = read_entry(listing, &document.rows[i]);
	return wrong;
}

bool
http_files_list(Http *http, IngestShard **shards, int *nshards, IngestError *err)
{
	Listing		listing = {.http = http};

	do
	{
		IngestHttpTransfer *transfer = ask(&listing, err);
		const char *wrong;
		char	   *body;
		Size		len;
		int			status;

		if (transfer == NULL)
			return false;
		status = ingest_http_status(transfer);
		if (ingest_http_state(transfer) != INGEST_HTTP_DONE || status < 200 || status > 299)
		{
			(void) fail_listing(http, transfer, NULL, err);
			ingest_http_end(transfer);
			return false;
		}
		ingest_http_auth_accepted(http->auth);
		body = ingest_http_take_body(transfer, CurrentMemoryContext, &len);
		wrong = http->options->files == HTTP_FILES_S3 ? read_bucket(&listing, body, len) :
			read_manifest(&listing, body, len);
		if (wrong)
		{
			(void) fail_listing(http, transfer, wrong, err);
			ingest_http_end(transfer);
			return false;
		}
		ingest_http_end(transfer);
		pfree(body);
	} while (listing.token);

	*shards = listing.shards ? listing.shards : palloc0(sizeof(IngestShard));
	*nshards = listing.n;
	http->list_at = ingest_clock_ms() + http->options->poll;
	return true;
}

/* ---- an object's request ---- */

/* The key as a path: percent-encoded, but for its slashes. */
static char *
encode_key(const char *key)
{
	StringInfoData path;

	initStringInfo(&path);
	for (const unsigned char *p = (const unsigned char *) key; *p; p++)
	{
		if (isalnum(*p) || strchr("-._~/", *p))
			appendStringInfoChar(&path, *p);
		else
			appendStringInfo(&path, "%%%02X", *p);
	}
	return path.data;
}

char *
http_files_url(Http *http, HttpShard *shard)
{
	const HttpOptions *options = http->options;
	char	   *base = ingest_template_join(options->url, options->path);
	const char *file = shard->parameters[0] ? shard->parameters[0] : "";

	if (options->files == HTTP_FILES_S3)
		return ingest_template_join(base, encode_key(file));
	/* A name is one that is not encoded yet; what says that it is a URL is. */
	base = ingest_http_resolve_url(base, shard->parameters[3] ? shard->parameters[3] :
								   strstr(file, "://") ? file : encode_key(file));
	return base && ingest_http_same_origin(base, options->url) ? base : NULL;
}

/* The object as it was listed, or nothing. */
const char *
http_files_etag(const HttpShard *shard)
{
	const char *etag = shard->parameters[1];

	if (etag == NULL || *etag == '\0' || strncmp(etag, "W/", 2) == 0)
		return NULL;
	return *etag == '"' ? etag : psprintf("\"%s\"", etag);
}
