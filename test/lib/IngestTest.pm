# What the TAP tests share: a server with the extension, the sensor pipeline,
# and the oracle that compares what was produced with what arrived.
package IngestTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(start_node create_server create_sensor_topic create_sensor_table create_sensor_pipeline
  drain fails_with wait_for wait_until_up value load_manifest find_problems check_exactly_once check_accounts check_lag state_of);

# A server with the extension in database postgres; preload => 0 leaves it out
# of shared_preload_libraries; extension => 0 does not create it; conf: further
# lines of postgresql.conf; install_path: of another version; initdb: options.
sub start_node
{
	my ($name, %args) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		$args{install_path} ? (install_path => $args{install_path}) : ());
	$node->init($args{initdb} ? (extra => $args{initdb}) : ());
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ingest'") if $args{preload} // 1;
	$node->append_conf('postgresql.conf', <<'CONF');
timezone = 'UTC'
log_min_messages = warning
log_line_prefix = '%m [%p] %b %a '
max_worker_processes = 16
CONF
	$node->append_conf('postgresql.conf', "ingest.retry_min = '100ms'\ningest.retry_max = '1s'")
	  if $args{preload} // 1;
	$node->append_conf('postgresql.conf', $args{conf}) if $args{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION ingest') if $args{extension} // 1;
	return $node;
}

