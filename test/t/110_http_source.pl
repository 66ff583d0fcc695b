# What an HTTP source can read: pages of every kind, increments, windows, one chain
# of requests for each row of a query, conditional requests, formats; in the
# foreground, in background, and as a peek.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use HttpPeer;
use HttpTest;
use IngestTest;

my $peer = HttpPeer->new;
my $node = start_node('http');
create_api($node, 'api', $peer->url);

# ---- pages: each way, over several sizes; the last page is full, or is not

my %styles = (
	link => { path => '/link/%s?per_page=20', rows => undef, pagination => 'link' },
	next_url => { path => '/next/%s?per_page=20', rows => '$.items[*]', pagination => 'next_url', next => '$.links.next' },
	next_relative => { path => '/nextrel/%s?per_page=20', rows => '$.items[*]', pagination => 'next_url', next => '$.links.next' },
	token => { path => '/token/%s', rows => '$.items[*]', pagination => 'token', next => '$.meta.next_cursor', page_size => 20 },
	token_template => { path => '/token/%s?cursor={token}&limit={limit}', rows => '$.items', pagination => 'token',
		next => '$.meta.next_cursor', page_size => 20 },
	token_more => { path => '/token/%s?cursor={token}', rows => '$.items[*]', pagination => 'token', next => '$.meta.next_cursor',
		has_more => '$.has_more', page_size => 20 },
	page => { path => '/page/%s', rows => '$.items[*]', pagination => 'page', page_size => 20 },
	page_from_0 => { path => '/page/%s?first=0&page={page}', rows => '$.items[*]', pagination => 'page', first_page => 0, page_size => 20 },
	page_total => { path => '/page/%s', rows => '$.items[*]', pagination => 'page', total => '$.total', limit_param => 'limit', page_size => 20 },
	page_pages => { path => '/page/%s?limit=20', rows => '$.items[*]', pagination => 'page', total_pages => '$.pages' },
	page_more => { path => '/page/%s?limit=20', rows => '$.items[*]', pagination => 'page', has_more => '$.more' },
	page_empty => { path => '/page/%s?limit=20', rows => '$.items[*]', pagination => 'page' },
	offset => { path => '/offset/%s', pagination => 'offset', page_size => 20 },
	offset_empty => { path => '/offset/%s?limit=20', pagination => 'offset' },
	last_id => { path => '/last/%s', rows => '$.items[*]', pagination => 'last_id', last_id => 'id', page_size => 20 },
	last_template => { path => '/last/%s?after={last_id}&limit=20', rows => '$.items[*]', pagination => 'last_id', last_id => 'id' },
	graphql => { path => '/graphql', method => 'post', rows => '$.data.items.edges[*].node', pagination => 'graphql',
		next => '$.data.items.pageInfo', page_size => 20,
		body => '{"query": "query($after: String) {items {pageInfo {endCursor} edges {node}}}", "variables": {"name": "%s", "after": {token}, "first": {limit}}}' },
);
# Requests that a crawl of so many rows takes, where it is not one for each page begun.
my %more = (
	100 => { page => 6, page_empty => 6, page_from_0 => 6, offset => 6, offset_empty => 6, last_id => 6, last_template => 6 },
	101 => { page_empty => 7, offset_empty => 7, last_template => 7 });
$more{0}{$_} = 1 foreach keys %styles;
foreach my $count (0, 1, 100, 101)
{
	$peer->control(op => 'generate', name => "r$count", count => $count);
	foreach my $style (sort keys %styles)
	{
		next if $count == 1 && $style !~ /^(?:link|token|page|offset|last_id|graphql)$/;
		my $name = "p_${style}_$count";
		my %options = map { defined $styles{$style}{$_} ? ($_ => $styles{$style}{$_} =~ s/%s/r$count/r) : () } keys %{ $styles{$style} };
		create_feed($node, $name, 'api', options => \%options);
		$peer->mark;
		drain($node, $name);
		check_rows($node, $peer, $name, "r$count", "$style: $count rows");
		my $expected = $more{$count}{$style} // int(($count + 19) / 20);
		$expected += 1 if $count == 1 && $style =~ /^$/;
		my @requests = $peer->requests('');
		is(scalar @requests, $expected, "$style: $count rows in as many requests as needed")
		  or diag map { "$_->{method} $_->{target}\n" } @requests;
	}
}
is(value($node, 'SELECT count(DISTINCT page), min(row), max(row), count(DISTINCT row) FROM p_link_101'), '6|0|100|101',
	'metadata: page and row');
