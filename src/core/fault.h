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
 * Counted failures, ingest.fault_nth, are in fault_nth.c.
 *
 * The points of a turn, in order: after-fetch, before-turn, before-load,
 * mid-decode, after-load, before-position, before-commit, after-commit,
 * before-acknowledge.  Before turns: before-assign.
 */
#ifndef INGEST_FAULT_H
#define INGEST_FAULT_H

#ifdef INGEST_FAULTS
extern void ingest_fault_init(void);
extern void ingest_fault_reach(const char *point);
extern void ingest_fault_nth_init(void);
extern void ingest_fault_nth_reach(const char *point);

/* Is the call of a library that is about to be made to fail? */
extern bool ingest_fault_library(void);
#define INGEST_FAULT(point) ingest_fault_reach(point)
#else
#define ingest_fault_init() ((void) 0)
#define INGEST_FAULT(point) ((void) 0)
#endif

#endif							/* INGEST_FAULT_H */
