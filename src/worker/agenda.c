/*
 * agenda.c
 *		The pipelines of a database that are to run, and when.
 *
 * Kept in memory and read anew only where something has changed: a definition was
 * changed (all), or a pipeline, or one that it follows, has done something (those).
 * A run costs one write of its state, when it ends.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/pipeline.h"
#include "catalog/state.h"
#include "core/clock.h"
#include "core/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/agenda.h"
#include "worker/backoff.h"
#include "worker/lag.h"

/* Clocks run apart a little; more than that, and one was set. */
#define CLOCK_TOLERANCE_US 100000

/* What becomes due within this time is due together. */
#define TOGETHER_US 100000

static HTAB *items;
static pairingheap *later;		/* by time */
static pairingheap *due;		/* by how long they have been */
static int	ndue = 0;
static List *unwritten = NIL;	/* numbers of items of which something is still to be written */
static int64 lag_round = 0;		/* of finding out how old targets may get */
static MemoryContext links;		/* of the lists of followers */

/* ---- in order ---- */

static int
compare_later(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const IngestAgendaItem *first = pairingheap_const_container(IngestAgendaItem, node, a);
	const IngestAgendaItem *second = pairingheap_const_container(IngestAgendaItem, node, b);

	if (first->later != second->later)
		return first->later < second->later ? 1 : -1;	/* the heap's first is its greatest */
	return second->id - first->id;
}

static int
compare_due(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const IngestAgendaItem *first = pairingheap_const_container(IngestAgendaItem, node, a);
	const IngestAgendaItem *second = pairingheap_const_container(IngestAgendaItem, node, b);

	int64		first_due = first->due_since / TOGETHER_US;
	int64		second_due = second->due_since / TOGETHER_US;

	if (first_due != second_due)
		return first_due < second_due ? 1 : -1;
	/* Of many that are due together, who has not run for longest: else the same would always be late. */
	if (first->ended_ms != second->ended_ms)
		return first->ended_ms < second->ended_ms ? 1 : -1;
	return second->id - first->id;
}

void
ingest_agenda_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(IngestAgendaItem)};

	items = hash_create("ingest agenda", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	later = pairingheap_allocate(compare_later, NULL);
	due = pairingheap_allocate(compare_due, NULL);
	links = AllocSetContextCreate(TopMemoryContext, "ingest agenda links", ALLOCSET_DEFAULT_SIZES);
}

IngestAgendaItem *
ingest_agenda_find(int32 id)
{
	return hash_search(items, &id, HASH_FIND, NULL);
}

static void
take_away(IngestAgendaItem *item)
{
	if (item->place == INGEST_AGENDA_LATER)
		pairingheap_remove(later, &item->node);
	else if (item->place == INGEST_AGENDA_DUE)
	{
		pairingheap_remove(due, &item->node);
		ndue--;
	}
	item->place = INGEST_AGENDA_NOWHERE;
}

static void
put_later(IngestAgendaItem *item, TimestampTz until)
{
	if (until == DT_NOEND)
		return;
	item->place = INGEST_AGENDA_LATER;
	item->later = until;
	pairingheap_add(later, &item->node);
}

/*
 * A moment by the clock that nobody sets, in microseconds.  The same moment is always
 * the same there, as long as the other clock is not set.
 */
static int64
steady_time(TimestampTz at)
{
	static int64 offset = 0;
	int64		present = GetCurrentTimestamp() - ingest_clock_ms() * 1000;

	if (offset == 0 || Max(present - offset, offset - present) > CLOCK_TOLERANCE_US)
		offset = present;
	return at - offset;
}

/*
 * It has been due since then.  Who makes up for many runs stands behind those that
 * became due while it ran.
 */
static void
put_due(IngestAgendaItem *item, int64 since)
{
	item->place = INGEST_AGENDA_DUE;
	item->due_since = Max(since, item->ended_ms * 1000);
	pairingheap_add(due, &item->node);
	ndue++;
}

/* ---- what is due ---- */

/* The first worker that should have a process and has none; -1: there is none. */
static int
missing_worker(const IngestAgendaItem *item)
{
	for (int ordinal = 0; ordinal < item->workers; ordinal++)
		if (!bms_is_member(ordinal, item->drained) && !bms_is_member(ordinal, item->live))
			return ordinal;
	return -1;
}

