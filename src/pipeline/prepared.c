/*
 * prepared.c
 *		A definition made ready, and noticing that it no longer is.
 *
 * Changes made with our functions are seen by the definition's version (the
 * turn looks at it); ALTER FOREIGN TABLE, SERVER, USER MAPPING and what rules
 * are compiled from are seen here, by invalidation.
 */
#include "postgres.h"

#include "access/table.h"
#include "foreign/foreign.h"
#include "pipeline/prepared.h"
#include "pipeline/usersql.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* All that exist in this process. */
static dlist_head all_prepared = DLIST_STATIC_INIT(all_prepared);

static void
notice_relation_change(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_prepared)
	{
		IngestPrepared *prepared = dlist_container(IngestPrepared, node, iter.cur);

		if (relid == InvalidOid || prepared->pl == NULL || relid == prepared->pl->source)
			prepared->stale = true;
	}
}

/* A server or a user mapping: rare enough that whose it is does not matter. */
static void
notice_server_change(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_prepared)
	{
		IngestPrepared *prepared = dlist_container(IngestPrepared, node, iter.cur);

		prepared->stale = prepared->source_stale = true;
	}
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterRelcacheCallback(notice_relation_change, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, notice_server_change, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, notice_server_change, (Datum) 0);
	registered = true;
}

static void
cleanup(void *arg)
{
	IngestPrepared *prepared = arg;

	dlist_delete(&prepared->node);
	if (prepared->format && prepared->rel->format->end)
		prepared->rel->format->end(prepared->format);
}

static TupleDesc
copy_rowtype(Oid source)
{
	Relation	rel = table_open(source, AccessShareLock);
	TupleDesc	rowtype = CreateTupleDescCopy(RelationGetDescr(rel));

	table_close(rel, NoLock);
	return rowtype;
}

/* What a source is opened with: when it changes, it is opened anew. */
static List *
read_source_options(const IngestPipeline *pl)
{
	const IngestPipelineOptions *o = &pl->options;
	ForeignTable *table;

	if (!ingest_source_is_ours(pl->source))
		return list_make1(makeString(psprintf("%s|%s|%s|%s|%d|%d|%d|" INT64_FORMAT "|" INT64_FORMAT,
											  o->cursor ? o->cursor : "", o->key ? o->key : "",
											  o->overlap ? o->overlap : "", o->horizon ? o->horizon : "",
											  o->mode, o->null_cursor, o->late_commits,
											  o->rows_per_second, o->poll_interval)));
	table = GetForeignTable(pl->source);
	return list_concat(list_copy(table->options), GetForeignServer(table->serverid)->options);
}

/*
 * The columns of the source that somebody uses: those that are loaded, and those
 * of the rules.  NULL: all, since a query may use any.
 */
static Bitmapset *
find_columns(const IngestPrepared *prepared)
{
	Bitmapset  *columns;

	if (prepared->pl->transforms != NIL ||
		!ingest_rules_columns(prepared->rules, &columns))
		return NULL;
	for (int i = 0; i < prepared->rowtype->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(prepared->rowtype, i);

		if (!att->attisdropped && get_attnum(prepared->pl->target, NameStr(att->attname)) > 0)
			columns = bms_add_member(columns, i + 1);
	}
	return columns;
}

static IngestPipeline *
load_definition(int32 pipeline_id)
{
	IngestPipeline *pl = ingest_pipeline_find_id(pipeline_id);

	if (pl == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline %d does not exist", pipeline_id)));
	return pl;
}

IngestPrepared *
ingest_prepared_make(int32 pipeline_id, MemoryContext parent)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest definition", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);
	IngestPrepared *prepared = palloc0(sizeof(IngestPrepared));

	register_callbacks();
	prepared->mcxt = mcxt;
	dlist_push_tail(&all_prepared, &prepared->node);
	prepared->cleanup.func = cleanup;
	prepared->cleanup.arg = prepared;
	MemoryContextRegisterResetCallback(mcxt, &prepared->cleanup);

	PG_TRY();
	{
		const IngestPipeline *pl = load_definition(pipeline_id);
		IngestSourceRelation *rel;
		int			level;

		prepared->pl = pl;
		prepared->rel = rel = ingest_source_relation_load(pl->source, pl->owner, &pl->options);
		prepared->source_options = read_source_options(pl);
		prepared->rowtype = copy_rowtype(pl->source);

		prepared->start = ingest_start_parse(pl->options.start_at, &prepared->start_at);

		level = ingest_usersql_begin(pl);
		prepared->rules = ingest_rules_compile(pl->rules, pl->source, prepared->rowtype);
		ingest_source_relation_choose(rel, find_columns(prepared));
		prepared->format = prepared->rel->format->start(prepared->rel->columns,
														prepared->rel->ncolumns,
														prepared->rel->format_options);
		ingest_usersql_end(level);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		MemoryContextDelete(mcxt);
		PG_RE_THROW();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(oldcontext);
	return prepared;
}

bool
ingest_prepared_current(IngestPrepared *prepared)
{
	LockRelationOid(prepared->pl->source, AccessShareLock);
	return !prepared->stale && ingest_rules_valid(prepared->rules);
}

bool
ingest_prepared_same_source(const IngestPrepared *was, const IngestPrepared *now)
{
	return was->pl->source == now->pl->source && !was->source_stale &&
		equal(was->source_options, now->source_options);
}
