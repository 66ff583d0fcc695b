/*
 * httpauth.c
 *		Authentication to HTTP servers, callable from SQL: for test/t/101_http_auth.pl.
 *
 * A library of its own, with the extension's code in it: what is under test is
 * not visible from outside the extension.  One client and one authentication a
 * session.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/token.h"
#include "core/clock.h"
#include "fmgr.h"
#include "http/auth_options.h"
#include "http/jwt.h"
#include "http/secret.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(test_jwt);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_open);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_ready);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_get);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_burst);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_rotated);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_reload);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_redact);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_wiped);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_store);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_stored);

typedef struct TestOptions
{
	int64		first;			/* the fields of the other are not at the struct's beginning */
	IngestHttpAuthOptions auth;
} TestOptions;

static const IngestOptionDef test_options[] = {
	INGEST_HTTP_AUTH_OPTIONS(TestOptions, auth),
	INGEST_OPTION_END
};

static MemoryContext session;
static TestOptions options;
static IngestHttpClient *client;
static IngestHttpAuth *auth;

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* algorithm, key, key id, issuer, subject, audience, scope, seconds */
Datum
test_jwt(PG_FUNCTION_ARGS)
{
	char	   *algorithm = text_arg(fcinfo, 0);
	IngestJwtClaims claims = {
		.key_id = text_arg(fcinfo, 2), .issuer = text_arg(fcinfo, 3), .subject = text_arg(fcinfo, 4),
		.audience = text_arg(fcinfo, 5), .scope = text_arg(fcinfo, 6)
	};
	const char *why = NULL;
	char	   *jwt = NULL;

	claims.issued_at = (int64) time(NULL);
	claims.expires_at = claims.issued_at + PG_GETARG_INT32(7);
	for (int i = 0; ingest_http_auth_jwt_algorithms[i]; i++)
		if (strcmp(ingest_http_auth_jwt_algorithms[i], algorithm) == 0)
			jwt = ingest_jwt_sign(&claims, i, text_arg(fcinfo, 1), &why);
	if (jwt == NULL)
		ereport(ERROR, (errmsg("no JWT: %s", why ? why : "no such algorithm")));
	PG_RETURN_TEXT_P(cstring_to_text(jwt));
}

static List *
parse_options(ArrayType *array)
{
	const IngestOptionDef *const tables[] = {test_options, NULL};
	Datum	   *elements;
	int			n;
	List	   *result = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(elements[i]);
		char	   *value = strchr(name, '=');

		*value++ = '\0';
		ingest_option_check(tables, INGEST_SCOPE_USER, name, value);
		result = lappend(result, makeDefElem(name, (Node *) makeString(value), -1));
	}
	return result;
}

/* options as name=value, the stored refresh token or NULL, timeout in ms */
Datum
test_open(PG_FUNCTION_ARGS)
{
	IngestHttpClientOptions *settings;
	MemoryContext old;
	IngestError err;

	if (session)
		MemoryContextDelete(session);
	auth = NULL;
	session = AllocSetContextCreate(TopMemoryContext, "test", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(session);
	memset(&options, 0, sizeof(options));
	ingest_option_parse(test_options, parse_options(PG_GETARG_ARRAYTYPE_P(0)), &options);
	ingest_http_auth_check(&options.auth);
	settings = palloc0(sizeof(*settings));
	settings->trusted = true;
	settings->connect_timeout = PG_GETARG_INT32(2);
	settings->timeout = PG_GETARG_INT32(2);
	settings->idle_timeout = PG_GETARG_INT32(2);
	settings->max_response = 64 * 1024 * 1024;
	settings->max_headers = 256 * 1024;
	settings->max_redirects = 5;
	settings->user_agent = "ingest test";
	client = ingest_http_client_create(settings, session, &err);
	if (client == NULL)
		ingest_error_report(&err, ERROR);
	auth = ingest_http_auth_create(&options.auth, text_arg(fcinfo, 1), client, session);
	MemoryContextSwitchTo(old);
	PG_RETURN_VOID();
}

static void
wait_for_client(void)
{
	pgsocket	fd;
	long		timeout;

	ingest_http_client_wait_hint(client, &fd, &timeout);
	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
							 (fd != PGINVALID_SOCKET ? WL_SOCKET_READABLE : 0) |
							 (timeout >= 0 ? WL_TIMEOUT : 0),
							 fd, timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	ingest_http_client_work(client);
}

static bool
wait_until_ready(IngestError *err)
{
	IngestHttpAuthState state;

	while ((state = ingest_http_auth_ready(auth, err)) == INGEST_HTTP_AUTH_WAIT)
		wait_for_client();
	return state == INGEST_HTTP_AUTH_READY;
}

static char *
describe_error(const IngestError *err)
{
	return psprintf("%s %s%s: %s | %s | %s", ingest_error_class_name(err->class),
					unpack_sql_state(err->sqlstate), err->retry_after ? psprintf(" (" INT64_FORMAT " ms)", err->retry_after) : "",
					err->message, err->detail ? err->detail : "", err->hint ? err->hint : "");
}

Datum
test_ready(PG_FUNCTION_ARGS)
{
	IngestError err;

	if (wait_until_ready(&err))
		PG_RETURN_TEXT_P(cstring_to_text("ready"));
	PG_RETURN_TEXT_P(cstring_to_text(describe_error(&err)));
}

static IngestHttpTransfer *
send_request(const char *url, uint32 *token)
{
	IngestHttpRequest request = {.method = "GET", .url = url};

	*token = ingest_http_auth_apply(auth, &request);
	return ingest_http_start(client, &request);
}

/* As the source does it: "200: body", or an error. */
static char *
get(const char *url)
{
	for (;;)
	{
		IngestHttpTransfer *transfer;
		IngestError err;
		uint32		token;
		const char *body;
		Size		len;
		char	   *result;
		int			status;

		if (!wait_until_ready(&err))
			return describe_error(&err);
		transfer = send_request(url, &token);
		while (ingest_http_state(transfer) == INGEST_HTTP_RUNNING)
			wait_for_client();
		if (ingest_http_state(transfer) == INGEST_HTTP_FAILED)
			return describe_error(ingest_http_error(transfer));
		status = ingest_http_status(transfer);
		body = ingest_http_body(transfer, &len);
		result = psprintf("%d: %s", status, ingest_http_auth_redact(auth, body, len));
		ingest_http_end(transfer);
		if (status == 401 && ingest_http_auth_refused(auth, token))
			continue;
		if (status < 300)
			ingest_http_auth_accepted(auth);
		return result;
	}
}

Datum
test_get(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(get(text_arg(fcinfo, 0))));
}

