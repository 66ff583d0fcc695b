/*
 * auth.c
 *		Who we are to an HTTP server: credentials of requests, tokens and how to
 *		get them.
 *
 * Tokens come from OAuth 2 (RFC 6749: client credentials, refresh token; RFC
 * 7523: assertion) or are JWTs made here.  Waiting is the client's owner's
 * business: ready() starts a request for a token and looks whether it is done.
 * What the options must be is in auth_check.c, keeping a rotated refresh token
 * in catalog/token.c, hiding secrets in secret.c.
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>
#include <time.h>

#include "core/clock.h"
#include "format/document.h"
#include "http/auth_private.h"
#include "http/jwt.h"
#include "http/limit.h"
#include "http/secret.h"
#include "http/template.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

/* An answer of a token endpoint that is larger is none. */
#define MAX_ANSWER (64 * 1024)
#define MAX_ANSWER_DEPTH 32

/* How much of somebody's text is shown. */
#define MAX_SHOWN 200

/* A token is renewed so long before its end, or a tenth of its life when that is less. */
#define RENEWAL_MARGIN 30000

/* How long a token is used of which nobody said how long it lasts, in ms. */
#define UNKNOWN_LIFETIME (60 * 60 * 1000)
#define MIN_LIFETIME 1000
#define MAX_LIFETIME (INT64CONST(365) * 24 * 60 * 60 * 1000)

/* A token endpoint that failed is left alone for so long, in ms. */
#define FAILURE_PAUSE 500

/* One that failed while the token is still good, in ms. */
#define RENEWAL_PAUSE 5000

/* The longest that Retry-After is believed, in ms. */
#define MAX_RETRY_AFTER (INT64CONST(24) * 60 * 60 * 1000)

/* Clocks differ: a JWT is made as of so many seconds ago. */
#define JWT_BACKDATE 10

#define ASSERTION_GRANT "urn:ietf:params:oauth:grant-type:jwt-bearer"

struct IngestHttpAuth
{
	IngestHttpAuthOptions options;	/* ours */
	IngestHttpAuthKind kind;
	IngestHttpClient *client;
	MemoryContext mcxt;
	MemoryContext scratch;		/* of one request for a token, and its answer */
	IngestSecrets *secrets;

	char	   *token;
	char	   *authorization;	/* header with the token; or NULL: there is none to use */
	char	   *old_token;		/* the one before: answers may still show it */
	uint32		serial;			/* of the token */
	int64		renew_at;		/* this and the others: by ingest_clock_ms() */
	int64		expires_at;
	bool		refused;		/* one was, and no request has succeeded since */

	char	   *refresh_token;
	bool		rotated;		/* and not stored yet */

	IngestHttpTransfer *transfer;	/* request for a token, or NULL */
	int64		asked_at;
	char	   *sent;			/* assertion in it, or NULL */
	IngestError failure;		/* of the last one */
	int64		failed_until;
};

/*
 * ---- The token there is
 */

bool
ingest_http_auth_is_token(const char *text)
{
	for (const char *at = text; *at; at++)
		if (*at <= ' ' || *at > '~')
			return false;
	return *text != '\0';
}

static void
drop_token(IngestHttpAuth *auth)
{
	if (auth->token == NULL)
		return;
	ingest_secrets_remove(auth->secrets, auth->old_token);
	auth->old_token = auth->token;
	auth->token = NULL;
	ingest_secrets_remove(auth->secrets, auth->authorization);
	auth->authorization = NULL;
}

/* lifetime: in ms, from "since" on */
static void
use_token(IngestHttpAuth *auth, const char *token, int64 since, int64 lifetime)
{
	Size		size = strlen("Bearer ") + strlen(token) + 1;
	char	   *header = palloc(size);

	drop_token(auth);
	snprintf(header, size, "Bearer %s", token);
	auth->token = ingest_secrets_add(auth->secrets, token);
	auth->authorization = ingest_secrets_hold(auth->secrets, header);
	explicit_bzero(header, size);
	pfree(header);
	auth->serial++;
	lifetime = Min(Max(lifetime, MIN_LIFETIME), MAX_LIFETIME);
	auth->expires_at = since + lifetime;
	auth->renew_at = auth->expires_at - Min(RENEWAL_MARGIN, lifetime / 10);
}

