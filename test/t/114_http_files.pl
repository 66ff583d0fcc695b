# Files behind HTTP: objects of a bucket or a manifest, each read once; long bodies
# that are gone on with in the middle.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use HttpPeer;
use HttpTest;
use IngestTest;
use ProcessTest;

my $peer = HttpPeer->new;
my $node = start_node('files', conf => "restart_after_crash = on\ningest.retry_min = '50ms'\ningest.retry_max = '200ms'\n");
create_api($node, 'store', $peer->url);

my $columns = q(id bigint, title text, file text OPTIONS (metadata 'file'), row bigint OPTIONS (metadata 'row'));
my %bucket = (files => 's3', path => '/s3/logs', prefix => '2026/', files_match => '*.ndjson', format => 'ndjson');

# Objects: ten rows each, ids that follow each other.
my %objects;

sub put
{
	my ($key, %args) = @_;
	my $first = 10 * keys %objects;
	$objects{$key} //= $first;
	$peer->control(op => 'object', bucket => 'logs', key => $key, rows => 10, first => $first, %args);
	return;
}

sub count { return value($node, "SELECT count(*), count(DISTINCT id), count(DISTINCT file) FROM $_[0]") }

# More than a page of the listing, and names that have to be encoded.
put(sprintf '2026/day %d/a+b&c=%04d.ndjson', $_ % 7, $_) foreach 1 .. 1010;
$peer->control(op => 'object', bucket => 'logs', key => '2026/readme.txt', body => "not this one\n");
$peer->control(op => 'object', bucket => 'logs', key => '2025/old.ndjson', rows => 5, first => 900000);
create_feed($node, 'logs', 'store', columns => $columns, options => \%bucket);

$peer->mark;
is(value($node, 'SELECT count(*), count(DISTINCT file) FROM (SELECT * FROM logs_feed LIMIT 5) x'), '5|1', 'a peek: rows of the first object');
is(scalar $peer->requests('^/s3/logs/2026'), 1, 'a peek: one object is asked for');

drain($node, 'logs');
is(count('logs'), '10100|10100|1010', 'each object of the prefix that matches is read');
is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'logs'"), '0', 'and nothing else');

$peer->mark;
drain($node, 'logs');
is(count('logs'), '10100|10100|1010', 'a second run: nothing is read twice');
is(scalar $peer->requests('^/s3/logs/2026'), 0, 'nor asked for');

put('2026/zz/new.ndjson');
$peer->control(op => 'object', bucket => 'logs', key => '2026/day 1/a+b&c=0001.ndjson', rows => 3, first => 500000);
drain($node, 'logs');
is(count('logs'), '10113|10113|1011', 'a new object is read, and one that has changed');
is(value($node, "SELECT string_agg(DISTINCT position, ' ') FROM ingest.position WHERE pipeline = 'logs' AND shard LIKE '%a+b&c=0001%'"),
	'{"crawls": 1, "rows": 10} {"crawls": 1, "rows": 3}', 'both are remembered');