$peer->mark;
is(value($node, 'SELECT count(*) FROM p_graphql_101_feed'), '101', 'a look at all pages of GraphQL');
my @posts = $peer->requests('^/graphql$');
is($posts[0]{headers}{'content-type'}, 'application/json', 'a body has a type');
like($posts[1]{body}, qr/"after": "c20", "first": 20/, 'and values in their places');

# Rows below rows, and rows anywhere.
create_feed($node, 'nested', 'api', options => { path => '/nested/r101', rows => '$.data.groups[*].items[*]' });
drain($node, 'nested');
check_rows($node, $peer, 'nested', 'r101', 'nested rows');

# ---- metadata

$node->safe_psql('postgres', "CREATE FOREIGN TABLE meta (id bigint, url text OPTIONS (metadata 'url'), page bigint OPTIONS (metadata 'page'),
	row bigint OPTIONS (metadata 'row'), at timestamptz OPTIONS (metadata 'fetched_at')) SERVER api
	OPTIONS (path '/page/r101', rows '\$.items[*]', pagination 'page', page_size '40')");
is(value($node, "SELECT id, replace(url, '" . $peer->url . "', ''), page, row, abs(extract(epoch FROM at - now())) < 60 FROM meta WHERE id IN (0, 100)"),
	"0|/page/r101?page=1&limit=40|0|0|t\n100|/page/r101?page=3&limit=40|2|100|t", 'metadata: url, page, row, fetched_at');

# ---- a peek asks once when it needs no more, and leaves nothing behind

