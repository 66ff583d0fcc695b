# Every allocation of a turn and of an assignment fails once, every call of
# librdkafka, too: the worker ends the turn cleanly, goes on, and loses nothing.
#
# Some of them, other ones each time (INGEST_SEED); or with INGEST_NTH=all each
# single one.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my $all = ($ENV{INGEST_NTH} // '') eq 'all';
my $seed = $ENV{INGEST_SEED} || int(time);
srand $seed;
diag "INGEST_SEED=$seed" unless $all;
my $partitions = 3;
my @topics = qw(direct statement assign library);
my $broker = MockBroker->new((map { "$_:$partitions" } @topics), 'wide:24');
my $node = start_node('nth', conf => <<'CONF');
fsync = off
ingest.retry_min = '10ms'
ingest.retry_max = '10ms'
CONF
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $broker);
# A broker answers in order, and holds an empty fetch back: failures come faster so.
$node->safe_psql('postgres', q(ALTER SERVER plant OPTIONS (ADD "rdkafka.fetch.wait.max.ms" '20')));
my $options = '"batch_rows": 20, "batch_wait": "5 ms"';
create_sensor_pipeline($node, 'direct', 'direct', options => qq({$options, "lane": "direct"}));
create_sensor_pipeline($node, 'statement', 'statement', options => qq({$options, "lane": "statement"}));
create_sensor_pipeline($node, 'assign', 'assign', options => qq({$options}));
create_sensor_pipeline($node, 'library', 'library', options => qq({$options}), topic_options => { group => 'nth' });
# What a turn can have: a transform.
$node->safe_psql('postgres', q(
	CREATE TABLE seen (n bigint);
	SELECT ingest.add_transform('statement', 'count', 'INSERT INTO seen SELECT count(*) FROM batch')));

my %produced = map { $_ => 0 } @topics;

sub feed
{
	my ($name, $count) = @_;
	my $file = "$dir/$name.$produced{$name}";
	$broker->produce($name, count => $count, first => $produced{$name}, seed => 9, bad => 20, keys => 50,
		manifest => $file);
	load_manifest($node, "${name}_manifest", $file);
	$produced{$name} += $count;
	return;
}

