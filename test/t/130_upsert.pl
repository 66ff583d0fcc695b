# A topic into a table by key: workers that are killed, rows that are poison, some of
# them only when they are written (unless a later one replaces them), dead letters
# that are replayed; the table is at any time what a model says, and no row is
# unaccounted for.
#
# INGEST_SEED: of the messages.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use KafkaPeer;

my $seed = $ENV{INGEST_SEED} || int(time);
srand $seed;
diag "INGEST_SEED=$seed";

my $kafka = KafkaPeer->new->start;
my $node = start_node('upsert', conf => "restart_after_crash = on\ndeadlock_timeout = 50ms\nfsync = off");
create_server($node, $kafka);

# ---- messages and what becomes of them

my @partitions = (0 .. 2);
my (%model, %sent, %bad);

# Keys of one partition only, or of all.
sub send_some
{
	my ($topic, $n, %args) = @_;
	my @messages;
	foreach (1 .. $n)
	{
		my $id = int(rand 400);
		my $partition = $args{everywhere} ? int(rand @partitions) : $id % @partitions;
		my $v = int(rand 20);
		my $doc = '{"of": [' . int(rand 3) . ']}';
		my $payload = qq({"id": $id, "v": $v, "doc": $doc});
		my $kind = rand;
		if ($kind < 0.002) { $payload = '{"id": ' . $id . ', "v": '; $bad{$topic}++ }
		elsif ($kind < 0.004) { $payload = qq({"id": null, "v": $v, "doc": $doc}); $bad{$topic}++ }
		elsif ($kind < 0.006) { $payload = qq({"id": $id, "v": -1, "doc": $doc}); $bad{$topic}++ }
		elsif ($kind < 0.010) { $payload = qq({"id": $id, "v": 666, "doc": $doc}) }
		else { $model{$topic}{$id}{ $args{everywhere} ? $partition : 0 } = "$id\t$v\t$doc" }
		push @messages, [ $partition, $id, undef, $payload ];
	}
	$kafka->send($topic, @messages);
	$sent{$topic} += $n;
	return;
}

sub define
{
	my ($name) = @_;
	$kafka->create_topic($name, scalar @partitions);
	$node->safe_psql('postgres', qq(
		CREATE FOREIGN TABLE ${name}_topic (id bigint, v int, doc json) SERVER plant OPTIONS (topic '$name', format 'json');
		CREATE TABLE $name (v int CHECK (v >= 0), id bigint PRIMARY KEY, doc json);
		CREATE FUNCTION ${name}_row() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			IF new.v = 666 THEN RAISE 'no such v' USING ERRCODE = 'check_violation'; END IF;
			RETURN NULL;
		END \$\$;
		CREATE TRIGGER t AFTER INSERT OR UPDATE ON $name FOR EACH ROW EXECUTE FUNCTION ${name}_row();
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', mode => 'upsert', key => '{id}',
			options => '{"batch_rows": 700, "workers": 3}')));
	return;
}

