/*
 * rules.h
 *		Rules: boolean SQL over a batch row.
 *
 * Rules without a subquery are compiled expressions, evaluated as the row is
 * decoded; when one has a subquery, all are evaluated by one query over the
 * relation "batch".  Either way they are tried in order, and the first that
 * does not hold and is not of kind "warn" decides.
 */
#ifndef INGEST_RULES_H
#define INGEST_RULES_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "utils/tuplestore.h"

typedef struct IngestRuleSet IngestRuleSet;

/*
 * Parse and plan the rules against the row type of the source, in
 * CurrentMemoryContext, which frees the plans when it goes.  search_path has
 * been set by the caller.  An error's position points into the rule's
 * expression.  xact: in.  raises: yes
 */
extern IngestRuleSet *ingest_rules_compile(List *rules, Oid source, TupleDesc rowtype);

/* One of them reads more than its row: verdicts come from ingest_rules_query(). */
extern bool ingest_rules_need_query(const IngestRuleSet *set);

/*
 * The columns of the row that the rules look at, by attribute number.  False: any
 * may be, since there is a query or one looks at the row as a whole.
 */
extern bool ingest_rules_columns(const IngestRuleSet *set, Bitmapset **columns);

/* Plans are still valid (functions, types).  xact: in */
extern bool ingest_rules_valid(const IngestRuleSet *set);

/*
 * Get ready for evaluation in this transaction.  The ExprStates live until the
 * context CurrentMemoryContext goes.
 */
extern void ingest_rules_begin(IngestRuleSet *set);

/*
 * Index of the first rule in order that this row violates, whose outcome is
 * not "warn"; -1 when the row is accepted.  *warned is set when a rule of kind
 * "warn" was violated before.  Violations are counted.
 * raises: what the expression raises
 */
extern int	ingest_rules_check(IngestRuleSet *set, TupleTableSlot *slot, bool *warned);

/*
 * Evaluate one rule after the other, so that ingest_rules_current() is right
 * when one raises: slower.
 */
extern void ingest_rules_one_by_one(IngestRuleSet *set, bool on);

/* Index of the rule that was being evaluated when one raised; -1 when not known. */
extern int	ingest_rules_current(const IngestRuleSet *set);

/* The rules a row violates, in order; the last may be of kind other than "warn". */
typedef struct IngestViolations
{
	int			n;
	int			rules[FLEXIBLE_ARRAY_MEMBER];
} IngestViolations;

/*
 * The violations of every row of a tuplestore in order, or NULL for none, in
 * CurrentMemoryContext.  *done counts the rows that have been looked at, which
 * tells the guilty one when the query raises.
 * xact: in, SPI not connected.  raises: yes
 */
extern void ingest_rules_query(IngestRuleSet *set, Tuplestorestate *rows,
							   int64 nrows, IngestViolations **violations, int64 *done);

/* What ingest_rules_check() would have answered, counting. */
extern int	ingest_rules_apply(IngestRuleSet *set, const IngestViolations *violations,
							   bool *warned);

/* A violation that was not found by the two above: the rule raised an error. */
extern void ingest_rules_count(IngestRuleSet *set, int index);

extern const IngestRule *ingest_rules_get(const IngestRuleSet *set, int index);

/*
 * Violations counted since the last reset, per rule; the caller takes them
 * back when a subtransaction is undone.
 */
extern int64 *ingest_rules_counts(IngestRuleSet *set, int *nrules);

/* Add them to ingest._rule and start from zero.  xact: in.  raises: yes */
extern void ingest_rules_store_counts(IngestRuleSet *set, int32 pipeline_id);

#endif							/* INGEST_RULES_H */
