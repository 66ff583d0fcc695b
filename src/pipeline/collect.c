/*
 * collect.c
 *		Rows collected before they are judged: for rules that compare a row with
 *		the others of its batch, or with other tables.
 *
 * All rows are decoded into a tuplestore, one query tells which rules each of
 * them violates, and the load reads them from there.  Ranges and dead letters
 * are as without (attempt.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pipeline/attempt_private.h"
#include "utils/memutils.h"

/* Subtransactions that may be spent here, of those in attempt.c. */
#define COLLECT_SAVEPOINTS 30

typedef enum CollectedKind
{
	COLLECTED_ROW,				/* in the tuplestore */
	COLLECTED_SKIPPED,
	COLLECTED_BAD,				/* could not be decoded */
	COLLECTED_FAILED			/* raised an error */
} CollectedKind;

typedef struct CollectedRow
{
	IngestPlace place;
	CollectedKind kind;
	const char *slice;
	Size		slice_len;
	IngestViolations *violations;
	IngestRowError *error;		/* of a bad one */
	IngestFailure *failure;		/* of a failed one */
} CollectedRow;

typedef struct IngestCollected
{
	CollectedRow *rows;
	int64		nrows;
	int64		max_rows;
	Tuplestorestate *store;		/* those of kind ROW, in order */
	int64		nstored;
	IngestViolations **violations;	/* by place in the store */
	int64		judged;			/* rows of the store the query has come to */
	int			end;			/* messages collected */
} IngestCollected;

/* ---- collecting ---- */

static CollectedRow *
add_row(IngestAttempt *att, CollectedKind kind, IngestPlace place, const char *slice, Size slice_len)
{
	IngestCollected *collected = att->collected;
	CollectedRow *row;

	if (collected->nrows == collected->max_rows)
	{
		Size		size;

		collected->max_rows = collected->max_rows ? collected->max_rows * 2 : 1024;
		size = (Size) collected->max_rows * sizeof(CollectedRow);
		collected->rows = collected->rows ? repalloc_huge(collected->rows, size) :
			MemoryContextAllocHuge(att->mcxt, size);
	}
	row = &collected->rows[collected->nrows++];
	memset(row, 0, sizeof(*row));
	row->kind = kind;
	row->place = place;
	row->slice = slice;
	row->slice_len = slice_len;
	return row;
}

static char *
keep_text(IngestAttempt *att, const char *text)
{
	return text ? MemoryContextStrdup(att->mcxt, text) : NULL;
}

static void
add_bad_row(IngestAttempt *att, IngestPlace place, const char *slice, Size slice_len,
			const IngestRowError *error)
{
	CollectedRow *row = add_row(att, COLLECTED_BAD, place, slice, slice_len);

	row->error = MemoryContextAlloc(att->mcxt, sizeof(IngestRowError));
	*row->error = *error;
	row->error->message = keep_text(att, error->message);
	row->error->detail = keep_text(att, error->detail);
	row->error->column = keep_text(att, error->column);
}

static void
store_row(IngestAttempt *att, IngestPlace place, const char *slice, Size slice_len)
{
	tuplestore_puttupleslot(att->collected->store, att->slot);
	add_row(att, COLLECTED_ROW, place, slice, slice_len);
	att->collected->nstored++;
}

static void
collect_tombstone(IngestAttempt *att, const IngestMessage *msg, IngestPlace place)
{
	IngestRowError no_value = {
		.sqlstate = ERRCODE_NULL_VALUE_NOT_ALLOWED,
		.message = "message has no value",
		.position = -1
	};

	switch ((IngestOnNull) att->prepared->pl->options.on_null)
	{
		case INGEST_NULL_SKIP:
			add_row(att, COLLECTED_SKIPPED, place, NULL, 0);
			break;
		case INGEST_NULL_REJECT:
			add_bad_row(att, place, NULL, 0, &no_value);
			break;
		case INGEST_NULL_ROW:
			ExecStoreAllNullTuple(att->slot);
			ingest_attempt_fill_metadata(att, msg);
			store_row(att, place, NULL, 0);
			break;
	}
}

