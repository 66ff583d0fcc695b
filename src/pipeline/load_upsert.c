/*
 * load_upsert.c
 *		Upsert: INSERT ... ON CONFLICT (key) DO UPDATE, by the statement lane.
 *
 * A row equal to what is there is not written, so that reading a source again
 * costs no updates.  Equal means the same bytes: for some types "=" is not
 * defined (json), and for others it overlooks a change that people see (1.0 and
 * 1.00, a collation that ignores case).
 *
 * Of rows with the same key in one batch the last one counts; the statement cannot
 * touch a row twice.  Finding them costs a sort, so that it is only done when the
 * hashes of the keys say that there may be some.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pipeline/load_upsert.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

struct IngestLoadKey
{
	int			n;
	AttrNumber *attnums;		/* of the target */
	Oid		   *collations;
	TypeCacheEntry **types;
	char	  **names;
	bool		hashable;
	bool		repeated;
	HTAB	   *seen;			/* of hashes */
};

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

static bool
is_key_index(Relation index, const AttrNumber *attnums, int n)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || !form->indimmediate ||
		form->indnkeyatts != n || RelationGetIndexPredicate(index) != NIL ||
		RelationGetIndexExpressions(index) != NIL)
		return false;
	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (int k = 0; k < n; k++)
			found |= form->indkey.values[k] == attnums[i];
		if (!found)
			return false;
	}
	return true;
}

static bool
has_key_index(Relation target, const AttrNumber *attnums, int n)
{
	List	   *indexes = RelationGetIndexList(target);
	ListCell   *lc;
	bool		found = false;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= is_key_index(index, attnums, n);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
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

/* Besides INSERT, which every pipeline needs. */
static void
check_privileges(const IngestPipeline *pl, Relation target)
{
	static const struct
	{
		AclMode		mode;
		const char *name;
	}			privileges[] = {{ACL_SELECT, "SELECT"}, {ACL_UPDATE, "UPDATE"}, {ACL_DELETE, "DELETE"}};
	AclMode		needed = ingest_load_by_key(pl) ? ACL_SELECT | ACL_UPDATE : 0;

	if (pl->options.mode == INGEST_MODE_REPLACE && pl->options.on_delete == INGEST_DELETE_DELETE)
		needed |= ACL_DELETE;
	for (int i = 0; i < lengthof(privileges); i++)
		if ((needed & privileges[i].mode) &&
			pg_class_aclcheck(RelationGetRelid(target), pl->owner, privileges[i].mode) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for relation %s", RelationGetRelationName(target)),
					 errdetail("Role \"%s\", the owner of pipeline \"%s\", needs %s on it.",
							   GetUserNameFromId(pl->owner, true), pl->name, privileges[i].name)));
}

static void
check_mark(const IngestPipeline *pl, Relation source, Relation target)
{
	const char *name = pl->options.mark_column;
	AttrNumber	attnum;
	Oid			typid = InvalidOid;

	if (pl->options.mode != INGEST_MODE_REPLACE || pl->options.on_delete != INGEST_DELETE_MARK)
		return;
	attnum = name ? get_attnum(RelationGetRelid(target), name) : InvalidAttrNumber;
	if (attnum > 0)
		typid = getBaseType(get_atttype(RelationGetRelid(target), attnum));
	if (typid != BOOLOID && typid != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_delete \"%s\" needs a \"mark_column\" of type boolean or timestamp with time zone", "mark"),
				 attnum > 0 ? errdetail("Column \"%s\" of the target has another type.", name) :
				 name ? errdetail("The target has no column \"%s\".", name) : 0));
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

	check_privileges(pl, target);
	if (!ingest_load_by_key(pl))
		return;
	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode \"%s\" needs a key", "upsert"),
				 errhint("Say key => '{id}', the columns that tell the target's rows apart.")));
	check_target_kind(target);
	foreach(lc, columns)
		attnums[n++] = find_key_column(lfirst(lc), source, target);
	if (!has_key_index(target, attnums, n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("no unique index of \"%s\" is on the key (%s)", RelationGetRelationName(target),
						pl->options.key),
				 errdetail("It must be on exactly these columns, without a condition, and not deferrable."),
				 errhint("CREATE UNIQUE INDEX ON %s (%s);",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
													RelationGetRelationName(target)),
						 pl->options.key)));
	check_mark(pl, source, target);
}

/* ---- keys of rows ---- */