/*
 * ---- Encoding
 */

void
ingest_http_auth_encode_byte(StringInfo buf, int byte, const char *keep)
{
	static const char hex[] = "0123456789ABCDEF";

	if (byte < 0x80 && byte > 0 &&
		(isalnum(byte) || strchr("-._~", byte) != NULL || strchr(keep, byte) != NULL))
		appendStringInfoCharMacro(buf, byte);
	else
	{
		appendStringInfoCharMacro(buf, '%');
		appendStringInfoCharMacro(buf, hex[byte >> 4]);
		appendStringInfoCharMacro(buf, hex[byte & 15]);
	}
}

/* As a field of a form: application/x-www-form-urlencoded. */
static void
append_encoded(StringInfo buf, const char *value)
{
	for (const char *at = value; *at; at++)
	{
		if (*at == ' ')
			appendStringInfoCharMacro(buf, '+');
		else
			ingest_http_auth_encode_byte(buf, (unsigned char) *at, "");
	}
}

static char *
encode_text(const char *value)
{
	StringInfoData buf;

	initStringInfo(&buf);
	enlargeStringInfo(&buf, 3 * strlen(value) + 1);
	append_encoded(&buf, value);
	return buf.data;
}

/*
 * ---- Life
 */

static void
copy_options(IngestHttpAuth *auth, const IngestHttpAuthOptions *options)
{
	auth->options = *options;
	for (const IngestHttpAuthField *field = ingest_http_auth_fields; field->name; field++)
	{
		char	  **text = (char **) ((char *) &auth->options + field->offset);

		if (field->secret)
			*text = ingest_secrets_add(auth->secrets, *text);
		else if (*text)
			*text = pstrdup(*text);
	}
}

/* In Base64, a short secret cannot be found without what stands before it. */
static void
add_pair(IngestHttpAuth *auth, const char *user, const char *password)
{
	char	   *pair = psprintf("%s:%s", user, password);

	ingest_secrets_add_encoded(auth->secrets, pair);
	explicit_bzero(pair, strlen(pair));
	pfree(pair);
}

IngestHttpAuth *
ingest_http_auth_create(const IngestHttpAuthOptions *options, const char *stored,
						IngestHttpClient *client, MemoryContext mcxt)
{
	MemoryContext own = AllocSetContextCreate(mcxt, "ingest http auth", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	IngestHttpAuth *auth = palloc0(sizeof(*auth));

	auth->mcxt = own;
	auth->client = client;
	auth->secrets = ingest_secrets_create(own);
	auth->scratch = AllocSetContextCreate(own, "ingest http token", ALLOCSET_SMALL_SIZES);
	auth->kind = ingest_http_auth_kind(options);
	copy_options(auth, options);
	if (auth->options.username && auth->options.password)
		add_pair(auth, auth->options.username, auth->options.password);
	if (auth->options.client_id && auth->options.client_secret)
		add_pair(auth, encode_text(auth->options.client_id), encode_text(auth->options.client_secret));
	if (auth->kind == INGEST_HTTP_AUTH_BEARER)
		use_token(auth, auth->options.token, 0, MAX_LIFETIME);
	if (auth->options.refresh_token)
		auth->refresh_token = ingest_secrets_add(auth->secrets,
												 stored ? stored : auth->options.refresh_token);
	MemoryContextSwitchTo(old);
	return auth;
}

char *
ingest_http_auth_origin(const IngestHttpAuthOptions *options)
{
	if (ingest_http_auth_kind(options) != INGEST_HTTP_AUTH_OAUTH2 || options->refresh_token == NULL)
		return NULL;
	return psprintf("%s\n%s\n%s", options->token_url ? options->token_url : "",
					options->client_id ? options->client_id : "", options->refresh_token);
}

/*
 * ---- Tokens made here
 */

/* What a JWT says, for us as bearer or for the token endpoint. */
static IngestJwtClaims
make_claims(const IngestHttpAuth *auth)
{
	const IngestHttpAuthOptions *options = &auth->options;
	bool		assertion = auth->kind == INGEST_HTTP_AUTH_OAUTH2;
	IngestJwtClaims claims = {0};

	claims.key_id = options->jwt_key_id;
	claims.issuer = options->jwt_issuer ? options->jwt_issuer : options->client_id;
	claims.subject = options->jwt_subject ? options->jwt_subject : assertion ? claims.issuer : NULL;
	claims.audience = options->jwt_audience ? options->jwt_audience : assertion ? options->token_url : NULL;
	claims.scope = options->scope;
	claims.issued_at = (int64) time(NULL) - JWT_BACKDATE;
	claims.expires_at = claims.issued_at + options->jwt_lifetime / 1000;
	return claims;
}

/* One of our secrets; NULL: *err. */
static char *
make_jwt(IngestHttpAuth *auth, IngestError *err)
{
	IngestJwtClaims claims = make_claims(auth);
	MemoryContext old = MemoryContextSwitchTo(auth->scratch);
	const char *why;
	char	   *jwt = ingest_jwt_sign(&claims, auth->options.jwt_algorithm, auth->options.jwt_key, &why);
	char	   *result = ingest_secrets_add(auth->secrets, jwt);

	if (jwt)
		explicit_bzero(jwt, strlen(jwt));
	MemoryContextSwitchTo(old);
	MemoryContextReset(auth->scratch);
	if (result == NULL)
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
						 "cannot sign a JWT with the key in option \"%s\"", "jwt_key");
		ingest_error_detail(err, "%s", why);
	}
	return result;
}

