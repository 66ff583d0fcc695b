-- What people call.  All are security invoker: they check whose pipeline it
-- is, and write the catalogs by constant statements (core/spi.h).  NULL is an
-- error where an argument is needed, not a silent nothing: none is STRICT.

-- ---- definitions

CREATE FUNCTION ingest.create_pipeline(name text, source regclass, target regclass,
                                       schedule text DEFAULT NULL, options jsonb DEFAULT '{}',
                                       mode text DEFAULT NULL, key text[] DEFAULT NULL)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_create_pipeline';
COMMENT ON FUNCTION ingest.create_pipeline(text, regclass, regclass, text, jsonb, text, text[]) IS
    'Create a pipeline from a source into a target, to append, upsert by key, or replace; it runs when ingest.start() or CALL ingest.run() says so';

CREATE FUNCTION ingest.alter_pipeline(name text, source regclass DEFAULT NULL, target regclass DEFAULT NULL,
                                      schedule text DEFAULT NULL, options jsonb DEFAULT NULL,
                                      new_name text DEFAULT NULL, owner regrole DEFAULT NULL,
                                      positions text DEFAULT NULL)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_alter_pipeline';
COMMENT ON FUNCTION ingest.alter_pipeline(text, regclass, regclass, text, jsonb, text, regrole, text) IS
    'Change a pipeline; NULL leaves things as they are, an option that is null goes back to its default, positions ''keep'' or ''forget'' goes with another source';

CREATE FUNCTION ingest.drop_pipeline(name text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_drop_pipeline';
COMMENT ON FUNCTION ingest.drop_pipeline(text) IS
    'Drop a pipeline with its rules, transforms, positions, history and dead letters; source and target stay';

CREATE FUNCTION ingest.add_rule(pipeline text, name text, expression text,
                                on_violation text DEFAULT 'reject', null_ok boolean DEFAULT false)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_add_rule';
COMMENT ON FUNCTION ingest.add_rule(text, text, text, text, boolean) IS
    'Add a rule, boolean SQL over a row of the source; on_violation: reject, drop, warn, fail';

CREATE FUNCTION ingest.drop_rule(pipeline text, name text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_drop_rule';
COMMENT ON FUNCTION ingest.drop_rule(text, text) IS 'Drop a rule';

CREATE FUNCTION ingest.add_transform(pipeline text, name text, statement text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_add_transform';
COMMENT ON FUNCTION ingest.add_transform(text, text, text) IS
    'Add a transform: SQL over the relation batch, the accepted rows, in the commit that writes them';

CREATE FUNCTION ingest.drop_transform(pipeline text, name text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_drop_transform';
COMMENT ON FUNCTION ingest.drop_transform(text, text) IS 'Drop a transform';

-- ---- running

CREATE FUNCTION ingest.preview(pipeline text, limit_rows integer DEFAULT 20)
    RETURNS TABLE (shard text, "offset" bigint, row_number integer, verdict text, stage text, rule text,
                   sqlstate text, message text, column_name text, data jsonb, payload text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 AS 'MODULE_PATHNAME', 'ingest_sql_preview';
COMMENT ON FUNCTION ingest.preview(text, integer) IS
    'What would become of the next messages; nothing is consumed, nothing is written';

CREATE FUNCTION ingest.explain(pipeline text)
    RETURNS SETOF text LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 AS 'MODULE_PATHNAME', 'ingest_sql_explain';
COMMENT ON FUNCTION ingest.explain(text) IS
    'The query by which a pipeline reads its relation next, and the plan of it';

CREATE FUNCTION ingest.start(pipeline text, accept_fewer boolean DEFAULT false)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_start';
COMMENT ON FUNCTION ingest.start(text, boolean) IS
    'Run a pipeline in background, from the commit on; forgets an error that halted it, and the error budget''s past; accept_fewer lets the next replacement lose rows';

CREATE FUNCTION ingest.stop(pipeline text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_stop';
COMMENT ON FUNCTION ingest.stop(text) IS 'No longer run a pipeline in background, from the commit on';

CREATE PROCEDURE ingest.run(pipeline text, max_batches bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_sql_run';
COMMENT ON PROCEDURE ingest.run(text, bigint) IS
    'Run a pipeline in this session, up to what its source holds now; one commit a batch';

CREATE FUNCTION ingest.seek(pipeline text, start_at text DEFAULT NULL, positions jsonb DEFAULT NULL,
                            confirm boolean DEFAULT false)
    RETURNS TABLE (shard text, from_position text, to_position text, skipped bigint, repeated bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'ingest_sql_seek';
COMMENT ON FUNCTION ingest.seek(text, text, jsonb, boolean) IS
    'Move the positions of a pipeline to ''earliest'', ''latest'', a timestamp, or to those given by shard';

-- ---- dead letters

CREATE FUNCTION ingest.replay(pipeline text, condition text DEFAULT NULL, limit_rows bigint DEFAULT NULL,
                              OUT read bigint, OUT written bigint, OUT rejected bigint, OUT dropped bigint,
                              OUT skipped bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_replay';
COMMENT ON FUNCTION ingest.replay(text, text, bigint) IS
    'Take pending dead letters through today''s definition, each once; condition is SQL over ingest.dead_letter';

CREATE FUNCTION ingest.discard(pipeline text, condition text DEFAULT NULL, remove boolean DEFAULT false)
    RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_discard';
COMMENT ON FUNCTION ingest.discard(text, text, boolean) IS
    'Mark pending dead letters as discarded, or remove them, resolved ones too, for good; how many';
