/*
 * token.h
 *		ingest._token: refresh tokens that a server gave instead of the one in the
 *		user mapping.
 *
 * By the names of foreign server and role ("public" for the mapping of everybody,
 * which no role can be called).  A token is sealed with "origin", what the
 * mapping says (ingest_http_auth_origin()): it cannot be read without, and is
 * not used any more once that has changed.
 */
#ifndef INGEST_CATALOG_TOKEN_H
#define INGEST_CATALOG_TOKEN_H

#include "postgres.h"

/* NULL: there is none, or it belongs to something else.  xact: in.  raises: yes */
extern char *ingest_token_read(const char *server, const char *username, const char *origin,
							   MemoryContext mcxt);

/* xact: in.  raises: yes */
extern void ingest_token_write(const char *server, const char *username, const char *origin,
							   const char *token);

#endif							/* INGEST_CATALOG_TOKEN_H */
