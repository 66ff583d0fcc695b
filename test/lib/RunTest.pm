# What the TAP tests of schedules and runs share: pipelines from one local table
# into another.
package RunTest;

use strict;
use warnings;

use Exporter 'import';
use IngestTest;

our @EXPORT = qw(create_relation_pipeline runs_of history_of);

# Pipeline NAME from table NAME_source (or another) into table NAME.
sub create_relation_pipeline
{
	my ($node, $name, $schedule, %args) = @_;
	my $source = $args{source} // "${name}_source";
	my $options = $args{options} // '{}';
	my $create = $args{source} ? '' : "CREATE TABLE $source (seq bigint PRIMARY KEY);";
	$node->safe_psql('postgres', "SET client_min_messages = error; $create
		CREATE TABLE $name (seq bigint PRIMARY KEY);
		SELECT ingest.create_pipeline('$name', '$source', '$name', schedule => '$schedule',
			options => '{\"cursor\": \"seq\", \"poll_interval\": 50, \"late_commits\": \"ignore\"}'::jsonb || '$options')");
	return;
}

# How many runs have ended, by outcome.
sub runs_of
{
	my ($node, $pipeline) = @_;
	return value($node, "SELECT string_agg(outcome || ' ' || n, ', ' ORDER BY outcome) FROM (
		SELECT outcome, count(*) AS n FROM (
			SELECT (array_agg(outcome ORDER BY id DESC))[1] AS outcome FROM ingest.batch_history
			WHERE pipeline = '$pipeline' GROUP BY run) r GROUP BY 1) o");
}

sub history_of
{
	my ($node, $pipeline) = @_;
	return value($node, "SELECT string_agg(concat_ws(' ', kind, cause, outcome, sqlstate), '; ' ORDER BY id)
		FROM ingest.batch_history WHERE pipeline = '$pipeline'");
}

1;
