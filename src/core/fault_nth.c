/*
 * fault_nth.c
 *		The n-th allocation or library call fails, for tests; empty unless built
 *		with FAULTS=1.
 *
 * The setting ingest.fault_nth holds "what:n[:step:point]".  What: allocation,
 * of any of the server's ordinary memory contexts, which then raise their own
 * error; or library, the calls of source/kafka_fault.h.  The count begins with
 * the process, or where it passes the fault point.  Without a step it happens
 * once in each process.  With one, n grows by it each time, also over the end of
 * the process, and every other passing goes undisturbed: what is tried again has
 * to succeed.  Once three passings are over before the n-th, all have had their
 * turn, and the log says so.
 */
#include "postgres.h"

#include "core/fault.h"

#ifdef INGEST_FAULTS

#include <sys/mman.h>
#include <unistd.h>

#include "core/compat.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/* Where n is kept, in the data directory. */
#define PROGRESS_FILE	"ingest_fault_nth"

/* This many passings that end before the n-th, and it is over. */
#define ENOUGH			3

static char *setting;
static char *seen;				/* the setting that the rest was made of */
static char what;				/* 'a', 'l' or, for nothing, 0 */
static int	nth;
static int	step;
static char point[64];
static int	count;				/* since the begin, or the point */
static bool counting;
static bool resting;			/* until the point is passed once more */
static int	whole;				/* passings that were over before the n-th */

/* ---- the memory contexts ---- */

static void *(*real_alloc) (ingest_compat_alloc_parameters);

static bool fail_now(char kind);

/*
 * What must not fail does not count: the server has reserved memory for reporting
 * errors, and in critical sections it does not ask for any.
 */
static bool
fail_allocation(MemoryContext context)
{
	return context != ErrorContext && CritSectionCount == 0 && fail_now('a');
}

static void *
count_alloc(ingest_compat_alloc_parameters)
{
	if (fail_allocation(context))
		return ingest_compat_alloc_failure;
	return real_alloc(ingest_compat_alloc_arguments);
}

/*
 * All contexts of a kind share their methods: exchanging one there reaches those
 * that are still to come.  The table is constant, but it is ours alone.
 */
static void
hook_contexts(void)
{
	MemoryContextMethods *methods = unconstify(MemoryContextMethods *, TopMemoryContext->methods);
	uintptr_t	page = getpagesize();
	uintptr_t	from = (uintptr_t) methods / page * page;

	if (real_alloc)
		return;
	if (mprotect((void *) from, (uintptr_t) (methods + 1) - from, PROT_READ | PROT_WRITE) != 0)
		elog(ERROR, "could not reach the memory contexts: %m");
	real_alloc = methods->alloc;
	methods->alloc = count_alloc;
}

/* ---- how far we are ---- */

static void
read_progress(void)
{
	FILE	   *file = fopen(PROGRESS_FILE, "r");

	if (file == NULL)
		return;
	if (fscanf(file, "%d", &nth) != 1)
		what = 0;
	fclose(file);
}

static void
write_progress(void)
{
	FILE	   *file = fopen(PROGRESS_FILE, "w");

	if (file == NULL)
		return;
	fprintf(file, "%d\n", nth);
	fclose(file);
}

/* A changed setting begins anew; the first use of it in a process, too. */
static void
look_at_setting(void)
{
	const char *now = setting ? setting : "";

	if (seen && strcmp(seen, now) == 0)
		return;
	free(seen);
	seen = strdup(now);
	step = count = whole = 0;
	resting = false;
	point[0] = what = '\0';
	if (sscanf(now, "allocation:%d:%d:%63s", &nth, &step, point) >= 1)
		what = 'a';
	else if (sscanf(now, "library:%d:%d:%63s", &nth, &step, point) >= 1)
		what = 'l';
	counting = what && point[0] == '\0';
	if (step > 0)
		read_progress();
	if (what == 'a')
		hook_contexts();
}

/* Is this the one?  Called from within allocations: allocates nothing. */
static bool
fail_now(char kind)
{
	if (!counting || kind != what || ++count < nth)
		return false;
	counting = false;
	resting = true;
	whole = 0;
	write_stderr("fault: %s %d\n", what == 'a' ? "allocation" : "library call", nth);
	if (step > 0)
	{
		nth += step;
		write_progress();
	}
	return true;
}

bool
ingest_fault_library(void)
{
	look_at_setting();
	return fail_now('l');
}

void
ingest_fault_nth_reach(const char *reached)
{
	look_at_setting();
	if (!what || point[0] == '\0')
		return;
	if (strcmp(point, reached) != 0)
	{
		/* One chapter at a time. */
		if (strcmp(reached, "before-turn") == 0 || strcmp(reached, "before-assign") == 0)
			counting = false;
		return;
	}
	if (counting && ++whole == ENOUGH)
	{
		write_stderr("fault: no more than %d\n", nth - step);
		what = 0;
	}
	counting = what && !resting;
	resting = false;
	count = 0;
}

void
ingest_fault_nth_init(void)
{
	DefineCustomStringVariable("ingest.fault_nth",
							   "Sets what fails the n-th time, as what:n[:step:point].",
							   NULL, &setting, "", PGC_SUSET, 0, NULL, NULL, NULL);
}

#endif							/* INGEST_FAULTS */
