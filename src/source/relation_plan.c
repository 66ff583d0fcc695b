/*
 * relation_plan.c
 *		From a definition to how a relation is read, with everything checked
 *		that can be told without reading it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "source/relation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

/* ---- columns ---- */

static void
describe_column(Relation rel, AttrNumber attnum, IngestCursorColumn *column)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

	column->attnum = attnum;
	column->attname = pstrdup(NameStr(att->attname));
	column->name = pstrdup(quote_identifier(column->attname));
	column->typmod = att->atttypmod;
	column->typid = getBaseTypeAndTypmod(att->atttypid, &column->typmod);
	column->not_null = att->attnotnull;
	column->is_time = column->typid == DATEOID || column->typid == TIMESTAMPOID ||
		column->typid == TIMESTAMPTZOID;
}

static AttrNumber
find_column(Relation rel, const char *name, const char *option)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);
	IngestClosest closest;

	if (attnum > 0)
		return attnum;
	ingest_closest_begin(&closest, name);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
		if (!TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			ingest_closest_consider(&closest, NameStr(TupleDescAttr(RelationGetDescr(rel), i)->attname));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of option \"%s\" does not exist in \"%s\"", name, option,
					RelationGetRelationName(rel)),
			 closest.match ? errhint("Did you mean \"%s\"?", closest.match) : 0));
	return InvalidAttrNumber;
}

/* What can be ordered, exactly, and written as text. */
static void
check_orderable(Relation rel, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	Oid			typid = getBaseType(att->atttypid);

	if (typid == FLOAT4OID || typid == FLOAT8OID || !OidIsValid(GetDefaultOpClass(typid, BTREE_AM_OID)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("column \"%s\" of type %s cannot be a cursor", NameStr(att->attname),
						format_type_be(att->atttypid)),
				 errdetail("A cursor has an order, and no values that are rounded."),
				 errhint("Use columns that grow with every change, such as 'updated_at, id'.")));
	if (OidIsValid(att->attcollation) && !get_collation_isdeterministic(att->attcollation))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("column \"%s\" cannot be a cursor", NameStr(att->attname)),
				 errdetail("Its collation calls values equal that are not.")));
}

/* Names of an option, as columns; those of "columns" before are left out. */
static void
add_columns(Relation rel, const char *option, const char *text, IngestCursorColumn *columns, int *n)
{
	List	   *names;
	ListCell   *lc;

	if (!ingest_pipeline_split_columns(text, &names))
		elog(ERROR, "option \"%s\" is no list of columns: \"%s\"", option, text);
	foreach(lc, names)
	{
		AttrNumber	attnum = find_column(rel, lfirst(lc), option);
		bool		known = false;

		for (int i = 0; i < *n; i++)
			known |= columns[i].attnum == attnum;
		if (known)
			continue;
		check_orderable(rel, attnum);
		if (*n >= INGEST_CURSOR_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_TOO_MANY_COLUMNS),
					 errmsg("option \"%s\" has too many columns", option),
					 errdetail("There can be %d.", INGEST_CURSOR_MAX)));
		describe_column(rel, attnum, &columns[(*n)++]);
	}
}

/* ---- what the relation is made of ---- */

typedef struct Ingredients
{
	bool		foreign;		/* some rows are elsewhere */
	bool		only_postgres;	/* where they know what infinity is */
	Oid			view;			/* being looked at */
} Ingredients;

static void examine(Oid relid, Ingredients *in);

static void
look_at_foreign_table(Oid relid, Ingredients *in)
{
	ForeignServer *server = GetForeignServer(GetForeignServerIdByRelId(relid));

	in->foreign = true;
	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "postgres_fdw") != 0)
		in->only_postgres = false;
}

