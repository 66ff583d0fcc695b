/*
 * http_request.c
 *		The request for a shard's next page, and where to go on after a page.
 *
 * Paging is a function of the state and of what the answer said: nothing is
 * remembered elsewhere, so that a crawl can go on in another process.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "source/http.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* ---- values of templates ---- */

typedef struct Lookup
{
	Http	   *http;
	HttpShard  *shard;
} Lookup;

static const char *
page_number(const Http *http, const HttpState *state)
{
	return psprintf(INT64_FORMAT, state->pages + http->options->first_page);
}

/* Of the page's first row, also when some of the page are committed. */
static const char *
offset_number(const HttpState *state)
{
	return psprintf(INT64_FORMAT, state->crawl_rows - state->taken.n);
}

static const char *
now_text(void)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (timestamp2tm(GetCurrentTimestamp(), NULL, &tm, &fsec, NULL, NULL) != 0)
		return NULL;
	EncodeDateTime(&tm, 0, false, 0, NULL, USE_XSD_DATES, text);
	return psprintf("%sZ", text);
}

static const char *
mark(Http *http, const char *text, bool back)
{
	return text ? http_mark_request(http->plan, text, back) : NULL;
}

static const char *
lookup_value(const void *arg, const char *name)
{
	const Lookup *lookup = arg;
	Http	   *http = lookup->http;
	const HttpState *state = lookup->shard->state;
	char	  **parameters = http->plan->parameters;

	/* Columns of the query go before names of ours. */
	for (int i = 0; parameters && parameters[i]; i++)
		if (strcmp(parameters[i], name) == 0)
			return lookup->shard->parameters[i];
	if (strcmp(name, "cursor") == 0 || strcmp(name, "from") == 0)
		return mark(http, state->cursor, true);
	if (strcmp(name, "to") == 0)
		return mark(http, state->to, false);
	if (strcmp(name, "now") == 0)
		return now_text();
	if (strcmp(name, "page") == 0)
		return page_number(http, state);
	if (strcmp(name, "offset") == 0)
		return offset_number(state);
	if (strcmp(name, "limit") == 0)
		return http->options->page_size > 0 ? psprintf(INT64_FORMAT, http->options->page_size) : NULL;
	if (strcmp(name, "token") == 0 || strcmp(name, "last_id") == 0)
		return state->next;
	return NULL;
}

/* ---- the URL ---- */

static bool
is_used(const HttpPlan *plan, const char *name)
{
	return ingest_template_uses(plan->url, name) || (plan->body && ingest_template_uses(plan->body, name));
}

/* Parameters of paging that no template has a place for. */
static char *
add_paging(Http *http, const HttpState *state, char *url)
{
	const HttpPlan *plan = http->plan;
	const HttpOptions *options = http->options;
	const char *name = NULL;
	const char *value = NULL;

	switch ((HttpPaging) options->paging)
	{
		case HTTP_PAGING_NONE:
		case HTTP_PAGING_LINK:
		case HTTP_PAGING_NEXT_URL:
		case HTTP_PAGING_GRAPHQL:
			break;
		case HTTP_PAGING_TOKEN:
			if (!is_used(plan, "token") && state->next)
			{
				name = "cursor";
				value = state->next;
			}
			break;
		case HTTP_PAGING_PAGE:
			if (!is_used(plan, "page"))
			{
				name = "page";
				value = page_number(http, state);
			}
			break;
		case HTTP_PAGING_OFFSET:
			if (!is_used(plan, "offset"))
			{
				name = "offset";
				value = offset_number(state);
			}
			break;
		case HTTP_PAGING_LAST_ID:
			if (!is_used(plan, "last_id") && !is_used(plan, "token") && state->next)
			{
				name = "after";
				value = state->next;
			}
			break;
	}
	if (name)
		url = ingest_template_set_parameter(url, options->page_param ? options->page_param : name, value);
	if (options->page_size > 0 && !is_used(plan, "limit") && options->paging != HTTP_PAGING_GRAPHQL)
		url = ingest_template_set_parameter(url, options->limit_param, psprintf(INT64_FORMAT, options->page_size));
	return url;
}

