/*
 * fdw.c
 *		One foreign-data wrapper over every source: options and peeking.
 *
 * A SELECT is a peek: from the beginning of each shard to the end that was
 * there when the scan began.  It consumes nothing and changes no position.
 * Pipelines do not come through here; they use source.h directly.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "core/compat.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "source/source.h"
#include "source/source_sql.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_fdw_handler);
PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_validator);

/* Messages and bytes looked at a time: a peek with LIMIT should not read a topic. */
#define PEEK_MESSAGES 1000
#define PEEK_BYTES (8 * 1024 * 1024)

/*
 * ---- Options
 */

const IngestOptionDef ingest_source_options[] = {
	{"format", INGEST_SCOPE_TABLE, INGEST_OPTION_TEXT, 0, "json",
	.help = "How messages are decoded: json, csv, text or raw."},
	{"path", INGEST_SCOPE_COLUMN, INGEST_OPTION_TEXT, 0,
	.help = "Where the value is in a message, such as $.a.b[0]; the column's name when not given."},
	{"metadata", INGEST_SCOPE_COLUMN, INGEST_OPTION_TEXT, 0,
	.help = "The column holds this metadata of the message instead of a decoded value."},
	INGEST_OPTION_END
};

static int
scope_of_catalog(Oid catalog)
{
	switch (catalog)
	{
		case ForeignServerRelationId:
			return INGEST_SCOPE_SERVER;
		case UserMappingRelationId:
			return INGEST_SCOPE_USER;
		case ForeignTableRelationId:
			return INGEST_SCOPE_TABLE;
		case AttributeRelationId:
			return INGEST_SCOPE_COLUMN;
		default:
			return 0;			/* the wrapper itself: no options */
	}
}

/*
 * Checks the options of a server, user mapping, foreign table or column.  It
 * serves all sources: its own SQL name says which.
 */
Datum
ingest_sql_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	int			scope = scope_of_catalog(PG_GETARG_OID(1));
	const IngestSourceOps *ops = ingest_source_of_function(fcinfo->flinfo->fn_oid);
	const char *format = ingest_source_option(options, "format");
	const IngestOptionDef *tables[4] = {NULL};
	int			n = 0;
	ListCell   *lc;

	if (ops == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("validator function is not named after a source")));
	tables[n++] = ops->options;
	tables[n++] = ingest_source_options;
	if (scope == INGEST_SCOPE_TABLE)
		tables[n++] = ingest_format_get(format ? format : "json")->options;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		ingest_option_check(tables, scope, option->defname, defGetString(option));
	}
	if (scope != 0)
		ingest_option_check_required(tables, scope, options);
	PG_RETURN_VOID();
}

/*
 * ---- Planning: one path, no pushdown.
 */

static void
peek_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	baserel->rows = 1000000;
}

static void
peek_paths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	Cost		startup = 100;

	add_path(baserel, (Path *)
			 ingest_compat_create_foreignscan_path(root, baserel, baserel->rows, startup,
												   startup + baserel->rows * 0.05));
}

static ForeignScan *
peek_plan(PlannerInfo *root, RelOptInfo *baserel, Oid relid, ForeignPath *best,
		  List *tlist, List *clauses, Plan *outer)
{
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), baserel->relid,
							NIL, NIL, NIL, NIL, outer);
}

/*
 * ---- The scan
 */

typedef struct Peek
{
	IngestSourceRelation *rel;
	IngestSource *src;
	IngestBatch *batch;
	void	   *format;
	char	  **ends;			/* of the shards, when the scan began */
	int			next;			/* message to go on with */
	bool		begun;			/* a message is being decoded */
	int64		bad;			/* rows that could not be decoded */
	char	   *first_bad;
	Datum	   *values;
	bool	   *isnull;
} Peek;

static void
raise_error(const IngestError *err)
{
	ingest_error_report(err, ERROR);
}

/* The messages go before the library's handle does. */
static void
release_batch(void *arg)
{
	Peek	   *peek = arg;

	peek->src->ops->release(peek->src, peek->batch);
}