static bool
look_at_query(Node *node, void *context)
{
	Ingredients *in = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_FOREIGN_TABLE)
			look_at_foreign_table(rte->relid, in);
		else if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW)
		{
			/* Before 16, a view's query lists the view itself. */
			if (rte->relid != in->view)
				examine(rte->relid, in);
		}
		else if (rte->rtekind == RTE_RELATION && rte->inh)
		{
			List	   *children = find_all_inheritors(rte->relid, AccessShareLock, NULL);
			ListCell   *lc;

			foreach(lc, children)
				if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE)
					look_at_foreign_table(lfirst_oid(lc), in);
		}
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, look_at_query, context, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, look_at_query, context);
}

/* SELECT everything FROM the relation, with its views expanded. */
static Query *
expand_query(Relation rel)
{
	Query	   *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);

	if (rel->rd_rel->relkind == RELKIND_VIEW)
		return copyObject(get_view_query(rel));
	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->inh = true;
	query->commandType = CMD_SELECT;
	query->rtable = list_make1(rte);
	ref->rtindex = 1;
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	return query;
}

static void
examine(Oid relid, Ingredients *in)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Query	   *query = expand_query(rel);
	Oid			outer = in->view;

	check_stack_depth();
	if (contain_volatile_functions((Node *) query))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("view \"%s\" cannot be a source", RelationGetRelationName(rel)),
				 errdetail("It uses a volatile function: reading it twice gives two answers, or changes something."),
				 errhint("Use functions that are STABLE or IMMUTABLE, or a materialized view.")));
	in->view = relid;
	(void) look_at_query((Node *) query, in);
	in->view = outer;
	table_close(rel, AccessShareLock);
}

/* ---- are rows told apart? ---- */

static bool
is_simple_unique(Relation index)
{
	return index->rd_index->indisunique && index->rd_index->indisvalid &&
		index->rd_index->indimmediate && RelationGetIndexPredicate(index) == NIL &&
		RelationGetIndexExpressions(index) == NIL;
}

static bool
covers_index(Relation index, const IngestCursorColumn *columns, int n)
{
	for (int k = 0; k < IndexRelationGetNumberOfKeyAttributes(index); k++)
	{
		bool		found = false;

		for (int i = 0; i < n; i++)
			found |= columns[i].attnum == index->rd_index->indkey.values[k];
		if (!found)
			return false;
	}
	return true;
}

static bool
is_unique(Relation rel, const IngestCursorColumn *columns, int n)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		unique = false;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		unique |= is_simple_unique(index) && covers_index(index, columns, n);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return unique;
}

static bool
has_indexes(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION ||
		rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || rel->rd_rel->relkind == RELKIND_MATVIEW;
}

/*
 * Two rows with the same cursor could come to lie on two sides of a position.
 * What a view or a remote table has is not known: numbers are taken for unique.
 */
static void
check_unique(Relation rel, const IngestRelationPlan *plan)
{
	const IngestCursorColumn *last = &plan->cursor[plan->ncursor - 1];

	if (plan->key || (has_indexes(rel) && is_unique(rel, plan->cursor, plan->ncursor)))
		return;
	if (!has_indexes(rel) && !last->is_time && last->typid != TEXTOID && last->typid != VARCHAROID &&
		last->typid != BPCHAROID && last->typid != XID8OID)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the cursor does not tell the rows of \"%s\" apart", RelationGetRelationName(rel)),
			 errdetail("Of rows with the same cursor some could be passed over."),
			 errhint("Add a unique column, such as cursor => 'updated_at, id', or name the \"key\" of the rows.")));
}

/* ---- who may commit late ---- */

/* The sequence that nextval() of a default draws from. */
static bool
find_sequence(Node *node, void *context)
{
	List	  **sequences = context;

	if (node == NULL)
		return false;
	if (IsA(node, NextValueExpr))
		*sequences = lappend_oid(*sequences, ((NextValueExpr *) node)->seqid);
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == F_NEXTVAL &&
		IsA(linitial(((FuncExpr *) node)->args), Const))
		*sequences = lappend_oid(*sequences,
								 DatumGetObjectId(linitial_node(Const, ((FuncExpr *) node)->args)->constvalue));
	return expression_tree_walker(node, find_sequence, context);
}

/*
 * What a transaction has locked that may commit rows below the cursor; NIL: that
 * cannot be told.
 */
