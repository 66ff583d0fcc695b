# Brokers that send what they should not, or nothing, and a worker that runs out of
# means while it talks to them.
use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use FaultProxy;
use IngestTest;
use KafkaPeer;
use ProcessTest;

my $kafka = KafkaPeer->new;
my $proxy = FaultProxy->before($kafka);
$kafka->start;
my $node = start_node('hostile', conf => 'restart_after_crash = on');
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $proxy);


# ---- C18: bits that are wrong

$kafka->create_topic('flipped', 2);
create_sensor_pipeline($node, 'flipped', 'flipped', options => '{"batch_rows": 500}');
$node->safe_psql('postgres', "SELECT ingest.start('flipped')");
foreach my $n (0 .. 3)
{
	my $log = -s $node->logfile;
	$proxy->tell('flip 1 "seq"');
	$kafka->produce('flipped', count => 3000, first => 3000 * $n, seed => 1, manifest => "$dir/flipped",
		$n % 2 ? (set => ['compression.codec=none']) : (transaction => 100, abort => 1000));
	load_manifest($node, 'flipped_manifest', "$dir/flipped");
	wait_for($node, 'SELECT count(*) FROM flipped', 3000 * ($n + 1), "C18: wrong bits, $n: they are asked for once more");
	check_exactly_once($node, 'flipped', 'flipped_manifest', "C18: wrong bits, $n");
	is(count_log($node, qr/DETAIL: .*failed CRC32C check/, $log), 1, "C18: wrong bits, $n: said once");
}
$node->safe_psql('postgres', "SELECT ingest.stop('flipped')");

# ---- C11: a transaction that is not over holds back what comes behind it

$kafka->create_topic('held', 1);
create_sensor_pipeline($node, 'held', 'held');
$kafka->produce('held', count => 10, seed => 1, transaction => 10);
$node->safe_psql('postgres', "SELECT ingest.start('held')");
my $lag = "SELECT lag FROM ingest.pipeline_status WHERE name = 'held'";
wait_for($node, "SELECT count(*), ($lag) FROM held", '10|0', 'C11: transactions that are over are no lag');
my $producer = $kafka->produce_start('held', count => 100000, rate => 100, first => 1000, seed => 1, transaction => 100000,
	set => ['linger.ms=5']);
wait_for($node, "SELECT ($lag) > 50", 't', 'C11: one that is not is lag');
is(value($node, 'SELECT count(*) FROM held'), '10', 'C11: of which nothing is read');
$kafka->produce('held', count => 5, first => 10, seed => 1);
$producer->kill_kill;
# It is aborted when its producer, which is known by its first number, comes back.
$kafka->produce('held', count => 1, first => 1000, seed => 1, transaction => 1);
wait_for($node, "SELECT count(*), max(seq), ($lag) FROM held", '16|1000|0', 'C11: once it is aborted the rest is read, and there is no lag');
$node->safe_psql('postgres', "SELECT ingest.stop('held')");

# ---- B14, J12: a line that comes and goes

my $log = -s $node->logfile;
$node->safe_psql('postgres', "SELECT ingest.start('flipped')");
my $produced = 12000;
my $all = "SELECT (SELECT count(*) FROM flipped) + (SELECT count(*) FROM ingest.dead_letter)";
foreach my $n (1 .. 12)
{
	$proxy->tell($n % 2 ? 'drop' : 'pass');
	$kafka->produce('flipped', count => 200, first => $produced, seed => 1, manifest => "$dir/flipped");
	load_manifest($node, 'flipped_manifest', "$dir/flipped");
	$produced += 200;
	sleep 0.3;
}
wait_for($node, $all, $produced, 'B14: a line that comes and goes: everything arrives');
check_exactly_once($node, 'flipped', 'flipped_manifest', 'B14: a line that comes and goes');
cmp_ok(count_log($node, qr/ingest worker +(LOG|WARNING|ERROR)/, $log), '<', 10, 'B14: and is not much talked of');

# ---- C29: every piece of an answer begins with a wrong bit: lengths of gigabytes

$proxy->tell('flip 4 ');
$kafka->produce('flipped', count => 200, first => $produced, seed => 1, manifest => "$dir/flipped");
load_manifest($node, 'flipped_manifest', "$dir/flipped");
wait_for($node, $all, $produced += 200, 'C29: answers with wrong lengths: everything arrives');
check_exactly_once($node, 'flipped', 'flipped_manifest', 'C29: answers with wrong lengths');

# ---- B06: a broker that says nothing any more is not waited for

my $worker = worker_pid($node, 'flipped');
$proxy->tell('hang');
sleep 1;
foreach my $where ('in the middle of a stream', 'while it asks for the partitions')
{
	kill 'TERM', $worker;
	wait_gone(3, "B06: a silent broker: it ends $where", $worker);
	wait_for($node, "SELECT pid <> $worker AND phase = 'assigning' FROM ingest._workers()", 't', 'B06: the next one asks');
	$worker = worker_pid($node, 'flipped');
}
takes_at_most(3, 'B06: a silent broker: DROP DATABASE of another database', sub {
	$node->safe_psql('postgres', "CREATE DATABASE other; DROP DATABASE other") });
