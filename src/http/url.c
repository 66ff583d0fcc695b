/*
 * url.c
 *		URLs, by libcurl's own parser: what is checked is what is used.
 */
#include "postgres.h"

#include <curl/curl.h>

#include "http/client.h"
#include "utils/builtins.h"

static bool
has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char) *text <= ' ' || *text == 0x7f)
			return true;
	return false;
}

/* A part as palloc'd text; NULL: there is none. */
static char *
get_part(CURLU *url, CURLUPart part, unsigned flags)
{
	char	   *value;
	char	   *copy;

	if (curl_url_get(url, part, &value, flags) != CURLUE_OK)
		return NULL;
	copy = pstrdup(value);
	curl_free(value);
	return copy;
}

static CURLU *
parse(const char *text)
{
	CURLU	   *url;

	if (has_control(text))
		return NULL;
	url = curl_url();
	if (url != NULL && curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
	{
		curl_url_cleanup(url);
		url = NULL;
	}
	return url;
}

/* http(s), a host, nobody's name in it; why not, or NULL. */
static const char *
find_fault(CURLU *url)
{
	char	   *scheme = get_part(url, CURLUPART_SCHEME, 0);
	char	   *host = get_part(url, CURLUPART_HOST, 0);

	if (scheme == NULL || (pg_strcasecmp(scheme, "https") != 0 && pg_strcasecmp(scheme, "http") != 0))
		return "Its scheme is neither https nor http.";
	if (host == NULL || *host == '\0')
		return "It has no host.";
	if (get_part(url, CURLUPART_USER, 0) || get_part(url, CURLUPART_PASSWORD, 0))
		return "It has user information in it, which belongs in the user mapping.";
	return NULL;
}

void
ingest_http_check_url(const char *option, const char *text)
{
	const char *host = strstr(text, "://");
	/* The parser takes the first word of http:///a/b for the host. */
	CURLU	   *url = host && host[3] != '/' ? parse(text) : NULL;
	const char *fault = url ? find_fault(url) : "It is no absolute URL, or has spaces in it.";

	if (url)
		curl_url_cleanup(url);
	if (fault)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": not a URL that can be asked", option),
				 errdetail("%s", fault),
				 errhint("It looks like https://api.example.com/v2.")));
}

char *
ingest_http_public_url(const char *text)
{
	CURLU	   *url = parse(text);
	char	   *scheme;
	char	   *host;
	char	   *port;
	char	   *path;
	char	   *result;

	if (url == NULL)
		return pstrdup("a URL that cannot be read");
	scheme = get_part(url, CURLUPART_SCHEME, 0);
	host = get_part(url, CURLUPART_HOST, 0);
	port = get_part(url, CURLUPART_PORT, 0);
	path = get_part(url, CURLUPART_PATH, 0);
	curl_url_cleanup(url);
	result = psprintf("%s://%s%s%s%s", scheme ? scheme : "?", host ? host : "", port ? ":" : "", port ? port : "",
					  path ? path : "");
	return ingest_error_clean(result, strlen(result), 1000);
}

char *
ingest_http_resolve_url(const char *base, const char *reference)
{
	CURLU	   *url = has_control(reference) ? NULL : parse(base);
	/* The library would cut off the base's last part. */
	bool		same = *reference == '\0' || *reference == '#';
	char	   *result = NULL;

	if (url == NULL)
		return NULL;
	if ((same || curl_url_set(url, CURLUPART_URL, reference, 0) == CURLUE_OK) && find_fault(url) == NULL &&
		curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK)
		result = get_part(url, CURLUPART_URL, 0);
	curl_url_cleanup(url);
	return result;
}

bool
ingest_http_same_origin(const char *a, const char *b)
{
	static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
	CURLU	   *urls[2] = {parse(a), parse(b)};
	bool		same = urls[0] && urls[1];

	for (int i = 0; i < lengthof(parts) && same; i++)
	{
		char	   *one = get_part(urls[0], parts[i], CURLU_DEFAULT_PORT);
		char	   *other = get_part(urls[1], parts[i], CURLU_DEFAULT_PORT);

		same = one && other && pg_strcasecmp(one, other) == 0;
	}
	for (int i = 0; i < 2; i++)
		if (urls[i])
			curl_url_cleanup(urls[i]);
	return same;
}
