/*
 * source_sql.h
 *		Shared by relation.c and fdw.c: from catalog entries to sources.
 */
#ifndef INGEST_SOURCE_SQL_H
#define INGEST_SOURCE_SQL_H

#include "postgres.h"

#include "source/source.h"

/*
 * The source whose wrapper has this validator: the function is named
 * <source>_validator.  NULL when there is none.  xact: in
 */
extern const IngestSourceOps *ingest_source_of_function(Oid function);

/* Value of a string option in a List of DefElem, or NULL. */
extern const char *ingest_source_option(List *options, const char *name);

#endif							/* INGEST_SOURCE_SQL_H */
