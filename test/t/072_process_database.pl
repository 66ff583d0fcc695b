# Databases and the extension come and go under running pipelines: rows of
# failures A about the launcher and the supervisors.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my $broker = MockBroker->new('flow:2', 'other:1');
my $silent = MockBroker->new('silent:1');
$silent->freeze;
my $node = start_node('databases');

sub supervisors
{
	return value($node, "SELECT string_agg(datname, ' ' ORDER BY datname COLLATE \"C\") FROM pg_stat_activity
		WHERE backend_type = 'ingest supervisor'");
}

# A database with a pipeline that flows, and one that waits for a silent broker.
sub make_database
{
	my ($name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name") unless $name eq 'postgres';
	$node->safe_psql($name, 'CREATE EXTENSION IF NOT EXISTS ingest');
	$node->safe_psql($name, "CREATE SERVER plant FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '" . $broker->brokers . "');
		CREATE SERVER silent FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '" . $silent->brokers . "', timeout '60 s')");
	create_pipeline($node, 'flow', database => $name);
	create_pipeline($node, 'silent', database => $name, server => 'silent');
	$node->safe_psql($name, "SELECT ingest.start('flow'); SELECT ingest.start('silent')");
	wait_for_workers($name, 2, "$name: pipelines run");
	return;
}

sub wait_for_workers
{
	my ($database, $count, $name) = @_;
	my $deadline = time + 30;
	sleep 0.05 while workers($node, $database) != $count && time < $deadline;
	return is(workers($node, $database), $count, $name);
}

# ---- A16: databases without the extension

$node->safe_psql('postgres', 'CREATE DATABASE bare');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor'", '1',
	'A16: a supervisor where the extension is, and nowhere else');
is(supervisors(), 'postgres', 'A16: namely there');
takes_at_most(3, 'CREATE EXTENSION', sub {
	$node->safe_psql('bare', 'CREATE EXTENSION ingest');
	wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor'
		AND datname = 'bare'", '1', 'CREATE EXTENSION: a supervisor comes at once');
});

make_database('postgres');

# ---- A18: the launcher dies

my $launcher = launcher_pid($node);
my $supervisor = supervisor_pid($node);
my $worker = worker_pid($node, 'flow');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest launcher' AND pid <> $launcher", '1',
	'A18: a new launcher');
sleep 1;
is(supervisors(), 'bare postgres', 'A18: one supervisor a database');
is(supervisor_pid($node), $supervisor, 'A18: the same as before');
is(worker_pid($node, 'flow'), $worker, 'A18: the same workers');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($supervisor)");
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor'
	AND datname = 'postgres' AND pid <> $supervisor", '1', 'A18: a new supervisor');
sleep 1;
is(worker_pid($node, 'flow'), $worker, 'A18: takes over the workers');
is(workers($node), '2', 'A18: and starts no others');
$node->safe_psql('postgres', "SELECT ingest.stop('flow')");
wait_for_workers('postgres', 1, 'A18: which obey it');
$node->safe_psql('postgres', "SELECT ingest.start('flow')");
wait_for_workers('postgres', 2, 'A18: and come back');

# ---- A08: DROP DATABASE of a database with running pipelines

make_database('doomed');
takes_at_most(3, 'A08: DROP DATABASE', sub { $node->safe_psql('postgres', 'DROP DATABASE doomed') });
make_database('doomed');
takes_at_most(3, 'A08: DROP DATABASE WITH (FORCE)', sub { $node->safe_psql('postgres', 'DROP DATABASE doomed WITH (FORCE)') });
sleep 1;
is(supervisors(), 'bare postgres', 'A08: nobody goes back there');

