/*
 * client.c
 *		Transfers over libcurl's multi interface, without waiting.
 *
 * The library tells which sockets and which deadline it waits for; the sockets
 * are put into an epoll set, whose descriptor is the one to wait at.  Callbacks
 * run in our thread with the library's frames on the stack: they note what
 * happens in malloc'ed memory and never raise.  All signals are blocked around
 * calls that may start a thread (names are resolved in one), so that none of
 * them is delivered there.
 *
 * Redirects are followed here, not by the library: each hop is a request that is
 * checked like the first.
 */
#include "postgres.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/clock.h"
#include "http/address.h"
#include "http/client.h"
#include "lib/ilist.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#if LIBCURL_VERSION_NUM < 0x075500
#error "ingest needs libcurl 7.85 or newer"
#endif

/* Bytes of a streamed body that are let in ahead of who takes them, at first. */
#define STREAM_AHEAD (1024 * 1024)

/* Bytes of a body that nobody reads but in an error: of statuses from 300 on. */
#define REST_OF_ANSWER (64 * 1024)

/* Lines of headers at most, however short. */
#define MAX_HEADER_LINES 5000

/* A connection is not used again after so many seconds: certificates change. */
#define CONNECTION_LIFETIME 600

char	   *ingest_guc_http_allow = NULL;

typedef struct Header
{
	struct Header *next;
	size_t		name_len;
	size_t		len;
	char	   *clean;			/* the value as it is shown, or NULL: not asked for yet */
	char		text[FLEXIBLE_ARRAY_MEMBER];	/* name, value */
} Header;

typedef enum Fault
{
	FAULT_NONE,
	FAULT_BODY,					/* larger than it may be */
	FAULT_HEADERS,
	FAULT_LENGTH,				/* it has two */
	FAULT_PIECE,				/* what was compressed becomes too much at once */
	FAULT_MEMORY
} Fault;

struct IngestHttpTransfer
{
	dlist_node	node;
	IngestHttpClient *client;
	MemoryContext mcxt;
	MemoryContextCallback cleanup;
	IngestHttpRequest request;	/* a copy */
	char	   *url;			/* of this hop */
	int			hops;
	bool		strange;		/* it has led to another origin */
	CURL	   *easy;
	bool		added;			/* to the multi handle */
	struct curl_slist *lines;
	char		trouble[CURL_ERROR_SIZE];

	IngestHttpState state;
	IngestError error;

	/* filled by callbacks */
	int			status;
	bool		within;			/* a status line came, the empty line did not */
	bool		complete;		/* the headers are */
	bool		enough;			/* the rest of the body is not wanted */
	Header	   *headers;		/* last one first */
	size_t		header_bytes;
	int			header_lines;
	char	   *body;
	size_t		begin;			/* of what was not consumed */
	size_t		len;			/* behind begin */
	size_t		room;
	size_t		ahead;			/* streams: let in so much */
	bool		paused;
	int64		received;
	Fault		fault;

	/* by ingest_clock_ms(); later than it was by the time we looked elsewhere */
	int64		since;			/* it began, or, of a stream, a piece was taken */
	int64		active_at;		/* something came */
};

struct IngestHttpClient
{
	MemoryContext mcxt;
	MemoryContextCallback cleanup;
	const IngestHttpClientOptions *options;
	CURLM	   *multi;
	int			epoll;
	int64		deadline;		/* of the library, by ingest_clock_ms(); -1: none */
	bool		waited_for;		/* since the last look the owner has been waiting */
	int64		looked_at;		/* the owner was here last */
	dlist_head	transfers;
};

/* ---- settings ---- */

static bool
check_allow(char **newval, void **extra, GucSource source)
{
	const char *bad;

	if (*newval == NULL || ingest_address_check_list(*newval, &bad))
		return true;
	GUC_check_errdetail("\"%s\" is no address or network.", bad);
	GUC_check_errhint("It is a list such as '10.0.0.0/8, 192.168.1.7, fd00::/8'.");
	return false;
}

void
ingest_http_init(void)
{
	DefineCustomStringVariable("ingest.http_allow",
							   "Sets which addresses HTTP sources of roles that are no superusers may connect to besides public ones.",
							   "A list of addresses and networks, such as '10.0.0.0/8, 192.168.1.7'.",
							   &ingest_guc_http_allow, "", PGC_SUSET, 0, check_allow, NULL, NULL);
}

/* ---- signals ---- */

