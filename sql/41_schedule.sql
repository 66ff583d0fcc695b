-- When pipelines run.

CREATE FUNCTION ingest.next_runs(schedule text, after timestamptz DEFAULT now(), count integer DEFAULT 5,
                                 options jsonb DEFAULT '{}', previous timestamptz DEFAULT NULL)
    RETURNS SETOF timestamptz LANGUAGE c STABLE PARALLEL SAFE ROWS 5
    AS 'MODULE_PATHNAME', 'ingest_sql_next_runs';
COMMENT ON FUNCTION ingest.next_runs(text, timestamptz, integer, jsonb, timestamptz) IS
    'The next times of a schedule, with a pipeline''s options; the last one was "previous" (default: "after"), what was due since then comes first';

CREATE FUNCTION ingest.run_now(pipeline text)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_sql_run_now';
COMMENT ON FUNCTION ingest.run_now(text) IS
    'Let a pipeline that was started run at once in background, whatever its schedule says, from the commit on';

CREATE PROCEDURE ingest.wait_for(pipeline text, timeout interval DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_sql_wait_for';
COMMENT ON PROCEDURE ingest.wait_for(text, interval) IS
    'Wait until a pipeline that was started has committed all that its source holds now';

-- ---- backfill

CREATE PROCEDURE ingest.backfill(pipeline text, from_value text, to_value text, step text DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'ingest_sql_backfill';
COMMENT ON PROCEDURE ingest.backfill(text, text, text, text) IS
    'Read a part of the source beside the live pipeline, slice by slice: from a value of the cursor (Kafka: a time or an offset) until before another; called again, it goes on';

CREATE VIEW ingest.backfill_status WITH (security_barrier) AS
SELECT b.id, p.name AS pipeline, b.from_value, b.to_value, b.step, b.next_value, b.slices,
       b.read, b.written, b.rejected, b.started_at, b.moved_at, b.finished_at
FROM ingest._backfill b JOIN ingest._pipeline p ON p.id = b.pipeline_id
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW ingest.backfill_status IS 'Backfills, and how far they have come';
COMMENT ON COLUMN ingest.backfill_status.id IS 'Number of the backfill';
COMMENT ON COLUMN ingest.backfill_status.pipeline IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.backfill_status.from_value IS 'Where it begins';
COMMENT ON COLUMN ingest.backfill_status.to_value IS 'Where it ends, without this value';
COMMENT ON COLUMN ingest.backfill_status.step IS 'How much a slice has; NULL: all of it';
COMMENT ON COLUMN ingest.backfill_status.next_value IS 'Everything before this value is done';
COMMENT ON COLUMN ingest.backfill_status.slices IS 'Slices that are done';
COMMENT ON COLUMN ingest.backfill_status.read IS 'Rows read in these slices';
COMMENT ON COLUMN ingest.backfill_status.written IS 'Rows written into the target';
COMMENT ON COLUMN ingest.backfill_status.rejected IS 'Rows that became dead letters';
COMMENT ON COLUMN ingest.backfill_status.started_at IS 'When it was begun';
COMMENT ON COLUMN ingest.backfill_status.moved_at IS 'When a slice was last done';
COMMENT ON COLUMN ingest.backfill_status.finished_at IS 'When all of it was done';
