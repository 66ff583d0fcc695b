/*
 * relation.c
 *		A source that is any relation: a table, a view, a foreign table of
 *		somebody else's wrapper.  Read through the executor.
 *
 * By a cursor: in pages, in the order of the cursor, each a query of its own in a
 * short transaction, from where the last one ended.  A pass reads what is there,
 * up to a bound below which nothing can appear any more (relation_late.c).
 *
 * Whole: by one query, in the transaction of the turn that replaces the target
 * (pipeline/refresh.c).
 *
 * A row that cannot be read, because the wrapper cannot convert a value, is
 * passed over where rows have a cursor or a key, and becomes a message that says
 * so.
 */
#include "postgres.h"

#include "access/xact.h"
#include "core/clock.h"
#include "core/compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "source/relation.h"
#include "storage/latch.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Transactions that may commit late are looked at again after so many ms, doubling. */
#define LATE_LOOK_MIN_MS 5
#define LATE_LOOK_MAX_MS 500

/* A run that ends waits for them no longer than this; what they hold back is the next one's. */
#define LATE_PATIENCE_MS 2000

/* When they hold something back, so many rows are counted for the lag. */
#define LAG_ROWS 10000

/* Rows to try before an error is taken for one that any row raises. */
#define PROBE_ROWS 20

typedef enum Stage
{
	STAGE_REST,					/* until the next look */
	STAGE_BEGIN,				/* a pass begins */
	STAGE_LATE,					/* waiting for transactions that may commit below the bound */
	STAGE_PAGES,				/* rows behind "after" */
	STAGE_WITHOUT,				/* rows without a cursor */
	STAGE_WHOLE					/* the one query is open, or about to be */
} Stage;

typedef struct RelationSource
{
	IngestSource base;
	const IngestRelationPlan *plan;

	/* the assignment */
	IngestShard *shard;			/* NULL: this worker has none */
	MemoryContext mcxt;			/* of what follows; reset when it changes */
	IngestRelationPosition position;	/* behind all that was fetched */
	char	   *shown;			/* what shard->position points to; NULL: not ours yet */

	Stage		stage;
	bool		wanted;			/* somebody waits for the end of this pass */
	bool		wanted_next;	/* of the one after it, which begins later than he has asked */
	bool		counted;		/* the position says that it has come */
	int64		look_at;		/* not before, by ingest_clock_ms() */
	int64		late_since;		/* waiting since, likewise */
	int			late_wait;		/* ms until the next look */
	bool		drawn;			/* the bound is of this pass */
	bool		bounded;		/* "until" may be read up to */
	IngestCursorValues at;		/* where the next page begins: "after", or before it by the overlap */
	IngestCursorValues key;		/* of the last row that was read by its key */
	bool		careful;		/* read by key: some row cannot be read */
	bool		particular;		/* single rows can be passed over */
	Portal		portal;			/* of the whole; ends with the transaction */
	int64		page;			/* rows to ask for at once after trouble; 0: as many as fit */
} RelationSource;

/* ---- position ---- */

static char *
keep(RelationSource *src, const char *text)
{
	return MemoryContextStrdup(src->mcxt, text);
}

static void
keep_values(RelationSource *src, IngestCursorValues *to, const IngestCursorValues *from)
{
	to->n = from->n;
	for (int i = 0; i < from->n; i++)
		to->texts[i] = from->texts[i] ? keep(src, from->texts[i]) : NULL;
}

/* Everything that is kept moves to a fresh context, so that nothing piles up. */
static void
renew_memory(RelationSource *src)
{
	MemoryContext old = src->mcxt;

	src->mcxt = AllocSetContextCreate(src->base.mcxt, "ingest relation position", ALLOCSET_SMALL_SIZES);
	keep_values(src, &src->position.after, &src->position.after);
	keep_values(src, &src->position.until, &src->position.until);
	keep_values(src, &src->at, &src->at);
	keep_values(src, &src->key, &src->key);
	if (src->position.running)
		src->position.running = keep(src, src->position.running);
	if (src->position.stop)
		src->position.stop = keep(src, src->position.stop);
	if (src->shown)
		src->shard->position = src->shown = keep(src, src->shown);
	MemoryContextDelete(old);
}

