# The functions of test/lib/httplimit.c in a database.
package HttpLimitTest;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';

our @EXPORT = qw(httplimit_library create_functions);

sub httplimit_library { return abs_path("$ENV{INGEST_TEST_BIN}/httplimit.so") }

my @functions = (
	'rate(text) RETURNS text STRICT',
	'retry_after(value text, date text, max bigint) RETURNS bigint',
	'budget(headers text[], max bigint) RETURNS bigint STRICT',
	'fill(template text, kind text, pairs text[]) RETURNS text STRICT',
	'set_parameter(url text, name text, value text) RETURNS text',
	'"join"(base text, path text) RETURNS text STRICT',
	'open(limit_number integer, server oid, rate text, concurrency integer) RETURNS void',
	'close(limit_number integer) RETURNS void STRICT',
	'take(limit_number integer) RETURNS bigint STRICT',
	'give_back(limit_number integer) RETURNS void STRICT',
	'pause(limit_number integer, ms bigint) RETURNS void STRICT',
	'verdict(limit_number integer, success boolean) RETURNS void STRICT',
	'run(limit_number integer, ms bigint, hold bigint) RETURNS bigint STRICT');

# In schema t.
sub create_functions
{
	my ($node) = @_;
	my $library = httplimit_library();
	my $sql = 'CREATE SCHEMA t;';
	foreach my $function (@functions)
	{
		my ($name) = $function =~ /^"?(\w+)/;
		$sql .= "CREATE FUNCTION t.$function LANGUAGE c AS '$library', 'test_$name';\n";
	}
	$node->safe_psql('postgres', $sql);
	return;
}

1;
