/*
 * rules.c
 *		Rules: from text to a verdict on a row.
 *
 * What follows from a verdict (dead letter, drop, failure) is the attempt's
 * business.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "core/compat.h"
#include "core/spi.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "pipeline/rules.h"
#include "rewrite/rewriteManip.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"

/* The name under which rules and transforms know the batch. */
#define BATCH "batch"

typedef struct CompiledRule
{
	const IngestRule *def;
	CachedExpression *cached;	/* NULL when the set needs a query */
	ExprState  *state;			/* of this transaction */
} CompiledRule;

struct IngestRuleSet
{
	int			nrules;
	CompiledRule *rules;
	int64	   *counts;			/* violations, per rule */
	bool		query;			/* one of them has a subquery */
	bool		is_volatile;	/* asking twice may give two answers */
	bool		one_by_one;
	int			current;		/* rule being evaluated; -1 unknown */

	/* without a query: all of them at once, since nearly every row is fine */
	ExprState  *all;
	ExprContext *econtext;

	/* with a query */
	SPIPlanPtr	plan;
	TupleDesc	rowtype;

	MemoryContextCallback cleanup;
};

/* ---- from text to expression ---- */

/*
 * The parser's positions count from the start of the rule: show the rule, not
 * the statement that defines or runs it.
 */
static void
transpose_error_position(void *arg)
{
	const IngestRule *rule = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(rule->expression);
	}
	errcontext("rule \"%s\"", rule->name);
}

pg_noreturn static void
raise_not_expression(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("a rule must be one boolean expression"),
			 errhint("Write what must hold for a row, such as \"temperature >= 0\".")));
	pg_unreachable();
}

/* The grammar's expression is a SELECT without the word; allow nothing but its one column. */
static Node *
parse_expression(const char *text)
{
	List	   *list = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *stmt = (SelectStmt *) linitial_node(RawStmt, list)->stmt;
	ResTarget  *target;

	if (!IsA(stmt, SelectStmt) || list_length(stmt->targetList) != 1 ||
		stmt->distinctClause || stmt->fromClause || stmt->whereClause ||
		stmt->groupClause || stmt->havingClause || stmt->windowClause ||
		stmt->sortClause || stmt->limitCount || stmt->limitOffset || stmt->lockingClause)
		raise_not_expression();

	target = linitial_node(ResTarget, stmt->targetList);
	if (target->name ||
		(IsA(target->val, ColumnRef) && IsA(llast(((ColumnRef *) target->val)->fields), A_Star)))
		raise_not_expression();
	return target->val;
}

static EphemeralNamedRelation
make_batch_relation(TupleDesc rowtype, Tuplestorestate *rows, int64 nrows)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = pstrdup(BATCH);
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = rowtype;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = nrows;
	enr->reldata = rows;
	return enr;
}

/* A decoded row is no stored row: it has no ctid, xmin and the like. */
static bool
refuse_system_columns(Node *node, ParseState *pstate)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == 0 && ((Var *) node)->varattno < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("a rule cannot use system columns"),
				 parser_errposition(pstate, ((Var *) node)->location)));
	if (IsA(node, Query))
		return false;			/* in there, "batch" has none to begin with */
	return expression_tree_walker(node, refuse_system_columns, pstate);
}

static void
refuse_constructs(ParseState *pstate, Node *expr)
{
	if (pstate->p_hasAggs)
		ereport(ERROR,
				(errcode(ERRCODE_GROUPING_ERROR),
				 errmsg("aggregate functions are not allowed in a rule"),
				 errhint("A rule judges one row; use a subquery over \"batch\" to compare with the others."),
				 parser_errposition(pstate, locate_agg_of_level(expr, 0))));
	if (pstate->p_hasWindowFuncs)
		ereport(ERROR,
				(errcode(ERRCODE_WINDOWING_ERROR),
				 errmsg("window functions are not allowed in a rule"),
				 errhint("A rule judges one row; use a subquery over \"batch\" to compare with the others."),
				 parser_errposition(pstate, locate_windowfunc(expr))));
	if (pstate->p_hasTargetSRFs)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-returning functions are not allowed in a rule"),
				 parser_errposition(pstate, exprLocation(pstate->p_last_srf))));
	(void) refuse_system_columns(expr, pstate);
}

