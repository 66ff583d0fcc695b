-- ingest.pipeline_status: what a pipeline does, and why it does not.

CREATE VIEW ingest.pipeline_status WITH (security_barrier) AS
WITH workers AS MATERIALIZED (
    SELECT w.pipeline_id FROM ingest._workers() w)
SELECT p.name,
       now.state,
       p.schedule,
       coalesce((p.options ->> 'workers')::integer, 1) AS workers,
       live.n AS running,
       l.lane,
       l.reason AS lane_reason,
       position.lag,
       batch.rows_per_second,
       coalesce(t.read, 0) + batch.read AS read,
       coalesce(t.written, 0) + batch.written AS written,
       coalesce(t.rejected, 0) + batch.rejected AS rejected,
       coalesce(t.dropped, 0) + batch.dropped AS dropped,
       coalesce(t.merged, 0) + batch.merged AS merged,
       coalesce(t.skipped, 0) + batch.skipped AS skipped,
       coalesce(t.warned, 0) + batch.warned AS warned,
       letter.pending AS dead_letters,
       batch.last_batch_at,
       s.sqlstate,
       s.message AS last_error,
       CASE WHEN pg_catalog.pg_has_role(p.owner, 'USAGE') THEN s.detail END AS detail,
       coalesce(s.hint, CASE WHEN now.state = 'waiting' THEN 'Pipeline ' || pg_catalog.quote_ident(blocked.name) || ' does not run: ' || blocked.why || '.' END,
                now.hint) AS hint,
       s.error_at,
       coalesce(s.attempts, 0) AS attempts,
       s.retry_at,
       s.next_run,
       p.source,
       p.target,
       p.owner
FROM ingest._pipeline p
LEFT JOIN ingest._state s ON s.pipeline_id = p.id
LEFT JOIN ingest._total t ON t.pipeline_id = p.id
CROSS JOIN LATERAL ingest._lane(p.id) l
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*)::integer AS n FROM workers w WHERE w.pipeline_id = p.id) live
CROSS JOIN LATERAL (
    SELECT pg_catalog.sum(o.lag)::bigint AS lag FROM ingest._position o WHERE o.pipeline_id = p.id) position
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS pending FROM ingest._dead_letter d
    WHERE d.pipeline_id = p.id AND d.outcome = 'pending') letter
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.sum(b.read), 0)::bigint AS read,
           coalesce(pg_catalog.sum(b.written), 0)::bigint AS written,
           coalesce(pg_catalog.sum(b.rejected), 0)::bigint AS rejected,
           coalesce(pg_catalog.sum(b.dropped), 0)::bigint AS dropped,
           coalesce(pg_catalog.sum(b.merged), 0)::bigint AS merged,
           coalesce(pg_catalog.sum(b.skipped), 0)::bigint AS skipped,
           coalesce(pg_catalog.sum(b.warned), 0)::bigint AS warned,
           pg_catalog.max(b.finished_at) AS last_batch_at,
           pg_catalog.round((coalesce(pg_catalog.sum(b.read) FILTER (WHERE r.recent), 0) /
               greatest(1, least(60, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() -
                   pg_catalog.min(b.started_at) FILTER (WHERE r.recent)))))::numeric)::bigint AS rows_per_second
    FROM ingest._batch b
    CROSS JOIN LATERAL (
        SELECT b.finished_at > pg_catalog.clock_timestamp() - interval '1 minute' AS recent) r
    WHERE b.pipeline_id = p.id AND b.kind = 'turn') batch
