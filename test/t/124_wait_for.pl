# CALL ingest.wait_for(): nothing that was there at the call is missing after it, and
# nobody waits longer than needed, or for ever.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use ProcessTest;
use RunTest;

my $node = start_node('wait_for', conf => 'ingest.max_workers = 8');
create_relation_pipeline($node, 'stream', 'continuous', options => '{"late_commits": "wait"}');
create_relation_pipeline($node, 'timed', '1 hour');
create_relation_pipeline($node, 'asked', 'manual');
create_relation_pipeline($node, 'next', 'after stream', source => 'stream');

# In the background; gives a handle with the output.
sub begin_wait
{
	my ($sql) = @_;
	my %call = (out => '', begun => time);
	$call{run} = IPC::Run::start([ 'psql', '-XqAt', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', \'', '>&', \$call{out}, IPC::Run::timeout(60));
	wait_for($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE query = \$\$$sql\$\$ AND wait_event_type = 'Extension'", 't',
		"$sql: waits");
	return \%call;
}

sub end_wait
{
	my ($call) = @_;
	$call->{run}->finish;
	return $call->{out};
}

# ---- who may not, and what cannot be waited for

fails_with($node, "CALL ingest.wait_for('stream')", '55000', qr/pipeline "stream" is stopped/, 'stopped');
fails_with($node, "CALL ingest.wait_for('streem')", '42704', qr/"streem" does not exist/, 'unknown');
fails_with($node, "BEGIN; CALL ingest.wait_for('stream')", '2D000', qr/transaction block/, 'in a transaction block');
$node->safe_psql('postgres', "SELECT ingest.start(name) FROM ingest.pipeline WHERE name <> 'next'");

# ---- a stream

for my $round (1 .. 10)
{
	$node->safe_psql('postgres', "INSERT INTO stream_source SELECT $round * 1000 + g FROM generate_series(1, 100) g");
	is(value($node, "CALL ingest.wait_for('stream', '20 s'); SELECT count(*) FROM stream"), $round * 100,
		"stream: round $round: all there");
}
is(value($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'stream' AND cause <> 'stream'"), 0, 'a stream has one cause');

# What a transaction holds back that began before is waited for; the waiting itself
# holds nothing back, not even each other.
my $writer = $node->background_psql('postgres', on_error_die => 1);
$writer->query_safe('BEGIN; INSERT INTO stream_source VALUES (20001)');
$node->safe_psql('postgres', 'INSERT INTO stream_source VALUES (20002)');
my @calls = map { begin_wait("CALL ingest.wait_for('stream', '5$_ s')") } 1 .. 3;
is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'Extension' AND backend_xmin IS NOT NULL AND backend_type = 'client backend'"),
	0, 'who waits holds no snapshot');
sleep 1;
is(value($node, 'SELECT count(*) FROM stream'), 1000, 'stream: held back by a writer');
$writer->query_safe('COMMIT');
is(end_wait($_), '', 'stream: the writer has ended, and so has the waiting') foreach @calls;
is(value($node, 'SELECT count(*) FROM stream'), 1002, 'stream: nothing is missing');
$writer->quit;

# Writers whose transactions overlap hold back something at any time, but not for ever
# what was there at the call.
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('timed', options => '{"late_commits": "wait"}')));
foreach my $name (qw(stream timed))
{
	my @writers = map { $node->background_psql('postgres', on_error_die => 1) } 1 .. 2;
	$writers[0]->query_safe("BEGIN; INSERT INTO ${name}_source VALUES (100001)");
	$node->safe_psql('postgres', "INSERT INTO ${name}_source VALUES (100002)");
	my $waiting = begin_wait("CALL ingest.wait_for('$name', '59 s')");
	$node->safe_psql('postgres', "SELECT ingest.run_now('timed')") if $name eq 'timed';
	sleep 3;					# longer than a run that nobody waits for would
	is(value($node, "SELECT count(*) FROM $name WHERE seq > 100000"), 0, "$name: held back");
	$writers[1]->query_safe("BEGIN; INSERT INTO ${name}_source VALUES (100003)");
	$writers[0]->query_safe('COMMIT');
	is(end_wait($waiting), '', "$name: who began later is not waited for");
	is(value($node, "SELECT count(*) FROM $name WHERE seq > 100000"), 2, "$name: what was there has arrived");
	$writers[1]->query_safe('ROLLBACK');
	$_->quit foreach @writers;
	$node->safe_psql('postgres', "DELETE FROM ${name}_source WHERE seq > 100000; DELETE FROM $name WHERE seq > 100000");
}

