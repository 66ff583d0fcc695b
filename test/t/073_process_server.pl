# The server goes down, comes back, is a standby, has no room: rows of failures A
# about all processes together.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my $broker = MockBroker->new('flow:2', 'idle:1', 'slow:1', map { "q$_:1" } 1 .. 4);
my $silent = MockBroker->new('silent:1');
$silent->freeze;

sub prepare
{
	my ($node) = @_;
	create_server($node, $broker);
	unreachable_server($node, 'silent', $silent->brokers);
	unreachable_server($node, 'nobody', '127.0.0.1:1');
	create_pipeline($node, 'flow');
	create_pipeline($node, 'idle');
	create_pipeline($node, 'slow');
	create_pipeline($node, 'silent', server => 'silent');
	create_pipeline($node, 'nobody', server => 'nobody', topic => 'silent');
	$node->safe_psql('postgres', "SELECT ingest.add_transform('slow', 'sleep', 'SELECT pg_sleep(60)');
		SELECT ingest.start(name) FROM ingest.pipeline");
	wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'pipelines of all kinds run');
	return;
}

my $node = start_node('server', conf => "restart_after_crash = on\n"
	  . "wal_level = replica\nmax_wal_senders = 5\nhot_standby = on\n");
prepare($node);
$broker->produce('slow', count => 10);
wait_for($node, "SELECT count(*) FROM ingest._workers() WHERE phase = 'loading'", '1', 'one is in SQL');

sub pids
{
	return split /\n/, value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'ingest%'");
}

# ---- A06: fast shutdown in all states at once

my $producer = IPC::Run::start([ "$ENV{INGEST_TEST_BIN}/produce", '--brokers', $broker->brokers, '--topic', 'flow',
	'--count', 60000, '--rate', 5000 ], '>', \my $produced, '2>', \my $errors);
sleep 1;
my @pids = pids();
is(scalar @pids, 7, 'launcher, supervisor and workers are there');
takes_at_most(3, 'A06: fast shutdown', sub { $node->stop('fast') });
is(scalar(grep { !is_gone($_) } @pids), 0, 'A06: nobody is left');
$node->start;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A06: all come back');
is(value($node, 'SELECT coalesce(max(crashes), 0) FROM ingest._state'), '0', 'A06: which is no crash');

# ---- A07: immediate shutdown, the postmaster killed

wait_for($node, "SELECT count(*) FROM ingest._workers() WHERE phase = 'loading'", '1', 'one is in SQL', 20);
@pids = pids();
$node->stop('immediate');
wait_gone(2, 'A07: immediate shutdown ends all', @pids);
$node->start;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A07: all come back');
is(value($node, 'SELECT coalesce(max(crashes), 0) FROM ingest._state'), '0', 'A07: which is no crash');

@pids = pids();
$node->kill9;
wait_gone(3, 'A07: the death of the postmaster ends all that wait',
	grep { $_ != 0 } @pids);
sleep 0.5;
$node->start(fail_ok => 1) or do { sleep 2; $node->start };
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A07: all come back');
is(value($node, 'SELECT coalesce(max(crashes), 0) FROM ingest._state'), '0', 'A07: which is no crash');

# ---- A20: another process crashes

@pids = pids();
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $victim = $session->query_safe('SELECT pg_backend_pid()');
kill 9, $victim;
wait_gone(3, 'A20: a crash elsewhere ends all', @pids);
wait_until_up($node);
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A20: all come back');
is(value($node, 'SELECT coalesce(max(crashes), 0) FROM ingest._state'), '0', 'A20: and it was not them');

# ---- A01, A02: a worker crashes

foreach my $round (1 .. 2)
{
	wait_for($node, "SELECT w.phase FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = 'slow'",
		'loading', 'A01: in the batch that kills it');
	kill 9, worker_pid($node, 'slow');
	sleep 0.5;
	wait_until_up($node);
	wait_for($node, "SELECT s.crashes FROM ingest._state s JOIN ingest._pipeline p ON p.id = s.pipeline_id WHERE p.name = 'slow'",
		$round, "A01: crash $round is counted");
	is(value($node, "SELECT coalesce(sum(s.crashes), 0) FROM ingest._state s JOIN ingest._pipeline p ON p.id = s.pipeline_id WHERE p.name <> 'slow'"),
		'0', 'A01: for the culprit alone');
	like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'slow'"), qr/crashed/, 'A01: and shown');
}
wait_for($node, "SELECT w.phase FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = 'slow'",
	'loading', 'A02: once more');
kill 9, worker_pid($node, 'slow');
sleep 0.5;
wait_until_up($node);
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'slow'", 'failed', 'A02: three in a row: failed');
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '4', 'A02: the others run');
$node->safe_psql('postgres', "SELECT ingest.drop_transform('slow', 'sleep'); SELECT ingest.start('slow')");
wait_for($node, 'SELECT count(*) FROM slow', '10', 'A02: ingest.start() goes on');
wait_for($node, "SELECT crashes FROM ingest._state s JOIN ingest._pipeline p ON p.id = s.pipeline_id WHERE p.name = 'slow'",
	'0', 'A02: and forgets');
kill 9, worker_pid($node, 'idle');
sleep 0.5;
wait_until_up($node);
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A03: after the crash of an idle one all come back');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'idle'", 'running', 'A03: it, too');

