/*
 * seal.h
 *		Text at rest that only who knows a secret can read.
 *
 * Encrypted and authenticated (AES-256-GCM) under a key made of the secret and a
 * random salt.  The secret is one of full strength, such as a token: a password
 * could be guessed.  mcxt: current.  raises: yes, never with the text in it
 */
#ifndef INGEST_SEAL_H
#define INGEST_SEAL_H

#include "postgres.h"

/* "label" says what it is for: the text cannot be passed off as another's. */
extern bytea *ingest_seal(const char *secret, const char *label, const char *text);

/* NULL: sealed with another secret or label, or changed since. */
extern char *ingest_unseal(const char *secret, const char *label, const bytea *sealed);

#endif							/* INGEST_SEAL_H */
