/*
 * relation_read.c
 *		The queries a relation is read with, and their rows into the batch.
 *
 * Conditions are written so that postgres_fdw and others can send them to where
 * the rows are: comparisons of single columns with parameters, which they know,
 * instead of row comparisons, which they do not; here the latter, which use an
 * index best.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "source/relation.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Rows taken from a portal at a time, between looks at the batch's limits. */
#define CHUNK_ROWS 1000

/* ---- conditions ---- */

/*
 * Behind, or from, the values ("greater"), or up to them.  Column by column: those
 * before are equal, or have decided already.
 */
static void
compare_columns(StringInfo sql, const IngestCursorColumn *columns, int n, int first_param,
				bool greater, bool inclusive)
{
	const char *strict = greater ? ">" : "<";

	for (int i = 0; i < n; i++)
	{
		const char *name = columns[i].name;
		int			param = first_param + i;

		if (i == n - 1)
			appendStringInfo(sql, "%s %s%s $%d", name, strict, inclusive ? "=" : "", param);
		else
			appendStringInfo(sql, "%s %s= $%d AND (%s %s $%d OR ", name, strict, param,
							 name, strict, param);
	}
	for (int i = 0; i < n - 1; i++)
		appendStringInfoChar(sql, ')');
}

static void
compare_rows(StringInfo sql, const IngestCursorColumn *columns, int n, int first_param,
			 bool greater, bool inclusive)
{
	appendStringInfoChar(sql, '(');
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", columns[i].name);
	appendStringInfo(sql, ") %s%s (", greater ? ">" : "<", inclusive ? "=" : "");
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", first_param + i);
	appendStringInfoChar(sql, ')');
}

static void
add_condition(StringInfo sql)
{
	appendStringInfoString(sql, sql->len == 0 ? " WHERE " : " AND ");
}

static void
add_comparison(StringInfo sql, const IngestRelationPlan *plan, const IngestCursorColumn *columns,
			   int n, int first_param, bool greater, bool inclusive)
{
	add_condition(sql);
	if (plan->local && n > 1)
		compare_rows(sql, columns, n, first_param, greater, inclusive);
	else
		compare_columns(sql, columns, n, first_param, greater, inclusive);
}

/* Rows that have a cursor. */
static void
require_cursor(StringInfo sql, const IngestRelationPlan *plan)
{
	for (int i = 0; i < plan->ncursor; i++)
	{
		const IngestCursorColumn *column = &plan->cursor[i];

		if (!column->not_null)
		{
			add_condition(sql);
			appendStringInfo(sql, "%s IS NOT NULL", column->name);
		}
		if (column->is_time && plan->knows_infinity)
		{
			add_condition(sql);
			appendStringInfo(sql, "%s > '-infinity' AND %s < 'infinity'", column->name, column->name);
		}
	}
}

/* Rows that have none. */
static void
require_no_cursor(StringInfo sql, const IngestRelationPlan *plan)
{
	const char *separator = "";

	add_condition(sql);
	appendStringInfoChar(sql, '(');
	for (int i = 0; i < plan->ncursor; i++)
	{
		const IngestCursorColumn *column = &plan->cursor[i];

		appendStringInfo(sql, "%s%s IS NULL", separator, column->name);
		if (column->is_time && plan->knows_infinity)
			appendStringInfo(sql, " OR %s = 'infinity' OR %s = '-infinity'",
							 column->name, column->name);
		separator = " OR ";
	}
	appendStringInfoChar(sql, ')');
}

/* Below it all transactions have ended. */
static void
require_ended(StringInfo sql, const IngestRelationPlan *plan)
{
	if (!plan->by_xid)
		return;
	add_condition(sql);
	if (plan->horizon)
		appendStringInfo(sql, "%s < %s", plan->cursor[0].name, plan->horizon);
	else
		appendStringInfo(sql, "%s < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())",
						 plan->cursor[0].name);
}

static void
add_order(StringInfo sql, const IngestRelationQuery *query, bool descending)
{
	for (int i = 0; i < query->ncursor; i++)
		appendStringInfo(sql, "%s%s%s", i > 0 ? ", " : " ORDER BY ", query->cursor[i].name,
						 descending ? " DESC" : "");
}

