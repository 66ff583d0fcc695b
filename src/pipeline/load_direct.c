/*
 * load_direct.c
 *		The direct lane: rows go into their partition by table_multi_insert,
 *		as COPY does it.
 *
 * For targets without triggers, rules and row security (load.c decides).
 * Constraints are looked at before a row is taken (load_checks.c), so that a
 * row that breaks one is an answer and not an error; duplicates of keys only
 * when there have been some (load_unique.c).  What remains to be raised is
 * raised by casts, defaults and indexes.
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
#include "pipeline/load.h"
#include "pipeline/load_checks.h"
#include "pipeline/load_columns.h"
#include "pipeline/load_fitness.h"
#include "pipeline/load_route.h"
#include "pipeline/load_unique.h"
#include "pipeline/partition.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* Rows written by one call; more gain nothing. */
#define CHUNK 1000

/*
 * Beyond these, partitions that got no row lately are closed, and those that
 * are opened keep no buffer pinned.
 */
#define MAX_OPEN_LEAVES 1000
#define MAX_SLOTS (16 * CHUNK)
#define MAX_PINNED_LEAVES 64

/* A partition, or the target itself. */
typedef struct Leaf
{
	MemoryContext mcxt;
	int			index;			/* in the route */
	Relation	rel;
	ResultRelInfo *info;
	TupleDesc	desc;			/* a copy: see next_slot() */
	TupleConversionMap *map;	/* from the root, or NULL */
	BulkInsertState bulk;		/* or NULL */
	TupleTableSlot **slots;
	int			max_slots;
	int			nslots;			/* made */
	int			nrows;			/* waiting in the first slots */
	IngestLoadChecks *checks;	/* or NULL */
	bool		has_generated;
	bool		idle;			/* no row since the last flush */
	struct Leaf *next;
} Leaf;

typedef struct DirectLoad
{
	IngestLoad	base;
	const IngestPipeline *pl;
	TupleDesc	rowtype;
	MemoryContext mcxt;
	bool		careful;		/* look for duplicates first */
	bool		asked_policy;
	IngestPartitionPolicy *policy;	/* NULL: not managed */

	/* while the target is open */
	MemoryContext open_mcxt;
	EState	   *estate;
	ExprContext *values;		/* its memory lives until the flush */
	Relation	root;
	bool		check_partition;	/* the target is somebody's partition itself */
	IngestRoute *route;			/* NULL: not partitioned */
	IngestLoadColumn *columns;
	ExprState **exprs;
	TupleTableSlot *slot;		/* of the root's row type */
	Leaf	   *leaves;
	Leaf	  **by_index;		/* of the route's partitions */
	int			nleaves;
	int			nslots;			/* of all of them */
	int64		pending;
} DirectLoad;

/* ---- opening and closing ---- */

/* It was fit when the lane was chosen, but it was not locked then. */
static void
check_fitness(DirectLoad *load, Relation rel)
{
	const char *obstacle = rel == load->root ?
		ingest_load_target_obstacle(rel, GetUserId()) : ingest_load_partition_obstacle(rel);

	if (obstacle)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("\"%s\" has changed while it was loaded", RelationGetRelationName(rel)),
				 errdetail("The direct lane cannot go on because %s.", obstacle),
				 errhint("The next attempt takes the lane that fits.")));
}

