/*
 * gap.h
 *		ingest._gap: ranges of a source that were skipped unread.
 */
#ifndef INGEST_CATALOG_GAP_H
#define INGEST_CATALOG_GAP_H

#include "postgres.h"

/*
 * Note a gap.  messages: how many it holds, -1 when that cannot be said; by:
 * 'on_gap', or the role that moved the position.  xact: in.  raises: yes
 */
extern void ingest_gap_add(int32 pipeline_id, const char *shard, const char *from,
						   const char *to, int64 messages, const char *reason, const char *by);

#endif							/* INGEST_CATALOG_GAP_H */
