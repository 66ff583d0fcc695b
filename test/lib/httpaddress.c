/*
 * httpaddress.c
 *		Which addresses are public, callable from SQL: for test/t/112_http_security.pl.
 *
 * A library of its own, with a copy of what is under test: it is not visible from
 * outside the extension.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "fmgr.h"
#include "http/address.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PGDLLEXPORT PG_FUNCTION_INFO_V1(test_address);

/* address, list: "public", "loopback", "listed", with a blank between them */
Datum
test_address(PG_FUNCTION_ARGS)
{
	char	   *address_text = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *list = text_to_cstring(PG_GETARG_TEXT_PP(1));
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct sockaddr *address = (struct sockaddr *) &v4;
	const char *bad;

	if (inet_pton(AF_INET, address_text, &v4.sin_addr) != 1)
	{
		address = (struct sockaddr *) &v6;
		if (inet_pton(AF_INET6, address_text, &v6.sin6_addr) != 1)
			elog(ERROR, "not an address: %s", address_text);
	}
	if (!ingest_address_check_list(list, &bad))
		elog(ERROR, "not a network: %s", bad);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s%s%s",
											  ingest_address_is_public(address) ? "public " : "",
											  ingest_address_is_loopback(address) ? "loopback " : "",
											  ingest_address_is_listed(address, list) ? "listed " : "")));
}
