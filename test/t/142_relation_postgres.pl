# Tables of another PostgreSQL, through postgres_fdw: transactions that commit late over
# there, servers that are killed or frozen, schemas that drift, values of the wrong type.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use RelationTest;

my $node = start_node('local');
my $far = PostgreSQL::Test::Cluster->new('far');
$far->init;
$far->append_conf('postgresql.conf', "timezone = 'UTC'");
$far->start;
$far->safe_psql('postgres', "
	CREATE TABLE orders (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), id bigserial NOT NULL, amount text, padding text,
		changed timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (id));
	CREATE INDEX ON orders (xid, id); CREATE INDEX ON orders (changed, id);
	CREATE VIEW orders_feed AS SELECT *, pg_snapshot_xmin(pg_current_snapshot()) AS horizon FROM orders");
my $user = value($node, 'SELECT current_user');
$node->safe_psql('postgres', "CREATE EXTENSION postgres_fdw;
	CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '" . $far->host . "', port '" . $far->port . "', dbname 'postgres',
		fetch_size '1000', connect_timeout '2');
	CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '$user');
	CREATE FOREIGN TABLE orders_feed (xid xid8, id bigint, amount int, padding text, changed timestamptz, horizon xid8)
		SERVER far OPTIONS (table_name 'orders_feed');
	CREATE FOREIGN TABLE orders (id bigint NOT NULL, amount int, padding text, changed timestamptz NOT NULL)
		SERVER far OPTIONS (table_name 'orders');
	CREATE TABLE by_xid (id bigint, amount int); CREATE TABLE by_time (id bigint PRIMARY KEY, amount int);
	CREATE TABLE whole (id bigint PRIMARY KEY, amount int)");

# ---- what is sent

like(create_pipeline($node, 'by_xid', 'orders_feed', 'by_xid', options => '{"cursor": "xid, id", "horizon": "horizon", "batch_rows": 100}'),
	qr/^(?!.*committed late)/s, 'with a horizon there is no warning');
like(create_pipeline($node, 'by_time', 'orders', 'by_time', mode => 'upsert', key => '{id}', options => '{"cursor": "changed", "batch_rows": 100}'),
	qr/WARNING:  rows of "orders" that are committed late can be missed/, 'without one, there is');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('by_time', options => '{"overlap": "10 s"}')));
create_pipeline($node, 'whole', 'orders', 'whole', mode => 'replace', key => '{id}', schedule => 'manual');
my $plan = value($node, "SELECT string_agg(l, E'\\n') FROM ingest.explain('by_time') l");
like($plan, qr/Remote SQL: SELECT id, amount, changed FROM public\.orders WHERE .*ORDER BY changed ASC NULLS LAST, id ASC NULLS LAST/,
	'columns, conditions and order are the other server\'s work');
unlike($plan, qr/padding/, 'and a column nobody wants is not asked for');
unlike($plan, qr/Sort/, 'nothing is sorted here');
like(value($node, "SELECT string_agg(l, E'\\n') FROM ingest.explain('by_xid') l"), qr/Remote SQL: .*xid < horizon/, 'nor compared');

# ---- late commits

my $writer = open_session($far);
$far->safe_psql('postgres', "INSERT INTO orders (amount) SELECT g FROM generate_series(1, 500) g");
run_pipeline($node, $_) foreach qw(by_xid by_time whole);
same_rows($node, 'SELECT id, amount FROM orders', "SELECT * FROM $_", "$_: everything is there") foreach qw(by_xid by_time whole);
$writer->sql("BEGIN; INSERT INTO orders (amount) VALUES ('1001')");
$far->safe_psql('postgres', "INSERT INTO orders (amount) VALUES ('1002')");
run_pipeline($node, $_) foreach qw(by_xid by_time);
is(value($node, 'SELECT count(*) FROM by_xid WHERE amount > 1000'), 0, 'horizon: nothing above a transaction that runs over there');
$writer->sql('COMMIT');
run_pipeline($node, $_) foreach qw(by_xid by_time);
same_rows($node, 'SELECT id, amount FROM orders', "SELECT * FROM $_", "$_: a late commit is not missed") foreach qw(by_xid by_time);
$far->safe_psql('postgres', "UPDATE orders SET amount = '7', changed = clock_timestamp() WHERE id <= 10; DELETE FROM orders WHERE id BETWEEN 20 AND 29");
run_pipeline($node, $_) foreach qw(by_time whole);
is(value($node, 'SELECT count(*) FROM by_time WHERE amount = 7 AND id <= 10'), 10, 'updates arrive');
same_rows($node, 'SELECT id, amount FROM orders', 'TABLE whole', 'deletes are seen by a full refresh');

# ---- values that this side's type does not take

$far->safe_psql('postgres', "INSERT INTO orders (amount) VALUES ('many'), ('5'), ('1e9x'), ('6')");
run_pipeline($node, $_) foreach qw(by_xid by_time whole);
foreach my $name (qw(by_xid by_time whole))
{
	is( value($node, "SELECT string_agg(sqlstate || ' ' || message, ', ' ORDER BY message) FROM ingest.dead_letter WHERE pipeline = '$name' AND outcome = 'pending'"),
		'22P02 invalid input syntax for type integer: "1e9x", 22P02 invalid input syntax for type integer: "many"',
		"$name: rows that cannot be read are dead letters");
	is(value($node, "SELECT string_agg(amount::text, ' ' ORDER BY id) FROM (SELECT * FROM $name ORDER BY id DESC LIMIT 2) x"), '5 6', "$name: the others are there");
}
is(value($node, "SELECT rejected FROM ingest.replay('by_xid')"), 2, 'such a letter is rejected again');
$node->safe_psql('postgres', "CREATE TABLE keyless (id bigint, amount int)");
create_pipeline($node, 'keyless', 'orders', 'keyless', mode => 'replace', schedule => 'manual');
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('keyless')");
like($err, qr/invalid input syntax for type integer: .*HINT:  Give the pipeline a "key"/s, 'without a key and a cursor it is an error that says what to do');
$far->safe_psql('postgres', "DELETE FROM orders WHERE amount !~ '^[0-9]+\$'");

