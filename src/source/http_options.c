/*
 * http_options.c
 *		The HTTP source's options, and what is made of them while catalogs are at
 *		hand: templates, the look at rows before they are decoded, the cursor's type.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "catalog/token.h"
#include "core/compat.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "format/document.h"
#include "http/auth_options.h"
#include "miscadmin.h"
#include "source/http.h"
#include "source/source_sql.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/typcache.h"

#define OPTION(name) offsetof(HttpOptions, name)

static const char *const methods[] = {"get", "post", NULL};
static const char *const pagings[] = {
	"none", "link", "next_url", "token", "page", "offset", "last_id", "graphql", NULL
};
static const char *const files_kinds[] = {"none", "manifest", "s3", NULL};
static const char *const cursor_formats[] = {"iso", "date", "unix", "unix_ms", "plain", NULL};

/* ---- checks of single options ---- */

pg_noreturn static void
raise_invalid(const char *option, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option, value),
			 errhint("%s", hint)));
	pg_unreachable();
}

static void
check_url(const char *name, const char *value)
{
	ingest_http_check_url(name, value);
}

static void
check_rate(const char *name, const char *value)
{
	IngestHttpRate rate;

	ingest_http_rate_parse(name, value, &rate);
}

static void
check_value_path(const char *name, const char *value)
{
	ingest_document_check_path(name, value, false);
}

static void
check_rows_path(const char *name, const char *value)
{
	ingest_document_check_path(name, value, true);
}

/* What becomes a header of its own. */
static void
check_header_value(const char *name, const char *value)
{
	for (const char *p = value; *p; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("value of option \"%s\" has a control character", name)));
}

/* Names of headers are tokens (RFC 9110, 5.1); some are ours. */
static void
check_header(const char *name, const char *value)
{
	static const char *const ours[] = {
		"host", "content-length", "transfer-encoding", "connection", "range", "if-range",
		"if-none-match", "if-modified-since", "accept-encoding", NULL
	};
	const char *header = name + strlen("header.");

	if (header[strspn(header, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~")] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid name of a header: \"%s\"", ingest_error_clean(header, strlen(header), NAMEDATALEN))));
	for (int i = 0; ours[i]; i++)
		if (pg_strcasecmp(ours[i], header) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("header \"%s\" cannot be set", header),
					 errdetail("The client sets it.")));
	check_header_value(name, value);
}

static void
check_encoding(const char *name, const char *value)
{
	if (!http_encoding_is_known(value))
		raise_invalid(name, value, "It is a name such as latin1, windows-1252 or utf-16.");
}

static int
parse_statuses(const char *text, int *statuses, int max)
{
	int			n = 0;

	while (*text)
	{
		char	   *end;
		long		status = strtol(text, &end, 10);

		if (end == text || status < 400 || status > 499 || status == 401 || n >= max - 1)
			return -1;
		statuses[n++] = status;
		text = end + strspn(end, ", ");
	}
	statuses[n] = 0;
	return n;
}

static void
check_statuses(const char *name, const char *value)
{
	int			statuses[16];

	if (parse_statuses(value, statuses, lengthof(statuses)) < 0)
		raise_invalid(name, value, "It is a list of statuses from 400 to 499 but 401, such as '404,410'.");
}

