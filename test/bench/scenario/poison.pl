# What bad messages cost: broken JSON, words for numbers, rows that violate a rule,
# a third of each; all become dead letters.
use strict;
use warnings;

use Time::HiRes qw(time);

use Bench;

my $messages = $stage{messages};
my @kinds = ([ 'none', 0 ], [ '1 %', 10 ], [ '10 %', 100 ]);
foreach my $kind (@kinds)
{
	my ($name, $permille) = @$kind;
	create_topic("poison_$permille", 4);
	fill_topic("poison_$permille", $messages, bad => $permille);
	create_source("poison_$permille");
}
my (%seconds, %letters);
for my $round (1 .. $stage{rounds})
{
	foreach my $kind (@kinds)
	{
		my ($name, $permille) = @$kind;
		drop_pipelines();
		create_table();
		create_pipeline("poison_$permille");
		my $session = open_session();
		my $begin = time;
		ask($session, "CALL ingest.run('readings')");
		push @{ $seconds{$name} }, time - $begin;
		close_session($session);
		$letters{$name} = ask($stage{control}, 'SELECT count(*) FROM ingest.dead_letter');
		note_progress(sprintf 'round %d: %s: %.2f s', $round, $name, $seconds{$name}[-1]);
	}
	push @kinds, shift @kinds;
}
my $clean = median(@{ $seconds{none} });
save('poison', table([ 'bad messages', 'dead letters', 'seconds', 'of the speed without' ],
	map { [ $_, $letters{$_}, range_of('%.2f', @{ $seconds{$_} }), sprintf('%.2f', $clean / median(@{ $seconds{$_} })) ] } 'none', '1 %', '10 %'));
drop_pipelines();
$stage{kafka}->delete_topic("poison_$_->[1]") foreach @kinds;
1;
