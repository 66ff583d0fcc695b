/*
 * backoff.c
 *		How long to wait before something that failed is tried again.
 *
 * Who waits, and where, is not decided here: a worker waits for its source, the
 * supervisor before it starts a worker anew, the launcher before a supervisor.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "core/guc.h"
#include "utils/timestamp.h"
#include "worker/backoff.h"

/*
 * What peers ask us to wait is not in the settings.  Who is asked for more waits in
 * his own process, by a clock that cannot be set.
 */
#define MAX_RETRY_AFTER_MS 3600000

int64
ingest_backoff_delay(int attempts, int64 retry_after, int64 min, int64 max, double random)
{
	int64		ceiling = min;
	int64		delay;

	max = Max(max, min);
	for (int i = 0; i < attempts && ceiling < max; i++)
		ceiling *= 2;
	ceiling = Min(ceiling, max);

	delay = min + (int64) (random * (ceiling - min));

	/* Who is asked to stay away for a while does not come back in a crowd. */
	if (delay < retry_after)
		delay = retry_after + (int64) (random * min);
	return delay;
}

int64
ingest_backoff_next(int attempts, int64 retry_after)
{
	return ingest_backoff_delay(attempts, retry_after, ingest_guc_retry_min, ingest_guc_retry_max,
								pg_prng_double(&pg_global_prng_state));
}

bool
ingest_backoff_is_over(TimestampTz retry_at, TimestampTz now)
{
	int64		longest = Max(Max(ingest_guc_retry_min, ingest_guc_retry_max), MAX_RETRY_AFTER_MS);

	return retry_at <= now || retry_at > TimestampTzPlusMilliseconds(now, longest);
}