$peer->mark;
is(value($node, 'SELECT count(*) FROM (SELECT * FROM p_page_101_feed LIMIT 5) x'), '5', 'a peek');
is(scalar $peer->requests(''), 1, 'a peek of some rows: one request');
$peer->mark;
is(value($node, 'SELECT count(*) FROM p_page_101_feed'), '101', 'a look at everything');
is(scalar $peer->requests(''), 6, 'takes all pages');
$node->safe_psql('postgres', "CREATE TABLE peeked (LIKE p_page_101_feed);
	SELECT ingest.create_pipeline('peeked', 'p_page_101_feed', 'peeked')");
$peer->mark;
is(value($node, "SELECT count(*) FROM ingest.preview('peeked', 7)"), '7', 'preview');
is(scalar $peer->requests(''), 1, 'preview: one request');
is(value($node, "SELECT count(*) FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = 'peeked'"),
	'0', 'peek and preview leave no position');
# cancelled within a second, also while the server says nothing
$peer->behave('^/page/r101', { delay => 30 });
my $begin = time;
my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '500ms'; SELECT * FROM p_page_101_feed LIMIT 1", timeout => 20);
like($err, qr/statement timeout/, 'a peek is cancelled');
cmp_ok(time - $begin, '<', 2, 'at once');
$peer->forget;

# ---- increments

$peer->control(op => 'generate', name => 'inc', count => 100, equal => 3);
my %since = (path => '/page/inc?since={cursor}&sort=updated_at', rows => '$.items[*]', pagination => 'page', page_size => 20,
	cursor => 'updated_at', cursor_start => '2025-01-01T00:00:00Z');
create_feed($node, 'inc', 'api', options => \%since);
$peer->mark;
drain($node, 'inc');
check_rows($node, $peer, 'inc', 'inc', 'increments: the first crawl');
is(($peer->requests(''))[0]{query}{since}, '2025-01-01T00:00:00Z', 'cursor_start');
is(position_of($node, 'inc', 'cursor'), '2026-01-01T00:33:00Z', 'the mark is the highest value');
$peer->mark;
drain($node, 'inc');
check_rows($node, $peer, 'inc', 'inc', 'increments: nothing new');
is(($peer->requests(''))[0]{query}{since}, '2026-01-01T00:33:00Z', 'asked from the mark on');
# equal to the mark, and later
$peer->control(op => 'append', name => 'inc', rows => [
	{ id => 100, title => 'at the mark', updated_at => '2026-01-01T00:33:00Z' },
	{ id => 101, title => 'later', updated_at => '2026-01-01T00:34:00+00:00' },
	{ id => 102, title => 'elsewhere', updated_at => '2026-01-01T02:34:00+02:00' } ]);
drain($node, 'inc');
check_rows($node, $peer, 'inc', 'inc', 'D04: rows at the mark are read, none twice');
drain($node, 'inc');
check_rows($node, $peer, 'inc', 'inc', 'D04: and again nothing');
check_accounted($node, 'inc', 'increments');

# A lag: what appears late is found, within it; the rest is known by its key.
$peer->control(op => 'generate', name => 'late', count => 60);
create_feed($node, 'late', 'api', options => { %since, path => '/page/late?since={cursor}&sort=updated_at', lag => '10 minutes', key => 'id' });
drain($node, 'late');
$peer->control(op => 'append', name => 'late', rows => [
	{ id => 1000, title => 'late', updated_at => '2026-01-01T00:50:00Z' },
	{ id => 1001, title => 'too late', updated_at => '2026-01-01T00:48:00Z' } ]);
$peer->mark;
drain($node, 'late');
is(($peer->requests(''))[0]{query}{since}, '2026-01-01T00:49:00Z', 'lag: asked from before the mark');
is(value($node, 'SELECT count(*), count(DISTINCT id), max(id) FROM late'), '61|61|1000', 'lag: the late row, and nothing twice');
# a new version of a row is another row
$peer->control(op => 'update', name => 'late', id => 55, values => { title => 'edited', updated_at => '2026-01-01T01:00:00Z' });
drain($node, 'late');
is(value($node, "SELECT string_agg(title, ',' ORDER BY updated_at) FROM late WHERE id = 55"), 'title 55,edited',
	'lag and key: a new version of a row is read');
drain($node, 'late') foreach 1 .. 2;
is(value($node, 'SELECT count(*) FROM late'), '62', 'lag and key: and not again');

# Marks as the API wants them.
foreach my $case ([ 'iso', '2026-01-01T00:59:00Z' ], [ 'date', '2026-01-01' ], [ 'unix', '1767229140' ],
	[ 'unix_ms', '1767229140000' ], [ 'plain', '2026-01-01 00:59:00' ])
{
	my ($format, $expected) = @$case;
	$peer->control(op => 'load', name => "as_$format", rows => [ map { { id => $_, title => "t$_",
		updated_at => sprintf '2026-01-01T00:%02d:00Z', $_ } } 0 .. 59 ]);
	create_feed($node, "as_$format", 'api', options => { %since, path => "/page/as_$format?since={cursor}", cursor_format => $format });
	drain($node, "as_$format");
	$peer->mark;
	drain($node, "as_$format");
	is(($peer->requests(''))[0]{query}{since}, $expected, "cursor_format $format");
	check_rows($node, $peer, "as_$format", "as_$format", "cursor_format $format");
}

# Times finer than what the API is asked with: what comes again is known.
$peer->control(op => 'load', name => 'fine', rows => [ map { { id => $_, title => "t$_",
	updated_at => sprintf '2026-01-01T00:00:%02d.%03dZ', $_ / 10, $_ % 10 * 100 } } 0 .. 98 ]);
create_feed($node, 'fine', 'api', options => { %since, path => '/page/fine?since={cursor}', cursor_format => 'unix' });
drain($node, 'fine') foreach 1 .. 3;
check_rows($node, $peer, 'fine', 'fine', 'times finer than the request');

# A cursor that is a number, with a lag that is one.
$peer->control(op => 'load', name => 'numbers', rows => [ map { { id => $_, title => "t$_" } } 1 .. 50 ]);
create_feed($node, 'numbers', 'api', options => { path => '/page/numbers?since={cursor}&by=id', rows => '$.items[*]', pagination => 'page',
	page_size => 20, cursor => 'id', cursor_start => 0, lag => 5 });
drain($node, 'numbers');
$peer->control(op => 'append', name => 'numbers', rows => [ { id => 52, title => 't52' } ]);
drain($node, 'numbers');
$peer->control(op => 'append', name => 'numbers', rows => [ { id => 51, title => 't51' } ]);
$peer->mark;
drain($node, 'numbers');
is(($peer->requests(''))[0]{query}{since}, '47', 'a number as a cursor');
check_rows($node, $peer, 'numbers', 'numbers', 'a number as a cursor, with a lag');

# ---- windows of time

my ($today) = map { $_ - $_ % 86400 } time;
my $iso = sub { my @t = gmtime shift; return sprintf '%04d-%02d-%02dT%02d:%02d:%02dZ', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ] };
$peer->control(op => 'load', name => 'days', rows => [ map { { id => $_, title => "t$_",
	updated_at => $iso->($today - 86400 * 5 + $_ * 3600) } } 0 .. 119 ]);
