/*
 * compat.h
 *		Everything that differs between the supported server versions (15-18).
 *
 * This is the only file with "#if PG_VERSION_NUM".  When a call changed its
 * signature, a wrapper named ingest_compat_<call> hides it.
 */
#ifndef INGEST_COMPAT_H
#define INGEST_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "ingest needs PostgreSQL 15 or newer"
#endif

#include "utils/acl.h"
#include "utils/wait_event.h"

/* From 18 on a prefix; before, an attribute behind the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/*
 * Custom wait events exist from 17 on; before, everything an extension waits
 * for is shown as "Extension".
 */
#if PG_VERSION_NUM >= 170000
#define ingest_compat_wait_event(name) WaitEventExtensionNew(name)
#else
#define ingest_compat_wait_event(name) ((uint32) PG_WAIT_EXTENSION)
#endif

/* What EXPLAIN of a scan writes with has headers of its own from 18 on. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#else
#include "commands/explain.h"
#endif

/*
 * create_foreignscan_path() got the number of disabled nodes (18) and lists of
 * restrictions (17).  A plain path over a base relation.
 */
#if PG_VERSION_NUM >= 180000
#define ingest_compat_create_foreignscan_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, NIL, NULL, NULL, NIL, NIL)
#elif PG_VERSION_NUM >= 170000
#define ingest_compat_create_foreignscan_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, NULL, NULL, NIL, NIL)
#else
#define ingest_compat_create_foreignscan_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, NULL, NULL, NIL)
#endif

/* Privileges on a foreign server: one function for all objects from 16 on. */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_foreign_server.h"
#define ingest_compat_server_aclcheck(server, role, mode) \
	object_aclcheck(ForeignServerRelationId, server, role, mode)
#else
#define ingest_compat_server_aclcheck(server, role, mode) \
	pg_foreign_server_aclcheck(server, role, mode)
#endif

/*
 * Input functions report soft errors from 16 on.  Before, an error is raised.
 * False: *sqlstate and *message say why.
 */
#if PG_VERSION_NUM >= 160000
#include "fmgr.h"
#include "nodes/miscnodes.h"

#define INGEST_COMPAT_SOFT_INPUT 1

static inline bool
ingest_compat_input_call(FmgrInfo *flinfo, char *text, Oid ioparam, int32 typmod, Datum *value,
						 int *sqlstate, const char **message)
{
	ErrorSaveContext escontext = {T_ErrorSaveContext, .details_wanted = true};

	if (InputFunctionCallSafe(flinfo, text, ioparam, typmod, (Node *) &escontext, value))
		return true;
	*sqlstate = escontext.error_data->sqlerrcode;
	*message = escontext.error_data->message;
	return false;
}
#else
#include "fmgr.h"

#define INGEST_COMPAT_SOFT_INPUT 0

static inline bool
ingest_compat_input_call(FmgrInfo *flinfo, char *text, Oid ioparam, int32 typmod, Datum *value,
						 int *sqlstate, const char **message)
{
	*value = InputFunctionCall(flinfo, text, ioparam, typmod);
	return true;
}
#endif

/* Reports soft errors from 16 on; none can happen for a typmod that a column has. */
#include "utils/datetime.h"
#if PG_VERSION_NUM >= 160000
#define ingest_compat_adjust_timestamp(timestamp, typmod) \
	AdjustTimestampForTypmod(timestamp, typmod, NULL)
#else
#define ingest_compat_adjust_timestamp(timestamp, typmod) \
	AdjustTimestampForTypmod(timestamp, typmod)
#endif

/* Summarizing indexes (16) changed the signature. */
#include "executor/executor.h"
#if PG_VERSION_NUM >= 160000
#define ingest_compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL, false)
#else
#define ingest_compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL)
#endif

/* The tuple to leave out is new in 18. */
#if PG_VERSION_NUM >= 180000
#define ingest_compat_check_index_constraints(info, slot, estate, conflict, arbiters) \
	ExecCheckIndexConstraints(info, slot, estate, conflict, NULL, arbiters)