static bool
fail_value(const char *why, const char *where, IngestError *err)
{
	ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
					 "value of {%s} cannot stand in %s of a request", why, where);
	ingest_error_detail(err, "It has a control character or cannot be encoded.");
	return false;
}

static bool
make_url(Http *http, Lookup *lookup, char **url, IngestError *err)
{
	const HttpState *state = lookup->shard->state;
	const char *why = NULL;

	if ((http->options->paging == HTTP_PAGING_LINK || http->options->paging == HTTP_PAGING_NEXT_URL) && state->next)
	{
		*url = pstrdup(state->next);
		return true;
	}
	if (http->options->files != HTTP_FILES_NONE)
	{
		*url = http_files_url(http, lookup->shard);
		if (*url)
			return true;
		ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_INSUFFICIENT_PRIVILEGE,
						 "file \"%s\" lies at another server", lookup->shard->parameters[0]);
		return false;
	}
	*url = ingest_template_fill(http->plan->url, lookup_value, lookup, &why);
	if (*url == NULL)
		return fail_value(why, "the path", err);
	*url = add_paging(http, state, *url);
	return true;
}

/* ---- headers ---- */

static void
add_header(IngestHttpRequest *request, const char *name, const char *value)
{
	IngestHttpHeader *header = palloc0(sizeof(IngestHttpHeader));

	header->name = name;
	header->value = value;
	request->headers = lappend(request->headers, header);
}

static bool
has_header(const HttpPlan *plan, const char *name)
{
	for (int i = 0; i < plan->nheaders; i++)
		if (pg_strcasecmp(plan->headers[i].name, name) == 0)
			return true;
	return false;
}

static void
add_accept(const HttpPlan *plan, IngestHttpRequest *request)
{
	static const char *const accepted[] = {
		[HTTP_FRAMING_DOCUMENT] = "application/json", [HTTP_FRAMING_LINES] = "application/x-ndjson, text/plain, */*;q=0.5",
		[HTTP_FRAMING_CSV] = "text/csv, */*;q=0.5", [HTTP_FRAMING_XML] = "application/xml, text/xml;q=0.9, */*;q=0.5",
		[HTTP_FRAMING_WHOLE] = "*/*"
	};

	if (!has_header(plan, "accept"))
		add_header(request, "Accept", accepted[plan->framing]);
}

/*
 * What the answer is to be compared with: the body that was begun, or, at the
 * beginning of a crawl, the one page the last crawl had.
 */
static void
add_conditions(Http *http, HttpShard *shard, IngestHttpRequest *request)
{
	const HttpState *state = shard->state;
	const char *listed = http->options->files != HTTP_FILES_NONE ? http_files_etag(shard) : NULL;

	shard->conditional = false;
	if (listed)
		add_header(request, "If-Match", listed);
	if (state->byte > 0)
	{
		const char *validator = state->etag && strncmp(state->etag, "W/", 2) != 0 ? state->etag : state->modified;

		/* Of what may have become something else we want all, to compare. */
		if (shard->no_parts || (validator == NULL && listed == NULL))
			return;
		request->range_from = state->byte;
		if (validator)
			add_header(request, "If-Range", validator);
		return;
	}
	if (!http->options->conditional || http->base.peek || state->pages > 0 || state->asked == NULL ||
		strcmp(state->asked, shard->asked) != 0)
		return;
	shard->conditional = state->etag || state->modified;
	if (state->etag)
		add_header(request, "If-None-Match", state->etag);
	if (state->modified)
		add_header(request, "If-Modified-Since", state->modified);
}

