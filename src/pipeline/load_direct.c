/*
 * load_direct.c
 *		The direct lane: rows go into their partition by table_multi_insert,
 *		as COPY does it.
 *
 * For targets without triggers, rules and row security (load.c decides).
 * Constraints are looked at before a row is taken, so that a row that breaks
 * one is an answer and not an error.  What remains to be raised is raised by
 * casts, defaults and indexes.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "pipeline/load.h"
#include "pipeline/load_columns.h"
#include "pipeline/load_route.h"
#include "pipeline/partition.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* Rows written by one call; more gain nothing. */
#define CHUNK 1000

/* Each pins a buffer. */
#define MAX_PINNED_LEAVES 32

typedef struct Leaf
{
	Oid			relid;
	Relation	rel;
	ResultRelInfo *info;
	TupleDesc	desc;			/* a copy: see make_slot() */
	TupleConversionMap *map;	/* from the root, or NULL */
	BulkInsertState bulk;
	TupleTableSlot **slots;
	int			nslots;			/* made */
	int			nrows;			/* waiting in the first slots */
	ExprState **checks;			/* CHECK constraints */
	bool		has_not_null;
	bool		has_generated;
	struct Leaf *next;
} Leaf;

typedef struct DirectLoad
{
	IngestLoad	base;
	const IngestPipeline *pl;
	TupleDesc	rowtype;
	MemoryContext mcxt;

	/* while the target is open */
	MemoryContext open_mcxt;
	EState	   *estate;
	ExprContext *values;		/* its memory lives until the flush */
	Relation	root;
	IngestRoute *route;			/* NULL: not partitioned */
	IngestLoadColumn *columns;
	ExprState **exprs;
	TupleTableSlot *slot;		/* of the root's row type */
	Leaf	   *leaves;
	Leaf	  **by_index;		/* of the route's partitions */
	int			nleaves;
	int64		pending;
} DirectLoad;

/*
 * ---- Opening and closing
 */

static ExprState **
prepare_checks(DirectLoad *load, Leaf *leaf)
{
	TupleConstr *constr = leaf->desc->constr;
	ExprState **checks;

	if (constr == NULL || constr->num_check == 0)
		return NULL;
	checks = palloc0(sizeof(ExprState *) * constr->num_check);
	for (int i = 0; i < constr->num_check; i++)
		if (ingest_compat_check_enforced(&constr->check[i]))
			checks[i] = ExecPrepareExpr(stringToNode(constr->check[i].ccbin), load->estate);
	return checks;
}

static Leaf *
open_leaf(DirectLoad *load, Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(load->open_mcxt);
	Leaf	   *leaf = palloc0(sizeof(Leaf));
	bool		is_root = relid == RelationGetRelid(load->root);

	leaf->relid = relid;
	leaf->rel = is_root ? load->root : table_open(relid, RowExclusiveLock);
	leaf->info = makeNode(ResultRelInfo);
	InitResultRelInfo(leaf->info, leaf->rel, 0, NULL, 0);
	CheckValidResultRel(leaf->info, CMD_INSERT);
	ExecOpenIndices(leaf->info, false);
	leaf->desc = CreateTupleDescCopyConstr(RelationGetDescr(leaf->rel));
	if (!is_root)
		leaf->map = convert_tuples_by_name(RelationGetDescr(load->root),
										   RelationGetDescr(leaf->rel));
	leaf->bulk = GetBulkInsertState();
	leaf->slots = palloc0(sizeof(TupleTableSlot *) * CHUNK);
	leaf->checks = prepare_checks(load, leaf);
	leaf->has_not_null = leaf->desc->constr && leaf->desc->constr->has_not_null;
	leaf->has_generated = leaf->desc->constr && leaf->desc->constr->has_generated_stored;
	leaf->next = load->leaves;
	load->leaves = leaf;
	load->nleaves++;
	MemoryContextSwitchTo(old);
	return leaf;
}

static void
open_target(DirectLoad *load)
{
	MemoryContext old;
	int			natts;

	load->open_mcxt = AllocSetContextCreate(load->mcxt, "ingest direct load", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(load->open_mcxt);
	load->root = table_open(load->pl->target, RowExclusiveLock);
	load->estate = CreateExecutorState();
	load->values = CreateExprContext(load->estate);
	load->columns = ingest_load_columns(load->root, load->rowtype);
	ingest_load_check_privilege(load->root, load->columns);

	natts = RelationGetDescr(load->root)->natts;
	load->exprs = palloc0(sizeof(ExprState *) * Max(natts, 1));
	for (int i = 0; i < natts; i++)
		if (load->columns[i].expr)
			load->exprs[i] = ExecInitExpr(load->columns[i].expr, NULL);
	load->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(load->root)),
										  &TTSOpsVirtual);
	load->leaves = NULL;
	load->nleaves = 0;
	load->pending = 0;
	load->route = NULL;
	if (load->root->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		load->route = ingest_route_open(load->root);
		load->by_index = palloc0(sizeof(Leaf *) * Max(ingest_route_count(load->route), 1));
	}
	MemoryContextSwitchTo(old);
}

