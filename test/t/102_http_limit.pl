# D05, I15: rate, places, pauses and circuit breaker of HTTP servers, shared by all
# sessions; and what ingest.http_server tells of them.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use HttpLimitTest;
use IngestTest;

my $node = start_node('limit', conf => "shared_preload_libraries = 'ingest," . httplimit_library() . "'\nrestart_after_crash = on");
create_functions($node);
$node->safe_psql('postgres', "CREATE SERVER s$_ FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers 'localhost:1')")
  foreach 1 .. 8;
my %oid = split /[|\n]/, value($node, 'SELECT srvname, oid FROM pg_foreign_server');

sub status
{
	my ($server, $columns) = @_;
	return value($node, "SELECT $columns FROM ingest.http_server WHERE name = '$server'");
}

# Statements of one session; the last lines of their output.
sub in_session
{
	my ($sql) = @_;
	my $out = $node->safe_psql('postgres', $sql);
	return join ' ', grep { $_ ne '' } split /\n/, $out;
}

# A psql that goes on while we do something else.
sub start_session
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), map { ('-c', $_) } split /;/, $sql ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	return { handle => $handle, out => \$out, err => \$err };
}

sub end_session
{
	my ($session) = @_;
	$session->{handle}->finish;
	return join ' ', grep { $_ ne '' } split /\n/, ${ $session->{out} };
}

# ---- a rate

my $begin = time;
my @sessions = map { start_session("SELECT t.open(0, $oid{s1}, '20/s', 0); SELECT t.run(0, 3000, 0);") } 1 .. 6;
my @counts = map { end_session($_) } @sessions;
my $elapsed = time - $begin;
my $sum = 0;
$sum += $_ foreach @counts;
note "@counts in $elapsed s";
# A tenth of a second's worth at once, and one for the rounding of clocks.
cmp_ok($sum, '<=', 20 * $elapsed + 3, 'rate: never more than it allows');
cmp_ok($sum, '>=', 20, 'rate: but some');
is(status('s1', 'rate, requests, in_flight, breaker, waiting_until'), "20/s|$sum|0|closed|", 'rate: the view tells');
is(in_session("SELECT pg_sleep(0.2); SELECT t.open(0, $oid{s1}, '1/min', 0); SELECT t.run(0, 300, 0)"), '1', 'rate: the last one holds');
is(status('s1', 'rate'), '1/min', 'rate: in the view, too');
my ($free, $wait) = split ' ', in_session("SELECT t.open(0, $oid{s1}, '1/min', 0);
	SELECT t.take(0) BETWEEN 50000 AND 60000; SELECT t.take(0) = t.take(0)");
is("$free", 't', 'rate: says how long to wait');
is(in_session("SELECT t.open(0, $oid{s1}, NULL, 0); SELECT sum(t.take(0)) FROM generate_series(1, 1000)"), '0', 'rate: none');

# ---- places

my $holder = start_session("SELECT t.open(0, $oid{s2}, NULL, 2); SELECT t.take(0); SELECT pg_sleep(100)");
wait_for($node, "SELECT in_flight FROM ingest.http_server WHERE name = 's2'", 1, 'places: one is taken');
is(in_session("SELECT t.open(0, $oid{s2}, NULL, 2); SELECT t.take(0); SELECT t.take(0); SELECT t.give_back(0); SELECT t.take(0)"),
	'0 100 0', 'places: two, and then no more');
is(status('s2', 'in_flight, concurrency'), '1|2', 'places: of a session that has ended come back');
is(in_session("SELECT t.open(0, $oid{s2}, NULL, 2); SELECT t.open(1, $oid{s2}, NULL, 2); SELECT t.take(0); SELECT t.take(1);
	SELECT t.close(0); SELECT t.take(1); SELECT t.give_back(1); SELECT t.give_back(1); SELECT t.give_back(1); SELECT t.take(1)"),
	'0 100 0 0', 'places: of a handle that is closed come back; once only');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)' AND pid <> pg_backend_pid()"),
	't', 'places: a holder is terminated');
$holder->{handle}->finish;
is(status('s2', 'in_flight'), '0', 'places: of a session that was terminated come back');
is(in_session("SELECT t.open(0, $oid{s2}, NULL, 2); SELECT t.take(0); SELECT t.take(0); SELECT t.take(0)"),
	'0 0 100', 'places: both are free');

