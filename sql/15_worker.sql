-- The processes, for the views and for whoever debugs them.

CREATE FUNCTION ingest._workers(OUT pipeline_id integer, OUT ordinal integer, OUT pid integer, OUT phase text,
                                OUT started_at timestamptz, OUT progress_at timestamptz,
                                OUT batches bigint, OUT messages bigint)
    RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED ROWS 10
    AS 'MODULE_PATHNAME', 'ingest_sql_workers';
COMMENT ON FUNCTION ingest._workers() IS
    'Workers of this database that run now: what they do, and what they have done since they started';

CREATE FUNCTION ingest._supervisor(OUT pid integer, OUT started_at timestamptz, OUT is_full boolean)
    RETURNS record LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'ingest_sql_supervisor';
COMMENT ON FUNCTION ingest._supervisor() IS
    'The supervisor of this database, when there is one, and whether some pipelines wait for a free worker slot';

CREATE FUNCTION ingest._wake()
    RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_wake';
COMMENT ON FUNCTION ingest._wake() IS 'Make the supervisor look again when this transaction commits';

-- The launcher has found no extension in this database until now.
SELECT ingest._wake();
