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

/* Delete all rows of the target; how many.  xact: in, as the owner.  raises: yes */
extern int64 ingest_load_delete_all(const IngestPipeline *pl);

/*
 * Delete, mark or leave, as on_delete says, the rows of the target whose key is
 * not among "keys", rows of the key's columns by name, in the source's types.
 * xact: in, as the owner.  raises: yes
 */
extern void ingest_load_delete_missing(const IngestPipeline *pl, Tuplestorestate *keys,
									   TupleDesc desc, int64 nkeys, IngestMissing *result);

#endif							/* INGEST_LOAD_DELETE_H */