static void
forget_keys(IngestLoadKey *key)
{
	HASHCTL		ctl = {.keysize = sizeof(uint64), .entrysize = sizeof(uint64)};

	if (key->seen)
		hash_destroy(key->seen);
	ctl.hcxt = CurrentMemoryContext;
	key->seen = hash_create("ingest keys", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	key->repeated = !key->hashable;
}

IngestLoadKey *
ingest_load_key_open(const IngestPipeline *pl, Relation target)
{
	IngestLoadKey *key = palloc0(sizeof(IngestLoadKey));
	List	   *columns = key_columns(pl);
	ListCell   *lc;

	key->attnums = palloc(sizeof(AttrNumber) * list_length(columns));
	key->collations = palloc(sizeof(Oid) * list_length(columns));
	key->types = palloc(sizeof(TypeCacheEntry *) * list_length(columns));
	key->names = palloc(sizeof(char *) * list_length(columns));
	key->hashable = true;
	foreach(lc, columns)
	{
		AttrNumber	attnum = get_attnum(RelationGetRelid(target), lfirst(lc));
		Form_pg_attribute att;
		TypeCacheEntry *type;

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of the key does not exist in \"%s\"", (char *) lfirst(lc),
							RelationGetRelationName(target))));
		att = TupleDescAttr(RelationGetDescr(target), attnum - 1);
		type = lookup_type_cache(att->atttypid, TYPECACHE_HASH_EXTENDED_PROC_FINFO);
		key->attnums[key->n] = attnum;
		key->collations[key->n] = att->attcollation;
		key->types[key->n] = type;
		key->names[key->n] = pstrdup(lfirst(lc));
		key->hashable &= OidIsValid(type->hash_extended_proc_finfo.fn_oid);
		key->n++;
	}
	forget_keys(key);
	return key;
}

bool
ingest_load_key_note(IngestLoadKey *key, const Datum *values, const bool *isnull, IngestLoadError *err)
{
	uint64		hash = 0;
	bool		found;

	for (int i = 0; i < key->n; i++)
	{
		AttrNumber	attnum = key->attnums[i];

		if (isnull[attnum - 1])
		{
			memset(err, 0, sizeof(*err));
			err->sqlstate = ERRCODE_NOT_NULL_VIOLATION;
			err->message = psprintf("null value in column \"%s\", which is of the key", key->names[i]);
			err->column = key->names[i];
			return false;
		}
		if (key->hashable && !key->repeated)
			hash = hash_combine64(hash,
								  DatumGetUInt64(FunctionCall2Coll(&key->types[i]->hash_extended_proc_finfo,
																   key->collations[i], values[attnum - 1],
																   Int64GetDatum(0))));
	}
	if (!key->repeated)
	{
		(void) hash_search(key->seen, &hash, HASH_ENTER, &found);
		key->repeated = found;
	}
	return true;
}

bool
ingest_load_key_repeated(const IngestLoadKey *key)
{
	return key->repeated;
}

void
ingest_load_key_reset(IngestLoadKey *key)
{
	forget_keys(key);
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
	bool		is_bool = getBaseType(get_atttype(RelationGetRelid(target),
												  get_attnum(RelationGetRelid(target), pl->options.mark_column))) == BOOLOID;

	if (condition)
		appendStringInfo(sql, "ingest_target.%s IS %s", mark, is_bool ? "TRUE" : "NOT NULL");
	else
		appendStringInfo(sql, "%s = %s", mark, is_bool ? "false" : "NULL");
}

static void
append_update(StringInfo sql, const IngestPipeline *pl, Relation target, const AttrNumber *others, int n)
{
	bool		marks = pl->options.mode == INGEST_MODE_REPLACE && pl->options.on_delete == INGEST_DELETE_MARK;
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
						  const AttrNumber *columns, int n, bool repeated)
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
	if (repeated)
	{
		appendStringInfoString(&sql, "DISTINCT ON (");
		append_columns(&sql, target, key->attnums, key->n, "");
		appendStringInfoString(&sql, ") ");
	}
	append_columns(&sql, target, columns, n, "");
	appendStringInfoString(&sql, " FROM batch");
	if (repeated)
	{
		appendStringInfoString(&sql, " ORDER BY ");
		append_columns(&sql, target, key->attnums, key->n, "");
		appendStringInfoString(&sql, ", " INGEST_LOAD_ORDINAL " DESC");
	}
	appendStringInfoString(&sql, " ON CONFLICT (");
	append_columns(&sql, target, key->attnums, key->n, "");
	appendStringInfoChar(&sql, ')');
	append_update(&sql, pl, target, others, nothers);
	return sql.data;
}

char *
ingest_load_key_count_statement(const IngestLoadKey *key, Relation target)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.count(*) FROM (SELECT DISTINCT ");
	append_columns(&sql, target, key->attnums, key->n, "");
	appendStringInfoString(&sql, " FROM batch) AS keys");
	return sql.data;
}
