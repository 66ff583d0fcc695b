/*
 * marker.c
 *		Marks in the file system that tell, after a crash, whose fault it was.
 *
 * What is done about a crash is in catalog/state.c and supervisor.c.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "worker/marker.h"
#include "worker/process.h"

#define MARKER_PREFIX "ingest-worker."

/* Of this process's mark; empty when there is none. */
static char marker_path[MAXPGPATH] = "";

/* Async-signal-safe. */
static void
remove_marker(void)
{
	if (marker_path[0] != '\0')
		(void) unlink(marker_path);
	marker_path[0] = '\0';
}

/* The server throws everybody out: somebody else has crashed, or we shall hurry. */
static void
handle_quit(SIGNAL_ARGS)
{
	remove_marker();
	SignalHandlerForCrashExit(postgres_signal_arg);
}

static void
remove_marker_at_exit(int code, Datum arg)
{
	/* exit() called by some library has another code: that is a crash, too. */
	if (code == 0 || code == 1)
		remove_marker();
}

void
ingest_marker_leave(void)
{
	static bool registered = false;
	const IngestProcess *self = ingest_process_self;
	char		path[MAXPGPATH];
	int			fd;

	remove_marker();
	snprintf(path, sizeof(path), PG_STAT_TMP_DIR "/" MARKER_PREFIX "%u.%d.%d.%d." INT64_FORMAT,
			 self->database, self->pipeline_id, self->ordinal, MyProcPid, (int64) PgStartTime);
	fd = BasicOpenFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path),
				 errdetail("Should this process crash, that will not be counted.")));
		return;
	}
	close(fd);
	strlcpy(marker_path, path, sizeof(marker_path));
	pqsignal(SIGQUIT, handle_quit);

	/* Before the entry in the table is left, so that nobody sees one without the other. */
	if (!registered)
		before_shmem_exit(remove_marker_at_exit, (Datum) 0);
	registered = true;
}

void
ingest_marker_remove(void)
{
	remove_marker();
}

/* Is this process in our table? */
static bool
is_alive(pid_t pid)
{
	bool		found = false;

	ingest_process_lock(false);
	for (int i = 0; i < ingest_process_count() && !found; i++)
	{
		IngestProcess *process = ingest_process_get(i);

		found = process->state == INGEST_PROCESS_RUNNING && process->pid == pid;
	}
	ingest_process_unlock();
	return found;
}

/* Does the mark tell of a crash?  Removes it unless its process lives. */
static bool
judge_marker(const char *file, int *pipeline_id)
{
	char		path[MAXPGPATH];
	unsigned int database;
	int			ordinal;
	int			pid;
	int64		started;

	if (sscanf(file, MARKER_PREFIX "%u.%d.%d.%d." INT64_FORMAT, &database, pipeline_id, &ordinal,
			   &pid, &started) != 5 || database != MyDatabaseId)
		return false;
	if (started == PgStartTime && is_alive(pid))
		return false;

	snprintf(path, sizeof(path), PG_STAT_TMP_DIR "/%s", file);
	if (unlink(path) != 0)
		return false;
	return started == PgStartTime || !restart_after_crash;
}

List *
ingest_marker_collect(void)
{
	DIR		   *dir = AllocateDir(PG_STAT_TMP_DIR);
	struct dirent *entry;
	List	   *pipelines = NIL;
	int			pipeline_id;

	while ((entry = ReadDirExtended(dir, PG_STAT_TMP_DIR, LOG)) != NULL)
		if (strncmp(entry->d_name, MARKER_PREFIX, strlen(MARKER_PREFIX)) == 0 &&
			judge_marker(entry->d_name, &pipeline_id))
			pipelines = lappend_int(pipelines, pipeline_id);
	FreeDir(dir);
	return pipelines;
}
