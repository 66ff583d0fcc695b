# A server whose clock the test sets; test/lib/clock.c reads the file all the time.
package ClockTest;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(set_clock with_clock);

my $clock = abs_path(PostgreSQL::Test::Utils::tempdir) . '/clock';

# So many hours off.
sub set_clock
{
	my ($hours) = @_;
	open my $file, -e $clock ? '+<' : '>', $clock or die "$clock: $!";
	syswrite $file, pack 'q', 3600 * $hours;
	close $file;
	return;
}

# Runs the code; a server that it starts goes by that clock.  Returns what the code gives.
sub with_clock
{
	my ($code) = @_;
	set_clock(0) unless -e $clock;
	local $ENV{LD_PRELOAD} = abs_path("$ENV{INGEST_TEST_BIN}/clock.so");
	local $ENV{INGEST_CLOCK} = $clock;
	return $code->();
}

1;
