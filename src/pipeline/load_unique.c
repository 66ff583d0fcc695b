/*
 * load_unique.c
 *		Looking for duplicates of unique keys before a row is written.
 *
 * Somebody else may still be faster between the look and the insertion; then
 * the index raises its error as always.  Exclusion constraints are left to it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/index.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "pipeline/load_unique.h"
#include "utils/rel.h"

/* So many loads without a duplicate end it. */
#define CAREFUL_LOADS 64

/* One pipeline a process is the rule, so one target is remembered. */
static struct
{
	Oid			target;
	int			left;
}			careful;

bool
ingest_load_unique_careful(Oid target)
{
	if (careful.left == 0 || careful.target != target)
		return false;
	careful.left--;
	return true;
}

void
ingest_load_unique_raised(Oid target, int sqlstate)
{
	if (sqlstate != ERRCODE_UNIQUE_VIOLATION)
		return;
	careful.target = target;
	careful.left = CAREFUL_LOADS;
}

static bool
passes_index(ResultRelInfo *info, TupleTableSlot *slot, EState *estate, Relation index)
{
	ItemPointerData conflict;
	List	   *arbiters = list_make1_oid(RelationGetRelid(index));
	bool		pass = ingest_compat_check_index_constraints(info, slot, estate, &conflict, arbiters);

	list_free(arbiters);
	return pass;
}

static void
set_error(ResultRelInfo *info, int i, TupleTableSlot *slot, EState *estate, IngestLoadError *err)
{
	Relation	index = info->ri_IndexRelationDescs[i];
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	char	   *key;

	GetPerTupleExprContext(estate)->ecxt_scantuple = slot;
	FormIndexDatum(info->ri_IndexRelationInfo[i], slot, estate, values, isnull);
	key = BuildIndexValueDescription(index, values, isnull);

	memset(err, 0, sizeof(*err));
	err->sqlstate = ERRCODE_UNIQUE_VIOLATION;
	err->message = psprintf("duplicate key value violates unique constraint \"%s\"",
							RelationGetRelationName(index));
	if (key)
		err->detail = psprintf("Key %s already exists.", key);
}

bool
ingest_load_unique_pass(Oid target, ResultRelInfo *info, TupleTableSlot *slot, EState *estate,
						IngestLoadError *err)
{
	for (int i = 0; i < info->ri_NumIndices; i++)
	{
		Relation	index = info->ri_IndexRelationDescs[i];

		if (!index->rd_index->indisunique || passes_index(info, slot, estate, index))
			continue;
		set_error(info, i, slot, estate, err);
		careful.target = target;
		careful.left = CAREFUL_LOADS;
		ResetPerTupleExprContext(estate);
		return false;
	}
	ResetPerTupleExprContext(estate);
	return true;
}
