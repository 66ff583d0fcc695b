/*
 * partition.c
 *		Partitions of a managed target: made when needed and ahead of time,
 *		dropped when old.  The policies are in ingest._partition_policy.
 *
 * Which ranges there are is in partition_range.c.  DDL is made of quoted
 * identifiers and literals only.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "core/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pipeline/partition.h"
#include "pipeline/partition_range.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/*
 * New partitions of one load.  Each needs several locks that are kept to the
 * end of the transaction, and the table of locks is shared with everybody.
 */
#define MAX_NEW_PARTITIONS 400

/* The same for those that one upkeep drops; the next goes on. */
#define MAX_DROPS 200

/* What is beyond now, when no bounds were given. */
#define DEFAULT_PAST_YEARS 10
#define DEFAULT_FUTURE_YEARS 1

/* Upkeep gives way to others: ms to wait for a lock, less where readers would wait behind us. */
#define LOCK_TIMEOUT_CREATE 5000
#define LOCK_TIMEOUT_DROP 1000

struct IngestPartitionPolicy
{
	Oid			target;
	Oid			owner;			/* who asked for it */
	Oid			key_type;
	Interval	every;
	bool		has_keep;
	Interval	keep;
	int			ahead;
	TimestampTz lower;			/* bounds of acceptable keys; may be infinite */
	TimestampTz upper;			/* excluded */
	int			made;			/* new partitions */
};

/* ---- policies ---- */

static IngestStatement find_policy = {
	"SELECT owner, every, keep, ahead, bounds IS NOT NULL AS bounded,"
	" lower(bounds) AS lower, lower_inc(bounds) AS lower_inc,"
	" upper(bounds) AS upper, upper_inc(bounds) AS upper_inc"
	" FROM ingest._partition_policy WHERE target = $1", 1, {REGCLASSOID}
};

static IngestStatement forget_policy = {
	"DELETE FROM ingest._partition_policy WHERE target = $1", 1, {REGCLASSOID}
};

static bool
fetch_interval(const char *column, Interval *into)
{
	bool		isnull;
	Datum		value = ingest_spi_value(0, column, &isnull);

	if (!isnull)
		*into = *DatumGetIntervalP(value);
	return !isnull;
}

static void
fetch_bounds(IngestPartitionPolicy *policy)
{
	bool		isnull;
	Datum		value = ingest_spi_value(0, "lower", &isnull);

	policy->lower = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
	if (!TIMESTAMP_NOT_FINITE(policy->lower) && !ingest_spi_bool(0, "lower_inc", true))
		policy->lower++;
	value = ingest_spi_value(0, "upper", &isnull);
	policy->upper = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	if (!TIMESTAMP_NOT_FINITE(policy->upper) && ingest_spi_bool(0, "upper_inc", false))
		policy->upper++;
}

/* Whole ranges, so that the bounds of one day are one text. */
static void
default_bounds(IngestPartitionPolicy *policy)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	Interval	year = {.month = MONTHS_PER_YEAR};
	IngestTimeRange range;

	policy->lower = DT_NOBEGIN;
	policy->upper = DT_NOEND;
	if (ingest_range_shift(now, &year, -DEFAULT_PAST_YEARS, &range.from) &&
		ingest_range_step(range.from, &policy->every, &range))
		policy->lower = range.from;
	if (ingest_range_shift(now, &year, DEFAULT_FUTURE_YEARS, &range.from) &&
		ingest_range_step(range.from, &policy->every, &range))
		policy->upper = range.to;
}

/* Ranges that end here or before are too old; -infinity: none is. */
static TimestampTz
keep_limit(const IngestPartitionPolicy *policy)
{
	TimestampTz limit;

	if (!policy->has_keep ||
		!ingest_range_shift(GetCurrentTransactionStartTimestamp(), &policy->keep, -1, &limit))
		return DT_NOBEGIN;
	return limit;
}

/* What would be dropped at once is not made; what is kept may be, however the bounds are. */
static void
limit_past(IngestPartitionPolicy *policy, bool bounded)
{
	TimestampTz limit = keep_limit(policy);
	IngestTimeRange oldest;

	if (limit == DT_NOBEGIN || !ingest_range_step(limit, &policy->every, &oldest))
		return;
	if (!bounded || policy->lower < oldest.from)
		policy->lower = oldest.from;
}

