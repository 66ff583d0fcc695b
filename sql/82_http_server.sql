-- ingest.http_server: how HTTP servers are treated at the moment, by all processes.

CREATE FUNCTION ingest._http_servers(OUT server oid, OUT rate text, OUT concurrency integer, OUT in_flight integer,
                                     OUT requests bigint, OUT failures bigint, OUT failed_in_row integer,
                                     OUT breaker text, OUT waiting_until timestamptz)
    RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED ROWS 10
    AS 'MODULE_PATHNAME', 'ingest_sql_http_servers';
COMMENT ON FUNCTION ingest._http_servers() IS 'Internal: what ingest.http_server shows, of all servers of this database';

CREATE VIEW ingest.http_server WITH (security_barrier) AS
SELECT s.srvname AS name,
       h.rate,
       h.concurrency,
       h.in_flight,
       h.requests,
       h.failures,
       h.failed_in_row,
       h.breaker,
       h.waiting_until
FROM ingest._http_servers() h
JOIN pg_catalog.pg_foreign_server s ON s.oid = h.server
WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW ingest.http_server IS 'HTTP servers that requests were lately sent to: how fast, how many at a time, whether they are left alone';
COMMENT ON COLUMN ingest.http_server.name IS 'Name of the foreign server';
COMMENT ON COLUMN ingest.http_server.rate IS 'Requests in a period, for all pipelines; NULL: no limit';
COMMENT ON COLUMN ingest.http_server.concurrency IS 'Requests at a time, for all pipelines; NULL: no limit';
COMMENT ON COLUMN ingest.http_server.in_flight IS 'Requests under way';
COMMENT ON COLUMN ingest.http_server.requests IS 'Requests sent since the PostgreSQL server was started, or the entry was made anew';
COMMENT ON COLUMN ingest.http_server.failures IS 'Of these, failed: no answer, or one that says the server is in trouble';
COMMENT ON COLUMN ingest.http_server.failed_in_row IS 'Failures since the last success';
COMMENT ON COLUMN ingest.http_server.breaker IS 'closed: requests are sent; open: after failures in a row they wait; probing: one is sent to see';
COMMENT ON COLUMN ingest.http_server.waiting_until IS 'Until when nothing is sent: the server has asked for it, or the breaker is open';
