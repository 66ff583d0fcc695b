/*
 * http.h
 *		What the files of the HTTP source share.
 *
 *	http.c			the source's callbacks
 *	http_options.c	options, and what is made of them at definition time
 *	http_mark.c		values of the cursor
 *	http_state.c	how far a shard has read, as position and proof
 *	http_request.c	the next request of a crawl
 *	http_page.c		from an answer to messages
 *	http_files.c	objects of a bucket or a manifest as shards
 *	http_crawl.c	one shard: requests, retries, the end of a crawl
 *
 * A crawl goes from the first page to the last; a shard is what has a crawl of
 * its own: all of the resource, or one row of "parameters".
 */
#ifndef INGEST_SOURCE_HTTP_H
#define INGEST_SOURCE_HTTP_H

#include "postgres.h"

#include "http/auth.h"
#include "http/client.h"
#include "http/limit.h"
#include "http/template.h"
#include "lib/stringinfo.h"
#include "source/source.h"
#include "utils/hsearch.h"

/* ---- options ---- */

typedef enum HttpPaging
{
	HTTP_PAGING_NONE,
	HTTP_PAGING_LINK,			/* header Link, rel=next */
	HTTP_PAGING_NEXT_URL,		/* a URL in the body */
	HTTP_PAGING_TOKEN,			/* a token in the body */
	HTTP_PAGING_PAGE,			/* 1, 2, 3 */
	HTTP_PAGING_OFFSET,			/* rows passed */
	HTTP_PAGING_LAST_ID,		/* a column of the page's last row */
	HTTP_PAGING_GRAPHQL			/* pageInfo */
} HttpPaging;

typedef enum HttpFiles
{
	HTTP_FILES_NONE,
	HTTP_FILES_MANIFEST,		/* a JSON document that names them */
	HTTP_FILES_S3				/* a bucket's listing, version 2 */
} HttpFiles;

typedef enum HttpCursorFormat
{
	HTTP_CURSOR_ISO, HTTP_CURSOR_DATE, HTTP_CURSOR_UNIX, HTTP_CURSOR_UNIX_MS, HTTP_CURSOR_PLAIN
} HttpCursorFormat;

typedef struct HttpOptions
{
	/* of the server */
	char	   *url;
	bool		allow_http;
	char	   *rate_limit;
	int64		concurrency;
	int64		max_response;
	int64		max_headers;
	int64		max_redirects;
	int64		connect_timeout;
	int64		timeout;
	int64		idle_timeout;
	int64		retries;
	int64		retry_max;
	bool		compress;
	char	   *ssl_ca;
	char	   *user_agent;

	IngestHttpAuthOptions auth;

	/* of the table */
	char	   *path;
	int			method;			/* 0 get, 1 post */
	char	   *body;
	char	   *body_type;
	List	   *headers;		/* of DefElem; of the server, too */
	char	   *rows;
	int			paging;
	char	   *next;
	char	   *page_param;
	char	   *limit_param;
	int64		page_size;
	int64		first_page;
	char	   *total;
	char	   *total_pages;
	char	   *has_more;
	char	   *last_id;
	int64		max_pages;
	char	   *cursor;
	char	   *cursor_start;
	int			cursor_format;
	char	   *lag;
	char	   *key;
	char	   *window;
	int64		poll;
	char	   *error_path;
	char	   *ignore_status;
	char	   *encoding;
	char	   *parameters;
	bool		conditional;
	int			files;			/* HttpFiles */
	char	   *files_rows;
	char	   *files_match;
	char	   *prefix;
} HttpOptions;

extern const IngestOptionDef http_options[];

/* How the body is cut into records. */
typedef enum HttpFraming
{
	HTTP_FRAMING_DOCUMENT,		/* JSON: elements of the row path */
	HTTP_FRAMING_LINES,
	HTTP_FRAMING_CSV,
	HTTP_FRAMING_XML,
	HTTP_FRAMING_WHOLE			/* the body is the record */
} HttpFraming;

/* A header of a request, as a template. */
typedef struct HttpHeaderTemplate
{
	const char *name;
	IngestTemplate *value;
} HttpHeaderTemplate;

/* Paths of single values in a document, by index. */
enum
{
	HTTP_VALUE_NEXT, HTTP_VALUE_HAS_MORE, HTTP_VALUE_TOTAL, HTTP_VALUE_TOTAL_PAGES, HTTP_VALUE_ERROR,
	HTTP_VALUES
};

