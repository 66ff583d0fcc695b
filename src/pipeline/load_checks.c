/*
 * load_checks.c
 *		NOT NULL and CHECK constraints as answers instead of errors.
 *
 * In the order and with the words of the server, but for the name: messages
 * name the target also where a partition was written, so that dead letters of
 * one kind have one text.  (Constraints of a partition alone name it.)
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "optimizer/optimizer.h"
#include "pipeline/load_checks.h"

typedef struct Check
{
	const char *name;
	const char *relation;		/* as messages say it */
	ExprState  *state;
} Check;

struct IngestLoadChecks
{
	const char *target;
	TupleDesc	desc;
	int			nnot_null;
	AttrNumber *not_null;
	int			nchecks;
	Check	   *checks;
};

/* Can the constraint be evaluated on what is known of a row? */
static bool
is_evaluable(Node *expr, int natts, const bool *known)
{
	Bitmapset  *columns = NULL;
	int			member = -1;

	if (known == NULL)
		return true;
	if (contain_volatile_functions(expr))
		return false;
	pull_varattnos(expr, 1, &columns);
	while ((member = bms_next_member(columns, member)) >= 0)
	{
		int			attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum <= 0 || attnum > natts || !known[attnum - 1])
			return false;
	}
	return true;
}

static void
add_not_null(IngestLoadChecks *checks, const bool *known)
{
	checks->not_null = palloc(sizeof(AttrNumber) * Max(checks->desc->natts, 1));
	for (int i = 0; i < checks->desc->natts; i++)
		if (TupleDescAttr(checks->desc, i)->attnotnull &&
			!TupleDescAttr(checks->desc, i)->attisdropped && (known == NULL || known[i]))
			checks->not_null[checks->nnot_null++] = i + 1;
}

static bool
has_check(Relation target, const char *name)
{
	TupleConstr *constr = RelationGetDescr(target)->constr;

	for (int i = 0; constr && i < constr->num_check; i++)
		if (strcmp(constr->check[i].ccname, name) == 0)
			return true;
	return false;
}

static void
add_checks(IngestLoadChecks *checks, Relation rel, Relation target, const bool *known)
{
	TupleConstr *constr = checks->desc->constr;

	checks->checks = palloc(sizeof(Check) * Max(constr->num_check, 1));
	for (int i = 0; i < constr->num_check; i++)
	{
		Node	   *expr;

		if (!ingest_compat_check_enforced(&constr->check[i]))
			continue;
		expr = stringToNode(constr->check[i].ccbin);
		if (!is_evaluable(expr, checks->desc->natts, known))
			continue;
		checks->checks[checks->nchecks].name = constr->check[i].ccname;
		checks->checks[checks->nchecks].relation =
			has_check(target, constr->check[i].ccname) ? checks->target :
			pstrdup(RelationGetRelationName(rel));
		checks->checks[checks->nchecks++].state = 
			ExecInitExpr(expression_planner((Expr *) expr), NULL);
	}
}

IngestLoadChecks *
ingest_load_checks_open(Relation rel, Relation target, const bool *known)
{
	IngestLoadChecks *checks;
	TupleDesc	desc = RelationGetDescr(rel);

	if (desc->constr == NULL || (!desc->constr->has_not_null && desc->constr->num_check == 0))
		return NULL;
	checks = palloc0(sizeof(IngestLoadChecks));
	checks->desc = CreateTupleDescCopyConstr(desc);
	checks->target = pstrdup(RelationGetRelationName(target));
	add_not_null(checks, known);
	add_checks(checks, rel, target, known);
	return checks->nnot_null > 0 || checks->nchecks > 0 ? checks : NULL;
}

static bool
refuse_null(const IngestLoadChecks *checks, AttrNumber attnum, IngestLoadError *err)
{
	memset(err, 0, sizeof(*err));
	err->sqlstate = ERRCODE_NOT_NULL_VIOLATION;
	err->column = NameStr(TupleDescAttr(checks->desc, attnum - 1)->attname);
	err->message = psprintf("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
							err->column, checks->target);
	return false;
}

static bool
refuse_check(const Check *check, IngestLoadError *err)
{
	memset(err, 0, sizeof(*err));
	err->sqlstate = ERRCODE_CHECK_VIOLATION;
	err->message = psprintf("new row for relation \"%s\" violates check constraint \"%s\"",
							check->relation, check->name);
	return false;
}

bool
ingest_load_checks_pass(IngestLoadChecks *checks, TupleTableSlot *slot, EState *estate,
						IngestLoadError *err)
{
	bool		pass = true;

	for (int i = 0; i < checks->nnot_null; i++)
		if (slot->tts_isnull[checks->not_null[i] - 1])
			return refuse_null(checks, checks->not_null[i], err);

	if (checks->nchecks > 0)
	{
		ExprContext *econtext = GetPerTupleExprContext(estate);

		econtext->ecxt_scantuple = slot;
		for (int i = 0; i < checks->nchecks && pass; i++)
			if (!ExecCheck(checks->checks[i].state, econtext))
				pass = refuse_check(&checks->checks[i], err);
		ResetPerTupleExprContext(estate);
	}
	return pass;
}
