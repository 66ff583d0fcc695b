# 100,000 rows in 1,000 pages from nginx, by ingest and by dlt's REST source in
# turns; and a file of lines of about a gigabyte, beside a tenth of it and the
# same lines from Kafka.
use strict;
use warnings;

use Time::HiRes qw(sleep time);

use Bench;
use KafkaPeer;

my ($pages, $per_page, $lines, $rounds) = (1000, 100, 5_000_000, $stage{rounds});
my $here = "$stage{work}/src/test/bench/contenders";
my $www = "$stage{work}/www";
my $port = KafkaPeer::free_port();

# ---- what nginx serves

sub item
{
	my ($i) = @_;
	return sprintf '{"id": %d, "title": "title of number %d", "state": "%s", "points": %.2f, "updated_at": "2026-01-%02dT%02d:%02d:%02dZ", "author": {"login": "user%d", "site": "north"}, "comment": "%s"}',
	  $i, $i, $i % 3 ? 'open' : 'closed', $i * 0.37, 1 + $i % 28, $i % 24, $i % 60, int($i / 60) % 60, $i % 977, 'x' x 40;
}

sub write_file
{
	my ($path, $code) = @_;
	open my $file, '>', $path or die "$path: $!";
	$code->($file);
	close $file or die "$path: $!";
	return;
}

note_progress("writing $pages pages and $lines lines");
mkdir $_ foreach $www, "$www/items";
foreach my $page (1 .. $pages)
{
	my @items = map { item($_) } ($page - 1) * $per_page .. $page * $per_page - 1;
	my $next = $page < $pages ? sprintf('"/items/%d.json"', $page + 1) : 'null';
	write_file("$www/items/$page.json", sub { print { $_[0] } '{"items": [' . join(', ', @items) . "], \"next\": $next}" });
}
write_file("$www/lines.ndjson", sub { my ($file) = @_; print $file item($_), "\n" foreach 0 .. $lines - 1 });
write_file("$www/tenth.ndjson", sub { my ($file) = @_; print $file item($_), "\n" foreach 0 .. $lines / 10 - 1 });
write_file("$stage{work}/nginx.conf", sub { print { $_[0] } <<"CONF" });
worker_processes 1;
pid $stage{work}/nginx.pid;
error_log $stage{work}/nginx.log;
events { worker_connections 64; }
http {
	access_log off;
	sendfile on;
	keepalive_requests 100000;
	types { application/json json; application/x-ndjson ndjson; }
	client_body_temp_path $stage{work}/nginx-tmp; proxy_temp_path $stage{work}/nginx-tmp;
	fastcgi_temp_path $stage{work}/nginx-tmp; uwsgi_temp_path $stage{work}/nginx-tmp; scgi_temp_path $stage{work}/nginx-tmp;
	server { listen 127.0.0.1:$port; root $www; }
}
CONF
my $nginx = "/usr/sbin/nginx -e $stage{work}/nginx.log -c $stage{work}/nginx.conf";
run_or_die($nginx);

END
{
	my $status = $?;
	system("$nginx -s stop 2> /dev/null") if $nginx;
	$? = $status;
}

# ---- contenders

my $columns = 'id bigint, title text, state text, points float8, updated_at timestamptz, login text, comment text';
my $digest = 'count(*), sum(hashtextextended(concat_ws(\'|\', id, title, state, points, updated_at, login, comment), 0)::numeric)';
(my $source_columns = $columns) =~ s/login text/login text OPTIONS (path '\$.author.login')/;
ask($stage{control}, "CREATE SERVER api FOREIGN DATA WRAPPER ingest_http OPTIONS (url 'http://127.0.0.1:$port')");
ask($stage{control}, "CREATE FOREIGN TABLE item_page ($source_columns) SERVER api OPTIONS (path '/items/1.json', rows '\$.items', pagination 'next_url', next '\$.next')");
ask($stage{control}, "CREATE FOREIGN TABLE item_line ($source_columns) SERVER api OPTIONS (path '/lines.ndjson', format 'ndjson')");
ask($stage{control}, "CREATE FOREIGN TABLE item_tenth ($source_columns) SERVER api OPTIONS (path '/tenth.ndjson', format 'ndjson')");
ask($stage{control}, "CREATE FOREIGN TABLE item_topic ($source_columns) SERVER plant OPTIONS (topic 'lines')");

sub drain
{
	my ($source, $result) = @_;
	ask($stage{control}, "DROP TABLE IF EXISTS item; CREATE TABLE item ($columns); CHECKPOINT; SELECT ingest.create_pipeline('items', '$source', 'item')");
	my $session = open_session();
	my $begin = time;
	ask($session, "CALL ingest.run('items')", sub { watch(memory_of($session->{backend}), $result) });
	$result->{seconds} = time - $begin;
	close_session($session);
	$result->{digest} = ask($stage{control}, "SELECT $digest FROM item");
	ask($stage{control}, "SELECT ingest.drop_pipeline('items')");
	return;
}

