/*
 * relation.h
 *		What the files of the relation source share.
 *
 * relation.c			the source: passes, pages, waiting
 * relation_plan.c		from a definition to what is read, checked
 * relation_read.c		the queries, and rows into the batch
 * relation_position.c	positions as text
 * relation_late.c		transactions that may still commit
 */
#ifndef INGEST_RELATION_H
#define INGEST_RELATION_H

#include "postgres.h"

#include "fmgr.h"
#include "format/tuple.h"
#include "source/source.h"
#include "utils/portal.h"

extern const IngestSourceOps ingest_source_relation;

/* An index holds no more columns, and without one a cursor is of little use. */
#define INGEST_CURSOR_MAX INDEX_MAX_KEYS

/* A column that rows are read by. */
typedef struct IngestCursorColumn
{
	AttrNumber	attnum;			/* of the relation */
	char	   *attname;
	char	   *name;			/* the same, quoted */
	Oid			typid;			/* domains: what they are of */
	int32		typmod;
	bool		not_null;
	bool		is_time;		/* date or timestamp: may be infinite */
} IngestCursorColumn;

/* Values of the cursor as text; fewer than it has columns: a beginning. */
typedef struct IngestCursorValues
{
	int			n;
	char	   *texts[INGEST_CURSOR_MAX];
} IngestCursorValues;

/* How a relation is read, from its definition; lives as long as that. */
typedef struct IngestRelationPlan
{
	const IngestPipelineOptions *options;
	const char *relation;		/* qualified and quoted */
	bool		whole;			/* all of it each time, in one transaction */
	bool		local;			/* all its rows are this database's */
	bool		knows_infinity; /* as PostgreSQL does */
	bool		by_xid;			/* the first column of the cursor is an xid8 */
	bool		wait_late;		/* wait for transactions that may commit below the cursor */
	List	   *written;		/* of these, by OID of what they have locked; NIL: all that run */
	IngestCursorColumn *cursor; /* NULL when it is read whole */
	int			ncursor;
	IngestCursorColumn *key;	/* of the rows, in the relation; NULL without */
	int			nkey;
	char	   *horizon;		/* quoted column, or NULL */

	/* by ingest_relation_choose() */
	char	   *columns;		/* what is selected, as SQL */
	AttrNumber *attnums;		/* of each */
	IngestTupleOptions tuple;
} IngestRelationPlan;

/* ---- relation_plan.c ---- */

/* IngestSourceOps.prepare.  raises: what is wrong with the definition */
extern void *ingest_relation_prepare(const IngestSourceRelation *rel);
extern void ingest_relation_choose(IngestSourceRelation *rel, Bitmapset *columns);

/*
 * Advice on a definition, as WARNING: an index that is missing, rows that may be
 * missed.  For definition time.
 */
extern void ingest_relation_advise(const IngestSourceRelation *rel);

/* ---- relation_position.c ---- */

/* Where a relation has been read to. */
typedef struct IngestRelationPosition
{
	int64		pass;			/* passes that were asked for and are done */
	int64		rows;			/* that were read, ever */
	IngestCursorValues after;	/* read up to here */
	bool		inclusive;		/* "after" itself is still to be read */
	char	   *stop;			/* of a part: the first column's value before which it ends; or NULL */
	IngestCursorValues until;	/* what may be read as soon as "running" have ended */
	char	   *running;		/* see relation_late.c; NULL: nothing is waited for */
} IngestRelationPosition;

/* mcxt: current.  raises: out of memory */
extern char *ingest_relation_position_text(const IngestRelationPosition *position);
extern bool ingest_relation_position_parse(const char *text, IngestRelationPosition *position);

/* IngestSourceOps.distance, check_position; the end of the n-th pass. */
extern int64 ingest_relation_distance(const char *from, const char *to);
extern bool ingest_relation_check_position(const char *text);
extern char *ingest_relation_end_text(int64 pass);

/* ---- relation_late.c ---- */

/*
 * The transactions of this database that run now, but for this one, as text, or
 * NULL: there are none; when relations are given, those only that have locked one
 * for writing.  mcxt: current.  xact: in.  raises: yes
 */
extern char *ingest_relation_running(const List *written);

/* Those of the list that still run, likewise. */
extern char *ingest_relation_still_running(const char *running);

/* ---- relation_read.c ---- */

/* One query. */
typedef struct IngestRelationQuery
{
	const IngestCursorColumn *cursor;	/* to compare with and to order by; NULL: no order */
	int			ncursor;
	const IngestCursorValues *after;	/* or NULL; all values: behind them, fewer: from them on */
	bool		inclusive;		/* from them on in any case */
	const char *stop;			/* or NULL; the first column's value before which to end */
	const IngestCursorValues *until;	/* or NULL; up to them */
	bool		without;		/* the rows that have no cursor */
	int64		limit;			/* rows; 0 no limit */
} IngestRelationQuery;

/* Its text, with the values as parameters $1, ...; "select" says what for.  mcxt: current */
extern char *ingest_relation_sql(const IngestRelationPlan *plan, const IngestRelationQuery *query,
								 const char *select, bool descending);

/* Open it.  The portal ends with the transaction, or by SPI_cursor_close().  raises: yes */
extern Portal ingest_relation_open_query(const IngestRelationPlan *plan,
										 const IngestRelationQuery *query);

/*
 * Up to so many rows into the batch, but no more than its bytes allow, numbered
 * from first_offset on.  *got is counted up, also when an error is raised then.
 * True: there may be more.
 */
extern bool ingest_relation_fetch_rows(const IngestRelationPlan *plan, Portal portal,
									   IngestBatch *batch, int64 limit, int64 first_offset, int64 *got);

/* The first (descending: the last) row's cursor.  False: there is no row.  mcxt: current */
extern bool ingest_relation_find_cursor(const IngestRelationPlan *plan,
										const IngestRelationQuery *query, bool descending,
										IngestCursorValues *found);

/* Rows a query would answer with, counted up to its limit. */
extern int64 ingest_relation_count(const IngestRelationPlan *plan, const IngestRelationQuery *query);

/* Columns of a row that was read, as text.  mcxt: current */
extern void ingest_relation_values(const IngestRelationPlan *plan, const char *payload,
								   const IngestCursorColumn *columns, int n,
								   IngestCursorValues *values);

/*
 * The query that reads the next page, or everything, and its plan, as lines of
 * text.  position: where the pipeline stands, or NULL.  mcxt: current.  raises: yes
 */
extern List *ingest_relation_explain(const IngestSourceRelation *rel, const char *position, int64 rows);

/* The first cursor column's value, less the overlap.  mcxt: current */
extern char *ingest_relation_step_back(const IngestRelationPlan *plan, const char *value);

#endif							/* INGEST_RELATION_H */
