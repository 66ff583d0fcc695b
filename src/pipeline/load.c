/*
 * load.c
 *		Which lane fits a target as it is now.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "executor/spi.h"
#include "partitioning/partdesc.h"
#include "pipeline/load.h"
#include "pipeline/load_fitness.h"
#include "pipeline/load_route.h"
#include "pipeline/load_upsert.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

/* Foreign keys of the table are triggers too, deferrable constraints as well. */
static bool
has_insert_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return triggers != NULL &&
		(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		 triggers->trig_insert_instead_row || triggers->trig_insert_before_statement ||
		 triggers->trig_insert_after_statement || triggers->trig_insert_new_table);
}

bool
ingest_load_has_before_triggers(Relation rel)
{
	return rel->trigdesc != NULL &&
		(rel->trigdesc->trig_insert_before_row || rel->trigdesc->trig_insert_instead_row);
}

static bool
has_deferrable_index(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		found = false;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			continue;
		found |= !((Form_pg_index) GETSTRUCT(tuple))->indimmediate;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return found;
}

/* Generated columns are stored, as far as we know how to make them. */
static bool
has_unknown_generated_columns(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		char		generated = TupleDescAttr(desc, i)->attgenerated;

		if (generated != '\0' && generated != ATTRIBUTE_GENERATED_STORED)
			return true;
	}
	return false;
}

const char *
ingest_load_partition_obstacle(Relation partition)
{
	switch (partition->rd_rel->relkind)
	{
		case RELKIND_RELATION:
			break;
		case RELKIND_PARTITIONED_TABLE:
			return "the target has partitions of partitions";
		default:
			return "a partition is a foreign table";
	}
	if (has_insert_triggers(partition))
		return "a partition has triggers or foreign keys";
	if (partition->rd_rules != NULL)
		return "a partition has rules";
	return NULL;
}

/* The same, without opening those that are clearly fit. */
static const char *
partition_obstacle(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(oid));
	Form_pg_class form;
	Relation	partition;
	const char *obstacle;
	bool		fit;

	if (!HeapTupleIsValid(tuple))
		return NULL;			/* dropped meanwhile */
	form = (Form_pg_class) GETSTRUCT(tuple);
	fit = form->relkind == RELKIND_RELATION && !form->relhastriggers && !form->relhasrules;
	ReleaseSysCache(tuple);
	if (fit)
		return NULL;

	partition = try_table_open(oid, AccessShareLock);
	if (partition == NULL)
		return NULL;
	obstacle = ingest_load_partition_obstacle(partition);
	table_close(partition, AccessShareLock);
	return obstacle;
}

static const char *
any_partition_obstacle(Relation root)
{
	PartitionDesc desc;

	if (!ingest_route_possible(root))
		return "the partition key is an expression";
	desc = RelationGetPartitionDesc(root, true);
	for (int i = 0; i < desc->nparts; i++)
	{
		const char *obstacle = partition_obstacle(desc->oids[i]);

		if (obstacle)
			return obstacle;
	}
	return NULL;
}

const char *
ingest_load_target_obstacle(Relation target, Oid role)
{
	if (target->rd_rel->relkind != RELKIND_RELATION &&
		target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return "the target is not a table";
	if (has_deferrable_index(target))
		return "the target has a deferrable unique constraint";
	if (has_insert_triggers(target))
		return "the target has triggers or foreign keys";
	if (target->rd_rules != NULL)
		return "the target has rules";
	if (has_unknown_generated_columns(RelationGetDescr(target)))
		return "the target has virtual generated columns";
	if (check_enable_rls(RelationGetRelid(target), role, true) == RLS_ENABLED)
		return "the target has row security";
	if (target->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return any_partition_obstacle(target);
	return NULL;
}

void
ingest_load_check_deferred(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not check deferred constraints");
	SPI_finish();
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
	obstacle = ingest_load_by_key(pl) ? "rows are written by key" :
		ingest_load_target_obstacle(target, pl->owner);
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
