# Each fault point of a turn by each way to fail, in the middle of a stream: the
# pipeline goes on by itself, and every message is exactly once where it belongs.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my @points = qw(after-fetch mid-decode before-load after-load before-position before-commit
  after-commit before-acknowledge);
my @actions = qw(error exit kill);

my $broker = MockBroker->new('stream:3');
my $node = start_node('points', conf => <<'CONF');
restart_after_crash = on
fsync = off
ingest.retry_min = '20ms'
ingest.retry_max = '200ms'
CONF
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $broker);
create_sensor_pipeline($node, 'stream', 'stream',
	options => '{"batch_rows": 100, "batch_wait": "50 ms"}', topic_options => { group => 'points' });
$node->safe_psql('postgres', "SELECT ingest.start('stream')");


my $produced = 0;
my $letters = "(SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'stream')";

# Each piece goes on where the one before ended; some messages are bad.
sub feed
{
	my ($count) = @_;
	my $file = "$dir/$produced";
	$broker->produce('stream', count => $count, first => $produced, seed => 5, bad => 20, keys => 50,
		manifest => $file);
	$produced += $count;
	return $file;
}

sub all_arrives
{
	my ($file, $name) = @_;
	wait_for($node, "SELECT (SELECT count(*) FROM stream) + $letters", $produced, "$name: goes on by itself", 20)
	  or return 0;
	load_manifest($node, 'stream_manifest', $file);
	check_exactly_once($node, 'stream', 'stream_manifest', $name);
	return 1;
}

all_arrives(feed(300), 'before');
RUN: foreach my $action (@actions)
{
	foreach my $point (@points)
	{
		my $name = "$action at $point";
		my $pid = worker_pid($node, 'stream');
		my $log = -s $node->logfile;

		# Not the first time, so that it hits a stream and not its begin; most
		# points are passed once a batch, one of them once a message.
		my $skip = $point eq 'mid-decode' ? 150 : 1;
		$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = '$point:$action:$skip:$pid'");
		$node->reload;

		my $file = feed(600);
		my $hit = $action eq 'error' ? qr/fault at "$point"/
		  : $action eq 'exit' ? qr/PID $pid\) exited with exit code 1/ : qr/PID $pid\) was terminated by signal 9/;
		my $times = 0;
		foreach (1 .. 200)
		{
			last if $times = count_log($node, $hit, $log);
			sleep 0.05;
		}
		is($times, 1, "$name: was met once");
		all_arrives($file, $name) or last RUN;
		wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'stream'", 'running',
			"$name: is well again", 20) or last RUN;
		is(worker_pid($node, 'stream') eq $pid, $action eq 'error',
			"$name: " . ($action eq 'error' ? 'the same worker' : 'another worker'));
	}
}
check_accounts($node, 'stream', 'stream', 'in the end');
is(value($node, 'SELECT count(*) FROM ingest.gap'), '0', 'no gaps');
is(count_log($node, qr/PANIC|TRAP:/), 0, 'nothing worse in the log');

$node->stop('fast');
done_testing();