/* Several requests with one token; what each 401 leads to, in order. */
Datum
test_burst(PG_FUNCTION_ARGS)
{
	char	   *url = text_arg(fcinfo, 0);
	int			n = PG_GETARG_INT32(1);
	IngestHttpTransfer **transfers = palloc(sizeof(*transfers) * n);
	uint32	   *tokens = palloc(sizeof(*tokens) * n);
	StringInfoData buf;
	IngestError err;

	initStringInfo(&buf);
	if (!wait_until_ready(&err))
		PG_RETURN_TEXT_P(cstring_to_text(describe_error(&err)));
	for (int i = 0; i < n; i++)
		transfers[i] = send_request(url, &tokens[i]);
	for (int i = 0; i < n; i++)
	{
		while (ingest_http_state(transfers[i]) == INGEST_HTTP_RUNNING)
			wait_for_client();
		if (ingest_http_status(transfers[i]) == 401)
			appendStringInfo(&buf, "%s ", ingest_http_auth_refused(auth, tokens[i]) ? "again" : "failed");
		else
		{
			ingest_http_auth_accepted(auth);
			appendStringInfo(&buf, "%d ", ingest_http_status(transfers[i]));
		}
		ingest_http_end(transfers[i]);
		/* The others are refused when there is a new one already. */
		if (!wait_until_ready(&err))
			PG_RETURN_TEXT_P(cstring_to_text(describe_error(&err)));
	}
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

Datum
test_rotated(PG_FUNCTION_ARGS)
{
	const char *token = ingest_http_auth_rotated(auth);

	if (token == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(token));
}

Datum
test_reload(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(ingest_http_auth_reload(auth, text_arg(fcinfo, 0)));
}

/* What is left of a secret in the memory of a context that was reset. */
Datum
test_wiped(PG_FUNCTION_ARGS)
{
	char	   *secret = text_arg(fcinfo, 0);
	MemoryContext mcxt = AllocSetContextCreate(CurrentMemoryContext, "wiped", ALLOCSET_DEFAULT_SIZES);
	IngestSecrets *secrets = ingest_secrets_create(mcxt);
	const volatile char *kept = ingest_secrets_add(secrets, secret);
	const volatile char *removed = ingest_secrets_add(secrets, secret);
	int			left = 0;

	ingest_secrets_remove(secrets, unvolatize(char *, unconstify(volatile char *, removed)));
	/* The first block of a context stays: it can be looked at. */
	MemoryContextReset(mcxt);
	for (size_t i = 0; i < strlen(secret); i++)
		left += (kept[i] == secret[i]) + (removed[i] == secret[i]);
	PG_RETURN_INT32(left);
}

Datum
test_redact(PG_FUNCTION_ARGS)
{
	char	   *text = text_arg(fcinfo, 0);

	PG_RETURN_TEXT_P(cstring_to_text(ingest_http_auth_redact(auth, text, strlen(text))));
}

/* server, username: keep what was rotated, as the source does it */
Datum
test_store(PG_FUNCTION_ARGS)
{
	const char *token = ingest_http_auth_rotated(auth);
	char	   *origin = ingest_http_auth_origin(&options.auth);

	if (token == NULL || origin == NULL)
		PG_RETURN_BOOL(false);
	ingest_token_write(text_arg(fcinfo, 0), text_arg(fcinfo, 1), origin, token);
	ingest_http_auth_stored(auth);
	PG_RETURN_BOOL(true);
}

/* server, username, options: what is kept for them */
Datum
test_stored(PG_FUNCTION_ARGS)
{
	TestOptions now = {0};
	char	   *origin;
	char	   *token;

	ingest_option_parse(test_options, parse_options(PG_GETARG_ARRAYTYPE_P(2)), &now);
	origin = ingest_http_auth_origin(&now.auth);
	token = origin ? ingest_token_read(text_arg(fcinfo, 0), text_arg(fcinfo, 1), origin, CurrentMemoryContext) : NULL;
	if (token == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(token));
}