static void
open_peek(Peek *peek, MemoryContext mcxt)
{
	MemoryContextCallback *callback;
	IngestShard *shards;
	IngestError err;
	int			nshards;

	peek->src = ingest_source_open(peek->rel, mcxt, &err);
	if (peek->src == NULL)
		raise_error(&err);
	peek->batch = ingest_batch_create(peek->src->mcxt,
									  (IngestBatchLimits) {PEEK_MESSAGES, PEEK_BYTES});
	callback = MemoryContextAllocZero(peek->batch->mcxt, sizeof(*callback));
	callback->func = release_batch;
	callback->arg = peek;
	MemoryContextRegisterResetCallback(peek->batch->mcxt, callback);

	peek->src->peek = true;
	if (peek->src->ops->use_sql)
		peek->src->ops->use_sql(peek->src);
	MemoryContextSwitchTo(peek->src->mcxt);
	if (!peek->src->ops->list_shards(peek->src, &shards, &nshards, &err))
		raise_error(&err);
	peek->ends = palloc0(sizeof(char *) * Max(nshards, 1));
	for (int i = 0; i < nshards; i++)
		if (!peek->src->ops->find_position(peek->src, &shards[i], INGEST_START_EARLIEST, 0,
										   &shards[i].position, &err) ||
			!peek->src->ops->find_end(peek->src, &shards[i], &peek->ends[i], &err))
			raise_error(&err);
	if (!peek->src->ops->assign(peek->src, shards, nshards, &err))
		raise_error(&err);
	peek->batch->shards = shards;
	peek->batch->nshards = nshards;
	MemoryContextSwitchTo(mcxt);
}

static void
begin_peek(ForeignScanState *node, int eflags)
{
	Relation	rel = node->ss.ss_currentRelation;
	Peek	   *peek;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	peek = palloc0(sizeof(*peek));
	node->fdw_state = peek;
	peek->rel = ingest_source_relation_load(RelationGetRelid(rel), GetUserId(), NULL);
	peek->format = peek->rel->format->start(peek->rel->columns, peek->rel->ncolumns,
											peek->rel->format_options);
	peek->values = palloc0(sizeof(Datum) * Max(peek->rel->natts, 1));
	peek->isnull = palloc(sizeof(bool) * Max(peek->rel->natts, 1));
	open_peek(peek, CurrentMemoryContext);
}

static bool
peek_ended(Peek *peek)
{
	for (int i = 0; i < peek->batch->nshards; i++)
		if (!ingest_source_reached(peek->src->ops, peek->batch->shards[i].position, peek->ends[i]))
			return false;
	return true;
}

/* More messages, or false at the end. */
static bool
fetch_more(Peek *peek)
{
	IngestError err;
	int			gap_shard;

	peek->src->ops->release(peek->src, peek->batch);
	peek->batch->nmessages = 0;
	peek->batch->bytes = 0;
	peek->next = 0;
	for (;;)
	{
		pgsocket	fd;
		long		timeout;

		CHECK_FOR_INTERRUPTS();
		switch (peek->src->ops->fetch(peek->src, peek->batch, &gap_shard, &err))
		{
			case INGEST_FETCH_GOT:
				if (peek->batch->nmessages > 0)
					return true;
				break;
			case INGEST_FETCH_ERROR:
				raise_error(&err);
				break;
			case INGEST_FETCH_SHARDS:
			case INGEST_FETCH_WHOLE:
			case INGEST_FETCH_EMPTY:
				break;
		}
		if (peek_ended(peek))
			return false;
		peek->src->ops->wait_hint(peek->src, &fd, &timeout);
		(void) WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
								 (fd != PGINVALID_SOCKET ? WL_SOCKET_READABLE : 0) |
								 (timeout >= 0 ? WL_TIMEOUT : 0),
								 fd, timeout, ingest_compat_wait_event("IngestPeek"));
		ResetLatch(MyLatch);
	}
}

/* Behind the end that was there when the scan began. */
static bool
is_later(const Peek *peek, const IngestMessage *msg)
{
	char		position[32];

	/* Where offsets are no positions, the end is where the source says there is no more. */
	snprintf(position, sizeof(position), INT64_FORMAT, msg->offset);
	return peek->src->ops->check_position(position) &&
		peek->src->ops->distance(position, peek->ends[msg->shard]) <= 0;
}

