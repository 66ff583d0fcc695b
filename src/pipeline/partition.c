/*
 * partition.c
 *		Ranges of a time-partitioned target: made when needed and ahead of time,
 *		dropped when old.  The policies are in ingest._partition_policy.
 *
 * The grid: steps of "every" from 2000-01-01 00:00 UTC, so that days begin at
 * midnight UTC whatever a session's time zone is.  A new range is cut where
 * existing partitions lie.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "core/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pipeline/partition.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rangetypes.h"
#include "storage/proc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"


/* More ranges than this in one batch are a mistake in the data. */
#define MAX_NEW_PARTITIONS 400

/* What is beyond now by default. */
#define DEFAULT_PAST_YEARS 10
#define DEFAULT_FUTURE_YEARS 1

typedef struct Policy
{
	Interval	every;
	bool		has_keep;
	Interval	keep;
	int			ahead;
	bool		has_lower;
	TimestampTz lower;			/* bounds of acceptable keys */
	bool		has_upper;
	TimestampTz upper;
} Policy;

static IngestStatement find_policy = {
	"SELECT every, keep, ahead, lower(bounds) AS lower, upper(bounds) AS upper"
	" FROM ingest._partition_policy WHERE target = $1", 1, {REGCLASSOID}
};

/* ---- time ---- */

static TimestampTz
add_interval(TimestampTz at, const Interval *span, int times)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			months;
	int			carry;

	if (span->month == 0)
		return at + times * (span->time + span->day * USECS_PER_DAY);
	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	months = tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1 + times * span->month;
	carry = months % MONTHS_PER_YEAR;
	tm.tm_year = months / MONTHS_PER_YEAR;
	tm.tm_mon = carry + 1;
	if (tm2timestamp(&tm, fsec, NULL, &at) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	return at;
}

/* Begin of the step of the grid that holds "at"; in UTC. */
static TimestampTz
grid_floor(TimestampTz at, const Interval *every)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		step;
	int64		steps;
	int			months;

	if (every->month == 0)
	{
		step = every->time + every->day * USECS_PER_DAY;
		steps = at / step;
		if (at % step < 0)
			steps--;
		return steps * step;
	}
	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	months = (tm.tm_year - 2000) * MONTHS_PER_YEAR + tm.tm_mon - 1;
	steps = months / every->month - (months % every->month < 0 ? 1 : 0);
	return add_interval(0, every, (int) steps);
}

/* Keys of type date, timestamp and timestamptz as moments in UTC, and back. */
static TimestampTz
key_to_time(Oid type, Datum key)
{
	if (type != DATEOID)
		return DatumGetTimestampTz(key);
	if (DATE_IS_NOBEGIN(DatumGetDateADT(key)))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(DatumGetDateADT(key)))
		return DT_NOEND;
	return DatumGetDateADT(key) * USECS_PER_DAY;
}

static Datum
time_to_key(Oid type, TimestampTz at)
{
	return type == DATEOID ? DateADTGetDatum(at / USECS_PER_DAY) : TimestampTzGetDatum(at);
}

static Oid
key_type(Relation target)
{
	return RelationGetPartitionKey(target)->parttypid[0];
}

/* ---- policies ---- */

static bool
load_policy(Oid target, Policy *policy)
{
	Datum		values[1] = {ObjectIdGetDatum(target)};
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	Interval	year = {.month = MONTHS_PER_YEAR};
	bool		isnull;
	bool		found;
	Datum		value;

	memset(policy, 0, sizeof(*policy));
	ingest_spi_begin();
	found = ingest_spi_run(&find_policy, values, NULL) > 0;
	if (found)
	{
		policy->every = *DatumGetIntervalP(ingest_spi_value(0, "every", &isnull));
		value = ingest_spi_value(0, "keep", &isnull);
		policy->has_keep = !isnull;
		if (!isnull)
			policy->keep = *DatumGetIntervalP(value);
		policy->ahead = ingest_spi_int64(0, "ahead", 0);
		value = ingest_spi_value(0, "lower", &isnull);
		policy->has_lower = !isnull;
		policy->lower = isnull ? 0 : DatumGetTimestampTz(value);
		value = ingest_spi_value(0, "upper", &isnull);
		policy->has_upper = !isnull;
		policy->upper = isnull ? 0 : DatumGetTimestampTz(value);
	}
	ingest_spi_end();

	if (!policy->has_lower && !policy->has_upper)
	{
		policy->has_lower = policy->has_upper = true;
		policy->lower = policy->has_keep ? add_interval(now, &policy->keep, -1) :
			add_interval(now, &year, -DEFAULT_PAST_YEARS);
		if (policy->has_keep && policy->keep.month != 0)
			policy->lower -= policy->keep.time + policy->keep.day * USECS_PER_DAY;
		policy->upper = add_interval(now, &year, DEFAULT_FUTURE_YEARS);
	}
	return found;
}

