/*
 * seek.c
 *		ingest.seek(): an operator moves a pipeline's positions.
 *
 * What is skipped or read again is said first, and only done when confirmed;
 * what is skipped is noted in ingest.gap.  Workers lose their claim by it and
 * go on from the new positions.
 */
#include "postgres.h"

#include "api/arguments.h"
#include "catalog/gap.h"
#include "catalog/pg_type.h"
#include "catalog/position.h"
#include "core/error.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "source/source.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/worker.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_seek);

/* Shards that are spelled out in a message. */
#define MAX_SHOWN 10

typedef struct Move
{
	IngestShard *shard;
	char	   *from;			/* NULL: it had no position */
	char	   *to;				/* NULL: it is not moved */
	int64		skipped;		/* messages, -1: cannot be said */
	int64		repeated;
} Move;

typedef struct Seek
{
	IngestPipeline *pl;
	IngestSource *src;
	IngestShard *shards;
	int			nshards;
	Move	   *moves;			/* one for each shard */
} Seek;

/* ---- the source ---- */

static void
open_source(Seek *seek)
{
	IngestError err = {0};
	IngestSourceRelation *rel = ingest_source_relation_load(seek->pl->source, seek->pl->owner, &seek->pl->options);

	seek->src = ingest_source_open(rel, CurrentMemoryContext, &err);
	if (seek->src && rel->ops->use_sql)
		rel->ops->use_sql(seek->src);
	if (seek->src == NULL || !rel->ops->list_shards(seek->src, &seek->shards, &seek->nshards, &err))
		ingest_error_report(&err, ERROR);
	seek->moves = palloc0(sizeof(Move) * Max(seek->nshards, 1));
	for (int i = 0; i < seek->nshards; i++)
		seek->moves[i].shard = &seek->shards[i];
}

static void
find_positions_at(Seek *seek, const char *start_at)
{
	IngestError err = {0};
	TimestampTz at;
	IngestStart start = ingest_start_parse(start_at, &at);

	for (int i = 0; i < seek->nshards; i++)
		if (!seek->src->ops->find_position(seek->src, &seek->shards[i], start, at,
										   &seek->moves[i].to, &err))
			ingest_error_report(&err, ERROR);
}

static Move *
get_move(Seek *seek, const char *shard)
{
	for (int i = 0; i < seek->nshards; i++)
		if (strcmp(seek->shards[i].name, shard) == 0)
			return &seek->moves[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("source %s has no shard \"%s\"", seek->src->name, shard),
			 errhint("The view ingest.position lists the shards.")));
	return NULL;
}

/* {"0": 123, "1": "456"} */
static void
take_positions(Seek *seek, Jsonb *positions)
{
	ListCell   *lc;

	foreach(lc, ingest_option_from_jsonb(positions))
	{
		DefElem    *element = lfirst_node(DefElem, lc);
		Move	   *move = get_move(seek, element->defname);

		move->to = strVal(element->arg);
		if (!seek->src->ops->check_position(move->to))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid position for shard \"%s\": \"%s\"", element->defname, move->to)));
	}
}

/* ---- the catalog ---- */

/* The source was asked without a lock: it must still be the pipeline's. */
static void
lock_definition(Seek *seek, FunctionCallInfo fcinfo)
{
	Oid			asked = seek->pl->source;

	seek->pl = ingest_definition_lock(fcinfo, "pipeline");
	if (seek->pl->source != asked)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("pipeline \"%s\" got another source meanwhile", seek->pl->name)));
}

/* Where the shards stand; locked, so that what is said about the move is true. */
static void
lock_positions(Seek *seek)
{
	static IngestStatement lock = {
		"SELECT shard, position FROM ingest._position WHERE pipeline_id = $1"
		" ORDER BY shard FOR NO KEY UPDATE",
		1, {INT4OID}
	};
	MemoryContext mcxt = CurrentMemoryContext;
	Datum		id = Int32GetDatum(seek->pl->id);
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(&lock, &id, NULL);
	for (uint64 row = 0; row < nrows; row++)
	{
		char	   *shard = ingest_spi_text(row, "shard", CurrentMemoryContext);

		for (int i = 0; i < seek->nshards; i++)
			if (strcmp(seek->shards[i].name, shard) == 0)
				seek->moves[i].from = ingest_spi_text(row, "position", mcxt);
	}
	ingest_spi_end();
}

static void
measure_move(const Seek *seek, Move *move)
{
	int64		ahead;
	int64		back;

	if (move->from == NULL || move->to == NULL || strcmp(move->from, move->to) == 0)
		return;
	ahead = seek->src->ops->distance(move->from, move->to);
	back = seek->src->ops->distance(move->to, move->from);
	if (ahead < 0 && back < 0)
		move->skipped = move->repeated = -1;
	else
	{
		move->skipped = Max(ahead, 0);
		move->repeated = Max(back, 0);
	}
}

static bool
is_harmless(const Move *move)
{
	return move->skipped == 0 && move->repeated == 0;
}