static List *
find_written(Relation rel, const IngestRelationPlan *plan)
{
	List	   *written = NIL;

	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return NIL;
	(void) find_sequence(build_column_default(rel, plan->cursor[0].attnum), &written);
	if (written == NIL && plan->options->late_commits == INGEST_LATE_WAIT)
		return NIL;
	return list_concat(written, find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL));
}

/* ---- the definition ---- */

static void
check_overlap(const IngestRelationPlan *plan)
{
	const char *overlap = plan->options->overlap;
	const IngestCursorColumn *first = plan->ncursor > 0 ? &plan->cursor[0] : NULL;

	if (overlap == NULL)
		return;
	if (first == NULL || plan->options->mode != INGEST_MODE_UPSERT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs a cursor, mode \"%s\" and a key", "overlap", "upsert"),
				 errdetail("Rows are read again, and would be written again.")));
	if (first->is_time)
		(void) DirectFunctionCall3(interval_in, CStringGetDatum(overlap),
								   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	else
		(void) DirectFunctionCall3(numeric_in, CStringGetDatum(overlap),
								   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static void
find_horizon(Relation rel, IngestRelationPlan *plan)
{
	const char *name = plan->options->horizon;
	AttrNumber	attnum;

	if (name == NULL)
		return;
	attnum = find_column(rel, name, "horizon");
	if (!plan->by_xid || get_atttype(RelationGetRelid(rel), attnum) != XID8OID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs a column of type xid8, and a cursor that begins with one", "horizon"),
				 errhint("A view of the source can offer it: pg_snapshot_xmin(pg_current_snapshot()) AS horizon.")));
	plan->horizon = pstrdup(quote_identifier(name));
}

static void
check_mode(Relation rel, const IngestRelationPlan *plan)
{
	if (plan->ncursor == 0 && !plan->whole)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pipeline that reads \"%s\" needs a cursor, or mode \"%s\"",
						RelationGetRelationName(rel), "replace"),
				 errdetail("Without, every run would write all of its rows again."),
				 errhint("Say mode => 'replace', or options => '{\"cursor\": \"updated_at, id\"}'.")));
	if (plan->ncursor > 0 && plan->whole)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode \"%s\" reads everything, and has no use for a cursor", "replace")));
	if (plan->options->null_cursor == INGEST_NULL_CURSOR_INCLUDE &&
		(plan->options->mode != INGEST_MODE_UPSERT || plan->key == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("null_cursor \"%s\" needs mode \"%s\" and a key", "include", "upsert"),
				 errdetail("Such rows are read in every run, and would be written in every run.")));
	if (plan->options->workers > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pipeline that reads a relation has one worker"),
				 errhint("Several pipelines over views of parts of it can run side by side.")));
}

static void
check_kind(Relation rel)
{
	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_FOREIGN_TABLE:
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" cannot be a source", RelationGetRelationName(rel)),
					 errdetail("A source is a table, a view, a materialized view or a foreign table.")));
	}
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("temporary relation \"%s\" cannot be a source", RelationGetRelationName(rel)),
				 errdetail("Workers run in sessions of their own.")));
}