/* Has each of the upstream pipelines come further since our last run began? */
static bool
upstream_is_ahead(const IngestAgendaItem *item)
{
	if (item->nupstream == 0)
		return false;
	for (int i = 0; i < item->nupstream; i++)
		if (!item->news[i] && item->counters[i] <= item->seen[i])
			return false;
	return true;
}

/* When its next run is to begin, and why. */
static TimestampTz
find_due(IngestAgendaItem *item, TimestampTz now)
{
	TimestampTz due_at;

	/* From now on it is waited for, should nothing have been written down. */
	item->next_run = ingest_schedule_due(&item->schedule, item->next_run, now);
	due_at = item->next_run;
	item->due_cause = INGEST_CAUSE_SCHEDULE;
	if (item->nupstream == 0 && item->lag > 0)
	{
		TimestampTz by_lag = ingest_lag_start(item->lag, item->duration, item->last_run, item->last_end, now);

		due_at = Min(due_at, ingest_schedule_first_active(&item->schedule, Max(by_lag, now)));
	}
	if (upstream_is_ahead(item))
	{
		due_at = now;
		item->due_cause = INGEST_CAUSE_AFTER;
	}
	if (item->asked_at != 0 && (due_at > now || item->due_cause != INGEST_CAUSE_AFTER))
	{
		due_at = Min(item->asked_at, now);
		item->due_cause = INGEST_CAUSE_MANUAL;
	}
	return due_at;
}

static void
write_later(IngestAgendaItem *item)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	if (!item->listed)
		unwritten = lappend_int(unwritten, item->id);
	item->listed = true;
	MemoryContextSwitchTo(oldcontext);
}

/* What is waited for is written down, so that it is shown, and not forgotten by a restart. */
static bool
is_stored(const IngestAgendaItem *item)
{
	return item->next_run == item->stored_next || item->next_run == 0 || item->next_run == DT_NOEND ||
		item->running;
}

/* Something about it has changed: where does it wait? */
static void
plan(IngestAgendaItem *item)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		waited = item->place == INGEST_AGENDA_DUE;
	int64		since = item->due_since;
	TimestampTz due_at;

	take_away(item);
	if (!item->wanted || item->ending || missing_worker(item) < 0)
		return;
	if (!ingest_backoff_is_over(item->retry_at, now))
		put_later(item, item->retry_at);
	else if (item->schedule.kind == INGEST_SCHEDULE_CONTINUOUS || item->running)
		put_due(item, waited ? since : steady_time(now));
	else if ((due_at = find_due(item, now)) > now)
	{
		put_later(item, due_at);
		if (!is_stored(item))
			write_later(item);
	}
	else
		put_due(item, waited ? since : steady_time(due_at));
}

static IngestAgendaItem *
first_later(void)
{
	return pairingheap_is_empty(later) ? NULL :
		pairingheap_container(IngestAgendaItem, node, pairingheap_first(later));
}

IngestAgendaItem *
ingest_agenda_first_due(int *ordinal, IngestCause *cause)
{
	TimestampTz now = GetCurrentTimestamp();
	IngestAgendaItem *item;

	while ((item = first_later()) != NULL && item->later <= now)
		plan(item);
	if (pairingheap_is_empty(due))
		return NULL;
	item = pairingheap_container(IngestAgendaItem, node, pairingheap_first(due));
	*ordinal = missing_worker(item);
	if (item->schedule.kind == INGEST_SCHEDULE_CONTINUOUS)
		*cause = INGEST_CAUSE_STREAM;
	else
		*cause = item->running ? item->cause : item->due_cause;
	return item;
}

int
ingest_agenda_count_due(void)
{
	return ndue;
}

TimestampTz
ingest_agenda_first_later(Oid *owner)
{
	IngestAgendaItem *item = first_later();

	*owner = item ? item->owner : InvalidOid;
	return item ? item->later : DT_NOEND;
}

/* ---- reading ---- */

