# HTTP servers that nobody here wrote: datasette, a GraphQL server, nginx.
#
#   my $peer = HttpPeers->datasette($database);    $peer->url
package HttpPeers;

use strict;
use warnings;

use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# Whoever is left at the end is ended by pid, see MockBroker.
my %live;
END { kill 'KILL', keys %live if %live }

sub python { return ($ENV{INGEST_HTTP_PEERS} // die 'INGEST_HTTP_PEERS is not set') . '/bin/python3' }

# Until what it says looks like that; the first group is its address.
sub _start
{
	my ($class, $ready, @command) = @_;
	my $self = bless { in => '', out => '' }, $class;
	my $timeout = IPC::Run::timeout(60);
	$self->{process} = IPC::Run::start(\@command, '<', \$self->{in}, '>', \$self->{out}, '2>&1', $timeout);
	$live{ $self->{pid} = $self->{process}->{KIDS}->[0]->{PID} } = 1;
	return $self unless $ready;
	while ($self->{out} !~ $ready)
	{
		die "@command: $self->{out}" unless IPC::Run::pump($self->{process});
	}
	($self->{url}) = $self->{out} =~ $ready;
	$timeout->reset;
	return $self;
}

# A file of SQLite as JSON, CSV; its pages are linked in each way.
sub datasette
{
	my ($class, $database) = @_;
	return $class->_start(qr{running on (http://[0-9.:]+)}, python(), '-m', 'datasette', 'serve', $database, '-h', '127.0.0.1', '-p', '0',
		'--setting', 'max_returned_rows', '10000', '--setting', 'sql_time_limit_ms', '20000');
}

# A file of SQLite as GraphQL, see graphqlserver.py.
sub graphql
{
	my ($class, $database) = @_;
	my ($dir) = map { s{/graphqlserver\.py$}{}r } grep { -e } map { "$_/graphqlserver.py" } @INC;
	local $ENV{GRAPHQL_DATABASE} = $database;
	local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
	return $class->_start(qr{running on (http://[0-9.:]+)}, python(), '-m', 'uvicorn', '--app-dir', $dir, '--factory', '--host', '127.0.0.1', '--port', '0',
		'graphqlserver:make_app');
}

# nginx with these servers: text with %PORT_a% and the like, which are free ports;
# they are in port{a}.  The access log has what follows "log_format seen".
sub nginx
{
	my ($class, $dir, $http) = @_;
	my %port;
	$port{$1} //= PostgreSQL::Test::Cluster::get_free_port() while $http =~ /%PORT_(\w+)%/g;
	$http =~ s/%PORT_(\w+)%/$port{$1}/g;
	mkdir "$dir/nginx";
	my $temporary = join '', map { "    ${_}_temp_path $dir/nginx/$_;\n" } qw(client_body proxy fastcgi uwsgi scgi);
	my $file = "$dir/nginx/conf";
	PostgreSQL::Test::Utils::append_to_file($file, <<"CONF");
daemon off;
worker_processes 1;
pid $dir/nginx/pid;
error_log $dir/nginx/error.log warn;
events { worker_connections 256; }
http {
    log_format seen '\$request_method \$uri \$args \$status \$body_bytes_sent "\$http_range" "\$sent_http_content_encoding" \$server_protocol \$connection';
    access_log $dir/nginx/access.log seen;
    types { application/json json; application/x-ndjson ndjson; text/csv csv; application/xml xml; }
$temporary
$http
}
CONF
	my ($nginx) = grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';
	my $self = $class->_start(undef, $nginx // die('nginx is missing'), '-p', "$dir/nginx", '-c', $file, '-e', "$dir/nginx/error.log");
	@$self{qw(port access)} = (\%port, "$dir/nginx/access.log");
	foreach (1 .. 600)
	{
		last if -s "$dir/nginx/pid";
		select undef, undef, undef, 0.1;
		die "nginx: $self->{out}" unless IPC::Run::pumpable($self->{process}) && kill 0, $self->{pid};
	}
	return $self;
}

sub url { return $_[0]{url} }
sub port { return $_[0]{port}{ $_[1] } }

# nginx writes its log once an answer is out: a request of ours, by its port
# "plain", comes behind all those whose answers somebody has.
sub _settle
{
	my ($self) = @_;
	my $mark = '/mark/' . ++$self->{marks};
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$self->{port}{plain}", Proto => 'tcp') or die "nginx: $!";
	print $socket "GET $mark HTTP/1.0\r\n\r\n";
	1 while <$socket>;
	foreach (1 .. 200)
	{
		return if PostgreSQL::Test::Utils::slurp_file($self->{access}) =~ m{^GET $mark }m;
		select undef, undef, undef, 0.05;
	}
	die 'nginx: no log';
}

# Lines of the access log that match, since mark().
sub requests
{
	my ($self, $pattern) = @_;
	$self->_settle;
	return grep { $_ !~ m{^GET /mark/} && /$pattern/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($self->{access}, $self->{seen} // 0);
}

sub mark
{
	my ($self) = @_;
	$self->_settle;
	$self->{seen} = -s $self->{access};
	return;
}

sub stop
{
	my ($self) = @_;
	local $?;
	return unless $self->{process};
	kill 'TERM', $self->{pid};
	eval { $self->{process}->kill_kill(grace => 5) };
	delete $live{ $self->{pid} };
	delete $self->{process};
	return;
}

sub DESTROY { $_[0]->stop; return }

1;
