/*
 * backoff.h
 *		How long to wait before something that failed is tried again.
 */
#ifndef INGEST_BACKOFF_H
#define INGEST_BACKOFF_H

#include "core/guc.h"
#include "datatype/timestamp.h"

/*
 * Milliseconds until the next try after the attempts-th failure in a row
 * (from 1): somewhere between min and a ceiling that doubles with each failure
 * up to max, at the place that random (0 up to 1) says, so that many who failed
 * together do not come back together.  Never less than retry_after, which the
 * peer asked for.  Pure.  raises: no
 */
extern int64 ingest_backoff_delay(int attempts, int64 retry_after, int64 min, int64 max,
								  double random);

/* In ms: what we would wait ourselves is shorter, with jitter; a longer wait was asked for. */
#define INGEST_LONGEST_BACKOFF (2 * (int64) Max(ingest_guc_retry_max, ingest_guc_retry_min))

/* The same with the settings and a random number of this process.  raises: no */
extern int64 ingest_backoff_next(int attempts, int64 retry_after);

/*
 * Is it over, the time until which somebody who failed waits?  Also when it is
 * further away than anybody would wait: the clock was set back.  raises: no
 */
extern bool ingest_backoff_is_over(TimestampTz retry_at, TimestampTz now);

#endif							/* INGEST_BACKOFF_H */
