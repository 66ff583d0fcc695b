# HTTP servers that are hostile, and users who are: where we connect to, what
# goes there, what comes back, how long it may take, and what anybody gets to see.
use strict;
use warnings;

use Cwd qw(abs_path);
use IO::Socket::INET;
use IPC::Run;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Sys::Hostname;
use Test::More;
use Time::HiRes qw(sleep time);

use Certificates;
use IngestTest;

my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $year = 365 * 86400;

# ---- the server, and certificates for it

make_authority($dir, 'ours');
make_authority($dir, 'theirs');
make_certificate($dir, 'ours', 'good', 'IP:127.0.0.1,DNS:localhost', -86400, $year);
make_certificate($dir, 'ours', 'elsewhere', 'DNS:api.example.com', -86400, $year);
make_certificate($dir, 'ours', 'expired', 'IP:127.0.0.1', -2 * $year, -$year);
make_certificate($dir, 'theirs', 'foreign', 'IP:127.0.0.1', -86400, $year);
make_certificate($dir, 'ours', 'client', 'DNS:us', -86400, $year);

PostgreSQL::Test::Utils::system_or_bail('openssl', 'pkcs8', '-topk8', '-in', "$dir/client.key", '-passout', 'pass:x', '-out', "$dir/locked.key");

my $log = "$dir/requests";
append_to_file($log, '');
my ($in, $out, $err) = ('', '', '');
my $server = IPC::Run::start([ 'python3', 'test/lib/httpd_hostile.py', $log, 'plain=127.0.0.1', 'other=127.0.0.1', 'six=::1', 'silent=127.0.0.1',
	(map { "$_=127.0.0.1,$dir/$_.crt,$dir/$_.key" } qw(good elsewhere expired foreign)),
	"mutual=127.0.0.1,$dir/good.crt,$dir/good.key,$dir/ours/ca.pem" ], \$in, \$out, \$err);
$server->pump until $out =~ /\n/;
my %port = map { split /=/ } split ' ', $out;
my $plain = "http://127.0.0.1:$port{plain}";
my $tls = "https://127.0.0.1:$port{good}";

# A port where nobody listens.
my $closed = do { my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die; $s->sockport };

# What the server has seen since the last call.
my $seen = 0;

