/*
 * json.h
 *		What the JSON format lends to others.
 */
#ifndef INGEST_FORMAT_JSON_H
#define INGEST_FORMAT_JSON_H

#include "postgres.h"

#include "format/format.h"
#include "lib/stringinfo.h"

/*
 * The text of a JSON string, given with its quotes, into an initialized "out".
 * False: *err says why, at a byte of the string.  raises: out of memory
 */
extern bool ingest_json_unescape(const char *string, Size len, StringInfo out, IngestRowError *err);

#endif							/* INGEST_FORMAT_JSON_H */