# Rows that differ from what the model allows.
sub differences
{
	my ($name) = @_;
	my @rows = map { values %$_ } values %{ $model{$name} };
	my $file = $node->basedir . "/$name.model";
	open(my $out, '>', $file) or die "$file: $!";
	print $out join("\n", @rows), "\n";
	close $out;
	return $node->safe_psql('postgres', "
		CREATE TEMP TABLE model (id bigint, v int, doc text);
		\\copy model from '$file'
		SELECT (SELECT count(*) FROM $name t WHERE NOT EXISTS (
				SELECT FROM model m WHERE (m.id, m.v, m.doc) = (t.id, t.v, t.doc::text)))
			+ (SELECT count(DISTINCT id) FROM model m WHERE NOT EXISTS (SELECT FROM $name t WHERE t.id = m.id))");
}

sub check_accounts_by_key
{
	my ($name, $when) = @_;
	is(value($node, "SELECT sum(read) FROM ingest.batch_history WHERE pipeline = '$name' AND kind = 'turn'"), $sent{$name},
		"$when: every message was read once");
	is( value($node, "SELECT bool_and(read = written + rejected + dropped + merged + skipped), sum(merged) > 0, sum(skipped) > 0
			FROM ingest.batch_history WHERE pipeline = '$name'"), 't|t|t', "$when: the accounts are right");
	is( value($node, "SELECT (SELECT sum(rejected) FROM ingest.batch_history WHERE pipeline = '$name')
			= (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name')"), 't', "$when: so many dead letters");
	is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name' AND message NOT LIKE '%no such v%'"),
		$bad{$name}, "$when: each message that is bad by itself");
	return;
}

sub drained
{
	my ($name) = @_;
	return wait_for($node, "SELECT coalesce(sum(read), 0) FROM ingest.batch_history WHERE pipeline = '$name' AND kind = 'turn'",
		$sent{$name}, "$name: everything is read", 120);
}

# ---- in the foreground

define('plant_a');
send_some('plant_a', 5000);
drain($node, 'plant_a');
is(differences('plant_a'), 0, 'a run: the table is what the model says');
check_accounts_by_key('plant_a', 'a run');

# ---- workers, killed

$node->safe_psql('postgres', "SELECT ingest.start('plant_a')");
for my $round (1 .. 4)
{
	send_some('plant_a', 6000);
	my $until = time + 10;
	my $pid = '';
	while ($pid eq '' && time < $until)
	{
		$pid = value($node, "SELECT pid FROM ingest._workers() WHERE phase = 'loading' LIMIT 1");
		sleep 0.01;
	}
	sleep rand 0.2;
	kill 'KILL', $pid if $pid ne '';
	sleep 0.1;
	wait_until_up($node);
}
drained('plant_a');
is(differences('plant_a'), 0, 'kill -9: the table is what the model says');
check_accounts_by_key('plant_a', 'kill -9');

# The whole topic again: all that is not the last of its key is passed through, none is lost.
$node->safe_psql('postgres', "SELECT ingest.stop('plant_a')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'stopped');
$node->safe_psql('postgres', "SELECT ingest.seek('plant_a', 'earliest', confirm => true)");
drain($node, 'plant_a');
is(differences('plant_a'), 0, 'read again: the table is what it was');

# ---- dead letters, replayed in the order in which they came

$node->safe_psql('postgres', 'DROP TRIGGER t ON plant_a');
my $expected = value($node, "
	SELECT string_agg(id || ' ' || v, ',' ORDER BY id) FROM (
		SELECT DISTINCT ON (payload_text::json->>'id') payload_text::json->>'id' AS id, payload_text::json->>'v' AS v
		FROM ingest.dead_letter WHERE pipeline = 'plant_a' AND message LIKE '%no such v%' AND outcome = 'pending'
		ORDER BY payload_text::json->>'id', ingest.dead_letter.id DESC) x");
isnt($expected, '', 'there are dead letters that can be mended');
$node->safe_psql('postgres', "SELECT ingest.replay('plant_a', \$\$message LIKE '%no such v%'\$\$)");
is(value($node, "SELECT string_agg(id || ' ' || v, ',' ORDER BY id::text) FROM plant_a WHERE v = 666"), $expected,
	'replayed dead letters take the place of what is there');
is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'plant_a' AND message LIKE '%no such v%' AND outcome = 'pending'"),
	0, 'and none is left');

# ---- one key in all partitions: workers wait for each other, and for ever they do not

define('plant_b');
$node->safe_psql('postgres', "SELECT ingest.start('plant_b')");
send_some('plant_b', 4000, everywhere => 1) foreach 1 .. 5;
drained('plant_b');
is(differences('plant_b'), 0, 'keys in all partitions: each row is the last one of a partition');
check_accounts_by_key('plant_b', 'keys in all partitions');
is(state_of($node, 'plant_b'), 'running', 'keys in all partitions: still running');

$node->stop('fast');
done_testing();