static void
show_position(RelationSource *src)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(src->mcxt);

	src->shard->position = src->shown = ingest_relation_position_text(&src->position);
	MemoryContextSwitchTo(oldcontext);
	renew_memory(src);
}

/* ---- callbacks that do not read ---- */

static bool
relation_open(IngestSource *base, IngestError *err)
{
	RelationSource *src = (RelationSource *) base;

	src->plan = base->prepared;
	src->mcxt = AllocSetContextCreate(base->mcxt, "ingest relation position", ALLOCSET_SMALL_SIZES);
	return true;
}

static bool
relation_list_shards(IngestSource *base, IngestShard **shards, int *nshards, IngestError *err)
{
	*shards = palloc0(sizeof(IngestShard));
	(*shards)->name = pstrdup("0");
	(*shards)->lag = -1;
	*nshards = 1;
	return true;
}

static bool
find_timestamp(const IngestRelationPlan *plan, TimestampTz at, IngestRelationPosition *position,
			   IngestError *err)
{
	if (!plan->cursor[0].is_time)
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_INVALID_PARAMETER_VALUE,
						 "a relation cannot be read from a time on whose cursor does not begin with one");
		return false;
	}
	position->after.n = 1;
	position->after.texts[0] = ingest_tuple_value_text(TIMESTAMPTZOID, TimestampTzGetDatum(at));
	position->inclusive = true;
	return true;
}

static bool
relation_find_position(IngestSource *base, const IngestShard *shard, IngestStart start,
					   TimestampTz at, char **position, IngestError *err)
{
	const IngestRelationPlan *plan = base->prepared;
	IngestRelationQuery query = {.cursor = plan->cursor, .ncursor = plan->ncursor};
	IngestRelationPosition found = {0};

	if (!plan->whole && start == INGEST_START_LATEST)
		(void) ingest_relation_find_cursor(plan, &query, true, &found.after);
	else if (!plan->whole && start == INGEST_START_TIMESTAMP &&
			 !find_timestamp(plan, at, &found, err))
		return false;
	*position = ingest_relation_position_text(&found);
	return true;
}

static Oid
relation_slice_type(IngestSource *base, const char *from)
{
	const IngestRelationPlan *plan = base->prepared;

	return plan->whole ? InvalidOid : plan->cursor[0].typid;
}

/* The position says where the part ends: that of its pass. */
static bool
relation_slice(IngestSource *base, const IngestShard *shard, const char *from, const char *to,
			   char **position, char **end, IngestError *err)
{
	IngestRelationPosition part = {.inclusive = true, .stop = (char *) to};

	part.after.n = 1;
	part.after.texts[0] = (char *) from;
	*position = ingest_relation_position_text(&part);
	*end = NULL;
	return true;
}

/* The end of the next pass: one that has begun may be past what is there by now. */
static bool
relation_find_end(IngestSource *base, const IngestShard *shard, char **position, IngestError *err)
{
	RelationSource *src = (RelationSource *) base;
	bool		begun = src->shard != NULL && src->stage != STAGE_REST && src->stage != STAGE_BEGIN;
	IngestRelationPosition now;

	if (!ingest_relation_position_parse(shard->position, &now))
		now.pass = 0;
	*position = ingest_relation_end_text(now.pass + (begun && src->wanted ? 2 : 1));
	if (begun)
		src->wanted_next = true;
	else
	{
		src->wanted = true;
		src->look_at = 0;
	}
	return true;
}

static bool
relation_assign(IngestSource *base, IngestShard *shards, int nshards, IngestError *err)
{
	RelationSource *src = (RelationSource *) base;
	IngestRelationPosition position;

	src->shard = nshards > 0 ? shards : NULL;
	src->shown = NULL;
	src->portal = NULL;
	src->stage = STAGE_REST;
	src->look_at = 0;
	src->page = 0;
	src->counted = false;
	src->at.n = src->key.n = src->position.after.n = src->position.until.n = 0;
	src->position.running = src->position.stop = NULL;
	MemoryContextReset(src->mcxt);
	if (src->shard == NULL)
		return true;
	if (!ingest_relation_position_parse(src->shard->position, &position))
	{
		ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_INVALID_PARAMETER_VALUE,
						 "the position cannot be understood: %s", src->shard->position);
		ingest_error_hint(err, "Set another with ingest.seek().");
		return false;
	}
	src->position = position;
	keep_values(src, &src->position.after, &position.after);
	keep_values(src, &src->position.until, &position.until);
	src->position.running = position.running ? keep(src, position.running) : NULL;
	src->position.stop = position.stop ? keep(src, position.stop) : NULL;
	return true;
}

