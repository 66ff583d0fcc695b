/*
 * limit.c
 *		The state of HTTP servers that all processes share: rate, places, pauses,
 *		circuit breaker.
 *
 * One table under one lock: it is held for some arithmetic per request.  What a
 * process has inside is noted with its number, so that it is given back however
 * the process ends.  When the library was not preloaded there is the same table
 * in the process's own memory, without a lock.
 *
 * What servers and options say about limits is read in limit_text.c.
 */
#include "postgres.h"

#include <math.h>

#include "core/clock.h"
#include "http/limit.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#define TRANCHE_NAME "IngestHttpLimit"
#define SHARED_SERVERS 1024
#define LOCAL_SERVERS 64
#define LOCAL_HOLDERS LOCAL_SERVERS

/* When to ask again where nobody tells: a place gets free, a probe ends. */
#define BUSY_MS 100

/* How often those who hold places are looked at. */
#define REAP_MS 1000

/* What may go out at once, as a part of a second's worth: makes up for late wake-ups. */
#define BURST_MS 100

#define FAILURES_TO_OPEN 5
#define FIRST_DELAY_MS 1000
#define LAST_DELAY_MS 60000

/* The places of a server that a process has; in a list of the server's. */
typedef struct Holder
{
	pid_t		pid;			/* 0: free */
	int			proc;			/* and its PGPROC: numbers are used again */
	int			count;
	int			next;			/* index, or -1 */
} Holder;

typedef struct Server
{
	Oid			database;		/* InvalidOid: free */
	Oid			server;
	IngestHttpRate rate;
	int			concurrency;	/* 0: any */

	double		tokens;			/* requests that may go out now */
	int64		refilled_at;

	int			in_flight;
	int			first_holder;	/* index, or -1 */
	int64		reaped_at;

	int64		paused_until;
	int			failed_in_row;
	bool		open;			/* the breaker: requests wait */
	int64		open_until;		/* then one may probe */
	int64		delay;			/* that it was opened for */
	pid_t		prober;			/* 0: nobody probes */

	int64		used_at;
	int64		requests;
	int64		failures;
} Server;

typedef struct Table
{
	int			nservers;
	int			nholders;
	Server		servers[FLEXIBLE_ARRAY_MEMBER];
	/* behind them: Holder[nholders] */
} Table;

struct IngestHttpLimit
{
	Oid			database;
	Oid			server;
	IngestHttpRate rate;
	int			concurrency;
	int			index;			/* where it was in the table when we last looked */
	int			held;			/* places of ours */
	bool		probe;			/* the last request taken is a probe without a verdict */
	MemoryContextCallback callback;
};

static Table *table = NULL;		/* shared, or our own */
static LWLock *lock = NULL;		/* NULL: our own */

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* ---- the table ---- */

/* Not fewer than servers: one process alone can be inside of all of them. */
static int
shared_holders(void)
{
	return SHARED_SERVERS + 2 * MaxBackends;
}

static Size
table_size(int nservers, int nholders)
{
	return add_size(MAXALIGN(add_size(offsetof(Table, servers), mul_size(nservers, sizeof(Server)))),
					mul_size(nholders, sizeof(Holder)));
}

static Holder *
get_holder(int index)
{
	return (Holder *) ((char *) table +
					   MAXALIGN(offsetof(Table, servers) + table->nservers * sizeof(Server))) + index;
}

static void
init_table(Table *into, int nservers, int nholders)
{
	memset(into, 0, table_size(nservers, nholders));
	into->nservers = nservers;
	into->nholders = nholders;
}

static void
request_shared_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(table_size(SHARED_SERVERS, shared_holders()));
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

static void
start_shared_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	lock = &GetNamedLWLockTranche(TRANCHE_NAME)->lock;
	table = ShmemInitStruct("ingest http limits", table_size(SHARED_SERVERS, shared_holders()), &found);
	if (!found)
		init_table(table, SHARED_SERVERS, shared_holders());
	LWLockRelease(AddinShmemInitLock);
}

void
ingest_http_limit_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

static void
lock_table(LWLockMode mode)
{
	if (lock)
		LWLockAcquire(lock, mode);
}

static void
unlock_table(void)
{
	if (lock)
		LWLockRelease(lock);
}

/* ---- who is inside ---- */

/* Our place in the array of all processes; whatever the version calls it. */
static int
my_proc(void)
{
	return MyProc - ProcGlobal->allProcs;
}

/* Take "count" places from a holder; the last one frees it.  "link" leads to it. */
static void
release_places(Server *server, int *link, int count)
{
	Holder	   *holder = get_holder(*link);

	server->in_flight -= count;
	holder->count -= count;
	if (holder->count > 0)
		return;
	if (server->prober == holder->pid)
		server->prober = 0;
	holder->pid = 0;
	*link = holder->next;
}

