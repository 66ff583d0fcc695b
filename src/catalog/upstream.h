/*
 * upstream.h
 *		_pipeline.upstream: the pipelines that one runs after.
 */
#ifndef INGEST_CATALOG_UPSTREAM_H
#define INGEST_CATALOG_UPSTREAM_H

#include "postgres.h"

#include "catalog/pipeline.h"

/*
 * Write down which pipelines the names of a schedule 'after ...' mean (NIL: it is
 * another schedule).  xact: in.  raises: a name that is unknown or not the
 * caller's, and a cycle
 */
extern void ingest_upstream_set(const IngestPipeline *pl, List *names);

/* Others run after it: it cannot go.  raises: then */
extern void ingest_upstream_check_drop(const IngestPipeline *pl);

/* It has got another name: the schedules of those that run after it say so. */
extern void ingest_upstream_rename(int32 pipeline_id);

#endif							/* INGEST_CATALOG_UPSTREAM_H */
