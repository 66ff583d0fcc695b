-- Trying out what a source would make of a payload.

CREATE FUNCTION ingest.decode(
    source  anyelement,
    payload bytea,
    format  text  DEFAULT 'json',
    options jsonb DEFAULT '{}')
RETURNS SETOF anyelement
LANGUAGE c STABLE ROWS 1
AS 'MODULE_PATHNAME', 'ingest_sql_decode';
COMMENT ON FUNCTION ingest.decode(anyelement, bytea, text, jsonb) IS
    'The rows that a source with this row type makes of a payload: SELECT * FROM ingest.decode(NULL::my_source, ''{"a": 1}''); a bad payload is an error';

CREATE FUNCTION ingest.decode(
    source  anyelement,
    payload text,
    format  text  DEFAULT 'json',
    options jsonb DEFAULT '{}')
RETURNS SETOF anyelement
LANGUAGE c STABLE ROWS 1
AS 'MODULE_PATHNAME', 'ingest_sql_decode';
COMMENT ON FUNCTION ingest.decode(anyelement, text, text, jsonb) IS
    'The same with the payload as text';
