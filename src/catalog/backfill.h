/*
 * backfill.h
 *		ingest._backfill: parts of a source that are read beside the live
 *		pipeline.
 */
#ifndef INGEST_CATALOG_BACKFILL_H
#define INGEST_CATALOG_BACKFILL_H

#include "postgres.h"

#include "catalog/batch_history.h"
#include "catalog/pipeline.h"

typedef struct IngestBackfill
{
	int64		id;
	Oid			type;			/* of the bounds */
	char	   *from;
	char	   *to;
	char	   *step;			/* or NULL: all at once */
	char	   *next;			/* where the next slice begins */
	char	   *slice_end;		/* where it ends; ingest_backfill_next_slice() */
} IngestBackfill;

/*
 * Go on with the one that was begun with these bounds and not finished, or begin one.
 * mcxt: current.  xact: in.  raises: bounds that are none, or that overlap what was
 * read, unless rows are written by key
 */
extern IngestBackfill *ingest_backfill_begin(const IngestPipeline *pl, Oid type, const char *from,
											 const char *to, const char *step);

/* The next slice's end; false: there is none any more.  mcxt: current.  xact: in */
extern bool ingest_backfill_next_slice(IngestBackfill *backfill);

/* The slice is done: its positions go.  xact: in */
extern void ingest_backfill_slice_done(IngestBackfill *backfill, const char *prefix,
									   const IngestCounts *counts);

/* All slices are done.  xact: in */
extern void ingest_backfill_finish(const IngestBackfill *backfill);

#endif							/* INGEST_CATALOG_BACKFILL_H */