const IngestOptionDef http_options[] = {
	{"url", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(url), .required = true, .check = check_url,
	.help = "Where the API is; paths of foreign tables are joined to it."},
	{"allow_http", INGEST_SCOPE_SERVER, INGEST_OPTION_BOOL, OPTION(allow_http), .fallback = "off",
	.help = "Whether plain http is allowed to other hosts than this one."},
	{"rate_limit", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(rate_limit), .check = check_rate,
	.help = "How many requests all pipelines together may send, such as 10/s or 5000/h."},
	{"concurrency", INGEST_SCOPE_SERVER, INGEST_OPTION_INT, OPTION(concurrency), .fallback = "4", .min = 1, .max = 100,
	.help = "How many requests of all pipelines together may be under way."},
	{"max_response", INGEST_SCOPE_SERVER, INGEST_OPTION_BYTES, OPTION(max_response), .fallback = "64MB",
		.min = 1024, .max = 1024.0 * 1024 * 1023,
	.help = "Largest answer, decompressed; where an answer is read as it comes, largest record of it."},
	{"max_headers", INGEST_SCOPE_SERVER, INGEST_OPTION_BYTES, OPTION(max_headers), .fallback = "256kB",
		.min = 1024, .max = 16 * 1024 * 1024,
	.help = "Most bytes of headers in an answer."},
	{"max_redirects", INGEST_SCOPE_SERVER, INGEST_OPTION_INT, OPTION(max_redirects), .fallback = "5", .min = 0, .max = 50,
	.help = "How many redirects are followed for a request."},
	{"connect_timeout", INGEST_SCOPE_SERVER, INGEST_OPTION_MS, OPTION(connect_timeout), .fallback = "10 s", .min = 10, .max = 600000,
	.help = "How long name, connection and TLS may take."},
	{"timeout", INGEST_SCOPE_SERVER, INGEST_OPTION_MS, OPTION(timeout), .fallback = "60 s", .min = 10, .max = 24 * 3600000.0,
	.help = "How long a request may take; where its answer is read as it comes, one record of it."},
	{"idle_timeout", INGEST_SCOPE_SERVER, INGEST_OPTION_MS, OPTION(idle_timeout), .fallback = "30 s", .min = 10, .max = 3600000,
	.help = "How long nothing may come."},
	{"retries", INGEST_SCOPE_SERVER, INGEST_OPTION_INT, OPTION(retries), .fallback = "5", .min = 0, .max = 100,
	.help = "How often a request is sent again before the pipeline backs off."},
	{"retry_max", INGEST_SCOPE_SERVER, INGEST_OPTION_MS, OPTION(retry_max), .fallback = "30 s", .min = 0, .max = 3600000,
	.help = "Longest wait between two of them; when the server asks for more, the pipeline backs off."},
	{"compress", INGEST_SCOPE_SERVER, INGEST_OPTION_BOOL, OPTION(compress), .fallback = "on",
	.help = "Whether compressed answers are accepted."},
	{"ssl_ca", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(ssl_ca),
	.help = "Certificates (PEM text) to trust instead of the system's."},
	{"user_agent", INGEST_SCOPE_SERVER, INGEST_OPTION_TEXT, OPTION(user_agent), .fallback = "ingest/" INGEST_VERSION, .check = check_header_value,
	.help = "What the client calls itself."},
	{"header.*", INGEST_SCOPE_SERVER | INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(headers), .check = check_header,
	.help = "A header of each request; its value is a template."},

	INGEST_HTTP_AUTH_OPTIONS(HttpOptions, auth),

	{"path", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(path), .fallback = "",
	.help = "Path and query of the resource, a template: /issues?since={cursor}."},
	{"method", INGEST_SCOPE_TABLE, INGEST_OPTION_ENUM, OPTION(method), .fallback = "get", .values = methods,
	.help = "How it is asked for; post is for APIs whose questions have a body."},
	{"body", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(body),
	.help = "Body of a post, a template."},
	{"body_type", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(body_type), .fallback = "application/json", .check = check_header_value,
	.help = "Type of the body; says how values in it are escaped."},
	{"rows", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(rows),
	.help = "Where the rows are in an answer: a path such as $.items[*], or the name of an XML element."},
	{"pagination", INGEST_SCOPE_TABLE, INGEST_OPTION_ENUM, OPTION(paging), .fallback = "none", .values = pagings,
	.help = "How the next page is asked for."},
	{"next", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(next), .check = check_value_path,
	.help = "Path of the next page's URL or token, or of pageInfo."},
	{"page_param", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(page_param),
	.help = "Parameter for page, offset, token or id when the template does not use it: page, offset, cursor, after."},
	{"limit_param", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(limit_param), .fallback = "limit",
	.help = "Parameter for the size of a page when page_size is given and the template does not use {limit}."},
	{"page_size", INGEST_SCOPE_TABLE, INGEST_OPTION_INT, OPTION(page_size), .fallback = "0", .min = 0, .max = 1000000,
	.help = "Rows to ask for; a page with fewer is the last one, except where pages are linked."},
	{"first_page", INGEST_SCOPE_TABLE, INGEST_OPTION_INT, OPTION(first_page), .fallback = "1", .min = 0, .max = 1000000,
	.help = "Number of the first page."},
	{"total", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(total), .check = check_value_path,
	.help = "Path of the number of rows in all pages."},
	{"total_pages", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(total_pages), .check = check_value_path,
	.help = "Path of the number of pages."},
	{"has_more", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(has_more), .check = check_value_path,
	.help = "Path of a boolean that says whether there are more pages."},
	{"last_id", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(last_id),
	.help = "Column whose value in the last row asks for the next page."},
	{"max_pages", INGEST_SCOPE_TABLE, INGEST_OPTION_INT, OPTION(max_pages), .fallback = "1000000", .min = 1, .max = 1000000000,
	.help = "Pages of a crawl; more of them stop the pipeline."},
	{"cursor", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(cursor),
	.help = "Column whose highest value is where the next crawl begins."},
	{"cursor_start", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(cursor_start),
	.help = "Where the first crawl begins."},
	{"cursor_format", INGEST_SCOPE_TABLE, INGEST_OPTION_ENUM, OPTION(cursor_format), .fallback = "iso", .values = cursor_formats,
	.help = "How times are written in requests."},
	{"lag", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(lag),
	.help = "How far below the highest value a crawl begins, for rows that appear late: an interval, or a number."},
	{"key", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(key),
	.help = "Columns that identify a row; where pages overlap, a row with the same key and cursor is passed over."},
	{"window", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(window),
	.help = "Length of the windows of time a crawl is cut into, {from} and {to}."},
	{"poll", INGEST_SCOPE_TABLE, INGEST_OPTION_MS, OPTION(poll), .fallback = "1 min", .min = 10, .max = 365.0 * 24 * 3600000,
	.help = "How long a continuous pipeline rests between two crawls."},
	{"error_path", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(error_path), .check = check_value_path,
	.help = "Path of an error in an answer that looks well."},
	{"ignore_status", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(ignore_status), .check = check_statuses,
	.help = "Statuses that mean that there is nothing, such as 404,410."},
	{"encoding", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(encoding), .check = check_encoding,
	.help = "Encoding of answers, when it is not what they say."},
	{"parameters", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(parameters),
	.help = "Query; each of its rows has a crawl of its own, its columns can stand in templates."},
	{"conditional", INGEST_SCOPE_TABLE, INGEST_OPTION_BOOL, OPTION(conditional), .fallback = "on",
	.help = "Whether what has not changed (ETag, Last-Modified) is not asked for again."},
	{"files", INGEST_SCOPE_TABLE, INGEST_OPTION_ENUM, OPTION(files), .fallback = "none", .values = files_kinds,
	.help = "Whether the path leads to a list of files, each of which is read once: manifest (JSON) or s3 (a bucket)."},
	{"files_rows", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(files_rows), .check = check_rows_path,
	.help = "Path of the entries of a manifest, such as $.files[*]: names, or objects with file, name, key, path or url, and etag, size."},
	{"files_match", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(files_match),
	.help = "Pattern of names to read, such as *.ndjson."},
	{"prefix", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, OPTION(prefix),
	.help = "What names in a bucket begin with."},
	INGEST_OPTION_END
};

