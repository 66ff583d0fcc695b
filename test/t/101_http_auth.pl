# Who we are to HTTP servers: JWTs as others read them, tokens from a scripted
# token endpoint, and secrets that are in no message.
use strict;
use warnings;
use utf8;

use Cwd qw(abs_path);
use Digest::SHA qw(hmac_sha256);
use IPC::Run;
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64 encode_base64url decode_base64url);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use IngestTest;

my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $log = "$dir/requests";
my ($in, $out, $err) = ('', '', '');
append_to_file($log, '');
my $server = IPC::Run::start([ 'python3', 'test/lib/oauthserver.py', $log ], \$in, \$out, \$err);
$server->pump until $out =~ /\n/;
my $base = 'http://127.0.0.1:' . ($out =~ s/\s+//r);

my $node = start_node('auth', preload => 0,
	conf => "log_min_messages = debug1\nlog_statement = none\nlog_min_error_statement = panic");
my $library = abs_path("$ENV{INGEST_TEST_BIN}/httpauth.so");
$node->safe_psql('postgres', join '', map { "CREATE FUNCTION $_->[0]($_->[1]) RETURNS $_->[2] LANGUAGE c AS '$library';\n" } (
	[ 'test_jwt', 'text, text, text, text, text, text, text, integer', 'text' ],
	[ 'test_open', 'text[], text, integer', 'void' ],
	[ 'test_ready', '', 'text' ],
	[ 'test_get', 'text', 'text' ],
	[ 'test_burst', 'text, integer', 'text' ],
	[ 'test_rotated', '', 'text' ],
	[ 'test_reload', 'text', 'boolean' ],
	[ 'test_redact', 'text', 'text' ],
	[ 'test_wiped', 'text', 'integer' ],
	[ 'test_store', 'text, text', 'boolean' ],
	[ 'test_stored', 'text, text, text[]', 'text' ]));

sub quote { return '$q$' . $_[0] . '$q$' }

sub options
{
	my (%options) = @_;
	return 'ARRAY[' . join(', ', map { quote("$_=$options{$_}") } sort keys %options) . ']::text[]';
}

my @shown;    # all that any client ever saw

# In one session: open with these options, then the statements; what they say.
sub session
{
	my ($options, @statements) = @_;
	my $stored = delete $options->{stored};
	my $timeout = delete $options->{timeout} // 5000;
	my ($rc, $answer, $errors) = $node->psql('postgres', 'SELECT test_open(' . options(%$options) . ', '
		  . (defined $stored ? quote($stored) : 'NULL') . ", $timeout);\n" . join('', map { "SELECT $_;\n" } @statements),
		extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_stop => 1, timeout => 60);
	push @shown, $answer, $errors;
	my @lines = split /\n/, $answer, -1;
	shift @lines;    # of test_open
	return $rc == 0 ? @lines : $errors;
}

# What the server was asked since the last call, from paths like that.
my $seen = 0;
sub requests
{
	my ($like) = @_;
	my @lines = split /\n/, slurp_file($log);
	my @new = map { decode_json($_) } @lines[ $seen .. $#lines ];
	$seen = @lines;
	return grep { $_->{path} =~ $like } @new;
}

sub form { return { map { my ($k, $v) = split /=/, $_, 2; $v =~ tr/+/ /; $v =~ s/%(..)/chr hex $1/ge; ($k => $v) } split /&/, $_[0] } }

# ---- JWTs, verified with what is not ours

sub openssl { system_or_bail('openssl', @_); return }

my $key = "$dir/key";
openssl('genpkey', '-quiet', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', "$key.rsa");
openssl('genpkey', '-quiet', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', "$key.ec");
openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', "$key.sec1");
openssl('genpkey', '-quiet', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384', '-out', "$key.p384");
openssl('genpkey', '-quiet', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024', '-out', "$key.short");
openssl('pkcs8', '-topk8', '-in', "$key.rsa", '-passout', 'pass:x', '-out', "$key.locked");
openssl('pkey', '-in', "$key.$_", '-pubout', '-out', "$key.$_.pub") foreach qw(rsa ec sec1);

# Both numbers of a signature as the sequence that openssl wants.
sub der_signature
{
	my ($raw) = @_;
	my $integers = join '', map {
		my $n = $_ =~ s/^\0+//r;
		$n = "\0$n" if $n eq '' || ord($n) >= 0x80;
		"\x02" . chr(length $n) . $n
	} substr($raw, 0, 32), substr($raw, 32);
	return "\x30" . chr(length $integers) . $integers;
}

sub make_jwt
{
	my ($algorithm, $secret, @claims) = @_;
	my $arguments = join ', ', map { defined $_ ? quote($_) : 'NULL' } $algorithm, $secret, @claims;
	return value($node, "SELECT test_jwt($arguments, 600)");
}

sub check_signature
{
	my ($jwt, $algorithm, $public, $name) = @_;
	my ($text, $signature) = $jwt =~ /^(.*)\.(.*)$/;
	unlike($jwt, qr/[^A-Za-z0-9._-]/, "$name: compact, of URLs' Base64 without padding");
	$signature = decode_base64url($signature);
	if ($algorithm eq 'HS256')
	{
		is($signature, hmac_sha256($text, $public), "$name: signature");
		return;
	}
	is(length $signature, $algorithm eq 'ES256' ? 64 : 256, "$name: signature of fixed length");
	unlink "$dir/text", "$dir/signature";
	append_to_file("$dir/text", $text);
	append_to_file("$dir/signature", $algorithm eq 'ES256' ? der_signature($signature) : $signature);
	my ($stdout, $stderr) = run_command([ 'openssl', 'dgst', '-sha256', '-verify', $public, '-signature', "$dir/signature", "$dir/text" ]);
	like($stdout, qr/^Verified OK/, "$name: openssl says the signature is right") or diag $stderr;
	return;
}

my $shared = 'shared-canary with "quotes" and ä';
foreach my $case ([ 'RS256', slurp_file("$key.rsa"), "$key.rsa.pub", 'RS256' ], [ 'ES256', slurp_file("$key.ec"), "$key.ec.pub", 'ES256' ],
	[ 'ES256', slurp_file("$key.sec1"), "$key.sec1.pub", 'ES256, key in the older form' ],
	[ 'HS256', 'shared-canary-0123456789abcdef01234567', 'shared-canary-0123456789abcdef01234567', 'HS256' ])
{
	my ($algorithm, $private, $public, $name) = @$case;
	my $jwt = make_jwt($algorithm, $private, 'key 1', 'me "quoted"', 'you', 'https://example.com/token', 'a b');
	check_signature($jwt, $algorithm, $public, $name);
	my ($header, $claims) = map { decode_json(decode_base64url($_)) } (split /\./, $jwt)[ 0, 1 ];
	is_deeply($header, { alg => $algorithm, typ => 'JWT', kid => 'key 1' }, "$name: header");
	cmp_ok(abs($claims->{iat} - time), '<', 60, "$name: iat");
	is($claims->{exp} - $claims->{iat}, 600, "$name: exp");
	like(delete $claims->{jti}, qr/^.{20,}$/, "$name: jti");
	delete @$claims{qw(iat exp)};
	is_deeply($claims, { iss => 'me "quoted"', sub => 'you', aud => 'https://example.com/token', scope => 'a b' }, "$name: claims");
}

# A number that begins with zeros, in one of 256 signatures, keeps its length.
my @many = split /\n/, value($node, 'SELECT test_jwt(\'ES256\', ' . quote(slurp_file("$key.ec")) . ', NULL, i::text, NULL, NULL, NULL, 60) FROM generate_series(1, 1500) i');
is(scalar(grep { length(decode_base64url((split /\./)[2])) != 64 } @many), 0, '1500 signatures of ES256 have their length');
my ($short) = grep { decode_base64url((split /\./)[2]) =~ /^\0|^.{32}\0/s } @many;
ok($short, 'one of them has a short number') and check_signature($short, 'ES256', "$key.ec.pub", 'a short number');
is(scalar(keys %{ { map { decode_json(decode_base64url((split /\./)[1]))->{jti} => 1 } @many } }), 1500, 'each JWT has its own jti');
my $bare = decode_json(decode_base64url((split /\./, make_jwt('HS256', 'x', undef, undef, undef, undef, undef))[1]));
is_deeply([ sort keys %$bare ], [ 'exp', 'iat', 'jti' ], 'claims that are not set are not there');

foreach my $case ([ 'RS256', "$key.ec", qr/not an RSA key/ ], [ 'ES256', "$key.rsa", qr/not an elliptic-curve key/ ], [ 'ES256', "$key.p384", qr/P-256/ ],
	[ 'RS256', "$key.short", qr/shorter than 2048/ ], [ 'RS256', "$key.locked", qr/passphrase/ ], [ 'RS256', "$key.rsa.pub", qr/not a private key/ ])
{
	my ($algorithm, $file, $like) = @$case;
	my ($errors) = session({ auth => 'jwt', jwt_algorithm => $algorithm, jwt_key => slurp_file($file) });
	like($errors, qr/ERROR:  HV024: invalid value for option "jwt_key"\nDETAIL:  [^\n]*$like/, "$algorithm with $file");
	unlike($errors, qr/BEGIN/, 'and the key is not shown');
}

# ---- what fits together

my %jwt = (auth => 'jwt', jwt_algorithm => 'HS256', jwt_key => 'shared-canary');
my %oauth = (auth => 'oauth2', client_id => 'id', client_secret => 'client-canary');
foreach my $case (
	[ { token => 'token-canary' }, 'HV00D', 'option "token" cannot be used with auth "none"' ],
	[ { auth => 'bearer' }, 'HV00J', 'auth "bearer" needs the option "token"' ],
	[ { auth => 'bearer', token => '' }, 'HV00J', 'auth "bearer" needs the option "token"' ],
	[ { auth => 'bearer', token => "token-canary\r\nX: y" }, 'HV024', 'invalid value for option "token"' ],
	[ { auth => 'bearer', token => 'token canary' }, 'HV024', 'invalid value for option "token"' ],
	[ { username => 'a:b' }, 'HV024', 'invalid value for option "username"' ],
	[ { username => 'a', password => "password-canary\n" }, 'HV024', 'invalid value for option "password"' ],
	[ { password => 'password-canary' }, 'HV00D', 'option "password" cannot be used with auth "none"' ],
	[ { auth => 'basic', password => 'password-canary' }, 'HV00J', 'auth "basic" needs the option "username"' ],
	[ { auth => 'basic', username => 'a', token => 'token-canary' }, 'HV00D', 'option "token" cannot be used with auth "basic"' ],
	[ { auth => 'api_key', token => 'token-canary', key_name => 'a b' }, 'HV024', 'invalid value for option "key_name"' ],
	[ { auth => 'api_key', token => 'token-canary', key_name => 'host' }, 'HV024', 'invalid value for option "key_name"' ],
	[ { auth => 'api_key', token => 'token-canary', key_name => "a\nb", key_in => 'query' }, 'HV024', 'invalid value for option "key_name"' ],
	[ { %oauth }, 'HV00J', 'auth "oauth2" needs the option "token_url"' ],
	[ { %oauth, token_url => 'ftp://x/' }, 'HV024', 'invalid value for option "token_url"' ],
	[ { auth => 'oauth2', token_url => $base }, 'HV00J', 'auth "oauth2" needs the option "client_id"' ],
	[ { auth => 'oauth2', token_url => $base, client_id => 'id' }, 'HV00J', 'auth "oauth2" needs the option "client_secret"' ],
	[ { auth => 'oauth2', token_url => $base, client_secret => 'client-canary' }, 'HV00J', 'auth "oauth2" needs the option "client_id"' ],
	[ { %oauth, token_url => $base, refresh_token => 'r', jwt_key => 'k' }, 'HV00D', 'options "jwt_key" and "refresh_token" exclude each other' ],
	[ { auth => 'oauth2', token_url => $base, jwt_key => 'shared-canary', jwt_algorithm => 'HS256' }, 'HV00J', 'auth "oauth2" needs the option "jwt_issuer"' ],
	[ { %jwt, jwt_issuer => "a\nb" }, 'HV024', 'invalid value for option "jwt_issuer"' ],
	[ { %jwt, jwt_lifetime => '1 s' }, 'HV024', 'invalid value for option "jwt_lifetime"' ],
	[ { %jwt, jwt_key => '' }, 'HV00J', 'auth "jwt" needs the option "jwt_key"' ],
	[ { auth => 'jwt' }, 'HV00J', 'auth "jwt" needs the option "jwt_key"' ],
	[ { auth => 'sigv4', aws_access_key => 'AK' }, 'HV00J', 'auth "sigv4" needs the option "aws_secret_key"' ],
	[ { auth => 'sigv4', aws_access_key => 'AK', aws_secret_key => 'sigv4-canary', aws_service => 's3' }, 'HV00J', 'auth "sigv4" needs the option "aws_region"' ],
	[ { auth => 'sigv4', aws_access_key => 'AK', aws_secret_key => 'sigv4-canary', aws_region => 'a:b' }, 'HV024', 'invalid value for option "aws_region"' ],
	[ { auth => 'sigv4', aws_access_key => 'AK', aws_secret_key => 'sigv4-canary', aws_session_token => "session-canary\n" }, 'HV024', 'invalid value for option "aws_session_token"' ],
	[ { client_cert => 'x' }, 'HV00J', 'auth "none" needs the option "client_key"' ],
	[ { auth => 'digest' }, 'HV024', 'invalid value for option "auth": "digest"' ],
	[ { client_auth => 'cookie' }, 'HV024', 'invalid value for option "client_auth": "cookie"' ])
{
	my ($options, $sqlstate, $message) = @$case;
	my ($errors) = session($options);
	like($errors, qr/ERROR:  $sqlstate: \Q$message\E/, "$sqlstate: $message");
}
is((session({ %oauth, token_url => $base, client_secret => 'x' }, "'fine'"))[0], 'fine', 'what fits is taken');

# ---- what requests carry

sub sent
{
	my ($options, $path) = @_;
	requests(qr/./);
	my @answer = session($options, 'test_get(' . quote($base . $path) . ')');
	my ($request) = requests(qr/./);
	$request->{answer} = $answer[-1];
	return $request;
}

my $request = sent({}, '/api/open');
is_deeply([ grep { /auth|key|amz/i } keys %{ $request->{headers} } ], [], 'none: nothing');
$request = sent({ username => 'me', password => 'password-canary:ä' }, '/api/open');
is($request->{headers}{authorization}, 'Basic ' . encode_base64("me:password-canary:\xc3\xa4", ''), 'basic, by a username');
$request = sent({ username => 'me' }, '/api/open');
is($request->{headers}{authorization}, 'Basic ' . encode_base64('me:', ''), 'basic without a password');
$request = sent({ auth => 'bearer', token => 'token-canary' }, '/api/open');
is($request->{headers}{authorization}, 'Bearer token-canary', 'bearer');
$request = sent({ auth => 'api_key', token => 'token-canary' }, '/api/open');
is($request->{headers}{'x-api-key'}, 'token-canary', 'a key in a header');
$request = sent({ auth => 'api_key', token => 'Token token-canary', key_name => 'Authorization' }, '/api/open');
is($request->{headers}{authorization}, 'Token token-canary', 'a key in a header of another name');
$request = sent({ auth => 'api_key', token => 'token-canary&a=b', key_in => 'query', key_name => 'my key' }, '/api/open?x=1');
like($request->{path}, qr/^\/api\/open\?x=1&my(%20|\+)key=token-canary%26a%3Db$/, 'a key in the query');
$request = sent({ auth => 'api_key', token => 'token-canary', key_in => 'query', key_name => 'k' }, '/api/open?k=old&x=1');
is(() = $request->{path} =~ /\bk=/g, 1, 'a key in the query, once');

$request = sent({ %jwt, jwt_issuer => 'app', jwt_lifetime => '5 min', jwt_key_id => 'kid' }, '/api/open');
my ($jwt) = $request->{headers}{authorization} =~ /^Bearer (.*)$/;
check_signature($jwt, 'HS256', 'shared-canary', 'jwt as bearer');
my $claims = decode_json(decode_base64url((split /\./, $jwt)[1]));
is($claims->{exp} - $claims->{iat}, 300, 'jwt as bearer: its life');
cmp_ok($claims->{iat}, '<', time, 'jwt as bearer: made in the past');
is($claims->{iss}, 'app', 'jwt as bearer: issuer');
is($claims->{sub}, undef, 'jwt as bearer: no subject unless said');
requests(qr/./);
session({ %jwt }, map { 'test_get(' . quote("$base/api/open") . ')' } 1, 2);
is(scalar(keys %{ { map { $_->{headers}{authorization} => 1 } requests(qr/open/) } }), 1, 'a jwt is used again');
my @answers = session({ %jwt }, 'test_get(' . quote("$base/api/never") . ')');
my @tried = requests(qr/never/);
is(scalar(keys %{ { map { $_->{headers}{authorization} => 1 } @tried } }), 2, 'a jwt that is refused is made anew, once');
is(scalar @tried, 2, 'and not more often');

my %aws = (auth => 'sigv4', aws_access_key => 'AK', aws_secret_key => 'sigv4-canary');
foreach my $case ([ 's3', '/sigv4/bucket/key' ], [ 's3', '/sigv4/b/a%20key/with%2Fslash(1)' ], [ 's3', '/sigv4/b?prefix=a/b&list-type=2&acl' ],
	[ 's3', '/sigv4/b?z=%7e&a=%c3%a4&a-b=1&a=0' ], [ 's3', '/sigv4/b?x=a+b&=&&y' ], [ 'execute-api', '/sigv4/stage/path?b=2&a=1' ])
{
	my ($service, $path) = @$case;
	$request = sent({ %aws, aws_region => 'eu-central-1', aws_service => $service, aws_session_token => 'session-canary' }, $path);
	is($request->{answer}, '200: signed', "sigv4 $service $path") or diag explain $request;
	like($request->{headers}{authorization}, qr/SignedHeaders=[^,]*x-amz-security-token/, "sigv4 $service $path: the session token is signed");
	is($request->{headers}{'x-amz-security-token'}, 'session-canary', "sigv4 $service $path: the session token is sent");
}

# ---- OAuth 2: client credentials

my $get = 'test_get(' . quote("$base/api/x") . ')';
sub endpoint { my ($mode, %more) = @_; return { %oauth, token_url => "$base/token/$mode", %more } }

my %odd = (client_id => 'client:id', client_secret => 'client-canary ä&+');
like((session(endpoint('header', %odd), $get))[0], qr/^200: hello/, 'client id and secret in the header');
my ($ask) = requests(qr/token/);
is_deeply(form($ask->{body}), { grant_type => 'client_credentials' }, 'the form');
is($ask->{headers}{'content-type'}, 'application/x-www-form-urlencoded', 'its type');
is($ask->{headers}{accept}, 'application/json', 'the type of the answer');
like((session(endpoint('body', %odd, client_auth => 'body'), $get))[0], qr/^200: hello/, 'client id and secret in the body');
session(endpoint('ok', scope => 'read write', audience => 'https://api/?a=b'), $get);
($ask) = requests(qr/token.ok/);
is_deeply(form($ask->{body}), { grant_type => 'client_credentials', scope => 'read write', audience => 'https://api/?a=b' }, 'scope and audience');

foreach my $case ([ 'ok', 1 ], [ 'string', 1 ], [ 'none', 1 ], [ 'endless_life', 1 ], [ 'odd', 1 ], [ 'untyped', 1 ], [ 'lower', 1 ], [ 'unasked', 1 ])
{
	my ($mode, $times) = @$case;
	@answers = session(endpoint($mode), ($get) x 3, 'test_rotated()');
	is(scalar(grep { /^200: hello/ } @answers), 3, "$mode: the token is good");
	is(scalar(requests(qr/token/)), $times, "$mode: and asked for once");
	is($answers[-1], '', "$mode: nothing to keep");
}
foreach my $mode (qw(zero negative))
{
	@answers = session(endpoint($mode), $get, 'pg_sleep(1.1)', $get);
	is(scalar(grep { /^200: hello/ } @answers), 2, "$mode: the token is good for once");
	is(scalar(requests(qr/token/)), 2, "$mode: and asked for again");
}
@answers = session(endpoint('short'), $get, $get, 'pg_sleep(1.85)', $get);
is(scalar(grep { /^200: hello/ } @answers), 3, 'a short life: the tokens are good');
is(scalar(requests(qr/token/)), 2, 'a short life: renewed before its end');

# ---- 401

@answers = session(endpoint('ok'), $get, 'test_get(' . quote("$base/api/revoke") . ')', $get, $get);
like($answers[2], qr/^200: hello/, 'a token that was revoked is replaced');
is(scalar(requests(qr/token/)), 2, 'by one');
@answers = session(endpoint('ok'), 'test_get(' . quote("$base/api/never") . ')', 'test_get(' . quote("$base/api/never") . ')', $get, 'test_get(' . quote("$base/api/revoke") . ')', $get);
like($answers[0], qr/^401: never/, 'who is refused anyway');
is(scalar(requests(qr/token/)), 3, 'gets one more token, no more until there is success');
like($answers[4], qr/^200: hello/, 'and then again');
@answers = session(endpoint('ok'), 'test_ready()', 'test_get(' . quote("$base/api/revoke") . ')', 'test_burst(' . quote("$base/api/x") . ', 4)',
	'test_burst(' . quote("$base/api/x") . ', 4)');
is($answers[2], 'again again again again ', 'several requests with the token that was revoked');
is($answers[3], '200 200 200 200 ', 'and with the next');
is(scalar(requests(qr/token/)), 2, 'with one request for it');
is((session({ auth => 'bearer', token => 'token-canary' }, $get))[0], '401: who?', 'a token that was given is not tried twice');
is(scalar(requests(qr/api.x/)), 1, 'indeed');

# A token more or less leaves nothing behind.
my $again = '(SELECT sum(length(test_get(u))) > 0 FROM generate_series(1, %d) i, LATERAL (SELECT i, '
  . quote("$base/api/revoke") . ' AS u UNION ALL SELECT i, ' . quote("$base/api/x") . ') s)';
my $memory = q((SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name ~ '^ingest http (auth|token)'));
@answers = session(endpoint('ok', refresh_token => 'refresh-canary-same', token_url => "$base/token/same"),
	sprintf($again, 5), $memory, sprintf($again, 200), $memory);
cmp_ok($answers[3] - $answers[1], '<', 512, '200 tokens: memory is as before') or diag "@answers";
cmp_ok(scalar(requests(qr/token/)), '>=', 205, 'indeed so many');

# ---- what can go wrong

foreach my $case (
	[ 'mac', qr/^permanent HV00M: .*of type "mac"/ ], [ 'newline', qr/^permanent HV00M: .*cannot stand in a header/ ],
	[ 'space', qr/^permanent HV00M: .*cannot stand in a header/ ], [ 'empty', qr/^permanent HV00M: .*cannot stand in a header/ ],
	[ 'missing', qr/^permanent HV00M: .*has no "access_token"/ ], [ 'object', qr/^permanent HV00M: .*has no "access_token"/ ],
	[ 'nul', qr/^permanent HV00M: / ], [ 'deep', qr/^permanent HV00M: .*not JSON/ ], [ 'utf8', qr/^permanent HV00M: .*not JSON/ ],
	[ 'html', qr/^permanent HV00M: .*not JSON.*answered 200: <html><title>Sign in/ ],
	[ 'html404', qr/^config HV00M: .*is not a token endpoint.*404: <html>Nothing \[31m here/ ],
	[ 'huge', qr/^permanent HV00M: .*larger than 64 kB/ ], [ 'endless', qr/^permanent HV00M: .*larger than 64 kB/ ],
	[ 'object', qr/^permanent HV00M/ ], [ 'refuse200', qr/^config 28000: .*refused.*200: bad_verification_code: it is old/ ],
	[ 'redirect', qr/^(config|permanent) HV00M: .*redirect/ ], [ 'down', qr/^transient 08006: .*503: <html>xxx/ ],
	[ 'later', qr/^transient 08006: .*400: temporarily_unavailable/ ], [ 'cut', qr/^transient 08...: cannot get a token: / ],
	[ 'busy', qr/^transient 08006 \((1\d\d\d|2000) ms\): .*429: slow/ ],
	[ 'busy_date', qr/^transient 08006 \((29|30)\d\d\d ms\): .*429/ ], [ 'busy_absurd', qr/^transient 08006 \((86400000|8639\d{4}) ms\): / ])
{
	my ($mode, $like) = @$case;
	my $begin = time;
	@answers = session(endpoint($mode), 'test_ready()');
	like($answers[0], $like, "$mode: what went wrong");
	like($answers[0], qr/127\.0\.0\.1:\d+\/token\/$mode/, "$mode: and where") unless $mode eq 'cut';
	cmp_ok(time - $begin, '<', 4, "$mode: soon");
}
is(scalar(requests(qr/token.ok/)), 0, 'nobody followed the redirection');
like((session({ %{ endpoint('ok') }, token_url => 'http://127.0.0.1:1/token' }, 'test_ready()'))[0], qr/^transient 08...: cannot get a token/, 'nobody there');

# Busy is left alone for as long as it wants.
requests(qr/./);
@answers = session(endpoint('busy'), ('test_ready()') x 3);
is(scalar(grep { /^transient/ } @answers), 3, 'busy: said three times');
is(scalar(requests(qr/token/)), 1, 'busy: asked once');
@answers = session(endpoint('busy'), 'test_ready()', 'pg_sleep(2.1)', 'test_ready()');
is(scalar(requests(qr/token/)), 2, 'busy: asked again later');
@answers = session(endpoint('down'), 'test_ready()', 'test_ready()', 'pg_sleep(0.6)', 'test_ready()');
is(scalar(requests(qr/token/)), 2, 'down: no flood of requests');
@answers = session(endpoint('first'), $get, 'pg_sleep(2.75)', $get, $get, 'pg_sleep(0.3)', $get);
is(scalar(grep { /^200: hello/ } @answers), 3, 'a token that cannot be renewed is used up');
like($answers[-1], qr/^transient 08006/, 'and then it is missed');
requests(qr/./);

# Slow answers: cancelled at once, and given up.
my $begin = time;
@answers = session(endpoint('slow', timeout => 30000), q(set_config('statement_timeout', '1s', false)), 'test_ready()');
like($answers[0], qr/57014: canceling statement due to statement timeout/, 'slow: cancelled');
cmp_ok(time - $begin, '<', 3, 'slow: within a second');
$begin = time;
@answers = session(endpoint('slow', timeout => 1500), 'test_ready()');
like($answers[0], qr/^transient 08...: cannot get a token: /, 'slow: given up');
cmp_ok(time - $begin, '<', 4, 'slow: after the timeout');

# ---- refresh tokens

my %mapping = (auth => 'oauth2', token_url => "$base/token/rotate", client_id => 'id', refresh_token => 'refresh-canary-0');
requests(qr/./);
@answers = session({ %mapping }, $get, 'test_rotated()', q(test_store('tracker', 'postgres')), 'test_rotated()', $get,
	'pg_sleep(1.9)', $get, 'test_rotated()');
is_deeply([ @answers[ 1 .. 3 ] ], [ 'refresh-canary-1', 't', '' ], 'a rotated refresh token is told, stored, and not told again');
is($answers[-1], 'refresh-canary-2', 'the rotated one is used, and rotated');
my @asked = map { form($_->{body}) } requests(qr/token/);
is_deeply(\@asked, [ map { { grant_type => 'refresh_token', refresh_token => "refresh-canary-$_", client_id => 'id' } } 0, 1 ], 'the forms');
@answers = session({ %mapping }, 'test_ready()');
like($answers[0], qr/^config 28000: .*refused.*invalid_grant.*refresh token is not valid/, 'an old refresh token');
@answers = session({ %mapping, stored => 'refresh-canary-2' }, 'test_ready()', 'test_rotated()', q(test_store('tracker', 'postgres')));
is_deeply(\@answers, [ 'ready', 'refresh-canary-3', 't' ], 'a stored refresh token goes before');
@answers = session(endpoint('same', refresh_token => 'refresh-canary-same'), 'test_ready()', 'test_rotated()');
is_deeply(\@answers, [ 'ready', '' ], 'the same refresh token again is no rotation');

@answers = session({ %mapping }, 'test_ready()', q(test_reload('refresh-canary-0')), q(test_reload('refresh-canary-3')), 'test_ready()', 'test_rotated()');
is_deeply([ @answers[ 1 .. 4 ] ], [ 'f', 't', 'ready', 'refresh-canary-4' ], 'one that another process has rotated is taken over');

sub stored { my ($server, $user, %options) = @_; return value($node, "SELECT test_stored('$server', '$user', " . options(%options) . ')') }
is(stored('tracker', 'postgres', %mapping), 'refresh-canary-3', 'what was stored is read');
is(stored('tracker', 'postgres', %mapping, scope => 'x'), 'refresh-canary-3', 'with other options, too');
is(stored('tracker', 'postgres', %mapping, refresh_token => 'refresh-canary-new'), '', 'not with another refresh token in the mapping');
is(stored('tracker', 'postgres', %mapping, token_url => "$base/token/ok"), '', 'nor with another token endpoint');
is(stored('tracker', 'postgres', %mapping, client_id => 'other'), '', 'nor with another client');
is(stored('tracker', 'somebody', %mapping), '', 'nor for somebody else');
is(stored('other', 'postgres', %mapping), '', 'nor for another server');
$node->safe_psql('postgres', q(UPDATE ingest._token SET username = 'somebody'));
is(stored('tracker', 'somebody', %mapping), '', 'nor when the row is passed off as his');
$node->safe_psql('postgres', q(UPDATE ingest._token SET username = 'postgres', sealed = set_byte(sealed, octet_length(sealed) - 1, get_byte(sealed, octet_length(sealed) - 1) # 1)));
is(stored('tracker', 'postgres', %mapping), '', 'nor when it was changed');
is(value($node, 'SELECT count(*) FROM ingest._token'), '1', 'one row a mapping');
is(value($node, q(SELECT count(*) FROM ingest._token t WHERE encode(sealed, 'escape') ~ 'canary')), '0', 'sealed');
$node->safe_psql('postgres', 'CREATE ROLE reader LOGIN IN ROLE pg_read_all_data; GRANT SELECT ON ingest._token TO reader');
is(value($node, 'SET ROLE reader; SELECT count(*) FROM ingest._token'), '0', 'who may read all data does not see it');
my ($dump) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
unlike($dump, qr/sealed|COPY ingest\._token/, 'it is not dumped');

# ---- an assertion

requests(qr/./);
@answers = session({ auth => 'oauth2', token_url => "$base/token/ok", jwt_key => slurp_file("$key.rsa"), jwt_issuer => 'me@example.com', scope => 'a b' }, $get);
like($answers[0], qr/^200: hello/, 'a token for a JWT');
my $form = form((requests(qr/token/))[0]{body});
my $assertion = delete $form->{assertion};
is_deeply($form, { grant_type => 'urn:ietf:params:oauth:grant-type:jwt-bearer', scope => 'a b' }, 'the form');
check_signature($assertion, 'RS256', "$key.rsa.pub", 'the assertion');
$claims = decode_json(decode_base64url((split /\./, $assertion)[1]));
is_deeply([ @$claims{qw(iss sub aud scope)} ], [ 'me@example.com', 'me@example.com', "$base/token/ok", 'a b' ], 'its claims');

# ---- secrets are in no message

my $secret = 'client-canary/+"\\&%20 ä';
@answers = session(endpoint('echo', client_secret => $secret), 'test_ready()');
like($answers[0], qr/^config 28000: .*401: invalid_client: (Basic )?\*\*\*/, 'a server that repeats everything it knows');
@answers = session(endpoint('echo', client_secret => $secret, client_auth => 'body'), 'test_ready()');
@answers = session(endpoint('echo', refresh_token => 'refresh-canary-echo'), 'test_ready()');
@answers = session({ auth => 'oauth2', token_url => "$base/token/echo", jwt_key => slurp_file("$key.rsa"), jwt_issuer => 'me' }, 'test_ready()');
unlike($answers[0], qr/ey[A-Za-z0-9_-]{10}/, 'an assertion is not shown, either');
@answers = session(endpoint('echo_html', client_secret => $secret, client_auth => 'body'), 'test_ready()');
like($answers[0], qr/client_secret=\*\*\*/, 'as HTML');

sub redacted
{
	my ($options, $text) = @_;
	my @lines = session($options, 'test_redact(' . quote($text) . ')');
	return join "\n", @lines;
}
my %basic = (username => 'me', password => 'password-canary/+" &ä');
my $pair = encode_base64("me:password-canary/+\" &\xc3\xa4", '');
foreach my $case (
	[ 'nothing to see', 'nothing to see' ], [ '', '' ],
	[ 'x password-canary/+" &ä y', 'x *** y' ], [ 'password-canary/+" &äpassword-canary/+" &ä', '******' ],
	[ 'a=password-canary%2F%2B%22%20%26%C3%A4&b', 'a=***&b' ], [ 'a=password-canary%2f%2b%22+%26%c3%a4&b', 'a=***&b' ],
	[ 'a=password-canary/+%22%20&%C3%A4 b', 'a=*** b' ], [ '{"p": "password-canary\/+\" &ä"}', '{"p": "***"}' ],
	[ '{"p": "password-canary\u002f\u002B\u0022\u0020&ä"}', '{"p": "***"}' ], [ '<p>password-canary/+&quot; &amp;ä</p>', '<p>***</p>' ],
	[ '<p>password-canary&#47;&#x2B;&#34; &#38;ä</p>', '<p>***</p>' ], [ "Basic $pair.", 'Basic ***.' ],
	[ 'cut off: password-cana', 'cut off: ***' ], [ 'cut off: passwor', 'cut off: passwor' ], [ 'password-cana is another', 'password-cana is another' ],
	[ 'cut off: ' . substr($pair, 0, 16), 'cut off: ***' ])
{
	my ($text, $expected) = @$case;
	is(redacted({%basic}, $text), $expected, "redacted: $text");
}
foreach my $before ('', 'x', 'xy', 'some more', 'and:')
{
	my $encoded = encode_base64("${before}token-canary-long" . 'and behind', '');
	is(redacted({ auth => 'bearer', token => 'token-canary-long' }, "<$encoded>"), '<***>', "redacted: within Base64, behind \"$before\"");
}
is(redacted({ username => 'a', password => 'x1' }, 'x1, ax1 and x1y, x1'), '***, ax1 and x1y, ***', 'a very short one as a word only');
is(redacted({ username => 'a', password => '' }, 'all of it'), 'all of it', 'an empty one not at all');
like(redacted({ %jwt, jwt_algorithm => 'RS256', jwt_key => slurp_file("$key.rsa") }, join ' ', map { substr($_, 0, 64) } split /\n/, slurp_file("$key.rsa")), qr/^-+BEGIN PRIVATE KEY-+ (\*\*\* ?)+ -+END PRIVATE KEY-+$/, 'a key by its lines');

is(value($node, q(SELECT test_wiped(repeat('wiped-canary', 20)))), '0', 'a secret is overwritten when it goes');

my @leaks = grep { /canary/ && !/^refresh-canary-\d$/m && !/^\S*cut off|is another/m } @shown;
is_deeply(\@leaks, [], 'I11: no client has seen a secret');
unlike(slurp_file($node->logfile), qr/canary/, "I11: the server's log has none");

$server->kill_kill;
$node->stop('fast');
done_testing();
