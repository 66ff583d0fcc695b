/*
 * spi.c
 *		Constant statements on our own catalogs, as the extension's owner.
 *
 * SPI plans are kept for the life of the process and thrown away when the
 * extension's OID changes (DROP and CREATE EXTENSION).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static struct
{
	Oid			extension;		/* what the plans of this nest were made for */
	Oid			saved_user;
	int			saved_context;
	int			guc_level;
	bool		pushed_snapshot;
}			nest;

Oid
ingest_extension_oid(bool missing_ok)
{
	return get_extension_oid("ingest", missing_ok);
}

Oid
ingest_extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("ingest"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" does not exist", "ingest")));
	return owner;
}

void
ingest_spi_begin(void)
{
	Oid			owner = ingest_extension_owner();

	nest.extension = ingest_extension_oid(false);
	SPI_connect();

	nest.pushed_snapshot = !ActiveSnapshotSet();
	if (nest.pushed_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());

	/*
	 * As a SECURITY DEFINER function does it: (sub)transaction abort restores
	 * both the user and the setting.
	 */
	GetUserIdAndSecContext(&nest.saved_user, &nest.saved_context);
	SetUserIdAndSecContext(owner, nest.saved_context | SECURITY_LOCAL_USERID_CHANGE);
	nest.guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
ingest_spi_end(void)
{
	AtEOXact_GUC(true, nest.guc_level);
	SetUserIdAndSecContext(nest.saved_user, nest.saved_context);
	if (nest.pushed_snapshot)
		PopActiveSnapshot();
	SPI_finish();
}

static void
prepare(IngestStatement *statement)
{
	SPIPlanPtr	plan;

	if (statement->plan && statement->extension == nest.extension)
		return;
	if (statement->plan)
	{
		SPI_freeplan(statement->plan);
		statement->plan = NULL;
	}
	plan = SPI_prepare(statement->sql, statement->nargs, statement->types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed for \"%s\": %s", statement->sql,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_keepplan failed for \"%s\"", statement->sql);
	statement->plan = plan;
	statement->extension = nest.extension;
}

uint64
ingest_spi_run(IngestStatement *statement, Datum *values, const bool *isnull)
{
	char		nulls[INGEST_SPI_MAX_ARGS];
	int			rc;

	prepare(statement);
	for (int i = 0; i < statement->nargs; i++)
		nulls[i] = (isnull && isnull[i]) ? 'n' : ' ';

	rc = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "\"%s\" failed: %s", statement->sql, SPI_result_code_string(rc));
	return SPI_processed;
}

Datum
ingest_spi_value(uint64 row, const char *column, bool *isnull)
{
	int			attnum = SPI_fnumber(SPI_tuptable->tupdesc, column);

	if (attnum <= 0)
		elog(ERROR, "no column \"%s\" in the result", column);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, attnum, isnull);
}

char *
ingest_spi_text(uint64 row, const char *column, MemoryContext mcxt)
{
	int			attnum = SPI_fnumber(SPI_tuptable->tupdesc, column);
	char	   *text;

	if (attnum <= 0)
		elog(ERROR, "no column \"%s\" in the result", column);
	text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, attnum);
	return text ? MemoryContextStrdup(mcxt, text) : NULL;
}

int64
ingest_spi_int64(uint64 row, const char *column, int64 when_null)
{
	bool		isnull;
	Datum		value = ingest_spi_value(row, column, &isnull);
	int			attnum = SPI_fnumber(SPI_tuptable->tupdesc, column);

	if (isnull)
		return when_null;
	switch (SPI_gettypeid(SPI_tuptable->tupdesc, attnum))
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		case OIDOID:
		case REGCLASSOID:
		case REGROLEOID:
			return DatumGetObjectId(value);
		default:
			elog(ERROR, "column \"%s\" is not an integer", column);
	}
	return 0;
}

bool
ingest_spi_bool(uint64 row, const char *column, bool when_null)
{
	bool		isnull;
	Datum		value = ingest_spi_value(row, column, &isnull);

	return isnull ? when_null : DatumGetBool(value);
}