static void
block_signals(sigset_t *before)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static void
restore_signals(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* ---- callbacks: sockets and time ---- */

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	IngestHttpClient *client = arg;
	struct epoll_event event = {.data.fd = fd};

	/* Where nothing is waited for, a connection that breaks would wake us all the time. */
	if (what == CURL_POLL_REMOVE || what == CURL_POLL_NONE)
	{
		(void) epoll_ctl(client->epoll, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(client->epoll, EPOLL_CTL_MOD, fd, &event) == 0)
		return 0;
	return epoll_ctl(client->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -1;
}

static int
set_timer(CURLM *multi, long timeout, void *arg)
{
	IngestHttpClient *client = arg;

	client->deadline = timeout < 0 ? -1 : ingest_clock_ms() + timeout;
	return 0;
}

/*
 * The address the library is about to connect to.  One that is forbidden looks
 * like one where nobody answers.
 */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	IngestHttpTransfer *transfer = arg;
	const IngestHttpClientOptions *options = transfer->client->options;
	bool		plain = pg_strncasecmp(transfer->url, "http:", 5) == 0;

	if (address->family != AF_INET && address->family != AF_INET6)
		return CURL_SOCKET_BAD;
	if (plain && !options->allow_http && !ingest_address_is_loopback(&address->addr))
		return CURL_SOCKET_BAD;
	if (!options->trusted && !ingest_address_is_public(&address->addr) &&
		!ingest_address_is_listed(&address->addr, ingest_guc_http_allow))
		return CURL_SOCKET_BAD;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- callbacks: what comes ---- */

static bool
is_redirect(int status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static Header *
find_header(const IngestHttpTransfer *transfer, const char *name, int n)
{
	Header	   *found = NULL;
	int			count = 0;

	/* The list is the wrong way round. */
	for (Header *h = transfer->headers; h; h = h->next)
		if (h->name_len == strlen(name) && pg_strncasecmp(h->text, name, h->name_len) == 0)
			count++;
	for (Header *h = transfer->headers; h; h = h->next)
		if (h->name_len == strlen(name) && pg_strncasecmp(h->text, name, h->name_len) == 0 && --count == n)
			found = h;
	return found;
}

/* Will this answer be followed, so that nobody is to see it? */
static bool
leads_on(const IngestHttpTransfer *transfer)
{
	return is_redirect(transfer->status) && !transfer->request.form && find_header(transfer, "location", 0) != NULL;
}

static void
forget_headers(IngestHttpTransfer *transfer)
{
	while (transfer->headers)
	{
		Header	   *next = transfer->headers->next;

		free(transfer->headers->clean);
		free(transfer->headers);
		transfer->headers = next;
	}
}

static void
keep_header(IngestHttpTransfer *transfer, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	size_t		name_len = colon ? colon - line : 0;
	Header	   *header;

	/* Lines that go on (RFC 9112, 5.2) are nothing that we need. */
	if (colon == NULL || *line == ' ' || *line == '\t')
		return;
	for (colon++; colon < line + len && (*colon == ' ' || *colon == '\t'); colon++)
		;
	len -= colon - line;
	while (len > 0 && isspace((unsigned char) colon[len - 1]))
		len--;
	header = malloc(offsetof(Header, text) + name_len + len + 1);
	if (header == NULL)
	{
		transfer->fault = FAULT_MEMORY;
		return;
	}
	header->name_len = name_len;
	header->len = len;
	header->clean = NULL;
	memcpy(header->text, line, name_len);
	memcpy(header->text + name_len, colon, len);
	header->next = transfer->headers;
	transfer->headers = header;
}

/* Who else reads it may see an end where we see none (RFC 9112, 6.3). */
static bool
has_two_lengths(const IngestHttpTransfer *transfer)
{
	static const char name[] = "content-length";
	const Header *seen = NULL;

	for (const Header *h = transfer->headers; h; h = h->next)
	{
		if (h->name_len != strlen(name) || pg_strncasecmp(h->text, name, h->name_len) != 0)
			continue;
		if (seen && (h->len != seen->len ||
					 memcmp(h->text + h->name_len, seen->text + seen->name_len, h->len) != 0))
			return true;
		seen = h;
	}
	return false;
}

/* HTTP/1.1 200 OK */
static int
read_status(const char *line, size_t len)
{
	const char *p = memchr(line, ' ', len);
	int			status = 0;

	for (p = p ? p + 1 : line + len; p < line + len && *p >= '0' && *p <= '9' && status < 1000; p++)
		status = status * 10 + *p - '0';
	return status;
}

static size_t
take_header(char *line, size_t size, size_t n, void *arg)
{
	IngestHttpTransfer *transfer = arg;
	size_t		len = size * n;

	transfer->active_at = ingest_clock_ms();
	transfer->header_bytes += len;
	if (transfer->header_bytes > transfer->client->options->max_headers ||
		++transfer->header_lines > MAX_HEADER_LINES)
	{
		transfer->fault = FAULT_HEADERS;
		return 0;
	}
	if (transfer->complete)
		return len;				/* trailers */
	if (!transfer->within)
	{
		/* Others may have come before, of statuses below 200. */
		forget_headers(transfer);
		transfer->status = read_status(line, len);
		transfer->within = true;
	}
	else if (len <= 2 && (len == 0 || *line == '\r' || *line == '\n'))
	{
		transfer->within = false;
		transfer->complete = transfer->status >= 200;
		if (transfer->complete && has_two_lengths(transfer))
			transfer->fault = FAULT_LENGTH;
	}
	else
		keep_header(transfer, line, len);
	return transfer->fault == FAULT_NONE ? len : 0;
}

/* Room for so many bytes more behind what waits. */
static bool
make_room(IngestHttpTransfer *transfer, size_t len)
{
	size_t		room = Max(transfer->room, 16384);
	char	   *body;

	if (transfer->begin + transfer->len + len <= transfer->room)
		return true;
	if (transfer->begin > 0)
	{
		memmove(transfer->body, transfer->body + transfer->begin, transfer->len);
		transfer->begin = 0;
		if (transfer->len + len <= transfer->room)
			return true;
	}
	while (room < transfer->len + len)
		room *= 2;
	body = realloc(transfer->body, room);
	if (body == NULL)
		return false;
	transfer->body = body;
	transfer->room = room;
	return true;
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	IngestHttpTransfer *transfer = arg;
	int64		limit = transfer->client->options->max_response;
	size_t		len = size * n;

	transfer->active_at = ingest_clock_ms();
	if (transfer->status >= 300 && transfer->received + (int64) len > Min(limit, REST_OF_ANSWER))
	{
		transfer->enough = true;
		return 0;
	}
	if (leads_on(transfer))
	{
		transfer->received += len;
		return len;
	}
	if (transfer->request.stream && transfer->status < 300)
	{
		/* When it was let in by mistake it would be asked for again. */
		if (transfer->len > 0 && transfer->len + len > transfer->ahead)
		{
			transfer->paused = true;
			return CURL_WRITEFUNC_PAUSE;
		}
	}
	else if (transfer->received + (int64) len > limit)
	{
		transfer->fault = FAULT_BODY;
		return 0;
	}
	if (!make_room(transfer, len))
	{
		transfer->fault = FAULT_MEMORY;
		return 0;
	}
	memcpy(transfer->body + transfer->begin + transfer->len, data, len);
	transfer->len += len;
	transfer->received += len;
	return len;
}

/* ---- failing ---- */

static void
fail(IngestHttpTransfer *transfer, IngestErrorClass class, int sqlstate, const char *message, const char *detail)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(transfer->mcxt);

	transfer->state = INGEST_HTTP_FAILED;
	ingest_error_set(&transfer->error, class, sqlstate, "%s: %s", ingest_http_public_url(transfer->url), message);
	if (detail)
		ingest_error_detail(&transfer->error, "%s", detail);
	MemoryContextSwitchTo(oldcontext);
}

static void
add_hint(IngestHttpTransfer *transfer, const char *hint)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(transfer->mcxt);

	ingest_error_hint(&transfer->error, "%s", hint);
	MemoryContextSwitchTo(oldcontext);
}

/* For those who may not connect anywhere, both could be: nobody listens, or it is not allowed. */
static void
fail_connect(IngestHttpTransfer *transfer)
{
	fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		 "could not connect", NULL);
	if (!transfer->client->options->trusted)
		add_hint(transfer,
				 "Nobody listens there, or the address is not public: setting ingest.http_allow is what allows such addresses.");
}

