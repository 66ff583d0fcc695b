/*
 * load_upsert.c
 *		Upsert: INSERT ... ON CONFLICT (key) DO UPDATE, by the statement lane.
 *
 * A row equal to what is there is not written, so that reading a source again
 * costs no updates.  Equal means the same bytes: for some types "=" is not
 * defined (json), and for others it overlooks a change that people see (1.0 and
 * 1.00, a collation that ignores case).
 *
 * Of rows with the same key in one batch the last one counts, see load_key.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pipeline/load_delete.h"
#include "pipeline/load_upsert.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

bool
ingest_load_by_key(const IngestPipeline *pl)
{
	return pl->options.mode == INGEST_MODE_UPSERT ||
		(pl->options.mode == INGEST_MODE_REPLACE && pl->options.key != NULL);
}

static List *
key_columns(const IngestPipeline *pl)
{
	List	   *columns;

	if (!ingest_pipeline_split_columns(pl->options.key, &columns))
		elog(ERROR, "the key of pipeline \"%s\" is no list of columns", pl->name);
	return columns;
}

/* ---- definition ---- */

/* Equal for the index is what is equal for the type, or nobody could find a row's equals. */
static bool
compares_alike(Relation index, int i, Form_pg_attribute att)
{
	TypeCacheEntry *type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR);

	return index->rd_indcollation[i] == att->attcollation &&
		get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i], index->rd_opcintype[i],
							BTEqualStrategyNumber) == type->eq_opr;
}

static bool
is_on_key(Relation index, TupleDesc desc, const AttrNumber *attnums, int n)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || form->indnkeyatts != n ||
		RelationGetIndexPredicate(index) != NIL || RelationGetIndexExpressions(index) != NIL)
		return false;
	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (int k = 0; k < n; k++)
			found |= form->indkey.values[k] == attnums[i] &&
				compares_alike(index, k, TupleDescAttr(desc, attnums[i] - 1));
		if (!found)
			return false;
	}
	return true;
}

/* The server wants none to be deferrable of those that are on the key. */
static bool
has_key_index(Relation target, const AttrNumber *attnums, int n)
{
	List	   *indexes = RelationGetIndexList(target);
	ListCell   *lc;
	bool		found = false;
	bool		deferrable = false;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_on_key(index, RelationGetDescr(target), attnums, n))
		{
			found = true;
			deferrable |= !index->rd_index->indimmediate;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found && !deferrable;
}

static void
check_key_index(const IngestPipeline *pl, Relation target, const AttrNumber *attnums, int n)
{
	if (has_key_index(target, attnums, n))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
			 errmsg("no unique index of \"%s\" is on the key (%s)", RelationGetRelationName(target),
					pl->options.key),
			 errdetail("It must be on exactly these columns, with their collations and operators, without a condition, and not deferrable."),
			 errhint("CREATE UNIQUE INDEX ON %s (%s);",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
												RelationGetRelationName(target)),
					 pl->options.key)));
}

static void
check_target_kind(Relation target)
{
	const char *name = RelationGetRelationName(target);

	if (target->rd_rel->relkind != RELKIND_RELATION && target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be written by key", name),
				 errdetail("INSERT ... ON CONFLICT works for tables and partitioned tables.")));
	if (target->rd_rules != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be written by key", name),
				 errdetail("It has rules, which INSERT ... ON CONFLICT does not know.")));
}

static void
check_privilege(const IngestPipeline *pl, Relation target, AttrNumber attnum, AclMode mode,
				const char *name)
{
	Oid			relid = RelationGetRelid(target);

	if (pg_class_aclcheck(relid, pl->owner, mode) == ACLCHECK_OK)
		return;
	if (attnum != InvalidAttrNumber &&
		pg_attribute_aclcheck(relid, attnum, pl->owner, mode) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for relation %s", RelationGetRelationName(target)),
			 errdetail("Role \"%s\", the owner of pipeline \"%s\", needs %s on it.",
					   GetUserNameFromId(pl->owner, true), pl->name, name)));
}

