# Workers come and go: rows of failures A about one pipeline and its process.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my $broker = MockBroker->new('one:2', 'two:2', 'three:1');
my $node = start_node('workers');
create_server($node, $broker);
# Somebody listens there, and never says a word.
my $silent = MockBroker->new('silent:1');
$silent->freeze;
unreachable_server($node, 'silent', $silent->brokers);
unreachable_server($node, 'nobody', '127.0.0.1:1');

# ---- start, what is to be seen, stop

create_pipeline($node, 'one');
is(state_of($node, 'one'), 'stopped', 'not started: stopped');
$node->safe_psql('postgres', "BEGIN; SELECT ingest.start('one'); ROLLBACK");
is(state_of($node, 'one'), 'stopped', 'started and rolled back: stopped');
takes_at_most(5, 'start', sub {
	$node->safe_psql('postgres', "SELECT ingest.start('one')");
	wait_for($node, 'SELECT count(*) FROM ingest._workers()', '1', 'start: there is a worker');
});
is(value($node, "SELECT backend_type || '|' || application_name FROM pg_stat_activity
		WHERE backend_type LIKE 'ingest%' ORDER BY 1"),
	"ingest launcher|ingest launcher\ningest supervisor|ingest supervisor\ningest worker|ingest: one[0]",
	'backend_type and application_name');
$broker->produce('one', count => 500);
wait_for($node, 'SELECT count(*) FROM one', '500', 'rows arrive');
wait_for($node, "SELECT sum(messages) FROM ingest._workers()", '500', 'the worker counts them');
is(value($node, "SELECT state || running FROM ingest.pipeline_status WHERE name = 'one'"), 'running1', 'state');

# A31: a waiting worker holds nothing
wait_for($node, "SELECT phase FROM ingest._workers()", 'waiting', 'A31: it waits');
is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'
		AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)"), '0', 'A31: no snapshot, no transaction');
