/*
 * load_statement.c
 *		The statement lane: INSERT INTO target (...) SELECT ... FROM batch.
 *
 * Rows are collected in a tuplestore that the statement sees as the relation
 * "batch", so that triggers, row security, views, foreign tables and whatever
 * else the executor knows come from the executor.  Errors are raised; the
 * caller finds the row.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pipeline/load.h"
#include "pipeline/load_columns.h"
#include "pipeline/load_route.h"
#include "pipeline/partition.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/tuplestore.h"

typedef struct StatementLoad
{
	IngestLoad	base;
	const IngestPipeline *pl;
	TupleDesc	rowtype;
	MemoryContext mcxt;
	Tuplestorestate *rows;
	char	   *sql;
	int64		pending;

	/* A managed target: its missing partitions are made, or the row refused. */
	AttrNumber	key;			/* column of the source with the key, or 0 */
	AttrNumber	target_key;
	Relation	root;
	IngestRoute *route;
	Datum	   *values;			/* a row of the root with nothing but the key */
	bool	   *isnull;
} StatementLoad;

/*
 * With row security in force for us, rows a policy hides would be missing
 * without a word; the server's own loads refuse that too.
 */
static void
check_row_security(Oid target)
{
	if (check_enable_rls(target, InvalidOid, true) == RLS_ENABLED && !row_security)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("query would be affected by row-level security policy for table \"%s\"",
						get_rel_name(target))));
}

static char *
make_statement(Relation target, const IngestLoadColumn *columns)
{
	TupleDesc	desc = RelationGetDescr(target);
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < desc->natts; i++)
		if (columns[i].mapped)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
	return psprintf("INSERT INTO %s (%s) SELECT %s FROM batch",
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
											   RelationGetRelationName(target)),
					names.data, names.data);
}

static void
open_route(StatementLoad *load)
{
	load->root = table_open(load->pl->target, RowExclusiveLock);
	load->route = ingest_route_open(load->root);
}

static void
close_route(StatementLoad *load)
{
	table_close(load->root, NoLock);
	load->root = NULL;
}

/* Rows can be refused softly when their key is a column of the source as it is. */
static void
prepare_route(StatementLoad *load, Relation target, const IngestLoadColumn *columns)
{
	if (target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE || !ingest_route_possible(target))
		return;
	open_route(load);
	load->target_key = ingest_route_range_column(load->route);
	if (load->target_key != InvalidAttrNumber)
		load->key = columns[load->target_key - 1].source;
	if (load->key == InvalidAttrNumber)
		close_route(load);
	load->values = palloc0(sizeof(Datum) * RelationGetDescr(target)->natts);
	load->isnull = palloc0(sizeof(bool) * RelationGetDescr(target)->natts);
}

static IngestLoad *
statement_begin(const IngestPipeline *pl, TupleDesc rowtype)
{
	StatementLoad *load = palloc0(sizeof(StatementLoad));
	Relation	target = table_open(pl->target, RowExclusiveLock);
	IngestLoadColumn *columns = ingest_load_columns(target, rowtype);

	load->base.ops = &ingest_load_statement;
	load->pl = pl;
	load->rowtype = rowtype;
	load->mcxt = CurrentMemoryContext;
	check_row_security(pl->target);
	ingest_load_check_privilege(target, columns);
	load->sql = make_statement(target, columns);
	load->rows = tuplestore_begin_heap(false, false, work_mem);
	prepare_route(load, target, columns);
	table_close(target, NoLock);
	return &load->base;
}

static bool
key_has_partition(StatementLoad *load, TupleTableSlot *slot)
{
	Oid			leaf;

	load->values[load->target_key - 1] = slot->tts_values[load->key - 1];
	load->isnull[load->target_key - 1] = slot->tts_isnull[load->key - 1];
	return ingest_route_find(load->route, load->values, load->isnull, &leaf) >= 0;
}

static bool
statement_put(IngestLoad *base, TupleTableSlot *slot, IngestLoadError *err)
{
	StatementLoad *load = (StatementLoad *) base;
	MemoryContext old;

	if (load->key != InvalidAttrNumber && !key_has_partition(load, slot))
	{
		Datum		lower;
		Datum		upper;

		memset(err, 0, sizeof(*err));
		if (!ingest_partition_wanted(load->root, slot->tts_values[load->key - 1],
									 slot->tts_isnull[load->key - 1], &lower, &upper, err))
		{
			if (err->message == NULL)
			{
				err->sqlstate = ERRCODE_CHECK_VIOLATION;
				err->message = psprintf("no partition of relation \"%s\" found for row",
										RelationGetRelationName(load->root));
			}
			return false;
		}
		old = MemoryContextSwitchTo(load->mcxt);
		close_route(load);
		ingest_partition_create(load->pl->target, lower, upper);
		CommandCounterIncrement();
		open_route(load);
		MemoryContextSwitchTo(old);
	}
	tuplestore_puttupleslot(load->rows, slot);
	load->pending++;
	return true;
}

/*
 * Rows are copied as they are put, so there is nothing to do before the end;
 * one statement for all of them is what the executor does best.
 */
static void
statement_flush(IngestLoad *base, bool last)
{
	StatementLoad *load = (StatementLoad *) base;
	EphemeralNamedRelation batch;

	if (!last || load->pending == 0)
		return;
	if (load->root)
		close_route(load);
	SPI_connect();
	batch = palloc0(sizeof(EphemeralNamedRelationData));
	batch->md.name = "batch";
	batch->md.tupdesc = load->rowtype;
	batch->md.enrtype = ENR_NAMED_TUPLESTORE;
	batch->md.enrtuples = load->pending;
	batch->reldata = load->rows;
	if (SPI_register_relation(batch) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the batch");
	if (SPI_execute(load->sql, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "\"%s\" failed", load->sql);
	load->base.discarded += load->pending - (int64) SPI_processed;
	/* What is deferred is the batch's fault too, while it can still be undone. */
	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not check deferred constraints");
	SPI_finish();
	tuplestore_clear(load->rows);
	load->pending = 0;
}

static int64
statement_pending(const IngestLoad *base)
{
	return ((const StatementLoad *) base)->pending;
}

static void
statement_end(IngestLoad *base)
{
	StatementLoad *load = (StatementLoad *) base;

	if (load->root)
		close_route(load);
	tuplestore_end(load->rows);
	pfree(load);
}

const IngestLoadOps ingest_load_statement = {
	.name = "statement",
	.begin = statement_begin,
	.put = statement_put,
	.flush = statement_flush,
	.pending = statement_pending,
	.end = statement_end,
};
