/*
 * load.c
 *		Which lane fits a target as it is now.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "pipeline/load.h"
#include "pipeline/load_route.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

static bool
has_insert_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return triggers != NULL &&
		(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		 triggers->trig_insert_instead_row || triggers->trig_insert_before_statement ||
		 triggers->trig_insert_after_statement || triggers->trig_insert_new_table);
}

static bool
has_deferrable_index(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		found = false;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= !index->rd_index->indimmediate;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

/* What keeps a partition from being written directly, or NULL. */
static const char *
leaf_obstacle(Oid leaf)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(leaf));
	const char *obstacle = NULL;
	bool		triggers;

	if (!HeapTupleIsValid(tuple))
		return NULL;			/* dropped meanwhile */
	switch (((Form_pg_class) GETSTRUCT(tuple))->relkind)
	{
		case RELKIND_RELATION:
			break;
		case RELKIND_PARTITIONED_TABLE:
			obstacle = "the target has partitions of partitions";
			break;
		default:
			obstacle = "a partition is a foreign table";
			break;
	}
	triggers = ((Form_pg_class) GETSTRUCT(tuple))->relhastriggers;
	if (((Form_pg_class) GETSTRUCT(tuple))->relhasrules)
		obstacle = "a partition has rules";
	ReleaseSysCache(tuple);

	if (obstacle == NULL && triggers)
	{
		Relation	rel = table_open(leaf, AccessShareLock);

		if (has_insert_triggers(rel))
			obstacle = "a partition has triggers";
		table_close(rel, AccessShareLock);
	}
	return obstacle;
}

static const char *
partition_obstacle(Relation root)
{
	PartitionDesc desc;

	if (!ingest_route_possible(root))
		return "the partition key is an expression";
	desc = RelationGetPartitionDesc(root, true);
	for (int i = 0; i < desc->nparts; i++)
	{
		const char *obstacle = leaf_obstacle(desc->oids[i]);

		if (obstacle)
			return obstacle;
	}
	return NULL;
}

/* Why the direct lane cannot be used, or NULL. */
static const char *
find_obstacle(Relation target)
{
	if (target->rd_rel->relkind != RELKIND_RELATION &&
		target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return "the target is not a table";
	if (has_insert_triggers(target))
		return "the target has triggers or foreign keys";
	if (target->rd_rules != NULL)
		return "the target has rules";
	if (check_enable_rls(RelationGetRelid(target), InvalidOid, true) == RLS_ENABLED)
		return "the target has row security";
	if (has_deferrable_index(target))
		return "the target has a deferrable unique constraint";
	if (target->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return partition_obstacle(target);
	return NULL;
}

const IngestLoadOps *
ingest_load_choose(const IngestPipeline *pl, const char **reason)
{
	Relation	target;
	const char *obstacle;

	if (reason)
		*reason = NULL;
	if (pl->options.lane == INGEST_LANE_STATEMENT)
	{
		if (reason)
			*reason = "the option \"lane\" asks for it";
		return &ingest_load_statement;
	}

	target = table_open(pl->target, AccessShareLock);
	obstacle = find_obstacle(target);
	table_close(target, AccessShareLock);
	if (obstacle == NULL)
		return &ingest_load_direct;
	if (pl->options.lane == INGEST_LANE_DIRECT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" cannot use the direct lane", pl->name),
				 errdetail("It cannot because %s.", obstacle),
				 errhint("Set its option \"lane\" to \"auto\".")));
	if (reason)
		*reason = obstacle;
	return &ingest_load_statement;
}
