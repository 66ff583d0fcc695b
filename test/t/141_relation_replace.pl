# Full refresh: nobody sees it halfway, it is refused when too little came back, with a
# key only what has changed is written, and it is whole after any kill.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use RelationTest;

my $node = start_node('replace', conf => "restart_after_crash = on\n");

# ---- readers

$node->safe_psql('postgres', "
	CREATE TABLE crm (id int PRIMARY KEY, name text);
	INSERT INTO crm SELECT g, 'n' || g FROM generate_series(1, 20000) g;
	CREATE TABLE customer (id int, name text);
	CREATE VIEW customer_view AS SELECT count(*) AS n FROM customer");
create_pipeline($node, 'customers', 'crm', 'customer', mode => 'replace', schedule => 'manual', options => '{"batch_rows": 1000}');
run_pipeline($node, 'customers');
same_rows($node, 'TABLE crm', 'TABLE customer', 'everything is there');
my $reader = open_session($node);
my %seen;
$node->safe_psql('postgres', "SELECT ingest.start('customers')");
for my $round (1 .. 5)
{
	$node->safe_psql('postgres', "UPDATE crm SET name = 'round $round'; SELECT ingest.run_now('customers')");
	my $until = time + 20;
	while (value($node, "SELECT count(*) FROM customer WHERE name = 'round $round'") != 20000)
	{
		die 'the refresh does not come' if time > $until;
		$seen{ $reader->sql('SELECT (SELECT count(*) FROM customer), n, (SELECT count(DISTINCT name) FROM (SELECT name FROM customer LIMIT 20000) x WHERE name LIKE \'round%\') FROM customer_view') }++;
	}
}
is(join(' ', grep { !/^20000\|20000\|[01]$/ } keys %seen), '', 'readers and views see the old rows or the new ones');
wait_for($node, "SELECT string_agg(DISTINCT cause || ' ' || outcome, ',') FROM ingest.batch_history WHERE pipeline = 'customers' AND cause <> 'manual'",
	'', 'runs that were asked for are called manual');
$node->safe_psql('postgres', "SELECT ingest.stop('customers')");
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 0, 'it has stopped');

# ---- the floor

