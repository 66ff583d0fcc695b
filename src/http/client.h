/*
 * client.h
 *		One transfer engine over libcurl: requests in, responses out, nothing waits.
 *
 * A client belongs to one open source, in one process.  Its sockets and timers
 * are seen through one descriptor and one deadline, so that the owner's single
 * wait point serves (WaitLatchOrSocket); nothing here sleeps or blocks, names
 * are resolved in a thread of the library that has all signals blocked.
 *
 * The client follows redirects itself, and holds every hop against the same
 * rules: scheme, address, credentials.  It decides nothing about statuses: 404
 * is an answer.  What it reports as failed are networks, TLS, limits, and what
 * is forbidden.
 *
 * Unless said otherwise: xact: any, outside one as a rule.  raises: out of
 * memory only, never through the library's frames.
 */
#ifndef INGEST_HTTP_CLIENT_H
#define INGEST_HTTP_CLIENT_H

#include "postgres.h"

#include "core/error.h"
#include "nodes/pg_list.h"

typedef struct IngestHttpClient IngestHttpClient;
typedef struct IngestHttpTransfer IngestHttpTransfer;

/* What holds for all requests of a client; stays valid as long as the client. */
typedef struct IngestHttpClientOptions
{
	bool		allow_http;		/* http:// to any host; otherwise to loopback only */
	bool		trusted;		/* the owner is a superuser: may connect to any address */
	const char *ca;				/* PEM text to trust instead of the system's, or NULL */
	const char *client_cert;	/* PEM text, or NULL */
	const char *client_key;		/* PEM text, or NULL */
	int64		connect_timeout;	/* ms: name, connection and TLS */
	int64		timeout;		/* ms for a whole request with its redirects, of a streamed one for what
								 * comes before and between two calls of consume; 0: none */
	int64		idle_timeout;	/* ms without a byte */
	int64		max_response;	/* bytes of a body as decoded; of one piece when streamed */
	int64		max_headers;	/* bytes of all of a response's headers, which are at most 5000 */
	int			max_redirects;
	bool		compress;		/* offer what the library can decode */
	const char *user_agent;
} IngestHttpClientOptions;

typedef struct IngestHttpHeader
{
	const char *name;
	const char *value;
	bool		credential;		/* not sent to another host (or port, or scheme), as most are not */
} IngestHttpHeader;

typedef struct IngestHttpRequest
{
	const char *method;			/* "GET", "POST" */
	const char *url;
	List	   *headers;		/* of IngestHttpHeader * */
	const char *body;			/* NULL: none */
	Size		body_len;
	const char *username;		/* basic, or the access key of sigv4; NULL: none */
	const char *password;		/* or its secret key */
	const char *sigv4;			/* libcurl's "provider1:provider2:region:service", or NULL */
	int64		range_from;		/* ask for the body from this byte on; 0: all */
	bool		stream;			/* the body is handed over as it comes */
	bool		form;			/* a request for a token and the like: never redirected */
} IngestHttpRequest;

typedef enum IngestHttpState
{
	INGEST_HTTP_RUNNING,		/* ingest_http_status() > 0: the headers are there */
	INGEST_HTTP_DONE,			/* the whole body has come; when its length was not said: the connection has ended */
	INGEST_HTTP_FAILED			/* ingest_http_error() says why */
} IngestHttpState;

/* What a superuser lets others connect to, besides public addresses: ingest.http_allow. */
extern char *ingest_guc_http_allow;

/* Once for a process that may use the library; also by _PG_init, which starts no thread. */
extern void ingest_http_init(void);

/*
 * A client in mcxt; deleting the context closes it and its transfers.  The
 * library is initialised when it is used first.  NULL: *err says why.
 */
extern IngestHttpClient *ingest_http_client_create(const IngestHttpClientOptions *options,
												   MemoryContext mcxt, IngestError *err);

/* Where to wait: see wait_hint of source.h.  raises: no */
extern void ingest_http_client_wait_hint(IngestHttpClient *client, pgsocket *fd, long *timeout);

/* Let all transfers do what they can without waiting. */
extern void ingest_http_client_work(IngestHttpClient *client);

/*
 * Send a request; it is copied.  Never NULL: what is wrong with the request
 * itself (a scheme, a header with a line break, user info in the URL) is found
 * as a failed transfer of class CONFIG.  Its memory is a child of the client's.
 */
extern IngestHttpTransfer *ingest_http_start(IngestHttpClient *client,
											 const IngestHttpRequest *request);

/* Give up or forget.  Does not wait for threads.  raises: no */
extern void ingest_http_end(IngestHttpTransfer *transfer);

extern IngestHttpState ingest_http_state(const IngestHttpTransfer *transfer);

/*
 * Of a failed transfer.  TRANSIENT: name, connection, TLS handshake broken off,
 * truncated body, timeouts, forbidden address.  PERMANENT: certificate not trusted,
 * forbidden scheme, too many redirects, a limit.  The message names host and
 * path, never query, user info or a header's value.  A forbidden address and
 * a closed port have the same text, so that nobody can scan with it.
 */
extern const IngestError *ingest_http_error(const IngestHttpTransfer *transfer);

/* Of the last hop; 0 before its headers are complete. */
extern int	ingest_http_status(const IngestHttpTransfer *transfer);

/* Value of a header of the last hop, any case of the name; the first of several; NULL: none. */
extern const char *ingest_http_header(const IngestHttpTransfer *transfer, const char *name);

/* The n-th of several with the same name, from 0 (Link, RateLimit). */
extern const char *ingest_http_header_nth(const IngestHttpTransfer *transfer, const char *name, int n);

/* Where the last hop went; without user info. */
extern const char *ingest_http_url(const IngestHttpTransfer *transfer);

/*
 * What has come of the body and was not consumed: valid until the next call of
 * work, consume or end.  Decoded; not verified, not terminated.  With a status
 * from 300 on it may be only the beginning.
 */
extern const char *ingest_http_body(const IngestHttpTransfer *transfer, Size *len);

/*
 * Streams: forget the first bytes.  When more than max_response bytes wait,
 * the peer is held up until some are consumed.
 */
extern void ingest_http_consume(IngestHttpTransfer *transfer, Size len);

/*
 * Take the body's memory over: a palloc'd buffer in mcxt (huge allowed), *len
 * bytes; the transfer's body is empty afterwards.
 */
extern char *ingest_http_take_body(IngestHttpTransfer *transfer, MemoryContext mcxt, Size *len);

/* Bytes of body as decoded, and as sent, so far. */
extern int64 ingest_http_received(const IngestHttpTransfer *transfer);

/* Host and path of a URL, for messages; without user info, query, fragment.  mcxt: current */
extern char *ingest_http_public_url(const char *url);

/*
 * The absolute URL of a reference found in a response to "base" (RFC 3986, 5).
 * NULL: it is none, or not http(s), or has user info.  mcxt: current
 */
extern char *ingest_http_resolve_url(const char *base, const char *reference);

/*
 * Check a URL as a user wrote it: absolute, http or https, a host, no user
 * info.  Templates ({name}) may stand in path and query.  raises:
 * ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE, with the option's name
 */
extern void ingest_http_check_url(const char *option, const char *url);

/* Same scheme, host and port?  raises: no */
extern bool ingest_http_same_origin(const char *a, const char *b);

#endif							/* INGEST_HTTP_CLIENT_H */