/* The library's own words may hold the whole URL: what is behind the path goes. */
static char *
clean_trouble(const char *trouble)
{
	char	   *text = ingest_error_clean(trouble, strlen(trouble), 300);
	char	   *query = strchr(text, '?');

	if (query)
		*query = '\0';
	return *text ? text : NULL;
}

static bool
is_too_large(CURLcode code)
{
#if LIBCURL_VERSION_NUM >= 0x080600
	return code == CURLE_TOO_LARGE;
#else
	return false;
#endif
}

/*
 * What a server thinks of our certificate is said after the handshake, as an
 * alert (RFC 8446, 6), which the library has no code for.
 */
static bool
is_refused_certificate(const char *trouble)
{
	static const char *const alerts[] = {
		"alert certificate required", "alert bad certificate", "alert unknown ca", "alert certificate unknown",
		"alert certificate expired", "alert certificate revoked", "alert unsupported certificate", "alert access denied",
	};

	for (int i = 0; i < lengthof(alerts); i++)
		if (strstr(trouble, alerts[i]))
			return true;
	return false;
}

/* Ours is none, or its key is another's: versions of the library have different codes. */
static bool
is_useless_certificate(CURLcode code, const char *trouble)
{
	return code == CURLE_SSL_CERTPROBLEM || strstr(trouble, "private key") || strstr(trouble, "client certificate");
}

