# The lane never changes what ends up where: one input through both, into
# tables of many kinds, gives the same rows and the same dead letters.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use KafkaPeer;

my $kafka = KafkaPeer->new->start;
my $node = start_node('lanes');
my $dir = PostgreSQL::Test::Utils::tempdir;
create_server($node, $kafka);

$kafka->create_topic('sensors', 3);
$kafka->produce('sensors', count => 15000, seed => 5, bad => 50, tombstones => 10, keys => 20, headers => 1,
	manifest => "$dir/sensors");
load_manifest($node, 'manifest', "$dir/sensors");
create_sensor_topic($node, 'sensors', 'sensors');

# Columns of all kinds that a message may fill, or not.
$kafka->create_topic('types', 1);
$kafka->send('types', map { [ 0, undef, undef, $_ ] } (
	'{"b": true, "i2": 1, "i4": 2, "i8": 3, "f4": 1.5, "f8": 2.5, "n": 123.4500, "t": "x", "v": "abc", "d": "2026-01-01", "tz": "2026-01-01T00:00:00+02:00", "ts": "2026-01-01 00:00:00", "u": "6f1b0c0e-0000-4000-8000-000000000001", "j": {"k": [1, null]}, "a": [1, 2, 3]}',
	'{"b": false, "i2": -32768, "i4": -2147483648, "i8": -9223372036854775808, "f4": "NaN", "f8": "-Infinity", "n": "NaN", "t": "", "v": "", "d": "infinity", "tz": "-infinity", "j": null, "a": []}',
	'{"i2": 32768}', '{"i4": 2147483648}', '{"i8": 1e30}', '{"v": "too long for it"}', '{"v": "abc   "}', '{"n": 1e400}', '{"n": 123456.789}',
	'{"t": "a\u0000b"}', '{"t": "\ud83d\ude00 \u20ac"}', '{"d": "2026-02-30"}', '{"u": "no uuid"}', '{"a": "{1,2}"}', '{"a": [1, [2]]}',
	'{}', '{"unknown": 1}', '{"t": {"as": "text"}}', '{"t": 12}', '{"b": 1}', '{"t": 1, "t": 2}', '[{"i4": 1}, {"i4": "x"}, {"i4": 3}]', 'x', ''));
$node->safe_psql('postgres', q(
	CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> 'xyz');
	CREATE FOREIGN TABLE types (b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 float8, n numeric, t text, v text,
		d date, tz timestamptz, ts timestamp, u uuid, j jsonb, a integer[], kafka_offset bigint OPTIONS (metadata 'offset'))
		SERVER plant OPTIONS (topic 'types', format 'json')));

