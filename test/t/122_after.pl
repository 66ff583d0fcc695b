# Pipelines that run after others: in chains, side by side and joined again; nothing
# is missed and nothing done twice, whoever dies; what does not run is waited for.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use ProcessTest;
use RunTest;

my $node = start_node('after', conf => "ingest.max_workers = 4\nrestart_after_crash = on\nmax_prepared_transactions = 2");

# root ──► left ──► joined ──► last
#      └─► right ──┘
create_relation_pipeline($node, 'root', 'manual');
create_relation_pipeline($node, 'lefty', 'after root', source => 'root');
create_relation_pipeline($node, 'righty', 'after root', source => 'root');
create_relation_pipeline($node, 'joined', 'after lefty, righty', source => 'lefty');
create_relation_pipeline($node, 'last', 'after joined', source => 'joined');
my @all = qw(root lefty righty joined last);
my @followers = qw(lefty righty joined last);

sub counts { return value($node, "SELECT string_agg(name || ' ' || runs, ', ' ORDER BY id) FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id") }
sub state { return value($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$_[0]'") }

# Nothing is left to be done: of each follower some pipeline before it has not come
# further than it has seen.
my $settled = "SELECT bool_and(EXISTS (SELECT FROM unnest(p.upstream, s.seen) AS u (id, seen) JOIN ingest._state us ON us.pipeline_id = u.id
		WHERE us.runs <= coalesce(u.seen, 0))) AND NOT EXISTS (SELECT FROM ingest._workers())
	AND NOT EXISTS (SELECT FROM ingest._state WHERE asked_at IS NOT NULL OR retry_at > now())
	FROM ingest._pipeline p JOIN ingest._state s ON s.pipeline_id = p.id WHERE p.upstream IS NOT NULL AND p.name IN ('lefty', 'righty', 'joined', 'last')";

sub same_rows
{
	my ($name) = @_;
	return is(value($node, join ' UNION ALL ', map { "SELECT count(*) FROM (SELECT seq FROM root_source EXCEPT SELECT seq FROM $_) d" } @all),
		join("\n", (0) x @all), "$name: all rows everywhere");
}

# ---- definitions

fails_with($node, "SELECT ingest.create_pipeline('x', 'root', 'last', schedule => 'after lefti', options => '{\"cursor\": \"seq\"}')", '42704',
	qr/pipeline "lefti" does not exist.*HINT:  Did you mean "lefty"\?/s, 'unknown');
fails_with($node, "SELECT ingest.alter_pipeline('root', schedule => 'after root')", '42P17', qr/circle.*root after root/s, 'after itself');
fails_with($node, "SELECT ingest.alter_pipeline('root', schedule => 'after last')", '42P17',
	qr/circle.*root after last after joined after (left|right)y after root/s, 'a circle');
fails_with($node, "SELECT ingest.drop_pipeline('joined')", '2BP01', qr/others run after it.*last.*HINT/s, 'dropping what others follow');
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('lefty', new_name => 'The Left')");
is(value($node, "SELECT schedule FROM ingest.pipeline WHERE name = 'joined'"), 'after "The Left", righty', 'a rename is followed');
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('joined', schedule => 'after \"The Left\", righty')");
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('The Left', new_name => 'lefty')");

# two who each see no circle
my $one = $node->background_psql('postgres', on_error_die => 0, on_error_stop => 0);
$one->query("BEGIN; SELECT ingest.alter_pipeline('lefty', schedule => 'after righty')");
my $two = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', "SELECT ingest.alter_pipeline('righty', schedule => 'after lefty')" ],
	'<', \'', '>&', \my $out, IPC::Run::timeout(60));
wait_for($node, "SELECT count(*) FROM pg_locks WHERE NOT granted", 1, 'who runs after whom is changed by one at a time');
$one->query('COMMIT');
$two->finish;
like($out, qr/circle/, 'and the second one sees the circle');
$one->quit;
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('lefty', schedule => 'after root')");

# ---- one after the other

