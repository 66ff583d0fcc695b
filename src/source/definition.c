/*
 * definition.c
 *		From a relation to what is needed to open and decode its source.
 *
 * Reads catalogs only; opening is without a transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "access/reloptions.h"
#include "commands/defrem.h"
#include "core/compat.h"
#include "nodes/makefuncs.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "source/source.h"
#include "format/tuple.h"
#include "source/relation.h"
#include "source/source_sql.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

const IngestSourceOps *
ingest_source_of_function(Oid function)
{
	char	   *name = get_func_name(function);
	char	   *suffix = name ? strstr(name, "_validator") : NULL;

	if (suffix == NULL)
		return NULL;
	*suffix = '\0';
	return ingest_source_find(name);
}

const char *
ingest_source_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, name) == 0)
			return defGetString(lfirst_node(DefElem, lc));
	return NULL;
}

/* The mapping of the owner, else that of PUBLIC, else none: not every source needs one. */
static List *
user_options(Oid owner, Oid server, char **mapping)
{
	Oid			users[] = {owner, InvalidOid};

	for (int i = 0; i < lengthof(users); i++)
	{
		HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(users[i]),
											ObjectIdGetDatum(server));
		List	   *options = NIL;
		Datum		datum;
		bool		isnull;

		if (!HeapTupleIsValid(tuple))
			continue;
		datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
								Anum_pg_user_mapping_umoptions, &isnull);
		if (!isnull)
			options = untransformRelOptions(datum);
		ReleaseSysCache(tuple);
		*mapping = OidIsValid(users[i]) ? GetUserNameFromId(users[i], false) : pstrdup("public");
		return options;
	}
	return NIL;
}

/* Replace references to secrets by what they stand for. */
static List *
resolve_secrets(const IngestOptionDef *table, List *options, Oid owner)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		for (const IngestOptionDef *def = table; def->name; def++)
			if (def->secret && strcmp(def->name, option->defname) == 0)
				option->arg = (Node *) makeString(ingest_option_secret(def->name,
																	   defGetString(option), owner));
	}
	return options;
}

static void
add_metadata(IngestSourceRelation *result, Form_pg_attribute att, const char *name)
{
	const IngestMetadataDef *metadata = result->ops->metadata;

	for (int i = 0; metadata[i].name; i++)
	{
		if (strcmp(metadata[i].name, name) != 0)
			continue;
		if (att->atttypid != metadata[i].typid)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("column \"%s\" must have type %s", NameStr(att->attname),
							format_type_be(metadata[i].typid)),
					 errdetail("It holds metadata \"%s\" of the message.", name)));
		result->metadata[result->nmetadata].attnum = att->attnum;
		result->metadata[result->nmetadata++].which = i;
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("source \"%s\" has no metadata \"%s\"", result->ops->name, name),
			 errhint("The view ingest.option_help lists what there is.")));
}

static void
add_column(IngestSourceRelation *result, Form_pg_attribute att, List *options)
{
	const char *metadata = ingest_source_option(options, "metadata");
	const char *path = ingest_source_option(options, "path");
	IngestColumn *column;

	if (metadata)
	{
		add_metadata(result, att, metadata);
		return;
	}
	column = &result->columns[result->ncolumns++];
	column->attnum = att->attnum;
	column->name = pstrdup(NameStr(att->attname));
	column->path = path ? pstrdup(path) : NULL;
	column->typid = att->atttypid;
	column->typmod = att->atttypmod;
	column->collation = att->attcollation;
}

static void
load_columns(IngestSourceRelation *result, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	result->natts = desc->natts;
	result->columns = palloc0(sizeof(IngestColumn) * Max(desc->natts, 1));
	result->metadata = palloc0(sizeof(IngestMetadataColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !att->attgenerated)
			add_column(result, att, GetForeignColumnOptions(RelationGetRelid(rel), att->attnum));
	}
}

bool
ingest_source_is_ours(Oid relid)
{
	ForeignDataWrapper *fdw;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		return false;
	fdw = GetForeignDataWrapper(GetForeignServer(GetForeignServerIdByRelId(relid))->fdwid);
	return OidIsValid(fdw->fdwvalidator) && ingest_source_of_function(fdw->fdwvalidator) != NULL;
}

pg_noreturn static void
raise_not_source(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" is not a source", get_rel_name(relid)),
			 errdetail("A source is a foreign table of a wrapper such as ingest_kafka.")));
	pg_unreachable();
}

