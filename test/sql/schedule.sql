-- Texts of schedules, and the times they mean.  What workers make of them is in
-- test/t/; cron is compared with another implementation in 120_schedule_croniter.pl.
\set SHOW_CONTEXT never
SET datestyle = iso;
SET timezone = 'UTC';

-- The times in a zone, by its clock, from a time by that clock on.
CREATE FUNCTION times(schedule text, begin text DEFAULT '2026-01-01', count integer DEFAULT 3,
                      zone text DEFAULT 'UTC', options jsonb DEFAULT '{}', previous text DEFAULT NULL)
    RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('timezone', zone, true);
    RETURN (SELECT string_agg(to_char(t, 'YYYY-MM-DD Dy HH24:MI:SS TZHTZM'), ', ')
            FROM ingest.next_runs(schedule, begin::timestamptz, count, options, previous::timestamptz) t);
END $$;
CREATE FUNCTION complaint(schedule text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text;
BEGIN
    PERFORM ingest.next_runs(schedule, options => options);
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || message, nullif(detail, ''));
END $$;
\pset format unaligned
\pset tuples_only on
\pset fieldsep ' -> '

-- ---- what is no schedule

SELECT complaint(s) FROM (VALUES
    (''), ('now and then'), ('Continuous'), ('a b c d e'), ('5 minutes or so'),
    ('1 ms'), ('0'), ('-5 minutes'), ('1 month -1 day'), ('100 years 1 day'), ('36526 days'), ('876601 hours'), ('infinity'),
    ('* * * *'), ('* * * * * * *'), ('*'), ('@reboot'), ('@ * * * *'),
    ('60 * * * *'), ('0 24 * * *'), ('0 0 0 * *'), ('0 0 32 * *'), ('0 0 * 13 *'), ('0 0 * 0 *'), ('0 0 * * 8'),
    ('60 0 0 * * *'), ('99999999999999999999 * * * *'), ('-1 * * * *'),
    ('a * * * *'), ('0 0 * janu *'), ('0 0 * ja *'), ('0 0 * mon *'), ('0 0 * * jan'), ('mon * * * *'),
    ('1, * * * *'), (',1 * * * *'), ('1,,2 * * * *'), ('1- * * * *'), ('1-2-3 * * * *'), ('1-60 * * * *'), ('1;2 * * * *'),
    ('*/0 * * * *'), ('*/ * * * *'), ('*/-1 * * * *'), ('*/a * * * *'), ('*/2/3 * * * *'), ('*5 * * * *'), ('? * * * *'),
    ('0 0 * * 5#0'), ('0 0 * * 5#6'), ('0 0 * * 5#'), ('0 0 * * L'), ('0 0 * * 1-5L'), ('0 0 1W * *'), ('0 L * * *'), ('0 0 L-3 * *'),
    ('1 2 3 4 xyz'),
    ('after'), ('after '), ('after a,'), ('after a,,b'), ('after ""'), ('after a b'), ('after a, A'), ('after a, "a"'),
    ('after "a'), ('after "a"b'), ('after * * *'), ('after ' || repeat('a', 64))) t (s);
SELECT ingest.next_runs('61 * * * *');
SELECT ingest.next_runs('soon');
SELECT ingest.next_runs('after a,');

-- What never comes
SELECT complaint(s) FROM (VALUES ('0 0 31 2 *'), ('0 0 30 2 *'), ('0 0 31 4,6,9,11 *'), ('0 0 0 30 feb ?'), ('0 0 */31 2 *')) t (s);
SELECT ingest.next_runs('0 2 31 2 *');
-- Either field of days is enough, unless one begins with an asterisk
SELECT times('0 0 31 2 mon');
SELECT times('0 0 31 2 */3');

-- ---- what is one

SELECT s, times(s) FROM (VALUES
    ('1 second'), ('90'), ('5 minutes'), ('@ 5 minutes'), ('1 hour 30 minutes'), ('1 day 2 hours 30 minutes'), ('PT15M'),
    ('1 year 2 mons 3 days 04:05:06'), ('100 years'), ('1 month'),
    ('continuous'), ('manual'), ('after a'), ('AFTER a,b , "B ""c"", d"'), ('after ' || repeat('a', 63)),
    ('@hourly'), ('@daily'), ('@midnight'), ('@weekly'), ('@monthly'), ('@yearly'), ('@annually'), ('@Daily'),
    ('* * * * *'), ('* * * * * *'), (E' \t0  9 * * *\n'), ('1 2 3 4 5'), ('30 1 2 3 4 5')) t (s);
