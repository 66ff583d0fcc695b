/*
 * attempt.c
 *		Messages through decode, rules and load; poison isolated.
 *
 * What a rejected row leaves behind is in verdict.c, rules that need all rows
 * at once in collect.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "core/fault.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pipeline/attempt_private.h"
#include "pipeline/usersql.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/*
 * Rows, and bytes of payload, that are decoded before they are written.  More
 * makes better use of table_multi_insert when many partitions share them,
 * less stays in the processor's cache.
 */
#define FLUSH_ROWS 1000
#define FLUSH_BYTES (4 * 1024 * 1024)

/* Of row_mcxt; the first block is kept by each reset and should hold FLUSH_ROWS rows. */
#define ROW_BLOCK (1024 * 1024)
#define ROW_BLOCK_MAX (8 * 1024 * 1024)

/*
 * Subtransactions a turn may spend: beyond 64 unfinished ones snapshots of
 * everybody get slower.  Within one message, where the turn cannot stop, more.
 */
#define MAX_SAVEPOINTS 60
#define MAX_SAVEPOINTS_MESSAGE 600

/* Rows of one message that may come to statement_timeout, each alone. */
#define MAX_RUNAWAYS 5

/* ---- one subtransaction ---- */

/* Results so far, to come back to. */
typedef struct Mark
{
	IngestCounts counts;
	int			letters;
	int			notes;
	int64	   *violations;
} Mark;

static Mark
take_mark(IngestAttempt *att)
{
	Mark		mark = {att->counts, ingest_dead_letter_count(att->letters), att->nnotes, NULL};
	int			n;
	int64	   *counts = ingest_rules_counts(att->prepared->rules, &n);

	if (n > 0)
	{
		mark.violations = palloc(sizeof(int64) * n);
		memcpy(mark.violations, counts, sizeof(int64) * n);
	}
	return mark;
}

static void
return_to_mark(IngestAttempt *att, const Mark *mark)
{
	int			n;
	int64	   *counts = ingest_rules_counts(att->prepared->rules, &n);

	att->counts = mark->counts;
	ingest_dead_letter_truncate(att->letters, mark->letters);
	att->nnotes = mark->notes;
	if (n > 0)
		memcpy(counts, mark->violations, sizeof(int64) * n);
}

/*
 * What input functions say of text, and what would be a wrong definition
 * anywhere else: tsvector and ltree find syntax errors, regclass no such table.
 */
static bool
is_of_input_functions(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('3', 'D', '0', '0', '0'):
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):
			return true;
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):
			return sqlstate != ERRCODE_INSUFFICIENT_PRIVILEGE;
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			/* many a type's input function says elog(ERROR) to bad input */
			return sqlstate == ERRCODE_INTERNAL_ERROR;
		default:
			return false;
	}
}

/*
 * Would another row have gone through?  Not when the server, the definition or
 * its privileges are the reason: then every row would end as a dead letter.
 */
static bool
data_is_at_fault(const IngestAttempt *att, const ErrorData *error, bool timed_out)
{
	if (att->fatal || att->step == INGEST_STEP_OPEN)
		return false;
	if (timed_out)
		return true;
	if (att->step == INGEST_STEP_DECODE && is_of_input_functions(error->sqlerrcode))
		return true;

	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):	/* connection */
		case MAKE_SQLSTATE('2', '5', '0', '0', '0'):	/* transaction state */
		case MAKE_SQLSTATE('2', '8', '0', '0', '0'):	/* authorization */
		case MAKE_SQLSTATE('2', 'D', '0', '0', '0'):	/* transaction termination */
		case MAKE_SQLSTATE('3', 'B', '0', '0', '0'):	/* savepoint */
		case MAKE_SQLSTATE('3', 'D', '0', '0', '0'):	/* no such catalog */
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):	/* no such schema */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* serialization, deadlock */
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):	/* definition, privileges */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):	/* locks, object state */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancel, shutdown */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* I/O */
		case MAKE_SQLSTATE('F', '0', '0', '0', '0'):	/* configuration file */
		case MAKE_SQLSTATE('H', 'V', '0', '0', '0'):	/* foreign server */
			return false;
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):	/* internal */
			return false;
		default:
			return true;
	}
}

