/*
 * transform.h
 *		SQL over exactly the accepted rows of a batch, in the batch's commit.
 */
#ifndef INGEST_TRANSFORM_H
#define INGEST_TRANSFORM_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "utils/tuplestore.h"

/* Parse against "batch"; error positions point into the statement. xact: in, raises */
extern void ingest_transform_check(const IngestTransform *transform, Oid source, TupleDesc rowtype);

/* Run all of them in order.  xact: in, SPI not connected.  raises: yes */
extern void ingest_transforms_run(const IngestPipeline *pl, Tuplestorestate *rows,
								  TupleDesc rowtype);

/*
 * The relation "batch", for ingest.batch(): rows of the batch whose
 * transforms run now in this process.  raises: when none does
 */
extern Tuplestorestate *ingest_transform_batch(TupleDesc *rowtype);

#endif							/* INGEST_TRANSFORM_H */
