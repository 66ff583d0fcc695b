# Kills at random moments of a stream: afterwards every message is exactly once
# in the target or among the dead letters.
#
# INGEST_ROUNDS: how many kills (default 8); INGEST_SEED: of the moments.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use KafkaPeer;

my $rounds = $ENV{INGEST_ROUNDS} || 8;
my $seed = $ENV{INGEST_SEED} || int(time);
my $rate = 6000;
srand $seed;
diag "INGEST_ROUNDS=$rounds INGEST_SEED=$seed";

my $kafka = KafkaPeer->new->start;
my $node = start_node('kills', conf => "wal_level = replica\nrestart_after_crash = on");
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $kafka);

# One pipeline by one worker in the direct lane, one by two in the other.
my %pipelines = (
	plain => '{"batch_rows": 700, "lane": "direct"}',
	booked => '{"batch_rows": 900, "lane": "statement", "workers": 2}');
foreach my $name (sort keys %pipelines)
{
	$kafka->create_topic($name, 4);
	create_sensor_pipeline($node, $name, $name, options => $pipelines{$name});
}
$node->safe_psql('postgres', "SELECT ingest.start('$_')") foreach sort keys %pipelines;

# Producers come in short pieces, so that the stream lasts as long as the rounds.
my %first = map { $_ => 0 } keys %pipelines;
my %manifests = map { $_ => [] } keys %pipelines;
my @producers;

sub feed
{
	my ($name, $seconds) = @_;
	my $count = int($rate * $seconds);
	my $file = "$dir/$name." . scalar @{ $manifests{$name} };
	my %more = $name eq 'booked' ? (transaction => 400, abort => 4) : ();
	push @{ $manifests{$name} }, $file;
	push @producers, $kafka->produce_start($name, count => $count, first => $first{$name}, seed => 11,
		bad => 10, tombstones => 2, keys => 100, rate => $rate, manifest => $file, %more);
	$first{$name} += $count;
	return;
}

sub finish_producers
{
	foreach my $producer (@producers)
	{
		IPC::Run::finish($producer) or die 'a producer failed: ' . slurp_file("$kafka->{dir}/produce.log");
	}
	@producers = ();
	return;
}

sub batches
{
	my ($name) = @_;
	my ($rc, $out) = $node->psql('postgres', "SELECT coalesce(max(id), 0) FROM ingest.batch_history
		WHERE pipeline = '$name' AND messages > 0", timeout => 30);
	return $rc == 0 ? $out : undef;
}

sub worker_pid
{
	my ($rc, $out) = $node->psql('postgres', "SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'ingest worker' ORDER BY random() LIMIT 1", timeout => 30);
	return $rc == 0 && $out ? $out : undef;
}

# The postmaster answers again after a crash of one of its processes.
sub wait_for_server
{
	foreach (1 .. 600)
	{
		my ($rc) = $node->psql('postgres', 'SELECT 1', timeout => 30);
		return if $rc == 0;
		sleep 0.1;
	}
	BAIL_OUT('the server did not come back');
}

my %actions = (
	'kill -9 of a worker' => sub {
		my $pid = worker_pid();
		kill 'KILL', $pid if $pid;
		sleep 0.2;
		wait_for_server();
	},
	'a worker terminated' => sub {
		$node->psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'ingest worker' ORDER BY random() LIMIT 1", timeout => 30);
	},
	'immediate restart of the server' => sub { $node->stop('immediate'); $node->start },
	'fast restart of the server' => sub { $node->restart },
	'kill -9 of the broker' => sub { $kafka->kill9; sleep rand 1; $kafka->start },
	'restart of the broker' => sub { $kafka->restart },
	'broker and worker killed' => sub {
		my $pid = worker_pid();
		$kafka->kill9;
		kill 'KILL', $pid if $pid;
		sleep rand 1;
		$kafka->start;
		wait_for_server();
	},
	'stop and start of the pipelines' => sub {
		$node->psql('postgres', "SELECT ingest.stop('$_')", timeout => 30) foreach sort keys %pipelines;
		sleep rand 0.5;
		$node->psql('postgres', "SELECT ingest.start('$_')", timeout => 30) foreach sort keys %pipelines;
	});
# Worse things come more often.
my @deck = (sort(keys %actions), ('kill -9 of a worker') x 4, ('immediate restart of the server') x 2);

for my $round (1 .. $rounds)
{
	# Each round begins with progress, so that a kill meets work, and is not one
	# more crash of a worker that has done nothing.
	my %before = map { $_ => batches($_) } keys %pipelines;
	feed($_, 2.5) foreach sort keys %pipelines;
	my $progress = 0;
	foreach (1 .. 600)
	{
		$progress = grep { (batches($_) // 0) > ($before{$_} // 0) } keys %pipelines;
		last if $progress == keys %pipelines;
		sleep 0.1;
	}
	my $action = $round <= 3 ? ('kill -9 of a worker', 'immediate restart of the server', 'kill -9 of the broker')[ $round - 1 ]
	  : $deck[ rand @deck ];
	sleep rand 1.2;
	$actions{$action}->();
	finish_producers();
	is($progress, scalar keys %pipelines, "round $round: progress, then $action")
	  or do { diag value($node, 'TABLE ingest.pipeline_status'); last };
}

foreach my $name (sort keys %pipelines)
{
	my $ends = $kafka->ends($name);
	my $positions = join ' ', map { "$_:$ends->{$_}[1]" } sort { $a <=> $b } keys %$ends;
	wait_for($node, "SELECT string_agg(shard || ':' || position, ' ' ORDER BY shard::integer)
		FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = '$name'",
		$positions, "$name: everything was read", 120);
	load_manifest($node, "${name}_manifest", @{ $manifests{$name} });
	check_exactly_once($node, $name, "${name}_manifest", $name);
	check_accounts($node, $name, $name, $name);
	is(value($node, "SELECT count(*) FROM ${name}_manifest"), $first{$name}, "$name: $first{$name} messages were produced");
	is(state_of($node, $name), 'running', "$name: still running");
}
is(value($node, 'SELECT count(*) FROM ingest.gap'), '0', 'no gaps');

$node->stop('fast');
done_testing();
