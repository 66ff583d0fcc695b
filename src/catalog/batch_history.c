/*
 * batch_history.c
 *		ingest._batch: one row for each committed batch, and what the error
 *		budget reads from it.
 *
 * Records of turns that are trimmed are added up in ingest._total, so that the sums of
 * ingest.pipeline_status stay right.
 */
#include "postgres.h"

#include "catalog/batch_history.h"
#include "catalog/pg_type.h"
#include "core/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static const char *const cause_names[] = {"stream", "schedule", "after", "manual", "replay", "backfill"};
static const char *const outcome_names[] = {"done", "failed", "timeout", "cancelled"};

/* Records read at a time when looking back. */
#define LOOK_BACK 100

void
ingest_counts_add(IngestCounts *to, const IngestCounts *from)
{
	to->messages += from->messages;
	to->bytes += from->bytes;
	to->read += from->read;
	to->written += from->written;
	to->rejected += from->rejected;
	to->dropped += from->dropped;
	to->merged += from->merged;
	to->skipped += from->skipped;
	to->warned += from->warned;
}

int64
ingest_batch_next_id(void)
{
	static IngestStatement next = {
		"SELECT nextval('ingest._batch_id_seq') AS id", 0, {0}
	};
	int64		id;

	ingest_spi_begin();
	ingest_spi_run(&next, NULL, NULL);
	id = ingest_spi_int64(0, "id", 0);
	ingest_spi_end();
	return id;
}

static void
check_counts(const IngestCounts *c)
{
	if (c->read != c->written + c->rejected + c->dropped + c->merged + c->skipped)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("the batch does not add up"),
				 errdetail("Read " INT64_FORMAT ", written " INT64_FORMAT ", rejected " INT64_FORMAT
						   ", dropped " INT64_FORMAT ", merged " INT64_FORMAT ", skipped " INT64_FORMAT ".",
						   c->read, c->written, c->rejected, c->dropped, c->merged, c->skipped)));
}

void
ingest_batch_record(int64 id, const IngestBatchRecord *record)
{
	static IngestStatement insert = {
		"INSERT INTO ingest._batch (id, pipeline_id, version, kind, worker, lane, messages, bytes,"
		" read, written, rejected, dropped, merged, skipped, warned, shards, cause, run, started_at,"
		" finished_at)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16::jsonb, $17, $18, $19,"
		" clock_timestamp())",
		19, {INT8OID, INT4OID, INT8OID, TEXTOID, INT4OID, TEXTOID, INT8OID, INT8OID,
			INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID,
			TIMESTAMPTZOID, TIMESTAMPTZOID}
	};
	const IngestCounts *c = &record->counts;
	Datum		values[19];
	bool		nulls[19] = {false};

	check_counts(c);

	ingest_spi_begin();
	values[0] = Int64GetDatum(id);
	values[1] = Int32GetDatum(record->pipeline_id);
	values[2] = Int64GetDatum(record->version);
	values[3] = CStringGetTextDatum(record->kind);
	values[4] = Int32GetDatum(record->worker);
	nulls[4] = record->worker < 0;
	values[5] = CStringGetTextDatum(record->lane);
	values[6] = Int64GetDatum(c->messages);
	values[7] = Int64GetDatum(c->bytes);
	values[8] = Int64GetDatum(c->read);
	values[9] = Int64GetDatum(c->written);
	values[10] = Int64GetDatum(c->rejected);
	values[11] = Int64GetDatum(c->dropped);
	values[12] = Int64GetDatum(c->merged);
	values[13] = Int64GetDatum(c->skipped);
	values[14] = Int64GetDatum(c->warned);
	values[15] = CStringGetTextDatum(record->shards ? record->shards : "{}");
	values[16] = CStringGetTextDatum(cause_names[record->cause]);
	values[17] = TimestampTzGetDatum(record->run);
	nulls[17] = record->run == 0;
	values[18] = TimestampTzGetDatum(record->started_at);
	ingest_spi_run(&insert, values, nulls);
	ingest_spi_end();
}

