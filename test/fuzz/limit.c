/*
 * limit.c
 *		Fuzz target of what HTTP sources read and write as text: rates,
 *		Retry-After, budgets, templates, URLs.
 *
 * An input is a byte for the function, a byte for its variant, and texts
 * separated by 0x1E.  Waits are within their bounds; a value does not change
 * what is around it.
 */
#include "postgres.h"

#include "fuzz.h"
#include "http/limit.h"
#include "http/template.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#define MAX_WAIT 1000000
#define MAX_TEXTS 6

typedef struct Texts
{
	char	   *text[MAX_TEXTS];	/* NULL: not given */
} Texts;

static void
start_limit(void)
{
}

/* Each in a block of its own. */
static void
split_texts(const char *data, Size len, Texts *texts)
{
	const char *end = data + len;

	memset(texts, 0, sizeof(Texts));
	for (int i = 0; i < MAX_TEXTS && data <= end; i++)
	{
		const char *separator = memchr(data, 0x1E, end - data);
		const char *until = separator ? separator : end;

		texts->text[i] = pnstrdup(data, until - data);
		data = until + 1;
	}
}

/* Only errors of options may be raised. */
static bool
is_refused(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (error->sqlerrcode != ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE)
		ReThrowError(error);
	return true;
}

static void
run_rate(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	IngestHttpRate rate;
	IngestHttpRate again;

	PG_TRY();
	{
		ingest_http_rate_parse("rate_limit", text, &rate);
	}
	PG_CATCH();
	{
		is_refused(context);
		return;
	}
	PG_END_TRY();
	if (!(rate.requests > 0) || rate.period < 1)
		fuzz_finding("rate %g in " INT64_FORMAT, rate.requests, rate.period);
	if (rate.requests < 1e-9)
		return;					/* shown with an exponent */
	ingest_http_rate_parse("rate_limit", psprintf("%f/" INT64_FORMAT "ms", Max(rate.requests, 1), rate.period), &again);
	if (again.period != rate.period || ingest_http_rate_text(&rate) == NULL)
		fuzz_finding("rate is not what it was");
}

/* The texts as headers. */
static const char *
find_header(const void *arg, const char *name)
{
	static const char *const names[MAX_TEXTS] = {
		"RateLimit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Date", "RateLimit-Remaining", "RateLimit-Reset"
	};

	for (int i = 0; i < MAX_TEXTS; i++)
		if (strcmp(names[i], name) == 0)
			return ((const Texts *) arg)->text[i];
	return NULL;
}

static void
run_waits(const Texts *texts)
{
	int64		wait = ingest_http_retry_after(texts->text[0], texts->text[1], MAX_WAIT);

	if (wait < -1 || wait > MAX_WAIT)
		fuzz_finding("Retry-After is " INT64_FORMAT, wait);
	wait = ingest_http_budget_wait(find_header, texts, MAX_WAIT);
	if (wait < 0 || wait > MAX_WAIT)
		fuzz_finding("budget is " INT64_FORMAT, wait);
}

static const char *
find_value(const void *arg, const char *name)
{
	return ((const Texts *) arg)->text[*name == 'a' ? 1 : 2];
}

static const char *
find_plain(const void *arg, const char *name)
{
	return find_value(arg, name) ? "x" : NULL;
}

static int
count_char(const char *text, char c)
{
	int			n = 0;

	for (; *text; text++)
		n += *text == c;
	return n;
}

/* What was filled has the structure that it has with an "x" as each value. */
static void
check_filled(IngestTemplateKind kind, const char *filled, const char *plain)
{
	const char *structure = kind == INGEST_TEMPLATE_URL ? "/?#&=: \r\n" :
		kind == INGEST_TEMPLATE_FORM ? "&= \r\n" :
		kind == INGEST_TEMPLATE_XML ? "<>\"'" :
		kind == INGEST_TEMPLATE_HEADER ? "\r\n" : "";

	for (; *structure; structure++)
		if (count_char(filled, *structure) != count_char(plain, *structure))
			fuzz_finding("a value has made \"%c\"", *structure);
}

static void
run_template(IngestTemplateKind kind, const Texts *texts)
{
	static const char *const names[] = {"a", "b", NULL};
	MemoryContext context = CurrentMemoryContext;
	IngestTemplate *volatile tmpl = NULL;
	const char *why;
	char	   *filled;
	char	   *plain;

	PG_TRY();
	{
		tmpl = ingest_template_parse("path", texts->text[0], kind, names);
	}
	PG_CATCH();
	{
		is_refused(context);
		return;
	}
	PG_END_TRY();
	filled = ingest_template_fill(tmpl, find_value, texts, &why);
	if ((filled == NULL) != (why != NULL) || (why && *why != 'a' && *why != 'b'))
		fuzz_finding("no reason");
	plain = ingest_template_fill(tmpl, find_plain, texts, &why);
	if (filled && plain)
		check_filled(kind, filled, plain);
}

/* The values within JSON give JSON with these values. */
static void
run_json(Texts *texts)
{
	char	   *value = texts->text[1];
	const char *why;
	Datum		json;
	text	   *found;

	if (value == NULL || !pg_verify_mbstr(PG_UTF8, value, strlen(value), true))
		return;
	texts->text[0] = "{\"a\": {a}, \"s\": \"{{a}}\"}";
	run_template(INGEST_TEMPLATE_JSON, texts);
	value = ingest_template_fill(ingest_template_parse("body", texts->text[0], INGEST_TEMPLATE_JSON,
													   (const char *const[]) {"a", "b", NULL}),
								 find_value, texts, &why);
	json = DirectFunctionCall1(json_in, CStringGetDatum(value));
	found = DatumGetTextPP(DirectFunctionCall2(json_object_field_text, json, CStringGetTextDatum("s")));
	if (strcmp(text_to_cstring(found), psprintf("{%s}", texts->text[1])) != 0)
		fuzz_finding("the string is another");
}

static void
run_urls(const Texts *texts)
{
	const char *url = texts->text[0];
	const char *name = texts->text[1];
	const char *value = texts->text[2];
	char	   *once;

	if (name == NULL)
		return;
	(void) ingest_template_join(url, name);
	once = ingest_template_set_parameter(url, name, value);
	if (strcmp(once, ingest_template_set_parameter(once, name, value)) != 0)
		fuzz_finding("a parameter set twice is not as set once");
}

static void
run_limit(const char *data, Size len)
{
	Texts		texts;

	if (len < 2)
		return;
	split_texts(data + 2, len - 2, &texts);
	if (((unsigned char) data[0] % 5) % 2 == 0 &&
		!pg_verify_mbstr(PG_UTF8, texts.text[0], strlen(texts.text[0]), true))
		return;					/* the server gives no such option */
	switch ((unsigned char) data[0] % 5)
	{
		case 0:
			run_rate(texts.text[0]);
			break;
		case 1:
			run_waits(&texts);
			break;
		case 2:
			run_template((IngestTemplateKind) ((unsigned char) data[1] % (INGEST_TEMPLATE_TEXT + 1)), &texts);
			break;
		case 3:
			run_json(&texts);
			break;
		case 4:
			run_urls(&texts);
			break;
	}
}

const FuzzTarget fuzz_limit = {"limit", start_limit, run_limit};