/* A boolean expression over the row, analysed; *query: it has a subquery. */
static Node *
analyze_expression(const IngestRule *rule, Relation source, TupleDesc rowtype, bool *query)
{
	ErrorContextCallback context = {error_context_stack, transpose_error_position, (void *) rule};
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node	   *expr;

	error_context_stack = &context;

	pstate->p_sourcetext = rule->expression;
	pstate->p_queryEnv = create_queryEnv();
	register_ENR(pstate->p_queryEnv, make_batch_relation(rowtype, NULL, 0));
	item = addRangeTableEntryForRelation(pstate, source, AccessShareLock,
										 makeAlias(BATCH, NIL), false, true);
	addNSItemToQuery(pstate, item, true, true, true);

	expr = transformExpr(pstate, parse_expression(rule->expression), EXPR_KIND_OTHER);
	refuse_constructs(pstate, expr);
	expr = coerce_to_boolean(pstate, expr, "a rule");
	assign_expr_collations(pstate, expr);
	if (pstate->p_hasSubLinks)
		*query = true;

	error_context_stack = context.previous;
	free_parsestate(pstate);
	return expr;
}

/* What is not true is a violation; with null_ok, what is false. */
static Node *
respect_null(Node *expr, bool null_ok)
{
	BooleanTest *test;

	if (!null_ok)
		return expr;
	test = makeNode(BooleanTest);
	test->arg = (Expr *) expr;
	test->booltesttype = IS_NOT_FALSE;
	test->location = -1;
	return (Node *) test;
}

static CachedExpression *
plan_expression(const IngestRule *rule, Node *expr)
{
	ErrorContextCallback context = {error_context_stack, transpose_error_position, (void *) rule};
	CachedExpression *cached;

	error_context_stack = &context;
	cached = GetCachedExpression(respect_null(expr, rule->null_ok));
	error_context_stack = context.previous;
	return cached;
}

/*
 * The query that answers with the violated rules of each row.  Every
 * expression was parsed alone before, so that in parentheses, with a line
 * break that ends a comment, it is the same expression.  _begin_rule() is true
 * and remembers which rule it is, for the case that it raises.
 *
 *	warn:	CASE WHEN r1 THEN '{}' ELSE ARRAY[1] END || rest
 *	others:	CASE WHEN r2 THEN rest ELSE ARRAY[2] END
 */
static void
append_violations(StringInfo sql, const IngestRuleSet *set, int from)
{
	const IngestRule *rule;
	bool		warn;

	check_stack_depth();
	if (from == set->nrules)
	{
		appendStringInfoString(sql, "'{}'::pg_catalog.int4[]");
		return;
	}

	rule = set->rules[from].def;
	warn = rule->on_violation == INGEST_VIOLATION_WARN;
	appendStringInfo(sql, "%sCASE WHEN (ingest._begin_rule(%d) AND (%s\n))%s THEN ",
					 warn ? "(" : "", from, rule->expression,
					 rule->null_ok ? " IS NOT FALSE" : "");
	if (warn)
		appendStringInfoString(sql, "'{}'::pg_catalog.int4[]");
	else
		append_violations(sql, set, from + 1);
	appendStringInfo(sql, " ELSE ARRAY[%d]::pg_catalog.int4[] END", from);
	if (warn)
	{
		appendStringInfoString(sql, ") OPERATOR(pg_catalog.||) (");
		append_violations(sql, set, from + 1);
		appendStringInfoChar(sql, ')');
	}
}

static void
prepare_query(IngestRuleSet *set)
{
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_violations(&sql, set, 0);
	appendStringInfoString(&sql, " FROM " BATCH);

	SPI_connect();
	SPI_register_relation(make_batch_relation(set->rowtype, NULL, 0));
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	set->plan = plan;
	SPI_finish();
}

static void
free_plans(void *arg)
{
	IngestRuleSet *set = arg;

	for (int i = 0; i < set->nrules; i++)
		if (set->rules[i].cached)
			FreeCachedExpression(set->rules[i].cached);
	if (set->plan)
		SPI_freeplan(set->plan);
}

