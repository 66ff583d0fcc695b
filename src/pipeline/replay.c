/*
 * replay.c
 *		Dead letters once more through today's definition.
 *
 * They are made into messages again and go through the same attempt as in a
 * turn.  Positions are not touched; which letters, and who may, is decided in
 * src/api.
 */
#include "postgres.h"

#include "catalog/batch_history.h"
#include "catalog/dead_letter.h"
#include "catalog/pg_type.h"
#include "core/spi.h"
#include "miscadmin.h"
#include "pipeline/attempt.h"
#include "pipeline/transform.h"
#include "pipeline/usersql.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Letters that are held in memory together. */
#define CHUNK_LETTERS 2000

typedef struct Replay
{
	MemoryContext mcxt;			/* of a chunk */
	IngestPrepared *prepared;
	IngestSource *source;		/* not opened: only to ask for metadata */
	IngestBatch *batch;
	IngestReplayed *letters;	/* by message */
	IngestCounts counts;		/* of all chunks */
} Replay;

/* ---- letters to messages ---- */

static int32
find_or_add_shard(IngestBatch *batch, const char *name)
{
	IngestShard *shard;

	for (int i = 0; i < batch->nshards; i++)
		if (strcmp(batch->shards[i].name, name) == 0)
			return i;

	/* no more than there are letters */
	shard = &batch->shards[batch->nshards];
	shard->name = MemoryContextStrdup(batch->mcxt, name);
	shard->number = atoi(name);
	shard->lag = -1;
	return batch->nshards++;
}

static const char *
copy_bytes(uint64 row, const char *column, int32 *len, MemoryContext mcxt)
{
	bool		isnull;
	Datum		value = ingest_spi_value(row, column, &isnull);
	bytea	   *bytes;
	char	   *copy;

	*len = 0;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPP(value);
	*len = VARSIZE_ANY_EXHDR(bytes);
	copy = MemoryContextAllocHuge(mcxt, (Size) *len + 1);
	memcpy(copy, VARDATA_ANY(bytes), *len);
	copy[*len] = '\0';
	return copy;
}

static void
make_message(Replay *replay, uint64 row)
{
	IngestBatch *batch = replay->batch;
	IngestReplayed *letter = &replay->letters[batch->nmessages];
	IngestMessage *msg = ingest_batch_append(batch);
	bool		isnull;
	Datum		at;

	letter->id = ingest_spi_int64(row, "id", 0);
	letter->row_number = (int32) ingest_spi_int64(row, "row_number", 0);
	msg->shard = find_or_add_shard(batch, ingest_spi_text(row, "shard", batch->mcxt));
	msg->offset = ingest_spi_int64(row, "offset", 0);
	msg->payload = copy_bytes(row, "payload", &msg->payload_len, batch->mcxt);
	msg->key = copy_bytes(row, "key", &msg->key_len, batch->mcxt);
	msg->headers = ingest_spi_text(row, "headers", batch->mcxt);
	at = ingest_spi_value(row, "message_at", &isnull);
	msg->has_timestamp = !isnull;
	msg->timestamp = isnull ? 0 : DatumGetTimestampTz(at);
	batch->bytes += (int64) msg->payload_len + msg->key_len;
}

/* Lock those that are still pending: somebody else may replay or discard them. */
static IngestStatement lock_letters = {
	"SELECT id, shard, \"offset\", row_number, payload, key, headers::text AS headers, message_at "
	"FROM ingest._dead_letter "
	"WHERE pipeline_id = $1 AND id = ANY ($2) AND outcome = 'pending' "
	"ORDER BY id FOR UPDATE SKIP LOCKED",
	2, {INT4OID, INT8ARRAYOID}
};

