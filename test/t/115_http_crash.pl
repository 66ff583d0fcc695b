# Workers of HTTP sources that are killed in the midst of a crawl, of a page or of a
# body, while the server goes on changing: what it has is in the table, none twice.
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
my $node = start_node('crash', conf => <<'CONF');
restart_after_crash = on
fsync = off
ingest.retry_min = '20ms'
ingest.retry_max = '200ms'
CONF
my $servers = 0;

# Back-off and pauses are a server's: one for each feed.
sub new_api
{
	my (%options) = @_;
	my $name = 'api' . ++$servers;
	create_api($node, $name, $peer->url, retries => 8, concurrency => 20, %options);
	return $name;
}

sub set_fault
{
	my ($fault) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = '$fault'; SELECT pg_reload_conf()");
	return;
}

# The worker that waits at a fault point dies; the next one does not stay there.
sub kill_worker
{
	my ($pipeline, $name) = @_;
	my $pid = worker_pid($node, $pipeline);
	kill 'KILL', $pid;
	wait_gone(20, "$name: the worker is killed", $pid);
	wait_until_up($node);
	set_fault('');
	return;
}

# ---- each kind of crawl, each fault point: one worker is killed, the server
# restarts, and so all the others are broken off anywhere

my %styles = (
	next_url => { path => '/nextrel/%s?per_page=20&since={cursor}', rows => '$.items[*]', pagination => 'next_url', next => '$.links.next' },
	link => { path => '/link/%s?per_page=20&since={cursor}', pagination => 'link' },
	offsets => { path => '/offset/%s?since={cursor}', pagination => 'offset', page_size => 20 },
	last_id => { path => '/last/%s?since={cursor}', rows => '$.items[*]', pagination => 'last_id', last_id => 'id', page_size => 20 },
	graphql => { path => '/graphql', method => 'post', rows => '$.data.items.edges[*].node', pagination => 'graphql', next => '$.data.items.pageInfo', page_size => 20,
		body => '{"query": "pageInfo", "variables": {"name": "%s", "since": {cursor}, "after": {token}, "first": {limit}}}' },
	lagging => { path => '/page/%s?since={cursor}', rows => '$.items[*]', pagination => 'page', page_size => 20, lag => '3 minutes', key => 'id' },
	elements => { path => '/xml/%s?since={cursor}', format => 'xml', rows => 'item' },
	lines => { path => '/ndjson/%s?since={cursor}', format => 'ndjson' },
);
foreach my $style (sort keys %styles)
{
	my %options = map { $_ => $styles{$style}{$_} =~ s/%s/all/r } keys %{ $styles{$style} };
	create_feed($node, $style, new_api(), columns => 'id bigint' . ($style eq 'elements' ? q( OPTIONS (path '@id')) : '') . ', title text, updated_at timestamptz',
		options => { %options, cursor => 'updated_at', cursor_start => '2025-01-01T00:00:00Z', poll => '300 ms' },
		pipeline => '{"batch_rows": 7, "batch_wait": "10 ms"}');
}

my $fed = 0;

# More rows; three in a row have the same time.
sub more_rows
{
	my ($count) = @_;
	$peer->control(op => 'generate', name => 'all', first => $fed, count => $count, equal => 3);
	$fed += $count;
	return;
}

sub all_arrive
{
	my ($name) = @_;
	my $sum = ($fed - 1) * $fed / 2;
	my $ok = 1;
	foreach my $style (sort keys %styles)
	{
		$ok &= arrives($node, $style, $fed, "$name: $style: all is there", 30);
		$ok &= is(value($node, "SELECT count(DISTINCT id), sum(id), bool_and(title = 'title ' || id) FROM $style"), "$fed|$sum|t", "$name: $style: once, and as it is there");
	}
	return $ok;
}

