# What it costs to wait: a continuous pipeline whose topic gets nothing, for a minute.
use strict;
use warnings;

use Bench;

my $seconds = 60;
create_topic('silent', 4);
create_source('silent');
create_table();
create_pipeline('silent');
ask($stage{control}, "SELECT ingest.start('readings')");
wait_until(30, 'the worker', sub { worker_pid() ne '' });
sleep 5;
my $pid = worker_pid();
my ($worker, $server) = (cpu_of($pid), cpu_of_server());
my $lsn = ask($stage{control}, 'SELECT pg_current_wal_insert_lsn()');
sleep $seconds;
$worker = 100 * (cpu_of($pid) - $worker) / $seconds;
$server = 100 * (cpu_of_server() - $server) / $seconds;
my $wal = ask($stage{control}, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$lsn')");
save('idle', "For $seconds s, in percent of a core:\n\n"
	  . table([ 'worker', 'whole server', 'memory of the worker, MB', 'WAL bytes' ],
		[ sprintf('%.2f', $worker), sprintf('%.2f', $server), sprintf('%d', memory_of($pid)), $wal ]));
drop_pipelines();
$stage{kafka}->delete_topic('silent');
1;
