# A26: a server that is recovered to an earlier time, from a base backup and the
# archived log: rows, dead letters and positions are those of that time, and the
# pipeline reads once more what came after it.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MockBroker;

my $broker = MockBroker->new('flow:3');
my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = start_node('origin', conf => "wal_level = replica\nmax_wal_senders = 4");
$node->enable_archiving;
$node->restart;
create_server($node, $broker);
create_sensor_pipeline($node, 'flow', 'flow', options => '{"batch_rows": 300}');
$node->safe_psql('postgres', "SELECT ingest.start('flow')");

my $all = "SELECT (SELECT count(*) FROM flow) + (SELECT count(*) FROM ingest.dead_letter)";
my $produced = 0;

# Sensor messages, some of them bad; until all are read.
sub feed
{
	$broker->produce('flow', count => 2000, first => $produced, seed => 9, bad => 20, manifest => "$dir/$produced");
	load_manifest($node, 'produced', "$dir/$produced");
	$produced += 2000;
	wait_for($node, $all, $produced, "$produced are read");
	return;
}

feed();
$node->backup('base');
feed();
$node->safe_psql('postgres', "SELECT pg_create_restore_point('then')");
feed();
check_exactly_once($node, 'flow', 'produced', 'before');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->stop;

my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "recovery_target_name = 'then'\nrecovery_target_action = 'pause'\n");
$restored->start;
wait_for($restored, 'SELECT pg_is_wal_replay_paused()', 't', 'A26: recovered to the point');
is(value($restored, $all), '4000', 'A26: rows and dead letters of that time');
is(value($restored, 'SELECT sum(position::bigint) FROM ingest.position'), '4000', 'A26: positions of that time');
is(value($restored, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ingest%'"), '0', 'A26: as long as it recovers nothing runs');
$restored->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
wait_for($restored, $all, '6000', 'A26: it reads on by itself');
load_manifest($restored, 'produced', "$dir/4000");
check_exactly_once($restored, 'flow', 'produced', 'A26: recovered');
check_accounts($restored, 'flow', 'flow', 'A26: recovered');
is(value($restored, 'SELECT count(*) FROM ingest.gap'), '0', 'A26: no gap');
$broker->produce('flow', count => 500, first => 6000, seed => 9, manifest => "$dir/new");
load_manifest($restored, 'produced', "$dir/new");
wait_for($restored, $all, '6500', 'A26: and what is new');
check_exactly_once($restored, 'flow', 'produced', 'A26: what is new');

$restored->stop('fast');
done_testing();
