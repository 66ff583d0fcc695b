# A scripted HTTP server as a peer, see test/lib/httpd.py.
#
#   my $peer = HttpPeer->new;
#   $peer->control(op => 'generate', name => 'issues', count => 1000);
#   $peer->behave('^/page/issues', { status => 503 }, skip => 3, times => 2);
#   $peer->url . '/page/issues'; $peer->requests('^/page/');
package HttpPeer;

use strict;
use warnings;

use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# Whoever is left at the end is ended by pid, see MockBroker.
my %live;
END { kill 'KILL', keys %live if %live }

# dir: of log and certificates; tls: [ certificate, key ].
sub new
{
	my ($class, %args) = @_;
	my $self = bless { in => '', out => '', err => '', seen => 0 }, $class;
	$self->{log} = ($args{dir} // PostgreSQL::Test::Utils::tempdir) . '/requests';
	my ($script) = grep { -e } map { "$_/httpd.py" } @INC;
	$self->{process} = IPC::Run::start([ 'python3', '-I', $script, $self->{log}, @{ $args{tls} // [] } ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	while ($self->{out} !~ /^ready (.*)\n/)
	{
		die "httpd.py: $self->{err}" unless IPC::Run::pump($self->{process});
	}
	my ($origins) = $self->{out} =~ /^ready (.*)\n/;
	$self->{origins} = $json->decode($origins);
	$live{ $self->{pid} = $self->{process}->{KIDS}->[0]->{PID} } = 1;
	return $self;
}

# Where it is: http on 127.0.0.1; on 127.0.0.2; https on 127.0.0.1
sub url { return $_[0]{origins}{main} }
sub other_url { return $_[0]{origins}{other} }
sub tls_url { return $_[0]{origins}{tls} }

# One operation, or several: control({...}, {...}).
sub control
{
	my ($self, @args) = @_;
	my $body = $json->encode(ref $args[0] ? \@args : {@args});
	my ($address) = $self->url =~ m{//(.*)};
	my $socket = IO::Socket::INET->new(PeerAddr => $address, Proto => 'tcp') or die "httpd.py: $!";
	print $socket "POST /_control HTTP/1.1\r\nHost: control\r\nConnection: close\r\nContent-Length: "
	  . length($body) . "\r\n\r\n$body";
	my $answer = do { local $/; <$socket> };
	my ($status, $text) = $answer =~ m{^HTTP/1\.1 (\d+).*?\r\n\r\n(.*)}s or die "httpd.py: no answer";
	die "httpd.py: $text" unless $status == 200;
	return $json->decode($text);
}

# What the next requests of a path (a pattern of Python) get; times => -1: always.
sub behave
{
	my ($self, $path, $do, %args) = @_;
	return $self->control(op => 'behave', path => $path, do => $do, %args);
}

sub forget { return $_[0]->control(op => 'forget') }
sub rows { return @{ $_[0]->control(op => 'dump', name => $_[1]) } }

# Requests of a path (a pattern; none: all) since mark(); a list of hashes, with the
# status where there is an answer, and the bytes sent and when it was out.
sub requests
{
	my ($self, $path) = @_;
	my (@requests, %by_number);
	open my $file, '<', $self->{log} or die $!;
	seek $file, $self->{seen}, 0;
	while (my $line = <$file>)
	{
		last unless $line =~ /\n$/;
		my $entry = $json->decode($line);
		if ($entry->{at} eq 'begin' && $entry->{path} =~ /(?:$path)/)
		{
			push @requests, $by_number{ $entry->{n} } = $entry;
		}
		elsif ($entry->{at} eq 'answer' && $by_number{ $entry->{n} })
		{
			$by_number{ $entry->{n} }{status} = $entry->{status};
		}
		elsif ($entry->{at} eq 'end' && $by_number{ $entry->{n} })
		{
			@{ $by_number{ $entry->{n} } }{qw(status sent end)} = @$entry{qw(status sent time)};
		}
	}
	return @requests;
}

sub mark { $_[0]{seen} = -s $_[0]{log}; return }

# Answers nothing any more / answers again / is no more.
sub freeze { return $_[0]{process}->signal('STOP') }
sub thaw { return $_[0]{process}->signal('CONT') }
sub log_file { return $_[0]{log} }

sub stop
{
	my ($self) = @_;
	local $?;
	return unless $self->{process};
	$self->{process}->signal('CONT');
	$self->{process}->kill_kill(grace => 1);
	delete $live{ $self->{pid} };
	delete $self->{process};
	return;
}

sub DESTROY { $_[0]->stop; return }

1;
