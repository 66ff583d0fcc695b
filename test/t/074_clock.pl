# A30: the clock is set, hours forward and back: what waits does not wait for it,
# and a schedule does not make up for what the clock has left out.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use ClockTest;
use IngestTest;
use KafkaPeer;
use ProcessTest;

my $kafka = KafkaPeer->new->start;
my $node = with_clock(sub { start_node('clock') });
create_server($node, $kafka);
unreachable_server($node, 'nobody', '127.0.0.1:1');
$node->safe_psql('postgres', "ALTER SERVER nobody OPTIONS (SET timeout '100 ms')");
my $partitions = 1;
my %produced;

# A message into the last partition there is.
sub feed
{
	my ($topic) = @_;
	my $partition = $topic eq 'flow' ? $partitions - 1 : 0;
	$kafka->send($topic, [ $partition, undef, undef, '{"seq": ' . $produced{$topic}++ . '}' ]);
	return;
}

foreach my $name (qw(flow hourly))
{
	$kafka->create_topic($name, 1);
	create_pipeline($node, $name, schedule => $name eq 'hourly' ? '1 hour' : 'continuous');
	feed($name);
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	wait_for($node, "SELECT count(*) FROM $name", 1, "$name: reads");
}
create_pipeline($node, 'away', server => 'nobody');
$node->safe_psql('postgres', "SELECT ingest.start('away')");
my $attempts = "SELECT attempts FROM ingest.pipeline_status WHERE name = 'away'";
wait_for($node, "SELECT ($attempts) > 2", 't', 'away: is tried again and again');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'hourly'", 'idle', 'hourly: has run');

foreach my $hours (10, 0, -10)
{
	feed('hourly');
	set_clock($hours);
	# Else it would be up to a minute until somebody looks.
	$node->safe_psql('postgres', 'SELECT ingest._wake()');
	my $tried = value($node, $attempts);
	my $worker = worker_pid($node, 'away');
	kill 'TERM', $worker if $hours == 0 && $worker;
	feed('flow');
	wait_for($node, 'SELECT count(*) FROM flow', $produced{flow}, "$hours hours off: messages arrive", 20);
	$kafka->add_partitions('flow', ++$partitions);
	feed('flow');
	wait_for($node, 'SELECT count(*) FROM flow', $produced{flow}, "$hours hours off: new partitions are found", 20);
	wait_for($node, "SELECT ($attempts) > $tried + 2", 't', "$hours hours off: what has failed is tried again", 20);
	wait_for($node, 'SELECT count(*) FROM hourly', $produced{hourly}, "$hours hours off: a scheduled run", 90);
	wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'hourly'", 'idle', "$hours hours off: has ended");
	my $next = value($node, "SELECT next_run FROM ingest.pipeline_status WHERE name = 'hourly'");
	feed('hourly');
	sleep 2;
	is(value($node, 'SELECT count(*) FROM hourly'), $produced{hourly} - 1, "$hours hours off: one");
	is(value($node, "SELECT '$next' BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 hour'"), 't', "$hours hours off: the next one is an hour away");
	feed('flow');
	wait_for($node, 'SELECT count(*) FROM flow', $produced{flow}, "$hours hours off: and messages still arrive", 20);
}

$node->stop('fast');
done_testing();