bool
ingest_attempt_try(IngestAttempt *att, void (*work) (IngestAttempt *, void *),
				   void *arg, ErrorData **error)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	Mark		mark = take_mark(att);
	ErrorData  *volatile caught = NULL;
	volatile bool timed_out = false;
	bool		armed;

	MemoryContextReset(att->row_mcxt);
	MemoryContextReset(att->try_mcxt);
	att->savepoints++;
	att->step = INGEST_STEP_OPEN;

	BeginInternalSubTransaction(NULL);
	armed = ingest_usersql_arm(att->prepared->pl);
	PG_TRY();
	{
		MemoryContextSwitchTo(att->try_mcxt);
		work(att, arg);
		ingest_usersql_disarm(armed);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		timed_out = ingest_usersql_timed_out(att->prepared->pl, armed, geterrcode());
		ingest_usersql_disarm(armed);
		MemoryContextSwitchTo(att->mcxt);
		caught = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;

	if (caught == NULL)
		return true;
	if (!data_is_at_fault(att, caught, timed_out))
		ReThrowError(caught);
	att->timed_out |= timed_out;
	return_to_mark(att, &mark);
	*error = caught;
	return false;
}

bool
ingest_attempt_exhausted(const IngestAttempt *att, bool within_message)
{
	if (within_message)
		return att->savepoints >= MAX_SAVEPOINTS_MESSAGE || att->runaways >= MAX_RUNAWAYS;
	return att->savepoints >= MAX_SAVEPOINTS || att->timed_out;
}

/* ---- one row ---- */

void
ingest_attempt_fill_metadata(IngestAttempt *att, const IngestMessage *msg)
{
	const IngestSourceRelation *rel = att->prepared->rel;

	for (int i = 0; i < rel->nmetadata; i++)
	{
		int			column = rel->metadata[i].attnum - 1;

		att->slot->tts_values[column] =
			rel->ops->get_metadata(att->source, att->batch, msg, rel->metadata[i].which,
								   &att->slot->tts_isnull[column]);
	}
}

/*
 * Could the message of this row be left to the next turn, whole?  Not the
 * first one, or a turn might settle nothing.
 */
static bool
message_can_wait(const IngestAttempt *att, const IngestRange *range)
{
	return att->at.message > att->first &&
		(range->from.message < att->at.message || range->from.row == 0);
}

/* The row in the slot has been judged: load it or reject it. */
static inline void
dispose_row(IngestAttempt *att, IngestRange *range, const IngestTravel *travel,
			int violated, bool warned)
{
	IngestLoadError error = {0};

	if (violated >= 0)
	{
		ingest_verdict_violates(att, travel, violated);
		return;
	}
	att->step = INGEST_STEP_PUT;
	if (!att->lane->put(range->load, att->slot, &error))
	{
		if (error.full && message_can_wait(att, range))
		{
			att->full = true;
			ereport(ERROR, (errcode(error.sqlstate), errmsg_internal("%s", error.message)));
		}
		ingest_verdict_unloadable(att, travel, &error);
		return;
	}
	if (range->accepted)
		tuplestore_puttupleslot(range->accepted, att->slot);
	ingest_verdict_written(att, travel, warned);
}

void
ingest_attempt_judge(IngestAttempt *att, IngestRange *range, const IngestTravel *travel,
					 int violated, bool warned)
{
	dispose_row(att, range, travel, violated, warned);
}

static void
flush_rows(IngestAttempt *att, IngestRange *range, bool last)
{
	att->step = last ? INGEST_STEP_LAST : INGEST_STEP_FLUSH;
	att->lane->flush(range->load, last);
	range->flushed = range->reached;
	range->unflushed = 0;
	range->unflushed_bytes = 0;
	MemoryContextReset(att->row_mcxt);
}

