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
#include "utils/rel.h"

/* Rows are written by key: mode "upsert", and "replace" when there is a key. */
extern bool ingest_load_by_key(const IngestPipeline *pl);

/*
 * The target can be written so: the columns of the key are there, come from the
 * source and are unique; the owner may do what is needed; what there is of
 * mark_column fits.  raises: otherwise, with a hint
 */
extern void ingest_load_check_key(const IngestPipeline *pl, Relation source, Relation target);

/* The key, while rows are put. */
typedef struct IngestLoadKey IngestLoadKey;

/* mcxt: current, also of what is remembered.  raises: when a column is gone */
extern IngestLoadKey *ingest_load_key_open(const IngestPipeline *pl, Relation target);

/* False: a column of the key is NULL, which *err says.  raises: out of memory */
extern bool ingest_load_key_note(IngestLoadKey *key, const Datum *values, const bool *isnull,
								 IngestLoadError *err);

/* Two of the rows noted since the last reset may have the same key. */
extern bool ingest_load_key_repeated(const IngestLoadKey *key);
extern void ingest_load_key_reset(IngestLoadKey *key);

/* The column of "batch" that numbers the rows. */
#define INGEST_LOAD_ORDINAL "ingest_ordinal"

/*
 * INSERT ... ON CONFLICT over "columns" of "batch"; with "repeated", of rows with the
 * same key the last one only.  mcxt: current
 */
extern char *ingest_load_key_statement(const IngestPipeline *pl, Relation target,
									   const IngestLoadKey *key, const AttrNumber *columns, int n,
									   bool repeated);

/* How many keys there are among the rows of "batch".  mcxt: current */
extern char *ingest_load_key_count_statement(const IngestLoadKey *key, Relation target);

#endif							/* INGEST_LOAD_UPSERT_H */
