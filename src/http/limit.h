/*
 * limit.h
 *		Politeness to an HTTP server: how many requests a second, how many at a
 *		time, when to leave it alone.
 *
 * The state of a server (database and OID of CREATE SERVER) is shared by all
 * processes when the library was preloaded, in a table of fixed size (who is not
 * in it waits until some server has nobody inside); otherwise it is this
 * process's own.  Times are of ingest_clock_ms() (the same clock in all processes).
 */
#ifndef INGEST_HTTP_LIMIT_H
#define INGEST_HTTP_LIMIT_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* Parsed '10/s', '600/min', '5000/hour', '1/2s'; zeroed: no limit. */
typedef struct IngestHttpRate
{
	double		requests;		/* in each period */
	int64		period;			/* ms */
} IngestHttpRate;

/* raises: ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE with a hint */
extern void ingest_http_rate_parse(const char *option, const char *text, IngestHttpRate *rate);

/* The other way round; NULL: no limit.  mcxt: current */
extern char *ingest_http_rate_text(const IngestHttpRate *rate);

typedef struct IngestHttpLimit IngestHttpLimit;

/* Before shared memory is there (_PG_init): ask for it, when preloading. */
extern void ingest_http_limit_init(void);

/*
 * In the current context; its end gives back what is taken.  Rate and
 * concurrency (0: any) hold for all processes from now on.
 */
extern IngestHttpLimit *ingest_http_limit_open(Oid database, Oid server, IngestHttpRate rate,
											   int concurrency);

/*
 * May a request go out now?  0: yes, and it is counted, one place of those at a
 * time is ours.  Otherwise ms to wait before asking again (a place that gets
 * free is not announced: 100).  Requests are spread evenly: at most a tenth of a
 * second's worth goes out at once.  raises: no
 */
extern long ingest_http_limit_take(IngestHttpLimit *limit);

/* The request is over: the place is free. */
extern void ingest_http_limit_give_back(IngestHttpLimit *limit);

/* Nobody sends anything to this server for so many ms (Retry-After, a budget used up). */
extern void ingest_http_limit_pause(IngestHttpLimit *limit, int64 ms);

/* ms that are left of it, or until the circuit breaker lets somebody try; 0: none.  raises: no */
extern int64 ingest_http_limit_broken(IngestHttpLimit *limit);
extern int64 ingest_http_limit_paused(IngestHttpLimit *limit);

/*
 * Circuit breaker: after five failures in a row (5xx, networks) of whichever
 * process, requests wait, ever longer (1 s to 60 s), and then one goes ahead as a
 * probe.  Before or after the place is given back, once for each request.
 */
extern void ingest_http_limit_failed(IngestHttpLimit *limit);
extern void ingest_http_limit_succeeded(IngestHttpLimit *limit);

typedef enum IngestHttpBreaker
{
	INGEST_HTTP_BREAKER_CLOSED,
	INGEST_HTTP_BREAKER_OPEN,	/* requests wait */
	INGEST_HTTP_BREAKER_PROBING /* one may go, or has gone, ahead */
} IngestHttpBreaker;

typedef struct IngestHttpLimitStatus
{
	Oid			server;
	IngestHttpRate rate;
	int			concurrency;
	int			in_flight;
	int64		wait;			/* ms until requests may go out again; 0: not held up */
	IngestHttpBreaker breaker;
	int			failed_in_row;
	int64		requests;		/* since the server is in the table */
	int64		failures;
} IngestHttpLimitStatus;

/* IngestHttpLimitStatus * of the servers of a database that were used lately.  mcxt: current */
extern List *ingest_http_limit_list(Oid database);

/*
 * Retry-After as seconds or as an HTTP date, against Date of the same response
 * when it has one, else our clock.  ms, at most max; -1: there is none.  pure
 */
extern int64 ingest_http_retry_after(const char *value, const char *date, int64 max);

/*
 * RateLimit-Remaining/-Reset, X-RateLimit-Remaining/-Reset (seconds from now, or
 * a Unix time, in s or ms), RateLimit: "default";r=0;t=30.  When nothing
 * remains: ms until it does, at most max; 0 otherwise.  "header" looks one up.
 */
extern int64 ingest_http_budget_wait(const char *(*header) (const void *arg, const char *name),
									 const void *arg, int64 max);

#endif							/* INGEST_HTTP_LIMIT_H */