$node->safe_psql('postgres', "SELECT ingest.start('$_')") foreach @all;
sleep 0.3;
is(counts(), 'root 0, lefty 0, righty 0, joined 0, last 0', 'nothing has run, so nothing runs after it');
is(value($node, "SELECT string_agg(DISTINCT state, ' ') FROM ingest.pipeline_status"), 'idle', 'idle');
for my $round (1 .. 5)
{
	$node->safe_psql('postgres', "INSERT INTO root_source VALUES ($round); SELECT ingest.run_now('root')");
	wait_for($node, $settled, 't', "round $round: settled");
	is(counts(), join(', ', map { "$_ $round" } @all), "round $round: each once");
}
same_rows('five rounds');
is(value($node, "SELECT string_agg(DISTINCT cause, ' ') FROM ingest.batch_history WHERE pipeline <> 'root'"), 'after', 'and that is why');

# How long it takes from one to the next.
my $gap = value($node, "SELECT 1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM f.run - u.finished_at)) FROM (
	SELECT run, row_number() OVER (ORDER BY run) AS n FROM (SELECT DISTINCT run FROM ingest.batch_history WHERE pipeline = 'lefty') r) f
	JOIN (SELECT max(finished_at) AS finished_at, row_number() OVER (ORDER BY run) AS n FROM ingest.batch_history WHERE pipeline = 'root' GROUP BY run) u USING (n)");
cmp_ok($gap, '<', 500, 'the next one begins at once');
note sprintf '%.1f ms from the commit to the start of the next', $gap;

# What happens many times before it can run is one run.
$node->safe_psql('postgres', "SELECT ingest.stop('joined')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'joined'", 'stopped', 'joined: stopped');
for my $round (6 .. 8)
{
	$node->safe_psql('postgres', "INSERT INTO root_source VALUES ($round); SELECT ingest.run_now('root')");
	wait_for($node, "SELECT sum(runs) FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name IN ('lefty', 'righty')", 2 * $round, "round $round: those before it");
}
is(value($node, "SELECT state || ' ' || hint FROM ingest.pipeline_status WHERE name = 'last'"), 'waiting Pipeline joined does not run: stopped.', 'last: waits for joined');
$node->safe_psql('postgres', "SELECT ingest.start('joined')");
wait_for($node, $settled, 't', 'joined: settled');
is(counts(), 'root 8, lefty 8, righty 8, joined 6, last 6', 'joined: once for three');
same_rows('stopped and started');

# Both must have run, not one of them twice.
$node->safe_psql('postgres', "SELECT ingest.stop('righty')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'righty'", 'stopped', 'righty: stopped');
foreach (1 .. 2)
{
	my $before = value($node, "SELECT runs FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = 'lefty'");
	$node->safe_psql('postgres', "SELECT ingest.run_now('root')");
	wait_for($node, "SELECT runs > $before FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = 'lefty'", 't', 'lefty runs');
}
sleep 0.3;
is(counts(), 'root 10, lefty 10, righty 8, joined 6, last 6', 'joined: not before both have run');
is(value($node, "SELECT string_agg(state, ' ' ORDER BY name) FROM ingest.pipeline_status WHERE name IN ('joined', 'last')"), 'waiting waiting', 'and both wait');

# A run in the foreground is a run, too.
$node->safe_psql('postgres', "CALL ingest.run('righty')");
wait_for($node, "SELECT runs FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = 'last'", 7, 'in the foreground: those after it run');
$node->safe_psql('postgres', "SELECT ingest.start('righty')");
wait_for($node, $settled, 't', 'righty: settled');

# ---- one before fails

$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('lefty', options => '{\"lock_timeout\": 10}')");
my $blocker = $node->background_psql('postgres', on_error_die => 1);
$blocker->query_safe('BEGIN; LOCK TABLE lefty IN EXCLUSIVE MODE');
$node->safe_psql('postgres', "INSERT INTO root_source VALUES (20); SELECT ingest.run_now('root')");
wait_for($node, "SELECT string_agg(state || coalesce(' ' || hint, ''), '; ' ORDER BY name) FROM ingest.pipeline_status WHERE name IN ('lefty', 'joined')",
	'waiting Pipeline lefty does not run: backoff.; backoff', 'lefty fails: joined waits');
my $joined = value($node, "SELECT runs FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = 'joined'");
$blocker->query_safe('ROLLBACK');
$blocker->quit;
wait_for($node, $settled, 't', 'lefty: succeeds, and the others follow');
is(value($node, "SELECT runs FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = 'joined'"), $joined + 1, 'joined: once');
same_rows('one has failed');

# ---- after a stream: each commit counts

