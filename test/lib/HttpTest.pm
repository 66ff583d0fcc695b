# What the TAP tests of HTTP sources share: APIs, feeds, and the oracle that
# compares what the server has with what arrived.
package HttpTest;

use strict;
use warnings;

use Exporter 'import';
use IngestTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(create_api alter_api create_feed create_source options_sql quote find_differences check_rows check_accounted
  position_of arrives wait_requests);

my $json = JSON::PP->new->ascii->canonical->allow_nonref;
my %defaults = (retries => 3, retry_max => '2 s', connect_timeout => '3 s', timeout => '10 s', idle_timeout => '5 s');

sub quote { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

sub options_sql
{
	my (%options) = @_;
	return 'OPTIONS (' . join(', ', map { "\"$_\" " . quote($options{$_}) } sort keys %options) . ')';
}

# A server; quick to give up unless said otherwise.
sub create_api
{
	my ($node, $name, $url, %options) = @_;
	$node->safe_psql('postgres', "CREATE SERVER $name FOREIGN DATA WRAPPER ingest_http "
		  . options_sql(%defaults, url => $url, %options));
	return;
}

my $columns = <<'SQL';
    id bigint%s,
    title text,
    updated_at timestamptz,
    doc jsonb OPTIONS (path '$'),
    page bigint OPTIONS (metadata 'page'),
    row bigint OPTIONS (metadata 'row')
SQL

# Foreign table NAME_feed, of rows as the server makes them; columns: other ones.
sub create_source
{
	my ($node, $name, $server, %args) = @_;
	my $path = $args{columns} // sprintf $columns, $args{id_path} ? " OPTIONS (path '$args{id_path}')" : '';
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE ${name}_feed ($path) SERVER $server "
		  . options_sql(format => 'json', poll => '100 ms', %{ $args{options} // {} }));
	return;
}

# Also table NAME and pipeline NAME.
sub create_feed
{
	my ($node, $name, $server, %args) = @_;
	create_source($node, $name, $server, %args);
	my $more = $args{constraint} ? "; ALTER TABLE $name ADD $args{constraint}" : '';
	$node->safe_psql('postgres', "CREATE TABLE $name (LIKE ${name}_feed)$more");
	$node->safe_psql('postgres', "SELECT ingest.create_pipeline('$name', '${name}_feed', '$name', options => "
		  . quote($args{pipeline} // '{}') . ')');
	return;
}

# problem|count|example lines: rows of the server that are not in the table, once
# and as they are there; rows nobody has.  given: the rows instead of a data set.
sub find_differences
{
	my ($node, $peer, $table, $set, %args) = @_;
	my @rows = $args{given} ? @{ $args{given} } : $peer->rows($set);
	@rows = map { my $row = $_; my %some; @some{ split ' ', $args{only} } = @$row{ split ' ', $args{only} }; \%some } @rows if $args{only};
	my $file = PostgreSQL::Test::Utils::tempdir . '/oracle';
	open my $out, '>', $file or die $!;
	print $out $json->encode($_) =~ s/\\/\\\\/gr, "\n" foreach @rows;
	close $out or die $!;
	my $content = $args{content} // 'doc';
	# One session: the table goes with it.
	return $node->safe_psql('postgres', "CREATE TEMP TABLE oracle (doc jsonb);
\\copy oracle from '$file'
WITH arrived AS (SELECT id, count(*) AS n, (array_agg($content))[1] AS doc FROM $table GROUP BY id),
     expected AS (SELECT (doc ->> 'id')::bigint AS id, doc FROM oracle),
     compared AS (
         SELECT id, CASE WHEN n IS NULL THEN 'lost' WHEN e.id IS NULL THEN 'unknown'
                         WHEN n > 1 THEN 'more than once' WHEN a.doc IS DISTINCT FROM e.doc THEN 'changed' END AS problem
           FROM arrived a FULL JOIN expected e USING (id))
SELECT problem, count(*), min(id) FROM compared WHERE problem IS NOT NULL GROUP BY 1");
}

sub check_rows
{
	my ($node, $peer, $table, $set, $name, %args) = @_;
	return is(find_differences($node, $peer, $table, $set, %args), '', "$name: each row once, and as it is there");
}

# The books of all batches add up and agree with the table.
sub check_accounted
{
	my ($node, $pipeline, $name) = @_;
	return is(value($node, "SELECT bool_and(read = written + rejected + dropped + merged + skipped),
			sum(written) = (SELECT count(*) FROM $pipeline),
			sum(rejected) = (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$pipeline')
			FROM ingest.batch_history WHERE pipeline = '$pipeline'"),
		't|t|t', "$name: batches add up");
}

# What is kept of how far a pipeline is: the position, and member "what" of it.
sub position_of
{
	my ($node, $pipeline, $what) = @_;
	my $value = $what ? "p.position::jsonb ->> '$what'" : 'p.position';
	return value($node, "SELECT $value FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id
		WHERE l.name = '$pipeline' ORDER BY shard LIMIT 1");
}

sub arrives
{
	my ($node, $table, $count, $name, $seconds) = @_;
	return wait_for($node, "SELECT count(*) FROM $table", $count, $name, $seconds);
}

# Until so many requests of a path have come.
sub wait_requests
{
	my ($peer, $path, $count, $name, $seconds) = @_;
	my $deadline = time + ($seconds // 30);
	my $n = 0;
	while (($n = $peer->requests($path)) < $count && time < $deadline)
	{
		select undef, undef, undef, 0.05;
	}
	return cmp_ok($n, '>=', $count, $name);
}

1;
