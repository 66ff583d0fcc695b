# Cron expressions mean what croniter says they mean: 200 of them, in five zones, over
# ten years.  Where clocks are changed the two have different rules; each difference
# has to lie in such a night, and what holds there is in test/sql/schedule.sql.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;

my $python = ($ENV{INGEST_SCHEDULE_PEERS} // die 'INGEST_SCHEDULE_PEERS is not set') . '/bin/python3';
my $node = start_node('croniter', preload => 0);
my $dir = PostgreSQL::Test::Utils::tempdir();

system_or_bail($python, 'test/lib/croniter_times.py', "$dir/times", "$dir/changes");
$node->safe_psql('postgres', "CREATE TABLE expected (expression text, zone text, start bigint, times text);
	CREATE TABLE change (zone text, at bigint);
	CREATE TABLE difference (expression text, zone text, start bigint, at bigint, theirs boolean)");
$node->safe_psql('postgres', "\\copy expected FROM '$dir/times'");
$node->safe_psql('postgres', "\\copy change FROM '$dir/changes'");

# The times of both, up to where the shorter one ends.
$node->safe_psql('postgres', <<'SQL');
INSERT INTO difference
WITH answer AS (
    SELECT expression, zone, start, string_to_array(times, ' ')::bigint[] AS theirs,
           ARRAY(SELECT date_part('epoch', t)::bigint
                 FROM ingest.next_runs(expression, to_timestamp(start), 8, jsonb_build_object('time_zone', zone)) t
                 ORDER BY t) AS ours
    FROM expected), bound AS (
    SELECT *, least(theirs[8], ours[8]) AS until FROM answer)
SELECT b.expression, b.zone, b.start, d.at, d.theirs
FROM bound b, LATERAL (
    SELECT coalesce(t.at, o.at) AS at, o.at IS NULL AS theirs
    FROM unnest(b.theirs) t (at) FULL JOIN unnest(b.ours) o (at) ON t.at = o.at
    WHERE t.at IS NULL OR o.at IS NULL) d
WHERE d.at <= b.until
SQL

is(value($node, 'SELECT count(*) FROM expected'), 200 * 5 * 17, 'all expressions were asked about');
is( value($node, "SELECT string_agg(format('%s %s after %s: %s', expression, zone, to_timestamp(start), to_timestamp(at)), E'\\n')
	FROM (SELECT * FROM difference d WHERE NOT EXISTS (
		SELECT FROM change c WHERE c.zone = d.zone AND d.at BETWEEN c.at - 4 * 3600 AND c.at + 4 * 3600) LIMIT 10) d"),
	'', 'no difference but in nights when the clock is changed');
cmp_ok(value($node, "SELECT count(*) FROM difference WHERE zone IN ('UTC', 'Asia/Kolkata')"), '==', 0,
	'none at all where it is not changed');
note 'differences in such nights: ' . value($node, 'SELECT count(*) FROM difference');

$node->stop;
done_testing();