create_relation_pipeline($node, 'stream', 'continuous');
create_relation_pipeline($node, 'ebb', 'after stream', source => 'stream');
$node->safe_psql('postgres', "SELECT ingest.start('stream'); SELECT ingest.start('ebb')");
for my $round (1 .. 10)
{
	$node->safe_psql('postgres', "INSERT INTO stream_source VALUES ($round)");
	is(value($node, "CALL ingest.wait_for('stream', '20 s'); CALL ingest.wait_for('ebb', '20 s'); SELECT count(*) FROM ebb"), $round, "stream: round $round");
}
sleep 0.5;
is(runs_of($node, 'ebb'), 'done 10', 'stream: one run for each batch');
$node->restart;
wait_for($node, "SELECT running FROM ingest.pipeline_status WHERE name = 'stream'", 1, 'stream: after a restart');
sleep 0.5;
is(runs_of($node, 'ebb'), 'done 10', 'stream: a restart is no reason to run');
$node->safe_psql('postgres', "INSERT INTO stream_source VALUES (11)");
wait_for($node, 'SELECT count(*) FROM ebb', 11, 'stream: and on it goes');
$node->safe_psql('postgres', "SELECT ingest.stop('stream'); SELECT ingest.stop('ebb')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'stream: stopped');

# ---- whoever is killed

sub runs { return value($node, "SELECT runs FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = '$_[0]'") }

my $seq = 100;
my $patience = 30;
foreach my $round (1 .. 2)
{
	foreach my $who ('supervisor', 'worker', 'launcher', 'postmaster')
	{
		$node->safe_psql('postgres', "INSERT INTO root_source SELECT $seq + g FROM generate_series(1, 50) g; SELECT ingest.run_now('root')");
		$seq += 50;
		sleep rand 0.06;
		if ($who eq 'postmaster')
		{
			$node->stop('immediate');
			$node->start;
		}
		else
		{
			my ($rc, $pid) = $node->psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ingest $who' LIMIT 1");
			kill 'KILL', $pid if $rc == 0 && $pid;
		}
		ok(wait_until_up($node), "$who killed: the server is up");
		# Crashes in a row halt a pipeline: that is another test's.
		$node->safe_psql('postgres', "UPDATE ingest._state SET crashes = 0");
		wait_for($node, $settled, 't', "$who killed: settled", $patience);
		same_rows("$who killed");
		is(value($node, "SELECT bool_and(f.runs <= u.runs) FROM ingest._pipeline p JOIN ingest._state f ON f.pipeline_id = p.id
			JOIN ingest._pipeline r ON r.name = 'root' JOIN ingest._state u ON u.pipeline_id = r.id WHERE p.name IN ('lefty', 'righty', 'joined', 'last')"),
			't', "$who killed: nothing has run without a reason");
	}
}
is(value($node, join ' UNION ALL ', map { "SELECT count(*) - count(DISTINCT seq) FROM $_" } @all), join("\n", (0) x @all), 'no row twice');

# ---- how old a target may get

create_relation_pipeline($node, 'old', 'manual');
create_relation_pipeline($node, 'older', 'after old', source => 'old', options => '{"target_lag": "4 s"}');
$node->safe_psql('postgres', "SELECT ingest.start('old'); SELECT ingest.start('older')");
wait_for($node, "SELECT runs >= 4 FROM ingest._pipeline JOIN ingest._state ON id = pipeline_id WHERE name = 'older'", 't', 'target_lag: runs, though nobody asks', 30);
# The age of the data that a run of "older" replaces: since the start of the run of "old" that it has read.
is(value($node, "WITH u AS (SELECT run, max(finished_at) AS ended FROM ingest.batch_history WHERE pipeline = 'old' GROUP BY run),
	f AS (SELECT run, max(finished_at) AS ended, (SELECT max(u.run) FROM u WHERE u.ended <= f.run) AS read_at
		FROM ingest.batch_history f WHERE pipeline = 'older' GROUP BY run)
	SELECT bool_and(age <= interval '4 s') AND max(age) > interval '2 s' FROM (SELECT ended - lag(read_at) OVER (ORDER BY run) AS age FROM f) a WHERE age IS NOT NULL"),
	't', 'target_lag: never older, and no more often than needed');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('older', options => '{"target_lag": null}')));
sleep 0.5;
my $then = runs('old');
sleep 5;
is(runs('old'), $then, 'target_lag: no more');

$node->stop;
done_testing();
