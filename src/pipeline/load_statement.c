/*
 * load_statement.c
 *		The statement lane: INSERT INTO target (...) SELECT ... FROM batch.
 *
 * Rows are cast to the target's types and collected in a tuplestore that the
 * statement sees as the relation "batch", so that triggers, row security,
 * views, foreign tables and whatever else the executor knows come from the
 * executor.  What can be known of a row by itself is an answer, as in the
 * direct lane: its partition, NOT NULL and CHECK constraints.  Everything else
 * is raised, and the caller finds the row.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "pipeline/load.h"
#include "pipeline/load_checks.h"
#include "pipeline/load_columns.h"
#include "pipeline/load_fitness.h"
#include "pipeline/load_route.h"
#include "pipeline/load_upsert.h"
#include "pipeline/partition.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

typedef struct StatementLoad
{
	IngestLoad	base;
	const IngestPipeline *pl;
	MemoryContext mcxt;
	EState	   *estate;
	ExprContext *values;		/* of one row */
	IngestLoadColumn *columns;
	ExprState **exprs;			/* by column of the target; NULL: not wanted */
	bool	   *known;			/* by column: the row says what it gets */
	TupleTableSlot *row;		/* a row of the target, as far as it is known */
	IngestLoadChecks *checks;	/* or NULL */

	/* the batch: the columns of the target that are named in the statement */
	char	   *sql;
	TupleDesc	batch_desc;
	AttrNumber *batch_columns;
	Datum	   *batch_values;
	bool	   *batch_isnull;
	Tuplestorestate *rows;
	int64		pending;
	IngestLoadKey *key;			/* rows are written by it; NULL: they are added */

	/* a partitioned target whose key is known: its partitions are made, or the row refused */
	bool		routed;
	Relation	root;			/* while it is open */
	IngestRoute *route;
	IngestPartitionPolicy *policy;	/* NULL: not managed */
} StatementLoad;

/* ---- the statement ---- */

/* The last one, with the row type it was prepared for; one pipeline a process is the rule. */
static struct
{
	MemoryContext mcxt;
	char	   *sql;
	TupleDesc	desc;
	SPIPlanPtr	plan;
}			prepared;

static SPIPlanPtr
prepare_statement(const StatementLoad *load)
{
	MemoryContext old;
	SPIPlanPtr	plan;

	if (prepared.plan && strcmp(prepared.sql, load->sql) == 0 &&
		equalTupleDescs(prepared.desc, load->batch_desc))
		return prepared.plan;

	if (prepared.plan)
	{
		SPI_freeplan(prepared.plan);
		prepared.plan = NULL;
	}
	plan = SPI_prepare(load->sql, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed for \"%s\": %s", load->sql, SPI_result_code_string(SPI_result));
	if (prepared.mcxt == NULL)
		prepared.mcxt = AllocSetContextCreate(TopMemoryContext, "ingest load statement",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(prepared.mcxt);
	old = MemoryContextSwitchTo(prepared.mcxt);
	prepared.sql = pstrdup(load->sql);
	prepared.desc = CreateTupleDescCopy(load->batch_desc);
	MemoryContextSwitchTo(old);
	SPI_keepplan(plan);
	return prepared.plan = plan;
}

/*
 * A row that a policy refuses is at fault as one that a view's check option
 * refuses; the executor's SQLSTATE would say that privileges are missing.
 */
static int
execute_statement(SPIPlanPtr plan)
{
	MemoryContext mcxt = CurrentMemoryContext;
	volatile int rc = 0;

	PG_TRY();
	{
		rc = SPI_execute_plan(plan, NULL, NULL, false, 0);
		if (rc != SPI_OK_INSERT && rc != SPI_OK_REWRITTEN)
			elog(ERROR, "the load failed: %s", SPI_result_code_string(rc));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(mcxt);
		error = CopyErrorData();
		FlushErrorState();
		if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE && error->message_id &&
			strncmp(error->message_id, "new row violates row-level security policy", 42) == 0)
			error->sqlerrcode = ERRCODE_WITH_CHECK_OPTION_VIOLATION;
		ReThrowError(error);
	}
	PG_END_TRY();
	return rc;
}