static void
describe_move(StringInfo detail, const Move *move)
{
	appendStringInfo(detail, "%sShard \"%s\" goes from %s to %s: ", detail->len > 0 ? " " : "",
					 move->shard->name, move->from, move->to);
	if (move->skipped < 0)
		appendStringInfoString(detail, "how many messages lie between cannot be said.");
	else if (move->skipped > 0)
		appendStringInfo(detail, INT64_FORMAT " messages are skipped.", move->skipped);
	else
		appendStringInfo(detail, INT64_FORMAT " messages are read and written again.", move->repeated);
}

static void
raise_unconfirmed(const Seek *seek)
{
	StringInfoData detail;
	int64		skipped = 0;
	int64		repeated = 0;
	int			shown = 0;

	initStringInfo(&detail);
	for (int i = 0; i < seek->nshards; i++)
	{
		const Move *move = &seek->moves[i];

		if (is_harmless(move))
			continue;
		skipped += Max(move->skipped, 0);
		repeated += Max(move->repeated, 0);
		if (shown++ < MAX_SHOWN)
			describe_move(&detail, move);
	}
	if (shown == 0)
		return;
	if (shown > MAX_SHOWN)
		appendStringInfo(&detail, " So do %d more shards.", shown - MAX_SHOWN);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("seek of pipeline \"%s\" would skip " INT64_FORMAT " and repeat " INT64_FORMAT " messages",
					seek->pl->name, skipped, repeated),
			 errdetail_internal("%s", detail.data),
			 errhint("Say confirm => true when that is what you want.")));
}

static void
store_move(int32 pipeline_id, const Move *move)
{
	static IngestStatement store = {
		"INSERT INTO ingest._position AS p (pipeline_id, shard, position) VALUES ($1, $2, $3)"
		" ON CONFLICT (pipeline_id, shard) DO UPDATE SET position = excluded.position, proof = NULL,"
		" epoch = p.epoch + 1, source_end = NULL, lag = NULL, moved_at = now()",
		3, {INT4OID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {
		Int32GetDatum(pipeline_id),
		CStringGetTextDatum(move->shard->name),
		CStringGetTextDatum(move->to)
	};

	ingest_spi_begin();
	ingest_spi_run(&store, values, NULL);
	ingest_spi_end();
	if (move->skipped != 0)
		ingest_gap_add(pipeline_id, move->shard->name, move->from, move->to, move->skipped,
					   "seek", GetUserNameFromId(GetUserId(), false));
}

/*
 * A pipeline that has never run has its start resolved when all shards have a
 * position now; otherwise the others still begin at start_at.
 */
static void
store_moves(const Seek *seek)
{
	bool		all = true;

	for (int i = 0; i < seek->nshards; i++)
	{
		const Move *move = &seek->moves[i];

		if (move->to && (move->from == NULL || strcmp(move->from, move->to) != 0))
			store_move(seek->pl->id, move);
		all &= move->to || move->from;
	}
	if (all)
		(void) ingest_position_first(seek->pl->id);
}

static void
return_moves(FunctionCallInfo fcinfo, const Seek *seek)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	for (int i = 0; i < seek->nshards; i++)
	{
		const Move *move = &seek->moves[i];
		Datum		values[5];
		bool		nulls[5] = {false, move->from == NULL, false, move->skipped < 0, move->repeated < 0};

		if (move->to == NULL)
			continue;
		values[0] = CStringGetTextDatum(move->shard->name);
		if (move->from)
			values[1] = CStringGetTextDatum(move->from);
		values[2] = CStringGetTextDatum(move->to);
		values[3] = Int64GetDatum(move->skipped);
		values[4] = Int64GetDatum(move->repeated);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/* seek(pipeline text, start_at text, positions jsonb, confirm boolean) */
Datum
ingest_sql_seek(PG_FUNCTION_ARGS)
{
	Seek		seek = {.pl = ingest_argument_pipeline(fcinfo, "pipeline")};
	char	   *start_at = ingest_argument_text_or_null(fcinfo, 1);

	if ((start_at == NULL) == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either \"%s\" or \"%s\" must be given", "start_at", "positions"),
				 errhint("start_at is 'earliest', 'latest' or a timestamp; positions is an object such as {\"0\": 123}.")));
	InitMaterializedSRF(fcinfo, 0);

	/* The source is asked before anything is locked. */
	open_source(&seek);
	if (start_at)
		find_positions_at(&seek, start_at);
	else
		take_positions(&seek, PG_GETARG_JSONB_P(2));

	lock_definition(&seek, fcinfo);
	lock_positions(&seek);
	for (int i = 0; i < seek.nshards; i++)
		measure_move(&seek, &seek.moves[i]);
	if (PG_ARGISNULL(3) || !PG_GETARG_BOOL(3))
		raise_unconfirmed(&seek);
	store_moves(&seek);

	return_moves(fcinfo, &seek);
	ingest_source_close(seek.src);
	return (Datum) 0;
}
