# The stage of the bench: a throw-away PostgreSQL and a real Kafka, sessions,
# what processes have used, and the report.  The scenarios are in scenario/.
package Bench;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IPC::Open2;
use List::Util qw(min);
use POSIX ();
use Time::HiRes qw(sleep time);

use KafkaPeer;

our @EXPORT = qw(%stage start_stage note_progress run_or_die open_session ask close_session
  cpu_of cpu_of_server cpu_of_session memory_of memory_of_session worker_pid wait_until watch run_command
  create_topic create_source create_table create_pipeline drop_pipelines fill_topic
  median range_of table chart save);

my $tick = POSIX::sysconf(POSIX::_SC_CLK_TCK());

# work, port, postmaster, kafka, control (a session), settings
our %stage;

$SIG{INT} = $SIG{TERM} = sub { exit 1 };
END
{
	my $status = $?;
	system("'$stage{bindir}/pg_ctl' -D $stage{work}/data -m immediate stop > /dev/null 2>&1") if $stage{postmaster};
	$? = $status;
}

sub note_progress { printf STDERR "# %s\n", shift; return }

sub run_or_die
{
	my ($command) = @_;
	system("$command >> $stage{work}/bench.log 2>&1") == 0
	  or die "failed: $command\n" . qx(tail -n 20 $stage{work}/bench.log);
	return;
}

# ---- a psql to talk to

sub open_session
{
	my $pid = open2(my $out, my $in, "$stage{bindir}/psql", qw(-XqAt -v ON_ERROR_STOP=1 -h), $stage{work},
		'-p', $stage{port}, qw(-U postgres postgres));
	my $self = { psql => $pid, in => $in, out => $out, select => IO::Select->new($out), buffer => '' };
	ask($self, 'SET client_min_messages = warning');
	$self->{backend} = ask($self, 'SELECT pg_backend_pid()');
	return $self;
}

# Send statements and wait for their answer; meanwhile() is called ten times a second.
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

sub wait_until
{
	my ($seconds, $what, $code) = @_;
	my $deadline = time + $seconds;
	until ($code->())
	{
		die "$what: not within $seconds s\n" . ask($stage{control}, '\x on') . ask($stage{control}, 'TABLE ingest.pipeline_status')
		  if time > $deadline;
		# Rarely: two cores are all there may be.
		sleep 0.2;
	}
	return;
}

# ---- what a process has used

# Of a line of /proc/PID/stat: (state, parent, ...), behind the name.
sub _stat
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return;
	return split / /, (split /\) /, <$file> // '', 2)[1] // '';
}

sub _pids
{
	opendir my $proc, '/proc' or die $!;
	return grep { /^\d+$/ } readdir $proc;
}

sub cpu_of
{
	my @stat = _stat($_[0]) or return 0;
	return ($stat[11] + $stat[12]) / $tick;
}

# Of all processes of the server, ended ones included as far as the postmaster has reaped them.
sub cpu_of_server
{
	my $sum = 0;
	foreach my $pid (_pids())
	{
		my @stat = _stat($pid) or next;
		next unless $pid == $stage{postmaster} || $stat[1] == $stage{postmaster};
		$sum += $stat[11] + $stat[12];
		$sum += $stat[13] + $stat[14] if $pid == $stage{postmaster};
	}
	return $sum / $tick;
}