static void
relation_wait_hint(IngestSource *base, pgsocket *fd, long *timeout)
{
	RelationSource *src = (RelationSource *) base;

	*fd = PGINVALID_SOCKET;
	*timeout = src->shard ? (long) Max(src->look_at - ingest_clock_ms(), 0) : -1;
}

/* ---- rows that cannot be read ---- */

/* Is it one row's fault, or would any other raise the same? */
static bool
is_of_a_value(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
		sqlstate == ERRCODE_FDW_INVALID_DATA_TYPE ||
		sqlstate == ERRCODE_FDW_INVALID_STRING_FORMAT ||
		sqlstate == ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION;
}

/* A message of what is known of the row: its cursor, and the error. */
static void
append_unreadable(RelationSource *src, IngestBatch *batch, const IngestRelationQuery *query,
				  const IngestCursorValues *values, const ErrorData *error)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(batch->mcxt);
	IngestMessage *msg = ingest_batch_append(batch);
	IngestCursorValues *place = palloc(sizeof(IngestCursorValues));
	StringInfoData text;

	*place = *values;
	initStringInfo(&text);
	appendStringInfoChar(&text, '{');
	for (int i = 0; i < values->n; i++)
	{
		place->texts[i] = pstrdup(values->texts[i]);
		escape_json(&text, query->cursor[i].attname);
		appendStringInfoString(&text, ": ");
		escape_json(&text, values->texts[i]);
		appendStringInfoString(&text, ", ");
	}
	escape_json(&text, INGEST_TUPLE_ERROR);
	appendStringInfo(&text, ": {\"sqlstate\": \"%s\", \"message\": ", unpack_sql_state(error->sqlerrcode));
	escape_json(&text, error->message ? error->message : "unknown error");
	appendStringInfoString(&text, "}}");
	msg->payload = text.data;
	msg->payload_len = text.len;
	msg->offset = src->position.rows;
	msg->handle = place;
	batch->bytes += text.len;
	MemoryContextSwitchTo(oldcontext);
}

/* ---- pages ---- */

typedef struct CursorPage
{
	IngestRelationQuery query;
	IngestBatch *batch;
	int64		got;
	bool		more;			/* the query has not come to its end */
} CursorPage;

static void
read_page(RelationSource *src, CursorPage *page)
{
	Portal		portal = ingest_relation_open_query(src->plan, &page->query);
	bool		more = ingest_relation_fetch_rows(src->plan, portal, page->batch, page->query.limit,
												  src->position.rows, &page->got);

	page->more = more || page->got >= page->query.limit;
	SPI_connect();
	SPI_cursor_close(portal);
	SPI_finish();
}

