# The bench itself; test/bench/run builds and starts it.
#
# One topic, read again by each contender in each round into a fresh table like
# the others', which must hold the same rows afterwards.  CPU and memory come
# from /proc.
use strict;
use warnings;

use Getopt::Long;
use IPC::Open2;
use IO::Select;
use POSIX ();
use Time::HiRes qw(sleep time);

use KafkaPeer;

my $work = shift @ARGV;
my ($messages, $rounds, $partitions, $only, %extern) = (2_000_000, 3, 4, '');
GetOptions('messages=i' => \$messages, 'rounds=i' => \$rounds, 'only=s' => \$only, 'contender=s' => \%extern)
  or die "bad options\n";

chomp(my $bindir = qx("\$PG_CONFIG" --bindir));
my $tick = POSIX::sysconf(POSIX::_SC_CLK_TCK());
my $postmaster;

$SIG{INT} = $SIG{TERM} = sub { exit 1 };
END { system("'$bindir/pg_ctl' -D $work/data -m immediate stop > /dev/null 2>&1") if $postmaster }

sub note_progress { printf STDERR "# %s\n", shift; return }

sub run_or_die
{
	my ($command) = @_;
	system("$command >> $work/bench.log 2>&1") == 0 or die "failed: $command\n" . qx(tail -n 20 $work/bench.log);
	return;
}

# ---- a psql to talk to

sub open_session
{
	my $pid = open2(my $out, my $in, "$bindir/psql", qw(-XqAt -v ON_ERROR_STOP=1 -h), $work, qw(-U postgres postgres));
	my $self = { psql => $pid, in => $in, out => $out, select => IO::Select->new($out), buffer => '' };
	$self->{backend} = ask($self, 'SELECT pg_backend_pid()');
	return $self;
}

# Send statements and wait for their answer; meanwhile($pid) is called ten times a second.
sub ask
{
	my ($session, $sql, $meanwhile) = @_;
	print { $session->{in} } "$sql;\n\\echo <done>\n";
	$session->{in}->flush;
	my $end;
	while (($end = index($session->{buffer}, "<done>\n")) < 0)
	{
		if ($session->{select}->can_read(0.1))
		{
			sysread($session->{out}, $session->{buffer}, 65536, length $session->{buffer})
			  or die "psql has ended at: $sql\n";
		}
		$meanwhile->() if $meanwhile;
	}
	my $answer = substr $session->{buffer}, 0, $end;
	substr($session->{buffer}, 0, $end + length "<done>\n") = '';
	chomp $answer;
	return $answer;
}

sub close_session
{
	my ($session) = @_;
	print { $session->{in} } "\\q\n";
	close $session->{in};
	waitpid $session->{psql}, 0;
	return;
}

# ---- what a process has used

sub cpu_of
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return 0;
	my ($user, $system) = (split / /, (split /\) /, <$file>, 2)[1])[11, 12];
	return ($user + $system) / $tick;
}

