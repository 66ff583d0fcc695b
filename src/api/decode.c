/*
 * decode.c
 *		ingest.decode(): a payload as a source with this row type would decode
 *		it, to try out columns and paths.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "api/arguments.h"
#include "catalog/pg_class.h"
#include "core/compat.h"
#include "foreign/foreign.h"
#include "format/format.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "source/source_sql.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_decode);

/* Columns that hold metadata of a message have none here: they stay NULL. */
static int
find_columns(TupleDesc desc, Oid relid, IngestColumn *columns)
{
	bool		foreign = OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE;
	int			n = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		List	   *options = NIL;
		const char *path;

		if (att->attisdropped)
			continue;
		if (foreign)
			options = GetForeignColumnOptions(relid, att->attnum);
		if (ingest_source_option(options, "metadata") != NULL)
			continue;
		path = ingest_source_option(options, "path");
		columns[n++] = (IngestColumn)
		{
			.attnum = att->attnum,
			.name = pstrdup(NameStr(att->attname)),
			.path = path ? pstrdup(path) : NULL,
			.typid = att->atttypid,
			.typmod = att->atttypmod,
			.collation = att->attcollation
		};
	}
	return n;
}

static void *
parse_options(const IngestFormatOps *format, Jsonb *options)
{
	const IngestOptionDef *const tables[] = {format->options, NULL};
	List	   *list = ingest_option_from_jsonb(options);
	void	   *parsed = palloc0(Max(format->options_size, 1));
	ListCell   *lc;

	foreach(lc, list)
		ingest_option_check(tables, INGEST_SCOPE_TABLE, lfirst_node(DefElem, lc)->defname,
							strVal(lfirst_node(DefElem, lc)->arg));
	ingest_option_parse(format->options, list, parsed);
	return parsed;
}

pg_noreturn static void
raise_bad(const IngestRowError *error)
{
	StringInfoData detail;

	initStringInfo(&detail);
	if (error->column)
		appendStringInfo(&detail, "Column \"%s\"", error->column);
	if (error->position >= 0)
		appendStringInfo(&detail, "%s byte " INT64_FORMAT, detail.len > 0 ? "," : "At", error->position);
	if (detail.len > 0)
		appendStringInfoString(&detail, " of the payload.");
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message),
			 detail.len > 0 ? errdetail_internal("%s", detail.data) : 0));
	pg_unreachable();
}

static void
decode_rows(const IngestFormatOps *format, void *decoder, bytea *payload, TupleDesc desc,
			Tuplestorestate *rows)
{
	IngestRow	row = {
		.values = palloc0(sizeof(Datum) * Max(desc->natts, 1)),
		.isnull = palloc(sizeof(bool) * Max(desc->natts, 1))
	};
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "ingest decode",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	IngestNext	next;

	format->begin(decoder, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		memset(row.isnull, true, desc->natts);
		next = format->next(decoder, &row);
		if (next == INGEST_NEXT_NONE)
			break;
		if (next == INGEST_NEXT_BAD)
			raise_bad(&row.error);
		tuplestore_putvalues(rows, desc, row.values, row.isnull);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

Datum
ingest_sql_decode(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	const IngestFormatOps *format;
	TupleDesc	desc;
	IngestColumn *columns;
	int			ncolumns;
	void	   *options;
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) || !(result->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	if (!type_is_rowtype(type) || type == RECORDOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("\"source\" must be of a table's row type, not %s", format_type_be(type)),
				 errhint("Write ingest.decode(NULL::my_source, payload).")));

	format = ingest_format_get(ingest_argument_text(fcinfo, 2, "format"));
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"options\" must not be null")));
	options = parse_options(format, PG_GETARG_JSONB_P(3));

	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	desc = lookup_rowtype_tupdesc_copy(type, -1);
	result->returnMode = SFRM_Materialize;
	result->setDesc = desc;
	result->setResult = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(old);

	columns = palloc0(sizeof(IngestColumn) * Max(desc->natts, 1));
	ncolumns = find_columns(desc, get_typ_typrelid(type), columns);
	if (format->check)
		format->check(columns, ncolumns, options);
	if (!PG_ARGISNULL(1))
		decode_rows(format, format->start(columns, ncolumns, options), PG_GETARG_BYTEA_PP(1), desc,
					result->setResult);
	return (Datum) 0;
}