sub events
{
	my @lines = split /\n/, slurp_file($log);
	my @new = map { decode_json($_) } @lines[ $seen .. $#lines ];
	$seen = @lines;
	return @new;
}

sub requests { return grep { $_->{event} eq 'request' } events() }

# ---- the database; proxies that its environment names, and a login, have no effect

$ENV{$_} = "http://127.0.0.1:$port{other}" foreach qw(http_proxy https_proxy HTTPS_PROXY ALL_PROXY all_proxy);
mkdir "$dir/home";
write_file("$dir/home/.netrc", "machine 127.0.0.1 login netrc password canary-netrc\ndefault login netrc password canary-netrc\n");
write_file("$dir/home/.curlrc", "proxy = \"http://127.0.0.1:$port{other}\"\nuser-agent = \"curlrc\"\n");
my $home = $ENV{HOME};
$ENV{HOME} = "$dir/home";
$ENV{NETRC} = "$dir/home/.netrc";
my $node = start_node('hostile', conf => "log_min_messages = debug1\nlog_statement = none\nlog_min_error_statement = panic");
delete @ENV{qw(http_proxy https_proxy HTTPS_PROXY ALL_PROXY all_proxy NETRC)};
$ENV{HOME} = $home;

$node->safe_psql('postgres', q(
	CREATE ROLE user1 LOGIN;
	GRANT USAGE ON FOREIGN DATA WRAPPER ingest_http TO user1;
	GRANT CREATE ON SCHEMA public TO user1;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO user1));

sub quoted { return "'" . $_[0] =~ s/'/''/gr . "'" }

sub options
{
	my (%options) = @_;
	delete @options{ grep { !defined $options{$_} } keys %options };
	return %options ? 'OPTIONS (' . join(', ', map { "\"$_\" " . quoted($options{$_}) } sort keys %options) . ')' : '';
}

# Server s, its mapping and foreign table t.
sub definition
{
	my ($url, $path, %args) = @_;
	my $server = options(url => $url, allow_http => 'on', retries => 0, %{ $args{server} // {} });
	my $table = options(path => $path, format => 'json', rows => '$[*]', %{ $args{table} // {} });
	my $s = $args{name} // 's';
	my $t = $args{table_name} // 't';
	my $columns = $args{columns} // 'id bigint, name text';
	return "CREATE SERVER $s FOREIGN DATA WRAPPER ingest_http $server;\n"
	  . ($args{user} ? "CREATE USER MAPPING FOR CURRENT_USER SERVER $s " . options(%{ $args{user} }) . ";\n" : '')
	  . "CREATE FOREIGN TABLE $t ($columns) SERVER $s $table;\n";
}

# One look, as a role (a superuser when none is said); all of it taken back.
sub look
{
	my ($url, $path, %args) = @_;
	my $select = $args{select} // 'SELECT count(*) FROM t';
	my ($rc, $answer, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\nBEGIN;\n" . definition($url, $path, %args) . "$select;\nROLLBACK",
		on_error_stop => 1, timeout => 60, extra_params => [ '-U', $args{as} // 'postgres' ]);
	$errors =~ s/^psql:<stdin>:\d+: //mg;
	$errors =~ s/^LOCATION: .*\n?//mg;
	return $rc == 0 ? $answer : $errors;
}

sub works { my ($name, @look) = @_; is(look(@look), '2', $name); return }

sub refused
{
	my ($sqlstate, $like, $name, @look) = @_;
	my $begin = time;
	my $errors = look(@look);
	like($errors, qr/^ERROR:  $sqlstate: .*?$like/s, $name);
	cmp_ok(time - $begin, '<', 20, "$name: soon");
	unlike($errors, qr/[\x00-\x08\x0b-\x1f\x7f]/, "$name: clean text");
	return $errors;
}

# ---- I01, I02: addresses

my $library = abs_path("$ENV{INGEST_TEST_BIN}/httpaddress.so");
$node->safe_psql('postgres', "CREATE FUNCTION test_address(text, text) RETURNS text LANGUAGE c STRICT AS '$library'");

sub address_is
{
	my ($expected, $list, @addresses) = @_;
	is(value($node, 'SELECT string_agg(a, E\'\n\') FROM unnest(' . quoted('{' . join(',', @addresses) . '}')
		  . '::text[]) a WHERE trim(test_address(a, ' . quoted($list) . ')) <> ' . quoted($expected)), '', "$expected within \"$list\"");
	return;
}
address_is('public', '', qw(1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
	169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 203.0.112.255 223.255.255.255
	::ffff:1.1.1.1 2000:: 2606:4700:4700::1111 2a00:1450::1 3ffe:: 2001:200::1 2003::1));
address_is('', '', qw(0.0.0.0 0.1.2.3 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 169.254.0.0 169.254.169.254
	169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255
	198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.255 168.63.129.16 :: ::7f00:1 ::a00:1 ::ffff:10.0.0.1
	::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:2::1 2001:10::1 2001:db8::1
	2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fdff:: fe80::1 fec0::1 ff02::1 400::1 ffff::));
address_is('loopback', '', qw(127.0.0.1 127.0.0.0 127.255.255.255 ::1 ::ffff:127.0.0.1 ::ffff:127.8.9.10));
address_is('listed', '10.1.2.0/23, 192.168.7.7,fd00::/8', qw(10.1.2.0 10.1.3.255 192.168.7.7 ::ffff:192.168.7.7 fd12::1));
address_is('', '10.1.2.0/23, 192.168.7.7,fd00::/8', qw(10.1.1.255 10.1.4.0 192.168.7.6 192.168.7.8 fc00::1 ::192.168.7.7));
address_is('loopback listed', '0.0.0.0/0 ::/0', qw(127.0.0.1 ::1));
foreach my $bad ('10.0.0.0/33', '10.0.0', '::/129', '10.0.0.0/8x', '10.0.0.0/-1', '010.0.0.1/8x', 'localhost', '10.0.0.0/', '/8', '1' x 100, 'fe80::1%lo')
{
	my ($rc, undef, $errors) = $node->psql('postgres', 'SET ingest.http_allow = ' . quoted($bad));
	ok($rc != 0 && $errors =~ /is no address or network/, "no network: $bad") or diag $errors;
}

# What an ordinary role gets to see of a port where nobody listens.
$node->safe_psql('postgres', "ALTER ROLE user1 SET ingest.http_allow = '127.0.0.1'");
my $nobody = look("http://127.0.0.1:$closed", '/rows', as => 'user1');
like($nobody, qr/^ERROR:  08001: http:\/\/127\.0\.0\.1:$closed\/rows: could not connect\n/, 'a port where nobody listens');
works('an address that is allowed', $plain, '/rows', as => 'user1');
fails_with($node, "SET SESSION AUTHORIZATION user1; SET ingest.http_allow = '0.0.0.0/0'", '42501', qr/http_allow/, 'nobody allows himself');
$node->safe_psql('postgres', "ALTER ROLE user1 SET ingest.http_allow = '10.99.0.0/16'");
events();
my @ways = ('127.0.0.1', 'localhost', 'LocalHost.', '0x7f000001', '0x7f.1', '017700000001', '2130706433', '127.1', '127.0.1', '127.000.000.001', '0', '0.0.0.0',
	'%31%32%37.0.0.1', '[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[::127.0.0.1]', '[0:0:0:0:0:0:0:1]', '[64:ff9b::7f00:1]', '169.254.169.254',
	'[fd00:ec2::254]', '10.0.0.1', '192.168.0.1', '172.16.0.1', '100.64.0.1', '100.100.100.200', '[fe80::1]', '224.0.0.1', '255.255.255.255', 'ip6-localhost', hostname());
foreach my $host (@ways)
{
	my $port = $host =~ /^\[/ && $port{six} ? $port{six} : $port{plain};
	my $begin = time;
	my $answer = look("http://$host:$port", '/rows', as => 'user1');
	my $comparable = $answer =~ s/http:\/\/\S+(\/rows)/http:\/\/127.0.0.1:$closed$1/r;
	# Names that this machine does not know are not what this is about.
	$comparable = $nobody if $host =~ /[a-z]/i && $host !~ /^(\[|0x|localhost$)/ && $answer =~ /could not find the host's address/;
	is($comparable, $nobody, "I01, I02, I16: $host is refused in the same words");
	cmp_ok(time - $begin, '<', 5, "$host: at once");
}
foreach my $path ("/to?l=http://127.0.0.1:$port{plain}/rows", "/to?l=//localhost:$port{plain}/rows", '/to?l=http://169.254.169.254/latest/meta-data')
{
	$node->safe_psql('postgres', "ALTER ROLE user1 SET ingest.http_allow = '::1'");
	my $from = $port{six} ? "http://[::1]:$port{six}" : next;
	events();
	refused('08001', qr/could not connect/, "I01: redirect $path", $from, $path, as => 'user1');
	is(scalar(grep { $_->{on} ne 'six' } events()), 0, 'and nobody was connected to');
}
is(scalar(grep { $_->{event} eq 'connect' } events()), 0, 'I03: no connection has come');
works("a superuser: $_", "http://$_:$port{plain}", '/rows') foreach qw(127.0.0.1 localhost 0x7f000001 127.1);
works('a superuser: ::1', "http://[::1]:$port{six}", '/rows') if $port{six};
refused('08001', qr/could not connect/, 'a superuser: nobody listens', "http://127.0.0.1:$closed", '/rows');

# What somebody else has defined is not looked at as a superuser.
$node->safe_psql('postgres', definition($plain, '/rows', name => 's1', table_name => 't1', columns => 'id bigint'), extra_params => [ '-U', 'user1' ]);
events();
fails_with($node, 'SELECT * FROM t1', '08001', qr/could not connect/, 'a superuser looks at what another has defined');
is(scalar(events()), 0, 'and nothing was connected to');
$node->safe_psql('postgres', 'DROP SERVER s1 CASCADE');

# In a pipeline, and where tokens come from, it is the same.
$node->safe_psql('postgres', definition("http://localhost:$port{plain}", '/rows', name => 's1', table_name => 't1') . "CREATE TABLE r1 (id bigint, name text); SELECT ingest.create_pipeline('p1', 't1', 'r1')",
	extra_params => [ '-U', 'user1' ]);
events();
fails_with($node, "SET SESSION AUTHORIZATION user1; CALL ingest.run('p1')", '08001', qr/could not connect/, 'I01: a pipeline');
$node->safe_psql('postgres', "ALTER ROLE user1 SET ingest.http_allow = '::1'; SET SESSION AUTHORIZATION user1; SELECT ingest.drop_pipeline('p1'); DROP SERVER s1 CASCADE");
if ($port{six})
{
	refused('08001', qr/127\.0\.0\.1:$port{plain}.*could not connect/, 'I01: a token', "http://[::1]:$port{six}", '/rows', as => 'user1',
		user => { auth => 'oauth2', token_url => "$plain/token/good", client_id => 'a', client_secret => 'b' });
}
is(scalar(grep { $_->{on} ne 'six' } events()), 0, 'I01: no connection has come from them');

# Nor does his query run as the one who looks.
$node->safe_psql('postgres', "CREATE FUNCTION who() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT current_user::text || session_user::text'", extra_params => [ '-U', 'user1' ]);
is(value($node, "SET ingest.http_allow = '127.0.0.1'; SET SESSION AUTHORIZATION user1;\n"
		  . definition($plain, '/rows?who={who}', columns => 'id bigint', table => { parameters => 'SELECT current_user AS who' })
		  . 'RESET SESSION AUTHORIZATION; SELECT count(*) FROM t; SELECT current_user <> \'user1\'; DROP SERVER s CASCADE'), "2\nt", 'a query for parameters');
like((requests())[-1]{path}, qr/who=user1$/, 'runs as who owns the table');

# ---- I06: schemes

foreach my $scheme (qw(file ftp ftps ldap ldaps gopher dict smb telnet tftp imap pop3 smtp rtsp scp sftp ws mqtt HTTPX javascript data))
{
	refused('HV024', qr/invalid value for option "url"/, "I06: $scheme://", "$scheme://127.0.0.1/etc/passwd", '');
	refused('42501', qr/redirect is not followed/, "I06: redirect to $scheme://", $plain, "/to?l=$scheme://127.0.0.1:$port{plain}/rows") if $scheme =~ /^[a-z]/;
}
refused('42501', qr/redirect is not followed/, "D15: redirect to $_", $plain, "/to?l=$_")
  foreach "http://user\@127.0.0.1:$port{plain}/rows", "http://:\@127.0.0.1:$port{plain}/rows", 'http://', "http://127.0.0.1:99999/", "http://127.0.0.1 .example.com/";

# ---- D15: URLs

foreach my $url ("http://user\@127.0.0.1:$port{plain}", "http://u:p\@127.0.0.1:$port{plain}", "http://good.example.com\@127.0.0.1:$port{plain}/",
	"http://127.0.0.1:$port{plain}\\\@evil.example.com/", "http://\@127.0.0.1:$port{plain}", '//127.0.0.1/', '127.0.0.1', 'localhost:80/', 'http://', 'http:///rows',
	'http://[::1/', 'http://a b/', 'http://127.0.0.1:port/', 'http://127.0.0.1:70000/', "http://127.0.0.1:$port{plain}/a b", "http://127.0.0.1:$port{plain}/\tx",
	'http://{host}/', "http://a\rb/", "http://a\nHost: b/", 'http://exa<mple/', '')
{
	my $errors = refused('HV024', qr/option "url"/, 'D15: ' . ($url =~ s/[\r\n\t]/?/gr), $url, '/rows');
	unlike($errors, qr/u:p/, 'without showing it');
}
works('D15: a fragment is not sent', "$plain/", '/rows#part?x=1');
is((requests())[-1]{path}, '/rows', 'D15: and the path is as it should');
works('D15: blanks are encoded', $plain, '/rows?q=a b');
is((requests())[-1]{path}, '/rows?q=a%20b', 'D15: as they should be');
refused('HV024', qr/option "path"/, "D15: path $_", $plain, $_)
  foreach "http://127.0.0.1:$port{other}/rows", "https://127.0.0.1:$port{plain}/rows", "HTTP://evil.example.com/", "http://x\@127.0.0.1:$port{plain}/rows";
works('an absolute path of the same server', $plain, "$plain/rows");
foreach my $path ('@evil.example.com/', '//evil.example.com/', '\\\\evil.example.com/', ':1/', '.evil.example.com')
{
	events();
	my $answer = look($plain, $path);
	unlike($answer, qr/http:\/\/(?!127)/, "D15: path $path stays there");
	is(scalar(grep { $_->{event} eq 'request' && $_->{on} ne 'plain' } events()), 0, 'D15: and nobody else is asked');
}
refused('HV024', qr/plain http is not allowed/, 'http to other hosts, unless allowed', 'http://192.0.2.1', '/rows', server => { allow_http => 'off' });
refused('42501', qr/redirect is not followed.*allow_http/s, 'and so with redirects', $plain, '/to?l=http://192.0.2.1/', server => { allow_http => 'off' });
works('http to this host', $plain, '/rows', server => { allow_http => 'off' });

# ---- D13: redirects, and who is told what

works('redirects', $plain, '/chain/5');
refused('54000', qr/too many redirects/, 'D13: too many redirects', $plain, '/chain/6');
refused('54000', qr/too many redirects/, 'D13: a loop', $plain, '/loop');
refused('54000', qr/too many redirects/, 'D13: not any', $plain, '/chain/1', server => { max_redirects => 0 });
refused('42501', qr/redirect is not followed/, 'D13: https to http', $tls, "/to?l=$plain/rows", server => { ssl_ca => slurp_file("$dir/ours/ca.pem") });
works('D13: a redirect with an endless body', $plain, '/redirect_endless');

my %credentials = (
	'basic' => { username => 'me', password => 'canary-a' }, 'bearer' => { auth => 'bearer', token => 'canary-b' },
	'api_key' => { auth => 'api_key', token => 'canary-c' }, 'jwt' => { auth => 'jwt', jwt_algorithm => 'HS256', jwt_key => 'canary-d' });
my %headers = ('header.Cookie' => 'canary-e', 'header.X-Secret' => 'canary-f', 'header.Accept-Language' => 'de');
foreach my $kind (sort keys %credentials)
{
	foreach my $status (301, 302, 303, 307, 308)
	{
		next if $status > 302 && $kind ne 'bearer';
		events();
		works("D13: $kind, $status to another server", $plain, "/to/$status?l=http://127.0.0.1:$port{other}/rows", user => $credentials{$kind}, table => \%headers);
		my ($first, $second) = requests();
		is($second->{on}, 'other', 'was asked');
		like(join(' ', %{ $first->{headers} }), qr/canary-e.*canary-f|canary-f.*canary-e/, 'the first has credentials');
		unlike(join(' ', %{ $second->{headers} }), qr/canary|authorization|x-api-key|cookie|eyJ/i, 'the other has not');
		is($second->{headers}{'accept-language'}, 'de', 'but what is harmless');
	}
	works("D13: $kind, to the same server", $plain, "/to?l=/rows", user => $credentials{$kind}, table => \%headers);
	my ($first, $second) = requests();
	is_deeply($second->{headers}, $first->{headers}, 'has them again');
}
works('D13: by another name', $plain, "/to?l=http://localhost:$port{plain}/rows", user => $credentials{bearer});
is((requests())[-1]{headers}{authorization}, undef, 'is another server');
foreach my $case ([ 301, 'GET' ], [ 302, 'GET' ], [ 303, 'GET' ], [ 307, 'POST' ], [ 308, 'POST' ])
{
	events();
	works("POST, $case->[0]", $plain, "/to/$case->[0]?l=/rows", table => { method => 'post', body => '{"q": 1}' });
	my ($first, $second) = requests();
	is("$first->{method} $first->{body}", 'POST {"q": 1}', 'POST, at first');
	is($second->{method}, $case->[1], "$case->[1] then");
	is($second->{body}, $case->[1] eq 'POST' ? '{"q": 1}' : '', 'with its body, or none');
	is($second->{headers}{'content-type'}, $case->[1] eq 'POST' ? 'application/json' : undef, 'and its type, or none');
}
my %paged = (pagination => 'next_url', next => '$.next', rows => '$.items[*]');
foreach my $next ("http://127.0.0.1:$port{other}/next?l=null", "//localhost:$port{plain}/next?l=null", 'ftp://127.0.0.1/', "http://x\@127.0.0.1:$port{plain}/rows", "/a\r\nb: c",
	"https://127.0.0.1:$port{plain}/rows")
{
	my $quoted = '"' . $next =~ s/\r\n/\\r\\n/r . '"';
	$quoted =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;
	events();
	refused('42501', qr/next page/, 'next page at ' . ($next =~ s/[\r\n]/?/gr), $plain, "/next?l=$quoted", table => \%paged, user => $credentials{bearer});
	is(scalar(requests()), 1, 'is not asked for');
}
refused('42501', qr/next page lies at another server/, 'next page, where a redirect has led to', $plain,
	"/to?l=http://127.0.0.1:$port{other}/next?l=%2522/rows%2522", table => \%paged, user => $credentials{bearer});
is(scalar(grep { $_->{on} eq 'other' && $_->{headers}{authorization} } requests()), 0, 'and gets no credentials');

# Nor does anybody get them by typing a position.
$node->safe_psql('postgres', definition($plain, '/next?l=null', name => 's2', table_name => 't2', table => \%paged, user => $credentials{bearer})
  . "CREATE TABLE r2 (id bigint, name text); SELECT ingest.create_pipeline('p2', 't2', 'r2')");
drain($node, 'p2');
my $position = value($node, "SELECT jsonb_build_object(shard, (position::jsonb || jsonb_build_object('pages', 1, 'next', 'http://127.0.0.1:$port{other}/rows'))::text) FROM ingest._position");
$node->safe_psql('postgres', 'SELECT ingest.seek(\'p2\', positions => ' . quoted($position) . ', confirm => true)');
events();
fails_with($node, "CALL ingest.run('p2')", '42501', qr/next page lies at another server/, 'a position with another server in it');
is(scalar(requests()), 0, 'is not asked for');
$node->safe_psql('postgres', "SELECT ingest.drop_pipeline('p2'); DROP SERVER s2 CASCADE");

# ---- D14: what cannot be sent

my $evil = "x\r\nX-Injected: 1";
refused('(HV024|HV00C)', qr/control character|line break/, 'D14: a header', $plain, '/rows', table => { 'header.X-A' => $evil });
refused('(HV024|HV00C)', qr/control character|line break/, 'D14: a header with a bell', $plain, '/rows', server => { 'header.X-A' => "a\x07b" });
refused('HV00C|HV00D|HV024', qr/header/, 'D14: the name of a header', $plain, '/rows', table => { "header.X-A: b$evil" => 'x' });
refused('HV024', qr/control character|line break/, 'D14: a user agent', $plain, '/rows', server => { user_agent => $evil });
refused('HV024', qr/control character|line break/, 'D14: a type', $plain, '/rows', table => { method => 'post', body => '{}', body_type => $evil });
refused('HV024', qr/control character|line break/, 'D14: a path', $plain, "/rows?$evil");
refused('HV024', qr/control character|line break/, 'D14: a token', $plain, '/rows', user => { auth => 'bearer', token => $evil });
events();
my %evil = (parameters => "SELECT E'a b/../?&#\\r\\nX-Injected: 1\\x7f' AS p");
works('D14: a value in the path', $plain, '/rows/{p}?q={p}', table => \%evil);
works('D14: a value in a body', $plain, '/rows', table => { %evil, method => 'post', body => '{"q": "{p}"}' });
works('D14: the name of a parameter', $plain, '/rows', table => { page_size => 7, limit_param => $evil });
my @requests = requests();
is($requests[0]{path}, '/rows/a%20b%2F..%2F%3F%26%23%0D%0AX-Injected%3A%201%7F?q=a%20b%2F..%2F%3F%26%23%0D%0AX-Injected%3A%201%7F', 'D14: is encoded');
is($requests[1]{body}, '{"q": "a b/../?&#\r\nX-Injected: 1' . ($requests[1]{body} =~ /(\\u007f|\x7f)/ ? $1 : '?') . '"}', 'D14: as JSON');
refused('HV024', qr/cannot stand in/, 'D14: a value in a header', $plain, '/rows', table => { %evil, 'header.X-A' => '{p}' });
refused('HV024', qr/cannot stand in/, 'D14: a cursor in a header', $plain, '/rows', columns => 'name text',
	table => { cursor => 'name', cursor_start => $evil, cursor_format => 'plain', 'header.X-A' => '{cursor}' });
refused('HV024|54000|HV00M', qr/./, 'D14: a token of a page', $plain, "/next?l=%22x%5Cr%5CnX-Injected:%201%22&token={token}",
	table => { %paged, pagination => 'token', page_param => 'token', 'header.X-A' => '{token}' });
is(scalar(grep { grep { /^X-Injected/i } @{ $_->{lines} } } @requests, requests()), 0, 'D14: nothing was injected');

# ---- I07: the environment

events();
works('I07: a plain request', $plain, '/rows');
works('I07: one by TLS', $tls, '/rows', server => { ssl_ca => slurp_file("$dir/ours/ca.pem") });
is(join(' ', map { $_->{on} } my @direct = requests()), 'plain good', 'I07: no proxy is asked');
is_deeply([ grep { defined } map { @{ $_->{headers} }{qw(authorization proxy-authorization)} } @direct ], [], 'I07: nobody logs in');
is(scalar(grep { $_->{headers}{'user-agent'} !~ /^ingest\// } @direct), 0, 'I07: and nobody else is it');

# ---- I10: TLS

my $ca = { ssl_ca => slurp_file("$dir/ours/ca.pem") };
works('I10: a certificate of the authority', $tls, '/rows', server => $ca);
works('I10: by the name it is for', "https://localhost:$port{good}", '/rows', server => $ca);
works('I10: a certificate that is trusted itself', $tls, '/rows', server => { ssl_ca => slurp_file("$dir/good.crt") });
events();
refused('08001', qr/TLS failed\nDETAIL: .*certificate/, 'I10: an authority nobody knows', $tls, '/rows');
refused('08001', qr/TLS failed\nDETAIL: .*certificate/, 'I10: another authority', "https://127.0.0.1:$port{foreign}", '/rows', server => $ca);
refused('08001', qr/TLS failed\nDETAIL: .*(name|match)/, 'I10: another name', "https://127.0.0.1:$port{elsewhere}", '/rows', server => $ca);
refused('08001', qr/TLS failed\nDETAIL: .*expired/, 'I10: too old', "https://127.0.0.1:$port{expired}", '/rows', server => $ca);
refused('08(001|006)', qr/127\.0\.0\.1/, 'I10: no TLS there', "https://127.0.0.1:$port{plain}", '/rows', server => { %$ca, connect_timeout => '500ms' });
refused('0800[16]|HV\w+', qr/./, 'I10: an authority that is none', $tls, '/rows', server => { ssl_ca => 'nothing' });
my %client = (client_cert => slurp_file("$dir/client.crt"), client_key => slurp_file("$dir/client.key"));
is(scalar(requests()), 0, 'I10: nobody was asked for anything');
works('I10: a certificate of ours', "https://127.0.0.1:$port{mutual}", '/rows', server => $ca, user => \%client);
like(refused('08001', qr/server wants a certificate of ours/, 'I10: without one', "https://127.0.0.1:$port{mutual}", '/rows', server => $ca), qr/HINT:  .*client_cert/, 'with a hint');
refused('08001', qr/server has refused our certificate/, 'I10: with a wrong one', "https://127.0.0.1:$port{mutual}", '/rows', server => $ca,
	user => { client_cert => slurp_file("$dir/foreign.crt"), client_key => slurp_file("$dir/foreign.key") });
unlike(refused('08001', qr/client certificate cannot be used/, 'I10: a key of another', "https://127.0.0.1:$port{mutual}", '/rows', server => $ca,
	user => { %client, client_key => slurp_file("$dir/foreign.key") }), qr/BEGIN/, 'is not shown');
refused('08001', qr/client certificate cannot be used/, 'I10: a certificate that is none', "https://127.0.0.1:$port{mutual}", '/rows', server => $ca,
	user => { %client, client_cert => 'nothing' });
refused('08001', qr/client certificate cannot be used/, 'I10: a key that wants a passphrase', "https://127.0.0.1:$port{mutual}", '/rows', server => $ca,
	user => { %client, client_key => slurp_file("$dir/locked.key") });
refused('08001', qr/server wants a certificate of ours/, 'I10: a redirect does not take it elsewhere', $tls, "/to?l=https://127.0.0.1:$port{mutual}/rows", server => $ca, user => \%client);
is(value($node, "SELECT string_agg(name, ' ') FROM ingest.option_help WHERE component ~ 'http' AND name ~* 'ssl|tls|verif|insecure|check|trust'"), 'ssl_ca', 'I10: verification cannot be turned off');
refused('HV00D', qr/ssl_verify/, 'I10: not even by asking for it', $tls, '/rows', server => { ssl_verify => 'off' });

# ---- D09 to D12: slow, and too much

my %slow = (timeout => '600ms', idle_timeout => '10 s');
my %idle = (timeout => '10 s', idle_timeout => '400ms');
my %stream = (format => 'ndjson', rows => undef);
refused('08006', qr/no answer in time\nDETAIL: .*timeout.* 600 ms/, "D09: $_, a byte at a time", $plain, "/$_", server => \%slow) foreach qw(slow_body slow_error redirect_slow);
refused('08006', qr/no answer in time/, 'D09: headers, a byte at a time', $plain, '/slow_headers', server => \%slow);
refused('08006', qr/no answer in time\nDETAIL:  Nothing came for 400 ms/, "D09: $_", $plain, "/$_", server => \%idle) foreach qw(wait stall);
refused('08006', qr/no answer in time/, 'D09: nothing but a connection', "https://127.0.0.1:$port{silent}", '/rows', server => { connect_timeout => '1 s' });
foreach my $mode (qw(slow_headers slow_body slow_error redirect_slow))
{
	refused('08006', qr/no answer in time/, "D09: $mode, of a stream", $plain, "/$mode", server => \%slow, table => \%stream);
}

# The peer does not have to answer for what we were busy with.
is(look($plain, '/lines_slowly', server => { timeout => '1500ms', idle_timeout => '1500ms' }, table => \%stream,
		select => 'SELECT sum(CASE id WHEN 1 THEN length(pg_sleep(2.5)::text) + 1 ELSE 1 END) FROM t'), '6', 'a reader that takes its time');

# A line may be as long as an answer, which is more than is let in ahead.
works("a line of $_ bytes", $plain, "/line/$_", server => { max_response => '2600kB' }, table => \%stream) foreach 100, 1048575, 2097151, 2400000, 2662400;
refused('54000', qr/./, 'a line that is longer', $plain, '/line/2662401', server => { max_response => '2600kB' }, table => \%stream);

# In one backend: its memory after all of them.
my $limits = options(url => $plain, allow_http => 'on', retries => 0, max_response => '8MB');
my @huge = (
	[ 'endless', 'json', '54000', qr/larger than it may be/, 'D10: an endless body' ],
	[ 'endless_line', 'ndjson', '54000', qr/./, 'D10: an endless line' ],
	[ 'endless_error/404', 'json', 'HV00M', qr/status 404/, 'D10: an error without an end' ],
	[ 'endless_error/404', 'ndjson', 'HV00M', qr/status 404/, 'D10: an error without an end, of a stream' ],
	[ 'redirect_endless', 'ndjson', 'HV00M|22...|rows', qr/./, 'D10: a redirect without an end, of a stream' ],
	[ 'bomb/1', 'json', '54000', qr/larger than it may be/, 'D11: 10 MB that become 10 GB' ],
	[ 'bomb/2', 'json', '54000', qr/larger than it may be/, 'D11: 20 kB that become 10 GB' ],
	[ 'bomb/2', 'ndjson', '54000', qr/./, 'D11: the same, as a stream' ],
	[ 'codings', 'json', '08006', qr/./, 'D11: twenty codings' ],
	[ 'coding/zstd', 'json', '08006', qr/./, 'D11: what is no zstd' ],
	[ 'coding/br', 'json', '08006', qr/./, 'D11: what is no brotli' ],
	[ 'coding/nothing', 'json', '08006', qr/./, 'D11: a coding that nobody knows' ],
	[ 'header_line', 'json', '54000', qr/more headers than it may have/, 'D12: an endless header' ],
	[ 'header_lines', 'json', '54000', qr/more headers than it may have/, 'D12: endless headers' ],
	[ 'header_many/6000', 'json', '54000', qr/more headers than it may have/, 'D12: 6000 headers' ],
	[ 'continue', 'json', '54000', qr/more headers than it may have/, 'D12: answers before the answer, without an end' ]);
my $script = "\\set VERBOSITY verbose\nCREATE SERVER s FOREIGN DATA WRAPPER ingest_http $limits;\n"
  . "SELECT 'memory ' || substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\\s*(\\d+)');\n";
foreach my $i (0 .. $#huge)
{
	my ($path, $format) = @{ $huge[$i] };
	$script .= "CREATE FOREIGN TABLE t$i (id text) SERVER s " . options(path => "/$path", format => $format, $format eq 'json' ? (rows => '$[*]') : ()) . ";\n"
	  . "\\warn case $i\nSELECT 'rows ' || count(*) FROM t$i;\n\\warn\n";
}
$script .= "SELECT 'memory ' || substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\\s*(\\d+)');\nDROP SERVER s CASCADE";
my $begin = time;
my ($rc, $answer, $errors) = $node->psql('postgres', $script, on_error_stop => 0, timeout => 120);
cmp_ok(time - $begin, '<', 60, 'D10 to D12: all of that in time');
my %case = $errors =~ /^case (\d+)\n(.*?)^$/msg;
foreach my $i (0 .. $#huge)
{
	my (undef, undef, $sqlstate, $like, $name) = @{ $huge[$i] };
	next if $sqlstate =~ /rows/;
	like($case{$i} // '', qr/ERROR:  (?:$sqlstate): .*?$like/s, $name);
}
my @memory = $answer =~ /^memory (\d+)/mg;
SKIP:
{
	skip 'a sanitizer keeps what was freed', 1 if $ENV{ASAN_OPTIONS};
	# The library holds up to 64 MB of what was compressed.
	cmp_ok($memory[1] - $memory[0], '<', 160_000, "D10 to D12: memory is bounded (kB: @memory)") or diag $errors;
}
works('D12: many headers', $plain, '/header_many/4000');

# ---- D06: broken answers

my @broken = qw(cut cut_at_row two_lengths negative_length cut_chunk bad_chunk reset empty banner short_length html);
foreach my $mode (@broken)
{
	# A server for each: one that fails too often is left alone for a while.
	my %retries = (server => { retries => 3, retry_max => '200ms' });
	$node->safe_psql('postgres', definition($plain, "/once/$mode", name => "once_$mode", table_name => "f_$mode", %retries)
		  . definition($plain, "/$mode", name => "always_$mode", table_name => "fa_$mode", %retries) . "
		CREATE TABLE r_$mode (id bigint, name text);
		CREATE TABLE ra_$mode (id bigint, name text);
		SELECT ingest.create_pipeline('once_$mode', 'f_$mode', 'r_$mode'), ingest.create_pipeline('always_$mode', 'fa_$mode', 'ra_$mode')");
	drain($node, "once_$mode");
	is(value($node, "SELECT string_agg(id || name, ' ' ORDER BY id) FROM r_$mode"), '1one 2two', "D06: $mode, once");
	fails_with($node, "CALL ingest.run('always_$mode')", '(08006|HV00M)', qr/./, "D06: $mode, always");
	is(value($node, "SELECT count(*) FROM ra_$mode"), '0', "D06: $mode: nothing is written");
}

# ---- I17: hostile text

foreach my $path ('/text/200', '/text/200?nul', '/text/403', '/text/500', '/text/404?nul', '/charset/%1b', '/charset/utf-7', '/charset/ISO-2022-KR', '/charset/UTF-8//IGNORE', '/charset/..')
{
	my $text = look($plain, $path);
	unlike($text, qr/[\x00-\x08\x0b-\x1f\x7f]|^LOG:|^\s*ERROR:  forged/m, "I17: $path: clean text");
	ok(utf8::decode(my $copy = $text), "I17: $path: in UTF-8");
}

# ---- cancelling

sub cancels
{
	my ($name, $ready, @definition) = @_;
	my ($answer, $errors) = ('', '');
	my $sql = "SET application_name = 'cancelled';\nBEGIN;\n" . definition(@definition) . "\\warn ready\nSELECT count(*) FROM t;\nROLLBACK;\n";
	my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$sql, '>', \$answer, '2>', \$errors, IPC::Run::timeout(60));
	$psql->pump until $errors =~ /ready/;
	my $deadline = time + 20;
	sleep 0.05 until $ready->() || time > $deadline;
	sleep 0.2;
	is(value($node, "SELECT string_agg(state, ' ') FROM pg_stat_activity WHERE application_name = 'cancelled'"), 'active', "cancel, $name: waits") or diag $errors;
	my $begin = time;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'cancelled'");
	$psql->finish;
	cmp_ok(time - $begin, '<', 2, "cancel, $name: at once");
	like($errors, qr/canceling statement due to user request/, "cancel, $name: cancelled");
	return;
}
my $arrived = sub { my ($on, $event) = @_; events(); return sub { return scalar grep { $_->{on} eq $on && $_->{event} eq $event } events() } };
my $selects = sub { return value($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cancelled' AND query ~ '^SELECT' AND state = 'active'") };
my @cases = (
	[ 'while connecting', $selects, 'http://192.0.2.1', '/rows', server => { retries => 50 } ],
	[ 'in the handshake', $arrived->('silent', 'connect'), "https://127.0.0.1:$port{silent}", '/rows' ],
	[ 'while it is slow', $arrived->('plain', 'request'), $plain, '/wait' ],
	[ 'before another try', $arrived->('plain', 'request'), $plain, '/status/503', server => { retries => 50, retry_max => '1 h' } ],
	[ 'within the rate', $arrived->('plain', 'request'), $plain, '/next?l=%22/rows%22', server => { rate_limit => '1/h' }, table => \%paged ]);
cancels(@$_) foreach @cases;

# ---- I11: no secret gets out

sub nested { my ($first, $second) = @_; return { %$first, %$second } }
my %secrets = (
	basic => { username => 'me', password => 'canary-basic-0123' },
	bearer => { auth => 'bearer', token => 'canary-bearer-0123' },
	header => { auth => 'api_key', token => 'canary-header-0123' },
	query => { auth => 'api_key', token => 'canary-query-0123', key_in => 'query', key_name => 'key' },
	cert => \%client,
	oauth => { auth => 'oauth2', token_url => "$plain/token/good", client_id => 'id', client_secret => 'canary-oauth-0123' },
	oauth400 => { auth => 'oauth2', token_url => "$plain/token/400", client_id => 'id', client_secret => 'canary-oauth-0123', client_auth => 'body' },
	oauth500 => { auth => 'oauth2', token_url => "$plain/token/500", client_id => 'id', client_secret => 'canary-oauth-0123' },
	refresh => { auth => 'oauth2', token_url => "$plain/token/400", refresh_token => 'canary-refresh-0123' },
	jwt => { auth => 'jwt', jwt_algorithm => 'HS256', jwt_key => 'canary-jwt-0123' },
	sigv4 => { auth => 'sigv4', aws_access_key => 'AK', aws_secret_key => 'canary-sigv4-0123', aws_region => 'eu', aws_service => 's3', aws_session_token => 'canary-session-0123' });
my @paths = ('/echo/400', '/echo/401', '/echo/500', '/echo_far/404', '/echo_redirect', '/echo/200', '/cut', '/echo_rows', '/echo_chain', '/loop',
	"/to?l=http://127.0.0.1:$port{other}/echo/400", '/status/503', '/html', '/text/500', '/header_lines');
my $shown = '';
my $sampler = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', q(DO $$ BEGIN
	CREATE TABLE sampled AS SELECT query, application_name FROM pg_stat_activity WHERE false;
	FOR i IN 1 .. 100000 LOOP
		INSERT INTO sampled SELECT query, application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query !~ '^CREATE USER MAPPING' EXCEPT SELECT * FROM sampled;
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'enough');
		PERFORM pg_stat_clear_snapshot(), pg_sleep(0.03);
	END LOOP; END $$) ], \$in, \my $sample_out, \my $sample_err);
foreach my $kind (sort keys %secrets)
{
	$node->safe_psql('postgres', "CREATE SERVER secret_$kind FOREIGN DATA WRAPPER ingest_http " . options(url => $kind eq 'cert' ? "https://127.0.0.1:$port{mutual}" : $plain,
		allow_http => 'on', retries => 0, $kind eq 'cert' ? %$ca : ()));
	$node->safe_psql('postgres', "CREATE USER MAPPING FOR CURRENT_USER SERVER secret_$kind " . options(%{ $secrets{$kind} }));
	my $looks = "\\set VERBOSITY verbose\n";
	foreach my $i (0 .. $#paths)
	{
		$looks .= "CREATE FOREIGN TABLE secret_${kind}_$i (id bigint, name text, url text OPTIONS (metadata 'url')) SERVER secret_$kind "
		  . options(path => $paths[$i], format => 'json', rows => '$[*]') . ";\nSELECT * FROM secret_${kind}_$i;\n";
	}
	my ($rc, $answer, $errors) = $node->psql('postgres', $looks, on_error_stop => 0, timeout => 60);
	$shown .= "$answer\n$errors\n";
	# All that ends without an error has a dead letter, and the others what they ended with.
	foreach my $i (1, 3, 4, 7, 8)
	{
		$node->safe_psql('postgres', "CREATE TABLE r_${kind}_$i (id bigint, name text, url text); SELECT ingest.create_pipeline('secret_${kind}_$i', 'secret_${kind}_$i', 'r_${kind}_$i')");
		($rc, $answer, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\nCALL ingest.run('secret_${kind}_$i');\nSELECT * FROM ingest.preview('secret_${kind}_$i')", on_error_stop => 0, timeout => 60);
		$shown .= "$answer\n$errors\n";
	}
}
$node->safe_psql('postgres', "SET application_name = 'enough'; SELECT pg_sleep(0.3)");
$sampler->finish;
cmp_ok(scalar(() = $shown =~ /ERROR:/g), '>', 100, 'I11: many errors were seen');
cmp_ok(value($node, 'SELECT count(*) FROM ingest.dead_letter'), '>', 8, 'I11: and dead letters');
sub leaks { my ($text, $name) = @_; my @leaks = grep { /canary|PRIVATE KEY/ } split /\n/, $text; is(scalar @leaks, 0, $name) or diag join "\n", @leaks[ 0 .. ($#leaks > 9 ? 9 : $#leaks) ]; return }
leaks($shown, 'I11: nothing in answers and errors');
my @lines = split /\n/, slurp_file("$dir/client.key");
is(scalar(grep { index($shown, $_) >= 0 } grep { length > 40 } @lines), 0, 'I11: nor a line of the key');
cmp_ok(value($node, 'SELECT count(*) FROM sampled'), '>', 5, 'I11: activity was watched');
leaks(value($node, q(SELECT string_agg(s::text, E'\n') FROM sampled s)) // '', 'I11: nothing in pg_stat_activity');
my @relations = split /\n/, value($node, q(SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'ingest'::regnamespace AND relkind IN ('r', 'v', 'p')));
cmp_ok(scalar @relations, '>', 15, 'I11: all of the relations of the extension');
leaks(value($node, join ' UNION ALL ', map { "SELECT string_agg(to_jsonb(r)::text, E'\\n') FROM $_ r" } @relations), 'I11: nothing in them');
my ($dump, $dump_errors) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
like($dump, qr/CREATE USER MAPPING .*canary/s, 'I11: a dump has the mappings');
$dump =~ s/^CREATE USER MAPPING .*?^\);//msg;
leaks($dump, 'I11: and nothing besides');
like(slurp_file($log), qr/canary-basic|Y2FuYXJ5|$_/, "I11: $_ was sent") foreach qw(canary-bearer canary-header canary-query canary-refresh canary-session);

# ---- nothing is left behind: 2000 looks of one backend, some of which fail

$node->safe_psql('postgres', definition($plain, '/rows', name => 'often', table_name => 'often', columns => 'id bigint', server => { max_redirects => 1 })
  . 'CREATE FOREIGN TABLE often_lines (id bigint) SERVER often ' . options(path => '/lines', format => 'ndjson') . ';'
  . 'CREATE FOREIGN TABLE often_loop (id bigint) SERVER often ' . options(path => '/loop', format => 'json', rows => '$[*]') . ';'
  . 'CREATE FOREIGN TABLE often_404 (id bigint) SERVER often ' . options(path => '/status/404', format => 'json', rows => '$[*]') . ';' . q(
	CREATE PROCEDURE look_often(n integer) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			BEGIN
				CASE i % 10 WHEN 1 THEN PERFORM count(*) FROM often_lines; WHEN 2 THEN PERFORM FROM often LIMIT 1; WHEN 3 THEN PERFORM count(*) FROM often_loop;
					WHEN 4 THEN PERFORM count(*) FROM often_404; ELSE PERFORM count(*) FROM often; END CASE;
			EXCEPTION WHEN OTHERS THEN
				IF i % 10 NOT IN (3, 4) THEN RAISE; END IF;
			END;
			COMMIT;
		END LOOP;
	END $$;
	CREATE VIEW left_behind AS SELECT (SELECT count(*) FROM pg_ls_dir('/proc/self/fd')) AS files,
		substring(pg_read_file('/proc/self/status') FROM 'Threads:\s*(\d+)') AS threads,
		(SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'ingest%') AS contexts,
		(SELECT sum(total_bytes) FROM pg_backend_memory_contexts) AS bytes,
		substring(pg_read_file('/proc/self/status') FROM 'VmRSS:\s*(\d+)') AS rss));
events();
my @left = split /\n/, value($node, 'CALL look_often(200); SELECT * FROM left_behind; CALL look_often(1800); SELECT * FROM left_behind');
my ($before, $after) = map { [ split /\|/ ] } @left;
is(scalar(requests()), 2200, '2000 looks: all were asked for');
is($after->[0], $before->[0], '2000 looks: files');
is($after->[1], 1, '2000 looks: threads');
is($after->[2], 0, '2000 looks: contexts');
cmp_ok($after->[3] - $before->[3], '<', 100_000, '2000 looks: memory of contexts');
SKIP:
{
	skip 'a sanitizer keeps what was freed', 1 if $ENV{ASAN_OPTIONS};
	cmp_ok($after->[4] - $before->[4], '<', 8_000, '2000 looks: memory (kB)');
}

$node->stop('fast');
my $server_log = slurp_file($node->logfile);
cmp_ok(length $server_log, '>', 10000, 'the log was looked at');
leaks($server_log, 'I11: nothing in the log');
unlike($server_log, qr/[\x00-\x08\x0b-\x1f\x7f]/, 'I17: the log is clean');
$server->kill_kill;
done_testing();