/* A cursor and the like are for relations; a stream knows where it stands. */
static void
refuse_reading(const IngestPipelineOptions *reading, const char *source)
{
	const char *option = reading == NULL ? NULL :
		reading->cursor ? "cursor" : reading->overlap ? "overlap" : reading->horizon ? "horizon" : NULL;

	if (option == NULL && (reading == NULL || reading->mode != INGEST_MODE_REPLACE))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 option ? errmsg("option \"%s\" is not for source \"%s\"", option, source) :
			 errmsg("mode \"%s\" is not for source \"%s\"", "replace", source),
			 errdetail("It is for tables, views and foreign tables that are read with SQL.")));
}

/* A foreign table of one of our wrappers: its options, and those of server and user. */
static void
load_foreign_table(IngestSourceRelation *result, Relation rel, const IngestSourceOps *ops)
{
	ForeignTable *table = GetForeignTable(result->relid);
	ForeignServer *server = GetForeignServer(table->serverid);
	AclResult	acl = ingest_compat_server_aclcheck(server->serverid, result->owner, ACL_USAGE);
	const char *format = ingest_source_option(table->options, "format");
	List	   *options;

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FOREIGN_SERVER, server->servername);

	result->ops = ops;
	result->server = server->serverid;
	result->server_name = pstrdup(server->servername);
	result->table_options = table->options;
	options = list_concat(list_copy(server->options), table->options);
	options = list_concat(options, user_options(result->owner, server->serverid, &result->mapping));
	options = resolve_secrets(ops->options, options, result->owner);
	result->options = palloc0(ops->options_size);
	ingest_option_parse(ops->options, options, result->options);
	if (ops->check)
		ops->check(result->options);

	result->format = ingest_format_get(format ? format : "json");
	result->format_options = palloc0(Max(result->format->options_size, 1));
	ingest_option_parse(result->format->options, table->options, result->format_options);

	load_columns(result, rel);
	if (result->format->check)
		result->format->check(result->columns, result->ncolumns, result->format_options);
}

/* Any other: all its columns, as they are. */
static void
load_relation(IngestSourceRelation *result, Relation rel, const IngestPipelineOptions *reading)
{
	TupleDesc	desc = RelationGetDescr(rel);

	result->ops = &ingest_source_relation;
	result->reading = reading;
	result->format = &ingest_format_tuple;
	result->natts = desc->natts;
	result->columns = palloc0(sizeof(IngestColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			add_column(result, TupleDescAttr(desc, i), NIL);
}

IngestSourceRelation *
ingest_source_relation_load(Oid relid, Oid owner, const IngestPipelineOptions *reading)
{
	IngestSourceRelation *result = palloc0(sizeof(*result));
	Relation	rel = table_open(relid, AccessShareLock);

	result->relid = relid;
	result->owner = owner;
	result->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											  RelationGetRelationName(rel));
	if (ingest_source_is_ours(relid))
	{
		ForeignServer *server = GetForeignServer(GetForeignServerIdByRelId(relid));
		const IngestSourceOps *ops =
			ingest_source_of_function(GetForeignDataWrapper(server->fdwid)->fdwvalidator);

		refuse_reading(reading, ops->name);
		load_foreign_table(result, rel, ops);
	}
	else if (reading)
		load_relation(result, rel, reading);
	else
		raise_not_source(relid);
	table_close(rel, AccessShareLock);
	if (result->ops->prepare)
		result->prepared = result->ops->prepare(result);
	return result;
}

void
ingest_source_relation_choose(IngestSourceRelation *rel, Bitmapset *columns)
{
	if (rel->ops == &ingest_source_relation)
		ingest_relation_choose(rel, columns);
}

void
ingest_source_relation_advise(const IngestPipeline *pl)
{
	if (!ingest_source_is_ours(pl->source))
		ingest_relation_advise(ingest_source_relation_load(pl->source, pl->owner, &pl->options));
}

IngestSource *
ingest_source_open(const IngestSourceRelation *rel, MemoryContext parent, IngestError *err)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest source", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	IngestSource *src = palloc0(rel->ops->instance_size);
	bool		ok;

	src->ops = rel->ops;
	src->mcxt = mcxt;
	src->options = rel->options;
	src->prepared = rel->prepared;
	src->name = pstrdup(rel->name);
	ok = rel->ops->open(src, err);
	MemoryContextSwitchTo(old);
	if (ok)
		return src;

	/* The message is in the context that goes. */
	{
		IngestError copy = *err;

		ingest_error_copy(err, &copy, old);
	}
	MemoryContextDelete(mcxt);
	return NULL;
}
