-- Mode "replace": the target becomes what the source is.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA lr;
SET search_path = lr, public;

CREATE FUNCTION lr.define(name text, key text[] DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
    SELECT ingest.create_pipeline(name, ('lr.' || name || '_source')::regclass, ('lr.' || name)::regclass, 'manual', options, 'replace', key)
$$;
CREATE VIEW lr.counts AS
SELECT DISTINCT ON (pipeline) pipeline, lane, read, written, rejected, dropped, merged, skipped
FROM ingest.batch_history ORDER BY pipeline, id DESC;
CREATE VIEW lr.letters AS
SELECT pipeline, convert_from(payload, 'UTF8') AS payload, sqlstate, message, column_name
FROM ingest.dead_letter WHERE outcome = 'pending' ORDER BY id;

-- Without a key all rows go and come; a view shows what is there
CREATE TABLE whole_source (id int, v text);
CREATE TABLE whole (id int CHECK (id > 0), v text);
CREATE VIEW onlooker AS SELECT count(*), sum(id) FROM whole;
INSERT INTO whole VALUES (100, 'old');
INSERT INTO whole_source VALUES (1, 'a'), (2, 'b'), (0, 'bad'), (3, 'c');
SELECT lr.define('whole');
CALL ingest.run('whole');
SELECT * FROM counts;
TABLE whole ORDER BY id;
SELECT payload, sqlstate FROM letters;
-- dead letters of an earlier refresh are settled by the next
DELETE FROM whole_source WHERE id = 0;
CALL ingest.run('whole');
SELECT count(*) FROM letters;
TABLE onlooker;
-- too few: nothing happens, unless somebody says that it is right
DELETE FROM whole_source WHERE id > 1;
CALL ingest.run('whole');
TABLE onlooker;
UPDATE whole_source SET id = -id;
CALL ingest.run('whole');
TABLE onlooker;
SELECT count(*) FROM letters;
UPDATE whole_source SET id = 7;
SELECT ingest.alter_pipeline('whole', options => '{"refresh_floor": 0.3}');
CALL ingest.run('whole');
TABLE onlooker;
TRUNCATE whole_source;
CALL ingest.run('whole');
SELECT ingest.alter_pipeline('whole', options => '{"refresh_floor": 0}');
CALL ingest.run('whole');
TABLE onlooker;

-- By key only what has changed is written
CREATE TABLE keyed_source (id text, day date, v numeric);
CREATE TABLE keyed (id varchar(5), day date, v numeric, note text DEFAULT 'new', PRIMARY KEY (day, id));
INSERT INTO keyed_source SELECT 'k' || g, '2026-01-01'::date + g % 3, g FROM generate_series(1, 20) g;
SELECT lr.define('keyed', '{id,day}', '{"batch_rows": 7}');
CALL ingest.run('keyed');
SELECT * FROM counts WHERE pipeline = 'keyed';
UPDATE keyed SET note = 'kept';
CREATE TABLE versions AS SELECT id AS vid, ctid AS place FROM keyed;
UPDATE keyed_source SET v = -v WHERE id IN ('k3', 'k4');
DELETE FROM keyed_source WHERE id IN ('k5', 'k6', 'k7');
INSERT INTO keyed_source VALUES ('k21', '2026-01-09', 21), (NULL, '2026-01-09', 0), ('too long', '2026-01-09', 0), ('k8', '2026-01-01', 8);
CALL ingest.run('keyed');
SELECT * FROM counts WHERE pipeline = 'keyed';
SELECT count(*), count(*) FILTER (WHERE note = 'kept') AS kept, count(v.place) AS untouched,
    string_agg(id, ' ' ORDER BY id) FILTER (WHERE v.place IS NULL) AS written
FROM keyed k LEFT JOIN versions v ON id = vid AND k.ctid = v.place;
SELECT string_agg(id, ' ' ORDER BY id) FROM keyed WHERE id IN ('k5', 'k6', 'k7', 'too', 'too l');
SELECT payload, sqlstate, message FROM letters WHERE pipeline = 'keyed';

-- A row that is rejected keeps what the target has of it, one that is dropped goes
INSERT INTO keyed_source SELECT 'r' || g, '2026-02-01', g FROM generate_series(1, 4) g;
CALL ingest.run('keyed');
SELECT ingest.add_rule('keyed', 'even', 'id NOT LIKE ''r%'' OR v < 2 OR v % 2 = 0');
SELECT ingest.add_rule('keyed', 'wanted', 'id <> ''r4''', 'drop');
SELECT ingest.add_rule('keyed', 'raises', '1 / (v - 1) < 9');
UPDATE keyed_source SET v = v + 2 WHERE id IN ('r1', 'r3');
CALL ingest.run('keyed');
SELECT id, v FROM keyed WHERE id LIKE 'r%' ORDER BY id;
UPDATE keyed_source SET v = 1 WHERE id = 'r2';
CALL ingest.run('keyed');
SELECT id, v FROM keyed WHERE id LIKE 'r%' ORDER BY id;
SELECT payload, sqlstate FROM letters WHERE pipeline = 'keyed' AND payload LIKE '%"r%';

-- Keys that are other in the target: rounded, padded, of another collation, not there at all
CREATE TABLE cast_source (id numeric, code text COLLATE "C", at timestamptz, v int);
CREATE TABLE "cast" (id numeric(6, 1), code char(3), at timestamp(0), v int, UNIQUE (id, code, at));
INSERT INTO cast_source VALUES (1.04, 'a', '2026-01-01 00:00:00.4', 1), (2.06, 'b  ', '2026-01-01 00:00:00.6', 2), (3, 'ccc', '2026-01-01', 3);
SELECT lr.define('cast', '{id,code,at}');
CALL ingest.run('cast');
CALL ingest.run('cast');
SELECT * FROM counts WHERE pipeline = 'cast';
INSERT INTO cast_source VALUES (1e9, 'd', now(), 4), (4, 'dddd', now(), 5), (4, NULL, now(), 6), (5, 'e', '2026-01-05', 7);
DELETE FROM cast_source WHERE id = 3;
CALL ingest.run('cast');
TABLE "cast" ORDER BY id;
SELECT payload::json->'v' AS v, sqlstate FROM letters WHERE pipeline = 'cast';
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TABLE many_source (id int, v int);
CREATE TABLE many (id positive PRIMARY KEY, v int);
INSERT INTO many_source SELECT g, g FROM generate_series(1, 5000) g;
SELECT lr.define('many', '{id}');
CALL ingest.run('many');
UPDATE many_source SET id = -id WHERE id IN (1, 1000, 1001, 3210, 5000);
CALL ingest.run('many');
SELECT count(*), count(*) FILTER (WHERE id IN (1, 1000, 1001, 3210, 5000)) AS gone FROM many;
SELECT count(*), min(sqlstate) FROM letters WHERE pipeline = 'many';

-- The floor is of rows that were there before
CREATE TABLE floor_source (id int, v int);
CREATE TABLE floor (id int PRIMARY KEY, v int);
INSERT INTO floor SELECT g, g FROM generate_series(1, 100) g;
INSERT INTO floor_source SELECT g, g FROM generate_series(61, 110) g;
SELECT lr.define('floor', '{id}');
CALL ingest.run('floor');
SELECT count(*), min(id), max(id) FROM floor;
DELETE FROM floor_source WHERE id > 84;
CALL ingest.run('floor');
SELECT count(*) FROM floor;
UPDATE floor_source SET id = NULL;
CALL ingest.run('floor');
SELECT count(*) FROM floor;

-- Rows that are gone are marked, once; they come back
CREATE TABLE marked_source (id int, v int);
CREATE TABLE marked (id int PRIMARY KEY, v int, gone boolean);
INSERT INTO marked_source SELECT g, g FROM generate_series(1, 6) g;
SELECT lr.define('marked', '{id}', '{"on_delete": "mark", "mark_column": "gone"}');
CALL ingest.run('marked');
DELETE FROM marked_source WHERE id > 4;
CALL ingest.run('marked');
TABLE marked ORDER BY id;
CREATE TABLE marked_versions AS SELECT id AS vid, ctid AS place FROM marked;
INSERT INTO marked_source VALUES (5, 5);
CALL ingest.run('marked');
SELECT * FROM counts WHERE pipeline = 'marked';
SELECT m.*, v.place = m.ctid AS untouched FROM marked m JOIN marked_versions v ON vid = id ORDER BY id;
-- (those that are marked do not count for the floor)
DELETE FROM marked_source WHERE id > 3;
CALL ingest.run('marked');
SELECT count(*) FILTER (WHERE gone) AS gone, count(*) FROM marked;
DELETE FROM marked_source WHERE id > 1;
CALL ingest.run('marked');
SELECT count(*) FILTER (WHERE gone) AS gone, count(*) FROM marked;
CREATE TABLE since_source (id int);
CREATE TABLE since (id int PRIMARY KEY, gone timestamptz);
INSERT INTO since_source VALUES (1), (2), (3);
SELECT lr.define('since', '{id}', '{"on_delete": "mark", "mark_column": "gone"}');
CALL ingest.run('since');
DELETE FROM since_source WHERE id = 3;
CALL ingest.run('since');
SELECT id, gone > now() - interval '1 hour' AS gone FROM since ORDER BY id;
INSERT INTO since_source VALUES (3);
CALL ingest.run('since');
SELECT id, gone FROM since ORDER BY id;

-- Or they stay
CREATE TABLE left_source (id int, v int);
CREATE TABLE "left" (id int PRIMARY KEY, v int);
INSERT INTO left_source VALUES (1, 1), (2, 2);
SELECT lr.define('left', '{id}', '{"on_delete": "ignore"}');
CALL ingest.run('left');
TRUNCATE left_source;
INSERT INTO left_source VALUES (2, 20);
CALL ingest.run('left');
TABLE "left" ORDER BY id;

-- A row whose partition changes goes from one to the other
CREATE TABLE parted_source (id int, day date, v int);
CREATE TABLE parted (id int, day date, v int, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('2026-01-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN ('2026-01-02');
INSERT INTO parted_source VALUES (1, '2026-01-01', 1), (2, '2026-01-01', 2), (3, '2026-01-02', 3);
SELECT lr.define('parted', '{id,day}');
CALL ingest.run('parted');
UPDATE parted_source SET day = '2026-01-02' WHERE id = 1;
CALL ingest.run('parted');
SELECT tableoid::regclass, * FROM parted ORDER BY id;

-- Foreign keys: those that are deferred hold at the end, others for each row
CREATE TABLE tree_source (id int, parent int);
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE leaf (id int REFERENCES tree DEFERRABLE INITIALLY DEFERRED);
INSERT INTO tree_source SELECT g, nullif(g + 10, 60) FROM generate_series(1, 50) g WHERE g + 10 <= 60;
UPDATE tree_source SET parent = NULL WHERE id > 40;
SELECT lr.define('tree', NULL, '{"batch_rows": 10}');
CALL ingest.run('tree');
INSERT INTO leaf VALUES (3);
CALL ingest.run('tree');
SELECT count(*) FROM tree;
UPDATE tree_source SET parent = 77 WHERE id = 5;
CALL ingest.run('tree');
SELECT count(*) FROM tree WHERE parent = 77;
UPDATE tree_source SET parent = 6 WHERE id = 5;
DELETE FROM tree_source WHERE id = 3;
CALL ingest.run('tree');
SELECT count(*) FROM tree;
DELETE FROM leaf;
CALL ingest.run('tree');
SELECT count(*) FROM tree;
CREATE TABLE holding (id int PRIMARY KEY, v int);
CREATE TABLE holder (id int REFERENCES holding);
CREATE TABLE holding_source (id int, v int);
INSERT INTO holding_source VALUES (1, 1), (2, 2), (3, 3);
SELECT lr.define('holding', '{id}');
CALL ingest.run('holding');
INSERT INTO holder VALUES (2);
DELETE FROM holding_source WHERE id = 2;
CALL ingest.run('holding');
UPDATE holding_source SET id = 2, v = 22 WHERE id = 3;
CALL ingest.run('holding');
TABLE holding ORDER BY id;

-- Triggers see what happens, and nothing else
CREATE TABLE watched_source (id int, v int);
CREATE TABLE watched (id int PRIMARY KEY, v int);
CREATE TABLE trail (what text, id int);
CREATE FUNCTION lr.watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lr.trail VALUES (tg_op, coalesce(new.id, old.id));
    RETURN NULL;
END $$;
CREATE TRIGGER w AFTER INSERT OR UPDATE OR DELETE ON watched FOR EACH ROW EXECUTE FUNCTION lr.watch();
INSERT INTO watched_source VALUES (1, 1), (2, 2), (3, 3);
SELECT lr.define('watched', '{id}');
CALL ingest.run('watched');
TRUNCATE trail;
UPDATE watched_source SET v = 0 WHERE id = 2;
DELETE FROM watched_source WHERE id = 3;
INSERT INTO watched_source VALUES (4, 4);
CALL ingest.run('watched');
TABLE trail ORDER BY id;

-- Views and rules as targets, without a key
CREATE TABLE viewed_source (id int, v int);
CREATE TABLE viewed_table (id int, v int, mine boolean DEFAULT true);
CREATE VIEW viewed AS SELECT id, v FROM viewed_table WHERE mine;
INSERT INTO viewed_table VALUES (1, 1, true), (2, 2, false);
INSERT INTO viewed_source VALUES (3, 3);
SELECT lr.define('viewed');
CALL ingest.run('viewed');
TABLE viewed_table ORDER BY id;

-- Who must see all rows, and may delete them
CREATE ROLE regress_lr_owner;
GRANT USAGE ON SCHEMA lr, ingest TO regress_lr_owner;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO regress_lr_owner;
CREATE TABLE guarded_source (id int, v int);
CREATE TABLE guarded (id int PRIMARY KEY, v int);
ALTER TABLE guarded OWNER TO regress_lr_owner;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
REVOKE ALL ON guarded FROM regress_lr_owner;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (id < 10);
GRANT SELECT ON guarded_source TO regress_lr_owner;
GRANT SELECT, INSERT, UPDATE ON guarded TO regress_lr_owner;
SET ROLE regress_lr_owner;
SELECT lr.define('guarded', '{id}');
RESET ROLE;
GRANT DELETE ON guarded TO regress_lr_owner;
SET ROLE regress_lr_owner;
SELECT lr.define('guarded', '{id}');
SELECT lr.define('guarded');
RESET ROLE;
ALTER TABLE guarded DISABLE ROW LEVEL SECURITY;
SET ROLE regress_lr_owner;
SELECT lr.define('guarded', '{id}');
RESET ROLE;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
SET ROLE regress_lr_owner;
CALL ingest.run('guarded');
RESET ROLE;

SELECT count(*) > 30 AS batches, bool_and(read = written + rejected + dropped + merged + skipped) AS accounted FROM ingest.batch_history;
SELECT count(ingest.drop_pipeline(name)) > 10 FROM ingest.pipeline WHERE source::text LIKE '%_source';
DROP SCHEMA lr CASCADE;
DROP OWNED BY regress_lr_owner;
DROP ROLE regress_lr_owner;
