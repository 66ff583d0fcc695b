# The main path with a real Kafka: what a topic can hold, and what can happen to it.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
my $node = start_node('path');
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $kafka);

# ---- sensor messages, some of them bad, some without a value

$kafka->create_topic('sensors', 4);
$kafka->produce('sensors', count => 20000, seed => 1, bad => 20, tombstones => 5, keys => 50,
	headers => 1, manifest => "$dir/sensors");
load_manifest($node, 'sensors_manifest', "$dir/sensors");
create_sensor_pipeline($node, 'sensors', 'sensors',
	topic_options => { group => 'dashboards' }, options => '{"batch_rows": 3000}');

is(value($node, 'SELECT count(*) FROM sensors_topic WHERE seq < 100'),
	value($node, "SELECT count(*) FROM sensors_manifest WHERE seq < 100 AND kind IN ('good', 'negative')"),
	'a peek shows what decodes');
is(value($node, 'SELECT count(*) FROM ingest._position'), '0', 'a peek leaves no position');
# The broker makes the topic of the groups when the first group is asked for, and
# has no answer until that is done.
foreach (1 .. 150)
{
	last if %{ $kafka->committed('sensors', 'dashboards', 4) };
	sleep 0.2;
}
drain($node, 'sensors');
check_exactly_once($node, 'sensors', 'sensors_manifest', 'sensors');
check_accounts($node, 'sensors', 'sensors', 'sensors');
check_lag($node, $kafka, 'sensors', 'sensors', 'sensors');
is(value($node, "SELECT sum(skipped) FROM ingest.batch_history WHERE pipeline = 'sensors'"),
	value($node, "SELECT count(*) FROM sensors_manifest WHERE kind = 'tombstone'"), 'tombstones are skipped');
is(value($node, "SELECT count(*) > 5 FROM ingest.batch_history WHERE pipeline = 'sensors'"),
	't', 'a commit a batch');
is(value($node, q(SELECT string_agg(DISTINCT coalesce(rule, stage), ',' ORDER BY coalesce(rule, stage))
	FROM ingest.dead_letter)), 'above_zero,decode', 'dead letters say why');
