# Failures D of an HTTP source: what a server can do wrong, each with its outcome;
# afterwards the table has what the server has, each row once.
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

my $dir = PostgreSQL::Test::Utils::tempdir;

sub openssl { PostgreSQL::Test::Utils::system_or_bail('openssl', @_); return }

foreach my $ca (qw(ours theirs))
{
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', "/CN=$ca", '-keyout', "$dir/$ca.ca.key", '-out', "$dir/$ca.ca.pem");
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=127.0.0.1', '-keyout', "$dir/$ca.key", '-out', "$dir/$ca.csr");
	append_to_file("$dir/ext", "subjectAltName = IP:127.0.0.1\n") unless -e "$dir/ext";
	openssl('x509', '-req', '-in', "$dir/$ca.csr", '-CA', "$dir/$ca.ca.pem", '-CAkey', "$dir/$ca.ca.key", '-CAcreateserial', '-days', '2',
		'-extfile', "$dir/ext", '-out', "$dir/$ca.crt");
}

my $peer = HttpPeer->new(tls => [ "$dir/ours.crt", "$dir/ours.key" ]);
my $node = start_node('faults', conf => <<'CONF');
restart_after_crash = on
fsync = off
ingest.retry_min = '20ms'
ingest.retry_max = '500ms'
CONF

# Each case has a server of its own: back-off and pauses are a server's.
my $servers = 0;