static void
fail_code(IngestHttpTransfer *transfer, CURLcode code)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(transfer->mcxt);
	char	   *detail = clean_trouble(*transfer->trouble ? transfer->trouble : curl_easy_strerror(code));

	MemoryContextSwitchTo(oldcontext);
	/* The library has limits of its own: for a line, and for what a compressed piece becomes while it is held up. */
	if (transfer->paused && (is_too_large(code) || code == CURLE_OUT_OF_MEMORY))
		transfer->fault = FAULT_PIECE;
	else if (is_too_large(code) || (code == CURLE_OUT_OF_MEMORY && transfer->within))
		transfer->fault = FAULT_HEADERS;
	if (transfer->fault == FAULT_MEMORY || (code == CURLE_OUT_OF_MEMORY && transfer->fault == FAULT_NONE))
		fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_OUT_OF_MEMORY, "out of memory", NULL);
	else if (transfer->fault == FAULT_BODY)
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "answer is larger than it may be",
			 psprintf("Option \"max_response\" of the server allows " INT64_FORMAT " bytes.",
					  transfer->client->options->max_response));
	else if (transfer->fault == FAULT_HEADERS)
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "answer has more headers than it may have",
			 psprintf("Option \"max_headers\" of the server allows " INT64_FORMAT " bytes, in at most %d lines of at most 100 kB.",
					  transfer->client->options->max_headers, MAX_HEADER_LINES));
	else if (transfer->fault == FAULT_PIECE)
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "answer is larger than it may be",
			 "A few kilobytes of it, which are compressed, become more than can be held.");
	else if (transfer->fault == FAULT_LENGTH)
		fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE, "connection failed",
			 "The answer has two lengths that are not the same.");
	else if (code == CURLE_OK)
		fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE, "connection failed",
			 "The answer breaks off in its headers.");
	else if (is_refused_certificate(transfer->trouble))
	{
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
			 transfer->client->options->client_cert && !transfer->strange ? "server has refused our certificate" :
			 "server wants a certificate of ours", detail);
		add_hint(transfer, "Options \"client_cert\" and \"client_key\" of the user mapping are what it is shown.");
	}
	else if (transfer->client->options->client_cert && is_useless_certificate(code, transfer->trouble))
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
			 "client certificate cannot be used", detail);
	else
		switch (code)
		{
			case CURLE_COULDNT_CONNECT:
				fail_connect(transfer);
				break;
			case CURLE_COULDNT_RESOLVE_HOST:
				fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
					 "could not find the host's address", NULL);
				break;
			case CURLE_OPERATION_TIMEDOUT:
				fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE, "no answer in time", detail);
				break;
			case CURLE_PEER_FAILED_VERIFICATION:
			case CURLE_SSL_CACERT_BADFILE:
			case CURLE_SSL_ISSUER_ERROR:
			case CURLE_SSL_INVALIDCERTSTATUS:
				fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
					 "TLS failed", detail);
				break;
			case CURLE_URL_MALFORMAT:
				fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_INSUFFICIENT_PRIVILEGE, "URL cannot be asked", NULL);
				break;
			default:
				fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE, "connection failed", detail);
				break;
		}
}

/* ---- requests ---- */

static bool
has_control(const char *text)
{
	for (; *text; text++)
		if (((unsigned char) *text < ' ' && *text != '\t') || *text == 0x7f)
			return true;
	return false;
}

/* What a header's name is made of (RFC 9110, 5.6.2). */
static bool
is_token(const char *text)
{
	return *text != '\0' &&
		text[strspn(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0';
}

/* By its name only: what it is connected to is looked at when it is. */
static bool
is_here(const char *url)
{
	const char *host = url + strlen("http://");

	return pg_strncasecmp(host, "localhost", 9) == 0 || strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0;
}

/* What cannot be sent as it is.  NULL: nothing. */
static const char *
find_fault(const IngestHttpRequest *request, const IngestHttpClientOptions *options)
{
	ListCell   *lc;

	for (const char *p = request->url; *p; p++)
		if ((unsigned char) *p <= ' ' || *p == 0x7f)
			return "its URL has a space or control character in it";
	if (ingest_http_resolve_url(request->url, request->url) == NULL)
		return "its URL is not one that can be asked";
	if (pg_strncasecmp(request->url, "https:", 6) != 0 && !options->allow_http && !is_here(request->url))
		return "plain http is not allowed by the server's option \"allow_http\"";
	foreach(lc, request->headers)
	{
		const IngestHttpHeader *header = lfirst(lc);

		if (!is_token(header->name))
			return "a header has a name that is none";
		if (has_control(header->value))
			return "a header has a control character in it";
	}
	if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "POST") != 0)
		return "its method is neither GET nor POST";
	/* The library puts these into a header as they are. */
	if ((request->sigv4 && (has_control(request->sigv4) || (request->username && has_control(request->username)))) ||
		(options->user_agent && has_control(options->user_agent)))
		return "a header has a control character in it";
	return NULL;
}

static void
copy_request(IngestHttpTransfer *transfer, const IngestHttpRequest *request)
{
	ListCell   *lc;
	IngestHttpRequest *copy = &transfer->request;

	*copy = *request;
	copy->headers = NIL;
	foreach(lc, request->headers)
	{
		const IngestHttpHeader *header = lfirst(lc);
		IngestHttpHeader *mine = palloc(sizeof(IngestHttpHeader));

		mine->name = pstrdup(header->name);
		mine->value = pstrdup(header->value);
		mine->credential = header->credential;
		copy->headers = lappend(copy->headers, mine);
	}
	copy->method = pstrdup(request->method);
	copy->url = pstrdup(request->url);
	copy->username = request->username ? pstrdup(request->username) : NULL;
	copy->password = request->password ? pstrdup(request->password) : NULL;
	copy->sigv4 = request->sigv4 ? pstrdup(request->sigv4) : NULL;
	if (request->body)
	{
		char	   *body = palloc(request->body_len + 1);

		memcpy(body, request->body, request->body_len);
		body[request->body_len] = '\0';
		copy->body = body;
	}
}

