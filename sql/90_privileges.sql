-- Who may do what.  Everybody may look, and sees what is theirs; what has an
-- effect is granted by the administrator:
--
--   GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO etl;

REVOKE ALL ON ALL ROUTINES IN SCHEMA ingest FROM PUBLIC;

GRANT USAGE ON SCHEMA ingest TO PUBLIC;
GRANT SELECT ON ingest.pipeline, ingest.rule, ingest.transform, ingest.position,
    ingest.pipeline_status, ingest.batch_history, ingest.dead_letter, ingest.gap,
    ingest.option_help, ingest.metadata_help, ingest.http_server, ingest.backfill_status TO PUBLIC;
GRANT EXECUTE ON FUNCTION ingest._home(), ingest._background(), ingest._lane(integer), ingest._blocked(integer), ingest._workers(),
    ingest._supervisor(), ingest._options(), ingest._metadata(), ingest._http_servers(),
    ingest.payload_text(bytea), ingest.batch(anyelement), ingest._begin_rule(integer) TO PUBLIC;