/* The row at att->at has been gone through; "bytes" of payload were decoded for it. */
void
ingest_attempt_end_row(IngestAttempt *att, IngestRange *range, IngestPlace next, Size bytes)
{
	if (range->rows++ == 0)
		range->first = att->at;
	range->reached = next;
	range->unflushed_bytes += bytes;
	if (++range->unflushed >= FLUSH_ROWS || range->unflushed_bytes >= FLUSH_BYTES)
		flush_rows(att, range, false);
}

/* ---- one range of messages ---- */

/* Pass over n rows of a message; the last one's bytes are the row's slice. */
static void
pass_rows(const IngestPrepared *prepared, int n, IngestRow *row)
{
	IngestRow	unconverted = {0};

	while (n-- > 0)
		if (prepared->rel->format->next(prepared->format, &unconverted) == INGEST_NEXT_NONE)
			break;
	*row = unconverted;
}

static bool
more_rows(const IngestPrepared *prepared)
{
	IngestRow	row = {0};

	return prepared->rel->format->next(prepared->format, &row) != INGEST_NEXT_NONE;
}

/* Whether the first row of a message is its only one; the decoder stands behind it afterwards. */
bool
ingest_attempt_is_only_row(const IngestAttempt *att, const IngestMessage *msg)
{
	const IngestPrepared *prepared = att->prepared;
	IngestRow	row;
	bool		more;

	prepared->rel->format->begin(prepared->format, msg->payload, msg->payload_len);
	pass_rows(prepared, 1, &row);
	more = more_rows(prepared);
	if (more)
	{
		prepared->rel->format->begin(prepared->format, msg->payload, msg->payload_len);
		pass_rows(prepared, 1, &row);
	}
	return !more;
}

/* A message that the source has delivered before. */
static void
pass_repeated(IngestAttempt *att, IngestRange *range, const IngestMessage *msg)
{
	IngestTravel travel = {msg, 0, msg->payload, msg->payload_len};

	ingest_verdict_skipped(att, &travel);
	ingest_attempt_end_row(att, range, (IngestPlace) {att->at.message + 1, 0}, 0);
}

/* A message without a value. */
static void
load_tombstone(IngestAttempt *att, IngestRange *range, const IngestMessage *msg)
{
	static const IngestRowError no_value = {
		.sqlstate = ERRCODE_NULL_VALUE_NOT_ALLOWED,
		.message = "message has no value",
		.position = -1
	};
	IngestTravel travel = {msg, 0, NULL, 0};
	TupleTableSlot *slot = att->slot;
	bool		warned = false;
	int			violated;

	switch ((IngestOnNull) att->prepared->pl->options.on_null)
	{
		case INGEST_NULL_SKIP:
			ingest_verdict_skipped(att, &travel);
			break;
		case INGEST_NULL_REJECT:
			ingest_verdict_undecodable(att, &travel, &no_value);
			break;
		case INGEST_NULL_ROW:
			ExecStoreAllNullTuple(slot);
			ingest_attempt_fill_metadata(att, msg);
			att->step = INGEST_STEP_RULE;
			violated = ingest_rules_check(att->prepared->rules, slot, &warned);
			dispose_row(att, range, &travel, violated, warned);
			break;
	}
	ingest_attempt_end_row(att, range, (IngestPlace) {att->at.message + 1, 0}, 0);
}

/*
 * The rows of one message, from row "from" until before row "to".  True: gone
 * through to its end.
 */
