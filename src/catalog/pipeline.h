/*
 * pipeline.h
 *		The definition of a pipeline, as read from ingest._pipeline, _rule and
 *		_transform.
 */
#ifndef INGEST_CATALOG_PIPELINE_H
#define INGEST_CATALOG_PIPELINE_H

#include "postgres.h"

#include "core/options.h"
#include "nodes/pg_list.h"

typedef enum IngestViolation
{
	INGEST_VIOLATION_REJECT,	/* the row becomes a dead letter */
	INGEST_VIOLATION_DROP,		/* counted, not kept */
	INGEST_VIOLATION_WARN,		/* counted, written all the same */
	INGEST_VIOLATION_FAIL		/* the pipeline stops */
} IngestViolation;

typedef struct IngestRule
{
	char	   *name;
	char	   *expression;
	IngestViolation on_violation;
	bool		null_ok;
} IngestRule;

typedef struct IngestTransform
{
	char	   *name;
	char	   *statement;
} IngestTransform;

typedef enum IngestLane
{
	INGEST_LANE_AUTO,
	INGEST_LANE_DIRECT,
	INGEST_LANE_STATEMENT
} IngestLane;

typedef enum IngestOnNull
{
	INGEST_NULL_SKIP,			/* counted as skipped */
	INGEST_NULL_REJECT,			/* a dead letter */
	INGEST_NULL_ROW				/* a row whose decoded columns are NULL */
} IngestOnNull;

/* What a batch does to the target. */
typedef enum IngestMode
{
	INGEST_MODE_APPEND,			/* rows are added */
	INGEST_MODE_UPSERT,			/* rows with a key that is there take its place */
	INGEST_MODE_REPLACE			/* the target becomes what the source is */
} IngestMode;

/* Rows of the target that the source has no more, when it is replaced by key. */
typedef enum IngestOnDelete
{
	INGEST_DELETE_DELETE,
	INGEST_DELETE_MARK,			/* mark_column is set */
	INGEST_DELETE_IGNORE
} IngestOnDelete;

/* Rows of a relation whose cursor is NULL (or an infinite time). */
typedef enum IngestNullCursor
{
	INGEST_NULL_CURSOR_STOP,	/* the pipeline is broken */
	INGEST_NULL_CURSOR_SKIP,	/* they are not read */
	INGEST_NULL_CURSOR_INCLUDE	/* they are read in every run */
} IngestNullCursor;

typedef enum IngestLateCommits
{
	INGEST_LATE_WAIT,			/* for transactions that may commit rows below the cursor */
	INGEST_LATE_WRITERS,		/* for those only that have begun to write the table */
	INGEST_LATE_IGNORE
} IngestLateCommits;

typedef enum IngestCatchUp
{
	INGEST_CATCH_UP_ONCE,		/* runs that were missed are one run */
	INGEST_CATCH_UP_SKIP,		/* they are forgotten */
	INGEST_CATCH_UP_ALL			/* each is made */
} IngestCatchUp;

