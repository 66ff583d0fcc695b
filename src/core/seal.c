/*
 * seal.c
 *		Text at rest that only who knows a secret can read.
 *
 * A sealed text is: version (1 byte), salt, tag, encrypted text.  Each has a key
 * of its own, so that the initialization vector may be zero.
 */
#include "postgres.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "core/compat.h"
#include "core/seal.h"

#define VERSION 1
#define SALT_BYTES 16
#define TAG_BYTES 16
#define KEY_BYTES 32
#define IV_BYTES 12
#define HEAD_BYTES (1 + SALT_BYTES + TAG_BYTES)

static const unsigned char iv[IV_BYTES];

pg_noreturn static void
raise_failed(void)
{
	ERR_clear_error();
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("OpenSSL cannot encrypt with AES-256-GCM")));
	pg_unreachable();
}

/* raises: no */
static bool
make_key(const char *secret, const unsigned char *salt, unsigned char *key)
{
	unsigned int len = 0;

	return HMAC(EVP_sha256(), secret, strlen(secret), salt, SALT_BYTES, key, &len) != NULL &&
		len == KEY_BYTES;
}

/* raises: no */
static bool
encrypt(const unsigned char *key, const char *label, const char *text, int len,
		unsigned char *tag, unsigned char *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int			n;
	bool		ok = ctx != NULL &&
		EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
		EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *) label, strlen(label)) == 1 &&
		EVP_EncryptUpdate(ctx, out, &n, (const unsigned char *) text, len) == 1 &&
		EVP_EncryptFinal_ex(ctx, out + n, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) == 1;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

/* raises: no */
static bool
decrypt(const unsigned char *key, const char *label, const unsigned char *in, int len,
		const unsigned char *tag, unsigned char *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int			n;
	bool		ok = ctx != NULL &&
		EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
		EVP_DecryptUpdate(ctx, NULL, &n, (const unsigned char *) label, strlen(label)) == 1 &&
		EVP_DecryptUpdate(ctx, out, &n, in, len) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, unconstify(unsigned char *, tag)) == 1 &&
		EVP_DecryptFinal_ex(ctx, out + n, &n) == 1;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

bytea *
ingest_seal(const char *secret, const char *label, const char *text)
{
	int			len = strlen(text);
	bytea	   *sealed = palloc(VARHDRSZ + HEAD_BYTES + len);
	unsigned char *data = (unsigned char *) VARDATA(sealed);
	unsigned char *salt = data + 1;
	unsigned char key[KEY_BYTES];
	bool		ok;

	SET_VARSIZE(sealed, VARHDRSZ + HEAD_BYTES + len);
	data[0] = VERSION;
	if (!pg_strong_random(salt, SALT_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("there are no random numbers to be had")));
	ok = make_key(secret, salt, key) &&
		encrypt(key, label, text, len, salt + SALT_BYTES, data + HEAD_BYTES);
	explicit_bzero(key, sizeof(key));
	if (!ok)
		raise_failed();
	return sealed;
}

char *
ingest_unseal(const char *secret, const char *label, const bytea *sealed)
{
	const unsigned char *data = (const unsigned char *) VARDATA_ANY(sealed);
	int			len = (int) VARSIZE_ANY_EXHDR(sealed) - HEAD_BYTES;
	unsigned char key[KEY_BYTES];
	char	   *text;
	bool		ok;

	if (len < 0 || data[0] != VERSION)
		return NULL;
	text = palloc(len + 1);
	ok = make_key(secret, data + 1, key) &&
		decrypt(key, label, data + HEAD_BYTES, len, data + 1 + SALT_BYTES, (unsigned char *) text);
	explicit_bzero(key, sizeof(key));
	ERR_clear_error();
	text[len] = '\0';
	if (ok)
		return text;
	explicit_bzero(text, len);
	pfree(text);
	return NULL;
}