bool
ingest_partition_possible(Relation target)
{
	PartitionKey key;
	Oid			type;

	if (target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	key = RelationGetPartitionKey(target);
	type = key->parttypid[0];
	return key->strategy == PARTITION_STRATEGY_RANGE && key->partnatts == 1 &&
		key->partattrs[0] != 0 &&
		(type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID);
}

IngestPartitionPolicy *
ingest_partition_policy(Relation target)
{
	Datum		values[1] = {ObjectIdGetDatum(RelationGetRelid(target))};
	IngestPartitionPolicy *policy;
	bool		found;
	bool		bounded = false;

	if (!ingest_partition_possible(target))
		return NULL;
	policy = palloc0(sizeof(*policy));
	policy->target = RelationGetRelid(target);
	policy->key_type = RelationGetPartitionKey(target)->parttypid[0];

	ingest_spi_begin();
	found = ingest_spi_run(&find_policy, values, NULL) > 0;
	if (found)
	{
		policy->owner = (Oid) ingest_spi_int64(0, "owner", InvalidOid);
		(void) fetch_interval("every", &policy->every);
		policy->has_keep = fetch_interval("keep", &policy->keep);
		policy->ahead = (int) ingest_spi_int64(0, "ahead", 0);
		bounded = ingest_spi_bool(0, "bounded", false);
		if (bounded)
			fetch_bounds(policy);
	}
	ingest_spi_end();
	if (!found)
	{
		pfree(policy);
		return NULL;
	}
	if (!bounded)
		default_bounds(policy);
	limit_past(policy, bounded);
	return policy;
}

/* ---- may a key have a partition? ---- */

static bool
refuse(IngestLoadError *err, int sqlstate, char *message, char *detail)
{
	memset(err, 0, sizeof(*err));
	err->sqlstate = sqlstate;
	err->message = message;
	err->detail = detail;
	return false;
}

static char *
time_text(TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buf[MAXDATELEN + 1];

	if (at == DT_NOBEGIN)
		return "-infinity";
	if (at == DT_NOEND)
		return "infinity";
	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		return "?";
	EncodeDateTime(&tm, fsec, false, 0, NULL, USE_ISO_DATES, buf);
	return pstrdup(buf);
}

static bool
refuse_outside(const IngestPartitionPolicy *policy, TimestampTz at, IngestLoadError *err)
{
	return refuse(err, ERRCODE_DATETIME_FIELD_OVERFLOW,
				  psprintf("partition key of row is outside the bounds of relation \"%s\"",
						   get_rel_name(policy->target)),
				  psprintf("The key is %s; partitions are made from %s to %s (in UTC).",
						   time_text(at), time_text(policy->lower), time_text(policy->upper)));
}

bool
ingest_partition_accepts(const IngestPartitionPolicy *policy, Datum key, bool isnull,
						 IngestLoadError *err)
{
	TimestampTz at;
	IngestTimeRange range;

	if (isnull)
		return refuse(err, ERRCODE_CHECK_VIOLATION,
					  psprintf("no partition of relation \"%s\" found for row",
							   get_rel_name(policy->target)),
					  "The partition key is NULL.");
	at = ingest_range_from_key(policy->key_type, key);
	if (TIMESTAMP_NOT_FINITE(at) || at < policy->lower || at >= policy->upper ||
		!ingest_range_step(at, &policy->every, &range))
		return refuse_outside(policy, at, err);
	if (policy->made >= MAX_NEW_PARTITIONS)
	{
		(void) refuse(err, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					  psprintf("batch needs too many new partitions of relation \"%s\"",
							   get_rel_name(policy->target)),
					  psprintf("One batch makes at most %d; the row can be replayed.",
							   MAX_NEW_PARTITIONS));
		err->full = true;
		return false;
	}
	return true;
}

/* ---- making ---- */

/* Settings under which DDL is made and read. */
static void
pin_settings(int lock_timeout)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"datestyle", "ISO, YMD"},
		{"timezone", "UTC"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (lock_timeout > 0 && (LockTimeout == 0 || LockTimeout > lock_timeout))
		(void) set_config_option("lock_timeout", psprintf("%d", lock_timeout), PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
execute_ddl(const char *sql)
{
	int			rc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rc = SPI_execute(sql, false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "\"%s\" failed: %s", sql, SPI_result_code_string(rc));
	SPI_finish();
}

static char *
qualified_name(Oid schema, const char *name)
{
	return pstrdup(quote_qualified_identifier(get_namespace_name(schema), name));
}

/* <table>_p20260131[_1300[30]][_n]: what is needed to tell it from others; n to be unique. */
static char *
choose_name(Relation table, const IngestTimeRange *range)
{
	const char *base = RelationGetRelationName(table);
	struct pg_tm tm;
	fsec_t		fsec;
	StringInfoData suffix;

	if (timestamp2tm(range->from, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	initStringInfo(&suffix);
	for (int n = 0;; n++)
	{
		char	   *name;

		resetStringInfo(&suffix);
		appendStringInfo(&suffix, "_p%04d%02d%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
		if (range->from % USECS_PER_DAY != 0 || range->to - range->from < USECS_PER_DAY)
			appendStringInfo(&suffix, "_%02d%02d", tm.tm_hour, tm.tm_min);
		if (range->from % USECS_PER_MINUTE != 0)
			appendStringInfo(&suffix, "%02d", tm.tm_sec);
		if (n > 0)
			appendStringInfo(&suffix, "_%d", n);
		name = psprintf("%.*s%s",
						pg_mbcliplen(base, strlen(base), NAMEDATALEN - 1 - suffix.len), base,
						suffix.data);
		if (!OidIsValid(get_relname_relid(name, RelationGetNamespace(table))))
			return name;
	}
}

/* What PARTITION OF would inherit and LIKE does not. */
static char *
storage_clauses(Relation table)
{
	StringInfoData clauses;

	initStringInfo(&clauses);
	if (OidIsValid(table->rd_rel->relam))
		appendStringInfo(&clauses, " USING %s",
						 quote_identifier(get_am_name(table->rd_rel->relam)));
	if (OidIsValid(table->rd_rel->reltablespace))
		appendStringInfo(&clauses, " TABLESPACE %s",
						 quote_identifier(get_tablespace_name(table->rd_rel->reltablespace)));
	return clauses.data;
}

static char *
bound_literal(Oid type, TimestampTz at)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(type, &output, &varlena);
	return quote_literal_cstr(OidOutputFunctionCall(output, ingest_range_to_key(type, at)));
}

/* Attaching would lock and search it, and fail when it holds rows of the range. */
static void
check_no_default(Relation table)
{
	PartitionDesc desc = RelationGetPartitionDesc(table, true);

	if (desc->nparts > 0 && partition_bound_has_default(desc->boundinfo))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partitions of \"%s\" cannot be made", RelationGetRelationName(table)),
				 errdetail("It has a default partition."),
				 errhint("Detach the default partition: rows without a partition become dead letters.")));
}

/* Its place is free when that is over, or its partition is back. */
static void
check_not_detaching(Relation table, TimestampTz at)
{
	if (ingest_range_covered(table, at, true))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("a partition of \"%s\" is being detached", RelationGetRelationName(table)),
				 errdetail("Until that is done, there can be no new partition for the same range."),
				 errhint("ALTER TABLE ... DETACH PARTITION ... FINALIZE completes a detach that was interrupted.")));
}

