/*
 * hold.c
 *		Commands that cannot work while our processes are in a database: send them
 *		away before, let them come back after.
 *
 * A session of ours in a database makes DROP DATABASE, ALTER DATABASE ... RENAME
 * and SET TABLESPACE, and CREATE DATABASE ... TEMPLATE fail.  A database that is
 * made a template, or closed to connections, is no longer for us.  DROP EXTENSION
 * and ALTER EXTENSION UPDATE would wait for the end of a turn, which may be
 * minutes of somebody's SQL.  The processes come back when the transaction ends, if
 * there is still something to come back to.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "core/compat.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "worker/process.h"
#include "worker/worker.h"

/*
 * How long to wait for them to leave.  After that the command goes its own way;
 * most of them wait a while themselves.
 */
#define HOLD_PATIENCE_MS 5000

static ProcessUtility_hook_type previous_hook = NULL;

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	may = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/*
 * Those who may not do what they ask for are told so by the command itself, and
 * do not stop anything.
 */
static Oid
find_database(const char *name)
{
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	if (OidIsValid(database) && ingest_compat_owns_database(database, GetUserId()))
		return database;
	return InvalidOid;
}

static char *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

static bool
names_extension(const DropStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->objects)
		if (strcmp(strVal(lfirst(cell)), "ingest") == 0)
			return true;
	return false;
}

/* Our extension's database, when the user may alter the extension. */
static Oid
find_extension_database(void)
{
	Oid			extension = ingest_extension_oid(true);

	if (OidIsValid(extension) && ingest_compat_owns_extension(extension, GetUserId()))
		return MyDatabaseId;
	return InvalidOid;
}

/* The database that has to be left for this command; InvalidOid: none. */
static Oid
find_database_to_leave(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return find_database(((DropdbStmt *) statement)->dbname);
		case T_CreatedbStmt:
			if (!may_create_databases())
				return InvalidOid;
			return find_database(find_option(((CreatedbStmt *) statement)->options, "template"));
		case T_AlterDatabaseStmt:
			{
				AlterDatabaseStmt *alter = (AlterDatabaseStmt *) statement;

				if (find_option(alter->options, "tablespace") == NULL &&
					find_option(alter->options, "is_template") == NULL &&
					find_option(alter->options, "allow_connections") == NULL)
					return InvalidOid;
				return find_database(alter->dbname);
			}
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType != OBJECT_DATABASE)
				return InvalidOid;
			return find_database(((RenameStmt *) statement)->subname);
		case T_DropStmt:
			if (((DropStmt *) statement)->removeType != OBJECT_EXTENSION ||
				!names_extension((DropStmt *) statement))
				return InvalidOid;
			return find_extension_database();
		case T_AlterExtensionStmt:
			if (strcmp(((AlterExtensionStmt *) statement)->extname, "ingest") != 0)
				return InvalidOid;
			return find_extension_database();
		default:
			return InvalidOid;
	}
}

static void
handle_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			   ProcessUtilityContext context, ParamListInfo params,
			   QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Oid			database = find_database_to_leave(pstmt->utilityStmt);

	if (OidIsValid(database))
		ingest_hold_until_transaction_end(database, HOLD_PATIENCE_MS);

	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment, dest,
								completion);
}

void
ingest_hold_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = handle_utility;
}
