# Many pipelines and few slots: who became due first comes first, nobody waits for ever,
# one that fails is in nobody's way; a worker that goes on with another pipeline is as
# good as a new one.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use ProcessTest;
use RunTest;

my $pipelines = 200;
my $node = start_node('many', conf => "ingest.max_workers = 4\nmax_locks_per_transaction = 256\nlog_min_messages = log\nlog_statement = none");

# ---- a worker goes on with the next one of its role

create_relation_pipeline($node, 'dirty', 'manual');
create_relation_pipeline($node, 'clean', 'after dirty', source => 'dirty_source');
$node->safe_psql('postgres', q(
	CREATE TABLE note (name text, pid integer, setting text, locks bigint, leftover text, role text, application text);
	CREATE FUNCTION note(who text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO note VALUES (who, pg_backend_pid(), current_setting('work_mem'),
			(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
			to_regclass('pg_temp.leftover')::text, current_user, current_setting('application_name'));
		PERFORM set_config('work_mem', '77MB', false), set_config('search_path', 'pg_catalog', false), pg_advisory_lock(42);
		CREATE TEMP TABLE IF NOT EXISTS leftover ();
	END $$;
	SELECT ingest.add_transform('dirty', 'note', $$SELECT public.note('dirty') FROM batch LIMIT 1$$);
	SELECT ingest.add_transform('clean', 'note', $$SELECT public.note('clean') FROM batch LIMIT 1$$);
	SELECT ingest.start('dirty'); SELECT ingest.start('clean'); INSERT INTO dirty_source VALUES (1)));
$node->safe_psql('postgres', "SELECT ingest.run_now('dirty')");
wait_for($node, 'SELECT count(*) FROM note', 2, 'both have run');
is(value($node, 'SELECT count(DISTINCT pid) FROM note'), 1, 'in the same process');
is(value($node, "SELECT string_agg(concat_ws(' ', name, setting, locks, coalesce(leftover, '-'), role, application), '; ' ORDER BY name) FROM note"),
	'clean 4MB 0 - postgres ingest: clean[0]; dirty 4MB 0 - postgres ingest: dirty[0]', 'which has forgotten the other pipeline');
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'", 0, 'and ends when there is nothing to do');
is(value($node, "SELECT count(*) FROM pg_locks WHERE locktype IN ('userlock', 'advisory')"), 0, 'no lock is left');
$node->safe_psql('postgres', q(
	CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO other; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO other;
	GRANT SELECT ON dirty TO other; GRANT INSERT ON note TO other;
	SET ROLE other; SET client_min_messages = error;
	CREATE TABLE theirs (seq bigint PRIMARY KEY);
	SELECT ingest.create_pipeline('theirs', 'dirty', 'theirs', schedule => 'manual', options => '{"cursor": "seq", "late_commits": "ignore"}');
	SELECT ingest.start('theirs')));
$node->safe_psql('postgres', "SELECT ingest.run_now('theirs'), ingest.run_now('dirty')");
wait_for($node, 'SELECT count(*) FROM theirs', 1, 'another role has workers of its own');
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline(name) FROM ingest.pipeline WHERE name <> 'dirty'");
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('dirty')");

# ---- many

# Each run takes 10 ms at least, so that four slots have more to do than they can.
$node->safe_psql('postgres', qq(
	SET client_min_messages = error;
	CREATE FUNCTION nap() RETURNS boolean STABLE LANGUAGE sql AS 'SELECT pg_sleep(0.01) IS NOT NULL';
	DO \$\$ BEGIN
		FOR i IN 1 .. $pipelines LOOP
			EXECUTE format('CREATE TABLE base_%s (seq bigint PRIMARY KEY); CREATE TABLE many_%s (seq bigint PRIMARY KEY);
				CREATE VIEW many_%s_source AS SELECT seq FROM base_%s WHERE (SELECT nap())', i, i, i, i);
			PERFORM ingest.create_pipeline('many_' || i, ('many_' || i || '_source')::regclass, ('many_' || i)::regclass, schedule => '1 second',
				options => '{"cursor": "seq", "key": "seq", "mode": "upsert", "late_commits": "ignore", "lock_timeout": 10}');
		END LOOP;
	END \$\$));
# Of ten of them nobody gets at the target.
my $blocker = $node->background_psql('postgres', on_error_die => 1);
$node->safe_psql('postgres', 'INSERT INTO base_' . 20 * $_ . ' VALUES (1)') foreach 1 .. 10;
my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'SELECT count(ingest.start(name)) FROM ingest.pipeline WHERE name LIKE \'many%\'');
$blocker->query_safe('BEGIN; LOCK TABLE ' . join(', ', map { 'many_' . 20 * $_ } 1 .. 10));
my $healthy = "replace(name, 'many_', '')::integer % 20 <> 0";
my $most = 0;
my $deadline = time + 60;
while (time < $deadline)
{
	my ($least, $workers) = split /\|/, value($node, "SELECT min(runs), (SELECT count(*) FROM ingest._workers()) FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE $healthy");
	$most = $workers if $workers > $most;
	last if $least >= 5;
	sleep 0.1;
}
cmp_ok($most, '<=', 4, 'no more than four at a time');
is(value($node, "SELECT min(runs) >= 5 FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE $healthy"), 't', 'each has run five times');
$node->safe_psql('postgres', 'SELECT count(ingest.stop(name)) FROM ingest.pipeline');
$blocker->query_safe('ROLLBACK');
$blocker->quit;
wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'", 0, 'all have ended');

# Nobody comes for the third time before all others have come once, and so on.
is(value($node, "WITH r AS (SELECT pipeline, run, row_number() OVER (PARTITION BY pipeline ORDER BY run) AS n FROM (
		SELECT DISTINCT pipeline, run FROM ingest.batch_history WHERE outcome = 'done') d(pipeline, run), LATERAL (SELECT pipeline AS name) x WHERE $healthy)
	SELECT count(*) FROM (SELECT n, max(run) AS slowest FROM r WHERE n <= 3 GROUP BY n) a JOIN (SELECT n, min(run) AS fastest FROM r GROUP BY n) b
	ON b.n = a.n + 2 WHERE b.fastest < a.slowest"), 0, 'everybody has his turn');
cmp_ok(value($node, "SELECT count(*) FROM ingest.batch_history WHERE outcome = 'failed' AND sqlstate = '55P03'"), '>', 10, 'those that fail are tried again');
is(value($node, "SELECT count(*) FROM ingest.batch_history WHERE outcome NOT IN ('done', 'failed', 'cancelled')"), 0, 'nothing else has happened');
is(value($node, "SELECT count(*) FROM (SELECT 1 FROM ingest.batch_history a JOIN ingest.batch_history b USING (pipeline)
	WHERE a.run < b.run AND b.run < a.finished_at AND a.id < b.id) o"), 0, 'never two runs of one pipeline at a time');
is(count_log($node, qr/PANIC|TRAP|was terminated by signal/, $offset), 0, 'and the log is quiet');

$node->stop;
done_testing();
