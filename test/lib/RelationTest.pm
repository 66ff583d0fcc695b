# What the tests of relation sources share: sessions that stay open, comparisons.
package RelationTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;

our @EXPORT = qw(open_session same_rows run_pipeline create_pipeline);

# A psql that keeps its transaction: $session->sql('...') waits for the answer.
sub open_session
{
	my ($node, $database) = @_;
	my $self = bless { in => '', out => '', err => '', n => 0 }, 'RelationTest';
	$self->{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=0', '-d', $node->connstr($database // 'postgres') ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer} = IPC::Run::timeout(120));
	return $self;
}

sub sql
{
	my ($self, $sql) = @_;
	my $mark = 'done-' . ++$self->{n};
	$self->{out} = '';
	$self->{timer}->start(120);
	$self->{in} .= "$sql;\n\\echo $mark\n";
	$self->{handle}->pump until $self->{out} =~ /^\Q$mark\E$/m;
	(my $out = $self->{out}) =~ s/^\Q$mark\E\n//m;
	chomp $out;
	return $out;
}

# Without waiting for it.
sub send
{
	my ($self, $sql) = @_;
	$self->{in} .= "$sql;\n";
	$self->{handle}->pump_nb;
	return;
}

sub close
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	$self->{handle}->finish;
	return;
}

sub create_pipeline
{
	my ($node, $name, $source, $target, %args) = @_;
	my $quote = sub { defined $_[0] ? "'" . ($_[0] =~ s/'/''/gr) . "'" : 'NULL' };
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT ingest.create_pipeline('$name', '$source', '$target', "
		  . 'schedule => ' . $quote->($args{schedule}) . ', options => ' . $quote->($args{options} // '{}')
		  . ', mode => ' . $quote->($args{mode}) . ', key => ' . $quote->($args{key}) . ')');
	is($rc, 0, "pipeline $name is created") or diag $err;
	return $err;
}

# In the foreground; what it says.
sub run_pipeline
{
	my ($node, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('$name')", timeout => 180);
	is($rc, 0, "pipeline $name runs") or diag $err;
	return $err;
}

# Two queries give the same rows, duplicates counted.
sub same_rows
{
	my ($node, $a, $b, $name) = @_;
	my $difference = "SELECT 'only in the first: ' || x::text FROM (($a) EXCEPT ALL ($b)) x UNION ALL
		SELECT 'only in the second: ' || x::text FROM (($b) EXCEPT ALL ($a)) x LIMIT 10";
	is($node->safe_psql('postgres', $difference), '', $name);
	return;
}

1;
