# Formats through a pipeline: good rows are written, bad ones are dead letters that
# have all that is needed to be replayed, in both lanes.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MockBroker;

my @cases = (
	{
		name => 'csv',
		options => q(format 'csv', header 'true'),
		messages => [ "b,a\none,1\nbad,x\n\"t,\nwo\",2\r\n3\n", "a,b,zz\n3,three,z\n", "b,a\nbad,y", "x,y\n4,four" ],
		rows => '1=one 2=t,/wo 3=three',
		letters => [ "2/b,a\nbad,x", "4/b,a\n3", "0/b,a\nbad,y", "0/x,y\n4,four" ],
		# What is mended: the type of the column, and by that two of four.
		mended => 'ALTER FOREIGN TABLE %s ALTER a TYPE text; ALTER TABLE %1$s_target ALTER a TYPE text',
		rows_after => '1=one 2=t,/wo 3=three x=bad y=bad',
	},
	{
		name => 'ndjson',
		options => q(format 'ndjson'),
		messages => [ qq({"a": 1, "b": "one"}\nbroken\n\n{"a": "x", "b": "bad"}\r\n{"a": 2, "b": "two"}\n), qq({"a": 3, "b": "three"}), qq({"a": "y", "b": "bad"}\n) ],
		rows => '1=one 2=two 3=three',
		letters => [ '2/broken', '3/{"a": "x", "b": "bad"}', qq(0/{"a": "y", "b": "bad"}\n) ],
		mended => 'ALTER FOREIGN TABLE %s ALTER a TYPE text; ALTER TABLE %1$s_target ALTER a TYPE text',
		rows_after => '1=one 2=two 3=three x=bad y=bad',
	},
	{
		name => 'xml',
		options => q(format 'xml'),
		messages => [ '<r><a>1</a><b>one</b></r>', '<r><a>x</a><b>bad</b></r>', '<r><a>2</a>', '<!DOCTYPE r [<!ENTITY e "2">]><r><a>&e;</a></r>', "<r>\n<a>2</a><b>two</b></r>" ],
		rows => '1=one 2=two',
		letters => [ '0/<r><a>x</a><b>bad</b></r>', '0/<r><a>2</a>', '0/<!DOCTYPE r [<!ENTITY e "2">]><r><a>&e;</a></r>' ],
		mended => 'ALTER FOREIGN TABLE %s ALTER a TYPE text; ALTER TABLE %1$s_target ALTER a TYPE text',
		rows_after => '1=one 2=two x=bad',
	});

my $broker = MockBroker->new(map { "$_->{name}:1" } @cases);
my $node = start_node('formats');
create_server($node, $broker);

sub rows
{
	return value($node, "SELECT string_agg(concat_ws('=', a, replace(b, E'\\n', '/')), ' ' ORDER BY a::text) FROM $_[0]_target");
}

foreach my $case (@cases)
{
	$broker->send($case->{name}, @{ $case->{messages} });
	foreach my $lane (qw(direct statement))
	{
		my $name = "$case->{name}_$lane";
		$node->safe_psql('postgres', qq(
			CREATE FOREIGN TABLE $name (a integer, b text) SERVER plant OPTIONS (topic '$case->{name}', $case->{options});
			CREATE TABLE ${name}_target (a integer, b text);
			SELECT ingest.create_pipeline('$name', '$name', '${name}_target', options => '{"lane": "$lane", "error_rate": 1}')));
		drain($node, $name);
		is(rows($name), $case->{rows}, "$name: good rows are written");
		is(value($node, "SELECT string_agg(row_number || '/' || payload_text, '|' ORDER BY id) FROM ingest.dead_letter WHERE pipeline = '$name'"),
			join('|', @{ $case->{letters} }), "$name: dead letters are whole by themselves");
		$node->safe_psql('postgres', sprintf $case->{mended}, $name);
		$node->safe_psql('postgres', "SELECT ingest.replay('$name')");
		is(rows($name), $case->{rows_after}, "$name: once mended they are replayed, each as one row");
	}
}

done_testing();