/* ---- rules across options ---- */

static void
require(bool given, const char *option, const char *with)
{
	if (!given)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required with %s", option, with)));
}

void
http_check_options(const void *arg)
{
	const HttpOptions *options = arg;

	ingest_http_auth_check(&options->auth);
	require(options->url != NULL, "url", "the wrapper ingest_http");
	switch ((HttpPaging) options->paging)
	{
		case HTTP_PAGING_NEXT_URL:
		case HTTP_PAGING_TOKEN:
		case HTTP_PAGING_GRAPHQL:
			require(options->next != NULL, "next", "this pagination");
			break;
		case HTTP_PAGING_LAST_ID:
			require(options->last_id != NULL, "last_id", "this pagination");
			break;
		default:
			break;
	}
	if (options->window)
		require(options->cursor_start != NULL, "cursor_start", "\"window\"");
	if (options->lag)
		require(options->cursor != NULL || options->window != NULL, "cursor", "\"lag\"");
	if (options->body && options->method == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"body\" is for method \"post\"")));
}

/* ---- templates ---- */

void
http_query_begin(const HttpPlan *plan, HttpQuery *query)
{
	GetUserIdAndSecContext(&query->user, &query->context);
	SetUserIdAndSecContext(plan->table_owner, query->context | SECURITY_RESTRICTED_OPERATION);
	query->nestlevel = NewGUCNestLevel();
}

void
http_query_end(const HttpQuery *query)
{
	AtEOXact_GUC(false, query->nestlevel);
	SetUserIdAndSecContext(query->user, query->context);
}

