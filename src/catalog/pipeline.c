/*
 * pipeline.c
 *		Reading the definition of a pipeline, its options, and who may use it.
 *
 * Definitions are written by api/pipeline.c, api/rule.c and api/transform.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog/pipeline.h"
#include "core/compat.h"
#include "core/spi.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "source/source.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"
#include "worker/schedule.h"

static const char *const lane_names[] = {"auto", "direct", "statement", NULL};
static const char *const on_gap_names[] = {"stop", "skip", NULL};
static const char *const on_null_names[] = {"skip", "reject", "row", NULL};
static const char *const mode_names[] = {"append", "upsert", "replace", NULL};
static const char *const on_delete_names[] = {"delete", "mark", "ignore", NULL};
static const char *const null_cursor_names[] = {"stop", "skip", "include", NULL};
static const char *const late_commits_names[] = {"wait", "writers", "ignore", NULL};
static const char *const catch_up_names[] = {"once", "skip", "all", NULL};
static const char *const violation_names[] = {"reject", "drop", "warn", "fail", NULL};

static void check_start_at(const char *name, const char *value);
static void check_columns(const char *name, const char *value);

#define OPTION(name, type, field, fallback, min, max, values, help, check) \
	{name, INGEST_SCOPE_PIPELINE, type, offsetof(IngestPipelineOptions, field), fallback, \
		min, max, values, false, false, help, check}

const IngestOptionDef ingest_pipeline_options[] = {
	OPTION("workers", INGEST_OPTION_INT, workers, "1", 1, 256, NULL,
		   "Worker processes the pipeline runs in; each reads its share of the source's shards.", NULL),
	OPTION("lane", INGEST_OPTION_ENUM, lane, "auto", 0, 0, lane_names,
		   "How rows are written: \"auto\" takes the direct lane where the target allows it.", NULL),
	OPTION("batch_rows", INGEST_OPTION_INT, batch_rows, "50000", 1, 1000000, NULL,
		   "Messages a batch holds at most.", NULL),
	OPTION("batch_bytes", INGEST_OPTION_BYTES, batch_bytes, "32MB", 65536, 1073741824, NULL,
		   "Bytes of messages a batch holds at most; a single larger message is a batch of its own.", NULL),
	OPTION("batch_wait", INGEST_OPTION_MS, batch_wait, "20ms", 0, 3600000, NULL,
		   "How long a batch that is not full waits for more messages after its first one.", NULL),
	OPTION("start_at", INGEST_OPTION_TEXT, start_at, "earliest", 0, 0, NULL,
		   "Where a pipeline without a position begins: 'earliest', 'latest' or a timestamp.",
		   check_start_at),
	OPTION("on_gap", INGEST_OPTION_ENUM, on_gap, "stop", 0, 0, on_gap_names,
		   "When a part of the source can no longer be read: stop, or skip it and note it in ingest.gap.", NULL),
	OPTION("on_null", INGEST_OPTION_ENUM, on_null, "skip", 0, 0, on_null_names,
		   "A message without a value (a tombstone) is skipped, rejected, or a row whose decoded columns are null.",
		   NULL),
	OPTION("error_limit", INGEST_OPTION_INT, error_limit, "-1", -1, 1e15, NULL,
		   "Rejected rows since the last start beyond which the pipeline is paused; -1: no limit.", NULL),
	OPTION("error_rate", INGEST_OPTION_FLOAT, error_rate, "0.5", 0, 1, NULL,
		   "Share of rejected rows, over the last error_window rows, beyond which the pipeline is paused; 1: no limit.",
		   NULL),
	OPTION("error_window", INGEST_OPTION_INT, error_window, "10000", 1, 1e9, NULL,
		   "Rows that error_rate is taken over, beginning with 500 of them (or the window when it is smaller).", NULL),
	OPTION("statement_timeout", INGEST_OPTION_MS, statement_timeout, "5min", 0, INT_MAX, NULL,
		   "Longest time for loading a batch, a query of the rules or a transform; 0: no limit.", NULL),
	OPTION("lock_timeout", INGEST_OPTION_MS, lock_timeout, "10s", 0, INT_MAX, NULL,
		   "Longest wait for a lock while a batch is written; 0: no limit.", NULL),
	OPTION("acknowledge", INGEST_OPTION_BOOL, acknowledge, "true", 0, 0, NULL,
		   "Tell the source how far it was read, where it takes note (Kafka: when a group is named); nothing depends on it.",
		   NULL),
	OPTION("history", INGEST_OPTION_INT, history, "10000", 0, 1e9, NULL,
		   "Batches kept in ingest.batch_history.", NULL),
	OPTION("mode", INGEST_OPTION_ENUM, mode, "append", 0, 0, mode_names,
		   "What a batch does to the target: add rows, take the place of rows with the same key, or replace everything.",
		   NULL),
	OPTION("key", INGEST_OPTION_TEXT, key, NULL, 0, 0, NULL,
		   "Columns of the target that tell its rows apart, separated by commas.", check_columns),
	OPTION("on_delete", INGEST_OPTION_ENUM, on_delete, "delete", 0, 0, on_delete_names,
		   "With mode \"replace\" and a key: rows that the source has no more are deleted, marked, or left alone.", NULL),
	OPTION("mark_column", INGEST_OPTION_TEXT, mark_column, NULL, 0, 0, NULL,
		   "Column of the target, boolean or timestamptz, that marks such rows.", NULL),
	OPTION("refresh_floor", INGEST_OPTION_FLOAT, refresh_floor, "0.5", 0, 1, NULL,
		   "Share of the target's rows that a replacement has to leave in it; otherwise nothing is changed and the pipeline is paused.",
		   NULL),
	OPTION("cursor", INGEST_OPTION_TEXT, cursor, NULL, 0, 0, NULL,
		   "Columns of a relation by which only what is new is read, separated by commas; without them it is read whole.",
		   check_columns),
	OPTION("overlap", INGEST_OPTION_TEXT, overlap, NULL, 0, 0, NULL,
		   "How far before the cursor each run begins: an interval, or a number; wants mode \"upsert\".", NULL),
	OPTION("horizon", INGEST_OPTION_TEXT, horizon, NULL, 0, 0, NULL,
		   "Column of type xid8 in which a foreign source says below which transaction all have ended.", NULL),
	OPTION("null_cursor", INGEST_OPTION_ENUM, null_cursor, "stop", 0, 0, null_cursor_names,
		   "Rows whose cursor is null or infinite stop the pipeline, are not read, or are read in every run.", NULL),
	OPTION("late_commits", INGEST_OPTION_ENUM, late_commits, "wait", 0, 0, late_commits_names,
		   "Wait until transactions have ended that could still commit rows below the cursor, only for those that already write the table, or not.", NULL),
	OPTION("rows_per_second", INGEST_OPTION_INT, rows_per_second, "0", 0, 1e9, NULL,
		   "Rows of a relation read a second at most; 0: no limit.", NULL),
	OPTION("poll_interval", INGEST_OPTION_MS, poll_interval, "10s", 10, INT_MAX, NULL,
		   "How often a continuous pipeline looks at a relation.", NULL),
	OPTION("time_zone", INGEST_OPTION_TEXT, time_zone, NULL, 0, 0, NULL,
		   "Time zone of the schedule and of active_hours; without it the database's.",
		   ingest_schedule_check_zone),
	OPTION("catch_up", INGEST_OPTION_ENUM, catch_up, "once", 0, 0, catch_up_names,
		   "Runs that were missed are made up for by one, forgotten, or all made.", NULL),
	OPTION("jitter", INGEST_OPTION_MS, jitter, "0", 0, 86400000, NULL,
		   "A run is put off by up to this, so that not all begin at once.", NULL),
	OPTION("active_hours", INGEST_OPTION_TEXT, active_hours, NULL, 0, 0, NULL,
		   "When runs may begin: '22:00-06:00', 'mon-fri 08:00-18:00', several separated by commas.",
		   ingest_schedule_check_active_hours),
	OPTION("timeout", INGEST_OPTION_MS, timeout, "0", 0, INT_MAX, NULL,
		   "A run that takes longer is ended, and has failed; 0: no limit.", NULL),
	OPTION("retries", INGEST_OPTION_INT, retries, "-1", -1, 1e6, NULL,
		   "How often a failed run is tried again before the next one is waited for; -1: until it succeeds.", NULL),
	OPTION("target_lag", INGEST_OPTION_MS, target_lag, "0", 0, INT_MAX, NULL,
		   "Runs begin early enough that the target's data is never older; 0: only by the schedule.", NULL),
	INGEST_OPTION_END
};

static void
check_start_at(const char *name, const char *value)
{
	TimestampTz at;

	(void) ingest_start_parse(value, &at);
}

/* Columns, as a list of identifiers; NIL for NULL.  False: it is none. */
bool
ingest_pipeline_split_columns(const char *text, List **columns)
{
	*columns = NIL;
	return text == NULL || SplitIdentifierString(pstrdup(text), ',', columns);
}

