/*
 * secret.c
 *		Secrets in memory: wiped when they go, and taken out of text from outside.
 *
 * A secret is looked for as a series of bytes, in text that is read in one of
 * several ways: as it is, or with the escapes of URLs, JSON or HTML undone on
 * the fly.  So it does not matter which characters somebody chose to escape.
 * In Base64 it can begin at three places of a group; of each, what does not
 * depend on the neighbours is looked for.
 */
#include "postgres.h"

#include <ctype.h>
#include <string.h>

#include "http/jwt.h"
#include "http/secret.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"

#define MASK "***"

/* Shorter ones count as words of their own only. */
#define MIN_SECRET 4

/* What a text that was cut off ends in; less may be a word like another. */
#define MIN_TAIL 8

/* Shorter pieces of Base64 are found in anything. */
#define MIN_BASE64 8

/* Lines of a PEM text from this length on are secrets, too. */
#define MIN_PEM_LINE 20

typedef enum Reading
{
	READ_PLAIN,
	READ_PERCENT,
	READ_JSON,
	READ_HTML
} Reading;

typedef struct Secret
{
	dlist_node	node;
	struct Secret *of;			/* made from this one; itself when from none */
	bool		held;			/* not looked for */
	bool		base64;			/* in any alphabet; what it is a part of goes, too */
	Size		len;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Secret;

struct IngestSecrets
{
	MemoryContext mcxt;
	MemoryContextCallback callback;
	dlist_head	all;
};

static void
wipe_all(void *arg)
{
	IngestSecrets *secrets = arg;
	dlist_iter	iter;

	dlist_foreach(iter, &secrets->all)
	{
		Secret	   *secret = dlist_container(Secret, node, iter.cur);

		explicit_bzero(secret->data, secret->len);
	}
}

IngestSecrets *
ingest_secrets_create(MemoryContext mcxt)
{
	IngestSecrets *secrets = MemoryContextAllocZero(mcxt, sizeof(*secrets));

	secrets->mcxt = mcxt;
	dlist_init(&secrets->all);
	secrets->callback.func = wipe_all;
	secrets->callback.arg = secrets;
	MemoryContextRegisterResetCallback(mcxt, &secrets->callback);
	return secrets;
}

static Secret *
add_piece(IngestSecrets *secrets, const char *data, Size len, Secret *of, bool base64)
{
	Secret	   *secret = MemoryContextAlloc(secrets->mcxt, offsetof(Secret, data) + len + 1);

	memcpy(secret->data, data, len);
	secret->data[len] = '\0';
	secret->len = len;
	secret->held = false;
	secret->base64 = base64;
	secret->of = of ? of : secret;
	dlist_push_tail(&secrets->all, &secret->node);
	return secret;
}

/* What of the secret stands in Base64 when so many bytes are before it. */
static void
add_base64(IngestSecrets *secrets, Secret *secret, Size before)
{
	Size		len = before + secret->len;
	Size		first = (8 * before + 5) / 6;
	Size		behind = 8 * len / 6;
	char	   *bytes;
	char	   *encoded;

	if (behind < first + MIN_BASE64)
		return;
	bytes = palloc0(len);
	memcpy(bytes + before, secret->data, secret->len);
	encoded = ingest_base64_encode(bytes, len, false);
	add_piece(secrets, encoded + first, behind - first, secret, true);
	explicit_bzero(bytes, len);
	explicit_bzero(encoded, strlen(encoded));
	pfree(bytes);
	pfree(encoded);
}

static void
add_pem_lines(IngestSecrets *secrets, Secret *secret)
{
	const char *line = secret->data;

	while (*line != '\0')
	{
		Size		len = strcspn(line, "\r\n");

		if (len >= MIN_PEM_LINE && *line != '-')
			add_piece(secrets, line, len, secret, false);
		line += len;
		line += strspn(line, "\r\n");
	}
}

char *
ingest_secrets_add(IngestSecrets *secrets, const char *text)
{
	Secret	   *secret;

	if (text == NULL)
		return NULL;
	secret = add_piece(secrets, text, strlen(text), NULL, false);
	if (strstr(text, "-----BEGIN ") != NULL)
		add_pem_lines(secrets, secret);
	else
		for (Size before = 0; before < 3; before++)
			add_base64(secrets, secret, before);
	return secret->data;
}

char *
ingest_secrets_hold(IngestSecrets *secrets, const char *text)
{
	Secret	   *secret;

	if (text == NULL)
		return NULL;
	secret = add_piece(secrets, text, strlen(text), NULL, false);
	secret->held = true;
	return secret->data;
}

void
ingest_secrets_add_encoded(IngestSecrets *secrets, const char *text)
{
	Secret	   *secret = add_piece(secrets, text, strlen(text), NULL, false);

	secret->held = true;
	add_base64(secrets, secret, 0);
}

void
ingest_secrets_remove(IngestSecrets *secrets, char *text)
{
	Secret	   *secret;
	dlist_mutable_iter iter;

	if (text == NULL)
		return;
	secret = (Secret *) (text - offsetof(Secret, data));
	/* Itself is the first of its pieces; the rest is compared with it, not read through it. */
	dlist_foreach_modify(iter, &secrets->all)
	{
		Secret	   *piece = dlist_container(Secret, node, iter.cur);

		if (piece->of != secret)
			continue;
		dlist_delete(&piece->node);
		explicit_bzero(piece->data, piece->len);
		pfree(piece);
	}
}

/*
 * ---- Redaction
 */

static int
hex_value(const char *at, const char *end, int digits)
{
	int			value = 0;

	if (end - at < digits)
		return -1;
	for (int i = 0; i < digits; i++)
	{
		int			c = (unsigned char) at[i];

		if (!isxdigit(c))
			return -1;
		value = value * 16 + (isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
	}
	return value;
}

/* The byte at "at", and how much of the text stands for it. */
static Size
read_percent(const char *at, const char *end, int *byte)
{
	int			value = *at == '%' ? hex_value(at + 1, end, 2) : -1;

	*byte = value >= 0 ? value : (unsigned char) *at;
	return value >= 0 ? 3 : 1;
}

static Size
read_json(const char *at, const char *end, int *byte)
{
	static const char escaped[] = "\"\\/bfnrt";
	static const char meant[] = "\"\\/\b\f\n\r\t";
	const char *found;
	int			value;

	*byte = (unsigned char) *at;
	if (*at != '\\' || end - at < 2)
		return 1;
	if (at[1] == 'u' && (value = hex_value(at + 2, end, 4)) >= 0 && value < 0x80)
	{
		*byte = value;
		return 6;
	}
	found = at[1] != '\0' ? strchr(escaped, at[1]) : NULL;
	if (found == NULL)
		return 1;
	*byte = meant[found - escaped];
	return 2;
}

static Size
read_html(const char *at, const char *end, int *byte)
{
	static const struct
	{
		const char *name;
		char		meant;
	}			entities[] = {
		{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}
	};
	const char *digit;
	int			value = 0;
	bool		hex;

	*byte = (unsigned char) *at;
	if (*at != '&')
		return 1;
	for (int i = 0; i < lengthof(entities); i++)
	{
		Size		len = strlen(entities[i].name);

		if (end - at >= len && memcmp(at, entities[i].name, len) == 0)
		{
			*byte = entities[i].meant;
			return len;
		}
	}
	if (end - at < 4 || at[1] != '#')
		return 1;
	hex = at[2] == 'x' || at[2] == 'X';
	for (digit = at + (hex ? 3 : 2); digit < end && value < 0x100; digit++)
	{
		if (hex ? !isxdigit((unsigned char) *digit) : !isdigit((unsigned char) *digit))
			break;
		value = hex ? value * 16 + hex_value(digit, end, 1) : value * 10 + *digit - '0';
	}
	if (digit == end || *digit != ';' || value >= 0x80)
		return 1;
	*byte = value;
	return digit + 1 - at;
}

static Size
read_byte(Reading reading, const char *at, const char *end, int *byte)
{
	switch (reading)
	{
		case READ_PERCENT:
			return read_percent(at, end, byte);
		case READ_JSON:
			return read_json(at, end, byte);
		case READ_HTML:
			return read_html(at, end, byte);
		case READ_PLAIN:
			break;
	}
	*byte = (unsigned char) *at;
	return 1;
}

static bool
same_byte(const Secret *secret, Reading reading, int wanted, int byte)
{
	if (wanted == byte)
		return true;
	if (secret->base64)
		return (wanted == '+' && (byte == '-' || byte == ' ')) || (wanted == '/' && byte == '_');
	return reading == READ_PERCENT && wanted == ' ' && byte == '+';
}

static bool
is_word(const char *text, const char *end, const char *from, const char *to)
{
	return (from == text || !isalnum((unsigned char) from[-1])) &&
		(to == end || !isalnum((unsigned char) *to));
}

/* How much of the text is the secret, from "at" on: 0 when it is not there. */
static Size
match_secret(const Secret *secret, Reading reading, const char *text, const char *at, const char *end)
{
	const char *from = at;
	Size		i;

	for (i = 0; i < secret->len && at < end; i++)
	{
		int			byte;
		Size		taken = read_byte(reading, at, end, &byte);

		if (!same_byte(secret, reading, (unsigned char) secret->data[i], byte))
			break;
		at += taken;
	}
	if (i == 0 || (i < secret->len && (at < end || i < MIN_TAIL)))
		return 0;
	if (secret->len < MIN_SECRET && !is_word(text, end, from, at))
		return 0;
	return at - from;
}

/* The longest secret there, and which it is. */
static Size
match_any(IngestSecrets *secrets, const bool *readings, const char *text, const char *at,
		  const char *end, bool *base64)
{
	Size		longest = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &secrets->all)
	{
		const Secret *secret = dlist_container(Secret, node, iter.cur);

		if (secret->held)
			continue;
		for (Reading reading = READ_PLAIN; reading <= READ_HTML; reading++)
		{
			Size		len = readings[reading] ? match_secret(secret, reading, text, at, end) : 0;

			if (len > longest)
			{
				longest = len;
				*base64 = secret->base64;
			}
		}
	}
	return longest;
}

static bool
is_base64(char c)
{
	return isalnum((unsigned char) c) || (c != '\0' && strchr("+/-_=", c) != NULL);
}

char *
ingest_secrets_redact(IngestSecrets *secrets, const char *text, Size len)
{
	const char *end = text + len;
	bool		readings[] = {
		[READ_PLAIN] = true,
		[READ_PERCENT] = memchr(text, '%', len) != NULL || memchr(text, '+', len) != NULL,
		[READ_JSON] = memchr(text, '\\', len) != NULL,
		[READ_HTML] = memchr(text, '&', len) != NULL
	};
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *at = text; at < end;)
	{
		bool		base64 = false;
		Size		found = match_any(secrets, readings, text, at, end, &base64);

		if (found == 0)
		{
			appendStringInfoCharMacro(&buf, *at);
			at++;
			continue;
		}
		at += found;
		if (base64)
		{
			while (buf.len > 0 && is_base64(buf.data[buf.len - 1]))
				buf.len--;
			while (at < end && is_base64(*at))
				at++;
		}
		appendStringInfoString(&buf, MASK);
	}
	buf.data[buf.len] = '\0';
	return buf.data;
}