$node->safe_psql('postgres', "SELECT ingest.stop('flipped')");
wait_gone(3, 'B06: a silent broker: it stops', $worker);
$proxy->tell('pass');

# ---- B11: no descriptor is free

$node->safe_psql('postgres', "SELECT ingest.start('flipped')");
wait_for($node, "SELECT phase FROM ingest._workers()", 'waiting', 'B11: it runs');
$worker = worker_pid($node, 'flipped');
$log = -s $node->logfile;
run_command([ 'prlimit', "--pid=$worker", '--nofile=3:1024' ]);
$proxy->tell('drop');
sleep 0.5;
$proxy->tell('pass');
$kafka->produce('flipped', count => 200, first => $produced, seed => 1, manifest => "$dir/flipped");
load_manifest($node, 'flipped_manifest', "$dir/flipped");
$produced += 200;
# It cannot even note that; another one, with the limits of the server, goes on.
wait_for($node, $all, $produced, 'B11: no descriptor is free: it goes on');
cmp_ok(count_log($node, qr/Too many open files/, $log), '>', 0, 'B11: which was said');
is(count_log($node, qr/\(pipeline_id, halt,/, $log), 0, 'B11: and is no reason to wait for an operator');
check_exactly_once($node, 'flipped', 'flipped_manifest', 'B11: afterwards');
$node->safe_psql('postgres', "SELECT ingest.stop('flipped')");

# ---- B05, C29: somebody else answers

my @answers = ("HTTP/1.1 400 Bad Request\r\n\r\n", "\0" x 4, "\xff" x 4, "\x7f\xff\xff\xff" . "\0" x 1000,
	"\0\0\0\x20" . "\0\0\0\1" . "\xff" x 28, "\0\0\0\x0c" . "\0\0\0\1" . "\0\0" . "\x7f\xff\xff\xff" . "\0\0",
	join '', map { chr(($_ * 167 + $_ * $_) % 251) } 1 .. 5000);

# A process that gives everybody this answer to whatever they say.
sub start_liar
{
	my ($answer) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => KafkaPeer::free_port(), Listen => 20,
		Proto => 'tcp', ReuseAddr => 1) or die "liar: $!";
	my $pid = fork // die "fork: $!";
	return ($pid, $listener->sockport) if $pid;
	local $SIG{PIPE} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		sysread $client, my $request, 4096;
		syswrite $client, $answer;
		sysread $client, $request, 4096;
	}
	POSIX::_exit(0);
}

my @liars;
foreach my $i (0 .. $#answers)
{
	my ($pid, $port) = start_liar($answers[$i]);
	push @liars, $pid;
	unreachable_server($node, "liar$i", "127.0.0.1:$port");
	$node->safe_psql('postgres', "ALTER SERVER liar$i OPTIONS (SET timeout '1 s')");
	create_pipeline($node, "lies$i", server => "liar$i");
	$node->safe_psql('postgres', "SELECT ingest.start('lies$i')");
}
wait_for($node, "SELECT count(*) FROM ingest.pipeline_status WHERE name LIKE 'lies%' AND attempts >= 2 AND sqlstate LIKE '08%'",
	scalar @answers, 'B05, C29: who does not speak the protocol is told from a broker');
kill 'KILL', @liars;
waitpid $_, 0 foreach @liars;
$node->safe_psql('postgres', "SELECT ingest.stop(name) FROM ingest.pipeline_status WHERE name LIKE 'lies%'");

# ---- C19: messages that are a thousand times as large as what is sent

foreach my $codec (qw(gzip lz4 zstd))
{
	my $name = "bomb_$codec";
	$kafka->create_topic($name, 1);
	$kafka->send($name, { set => [ 'message.max.bytes=200000000', "compression.codec=$codec", 'linger.ms=1000' ] },
		map { [ 0, undef, undef, qq({"seq": $_, "t": ") . 'x' x 40_000_000 . '"}' ] } 1 .. 4);
	create_pipeline($node, $name);
	$node->safe_psql('postgres', "SELECT ingest.start('$name')");
	wait_for($node, "SELECT count(*) FROM $name", 4, "C19: $codec: they are written");
	my ($peak) = slurp_file('/proc/' . worker_pid($node, $name) . '/status') =~ /^VmHWM:\s+(\d+)/m;
	cmp_ok($peak, '<', 400_000, "C19: $codec: the worker holds hardly more than the messages, in kB");
	$node->safe_psql('postgres', "SELECT ingest.stop('$name')");
}
is(count_log($node, qr/was terminated by signal/), 0, 'B05: nothing has crashed');

$node->stop('fast');
done_testing();