IngestRuleSet *
ingest_rules_compile(List *rules, Oid source, TupleDesc rowtype)
{
	IngestRuleSet *set = palloc0(sizeof(IngestRuleSet));
	Node	  **exprs = palloc0(sizeof(Node *) * list_length(rules));
	Relation	rel;
	ListCell   *lc;

	set->current = -1;
	set->rowtype = rowtype;
	set->rules = palloc0(sizeof(CompiledRule) * list_length(rules));
	set->counts = palloc0(sizeof(int64) * list_length(rules));
	set->cleanup.func = free_plans;
	set->cleanup.arg = set;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &set->cleanup);

	if (rules == NIL)
		return set;
	rel = table_open(source, AccessShareLock);
	foreach(lc, rules)
	{
		CompiledRule *rule = &set->rules[set->nrules];

		rule->def = lfirst(lc);
		exprs[set->nrules++] = analyze_expression(rule->def, rel, rowtype, &set->query);
	}
	table_close(rel, NoLock);

	if (set->query)
		prepare_query(set);
	else
		for (int i = 0; i < set->nrules; i++)
		{
			set->rules[i].cached = plan_expression(set->rules[i].def, exprs[i]);
			if (contain_volatile_functions(set->rules[i].cached->expr))
				set->is_volatile = true;
		}
	return set;
}

bool
ingest_rules_need_query(const IngestRuleSet *set)
{
	return set->query;
}

/* The plan of a query renews itself. */
bool
ingest_rules_columns(const IngestRuleSet *set, Bitmapset **columns)
{
	Bitmapset  *found = NULL;
	int			member = -1;

	*columns = NULL;
	if (set->query)
		return false;
	for (int i = 0; i < set->nrules; i++)
		pull_varattnos(set->rules[i].cached->expr, 1, &found);
	while ((member = bms_next_member(found, member)) >= 0)
	{
		AttrNumber	attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum <= 0)
			return false;
		*columns = bms_add_member(*columns, attnum);
	}
	return true;
}

bool
ingest_rules_valid(const IngestRuleSet *set)
{
	for (int i = 0; i < set->nrules; i++)
		if (set->rules[i].cached && !set->rules[i].cached->is_valid)
			return false;
	return true;
}

const IngestRule *
ingest_rules_get(const IngestRuleSet *set, int index)
{
	return set->rules[index].def;
}

/* Of the query that runs, or ran last. */
static int	query_rule = -1;

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_begin_rule);

Datum
ingest_sql_begin_rule(PG_FUNCTION_ARGS)
{
	query_rule = PG_GETARG_INT32(0);
	PG_RETURN_BOOL(true);
}

/* ---- row by row ---- */

void
ingest_rules_begin(IngestRuleSet *set)
{
	List	   *all = NIL;

	set->current = -1;
	if (set->query || set->nrules == 0)
		return;
	set->econtext = CreateStandaloneExprContext();
	for (int i = 0; i < set->nrules; i++)
	{
		Expr	   *expr = (Expr *) set->rules[i].cached->expr;

		set->rules[i].state = ExecInitExpr(expr, NULL);
		all = lappend(all, expr);
	}
	set->all = ExecInitQual(all, NULL);
}

/* Counts the violation; true when it decides the row's fate. */
static inline bool
count_violation(IngestRuleSet *set, int i, bool *warned)
{
	set->counts[i]++;
	if (set->rules[i].def->on_violation != INGEST_VIOLATION_WARN)
		return true;
	*warned = true;
	return false;
}

static int
check_one_by_one(IngestRuleSet *set, bool *warned)
{
	for (int i = 0; i < set->nrules; i++)
	{
		bool		isnull;
		Datum		holds;

		set->current = i;
		holds = ExecEvalExprSwitchContext(set->rules[i].state, set->econtext, &isnull);
		if ((isnull || !DatumGetBool(holds)) && count_violation(set, i, warned))
		{
			set->current = -1;
			return i;
		}
	}
	set->current = -1;
	return -1;
}

int
ingest_rules_check(IngestRuleSet *set, TupleTableSlot *slot, bool *warned)
{
	if (set->nrules == 0)
		return -1;
	ResetExprContext(set->econtext);
	set->econtext->ecxt_scantuple = slot;
	if (!set->is_volatile && !set->one_by_one && ExecQual(set->all, set->econtext))
		return -1;
	return check_one_by_one(set, warned);
}

void
ingest_rules_one_by_one(IngestRuleSet *set, bool on)
{
	set->one_by_one = on;
}