/* The link that leads to this process's holder of the server; NULL: it has none. */
static int *
find_link(Server *server, pid_t pid)
{
	for (int *link = &server->first_holder; *link >= 0; link = &get_holder(*link)->next)
		if (get_holder(*link)->pid == pid)
			return link;
	return NULL;
}

/* One more place for this process.  False: there is no room to note it. */
static bool
occupy_place(Server *server)
{
	int		   *link = find_link(server, MyProcPid);
	int			index = link ? *link : -1;

	for (int i = 0; i < table->nholders && index < 0; i++)
		if (get_holder(i)->pid == 0)
		{
			Holder	   *holder = get_holder(i);

			holder->pid = MyProcPid;
			holder->proc = my_proc();
			holder->count = 0;
			holder->next = server->first_holder;
			server->first_holder = index = i;
		}
	if (index < 0)
		return false;
	get_holder(index)->count++;
	server->in_flight++;
	return true;
}

/* All that a process has inside, of all servers. */
static void
release_process(pid_t pid)
{
	for (int i = 0; i < table->nservers; i++)
	{
		Server	   *server = &table->servers[i];
		int		   *link = server->in_flight > 0 ? find_link(server, pid) : NULL;

		if (link)
			release_places(server, link, get_holder(*link)->count);
	}
}

/*
 * Give back the places of processes that are no more.  They do so themselves, on
 * every way out that does not restart the server; this is for one that nobody
 * has thought of.
 */
static void
reap_holders(Server *server, int64 now)
{
	int		   *link = &server->first_holder;

	if (lock == NULL || now - server->reaped_at < REAP_MS)
		return;
	server->reaped_at = now;
	while (*link >= 0)
	{
		Holder	   *holder = get_holder(*link);
		PGPROC	   *proc = BackendPidGetProc(holder->pid);

		if (proc && proc - ProcGlobal->allProcs == holder->proc)
			link = &holder->next;
		else
			release_places(server, link, holder->count);
	}
}

static void
leave_table(int code, Datum arg)
{
	bool		held = LWLockHeldByMe(lock);

	if (!held)
		LWLockAcquire(lock, LW_EXCLUSIVE);
	release_process(MyProcPid);
	if (!held)
		LWLockRelease(lock);
}

/* Before this process uses the table. */
static void
join_table(void)
{
	static bool joined = false;

	if (joined)
		return;
	if (lock)
	{
		before_shmem_exit(leave_table, (Datum) 0);
		lock_table(LW_EXCLUSIVE);
		release_process(MyProcPid); /* who had our number before is gone */
		unlock_table();
	}
	else
	{
		Table	   *own = MemoryContextAlloc(TopMemoryContext, table_size(LOCAL_SERVERS, LOCAL_HOLDERS));

		init_table(own, LOCAL_SERVERS, LOCAL_HOLDERS);
		table = own;
	}
	joined = true;
}

/* ---- servers ---- */

/* How many requests may go out at once. */
static double
get_capacity(const IngestHttpRate *rate)
{
	return Max(1.0, Min(rate->requests, rate->requests * BURST_MS / rate->period));
}

static bool
is_limited(const IngestHttpRate *rate)
{
	return rate->requests > 0 && rate->period > 0;
}

static void
refill(Server *server, int64 now)
{
	double		elapsed = Max(now - server->refilled_at, 0);

	server->refilled_at = now;
	if (is_limited(&server->rate))
		server->tokens = Min(get_capacity(&server->rate),
							 server->tokens + elapsed * server->rate.requests / server->rate.period);
}

/* Would anything be lost if we forgot this server? */
static bool
is_forgettable(Server *server, int64 now)
{
	if (server->paused_until > now || server->open || server->failed_in_row > 0)
		return false;
	refill(server, now);
	return !is_limited(&server->rate) || server->tokens >= get_capacity(&server->rate);
}

/*
 * A free entry, or that of the server that was not used for longest and is not
 * in use; rather one that has nothing to remember.  NULL: all are in use.
 */
static Server *
find_room(int64 now)
{
	Server	   *oldest = NULL;
	bool		forgettable = false;

	for (int i = 0; i < table->nservers; i++)
	{
		Server	   *server = &table->servers[i];
		bool		better;

		if (!OidIsValid(server->server))
			return server;
		if (server->in_flight > 0)
			continue;
		better = is_forgettable(server, now);
		if (oldest == NULL || better > forgettable ||
			(better == forgettable && server->used_at < oldest->used_at))
		{
			oldest = server;
			forgettable = better;
		}
	}
	return oldest;
}