static bool
load_message(IngestAttempt *att, IngestRange *range, const IngestMessage *msg, int from, int to)
{
	const IngestPrepared *prepared = att->prepared;
	const IngestFormatOps *format = prepared->rel->format;
	TupleTableSlot *slot = att->slot;
	IngestRow	row = {0};
	IngestTravel travel = {msg, from, NULL, 0};

	format->begin(prepared->format, msg->payload, msg->payload_len);
	if (from > 0)
		pass_rows(prepared, from, &row);

	row.values = slot->tts_values;
	row.isnull = slot->tts_isnull;
	while (travel.row < to)
	{
		IngestNext	next;

		if (range->rows >= range->max_rows)
			return !more_rows(prepared);

		att->at.row = travel.row;
		att->step = INGEST_STEP_DECODE;
		next = format->next(prepared->format, &row);
		if (next == INGEST_NEXT_NONE)
			return true;
		travel.slice = row.slice;
		travel.slice_len = row.slice_len;
		if (likely(next == INGEST_NEXT_ROW))
		{
			bool		warned = false;
			int			violated;

			ExecClearTuple(slot);
			ingest_attempt_fill_metadata(att, msg);
			ExecStoreVirtualTuple(slot);
			att->step = INGEST_STEP_RULE;
			violated = ingest_rules_check(prepared->rules, slot, &warned);
			dispose_row(att, range, &travel, violated, warned);
		}
		else
			ingest_verdict_undecodable(att, &travel, &row.error);

		travel.row++;
		ingest_attempt_end_row(att, range, (IngestPlace) {att->at.message, travel.row},
							   row.slice_len);
	}
	return false;
}

static void
load_messages(IngestAttempt *att, IngestRange *range)
{
	for (int m = range->from.message; m <= range->to.message; m++)
	{
		const IngestMessage *msg = &att->batch->messages[m];
		int			from = m == range->from.message ? range->from.row : 0;
		int			to = m == range->to.message ? range->to.row : PG_INT32_MAX;

		if (to == 0 || range->rows >= range->max_rows)
			break;
		CHECK_FOR_INTERRUPTS();
		INGEST_FAULT("mid-decode");

		att->at.message = m;
		att->at.row = from;
		if (!ingest_message_has_rows(msg))
		{
			if (from == 0 && msg->repeated)
				pass_repeated(att, range, msg);
			else if (from == 0)
				load_tombstone(att, range, msg);
		}
		else if (!load_message(att, range, msg, from, to))
			break;
		range->reached.message = m + 1;
		range->reached.row = 0;
	}
}

/* The work of a subtransaction: open the target, load a range, close it. */
static void
load_range(IngestAttempt *att, void *arg)
{
	IngestRange *range = arg;

	INGEST_FAULT("before-load");
	range->load = att->lane->begin(att->prepared->pl, att->prepared->rowtype);
	ingest_rules_begin(att->prepared->rules);

	MemoryContextSwitchTo(att->row_mcxt);
	if (att->collected)
		ingest_collect_load(att, range);
	else
		load_messages(att, range);
	flush_rows(att, range, true);
	MemoryContextSwitchTo(att->try_mcxt);

	att->counts.written -= range->load->discarded + range->load->merged;
	att->counts.skipped += range->load->discarded;
	att->counts.merged += range->load->merged;
	att->lane->end(range->load);
	INGEST_FAULT("after-load");
}

/* ---- going through all of it, carefully when that is needed ---- */

/* Where the search for guilty rows stands. */
typedef struct Search
{
	IngestPlace cursor;			/* everything before is settled */
	IngestPlace end;
	IngestPlace wall;			/* go up to here only; there an error was */
	bool		walled;
	bool		convicted;		/* the row at the wall is guilty for certain */
	IngestFailure failure;		/* the last one */
} Search;

/* The place after a row: within its message, or the next one. */
static IngestPlace
place_after(IngestAttempt *att, IngestPlace place)
{
	const IngestMessage *msg = &att->batch->messages[place.message];
	IngestRow	row;

	place.row++;
	if (att->collected)
		return ingest_collect_next(att, place);
	if (ingest_message_has_rows(msg))
	{
		att->prepared->rel->format->begin(att->prepared->format, msg->payload, msg->payload_len);
		pass_rows(att->prepared, place.row, &row);
		if (more_rows(att->prepared))
			return place;
	}
	place.message++;
	place.row = 0;
	return place;
}

