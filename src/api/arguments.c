/*
 * arguments.c
 *		What SQL-callable entry points share: reading arguments, finding the
 *		pipeline, checking a definition with its owner's eyes.
 */
#include "postgres.h"

#include "access/table.h"
#include "api/arguments.h"
#include "core/compat.h"
#include "miscadmin.h"
#include "pipeline/load.h"
#include "pipeline/rules.h"
#include "pipeline/transform.h"
#include "pipeline/usersql.h"
#include "source/source.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "worker/worker.h"

pg_noreturn static void
raise_null(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument \"%s\" must not be null", name)));
	pg_unreachable();
}

char *
ingest_argument_text_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

char *
ingest_argument_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		raise_null(name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Oid
ingest_argument_oid(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		raise_null(name);
	return PG_GETARG_OID(n);
}

char *
ingest_argument_name(FunctionCallInfo fcinfo, int n, const char *name)
{
	char	   *value = ingest_argument_text(fcinfo, n, name);

	if (*value == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument \"%s\" must not be empty", name)));
	if (strlen(value) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("argument \"%s\" is too long", name),
				 errdetail("A name has at most %d bytes.", NAMEDATALEN - 1)));
	for (const char *c = value; *c; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("argument \"%s\" must not hold control characters", name)));
	return value;
}

IngestPipeline *
ingest_argument_pipeline(FunctionCallInfo fcinfo, const char *name)
{
	IngestPipeline *pl = ingest_pipeline_get(ingest_argument_text(fcinfo, 0, name));

	ingest_pipeline_check_owner(pl);
	return pl;
}

IngestPipeline *
ingest_definition_lock(FunctionCallInfo fcinfo, const char *name)
{
	static IngestStatement touch = {
		"UPDATE ingest._pipeline SET version = version + 1 WHERE id = $1", 1, {INT4OID}
	};
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, name);
	Datum		id = Int32GetDatum(pl->id);

	ingest_spi_begin();
	ingest_spi_run(&touch, &id, NULL);
	ingest_spi_end();
	ingest_worker_wake_at_commit();

	/* Another transaction may have changed or dropped it before we had the lock. */
	return ingest_argument_pipeline(fcinfo, name);
}

void
ingest_definition_add_part(const IngestPipeline *pl, IngestStatement *insert, Datum *values,
						   const char *kind, const char *name)
{
	uint64		added;

	ingest_spi_begin();
	added = ingest_spi_run(insert, values, NULL);
	ingest_spi_end();
	if (added == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s \"%s\" of pipeline \"%s\" already exists", kind, name, pl->name),
				 errhint("Drop it with ingest.drop_%s() first.", kind)));
}

void
ingest_definition_drop_part(FunctionCallInfo fcinfo, IngestStatement *delete, const char *kind)
{
	IngestPipeline *pl = ingest_definition_lock(fcinfo, "pipeline");
	char	   *name = ingest_argument_text(fcinfo, 1, "name");
	Datum		values[2] = {Int32GetDatum(pl->id), CStringGetTextDatum(name)};
	uint64		dropped;

	ingest_spi_begin();
	dropped = ingest_spi_run(delete, values, NULL);
	ingest_spi_end();
	if (dropped == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" of pipeline \"%s\" does not exist", kind, name, pl->name),
				 errhint("The view ingest.%s lists them.", kind)));
}

void
ingest_owner_begin(const IngestPipeline *pl, IngestOwnerScope *scope)
{
	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_context);
	scope->guc_level = ingest_usersql_begin(pl);
	SetUserIdAndSecContext(pl->owner, scope->saved_context | SECURITY_RESTRICTED_OPERATION);
}

void
ingest_owner_end(const IngestOwnerScope *scope)
{
	SetUserIdAndSecContext(scope->saved_user, scope->saved_context);
	ingest_usersql_end(scope->guc_level);
}

/* The source's row type, without reference count; keeps a lock on the source. */
static TupleDesc
source_rowtype(Oid source)
{
	Relation	rel = table_open(source, AccessShareLock);
	TupleDesc	rowtype = CreateTupleDescCopy(RelationGetDescr(rel));

	table_close(rel, NoLock);
	return rowtype;
}

void
ingest_definition_check_rules(const IngestPipeline *pl, List *rules)
{
	IngestOwnerScope scope;

	if (rules == NIL)
		return;
	ingest_owner_begin(pl, &scope);
	(void) ingest_rules_compile(rules, pl->source, source_rowtype(pl->source));
	ingest_owner_end(&scope);
}

void
ingest_definition_check_transforms(const IngestPipeline *pl, List *transforms)
{
	IngestOwnerScope scope;
	ListCell   *lc;

	ingest_owner_begin(pl, &scope);
	foreach(lc, transforms)
		ingest_transform_check(lfirst(lc), pl->source, source_rowtype(pl->source));
	ingest_owner_end(&scope);
}

void
ingest_definition_check(const IngestPipeline *pl)
{
	IngestOwnerScope scope;

	if (pl->source == pl->target)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("relation \"%s\" cannot be source and target of a pipeline", get_rel_name(pl->source)),
				 errdetail("What is written would be read again.")));
	ingest_pipeline_check_trust(pl);
	(void) ingest_source_relation_load(pl->source, pl->owner, &pl->options);

	ingest_owner_begin(pl, &scope);
	ingest_load_check(pl);
	(void) ingest_load_choose(pl, NULL);
	ingest_owner_end(&scope);

	ingest_definition_check_rules(pl, pl->rules);
	ingest_definition_check_transforms(pl, pl->transforms);
}
