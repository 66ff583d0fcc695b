# Dump and restore: definitions, positions, dead letters are kept; nothing starts
# by itself; what is started goes on where the dump was.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use KafkaPeer;
use MovedTest;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $kafka = KafkaPeer->new->start;
my $node = start_node('origin');
make_pipelines($node, $kafka, $dir);

my $expected = contents($node);

# ---- as a script, into a database beside the original

$node->safe_psql('postgres', 'CREATE DATABASE beside');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/dump.sql" ], 'pg_dump');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('beside'), '-f', "$dir/dump.sql" ],
	'psql restores it');
is_deeply(contents($node, 'beside'), $expected, 'beside: all is there');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor' AND datname = 'beside'",
	'1', 'beside: its supervisor has come', 70);
check_stopped($node, 'beside', 'beside');

# ---- as an archive, into another server

$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', "$dir/dump" ], 'pg_dump -Fc');
my $copy = start_node('copy', extension => 0);
$copy->command_ok([ 'pg_restore', '-e', '-d', $copy->connstr('postgres'), "$dir/dump" ], 'pg_restore');
is_deeply(contents($copy), $expected, 'copy: all is there');
wait_for($copy, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor'", '1',
	'copy: its supervisor has come', 70);
check_stopped($copy, 'postgres', 'copy');

# What the original reads meanwhile is read by nobody else.
$node->safe_psql('postgres', "SELECT ingest.stop('reading')");
check_goes_on($copy, $kafka, $dir, 'copy');
check_stopped($node, 'beside', 'beside, later');

# ---- the archive by parallel jobs: pg_restore does not know that the tables of
# an extension refer to each other, so their triggers have to wait

$copy->safe_psql('postgres', 'CREATE DATABASE parallel');
foreach my $part ([ '--section=pre-data' ], [ '--section=data', '--data-only', '--disable-triggers', '-j', '2' ],
	[ '--section=post-data', '-j', '2' ])
{
	$copy->command_ok([ 'pg_restore', '-e', @$part, '-d', $copy->connstr('parallel'), "$dir/dump" ],
		"pg_restore @$part");
}
is_deeply(contents($copy, 'parallel'), $expected, 'parallel: all is there');
check_stopped($copy, 'parallel', 'parallel');

# ---- only the definitions

$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->command_ok([ 'pg_dump', '--schema-only', '-d', $node->connstr('postgres'), '-f', "$dir/schema.sql" ],
	'pg_dump --schema-only');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('empty'), '-f', "$dir/schema.sql" ],
	'psql restores it');
is($node->safe_psql('empty', 'SELECT count(*) FROM ingest.pipeline'), '0', 'pipelines are data: a schema has none');

$copy->stop;
$node->stop;
done_testing();
