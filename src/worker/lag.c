/*
 * lag.c
 *		How early a run has to begin so that its target does not get too old.
 *
 * Who follows whom, and when runs began, is kept by agenda.c.
 */
#include "postgres.h"

#include "utils/timestamp.h"
#include "worker/lag.h"

int64
ingest_lag_allowed(int64 own, int64 follower, int64 follower_duration)
{
	int64		wanted;

	if (follower <= 0)
		return own;
	/* What cannot be kept is done as well as can be. */
	wanted = Max(follower - follower_duration, INGEST_LAG_PAUSE_MS);
	return own > 0 ? Min(own, wanted) : wanted;
}

TimestampTz
ingest_lag_start(int64 allowed, int64 duration, TimestampTz last_start, TimestampTz last_end,
				 TimestampTz now)
{
	TimestampTz start;

	if (allowed <= 0)
		return DT_NOEND;
	/* The clock was set back. */
	if (last_start > now)
		last_start = 0;
	if (last_end > now)
		last_end = 0;
	start = now;
	if (last_start != 0)
		/* To spare: a quarter of what it takes, for runs differ, and a little for its slot. */
		start = TimestampTzPlusMilliseconds(last_start, allowed - duration - duration / 4 - allowed / 20);
	if (last_end != 0)
		start = Max(start, TimestampTzPlusMilliseconds(last_end, INGEST_LAG_PAUSE_MS));
	return start;
}

int64
ingest_lag_duration(int64 expected, int64 took)
{
	took = Max(took, 1);
	/* Slower counts at once, faster by and by. */
	return took >= expected ? took : (3 * expected + took) / 4;
}
