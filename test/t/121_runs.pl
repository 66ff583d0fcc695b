# Runs and their history: why each began, how it ended, and what a try that fails, or
# takes too long, leads to; runs that were missed.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use ClockTest;
use IngestTest;
use ProcessTest;
use RunTest;

my $node = with_clock(sub { start_node('runs', conf => "ingest.max_workers = 4\nmax_prepared_transactions = 2") });

sub start { $node->safe_psql('postgres', "SELECT ingest.start('$_')") foreach @_; return }

sub idle
{
	my ($name) = @_;
	return wait_for($node, "SELECT state || running FROM ingest.pipeline_status WHERE name = '$name'", 'idle0', "$name: idle");
}

# A run in background, and its end.
sub run_now
{
	my ($name) = @_;
	my $rows = value($node, "SELECT count(DISTINCT run) FROM ingest.batch_history WHERE pipeline = '$name'");
	$node->safe_psql('postgres', "SELECT ingest.run_now('$name')");
	wait_for($node, "SELECT count(DISTINCT run) > $rows FROM ingest.batch_history WHERE pipeline = '$name'", 't', "$name: has run");
	return idle($name);
}

# ---- causes, and runs that read nothing

create_relation_pipeline($node, 'plain', '1 hour');
start('plain');
idle('plain');
is(history_of($node, 'plain'), 'run schedule done', 'a run that read nothing is known');
$node->safe_psql('postgres', 'INSERT INTO plain_source SELECT generate_series(1, 25)');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('plain', options => '{"batch_rows": 10}')));
run_now('plain');
is(value($node, "SELECT cause || ' ' || count(*) || ' ' || sum(read) || ' ' || bool_and(outcome = 'done') || ' ' || bool_and(run <= started_at AND started_at <= finished_at)
	FROM ingest.batch_history WHERE pipeline = 'plain' AND cause <> 'schedule' GROUP BY run, cause"), 'manual 3 25 true true', 'one run of three batches');
$node->safe_psql('postgres', "SELECT ingest.stop('plain')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'no worker');
$node->safe_psql('postgres', 'INSERT INTO plain_source VALUES (26)');
$node->safe_psql('postgres', "CALL ingest.run('plain')");
$node->safe_psql('postgres', "CALL ingest.run('plain')");
is(history_of($node, 'plain'), 'run schedule done; ' . 'turn manual done; ' x 4 . 'run manual done', 'in the foreground');
is(value($node, "SELECT read || ' ' || written FROM ingest.pipeline_status WHERE name = 'plain'"), '26 26', 'the sums are those of the batches');

# A call that fails is in the history too, wherever it fails.
$node->safe_psql('postgres', q(
	CREATE TABLE fails_source (seq bigint PRIMARY KEY); CREATE TABLE fails (seq bigint PRIMARY KEY); INSERT INTO fails_source VALUES (1);
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'disk_full'; END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON fails FOR EACH ROW EXECUTE FUNCTION refuse();
	SELECT ingest.create_pipeline('fails', 'fails_source', 'fails', schedule => 'manual', mode => 'upsert', key => '{seq}', options => '{"cursor": "seq"}')));
my $last = "SELECT concat_ws(' ', kind, cause, outcome, sqlstate, message) FROM ingest.batch_history WHERE pipeline = 'fails' ORDER BY id DESC LIMIT 1";
fails_with($node, "CALL ingest.run('fails')", '53100', qr/no/, 'in a turn');
is(value($node, $last), 'run manual failed 53100 no', 'in a turn: the history tells');
my $holder = $node->background_psql('postgres', on_error_die => 1);
$holder->query_safe('BEGIN; LOCK TABLE fails_source');
fails_with($node, "SET lock_timeout = '200 ms'; CALL ingest.run('fails')", '55P03', qr/lock timeout/, 'while it reads');
is(value($node, $last), 'run manual failed 55P03 canceling statement due to lock timeout', 'while it reads: the history tells');
fails_with($node, "SET statement_timeout = '200 ms'; CALL ingest.run('fails')", '57014', qr/canceling statement/, 'cancelled');
is(value($node, $last), 'run manual failed 57014 canceling statement due to statement timeout', 'cancelled: the history tells');
$holder->query_safe('ROLLBACK');
$holder->quit;
fails_with($node, "CALL ingest.backfill('fails', '1', '9')", '53100', qr/no/, 'a backfill');
is(value($node, $last), 'run backfill failed 53100 no', 'a backfill: the history tells');
$node->safe_psql('postgres', "DROP TRIGGER refuse ON fails; CALL ingest.run('fails')");
is(value($node, 'SELECT count(*) FROM fails'), 1, 'mended, it runs');
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('fails')");
is(value($node, "SELECT max(finished_at) FILTER (WHERE kind = 'turn') = (SELECT last_batch_at FROM ingest.pipeline_status WHERE name = 'plain')
	FROM ingest.batch_history WHERE pipeline = 'plain'"), 't', 'and so is the last one');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('plain', options => '{"history": 2}')));
is(value($node, "SELECT sum(read) FROM ingest.batch_history"), 26, 'before it is trimmed');

create_relation_pipeline($node, 'flow', 'continuous');
fails_with($node, "SELECT ingest.run_now('plain')", '55000', qr/is stopped/, 'run_now: stopped');
start('flow');
fails_with($node, "SELECT ingest.run_now('flow')", '55000', qr/runs all the time/, 'run_now: a stream');
$node->safe_psql('postgres', "SELECT ingest.stop('flow')");

# ---- asked for while it runs: once more, and once only

create_relation_pipeline($node, 'slow', 'manual');
$node->safe_psql('postgres', "SELECT ingest.add_transform('slow', 'nap', 'SELECT pg_sleep(1) FROM batch LIMIT 1')");
start('slow');
idle('slow');
is(history_of($node, 'slow'), '', 'manual: starting it runs nothing');
$node->safe_psql('postgres', "BEGIN; SELECT ingest.run_now('slow'); ROLLBACK");
$node->safe_psql('postgres', "INSERT INTO slow_source VALUES (1); SELECT ingest.run_now('slow')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'loading', 'slow: in its turn');
$node->safe_psql('postgres', "SELECT ingest.run_now('slow')") foreach 1 .. 5;
wait_for($node, "SELECT count(DISTINCT run) FROM ingest.batch_history WHERE pipeline = 'slow'", 2, 'slow: asked for again');
idle('slow');
sleep 0.3;
is(history_of($node, 'slow'), 'turn manual done; run manual done', 'slow: one more run, not five');

# ---- cancelled

$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('slow', options => '{"batch_rows": 1}')));
$node->safe_psql('postgres', "INSERT INTO slow_source SELECT generate_series(2, 9); SELECT ingest.run_now('slow')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'loading', 'slow: in its turn again');
$node->safe_psql('postgres', "SELECT ingest.stop('slow')");
wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE outcome = 'cancelled'", 1, 'a run that was stopped is known');
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'slow: gone');
like(runs_of($node, 'slow'), qr/^cancelled 1, done 2$/, 'slow: as the end of its run');
$node->safe_psql('postgres', 'DELETE FROM slow_source');

# ---- tries that fail

# Nobody gets at the table.
my $blocker = $node->background_psql('postgres', on_error_die => 1);
sub block { $blocker->query_safe("BEGIN; LOCK TABLE $_[0]"); return }
sub unblock { $blocker->query_safe('ROLLBACK'); return }

create_relation_pipeline($node, 'thrice', '1 hour', options => '{"lock_timeout": 10, "retries": 2}');
start('thrice');
idle('thrice');
$node->safe_psql('postgres', 'DELETE FROM ingest._batch; INSERT INTO thrice_source VALUES (1)');
block('thrice');
$node->safe_psql('postgres', "SELECT ingest.run_now('thrice')");
wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'thrice'", 3, 'retries: tried, and tried again twice');
wait_for($node, "SELECT runs || ' ' || attempts || ' ' || (next_run > now() + interval '50 min') || ' ' || (retry_at IS NULL)
	FROM ingest._state JOIN ingest._pipeline p ON p.id = pipeline_id WHERE name = 'thrice'", '1 0 true true', 'retries: then the next run is waited for');
is(history_of($node, 'thrice'), join('; ', ('run manual failed 55P03') x 3), 'retries: all in the history');
is(value($node, "SELECT count(DISTINCT run) FROM ingest.batch_history WHERE pipeline = 'thrice'"), 1, 'retries: of one run');
is(value($node, "SELECT state || ' ' || sqlstate FROM ingest.pipeline_status WHERE name = 'thrice'"), 'idle 55P03', 'retries: the error is still shown');
unblock();
run_now('thrice');
is(value($node, "SELECT state || ' ' || coalesce(sqlstate, '') FROM ingest.pipeline_status WHERE name = 'thrice'"), 'idle ', 'retries: until a run succeeds');
is(runs_of($node, 'thrice'), 'done 1, failed 1', 'retries: two runs');

# without a limit: until it succeeds, in one run; its slot is free meanwhile
create_relation_pipeline($node, 'stubborn', 'manual', options => '{"lock_timeout": 10}');
$node->safe_psql('postgres', 'INSERT INTO stubborn_source VALUES (1)');
start('stubborn');
block('stubborn');
$node->safe_psql('postgres', "SELECT ingest.run_now('stubborn')");
wait_for($node, "SELECT attempts > 2 FROM ingest.pipeline_status WHERE name = 'stubborn'", 't', 'no limit: tried on and on');
wait_for($node, "SELECT running || state FROM ingest.pipeline_status WHERE name = 'stubborn'", '0backoff', 'no limit: without a worker in between');
unblock();
wait_for($node, 'SELECT count(*) FROM stubborn', 1, 'no limit: succeeds');
idle('stubborn');
like(history_of($node, 'stubborn'), qr/^(run manual failed 55P03; ){3,}turn manual done$/, 'no limit: in the history');
is(runs_of($node, 'stubborn'), 'done 1', 'no limit: as one run, and it is done');

# none: the next one is the next chance
create_relation_pipeline($node, 'never', 'manual', options => '{"lock_timeout": 10, "retries": 0}');
$node->safe_psql('postgres', 'INSERT INTO never_source VALUES (1)');
start('never');
block('never');
run_now('never');
run_now('never');
is(history_of($node, 'never'), join('; ', ('run manual failed 55P03') x 2), 'retries 0: each run is one try');
unblock();

# halted: failed, and not cancelled as well
create_relation_pipeline($node, 'broken', 'manual');
start('broken');
$node->safe_psql('postgres', "ALTER TABLE broken_source RENAME seq TO other; SELECT ingest.run_now('broken')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'broken'", 'broken', 'halted');
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'halted: no worker');
sleep 0.2;
like(history_of($node, 'broken'), qr/^run manual failed \w{5}$/, 'halted: failed, once');
fails_with($node, "SELECT ingest.run_now('broken')", '55000', qr/has been halted/, 'run_now: halted');

# a worker that is thrown out
create_relation_pipeline($node, 'lost', 'manual');
$node->safe_psql('postgres', "INSERT INTO lost_source VALUES (1);
	SELECT ingest.add_transform('lost', 'nap', 'SELECT pg_sleep(30) FROM batch LIMIT 1')");
start('lost');
$node->safe_psql('postgres', "SELECT ingest.run_now('lost')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'loading', 'lost: in its turn');
$node->safe_psql('postgres', "SELECT ingest.drop_transform('lost', 'nap')");
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM ingest._workers()');
wait_for($node, 'SELECT count(*) FROM lost', 1, 'lost: tried again');
idle('lost');
is(history_of($node, 'lost'), 'run manual failed 57P01; turn manual done', 'lost: both in the history');

# ---- too long

create_relation_pipeline($node, 'long', 'manual', options => '{"timeout": "300 ms", "retries": 1}');
$node->safe_psql('postgres', "INSERT INTO long_source VALUES (1);
	SELECT ingest.add_transform('long', 'nap', 'SELECT pg_sleep(60) FROM batch LIMIT 1')");
start('long');
takes_at_most(25, 'timeout', sub { run_now('long'); wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'long'", 2, 'timeout: tried once more'); idle('long') });
is(history_of($node, 'long'), 'run manual timeout 57014; run manual timeout 57014', 'timeout: in the history');
is(value($node, "SELECT sqlstate || ' ' || (last_error LIKE '%longer than its timeout%') FROM ingest.pipeline_status WHERE name = 'long'"), '57014 true', 'timeout: shown');
$node->safe_psql('postgres', "SELECT ingest.drop_transform('long', 'nap')");
run_now('long');
is(value($node, 'SELECT count(*) FROM long'), 1, 'timeout: the next run has time enough');

# ---- nobody's transaction holds up the others

$blocker->query_safe("BEGIN; SELECT ingest.run_now('never')");
create_relation_pipeline($node, 'other', 'manual');
start('other');
takes_at_most(5, 'somebody holds a state', sub { run_now('other') foreach 1 .. 3 });
$blocker->query_safe('ROLLBACK');

# the same, while a run of it is to be written down
$node->safe_psql('postgres', "INSERT INTO slow_source VALUES (10); SELECT ingest.start('slow'); SELECT ingest.run_now('slow')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'loading', 'slow: in its turn once more');
$blocker->query_safe("BEGIN; SELECT ingest.run_now('slow')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'slow: has ended');
takes_at_most(5, 'the end of a run cannot be written', sub { run_now('other') foreach 1 .. 3 });
my $runs = value($node, "SELECT runs FROM ingest._state JOIN ingest._pipeline ON id = pipeline_id WHERE name = 'slow'");
$blocker->query_safe('COMMIT');
wait_for($node, "SELECT runs FROM ingest._state JOIN ingest._pipeline ON id = pipeline_id WHERE name = 'slow'", $runs + 2, 'slow: written after all, and the run that was asked for');
$blocker->quit;

# ---- missed

foreach my $catch_up (qw(once skip all))
{
	create_relation_pipeline($node, "clock_$catch_up", '0 * * * *', options => qq({"catch_up": "$catch_up"}));
	start("clock_$catch_up");
	wait_for($node, "SELECT next_run > clock_timestamp() FROM ingest.pipeline_status WHERE name = 'clock_$catch_up'", 't', "catch_up $catch_up: the first run is waited for");
}
set_clock(5);
$node->safe_psql('postgres', 'SELECT ingest._wake()');
wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'clock_all'", 5, 'catch_up all: each');
wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'clock_once'", 1, 'catch_up once: one');
wait_for($node, "SELECT bool_and(state = 'idle' AND next_run = date_trunc('hour', clock_timestamp()) + interval '1 hour')
	FROM ingest.pipeline_status WHERE name LIKE 'clock%'", 't', 'and go on with the next hour');
is(runs_of($node, 'clock_skip'), '', 'catch_up skip: none');

# a run that is due while the server is down
$node->stop;
set_clock(6);
with_clock(sub { $node->start });
wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'clock_once'", 2, 'after a restart: what was missed');
wait_for($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'clock_all'", 6, 'after a restart: each');
sleep 0.5;
is(runs_of($node, 'clock_once') . '; ' . runs_of($node, 'clock_all'), 'done 2; done 6', 'and no more');

# ---- how long, how many rows, why: what docs/operating.md says

is(value($node, "SELECT string_agg(concat_ws(' ', cause, outcome, rows, failures), '; ' ORDER BY run) FROM (
	SELECT run, min(cause) AS cause, (array_agg(outcome ORDER BY id DESC))[1] AS outcome,
	       max(finished_at) - run AS took, sum(read) AS rows, count(*) FILTER (WHERE outcome <> 'done') AS failures
	FROM ingest.batch_history WHERE pipeline = 'thrice' AND cause = 'manual' GROUP BY run) r"),
	'manual failed 0 3; manual done 1 0', 'one query tells');

$node->stop;
done_testing();
