/*
 * gap.c
 *		ingest._gap: ranges of a source that were skipped unread.
 */
#include "postgres.h"

#include "catalog/gap.h"
#include "catalog/pg_type.h"
#include "core/spi.h"
#include "utils/builtins.h"

static IngestStatement add_gap = {
	"INSERT INTO ingest._gap (pipeline_id, shard, from_position, to_position, messages, reason, skipped_by) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7)",
	7, {INT4OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}
};

void
ingest_gap_add(int32 pipeline_id, const char *shard, const char *from, const char *to,
			   int64 messages, const char *reason, const char *by)
{
	Datum		values[7] = {
		Int32GetDatum(pipeline_id), CStringGetTextDatum(shard), CStringGetTextDatum(from),
		CStringGetTextDatum(to), Int64GetDatum(messages), CStringGetTextDatum(reason),
		CStringGetTextDatum(by)
	};
	bool		nulls[7] = {false, false, false, false, messages < 0, false, false};

	ingest_spi_begin();
	ingest_spi_run(&add_gap, values, nulls);
	ingest_spi_end();
}
