# 2,000 pipelines that run every minute on four slots, from tables that get nothing new:
# how late runs begin, all at the full minute or spread over it, and what that costs.
use strict;
use warnings;

use Time::HiRes qw(sleep time);

use Bench;

my $pipelines = 2000;
my $minutes = $stage{minutes} // 3;
my %seconds = (
	'all at the full minute' => '0',
	'spread over the minute' => 'i % 60');

sub settle
{
	wait_until(60, 'workers end', sub { worker_pid() eq '' });
	return;
}

ask($stage{control}, 'ALTER SYSTEM SET ingest.max_workers = 4');
ask($stage{control}, 'SELECT pg_reload_conf()');
note_progress("creating $pipelines pipelines");
ask($stage{control}, "CREATE TABLE idle_source (seq bigint PRIMARY KEY);
	INSERT INTO idle_source SELECT generate_series(1, 10)");
for (my $first = 1; $first <= $pipelines; $first += 100)
{
	my $last = $first + 99;
	ask($stage{control}, "DO \$\$ BEGIN
		FOR i IN $first .. $last LOOP
			EXECUTE format('CREATE TABLE idle_%s (seq bigint)', i);
			PERFORM ingest.create_pipeline('idle_' || i, 'idle_source', ('idle_' || i)::regclass, schedule => 'manual',
				options => '{\"cursor\": \"seq\", \"late_commits\": \"ignore\"}');
		END LOOP;
	END \$\$");
}

my @rows;
foreach my $way (sort keys %seconds)
{
	note_progress($way);
	ask($stage{control}, "DO \$\$ BEGIN
		FOR i IN 1 .. $pipelines LOOP
			PERFORM ingest.alter_pipeline('idle_' || i, schedule => format('%s * * * * *', $seconds{$way}));
			PERFORM ingest.start('idle_' || i);
		END LOOP;
	END \$\$");
	# The first minute is for reading what there is.
	sleep 60 + 60 - time % 60;
	my $supervisor = ask($stage{control}, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ingest supervisor'");
	my $from = ask($stage{control}, 'SELECT clock_timestamp()');
	my ($ours, $all) = (cpu_of($supervisor), cpu_of_server());
	sleep 60 * $minutes;
	($ours, $all) = (cpu_of($supervisor) - $ours, cpu_of_server() - $all);
	my $until = ask($stage{control}, 'SELECT clock_timestamp()');
	ask($stage{control}, 'SELECT count(ingest.stop(name)) FROM ingest.pipeline');
	settle();
	my ($runs, @delays) = split /\|/, ask($stage{control}, "SELECT count(*), round(percentile_cont(0.5) WITHIN GROUP (ORDER BY delay)),
			round(percentile_cont(0.95) WITHIN GROUP (ORDER BY delay)), round(percentile_cont(0.99) WITHIN GROUP (ORDER BY delay)), round(max(delay))
		FROM (SELECT 1000 * extract(epoch FROM run - date_trunc('minute', run - s) - s)::float8 AS delay FROM (
			SELECT run, (SELECT $seconds{$way} FROM (SELECT replace(pipeline, 'idle_', '')::integer AS i) p) * interval '1 s' AS s
			FROM (SELECT DISTINCT pipeline, run FROM ingest.batch_history WHERE run >= '$from' AND run < '$until') h) d) r");
	push @rows, [ $way, $runs, @delays, sprintf('%.1f', 1000 * $all / $runs), sprintf('%.1f', 100 * $all / 60 / $minutes),
		sprintf('%.1f', 100 * $ours / 60 / $minutes) ];
	note_progress(join ', ', @{ $rows[-1] });
}
save('schedules', "$pipelines pipelines, every minute, four workers, for $minutes minutes; a run begins so many ms after it is due:\n\n"
	  . table([ 'due', 'runs', 'median', '95 %', '99 %', 'most', 'CPU ms a run', 'server, % of a core', 'supervisor, % of a core' ], @rows));
for (my $first = 1; $first <= $pipelines; $first += 100)
{
	my $last = $first + 99;
	ask($stage{control}, "SELECT count(ingest.drop_pipeline('idle_' || i)) FROM generate_series($first, $last) i");
	ask($stage{control}, 'DROP TABLE ' . join(', ', map { "idle_$_" } $first .. $last));
}
ask($stage{control}, 'DROP TABLE idle_source');
ask($stage{control}, 'ALTER SYSTEM RESET ALL');
ask($stage{control}, 'SELECT pg_reload_conf()');
1;