static IngestHttpAuthState
renew_jwt(IngestHttpAuth *auth, IngestError *err)
{
	int64		now = ingest_clock_ms();
	char	   *jwt = make_jwt(auth, err);

	if (jwt == NULL)
		return INGEST_HTTP_AUTH_FAILED;
	use_token(auth, jwt, now, auth->options.jwt_lifetime - JWT_BACKDATE * 1000);
	ingest_secrets_remove(auth->secrets, jwt);
	return INGEST_HTTP_AUTH_READY;
}

/*
 * ---- Asking for a token
 */

void
ingest_http_auth_add_header(IngestHttpRequest *request, const char *name, const char *value, bool credential)
{
	IngestHttpHeader *header = palloc(sizeof(*header));

	header->name = name;
	header->value = value;
	header->credential = credential;
	request->headers = lappend(request->headers, header);
}

static void
append_field(StringInfo buf, const char *name, const char *value)
{
	if (value == NULL)
		return;
	if (buf->len > 0)
		appendStringInfoChar(buf, '&');
	appendStringInfoString(buf, name);
	appendStringInfoChar(buf, '=');
	append_encoded(buf, value);
}

/* Who we are to the token endpoint; without a secret only the body can say it (RFC 6749, 2.3.1). */
static void
add_client(IngestHttpAuth *auth, IngestHttpRequest *request, StringInfo body)
{
	const IngestHttpAuthOptions *options = &auth->options;

	if (options->client_id && options->client_secret && options->client_auth == 0)
	{
		request->username = encode_text(options->client_id);
		request->password = encode_text(options->client_secret);
	}
	else
	{
		append_field(body, "client_id", options->client_id);
		append_field(body, "client_secret", options->client_secret);
	}
}

static void
add_grant(IngestHttpAuth *auth, StringInfo body)
{
	if (auth->sent)
	{
		append_field(body, "grant_type", ASSERTION_GRANT);
		append_field(body, "assertion", auth->sent);
	}
	else if (auth->refresh_token)
	{
		append_field(body, "grant_type", "refresh_token");
		append_field(body, "refresh_token", auth->refresh_token);
	}
	else
		append_field(body, "grant_type", "client_credentials");
	append_field(body, "scope", auth->options.scope);
	append_field(body, "audience", auth->options.audience);
}

/* Room for all of it at once: a buffer that moves leaves secrets behind. */
static void
begin_body(IngestHttpAuth *auth, StringInfo body)
{
	const char *const texts[] = {
		auth->sent, auth->refresh_token, auth->options.scope, auth->options.audience,
		auth->options.client_id, auth->options.client_secret
	};
	Size		size = 512;

	for (int i = 0; i < lengthof(texts); i++)
		size += texts[i] ? 3 * strlen(texts[i]) : 0;
	initStringInfo(body);
	enlargeStringInfo(body, size);
}

