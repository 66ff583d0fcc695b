/*
 * preview.c
 *		ingest.preview(): what would become of the next messages.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pipeline/turn.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_preview);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_payload_text);

#define MAX_PREVIEW 100000

typedef struct Preview
{
	ReturnSetInfo *result;
	MemoryContext mcxt;			/* of one row */
} Preview;

/* The bytes as text of the database's encoding, or NULL when they are not. */
static text *
bytes_as_text(const char *bytes, Size len)
{
	if (!pg_verify_mbstr(GetDatabaseEncoding(), bytes, len, true))
		return NULL;
	return cstring_to_text_with_len(bytes, len);
}

static Datum
payload_datum(const char *payload, Size len)
{
	text	   *readable = bytes_as_text(payload, len);
	bytea	   *raw;

	if (readable)
		return PointerGetDatum(readable);
	raw = (bytea *) cstring_to_text_with_len(payload, len);
	return CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(byteaout, PointerGetDatum(raw))));
}

static Datum
row_datum(HeapTuple row, TupleDesc rowtype)
{
	Datum		json = DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(row, rowtype));

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
}

static void
take_verdict(const IngestVerdict *verdict, TupleDesc rowtype, void *arg)
{
	Preview    *preview = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(preview->mcxt);
	const char *texts[] = {
		verdict->verdict, verdict->stage, verdict->rule,
		verdict->sqlstate ? unpack_sql_state(verdict->sqlstate) : NULL,
		verdict->message, verdict->column
	};
	Datum		values[11] = {
		CStringGetTextDatum(verdict->shard),
		Int64GetDatum(verdict->offset),
		Int32GetDatum(verdict->row_number)
	};
	bool		nulls[11] = {false};

	for (int i = 0; i < lengthof(texts); i++)
	{
		nulls[3 + i] = texts[i] == NULL;
		if (texts[i])
			values[3 + i] = CStringGetTextDatum(texts[i]);
	}
	nulls[9] = verdict->row == NULL;
	if (verdict->row)
		values[9] = row_datum(verdict->row, rowtype);
	nulls[10] = verdict->payload == NULL;
	if (verdict->payload)
		values[10] = payload_datum(verdict->payload, verdict->payload_len);

	tuplestore_putvalues(preview->result->setResult, preview->result->setDesc, values, nulls);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(preview->mcxt);
}

/* preview(pipeline text, limit_rows integer) */
Datum
ingest_sql_preview(PG_FUNCTION_ARGS)
{
	IngestPipeline *pl = ingest_argument_pipeline(fcinfo, "pipeline");
	int32		limit = PG_ARGISNULL(1) ? 20 : PG_GETARG_INT32(1);
	Preview		preview;

	ingest_pipeline_check_runner(pl);
	if (limit < 1 || limit > MAX_PREVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between 1 and %d", "limit_rows", MAX_PREVIEW)));

	InitMaterializedSRF(fcinfo, 0);
	preview.result = (ReturnSetInfo *) fcinfo->resultinfo;
	preview.mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest preview", ALLOCSET_DEFAULT_SIZES);
	ingest_preview(pl->id, limit, take_verdict, &preview);
	return (Datum) 0;
}

/* payload_text(payload bytea) */
Datum
ingest_sql_payload_text(PG_FUNCTION_ARGS)
{
	bytea	   *payload = PG_GETARG_BYTEA_PP(0);
	text	   *readable = bytes_as_text(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));

	if (readable == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(readable);
}