/* Made at definition time, with catalogs at hand. */
typedef struct HttpPlan
{
	const HttpOptions *options;
	Oid			server;
	Oid			owner;
	char	   *server_name;
	Oid			table_owner;
	bool		trusted;		/* the owner and those of server and table are superusers */
	char	   *mapping;		/* whose user mapping it is, or NULL */
	char	   *origin;			/* what a refresh token kept by us is sealed with; NULL: none is used */
	char	   *token;			/* the one that was kept, or NULL */
	IngestHttpRate rate;

	IngestTemplate *url;
	IngestTemplate *body;		/* or NULL */
	HttpHeaderTemplate *headers;
	int			nheaders;
	const char **names;			/* that templates may use, NULL-terminated */
	char	  **parameters;		/* of a shard: columns of the query, or what names a file; NULL-terminated; NULL: none */
	void	   *list_object;	/* decoders of a bucket's listing */
	void	   *list_token;

	HttpFraming framing;
	bool		csv_header;
	char		csv_quote;
	char		csv_escape;
	int64		max_depth;
	const char *paths[HTTP_VALUES];
	int			ignored[16];	/* statuses, 0-terminated */

	/* a look at rows before they are decoded: cursor, key, last id */
	const IngestFormatOps *format;
	void	   *probe;			/* NULL: there is nothing to look for */
	int			nprobe;			/* columns, by attnum - 1 */
	int			cursor;			/* index, or -1 */
	int			last_id;
	int		   *key;			/* indexes */
	int			nkey;

	Oid			cursor_type;	/* InvalidOid: no cursor and no window */
	FmgrInfo	cursor_cmp;
	FmgrInfo	cursor_in;
	FmgrInfo	cursor_out;
	Oid			cursor_ioparam;
	Oid			collation;
	int64		lag;			/* us, or a number */
	bool		spans;			/* a crawl may begin below the mark: by the lag, or since requests round */
	int64		window;			/* us; 0: none */
} HttpPlan;

extern void http_check_options(const void *options);
extern void *http_prepare(const IngestSourceRelation *rel);

/*
 * Around what runs the table's query "parameters": it is its owner's, who must
 * not act as whoever reads the table.
 */
typedef struct HttpQuery
{
	Oid			user;
	int			context;
	int			nestlevel;
} HttpQuery;

extern void http_query_begin(const HttpPlan *plan, HttpQuery *query);
extern void http_query_end(const HttpQuery *query);

/* ---- marks: values of the cursor ---- */

/* The canonical text of a value (ISO 8601, UTC).  mcxt: current */
extern char *http_mark_text(HttpPlan *plan, Datum value);

/* As the request wants it; "text" is canonical; back: the lag is taken off.  mcxt: current */
extern char *http_mark_request(HttpPlan *plan, const char *text, bool back);
extern Datum http_mark_value(HttpPlan *plan, const char *text);
extern int	http_mark_compare(HttpPlan *plan, Datum a, Datum b);

/* text, moved by the window but not behind now; *last: it is now.  mcxt: current */
extern char *http_mark_window_end(HttpPlan *plan, const char *text, bool *last);

/* Time or number, where the type has one; else 0. */
extern int64 http_mark_number(HttpPlan *plan, Datum value);

/* What requests can tell apart, in us; 1 for all but times. */
extern int64 http_mark_resolution(const HttpPlan *plan);

/* The lowest number that a crawl asks for when the mark is this one. */
extern int64 http_mark_floor(HttpPlan *plan, int64 number);

/* ---- state ---- */

/* Of a row: two hashes say which, the mark (a time or number) when it may be forgotten. */
typedef struct HttpHash
{
	uint64		a;
	uint64		b;
	int64		mark;
} HttpHash;

#define HTTP_HASH_KEY offsetof(HttpHash, mark)

typedef struct HttpHashes
{
	HttpHash   *items;
	int			n;
} HttpHashes;

/* More rows than this near the mark are refused: they are all remembered. */
#define HTTP_MAX_HASHES 100000

/* Pages that are remembered in the position, lest a crawl that does not end begins again at each start. */
#define HTTP_MAX_VISITED 1000

