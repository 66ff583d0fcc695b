/*
 * auth.h
 *		Who we are to an HTTP server: credentials of requests, tokens and how to
 *		get them.
 *
 * A token that has to be fetched is fetched through the same client, under the
 * same rules; nothing waits.  Secrets are in memory of the source only, never
 * in a message; ingest_http_auth_redact() takes them out of text from outside.
 */
#ifndef INGEST_HTTP_AUTH_H
#define INGEST_HTTP_AUTH_H

#include "postgres.h"

#include "core/error.h"
#include "core/options.h"
#include "http/client.h"

typedef enum IngestHttpAuthKind
{
	INGEST_HTTP_AUTH_NONE,
	INGEST_HTTP_AUTH_BASIC,		/* username, password */
	INGEST_HTTP_AUTH_BEARER,	/* token */
	INGEST_HTTP_AUTH_API_KEY,	/* token, in header or query "key_name" */
	INGEST_HTTP_AUTH_OAUTH2,	/* token_url: client credentials, refresh token or JWT assertion */
	INGEST_HTTP_AUTH_JWT,		/* a JWT made here is the bearer token */
	INGEST_HTTP_AUTH_SIGV4		/* AWS and what signs like it */
} IngestHttpAuthKind;

/*
 * Options of scope USER.  The source embeds this in its options struct and
 * INGEST_HTTP_AUTH_OPTIONS(struct, field) in its table.
 */
typedef struct IngestHttpAuthOptions
{
	int			kind;			/* IngestHttpAuthKind */
	char	   *username;
	char	   *password;
	char	   *token;			/* bearer, api_key */
	char	   *key_name;		/* header or parameter of api_key; "X-API-Key" */
	int			key_in;			/* 0 header, 1 query */
	char	   *token_url;
	char	   *client_id;
	char	   *client_secret;
	int			client_auth;	/* 0 header (basic), 1 body */
	char	   *scope;
	char	   *audience;
	char	   *refresh_token;
	char	   *jwt_key;		/* PEM private key, or the shared secret of HS256 */
	int			jwt_algorithm;	/* 0 RS256, 1 ES256, 2 HS256 */
	char	   *jwt_key_id;
	char	   *jwt_issuer;
	char	   *jwt_subject;
	char	   *jwt_audience;
	int64		jwt_lifetime;	/* ms */
	char	   *aws_region;
	char	   *aws_service;
	char	   *aws_access_key;
	char	   *aws_secret_key;
	char	   *aws_session_token;
	char	   *client_cert;	/* PEM; of the connection, see client.h */
	char	   *client_key;
} IngestHttpAuthOptions;

/* Entries of an option table, in auth_options.h. */

/* What fits together: oauth2 wants a token_url, ...  raises: yes.  No I/O. */
extern void ingest_http_auth_check(const IngestHttpAuthOptions *options);

typedef struct IngestHttpAuth IngestHttpAuth;

typedef enum IngestHttpAuthState
{
	INGEST_HTTP_AUTH_READY,
	INGEST_HTTP_AUTH_WAIT,		/* a token is being fetched: let the client work */
	INGEST_HTTP_AUTH_FAILED		/* *err */
} IngestHttpAuthState;

/*
 * In mcxt, which is the client's or a child of it.  "stored" is a refresh token
 * that was kept from before, which goes before the option's; or NULL.
 */
extern IngestHttpAuth *ingest_http_auth_create(const IngestHttpAuthOptions *options,
											   const char *stored, IngestHttpClient *client,
											   MemoryContext mcxt);

/*
 * May a request be sent now?  Starts and goes on with fetching a token where one
 * is missing or about to expire.  FAILED: 4xx of the token endpoint are CONFIG,
 * 429, 5xx and networks TRANSIENT with retry_after; never shows a secret.
 */
extern IngestHttpAuthState ingest_http_auth_ready(IngestHttpAuth *auth, IngestError *err);

/*
 * Add what the request needs to its headers, URL and credentials.  Send it before
 * the next call of ready: what it points to is in the current context, or is
 * auth's.  Answers which token went with it, for refused.
 */
extern uint32 ingest_http_auth_apply(IngestHttpAuth *auth, IngestHttpRequest *request);

/*
 * The server has answered 401 to a request with this token.  True: it is thrown
 * away (or has been meanwhile, when several requests are refused), a new one may
 * help, try once more; not twice in a row without success in between.
 */
extern bool ingest_http_auth_refused(IngestHttpAuth *auth, uint32 token);
extern void ingest_http_auth_accepted(IngestHttpAuth *auth);

/*
 * A refresh token that was rotated and is to be kept, at once and whatever
 * becomes of the data: the one before is worthless now.  NULL: none.  Told once
 * it is stored.
 */
extern const char *ingest_http_auth_rotated(const IngestHttpAuth *auth);
extern void ingest_http_auth_stored(IngestHttpAuth *auth);

/*
 * Another process may have rotated the refresh token that was refused to us: true
 * when "stored" is another one than we have, which is used from now on.
 */
extern bool ingest_http_auth_reload(IngestHttpAuth *auth, const char *stored);

/*
 * What a stored refresh token belongs to, and is sealed with: see catalog/token.h.
 * A secret; NULL: no refresh token is used.  mcxt: current
 */
extern char *ingest_http_auth_origin(const IngestHttpAuthOptions *options);

/*
 * A copy of text in which every secret is replaced by "***".  Cut it afterwards:
 * of a secret that was cut itself up to seven bytes stay.  mcxt: current
 */
extern char *ingest_http_auth_redact(const IngestHttpAuth *auth, const char *text, Size len);

#endif							/* INGEST_HTTP_AUTH_H */