/* One more line for the library; false: out of memory. */
static bool
add_line(IngestHttpTransfer *transfer, const char *line)
{
	struct curl_slist *longer = curl_slist_append(transfer->lines, line);

	if (longer == NULL)
		return false;
	transfer->lines = longer;
	return true;
}

static bool
add_lines(IngestHttpTransfer *transfer)
{
	ListCell   *lc;
	/* libcurl signs even this one, which is not sent. */
	bool		ok = transfer->request.sigv4 || add_line(transfer, "Expect:");

	foreach(lc, transfer->request.headers)
	{
		const IngestHttpHeader *header = lfirst(lc);

		/* An empty value is written with a semicolon. */
		ok = ok && add_line(transfer, *header->value ? psprintf("%s: %s", header->name, header->value) :
							psprintf("%s;", header->name));
	}
	return ok;
}

#define SET(option, value) ok = ok && curl_easy_setopt(easy, CURLOPT_##option, value) == CURLE_OK

static bool
set_blob(CURL *easy, CURLoption option, const char *pem)
{
	struct curl_blob blob = {unconstify(char *, pem), strlen(pem), CURL_BLOB_COPY};

	return curl_easy_setopt(easy, option, &blob) == CURLE_OK;
}

static bool
set_security(IngestHttpTransfer *transfer)
{
	const IngestHttpClientOptions *options = transfer->client->options;
	CURL	   *easy = transfer->easy;
	bool		ok = true;

	SET(PROTOCOLS_STR, "http,https");
	SET(REDIR_PROTOCOLS_STR, "http,https");
	SET(FOLLOWLOCATION, 0L);
	SET(PROXY, "");
	SET(NOPROXY, "*");
	SET(NETRC, (long) CURL_NETRC_IGNORED);
	SET(UNRESTRICTED_AUTH, 0L);
	SET(SSL_VERIFYPEER, 1L);
	SET(SSL_VERIFYHOST, 2L);
	SET(SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(OPENSOCKETFUNCTION, open_socket);
	SET(OPENSOCKETDATA, transfer);
	SET(MAXLIFETIME_CONN, (long) CONNECTION_LIFETIME);
	SET(DISALLOW_USERNAME_IN_URL, 1L);
	if (options->ca)
	{
		/* Instead of the system's file, and of its directory. */
		SET(CAPATH, (char *) NULL);
		ok = ok && set_blob(easy, CURLOPT_CAINFO_BLOB, options->ca);
	}
	/* Who we are is for whom it was meant. */
	if (options->client_cert && options->client_key && !transfer->strange)
	{
		/* Nobody is asked for a passphrase: a backend has no terminal. */
		SET(KEYPASSWD, "");
		ok = ok && set_blob(easy, CURLOPT_SSLCERT_BLOB, options->client_cert) &&
			set_blob(easy, CURLOPT_SSLKEY_BLOB, options->client_key);
	}
	return ok;
}

static bool
set_credentials(IngestHttpTransfer *transfer)
{
	const IngestHttpRequest *request = &transfer->request;
	CURL	   *easy = transfer->easy;
	bool		ok = true;

	if (request->username == NULL)
		return true;
	SET(USERNAME, request->username);
	SET(PASSWORD, request->password ? request->password : "");
	if (request->sigv4)
		SET(AWS_SIGV4, request->sigv4);
	else
		SET(HTTPAUTH, (long) CURLAUTH_BASIC);
	return ok;
}

static bool
set_request(IngestHttpTransfer *transfer)
{
	const IngestHttpClientOptions *options = transfer->client->options;
	const IngestHttpRequest *request = &transfer->request;
	CURL	   *easy = transfer->easy;
	bool		ok = true;

	SET(NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Whoever gives up does not wait for a name. */
	SET(QUICK_EXIT, 1L);
#endif
	SET(URL, transfer->url);
	SET(PRIVATE, transfer);
	SET(ERRORBUFFER, transfer->trouble);
	SET(WRITEFUNCTION, take_body);
	SET(WRITEDATA, transfer);
	SET(HEADERFUNCTION, take_header);
	SET(HEADERDATA, transfer);
	SET(HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CONNECTTIMEOUT_MS, (long) options->connect_timeout);
	if (options->user_agent)
		SET(USERAGENT, options->user_agent);
	/* A range counts bytes as they are sent. */
	if (options->compress && request->range_from <= 0)
		SET(ACCEPT_ENCODING, "");
	if (request->range_from > 0)
		SET(RANGE, psprintf(INT64_FORMAT "-", request->range_from));
	if (strcmp(request->method, "POST") == 0)
	{
		SET(POST, 1L);
		SET(POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
		SET(POSTFIELDS, request->body ? request->body : "");
	}
	ok = ok && add_lines(transfer);
	SET(HTTPHEADER, transfer->lines);
	return ok && set_security(transfer) && set_credentials(transfer);
}

/* ---- hops ---- */

static void
drop_hop(IngestHttpTransfer *transfer)
{
	sigset_t	before;

	block_signals(&before);
	if (transfer->added)
		curl_multi_remove_handle(transfer->client->multi, transfer->easy);
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	curl_slist_free_all(transfer->lines);
	restore_signals(&before);
	transfer->easy = NULL;
	transfer->lines = NULL;
	transfer->added = false;
}

/* Send the request of this hop. */
static void
start_hop(IngestHttpTransfer *transfer)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(transfer->mcxt);
	sigset_t	before;

	transfer->status = 0;
	transfer->within = transfer->complete = transfer->enough = transfer->paused = false;
	transfer->header_lines = 0;
	transfer->header_bytes = transfer->begin = transfer->len = 0;
	transfer->received = 0;
	transfer->fault = FAULT_NONE;
	*transfer->trouble = '\0';
	transfer->active_at = ingest_clock_ms();
	forget_headers(transfer);

	block_signals(&before);
	transfer->easy = curl_easy_init();
	restore_signals(&before);
	if (transfer->easy == NULL || !set_request(transfer))
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_FDW_ERROR, "request could not be made",
			 clean_trouble(transfer->trouble));
	else
	{
		block_signals(&before);
		transfer->added = curl_multi_add_handle(transfer->client->multi, transfer->easy) == CURLM_OK;
		restore_signals(&before);
		if (!transfer->added)
			fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_OUT_OF_MEMORY, "out of memory", NULL);
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Credentials are for whom they were meant.  In which of the headers there are
 * some only their owner knows: of all that are set, those go on that never are.
 */
static void
drop_credentials(IngestHttpRequest *request)
{
	static const char *const harmless[] = {
		"accept", "accept-language", "content-type", "if-range", "if-match", "if-none-match", "if-modified-since"
	};
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, request->headers)
	{
		IngestHttpHeader *header = lfirst(lc);

		for (int i = 0; i < lengthof(harmless) && !header->credential; i++)
			if (pg_strcasecmp(header->name, harmless[i]) == 0)
				kept = lappend(kept, header);
	}
	request->headers = kept;
	request->username = request->password = request->sigv4 = NULL;
}

/* A POST that is answered with "look there". */
static void
become_get(IngestHttpRequest *request)
{
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, request->headers)
	{
		IngestHttpHeader *header = lfirst(lc);

		if (pg_strcasecmp(header->name, "content-type") != 0)
			kept = lappend(kept, header);
	}
	request->headers = kept;
	request->method = "GET";
	request->body = NULL;
	request->body_len = 0;
}

