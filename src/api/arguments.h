/*
 * arguments.h
 *		What SQL-callable entry points share: reading arguments, finding the
 *		pipeline, checking a definition with its owner's eyes.
 */
#ifndef INGEST_ARGUMENTS_H
#define INGEST_ARGUMENTS_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "core/spi.h"
#include "fmgr.h"

/*
 * Argument n as text; NULL is an error that names the argument, or, with the
 * second form, NULL.  mcxt: current.  raises: yes
 */
extern char *ingest_argument_text(FunctionCallInfo fcinfo, int n, const char *name);
extern char *ingest_argument_text_or_null(FunctionCallInfo fcinfo, int n);

/* The same for an OID (regclass, regrole).  raises: yes */
extern Oid	ingest_argument_oid(FunctionCallInfo fcinfo, int n, const char *name);

/* A name for a pipeline, rule or transform: not empty, short, no control characters. */
extern char *ingest_argument_name(FunctionCallInfo fcinfo, int n, const char *name);

/*
 * The pipeline that the first argument names, of which the caller is an owner.
 * "name" is what the argument is called.  xact: in.  raises: yes
 */
extern IngestPipeline *ingest_argument_pipeline(FunctionCallInfo fcinfo, const char *name);

/*
 * Take the definition for change: counts its version up, which locks its row
 * until the transaction ends, and wakes the workers at commit.  Returns what
 * it is after that.  xact: in.  raises: yes
 */
extern IngestPipeline *ingest_definition_lock(FunctionCallInfo fcinfo, const char *name);

/*
 * Rules and transforms of a pipeline: insert one ("insert" does nothing when
 * there is one of that name), or drop the one that argument 1 names ("delete"
 * takes id and name).  kind: "rule", "transform".  xact: in.  raises: yes
 */
extern void ingest_definition_add_part(const IngestPipeline *pl, IngestStatement *insert,
									   Datum *values, const char *kind, const char *name);
extern void ingest_definition_drop_part(FunctionCallInfo fcinfo, IngestStatement *delete,
										const char *kind);

/*
 * Parsing and planning user SQL may run user functions.  Between begin and end
 * that happens as the pipeline's owner, restricted, under its search_path;
 * (sub)transaction abort ends it too.  xact: in.  raises: yes
 */
typedef struct IngestOwnerScope
{
	Oid			saved_user;
	int			saved_context;
	int			guc_level;
} IngestOwnerScope;

extern void ingest_owner_begin(const IngestPipeline *pl, IngestOwnerScope *scope);
extern void ingest_owner_end(const IngestOwnerScope *scope);

/*
 * The whole definition fits: trust, source, target, lane, rules, transforms.
 * No network I/O.  xact: in.  raises: yes
 */
extern void ingest_definition_check(const IngestPipeline *pl);

/* Rules (a List of IngestRule), or transforms, fit the pipeline's source. raises: yes */
extern void ingest_definition_check_rules(const IngestPipeline *pl, List *rules);
extern void ingest_definition_check_transforms(const IngestPipeline *pl, List *transforms);

#endif							/* INGEST_ARGUMENTS_H */
