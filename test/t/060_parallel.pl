# Several workers share the partitions of one pipeline.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
my $node = start_node('parallel');
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $kafka);

$kafka->create_topic('wide', 6);
$kafka->produce('wide', count => 60000, seed => 1, bad => 10, manifest => "$dir/wide0");
create_sensor_pipeline($node, 'wide', 'wide', options => '{"workers": 2, "batch_rows": 2000}');
$node->safe_psql('postgres', "SELECT ingest.start('wide')");
wait_for($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'wide'", '60000', 'two workers read all of it');
load_manifest($node, 'wide_manifest', "$dir/wide0");
check_exactly_once($node, 'wide', 'wide_manifest', 'two workers');
check_accounts($node, 'wide', 'wide', 'two workers');
check_lag($node, $kafka, 'wide', 'wide', 'two workers');
is(value($node, "SELECT string_agg(DISTINCT worker::text, ',' ORDER BY worker::text) FROM ingest.batch_history
	WHERE pipeline = 'wide' AND messages > 0"), '0,1', 'both have worked');
is(value($node, "SELECT count(*) FROM (SELECT jsonb_object_keys(shards) AS shard FROM ingest.batch_history
	WHERE pipeline = 'wide' AND messages > 0 GROUP BY 1 HAVING count(DISTINCT worker) > 1) x"), '0', 'each on partitions of its own');
is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker' AND application_name ~ 'wide'"), '2',
	'both are seen in pg_stat_activity');

# More and fewer of them while messages come in.
my $producer = $kafka->produce_start('wide', count => 60000, first => 60000, seed => 1, bad => 10, rate => 12000, manifest => "$dir/wide1");
foreach my $workers (3, 1, 6)
{
	sleep 1;
	$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('wide', options => '{\"workers\": $workers}')");
	wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'", $workers, "$workers workers");
}
ok(IPC::Run::finish($producer), 'the producer is done');
wait_for($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'wide'", '120000', 'all of it is read');
load_manifest($node, 'wide_manifest', "$dir/wide1");
check_exactly_once($node, 'wide', 'wide_manifest', 'workers that come and go');
check_accounts($node, 'wide', 'wide', 'workers that come and go');

# A run in the foreground and workers do not get in each other's way.
fails_with($node, "CALL ingest.run('wide')", '55006', qr/already running/, 'run beside workers');
$node->safe_psql('postgres', "SELECT ingest.stop('wide')");
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'", '0', 'stopped');
drain($node, 'wide');
check_exactly_once($node, 'wide', 'wide_manifest', 'a run behind them');

# More workers than partitions: the others have nothing to do, and do no harm.
$kafka->create_topic('thin', 1);
$kafka->produce('thin', count => 1000, seed => 2);
create_sensor_pipeline($node, 'thin', 'thin', options => '{"workers": 3}');
$node->safe_psql('postgres', "SELECT ingest.start('thin')");
wait_for($node, 'SELECT count(*) FROM thin', '1000', 'more workers than partitions');
is(state_of($node, 'thin'), 'running', 'and all is well');

$node->stop('fast');
done_testing();
