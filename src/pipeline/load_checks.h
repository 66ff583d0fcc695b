/*
 * load_checks.h
 *		NOT NULL and CHECK constraints, looked at without raising an error when
 *		a row breaks one.
 */
#ifndef INGEST_LOAD_CHECKS_H
#define INGEST_LOAD_CHECKS_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "pipeline/load.h"
#include "utils/rel.h"

typedef struct IngestLoadChecks IngestLoadChecks;

/*
 * Prepare the constraints of rel, in CurrentMemoryContext.
 *
 * known: by column, whether a row's value is known when it is checked; NULL:
 * all are.  Constraints that look at other columns are left to the server, as
 * are volatile ones then, since it will evaluate them once more.
 * target: whose name the messages give (a partition's would be of no use).
 * NULL when there is nothing to check.  raises: yes
 */
extern IngestLoadChecks *ingest_load_checks_open(Relation rel, Relation target,
												 const bool *known);

/* The first constraint that a row breaks is in *err.  raises: what expressions raise */
extern bool ingest_load_checks_pass(IngestLoadChecks *checks, TupleTableSlot *slot,
									EState *estate, IngestLoadError *err);

#endif							/* INGEST_LOAD_CHECKS_H */
