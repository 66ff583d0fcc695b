/*
 * address.h
 *		Which addresses may be connected to by somebody who is no superuser.
 *
 * The server stands where its users do not: behind firewalls, beside services
 * that trust whoever is near.  What counts is the address that is connected
 * to, after names are resolved and however it was written.  Pure.
 */
#ifndef INGEST_HTTP_ADDRESS_H
#define INGEST_HTTP_ADDRESS_H

#include "postgres.h"

#include <sys/socket.h>

/* Not loopback, private, link-local, multicast, reserved and the like.  raises: no */
extern bool ingest_address_is_public(const struct sockaddr *address);
extern bool ingest_address_is_loopback(const struct sockaddr *address);

/* One of the networks of a list that ingest_address_check_list() has found well.  raises: no */
extern bool ingest_address_is_listed(const struct sockaddr *address, const char *list);

/* "10.0.0.0/8, 192.168.1.7, fd00::/8"; *bad: what cannot be read, in static memory.  raises: no */
extern bool ingest_address_check_list(const char *list, const char **bad);

#endif							/* INGEST_HTTP_ADDRESS_H */
