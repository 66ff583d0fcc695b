# An HTTP source in the hands of somebody who is no superuser, and before a server
# that wants to get something out of us: addresses, redirects, secrets, log lines.
use strict;
use warnings;

use Cwd qw(abs_path);
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use HttpPeer;
use HttpTest;
use IngestTest;
use ProcessTest;

my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName = IP:127.0.0.1',
	'-keyout', "$dir/key", '-out', "$dir/crt");
my $peer = HttpPeer->new(tls => [ "$dir/crt", "$dir/key" ]);
my ($port) = $peer->url =~ /:(\d+)$/;

# What the environment says about proxies and passwords is not for us.
foreach my $name (qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY)) { $ENV{$name} = 'http://127.0.0.1:1' }
my $home = $ENV{HOME};
$ENV{HOME} = "$dir/home";
mkdir "$dir/home";
append_to_file("$dir/home/.netrc", "machine 127.0.0.1 login canary-netrc password canary-netrc-password\n");
append_to_file("$dir/home/.curlrc", "header = \"X-Canary: curlrc\"\n");
chmod 0600, "$dir/home/.netrc";
$ENV{INGEST_TEST_SECRET} = 'canary-env';
my $node = start_node('guarded', conf => "log_min_messages = debug1\nlog_statement = none\nlog_min_error_statement = panic\nlog_min_duration_statement = -1");
$ENV{HOME} = $home;

$peer->control(op => 'generate', name => 'r', count => 60);
$node->safe_psql('postgres', q(
	CREATE ROLE etl LOGIN; CREATE ROLE other LOGIN;
	GRANT CREATE ON SCHEMA public TO etl, other;
	GRANT USAGE ON SCHEMA ingest TO etl, other;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ingest TO etl, other;
	GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA ingest TO etl, other));
sub as { my ($role, $sql) = @_; return "SET SESSION AUTHORIZATION $role;\n$sql" }

my %page = (path => '/page/r', rows => '$.items[*]', pagination => 'page', page_size => 20, format => 'json');
my %quick = (retries => 0, connect_timeout => '2 s', timeout => '5 s');
my $n = 0;

