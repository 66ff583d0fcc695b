/*
 * refresh.h
 *		Replacing what a target holds by what a source holds, in one
 *		transaction.
 */
#ifndef INGEST_REFRESH_H
#define INGEST_REFRESH_H

#include "postgres.h"

#include "pipeline/attempt.h"
#include "pipeline/run.h"

typedef struct IngestRefresh IngestRefresh;

/*
 * Of a pipeline of mode "replace".  Without a key the target is emptied here.
 * mcxt: current, until the end of the transaction.  xact: in.  raises: yes
 */
extern IngestRefresh *ingest_refresh_begin(IngestRun *run);

/*
 * The next part of the source into run->batch, or what an attempt has left of
 * this one.  False: there is no more.  raises: what the source raises, and what
 * it reports
 */
extern bool ingest_refresh_fetch(IngestRefresh *refresh);

/* What an attempt has done with the part; its accepted rows are for the transforms. */
extern void ingest_refresh_take(IngestRefresh *refresh, const IngestAttempt *att);

/*
 * All was read: what the source has no more goes, transforms run, dead letters of
 * earlier refreshes are settled.  raises: INGEST_SQLSTATE_REFUSED when too little
 * of the target would be left, and what the SQL raises
 */
extern void ingest_refresh_finish(IngestRefresh *refresh, IngestCounts *counts, int64 batch_id);

#endif							/* INGEST_REFRESH_H */
