# librdkafka's mock cluster as a peer: up at once, and without Java; for tests
# that are not about Kafka.
#
#   my $broker = MockBroker->new('sensors:4');
#   $broker->produce('sensors', count => 1000);
package MockBroker;

use strict;
use warnings;

use IPC::Run;

# A test's file-scoped variables are destroyed in no certain order, IPC::Run's own
# perhaps first: whoever is left at the end is ended by pid.
my %live;
END { kill 'KILL', keys %live if %live }

sub _bin { return ($ENV{INGEST_TEST_BIN} // die 'INGEST_TEST_BIN is not set') . '/' . shift }

sub new
{
	my ($class, @topics) = @_;
	my $self = bless { out => '', err => '' }, $class;
	$self->{process} = IPC::Run::start([ _bin('mockbroker'), @topics ], '>', \$self->{out}, '2>', \$self->{err});
	IPC::Run::pump($self->{process}) until $self->{out} =~ /brokers (\S+)\n/;
	$self->{brokers} = $1;
	$live{ $self->{pid} = $self->{process}->{KIDS}->[0]->{PID} } = 1;
	return $self;
}

sub brokers { return $_[0]{brokers} }

# Options as of test/lib/produce.c.
sub produce
{
	my ($self, $topic, %args) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ _bin('produce'), '--brokers', $self->{brokers}, '--topic', $topic,
			map { ("--$_", $args{$_}) } sort keys %args ], '>', \$out, '2>', \$err)
	  or die "produce: $err";
	return;
}

# Messages with these values, into partition 0.
sub send
{
	my ($self, $topic, @payloads) = @_;
	my ($out, $err) = ('', '');
	s/\\/\\\\/g, s/\t/\\t/g, s/\n/\\n/g foreach @payloads;
	my $in = join '', map { "0\t\\N\t\\N\t$_\n" } @payloads;
	IPC::Run::run([ _bin('produce'), '--brokers', $self->{brokers}, '--topic', $topic, '--stdin' ],
		'<', \$in, '>', \$out, '2>', \$err)
	  or die "produce: $err";
	return;
}

# Answers nothing any more / answers again.
sub freeze { return $_[0]{process}->signal('STOP') }
sub thaw { return $_[0]{process}->signal('CONT') }

sub DESTROY
{
	my ($self) = @_;
	local $?;
	return unless $self->{process};
	$self->{process}->signal('CONT');
	$self->{process}->kill_kill(grace => 1);
	delete $live{ $self->{pid} };
	return;
}

1;
