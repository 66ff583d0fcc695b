# The HTTP client by itself: answers of every kind, redirects, ceilings, answers
# that break off, streams, addresses, names that take their time, TLS by nginx.
use strict;
use warnings;

use Compress::Zlib ();
use Cwd qw(abs_path);
use IPC::Run;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Certificates;
use IngestTest;

my $json = JSON::PP->new->latin1->canonical;
my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $names = "$dir/names";
my $log = "$dir/requests";
my $answer_file = "$dir/answers";

# In one go: somebody may be reading it.
sub replace_file
{
	my ($path, $text) = @_;
	write_file("$path.new", $text);
	rename "$path.new", $path or die $!;
	return;
}

# ---- certificates

my $tls = "$dir/tls";
mkdir $tls;
make_authority($tls, $_) foreach qw(ca stranger);
my @now = (-86400, 86400);
make_certificate($tls, 'ca', 'good', 'IP:127.0.0.1,DNS:localhost,DNS:good.test', @now);
make_certificate($tls, 'ca', 'wrong', 'DNS:wrong.test', @now);
make_certificate($tls, 'ca', 'late', 'IP:127.0.0.1', -2 * 86400, -86400);
make_certificate($tls, 'ca', 'early', 'IP:127.0.0.1', 86400, 2 * 86400);
make_certificate($tls, 'stranger', 'strange', 'IP:127.0.0.1', @now);
make_certificate($tls, 'ca', 'client', 'DNS:client', @now);
make_certificate($tls, 'stranger', 'faker', 'DNS:client', @now);
PostgreSQL::Test::Utils::system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1',
	'-addext', 'subjectAltName = IP:127.0.0.1', '-keyout', "$tls/self.key", '-out', "$tls/self.crt");

# ---- parts: the server that says what it is told, PostgreSQL, nginx

write_file($log, '');
write_file($answer_file, '{}');
replace_file($names, '');
write_file("$names.log", '');

my %live;
END { kill 'KILL', keys %live if %live }

sub start_part
{
	my ($in, $out, $err) = ('', '', '');
	my $part = IPC::Run::start([@_], '<', \$in, '>', \$out, '2>', \$err);
	$live{ $part->{KIDS}->[0]->{PID} } = 1;
	return ($part, \$out, \$err);
}

my ($raw, $raw_out, $raw_err) = start_part('python3', '-I', 'test/lib/httpraw.py', $log, $answer_file, "$tls/good.crt", "$tls/good.key");
while ($$raw_out !~ /\n/)
{
	die "httpraw.py: $$raw_err" unless $raw->pump;
}
my ($port, $other_port, $tls_port, $silent_port) = split ' ', $$raw_out;
my ($main, $other) = ("http://127.0.0.1:$port", "http://127.0.0.2:$other_port");
my $closed_port = PostgreSQL::Test::Cluster::get_free_port();

# What steps of the server's script a path gets.
my %answers;

sub answer
{
	my (%more) = @_;
	%answers = (%answers, %more);
	replace_file($answer_file, $json->encode(\%answers));
	return;
}

sub say { return [ 'send', join '', @_ ] }
sub head { return join("\r\n", 'HTTP/1.1 ' . shift, @_) . "\r\n\r\n" }
sub whole { my ($body, @headers) = @_; return say(head('200 OK', 'Content-Length: ' . length $body, @headers), $body) }
sub base64 { return [ 'base64', encode_base64($_[0], '') ] }

# Requests that have come since the last question, of paths like that.
my $seen = 0;

sub requests
{
	my ($path) = @_;
	open my $file, '<', $log or die $!;
	seek $file, $seen, 0;
	my @requests = map { $json->decode($_) } <$file>;
	$seen = tell $file;
	return grep { $_->{target} =~ /$path/ } @requests;
}

mkdir "$dir/home";
write_file("$dir/home/.netrc", "machine 127.0.0.1 login nobody password canary-netrc\n");
chmod 0600, "$dir/home/.netrc";

