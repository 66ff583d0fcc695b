/*
 * format.h
 *		The interface of a format: bytes in, rows out.
 *
 * A format is one static const IngestFormatOps in one .c file and one line in
 * format_list.h.  It is pure: no SPI, no catalog access after start(), no
 * static state, same bytes -> same rows.  Bad input is a result, not an error:
 * ereport() is for bugs and for input functions that know no soft errors.
 *
 *	start -> ( begin -> next, next, ... NONE )* -> end
 */
#ifndef INGEST_FORMAT_H
#define INGEST_FORMAT_H

#include "postgres.h"

#include "access/attnum.h"
#include "core/options.h"
#include "fmgr.h"

/* A column that the format fills. */
typedef struct IngestColumn
{
	AttrNumber	attnum;			/* of the source relation, from 1 */
	const char *name;
	const char *path;			/* option "path": '$.a.b[0]'; NULL: the column's name */
	Oid			typid;
	int32		typmod;
	Oid			collation;
} IngestColumn;

/* Why a row, or a whole message, could not be decoded. */
typedef struct IngestRowError
{
	int			sqlstate;
	const char *message;		/* in the context next() was called in, or constant */
	const char *detail;			/* or NULL */
	const char *column;			/* guilty column, or NULL */
	int64		position;		/* byte of the payload, from 0; -1 when unknown */
} IngestRowError;

/* One decoded row. */
typedef struct IngestRow
{
	Datum	   *values;			/* by attnum - 1; the caller's arrays; NULL: see next() */
	bool	   *isnull;
	const char *slice;			/* the bytes of the payload that hold this row */
	Size		slice_len;
	IngestRowError error;		/* set when BAD */
} IngestRow;

typedef enum IngestNext
{
	INGEST_NEXT_ROW,			/* a row is in values/isnull */
	INGEST_NEXT_NONE,			/* no further row in this message */
	INGEST_NEXT_BAD				/* this row cannot be decoded; later ones may */
} IngestNext;

typedef struct IngestFormatOps
{
	const char *name;
	const char *description;

	/* Options of scope TABLE (and COLUMN); parsed into a struct of options_size. */
	const IngestOptionDef *options;
	size_t		options_size;

	/*
	 * MAY.  Columns and options fit together.  Called at definition time and
	 * before start().  raises: yes
	 */
	void		(*check) (const IngestColumn *columns, int ncolumns, const void *options);

	/*
	 * MUST.  Make an instance in CurrentMemoryContext: resolve input functions
	 * and paths once.  raises: yes
	 */
	void	   *(*start) (const IngestColumn *columns, int ncolumns, const void *options);

	/*
	 * MUST.  Turn to a message.  The bytes are not terminated, not verified,
	 * and stay valid until the last next().  raises: no
	 */
	void		(*begin) (void *fmt, const char *payload, Size len);

	/*
	 * MUST.  The next row.  Sets values and isnull of all its columns, and the
	 * slice.  Values are allocated in CurrentMemoryContext; those passed by
	 * reference never point into the payload.
	 *
	 * When the message is broken as a whole (syntax), the first call answers
	 * BAD with slice = the whole payload and the second NONE: rows of a
	 * message that turns out broken are never handed out.
	 *
	 * row->values NULL: pass over the next row: nothing is converted, only the
	 * slice is set, nothing is raised.  By this a message is gone on with behind
	 * a row that raised (begin, then pass over the rows up to and with that one).
	 *
	 * raises: only what a type's input function raises (before 16, or not soft)
	 */
	IngestNext	(*next) (void *fmt, IngestRow *row);

	/*
	 * MAY.  How many bytes at the beginning of a message each of its rows needs
	 * in front of it (the header of CSV).  A dead letter of one row among
	 * several has them before the row's slice, so that it can be decoded by
	 * itself.  Does not turn to the message.  raises: no
	 */
	Size		(*head) (void *fmt, const char *payload, Size len);

	/*
	 * MAY.  What a dead letter keeps of a message instead of its bytes, when
	 * these mean nothing to people: text that begin() takes as well, in
	 * CurrentMemoryContext.  Each message is one row.  raises: yes
	 */
	char	   *(*keep) (void *fmt, const char *payload, Size len);

	/* MAY.  raises: no */
	void		(*end) (void *fmt);
} IngestFormatOps;

/* The table of each. */
#define INGEST_FORMAT(symbol) extern const IngestFormatOps symbol;
#include "format/format_list.h"
#undef INGEST_FORMAT

/* Find by name.  raises: get does, with the known names as hint */
extern const IngestFormatOps *ingest_format_find(const char *name);
extern const IngestFormatOps *ingest_format_get(const char *name);

/* All of them, NULL-terminated. */
extern const IngestFormatOps *const ingest_formats[];

#endif							/* INGEST_FORMAT_H */
