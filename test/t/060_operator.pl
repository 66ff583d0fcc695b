# What an operator does: run in the foreground, cancel, seek.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
# Not preloaded: everything but background running has to work.
my $node = start_node('operator', preload => 0);
create_server($node, $kafka);

my $manifest = PostgreSQL::Test::Utils::tempdir() . '/manifest';
$kafka->create_topic('sensors', 2);
$kafka->produce('sensors', count => 20000, seed => 11, bad => 10, manifest => $manifest);
load_manifest($node, 'produced', $manifest);
create_sensor_pipeline($node, 'reading', 'sensors', options => '{"batch_rows": 100}');

fails_with($node, "SELECT ingest.start('reading')", '55000', qr/shared_preload_libraries/, 'start without preloading');

# ---- CALL ingest.run()

drain_batches(1);
is(value($node, "SELECT count(*), sum(messages) FROM ingest.batch_history"), '1|100', 'one batch when one is asked for');

# A second run has to wait its turn; the first, which a fault point holds in its
# 21st batch, shows its progress and can be cancelled.
my $log = PostgreSQL::Test::Utils::tempdir() . '/run';
my $session = IPC::Run::start([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', "LOAD 'ingest'",
		'-c', "SET ingest.fault = 'before-commit:wait:20'", '-c', "CALL ingest.run('reading')" ],
	'<', '/dev/null', '>', $log, '2>&1');
wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity
	WHERE query LIKE 'CALL ingest.run(''reading''): % messages in % batches, about % to go'", 't', 'run shows its progress');
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('reading')");
like($err, qr/already running/, 'two runs of one pipeline');
is(value($node, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
	WHERE query LIKE 'CALL ingest.run(%' AND pid <> pg_backend_pid()"), '1', 'cancelled');
wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'CALL ingest.run(%'
	AND state = 'active' AND pid <> pg_backend_pid()", 't', 'ended');
$session->finish;
like(slurp_file($log), qr/canceling statement/, 'the session heard of it');
check_accounts($node, 'reading', 'reading', 'after the cancel');
cmp_ok(value($node, "SELECT sum(messages) FROM ingest.batch_history"), '<', 20000, 'in the middle');
drain($node, 'reading');
check_exactly_once($node, 'reading', 'produced', 'cancelled and run again');
check_lag($node, $kafka, 'reading', 'sensors', 'after the run');

# ---- seek

my $ends = $kafka->ends('sensors');
my ($end0, $end1) = map { $ends->{$_}[1] } 0, 1;
fails_with($node, "SELECT * FROM ingest.seek('reading', 'earliest')", '55000', qr/skip 0 and repeat 20000 messages/,
	'seek wants to be confirmed');
is(value($node, "SELECT * FROM ingest.seek('reading', positions => '{\"0\": 100}', confirm => true)"),
	"0|$end0|100|0|" . ($end0 - 100), 'seek back');
is(value($node, "SELECT * FROM ingest.seek('reading', 'latest', confirm => true) WHERE shard = '0'"),
	"0|100|$end0|" . ($end0 - 100) . '|0', 'seek ahead');
is(value($node, "SELECT pipeline, shard, from_position, to_position, messages, reason FROM ingest.gap"),
	"reading|0|100|$end0|" . ($end0 - 100) . '|seek', 'what was skipped is a gap');
drain($node, 'reading');
check_exactly_once($node, 'reading', 'produced', 'nothing was read again');
fails_with($node, "SELECT * FROM ingest.seek('reading', positions => '{\"2\": 1}')", '22023', qr/no shard "2"/,
	'a shard that is not there');
fails_with($node, "SELECT * FROM ingest.seek('reading', positions => '{\"0\": \"x\"}')", '22023', qr/invalid position/,
	'no position');

# A new pipeline can be put anywhere before it runs.
$node->safe_psql('postgres', q(
	CREATE TABLE late (seq bigint);
	SELECT ingest.create_pipeline('late', 'reading_topic', 'late')));
$node->safe_psql('postgres', "SELECT * FROM ingest.seek('late', positions => '{\"0\": \"" . ($end0 - 5) . "\", \"1\": $end1}')");
drain($node, 'late');
is(value($node, "SELECT count(*) <= 5, count(*) > 0 FROM late"), 't|t', 'seek before the first run');

# ---- the history is trimmed, the sums stay

is(value($node, "SELECT read, written + rejected = read FROM ingest.pipeline_status WHERE name = 'reading'"), '20000|t',
	'sums of the status');

$node->stop;
done_testing();

sub drain_batches
{
	my ($n) = @_;
	$node->safe_psql('postgres', "CALL ingest.run('reading', $n)");
	return;
}