/* options jsonb of a pipeline; the table is ingest_pipeline_options. */
typedef struct IngestPipelineOptions
{
	int64		workers;		/* processes */
	int			lane;			/* IngestLane */
	int64		batch_rows;		/* messages a turn */
	int64		batch_bytes;
	int64		batch_wait;		/* ms to wait for a fuller batch */
	char	   *start_at;		/* 'earliest', 'latest' or a timestamp */
	int			on_gap;			/* 0 stop, 1 skip */
	int			on_null;		/* IngestOnNull */
	int64		error_limit;	/* dead letters in all before a pause; -1 none */
	double		error_rate;		/* share of rejected rows, 0..1; 1: no limit */
	int64		error_window;	/* rows the share is taken over */
	int64		statement_timeout;	/* ms for a load, a rule query, a transform; 0 none */
	int64		lock_timeout;	/* ms */
	bool		acknowledge;	/* tell the source (Kafka: commit to the group) */
	int64		history;		/* batches kept in batch_history */

	/* what becomes of the target */
	int			mode;			/* IngestMode */
	char	   *key;			/* columns, as a list of identifiers; or NULL */
	int			on_delete;		/* IngestOnDelete */
	char	   *mark_column;	/* or NULL */
	double		refresh_floor;	/* share of the target's rows a replacement has to keep */

	/* how a relation is read */
	char	   *cursor;			/* columns, as a list of identifiers; NULL: it is read whole */
	char	   *overlap;		/* interval or number; or NULL */
	char	   *horizon;		/* column; or NULL */
	int			null_cursor;	/* IngestNullCursor */
	int			late_commits;	/* IngestLateCommits */
	int64		rows_per_second;	/* 0: as fast as it goes */
	int64		poll_interval;	/* ms */

	/* when it runs */
	char	   *time_zone;		/* NULL: the database's */
	int			catch_up;		/* IngestCatchUp */
	int64		jitter;			/* ms */
	char	   *active_hours;	/* NULL: always */
	int64		timeout;		/* ms of a run; 0 none */
	int64		retries;		/* of a failed run; -1 no limit */
	int64		target_lag;		/* ms; 0 none */
} IngestPipelineOptions;

extern const IngestOptionDef ingest_pipeline_options[];

/* Names and values of options are good.  NULL: there are none.  raises: otherwise */
extern void ingest_pipeline_check_options(Jsonb *options);

/* Defaults and the given options; mcxt: current.  raises: when a value is bad */
extern void ingest_pipeline_parse_options(Jsonb *options, IngestPipelineOptions *into);

/* Names in a list such as 'updated_at, id'; NIL for NULL.  False: it is none.  mcxt: current */
extern bool ingest_pipeline_split_columns(const char *text, List **columns);

/* "reject", "drop", ...; find: false when there is no such outcome.  raises: no */
extern const char *ingest_violation_name(IngestViolation violation);
extern bool ingest_violation_find(const char *name, IngestViolation *violation);

typedef struct IngestPipeline
{
	int32		id;
	char	   *name;
	Oid			owner;
	Oid			source;
	Oid			target;
	char	   *schedule;
	char	   *search_path;
	int64		version;
	bool		enabled;
	bool		positioned;
	IngestPipelineOptions options;
	List	   *rules;			/* of IngestRule *, in order */
	List	   *transforms;		/* of IngestTransform *, in order */
} IngestPipeline;

/*
 * Load by name or id, into CurrentMemoryContext.  The get forms raise
 * ERRCODE_UNDEFINED_OBJECT with a hint naming the closest pipeline.
 * xact: in.  raises: yes
 */
extern IngestPipeline *ingest_pipeline_find(const char *name);
extern IngestPipeline *ingest_pipeline_find_id(int32 id);
extern IngestPipeline *ingest_pipeline_get(const char *name);

/* Only the version, and whether it is enabled; -1 when it is gone. xact: in */
extern int64 ingest_pipeline_version(int32 id, bool *enabled);

/*
 * Which database this is, as kept in _pipeline.home: a copy elsewhere has
 * another one.  mcxt: current.  raises: no
 */
extern char *ingest_pipeline_home(void);

/*
 * Ownership and trust, checked at definition time and again before each turn:
 * the owner exists; may read the source (USAGE on the server, SELECT on the
 * table) and INSERT into the target; is a member of the target's owner, whose
 * triggers, defaults and index expressions run as the pipeline's owner; and a
 * superuser's target and source belong to superusers.
 * xact: in.  raises: ERRCODE_INSUFFICIENT_PRIVILEGE and friends
 */
extern void ingest_pipeline_check_trust(const IngestPipeline *pl);

/* current_user is (a member of) the owner.  raises: yes */
extern void ingest_pipeline_check_owner(const IngestPipeline *pl);

/* current_user is exactly the owner: for functions that run the owner's SQL. raises: yes */
extern void ingest_pipeline_check_runner(const IngestPipeline *pl);

#endif							/* INGEST_CATALOG_PIPELINE_H */