static void
check_columns(const char *name, const char *value)
{
	List	   *columns;

	if (!ingest_pipeline_split_columns(value, &columns) || columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
				 errhint("It is a list of columns separated by commas, such as 'updated_at, id'.")));
}

const char *
ingest_violation_name(IngestViolation violation)
{
	return violation_names[violation];
}

bool
ingest_violation_find(const char *name, IngestViolation *violation)
{
	for (int i = 0; violation_names[i]; i++)
		if (strcmp(violation_names[i], name) == 0)
		{
			*violation = i;
			return true;
		}
	return false;
}

/* Rows of the last result as IngestRule, in mcxt. */
static List *
read_rules(uint64 nrows, MemoryContext mcxt)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	List	   *rules = NIL;

	for (uint64 i = 0; i < nrows; i++)
	{
		IngestRule *rule = palloc0(sizeof(*rule));
		char	   *on_violation = ingest_spi_text(i, "on_violation", mcxt);

		rule->name = ingest_spi_text(i, "name", mcxt);
		rule->expression = ingest_spi_text(i, "expression", mcxt);
		rule->null_ok = ingest_spi_bool(i, "null_ok", false);
		if (!ingest_violation_find(on_violation, &rule->on_violation))
			elog(ERROR, "unknown outcome \"%s\" of a rule", on_violation);
		pfree(on_violation);
		rules = lappend(rules, rule);
	}
	MemoryContextSwitchTo(oldcontext);
	return rules;
}

