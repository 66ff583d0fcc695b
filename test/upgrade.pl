# A24: pg_upgrade keeps pipelines, rules, positions, dead letters; nothing starts by
# itself, since the old cluster may still be there.  Run by test/upgrade.
use strict;
use warnings;

use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use KafkaPeer;
use MovedTest;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $kafka = KafkaPeer->new->start;
# Checksums are the default of some versions; both need the same.
my %initdb = (initdb => ['--data-checksums']);
my $old = start_node('old', install_path => dirname(dirname($ENV{INGEST_OLD_PG_CONFIG})), %initdb);
make_pipelines($old, $kafka, $dir);
my $expected = contents($old);
my $old_version = value($old, 'SHOW server_version');
$old->stop;

my $new = start_node('new', extension => 0, %initdb);
isnt(value($new, 'SHOW server_version'), $old_version, 'two versions');
$new->stop;

# pg_upgrade leaves its files where it is.
chdir $dir or die $!;
$new->command_ok([ 'pg_upgrade', '-d', $old->data_dir, '-D', $new->data_dir,
		'-b', dirname($ENV{INGEST_OLD_PG_CONFIG}), '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');

$new->start;
is_deeply(contents($new), $expected, 'all is there');
wait_for($new, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor'", '1',
	'the supervisor has come', 70);
check_stopped($new, 'postgres', 'upgraded');
check_goes_on($new, $kafka, $dir, 'upgraded');

$new->stop;
done_testing();