sub new_api
{
	my (%options) = @_;
	my $name = 'api' . ++$servers;
	create_api($node, $name, delete $options{url} // $peer->url, %options);
	return $name;
}

my %page = (rows => '$.items[*]', pagination => 'page', page_size => 20);
my %since = (%page, cursor => 'updated_at', cursor_start => '2025-01-01T00:00:00Z');

# A data set of so many rows and a feed of its pages; in a server of its own.
sub new_feed
{
	my ($name, $count, %args) = @_;
	$peer->control({ op => 'load', name => $name, rows => [] }, { op => 'generate', name => $name, count => $count });
	create_feed($node, $name, new_api(%{ $args{server} // {} }), %args,
		options => { path => "/page/$name", %page, %{ $args{options} // {} } });
	return;
}

# What is wrong stops it, in the foreground with this error and in background in
# this state; nothing is read beyond it; when it is over all goes on.
sub stops
{
	my ($name, $sqlstate, $like, $title, %args) = @_;
	my $before = value($node, "SELECT count(*) FROM $name");
	my $err = fails_with($node, "CALL ingest.run('$name')", $sqlstate, $like, $title);
	unlike($err, qr/server closed the connection|terminated/, "$title: the server is well");
	is(value($node, "SELECT count(*) - count(DISTINCT id) FROM $name"), 0, "$title: nothing twice");
	is(value($node, "SELECT count(*) FROM $name"), $before + ($args{rows} // 0), "$title: rows until then") if defined $args{rows};
	if ($args{state})
	{
		$node->safe_psql('postgres', "SELECT ingest.start('$name')");
		my $pattern = $like =~ s/^\(\?\^?\w*:(.*)\)$/$1/sr;
		wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$name' AND last_error ~ '$pattern'", $args{state},
			"$title: state $args{state}, and why", 20);
		$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
	}
	is(value($node, "SELECT count(*) - count(DISTINCT id) FROM $name"), 0, "$title: after another start nothing twice") if $args{state};
	return unless $args{heals} // 1;
	$peer->forget;
	drain($node, $name);
	check_rows($node, $peer, $name, $args{set} // $name, "$title: goes on");
	check_accounted($node, $name, $title);
	return;
}

# ---- D01: a worker dies between fetching and committing

my $fed = 0;
my %crawls = (
	paged => { options => { %since, path => '/page/paged?since={cursor}&sort=updated_at' } },
	tokens => { options => { %since, path => '/token/tokens?since={cursor}&sort=updated_at', pagination => 'token', next => '$.meta.next_cursor' } },
	lines => { options => { path => '/ndjson/lines?since={cursor}&etag=strong', format => 'ndjson', cursor => 'updated_at', cursor_start => '2025-01-01' } },
	sheet => { options => { path => '/csv/sheet?since={cursor}&range=no', format => 'csv', header => 'on', cursor => 'updated_at', cursor_start => '2025-01-01' },
		columns => 'id bigint, title text, updated_at timestamptz' },
);
foreach my $name (sort keys %crawls)
{
	my %options = %{ $crawls{$name}{options} };
	delete @options{qw(rows)} unless $name =~ /paged|tokens/;
	create_feed($node, $name, new_api(), columns => $crawls{$name}{columns}, options => \%options,
		pipeline => '{"batch_rows": 30, "batch_wait": "10 ms"}');
	$peer->control(op => 'load', name => $name, rows => []);
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
}

# 150 more rows for all of them; two at a time have the same time.
sub feed
{
	$peer->control(map { { op => 'generate', name => $_, first => $fed, count => 150, equal => 2, step => 1 } } keys %crawls);
	$fed += 150;
	return;
}

sub all_arrives
{
	my ($name) = @_;
	my $ok = 1;
	foreach my $crawl (sort keys %crawls)
	{
		$ok &= arrives($node, $crawl, $fed, "$name: $crawl goes on by itself", 30);
		$ok &= check_rows($node, $peer, $crawl, $crawl, "$name: $crawl",
			$crawl eq 'sheet' ? (content => "jsonb_build_object('id', id, 'title', title, 'updated_at', to_char(updated_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))", only => 'id title updated_at') : ());
	}
	return $ok;
}

feed();
all_arrives('D01: before') or BAIL_OUT('nothing works');
my @points = qw(after-fetch mid-decode before-load after-load before-position before-commit after-commit before-acknowledge);
RUN: foreach my $action (qw(kill exit error))
{
	foreach my $point (@points)
	{
		# Pages are written one by one, without a full batch.
		my $victim = (sort keys %crawls)[ $point eq 'after-fetch' ? (0, 2)[ rand 2 ] : rand 4 ];
		my $name = "D01: $action at $point of $victim";
		my $pid = worker_pid($node, $victim);
		my $log = -s $node->logfile;
		my $skip = $point eq 'mid-decode' ? 70 : $point eq 'after-fetch' ? 1 : 2;
		$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = '$point:$action:$skip:$pid'");
		$node->reload;
		sleep 0.3;
		feed();
		my $hit = $action eq 'error' ? qr/fault at "$point"/
		  : $action eq 'exit' ? qr/PID $pid\) exited with exit code 1/ : qr/PID $pid\) was terminated by signal 9/;
		my $times = 0;
		foreach (1 .. 200)
		{
			last if $times = count_log($node, $hit, $log);
			sleep 0.05;
		}
		is($times, 1, "$name: was met");
		all_arrives($name) or last RUN;
	}
}
check_accounted($node, $_, "D01: $_") foreach sort keys %crawls;
$node->safe_psql('postgres', "ALTER SYSTEM RESET ingest.fault; SELECT ingest.stop(name) FROM ingest.pipeline");
$node->reload;
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '0', 'D01: stopped');

# Also in the foreground: what was committed is committed, the rest is read again.
new_feed('front', 200, options => { path => '/page/front' });
$peer->behave('^/page/front', { reset => 'at once' }, skip => 4, times => -1);
$peer->mark;
stops('front', '08006', qr/front/, 'D01: broken off in the foreground', rows => 80);
is((grep { $_->{query}{page} == 1 } $peer->requests('/front')), 1, 'D01: the first page was asked for once');

# ---- D02: rows that shift between pages, and pages that come twice

foreach my $shift (5, 25, 45)
{
	my $name = "shift$shift";
	new_feed($name, 200, options => { key => 'id' });
	$peer->behave("^/page/$name\\?page=3", { ops => [ { op => 'insert', name => $name, at => 0,
		rows => [ map { { id => 1000 + $_, title => "new $_", updated_at => '2026-03-01T00:00:00Z' } } 1 .. $shift ] } ] });
	drain($node, $name);
	is(value($node, "SELECT count(*), count(DISTINCT id) FROM $name WHERE id < 1000"), '200|200', "D02: $shift rows inserted while paging: nothing twice");
	check_accounted($node, $name, "D02: $shift rows inserted");
}

# Newest first, with a mark and a lag: what slipped through is found by the next crawl.
new_feed('slip', 100, options => { %since, path => '/page/slip?since={cursor}', key => 'id', lag => '1 day' });
$peer->behave('^/page/slip.*page=3', { ops => [ { op => 'delete', name => 'slip', ids => [ 0 .. 6 ] } ] });
drain($node, 'slip');
is(value($node, 'SELECT count(*) FROM slip'), 93, 'D02: rows deleted while paging: some slip through');
drain($node, 'slip');
is(value($node, 'SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE id > 6) FROM slip'), '100|100|93', 'D02: and are found within the lag');

# ---- D03: pages without an end

foreach my $case (
	[ 'same', { pagination => 'token', next => '$.meta.next_cursor' }, 2 ], [ 'cycle', { pagination => 'token', next => '$.meta.next_cursor' }, 6 ],
	[ 'self', { pagination => 'next_url', next => '$.links.next' } ], [ 'deaf', { pagination => 'page' }, 2 ], [ 'deaf', { pagination => 'offset' }, 2 ],
	[ 'last', { pagination => 'page' }, 6 ], [ 'link', { pagination => 'link', rows => undef } ], [ 'deaf', { pagination => 'last_id', last_id => 'id' }, 2 ],
	[ 'graphql', { pagination => 'graphql', next => '$.data.items.pageInfo', rows => '$.data.items.edges[*].node' } ])
{
	my ($kind, $options, $rows) = @$case;
	my $name = "loop_${kind}_$options->{pagination}";
	my %options = (path => "/loop/$kind", rows => '$.items[*]', %$options);
	delete $options{rows} unless defined $options{rows};
	create_feed($node, $name, new_api(), options => \%options);
	$peer->mark;
	stops($name, 'HV00M', qr/does not end/, "D03: $kind by $options->{pagination}", state => 'failed', heals => 0, rows => $rows);
	cmp_ok(scalar $peer->requests('^/loop'), '<=', 20, "D03: $kind: found soon");
}
foreach my $kind (qw(always empty))
{
	create_feed($node, "loop_$kind", new_api(), options => { path => "/loop/$kind", rows => '$.items[*]', pagination => 'next_url', next => '$.links.next', max_pages => 30 });
	$peer->mark;
	stops("loop_$kind", '54000', qr/30 pages/, "D03: $kind one more page", state => 'failed', heals => 0);
	cmp_ok(scalar $peer->requests('^/loop'), '<=', 62, "D03: $kind: not more pages than that");
}
# Without a limit that anybody set, pages without rows end it, too.
create_feed($node, 'loop_nothing', new_api(), options => { path => '/loop/empty', rows => '$.items[*]', pagination => 'next_url', next => '$.links.next' });
fails_with($node, "SET statement_timeout = '20s'; CALL ingest.run('loop_nothing')", '(HV00M|54000)', qr/does not end|pages/, 'D03: pages without rows, for ever');

# ---- D04: marks that do not rise: newest first, broken off, and more rows in between

$peer->control({ op => 'generate', name => 'falling0', count => 200 });
$peer->control(op => 'load', name => 'falling', rows => [ reverse $peer->rows('falling0') ]);
create_feed($node, 'falling', new_api(), options => { %since, path => '/page/falling?since={cursor}', key => 'id' });
$peer->behave('^/page/falling', { status => 400 }, skip => 4, times => -1);
fails_with($node, "CALL ingest.run('falling')", 'HV00M', qr/400/, 'D04: newest first, broken off');
is(position_of($node, 'falling', 'cursor'), '2025-01-01T00:00:00Z', 'D04: the mark waits for the end of the crawl');
$peer->forget;
$peer->control(op => 'insert', name => 'falling', at => 0, rows => [ { id => 1000, title => 'new', updated_at => '2026-02-01T00:00:00Z' } ]);
drain($node, 'falling') foreach 1 .. 2;
check_rows($node, $peer, 'falling', 'falling', 'D04: newest first');
is(position_of($node, 'falling', 'cursor'), '2026-02-01T00:00:00Z', 'D04: the mark is the highest');

# A server whose marks go back, and rows that have none.
$peer->control(op => 'load', name => 'back', rows => [ map { { id => $_, title => "t$_", updated_at => '2026-01-02T00:00:00Z' } } 1 .. 10 ]);
create_feed($node, 'back', new_api(), options => { %since, path => '/page/back', key => 'id' });
drain($node, 'back');
$peer->control(op => 'append', name => 'back', rows => [ { id => 20, title => 'old', updated_at => '2024-01-01T00:00:00Z' }, { id => 21, title => 'none' } ]);
drain($node, 'back');
is(position_of($node, 'back', 'cursor'), '2026-01-02T00:00:00Z', 'D04: a mark does not go back');
is(value($node, 'SELECT count(*) FILTER (WHERE id < 20), count(DISTINCT id) FROM back'), '10|12', 'D04: rows at the mark once');
drain($node, 'back');
is(value($node, 'SELECT count(*) FROM back WHERE id = 21'), 1, 'D04: a row without a mark is known, too');

# ---- D05: 429 and how long to wait

foreach my $case ([ 'seconds', { headers => { 'Retry-After' => '1' } }, 0.95, 5 ], [ 'a date', { retry_after_date => 2 }, 0.9, 6 ],
	[ 'nothing', {}, 0.2, 5 ], [ 'nonsense', { headers => { 'Retry-After' => 'soon' } }, 0.2, 5 ], [ 'less than nothing', { headers => { 'Retry-After' => '-5' } }, 0, 5 ],
	[ 'a budget', { headers => { 'X-RateLimit-Remaining' => '0', 'X-RateLimit-Reset' => '1' } }, 0.9, 6 ])
{
	my ($title, $do, $least, $most) = @$case;
	my $name = 'busy_' . ($title =~ s/\W/_/gr);
	new_feed($name, 60);
	$peer->behave("^/page/$name", { status => 429, body => '{"error": "slow down"}', %$do }, skip => 1);
	$peer->mark;
	drain($node, $name);
	check_rows($node, $peer, $name, $name, "D05: 429 with $title");
	my @requests = $peer->requests("/$name");
	is(scalar @requests, 5, "D05: 429 with $title: one more request") or next;
	my $waited = $requests[2]{time} - $requests[1]{end};
	ok($waited >= $least && $waited < $most, "D05: 429 with $title: waits") or diag "$waited s";
}
# longer than a turn may wait: the pipeline backs off, also after a restart
new_feed('away', 60);
$peer->behave('^/page/away', { status => 429, headers => { 'Retry-After' => '99999999999999' } }, skip => 1, times => -1);
fails_with($node, "CALL ingest.run('away')", '53400', qr/429/, 'D05: an absurd Retry-After');
$node->safe_psql('postgres', "SELECT ingest.start('away')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'away'", 'backoff', 'D05: an absurd Retry-After, in background', 10);
is(value($node, "SELECT retry_at BETWEEN now() + interval '1 minute' AND now() + interval '1 month' FROM ingest.pipeline_status WHERE name = 'away'"), 't',
	'D05: which is bounded');
my $retry_at = value($node, "SELECT retry_at FROM ingest.pipeline_status WHERE name = 'away'");
$peer->mark;
my $waits = "SELECT w.pid FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = 'away'";
my $pid = value($node, $waits);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
wait_for($node, "SELECT ($waits) <> $pid", 't', 'D05: the worker ends, there is another', 10);
is(value($node, "SELECT state || ' ' || retry_at FROM ingest.pipeline_status WHERE name = 'away'"), "backoff $retry_at", 'D05: the end of a worker does not shorten it');
$node->restart;
wait_for($node, "SELECT state || ' ' || retry_at FROM ingest.pipeline_status WHERE name = 'away'", "backoff $retry_at", 'D05: a restart does not shorten it', 10);
is(scalar $peer->requests('/away'), 0, 'D05: nothing is asked meanwhile');
$node->safe_psql('postgres', "SELECT ingest.stop('away')");
# told beforehand
new_feed('told', 60);
$peer->behave('^/page/told', { headers => { 'RateLimit-Remaining' => '0', 'RateLimit-Reset' => '1' } }, skip => 1);
$peer->mark;
drain($node, 'told');
my @requests = $peer->requests('/told');
cmp_ok($requests[2]{time} - $requests[1]{end}, '>', 0.9, 'D05: nothing remains: waits before it is told to');

# ---- D06: bodies that are cut, connections that break; and 5xx

my %cuts = (
	'503 twice' => [ { status => 503, body => 'oops' }, 2 ], '500' => [ { status => 500 } ], '408' => [ { status => 408 } ], '425' => [ { status => 425 } ],
	'a reset' => [ { reset => 'at once' } ], 'two resets' => [ { reset => 'at once' }, 2 ],
	'an empty answer' => [ { raw => '' } ],
	'a head cut in the status line' => [ { cut_head => 10 } ], 'a head cut' => [ { cut_head => 60 } ],
	'a body cut at its begin' => [ { cut => 0 } ], 'a body cut after a byte' => [ { cut => 1 } ], 'a body cut in the middle' => [ { cut => 700 } ],
	'a body cut before its end' => [ { cut => -1 } ], 'a body cut by a reset' => [ { cut => 700, reset => 'after' } ],
	'a chunked body cut at its begin' => [ { chunked => 1, cut => 0 } ], 'a chunked body cut in a size' => [ { chunked => 1, cut => 2 } ],
	'a chunked body cut in a chunk' => [ { chunked => 1, cut => 300 } ], 'a chunked body cut between chunks' => [ { chunked => 1, cut => 519 } ],
	'a chunked body without its last chunk' => [ { chunked => 1, cut => -5 } ], 'a chunked body without its last byte' => [ { chunked => 1, cut => -1 } ],
	'a length that is too long' => [ { wrong_length => 10 } ], 'a length that is too short' => [ { wrong_length => -10 } ],
	'a gzip cut' => [ { encode => ['gzip'], cut => 100 } ],
);
foreach my $title (sort keys %cuts)
{
	my ($do, $times) = @{ $cuts{$title} };
	my $name = 'cut_' . ($title =~ s/\W/_/gr);
	new_feed($name, 60);
	$peer->behave("^/page/$name", $do, skip => 1, times => $times // 1);
	drain($node, $name);
	check_rows($node, $peer, $name, $name, "D06: $title");
	check_accounted($node, $name, "D06: $title");
}
# for ever
new_feed('cut', 60, server => { retries => 1 });
$peer->behave('^/page/cut', { cut => 700 }, skip => 1, times => -1);
stops('cut', '08006', qr/cut/, 'D06: cut again and again', state => 'backoff', rows => 20);
new_feed('down', 60, server => { retries => 1 });
$peer->behave('^/page/down', { status => 503, body => "we are\x{7}\r\nsorry" }, skip => 1, times => -1);
stops('down', 'HV00M', qr/503/, 'D06: 503 again and again', state => 'backoff', rows => 20);
# streams: cut at any place, they go on where they were
foreach my $case ([ 'ndjson', '&etag=strong' ], [ 'ndjson', '' ], [ 'ndjson', '&range=no' ], [ 'csv', '&modified=1' ], [ 'xml', '' ])
{
	my ($format, $query) = @$case;
	my $name = "piece_$format" . ($query =~ s/\W/_/gr);
	$peer->control(op => 'generate', name => $name, count => 600);
	create_feed($node, $name, new_api(), columns => $format eq 'xml' ? "id bigint OPTIONS (path '\@id'), title text" : 'id bigint, title text',
		options => { path => "/$format/$name?x=1$query", format => $format, $format eq 'csv' ? (header => 'on') : $format eq 'xml' ? (rows => 'item') : () },
		pipeline => '{"batch_rows": 50}');
	my %drip = (drip => { bytes => 1000, interval => 0.01 });
	$peer->behave("^/$format/$name", { %drip, cut => $_ }) foreach 0, 9000, 6000;
	$peer->behave("^/$format/$name", { %drip, chunked => 1, cut => 5000 });
	$peer->mark;
	drain($node, $name);
	is(value($node, "SELECT count(*), count(DISTINCT id), bool_and(title = 'title ' || id) FROM $name"), '600|600|t', "D06: a stream of $format$query cut four times");
	my @begun = $peer->requests("/$name");
	is(scalar @begun, 5, "D06: $format$query: asked five times");
	is(scalar(grep { $_->{headers}{range} } @begun), $query =~ /etag|modified/ ? 3 : 0, "D06: $format$query: and for the rest by range, where it is known to be the same");
}
# A stream that has changed when it is to go on is not mixed up.
foreach my $query ('etag=strong', 'x=1')
{
	my $name = 'mixed_' . ($query =~ s/\W.*//r);
	$peer->control(op => 'generate', name => $name, count => 300);
	create_feed($node, $name, new_api(retries => 0), columns => 'id bigint, title text', options => { path => "/ndjson/$name?$query", format => 'ndjson' },
		pipeline => '{"batch_rows": 50}');
	$peer->behave("^/ndjson/$name", { cut => 12000, drip => { bytes => 1000, interval => 0.01 } });
	($_) = $node->psql('postgres', "CALL ingest.run('$name')");
	my $read = value($node, "SELECT count(*) FROM $name");
	$peer->control(op => 'insert', name => $name, at => 0, rows => [ { id => 5000, title => 'title 5000' } ]);
	my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('$name')");
	my $twice = value($node, "SELECT count(*) - count(DISTINCT id) FROM $name");
	my $missing = value($node, "SELECT 301 - count(DISTINCT id) FROM $name");
	is(value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name'"), 0, "D06: a stream that has changed ($query): no row is torn");
	is($twice, 0, "D06: a stream that has changed ($query): nothing twice");
	ok($rc != 0 || $missing == 0, "D06: a stream that has changed ($query): nothing is missing, or it is said") or diag "read $read, missing $missing";
}

# ---- D07: 200, and yet nothing

my $login = "<!DOCTYPE html>\n<html><body><form action='/login'>Please log in</form></body></html>";
foreach my $case (
	[ 'a login page', { body => $login, type => 'text/html' } ], [ 'a login page that says it is JSON', { body => $login } ],
	[ 'an empty body', { body => '' } ], [ 'blanks', { body => "  \n" } ],
	[ 'null', { body => 'null' } ], [ 'a text', { body => '"maintenance"' } ], [ 'an object without rows', { body => '{"message": "maintenance"}' } ],
	[ 'rows that are no array', { body => '{"items": "none"}' } ], [ 'an error', { body => '{"error": {"code": 17, "text": "no quota"}, "items": []}' } ],
	[ 'two documents', { body => '{"items": []}{"items": []}' } ], [ 'half a document', { body => '{"items": [{"id": 1' } ],
	[ 'an image', { body_base64 => encode_base64("\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ''), type => 'image/png' } ],
	[ 'a 304 nobody asked for', { status => 304, body => '' } ], [ 'a 206 nobody asked for', { status => 206 , body => '{"items": [' } ],
	[ 'a page without a place to go', { status => 302, body => '', headers => { Location => undef } } ],
	[ '403', { status => 403 }, '28000' ], [ '404', { status => 404 } ], [ '418', { status => 418 } ])
{
	my ($title, $do, $sqlstate) = @$case;
	my $name = 'none_' . ($title =~ s/\W/_/gr);
	new_feed($name, 60, server => { retries => 1 }, options => { %since, path => "/page/$name?since={cursor}", error_path => '$.error' });
	$peer->behave("^/page/$name", $do, skip => 1, times => -1);
	stops($name, $sqlstate // 'HV00M', qr/$name|127\.0\.0\.1/, "D07: $title", rows => 20, $title =~ /login|^an empty/ ? (state => 'failed') : ());
}
# for a moment only
new_feed('moment', 60);
$peer->behave('^/page/moment', { body => $login, type => 'text/html' }, skip => 1);
drain($node, 'moment');
check_rows($node, $peer, 'moment', 'moment', 'D07: a login page for a moment');

# ---- D08: validators

# (304, weak and strong tags, dates: 110_http_source.pl)
$peer->control(op => 'generate', name => 'tagged', count => 30);
create_feed($node, 'tagged', new_api(), options => { path => '/plain/tagged?etag=strong' });
$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = 'before-commit:error'");
$node->reload;
fails_with($node, "CALL ingest.run('tagged')", '[0-9A-Z]{5}', qr/fault/, 'D08: broken off before the commit');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ingest.fault');
$node->reload;
drain($node, 'tagged');
check_rows($node, $peer, 'tagged', 'tagged', 'D08: a tag is kept with its rows, or not at all');
$peer->behave('^/plain/tagged', { headers => { ETag => '"liar"' } }, times => 1);
$peer->control(op => 'update', name => 'tagged', id => 3, values => { title => 'changed' });
drain($node, 'tagged');
is(value($node, 'SELECT count(*) FROM tagged'), '60', 'D08: a changed tag: read again');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE tagged_feed OPTIONS (SET path '/plain/tagged?etag=strong&other=1')");
$peer->mark;
drain($node, 'tagged');
is(($peer->requests('/tagged'))[0]{headers}{'if-none-match'}, undef, 'D08: the tag of another URL is not used');

# ---- D09: slow

foreach my $case ([ 'a byte now and then', { drip => { interval => 0.3 } } ], [ 'a byte of the head now and then', { drip => { interval => 0.3, head => 1 } } ],
	[ 'silence', { delay => 20 } ], [ 'a body that stops', { drip => { interval => 20, bytes => 100 } } ])
{
	my ($title, $do) = @$case;
	my $name = 'slow_' . ($title =~ s/\W/_/gr);
	new_feed($name, 60, server => { retries => 0, timeout => '1500 ms', idle_timeout => '1 s' });
	$peer->behave("^/page/$name", $do, skip => 1, times => -1);
	takes_at_most(8, "D09: $title", sub { stops($name, '08006', qr/$name/, "D09: $title", rows => 20) });
}
create_feed($node, 'slow_lines', new_api(retries => 0, idle_timeout => '1 s'), columns => 'id bigint', options => { path => '/gen/ndjson?rows=1000', format => 'ndjson' });
$peer->control(op => 'generate', name => 'drip', count => 100);
$node->safe_psql('postgres', "ALTER FOREIGN TABLE slow_lines_feed OPTIONS (SET path '/ndjson/drip')");
$peer->behave('^/ndjson/drip', { drip => { interval => 5, bytes => 1000 } }, times => -1);
takes_at_most(8, 'D09: a stream that stops', sub { fails_with($node, "CALL ingest.run('slow_lines')", '08006', qr/drip/, 'D09: a stream that stops') });
$peer->forget;
new_feed('frozen', 60, server => { retries => 0, timeout => '1 s', connect_timeout => '1 s' });
$peer->freeze;
takes_at_most(8, 'D09: a server that is frozen', sub { fails_with($node, "CALL ingest.run('frozen')", '08006', qr/frozen/, 'D09: a server that is frozen') });
$peer->thaw;

# ---- D10: bodies without an end, D11: bombs, D12: heads

# Most memory that a backend of ours takes while it does that, in MB.
sub memory_while
{
	my ($pipeline, $code) = @_;
	$node->safe_psql('postgres', "SELECT ingest.start('$pipeline')");
	wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$pipeline'", $code, "$pipeline: state $code", 90);
	my $pid = worker_pid($node, $pipeline);
	my $peak = 0;
	if ($pid =~ /^\d+$/ && open my $file, '<', "/proc/$pid/status")
	{
		($peak) = map { /^VmHWM:\s+(\d+)/ ? $1 / 1024 : () } <$file>;
	}
	$node->safe_psql('postgres', "SELECT ingest.stop('$pipeline')");
	return $peak;
}

my %limits = (retries => 0, max_response => '1MB', timeout => '20 s');
foreach my $case (
	[ 'D10: a document without an end', { begin => '{"items": [', endless => '{"id": 1},' } ],
	[ 'D10: a string without an end', { begin => '{"items": ["', endless => 'a' } ],
	[ 'D10: a length of 10 GB', { headers => { 'Content-Length' => '10000000000' }, endless => ' ' } ],
	[ 'D11: a gzip bomb', { bomb => 'gzip' } ], [ 'D11: a bomb in a bomb', { bomb => 'double' } ])
{
	my ($title, $do) = @$case;
	my $name = 'big_' . ($title =~ s/\W/_/gr);
	new_feed($name, 60, server => \%limits);
	$peer->behave("^/page/$name", $do, skip => 1, times => -1);
	takes_at_most(20, $title, sub { fails_with($node, "CALL ingest.run('$name')", '(54000|HV00M|08006)', qr/$name/, $title) });
	cmp_ok(memory_while($name, 'failed'), '<', 150, "$title: in little memory");
	is(value($node, "SELECT count(*) FROM $name"), 20, "$title: nothing of it is written");
	my @sizes = map { $_->{sent} // 0 } $peer->requests("/$name");
	cmp_ok((sort { $b <=> $a } @sizes)[0], '<', 50_000_000, "$title: broken off soon");
	$peer->forget;
}
create_feed($node, 'line', new_api(%limits), columns => 'id bigint', options => { path => '/gen/ndjson?rows=10', format => 'ndjson' });
$peer->behave('^/gen/ndjson', { begin => '{"id": "', endless => 'x', headers => { 'Content-Length' => undef } }, times => -1);
fails_with($node, "CALL ingest.run('line')", '54000', qr/gen|line/, 'D10: a line without an end');
cmp_ok(memory_while('line', 'failed'), '<', 150, 'D10: a line without an end: in little memory');
$peer->forget;
$node->safe_psql('postgres', "ALTER FOREIGN TABLE line_feed OPTIONS (SET path '/gen/ndjson?rows=1000000000')");
takes_at_most(5, 'D10: a peek at lines without an end', sub { is(value($node, 'SELECT count(*) FROM (SELECT * FROM line_feed LIMIT 1000) x'), 1000, 'D10: a peek at 100 GB') });
foreach my $chain ([ 'gzip', 'gzip' ], [ 'deflate', 'gzip' ])
{
	new_feed("chain_$chain->[0]", 60, server => { retries => 0 });
	$peer->behave("^/page/chain_$chain->[0]", { encode => $chain }, skip => 1, times => -1);
	my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('chain_$chain->[0]')", timeout => 30);
	$rc == 0 ? check_rows($node, $peer, "chain_$chain->[0]", "chain_$chain->[0]", "D11: @$chain") : like($err, qr/coding|decode/i, "D11: @$chain: refused");
	$peer->forget;
}
new_feed('unknown_coding', 60, server => { retries => 0 });
$peer->behave('^/page/unknown_coding', { headers => { 'Content-Encoding' => 'x-secret' } }, skip => 1, times => -1);
stops('unknown_coding', '(HV00M|08006)', qr/unknown_coding/, 'D11: a coding nobody knows', rows => 20);
new_feed('no_gzip', 60, server => { retries => 0 });
$peer->behave('^/page/no_gzip', { headers => { 'Content-Encoding' => 'gzip' } }, skip => 1, times => -1);
stops('no_gzip', '(HV00M|08006)', qr/no_gzip/, 'D11: gzip that is none', rows => 20);

my $json_head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
foreach my $case (
	[ 'thousands of headers', { header_bomb => { count => 20000, size => 50 } } ], [ 'a header of 5 MB', { header_bomb => { size => 5_000_000 } } ],
	[ 'a NUL in a header', { raw => encode_base64("${json_head}X: a\0b\r\nContent-Length: 13\r\n\r\n{\"items\": []}") } ],
	[ 'no status line', { raw => encode_base64("hello\r\n\r\n") } ], [ 'a status of five digits', { raw => encode_base64("HTTP/1.1 20000 OK\r\n\r\n") } ],
	[ 'a status below 100', { raw => encode_base64("HTTP/1.1 42 OK\r\nContent-Length: 0\r\n\r\n") } ],
	[ 'a length below zero', { raw => encode_base64("${json_head}Content-Length: -5\r\n\r\n{\"items\": []}") } ],
	[ 'a length that is no number', { raw => encode_base64("${json_head}Content-Length: 1e9x\r\n\r\n{\"items\": []}") } ],
	[ 'two lengths', { raw => encode_base64("${json_head}Content-Length: 5\r\nContent-Length: 13\r\n\r\n{\"items\": []}") } ],
	[ 'a chunk that is too large', { raw => encode_base64("${json_head}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc") } ],
	[ 'a chunk that is no number', { raw => encode_base64("${json_head}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc") } ],
	[ 'header lines without an end', { raw => encode_base64($json_head . "X: y\r\n" x 100000) } ],
	[ '100s without an end', { raw => encode_base64("HTTP/1.1 100 Continue\r\n\r\n" x 50000) } ])
{
	my ($title, $do) = @$case;
	my $name = 'head_' . ($title =~ s/\W/_/gr);
	new_feed($name, 60, server => { retries => 0 });
	$peer->behave("^/page/$name", $do, skip => 1, times => -1);
	takes_at_most(15, "D12: $title", sub { stops($name, '(54000|HV00M|08006|08P01)', qr/$name/, "D12: $title", rows => 20) });
}

# ---- D16: another certificate on the same address

$peer->control(op => 'generate', name => 'certified', count => 60);
my $ca = slurp_file("$dir/ours.ca.pem");
create_feed($node, 'certified', new_api(url => $peer->tls_url, ssl_ca => $ca, retries => 0), options => { %since, path => '/page/certified?since={cursor}' });
drain($node, 'certified');
check_rows($node, $peer, 'certified', 'certified', 'D16: by TLS');
$node->safe_psql('postgres', "SELECT ingest.start('certified')");
$peer->control({ op => 'certificate', chain => "$dir/theirs.crt", key => "$dir/theirs.key" }, { op => 'generate', name => 'certified', first => 60, count => 60 });
$peer->behave('^/page/certified', { close => 1 });
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'certified'", 'failed', 'D16: a certificate of somebody else');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'certified'"), qr/TLS failed/, 'D16: which is said');
$node->safe_psql('postgres', "SELECT ingest.stop('certified')");
$peer->control(op => 'certificate', chain => "$dir/ours.crt", key => "$dir/ours.key");
drain($node, 'certified');
check_rows($node, $peer, 'certified', 'certified', 'D16: ours again');
$node->safe_psql('postgres', "CREATE SERVER stranger FOREIGN DATA WRAPPER ingest_http OPTIONS (url '" . $peer->tls_url . "');
	CREATE FOREIGN TABLE stranger_feed (id bigint) SERVER stranger OPTIONS (path '/plain/certified')");
fails_with($node, 'SELECT * FROM stranger_feed', '(HV00M|08[0-9P]{3}|28000)', qr/certificate/i, 'D16: a certificate that nobody vouches for');

# ---- D17, D18: texts and documents that hurt

sub page_of { return { body_base64 => encode_base64('{"items": [' . join(', ', @_) . ']}', '') } }
my @around = ('{"id": 1, "title": "first"}', '{"id": 3, "title": "last"}');
foreach my $case (
	[ 'D17: invalid UTF-8', "{\"id\": 2, \"title\": \"caf\xe9\"}" ], [ 'D17: overlong UTF-8', "{\"id\": 2, \"title\": \"\xc0\xaf\"}" ],
	[ 'D17: a surrogate in UTF-8', "{\"id\": 2, \"title\": \"\xed\xa0\x80\"}" ], [ 'D17: a NUL', "{\"id\": 2, \"title\": \"a\0b\"}" ],
	[ 'D18: \\u0000', '{"id": 2, "title": "a\\u0000b"}' ], [ 'D18: a lone surrogate', '{"id": 2, "title": "\\ud800"}' ],
	[ 'D18: a depth of 1000', '{"id": 2, "title": ' . '[' x 1000 . ']' x 1000 . '}' ], [ 'D18: a depth of 100,000', '{"id": 2, "title": ' . '[' x 100_000 . ']' x 100_000 . '}' ],
	[ 'D18: NaN', '{"id": NaN, "title": "x"}' ], [ 'D18: a number of a million digits', '{"id": ' . '9' x 1_000_000 . ', "title": "x"}' ],
	[ 'D18: a number with a large exponent', '{"id": 1e999999999, "title": "x"}' ], [ 'D18: a row that is none', '17' ], [ 'D18: null', 'null' ],
	[ 'D18: a control character', "{\"id\": 2, \"title\": \"a\x01b\"}" ], [ 'D18: a key without end', '{"' . 'k' x 1_000_000 . '": 1, "id": "two"}' ])
{
	my ($title, $row) = @$case;
	my $name = 'text_' . (lc $title =~ s/\W+/_/gr);
	new_feed($name, 10, server => { retries => 0 }, columns => "id bigint, title text, doc jsonb OPTIONS (path '\$')", pipeline => '{"error_rate": 1}');
	$peer->behave("^/page/$name", page_of($around[0], $row, $around[1]));
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nCALL ingest.run('$name')", timeout => 30);
	my $rows = value($node, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM $name");
	my $letters = value($node, "SELECT count(*) FROM ingest.dead_letter WHERE pipeline = '$name'");
	if ($rc == 0)
	{
		is("$rows|$letters", '1 3|1', "$title: one dead letter, the others are rows");
	}
	else
	{
		like($err, qr/ERROR:  (HV00M|22021|22P02|54001|54000|22P05|22\d{3}): /, "$title: a page that is none stops it");
		is("$rows|$letters", '|0', "$title: nothing of it is written");
	}
	is(value($node, "SELECT count(*) FROM $name WHERE title IS NOT NULL AND convert_from(convert_to(title, 'UTF8'), 'UTF8') <> title"), 0, "$title: texts are texts");
}
new_feed('klingon', 60, server => { retries => 0 });
$peer->behave('^/page/klingon', { type => 'application/json; charset=x-klingon' }, skip => 1, times => -1);
stops('klingon', '(22021|HV00M|22P05)', qr/klingon/, 'D17: an encoding nobody knows', rows => 20);
new_feed('twice', 5, server => { retries => 0 });
$peer->behave('^/page/twice', page_of('{"id": 1, "title": "a", "id": 2}'));
drain($node, 'twice');
is(value($node, 'SELECT count(*) FROM twice'), 1, 'D18: a key twice: one row');

# a field that changes its type on page 7
new_feed('typed', 200, pipeline => '{"error_rate": 1}');
$peer->behave('^/page/typed\?page=7', { extra => { id => { value => 1 } } });
drain($node, 'typed');
is(value($node, "SELECT count(*), (SELECT count(*) FROM ingest.dead_letter WHERE pipeline = 'typed'), (SELECT count(DISTINCT page) FROM typed WHERE page <> 6) FROM typed"),
	'180|20|9', 'D18: a field that changes its type on page 7: dead letters');
check_accounted($node, 'typed', 'D18: a field that changes its type');

# ---- D19: the server's clock is not ours

new_feed('skewed', 60);
$peer->behave('^/page/skewed', { status => 503, skew => 86400, retry_after_date => 86402 }, skip => 1);
$peer->behave('^/page/skewed', { skew => 86400 }, times => -1, skip => 2);
$peer->mark;
drain($node, 'skewed');
@requests = $peer->requests('/skewed');
my $waited = $requests[2]{time} - $requests[1]{end};
ok($waited > 0.9 && $waited < 6, 'D19: a date is meant by the clock that says it') or diag "$waited s";
$peer->forget;
# (marks are the server's own values: 110_http_source.pl)

# ---- D20: only what changes nothing is asked, unless post is wanted

is(scalar(grep { $_->{method} ne 'GET' } $peer->requests('')), 0, 'D20: only GET until here');
fails_with($node, "CREATE FOREIGN TABLE x (id bigint) SERVER api1 OPTIONS (path '/x', method 'delete')", 'HV024', qr/method/, 'D20: no other methods');
fails_with($node, "CREATE FOREIGN TABLE x (id bigint) SERVER api1 OPTIONS (path '/x', body '{}'); CREATE TABLE y (id bigint);
	SELECT ingest.create_pipeline('y', 'x', 'y')", 'HV024', qr/body/, 'D20: a body is for post');
$peer->control(op => 'generate', name => 'posted', count => 60);
create_feed($node, 'posted', new_api(), options => { path => '/graphql', method => 'post', rows => '$.data.items.edges[*].node', pagination => 'graphql',
	next => '$.data.items.pageInfo', body => '{"query": "pageInfo", "variables": {"name": "posted", "first": 20, "after": {token}}}' });
$peer->behave('^/graphql', { status => 502 }, skip => 1);
$peer->behave('^/graphql', { cut => 100 }, skip => 1);
$peer->mark;
drain($node, 'posted');
check_rows($node, $peer, 'posted', 'posted', 'D20: post is tried again');
is(scalar(grep { $_->{method} eq 'POST' } $peer->requests('/graphql')), 5, 'D20: as often as needed');
$peer->behave('^/graphql', { body => '{"errors": [{"message": "no such field"}], "data": null}' }, times => -1);
fails_with($node, "CALL ingest.run('posted')", 'HV00M', qr/graphql/, 'D20: an error of GraphQL');
$peer->forget;

# ---- D21: a run that takes longer than its schedule

new_feed('long', 60, options => { %since, path => '/page/long?since={cursor}' });
$peer->behave('^/page/long', { delay => 1.2 }, times => -1);
$peer->mark;
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('long', schedule => '1 second'); SELECT ingest.start('long')");
wait_requests($peer, '/long', 1, 'D21: it runs');
fails_with($node, "CALL ingest.run('long')", '55006', qr/long/, 'D21: not twice at the same time');
wait_requests($peer, '/long', 6, 'D21: and again');
$node->safe_psql('postgres', "SELECT ingest.stop('long')");
my ($overlaps, $last) = (0, 0);
foreach my $request ($peer->requests('/long'))
{
	$overlaps++ if $request->{time} < $last - 0.05;
	$last = $request->{end} // $request->{time};
}
is($overlaps, 0, 'D21: one request at a time');
check_rows($node, $peer, 'long', 'long', 'D21: a run longer than its schedule');

is(count_log($node, qr/PANIC|TRAP:|signal 11|signal 6/), 0, 'nothing worse in the log');
$node->stop('fast');
done_testing();
