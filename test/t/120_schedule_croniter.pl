# Cron expressions come when croniter says that they match: 200 of them, in five zones,
# over ten years, and in every night of these in which a clock is changed.
#
# What such a night means for them is a rule of ours (docs/scheduling.md) and another one
# of croniter's.  So the fields are compared by croniter without a zone and the rule as
# Python's zones have it; and where croniter with a zone differs, it is listed below.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;

my $python = ($ENV{INGEST_SCHEDULE_PEERS} // die 'INGEST_SCHEDULE_PEERS is not set') . '/bin/python3';
my $node = start_node('croniter', preload => 0);
my $dir = PostgreSQL::Test::Utils::tempdir();

system_or_bail($python, 'test/lib/croniter_times.py', "$dir/by_rule", "$dir/croniter", "$dir/changes");
$node->safe_psql('postgres', <<SQL);
CREATE TABLE by_rule (expression text, zone text, after bigint, until bigint, times bigint[]);
CREATE TABLE croniter (LIKE by_rule);
CREATE TABLE change (zone text, at bigint);
\\copy by_rule FROM '$dir/by_rule'
\\copy croniter FROM '$dir/croniter'
\\copy change FROM '$dir/changes'
-- Ours, until the same time.  There are 600 at most in ten hours.
CREATE FUNCTION ours(expression text, zone text, after bigint, until bigint) RETURNS bigint[] LANGUAGE sql AS \$\$
    SELECT coalesce(array_agg(at ORDER BY at) FILTER (WHERE at <= until), '{}')
    FROM (SELECT extract(epoch FROM t)::bigint AS at
          FROM ingest.next_runs(expression, to_timestamp(after), 601, jsonb_build_object('time_zone', zone)) t) r
\$\$;
SQL

# ---- by the rule: no difference at all

is(value($node, 'SELECT count(DISTINCT expression) FROM by_rule'), 200, '200 expressions');
is(value($node, 'SELECT count(*) FROM by_rule'), 200 * (5 * 11 + 3 * 22), 'in five zones, in 66 nights');
cmp_ok(value($node, 'SELECT max(cardinality(times)) FROM by_rule'), '<=', 600, 'all of them are compared');
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE wrong AS
SELECT * FROM (SELECT *, ours(expression, zone, after, until) FROM by_rule) r WHERE ours <> times
SQL
is( value($node, "SELECT string_agg(format('%s in %s after %s: %s', expression, zone, to_timestamp(after), d), E'\\n')
	FROM (SELECT * FROM wrong LIMIT 5) w, LATERAL (
		SELECT array_agg(coalesce('+' || o, '-' || t)) AS d FROM unnest(times) t FULL JOIN unnest(ours) o ON t = o WHERE t IS NULL OR o IS NULL) d"),
	'', 'they come when croniter says that they match');

# ---- by croniter's own rule: other nights are the same

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE difference AS
SELECT c.expression, c.zone, coalesce(t, o) AS at, o IS NULL AS theirs
FROM croniter c, LATERAL (
    SELECT t, o FROM unnest(c.times) t FULL JOIN unnest(ours(c.expression, c.zone, c.after, c.until)) o ON t = o) d
WHERE t IS NULL OR o IS NULL;
CREATE VIEW night AS SELECT * FROM croniter WHERE until - after = 10 * 3600
SQL
is( value($node, "SELECT string_agg(d::text, E'\\n') FROM difference d WHERE NOT EXISTS (
		SELECT FROM change c WHERE c.zone = d.zone AND d.at BETWEEN c.at - 3600 AND c.at + 7200)"),
	'', 'croniter with a zone differs only where clocks are changed');

# ---- and in the nights of 2026: + is ours, - is theirs, with what the zone is ahead then

is( value($node, q{SELECT string_agg(line, E'\n' ORDER BY line) FROM (
	SELECT format('%s %s %s: %s', CASE WHEN theirs THEN '-' ELSE '+' END, zone, expression,
		to_char(to_timestamp(at) AT TIME ZONE zone, 'MM-DD HH24:MI ') || (to_timestamp(at) AT TIME ZONE zone - to_timestamp(at) AT TIME ZONE 'UTC')) COLLATE "C" AS line
	FROM difference d WHERE EXISTS (SELECT FROM night n WHERE (n.expression, n.zone) = (d.expression, d.zone) AND at BETWEEN n.after AND n.until)
	GROUP BY 1) l}), <<'END' =~ s/\n\z//r, 'the differences are known');
- America/New_York */20 2 * * sun: 03-08 03:00 -04:00:00
- America/New_York 0 */2 * * *: 03-08 03:00 -04:00:00
- America/New_York 0 1-3 * * *: 11-01 01:00 -05:00:00
- America/New_York 0,30 1,2 * * *: 11-01 01:00 -05:00:00
- America/New_York 0,30 1,2 * * *: 11-01 01:30 -05:00:00
- America/New_York 30 1 * * *: 11-01 01:30 -05:00:00
- America/New_York 45 1 * * *: 11-01 01:45 -05:00:00
- Australia/Lord_Howe */20 2 * * sun: 10-04 02:30 11:00:00
- Australia/Lord_Howe 0 */2 * * *: 10-04 02:30 11:00:00
- Australia/Lord_Howe 0,30 1,2 * * *: 04-05 01:30 10:30:00
- Australia/Lord_Howe 30 1 * * *: 04-05 01:30 10:30:00
- Australia/Lord_Howe 45 1 * * *: 04-05 01:45 10:30:00
- Europe/Berlin */20 2 * * sun: 03-29 03:00 02:00:00
- Europe/Berlin 0 */2 * * *: 03-29 03:00 02:00:00
- Europe/Berlin 0 1-3 * * *: 10-25 02:00 01:00:00
- Europe/Berlin 0 2 * * *: 10-25 02:00 01:00:00
- Europe/Berlin 0,30 1,2 * * *: 10-25 02:00 01:00:00
- Europe/Berlin 0,30 1,2 * * *: 10-25 02:30 01:00:00
- Europe/Berlin 30 2 * * *: 10-25 02:30 01:00:00
END

$node->stop;
done_testing();