-- Names, lists, ranges, steps
SELECT s, times(s, count => 5) FROM (VALUES
    ('0 9 * * mon-fri'), ('0 9 * * MON,Wed,fri'), ('0 9 1 jan-mar *'), ('0 0 1 JAN,jul *'),
    ('0 0 * * 0'), ('0 0 * * 7'), ('0 0 * * 5-7'), ('0 0 * * sun-thu'), ('0 0 * * fri-mon'), ('0 0 * * 7-2'), ('0 0 * * 0-7'),
    ('0 22-2 * * *'), ('0 0 30-2 * *'), ('0 0 1 nov-feb *'), ('50-10/10 * * * *'),
    ('*/20 * * * *'), ('5/20 * * * *'), ('5-45/20 * * * *'), ('7 */5 * * *'), ('0 0 */10 * *'), ('0 0 * * 1/2'), ('0 0 * * 7/2'),
    ('0 0 1,15,10-12 * *'), ('*/25 30 9 * * *'), ('15,45 0 0 1 1 ?'), ('*/100 * * * *')) t (s);
-- Once a month
SELECT s, times(s, count => 4) FROM (VALUES
    ('0 0 L * *'), ('0 0 15,L * *'), ('0 0 l 2 *'), ('0 0 * * 5L'), ('0 0 * * L5'), ('0 0 * * friL'), ('0 0 * * 7L'),
    ('0 0 * * 5#2'), ('0 0 * * fri#1,mon#3'), ('0 0 * * mon#5'), ('0 0 ? * 0#1'), ('0 0 L * mon#1')) t (s);
-- Both days: either, unless one begins with an asterisk
SELECT s, times(s, count => 5) FROM (VALUES
    ('0 0 13 * fri'), ('0 0 */13 * fri'), ('0 0 13 * *'), ('0 0 * * fri'), ('0 0 13 * */5'), ('0 0 13 * ?'), ('0 0 1-31 * fri')) t (s);
-- Far away
SELECT times('0 0 29 2 *', '2096-01-01'), times('0 0 29 2 */6', '2072-03-01'), times('0 0 29 2 */6', '2096-03-01', 2);
SELECT times('@yearly', '1999-06-01'), times('@yearly', '1969-06-01'), times('0 0 1 1 *', '0044-03-15 BC', 1), times('@yearly', '294275-06-01');
-- A time that matches is not after itself, its fractions are passed over
SELECT times('0 * * * *', '2026-01-01 09:00', 1), times('0 * * * *', '2026-01-01 08:59:59.999999', 1),
       times('0 * * * *', '1999-12-31 22:59:59.5', 1), times('* * * * * *', '1999-12-31 22:59:59.5', 1);

-- ---- zones

SELECT z, times('0 9 * * *', '2026-07-01', 2, z) FROM (VALUES
    ('UTC'), ('Europe/Berlin'), ('America/New_York'), ('Asia/Kolkata'), ('Asia/Kathmandu'), ('Pacific/Kiritimati'), ('America/St_Johns')) t (z);
-- The option, not the session
SELECT times('0 9 * * *', '2026-07-01', 1, 'UTC', '{"time_zone": "Asia/Tokyo"}');
SELECT ingest.next_runs('@daily', options => '{"time_zone": "Europe/Berlyn"}');
SELECT ingest.next_runs('@daily', options => '{"time_zone": ""}');

-- ---- nights in which clocks are changed

-- Forward: 02:00 -> 03:00 (Berlin, New York), 02:00 -> 02:30 (Lord Howe).  A time of
-- the day that is skipped comes at the change.
SELECT s, times(s, '2026-03-28 12:00', 3, 'Europe/Berlin') FROM (VALUES
    ('30 1 * * *'), ('0 2 * * *'), ('30 2 * * *'), ('59 2 * * *'), ('0 3 * * *'), ('0,30 2 * * *'), ('30 2,3 * * *'), ('0 0 2 * * *')) t (s);
SELECT s, times(s, '2026-03-07 12:00', 3, 'America/New_York') FROM (VALUES ('30 2 * * *'), ('30 1-3 * * *'), ('15 2 8 3 *')) t (s);
SELECT s, times(s, '2026-10-03 12:00', 3, 'Australia/Lord_Howe') FROM (VALUES ('15 2 * * *'), ('0 2 * * *'), ('30 2 * * *'), ('45 2 * * *')) t (s);
-- Those that begin with an asterisk follow the clock
SELECT s, times(s, '2026-03-29 01:20', 5, 'Europe/Berlin') FROM (VALUES
    ('*/30 * * * *'), ('30 * * * *'), ('30 */2 * * *'), ('*/30 2 * * *'), ('* 30 2 * * *')) t (s);
