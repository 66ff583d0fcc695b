/*
 * source.h
 *		The interface of a source, and how to open one from its relation.
 *
 * A source is one static const IngestSourceOps in one .c file and one line in
 * source_list.h; in SQL it is a foreign-data wrapper whose validator is named
 * <source>_validator.  Options, help and documentation come from its tables.
 *
 * Contract of every callback
 *	- runs in the main thread, outside a transaction unless said otherwise, and
 *	  must not touch catalogs (open() gets everything it needs);
 *	- does not block longer than INGEST_SOURCE_PATIENCE ms at a time, and calls
 *	  CHECK_FOR_INTERRUPTS() between when it has to wait longer;
 *	- reports trouble in IngestError, raises only for bugs and out of memory;
 *	- secrets never reach a message.
 */
#ifndef INGEST_SOURCE_H
#define INGEST_SOURCE_H

#include "postgres.h"

#include "catalog/pipeline.h"
#include "core/error.h"
#include "core/options.h"
#include "format/format.h"
#include "nodes/bitmapset.h"
#include "pipeline/batch.h"
#include "utils/memutils.h"

#define INGEST_SOURCE_PATIENCE	100 /* milliseconds */

struct IngestSourceOps;

/* What an instance starts with; a source embeds it as its first member. */
typedef struct IngestSource
{
	const struct IngestSourceOps *ops;
	MemoryContext mcxt;			/* of the instance; deleting it closes the source */
	const void *options;		/* ops->options_size bytes, parsed */
	void	   *prepared;		/* what ops->prepare() made; NULL in a replay */
	char	   *name;			/* of the relation, for messages and client ids */
	bool		peek;			/* for somebody who looks: read no more than is asked for */
	bool		background;		/* for a worker, which shows why it waits */
	bool		patient;		/* somebody waits for all there is, or there is no end: leave nothing for a next run */
	bool		in_turn;		/* fetch() is called in the turn's transaction, see INGEST_FETCH_WHOLE */
} IngestSource;

struct IngestSourceRelation;

/* A column a user can ask for with OPTIONS (metadata 'name'). */
typedef struct IngestMetadataDef
{
	const char *name;			/* "offset" */
	Oid			typid;			/* what get_metadata returns; the column must have this type */
	const char *help;
} IngestMetadataDef;

typedef enum IngestStart
{
	INGEST_START_EARLIEST,
	INGEST_START_LATEST,
	INGEST_START_TIMESTAMP
} IngestStart;

typedef enum IngestFetch
{
	INGEST_FETCH_GOT,			/* messages or positions were added */
	INGEST_FETCH_EMPTY,			/* nothing now; wait for the hint */
	INGEST_FETCH_SHARDS,		/* the set of shards changed: list and assign anew */
	INGEST_FETCH_WHOLE,			/* it is read whole: fetch in the turn's transaction, until it is empty */
	INGEST_FETCH_ERROR
} IngestFetch;

