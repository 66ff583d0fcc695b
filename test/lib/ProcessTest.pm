# What the TAP tests of processes share.
package ProcessTest;

use strict;
use warnings;

use Exporter 'import';
use IngestTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(workers worker_pid supervisor_pid launcher_pid is_gone wait_gone takes_at_most
  create_pipeline count_log unreachable_server);

# Of database postgres, or another.
sub workers
{
	my ($node, $database) = @_;
	return $node->safe_psql($database // 'postgres', 'SELECT count(*) FROM ingest._workers()');
}

sub worker_pid
{
	my ($node, $pipeline, $ordinal) = @_;
	$ordinal //= 0;
	return $node->safe_psql('postgres', "SELECT w.pid FROM ingest._workers() w
		JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = '$pipeline' AND w.ordinal = $ordinal");
}

sub supervisor_pid
{
	my ($node, $database) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'ingest supervisor' AND datname = '" . ($database // 'postgres') . "'");
}

sub launcher_pid
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ingest launcher'");
}

sub is_gone { return !kill 0, $_[0] }

sub wait_gone
{
	my ($seconds, $name, @pids) = @_;
	my $deadline = time + $seconds;
	sleep 0.02 while time < $deadline && grep { !is_gone($_) } @pids;
	return is(scalar(grep { !is_gone($_) } @pids), 0, $name);
}

# Runs the code; returns what it gives.
sub takes_at_most
{
	my ($seconds, $name, $code) = @_;
	my $begin = time;
	my $result = $code->();
	my $took = time - $begin;
	cmp_ok($took, '<', $seconds, "$name: in time") or diag "took $took s";
	return $result;
}

# A server that nobody answers at: each pipeline on it waits in its own way.
sub unreachable_server
{
	my ($node, $name, $brokers) = @_;
	$node->safe_psql('postgres', "CREATE SERVER $name FOREIGN DATA WRAPPER ingest_kafka
		OPTIONS (brokers '$brokers', timeout '60 s')");
	return;
}

# A pipeline NAME of one column from a topic of its server into table NAME.
sub create_pipeline
{
	my ($node, $name, %args) = @_;
	my $server = $args{server} // 'plant';
	my $topic = $args{topic} // $name;
	my $schedule = $args{schedule} // 'continuous';
	my $options = $args{options} // '{}';
	my $role = $args{role} ? "SET ROLE $args{role};" : '';
	$node->safe_psql($args{database} // 'postgres', "$role
		CREATE FOREIGN TABLE ${name}_topic (seq bigint) SERVER $server OPTIONS (topic '$topic', format 'json');
		CREATE TABLE $name (seq bigint);
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name', schedule => '$schedule',
			options => '$options');");
	return;
}

# Lines of the server's log that match, from an offset on.
sub count_log
{
	my ($node, $pattern, $offset) = @_;
	my $log = slurp_file($node->logfile, $offset // 0);
	return scalar(() = $log =~ /$pattern/g);
}

1;
