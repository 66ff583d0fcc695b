-- Creating, changing and dropping pipelines.  No broker answers here: nothing
-- of it may need one.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE SCHEMA pd;
SET search_path = pd, public;

CREATE SERVER pd_server FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '127.0.0.1:1');
CREATE FOREIGN TABLE source (id integer, name text, at timestamptz) SERVER pd_server OPTIONS (topic 't');
CREATE FOREIGN TABLE other_source (id integer, name text) SERVER pd_server OPTIONS (topic 'u');
CREATE TABLE target (id integer, name text, at timestamptz, added timestamptz DEFAULT now());

SELECT ingest.create_pipeline('p', 'source', 'target');
SELECT name, owner, source, target, schedule, options, search_path, version, enabled FROM ingest.pipeline;
SELECT name, state, lane, lane_reason, read, dead_letters, last_error FROM ingest.pipeline_status;

-- Names
SELECT ingest.create_pipeline('p', 'source', 'target');
SELECT ingest.create_pipeline('', 'source', 'target');
SELECT ingest.create_pipeline(repeat('x', 64), 'source', 'target');
SELECT ingest.create_pipeline(E'a\nb', 'source', 'target');
SELECT ingest.create_pipeline(NULL, 'source', 'target');
SELECT ingest.create_pipeline('q', NULL, 'target');

-- Relations
SELECT ingest.create_pipeline('q', 'nowhere', 'target');
SELECT ingest.create_pipeline('q', 'source', 99999999);
SELECT ingest.create_pipeline('q', 'target', 'target');
CREATE TABLE lacks (id integer, name text);
SELECT ingest.create_pipeline('lacks', 'source', 'lacks');
SELECT ingest.drop_pipeline('lacks');
CREATE TABLE unlike (x integer);
SELECT ingest.create_pipeline('q', 'source', 'unlike');
CREATE TABLE demands (id integer, name text, at timestamptz, more text NOT NULL);
SELECT ingest.create_pipeline('q', 'source', 'demands');
CREATE TABLE differs (id integer, name point, at timestamptz);
SELECT ingest.create_pipeline('q', 'source', 'differs');

-- Options
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"batch_row": 1}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"batch_rows": 0}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"batch_rows": "many"}');
-- The units of the hint differ between versions.
\set VERBOSITY terse
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"batch_bytes": "1 parsec"}');
\set VERBOSITY default
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"batch_wait": "a while"}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"lane": "fast"}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"error_rate": 1.5}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"start_at": "soon"}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"workers": [1]}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '{"topic": "t"}');
SELECT ingest.create_pipeline('q', 'source', 'target', options => '[]');

-- A time is that of the session that gave it
SET timezone = 'Europe/Berlin';
SELECT ingest.create_pipeline('timed', 'source', 'target', options => '{"start_at": "2026-01-01 00:00", "lane": null}');
SELECT options FROM ingest.pipeline WHERE name = 'timed';
SELECT ingest.alter_pipeline('timed', options => '{"start_at": "latest"}');
SELECT options FROM ingest.pipeline WHERE name = 'timed';
SELECT ingest.drop_pipeline('timed');

-- A lane that the target does not allow
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TABLE triggered (LIKE target);
CREATE TRIGGER noop BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION noop();
SELECT ingest.create_pipeline('q', 'source', 'triggered', options => '{"lane": "direct"}');
SELECT ingest.create_pipeline('q', 'source', 'triggered');
SELECT name, lane, lane_reason FROM ingest.pipeline_status WHERE name = 'q';

-- Schedules
\set SHOW_CONTEXT always
SELECT ingest.create_pipeline('r', 'source', 'target', schedule => 'now and then');
\set SHOW_CONTEXT never
SELECT ingest.create_pipeline('r', 'source', 'target', schedule => '0 25 * * *');
SELECT ingest.create_pipeline('r', 'source', 'target', schedule => '1 ms');
SELECT ingest.create_pipeline('r', 'source', 'target', schedule => '5 minutes');
SELECT schedule FROM ingest.pipeline WHERE name = 'r';
SELECT ingest.drop_pipeline('r');

-- Changes
SELECT ingest.alter_pipeline('p', options => '{"workers": 2, "batch_rows": 10}');
SELECT ingest.alter_pipeline('p', options => '{"workers": null, "on_gap": "skip"}');
SELECT options, version FROM ingest.pipeline WHERE name = 'p';
SELECT ingest.alter_pipeline('p', options => '{"batch_rows": -1}');
SELECT ingest.alter_pipeline('p', new_name => 'q');
SELECT ingest.alter_pipeline('p', new_name => 'p2');
SELECT ingest.alter_pipeline('p2', target => 'lacks');
SELECT ingest.alter_pipeline('p2', source => 'other_source');
SELECT source FROM ingest.pipeline WHERE name = 'p2';
SELECT ingest.create_pipeline('readings', 'source', 'target');
SELECT ingest.alter_pipeline('redings', new_name => 'p3');
SELECT ingest.drop_pipeline('readings');
SELECT ingest.alter_pipeline('p2', owner => 'nobody_at_all');

-- Another source: what about the positions?
INSERT INTO ingest._position (pipeline_id, shard, position)
    SELECT id, '0', '100' FROM ingest._pipeline WHERE name = 'p2';
SELECT ingest.alter_pipeline('p2', source => 'source');
SELECT ingest.alter_pipeline('p2', source => 'source', positions => 'lose');
SELECT ingest.alter_pipeline('p2', source => 'source', positions => 'keep');
SELECT shard, position FROM ingest.position;
SELECT ingest.alter_pipeline('p2', source => 'other_source', positions => 'forget');
SELECT shard, position FROM ingest.position;

-- Transactional
BEGIN;
SELECT ingest.create_pipeline('gone', 'source', 'target');
SELECT ingest.add_rule('gone', 'r', 'id > 0');
ROLLBACK;
SELECT name FROM ingest.pipeline ORDER BY 1;

-- What the pipeline is made of goes away, or changes its name
SELECT ingest.alter_pipeline('p2', target => 'target');
ALTER TABLE target RENAME TO goal;
SELECT target FROM ingest.pipeline WHERE name = 'p2';
DROP TABLE goal;
SELECT name, state, lane, lane_reason FROM ingest.pipeline_status WHERE name = 'p2';
\set VERBOSITY terse
SELECT ingest.start('p2');
SELECT ingest.add_rule('p2', 'r', 'id > 0');
\set VERBOSITY default

-- Dropping
SELECT ingest.drop_pipeline('p2');
SELECT ingest.drop_pipeline('q');
SELECT ingest.drop_pipeline('p2');
SELECT count(*) FROM ingest._state;

SET client_min_messages = warning;
DROP SCHEMA pd CASCADE;
DROP SERVER pd_server CASCADE;