# name => source, order, DDL with %s for the table's name.
my @cases = (
	[ plain => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s (LIKE sensors)' ],
	[ partitioned => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s (LIKE sensors) PARTITION BY RANGE (event_time);
		SELECT ingest.manage_partitions(\'%1$s\', every => \'1 day\', ahead => 0)' ],
	[ bounded => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s (LIKE sensors) PARTITION BY RANGE (event_time);
		SELECT ingest.manage_partitions(\'%1$s\', every => \'7 days\', ahead => 0, bounds => \'(2026-01-04, 2026-01-20)\')' ],
	[ listed => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s (LIKE sensors) PARTITION BY LIST (status);
		CREATE TABLE %1$s_1 PARTITION OF %1$s FOR VALUES IN (\'operating normally\');
		CREATE TABLE %1$s_2 PARTITION OF %1$s FOR VALUES IN (\'warming up\')' ],
	[ hashed => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s (LIKE sensors) PARTITION BY HASH (sensor_id, seq);
		CREATE TABLE %1$s_1 PARTITION OF %1$s FOR VALUES WITH (MODULUS 2, REMAINDER 0);
		CREATE TABLE %1$s_2 PARTITION OF %1$s FOR VALUES WITH (MODULUS 2, REMAINDER 1)' ],
	[ reordered => 'sensors', 'partition, seq', 'CREATE TABLE %1$s (gone integer, seq bigint, more text DEFAULT \'more\', sensor_id varchar(20), temperature numeric(6,1),
		kafka_offset bigint, kafka_partition smallint, twice float8 GENERATED ALWAYS AS (humidity * 2) STORED, humidity real,
		id bigint GENERATED ALWAYS AS IDENTITY, partition integer DEFAULT 7); ALTER TABLE %1$s DROP COLUMN gone' ],
	[ constrained => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s (LIKE sensors, CHECK (humidity < 90), UNIQUE (seq));
		ALTER TABLE %1$s ALTER pressure SET NOT NULL; CREATE INDEX ON %1$s (sensor_id, event_time); CREATE INDEX ON %1$s (lower(site)) WHERE temperature > 30' ],
	[ attached => 'sensors', 'kafka_partition, kafka_offset', 'CREATE TABLE %1$s_1 (kafka_offset bigint, kafka_partition integer, junk integer, site text, status text, seq bigint,
			event_time timestamptz, pressure float8, humidity float8, temperature float8, sensor_id text); ALTER TABLE %1$s_1 DROP COLUMN junk;
		CREATE TABLE %1$s (LIKE sensors) PARTITION BY RANGE (event_time); ALTER TABLE %1$s ATTACH PARTITION %1$s_1 FOR VALUES FROM (\'2026-01-01\') TO (\'2026-01-15\');
		CREATE TABLE %1$s_2 PARTITION OF %1$s DEFAULT' ],
	[ types => 'types', 'kafka_offset, i4', 'CREATE TABLE %1$s (LIKE types)' ],
	[ narrowed => 'types', 'kafka_offset, i4', 'CREATE TABLE %1$s (LIKE types); ALTER TABLE %1$s ALTER v TYPE short, ALTER n TYPE numeric(5,2), ALTER i8 TYPE integer' ],
);
foreach my $case (@cases)
{
	my ($name, $source, $order, $ddl) = @$case;
	my (%rows, %letters);
	foreach my $lane (qw(direct statement))
	{
		my $table = "${name}_$lane";
		$node->safe_psql('postgres', sprintf($ddl, $table));
		$node->safe_psql('postgres', qq(SELECT ingest.create_pipeline('$table', '$source', '$table',
			options => '{"lane": "$lane", "batch_rows": 4000, "error_rate": 1}')));
		$node->safe_psql('postgres', "SELECT ingest.add_rule('$table', 'above_zero', 'temperature >= 0')") if $source eq 'sensors';
		drain($node, $table);
		is(value($node, "SELECT string_agg(DISTINCT lane, ',') FROM ingest.batch_history WHERE pipeline = '$table'"), $lane,
			"$table: went that way");
		check_accounts($node, $table, $table, $table);
		# Which part a row is in counts too, but not the name of the whole.
		$rows{$lane} = value($node, "SELECT replace(whole.tableoid::regclass::text, '$table', ''), to_jsonb(whole) - 'id'
			FROM $table whole ORDER BY $order, to_jsonb(whole)");
		$letters{$lane} = value($node, "SELECT shard, \"offset\", row_number, stage, rule, sqlstate, replace(message, '$table', ''), column_name, payload, key, headers
			FROM ingest.dead_letter WHERE pipeline = '$table' ORDER BY shard, \"offset\", row_number");
	}
	# Too much for is() to print.
	foreach my $what ([ 'rows', \%rows ], [ 'dead letters', \%letters ])
	{
		my ($kind, $both) = @$what;
		my @direct = split /\n/, $both->{direct};
		my @statement = split /\n/, $both->{statement};
		my ($differs) = grep { ($direct[$_] // '') ne ($statement[$_] // '') } 0 .. ($#direct > $#statement ? $#direct : $#statement);
		ok(!defined $differs, "$name: the same $kind (" . scalar(@direct) . ')')
		  or diag "direct:    $direct[$differs]\nstatement: $statement[$differs]";
	}
}
check_exactly_once($node, 'plain_direct', 'manifest', 'direct lane');
check_exactly_once($node, 'plain_statement', 'manifest', 'statement lane');

# The lane is chosen from the target, and said.
$node->safe_psql('postgres', q(
	CREATE TABLE triggered (LIKE sensors);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
	CREATE TRIGGER note AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION note();
	SELECT ingest.create_pipeline('triggered', 'sensors', 'triggered')));
is(value($node, "SELECT name, lane, lane_reason IS NOT NULL FROM ingest.pipeline_status WHERE name IN ('triggered', 'plain_direct') ORDER BY 1"),
	"plain_direct|direct|f\ntriggered|statement|t", 'the lane is chosen from the target');
fails_with($node, "SELECT ingest.alter_pipeline('triggered', options => '{\"lane\": \"direct\"}'); CALL ingest.run('triggered')",
	'[0-9A-Z]{5}', qr/direct/, 'the direct lane into a table with a trigger');

$node->stop('fast');
done_testing();
