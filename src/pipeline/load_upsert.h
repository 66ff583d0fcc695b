/*
 * load_upsert.h
 *		Rows that take the place of those with the same key: what the statement
 *		lane needs to know for it.
 */
#ifndef INGEST_LOAD_UPSERT_H
#define INGEST_LOAD_UPSERT_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "pipeline/load.h"
#include "pipeline/load_key.h"
#include "utils/rel.h"

/* Rows are written by key: mode "upsert", and "replace" when there is a key. */
extern bool ingest_load_by_key(const IngestPipeline *pl);

/*
 * The target can be written so, and be replaced: the columns of the key are there,
 * come from the source and are unique; the owner may do what is needed and sees
 * all rows; what there is of mark_column fits.  raises: otherwise, with a hint
 */
extern void ingest_load_check_key(const IngestPipeline *pl, Relation source, Relation target);

/* mcxt: current.  raises: a column or the unique index is gone */
extern IngestLoadKey *ingest_load_key_open(const IngestPipeline *pl, Relation target);

/* False: a column of the key is NULL, which *err says.  raises: out of memory */
extern bool ingest_load_key_given(const IngestLoadKey *key, const bool *isnull, IngestLoadError *err);

/* INSERT ... ON CONFLICT over "columns" of "batch".  mcxt: current */
extern char *ingest_load_key_statement(const IngestPipeline *pl, Relation target,
									   const IngestLoadKey *key, const AttrNumber *columns, int n);

#endif							/* INGEST_LOAD_UPSERT_H */
