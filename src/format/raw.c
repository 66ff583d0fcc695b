/*
 * raw.c
 *		The payload as it is, in one column of type bytea.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "format/format.h"

typedef struct Raw
{
	AttrNumber	attnum;
	const char *payload;		/* NULL once it was handed out */
	Size		len;
} Raw;

static const IngestOptionDef raw_options[] = {
	INGEST_OPTION_END
};

static void
raw_check(const IngestColumn *columns, int ncolumns, const void *options)
{
	if (ncolumns != 1 || columns[0].typid != BYTEAOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("format \"raw\" needs exactly one column of type bytea"),
				 errdetail("Columns with the option \"metadata\" do not count.")));
}

static void *
raw_start(const IngestColumn *columns, int ncolumns, const void *options)
{
	Raw		   *raw = palloc0(sizeof(Raw));

	raw->attnum = columns[0].attnum;
	return raw;
}

static void
raw_begin(void *fmt, const char *payload, Size len)
{
	Raw		   *raw = fmt;

	raw->payload = payload;
	raw->len = len;
}

static IngestNext
raw_next(void *fmt, IngestRow *row)
{
	Raw		   *raw = fmt;
	bytea	   *value;

	if (raw->payload == NULL)
		return INGEST_NEXT_NONE;
	row->slice = raw->payload;
	row->slice_len = raw->len;
	raw->payload = NULL;
	if (row->values)
	{
		value = palloc(VARHDRSZ + row->slice_len);
		SET_VARSIZE(value, VARHDRSZ + row->slice_len);
		memcpy(VARDATA(value), row->slice, row->slice_len);
		row->values[raw->attnum - 1] = PointerGetDatum(value);
		row->isnull[raw->attnum - 1] = false;
	}
	return INGEST_NEXT_ROW;
}

const IngestFormatOps ingest_format_raw = {
	.name = "raw",
	.description = "The payload as bytes, in one column of type bytea",
	.options = raw_options,
	.options_size = 0,
	.check = raw_check,
	.start = raw_start,
	.begin = raw_begin,
	.next = raw_next,
};