more_rows(50);
$node->safe_psql('postgres', "SELECT ingest.start(name) FROM ingest.pipeline_status");
if (all_arrive('before'))
{
	my @victims = sort keys %styles;
	foreach my $point (qw(before-turn after-fetch mid-decode before-load after-load before-position before-commit after-commit before-acknowledge))
	{
		my $victim = shift @victims;
		push @victims, $victim;
		my $pid = worker_pid($node, $victim);
		set_fault("$point:kill:" . ($point eq 'mid-decode' ? 30 : 1) . ":$pid");
		more_rows(60);
		wait_gone(20, "D01: $victim: killed at $point", $pid);
		wait_until_up($node);
		all_arrive("D01: $point") or last;
	}
}
set_fault('');
check_accounted($node, $_, "D01: $_") foreach sort keys %styles;
$node->safe_psql('postgres', 'SELECT ingest.stop(name) FROM ingest.pipeline_status');
wait_for($node, 'SELECT count(*) FROM ingest._workers()', '0', 'stopped');

# ---- chains of requests and windows of time: each goes on where it was

$node->safe_psql('postgres', "CREATE TABLE repository AS SELECT 'acme' AS owner, 'r' || g AS repo FROM generate_series(0, 9) g");
$peer->control(map { { op => 'generate', name => "acme/r$_", first => 1000 * $_, count => 45 } } 0 .. 9);
create_feed($node, 'chains', new_api(), columns => 'id bigint, title text', pipeline => '{"batch_rows": 20, "batch_wait": "1 s"}',
	options => { path => '/repos/{owner}/{repo}/issues', rows => '$.items[*]', pagination => 'page', page_size => 20, poll => '1 hour',
		parameters => 'SELECT owner, repo FROM repository' });
my $day = 86400;
my ($today) = map { $_ - $_ % $day } time;
my $iso = sub { my @t = gmtime shift; return sprintf '%04d-%02d-%02dT%02d:%02d:%02dZ', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ] };
$peer->control(op => 'load', name => 'days', rows => [ map { { id => $_, title => "t$_", updated_at => $iso->($today - 5 * $day + $_ * 1800) } } 0 .. 239 ]);
create_feed($node, 'days', new_api(), columns => 'id bigint, title text', pipeline => '{"batch_rows": 10, "batch_wait": "1 s"}',
	options => { path => '/page/days?from={from}&to={to}', rows => '$.items[*]', pagination => 'page', page_size => 20, window => '1 day', poll => '1 hour',
		cursor_start => $iso->($today - 5 * $day) });
foreach my $case ([ 'chains', 450 ], [ 'days', 240 ])
{
	my ($name, $count) = @$case;
	$peer->mark;
	set_fault('before-commit:wait:4');
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	wait_for($node, "SELECT count(*) > 0 FROM $name", 't', "D01: $name: under way");
	my $part = value($node, "SELECT count(*) FROM $name");
	kill_worker($name, "D01: $name");
	cmp_ok($part, '<', $count, "D01: $name: after $part rows");
	arrives($node, $name, $count, "D01: $name: goes on");
	is(value($node, "SELECT count(DISTINCT id) FROM $name"), $count, "D01: $name: none twice");
	$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
}

# ---- in the midst of a page, of which some rows are poison; and the page changes

$node->safe_psql('postgres', q(CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.id % 5 = 3 THEN RAISE EXCEPTION 'no % here', NEW.id; END IF; RETURN NEW; END $$));
my $kept = "SELECT id FROM %s UNION ALL SELECT (payload_text::jsonb ->> 'id')::bigint FROM ingest.dead_letter WHERE pipeline = '%s'";

# Rows of the table and dead letters; what stands in which is right.
sub poison_feed
{
	my ($name, %options) = @_;
	$peer->control({ op => 'load', name => $name, rows => [] }, { op => 'generate', name => $name, count => 2000 });
	create_feed($node, $name, new_api(), columns => 'id bigint, title text', pipeline => '{"error_rate": 1, "batch_rows": 300, "batch_wait": "1 s"}',
		options => { poll => '1 hour', %options });
	$node->safe_psql('postgres', "CREATE TRIGGER refuse BEFORE INSERT ON $name FOR EACH ROW EXECUTE FUNCTION refuse()");
	set_fault('after-commit:wait:0');
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	my $all = sprintf $kept, $name, $name;
	wait_for($node, "SELECT count(*) > 0 FROM ($all) x", 't', "$name: some rows of a page are committed");
	my @taken = split /\n/, value($node, $all);
	cmp_ok(scalar @taken, '<', 2000, "$name: " . @taken . ' rows');
	is(value($node, "SELECT p.proof LIKE '%taken%' FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = '$name'"), 't', "$name: the position is within the page");
	return @taken;
}

