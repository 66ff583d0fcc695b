# CSV files and the output of programs, through file_fdw.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use RelationTest;

# A superuser's pipeline: only they may read files of the server.
my $node = start_node('file', conf => 'ingest.allow_superuser_pipelines = on');
my $dir = PostgreSQL::Test::Utils::tempdir();

sub write_file
{
	my ($name, @lines) = @_;
	open my $file, '>', "$dir/$name" or die "$dir/$name: $!";
	print $file join("\n", @lines), "\n";
	close $file;
	return;
}

write_file('stock.csv', 'sku,amount', map { "s$_,$_" } 1 .. 1000);
$node->safe_psql('postgres', "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
	CREATE FOREIGN TABLE stock_file (sku text, amount int) SERVER files OPTIONS (filename '$dir/stock.csv', format 'csv', header 'true');
	CREATE FOREIGN TABLE numbers (n int) SERVER files OPTIONS (program 'seq 1 500');
	CREATE TABLE stock (sku text PRIMARY KEY, amount int); CREATE TABLE plain (sku text, amount int); CREATE TABLE number (n int)");
create_pipeline($node, 'stock', 'stock_file', 'stock', mode => 'replace', key => '{sku}', schedule => 'manual');
create_pipeline($node, 'plain', 'stock_file', 'plain', mode => 'replace', schedule => 'manual');
create_pipeline($node, 'numbers', 'numbers', 'number', mode => 'replace', schedule => 'manual');
run_pipeline($node, $_) foreach qw(stock plain numbers);
same_rows($node, 'TABLE stock_file', "TABLE $_", "$_: a file of CSV") foreach qw(stock plain);
is(value($node, 'SELECT count(*), sum(n) FROM number'), '500|125250', 'the output of a program');

write_file('stock.csv', 'sku,amount', (map { "s$_,$_" } 1 .. 900), 's901,none', 's902,5');
# The file is read from its beginning whatever is asked for: which row it is cannot be told.
foreach my $name (qw(stock plain))
{
	my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('$name')");
	like($err, qr/invalid input syntax for type integer: "none".*HINT:  /s, "$name: a value of the wrong type is an error that says what to do");
	is(value($node, "SELECT count(*) FROM $name"), 1000, "$name: the target is as it was");
}
is(value($node, 'SELECT count(*) FROM ingest.dead_letter'), 0, 'no row is blamed that can be read');
$node->safe_psql('postgres', "CREATE FOREIGN TABLE stock_text (sku text, amount text) SERVER files OPTIONS (filename '$dir/stock.csv', format 'csv', header 'true');
	CREATE VIEW stock_typed AS SELECT sku, CASE WHEN amount ~ '^[0-9]+\$' THEN amount::int END AS amount, amount AS given FROM stock_text;
	SELECT ingest.alter_pipeline('stock', source => 'stock_typed', positions => 'forget'); SELECT ingest.add_rule('stock', 'number', 'amount IS NOT NULL')");
run_pipeline($node, 'stock');
is(value($node, 'SELECT count(*), max(amount) FILTER (WHERE sku = \'s902\') FROM stock'), '902|5', 'as text behind a view, with a rule, the others are written');
is(value($node, "SELECT rule FROM ingest.dead_letter WHERE pipeline = 'stock'"), 'number', 'and that row is a dead letter');

unlink "$dir/stock.csv";
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('stock')");
like($err, qr/could not open file .*stock\.csv/, 'a file that is gone');
is(value($node, 'SELECT count(*) FROM stock'), 902, 'changes nothing');
write_file('stock.csv', 'sku,amount');
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('stock')");
like($err, qr/has suspiciously few rows/, 'an empty one is not believed');

# A program that fails has printed something, and that is not kept.
$node->safe_psql('postgres', "CREATE FOREIGN TABLE failing (n int) SERVER files OPTIONS (program 'seq 1 500; exit 3'); CREATE TABLE failed (n int)");
create_pipeline($node, 'failing', 'failing', 'failed', mode => 'replace', schedule => 'manual');
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('failing')");
like($err, qr/program "seq 1 500; exit 3" failed/, 'a program that fails');
is(value($node, 'SELECT count(*) FROM failed'), 0, 'writes nothing');

$node->stop;
done_testing();