static List *
read_transforms(uint64 nrows, MemoryContext mcxt)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	List	   *transforms = NIL;

	for (uint64 i = 0; i < nrows; i++)
	{
		IngestTransform *transform = palloc0(sizeof(*transform));

		transform->name = ingest_spi_text(i, "name", mcxt);
		transform->statement = ingest_spi_text(i, "statement", mcxt);
		transforms = lappend(transforms, transform);
	}
	MemoryContextSwitchTo(oldcontext);
	return transforms;
}

void
ingest_pipeline_parse_options(Jsonb *options, IngestPipelineOptions *into)
{
	memset(into, 0, sizeof(*into));
	ingest_option_parse(ingest_pipeline_options, options ? ingest_option_from_jsonb(options) : NIL, into);
}

void
ingest_pipeline_check_options(Jsonb *options)
{
	static const IngestOptionDef *const tables[] = {ingest_pipeline_options, NULL};
	ListCell   *lc;

	if (options == NULL)
		return;
	foreach(lc, ingest_option_from_jsonb(options))
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		ingest_option_check(tables, INGEST_SCOPE_PIPELINE, option->defname, strVal(option->arg));
	}
}

/* Row 0 of the last result as IngestPipeline, in mcxt. */
static IngestPipeline *
read_pipeline(MemoryContext mcxt)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	IngestPipeline *pl = palloc0(sizeof(*pl));
	bool		isnull;

	pl->id = ingest_spi_int64(0, "id", 0);
	pl->name = ingest_spi_text(0, "name", mcxt);
	pl->owner = ingest_spi_int64(0, "owner", InvalidOid);
	pl->source = ingest_spi_int64(0, "source", InvalidOid);
	pl->target = ingest_spi_int64(0, "target", InvalidOid);
	pl->schedule = ingest_spi_text(0, "schedule", mcxt);
	pl->search_path = ingest_spi_text(0, "search_path", mcxt);
	pl->version = ingest_spi_int64(0, "version", 0);
	pl->enabled = ingest_spi_bool(0, "enabled", false);
	pl->positioned = ingest_spi_bool(0, "positioned", false);
	ingest_pipeline_parse_options(DatumGetJsonbPCopy(ingest_spi_value(0, "options", &isnull)),
								  &pl->options);
	MemoryContextSwitchTo(oldcontext);
	return pl;
}