/* Column names of the query, which is planned for that, and not run. */
static void
find_parameters(HttpPlan *plan)
{
	MemoryContext mcxt = CurrentMemoryContext;
	SPIPlanPtr	query;
	TupleDesc	desc;
	HttpQuery	as;

	if (plan->options->parameters == NULL)
		return;
	http_query_begin(plan, &as);
	SPI_connect();
	query = SPI_prepare(plan->options->parameters, 0, NULL);
	if (query == NULL || !SPI_is_cursor_plan(query))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"parameters\" is not a query")));
	desc = linitial_node(CachedPlanSource, SPI_plan_get_plan_sources(query))->resultDesc;
	plan->parameters = MemoryContextAllocZero(mcxt, sizeof(char *) * (desc->natts + 1));
	for (int i = 0; i < desc->natts; i++)
		plan->parameters[i] = MemoryContextStrdup(mcxt, NameStr(TupleDescAttr(desc, i)->attname));
	SPI_finish();
	http_query_end(&as);
}

static void
find_names(HttpPlan *plan)
{
	static const char *const ours[] = {
		"cursor", "now", "page", "offset", "limit", "token", "last_id", "from", "to"
	};
	int			n = 0;

	if (plan->options->files != HTTP_FILES_NONE)
		http_files_prepare(plan);
	else
		find_parameters(plan);
	while (plan->parameters && plan->parameters[n])
		n++;
	plan->names = palloc0(sizeof(char *) * (lengthof(ours) + n + 1));
	memcpy(plan->names, ours, sizeof(ours));
	for (int i = 0; i < n; i++)
		plan->names[lengthof(ours) + i] = plan->parameters[i];
}

/* A header of the table goes before one of the server. */
static void
add_header(HttpPlan *plan, DefElem *header)
{
	IngestTemplate *value = ingest_template_parse(psprintf("header.%s", header->defname), strVal(header->arg),
												  INGEST_TEMPLATE_HEADER, plan->names);

	for (int i = 0; i < plan->nheaders; i++)
		if (pg_strcasecmp(plan->headers[i].name, header->defname) == 0)
		{
			plan->headers[i].value = value;
			return;
		}
	plan->headers[plan->nheaders].name = header->defname;
	plan->headers[plan->nheaders++].value = value;
}

/* A table's owner must not learn what the server's users have for the server. */
static void
check_place(const HttpOptions *options)
{
	const char *path = options->path;

	if (pg_strncasecmp(path, "http://", 7) != 0 && pg_strncasecmp(path, "https://", 8) != 0)
		return;
	ingest_http_check_url("path", path);
	if (!ingest_http_same_origin(options->url, path))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"path\" leads to another server than option \"url\" of the server"),
				 errdetail("Scheme, host and port must be the same.")));
}

static void
parse_templates(HttpPlan *plan)
{
	const HttpOptions *options = plan->options;
	ListCell   *lc;

	check_place(options);
	find_names(plan);
	plan->url = ingest_template_parse("path", ingest_template_join(options->url, options->path),
									  INGEST_TEMPLATE_URL, plan->names);
	if (options->body)
		plan->body = ingest_template_parse("body", options->body,
										   strstr(options->body_type, "json") ? INGEST_TEMPLATE_JSON :
										   strstr(options->body_type, "form") ? INGEST_TEMPLATE_FORM :
										   strstr(options->body_type, "xml") ? INGEST_TEMPLATE_XML :
										   INGEST_TEMPLATE_TEXT, plan->names);
	plan->headers = palloc0(sizeof(HttpHeaderTemplate) * Max(list_length(options->headers), 1));
	foreach(lc, options->headers)
		add_header(plan, lfirst_node(DefElem, lc));
}

/* ---- framing ---- */