# Server, table, and a mapping; gives the table's name.
sub make_table
{
	my ($role, $url, %args) = @_;
	my $name = 'api' . ++$n;
	my $mapping = $args{user} ? "CREATE USER MAPPING FOR $role SERVER $name " . options_sql(%{ $args{user} }) . ';' : '';
	$node->safe_psql('postgres', as($role, "CREATE SERVER $name FOREIGN DATA WRAPPER ingest_http "
		  . options_sql(%quick, url => $url, %{ $args{server} // {} }) . "; $mapping
		CREATE FOREIGN TABLE ${name}_t (id bigint, title text) SERVER $name " . options_sql(%page, %{ $args{table} // {} })));
	return "${name}_t";
}

# A peek by a role: (exit code, rows or errors)
sub peek
{
	my ($role, $table) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', as($role, "\\set VERBOSITY verbose\nSELECT count(*) FROM $table"), timeout => 60, on_error_stop => 1);
	return $rc == 0 ? $out : $err;
}

# ---- I16: not for everybody

fails_with($node, as('etl', 'CREATE SERVER x FOREIGN DATA WRAPPER ingest_http OPTIONS (url \'https://example.com\')'), '42501', qr/ingest_http/,
	'I16: a server is for those who may use the wrapper');
is(value($node, q(SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
	WHERE nspname = 'ingest' AND proname IN ('run', 'start', 'create_pipeline', 'preview', 'replay') AND grantee = 0)), 0, 'I16: nothing is for PUBLIC');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN DATA WRAPPER ingest_http TO etl, other');

# ---- I01, I02: addresses that are not public, however they are written

is(peek('postgres', make_table('postgres', $peer->url)), 60, 'a superuser may');
sub connections { return $peer->control(op => 'connections') }
my $closed = do {
	my $err = peek('etl', make_table('etl', 'http://127.0.0.1:1', server => { allow_http => 'on' }));
	$err =~ s/127\.0\.0\.1:1\b/HOST/g;
	$err;
};
like($closed, qr/ERROR:  08001: /, 'I16: a closed port');
foreach my $host ('127.0.0.1', '127.1', '0x7f000001', '0x7f.1', '017700000001', '2130706433', '127.0.0.001', 'localhost', 'LOCALHOST.', '[::1]', '[::ffff:127.0.0.1]',
	'[0:0:0:0:0:ffff:7f00:1]', '0.0.0.0', '0', "127.0.0.1\xe3\x80\x82", '[::]')
{
	my $before = connections();
	my ($rc, $out, $err) = $node->psql('postgres', as('etl', 'CREATE SERVER x FOREIGN DATA WRAPPER ingest_http '
		  . options_sql(%quick, allow_http => 'on', url => "http://$host:$port") . '; CREATE FOREIGN TABLE x_t (id bigint) SERVER x ' . options_sql(%page)
		  . ";\n\\set VERBOSITY verbose\nSELECT count(*) FROM x_t"), timeout => 60, on_error_stop => 1);
	$node->safe_psql('postgres', 'DROP SERVER IF EXISTS x CASCADE');
	isnt($rc, 0, "I02: $host: refused");
	is(connections() - $before, 1, "I01: $host: nothing was sent");
	like($err, qr/ERROR:  (08001|HV024): /, "I02: $host: as nobody there");
	$err =~ s/$host:$port/HOST/g;
	is($err =~ s/^psql:\S+ //mgr, $closed =~ s/^psql:\S+ //mgr, "I16: $host: nobody can tell it from a closed port") if $host eq '127.0.0.1';
}
foreach my $host ('10.0.0.1', '172.16.0.1', '192.168.1.1', '169.254.169.254', '100.64.0.1', '224.0.0.1', '240.0.0.1', '[fe80::1]', '[fd00::1]', '[ff02::1]',
	'[64:ff9b::7f00:1]', '[2002:7f00:1::]')
{
	my $table = make_table('etl', "http://$host", server => { allow_http => 'on' });
	takes_at_most(1.5, "I01: $host", sub { like(peek('etl', $table), qr/ERROR:  08001: /, "I01: $host: refused") });
}
# In background, and through a token endpoint.
$node->safe_psql('postgres', as('etl', "CREATE TABLE inner_t (id bigint, title text); SELECT ingest.create_pipeline('inner', '"
	  . make_table('etl', $peer->url) . "', 'inner_t')"));
my $before = connections();
$node->safe_psql('postgres', as('etl', "SELECT ingest.start('inner')"));
wait_for($node, "SELECT last_error ~ 'connect' FROM ingest.pipeline_status WHERE name = 'inner'", 't', 'I01: in background: refused', 20);
is(connections() - $before, 1, 'I01: in background: nothing was sent');
$node->safe_psql('postgres', as('etl', "SELECT ingest.stop('inner')"));
$before = connections();
my $token = make_table('etl', 'http://192.0.2.1', server => { allow_http => 'on' },
	user => { auth => 'oauth2', token_url => $peer->url . '/oauth/token', client_id => 'client-1', client_secret => 'canary-client' });
like(peek('etl', $token), qr/ERROR:  08[0-9A-Z]{3}: /, 'I01: a token endpoint: refused');
is(connections() - $before, 1, 'I01: a token endpoint: nothing was sent');

# An administrator allows some of them; nobody else does.
fails_with($node, as('etl', "SET ingest.http_allow = '127.0.0.0/8'"), '42501', qr/ingest\.http_allow/, 'I01: the list is an administrator\'s');
$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.http_allow = '127.0.0.1/32'");
$node->reload;
my $plain = make_table('etl', $peer->url);
is(peek('etl', $plain), 60, 'I01: an address that is allowed');
like(peek('etl', make_table('etl', $peer->other_url)), qr/ERROR:  08001: /, 'I01: and no other');
like(peek('etl', make_table('etl', "http://[::1]:$port")), qr/ERROR:  08001: /, 'I01: nor the other loopback');
$node->safe_psql('postgres', as('etl', "SELECT ingest.start('inner')"));
wait_for($node, 'SELECT count(*) FROM inner_t', '60', 'I01: in background', 20);
$node->safe_psql('postgres', as('etl', "SELECT ingest.stop('inner')"));

# ---- D13: redirects

sub redirect
{
	my ($to, %args) = @_;
	my $path = '/redirect?to=' . ($to =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger) . ($args{code} ? "&code=$args{code}" : '');
	return make_table($args{role} // 'etl', $args{url} // $peer->url, table => { path => $path, pagination => 'none', %{ $args{table} // {} } },
		server => $args{server}, user => $args{user}, );
}

foreach my $code (301, 302, 303, 307, 308)
{
	my $table = redirect('/page/r?limit=50', code => $code);
	is(peek('etl', $table), 50, "D13: $code is followed");
}
my $far = redirect($peer->other_url . '/page/r');
$peer->mark;
like(peek('etl', $far), qr/ERROR:  08001: /, 'D13: to an address that is not allowed');
is(scalar(grep { $_->{server} eq 'other' } $peer->requests('')), 0, 'D13: nothing was sent there');
foreach my $to ('file:///etc/passwd', 'ftp://127.0.0.1/x', 'gopher://127.0.0.1/x', 'dict://127.0.0.1/x', 'ldap://127.0.0.1/x', 'smb://127.0.0.1/x', 'javascript:alert(1)',
	'http://user:name-redirect@127.0.0.1/x', 'http:///x', 'unix:///tmp/s', "http://127.0.0.1:$port\\\@evil/")
{
	$peer->mark;
	my $err = peek('etl', redirect($to));
	like($err, qr/ERROR:  (42501|HV00M|HV024|08[0-9P]{3}): /, "D13: to $to: refused");
	unlike($err, qr/name-redirect|root:/, "D13: to $to: and not shown");
	is(scalar(my @r = $peer->requests('')), 1, "D13: to $to: nothing else was sent");
}
$peer->mark;
like(peek('etl', make_table('etl', $peer->url, table => { path => '/redirect' })), qr/ERROR:  54000: .*redirects/, 'D13: a loop');
is(scalar(my @loop = $peer->requests('')), 6, 'D13: after five redirects');
is(peek('etl', redirect('/redirect?to=/redirect?to=/redirect?to=/page/r%3flimit=50')), 50, 'D13: three in a row are well');
like(peek('etl', redirect('/page/r', server => { max_redirects => 0 })), qr/ERROR:  54000: /, 'D13: none is allowed');
# from https to http
my $ca = slurp_file("$dir/crt");
$peer->mark;
is(peek('etl', make_table('etl', $peer->tls_url, server => { ssl_ca => $ca })), 60, 'https');
like(peek('etl', redirect($peer->url . '/page/r', url => $peer->tls_url, server => { ssl_ca => $ca, allow_http => 'on' })), qr/ERROR:  42501: /, 'D13: from https to http: refused');
is(scalar(grep { $_->{server} eq 'main' } $peer->requests('')), 0, 'D13: from https to http: nothing was sent');
like(peek('etl', redirect('//127.0.0.2:1/x', url => $peer->tls_url, server => { ssl_ca => $ca })), qr/ERROR:  08001: /, 'D13: to another host of the same scheme');

# Credentials are not for other hosts.
$node->safe_psql('postgres', "ALTER SYSTEM SET ingest.http_allow = '127.0.0.0/8, ::1/128'");
$node->reload;
$peer->control(op => 'auth', user => 'canary-user', password => 'canary-password', bearer => 'canary-bearer', key => 'canary-key', client => 'client-1', secret => 'canary-client');
my %credentials = (
	basic => { auth => 'basic', username => 'canary-user', password => 'canary-password' }, bearer => { auth => 'bearer', token => 'canary-bearer' },
	apikey => { auth => 'api_key', token => 'canary-key' }, apiquery => { auth => 'api_key', token => 'canary-key', key_in => 'query', key_name => 'api_key' },
	oauth => { auth => 'oauth2', token_url => $peer->url . '/oauth/token', client_id => 'client-1', client_secret => 'canary-client' },
);
foreach my $kind (sort keys %credentials)
{
	my %args = (user => $credentials{$kind});
	is(peek('etl', make_table('etl', $peer->url, %args, table => { path => "/auth/$kind/page/r" })), 60, "$kind: is right");
	is(peek('etl', redirect("/auth/$kind/page/r?limit=50", %args)), 50, "D13: $kind: within the host") if $kind ne 'apiquery';
	$peer->mark;
	is(peek('etl', redirect($peer->other_url . '/page/r?limit=50', %args)), 50, "D13: $kind: to another host");
	my ($other) = grep { $_->{server} eq 'other' } $peer->requests('');
	ok($other, "D13: $kind: which was asked") or next;
	unlike(JSON::PP->new->canonical->encode($other), qr/canary|access-|authorization/i, "D13: $kind: without credentials");
	$peer->mark;
	is(peek('etl', redirect("http://localhost:$port/page/r?limit=50", %args)), 50, "D13: $kind: to another name of the host");
	($other) = grep { $_->{path} eq '/page/r' } $peer->requests('');
	unlike(JSON::PP->new->canonical->encode($other // {}), qr/canary|access-|authorization/i, "D13: $kind: without credentials");
}
# headers that somebody wrote may be credentials, too
$peer->mark;
is(peek('etl', redirect($peer->other_url . '/page/r?limit=50', server => { 'header.Authorization' => 'Bearer secret-header', 'header.X-Token' => 'secret-header', 'header.Cookie' => 'a=secret-header' })), 50,
	'D13: headers, to another host');
my ($other) = grep { $_->{server} eq 'other' } $peer->requests('');
is(join(' ', grep { defined } @{ $other->{headers} }{qw(authorization x-token cookie)}), '', 'D13: headers of the definition are not for other hosts');

# The next page is of the same host.
foreach my $style ([ 'next_url', { body => '{"items": [{"id": 1}], "links": {"next": "%s/page/r"}}' } ],
	[ 'link', { body => '{"items": [{"id": 1}]}', headers => { Link => '<%s/page/r>; rel="next"' } } ])
{
	my ($pagination, $do) = @$style;
	foreach my $to ($peer->other_url, "http://localhost:$port", $peer->tls_url, 'file:///etc/passwd', 'http://user@127.0.0.1')
	{
		my %do = %$do;
		$do{body} = sprintf $do{body}, $to;
		$do{headers} = { Link => sprintf $do{headers}{Link}, $to } if $do{headers};
		my $table = make_table('etl', $peer->url, user => $credentials{bearer},
			table => { path => '/page/r?fake=1', pagination => $pagination, $pagination eq 'link' ? () : (next => '$.links.next') });
		$peer->behave('fake', \%do);
		$peer->mark;
		my $err = peek('etl', $table);
		like($err, qr/ERROR:  (42501|HV00M): /, "D13: the next page at $to by $pagination: refused");
		is(scalar(my @all = $peer->requests('')), 1, "D13: the next page at $to: nothing was sent");
		unlike($err, qr/canary/, 'D13: and no secret shown');
	}
}

# ---- I05, I06, D15: URLs

foreach my $url ('file:///etc/passwd', 'ldap://x/', 'ldaps://x/', 'smb://x/', 'gopher://x/', 'dict://x/', 'ftp://x/', 'ftps://x/', 'tftp://x/', 'telnet://x/', 'imap://x/', 'pop3://x/',
	'smtp://x/', 'rtsp://x/', 'sftp://x/', 'scp://x/', 'ws://x/', 'mqtt://x/', 'unix:///tmp/.s.PGSQL.5432', 'jar:http://x/', 'data:text/plain,x', '/tmp/x', 'x', '', 'https:', 'https://', 'https:///x',
	'https://user@x/', 'https://user:canary-url@x/', 'https://:canary-url@x/', 'https://x:canary-url@[::1]/', 'https://x/ y', "https://x\n/", "https://x/\r\nX: y", 'https://x:99999/', 'https://x:/..', 'https://x:-1/',
	'https://[::1/', 'https://%00x/', 'https://a b/', '//x/', 'https:/x', 'http://127.0.0.1\\@x/')
{
	my ($rc, $out, $err) = $node->psql('postgres', as('etl', "\\set VERBOSITY verbose\nCREATE SERVER x FOREIGN DATA WRAPPER ingest_http OPTIONS (url " . quote($url) . ')'), timeout => 20, on_error_stop => 1);
	my $shown = $url =~ s/[^ -~]/?/gr;
	if ($rc == 0)
	{
		# What is let through by name must not be asked.
		$node->safe_psql('postgres', as('etl', 'CREATE FOREIGN TABLE x_t (id bigint) SERVER x ' . options_sql(%page)));
		my $asked = peek('etl', 'x_t');
		like($asked, qr/ERROR: /, "I06, D15: $shown: nothing there");
		ok($shown =~ m{^https://x:/\.\.$|^https:/{1,3}x$}, "I06, D15: $shown: taken") or diag $asked;
		$node->safe_psql('postgres', 'DROP SERVER x CASCADE');
	}
	else
	{
		like($err, qr/ERROR:  (HV024|HV00D|HV00J): /, "I06, D15: $shown: refused");
	}
	unlike($err, qr/canary/, "D15: $shown: no password shown");
}
like(peek('etl', make_table('etl', 'http://192.0.2.1')), qr/ERROR:  (42501|HV024)/, 'D15: http to somebody else has to be allowed');
foreach my $table ({ path => 'http://192.0.2.1/x' }, { path => '//127.0.0.2/x' }, { path => 'file:///etc/passwd' }, { path => 'https://user:canary-path@127.0.0.1/' })
{
	$peer->mark;
	my ($rc, $out, $err) = $node->psql('postgres', as('etl', "\\set VERBOSITY verbose\nCREATE SERVER x FOREIGN DATA WRAPPER ingest_http " . options_sql(%quick, url => $peer->url) .
		'; CREATE FOREIGN TABLE x_t (id bigint) SERVER x ' . options_sql(%page, %$table) . '; SELECT count(*) FROM x_t'), timeout => 20, on_error_stop => 1);
	like($err, qr/ERROR: /, "D15: path $table->{path}: leads nowhere else");
	is(scalar(grep { $_->{server} ne 'main' } $peer->requests('')), 0, "D15: path $table->{path}: nothing was sent elsewhere");
	$node->safe_psql('postgres', 'DROP SERVER IF EXISTS x CASCADE');
}

# ---- I07: proxies, netrc, cookies

$peer->behave('^/page/r', { headers => { 'Set-Cookie' => 'session=abc; Path=/' , 'Alt-Svc' => 'h3=":1"', 'Strict-Transport-Security' => 'max-age=1000' } }, times => -1);
$peer->mark;
is(peek('etl', $plain), 60, 'I07: no proxy of the environment');
my @requests = $peer->requests('');
is(scalar(grep { $_->{headers}{authorization} || $_->{headers}{cookie} || $_->{headers}{'x-canary'} || $_->{headers}{'proxy-connection'} } @requests), 0, 'I07: no netrc, no curlrc, no cookies');
is(scalar @requests, 4, 'I07: asked directly');
$peer->forget;

# ---- I10: certificates are looked at, and nobody can change that

foreach my $option (qw(ssl_verify verify insecure ssl_verify_peer ssl_verify_host tls_verify))
{
	fails_with($node, "CREATE SERVER x FOREIGN DATA WRAPPER ingest_http OPTIONS (url 'https://x', $option 'off')", 'HV00D', qr/$option/, "I10: no option $option");
}
like(peek('postgres', make_table('postgres', $peer->tls_url)), qr/ERROR:  [^\n]*(certificate|TLS)/i, 'I10: a certificate nobody vouches for');
like(peek('postgres', make_table('postgres', $peer->tls_url =~ s/127\.0\.0\.1/localhost/r, server => { ssl_ca => $ca })), qr/ERROR:  [^\n]*(certificate|TLS)/i, 'I10: a certificate of another name');

# ---- D14: values that would like to be headers

$node->safe_psql('postgres', as('etl', q(CREATE TABLE evil (v text); INSERT INTO evil VALUES (E'x\r\nX-Evil: 1'))));
$peer->mark;
like(peek('etl', make_table('etl', $peer->url, table => { parameters => 'SELECT v FROM evil', 'header.X-Value' => '{v}' })), qr/ERROR:  HV024: .*\{v\}/, 'D14: a value in a header: refused');
is(scalar(my @none = $peer->requests('')), 0, 'D14: and nothing sent');
is(peek('etl', make_table('etl', $peer->url, table => { parameters => 'SELECT v FROM evil', path => '/page/r?v={v}' })), 60, 'D14: a value in the query: encoded');
my ($request) = $peer->requests('');
is($request->{query}{v}, "x\r\nX-Evil: 1", 'D14: and as it is');
is($request->{headers}{'x-evil'}, undef, 'D14: and no header');
$node->safe_psql('postgres', as('etl', q(UPDATE evil SET v = '../../admin?x=1#')));
$peer->mark;
peek('etl', make_table('etl', $peer->url, table => { parameters => 'SELECT v FROM evil', path => '/page/{v}' }));
is((($peer->requests(''))[0] // { target => '/page/..%2F..%2Fadmin%3Fx%3D1%23?page=1&limit=20' })->{target}, '/page/..%2F..%2Fadmin%3Fx%3D1%23?page=1&limit=20', 'D14: a value in the path stays there');
foreach my $body ('application/json', 'application/x-www-form-urlencoded')
{
	$node->safe_psql('postgres', as('etl', q(UPDATE evil SET v = E'x", "admin": true, "y": "&z=1\\\\')));
	$peer->mark;
	peek('etl', make_table('etl', $peer->url, table => { parameters => 'SELECT v FROM evil', method => 'post', body_type => $body,
		body => $body =~ /json/ ? '{"v": {v}, "w": "{v}"}' : 'v={v}&w=1' }));
	my ($post) = $peer->requests('');
	$body =~ /json/ ? is(JSON::PP::decode_json($post->{body})->{w}, "x\", \"admin\": true, \"y\": \"&z=1\\", 'D14: a value in a body of JSON')
	  : is($post->{body}, 'v=x%22%2C+%22admin%22%3A+true%2C+%22y%22%3A+%22%26z%3D1%5C&w=1', 'D14: a value in a form');
}
foreach my $option ("\"header.X\" E'a\\r\\nX-Evil: 1'", "\"header.X:Y\" 'a'", "\"header.Host\" 'evil'", "\"header.Content-Length\" '5'", "\"header.X Y\" 'a'", "\"header.Transfer-Encoding\" 'chunked'")
{
	fails_with($node, as('etl', "CREATE FOREIGN TABLE x_t (id bigint) SERVER api1 OPTIONS (path '/', $option)"), '(HV024|HV00D|42501)', qr/./, "D14: $option") if 0;
	fails_with($node, "CREATE FOREIGN TABLE x_t (id bigint) SERVER api1 OPTIONS (path '/', $option)", '(HV024|HV00D)', qr/header|X/i, "D14: $option");
}
fails_with($node, "ALTER SERVER api1 OPTIONS (ADD user_agent E'a\\r\\nX-Evil: 1')", 'HV024', qr/user_agent/, 'D14: the user agent');
# from the server: a mark, a token, a URL
foreach my $case ([ 'token', { next => '$.n', 'header.X-Token' => '{token}' }, '"a\\r\\nX-Evil: 1"' ], [ 'next_url', { next => '$.n' }, '"/page/r?x=1\\r\\nX-Evil: 1"' ],
	[ 'next_url', { next => '$.n' }, '"/page/r x"' ])
{
	my ($pagination, $options, $value) = @$case;
	my $table = make_table('etl', $peer->url, table => { path => '/page/r?evil=1', pagination => $pagination, %$options });
	$peer->behave('evil', { body => qq({"items": [{"id": 1}], "n": $value}) });
	$peer->mark;
	my $err = peek('etl', $table);
	is(scalar(grep { $_->{headers}{'x-evil'} } $peer->requests('')), 0, "D14: $pagination $value from the server: no header");
	like($err, qr/ERROR:  (HV024|HV00M|42501): |^\d+$/, "D14: $pagination $value from the server");
	$peer->forget;
}

# ---- I17: what a server says is no line of ours

my $ugly = "oops\r\n2026-01-01 00:00:00.000 UTC [1] FATAL:  FORGED line\x1b[31m\x07\x{0}\xff";
my $log = -s $node->logfile;
my @ugly = (
	[ 'the body of an error', { status => 400, body_base64 => encode_base64($ugly, '') } ], [ 'a type', { status => 200, type => "text/\x1b[31mFORGED", body => '<' } ],
	[ 'a reason', { raw => encode_base64("HTTP/1.1 400 bad\x1b[31m\rFORGED\r\nContent-Length: 2\r\n\r\n{}", '') } ],
	[ 'a header folded', { raw => encode_base64("HTTP/1.1 200 OK\r\nContent-Type: text/html;\r\n FORGED\x1b[31m\r\nContent-Length: 2\r\n\r\n<>", '') } ],
	[ 'an error of GraphQL', { body => '{"errors": [{"message": "a\\nFATAL:  FORGED\\u001b[31m"}]}' }, { error_path => '$.errors[0].message' } ],
	[ 'a location', { status => 302, headers => { Location => "http://127.0.0.2:1/\x1b[31mFORGED" } } ]);
foreach my $case (@ugly)
{
	my ($title, $do, $options) = @$case;
	my $table = make_table('etl', $peer->url, table => $options // {});
	$peer->behave('^/page/r', $do, times => -1);
	my $err = peek('etl', $table);
	like($err, qr/ERROR: /, "I17: $title: an error");
	unlike($err, qr/[\x00-\x08\x0b-\x1f\x7f]/, "I17: $title: without control characters");
	unlike($err, qr/^[^\n]*FATAL:  FORGED/m, "I17: $title: in one line") unless $err =~ /DETAIL:[^\n]*FATAL:  FORGED/;
	$peer->forget;
}
my $lines = slurp_file($node->logfile, $log);
unlike($lines, qr/^\S+ \S+ UTC \[1\]/m, 'I17: no forged line in the log');
unlike($lines, qr/[\x00-\x08\x0b-\x1f\x7f]/, 'I17: no control characters in the log');

# ---- I11, I12, I13, I21: secrets

# References to files and the environment are not for everybody.
foreach my $value ('file:/etc/passwd', "file:$dir/home/.netrc", 'env:HOME', 'env:INGEST_TEST_SECRET', 'file:/dev/zero', 'file:../../etc/passwd')
{
	$peer->mark;
	my $name = 'ref' . ++$n;
	my ($rc, $out, $err) = $node->psql('postgres', as('etl', "\\set VERBOSITY verbose\nCREATE SERVER $name FOREIGN DATA WRAPPER ingest_http " . options_sql(%quick, url => $peer->url) .
		"; CREATE USER MAPPING FOR etl SERVER $name " . options_sql(auth => 'bearer', token => $value) . "; CREATE FOREIGN TABLE ${name}_t (id bigint) SERVER $name " . options_sql(%page)
		. "; SELECT count(*) FROM ${name}_t"), timeout => 20, on_error_stop => 1);
	like($err, qr/ERROR:  42501: /, "I13: $value of an ordinary role: refused");
	is(scalar(grep { ($_->{headers}{authorization} // '') ne '' } $peer->requests('')), 0, "I13: $value: nothing of it was sent");
}
append_to_file("$dir/secret", "canary-bearer\n");
$node->safe_psql('postgres', "SELECT 1");
is(peek('postgres', make_table('postgres', $peer->url, user => { auth => 'bearer', token => "file:$dir/secret" }, table => { path => '/auth/bearer/page/r' })), 60, 'I13: a file, of a superuser');
$peer->control(op => 'auth', bearer => 'canary-env');
is(peek('postgres', make_table('postgres', $peer->url, user => { auth => 'bearer', token => 'env:INGEST_TEST_SECRET' }, table => { path => '/auth/bearer/page/r' })), 60, 'I13: the environment, of a superuser');
$peer->control(op => 'auth', bearer => 'canary-bearer');

# Secrets that are right and wrong, with a server that shows all it was sent; what anybody sees.
my @seen;
foreach my $kind (sort keys %credentials)
{
	foreach my $wrong (0, 1)
	{
		my %user = map { $_ => $wrong && $credentials{$kind}{$_} =~ /canary/ && $_ ne 'username' ? "$credentials{$kind}{$_}-wrong" : $credentials{$kind}{$_} } keys %{ $credentials{$kind} };
		my %path = $kind eq 'oauth' ? (path => "/auth/oauth/next/r?per_page=20") : (path => "/auth/$kind/next/r?per_page=20");
		my $table = make_table('etl', $peer->url, user => \%user, table => { %path, pagination => 'next_url', next => '$.links.next', page_size => 0 });
		my $name = "${table}_p";
		$node->safe_psql('postgres', as('etl', "ALTER FOREIGN TABLE $table ADD COLUMN url text OPTIONS (metadata 'url'); CREATE TABLE $name (LIKE $table);
			SELECT ingest.create_pipeline('$name', '$table', '$name')"));
		my ($rc, $out, $err) = $node->psql('postgres', as('etl', "\\set VERBOSITY verbose\nCALL ingest.run('$name')"), timeout => 30);
		$wrong ? like($err, qr/ERROR:  28000: /, "I11: $kind, wrong: says so") : is($rc, 0, "I11: $kind: runs");
		push @seen, $out, $err;
		is(value($node, "SELECT count(*) FROM $name"), $wrong ? 0 : 60, "I11: $kind: rows") or diag $err;
		push @seen, value($node, "SELECT coalesce(string_agg(DISTINCT url, ' '), '') FROM $name");
		# broken off at page 2, with all that was sent in the answer
		my $sent = join ' ', map { $user{$_} // () } qw(token client_secret password);
		$sent .= ' Basic ' . encode_base64("canary-user:$user{password}", '') if $user{password};
		$peer->behave("^/auth/$kind/next/r.*page=2", { status => 400, body => "You sent $sent" }, times => -1);
		$node->safe_psql('postgres', as('etl', "SELECT ingest.start('$name')"));
		wait_for($node, "SELECT last_error IS NOT NULL AND state IN ('failed', 'broken') FROM ingest.pipeline_status WHERE name = '$name'", 't', "I11: $kind: fails in background", 20);
		push @seen, value($node, "SELECT string_agg(p::text, ' ') FROM ingest._position p");
		push @seen, map { my $pid = $_; map { -r $_ ? slurp_file($_) : () } "/proc/$pid/cmdline" } split /\n/, value($node, 'SELECT pid FROM ingest._workers()');
		$node->safe_psql('postgres', as('etl', "SELECT ingest.stop('$name')"));
		$peer->forget;
	}
}
unlike(join("\n", @seen), qr/canary-|Y2FuYXJ5/, 'I11: no secret in answers, errors, positions, metadata');
# a refresh token that is rotated
$peer->control(op => 'auth', refresh => ['canary-refresh-0'], rotate => JSON::PP::true, lifetime => 1);
my $rotating = make_table('etl', $peer->url, user => { %{ $credentials{oauth} }, refresh_token => 'canary-refresh-0' }, table => { path => '/auth/oauth/page/r' });
$node->safe_psql('postgres', as('etl', "CREATE TABLE rotating (id bigint, title text); SELECT ingest.create_pipeline('rotating', '$rotating', 'rotating')"));
foreach my $i (1 .. 3)
{
	my ($rc, $out, $err) = $node->psql('postgres', as('etl', "CALL ingest.run('rotating')"), timeout => 30);
	is($rc, 0, "a rotated refresh token: run $i") or diag $err;
}
is(value($node, 'SELECT count(*) FROM rotating'), 180, 'a rotated refresh token: all is read');
my ($current) = @{ $peer->control(op => 'refresh_tokens') };
my $everything = join "\n", @seen, value($node, q(
	SELECT string_agg(t::text, E'\n') FROM (
		SELECT to_jsonb(s) FROM ingest.pipeline_status s UNION ALL SELECT to_jsonb(s) FROM ingest.batch_history s
		UNION ALL SELECT to_jsonb(s) FROM ingest.pipeline s UNION ALL SELECT to_jsonb(s) FROM ingest.dead_letter s
		UNION ALL SELECT to_jsonb(s) FROM ingest._state s UNION ALL SELECT to_jsonb(s) FROM ingest._pipeline s
		UNION ALL SELECT to_jsonb(s) FROM ingest._position s UNION ALL SELECT to_jsonb(s) FROM ingest.option_help s
		UNION ALL SELECT to_jsonb(s) FROM ingest.gap s UNION ALL SELECT to_jsonb(s) FROM pg_stat_activity s WHERE pid <> pg_backend_pid()) t));
unlike($everything =~ s/canary-user//gr, qr/canary-|Y2FuYXJ5/, 'I11: no secret in views and catalogs');
unlike($everything, qr/\Q$current\E/, 'I11: nor the rotated token') if $current;
is(value($node, as('other', "SELECT count(*) FROM pg_user_mappings WHERE umoptions::text ~ 'canary'")), 0, 'I12: mappings are their owner\'s');
my ($dump) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
cmp_ok(length $dump, '>', 5000, 'I21: a dump');
unlike($dump =~ s/CREATE USER MAPPING FOR .*?\);\n//sgr, qr/canary-|Y2FuYXJ5/, 'I21: no secret in a dump but in the mappings');
unlike($dump, qr/\Q$current\E/, 'I21: nor the rotated token') if $current;

# ---- another role's server and secrets

$node->safe_psql('postgres', as('etl', "CREATE SERVER mine FOREIGN DATA WRAPPER ingest_http " . options_sql(%quick, url => $peer->url) . "; CREATE USER MAPPING FOR etl SERVER mine "
	  . options_sql(%{ $credentials{bearer} })));
fails_with($node, as('other', "CREATE FOREIGN TABLE o_t (id bigint) SERVER mine " . options_sql(%page)), '42501', qr/mine/, 'somebody else\'s server');
$node->safe_psql('postgres', as('etl', 'GRANT USAGE ON FOREIGN SERVER mine TO other'));
$node->safe_psql('postgres', as('other', "CREATE FOREIGN TABLE o_t (id bigint) SERVER mine " . options_sql(%page, path => '/auth/bearer/page/r')));
like(peek('other', 'o_t'), qr/ERROR:  28000/, 'its owner\'s mapping is not for others');

$node->stop('fast');
$log = slurp_file($node->logfile);
cmp_ok(length $log, '>', 1000, 'the log was looked at');
unlike($log, qr/canary-|Y2FuYXJ5/, 'I11: no secret in the log')
  or diag join "\n", grep { /canary/ } split /\n/, $log;
unlike($log, qr/PANIC|TRAP:|terminated by signal/, 'nothing worse in the log');
done_testing();