# Of its own, in MB: without the shared memory it has touched.
sub memory_of
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/status" or return 0;
	my %kb = map { /^(RssAnon|RssFile):\s+(\d+)/ ? ($1, $2) : () } <$file>;
	return (($kb{RssAnon} // 0) + ($kb{RssFile} // 0)) / 1024;
}

# Of all processes of a session.
sub memory_of_session
{
	my ($sid) = @_;
	my $sum = 0;
	foreach my $pid (_pids())
	{
		my @stat = _stat($pid) or next;
		$sum += memory_of($pid) if $stat[3] == $sid;
	}
	return $sum;
}

sub worker_pid
{
	return ask($stage{control}, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ingest worker' ORDER BY pid LIMIT 1");
}

# ---- contenders

# Note the most memory, in MB, that was seen.
sub watch
{
	my ($memory, $result) = @_;
	$result->{memory} = $memory if $memory > ($result->{memory} // 0);
	return;
}

# In a session of its own; its children's CPU seconds are known when all have ended.
sub run_command
{
	my ($command, $result) = @_;
	my @before = POSIX::times();
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		POSIX::setsid();
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$stage{work}/contender.out";
		open STDERR, '>>', "$stage{work}/bench.log";
		exec 'bash', '-c', $command or POSIX::_exit(127);
	}
	while (waitpid($pid, POSIX::WNOHANG) == 0)
	{
		watch(memory_of_session($pid), $result);
		sleep 0.2;
	}
	die "failed: $command\n" . qx(tail -n 20 $stage{work}/bench.log) if $?;
	my @after = POSIX::times();
	$result->{mover} = ($after[3] + $after[4] - $before[3] - $before[4]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
	return;
}

# ---- the stage

# A virtual machine is given its memory when it is first touched, which takes
# longer than all we measure: touch first what the contenders will.
sub _touch_memory
{
	open my $file, '<', '/proc/meminfo' or return;
	my ($kb) = map { /^MemAvailable:\s+(\d+)/ } <$file>;
	note_progress('touching memory');
	system $^X, '-e', 'vec(my $memory, shift, 8) = 1', 1024 * int min(0.8 * $kb, 16 * 1024 * 1024);
	return;
}

my %settings = (
	shared_preload_libraries => 'ingest', shared_buffers => '1GB', max_wal_size => '16GB', checkpoint_timeout => '1h',
	autovacuum => 'off', timezone => 'UTC', track_commit_timestamp => 'on');

sub _start_server
{
	run_or_die("'$stage{bindir}/initdb' -D $stage{work}/data -A trust -U postgres -E UTF8 --locale=C.UTF-8");
	$stage{port} = KafkaPeer::free_port();
	open my $conf, '>>', "$stage{work}/data/postgresql.conf" or die $!;
	print $conf "listen_addresses = '127.0.0.1'\nport = $stage{port}\nunix_socket_directories = '$stage{work}'\n";
	print $conf "$_ = '$settings{$_}'\n" foreach sort keys %settings;
	close $conf;
	run_or_die("'$stage{bindir}/pg_ctl' -D $stage{work}/data -l $stage{work}/server.log -w start");
	open my $file, '<', "$stage{work}/data/postmaster.pid" or die $!;
	chomp($stage{postmaster} = <$file>);
	return;
}

sub start_stage
{
	my ($work) = @_;
	$stage{work} = $work;
	chomp($stage{bindir} = qx("\$PG_CONFIG" --bindir));
	_touch_memory();
	note_progress('starting PostgreSQL and Kafka');
	_start_server();
	mkdir "$work/kafka";
	$stage{kafka} = KafkaPeer->new(dir => "$work/kafka")->start;
	$stage{control} = open_session();
	ask($stage{control}, 'CREATE EXTENSION ingest');
	ask($stage{control}, "CREATE SERVER plant FOREIGN DATA WRAPPER ingest_kafka OPTIONS (brokers '" . $stage{kafka}->brokers . "')");
	return;
}

# ---- the sensors' topic, table and pipeline

my $columns = 'sensor_id text, temperature float8, humidity float8, pressure float8, event_time timestamptz%s,
	seq bigint, status text, site text';

sub create_topic
{
	my ($topic, $partitions) = @_;
	$stage{kafka}->create_topic($topic, $partitions, 'segment.bytes' => 268435456);
	return;
}

sub fill_topic
{
	my ($topic, $messages, %args) = @_;
	note_progress("producing $messages messages into $topic");
	$stage{kafka}->produce($topic, count => $messages, seed => 7, 'time-key' => 'event_time',
		set => [ 'linger.ms=50', 'batch.size=1000000' ], %args);
	return;
}

sub create_source
{
	my ($topic) = @_;
	ask($stage{control}, "CREATE FOREIGN TABLE $topic (" . sprintf($columns, '')
		  . ", produced timestamptz OPTIONS (metadata 'timestamp')) SERVER plant OPTIONS (topic '$topic', format 'json')");
	return;
}

# Table reading, of 28 daily partitions; more: further columns.
sub create_table
{
	my ($more) = @_;
	ask($stage{control}, 'DROP TABLE IF EXISTS reading; CREATE TABLE reading (' . sprintf($columns, ' NOT NULL')
		  . ($more // '') . ') PARTITION BY RANGE (event_time)');
	ask($stage{control}, q(DO $$ BEGIN
		FOR i IN 0 .. 27 LOOP
			EXECUTE format('CREATE TABLE reading_%s PARTITION OF reading FOR VALUES FROM (%L) TO (%L)',
				i, timestamptz '2026-01-01 00:00+00' + i * interval '1 day', timestamptz '2026-01-02 00:00+00' + i * interval '1 day');
		END LOOP;
	END $$));
	ask($stage{control}, 'CHECKPOINT');
	return;
}

sub create_pipeline
{
	my ($topic, $options) = @_;
	$options //= '{}';
	ask($stage{control}, qq(SELECT ingest.create_pipeline('readings', '$topic', 'reading', options => '$options');
		SELECT ingest.add_rule('readings', 'above_zero', 'temperature >= 0');
		SELECT ingest.add_rule('readings', 'humidity_range', 'humidity BETWEEN 0 AND 100');
		SELECT ingest.add_rule('readings', 'has_sensor', \$\$ sensor_id <> '' \$\$)));
	return;
}

sub drop_pipelines
{
	ask($stage{control}, 'SELECT ingest.stop(name) FROM ingest.pipeline');
	wait_until(30, 'workers end', sub { worker_pid() eq '' });
	ask($stage{control}, 'SELECT ingest.drop_pipeline(name) FROM ingest.pipeline');
	return;
}

# ---- the report

sub median
{
	my @values = sort { $a <=> $b } @_;
	return ($values[ $#values / 2 ] + $values[ @values / 2 ]) / 2;
}

sub range_of
{
	my ($format, @values) = @_;
	@values = sort { $a <=> $b } @values;
	return sprintf "$format ($format-$format)", median(@values), $values[0], $values[-1];
}

# Markdown: a headline and rows; all columns but the first are numbers.
sub table
{
	my ($head, @rows) = @_;
	return join '', map { '| ' . join(' | ', @$_) . " |\n" } $head, [ '---', ('--:') x $#$head ], @rows;
}

# Horizontal bars, as SVG, by gnuplot.  Bars: [ name, value ], the first at the top.
sub chart
{
	my ($file, $title, @bars) = @_;
	my $data = join '', map { sprintf "%d \"%s\" %g\n", -$_, @{ $bars[$_] } } 0 .. $#bars;
	my $height = 60 + 28 * @bars;
	my $low = -@bars + 0.4;
	open my $plot, '|-', 'gnuplot' or die "gnuplot: $!";
	print $plot <<"PLOT";
set terminal svg size 760,$height font 'sans-serif,12' background '#ffffff'
set output '$file'
set title '$title' noenhanced
set style fill solid 0.85 noborder
set xrange [0:*]
set yrange [$low:0.6]
set grid xtics lc rgb '#dddddd'
set rmargin 4
unset key
set border 1
set xtics nomirror
set ytics nomirror scale 0 noenhanced
\$bars <<EOD
${data}EOD
plot \$bars using (\$3/2):1:(\$3/2):(0.35):ytic(2) with boxxyerror lc rgb '#336791'
PLOT
	close $plot or die 'gnuplot failed';
	return;
}

# Print it; with --save DIR also into DIR/benchmark.md between the marks of its name.
sub save
{
	my ($name, $text) = @_;
	print "$text\n";
	return unless $stage{save};
	my $path = "$stage{save}/benchmark.md";
	open my $in, '<', $path or die "$path: $!";
	my $page = do { local $/; <$in> };
	$page =~ s/(<!-- bench: $name -->\n).*?(<!-- end -->)/$1\n$text\n$2/s or die "$path has no place for $name\n";
	open my $out, '>', $path or die "$path: $!";
	print $out $page;
	close $out or die $!;
	return;
}

1;