$node->safe_psql('postgres', 'DELETE FROM crm WHERE id > 5000');
my ($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('customers')");
like($err, qr/has suspiciously few rows.*Of 20000 rows of the target 5000 would be left/s, 'too few rows are refused');
is(value($node, 'SELECT count(*) FROM customer'), 20000, 'and nothing has changed');
$node->safe_psql('postgres', "SELECT ingest.start('customers'), ingest.run_now('customers')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'customers'", 'paused', 'in background the pipeline is paused');
like(value($node, "SELECT hint FROM ingest.pipeline_status WHERE name = 'customers'"), qr/accept_fewer => true/, 'and says what to do');
$node->safe_psql('postgres', "SELECT ingest.start('customers', accept_fewer => true), ingest.run_now('customers')");
wait_for($node, 'SELECT count(*) FROM customer', 5000, 'what is accepted is done');
$node->safe_psql('postgres', 'DELETE FROM crm');
$node->safe_psql('postgres', "SELECT ingest.run_now('customers')");
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'customers'", 'paused', 'once: an empty source is refused again');
$node->safe_psql('postgres', "SELECT ingest.stop('customers')");

# ---- by key: what has changed

$node->safe_psql('postgres', "
	CREATE TABLE item (id int PRIMARY KEY, name text, price numeric);
	INSERT INTO item SELECT g, 'n' || g, g FROM generate_series(1, 1000) g;
	CREATE TABLE item_target (id int PRIMARY KEY, name text, price numeric);
	CREATE TABLE touched (op text, id int);
	CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN
		INSERT INTO touched VALUES (TG_OP, coalesce(NEW.id, OLD.id)); RETURN NULL; END \$\$;
	CREATE TRIGGER touch AFTER INSERT OR UPDATE OR DELETE ON item_target FOR EACH ROW EXECUTE FUNCTION touch()");
create_pipeline($node, 'items', 'item', 'item_target', mode => 'replace', key => '{id}', schedule => 'manual', options => '{"batch_rows": 100}');
run_pipeline($node, 'items');
$node->safe_psql('postgres', "TRUNCATE touched;
	UPDATE item SET price = price + 1 WHERE id IN (7, 507);
	UPDATE item SET price = '9.0' WHERE id = 9; UPDATE item SET name = 'n11' WHERE id = 11;
	DELETE FROM item WHERE id BETWEEN 100 AND 109; INSERT INTO item VALUES (2001, 'new', 1);
	UPDATE item SET id = 3000 WHERE id = 50");
run_pipeline($node, 'items');
same_rows($node, 'TABLE item', 'TABLE item_target', 'by key: the same afterwards');
is( value($node, 'SELECT string_agg(op || n, \' \' ORDER BY op) FROM (SELECT op, count(*) AS n FROM touched GROUP BY op) x'),
	'DELETE11 INSERT2 UPDATE3', 'by key: only what has changed is written');
run_pipeline($node, 'items');
is(value($node, 'SELECT count(*) FROM touched'), 16, 'by key: nothing for nothing');

# Marked, and back again; or left alone.
$node->safe_psql('postgres', q(ALTER TABLE item_target ADD gone boolean;
	SELECT ingest.alter_pipeline('items', options => '{"on_delete": "mark", "mark_column": "gone"}');
	DELETE FROM item WHERE id <= 5));
run_pipeline($node, 'items');
is(value($node, 'SELECT count(*) FROM item_target WHERE gone'), 5, 'what is gone is marked');
$node->safe_psql('postgres', "INSERT INTO item VALUES (1, 'n1', 1)");
run_pipeline($node, 'items');
is(value($node, 'SELECT count(*) FROM item_target WHERE gone'), 4, 'and unmarked when it comes back');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('items', options => '{"on_delete": "ignore"}'); DELETE FROM item WHERE id <= 900));
run_pipeline($node, 'items');
is(value($node, 'SELECT count(*) FROM item_target WHERE id BETWEEN 200 AND 900'), 701, 'or left alone');

# A row that a rule refuses is not gone.
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('items', options => '{"on_delete": "delete"}');
	DELETE FROM item_target WHERE id NOT IN (SELECT id FROM item);
	SELECT ingest.add_rule('items', 'positive', 'price > 0'); UPDATE item SET price = -1 WHERE id = 950));
run_pipeline($node, 'items');
is(value($node, 'SELECT price FROM item_target WHERE id = 950'), '950', 'a row that is rejected keeps what was there');
run_pipeline($node, 'items');
is(value($node, "SELECT string_agg(outcome, ' ' ORDER BY id) FROM ingest.dead_letter WHERE pipeline = 'items'"),
	'superseded pending', 'its dead letter is replaced by that of the next refresh');
like(value($node, "SELECT payload_text FROM ingest.dead_letter WHERE pipeline = 'items' AND outcome = 'pending'"),
	qr/^\{"id": 950, "name": "n950", "price": "-1"\}$/, 'a dead letter is the row, as JSON');
$node->safe_psql('postgres', "SELECT ingest.drop_rule('items', 'positive')");
is(value($node, "SELECT written FROM ingest.replay('items')"), 1, 'which can be replayed');
is(value($node, 'SELECT price FROM item_target WHERE id = 950'), '-1', 'and is written');

# ---- kills