is(value($node, "SELECT count(*) FROM pg_locks l JOIN ingest._workers() w ON w.pid = l.pid
		WHERE l.locktype <> 'userlock'"), '0', 'A31: no lock');

takes_at_most(2, 'stop', sub {
	$node->safe_psql('postgres', "SELECT ingest.stop('one')");
	wait_for($node, 'SELECT count(*) FROM ingest._workers()', '0', 'stop: the worker is gone');
});
is(state_of($node, 'one'), 'stopped', 'stopped');
is(count_log($node, qr/FATAL/), 0, 'and it was not terminated');

# ---- A04: pg_terminate_backend in different states

sub terminate_in
{
	my ($name, $pipeline, $phase) = @_;
	$node->safe_psql('postgres', "SELECT ingest.start('$pipeline')");
	wait_for($node, "SELECT phase FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id
		WHERE p.name = '$pipeline'", $phase, "A04 $name: $phase");
	my $pid = worker_pid($node, $pipeline);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_gone(2, "A04 $name: ends at once", $pid);
	wait_for($node, "SELECT count(*) = 1 FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id
		WHERE p.name = '$pipeline' AND w.pid <> $pid", 't', "A04 $name: comes back");
	return;
}

terminate_in('idle', 'one', 'waiting');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'one'"), qr/ended unexpectedly/,
	'A04: which is shown for a while');
wait_for($node, "SELECT state || attempts FROM ingest.pipeline_status WHERE name = 'one'", 'running0',
	'A04: and is well again');

create_pipeline($node, 'silent', server => 'silent');
terminate_in('asking a silent broker', 'silent', 'assigning');
create_pipeline($node, 'nobody', server => 'nobody');
terminate_in('asking nobody', 'nobody', 'assigning');

create_pipeline($node, 'two');
$node->safe_psql('postgres', "SELECT ingest.add_transform('two', 'sleep',
	'SELECT pg_sleep(CASE WHEN min(seq) = 0 THEN 60 END) FROM batch')");
$broker->produce('two', count => 10);
terminate_in('in SQL', 'two', 'loading');

# A05: cancel: the batch is tried again, by the same process
my $pid = worker_pid($node, 'two');
wait_for($node, "SELECT phase FROM ingest._workers() WHERE pid = $pid", 'loading', 'A05: in SQL again');
$node->safe_psql('postgres', "SELECT ingest.drop_transform('two', 'sleep')");
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
wait_for($node, 'SELECT count(*) FROM two', '10', 'A05: the batch was tried again');
is(worker_pid($node, 'two'), $pid, 'A05: by the same worker');
wait_for($node, "SELECT coalesce(last_error, 'none') FROM ingest.pipeline_status WHERE name = 'two'", 'none',
	'A05: the error is gone');

# A29: reloads in the middle of everything
$node->reload foreach 1 .. 20;
$broker->produce('two', count => 1000, first => 10);
wait_for($node, 'SELECT count(*) FROM two', '1010', 'A29: reloads do no harm');
is(worker_pid($node, 'two'), $pid, 'A29: the same worker');

# ---- a definition that changes while a worker waits

$node->safe_psql('postgres', "SELECT ingest.stop('silent'); SELECT ingest.stop('nobody'); SELECT ingest.stop('one')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '1', 'others are stopped, also while they ask');
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('two', new_name => 'zwei', options => '{\"workers\": 3}')");
wait_for($node, "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_activity
	WHERE backend_type = 'ingest worker'", 'ingest: zwei[0] ingest: zwei[1] ingest: zwei[2]',
	'a new name and more workers');
$broker->produce('two', count => 1000, first => 1010);
wait_for($node, 'SELECT count(*), count(DISTINCT seq) FROM two', '2010|2010', 'they share the work');
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('zwei', options => '{\"workers\": 1}')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '1', 'and fewer workers');
$broker->produce('two', count => 1000, first => 2010);
wait_for($node, 'SELECT count(*), count(DISTINCT seq) FROM two', '3010|3010', 'the one does all the work');
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('zwei')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '0', 'a dropped pipeline has no worker');

# ---- A19: never twice

my $run = IPC::Run::start([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', "CALL ingest.run('silent')" ],
	'<', \'', '&>', \my $out);
wait_for($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'", '1', 'A19: runs in the foreground');
$node->safe_psql('postgres', "SELECT ingest.start('silent')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'starting', 'A19: a worker waits for its end');
sleep 0.5;
is(value($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND NOT granted"), '1',
	'A19: and goes on waiting');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'userlock' AND granted
	AND pid NOT IN (SELECT pid FROM ingest._workers())");
$run->finish;
wait_for($node, "SELECT phase FROM ingest._workers()", 'assigning', 'A19: it has its turn');
fails_with($node, "CALL ingest.run('silent')", '55006', qr/already running/, 'A19: foreground beside a worker');
$node->safe_psql('postgres', "SELECT ingest.stop('silent')");

# ---- A32, H15: owners who may not

$node->safe_psql('postgres', q(
	CREATE ROLE etl LOGIN;
	GRANT USAGE ON FOREIGN SERVER plant TO etl;
	GRANT CREATE ON SCHEMA public TO etl;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO etl));
create_pipeline($node, 'three', role => 'etl');
$node->safe_psql('postgres', "SELECT ingest.start('three')");
$broker->produce('three', count => 10);
wait_for($node, 'SELECT count(*) FROM three', '10', 'a pipeline of another role');
is(value($node, "SELECT usename FROM pg_stat_activity WHERE application_name = 'ingest: three[0]'"), 'etl',
	'its worker is logged in as its owner');

sub breaks_and_mends
{
	my ($name, $break, $mend, $like) = @_;
	$node->safe_psql('postgres', $break);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM ingest._workers()");
	wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'three'", 'broken', "$name: broken");
	like(value($node, "SELECT last_error || ' ' || hint FROM ingest.pipeline_status WHERE name = 'three'"), $like,
		"$name: says why");
	wait_for($node, 'SELECT count(*) FROM ingest._workers()', '0', "$name: no worker");
	$node->safe_psql('postgres', "$mend; SELECT ingest.start('three')");
	wait_for($node, "SELECT state || running FROM ingest.pipeline_status WHERE name = 'three'", 'running1', "$name: mended");
	return;
}

breaks_and_mends('A32: no login', 'ALTER ROLE etl NOLOGIN', 'ALTER ROLE etl LOGIN', qr/not permitted to log in.*LOGIN/);
breaks_and_mends('H15: no CONNECT', 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC',
	'GRANT CONNECT ON DATABASE postgres TO PUBLIC', qr/CONNECT/);

# a privilege taken away while it runs is noticed with the next batch
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER plant FROM etl');
$broker->produce('three', count => 10, first => 10);
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'three'", 'broken', 'H15: privilege revoked');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'three'"),
	qr/permission denied for foreign server plant/, 'H15: says which');
is(value($node, 'SELECT count(*) FROM three'), '10', 'H15: nothing was written');
$node->safe_psql('postgres', "GRANT USAGE ON FOREIGN SERVER plant TO etl; SELECT ingest.start('three')");
wait_for($node, 'SELECT count(*) FROM three', '20', 'H15: granted again');

# A32: the owner is gone
$node->safe_psql('postgres', q(SELECT ingest.stop('three');
	ALTER TABLE three OWNER TO postgres; ALTER FOREIGN TABLE three_topic OWNER TO postgres;
	DROP OWNED BY etl; DROP ROLE etl;
	UPDATE ingest._pipeline SET enabled = true WHERE name = 'three'; SELECT ingest._wake()));
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'three'", 'broken', 'A32: owner dropped');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'three'"), qr/owner does not exist/,
	'A32: says so');
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('three')");

# ---- schedules

fails_with($node, "SELECT ingest.create_pipeline('s', 'one_topic', 'one', schedule => '0 0 31 2 *')", '22023',
	qr/schedule "0 0 31 2 \*" never comes/, 'cron');
fails_with($node, "SELECT ingest.create_pipeline('s', 'one_topic', 'one', schedule => '10 ms')", '22023',
	qr/invalid schedule/, 'too often');
fails_with($node, "SELECT ingest.create_pipeline('s', 'one_topic', 'one', schedule => 'often')", '22023',
	qr/invalid schedule/, 'no schedule');
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('one'); TRUNCATE one;
	SELECT ingest.create_pipeline('one', 'one_topic', 'one', schedule => '2 seconds', options => '{\"workers\": 2}');
	SELECT ingest.start('one')");
wait_for($node, 'SELECT count(*) FROM one', '500', 'a scheduled run reads what is there');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'one'", 'idle', 'and ends');
is(workers($node), '0', 'no worker in between');
$broker->produce('one', count => 100, first => 500);
wait_for($node, 'SELECT count(*) FROM one', '600', 'the next run reads the rest');
wait_for($node, "SELECT next_run > now() AND next_run <= now() + interval '2 s' FROM ingest.pipeline_status
	WHERE name = 'one'", 't', 'when it runs next');
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('one', schedule => 'continuous')");
wait_for($node, "SELECT running FROM ingest.pipeline_status WHERE name = 'one'", '2', 'from now on always');
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('one', schedule => '1 hour')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'one'", 'idle', 'and back');
$node->safe_psql('postgres', "SELECT ingest.stop('one')");

# ---- J12, B14, A27: an unreachable broker is no reason for noise

my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'ALTER SERVER nobody OPTIONS (SET timeout \'100 ms\')');
$node->safe_psql('postgres', "SELECT ingest.start('nobody')");
wait_for($node, "SELECT attempts >= 3 AND sqlstate LIKE '08%' FROM ingest.pipeline_status WHERE name = 'nobody'", 't',
	'an unreachable broker is shown');
$pid = worker_pid($node, 'nobody');
wait_for($node, "SELECT attempts >= 5 FROM ingest.pipeline_status WHERE name = 'nobody'", 't', 'it is tried again');
is(worker_pid($node, 'nobody'), $pid, 'by the same process');
cmp_ok(count_log($node, qr/ LOG: |WARNING/, $offset), '<', 40, 'the log stays small');
$node->safe_psql('postgres', "ALTER SERVER nobody OPTIONS (SET brokers '" . $broker->brokers . "', SET timeout '5 s');
	ALTER FOREIGN TABLE nobody_topic OPTIONS (SET topic 'one')");
wait_for($node, 'SELECT count(*) FROM nobody', '600', 'a server that was corrected is used at the next try');

$node->stop;
done_testing();
