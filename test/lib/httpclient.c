/*
 * httpclient.c
 *		The HTTP client, callable from SQL: for test/t/100_http_client.pl.
 *
 * A library of its own, with the extension's code in it: what is under test is
 * not visible from outside the extension.  A call makes a client, sends its
 * requests, waits as a source's owner does, and says what came, and how long
 * the longest call took that must not wait.
 */
#include "postgres.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>

#include "catalog/pg_type.h"
#include "common/md5.h"
#include "core/clock.h"
#include "fmgr.h"
#include "http/client.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(http_run);
PGDLLEXPORT PG_FUNCTION_INFO_V1(http_url);
PGDLLEXPORT PG_FUNCTION_INFO_V1(http_count);

typedef struct Test
{
	Jsonb	   *options;
	IngestHttpClientOptions settings;
	IngestHttpRequest request;
	IngestHttpClient *client;
	int64		longest;		/* ms of a call that must not wait */
	int64		need;			/* streams: bytes of a piece; 0: not a stream */
	int64		hold;			/* streams: ms until the first piece is taken */
	int64		enough;			/* streams: bytes after which it is given up */
} Test;

typedef struct Run
{
	IngestHttpTransfer *transfer;
	StringInfoData taken;		/* of a stream */
	Size		most;			/* bytes that waited to be taken */
	bool		given_up;
	int64		begin;
	int64		ms;
	bool		ended;
} Run;

/* ---- options ---- */

static JsonbValue *
find_option(Test *test, const char *name)
{
	return getKeyJsonValueFromContainer(&test->options->root, name, strlen(name), NULL);
}

