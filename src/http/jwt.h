/*
 * jwt.h
 *		JSON Web Tokens, made and signed here (RFC 7519; compact serialisation of
 *		RFC 7515).
 *
 * Only what a client needs: nothing is parsed or verified.  Pure but for the
 * source of randomness; no catalogs, no transaction.  raises: out of memory only
 */
#ifndef INGEST_HTTP_JWT_H
#define INGEST_HTTP_JWT_H

#include "postgres.h"

/* In the order of the option's values. */
typedef enum IngestJwtAlgorithm
{
	INGEST_JWT_RS256,
	INGEST_JWT_ES256,
	INGEST_JWT_HS256
} IngestJwtAlgorithm;

/* Texts that are NULL are left out; they are UTF-8.  Each token gets a random "jti". */
typedef struct IngestJwtClaims
{
	const char *key_id;			/* "kid" of the header */
	const char *issuer;
	const char *subject;
	const char *audience;
	const char *scope;
	int64		issued_at;		/* seconds since 1970 */
	int64		expires_at;
} IngestJwtClaims;

/*
 * The signed token.  key: a private key as PEM text without a passphrase, or the
 * shared secret of HS256.  NULL: *why says why, as a sentence.  mcxt: current
 */
extern char *ingest_jwt_sign(const IngestJwtClaims *claims, IngestJwtAlgorithm algorithm,
							 const char *key, const char **why);

/* Is it a key that this algorithm can sign with?  false: *why, as a sentence */
extern bool ingest_jwt_check_key(IngestJwtAlgorithm algorithm, const char *key, const char **why);

/* Base64 with padding, or of URLs and without.  mcxt: current */
extern char *ingest_base64_encode(const void *data, Size len, bool url);

#endif							/* INGEST_HTTP_JWT_H */
