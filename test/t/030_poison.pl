# Poison: what does not decode or cannot be written is set aside, the rest is written.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
my $node = start_node('poison');
create_server($node, $kafka);

# Messages of one topic for all cases: a is 0 .. 999.
$kafka->create_topic('numbers', 2);
$kafka->send('numbers', map { [ $_ % 2, undef, undef, qq({"a": $_, "t": "text $_", "at": "2026-01-01T00:00:00Z"}) ] } 0 .. 999);
$node->safe_psql('postgres', q(
	CREATE FOREIGN TABLE numbers (a bigint, t text, at timestamptz) SERVER plant
		OPTIONS (topic 'numbers', format 'json')));

# A table, the rows that it refuses (a predicate over a), and the SQLSTATE.
my @cases = (
	[ 'checked', 'CREATE TABLE checked (a bigint CHECK (a % 100 <> 7), t text)', 'a % 100 = 7', '23514' ],
	[ 'required', 'CREATE TABLE required (a bigint, t text, more text NOT NULL GENERATED ALWAYS AS (nullif(t, \'text 77\')) STORED)',
		'a = 77', '23502' ],
	[ 'narrow', 'CREATE TABLE narrow (a smallint CHECK (a IS NOT NULL), t varchar(7))', 'length(\'text \' || a) > 7', '22001' ],
	[ 'domained', 'CREATE DOMAIN odd AS bigint CHECK (VALUE % 10 <> 3); CREATE TABLE domained (a odd, t text)', 'a % 10 = 3', '23514' ],
	[ 'keyed', 'CREATE TABLE keyed (a bigint PRIMARY KEY, t text); INSERT INTO keyed SELECT g, \'before\' FROM generate_series(100, 119) g',
		'a BETWEEN 100 AND 119', '23505' ],
	[ 'referring', 'CREATE TABLE known (a bigint PRIMARY KEY); INSERT INTO known SELECT g FROM generate_series(0, 989) g;
		CREATE TABLE referring (a bigint REFERENCES known, t text)', 'a >= 990', '23503' ],
	[ 'deferred', 'CREATE TABLE known2 (a bigint PRIMARY KEY); INSERT INTO known2 SELECT g FROM generate_series(5, 999) g;
		CREATE TABLE deferred (a bigint REFERENCES known2 DEFERRABLE INITIALLY DEFERRED, t text)', 'a < 5', '23503' ],
	[ 'triggered', 'CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.a IN (13, 666) THEN RAISE EXCEPTION \'no % here\', NEW.a USING ERRCODE = \'P0666\'; END IF; RETURN NEW; END $$;
		CREATE TABLE triggered (a bigint, t text);
		CREATE TRIGGER refuse BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION refuse()', 'a IN (13, 666)', 'P0666' ],
	[ 'indexed', 'CREATE TABLE indexed (a bigint, t text); CREATE INDEX ON indexed ((1 / (a - 500)))', 'a = 500', '22012' ],
	[ 'ranged', 'CREATE TABLE ranged (a bigint, t text) PARTITION BY RANGE (a);
		CREATE TABLE ranged_1 PARTITION OF ranged FOR VALUES FROM (0) TO (500);
		CREATE TABLE ranged_2 PARTITION OF ranged FOR VALUES FROM (500) TO (950)', 'a >= 950', '23514' ],
	[ 'excluded', 'CREATE TABLE excluded (a bigint, t text, EXCLUDE USING btree ((a / 2) WITH =))', 'a % 2 = 1', '23P01' ],
);
foreach my $case (@cases)
{
	my ($name, $ddl, $refused, $sqlstate) = @$case;
	foreach my $lane (qw(auto statement))
	{
		my $pipeline = "${name}_$lane";
		$node->safe_psql('postgres', $lane eq 'auto' ? $ddl : "DELETE FROM $name");
		$node->safe_psql('postgres', "INSERT INTO keyed SELECT g, 'before' FROM generate_series(100, 119) g")
		  if $name eq 'keyed' && $lane ne 'auto';
		$node->safe_psql('postgres', qq(SELECT ingest.create_pipeline('$pipeline', 'numbers', '$name',
			options => '{"lane": "$lane", "error_rate": 1}')));
		drain($node, $pipeline);
		my $bad = value($node, "SELECT count(*) FROM generate_series(0::bigint, 999) a WHERE $refused");
		# Of an exclusion's pair it does not matter which one came first.
		my $which = $name eq 'excluded' ? "count(DISTINCT a / 2)" : "count(*) FILTER (WHERE NOT ($refused))";
		is(value($node, "SELECT $which FROM $name WHERE t LIKE 'text %'"), 1000 - $bad, "$pipeline: the others are written");
		is(value($node, "SELECT count(*), count(DISTINCT payload), min(stage), min(sqlstate), max(sqlstate)
			FROM ingest.dead_letter WHERE pipeline = '$pipeline'"),
			"$bad|$bad|load|$sqlstate|$sqlstate", "$pipeline: dead letters with their SQLSTATE");
		is(value($node, "SELECT count(*) FROM ingest.dead_letter, LATERAL (SELECT (payload_text::jsonb ->> 'a')::bigint AS a) m
			WHERE pipeline = '$pipeline' AND NOT ($refused)"), '0', "$pipeline: those that are refused")
		  unless $name eq 'excluded';
		is(value($node, "SELECT sum(read), sum(written), sum(rejected) FROM ingest.batch_history WHERE pipeline = '$pipeline'"),
			'1000|' . (1000 - $bad) . "|$bad", "$pipeline: the books");
	}
}

# ---- timestamps nobody can have meant

$kafka->create_topic('times', 1);
$kafka->send('times', map { [ 0, undef, undef, qq({"at": "$_"}) ] }
	('2026-01-01T12:00:00Z', '2026-01-02T12:00:00Z', '9999-12-31T00:00:00Z', '1970-01-01T00:00:00Z', 'infinity', '2026-01-03T12:00:00Z'));
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE times_topic (at timestamptz) SERVER plant OPTIONS (topic 'times', format 'json');
	CREATE TABLE times (at timestamptz) PARTITION BY RANGE (at);
	SELECT ingest.manage_partitions('times', every => '1 day', ahead => 0, bounds => '[2025-01-01, 2027-01-01)');
	SELECT ingest.create_pipeline('times', 'times_topic', 'times', options => '{"error_rate": 1}')});
drain($node, 'times');
is(value($node, 'SELECT count(*), count(DISTINCT tableoid) FROM times'), '3|3', 'F08: partitions are made for what is plausible');
is(value($node, "SELECT count(*), min(stage) FROM ingest.dead_letter WHERE pipeline = 'times'"), '3|load',
	'F08: rows outside the bounds are dead letters');

# ---- a batch that is bad from end to end costs a bounded effort

$kafka->create_topic('flood', 1);
$kafka->produce('flood', count => 30000, seed => 1);
create_sensor_topic($node, 'flood_topic', 'flood');
$node->safe_psql('postgres', q(
	CREATE TABLE flood (seq bigint PRIMARY KEY, sensor_id text);
	INSERT INTO flood SELECT g FROM generate_series(0, 29999) g;
	CREATE TABLE walled (seq bigint, sensor_id text);
	CREATE FUNCTION wall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing passes'; END $$;
	CREATE TRIGGER wall BEFORE INSERT ON walled FOR EACH ROW EXECUTE FUNCTION wall()));
foreach my $target (qw(flood walled))
{
	$node->safe_psql('postgres', qq(SELECT ingest.create_pipeline('$target', 'flood_topic', '$target',
		options => '{"error_rate": 1, "batch_rows": 10000}')));
	my $begin = time;
	drain($node, $target);
	my $seconds = time - $begin;
	is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$target'"), '30000', "F18: $target: all are dead letters");
	cmp_ok($seconds, '<', 60, sprintf "$target: in %.1f s", $seconds);
}

# ---- the error budget

$kafka->create_topic('budget', 1);
$kafka->produce('budget', count => 20000, seed => 2, bad => 300);
create_sensor_pipeline($node, 'budget', 'budget',
	options => '{"error_rate": 0.2, "error_window": 2000, "batch_rows": 1000}');
fails_with($node, "CALL ingest.run('budget')", '[0-9A-Z]{5}', qr/reject|error/, 'the error budget, in the foreground');
my $read = value($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'budget'");
cmp_ok($read, '<', 20000, "a flood stops the pipeline after $read rows");
check_accounts($node, 'budget', 'budget', 'what was read until then is committed');
$node->safe_psql('postgres', "SELECT ingest.start('budget')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'budget'", 'paused', 'F06: in background: state paused');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'budget'"), qr/reject|error/, 'and why');
$node->safe_psql('postgres', q(SELECT ingest.stop('budget');
	SELECT ingest.alter_pipeline('budget', options => '{"error_rate": 1, "error_limit": 1000}')));
fails_with($node, "CALL ingest.run('budget')", '[0-9A-Z]{5}', qr/1000/, 'an absolute limit');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('budget', options => '{"error_limit": null}')));
drain($node, 'budget');
is(value($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'budget'"), '20000', 'the operator lets it go on');
check_accounts($node, 'budget', 'budget', 'at the end');

$node->stop('fast');
done_testing();
