/*
 * auth_private.h
 *		What the files of authentication share.
 */
#ifndef INGEST_HTTP_AUTH_PRIVATE_H
#define INGEST_HTTP_AUTH_PRIVATE_H

#include "core/compat.h"
#include "lib/stringinfo.h"
#include "http/auth.h"

/* A text of IngestHttpAuthOptions. */
typedef struct IngestHttpAuthField
{
	const char *name;
	size_t		offset;
	int			kinds;			/* mask of 1 << IngestHttpAuthKind it belongs to */
	bool		secret;
	bool		not_sent;		/* a key to sign with, a certificate: any bytes */
} IngestHttpAuthField;

/* Ends with name NULL. */
extern const IngestHttpAuthField ingest_http_auth_fields[];

/* What is meant: basic, when there is a username and nothing else is said. */
extern IngestHttpAuthKind ingest_http_auth_kind(const IngestHttpAuthOptions *options);

/* Can it stand behind "Bearer"? */
extern bool ingest_http_auth_is_token(const char *text);

/* value is not copied. */
extern void ingest_http_auth_add_header(IngestHttpRequest *request, const char *name,
										const char *value, bool credential);

/* Percent-encode a byte, unless it is unreserved or one of "keep". */
extern void ingest_http_auth_encode_byte(StringInfo buf, int byte, const char *keep);

/* Credentials of sigv4, and the URL in canonical form. */
extern void ingest_http_auth_prepare_sigv4(const IngestHttpAuthOptions *options,
										   IngestHttpRequest *request);

#endif							/* INGEST_HTTP_AUTH_PRIVATE_H */
