/*
 * scalar.h
 *		Text to values of the common types, without raising errors.
 *
 * Each reader agrees with its type's input function on every input; what it is
 * not sure of it hands over to that function.
 */
#ifndef INGEST_FORMAT_SCALAR_H
#define INGEST_FORMAT_SCALAR_H

#include "postgres.h"

#include "fmgr.h"
#include "format/format.h"
#include "lib/stringinfo.h"

struct IngestReader;

/* False: *err says why; its message is constant or in CurrentMemoryContext. */
typedef bool (*IngestReadFn) (const struct IngestReader *reader, const char *text, Size len,
							  Datum *value, IngestRowError *err);

typedef struct IngestReader
{
	IngestReadFn read;
	Oid			typid;
	int32		typmod;
	const char *column;
	char	   *type_name;		/* for messages */
	FmgrInfo	input;
	Oid			ioparam;
	Datum		limit;			/* numeric(p,s): 10^(p-s) */
} IngestReader;

/* Make the reader of a column ready, in CurrentMemoryContext. raises: yes */
extern void ingest_reader_init(IngestReader *reader, const IngestColumn *column);

/*
 * The type's own input function.  raises: before 16, and for types without soft
 * errors
 */
extern bool ingest_reader_input(const IngestReader *reader, const char *text, Size len,
								Datum *value, IngestRowError *err);

/* Verified text of the database's encoding from UTF-8 bytes, or false. */
extern bool ingest_text_check(const char *text, Size len, IngestRowError *err);

/* A text as an element of an SQL array's text, quoted. */
extern void ingest_append_array_element(StringInfo array, const char *text, Size len);

/* Formats of text need a database that stores UTF-8. raises: else */
extern void ingest_format_check_encoding(const char *format);

#endif							/* INGEST_FORMAT_SCALAR_H */