int
ingest_rules_current(const IngestRuleSet *set)
{
	if (set->nrules == 1)
		return 0;
	return set->query ? query_rule : set->current;
}

/* ---- all rows by one query ---- */

typedef struct ViolationReceiver
{
	DestReceiver pub;
	MemoryContext mcxt;
	int64		nrows;
	IngestViolations **violations;
	int64	   *done;
} ViolationReceiver;

static bool
receive_violations(TupleTableSlot *slot, DestReceiver *self)
{
	ViolationReceiver *receiver = (ViolationReceiver *) self;
	bool		isnull;
	ArrayType  *array = DatumGetArrayTypeP(slot_getattr(slot, 1, &isnull));
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

	if (*receiver->done == receiver->nrows)
		elog(ERROR, "the rules' query returned more rows than the batch has");
	if (n > 0)
	{
		IngestViolations *v = MemoryContextAlloc(receiver->mcxt,
												 offsetof(IngestViolations, rules) + n * sizeof(int));

		v->n = n;
		memcpy(v->rules, ARR_DATA_PTR(array), n * sizeof(int));
		receiver->violations[*receiver->done] = v;
	}
	(*receiver->done)++;
	return true;
}

static void
receive_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receive_end(DestReceiver *self)
{
}

void
ingest_rules_query(IngestRuleSet *set, Tuplestorestate *rows, int64 nrows,
				   IngestViolations **violations, int64 *done)
{
	ViolationReceiver receiver = {
		{receive_violations, receive_startup, receive_end, receive_end, DestNone},
		CurrentMemoryContext, nrows, violations, done
	};
	SPIExecuteOptions options = {.dest = &receiver.pub};
	int			rc;

	*done = 0;
	query_rule = -1;
	SPI_connect();
	SPI_register_relation(make_batch_relation(set->rowtype, rows, nrows));
	rc = SPI_execute_plan_extended(set->plan, &options);
	if (rc < 0)
		elog(ERROR, "the rules' query failed: %s", SPI_result_code_string(rc));
	SPI_finish();
	if (*done != nrows)
		elog(ERROR, "the rules' query returned " INT64_FORMAT " rows for " INT64_FORMAT,
			 *done, nrows);
}

int
ingest_rules_apply(IngestRuleSet *set, const IngestViolations *violations, bool *warned)
{
	for (int i = 0; violations && i < violations->n; i++)
		if (count_violation(set, violations->rules[i], warned))
			return violations->rules[i];
	return -1;
}

/* ---- counting ---- */

void
ingest_rules_count(IngestRuleSet *set, int index)
{
	set->counts[index]++;
}

int64 *
ingest_rules_counts(IngestRuleSet *set, int *nrules)
{
	*nrules = set->nrules;
	return set->counts;
}

/*
 * In the order of their names, so that the workers of one pipeline do not
 * deadlock.
 */
static IngestStatement add_violations = {
	"UPDATE ingest._rule r SET violations = r.violations + v.n "
	"FROM (SELECT l.name, u.n FROM unnest($2, $3) AS u (name, n) "
	"      JOIN ingest._rule l ON l.pipeline_id = $1 AND l.name = u.name "
	"      ORDER BY l.name FOR UPDATE OF l) AS v "
	"WHERE r.pipeline_id = $1 AND r.name = v.name",
	3, {INT4OID, TEXTARRAYOID, INT8ARRAYOID}
};

void
ingest_rules_store_counts(IngestRuleSet *set, int32 pipeline_id)
{
	Datum	   *names = palloc(sizeof(Datum) * set->nrules);
	Datum	   *counts = palloc(sizeof(Datum) * set->nrules);
	Datum		values[3];
	int			n = 0;

	for (int i = 0; i < set->nrules; i++)
		if (set->counts[i] > 0)
		{
			names[n] = CStringGetTextDatum(set->rules[i].def->name);
			counts[n++] = Int64GetDatum(set->counts[i]);
		}
	if (n == 0)
		return;

	values[0] = Int32GetDatum(pipeline_id);
	values[1] = PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(counts, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	ingest_spi_begin();
	ingest_spi_run(&add_violations, values, NULL);
	ingest_spi_end();
	memset(set->counts, 0, sizeof(int64) * set->nrules);
}
