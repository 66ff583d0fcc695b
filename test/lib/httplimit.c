/*
 * httplimit.c
 *		Limits and templates of HTTP sources, callable from SQL: for
 *		test/t/102_http_limit.pl and 102_http_template.pl.
 *
 * A library of its own with the code under test in it, and nothing else of the
 * extension.  Preloaded next to the extension it finds the same shared memory,
 * so that ingest.http_server shows what is done here.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "core/clock.h"
#include "fmgr.h"
#include "http/limit.h"
#include "http/template.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

PGDLLEXPORT PG_FUNCTION_INFO_V1(test_rate);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_retry_after);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_budget);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_fill);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_set_parameter);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_join);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_open);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_close);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_take);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_give_back);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_pause);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_verdict);
PGDLLEXPORT PG_FUNCTION_INFO_V1(test_run);

#define MAX_LIMITS 4096

static IngestHttpLimit *limits[MAX_LIMITS];
static MemoryContext contexts[MAX_LIMITS];

void
_PG_init(void)
{
	ingest_http_limit_init();
}

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* Elements of an array of text, NULLs as such; and a NULL behind them. */
static char **
array_arg(FunctionCallInfo fcinfo, int arg, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	char	  **texts;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(arg), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	texts = palloc0(sizeof(char *) * (*n + 1));
	for (int i = 0; i < *n; i++)
		texts[i] = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
	return texts;
}

/* ---- texts ---- */

/* A rate, and how it is shown. */
Datum
test_rate(PG_FUNCTION_ARGS)
{
	IngestHttpRate rate = {0};

	ingest_http_rate_parse("rate_limit", text_arg(fcinfo, 0), &rate);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%g in " INT64_FORMAT " ms: %s", rate.requests, rate.period,
											  ingest_http_rate_text(&rate))));
}

/* value, date, max */
Datum
test_retry_after(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(ingest_http_retry_after(text_arg(fcinfo, 0), text_arg(fcinfo, 1), PG_GETARG_INT64(2)));
}

/* Names and values by turns. */
static const char *
find_pair(const void *arg, const char *name)
{
	char	  **pairs = (char **) arg;

	for (; pairs[0]; pairs += 2)
		if (pg_strcasecmp(pairs[0], name) == 0)
			return pairs[1];
	return NULL;
}

/* headers, max */
Datum
test_budget(PG_FUNCTION_ARGS)
{
	int			n;

	PG_RETURN_INT64(ingest_http_budget_wait(find_pair, array_arg(fcinfo, 0, &n), PG_GETARG_INT64(1)));
}

/* template, kind, names and values by turns; "!name" when that one's value cannot stand there */
Datum
test_fill(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"url", "json", "form", "header", "xml", "text"};
	char	   *kind = text_arg(fcinfo, 1);
	int			n;
	char	  **pairs = array_arg(fcinfo, 2, &n);
	const char **names = palloc0(sizeof(char *) * (n / 2 + 1));
	IngestTemplate *tmpl;
	const char *why = NULL;
	char	   *filled;
	int			k = 0;

	while (strcmp(kinds[k], kind) != 0)
		k++;
	for (int i = 0; i < n / 2; i++)
		names[i] = pairs[2 * i];
	tmpl = ingest_template_parse("path", text_arg(fcinfo, 0), (IngestTemplateKind) k, names);
	filled = ingest_template_fill(tmpl, find_pair, pairs, &why);
	PG_RETURN_TEXT_P(cstring_to_text(filled ? filled : psprintf("!%s", why)));
}

Datum
test_set_parameter(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(ingest_template_set_parameter(text_arg(fcinfo, 0), text_arg(fcinfo, 1),
																   text_arg(fcinfo, 2))));
}

Datum
test_join(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(ingest_template_join(text_arg(fcinfo, 0), text_arg(fcinfo, 1))));
}

/* ---- limits ---- */

/* number of the handle, server, rate or NULL, concurrency */
Datum
test_open(PG_FUNCTION_ARGS)
{
	int			n = PG_GETARG_INT32(0);
	IngestHttpRate rate = {0};
	MemoryContext oldcontext;

	if (!PG_ARGISNULL(2))
		ingest_http_rate_parse("rate_limit", text_arg(fcinfo, 2), &rate);
	contexts[n] = AllocSetContextCreate(TopMemoryContext, "httplimit", ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(contexts[n]);
	limits[n] = ingest_http_limit_open(MyDatabaseId, PG_GETARG_OID(1), rate, PG_GETARG_INT32(3));
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_VOID();
}

Datum
test_close(PG_FUNCTION_ARGS)
{
	MemoryContextDelete(contexts[PG_GETARG_INT32(0)]);
	PG_RETURN_VOID();
}

Datum
test_take(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(ingest_http_limit_take(limits[PG_GETARG_INT32(0)]));
}

Datum
test_give_back(PG_FUNCTION_ARGS)
{
	ingest_http_limit_give_back(limits[PG_GETARG_INT32(0)]);
	PG_RETURN_VOID();
}

Datum
test_pause(PG_FUNCTION_ARGS)
{
	ingest_http_limit_pause(limits[PG_GETARG_INT32(0)], PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

Datum
test_verdict(PG_FUNCTION_ARGS)
{
	IngestHttpLimit *limit = limits[PG_GETARG_INT32(0)];

	if (PG_GETARG_BOOL(1))
		ingest_http_limit_succeeded(limit);
	else
		ingest_http_limit_failed(limit);
	PG_RETURN_VOID();
}

/* Take as many as there are for so many ms, each held for so many; returns how many. */
Datum
test_run(PG_FUNCTION_ARGS)
{
	IngestHttpLimit *limit = limits[PG_GETARG_INT32(0)];
	int64		end = ingest_clock_ms() + PG_GETARG_INT64(1);
	long		hold = PG_GETARG_INT64(2);
	int64		count = 0;
	int64		left;

	while ((left = end - ingest_clock_ms()) > 0)
	{
		long		wait = ingest_http_limit_take(limit);

		if (wait == 0)
		{
			count++;
			wait = hold;
			if (hold == 0)
				ingest_http_limit_give_back(limit);
		}
		else
			hold = -1;
		if (wait > 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(wait, left),
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		if (hold > 0)
			ingest_http_limit_give_back(limit);
		hold = PG_GETARG_INT64(2);
	}
	PG_RETURN_INT64(count);
}