/* A row of _pipeline and what belongs to it. */
typedef struct Row
{
	int32		id;
	char	   *name;
	int64		version;
	Oid			owner;
	char	   *schedule;
	Jsonb	   *options;
	TimestampTz retry_at;
	TimestampTz next_run;
	TimestampTz asked_at;
	TimestampTz last_run;
	int64		duration;
	int			nupstream;
	int64	   *upstream;
	int64	   *counters;
	int64	   *seen;
	bool		role_exists;
	bool		may_login;
	bool		may_connect;
} Row;

/*
 * Those that are to run in this database.  The counter of an upstream pipeline is
 * how often it has run; of a stream, which does not end, its last batch.
 */
#define ROW_QUERY \
	"SELECT p.id, p.name, p.version, p.owner::oid AS owner, p.schedule, p.options," \
	" s.retry_at, s.next_run, s.asked_at, s.last_run, s.duration, p.upstream::bigint[] AS upstream, s.seen," \
	" CASE WHEN p.upstream IS NOT NULL THEN ARRAY(" \
	"   SELECT CASE WHEN up.schedule = 'continuous'" \
	"     THEN coalesce((SELECT max(b.id) FROM ingest._batch b WHERE b.pipeline_id = up.id AND b.kind = 'turn'), 0)" \
	"     ELSE coalesce(us.runs, 0) END" \
	"   FROM unnest(p.upstream) WITH ORDINALITY u (id, place)" \
	"   LEFT JOIN ingest._pipeline up ON up.id = u.id LEFT JOIN ingest._state us ON us.pipeline_id = u.id" \
	"   ORDER BY u.place) END AS counters," \
	" r.oid IS NOT NULL AS role_exists, r.rolcanlogin AS may_login," \
	" has_database_privilege(r.oid, current_database(), 'CONNECT') AS may_connect" \
	" FROM ingest._pipeline p" \
	" LEFT JOIN ingest._state s ON s.pipeline_id = p.id" \
	" LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.owner" \
	" WHERE p.enabled AND p.home = $1 AND s.halt IS NULL"