static char *
get_text(const JsonbValue *value)
{
	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	if (value->type == jbvBool)
		return pstrdup(value->val.boolean ? "1" : "0");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static char *
text_option(Test *test, const char *name)
{
	return get_text(find_option(test, name));
}

static int64
int_option(Test *test, const char *name, int64 fallback)
{
	char	   *text = text_option(test, name);

	return text ? strtoll(text, NULL, 10) : fallback;
}

static List *
add_headers(Test *test, const char *name, bool credential, List *headers)
{
	JsonbValue *object = find_option(test, name);
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	IngestHttpHeader *header = NULL;

	if (object == NULL)
		return headers;
	it = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		if (token == WJB_KEY)
		{
			header = palloc0(sizeof(*header));
			header->name = get_text(&value);
			header->credential = credential;
		}
		else if (token == WJB_VALUE)
		{
			header->value = get_text(&value);
			headers = lappend(headers, header);
		}
	return headers;
}

static void
read_options(Test *test)
{
	IngestHttpClientOptions *settings = &test->settings;
	IngestHttpRequest *request = &test->request;

	settings->allow_http = int_option(test, "allow_http", 1);
	settings->trusted = int_option(test, "trusted", 1);
	settings->ca = text_option(test, "ca");
	settings->client_cert = text_option(test, "client_cert");
	settings->client_key = text_option(test, "client_key");
	settings->connect_timeout = int_option(test, "connect_timeout", 5000);
	settings->timeout = int_option(test, "timeout", 20000);
	settings->idle_timeout = int_option(test, "idle_timeout", 10000);
	settings->max_response = int_option(test, "max_response", 16 * 1024 * 1024);
	settings->max_headers = int_option(test, "max_headers", 256 * 1024);
	settings->max_redirects = int_option(test, "max_redirects", 5);
	settings->compress = int_option(test, "compress", 1);
	settings->user_agent = text_option(test, "user_agent");

	request->method = text_option(test, "method");
	if (request->method == NULL)
		request->method = "GET";
	request->headers = add_headers(test, "credentials", true, add_headers(test, "headers", false, NIL));
	request->body = text_option(test, "body");
	request->body_len = request->body ? strlen(request->body) : 0;
	request->username = text_option(test, "username");
	request->password = text_option(test, "password");
	request->sigv4 = text_option(test, "sigv4");
	request->range_from = int_option(test, "range_from", 0);
	request->form = int_option(test, "form", 0);
	test->need = int_option(test, "stream", 0);
	test->hold = int_option(test, "hold", 0);
	test->enough = int_option(test, "enough", 0);
	request->stream = test->need > 0;
}

/* ---- running ---- */

#define TIMED(test, call) \
	do { \
		int64		timed_from = ingest_clock_ms(); \
\
		call; \
		(test)->longest = Max((test)->longest, ingest_clock_ms() - timed_from); \
	} while (0)

static void
start_run(Test *test, Run *run, char *url)
{
	Size		len = strlen(url);

	memset(run, 0, sizeof(*run));
	initStringInfo(&run->taken);
	run->begin = ingest_clock_ms();
	test->request.url = url;
	TIMED(test, run->transfer = ingest_http_start(test->client, &test->request));
	/* What was handed over is its caller's again. */
	memset(url, 'x', len);
}

/* As somebody does who wants pieces of so many bytes; what is left at the end is the last one. */
static void
take_pieces(Test *test, Run *run)
{
	for (;;)
	{
		Size		len;
		const char *body = ingest_http_body(run->transfer, &len);
		bool		done = ingest_http_state(run->transfer) != INGEST_HTTP_RUNNING;
		Size		take = len >= test->need ? test->need : done ? len : 0;

		run->most = Max(run->most, len);
		if (ingest_http_status(run->transfer) >= 300 || ingest_clock_ms() - run->begin < test->hold)
			return;
		appendBinaryStringInfo(&run->taken, body, take);
		TIMED(test, ingest_http_consume(run->transfer, take));
		if (test->enough > 0 && run->taken.len >= test->enough)
		{
			run->given_up = true;
			return;
		}
		if (take == 0)
			return;
	}
}

static void
look_at_run(Test *test, Run *run)
{
	if (run->transfer == NULL || run->ended)
		return;
	if (test->need > 0)
		take_pieces(test, run);
	if (!run->given_up && ingest_http_state(run->transfer) == INGEST_HTTP_RUNNING)
		return;
	/* Also what waits behind a stream's end. */
	if (!run->given_up && test->hold > 0 && ingest_clock_ms() - run->begin < test->hold)
		return;
	run->ended = true;
	run->ms = ingest_clock_ms() - run->begin;
}

static void
wait_for_client(Test *test)
{
	pgsocket	fd;
	long		timeout;

	ingest_http_client_wait_hint(test->client, &fd, &timeout);
	/* A held stream has nothing else to wake us. */
	if (test->hold > 0 && (timeout < 0 || timeout > 50))
		timeout = 50;
	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
							 (fd != PGINVALID_SOCKET ? WL_SOCKET_READABLE : 0) |
							 (timeout >= 0 ? WL_TIMEOUT : 0),
							 fd, timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	TIMED(test, ingest_http_client_work(test->client));
}

/* ---- what came ---- */

static void
add_member(StringInfo buf, const char *name, const char *value)
{
	appendStringInfo(buf, "%s\"%s\": ", buf->data[buf->len - 1] == '{' ? "" : ", ", name);
	if (value)
		escape_json(buf, value);
	else
		appendStringInfoString(buf, "null");
}

static void
add_number(StringInfo buf, const char *name, int64 value)
{
	appendStringInfo(buf, "%s\"%s\": " INT64_FORMAT, buf->data[buf->len - 1] == '{' ? "" : ", ", name, value);
}

/* Of those that option "show" names, "a,b": all that there are, with a line between them. */
static void
add_shown(StringInfo buf, Test *test, IngestHttpTransfer *transfer)
{
	char	   *names = text_option(test, "show");
	char	   *state;

	for (char *name = names ? strtok_r(names, ",", &state) : NULL; name; name = strtok_r(NULL, ",", &state))
	{
		StringInfoData all;
		const char *value;

		initStringInfo(&all);
		for (int n = 0; (value = ingest_http_header_nth(transfer, name, n)) != NULL; n++)
			appendStringInfo(&all, "%s%s", n > 0 ? "|" : "", value);
		add_member(buf, name, all.len > 0 || ingest_http_header(transfer, name) ? all.data : NULL);
	}
}

static void
add_body(StringInfo buf, Test *test, Run *run)
{
	char	   *body = run->taken.data;
	Size		len = run->taken.len;
	char		hash[33];
	const char *why;

	if (test->need == 0 || ingest_http_status(run->transfer) >= 300)
		body = ingest_http_take_body(run->transfer, CurrentMemoryContext, &len);
	add_number(buf, "length", len);
	if (pg_md5_hash(body, len, hash, &why))
		add_member(buf, "md5", hash);
	add_member(buf, "body", ingest_error_clean(body, len, 2000));
}

static void
add_error(StringInfo buf, const IngestError *err)
{
	add_member(buf, "class", ingest_error_class_name(err->class));
	add_member(buf, "sqlstate", unpack_sql_state(err->sqlstate));
	add_member(buf, "message", err->message);
	add_member(buf, "detail", err->detail);
	add_member(buf, "hint", err->hint);
}

static void
describe_run(StringInfo buf, Test *test, Run *run)
{
	IngestHttpState state = ingest_http_state(run->transfer);
	bool		failed = state == INGEST_HTTP_FAILED;

	appendStringInfoChar(buf, '{');
	add_member(buf, "state", failed ? "failed" : state == INGEST_HTTP_DONE ? "done" : "running");
	add_number(buf, "status", ingest_http_status(run->transfer));
	add_member(buf, "url", ingest_http_url(run->transfer));
	add_number(buf, "received", ingest_http_received(run->transfer));
	add_number(buf, "most", run->most);
	add_number(buf, "ms", run->ms);
	add_shown(buf, test, run->transfer);
	add_body(buf, test, run);
	if (failed)
		add_error(buf, ingest_http_error(run->transfer));
	TIMED(test, ingest_http_end(run->transfer));
	add_number(buf, "longest", test->longest);
	appendStringInfoChar(buf, '}');
}

static bool
is_same_mask(const sigset_t *a, const sigset_t *b)
{
	for (int i = 1; i < NSIG; i++)
		if (sigismember(a, i) != sigismember(b, i))
			return false;
	return true;
}

/* URLs, options: an array of what came, in the order of the URLs */
Datum
http_run(PG_FUNCTION_ARGS)
{
	Test		test = {.options = PG_GETARG_JSONB_P(1)};
	bool		in_turn;
	MemoryContext mcxt;
	IngestError err;
	Datum	   *urls;
	Run		   *runs;
	int			n;
	int			started = 0;
	sigset_t	before;
	sigset_t	after;
	StringInfoData buf;

	read_options(&test);
	in_turn = int_option(&test, "in_turn", 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &urls, NULL, &n);
	runs = palloc0(sizeof(Run) * n);

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	/* An error, or a cancel, takes it away like everything of a transaction. */
	mcxt = AllocSetContextCreate(CurTransactionContext, "test", ALLOCSET_DEFAULT_SIZES);
	test.client = ingest_http_client_create(&test.settings, mcxt, &err);
	if (test.client == NULL)
		ingest_error_report(&err, ERROR);
	for (;;)
	{
		bool		all = true;

		while (started < n && (!in_turn || started == 0 || runs[started - 1].ended))
		{
			start_run(&test, &runs[started], TextDatumGetCString(urls[started]));
			started++;
		}
		for (int i = 0; i < n; i++)
		{
			look_at_run(&test, &runs[i]);
			all &= runs[i].ended;
		}
		if (all)
			break;
		if (started == n || !runs[started - 1].ended)
			wait_for_client(&test);
	}
	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
	{
		appendStringInfoChar(&buf, i == 0 ? '[' : ',');
		describe_run(&buf, &test, &runs[i]);
	}
	appendStringInfoChar(&buf, ']');
	MemoryContextDelete(mcxt);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	if (!is_same_mask(&before, &after))
		elog(ERROR, "signals are not as they were");
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data)));
}

/* ---- the rest ---- */

/* what, two texts */
Datum
http_url(PG_FUNCTION_ARGS)
{
	char	   *what = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *a = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *b = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *result = NULL;

	if (strcmp(what, "public") == 0)
		result = ingest_http_public_url(a);
	else if (strcmp(what, "resolve") == 0)
		result = ingest_http_resolve_url(a, b);
	else if (strcmp(what, "same") == 0)
		result = ingest_http_same_origin(a, b) ? "yes" : "no";
	else
	{
		ingest_http_check_url("url", a);
		result = "good";
	}
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

/* Entries of a directory: of our threads, of our descriptors. */
Datum
http_count(PG_FUNCTION_ARGS)
{
	DIR		   *dir = opendir(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	int			n = 0;

	if (dir == NULL)
		elog(ERROR, "could not open directory: %m");
	while (readdir(dir))
		n++;
	closedir(dir);
	PG_RETURN_INT32(n - 2);
}
