# A relation of this database read by a cursor: ties at the borders of batches, types
# of cursors, rows without one, transactions that commit out of order, and a soak of
# writers against three pipelines (INGEST_SOAK seconds).
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use RelationTest;

my $node = start_node('incremental', conf => "max_prepared_transactions = 5\nautovacuum_naptime = 1\n");
my $session;

# ---- ties, types

$node->safe_psql('postgres', "
	CREATE TABLE tied (at timestamptz NOT NULL, id int NOT NULL, v text, UNIQUE (at, id));
	INSERT INTO tied SELECT '2026-01-01'::timestamptz + (g / 7) * interval '1 s', g, 'v' || g FROM generate_series(1, 500) g;
	CREATE TABLE tied_target (LIKE tied)");
create_pipeline($node, 'tied', 'tied', 'tied_target', options => '{"cursor": "at, id", "batch_rows": 5}');
run_pipeline($node, 'tied');
same_rows($node, 'TABLE tied', 'TABLE tied_target', 'ties at the borders of batches are neither lost nor repeated');

my %values = (
	uuid => "lpad(g::text, 32, '0')::uuid",
	numeric => 'g * 0.1',
	date => "date '2026-01-01' + g",
	timestamp => "timestamp '2026-01-01' + g * interval '1 us'",
	text => "'k' || lpad(g::text, 6, '0')",
	'varchar(20)' => "'K' || lpad(g::text, 6, '0')",
	smallint => 'g',
	bytea => "int4send(g)",
);
my $n = 0;
foreach my $type (sort keys %values)
{
	my $name = 'type_' . ++$n;
	$node->safe_psql('postgres', "CREATE TABLE $name (c $type PRIMARY KEY, v int); CREATE TABLE ${name}_target (c $type, v int);
		INSERT INTO $name SELECT $values{$type}, g FROM generate_series(1, 300) g");
	create_pipeline($node, $name, $name, "${name}_target", options => '{"cursor": "c", "batch_rows": 7}');
	run_pipeline($node, $name);
	$node->safe_psql('postgres', "INSERT INTO $name SELECT $values{$type}, g FROM generate_series(900, 950) g");
	run_pipeline($node, $name);
	same_rows($node, "SELECT c::text, v FROM $name", "SELECT c::text, v FROM ${name}_target", "a cursor of type $type");
}

# A session's own notion of dates does not reach the position.
$node->safe_psql('postgres', "INSERT INTO tied VALUES ('2026-02-03', 9001, 'x'), ('2026-02-04', 9002, 'y')");
$node->safe_psql('postgres', "SET datestyle = 'German, DMY'; SET timezone = 'Asia/Tokyo'; CALL ingest.run('tied', 1)");
$node->safe_psql('postgres', "SET datestyle = 'SQL, MDY'; SET timezone = 'America/New_York'; CALL ingest.run('tied')");
same_rows($node, 'TABLE tied', 'TABLE tied_target', 'DateStyle and TimeZone of a session do not matter');

# ---- rows without a cursor

$node->safe_psql('postgres', "
	CREATE TABLE holes (id int PRIMARY KEY, at timestamptz, v int);
	CREATE TABLE holes_target (id int PRIMARY KEY, at timestamptz, v int);
	INSERT INTO holes VALUES (1, '2026-01-01', 1), (2, NULL, 2), (3, 'infinity', 3), (4, '-infinity', 4), (5, '2026-01-02', 5)");
create_pipeline($node, 'holes', 'holes', 'holes_target', mode => 'upsert', key => '{id}', options => '{"cursor": "at"}');
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('holes')");
like($err, qr/has rows whose cursor is null or infinite/, 'rows without a cursor stop the pipeline');
is(value($node, 'SELECT count(*) FROM holes_target'), 0, 'before anything is read');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('holes', options => '{"null_cursor": "skip"}')));
run_pipeline($node, 'holes');
is(value($node, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM holes_target"), '1 5', 'or are skipped');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('holes', options => '{"null_cursor": "include"}')));
run_pipeline($node, 'holes');
$node->safe_psql('postgres', 'UPDATE holes SET v = v * 10 WHERE id IN (2, 3)');
run_pipeline($node, 'holes');
same_rows($node, 'TABLE holes', 'TABLE holes_target', 'or are read in every run');

# ---- late commits, step by step

$node->safe_psql('postgres', "CREATE TABLE late (id bigserial PRIMARY KEY, v text); CREATE TABLE late_target (id bigint, v text);
	CREATE TABLE naive_target (id bigint, v text)");
create_pipeline($node, 'late', 'late', 'late_target', options => '{"cursor": "id"}');
create_pipeline($node, 'naive', 'late', 'naive_target', options => '{"cursor": "id", "late_commits": "ignore"}');
$session = open_session($node);
$session->sql("BEGIN; INSERT INTO late (v) VALUES ('slow')");
$node->safe_psql('postgres', "INSERT INTO late (v) VALUES ('fast')");
like(run_pipeline($node, 'late'), qr/NOTICE:  some rows of public.late are left to the next run/, 'a run says what it leaves');
run_pipeline($node, 'naive');
is(value($node, 'SELECT count(*) FROM late_target'), 0, 'nothing above a row that may still come');
is(value($node, "SELECT lag FROM ingest.position WHERE pipeline = 'late'"), 1, 'the lag says so');
$session->sql('COMMIT');
run_pipeline($node, $_) foreach 'late', 'naive';
same_rows($node, 'TABLE late', 'TABLE late_target', 'a row that was committed late is not missed');
is(value($node, 'SELECT count(*) FROM naive_target'), 1, 'the test would notice: without waiting it is');

# Drawn before the table is locked, as object mappers do it.
$session->sql("BEGIN; SELECT nextval('late_id_seq')");
$node->safe_psql('postgres', "INSERT INTO late (v) VALUES ('fast')");
run_pipeline($node, 'late');
$session->sql("INSERT INTO late VALUES (currval('late_id_seq'), 'drawn before'); COMMIT");
run_pipeline($node, 'late');
same_rows($node, 'TABLE late', 'TABLE late_target', 'nor one whose number was drawn before');

# Somebody who only reads is not waited for, where numbers come from a sequence.
$session->sql('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM late');
$node->safe_psql('postgres', "INSERT INTO late (v) VALUES ('while somebody reads')");
unlike(run_pipeline($node, 'late'), qr/left to the next run/, 'readers are not waited for');
same_rows($node, 'TABLE late', 'TABLE late_target', 'and nothing is held back for them');
$session->sql('COMMIT');

# Numbers that were rolled back leave holes and nothing else.
$session->sql("BEGIN; INSERT INTO late (v) VALUES ('never'); ROLLBACK");
$node->safe_psql('postgres', "INSERT INTO late (v) VALUES ('after a hole')");
run_pipeline($node, 'late');
same_rows($node, 'TABLE late', 'TABLE late_target', 'E03: a rollback does not stall it');

# A prepared transaction, over a restart of the server.
$session->sql("BEGIN; INSERT INTO late (v) VALUES ('prepared'); PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "INSERT INTO late (v) VALUES ('after prepared')");
run_pipeline($node, 'late');
$session->close;
$node->restart;
run_pipeline($node, 'late');
is(value($node, "SELECT count(*) FROM late_target WHERE v = 'after prepared'"), 0, 'a prepared transaction is waited for, over a restart');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
run_pipeline($node, 'late');
same_rows($node, 'TABLE late', 'TABLE late_target', 'and its row is not missed');

# now() is when a transaction began: whoever runs may write something old.
$node->safe_psql('postgres', "CREATE TABLE timed (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
	CREATE INDEX ON timed (at, id); CREATE TABLE timed_target (id int, at timestamptz)");
create_pipeline($node, 'timed', 'timed', 'timed_target', options => '{"cursor": "at, id"}');
$session = open_session($node);
$session->sql('BEGIN; SELECT 1');
$node->safe_psql('postgres', 'INSERT INTO timed VALUES (1)');
run_pipeline($node, 'timed');
is(value($node, 'SELECT count(*) FROM timed_target'), 0, 'with times, everybody who runs is waited for');
$session->sql('INSERT INTO timed VALUES (2); COMMIT');
run_pipeline($node, 'timed');
same_rows($node, 'TABLE timed', 'TABLE timed_target', 'and what is older and came later is there');

# An xid8 column is exact.
$node->safe_psql('postgres', "CREATE TABLE exact (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), id int NOT NULL, UNIQUE (xid, id));
	CREATE TABLE exact_target (xid xid8, id int)");
create_pipeline($node, 'exact', 'exact', 'exact_target', options => '{"cursor": "xid, id"}');
$session->sql('BEGIN; INSERT INTO exact VALUES (DEFAULT, 1)');
$node->safe_psql('postgres', 'INSERT INTO exact VALUES (DEFAULT, 2)');
run_pipeline($node, 'exact');
is(value($node, 'SELECT count(*) FROM exact_target'), 0, 'xid8: nothing above a transaction that runs');
$session->sql('COMMIT');
run_pipeline($node, 'exact');
same_rows($node, 'TABLE exact', 'TABLE exact_target', 'xid8: all of it in the end');

# ---- nothing is held while it waits

$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('late', options => '{"poll_interval": "50 ms"}'); SELECT ingest.start('late')));
wait_for($node, "SELECT count(*) FROM ingest._workers()", 1, 'a worker runs');
$session->sql("BEGIN; INSERT INTO late (v) VALUES ('holds back')");
$node->safe_psql('postgres', "INSERT INTO late (v) VALUES ('is held back')");
sleep 1;
is( value($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest: late%'
		AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL)"),
	0, 'while it waits, no snapshot and no transaction');
is( value($node, "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE application_name LIKE 'ingest: late%' AND locktype = 'relation'"),
	0, 'and no lock');
$session->sql('COMMIT');
wait_for($node, 'SELECT (SELECT count(*) FROM late) = (SELECT count(*) FROM late_target)', 't', 'then it goes on');
$node->safe_psql('postgres', "SELECT ingest.stop('late')");

# ---- what is asked for

my $plan = value($node, "SELECT string_agg(l, E'\\n') FROM ingest.explain('late') l");
like($plan, qr/^SELECT id, v FROM public.late WHERE id > \$1/, 'ingest.explain() shows the query');
like($plan, qr/Index Scan using late_pkey/, 'which uses the index');

# ---- the soak

$session->close;
my $seconds = $ENV{INGEST_SOAK} // 15;
$node->safe_psql('postgres', "
	CREATE TABLE ins (id bigserial PRIMARY KEY, v int, at timestamptz NOT NULL DEFAULT now());
	CREATE INDEX ON ins (at, id);
	CREATE TABLE by_id (id bigint, v int, at timestamptz); CREATE TABLE by_time (LIKE by_id);
	CREATE TABLE upd (id int PRIMARY KEY, v int NOT NULL, changed timestamptz NOT NULL DEFAULT now());
	CREATE INDEX ON upd (changed, id);
	CREATE TABLE by_change (id int PRIMARY KEY, v int, changed timestamptz);
	CREATE TABLE whole (id int PRIMARY KEY, v int, changed timestamptz);
	INSERT INTO upd SELECT g, 0 FROM generate_series(1, 200) g");
my $poll = '"poll_interval": "20 ms", "batch_rows": 50';
create_pipeline($node, 'by_id', 'ins', 'by_id', options => qq({"cursor": "id", $poll}));
create_pipeline($node, 'by_time', 'ins', 'by_time', options => qq({"cursor": "at, id", $poll}));
create_pipeline($node, 'by_change', 'upd', 'by_change', mode => 'upsert', key => '{id}', options => qq({"cursor": "changed, id", $poll}));
create_pipeline($node, 'whole', 'upd', 'whole', mode => 'replace', key => '{id}', schedule => '1 second', options => '{"refresh_floor": 0}');
$node->safe_psql('postgres', "SELECT ingest.start(p) FROM unnest('{by_id,by_time,by_change,whole}'::text[]) p");

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/write.sql", <<'SQL');
\set kind random(1, 10)
\set pause random(0, 30)
\set long random(1, 60)
\set id random(1, 200)
BEGIN;
INSERT INTO ins (v) VALUES (:id);
\if :long = 1
\sleep 1500 ms
\else
\sleep :pause ms
\endif
UPDATE upd SET v = v + 1, changed = now() WHERE id = :id;
INSERT INTO ins (v) SELECT :id FROM generate_series(1, :kind);
\sleep :pause ms
\if :kind = 1
ROLLBACK;
\else
COMMIT;
\endif
SQL
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', 8, '-j', 2, '-T', $seconds, '-f', "$dir/write.sql", $node->connstr('postgres') ],
	'<', \undef, '>', \my $bench_out, '2>', \my $bench_err, IPC::Run::timeout($seconds + 120));
my $until = time + $seconds - 2;
my $kills = 0;
while (time < $until)
{
	sleep 3;
	# A worker is gone in the middle of what it does.
	$kills += value($node, "SELECT count(pg_terminate_backend(pid)) FROM ingest._workers()
		WHERE pid = (SELECT pid FROM ingest._workers() ORDER BY random() LIMIT 1)");
}
ok($bench->finish, 'the writers have written') or diag $bench_err;
note $bench_out . $bench_err;
note "$kills workers terminated; " . ($bench_out =~ /number of transactions actually processed: (\d+)/ ? $1 : '?') . ' transactions';
wait_for($node, 'SELECT (SELECT count(*) FROM ins) <= (SELECT count(*) FROM by_id) AND (SELECT count(*) FROM ins) <= (SELECT count(*) FROM by_time)',
	't', 'all rows have arrived');
wait_for($node, 'SELECT NOT EXISTS (TABLE upd EXCEPT TABLE by_change) AND NOT EXISTS (TABLE upd EXCEPT TABLE whole)', 't', 'all changes have');
same_rows($node, 'TABLE ins', 'TABLE by_id', 'soak: by number: none lost, none twice');
same_rows($node, 'TABLE ins', 'TABLE by_time', 'soak: by time: none lost, none twice');
same_rows($node, 'TABLE upd', 'TABLE by_change', 'soak: every change has arrived');
same_rows($node, 'TABLE upd', 'TABLE whole', 'soak: a full refresh is the same');
is(value($node, 'SELECT count(*) FROM ingest.dead_letter'), 0, 'soak: no dead letters');

# A key that is changed, and a storm of deletes, are for a full refresh to see.
$node->safe_psql('postgres', 'UPDATE upd SET id = id + 1000 WHERE id <= 10; DELETE FROM upd WHERE id BETWEEN 11 AND 190');
wait_for($node, 'SELECT NOT EXISTS (TABLE upd EXCEPT TABLE whole) AND NOT EXISTS (TABLE whole EXCEPT TABLE upd)', 't',
	'a full refresh carries changed keys and deletes');

$node->stop;
done_testing();