static void
note_bad(Peek *peek, const IngestMessage *msg, const IngestRowError *error, MemoryContext mcxt)
{
	MemoryContext old;

	if (peek->bad++ > 0)
		return;
	old = MemoryContextSwitchTo(mcxt);
	peek->first_bad = psprintf("shard %s, offset " INT64_FORMAT ": %s%s%s",
							   peek->batch->shards[msg->shard].name, msg->offset, error->message,
							   error->column ? " in column " : "",
							   error->column ? error->column : "");
	MemoryContextSwitchTo(old);
}

static TupleTableSlot *
iterate_peek(ForeignScanState *node)
{
	Peek	   *peek = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	MemoryContext query = node->ss.ps.state->es_query_cxt;
	MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(node->ss.ps.state));
	IngestRow	row = {.values = peek->values, .isnull = peek->isnull};

	ExecClearTuple(slot);
	MemoryContextSwitchTo(node->ss.ps.ps_ExprContext->ecxt_per_tuple_memory);
	for (;;)
	{
		IngestMessage *msg;

		if (peek->next >= peek->batch->nmessages)
		{
			MemoryContextSwitchTo(query);
			if (!fetch_more(peek))
				break;
			MemoryContextSwitchTo(node->ss.ps.ps_ExprContext->ecxt_per_tuple_memory);
		}
		msg = &peek->batch->messages[peek->next];
		if (msg->payload == NULL || (!peek->begun && is_later(peek, msg)))
		{
			peek->next++;
			continue;
		}
		if (!peek->begun)
		{
			peek->rel->format->begin(peek->format, msg->payload, msg->payload_len);
			peek->begun = true;
		}
		memset(peek->isnull, true, peek->rel->natts);
		switch (peek->rel->format->next(peek->format, &row))
		{
			case INGEST_NEXT_NONE:
				peek->begun = false;
				peek->next++;
				continue;
			case INGEST_NEXT_BAD:
				note_bad(peek, msg, &row.error, query);
				continue;
			case INGEST_NEXT_ROW:
				break;
		}
		for (int i = 0; i < peek->rel->nmetadata; i++)
		{
			int			at = peek->rel->metadata[i].attnum - 1;

			peek->values[at] = peek->src->ops->get_metadata(peek->src, peek->batch, msg,
															peek->rel->metadata[i].which,
															&peek->isnull[at]);
		}
		memcpy(slot->tts_values, peek->values, sizeof(Datum) * peek->rel->natts);
		memcpy(slot->tts_isnull, peek->isnull, sizeof(bool) * peek->rel->natts);
		ExecStoreVirtualTuple(slot);
		break;
	}
	MemoryContextSwitchTo(old);
	return slot;
}

static void
end_peek(ForeignScanState *node)
{
	Peek	   *peek = node->fdw_state;

	if (peek == NULL)
		return;
	if (peek->bad > 0)
		ereport(WARNING,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg_plural(INT64_FORMAT " row of \"%s\" could not be decoded and is not shown",
							   INT64_FORMAT " rows of \"%s\" could not be decoded and are not shown",
							   peek->bad, peek->bad, RelationGetRelationName(node->ss.ss_currentRelation)),
				 errdetail("First: %s.", peek->first_bad)));
	if (peek->rel->format->end)
		peek->rel->format->end(peek->format);
	ingest_source_close(peek->src);
}

static void
rescan_peek(ForeignScanState *node)
{
	Peek	   *peek = node->fdw_state;
	MemoryContext old = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);

	ingest_source_close(peek->src);
	peek->next = 0;
	peek->begun = false;
	open_peek(peek, CurrentMemoryContext);
	MemoryContextSwitchTo(old);
}

static void
explain_peek(ForeignScanState *node, ExplainState *es)
{
	ExplainPropertyText("Ingest", "peek from the earliest message to the current end", es);
}

Datum
ingest_sql_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = peek_rel_size;
	routine->GetForeignPaths = peek_paths;
	routine->GetForeignPlan = peek_plan;
	routine->BeginForeignScan = begin_peek;
	routine->IterateForeignScan = iterate_peek;
	routine->ReScanForeignScan = rescan_peek;
	routine->EndForeignScan = end_peek;
	routine->ExplainForeignScan = explain_peek;
	PG_RETURN_POINTER(routine);
}
