/*
 * session.h
 *		The database session of a supervisor, a worker or an upkeep: logging in,
 *		transactions, and what the extension's presence means for them.
 */
#ifndef INGEST_SESSION_H
#define INGEST_SESSION_H

#include "postgres.h"

#include "pipeline/turn.h"

/* Log in to the database of ingest_process_self as its role. */
extern void ingest_session_open(const char *application_name);

/*
 * Begin a transaction: first of all take a lock on the extension, so that
 * nobody drops it before the transaction has ended, and so that we hold nothing
 * while we wait for somebody who does.  When the extension is gone, or is another
 * one or of another version than before, this process ends here.
 */
extern void ingest_session_begin(void);
extern void ingest_session_commit(void);
extern void ingest_session_rollback(void);

/* The three, for ingest_run_turn() and friends. */
extern const IngestXact ingest_session_xact;

/* What ingest_session_begin() found out, without ending the process. */
typedef enum IngestPresence
{
	INGEST_PRESENT,
	INGEST_ABSENT,				/* no such extension here */
	INGEST_REPLACED,			/* another than the one this session began with */
	INGEST_OTHER_VERSION		/* of the SQL objects than of this library */
} IngestPresence;

/*
 * Is the extension here, and made for this library?  xact: in.  *version is
 * allocated in the current context, or NULL.
 */
extern IngestPresence ingest_session_find_extension(char **version);

/*
 * Between two pieces of work of the same role: settings, locks, temporary tables and
 * the like are as at the beginning.  xact: out.  raises: yes
 */
extern void ingest_session_clean(const char *application_name);

/* Settings that were changed by SIGHUP.  xact: out */
extern void ingest_session_reload(void);

#endif							/* INGEST_SESSION_H */
