# What the tests of dump and upgrade share: a database full of pipelines, and
# what has to be true of it in another place.
package MovedTest;

use strict;
use warnings;

use Exporter 'import';
use IngestTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(make_pipelines contents check_stopped check_goes_on);

my $messages = 4000;

# "reading" runs and has read all there is, "Odd One" was only put somewhere.
sub make_pipelines
{
	my ($node, $kafka, $dir) = @_;
	create_server($node, $kafka);
	$kafka->create_topic('sensors', 2);
	$kafka->produce('sensors', count => $messages, seed => 21, bad => 20, manifest => "$dir/first");
	load_manifest($node, 'produced', "$dir/first");
	create_sensor_pipeline($node, 'reading', 'sensors', options => '{"batch_rows": 500}');
	my $ends = $kafka->ends('sensors');
	$node->safe_psql('postgres', qq(
		CREATE TABLE total (batch_rows bigint, site text);
		SELECT ingest.add_transform('reading', 'total', 'INSERT INTO total SELECT count(*), site FROM batch GROUP BY site');
		SELECT ingest.start('reading');
		CREATE SCHEMA "Odd Schema";
		CREATE TABLE "Odd Schema"."Odd Table" (seq bigint);
		SELECT ingest.create_pipeline('Odd One', 'reading_topic', '"Odd Schema"."Odd Table"', schedule => '1 hour');
		SELECT FROM ingest.seek('Odd One', positions => '{"0": $ends->{0}[1], "1": @{[ $ends->{1}[1] - 7 ]}}')));
	wait_for($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'reading'", $messages, 'all is read');
	check_exactly_once($node, 'reading', 'produced', 'before');
	# A skipped part, which is to be remembered, too.
	$node->safe_psql('postgres', q(
		SELECT ingest.stop('reading');
		SELECT FROM ingest.seek('reading', positions => '{"0": 10}', confirm => true);
		SELECT FROM ingest.seek('reading', 'latest', confirm => true)));
	is(value($node, 'SELECT count(*) > 0 FROM ingest.gap'), 't', 'there is a gap');
	is(value($node, "SELECT count(DISTINCT stage) FROM ingest.dead_letter"), '2', 'there are dead letters of both kinds');
	# As it is left alone: running, as far as its own server is concerned.
	$node->safe_psql('postgres', "SELECT ingest.start('reading')");
	wait_for($node, "SELECT count(*) FROM ingest._workers() WHERE phase = 'waiting'", '1', 'the pipeline runs, all is quiet');
	return;
}

# All that has to be the same in the other place; a list of rows.  The worker
# notes the source's end again and again: that is none of it.
sub contents
{
	my ($node, $database) = @_;
	return [ map {; "-- $_", split /\n/, $node->safe_psql($database // 'postgres', $_) } (
		'SELECT * FROM ingest.pipeline ORDER BY name',
		'SELECT * FROM ingest.rule ORDER BY pipeline, ordinal',
		'SELECT * FROM ingest.transform ORDER BY pipeline, ordinal',
		'SELECT pipeline, shard, position, moved_at FROM ingest.position ORDER BY pipeline, shard',
		'SELECT id, pipeline, shard, "offset", outcome, md5(d::text) FROM ingest.dead_letter d ORDER BY id',
		'SELECT * FROM ingest.gap ORDER BY id',
		'SELECT * FROM ingest.batch_history ORDER BY id',
		'SELECT * FROM ingest._partition_policy ORDER BY target::text',
		'SELECT name, read, written, rejected, dead_letters FROM ingest.pipeline_status ORDER BY name',
		"SELECT inhrelid::regclass, pg_get_expr(relpartbound, oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid
			WHERE inhparent = 'reading'::regclass ORDER BY inhrelid::regclass::text") ];
}

sub check_stopped
{
	my ($node, $database, $name) = @_;
	is($node->safe_psql($database, "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM ingest.pipeline_status"),
		'Odd One stopped, reading stopped', "$name: pipelines are stopped");
	is($node->safe_psql($database, 'SELECT count(*) FROM ingest._workers()'), '0', "$name: no worker runs");
	return;
}

# Started, the pipelines of database postgres go on behind what came along.
sub check_goes_on
{
	my ($node, $kafka, $dir, $name) = @_;
	my $before = value($node, 'SELECT max(id) FROM ingest.batch_history');
	$kafka->produce('sensors', count => 1000, first => $messages, seed => 22, bad => 20, manifest => "$dir/$name");
	load_manifest($node, 'produced', "$dir/$name");
	$node->safe_psql('postgres', "SELECT ingest.start('reading')");
	wait_for($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = 'reading' AND id > $before", '1000',
		"$name: started, it reads what is new");
	$node->safe_psql('postgres', "SELECT ingest.stop('reading')");
	check_exactly_once($node, 'reading', 'produced', $name);
	check_accounts($node, 'reading', 'reading', $name);
	check_lag($node, $kafka, 'reading', 'sensors', $name);
	is(value($node, 'SELECT sum(batch_rows) = (SELECT count(*) FROM reading) FROM total'), 't', "$name: the transform goes on");
	drain($node, 'Odd One');
	is(value($node, 'SELECT count(*) FROM "Odd Schema"."Odd Table"'),
		value($node, "SELECT count(*) FROM produced WHERE kind IN ('good', 'negative') AND (seq >= $messages OR
			partition = 1 AND \"offset\" >= (SELECT max(\"offset\") FROM produced WHERE partition = 1 AND seq < $messages) - 6)"),
		"$name: a position that was only set holds");

	# A dead letter from before is replayed, a new definition is numbered on.
	$node->safe_psql('postgres', "SELECT ingest.drop_rule('reading', 'above_zero')");
	is(value($node, "SELECT count(*) = written FROM ingest.replay('reading', condition => 'stage = ''rule''') r,
			ingest.dead_letter d WHERE d.stage = 'rule' GROUP BY written"), 't', "$name: dead letters are replayed");
	$node->safe_psql('postgres', "SELECT ingest.create_pipeline('another', 'reading_topic', '\"Odd Schema\".\"Odd Table\"')");
	return;
}

1;
