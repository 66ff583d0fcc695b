-- Who may do what to whose pipeline.
\set SHOW_CONTEXT never
\set VERBOSITY default
CREATE ROLE regress_ingest_owner LOGIN;
CREATE ROLE regress_ingest_member LOGIN;
CREATE ROLE regress_ingest_other LOGIN;
CREATE ROLE regress_ingest_monitor LOGIN;
GRANT regress_ingest_owner TO regress_ingest_member;
GRANT pg_monitor TO regress_ingest_monitor;
CREATE SCHEMA pr AUTHORIZATION regress_ingest_owner;
GRANT USAGE ON SCHEMA pr TO PUBLIC;
CREATE SERVER pr_server FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '127.0.0.1:1');

-- Nothing with an effect is for everybody, and no table is for anybody.
SELECT p.oid::regprocedure AS for_everybody FROM pg_proc p
WHERE p.pronamespace = 'ingest'::regnamespace
  AND has_function_privilege('regress_ingest_other', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT c.oid::regclass AS open FROM pg_class c
WHERE c.relnamespace = 'ingest'::regnamespace AND c.relkind IN ('r', 'S')
  AND (has_table_privilege('regress_ingest_other', c.oid, 'SELECT')
       OR c.relkind = 'r' AND has_table_privilege('regress_ingest_other', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'));

SET ROLE regress_ingest_owner;
CREATE TABLE pr.target (id integer, name text);
SELECT ingest.create_pipeline('p', 'pr.target', 'pr.target');
RESET ROLE;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO regress_ingest_owner, regress_ingest_member, regress_ingest_other;

-- USAGE on the server, SELECT on the source
SET ROLE regress_ingest_owner;
CREATE FOREIGN TABLE pr.source (id integer, name text) SERVER pr_server OPTIONS (topic 't');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER pr_server TO regress_ingest_owner;
SET ROLE regress_ingest_owner;
CREATE FOREIGN TABLE pr.source (id integer, name text) SERVER pr_server OPTIONS (topic 't');
SELECT ingest.create_pipeline('p', 'pr.source', 'pr.target');
SELECT ingest.add_rule('p', 'positive', 'id > 0');
RESET ROLE;

-- A superuser does not write into somebody's table, nor read somebody's source
SELECT ingest.create_pipeline('root', 'pr.source', 'pr.target');
CREATE FOREIGN TABLE pr.root_source (id integer, name text) SERVER pr_server OPTIONS (topic 't');
SELECT ingest.create_pipeline('root', 'pr.root_source', 'pr.target');

-- INSERT is not enough: the target's owner runs code as the pipeline's
SET ROLE regress_ingest_owner;
GRANT SELECT ON pr.source TO regress_ingest_other;
GRANT INSERT ON pr.target TO regress_ingest_other;
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER pr_server TO regress_ingest_other;
SET ROLE regress_ingest_other;
SELECT ingest.create_pipeline('mine', 'pr.source', 'pr.target');

-- Others see nothing and can do nothing
SELECT count(*) FROM ingest.pipeline;
SELECT count(*) FROM ingest.rule;
SELECT count(*) FROM ingest.pipeline_status;
SELECT ingest._lane(id) FROM (SELECT max(id) AS id FROM generate_series(1, 100) id) AS i;
SELECT ingest.alter_pipeline('p', options => '{"workers": 2}');
SELECT ingest.alter_pipeline('p', owner => 'regress_ingest_other');
SELECT ingest.drop_pipeline('p');
SELECT ingest.add_rule('p', 'r', 'true');
SELECT ingest.drop_rule('p', 'positive');
SELECT ingest.add_transform('p', 't', 'SELECT 1');
SELECT ingest.drop_transform('p', 't');
SELECT ingest.start('p');
SELECT ingest.stop('p');
SELECT * FROM ingest.seek('p', 'earliest');
SELECT * FROM ingest.preview('p');
SELECT ingest.replay('p');
SELECT ingest.discard('p');
CALL ingest.run('p');
SELECT ingest.start('q');
INSERT INTO ingest._pipeline (name) VALUES ('x');
UPDATE ingest._pipeline SET owner = 'regress_ingest_other';
DELETE FROM ingest.pipeline;
SELECT * FROM ingest._dead_letter;
RESET ROLE;

-- Members do, but run the owner's SQL only as the owner
SET ROLE regress_ingest_member;
SELECT name FROM ingest.pipeline;
SELECT pipeline, name FROM ingest.rule;
SELECT ingest.add_rule('p', 'named', 'name <> ''''');
SELECT ingest.alter_pipeline('p', options => '{"workers": 2}');
SELECT * FROM ingest.preview('p');
SELECT ingest.replay('p');
CALL ingest.run('p');
SELECT ingest.discard('p');
RESET ROLE;
CALL ingest.run('p');

-- Monitors see the status, not the data
INSERT INTO ingest._dead_letter (pipeline_id, batch_id, version, shard, "offset", row_number, payload, stage, message)
    SELECT id, 1, 1, '0', 0, 1, 'secret payload', 'rule', 'message' FROM ingest._pipeline WHERE name = 'p';
UPDATE ingest._state SET message = 'message', detail = 'secret detail'
    WHERE pipeline_id = (SELECT id FROM ingest._pipeline WHERE name = 'p');
SET ROLE regress_ingest_monitor;
SELECT name, state, lane, dead_letters, last_error, detail FROM ingest.pipeline_status;
SELECT count(*) FROM ingest.dead_letter;
SELECT count(*) FROM ingest.pipeline;
RESET ROLE;
SET ROLE regress_ingest_owner;
SELECT name, dead_letters, last_error, detail FROM ingest.pipeline_status;
SELECT pipeline, payload_text FROM ingest.dead_letter;

-- A condition is one expression, run as the caller
SELECT ingest.discard('p', 'true) OR (true');
SELECT ingest.discard('p', 'true; DELETE FROM pr.target');
SELECT ingest.discard('p', 'no_column = 1');
SELECT ingest.discard('p', 'message = ''nothing'' -- comment');
SELECT ingest.discard('p', 'EXISTS (SELECT FROM ingest._dead_letter)');
SELECT ingest.discard('p', 'message = ''message'' -- comment');
SELECT outcome FROM ingest.dead_letter;
SELECT ingest.discard('p', remove => true);
RESET ROLE;

-- A user's functions do not run with the rights of whoever defines
SET ROLE regress_ingest_other;
CREATE SCHEMA IF NOT EXISTS pr_trap;
RESET ROLE;
CREATE SCHEMA pr_trap AUTHORIZATION regress_ingest_owner;
SET ROLE regress_ingest_owner;
SET search_path = pr_trap, public;
CREATE FUNCTION whoami(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN RAISE NOTICE ''planned as %'', current_user; RETURN true; END';
SELECT ingest.create_pipeline('trap', 'pr.source', 'pr.target');
RESET ROLE;
SELECT ingest.add_rule('trap', 'trap', 'whoami(1)');
SELECT current_user, current_setting('search_path');
SELECT ingest.drop_pipeline('trap');
RESET search_path;

-- Giving away
SET ROLE regress_ingest_owner;
SELECT ingest.alter_pipeline('p', owner => 'regress_ingest_other');
RESET ROLE;
SELECT ingest.alter_pipeline('p', owner => 'regress_ingest_other');
SELECT ingest.alter_pipeline('p', owner => 'regress_ingest_member');

-- A role that is gone, or must not log in
ALTER ROLE regress_ingest_member NOLOGIN;
SELECT ingest.start('p');
UPDATE ingest._pipeline SET owner = 1 WHERE name = 'p';
SELECT ingest.start('p');
SELECT name, state, owner FROM ingest.pipeline_status;
SELECT ingest.drop_pipeline('p');

SET client_min_messages = warning;
DROP SCHEMA pr CASCADE;
DROP SCHEMA pr_trap CASCADE;
DROP SERVER pr_server CASCADE;
DROP OWNED BY regress_ingest_owner, regress_ingest_member, regress_ingest_other, regress_ingest_monitor;
DROP ROLE regress_ingest_owner, regress_ingest_member, regress_ingest_other, regress_ingest_monitor;