static Leaf *
open_leaf(DirectLoad *load, Oid relid, int index)
{
	MemoryContext mcxt = AllocSetContextCreate(load->open_mcxt, "ingest direct load partition",
											   ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	Leaf	   *leaf = palloc0(sizeof(Leaf));
	bool		is_root = relid == RelationGetRelid(load->root);

	leaf->mcxt = mcxt;
	leaf->index = index;
	leaf->rel = is_root ? load->root : table_open(relid, RowExclusiveLock);
	if (!is_root)
		check_fitness(load, leaf->rel);
	leaf->info = makeNode(ResultRelInfo);
	InitResultRelInfo(leaf->info, leaf->rel, 0, NULL, 0);
	ExecOpenIndices(leaf->info, load->careful);
	leaf->desc = CreateTupleDescCopyConstr(RelationGetDescr(leaf->rel));
	if (!is_root)
		leaf->map = convert_tuples_by_name(RelationGetDescr(load->root),
										   RelationGetDescr(leaf->rel));
	if (load->nleaves < MAX_PINNED_LEAVES)
		leaf->bulk = GetBulkInsertState();
	leaf->max_slots = 16;
	leaf->slots = palloc(sizeof(TupleTableSlot *) * leaf->max_slots);
	leaf->checks = ingest_load_checks_open(leaf->rel, load->root, NULL);
	leaf->has_generated = leaf->desc->constr && leaf->desc->constr->has_generated_stored;
	leaf->next = load->leaves;
	load->leaves = leaf;
	load->nleaves++;
	MemoryContextSwitchTo(old);
	return leaf;
}

static void
close_leaf(DirectLoad *load, Leaf *leaf)
{
	if (leaf->bulk)
		FreeBulkInsertState(leaf->bulk);
	ExecCloseIndices(leaf->info);
	for (int i = 0; i < leaf->nslots; i++)
		ExecDropSingleTupleTableSlot(leaf->slots[i]);
	if (leaf->rel != load->root)
		table_close(leaf->rel, NoLock);
	if (load->by_index)
		load->by_index[leaf->index] = NULL;
	load->nleaves--;
	load->nslots -= leaf->nslots;
	MemoryContextDelete(leaf->mcxt);
}

static void
open_target(DirectLoad *load)
{
	MemoryContext old;
	int			natts;

	load->open_mcxt = AllocSetContextCreate(load->mcxt, "ingest direct load", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(load->open_mcxt);
	load->root = table_open(load->pl->target, RowExclusiveLock);
	check_fitness(load, load->root);
	load->check_partition = load->root->rd_rel->relispartition;
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
	load->nslots = 0;
	load->pending = 0;
	load->route = NULL;
	load->by_index = NULL;
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
	while (load->leaves)
	{
		Leaf	   *leaf = load->leaves;

		load->leaves = leaf->next;
		close_leaf(load, leaf);
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

	PreventCommandIfReadOnly("INSERT");
	load->base.ops = &ingest_load_direct;
	load->pl = pl;
	load->rowtype = rowtype;
	load->mcxt = CurrentMemoryContext;
	load->careful = ingest_load_unique_careful(pl->target);
	open_target(load);
	return &load->base;
}

static void
direct_end(IngestLoad *base)
{
	close_target((DirectLoad *) base);
	pfree(base);
}

/* ---- writing ---- */

/*
 * A slot of the leaf's kind.  On the copied descriptor: one on the relation's
 * own would be entered into the resource owner, which is slow for thousands.
 */
static void
add_slot(DirectLoad *load, Leaf *leaf)
{
	MemoryContext old = MemoryContextSwitchTo(leaf->mcxt);

	if (leaf->nslots == leaf->max_slots)
	{
		leaf->max_slots *= 2;
		leaf->slots = repalloc(leaf->slots, sizeof(TupleTableSlot *) * leaf->max_slots);
	}
	leaf->slots[leaf->nslots++] = MakeSingleTupleTableSlot(leaf->desc,
														   table_slot_callbacks(leaf->rel));
	load->nslots++;
	MemoryContextSwitchTo(old);
}

static inline TupleTableSlot *
next_slot(DirectLoad *load, Leaf *leaf)
{
	if (leaf->nrows == leaf->nslots)
		add_slot(load, leaf);
	return leaf->slots[leaf->nrows];
}

static void
write_rows(DirectLoad *load, Leaf *leaf)
{
	table_multi_insert(leaf->rel, leaf->slots, leaf->nrows, GetCurrentCommandId(true), 0,
					   leaf->bulk);
	if (leaf->info->ri_NumIndices == 0)
		return;
	for (int i = 0; i < leaf->nrows; i++)
	{
		leaf->slots[i]->tts_tableOid = RelationGetRelid(leaf->rel);
		list_free(ingest_compat_insert_index_tuples(leaf->info, leaf->slots[i], load->estate));
		ResetPerTupleExprContext(load->estate);
	}
}

static void
flush_leaf(DirectLoad *load, Leaf *leaf)
{
	PG_TRY();
	{
		write_rows(load, leaf);
	}
	PG_CATCH();
	{
		ingest_load_unique_raised(load->pl->target, geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();

	for (int i = 0; i < leaf->nrows; i++)
		ExecClearTuple(leaf->slots[i]);
	load->pending -= leaf->nrows;
	leaf->nrows = 0;
	leaf->idle = false;
}

static void
close_idle_leaves(DirectLoad *load)
{
	Leaf	  **link = &load->leaves;

	while (*link)
	{
		Leaf	   *leaf = *link;

		if (leaf->idle)
		{
			*link = leaf->next;
			close_leaf(load, leaf);
		}
		else
		{
			leaf->idle = true;
			link = &leaf->next;
		}
	}
}

static void
direct_flush(IngestLoad *base, bool last)
{
	DirectLoad *load = (DirectLoad *) base;

	for (Leaf *leaf = load->leaves; leaf; leaf = leaf->next)
		if (leaf->nrows > 0)
			flush_leaf(load, leaf);
	if ((load->nleaves > MAX_OPEN_LEAVES || load->nslots > MAX_SLOTS) && !last)
		close_idle_leaves(load);
	ResetExprContext(load->values);
}

static int64
direct_pending(const IngestLoad *base)
{
	return ((const DirectLoad *) base)->pending;
}

/* ---- finding the partition ---- */

/* The source's row as a row of the target, shallow. */
static void
map_row(DirectLoad *load, TupleTableSlot *from)
{
	ingest_load_map_row(load->columns, load->exprs, load->values, from, load->slot);
}

/* Make the missing partition, for which the target must be closed. */
static bool
add_partition(DirectLoad *load, IngestLoadError *err)
{
	AttrNumber	column = ingest_route_range_column(load->route);
	Datum		key;

	if (!load->asked_policy)
	{
		MemoryContext old = MemoryContextSwitchTo(load->mcxt);

		load->policy = ingest_partition_policy(load->root);
		load->asked_policy = true;
		MemoryContextSwitchTo(old);
	}
	if (load->policy == NULL)
	{
		memset(err, 0, sizeof(*err));
		err->sqlstate = ERRCODE_CHECK_VIOLATION;
		err->message = psprintf("no partition of relation \"%s\" found for row",
								RelationGetRelationName(load->root));
		return false;
	}
	if (!ingest_partition_accepts(load->policy, load->slot->tts_values[column - 1],
								  load->slot->tts_isnull[column - 1], err))
		return false;

	key = load->slot->tts_values[column - 1];
	direct_flush(&load->base, false);
	close_target(load);
	ingest_partition_create(load->policy, key);
	open_target(load);
	return true;
}

/* NULL: *err */
static Leaf *
find_leaf(DirectLoad *load, TupleTableSlot *from, IngestLoadError *err)
{
	TupleTableSlot *slot = load->slot;
	Oid			relid = InvalidOid;
	int			index;

	if (load->route == NULL)
		return load->leaves ? load->leaves : open_leaf(load, RelationGetRelid(load->root), 0);

	/* Once more after a partition was made; a volatile default may need another then. */
	while ((index = ingest_route_find(load->route, slot->tts_values, slot->tts_isnull, &relid)) < 0)
	{
		if (!add_partition(load, err))
			return NULL;
		map_row(load, from);
		slot = load->slot;
	}
	if (load->by_index[index] == NULL)
		load->by_index[index] = open_leaf(load, relid, index);
	return load->by_index[index];
}

/* ---- taking a row ---- */

static TupleTableSlot *
fill_slot(DirectLoad *load, Leaf *leaf)
{
	TupleTableSlot *slot = next_slot(load, leaf);

	ExecClearTuple(slot);
	if (leaf->map)
		execute_attr_map_slot(leaf->map->attrMap, load->slot, slot);
	else
	{
		memcpy(slot->tts_values, load->slot->tts_values, sizeof(Datum) * leaf->desc->natts);
		memcpy(slot->tts_isnull, load->slot->tts_isnull, sizeof(bool) * leaf->desc->natts);
		ExecStoreVirtualTuple(slot);
	}
	slot->tts_tableOid = RelationGetRelid(leaf->rel);
	if (leaf->has_generated)
	{
		ExecComputeStoredGenerated(leaf->info, load->estate, slot, CMD_INSERT);
		ResetPerTupleExprContext(load->estate);
	}
	return slot;
}

static bool
passes_partition_constraint(DirectLoad *load, Leaf *leaf, TupleTableSlot *slot, IngestLoadError *err)
{
	bool		pass = ExecPartitionCheck(leaf->info, slot, load->estate, false);

	ResetPerTupleExprContext(load->estate);
	if (!pass)
	{
		memset(err, 0, sizeof(*err));
		err->sqlstate = ERRCODE_CHECK_VIOLATION;
		err->message = psprintf("new row for relation \"%s\" violates partition constraint",
								RelationGetRelationName(load->root));
	}
	return pass;
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
	slot = fill_slot(load, leaf);
	if ((leaf->checks && !ingest_load_checks_pass(leaf->checks, slot, load->estate, err)) ||
		(load->check_partition && !passes_partition_constraint(load, leaf, slot, err)) ||
		(load->careful && !ingest_load_unique_pass(load->pl->target, leaf->info, slot,
												   load->estate, err)))
	{
		ExecClearTuple(slot);
		return false;
	}

	leaf->nrows++;
	load->pending++;
	/* The next row must find this one when it looks for duplicates. */
	if (leaf->nrows == CHUNK || (load->careful && leaf->info->ri_NumIndices > 0))
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
