/*
 * jwt.c
 *		JSON Web Tokens, made and signed with OpenSSL.
 *
 * While something of the library's is held nothing raises: what it fills is
 * allocated before, or without raising.  The library's queue of errors is empty
 * before and after, it is shared with the server's own connections.
 */
#include "postgres.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>

#include "http/jwt.h"
#include "lib/stringinfo.h"
#include "utils/json.h"

/* Less is forbidden (RFC 7518, 3.3), more takes seconds to sign. */
#define MIN_RSA_BITS 2048
#define MAX_RSA_BITS 16384

#define MAX_SIGNATURE (MAX_RSA_BITS / 8)
#define P256_BYTES 32

static const char *const names[] = {
	[INGEST_JWT_RS256] = "RS256", [INGEST_JWT_ES256] = "ES256", [INGEST_JWT_HS256] = "HS256"
};

char *
ingest_base64_encode(const void *data, Size len, bool url)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	const unsigned char *src = data;
	char	   *result = palloc((len + 2) / 3 * 4 + 1);
	char	   *dst = result;

	for (Size i = 0; i < len; i += 3)
	{
		int			n = Min(len - i, 3);
		uint32		bits = src[i] << 16 | (n > 1 ? src[i + 1] << 8 : 0) | (n > 2 ? src[i + 2] : 0);

		for (int j = 0; j <= n; j++)
		{
			int			six = bits >> (18 - 6 * j) & 0x3f;

			*dst++ = six < 62 ? alphabet[six] : six == 62 ? (url ? '-' : '+') : (url ? '_' : '/');
		}
		for (int j = n; j < 3 && !url; j++)
			*dst++ = '=';
	}
	*dst = '\0';
	return result;
}

/* Nobody is asked for a passphrase: a backend has no terminal. */
static int
refuse_passphrase(char *buf, int size, int writing, void *asked)
{
	*(bool *) asked = true;
	return -1;
}

static const char *
judge_key(IngestJwtAlgorithm algorithm, EVP_PKEY *pkey)
{
	char		group[64];

	if (algorithm == INGEST_JWT_RS256)
	{
		if (!EVP_PKEY_is_a(pkey, "RSA"))
			return "The key is not an RSA key.";
		if (EVP_PKEY_get_bits(pkey) < MIN_RSA_BITS)
			return "The RSA key is shorter than 2048 bits.";
		if (EVP_PKEY_get_bits(pkey) > MAX_RSA_BITS)
			return "The RSA key is longer than 16384 bits.";
		return NULL;
	}
	if (!EVP_PKEY_is_a(pkey, "EC") ||
		!EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) ||
		(strcmp(group, "prime256v1") != 0 && strcmp(group, "P-256") != 0))
		return "The key is not an elliptic-curve key on P-256.";
	return NULL;
}

/* NULL: *why.  raises: no */
static EVP_PKEY *
read_key(IngestJwtAlgorithm algorithm, const char *key, const char **why)
{
	BIO		   *bio = BIO_new_mem_buf(key, -1);
	EVP_PKEY   *pkey = NULL;
	bool		asked = false;

	if (bio != NULL)
		pkey = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &asked);
	BIO_free(bio);
	if (pkey == NULL)
		*why = asked ? "The key is protected by a passphrase." : "It is not a private key as PEM text.";
	else
		*why = judge_key(algorithm, pkey);
	if (pkey != NULL && *why != NULL)
	{
		EVP_PKEY_free(pkey);
		return NULL;
	}
	return pkey;
}

/* From the library's form, a sequence of two integers, to two numbers of fixed length. */
static bool
flatten_signature(unsigned char *signature, Size *len)
{
	const unsigned char *at = signature;
	ECDSA_SIG  *pair = d2i_ECDSA_SIG(NULL, &at, *len);
	bool		ok = pair != NULL &&
		BN_bn2binpad(ECDSA_SIG_get0_r(pair), signature, P256_BYTES) == P256_BYTES &&
		BN_bn2binpad(ECDSA_SIG_get0_s(pair), signature + P256_BYTES, P256_BYTES) == P256_BYTES;

	ECDSA_SIG_free(pair);
	*len = 2 * P256_BYTES;
	return ok;
}

