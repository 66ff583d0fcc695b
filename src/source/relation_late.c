/*
 * relation_late.c
 *		Transactions that may still commit rows below what was read.
 *
 * The order of a cursor is not the order of commits: a transaction may draw
 * a number, or take the time, and commit long after others that came later.
 * So the greatest cursor that can be seen is noted, and, after that, which
 * transactions run; when all of these have ended, nothing can appear below it
 * any more, for those that began later draw greater values.  Looking takes no
 * lock, and nothing is held while they are waited for.
 *
 * Which transactions matter: a column that takes the time of day may be filled with
 * the time at which its transaction began, so any may write something old.  A number
 * from a sequence is drawn by one that has locked the table to insert into it, or
 * the sequence, which nextval() keeps locked: others do not matter.
 *
 * A list is text: "4/1283 5/77 x99 since 7321", virtual transactions (a backend
 * and its count of transactions) and prepared ones (x and the number of the
 * transaction), and when the server was started: a restart ends all but those
 * that are prepared.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "core/compat.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "source/relation.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/timestamp.h"
#include "worker/waiting.h"

#define SINCE "since "

/* Vacuuming writes no rows. */
#define NO_WRITERS (PROC_IN_VACUUM | PROC_IN_SAFE_IC)

/* A session that waits for a pipeline, perhaps for this one, writes nothing. */
static bool
only_waits(VirtualTransactionId vxid)
{
	PGPROC	   *proc = ingest_compat_vxid_owner(vxid);

	return proc != NULL && ingest_waiting_is(proc->pid);
}

static void
append_virtual(StringInfo list, VirtualTransactionId vxid)
{
	if (only_waits(vxid))
		return;
	appendStringInfo(list, "%d/%u ", ingest_compat_vxid_proc(vxid), vxid.localTransactionId);
}

static void
append_prepared(StringInfo list)
{
	static IngestStatement find = {
		"SELECT transaction::text AS xid FROM pg_catalog.pg_prepared_xacts"
		" WHERE database = pg_catalog.current_database()",
		0
	};
	MemoryContext mcxt = CurrentMemoryContext;
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(&find, NULL, NULL);
	for (uint64 i = 0; i < nrows; i++)
		appendStringInfo(list, "x%s ", ingest_spi_text(i, "xid", mcxt));
	ingest_spi_end();
}

static char *
finish_list(StringInfo list)
{
	if (list->len == 0)
		return NULL;
	appendStringInfo(list, SINCE INT64_FORMAT, (int64) PgStartTime);
	return list->data;
}

/* Those that hold a lock of writers. */
static void
append_writers(StringInfo list, Oid relid)
{
	LOCKTAG		tag;
	VirtualTransactionId *vxids;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	vxids = GetLockConflicts(&tag, ShareLock, &n);
	for (int i = 0; i < n; i++)
		if (VirtualTransactionIdIsRecoveredPreparedXact(vxids[i]))
			appendStringInfo(list, "x%u ", vxids[i].localTransactionId);
		else
			append_virtual(list, vxids[i]);
}

char *
ingest_relation_running(const List *written)
{
	StringInfoData list;
	VirtualTransactionId *vxids;
	const ListCell *lc;
	int			n;

	initStringInfo(&list);
	foreach(lc, written)
		append_writers(&list, lfirst_oid(lc));
	if (written != NIL)
		return finish_list(&list);
	vxids = GetCurrentVirtualXIDs(InvalidTransactionId, false, false, NO_WRITERS, &n);
	for (int i = 0; i < n; i++)
		append_virtual(&list, vxids[i]);
	append_prepared(&list);
	return finish_list(&list);
}

static bool
still_runs(const char *item, bool same_server)
{
	VirtualTransactionId vxid;
	int			proc;

	if (item[0] == 'x')
		return TransactionIdIsInProgress((TransactionId) strtoul(item + 1, NULL, 10));
	if (!same_server || sscanf(item, "%d/%u", &proc, &vxid.localTransactionId) != 2)
		return false;
	ingest_compat_vxid_set_proc(vxid, proc);
	return VirtualTransactionIdIsValid(vxid) && !VirtualXactLock(vxid, false);
}

char *
ingest_relation_still_running(const char *running)
{
	StringInfoData list;
	const char *since = strstr(running, SINCE);
	bool		same_server = since && strtoll(since + strlen(SINCE), NULL, 10) == (int64) PgStartTime;
	char	   *copy = pstrdup(running);
	char	   *rest;

	initStringInfo(&list);
	for (char *item = strtok_r(copy, " ", &rest); item && strcmp(item, "since") != 0;
		 item = strtok_r(NULL, " ", &rest))
		if (still_runs(item, same_server))
			appendStringInfo(&list, "%s ", item);
	pfree(copy);
	/* One that ran before a restart may be prepared since. */
	if (!same_server)
		append_prepared(&list);
	return finish_list(&list);
}
