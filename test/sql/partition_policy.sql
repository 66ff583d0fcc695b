-- ingest.manage_partitions(): what it accepts, which ranges it makes and drops.
\set SHOW_CONTEXT never
SET timezone = 'America/New_York';
SET client_min_messages = warning;
CREATE SCHEMA pp;
SET search_path = pp;

CREATE TABLE t (id integer PRIMARY KEY);
CREATE TABLE by_list (at timestamptz) PARTITION BY LIST (at);
CREATE TABLE by_number (at bigint) PARTITION BY RANGE (at);
CREATE TABLE by_two (at timestamptz, n integer) PARTITION BY RANGE (at, n);
CREATE TABLE by_expression (at timestamptz) PARTITION BY RANGE ((at AT TIME ZONE 'UTC'));
CREATE TABLE by_day (day date, id integer) PARTITION BY RANGE (day);
CREATE TABLE by_time (at timestamptz, id integer) PARTITION BY RANGE (at);
CREATE TABLE with_default (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE rest PARTITION OF with_default DEFAULT;

SELECT ingest.manage_partitions('t', '1 day');
SELECT ingest.manage_partitions('by_list', '1 day');
SELECT ingest.manage_partitions('by_number', '1 day');
SELECT ingest.manage_partitions('by_two', '1 day');
SELECT ingest.manage_partitions('by_expression', '1 day');
SELECT ingest.manage_partitions('with_default', '1 day');
SELECT ingest.manage_partitions('by_time', NULL);
SELECT ingest.manage_partitions('by_time', '0');
SELECT ingest.manage_partitions('by_time', '59 seconds');
SELECT ingest.manage_partitions('by_time', '-1 day');
SELECT ingest.manage_partitions('by_time', '1 month 1 day');
SELECT ingest.manage_partitions('by_time', '1000 years');
SELECT ingest.manage_partitions('by_time', '1 day', keep => '-1 day');
SELECT ingest.manage_partitions('by_time', '1 day', keep => '0');
SELECT ingest.manage_partitions('by_time', '1 day', ahead => -1);
SELECT ingest.manage_partitions('by_time', '1 day', bounds => 'empty');
SELECT ingest.manage_partitions('by_day', '12 hours');
SELECT ingest.unmanage_partitions('by_time');
TABLE ingest.partition_policy;

-- The present and what is ahead; again changes the policy, not what is there
CREATE FUNCTION ranges(t regclass, OUT nth bigint, OUT starts interval, OUT length interval)
RETURNS SETOF record LANGUAGE sql AS $$
    SELECT row_number() OVER (ORDER BY lower), lower - date_trunc('day', now() AT TIME ZONE 'UTC'), upper - lower
    FROM (SELECT substring(b FROM 'FROM \(''([^'']*)')::timestamptz AT TIME ZONE 'UTC' AS lower,
                 substring(b FROM 'TO \(''([^'']*)')::timestamptz AT TIME ZONE 'UTC' AS upper
          FROM pg_class c, pg_get_expr(c.relpartbound, c.oid) b,
               pg_inherits i WHERE i.inhparent = t AND i.inhrelid = c.oid) x
    ORDER BY 1 $$;
BEGIN;
SELECT ingest.manage_partitions('by_time', '1 day');
SELECT * FROM ranges('by_time');
SELECT ingest.manage_partitions('by_time', '1 day', ahead => 4, keep => '10 days');
SELECT * FROM ranges('by_time');
SELECT target, every, keep, ahead, bounds, owner = current_user::regrole AS own FROM ingest.partition_policy;
ROLLBACK;
BEGIN;
SELECT ingest.manage_partitions('by_time', '1 week', ahead => 1);
SELECT nth, extract(isodow FROM (now() AT TIME ZONE 'UTC')::date + starts) AS weekday, length FROM ranges('by_time');
-- what is there is covered, whatever the grid is now
SELECT ingest.manage_partitions('by_time', '1 hour', ahead => 5);
SELECT count(*) FROM ranges('by_time');
ROLLBACK;

-- Days of dates, months, minutes
BEGIN;
SELECT ingest.manage_partitions('by_day', '1 day', ahead => 1);
SELECT count(*) FROM pg_inherits WHERE inhparent = 'by_day'::regclass;
INSERT INTO by_day VALUES (CURRENT_TIMESTAMP AT TIME ZONE 'UTC', 1), ((CURRENT_TIMESTAMP AT TIME ZONE 'UTC')::date + 1, 1);
SELECT ingest.manage_partitions('by_time', '1 year', ahead => 1);
SELECT c.relname = 'by_time_p' || extract(year FROM now() AT TIME ZONE 'UTC') || '0101' AS named
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'by_time'::regclass ORDER BY c.relname LIMIT 1;
ROLLBACK;
BEGIN;
SELECT ingest.manage_partitions('by_time', '15 minutes', ahead => 2);
SELECT count(*), bool_and(length = '15 minutes') FROM ranges('by_time');
SELECT bool_and(c.relname ~ '^by_time_p\d{8}_\d\d(00|15|30|45)$') AS named
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'by_time'::regclass;
ROLLBACK;

-- What is older than keep is dropped, whoever made it; what is younger stays
CREATE FUNCTION make(name text, starts interval, ends interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I PARTITION OF by_time FOR VALUES FROM (%L) TO (%L)', name,
        date_trunc('day', now(), 'UTC') + starts, date_trunc('day', now(), 'UTC') + ends);
END $$;
SELECT make('old', '-20 days', '-15 days'), make('aged', '-15 days', '-10 days'), make('young', '-10 days', '-9 days');
CREATE TABLE ancient PARTITION OF by_time FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE VIEW uses_aged AS SELECT * FROM aged;
SELECT ingest.manage_partitions('by_time', '1 day', keep => '10 days', ahead => 0);
SELECT to_regclass('ancient') AS ancient, to_regclass('old') AS old, to_regclass('aged') AS aged, to_regclass('young') AS young;
DROP VIEW uses_aged;
SELECT ingest.manage_partitions('by_time', '1 day', keep => '10 days', ahead => 0);
SELECT to_regclass('aged') AS aged, to_regclass('young') AS young;

-- A name that is taken, one that is too long, one that needs quotes
CREATE TABLE "a ""long"" name with ümläute that is cut somewhere in the end" (at timestamptz) PARTITION BY RANGE (at);
SELECT ingest.manage_partitions('"a ""long"" name with ümläute that is cut somewhere in the end"', '1 day', ahead => 0);
SELECT regexp_replace(c.relname, '\d{8}$', '<date>') AS name, octet_length(c.relname)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = '"a ""long"" name with ümläute that is cut somewhere in the end"'::regclass;
CREATE TABLE taken (at timestamptz) PARTITION BY RANGE (at);
DO $$ BEGIN EXECUTE format('CREATE TABLE %I ()', 'taken_p' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$;
SELECT ingest.manage_partitions('taken', '1 day', ahead => 0);
SELECT c.relname ~ '^taken_p\d{8}_1$' AS numbered FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'taken'::regclass;

-- Keys, defaults, constraints, indexes, foreign keys, triggers, comments come along
CREATE TABLE whole (
    id integer GENERATED BY DEFAULT AS IDENTITY, ref integer REFERENCES t, at timestamptz NOT NULL,
    x numeric DEFAULT 1 CHECK (x > 0), y numeric GENERATED ALWAYS AS (x * 2) STORED,
    PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE INDEX ON whole (ref) WHERE x > 1;
COMMENT ON COLUMN whole.x IS 'a comment';
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER fire AFTER INSERT ON whole FOR EACH ROW EXECUTE FUNCTION fire();
SELECT ingest.manage_partitions('whole', '1 day', ahead => 0);
INSERT INTO whole (at) VALUES (now()) RETURNING id, x, y;
SELECT (SELECT count(*) FROM pg_index x JOIN pg_inherits p ON p.inhrelid = x.indexrelid WHERE x.indrelid = i.inhrelid) AS attached_indexes,
       (SELECT string_agg(contype::text, '' ORDER BY contype) FROM pg_constraint WHERE conrelid = i.inhrelid AND contype <> 'n') AS constraints,
       (SELECT count(*) FROM pg_trigger WHERE tgrelid = i.inhrelid AND NOT tgisinternal) AS triggers,
       col_description(i.inhrelid, 4) AS comment
FROM pg_inherits i WHERE i.inhparent = 'whole'::regclass;

-- Only for members of the table's owner; the table stays its owner's
CREATE ROLE regress_pp_owner;
CREATE ROLE regress_pp_member IN ROLE regress_pp_owner;
CREATE ROLE regress_pp_other;
GRANT USAGE, CREATE ON SCHEMA pp TO regress_pp_owner, regress_pp_member, regress_pp_other;
GRANT EXECUTE ON FUNCTION ingest.manage_partitions, ingest.unmanage_partitions TO regress_pp_member, regress_pp_other;
CREATE TABLE owned (at timestamptz) PARTITION BY RANGE (at);
ALTER TABLE owned OWNER TO regress_pp_owner;
SET ROLE regress_pp_other;
SELECT ingest.manage_partitions('owned', '1 day');
RESET ROLE;
SET ROLE regress_pp_member;
SELECT ingest.manage_partitions('owned', '1 day', ahead => 0);
SELECT target, owner FROM ingest.partition_policy;
RESET ROLE;
SET ROLE regress_pp_other;
SELECT target, owner FROM ingest.partition_policy;
SELECT ingest.unmanage_partitions('owned');
RESET ROLE;
SELECT pg_get_userbyid(c.relowner) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'owned'::regclass;

-- Renamed, moved, unmanaged, dropped
ALTER TABLE by_time RENAME TO renamed;
SELECT target FROM ingest.partition_policy WHERE target = 'renamed'::regclass;
SELECT ingest.unmanage_partitions('renamed');
SELECT ingest.unmanage_partitions('renamed');
SELECT count(*) FROM ingest.partition_policy WHERE target = 'renamed'::regclass;

RESET search_path;
DROP SCHEMA pp CASCADE;
DELETE FROM ingest._partition_policy;
REVOKE ALL ON FUNCTION ingest.manage_partitions, ingest.unmanage_partitions FROM regress_pp_member, regress_pp_other;
DROP ROLE regress_pp_owner, regress_pp_member, regress_pp_other;
