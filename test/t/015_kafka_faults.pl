# What brokers, topics and messages can do to a worker, and what its library's
# threads must not do to the server.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use KafkaPeer;
use ProcessTest;

my $kafka = KafkaPeer->new->start;
my $node = start_node('faults');
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $kafka);

# A pipeline of one column, with what comes along.
sub create_simple
{
	my ($name, $columns, $options) = @_;
	$node->safe_psql('postgres', qq(
		CREATE FOREIGN TABLE ${name}_topic ($columns) SERVER plant OPTIONS (topic '$name', format 'json');
		CREATE TABLE $name (LIKE ${name}_topic);
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', options => '$options')));
	return;
}

# ---- C03: what the group has committed means nothing to us

$kafka->create_topic('grouped', 1);
$kafka->produce('grouped', count => 1000, seed => 1, manifest => "$dir/grouped");
load_manifest($node, 'grouped_manifest', "$dir/grouped");
run_command([ 'kcat', '-G', 'watchers', '-b', $kafka->brokers, '-X', 'auto.offset.reset=earliest', '-q', '-c', '400', 'grouped' ]);
my $committed;
foreach (1 .. 100)
{
	$committed = $kafka->committed('grouped', 'watchers', 1)->{0} // -1;
	last if $committed > 0;
	sleep 0.2;
}
cmp_ok($committed, '>', 0, "C03: somebody of the group has read up to $committed");
create_sensor_pipeline($node, 'grouped', 'grouped', topic_options => { group => 'watchers' });
drain($node, 'grouped');
check_exactly_once($node, 'grouped', 'grouped_manifest', 'C03: we read from the beginning');

# ---- C14, C23: keys, headers and times nobody would think of

$kafka->create_topic('odd', 1, 'message.timestamp.after.max.ms' => '9223372036854775807',
	'message.timestamp.before.max.ms' => '9223372036854775807', 'retention.ms' => -1, 'max.message.bytes' => 20000000);
$kafka->send('odd', { set => ['message.max.bytes=20000000'] },
	[ 0, 'k' x 900_000, undef, '{"a": 1}' ],
	[ 0, undef, undef, '{"a": 2}', map { "h$_=$_" } 1 .. 10000 ],
	[ 0, undef, 9223372036854775, '{"a": 3}' ],
	[ 0, undef, 1, '{"a": 4}' ],
	[ 0, "\x00\xff", undef, '{"a": 5, "t": "' . 'x' x 8_000_000 . '"}' ]);
create_simple('odd', q(a integer, t text, key bytea OPTIONS (metadata 'key'), headers jsonb OPTIONS (metadata 'headers'),
	stamp timestamptz OPTIONS (metadata 'timestamp')), '{"batch_bytes": 1000000}');
drain($node, 'odd');
is(value($node, 'SELECT string_agg(a::text, \',\' ORDER BY a) FROM odd'), '1,2,3,4,5', 'C14: all are written');
is(value($node, 'SELECT length(key) FROM odd WHERE a = 1'), '900000', 'C14: a long key');
is(value($node, 'SELECT jsonb_array_length(headers) FROM odd WHERE a = 2'), '10000', 'C14: many headers');
is(value($node, 'SELECT length(t), key FROM odd WHERE a = 5'), '8000000|\x00ff', 'C15: a message larger than a batch');
is(value($node, 'SELECT stamp FROM odd WHERE a = 4'), '1970-01-01 00:00:00.001+00', 'C23: an early time');
is(value($node, 'SELECT stamp IS NULL OR stamp > \'2100-01-01\' FROM odd WHERE a = 3'), 't', 'C23: a time far ahead');

# ---- C27: two pipelines from one topic into one table

$kafka->create_topic('shared', 2);
$kafka->send('shared', map { [ $_ % 2, undef, undef, qq({"a": $_}) ] } 1 .. 100);
create_simple('shared', 'a integer', '{}');
$node->safe_psql('postgres', "SELECT ingest.create_pipeline('shared_again', 'shared_topic', 'shared')");
drain($node, $_) foreach qw(shared shared_again shared);
is(value($node, 'SELECT count(*), count(DISTINCT a) FROM shared'), '200|100', 'C27: each reads each message once');

# ---- C30: positions nobody can be at

foreach my $position ('-1', '9223372036854775807', '99999999999999999999', '1x', '', ' 1', '+1', '01')
{
	fails_with($node, qq(SELECT ingest.seek('shared', positions => '{"0": "$position"}', confirm => true)), '22[0-9A-Z]{3}',
		qr/position|offset/, "C30: position \"$position\"");
}
is(value($node, "SELECT string_agg(position, ',' ORDER BY shard) FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id
	WHERE l.name = 'shared'"), '50,50', 'C30: nothing has moved');

# ---- B01, B04, B12: threads of the library stay away from the server's signals

$node->safe_psql('postgres', "SELECT ingest.start('shared')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'waiting', 'a worker waits');
my $worker = worker_pid($node, 'shared');

sub status_of
{
	my ($path, $field) = @_;
	my ($value) = slurp_file("$path/status") =~ /^$field:\s+(\S+)/m;
	return $value;
}

my @threads = grep { $_ != $worker } map { m{/(\d+)$} } glob "/proc/$worker/task/*";
cmp_ok(scalar @threads, '>', 1, 'B01: the worker has threads');
my @open = grep {
	my $blocked = hex status_of("/proc/$worker/task/$_", 'SigBlk');
	# All but those that cannot be blocked, and what the C library keeps for itself (32 and 33).
	my $all = (1 << 31) - 1 & ~((1 << 8) | (1 << 18));
	($blocked & $all) != $all
} @threads;
is(join(' ', @open), '', 'B01: all signals are blocked in them');
is(status_of('/proc/' . $node->{_pid}, 'Threads'), '1', 'B04: the postmaster has none');
is(scalar(grep { -d "/proc/$_" } split ' ', slurp_file("/proc/$worker/task/$worker/children") || ''), 0, 'B12: nor has the worker children');
for (1 .. 200)
{
	kill 'USR1', $worker;
	kill 'ALRM', $worker;
}
$kafka->send('shared', [ 0, undef, undef, '{"a": 101}' ]);
wait_for($node, 'SELECT count(*) FROM shared WHERE a = 101', '1', 'B01: a storm of signals does no harm');

# ---- B09, C22: a slow target, a full topic: what is fetched ahead is bounded

$kafka->create_topic('large', 2);
$kafka->produce('large', count => 400000, seed => 3);
create_simple('large', 'seq bigint, sensor_id text', '{"batch_rows": 1000}');
$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fetch_memory = '16MB'; SELECT pg_reload_conf();
	SELECT ingest.add_transform('large', 'slow', 'SELECT pg_sleep(0.2)'); SELECT ingest.start('large')");
wait_for($node, 'SELECT count(*) >= 5000 FROM large', 't', 'B09: it works slowly');
my ($memory) = slurp_file('/proc/' . worker_pid($node, 'large') . '/status') =~ /^RssAnon:\s+(\d+)/m;
cmp_ok($memory, '<', 60000, "B09, C22: in $memory kB, of about 80 MB that could be fetched");
takes_at_most(3, 'B06: it ends at once', sub {
	$node->safe_psql('postgres', "SELECT ingest.stop('large')");
	wait_for($node, "SELECT count(*) FROM ingest._workers()", '1', 'B06: with a queue full of messages');
});

# ---- B08: a name that cannot be resolved

$node->safe_psql('postgres', "CREATE SERVER nowhere FOREIGN DATA WRAPPER ingest_kafka
	OPTIONS (brokers 'no-such-host.invalid:9092', timeout '2 s')");
$node->safe_psql('postgres', q(CREATE FOREIGN TABLE lost_topic (a integer) SERVER nowhere OPTIONS (topic 'x', format 'json');
	CREATE TABLE lost (a integer); SELECT ingest.create_pipeline('lost', 'lost_topic', 'lost')));
takes_at_most(30, 'B08: an unknown name', sub {
	fails_with($node, "CALL ingest.run('lost')", '08001', qr/no-such-host|resolve|no broker/i, 'B08: an unknown name');
});
$node->stop('fast');
done_testing();