static void
choose_framing(HttpPlan *plan, const IngestSourceRelation *rel)
{
	const HttpOptions *options = plan->options;
	const char *format = rel->format->name;
	const char *header = ingest_source_option(rel->table_options, "header");
	const char *quote = ingest_source_option(rel->table_options, "quote");
	const char *escape = ingest_source_option(rel->table_options, "escape");
	const char *depth = ingest_source_option(rel->table_options, "max_depth");

	plan->max_depth = depth ? strtol(depth, NULL, 10) : 64;
	plan->csv_header = header != NULL && (parse_bool(header, &plan->csv_header) ? plan->csv_header : false);
	plan->csv_quote = quote ? *quote : '"';
	plan->csv_escape = escape ? *escape : plan->csv_quote;
	if (strcmp(format, "json") == 0)
	{
		plan->framing = HTTP_FRAMING_DOCUMENT;
		if (options->rows)
			ingest_document_check_path("rows", options->rows, true);
		plan->paths[HTTP_VALUE_NEXT] = options->next;
		plan->paths[HTTP_VALUE_HAS_MORE] = options->has_more;
		if (options->paging == HTTP_PAGING_GRAPHQL)
		{
			plan->paths[HTTP_VALUE_NEXT] = psprintf("%s.endCursor", options->next);
			plan->paths[HTTP_VALUE_HAS_MORE] = psprintf("%s.hasNextPage", options->next);
		}
		plan->paths[HTTP_VALUE_TOTAL] = options->total;
		plan->paths[HTTP_VALUE_TOTAL_PAGES] = options->total_pages;
		plan->paths[HTTP_VALUE_ERROR] = options->error_path ? options->error_path :
			options->paging == HTTP_PAGING_GRAPHQL ? "$.errors[0].message" : NULL;
		return;
	}
	plan->framing = strcmp(format, "ndjson") == 0 || strcmp(format, "text") == 0 ? HTTP_FRAMING_LINES :
		strcmp(format, "csv") == 0 ? HTTP_FRAMING_CSV :
		strcmp(format, "xml") == 0 ? HTTP_FRAMING_XML : HTTP_FRAMING_WHOLE;
	if (plan->framing == HTTP_FRAMING_XML)
		require(options->rows != NULL, "rows", "format \"xml\"");
	else if (options->rows)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"rows\" is for formats \"json\" and \"xml\"")));
	if (options->next || options->total || options->total_pages || options->has_more || options->error_path)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("paths in answers are for format \"json\""),
				 errhint("Pages of other formats can be found by link, page, offset or last_id.")));
}

/* ---- the look at rows ---- */

static int
find_column(const IngestSourceRelation *rel, const char *option, const char *name)
{
	for (int i = 0; i < rel->ncolumns; i++)
		if (strcmp(rel->columns[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_COLUMN_NAME_NOT_FOUND),
			 errmsg("option \"%s\" names a column that does not exist: \"%s\"", option, name),
			 errhint("It must be a column that holds a decoded value.")));
	return -1;
}

static void
find_key(HttpPlan *plan, const IngestSourceRelation *rel)
{
	char	   *copy;
	List	   *names;
	ListCell   *lc;

	if (plan->options->key == NULL)
		return;
	copy = pstrdup(plan->options->key);
	if (!SplitIdentifierString(copy, ',', &names) || names == NIL)
		raise_invalid("key", plan->options->key, "It is a list of columns, separated by commas.");
	plan->key = palloc(sizeof(int) * list_length(names));
	foreach(lc, names)
		plan->key[plan->nkey++] = find_column(rel, "key", lfirst(lc));
}

/*
 * A decoder for the columns that are looked at, as text but for the cursor.
 * Where columns go by their order, all of them.
 */
static void
start_probe(HttpPlan *plan, const IngestSourceRelation *rel)
{
	IngestColumn *columns;

	if (plan->cursor < 0 && plan->last_id < 0 && plan->nkey == 0)
		return;
	columns = palloc(sizeof(IngestColumn) * rel->ncolumns);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		bool		wanted = i == plan->cursor || i == plan->last_id ||
			(plan->framing == HTTP_FRAMING_CSV && !plan->csv_header);

		for (int k = 0; k < plan->nkey; k++)
			wanted |= plan->key[k] == i;
		if (!wanted)
			continue;
		columns[plan->nprobe] = rel->columns[i];
		columns[plan->nprobe].attnum = i + 1;
		if (i != plan->cursor)
		{
			columns[plan->nprobe].typid = TEXTOID;
			columns[plan->nprobe].typmod = -1;
		}
		plan->nprobe++;
	}
	plan->format = rel->format;
	plan->probe = rel->format->start(columns, plan->nprobe, rel->format_options);
	plan->nprobe = rel->ncolumns;
}

/* ---- the cursor ---- */

static int64
interval_micros(const char *option, const char *text)
{
	Interval   *interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));

	if (interval->month != 0)
		raise_invalid(option, text, "Months have different lengths: say it in days.");
	if (interval->time < 0 || interval->day < 0 || interval->time + interval->day <= 0)
		raise_invalid(option, text, "It is an interval such as '1 hour'.");
	return interval->time + interval->day * USECS_PER_DAY;
}

