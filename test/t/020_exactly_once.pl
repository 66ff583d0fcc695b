# C01: kills at random moments of a stream: afterwards every message is exactly once
# in the target or among the dead letters.  test/torture does worse, for longer.
#
# INGEST_ROUNDS: how many kills (default 8); INGEST_SEED: of the moments.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Havoc;
use IngestTest;
use KafkaPeer;

my $rounds = $ENV{INGEST_ROUNDS} || 8;
my $seed = $ENV{INGEST_SEED} || int(time);
srand $seed;
diag "INGEST_ROUNDS=$rounds INGEST_SEED=$seed";

my $kafka = KafkaPeer->new->start;
my $node = start_node('kills', conf => "wal_level = replica\nrestart_after_crash = on");
create_server($node, $kafka);
my $havoc = Havoc->new(node => $node, kafka => $kafka);
$havoc->create;

# Worse things come more often.
my @deck = ($havoc->actions, ('kill -9 of a worker') x 4, ('immediate restart of the server') x 2);
my @first = ('kill -9 of a worker', 'immediate restart of the server', 'kill -9 of the broker');

for my $round (1 .. $rounds)
{
	my $before = $havoc->batches;
	$havoc->feed($_, 2.5) foreach $havoc->names;
	my $progress = $havoc->progress($before, 60);
	my $action = $first[ $round - 1 ] // $deck[ rand @deck ];
	sleep rand 1.2;
	$havoc->happen($action);
	$havoc->finish_producers;
	ok($progress, "round $round: progress, then $action")
	  or do { diag value($node, 'TABLE ingest.pipeline_status'); last };
}

my @names = $havoc->names;
ok($havoc->drained($_, 120), "$_: everything was read") foreach @names;
$havoc->store_manifests;
foreach my $name (@names)
{
	check_exactly_once($node, $name, "${name}_manifest", "C01: $name");
	check_accounts($node, $name, $name, $name);
	my $produced = $havoc->produced($name);
	is(value($node, "SELECT count(*) FROM ${name}_manifest"), $produced, "$name: $produced messages were produced");
	is(state_of($node, $name), 'running', "$name: still running");
}
is(value($node, 'SELECT count(*) FROM ingest.gap'), '0', 'no gaps');

$node->stop('fast');
done_testing();
