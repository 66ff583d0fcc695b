# Runs the scenarios asked for; test/bench/run builds and starts it.
use strict;
use warnings;

use FindBin;
use Getopt::Long;

use Bench;

my $work = shift @ARGV;
$stage{messages} = 2_000_000;
$stage{rounds} = 3;
$stage{only} = '';
$stage{contenders} = {};
GetOptions(\%stage, 'messages=i', 'rounds=i', 'only=s', 'save=s', 'minutes=i', 'contender=s' => $stage{contenders}) or die "bad options\n";

my @scenarios = @ARGV ? @ARGV : 'rivals';
my %scenarios = map { $_ => "$FindBin::Bin/scenario/$_.pl" } @scenarios;
-e $scenarios{$_} or die "no scenario $_\n" foreach @scenarios;

start_stage($work);
foreach my $name (@scenarios)
{
	note_progress("scenario $name");
	my $done = do $scenarios{$name};
	die $@ || "$name: $!\n" unless $done;
}
close_session($stage{control});