static bool
add_headers(Http *http, Lookup *lookup, IngestHttpRequest *request, IngestError *err)
{
	const HttpPlan *plan = http->plan;
	const char *why = NULL;

	for (int i = 0; i < plan->nheaders; i++)
	{
		char	   *value = ingest_template_fill(plan->headers[i].value, lookup_value, lookup, &why);

		if (value == NULL)
			return fail_value(why, "a header", err);
		add_header(request, plan->headers[i].name, value);
	}
	add_accept(plan, request);
	if (plan->body)
	{
		request->body = ingest_template_fill(plan->body, lookup_value, lookup, &why);
		if (request->body == NULL)
			return fail_value(why, "the body", err);
		request->body_len = strlen(request->body);
		if (!has_header(plan, "content-type"))
			add_header(request, "Content-Type", http->options->body_type);
	}
	return true;
}

/* What was asked for, without what it was asked with: a hash, since it may hold secrets. */
static char *
hash_asked(const IngestHttpRequest *request)
{
	HttpHash	url = http_hash_bytes(request->url, strlen(request->url));
	HttpHash	body = http_hash_bytes(request->body ? request->body : "", request->body_len);

	return psprintf("%016llx", (unsigned long long) (url.a ^ (body.b * 3)));
}

/* Credentials go to nobody but the server. */
static bool
fail_place(const Http *http, const char *url, IngestError *err)
{
	ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_INSUFFICIENT_PRIVILEGE,
					 "next page lies at another server than %s", http->plan->server_name);
	ingest_error_detail(err, "It is %s, option \"url\" of the server is %s.", ingest_http_public_url(url),
						ingest_http_public_url(http->options->url));
	return false;
}

bool
http_request_make(Http *http, HttpShard *shard, IngestHttpRequest *request, IngestError *err)
{
	Lookup		lookup = {http, shard};
	char	   *url;

	memset(request, 0, sizeof(*request));
	request->method = http->options->method == 0 ? "GET" : "POST";
	request->stream = http->plan->framing != HTTP_FRAMING_DOCUMENT && http->plan->framing != HTTP_FRAMING_WHOLE;
	if (!make_url(http, &lookup, &url, err))
		return false;
	/* A redirect may have been followed to where a link came from, and a position is typed by people. */
	if (!ingest_http_same_origin(url, http->options->url))
		return fail_place(http, url, err);
	request->url = url;
	if (!add_headers(http, &lookup, request, err))
		return false;
	shard->asked = hash_asked(request);
	add_conditions(http, shard, request);
	shard->token = ingest_http_auth_apply(http->auth, request);
	return true;
}

/* ---- the next page ---- */

/* Behind a link's target in <>: one parameter, ;name=value or ;name="value". */
static const char *
read_parameter(const char *p, char **name, char **value)
{
	const char *begin;
	StringInfoData text;

	p += strspn(p, "; \t");
	begin = p;
	p += strcspn(p, "=;, \t");
	*name = pnstrdup(begin, p - begin);
	initStringInfo(&text);
	p += strspn(p, " \t");
	if (*p == '=')
	{
		p++;
		p += strspn(p, " \t");
		if (*p == '"')
		{
			for (p++; *p && *p != '"'; p++)
			{
				if (*p == '\\' && p[1])
					p++;
				appendStringInfoChar(&text, *p);
			}
			if (*p)
				p++;
		}
		else
			while (*p && strchr(";, \t", *p) == NULL)
				appendStringInfoChar(&text, *p++);
	}
	p += strspn(p, " \t");
	*value = text.data;
	return p;
}

/* One of the relations of rel="next last"? */
static bool
has_relation(const char *value, const char *relation)
{
	size_t		len = strlen(relation);

	while (*value)
	{
		size_t		word;

		value += strspn(value, " \t");
		word = strcspn(value, " \t");
		if (word == len && pg_strncasecmp(value, relation, len) == 0)
			return true;
		value += word;
	}
	return false;
}

