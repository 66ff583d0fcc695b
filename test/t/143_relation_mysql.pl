# Tables of MariaDB, through mysql_fdw.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use IngestTest;
use RelationTest;

my $node = start_node('mysql');
plan skip_all => 'there is no mysql_fdw for this server'
  if value($node, "SELECT count(*) FROM pg_available_extensions WHERE name = 'mysql_fdw'") eq '0';
require MariaDb;
my $maria = MariaDb->new;
$maria->sql("CREATE DATABASE shop; CREATE USER 'etl'\@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT SELECT ON shop.* TO 'etl'\@'127.0.0.1';
	CREATE TABLE shop.product (id INT PRIMARY KEY, name VARCHAR(100), price DECIMAL(10,2), hidden TEXT,
		changed DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), KEY (changed, id)) CHARACTER SET utf8mb4");
$maria->sql("INSERT INTO product (id, name, price, changed) SELECT seq, CONCAT('Ger\x{c3}\x{a4}t ', seq), seq / 4, '2026-01-01' + INTERVAL FLOOR(seq / 10) SECOND FROM seq_1_to_3000", 'shop');
$node->safe_psql('postgres', "CREATE EXTENSION mysql_fdw;
	CREATE SERVER shop FOREIGN DATA WRAPPER mysql_fdw OPTIONS (host '127.0.0.1', port '" . $maria->port . "', fetch_size '1000');
	CREATE USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (username 'etl', password 'secret');
	CREATE FOREIGN TABLE product (id int NOT NULL, name text, price numeric, hidden text, changed timestamp NOT NULL)
		SERVER shop OPTIONS (dbname 'shop', table_name 'product');
	CREATE TABLE product_target (id int PRIMARY KEY, name text, price numeric, changed timestamp); CREATE TABLE whole (LIKE product_target INCLUDING ALL)");
create_pipeline($node, 'products', 'product', 'product_target', mode => 'upsert', key => '{id}', options => '{"cursor": "changed", "overlap": "5 s", "batch_rows": 137}');
create_pipeline($node, 'whole', 'product', 'whole', mode => 'replace', key => '{id}', schedule => 'manual');

my $plan = value($node, "SELECT string_agg(l, E'\\n') FROM ingest.explain('products') l");
like($plan, qr/SELECT `id`, `name`, `price`, `changed` FROM `shop`\.`product`/, 'only the columns that are wanted are asked for');
my $columns = 'SELECT id, name, price, changed FROM product';
run_pipeline($node, $_) foreach qw(products whole);
same_rows($node, $columns, 'TABLE product_target', 'by a cursor: everything is there, ties and all');
same_rows($node, $columns, 'TABLE whole', 'whole: the same');
is(value($node, 'SELECT name FROM whole WHERE id = 7'), "Ger\x{c3}\x{a4}t 7", 'in the right encoding');

$maria->sql("UPDATE product SET price = 99.5, changed = NOW(6) WHERE id <= 20; INSERT INTO product (id, name, price) VALUES (5001, 'neu', 1); DELETE FROM product WHERE id BETWEEN 100 AND 120", 'shop');
$plan = value($node, "SELECT string_agg(l, E'\\n') FROM ingest.explain('products') l");
like($plan, qr/Remote query:.*WHERE/s, 'the condition is sent');
run_pipeline($node, $_) foreach qw(products whole);
is(value($node, 'SELECT count(*) FROM product_target WHERE price = 99.5 AND id <= 20'), 20, 'updates arrive');
same_rows($node, $columns, 'TABLE whole', 'and deletes, with a full refresh');

# Rows that are committed late are within the overlap.
$maria->sql("INSERT INTO product (id, name, price, changed) VALUES (5002, 'late', 1, NOW(6) - INTERVAL 2 SECOND)", 'shop');
run_pipeline($node, 'products');
is(value($node, 'SELECT count(*) FROM product_target WHERE id = 5002'), 1, 'within the overlap nothing is missed');

# Rows that cannot be read are dead letters; rows without a cursor as the policy says.
$maria->sql("CREATE TABLE entry (id INT PRIMARY KEY, changed DATETIME(6), amount VARCHAR(20));
	INSERT INTO entry SELECT seq, '2026-01-01' + INTERVAL (seq DIV 7) SECOND, seq FROM seq_1_to_500;
	UPDATE entry SET amount = 'much' WHERE id IN (17, 400); INSERT INTO entry VALUES (501, NULL, 1)", 'shop');
$node->safe_psql('postgres', "CREATE FOREIGN TABLE entry (id int NOT NULL, changed timestamp, amount int) SERVER shop OPTIONS (dbname 'shop', table_name 'entry');
	CREATE TABLE entry_target (id int PRIMARY KEY, changed timestamp, amount int)");
create_pipeline($node, 'entries', 'entry', 'entry_target', mode => 'upsert', key => '{id}', schedule => 'manual',
	options => '{"cursor": "changed, id", "null_cursor": "skip", "batch_rows": 50}');
run_pipeline($node, 'entries');
is(value($node, "SELECT string_agg(payload_text::jsonb->>'id', ' ' ORDER BY id) FROM ingest.dead_letter WHERE pipeline = 'entries'"), '17 400',
	'values that do not fit are dead letters');
is(value($node, 'SELECT count(*), count(*) FILTER (WHERE id = 501) FROM entry_target'), '498|0', 'the others are there, those without a cursor are skipped');
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('entries', options => '{"null_cursor": "include"}')));
run_pipeline($node, 'entries');
is(value($node, 'SELECT count(*), count(*) FILTER (WHERE id = 501) FROM entry_target'), '499|1', 'or included');

# It goes, and comes back.
$node->safe_psql('postgres', q(SELECT ingest.alter_pipeline('products', options => '{"poll_interval": "100 ms"}'); SELECT ingest.start('products')));
wait_for($node, 'SELECT count(*) FROM ingest._workers()', 1, 'it runs in background');
$maria->kill9;
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'products'", 'backoff', 'killed over there: it backs off');
unlike(value($node, "SELECT coalesce(last_error, '') || coalesce(detail, '') FROM ingest.pipeline_status WHERE name = 'products'"), qr/secret/, 'and keeps the secret');
$maria->start;
$maria->sql("INSERT INTO product (id, name, price) VALUES (5003, 'back', 1)", 'shop');
wait_for($node, 'SELECT count(*) FROM product_target WHERE id = 5003', 1, 'and goes on when it is back');

# A column that is gone.
$maria->sql('ALTER TABLE product DROP COLUMN price', 'shop');
$maria->sql("INSERT INTO product (id, name) VALUES (5004, 'no price')", 'shop');
wait_for($node, "SELECT state IN ('broken', 'failed', 'backoff') AND last_error LIKE '%price%' FROM ingest.pipeline_status WHERE name = 'products'", 't', 'a column that is gone stops it');
like(value($node, "SELECT last_error || coalesce(detail, '') FROM ingest.pipeline_status WHERE name = 'products'"), qr/price/, 'and it says which');

$node->stop;
$maria->stop;
done_testing();
