/*
 * secret.h
 *		Secrets in memory: wiped when they go, and taken out of text from outside.
 *
 * A set belongs to a memory context; what it holds is overwritten when the
 * context is reset.  Nothing here does I/O.  raises: out of memory only
 */
#ifndef INGEST_HTTP_SECRET_H
#define INGEST_HTTP_SECRET_H

#include "postgres.h"

typedef struct IngestSecrets IngestSecrets;

extern IngestSecrets *ingest_secrets_create(MemoryContext mcxt);

/* A copy that the set owns; NULL of NULL. */
extern char *ingest_secrets_add(IngestSecrets *secrets, const char *text);

/* A copy that is wiped, too, but not looked for in text. */
extern char *ingest_secrets_hold(IngestSecrets *secrets, const char *text);

/* Look for what "text" is in Base64, and only so: name and password together. */
extern void ingest_secrets_add_encoded(IngestSecrets *secrets, const char *text);

/* Overwrite and forget what add or hold gave; NULL is fine. */
extern void ingest_secrets_remove(IngestSecrets *secrets, char *text);

/*
 * A copy of text in which every secret is replaced by "***", also where it is
 * percent-encoded, written with the escapes of JSON or HTML, or a part of
 * something in Base64.  Where text was cut off, the beginning of a secret goes as
 * well, from eight bytes on: better cut it afterwards.  Secrets of less than four bytes only count as words of
 * their own: text would not be readable otherwise.  mcxt: current
 */
extern char *ingest_secrets_redact(IngestSecrets *secrets, const char *text, Size len);

#endif							/* INGEST_HTTP_SECRET_H */