# Of its own: without the shared memory it has touched.
sub memory_of
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/status" or return 0;
	my %kb = map { /^(RssAnon|RssFile):\s+(\d+)/ ? ($1, $2) : () } <$file>;
	return (($kb{RssAnon} // 0) + ($kb{RssFile} // 0)) / 1024;
}

# Of all processes of the server, ended ones included as far as the postmaster has reaped them.
sub cpu_of_server
{
	my $sum = 0;
	opendir my $proc, '/proc' or die $!;
	foreach my $pid (grep { /^\d+$/ } readdir $proc)
	{
		open my $file, '<', "/proc/$pid/stat" or next;
		my @fields = split / /, (split /\) /, <$file> // '', 2)[1] // '';
		next unless @fields && ($pid == $postmaster || $fields[1] == $postmaster);
		$sum += $fields[11] + $fields[12];
		$sum += $fields[13] + $fields[14] if $pid == $postmaster;
	}
	return $sum / $tick;
}

# ---- the stage

sub start_server
{
	run_or_die("'$bindir/initdb' -D $work/data -A trust -U postgres -E UTF8 --locale=C.UTF-8");
	open my $conf, '>>', "$work/data/postgresql.conf" or die $!;
	print $conf <<"CONF";
listen_addresses = ''
unix_socket_directories = '$work'
shared_preload_libraries = 'ingest'
shared_buffers = '1GB'
max_wal_size = '16GB'
checkpoint_timeout = '1h'
autovacuum = off
timezone = 'UTC'
CONF
	close $conf;
	run_or_die("'$bindir/pg_ctl' -D $work/data -l $work/server.log -w start");
	open my $file, '<', "$work/data/postmaster.pid" or die $!;
	chomp($postmaster = <$file>);
	return;
}

my $columns = 'sensor_id text, temperature float8, humidity float8, pressure float8, event_time timestamptz%s,
	seq bigint, status text, site text';

sub create_table
{
	my ($session) = @_;
	ask($session, 'SET client_min_messages = warning; DROP TABLE IF EXISTS reading; CREATE TABLE reading (' . sprintf($columns, ' NOT NULL')
		  . ') PARTITION BY RANGE (event_time)');
	ask($session, q(DO $$ BEGIN
		FOR i IN 0 .. 27 LOOP
			EXECUTE format('CREATE TABLE reading_%s PARTITION OF reading FOR VALUES FROM (%L) TO (%L)',
				i, timestamptz '2026-01-01 00:00+00' + i * interval '1 day', timestamptz '2026-01-02 00:00+00' + i * interval '1 day');
		END LOOP;
	END $$));
	return;
}

sub create_pipeline
{
	my ($session, $lane) = @_;
	ask($session, qq(SELECT ingest.create_pipeline('readings', 'sensor_topic', 'reading', options => '{"lane": "$lane"}');
		SELECT ingest.add_rule('readings', 'above_zero', 'temperature >= 0');
		SELECT ingest.add_rule('readings', 'humidity_range', 'humidity BETWEEN 0 AND 100');
		SELECT ingest.add_rule('readings', 'has_sensor', \$\$ sensor_id <> '' \$\$)));
	return;
}

my $kafka = KafkaPeer->new(dir => "$work/kafka");
note_progress('starting PostgreSQL and Kafka');
start_server();
mkdir "$work/kafka";
$kafka->start;
$kafka->create_topic('sensors', $partitions, 'segment.bytes' => 268435456);
note_progress("producing $messages messages");
$kafka->produce('sensors', count => $messages, seed => 7, 'time-key' => 'event_time',
	set => [ 'linger.ms=50', 'batch.size=1000000' ]);

my $control = open_session();
ask($control, 'CREATE EXTENSION ingest');
ask($control, "CREATE SERVER plant FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '" . $kafka->brokers . "')");
ask($control, 'CREATE FOREIGN TABLE sensor_topic (' . sprintf($columns, '')
	  . ") SERVER plant OPTIONS (topic 'sensors', format 'json')");

# ---- the contenders: each returns seconds, and has filled in cpu and memory

sub copy
{
	my ($session, $result) = @_;
	my $begin = time;
	ask($session, "COPY reading FROM '$work/rows.csv' WITH (FORMAT csv)", sub { watch($session->{backend}, $result) });
	my $seconds = time - $begin;
	$result->{cpu} = cpu_of($session->{backend});
	return $seconds;
}

sub run_in_foreground
{
	my ($session, $result, $lane) = @_;
	create_pipeline($control, $lane);
	my $begin = time;
	ask($session, "SET client_min_messages = warning; CALL ingest.run('readings')", sub { watch($session->{backend}, $result) });
	my $seconds = time - $begin;
	$result->{cpu} = cpu_of($session->{backend});
	check_pipeline();
	return $seconds;
}

sub run_in_background
{
	my ($session, $result) = @_;
	create_pipeline($control, 'auto');
	my $pid = '';
	my $begin = time;
	ask($session, "SELECT ingest.start('readings')");
	while (1)
	{
		$pid ||= ask($control, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ingest worker'");
		watch($pid, $result) if $pid;
		my $read = ask($control, "SELECT coalesce(sum(read), 0) FROM ingest._batch");
		last if $read == $messages;
		die "the worker does not get on:\n" . ask($control, "\\x on\nTABLE ingest.pipeline_status;\n\\x off\n") if time - $begin > 300;
		# Rarely: two cores are all there may be, and the end is in the books.
		sleep 0.2;
	}
	$result->{cpu} = cpu_of($pid);
	my $seconds = ask($control, 'SELECT extract(epoch FROM max(finished_at)) FROM ingest._batch') - $begin;
	check_pipeline();
	ask($control, "SELECT ingest.stop('readings')");
	sleep 0.05 while ask($control, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ingest worker'") > 0;
	return $seconds;
}

sub run_extern
{
	my ($session, $result, $command) = @_;
	my %fill = (brokers => $kafka->brokers, topic => 'sensors', conninfo => "host=$work user=postgres dbname=postgres", target => 'reading');
	$command =~ s/\{(\w+)\}/'$fill{$1}'/g;
	ask($session, 'DROP TABLE IF EXISTS bench_offset, bench_reject, bench_raw');
	my @before = POSIX::times();
	my $begin = time;
	run_or_die("cd $work/src && $command");
	my $seconds = time - $begin;
	my @after = POSIX::times();
	$result->{cpu} = ($after[3] + $after[4] - $before[3] - $before[4]) / $tick;
	return $seconds;
}

sub watch
{
	my ($pid, $result) = @_;
	my $memory = memory_of($pid);
	$result->{memory} = $memory if $memory > ($result->{memory} // 0);
	return;
}

sub check_pipeline
{
	my $lane = ask($control, 'SELECT DISTINCT lane FROM ingest._batch');
	my $books = ask($control, 'SELECT sum(read), sum(written) FROM ingest._batch');
	die "wrong books: $books, lane $lane\n" unless $books eq "$messages|$messages";
	return;
}

my @contenders = (
	[ 'copy', \&copy ],
	[ 'run direct', \&run_in_foreground, 'direct' ],
	[ 'run statement', \&run_in_foreground, 'statement' ],
	[ 'background', \&run_in_background ],
	map { [ $_, \&run_extern, $extern{$_} ] } sort keys %extern);
if ($only)
{
	my %wanted = map { $_ => 1 } split /,/, $only;
	@contenders = grep { $wanted{ $_->[0] } || $extern{ $_->[0] } } @contenders;
}

# ---- the rows, once through the statement lane, as the file for COPY

note_progress('making the CSV file');
create_table($control);
create_pipeline($control, 'statement');
ask($control, "SET client_min_messages = warning; CALL ingest.run('readings')");
my $digest_sql = 'SELECT count(*), sum(hashtextextended(reading::text, 0)::numeric) FROM reading';
my $expected = ask($control, $digest_sql);
die "the table does not hold $messages rows: $expected\n" unless $expected =~ /^$messages\|/;
ask($control, "COPY (SELECT * FROM reading ORDER BY seq) TO '$work/rows.csv' WITH (FORMAT csv)");

# ---- rounds

my %results;
for my $round (1 .. $rounds)
{
	# Nobody is always the first.
	push @contenders, shift @contenders if $round > 1;
	foreach my $contender (@contenders)
	{
		my ($name, $code, @args) = @$contender;
		ask($control, "DO \$\$ BEGIN PERFORM ingest.drop_pipeline(name) FROM ingest.pipeline; END \$\$");
		create_table($control);
		ask($control, 'CHECKPOINT');
		sleep 1;
		my $session = open_session();
		my %result;
		my $server = cpu_of_server();
		my $broker = cpu_of($kafka->pid);
		my $lsn = ask($control, 'SELECT pg_current_wal_insert_lsn()');
		$result{seconds} = $code->($session, \%result, @args);
		$result{wal} = ask($control, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$lsn')") / $messages;
		$result{broker} = cpu_of($kafka->pid) - $broker;
		$result{server} = cpu_of_server() - $server;
		close_session($session);
		my $got = ask($control, $digest_sql);
		die "$name: other rows than expected: $got, not $expected\n" if $got ne $expected;
		push @{ $results{$name} }, \%result;
		note_progress(sprintf 'round %d: %-14s %6.2f s', $round, $name, $result{seconds});
	}
}

# ---- the table

sub median
{
	my ($name, $what) = @_;
	my @values = sort { $a <=> $b } map { $_->{$what} // 0 } @{ $results{$name} };
	return ($values[ $#values / 2 ] + $values[ @values / 2 ]) / 2;
}

my $copy = $results{copy} ? median('copy', 'seconds') : undef;
chomp(my $cpu = qx(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1));
chomp(my $cpus = qx(nproc));
my $version = ask($control, 'SHOW server_version');
print "$messages messages, $partitions partitions of the topic, 28 of the table, 3 rules; PostgreSQL $version, $cpus x $cpu.\n";
print "Medians of $rounds rounds; in brackets the range. CPU seconds per million rows.\n\n";
print "| | seconds | rows/s | of COPY | CPU | CPU of the server | CPU of the broker | memory, MB | WAL bytes a row |\n";
print "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
foreach my $name (sort { median($a, 'seconds') <=> median($b, 'seconds') } keys %results)
{
	my @seconds = sort { $a <=> $b } map { $_->{seconds} } @{ $results{$name} };
	my $seconds = median($name, 'seconds');
	printf "| %s | %.2f (%.2f-%.2f) | %d | %s | %.2f | %.2f | %.2f | %d | %d |\n", $name, $seconds, $seconds[0], $seconds[-1],
	  $messages / $seconds, $copy ? sprintf('%.2f', $copy / $seconds) : '', median($name, 'cpu') * 1e6 / $messages,
	  median($name, 'server') * 1e6 / $messages, median($name, 'broker') * 1e6 / $messages, median($name, 'memory'), median($name, 'wal');
}
close_session($control);
