# Parts of a source beside the live pipeline: of a relation and of a Kafka topic, ended by
# kill -9 and called again, refused where rows could be there twice.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use KafkaPeer;
use RelationTest;

my $node = start_node('backfill', conf => "restart_after_crash = on\n");

# ---- a relation

$node->safe_psql('postgres', "
	CREATE TABLE reading (id int PRIMARY KEY, at timestamptz NOT NULL, v int); CREATE INDEX ON reading (at, id);
	INSERT INTO reading SELECT g, '2026-01-01'::timestamptz + g * interval '1 minute', g FROM generate_series(0, 59999) g;
	CREATE TABLE added (id int, at timestamptz, v int); CREATE TABLE keyed (id int PRIMARY KEY, at timestamptz, v int)");
create_pipeline($node, 'added', 'reading', 'added', options => '{"cursor": "at, id", "start_at": "2026-02-01", "batch_rows": 200, "poll_interval": "50 ms"}');
create_pipeline($node, 'keyed', 'reading', 'keyed', mode => 'upsert', key => '{id}', options => '{"cursor": "at, id", "start_at": "latest"}');
fails_with($node, "CALL ingest.backfill('added', '2026-01-01', '2026-02-02')", '55000', qr/could write rows that pipeline "added" has written before/, 'into what the pipeline has read');
fails_with($node, "CALL ingest.backfill('added', '2026-02-01', '2026-01-01')", '22023', qr/is empty/, 'backwards');
fails_with($node, "CALL ingest.backfill('added', 'yesterweek', '2026-01-01')", '22007', qr/invalid input syntax/, 'no time');
fails_with($node, "CALL ingest.backfill('added', '2026-01-01', '2026-02-01', '-1 day')", '22023', qr/argument "step"/, 'a step backwards');
fails_with($node, "BEGIN; CALL ingest.backfill('added', '2026-01-01', '2026-02-01', '1 day')", '2D000', qr/inside a transaction block/, 'within a transaction');

$node->safe_psql('postgres', "SELECT ingest.start('added')");
my $kills = 0;
for my $round (1 .. 3)
{
	last if value($node, "SELECT count(*) FROM ingest.backfill_status WHERE pipeline = 'added' AND finished_at IS NOT NULL") ne '0';
	my ($out, $err) = ('', '');
	my $call = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL ingest.backfill('added', '2026-01-01', '2026-02-01', '1 hour')" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	sleep 0.15;
	my $pid = value($node, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL ingest.backfill%' AND pid <> pg_backend_pid() LIMIT 1");
	$kills += kill 'KILL', $pid if $pid ne '';
	$call->finish;
	wait_until_up($node);
}
my ($rc, $out, $err) = (0, '', '');
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.backfill('added', '2026-01-01', '2026-02-01', '1 hour')", timeout => 120)
  if value($node, "SELECT finished_at IS NULL FROM ingest.backfill_status WHERE pipeline = 'added'") eq 't';
is($rc, 0, 'called again, it goes on') or diag $err;
note "after $kills kills";
ok(value($node, "SELECT finished_at IS NOT NULL AND slices = 744 FROM ingest.backfill_status WHERE pipeline = 'added'"), 'it has come to its end');
wait_for($node, 'SELECT (SELECT count(*) FROM added) >= (SELECT count(*) FROM reading)', 't', 'beside the live pipeline');
same_rows($node, 'TABLE reading', 'TABLE added', 'none lost, none twice');
is(value($node, "SELECT count(*) FROM ingest.position WHERE shard LIKE 'backfill%'"), 0, 'its positions are gone');
fails_with($node, "CALL ingest.backfill('added', '2026-01-05', '2026-01-06')", '55000', qr/has read a part of that before/, 'twice');

($rc, $out, $err) = $node->psql('postgres', "CALL ingest.backfill('keyed', '2026-01-10', '2026-01-12', '1 day')");
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.backfill('keyed', '2026-01-11', '2026-01-13')");
is($rc, 0, 'by key, parts may overlap') or diag $err;
is(value($node, 'SELECT count(*), min(at)::date, max(at)::date FROM keyed'), '4320|2026-01-10|2026-01-12', 'and are there once');

# ---- a topic, by offset and by time

my $kafka = KafkaPeer->new->start;
create_server($node, $kafka);
$kafka->create_topic('numbers', 2);
foreach my $partition (0, 1)
{
	$kafka->send('numbers', map { [ $partition, '\N', undef, "{\"n\": $_}" ] } 1 .. 100);
}
$node->safe_psql('postgres', "CREATE FOREIGN TABLE numbers (n int, part integer OPTIONS (metadata 'partition')) SERVER plant OPTIONS (topic 'numbers');
	CREATE TABLE number (n int, part int, PRIMARY KEY (n, part))");
create_pipeline($node, 'numbers', 'numbers', 'number', mode => 'upsert', key => '{n, part}', options => '{"start_at": "latest"}');
run_pipeline($node, 'numbers');
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.backfill('numbers', '10', '40', '10')", timeout => 120);
is($rc, 0, 'a topic, by offset') or diag $err;
is(value($node, 'SELECT count(*), min(n), max(n) FROM number'), '60|11|40', 'exactly that part');
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.backfill('numbers', '2020-01-01', '2100-01-01')", timeout => 120);
is($rc, 0, 'by time') or diag $err;
is(value($node, 'SELECT count(*) FROM number'), 200, 'all of it');

$node->stop;
$kafka->stop;
done_testing();