typedef struct IngestSourceOps
{
	const char *name;			/* "kafka" */
	const char *description;

	const IngestOptionDef *options; /* scopes SERVER, USER, TABLE */
	size_t		options_size;
	const IngestMetadataDef *metadata;	/* ends with name NULL */

	/*
	 * It is read with SQL: find_position() and fetch() are called in a
	 * transaction, as the pipeline's owner, under its settings, with a snapshot,
	 * and may raise.
	 */
	bool		in_transaction;

	/* MAY.  Rules across options, no I/O.  raises: yes */
	void		(*check) (const void *options);

	/*
	 * MAY.  What has to be known of catalogs, in CurrentMemoryContext, which
	 * lives as long as the relation; further checks.  xact: in.  raises: yes
	 */
	void	   *(*prepare) (const struct IngestSourceRelation *rel);

	/*
	 * MAY.  Queries and secrets to be stored: called in a transaction, as the
	 * pipeline's owner, before the shards are listed.  xact: in.  raises: yes
	 */
	void		(*use_sql) (IngestSource *src);

	/*
	 * MUST.  Make an instance in CurrentMemoryContext (src->mcxt), and register
	 * its cleanup as a reset callback before the first call that can fail.
	 * No I/O that waits.  instance is zeroed and of instance_size bytes, its
	 * IngestSource part is filled.  false: *err says why.
	 */
	size_t		instance_size;
	bool		(*open) (IngestSource *src, IngestError *err);

	/*
	 * MUST.  The shards there are now, as IngestShard with number and name, in
	 * CurrentMemoryContext.  Waits for the peer, interruptibly, up to its
	 * configured timeout.
	 */
	bool		(*list_shards) (IngestSource *src, IngestShard **shards, int *nshards,
								IngestError *err);

	/*
	 * MUST.  Position of a shard for a start, as text in CurrentMemoryContext:
	 * the first or the next-to-come message, or the first at or after "at".
	 * Waits like list_shards.
	 */
	bool		(*find_position) (IngestSource *src, const IngestShard *shard,
								  IngestStart start, TimestampTz at,
								  char **position, IngestError *err);

	/*
	 * MUST.  The text is a position of this source; an operator typed it.
	 * Pure.  raises: no
	 */
	bool		(*check_position) (const char *position);

	/*
	 * MUST.  Messages between two positions; negative when that cannot be said
	 * or "to" comes before "from".  Pure.  raises: no
	 */
	int64		(*distance) (const char *from, const char *to);

	/*
	 * MUST.  Read these shards from their positions from now on, and no
	 * others.  The array stays valid and is batch->shards of later fetches.
	 * A proof that does not hold makes a later fetch answer with a GAP error.
	 */
	bool		(*assign) (IngestSource *src, IngestShard *shards, int nshards,
						   IngestError *err);

	/*
	 * MUST.  Where to wait: a descriptor that becomes readable (or
	 * PGINVALID_SOCKET), and the longest wait in ms before fetch() wants to be
	 * called again although nothing was readable (-1: none).  raises: no
	 */
	void		(*wait_hint) (IngestSource *src, pgsocket *fd, long *timeout);

	/*
	 * MUST.  Append what is there, at most the batch's limits, and never wait.
	 * Updates batch->shards[].  *gap_shard is the index of the shard for a GAP
	 * error.
	 */
	IngestFetch (*fetch) (IngestSource *src, IngestBatch *batch, int *gap_shard,
						  IngestError *err);

	/*
	 * MUST.  Position and proof that follow this message, in
	 * CurrentMemoryContext: for a turn that commits only a part of its batch.
	 * raises: out of memory
	 */
	void		(*position_after) (IngestSource *src, const IngestBatch *batch,
								   const IngestMessage *msg, char **position, char **proof);

	/*
	 * MUST.  The shard's position after the last message that can be seen now
	 * (read committed), for a drain that ends: waits like list_shards.
	 */
	bool		(*find_end) (IngestSource *src, const IngestShard *shard, char **position,
							 IngestError *err);

	/*
	 * MAY.  A part of the source, for a backfill: the type in which its bounds are
	 * written, and steps are taken; and for a shard the position where the part
	 * from "from" until before "to" begins.  *end is where it ends, or NULL when
	 * the position says so itself.  Waits like list_shards.
	 */
	Oid			(*slice_type) (IngestSource *src, const char *from);
	bool		(*slice) (IngestSource *src, const IngestShard *shard, const char *from,
						  const char *to, char **position, char **end, IngestError *err);

	/*
	 * MAY.  Nothing will ever come of a shard at this position: it is not
	 * assigned any more.  Pure.  raises: out of memory
	 */
	bool		(*is_finished) (IngestSource *src, const char *position);

	/*
	 * MUST.  Metadata column "which" (index in metadata[]) of a message, in
	 * CurrentMemoryContext.  Text is verified.  For a replayed message there is
	 * no handle, and src was not opened: only its ops, options and name are set.
	 * raises: out of memory
	 */
	Datum		(*get_metadata) (IngestSource *src, const IngestBatch *batch,
								 const IngestMessage *msg, int which, bool *isnull);

	/*
	 * MAY.  Headers of a message as JSON text ([{"name": "value"}]) for the
	 * dead letter, or NULL.
	 */
	char	   *(*get_headers) (IngestSource *src, const IngestMessage *msg);

	/* MUST.  Give back the messages' buffers.  Also from close.  raises: no */
	void		(*release) (IngestSource *src, IngestBatch *batch);

	/* MAY.  The batch's positions are durable; best effort.  raises: no */
	void		(*acknowledge) (IngestSource *src, const IngestShard *shards, int nshards);
} IngestSourceOps;

