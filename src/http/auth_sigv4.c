/*
 * auth_sigv4.c
 *		Requests as AWS, and what signs like it, want them.
 *
 * libcurl signs (it has the method, the host and the time); here the request is
 * brought into a form that releases from 7.87 on sign right.  One thing cannot be
 * helped from here: for services other than S3, some of them sign a path with
 * encoded characters in it as S3 wants it.
 */
#include "postgres.h"

#include <ctype.h>
#include <openssl/evp.h>

#include "http/auth_private.h"
#include "lib/stringinfo.h"

/* SHA-256 in hex. */
static char *
hash_of_body(const IngestHttpRequest *request)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	StringInfoData hex;

	(void) EVP_Digest(request->body ? request->body : "", request->body ? request->body_len : 0,
					  digest, &len, EVP_sha256(), NULL);
	initStringInfo(&hex);
	for (unsigned int i = 0; i < len; i++)
		appendStringInfo(&hex, "%02x", digest[i]);
	return hex.data;
}

/*
 * What is signed is the query in its canonical form, which not every release of
 * libcurl makes of another one: parameters in order, each with a value, every
 * byte encoded that can be.  The path is S3's: encoded once.
 */
static int
compare_parameters(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static void
append_canonical(StringInfo buf, const char *from, const char *to, const char *keep)
{
	while (from < to)
	{
		int			byte = (unsigned char) *from;

		if (byte == '%' && to - from > 2 && isxdigit((unsigned char) from[1]) && isxdigit((unsigned char) from[2]))
		{
			char		digits[3] = {from[1], from[2], '\0'};

			ingest_http_auth_encode_byte(buf, strtol(digits, NULL, 16), "");
			from += 3;
			continue;
		}
		ingest_http_auth_encode_byte(buf, byte == '+' && *keep != '/' ? ' ' : byte, keep);
		from++;
	}
}

static char *
canonical_parameter(const char *from, const char *to)
{
	const char *equals = memchr(from, '=', to - from);
	StringInfoData buf;

	initStringInfo(&buf);
	append_canonical(&buf, from, equals ? equals : to, "");
	/* Sorts before whatever a name can go on with. */
	appendStringInfoChar(&buf, '\001');
	if (equals)
		append_canonical(&buf, equals + 1, to, "");
	return buf.data;
}

static char *
canonical_url(const char *url)
{
	const char *path = strstr(url, "://");
	const char *query;
	const char *end;
	List	   *parameters = NIL;
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	path = path ? path + 3 : url;
	path += strcspn(path, "/?#");
	query = path + strcspn(path, "?#");
	end = query + strcspn(query, "#");
	appendBinaryStringInfo(&buf, url, path - url);
	append_canonical(&buf, path, query, "/");
	while (query < end)
	{
		const char *from = query + 1;

		query = from + strcspn(from, "&#");
		if (query > from)
			parameters = lappend(parameters, canonical_parameter(from, query));
	}
	list_sort(parameters, compare_parameters);
	foreach(lc, parameters)
	{
		char	   *parameter = lfirst(lc);

		*strchr(parameter, '\001') = '=';
		appendStringInfo(&buf, "%c%s", lc == list_head(parameters) ? '?' : '&', parameter);
	}
	return buf.data;
}

void
ingest_http_auth_prepare_sigv4(const IngestHttpAuthOptions *options, IngestHttpRequest *request)
{
	request->url = canonical_url(request->url);
	request->username = options->aws_access_key;
	request->password = options->aws_secret_key;
	request->sigv4 = psprintf("aws:amz%s%s%s%s",
							  options->aws_region ? ":" : "", options->aws_region ? options->aws_region : "",
							  options->aws_service ? ":" : "", options->aws_service ? options->aws_service : "");
	if (options->aws_session_token)
		ingest_http_auth_add_header(request, "x-amz-security-token", options->aws_session_token, true);
	/* S3 wants to be told what else is signed; libcurl says it from 8 on. */
	if (options->aws_service && strcmp(options->aws_service, "s3") == 0)
		ingest_http_auth_add_header(request, "x-amz-content-sha256", hash_of_body(request), true);
}