# it fails, because somebody else is in it
make_database('kept');
my $session = $node->background_psql('kept');
my ($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE kept');
isnt($rc, 0, 'A08: DROP DATABASE fails with a session in it');
like($err, qr/is being accessed by other users.*\n.*There is 1 other session/, 'A08: because of that session alone');
wait_for_workers('kept', 2, 'A08: the pipelines are back');
$session->quit;

# ---- A08, H13: who may not drop it, does not stop anything

$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN CREATEDB');
my $before = value($node, "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type ~ 'ingest'");
foreach my $command ('DROP DATABASE kept', 'ALTER DATABASE kept RENAME TO taken', 'CREATE DATABASE copy TEMPLATE kept',
	'ALTER DATABASE kept ALLOW_CONNECTIONS false')
{
	($rc) = $node->psql('postgres', "SET ROLE nobody; $command");
	isnt($rc, 0, "somebody else: $command");
}
($rc) = $node->psql('kept', 'SET ROLE nobody; DROP EXTENSION ingest CASCADE');
isnt($rc, 0, 'somebody else: DROP EXTENSION');
is(value($node, "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type ~ 'ingest'"),
	$before, 'all processes are as before');

# ---- A10: template, rename, tablespace, closed to connections

takes_at_most(3, 'A10: CREATE DATABASE TEMPLATE', sub { $node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE kept') });
wait_for_workers('kept', 2, 'A10: the pipelines are back');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor' AND datname = 'copy'", '1',
	'A10: the copy has a supervisor', 70);
is(workers($node, 'copy'), '0', 'A25: pipelines of a copy do not run by themselves');
is($node->safe_psql('copy', "SELECT DISTINCT state FROM ingest.pipeline_status"), 'stopped', 'A25: they are stopped');
takes_at_most(3, 'A10: RENAME', sub { $node->safe_psql('postgres', 'ALTER DATABASE kept RENAME TO renamed') });
wait_for_workers('renamed', 2, 'A10: the pipelines are back under the new name');
my $space = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");
takes_at_most(3, 'A10: SET TABLESPACE', sub { $node->safe_psql('postgres', 'ALTER DATABASE renamed SET TABLESPACE elsewhere') });
wait_for_workers('renamed', 2, 'A10: the pipelines are back in the other place');
takes_at_most(3, 'A10: ALLOW_CONNECTIONS false', sub { $node->safe_psql('postgres', 'ALTER DATABASE renamed ALLOW_CONNECTIONS false') });
sleep 1;
is(supervisors(), 'bare copy postgres', 'A10: nobody is in a database without connections');
$node->safe_psql('postgres', 'ALTER DATABASE renamed ALLOW_CONNECTIONS true');
wait_for_workers('renamed', 2, 'A10: they are back when it is open again');
$node->safe_psql('postgres', 'ALTER DATABASE renamed IS_TEMPLATE true');
sleep 1;
is(supervisors(), 'bare copy postgres', 'A10: nobody is in a template');
$node->safe_psql('postgres', 'ALTER DATABASE renamed IS_TEMPLATE false; DROP DATABASE copy');

# ---- A09: barriers, while workers wait for silent brokers

wait_for_workers('renamed', 2, 'all run again');
takes_at_most(2, 'A09: DROP DATABASE of another', sub { $node->safe_psql('postgres', 'CREATE DATABASE other; '); $node->safe_psql('postgres', 'DROP DATABASE other') });
takes_at_most(2, 'A09: DROP TABLESPACE', sub {
	my $dir = PostgreSQL::Test::Utils::tempdir;
	$node->safe_psql('postgres', "CREATE TABLESPACE empty LOCATION '$dir'");
	$node->safe_psql('postgres', 'DROP TABLESPACE empty');
});
is(count_log($node, qr/still waiting for backend/), 0, 'A09: nobody was waited for');

# ---- A11: DROP EXTENSION

takes_at_most(3, 'A11: DROP EXTENSION', sub { $node->safe_psql('renamed', 'DROP EXTENSION ingest CASCADE') });
sleep 1;
is(supervisors(), 'bare postgres', 'A11: no process is left');
$node->safe_psql('postgres', 'DROP DATABASE renamed');

# rolled back
takes_at_most(3, 'A11: DROP EXTENSION and ROLLBACK', sub {
	$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION ingest CASCADE; SELECT pg_sleep(0.5); ROLLBACK');
});
wait_for_workers('postgres', 2, 'A11: after ROLLBACK the pipelines are back');

# in the way of a batch that is being written
$node->safe_psql('postgres', "SELECT ingest.add_transform('flow', 'sleep', 'SELECT pg_sleep(60)')");
$broker->produce('flow', count => 10);
wait_for($node, "SELECT count(*) FROM ingest._workers() WHERE phase = 'loading'", '1', 'A11: in the middle of a batch');
takes_at_most(3, 'A11: DROP EXTENSION in the middle of a batch', sub {
	$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION ingest CASCADE; ROLLBACK');
});
wait_for($node, "SELECT count(*) FROM ingest._workers() WHERE phase = 'loading'", '1', 'A11: and that is tried again');
$node->safe_psql('postgres', "SELECT ingest.drop_transform('flow', 'sleep')");

# without our hook's help: another name for the same
$node->safe_psql('bare', 'CREATE ROLE boss SUPERUSER; SET ROLE boss; DROP EXTENSION ingest; CREATE EXTENSION ingest');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor' AND datname = 'bare'", '1',
	'A12: another owner');
takes_at_most(3, 'A11: DROP OWNED', sub { $node->safe_psql('bare', 'DROP OWNED BY boss CASCADE') });
$node->safe_psql('bare', 'SELECT 1');

# ---- A12: dropped and made again, over and over

foreach my $round (1 .. 20)
{
	$node->safe_psql('bare', 'CREATE EXTENSION ingest');
	sleep rand 0.2;
	$node->safe_psql('bare', 'DROP EXTENSION ingest');
}
$node->safe_psql('bare', 'CREATE EXTENSION ingest');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor' AND datname = 'bare'", '1',
	'A12: exactly one supervisor');
