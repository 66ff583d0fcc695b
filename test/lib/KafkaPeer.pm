# A real Apache Kafka for tests: one node in KRaft mode, on loopback, ended with
# the test.
#
#   my $kafka = KafkaPeer->new->start;
#   $kafka->create_topic('t', 4);
#   $kafka->produce('t', count => 1000, seed => 7);
#   $kafka->send('t', [ 0, 'key', undef, '{"a": 1}', 'header=value' ]);
package KafkaPeer;

use strict;
use warnings;

use File::Path qw(remove_tree);
use IO::Socket::INET;
use IPC::Run;
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep time);

my @peers;

sub _bin { return ($ENV{INGEST_TEST_BIN} // die 'INGEST_TEST_BIN is not set') . '/' . shift }

# A port below those that the kernel gives to clients, so that it is still free
# after a restart.
sub free_port
{
	for (1 .. 1000)
	{
		my $port = 10000 + int(rand(20000));
		my $socket = IO::Socket::INET->new(
			LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'tcp', Listen => 1);
		return $port if $socket;
	}
	die 'no free port';
}

# config: further lines of server.properties; users: name => password, the
# broker then wants SASL/PLAIN.
sub new
{
	my ($class, %args) = @_;
	my $dir = $args{dir} // PostgreSQL::Test::Utils::tempdir('kafka');
	my $self = bless {
		dir => $dir, port => free_port(), controller => free_port(), pid => undef,
		config => $args{config} // {}, users => $args{users}, heap => $args{heap} // '1g'
	}, $class;
	push @peers, $self;
	return $self;
}

sub brokers { return "127.0.0.1:$_[0]{port}" }
sub pid { return $_[0]{pid} }

# Settings by which our own tools log in.
sub _login
{
	my ($self) = @_;
	return () unless $self->{users};
	my ($admin) = sort keys %{ $self->{users} };
	return ('-X', 'security.protocol=sasl_plaintext', '-X', 'sasl.mechanisms=PLAIN',
		'-X', "sasl.username=$admin", '-X', "sasl.password=$self->{users}{$admin}");
}

sub _java
{
	my ($self, @args) = @_;
	my $libs = $ENV{INGEST_KAFKA_LIBS} // die 'INGEST_KAFKA_LIBS is not set';
	return ('java', "-Xmx$self->{heap}", '-XX:+UseSerialGC', '-XX:-UsePerfData',
		'-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-cp', "$libs/*", @args);
}

sub _write_config
{
	my ($self) = @_;
	my $protocol = $self->{users} ? 'SASL_PLAINTEXT' : 'PLAINTEXT';
	my %config = (
		'process.roles' => 'broker,controller',
		'node.id' => 1,
		'controller.quorum.voters' => "1\@127.0.0.1:$self->{controller}",
		'controller.listener.names' => 'CONTROLLER',
		'listeners' => "CLIENT://127.0.0.1:$self->{port},CONTROLLER://127.0.0.1:$self->{controller}",
		'advertised.listeners' => "CLIENT://127.0.0.1:$self->{port}",
		'inter.broker.listener.name' => 'CLIENT',
		'listener.security.protocol.map' => "CLIENT:$protocol,CONTROLLER:PLAINTEXT",
		'log.dirs' => "$self->{dir}/data",
		'auto.create.topics.enable' => 'false',
		'offsets.topic.replication.factor' => 1,
		'offsets.topic.num.partitions' => 2,
		'transaction.state.log.replication.factor' => 1,
		'transaction.state.log.min.isr' => 1,
		'transaction.state.log.num.partitions' => 2,
		'group.initial.rebalance.delay.ms' => 0,
		'broker.session.timeout.ms' => 2000,
		'broker.heartbeat.interval.ms' => 500,
		# Messages may be of any year; a topic that forgets says so itself.
		'log.retention.ms' => -1,
		'log.retention.check.interval.ms' => 1000,
		'log.cleaner.backoff.ms' => 200,
		'log.segment.delete.delay.ms' => 500,
		'controlled.shutdown.enable' => 'false',
		%{ $self->{config} });

	if ($self->{users})
	{
		my ($admin) = sort keys %{ $self->{users} };
		my $jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required '
		  . qq(username="$admin" password="$self->{users}{$admin}" )
		  . join(' ', map { qq(user_$_="$self->{users}{$_}") } sort keys %{ $self->{users} });
		%config = (%config,
			'sasl.enabled.mechanisms' => 'PLAIN',
			'sasl.mechanism.inter.broker.protocol' => 'PLAIN',
			'listener.name.client.plain.sasl.jaas.config' => "$jaas;");
	}
	open my $file, '>', "$self->{dir}/server.properties" or die $!;
	print $file "$_=$config{$_}\n" foreach sort keys %config;
	close $file;
	return;
}

sub _fail
{
	my ($self, $why) = @_;
	system('tail', '-n', '30', "$self->{dir}/kafka.log");
	die "Kafka: $why";
}

# Fork a process whose output goes to the log; it does not outlive us.
sub _spawn
{
	my ($self, @command) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', "$self->{dir}/kafka.log";
	open STDERR, '>&', \*STDOUT;
	exec 'setpriv', '--pdeathsig', 'KILL', @command or POSIX::_exit(127);
}

sub start
{
	my ($self) = @_;
	die 'already running' if $self->{pid};
	if (!-e "$self->{dir}/server.properties")
	{
		$self->_write_config;
		my $pid = $self->_spawn($self->_java('kafka.tools.StorageTool', 'format', '-t',
			'4L6g3nShT-eMCtK--X86sw', '-c', "$self->{dir}/server.properties"));
		waitpid $pid, 0;
		$self->_fail('could not format its directory') if $?;
	}
	$self->{pid} = $self->_spawn($self->_java('kafka.Kafka', "$self->{dir}/server.properties"));
	$self->wait_until_up;
	return $self;
}

sub wait_until_up
{
	my ($self) = @_;
	my $deadline = time + 90;
	while (time < $deadline)
	{
		if (waitpid($self->{pid}, POSIX::WNOHANG) == $self->{pid})
		{
			$self->{pid} = undef;
			$self->_fail('has ended');
		}
		my $socket = IO::Socket::INET->new(PeerAddr => $self->brokers, Timeout => 1);
		return if $socket && $self->_topic(1, 'ping') eq '1';
		sleep 0.1;
	}
	$self->_fail('did not come up');
}

sub _end
{
	my ($self, $signal) = @_;
	my $pid = $self->{pid} // return;
	my $deadline = time + 30;
	kill $signal, $pid;
	while (waitpid($pid, POSIX::WNOHANG) == 0)
	{
		kill 'KILL', $pid if time > $deadline;
		sleep 0.05;
	}
	$self->{pid} = undef;
	return;
}

sub stop { my ($self) = @_; $self->_end('TERM'); return $self }
sub kill9 { my ($self) = @_; $self->_end('KILL'); return $self }
sub restart { my ($self) = @_; return $self->stop->start }

# A stopped process keeps its connections and answers nothing.
sub freeze { my ($self) = @_; kill 'STOP', $self->{pid}; return $self }
sub thaw { my ($self) = @_; kill 'CONT', $self->{pid}; return $self }

sub _topic
{
	my ($self, $may_fail, @args) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ _bin('topic'), $self->_login, $self->brokers, @args ], '>', \$out, '2>', \$err);
	die "topic @args: $err" unless $ok || $may_fail;
	chomp $out;
	return $out;
}

