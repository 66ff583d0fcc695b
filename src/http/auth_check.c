/*
 * auth_check.c
 *		Credentials as a user wrote them: the values of the options, and what fits
 *		together.
 *
 * At definition time, and again whenever a source is loaded; using them is
 * auth.c.  Nothing here shows a value: it may be a secret.
 */
#include "postgres.h"

#include <ctype.h>

#include "http/auth_options.h"
#include "http/auth_private.h"
#include "http/jwt.h"
#include "mb/pg_wchar.h"

const char *const ingest_http_auth_kinds[] = {
	"none", "basic", "bearer", "api_key", "oauth2", "jwt", "sigv4", NULL
};
const char *const ingest_http_auth_key_places[] = {"header", "query", NULL};
const char *const ingest_http_auth_client_places[] = {"header", "body", NULL};
const char *const ingest_http_auth_jwt_algorithms[] = {"RS256", "ES256", "HS256", NULL};

#define NONE	(1 << INGEST_HTTP_AUTH_NONE)
#define BASIC	(1 << INGEST_HTTP_AUTH_BASIC)
#define BEARER	(1 << INGEST_HTTP_AUTH_BEARER)
#define API_KEY	(1 << INGEST_HTTP_AUTH_API_KEY)
#define OAUTH2	(1 << INGEST_HTTP_AUTH_OAUTH2)
#define JWT		(1 << INGEST_HTTP_AUTH_JWT)
#define SIGV4	(1 << INGEST_HTTP_AUTH_SIGV4)
#define ALL		(NONE | BASIC | BEARER | API_KEY | OAUTH2 | JWT | SIGV4)

#define FIELD(name) #name, offsetof(IngestHttpAuthOptions, name)

const IngestHttpAuthField ingest_http_auth_fields[] = {
	{FIELD(username), BASIC},
	{FIELD(password), BASIC, .secret = true},
	{FIELD(token), BEARER | API_KEY, .secret = true},
	{FIELD(key_name), ALL},		/* has a default, and is harmless */
	{FIELD(token_url), OAUTH2},
	{FIELD(client_id), OAUTH2 | JWT},
	{FIELD(client_secret), OAUTH2, .secret = true},
	{FIELD(scope), OAUTH2 | JWT},
	{FIELD(audience), OAUTH2},
	{FIELD(refresh_token), OAUTH2, .secret = true},
	{FIELD(jwt_key), OAUTH2 | JWT, .secret = true, .not_sent = true},
	{FIELD(jwt_key_id), OAUTH2 | JWT},
	{FIELD(jwt_issuer), OAUTH2 | JWT},
	{FIELD(jwt_subject), OAUTH2 | JWT},
	{FIELD(jwt_audience), OAUTH2 | JWT},
	{FIELD(aws_region), SIGV4},
	{FIELD(aws_service), SIGV4},
	{FIELD(aws_access_key), SIGV4},
	{FIELD(aws_secret_key), SIGV4, .secret = true, .not_sent = true},
	{FIELD(aws_session_token), SIGV4, .secret = true},
	{FIELD(client_cert), ALL, .not_sent = true},
	{FIELD(client_key), ALL, .secret = true, .not_sent = true},
	{NULL}
};

IngestHttpAuthKind
ingest_http_auth_kind(const IngestHttpAuthOptions *options)
{
	if (options->kind == INGEST_HTTP_AUTH_NONE && options->username != NULL)
		return INGEST_HTTP_AUTH_BASIC;
	return options->kind;
}

pg_noreturn static void
raise_invalid(const char *option, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", option),
			 errdetail("%s", detail)));
	pg_unreachable();
}

static void
require(const IngestHttpAuthOptions *options, const char *option, const char *value)
{
	if (value == NULL || *value == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("auth \"%s\" needs the option \"%s\"",
						ingest_http_auth_kinds[ingest_http_auth_kind(options)], option),
				 errhint("Set it with ALTER USER MAPPING.")));
}

/* What goes into a header, or into a signed text, is one line. */
static void
check_characters(const char *option, const char *value)
{
	bool		plain = true;

	for (const char *at = value; *at; at++)
	{
		if ((unsigned char) *at < 0x20 || *at == 0x7f)
			raise_invalid(option, "It contains a control character.");
		plain &= (unsigned char) *at < 0x80;
	}
	/* Text for others is UTF-8; for a password nobody has said. */
	if (!plain && GetDatabaseEncoding() != PG_UTF8)
		raise_invalid(option, "Only ASCII characters can be used, since the database's encoding is not UTF8.");
}

