/*
 * tuple.c
 *		The rows of a relation as messages.
 *
 * A message is a MinimalTuple of the columns that were asked for; its values
 * are used where they lie, since the source keeps them until release().  In a
 * dead letter the row is a JSON object, for people to read; replaying it goes
 * through the types' input functions.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "core/compat.h"
#include "fmgr.h"
#include "format/tuple.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

typedef struct TupleFormat
{
	MemoryContext mcxt;			/* it lives in */
	TupleDesc	desc;
	const IngestColumn *columns;	/* one for each of desc */
	Datum	   *values;			/* of a tuple */
	bool	   *isnull;
	FmgrInfo   *input;			/* functions, looked up when the first JSON comes */
	Oid		   *ioparams;

	const char *payload;
	Size		len;
	bool		done;			/* the one row was handed out */
} TupleFormat;

/* ---- rows into messages ---- */

static bool
has_external_value(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;

	for (int i = 0; i < desc->natts; i++)
		if (!slot->tts_isnull[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(slot->tts_values[i])))
			return true;
	return false;
}

MinimalTuple
ingest_tuple_form(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Datum	   *values;
	MinimalTuple tuple;

	slot_getallattrs(slot);
	if (!has_external_value(slot))
		return ingest_compat_form_minimal_tuple(desc, slot->tts_values, slot->tts_isnull);

	/* The table may be changed, and vacuumed, before the row is loaded. */
	values = palloc(sizeof(Datum) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		values[i] = slot->tts_values[i];
		if (!slot->tts_isnull[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(detoast_external_attr((struct varlena *)
															  DatumGetPointer(values[i])));
	}
	tuple = ingest_compat_form_minimal_tuple(desc, values, slot->tts_isnull);
	for (int i = 0; i < desc->natts; i++)
		if (!slot->tts_isnull[i] && values[i] != slot->tts_values[i])
			pfree(DatumGetPointer(values[i]));
	pfree(values);
	return tuple;
}

/* ---- as JSON ---- */

char *
ingest_tuple_value_text(Oid typid, Datum value)
{
	Oid			output;
	bool		is_varlena;

	/* Times are written the same whatever DateStyle is. */
	if (typid == DATEOID || typid == TIMESTAMPOID || typid == TIMESTAMPTZOID)
		return JsonEncodeDateTime(palloc(MAXDATELEN + 1), value, typid, NULL);
	getTypeOutputInfo(typid, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

static void
append_value(StringInfo into, Oid typid, Datum value)
{
	char	   *text;

	if (typid == BOOLOID)
	{
		appendStringInfoString(into, DatumGetBool(value) ? "true" : "false");
		return;
	}
	text = ingest_tuple_value_text(typid, value);
	if (typid == INT2OID || typid == INT4OID || typid == INT8OID || typid == JSONOID || typid == JSONBOID)
		appendStringInfoString(into, text);
	else
		escape_json(into, text);
	pfree(text);
}

void
ingest_tuple_to_json(StringInfo into, TupleDesc desc, const Datum *values, const bool *isnull)
{
	appendStringInfoChar(into, '{');
	for (int i = 0; i < desc->natts; i++)
	{
		if (i > 0)
			appendStringInfoString(into, ", ");
		escape_json(into, NameStr(TupleDescAttr(desc, i)->attname));
		appendStringInfoString(into, ": ");
		if (isnull[i])
			appendStringInfoString(into, "null");
		else
			append_value(into, TupleDescAttr(desc, i)->atttypid, values[i]);
	}
}

/*
 * A tuple begins with its length, which is the message's.  Read as a number, the
 * beginning of a JSON object is greater than any length there can be.
 */
static bool
is_tuple(const char *payload, Size len)
{
	uint32		t_len;

	if (len < SizeofMinimalTupleHeader)
		return false;
	memcpy(&t_len, payload, sizeof(t_len));
	return t_len == len;
}

static void
deform_tuple(TupleFormat *format, const char *payload)
{
	HeapTupleData tuple;

	tuple.t_len = ((MinimalTuple) payload)->t_len + MINIMAL_TUPLE_OFFSET;
	tuple.t_data = (HeapTupleHeader) (payload - MINIMAL_TUPLE_OFFSET);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	heap_deform_tuple(&tuple, format->desc, format->values, format->isnull);
}

static char *
tuple_keep(void *fmt, const char *payload, Size len)
{
	TupleFormat *format = fmt;
	StringInfoData text;

	if (!is_tuple(payload, len))
		return pnstrdup(payload, len);
	deform_tuple(format, payload);
	initStringInfo(&text);
	ingest_tuple_to_json(&text, format->desc, format->values, format->isnull);
	appendStringInfoChar(&text, '}');
	return text.data;
}

/* ---- back from JSON ---- */

static void
find_input_functions(TupleFormat *format)
{
	format->ioparams = MemoryContextAllocZero(format->mcxt, sizeof(Oid) * Max(format->desc->natts, 1));
	format->input = MemoryContextAllocZero(format->mcxt, sizeof(FmgrInfo) * Max(format->desc->natts, 1));
	for (int i = 0; i < format->desc->natts; i++)
	{
		Oid			function;

		getTypeInputInfo(TupleDescAttr(format->desc, i)->atttypid, &function, &format->ioparams[i]);
		fmgr_info_cxt(function, &format->input[i], format->mcxt);
	}
}

static IngestNext
answer_bad(IngestRow *row, int sqlstate, const char *message, const char *detail, const char *column)
{
	row->error.sqlstate = sqlstate;
	row->error.message = message;
	row->error.detail = detail;
	row->error.column = column;
	row->error.position = -1;
	return INGEST_NEXT_BAD;
}

static JsonbValue *
find_member(Jsonb *object, const char *name, int len)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = (char *) name;
	key.val.string.len = len;
	return findJsonbValueFromContainer(&object->root, JB_FOBJECT, &key);
}

static char *
member_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		default:
			return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	}
}

/* A string is what the text was made of, but a value of type json is itself. */
static char *
column_text(const JsonbValue *value, Oid typid)
{
	StringInfoData quoted;

	if (value->type != jbvString || (typid != JSONOID && typid != JSONBOID))
		return member_text(value);
	initStringInfo(&quoted);
	escape_json(&quoted, member_text(value));
	return quoted.data;
}

static IngestNext
answer_unread(IngestRow *row, Jsonb *error)
{
	JsonbValue *sqlstate = find_member(error, "sqlstate", 8);
	JsonbValue *message = find_member(error, "message", 7);
	char	   *code = sqlstate ? member_text(sqlstate) : NULL;

	return answer_bad(row, code && strlen(code) == 5 ?
					  MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]) : ERRCODE_DATA_EXCEPTION,
					  message ? member_text(message) : "the row could not be read",
					  "The source could not deliver the row.", NULL);
}