sub run_dlt
{
	my ($result) = @_;
	ask($stage{control}, 'DROP SCHEMA IF EXISTS dlt_bench CASCADE; CHECKPOINT');
	run_or_die("rm -rf $stage{work}/dlt");
	run_command("TMPDIR=$stage{work} python3 $here/dlt_rest.py http://127.0.0.1:$port/ items/1.json postgresql://postgres:none\@127.0.0.1:$stage{port}/postgres", $result);
	open my $out, '<', "$stage{work}/contender.out" or die $!;
	while (<$out>) { $result->{seconds} = $1 if /^seconds ([\d.]+)$/ }
	$result->{digest} = ask($stage{control}, 'SELECT ' . ($digest =~ s/login/author__login/r) . ' FROM dlt_bench.item');
	return;
}

# ---- rounds

my %title = (ingest => '**ingest**, `CALL ingest.run`', dlt => 'dlt, `rest_api_source`');
my %code = (ingest => sub { drain('item_page', @_) }, dlt => \&run_dlt);
my %results;
my @order = qw(ingest dlt);
foreach my $round (1 .. $rounds)
{
	foreach my $name (@order)
	{
		my %result;
		my $server = cpu_of_server();
		$code{$name}->(\%result);
		$result{cpu} = cpu_of_server() - $server + ($result{mover} // 0);
		push @{ $results{$name} }, \%result;
		note_progress(sprintf 'round %d: %-8s %7.2f s', $round, $name, $result{seconds});
	}
	@order = reverse @order;
}
my ($digest_ours) = $results{ingest}[0]{digest};
foreach my $name (sort keys %results)
{
	$_->{digest} eq $digest_ours or die "$name: other rows: $_->{digest}, not $digest_ours\n" foreach @{ $results{$name} };
}

sub values_of { my ($name, $what) = @_; return map { $_->{$what} } @{ $results{$name} } }

my $rows = $pages * $per_page;
my @table = map { [
	$title{$_}, range_of('%.2f', values_of($_, 'seconds')), sprintf('%d', $rows / median(values_of($_, 'seconds'))),
	sprintf('%.2f', median(values_of($_, 'cpu'))), sprintf('%d', median(values_of($_, 'memory'))) ] } qw(ingest dlt);

# ---- a long answer

note_progress("$lines lines into a topic, too");
$stage{kafka}->create_topic('lines', 1, 'segment.bytes' => 268435456);
run_or_die("kcat -P -b " . $stage{kafka}->brokers . " -t lines -X linger.ms=50 -X batch.size=1000000 -l $www/lines.ndjson");

my @lines;
foreach my $case ([ 'item_tenth', $lines / 10, 'a tenth of it' ], [ 'item_line', $lines, '**lines from nginx**' ], [ 'item_topic', $lines, 'the same from Kafka' ])
{
	my ($source, $count, $title) = @$case;
	my @result = map {
		my %result;
		my $cpu = cpu_of_server();
		drain($source, \%result);
		$result{cpu} = cpu_of_server() - $cpu;
		die "$source: $result{digest}\n" unless $result{digest} =~ /^$count\|/;
		note_progress(sprintf '%s: %.2f s', $source, $result{seconds});
		\%result
	} 1 .. $rounds;
	push @lines, { digest => $result[0]{digest}, row => [
		$title, $count, range_of('%.2f', map { $_->{seconds} } @result), sprintf('%d', $count / median(map { $_->{seconds} } @result)),
		sprintf('%.2f', median(map { $_->{cpu} } @result) / $count * 1e6), sprintf('%d', median(map { $_->{memory} } @result)) ] };
}
$lines[1]{digest} eq $lines[2]{digest} or die "other rows from Kafka: $lines[2]{digest}, not $lines[1]{digest}\n";
my $bytes = -s "$www/lines.ndjson";

save('http', "$rows rows in $pages pages from nginx on the same machine; medians of $rounds rounds. CPU seconds include PostgreSQL's.\n\n"
	  . table([ '', 'seconds', 'rows/s', 'CPU seconds', 'memory, MB' ], @table)
	  . sprintf("\nOne answer of %.2f GB, lines of JSON:\n\n", $bytes / 1e9)
	  . table([ '', 'rows', 'seconds', 'rows/s', 'CPU s a million', 'memory, MB' ], map { $_->{row} } @lines[1, 0, 2]));
1;
