# What test/torture runs: rounds of random faults against a continuous stream.
# usage: torture.pl ROUNDS SEED MINUTES; a directory of little space, in
# INGEST_SMALL_DISK, makes it fill disks, too.
use strict;
use warnings;

use Digest::MD5 'md5';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use FaultProxy;
use Havoc;
use IngestTest;
use KafkaPeer;

my ($rounds, $seed, $minutes) = @ARGV;
my $end = $minutes ? time + 60 * $minutes : undef;
my $small = $ENV{INGEST_SMALL_DISK};
my $piece = 4;	# seconds that a producer lives
my ($lost, $twice, $other, $helped) = (0, 0, 0, 0);
my @unlucky;

my $out = Test::More->builder->output;
sub say_line { print $out @_, "\n"; return }

# ---- the stage: ingest reaches the broker through a proxy, producers directly

my $kafka = KafkaPeer->new;
my $proxy = FaultProxy->before($kafka);
$kafka->start;

my $conf = <<'CONF';
wal_level = replica
max_wal_senders = 5
restart_after_crash = on
fsync = off
shared_buffers = 64MB
log_statement = none
log_min_messages = warning
max_wal_size = 2GB
wal_keep_size = 64MB
CONF
my $node = start_node('torture', conf => $conf);
$node->set_replication_conf;
$node->reload;
$node->safe_psql('postgres', "CREATE SERVER plant FOREIGN DATA WRAPPER ingest_kafka OPTIONS (
	brokers '" . $proxy->brokers . "', timeout '2 s', metadata_refresh '1 s')");
my $havoc = Havoc->new(node => $node, kafka => $kafka, rate => $ENV{INGEST_RATE} || 700, forgiving => 1);