$node->safe_psql('postgres', 'TRUNCATE item_target; INSERT INTO item SELECT g, md5(g::text), g FROM generate_series(10000, 60000) g');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('items', schedule => '1 second', options => '{"refresh_floor": 0}'); SELECT ingest.start('items')));
for my $round (1 .. 4)
{
	$node->safe_psql('postgres', "UPDATE item SET name = 'k$round' WHERE id % 3 = 0; SELECT ingest.run_now('items')");
	my $pid = '';
	my $until = time + 20;
	while (($pid = value($node, "SELECT pid FROM ingest._workers() WHERE phase = 'loading'")) eq '' && time < $until) { sleep 0.01 }
	sleep rand 0.3;
	kill 'KILL', $pid if $pid =~ /^\d+$/;
	sleep 0.2;
	wait_until_up($node);
	$node->safe_psql('postgres', "SELECT ingest.start('items')");
}
wait_for($node, 'SELECT NOT EXISTS (SELECT id, name, price FROM item EXCEPT SELECT id, name, price FROM item_target)', 't', 'kill -9: it comes to its end');
same_rows($node, 'SELECT id, name, price FROM item', 'SELECT id, name, price FROM item_target', 'kill -9: and is whole');

# ---- definitions that are refused

$node->safe_psql('postgres', q(SELECT ingest.stop('items'); CREATE TABLE plain (id int, v text); CREATE TABLE plain2 (LIKE plain);
	CREATE FUNCTION bump() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO plain VALUES (1) RETURNING id';
	CREATE VIEW writes AS SELECT bump() AS id, 'x'::text AS v; CREATE VIEW rolls AS SELECT id, v FROM plain WHERE random() < 0.5;
	CREATE TABLE points (id point, v text)));
fails_with($node, "SELECT ingest.create_pipeline('x', 'plain', 'plain2')", '22023', qr/needs a cursor, or mode "replace"/, 'no cursor');
fails_with($node, "SELECT ingest.create_pipeline('x', 'plain', 'plain2', options => '{\"cursor\": \"idd\"}')", '42703', qr/does not exist in "plain"/, 'no such column');
fails_with($node, "SELECT ingest.create_pipeline('x', 'plain', 'plain2', options => '{\"cursor\": \"id\"}')", '22023', qr/does not tell the rows of "plain" apart/, 'not unique');
fails_with($node, "SELECT ingest.create_pipeline('x', 'points', 'plain2', options => '{\"cursor\": \"id\"}')", '42809', qr/cannot be a cursor/, 'not orderable');
fails_with($node, "SELECT ingest.create_pipeline('x', 'writes', 'plain2', mode => 'replace', schedule => 'manual')", '42809', qr/volatile function/, 'a view that writes');
fails_with($node, "SELECT ingest.create_pipeline('x', 'rolls', 'plain2', mode => 'replace', schedule => 'manual')", '42809', qr/volatile function/, 'a volatile query');
fails_with($node, "SELECT ingest.create_pipeline('x', 'item', 'plain2', mode => 'replace')", '22023', qr/needs a schedule that is not continuous/, 'continuous');
fails_with($node, "SELECT ingest.create_pipeline('x', 'item', 'plain2', mode => 'replace', key => '{id}', schedule => 'manual')", '42P10', qr/no unique index of "plain2" is on the key/, 'no unique index');
fails_with($node, "SELECT ingest.create_pipeline('x', 'item', 'item', mode => 'replace', schedule => 'manual')", '22023', qr/cannot be source and target/, 'itself');
like(create_pipeline($node, 'noindex', 'item', 'plain2', key => '{id}', options => '{"cursor": "name"}'),
	qr/WARNING:  no index of "item" begins with the cursor.*HINT:  CREATE INDEX ON public.item \(name, id\);/s, 'a missing index is advised');

# A function that says it is stable, and writes: found out when it runs.
$node->safe_psql('postgres', q(CREATE FUNCTION sneaky() RETURNS int LANGUAGE plpgsql STABLE AS
	$$ BEGIN PERFORM bump(); RETURN 1; END $$; CREATE VIEW sneaks AS SELECT i.id, sneaky()::text AS v FROM item i));
create_pipeline($node, 'sneaks', 'sneaks', 'plain2', options => '{"cursor": "id"}');
($rc, $out, $err) = $node->psql('postgres', "CALL ingest.run('sneaks')");
like($err, qr/ERROR: /, 'a view that writes in spite of what it says is refused');
is(value($node, 'SELECT count(*) FROM plain'), 0, 'and has not written');

$reader->close;
$node->stop;
done_testing();
