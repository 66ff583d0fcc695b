/*
 * token.c
 *		ingest._token: refresh tokens that a server gave instead of the one in the
 *		user mapping.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/token.h"
#include "core/seal.h"
#include "core/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

static IngestStatement find_token = {
	"SELECT sealed FROM ingest._token WHERE server = $1 AND username = $2",
	2, {TEXTOID, TEXTOID}
};

static IngestStatement set_token = {
	"INSERT INTO ingest._token (server, username, sealed) VALUES ($1, $2, $3) "
	"ON CONFLICT (server, username) DO UPDATE SET sealed = excluded.sealed, rotated_at = excluded.rotated_at",
	3, {TEXTOID, TEXTOID, BYTEAOID}
};

/* A row cannot be passed off as another's. */
static char *
label_of(const char *server, const char *username)
{
	return psprintf("%zu:%s:%s", strlen(server), server, username);
}

char *
ingest_token_read(const char *server, const char *username, const char *origin, MemoryContext mcxt)
{
	Datum		values[2] = {CStringGetTextDatum(server), CStringGetTextDatum(username)};
	char	   *token = NULL;

	ingest_spi_begin();
	if (ingest_spi_run(&find_token, values, NULL) > 0)
	{
		bool		isnull;
		bytea	   *sealed = DatumGetByteaPP(ingest_spi_value(0, "sealed", &isnull));
		MemoryContext old = MemoryContextSwitchTo(mcxt);

		token = ingest_unseal(origin, label_of(server, username), sealed);
		MemoryContextSwitchTo(old);
	}
	ingest_spi_end();
	return token;
}

void
ingest_token_write(const char *server, const char *username, const char *origin, const char *token)
{
	Datum		values[3] = {CStringGetTextDatum(server), CStringGetTextDatum(username),
	PointerGetDatum(ingest_seal(origin, label_of(server, username), token))};

	ingest_spi_begin();
	ingest_spi_run(&set_token, values, NULL);
	ingest_spi_end();
}
