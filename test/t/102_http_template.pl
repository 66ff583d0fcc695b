# What HTTP sources read and write as text: rates, Retry-After, budgets (D05),
# templates and URLs (D14).  Tables of cases, and properties against Python's library.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use HttpLimitTest;
use IngestTest;

my $node = start_node('template', preload => 0);
create_functions($node);
my $day = 86400000;

sub quote
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

# Each case: arguments, what is expected.  One statement for all of them.
sub check_table
{
	my ($what, $call, @cases) = @_;
	my $sql = join ' UNION ALL ', map {
		my @args = @{ $cases[$_] };
		my $expected = pop @args;
		my $filled = $call;
		$filled =~ s/\?/ref $args[0] ? 'ARRAY[' . join(', ', map { quote($_) } @{ shift @args }) . ']::text[]' : quote(shift @args)/ge;
		"SELECT $_ AS n, ($filled)::text AS got, " . quote($expected) . '::text AS expected';
	} 0 .. $#cases;
	is($node->safe_psql('postgres', "SELECT n, got, expected FROM ($sql) c WHERE got IS DISTINCT FROM expected"),
		'', "$what: " . @cases . ' cases');
	return;
}

# What is wrong with it, by SQLSTATE and message, detail or hint.
sub check_errors
{
	my ($call, @cases) = @_;
	foreach my $case (@cases)
	{
		my ($args, @like) = @$case;
		my $filled = $call;
		my @rest = @$args;
		$filled =~ s/\?/ref $rest[0] ? 'ARRAY[' . join(', ', map { quote($_) } @{ shift @rest }) . ']::text[]' : quote(shift @rest)/ge;
		my $err = fails_with($node, "SELECT $filled", 'HV024', qr/ERROR/, "error of $$args[0]");
		like($err, $_, "error of $$args[0]: says $_") foreach @like;
	}
	return;
}

# ---- rates

check_table('rates', 't.rate(?)',
	[ '10/s', '10 in 1000 ms: 10/s' ],
	[ '600/min', '600 in 60000 ms: 600/min' ],
	[ '5000/h', '5000 in 3600000 ms: 5000/h' ],
	[ '2/500 ms', '2 in 500 ms: 2/500 ms' ],
	[ '1/15 minutes', '1 in 900000 ms: 1/15 min' ],
	[ '1/2s', '1 in 2000 ms: 1/2 s' ],
	[ '  3 / 2 Hours ', '3 in 7200000 ms: 3/2 h' ],
	[ '0.5/second', '0.5 in 1000 ms: 0.5/s' ],
	[ '100/day', "100 in $day ms: 100/day" ],
	[ '7/1.5 s', '7 in 1500 ms: 7/1500 ms' ],
	[ '10/m', '10 in 60000 ms: 10/min' ],
	[ '1000000/ms', '1e+06 in 1 ms: 1000000/ms' ]);
check_errors('t.rate(?)',
	[ [''], qr/invalid value for option "rate_limit": ""/, qr/HINT:  A rate is a number of requests and a period, such as '10\/s'/ ],
	[ ['10'], qr/no slash/ ],
	[ ['fast'], qr/does not begin with a number/ ],
	[ ['-1/s'], qr/does not begin with a number/ ],
	[ ['1e3/s'], qr/no slash/ ],
	[ ['NaN/s'], qr/does not begin/ ],
	[ ['10/'], qr/no unit/ ],
	[ ['10/5'], qr/no unit/ ],
	[ ['10/minuet'], qr/no unit "minuet"/, qr/HINT:  Did you mean "minute"\?/ ],
	[ ['10/fortnight'], qr/no unit "fortnight"/ ],
	[ ['10/s/s'], qr/no unit "s\/s"/ ],
	[ ['0/s'], qr/nothing would ever be read/, qr/Leave the option out/ ],
	[ ['1/0 s'], qr/between a millisecond and 366 days/ ],
	[ ['1/400 days'], qr/between a millisecond and 366 days/ ],
	[ ['0.001/day'], qr/less than a request in 366 days/ ],
	[ ['99999999999999999999999999/s'], qr/at most 1000000 requests/ ],
	[ [ '1/' . 'x' x 2000 ], qr/no unit/ ]);

