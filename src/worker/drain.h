/*
 * drain.h
 *		Reading up to what the source holds now, and no further.
 */
#ifndef INGEST_DRAIN_H
#define INGEST_DRAIN_H

#include "postgres.h"

#include "pipeline/turn.h"

typedef struct IngestDrain IngestDrain;

/*
 * Find out where the shards of the run end now; the run has been assigned.
 * Waits for the source, interruptibly.  NULL: *err says why not.
 * mcxt: a context under parent.  xact: out
 */
extern IngestDrain *ingest_drain_begin(IngestRun *run, MemoryContext parent, IngestError *err);

/* Has everything up to there been fetched?  raises: no */
extern bool ingest_drain_is_done(const IngestDrain *drain, IngestRun *run);

/* Messages that are still to be fetched; -1 when that cannot be said.  raises: no */
extern int64 ingest_drain_count_left(const IngestDrain *drain, IngestRun *run);

#endif							/* INGEST_DRAIN_H */
