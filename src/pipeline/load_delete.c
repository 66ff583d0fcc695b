/*
 * load_delete.c
 *		Rows of the target that the source has no more: SQL, through the
 *		executor, so that triggers, foreign keys and partitions are respected.
 *
 * Keys are compared as the target compares them: in its types, with the default
 * equality of each.  They are cast as rows are when they are loaded, one by one
 * where a cast may fail: such a row has become a dead letter, and nothing in the
 * target can have its key.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pipeline/load_columns.h"
#include "pipeline/load_delete.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/typcache.h"

/* The name under which the statement sees the keys. */
#define KEYS "ingest_keys"

/* Keys that are cast in one subtransaction, as long as none fails. */
#define CAST_KEYS 1000

/* ---- what may be done ---- */

bool
ingest_load_marks(const IngestPipeline *pl)
{
	return pl->options.mode == INGEST_MODE_REPLACE && pl->options.on_delete == INGEST_DELETE_MARK;
}

Oid
ingest_load_mark_type(const IngestPipeline *pl, Oid target)
{
	const char *name = pl->options.mark_column;
	AttrNumber	attnum = name ? get_attnum(target, name) : InvalidAttrNumber;
	Oid			typid = attnum > 0 ? getBaseType(get_atttype(target, attnum)) : InvalidOid;

	if (typid != BOOLOID && typid != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_delete \"%s\" needs a \"mark_column\" of type boolean or timestamp with time zone", "mark"),
				 attnum > 0 ? errdetail("Column \"%s\" of the target has another type.", name) :
				 name ? errdetail("The target has no column \"%s\".", name) : 0));
	return typid;
}

void
ingest_load_check_row_security(const IngestPipeline *pl, Oid target)
{
	if (pl->options.on_delete == INGEST_DELETE_IGNORE ||
		check_enable_rls(target, pl->owner, true) != RLS_ENABLED)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("row security hides rows of \"%s\" from the owner of pipeline \"%s\"",
					get_rel_name(target), pl->name),
			 errdetail("Mode \"replace\" has to see all of them."),
			 errhint("Exempt the owner of the table, or the role: BYPASSRLS.")));
}

/* ---- statements ---- */

static char *
target_name(const IngestPipeline *pl)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(pl->target)),
									  get_rel_name(pl->target));
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

int64
ingest_load_delete_all(const IngestPipeline *pl)
{
	int64		deleted;

	ingest_load_check_row_security(pl, pl->target);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	deleted = run_statement(psprintf("DELETE FROM %s", target_name(pl)), SPI_OK_DELETE);
	SPI_finish();
	return deleted;
}

/* How the mark of a row is set, and when it is; NULL and "false": rows are not marked. */
static char *
describe_mark(const IngestPipeline *pl, const char **set)
{
	bool		is_bool;

	*set = NULL;
	if (!ingest_load_marks(pl))
		return "false";
	is_bool = ingest_load_mark_type(pl, pl->target) == BOOLOID;
	*set = is_bool ? "true" : "pg_catalog.now()";
	return psprintf(is_bool ? "t.%s IS TRUE" : "t.%s IS NOT NULL",
					quote_identifier(pl->options.mark_column));
}

int64
ingest_load_count_rows(const IngestPipeline *pl)
{
	const char *set;
	char	   *is_set = describe_mark(pl, &set);
	int64		rows;

	ingest_load_check_row_security(pl, pl->target);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rows = run_statement(psprintf("SELECT pg_catalog.count(*) FROM %s t WHERE NOT (%s)",
								  target_name(pl), is_set), SPI_OK_SELECT);
	SPI_finish();
	return rows;
}

/* ---- keys in the target's types ---- */

typedef struct Cast
{
	MemoryContext mcxt;			/* of what is made of a part */
	EState	   *estate;
	ExprContext *econtext;
	TupleTableSlot *from;
	TupleTableSlot *to;
	ExprState **exprs;			/* by column of the key; NULL: as it is */
	bool		needed;
	Tuplestorestate *keys;
	int64		nkeys;
} Cast;

/* The columns of the key as the target has them. */
static TupleDesc
describe_keys(const IngestPipeline *pl, Relation target, TupleDesc from)
{
	TupleDesc	to = CreateTemplateTupleDesc(from->natts);

	for (int i = 0; i < from->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(from, i)->attname);
		AttrNumber	attnum = get_attnum(RelationGetRelid(target), name);

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the target has no column \"%s\", which is of the key", name)));
		TupleDescCopyEntry(to, i + 1, RelationGetDescr(target), attnum);
	}
	return to;
}

static void
open_cast(Cast *cast, Relation target, TupleDesc from, TupleDesc to)
{
	IngestLoadColumn *columns = ingest_load_columns(target, from);

	memset(cast, 0, sizeof(*cast));
	cast->exprs = palloc0(sizeof(ExprState *) * from->natts);
	cast->estate = CreateExecutorState();
	cast->econtext = CreateExprContext(cast->estate);
	for (int i = 0; i < from->natts; i++)
	{
		AttrNumber	attnum = get_attnum(RelationGetRelid(target),
										NameStr(TupleDescAttr(from, i)->attname));

		if (columns[attnum - 1].expr == NULL)
			continue;
		cast->exprs[i] = ExecInitExpr(columns[attnum - 1].expr, NULL);
		cast->needed = true;
	}
	if (!cast->needed)
		return;
	cast->mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest keys cast", ALLOCSET_DEFAULT_SIZES);
	cast->from = MakeSingleTupleTableSlot(from, &TTSOpsMinimalTuple);
	cast->to = MakeSingleTupleTableSlot(to, &TTSOpsMinimalTuple);
	cast->keys = tuplestore_begin_heap(false, false, work_mem);
}

