/*
 * partition.c
 *		ingest.manage_partitions() and its undo.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "api/arguments.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_type.h"
#include "core/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pipeline/partition.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rangetypes.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_manage_partitions);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_unmanage_partitions);

static IngestStatement save_policy = {
	"INSERT INTO ingest._partition_policy (target, owner, every, keep, ahead, bounds)"
	" VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT (target) DO UPDATE SET owner = EXCLUDED.owner, every = EXCLUDED.every,"
	" keep = EXCLUDED.keep, ahead = EXCLUDED.ahead, bounds = EXCLUDED.bounds",
	6, {REGCLASSOID, REGROLEOID, INTERVALOID, INTERVALOID, INT4OID, TSTZRANGEOID}
};

static IngestStatement delete_policy = {
	"DELETE FROM ingest._partition_policy WHERE target = $1", 1, {REGCLASSOID}
};

static void
check_target(Relation rel)
{
	PartitionDesc desc;

	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
	if (!ingest_partition_possible(rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not partitioned by range of one column that is a time",
						RelationGetRelationName(rel)),
				 errdetail("The column must be of type date, timestamp or timestamptz."),
				 errhint("Create the table with PARTITION BY RANGE (column).")));
	desc = RelationGetPartitionDesc(rel, true);
	if (desc->nparts > 0 && partition_bound_has_default(desc->boundinfo))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" has a default partition", RelationGetRelationName(rel)),
				 errdetail("Rows outside the bounds become dead letters instead."),
				 errhint("Detach the default partition.")));
}

/* Months alone, or days and time alone: mixtures make no grid. */
static void
check_every(const Interval *every, Relation rel)
{
	int64		time = every->time + every->day * USECS_PER_DAY;
	bool		of_dates = RelationGetPartitionKey(rel)->parttypid[0] == DATEOID;

	if ((every->month != 0) == (time != 0) || every->month < 0 || time < 0 ||
		(every->month == 0 && (time < USECS_PER_MINUTE || time % USECS_PER_SEC != 0)) ||
		every->month > 100 * MONTHS_PER_YEAR || time > 36525 * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid length of a partition"),
				 errdetail("\"every\" must be a number of months or years, or of weeks, days, hours, minutes and seconds, from one minute to 100 years.")));
	if (of_dates && time % USECS_PER_DAY != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid length of a partition"),
				 errdetail("The partition key of \"%s\" is a date, so \"every\" must be whole days.",
						   RelationGetRelationName(rel))));
}

static void
check_keep(const Interval *keep)
{
	if (keep->month < 0 || keep->day < 0 || keep->time < 0 ||
		(keep->month == 0 && keep->day == 0 && keep->time == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"keep\" must be longer than nothing")));
}

static void
check_arguments(FunctionCallInfo fcinfo, Relation rel)
{
	check_target(rel);
	check_every(PG_GETARG_INTERVAL_P(1), rel);
	if (!PG_ARGISNULL(2))
		check_keep(PG_GETARG_INTERVAL_P(2));
	if (PG_GETARG_INT32(3) < 0 || PG_GETARG_INT32(3) > 100)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"ahead\" must be between 0 and 100")));
	if (!PG_ARGISNULL(4) && RangeIsEmpty(PG_GETARG_RANGE_P(4)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"bounds\" must not be empty")));
}

/* manage_partitions(target regclass, every interval, keep interval, ahead integer, bounds tstzrange) */
Datum
ingest_sql_manage_partitions(PG_FUNCTION_ARGS)
{
	Oid			target = ingest_argument_oid(fcinfo, 0, "target");
	Datum		values[6] = {ObjectIdGetDatum(target), ObjectIdGetDatum(GetUserId())};
	bool		isnull[6] = {false};
	Relation	rel;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", PG_ARGISNULL(1) ? "every" : "ahead")));
	rel = table_open(target, AccessShareLock);
	check_arguments(fcinfo, rel);
	/* released: making partitions takes a stronger lock */
	table_close(rel, AccessShareLock);

	for (int i = 2; i < 6; i++)
	{
		values[i] = PG_GETARG_DATUM(i - 1);
		isnull[i] = PG_ARGISNULL(i - 1);
	}
	ingest_spi_begin();
	(void) ingest_spi_run(&save_policy, values, isnull);
	ingest_spi_end();
	CommandCounterIncrement();
	ingest_partition_upkeep(target);
	ingest_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/* Of a table that is gone, anybody may remove the policy. */
static void
check_owner(Oid target)
{
	Relation	rel = try_table_open(target, AccessShareLock);

	if (rel == NULL)
		return;
	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
	table_close(rel, AccessShareLock);
}

/* unmanage_partitions(target regclass) */
Datum
ingest_sql_unmanage_partitions(PG_FUNCTION_ARGS)
{
	Oid			target = ingest_argument_oid(fcinfo, 0, "target");
	Datum		values[1] = {ObjectIdGetDatum(target)};
	uint64		found;

	check_owner(target);
	ingest_spi_begin();
	found = ingest_spi_run(&delete_policy, values, NULL);
	ingest_spi_end();
	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the partitions of \"%s\" are not managed",
						get_rel_name(target) ? get_rel_name(target) : psprintf("%u", target))));
	PG_RETURN_VOID();
}
