/*
 * batch.c
 *		ingest.batch(): the accepted rows, for functions called by a transform.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pipeline/transform.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_batch);

static void
check_row_type(FunctionCallInfo fcinfo, TupleDesc rowtype)
{
	Oid			asked = get_fn_expr_argtype(fcinfo->flinfo, 0);

	if (asked != rowtype->tdtypeid)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the batch has rows of type %s, not %s",
						format_type_be(rowtype->tdtypeid), format_type_be(asked)),
				 errhint("Write ingest.batch(NULL::%s).", format_type_be(rowtype->tdtypeid))));
}

Datum
ingest_sql_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleDesc	rowtype;
	Tuplestorestate *rows = ingest_transform_batch(&rowtype);
	Tuplestorestate *copy;
	TupleTableSlot *slot;
	MemoryContext oldcontext;
	int			pointer;

	check_row_type(fcinfo, rowtype);
	if (result == NULL || !IsA(result, ReturnSetInfo) || !(result->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	oldcontext = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	copy = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
								 false, work_mem);
	result->returnMode = SFRM_Materialize;
	result->setResult = copy;
	result->setDesc = CreateTupleDescCopy(rowtype);
	MemoryContextSwitchTo(oldcontext);

	/* A scan of "batch" may be under way: read with a pointer of our own. */
	pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
	slot = MakeSingleTupleTableSlot(rowtype, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(rows, true, false, slot))
		tuplestore_puttupleslot(copy, slot);
	ExecDropSingleTupleTableSlot(slot);
	return (Datum) 0;
}