static TimestampTz
read_timestamp(uint64 row, const char *column)
{
	bool		isnull;
	Datum		value = ingest_spi_value(row, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

/* An array of bigint; NULL for none. */
static int64 *
read_numbers(uint64 row, const char *column, int *n)
{
	bool		isnull;
	Datum		value = ingest_spi_value(row, column, &isnull);
	Datum	   *elements;
	bool	   *nulls;
	int64	   *numbers;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elements, &nulls, n);
	numbers = palloc(sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		numbers[i] = nulls[i] ? 0 : DatumGetInt64(elements[i]);
	return numbers;
}

static Row *
read_row(uint64 i, MemoryContext mcxt)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	Row		   *row = palloc0(sizeof(Row));
	int			ncounters;
	int			nseen;
	bool		isnull;

	row->id = (int32) ingest_spi_int64(i, "id", 0);
	row->name = ingest_spi_text(i, "name", mcxt);
	row->version = ingest_spi_int64(i, "version", 0);
	row->owner = (Oid) ingest_spi_int64(i, "owner", InvalidOid);
	row->schedule = ingest_spi_text(i, "schedule", mcxt);
	row->options = DatumGetJsonbPCopy(ingest_spi_value(i, "options", &isnull));
	row->retry_at = read_timestamp(i, "retry_at");
	row->next_run = read_timestamp(i, "next_run");
	row->asked_at = read_timestamp(i, "asked_at");
	row->last_run = read_timestamp(i, "last_run");
	row->duration = ingest_spi_int64(i, "duration", 0);
	row->upstream = read_numbers(i, "upstream", &row->nupstream);
	row->counters = read_numbers(i, "counters", &ncounters);
	row->seen = read_numbers(i, "seen", &nseen);
	if (nseen != row->nupstream)
		row->seen = NULL;		/* it followed others then */
	row->role_exists = ingest_spi_bool(i, "role_exists", false);
	row->may_login = ingest_spi_bool(i, "may_login", false);
	row->may_connect = ingest_spi_bool(i, "may_connect", false);
	MemoryContextSwitchTo(oldcontext);
	return row;
}

static List *
read_rows(IngestStatement *find, Datum *values)
{
	MemoryContext mcxt = CurrentMemoryContext;
	List	   *rows = NIL;
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(find, values, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		Row		   *row = read_row(i, mcxt);
		MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

		rows = lappend(rows, row);
		MemoryContextSwitchTo(oldcontext);
	}
	ingest_spi_end();
	return rows;
}

static void
break_pipeline(const Row *row, int sqlstate, const char *message, const char *hint)
{
	IngestError err;

	ingest_error_set(&err, INGEST_ERROR_CONFIG, sqlstate, "%s", message);
	ingest_error_hint(&err, "%s", hint);
	ingest_state_halt(row->id, INGEST_HALT_BROKEN, &err);
	ereport(LOG,
			(errcode(sqlstate),
			 errmsg("ingest pipeline \"%s\" cannot run: %s", row->name, message)));
}

/* False: the worker could not log in. */
static bool
check_login(const Row *row)
{
	if (!row->role_exists)
		break_pipeline(row, ERRCODE_UNDEFINED_OBJECT, "its owner does not exist",
					   "Give it another owner with ingest.alter_pipeline(), then ingest.start().");
	else if (!row->may_login)
		break_pipeline(row, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
					   "its owner is not permitted to log in",
					   "Workers log in as the pipeline's owner: ALTER ROLE ... LOGIN, then ingest.start().");
	else if (!row->may_connect)
		break_pipeline(row, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "its owner has no CONNECT privilege on this database",
					   "GRANT CONNECT ON DATABASE ... TO the owner, then ingest.start().");
	else
		return true;
	return false;
}

/* What was checked when it was written may have come from a dump, or by hand. */
static bool
read_definition(IngestAgendaItem *item, const Row *row)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	IngestPipelineOptions options;
	volatile bool good = false;

	MemoryContextReset(item->mcxt);
	item->text = NULL;
	MemoryContextSwitchTo(item->mcxt);
	PG_TRY();
	{
		ingest_pipeline_parse_options(row->options, &options);
		good = ingest_schedule_find(row->schedule, &item->schedule);
		ingest_schedule_settings(&item->schedule, &options, (uint32) row->id);
		item->text = pstrdup(row->schedule);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	if (!good)
	{
		break_pipeline(row, ERRCODE_INVALID_PARAMETER_VALUE, "its schedule cannot be understood",
					   "Set another with ingest.alter_pipeline(), then ingest.start().");
		return false;
	}
	item->version = row->version;
	item->workers = (int) options.workers;
	item->timeout = options.timeout;
	item->retries = options.retries;
	item->target_lag = options.target_lag;
	return true;
}

static IngestAgendaItem *
get_item(int32 id)
{
	bool		found;
	IngestAgendaItem *item = hash_search(items, &id, HASH_ENTER, &found);

	if (!found)
	{
		memset(item, 0, sizeof(*item));
		item->id = id;
		item->mcxt = AllocSetContextCreate(TopMemoryContext, "ingest agenda item", ALLOCSET_SMALL_SIZES);
	}
	return item;
}

static int64 *
copy_numbers(const int64 *numbers, int n)
{
	int64	   *copy = palloc0(sizeof(int64) * Max(n, 1));

	if (numbers)
		memcpy(copy, numbers, sizeof(int64) * n);
	return copy;
}

static bool
same_upstream(const IngestAgendaItem *item, const Row *row, int n)
{
	if (item->nupstream != n)
		return false;
	for (int i = 0; i < n; i++)
		if (item->upstream[i] != (int32) row->upstream[i])
			return false;
	return true;
}

/* Whom it follows, and how far those are. */
static void
note_upstream(IngestAgendaItem *item, const Row *row)
{
	int			n = item->schedule.kind == INGEST_SCHEDULE_AFTER ? row->nupstream : 0;
	MemoryContext oldcontext;

	if (!same_upstream(item, row, n))
	{
		if (item->upstream_mcxt)
			MemoryContextDelete(item->upstream_mcxt);
		item->upstream_mcxt = AllocSetContextCreate(TopMemoryContext, "ingest agenda upstream", ALLOCSET_SMALL_SIZES);
		oldcontext = MemoryContextSwitchTo(item->upstream_mcxt);
		item->nupstream = n;
		item->upstream = palloc0(sizeof(int32) * Max(n, 1));
		for (int i = 0; i < n; i++)
			item->upstream[i] = (int32) row->upstream[i];
		item->news = palloc0(sizeof(bool) * Max(n, 1));
		item->counters = copy_numbers(row->counters, n);
		item->seen = copy_numbers(row->seen, n);
		/* A run that is under way has not seen the new ones. */
		item->seen_now = copy_numbers(row->seen, n);
		item->end_seen = palloc0(sizeof(int64) * Max(n, 1));
		item->end.seen = NULL;
		MemoryContextSwitchTo(oldcontext);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		item->counters[i] = row->counters[i];
		if (!item->unwritten)
			item->seen[i] = row->seen ? row->seen[i] : 0;
	}
}

static void
note_row(const Row *row)
{
	IngestAgendaItem *item;
	bool		new_schedule;

	if (!check_login(row))
		return;
	item = get_item(row->id);
	new_schedule = item->text != NULL && strcmp(item->text, row->schedule) != 0;
	if ((item->text == NULL || item->version != row->version) && !read_definition(item, row))
		return;
	item->wanted = true;
	namestrcpy(&item->name, row->name);
	item->owner = row->owner;
	note_upstream(item, row);
	item->retry_at = row->retry_at;
	if (!item->unwritten)
	{
		/* What we have found out ourselves is not in the catalog yet. */
		if (row->next_run != item->stored_next)
			item->next_run = row->next_run;
		item->stored_next = row->next_run;
		item->asked_at = row->asked_at;
		item->last_run = row->last_run;
		item->duration = row->duration;
	}
	if (new_schedule && (item->schedule.kind == INGEST_SCHEDULE_CRON || item->next_run == DT_NOEND))
	{
		item->next_run = 0;
		item->stored_next = 0;
	}
}

/* It does not run any more; when a run of it was under way, that is history. */
static void
remove_item(IngestAgendaItem *item)
{
	if (item->running)
		ingest_batch_record_run(item->id, item->run_started, item->cause, INGEST_OUTCOME_CANCELLED, NULL);
	take_away(item);
	if (item->listed)
		unwritten = list_delete_int(unwritten, item->id);
	bms_free(item->drained);
	bms_free(item->live);
	if (item->upstream_mcxt)
		MemoryContextDelete(item->upstream_mcxt);
	MemoryContextDelete(item->mcxt);
	hash_search(items, &item->id, HASH_REMOVE, NULL);
}

/* Its workers, if it has any, leave first. */
static void
settle(IngestAgendaItem *item)
{
	if (item->wanted || item->live)
		plan(item);
	else
		remove_item(item);
}

/* ---- who follows whom ---- */

/* How old its target may get, from what its followers want. */
static int64
find_lag(IngestAgendaItem *item)
{
	ListCell   *cell;

	if (item->lag_round == lag_round)
		return item->lag;
	item->lag_round = lag_round;
	item->lag = item->target_lag;
	foreach(cell, item->followers)
	{
		IngestAgendaItem *follower = ingest_agenda_find(lfirst_int(cell));

		if (follower)
			item->lag = ingest_lag_allowed(item->lag, find_lag(follower), follower->duration);
	}
	return item->lag;
}

/* The time it takes has changed, which those before it have to know. */
static void
pass_lag_up(const IngestAgendaItem *item)
{
	List	   *above = NIL;

	if (item->lag <= 0)
		return;
	lag_round++;
	for (int i = 0; i < item->nupstream; i++)
		above = list_append_unique_int(above, item->upstream[i]);
	for (int n = 0; n < list_length(above); n++)
	{
		IngestAgendaItem *upstream = ingest_agenda_find(list_nth_int(above, n));

		if (upstream == NULL)
			continue;
		for (int i = 0; i < upstream->nupstream; i++)
			above = list_append_unique_int(above, upstream->upstream[i]);
		(void) find_lag(upstream);
		plan(upstream);
	}
	list_free(above);
}

static void
link_items(void)
{
	MemoryContext oldcontext;
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;

	MemoryContextReset(links);
	hash_seq_init(&scan, items);
	while ((item = hash_seq_search(&scan)) != NULL)
		item->followers = NIL;
	oldcontext = MemoryContextSwitchTo(links);
	hash_seq_init(&scan, items);
	while ((item = hash_seq_search(&scan)) != NULL)
		for (int i = 0; i < item->nupstream; i++)
		{
			IngestAgendaItem *upstream = ingest_agenda_find(item->upstream[i]);

			if (upstream)
				upstream->followers = lappend_int(upstream->followers, item->id);
		}
	MemoryContextSwitchTo(oldcontext);
	lag_round++;
	hash_seq_init(&scan, items);
	while ((item = hash_seq_search(&scan)) != NULL)
		(void) find_lag(item);
}

bool
ingest_agenda_is_followed(int32 id)
{
	IngestAgendaItem *item = ingest_agenda_find(id);

	return item && item->followers != NIL;
}

static List *
add_followers(List *ids, const IngestAgendaItem *item)
{
	ListCell   *cell;

	foreach(cell, item->followers)
		ids = list_append_unique_int(ids, lfirst_int(cell));
	return ids;
}

List *
ingest_agenda_progressed(int32 id, List *ids)
{
	IngestAgendaItem *item = ingest_agenda_find(id);
	ListCell   *cell;

	if (item == NULL)
		return ids;
	foreach(cell, item->followers)
	{
		IngestAgendaItem *follower = ingest_agenda_find(lfirst_int(cell));

		for (int i = 0; follower && i < follower->nupstream; i++)
			if (follower->upstream[i] == id)
				follower->news[i] = true;
	}
	return add_followers(ids, item);
}

/* ---- all, or some ---- */

void
ingest_agenda_read(void)
{
	static IngestStatement find = {ROW_QUERY " ORDER BY p.id", 1, {TEXTOID}};
	Datum		home = CStringGetTextDatum(ingest_pipeline_home());
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;
	ListCell   *cell;

	hash_seq_init(&scan, items);
	while ((item = hash_seq_search(&scan)) != NULL)
		item->wanted = false;
	foreach(cell, read_rows(&find, &home))
		note_row(lfirst(cell));
	link_items();
	hash_seq_init(&scan, items);
	while ((item = hash_seq_search(&scan)) != NULL)
		settle(item);
}

void
ingest_agenda_read_some(List *ids)
{
	static IngestStatement find = {ROW_QUERY " AND p.id = ANY ($2)", 2, {TEXTOID, INT4ARRAYOID}};
	Datum		values[2];
	Datum	   *elements;
	ListCell   *cell;
	int			n = 0;

	if (ids == NIL)
		return;
	elements = palloc(sizeof(Datum) * list_length(ids));
	foreach(cell, ids)
	{
		IngestAgendaItem *item = ingest_agenda_find(lfirst_int(cell));

		elements[n++] = Int32GetDatum(lfirst_int(cell));
		if (item)
			item->wanted = false;
	}
	values[0] = CStringGetTextDatum(ingest_pipeline_home());
	values[1] = PointerGetDatum(construct_array(elements, n, INT4OID, 4, true, TYPALIGN_INT));
	foreach(cell, read_rows(&find, values))
		note_row(lfirst(cell));
	foreach(cell, ids)
	{
		IngestAgendaItem *item = ingest_agenda_find(lfirst_int(cell));

		if (item)
			settle(item);
	}
}

/* ---- runs begin ---- */

static void
begin_run(IngestAgendaItem *item, IngestCause cause, TimestampTz now)
{
	item->running = true;
	item->cause = cause;
	item->run_started = now;
	item->run_started_ms = ingest_clock_ms();
	item->asked_now = item->asked_at;
	item->batches = 0;
	item->spent = 0;
	for (int i = 0; i < item->nupstream; i++)
	{
		item->seen_now[i] = item->counters[i];
		item->news[i] = false;
	}
}

static void
note_live(IngestAgendaItem *item, int ordinal)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	if (item->live == NULL)
		item->live_since = ingest_clock_ms();
	item->live = bms_add_member(item->live, ordinal);
	MemoryContextSwitchTo(oldcontext);
}

