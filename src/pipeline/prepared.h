/*
 * prepared.h
 *		A definition made ready: what turn, replay and preview need to take
 *		messages through decode, rules and load.
 */
#ifndef INGEST_PREPARED_H
#define INGEST_PREPARED_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pipeline.h"
#include "lib/ilist.h"
#include "pipeline/rules.h"
#include "source/source.h"

typedef struct IngestPrepared
{
	MemoryContext mcxt;			/* deleting it frees everything */
	const IngestPipeline *pl;
	const IngestSourceRelation *rel;
	TupleDesc	rowtype;		/* of the source; a copy without reference count */
	void	   *format;			/* instance of rel->format */
	IngestRuleSet *rules;
	IngestStart start;			/* option start_at */
	TimestampTz start_at;

	/* private */
	List	   *source_options; /* of table and server, as in the catalogs */
	bool		stale;			/* something it was made from may have changed */
	bool		source_stale;	/* also what the source was opened with */
	dlist_node	node;
	MemoryContextCallback cleanup;
} IngestPrepared;

/* Read the definition and make it ready, under parent.  xact: in.  raises: yes */
extern IngestPrepared *ingest_prepared_make(int32 pipeline_id, MemoryContext parent);

/*
 * Still what the catalogs say?  Takes a lock on the source until the end of
 * the transaction, so that the answer holds.  xact: in.  raises: yes
 */
extern bool ingest_prepared_current(IngestPrepared *prepared);

/* A source opened for "was" serves "now" too.  xact: any.  raises: no */
extern bool ingest_prepared_same_source(const IngestPrepared *was, const IngestPrepared *now);

#define ingest_prepared_free(prepared) MemoryContextDelete((prepared)->mcxt)

#endif							/* INGEST_PREPARED_H */