# It has nothing to commit by which a crash could be forgotten; time does that.
my $crashes_of_idle = "SELECT crashes FROM ingest._state s JOIN ingest._pipeline p ON p.id = s.pipeline_id WHERE p.name = 'idle'";
foreach my $case ([ '1 minute', 2 ], [ '2 hours', 1 ])
{
	my ($ago, $crashes) = @$case;
	$node->safe_psql('postgres', "UPDATE ingest._state SET crashed_at = crashed_at - interval '$ago'");
	kill 9, worker_pid($node, 'idle');
	sleep 0.5;
	wait_until_up($node);
	wait_for($node, $crashes_of_idle, $crashes, "A02: a crash $ago after another");
	wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A02: all come back');
}

$producer->finish;
wait_for($node, 'SELECT count(*), count(DISTINCT seq) FROM flow', '60000|60000', 'A03: and all rows are there, once');

# ---- A06: a commit that waits for a standby that does not exist

$node->append_conf('postgresql.conf', "synchronous_standby_names = 'bogus'");
$node->reload;
sleep 0.5;
$broker->produce('idle', count => 10);
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'ingest worker'", '1',
	'A06: a commit waits for a standby');
takes_at_most(3, 'A06: fast shutdown all the same', sub { $node->stop('fast') });
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");

# ---- A15: without preloading

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ingest%'"), '0', 'A15: no preloading, no process');
is(value($node, 'SELECT count(*) FROM ingest._workers()'), '0', 'A15: which is visible');
is(value($node, "SELECT state || ': ' || hint FROM ingest.pipeline_status WHERE name = 'flow'"),
	'stopped: Add ingest to shared_preload_libraries.', 'A15: the state says why');
fails_with($node, "SELECT ingest.start('flow')", '55000', qr/cannot run in background/, 'A15: ingest.start()');
$broker->produce('flow', count => 10, first => 60000);
drain($node, 'flow');
is(value($node, 'SELECT count(*) FROM flow'), '60010', 'A15: in the foreground');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION ingest CASCADE; ROLLBACK; CREATE DATABASE x; DROP DATABASE x');
$node->stop;

# ---- A17: no room

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ingest'\nmax_worker_processes = 4\n");
my $offset = -s $node->logfile;
$node->start;
wait_for($node, "SELECT count(*) FROM ingest._workers()", '1', 'A17: few processes, few workers');
wait_for($node, "SELECT count(*) >= 3 FROM ingest.pipeline_status WHERE state = 'queued'", 't', 'A17: others are queued');
sleep 5;
cmp_ok(count_log($node, qr/out of background worker slots/, $offset), '<=', 1, 'A17: said once');
is(value($node, 'SELECT coalesce(max(attempts), 0) FROM ingest._state WHERE message LIKE \'%slot%\''), '0', 'A17: and no failure');
$node->stop;
$node->append_conf('postgresql.conf', "max_worker_processes = 20\ningest.max_workers = 2\n");
$node->start;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '2', 'A17: as many as are allowed');
wait_for($node, "SELECT count(*) FROM ingest.pipeline_status WHERE state = 'queued'", '3', 'A17: others are queued');
is(count_log($node, qr/out of background worker slots/, $offset), 1, 'A17: which is nothing to complain of');
$node->append_conf('postgresql.conf', "ingest.max_workers = 8\n");
$node->reload;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'A17: more are allowed');
$node->append_conf('postgresql.conf', "ingest.max_workers = 1\n");
$node->reload;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '1', 'A17: fewer are allowed');
$node->append_conf('postgresql.conf', "ingest.max_workers = 4\n");
$node->reload;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '4', 'J19: one has to wait');
my $queued = value($node, "SELECT name FROM ingest.pipeline_status WHERE state = 'queued'");
wait_for($node, "SELECT count(*) FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = '$queued'",
	'1', 'J19: but not for ever', 45);
is(workers($node), '4', 'J19: another has made room');
$node->append_conf('postgresql.conf', "ingest.max_workers = 8\n");
$node->reload;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '5', 'all run');

# ---- A21, A22: a standby

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is(value($standby, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ingest%'"), '0', 'A21: nothing runs on a standby');
is(value($standby, 'SELECT count(*) FROM ingest._workers()'), '0', 'A21: which is visible');
is(value($standby, "SELECT count(*) FROM ingest.pipeline_status"), '5', 'A21: the state can be read');
$broker->produce('flow', count => 1000, first => 60010);
wait_for($node, 'SELECT count(*) FROM flow', '61010', 'the primary goes on');
$node->wait_for_catchup($standby);
$node->stop('immediate');
my $crashes = value($standby, 'SELECT sum(crashes) FROM ingest._state');
$standby->promote;
takes_at_most(10, 'A22: promotion', sub {
	wait_for($standby, "SELECT count(*) FROM ingest._workers()", '5', 'A22: they run after promotion');
});
is(value($standby, 'SELECT sum(crashes) FROM ingest._state'), $crashes, 'A22: which is no crash');
$broker->produce('flow', count => 1000, first => 61010);
wait_for($standby, 'SELECT count(*), count(DISTINCT seq) FROM flow', '62010|62010', 'A22: no row is lost, none is twice');
$standby->stop;
done_testing();