static void
ask_for_token(IngestHttpAuth *auth)
{
	MemoryContext old = MemoryContextSwitchTo(auth->scratch);
	IngestHttpRequest request = {.method = "POST", .url = auth->options.token_url, .form = true};
	StringInfoData body;

	begin_body(auth, &body);
	ingest_http_auth_add_header(&request, "Content-Type", "application/x-www-form-urlencoded", false);
	ingest_http_auth_add_header(&request, "Accept", "application/json", false);
	add_grant(auth, &body);
	add_client(auth, &request, &body);
	request.body = body.data;
	request.body_len = body.len;
	auth->asked_at = ingest_clock_ms();
	auth->transfer = ingest_http_start(auth->client, &request);
	if (request.password)
		explicit_bzero(unconstify(char *, request.password), strlen(request.password));
	explicit_bzero(body.data, body.maxlen);
	MemoryContextSwitchTo(old);
	MemoryContextReset(auth->scratch);
}

/*
 * ---- What the token endpoint says
 */

enum
{
	ACCESS_TOKEN, TOKEN_TYPE, EXPIRES_IN, REFRESH_TOKEN, ERROR_CODE, ERROR_TEXT, ERROR_MESSAGE,
	NVALUES
};

static const char *const answer_paths[NVALUES] = {
	[ACCESS_TOKEN] = "$.access_token",
	[TOKEN_TYPE] = "$.token_type",
	[EXPIRES_IN] = "$.expires_in",
	[REFRESH_TOKEN] = "$.refresh_token",
	[ERROR_CODE] = "$.error",
	[ERROR_TEXT] = "$.error_description",
	[ERROR_MESSAGE] = "$.error.message"
};

/* NULL: it is not JSON. */
static IngestDocumentValue *
read_answer(const char *body, Size len)
{
	IngestDocumentQuery query = {
		.rows = "$", .paths = answer_paths, .npaths = NVALUES, .max_depth = MAX_ANSWER_DEPTH
	};
	IngestDocument document;
	IngestRowError error;

	if (len > MAX_ANSWER || memchr(body, '\0', len) != NULL ||
		pg_encoding_verifymbstr(PG_UTF8, body, len) != len ||
		!ingest_document_read(&query, body, len, &document, &error))
		return NULL;
	return document.values;
}

/* The text of a value that is a string, or a number; else NULL. */
static const char *
scalar_of(const IngestDocumentValue *values, int which)
{
	const IngestDocumentValue *value = values ? &values[which] : NULL;

	if (value == NULL || value->text == NULL)
		return NULL;
	return value->kind == '"' || value->kind == 0 ? value->text : NULL;
}

/* Somebody's text, fit for a message. */
static char *
show(IngestHttpAuth *auth, const char *text, Size len)
{
	char	   *redacted = ingest_secrets_redact(auth->secrets, text, len);

	return ingest_error_clean(redacted, strlen(redacted), MAX_SHOWN);
}

/* "401: invalid_client: no such client", or what the body begins with. */
static char *
describe_answer(IngestHttpAuth *auth, int status, const IngestDocumentValue *values,
				const char *body, Size len)
{
	const char *code = scalar_of(values, ERROR_CODE);
	const char *text = scalar_of(values, ERROR_TEXT);

	if (text == NULL)
		text = scalar_of(values, ERROR_MESSAGE);
	if (code && text)
		return psprintf("%d: %s: %s", status, show(auth, code, strlen(code)),
						show(auth, text, strlen(text)));
	if (code || text)
		return psprintf("%d: %s", status, show(auth, code ? code : text, strlen(code ? code : text)));
	/* An answer that may hold a token, in a form that we cannot read, is not shown. */
	if (len > 0 && !(status < 300 && memmem(body, len, "token", strlen("token")) != NULL))
		return psprintf("%d: %s", status, show(auth, body, Min(len, MAX_ANSWER)));
	return psprintf("%d", status);
}

/* How long until we may ask again, in ms; 0: nothing was said. */
static int64
retry_after(IngestHttpTransfer *transfer)
{
	const char *value = ingest_http_header(transfer, "Retry-After");

	if (value == NULL)
		return 0;
	return Max(ingest_http_retry_after(value, ingest_http_header(transfer, "Date"), MAX_RETRY_AFTER), 0);
}

