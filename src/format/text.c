/*
 * text.c
 *		The payload as text, in one column.
 */
#include "postgres.h"

#include "format/scalar.h"

typedef struct Text
{
	IngestReader reader;
	AttrNumber	attnum;
	const char *payload;		/* NULL once it was handed out */
	Size		len;
} Text;

static const IngestOptionDef text_options[] = {
	INGEST_OPTION_END
};

static void
text_check(const IngestColumn *columns, int ncolumns, const void *options)
{
	ingest_format_check_encoding("text");
	if (ncolumns != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("format \"text\" needs exactly one column"),
				 errdetail("Columns with the option \"metadata\" do not count.")));
}

static void *
text_start(const IngestColumn *columns, int ncolumns, const void *options)
{
	Text	   *t = palloc0(sizeof(Text));

	ingest_reader_init(&t->reader, &columns[0]);
	t->attnum = columns[0].attnum;
	return t;
}

static void
text_begin(void *fmt, const char *payload, Size len)
{
	Text	   *t = fmt;

	t->payload = payload;
	t->len = len;
}

static IngestNext
text_next(void *fmt, IngestRow *row)
{
	Text	   *t = fmt;
	const char *payload = t->payload;

	if (payload == NULL)
		return INGEST_NEXT_NONE;
	t->payload = NULL;
	row->slice = payload;
	row->slice_len = t->len;
	row->error.position = -1;
	if (row->values == NULL)
		return INGEST_NEXT_ROW;
	row->isnull[t->attnum - 1] = false;
	if (!ingest_text_check(payload, t->len, &row->error) ||
		!t->reader.read(&t->reader, payload, t->len, &row->values[t->attnum - 1], &row->error))
		return INGEST_NEXT_BAD;
	return INGEST_NEXT_ROW;
}

const IngestFormatOps ingest_format_text = {
	.name = "text",
	.description = "The payload as text, in one column",
	.options = text_options,
	.options_size = 0,
	.check = text_check,
	.start = text_start,
	.begin = text_begin,
	.next = text_next,
};
