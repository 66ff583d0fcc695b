# Rows of failures J: disks, locks, settings, other extensions, and processes that
# have to last.
use strict;
use warnings;

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my @topics = qw(disk hot calm churn dull);
my $broker = MockBroker->new(map { "$_:1" } @topics);

# test/lib/failio.c reads from this file what shall fail.
my $failio = abs_path(PostgreSQL::Test::Utils::tempdir) . '/failio';
my $node;
{
	local $ENV{LD_PRELOAD} = abs_path("$ENV{INGEST_TEST_BIN}/failio.so");
	local $ENV{INGEST_FAILIO} = $failio;
	$node = start_node('resources', conf => <<'CONF');
shared_preload_libraries = 'pg_stat_statements, ingest, auto_explain'
pg_stat_statements.track = all
pg_stat_statements.track_utility = on
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_level = debug1
restart_after_crash = on
fsync = on
ingest.retry_min = '50ms'
ingest.retry_max = '200ms'
CONF
}
$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements');
create_server($node, $broker);
my %produced = map { $_ => 0 } @topics;

sub feed
{
	my ($topic, $count) = @_;
	$broker->send($topic, map { sprintf '{"seq": %d, "t": "%s"}', $produced{$topic} + $_, 'x' x 100 } 0 .. $count - 1);
	$produced{$topic} += $count;
	return;
}

sub start { $node->safe_psql('postgres', "SELECT ingest.start('$_[0]')"); return }
sub stop { $node->safe_psql('postgres', "SELECT ingest.stop('$_[0]')"); return }

sub set_failing
{
	my ($what, $path) = @_;
	append_to_file("$failio.new", "$what $path\n");
	rename "$failio.new", $failio or die $!;
	return;
}

sub wait_for_retries
{
	my ($name, $sqlstate, $label) = @_;
	return wait_for($node, "SELECT concat_ws(' ', sqlstate, attempts > 0, state IN ('backoff', 'running'))
		FROM ingest.pipeline_status WHERE name = '$name'", "$sqlstate t t", $label, 30);
}

# Each message of the topic is a row or a dead letter, once.
sub all_arrive
{
	my ($name, $topic, $label) = @_;
	return wait_for($node, "SELECT count(*), count(DISTINCT seq) FROM (SELECT seq FROM $name UNION ALL
		SELECT (payload_text::jsonb ->> 'seq')::bigint FROM ingest.dead_letter WHERE pipeline = '$name') x",
		"$produced{$topic}|$produced{$topic}", $label, 30);
}

sub reload
{
	my (%settings) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

# A pipeline from topic into (seq, t), and a table that nobody has written to.
sub define
{
	my ($name, $topic, $options) = @_;
	$options //= '{"error_rate": 1}';
	$node->safe_psql('postgres', "
		CREATE FOREIGN TABLE ${name}_topic (seq bigint, t text) SERVER plant OPTIONS (topic '$topic', format 'json');
		CREATE TABLE $name (seq bigint, t text);
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', options => '$options')");
	return;
}

# ---- J01, J02: the disk

define('disk', 'disk');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('disk', 'odd', 'seq % 5 <> 3')));
start('disk');
foreach my $relation (qw(disk ingest._dead_letter))
{
	# What is there is kept in memory; it is more room that is not to be had.
	set_failing('write', value($node, "SELECT pg_relation_filepath('$relation')"));
	my $rows = value($node, 'SELECT count(*) FROM disk');
	feed('disk', 5000);
	wait_for_retries('disk', '53100', "J01: no room for $relation");
	is(value($node, 'SELECT count(*) FROM disk'), $rows, "J01: no room for $relation: nothing is written");
	unlink $failio;
	all_arrive('disk', 'disk', "J01: with room for $relation again all is there, once");
}
foreach my $case ([ J01 => 'write', qr/PANIC:.*No space left/ ], [ J02 => 'sync', qr/PANIC:.*Input\/output error/ ])
{
	my ($row, $what, $panic) = @$case;
	my $log = -s $node->logfile;
	set_failing($what, '/pg_wal/');
	feed('disk', 5000);
	my $deadline = time + 20;
	sleep 0.05 while time < $deadline && !count_log($node, $panic, $log);
	cmp_ok(count_log($node, $panic, $log), '>', 0, "$row: a $what of the log fails: the server panics");
	unlink $failio;
	# Whether it comes back by itself depends on how far it came in the meantime.
	my ($rc) = (1);
	$deadline = time + 10;
	while (time < $deadline)
	{
		($rc) = IngestTest::try_psql($node, 'SELECT 1');
		last if $rc == 0 || $node->{_pid} && !kill 0, $node->{_pid};
		sleep 0.2;
	}
	if ($rc != 0)
	{
		$node->_update_pid(-1);
		local $ENV{LD_PRELOAD} = abs_path("$ENV{INGEST_TEST_BIN}/failio.so");
		local $ENV{INGEST_FAILIO} = $failio;
		$node->start;
	}
	all_arrive('disk', 'disk', "$row: afterwards all is there, once");
}
start('disk');
check_accounts($node, 'disk', 'disk', 'J01, J02: the books');

