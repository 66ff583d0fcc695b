# An hour of a steady stream: memory, file descriptors, threads and the sizes of
# tables stay what they are, while an open transaction keeps the server from
# removing any old row version.
use strict;
use warnings;

use IPC::Run;
use Time::HiRes qw(sleep time);

use Bench;

my $minutes = $stage{minutes} // 60;
my $rate = 500;
my @pipelines = qw(plain booked timed);

ask($stage{control}, $_) foreach 'ALTER SYSTEM SET autovacuum = on', q(ALTER SYSTEM SET autovacuum_naptime = '10s'), 'SELECT pg_reload_conf()';
foreach my $name (@pipelines)
{
	create_topic("${name}_topic", 2);
	create_source("${name}_topic");
	create_table();
	ask($stage{control}, "ALTER TABLE reading RENAME TO ${name}_reading");
	ask($stage{control}, "DO \$\$ BEGIN FOR i IN 0 .. 27 LOOP EXECUTE format('ALTER TABLE reading_%s RENAME TO ${name}_%s', i, i); END LOOP; END \$\$");
}
ask($stage{control}, q(
	SELECT ingest.create_pipeline('plain', 'plain_topic', 'plain_reading');
	SELECT ingest.add_rule('plain', 'above_zero', 'temperature >= 0');
	SELECT ingest.create_pipeline('booked', 'booked_topic', 'booked_reading', options => '{"lane": "statement"}');
	CREATE TABLE seen (batch bigint GENERATED ALWAYS AS IDENTITY, n bigint);
	SELECT ingest.add_rule('booked', 'known', 'EXISTS (SELECT FROM pg_class WHERE temperature >= 0)');
	SELECT ingest.add_transform('booked', 'seen', 'INSERT INTO seen (n) SELECT count(*) FROM batch');
	SELECT ingest.create_pipeline('timed', 'timed_topic', 'timed_reading', schedule => '5 seconds')));
ask($stage{control}, "SELECT ingest.start('$_')") foreach @pipelines;
wait_until(30, 'the workers', sub { ask($stage{control}, 'SELECT count(*) FROM ingest._workers()') >= 2 });

my @producers = map {
	$stage{kafka}->produce_start("${_}_topic", count => $rate * 60 * $minutes, rate => $rate, bad => 10,
		'time-key' => 'event_time', set => ['linger.ms=5'])
} @pipelines;

my $old = open_session();
ask($old, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM ingest.pipeline');

# ---- samples

sub count_in
{
	my ($dir) = @_;
	opendir my $handle, $dir or return 0;
	return scalar grep { !/^\./ } readdir $handle;
}

# Of our processes that live as long as the stream: the launcher, the supervisor, two workers.
sub sample
{
	my ($minute) = @_;
	my %sum = (minute => $minute);
	foreach my $pid (split /\n/, ask($stage{control}, q(SELECT pid FROM pg_stat_activity
		WHERE backend_type LIKE 'ingest %' AND (application_name NOT LIKE '%timed%' AND backend_type <> 'ingest upkeep'))))
	{
		$sum{memory} += memory_of($pid);
		$sum{files} += count_in("/proc/$pid/fd");
		$sum{threads} += count_in("/proc/$pid/task");
		$sum{processes}++;
	}
	@sum{qw(turns turn_ms books catalog letters rows)} = split /\|/, ask($stage{control}, q(
		SELECT (SELECT sum(batches) FROM (SELECT sum(batches) AS batches FROM ingest._total UNION ALL SELECT count(*) FROM ingest._batch) AS b),
			(SELECT round(avg(1000 * extract(epoch FROM finished_at - started_at)), 1) FROM ingest._batch
				WHERE finished_at > clock_timestamp() - interval '1 minute'),
			(SELECT round(sum(pg_total_relation_size(c.oid)) / 1024 / 1024, 1) FROM pg_class c
				WHERE relnamespace = 'ingest'::regnamespace AND relkind = 'r' AND relname <> '_dead_letter'),
			(SELECT round(sum(pg_total_relation_size(c.oid)) / 1024 / 1024, 1) FROM pg_class c
				WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'),
			(SELECT count(*) FROM ingest._dead_letter),
			(SELECT sum(written) FROM ingest.pipeline_status)));
	note_progress(join ' ', map { "$_ $sum{$_}" } sort keys %sum);
	return \%sum;
}

my $begin = time;
my @samples;
foreach my $minute (1 .. $minutes)
{
	sleep 0.5 while time < $begin + 60 * $minute;
	push @samples, sample($minute) if $minute == 1 || $minute % 5 == 0 || $minute == $minutes;
}
IPC::Run::finish($_) or die 'a producer failed' foreach @producers;
my $all = $rate * 60 * $minutes;
wait_until(60, 'the rest', sub { ask($stage{control}, 'SELECT bool_and(read = ' . $all . ') FROM ingest.pipeline_status') eq 't' });
ask($old, 'COMMIT');
close_session($old);
ask($stage{control}, 'VACUUM ingest._position, ingest._batch, ingest._state, ingest._total');
push @samples, sample('after VACUUM');

save('soak', "Three pipelines (direct lane; statement lane with a subquery rule and a transform; every five seconds), "
	  . "$rate messages a second each, 1 % of them bad; $minutes minutes, all of them under one open transaction.\n\n"
	  . table([ 'minute', 'memory, MB', 'files', 'threads', 'turns', 'ms a turn', 'bookkeeping, MB', 'catalogs, MB', 'rows', 'dead letters' ],
		map { my $s = $_; [ map { $_ eq 'memory' ? sprintf('%d', $s->{$_}) : $s->{$_} } qw(minute memory files threads turns turn_ms books catalog rows letters) ] } @samples));
drop_pipelines();
1;