# Everything on the small disk is a pipeline of its own.
my ($disk, $disks) = (0, 0);
if ($small)
{
	mkdir "$small/0" or die "$small: $!";
	$kafka->create_topic('disk', 2);
	$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$small/0'");
	create_sensor_pipeline($node, 'disk', 'disk', options => '{"batch_rows": 500}');
	$node->safe_psql('postgres', 'ALTER TABLE disk SET TABLESPACE small');
	$node->safe_psql('postgres', "SELECT ingest.start('disk')");
}
$havoc->create;
$node->safe_psql('postgres', "CREATE TABLE ${_}_manifest
	(partition integer, \"offset\" bigint, seq bigint, kind text, payload text);
	CREATE INDEX ON ${_}_manifest (partition, \"offset\");
	CREATE INDEX ON $_ (kafka_partition, kafka_offset)") foreach $havoc->names;

# ---- further faults

sub starts_again
{
	# What the postmaster left behind goes by itself, but not at once.
	foreach (1 .. 100)
	{
		return if $node->start(fail_ok => 1);
		$node->{_pid} = undef;	# of the one that is gone, from its file
		sleep 0.2;
	}
	die 'the server does not start';
}

# Full until the ballast goes.
sub fill_disk
{
	my $file = "$havoc->{dir}/disk.$disks";
	my $ballast = "$small/ballast";
	open my $handle, '>', $ballast or die $!;
	my $zeros = "\0" x 8192;
	1 while (syswrite($handle, $zeros) // 0) == 8192;
	1 while (syswrite($handle, "\0" x 64) // 0) == 64;
	close $handle;
	my $count = 1500 + int rand 1000;
	$kafka->produce('disk', count => $count, first => $disk, seed => 3, manifest => $file);
	push @{ $havoc->{manifests}{disk} }, $file;
	$disk += $count;
	$disks++;
	my $full = 0;
	foreach (1 .. 30)
	{
		$full = $havoc->ask("SELECT last_error LIKE '%No space left%' FROM ingest.pipeline_status WHERE name = 'disk'");
		last if ($full // '') eq 't';
		sleep 0.1;
	}
	unlink $ballast;
	return ($full // '') eq 't' ? undef : 'without effect';
}

# A synchronous standby takes over, amid the stream, from a server that is killed.
my $standbys = 0;
sub fail_over
{
	my $standby = PostgreSQL::Test::Cluster->new('standby' . ++$standbys);
	mkdir $standby->basedir;
	my @mapping = $small ? ('-T', sprintf '%s/%d=%s/%d', $small, $standbys - 1, $small, $standbys) : ();
	$havoc->wait_for_server;
	system_or_bail('pg_basebackup', '-D', $standby->data_dir, '-h', $node->host, '-p', $node->port,
		'-X', 'stream', '-c', 'fast', '-R', @mapping);
	$standby->append_conf('postgresql.conf', 'port = ' . $standby->port);
	$standby->append_conf('postgresql.conf', "unix_socket_directories = '" . $standby->host . "'");
	$standby->start;
	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = '*'");
	$node->reload;
	foreach (1 .. 200)
	{
		last if ($havoc->ask('SELECT max(sync_state) FROM pg_stat_replication') // '') eq 'sync';
		sleep 0.05;
	}
	# Whatever is committed from here on is on both.
	my $before = $havoc->batches;
	$havoc->progress($before, 10);
	sleep rand 0.5;
	$node->stop('immediate');
	$standby->safe_psql('postgres', 'SELECT pg_promote()');
	$standby->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
	$standby->reload;
	$node->clean_node;
	system('rm', '-rf', sprintf '%s/%d', $small, $standbys - 1) if $small;
	$node = $havoc->{node} = $standby;
	return;
}

sub misbehave
{
	my ($order, $seconds) = @_;
	$proxy->tell($order);
	sleep $seconds;
	$proxy->tell('pass');
	return;
}

my %more = (
	'kill -9 of any process of the server' => sub {
		my @all = split /\n/, $havoc->ask('SELECT backend_type, pid FROM pg_stat_activity
			WHERE pid <> pg_backend_pid() AND application_name NOT LIKE \'ingest: disk%\' ORDER BY backend_type, pid') // '';
		my ($type, $pid) = split /\|/, $all[ rand @all ] // '|';
		kill 'KILL', $pid if $pid;
		sleep 0.2;
		$havoc->wait_for_server;
		return $type;
	},
	'kill -9 of the postmaster' => sub { $node->kill9; sleep rand 0.5; starts_again(); return },
	'the broker stopped for a while' => sub { $kafka->freeze; sleep rand 2; $kafka->thaw; return },
	'the network cut' => sub { misbehave('drop', rand 1.5); return },
	'the network silent' => sub { misbehave('hang', rand 3); return },
	'the network slow' => sub { misbehave('delay ' . int(20 + rand 300), 0.5 + rand 1.5); return },
	'answers cut off' => sub { misbehave('truncate ' . int(rand 20000), 0.1 + rand 0.3) foreach 1 .. 4; return },
	'the network cut, a worker killed' => sub {
		$proxy->tell('drop');
		$havoc->kill_worker;
		sleep rand 0.5;
		$proxy->tell('pass');
		$havoc->wait_for_server;
		return;
	},
	'the disk full' => \&fill_disk,
	'failover to a standby' => \&fail_over);
delete $more{'the disk full'} unless $small;
my @deck = (
	($havoc->actions, sort keys %more),
	# Cheap ones come more often.
	('kill -9 of a worker') x 6, ('a worker terminated') x 2, ('kill -9 of the postmaster') x 3,
	('kill -9 of any process of the server') x 4, ('immediate restart of the server') x 3,
	('the network cut') x 3, ('the network slow') x 2, ('answers cut off') x 3,
	('the network cut, a worker killed') x 2, $small ? ('the disk full') x 2 : ());

# ---- the oracle: what was produced, against what is there, as far as both go

my %checked = map { $_ => {} } $havoc->names;

sub count_problems
{
	my ($name, $problems) = @_;
	foreach (split /\n/, $problems)
	{
		my ($what, $count, $example) = split /\|/;
		say_line("# $name: $count $what, for instance $example");
		if ($what eq 'lost') { $lost += $count }
		elsif ($what eq 'more than once') { $twice += $count }
		else { $other += $count }
	}
	return;
}

# Up to the positions, or the end of the last piece that was produced.
sub check_so_far
{
	my ($name) = @_;
	my %window;
	my $reach = $havoc->ask("SELECT shard, least(position::bigint, coalesce(
			(SELECT max(\"offset\") + 1 FROM ${name}_manifest WHERE partition = shard::integer), 0))
		FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id WHERE l.name = '$name'") // return;
	foreach (split /\n/, $reach)
	{
		my ($partition, $high) = split /\|/;
		my $low = $checked{$name}{$partition} // 0;
		$window{$partition} = [ $low, $high ] if ($high // '') ne '' && $high > $low;
	}
	return unless %window;
	count_problems($name, find_problems($node, $name, "${name}_manifest", \%window));
	$checked{$name}{$_} = $window{$_}[1] foreach keys %window;
	return;
}

# A pipeline that three crashes in a row have stopped is for an operator; others must not stop.
sub look_after
{
	my $states = $havoc->ask("SELECT name, state, last_error FROM ingest.pipeline_status
		WHERE state IN ('failed', 'broken', 'gap', 'paused', 'stopped')") // return;
	foreach (split /\n/, $states)
	{
		my ($name, $state, $error) = split /\|/, $_, 3;
		say_line("# $name is $state: " . ($error // ''));
		$havoc->ask("SELECT ingest.start('$name')");
		$helped++;
	}
	return;
}

# ---- the rounds

sub keep_feeding
{
	foreach my $name ($havoc->names)
	{
		next unless $havoc->fed($name);
		$havoc->feed($name, $piece);
	}
	return;
}

my $done = 0;
my $before = {};
my $began = time;
my %times;
for my $round (1 .. $rounds)
{
	last if $end && time > $end;
	my $number = $seed + $round - 1;
	# Neighbouring seeds have neighbouring first numbers.
	srand unpack 'L', md5($number);
	my $action = $deck[ rand @deck ];
	my $pause = rand 0.4;

	keep_feeding();
	if (!$havoc->progress($before, 15))
	{
		keep_feeding();
		look_after();
		next_or_die($round, $number) unless $havoc->progress($before, 90);
	}
	$before = $havoc->batches;
	sleep $pause;
	my $note = $more{$action} ? $more{$action}->() : $havoc->happen($action);
	$havoc->wait_for_server;
	look_after();
	keep_feeding();
	$havoc->store_manifests($small ? 'disk' : ());
	check_so_far($_) foreach $havoc->names;
	$times{$action}++;
	$done++;
	say_line(sprintf 'round %d seed %d: %s%s  (%.0f s)', $round, $number, $action,
		$note && $note !~ /^\d*$/ ? ": $note" : '', time - $began);
	if ($lost || $twice || $other)
	{
		say_line('# stopped here; the directories are kept');
		last;
	}
}

sub next_or_die
{
	my ($round, $number) = @_;
	say_line("# round $round seed $number: no progress");
	say_line($havoc->ask('SELECT name, state, last_error FROM ingest.pipeline_status') // '# the server does not answer');
	$other++;
	no warnings 'exiting';
	last;
}

# ---- the end: everything, from the start

$havoc->finish_producers;
$havoc->wait_for_server;
my @all = ($havoc->names, $small ? 'disk' : ());
foreach my $name (@all)
{
	next if $havoc->drained($name, 120);
	say_line("# $name: not everything was read");
	$other++;
}
$havoc->store_manifests($small ? 'disk' : ());
my $messages = 0;
foreach my $name (@all)
{
	load_manifest($node, "${name}_manifest");
	($lost, $twice) = (0, 0) if $name eq $all[0];	# all is counted anew
	count_problems($name, find_problems($node, $name, "${name}_manifest"));
	$messages += value($node, "SELECT count(*) FROM ${name}_manifest");
	# The history of a long run is trimmed, the sums stay.
	my $books = value($node, "SELECT (SELECT bool_and(read = written + rejected + dropped + merged + skipped)
		FROM ingest.batch_history WHERE pipeline = '$name'), written = (SELECT count(*) FROM $name)
		FROM ingest.pipeline_status WHERE name = '$name'");
	say_line("# $name: the books do not add up: $books"), $other++ if $books ne 't|t';
}
my $gaps = value($node, 'SELECT count(*) FROM ingest.gap');
say_line("# $gaps gaps"), $other++ if $gaps;
say_line(sprintf '# %-36s %d', $_, $times{$_}) foreach sort keys %times;
say_line("# $havoc->{given_up} producers gave up") if $havoc->{given_up};
say_line("# $helped times a pipeline had to be started by hand") if $helped;
$node->stop('fast');
say_line("$done rounds, $messages messages: $lost lost, $twice twice" . ($other ? ", $other other problems" : ''));
$ENV{PG_TEST_NOCLEAN} = 1 if $lost || $twice || $other;
exit($lost || $twice || $other ? 1 : 0);