static Datum
id_array(const int64 *ids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
take_letters(Replay *replay, const int64 *ids, int n)
{
	Datum		values[2] = {Int32GetDatum(replay->prepared->pl->id)};
	uint64		nrows;

	replay->letters = palloc0(sizeof(IngestReplayed) * n);
	replay->batch->shards = palloc0(sizeof(IngestShard) * n);
	values[1] = id_array(ids, n);
	ingest_spi_begin();
	nrows = ingest_spi_run(&lock_letters, values, NULL);
	for (uint64 i = 0; i < nrows; i++)
		make_message(replay, i);
	ingest_spi_end();
}

/* ---- outcomes ---- */

static IngestStatement set_outcomes = {
	"UPDATE ingest._dead_letter d SET outcome = o.outcome, resolved_at = pg_catalog.now() "
	"FROM unnest($1, $2) AS o (id, outcome) WHERE d.id = o.id",
	2, {INT8ARRAYOID, TEXTARRAYOID}
};

/* One rejected row of a letter makes it rejected, one written makes it replayed. */
static const char *
outcome_of(bool rejected, bool written)
{
	return rejected ? "rejected again" : written ? "replayed" : "dropped";
}

static void
store_outcomes(Replay *replay, const IngestAttempt *att)
{
	int			n = att->settled - att->first;
	bool	   *rejected = palloc0(sizeof(bool) * n);
	bool	   *written = palloc0(sizeof(bool) * n);
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum	   *outcomes = palloc(sizeof(Datum) * n);
	Datum		values[2];

	for (int i = 0; i < att->nnotes; i++)
	{
		const IngestNote *note = &att->notes[i];
		int			m = note->place.message - att->first;

		if (strcmp(note->verdict.verdict, "rejected") == 0)
			rejected[m] = true;
		else if (strcmp(note->verdict.verdict, "accepted") == 0 ||
				 strcmp(note->verdict.verdict, "warned") == 0)
			written[m] = true;
	}
	for (int m = 0; m < n; m++)
	{
		ids[m] = Int64GetDatum(replay->letters[att->first + m].id);
		outcomes[m] = CStringGetTextDatum(outcome_of(rejected[m], written[m]));
	}
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(construct_array(outcomes, n, TEXTOID, -1, false, TYPALIGN_INT));
	ingest_spi_begin();
	ingest_spi_run(&set_outcomes, values, NULL);
	ingest_spi_end();
}

/* ---- one chunk ---- */

static void
record_replay(Replay *replay, const IngestAttempt *att, int64 batch_id, TimestampTz started_at)
{
	IngestBatchRecord record = {
		.pipeline_id = replay->prepared->pl->id,
		.version = replay->prepared->pl->version,
		.kind = "replay",
		.worker = -1,
		.lane = att->lane->name,
		.counts = att->counts,
		.shards = "{}",
		.cause = INGEST_CAUSE_REPLAY,
		.started_at = started_at
	};

	ingest_batch_record(batch_id, &record);
}

/* As a turn, but for the positions.  Returns where the next attempt begins. */
static int
attempt_letters(Replay *replay, int first)
{
	const IngestPipeline *pl = replay->prepared->pl;
	TimestampTz started_at = GetCurrentTimestamp();
	int64		batch_id = ingest_batch_next_id();
	int			level = ingest_usersql_begin(pl);
	IngestAttempt att = {
		.mcxt = replay->mcxt,
		.prepared = replay->prepared,
		.lane = ingest_load_choose(pl, NULL),
		.source = replay->source,
		.batch = replay->batch,
		.first = first,
		.replayed = replay->letters,
		.take_notes = true
	};

	ingest_attempt_run(&att);
	ingest_dead_letter_write(att.letters, pl->id, pl->version, batch_id);
	if (att.counts.written > 0)
		ingest_transforms_run(pl, att.accepted, replay->prepared->rowtype);
	ingest_attempt_end(&att);
	ingest_usersql_end(level);

	store_outcomes(replay, &att);
	record_replay(replay, &att, batch_id, started_at);
	ingest_rules_store_counts(replay->prepared->rules, pl->id);
	ingest_counts_add(&replay->counts, &att.counts);
	return att.settled;
}

static void
replay_chunk(Replay *replay, const int64 *ids, int n)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(replay->mcxt);
	IngestBatchLimits limits = {n, PG_INT64_MAX};
	int			done = 0;

	replay->batch = ingest_batch_create(replay->mcxt, limits);
	take_letters(replay, ids, n);
	while (done < replay->batch->nmessages)
	{
		CHECK_FOR_INTERRUPTS();
		done = attempt_letters(replay, done);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(replay->mcxt);
}

/* What get_metadata() needs to know about the source, see source.h. */
static IngestSource *
make_unopened_source(const IngestSourceRelation *rel)
{
	IngestSource *source = palloc0(rel->ops->instance_size);

	source->ops = rel->ops;
	source->mcxt = CurrentMemoryContext;
	source->options = rel->options;
	source->name = rel->name;
	return source;
}

IngestCounts
ingest_replay(int32 pipeline_id, const int64 *ids, int nids)
{
	Replay		replay = {0};

	replay.prepared = ingest_prepared_make(pipeline_id, CurrentMemoryContext);
	ingest_pipeline_check_trust(replay.prepared->pl);
	replay.source = make_unopened_source(replay.prepared->rel);
	replay.mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest replay", ALLOCSET_DEFAULT_SIZES);

	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < nids; i += CHUNK_LETTERS)
		replay_chunk(&replay, ids + i, Min(CHUNK_LETTERS, nids - i));
	PopActiveSnapshot();

	MemoryContextDelete(replay.mcxt);
	ingest_prepared_free(replay.prepared);
	return replay.counts;
}