# ---- Retry-After

my $date = 'Sun, 06 Nov 1994 08:49:37 GMT';
my $hour = 3600000;
check_table('Retry-After', 't.retry_after(?, ?, ?)',
	[ undef, $date, $hour, -1 ],
	[ '', $date, $hour, -1 ],
	[ '120', undef, $hour, 120000 ],
	[ ' 120 ', undef, $hour, 120000 ],
	[ '0', undef, $hour, 0 ],
	[ '-1', undef, $hour, 0 ],
	[ '1.5', undef, $hour, 1500 ],
	[ '0.0001', undef, $hour, 1 ],
	[ '3601', undef, $hour, $hour ],
	[ '9' x 400, undef, $hour, $hour ],
	[ '9' x 400, undef, '9223372036854775807', '1000000000000000000000' > 0 ? '9223372036854775807' : '' ],
	[ '99999999999999999999', undef, 0, 0 ],
	[ '12 apples', undef, $hour, -1 ],
	[ '0x10', undef, $hour, -1 ],
	[ '1e3', undef, $hour, -1 ],
	[ 'inf', undef, $hour, -1 ],
	[ 'never', undef, $hour, -1 ],
	[ '--1', undef, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08:50:37 GMT', $date, $hour, 60000 ],
	[ 'Sunday, 06-Nov-94 08:50:37 GMT', $date, $hour, 60000 ],
	[ 'Sun Nov  6 08:50:37 1994', $date, $hour, 60000 ],
	[ 'sun nov 16 08:49:37 1994', 'Sunday, 06-Nov-94 08:49:37 GMT', 11 * $day, 10 * $day ],
	[ 'Sun, 06 Nov 1994 08:49:60 GMT', 'Sun Nov  6 08:49:37 1994', $hour, 23000 ],
	[ 'Sun, 06 Nov 1994 08:49:36 GMT', $date, $hour, 0 ],
	[ 'Wed, 01 Jan 2120 00:00:00 GMT', $date, $hour, $hour ],
	[ 'Wed, 01 Jan 2120 00:00:00 GMT', 'garbage', $hour, $hour ],
	[ 'Sun, 06 Nov 1994 08:49:37 GMT', undef, $hour, 0 ],
	[ 'Sun, 29 Feb 2032 00:00:00 GMT', 'Sat, 28 Feb 2032 23:59:59 GMT', $hour, 1000 ],
	[ 'Tue, 29 Feb 2033 00:00:00 GMT', $date, $hour, -1 ],
	[ 'Sun, 31 Jun 1994 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 00 Nov 1994 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 24:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08:60:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08:49:61 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08:49:37 EST', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08:49:37', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 194 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 19940 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06-Nov 1994 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 November 1994 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Brumaire 1994 08:49:37 GMT', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08:49:37 GMT, 120', $date, $hour, -1 ],
	[ 'Sun', $date, $hour, -1 ],
	[ 'Sun, ', $date, $hour, -1 ],
	[ 'Sun, 06', $date, $hour, -1 ],
	[ 'Sun, 06 N', $date, $hour, -1 ],
	[ 'Sun, 06 Nov 1994 08', $date, $hour, -1 ],
	[ 'Sun Nov', $date, $hour, -1 ],
	[ 'Söndag, 06 Nov 1994 08:49:37 GMT', $date, $hour, -1 ],
	[ '2026-11-23T10:00:00Z', $date, $hour, -1 ]);

# ---- budgets

my $unix = 784111777;    # $date
check_table('budgets', 't.budget(?, ?)',
	[ [], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '0', 'RateLimit-Reset', '30' ], $hour, 30000 ],
	[ [ 'RateLimit-Remaining', '1', 'RateLimit-Reset', '30' ], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '0' ], $hour, 0 ],
	[ [ 'RateLimit-Reset', '30' ], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '0', 'RateLimit-Reset', '99999' ], $hour, $hour ],
	[ [ 'RateLimit-Remaining', '0;w=60', 'RateLimit-Reset', '30, 60;w=60' ], $hour, 30000 ],
	[ [ 'RateLimit-Remaining', 'none', 'RateLimit-Reset', '30' ], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '-5', 'RateLimit-Reset', '30' ], $hour, 30000 ],
	[ [ 'RateLimit-Remaining', '0', 'RateLimit-Reset', '-30' ], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '0', 'RateLimit-Reset', 'soon' ], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '0', 'RateLimit-Reset', '12abc' ], $hour, 0 ],
	[ [ 'RateLimit-Remaining', '0', 'RateLimit-Reset', '' ], $hour, 0 ],
	[ [ 'X-RateLimit-Remaining', '0.0', 'X-RateLimit-Reset', '12.5' ], $hour, 12500 ],
	[ [ 'X-Rate-Limit-Remaining', '0', 'X-Rate-Limit-Reset', '7' ], $hour, 7000 ],
	[ [ 'x-ratelimit-remaining', '0', 'x-ratelimit-reset', '100', 'X-RateLimit-Reset-After', '0.25' ], $hour, 250 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '1m30s' ], $hour, 90000 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '250ms' ], $hour, 250 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '5x' ], $hour, 0 ],
	# GitHub: a Unix time; of the server's clock, whatever ours says.
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', 2000000060, 'Date', 'Wed, 18 May 2033 03:33:20 GMT' ], $hour, 60000 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', 2000000060500, 'Date', 'Wed, 18 May 2033 03:33:20 GMT' ], $hour, 60500 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', 1372700873 ], $hour, 0 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', 'Sun, 06 Nov 1994 08:50:37 GMT', 'Date', $date ], $hour, 60000 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '1994-11-06T09:50:37.5+01:00', 'Date', $date ], $hour, 60500 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '1994-11-06T08:50:37Z', 'Date', $date ], $hour, 60000 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '1994-13-06T08:50:37Z', 'Date', $date ], $hour, 0 ],
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '9' x 500 ], $hour, $hour ],
	# Several say something: the longest.
	[ [ 'X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '5', 'RateLimit-Remaining', '0', 'RateLimit-Reset', '9' ], $hour, 9000 ],
	# Until draft 7, and since.
	[ [ 'RateLimit', 'limit=100, remaining=0, reset=50' ], $hour, 50000 ],
	[ [ 'RateLimit', 'reset=50,remaining=0' ], $hour, 50000 ],
	[ [ 'RateLimit', 'limit=100;w=60, remaining=3, reset=50' ], $hour, 0 ],
	[ [ 'RateLimit', '"default";r=0;t=30' ], $hour, 30000 ],
	[ [ 'RateLimit', 'default; t=30; r=0' ], $hour, 30000 ],
	[ [ 'RateLimit', '"default";r=50;t=30' ], $hour, 0 ],
	[ [ 'RateLimit', '"default";r=0' ], $hour, 0 ],
	[ [ 'RateLimit', '"burst";r=0;t=5, "daily";r=10;t=3000' ], $hour, 5000 ],
	[ [ 'RateLimit', '"burst";r=0;t=5, "daily";r=0;t=3000' ], $hour, 3000000 ],
	[ [ 'RateLimit', '"burst";r=1;t=5, "daily";r=0;t=7;pk=:QUFB:' ], $hour, 7000 ],
	[ [ 'RateLimit', '"r=0;t=30, \\" r=0;t=40"' ], $hour, 0 ],
	[ [ 'RateLimit', '"open;r=0;t=30' ], $hour, 0 ],
	[ [ 'RateLimit', '"x\\' ], $hour, 0 ],
	[ [ 'RateLimit', ';;,,==r=;t=,r=0;t' ], $hour, 0 ],
	[ [ 'RateLimit', 'r=0;t=30' x 5000 ], $hour, 30000 ]);

# ---- templates

my @values = (
	cursor => 'a b/c?d&e=f#g%', token => undef, page => '7', quote => qq(say "hi"\\\n), up => '..', dot => '.',
	line => "a\r\nX: y", neg => '-0.5e+3', zero => '007', bool => 'true', umlaut => 'ü', empty => '', tag => q(<a b="c">&'));
check_table('templates', 't.fill(?, ?, ?)',
	map { my ($template, $kind, $expected) = @$_; [ $template, $kind, \@values, $expected ] }
	[ '/issues', 'url', '/issues' ],
	[ '', 'url', '' ],
	[ '/issues?since={cursor}', 'url', '/issues?since=a%20b%2Fc%3Fd%26e%3Df%23g%25' ],
	[ '/i/{cursor}/x', 'url', '/i/a%20b%2Fc%3Fd%26e%3Df%23g%25/x' ],
	[ '/{page}{page}', 'url', '/77' ],
	[ '/{umlaut}/ü x', 'url', '/%C3%BC/%C3%BC%20x' ],
	[ 'http://bücher.example/ü', 'url', 'http://bücher.example/%C3%BC' ],
	[ '/a{{b}}?{{{page}}}', 'url', '/a{b}?{7}' ],
	# A parameter without a value is left out, where there is nothing else in it.
	[ '/x?a={token}', 'url', '/x' ],
	[ '/x?a={token}#f', 'url', '/x#f' ],
	[ '/x?a={token}&b=1', 'url', '/x?b=1' ],
	[ '/x?b=1&a={token}', 'url', '/x?b=1' ],
	[ '/x?b=1&a={token}&c=2', 'url', '/x?b=1&c=2' ],
	[ '/x?a={token}&b={token}', 'url', '/x' ],
	[ '/x?a={token}&b={token}&c={page}&d={token}', 'url', '/x?c=7' ],
	[ '/x?z&a={token}', 'url', '/x?z' ],
	[ '/x?a=[{token}]', 'url', '/x?a=[]' ],
	[ '/x?a=b={token}', 'url', '/x?a=b=' ],
	[ '/x?a={token}{token}', 'url', '/x?a=' ],
	[ '/x?a={empty}', 'url', '/x?a=' ],
	[ '/x?{token}', 'url', '/x?' ],
	[ '/x?{token}={token}&b=1', 'url', '/x?b=1' ],
	[ '/x?a?b={token}', 'url', '/x' ],
	[ '/x=a/{token}', 'url', '/x=a/' ],
	[ '/x#a={token}', 'url', '/x#a=' ],
	[ '/x/{token}/y', 'url', '/x//y' ],
	# A value does not lead out of the path.
	[ '/x/{up}/y', 'url', '!up' ],
	[ '/x/{up}', 'url', '!up' ],
	[ '/x/{dot}?a', 'url', '!dot' ],
	[ '/x/{dot}{dot}#a', 'url', '!dot' ],
	[ '/x/.{token}{dot}/', 'url', '!token' ],
	[ '/x/%2e{dot}/', 'url', '!dot' ],
	[ '{up}/x', 'url', '!up' ],
	[ '/x/{up}.', 'url', '/x/...' ],
	[ '/x/a{up}', 'url', '/x/a..' ],
	[ '/x?a={up}', 'url', '/x?a=..' ],
	[ '/x?a=/{up}/', 'url', '/x?a=/../' ],
	[ '/../{page}', 'url', '/../7' ],
	[ 'a={cursor}&b={umlaut}&c=x y', 'form', 'a=a+b%2Fc%3Fd%26e%3Df%23g%25&b=%C3%BC&c=x y' ],
	[ 'a={token}&b={page}', 'form', 'b=7' ],
	[ 'b={page}&a={token}', 'form', 'b=7' ],
	[ 'a={token}', 'form', '' ],
	[ 'a=?{token}', 'form', 'a=?' ],
	[ 'a=?&b={token}', 'form', 'a=?' ],
	# JSON: as it stands there.
	[ '{"a": {cursor}}', 'json', '{"a": "a b/c?d&e=f#g%"}' ],
	[ '{"a": "{cursor}"}', 'json', '{"a": "a b/c?d&e=f#g%"}' ],
	[ '{"a": {quote}, "b": "<{quote}>"}', 'json', '{"a": "say \"hi\"\\\\\n", "b": "<say \"hi\"\\\\\n>"}' ],
	[ '{"a": {token}, "b": "{token}", "c": {empty}}', 'json', '{"a": null, "b": "", "c": ""}' ],
	[ '{"a":{"b":{page}}}', 'json', '{"a":{"b":7}}' ],
	[ '[{neg}, {zero}, {bool}, {up}]', 'json', '[-0.5e+3, "007", true, ".."]' ],
	[ '{"query": "{ a { id } }", "variables": {"x": "\\"{page}"}}', 'json', '{"query": "{ a { id } }", "variables": {"x": "\\"7"}}' ],
	[ '{"query": "{id} {{page}}"}', 'json', '{"query": "{id} {7}"}' ],
	[ '{"a": "\\\\{quote}"}', 'json', '{"a": "\\\\say \"hi\"\\\\\n"}' ],
	[ '{"a": "\\{quote}"}', 'json', '{"a": "\\{quote}"}' ],
	[ '{"a": "{line}"}', 'json', '{"a": "a\r\nX: y"}' ],
	[ '{}', 'json', '{}' ],
	[ '{', 'json', '{' ],
	[ '{"a": "', 'json', '{"a": "' ],
	[ 'Bearer {cursor}', 'header', 'Bearer a b/c?d&e=f#g%' ],
	[ 'x{token}{umlaut}', 'header', 'xü' ],
	[ 'x {line}', 'header', '!line' ],
	[ '<a>{tag}</a>', 'xml', '<a>&#60;a b=&#34;c&#34;&#62;&#38;&#39;</a>' ],
	[ "<a\n>{line}</a>", 'xml', "<a\n>a&#13;&#10;X: y</a>" ],
	[ "{tag}\n{{", 'text', qq(<a b="c">&'\n{) ]);

check_errors('t.fill(?, ?, ?)',
	[ [ '/x?a={curser}', 'url', [ cursor => 'x', page => 'y' ] ], qr/unknown name "\{curser\}" in option "path"/,
		qr/DETAIL:  The names there are: \{cursor\}, \{page\}\./, qr/HINT:  Did you mean "\{cursor\}"\?/ ],
	[ [ '/x?a={a}', 'url', [] ], qr/There are no names for this option/ ],
	[ [ '{"a": {curser}}', 'json', [ cursor => 'x' ] ], qr/unknown name "\{curser\}"/ ],
	[ [ '/x{', 'url', [] ], qr/brace "\{"/, qr/HINT:  Write "\{\{" for the brace itself/ ],
	[ [ '/x}', 'header', [] ], qr/brace "\}"/ ],
	[ [ '/x{}', 'form', [] ], qr/brace "\{"/ ],
	[ [ '/x{a-b}', 'url', [ 'a-b' => 1 ] ], qr/brace "\{"/ ],
	[ [ '/x{a', 'url', [ a => 1 ] ], qr/brace "\{"/ ],
	[ [ "/x\r\nHost: y", 'url', [] ], qr/control character/ ],
	[ [ "x\r\nHost: y", 'header', [] ], qr/control character/ ],
	[ [ "x\ty", 'header', [] ], qr/control character/ ],
	[ [ '/{' . 'x' x 300 . '}', 'url', [ cursor => 1 ] ], qr/unknown name/, qr/\A(?!.*Did you mean)/s ]);

# ---- URLs

check_table('parameters', 't.set_parameter(?, ?, ?)',
	[ 'http://h/p', 'a', 'x y&', 'http://h/p?a=x%20y%26' ],
	[ 'http://h/p?', 'a', '1', 'http://h/p?a=1' ],
	[ 'http://h/p?b=2', 'a', '1', 'http://h/p?b=2&a=1' ],
	[ 'http://h/p?a=2&b=3', 'a', '1', 'http://h/p?a=1&b=3' ],
	[ 'http://h/p?b=3&a=2&c&a=4&ab=5', 'a', '1', 'http://h/p?b=3&a=1&c&ab=5' ],
	[ 'http://h/p?a', 'a', '1', 'http://h/p?a=1' ],
	[ 'http://h/p?%61=2', 'a', '1', 'http://h/p?a=1' ],
	[ 'http://h/p?page%5Bsize%5D=2', 'page[size]', '1', 'http://h/p?page%5Bsize%5D=1' ],
	[ 'http://h/p?page[size]=2&x+y=3', 'x y', '1', 'http://h/p?page[size]=2&x%20y=1' ],
	[ 'http://h/p?a%00b=1&%zz=2&%=3', 'a', '1', 'http://h/p?a%00b=1&%zz=2&%=3&a=1' ],
	[ 'http://h/p?a=2#a=3', 'a', '1', 'http://h/p?a=1#a=3' ],
	[ 'http://h/p#x?a=2', 'a', '1', 'http://h/p?a=1#x?a=2' ],
	[ 'http://h/p?a=2&b=3', 'a', undef, 'http://h/p?b=3' ],
	[ 'http://h/p?a=2', 'a', undef, 'http://h/p' ],
	[ 'http://h/p?&&b=1&&', 'a', '1', 'http://h/p?b=1&a=1' ],
	[ '', 'a', '', '?a=' ]);

check_table('joined', 't."join"(?, ?)',
	[ 'http://h', '', 'http://h' ],
	[ 'http://h/', '', 'http://h/' ],
	[ 'http://h', 'a', 'http://h/a' ],
	[ 'http://h/v2/', '/a/', 'http://h/v2/a/' ],
	[ 'http://h/v2//', '//evil.example/a', 'http://h/v2/evil.example/a' ],
	[ 'http://h/v2', '?a=1', 'http://h/v2?a=1' ],
	[ 'http://h/v2?k=1', '/a', 'http://h/v2/a?k=1' ],
	[ 'http://h/v2?k=1', '/a?b=2', 'http://h/v2/a?k=1&b=2' ],
	[ 'http://h/v2?k=1', '?b=2#f', 'http://h/v2?k=1&b=2#f' ],
	[ 'http://h/v2?', '/a?b=2', 'http://h/v2/a?b=2' ],
	[ 'http://h/v2#f', '/a', 'http://h/v2/a' ],
	[ 'http://h/v2', 'https://h/x', 'https://h/x' ],
	[ 'http://h/v2', 'HTTP://h/x', 'HTTP://h/x' ],
	[ 'http://h/v2', 'ftp://h/x', 'http://h/v2/ftp://h/x' ]);

# ---- against Python's library

my $python = <<'PYTHON';
import email.utils, json, random, time, urllib.parse
random.seed(5)
def hexed(text): return "convert_from('\\x%s', 'UTF8')" % text.encode().hex()
def some_text():
    pool = [chr(c) for c in range(1, 128)] + list('äß€漢😀\u00a0\u2028\u0301\ufffd')
    return ''.join(random.choice(pool) for _ in range(random.randrange(1, 30)))
for _ in range(400):
    text = some_text()
    # The one thing that is not encoded but refused.
    expected = '/a' + urllib.parse.quote(text, safe='') + '?q=' + urllib.parse.quote(text, safe='')
    print("INSERT INTO c SELECT 'url', t.fill('/a{x}?q={x}', 'url', ARRAY['x', %s]), %s;" % (hexed(text), hexed(expected)))
    print("INSERT INTO c SELECT 'form', t.fill('{x}={x}', 'form', ARRAY['x', %s]), %s;"
          % (hexed(text), hexed(urllib.parse.quote_plus(text) .replace('%2F', '%2F').replace('/', '%2F') + '=' + urllib.parse.quote_plus(text, safe=''))))
    # What JSON readers make of it: Python's, and the server's.
    print("INSERT INTO j SELECT %s, t.fill('{\"a\": {x}, \"b\": \"<{x}>\"}', 'json', ARRAY['x', %s]);" % (hexed(text), hexed(text)))
    other = some_text()
    url = 'http://h/?' + urllib.parse.urlencode([(text, other), ('k', '1'), (other, text)])
    pairs = [(k, v) for k, v in urllib.parse.parse_qsl(url[10:], keep_blank_values=True)]
    expected, seen = [], False
    for k, v in pairs:
        if k != other: expected.append((k, v))
        elif not seen: expected.append((k, text + '!')); seen = True
    # Compared as Python reads it.
    print("INSERT INTO p SELECT %s, t.set_parameter(%s, %s, %s);" % (hexed(json.dumps(expected)), hexed(url), hexed(other), hexed(text + '!')))
base = 'Thu, 01 Jan 1970 00:00:00 GMT'
this_year = time.gmtime().tm_year
for _ in range(400):
    stamp = random.randrange(1, 253402300799)
    t = time.gmtime(stamp)
    forms = [email.utils.formatdate(stamp, usegmt=True), time.asctime(t)]
    # Years of two digits: at most 50 years ahead, and not long ago.
    near = random.randrange(int(time.time()) - 45 * 31556952, int(time.time()) + 45 * 31556952)
    forms2 = [time.strftime('%A, %d-%b-%y %H:%M:%S GMT', time.gmtime(near))]
    for form, expected in [(f, stamp) for f in forms] + [(f, near) for f in forms2]:
        if form in forms:
            parsed = email.utils.parsedate(form)
            assert parsed is not None and (int(__import__('calendar').timegm(parsed)) == stamp), form
        print("INSERT INTO c SELECT 'date', t.retry_after(%s, '%s', 9000000000000000)::text, '%d';" % (hexed(form), base, expected * 1000))
PYTHON
my $program = PostgreSQL::Test::Utils::tempdir . '/cases.py';
append_to_file($program, $python);
my ($statements, $stderr) = run_command([ 'env', 'TZ=UTC', 'LC_ALL=C.UTF-8', 'python3', $program ]);
is($stderr, '', 'cases are made');
$node->safe_psql('postgres', 'CREATE TABLE c (what text, got text, expected text);
	CREATE TABLE j (x text, body text); CREATE TABLE p (expected text, url text)');
$node->safe_psql('postgres', "BEGIN;\n$statements\nCOMMIT;");
foreach my $what (qw(url form date))
{
	cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM c WHERE what = '$what'"), '>=', 400, "$what: cases");
	is($node->safe_psql('postgres', "SELECT got, expected FROM c WHERE what = '$what' AND got IS DISTINCT FROM expected LIMIT 3"),
		'', "$what: as Python has it");
}
is($node->safe_psql('postgres', "SELECT x, body FROM j WHERE body::jsonb -> 'a' <> CASE
		WHEN x ~ '^(true|false|null|-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?)\$' THEN x::jsonb ELSE to_jsonb(x) END
		OR body::jsonb ->> 'b' <> '<' || x || '>' LIMIT 3"), '', 'json: as the server reads it');
my $check = PostgreSQL::Test::Utils::tempdir . '/check.py';
append_to_file($check, <<'PYTHON');
import json, sys, urllib.parse
for line in open(sys.argv[1], encoding='utf-8'):
    expected, url = json.loads(line)
    got = urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True)
    if got != [tuple(pair) for pair in json.loads(expected)]:
        print(expected, url)
PYTHON
my $lines = PostgreSQL::Test::Utils::tempdir . '/lines';
append_to_file($lines, $node->safe_psql('postgres', 'SELECT json_build_array(expected, url) FROM p'));
my ($problems, $trouble) = run_command([ 'env', 'LC_ALL=C.UTF-8', 'python3', $check, $lines ]);
is($problems . $trouble, '', 'parameters: as Python reads them');

$node->stop('fast');
done_testing();
