/*
 * dead_letter.c
 *		ingest._dead_letter: collecting and writing what was rejected.
 *
 * Replaying is in pipeline/, discarding in api/.
 */
#include "postgres.h"

#include "catalog/dead_letter.h"
#include "catalog/pg_type.h"
#include "core/error.h"
#include "core/spi.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_TEXT 2000			/* bytes of message and detail */

/* One statement writes at most this much: an array is at most 1 GB. */
#define WRITE_BYTES (64 * 1024 * 1024)
#define WRITE_LETTERS 10000

struct IngestDeadLetterList
{
	MemoryContext mcxt;
	IngestDeadLetter **letters;
	int			nletters;
	int			max_letters;
};

/* The arrays of a write, one for each column. */
enum
{
	COL_SHARD, COL_OFFSET, COL_ROW_NUMBER, COL_PAYLOAD, COL_KEY, COL_HEADERS, COL_MESSAGE_AT,
	COL_STAGE, COL_RULE, COL_SQLSTATE, COL_MESSAGE, COL_DETAIL, COL_COLUMN, COL_REPLAY_OF,
	NCOLS
};

static const Oid column_types[NCOLS] = {
	TEXTOID, INT8OID, INT4OID, BYTEAOID, BYTEAOID, TEXTOID, TIMESTAMPTZOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID
};

const char *
ingest_stage_name(IngestStage stage)
{
	switch (stage)
	{
		case INGEST_STAGE_DECODE:
			return "decode";
		case INGEST_STAGE_RULE:
			return "rule";
		case INGEST_STAGE_LOAD:
			return "load";
		case INGEST_STAGE_TRANSFORM:
			return "transform";
	}
	return "unknown";
}

IngestDeadLetterList *
ingest_dead_letter_list(MemoryContext parent)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "ingest dead letters", ALLOCSET_DEFAULT_SIZES);
	IngestDeadLetterList *list = MemoryContextAllocZero(mcxt, sizeof(*list));

	list->mcxt = mcxt;
	return list;
}

/* Copy len bytes to *end and move it on; NULL stays NULL. */
static const char *
pack_bytes(char **end, const char *bytes, Size len)
{
	char	   *copy = *end;

	if (bytes == NULL)
		return NULL;
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	*end += len + 1;
	return copy;
}

static const char *
pack_text(char **end, const char *text)
{
	return text ? pack_bytes(end, text, strlen(text)) : NULL;
}

#define TEXT_SIZE(text) ((text) ? strlen(text) + 1 : 0)

/*
 * A letter is one piece of memory, so that taking it back frees all of it: a
 * batch that is bisected appends the same letters more than once.
 */
static IngestDeadLetter *
copy_letter(const IngestDeadLetter *letter, MemoryContext mcxt)
{
	char	   *message = ingest_error_clean(letter->message, strlen(letter->message), MAX_TEXT);
	char	   *detail = letter->detail ?
		ingest_error_clean(letter->detail, strlen(letter->detail), MAX_TEXT) : NULL;
	Size		size = sizeof(*letter) + letter->payload_len + 1 + letter->key_len + 1 +
		TEXT_SIZE(letter->shard) + TEXT_SIZE(letter->headers) + TEXT_SIZE(letter->rule) +
		TEXT_SIZE(message) + TEXT_SIZE(detail) + TEXT_SIZE(letter->column);
	IngestDeadLetter *copy = MemoryContextAllocHuge(mcxt, size);
	char	   *end = (char *) (copy + 1);

	*copy = *letter;
	copy->shard = pack_text(&end, letter->shard);
	copy->payload = pack_bytes(&end, letter->payload, letter->payload_len);
	copy->key = pack_bytes(&end, letter->key, letter->key_len);
	copy->headers = unconstify(char *, pack_text(&end, letter->headers));
	copy->rule = pack_text(&end, letter->rule);
	copy->message = pack_text(&end, message);
	copy->detail = pack_text(&end, detail);
	copy->column = pack_text(&end, letter->column);
	Assert(end <= (char *) copy + size);

	pfree(message);
	if (detail)
		pfree(detail);
	return copy;
}

void
ingest_dead_letter_append(IngestDeadLetterList *list, const IngestDeadLetter *letter)
{
	if (list->nletters == list->max_letters)
	{
		int			more = list->max_letters ? list->max_letters * 2 : 64;
		Size		size = sizeof(list->letters[0]) * more;

		list->letters = list->letters ? repalloc_huge(list->letters, size) :
			MemoryContextAllocHuge(list->mcxt, size);
		list->max_letters = more;
	}
	list->letters[list->nletters] = copy_letter(letter, list->mcxt);
	list->nletters++;
}

int
ingest_dead_letter_count(const IngestDeadLetterList *list)
{
	return list->nletters;
}

void
ingest_dead_letter_truncate(IngestDeadLetterList *list, int mark)
{
	while (list->nletters > mark)
		pfree(list->letters[--list->nletters]);
}

static Datum
bytea_datum(const char *bytes, Size len)
{
	bytea	   *datum = palloc(VARHDRSZ + len);

	SET_VARSIZE(datum, VARHDRSZ + len);
	memcpy(VARDATA(datum), bytes, len);
	return PointerGetDatum(datum);
}

static void
set_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text == NULL;
	if (text)
		*value = CStringGetTextDatum(text);
}