SELECT s, times(s, '2026-10-04 01:20', 5, 'Australia/Lord_Howe') FROM (VALUES ('*/30 * * * *'), ('15 * * * *')) t (s);

-- Back: 03:00 -> 02:00 (Berlin), 02:00 -> 01:00 (New York), 02:00 -> 01:30 (Lord Howe).
-- A time of the day that comes twice is the first.
SELECT s, times(s, '2026-10-24 12:00', 3, 'Europe/Berlin') FROM (VALUES
    ('30 1 * * *'), ('0 2 * * *'), ('30 2 * * *'), ('0 3 * * *'), ('0,30 2 * * *'), ('0 1-3 * * *')) t (s);
SELECT s, times(s, '2026-10-31 12:00', 3, 'America/New_York') FROM (VALUES ('30 1 * * *'), ('30 0-2 * * *'), ('0 2 * * *')) t (s);
SELECT s, times(s, '2026-04-04 12:00', 3, 'Australia/Lord_Howe') FROM (VALUES ('45 1 * * *'), ('30 1 * * *'), ('0 2 * * *')) t (s);
SELECT s, times(s, '2026-10-25 01:20', 6, 'Europe/Berlin') FROM (VALUES
    ('*/30 * * * *'), ('30 * * * *'), ('30 */2 * * *'), ('*/30 2 * * *')) t (s);
SELECT s, times(s, '2026-04-05 01:20', 6, 'Australia/Lord_Howe') FROM (VALUES ('*/30 * * * *'), ('45 * * * *')) t (s);
-- From within the hour that comes again
SELECT times('30 2 * * *', '2026-10-25 02:10 CET', 2, 'Europe/Berlin'), times('30 * * * *', '2026-10-25 02:10 CET', 2, 'Europe/Berlin');
-- A day that never was
SELECT times('0 9 * * *', '2011-12-29 00:00', 3, 'Pacific/Apia'), times('0 */12 * * *', '2011-12-29 00:00', 4, 'Pacific/Apia');
-- As the rules say far ahead
SELECT times('30 2 31 3 *', '2199-01-01', 2, 'Europe/Berlin');
-- Days of intervals are as long as they are there
SELECT times('1 day', '2026-03-28 12:00', 2, 'Europe/Berlin'), times('24 hours', '2026-03-28 12:00', 2, 'Europe/Berlin'),
       times('1 day', '2026-03-28 11:00', 2, 'UTC', '{"time_zone": "Europe/Berlin"}');
-- No expression goes back, or stands still, in any night of ten years
SELECT zone, schedule, count(*) AS times, count(*) FILTER (WHERE t <= before) AS wrong
FROM (VALUES ('Europe/Berlin'), ('America/New_York'), ('Australia/Lord_Howe')) z (zone),
     (VALUES ('17 2 * * *'), ('*/10 1-3 * * *'), ('20 * * * *'), ('1 day')) s (schedule),
     LATERAL (SELECT t, lag(t) OVER (ORDER BY n) AS before
              FROM ingest.next_runs(schedule, '2020-01-01', 3653, jsonb_build_object('time_zone', zone)) WITH ORDINALITY r (t, n)) t
GROUP BY 1, 2 ORDER BY zone COLLATE "C", schedule COLLATE "C";

-- ---- times that were missed

-- The last one was at 09:00, now it is 11:20.
SELECT c, s, times(s, '2026-01-01 11:20', 5, options => jsonb_build_object('catch_up', c), previous => '2026-01-01 09:00')
FROM (VALUES ('once'), ('skip'), ('all')) o (c), (VALUES ('0 * * * *'), ('1 hour'), ('@daily')) t (s);
-- Only late, until the next one comes
SELECT times('0 * * * *', '2026-01-01 10:59:59', 2, options => '{"catch_up": "skip"}', previous => '2026-01-01 09:00');
SELECT times('1 hour', '2026-01-01 10:59:59', 2, options => '{"catch_up": "skip"}', previous => '2026-01-01 09:00');
-- Intervals keep their beat
SELECT s, times(s, '2026-03-10 14:00', 3, previous => '2026-03-01 02:00') FROM (VALUES ('1 day'), ('2 days'), ('7 hours')) t (s);
SELECT times('1 month', '2026-03-10 14:00', 3, previous => '2025-11-30 02:00');
SELECT count(*), min(t), max(t) FROM ingest.next_runs('* * * * *', '2026-01-02', 2000, '{"catch_up": "all"}', '2026-01-01') t;
SELECT ingest.next_runs('@daily', '2026-01-01', previous => '2026-01-02');

