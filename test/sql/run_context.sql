-- CALL ingest.run() commits: it says so where it cannot.
\set SHOW_CONTEXT never
CREATE SCHEMA rc;
SET search_path = rc, public;
CREATE SERVER rc_server FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '127.0.0.1:1', timeout '200 ms');
CREATE FOREIGN TABLE source (id integer) SERVER rc_server OPTIONS (topic 't');
CREATE TABLE target (id integer);
SELECT ingest.create_pipeline('p', 'source', 'target');

BEGIN;
CALL ingest.run('p');
ROLLBACK;
CREATE FUNCTION runs() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL ingest.run('p'); END $$;
SELECT runs();
CALL ingest.run('q');
CALL ingest.run(NULL);

-- Nobody answers: an error, and everything is as it was.
\set VERBOSITY sqlstate
CALL ingest.run('p');
DO $$ BEGIN CALL ingest.run('p'); END $$;
SELECT * FROM ingest.preview('p');
SELECT * FROM ingest.seek('p', 'latest');
SELECT * FROM source;
\set VERBOSITY default
SELECT * FROM ingest.preview('p', 0);
SELECT * FROM ingest.seek('p');
SELECT * FROM ingest.seek('p', 'latest', '{"0": 1}');
SELECT state, last_error, read FROM ingest.pipeline_status;
SELECT count(*) FROM ingest.batch_history;
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
SELECT ingest.replay('p');

SELECT ingest.drop_pipeline('p');
SET client_min_messages = warning;
DROP SCHEMA rc CASCADE;
DROP SERVER rc_server CASCADE;