/* A row becomes a dead letter; there is none between the cursor and it. */
static void
convict_row(IngestAttempt *att, Search *search, IngestPlace place)
{
	const IngestMessage *msg = &att->batch->messages[place.message];
	IngestTravel travel = {msg, place.row, msg->payload, msg->payload_len};
	IngestRow	row;

	if (ingest_message_has_rows(msg))
	{
		att->prepared->rel->format->begin(att->prepared->format, msg->payload, msg->payload_len);
		pass_rows(att->prepared, place.row + 1, &row);
		travel.slice = row.slice;
		travel.slice_len = row.slice_len;
	}
	if (search->failure.error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		att->runaways++;
	ingest_verdict_failed(att, &travel, &search->failure);
	search->cursor = place_after(att, place);
	search->walled = false;
}

static void
note_success(IngestAttempt *att, Search *search, const IngestRange *range)
{
	search->cursor = range->reached;
	if (search->walled)
	{
		search->walled = false;
		if (search->convicted)
			convict_row(att, search, search->wall);
	}
	else if (att->stride > INGEST_STRIDE_ALL / 2)
		att->stride = INGEST_STRIDE_ALL;
	else
		att->stride *= 2;
}

/*
 * An error: say which rows to try next, or which row it was.  A row is only
 * convicted when it was the first of its range, so that no other can have been
 * the reason, or by decoding and rules, which look at nothing else.  For a
 * timeout all rows of a range are the reason.
 */
static void
note_failure(IngestAttempt *att, Search *search, const IngestRange *range)
{
	bool		timeout = search->failure.error->sqlerrcode == ERRCODE_QUERY_CANCELED;
	bool		again = timeout && search->walled;

	search->walled = false;
	if (att->full)
	{
		att->full = false;
		search->end = (IngestPlace) {att->at.message, 0};
		return;
	}
	if (att->step == INGEST_STEP_FLUSH || att->step == INGEST_STEP_LAST)
	{
		if (range->rows == 0)
			ReThrowError(search->failure.error);
		if (range->rows == 1)
		{
			convict_row(att, search, range->first);
			return;
		}
		if (att->step == INGEST_STEP_FLUSH && ingest_place_before(range->from, range->flushed))
		{
			search->wall = range->flushed;
			search->walled = true;
			search->convicted = false;
			att->stride = Max(1, range->unflushed / 2);
		}
		else
			att->stride = range->rows / 2;
		return;
	}

	/* The fast way to evaluate rules does not know which of them it was. */
	if (att->step == INGEST_STEP_RULE && search->failure.rule < 0 && !att->collected)
		ingest_rules_one_by_one(att->prepared->rules, true);

	if (range->rows > 0 && again)
		att->stride = Max(1, range->rows / 2);
	else if (range->rows > 0)
	{
		search->wall = att->at;
		search->walled = true;
		search->convicted = !timeout &&
			(att->step == INGEST_STEP_DECODE ||
			 (att->step == INGEST_STEP_RULE && search->failure.rule >= 0));
	}
	else if (att->step != INGEST_STEP_RULE || search->failure.rule >= 0)
		convict_row(att, search, att->at);
}

/*
 * Too many rows of one message make errors to try each: what is left of it
 * is rejected with the last error.
 */
static void
reject_rest_of_message(IngestAttempt *att, Search *search)
{
	int			message = search->cursor.message;

	search->failure.error->detail =
		psprintf("The row was not tried alone: too many rows of its message fail.");
	while (search->cursor.message == message)
		convict_row(att, search, search->cursor);
}

void
ingest_attempt_append_rows(Tuplestorestate *to, Tuplestorestate *from, TupleDesc rowtype)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rowtype, &TTSOpsMinimalTuple);

	while (tuplestore_gettupleslot(from, true, false, slot))
		tuplestore_puttupleslot(to, slot);
	ExecDropSingleTupleTableSlot(slot);
}

