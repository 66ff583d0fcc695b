-- Targets that only the statement lane can write, and which lane is chosen why.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA ls;
SET search_path = ls;
CREATE SERVER ls_server FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '127.0.0.1:1');
CREATE FOREIGN TABLE source (id integer, name text, at timestamptz) SERVER ls_server OPTIONS (topic 't');

-- Messages come from dead letters that are replayed
CREATE FUNCTION load(target regclass, messages text)
RETURNS TABLE (lane text, read bigint, written bigint, rejected bigint, skipped bigint)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ingest.pipeline WHERE name = 'ls') THEN
        PERFORM ingest.create_pipeline('ls', 'source', target);
    ELSE
        DELETE FROM ingest._dead_letter d USING ingest._pipeline p WHERE p.id = d.pipeline_id AND p.name = 'ls';
        PERFORM ingest.alter_pipeline('ls', target => target);
    END IF;
    INSERT INTO ingest._dead_letter (pipeline_id, batch_id, version, shard, "offset", row_number, payload, stage, message)
    SELECT p.id, 0, 1, '0', n, 0, convert_to(m, 'UTF8'), 'load', 'a test'
    FROM ingest._pipeline p, string_to_table(messages, E'\n') WITH ORDINALITY t(m, n)
    WHERE p.name = 'ls' AND m <> '';
    RETURN QUERY SELECT s.lane, r.read, r.written, r.rejected, r.skipped
    FROM ingest.replay('ls') r, ingest.pipeline_status s WHERE s.name = 'ls';
END $$;
CREATE VIEW letters AS
SELECT convert_from(payload, 'UTF8')::json->>'id' AS id, sqlstate, message, detail
FROM ingest.dead_letter WHERE pipeline = 'ls' AND outcome = 'pending' ORDER BY id;
CREATE VIEW lane AS SELECT lane, lane_reason FROM ingest.pipeline_status WHERE name = 'ls';

\set rows '''{"id": 1, "name": "a", "at": "2026-01-01T00:00:00Z"}\n{"id": 2, "name": "b"}\n{"id": 3, "name": "c", "at": "2026-01-03T00:00:00Z"}\n{"id": 4, "name": null, "at": "2026-01-04T00:00:00Z"}\n{"id": 5, "name": "e", "at": "2026-01-05T00:00:00Z"}'''

-- Triggers change, discard and refuse rows
CREATE TABLE triggered (id integer, name text NOT NULL, at timestamptz);
CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.id = 2 THEN RETURN NULL; END IF;
    IF new.id = 3 THEN RAISE EXCEPTION 'three is refused' USING ERRCODE = '22023', DETAIL = 'For a reason.'; END IF;
    new.name := coalesce(new.name, 'made up');
    RETURN new;
END $$;
CREATE TRIGGER judge BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION judge();
SELECT * FROM load('triggered', E:rows);
SELECT * FROM triggered ORDER BY id;
TABLE letters;
TABLE lane;

-- F12: foreign keys, also deferred ones
CREATE TABLE known (id integer PRIMARY KEY);
INSERT INTO known VALUES (1), (3), (5);
CREATE TABLE referring (id integer REFERENCES known, name text, at timestamptz);
SELECT * FROM load('referring', E:rows);
SELECT * FROM referring ORDER BY id;
TABLE letters;
TABLE lane;
CREATE TABLE deferring (id integer REFERENCES known DEFERRABLE INITIALLY DEFERRED, name text, at timestamptz);
SELECT * FROM load('deferring', E:rows);
SELECT * FROM deferring ORDER BY id;
TABLE letters;

-- A unique constraint that is checked at the end
CREATE TABLE late_unique (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED, name text);
INSERT INTO late_unique VALUES (4, 'there');
SELECT * FROM load('late_unique', E:rows);
SELECT * FROM late_unique ORDER BY id;
TABLE letters;
TABLE lane;

-- Row security: a row that a policy refuses is never dropped silently
CREATE ROLE regress_ls_owner;
GRANT USAGE, CREATE ON SCHEMA ls TO regress_ls_owner;
GRANT USAGE ON FOREIGN SERVER ls_server TO regress_ls_owner;
CREATE TABLE guarded (id integer, name text);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY low ON guarded USING (true) WITH CHECK (id < 4);
ALTER TABLE guarded OWNER TO regress_ls_owner;
GRANT SELECT ON source TO regress_ls_owner;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO regress_ls_owner;
SELECT set_config('ls.rows', E:rows, false) IS NOT NULL;
INSERT INTO ingest._pipeline (name, owner, source, target, search_path)
VALUES ('guard', 'regress_ls_owner', 'source', 'guarded', 'pg_temp');
INSERT INTO ingest._state (pipeline_id) SELECT id FROM ingest._pipeline WHERE name = 'guard';
INSERT INTO ingest._dead_letter (pipeline_id, batch_id, version, shard, "offset", row_number, payload, stage, message)
SELECT p.id, 0, 1, '0', n, 0, convert_to(m, 'UTF8'), 'load', 'a test'
FROM ingest._pipeline p, string_to_table(current_setting('ls.rows'), E'\n') WITH ORDINALITY t(m, n) WHERE p.name = 'guard';
SELECT lane, lane_reason FROM ingest.pipeline_status WHERE name = 'guard';
SET ROLE regress_ls_owner;
SELECT read, written, rejected FROM ingest.replay('guard');
SELECT id FROM guarded ORDER BY id;
SELECT convert_from(payload, 'UTF8')::json->>'id' AS id, sqlstate, message FROM ingest.dead_letter WHERE pipeline = 'guard' AND outcome = 'pending';
RESET ROLE;
SELECT ingest.drop_pipeline('guard');