# ---- by schedule, by hand: a run that begins after the call

my $call = begin_wait("CALL ingest.wait_for('asked', '55 s')");
$node->safe_psql('postgres', "INSERT INTO asked_source VALUES (1); SELECT ingest.run_now('asked')");
is(end_wait($call), '', 'manual: somebody has asked for a run');
is(value($node, 'SELECT count(*) FROM asked'), 1, 'manual: which has read it');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'timed'", 'idle', 'timed: the first run is over');
fails_with($node, "CALL ingest.wait_for('timed', '500 ms')", '57014', qr/timeout: pipeline "timed" has not caught up/, 'timeout');
$call = begin_wait("CALL ingest.wait_for('timed')");
$node->safe_psql('postgres', "SELECT ingest.run_now('timed')");
is(end_wait($call), '', 'timed: without a timeout');

# ---- after others: what those have done is seen

$node->safe_psql('postgres', "SELECT ingest.start('next')");
is(value($node, "CALL ingest.wait_for('next', '20 s'); SELECT count(*) FROM next"), 1002, 'after: all that was there');
for my $round (1 .. 5)
{
	$node->safe_psql('postgres', "INSERT INTO stream_source VALUES (200000 + $round)");
	is(value($node, "CALL ingest.wait_for('stream', '20 s'); CALL ingest.wait_for('next', '20 s'); SELECT count(*) FROM next"),
		1002 + $round, "after: round $round: through the chain");
}

# ---- the pipeline ends while somebody waits

$call = begin_wait("CALL ingest.wait_for('asked', '56 s')");
$node->safe_psql('postgres', "SELECT ingest.stop('asked')");
like(end_wait($call), qr/55000: pipeline "asked" is stopped/, 'stopped meanwhile');
$node->safe_psql('postgres', "SELECT ingest.start('asked')");
$call = begin_wait("CALL ingest.wait_for('asked', '57 s')");
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('asked')");
like(end_wait($call), qr/42704: pipeline "asked" was dropped/, 'dropped meanwhile');
$call = begin_wait("CALL ingest.wait_for('timed', '58 s')");
$node->safe_psql('postgres', "ALTER TABLE timed_source RENAME COLUMN seq TO other; SELECT ingest.run_now('timed')");
like(end_wait($call), qr/55000: pipeline "timed" does not run: broken/, 'halted meanwhile');
cmp_ok(time - $call->{begun}, '<', 20, 'and told at once');

# cancelled; and gone, which leaves no trace
$node->safe_psql('postgres', "CREATE TABLE more (seq bigint); CREATE TABLE more_source (seq bigint PRIMARY KEY);
	SELECT ingest.create_pipeline('more', 'more_source', 'more', schedule => 'manual', options => '{\"cursor\": \"seq\"}'); SELECT ingest.start('more')");
foreach my $how (qw(pg_cancel_backend pg_terminate_backend))
{
	$call = begin_wait("CALL ingest.wait_for('more', '60 s')");
	$node->safe_psql('postgres', "SELECT $how(pid) FROM pg_stat_activity WHERE query LIKE 'CALL ingest.wait_for(''more''%' AND wait_event_type = 'Extension'");
	like(end_wait($call), qr/57014|57P01/, $how);
}
$node->safe_psql('postgres', 'INSERT INTO stream_source VALUES (300001)');
is(value($node, "CALL ingest.wait_for('stream', '20 s'); SELECT count(*) FROM stream WHERE seq = 300001"), 1, 'the next one is served');

# ---- no library, no background

$node->stop;
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->adjust_conf('postgresql.conf', 'ingest.max_workers', undef);
$node->start;
fails_with($node, "CALL ingest.wait_for('stream')", '55000', qr/cannot run in background/, 'not preloaded');
$node->stop;
done_testing();