void
ingest_agenda_started(IngestAgendaItem *item, int ordinal, IngestCause cause, TimestampTz now)
{
	if (item->schedule.kind != INGEST_SCHEDULE_CONTINUOUS && !item->running)
		begin_run(item, cause, now);
	note_live(item, ordinal);
	plan(item);
}

void
ingest_agenda_adopt(IngestAgendaItem *item, int ordinal, IngestCause cause, TimestampTz run)
{
	if (run != 0 && !item->running && item->schedule.kind != INGEST_SCHEDULE_CONTINUOUS)
	{
		begin_run(item, cause, run);
		/* What its upstream pipelines have done since is not known to be in it. */
		memcpy(item->seen_now, item->seen, sizeof(int64) * item->nupstream);
		item->asked_now = item->asked_at <= run ? item->asked_at : 0;
	}
	note_live(item, ordinal);
	plan(item);
}

int64
ingest_agenda_time_left(const IngestAgendaItem *item)
{
	if (!item->running || item->timeout <= 0)
		return PG_INT64_MAX;
	return item->timeout - item->spent - (item->live ? ingest_clock_ms() - item->live_since : 0);
}

void
ingest_agenda_time_out(IngestAgendaItem *item)
{
	item->ending = item->timed_out = true;
	plan(item);
}