sub arrived
{
	my ($name) = @_;
	return value($node, "SELECT (SELECT count(*) FROM $name)
		+ (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name')");
}

sub set_fault
{
	my ($fault) = @_;
	unlink $node->data_dir . '/ingest_fault_nth';
	$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault_nth = '$fault'");
	$node->reload;
	return;
}

# What a worker holds: files that the server does not count itself, as it does
# those of relations; threads, memory.
sub holdings
{
	my ($pid) = @_;
	my @files = grep { (readlink // '') =~ m{^(pipe|socket|anon_inode)} } glob "/proc/$pid/fd/*";
	my ($threads) = slurp_file("/proc/$pid/status") =~ /^Threads:\s+(\d+)/m;
	my $log = -s $node->logfile;
	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	my $bytes;
	foreach (1 .. 100)
	{
		last if ($bytes) = slurp_file($node->logfile, $log) =~ /\[$pid\].*Grand total: (\d+) bytes/;
		sleep 0.05;
	}
	return { files => scalar @files, threads => $threads, bytes => $bytes };
}

sub stays_small
{
	my ($before, $after, $name) = @_;
	cmp_ok($after->{files}, '<=', $before->{files} + 4, "$name: no files are left open");
	cmp_ok($after->{threads}, '<=', $before->{threads} + 2, "$name: no threads are left");
	cmp_ok($after->{bytes}, '<', $before->{bytes} + 2_000_000, "$name: no memory is left");
	return;
}

# All turns of a pipeline, every other one disturbed, in one process.
sub sweep_turns
{
	my ($name, $step) = @_;
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	feed($name, 1000);
	wait_for($node, "SELECT (SELECT count(*) FROM $name)
		+ (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name')", $produced{$name}, "$name: before");
	my $pid = worker_pid($node, $name);
	my $before = holdings($pid);
	my $log = -s $node->logfile;
	set_fault('allocation:' . (1 + int rand $step) . ":$step:before-turn");

	my $over = 0;
	until ($over)
	{
		feed($name, 2000);
		wait_for($node, "SELECT (SELECT count(*) FROM $name)
			+ (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name')", $produced{$name},
			"$name: $produced{$name} messages", 60) or last;
		$over = count_log($node, qr/fault: no more than/, $log);
	}
	my $times = count_log($node, qr/fault: allocation \d+/, $log);
	set_fault('');
	diag "$name: $times allocations of a turn failed, each ${step}th";
	cmp_ok($times, '>', 10, "J04: $name: allocations failed");
	is(worker_pid($node, $name), $pid, "J04: $name: in one process");
	stays_small($before, holdings($pid), $name);
	finish($name, $log);
	return;
}

# A worker for each: they begin with opening the source and with an assignment.
sub sweep_starts
{
	my ($name, $fault, $step, $most) = @_;
	my $log = -s $node->logfile;
	my ($times, $missed, %helped) = (0, 0);
	set_fault("$fault");
	for (my $n = 1; $n <= $most && $missed < 3; $n += $step)
	{
		my $from = -s $node->logfile;
		$node->safe_psql('postgres', "SELECT ingest.start('$name')");
		feed($name, 60);
		# An error that looks like one of the definition waits for the operator.
		my $deadline = time + 30;
		while (arrived($name) != $produced{$name} && time < $deadline)
		{
			my $state = state_of($node, $name);
			if ($state =~ /broken|failed/)
			{
				$helped{$state}++;
				$node->safe_psql('postgres', "SELECT ingest.start('$name')");
			}
			sleep 0.02;
		}
		is(arrived($name), $produced{$name}, "$name: $n: goes on")
		  or do { diag value($node, 'TABLE ingest.pipeline_status'); last };
		my $now = count_log($node, qr/fault: (allocation|library call) \d+/, $from);
		$times += $now;
		$missed = $now ? 0 : $missed + 1;
		$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
		wait_for($node, 'SELECT count(*) FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id
			WHERE p.name = ' . "'$name'", '0', "$name: $n: ends");
	}
	set_fault('');
	diag "$name: $times failed; start() was needed: "
	  . (join(', ', map { "$_ $helped{$_}" } sort keys %helped) || 'never');
	cmp_ok($times, '>', 10, "$name: failures");
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	finish($name, $log);
	return \%helped;
}

sub finish
{
	my ($name, $log) = @_;
	check_exactly_once($node, $name, "${name}_manifest", $name);
	check_accounts($node, $name, $name, $name);
	wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$name'", 'running', "$name: running", 20);
	is(count_log($node, qr/PANIC|TRAP:|was terminated by signal/, $log), 0, "$name: nothing crashed");
	is(count_log($node, qr/WARNING:.*(leak|not closed|still referenced|in progress)/, $log), 0, "$name: nothing leaked");
	$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
	return;
}

sweep_turns('direct', $all ? 1 : 41);
sweep_turns('statement', $all ? 1 : 61);
my $step = $all ? 1 : 97;
sweep_starts('assign', 'allocation:' . (1 + int rand $step) . ":$step:before-assign", $step, 1_000_000);
my $helped = sweep_starts('library', 'library:1:1', 1, $all ? 120 : 45);
is(join(' ', keys %$helped), 'failed', 'library: only what looks like a wrong definition waits for the operator');

# ---- an error in one of many partitions: all begin again, in one go

create_server($node, $broker, 'slow');
$node->safe_psql('postgres', "
	CREATE FOREIGN TABLE wide_topic (seq bigint) SERVER slow OPTIONS (topic 'wide', format 'json');
	CREATE TABLE wide (seq bigint);
	SELECT ingest.create_pipeline('wide', 'wide_topic', 'wide');
	SELECT ingest.start('wide')");
$broker->produce('wide', count => 100);
wait_for($node, 'SELECT count(*) FROM wide', '100', 'wide: before');
my $pid = worker_pid($node, 'wide');
$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = 'before-load:error:0:$pid'");
$node->reload;
takes_at_most(6, 'wide: an error and its end', sub {
	$broker->produce('wide', count => 100, first => 100);
	wait_for($node, 'SELECT count(*), count(DISTINCT seq) FROM wide', '200|200', 'wide: afterwards');
});
cmp_ok(count_log($node, qr/fault at "before-load"/), '==', 1, 'wide: there was an error');
is(value($node, 'SELECT count(*) FROM ingest.gap'), '0', 'no gaps');

$node->stop('fast');
done_testing();