# ---- J05: locks

define('calm', 'calm', '{"lock_timeout": "200 ms"}');
start('calm');
feed('calm', 100);
all_arrive('calm', 'calm', 'a pipeline');
my $user = $node->background_psql('postgres');
$user->query_safe('BEGIN; LOCK TABLE calm');
feed('calm', 100);
wait_for_retries('calm', '55P03', 'J05: a table that somebody has locked');
$user->query_safe('COMMIT');
all_arrive('calm', 'calm', 'J05: is written when it is free');

$node->safe_psql('postgres', q(
	CREATE TABLE pair (id integer PRIMARY KEY, n bigint NOT NULL);
	INSERT INTO pair VALUES (1, 0), (2, 0);
	CREATE FUNCTION count_pair() RETURNS void LANGUAGE plpgsql AS $$ DECLARE c bigint; BEGIN
		SELECT count(*) INTO c FROM ingest.batch(NULL::calm_topic);
		UPDATE pair SET n = n + c WHERE id = 1;
		PERFORM pg_advisory_xact_lock(7);
		UPDATE pair SET n = n + c WHERE id = 2;
	END $$;
	SELECT ingest.alter_pipeline('calm', options => '{"lock_timeout": "60 s"}');
	SELECT ingest.add_transform('calm', 'pair', 'SELECT count_pair()');
	ALTER ROLE postgres SET deadlock_timeout = '100ms'));
