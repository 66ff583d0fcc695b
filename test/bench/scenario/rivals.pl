# The same topic, read again by each contender in each round into a fresh table,
# which must hold the same rows afterwards.
use strict;
use warnings;

use Time::HiRes qw(sleep time);

use Bench;

my ($messages, $rounds) = @stage{qw(messages rounds)};
my $here = "$stage{work}/src/test/bench/contenders";

# A contender: [ name, what it guarantees, code, arguments of the code ].  The
# code returns seconds and notes in %$result: mover (CPU seconds outside the
# server), memory (MB, the most at a time).

sub copy
{
	my ($result) = @_;
	my $session = open_session();
	my $begin = time;
	ask($session, "COPY reading FROM '$stage{work}/rows.csv' WITH (FORMAT csv)",
		sub { watch(memory_of($session->{backend}), $result) });
	my $seconds = time - $begin;
	close_session($session);
	return $seconds;
}

sub check_books
{
	my $books = ask($stage{control}, 'SELECT read, written FROM ingest.pipeline_status');
	die "wrong books: $books\n" unless $books eq "$messages|$messages";
	return;
}

sub run_in_foreground
{
	my ($result, $lane) = @_;
	create_pipeline('sensors', qq({"lane": "$lane"}));
	my $session = open_session();
	my $begin = time;
	ask($session, "CALL ingest.run('readings')", sub { watch(memory_of($session->{backend}), $result) });
	my $seconds = time - $begin;
	close_session($session);
	check_books();
	return $seconds;
}

# Until the last batch is committed, by the books.
sub run_in_background
{
	my ($result) = @_;
	my $pid = '';
	create_pipeline('sensors');
	my $begin = time;
	ask($stage{control}, "SELECT ingest.start('readings')");
	wait_until(300, 'the worker', sub {
		$pid ||= worker_pid();
		watch(memory_of($pid), $result) if $pid;
		return ask($stage{control}, 'SELECT read FROM ingest.pipeline_status') == $messages;
	});
	my $seconds = ask($stage{control}, 'SELECT extract(epoch FROM last_batch_at) FROM ingest.pipeline_status') - $begin;
	check_books();
	drop_pipelines();
	return $seconds;
}

# Its own figures count, where it gives them: "seconds S", "cpu C".
sub run_extern
{
	my ($result, $command) = @_;
	my %fill = (
		brokers => $stage{kafka}->brokers, topic => 'sensors', target => 'reading', messages => $messages,
		conninfo => "host=$stage{work} port=$stage{port} user=postgres dbname=postgres",
		tcp => "host=127.0.0.1 port=$stage{port} user=postgres dbname=postgres");
	$command =~ s/\{(\w+)\}/'$fill{$1}'/g;
	ask($stage{control}, 'DROP TABLE IF EXISTS bench_offset, bench_reject, bench_raw');
	my $begin = time;
	run_command($command, $result);
	my $seconds = time - $begin;
	open my $out, '<', "$stage{work}/contender.out" or die $!;
	while (<$out>)
	{
		$seconds = $1 if /^seconds ([\d.]+)$/;
		$result->{mover} = $1 if /^cpu ([\d.]+)$/;
	}
	return $seconds;
}

my %extern = %{ $stage{contenders} };
my @contenders = (
	[ 'copy', 'a file, all or nothing', \&copy ],
	[ 'direct', 'exactly once', \&run_in_foreground, 'direct' ],
	[ 'statement', 'exactly once', \&run_in_foreground, 'statement' ],
	[ 'background', 'exactly once', \&run_in_background ],
	[ 'kcat', 'none', \&run_extern, "$here/kcat.sh {brokers} {topic} {conninfo} {target}" ],
	[ 'python', 'exactly once', \&run_extern, "python3 $here/consumer.py {brokers} {topic} {conninfo} {target}" ],
	[ 'python2', 'exactly once', \&run_extern, "python3 $here/consumer.py {brokers} {topic} {conninfo} {target} 20000 2" ],
	[ 'connect', 'at least once, no rules', \&run_extern, "$here/connect.sh {brokers} {topic} {tcp} {target} {messages} 20000 4" ],
	[ 'unnest', 'at least once, no rules, no milliseconds', \&run_extern, "$here/connect.sh {brokers} {topic} {tcp} {target} {messages} 20000 4 true" ],
	map { [ $_, '', \&run_extern, $extern{$_} ] } sort keys %extern);
if ($stage{only})
{
	my %wanted = map { $_ => 1 } split /,/, $stage{only};
	@contenders = grep { $wanted{ $_->[0] } || $extern{ $_->[0] } } @contenders;
}