static void
close_cast(Cast *cast)
{
	FreeExecutorState(cast->estate);
	if (!cast->needed)
		return;
	ExecDropSingleTupleTableSlot(cast->from);
	ExecDropSingleTupleTableSlot(cast->to);
	MemoryContextDelete(cast->mcxt);
	tuplestore_end(cast->keys);
}

static MinimalTuple
cast_key(Cast *cast, MinimalTuple key)
{
	TupleDesc	desc = cast->to->tts_tupleDescriptor;
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *isnull = palloc(sizeof(bool) * desc->natts);
	MinimalTuple made;

	ResetExprContext(cast->econtext);
	ExecStoreMinimalTuple(key, cast->from, false);
	slot_getallattrs(cast->from);
	cast->econtext->ecxt_scantuple = cast->from;
	for (int i = 0; i < desc->natts; i++)
	{
		values[i] = cast->from->tts_values[i];
		isnull[i] = cast->from->tts_isnull[i];
		if (cast->exprs[i])
			values[i] = ExecEvalExprSwitchContext(cast->exprs[i], cast->econtext, &isnull[i]);
	}
	made = ingest_compat_form_minimal_tuple(desc, values, isnull);
	pfree(values);
	pfree(isnull);
	return made;
}

/* False: one of them cannot be cast. */
static bool
try_cast(Cast *cast, MinimalTuple *keys, int n, MinimalTuple *made)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	volatile bool ok = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cast->mcxt);
	PG_TRY();
	{
		for (int i = 0; i < n; i++)
			made[i] = cast_key(cast, keys[i]);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		if (category != MAKE_SQLSTATE('2', '2', '0', '0', '0') &&
			category != MAKE_SQLSTATE('2', '3', '0', '0', '0'))
			PG_RE_THROW();
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return ok;
}

/* Halves and halves of halves, until a key that cannot be cast is alone. */
static void
cast_part(Cast *cast, MinimalTuple *keys, int n, MinimalTuple *made)
{
	if (n == 0)
		return;
	if (!try_cast(cast, keys, n, made))
	{
		if (n == 1)
			return;
		cast_part(cast, keys, n / 2, made);
		cast_part(cast, keys + n / 2, n - n / 2, made);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		ExecStoreMinimalTuple(made[i], cast->to, false);
		tuplestore_puttupleslot(cast->keys, cast->to);
	}
	cast->nkeys += n;
}

static void
cast_keys(Cast *cast, Tuplestorestate *keys)
{
	MinimalTuple *part = palloc(sizeof(MinimalTuple) * CAST_KEYS);
	MinimalTuple *made = palloc(sizeof(MinimalTuple) * CAST_KEYS);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(cast->from->tts_tupleDescriptor, &TTSOpsMinimalTuple);
	int			n;

	do
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(cast->mcxt);

		for (n = 0; n < CAST_KEYS && tuplestore_gettupleslot(keys, true, false, slot); n++)
			part[n] = ExecCopySlotMinimalTuple(slot);
		MemoryContextSwitchTo(oldcontext);
		cast_part(cast, part, n, made);
		ExecClearTuple(cast->from);
		ExecClearTuple(cast->to);
		MemoryContextReset(cast->mcxt);
	} while (n == CAST_KEYS);
	ExecDropSingleTupleTableSlot(slot);
}

/* ---- what is missing ---- */

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

/* NOT EXISTS (a key that is equal). */
static void
append_missing(StringInfo sql, TupleDesc desc)
{
	appendStringInfoString(sql, "NOT EXISTS (SELECT FROM " KEYS " k WHERE ");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = quote_identifier(NameStr(att->attname));
		Oid			operator = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR)->eq_opr;

		if (i > 0)
			appendStringInfoString(sql, " AND ");
		generate_operator_clause(sql, psprintf("t.%s", name), att->atttypid, operator,
								 psprintf("k.%s", name), att->atttypid);
	}
	appendStringInfoChar(sql, ')');
}

static void
write_missing(const IngestPipeline *pl, Tuplestorestate *keys, TupleDesc desc, int64 nkeys,
			  IngestMissing *result)
{
	const char *target = target_name(pl);
	const char *set;
	char	   *is_set = describe_mark(pl, &set);
	StringInfoData missing;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	register_keys(keys, desc, nkeys);
	initStringInfo(&missing);
	append_missing(&missing, desc);
	if (set)
		result->missing = run_statement(psprintf("UPDATE %s t SET %s = %s WHERE NOT (%s) AND %s", target,
												 quote_identifier(pl->options.mark_column), set, is_set,
												 missing.data), SPI_OK_UPDATE);
	else
		result->missing = run_statement(psprintf("DELETE FROM %s t WHERE %s", target, missing.data),
										SPI_OK_DELETE);
	SPI_finish();
}

void
ingest_load_delete_missing(const IngestPipeline *pl, Tuplestorestate *keys, TupleDesc desc,
						   int64 nkeys, IngestMissing *result)
{
	Relation	target = table_open(pl->target, RowExclusiveLock);
	TupleDesc	to = describe_keys(pl, target, desc);
	Cast		cast;

	result->rows = ingest_load_count_rows(pl);
	open_cast(&cast, target, desc, to);
	table_close(target, NoLock);
	if (cast.needed)
		cast_keys(&cast, keys);
	write_missing(pl, cast.needed ? cast.keys : keys, to, cast.needed ? cast.nkeys : nkeys, result);
	close_cast(&cast);
}