/*
 * Run "find" and read what belongs to its row.  The version is read first: a
 * change that commits meanwhile leaves a version that is found out of date.
 */
static IngestPipeline *
load_pipeline(IngestStatement *find, Datum key)
{
	static IngestStatement rules = {
		"SELECT name, expression, on_violation, null_ok FROM ingest._rule"
		" WHERE pipeline_id = $1 ORDER BY ordinal, name",
		1, {INT4OID}
	};
	static IngestStatement transforms = {
		"SELECT name, statement FROM ingest._transform"
		" WHERE pipeline_id = $1 ORDER BY ordinal, name",
		1, {INT4OID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	IngestPipeline *pl = NULL;

	ingest_spi_begin();
	if (ingest_spi_run(find, &key, NULL) > 0)
	{
		Datum		id;

		pl = read_pipeline(mcxt);
		id = Int32GetDatum(pl->id);
		pl->rules = read_rules(ingest_spi_run(&rules, &id, NULL), mcxt);
		pl->transforms = read_transforms(ingest_spi_run(&transforms, &id, NULL), mcxt);
	}
	ingest_spi_end();
	return pl;
}

#define PIPELINE_COLUMNS \
	"id, name, owner, source, target, schedule, options, search_path, version, enabled, positioned"

IngestPipeline *
ingest_pipeline_find(const char *name)
{
	static IngestStatement find = {
		"SELECT " PIPELINE_COLUMNS " FROM ingest._pipeline WHERE name = $1", 1, {TEXTOID}
	};

	return load_pipeline(&find, CStringGetTextDatum(name));
}

IngestPipeline *
ingest_pipeline_find_id(int32 id)
{
	static IngestStatement find = {
		"SELECT " PIPELINE_COLUMNS " FROM ingest._pipeline WHERE id = $1", 1, {INT4OID}
	};

	return load_pipeline(&find, Int32GetDatum(id));
}

/* The name most like this one, among the pipelines the caller may see; or NULL. */
static char *
find_similar(const char *name)
{
	static IngestStatement names = {
		"SELECT name FROM ingest._pipeline WHERE pg_catalog.pg_has_role($1, owner, 'USAGE')"
		" ORDER BY name LIMIT 1000",
		1, {OIDOID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		user = ObjectIdGetDatum(GetUserId());
	int			best = 1 + (int) strlen(name) / 3;
	char	   *similar = NULL;
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(&names, &user, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		char	   *candidate = ingest_spi_text(i, "name", mcxt);
		int			distance = varstr_levenshtein_less_equal(name, Min(strlen(name), 255),
															 candidate, strlen(candidate),
															 1, 1, 1, best, true);

		if (distance < best)
		{
			best = distance;
			similar = candidate;
		}
	}
	ingest_spi_end();
	return similar;
}

IngestPipeline *
ingest_pipeline_get(const char *name)
{
	IngestPipeline *pl = ingest_pipeline_find(name);
	char	   *similar;

	if (pl)
		return pl;
	similar = find_similar(name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("pipeline \"%s\" does not exist", name),
			 similar ? errhint("Did you mean \"%s\"?", similar) :
			 errhint("The view ingest.pipeline lists the pipelines.")));
	return NULL;
}

int64
ingest_pipeline_version(int32 id, bool *enabled)
{
	static IngestStatement find = {
		"SELECT version, enabled FROM ingest._pipeline WHERE id = $1", 1, {INT4OID}
	};
	Datum		key = Int32GetDatum(id);
	int64		version = -1;

	*enabled = false;
	ingest_spi_begin();
	if (ingest_spi_run(&find, &key, NULL) > 0)
	{
		version = ingest_spi_int64(0, "version", 0);
		*enabled = ingest_spi_bool(0, "enabled", false);
	}
	ingest_spi_end();
	return version;
}

char *
ingest_pipeline_home(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

static const char *
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name ? name : "(dropped)";
}

static void
check_owner_exists(const IngestPipeline *pl)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(pl->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("owner of pipeline \"%s\" does not exist", pl->name),
				 errhint("A superuser can give it another with ingest.alter_pipeline(..., owner => ...).")));
}

/* What a relation is, from the catalog.  raises: when it was dropped */
static Form_pg_class
get_class(const IngestPipeline *pl, Oid relid, const char *role_in_pipeline)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class copy;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("%s of pipeline \"%s\" does not exist", role_in_pipeline, pl->name),
				 errdetail("There is no relation with OID %u.", relid),
				 errhint("Name another with ingest.alter_pipeline(..., %s => ...).", role_in_pipeline)));
	copy = palloc(CLASS_TUPLE_SIZE);
	memcpy(copy, GETSTRUCT(tuple), CLASS_TUPLE_SIZE);
	ReleaseSysCache(tuple);
	return copy;
}