sub create_server
{
	my ($node, $kafka, $name) = @_;
	$name //= 'plant';
	$node->safe_psql('postgres', "CREATE SERVER $name FOREIGN DATA WRAPPER ingest_kafka
		OPTIONS (brokers '" . $kafka->brokers . "', timeout '5 s', metadata_refresh '500 ms')");
	return;
}

my $columns = <<'SQL';
    sensor_id   text,
    temperature float8,
    humidity    float8,
    pressure    float8,
    event_time  timestamptz  %s,
    seq         bigint,
    status      text,
    site        text,
    kafka_partition integer  %s,
    kafka_offset    bigint   %s
SQL

# A foreign table of the messages of test/lib/produce.c.
sub create_sensor_topic
{
	my ($node, $name, $topic, %args) = @_;
	my $server = $args{server} // 'plant';
	my $options = join '', map { ", $_ '$args{options}{$_}'" } sort keys %{ $args{options} // {} };
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE $name ("
		  . sprintf($columns, q(OPTIONS (path '$.ts')), q(OPTIONS (metadata 'partition')),
			q(OPTIONS (metadata 'offset')))
		  . ") SERVER $server OPTIONS (topic '$topic', format 'json'$options)");
	return;
}

# A table of them, in daily partitions.
sub create_sensor_table
{
	my ($node, $name) = @_;
	$node->safe_psql('postgres', "CREATE TABLE $name (" . sprintf($columns, 'NOT NULL', '', '')
		  . ") PARTITION BY RANGE (event_time);
		SELECT ingest.manage_partitions('$name', every => '1 day', ahead => 0)");
	return;
}

# Foreign table NAME_topic, table NAME, pipeline NAME with the rule above_zero.
sub create_sensor_pipeline
{
	my ($node, $name, $topic, %args) = @_;
	my $options = $args{options} // '{}';
	create_sensor_topic($node, "${name}_topic", $topic, options => $args{topic_options});
	create_sensor_table($node, $name);
	$node->safe_psql('postgres', "
		SELECT ingest.create_pipeline('$name', source => '${name}_topic', target => '$name', options => '$options');
		SELECT ingest.add_rule('$name', 'above_zero', 'temperature >= 0')");
	return;
}

# Read all there is, in the foreground.
sub drain
{
	my ($node, $pipeline) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('$pipeline')", timeout => 180);
	is($rc, 0, "pipeline $pipeline runs to the end") or diag $err;
	return $err;
}

# The statement fails with this SQLSTATE and a message like that.
sub fails_with
{
	my ($node, $sql, $sqlstate, $like, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql",
		timeout => 60, on_error_stop => 1);
	isnt($rc, 0, "$name: fails");
	like($err, qr/ERROR:  $sqlstate: /, "$name: SQLSTATE");
	like($err, $like, "$name: message");
	return $err;
}

sub value
{
	my ($node, $sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Until the query gives what is expected ("t" when not said).
# (exit code, output, errors) also where psql ends before it has read the
# statement, as it does while the server restarts.
sub try_psql
{
	my ($node, $sql) = @_;
	my @answer = eval { $node->psql('postgres', $sql, timeout => 60) };
	return @answer ? @answer : (-1, '', $@);
}

sub wait_until_up
{
	my ($node) = @_;
	my $deadline = time + 60;
	my $rc = -1;
	while ($rc != 0 && time < $deadline)
	{
		($rc) = try_psql($node, 'SELECT 1');
		sleep 0.1 if $rc != 0;
	}
	return $rc == 0;
}

sub wait_for
{
	my ($node, $sql, $expected, $name, $seconds) = @_;
	my $deadline = time + ($seconds // 60);
	my ($rc, $out, $err);
	$expected //= 't';
	while (1)
	{
		# The server may be restarting: that is part of some tests.
		($rc, $out, $err) = try_psql($node, $sql);
		$out //= '';
		return pass($name) if $rc == 0 && $out eq $expected;
		last if time > $deadline;
		sleep 0.1;
	}
	fail($name);
	diag "expected $expected, got $out $err";
	my ($src, $status) = $node->psql('postgres', q(\x\\ SELECT * FROM ingest.pipeline_status WHERE state <> 'stopped'));
	diag $status // '';
	return 0;
}

sub state_of
{
	my ($node, $pipeline) = @_;
	return value($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$pipeline'");
}

sub load_manifest
{
	my ($node, $table, @files) = @_;
	$node->safe_psql('postgres', "CREATE TABLE IF NOT EXISTS $table
		(partition integer, \"offset\" bigint, seq bigint, kind text, payload text)");
	$node->safe_psql('postgres', "\\copy $table from '$_'") foreach @files;
	return;
}

# Is every message of the manifest where it belongs, once, unchanged; and nothing
# else?  Rows in the target, bad messages among the dead letters, tombstones and
# what a transaction took back nowhere.  Gives problem|count|example lines.
# A window { partition => [ low, high ] } leaves out all other offsets.
sub find_problems
{
	my ($node, $pipeline, $manifest, $window) = @_;
	my $within = sub {
		my ($partition, $offset) = @_;
		return 'true' unless $window;
		return '(' . join(' OR ', map { "$partition = $_ AND $offset >= $window->{$_}[0] AND $offset < $window->{$_}[1]" }
			  sort keys %$window) . ')';
	};
	return $node->safe_psql('postgres', <<"SQL");
WITH arrived AS (
    SELECT kafka_partition AS partition, kafka_offset AS "offset", 'row' AS place,
           concat_ws('|', sensor_id, temperature, humidity, pressure, event_time, seq, status, site) AS content
      FROM $pipeline WHERE @{[ $within->('kafka_partition', 'kafka_offset') ]}
    UNION ALL
    SELECT shard::integer, "offset", 'letter', convert_from(payload, 'UTF8')
      FROM ingest.dead_letter WHERE pipeline = '$pipeline'
       AND @{[ $within->('shard::integer', '"offset"') ]}
), counted AS (
    SELECT partition, "offset", count(*) AS n, min(place) AS place, min(content) AS content
      FROM arrived GROUP BY 1, 2
), expected AS (
    SELECT partition, "offset", CASE kind WHEN 'good' THEN 'row' ELSE 'letter' END AS place,
           CASE kind WHEN 'good' THEN (
                SELECT concat_ws('|', sensor_id, temperature, humidity, pressure, ts, seq, status, site)
                  FROM jsonb_to_record(payload::jsonb) AS r (sensor_id text, temperature float8,
                       humidity float8, pressure float8, ts timestamptz, seq bigint, status text, site text))
           ELSE payload END AS content
      FROM $manifest WHERE kind NOT IN ('tombstone', 'aborted')
       AND @{[ $within->('partition', '"offset"') ]}
), compared AS (
    SELECT partition, "offset",
           CASE WHEN n IS NULL THEN 'lost'
                WHEN e.place IS NULL THEN 'not produced'
                WHEN n > 1 THEN 'more than once'
                WHEN c.place <> e.place THEN 'in the wrong place'
                WHEN c.content <> e.content THEN 'changed' END AS problem
      FROM counted c FULL JOIN expected e USING (partition, "offset")
)
SELECT problem, count(*), min(partition || ':' || "offset") AS example
  FROM compared WHERE problem IS NOT NULL GROUP BY 1
SQL
}

sub check_exactly_once
{
	my ($node, $pipeline, $manifest, $name) = @_;
	is(find_problems($node, $pipeline, $manifest), '', "$name: each message exactly once");
	return;
}

# The books of all batches add up and agree with the tables.
sub check_accounts
{
	my ($node, $pipeline, $target, $name) = @_;
	is(value($node, "SELECT bool_and(read = written + rejected + dropped + merged + skipped),
			sum(written) = (SELECT count(*) FROM $target),
			sum(rejected) = (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$pipeline')
			FROM ingest.batch_history WHERE pipeline = '$pipeline'"),
		't|t|t', "$name: batches add up");
	return;
}

# Read up to the very end of the topic, control records and all.
sub check_lag
{
	my ($node, $kafka, $pipeline, $topic, $name) = @_;
	my $ends = $kafka->ends($topic);
	is(value($node, "SELECT string_agg(shard || ':' || position, ' ' ORDER BY shard::integer)
			FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = '$pipeline'"),
		join(' ', map { "$_:$ends->{$_}[1]" } sort { $a <=> $b } keys %$ends),
		"$name: positions are the topic's ends");
	is(value($node, "SELECT lag FROM ingest.pipeline_status WHERE name = '$pipeline'"), '0', "$name: no lag");
	return;
}

1;
