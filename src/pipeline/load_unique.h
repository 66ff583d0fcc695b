/*
 * load_unique.h
 *		Duplicates of unique keys, found without raising an error.
 *
 * Looking before each row is too dear for a good day, and raising an error for
 * each duplicate too dear for a bad one.  So a target whose load has raised
 * one is loaded carefully for a while.
 */
#ifndef INGEST_LOAD_UNIQUE_H
#define INGEST_LOAD_UNIQUE_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "pipeline/load.h"

/* Is this load of the target to be a careful one?  Once a load.  raises: no */
extern bool ingest_load_unique_careful(Oid target);

/* An error was raised while the target was written: was it a duplicate?  raises: no */
extern void ingest_load_unique_raised(Oid target, int sqlstate);

/*
 * A key of the row is there already: false, and *err says which.  The indexes
 * are open for speculative insertion.  raises: yes
 */
extern bool ingest_load_unique_pass(Oid target, ResultRelInfo *info, TupleTableSlot *slot,
									EState *estate, IngestLoadError *err);

#endif							/* INGEST_LOAD_UNIQUE_H */
