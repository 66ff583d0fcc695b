/*
 * fault.h
 *		Named places where a test can make this process fail.
 *
 * Compiled in by make FAULTS=1 only; otherwise INGEST_FAULT() is nothing.  The
 * setting ingest.fault holds "point:action[:skip[:pid]]", for instance
 * "before-commit:kill" or "after-fetch:error:3" (the fourth time); with a process
 * id others pass, so that a worker that comes back is not hit again.  Actions:
 * error (ERROR), fatal, exit (exit code 1), kill (SIGKILL to ourselves), abort,
 * wait (until the setting changes).
 *
 * The points of a turn, in order: after-fetch, mid-decode, before-load,
 * after-load, before-position, before-commit, after-commit,
 * before-acknowledge.
 */
#ifndef INGEST_FAULT_H
#define INGEST_FAULT_H

#ifdef INGEST_FAULTS
extern void ingest_fault_init(void);
extern void ingest_fault_reach(const char *point);
#define INGEST_FAULT(point) ingest_fault_reach(point)
#else
#define ingest_fault_init() ((void) 0)
#define INGEST_FAULT(point) ((void) 0)
#endif

#endif							/* INGEST_FAULT_H */