/* The statements that make a range, or NIL when there is one already. */
static List *
plan_partition(const IngestPartitionPolicy *policy, TimestampTz at)
{
	Relation	table = table_open(policy->target, NoLock);
	char	   *parent = qualified_name(RelationGetNamespace(table), RelationGetRelationName(table));
	Oid			owner = table->rd_rel->relowner;
	IngestTimeRange range;
	List	   *statements = NIL;

	check_no_default(table);
	if (!ingest_range_covered(table, at, false) && ingest_range_step(at, &policy->every, &range))
	{
		char	   *partition;

		check_not_detaching(table, at);
		ingest_range_cut(table, at, &range);
		partition = qualified_name(RelationGetNamespace(table), choose_name(table, &range));
		statements = lappend(statements,
							 psprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS)%s",
									  partition, parent, storage_clauses(table)));
		if (owner != GetUserId())
			statements = lappend(statements,
								 psprintf("ALTER TABLE %s OWNER TO %s", partition,
										  quote_identifier(GetUserNameFromId(owner, false))));
		statements = lappend(statements,
							 psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
									  parent, partition, bound_literal(policy->key_type, range.from),
									  bound_literal(policy->key_type, range.to)));
	}
	table_close(table, NoLock);
	return statements;
}

void
ingest_partition_create(IngestPartitionPolicy *policy, Datum key)
{
	int			level = NewGUCNestLevel();
	List	   *statements;
	ListCell   *lc;

	pin_settings(0);

	/*
	 * The parent first, in the mode that attaching takes: readers and writers
	 * go on, others who make partitions wait.  Then look what there is now.
	 */
	LockRelationOid(policy->target, ShareUpdateExclusiveLock);
	statements = plan_partition(policy, ingest_range_from_key(policy->key_type, key));
	foreach(lc, statements)
		execute_ddl(lfirst(lc));
	if (statements != NIL)
		policy->made++;
	list_free_deep(statements);
	CommandCounterIncrement();
	AtEOXact_GUC(true, level);
}