static Server *
find_server(IngestHttpLimit *limit)
{
	Server	   *server = limit->index >= 0 ? &table->servers[limit->index] : NULL;

	if (server && server->database == limit->database && server->server == limit->server)
		return server;
	for (int i = 0; i < table->nservers; i++)
	{
		server = &table->servers[i];
		if (server->database == limit->database && server->server == limit->server)
		{
			limit->index = i;
			return server;
		}
	}
	return NULL;
}

/* The same, or a new entry.  NULL: there is no room. */
static Server *
get_server(IngestHttpLimit *limit, int64 now)
{
	Server	   *server = find_server(limit);

	if (server)
		return server;
	server = find_room(now);
	if (server == NULL)
		return NULL;
	memset(server, 0, sizeof(Server));
	server->database = limit->database;
	server->server = limit->server;
	server->rate = limit->rate;
	server->concurrency = limit->concurrency;
	server->tokens = is_limited(&limit->rate) ? get_capacity(&limit->rate) : 0;
	server->refilled_at = server->used_at = now;
	server->first_holder = -1;
	limit->index = server - table->servers;
	return server;
}

/* ---- one who asks ---- */

/* All of it back: the handle goes away, or its context does. */
static void
close_limit(void *arg)
{
	IngestHttpLimit *limit = arg;
	Server	   *server;
	int		   *link;

	if (limit->held == 0)
		return;
	lock_table(LW_EXCLUSIVE);
	server = find_server(limit);
	link = server ? find_link(server, MyProcPid) : NULL;
	if (link)
		release_places(server, link, Min(limit->held, get_holder(*link)->count));
	if (server && limit->probe && server->prober == MyProcPid)
		server->prober = 0;
	unlock_table();
	limit->held = 0;
}

IngestHttpLimit *
ingest_http_limit_open(Oid database, Oid server, IngestHttpRate rate, int concurrency)
{
	IngestHttpLimit *limit = palloc0(sizeof(IngestHttpLimit));
	Server	   *entry;
	int64		now = ingest_clock_ms();

	join_table();
	limit->database = database;
	limit->server = server;
	limit->rate = rate;
	limit->concurrency = concurrency;
	limit->index = -1;
	limit->callback.func = close_limit;
	limit->callback.arg = limit;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &limit->callback);

	lock_table(LW_EXCLUSIVE);
	entry = get_server(limit, now);
	if (entry)
	{
		bool		was_limited = is_limited(&entry->rate);

		refill(entry, now);
		entry->rate = rate;
		entry->concurrency = concurrency;
		if (is_limited(&rate))
			entry->tokens = was_limited ? Min(entry->tokens, get_capacity(&rate)) : get_capacity(&rate);
		entry->used_at = now;
	}
	unlock_table();
	return limit;
}

/* ms until a request may go out as far as pauses and the breaker go; 0: now. */
static int64
wait_for_server(Server *server, int64 now)
{
	int64		wait = Max(server->paused_until - now, 0);

	if (!server->open)
		return wait;
	if (server->open_until > now)
		return Max(wait, server->open_until - now);
	if (server->prober != 0)
		reap_holders(server, now);
	return server->prober != 0 ? Max(wait, BUSY_MS) : wait;
}

/* ms until the rate allows one more; 0: now. */
static int64
wait_for_token(Server *server, int64 now)
{
	if (!is_limited(&server->rate))
		return 0;
	refill(server, now);
	if (server->tokens > 1 - 1e-6)
		return 0;
	return Max(1, (int64) ceil((1 - server->tokens) * server->rate.period / server->rate.requests));
}

static bool
is_full(const Server *server)
{
	return server->concurrency > 0 && server->in_flight >= server->concurrency;
}

static int64
take_place(IngestHttpLimit *limit, Server *server, int64 now)
{
	int64		wait = wait_for_server(server, now);

	if (wait > 0)
		return wait;
	if (is_full(server))
		reap_holders(server, now);
	if (is_full(server))
		return BUSY_MS;
	wait = wait_for_token(server, now);
	if (wait > 0)
		return wait;
	if (!occupy_place(server))
		return BUSY_MS;

	if (is_limited(&server->rate))
		server->tokens = Max(server->tokens - 1, 0);
	server->requests++;
	limit->held++;
	limit->probe = server->open;
	if (server->open)
		server->prober = MyProcPid;
	return 0;
}

