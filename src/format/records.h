/*
 * records.h
 *		Cutting a long body into records as it comes: lines, CSV, XML elements.
 *
 * A record becomes a message; the format decodes it.  Pure, without catalogs.
 * raises: out of memory only.
 */
#ifndef INGEST_RECORDS_H
#define INGEST_RECORDS_H

#include "postgres.h"

#include "format/format.h"

typedef enum IngestRecordsKind
{
	INGEST_RECORDS_LINES,		/* LF or CRLF; empty lines are none; byte order marks are cut */
	INGEST_RECORDS_CSV,			/* quoted line breaks; with a header each record is given behind it */
	INGEST_RECORDS_XML			/* elements of a name, at any depth; given with namespace declarations in force */
} IngestRecordsKind;

typedef struct IngestRecordsOptions
{
	IngestRecordsKind kind;
	bool		header;			/* CSV: the first record names the columns */
	char		quote;
	char		escape;			/* 0: the quote */
	const char *element;		/* XML: name of the row element, without prefix */
	int64		max_record;		/* bytes */
	int			max_depth;		/* XML */
} IngestRecordsOptions;

typedef enum IngestRecordsNext
{
	INGEST_RECORDS_RECORD,
	INGEST_RECORDS_MORE,		/* the record goes on behind what was given */
	INGEST_RECORDS_END,
	INGEST_RECORDS_BAD			/* the body as a whole; *err */
} IngestRecordsNext;

typedef struct IngestRecords IngestRecords;

/* In the current context. */
extern IngestRecords *ingest_records_create(const IngestRecordsOptions *options);

/*
 * Begin a body; or go on with one at a byte up to which all was consumed, with
 * what ingest_records_header() answered there (NULL: nothing).
 */
extern void ingest_records_begin(IngestRecords *records, const char *header, Size header_len);

/*
 * What is needed to go on behind what was consumed last: CSV: the header record
 * as written; XML: the start tags of the elements that are open (there may be
 * none any more).  NULL: nothing (yet).  Bytes of the body, not terminated, and
 * without NUL.  Valid until the next call of next or begin.
 */
extern const char *ingest_records_header(const IngestRecords *records, Size *len);

/*
 * The next record of data, of which all before was consumed; last: nothing
 * comes after it.  *consumed: bytes up to the end of the record and its line
 * break; with MORE, too, those that are done with: the next data begins behind
 * them, and has more bytes (what was looked at is not looked at again).  The
 * record is a part of data, or memory of "records" that is valid until the next
 * call.  err->position counts from data.  After BAD and END comes begin.
 */
extern IngestRecordsNext ingest_records_next(IngestRecords *records, const char *data, Size len, bool last,
											 Size *consumed, const char **record, Size *record_len,
											 IngestRowError *err);

#endif							/* INGEST_RECORDS_H */
