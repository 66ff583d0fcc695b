/*
 * rules.h
 *		Rules: boolean SQL over a batch row.
 *
 * Rules without a subquery are compiled expressions, evaluated as the row is
 * decoded; when one has a subquery, all are evaluated by one query over the
 * relation "batch".
 */
#ifndef INGEST_RULES_H
#define INGEST_RULES_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "executor/tuptable.h"
#include "utils/tuplestore.h"

typedef struct IngestRuleSet IngestRuleSet;

/*
 * Parse and plan the rules against the row type of the source, in
 * CurrentMemoryContext.  search_path has been set by the caller.  An error's
 * position points into the rule's expression.  xact: in.  raises: yes
 */
extern IngestRuleSet *ingest_rules_compile(List *rules, Oid source, TupleDesc rowtype);

/* One of them reads more than its row: verdicts come from ingest_rules_query(). */
extern bool ingest_rules_need_query(const IngestRuleSet *set);

/* Plans are still valid (functions, types).  xact: in */
extern bool ingest_rules_valid(const IngestRuleSet *set);

/*
 * Get ready for evaluation in this transaction.  The ExprStates live until the
 * context CurrentMemoryContext goes.
 */
extern void ingest_rules_begin(IngestRuleSet *set);

/*
 * Index of the first rule in order that this row violates, whose outcome is
 * not "warn"; -1 when the row is accepted.  Violations of "warn" rules are
 * counted.  raises: what the expression raises
 */
extern int	ingest_rules_check(IngestRuleSet *set, TupleTableSlot *slot);

/*
 * The same for every row of a tuplestore in order: verdicts[i] as above.
 * xact: in, SPI not connected.  raises: yes
 */
extern void ingest_rules_query(IngestRuleSet *set, Tuplestorestate *rows, TupleDesc rowtype,
							   int64 nrows, int *verdicts);

extern const IngestRule *ingest_rules_get(const IngestRuleSet *set, int index);

/*
 * Violations counted since the last reset, per rule; taken back to a mark when
 * a subtransaction is undone.
 */
extern int64 *ingest_rules_counts(IngestRuleSet *set, int *nrules);

#endif							/* INGEST_RULES_H */
