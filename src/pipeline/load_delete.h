/*
 * load_delete.h
 *		Rows of the target that the source has no more.
 */
#ifndef INGEST_LOAD_DELETE_H
#define INGEST_LOAD_DELETE_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pipeline.h"
#include "utils/tuplestore.h"

typedef struct IngestMissing
{
	int64		rows;			/* of the target, but for those that were marked before */
	int64		missing;		/* of these: not in the source */
} IngestMissing;

/* Rows that the source has no more are marked. */
extern bool ingest_load_marks(const IngestPipeline *pl);

/* Of the column that marks them: BOOLOID or TIMESTAMPTZOID.  raises: it is neither, or gone */
extern Oid	ingest_load_mark_type(const IngestPipeline *pl, Oid target);

/* raises: a policy hides rows of the target from the owner, where all must be seen */
extern void ingest_load_check_row_security(const IngestPipeline *pl, Oid target);

/* Rows of the target that are not marked.  xact: in, as the owner.  raises: yes */
extern int64 ingest_load_count_rows(const IngestPipeline *pl);

/* Delete all rows of the target; how many.  xact: in, as the owner.  raises: yes */
extern int64 ingest_load_delete_all(const IngestPipeline *pl);

/*
 * Delete or mark, as on_delete says, the rows of the target whose key is not among
 * "keys", rows of the key's columns by name, in the source's types.  What cannot
 * be of the target's type is the key of no row.  xact: in, as the owner.
 * raises: yes
 */
extern void ingest_load_delete_missing(const IngestPipeline *pl, Tuplestorestate *keys,
									   TupleDesc desc, int64 nkeys, IngestMissing *result);

#endif							/* INGEST_LOAD_DELETE_H */