static void
collect_message(IngestAttempt *att, const IngestMessage *msg, IngestPlace place)
{
	const IngestPrepared *prepared = att->prepared;
	const IngestFormatOps *format = prepared->rel->format;
	IngestRow	row = {0};

	format->begin(prepared->format, msg->payload, msg->payload_len);
	for (int i = 0; i < place.row; i++)
		(void) format->next(prepared->format, &row);

	row.values = att->slot->tts_values;
	row.isnull = att->slot->tts_isnull;
	for (;; place.row++)
	{
		IngestNext	next;

		att->at = place;
		next = format->next(prepared->format, &row);
		if (next == INGEST_NEXT_NONE)
			break;
		if (next == INGEST_NEXT_BAD)
		{
			add_bad_row(att, place, row.slice, row.slice_len, &row.error);
			continue;
		}
		ExecClearTuple(att->slot);
		ingest_attempt_fill_metadata(att, msg);
		ExecStoreVirtualTuple(att->slot);
		store_row(att, place, row.slice, row.slice_len);
	}
}

/*
 * From a place on, to the end of the batch or, after trouble, of the stride;
 * an error leaves att->at at its row.
 */
static void
collect_messages(IngestAttempt *att, void *arg)
{
	IngestPlace place = *(IngestPlace *) arg;

	MemoryContextSwitchTo(att->row_mcxt);
	att->step = INGEST_STEP_DECODE;
	for (; place.message < att->batch->nmessages; place.message++, place.row = 0)
	{
		const IngestMessage *msg = &att->batch->messages[place.message];

		CHECK_FOR_INTERRUPTS();
		if (place.message > att->first && place.row == 0 &&
			att->collected->nrows >= att->stride)
		{
			att->collected->end = place.message;
			return;
		}
		att->at = place;
		if (ingest_message_has_rows(msg))
			collect_message(att, msg, place);
		else if (place.row == 0 && msg->repeated)
			add_row(att, COLLECTED_SKIPPED, place, msg->payload, msg->payload_len);
		else if (place.row == 0)
			collect_tombstone(att, msg, place);
		MemoryContextReset(att->row_mcxt);
	}
}

static IngestFailure *
keep_failure(IngestAttempt *att, IngestStep step, ErrorData *error)
{
	IngestFailure *failure = MemoryContextAlloc(att->mcxt, sizeof(IngestFailure));

	failure->step = step;
	failure->rule = step == INGEST_STEP_RULE ? ingest_rules_current(att->prepared->rules) : -1;
	failure->error = error;
	return failure;
}

/* The bytes of a row that raised while it was decoded. */
static void
add_failed_row(IngestAttempt *att, IngestPlace place, IngestFailure *failure)
{
	const IngestPrepared *prepared = att->prepared;
	const IngestMessage *msg = &att->batch->messages[place.message];
	IngestRow	row = {0};

	prepared->rel->format->begin(prepared->format, msg->payload, msg->payload_len);
	for (int i = 0; i <= place.row; i++)
		(void) prepared->rel->format->next(prepared->format, &row);
	add_row(att, COLLECTED_FAILED, place, row.slice, row.slice_len)->failure = failure;
}

/*
 * Whether enough has been spent on collecting, and the batch can end before
 * this place; the load needs some too.
 */
static bool
may_stop_before(const IngestAttempt *att, IngestPlace place)
{
	return place.message > att->first &&
		(att->savepoints >= COLLECT_SAVEPOINTS || att->timed_out);
}

/* The batch ends before this message; what was collected of it and after is forgotten. */
static void
end_before(IngestCollected *collected, int message)
{
	while (collected->nrows > 0 && collected->rows[collected->nrows - 1].place.message >= message)
		collected->nrows--;
	collected->end = message;
}

/* Too many rows of one message raise: what is left of it fails with the last error. */
static void
fail_rest_of_message(IngestAttempt *att, IngestPlace place, IngestFailure *failure)
{
	const IngestPrepared *prepared = att->prepared;
	const IngestMessage *msg = &att->batch->messages[place.message];
	IngestRow	row = {0};

	prepared->rel->format->begin(prepared->format, msg->payload, msg->payload_len);
	for (int i = 0; prepared->rel->format->next(prepared->format, &row) != INGEST_NEXT_NONE; i++)
		if (i >= place.row)
		{
			place.row = i;
			add_row(att, COLLECTED_FAILED, place, row.slice, row.slice_len)->failure = failure;
		}
	att->collected->end = place.message + 1;
}