/* Besides INSERT, which every pipeline needs. */
static void
check_privileges(const IngestPipeline *pl, Relation source, Relation target, List *key)
{
	TupleDesc	desc = RelationGetDescr(target);
	bool		marks = ingest_load_marks(pl);
	ListCell   *lc;

	if (pl->options.mode == INGEST_MODE_REPLACE && pl->options.on_delete == INGEST_DELETE_DELETE)
		check_privilege(pl, target, InvalidAttrNumber, ACL_DELETE, "DELETE");
	if (!ingest_load_by_key(pl))
		return;
	for (int i = 0; i < desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);
		bool		is_mark = marks && strcmp(name, pl->options.mark_column) == 0;
		bool		is_key = false;

		if (TupleDescAttr(desc, i)->attisdropped ||
			(!is_mark && get_attnum(RelationGetRelid(source), name) <= 0))
			continue;
		foreach(lc, key)
			is_key |= strcmp(name, lfirst(lc)) == 0;
		check_privilege(pl, target, i + 1, ACL_SELECT, "SELECT");
		if (!is_key)
			check_privilege(pl, target, i + 1, ACL_UPDATE, "UPDATE");
	}
}

/* What a policy hides would be taken for missing, or stay without anybody knowing. */
static void
check_row_security(const IngestPipeline *pl, Relation target)
{
	if (pl->options.mode == INGEST_MODE_REPLACE)
		ingest_load_check_row_security(pl, RelationGetRelid(target));
}

static void
check_mark(const IngestPipeline *pl, Relation source, Relation target)
{
	const char *name = pl->options.mark_column;
	AttrNumber	attnum;
	Oid			typid;

	if (!ingest_load_marks(pl))
		return;
	typid = ingest_load_mark_type(pl, RelationGetRelid(target));
	attnum = get_attnum(RelationGetRelid(target), name);
	if (typid == TIMESTAMPTZOID && TupleDescAttr(RelationGetDescr(target), attnum - 1)->attnotnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"mark_column\" \"%s\" is NOT NULL", name),
				 errdetail("Rows that are not marked have no time in it.")));
	if (get_attnum(RelationGetRelid(source), name) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the source has a column \"%s\", too, which is the \"mark_column\"", name)));
}

static AttrNumber
find_key_column(const char *name, Relation source, Relation target)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(target), name);

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of the key does not exist in \"%s\"", name,
						RelationGetRelationName(target))));
	if (get_attnum(RelationGetRelid(source), name) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of the key does not exist in \"%s\"", name,
						RelationGetRelationName(source)),
				 errdetail("The source has to say which row it is.")));
	return attnum;
}

void
ingest_load_check_key(const IngestPipeline *pl, Relation source, Relation target)
{
	List	   *columns = key_columns(pl);
	AttrNumber *attnums = palloc(sizeof(AttrNumber) * Max(list_length(columns), 1));
	ListCell   *lc;
	int			n = 0;

	if (pl->options.mode == INGEST_MODE_REPLACE && columns == NIL &&
		pl->options.on_delete != INGEST_DELETE_DELETE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_delete \"%s\" needs a key",
						pl->options.on_delete == INGEST_DELETE_MARK ? "mark" : "ignore"),
				 errdetail("Without one all rows are deleted and loaded again.")));
	if (ingest_load_by_key(pl) && columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode \"%s\" needs a key", "upsert"),
				 errhint("Say key => '{id}', the columns that tell the target's rows apart.")));
	if (ingest_load_by_key(pl))
		check_target_kind(target);
	check_mark(pl, source, target);
	check_privileges(pl, source, target, columns);
	check_row_security(pl, target);
	if (!ingest_load_by_key(pl))
		return;
	foreach(lc, columns)
		attnums[n++] = find_key_column(lfirst(lc), source, target);
	check_key_index(pl, target, attnums, n);
}

/* ---- at run time ---- */

/* Columns and index were there when the pipeline was defined. */
IngestLoadKey *
ingest_load_key_open(const IngestPipeline *pl, Relation target)
{
	List	   *columns = key_columns(pl);
	AttrNumber *attnums = palloc(sizeof(AttrNumber) * Max(list_length(columns), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, columns)
	{
		attnums[n] = get_attnum(RelationGetRelid(target), lfirst(lc));
		if (attnums[n++] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of the key does not exist in \"%s\"", (char *) lfirst(lc),
							RelationGetRelationName(target))));
	}
	check_key_index(pl, target, attnums, n);
	return ingest_load_key_make(target, attnums, n);
}

