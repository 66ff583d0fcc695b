/*
 * refresh.c
 *		Full refresh: the target becomes what the source is, and nobody sees
 *		it halfway.
 *
 * Everything happens in the transaction of the turn.  Without a key all rows go
 * and all rows come.  With a key rows are upserted as they come, their keys are
 * kept, and at the end the rows whose key has not come are deleted, marked or
 * left: nothing is written that has not changed.  When too little would be left,
 * the transaction is given up.
 */
#include "postgres.h"

#include "catalog/dead_letter.h"
#include "catalog/state.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pipeline/load_delete.h"
#include "pipeline/refresh.h"
#include "pipeline/transform.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

struct IngestRefresh
{
	IngestRun  *run;
	int64		before;			/* rows of the target that were there */
	Tuplestorestate *accepted;	/* for the transforms; NULL without */

	/* with a key: those that have come */
	Tuplestorestate *keys;
	TupleDesc	desc;
	AttrNumber *attnums;		/* of the source */
	int64		nkeys;
	TupleTableSlot *row;
	MemoryContext row_mcxt;
};

/* ---- keys ---- */

static void
open_keys(IngestRefresh *refresh, List *names)
{
	IngestRun  *run = refresh->run;
	TupleDesc	rowtype = run->prepared->rowtype;
	ListCell   *lc;
	int			n = 0;

	refresh->desc = CreateTemplateTupleDesc(list_length(names));
	refresh->attnums = palloc(sizeof(AttrNumber) * list_length(names));
	foreach(lc, names)
	{
		AttrNumber	attnum = get_attnum(run->prepared->pl->source, lfirst(lc));

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the source has no column \"%s\", which is of the key", (char *) lfirst(lc))));
		refresh->attnums[n++] = attnum;
		TupleDescCopyEntry(refresh->desc, n, rowtype, attnum);
	}
	refresh->keys = tuplestore_begin_heap(false, false, work_mem);
	refresh->row = MakeSingleTupleTableSlot(rowtype, &TTSOpsVirtual);
	refresh->row_mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest refresh key",
											  ALLOCSET_SMALL_SIZES);
}

/*
 * A row that is rejected has its key here all the same: the source has it, and
 * what the target has of it stays.  What a rule drops is not wanted in the target.
 */
static void
keep_keys(IngestRefresh *refresh, const IngestAttempt *att)
{
	const IngestPrepared *prepared = refresh->run->prepared;
	const IngestBatch *batch = refresh->run->batch;
	MemoryContext oldcontext = MemoryContextSwitchTo(refresh->row_mcxt);
	int			n = refresh->desc->natts;
	Datum	   *values = refresh->row->tts_values;
	bool	   *isnull = refresh->row->tts_isnull;
	Datum	   *key = MemoryContextAlloc(oldcontext, sizeof(Datum) * n);
	bool	   *null = MemoryContextAlloc(oldcontext, sizeof(bool) * n);

	for (int m = att->first; m < att->settled; m++)
	{
		IngestRow	row = {.values = values, .isnull = isnull};

		if (bms_is_member(m, att->dropped))
			continue;
		memset(isnull, true, refresh->row->tts_tupleDescriptor->natts);
		prepared->rel->format->begin(prepared->format, batch->messages[m].payload,
									 batch->messages[m].payload_len);
		(void) prepared->rel->format->next(prepared->format, &row);
		for (int i = 0; i < n; i++)
		{
			key[i] = values[refresh->attnums[i] - 1];
			null[i] = isnull[refresh->attnums[i] - 1];
		}
		tuplestore_putvalues(refresh->keys, refresh->desc, key, null);
		refresh->nkeys++;
		MemoryContextReset(refresh->row_mcxt);
	}
	MemoryContextSwitchTo(oldcontext);
	pfree(key);
	pfree(null);
}

/* ---- the parts ---- */