CROSS JOIN LATERAL ingest._blocked(CASE WHEN p.upstream IS NOT NULL THEN p.id END) blocked
CROSS JOIN LATERAL (
    SELECT * FROM (
        VALUES (1, NOT p.enabled AND live.n > 0, 'stopping', NULL),
               (2, NOT p.enabled, 'stopped', NULL),
               (3, p.home IS DISTINCT FROM ingest._home(), 'stopped',
                'It was started in another database or cluster; ingest.start() starts it here.'),
               (4, s.halt IS NOT NULL, s.halt, 'ingest.start() goes on.'),
               (5, NOT ingest._background(), 'stopped', 'Add ingest to shared_preload_libraries.'),
               (6, s.retry_at > pg_catalog.clock_timestamp(), 'backoff', NULL),
               (7, live.n > 0, 'running', NULL),
               (8, blocked.name IS NOT NULL, 'waiting', NULL),
               (9, p.schedule <> 'continuous' AND (s.next_run > pg_catalog.clock_timestamp() OR
                    p.upstream IS NOT NULL OR p.schedule = 'manual'), 'idle', NULL),
               (10, (SELECT is_full FROM ingest._supervisor()), 'queued',
                'All worker slots are taken: see ingest.max_workers and max_worker_processes.'),
               (11, true, 'starting', NULL)) AS state (ordinal, holds, state, hint)
    WHERE holds ORDER BY ordinal LIMIT 1) now
WHERE pg_catalog.pg_has_role(p.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW ingest.pipeline_status IS 'What each pipeline does, and why it does not';
COMMENT ON COLUMN ingest.pipeline_status.name IS 'Name of the pipeline';
COMMENT ON COLUMN ingest.pipeline_status.state IS 'stopped, stopping, starting, queued, running, idle (until its next run), waiting (for a pipeline it runs after that does not run), backoff, paused, gap, broken, failed';
COMMENT ON COLUMN ingest.pipeline_status.schedule IS 'When it runs';
COMMENT ON COLUMN ingest.pipeline_status.workers IS 'Workers it is to have';
COMMENT ON COLUMN ingest.pipeline_status.running IS 'Workers it has';
COMMENT ON COLUMN ingest.pipeline_status.lane IS 'How rows are written: direct or statement';
COMMENT ON COLUMN ingest.pipeline_status.lane_reason IS 'Why it is not the direct lane';
COMMENT ON COLUMN ingest.pipeline_status.lag IS 'Messages of the source not yet read, as of the last batch';
COMMENT ON COLUMN ingest.pipeline_status.rows_per_second IS 'Rows read a second, over the last minute';
COMMENT ON COLUMN ingest.pipeline_status.read IS 'Rows read from the source since the pipeline exists';
COMMENT ON COLUMN ingest.pipeline_status.written IS 'Of these, written into the target';
COMMENT ON COLUMN ingest.pipeline_status.rejected IS 'Of these, turned into dead letters';
COMMENT ON COLUMN ingest.pipeline_status.dropped IS 'Of these, dropped by a rule';
COMMENT ON COLUMN ingest.pipeline_status.merged IS 'Of these, merged away into others';
COMMENT ON COLUMN ingest.pipeline_status.skipped IS 'Messages without a value that were skipped';
COMMENT ON COLUMN ingest.pipeline_status.warned IS 'Rows written although they violate a rule that only warns';
COMMENT ON COLUMN ingest.pipeline_status.dead_letters IS 'Dead letters that wait for replay or discard';
COMMENT ON COLUMN ingest.pipeline_status.last_batch_at IS 'When the last batch was committed';
COMMENT ON COLUMN ingest.pipeline_status.sqlstate IS 'Code of the error that halted it or made it wait';
COMMENT ON COLUMN ingest.pipeline_status.last_error IS 'The error that halted it or made it wait';
COMMENT ON COLUMN ingest.pipeline_status.detail IS 'More about the error; for members of the owner only';
COMMENT ON COLUMN ingest.pipeline_status.hint IS 'What to do about it';
COMMENT ON COLUMN ingest.pipeline_status.error_at IS 'When the error happened';
COMMENT ON COLUMN ingest.pipeline_status.attempts IS 'Failures in a row';
COMMENT ON COLUMN ingest.pipeline_status.retry_at IS 'When it is tried again';
COMMENT ON COLUMN ingest.pipeline_status.next_run IS 'When its schedule runs it next';
COMMENT ON COLUMN ingest.pipeline_status.source IS 'Relation it reads';
COMMENT ON COLUMN ingest.pipeline_status.target IS 'Relation it writes to';
COMMENT ON COLUMN ingest.pipeline_status.owner IS 'Role it runs as';
