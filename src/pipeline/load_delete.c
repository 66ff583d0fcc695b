/*
 * load_delete.c
 *		Rows of the target that the source has no more: SQL, through the
 *		executor, so that triggers, foreign keys and partitions are respected.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "pipeline/load_delete.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

/* The name under which the statement sees the keys. */
#define KEYS "ingest_keys"

static char *
target_name(const IngestPipeline *pl)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(pl->target)),
									  get_rel_name(pl->target));
}

/* Rows that a policy hides would stay, and nobody would know. */
static void
check_row_security(const IngestPipeline *pl)
{
	if (check_enable_rls(pl->target, pl->owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security hides rows of \"%s\" from the owner of pipeline \"%s\"",
						get_rel_name(pl->target), pl->name),
				 errdetail("Mode \"replace\" has to see all of them."),
				 errhint("Exempt the owner of the table, or the role: BYPASSRLS.")));
}

int64
ingest_load_delete_all(const IngestPipeline *pl)
{
	int64		deleted;

	check_row_security(pl);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute(psprintf("DELETE FROM %s", target_name(pl)), false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not empty the target: %s", SPI_result_code_string(SPI_result));
	deleted = (int64) SPI_processed;
	SPI_finish();
	return deleted;
}

static void
register_keys(Tuplestorestate *keys, TupleDesc desc, int64 nkeys)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = KEYS;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = nkeys;
	relation->reldata = keys;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the keys");
}

/* NOT EXISTS (a key that is equal), in the types of the target. */
static void
append_missing(StringInfo sql, const IngestPipeline *pl, TupleDesc desc)
{
	appendStringInfoString(sql, "NOT EXISTS (SELECT FROM " KEYS " k WHERE ");
	for (int i = 0; i < desc->natts; i++)
	{
		const char *attname = NameStr(TupleDescAttr(desc, i)->attname);
		AttrNumber	attnum = get_attnum(pl->target, attname);
		const char *name = quote_identifier(attname);

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the target has no column \"%s\", which is of the key", attname)));
		appendStringInfo(sql, "%st.%s = k.%s::%s", i > 0 ? " AND " : "", name, name,
						 format_type_be_qualified(get_atttype(pl->target, attnum)));
	}
	appendStringInfoChar(sql, ')');
}

/* How the mark of a row is set, and when it is. */
static void
describe_mark(const IngestPipeline *pl, const char **set, char **is_set)
{
	const char *name = pl->options.mark_column;
	AttrNumber	attnum = name ? get_attnum(pl->target, name) : InvalidAttrNumber;
	Oid			typid = attnum > 0 ? getBaseType(get_atttype(pl->target, attnum)) : InvalidOid;

	if (typid != BOOLOID && typid != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_delete \"%s\" needs a \"mark_column\" of type boolean or timestamp with time zone", "mark"),
				 name ? errdetail("The target's column \"%s\" is none.", name) : 0));
	*set = typid == BOOLOID ? "true" : "pg_catalog.now()";
	*is_set = psprintf(typid == BOOLOID ? "t.%s IS TRUE" : "t.%s IS NOT NULL", quote_identifier(name));
}

/* Runs in SPI.  Rows that it counted, or changed. */
static int64
run_statement(const char *sql, int expected)
{
	bool		isnull;

	if (SPI_execute(sql, false, 0) != expected)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	if (expected != SPI_OK_SELECT)
		return (int64) SPI_processed;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

void
ingest_load_delete_missing(const IngestPipeline *pl, Tuplestorestate *keys, TupleDesc desc,
						   int64 nkeys, IngestMissing *result)
{
	const char *target = target_name(pl);
	const char *set = NULL;
	char	   *is_set = "false";
	StringInfoData missing;

	memset(result, 0, sizeof(*result));
	if (pl->options.on_delete == INGEST_DELETE_IGNORE)
		return;
	check_row_security(pl);
	if (pl->options.on_delete == INGEST_DELETE_MARK)
		describe_mark(pl, &set, &is_set);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	register_keys(keys, desc, nkeys);
	initStringInfo(&missing);
	append_missing(&missing, pl, desc);

	result->rows = run_statement(psprintf("SELECT pg_catalog.count(*) FROM %s t WHERE NOT (%s)", target, is_set),
								 SPI_OK_SELECT);
	if (set)
		result->missing = run_statement(psprintf("UPDATE %s t SET %s = %s WHERE NOT (%s) AND %s", target,
												 quote_identifier(pl->options.mark_column), set, is_set,
												 missing.data), SPI_OK_UPDATE);
	else
		result->missing = run_statement(psprintf("DELETE FROM %s t WHERE %s", target, missing.data),
										SPI_OK_DELETE);
	SPI_finish();
}