stop('calm');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'calm'", 'stopped', 'stopped');
start('calm');
my $third = $node->background_psql('postgres');
$third->query_safe('SELECT pg_advisory_lock(7)');
$user->query_safe("SET deadlock_timeout = '60s'; BEGIN; UPDATE pair SET n = n WHERE id = 2");
my $log = -s $node->logfile;
feed('calm', 100);
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker' AND wait_event = 'advisory'", '1', 'J05: a worker has locked one row');
$user->{stdin} .= "UPDATE pair SET n = n WHERE id = 1; COMMIT;\n";
$user->{run}->pump_nb;
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event_type = 'Lock'", '1', 'J05: a session wants it');
$third->query_safe('SELECT pg_advisory_unlock(7)');
all_arrive('calm', 'calm', 'J05: a deadlock passes');
is(value($node, 'SELECT string_agg(n::text, \' \') FROM pair'), '100 100', 'J05: and its batch is written once');
cmp_ok(value($node, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"), '>=', 1, 'J05: there was one');
is(value($node, "SELECT concat_ws(' ', state, sqlstate) FROM ingest.pipeline_status WHERE name = 'calm'"), 'running', 'J05: which is no failure');
$node->safe_psql('postgres', 'ALTER ROLE postgres RESET deadlock_timeout');

# ---- J06: the owner's transactions are serializable

$node->safe_psql('postgres', q(
	ALTER ROLE postgres SET default_transaction_isolation = serializable;
	SELECT ingest.drop_transform('calm', 'pair');
	SELECT ingest.add_transform('calm', 'one', 'UPDATE pair SET n = n + (SELECT count(*) FROM batch) WHERE id = 1')));
stop('calm');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'calm'", 'stopped', 'stopped');
start('calm');
wait_for($node, "SELECT w.phase FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = 'calm'", 'waiting', 'J06: a worker waits for messages');
my $pid = worker_pid($node, 'calm');
reload('ingest.fault' => "before-load:wait:0:$pid");
feed('calm', 100);
wait_for($node, "SELECT a.wait_event_type || ' ' || w.phase FROM pg_stat_activity a JOIN ingest._workers() w ON w.pid = a.pid
	WHERE a.pid = $pid", 'Extension loading', 'J06: a batch is at work');
$node->safe_psql('postgres', 'UPDATE pair SET n = n + 1 WHERE id = 1');
reload('ingest.fault' => '');
all_arrive('calm', 'calm', 'J06: a serialization failure is tried again');
is(value($node, 'SELECT n FROM pair WHERE id = 1'), '201', 'J06: nothing is counted twice');
$node->safe_psql('postgres', 'ALTER ROLE postgres RESET default_transaction_isolation');

# ---- J07: read-only

stop('calm');
$node->safe_psql('postgres', 'ALTER ROLE postgres SET default_transaction_read_only = on');
my $writable = 'SET default_transaction_read_only = off';
$node->safe_psql('postgres', "$writable; SELECT ingest.start('calm')");
feed('calm', 100);
wait_for_retries('calm', '25006', 'J07: read-only transactions are an error that passes, and says so');
$node->safe_psql('postgres', "$writable; ALTER ROLE postgres RESET default_transaction_read_only");
stop('calm');
start('calm');
all_arrive('calm', 'calm', 'J07: when they write again it goes on');

# ---- J12: what a broken pipeline says

$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.retry_min = '1s'; ALTER SYSTEM SET ingest.retry_max = '5min'");
$node->reload;
unreachable_server($node, 'nobody', '127.0.0.1:1');
create_pipeline($node, 'dull', server => 'nobody');
$node->safe_psql('postgres', q(
	CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'disk_full'; END $$;
	CREATE TRIGGER fails BEFORE INSERT ON calm FOR EACH ROW EXECUTE FUNCTION fails()));
$log = -s $node->logfile;
start('dull');
feed('calm', 10);
wait_for($node, "SELECT attempts FROM ingest.pipeline_status WHERE name = 'calm'", '3', 'J12: tried again three times', 60);
my @lines = grep { /^20/ } split /\n/, slurp_file($node->logfile, $log);
diag 'J12: ' . scalar(@lines) . ' lines';
cmp_ok(scalar(grep { /ingest worker/ } @lines), '<=', 20, 'J12: two broken pipelines say so once a try');
cmp_ok(value($node, "SELECT extract(epoch FROM retry_at - error_at) FROM ingest.pipeline_status WHERE name = 'calm'"), '>', 0.9, 'J12: which become rare');
$node->safe_psql('postgres', 'DROP TRIGGER fails ON calm');
stop('dull');
start('calm');
all_arrive('calm', 'calm', 'J12: repaired, start() does not wait');

# ---- J13: after a kill -9 the status does not say "running"

reload('ingest.retry_min' => '1h', 'ingest.retry_max' => '1h');
$pid = worker_pid($node, 'calm');
kill 9, $pid;
wait_gone(5, 'J13: a worker is killed', $pid);
wait_for($node, "SELECT state, running, last_error ~ 'crashed' FROM ingest.pipeline_status WHERE name = 'calm'", 'backoff|0|t',
	'J13: the status does not say that it runs');
is(value($node, 'SELECT count(*) FROM ingest._workers() w LEFT JOIN pg_stat_activity a USING (pid) WHERE a.pid IS NULL'), '0',
	'J13: nor does it show processes that are not there');

# ---- J14: settings out of range

fails_with($node, 'ALTER SYSTEM SET ingest.max_workers = 5000', '22023', qr/outside the valid range/, 'J14: a setting out of range');
fails_with($node, "ALTER SYSTEM SET ingest.fetch_memory = 'much'", '22023', qr/invalid value/, 'J14: a setting that is no number');
fails_with($node, 'SET ingest.no_such = 1', '[0-9A-Z]{5}', qr/ingest/, 'J14: a setting that is not there');
$log = -s $node->logfile;
$node->append_conf('postgresql.conf', "ingest.max_workers = 5000\ningest.fetch_memory = '1 kB'\n");
$node->reload;
wait_for($node, "SELECT count(*) FROM pg_file_settings WHERE name LIKE 'ingest.%' AND error IS NOT NULL", '2', 'J14: in the file: seen');
is(value($node, 'SHOW ingest.max_workers'), '8', 'J14: what was in force stays');
# At a start there is nothing that was in force.
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
$node->append_conf('postgresql.conf', "ingest.retry_min = '1min'\ningest.retry_max = '50ms'\n");
$node->restart;
is(value($node, 'SHOW ingest.max_workers'), '8', 'J14: the server starts all the same');
cmp_ok(count_log($node, qr/WARNING:.*"ingest\.max_workers"/, $log), '>=', 1, 'J14: and says what is wrong');
start('calm');
feed('calm', 10);
all_arrive('calm', 'calm', 'J14: settings that contradict each other: pipelines run');
$node->append_conf('postgresql.conf', "ingest.max_workers = 8\ningest.fetch_memory = '64MB'\ningest.retry_min = '50ms'\ningest.retry_max = '200ms'\n");

# ---- J10, J15: others in the same server, before and after us in the chain of hooks

foreach my $libraries ('ingest, pg_stat_statements', 'auto_explain, pg_stat_statements, ingest')
{
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$libraries'");
	$node->restart;
	start('calm');
	feed('calm', 500);
	all_arrive('calm', 'calm', "J10: $libraries");
	$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION ingest CASCADE; ROLLBACK; CREATE DATABASE x; DROP DATABASE x');
	wait_for($node, "SELECT count(*) FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = 'calm'", '1',
		"J15: $libraries: utility statements find us");
	cmp_ok(value($node, "SELECT sum(calls) FROM pg_stat_statements WHERE query ~ '^(DROP|CREATE) DATABASE'"), '>=', 2,
		"J15: $libraries: and the others");
	my $entries = value($node, 'SELECT count(*) FROM pg_stat_statements');
	foreach (1 .. 8)
	{
		feed('calm', 20);
		all_arrive('calm', 'calm', "J10: $libraries: batch $_");
	}
	cmp_ok(value($node, 'SELECT count(*) FROM pg_stat_statements'), '<=', $entries + 5, "J10: $libraries: their number does not grow with the batches");
}

# ---- J11: positions are updated in place

$node->safe_psql('postgres', q(
	SET synchronous_commit = off; SET auto_explain.log_min_duration = -1; SET pg_stat_statements.track = none;
	DO $$ BEGIN FOR i IN 1 .. 100000 LOOP
		UPDATE ingest._position SET lag = i, moved_at = clock_timestamp() WHERE pipeline_id = (SELECT min(pipeline_id) FROM ingest._position); COMMIT;
	END LOOP; END $$));
cmp_ok(value($node, "SELECT pg_relation_size('ingest._position')"), '<=', 10 * 8192, 'J11: 100,000 updates of positions take no room');
wait_for($node, "SELECT n_tup_hot_upd > 0.95 * n_tup_upd FROM pg_stat_all_tables WHERE relid = 'ingest._position'::regclass", 't',
	'J11: nearly all in place');

# ---- J20: a schedule after a long stop

define('hot', 'hot');
feed('hot', 10);
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('hot', schedule => '1 hour')");
start('hot');
all_arrive('hot', 'hot', 'J20: a scheduled run');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'hot'", 'idle', 'J20: has ended');
# As if the server had been down for ten hours.
$node->stop;
feed('hot', 10);
$node->start;
$node->safe_psql('postgres', "UPDATE ingest._state SET next_run = now() - interval '10 hours'
	WHERE pipeline_id = (SELECT id FROM ingest._pipeline WHERE name = 'hot')");
$node->restart;
all_arrive('hot', 'hot', 'J20: ten runs were missed: there is one at once');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'hot'", 'idle', 'J20: which ends');
feed('hot', 10);
sleep 2;
is(value($node, 'SELECT count(*) FROM hot'), '20', 'J20: and no second one');
is(value($node, "SELECT next_run > now() AND next_run <= now() + interval '1 hour' FROM ingest.pipeline_status WHERE name = 'hot'"), 't',
	'J20: the next one is when it should be');

# ---- J08, J09: pipelines and partitions come and go in one session

sub holdings
{
	my ($session) = @_;
	my $backend = $session->query_safe('SELECT pg_backend_pid()');
	my $status = slurp_file("/proc/$backend/status");
	my ($rss) = $status =~ /^RssAnon:\s+(\d+)/m;
	my ($threads) = $status =~ /^Threads:\s+(\d+)/m;
	my @files = grep { (readlink // '') =~ m{^(pipe|socket|anon_inode)} } glob "/proc/$backend/fd/*";
	return { kB => $rss, threads => $threads, files => scalar @files,
		contexts => $session->query_safe("SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'ingest%'"),
		bytes => $session->query_safe('SELECT sum(total_bytes) FROM pg_backend_memory_contexts') };
}

$broker->send('churn', map { sprintf '{"seq": %d, "at": "2026-%02d-%02dT00:00:00Z"}', $_, 1 + $_ % 2, 1 + $_ } 0 .. 4);
$node->safe_psql('postgres', q(CREATE FOREIGN TABLE churn_topic (seq bigint, at timestamptz) SERVER plant OPTIONS (topic 'churn', format 'json')));
my $session = $node->background_psql('postgres');
$session->query_safe('SET client_min_messages = warning');

sub churn
{
	my ($times) = @_;
	foreach (1 .. $times)
	{
		$session->query_safe(q{
			CREATE TABLE churn (seq bigint, at timestamptz) PARTITION BY RANGE (at);
			SELECT ingest.manage_partitions('churn', every => '1 day', ahead => 0, bounds => '[2026-01-01, 2027-01-01)');
			SELECT ingest.create_pipeline('churn', 'churn_topic', 'churn');
			SELECT ingest.add_rule('churn', 'r', 'seq >= 0'); SELECT ingest.add_transform('churn', 't', 'SELECT count(*) FROM batch');
			CALL ingest.run('churn');});
		is($session->query_safe('SELECT count(*) FROM churn'), '5', 'written') if $_ == $times;
		$session->query_safe(q(SELECT ingest.drop_pipeline('churn'); DROP TABLE churn;));
	}
	return;
}
churn(50);
my $before = holdings($session);
churn(100);
my $after = holdings($session);
diag join ', ', map { "$_ $before->{$_} $after->{$_}" } sort keys %$before;
is($after->{files}, $before->{files}, 'J08: pipelines come and go: no files are left');
is($after->{threads}, $before->{threads}, 'J08: no threads');
is($after->{contexts}, $before->{contexts}, 'J08: no memory contexts');
cmp_ok($after->{bytes}, '<', $before->{bytes} + 1_000_000, 'J08, J09: what the server holds for them does not grow');
cmp_ok($after->{kB}, '<', $before->{kB} + 4_000, 'J08, J09: nor does the process');
$session->quit;
$third->quit;
$user->quit;

$node->stop('fast');
done_testing();