static bool
status_is_transient(int status)
{
	return status == 408 || status == 425 || status == 429 || status >= 500;
}

/* Some say with 400 what is for later. */
static bool
code_is_transient(const char *code)
{
	return code && (strcmp(code, "temporarily_unavailable") == 0 || strcmp(code, "server_error") == 0 ||
					strcmp(code, "slow_down") == 0);
}

static void
judge_refusal(IngestHttpAuth *auth, int status, const IngestDocumentValue *values,
			  const char *body, Size len, IngestError *err)
{
	const char *endpoint = ingest_http_public_url(auth->options.token_url);
	const char *code = scalar_of(values, ERROR_CODE);

	if (status_is_transient(status) || code_is_transient(code))
	{
		ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE,
						 "token endpoint %s cannot give a token now", endpoint);
		err->retry_after = retry_after(auth->transfer);
	}
	else if (status >= 300 && status < 400)
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
						 "token endpoint %s redirects", endpoint);
		ingest_error_detail(err, "The server answered %d; credentials are not sent on.", status);
		ingest_error_hint(err, "Set the user mapping's option \"token_url\" to where the endpoint is.");
		return;
	}
	else if (code || status == 400 || status == 401 || status == 403)
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
						 "token endpoint %s refused to give a token", endpoint);
		if (code && strcmp(code, "invalid_grant") == 0 && auth->refresh_token)
			ingest_error_hint(err, "The refresh token is not valid any more; set a new one with ALTER USER MAPPING.");
		else
			ingest_error_hint(err, "Check the credentials of the user mapping.");
	}
	else
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
						 "%s is not a token endpoint", endpoint);
		ingest_error_hint(err, "Check the user mapping's option \"token_url\".");
	}
	ingest_error_detail(err, "The server answered %s", describe_answer(auth, status, values, body, len));
}

static void
set_unusable(IngestHttpAuth *auth, IngestError *err, const char *what)
{
	ingest_error_set(err, INGEST_ERROR_PERMANENT, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
					 "token endpoint %s gave an answer that cannot be used",
					 ingest_http_public_url(auth->options.token_url));
	ingest_error_detail(err, "%s", what);
}

/* In ms; some write the number as a string. */
static int64
lifetime_of(const IngestDocumentValue *values)
{
	const char *text = scalar_of(values, EXPIRES_IN);
	char	   *end;
	double		seconds;

	if (text == NULL)
		return UNKNOWN_LIFETIME;
	seconds = strtod(text, &end);
	if (end == text || *end != '\0' || isnan(seconds))
		return UNKNOWN_LIFETIME;
	return (int64) (Min(Max(seconds, 0), MAX_LIFETIME / 1000) * 1000);
}

/* false: *err */
static bool
take_token(IngestHttpAuth *auth, int status, const IngestDocumentValue *values,
		   const char *body, Size len, IngestError *err)
{
	const char *token = scalar_of(values, ACCESS_TOKEN);
	const char *type = scalar_of(values, TOKEN_TYPE);
	const char *refresh = scalar_of(values, REFRESH_TOKEN);

	if (values == NULL)
		set_unusable(auth, err, psprintf("It is not JSON.  The server answered %s",
										 describe_answer(auth, status, NULL, body, len)));
	else if (token == NULL)
		set_unusable(auth, err, psprintf("It has no \"access_token\".  The server answered %s",
										 describe_answer(auth, status, values, body, len)));
	else if (!ingest_http_auth_is_token(token))
		set_unusable(auth, err, "The access token has characters that cannot stand in a header.");
	else if (type && pg_strcasecmp(type, "bearer") != 0 && pg_strcasecmp(type, "bearertoken") != 0)
		set_unusable(auth, err, psprintf("The token is of type \"%s\", only \"Bearer\" can be used.",
										 show(auth, type, strlen(type))));
	else
	{
		use_token(auth, token, auth->asked_at, lifetime_of(values));
		/* Only what replaces ours is kept: of other grants it says nothing new. */
		if (refresh && *refresh && auth->refresh_token && strcmp(refresh, auth->refresh_token) != 0)
		{
			ingest_secrets_remove(auth->secrets, auth->refresh_token);
			auth->refresh_token = ingest_secrets_add(auth->secrets, refresh);
			auth->rotated = true;
		}
		return true;
	}
	return false;
}