/* ---- runs end ---- */

/* False: not now. */
static bool
write_end(IngestAgendaItem *item)
{
	if (!ingest_state_run_ended(item->id, &item->end, false))
		return false;
	item->stored_next = item->end.next_run == DT_NOEND ? 0 : item->end.next_run;
	item->unwritten = false;
	item->end.runs = 0;
	return true;
}

static bool
write_item(IngestAgendaItem *item)
{
	if (item->unwritten && !write_end(item))
		return false;
	if (is_stored(item))
		return true;
	if (!ingest_state_first_run(item->id, item->next_run))
		return false;
	item->stored_next = item->next_run;
	return true;
}

/* For the catalog, together with an end that could not be written before. */
static void
note_end(IngestAgendaItem *item, bool completed)
{
	IngestRunEnd *end = &item->end;

	end->completed = completed;
	end->runs += completed ? 1 : 0;
	end->started = item->run_started;
	end->next_run = item->next_run;
	end->asked_at = item->asked_now;
	end->duration = item->duration;
	end->nseen = item->nupstream;
	end->seen = item->nupstream > 0 ? item->end_seen : NULL;
	memcpy(item->end_seen, item->seen, sizeof(int64) * item->nupstream);
	item->unwritten = true;
	if (!write_end(item))
		write_later(item);
}