/* In a subtransaction; an error of a value is an answer. */
static ErrorData *
try_page(RelationSource *src, CursorPage *page)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	int			nmessages = page->batch->nmessages;
	int64		bytes = page->batch->bytes;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		read_page(src, page);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		FlushErrorState();
		/* The page will be read again, whatever came of it. */
		if (!is_of_a_value(error->sqlerrcode))
		{
			page->batch->nmessages = nmessages;
			page->batch->bytes = bytes;
		}
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	if (error && !is_of_a_value(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* The page's rows stand behind "values" now. */
static void
move_on(RelationSource *src, const IngestRelationQuery *query, int64 rows,
		const IngestCursorValues *values)
{
	src->position.rows += rows;
	if (src->stage == STAGE_PAGES)
	{
		keep_values(src, &src->at, values);
		keep_values(src, &src->position.after, values);
		src->position.inclusive = false;
	}
	else
		keep_values(src, &src->key, values);
}

static const IngestMessage *
last_message(const IngestBatch *batch)
{
	return &batch->messages[batch->nmessages - 1];
}

/*
 * Is it this row's fault?  Then others can be read without it.  Not so where the
 * wrapper goes through all rows, whatever is asked for, as it does with a file.
 */
static bool
is_of_this_row(RelationSource *src, const CursorPage *failed, const IngestCursorValues *values)
{
	IngestCursorValues at = *values;

	for (int i = 0; i < PROBE_ROWS && !src->particular; i++)
	{
		IngestBatch *batch = failed->batch;
		int			nmessages = batch->nmessages;
		int64		bytes = batch->bytes;
		CursorPage	probe = {.query = failed->query, .batch = batch};
		ErrorData  *error;

		probe.query.after = &at;
		probe.query.inclusive = false;
		probe.query.limit = 1;
		error = try_page(src, &probe);
		batch->nmessages = nmessages;
		batch->bytes = bytes;
		src->particular = error == NULL;
		if (error && !ingest_relation_find_cursor(src->plan, &probe.query, false, &at))
			break;
	}
	return src->particular;
}

/*
 * After an error: ask for fewer rows, until it is the first one that cannot be
 * read; that is passed over.  False: there is no row any more.
 */
static bool
deal_with_unreadable(RelationSource *src, CursorPage *page, ErrorData *error)
{
	IngestCursorValues values;
	IngestRelationQuery one = page->query;

	if (page->got > 0 || page->query.limit > 1)
	{
		src->page = page->got > 0 ? 1 : Max(page->query.limit / 16, 1);
		return true;
	}
	if (!ingest_relation_find_cursor(src->plan, &one, false, &values))
		return false;
	if (!is_of_this_row(src, page, &values))
	{
		error->hint = "Which row it is cannot be told, since the source goes through all of them; declare the column as text.";
		ReThrowError(error);
	}
	append_unreadable(src, page->batch, &page->query, &values, error);
	move_on(src, &page->query, 1, &values);
	return true;
}

static int64
page_limit(const RelationSource *src, const IngestBatch *batch)
{
	int64		limit = Max(batch->limits.rows - batch->nmessages, 1);
	int64		rate = src->plan->options->rows_per_second;

	if (rate > 0)
		limit = Min(limit, Max(rate / 4, 1));
	return src->page > 0 ? Min(limit, src->page) : limit;
}

/* So many rows a second and no more. */
static void
pay_for_rows(RelationSource *src, int64 rows)
{
	int64		rate = src->plan->options->rows_per_second;

	if (rate > 0 && rows > 0)
		src->look_at = ingest_clock_ms() + rows * 1000 / rate;
}

/*
 * One page.  True: there may be more rows behind it.  The rows of a page are in
 * the order of the cursor, so that those before an error are good.
 */
static bool
fetch_page(RelationSource *src, IngestBatch *batch)
{
	const IngestRelationPlan *plan = src->plan;
	bool		by_key = src->stage != STAGE_PAGES;
	IngestCursorValues *after = by_key ? &src->key : &src->at;
	CursorPage		page = {
		.query = {
			.cursor = by_key ? plan->key : plan->cursor,
			.ncursor = by_key ? plan->nkey : plan->ncursor,
			.after = after,
			.until = !by_key && src->bounded ? &src->position.until : NULL,
			.inclusive = !by_key && src->position.inclusive,
			.stop = by_key ? NULL : src->position.stop,
			.without = src->stage == STAGE_WITHOUT,
			.limit = page_limit(src, batch)
		},
		.batch = batch
	};
	ErrorData  *error = try_page(src, &page);
	bool		more = page.more;

	if (page.got > 0)
	{
		IngestCursorValues values;

		ingest_relation_values(plan, last_message(batch)->payload, page.query.cursor,
							   page.query.ncursor, &values);
		move_on(src, &page.query, page.got, &values);
		if (src->stage == STAGE_WITHOUT)
			for (int m = batch->nmessages - (int) page.got; m < batch->nmessages; m++)
				batch->messages[m].handle = MemoryContextAllocZero(batch->mcxt, sizeof(IngestCursorValues));
	}
	if (error)
		more = deal_with_unreadable(src, &page, error);
	else if (src->page > 0)
		src->page = src->page < batch->limits.rows ? src->page * 4 : 0;
	pay_for_rows(src, page.got);
	return more;
}

/* ---- passes ---- */

static void
end_pass(RelationSource *src)
{
	src->stage = STAGE_REST;
	if (!src->wanted_next)
		src->look_at = Max(src->look_at, ingest_clock_ms() + src->plan->options->poll_interval);
	if (src->position.running == NULL)
		src->shard->lag = 0;
	if (src->wanted)
		src->position.pass++;
	src->counted = src->wanted;
	src->wanted = src->wanted_next;
	src->wanted_next = false;
	show_position(src);
}

/* Rows without a cursor: say so, or read them, or do not. */
static bool
settle_rows_without(RelationSource *src, IngestError *err)
{
	const IngestRelationPlan *plan = src->plan;
	IngestRelationQuery query = {.cursor = plan->cursor, .ncursor = plan->ncursor, .without = true, .limit = 1};

	if (plan->options->null_cursor == INGEST_NULL_CURSOR_STOP)
	{
		bool		possible = false;

		for (int i = 0; i < plan->ncursor; i++)
			possible |= !plan->cursor[i].not_null || plan->cursor[i].is_time;
		if (possible && ingest_relation_count(plan, &query) > 0)
		{
			ingest_error_set(err, INGEST_ERROR_CONFIG, ERRCODE_NULL_VALUE_NOT_ALLOWED,
							 "relation %s has rows whose cursor is null or infinite", plan->relation);
			ingest_error_detail(err, "They would never be read.");
			ingest_error_hint(err, "Correct them, or set the option \"null_cursor\" to \"skip\" or \"include\".");
			return false;
		}
	}
	return true;
}

/* How much is held back, roughly. */
static void
count_held_back(RelationSource *src)
{
	const IngestRelationPlan *plan = src->plan;
	IngestRelationQuery query = {
		.cursor = plan->cursor, .ncursor = plan->ncursor, .after = &src->position.after, .limit = LAG_ROWS
	};

	src->shard->lag = ingest_relation_count(plan, &query);
}

static void
wait_for_late(RelationSource *src, int ms)
{
	src->stage = STAGE_LATE;
	src->late_wait = ms;
	src->look_at = ingest_clock_ms() + ms;
}

/* First the greatest cursor there is, then who runs: see relation_late.c. */
static bool
draw_bound(RelationSource *src)
{
	const IngestRelationPlan *plan = src->plan;
	IngestRelationQuery query = {
		.cursor = plan->cursor, .ncursor = plan->ncursor, .after = &src->position.after,
		.inclusive = src->position.inclusive
	};
	IngestCursorValues greatest;
	char	   *running;

	src->drawn = true;
	if (!ingest_relation_find_cursor(plan, &query, true, &greatest))
		return false;
	keep_values(src, &src->position.until, &greatest);
	running = ingest_relation_running(plan->written);
	src->position.running = running ? keep(src, running) : NULL;
	src->late_since = ingest_clock_ms();
	return true;
}

/* The page begins where the position is, less the overlap. */
static void
begin_pages(RelationSource *src)
{
	keep_values(src, &src->at, &src->position.after);
	if (src->plan->options->overlap && src->position.after.n > 0 && src->position.stop == NULL)
	{
		src->at.n = 1;
		src->at.texts[0] = keep(src, ingest_relation_step_back(src->plan, src->position.after.texts[0]));
	}
	src->stage = STAGE_PAGES;
}

/*
 * Have the transactions ended that the bound waits for?  Then what is below it
 * can be read.
 */
static void
look_at_late(RelationSource *src)
{
	char	   *left = src->position.running ? ingest_relation_still_running(src->position.running) : NULL;

	if (left == NULL)
	{
		src->position.running = NULL;
		src->bounded = true;
		begin_pages(src);
		return;
	}
	src->position.running = keep(src, left);
	if (src->wanted && !src->base.patient && ingest_clock_ms() - src->late_since >= LATE_PATIENCE_MS)
	{
		if (!src->base.background)
			ereport(NOTICE,
					(errmsg("some rows of %s are left to the next run", src->plan->relation),
					 errdetail("Transactions still run that may commit rows before them: %s.", left)));
		count_held_back(src);
		end_pass(src);
		return;
	}
	if (src->late_wait >= LATE_LOOK_MAX_MS)
		count_held_back(src);
	wait_for_late(src, Min(Max(src->late_wait * 2, LATE_LOOK_MIN_MS), LATE_LOOK_MAX_MS));
	show_position(src);
}

static void end_pages(RelationSource *src);

/* There is nothing new; what lies within the overlap may have come late. */
static void
begin_nothing(RelationSource *src)
{
	begin_pages(src);
	src->bounded = true;
	keep_values(src, &src->position.until, &src->position.after);
	if (src->plan->options->overlap == NULL || src->position.after.n == 0)
		end_pages(src);
}

static bool
begin_pass(RelationSource *src, IngestError *err)
{
	if (src->position.stop == NULL && !settle_rows_without(src, err))
		return false;
	src->drawn = src->bounded = src->counted = false;
	src->key.n = 0;
	if (!src->plan->wait_late || src->position.stop)
		begin_pages(src);
	else if (src->position.running)
	{
		/* A bound of the pass before. */
		src->late_since = ingest_clock_ms();
		src->late_wait = 0;
		look_at_late(src);
	}
	else if (draw_bound(src))
	{
		src->late_wait = 0;
		look_at_late(src);
	}
	else
		begin_nothing(src);
	return true;
}

/* The rows of a stage have come to an end: what is next? */
static void
end_pages(RelationSource *src)
{
	const IngestRelationPlan *plan = src->plan;

	if (src->stage == STAGE_PAGES && plan->wait_late && !src->position.stop && !src->drawn && draw_bound(src))
	{
		/* That was a bound of the pass before; there is something newer. */
		src->bounded = false;
		src->late_wait = 0;
		look_at_late(src);
	}
	else if (src->stage == STAGE_PAGES && plan->options->null_cursor == INGEST_NULL_CURSOR_INCLUDE &&
			 src->position.stop == NULL)
		src->stage = STAGE_WITHOUT;
	else
		end_pass(src);
}

static IngestFetch
step_by_cursor(RelationSource *src, IngestBatch *batch, IngestError *err)
{
	int			before = batch->nmessages;

	if (src->stage == STAGE_REST)
		src->stage = STAGE_BEGIN;
	if (src->stage == STAGE_BEGIN && !begin_pass(src, err))
	{
		src->stage = STAGE_REST;
		return INGEST_FETCH_ERROR;
	}
	if (src->stage == STAGE_LATE)
		look_at_late(src);
	else if (src->stage == STAGE_PAGES || src->stage == STAGE_WITHOUT)
	{
		if (!fetch_page(src, batch))
			end_pages(src);
		else
			show_position(src);
	}
	return batch->nmessages > before || src->look_at <= ingest_clock_ms() ?
		INGEST_FETCH_GOT : INGEST_FETCH_EMPTY;
}

/* ---- read whole ---- */

/* The turn's transaction is open anyway: wait here. */
static void
wait_here(RelationSource *src)
{
	for (;;)
	{
		long		left = src->look_at - ingest_clock_ms();

		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 ingest_compat_wait_event("IngestSourceFetch"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Row by row where needed: the transaction begins anew, by key this time. */
pg_noreturn static void
begin_anew_by_key(RelationSource *src, ErrorData *error)
{
	if (src->plan->key == NULL)
	{
		error->hint = "Give the pipeline a \"key\", so that rows that cannot be read are passed over, or declare the column as text.";
		ReThrowError(error);
	}
	src->careful = true;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("a row of %s cannot be read: %s", src->plan->relation, error->message),
			 errdetail("The relation is read again, by its key.")));
}

static bool
fetch_portal(RelationSource *src, IngestBatch *batch)
{
	IngestRelationQuery query = {0};
	volatile bool more = false;
	int64		got = 0;
	MemoryContext oldcontext = CurrentMemoryContext;

	if (src->portal == NULL)
		src->portal = ingest_relation_open_query(src->plan, &query);
	PG_TRY();
	{
		more = ingest_relation_fetch_rows(src->plan, src->portal, batch, page_limit(src, batch),
										  src->position.rows, &got);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		if (!is_of_a_value(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		begin_anew_by_key(src, error);
	}
	PG_END_TRY();
	src->position.rows += got;
	pay_for_rows(src, got);
	return more;
}

static IngestFetch
step_whole(RelationSource *src, IngestBatch *batch)
{
	if (!src->base.in_turn && !src->base.peek)
	{
		if (src->wanted && src->stage != STAGE_WHOLE)
			return INGEST_FETCH_WHOLE;
		src->look_at = ingest_clock_ms() + src->plan->options->poll_interval;
		return INGEST_FETCH_EMPTY;
	}
	if (src->stage == STAGE_REST)
	{
		src->stage = STAGE_WHOLE;
		src->counted = false;
		src->portal = NULL;
		src->key.n = 0;
		src->bounded = false;
	}
	wait_here(src);
	if (src->careful ? fetch_page(src, batch) : fetch_portal(src, batch))
	{
		show_position(src);
		return INGEST_FETCH_GOT;
	}
	src->portal = NULL;
	end_pass(src);
	return batch->nmessages > 0 ? INGEST_FETCH_GOT : INGEST_FETCH_EMPTY;
}

/* ---- fetching ---- */

static IngestFetch
relation_fetch(IngestSource *base, IngestBatch *batch, int *gap_shard, IngestError *err)
{
	RelationSource *src = (RelationSource *) base;

	if (src->shard == NULL || ingest_batch_full(batch))
		return INGEST_FETCH_EMPTY;
	if (src->plan->whole)
	{
		/* Before the end of the pass it has come to, there is nothing more. */
		if ((src->base.in_turn || src->base.peek) && src->stage == STAGE_REST && !src->wanted)
			return INGEST_FETCH_EMPTY;
		return step_whole(src, batch);
	}
	if (src->look_at > ingest_clock_ms())
		return INGEST_FETCH_EMPTY;
	return step_by_cursor(src, batch, err);
}

/*
 * Behind a row: its own cursor.  A row without one moves nothing.
 */
static void
relation_position_after(IngestSource *base, const IngestBatch *batch, const IngestMessage *msg,
						char **position, char **proof)
{
	RelationSource *src = (RelationSource *) base;
	IngestRelationPosition at = src->position;
	const IngestCursorValues *place = msg->handle;

	at.rows = msg->offset + 1;
	at.inclusive = false;
	if (place && place->n > 0)
		at.after = *place;
	else if (place == NULL && !src->plan->whole)
		ingest_relation_values(src->plan, msg->payload, src->plan->cursor, src->plan->ncursor, &at.after);
	/* What is behind it belongs to the pass, which is not done. */
	if (src->counted)
		at.pass--;
	*position = ingest_relation_position_text(&at);
	*proof = NULL;
}

static Datum
relation_get_metadata(IngestSource *base, const IngestBatch *batch, const IngestMessage *msg,
					  int which, bool *isnull)
{
	*isnull = true;
	return (Datum) 0;
}

/* The rows are in the batch's memory. */
static void
relation_release(IngestSource *base, IngestBatch *batch)
{
}

static const IngestOptionDef relation_options[] = {INGEST_OPTION_END};
static const IngestMetadataDef relation_metadata[] = {{NULL}};

const IngestSourceOps ingest_source_relation = {
	.name = "relation",
	.description = "tables, views, foreign tables of other wrappers",
	.options = relation_options,
	.options_size = 0,
	.metadata = relation_metadata,
	.in_transaction = true,
	.prepare = ingest_relation_prepare,
	.instance_size = sizeof(RelationSource),
	.open = relation_open,
	.list_shards = relation_list_shards,
	.find_position = relation_find_position,
	.check_position = ingest_relation_check_position,
	.distance = ingest_relation_distance,
	.assign = relation_assign,
	.wait_hint = relation_wait_hint,
	.fetch = relation_fetch,
	.position_after = relation_position_after,
	.find_end = relation_find_end,
	.slice_type = relation_slice_type,
	.slice = relation_slice,
	.get_metadata = relation_get_metadata,
	.release = relation_release,
};