/* How many were made in this transaction. */
static int
count_new(bool add)
{
	static LocalTransactionId lxid = InvalidLocalTransactionId;
	static int	made = 0;

	if (lxid != MyProc->lxid)
	{
		lxid = MyProc->lxid;
		made = 0;
	}
	if (add)
		made++;
	return made;
}

static bool
refuse(IngestLoadError *err, Relation target, const char *detail)
{
	memset(err, 0, sizeof(*err));
	err->sqlstate = ERRCODE_DATETIME_FIELD_OVERFLOW;
	err->message = psprintf("no partition of relation \"%s\" is made for row",
							RelationGetRelationName(target));
	err->detail = detail;
	return false;
}

/* Cut the range where it meets partitions that are there. */
static void
fit_range(Relation target, Oid type, TimestampTz at, TimestampTz *from, TimestampTz *to)
{
	PartitionDesc desc = RelationGetPartitionDesc(target, true);
	PartitionBoundInfo bounds = desc->boundinfo;

	for (int i = 0; desc->nparts > 0 && i < bounds->ndatums; i++)
	{
		TimestampTz bound;

		if (bounds->kind[i][0] != PARTITION_RANGE_DATUM_VALUE)
			continue;
		bound = key_to_time(type, bounds->datums[i][0]);
		if (bound <= at && bound > *from)
			*from = bound;
		if (bound > at && bound < *to)
			*to = bound;
	}
}

bool
ingest_partition_wanted(Relation target, Datum key, bool isnull, Datum *from, Datum *to,
						IngestLoadError *err)
{
	Oid			type = key_type(target);
	Policy		policy;
	TimestampTz at;
	TimestampTz lower;
	TimestampTz upper;

	memset(err, 0, sizeof(*err));
	if (type != DATEOID && type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		return false;
	if (!load_policy(RelationGetRelid(target), &policy))
		return false;
	if (isnull)
		return refuse(err, target, "The partition key is NULL.");
	at = key_to_time(type, key);
	if (TIMESTAMP_NOT_FINITE(at))
		return refuse(err, target, "The partition key is infinite.");
	if ((policy.has_lower && at < policy.lower) || (policy.has_upper && at >= policy.upper))
		return refuse(err, target,
					  psprintf("The partition key is %s, outside the bounds %s to %s.",
							   timestamptz_to_str(at),
							   policy.has_lower ? pstrdup(timestamptz_to_str(policy.lower)) : "-infinity",
							   policy.has_upper ? pstrdup(timestamptz_to_str(policy.upper)) : "infinity"));
	if (count_new(false) >= MAX_NEW_PARTITIONS)
		return refuse(err, target, "The batch has made too many partitions already.");

	lower = grid_floor(at, &policy.every);
	upper = add_interval(lower, &policy.every, 1);
	fit_range(target, type, at, &lower, &upper);
	*from = time_to_key(type, lower);
	*to = time_to_key(type, upper);
	return true;
}

/* ---- making ---- */

static char *
bound_text(Oid type, Datum key)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(type, &output, &varlena);
	return OidOutputFunctionCall(output, key);
}