/* How far a shard is.  Strings and hashes belong to the state's context. */
typedef struct HttpState
{
	/* position: for people, too */
	int64		crawls;			/* that came to their end */
	bool		under_way;		/* one has begun and did not */
	int64		pages;			/* of the crawl under way that are done */
	int64		rows;			/* delivered in all crawls */
	int64		crawl_rows;		/* in the one under way */
	int64		byte;			/* of the page under way, where a streamed body goes on */
	char	   *next;			/* URL, token or id of the next page; NULL: the first one */
	char	   *cursor;			/* mark of the crawls before */
	char	   *high;			/* highest of this crawl so far */
	char	   *to;				/* end of the window under way */

	/* proof */
	HttpHashes	seen;			/* rows of earlier crawls that may come again */
	HttpHashes	fresh;			/* rows of this crawl that may come again in the next */
	HttpHashes	last;			/* rows of the page before, when there is a key */
	HttpHashes	taken;			/* rows of the page under way that are committed */
	HttpHashes	visited;		/* the last HTTP_MAX_VISITED tokens or pages of the crawl */
	int64		crc;			/* CRC-32C of the bytes of the streamed body that were read */
	char	   *header;			/* what the streamed body under way is gone on with, see records.h; hex digits */
	char	   *etag;			/* of the body under way, or of a crawl of one page */
	char	   *modified;
	char	   *asked;			/* hash of the URL they are of */
} HttpState;

extern HttpState *http_state_copy(const HttpState *state, MemoryContext mcxt);
extern char *http_state_position(const HttpState *state);
extern char *http_state_proof(const HttpState *state);

/* NULL: it is none.  mcxt: current.  raises: out of memory */
extern HttpState *http_state_parse(const char *position, const char *proof);

/* Position "the crawl after n", which nothing begins at but drains end with. */
extern char *http_state_end(int64 crawls);
extern int64 http_state_distance(const char *from, const char *to);

extern bool http_hashes_have(const HttpHashes *hashes, HttpHash hash);
extern bool http_hashes_remove(HttpHashes *hashes, HttpHash hash);	/* one of them */
extern void http_hashes_add(HttpHashes *hashes, HttpHash hash); /* mcxt: current */
extern HttpHash http_hash_bytes(const char *data, Size len);

/* ---- the source ---- */

/* What a message stands on: an answer, or a piece of one. */
typedef struct HttpPage
{
	MemoryContext mcxt;			/* all of it */
	HttpState  *before;			/* where the shard stood */
	char	   *url;			/* without credentials */
	int64		number;			/* in the crawl, from 0 */
	TimestampTz fetched_at;
	int			shard;
	int			nrecords;
	struct HttpPage *next;		/* of those handed out */
} HttpPage;

typedef struct HttpRecord
{
	HttpPage   *page;
	int			index;			/* in the page */
	const char *data;
	Size		len;
	HttpHash	hash;
	bool		repeated;
} HttpRecord;

typedef enum HttpPhase
{
	HTTP_REST,					/* until the next crawl */
	HTTP_WANT,					/* a request is to be sent */
	HTTP_TRANSFER,
	HTTP_BACKOFF
} HttpPhase;

typedef struct HttpShard
{
	IngestShard *pub;
	MemoryContext mcxt;			/* of the state; replaced with it */
	HttpState  *state;
	bool		moved;			/* position and proof are to be rendered */

	HttpPhase	phase;
	int64		until;			/* REST, WANT, BACKOFF: not before, by ingest_clock_ms() */
	int			attempts;		/* failures in a row */
	IngestHttpTransfer *transfer;
	MemoryContext request_mcxt;
	uint32		token;			/* the request was sent with, see auth.h */
	char	   *asked;			/* URL of the request */
	bool		taken;			/* a place of the limit */
	bool		conditional;	/* the request said what we have */
	struct IngestRecords *records;
	int64		streamed;		/* bytes of the body under way that were consumed */
	int64		skip;			/* of its first ones, that are to be compared only */
	uint32		crc;			/* of those consumed */
	bool		no_parts;		/* what it sends as a part of a body is none */
	int64		page_rows;		/* records of the body under way */
	char	   *last_id;		/* of its last record */
	bool		on_auth;		/* WANT: waits for a token */
	bool		on_limit;		/* WANT: waits for a place or for the rate */
	uint64		ended;			/* requests of ours that had ended when it was asked for */
	HTAB	   *visited;		/* tokens or pages of this crawl */
	HTAB	   *crawled;		/* with a key: rows of this crawl, as far as this process has read it */
	int			empty_pages;	/* in a row */
	char	  **parameters;		/* values, as plan->parameters; entries may be NULL */
} HttpShard;