bool
ingest_load_key_given(const IngestLoadKey *key, const bool *isnull, IngestLoadError *err)
{
	for (int i = 0; i < key->n; i++)
	{
		if (!isnull[key->attnums[i] - 1])
			continue;
		memset(err, 0, sizeof(*err));
		err->sqlstate = ERRCODE_NOT_NULL_VIOLATION;
		err->message = psprintf("null value in column \"%s\", which is of the key", key->names[i]);
		err->column = key->names[i];
		return false;
	}
	return true;
}

/* ---- statements ---- */

static const char *
column_name(Relation target, AttrNumber attnum)
{
	return quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(target), attnum - 1)->attname));
}

static void
append_columns(StringInfo sql, Relation target, const AttrNumber *columns, int n, const char *prefix)
{
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%s%s%s", i > 0 ? ", " : "", prefix, column_name(target, columns[i]));
}

static bool
is_of_key(const IngestLoadKey *key, AttrNumber attnum)
{
	for (int i = 0; i < key->n; i++)
		if (key->attnums[i] == attnum)
			return true;
	return false;
}

/* A row that was marked as gone has come back. */
static void
append_unmark(StringInfo sql, const IngestPipeline *pl, Relation target, bool condition)
{
	const char *mark = quote_identifier(pl->options.mark_column);
	bool		is_bool = ingest_load_mark_type(pl, RelationGetRelid(target)) == BOOLOID;

	if (condition)
		appendStringInfo(sql, "ingest_target.%s IS %s", mark, is_bool ? "TRUE" : "NOT NULL");
	else
		appendStringInfo(sql, "%s = %s", mark, is_bool ? "false" : "NULL");
}

static void
append_update(StringInfo sql, const IngestPipeline *pl, Relation target, const AttrNumber *others, int n)
{
	bool		marks = ingest_load_marks(pl);
	const char *separator = "";

	if (n == 0 && !marks)
	{
		appendStringInfoString(sql, " DO NOTHING");
		return;
	}
	appendStringInfoString(sql, " DO UPDATE SET ");
	for (int i = 0; i < n; i++, separator = ", ")
		appendStringInfo(sql, "%s%s = EXCLUDED.%s", separator, column_name(target, others[i]),
						 column_name(target, others[i]));
	if (marks)
	{
		appendStringInfoString(sql, separator);
		append_unmark(sql, pl, target, false);
	}
	appendStringInfoString(sql, " WHERE ");
	if (n > 0)
	{
		appendStringInfoString(sql, "ROW(");
		append_columns(sql, target, others, n, "ingest_target.");
		appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
		append_columns(sql, target, others, n, "EXCLUDED.");
		appendStringInfoString(sql, ")::record");
	}
	if (marks)
	{
		appendStringInfoString(sql, n > 0 ? " OR " : "");
		append_unmark(sql, pl, target, true);
	}
}

char *
ingest_load_key_statement(const IngestPipeline *pl, Relation target, const IngestLoadKey *key,
						  const AttrNumber *columns, int n)
{
	AttrNumber *others = palloc(sizeof(AttrNumber) * Max(n, 1));
	StringInfoData sql;
	int			nothers = 0;

	for (int i = 0; i < n; i++)
		if (!is_of_key(key, columns[i]))
			others[nothers++] = columns[i];

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s AS ingest_target (",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
												RelationGetRelationName(target)));
	append_columns(&sql, target, columns, n, "");
	appendStringInfoString(&sql, ") SELECT ");
	append_columns(&sql, target, columns, n, "");
	appendStringInfoString(&sql, " FROM batch ON CONFLICT (");
	append_columns(&sql, target, key->attnums, key->n, "");
	appendStringInfoChar(&sql, ')');
	append_update(&sql, pl, target, others, nothers);
	return sql.data;
}
