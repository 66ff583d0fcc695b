-- The batch, for functions that a transform calls: a statement reads the
-- relation "batch" itself.

CREATE FUNCTION ingest.batch(source anyelement) RETURNS SETOF anyelement
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10000
    AS 'MODULE_PATHNAME', 'ingest_sql_batch';
COMMENT ON FUNCTION ingest.batch(anyelement) IS
    'The accepted rows of the batch whose transforms run now: SELECT * FROM ingest.batch(NULL::my_source)';

CREATE FUNCTION ingest._begin_rule(rule integer) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1
    AS 'MODULE_PATHNAME', 'ingest_sql_begin_rule';
COMMENT ON FUNCTION ingest._begin_rule(integer) IS
    'Internal: which rule a query over the batch is about to evaluate';