typedef struct Http
{
	IngestSource base;
	const HttpOptions *options;
	HttpPlan   *plan;
	IngestHttpClient *client;
	IngestHttpAuth *auth;
	IngestHttpLimit *limit;
	IngestError failure;		/* the last one; what waits for the circuit breaker waits for this */
	bool		token_written;	/* a rotated refresh token is in a transaction that is to be committed */
	bool		token_refused;	/* another process may have a newer one */
	bool		token_final;	/* it has not */
	MemoryContextCallback cleanup;
	HttpPage   *pages;			/* handed out */
	MemoryContext shard_mcxt;	/* of the assignment */
	HttpShard  *shards;
	int			nshards;
	uint64		ended;			/* requests so far: their places are free */
	MemoryContext list_mcxt;	/* of what follows */
	IngestShard *listed;		/* by use_sql(): one for each row of "parameters" */
	int			nlisted;
	int64		list_at;		/* when the query is to be asked again */
} Http;

/* ---- files ---- */

/* Shards at most. */
#define HTTP_MAX_SHARDS 100000

extern void http_files_prepare(HttpPlan *plan);

/* What is there now; waits, interruptibly.  mcxt: current */
extern bool http_files_list(Http *http, IngestShard **shards, int *nshards, IngestError *err);

/* Where a file is; NULL: at another server.  mcxt: current */
extern char *http_files_url(Http *http, HttpShard *shard);
extern const char *http_files_etag(const HttpShard *shard);

/* {"owner": "a", "repo": "b"}: values as the name of a shard. */
extern void http_shard_name(StringInfo name, const char *const *names, const char *const *values);

/* ---- request ---- */

/*
 * The URL, body and headers of the shard's next page.  false: *err.
 * mcxt: current
 */
extern bool http_request_make(Http *http, HttpShard *shard, IngestHttpRequest *request,
							  IngestError *err);

/*
 * How a body begins, for a message: without secrets, and clean.  mcxt: current
 */
extern char *http_begin_of_body(Http *http, const char *body, Size len);

/* ---- page ---- */

/* What the paging needs to know of an answer. */
typedef struct HttpEnvelope
{
	char	   *values[HTTP_VALUES];	/* NULL: none, or null */
	char	   *last_id;
	int			nrows;
	HttpHash	content;		/* of all rows */
} HttpEnvelope;

/*
 * A whole answer becomes messages of the batch; "after" is the state with its
 * rows taken in, without what paging changes.  false: *err
 */
extern bool http_page_take(Http *http, HttpShard *shard, IngestBatch *batch, HttpState *after,
						   HttpEnvelope *envelope, IngestError *err);

/*
 * Encodings that are converted: those the server knows and UTF-16.  The C library
 * has others, which it was never meant to be given from outside.
 */
extern bool http_encoding_is_known(const char *name);

/*
 * What has come of a streamed body.  *progress: something was taken;
 * *ended: the body is at its end and all was taken.  false: *err
 */
extern bool http_page_stream(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress,
							 bool *ended, IngestError *err);

/* Position and proof behind a record. */
extern HttpState *http_page_state_after(const IngestBatch *batch, const IngestMessage *msg);
extern void http_page_free(HttpPage *page);

/* ---- crawl ---- */

/* Let a shard do what it can now, without waiting.  *progress: messages or a position came. */
extern bool http_crawl_work(Http *http, HttpShard *shard, IngestBatch *batch, bool *progress,
							IngestError *err);

/* Of the first page on, or where the state says. */
extern void http_crawl_begin(Http *http, HttpShard *shard);
extern void http_crawl_stop(Http *http, HttpShard *shard);

/* The shard stands where "state" says, which is copied. */
extern void http_crawl_adopt(HttpShard *shard, const HttpState *state);

/* ms until it wants to be called again, -1: when the client says. */
extern long http_crawl_wait(const HttpShard *shard);

/* A status that may be another one later. */
extern bool http_status_passes(int status);

/* Pure: where to go on after a page.  *end: nowhere.  false: *err.  http_request.c */
extern bool http_next_page(const HttpPlan *plan, const char *url, const char *link,
						   const HttpEnvelope *envelope, HttpState *state, bool *end,
						   IngestError *err);

/* The URL of rel="next" in a Link header (RFC 8288), or NULL.  mcxt: current */
extern char *http_link_next(const char *header);

#endif							/* INGEST_SOURCE_HTTP_H */
