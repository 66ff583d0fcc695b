/*
 * load_columns.c
 *		The mapping from source row to target row that both lanes share.
 *
 * Columns go by name.  What the target lacks is not loaded (rules and
 * transforms may still use it); what the source lacks gets its default.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "pipeline/load.h"
#include "pipeline/load_columns.h"
#include "pipeline/load_upsert.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i + 1;
	return InvalidAttrNumber;
}

/* Values of these columns are the server's to make. */
static void
check_not_computed(Relation target, Form_pg_attribute to)
{
	if (to->attidentity != ATTRIBUTE_IDENTITY_ALWAYS && to->attgenerated == '\0')
		return;
	ereport(ERROR,
			(errcode(ERRCODE_GENERATED_ALWAYS),
			 errmsg("cannot load column \"%s\" of \"%s\"", NameStr(to->attname),
					RelationGetRelationName(target)),
			 to->attgenerated ? errdetail("It is a generated column.") :
			 errdetail("It is an identity column defined as GENERATED ALWAYS."),
			 errhint("Give the source's column another name.")));
}

static void
map_column(IngestLoadColumn *column, Relation target, Form_pg_attribute to,
		   TupleDesc source, AttrNumber number)
{
	Form_pg_attribute from = TupleDescAttr(source, number - 1);
	Var		   *var = makeVar(1, number, from->atttypid, from->atttypmod, from->attcollation, 0);
	Node	   *expr;

	check_not_computed(target, to);
	expr = coerce_to_target_type(NULL, (Node *) var, from->atttypid, to->atttypid, to->atttypmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of \"%s\" is of type %s but the source's is of type %s",
						NameStr(to->attname), RelationGetRelationName(target),
						format_type_be(to->atttypid), format_type_be(from->atttypid)),
				 errhint("Give the column of the source the target's type.")));
	column->mapped = true;
	if (expr == (Node *) var)
		column->source = number;
	else
		column->expr = expression_planner((Expr *) expr);
}

/* What a column gets when it is not named; NULL for NULL. */
static Node *
make_default(Relation target, AttrNumber number)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(target), number - 1);
	Node	   *value = build_column_default(target, number);

	/* A domain may not like NULL. */
	if (value == NULL && get_typtype(att->atttypid) == TYPTYPE_DOMAIN)
	{
		int32		typmod = att->atttypmod;
		Oid			base = getBaseTypeAndTypmod(att->atttypid, &typmod);

		value = coerce_to_domain((Node *) makeNullConst(base, typmod, att->attcollation),
								 base, typmod, att->atttypid, COERCION_IMPLICIT,
								 COERCE_IMPLICIT_CAST, -1, false);
	}
	return value;
}

IngestLoadColumn *
ingest_load_columns(Relation target, TupleDesc source)
{
	TupleDesc	desc = RelationGetDescr(target);
	IngestLoadColumn *columns = palloc0(sizeof(IngestLoadColumn) * Max(desc->natts, 1));

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AttrNumber	number;
		Node	   *value;

		if (att->attisdropped)
			continue;
		number = find_column(source, NameStr(att->attname));
		if (number != InvalidAttrNumber)
			map_column(&columns[i], target, att, source, number);
		else if (att->attgenerated == '\0' && (value = make_default(target, i + 1)) != NULL)
			columns[i].expr = expression_planner((Expr *) value);
	}
	return columns;
}

void
ingest_load_check_privilege(Relation target, const IngestLoadColumn *columns)
{
	Oid			relid = RelationGetRelid(target);

	if (pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		return;
	for (int i = 0; i < RelationGetDescr(target)->natts; i++)
		if (columns[i].mapped &&
			pg_attribute_aclcheck(relid, i + 1, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)),
						   RelationGetRelationName(target));
}

void
ingest_load_check(const IngestPipeline *pl)
{
	Relation	from = table_open(pl->source, AccessShareLock);
	Relation	to = table_open(pl->target, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(to);
	IngestLoadColumn *columns;
	bool		any = false;

	if (to->rd_rel->relkind != RELKIND_RELATION &&
		to->rd_rel->relkind != RELKIND_PARTITIONED_TABLE &&
		to->rd_rel->relkind != RELKIND_FOREIGN_TABLE && to->rd_rel->relkind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be a target", RelationGetRelationName(to)),
				 errdetail("A target is a table, a partitioned table, a foreign table or a view.")));
	if (to->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("temporary table \"%s\" cannot be a target", RelationGetRelationName(to)),
				 errdetail("Workers run in sessions of their own.")));

	columns = ingest_load_columns(to, RelationGetDescr(from));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		any |= columns[i].mapped;
		if (att->attnotnull && !att->attisdropped && !att->attgenerated &&
			columns[i].source == 0 && columns[i].expr == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("nothing fills column \"%s\" of \"%s\"", NameStr(att->attname),
							RelationGetRelationName(to)),
					 errdetail("It is NOT NULL, has no default, and the source has no such column.")));
	}
	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("\"%s\" and \"%s\" have no column in common",
						RelationGetRelationName(from), RelationGetRelationName(to)),
				 errdetail("Columns of the source go to columns of the target with the same name.")));
	ingest_load_check_key(pl, from, to);
	table_close(to, AccessShareLock);
	table_close(from, AccessShareLock);
}

void
ingest_load_map_row(const IngestLoadColumn *columns, ExprState **exprs, ExprContext *values,
					TupleTableSlot *from, TupleTableSlot *to)
{
	int			natts = to->tts_tupleDescriptor->natts;

	ExecClearTuple(to);
	values->ecxt_scantuple = from;
	for (int i = 0; i < natts; i++)
	{
		AttrNumber	source = columns[i].source;

		if (source > 0)
		{
			to->tts_values[i] = from->tts_values[source - 1];
			to->tts_isnull[i] = from->tts_isnull[source - 1];
		}
		else if (exprs[i])
			to->tts_values[i] = ExecEvalExprSwitchContext(exprs[i], values, &to->tts_isnull[i]);
		else
		{
			to->tts_values[i] = (Datum) 0;
			to->tts_isnull[i] = true;
		}
	}
	ExecStoreVirtualTuple(to);
}