sub create_topic
{
	my ($self, $name, $partitions, %config) = @_;
	$self->_topic(0, 'create', $name, $partitions // 1, map { "$_=$config{$_}" } sort keys %config);
	# Leaders are elected a moment later.
	my $deadline = time + 30;
	sleep 0.05 until keys %{ $self->ends($name, 1) } == ($partitions // 1) || time > $deadline;
	return;
}

sub add_partitions { my ($self, $name, $n) = @_; $self->_topic(0, 'partitions', $name, $n); return }
sub truncate { my ($self, $name, $p, $offset) = @_; $self->_topic(0, 'truncate', $name, $p, $offset); return }

# Deletion goes on after the answer: wait until the name is free.
sub delete_topic
{
	my ($self, $name) = @_;
	$self->_topic(0, 'delete', $name);
	my $deadline = time + 30;
	sleep 0.1 while keys %{ $self->ends($name, 1) } && time < $deadline;
	return;
}

# partition => [ first offset, next offset ]
sub ends
{
	my ($self, $name, $may_fail) = @_;
	my %ends;
	foreach my $line (split /\n/, $self->_topic($may_fail, 'ends', $name))
	{
		my ($partition, $low, $high) = split /\t/, $line;
		$ends{$partition} = [ $low, $high ];
	}
	return \%ends;
}

# Partition => what the group committed; empty when the broker has no answer yet.
sub committed
{
	my ($self, $name, $group, $partitions) = @_;
	return { map { split /\t/ } split /\n/, $self->_topic(1, 'committed', $name, $group, $partitions) };
}

sub _produce_command
{
	my ($self, $topic, %args) = @_;
	my @command = (_bin('produce'), '--brokers', $self->brokers, '--topic', $topic);
	foreach my $name (sort keys %args)
	{
		next if $name eq 'set';
		push @command, "--$name";
		push @command, $args{$name} if $name !~ /^(headers|stdin)$/;
	}
	push @command, map { ('-X', $_) } @{ $args{set} // [] };
	return [ @command, $self->_login ];
}

# Sensor messages; named arguments are the options of test/lib/produce.c.
sub produce
{
	my ($self, $topic, %args) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run($self->_produce_command($topic, %args), '>', \$out, '2>', \$err)
	  or die "produce: $err";
	return $out =~ /produced (\d+)/ ? $1 : die "produce: $out";
}

# The same in background: returns a handle for IPC::Run::finish().
sub produce_start
{
	my ($self, $topic, %args) = @_;
	return IPC::Run::start($self->_produce_command($topic, %args), '>>', "$self->{dir}/produce.log", '2>&1');
}

sub _escape
{
	my ($text) = @_;
	return '\\N' unless defined $text;
	utf8::encode($text) if utf8::is_utf8($text);
	$text =~ s/([^\x20-\x5b\x5d-\x7e])/sprintf '\\x%02x', ord $1/ge;
	return $text;
}

# Messages as they are: [ partition, key, timestamp in ms, payload, 'header=value', ... ].
# A first argument that is a hash has options of test/lib/produce.c.
sub send
{
	my ($self, $topic, @messages) = @_;
	my %args = ref $messages[0] eq 'HASH' ? %{ shift @messages } : ();
	my $in = '';
	foreach my $message (@messages)
	{
		my ($partition, $key, $timestamp, $payload, @headers) = @$message;
		$in .= join("\t", $partition, _escape($key), $timestamp // '\\N', _escape($payload),
			map { my ($name, $value) = split /=/, $_, 2; "$name=" . ($value eq '\N' ? $value : _escape($value)) } @headers) . "\n";
	}
	my ($out, $err) = ('', '');
	IPC::Run::run($self->_produce_command($topic, stdin => 1, %args), '<', \$in, '>', \$out, '2>', \$err)
	  or die "produce: $err";
	return;
}

# Before the modules that remove directories do so.
sub end_all
{
	my $status = $?;
	foreach my $peer (@peers)
	{
		kill 'CONT', $peer->{pid} if $peer->{pid};
		$peer->_end('KILL');
	}
	$? = $status;
	return;
}

END { end_all() }

1;
