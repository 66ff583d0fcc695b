-- Rules and transforms are checked when they are added.
\set SHOW_CONTEXT never
CREATE SCHEMA rd;
SET search_path = rd, public;

CREATE SERVER rd_server FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '127.0.0.1:1');
CREATE FOREIGN TABLE source (id integer, name text, "Odd Name" float8) SERVER rd_server OPTIONS (topic 't');
CREATE TABLE target (id integer, name text, "Odd Name" float8);
CREATE TABLE known (id integer PRIMARY KEY);
SELECT ingest.create_pipeline('p', 'source', 'target');

SELECT ingest.add_rule('p', 'positive', 'id > 0');
SELECT ingest.add_rule('p', 'odd', '"Odd Name" < 10', on_violation => 'warn', null_ok => true);
SELECT ingest.add_rule('p', 'known', 'EXISTS (SELECT FROM known k WHERE k.id = batch.id)', 'drop');
SELECT ingest.add_rule('p', 'comment', 'name <> ''x'' -- not x', 'fail');
SELECT name, ordinal, expression, on_violation, null_ok, violations FROM ingest.rule ORDER BY ordinal;
SELECT version FROM ingest.pipeline;

-- What is wrong is said, with the place
SELECT ingest.add_rule('p', 'positive', 'id > 1');
SELECT ingest.add_rule('p', 'bad', 'idd > 0');
SELECT ingest.add_rule('p', 'bad', 'id >');
SELECT ingest.add_rule('p', 'bad', 'id + 1');
SELECT ingest.add_rule('p', 'bad', 'count(*) > 0');
SELECT ingest.add_rule('p', 'bad', 'true) OR (true');
SELECT ingest.add_rule('p', 'bad', 'true; DROP TABLE target');
SELECT ingest.add_rule('p', 'bad', '');
SELECT ingest.add_rule('p', 'bad', NULL);
SELECT ingest.add_rule('p', 'bad', 'id > 0', 'ignore');
SELECT ingest.add_rule('p', NULL, 'id > 0');
SELECT ingest.add_rule('pipelin', 'bad', 'id > 0');
SELECT ingest.add_rule('p', 'bad', 'no_function(id)');

SELECT ingest.drop_rule('p', 'positive');
SELECT ingest.drop_rule('p', 'positive');

-- Functions are found where they were when the pipeline was created
CREATE FUNCTION is_even(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = 0';
SET search_path = public;
SELECT ingest.add_rule('p', 'even', 'is_even(id)');
SET search_path = rd, public;

-- Transforms
CREATE TABLE latest (id integer PRIMARY KEY, name text);
SELECT ingest.add_transform('p', 'latest', 'INSERT INTO latest SELECT id, max(name) FROM batch GROUP BY id
    ON CONFLICT (id) DO UPDATE SET name = excluded.name');
CREATE FUNCTION count_batch() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM ingest.batch(NULL::rd.source)';
SELECT ingest.add_transform('p', 'count', 'SELECT count_batch()');
SELECT name, ordinal, statement FROM ingest.transform ORDER BY ordinal;

SELECT ingest.add_transform('p', 'latest', 'SELECT 1');
SELECT ingest.add_transform('p', 'bad', 'SELECT nothing FROM batch');
SELECT ingest.add_transform('p', 'bad', 'SELEC 1');
SELECT ingest.add_transform('p', 'bad', 'SELECT 1; SELECT 2');
SELECT ingest.add_transform('p', 'bad', 'COMMIT');
SELECT ingest.add_transform('p', 'bad', 'SET ROLE postgres');
SELECT ingest.add_transform('p', 'bad', '');
SELECT ingest.drop_transform('p', 'count');
SELECT ingest.drop_transform('p', 'count');

-- A source with which the rules no longer work
CREATE FOREIGN TABLE narrow (id integer) SERVER rd_server OPTIONS (topic 't');
SELECT ingest.alter_pipeline('p', source => 'narrow');

-- Outside a transform there is no batch
SELECT * FROM ingest.batch(NULL::source);

SELECT ingest.drop_pipeline('p');
SELECT count(*) FROM ingest._rule;
SET client_min_messages = warning;
DROP SCHEMA rd CASCADE;
DROP SERVER rd_server CASCADE;