sleep 1;
is(supervisors(), 'bare postgres', 'A12: and it stays one');
is(count_log($node, qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing crashed');

# ---- A14: library and SQL objects of different versions

my $offset = -s $node->logfile;
$node->safe_psql('bare', "UPDATE pg_extension SET extversion = '99' WHERE extname = 'ingest'; SELECT ingest._wake()");
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest supervisor' AND datname = 'bare'", '0',
	'A14: another version: nobody runs');
sleep 2;
is(count_log($node, qr/has version 99 there/, $offset), 1, 'A14: and one line says why');

# ---- A13: ALTER EXTENSION UPDATE

my $version = value($node, "SELECT extversion FROM pg_extension WHERE extname = 'ingest'");
my @before = split / /, value($node, "SELECT string_agg(pid::text, ' ') FROM ingest._workers()");
$node->safe_psql('postgres', "ALTER EXTENSION ingest UPDATE TO '$version'");
wait_for_workers('postgres', 2, 'A13: workers after ALTER EXTENSION UPDATE');
is(value($node, "SELECT count(*) FROM ingest._workers() WHERE pid IN (" . join(',', @before) . ')'), '0', 'A13: new ones');

SKIP:
{
	my $dir = `pg_config --sharedir`;
	chomp $dir;
	skip 'cannot install another version', 4 unless -w "$dir/extension";
	my @files = ("$dir/extension/ingest--$version--99.sql", "$dir/extension/ingest--99--$version.sql");
	append_to_file($_, "SELECT pg_sleep(0.5);\n") foreach @files;
	takes_at_most(3, 'A13: UPDATE', sub { $node->safe_psql('postgres', "ALTER EXTENSION ingest UPDATE TO '99'") });
	sleep 1;
	is(workers($node), '0', 'A13: SQL objects of another version: nobody runs');
	$node->safe_psql('postgres', "ALTER EXTENSION ingest UPDATE TO '$version'");
	wait_for_workers('postgres', 2, 'A13: of the right one: they run');
	is(count_log($node, qr/deadlock detected/), 0, 'A13: no deadlock');
	unlink @files;
}

# ---- upkeep: ranges ahead, old ones, the history of batches

$node->safe_psql('postgres', q(
	CREATE TABLE kept_up (at timestamptz NOT NULL) PARTITION BY RANGE (at);
	SELECT ingest.manage_partitions('kept_up', every => '1 hour', keep => '2 hours', ahead => 3);
	SELECT ingest.alter_pipeline('flow', options => '{"history": 3, "batch_wait": 0, "batch_rows": 10}')));
$broker->produce('flow', count => 200, first => 1000);
wait_for($node, 'SELECT count(*) FROM flow WHERE seq >= 1000', '200', 'some batches');
my $accounts = 'SELECT read, written FROM ingest.pipeline_status WHERE name = \'flow\'';
my $total = value($node, $accounts);
$node->safe_psql('postgres', q(DO $$ BEGIN
	EXECUTE (SELECT string_agg(format('DROP TABLE %s', inhrelid::regclass), ';') FROM pg_inherits WHERE inhparent = 'kept_up'::regclass);
	EXECUTE format('CREATE TABLE kept_up_old PARTITION OF kept_up FOR VALUES FROM (%L) TO (%L)',
		date_trunc('hour', now()) - interval '9 hours', date_trunc('hour', now()) - interval '8 hours');
	END $$));
cmp_ok(value($node, 'SELECT count(*) FROM ingest._batch'), '>', 3, 'a history');
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . supervisor_pid($node) . ')');
wait_for($node, "SELECT count(*) >= 3 FROM pg_inherits WHERE inhparent = 'kept_up'::regclass", 't', 'upkeep: ranges ahead');
wait_for($node, "SELECT to_regclass('kept_up_old') IS NULL", 't', 'upkeep: old ranges go');
wait_for($node, 'SELECT count(*) FROM ingest._batch', '3', 'upkeep: the history is trimmed');
is(value($node, $accounts), $total, 'upkeep: the sums stay');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest upkeep'", '0', 'upkeep: ends');

$node->stop('fast');
done_testing();