my %title = (
	copy => '`COPY` from a CSV file on the server', direct => '**ingest**, `CALL ingest.run`',
	statement => '**ingest**, statement lane', background => '**ingest**, background worker',
	kcat => '`kcat` into `\\copy`, then `INSERT … SELECT`', python => 'Python consumer, `COPY`',
	python2 => 'Python consumer, two processes',
	connect => 'Kafka Connect, Debezium JDBC sink', unnest => 'Kafka Connect, Debezium JDBC sink, `UNNEST`');

# ---- the rows, once through the statement lane, as the file for COPY

create_topic('sensors', 4);
fill_topic('sensors', $messages);
create_source('sensors');
note_progress('making the CSV file');
create_table();
create_pipeline('sensors', '{"lane": "statement"}');
ask($stage{control}, "CALL ingest.run('readings')");
my $digest_sql = 'SELECT count(*), sum(hashtextextended(reading::text, 0)::numeric) FROM reading';
my $expected = ask($stage{control}, $digest_sql);
die "the table does not hold $messages rows: $expected\n" unless $expected =~ /^$messages\|/;
ask($stage{control}, "COPY (SELECT * FROM reading ORDER BY seq) TO '$stage{work}/rows.csv' WITH (FORMAT csv)");

# ---- rounds

my %results;

sub take_turn
{
	my ($name, $code, @args) = @_;
	my %result;
	drop_pipelines();
	create_table();
	sleep 1;
	my $server = cpu_of_server();
	my $broker = cpu_of($stage{kafka}->pid);
	my $lsn = ask($stage{control}, 'SELECT pg_current_wal_insert_lsn()');
	$result{seconds} = $code->(\%result, @args);
	$result{wal} = ask($stage{control}, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$lsn')") / $messages;
	$result{broker} = cpu_of($stage{kafka}->pid) - $broker;
	$result{server} = cpu_of_server() - $server;
	my $got = ask($stage{control}, $digest_sql);
	my $wanted = $expected;
	# The one that cannot write the same rows.
	s/\|.*// foreach $name eq 'unnest' ? ($got, $wanted) : ();
	die "$name: other rows than expected: $got, not $wanted\n" if $got ne $wanted;
	$result{all} = $result{server} + $result{broker} + ($result{mover} // 0);
	return \%result;
}

for my $round (1 .. $rounds)
{
	# Nobody is always the first.
	push @contenders, shift @contenders if $round > 1;
	foreach my $contender (@contenders)
	{
		my ($name, undef, @code) = @$contender;
		my $result = take_turn($name, @code);
		push @{ $results{$name} }, $result;
		note_progress(sprintf 'round %d: %-10s %7.2f s', $round, $name, $result->{seconds});
	}
}

# ---- the table

sub values_of
{
	my ($name, $what, $factor) = @_;
	return map { ($_->{$what} // 0) * ($factor // 1) } @{ $results{$name} };
}

my $per_million = 1e6 / $messages;
my $copy = $results{copy} ? median(values_of('copy', 'seconds')) : undef;
my %speed = map { $_ => $messages / median(values_of($_, 'seconds')) } keys %results;
my %guarantee = map { @$_[ 0, 1 ] } @contenders;
my @order = sort { $speed{$b} <=> $speed{$a} } keys %results;
my @rows;
foreach my $name (@order)
{
	my @cpu = map { sprintf '%.2f', median(values_of($name, $_, $per_million)) } qw(all mover server broker);
	push @rows, [
		$title{$name} // $name, range_of('%.2f', values_of($name, 'seconds')), sprintf('%d', $speed{$name}),
		$copy ? sprintf('%.2f', $copy * $speed{$name} / $messages) : '', @cpu,
		sprintf('%d', median(values_of($name, 'memory'))), sprintf('%d', median(values_of($name, 'wal'))), $guarantee{$name} ];
}
chomp(my $cpu = qx(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1));
chomp(my $cpus = qx(nproc));
my $version = ask($stage{control}, 'SHOW server_version');
save('rivals', "$messages messages of about 210 bytes in 4 partitions, 28 daily partitions of the table, 3 rules. "
	  . "PostgreSQL $version, Apache Kafka 4.1.1, $cpus × $cpu, all on one machine. "
	  . "Medians of $rounds rounds, range in brackets; CPU in seconds per million rows.\n\n"
	  . table([ '', 'seconds', 'rows/s', 'of COPY', 'CPU', 'mover', 'server', 'broker', 'memory, MB', 'WAL bytes a row', 'guarantee' ], @rows));
if ($stage{save})
{
	my %plain = map { $_ => ($title{$_} // $_) =~ s/[`*\\]//gr } @order;
	chart("$stage{save}/benchmark.svg", 'Thousands of rows a second, from a Kafka topic into a partitioned table',
		map { [ $plain{$_}, $speed{$_} / 1000 ] } @order);
}
drop_pipelines();
1;