void *
ingest_relation_prepare(const IngestSourceRelation *source)
{
	IngestRelationPlan *plan = palloc0(sizeof(IngestRelationPlan));
	Relation	rel = table_open(source->relid, AccessShareLock);
	Ingredients in = {.only_postgres = true};

	check_kind(rel);
	examine(source->relid, &in);
	plan->options = source->reading;
	plan->relation = source->name;
	plan->whole = source->reading->mode == INGEST_MODE_REPLACE;
	plan->local = !in.foreign;
	plan->knows_infinity = in.only_postgres;

	plan->cursor = palloc0(sizeof(IngestCursorColumn) * INGEST_CURSOR_MAX);
	if (source->reading->cursor)
		add_columns(rel, "cursor", source->reading->cursor, plan->cursor, &plan->ncursor);
	if (source->reading->key)
	{
		plan->key = palloc0(sizeof(IngestCursorColumn) * INGEST_CURSOR_MAX);
		add_columns(rel, "key", source->reading->key, plan->key, &plan->nkey);
	}
	plan->by_xid = plan->ncursor > 0 && plan->cursor[0].typid == XID8OID && (plan->local || source->reading->horizon);
	check_mode(rel, plan);
	if (plan->ncursor > 0)
	{
		check_unique(rel, plan);
		/* Rows with the same cursor are told apart by their key. */
		if (source->reading->key && !(has_indexes(rel) && is_unique(rel, plan->cursor, plan->ncursor)))
			add_columns(rel, "key", source->reading->key, plan->cursor, &plan->ncursor);
	}
	check_overlap(plan);
	find_horizon(rel, plan);
	plan->wait_late = plan->local && plan->ncursor > 0 && !plan->by_xid &&
		source->reading->late_commits != INGEST_LATE_IGNORE;
	if (plan->wait_late)
		plan->written = find_written(rel, plan);
	table_close(rel, AccessShareLock);
	return plan;
}

/* ---- what is selected ---- */

static bool
is_read_by(const IngestRelationPlan *plan, AttrNumber attnum)
{
	for (int i = 0; i < plan->ncursor; i++)
		if (plan->cursor[i].attnum == attnum)
			return true;
	for (int i = 0; i < plan->nkey; i++)
		if (plan->key[i].attnum == attnum)
			return true;
	return false;
}

void
ingest_relation_choose(IngestSourceRelation *source, Bitmapset *columns)
{
	IngestRelationPlan *plan = source->prepared;
	Relation	rel = table_open(source->relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData select;
	int			n = 0;

	initStringInfo(&select);
	for (int i = 0; i < source->ncolumns; i++)
	{
		AttrNumber	attnum = source->columns[i].attnum;

		if (columns && !bms_is_member(attnum, columns) && !is_read_by(plan, attnum))
			continue;
		source->columns[n++] = source->columns[i];
		appendStringInfo(&select, "%s%s", n > 1 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(desc, attnum - 1)->attname)));
	}
	source->ncolumns = n;
	plan->columns = select.data;
	plan->attnums = palloc(sizeof(AttrNumber) * Max(n, 1));
	plan->tuple.desc = CreateTemplateTupleDesc(n);
	for (int i = 0; i < n; i++)
	{
		plan->attnums[i] = source->columns[i].attnum;
		TupleDescCopyEntry(plan->tuple.desc, i + 1, desc, plan->attnums[i]);
	}
	source->format_options = &plan->tuple;
	table_close(rel, AccessShareLock);
}

/* ---- advice ---- */

static bool
has_leading_index(Relation rel, const IngestRelationPlan *plan)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		found = false;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
			RelationGetIndexPredicate(index) == NIL &&
			index->rd_index->indkey.values[0] == plan->cursor[0].attnum;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

static char *
join_names(const IngestCursorColumn *columns, int n)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < n; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", columns[i].name);
	return names.data;
}

void
ingest_relation_advise(const IngestSourceRelation *source)
{
	const IngestRelationPlan *plan = source->prepared;
	Relation	rel;

	if (source->ops != &ingest_source_relation || plan->ncursor == 0)
		return;
	rel = table_open(source->relid, AccessShareLock);
	if (has_indexes(rel) && !has_leading_index(rel, plan))
		ereport(WARNING,
				(errmsg("no index of \"%s\" begins with the cursor", RelationGetRelationName(rel)),
				 errdetail("Every look at it reads the whole table."),
				 errhint("CREATE INDEX ON %s (%s);", source->name, join_names(plan->cursor, plan->ncursor))));
	if (!plan->local && plan->horizon == NULL && plan->options->overlap == NULL)
		ereport(WARNING,
				(errmsg("rows of \"%s\" that are committed late can be missed", RelationGetRelationName(rel)),
				 errdetail("Which transactions run at the source cannot be seen from here."),
				 errhint("Give the pipeline an \"overlap\" with mode \"upsert\", or a \"horizon\".")));
	table_close(rel, AccessShareLock);
}
