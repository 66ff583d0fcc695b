/*
 * options.c
 *		What ingest.option_help and ingest.metadata_help show: the option tables
 *		of the pipeline, the sources and the formats.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/pipeline.h"
#include "core/options.h"
#include "fmgr.h"
#include "format/format.h"
#include "funcapi.h"
#include "source/source.h"
#include "utils/array.h"
#include "utils/builtins.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_options);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_metadata);

static Datum
values_array(const char *const *values)
{
	ArrayBuildState *array = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	for (; *values; values++)
		array = accumArrayResult(array, CStringGetTextDatum(*values), false, TEXTOID,
								 CurrentMemoryContext);
	return makeArrayResult(array, CurrentMemoryContext);
}

/* One row for each place the option may be written. */
static void
put_option(ReturnSetInfo *result, const char *component, const IngestOptionDef *def)
{
	bool		has_range = def->min != 0 || def->max != 0;

	for (int scope = INGEST_SCOPE_SERVER; scope <= INGEST_SCOPE_PIPELINE; scope <<= 1)
	{
		Datum		values[11];
		bool		nulls[11] = {false};

		if (!(def->scope & scope))
			continue;
		values[0] = CStringGetTextDatum(component);
		values[1] = CStringGetTextDatum(ingest_option_scope_name(scope));
		values[2] = CStringGetTextDatum(def->name);
		values[3] = CStringGetTextDatum(ingest_option_type_name(def->type));
		nulls[4] = def->fallback == NULL;
		values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(def->fallback);
		nulls[5] = nulls[6] = !has_range;
		values[5] = Float8GetDatum(def->min);
		values[6] = Float8GetDatum(def->max);
		nulls[7] = def->values == NULL;
		values[7] = nulls[7] ? (Datum) 0 : values_array(def->values);
		values[8] = BoolGetDatum(def->required);
		values[9] = BoolGetDatum(def->secret);
		values[10] = CStringGetTextDatum(def->help ? def->help : "");
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

static void
put_options(ReturnSetInfo *result, const char *component, const IngestOptionDef *table)
{
	for (; table && table->name; table++)
		put_option(result, component, table);
}

Datum
ingest_sql_options(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	put_options(result, "pipeline", ingest_pipeline_options);
	put_options(result, "source", ingest_source_options);
	for (const IngestSourceOps *const *ops = ingest_sources; *ops; ops++)
		put_options(result, psprintf("source %s", (*ops)->name), (*ops)->options);
	for (const IngestFormatOps *const *ops = ingest_formats; *ops; ops++)
		put_options(result, psprintf("format %s", (*ops)->name), (*ops)->options);
	return (Datum) 0;
}

Datum
ingest_sql_metadata(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (const IngestSourceOps *const *ops = ingest_sources; *ops; ops++)
		for (const IngestMetadataDef *def = (*ops)->metadata; def && def->name; def++)
		{
			Datum		values[4] = {
				CStringGetTextDatum((*ops)->name),
				CStringGetTextDatum(def->name),
				ObjectIdGetDatum(def->typid),
				CStringGetTextDatum(def->help ? def->help : "")
			};
			bool		nulls[4] = {false};

			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
	return (Datum) 0;
}
