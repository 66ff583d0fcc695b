/*
 * position.c
 *		ingest._position: claiming shards and moving their positions.
 *
 * What a position means is the source's business; here it is text that is
 * compared for equality.  Moving it for an operator is in api/seek.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/position.h"
#include "core/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

static Datum
shard_names(const IngestShard *shards, int nshards)
{
	Datum	   *names = palloc(sizeof(Datum) * Max(nshards, 1));

	for (int i = 0; i < nshards; i++)
		names[i] = CStringGetTextDatum(shards[i].name);
	return PointerGetDatum(construct_array(names, nshards, TEXTOID, -1, false, TYPALIGN_INT));
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(IngestShard *const *) a)->name, (*(IngestShard *const *) b)->name);
}

/* By name: a bucket may have very many. */
static IngestShard **
sort_shards(IngestShard *shards, int nshards)
{
	IngestShard **sorted = palloc_extended(sizeof(IngestShard *) * Max(nshards, 1), MCXT_ALLOC_HUGE);

	for (int i = 0; i < nshards; i++)
		sorted[i] = &shards[i];
	qsort(sorted, nshards, sizeof(IngestShard *), compare_names);
	return sorted;
}

static IngestShard *
find_shard(IngestShard **sorted, int nshards, char *name)
{
	IngestShard key = {.name = name};
	IngestShard *wanted = &key;
	IngestShard **found = bsearch(&wanted, sorted, nshards, sizeof(IngestShard *), compare_names);

	return found ? *found : NULL;
}

void
ingest_position_claim(int32 pipeline_id, IngestShard *shards, int nshards, MemoryContext mcxt)
{
	/*
	 * The pipeline's row is locked before the positions, and the positions in
	 * order: neither two claims nor a claim and ingest.drop_pipeline(), which
	 * takes them the same way, ever wait for each other.
	 */
	static IngestStatement claim = {
		"WITH pipeline AS MATERIALIZED ("
		"  SELECT id FROM ingest._pipeline WHERE id = $1 FOR KEY SHARE),"
		" held AS MATERIALIZED ("
		"  SELECT pipeline_id, shard FROM ingest._position"
		"   WHERE pipeline_id = (SELECT id FROM pipeline) AND shard = ANY ($2)"
		"   ORDER BY shard FOR NO KEY UPDATE)"
		"UPDATE ingest._position p SET epoch = epoch + 1 FROM held h"
		" WHERE p.pipeline_id = h.pipeline_id AND p.shard = h.shard"
		" RETURNING p.shard, p.position, p.proof, p.epoch, p.lag",
		2, {INT4OID, TEXTARRAYOID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id)};
	IngestShard **sorted = sort_shards(shards, nshards);
	uint64		nrows;

	ingest_spi_begin();
	values[1] = shard_names(shards, nshards);
	nrows = ingest_spi_run(&claim, values, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		char	   *name = ingest_spi_text(i, "shard", CurrentMemoryContext);
		IngestShard *shard = find_shard(sorted, nshards, name);

		shard->position = ingest_spi_text(i, "position", mcxt);
		shard->proof = ingest_spi_text(i, "proof", mcxt);
		shard->epoch = ingest_spi_int64(i, "epoch", 0);
		shard->stored_lag = ingest_spi_int64(i, "lag", -1);
		pfree(name);
	}
	ingest_spi_end();
}

void
ingest_position_read(int32 pipeline_id, IngestShard *shards, int nshards, MemoryContext mcxt)
{
	static IngestStatement look = {
		"SELECT shard, position, proof FROM ingest._position WHERE pipeline_id = $1",
		1, {INT4OID}
	};
	Datum		values[1] = {Int32GetDatum(pipeline_id)};
	IngestShard **sorted = sort_shards(shards, nshards);
	uint64		nrows;

	ingest_spi_begin();
	nrows = ingest_spi_run(&look, values, NULL);
	for (uint64 i = 0; i < nrows; i++)
	{
		char	   *name = ingest_spi_text(i, "shard", CurrentMemoryContext);
		IngestShard *shard = find_shard(sorted, nshards, name);

		if (shard)
		{
			shard->position = ingest_spi_text(i, "position", mcxt);
			shard->proof = ingest_spi_text(i, "proof", mcxt);
		}
		pfree(name);
	}
	ingest_spi_end();
}

void
ingest_position_add(int32 pipeline_id, const char *shard, const char *position)
{
	static IngestStatement add = {
		"INSERT INTO ingest._position (pipeline_id, shard, position) VALUES ($1, $2, $3)"
		" ON CONFLICT (pipeline_id, shard) DO NOTHING",
		3, {INT4OID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {Int32GetDatum(pipeline_id)};

	ingest_spi_begin();
	values[1] = CStringGetTextDatum(shard);
	values[2] = CStringGetTextDatum(position);
	ingest_spi_run(&add, values, NULL);
	ingest_spi_end();
}

bool
ingest_position_first(int32 pipeline_id)
{
	static IngestStatement first = {
		"UPDATE ingest._pipeline SET positioned = true WHERE id = $1 AND NOT positioned",
		1, {INT4OID}
	};
	Datum		values[1] = {Int32GetDatum(pipeline_id)};
	bool		ours;

	ingest_spi_begin();
	ours = ingest_spi_run(&first, values, NULL) == 1;
	ingest_spi_end();
	return ours;
}

void
ingest_position_move(int32 pipeline_id, const IngestShard *shard, const char *from)
{
	/* The pipeline's row first, as in ingest_position_claim(). */
	static IngestStatement move = {
		"WITH pipeline AS MATERIALIZED ("
		"  SELECT id FROM ingest._pipeline WHERE id = $1 FOR KEY SHARE)"
		"UPDATE ingest._position SET position = $4, proof = $5, source_end = $6, lag = $7,"
		" moved_at = CASE WHEN position = $4 THEN moved_at ELSE clock_timestamp() END"
		" WHERE pipeline_id = (SELECT id FROM pipeline) AND shard = $2 AND epoch = $3 AND position = $8",
		8, {INT4OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID}
	};
	Datum		values[8];
	bool		nulls[8] = {false};
	bool		moved;

	ingest_spi_begin();
	values[0] = Int32GetDatum(pipeline_id);
	values[1] = CStringGetTextDatum(shard->name);
	values[2] = Int64GetDatum(shard->epoch);
	values[3] = CStringGetTextDatum(shard->position);
	nulls[4] = shard->proof == NULL;
	values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(shard->proof);
	nulls[5] = shard->end == NULL;
	values[5] = nulls[5] ? (Datum) 0 : CStringGetTextDatum(shard->end);
	nulls[6] = shard->lag < 0;
	values[6] = Int64GetDatum(shard->lag);
	values[7] = CStringGetTextDatum(from);
	moved = ingest_spi_run(&move, values, nulls) == 1;
	ingest_spi_end();

	if (!moved)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("position of shard \"%s\" was moved or claimed by somebody else",
						shard->name),
				 errdetail("It is no longer at %s under epoch " INT64_FORMAT ".",
						   from, shard->epoch)));
}
