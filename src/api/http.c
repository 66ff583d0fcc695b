/*
 * http.c
 *		What ingest.http_server shows: the state of HTTP servers.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "http/limit.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PGDLLEXPORT PG_FUNCTION_INFO_V1(ingest_sql_http_servers);

#define NCOLUMNS 9

static const char *
breaker_name(IngestHttpBreaker breaker)
{
	switch (breaker)
	{
		case INGEST_HTTP_BREAKER_CLOSED:
			return "closed";
		case INGEST_HTTP_BREAKER_OPEN:
			return "open";
		case INGEST_HTTP_BREAKER_PROBING:
			return "probing";
	}
	return "unknown";
}

/*
 * _http_servers(OUT server oid, OUT rate text, OUT concurrency integer, OUT in_flight integer,
 *				 OUT requests bigint, OUT failures bigint, OUT failed_in_row integer,
 *				 OUT breaker text, OUT waiting_until timestamptz): of this database
 */
Datum
ingest_sql_http_servers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *servers = ingest_http_limit_list(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, servers)
	{
		IngestHttpLimitStatus *status = lfirst(lc);
		char	   *rate = ingest_http_rate_text(&status->rate);
		Datum		values[NCOLUMNS] = {0};
		bool		nulls[NCOLUMNS] = {false};

		values[0] = ObjectIdGetDatum(status->server);
		nulls[1] = rate == NULL;
		if (rate)
			values[1] = CStringGetTextDatum(rate);
		nulls[2] = status->concurrency <= 0;
		values[2] = Int32GetDatum(status->concurrency);
		values[3] = Int32GetDatum(status->in_flight);
		values[4] = Int64GetDatum(status->requests);
		values[5] = Int64GetDatum(status->failures);
		values[6] = Int32GetDatum(status->failed_in_row);
		values[7] = CStringGetTextDatum(breaker_name(status->breaker));
		nulls[8] = status->wait <= 0;
		values[8] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, status->wait));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