static void
close_target(DirectLoad *load)
{
	for (Leaf *leaf = load->leaves; leaf; leaf = leaf->next)
	{
		FreeBulkInsertState(leaf->bulk);
		ExecCloseIndices(leaf->info);
		for (int i = 0; i < leaf->nslots; i++)
			ExecDropSingleTupleTableSlot(leaf->slots[i]);
		if (leaf->rel != load->root)
			table_close(leaf->rel, NoLock);
	}
	ExecDropSingleTupleTableSlot(load->slot);
	FreeExecutorState(load->estate);
	table_close(load->root, NoLock);
	MemoryContextDelete(load->open_mcxt);
}

static IngestLoad *
direct_begin(const IngestPipeline *pl, TupleDesc rowtype)
{
	DirectLoad *load = palloc0(sizeof(DirectLoad));

	load->base.ops = &ingest_load_direct;
	load->pl = pl;
	load->rowtype = rowtype;
	load->mcxt = CurrentMemoryContext;
	open_target(load);
	return &load->base;
}

static void
direct_end(IngestLoad *base)
{
	close_target((DirectLoad *) base);
	pfree(base);
}

/*
 * ---- Writing
 */

/*
 * A slot of the leaf's kind.  On the copied descriptor: one on the relation's
 * own would be entered into the resource owner, which is slow for thousands.
 */
static TupleTableSlot *
next_slot(DirectLoad *load, Leaf *leaf)
{
	if (leaf->nrows == leaf->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(load->open_mcxt);

		leaf->slots[leaf->nslots++] = MakeSingleTupleTableSlot(leaf->desc,
															   table_slot_callbacks(leaf->rel));
		MemoryContextSwitchTo(old);
	}
	return leaf->slots[leaf->nrows];
}

static void
flush_leaf(DirectLoad *load, Leaf *leaf)
{
	if (leaf->nrows == 0)
		return;
	table_multi_insert(leaf->rel, leaf->slots, leaf->nrows, GetCurrentCommandId(true), 0,
					   leaf->bulk);
	for (int i = 0; i < leaf->nrows; i++)
	{
		if (leaf->info->ri_NumIndices > 0)
		{
			leaf->slots[i]->tts_tableOid = leaf->relid;
			list_free(ingest_compat_insert_index_tuples(leaf->info, leaf->slots[i], load->estate));
			ResetPerTupleExprContext(load->estate);
		}
		ExecClearTuple(leaf->slots[i]);
	}
	load->pending -= leaf->nrows;
	leaf->nrows = 0;
	if (load->nleaves > MAX_PINNED_LEAVES)
		ReleaseBulkInsertStatePin(leaf->bulk);
}

static void
direct_flush(IngestLoad *base, bool last)
{
	DirectLoad *load = (DirectLoad *) base;

	for (Leaf *leaf = load->leaves; leaf; leaf = leaf->next)
		flush_leaf(load, leaf);
	ResetExprContext(load->values);
}

static int64
direct_pending(const IngestLoad *base)
{
	return ((const DirectLoad *) base)->pending;
}

/*
 * ---- Taking a row
 */

/* The source's row as a row of the target, shallow. */
static void
map_row(DirectLoad *load, TupleTableSlot *from)
{
	TupleTableSlot *to = load->slot;
	int			natts = to->tts_tupleDescriptor->natts;

	ExecClearTuple(to);
	load->values->ecxt_scantuple = from;
	for (int i = 0; i < natts; i++)
	{
		AttrNumber	source = load->columns[i].source;

		if (source > 0)
		{
			to->tts_values[i] = from->tts_values[source - 1];
			to->tts_isnull[i] = from->tts_isnull[source - 1];
		}
		else if (load->exprs[i])
			to->tts_values[i] = ExecEvalExprSwitchContext(load->exprs[i], load->values,
														  &to->tts_isnull[i]);
		else
		{
			to->tts_values[i] = (Datum) 0;
			to->tts_isnull[i] = true;
		}
	}
	ExecStoreVirtualTuple(to);
}

static void
set_no_partition(DirectLoad *load, IngestLoadError *err)
{
	memset(err, 0, sizeof(*err));
	err->sqlstate = ERRCODE_CHECK_VIOLATION;
	err->message = psprintf("no partition of relation \"%s\" found for row",
							RelationGetRelationName(load->root));
}

