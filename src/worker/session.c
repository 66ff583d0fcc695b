/*
 * session.c
 *		The database session of a supervisor, a worker or an upkeep.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/process.h"
#include "worker/session.h"

/* The extension this session works with; decided by the first transaction. */
static Oid	extension = InvalidOid;

const IngestXact ingest_session_xact = {
	ingest_session_begin, ingest_session_commit, ingest_session_rollback, .ends_all = true
};

void
ingest_session_open(const char *application_name)
{
	BackgroundWorkerInitializeConnectionByOid(ingest_process_self->database,
											  ingest_process_self->role, 0);
	SetConfigOption("application_name", application_name, PGC_USERSET, PGC_S_SESSION);
}

/* extversion, or NULL. */
static char *
read_version(Oid oid)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		version = isnull ? NULL : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

IngestPresence
ingest_session_find_extension(char **version)
{
	Oid			oid = ingest_extension_oid(true);

	*version = NULL;
	if (!OidIsValid(oid))
		return INGEST_ABSENT;
	LockDatabaseObject(ExtensionRelationId, oid, 0, AccessShareLock);
	*version = read_version(oid);
	if (*version == NULL)
		return INGEST_ABSENT;	/* dropped while we waited */
	if (strcmp(*version, INGEST_VERSION) != 0)
		return INGEST_OTHER_VERSION;
	if (OidIsValid(extension) && extension != oid)
		return INGEST_REPLACED;
	extension = oid;
	return INGEST_PRESENT;
}

void
ingest_session_begin(void)
{
	char	   *version;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (ingest_session_find_extension(&version) == INGEST_PRESENT)
		return;

	/* The supervisor, or the next one, finds out what follows from that. */
	AbortCurrentTransaction();
	ingest_process_exit(INGEST_RESULT_STOPPED);
}

void
ingest_session_commit(void)
{
	CommitTransactionCommand();
}

void
ingest_session_rollback(void)
{
	AbortOutOfAnyTransaction();
}

/*
 * As DISCARD ALL does, but plans of ours stay: they are what is worth keeping.
 */
void
ingest_session_clean(const char *application_name)
{
	ingest_session_begin();
	PortalHashTableDeleteAll();
	SetPGVariable("session_authorization", NIL, false);
	SetPGVariable("role", NIL, false);
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	ingest_session_commit();
	SetConfigOption("application_name", application_name, PGC_USERSET, PGC_S_SESSION);
}

void
ingest_session_reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}
