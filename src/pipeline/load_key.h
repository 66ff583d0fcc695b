/*
 * load_key.h
 *		Keys of the rows of a batch, remembered, and which of the rows a later one
 *		with the same key replaces.
 */
#ifndef INGEST_LOAD_KEY_H
#define INGEST_LOAD_KEY_H

#include "postgres.h"

#include "utils/rel.h"

typedef struct IngestLoadKey
{
	int			n;
	AttrNumber *attnums;		/* of the target */
	char	  **names;
	struct IngestKeyRows *rows; /* private to load_key.c */
} IngestLoadKey;

/* Columns of the target, by number.  mcxt: current, also of what is remembered.  raises: yes */
extern IngestLoadKey *ingest_load_key_make(Relation target, const AttrNumber *attnums, int n);

/* Remember the key of the next row, in which nothing is NULL; values by column of the target. */
extern void ingest_load_key_note(IngestLoadKey *key, const Datum *values);

/* Of the rows noted since the last reset: how many a later one with the same key replaces. */
extern int64 ingest_load_key_count_replaced(IngestLoadKey *key);

/* After that: is this row, by its number, one of them?  raises: no */
extern bool ingest_load_key_is_replaced(const IngestLoadKey *key, int64 row);

extern void ingest_load_key_reset(IngestLoadKey *key);

#endif							/* INGEST_LOAD_KEY_H */