void
ingest_batch_record_run(int32 pipeline_id, TimestampTz run, IngestCause cause, IngestOutcome outcome,
						const IngestError *err)
{
	static IngestStatement insert = {
		"INSERT INTO ingest._batch (pipeline_id, version, kind, messages, bytes, read, written, rejected,"
		" dropped, merged, skipped, warned, shards, cause, run, outcome, sqlstate, message, started_at, finished_at)"
		" SELECT id, version, 'run', 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}', $2, $3, $4, $5, $6,"
		" coalesce($3, clock_timestamp()), clock_timestamp()"
		" FROM (SELECT id, version, enabled FROM ingest._pipeline WHERE id = $1 FOR KEY SHARE SKIP LOCKED) p"
		" WHERE $4 <> 'cancelled' OR NOT enabled",
		6, {INT4OID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[6] = {Int32GetDatum(pipeline_id)};
	bool		nulls[6] = {false, false, run == 0, false, err == NULL, err == NULL || err->message == NULL};

	ingest_spi_begin();
	values[1] = CStringGetTextDatum(cause_names[cause]);
	values[2] = TimestampTzGetDatum(run);
	values[3] = CStringGetTextDatum(outcome_names[outcome]);
	if (err)
		values[4] = CStringGetTextDatum(unpack_sql_state(err->sqlstate));
	if (err && err->message)
		values[5] = CStringGetTextDatum(err->message);
	ingest_spi_run(&insert, values, nulls);
	ingest_spi_end();
}

void
ingest_batch_error_rate(int32 pipeline_id, int64 window, int64 *read, int64 *rejected)
{
	static IngestStatement back = {
		"SELECT b.id, b.read, b.rejected FROM ingest._batch b"
		" WHERE b.pipeline_id = $1 AND b.id < $2 AND b.kind = 'turn' AND b.started_at >="
		" coalesce((SELECT s.budget_since FROM ingest._state s WHERE s.pipeline_id = $1), '-infinity')"
		" ORDER BY b.id DESC LIMIT $3",
		3, {INT4OID, INT8OID, INT8OID}
	};
	int64		before = PG_INT64_MAX;
	uint64		nrows;

	*read = *rejected = 0;
	ingest_spi_begin();
	do
	{
		Datum		values[3] = {Int32GetDatum(pipeline_id), Int64GetDatum(before), Int64GetDatum(LOOK_BACK)};

		nrows = ingest_spi_run(&back, values, NULL);
		for (uint64 i = 0; i < nrows && *read < window; i++)
		{
			*read += ingest_spi_int64(i, "read", 0);
			*rejected += ingest_spi_int64(i, "rejected", 0);
			before = ingest_spi_int64(i, "id", 0);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (nrows == LOOK_BACK && *read < window);
	ingest_spi_end();
}

int64
ingest_batch_error_count(int32 pipeline_id)
{
	static IngestStatement count = {
		"SELECT count(*) AS n FROM ingest._dead_letter d"
		" WHERE d.pipeline_id = $1 AND d.replay_of IS NULL AND d.rejected_at >="
		" coalesce((SELECT s.budget_since FROM ingest._state s WHERE s.pipeline_id = $1), '-infinity')",
		1, {INT4OID}
	};
	Datum		values[1] = {Int32GetDatum(pipeline_id)};
	int64		n;

	ingest_spi_begin();
	ingest_spi_run(&count, values, NULL);
	n = ingest_spi_int64(0, "n", 0);
	ingest_spi_end();
	return n;
}

int64
ingest_batch_trim(int32 pipeline_id, int64 keep)
{
	static IngestStatement trim = {
		"WITH old AS ("
		"  DELETE FROM ingest._batch WHERE pipeline_id = $1 AND id <= ("
		"    SELECT id FROM ingest._batch WHERE pipeline_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)"
		"  RETURNING *),"
		" total AS ("
		"  INSERT INTO ingest._total AS t (pipeline_id, batches, messages, bytes, read, written,"
		"    rejected, dropped, merged, skipped, warned)"
		"  SELECT $1, count(*), sum(messages), sum(bytes), sum(read), sum(written),"
		"    sum(rejected), sum(dropped), sum(merged), sum(skipped), sum(warned)"
		"  FROM old WHERE kind = 'turn' HAVING count(*) > 0"
		"  ON CONFLICT (pipeline_id) DO UPDATE SET batches = t.batches + excluded.batches,"
		"    messages = t.messages + excluded.messages, bytes = t.bytes + excluded.bytes,"
		"    read = t.read + excluded.read, written = t.written + excluded.written,"
		"    rejected = t.rejected + excluded.rejected, dropped = t.dropped + excluded.dropped,"
		"    merged = t.merged + excluded.merged, skipped = t.skipped + excluded.skipped,"
		"    warned = t.warned + excluded.warned)"
		"SELECT count(*) AS n FROM old",
		2, {INT4OID, INT8OID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), Int64GetDatum(keep)};
	int64		n;

	ingest_spi_begin();
	ingest_spi_run(&trim, values, NULL);
	n = ingest_spi_int64(0, "n", 0);
	ingest_spi_end();
	return n;
}
