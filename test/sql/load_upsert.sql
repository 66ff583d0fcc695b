-- Rows that are written by key: merged within a batch, left alone when they are the
-- same; what a target has to have for it.
SET client_min_messages = notice;
CREATE SCHEMA upsert;
SET search_path = upsert, public;

CREATE TABLE feed (n serial PRIMARY KEY, k int, v text, doc json, big numeric);
CREATE TABLE target (k int PRIMARY KEY, v text DEFAULT 'never', doc json, big numeric, extra text DEFAULT 'kept',
                     twice numeric GENERATED ALWAYS AS (big * 2) STORED);
CREATE FUNCTION run(name text) RETURNS TABLE (read bigint, written bigint, merged bigint, skipped bigint, rejected bigint)
    LANGUAGE sql AS $$ SELECT read, written, merged, skipped, rejected FROM ingest.batch_history
                       WHERE pipeline = name ORDER BY id DESC LIMIT 1 $$;

-- What is needed
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'upsert', options => '{"cursor": "n"}');
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'upsert', key => '{kk}', options => '{"cursor": "n"}');
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'upsert', key => '{v}', options => '{"cursor": "n"}');
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'upsert', key => '{k}', options => '{"cursor": "n", "lane": "direct"}');
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'often', key => '{k}', options => '{"cursor": "n"}');
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'upsert', key => '{k, NULL}', options => '{"cursor": "n"}');
CREATE VIEW target_view AS SELECT k, v FROM target;
SELECT ingest.create_pipeline('u', 'feed', 'target_view', mode => 'upsert', key => '{k}', options => '{"cursor": "n"}');
SELECT ingest.create_pipeline('u', 'feed', 'target', mode => 'upsert', key => '{k}', options => '{"cursor": "n"}');
SELECT lane, lane_reason FROM ingest.pipeline_status WHERE name = 'u';

-- New rows; of several with one key the last one
INSERT INTO feed (k, v, doc, big) VALUES (1, 'a', '{"x": 1}', 1.0), (2, 'b', NULL, 2), (1, 'c', '{"x": 2}', 1.0), (1, 'd', '{"x": 3}', 1.0);
CALL ingest.run('u');
SELECT * FROM run('u');
SELECT * FROM target ORDER BY k;

-- The same again, in other rows of the feed; a change that "=" does not see; a change
INSERT INTO feed (k, v, doc, big) VALUES (1, 'd', '{"x": 3}', 1.0), (2, 'b', NULL, 2.00);
UPDATE target SET extra = 'mine' WHERE k = 1;
CALL ingest.run('u');
SELECT * FROM run('u');
SELECT * FROM target ORDER BY k;

-- No key: that row alone
INSERT INTO feed (k, v) VALUES (NULL, 'lost'), (3, 'e');
CALL ingest.run('u');
SELECT * FROM run('u');
SELECT sqlstate, message, column_name, payload_text FROM ingest.dead_letter WHERE pipeline = 'u';

-- A row that makes the load fail is found among merged ones
ALTER TABLE target ADD CHECK (v <> 'bad');
INSERT INTO feed (k, v) VALUES (4, 'f'), (4, 'bad'), (5, 'g'), (5, 'h');
CALL ingest.run('u');
SELECT * FROM run('u');
SELECT k, v FROM target WHERE k >= 4 ORDER BY k;

-- A trigger sees what is written, and nothing else
CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% %', TG_OP, NEW.k; RETURN NULL; END $$;
CREATE TRIGGER say AFTER INSERT OR UPDATE ON target FOR EACH ROW EXECUTE FUNCTION say();
INSERT INTO feed (k, v, big) VALUES (5, 'h', NULL), (6, 'i', 1), (4, 'f2', NULL);
CALL ingest.run('u');
SELECT * FROM run('u');

-- The index goes: nothing is written
INSERT INTO feed (k, v) VALUES (7, 'j');
ALTER TABLE target DROP CONSTRAINT target_pkey;
CALL ingest.run('u');
ALTER TABLE target ADD PRIMARY KEY (k);
CALL ingest.run('u');

-- Partitions; only columns of the key
CREATE TABLE parted (k int, v text, PRIMARY KEY (k, v)) PARTITION BY LIST (v);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a');
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
SELECT ingest.create_pipeline('p', 'feed', 'parted', mode => 'upsert', key => '{v, k}', options => '{"cursor": "n"}');
CALL ingest.run('p');
SELECT * FROM run('p');
SELECT ingest.seek('p', start_at => 'earliest', confirm => true) IS NOT NULL;
CALL ingest.run('p');
SELECT tableoid::regclass, count(*) FROM parted GROUP BY 1 ORDER BY 1;

-- Privileges are the owner's
CREATE ROLE upsert_etl;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO upsert_etl;
GRANT USAGE, CREATE ON SCHEMA upsert TO upsert_etl;
GRANT SELECT ON feed TO upsert_etl;
SET ROLE upsert_etl;
CREATE TABLE theirs (k int PRIMARY KEY, v text);
REVOKE UPDATE, DELETE ON theirs FROM upsert_etl;
SELECT ingest.create_pipeline('x', 'feed', 'theirs', mode => 'upsert', key => '{k}', options => '{"cursor": "n"}');
GRANT UPDATE ON theirs TO upsert_etl;
SELECT ingest.create_pipeline('x', 'feed', 'theirs', mode => 'upsert', key => '{k}', options => '{"cursor": "n"}');
SELECT ingest.create_pipeline('y', 'feed', 'theirs', mode => 'replace', key => '{k}', schedule => 'manual');
RESET ROLE;

SET client_min_messages = warning;
SELECT ingest.drop_pipeline(name) FROM ingest.pipeline WHERE name IN ('u', 'p', 'x') ORDER BY name;
DROP SCHEMA upsert CASCADE;
DROP OWNED BY upsert_etl;
DROP ROLE upsert_etl;