#else
#define ingest_compat_check_index_constraints(info, slot, estate, conflict, arbiters) \
	ExecCheckIndexConstraints(info, slot, estate, conflict, arbiters)
#endif

/* CHECK constraints can be NOT ENFORCED from 18 on. */
#if PG_VERSION_NUM >= 180000
#define ingest_compat_check_enforced(check) ((check)->ccenforced)
#else
#define ingest_compat_check_enforced(check) true
#endif

/* May "member" SET ROLE "role"?  Memberships got options of their own in 16. */
#if PG_VERSION_NUM >= 160000
#define ingest_compat_member_can_set_role(member, role) member_can_set_role(member, role)
#else
#define ingest_compat_member_can_set_role(member, role) is_member_of_role(member, role)
#endif

/* Owning a database or an extension: one function for all objects from 16 on. */
#if PG_VERSION_NUM >= 160000
#define ingest_compat_owns_database(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#define ingest_compat_owns_extension(extension, role) \
	object_ownercheck(ExtensionRelationId, extension, role)
#else
#define ingest_compat_owns_database(database, role) pg_database_ownercheck(database, role)
#define ingest_compat_owns_extension(extension, role) pg_extension_ownercheck(extension, role)
#endif

/*
 * The server's JSON parser: its actions answer with an error code from 16 on,
 * and a lexer can be made in place from 17 on.  The parser itself has raised
 * only for the depth of the stack in all of them.
 */
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#if PG_VERSION_NUM >= 160000
#define ingest_compat_json_action JsonParseErrorType
#define ingest_compat_json_done return JSON_SUCCESS
#else
#define ingest_compat_json_action void
#define ingest_compat_json_done return
#endif
#if PG_VERSION_NUM >= 170000
#define ingest_compat_json_lexer(text, len) \
	makeJsonLexContextCstringLen(NULL, text, len, PG_UTF8, false)
#else
#define ingest_compat_json_lexer(text, len) \
	makeJsonLexContextCstringLen((char *) (text), len, PG_UTF8, false)
#endif

/*
 * A memory context's method for allocating got flags in 17, and deals with its
 * failure itself; before, its caller did.  As macros, since the number of
 * parameters differs.
 */
#if PG_VERSION_NUM >= 170000
#include "utils/memutils_internal.h"
#define ingest_compat_alloc_parameters MemoryContext context, Size size, int flags
#define ingest_compat_alloc_arguments context, size, flags
#define ingest_compat_alloc_failure MemoryContextAllocationFailure(context, size, flags)
#else
#define ingest_compat_alloc_parameters MemoryContext context, Size size
#define ingest_compat_alloc_arguments context, size
#define ingest_compat_alloc_failure NULL
#endif

/* Which process a virtual transaction belongs to: numbered by process since 17. */
#if PG_VERSION_NUM >= 170000
#define ingest_compat_vxid_proc(vxid) ((vxid).procNumber)
#define ingest_compat_vxid_set_proc(vxid, proc) ((vxid).procNumber = (proc))
#define ingest_compat_vxid_owner(vxid) ProcNumberGetProc((vxid).procNumber)
#else
#define ingest_compat_vxid_proc(vxid) ((vxid).backendId)
#define ingest_compat_vxid_set_proc(vxid, proc) ((vxid).backendId = (proc))
#define ingest_compat_vxid_owner(vxid) BackendIdGetProc((vxid).backendId)
#endif

/* Room before the tuple can be asked for since 18. */
#if PG_VERSION_NUM >= 180000
#define ingest_compat_form_minimal_tuple(desc, values, isnull) \
	heap_form_minimal_tuple(desc, values, isnull, 0)
#else
#define ingest_compat_form_minimal_tuple(desc, values, isnull) \
	heap_form_minimal_tuple(desc, values, isnull)
#endif

#endif							/* INGEST_COMPAT_H */