static bool
is_timeout(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/*
 * Decode everything.  A row that raises is passed over; when there are too
 * many of them, the batch ends before the last one's message.
 */
static void
collect_all(IngestAttempt *att)
{
	IngestPlace place = {att->first, 0};
	ErrorData  *error;

	while (!ingest_attempt_try(att, collect_messages, &place, &error))
	{
		IngestFailure *failure = keep_failure(att, INGEST_STEP_DECODE, error);

		if (may_stop_before(att, att->at))
		{
			end_before(att->collected, att->at.message);
			return;
		}
		if (is_timeout(error) && ingest_place_before(place, att->at))
		{
			/* Once more, alone: those before it have taken the time, too. */
			place = att->at;
			continue;
		}
		if (ingest_attempt_exhausted(att, true))
		{
			fail_rest_of_message(att, att->at, failure);
			return;
		}
		att->runaways += is_timeout(error);
		add_failed_row(att, att->at, failure);
		place = att->at;
		place.row++;
	}
}

/* ---- judging ---- */

static void
run_query(IngestAttempt *att, void *arg)
{
	IngestCollected *collected = att->collected;

	att->step = INGEST_STEP_RULE;
	collected->judged = 0;
	MemoryContextSwitchTo(att->mcxt);
	ingest_rules_query(att->prepared->rules, collected->store, collected->nstored,
					   collected->violations, &collected->judged);
}

/* Which of the rows is the n-th of the tuplestore. */
static CollectedRow *
find_stored(const IngestCollected *collected, int64 n)
{
	for (int64 i = 0; i < collected->nrows; i++)
		if (collected->rows[i].kind == COLLECTED_ROW && n-- == 0)
			return &collected->rows[i];
	return NULL;
}

/* The tuplestore anew: its first n rows, without one of them or, -1, all. */
static void
cut_store(IngestAttempt *att, int64 n, int64 without)
{
	IngestCollected *collected = att->collected;
	Tuplestorestate *old = collected->store;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(att->prepared->rowtype, &TTSOpsMinimalTuple);

	collected->store = tuplestore_begin_heap(false, false, work_mem);
	tuplestore_select_read_pointer(old, 0);
	tuplestore_rescan(old);
	for (int64 i = 0; i < n && tuplestore_gettupleslot(old, true, false, slot); i++)
		if (i != without)
			tuplestore_puttupleslot(collected->store, slot);
	collected->nstored = without < 0 ? n : n - 1;
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(old);
}

/* The stored rows of the guilty one's message, from it on, fail with it. */
static void
fail_stored_rest(IngestCollected *collected, CollectedRow *guilty)
{
	int			message = guilty->place.message;
	IngestFailure *failure = guilty->failure;

	for (; guilty < collected->rows + collected->nrows && guilty->place.message == message; guilty++)
		if (guilty->kind == COLLECTED_ROW)
		{
			guilty->kind = COLLECTED_FAILED;
			guilty->failure = failure;
		}
	end_before(collected, message + 1);
}

/*
 * Leave only the rows of the first message, and let the next batch be hardly
 * larger.  False: there are no others.
 */
static bool
keep_first_message(IngestAttempt *att)
{
	IngestCollected *collected = att->collected;
	int64		n = 0;

	end_before(collected, att->first + 1);
	for (int64 i = 0; i < collected->nrows; i++)
		n += collected->rows[i].kind == COLLECTED_ROW;
	if (n == collected->nstored)
		return false;
	cut_store(att, n, -1);
	att->stride = 1;
	return true;
}

/*
 * Ask for the verdicts until no row makes the query fail.  Rows are judged in
 * order, so that the guilty one is known, and those before it have verdicts.
 */
static void
judge_all(IngestAttempt *att)
{
	IngestCollected *collected = att->collected;
	ErrorData  *error;

	while (collected->nstored > 0)
	{
		CollectedRow *guilty;

		collected->violations = MemoryContextAllocExtended(att->mcxt,
														   sizeof(void *) * collected->nstored,
														   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		if (ingest_attempt_try(att, run_query, NULL, &error))
			return;

		guilty = find_stored(collected, collected->judged);
		if (guilty == NULL)
			ReThrowError(error);
		guilty->failure = keep_failure(att, INGEST_STEP_RULE, error);
		if (may_stop_before(att, guilty->place))
		{
			end_before(collected, guilty->place.message);
			return;
		}

		/* Where the time has gone cannot be told but by asking for less. */
		if (is_timeout(error) && keep_first_message(att))
		{
			pfree(collected->violations);
			continue;
		}
		if (is_timeout(error) || ingest_attempt_exhausted(att, true))
		{
			fail_stored_rest(collected, guilty);
			return;
		}
		guilty->kind = COLLECTED_FAILED;
		cut_store(att, collected->nstored, collected->judged);
		pfree(collected->violations);
	}
}

/*
 * Collect and judge the rows of the batch.  Answers with the message before
 * which the attempt has to end.
 */
int
ingest_collect(IngestAttempt *att)
{
	IngestCollected *collected = palloc0(sizeof(IngestCollected));
	int64		stored = 0;

	collected->store = tuplestore_begin_heap(false, false, work_mem);
	collected->end = att->batch->nmessages;
	att->collected = collected;
	collect_all(att);
	judge_all(att);

	for (int64 i = 0; i < collected->nrows; i++)
		if (collected->rows[i].kind == COLLECTED_ROW)
			collected->rows[i].violations = collected->violations[stored++];
	return collected->end;
}

void
ingest_collect_end(IngestAttempt *att)
{
	tuplestore_end(att->collected->store);
	att->collected = NULL;
}

/* ---- loading ---- */

/* Index of the first row at or after a place. */
static int64
find_row(const IngestCollected *collected, IngestPlace place)
{
	int64		low = 0;
	int64		high = collected->nrows;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;

		if (ingest_place_before(collected->rows[middle].place, place))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

IngestPlace
ingest_collect_next(const IngestAttempt *att, IngestPlace place)
{
	const IngestCollected *collected = att->collected;
	int64		i = find_row(collected, place);
	IngestPlace end = {collected->end, 0};

	return i < collected->nrows ? collected->rows[i].place : end;
}

/* Let the tuplestore's next row be that of index i. */
static void
position_store(IngestCollected *collected, int64 i)
{
	int64		skip = 0;

	while (--i >= 0)
		if (collected->rows[i].kind == COLLECTED_ROW)
			skip++;
	tuplestore_select_read_pointer(collected->store, 0);
	tuplestore_rescan(collected->store);
	if (skip > 0)
		(void) tuplestore_skiptuples(collected->store, skip, true);
}

/* The next row of the tuplestore into the attempt's slot, its values in the rows' context. */
static void
read_stored(IngestAttempt *att, TupleTableSlot *stored)
{
	MinimalTuple tuple;
	HeapTupleData heap;

	if (!tuplestore_gettupleslot(att->collected->store, true, false, stored))
		elog(ERROR, "a collected row is missing");
	tuple = ExecCopySlotMinimalTuple(stored);
	heap.t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
	heap.t_data = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
	ItemPointerSetInvalid(&heap.t_self);
	heap.t_tableOid = InvalidOid;

	ExecClearTuple(att->slot);
	heap_deform_tuple(&heap, att->prepared->rowtype, att->slot->tts_values, att->slot->tts_isnull);
	ExecStoreVirtualTuple(att->slot);
}

static void
load_row(IngestAttempt *att, IngestRange *range, CollectedRow *row, TupleTableSlot *stored)
{
	IngestTravel travel = {
		&att->batch->messages[row->place.message], row->place.row, row->slice, row->slice_len
	};
	bool		warned = false;
	int			violated;

	switch (row->kind)
	{
		case COLLECTED_ROW:
			read_stored(att, stored);
			att->step = INGEST_STEP_RULE;
			violated = ingest_rules_apply(att->prepared->rules, row->violations, &warned);
			ingest_attempt_judge(att, range, &travel, violated, warned);
			break;
		case COLLECTED_SKIPPED:
			ingest_verdict_skipped(att, &travel);
			break;
		case COLLECTED_BAD:
			ingest_verdict_undecodable(att, &travel, row->error);
			break;
		case COLLECTED_FAILED:
			ingest_verdict_failed(att, &travel, row->failure);
			break;
	}
}

/* The place after row "i", within a range. */
static IngestPlace
next_place(const IngestCollected *collected, int64 i, IngestPlace to)
{
	if (i + 1 < collected->nrows && ingest_place_before(collected->rows[i + 1].place, to))
		return collected->rows[i + 1].place;
	return to;
}

void
ingest_collect_load(IngestAttempt *att, IngestRange *range)
{
	IngestCollected *collected = att->collected;
	MemoryContext row_mcxt = MemoryContextSwitchTo(att->try_mcxt);
	TupleTableSlot *stored = MakeSingleTupleTableSlot(att->prepared->rowtype, &TTSOpsMinimalTuple);
	int64		i = find_row(collected, range->from);

	MemoryContextSwitchTo(row_mcxt);
	position_store(collected, i);
	for (; i < collected->nrows && ingest_place_before(collected->rows[i].place, range->to); i++)
	{
		if (range->rows >= range->max_rows)
		{
			ExecDropSingleTupleTableSlot(stored);
			return;
		}
		CHECK_FOR_INTERRUPTS();
		att->at = collected->rows[i].place;
		load_row(att, range, &collected->rows[i], stored);
		ingest_attempt_end_row(att, range, next_place(collected, i, range->to),
							   collected->rows[i].slice_len);
	}
	range->reached = range->to;
	ExecDropSingleTupleTableSlot(stored);
}
