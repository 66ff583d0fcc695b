/*
 * auth_options.h
 *		Entries of an option table for IngestHttpAuthOptions.
 *
 *	static const IngestOptionDef options[] = {
 *		...
 *		INGEST_HTTP_AUTH_OPTIONS(HttpOptions, auth),
 *		INGEST_OPTION_END
 *	};
 */
#ifndef INGEST_HTTP_AUTH_OPTIONS_H
#define INGEST_HTTP_AUTH_OPTIONS_H

#include "core/options.h"
#include "http/auth.h"

/* Values of the enums, in the order of their numbers. */
extern const char *const ingest_http_auth_kinds[];
extern const char *const ingest_http_auth_key_places[];
extern const char *const ingest_http_auth_client_places[];
extern const char *const ingest_http_auth_jwt_algorithms[];

#define INGEST_HTTP_AUTH_TEXT(struct_type, field, name) \
	#name, INGEST_SCOPE_USER, INGEST_OPTION_TEXT, offsetof(struct_type, field.name)

#define INGEST_HTTP_AUTH_OPTIONS(struct_type, field) \
	{"auth", INGEST_SCOPE_USER, INGEST_OPTION_ENUM, offsetof(struct_type, field.kind), \
		.fallback = "none", .values = ingest_http_auth_kinds, \
	.help = "How to authenticate; basic when only a username is given."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, username), \
	.help = "User name for auth basic."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, password), .secret = true, \
	.help = "Password for auth basic: literal, env:NAME or file:/path."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, token), .secret = true, \
	.help = "Token of auth bearer, key of auth api_key: literal, env:NAME or file:/path."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, key_name), .fallback = "X-API-Key", \
	.help = "Name of the header or query parameter that holds the key of auth api_key."}, \
	{"key_in", INGEST_SCOPE_USER, INGEST_OPTION_ENUM, offsetof(struct_type, field.key_in), \
		.fallback = "header", .values = ingest_http_auth_key_places, \
	.help = "Where the key of auth api_key stands."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, token_url), \
	.help = "URL of the token endpoint for auth oauth2."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, client_id), \
	.help = "Client id for auth oauth2."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, client_secret), .secret = true, \
	.help = "Client secret for auth oauth2: literal, env:NAME or file:/path."}, \
	{"client_auth", INGEST_SCOPE_USER, INGEST_OPTION_ENUM, offsetof(struct_type, field.client_auth), \
		.fallback = "header", .values = ingest_http_auth_client_places, \
	.help = "Where the token endpoint wants client id and secret: in the Authorization header or in the body."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, scope), \
	.help = "Scopes to ask for with auth oauth2, separated by spaces; claim \"scope\" of a JWT."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, audience), \
	.help = "Audience to ask for with auth oauth2, where the token endpoint knows such a parameter."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, refresh_token), .secret = true, \
	.help = "Refresh token for auth oauth2: literal, env:NAME or file:/path.  One that the server gives instead is kept."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, jwt_key), .secret = true, \
	.help = "Private key (PEM text), or shared secret of HS256, to sign a JWT with: literal, env:NAME or file:/path."}, \
	{"jwt_algorithm", INGEST_SCOPE_USER, INGEST_OPTION_ENUM, offsetof(struct_type, field.jwt_algorithm), \
		.fallback = "RS256", .values = ingest_http_auth_jwt_algorithms, \
	.help = "How a JWT is signed."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, jwt_key_id), \
	.help = "Id of the key, for the header of a JWT."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, jwt_issuer), \
	.help = "Issuer of a JWT; the client id when not given."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, jwt_subject), \
	.help = "Subject of a JWT; with auth oauth2 the issuer when not given."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, jwt_audience), \
	.help = "Audience of a JWT; the token endpoint with auth oauth2 when not given."}, \
	{"jwt_lifetime", INGEST_SCOPE_USER, INGEST_OPTION_MS, offsetof(struct_type, field.jwt_lifetime), \
		.fallback = "10 min", .min = 30000, .max = 86400000, \
	.help = "How long a JWT is valid."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, aws_region), \
	.help = "Region for auth sigv4; taken from the host's name when not given."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, aws_service), \
	.help = "Service for auth sigv4, such as s3; taken from the host's name when not given."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, aws_access_key), \
	.help = "Access key id for auth sigv4."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, aws_secret_key), .secret = true, \
	.help = "Secret access key for auth sigv4: literal, env:NAME or file:/path."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, aws_session_token), .secret = true, \
	.help = "Session token for auth sigv4 with temporary keys: literal, env:NAME or file:/path."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, client_cert), .secret = true, \
	.help = "Certificate (PEM text) to show to the server, with any auth: literal, env:NAME or file:/path."}, \
	{INGEST_HTTP_AUTH_TEXT(struct_type, field, client_key), .secret = true, \
	.help = "Private key (PEM text) of the certificate: literal, env:NAME or file:/path."}

#endif							/* INGEST_HTTP_AUTH_OPTIONS_H */
