-- When pipelines run.

CREATE FUNCTION ingest.next_runs(schedule text, after timestamptz DEFAULT now(), count integer DEFAULT 5,
                                 options jsonb DEFAULT '{}')
    RETURNS SETOF timestamptz LANGUAGE c STABLE PARALLEL SAFE ROWS 5
    AS 'MODULE_PATHNAME', 'ingest_sql_next_runs';
COMMENT ON FUNCTION ingest.next_runs(text, timestamptz, integer, jsonb) IS
    'The next times of a schedule, an interval counting from "after"; options: time_zone, jitter, active_hours';

CREATE FUNCTION ingest.run_now(pipeline text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_run_now';
COMMENT ON FUNCTION ingest.run_now(text) IS
    'Let a pipeline that was started run at once in background, whatever its schedule says, from the commit on';
