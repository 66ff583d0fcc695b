# Rules, transforms, replay.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
my $node = start_node('rules');
create_server($node, $kafka);

$kafka->create_topic('numbers', 2);
$kafka->send('numbers', map { my $b = $_ % 10 == 9 ? 'null' : $_ % 10; [ $_ % 2, "key-$_", undef, qq({"a": $_, "b": $b}), "n=$_" ] } 0 .. 999);
$node->safe_psql('postgres', q(
	CREATE FOREIGN TABLE numbers (a integer, b integer) SERVER plant OPTIONS (topic 'numbers', format 'json');
	CREATE TABLE forbidden (b integer)));

# Both lanes, and rules by compiled expressions and by one query: the same.
foreach my $lane (qw(direct statement))
{
	foreach my $kind (qw(expression subquery))
	{
		my $name = "${lane}_$kind";
		my $also = $kind eq 'subquery' ? ' AND NOT EXISTS (SELECT FROM forbidden f WHERE f.b = batch.b)' : '';
		$node->safe_psql('postgres', qq(
			CREATE TABLE $name (a integer, b integer);
			SELECT ingest.create_pipeline('$name', 'numbers', '$name', options => '{"lane": "$lane", "error_rate": 1}');
			SELECT ingest.add_rule('$name', 'small', 'a < 900');
			SELECT ingest.add_rule('$name', 'not_one', 'b <> 1$also', on_violation => 'drop');
			SELECT ingest.add_rule('$name', 'not_two', 'b <> 2', on_violation => 'warn', null_ok => true);
			SELECT ingest.add_rule('$name', 'divides', '1 / (a - 500) IS NOT NULL')));
		drain($node, $name);
		# a >= 900: 100 rejected; b = 1 or NULL of the rest: 180 dropped; a = 500: an error.
		is(value($node, "SELECT sum(read), sum(written), sum(rejected), sum(dropped), sum(warned) FROM ingest.batch_history
			WHERE pipeline = '$name'"), '1000|719|101|180|90', "$name: counts");
		is(value($node, "SELECT count(*), count(*) FILTER (WHERE a >= 900 OR b = 1 OR b IS NULL OR a = 500) FROM $name"),
			'719|0', "$name: rows");
		is(value($node, "SELECT string_agg(concat_ws('/', stage, rule, sqlstate, n), ' ' ORDER BY n) FROM (
				SELECT stage, rule, sqlstate, count(*) AS n FROM ingest.dead_letter WHERE pipeline = '$name' GROUP BY 1, 2, 3) x"),
			'rule/divides/22012/1 rule/small/100', "$name: dead letters");
		is(value($node, "SELECT string_agg(name || '=' || violations, ' ' ORDER BY ordinal) FROM ingest.rule WHERE pipeline = '$name'"),
			'small=100 not_one=180 not_two=90 divides=1', "$name: violations are counted");
		is(value($node, "SELECT convert_from(key, 'UTF8'), headers, payload_text FROM ingest.dead_letter
			WHERE pipeline = '$name' AND rule = 'divides'"), 'key-500|[{"n": "500"}]|{"a": 500, "b": 0}',
			"$name: a dead letter has everything");
	}
}

# ---- a rule that stops the pipeline

$node->safe_psql('postgres', q(
	CREATE TABLE halted (a integer, b integer);
	SELECT ingest.create_pipeline('halted', 'numbers', 'halted', options => '{"batch_rows": 100}');
	SELECT ingest.add_rule('halted', 'sane', 'a <> 777', on_violation => 'fail')));
fails_with($node, "CALL ingest.run('halted')", '[0-9A-Z]{5}', qr/sane/, 'a rule with fail');
is(value($node, 'SELECT count(*) FROM halted WHERE a = 777'), '0', 'the row is not written');
$node->safe_psql('postgres', "SELECT ingest.start('halted')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'halted'", 'failed', 'in background: state failed');
$node->safe_psql('postgres', "SELECT ingest.stop('halted'); SELECT ingest.drop_rule('halted', 'sane')");
drain($node, 'halted');
is(value($node, 'SELECT count(*), count(DISTINCT a) FROM halted'), '1000|1000', 'without the rule it goes on, nothing twice');

# ---- definitions are checked when they are given

fails_with($node, "SELECT ingest.add_rule('halted', 'typo', 'aa > 1')", '42703', qr/aa/, 'unknown column in a rule');
fails_with($node, "SELECT ingest.add_rule('halted', 'number', 'a + 1')", '42804', qr/boolean/, 'a rule that is no condition');
fails_with($node, "SELECT ingest.add_rule('halted', 'count', 'count(*) > 1')", '[0-9A-Z]{5}', qr/aggregate/, 'an aggregate in a rule');
fails_with($node, "SELECT ingest.add_rule('halted', 'end', 'a > 1) OR (true')", '42601', qr/syntax/, 'a rule that closes parentheses');
fails_with($node, "SELECT ingest.add_transform('halted', 'typo', 'INSERT INTO nowhere SELECT * FROM batch')", '42P01', qr/nowhere/,
	'unknown table in a transform');

# ---- transforms: exactly the accepted rows, in order, in the same commit

$node->safe_psql('postgres', q(
	CREATE TABLE kept (a integer, b integer);
	CREATE TABLE totals (pipeline text, rows bigint, sum bigint, tid bigint);
	CREATE TABLE seen (a integer);
	CREATE FUNCTION remember() RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO seen SELECT a FROM ingest.batch(NULL::numbers); END $$));
foreach my $lane (qw(direct statement))
{
	$node->safe_psql('postgres', qq(
		TRUNCATE kept, totals, seen;
		SELECT ingest.create_pipeline('kept_$lane', 'numbers', 'kept', options => '{"lane": "$lane", "batch_rows": 300, "error_rate": 1}');
		SELECT ingest.add_rule('kept_$lane', 'even', 'a % 2 = 0');
		SELECT ingest.add_transform('kept_$lane', 'totals',
			'INSERT INTO totals SELECT ''kept'', count(*), sum(a), pg_current_xact_id()::text::bigint FROM batch');
		SELECT ingest.add_transform('kept_$lane', 'remember', 'SELECT remember()')));
	drain($node, "kept_$lane");
	is(value($node, 'SELECT sum(rows), sum(sum) FROM totals'), '500|249500', "transform, $lane lane: the accepted rows");
	is(value($node, 'SELECT count(*), count(DISTINCT a) FROM seen'), '500|500', "transform by a function, $lane lane: the same");
}

$node->safe_psql('postgres', q(
	CREATE TABLE brittle (a integer, b integer);
	SELECT ingest.create_pipeline('brittle', 'numbers', 'brittle', options => '{"batch_rows": 100}');
	SELECT ingest.add_transform('brittle', 'breaks', 'INSERT INTO seen SELECT 1 / (min(a) - 300) FROM batch')));
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('brittle', options => '{\"batch_rows\": 1000000}'); TRUNCATE seen");
$node->safe_psql('postgres', "SELECT ingest.drop_transform('brittle', 'breaks');
	SELECT ingest.add_transform('brittle', 'breaks', 'INSERT INTO seen SELECT 1 / min(a) FROM batch')");
fails_with($node, "CALL ingest.run('brittle')", '22012', qr/division by zero/, 'a transform that fails');
is(value($node, 'SELECT (SELECT count(*) FROM brittle), (SELECT count(*) FROM seen)'), '0|0', 'F14: takes its batch back');
$node->safe_psql('postgres', "SELECT ingest.start('brittle')");
wait_for($node, "SELECT state || ' ' || (concat(last_error, detail, hint) ~ 'breaks') FROM ingest.pipeline_status WHERE name = 'brittle'",
	'failed true', 'in background: state failed, and the transform is named');
$node->safe_psql('postgres', "SELECT ingest.stop('brittle')");

# ---- replay: each dead letter once through today's definition

my $name = 'direct_expression';
is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name' AND outcome = 'pending'"), '101', '101 dead letters');
# The new rule is the last one: a fifth of the 100 is dropped by 'not_one' before.
$node->safe_psql('postgres', "SELECT ingest.drop_rule('$name', 'small'); SELECT ingest.add_rule('$name', 'small', 'a < 950')");
is(value($node, qq(SELECT * FROM ingest.replay('$name', condition => \$\$ rule = 'small' \$\$))), '100|40|40|20|0',
	'replay: written, rejected again, dropped');
is(value($node, "SELECT count(*) FROM $name"), 719 + 40, 'replay: the rows are there');
is(value($node, "SELECT string_agg(outcome || '=' || n, ' ' ORDER BY outcome) FROM (SELECT outcome, count(*) n
	FROM ingest.dead_letter WHERE pipeline = '$name' GROUP BY 1) x"), 'dropped=20 pending=41 rejected again=40 replayed=40',
	'replay: the outcome is kept');
is(value($node, "SELECT count(*) FROM ingest.dead_letter d JOIN ingest.dead_letter o ON o.id = d.replay_of
	WHERE d.pipeline = '$name' AND d.payload = o.payload AND d.shard = o.shard AND d.\"offset\" = o.\"offset\" AND d.key = o.key AND d.headers::text = o.headers::text"),
	'40', 'replay: a new dead letter is the old one, with a new reason');
is(value($node, qq(SELECT * FROM ingest.replay('$name', condition => \$\$ rule = 'nothing' \$\$))), '0|0|0|0|0', 'replay: nothing to do');
$node->safe_psql('postgres', "BEGIN; SELECT ingest.replay('$name'); ROLLBACK");
is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name' AND outcome = 'pending'"), '41',
	'replay: a rollback leaves no trace');

# Two sessions at once: each dead letter once.
$node->safe_psql('postgres', "SELECT ingest.drop_rule('$name', 'small'); SELECT ingest.drop_rule('$name', 'not_one')");
my @handles;
foreach (1 .. 3)
{
	push @handles, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT (ingest.replay('$name')).written" ],
		'>', PostgreSQL::Test::Utils::tempdir . '/out', '2>&1');
}
IPC::Run::finish($_) foreach @handles;
is(value($node, "SELECT count(*), count(DISTINCT a) FROM $name WHERE a >= 900"), '80|80', 'replay by several sessions: nothing twice')
  or diag value($node, "SELECT outcome, rule, count(*) FROM ingest.dead_letter WHERE pipeline = '$name' GROUP BY 1, 2");
is(value($node, "SELECT ingest.discard('$name')"), '1', 'discard: what is left');
is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name' AND outcome = 'pending'"), '0', 'nothing is pending');

# ---- preview says the same as the run, and changes nothing

$node->safe_psql('postgres', q(
	CREATE TABLE viewed (a integer, b integer);
	SELECT ingest.create_pipeline('viewed', 'numbers', 'viewed');
	SELECT ingest.add_rule('viewed', 'small', 'a < 10');
	SELECT ingest.add_rule('viewed', 'not_one', 'b <> 1', on_violation => 'drop')));
is(value($node, "SELECT count(*) FROM ingest.preview('viewed', 40)"), '40', 'preview: as many as asked for');
is(value($node, "SELECT bool_and(CASE WHEN (data ->> 'a')::int >= 10 THEN verdict = 'rejected' AND rule = 'small'
	WHEN (data ->> 'b')::int = 1 OR data ->> 'b' IS NULL THEN verdict = 'dropped' AND rule = 'not_one' ELSE verdict = 'accepted' END)
	FROM ingest.preview('viewed', 40)"), 't', 'preview: verdicts');
is(value($node, "SELECT (SELECT count(*) FROM viewed), (SELECT count(*) FROM ingest.position WHERE pipeline = 'viewed'),
	(SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'viewed'), (SELECT sum(violations) FROM ingest.rule WHERE pipeline = 'viewed')"),
	'0|0|0|0', 'preview: nothing is written');

$node->stop('fast');
done_testing();