static void
check_field(const IngestHttpAuthOptions *options, const IngestHttpAuthField *field)
{
	const char *value = *(char *const *) ((const char *) options + field->offset);
	IngestHttpAuthKind kind = ingest_http_auth_kind(options);

	if (value == NULL)
		return;
	if (!(field->kinds & 1 << kind))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" cannot be used with auth \"%s\"", field->name,
						ingest_http_auth_kinds[kind]),
				 errhint("Remove it, or set \"auth\" of the user mapping to what it belongs to.")));
	if (!field->not_sent)
		check_characters(field->name, value);
}

static void
check_basic(const IngestHttpAuthOptions *options)
{
	require(options, "username", options->username);
	if (strchr(options->username, ':') != NULL)
		raise_invalid("username", "It contains a colon, which separates it from the password.");
}

/* RFC 6750: no spaces, nothing beyond ASCII. */
static void
check_token(const IngestHttpAuthOptions *options)
{
	require(options, "token", options->token);
	if (!ingest_http_auth_is_token(options->token))
		raise_invalid("token", "A token has no spaces, and only ASCII characters.");
}

static void
check_api_key(const IngestHttpAuthOptions *options)
{
	static const char *const reserved[] = {
		"Host", "Connection", "Content-Length", "Content-Type", "Transfer-Encoding", "Upgrade", "TE",
		"Trailer", "Expect", "Range"
	};

	require(options, "token", options->token);
	require(options, "key_name", options->key_name);
	if (options->key_in != 0)
		return;
	for (const char *at = options->key_name; *at; at++)
		if (!isalnum((unsigned char) *at) && strchr("!#$%&'*+-.^_`|~", *at) == NULL)
			raise_invalid("key_name", "It is not a name of a header.");
	for (int i = 0; i < lengthof(reserved); i++)
		if (pg_strcasecmp(options->key_name, reserved[i]) == 0)
			raise_invalid("key_name", "This header says how a request is sent.");
}

static void
check_jwt_key(const IngestHttpAuthOptions *options)
{
	const char *why;

	require(options, "jwt_key", options->jwt_key);
	if (!ingest_jwt_check_key(options->jwt_algorithm, options->jwt_key, &why))
		raise_invalid("jwt_key", why);
}

static void
check_oauth2(const IngestHttpAuthOptions *options)
{
	require(options, "token_url", options->token_url);
	ingest_http_check_url("token_url", options->token_url);
	if (options->client_secret)
		require(options, "client_id", options->client_id);
	if (options->jwt_key && options->refresh_token)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("options \"%s\" and \"%s\" exclude each other", "jwt_key", "refresh_token"),
				 errdetail("A token is got either for a JWT, or for a refresh token.")));
	if (options->jwt_key)
	{
		check_jwt_key(options);
		require(options, "jwt_issuer",
				options->jwt_issuer ? options->jwt_issuer : options->client_id);
	}
	else if (options->refresh_token)
		require(options, "refresh_token", options->refresh_token);
	else
	{
		require(options, "client_id", options->client_id);
		/* A certificate shows who a client is, too (RFC 8705). */
		if (options->client_cert == NULL)
			require(options, "client_secret", options->client_secret);
	}
}

static void
check_sigv4(const IngestHttpAuthOptions *options)
{
	const char *const parts[] = {options->aws_region, options->aws_service};

	require(options, "aws_access_key", options->aws_access_key);
	require(options, "aws_secret_key", options->aws_secret_key);
	if (options->aws_service)
		require(options, "aws_region", options->aws_region);
	for (int i = 0; i < lengthof(parts); i++)
		for (const char *at = parts[i]; at && *at; at++)
			if (!isalnum((unsigned char) *at) && *at != '-' && *at != '_')
				raise_invalid(i == 0 ? "aws_region" : "aws_service",
							  "It has letters, digits, hyphens and underscores only.");
}

void
ingest_http_auth_check(const IngestHttpAuthOptions *options)
{
	for (const IngestHttpAuthField *field = ingest_http_auth_fields; field->name; field++)
		check_field(options, field);

	switch (ingest_http_auth_kind(options))
	{
		case INGEST_HTTP_AUTH_NONE:
			break;
		case INGEST_HTTP_AUTH_BASIC:
			check_basic(options);
			break;
		case INGEST_HTTP_AUTH_BEARER:
			check_token(options);
			break;
		case INGEST_HTTP_AUTH_API_KEY:
			check_api_key(options);
			break;
		case INGEST_HTTP_AUTH_OAUTH2:
			check_oauth2(options);
			break;
		case INGEST_HTTP_AUTH_JWT:
			check_jwt_key(options);
			break;
		case INGEST_HTTP_AUTH_SIGV4:
			check_sigv4(options);
			break;
	}
	if ((options->client_cert == NULL) != (options->client_key == NULL))
		require(options, options->client_cert ? "client_key" : "client_cert", NULL);
}