/* The table of each. */
#define INGEST_SOURCE(symbol) extern const IngestSourceOps symbol;
#include "source/source_list.h"
#undef INGEST_SOURCE

/* Closing is MemoryContextDelete(src->mcxt); the reset callback does the work. */
#define ingest_source_close(src) MemoryContextDelete((src)->mcxt)

/*
 * A source relation, read from the catalogs: what it is, its format, its
 * columns.  Everything that needs a transaction happens here, so that the
 * source can be opened and read outside one.
 */
typedef struct IngestMetadataColumn
{
	AttrNumber	attnum;
	int			which;			/* index in ops->metadata */
} IngestMetadataColumn;

typedef struct IngestSourceRelation
{
	Oid			relid;
	Oid			server;
	char	   *server_name;
	Oid			owner;			/* as whom it is read */
	char	   *mapping;		/* whose user mapping it has: a role, "public", or NULL */
	List	   *table_options;	/* as they are written, of DefElem */
	char	   *name;			/* qualified and quoted */
	const IngestSourceOps *ops;
	void	   *options;		/* parsed; secrets resolved */
	const IngestFormatOps *format;
	void	   *format_options;
	int			natts;			/* of the relation, dropped ones included */
	IngestColumn *columns;		/* those the format fills */
	int			ncolumns;
	IngestMetadataColumn *metadata;
	int			nmetadata;
	const IngestPipelineOptions *reading;	/* how a relation is read; the pipeline's */
	void	   *prepared;		/* by ops->prepare() */
} IngestSourceRelation;

/*
 * Read the definition of a relation as "owner" sees it: a foreign table of one
 * of our wrappers (user mapping of owner or PUBLIC, USAGE on the server is
 * checked) or, when "reading" says how, any other.  "reading" has to stay.
 * xact: in.  mcxt: current.  raises: yes
 */
extern IngestSourceRelation *ingest_source_relation_load(Oid relid, Oid owner,
														 const IngestPipelineOptions *reading);

/*
 * Of a relation, read only these columns, by attribute number (NULL: all), and
 * those it is read by.  Before the format starts.  mcxt: the relation's.  raises: yes
 */
extern void ingest_source_relation_choose(IngestSourceRelation *rel, Bitmapset *columns);

/* Advice on reading the source of a pipeline, as WARNING.  xact: in.  raises: yes */
extern void ingest_source_relation_advise(const IngestPipeline *pl);

/* Of our wrappers, or one that is read with SQL?  xact: in */
extern bool ingest_source_is_ours(Oid relid);

/*
 * Open the source in a context of its own under parent.  xact: any.
 * NULL: *err says why.
 */
extern IngestSource *ingest_source_open(const IngestSourceRelation *rel, MemoryContext parent,
										IngestError *err);

/* Has a shard at "position" come to an end that was found before?  Pure. */
extern bool ingest_source_reached(const IngestSourceOps *ops, const char *position, const char *end);

extern const IngestSourceOps *ingest_source_find(const char *name);
extern const IngestSourceOps *const ingest_sources[];	/* NULL-terminated */

/* Options of every source's foreign tables and columns: format, path, metadata. */
extern const IngestOptionDef ingest_source_options[];

/*
 * Where to start: 'earliest', 'latest' or a timestamp, which goes to *at.
 * raises: ERRCODE_INVALID_DATETIME_FORMAT and the like when it is none of them
 */
extern IngestStart ingest_start_parse(const char *text, TimestampTz *at);

#endif							/* INGEST_SOURCE_H */
