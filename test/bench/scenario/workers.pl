# One worker and two, on a topic of two partitions.
use strict;
use warnings;

use Time::HiRes qw(time);

use Bench;

my $messages = $stage{messages};
create_topic('pair', 2);
fill_topic('pair', $messages);
create_source('pair');
my %seconds;
for my $round (1 .. $stage{rounds})
{
	foreach my $workers (1, 2)
	{
		drop_pipelines();
		create_table();
		create_pipeline('pair', qq({"workers": $workers}));
		my $begin = time;
		ask($stage{control}, "SELECT ingest.start('readings')");
		wait_until(300, 'the workers', sub {
			return ask($stage{control}, 'SELECT read FROM ingest.pipeline_status') == $messages;
		});
		push @{ $seconds{$workers} }, ask($stage{control}, 'SELECT extract(epoch FROM last_batch_at) FROM ingest.pipeline_status') - $begin;
		note_progress(sprintf 'round %d: %d workers: %.2f s', $round, $workers, $seconds{$workers}[-1]);
	}
}
my $one = median(@{ $seconds{1} });
save('workers', table([ 'workers', 'seconds', 'of one worker' ],
	map { [ $_, range_of('%.2f', @{ $seconds{$_} }), sprintf('%.2f', $one / median(@{ $seconds{$_} })) ] } 1, 2));
drop_pipelines();
$stage{kafka}->delete_topic('pair');
1;
