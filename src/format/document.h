/*
 * document.h
 *		What is around the rows of a JSON document: values at paths, and the
 *		bytes of the elements of an array in it.
 *
 * For sources whose answers wrap their rows in an envelope.  Built on the
 * server's own parser; no catalogs, no transaction.  raises: out of memory only.
 */
#ifndef INGEST_DOCUMENT_H
#define INGEST_DOCUMENT_H

#include "postgres.h"

#include "format/format.h"

/* A value found; text NULL: not there.  Strings are unescaped, others as written. */
typedef struct IngestDocumentValue
{
	char	   *text;			/* terminated, in the current context */
	char		kind;			/* first byte: " { [ t f n, or 0 for a number */
} IngestDocumentValue;

/* An element of the rows: bytes of the document. */
typedef struct IngestDocumentRow
{
	const char *data;
	Size		len;
} IngestDocumentRow;

typedef struct IngestDocumentQuery
{
	const char *rows;			/* path of the rows: '$', '$.items[*]', '$.data.edges[*].node', '$.a[*].b[*]' */
	const char *const *paths;	/* of single values: '$.next', '$.meta.pages[0].token'; NULLs are skipped */
	int			npaths;
	int			max_depth;
} IngestDocumentQuery;

typedef struct IngestDocument
{
	IngestDocumentRow *rows;
	int			nrows;
	bool		found;			/* the path of the rows leads to a row, or to where there are none */
	IngestDocumentValue *values;	/* as paths */
} IngestDocument;

/* Is it a path?  Keys as in column paths ($.a."odd key"[0]), and [*].  raises: yes, with the option's name */
extern void ingest_document_check_path(const char *option, const char *path, bool many);

/*
 * Go through a document of UTF-8 once.  A path of rows without [*] that leads to
 * an array means its elements; to null: none; to anything else: that one.  With
 * [*] null instead of an array has no elements, either.  Of repeated keys the
 * last one counts.  A byte order mark is cut.  false: *err says what is wrong,
 * and where.  mcxt: current
 */
extern bool ingest_document_read(const IngestDocumentQuery *query, const char *data, Size len,
								 IngestDocument *document, IngestRowError *err);

#endif							/* INGEST_DOCUMENT_H */