/* Make the missing partition, which the target must be closed for. */
static bool
add_partition(DirectLoad *load, TupleTableSlot *from, IngestLoadError *err)
{
	AttrNumber	column = ingest_route_range_column(load->route);
	Datum		lower;
	Datum		upper;

	if (column == InvalidAttrNumber ||
		!ingest_partition_wanted(load->root, load->slot->tts_values[column - 1],
								 load->slot->tts_isnull[column - 1], &lower, &upper, err))
	{
		if (column == InvalidAttrNumber || err->message == NULL)
			set_no_partition(load, err);
		return false;
	}
	direct_flush(&load->base, false);
	close_target(load);
	ingest_partition_create(load->pl->target, lower, upper);
	CommandCounterIncrement();
	open_target(load);
	map_row(load, from);
	return true;
}

static Leaf *
find_leaf(DirectLoad *load, TupleTableSlot *from, IngestLoadError *err)
{
	Oid			relid = InvalidOid;
	int			index;

	if (load->route == NULL)
		return load->leaves ? load->leaves : open_leaf(load, RelationGetRelid(load->root));

	index = ingest_route_find(load->route, load->slot->tts_values, load->slot->tts_isnull, &relid);
	if (index < 0)
	{
		if (!add_partition(load, from, err))
			return NULL;
		index = ingest_route_find(load->route, load->slot->tts_values, load->slot->tts_isnull,
								  &relid);
		if (index < 0)
		{
			set_no_partition(load, err);
			return NULL;
		}
	}
	if (load->by_index[index] == NULL)
		load->by_index[index] = open_leaf(load, relid);
	return load->by_index[index];
}

static bool
check_not_null(DirectLoad *load, const Leaf *leaf, const TupleTableSlot *slot,
			   IngestLoadError *err)
{
	for (int i = 0; i < leaf->desc->natts; i++)
		if (slot->tts_isnull[i] && TupleDescAttr(leaf->desc, i)->attnotnull)
		{
			memset(err, 0, sizeof(*err));
			err->sqlstate = ERRCODE_NOT_NULL_VIOLATION;
			err->column = pstrdup(NameStr(TupleDescAttr(leaf->desc, i)->attname));
			err->message = psprintf("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
									err->column, RelationGetRelationName(leaf->rel));
			return false;
		}
	return true;
}

static bool
check_constraints(DirectLoad *load, Leaf *leaf, TupleTableSlot *slot, IngestLoadError *err)
{
	ExprContext *econtext;

	if (leaf->has_not_null && !check_not_null(load, leaf, slot, err))
		return false;
	if (leaf->checks)
	{
		econtext = GetPerTupleExprContext(load->estate);
		econtext->ecxt_scantuple = slot;
		for (int i = 0; i < leaf->desc->constr->num_check; i++)
			if (leaf->checks[i] && !ExecCheck(leaf->checks[i], econtext))
			{
				memset(err, 0, sizeof(*err));
				err->sqlstate = ERRCODE_CHECK_VIOLATION;
				err->message = psprintf("new row for relation \"%s\" violates check constraint \"%s\"",
										RelationGetRelationName(leaf->rel),
										leaf->desc->constr->check[i].ccname);
				ResetPerTupleExprContext(load->estate);
				return false;
			}
		ResetPerTupleExprContext(load->estate);
	}
	/* The target may be somebody's partition itself. */
	if (load->route == NULL && leaf->rel->rd_rel->relispartition &&
		!ExecPartitionCheck(leaf->info, slot, load->estate, false))
	{
		memset(err, 0, sizeof(*err));
		err->sqlstate = ERRCODE_CHECK_VIOLATION;
		err->message = psprintf("new row for relation \"%s\" violates partition constraint",
								RelationGetRelationName(leaf->rel));
		return false;
	}
	return true;
}

static bool
direct_put(IngestLoad *base, TupleTableSlot *from, IngestLoadError *err)
{
	DirectLoad *load = (DirectLoad *) base;
	TupleTableSlot *slot;
	Leaf	   *leaf;

	map_row(load, from);
	leaf = find_leaf(load, from, err);
	if (leaf == NULL)
		return false;

	slot = next_slot(load, leaf);
	ExecClearTuple(slot);
	if (leaf->map)
		execute_attr_map_slot(leaf->map->attrMap, load->slot, slot);
	else
	{
		memcpy(slot->tts_values, load->slot->tts_values, sizeof(Datum) * leaf->desc->natts);
		memcpy(slot->tts_isnull, load->slot->tts_isnull, sizeof(bool) * leaf->desc->natts);
		ExecStoreVirtualTuple(slot);
	}
	if (leaf->has_generated)
	{
		ExecComputeStoredGenerated(leaf->info, load->estate, slot, CMD_INSERT);
		ResetPerTupleExprContext(load->estate);
	}
	if (!check_constraints(load, leaf, slot, err))
	{
		ExecClearTuple(slot);
		return false;
	}
	leaf->nrows++;
	load->pending++;
	if (leaf->nrows == CHUNK)
		flush_leaf(load, leaf);
	return true;
}

const IngestLoadOps ingest_load_direct = {
	.name = "direct",
	.begin = direct_begin,
	.put = direct_put,
	.flush = direct_flush,
	.pending = direct_pending,
	.end = direct_end,
};
