# A continuous stream from a real Kafka into a server, and what can happen to
# either; shared by test/t/020_exactly_once.pl and test/torture.
#
# The stream: one pipeline by one worker in the direct lane, and one by two in
# the other, whose producer works in transactions and aborts some.
package Havoc;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

use IngestTest;

my %options = (
	plain => '{"batch_rows": 700, "lane": "direct"}',
	booked => '{"batch_rows": 900, "lane": "statement", "workers": 2}');
my @names = sort keys %options;

# node and kafka, which may be exchanged later; forgiving: a producer may give up.
sub new
{
	my ($class, %args) = @_;
	return bless {
		node => $args{node}, kafka => $args{kafka}, dir => PostgreSQL::Test::Utils::tempdir,
		rate => $args{rate} // 6000, forgiving => $args{forgiving}, given_up => 0, first => { map { $_ => 0 } @names }, pieces => 0,
		manifests => {}, producers => {}, checked => {}
	}, $class;
}

sub names { return @names }
sub produced { return $_[0]{first}{ $_[1] } }

sub create
{
	my ($self) = @_;
	foreach my $name (@names)
	{
		$self->{kafka}->create_topic($name, 4);
		create_sensor_pipeline($self->{node}, $name, $name, options => $options{$name});
	}
	$self->{node}->safe_psql('postgres', "SELECT ingest.start('$_')") foreach @names;
	return;
}

# ---- producing: in pieces, one after the other, so that a piece that is over
# says all about the offsets up to its end

sub feed
{
	my ($self, $name, $seconds) = @_;
	my $count = int($self->{rate} * $seconds);
	my $file = "$self->{dir}/$name." . $self->{pieces}++;
	my %more = $name eq 'booked' ? (transaction => 400, abort => 4) : ();
	$self->{producers}{$name} = [ $file, $self->{kafka}->produce_start($name, count => $count,
		first => $self->{first}{$name}, seed => 11, bad => 10, tombstones => 2, keys => 100,
		rate => $self->{rate}, manifest => $file, %more) ];
	$self->{first}{$name} += $count;
	return;
}

# Is its producer done, or gives it time to be?
sub fed
{
	my ($self, $name, $wait) = @_;
	my $producer = $self->{producers}{$name} or return 1;
	return 0 if !$wait && $producer->[1]->pumpable;
	if (!IPC::Run::finish($producer->[1]))
	{
		# A library's producer may give up when its broker dies.  What it was told
		# was delivered is in its list, and nothing else is in the topic.
		die 'a producer failed: ' . slurp_file("$self->{kafka}{dir}/produce.log") unless $self->{forgiving};
		$self->{given_up}++;
	}
	push @{ $self->{manifests}{$name} }, $producer->[0];
	delete $self->{producers}{$name};
	return 1;
}

sub finish_producers { my ($self) = @_; $self->fed($_, 1) foreach @names; return }

# What was produced by now goes into the table NAME_manifest.
sub store_manifests
{
	my ($self, @others) = @_;
	foreach my $name (@names, @others)
	{
		my $files = $self->{manifests}{$name} // [];
		load_manifest($self->{node}, "${name}_manifest", @$files) if @$files;
		unlink @$files;
		$self->{manifests}{$name} = [];
	}
	return;
}

# ---- asking a server that may be away

sub ask
{
	my ($self, $sql) = @_;
	my $timed_out = 0;
	# psql may end before it has read the statement.
	my ($rc, $out) = eval { $self->{node}->psql('postgres', $sql, timeout => 20, timed_out => \$timed_out) };
	return !$timed_out && defined $rc && $rc == 0 ? $out : undef;
}

# The postmaster answers again after a crash of one of its processes.
sub wait_for_server
{
	my ($self) = @_;
	foreach (1 .. 600)
	{
		return if defined $self->ask('SELECT 1');
		sleep 0.1;
	}
	die 'the server did not come back';
}

# The last batch with messages of each pipeline, or nothing.
sub batches
{
	my ($self) = @_;
	my $out = $self->ask("SELECT p.name, coalesce((SELECT max(id) FROM ingest.batch_history
		WHERE pipeline = p.name AND messages > 0), 0) FROM ingest.pipeline_status p ORDER BY 1");
	return { map { split /\|/ } split /\n/, $out // '' };
}

# Wait until each pipeline has committed a batch: so a kill meets work, and is
# not one more crash of a worker that has done nothing.
sub progress
{
	my ($self, $before, $seconds) = @_;
	my $deadline = time + $seconds;
	while (1)
	{
		my $now = $self->batches;
		return 1 if %$now && !grep { ($now->{$_} // 0) <= ($before->{$_} // 0) } @names;
		return 0 if time > $deadline;
		sleep 0.05;
	}
	return;
}

# ---- what can happen

# Of a stream that goes on: three crashes in a row without a batch would stop a pipeline.
sub kill_worker
{
	my ($self) = @_;
	my $names = join '|', @names;
	my $pid = $self->ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'ingest worker'
		AND application_name ~ '^ingest: ($names)\\[' ORDER BY random() LIMIT 1");
	kill 'KILL', $pid if $pid;
	return;
}

sub restart_broker_after
{
	my ($self, $seconds) = @_;
	$self->{kafka}->kill9;
	sleep $seconds;
	$self->{kafka}->start;
	return;
}

# Random numbers are drawn at the time of the call.
my %actions = (
	'kill -9 of a worker' => sub {
		my ($self) = @_;
		$self->kill_worker;
		sleep 0.2;
		$self->wait_for_server;
	},
	'a worker terminated' => sub {
		my ($self) = @_;
		$self->ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'ingest worker' ORDER BY random() LIMIT 1");
	},
	'immediate restart of the server' => sub { my ($self) = @_; $self->{node}->stop('immediate'); $self->{node}->start },
	'fast restart of the server' => sub { my ($self) = @_; $self->{node}->restart },
	'kill -9 of the broker' => sub { my ($self) = @_; $self->restart_broker_after(rand 1) },
	'restart of the broker' => sub { my ($self) = @_; $self->{kafka}->restart },
	'broker and worker killed' => sub {
		my ($self) = @_;
		$self->kill_worker;
		$self->restart_broker_after(rand 1);
		$self->wait_for_server;
	},
	'stop and start of the pipelines' => sub {
		my ($self) = @_;
		$self->ask("SELECT ingest.stop('$_')") foreach @names;
		sleep rand 0.5;
		$self->ask("SELECT ingest.start('$_')") foreach @names;
	});

sub actions { return sort keys %actions }

sub happen
{
	my ($self, $action) = @_;
	$actions{$action}->($self);
	return;
}

# ---- the end

# Until all is read that the topics hold; the positions are their ends.
sub drained
{
	my ($self, $name, $seconds) = @_;
	my $ends = $self->{kafka}->ends($name);
	my $expected = join ' ', map { "$_:$ends->{$_}[1]" } sort { $a <=> $b } keys %$ends;
	my $deadline = time + $seconds;
	my $now = '';
	while (time < $deadline)
	{
		$now = $self->ask("SELECT string_agg(shard || ':' || position, ' ' ORDER BY shard::integer)
			FROM ingest._position p JOIN ingest._pipeline l ON l.id = p.pipeline_id
			WHERE l.name = '$name'") // '';
		return 1 if $now eq $expected;
		sleep 0.1;
	}
	print "# $name: expected $expected, is at $now\n";
	return 0;
}

1;