/* The scheduled time after the one that has come; one that was early keeps it. */
static TimestampTz
find_next_run(const IngestAgendaItem *item, TimestampTz now)
{
	TimestampTz due_at = item->next_run != 0 ? item->next_run : item->run_started;

	if (due_at > now && item->next_run != DT_NOEND)
		return item->next_run;
	return ingest_schedule_next(&item->schedule, Min(due_at, now), now);
}

static void
end_run(IngestAgendaItem *item, bool completed)
{
	TimestampTz now = GetCurrentTimestamp();

	item->next_run = find_next_run(item, now);
	if (completed)
	{
		item->duration = ingest_lag_duration(item->duration, ingest_clock_ms() - item->run_started_ms);
		item->last_run = item->run_started;
	}
	item->last_end = now;
	item->ended_ms = ingest_clock_ms();
	if (item->nupstream > 0)
		memcpy(item->seen, item->seen_now, sizeof(int64) * item->nupstream);
	item->running = item->ending = item->timed_out = false;
	item->retry_at = 0;
	bms_free(item->drained);
	item->drained = NULL;
	if (item->asked_at == item->asked_now)
		item->asked_at = 0;
	if (completed && item->batches == 0)
		ingest_batch_record_run(item->id, item->run_started, item->cause, INGEST_OUTCOME_DONE, NULL);
	note_end(item, completed);
	pass_lag_up(item);
}

/*
 * A try has failed, in a way the worker could not write down.  Who waited, since
 * its source had asked for it, goes on waiting: a server that shuts down ends
 * workers before it ends us.
 */