# Several sessions and few places: never more at a time.
@sessions = map { start_session("SELECT t.open(0, $oid{s3}, NULL, 3); SELECT t.run(0, 2500, 20)") } 1 .. 6;
my $most = 0;
my $deadline = time + 2;
while (time < $deadline)
{
	my $now = status('s3', 'in_flight') || 0;
	$most = $now if $now > $most;
}
end_session($_) foreach @sessions;
cmp_ok($most, '<=', 3, 'places: never more than there are');
cmp_ok($most, '>=', 1, 'places: but some');
is(status('s3', 'in_flight'), '0', 'places: all free in the end');

# ---- pauses

is(in_session("SELECT t.open(0, $oid{s4}, NULL, 0); SELECT t.pause(0, 60000); SELECT t.pause(0, 10); SELECT t.pause(0, -5);
	SELECT t.take(0) BETWEEN 50000 AND 60000"), 't', 'pause: the longest holds');
is(in_session("SELECT t.open(0, $oid{s4}, NULL, 0); SELECT t.take(0) BETWEEN 30000 AND 60000"), 't', 'pause: for everybody');
is(status('s4', "waiting_until BETWEEN now() + interval '10 s' AND now() + interval '60 s', requests"), 't|0', 'pause: the view tells');
is(in_session("SELECT t.open(0, $oid{s5}, NULL, 0); SELECT t.pause(0, 1000); SELECT t.take(0) > 0; SELECT pg_sleep(1.01); SELECT t.take(0)"),
	't 0', 'pause: it ends');
is(in_session("SELECT t.open(0, $oid{s4}, NULL, 0); SELECT t.pause(0, 9223372036854775807); SELECT t.take(0) > 1e9"), 't',
	'pause: however long');

# ---- the circuit breaker

my $failed = 'SELECT t.take(0); SELECT t.verdict(0, false); SELECT t.give_back(0);';
is(in_session("SELECT t.open(0, $oid{s6}, NULL, 4); " . $failed x 4 . "SELECT t.take(0); SELECT t.verdict(0, true); SELECT t.give_back(0);" . $failed x 4),
	join(' ', (0) x 9), 'breaker: a success begins anew');
is(status('s6', 'breaker, failed_in_row, failures'), 'closed|4|8', 'breaker: is closed');
is(in_session("SELECT t.open(0, $oid{s6}, NULL, 4); $failed SELECT t.take(0) BETWEEN 1 AND 1000"), '0 t', 'breaker: opens');
like(status('s6', 'breaker, failed_in_row'), qr/^(open|probing)\|5$/, 'breaker: is open');
wait_for($node, "SELECT breaker FROM ingest.http_server WHERE name = 's6'", 'probing', 'breaker: wants a probe', 10);
is(in_session("SELECT t.open(0, $oid{s6}, NULL, 4); SELECT t.open(1, $oid{s6}, NULL, 4); SELECT t.take(0); SELECT t.take(1), t.take(0);
	SELECT t.verdict(1, false); SELECT t.take(1); SELECT t.give_back(0); SELECT t.take(1); SELECT t.take(0)"),
	'0 100|100 100 0 100', 'breaker: one probe at a time, of whichever handle; without a verdict another');
is(status('s6', 'in_flight, breaker'), '0|probing', 'breaker: a probe that has ended with its session');
is(in_session("SELECT t.open(0, $oid{s6}, NULL, 4); $failed SELECT t.take(0) BETWEEN 1001 AND 2000"), '0 t',
	'breaker: a probe that fails makes it wait longer');
wait_for($node, "SELECT breaker FROM ingest.http_server WHERE name = 's6'", 'probing', 'breaker: wants another probe', 10);

# A prober that is thrown out, with the others waiting for it.
my $prober = start_session("SELECT t.open(0, $oid{s6}, NULL, 4); SELECT t.take(0); SELECT pg_sleep(101)");
wait_for($node, "SELECT in_flight FROM ingest.http_server WHERE name = 's6'", 1, 'breaker: a probe is under way');
is(in_session("SELECT t.open(0, $oid{s6}, NULL, 4); SELECT t.take(0)"), '100', 'breaker: everybody waits for it');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(101)' AND pid <> pg_backend_pid()");
$prober->{handle}->finish;
# The verdict may come after the place was given back.
is(in_session("SELECT t.open(0, $oid{s6}, NULL, 4); SELECT t.take(0); SELECT t.give_back(0); SELECT t.verdict(0, true); SELECT t.take(0); SELECT t.take(0)"),
	'0 0 0', 'breaker: closes after a success');
is(status('s6', 'breaker, failed_in_row, waiting_until'), 'closed|0|', 'breaker: is closed again');

# ---- the table

# More servers than fit: those without anything to remember go first.
is(in_session("SELECT t.open(0, $oid{s8}, NULL, 4); SELECT t.pause(0, 3600000);
	SELECT t.open(1, $oid{s7}, NULL, 4); SELECT t.take(1);
	SELECT count(t.open(2, s::oid, '5/s', 4)) FROM generate_series(1, 3000) s;
	SELECT in_flight FROM ingest.http_server WHERE name = 's7'; SELECT t.give_back(1);
	SELECT t.open(3, $oid{s8}, NULL, 4); SELECT t.take(3) > 0;
	SELECT t.open(4, 1, '5/s', 4); SELECT t.take(4)"), '0 3000 1 t 0', 'table: full of others');
is(value($node, 'SELECT count(*) FROM ingest._http_servers()'), '1024', 'table: has an end');
# All in use.
is(in_session("SELECT count(t.open(s, (10000 + s)::oid, NULL, 4)) FROM generate_series(0, 1099) s;
	SELECT (sum(t.take(s)) / 100)::integer, count(*) FROM generate_series(0, 1099) s"), '1100 76|1100', 'table: no room, no request');
is(value($node, 'SELECT sum(in_flight) FROM ingest._http_servers()'), '0', 'table: all is given back');
is($node->safe_psql('template1', "CREATE EXTENSION ingest; SELECT count(*) FROM ingest.http_server; DROP EXTENSION ingest"), '0',
	'view: of this database only');

# ---- who sees what

$node->safe_psql('postgres', "SELECT t.open(0, $oid{s1}, '5/s', 4); SELECT t.open(1, $oid{s2}, '5/s', 4);
	CREATE ROLE reader; CREATE ROLE monitor; GRANT pg_monitor TO monitor; GRANT USAGE ON FOREIGN SERVER s2 TO reader");
is(in_session("SET ROLE reader; SELECT string_agg(name, ',') FROM ingest.http_server"), 's2', 'view: of servers one may use');
is(in_session("SET ROLE monitor; SELECT string_agg(name, ',' ORDER BY name) FROM ingest.http_server WHERE name IN ('s1', 's2')"), 's1,s2',
	'view: monitors see all');

# A crash forgets who was inside.
$holder = start_session("SELECT t.open(0, $oid{s2}, NULL, 1); SELECT t.take(0); SELECT pg_sleep(102)");
wait_for($node, "SELECT in_flight FROM ingest.http_server WHERE name = 's2'", 1, 'crash: a place is taken');
my $pid = value($node, "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(102)' AND pid <> pg_backend_pid()");
kill 'KILL', $pid;
$holder->{handle}->finish;
ok(wait_until_up($node), 'crash: up again');
wait_for($node, "SELECT count(*) FROM ingest.http_server", 0, 'crash: nothing is known');
is(in_session("SELECT t.open(0, $oid{s2}, NULL, 1); SELECT t.take(0)"), '0', 'crash: the place is free');

$node->stop('fast');

# ---- without preloading: the same, of each session

my $alone = start_node('alone', preload => 0);
create_functions($alone);
is(join(' ', grep { $_ ne '' } split /\n/, $alone->safe_psql('postgres', "SELECT t.open(0, 1, '10/min', 2); SELECT t.take(0); SELECT t.take(0) > 1000;
	SELECT t.open(1, 2, NULL, 1); SELECT t.take(1); SELECT t.take(1); SELECT t.give_back(1); SELECT t.take(1); SELECT t.close(1);
	SELECT t.open(1, 2, NULL, 1); SELECT t.take(1);
	SELECT count(t.open(2, s::oid, NULL, 4)) FROM generate_series(1, 1000) s; SELECT t.take(2)")), '0 t 0 100 0 0 1000 0', 'alone: works');
is($alone->safe_psql('postgres', "SELECT t.open(0, 1, '10/min', 2); SELECT t.take(0)"), "\n0", 'alone: others are not seen');
$alone->stop('fast');
done_testing();