/* <table>_p20260131[_1300], cut to fit, unique in the schema. */
static char *
choose_name(const char *table, Oid schema, TimestampTz from)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		suffix[64];

	if (timestamp2tm(from, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	for (int n = 0;; n++)
	{
		char	   *name;
		int			len;

		len = snprintf(suffix, sizeof(suffix), "_p%04d%02d%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
		if (tm.tm_hour != 0 || tm.tm_min != 0)
			len += snprintf(suffix + len, sizeof(suffix) - len, "_%02d%02d", tm.tm_hour, tm.tm_min);
		if (n > 0)
			len += snprintf(suffix + len, sizeof(suffix) - len, "_%d", n);
		name = psprintf("%.*s%s", pg_mbcliplen(table, strlen(table), NAMEDATALEN - 1 - len), table,
						suffix);
		if (!OidIsValid(get_relname_relid(name, schema)))
			return name;
	}
}

static void
execute_ddl(const char *sql)
{
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "\"%s\" failed", sql);
}

void
ingest_partition_create(Oid target, Datum from, Datum to)
{
	Relation	rel;
	Oid			type;
	Oid			leaf = InvalidOid;
	Oid			owner;
	char	   *parent;
	char	   *partition;
	char	   *lower;
	char	   *upper;
	int			level = NewGUCNestLevel();

	/* Bounds are written in a form that reads the same everywhere. */
	(void) set_config_option("datestyle", "ISO, YMD", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("timezone", "UTC", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	/*
	 * The parent first, and in the mode that attaching takes: readers and
	 * writers go on.  Then look again: somebody else may have made the range.
	 */
	LockRelationOid(target, ShareUpdateExclusiveLock);
	rel = table_open(target, NoLock);
	type = key_type(rel);
	{
		TimestampTz lo = key_to_time(type, from);
		TimestampTz hi = key_to_time(type, to);
		PartitionDesc desc = RelationGetPartitionDesc(rel, true);

		for (int i = 0; desc->nparts > 0 && i + 1 < desc->boundinfo->ndatums; i++)
			if (desc->boundinfo->indexes[i + 1] >= 0 &&
				desc->boundinfo->kind[i][0] == PARTITION_RANGE_DATUM_VALUE &&
				key_to_time(type, desc->boundinfo->datums[i][0]) < hi &&
				(desc->boundinfo->kind[i + 1][0] != PARTITION_RANGE_DATUM_VALUE ||
				 key_to_time(type, desc->boundinfo->datums[i + 1][0]) > lo))
				leaf = desc->oids[desc->boundinfo->indexes[i + 1]];
	}
	owner = rel->rd_rel->relowner;
	parent = pstrdup(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)));
	partition = pstrdup(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												   choose_name(RelationGetRelationName(rel),
															   RelationGetNamespace(rel),
															   key_to_time(type, from))));
	lower = bound_text(type, from);
	upper = bound_text(type, to);
	table_close(rel, NoLock);

	if (!OidIsValid(leaf))
	{
		SPI_connect();
		execute_ddl(psprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS)",
							 partition, parent));
		if (owner != GetUserId())
			execute_ddl(psprintf("ALTER TABLE %s OWNER TO %s", partition,
								 quote_identifier(GetUserNameFromId(owner, false))));
		execute_ddl(psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
							 parent, partition, quote_literal_cstr(lower), quote_literal_cstr(upper)));
		SPI_finish();
		(void) count_new(true);
	}
	AtEOXact_GUC(true, level);
}

/* ---- upkeep ---- */

static void
make_ahead(Oid target, const Policy *policy)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	for (int i = 0; i <= policy->ahead; i++)
	{
		TimestampTz at = add_interval(grid_floor(now, &policy->every), &policy->every, i);
		TimestampTz lower = at;
		TimestampTz upper = add_interval(at, &policy->every, 1);
		Relation	rel = table_open(target, AccessShareLock);
		Oid			type = key_type(rel);

		fit_range(rel, type, at, &lower, &upper);
		table_close(rel, AccessShareLock);
		ingest_partition_create(target, time_to_key(type, lower), time_to_key(type, upper));
		CommandCounterIncrement();
	}
}

/* Partitions that end before the kept time, oldest first. */
static List *
find_old(Oid target, TimestampTz limit)
{
	Relation	rel = table_open(target, AccessShareLock);
	Oid			type = key_type(rel);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	List	   *old = NIL;

	for (int i = 0; desc->nparts > 0 && i + 1 < bounds->ndatums; i++)
		if (bounds->indexes[i + 1] >= 0 &&
			bounds->kind[i + 1][0] == PARTITION_RANGE_DATUM_VALUE &&
			key_to_time(type, bounds->datums[i + 1][0]) <= limit)
			old = lappend_oid(old, desc->oids[bounds->indexes[i + 1]]);
	table_close(rel, AccessShareLock);
	return old;
}

static void
drop_old(Oid target, const Policy *policy)
{
	TimestampTz limit = add_interval(GetCurrentTransactionStartTimestamp(), &policy->keep, -1);
	ListCell   *lc;

	if (policy->keep.month != 0)
		limit -= policy->keep.time + policy->keep.day * USECS_PER_DAY;
	SPI_connect();
	foreach(lc, find_old(target, limit))
	{
		char	   *schema = get_namespace_name(get_rel_namespace(lfirst_oid(lc)));
		char	   *name = get_rel_name(lfirst_oid(lc));

		if (name == NULL || schema == NULL)
			continue;
		/* Dropping a partition detaches it. */
		execute_ddl(psprintf("DROP TABLE %s", quote_qualified_identifier(schema, name)));
		CommandCounterIncrement();
	}
	SPI_finish();
}

void
ingest_partition_upkeep(Oid target)
{
	Oid			user;
	int			context;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(target));
	Oid			owner;
	Policy		policy;

	if (!HeapTupleIsValid(tuple))
		return;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	if (!load_policy(target, &policy))
		return;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	make_ahead(target, &policy);
	if (policy.has_keep)
		drop_old(target, &policy);
	SetUserIdAndSecContext(user, context);
}