static void
note_failure(IngestAgendaItem *item, const IngestError *err, IngestOutcome outcome)
{
	TimestampTz ignored;
	int			attempts = ingest_state_attempts(item->id, &ignored);
	int64		delay = ingest_backoff_next(attempts + 1, 0);
	int64		asked = ingest_state_asked_wait(item->id, INGEST_LONGEST_BACKOFF);
	TimestampTz retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Max(delay, asked));

	if (item->running)
		ingest_batch_record_run(item->id, item->run_started, item->cause, outcome, err);
	if (asked <= delay)
		attempts = ingest_state_retry(item->id, err, retry_at);
	item->retry_at = retry_at;
	item->spent = 0;
	item->ending = item->timed_out = false;
	if (item->running && item->retries >= 0 && attempts > item->retries)
		item->ending = true;
}

/* It did not say why: terminated by somebody, or an error that ends a session. */
static void
note_loss(IngestAgendaItem *item, int ordinal)
{
	IngestError err;

	ingest_error_set(&err, INGEST_ERROR_TRANSIENT, ERRCODE_ADMIN_SHUTDOWN,
					 "worker %d of the pipeline ended unexpectedly", ordinal);
	ingest_error_hint(&err, "The server log says why.");
	note_failure(item, &err, INGEST_OUTCOME_FAILED);
}

static void
note_timeout(IngestAgendaItem *item)
{
	IngestError err;

	ingest_error_set(&err, INGEST_ERROR_TRANSIENT, ERRCODE_QUERY_CANCELED,
					 "the run took longer than its timeout");
	ingest_error_hint(&err, "Set the option \"timeout\" higher, or let it read less at a time.");
	note_failure(item, &err, INGEST_OUTCOME_TIMEOUT);
}

/* One of its workers has read what there was; with the last of them the run is done. */
static void
note_drained(IngestAgendaItem *item, int ordinal)
{
	MemoryContext oldcontext;

	if (!item->running)
		return;
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	item->drained = bms_add_member(item->drained, ordinal);
	MemoryContextSwitchTo(oldcontext);
	if (bms_num_members(item->drained) >= item->workers)
		end_run(item, true);
}

static void
note_gone(IngestAgendaItem *item, int ordinal)
{
	if (!bms_is_member(ordinal, item->live))
		return;
	item->live = bms_del_member(item->live, ordinal);
	if (!bms_is_empty(item->live))
		return;
	bms_free(item->live);
	item->live = NULL;
	item->spent += ingest_clock_ms() - item->live_since;
}

List *
ingest_agenda_left(IngestAgendaItem *item, int ordinal, IngestResult result, bool on_purpose,
				   TimestampTz retry_at, int64 batches, List *ids)
{
	bool		was_running = item->running;

	item->batches += batches;
	note_gone(item, ordinal);
	switch (result)
	{
		case INGEST_RESULT_DRAINED:
			note_drained(item, ordinal);
			break;
		case INGEST_RESULT_BACKOFF:
			item->retry_at = retry_at;
			item->spent = 0;
			break;
		case INGEST_RESULT_GAVE_UP:
			item->ending = item->running;
			break;
		case INGEST_RESULT_NONE:
			if (!on_purpose)
				note_loss(item, ordinal);
			break;
		default:
			break;
	}
	if (item->ending && item->live == NULL && item->timed_out)
		note_timeout(item);
	if (item->ending && item->live == NULL)
		end_run(item, false);
	if (was_running && !item->running && !item->unwritten)
		ids = add_followers(ids, item);
	if (result != INGEST_RESULT_DRAINED)
		ids = list_append_unique_int(ids, item->id);
	settle(item);
	return ids;
}

int
ingest_agenda_count_unwritten(void)
{
	return list_length(unwritten);
}

List *
ingest_agenda_write(List *ids)
{
	List	   *left = unwritten;
	ListCell   *cell;

	unwritten = NIL;
	foreach(cell, left)
	{
		IngestAgendaItem *item = ingest_agenda_find(lfirst_int(cell));
		bool		ended;

		if (item == NULL)
			continue;
		item->listed = false;
		ended = item->unwritten;
		if (!write_item(item))
			write_later(item);
		if (ended && !item->unwritten)
			ids = add_followers(ids, item);
	}
	list_free(left);
	return ids;
}
