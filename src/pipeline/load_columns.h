/*
 * load_columns.h
 *		From a source row to a target row: which column comes from where.
 */
#ifndef INGEST_LOAD_COLUMNS_H
#define INGEST_LOAD_COLUMNS_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "nodes/primnodes.h"
#include "utils/rel.h"

typedef struct IngestLoadColumn
{
	AttrNumber	source;			/* taken from it as it is; 0: see expr */
	Expr	   *expr;			/* a cast of a source column (Vars of varno 1) or a default; NULL: NULL */
	bool		mapped;			/* comes from a source column, cast or not */
} IngestLoadColumn;

/*
 * One entry a column of the target (dropped and generated ones are NULL).
 * Planned, ready for ExecInitExpr().  raises: a type without assignment cast
 */
extern IngestLoadColumn *ingest_load_columns(Relation target, TupleDesc source);

/*
 * Fill "to", a virtual slot of the target's row type, shallow; exprs: by column
 * of the target, NULL where it is not to be evaluated.  Values that are made
 * live in the memory of "values".  raises: what a cast or a default raises
 */
extern void ingest_load_map_row(const IngestLoadColumn *columns, ExprState **exprs,
								ExprContext *values, TupleTableSlot *from, TupleTableSlot *to);

/* INSERT on the target, or on all the columns that are loaded. raises: else */
extern void ingest_load_check_privilege(Relation target, const IngestLoadColumn *columns);

#endif							/* INGEST_LOAD_COLUMNS_H */
