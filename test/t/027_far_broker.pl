# Brokers far away, over lines that are cut: slower, and otherwise the same.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use FaultProxy;
use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new;
my $proxy = FaultProxy->before($kafka);
$kafka->start;
my $node = start_node('far');
create_server($node, $proxy);
$kafka->create_topic('far', 2);
create_sensor_pipeline($node, 'far', 'far');

# Longer for each answer than a question waits at first.
$proxy->tell('delay 150');
$node->safe_psql('postgres', q(ALTER SERVER plant OPTIONS (SET timeout '10 s')));
$kafka->produce('far', count => 2000, seed => 3, manifest => "$kafka->{dir}/1");
drain($node, 'far');
load_manifest($node, 'far_manifest', "$kafka->{dir}/1");
check_exactly_once($node, 'far', 'far_manifest', 'an answer takes 0.3 s');

# Answers that end in their middle.
$node->safe_psql('postgres', "SELECT ingest.start('far')");
foreach my $n (2 .. 5)
{
	$proxy->tell('truncate ' . 700 * $n);
	$kafka->produce('far', count => 2000, first => 2000 * $n, seed => 3, manifest => "$kafka->{dir}/$n");
	load_manifest($node, 'far_manifest', "$kafka->{dir}/$n");
	sleep 0.2;
}
$proxy->tell('pass');
wait_for($node, "SELECT (SELECT count(*) FROM far) + (SELECT count(*) FROM ingest.dead_letter)", 10000,
	'answers cut off: everything arrives');
check_exactly_once($node, 'far', 'far_manifest', 'answers cut off');
is(state_of($node, 'far'), 'running', 'answers cut off: running');

$node->stop('fast');
done_testing();
