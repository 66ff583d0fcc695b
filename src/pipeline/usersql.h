/*
 * usersql.h
 *		Settings under which the pipeline owner's SQL runs: rules, transforms,
 *		and what the target's triggers, defaults and casts do.
 */
#ifndef INGEST_USERSQL_H
#define INGEST_USERSQL_H

#include "postgres.h"

#include "catalog/pipeline.h"

/*
 * Set the pipeline's search_path (pg_temp last) and lock_timeout until
 * ingest_usersql_end(), or until the (sub)transaction is undone.
 * xact: in.  raises: yes
 */
extern int	ingest_usersql_begin(const IngestPipeline *pl);
extern void ingest_usersql_end(int level);

/*
 * statement_timeout of the pipeline from now on.  A worker has none by itself,
 * and a session's own, when it runs, is left alone.  Returns whether it was
 * armed; only then is it to be disarmed, also after an error.  raises: no
 */
extern bool ingest_usersql_arm(const IngestPipeline *pl);
extern void ingest_usersql_disarm(bool armed);

/*
 * After an error, before disarming: was it this statement_timeout that ran
 * out, and not while waiting for a lock, which lock_timeout would have ended
 * before?  raises: no
 */
extern bool ingest_usersql_timed_out(const IngestPipeline *pl, bool armed, int sqlstate);

#endif							/* INGEST_USERSQL_H */