char *
http_link_next(const char *header)
{
	const char *p = header;

	while ((p = strchr(p, '<')) != NULL)
	{
		const char *target = p + 1;
		size_t		len = strcspn(target, ">");
		bool		is_next = false;

		if (target[len] == '\0')
			break;
		p = target + len + 1;
		p += strspn(p, " \t");
		while (*p == ';')
		{
			char	   *name;
			char	   *value;

			p = read_parameter(p, &name, &value);
			is_next |= pg_strcasecmp(name, "rel") == 0 && has_relation(value, "next");
		}
		if (is_next)
			return pnstrdup(target, len);
	}
	return NULL;
}

static bool
is_true(const char *value)
{
	return strcmp(value, "false") != 0 && strcmp(value, "0") != 0 && *value != '\0';
}

/* A page that says of itself that it is the last, or must be. */
static bool
is_last(const HttpOptions *options, const HttpEnvelope *envelope, const HttpState *state)
{
	if (envelope->values[HTTP_VALUE_HAS_MORE] && !is_true(envelope->values[HTTP_VALUE_HAS_MORE]))
		return true;
	if (envelope->values[HTTP_VALUE_TOTAL] && state->crawl_rows >= strtoll(envelope->values[HTTP_VALUE_TOTAL], NULL, 10))
		return true;
	if (envelope->values[HTTP_VALUE_TOTAL_PAGES] && state->pages >= strtoll(envelope->values[HTTP_VALUE_TOTAL_PAGES], NULL, 10))
		return true;
	switch ((HttpPaging) options->paging)
	{
		case HTTP_PAGING_PAGE:
		case HTTP_PAGING_OFFSET:
		case HTTP_PAGING_LAST_ID:
			/* A count that was promised decides, even over a page that is empty by chance. */
			return envelope->nrows == 0 ||
				(options->page_size > 0 && envelope->nrows < options->page_size &&
				 !envelope->values[HTTP_VALUE_TOTAL] && !envelope->values[HTTP_VALUE_TOTAL_PAGES] &&
				 !envelope->values[HTTP_VALUE_HAS_MORE]);
		default:
			return false;
	}
}

/* The absolute URL of a link to the next page, which must not lead to another host. */
static bool
follow(const char *url, const char *link, HttpState *state, bool *end, IngestError *err)
{
	*end = link == NULL || *link == '\0';
	if (*end)
		return true;
	state->next = ingest_http_resolve_url(url, link);
	if (state->next != NULL && ingest_http_same_origin(url, state->next))
		return true;
	ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_INSUFFICIENT_PRIVILEGE,
					 "link to the next page leads to another server, or nowhere");
	ingest_error_detail(err, "The page was %s, the link %s.", ingest_http_public_url(url),
						state->next ? ingest_http_public_url(state->next) : "is no http URL");
	return false;
}

bool
http_next_page(const HttpPlan *plan, const char *url, const char *link, const HttpEnvelope *envelope,
			   HttpState *state, bool *end, IngestError *err)
{
	const HttpOptions *options = plan->options;
	const char *next = envelope->values[HTTP_VALUE_NEXT];

	state->next = NULL;
	*end = options->paging == HTTP_PAGING_NONE || is_last(options, envelope, state);
	if (*end)
		return true;
	switch ((HttpPaging) options->paging)
	{
		case HTTP_PAGING_LINK:
			return follow(url, link ? http_link_next(link) : NULL, state, end, err);
		case HTTP_PAGING_NEXT_URL:
			return follow(url, next, state, end, err);
		case HTTP_PAGING_TOKEN:
			*end = next == NULL || *next == '\0';
			state->next = *end ? NULL : pstrdup(next);
			return true;
		case HTTP_PAGING_GRAPHQL:
			*end = next == NULL || envelope->values[HTTP_VALUE_HAS_MORE] == NULL;
			state->next = *end ? NULL : pstrdup(next);
			return true;
		case HTTP_PAGING_LAST_ID:
			*end = envelope->last_id == NULL;
			state->next = *end ? NULL : pstrdup(envelope->last_id);
			return true;
		default:
			return true;
	}
}
