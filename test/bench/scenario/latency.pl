# From the time the producer gave a message to the commit that made it visible.
use strict;
use warnings;

use Bench;

my ($rate, $seconds) = (5000, 30);
create_topic('live', 2);
create_source('live');
create_table(', produced timestamptz');
create_pipeline('live');
ask($stage{control}, "SELECT ingest.start('readings')");
wait_until(30, 'the worker', sub { worker_pid() ne '' });
fill_topic('live', $rate * $seconds, rate => $rate, set => ['linger.ms=5']);
wait_until(30, 'the rest', sub { ask($stage{control}, 'SELECT count(*) FROM reading') == $rate * $seconds });
my $percentiles = ask($stage{control}, q(
	SELECT string_agg(round(1000 * p)::text, '|') FROM unnest((
		SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY
			extract(epoch FROM pg_xact_commit_timestamp(r.xmin) - r.produced))
		FROM reading r)) AS p));
save('latency', "$rate messages a second for $seconds s, in milliseconds:\n\n"
	  . table([ '50 %', '90 %', '99 %', 'most' ], [ split /\|/, $percentiles ]));
drop_pipelines();
$stage{kafka}->delete_topic('live');
1;
