# CALL ingest.run(): a commit a batch, progress, cancel, and no preloading.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
my $node = start_node('run', preload => 0);
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $kafka);
is(value($node, 'SHOW shared_preload_libraries'), '', 'not preloaded');

$kafka->create_topic('sensors', 4);
$kafka->produce('sensors', count => 100000, seed => 1, bad => 10, manifest => "$dir/sensors");
load_manifest($node, 'sensors_manifest', "$dir/sensors");
create_sensor_pipeline($node, 'sensors', 'sensors', options => '{"batch_rows": 1000}');
fails_with($node, "SELECT ingest.start('sensors')", '55000', qr/preload/, 'start without preloading');
is(state_of($node, 'sensors'), 'stopped', 'the state says so');

# Only so many batches.
$node->safe_psql('postgres', "CALL ingest.run('sensors', 2)");
my $read = value($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'sensors'");
ok($read > 0 && $read <= 2000, "two batches: $read rows");

# Cancelled and terminated in the middle, again and again: what is committed stays, nothing is torn.
sub run_in_background
{
	my ($pipeline) = @_;
	my $pid_of = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL ingest.run(%' AND pid <> pg_backend_pid() LIMIT 1";
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL ingest.run('$pipeline')" ],
		'>', "$dir/out", '2>', "$dir/err");
	my $pid = '';
	foreach (1 .. 200)
	{
		$pid = value($node, $pid_of);
		last if $pid;
		sleep 0.01;
	}
	return ($handle, $pid);
}

$node->safe_psql('postgres', "SELECT ingest.add_transform('sensors', 'slowly', 'SELECT pg_sleep(0.02)')");
foreach my $how (qw(cancel terminate cancel))
{
	my ($handle, $pid) = run_in_background('sensors');
	wait_for($node, "SELECT query LIKE '%messages in % batches%' FROM pg_stat_activity WHERE pid = $pid", 't',
		'progress is seen in pg_stat_activity');
	my $begin = time;
	value($node, "SELECT pg_${how}_backend($pid)");
	IPC::Run::finish($handle);
	cmp_ok(time - $begin, '<', 2, "$how: at once");
	check_accounts($node, 'sensors', 'sensors', "after a $how");
}
my $before = value($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'sensors'");
cmp_ok($before, '<', 100000, "$before rows until then");
$node->safe_psql('postgres', "SELECT ingest.drop_transform('sensors', 'slowly')");
drain($node, 'sensors');
check_exactly_once($node, 'sensors', 'sensors_manifest', 'then to the end');
check_lag($node, $kafka, 'sensors', 'sensors', 'then to the end');

# It ends where the topic ended when it began, however fast messages come.
my $producer = $kafka->produce_start('sensors', count => 40000, first => 100000, seed => 1, rate => 4000);
sleep 1;
my $begin = time;
drain($node, 'sensors');
cmp_ok(time - $begin, '<', 5, 'a run ends though messages keep coming');
IPC::Run::finish($producer);

# Two at a time: the second one is told.
$kafka->create_topic('more', 1);
$kafka->produce('more', count => 100000, seed => 2);
create_sensor_pipeline($node, 'more', 'more', options => '{"batch_rows": 500}');
$node->safe_psql('postgres', "SELECT ingest.add_transform('more', 'slowly', 'SELECT pg_sleep(0.05)')");
my ($handle, $pid) = run_in_background('more');
fails_with($node, "CALL ingest.run('more')", '55006', qr/already running/, 'two runs of a pipeline');
value($node, "SELECT pg_terminate_backend($pid)");
IPC::Run::finish($handle);

# Where it cannot be called.
fails_with($node, "BEGIN; CALL ingest.run('more')", '2D000', qr/transaction/, 'in a transaction block');
fails_with($node, "CALL ingest.run('mor')", '42704', qr/mor/, 'an unknown pipeline');
like(fails_with($node, "CALL ingest.run('mor')", '42704', qr/mor/, 'an unknown pipeline'), qr/HINT:.*more/, 'with a hint');

# The broker goes away in the middle: an error, not a hang; cancel works there too.
($handle, $pid) = run_in_background('more');
sleep 0.2;
$kafka->freeze;
$begin = time;
IPC::Run::finish($handle);
cmp_ok(time - $begin, '<', 60, sprintf 'brokers that fall silent end a run, after %.0f s', time - $begin);
($handle, $pid) = run_in_background('more');
sleep 1;
$begin = time;
value($node, "SELECT pg_cancel_backend($pid)") if $pid;
IPC::Run::finish($handle);
cmp_ok(time - $begin, '<', 2, 'cancelled while waiting for silent brokers');
$kafka->thaw;
$node->safe_psql('postgres', "SELECT ingest.drop_transform('more', 'slowly')");
drain($node, 'more');
is(value($node, 'SELECT count(*), count(DISTINCT seq) FROM more'), '100000|100000', 'and then all is there, once');

$node->stop('fast');
done_testing();