/* The endpoint has answered.  mcxt: scratch */
static bool
judge_answer(IngestHttpAuth *auth, IngestError *err)
{
	int			status = ingest_http_status(auth->transfer);
	Size		len;
	const char *body = ingest_http_body(auth->transfer, &len);
	IngestDocumentValue *values = read_answer(body, len);
	bool		ok = false;

	/* There are those who refuse with 200. */
	if (status < 200 || status > 299 || (scalar_of(values, ERROR_CODE) && !scalar_of(values, ACCESS_TOKEN)))
		judge_refusal(auth, status, values, body, len, err);
	else
		ok = take_token(auth, status, values, body, len, err);
	for (int i = 0; values && i < NVALUES; i++)
		if (values[i].text)
			explicit_bzero(values[i].text, strlen(values[i].text));
	return ok;
}

/* The client could not do it.  mcxt: scratch */
static void
judge_failure(IngestHttpAuth *auth, IngestError *err)
{
	const IngestError *cause = ingest_http_error(auth->transfer);

	ingest_error_set(err, cause->class, cause->sqlstate, "cannot get a token: %s",
					 show(auth, cause->message, strlen(cause->message)));
	if (cause->detail)
		ingest_error_detail(err, "%s", ingest_secrets_redact(auth->secrets, cause->detail, strlen(cause->detail)));
	if (cause->hint)
		ingest_error_hint(err, "%s", cause->hint);
	err->retry_after = cause->retry_after;
}

static void
end_transfer(IngestHttpAuth *auth)
{
	ingest_http_end(auth->transfer);
	auth->transfer = NULL;
	ingest_secrets_remove(auth->secrets, auth->sent);
	auth->sent = NULL;
	MemoryContextReset(auth->scratch);
}

static void
forget_failure(IngestHttpAuth *auth)
{
	if (auth->failure.message)
		pfree(auth->failure.message);
	if (auth->failure.detail)
		pfree(auth->failure.detail);
	if (auth->failure.hint)
		pfree(auth->failure.hint);
	ingest_error_reset(&auth->failure);
	auth->failed_until = 0;
}

/* The failure as it is now, for *err in the current context. */
static IngestHttpAuthState
tell_failure(IngestHttpAuth *auth, IngestError *err)
{
	ingest_error_copy(err, &auth->failure, CurrentMemoryContext);
	if (err->retry_after > 0)
		err->retry_after = Max(auth->failed_until - ingest_clock_ms(), 1);
	return INGEST_HTTP_AUTH_FAILED;
}

/* Without a token for now; with the old one, when it is still good for a while. */
static IngestHttpAuthState
note_failure(IngestHttpAuth *auth, const IngestError *problem, IngestError *err)
{
	int64		now = ingest_clock_ms();

	if (auth->authorization && problem->class == INGEST_ERROR_TRANSIENT && now < auth->expires_at)
	{
		auth->renew_at = Min(auth->expires_at, now + Max(problem->retry_after, RENEWAL_PAUSE));
		return INGEST_HTTP_AUTH_READY;
	}
	forget_failure(auth);
	ingest_error_copy(&auth->failure, problem, auth->mcxt);
	auth->failed_until = now + Max(problem->retry_after, FAILURE_PAUSE);
	return tell_failure(auth, err);
}

/* Look at the request that is on its way. */
static IngestHttpAuthState
follow_transfer(IngestHttpAuth *auth, IngestError *err)
{
	IngestHttpState state = ingest_http_state(auth->transfer);
	MemoryContext old;
	IngestError problem = {0};
	bool		ok = false;
	Size		len;
	IngestHttpAuthState result;

	(void) ingest_http_body(auth->transfer, &len);
	if (state == INGEST_HTTP_RUNNING && len <= MAX_ANSWER)
		return INGEST_HTTP_AUTH_WAIT;

	old = MemoryContextSwitchTo(auth->scratch);
	if (state == INGEST_HTTP_FAILED)
		judge_failure(auth, &problem);
	else if (len > MAX_ANSWER && ingest_http_status(auth->transfer) < 300)
		set_unusable(auth, &problem, "It is larger than 64 kB.");
	else
		ok = judge_answer(auth, &problem);
	MemoryContextSwitchTo(old);

	if (ok)
	{
		forget_failure(auth);
		result = INGEST_HTTP_AUTH_READY;
	}
	else
		result = note_failure(auth, &problem, err);
	end_transfer(auth);
	return result;
}

