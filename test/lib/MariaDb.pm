# A MariaDB server on loopback, for foreign tables of mysql_fdw.
package MariaDb;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my @running;

# Everything is the invoking user's, in a directory that goes with the test.
sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless { dir => $dir, port => PostgreSQL::Test::Cluster::get_free_port() }, $class;
	run_command([ 'mariadb-install-db', '--no-defaults', "--datadir=$dir/data", '--auth-root-authentication-method=normal',
			'--skip-test-db', '--user=' . getpwuid($>) ]) or die "mariadb-install-db failed";
	$self->start;
	return $self;
}

sub port { return $_[0]{port} }

sub start
{
	my ($self) = @_;
	my $dir = $self->{dir};
	my $log = "$PostgreSQL::Test::Utils::log_path/mariadb.log";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>>', $log;
		open STDERR, '>>', $log;
		exec 'mariadbd', '--no-defaults', "--datadir=$dir/data", "--socket=$dir/socket", "--port=$self->{port}",
		  '--bind-address=127.0.0.1', "--pid-file=$dir/pid", '--innodb-buffer-pool-size=64M',
		  '--character-set-server=utf8mb4' or exit 1;
	}
	$self->{pid} = $pid;
	push @running, $self;
	for (1 .. 300)
	{
		return if eval { $self->sql('SELECT 1'); 1 };
		sleep 0.1;
	}
	die "MariaDB did not come up: see $log";
}

# Statements, as root; what they print.
sub sql
{
	my ($self, $sql, $database) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'mariadb', '--no-defaults', "--socket=$self->{dir}/socket", '-uroot', '-N', '-B', $database // () ],
		'<', \$sql, '>', \$out, '2>', \$err) or die "MariaDB: $err";
	chomp $out;
	return $out;
}

sub kill9 { my ($self) = @_; kill 'KILL', $self->{pid}; waitpid $self->{pid}, 0; delete $self->{pid}; return }

sub stop
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

END { my $status = $?; $_->stop foreach @running; $? = $status }

1;