/* Why a redirect is not followed; NULL: it is. */
static const char *
find_objection(const IngestHttpTransfer *transfer, const char *url)
{
	if (url == NULL)
		return "It leads to something that is no URL of http or https, or has user information in it.";
	if (pg_strncasecmp(url, "https:", 6) == 0)
		return NULL;
	if (pg_strncasecmp(transfer->url, "https:", 6) == 0)
		return "It leads from https to http.";
	if (!transfer->client->options->allow_http && !is_here(url))
		return "It leads to plain http, which is not allowed by the server's option \"allow_http\".";
	return NULL;
}

static void
follow(IngestHttpTransfer *transfer)
{
	const IngestHttpClientOptions *options = transfer->client->options;
	MemoryContext oldcontext = MemoryContextSwitchTo(transfer->mcxt);
	Header	   *header = find_header(transfer, "location", 0);
	char	   *location = pnstrdup(header->text + header->name_len, header->len);
	char	   *url = ingest_http_resolve_url(transfer->url, location);
	const char *objection = find_objection(transfer, url);
	int			status = transfer->status;

	if (objection)
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_INSUFFICIENT_PRIVILEGE, "redirect is not followed", objection);
	else if (++transfer->hops > options->max_redirects)
		fail(transfer, INGEST_ERROR_PERMANENT, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many redirects",
			 psprintf("Option \"max_redirects\" of the server allows %d.", options->max_redirects));
	else
	{
		if (!ingest_http_same_origin(transfer->url, url))
		{
			transfer->strange = true;
			drop_credentials(&transfer->request);
		}
		if (status == 303 || (status < 303 && strcmp(transfer->request.method, "POST") == 0))
			become_get(&transfer->request);
		drop_hop(transfer);
		transfer->url = url;
		start_hop(transfer);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* ---- results ---- */

static void
finish(IngestHttpTransfer *transfer, CURLcode code)
{
	if (transfer->state != INGEST_HTTP_RUNNING)
		return;
	/* The library takes headers that break off for all of them. */
	if ((code != CURLE_OK && !transfer->enough) || transfer->fault != FAULT_NONE || !transfer->complete)
		fail_code(transfer, code);
	else if (!transfer->complete)
		/* For the library a head that breaks off at a line's end is one. */
		fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE, "connection failed",
			 "It was closed within the headers of the answer.");
	else if (leads_on(transfer))
		follow(transfer);
	else
		transfer->state = INGEST_HTTP_DONE;
	if (transfer->state == INGEST_HTTP_FAILED)
		drop_hop(transfer);
}

/* Those that the library has done with; false: none. */
static bool
take_finished(IngestHttpClient *client)
{
	CURLMsg    *message;
	int			left;
	bool		any = false;

	while ((message = curl_multi_info_read(client->multi, &left)) != NULL)
	{
		char	   *transfer = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		any = true;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		finish((IngestHttpTransfer *) transfer, message->data.result);
	}
	return any;
}