sub check_kept
{
	my ($name, $title, @expected) = @_;
	my $all = sprintf $kept, $name, $name;
	wait_for($node, "SELECT count(*) FROM ($all) x", scalar @expected, "$title: goes on", 20);
	my %differs;
	$differs{$_}++ foreach split /\n/, value($node, $all);
	$differs{$_}-- foreach @expected;
	my @differs = map { "$_: $differs{$_}" } grep { $differs{$_} } sort keys %differs;
	is(scalar @differs, 0, "$title: each row once") or diag "@differs[0 .. ($#differs < 20 ? $#differs : 20)]";
	is(value($node, "SELECT (SELECT count(*) FROM $name WHERE id % 5 = 3), (SELECT count(*) FROM ingest.dead_letter
		WHERE pipeline = '$name' AND (payload_text::jsonb ->> 'id')::bigint % 5 <> 3)"), '0|0', "$title: only the poison is set aside");
	check_accounted($node, $name, $title);
	$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
	return;
}

my @taken = poison_feed('page', path => '/plain/page');
kill_worker('page', 'poison');
check_kept('page', 'D01: poison in a page', 0 .. 1999);

@taken = poison_feed('moved', path => '/plain/moved');
my %taken = map { $_ => 1 } @taken;
my @rest = grep { !$taken{$_} } 0 .. 1999;
# Of those that are there, and of those that are not; numbers also as JSON.
my ($gone, $edited, $never, $newer) = map { $_ + 0 } @taken[ 0, 1 ], (grep { $_ % 5 != 3 } @rest)[ -1, -2 ];
$peer->control(
	{ op => 'delete', name => 'moved', ids => [ $gone, $never ] },
	{ op => 'update', name => 'moved', id => $edited, values => { title => 'edited' } },
	{ op => 'update', name => 'moved', id => $newer, values => { title => 'edited' } },
	{ op => 'insert', name => 'moved', at => 0, rows => [ { id => 5000, title => 'in front' } ] },
	{ op => 'insert', name => 'moved', at => 1000, rows => [ { id => 5001, title => 'in the midst' } ] },
	{ op => 'append', name => 'moved', rows => [ { id => 5002, title => 'behind' } ] });
kill_worker('moved', 'a page that has changed');
# The edited one is another row; what is gone before it was read is not read.
check_kept('moved', 'D02: a page that has changed', (grep { $_ != $never } 0 .. 1999), $edited, 5000 .. 5002);
is(value($node, "SELECT string_agg(title, ',' ORDER BY id, title) FROM moved WHERE id IN ($gone, $edited, $newer)"), "title $gone,edited,title $edited,edited", 'D02: as they are now');

@taken = poison_feed('body', path => '/ndjson/body?etag=strong', format => 'ndjson');
$peer->control(op => 'append', name => 'body', rows => [ { id => 5000, title => 'behind' } ]);
kill_worker('body', 'a body that has grown');
check_kept('body', 'D01: a body that has grown', 0 .. 1999, 5000);

# A body that has become another one: nothing is guessed.
foreach my $query ('etag=strong', 'quiet=1')
{
	my $name = 'became_' . ($query =~ s/\W/_/gr);
	$peer->control(op => 'generate', name => $name, count => 2000);
	create_feed($node, $name, new_api(), columns => 'id bigint, title text', pipeline => '{"batch_rows": 300, "batch_wait": "1 s"}',
		options => { path => "/ndjson/$name?$query", format => 'ndjson', poll => '1 hour' });
	set_fault('after-commit:wait:1');
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	arrives($node, $name, 600, "D08: $query: a body under way");
	$peer->control(op => 'insert', name => $name, at => 0, rows => [ { id => 5000, title => 'in front' } ]);
	kill_worker($name, "D08: $query");
	wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = '$name'", 'gap', "D08: $query: another body: state gap");
	is(value($node, "SELECT count(*), max(id) FROM $name"), '600|599', "D08: $query: nothing of it is read");
	$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
}

# All of a body is there, but not yet that it was all.
$peer->control(op => 'generate', name => 'ends', count => 600);
create_feed($node, 'ends', new_api(), columns => 'id bigint, title text', pipeline => '{"batch_rows": 300, "batch_wait": "1 s"}',
	options => { path => '/ndjson/ends?etag=strong', format => 'ndjson', poll => '1 hour' });
set_fault('after-commit:wait:1');
$peer->mark;
$node->safe_psql('postgres', "SELECT ingest.start('ends')");
arrives($node, 'ends', 600, 'D01: a body before its end');
kill_worker('ends', 'D01: a body before its end');
wait_for($node, "SELECT p.position::jsonb ->> 'crawls' FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = 'ends'", '1',
	'D01: a body before its end: ends');
is(value($node, 'SELECT count(*), count(DISTINCT id) FROM ends'), '600|600', 'D01: a body before its end: each row once');
is(join(' ', map { $_->{status} } $peer->requests('')), '200 416', 'D01: a body before its end: there is nothing behind it');
$node->safe_psql('postgres', "SELECT ingest.stop('ends')");

# ---- bodies that break off again and again

$peer->control(op => 'generate', name => 'broken', count => 1000);
foreach my $case ([ 'etag=strong', 1, 'by parts' ], [ 'etag=strong&stored=gzip', 0, 'kept compressed' ], [ 'etag=strong&range=no', 0, 'without parts' ], [ 'quiet=1', 0, 'that cannot be known again' ])
{
	my ($query, $parts, $title) = @$case;
	my $name = 'broken_' . ($query =~ s/\W/_/gr);
	create_feed($node, $name, new_api(retries => 1), columns => 'id bigint, title text', pipeline => '{"batch_rows": 100, "batch_wait": "1 s"}',
		options => { path => "/ndjson/broken?$query", format => 'ndjson' });
	$peer->behave('^/ndjson/broken', { cut => $query =~ /gzip/ ? 5000 : 20000 }, times => $parts ? -1 : 1);
	$peer->mark;
	drain($node, $name);
	is(value($node, "SELECT count(*), count(DISTINCT id), sum(id), bool_and(title = 'title ' || id) FROM $name"), '1000|1000|499500|t', "D06: a body $title");
	my @ranges = map { $_->{headers}{range} // 'all' } $peer->requests('');
	$query =~ /quiet/ ? is("@ranges", 'all all', "D06: a body $title: all again")
	  : like("@ranges", $query =~ /gzip/ ? qr/^all bytes=\d+- all$/ : $parts ? qr/^all( bytes=[1-9]\d*-){4,}$/ : qr/^all bytes=[1-9]\d*-$/, "D06: a body $title: what was asked for");
	$peer->forget;
}

# ---- a validator counts only once its rows are committed

$peer->control(op => 'generate', name => 'valid', count => 30);
create_feed($node, 'valid', new_api(), options => { path => '/plain/valid?etag=strong&modified=1' });
set_fault('before-commit:error:0');
fails_with($node, "CALL ingest.run('valid')", '58030', qr/fault/, 'D08: rows that are not committed');
set_fault('');
$peer->mark;
drain($node, 'valid') foreach 1 .. 2;
is(join(' ', map { $_->{status} } $peer->requests('')), '200 304', 'D08: are asked for again, and then not any more');
check_rows($node, $peer, 'valid', 'valid', 'D08');

# ---- a server that wants to be left alone is, also by others

$peer->control(op => 'generate', name => 'tired', count => 60);
my %tired = (path => '/page/tired', rows => '$.items[*]', pagination => 'page', page_size => 20);
my $api = new_api();
create_feed($node, $_, $api, options => \%tired) foreach qw(tired others);
$peer->behave('^/page/tired', { status => 429, headers => { 'Retry-After' => '3600' } }, skip => 1);
fails_with($node, "CALL ingest.run('tired')", '53400', qr/429/, 'D05: an hour is too long');
$peer->mark;
fails_with($node, "CALL ingest.run('$_')", '53400', qr/left alone/, "D05: $_ is told so") foreach qw(tired others);
fails_with($node, 'SELECT * FROM others_feed', '53400', qr/left alone/, 'D05: a peek is told so');
is($peer->requests(''), 0, 'D05: nobody asks for anything');
is(value($node, 'SELECT count(*) FROM tired'), '20', 'D05: what came before is there');

is(count_log($node, qr/PANIC|TRAP:|signal 11|signal 6/), 0, 'nothing worse in the log');
$node->stop('fast');
done_testing();
