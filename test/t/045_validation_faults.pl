# Rows of failures F: rules, transforms, partitions and targets that misbehave, or
# are changed while a batch is at work.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use MockBroker;
use ProcessTest;

my @topics = qw(rules search bundle slow wait regex version letters flood lonely far vast wide shape late effects words many enums latin);
my $broker = MockBroker->new(map { "$_:1" } @topics);
my $node = start_node('validation', conf => <<'CONF');
fsync = off
restart_after_crash = on
ingest.retry_min = '50ms'
ingest.retry_max = '200ms'
CONF
create_server($node, $broker);

# The source NAME_topic, the table NAME, the pipeline NAME, with a rule or more.
sub define
{
	my ($name, %args) = @_;
	my $topic = $args{topic} // $name;
	my $options = $args{options} // '{}';
	my $table = $args{table} // "CREATE TABLE $name (a bigint, t text, at timestamptz)";
	my $columns = $args{columns} // 'a bigint, t text, at timestamptz';
	$node->safe_psql('postgres', qq(
		CREATE FOREIGN TABLE ${name}_topic ($columns) SERVER plant OPTIONS (topic '$topic', format 'json');
		$table;
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', options => '$options')));
	return;
}

sub send_numbers
{
	my ($topic, $from, $to, $more) = @_;
	$broker->send($topic, map { sprintf '{"a": %d, "t": "text %d", "at": "2026-01-0%dT00:00:00Z"}', $_, $_, 1 + $_ % 9 } $from .. $to);
	return;
}

sub start { $node->safe_psql('postgres', "SELECT ingest.start('$_[0]')"); return }
sub stop { $node->safe_psql('postgres', "SELECT ingest.stop('$_[0]')"); return }

# State, SQLSTATE, and what is there of it: rows, dead letters, positions.
sub situation
{
	my ($name) = @_;
	return value($node, "SELECT (SELECT count(*) FROM $name),
		(SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name'),
		(SELECT sum(position::bigint) FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = '$name')");
}

sub wait_for_state
{
	my ($name, $expected, $label) = @_;
	return wait_for($node, "SELECT concat_ws(' ', state, sqlstate) FROM ingest.pipeline_status WHERE name = '$name'", $expected, $label, 30);
}

# It has failed with that, and goes on trying: whether it waits or tries at the
# moment does not matter.
sub wait_for_retries
{
	my ($name, $sqlstate, $label) = @_;
	return wait_for($node, "SELECT concat_ws(' ', sqlstate, attempts > 0, state IN ('backoff', 'running'))
		FROM ingest.pipeline_status WHERE name = '$name'", "$sqlstate t t", $label, 30);
}

sub wait_for_phase
{
	my ($name, $phase, $label) = @_;
	return wait_for($node, "SELECT w.phase FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id
		WHERE p.name = '$name'", $phase, $label, 30);
}

# The next worker that comes to the point waits there, until nobody waits any more.
my $holds = 0;

sub hold_at
{
	my ($point, $pid) = @_;
	# Only a setting that is not as the one before counts from the start.
	my $skip = '0' x ++$holds;
	$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = '$point:wait:$skip:$pid'");
	$node->reload;
	return;
}

sub wait_held
{
	my ($pid, $label) = @_;
	# An idle one waits, too, but not while it loads.
	return wait_for($node, "SELECT a.wait_event_type || ' ' || w.phase FROM pg_stat_activity a JOIN ingest._workers() w ON w.pid = a.pid
		WHERE a.pid = $pid", 'Extension loading', $label, 30);
}

sub let_go
{
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ingest.fault');
	$node->reload;
	return;
}

# A statement in a session of its own; "finish" it, then read what it said.
sub in_background
{
	my ($sql) = @_;
	my %job = (out => '');
	$job{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', '/dev/null', '>', \$job{out}, '2>&1');
	return \%job;
}

# ---- F01: rules that do not end, or want too much

$node->safe_psql('postgres', q(
	CREATE FUNCTION spins(a bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN LOOP NULL; END LOOP; END $$;
	CREATE FUNCTION sleeps(a bigint) RETURNS boolean LANGUAGE sql AS 'SELECT pg_sleep(3600) IS NOT NULL'));
send_numbers('rules', 0, 9);
foreach my $case (
	[ spinning => 'a % 5 <> 3 OR spins(a)' ],
	[ sleeping => 'a % 5 <> 3 OR sleeps(a)' ],
	[ querying => 'a % 5 <> 3 OR EXISTS (SELECT FROM pg_class x, pg_class y, pg_class z, pg_class u WHERE x.relpages + y.relpages + z.relpages + u.relpages = -9)' ])
{
	my ($name, $rule) = @$case;
	foreach my $lane (qw(direct statement))
	{
		my $table = "${name}_$lane";
		define($table, topic => 'rules', options => '{"error_rate": 1, "statement_timeout": "300 ms", "lock_timeout": "100 ms", "lane": "' . $lane . '"}');
		$node->safe_psql('postgres', qq(
			SELECT ingest.add_rule('$table', 'fine', 'a >= 0');
			SELECT ingest.add_rule('$table', 'runaway', \$\$$rule\$\$)));
		start($table);
		wait_for($node, "SELECT count(*) FROM $table", '8', "F01: $name, $lane lane: the rows that end go on", 60);
		is(situation($table), '8|2|10', "F01: $name, $lane lane: those that do not are rejected");
		is(value($node, "SELECT string_agg(concat_ws(' ', payload_text::jsonb ->> 'a', sqlstate, rule), ', ' ORDER BY id)
			FROM ingest.dead_letter WHERE pipeline = '$table'"), '3 57014 runaway, 8 57014 runaway', "F01: $name, $lane lane: they alone");
		stop($table);
	}
}

# All rows of a message: not each is given its time.
define('bundle', options => '{"error_rate": 1, "statement_timeout": "200 ms", "lock_timeout": "100 ms"}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('bundle', 'runaway', 'spins(a)')));
$broker->send('bundle', '[' . join(',', map { "{\"a\": $_}" } 1 .. 200) . ']');
start('bundle');
wait_for($node, "SELECT sqlstate, count(*) FROM ingest.dead_letter WHERE pipeline = 'bundle' GROUP BY 1", '57014|200',
	'F01: of a message of runaways some are tried', 30);
stop('bundle');

# A batch that takes longer than it may is made smaller.
$node->safe_psql('postgres', q(CREATE FUNCTION dawdles(a bigint) RETURNS boolean LANGUAGE sql AS 'SELECT pg_sleep(0.02) IS NOT NULL'));
define('slow', topic => 'slow', options => '{"error_rate": 1, "statement_timeout": "500 ms", "lock_timeout": "100 ms"}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('slow', 'slow', 'dawdles(a)')));
send_numbers('slow', 0, 99);
drain($node, 'slow');
is(situation('slow'), '100|0|100', 'F01: no row of a batch that is only long is blamed');
define('slow_query', topic => 'slow', options => '{"error_rate": 1, "statement_timeout": "500 ms", "lock_timeout": "100 ms"}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('slow_query', 'slow', 'dawdles(a) AND EXISTS (SELECT FROM pg_class)')));
drain($node, 'slow_query');
is(situation('slow_query'), '100|0|100', 'F01: nor by a query');

# Who waits for a lock has not run away; and memory is nobody's fault.
$node->safe_psql('postgres', q(ALTER ROLE postgres SET temp_file_limit = '10MB'));
foreach my $case (
	[ patient => 'sleeps(a)', '57014', '{"statement_timeout": "300 ms", "lock_timeout": 0}' ],
	[ spilling => '(SELECT count(*) FROM (SELECT g FROM generate_series(1, 1000000000) g ORDER BY 1 DESC) s) > a', '53400', '{"statement_timeout": "60 s"}' ])
{
	# A sort that may not spill any further is the way a query asks for all memory there is.
	my ($name, $rule, $sqlstate, $options) = @$case;
	define($name, topic => 'rules', options => $options);
	$node->safe_psql('postgres', qq(SELECT ingest.add_rule('$name', 'bad', \$\$$rule\$\$)));
	start($name);
	wait_for_retries($name, $sqlstate, "F01: $name: the batch is given up, and tried again later");
	like(situation($name), qr/^0\|0\|0?$/, "F01: $name: nothing is written, no row is blamed");
	stop($name);
	$node->safe_psql('postgres', "SELECT ingest.drop_rule('$name', 'bad')");
	start($name);
	wait_for($node, "SELECT count(*) FROM $name", '10', "F01: $name: without the rule it goes on");
	stop($name);
}
$node->safe_psql('postgres', 'ALTER ROLE postgres RESET temp_file_limit');

# One that may take as long as it likes is ended by its operator.
define('endless', topic => 'rules', options => '{"statement_timeout": 0}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('endless', 'bad', 'spins(a)')));
start('endless');
wait_for_phase('endless', 'loading', 'F01: a rule without a limit runs');
my $pid = worker_pid($node, 'endless');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
wait_for_retries('endless', '57014', 'F01: cancelled, it is an error that passes');
wait_for_phase('endless', 'loading', 'F01: and is tried again');
is(worker_pid($node, 'endless'), $pid, 'F01: by the same worker');
stop('endless');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_gone(3, 'F01: terminated at once', $pid);
is(state_of($node, 'endless'), 'stopped', 'F01: and stopped');

# ---- F02: a regular expression that takes for ever

define('regex', options => '{"error_rate": 1, "statement_timeout": "300 ms", "lock_timeout": "100 ms"}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('regex', 'bad', $$t !~ '^(a+)(a+)(a+)(a+)\1\2\3\4$'$$)));
$broker->send('regex', map { '{"a": ' . $_ . ', "t": "' . ('a' x ($_ == 7 ? 2001 : 21)) . '"}' } 0 .. 9);
start('regex');
wait_for($node, "SELECT concat_ws(' ', payload_text::jsonb ->> 'a', sqlstate) FROM ingest.dead_letter WHERE pipeline = 'regex' AND sqlstate = '57014'",
	'7 57014', 'F02: a regular expression is interrupted, and its row rejected', 60);
stop('regex');

# ---- F03: a volatile rule is asked once a row

define('volatile', topic => 'many', options => '{"error_rate": 1, "batch_rows": 1000}');
send_numbers('many', 0, 9999);
$node->safe_psql('postgres', q(
	CREATE SEQUENCE asked;
	SELECT ingest.add_rule('volatile', 'some', 'nextval(''asked'') > 0 AND random() < 0.5')));
drain($node, 'volatile');
check_accounts($node, 'volatile', 'volatile', 'F03: a volatile rule');
is(value($node, "SELECT (SELECT last_value FROM asked), (SELECT count(*) FROM (SELECT a FROM volatile UNION
	SELECT (payload_text::jsonb ->> 'a')::bigint FROM ingest.dead_letter WHERE pipeline = 'volatile') x)"), '10000|10000',
	'F03: one answer decides about a row');

# ---- F04: a rule changes while a batch is at work

define('version', options => '{"error_rate": 1}');
start('version');
wait_for_phase('version', 'waiting', 'F04: a worker waits for messages');
$pid = worker_pid($node, 'version');
hold_at('before-load', $pid);
send_numbers('version', 0, 99);
wait_held($pid, 'F04: a batch is at work');
my $version = value($node, "SELECT version FROM ingest.pipeline WHERE name = 'version'");
my $change = in_background("SELECT ingest.add_rule('version', 'small', 'a < 50')");
sleep 0.5;
let_go();
$change->{handle}->finish;
# What was fetched together with the first ones when it came to be held is one batch.
wait_for($node, 'SELECT count(*) FROM version', '100', 'F04: its rows see the rules it began with');
send_numbers('version', 50, 149);
wait_for($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'version'", '100', 'F04: the next batch sees the new one');
is(value($node, "SELECT string_agg(DISTINCT (version - $version) || ':' || (written > 0) || ':' || (rejected > 0), ' ') FROM ingest.batch_history WHERE pipeline = 'version'"),
	'0:true:false 1:false:true', 'F04: one version a batch, and it is written down');
is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'version' AND version = $version + 1"), '100',
	'F04: also with each dead letter');
stop('version');

# ---- F05: dead letters cannot be written

$node->safe_psql('postgres', q(
	CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'could not extend file: no room' USING ERRCODE = 'disk_full'; END $$;
	CREATE TRIGGER no_room BEFORE INSERT ON ingest._dead_letter FOR EACH ROW EXECUTE FUNCTION no_room()));
define('letters', options => '{"error_rate": 1}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('letters', 'odd', 'a % 2 = 1')));
send_numbers('letters', 0, 99);
start('letters');
wait_for_retries('letters', '53100', 'F05: no room for dead letters');
wait_for($node, "SELECT attempts > 2 FROM ingest.pipeline_status WHERE name = 'letters'", 't', 'F05: tried again, less and less often', 30);
like(situation('letters'), qr/^0\|0\|0?$/, 'F05: the whole batch is taken back, and the position');
$node->safe_psql('postgres', 'DROP TRIGGER no_room ON ingest._dead_letter');
wait_for($node, 'SELECT count(*), count(DISTINCT a) FROM letters', '50|50', 'F05: with room it goes on by itself');
is(situation('letters'), '50|50|100', 'F05: nothing is missing, nothing is twice');
stop('letters');

# ---- F06: a flood of rejects

define('flood', options => '{"error_rate": 0.5, "error_window": 1000, "batch_rows": 500}');
$node->safe_psql('postgres', q(SELECT ingest.add_rule('flood', 'none', 'a < 0')));
send_numbers('flood', 0, 9999);
start('flood');
wait_for_state('flood', 'paused 53400', 'F06: a flood of rejects pauses the pipeline');
cmp_ok(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'flood'"), '<=', 2000, 'F06: before it has filled the disk');
check_accounts($node, 'flood', 'flood', 'F06: what was read until then is committed');
stop('flood');

# ---- F07, F08, F19: partitions

foreach my $lane (qw(direct statement))
{
	define("lonely_$lane", topic => 'lonely', options => qq({"error_rate": 1, "lane": "$lane"}), table => qq(
		CREATE TABLE lonely_$lane (a bigint, at timestamptz) PARTITION BY RANGE (at);
		CREATE TABLE lonely_${lane}_1 PARTITION OF lonely_$lane FOR VALUES FROM ('2026-01-01 00:00Z') TO ('2026-01-04 00:00Z')));
}
send_numbers('lonely', 0, 89);
foreach my $lane (qw(direct statement))
{
	drain($node, "lonely_$lane");
	is(situation("lonely_$lane"), '30|60|90', "F07: a row without a partition becomes a dead letter, $lane lane");
}

define('far', options => '{"error_rate": 1, "batch_rows": 2000}', table => q(
	CREATE TABLE far (a bigint, at timestamptz) PARTITION BY RANGE (at);
	SELECT ingest.manage_partitions('far', every => '1 hour', ahead => 0)));
# A day of each month of a thousand years, one after the other.
$broker->send('far', map { sprintf '{"a": %d, "at": "%04d-%02d-05T00:00:00Z"}', $_, 1500 + $_ / 2, 1 + $_ % 12 } 0 .. 1999);
drain($node, 'far');
is(value($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'far'"), '2000', 'F08: absurd timestamps: all is read');
check_accounts($node, 'far', 'far', 'F08: absurd timestamps');
cmp_ok(value($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'far'::regclass"), '<', 100,
	'F08: partitions are made only for those within the bounds');
is(value($node, "SELECT string_agg(DISTINCT sqlstate, ' ') FROM ingest.dead_letter WHERE pipeline = 'far'"), '22008', 'F08: the others are dead letters');


# Many partitions in one batch.  Making them takes time that grows with the square
# of their number; somebody who holds what locks there are makes 700 do for thousands.
define('wide', options => '{"batch_rows": 2000}', table => q(
	CREATE TABLE wide (a bigint) PARTITION BY RANGE (a);
	DO $$ BEGIN FOR i IN 0 .. 699 LOOP
		EXECUTE format('CREATE TABLE wide_%s PARTITION OF wide FOR VALUES FROM (%s) TO (%s)', i, i * 10, i * 10 + 10);
	END LOOP; END $$));
my $hoarder = $node->background_psql('postgres', on_error_stop => 0);
$hoarder->query('SELECT pg_advisory_lock(g) FROM generate_series(1, 1000000) g');
$hoarder->query('SELECT count(pg_advisory_unlock(g)) FROM generate_series(1, 300) g');
$broker->send('wide', map { sprintf '{"a": %d}', ($_ * 10) % 7000 } 0 .. 1999);
start('wide');
wait_for_retries('wide', '53200', 'F19: partitions beyond the room for locks are an error that passes');
like(value($node, "SELECT hint FROM ingest.pipeline_status WHERE name = 'wide'"), qr/max_locks_per_transaction/, 'F19: which says what to do');
is(value($node, 'SELECT count(*) FROM wide_7'), '0', 'F19: nothing is written');
$hoarder->query('SELECT pg_advisory_unlock_all()');
wait_for($node, 'SELECT count(*), count(DISTINCT tableoid) FROM wide', '2000|700', 'F19: with room for locks it goes on');
is(value($node, "SELECT max(read) FROM ingest.batch_history WHERE pipeline = 'wide'"), '2000', 'F19: all partitions in one batch');
$hoarder->quit;
stop('wide');

define('vast', options => '{"error_rate": 1, "batch_rows": 5000}', table => q(
	CREATE TABLE vast (a bigint, at timestamptz) PARTITION BY RANGE (at);
	SELECT ingest.manage_partitions('vast', every => '1 hour', ahead => 0)));
$broker->send('vast', map { sprintf '{"a": %d, "at": "2026-%02d-%02dT%02d:00:00Z"}', $_, 1 + $_ / 672, 1 + $_ / 24 % 28, $_ % 24 } 0 .. 999);
drain($node, 'vast');
is(situation('vast'), '1000|0|1000', 'F19: more new partitions than one batch makes are made by several');
is(value($node, "SELECT string_agg(read::text, ' ' ORDER BY id) FROM ingest.batch_history WHERE pipeline = 'vast'"), '400 400 200',
	'F19: each of as many rows as there is room for');

# ---- F10, F11: the target changes while a batch is at work

define('shape', options => '{"error_rate": 1}', table => q(
	CREATE TABLE shape (a bigint, t text, at timestamptz) PARTITION BY RANGE (at);
	CREATE TABLE shape_1 PARTITION OF shape FOR VALUES FROM ('2026-01-01 00:00Z') TO ('2026-01-05 00:00Z');
	CREATE TABLE shape_2 PARTITION OF shape FOR VALUES FROM ('2026-01-05 00:00Z') TO ('2026-02-01 00:00Z')));
start('shape');
wait_for_phase('shape', 'waiting', 'F10: a worker waits for messages');
$pid = worker_pid($node, 'shape');

# The change is asked for when half of a batch's rows are decoded; %s before: the sum of rows.
my $sent = 0;
sub change_during_batch
{
	my ($label, $sql) = @_;
	hold_at('before-commit', $pid);
	send_numbers('shape', $sent, $sent + 89);
	$sent += 90;
	wait_held($pid, "$label: a batch is at work");
	my $job = in_background($sql);
	wait_for($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
		AND wait_event_type = 'Lock'", '1', "$label: it waits for the batch", 20);
	let_go();
	$job->{handle}->finish;
	is($job->{out}, '', "$label: then it is done");
	return;
}
my $everything = "SELECT (SELECT count(*) FROM shape) + (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'shape')";
change_during_batch('F10: a partition is dropped', 'DROP TABLE shape_1');
is(value($node, "$everything + 40"), $sent, 'F10: with the rows that were in it');
send_numbers('shape', $sent, $sent + 89);
$sent += 90;
wait_for($node, "$everything + 40", $sent, 'F10: rows that have no partition any more are dead letters');
$node->safe_psql('postgres', q(CREATE TABLE shape_1 PARTITION OF shape FOR VALUES FROM ('2026-01-01 00:00Z') TO ('2026-01-05 00:00Z')));
change_during_batch('F10: a partition is detached', 'ALTER TABLE shape DETACH PARTITION shape_1');
$node->safe_psql('postgres', q(ALTER TABLE shape ATTACH PARTITION shape_1 FOR VALUES FROM ('2026-01-01 00:00Z') TO ('2026-01-05 00:00Z')));
wait_for($node, "$everything + 40", $sent, 'F10: nothing is lost');
change_during_batch('F10: a partition is detached concurrently', 'ALTER TABLE shape DETACH PARTITION shape_1 CONCURRENTLY');
$node->safe_psql('postgres', q(ALTER TABLE shape ATTACH PARTITION shape_1 FOR VALUES FROM ('2026-01-01 00:00Z') TO ('2026-01-05 00:00Z')));
send_numbers('shape', $sent, $sent + 89);
$sent += 90;
wait_for($node, "$everything + 40", $sent, 'F10: nothing is lost by that either');

change_during_batch('F11: a column gets another type', 'ALTER TABLE shape ALTER a TYPE integer');
change_during_batch('F11: a column is dropped', 'ALTER TABLE shape DROP t');
change_during_batch('F11: a column is added', 'ALTER TABLE shape ADD t text DEFAULT \'new\', ADD more integer DEFAULT 7');
send_numbers('shape', $sent, $sent + 89);
$sent += 90;
wait_for($node, "$everything + 40", $sent, 'F11: the worker follows');
is(value($node, "SELECT count(*) FROM shape WHERE more = 7 AND t LIKE 'text %' AND a >= $sent - 90"), '90', 'F11: rows are of the table as it is');
is(worker_pid($node, 'shape'), $pid, 'F11: all by one worker');
change_during_batch('F11: a column gets a type that does not fit', 'ALTER TABLE shape ALTER a TYPE boolean USING true');
send_numbers('shape', $sent, $sent + 89);
wait_for_state('shape', 'broken 42804', 'F11: then the definition no longer fits');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'shape'"), qr/"a"/, 'F11: and says which column');
$node->safe_psql('postgres', 'ALTER TABLE shape ALTER a TYPE bigint USING 1');
start('shape');
$sent += 90;
wait_for($node, "$everything + 40", $sent, 'F11: repaired, it goes on');
stop('shape');

# ---- F12: what fails only at the commit

define('late', options => '{"error_rate": 1}', table => q(
	CREATE TABLE late (a bigint UNIQUE DEFERRABLE INITIALLY DEFERRED, t text);
	CREATE TABLE late_note (a bigint);
	CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.a % 10 = 3 THEN RAISE EXCEPTION 'too late for %', NEW.a; END IF; RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
	CREATE CONSTRAINT TRIGGER note AFTER INSERT ON late_note DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()));
$node->safe_psql('postgres', 'INSERT INTO late SELECT g FROM generate_series(50, 54) g WHERE g % 10 <> 3');
send_numbers('late', 0, 99);
drain($node, 'late');
is(situation('late'), '90|14|100', 'F12: deferred constraints and triggers refuse the rows they are about');
is(value($node, "SELECT string_agg(DISTINCT sqlstate, ' ' ORDER BY sqlstate) FROM ingest.dead_letter WHERE pipeline = 'late'"), '23505 P0001',
	'F12: each with its reason');
# A transform's rows are of no single message.
$node->safe_psql('postgres', q(SELECT ingest.add_transform('late', 'note', 'INSERT INTO late_note SELECT a FROM batch UNION ALL SELECT 3')));
send_numbers('late', 100, 109);
start('late');
wait_for_state('late', 'failed P0001', 'F12: a deferred trigger that fails after all rows were written');
is(situation('late'), '90|14|100', 'F12: takes the batch and the position back');
stop('late');

# ---- F14, F15: transforms with effects

$node->safe_psql('postgres', q(
	CREATE ROLE owner LOGIN; CREATE ROLE other;
	GRANT other TO owner; GRANT ALL ON SCHEMA public TO owner;
	GRANT USAGE ON SCHEMA ingest TO owner; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO owner;
	GRANT USAGE ON FOREIGN SERVER plant TO owner;
	SET SESSION AUTHORIZATION owner;
	CREATE FOREIGN TABLE effects_topic (a bigint, t text) SERVER plant OPTIONS (topic 'effects', format 'json');
	CREATE TABLE effects (a bigint, t text);
	CREATE TABLE total (n bigint);
	SELECT ingest.create_pipeline('effects', 'effects_topic', 'effects');
	SELECT ingest.add_transform('effects', 'total', 'INSERT INTO total SELECT count(*) FROM batch')));
my $produced = 0;
sub feed_effects
{
	send_numbers('effects', $produced, $produced + 49);
	$produced += 50;
	return;
}
sub effects_arrive
{
	my ($label) = @_;
	return wait_for($node, 'SELECT count(*), count(DISTINCT a), (SELECT sum(n) FROM total) FROM effects', "$produced|$produced|$produced", $label, 20);
}
start('effects');
feed_effects();
effects_arrive('F14: a transform');
foreach my $point (qw(before-position before-commit after-commit))
{
	$pid = worker_pid($node, 'effects');
	$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = '$point:kill:0:$pid'");
	$node->reload;
	feed_effects();
	wait_gone(10, "F14: killed at $point", $pid);
	effects_arrive('F14: its effect is there once, as the rows are');
}
let_go();

# What a session keeps is the owner's to keep; the next batch is not the worse for it.
$node->safe_psql('postgres', q(
	SET SESSION AUTHORIZATION owner;
	CREATE PROCEDURE commits() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
	CREATE FUNCTION subcommits() RETURNS void LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
	CREATE FUNCTION listens() RETURNS void LANGUAGE plpgsql AS 'BEGIN LISTEN something; END';
	CREATE FUNCTION temps() RETURNS void LANGUAGE plpgsql AS
		'BEGIN CREATE TEMP TABLE effects AS SELECT 1 AS a; CREATE TEMP TABLE total (n bigint); END';
	CREATE FUNCTION becomes() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET ROLE other; END';
	CREATE FUNCTION settles() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		SET search_path = pg_temp; SET statement_timeout = 1; SET lock_timeout = 1;
		SET default_transaction_isolation = serializable; SET DateStyle = 'SQL, DMY'; SET bytea_output = 'escape'; END $$;
	CREATE FUNCTION locks() RETURNS void LANGUAGE plpgsql AS
		'BEGIN LOCK TABLE effects, total IN ACCESS EXCLUSIVE MODE; PERFORM pg_advisory_lock(1); END'));
foreach my $case (
	[ 'commits' => 'CALL commits()', '2D000' ],
	[ 'commits in a function' => 'SELECT subcommits()', '2D000' ],
	[ 'listens' => 'SELECT listens()', '0A000' ],
	[ 'a set role' => 'SELECT becomes()', '' ],
	[ 'settings' => 'SELECT settles()', '' ],
	[ 'locks' => 'SELECT locks()', '' ],
	[ 'temporary tables' => 'SELECT temps()', '' ])
{
	my ($name, $statement, $sqlstate) = @$case;
	$node->safe_psql('postgres', "SET SESSION AUTHORIZATION owner; SELECT ingest.add_transform('effects', 'it', '$statement')");
	feed_effects();
	if ($sqlstate)
	{
		wait_for_state('effects', "failed $sqlstate", "F15: $name: is refused");
		is(value($node, 'SELECT count(*) FROM effects'), $produced - 50, "F15: $name: nothing of the batch stays");
	}
	else
	{
		effects_arrive("F15: $name: the batch is committed");
	}
	$node->safe_psql('postgres', "SET SESSION AUTHORIZATION owner; SELECT ingest.drop_transform('effects', 'it')");
	start('effects') if $sqlstate;
	feed_effects();
	effects_arrive("F15: $name: the next batch is as any other");
	is(value($node, "SELECT concat_ws(' ', state, sqlstate) FROM ingest.pipeline_status WHERE name = 'effects'"), 'running', "F15: $name: and all is well");
}
stop('effects');

# ---- F17: a label is added to an enum, a value to a domain

$node->safe_psql('postgres', q(
	CREATE TYPE colour AS ENUM ('red', 'green');
	CREATE DOMAIN small AS bigint CONSTRAINT small CHECK (VALUE < 10)));
define('enums', options => '{"error_rate": 1}', columns => 'a bigint, e colour', table => q(
	CREATE TABLE enums (a small, e colour, i bigint GENERATED BY DEFAULT AS IDENTITY, g bigint GENERATED ALWAYS AS (a * 2) STORED)));
start('enums');
my $enums = "SELECT (SELECT string_agg(concat_ws(' ', a, e, g), ', ' ORDER BY a) FROM enums), (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'enums')";
$broker->send('enums', '{"a": 1, "e": "red"}', '{"a": 2, "e": "blue"}', '{"a": 11, "e": "red"}');
wait_for($node, $enums, '1 red 2|2', 'F17: a label that is not there, a value that a domain refuses');
$node->safe_psql('postgres', "ALTER TYPE colour ADD VALUE 'blue'; ALTER DOMAIN small DROP CONSTRAINT small");
$broker->send('enums', '{"a": 3, "e": "blue"}', '{"a": 12, "e": "red"}');
wait_for($node, $enums, '1 red 2, 3 blue 6, 12 red 24|2', 'F17: a worker sees new labels and constraints');
stop('enums');

# Input functions that speak of syntax and of missing relations.
define('search', options => '{"error_rate": 1}', columns => 'a bigint, v tsvector, r regclass, o boolean', table => q(
	CREATE TABLE search (a bigint, v tsvector, r regclass, o boolean)));
$broker->send('search', '{"a": 1, "v": "fat cat"}', '{"a": 2, "v": "\'"}', '{"a": 3, "r": "pg_class"}', '{"a": 4, "r": "no_such"}',
	 '{"a": 6, "o": "  "}', '{"a": 7, "o": " f"}');
drain($node, 'search');
is(value($node, "SELECT string_agg(a::text, ' ' ORDER BY a), (SELECT string_agg(concat_ws(' ', payload_text::jsonb ->> 'a', sqlstate), ', ' ORDER BY id)
	FROM ingest.dead_letter WHERE pipeline = 'search') FROM search"), '1 3 7|2 42601, 4 42P01, 6 22P02',
	'F17: what an input function refuses is the data\'s fault, whatever it says');

# ---- F18: 10,000 bad rows

define('burnt', topic => 'many', options => '{"error_rate": 1, "batch_rows": 10000, "lane": "statement"}', table => q(
	CREATE TABLE burnt (a bigint, t text);
	CREATE FUNCTION burns() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.a % 100 <> 0 THEN RAISE EXCEPTION 'not %', NEW.a; END IF; RETURN NEW; END $$;
	CREATE TRIGGER burns BEFORE INSERT ON burnt FOR EACH ROW EXECUTE FUNCTION burns()));
my $xid = value($node, 'SELECT pg_current_xact_id()');
my $slru = "SELECT blks_zeroed + blks_read + blks_written FROM pg_stat_slru WHERE name = 'Subtrans'";
my $before = value($node, $slru);
drain($node, 'burnt');
is(value($node, "SELECT count(*) FROM burnt") . '|' . value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'burnt'"), '100|9900',
	'F18: one row in a hundred is good');
my $xids = value($node, 'SELECT pg_current_xact_id()') - $xid;
my $batches = value($node, "SELECT count(*) FROM ingest.batch_history WHERE pipeline = 'burnt'");
diag "F18: $xids transaction ids, $batches batches";
cmp_ok($xids, '<', 10000, 'F18: bad rows do not burn a transaction id each');
cmp_ok(value($node, $slru) - $before, '<', 20, 'F18: nor pages of subtransactions');

# ---- F20: databases of other encodings

foreach my $encoding (qw(LATIN1 SQL_ASCII))
{
	my $db = lc "db_$encoding";
	$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION ingest; CREATE SERVER plant FOREIGN DATA WRAPPER ingest_kafka
		OPTIONS (brokers \'' . $broker->brokers . '\')');
	$node->safe_psql($db, q(CREATE TABLE raw (value bytea)));
	my ($rc, $out, $err) = $node->psql($db, q(
		CREATE FOREIGN TABLE words_topic (a bigint, t text) SERVER plant OPTIONS (topic 'words', format 'json');
		CREATE TABLE words (a bigint, t text);
		SELECT ingest.create_pipeline('words', 'words_topic', 'words')), on_error_stop => 1);
	isnt($rc, 0, "F20: $encoding: a format of text is refused");
	like($err, qr/encoding UTF8/, "F20: $encoding: which says why");
}
$broker->send('words', '{"a": 1, "t": "z\u00e4hler"}', "{\"a\": 2, \"t\": \"\xc3\xa4\xe2\x82\xac\"}", "\xff\xfe");
foreach my $db (qw(db_latin1 db_sql_ascii))
{
	$node->safe_psql($db, q(
		CREATE FOREIGN TABLE raw_topic (value bytea) SERVER plant OPTIONS (topic 'words', format 'raw');
		SELECT ingest.create_pipeline('raw', 'raw_topic', 'raw'); CALL ingest.run('raw')));
	is($node->safe_psql($db, q(SELECT string_agg(length(value)::text, ' ' ORDER BY length(value)) FROM raw)), '2 22 28', "F20: $db: bytes are taken as they are");
}

is(count_log($node, qr/PANIC|TRAP:/), 0, 'nothing worse in the log');
$node->stop('fast');
done_testing();