/* raises: no */
static bool
sign_private(IngestJwtAlgorithm algorithm, const char *key, const char *text, Size text_len,
			 unsigned char *signature, Size *len, const char **why)
{
	EVP_PKEY   *pkey = read_key(algorithm, key, why);
	EVP_MD_CTX *ctx;
	bool		ok;

	if (pkey == NULL)
		return false;
	ctx = EVP_MD_CTX_new();
	*len = MAX_SIGNATURE;
	ok = ctx != NULL &&
		EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, pkey) == 1 &&
		EVP_DigestSign(ctx, signature, len, (const unsigned char *) text, text_len) == 1 &&
		(algorithm != INGEST_JWT_ES256 || flatten_signature(signature, len));
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	if (!ok)
		*why = "OpenSSL cannot sign with the key.";
	return ok;
}

/* raises: no */
static bool
sign_shared(const char *key, const char *text, Size text_len,
			unsigned char *signature, Size *len, const char **why)
{
	unsigned int n = 0;

	if (HMAC(EVP_sha256(), key, strlen(key), (const unsigned char *) text, text_len, signature, &n) == NULL)
	{
		*why = "OpenSSL cannot sign with the secret.";
		return false;
	}
	*len = n;
	return true;
}

static void
append_text_claim(StringInfo buf, const char *name, const char *value)
{
	if (value == NULL)
		return;
	if (buf->len > 1)
		appendStringInfoChar(buf, ',');
	escape_json(buf, name);
	appendStringInfoChar(buf, ':');
	escape_json(buf, value);
}

static char *
make_header(const IngestJwtClaims *claims, IngestJwtAlgorithm algorithm)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	append_text_claim(&buf, "alg", names[algorithm]);
	append_text_claim(&buf, "typ", "JWT");
	append_text_claim(&buf, "kid", claims->key_id);
	appendStringInfoChar(&buf, '}');
	return ingest_base64_encode(buf.data, buf.len, true);
}

static char *
make_payload(const IngestJwtClaims *claims, const char *id)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	append_text_claim(&buf, "iss", claims->issuer);
	append_text_claim(&buf, "sub", claims->subject);
	append_text_claim(&buf, "aud", claims->audience);
	append_text_claim(&buf, "scope", claims->scope);
	append_text_claim(&buf, "jti", id);
	appendStringInfo(&buf, ",\"iat\":" INT64_FORMAT ",\"exp\":" INT64_FORMAT "}",
					 claims->issued_at, claims->expires_at);
	return ingest_base64_encode(buf.data, buf.len, true);
}

char *
ingest_jwt_sign(const IngestJwtClaims *claims, IngestJwtAlgorithm algorithm,
				const char *key, const char **why)
{
	unsigned char random[16];
	unsigned char *signature = palloc(MAX_SIGNATURE);
	Size		len;
	char	   *text;
	bool		ok;

	if (!pg_strong_random(random, sizeof(random)))
	{
		*why = "There are no random numbers to be had.";
		return NULL;
	}
	text = psprintf("%s.%s", make_header(claims, algorithm),
					make_payload(claims, ingest_base64_encode(random, sizeof(random), true)));
	ERR_clear_error();
	ok = algorithm == INGEST_JWT_HS256 ?
		sign_shared(key, text, strlen(text), signature, &len, why) :
		sign_private(algorithm, key, text, strlen(text), signature, &len, why);
	ERR_clear_error();
	return ok ? psprintf("%s.%s", text, ingest_base64_encode(signature, len, true)) : NULL;
}

bool
ingest_jwt_check_key(IngestJwtAlgorithm algorithm, const char *key, const char **why)
{
	EVP_PKEY   *pkey;

	if (algorithm == INGEST_JWT_HS256)
	{
		*why = "It is empty.";
		return *key != '\0';
	}
	ERR_clear_error();
	pkey = read_key(algorithm, key, why);
	EVP_PKEY_free(pkey);
	ERR_clear_error();
	return pkey != NULL;
}