IngestHttpAuthState
ingest_http_auth_ready(IngestHttpAuth *auth, IngestError *err)
{
	int64		now;

	if (auth->kind != INGEST_HTTP_AUTH_OAUTH2 && auth->kind != INGEST_HTTP_AUTH_JWT)
		return INGEST_HTTP_AUTH_READY;
	if (auth->transfer)
		return follow_transfer(auth, err);
	now = ingest_clock_ms();
	if (auth->authorization && now < auth->renew_at)
		return INGEST_HTTP_AUTH_READY;
	if (auth->kind == INGEST_HTTP_AUTH_JWT)
		return renew_jwt(auth, err);
	if (now < auth->failed_until)
		return tell_failure(auth, err);
	if (auth->options.jwt_key && (auth->sent = make_jwt(auth, err)) == NULL)
		return INGEST_HTTP_AUTH_FAILED;
	ask_for_token(auth);
	/* What is wrong with the request itself is known by now. */
	return follow_transfer(auth, err);
}

/*
 * ---- Requests and what they are answered
 */

static void
apply_api_key(const IngestHttpAuthOptions *options, IngestHttpRequest *request)
{
	if (options->key_in == 0)
		ingest_http_auth_add_header(request, options->key_name, options->token, true);
	else
		request->url = ingest_template_set_parameter(request->url, options->key_name, options->token);
}

uint32
ingest_http_auth_apply(IngestHttpAuth *auth, IngestHttpRequest *request)
{
	const IngestHttpAuthOptions *options = &auth->options;

	switch (auth->kind)
	{
		case INGEST_HTTP_AUTH_NONE:
			break;
		case INGEST_HTTP_AUTH_BASIC:
			request->username = options->username;
			request->password = options->password ? options->password : "";
			break;
		case INGEST_HTTP_AUTH_API_KEY:
			apply_api_key(options, request);
			break;
		case INGEST_HTTP_AUTH_BEARER:
		case INGEST_HTTP_AUTH_OAUTH2:
		case INGEST_HTTP_AUTH_JWT:
			Assert(auth->authorization != NULL);
			ingest_http_auth_add_header(request, "Authorization", auth->authorization, true);
			break;
		case INGEST_HTTP_AUTH_SIGV4:
			ingest_http_auth_prepare_sigv4(options, request);
			break;
	}
	return auth->serial;
}

bool
ingest_http_auth_refused(IngestHttpAuth *auth, uint32 token)
{
	if (auth->kind != INGEST_HTTP_AUTH_OAUTH2 && auth->kind != INGEST_HTTP_AUTH_JWT)
		return false;
	/* Sent before there was another, or found out already. */
	if (token != auth->serial || auth->authorization == NULL)
		return true;
	if (auth->refused)
		return false;
	auth->refused = true;
	drop_token(auth);
	return true;
}

void
ingest_http_auth_accepted(IngestHttpAuth *auth)
{
	auth->refused = false;
}

const char *
ingest_http_auth_rotated(const IngestHttpAuth *auth)
{
	return auth->rotated ? auth->refresh_token : NULL;
}

void
ingest_http_auth_stored(IngestHttpAuth *auth)
{
	auth->rotated = false;
}

bool
ingest_http_auth_reload(IngestHttpAuth *auth, const char *stored)
{
	if (stored == NULL || auth->refresh_token == NULL || auth->rotated ||
		strcmp(stored, auth->refresh_token) == 0)
		return false;
	ingest_secrets_remove(auth->secrets, auth->refresh_token);
	auth->refresh_token = ingest_secrets_add(auth->secrets, stored);
	forget_failure(auth);
	return true;
}

char *
ingest_http_auth_redact(const IngestHttpAuth *auth, const char *text, Size len)
{
	return ingest_secrets_redact(auth->secrets, text, len);
}