create_feed($node, 'days', 'api', options => { path => '/page/days?from={from}&to={to}', rows => '$.items[*]', pagination => 'page', page_size => 10,
	window => '1 day', cursor_start => $iso->($today - 86400 * 5) });
$peer->mark;
drain($node, 'days');
check_rows($node, $peer, 'days', 'days', 'windows');
my @windows = do { my %seen; grep { !$seen{$_}++ } map { "$_->{query}{from} $_->{query}{to}" } $peer->requests('') };
cmp_ok(scalar @windows, '>=', 5, 'windows: day by day');
is($windows[0], $iso->($today - 86400 * 5) . ' ' . $iso->($today - 86400 * 4), 'windows: the first');
is((split / /, $windows[1])[0], (split / /, $windows[0])[1], 'windows: the second begins where the first ends');
drain($node, 'days');
check_rows($node, $peer, 'days', 'days', 'windows: nothing twice');

# ---- a chain of requests for each row of a query

$node->safe_psql('postgres', "CREATE TABLE repository (owner text, repo text, active bool DEFAULT true);
	INSERT INTO repository VALUES ('acme', 'one'), ('acme', 'two & more/%'), ('ümlaut', 'three')");
my %ids;
foreach my $name ('acme/one', 'acme/two & more/%', 'ümlaut/three', 'acme/four')
{
	$ids{$name} = 1000 * keys %ids;
	$peer->control(op => 'generate', name => $name, first => $ids{$name}, count => 45) if $name !~ /mlaut/;
}
$peer->control(op => 'generate', name => "\x{fc}mlaut/three", first => $ids{'ümlaut/three'}, count => 45);
create_feed($node, 'issues', 'api', columns => "id bigint, doc jsonb OPTIONS (path '\$'), params jsonb OPTIONS (metadata 'parameters')",
	options => { path => '/repos/{owner}/{repo}/issues', rows => '$.items[*]', pagination => 'page', page_size => 20,
		parameters => 'SELECT owner, repo FROM repository WHERE active' });
drain($node, 'issues');
is(value($node, "SELECT params ->> 'repo', count(*), count(DISTINCT id) FROM issues GROUP BY 1 ORDER BY 1"),
	"one|45|45\nthree|45|45\ntwo & more/%|45|45", 'parameters: a crawl for each row, whatever is in it');
$node->safe_psql('postgres', "TRUNCATE issues; INSERT INTO repository VALUES ('acme', 'four')");
$node->safe_psql('postgres', "SELECT ingest.start('issues')");
wait_for($node, "SELECT count(DISTINCT params) FROM issues", '4', 'parameters: a new row is found');
$node->safe_psql('postgres', "SELECT ingest.stop('issues')");
# one of them is missing there: that is said, or nothing
$node->safe_psql('postgres', "TRUNCATE issues; INSERT INTO repository VALUES ('acme', 'gone')");
fails_with($node, "CALL ingest.run('issues')", 'HV00M', qr/404/, 'parameters: a resource that is not there');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE issues_feed OPTIONS (ADD ignore_status '404,410')");
drain($node, 'issues');
is(value($node, "SELECT count(*) FILTER (WHERE params ->> 'repo' = 'four') > 0, count(*) FILTER (WHERE params ->> 'repo' = 'gone') FROM issues"), 't|0',
	'parameters: ignore_status 404');

# ---- what has not changed is not sent again

foreach my $kind ('etag=strong', 'etag=weak', 'modified=1', 'etag=strong&modified=1')
{
	my $name = 'cond_' . ($kind =~ s/\W/_/gr);
	$peer->control({ op => 'generate', name => $name, count => 30 }, { op => 'touch', name => $name, at => time - 1000 });
	create_feed($node, $name, 'api', options => { path => "/plain/$name?$kind" });
	drain($node, $name);
	$peer->mark;
	drain($node, $name);
	my ($request) = $peer->requests('');
	is($request->{status}, 304, "D08: $kind: 304");
	is(value($node, "SELECT count(*) FROM $name"), '30', "D08: $kind: nothing is read");
	$peer->control(op => 'append', name => $name, rows => [ { id => 1000 } ]);
	drain($node, $name);
	is(value($node, "SELECT count(*) FROM $name"), '61', "D08: $kind: what has changed is read");
	drain($node, $name);
	is(value($node, "SELECT count(*) FROM $name"), '61', "D08: $kind: and then nothing again");
}
$peer->control(op => 'generate', name => 'cond_off', count => 5);
create_feed($node, 'cond_off', 'api', options => { path => '/plain/cond_off?etag=strong', conditional => 'off' });
drain($node, 'cond_off') foreach 1 .. 2;
is(value($node, 'SELECT count(*) FROM cond_off'), '10', 'conditional off: read again');

# ---- formats

$peer->control(op => 'load', name => 'formats', rows => [ map { { id => $_, title => "line \x{e9}\x{20ac} \"$_\", 'x' <&> \\",
	updated_at => '2026-01-01T00:00:00Z' } } 0 .. 999 ]);
my @plain = ('id bigint, title text, updated_at timestamptz', "jsonb_build_object('id', id, 'title', title, 'updated_at', to_char(updated_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))");
foreach my $case ([ 'json', { path => '/plain/formats' } ], [ 'ndjson', { path => '/ndjson/formats' } ], [ 'csv', { path => '/csv/formats', header => 'on' } ],
	[ 'xml', { path => '/xml/formats', rows => 'item' }, "id bigint OPTIONS (path '\@id'), title text, updated_at timestamptz" ])
{
	my ($format, $options, $columns) = @$case;
	foreach my $size (100, 100000)
	{
		my $name = "f_${format}_$size";
		create_feed($node, $name, 'api', columns => $columns // $plain[0], options => { %$options, format => $format },
			pipeline => qq({"batch_rows": $size}));
		drain($node, $name);
		check_rows($node, $peer, $name, 'formats', "format $format, batches of $size", content => $plain[1]);
		check_accounted($node, $name, "format $format");
	}
}
create_feed($node, 'f_text', 'api', columns => 'line text', options => { path => '/text/formats', format => 'text' });
drain($node, 'f_text');
is(value($node, q{SELECT count(*), count(DISTINCT line), bool_and(line LIKE U&'line \00E9\20AC %') FROM f_text}), '1000|1000|t', 'format text: lines');
create_feed($node, 'f_raw', 'api', columns => "body bytea", options => { path => '/plain/formats', format => 'raw' });
drain($node, 'f_raw');
is(value($node, "SELECT count(*), sum(jsonb_array_length(convert_from(body, 'UTF8')::jsonb)) FROM f_raw"), '1|1000', 'format raw: the body');

# encodings
foreach my $case ([ 'charset=latin1', {} ], [ 'charset=latin1&quiet=1', { encoding => 'latin1' } ], [ 'bom=1', {} ], [ 'charset=utf-8', {} ])
{
	my ($query, $options) = @$case;
	my $name = 'enc_' . ($query =~ s/\W/_/gr);
	$peer->control(op => 'load', name => 'accents', rows => [ { id => 1, title => "caf\x{e9} \x{fc}" } ]);
	$peer->behave('quiet', { type => 'application/json' }, times => -1);
	foreach my $format (qw(plain ndjson csv))
	{
		create_feed($node, "${name}_$format", 'api', columns => 'id bigint, title text',
			options => { %$options, path => "/$format/accents?$query", format => $format eq 'plain' ? 'json' : $format,
				$format eq 'csv' ? (header => 'on') : () });
		drain($node, "${name}_$format");
		is(value($node, "SELECT id, title FROM ${name}_$format"), "1|caf\x{c3}\x{a9} \x{c3}\x{bc}", "D17: $format with $query");
	}
	$peer->forget;
}

# compressed
foreach my $coding (qw(gzip deflate))
{
	create_feed($node, "z_$coding", 'api', options => { path => '/page/r101', rows => '$.items[*]', pagination => 'page', page_size => 20 });
	$peer->behave('^/page/r101', { encode => [$coding] }, times => -1);
	$peer->mark;
	drain($node, "z_$coding");
	check_rows($node, $peer, "z_$coding", 'r101', "$coding");
	like(($peer->requests(''))[0]{headers}{'accept-encoding'}, qr/$coding/, "$coding is offered");
	$peer->forget;
}

# ---- headers and parameters of the request

create_api($node, 'tuned', $peer->url . '/?fixed=1', user_agent => 'tester/1', 'header.X-Team' => 'blue', 'header.Accept' => 'application/vnd.x+json');
create_feed($node, 'tuned', 'tuned', options => { path => "/page/r1?q=a b\xc3\xa9&c={cursor}", rows => '$.items[*]', 'header.X-Page' => 'p{page}', 'header.X-Team' => 'red',
	cursor => 'title', cursor_start => 'x&y=z/?#' });
$peer->mark;
drain($node, 'tuned');
my ($request) = $peer->requests('');
is($request->{query}{fixed}, '1', 'parameters of the server stay');
is($request->{query}{c}, 'x&y=z/?#', 'values in the query are encoded');
is($request->{query}{q}, "a b\x{e9}", 'the text of the template, too');
is("@{$request->{headers}}{qw(user-agent x-team x-page accept)}", 'tester/1 red p1 application/vnd.x+json', 'headers: of server and table');

# ---- in background: crawl after crawl; new rows, an upsert

$peer->control(op => 'generate', name => 'live', count => 100);
create_feed($node, 'live', 'api', options => { %since, path => '/page/live?since={cursor}&sort=updated_at' });
$node->safe_psql('postgres', "SELECT ingest.start('live')");
arrives($node, 'live', 100, 'in background: the first crawl');
foreach my $i (1 .. 5)
{
	$peer->control(op => 'generate', name => 'live', first => 100 * $i, count => 100);
	arrives($node, 'live', 100 * ($i + 1), "in background: crawl $i");
}
check_rows($node, $peer, 'live', 'live', 'in background');
check_accounted($node, 'live', 'in background');
is(value($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'live'"), 'running', 'in background: running');
wait_for($node, 'SELECT phase FROM ingest._workers()', 'waiting', 'in background: it waits');
is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'
		AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)"), '0', 'A31: without snapshot or transaction');
$peer->behave('^/page/live', { delay => 20 }, times => -1);
$peer->mark;
wait_requests($peer, '^/page/live', 1, 'a request is under way');
is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'
		AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)"), '0', 'A31: also during a request');
$begin = time;
$node->safe_psql('postgres', "SELECT ingest.stop('live')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '0', 'stopped during a request');
cmp_ok(time - $begin, '<', 2.5, 'at once');
$peer->forget;

# Every so often.
$peer->control(op => 'generate', name => 'tick', count => 10);
create_feed($node, 'tick', 'api', options => { %since, path => '/page/tick?since={cursor}' });
$node->safe_psql('postgres', "SELECT ingest.alter_pipeline('tick', schedule => '1 second'); SELECT ingest.start('tick')");
arrives($node, 'tick', 10, 'scheduled: the first run');
$peer->control(op => 'generate', name => 'tick', first => 10, count => 10);
arrives($node, 'tick', 20, 'scheduled: a later one');
$node->safe_psql('postgres', "SELECT ingest.stop('tick')");
check_rows($node, $peer, 'tick', 'tick', 'scheduled');

# ---- rows that do not decode: dead letters with their page; replayed

$peer->control(op => 'generate', name => 'dirty', count => 40);
$peer->control(op => 'update', name => 'dirty', id => 33, values => { updated_at => 'the day after' });
create_feed($node, 'dirty', 'api', columns => "id bigint, updated_at timestamptz, doc jsonb OPTIONS (path '\$')",
	options => { path => '/page/dirty', rows => '$.items[*]', pagination => 'page', page_size => 20 });
drain($node, 'dirty');
is(value($node, 'SELECT count(*) FROM dirty'), '39', 'rows that decode are written');
is(value($node, "SELECT stage, payload_text::jsonb ->> 'id', headers::text ~ '/page/dirty' AND headers::text ~ '\"1\"' FROM ingest.dead_letter WHERE pipeline = 'dirty'"),
	'decode|33|t', 'the other one is a dead letter, and says where it was');
check_accounted($node, 'dirty', 'dead letters');
$node->safe_psql('postgres', 'ALTER FOREIGN TABLE dirty_feed ALTER COLUMN updated_at TYPE text; ALTER TABLE dirty ALTER COLUMN updated_at TYPE text');
$node->safe_psql('postgres', "SELECT ingest.replay('dirty')");
is(value($node, "SELECT (SELECT count(*) FROM dirty), (SELECT outcome FROM ingest.dead_letter WHERE pipeline = 'dirty'), updated_at FROM dirty WHERE id = 33"),
	'40|replayed|the day after', 'and replayed');

# ---- how far it is, set by an operator

$node->safe_psql('postgres', "SELECT ingest.seek('inc', 'earliest', confirm => true); TRUNCATE inc");
drain($node, 'inc');
check_rows($node, $peer, 'inc', 'inc', 'seek earliest: everything again');
$node->safe_psql('postgres', "SELECT ingest.seek('inc', '2026-01-01 00:30:00+00', confirm => true); TRUNCATE inc");
$peer->mark;
drain($node, 'inc');
is(($peer->requests(''))[0]{query}{since}, '2026-01-01T00:30:00Z', 'seek to a time');
is(value($node, "SELECT count(*) FILTER (WHERE name = 'inc' AND state = 'stopped'), bool_and(lag IS NULL OR lag >= 0) FROM ingest.pipeline_status"), '1|t', 'status');
is(value($node, "SELECT count(*) > 30 FROM ingest.option_help WHERE help <> '' AND wrapper = 'ingest_http'"), 't', 'options are explained')
  if value($node, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'option_help' AND column_name = 'wrapper'");

# ---- many rows with the same time at the borders of pages

foreach my $equal (7, 20, 40, 100)
{
	my $name = "equal$equal";
	$peer->control(op => 'generate', name => $name, count => 200, equal => $equal);
	create_feed($node, $name, 'api', options => { %since, path => "/page/$name?since={cursor}&sort=updated_at" },
		pipeline => '{"batch_rows": 13}');
	drain($node, $name) foreach 1 .. 2;
	$peer->control(op => 'generate', name => $name, first => 200, count => 70, equal => $equal);
	drain($node, $name) foreach 1 .. 2;
	check_rows($node, $peer, $name, $name, "D04: $equal rows with the same time");
}

$node->stop('fast');
done_testing();