static void
register_batch(const StatementLoad *load)
{
	EphemeralNamedRelation batch = palloc0(sizeof(EphemeralNamedRelationData));

	batch->md.name = "batch";
	batch->md.tupdesc = load->batch_desc;
	batch->md.enrtype = ENR_NAMED_TUPLESTORE;
	batch->md.enrtuples = load->pending;
	batch->reldata = load->rows;
	if (SPI_register_relation(batch) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the batch");
}

/* ---- opening ---- */

/* The columns that come from the source, as the relation "batch" and as a statement. */
static void
describe_batch(StatementLoad *load, Relation target)
{
	TupleDesc	desc = RelationGetDescr(target);
	StringInfoData names;
	int			n = 0;

	load->batch_columns = palloc(sizeof(AttrNumber) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
		if (load->columns[i].mapped)
			load->batch_columns[n++] = i + 1;
	load->batch_desc = CreateTemplateTupleDesc(n);
	load->batch_values = palloc(sizeof(Datum) * Max(n, 1));
	load->batch_isnull = palloc(sizeof(bool) * Max(n, 1));

	initStringInfo(&names);
	for (int i = 0; i < n; i++)
	{
		TupleDescCopyEntry(load->batch_desc, i + 1, desc, load->batch_columns[i]);
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(load->batch_desc, i)->attname)));
	}
	if (load->key)
	{
		load->sql = ingest_load_key_statement(load->pl, target, load->key, load->batch_columns, n);
		return;
	}
	load->sql = psprintf("INSERT INTO %s (%s) SELECT %s FROM batch",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
													RelationGetRelationName(target)),
						 names.data, names.data);
}

/* A row trigger of the target or a partition may still change what a row says. */
static bool
may_change_rows(Relation target)
{
	PartitionDesc desc;

	if (target->rd_rel->relkind != RELKIND_RELATION &&
		target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return true;
	if (target->rd_rules != NULL || ingest_load_has_before_triggers(target))
		return true;
	if (target->rd_rel->relkind == RELKIND_RELATION)
		return false;
	desc = RelationGetPartitionDesc(target, true);
	for (int i = 0; i < desc->nparts; i++)
	{
		Relation	partition = try_table_open(desc->oids[i], AccessShareLock);
		bool		may = partition &&
			(partition->rd_rel->relkind != RELKIND_RELATION ||
			 ingest_load_has_before_triggers(partition));

		if (partition)
			table_close(partition, AccessShareLock);
		if (may)
			return true;
	}
	return false;
}

static void
open_route(StatementLoad *load)
{
	load->root = table_open(load->pl->target, RowExclusiveLock);
	load->route = ingest_route_open(load->root);
}

static void
close_route(StatementLoad *load)
{
	if (load->root == NULL)
		return;
	pfree(load->route);
	table_close(load->root, NoLock);
	load->root = NULL;
}

/*
 * Of a managed target, the default of the key is known too, for the present:
 * it says which partition there has to be.  No rule may change the row before.
 */
static void
prepare_route(StatementLoad *load, Relation target)
{
	AttrNumber	key;

	if (target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE || target->rd_rules != NULL ||
		!ingest_route_possible(target))
		return;
	load->policy = ingest_partition_policy(target);
	open_route(load);
	key = ingest_route_range_column(load->route);
	if (load->policy && load->columns[key - 1].expr && !load->columns[key - 1].mapped)
		load->exprs[key - 1] = ExecInitExpr(load->columns[key - 1].expr, NULL);
	load->routed = (load->policy && load->exprs[key - 1]) ||
		ingest_route_known(load->route, load->known);
	if (!load->routed)
		close_route(load);
}

static void
prepare_expressions(StatementLoad *load, Relation target)
{
	int			natts = RelationGetDescr(target)->natts;

	load->estate = CreateExecutorState();
	load->values = CreateExprContext(load->estate);
	load->exprs = palloc0(sizeof(ExprState *) * Max(natts, 1));
	load->known = palloc0(sizeof(bool) * Max(natts, 1));
	for (int i = 0; i < natts; i++)
	{
		load->known[i] = load->columns[i].mapped;
		if (load->known[i] && load->columns[i].expr)
			load->exprs[i] = ExecInitExpr(load->columns[i].expr, NULL);
	}
	load->row = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(target)),
										 &TTSOpsVirtual);
	if (!may_change_rows(target))
		load->checks = ingest_load_checks_open(target, target, load->known);
}

static IngestLoad *
statement_begin(const IngestPipeline *pl, TupleDesc rowtype)
{
	StatementLoad *load = palloc0(sizeof(StatementLoad));
	Relation	target = table_open(pl->target, RowExclusiveLock);

	load->base.ops = &ingest_load_statement;
	load->pl = pl;
	load->mcxt = CurrentMemoryContext;
	load->columns = ingest_load_columns(target, rowtype);
	ingest_load_check_privilege(target, load->columns);
	if (ingest_load_by_key(pl))
		load->key = ingest_load_key_open(pl, target);
	describe_batch(load, target);
	prepare_expressions(load, target);
	prepare_route(load, target);
	load->rows = tuplestore_begin_heap(false, false, work_mem);
	table_close(target, NoLock);
	return &load->base;
}

/* ---- taking a row ---- */

