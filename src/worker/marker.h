/*
 * marker.h
 *		Marks in the file system that tell, after a crash, whose fault it was.
 *
 * When one process dies the server throws out all the others, and shared memory
 * with them.  A worker leaves an empty file while it lives, and removes it on
 * every way out that is not a crash of its own: at an exit with code 0 or 1,
 * and when the server throws it out (SIGQUIT).  What is left over belongs to a
 * process that died by itself: a signal, an abort() in a library, the kernel's
 * out-of-memory killer.  The files live in pg_stat_tmp, which backups leave out.
 */
#ifndef INGEST_MARKER_H
#define INGEST_MARKER_H

#include "postgres.h"

#include "nodes/pg_list.h"

/*
 * Leave a mark for this process (ingest_process_self), in the place of one it has;
 * removed as said above.  raises: no
 */
extern void ingest_marker_leave(void);

/* What it was doing is done.  raises: no */
extern void ingest_marker_remove(void);

/*
 * Pipelines of this database whose workers died, a List of int, one member for
 * each; their marks are removed.  Marks of an earlier start of the server do not
 * count unless the server is set not to restart after a crash: then nobody
 * knows what the end of all processes was about.  Marks of live workers
 * are left alone.
 */
extern List *ingest_marker_collect(void);

#endif							/* INGEST_MARKER_H */
