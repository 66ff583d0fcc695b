# HTTP servers that others wrote, read from end to end and compared with what they
# have: datasette over SQLite, GraphQL, nginx with compression, TLS, HTTP/2, ranges,
# client certificates and rate limits.
use strict;
use warnings;

use Cwd qw(abs_path);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use HttpPeers;
use HttpTest;
use IngestTest;
use ProcessTest;

my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $json = JSON::PP->new->utf8->canonical;

sub write_file
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die $!;
	return;
}

# ---- the database that two of them show

my $database = "$dir/plant.db";
write_file("$dir/fill.py", <<'PYTHON');
import json, random, sqlite3, sys
random.seed(7)
database = sqlite3.connect(sys.argv[1])
database.execute('CREATE TABLE reading (id INTEGER PRIMARY KEY, sensor TEXT, value REAL, taken_at TEXT NOT NULL, note TEXT)')
database.execute('CREATE INDEX reading_taken_at ON reading (taken_at)')
words = ['plain', 'caf\u00e9', '\u65e5\u672c', '\U0001f600', 'a "quoted" one', "it's", 'back\\slash', 'line\nbreak', 'tab\t', '<b>&amp;</b>', ' ', '', 'a,b;c', 'null', '\u2028']
ids = random.sample(range(1, 1 << 50), 3997) + [1 << 62, 0, -5]
rows = [(i, random.choice(['s%d' % (n % 17), None]), random.choice([None, n / 8, -1e-9 * n, 1e300, 0.1]),
         '2026-01-%02dT%02d:%02d:00Z' % (1 + n // 2000, n // 100 % 20, n // 7 % 60), random.choice([None, *words]) if n % 50 else 'x' * 20000) for n, i in enumerate(ids)]
database.executemany('INSERT INTO reading VALUES (?, ?, ?, ?, ?)', rows)
database.commit()
PYTHON
system_or_bail(HttpPeers::python(), "$dir/fill.py", $database);
write_file("$dir/dump.py", <<'PYTHON');
import json, sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute('SELECT id, sensor, value, taken_at, note FROM reading'):
    print(json.dumps(dict(zip(('id', 'sensor', 'value', 'taken_at', 'note'), row))))
PYTHON

my $node = start_node('peers', conf => "restart_after_crash = on\nfsync = off\ningest.retry_min = '50ms'\ningest.retry_max = '500ms'");

# What SQLite itself says, by another way.
sub load_oracle
{
	my $dump = run_simple_command([ HttpPeers::python(), "$dir/dump.py", $database ]);
	$node->safe_psql('postgres', 'DROP TABLE IF EXISTS oracle; CREATE TABLE oracle (line text)');
	write_file("$dir/dump", $dump =~ s/\\/\\\\/gr);
	$node->safe_psql('postgres', "\\copy oracle from '$dir/dump'");
	return;
}

sub run_simple_command
{
	my ($command) = @_;
	my ($out, $err) = run_command($command);
	die $err if $err;
	return "$out\n";
}

my $columns = 'id bigint, sensor text, value float8, taken_at timestamptz, note text';
my $expected = "SELECT r.* FROM oracle, LATERAL jsonb_to_record(line::jsonb) AS r ($columns)";

# Rows that are in one of both only, or in another number.
sub check_same
{
	my ($table, $name, %args) = @_;
	my $where = $args{where} ? "WHERE $args{where}" : '';
	my $note = $args{note} // 'note';
	my $ours = "SELECT id, sensor, value, taken_at, $note FROM $table";
	my $theirs = "SELECT id, sensor, value, taken_at, $note FROM ($expected) e $where";
	is(value($node, "SELECT (SELECT count(*) FROM ($ours EXCEPT ALL $theirs) x), (SELECT count(*) FROM ($theirs EXCEPT ALL $ours) x), (SELECT count(*) > 0 FROM $table)"),
		'0|0|t', "$name: the same rows");
	return;
}

load_oracle();

# ---- datasette

my $datasette = HttpPeers->datasette($database);
create_api($node, 'datasette', $datasette->url, timeout => '60 s', idle_timeout => '30 s');
my $pages = '/plant/reading.json?_shape=objects&_size=333';
my %crawls = (
	next_url => { path => $pages, rows => '$.rows[*]', pagination => 'next_url', next => '$.next_url' },
	token => { path => $pages, rows => '$.rows[*]', pagination => 'token', next => '$.next', page_param => '_next' },
	# Of rows with the same time datasette gives some on two pages.
	sorted => { key => 'id', path => '/plant/reading.json?_shape=objects&_size=100&_sort_desc=taken_at', rows => '$.rows[*]', pagination => 'token', next => '$.next', page_param => '_next' },
	link => { path => '/plant/reading.json?_shape=array&_size=500', rows => '$[*]', pagination => 'link' },
	lines => { path => '/plant/reading.json?_shape=array&_nl=on&_size=500', format => 'ndjson', pagination => 'link' },
	sheet => { path => '/plant/reading.csv?_stream=on&_size=max', format => 'csv', header => 'on', null => '' },
	query => { path => '/plant.json?sql=select * from reading where id %3E coalesce(nullif(:after, %27%27), -100) %2B 0 order by id limit 400&_shape=array&after={last_id}', rows => '$[*]',
		pagination => 'last_id', last_id => 'id' },
);
foreach my $style (sort keys %crawls)
{
	create_feed($node, "d_$style", 'datasette', columns => $columns, options => $crawls{$style});
	drain($node, "d_$style");
	# CSV cannot tell an empty text from none.
	check_same("d_$style", "datasette: $style", note => $style eq 'sheet' ? "replace(replace(coalesce(note, ''), E'\\r', ''), E'\\n', '')" : 'note');
	is(value($node, "SELECT sum(read) - sum(written) - sum(skipped) FROM ingest.batch_history WHERE pipeline = 'd_$style'"), '0', "datasette: $style: nothing is set aside");
}

# Increments while somebody writes, by a worker that is killed.
write_file("$dir/grow.py", <<'PYTHON');
import sqlite3, sys
first, count = map(int, sys.argv[2:])
database = sqlite3.connect(sys.argv[1], timeout=60)
database.executemany("INSERT INTO reading VALUES (?, 'new', ?, ?, NULL)",
    [(n, n / 4, '2026-02-01T%02d:%02d:00Z' % (n // 600 % 24, n // 10 % 60)) for n in range(first, first + count)])
database.commit()
PYTHON
create_feed($node, 'grows', 'datasette', columns => $columns, pipeline => '{"batch_rows": 50, "batch_wait": "10 ms"}',
	options => { %{ $crawls{token} }, path => '/plant/reading.json?_shape=objects&_size=150&_sort=taken_at&taken_at__gte={cursor}', cursor => 'taken_at',
		cursor_start => '2026-01-02T10:00:00Z', poll => '200 ms' });
my $grows = "taken_at >= '2026-01-02T10:00:00Z'";
my $count = value($node, "SELECT count(*) FROM ($expected) e WHERE $grows");
$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = 'before-commit:kill:4'; SELECT pg_reload_conf(); SELECT ingest.start('grows')");
wait_for($node, "SELECT count(*) > 0 FROM ingest._batch b JOIN ingest._pipeline p ON p.id = b.pipeline_id WHERE p.name = 'grows'", 't', 'datasette: a crawl is under way');
foreach (1 .. 400)
{
	last if count_log($node, qr/terminated by signal 9/) >= 2;
	sleep 0.05;
}
cmp_ok(count_log($node, qr/terminated by signal 9/), '>=', 2, 'datasette: workers are killed');
wait_until_up($node);
wait_for($node, "ALTER SYSTEM RESET ingest.fault", '', 'datasette: no more');
$node->reload;
foreach my $i (0 .. 3)
{
	system_or_bail(HttpPeers::python(), "$dir/grow.py", $database, 5000 + $i * 300, 300);
	arrives($node, 'grows', $count + 300 * ($i + 1), 'datasette: increments');
}
$node->safe_psql('postgres', "SELECT ingest.stop('grows')");
load_oracle();
check_same('grows', 'datasette: increments', where => $grows);
$datasette->stop;

# ---- GraphQL

my $graphql = HttpPeers->graphql($database);
create_api($node, 'graph', $graphql->url, timeout => '60 s', idle_timeout => '30 s');
create_feed($node, 'graph_rows', 'graph', columns => q(id bigint OPTIONS (path '$.number'), sensor text, value float8, taken_at timestamptz OPTIONS (path '$.takenAt'), note text),
	options => { path => '/', method => 'post', rows => '$.data.readings.edges[*].node', pagination => 'graphql', next => '$.data.readings.pageInfo', page_size => 100,
		cursor => 'taken_at', cursor_start => '2026-01-01T00:00:00Z',
		body => '{"query": "query ($after: String, $first: Int!, $since: String) { readings(first: $first, after: $after, since: $since) '
		  . '{ pageInfo { hasNextPage endCursor } edges { node { number sensor value takenAt note } } } }", "variables": {"after": {token}, "first": {limit}, "since": {cursor}}}' });
drain($node, 'graph_rows');
check_same('graph_rows', 'GraphQL: all pages');
is(value($node, 'SELECT count(*) FROM (SELECT * FROM graph_rows_feed LIMIT 5) x'), '5', 'GraphQL: a peek');
system_or_bail(HttpPeers::python(), "$dir/grow.py", $database, 7000, 150);
drain($node, 'graph_rows') foreach 1 .. 2;
load_oracle();
check_same('graph_rows', 'GraphQL: increments');
create_feed($node, 'graph_wrong', 'graph', columns => 'id bigint',
	options => { path => '/', method => 'post', rows => '$.data.nothing.edges[*].node', pagination => 'graphql', next => '$.data.nothing.pageInfo', body => '{"query": "{ nothing }"}' });
fails_with($node, "CALL ingest.run('graph_wrong')", 'HV00M', qr/status 400|error in it/, 'GraphQL: a wrong question');
$graphql->stop;

# ---- nginx

sub openssl { return system_or_bail('openssl', @_) }

openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=ours', '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem");
write_file("$dir/server.ext", "subjectAltName = IP:127.0.0.1\n");
foreach my $name (qw(server client))
{
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name", '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr");
	openssl('x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-days', '2', '-out', "$dir/$name.crt",
		$name eq 'server' ? ('-extfile', "$dir/server.ext") : ());
}
my $lines = 120_000;
my $www = "$dir/www";
mkdir "$www$_" foreach '', '/pages';
write_file(sprintf('%s/pages/%d.json', $www, $_), $json->encode({ items => [ map { { id => $_, text => "text $_" } } $_ * 50 .. $_ * 50 + 49 ],
	next => $_ < 199 ? ($_ + 1) . '.json' : undef })) foreach 0 .. 199;
sub line { return sprintf qq({"id": %d, "name": "sensor %d", "value": %.3f, "text": "%s"}\n), $_[0], $_[0] * 7919 % 100000, $_[0] / 8, 'x' x ($_[0] % 40) }
foreach my $name (qw(large grown changed packed))
{
	open my $file, '>', "$www/$name.ndjson" or die $!;
	print $file line($_) foreach 0 .. $lines - 1;
	close $file or die $!;
}
write_file("$dir/passwords", "reader:{PLAIN}s3cret\n");
my $nginx = HttpPeers->nginx($dir, <<"CONF");
    gzip on;
    gzip_types application/json;
    gzip_min_length 100;
    limit_req_zone \$binary_remote_addr zone=slow:1m rate=1r/s;
    limit_req_status 429;
    root $www;
    ssl_certificate $dir/server.crt;
    ssl_certificate_key $dir/server.key;
    server {
        listen 127.0.0.1:%PORT_plain%;
        location /private/ { alias $www/pages/; auth_basic private; auth_basic_user_file $dir/passwords; }
        location /limited/ { alias $www/pages/; limit_req zone=slow burst=3 nodelay; }
        location /packed.ndjson { gzip_types application/x-ndjson; }
    }
    server { listen 127.0.0.1:%PORT_tls% ssl http2; }
    server { listen 127.0.0.1:%PORT_mutual% ssl; ssl_verify_client on; ssl_client_certificate $dir/ca.pem; }
CONF
my $at = 'http://127.0.0.1:' . $nginx->port('plain');
my $ca = slurp_file("$dir/ca.pem");
create_api($node, 'plain', $at);
create_api($node, 'eager', $at, retries => 20);
create_api($node, 'polite', $at, rate_limit => '1/s');
create_api($node, 'tls', 'https://127.0.0.1:' . $nginx->port('tls'), ssl_ca => $ca);
create_api($node, 'mutual', 'https://127.0.0.1:' . $nginx->port('mutual'), ssl_ca => $ca);
create_api($node, 'stranger', 'https://127.0.0.1:' . $nginx->port('mutual'), ssl_ca => $ca);
$node->safe_psql('postgres', 'CREATE USER MAPPING FOR CURRENT_USER SERVER mutual '
	  . options_sql(client_cert => slurp_file("$dir/client.crt"), client_key => slurp_file("$dir/client.key")));
$node->safe_psql('postgres', 'CREATE USER MAPPING FOR CURRENT_USER SERVER plain ' . options_sql(auth => 'basic', username => 'reader', password => 's3cret'));

my %static = (rows => '$.items[*]', pagination => 'next_url', next => '$.next');
my $all_pages = '10000|10000|0|9999|10000';
my $sums = "count(*), count(DISTINCT id), min(id), max(id), count(*) FILTER (WHERE text = 'text ' || id)";
foreach my $case ([ 'plain', '/pages/0.json' ], [ 'plain', '/private/0.json' ], [ 'tls', '/pages/0.json' ], [ 'mutual', '/pages/0.json' ], [ 'polite', '/limited/194.json' ], [ 'eager', '/limited/194.json' ])
{
	my ($server, $path) = @$case;
	my $name = "n_$server" . ($path =~ /private/ ? '_private' : '');
	create_feed($node, $name, $server, columns => 'id bigint, text text', options => { %static, path => $path });
	$nginx->mark;
	drain($node, $name);
	is(value($node, "SELECT $sums FROM $name"), $path =~ /194/ ? '300|300|9700|9999|300' : $all_pages, "nginx: $server $path: all pages");
	my @requests = $nginx->requests(qr/ 200 /);
	is(scalar @requests, $path =~ /194/ ? 6 : 200, "nginx: $server: each page once");
	is(scalar(grep { /"gzip"/ } @requests), scalar @requests, "nginx: $server: compressed");
	my %connections = map { /(\d+)$/ ? ($1 => 1) : () } @requests;
	is(scalar keys %connections, 1, "nginx: $server: by one connection");
	my @refused = $nginx->requests(qr/ 429 /);
	is(scalar @refused, 0, 'nginx: nothing too fast') if $server eq 'polite';
	cmp_ok(scalar @refused, '>', 0, 'nginx: ' . @refused . ' requests were too fast') if $server eq 'eager';
	is(scalar(grep { m{ HTTP/2} } @requests), 200, 'nginx: HTTP/2') if $server eq 'tls';
}
create_source($node, 'n_stranger', 'stranger', columns => 'id bigint', options => { %static, path => '/pages/0.json' });
fails_with($node, 'SELECT * FROM n_stranger_feed', '[0-9A-Z]{5}', qr/400|certificate/, 'nginx: without a certificate of ours');

# What has not changed.
create_feed($node, 'same', 'plain', columns => 'id bigint', options => { rows => '$.items[*]', path => '/pages/7.json' });
drain($node, 'same');
$nginx->mark;
drain($node, 'same');
is(scalar($nginx->requests(qr/ 304 /)), 1, 'nginx: 304');
is(value($node, 'SELECT count(*) FROM same'), '50', 'nginx: 304: nothing is read');

# A large file, by workers that are killed after 40,000 lines each: the rest of it
# is asked for.
sub read_and_kill
{
	my ($name, $times, $between) = @_;
	create_feed($node, $name, 'plain', columns => 'id bigint, name text, value float8, text text', pipeline => '{"batch_rows": 10000, "batch_wait": "10 s"}',
		options => { format => 'ndjson', path => "/$name.ndjson", poll => '1 hour' });
	$nginx->mark;
	$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.fault = 'after-commit:wait:3'; SELECT pg_reload_conf(); SELECT ingest.start('$name')");
	foreach my $i (1 .. $times)
	{
		arrives($node, $name, 40000 * $i, "nginx: $name: lines");
		$between->() if $between && $i == 1;
		my $pid = worker_pid($node, $name);
		kill 'KILL', $pid;
		wait_gone(20, "nginx: $name: a worker is killed", $pid);
		wait_until_up($node);
	}
	# The next one does not stay there.
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ingest.fault; SELECT pg_reload_conf()');
	return;
}

my $line_sums = 'count(*), count(DISTINCT id), min(id), max(id), bool_and(value = id / 8.0 AND length(text) = id % 40)';
read_and_kill('large', 2);
arrives($node, 'large', $lines, 'nginx: a large file goes on', 60);
is(value($node, "SELECT $line_sums FROM large"), "$lines|$lines|0|" . ($lines - 1) . '|t', 'nginx: a large file: each line once');
cmp_ok(scalar $nginx->requests(qr/ 206 \d+ "bytes=[1-9]\d*-"/), '>=', 2, 'nginx: a large file: from where it was');

read_and_kill('packed', 2);
arrives($node, 'packed', $lines, 'nginx: a compressed file goes on', 60);
is(value($node, "SELECT $line_sums FROM packed"), "$lines|$lines|0|" . ($lines - 1) . '|t', 'nginx: a compressed file: each line once');
cmp_ok(scalar $nginx->requests(qr/packed.* 200 .*"gzip"/), '>=', 1, 'nginx: it was compressed');

read_and_kill('grown', 2, sub {
	append_to_file("$www/grown.ndjson", join '', map { line($_) } $lines .. $lines + 999);
});
arrives($node, 'grown', $lines + 1000, 'nginx: a file that has grown meanwhile goes on', 60);
is(value($node, "SELECT $line_sums FROM grown"), join('|', $lines + 1000, $lines + 1000, 0, $lines + 999, 't'), 'nginx: a file that has grown meanwhile: each line once');

read_and_kill('changed', 1, sub {
	open my $file, '>', "$www/changed.new" or die $!;
	print $file line($_) foreach 1 .. $lines;
	close $file or die $!;
	rename "$www/changed.new", "$www/changed.ndjson" or die $!;
});
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'changed'", 'gap', 'nginx: another file under the same name: state gap');
is(value($node, 'SELECT count(*) FROM changed'), '40000', 'nginx: and nothing of it is read');
$node->safe_psql('postgres', "SELECT ingest.stop(name) FROM ingest.pipeline_status WHERE state <> 'stopped'");

is(count_log($node, qr/PANIC|TRAP:|signal 11|signal 6/), 0, 'nothing worse in the log');
$node->stop('fast');
done_testing();