/* The source's row as one of the target, as far as it is known. */
static void
map_row(StatementLoad *load, TupleTableSlot *from)
{
	ResetExprContext(load->values);
	ingest_load_map_row(load->columns, load->exprs, load->values, from, load->row);
}

/* There is a partition for the row, or it is made now. */
static bool
provide_partition(StatementLoad *load, IngestLoadError *err)
{
	TupleTableSlot *row = load->row;
	AttrNumber	key;
	MemoryContext old;
	Oid			leaf;

	if (ingest_route_find(load->route, row->tts_values, row->tts_isnull, &leaf) >= 0)
		return true;
	if (load->policy == NULL)
	{
		memset(err, 0, sizeof(*err));
		err->sqlstate = ERRCODE_CHECK_VIOLATION;
		err->message = psprintf("no partition of relation \"%s\" found for row",
								RelationGetRelationName(load->root));
		return false;
	}
	key = ingest_route_range_column(load->route);
	if (!ingest_partition_accepts(load->policy, row->tts_values[key - 1],
								  row->tts_isnull[key - 1], err))
		return false;
	old = MemoryContextSwitchTo(load->mcxt);
	close_route(load);
	ingest_partition_create(load->policy, row->tts_values[key - 1]);
	open_route(load);
	MemoryContextSwitchTo(old);
	return true;
}

static bool
statement_put(IngestLoad *base, TupleTableSlot *slot, IngestLoadError *err)
{
	StatementLoad *load = (StatementLoad *) base;

	map_row(load, slot);
	if (load->key && !ingest_load_key_given(load->key, load->row->tts_isnull, err))
		return false;
	if (load->routed && !provide_partition(load, err))
		return false;
	if (load->checks && !ingest_load_checks_pass(load->checks, load->row, load->estate, err))
		return false;

	for (int i = 0; i < load->batch_desc->natts; i++)
	{
		load->batch_values[i] = load->row->tts_values[load->batch_columns[i] - 1];
		load->batch_isnull[i] = load->row->tts_isnull[load->batch_columns[i] - 1];
	}
	tuplestore_putvalues(load->rows, load->batch_desc, load->batch_values, load->batch_isnull);
	load->pending++;
	if (load->key)
		ingest_load_key_note(load->key, load->row->tts_values);
	return true;
}

/* ---- writing ---- */

/* Of rows with the same key the last one is left. */
static void
drop_replaced(StatementLoad *load)
{
	int64		replaced = ingest_load_key_count_replaced(load->key);
	TupleTableSlot *slot;
	MemoryContext old;
	Tuplestorestate *rows;

	if (replaced == 0)
		return;
	old = MemoryContextSwitchTo(load->mcxt);
	rows = tuplestore_begin_heap(false, false, work_mem);
	slot = MakeSingleTupleTableSlot(load->batch_desc, &TTSOpsMinimalTuple);
	for (int64 i = 0; tuplestore_gettupleslot(load->rows, true, false, slot); i++)
		if (!ingest_load_key_is_replaced(load->key, i))
			tuplestore_puttupleslot(rows, slot);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(load->rows);
	load->rows = rows;
	load->pending -= replaced;
	load->base.merged += replaced;
	MemoryContextSwitchTo(old);
}

/*
 * Rows are copied as they are put, so there is nothing to do before the end;
 * one statement for all of them is what the executor does best.
 */
static void
statement_flush(IngestLoad *base, bool last)
{
	StatementLoad *load = (StatementLoad *) base;

	if (!last || load->pending == 0)
		return;
	close_route(load);
	if (load->key)
		drop_replaced(load);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	register_batch(load);
	/* When a rule does something else instead, what becomes of the rows is not known. */
	if (execute_statement(prepare_statement(load)) == SPI_OK_INSERT)
		load->base.discarded += load->pending - (int64) SPI_processed;
	SPI_finish();
	/* What is deferred is the batch's fault too, while it can still be undone. */
	if (load->pl->options.mode != INGEST_MODE_REPLACE)
		ingest_load_check_deferred();
	tuplestore_clear(load->rows);
	load->pending = 0;
	if (load->key)
		ingest_load_key_reset(load->key);
}

static int64
statement_pending(const IngestLoad *base)
{
	return ((const StatementLoad *) base)->pending;
}

static void
statement_end(IngestLoad *base)
{
	StatementLoad *load = (StatementLoad *) base;

	close_route(load);
	tuplestore_end(load->rows);
	ExecDropSingleTupleTableSlot(load->row);
	FreeExecutorState(load->estate);
	pfree(load);
}

const IngestLoadOps ingest_load_statement = {
	.name = "statement",
	.begin = statement_begin,
	.put = statement_put,
	.flush = statement_flush,
	.pending = statement_pending,
	.end = statement_end,
};
