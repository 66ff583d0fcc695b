/*
 * load.h
 *		Writing accepted rows into the target: one interface, two lanes.
 *
 * direct     slot -> partition -> table_multi_insert, for plain targets
 * statement  tuplestore -> INSERT INTO target SELECT ... FROM batch, for all
 *
 * The lane never changes what ends up where.  A load object lives for one
 * transaction; between begin and end the target is open.
 */
#ifndef INGEST_LOAD_H
#define INGEST_LOAD_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "executor/tuptable.h"

/* Why a row cannot be written, known without an error being raised. */
typedef struct IngestLoadError
{
	int			sqlstate;
	const char *message;
	const char *detail;
	const char *column;
	bool		full;			/* not the row's fault: another transaction can take it */
} IngestLoadError;

typedef struct IngestLoad IngestLoad;

typedef struct IngestLoadOps
{
	const char *name;			/* "direct", "statement" */

	/*
	 * Open the target for this transaction, in CurrentMemoryContext.  Columns
	 * go by name; a column of the target that the source lacks gets its
	 * default; INSERT privilege is checked for the current user.
	 * xact: in.  raises: yes
	 */
	IngestLoad *(*begin) (const IngestPipeline *pl, TupleDesc rowtype);

	/*
	 * Take a row.  The slot's by-reference values stay valid until the next
	 * flush().  False: the row cannot be written and *err says why
	 * (constraint, no partition); nothing was changed.
	 * raises: what casts, defaults, expressions and indexes raise
	 */
	bool		(*put) (IngestLoad *load, TupleTableSlot *slot, IngestLoadError *err);

	/*
	 * Write what was put, so that every error has been raised, deferred
	 * constraints included when last, unless the target is replaced: then
	 * they are checked at the end of it all.  Afterwards the values may go.
	 */
	void		(*flush) (IngestLoad *load, bool last);

	/* Rows put since the last flush, by which the caller bounds memory. */
	int64		(*pending) (const IngestLoad *load);

	/* Close the target.  Not called when the (sub)transaction is undone. */
	void		(*end) (IngestLoad *load);
} IngestLoadOps;

/* First member of every load object. */
struct IngestLoad
{
	const IngestLoadOps *ops;
	int64		discarded;		/* rows put, and flushed, that a trigger or rule did away with, or
								 * that are as what is there */
	int64		merged;			/* rows put, and flushed, that later ones with the same key replaced */
};

extern const IngestLoadOps ingest_load_direct;
extern const IngestLoadOps ingest_load_statement;

/*
 * The lane for a definition and its target as they are now; with reason, when
 * not NULL, a constant text why it is not the direct one.  Option lane =>
 * 'direct' with an unfit target raises.  xact: in
 */
extern const IngestLoadOps *ingest_load_choose(const IngestPipeline *pl, const char **reason);

/* Constraints that are deferred have to be right now.  xact: in.  raises: they are not */
extern void ingest_load_check_deferred(void);

/*
 * The source's columns fit the target: names exist, types have assignment
 * casts, NOT NULL columns without default are filled; the key is one.  For
 * definition time.  xact: in.  raises: yes
 */
extern void ingest_load_check(const IngestPipeline *pl);

#endif							/* INGEST_LOAD_H */
