/*
 * tuple.h
 *		The rows of a relation: already typed, or, as a dead letter kept them,
 *		JSON.
 *
 * No format that somebody names in an option: the relation source brings it
 * along.
 */
#ifndef INGEST_FORMAT_TUPLE_H
#define INGEST_FORMAT_TUPLE_H

#include "format/format.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"

/* What the format's instance is made from: its options. */
typedef struct IngestTupleOptions
{
	TupleDesc	desc;			/* of the tuples */
} IngestTupleOptions;

extern const IngestFormatOps ingest_format_tuple;

/* The member of a kept row's JSON that says why the row could not be read. */
#define INGEST_TUPLE_ERROR "ingest.error"

/*
 * A payload for this format: the row in a slot, which lives by itself (values
 * stored elsewhere are fetched).  mcxt: current.  raises: yes
 */
extern MinimalTuple ingest_tuple_form(TupleTableSlot *slot);

/* A value as text that its type's input function takes, whatever the session's settings. */
extern char *ingest_tuple_value_text(Oid typid, Datum value);

/*
 * Append a row as a JSON object, without its closing brace, so that the caller
 * may add something.  raises: what output functions raise
 */
extern void ingest_tuple_to_json(StringInfo into, TupleDesc desc, const Datum *values,
								 const bool *isnull);

#endif							/* INGEST_FORMAT_TUPLE_H */