-- Views: updatable with a check option, with a trigger; rules
CREATE TABLE base (id integer, name text, at timestamptz);
CREATE VIEW checked AS SELECT id, name FROM base WHERE id < 4 WITH CHECK OPTION;
SELECT * FROM load('checked', E:rows);
SELECT * FROM base ORDER BY id;
TABLE letters;
TABLE lane;
CREATE VIEW joined AS SELECT b.id, b.name, k.id AS known FROM base b JOIN known k USING (id);
CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.id = 2 THEN RETURN NULL; END IF;
    INSERT INTO base VALUES (new.id * 10, new.name);
    RETURN new;
END $$;
CREATE TRIGGER put INSTEAD OF INSERT ON joined FOR EACH ROW EXECUTE FUNCTION put();
SELECT * FROM load('joined', E:rows);
SELECT * FROM base WHERE id >= 10 ORDER BY id;
CREATE TABLE ruled (id integer, name text);
CREATE TABLE elsewhere (id integer, name text);
CREATE RULE away AS ON INSERT TO ruled DO INSTEAD INSERT INTO elsewhere VALUES (new.id, new.name);
SELECT * FROM load('ruled', E:rows);
SELECT count(*) FROM elsewhere;
TABLE lane;

-- Partitions of partitions; a partition with a trigger; a key that is an expression
CREATE TABLE deep (id integer, name text, at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE deep_1 PARTITION OF deep FOR VALUES FROM ('2026-01-01') TO ('2026-01-04') PARTITION BY LIST (name);
CREATE TABLE deep_1_a PARTITION OF deep_1 FOR VALUES IN ('a');
SELECT ingest.manage_partitions('deep', '1 day', ahead => 0, bounds => '[2026-01-01, 2026-02-01)');
SELECT * FROM load('deep', E:rows);
SELECT tableoid::regclass, * FROM deep ORDER BY id;
TABLE letters;
TABLE lane;
CREATE TABLE parts (id integer, name text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (1) TO (4);
CREATE TABLE part_4 PARTITION OF parts FOR VALUES FROM (4) TO (9);
CREATE TRIGGER judge BEFORE INSERT ON part_4 FOR EACH ROW EXECUTE FUNCTION judge();
SELECT * FROM load('parts', E:rows);
SELECT tableoid::regclass, * FROM parts ORDER BY id;
TABLE lane;
CREATE TABLE halves (id integer, name text) PARTITION BY RANGE ((id / 2));
CREATE TABLE half_1 PARTITION OF halves FOR VALUES FROM (0) TO (2);
SELECT * FROM load('halves', E:rows);
SELECT id FROM halves ORDER BY id;
TABLE letters;
TABLE lane;

-- The key's default says which partition there has to be
CREATE TABLE stamped (id integer, name text, stamped_at timestamptz DEFAULT '2026-01-15 12:00') PARTITION BY RANGE (stamped_at);
SELECT ingest.manage_partitions('stamped', '1 month', ahead => 0, bounds => '[2026-01-01, 2026-02-01)');
SELECT ingest.alter_pipeline('ls', options => '{"lane": "statement"}');
SELECT * FROM load('stamped', E:rows);
SELECT tableoid::regclass, * FROM stamped ORDER BY id;
TABLE lane;

-- The prepared statement follows the table
ALTER TABLE stamped ADD COLUMN at timestamptz, ALTER COLUMN name TYPE varchar(3);
SELECT * FROM load('stamped', '{"id": 6, "name": "f", "at": "2026-01-01T00:00:00Z"}');
SELECT * FROM stamped WHERE id = 6;

-- Refused when the pipeline is defined
CREATE TABLE always (id integer GENERATED ALWAYS AS IDENTITY, name text);
SELECT ingest.alter_pipeline('ls', target => 'always');
CREATE TABLE computed (id integer, name text GENERATED ALWAYS AS ('x') STORED);
SELECT ingest.alter_pipeline('ls', target => 'computed');
CREATE TABLE pointed (id integer, name point);
SELECT ingest.alter_pipeline('ls', target => 'pointed');
CREATE TABLE demanding (id integer, more text NOT NULL);
SELECT ingest.alter_pipeline('ls', target => 'demanding');
CREATE TABLE strange (x integer);
SELECT ingest.alter_pipeline('ls', target => 'strange');
CREATE TEMP TABLE passing (id integer);
SELECT ingest.alter_pipeline('ls', target => 'passing');
CREATE SEQUENCE sequence;
SELECT ingest.alter_pipeline('ls', target => 'sequence');
SELECT ingest.alter_pipeline('ls', target => 'triggered', options => '{"lane": "direct"}');

SELECT ingest.drop_pipeline('ls');
RESET search_path;
REVOKE ALL ON ALL ROUTINES IN SCHEMA ingest FROM regress_ls_owner;
DROP SCHEMA ls CASCADE;
DROP SERVER ls_server;
DROP ROLE regress_ls_owner;