static void
load_next_range(IngestAttempt *att, Search *search)
{
	IngestRange range = {
		.from = search->cursor,
		.to = search->walled ? search->wall : search->end,
		.max_rows = search->walled ? INGEST_STRIDE_ALL : att->stride,
		.reached = search->cursor,
		.flushed = search->cursor
	};
	bool		to_transform = att->prepared->pl->transforms != NIL;
	bool		whole = att->savepoints == 0;
	ErrorData  *error;

	/*
	 * A tuplestore cannot be cut: but for the first try, rows are collected
	 * apart until it is clear that they stay.
	 */
	if (to_transform)
		range.accepted = whole ? att->accepted : tuplestore_begin_heap(false, false, work_mem);

	if (ingest_attempt_try(att, load_range, &range, &error))
	{
		if (to_transform && !whole)
			ingest_attempt_append_rows(att->accepted, range.accepted, att->prepared->rowtype);
		note_success(att, search, &range);
	}
	else
	{
		if (to_transform && whole)
			tuplestore_clear(att->accepted);
		if (search->failure.error)
			FreeErrorData(search->failure.error);
		search->failure.step = att->step;
		search->failure.rule = att->step == INGEST_STEP_RULE ?
			ingest_rules_current(att->prepared->rules) : -1;
		search->failure.error = error;
		note_failure(att, search, &range);
	}
	if (to_transform && !whole)
		tuplestore_end(range.accepted);
}

static void
begin_attempt(IngestAttempt *att)
{
	int64	   *counts;
	int			nrules;

	att->try_mcxt = AllocSetContextCreate(att->mcxt, "ingest load", ALLOCSET_DEFAULT_SIZES);
	att->row_mcxt = AllocSetContextCreate(att->mcxt, "ingest rows", 0, ROW_BLOCK, ROW_BLOCK_MAX);
	att->letters = ingest_dead_letter_list(att->mcxt);
	att->slot = MakeSingleTupleTableSlot(att->prepared->rowtype, &TTSOpsVirtual);
	memset(att->slot->tts_isnull, true, att->prepared->rowtype->natts);
	if (att->prepared->pl->transforms != NIL)
		att->accepted = tuplestore_begin_heap(false, false, work_mem);

	/* An attempt that was given up may have left some. */
	counts = ingest_rules_counts(att->prepared->rules, &nrules);
	memset(counts, 0, sizeof(int64) * nrules);
	ingest_rules_one_by_one(att->prepared->rules, false);
	if (att->stride == 0)
		att->stride = INGEST_STRIDE_ALL;
}

void
ingest_attempt_run(IngestAttempt *att)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(att->mcxt);
	Search		search = {0};

	begin_attempt(att);
	search.cursor.message = att->first;
	search.end.message = att->batch->nmessages;
	if (ingest_rules_need_query(att->prepared->rules))
		search.end.message = ingest_collect(att);

	while (ingest_place_before(search.cursor, search.end))
	{
		bool		within = search.cursor.row > 0 || search.cursor.message == att->first;

		if (!within && ingest_attempt_exhausted(att, false))
			break;
		if (search.failure.error && ingest_attempt_exhausted(att, true))
			reject_rest_of_message(att, &search);
		else
			load_next_range(att, &search);
	}

	att->settled = search.cursor.message;
	for (int m = att->first; m < att->settled; m++)
	{
		const IngestMessage *msg = &att->batch->messages[m];

		att->counts.messages++;
		att->counts.bytes += (int64) msg->payload_len + msg->key_len;
	}
	ExecDropSingleTupleTableSlot(att->slot);
	if (att->collected)
		ingest_collect_end(att);
	MemoryContextSwitchTo(oldcontext);
}

void
ingest_attempt_end(IngestAttempt *att)
{
	if (att->accepted)
		tuplestore_end(att->accepted);
	att->accepted = NULL;
}