long
ingest_http_limit_take(IngestHttpLimit *limit)
{
	int64		now = ingest_clock_ms();
	int64		wait = BUSY_MS;
	Server	   *server;

	lock_table(LW_EXCLUSIVE);
	server = get_server(limit, now);
	if (server)
	{
		server->used_at = now;
		wait = take_place(limit, server, now);
	}
	unlock_table();
	return (long) Min(wait, (int64) INT_MAX);
}

void
ingest_http_limit_give_back(IngestHttpLimit *limit)
{
	Server	   *server;
	int		   *link;

	if (limit->held == 0)
		return;
	lock_table(LW_EXCLUSIVE);
	server = find_server(limit);
	link = server ? find_link(server, MyProcPid) : NULL;
	if (link)
		release_places(server, link, 1);
	limit->held--;
	/* A probe without a verdict (not of a straggler that was sent before): another one may try. */
	if (server && limit->held == 0 && limit->probe && server->prober == MyProcPid)
		server->prober = 0;
	unlock_table();
}

void
ingest_http_limit_pause(IngestHttpLimit *limit, int64 ms)
{
	int64		now = ingest_clock_ms();
	Server	   *server;

	if (ms <= 0)
		return;
	lock_table(LW_EXCLUSIVE);
	server = get_server(limit, now);
	if (server)
		server->paused_until = Max(server->paused_until, now + Min(ms, PG_INT64_MAX / 2));
	unlock_table();
}

int64
ingest_http_limit_broken(IngestHttpLimit *limit)
{
	Server	   *server;
	int64		left = 0;

	lock_table(LW_SHARED);
	server = find_server(limit);
	if (server && server->open)
		left = Max(server->open_until - ingest_clock_ms(), 0);
	unlock_table();
	return left;
}

int64
ingest_http_limit_paused(IngestHttpLimit *limit)
{
	Server	   *server;
	int64		left = 0;

	lock_table(LW_SHARED);
	server = find_server(limit);
	if (server)
		left = Max(server->paused_until - ingest_clock_ms(), 0);
	unlock_table();
	return left;
}

/* ---- circuit breaker ---- */

static void
open_breaker(Server *server, int64 now)
{
	server->delay = server->delay == 0 ? FIRST_DELAY_MS : Min(2 * server->delay, LAST_DELAY_MS);
	server->open = true;
	server->open_until = now + server->delay;
	server->prober = 0;
}

void
ingest_http_limit_failed(IngestHttpLimit *limit)
{
	int64		now = ingest_clock_ms();
	Server	   *server;

	lock_table(LW_EXCLUSIVE);
	server = get_server(limit, now);
	if (server)
	{
		server->failures++;
		server->failed_in_row++;
		/* Those sent before it opened say nothing new. */
		if (server->open ? limit->probe : server->failed_in_row >= FAILURES_TO_OPEN)
			open_breaker(server, now);
	}
	limit->probe = false;
	unlock_table();
}

void
ingest_http_limit_succeeded(IngestHttpLimit *limit)
{
	Server	   *server;

	lock_table(LW_EXCLUSIVE);
	server = find_server(limit);
	if (server)
	{
		server->failed_in_row = 0;
		server->open = false;
		server->delay = 0;
		server->prober = 0;
	}
	limit->probe = false;
	unlock_table();
}

/* ---- what operators see ---- */

static IngestHttpLimitStatus *
make_status(const Server *server, int64 now)
{
	IngestHttpLimitStatus *status = palloc0(sizeof(IngestHttpLimitStatus));

	status->server = server->server;
	status->rate = server->rate;
	status->concurrency = server->concurrency;
	status->in_flight = server->in_flight;
	status->wait = Max(server->paused_until - now, 0);
	if (server->open)
		status->wait = Max(status->wait, server->open_until - now);
	status->breaker = !server->open ? INGEST_HTTP_BREAKER_CLOSED :
		server->open_until > now ? INGEST_HTTP_BREAKER_OPEN : INGEST_HTTP_BREAKER_PROBING;
	status->failed_in_row = server->failed_in_row;
	status->requests = server->requests;
	status->failures = server->failures;
	return status;
}

List *
ingest_http_limit_list(Oid database)
{
	int64		now = ingest_clock_ms();
	Server	   *servers;
	List	   *list = NIL;
	int			n = 0;

	if (table == NULL)
		return NIL;
	/* Allocated before: nothing is raised under the lock. */
	servers = palloc(table->nservers * sizeof(Server));
	lock_table(LW_SHARED);
	for (int i = 0; i < table->nservers; i++)
		if (OidIsValid(table->servers[i].server) && table->servers[i].database == database)
			servers[n++] = table->servers[i];
	unlock_table();
	for (int i = 0; i < n; i++)
		list = lappend(list, make_status(&servers[i], now));
	pfree(servers);
	return list;
}
