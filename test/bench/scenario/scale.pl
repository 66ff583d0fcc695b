# What a row costs, from 10^5 rows to 10^7: it should not depend on how many there are.
# The whole call includes connecting to the brokers; turns are what is done for rows.
use strict;
use warnings;

use Time::HiRes qw(time);

use Bench;

my @rows;
foreach my $messages (100_000, 1_000_000, 10_000_000)
{
	my $topic = "scale_$messages";
	create_topic($topic, 4);
	fill_topic($topic, $messages);
	create_source($topic);
	my (@seconds, @turns, @cpu, $memory);
	for (1 .. $stage{rounds})
	{
		drop_pipelines();
		create_table();
		create_pipeline($topic);
		my $session = open_session();
		my $begin = time;
		$memory = 0;
		ask($session, "CALL ingest.run('readings')", sub {
			my $now = memory_of($session->{backend});
			$memory = $now if $now > $memory;
		});
		push @seconds, (time - $begin) * 1e6 / $messages;
		push @cpu, cpu_of($session->{backend}) * 1e6 / $messages;
		close_session($session);
		push @turns, ask($stage{control}, 'SELECT extract(epoch FROM sum(finished_at - started_at)) FROM ingest.batch_history') * 1e6 / $messages;
		note_progress(sprintf '%d rows: %.3f s a million', $messages, $seconds[-1]);
	}
	push @rows, [ $messages, range_of('%.3f', @seconds), range_of('%.3f', @turns), range_of('%.3f', @cpu), sprintf('%d', $memory) ];
	drop_pipelines();
	$stage{kafka}->delete_topic($topic);
}
save('scale', table([ 'rows', 'seconds a million', 'of turns alone', 'CPU seconds a million, backend', 'memory, MB' ], @rows));
1;
