-- When pipelines run.

CREATE FUNCTION ingest.next_runs(schedule text, after timestamptz DEFAULT now(), count integer DEFAULT 5,
                                 options jsonb DEFAULT '{}')
    RETURNS SETOF timestamptz LANGUAGE c STABLE PARALLEL SAFE ROWS 5
    AS 'MODULE_PATHNAME', 'ingest_sql_next_runs';
COMMENT ON FUNCTION ingest.next_runs(text, timestamptz, integer, jsonb) IS
    'The next times of a schedule, an interval counting from "after"; options: time_zone, jitter, active_hours';
