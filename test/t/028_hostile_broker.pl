# Brokers that send what they should not, or nothing, and a worker that runs out of
# means while it talks to them.
use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use FaultProxy;
use IngestTest;
use KafkaPeer;
use ProcessTest;

my $kafka = KafkaPeer->new;
my $proxy = FaultProxy->before($kafka);
$kafka->start;
my $node = start_node('hostile', conf => 'restart_after_crash = on');
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $proxy);


# ---- C18: bits that are wrong

$kafka->create_topic('flipped', 2);
create_sensor_pipeline($node, 'flipped', 'flipped', options => '{"batch_rows": 500}');
$node->safe_psql('postgres', "SELECT ingest.start('flipped')");
foreach my $n (0 .. 3)
{
	my $log = -s $node->logfile;
	$proxy->tell('flip 1 "seq"');
	$kafka->produce('flipped', count => 3000, first => 3000 * $n, seed => 1, manifest => "$dir/flipped",
		$n % 2 ? (set => ['compression.codec=none']) : (transaction => 100, abort => 1000));
	load_manifest($node, 'flipped_manifest', "$dir/flipped");
	wait_for($node, 'SELECT count(*) FROM flipped', 3000 * ($n + 1), "C18: wrong bits, $n: they are asked for once more");
	check_exactly_once($node, 'flipped', 'flipped_manifest', "C18: wrong bits, $n");
	is(count_log($node, qr/DETAIL: .*failed CRC32C check/, $log), 1, "C18: wrong bits, $n: said once");
}
$node->safe_psql('postgres', "SELECT ingest.stop('flipped')");

# ---- C11: a transaction that is not over holds back what comes behind it

$kafka->create_topic('held', 1);
create_sensor_pipeline($node, 'held', 'held');
$kafka->produce('held', count => 10, seed => 1, transaction => 10);
$node->safe_psql('postgres', "SELECT ingest.start('held')");
my $lag = "SELECT lag FROM ingest.pipeline_status WHERE name = 'held'";
wait_for($node, "SELECT count(*), ($lag) FROM held", '10|0', 'C11: transactions that are over are no lag');
my $producer = $kafka->produce_start('held', count => 100000, rate => 100, first => 1000, seed => 1, transaction => 100000,
	set => ['linger.ms=5']);
wait_for($node, "SELECT ($lag) > 50", 't', 'C11: one that is not is lag');
is(value($node, 'SELECT count(*) FROM held'), '10', 'C11: of which nothing is read');
$kafka->produce('held', count => 5, first => 10, seed => 1);
$producer->kill_kill;
# It is aborted when its producer, which is known by its first number, comes back.
$kafka->produce('held', count => 1, first => 1000, seed => 1, transaction => 1);
wait_for($node, "SELECT count(*), max(seq), ($lag) FROM held", '16|1000|0', 'C11: once it is aborted the rest is read, and there is no lag');
$node->safe_psql('postgres', "SELECT ingest.stop('held')");
$node->stop('fast');
done_testing();