IngestRefresh *
ingest_refresh_begin(IngestRun *run)
{
	IngestRefresh *refresh = palloc0(sizeof(IngestRefresh));
	const IngestPipeline *pl = run->prepared->pl;
	List	   *key;

	refresh->run = run;
	if (pl->transforms != NIL)
		refresh->accepted = tuplestore_begin_heap(false, false, work_mem);
	if (!ingest_pipeline_split_columns(pl->options.key, &key))
		elog(ERROR, "the key is no list of columns");
	if (key == NIL)
		refresh->before = ingest_load_delete_all(pl);
	else if (pl->options.on_delete != INGEST_DELETE_IGNORE)
	{
		refresh->before = ingest_load_count_rows(pl);
		open_keys(refresh, key);
	}
	ingest_run_release_batch(run);
	run->whole = true;
	run->source->in_turn = true;
	return refresh;
}

bool
ingest_refresh_fetch(IngestRefresh *refresh)
{
	IngestRun  *run = refresh->run;
	IngestError err = {0};
	int			gap_shard;

	if (run->batch->nmessages > 0 && run->done < run->batch->nmessages)
		return true;
	ingest_run_release_batch(run);
	while (!ingest_batch_full(run->batch))
	{
		IngestFetch fetched = run->source->ops->fetch(run->source, run->batch, &gap_shard, &err);

		CHECK_FOR_INTERRUPTS();
		if (fetched == INGEST_FETCH_ERROR)
			ingest_error_report(&err, ERROR);
		if (fetched != INGEST_FETCH_GOT)
			break;
	}
	return run->batch->nmessages > 0;
}

void
ingest_refresh_take(IngestRefresh *refresh, const IngestAttempt *att)
{
	if (refresh->keys)
		keep_keys(refresh, att);
	refresh->run->done = att->settled;
	if (refresh->accepted)
		ingest_attempt_append_rows(refresh->accepted, att->accepted, refresh->run->prepared->rowtype);
}

/* ---- the end ---- */

pg_noreturn static void
refuse(IngestRefresh *refresh, int64 before, int64 left)
{
	const IngestPipeline *pl = refresh->run->prepared->pl;

	refresh->run->refused = true;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("the source of pipeline \"%s\" has suspiciously few rows", pl->name),
			 errdetail("Of " INT64_FORMAT " rows of the target " INT64_FORMAT " would be left; refresh_floor is %g. Nothing was changed.",
					   before, left, pl->options.refresh_floor),
			 errhint("If that is right, ingest.start(%s, accept_fewer => true) accepts it once.",
					 quote_literal_cstr(pl->name))));
	pg_unreachable();
}

static void
check_floor(IngestRefresh *refresh, int64 before, int64 left)
{
	const IngestPipeline *pl = refresh->run->prepared->pl;

	if (left < pl->options.refresh_floor * before && !ingest_state_accepts_fewer(pl->id))
		refuse(refresh, before, left);
}

/* What the source has no more; raises when it is too much. */
static void
settle_missing(IngestRefresh *refresh, const IngestCounts *counts)
{
	const IngestPipeline *pl = refresh->run->prepared->pl;
	IngestMissing missing;

	if (refresh->keys)
	{
		ingest_load_delete_missing(pl, refresh->keys, refresh->desc, refresh->nkeys, &missing);
		check_floor(refresh, refresh->before, missing.rows - missing.missing);
		tuplestore_end(refresh->keys);
		ExecDropSingleTupleTableSlot(refresh->row);
	}
	else if (pl->options.key == NULL)
		check_floor(refresh, refresh->before, counts->written);
}

void
ingest_refresh_finish(IngestRefresh *refresh, IngestCounts *counts, int64 batch_id)
{
	const IngestPipeline *pl = refresh->run->prepared->pl;

	settle_missing(refresh, counts);
	ingest_load_check_deferred();
	ingest_state_accept_fewer(pl->id, false);
	ingest_dead_letter_supersede(pl->id, batch_id);
	if (refresh->accepted)
	{
		if (counts->written > 0)
			ingest_transforms_run(pl, refresh->accepted, refresh->run->prepared->rowtype);
		tuplestore_end(refresh->accepted);
	}
}
