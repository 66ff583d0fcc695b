# A full refresh through postgres_fdw beside INSERT ... SELECT from the same foreign table,
# in turn; the same by a cursor, and by key when nothing has changed; memory.
use strict;
use warnings;

use Time::HiRes qw(time);

use Bench;

my $rows = 10_000_000;
my $part = 1_000_000;
ask($stage{control}, "CREATE EXTENSION postgres_fdw; CREATE SCHEMA far;
	CREATE TABLE far.big AS SELECT g AS id, 'name of ' || g AS name, (g * 1.5)::float8 AS amount,
		timestamptz '2026-01-01' + g * interval '1 s' AS at, md5(g::text) AS code FROM generate_series(1, $rows) g;
	ALTER TABLE far.big ADD PRIMARY KEY (id); VACUUM ANALYZE far.big;
	CREATE VIEW far.part AS SELECT * FROM far.big WHERE id <= $part;
	CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$stage{work}', port '$stage{port}', dbname 'postgres', fetch_size '10000');
	CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres');
	CREATE FOREIGN TABLE far_big (id int NOT NULL, name text, amount float8, at timestamptz, code text) SERVER far OPTIONS (schema_name 'far', table_name 'big');
	CREATE FOREIGN TABLE far_part (id int NOT NULL, name text, amount float8, at timestamptz, code text) SERVER far OPTIONS (schema_name 'far', table_name 'part');
	CREATE TABLE plain (id int, name text, amount float8, at timestamptz, code text); CREATE TABLE whole (LIKE plain);
	CREATE TABLE paged (LIKE plain); CREATE TABLE keyed (LIKE plain); ALTER TABLE keyed ADD PRIMARY KEY (id);
	SELECT ingest.create_pipeline('whole', 'far_part', 'whole', mode => 'replace', schedule => 'manual');
	SELECT ingest.create_pipeline('keyed', 'far_part', 'keyed', mode => 'replace', key => '{id}', schedule => 'manual');
	SELECT ingest.create_pipeline('paged', 'far_big', 'paged', options => '{\"cursor\": \"id\"}')");

sub seconds
{
	my ($sql) = @_;
	my $begin = time;
	ask($stage{control}, $sql);
	return time - $begin;
}

my (%seconds, @ratio);
foreach my $round (1 .. $stage{rounds} + 1)
{
	ask($stage{control}, 'TRUNCATE plain, whole, keyed; CHECKPOINT');
	my %now = (insert => seconds('INSERT INTO plain SELECT * FROM far_part'), refresh => seconds("CALL ingest.run('whole')"));
	$now{again} = seconds("CALL ingest.run('whole')");
	$now{first} = seconds("CALL ingest.run('keyed')");
	$now{same} = seconds("CALL ingest.run('keyed')");
	next if $round == 1;		# memory was touched for the first time
	push @{ $seconds{$_} }, $now{$_} foreach keys %now;
	push @ratio, $now{insert} / $now{refresh};
	note_progress(sprintf 'INSERT %.2f s, refresh %.2f s', $now{insert}, $now{refresh});
}

# All of it, by a cursor, and what memory that takes.
my $session = open_session();
my $memory = 0;
my $begin = time;
ask($session, "CALL ingest.run('paged')", sub {
	my $now = memory_of($session->{backend});
	$memory = $now if $now > $memory;
});
my $paged = time - $begin;
close_session($session);

save('relation', "Seconds for $part rows through postgres_fdw:\n\n"
	  . table([ 'way', 'seconds' ],
		[ '`INSERT ... SELECT` into an empty table', range_of('%.2f', @{ $seconds{insert} }) ],
		[ 'full refresh of an empty table', range_of('%.2f', @{ $seconds{refresh} }) ],
		[ 'full refresh again: all rows deleted and inserted', range_of('%.2f', @{ $seconds{again} }) ],
		[ 'full refresh by key, all rows new', range_of('%.2f', @{ $seconds{first} }) ],
		[ 'full refresh by key, nothing changed', range_of('%.2f', @{ $seconds{same} }) ])
	  . sprintf("\nThe refresh has %.2f of the speed of `INSERT ... SELECT`. %d rows by a cursor: %.1f s, %d MB.\n", median(@ratio), $rows, $paged, $memory));
ask($stage{control}, "SELECT ingest.drop_pipeline(name) FROM ingest.pipeline; DROP SERVER far CASCADE; DROP SCHEMA far CASCADE; DROP TABLE plain, whole, paged, keyed");
1;