/* Put a letter into place "i" of the columns. */
static void
set_columns(const IngestDeadLetter *letter, Datum **values, bool **nulls, int i)
{
	set_text(&values[COL_SHARD][i], &nulls[COL_SHARD][i], letter->shard);
	values[COL_OFFSET][i] = Int64GetDatum(letter->offset);
	values[COL_ROW_NUMBER][i] = Int32GetDatum(letter->row_number);
	nulls[COL_PAYLOAD][i] = letter->payload == NULL;
	if (letter->payload)
		values[COL_PAYLOAD][i] = bytea_datum(letter->payload, letter->payload_len);
	nulls[COL_KEY][i] = letter->key == NULL;
	if (letter->key)
		values[COL_KEY][i] = bytea_datum(letter->key, letter->key_len);
	set_text(&values[COL_HEADERS][i], &nulls[COL_HEADERS][i], letter->headers);
	nulls[COL_MESSAGE_AT][i] = !letter->has_timestamp;
	values[COL_MESSAGE_AT][i] = TimestampTzGetDatum(letter->timestamp);
	set_text(&values[COL_STAGE][i], &nulls[COL_STAGE][i], ingest_stage_name(letter->stage));
	set_text(&values[COL_RULE][i], &nulls[COL_RULE][i], letter->rule);
	set_text(&values[COL_SQLSTATE][i], &nulls[COL_SQLSTATE][i],
			 letter->sqlstate ? unpack_sql_state(letter->sqlstate) : NULL);
	set_text(&values[COL_MESSAGE][i], &nulls[COL_MESSAGE][i], letter->message);
	set_text(&values[COL_DETAIL][i], &nulls[COL_DETAIL][i], letter->detail);
	set_text(&values[COL_COLUMN][i], &nulls[COL_COLUMN][i], letter->column);
	values[COL_REPLAY_OF][i] = Int64GetDatum(letter->replay_of);
	nulls[COL_REPLAY_OF][i] = letter->replay_of == 0;
}

static Datum
column_array(Datum *values, bool *nulls, int n, Oid type)
{
	int			lbound = 1;
	int16		typlen = (type == INT4OID) ? 4 : (type == INT8OID || type == TIMESTAMPTZOID) ? 8 : -1;
	bool		byval = type == INT4OID || (typlen == 8 && FLOAT8PASSBYVAL);
	char		align = (typlen == 8) ? TYPALIGN_DOUBLE : TYPALIGN_INT;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lbound,
											  type, typlen, byval, align));
}

/* Write letters [from, to) with one statement; SPI is connected. */
static void
write_some(IngestDeadLetterList *list, int from, int to, int32 pipeline_id,
		   int64 version, int64 batch_id)
{
	static IngestStatement insert = {
		"INSERT INTO ingest._dead_letter (pipeline_id, version, batch_id, shard, \"offset\", row_number,"
		" payload, key, headers, message_at, stage, rule, sqlstate, message, detail, column_name, replay_of)"
		" SELECT $1, $2, $3, shard, \"offset\", row_number, payload, key, headers::jsonb, message_at,"
		" stage, rule, sqlstate, message, detail, column_name, replay_of"
		" FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) AS letter(shard, \"offset\","
		" row_number, payload, key, headers, message_at, stage, rule, sqlstate, message, detail,"
		" column_name, replay_of)",
		3 + NCOLS, {INT4OID, INT8OID, INT8OID, TEXTARRAYOID, INT8ARRAYOID, INT4ARRAYOID, BYTEAARRAYOID,
			BYTEAARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
			TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID}
	};
	int			n = to - from;
	Datum		args[3 + NCOLS] = {Int32GetDatum(pipeline_id), Int64GetDatum(version), Int64GetDatum(batch_id)};
	Datum	   *values[NCOLS];
	bool	   *nulls[NCOLS];
	MemoryContext mcxt = AllocSetContextCreate(CurrentMemoryContext, "ingest dead letter arrays",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(mcxt);

	for (int col = 0; col < NCOLS; col++)
	{
		values[col] = palloc0(sizeof(Datum) * n);
		nulls[col] = palloc0(sizeof(bool) * n);
	}
	for (int i = 0; i < n; i++)
		set_columns(list->letters[from + i], values, nulls, i);
	for (int col = 0; col < NCOLS; col++)
		args[3 + col] = column_array(values[col], nulls[col], n, column_types[col]);

	MemoryContextSwitchTo(oldcontext);
	ingest_spi_run(&insert, args, NULL);
	MemoryContextDelete(mcxt);
}

void
ingest_dead_letter_write(IngestDeadLetterList *list, int32 pipeline_id,
						 int64 version, int64 batch_id)
{
	int			from = 0;
	Size		bytes = 0;

	if (list->nletters == 0)
		return;

	ingest_spi_begin();
	for (int i = 0; i < list->nletters; i++)
	{
		const IngestDeadLetter *letter = list->letters[i];
		Size		size = letter->payload_len + letter->key_len + TEXT_SIZE(letter->headers);

		if (i > from && (bytes + size > WRITE_BYTES || i - from == WRITE_LETTERS))
		{
			write_some(list, from, i, pipeline_id, version, batch_id);
			from = i;
			bytes = 0;
		}
		bytes += size;
	}
	write_some(list, from, list->nletters, pipeline_id, version, batch_id);
	ingest_spi_end();

	ingest_dead_letter_truncate(list, 0);
}

void
ingest_dead_letter_supersede(int32 pipeline_id, int64 batch_id)
{
	static IngestStatement supersede = {
		"UPDATE ingest._dead_letter SET outcome = 'superseded', resolved_at = now()"
		" WHERE pipeline_id = $1 AND outcome = 'pending' AND batch_id < $2",
		2, {INT4OID, INT8OID}
	};
	Datum		values[2] = {Int32GetDatum(pipeline_id), Int64GetDatum(batch_id)};

	ingest_spi_begin();
	ingest_spi_run(&supersede, values, NULL);
	ingest_spi_end();
}
