/*
 * lock.c
 *		The lock that keeps a pipeline from running twice at the same time.
 *
 * It spares the loser useless work; that nothing is written twice is the
 * business of the positions' epochs (catalog/position.h), which hold even when
 * somebody's trigger calls pg_advisory_unlock_all().
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "worker/lock.h"
#include "worker/worker.h"

/*
 * Of the class of user locks, since others do not survive the abort of a
 * transaction; the last field keeps clear of pg_advisory_lock(), which has a tag
 * type of its own, and of other extensions.
 */
static LOCKTAG
make_tag(int32 pipeline_id, int32 ordinal)
{
	LOCKTAG		tag = {
		.locktag_field1 = MyDatabaseId,
		.locktag_field2 = (uint32) pipeline_id,
		.locktag_field3 = (uint32) (ordinal + 1),
		.locktag_field4 = 0x696e,	/* "in" */
		.locktag_type = LOCKTAG_USERLOCK,
		.locktag_lockmethodid = USER_LOCKMETHOD
	};

	return tag;
}

static bool
acquire(int32 pipeline_id, int32 ordinal, LOCKMODE mode, bool wait)
{
	LOCKTAG		tag = make_tag(pipeline_id, ordinal);

	return LockAcquire(&tag, mode, true, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
release(int32 pipeline_id, int32 ordinal, LOCKMODE mode)
{
	LOCKTAG		tag = make_tag(pipeline_id, ordinal);

	(void) LockRelease(&tag, mode, true);
}

static bool
lock_pipeline(int32 pipeline_id, int32 ordinal, bool wait)
{
	if (ordinal < 0)
		return acquire(pipeline_id, -1, ExclusiveLock, wait);
	if (!acquire(pipeline_id, ordinal, ExclusiveLock, wait))
		return false;
	if (acquire(pipeline_id, -1, ShareLock, wait))
		return true;
	release(pipeline_id, ordinal, ExclusiveLock);
	return false;
}

bool
ingest_worker_lock_backfill(int32 pipeline_id)
{
	return acquire(pipeline_id, PG_INT32_MAX - 1, ExclusiveLock, false);
}

void
ingest_worker_unlock_backfill(int32 pipeline_id)
{
	release(pipeline_id, PG_INT32_MAX - 1, ExclusiveLock);
}

bool
ingest_worker_lock(int32 pipeline_id, int32 ordinal)
{
	return lock_pipeline(pipeline_id, ordinal, false);
}

void
ingest_worker_lock_wait(int32 pipeline_id, int32 ordinal)
{
	(void) lock_pipeline(pipeline_id, ordinal, true);
}

void
ingest_worker_unlock(int32 pipeline_id, int32 ordinal)
{
	if (ordinal < 0)
	{
		release(pipeline_id, -1, ExclusiveLock);
		return;
	}
	release(pipeline_id, -1, ShareLock);
	release(pipeline_id, ordinal, ExclusiveLock);
}