-- ---- jitter: the same each time, less than was said, and before the next one comes

CREATE VIEW put_off AS
SELECT n, extract(epoch FROM j.t - p.t) AS seconds
FROM ingest.next_runs('*/10 * * * *', '2026-01-01', 200) WITH ORDINALITY p (t, n)
JOIN ingest.next_runs('*/10 * * * *', '2026-01-01', 200, '{"jitter": "5min"}') WITH ORDINALITY j (t, n) USING (n);
SELECT count(*), min(seconds) >= 0, max(seconds) < 300, max(seconds) > 250, count(DISTINCT seconds) > 150 FROM put_off;
CREATE TABLE before AS TABLE put_off;
SELECT count(*) FROM (TABLE before EXCEPT TABLE put_off) d;
SELECT count(*), bool_and(t >= '2026-01-01'::timestamptz + n * '1 s'::interval AND t < '2026-01-01'::timestamptz + (n + 1) * '1 s'::interval)
FROM ingest.next_runs('* * * * * *', '2026-01-01', 200, '{"jitter": "1d"}') WITH ORDINALITY r (t, n);

-- ---- active hours

SELECT complaint('@daily', jsonb_build_object('active_hours', h)) FROM (VALUES
    (''), (' '), ('22:00'), ('22-6'), ('22:00-'), ('22:0-06:00'), ('25:00-06:00'), ('22:60-06:00'), ('24:00-06:00'),
    ('08:00-24:01'), ('08:00-08:00'), ('-8:00-10:00'), ('+8:00-10:00'), ('monday'), ('mon-'), ('mon-fri 08:00'),
    ('mon-fri,'), ('xyz 08:00-09:00'), ('08:00-09:00 10:00-11:00')) t (h);
SELECT ingest.next_runs('@daily', options => '{"active_hours": "22-6"}');
SELECT h, times('0 */6 * * *', '2026-01-02 01:00', 6, options => jsonb_build_object('active_hours', h)) FROM (VALUES
    ('22:00-06:00'), ('08:30-18:00'), ('mon-fri 08:00-18:00'), ('sat,sun'), ('sat-mon 9:00 - 10:00'), ('fri 22:00-06:00'),
    ('00:00-24:00'), ('06:00-06:01, 18:00-18:01'), ('MON')) t (h);
-- It begins with its first moment and ends before its last
SELECT times('0 * * * *', '2026-01-01 07:30', 3, options => '{"active_hours": "08:00-10:00"}');
-- Intervals go on from there
SELECT times('5 hours', '2026-01-01 07:30', 5, options => '{"active_hours": "08:00-18:00"}');
-- What was missed outside comes once, with the next span
SELECT c, times('0 * * * *', '2026-01-01 05:20', 5, options => jsonb_build_object('catch_up', c, 'active_hours', '08:00-18:00'),
                previous => '2026-01-01 03:00')
FROM (VALUES ('once'), ('skip'), ('all')) o (c);
-- By the clock of the zone; a span that the clock is set over is none
SELECT times('0 * * * *', '2026-03-28 12:00', 4, 'Europe/Berlin', '{"active_hours": "02:00-03:00, 06:00-07:00"}');
SELECT times('0 * * * *', '2026-03-28 12:00', 2, 'Europe/Berlin', '{"active_hours": "sun 02:00-03:00"}');
SELECT times('0 * * * *', '2026-10-24 12:00', 4, 'Europe/Berlin', '{"active_hours": "02:00-04:00"}');

-- ---- arguments

SELECT ingest.next_runs(NULL);
SELECT ingest.next_runs('@daily', 'infinity');
SELECT ingest.next_runs('@daily', now(), previous => '-infinity');
SELECT ingest.next_runs('@daily', now(), -1);
SELECT ingest.next_runs('@daily', now(), 100001);
SELECT ingest.next_runs('@daily', options => '{"jiter": "1s"}');
SELECT count(*) FROM ingest.next_runs('@daily', NULL, NULL, NULL, NULL);
SELECT count(*) FROM ingest.next_runs('@daily', now(), 0);
SELECT count(*) FROM ingest.next_runs('* * * * * *', now(), 100000);
-- The end of time
SELECT ingest.next_runs('100 years', '294270-01-01');
