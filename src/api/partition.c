/*
 * partition.c
 *		ingest.manage_partitions() and its undo.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "core/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pipeline/partition.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
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
check_target(Oid target)
{
	Relation	rel = table_open(target, AccessShareLock);
	PartitionKey key;
	Oid			type;

	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	key = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? RelationGetPartitionKey(rel) : NULL;
	if (key == NULL || key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] == 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not partitioned by range of one column", RelationGetRelationName(rel)),
				 errhint("Create it with PARTITION BY RANGE (column).")));
	type = key->parttypid[0];
	if (type != DATEOID && type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the partition key of \"%s\" is of type %s", RelationGetRelationName(rel),
						format_type_be(type)),
				 errdetail("It must be date, timestamp or timestamptz.")));
	table_close(rel, AccessShareLock);
}

/* Months alone, or days and time alone: mixtures make no grid. */
static void
check_every(const Interval *every, Oid target)
{
	int64		time = every->time + every->day * USECS_PER_DAY;

	if ((every->month != 0) == (time != 0) || every->month < 0 || time < 0 ||
		(every->month == 0 && time < USECS_PER_MINUTE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid length of a partition"),
				 errdetail("\"every\" must be a number of months, or of days, hours and minutes, of at least one minute.")));
}

Datum
ingest_sql_manage_partitions(PG_FUNCTION_ARGS)
{
	Datum		values[6];
	bool		isnull[6] = {false};
	Oid			target;
	Interval   *every;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"target\", \"every\" and \"ahead\" must not be null")));
	target = PG_GETARG_OID(0);
	every = PG_GETARG_INTERVAL_P(1);
	if (!PG_ARGISNULL(2))
	{
		Interval   *keep = PG_GETARG_INTERVAL_P(2);

		if (keep->month < 0 || keep->day < 0 || keep->time < 0 ||
			(keep->month == 0 && keep->day == 0 && keep->time == 0))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"keep\" must be longer than nothing")));
	}
	if (PG_GETARG_INT32(3) < 0 || PG_GETARG_INT32(3) > 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"ahead\" must be between 0 and 1000")));
	check_target(target);
	check_every(every, target);

	values[0] = ObjectIdGetDatum(target);
	values[1] = ObjectIdGetDatum(GetUserId());
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

Datum
ingest_sql_unmanage_partitions(PG_FUNCTION_ARGS)
{
	Datum		values[1] = {PG_GETARG_DATUM(0)};
	uint64		found;

	check_target(PG_GETARG_OID(0));
	ingest_spi_begin();
	found = ingest_spi_run(&delete_policy, values, NULL);
	ingest_spi_end();
	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the partitions of \"%s\" are not managed", get_rel_name(PG_GETARG_OID(0)))));
	PG_RETURN_VOID();
}
