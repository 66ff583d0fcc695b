/*
 * fault.c
 *		Fault points, for tests; empty unless built with FAULTS=1.
 */
#include "postgres.h"

#include "core/fault.h"

#ifdef INGEST_FAULTS

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "core/compat.h"

static char *fault;				/* the setting */
static char *seen;				/* the setting that "passed" counts for */
static int	passed;				/* times the point was reached */

void
ingest_fault_init(void)
{
	DefineCustomStringVariable("ingest.fault",
							   "Sets a fault point to fail at, as point:action[:skip[:pid]].",
							   NULL, &fault, "", PGC_SUSET, 0, NULL, NULL, NULL);
	ingest_fault_nth_init();
}

/* Stay here, interruptibly, until a reload changes the setting. */
static void
wait_for_change(void)
{
	char	   *was = pstrdup(fault);

	while (strcmp(fault, was) == 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0,
						 ingest_compat_wait_event("IngestFault"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

static void
fail(const char *point, const char *action)
{
	if (strncmp(action, "error", 5) == 0)
		ereport(ERROR, (errcode(ERRCODE_IO_ERROR), errmsg("fault at \"%s\"", point)));
	else if (strncmp(action, "fatal", 5) == 0)
		ereport(FATAL, (errcode(ERRCODE_IO_ERROR), errmsg("fault at \"%s\"", point)));
	else if (strncmp(action, "exit", 4) == 0)
		proc_exit(1);
	else if (strncmp(action, "kill", 4) == 0)
		kill(MyProcPid, SIGKILL);
	else if (strncmp(action, "abort", 5) == 0)
		abort();
	else if (strncmp(action, "wait", 4) == 0)
		wait_for_change();
}

void
ingest_fault_reach(const char *point)
{
	size_t		len = strlen(point);
	const char *action;
	const char *skip;
	const char *pid;

	ingest_fault_nth_reach(point);
	if (fault == NULL || strncmp(fault, point, len) != 0 || fault[len] != ':')
		return;

	/* A changed setting counts from the start. */
	if (seen == NULL || strcmp(seen, fault) != 0)
	{
		free(seen);
		seen = strdup(fault);
		passed = 0;
	}
	action = fault + len + 1;
	skip = strchr(action, ':');
	pid = skip ? strchr(skip + 1, ':') : NULL;
	if (pid && atoi(pid + 1) != MyProcPid)
		return;
	if (passed++ == (skip ? atoi(skip + 1) : 0))
		fail(point, action);
}

#endif							/* INGEST_FAULTS */