/* ---- time ---- */

/*
 * When a transfer has taken too long; -1: never.  While it is held up it is not
 * the peer that lets us wait.
 */
static int64
end_of_patience(const IngestHttpTransfer *transfer)
{
	const IngestHttpClientOptions *options = transfer->client->options;
	int64		idle = transfer->active_at + options->idle_timeout;

	if (transfer->state != INGEST_HTTP_RUNNING || transfer->paused)
		return -1;
	return options->timeout > 0 ? Min(idle, transfer->since + options->timeout) : idle;
}

/* While the owner was busy with other things nothing could come. */
static void
forgive_absence(IngestHttpClient *client)
{
	int64		now = ingest_clock_ms();
	int64		away = client->waited_for ? 0 : now - client->looked_at;
	dlist_iter	iter;

	client->looked_at = now;
	if (away <= 0)
		return;
	dlist_foreach(iter, &client->transfers)
	{
		IngestHttpTransfer *transfer = dlist_container(IngestHttpTransfer, node, iter.cur);

		transfer->since = Min(transfer->since + away, now);
		transfer->active_at = Min(transfer->active_at + away, now);
	}
}

static void
end_late(IngestHttpClient *client)
{
	int64		now = ingest_clock_ms();
	dlist_iter	iter;

	dlist_foreach(iter, &client->transfers)
	{
		IngestHttpTransfer *transfer = dlist_container(IngestHttpTransfer, node, iter.cur);
		int64		end = end_of_patience(transfer);
		bool		idle = now >= transfer->active_at + client->options->idle_timeout;

		if (end < 0 || now < end)
			continue;
		fail(transfer, INGEST_ERROR_TRANSIENT, ERRCODE_CONNECTION_FAILURE, "no answer in time",
			 idle ? psprintf("Nothing came for " INT64_FORMAT " ms.", client->options->idle_timeout) :
			 psprintf("Option \"timeout\" of the server allows " INT64_FORMAT " ms.", client->options->timeout));
		drop_hop(transfer);
	}
}

/* ---- going on ---- */