static IngestNext
next_of_json(TupleFormat *format, IngestRow *row)
{
	Datum		text = CStringGetDatum(pnstrdup(format->payload, format->len));
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, text));
	JsonbValue *error;

	if (!JB_ROOT_IS_OBJECT(object))
		return answer_bad(row, ERRCODE_INVALID_JSON_TEXT, "the row is not a JSON object", NULL, NULL);
	error = find_member(object, INGEST_TUPLE_ERROR, strlen(INGEST_TUPLE_ERROR));
	if (format->input == NULL)
		find_input_functions(format);
	for (int i = 0; i < format->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(format->desc, i);
		AttrNumber	attnum = format->columns[i].attnum;
		JsonbValue *value = find_member(object, NameStr(att->attname), strlen(NameStr(att->attname)));
		char	   *given;

		if (value == NULL && error)
			continue;			/* what is known of it may tell who it is */
		if (value == NULL)
			return answer_bad(row, ERRCODE_UNDEFINED_COLUMN,
							  psprintf("the row has no column \"%s\"", NameStr(att->attname)),
							  "It was kept when the source had other columns.", NameStr(att->attname));
		given = column_text(value, att->atttypid);
		row->isnull[attnum - 1] = given == NULL;
		row->values[attnum - 1] = InputFunctionCall(&format->input[i], given, format->ioparams[i],
													att->atttypmod);
	}
	return error && error->type == jbvBinary ?
		answer_unread(row, JsonbValueToJsonb(error)) : INGEST_NEXT_ROW;
}

/* ---- the format ---- */

static void *
tuple_start(const IngestColumn *columns, int ncolumns, const void *options)
{
	const IngestTupleOptions *given = options;
	TupleFormat *format = palloc0(sizeof(TupleFormat));

	Assert(given->desc->natts == ncolumns);
	format->mcxt = CurrentMemoryContext;
	format->desc = given->desc;
	format->columns = columns;
	format->values = palloc(sizeof(Datum) * Max(ncolumns, 1));
	format->isnull = palloc(sizeof(bool) * Max(ncolumns, 1));
	return format;
}

static void
tuple_begin(void *fmt, const char *payload, Size len)
{
	TupleFormat *format = fmt;

	format->payload = payload;
	format->len = len;
	format->done = false;
}

static IngestNext
tuple_next(void *fmt, IngestRow *row)
{
	TupleFormat *format = fmt;

	if (format->done)
		return INGEST_NEXT_NONE;
	format->done = true;
	row->slice = format->payload;
	row->slice_len = format->len;
	if (row->values == NULL)
		return INGEST_NEXT_ROW;
	if (!is_tuple(format->payload, format->len))
		return next_of_json(format, row);

	deform_tuple(format, format->payload);
	for (int i = 0; i < format->desc->natts; i++)
	{
		AttrNumber	attnum = format->columns[i].attnum;

		row->values[attnum - 1] = format->values[i];
		row->isnull[attnum - 1] = format->isnull[i];
	}
	return INGEST_NEXT_ROW;
}

const IngestFormatOps ingest_format_tuple = {
	.name = "tuple",
	.description = "rows of a relation",
	.start = tuple_start,
	.begin = tuple_begin,
	.next = tuple_next,
	.keep = tuple_keep,
};