# ---- the other server goes, and comes back

$far->safe_psql('postgres', "INSERT INTO orders (amount) SELECT g FROM generate_series(1, 40000) g");
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('by_xid', options => '{"poll_interval": "50 ms"}');
	CREATE TABLE other (id serial PRIMARY KEY); CREATE TABLE other_target (id int);
	SELECT ingest.create_pipeline('other', 'other', 'other_target', options => '{"cursor": "id", "poll_interval": "50 ms"}');
	SELECT ingest.start('by_xid'), ingest.start('other')));
wait_for($node, 'SELECT count(*) > 5000 FROM by_xid', 't', 'it reads');
$far->stop('immediate');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'by_xid'", 'backoff', 'killed over there: it backs off');
$node->safe_psql('postgres', 'INSERT INTO other DEFAULT VALUES');
wait_for($node, 'SELECT count(*) FROM other_target', 1, 'others go on');
$far->start;
wait_for($node, 'SELECT (SELECT count(*) FROM by_xid WHERE id > 600) = (SELECT count(*) FROM orders WHERE id > 600)', 't', 'and goes on when it is back');
same_rows($node, 'SELECT id, amount FROM orders WHERE id > 600', 'SELECT * FROM by_xid WHERE id > 600', 'none lost, none twice');

# Frozen: nothing answers.
$writer = open_session($far);
my @frozen = split /\n/, value($far, 'SELECT pid FROM pg_stat_activity WHERE application_name = \'postgres_fdw\'');
ok(@frozen > 0, 'there is a session of ours over there');
kill 'STOP', @frozen;
sleep 0.5;
$node->safe_psql('postgres', 'INSERT INTO other DEFAULT VALUES');
wait_for($node, 'SELECT count(*) FROM other_target', 2, 'frozen: others go on');
my $begin = time;
$node->safe_psql('postgres', 'CREATE DATABASE passing');
$node->safe_psql('postgres', 'DROP DATABASE passing');
cmp_ok(time - $begin, '<', 10, 'A09: databases can be dropped meanwhile');
$begin = time;
$node->safe_psql('postgres', "SELECT ingest.stop('by_xid')");
wait_for($node, "SELECT count(*) FROM ingest._workers() w JOIN ingest._pipeline p ON p.id = w.pipeline_id WHERE p.name = 'by_xid'", 0, 'it can be stopped');
note sprintf 'stopped after %.1f s', time - $begin;
kill 'CONT', @frozen;
$node->safe_psql('postgres', "SELECT ingest.start('by_xid')");
$far->safe_psql('postgres', "INSERT INTO orders (amount) VALUES ('77')");
wait_for($node, 'SELECT count(*) FROM by_xid WHERE amount = 77', 2, 'and goes on');

# ---- drift

$far->safe_psql('postgres', 'DROP VIEW orders_feed; ALTER TABLE orders RENAME amount TO total;
	CREATE VIEW orders_feed AS SELECT *, pg_snapshot_xmin(pg_current_snapshot()) AS horizon FROM orders');
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'by_xid'", 'broken', 'E09: a column that is gone breaks it');
like(value($node, "SELECT sqlstate || ' ' || last_error FROM ingest.pipeline_status WHERE name = 'by_xid'"), qr/^42703 column "amount" does not exist/, 'and it says which');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE orders_feed ALTER amount OPTIONS (column_name 'total'); SELECT ingest.start('by_xid')");
$far->safe_psql('postgres', "INSERT INTO orders (total) VALUES ('78')");
wait_for($node, 'SELECT count(*) FROM by_xid WHERE amount = 78', 2, 'mended, it goes on');

# ---- who may

$node->safe_psql('postgres', "SELECT ingest.stop('by_xid'); CREATE ROLE etl LOGIN; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ingest TO etl; GRANT CREATE ON SCHEMA public TO etl;
	GRANT USAGE ON FOREIGN SERVER far TO etl; GRANT SELECT ON orders TO etl; SET ROLE etl;
	CREATE TABLE mine (id bigint PRIMARY KEY, amount int);
	SELECT ingest.create_pipeline('mine', 'orders', 'mine', mode => 'replace', key => '{id}', schedule => 'manual')");
($rc, $out, $err) = $node->psql('postgres', "SET ROLE etl; CALL ingest.run('mine')");
like($err, qr/user mapping not found for (?:user )?"etl"/, 'E13: nobody else\'s user mapping is used');
$node->safe_psql('postgres', 'REVOKE SELECT ON orders FROM etl');
($rc, $out, $err) = $node->psql('postgres', "SET ROLE etl; CALL ingest.run('mine')");
like($err, qr/permission denied for relation orders/, 'a privilege that is revoked is missing');

$writer->close;
$node->stop;
$far->stop;
done_testing();
