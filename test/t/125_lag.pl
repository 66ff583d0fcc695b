# How early a run has to begin so that its target does not get too old: the arithmetic
# by itself, and a year of it against a clock that is not there.
use strict;
use warnings;

use Cwd qw(abs_path);
use Test::More;

use IngestTest;

my $node = start_node('lag', preload => 0);
my $library = abs_path("$ENV{INGEST_TEST_BIN}/lagtimes.so");
$node->safe_psql('postgres', "
	CREATE FUNCTION lag_allowed(bigint, bigint, bigint) RETURNS bigint LANGUAGE c STRICT AS '$library';
	CREATE FUNCTION lag_start(bigint, bigint, bigint, bigint, bigint) RETURNS bigint LANGUAGE c STRICT AS '$library';
	CREATE FUNCTION lag_duration(bigint, bigint) RETURNS bigint LANGUAGE c STRICT AS '$library'");

sub allowed { return value($node, 'SELECT lag_allowed(' . join(', ', @_) . ')') }
sub start_at { return value($node, 'SELECT lag_start(' . join(', ', @_) . ')') }

# own, the follower's, the follower's duration
is(allowed(0, 0, 500), 0, 'nobody wants anything');
is(allowed(60000, 0, 500), 60000, 'its own');
is(allowed(0, 60000, 500), 59500, 'the follower\'s, less the time that it takes');
is(allowed(30000, 60000, 500), 30000, 'the shorter one: its own');
is(allowed(90000, 60000, 500), 59500, 'the shorter one: the follower\'s');
is(allowed(0, 60000, 70000), 1000, 'what cannot be kept is done as well as can be');

# allowed, duration, last start, last end, now
is(start_at(0, 500, 100000, 101000, 102000), '', 'nothing is wanted');
is(start_at(60000, 0, 0, 0, 102000), 102000, 'never run: now');
is(start_at(60000, 4000, 100000, 104000, 105000), 152000, 'the lag, less a run and a quarter, less a twentieth of the lag');
is(start_at(60000, 80000, 100000, 180000, 180000), 181000, 'too slow: at once, but for a pause');
is(start_at(60000, 4000, 900000, 904000, 105000), 105000, 'the clock was set back');

# what is expected
is(value($node, 'SELECT lag_duration(0, 700)'), 700, 'the first one is as good as any');
is(value($node, 'SELECT lag_duration(700, 2000)'), 2000, 'slower counts at once');
is(value($node, 'SELECT lag_duration(2000, 400)'), 1600, 'faster by and by');
is(value($node, 'SELECT lag_duration(0, 0)'), 1, 'no time at all is known, too');

# Run after run: as long as none takes a quarter longer than any of the last ones did, the
# data is never older than allowed; and there are not many more runs than needed.
$node->safe_psql('postgres', q(
	CREATE FUNCTION simulate(allowed bigint, shortest bigint, longest bigint, runs integer, OUT oldest bigint, OUT n integer, OUT until bigint)
	LANGUAGE plpgsql AS $$
	DECLARE
		began bigint := 0; ended bigint := 0; expected bigint := 0; next bigint; took bigint; read_at bigint;
	BEGIN
		PERFORM setseed(0.5);
		oldest := 0;
		FOR i IN 1 .. runs LOOP
			next := greatest(lag_start(allowed, expected, began, ended, greatest(ended, 1)), ended, 1);
			took := shortest + floor(random() * (longest - shortest))::bigint;
			IF began > 0 THEN
				oldest := greatest(oldest, next + took - began);
			END IF;
			began := next; ended := next + took;
			expected := lag_duration(expected, took);
		END LOOP;
		n := runs; until := ended;
	END $$));
foreach my $case ([ 60000, 4000, 5000 ], [ 600000, 100000, 120000 ], [ 5000, 10, 12 ], [ 3600000, 60000, 75000 ])
{
	my ($allowed, $least, $most) = @$case;
	my ($oldest, $runs, $until) = split /\|/, value($node, "SELECT * FROM simulate($allowed, $least, $most, 5000)");
	cmp_ok($oldest, '<=', $allowed, "lag $allowed, runs of $least to $most: never older");
	my $needed = $until / ($allowed - $most);
	cmp_ok($runs, '<', 1.25 * $needed, "lag $allowed, runs of $least to $most: not many more runs than needed");
}

$node->stop;
done_testing();