/* ---- upkeep ---- */

static bool
is_covered(Oid target, TimestampTz at)
{
	Relation	table = table_open(target, AccessShareLock);
	bool		covered = ingest_range_covered(table, at, false);

	table_close(table, AccessShareLock);
	return covered;
}

static void
make_ahead(IngestPartitionPolicy *policy)
{
	TimestampTz at = GetCurrentTransactionStartTimestamp();
	IngestTimeRange range;

	for (int i = 0; i <= policy->ahead && ingest_range_step(at, &policy->every, &range); i++)
	{
		Datum		key = ingest_range_to_key(policy->key_type, at);

		CHECK_FOR_INTERRUPTS();
		if (range.from < policy->upper && range.to > policy->lower &&
			!is_covered(policy->target, ingest_range_from_key(policy->key_type, key)))
			ingest_partition_create(policy, key);
		at = range.to;
	}
}

/* DROP TABLE of a partition, or NULL when it is none of ours to drop. */
static char *
drop_statement(Oid partition)
{
	char		relkind = get_rel_relkind(partition);

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		return NULL;
	return psprintf("DROP TABLE %s",
					qualified_name(get_rel_namespace(partition), get_rel_name(partition)));
}

/*
 * In a subtransaction: one that is referenced must not keep the others.
 * False: the table is in use, and those who come wait behind us.
 */
static bool
try_to_drop(Oid target, Oid partition)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	char	   *sql = drop_statement(partition);
	char	   *name = get_rel_name(partition);
	volatile bool in_use = false;

	if (sql == NULL)
		return true;
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		execute_ddl(sql);
		ReleaseCurrentSubTransaction();
		ereport(LOG,
				(errmsg("dropped partition \"%s\" of \"%s\"", name, get_rel_name(target)),
				 errdetail("It is older than its partitions are kept.")));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not drop partition \"%s\" of \"%s\"", name, get_rel_name(target)),
				 errdetail("%s.", error->message),
				 errhint("It is tried again later.")));
		in_use = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return !in_use;
}

static void
drop_old(const IngestPartitionPolicy *policy)
{
	Relation	table = table_open(policy->target, AccessShareLock);
	List	   *old = ingest_range_until(table, keep_limit(policy));
	ListCell   *lc;
	int			left = MAX_DROPS;

	table_close(table, AccessShareLock);
	foreach(lc, old)
	{
		CHECK_FOR_INTERRUPTS();
		if (left-- == 0 || !try_to_drop(policy->target, lfirst_oid(lc)))
			break;
	}
	list_free(old);
}

static void
forget(Oid target)
{
	Datum		values[1] = {ObjectIdGetDatum(target)};

	ingest_spi_begin();
	(void) ingest_spi_run(&forget_policy, values, NULL);
	ingest_spi_end();
}

/* The policy, and who owns the table; NULL when there is nothing to do. */
static IngestPartitionPolicy *
open_policy(Oid target, Oid *owner)
{
	Relation	table = try_table_open(target, AccessShareLock);
	IngestPartitionPolicy *policy;

	if (table == NULL)
	{
		forget(target);
		return NULL;
	}
	policy = ingest_partition_policy(table);
	*owner = table->rd_rel->relowner;
	/* released, so that nobody else's upkeep and ours wait for each other */
	table_close(table, AccessShareLock);
	return policy;
}

/* What was allowed once may no longer be. */
static void
check_owner(const IngestPartitionPolicy *policy, Oid table_owner)
{
	if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(policy->owner)) &&
		has_privs_of_role(policy->owner, table_owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("partitions of \"%s\" are no longer managed", get_rel_name(policy->target)),
			 errdetail("The role that asked for it is gone or no longer a member of the table's owner."),
			 errhint("Call ingest.manage_partitions() again, or ingest.unmanage_partitions().")));
}

void
ingest_partition_upkeep(Oid target)
{
	MemoryContext mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest partition upkeep",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	Oid			owner;
	IngestPartitionPolicy *policy = open_policy(target, &owner);

	if (policy)
	{
		int			level = NewGUCNestLevel();
		Oid			user;
		int			context;

		check_owner(policy, owner);
		GetUserIdAndSecContext(&user, &context);
		SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
		pin_settings(LOCK_TIMEOUT_CREATE);
		make_ahead(policy);
		pin_settings(LOCK_TIMEOUT_DROP);
		drop_old(policy);
		SetUserIdAndSecContext(user, context);
		AtEOXact_GUC(true, level);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(mcxt);
}