/* Let the library act on its sockets and its deadline; false: there was nothing to do. */
static bool
drive(IngestHttpClient *client)
{
	struct epoll_event events[64];
	int			n = epoll_wait(client->epoll, events, lengthof(events), 0);
	bool		due = client->deadline >= 0 && client->deadline <= ingest_clock_ms();
	int			running;
	sigset_t	before;

	if (n <= 0 && !due)
		return false;
	block_signals(&before);
	for (int i = 0; i < n; i++)
	{
		int			what = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
			(events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			(events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

		curl_multi_socket_action(client->multi, events[i].data.fd, what, &running);
	}
	if (due)
	{
		client->deadline = -1;
		curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	restore_signals(&before);
	return true;
}

void
ingest_http_client_work(IngestHttpClient *client)
{
	forgive_absence(client);
	client->waited_for = false;
	/* A peer that is faster than we are must not keep us here. */
	for (int rounds = 0; rounds < 16; rounds++)
	{
		bool		driven = drive(client);

		if (!take_finished(client) && !driven)
			break;
	}
	end_late(client);
	client->looked_at = ingest_clock_ms();
}

void
ingest_http_client_wait_hint(IngestHttpClient *client, pgsocket *fd, long *timeout)
{
	int64		deadline = client->deadline;
	dlist_iter	iter;

	forgive_absence(client);
	client->waited_for = true;
	dlist_foreach(iter, &client->transfers)
	{
		int64		end = end_of_patience(dlist_container(IngestHttpTransfer, node, iter.cur));

		if (end >= 0 && (deadline < 0 || end < deadline))
			deadline = end;
	}
	*fd = client->epoll;
	*timeout = deadline < 0 ? -1 : (long) Min(Max(deadline - ingest_clock_ms(), 0), 3600000);
}

/* ---- beginning and ending ---- */

static void
cleanup_client(void *arg)
{
	IngestHttpClient *client = arg;
	sigset_t	before;

	block_signals(&before);
	if (client->multi)
		curl_multi_cleanup(client->multi);
	restore_signals(&before);
	if (client->epoll >= 0)
		close(client->epoll);
}

static bool
init_library(void)
{
	static bool done = false;
	sigset_t	before;

	if (done)
		return true;
	block_signals(&before);
	done = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	restore_signals(&before);
	return done;
}

IngestHttpClient *
ingest_http_client_create(const IngestHttpClientOptions *options, MemoryContext parent, IngestError *err)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest http client", ALLOCSET_DEFAULT_SIZES);
	IngestHttpClient *client = MemoryContextAllocZero(mcxt, sizeof(IngestHttpClient));

	client->mcxt = mcxt;
	client->options = options;
	client->epoll = -1;
	client->deadline = -1;
	client->looked_at = ingest_clock_ms();
	dlist_init(&client->transfers);
	client->cleanup.func = cleanup_client;
	client->cleanup.arg = client;
	MemoryContextRegisterResetCallback(mcxt, &client->cleanup);

	if (init_library())
		client->multi = curl_multi_init();
	client->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (client->multi == NULL || client->epoll < 0)
	{
		ingest_error_set(err, INGEST_ERROR_TRANSIENT, ERRCODE_INSUFFICIENT_RESOURCES, "could not start an HTTP client");
		return NULL;
	}
	curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
	curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
	return client;
}

static void
cleanup_transfer(void *arg)
{
	IngestHttpTransfer *transfer = arg;

	drop_hop(transfer);
	forget_headers(transfer);
	free(transfer->body);
	transfer->body = NULL;
	dlist_delete(&transfer->node);
}

IngestHttpTransfer *
ingest_http_start(IngestHttpClient *client, const IngestHttpRequest *request)
{
	MemoryContext mcxt = AllocSetContextCreate(client->mcxt, "ingest http transfer", ALLOCSET_SMALL_SIZES);
	IngestHttpTransfer *transfer = MemoryContextAllocZero(mcxt, sizeof(IngestHttpTransfer));
	MemoryContext oldcontext;
	const char *fault;

	transfer->client = client;
	transfer->mcxt = mcxt;
	transfer->ahead = STREAM_AHEAD;
	transfer->since = ingest_clock_ms();
	dlist_push_tail(&client->transfers, &transfer->node);
	transfer->cleanup.func = cleanup_transfer;
	transfer->cleanup.arg = transfer;
	MemoryContextRegisterResetCallback(mcxt, &transfer->cleanup);

	oldcontext = MemoryContextSwitchTo(mcxt);
	copy_request(transfer, request);
	transfer->url = unconstify(char *, transfer->request.url);
	fault = find_fault(request, client->options);
	if (fault)
		fail(transfer, INGEST_ERROR_CONFIG, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
			 psprintf("request cannot be sent: %s", fault), NULL);
	else
		start_hop(transfer);
	if (transfer->state == INGEST_HTTP_FAILED)
		drop_hop(transfer);
	MemoryContextSwitchTo(oldcontext);
	return transfer;
}

void
ingest_http_end(IngestHttpTransfer *transfer)
{
	MemoryContextDelete(transfer->mcxt);
}

/* ---- looking ---- */

IngestHttpState
ingest_http_state(const IngestHttpTransfer *transfer)
{
	return transfer->state;
}

const IngestError *
ingest_http_error(const IngestHttpTransfer *transfer)
{
	return &transfer->error;
}

int
ingest_http_status(const IngestHttpTransfer *transfer)
{
	return transfer->complete && !leads_on(transfer) ? transfer->status : 0;
}

const char *
ingest_http_header_nth(const IngestHttpTransfer *transfer, const char *name, int n)
{
	Header	   *header = find_header(transfer, name, n);

	if (header == NULL)
		return NULL;
	if (header->clean == NULL)
	{
		char	   *clean = ingest_error_clean(header->text + header->name_len, header->len, header->len + 1);

		header->clean = strdup(clean);
		pfree(clean);
		if (header->clean == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	return header->clean;
}

const char *
ingest_http_header(const IngestHttpTransfer *transfer, const char *name)
{
	return ingest_http_header_nth(transfer, name, 0);
}

const char *
ingest_http_url(const IngestHttpTransfer *transfer)
{
	return transfer->url;
}

const char *
ingest_http_body(const IngestHttpTransfer *transfer, Size *len)
{
	*len = transfer->len;
	return transfer->body ? transfer->body + transfer->begin : "";
}

void
ingest_http_consume(IngestHttpTransfer *transfer, Size len)
{
	sigset_t	before;

	transfer->begin += len;
	transfer->len -= len;
	if (len > 0)
	{
		transfer->ahead = STREAM_AHEAD;
		transfer->since = ingest_clock_ms();
	}
	if (!transfer->paused || transfer->easy == NULL)
		return;
	/* Nothing could be taken: what begins here is longer than was let in. */
	if (len == 0)
		transfer->ahead = Min(transfer->ahead * 2, (size_t) transfer->client->options->max_response + STREAM_AHEAD);
	if (len == 0 ? transfer->len + CURL_MAX_WRITE_SIZE > transfer->ahead : transfer->len > transfer->ahead / 2)
		return;
	transfer->paused = false;
	transfer->since = transfer->active_at = ingest_clock_ms();
	block_signals(&before);
	curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
	restore_signals(&before);
}

char *
ingest_http_take_body(IngestHttpTransfer *transfer, MemoryContext mcxt, Size *len)
{
	char	   *copy = MemoryContextAllocExtended(mcxt, transfer->len + 1, MCXT_ALLOC_HUGE);

	*len = transfer->len;
	if (transfer->len > 0)
		memcpy(copy, transfer->body + transfer->begin, transfer->len);
	copy[transfer->len] = '\0';
	free(transfer->body);
	transfer->body = NULL;
	transfer->begin = transfer->len = transfer->room = 0;
	return copy;
}

int64
ingest_http_received(const IngestHttpTransfer *transfer)
{
	return transfer->received;
}