# In background it looks for new ones by itself.
$node->safe_psql('postgres', "SELECT ingest.start('logs')");
put('2026/zz/later.ndjson');
arrives($node, 'logs', 10123, 'a continuous pipeline finds a new object', 30);
put('2026/zz/bad.ndjson', body => qq({"id": 700001, "title": "well"}\n{"id": "no number"}\n{"id": 700002}\n));
wait_for($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'logs'", 1, 'a bad line becomes a dead letter', 30);
arrives($node, 'logs', 10125, 'the others are written', 30);

# An object that vanishes between listing and reading.
$peer->behave('^/s3/logs/2026/zz/ghost', { status => 404, body => 'gone' }, times => 1);
put('2026/zz/ghost.ndjson');
put('2026/zz/real.ndjson');
arrives($node, 'logs', 10135, 'one that is gone by then does not hold up the others', 30);
$node->safe_psql('postgres', "SELECT ingest.stop('logs')");

# ---- a manifest

create_feed($node, 'listed', 'store', columns => $columns,
	options => { files => 'manifest', path => '/manifest/parts', files_rows => '$.files[*]', format => 'ndjson' });
$peer->control(op => 'object', bucket => 'parts', key => "part $_.ndjson", rows => 10, first => 10 * $_) foreach 0 .. 19;
drain($node, 'listed');
is(value($node, 'SELECT count(*), count(DISTINCT id) FROM listed'), '200|200', 'a manifest: each file once');

# ---- what cannot be

create_source($node, 'nowhere', 'store', columns => $columns, options => { %bucket, path => '/page/nothing' });
fails_with($node, 'SELECT * FROM nowhere_feed', 'HV00M', qr/is no listing of a bucket|answered with status/, 'no bucket');
create_source($node, 'pages', 'store', columns => $columns, options => { %bucket, pagination => 'page' });
fails_with($node, 'SELECT * FROM pages_feed', 'HV024', qr/neither pages nor a cursor/, 'files with pages');

# ---- a long body, by crashes and broken connections

my $rows = 1000000;
my %long = (path => "/gen/ndjson?rows=$rows&etag=strong", format => 'ndjson');
create_feed($node, 'long', 'store', columns => 'id bigint, name text', options => \%long, pipeline => '{"batch_rows": 5000}');
$peer->behave('^/gen', { cut => 1_500_000 }, times => 1);
drain($node, 'long');
is(value($node, 'SELECT count(*), count(DISTINCT id), min(id), max(id) FROM long'), "$rows|$rows|0|" . ($rows - 1),
	'a connection that breaks in the middle: gone on with');
like((map { $_->{headers}{range} // () } $peer->requests('^/gen'))[0] // '', qr/^bytes=\d+-$/, 'by a range');

$peer->control(op => 'generate', name => 'much', count => 100000);
foreach my $way ('range', 'no ranges', 'compressed', 'csv')
{
	my $name = 'crash_' . ($way =~ s/ /_/r);
	my $path = $way eq 'compressed' ? '/ndjson/much?etag=strong' : $way eq 'csv' ? "/gen/csv?rows=$rows&etag=strong" : $long{path} . ($way eq 'no ranges' ? '&range=no' : '');
	my $all = $way eq 'compressed' ? 100000 : $rows;
	create_feed($node, $name, 'store', columns => 'id bigint', pipeline => '{"batch_rows": 5000}',
		options => { path => $path, format => $way eq 'csv' ? ('csv', header => 'on') : 'ndjson' });
	$peer->behave('^/ndjson', { encode => ['gzip'] }, times => 100) if $way eq 'compressed';
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	my $kills = 0;
	my $last = 0;
	foreach my $share (1 .. 4)
	{
		# Not before a batch was committed: three crashes in a row without one stop a pipeline.
		my $pid = '';
		my $deadline = time + 30;
		until ($pid || time > $deadline)
		{
			my ($code, $answer) = $node->psql('postgres', "SELECT CASE WHEN n >= $all THEN 'done' ELSE (SELECT pid::text FROM ingest._workers() w
				JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = '$name' AND pid <> 0 AND n > $last AND n >= $all * $share / 6) END
				FROM (SELECT count(*) AS n FROM $name) x");
			$pid = $answer if $code == 0;
		}
		last if $pid !~ /^\d+$/;
		$kills += kill 'KILL', $pid;
		poll_up($node);
		$last = value($node, "SELECT count(*) FROM $name");
	}
	wait_for($node, "SELECT count(*) FROM $name", $all, "$way: arrives", 60);
	$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
	is(value($node, "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM $name"), "$all|$all|0|" . ($all - 1),
		"$way: killed $kills times, each row once");
	cmp_ok($kills, '>=', 1, "$way: killed in the middle") if $way ne 'compressed';
	$peer->forget;
}

# ---- a body that is another one when it is gone on with

create_feed($node, 'changed', 'store', columns => 'id bigint, title text', pipeline => '{"batch_rows": 100}',
	options => { files => 'none', path => '/s3/moving/one.ndjson', format => 'ndjson' });
$peer->control(op => 'object', bucket => 'moving', key => 'one.ndjson', rows => 5000, first => 0);
$peer->behave('^/s3/moving', { cut => 200_000 }, times => 1);
$peer->behave('^/s3/moving', { status => 503 }, skip => 1, times => 100);
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('changed')");
isnt($rc, 0, 'broken off');
my $before = value($node, 'SELECT count(*) FROM changed');
cmp_ok($before, '>', 0, 'a part is there');
$peer->forget;
$peer->control(op => 'object', bucket => 'moving', key => 'one.ndjson', rows => 5000, first => 100000);
fails_with($node, "CALL ingest.run('changed')", 'XX001', qr/has changed while it was being read/, 'another body');
is(value($node, 'SELECT count(*) FROM changed'), $before, 'nothing of it is written');

$node->stop('fast');
$peer->stop;
done_testing();

# Until the server takes sessions again, after one of its processes was killed.
sub poll_up
{
	my ($server) = @_;
	sleep 0.2;
	for (1 .. 100)
	{
		my ($code) = $server->psql('postgres', 'SELECT 1');
		return if $code == 0;
		sleep 0.2;
	}
	die 'the server does not come back';
}
