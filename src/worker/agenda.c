/*
 * agenda.c
 *		The pipelines of a database that are to run, and when.
 *
 * Kept in memory and read anew only where something has changed, so that the cost
 * of a round does not grow with the number of pipelines: a definition was changed
 * (all), or a run of it or of one it follows has ended (those).
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

/* How much sooner than expected a run begins that must not end too late. */
#define LAG_MARGIN_MIN_MS 500

static HTAB *items;
static Bitmapset *followed;		/* pipelines that others run after, by their numbers */

void
ingest_agenda_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(IngestAgendaItem)};

	items = hash_create("ingest agenda", 64, &ctl, HASH_ELEM | HASH_BLOBS);
}

IngestAgendaItem *
ingest_agenda_find(int32 id)
{
	return hash_search(items, &id, HASH_FIND, NULL);
}

void
ingest_agenda_begin(HASH_SEQ_STATUS *scan)
{
	hash_seq_init(scan, items);
}

IngestAgendaItem *
ingest_agenda_next(HASH_SEQ_STATUS *scan)
{
	return hash_seq_search(scan);
}

/* ---- reading ---- */

/* A row of _pipeline and what belongs to it. */
typedef struct Row
{
	int32		id;
	char	   *name;
	Oid			owner;
	char	   *schedule;
	Jsonb	   *options;
	TimestampTz retry_at;
	TimestampTz next_run;
	TimestampTz asked_at;
	TimestampTz last_run;
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
	"SELECT p.id, p.name, p.owner::oid AS owner, p.schedule, p.options," \
	" s.retry_at, s.next_run, s.asked_at, s.last_run, p.upstream::bigint[] AS upstream, s.seen," \
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
	row->owner = (Oid) ingest_spi_int64(i, "owner", InvalidOid);
	row->schedule = ingest_spi_text(i, "schedule", mcxt);
	row->options = DatumGetJsonbPCopy(ingest_spi_value(i, "options", &isnull));
	row->retry_at = read_timestamp(i, "retry_at");
	row->next_run = read_timestamp(i, "next_run");
	row->asked_at = read_timestamp(i, "asked_at");
	row->last_run = read_timestamp(i, "last_run");
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
read_schedule(const Row *row, IngestSchedule *schedule, IngestPipelineOptions *options)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	volatile bool good = false;

	PG_TRY();
	{
		ingest_pipeline_parse_options(row->options, options);
		good = ingest_schedule_find(row->schedule, schedule);
		ingest_schedule_settings(schedule, options, (uint32) row->id);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
		good = false;
	}
	PG_END_TRY();
	if (!good)
		break_pipeline(row, ERRCODE_INVALID_PARAMETER_VALUE, "its schedule cannot be understood",
					   "Set another with ingest.alter_pipeline(), then ingest.start().");
	return good;
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

static void
note_row(const Row *row)
{
	MemoryContext mcxt = AllocSetContextCreate(TopMemoryContext, "ingest agenda item", ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	IngestSchedule schedule;
	IngestPipelineOptions options;
	IngestAgendaItem *item;
	int64	   *seen_now;
	bool		changed;

	if (!check_login(row) || !read_schedule(row, &schedule, &options))
	{
		MemoryContextSwitchTo(oldcontext);
		MemoryContextDelete(mcxt);
		return;
	}
	item = get_item(row->id);
	changed = item->text == NULL || strcmp(item->text, row->schedule) != 0;
	seen_now = item->seen_now && item->nupstream == row->nupstream ?
		copy_numbers(item->seen_now, item->nupstream) : NULL;
	if (item->mcxt)
		MemoryContextDelete(item->mcxt);
	item->mcxt = mcxt;
	item->seen_now = seen_now;
	item->wanted = true;
	namestrcpy(&item->name, row->name);
	item->owner = row->owner;
	item->workers = (int) options.workers;
	item->timeout = options.timeout;
	item->retries = options.retries;
	item->target_lag = options.target_lag;
	item->schedule = schedule;
	item->text = pstrdup(row->schedule);
	item->nupstream = schedule.kind == INGEST_SCHEDULE_AFTER ? row->nupstream : 0;
	item->upstream = palloc(sizeof(int32) * Max(item->nupstream, 1));
	for (int i = 0; i < item->nupstream; i++)
		item->upstream[i] = (int32) row->upstream[i];
	item->counters = copy_numbers(row->counters, item->nupstream);
	item->seen = copy_numbers(row->seen, item->nupstream);
	item->retry_at = row->retry_at;
	if (row->next_run != 0 || changed)
		item->next_run = row->next_run;
	item->unsure = true;
	item->asked_at = row->asked_at;
	item->last_run = row->last_run;
	MemoryContextSwitchTo(oldcontext);
}

/* It does not run any more; when a run of it was under way, that is history. */
static void
remove_item(IngestAgendaItem *item)
{
	if (item->running)
		ingest_batch_record_run(item->id, item->run_started, item->cause, INGEST_OUTCOME_CANCELLED, NULL);
	bms_free(item->drained);
	bms_free(item->live);
	MemoryContextDelete(item->mcxt);
	hash_search(items, &item->id, HASH_REMOVE, NULL);
}

/* ---- the wishes of followers ---- */

static bool
follows(const IngestAgendaItem *item, int32 id)
{
	for (int i = 0; i < item->nupstream; i++)
		if (item->upstream[i] == id)
			return true;
	return false;
}

List *
ingest_agenda_add_followers(List *ids, int32 id)
{
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;

	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
		if (follows(item, id))
			ids = list_append_unique_int(ids, item->id);
	return ids;
}

bool
ingest_agenda_is_followed(int32 id)
{
	return bms_is_member(id, followed);
}

/*
 * What must not be older than so much has to be read early enough: a pipeline that
 * others follow inherits what they want, less the time their runs take.
 */
static void
pass_lag_on(IngestAgendaItem *item, int depth)
{
	if (item->target_lag <= 0 || depth > 100)
		return;
	for (int i = 0; i < item->nupstream; i++)
	{
		IngestAgendaItem *upstream = ingest_agenda_find(item->upstream[i]);
		int64		wanted = Max(item->target_lag - item->duration, 1000);

		if (upstream == NULL || (upstream->target_lag > 0 && upstream->target_lag <= wanted))
			continue;
		upstream->target_lag = wanted;
		pass_lag_on(upstream, depth + 1);
	}
}

/* Who follows whom, and what that means for those that are followed. */
static void
link_items(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	HASH_SEQ_STATUS scan;
	IngestAgendaItem *item;

	bms_free(followed);
	followed = NULL;
	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
	{
		for (int i = 0; i < item->nupstream; i++)
			followed = bms_add_member(followed, item->upstream[i]);
		if (item->nupstream > 0)
			pass_lag_on(item, 0);
	}
	MemoryContextSwitchTo(oldcontext);
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

	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
		item->wanted = false;
	foreach(cell, read_rows(&find, &home))
		note_row(lfirst(cell));
	ingest_agenda_begin(&scan);
	while ((item = ingest_agenda_next(&scan)) != NULL)
		if (!item->wanted)
			remove_item(item);
	link_items();
}

void
ingest_agenda_read_some(List *ids)
{
	static IngestStatement find = {ROW_QUERY " AND p.id = ANY ($2)", 2, {TEXTOID, INT4ARRAYOID}};
	Datum		values[2] = {CStringGetTextDatum(ingest_pipeline_home())};
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
	values[1] = PointerGetDatum(construct_array(elements, n, INT4OID, 4, true, TYPALIGN_INT));
	foreach(cell, read_rows(&find, values))
		note_row(lfirst(cell));
	foreach(cell, ids)
	{
		IngestAgendaItem *item = ingest_agenda_find(lfirst_int(cell));

		if (item && !item->wanted)
			remove_item(item);
	}
	link_items();
}

/* ---- what is due ---- */

/* Has each of the upstream pipelines come further since our last run began? */
static bool
upstream_is_ahead(const IngestAgendaItem *item)
{
	if (item->nupstream == 0)
		return false;
	for (int i = 0; i < item->nupstream; i++)
		if (item->counters[i] <= item->seen[i])
			return false;
	return true;
}

/* When a run has to begin that keeps the target from getting too old. */
static TimestampTz
due_by_lag(const IngestAgendaItem *item, TimestampTz now)
{
	int64		lead = item->duration + Max(item->duration / 4, LAG_MARGIN_MIN_MS);

	if (item->target_lag <= 0 || item->nupstream > 0)
		return DT_NOEND;
	if (item->last_run == 0 || item->last_run > now)
		return now;
	return TimestampTzPlusMilliseconds(item->last_run, Max(item->target_lag - lead, item->target_lag / 10));
}

static TimestampTz
find_due(IngestAgendaItem *item, TimestampTz now, IngestCause *cause)
{
	TimestampTz due;
	TimestampTz by_lag = due_by_lag(item, now);

	/* From now on it is waited for, should nothing have been written down. */
	if (item->unsure || item->next_run == 0 || item->next_run <= now)
		item->next_run = ingest_schedule_due(&item->schedule, item->next_run, now);
	item->unsure = false;
	due = Min(item->next_run, by_lag);
	*cause = INGEST_CAUSE_SCHEDULE;
	if (upstream_is_ahead(item))
	{
		due = now;
		*cause = INGEST_CAUSE_AFTER;
	}
	if (item->asked_at != 0 && item->asked_at > item->last_run && item->asked_at < due)
	{
		due = Min(item->asked_at, now);
		*cause = INGEST_CAUSE_MANUAL;
	}
	return due;
}

static void
begin_run(IngestAgendaItem *item, IngestCause cause, TimestampTz now)
{
	item->running = true;
	item->cause = cause;
	item->run_started = now;
	item->run_started_ms = ingest_clock_ms();
	item->timing_out = false;
	item->seen_now = MemoryContextAlloc(item->mcxt, sizeof(int64) * Max(item->nupstream, 1));
	memcpy(item->seen_now, item->counters, sizeof(int64) * item->nupstream);
}

bool
ingest_agenda_is_due(IngestAgendaItem *item, TimestampTz now, TimestampTz *wake)
{
	IngestCause cause;
	TimestampTz due;

	if (!ingest_backoff_is_over(item->retry_at, now))
	{
		*wake = item->retry_at;
		return false;
	}
	if (item->schedule.kind == INGEST_SCHEDULE_CONTINUOUS || item->running)
		return !item->timing_out;
	due = find_due(item, now, &cause);
	*wake = due;
	if (due > now)
		return false;
	item->due_since = ingest_clock_ms() - TimestampDifferenceMilliseconds(due, now);
	begin_run(item, cause, now);
	return true;
}

void
ingest_agenda_adopt_run(IngestAgendaItem *item, IngestCause cause, TimestampTz started)
{
	if (item->running || item->schedule.kind == INGEST_SCHEDULE_CONTINUOUS)
		return;
	begin_run(item, cause, started);
	/* What its upstream pipelines have done since is not known to be in it. */
	memcpy(item->seen_now, item->seen, sizeof(int64) * item->nupstream);
}

int64
ingest_agenda_time_left(const IngestAgendaItem *item)
{
	if (!item->running || item->timeout <= 0)
		return PG_INT64_MAX;
	return item->run_started_ms + item->timeout - ingest_clock_ms();
}

/* ---- how runs end ---- */

static void
end_run(IngestAgendaItem *item, bool completed)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due = item->next_run != 0 && item->next_run != DT_NOEND ? item->next_run : item->run_started;
	IngestRunEnd end = {
		.completed = completed,
		.started = item->run_started,
		.seen = item->nupstream > 0 ? item->seen_now : NULL,
		.nseen = item->nupstream
	};

	/* One that was asked for does not move the beat of the others. */
	if (item->cause == INGEST_CAUSE_MANUAL && item->next_run > now)
		end.next_run = item->next_run;
	else
		end.next_run = ingest_schedule_next(&item->schedule, Min(due, now), now);
	if (completed)
	{
		int64		took = ingest_clock_ms() - item->run_started_ms;

		item->duration = item->duration == 0 ? took : (3 * item->duration + took) / 4;
		item->last_run = item->run_started;
	}
	if (item->seen_now)
		memcpy(item->seen, item->seen_now, sizeof(int64) * item->nupstream);
	item->running = item->timing_out = false;
	bms_free(item->drained);
	item->drained = NULL;
	item->due_since = 0;
	item->next_run = end.next_run;
	if (!completed || item->asked_at <= item->run_started)
		item->asked_at = 0;
	ingest_state_run_ended(item->id, &end);
}

void
ingest_agenda_drained(IngestAgendaItem *item, int ordinal)
{
	MemoryContext oldcontext;

	if (item->schedule.kind == INGEST_SCHEDULE_CONTINUOUS || !item->running)
		return;
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	item->drained = bms_add_member(item->drained, ordinal);
	MemoryContextSwitchTo(oldcontext);
	if (bms_num_members(item->drained) >= item->workers)
		end_run(item, true);
}

void
ingest_agenda_given_up(IngestAgendaItem *item)
{
	item->retry_at = 0;
	if (item->running)
		end_run(item, false);
}

void
ingest_agenda_failed(IngestAgendaItem *item, const IngestError *err, IngestOutcome outcome)
{
	TimestampTz retry_at;
	int			attempts = ingest_state_attempts(item->id, &retry_at);

	if (item->running)
		ingest_batch_record_run(item->id, item->run_started, item->cause, outcome, err);
	retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ingest_backoff_next(attempts + 1, 0));
	attempts = ingest_state_retry(item->id, err, retry_at);
	item->retry_at = retry_at;
	item->timing_out = false;
	if (item->schedule.kind != INGEST_SCHEDULE_CONTINUOUS && item->retries >= 0 && attempts > item->retries)
		ingest_agenda_given_up(item);
}
