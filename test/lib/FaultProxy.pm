# A TCP proxy on loopback that can be told to misbehave, in a process of its own.
#
#   my $proxy = FaultProxy->new(port => 1234, to => 5678);
#   $proxy->tell('drop');		# connections are cut, new ones are refused at once
#   $proxy->tell('hang');		# they stay, and nothing passes
#   $proxy->tell('delay 80');	# everything comes 80 ms later
#   $proxy->tell('truncate 3000');	# after 3000 bytes of answers, once: cut, amid one
#   $proxy->tell('flip 3 TEXT');	# in each of the next 3 pieces of answers that hold TEXT a bit is wrong
#   $proxy->tell('pass');
package FaultProxy;

use strict;
use warnings;

use Errno qw(EAGAIN EINTR);
use IO::Select;
use IO::Socket::INET;
use KafkaPeer;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(sleep time);

# Of one direction; then nothing more is read.
my $buffer_size = 1 << 20;

sub new
{
	my ($class, %args) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $args{port}, Proto => 'tcp',
		Listen => 20, ReuseAddr => 1) or die "proxy: $!";
	pipe(my $orders, my $pen) or die $!;
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		close $pen;
		eval { serve($listener, $orders, $args{to}); 1 } or print STDERR "proxy: $@";
		POSIX::_exit(0);
	}
	close $orders;
	$pen->autoflush(1);
	return bless { pid => $pid, pen => $pen }, $class;
}

# Before a KafkaPeer that is not yet started: whoever comes through port() stays
# on this side of it; its own tools do not.
sub before
{
	my ($class, $kafka) = @_;
	my ($inside, $outside) = (KafkaPeer::free_port(), KafkaPeer::free_port());
	my $listeners = 'DIRECT://127.0.0.1:%d,CLIENT://127.0.0.1:%d';
	%{ $kafka->{config} } = (%{ $kafka->{config} },
		'listeners' => sprintf("$listeners,CONTROLLER://127.0.0.1:%d", $kafka->{port}, $inside, $kafka->{controller}),
		'advertised.listeners' => sprintf($listeners, $kafka->{port}, $outside),
		'listener.security.protocol.map' => 'DIRECT:PLAINTEXT,CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT',
		'inter.broker.listener.name' => 'DIRECT');
	my $self = $class->new(port => $outside, to => $inside);
	$self->{port} = $outside;
	return $self;
}

sub brokers { return "127.0.0.1:$_[0]{port}" }
sub tell { my ($self, $order) = @_; print { $self->{pen} } "$order\n"; return }

# It ends when nobody can tell it anything more.
sub DESTROY
{
	my ($self) = @_;
	local $?;
	return unless $self->{pen};
	close delete $self->{pen};
	waitpid $self->{pid}, 0;
	return;
}

# ---- the process: pairs of flows, each from one socket to another

my %flows;	# by the descriptor that is read
my $mode = 'pass';
my $amount = 0;
my $text = '';

sub cut
{
	my ($flow) = @_;
	my $back = $flow->{back};
	delete $flows{ fileno $_ } foreach grep { defined fileno $_ } $flow->{from}, $back->{from};
	close $_ foreach $flow->{from}, $back->{from};
	$flow->{back} = $back->{back} = undef;
	return;
}

sub connect_through
{
	my ($client, $port) = @_;
	my $server = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Proto => 'tcp', Timeout => 2);
	return close $client if !$server || $mode eq 'drop';
	foreach my $socket ($client, $server)
	{
		$socket->blocking(0);
		setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
	}
	my $there = { from => $client, to => $server, queue => [], size => 0 };
	my $here = { from => $server, to => $client, queue => [], size => 0, answers => 1 };
	($there->{back}, $here->{back}) = ($here, $there);
	$flows{ fileno $client } = $there;
	$flows{ fileno $server } = $here;
	return;
}

sub obey
{
	my ($order) = @_;
	($mode, $amount, $text) = (split(/ /, $order, 3), 0, '');
	if ($mode eq 'drop')
	{
		my @all = values %flows;
		$_->{back} and cut($_) foreach @all;
	}
	return;
}

sub take
{
	my ($flow) = @_;
	my $n = sysread $flow->{from}, my $bytes, 1 << 16;
	return if !defined $n && ($! == EAGAIN || $! == EINTR);
	return cut($flow) unless $n;
	if ($mode eq 'truncate' && $flow->{answers})
	{
		$amount -= $n;
		if ($amount <= 0)
		{
			substr($bytes, $n + $amount) = '';
			syswrite $flow->{to}, $bytes;
			$mode = 'pass';
			return cut($flow);
		}
	}
	if ($mode eq 'flip' && $flow->{answers} && (my $at = index $bytes, $text) >= 0)
	{
		substr($bytes, $at, 1) ^= "\x01";
		$mode = 'pass' if --$amount <= 0;
	}
	push @{ $flow->{queue} }, [ time + ($mode eq 'delay' ? $amount / 1000 : 0), $bytes ];
	$flow->{size} += $n;
	return;
}

sub give
{
	my ($flow, $now) = @_;
	while (my $first = $flow->{queue}[0])
	{
		return if $first->[0] > $now;
		my $n = syswrite $flow->{to}, $first->[1];
		return if !defined $n && ($! == EAGAIN || $! == EINTR);
		return cut($flow) unless defined $n;
		$flow->{size} -= $n;
		substr($first->[1], 0, $n) = '';
		return if length $first->[1];
		shift @{ $flow->{queue} };
	}
	return;
}

sub serve
{
	my ($listener, $orders, $port) = @_;
	my $rest = '';
	local $SIG{PIPE} = 'IGNORE';
	while (1)
	{
		my $hangs = $mode eq 'hang';
		my $read = IO::Select->new($listener, $orders);
		my $write = IO::Select->new;
		my ($now, $wait) = (time, 1);
		my @passing = $hangs ? () : values %flows;
		foreach my $flow (@passing)
		{
			$read->add($flow->{from}) if $flow->{size} < $buffer_size;
			my $first = $flow->{queue}[0] or next;
			if ($first->[0] <= $now) { $write->add($flow->{to}) }
			elsif ($first->[0] - $now < $wait) { $wait = $first->[0] - $now }
		}
		my ($readable) = IO::Select::select($read, $write, undef, $wait);
		foreach my $handle (@{ $readable // [] })
		{
			if ($handle == $orders)
			{
				sysread($orders, $rest, 4096, length $rest) or return;
				obey($1) while $rest =~ s/^(.*)\n//;
			}
			elsif ($handle == $listener) { connect_through(scalar $listener->accept, $port) }
			elsif (defined fileno $handle && $flows{ fileno $handle }) { take($flows{ fileno $handle }) }
		}
		next if $mode eq 'hang';
		$now = time;
		my @all = values %flows;	# it changes while we go through it
		$_->{back} and give($_, $now) foreach @all;
	}
	return;
}

1;