my $ends = $kafka->ends('sensors');
my $told;
foreach (1 .. 100)
{
	$told = $kafka->committed('sensors', 'dashboards', 4);
	last if !grep { ($told->{$_} // -1) != $ends->{$_}[1] } 0 .. 3;
	sleep 0.2;
}
is_deeply($told, { map { $_ => $ends->{$_}[1] } 0 .. 3 }, 'the group was told');

drain($node, 'sensors');
check_exactly_once($node, 'sensors', 'sensors_manifest', 'C02: a second run reads nothing twice');

# ---- metadata columns

$kafka->create_topic('meta', 2);
$kafka->send('meta',
	[ 0, 'k1', 1700000000123, '{"a": 1}', 'trace=abc', 'empty=\N', 'trace=def' ],
	[ 1, undef, undef, '{"a": 2}' ],
	[ 1, "\xff\x00", 1700000001000, '{"a": 3}', "bytes=\xfe" ]);
$node->safe_psql('postgres', q(
	CREATE FOREIGN TABLE meta_topic (
		a integer,
		topic text OPTIONS (metadata 'topic'),
		partition integer OPTIONS (metadata 'partition'),
		at bigint OPTIONS (metadata 'offset'),
		stamp timestamptz OPTIONS (metadata 'timestamp'),
		key bytea OPTIONS (metadata 'key'),
		key_text text OPTIONS (metadata 'key_text'),
		headers jsonb OPTIONS (metadata 'headers')
	) SERVER plant OPTIONS (topic 'meta', format 'json');
	CREATE TABLE meta (LIKE meta_topic);
	SELECT ingest.create_pipeline('meta', source => 'meta_topic', target => 'meta')));
drain($node, 'meta');
is(value($node, 'SELECT a, topic, partition, at, stamp, key, key_text FROM meta WHERE a <> 2 ORDER BY a'),
	"1|meta|0|0|2023-11-14 22:13:20.123+00|\\x6b31|k1\n3|meta|1|1|2023-11-14 22:13:21+00|\\xff00|",
	'C14: topic, partition, offset, timestamp, key');
is(value($node, 'SELECT headers FROM meta WHERE a = 1'),
	'[{"trace": "abc"}, {"empty": null}, {"trace": "def"}]', 'headers in their order');
is(value($node, 'SELECT key IS NULL, key_text IS NULL, headers IS NULL OR headers = \'[]\', abs(extract(epoch FROM now() - stamp)) < 300
	FROM meta WHERE a = 2'), 't|t|t|t', 'no key, no headers, the time of the broker');

# ---- what a message without a value becomes

foreach my $case ([ 'skip', 0, 0 ], [ 'reject', 0, 2 ], [ 'row', 2, 0 ])
{
	my ($policy, $rows, $letters) = @$case;
	my $name = "null_$policy";
	$kafka->create_topic($name, 1);
	$kafka->send($name, [ 0, 'a', undef, undef ], [ 0, 'b', undef, '{"a": 1}' ], [ 0, undef, undef, undef ]);
	$node->safe_psql('postgres', qq(
		CREATE FOREIGN TABLE ${name}_topic (a integer, at bigint OPTIONS (metadata 'offset'))
			SERVER plant OPTIONS (topic '$name', format 'json');
		CREATE TABLE $name (a integer, at bigint);
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', options => '{"on_null": "$policy"}')));
	drain($node, $name);
	is(value($node, "SELECT count(*) FILTER (WHERE a = 1), count(*) FILTER (WHERE a IS NULL AND at IN (0, 2)) FROM $name"),
		"1|$rows", "C13: on_null $policy: rows");
	is(value($node, "SELECT count(*), count(*) FILTER (WHERE payload IS NULL) FROM ingest.dead_letter WHERE pipeline = '$name'"),
		"$letters|$letters", "C13: on_null $policy: dead letters");
	check_accounts($node, $name, $name, "on_null $policy");
}

# An empty value is a value, and no JSON.
$kafka->create_topic('nothing', 1);
$kafka->send('nothing', [ 0, undef, undef, '' ], [ 0, undef, undef, ' ' ], [ 0, undef, undef, '[{"a": 1}, 7, {"a": 2}]' ]);
$node->safe_psql('postgres', q(
	CREATE FOREIGN TABLE nothing_topic (a integer) SERVER plant OPTIONS (topic 'nothing', format 'json');
	CREATE TABLE nothing (a integer);
	SELECT ingest.create_pipeline('nothing', 'nothing_topic', 'nothing')));
drain($node, 'nothing');
is(value($node, 'SELECT array_agg(a ORDER BY a) FROM nothing'), '{1,2}', 'good rows of an array are written');
is(value($node, q(SELECT string_agg("offset" || '/' || row_number, ' ' ORDER BY id) FROM ingest.dead_letter
	WHERE pipeline = 'nothing')), '0/0 1/0 2/2', 'C16: an empty value and a bad row of an array are dead letters');

# ---- transactions: what was aborted never was, control records are no lag

$kafka->create_topic('booked', 3);
$kafka->produce('booked', count => 9000, seed => 2, transaction => 500, abort => 3, manifest => "$dir/booked");
load_manifest($node, 'booked_manifest', "$dir/booked");
create_sensor_pipeline($node, 'booked', 'booked', options => '{"batch_rows": 1000}');
drain($node, 'booked');
check_exactly_once($node, 'booked', 'booked_manifest', 'transactions');
check_lag($node, $kafka, 'booked', 'booked', 'transactions');
is(value($node, 'SELECT count(*) FROM booked'), '6000', 'C10: aborted messages are not there');

# All of a topic aborted: nothing to write, and yet the position moves.
$kafka->create_topic('aborted', 1);
$kafka->produce('aborted', count => 1000, seed => 3, transaction => 500, abort => 1);
create_sensor_pipeline($node, 'aborted', 'aborted');
drain($node, 'aborted');
is(value($node, 'SELECT count(*) FROM aborted'), '0', 'only aborted messages: no rows');
check_lag($node, $kafka, 'aborted', 'aborted', 'C09: only aborted messages and control records');

# ---- compaction: holes in the offsets are no gaps

$kafka->create_topic('compact', 1, 'cleanup.policy' => 'compact', 'segment.ms' => 200,
	'min.cleanable.dirty.ratio' => '0.01', 'max.compaction.lag.ms' => 500, 'segment.bytes' => 1048576);
$kafka->produce('compact', count => 6000, seed => 4, keys => 7, first => $_ * 6000) foreach 0 .. 1;
sleep 1;
$kafka->produce('compact', count => 10, seed => 4, keys => 7, first => 12000);
my $left = 12010;
foreach (1 .. 150)
{
	my ($out) = run_command([ 'kcat', '-C', '-q', '-e', '-b', $kafka->brokers, '-t', 'compact',
		'-o', 'beginning', '-f', '%o\n' ]);
	$left = () = $out =~ /^\d+$/mg;
	last if $left < 6000;
	sleep 0.2;
}
cmp_ok($left, '<', 6000, "compaction left $left messages of 12010");
create_sensor_pipeline($node, 'compact', 'compact');
drain($node, 'compact');
cmp_ok(value($node, 'SELECT count(*) FROM compact'), '<=', $left, 'compaction: not more rows than messages are left');
is(value($node, 'SELECT count(DISTINCT seq) FROM compact WHERE seq >= 12000'), '10', 'compaction: the last ones are there');
is(value($node, 'SELECT count(*) FROM ingest.gap'), '0', 'C12: compaction: no gap');
check_lag($node, $kafka, 'compact', 'compact', 'C12: compaction');

# ---- partitions added while it runs are read from their beginning

$kafka->create_topic('growing', 1);
$kafka->produce('growing', count => 1000, seed => 5, manifest => "$dir/growing1");
create_sensor_pipeline($node, 'growing', 'growing', options => '{"start_at": "latest"}');
$node->safe_psql('postgres', "SELECT ingest.seek('growing', 'earliest', confirm => true); SELECT ingest.start('growing')");
wait_for($node, 'SELECT count(*) FROM growing', '1000', 'running in background');
$kafka->add_partitions('growing', 3);
sleep 0.5;
$kafka->produce('growing', count => 3000, seed => 5, first => 1000, partitions => 3, manifest => "$dir/growing2");
wait_for($node, 'SELECT count(*) FROM growing', '4000', 'C08: messages of new partitions arrive');
load_manifest($node, 'growing_manifest', "$dir/growing1", "$dir/growing2");
check_exactly_once($node, 'growing', 'growing_manifest', 'partitions added');
$node->safe_psql('postgres', "SELECT ingest.stop('growing')");

# ---- start positions

# Old messages, which the broker would remove at its next look.
$kafka->create_topic('start', 2, 'retention.ms' => -1);
$kafka->send('start', map { [ $_ % 2, undef, 1700000000000 + $_ * 1000, qq({"a": $_}) ] } 0 .. 99);
foreach my $case ([ 'earliest', 100 ], [ 'latest', 0 ], [ '2023-11-14 22:14:10+00', 50 ],
	[ '2001-01-01', 100 ], [ '2100-01-01', 0 ])
{
	my ($start, $expected) = @$case;
	my ($name) = 'start_' . ($start =~ s/\W/_/gr);
	$node->safe_psql('postgres', qq(
		CREATE FOREIGN TABLE ${name}_topic (a integer) SERVER plant OPTIONS (topic 'start', format 'json');
		CREATE TABLE $name (a integer);
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', options => '{"start_at": "$start"}')));
	drain($node, $name);
	is(value($node, "SELECT count(*) FROM $name"), $expected, "start_at $start: what was there");
	is(value($node, "SELECT min(a) FROM $name"), $expected == 50 ? 50 : $expected ? 0 : '', "start_at $start: the first");
}
$kafka->send('start', [ 1, undef, undef, '{"a": 100}' ]);
drain($node, 'start_latest');
is(value($node, 'SELECT a FROM start_latest'), '100', 'start_at latest: what came later');

# ---- the topic is missing

create_sensor_pipeline($node, 'missing', 'missing');
fails_with($node, "CALL ingest.run('missing')", '[0-9A-Z]{5}', qr/missing/, 'C06: a missing topic, in the foreground');
fails_with($node, "SELECT * FROM ingest.preview('missing')", '[0-9A-Z]{5}', qr/missing/, 'a missing topic, in the preview');
$node->safe_psql('postgres', "SELECT ingest.start('missing')");
wait_for($node, "SELECT last_error ~ 'missing' AND state <> 'running' FROM ingest.pipeline_status WHERE name = 'missing'",
	't', 'C06: a missing topic, in background: the state says so');
$node->safe_psql('postgres', "SELECT ingest.stop('missing')");

# ---- messages deleted before they were read

foreach my $policy (qw(stop skip))
{
	my $name = "late_$policy";
	$kafka->create_topic($name, 1);
	$kafka->produce($name, count => 100, seed => 6);
	create_sensor_pipeline($node, $name, $name, options => qq({"on_gap": "$policy"}));
	drain($node, $name);
	$kafka->produce($name, count => 100, seed => 6, first => 100);
	$kafka->truncate($name, 0, 150);
	if ($policy eq 'stop')
	{
		fails_with($node, "CALL ingest.run('$name')", '[0-9A-Z]{5}', qr/offset|gap|150/, 'C04: a gap, in the foreground');
		$node->safe_psql('postgres', "SELECT ingest.start('$name')");
		wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$name'", 'gap',
			'C04: a gap, in background: state gap');
		is(value($node, "SELECT count(*) FROM $name"), '100', 'C04: a gap: nothing was read behind it');
		$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
	}
	else
	{
		my $err = drain($node, $name);
		like($err, qr/WARNING/, 'on_gap skip: a warning');
		is(value($node, "SELECT shard, from_position, to_position, messages, skipped_by FROM ingest.gap WHERE pipeline = '$name'"),
			'0|100|150|50|on_gap', 'C04: on_gap skip: noted in ingest.gap');
		is(value($node, "SELECT count(*), min(seq) FILTER (WHERE seq >= 100) FROM $name"), '150|150',
			'on_gap skip: goes on behind it');
	}
}

# ---- the topic was made anew: shorter, and longer than what was read

foreach my $case ([ 'C05', 'shorter', 50 ], [ 'C07', 'longer', 300 ])
{
	my ($row, $name, $count) = @$case;
	$kafka->create_topic($name, 1);
	$kafka->produce($name, count => 100, seed => 7);
	create_sensor_pipeline($node, $name, $name);
	drain($node, $name);
	$kafka->delete_topic($name);
	$kafka->create_topic($name, 1);
	$kafka->produce($name, count => $count, seed => 8);
	fails_with($node, "CALL ingest.run('$name')", '[0-9A-Z]{5}', qr/offset|anew|recreated|gap/i,
		"a topic made anew, $name, in the foreground");
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$name'", 'gap',
		"$row: a topic made anew, $name: state gap");
	is(value($node, "SELECT count(*) FROM $name"), '100', "$row: a topic made anew, $name: nothing was mixed in");
	$node->safe_psql('postgres', "SELECT ingest.stop('$name');
		SELECT ingest.seek('$name', 'earliest', confirm => true); TRUNCATE $name");
	drain($node, $name);
	is(value($node, "SELECT count(*) FROM $name"), $count, "a topic made anew, $name: an operator goes on");
}

# ---- brokers that do not answer

$kafka->kill9;
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('sensors')", timeout => 60);
isnt($rc, 0, 'unreachable brokers: run fails');
like($err, qr/ERROR/, 'unreachable brokers: with an error');
$node->safe_psql('postgres', "SELECT ingest.start('sensors')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'sensors'", 'backoff',
	'C20: unreachable brokers: state backoff');
$kafka->start;
$kafka->produce('sensors', count => 1000, seed => 1, first => 20000, manifest => "$dir/sensors2");
load_manifest($node, 'sensors_manifest', "$dir/sensors2");
wait_for($node, "SELECT read = 21000 FROM ingest.pipeline_status WHERE name = 'sensors'", 't', 'C20: it goes on when they are back');
wait_for($node, "SELECT lag = 0 AND state = 'running' FROM ingest.pipeline_status WHERE name = 'sensors'", 't', 'and is well');
check_exactly_once($node, 'sensors', 'sensors_manifest', 'after an outage');

$node->stop('fast');
done_testing();