/* As the whole relation, or at least for a column: the rest is found out at use. */
static void
check_relation_privilege(const IngestPipeline *pl, Oid relid, AclMode mode, const char *verb)
{
	if (pg_class_aclcheck(relid, pl->owner, mode) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, pl->owner, mode, ACLMASK_ANY) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for relation %s", get_rel_name(relid)),
			 errdetail("Role \"%s\", the owner of pipeline \"%s\", may not %s it.",
					   role_name(pl->owner), pl->name, verb)));
}

static void
check_source(const IngestPipeline *pl)
{
	Form_pg_class class = get_class(pl, pl->source, "source");

	check_relation_privilege(pl, pl->source, ACL_SELECT, "select from");
	if (class->relkind == RELKIND_FOREIGN_TABLE)
	{
		Oid			serverid = GetForeignServerIdByRelId(pl->source);

		if (ingest_compat_server_aclcheck(serverid, pl->owner, ACL_USAGE) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for foreign server %s",
							GetForeignServer(serverid)->servername),
					 errdetail("Role \"%s\", the owner of pipeline \"%s\", may not use it.",
							   role_name(pl->owner), pl->name)));
	}
	if (superuser_arg(pl->owner) && !superuser_arg(class->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a superuser's pipeline cannot read relation %s of role \"%s\"",
						get_rel_name(pl->source), role_name(class->relowner)),
				 errdetail("Its owner decides what SQL a reader runs, and is no superuser."),
				 errhint("Create the pipeline as role \"%s\".", role_name(class->relowner))));
}

static void
check_target(const IngestPipeline *pl)
{
	Form_pg_class class = get_class(pl, pl->target, "target");

	check_relation_privilege(pl, pl->target, ACL_INSERT, "insert into");
	if (superuser_arg(pl->owner) && !superuser_arg(class->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a superuser's pipeline cannot write into relation %s of role \"%s\"",
						get_rel_name(pl->target), role_name(class->relowner)),
				 errdetail("Its triggers, defaults and index expressions would run as a superuser."),
				 errhint("Create the pipeline as role \"%s\".", role_name(class->relowner))));
	if (!has_privs_of_role(pl->owner, class->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of pipeline \"%s\" must be a member of the owner of relation %s",
						pl->name, get_rel_name(pl->target)),
				 errdetail("Triggers, defaults and index expressions of role \"%s\" would run as role \"%s\".",
						   role_name(class->relowner), role_name(pl->owner))));
}

void
ingest_pipeline_check_trust(const IngestPipeline *pl)
{
	check_owner_exists(pl);
	check_source(pl);
	check_target(pl);
}

void
ingest_pipeline_check_owner(const IngestPipeline *pl)
{
	if (!has_privs_of_role(GetUserId(), pl->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of pipeline \"%s\"", pl->name)));
}

void
ingest_pipeline_check_runner(const IngestPipeline *pl)
{
	check_owner_exists(pl);
	if (GetUserId() != pl->owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be the owner of pipeline \"%s\" to run it", pl->name),
				 errdetail("Its rules, transforms and target run SQL of role \"%s\".",
						   role_name(pl->owner)),
				 has_privs_of_role(GetUserId(), pl->owner) ?
				 errhint("SET ROLE %s first.", quote_identifier(role_name(pl->owner))) : 0));
}