char *
ingest_relation_sql(const IngestRelationPlan *plan, const IngestRelationQuery *query,
					const char *select, bool descending)
{
	StringInfoData where;
	StringInfoData rest;
	int			param = 1;

	initStringInfo(&where);
	initStringInfo(&rest);
	if (query->after && query->after->n > 0)
	{
		add_comparison(&where, plan, query->cursor, query->after->n, param, true,
					   query->inclusive || query->after->n < query->ncursor);
		param += query->after->n;
	}
	if (query->stop)
	{
		add_condition(&where);
		appendStringInfo(&where, "%s < $%d", query->cursor[0].name, param++);
	}
	if (query->until && query->until->n > 0)
		add_comparison(&where, plan, query->cursor, query->until->n, param, false, true);
	if (query->without)
		require_no_cursor(&where, plan);
	else if (query->cursor && query->cursor == plan->cursor)
	{
		require_cursor(&where, plan);
		require_ended(&where, plan);
	}
	add_order(&rest, query, descending);
	if (query->limit > 0)
		appendStringInfo(&rest, " LIMIT " INT64_FORMAT, query->limit);
	return psprintf("SELECT %s FROM %s%s%s", select, plan->relation, where.data, rest.data);
}

/* ---- running a query ---- */

typedef struct Parameters
{
	int			n;
	Oid			types[2 * INGEST_CURSOR_MAX + 1];
	Datum		values[2 * INGEST_CURSOR_MAX + 1];
} Parameters;

static Datum
parse_value(const IngestCursorColumn *column, char *text)
{
	Oid			function;
	Oid			ioparam;

	getTypeInputInfo(column->typid, &function, &ioparam);
	return OidInputFunctionCall(function, text, ioparam, -1);
}

static void
add_parameters(Parameters *params, const IngestRelationQuery *query, const IngestCursorValues *values)
{
	for (int i = 0; values && i < values->n; i++)
	{
		params->types[params->n] = query->cursor[i].typid;
		params->values[params->n++] = parse_value(&query->cursor[i], values->texts[i]);
	}
}

static void
collect_parameters(Parameters *params, const IngestRelationQuery *query)
{
	params->n = 0;
	add_parameters(params, query, query->after);
	if (query->stop)
	{
		params->types[params->n] = query->cursor[0].typid;
		params->values[params->n++] = parse_value(&query->cursor[0], (char *) query->stop);
	}
	add_parameters(params, query, query->until);
}

/*
 * The order comes from an index here, or from where the rows are; sorting all of
 * them for each page is the last resort, whatever the planner thinks of tables
 * that it knows nothing about.
 */
