# Objects behind HTTP and what can go wrong with them: listings that break off, lie or
# do not end, names that need care, objects that change, workers that die in one.
use strict;
use warnings;

use MIME::Base64;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use HttpPeer;
use HttpTest;
use IngestTest;
use ProcessTest;

my $peer = HttpPeer->new;
my $node = start_node('objects', conf => <<'CONF');
restart_after_crash = on
fsync = off
ingest.retry_min = '20ms'
ingest.retry_max = '500ms'
CONF
create_api($node, 'api', $peer->url);
my $columns = "id bigint, title text, file text OPTIONS (metadata 'file'), row bigint OPTIONS (metadata 'row')";

# Bucket NAME with so many objects of so many rows, numbered through.
my %next;

sub fill
{
	my ($bucket, $objects, $rows, %args) = @_;
	foreach my $i (1 .. $objects)
	{
		my $first = $next{$bucket} // 0;
		$peer->control(op => 'object', bucket => $bucket, key => sprintf($args{key} // '2026/part-%04d.ndjson', $first), rows => $rows,
			first => $first, kind => $args{kind} // 'ndjson');
		$next{$bucket} = $first + $rows;
	}
	return;
}

# All rows that were ever put there, once.
sub all_rows
{
	my ($table, $name) = @_;
	my $n = $next{ ($name =~ /^(\w+)/)[0] } // die;
	return is(value($node, "SELECT count(*), count(DISTINCT id), min(id), max(id), bool_and(title = 'title ' || id) FROM $table"),
		"$n|$n|0|" . ($n - 1) . '|t', "$name: each row once");
}

sub feed_of
{
	my ($bucket, %options) = @_;
	my %kind = delete $options{manifest} ? (path => "/manifest/$bucket?style=" . delete $options{style}, files => 'manifest')
	  : (path => "/s3/$bucket", files => 's3');
	create_feed($node, $bucket, delete $options{server} // 'api', columns => delete $options{columns} // $columns,
		options => { format => 'ndjson', %kind, %options }, pipeline => '{"batch_rows": 40, "batch_wait": "10 ms"}');
	return;
}

# ---- manifests, and a bucket: new, changed, unchanged, gone

foreach my $style (qw(name file url both s3))
{
	my $bucket = "b_$style";
	fill($bucket, 5, 30);
	feed_of($bucket, $style eq 's3' ? () : (manifest => 1, style => $style, $style eq 'name' ? () : (files_rows => '$.files[*]')));
	drain($node, $bucket);
	all_rows($bucket, "$bucket") or next;
	is(value($node, "SELECT count(DISTINCT file), bool_and(file ~ 'part-\\d{4}.ndjson\$') FROM $bucket"), '5|t', "$bucket: metadata file");
	$peer->mark;
	drain($node, $bucket);
	is(scalar $peer->requests('^/(?:object|s3/[^/]+/)'), 0, "$bucket: nothing is asked for twice");
	fill($bucket, 3, 30);
	$peer->mark;
	drain($node, $bucket);
	all_rows($bucket, "$bucket with new objects");
	is(scalar $peer->requests('^/(?:object|s3/[^/]+/)'), 3, "$bucket: new ones are");
	$peer->control(op => 'remove', bucket => $bucket, key => '2026/part-0030.ndjson');
	drain($node, $bucket);
	all_rows($bucket, "$bucket with an object less");
	next if $style eq 'name';
	$peer->control(op => 'object', bucket => $bucket, key => '2026/part-0000.ndjson', rows => 2, first => 5000);
	drain($node, $bucket);
	is(value($node, "SELECT count(*) FROM $bucket WHERE id >= 5000"), 2, "$bucket: a changed object is read again");
	check_accounted($node, $bucket, $bucket);
}

# ---- names that need care; prefix, pattern, directories

my @keys = ('a b', 'plus+sign', 'per%20cent', 'amp&ersand', "\x{fc}mlaut", 'quote\'"', 'question?mark', 'hash#mark', 'semi;colon=x', 'deep/er/than/this', '..dots', 'tilde~');
foreach my $i (0 .. $#keys)
{
	$peer->control(op => 'object', bucket => 'odd', key => "x/$keys[$i]", rows => 10, first => 10 * $i);
}
$next{odd} = 10 * @keys;
$peer->control({ op => 'object', bucket => 'odd', key => 'x/', body => '' }, { op => 'object', bucket => 'odd', key => 'y/other', rows => 5, first => 1000 },
	{ op => 'object', bucket => 'odd', key => 'x/skip!', rows => 5, first => 2000 });
feed_of('odd', prefix => 'x/', files_match => 'x/*[!!]');
drain($node, 'odd');
all_rows('odd', 'odd names') or diag value($node, 'SELECT string_agg(DISTINCT file, E\'\n\') FROM odd');
fill('odd_manifest', 1, 10, key => 'a b+c%%20d&e ?#');
feed_of('odd_manifest', manifest => 1, style => 'file', files_rows => '$.files[*]');
drain($node, 'odd_manifest');
all_rows('odd_manifest', 'odd_manifest');

# ---- a listing of several pages; one that breaks off, lies, or does not end

fill('many', 1050, 2, key => 'o-%06d');
feed_of('many');
drain($node, 'many');
all_rows('many', 'many objects, listed in pages');
fill('halves', 1020, 1, key => 'o-%06d');
create_api($node, 'twice', $peer->url, retries => 0);
feed_of('halves', server => 'twice');
foreach my $do ({ status => 503 }, { reset => 'at once' }, { cut => 3000 }, { body => '<html>please log in</html>', type => 'text/html' },
	{ body => '<?xml version="1.0"?><ListBucketResult><Contents><Key>o-000000</Key>' })
{
	$peer->behave('^/s3/halves\?.*continuation', $do);
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nCALL ingest.run('halves')", timeout => 30);
	if ($rc != 0)
	{
		like($err, qr/ERROR:  (08006|HV00M|54000): /, 'a listing that breaks off: fails');
		is(value($node, 'SELECT count(*) - count(DISTINCT id) FROM halves'), 0, 'a listing that breaks off: nothing twice');
	}
}
$peer->forget;
drain($node, 'halves');
all_rows('halves', 'halves of a listing');
foreach my $case ([ 'the same token', 'again' ], [ 'tokens in a circle', undef ])
{
	my ($title, $token) = @$case;
	my $bucket = 'circle' . ($token // '');
	$peer->control(op => 'object', bucket => $bucket, key => 'x', rows => 1);
	my $page = sub { return { body => "<ListBucketResult><Contents><Key>x</Key><ETag>\"e\"</ETag><Size>1</Size></Contents><IsTruncated>true</IsTruncated><NextContinuationToken>$_[0]</NextContinuationToken></ListBucketResult>" } };
	if ($token)
	{
		$peer->behave("^/s3/$bucket\\?", $page->($token), times => -1);
	}
	else
	{
		$peer->behave("^/s3/$bucket\\?(?!.*continuation)", $page->('A'), times => -1);
		$peer->behave("^/s3/$bucket\\?.*token=A", $page->('B'), times => -1);
		$peer->behave("^/s3/$bucket\\?.*token=B", $page->('A'), times => -1);
	}
	feed_of($bucket);
	fails_with($node, "SET statement_timeout = '20s'; CALL ingest.run('$bucket')", '(HV00M|54000)', qr/does not end|too many/, "a listing that does not end: $title");
	$peer->forget;
}
# XML that wants more than to be read
my $secret = PostgreSQL::Test::Utils::tempdir . '/secret';
append_to_file($secret, 'entity-canary');
foreach my $case ([ 'an outer entity', qq(<!DOCTYPE x [<!ENTITY y SYSTEM "file://$secret">]>) ], [ 'an outer DTD', "<!DOCTYPE x SYSTEM \"" . $peer->url . "/echo/dtd\">" ],
	[ 'a million laughs', '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' . join('', map { my $n = chr(ord('a') + $_); my $p = chr(ord('a') + $_ - 1); "<!ENTITY $n \"" . "&$p;" x 10 . '">' } 1 .. 9) . '<!ENTITY y "&j;">]>' ])
{
	my ($title, $doctype) = @$case;
	my $bucket = 'doctype_' . ($title =~ s/\W/_/gr);
	$peer->control(op => 'object', bucket => $bucket, key => 'x', rows => 1);
	$peer->behave("^/s3/$bucket", { body => "<?xml version=\"1.0\"?>$doctype<ListBucketResult><Contents><Key>k&y;</Key></Contents></ListBucketResult>" }, times => -1);
	feed_of($bucket, server => 'twice');
	$peer->mark;
	takes_at_most(5, $title, sub {
		my $err = fails_with($node, "CALL ingest.run('$bucket')", '[0-9A-Z]{5}', qr/./, "XML with $title");
		unlike($err, qr/canary/, "XML with $title: nothing was read");
	});
	is(scalar(grep { "$_->{path}$_->{target}" =~ /canary|dtd/ } $peer->requests('')), 0, "XML with $title: nothing was asked");
	$peer->forget;
}

# ---- objects that change or go between the listing and their turn

fill('gone', 4, 20);
feed_of('gone', server => 'twice');
$peer->behave('^/s3/gone/', { ops => [ { op => 'remove', bucket => 'gone', key => '2026/part-0060.ndjson' } ] });
my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nCALL ingest.run('gone')", timeout => 30);
like($err, qr/404/, 'an object that is gone: says so') if $rc != 0;
drain($node, 'gone');
is(value($node, 'SELECT count(*), count(DISTINCT id), max(id) FROM gone'), '60|60|59', 'an object that is gone: the others once');
foreach my $honest (1, 0)
{
	my $bucket = "swapped$honest";
	fill($bucket, 3, 20);
	feed_of($bucket, server => 'twice');
	$peer->behave("^/s3/$bucket/.*part-0000", { ops => [ { op => 'object', bucket => $bucket, key => '2026/part-0040.ndjson', rows => 5, first => 900 } ] });
	# a server that does not know If-Match
	$peer->behave("^/s3/$bucket/.*part-0040", { status => 200, headers => { ETag => '"other"' }, body => qq({"id": 900, "title": "title 900"}\n) }) unless $honest;
	my @answer = $node->psql('postgres', "CALL ingest.run('$bucket')", timeout => 30);
	$peer->forget;
	drain($node, $bucket) foreach 1 .. 2;
	is(value($node, "SELECT count(*) FILTER (WHERE id < 40), count(*) FILTER (WHERE id BETWEEN 40 AND 59), count(*) FILTER (WHERE id >= 900), count(DISTINCT id) FILTER (WHERE id >= 900) FROM $bucket"),
		'40|0|5|5', 'an object that changed after it was listed: read as it is now, once' . ($honest ? '' : ', from a server without If-Match'));
}

# ---- a worker that dies in the middle of objects

fill('torn', 6, 500);
feed_of('torn', poll => '200 ms');
$node->safe_psql('postgres', "SELECT ingest.start('torn')");
arrives($node, 'torn', 3000, 'before');
foreach my $point (qw(after-fetch mid-decode before-load before-position before-commit after-commit))
{
	my $pid = worker_pid($node, 'torn');
	my $log = -s $node->logfile;
	$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = '$point:kill:" . ($point eq 'mid-decode' ? 200 : 4) . ":$pid'");
	$node->reload;
	sleep 0.3;
	$peer->mark;
	fill('torn', 2, 500);
	my $died = 0;
	foreach (1 .. 100)
	{
		last if $died = count_log($node, qr/PID $pid\) was terminated by signal 9/, $log);
		sleep 0.05;
	}
	is($died, 1, "killed at $point");
	arrives($node, 'torn', $next{torn}, "killed at $point: goes on", 30);
	all_rows('torn', "torn at $point");
	is(scalar(grep { ($_->{headers}{range} // '') eq '' } $peer->requests('^/s3/torn/')) >= 2, 1, "killed at $point: objects were asked for");
}
$node->safe_psql('postgres', "SELECT ingest.stop('torn')");
check_accounted($node, 'torn', 'torn');

# ---- other formats

fill('sheets', 3, 50, kind => 'csv', key => 'sheet-%d.csv');
feed_of('sheets', format => 'csv', header => 'on', columns => "id bigint, title text, file text OPTIONS (metadata 'file')");
drain($node, 'sheets');
all_rows('sheets', 'sheets');
fill('docs', 3, 50, kind => 'plain', key => 'doc-%d.json');
feed_of('docs', format => 'json');
drain($node, 'docs');
all_rows('docs', 'docs');

# ---- a peek, and many at a time

$peer->mark;
is(value($node, 'SELECT count(*) FROM (SELECT * FROM many_feed LIMIT 3) x'), 3, 'a peek at files');
cmp_ok(scalar $peer->requests(''), '<=', 12, 'a peek does not ask for all of them');
is(count_log($node, qr/PANIC|TRAP:|signal 11|signal 6/), 0, 'nothing worse in the log');
$node->stop('fast');
done_testing();