# Proxies that nobody is to ask, and all names of this test.
my $node;
{
	local $ENV{LD_PRELOAD} = abs_path("$ENV{INGEST_TEST_BIN}/names.so");
	local $ENV{INGEST_NAMES} = $names;
	local $ENV{HOME} = "$dir/home";
	local @ENV{qw(http_proxy https_proxy all_proxy HTTPS_PROXY ALL_PROXY)} = ("http://127.0.0.2:$other_port") x 5;
	local $ENV{SSL_CERT_FILE} = "$dir/none";
	$node = start_node('client', preload => 0, extension => 0);
}
my $library = abs_path("$ENV{INGEST_TEST_BIN}/httpclient.so");
$node->safe_psql('postgres', <<"SQL");
CREATE FUNCTION http_run(text[], jsonb) RETURNS jsonb LANGUAGE c AS '$library';
CREATE FUNCTION http_url(text, text, text) RETURNS text LANGUAGE c AS '$library';
CREATE FUNCTION http_count(text) RETURNS integer STRICT LANGUAGE c AS '$library';
CREATE FUNCTION http_test(url text, options jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT http_run(ARRAY[url], options) -> 0';
CREATE ROLE somebody;
SQL

sub literal { return '$_$' . $_[0] . '$_$' }

sub statement
{
	my ($urls, %options) = @_;
	return 'SELECT http_run(ARRAY[' . join(', ', map { literal($_) } @$urls) . '], ' . literal($json->encode(\%options)) . ')';
}

my $slowest = 0;

# Ask for one URL, or several; what came of it.  allow: ingest.http_allow.
sub ask
{
	my ($url, %options) = @_;
	my $allow = delete $options{allow};
	my ($rc, $out, $err) = $node->psql('postgres', "LOAD '$library'; " . (defined $allow ? "SET ingest.http_allow = '$allow'; " : '')
		  . statement(ref $url ? $url : [$url], %options), timeout => 120);
	die "$err\n" unless $rc == 0;
	my @results = @{ $json->decode($out) };
	foreach (@results)
	{
		$slowest = $_->{longest} if $_->{longest} > $slowest;
	}
	return ref $url ? @results : $results[0];
}

sub is_done
{
	my ($result, $body, $name) = @_;
	return is("$result->{state} $result->{status} $result->{body}" . ($result->{message} // ''), "done 200 $body", $name)
	  || diag $json->pretty->encode($result);
}

sub has_failed
{
	my ($result, $class, $sqlstate, $message, $name) = @_;
	return like("$result->{state} " . join(' ', map { $result->{$_} // '-' } qw(class sqlstate message)),
		qr/^failed $class $sqlstate http\S*: $message$/, $name)
	  || diag $json->pretty->encode($result);
}

# ---- answers

answer('/hello' => [ whole('Hello', 'X-One: 1', 'Link: <a>; rel=next', 'x-ONE: 2', 'link: <b>', 'Empty:') ],
	'/none' => [ say(head('204 No Content')) ],
	'/same' => [ say(head('304 Not Modified', 'ETag: "x"', 'Content-Length: 100')) ],
	'/bad' => [ say(head('500 Broken', 'Content-Length: 3'), 'why') ],
	'/chunks' => [ say(head('200 OK', 'Transfer-Encoding: chunked'), "3\r\nabc\r\n2;x=y\r\nde\r\n"), [ 'sleep', 0.1 ],
		say("1\r\nf\r\n0\r\nTrailer: late\r\n\r\n") ],
	'/old' => [ say("HTTP/1.0 200\r\n\r\nuntil the end"), ['close'] ],
	'/early' => [ say(head('100 Continue'), head('103 Early Hints', 'Link: <style>'), head('200 OK', 'Content-Length: 2', 'Link: <real>'), 'ok') ]);

my $result = ask("$main/hello?q=a%20b#part", show => 'X-one,link,empty,none', headers => { 'X-Test' => 'yes', 'X-Empty' => '' },
	user_agent => 'ingest/test');
is_done($result, 'Hello', 'an answer');
is($result->{'X-one'}, '1|2', 'a header that is there twice');
is($result->{link}, '<a>; rel=next|<b>', 'of any case');
is($result->{empty}, '', 'an empty header');
is($result->{none}, undef, 'none');
is($result->{received}, 5, 'bytes received');
my ($request) = requests('^/hello');
is($request->{target}, '/hello?q=a%20b', 'the query is sent, the fragment is not');
is($request->{on}, 'main', 'proxies of the environment are not asked');
is($request->{headers}{authorization}, undef, 'nor is .netrc read');
is($request->{headers}{'x-test'}, 'yes', 'a header');
is($request->{headers}{'x-empty'}, '', 'an empty one');
is($request->{headers}{'user-agent'}, 'ingest/test', 'a name');
like($request->{headers}{'accept-encoding'}, qr/gzip/, 'compression is offered');
ok(!exists $request->{headers}{cookie}, 'no cookies');
ask("$main/hello", compress => 0);
is((requests('^/hello'))[0]{headers}{'accept-encoding'}, undef, 'or is not');

$result = ask("$main/echo", method => 'POST', body => '{"a": 1}', headers => { 'Content-Type' => 'application/json' },
	username => 'u', password => 'p:q');
($request) = requests('^/echo');
is("$request->{method} $request->{body} $request->{headers}{'content-type'} $request->{headers}{authorization}",
	'POST {"a": 1} application/json Basic ' . encode_base64('u:p:q', ''), 'a POST, with basic authentication');
ok(!exists $request->{headers}{expect}, 'that waits for nothing');
ask("$main/echo", method => 'POST', body => 'x' x 3000000);
is(length((requests('^/echo'))[0]{body}), 3000000, 'a long one');

foreach ([ none => 204, '' ], [ same => 304, '' ], [ bad => 500, 'why' ], [ unknown => 404, 'none' ],
	[ chunks => 200, 'abcdef' ], [ old => 200, 'until the end' ], [ early => 200, 'ok' ])
{
	my ($path, $status, $body) = @$_;
	$result = ask("$main/$path", show => 'link');
	is("$result->{state} $result->{status} $result->{body}", "done $status $body", "answer: $path");
	is($result->{link}, '<real>', 'the last headers count') if $path eq 'early';
}

requests('');
my @results = ask([ map { "$main/echo?$_" } 1 .. 6 ], in_turn => 1);
is(scalar(grep { $_->{state} eq 'done' } @results), 6, 'one after the other');
my %connections = map { $_->{connection} => 1 } requests('^/echo');
is(scalar keys %connections, 1, 'over one connection');
@results = ask([ map { "$main/echo?$_" } 1 .. 30 ]);
is(scalar(grep { $_->{state} eq 'done' && $json->decode($_->{body})->{target} =~ /\?\d+/ } @results), 30, 'all at once');
my %targets = map { $_->{target} => 1 } requests('^/echo');
is(scalar keys %targets, 30, 'each has its own answer');

# What is sent must be what was meant.
my $canary = 'canary-header';
foreach ([ 'header with a line break', "$main/echo", headers => { 'X-A' => "a\r\nX-B: $canary" } ],
	[ 'header with a lone line feed', "$main/echo", headers => { 'X-A' => "$canary\nX-B: b" } ],
	[ 'header with a control character', "$main/echo", headers => { 'X-A' => "$canary\x01" } ],
	[ 'name with a line break', "$main/echo", headers => { "X-A: a\r\nX-B" => $canary } ],
	[ 'name with a blank', "$main/echo", headers => { 'X A' => $canary } ],
	[ 'name with a tab', "$main/echo", headers => { "X-A\t" => $canary } ],
	[ 'name with a colon', "$main/echo", headers => { 'X-A:' => $canary } ],
	[ 'empty name', "$main/echo", headers => { '' => $canary } ],
	[ 'URL with a line break', "$main/echo\r\nX-B: $canary" ],
	[ 'URL with a blank', "$main/echo $canary" ],
	[ 'URL with user information', "http://u:$canary\@127.0.0.1:$port/echo" ],
	[ 'a name with a line break', "$main/echo", user_agent => "a\r\nX-B: $canary" ],
	[ 'a service with a line break', "$main/echo", sigv4 => "aws:amz:eu:s3\r\nX-B: $canary", username => 'k', password => 's' ],
	[ 'no URL', '/echo' ],
	[ 'another scheme', "ftp://127.0.0.1/$canary" ],
	[ 'a file', 'file:///etc/passwd' ],
	[ 'a method with a line break', "$main/echo", method => "GET /x HTTP/1.1\r\nX-B: $canary" ],
	[ 'an unknown method', "$main/echo", method => 'DELETE' ],
	[ 'an access key with a line break', "$main/echo", sigv4 => 'aws:amz:eu:s3', username => "k\r\nX-B: $canary", password => 's' ],
	[ 'plain http to elsewhere', "http://192.0.2.1/$canary", allow_http => 0 ])
{
	my ($name, $url, %options) = @$_;
	$result = ask($url, %options);
	is("$result->{state} " . ($result->{class} // ''), 'failed config', "$name: is not sent") or diag $json->encode($result);
	unlike(join(' ', map { $result->{$_} // '' } qw(message detail hint)), qr/$canary/, "$name: is not told") unless $name =~ /scheme|plain/;
}
is(scalar(requests('')), 0, 'nothing was sent');

# What comes is not always what one would like.
answer('/ugly' => [ say(head("200 \e[31mOK", "X-A: a\x01\e[31mb\xff\tc", 'ETag: "' . "\xc3\x28" . '"', 'X-B: b', " folded: $canary"), ''), ['close'] ]);
$result = ask("$main/ugly", show => 'x-a,etag,x-b');
is($result->{state}, 'done', 'control characters in headers');
unlike($result->{'x-a'} . $result->{etag}, qr/[\x00-\x1f\x7f]/, 'are not seen');
like($result->{'x-a'}, qr/^a.*b.*c$/, 'the rest is');

# ---- redirects

sub redirect { my ($status, $to) = @_; return [ say(head("$status Look", "Location: $to", 'Content-Length: 5'), 'there') ] }

answer(map({ ("/r$_" => redirect($_, '/echo?r')) } 301, 302, 303, 307, 308),
	'/far' => redirect(307, '{other}/echo?far'),
	'/back' => redirect(302, '{other}/back2'), '/back2' => redirect(302, '{main}/echo'),
	'/rloop' => redirect(302, '/rloop'),
	'/a/b/rel' => redirect(302, '../c?x=1'), '/a/c' => [ whole('relative') ],
	'/proto' => redirect(302, "//127.0.0.1:$port/hello"),
	map({ ("/hop$_" => redirect(302, '/hop' . ($_ - 1))) } 1 .. 7), '/hop0' => [ whole('landed') ],
	'/rfile' => redirect(302, 'file:///etc/passwd'), '/rftp' => redirect(302, 'ftp://127.0.0.1/x'),
	'/rldap' => redirect(302, 'ldap://127.0.0.1/x'), '/ruser' => redirect(302, "http://u:$canary\@127.0.0.1:$port/echo"),
	'/rnone' => redirect(302, ''), '/rbad' => redirect(302, 'http://[::1/'),
	'/rmissing' => [ say(head('302 Look', 'Content-Length: 5'), 'there') ],
	'/rsplit' => [ say("HTTP/1.1 302 Look\r\nLocation: /echo?a\x0bb\r\nContent-Length: 0\r\n\r\n") ],
	'/rendless' => [ say(head('302 Look', 'Location: /hello', 'Transfer-Encoding: chunked')), [ 'repeat', "1000\r\n" . 'x' x 4096 . "\r\n", -1, 0 ] ],
	'/rquery' => redirect(302, "/cut?token=$canary"));
my %secret = (credentials => { 'X-Key' => $canary }, username => 'u', password => $canary, headers => { 'X-Plain' => 'p' });
requests('');
foreach my $status (301, 302, 303, 307, 308)
{
	$result = ask("$main/r$status", method => 'POST', body => 'b', headers => { 'Content-Type' => 'text/x' });
	is($result->{url}, "$main/echo?r", "$status: where it went");
	my (undef, $second) = requests('');
	my $again = $status >= 307;
	is("$second->{method} $second->{body} " . ($second->{headers}{'content-type'} // '-'), $again ? 'POST b text/x' : 'GET  -',
		"$status: a POST is sent " . ($again ? 'again' : 'as a GET'));
	$result = ask("$main/r$status", form => 1, method => 'POST', body => 'secret');
	is("$result->{status} $result->{body}", "$status there", "$status: a form is not sent anywhere else");
	is(scalar(requests('')), 1, "$status: not at all");
}
ask("$main/r302", %secret);
is((requests('^/echo'))[0]{headers}{'x-key'}, $canary, 'credentials stay with the server');
$result = ask("$main/far", %secret);
is($result->{url}, "$other/echo?far", 'another server');
($request) = requests('^/echo');
is($request->{on}, 'other', 'is asked');
unlike($json->encode($request), qr/$canary|authorization/i, 'without credentials');
ask("$main/back", %secret);
unlike($json->encode([ requests('^/echo') ]), qr/$canary|authorization/i, 'also when it sends us back');
is(ask("$main/a/b/rel")->{body}, 'relative', 'a relative redirect');
is_done(ask("$main/proto"), 'Hello', 'one without a scheme');
is_done(ask("$main/hop5"), 'landed', 'as many as are allowed');
has_failed(ask("$main/hop6"), 'permanent', '54000', 'too many redirects', 'one more');
has_failed(ask("$main/rloop", max_redirects => 3), 'permanent', '54000', 'too many redirects', 'a loop');
has_failed(ask("$main/hop1", max_redirects => 0), 'permanent', '54000', 'too many redirects', 'none is allowed');
foreach my $path (qw(rfile rftp rldap ruser rbad))
{
	$result = ask("$main/$path");
	has_failed($result, 'permanent', '42501', 'redirect is not followed', $path);
	unlike($json->encode($result), qr/$canary/, "$path: nothing is told");
}
is(ask("$main/rmissing")->{status}, 302, 'a redirect to nowhere is an answer');
requests('');
ask("$main/rsplit");
unlike($json->encode([ requests('^/echo') ]), qr/\\u000b/, 'a control character in a redirect is not sent on');
$result = ask("$main/rendless", max_response => 100000, timeout => 5000);
ok($result->{state} eq 'failed' || $result->{body} eq 'Hello', 'a redirect with an endless body ends') or diag $json->encode($result);

# ---- ceilings

my $mega = 'x' x 65536;
my $gzip = sub { Compress::Zlib::memGzip($_[0]) };
my $bomb = $gzip->('a' x 20_000_000);
answer('/endless' => [ say(head('200 OK', 'Transfer-Encoding: chunked')), [ 'repeat', "10000\r\n$mega\r\n", -1, 0 ] ],
	'/liar' => [ say(head('200 OK', 'Content-Length: 99999999999')), [ 'repeat', $mega, -1, 0 ] ],
	'/headers' => [ say("HTTP/1.1 200 OK\r\n"), [ 'repeat', 'X-H: ' . 'x' x 1000 . "\r\n", -1, 0 ] ],
	'/header' => [ say("HTTP/1.1 200 OK\r\nX-H: "), [ 'repeat', $mega, -1, 0 ] ],
	'/tiny' => [ say("HTTP/1.1 200 OK\r\n"), [ 'repeat', "a:\r\n", -1, 0 ] ],
	'/continue' => [ [ 'repeat', "HTTP/1.1 100 Continue\r\n\r\n", -1, 0 ] ],
	'/trailers' => [ say(head('200 OK', 'Transfer-Encoding: chunked'), "1\r\nx\r\n0\r\n"), [ 'repeat', 'X-T: ' . 'x' x 1000 . "\r\n", -1, 0 ] ],
	'/bomb' => [ say(head('200 OK', 'Content-Encoding: gzip', 'Content-Length: ' . length $bomb)), base64($bomb) ],
	'/bomb2' => [ say(head('200 OK', 'Content-Encoding: gzip, gzip', 'Content-Length: ' . length $gzip->($bomb))), base64($gzip->($bomb)) ],
	'/many' => [ say(head('200 OK', 'Content-Encoding: ' . join(',', ('gzip') x 50), 'Content-Length: 5')), say('abcde') ],
	'/zipped' => [ say(head('200 OK', 'Content-Encoding: gzip', 'Content-Length: ' . length $gzip->('zipped'))), base64($gzip->('zipped')) ],
	'/unzipped' => [ whole('this is not gzip', 'Content-Encoding: gzip') ],
	'/size' => [ whole('x' x 1000) ]);
is_done(ask("$main/zipped"), 'zipped', 'a compressed answer');
foreach ([ endless => 'a body without an end' ], [ liar => 'a huge body' ], [ bomb => 'a bomb' ], [ bomb2 => 'a bomb in a bomb' ])
{
	my ($path, $name) = @$_;
	$result = ask("$main/$path", max_response => 1_000_000);
	has_failed($result, 'permanent', '54000', 'answer is larger than it may be', $name);
	cmp_ok($result->{received}, '<=', 1_000_000, "$name: not more was kept");
	like($result->{detail}, qr/"max_response".* 1000000 /, "$name: what it may be");
}
is(ask("$main/size", max_response => 1000)->{state}, 'done', 'as large as it may be');
is(ask("$main/size", max_response => 999)->{state}, 'failed', 'larger by a byte');
foreach ([ headers => 'headers without an end' ], [ header => 'one without an end' ], [ tiny => 'many' ],
	[ continue => 'answers before the answer' ], [ trailers => 'trailers' ])
{
	my ($path, $name) = @$_;
	$result = ask("$main/$path", max_headers => 100_000, timeout => 10000);
	has_failed($result, 'permanent', '54000', 'answer has more headers than it may have', $name);
}
isnt(ask("$main/many")->{state}, 'done', 'too many encodings');
isnt(ask("$main/unzipped")->{state}, 'done', 'what cannot be unpacked');

# ---- what breaks off

answer('/cut' => [ say(head('200 OK', 'Content-Length: 100'), 'only this'), ['close'] ],
	'/cutchunk' => [ say(head('200 OK', 'Transfer-Encoding: chunked'), "5\r\nabcde\r\n"), ['close'] ],
	'/cutin' => [ say(head('200 OK', 'Transfer-Encoding: chunked'), "50\r\nabc"), ['close'] ],
	'/badchunk' => [ say(head('200 OK', 'Transfer-Encoding: chunked'), "zz\r\nabc\r\n0\r\n\r\n"), ['close'] ],
	'/cuthead' => [ say("HTTP/1.1 200 OK\r\nContent-Le"), ['close'] ],
	'/nothing' => [ ['close'] ], '/reset' => [ ['reset'] ],
	'/resetbody' => [ say(head('200 OK', 'Content-Length: 100'), 'half'), [ 'sleep', 0.1 ], ['reset'] ],
	'/banner' => [ say("SSH-2.0-OpenSSH_9.2\r\n"), ['close'] ],
	'/lengths' => [ say(head('200 OK', 'Content-Length: 5', 'Content-Length: 7'), 'abcdefg'), ['close'] ]);
foreach my $path (qw(cut cutchunk cutin badchunk cuthead nothing reset resetbody banner lengths))
{
	has_failed(ask("$main/$path?token=$canary"), 'transient', '08006', 'connection failed', "breaks off: $path");
}
$result = ask("$main/rquery");
has_failed($result, 'transient', '08006', 'connection failed', 'breaks off after a redirect');
unlike($json->encode({ %$result, url => '' }), qr/$canary/, 'no query is told');
is($result->{message}, "$main/cut: connection failed", 'it is the last hop that is named');
has_failed(ask("http://127.0.0.1:$closed_port/"), 'transient', '08001', 'could not connect', 'a closed port');

# ---- time

answer('/never' => [ [ 'sleep', 60 ] ],
	'/drip' => [ say(head('200 OK', 'Content-Length: 1000')), [ 'repeat', 'x', 1000, 0.1 ] ],
	'/driphead' => [ say("HTTP/1.1 200 OK\r\nX-A: "), [ 'repeat', 'x', 1000, 0.1 ] ],
	'/stall' => [ say(head('200 OK', 'Content-Length: 1000'), 'half'), [ 'sleep', 60 ] ]);
foreach ([ 'never answers', "$main/never", timeout => 1000 ], [ 'drips', "$main/drip", timeout => 1500 ],
	[ 'drips headers', "$main/driphead", timeout => 1500 ], [ 'is silent', "$main/never", idle_timeout => 1000 ],
	[ 'stalls', "$main/stall", idle_timeout => 1000 ], [ 'stalls in a stream', "$main/stall", idle_timeout => 1000, stream => 1000 ],
	[ 'says nothing to TLS', "https://127.0.0.1:$silent_port/", connect_timeout => 1000 ])
{
	my ($name, $url, %options) = @$_;
	$result = ask("$url?token=$canary", %options);
	has_failed($result, 'transient', '08006', 'no answer in time', "a peer that $name");
	cmp_ok($result->{ms}, '<', 6000, "a peer that $name: not for long");
	cmp_ok($result->{ms}, '>=', 950, "a peer that $name: not too early");
	unlike($result->{detail}, qr/$canary/, "a peer that $name: no query is told");
}

# ---- streams

my $lines = join '', map { "line $_\n" } 1 .. 200_000;
my $md5 = do { require Digest::MD5; Digest::MD5::md5_hex($lines) };
my $zipped = $gzip->($lines);
answer('/lines' => [ say(head('200 OK', 'Content-Length: ' . length $lines)), base64($lines) ],
	'/zlines' => [ say(head('200 OK', 'Content-Encoding: gzip', 'Content-Length: ' . length $zipped)), base64($zipped) ]);
foreach my $path (qw(lines zlines))
{
	foreach my $piece (1000, 65536, 1_500_000, 10_000_000)
	{
		$result = ask("$main/$path", stream => $piece);
		is("$result->{state} $result->{length} $result->{md5}", "done @{[ length $lines ]} $md5", "stream $path in pieces of $piece");
	}
}
$result = ask("$main/bomb", stream => 100_000, hold => 500);
is("$result->{state} $result->{length}", 'done 20000000', 'what unpacks to more than is let in');
cmp_ok($result->{most}, '<', 4_000_000, 'is let in by and by');
$result = ask("$main/endless", stream => 100_000, hold => 1500, enough => 3_000_000);
is($result->{state}, 'running', 'a stream without an end goes on');
cmp_ok($result->{most}, '<', 4_000_000, 'its peer is held up');
has_failed(ask("$main/cut", stream => 5), 'transient', '08006', 'connection failed', 'a stream that breaks off');
is(ask("$main/bad", stream => 100)->{body}, 'why', 'an error is no stream');
$result = ask("$main/echo", range_from => 500);
is((requests('^/echo'))[-1]{headers}{range}, 'bytes=500-', 'from a byte on');

# ---- addresses

sub looked_up { return scalar slurp_file("$names.log") }

# Whatever it looks like, it is where it is connected to.
my @spellings = ("127.0.0.1:$port", "127.1:$port", "127.0.1:$port", "0x7f000001:$port", "0x7f.1:$port", "017700000001:$port",
	"0177.0.0.1:$port", "2130706433:$port", "[::ffff:127.0.0.1]:$port", "[::ffff:7f00:1]:$port", "[::127.0.0.1]:$port", "[::1]:$port",
	"0:$port", "0.0.0.0:$port", "[::]:$port", "localhost:$port", "127.0.0.2:$other_port", "127.255.255.254:$port");
my $forbidden = qr/^failed transient 08001 \S+: could not connect [^|]*ingest\.http_allow/;
write_file("$names.log", '');
@results = ask([ map { "http://$_/hello" } @spellings ], trusted => 0);
foreach my $i (0 .. $#spellings)
{
	my $r = $results[$i];
	like(join(' ', $r->{state}, map { $r->{$_} // '-' } qw(class sqlstate message hint)), $forbidden, "not for everybody: $spellings[$i]");
}
unlike(looked_up(), qr/connect .*:($port|$other_port)\b/, 'nothing was connected to');
is(scalar(requests('^/hello')), 0, 'nothing came');

my @networks = qw(0.0.0.1 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 100.100.100.200 127.0.0.53 169.254.169.254 169.254.0.1 172.16.0.1
  172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
  239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::7f00:1 64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1
  2001:db8::1 2002:7f00:1::1 fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 fec0::1 ff02::1);
replace_file($names, join '', map { "n$_.test 0 $networks[$_]\n" } 0 .. $#networks);
write_file("$names.log", '');
@results = ask([ map { "http://n$_.test/" } 0 .. $#networks ], trusted => 0);
is(join(' ', map { $results[$_]{state} eq 'failed' && $results[$_]{message} eq "http://n$_.test/: could not connect" ? () : $networks[$_] } 0 .. $#networks),
	'', 'no special network is for everybody');
my %tried = map { $_ => 1 } looked_up() =~ /connect \[?([0-9a-f.:]+?)\]?:80$/mg;
is(join(' ', grep { $tried{$_} } @networks), '', 'none was connected to');
is(scalar(() = looked_up() =~ /^name n\d+\.test/mg), scalar @networks, 'each name was looked up');
is(join(' ', grep { !/ blocked$/ } looked_up() =~ /^(name .*)$/mg), '', 'by a thread that takes no signals');

# One that changes between two looks, and one that is both.
replace_file($names, "rebind.test 0 192.0.2.7\nrebind.test 0 127.0.0.1\nboth.test 0 10.1.2.3 127.0.0.1\ngood.test 0 127.0.0.1\n");
@results = ask([ map { "http://rebind.test:$port/hello?$_" } 1 .. 4 ], trusted => 0, in_turn => 1);
is(scalar(grep { $_->{state} eq 'failed' } @results), 4, 'a name that changes');
$result = ask("http://both.test:$port/hello", trusted => 0, allow => '127.0.0.0/8');
is_done($result, 'Hello', 'the next address of a name is tried');
unlike(looked_up(), qr/connect 10\.1\.2\.3/, 'the forbidden one is not');
write_file("$names.log", '');
answer('/rinside' => redirect(302, '{other}/hello'));
$result = ask("$main/rinside", trusted => 0, allow => '127.0.0.1');
is($result->{message}, "$other/hello: could not connect", 'redirects do not lead inside');
my $refused = ask("http://127.0.0.1:$closed_port/", trusted => 0, allow => '127.0.0.1');
my $hidden = ask("http://127.0.0.1:$closed_port/", trusted => 0);
my $inside = ask("http://10.0.0.1:$closed_port/", trusted => 0);
delete @{$_}{qw(ms longest)} foreach $refused, $hidden, $inside;
is_deeply($hidden, $refused, 'forbidden and closed look the same');
$inside->{$_} =~ s/10\.0\.0\.1/127.0.0.1/ foreach qw(message url);
is_deeply($inside, $refused, 'everywhere');
is_done(ask("$main/hello", trusted => 0, allow => ' 10.0.0.0/8,127.0.0.1/32 ,fd00::/8'), 'Hello', 'what is allowed');
is_done(ask("http://[::ffff:127.0.0.1]:$port/hello", trusted => 0, allow => '127.0.0.0/8'), 'Hello', 'in all its forms');
is(ask("$main/hello", trusted => 0, allow => '127.0.0.2')->{state}, 'failed', 'and nothing else');
is_done(ask("http://good.test:$port/hello"), 'Hello', 'superusers may');
has_failed(ask("http://unknown.test/"), 'transient', '08001', q(could not find the host's address), 'a name that is not known');
replace_file($names, "plain.test 0 127.0.0.1\nelse.test 0 127.0.0.1 192.0.2.1\nlocalhost.test 0 192.0.2.1\n");
has_failed(ask("http://localhost.test/", allow_http => 0), 'transient', '08001', 'could not connect', 'plain http to what is not here');
unlike(looked_up(), qr/connect 192\.0\.2\.1/, 'is not tried');

foreach my $list ('x', '10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/', 'fd00::/129', '10.0.0', 'localhost', '127.0.0.1;10.0.0.1')
{
	my ($rc, undef, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nLOAD '$library'; SET ingest.http_allow = '$list'");
	like($err, qr/ERROR:  22023: .*\n.*is no address or network/, "setting: $list");
}
my (undef, undef, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nLOAD '$library'; SET ROLE somebody; SET ingest.http_allow = '0.0.0.0/0'");
like($err, qr/ERROR:  42501/, 'the setting is for superusers');

# ---- giving up

replace_file($names, "slow.test 3000 127.0.0.1\nslower.test 4000 127.0.0.1\n");

# Cancel a session once it waits; seconds until it is over, and what it said.
sub cancel
{
	my (@urls) = @_;
	my ($out, $err) = ('', '');
	my $session = IPC::Run::start([ 'psql', '-XAt', '-d', $node->connstr('postgres') . ' application_name=victim', '-c', "LOAD '$library'",
			'-c', statement(\@urls, connect_timeout => 60000, timeout => 60000, idle_timeout => 60000),
			'-c', q(SELECT http_count('/proc/self/fd'), http_count('/proc/self/task')) ], '>', \$out, '2>', \$err);
	my $waits = q(FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event = 'Extension');
	$node->poll_query_until('postgres', "SELECT count(*) = 1 $waits");
	sleep 0.3;
	my $begin = time;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) $waits");
	while ($err !~ /canceling/ && time < $begin + 20)
	{
		$session->pump_nb;
		sleep 0.01;
	}
	my $taken = time - $begin;
	$session->finish;
	return ($taken, $err, $out);
}

foreach ([ 'a name', 'http://slow.test/' ], [ 'TLS', "https://127.0.0.1:$silent_port/" ], [ 'an answer', "$main/never" ],
	[ 'a body', "$main/drip" ], [ 'many', map { ("$main/never?$_", "http://slower.test:$port/$_", "https://127.0.0.1:$silent_port/$_") } 1 .. 10 ])
{
	my ($name, @urls) = @$_;
	my ($taken, $said) = cancel(@urls);
	like($said, qr/canceling statement due to user request/, "cancel while waiting for $name");
	cmp_ok($taken, '<', 1, "cancel while waiting for $name: within a second");
}

# In one session: nothing is left, also of look-ups that went on after their end.
my $pair = statement([ 'http://slow.test/', "$main/hello" ], timeout => 500, connect_timeout => 500);
my @left = split /\n/, $node->safe_psql('postgres', "LOAD '$library'; " . statement(["$main/hello"]) . "; SELECT pg_sleep(0.1);
SELECT 'fds ' || http_count('/proc/self/fd'); SELECT 'threads ' || http_count('/proc/self/task');
$pair; $pair; $pair;
SELECT 'threads ' || http_count('/proc/self/task');
SELECT pg_sleep(4);
SELECT 'fds ' || http_count('/proc/self/fd'); SELECT 'threads ' || http_count('/proc/self/task');");
my @fds = map { /^fds (\d+)/ } @left;
my @threads = map { /^threads (\d+)/ } @left;
is($fds[1], $fds[0], 'no descriptors are left');
cmp_ok($threads[1], '>', $threads[0], 'look-ups go on when nobody waits for them');
is($threads[2], $threads[0], 'and come to an end');
my $begin = time;
$node->safe_psql('postgres', "LOAD '$library'; " . statement(['http://slower.test/'], timeout => 300));
cmp_ok(time - $begin, '<', 3, 'nor does the end of a session wait for one');
is($node->safe_psql('postgres', 'SELECT 1'), 1, 'the server is well');

# ---- TLS, by nginx

my %ports = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(good wrong late early strange self mutual plain old);
mkdir "$dir/www";
my $rows = join '', map { "{\"id\": $_, \"text\": \"row $_\"}\n" } 1 .. 50_000;
write_file("$dir/www/rows.ndjson", $rows);
write_file("$dir/www/small.json", '[1, 2, 3]');
my $server = sub {
	my ($name, $more) = @_;
	return "server {\nlisten 127.0.0.1:$ports{$name} ssl http2;\nssl_certificate $tls/$name.crt;\nssl_certificate_key $tls/$name.key;\n" . ($more // '') . "}\n";
};
write_file("$dir/nginx.conf", <<"CONF");
daemon off;
pid $dir/nginx.pid;
error_log $dir/nginx.err;
worker_processes 1;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3; uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
	root $dir/www;
	types { application/json json; application/x-ndjson ndjson; }
	gzip on; gzip_min_length 100; gzip_types application/x-ndjson;
	add_header X-Protocol "\$server_protocol \$connection" always;
	add_header X-Verified "\$ssl_client_verify \$ssl_client_s_dn" always;
@{[ $server->('good', "location = /down { return 302 http://127.0.0.1:$ports{plain}/small.json; }
location = /up { return 302 https://127.0.0.1:$ports{mutual}/small.json; }
location = /slow { limit_rate 1k; alias $dir/www/rows.ndjson; }\n") ]}
@{[ $server->('wrong') ]} @{[ $server->('late') ]} @{[ $server->('early') ]} @{[ $server->('strange') ]} @{[ $server->('self') ]}
server { listen 127.0.0.1:$ports{mutual} ssl http2; ssl_certificate $tls/good.crt; ssl_certificate_key $tls/good.key;
	ssl_client_certificate $tls/ca/ca.pem; ssl_verify_client on; }
server { listen 127.0.0.1:$ports{old} ssl; ssl_protocols TLSv1.1; ssl_ciphers ALL:\@SECLEVEL=0; ssl_certificate $tls/good.crt; ssl_certificate_key $tls/good.key; }
server { listen 127.0.0.1:$ports{plain}; location = /up { return 301 https://127.0.0.1:$ports{good}/small.json; } }
}
CONF
my ($nginx, undef, $nginx_err) = start_part('/usr/sbin/nginx', '-p', $dir, '-e', "$dir/nginx.err", '-c', "$dir/nginx.conf");
my %base = map { $_ => ($_ eq 'plain' ? 'http' : 'https') . "://127.0.0.1:$ports{$_}" } keys %ports;
my %ca = (ca => scalar slurp_file("$tls/ca/ca.pem"));
my %client = (client_cert => scalar slurp_file("$tls/client.crt"), client_key => scalar slurp_file("$tls/client.key"));
foreach (1 .. 100)
{
	last if ask("$base{plain}/small.json")->{state} eq 'done';
	$nginx->pump_nb;
	sleep 0.1;
}

$result = ask("$base{good}/small.json", %ca, show => 'x-protocol,content-type');
answer('/until' => [ say("HTTP/1.1 200 OK\r\n\r\n[1, 2]"), ['bye'] ]);
is_done(ask("https://127.0.0.1:$tls_port/until", %ca), '[1, 2]', 'an answer that ends with its connection');
has_failed(ask("https://127.0.0.1:$tls_port/cut", %ca), 'transient', '08006', 'connection failed', 'one that is cut');
is_done($result, '[1, 2, 3]', 'TLS, with the authority given');
like($result->{'x-protocol'}, qr/^HTTP\/2\.0 /, 'HTTP/2');
is($result->{'content-type'}, 'application/json', 'with headers of their own');
replace_file($names, "good.test 0 127.0.0.1\nevil.test 0 127.0.0.1\n");
is_done(ask("https://good.test:$ports{good}/small.json", %ca), '[1, 2, 3]', 'by its name');
foreach ([ 'a name it does not have', "https://evil.test:$ports{good}", %ca ], [ 'another name', $base{wrong}, %ca ],
	[ 'has expired', $base{late}, %ca ], [ 'is of tomorrow', $base{early}, %ca ], [ 'another authority', $base{strange}, %ca ], [ 'its own authority', $base{self}, %ca ],
	[ 'unknown to the system', $base{good} ], [ 'no authority at all', $base{good}, ca => "no PEM\n" ])
{
	my ($name, $url, %options) = @$_;
	$result = ask("$url/small.json?$canary", %options);
	has_failed($result, 'permanent', '08001', 'TLS failed', "certificate: $name");
	unlike($json->encode({ %$result, url => '' }), qr/$canary/, "certificate: $name: no query is told");
	ok($result->{detail}, "certificate: $name: why") and note $result->{detail};
}
isnt(ask("$base{old}/small.json", %ca)->{state}, 'done', 'TLS 1.1 is too old');
isnt(ask("$base{plain}/small.json" =~ s/http:/https:/r, %ca)->{state}, 'done', 'TLS with who does not speak it');
$result = ask("$base{mutual}/small.json", %ca, %client, show => 'x-verified');
is_done($result, '[1, 2, 3]', 'a certificate of ours');
is($result->{'x-verified'}, 'SUCCESS CN=client', 'is shown');
isnt(ask("$base{mutual}/small.json", %ca)->{status}, 200, 'without it there is nothing');
isnt(ask("$base{mutual}/small.json", %ca, client_cert => scalar slurp_file("$tls/faker.crt"), client_key => scalar slurp_file("$tls/faker.key"))->{status},
	200, 'nor with one of a stranger');
$result = ask("$base{mutual}/small.json", %ca, %client, client_key => scalar slurp_file("$tls/faker.key"));
is("$result->{state} $result->{class}", 'failed permanent', 'a key that does not fit');
$result = ask("$base{good}/up", %ca, %client, show => 'x-verified');
isnt($result->{status}, 200, 'our certificate is not shown elsewhere');
has_failed(ask("$base{good}/down", %ca), 'permanent', '42501', 'redirect is not followed', 'not from https to http');
is_done(ask("$base{plain}/up", %ca), '[1, 2, 3]', 'from http to https');

# Many over one connection, compressed, by pieces, from the middle.
my $rows_md5 = Digest::MD5::md5_hex($rows);
@results = ask([ map { "$base{good}/rows.ndjson?$_" } 1 .. 20 ], %ca, show => 'x-protocol,content-encoding');
is(scalar(grep { $_->{state} eq 'done' && $_->{md5} eq $rows_md5 } @results), 20, 'large ones, all at once');
is($results[0]{'content-encoding'}, 'gzip', 'compressed');
@results = ask([ map { "$base{good}/rows.ndjson?$_" } 1 .. 8 ], %ca, stream => 5000, hold => 300);
is(scalar(grep { $_->{state} eq 'done' && $_->{md5} eq $rows_md5 } @results), 8, 'streams that are held up, of one connection');
@results = ask([ map { "$base{good}/small.json?$_" } 1 .. 5 ], %ca, in_turn => 1, show => 'x-protocol');
my %used = map { $_->{'x-protocol'} => 1 } @results;
is(scalar keys %used, 1, 'a connection is used again');
$result = ask("$base{good}/rows.ndjson", %ca, range_from => 1_000_000, stream => 10_000, show => 'content-encoding');
is("$result->{status} $result->{md5}", '206 ' . Digest::MD5::md5_hex(substr $rows, 1_000_000), 'the rest of one');
has_failed(ask("$base{good}/slow", %ca, timeout => 1500, compress => 0), 'transient', '08006', 'no answer in time', 'HTTP/2: slowly');

# A server that ends in the middle of it.
my ($out2, $err2) = ('', '');
my $asked = IPC::Run::start([ 'psql', '-XAt', '-d', $node->connstr('postgres'), '-c',
		statement([ map { "$base{good}/slow?$_" } 1 .. 3 ], %ca, compress => 0) ], '>', \$out2, '2>', \$err2);
sleep 1.5;
kill 'TERM', slurp_file("$dir/nginx.pid") =~ /(\d+)/;
$asked->finish;
@results = @{ $json->decode($out2) };
is(scalar(grep { $_->{state} eq 'failed' && $_->{class} eq 'transient' && $_->{sqlstate} eq '08006' } @results), 3, 'a server that ends') or diag $out2;
delete $live{ $nginx->{KIDS}->[0]->{PID} };
$nginx->finish;

# ---- URLs

sub url
{
	my ($what, $a, $b) = @_;
	my ($rc, $out, $said) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT http_url('$what', " . literal($a) . ', '
		  . (defined $b ? literal($b) : 'NULL') . ')');
	return $rc == 0 ? $out : $said =~ /ERROR:  (\w+)/ ? $1 : $said;
}
is(url('public', $_->[0]), $_->[1], "public: $_->[0]") foreach (
	[ 'https://u:p@h.example:8443/a/b?key=secret#part' => 'https://h.example:8443/a/b' ],
	[ 'https://h.example' => 'https://h.example/' ], [ 'http://[fd00::1]/x?y' => 'http://[fd00::1]/x' ],
	[ 'nonsense with secret' => 'a URL that cannot be read' ]);
is(url('resolve', 'https://h.example/a/b?c#d', $_->[0]), $_->[1], "resolve: $_->[0]") foreach (
	[ 'x', 'https://h.example/a/x' ], [ '/x?y=z', 'https://h.example/x?y=z' ], [ '../x', 'https://h.example/x' ], [ '?p=2', 'https://h.example/a/b?p=2' ],
	[ '//o.example/x', 'https://o.example/x' ], [ 'http://o.example', 'http://o.example/' ], [ '#z', 'https://h.example/a/b?c' ],
	[ 'ftp://h.example/', '' ], [ 'https://u@h.example/', '' ], [ 'https://u:p@h.example/', '' ], [ 'javascript:alert(1)', '' ],
	[ "a\nb", '' ], [ 'a b', '' ], [ 'file:///etc/passwd', '' ]);
is(url('same', 'https://h.example/a', $_->[0]), $_->[1], "same origin: $_->[0]") foreach (
	[ 'https://H.example:443/b?c', 'yes' ], [ 'http://h.example/a', 'no' ], [ 'https://h.example:8443/a', 'no' ], [ 'https://www.h.example/', 'no' ],
	[ 'https://h.example.evil.example/', 'no' ], [ 'nonsense', 'no' ]);
is(url('check', $_->[0]), $_->[1], "check: $_->[0]") foreach (
	[ 'https://api.example.com/v2', 'good' ], [ 'http://127.0.0.1:80/{page}?x={cursor}', 'good' ], [ 'api.example.com', 'HV024' ], [ 'ftp://x/', 'HV024' ],
	[ 'https://u:p@x/', 'HV024' ], [ 'https://', 'HV024' ], [ 'https:///x', 'HV024' ], [ 'https://x/a b', 'HV024' ], [ "https://x/\n", 'HV024' ], [ '', 'HV024' ]);

note "the longest call took $slowest ms";
cmp_ok($slowest, '<', 1000, 'no call waits for anything');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$raw->kill_kill(grace => 1);
delete $live{ $raw->{KIDS}->[0]->{PID} };
$node->stop;
done_testing();
