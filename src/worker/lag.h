/*
 * lag.h
 *		How early a run has to begin so that its target does not get too old: pure
 *		arithmetic.
 *
 * The data of a target is as old as the run is that read it from the source,
 * counted from that run's start: what came to the source later is not in it.  It
 * gets older until the next run has ended.
 */
#ifndef INGEST_LAG_H
#define INGEST_LAG_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Between the end of a run and the start of the next one at least; ms. */
#define INGEST_LAG_PAUSE_MS 1000

/*
 * How old the target may get: as old as it is allowed to itself ("own" ms; 0: no
 * matter), and as the pipeline that follows it is ("follower" ms; 0: no matter), less
 * the time that the follower's run takes, which begins when ours has ended.  raises: no
 */
extern int64 ingest_lag_allowed(int64 own, int64 follower, int64 follower_duration);

/*
 * When the next run has to begin: so that it has ended, with some time to spare,
 * before what the last one has read is older than "allowed".  last_start, last_end:
 * of the last run; 0: there was none.  DT_NOEND when nothing is wanted.  raises: no
 */
extern TimestampTz ingest_lag_start(int64 allowed, int64 duration, TimestampTz last_start,
									TimestampTz last_end, TimestampTz now);

/* What a run is expected to take, after one more has taken "took" ms; 0: not known.  raises: no */
extern int64 ingest_lag_duration(int64 expected, int64 took);

#endif							/* INGEST_LAG_H */
