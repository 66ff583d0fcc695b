/*
 * options.c
 *		Fuzz target of the option parser.
 *
 * An input is a byte for the tables, a byte for the scope, and options as JSON.
 * What is wrong with them is raised, by design, but never as an internal error;
 * what was checked can be parsed, numbers are in their ranges, and a secret is
 * in no message.
 */
#include "postgres.h"

#include "catalog/pipeline.h"
#include "core/options.h"
#include "format/format.h"
#include "fuzz.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "source/source.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#define SECRET "S3CR3T"
#define MAX_TABLES 32

static const IngestOptionDef *tables[MAX_TABLES];
static size_t sizes[MAX_TABLES];
static int	ntables;

static void
add_table(const IngestOptionDef *table)
{
	size_t		size = 0;

	/* Not every owner says how large its struct is: the last field does. */
	for (const IngestOptionDef *def = table; def->name; def++)
		size = Max(size, def->offset + 8);
	tables[ntables] = table;
	sizes[ntables++] = size;
}

static void
start_options(void)
{
	add_table(ingest_pipeline_options);
	add_table(ingest_source_options);
	for (const IngestFormatOps *const *f = ingest_formats; *f; f++)
		add_table((*f)->options);
	for (const IngestSourceOps *const *s = ingest_sources; *s; s++)
		add_table((*s)->options);
}

static void
check_number(const IngestOptionDef *def, const char *into)
{
	double		number = 0;

	switch (def->type)
	{
		case INGEST_OPTION_INT:
		case INGEST_OPTION_BYTES:
		case INGEST_OPTION_MS:
			number = *(const int64 *) (into + def->offset);
			break;
		case INGEST_OPTION_FLOAT:
			number = *(const double *) (into + def->offset);
			break;
		default:
			return;
	}
	if ((def->min != 0 || def->max != 0) && def->fallback && (number < def->min || number > def->max))
		fuzz_finding("option \"%s\" is %g", def->name, number);
}

static bool
is_secret(const IngestOptionDef *table, const char *name)
{
	for (; table->name; table++)
		if (table->secret && strcmp(table->name, name) == 0)
			return true;
	return false;
}

/* May be raised of options: they are wrong in some way that has a name. */
static bool
is_option_error(int sqlstate)
{
	return fuzz_is_data_error(sqlstate) ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_FDW_ERROR ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_FEATURE_NOT_SUPPORTED ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/* The error is one of options, and tells no secret. */
static void
check_raised(const IngestOptionDef *table, const DefElem *option, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (!is_option_error(error->sqlerrcode))
		ReThrowError(error);
	if (option && is_secret(table, option->defname) &&
		((error->message && strstr(error->message, SECRET)) ||
		 (error->detail && strstr(error->detail, SECRET)) ||
		 (error->hint && strstr(error->hint, SECRET))))
		fuzz_finding("a secret is told: %s", error->message);
}

static void
run_options(const char *data, Size len)
{
	MemoryContext context = CurrentMemoryContext;
	const IngestOptionDef *of[2] = {NULL, NULL};
	const IngestOptionDef *volatile table;
	const DefElem *volatile checking = NULL;
	volatile bool checked = false;
	List	   *options;
	size_t		size;
	int			scope;
	char	   *into;
	ListCell   *lc;

	if (len < 2)
		return;
	table = of[0] = tables[(unsigned char) data[0] % ntables];
	size = sizes[(unsigned char) data[0] % ntables];
	scope = 1 << ((unsigned char) data[1] % 5);
	data += 2;
	len -= 2;
	if (!pg_verify_mbstr(PG_UTF8, data, len, true) || memchr(data, '\0', len))
		return;					/* the server gives no such text */
	PG_TRY();
	{
		Datum		json = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(data, len)));

		options = ingest_option_from_jsonb(DatumGetJsonbP(json));
		foreach(lc, options)
		{
			checking = lfirst_node(DefElem, lc);
			ingest_option_check(of, scope, checking->defname, strVal(checking->arg));
		}
		checking = NULL;
		checked = true;
		into = palloc0(size);
		ingest_option_parse(of[0], options, into);
		for (const IngestOptionDef *def = of[0]; def->name; def++)
			check_number(def, into);
		checked = false;
		ingest_option_check_required(of, scope, options);
	}
	PG_CATCH();
	{
		if (checked)
			PG_RE_THROW();
		check_raised(table, checking, context);
	}
	PG_END_TRY();
}

const FuzzTarget fuzz_options = {"options", start_options, run_options};