static int
avoid_sorting(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("enable_sort", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

Portal
ingest_relation_open_query(const IngestRelationPlan *plan, const IngestRelationQuery *query)
{
	Parameters	params;
	char	   *sql = ingest_relation_sql(plan, query, plan->columns, false);
	Portal		portal;
	int			level = avoid_sorting();

	collect_parameters(&params, query);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	portal = SPI_cursor_open_with_args(NULL, sql, params.n, params.types, params.values, NULL,
									   true, 0);
	if (portal == NULL)
		elog(ERROR, "could not open a cursor for \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_finish();
	AtEOXact_GUC(true, level);
	pfree(sql);
	return portal;
}

/* Run SQL for one row; false: there is none.  Its values as text, in the caller's context. */
static bool
query_row(const char *sql, Parameters *params, int n, char **texts)
{
	MemoryContext mcxt = CurrentMemoryContext;
	bool		found;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, params->n, params->types, params->values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	found = SPI_processed > 0;
	for (int i = 0; found && i < n; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull);
		MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

		texts[i] = isnull ? NULL :
			ingest_tuple_value_text(SPI_gettypeid(SPI_tuptable->tupdesc, i + 1), value);
		MemoryContextSwitchTo(oldcontext);
	}
	SPI_finish();
	return found;
}

bool
ingest_relation_find_cursor(const IngestRelationPlan *plan, const IngestRelationQuery *query,
							bool descending, IngestCursorValues *found)
{
	IngestRelationQuery one = *query;
	Parameters	params;
	StringInfoData select;

	initStringInfo(&select);
	for (int i = 0; i < query->ncursor; i++)
		appendStringInfo(&select, "%s%s", i > 0 ? ", " : "", query->cursor[i].name);
	one.limit = 1;
	collect_parameters(&params, &one);
	found->n = 0;
	if (query_row(ingest_relation_sql(plan, &one, select.data, descending), &params,
				  query->ncursor, found->texts))
		found->n = query->ncursor;
	return found->n > 0;
}

int64
ingest_relation_count(const IngestRelationPlan *plan, const IngestRelationQuery *query)
{
	Parameters	params;
	char	   *count;

	collect_parameters(&params, query);
	(void) query_row(psprintf("SELECT pg_catalog.count(*) FROM (%s) AS counted",
							  ingest_relation_sql(plan, query, "1", false)), &params, 1, &count);
	return strtoll(count, NULL, 10);
}

List *
ingest_relation_explain(const IngestSourceRelation *rel, const char *position, int64 rows)
{
	const IngestRelationPlan *plan = rel->prepared;
	MemoryContext mcxt = CurrentMemoryContext;
	IngestRelationPosition at = {0};
	IngestRelationQuery query = {0};
	Parameters	params;
	List	   *lines;
	char	   *sql;
	int			level;

	if (position)
		(void) ingest_relation_position_parse(position, &at);
	if (!plan->whole)
	{
		query.cursor = plan->cursor;
		query.ncursor = plan->ncursor;
		query.after = &at.after;
		query.inclusive = at.inclusive;
		query.limit = rows;
	}
	sql = ingest_relation_sql(plan, &query, plan->columns, false);
	lines = list_make1(sql);
	level = avoid_sorting();
	collect_parameters(&params, &query);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	(void) SPI_execute_with_args(psprintf("EXPLAIN (VERBOSE, COSTS OFF) %s", sql),
								 params.n, params.types, params.values, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *line = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

		lines = lappend(lines, pstrdup(line));
		MemoryContextSwitchTo(oldcontext);
	}
	SPI_finish();
	AtEOXact_GUC(true, level);
	return lines;
}

char *
ingest_relation_step_back(const IngestRelationPlan *plan, const char *value)
{
	const IngestCursorColumn *column = &plan->cursor[0];
	char	   *type = format_type_be_qualified(column->typid);
	Parameters	none = {0};
	char	   *text;

	(void) query_row(psprintf("SELECT (%s::%s - %s::%s)::%s", quote_literal_cstr(value), type,
							  quote_literal_cstr(plan->options->overlap),
							  column->is_time ? "pg_catalog.interval" : "pg_catalog.numeric", type),
					 &none, 1, &text);
	return text;
}

/* ---- rows into the batch ---- */

typedef struct BatchReceiver
{
	DestReceiver pub;
	IngestBatch *batch;
	int64		offset;
	int64	   *got;
} BatchReceiver;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	BatchReceiver *receiver = (BatchReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(receiver->batch->mcxt);
	MinimalTuple tuple = ingest_tuple_form(slot);
	IngestMessage *msg = ingest_batch_append(receiver->batch);

	msg->payload = (const char *) tuple;
	msg->payload_len = tuple->t_len;
	msg->offset = receiver->offset++;
	receiver->batch->bytes += tuple->t_len;
	(*receiver->got)++;
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static void
start_receiving(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
end_receiving(DestReceiver *self)
{
}

/* So many that the batch's bytes are not exceeded by much, going by the rows it has. */
static int64
chunk_size(const IngestBatch *batch, int64 left)
{
	int64		chunk = Min(CHUNK_ROWS, left);

	if (batch->nmessages > 0)
	{
		int64		average = Max(batch->bytes / batch->nmessages, 1);

		chunk = Min(chunk, Max((batch->limits.bytes - batch->bytes) / average, 1));
	}
	else
		chunk = Min(chunk, 10);
	return Max(Min(chunk, batch->limits.rows - batch->nmessages), 1);
}

bool
ingest_relation_fetch_rows(const IngestRelationPlan *plan, Portal portal, IngestBatch *batch,
						   int64 limit, int64 first_offset, int64 *got)
{
	BatchReceiver receiver = {
		.pub = {receive_row, start_receiving, end_receiving, end_receiving, DestNone},
		.batch = batch,
		.offset = first_offset,
		.got = got
	};
	int64		before = *got;

	while (*got - before < limit && !ingest_batch_full(batch))
	{
		int64		chunk = chunk_size(batch, limit - (*got - before));

		CHECK_FOR_INTERRUPTS();
		if ((int64) PortalRunFetch(portal, FETCH_FORWARD, (long) chunk, &receiver.pub) < chunk)
			return false;
	}
	return true;
}

void
ingest_relation_values(const IngestRelationPlan *plan, const char *payload,
					   const IngestCursorColumn *columns, int n, IngestCursorValues *values)
{
	TupleDesc	desc = plan->tuple.desc;
	HeapTupleData tuple;

	tuple.t_len = ((MinimalTuple) payload)->t_len + MINIMAL_TUPLE_OFFSET;
	tuple.t_data = (HeapTupleHeader) (payload - MINIMAL_TUPLE_OFFSET);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	values->n = n;
	for (int i = 0; i < n; i++)
		for (int j = 0; j < desc->natts; j++)
			if (plan->attnums[j] == columns[i].attnum)
			{
				bool		isnull;
				Datum		value = heap_getattr(&tuple, j + 1, desc, &isnull);

				values->texts[i] = isnull ? NULL : ingest_tuple_value_text(columns[i].typid, value);
			}
}
