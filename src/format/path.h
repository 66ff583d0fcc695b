/*
 * path.h
 *		Paths into JSON: $.a."odd key"[0], and [*] where several are meant.
 */
#ifndef INGEST_FORMAT_PATH_H
#define INGEST_FORMAT_PATH_H

#include "postgres.h"

typedef enum IngestPathKind
{
	INGEST_PATH_KEY,			/* member of an object */
	INGEST_PATH_INDEX,			/* element of an array, from 0 */
	INGEST_PATH_ALL				/* every element */
} IngestPathKind;

typedef struct IngestPathStep
{
	IngestPathKind kind;
	char	   *key;			/* not of an index */
	int			len;
	int			index;
} IngestPathStep;

typedef struct IngestPath
{
	IngestPathStep *steps;
	int			nsteps;
	bool		many;			/* has a step ALL */
} IngestPath;

/* False: *why is a sentence.  many: [*] may be in it.  mcxt: current.  raises: out of memory */
extern bool ingest_path_parse(const char *text, bool many, IngestPath *path, const char **why);

#endif							/* INGEST_FORMAT_PATH_H */