static void
parse_lag(HttpPlan *plan)
{
	const char *lag = plan->options->lag;
	char	   *end;

	if (lag == NULL)
		return;
	switch (plan->cursor_type)
	{
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case DATEOID:
			plan->lag = interval_micros("lag", lag);
			break;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			errno = 0;
			plan->lag = strtoll(lag, &end, 10);
			if (errno != 0 || end == lag || *end != '\0' || plan->lag < 0)
				raise_invalid("lag", lag, "For a cursor of integers it is a number.");
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("option \"lag\" is for cursors of times and integers")));
	}
}

static void
prepare_cursor(HttpPlan *plan, const IngestSourceRelation *rel)
{
	const HttpOptions *options = plan->options;
	TypeCacheEntry *cache;
	Oid			function;
	bool		varlena;

	if (plan->cursor >= 0)
		plan->cursor_type = rel->columns[plan->cursor].typid;
	else if (options->window || options->cursor_start)
		plan->cursor_type = TIMESTAMPTZOID;
	else
		return;
	switch (plan->cursor_type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case UUIDOID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("column \"%s\" cannot be a cursor", options->cursor),
					 errdetail("It has type %s.", format_type_be(plan->cursor_type)),
					 errhint("A cursor is a time, a date, a number, a uuid or text.")));
	}
	cache = lookup_type_cache(plan->cursor_type, TYPECACHE_CMP_PROC);
	fmgr_info(cache->cmp_proc, &plan->cursor_cmp);
	getTypeInputInfo(plan->cursor_type, &function, &plan->cursor_ioparam);
	fmgr_info(function, &plan->cursor_in);
	getTypeOutputInfo(plan->cursor_type, &function, &varlena);
	fmgr_info(function, &plan->cursor_out);
	/* What is text is compared by its bytes: the same everywhere. */
	plan->collation = plan->cursor_type == TEXTOID || plan->cursor_type == VARCHAROID ? C_COLLATION_OID : InvalidOid;
	parse_lag(plan);
	plan->spans = plan->lag > 0 || http_mark_resolution(plan) > 1;
	if (options->window)
	{
		if (plan->cursor_type != TIMESTAMPTZOID && plan->cursor_type != TIMESTAMPOID && plan->cursor_type != DATEOID)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("option \"window\" is for cursors of times")));
		plan->window = interval_micros("window", options->window);
		if (plan->cursor_type == DATEOID && plan->window % USECS_PER_DAY != 0)
			raise_invalid("window", options->window, "For a cursor of dates it is a number of days.");
	}
	if (options->cursor_start)
		(void) http_mark_value(plan, options->cursor_start);
}

static void
check_uses(HttpPlan *plan)
{
	static const char *const marks[] = {"cursor", "from", "to"};

	for (int i = 0; i < lengthof(marks); i++)
		if ((ingest_template_uses(plan->url, marks[i]) || (plan->body && ingest_template_uses(plan->body, marks[i]))) &&
			(i == 0 ? !OidIsValid(plan->cursor_type) : plan->window == 0))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("template uses {%s} without option \"%s\"", marks[i], i == 0 ? "cursor" : "window")));
}

static Oid
owner_of_table(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void *
http_prepare(const IngestSourceRelation *rel)
{
	HttpPlan   *plan = palloc0(sizeof(HttpPlan));
	const HttpOptions *options = rel->options;

	plan->options = options;
	plan->server = rel->server;
	plan->server_name = rel->server_name;
	plan->owner = rel->owner;
	plan->mapping = rel->mapping;
	plan->origin = rel->mapping ? ingest_http_auth_origin(&options->auth) : NULL;
	if (plan->origin)
		plan->token = ingest_token_read(plan->server_name, plan->mapping, plan->origin, CurrentMemoryContext);
	plan->table_owner = owner_of_table(rel->relid);
	/* All who have a say in where it goes. */
	plan->trusted = superuser_arg(rel->owner) && superuser_arg(plan->table_owner) &&
		superuser_arg(GetForeignServer(rel->server)->owner);
	plan->cursor = plan->last_id = -1;
	if (options->rate_limit)
		ingest_http_rate_parse("rate_limit", options->rate_limit, &plan->rate);
	if (options->ignore_status)
		(void) parse_statuses(options->ignore_status, plan->ignored, lengthof(plan->ignored));
	choose_framing(plan, rel);
	parse_templates(plan);
	if (options->cursor)
		plan->cursor = find_column(rel, "cursor", options->cursor);
	if (options->last_id)
		plan->last_id = find_column(rel, "last_id", options->last_id);
	find_key(plan, rel);
	prepare_cursor(plan, rel);
	check_uses(plan);
	start_probe(plan, rel);
	return plan;
}
