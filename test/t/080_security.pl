# Secrets stay secret, and everybody does only what he may.
use strict;
use warnings;

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use KafkaPeer;

my $canary = 'canary-9f3b7c1d';
my $wrong = 'canary-wrong-55aa';
my $kafka = KafkaPeer->new(users => { etl => $canary })->start;
my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $node = start_node('security', conf => "log_min_messages = debug1\nlog_statement = none\nlog_min_error_statement = panic");

$kafka->create_topic('sensors', 1);
$kafka->send('sensors', [ 0, undef, undef, '{"sensor_id": "a", "temperature": 1, "ts": "2026-01-01T00:00:00Z", "seq": 0}' ]);
$kafka->produce('sensors', count => 1000, seed => 1, partitions => 1);

my $server = "OPTIONS (brokers '" . $kafka->brokers . "', security_protocol 'sasl_plaintext', timeout '5 s')";
$node->safe_psql('postgres', "CREATE SERVER plant FOREIGN DATA WRAPPER ingest_kafka $server");
$node->safe_psql('postgres', "CREATE USER MAPPING FOR postgres SERVER plant OPTIONS (username 'etl', password '$wrong')");
create_sensor_pipeline($node, 'sensors', 'sensors');

# ---- a wrong password, and none at all

my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM ingest.preview('sensors')", timeout => 60);
isnt($rc, 0, 'a wrong password: the preview fails');
like($err, qr/ERROR/, 'with an error');
like($err, qr/[Aa]uthentication/, 'that says why') or diag $err;
unlike($err, qr/canary/, 'C24: and not the password');
$node->safe_psql('postgres', "SELECT ingest.start('sensors')");
wait_for($node, "SELECT last_error IS NOT NULL AND state <> 'running' FROM ingest.pipeline_status WHERE name = 'sensors'", 't',
	'C24: a wrong password, in background: the state says so');
$node->safe_psql('postgres', "SELECT ingest.stop('sensors')");

# ---- the right one: literally, from a file, from the environment

open my $file, '>', "$dir/password" or die $!;
print $file "$canary\n";
close $file;
foreach my $password ($canary, "file:$dir/password")
{
	$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER plant OPTIONS (SET password '$password')");
	my ($status, $rows) = $node->psql('postgres', "SELECT count(*) FROM ingest.preview('sensors', 10)", timeout => 60);
	is($rows, '10', 'the right password ' . ($password =~ /file/ ? 'in a file' : 'as it is'));
}
drain($node, 'sensors');
is(value($node, 'SELECT count(*) FROM sensors'), '1001', 'and everything is read');

foreach my $case ([ "file:$dir/nothing", qr/nothing|password/ ], [ 'file:/etc', qr/./ ], [ 'env:INGEST_NOT_THERE', qr/./ ])
{
	$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER plant OPTIONS (SET password '$case->[0]')");
	fails_with($node, "SELECT * FROM ingest.preview('sensors')", '[0-9A-Z]{5}', $case->[1], "password $case->[0]");
}
$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER plant OPTIONS (SET password '$canary')");

# ---- others

$node->safe_psql('postgres', q(
	CREATE ROLE etl LOGIN; CREATE ROLE other LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	GRANT CREATE ON SCHEMA public TO etl, other;
	GRANT USAGE ON SCHEMA ingest TO etl, other, monitor;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ingest TO etl, other;
	GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA ingest TO etl, other;
	GRANT USAGE ON FOREIGN SERVER plant TO etl;
	GRANT USAGE ON FOREIGN DATA WRAPPER ingest_kafka TO other));
my $as = sub { my ($role, $sql) = @_; return "SET SESSION AUTHORIZATION $role;\n$sql" };

# A reference to the server's files is not for everybody.
fails_with($node, $as->('other', "CREATE SERVER spy FOREIGN DATA WRAPPER ingest_kafka $server;
	CREATE USER MAPPING FOR other SERVER spy OPTIONS (username 'etl', password 'file:$dir/password');
	CREATE FOREIGN TABLE spy_topic (a integer) SERVER spy OPTIONS (topic 'sensors', format 'json');
	SELECT * FROM spy_topic"), '[0-9A-Z]{5}', qr/./, 'a file: password of an ordinary role');
unlike(value($node, 'SELECT string_agg(coalesce(umoptions::text, \'\'), \' \') FROM pg_user_mappings WHERE usename = \'etl\''), qr/canary/, 'no mapping of others');

# etl makes a pipeline of its own.
$node->safe_psql('postgres', "CREATE USER MAPPING FOR etl SERVER plant OPTIONS (username 'etl', password '$canary')");
$node->safe_psql('postgres', $as->('etl', q(
	CREATE FOREIGN TABLE etl_topic (sensor_id text, temperature float8) SERVER plant OPTIONS (topic 'sensors', format 'json');
	CREATE TABLE etl_table (sensor_id text, temperature float8, who text DEFAULT current_user);
	SELECT ingest.create_pipeline('etl', 'etl_topic', 'etl_table');
	SELECT ingest.add_rule('etl', 'me', 'current_user = ''etl'' AND session_user <> ''x'''))));
foreach my $statement ("SELECT ingest.start('etl')", "SELECT ingest.stop('etl')", "SELECT ingest.drop_pipeline('etl')",
	"SELECT ingest.alter_pipeline('etl', options => '{\"workers\": 2}')", "SELECT ingest.add_rule('etl', 'x', 'true')",
	"SELECT ingest.seek('etl', 'latest', confirm => true)", "SELECT ingest.replay('etl')", "SELECT ingest.discard('etl')",
	"SELECT * FROM ingest.preview('etl')", "CALL ingest.run('etl')", "SELECT ingest.add_transform('etl', 'x', 'SELECT 1')")
{
	fails_with($node, $as->('other', $statement), '(42501|42704)', qr/etl/, "somebody else: $statement");
}
fails_with($node, $as->('other', "CREATE TABLE other_table (sensor_id text); SELECT ingest.create_pipeline('x', 'etl_topic', 'other_table')"),
	'42501', qr/etl_topic|permission|plant/, 'a source of somebody else');
fails_with($node, $as->('etl', "SELECT ingest.create_pipeline('x', 'etl_topic', 'sensors')"), '42501', qr/./, 'a target of somebody else');
fails_with($node, $as->('etl', 'UPDATE ingest._pipeline SET owner = 10'), '42501', qr/_pipeline/, 'the catalogs are closed');
fails_with($node, "SELECT ingest.replay('etl')", '42501', qr/etl/, 'a superuser does not run the SQL of others');

$node->safe_psql('postgres', $as->('etl', "SELECT ingest.start('etl')"));
wait_for($node, 'SELECT count(*) > 900 FROM etl_table', 't', 'its worker reads');
is(value($node, 'SELECT DISTINCT who FROM etl_table'), 'etl', 'as its owner');
is(value($node, "SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'ingest worker'"), 'etl', 'logged in as its owner');
is(value($node, $as->('other', 'SELECT (SELECT count(*) FROM ingest.pipeline_status) + (SELECT count(*) FROM ingest.dead_letter) +
	(SELECT count(*) FROM ingest.batch_history) + (SELECT count(*) FROM ingest.pipeline)')), '0', 'others see nothing');
is(value($node, $as->('monitor', "SELECT (SELECT count(*) FROM ingest.pipeline_status), (SELECT count(*) FROM ingest.dead_letter)")),
	'2|0', 'pg_monitor sees states, not payloads');

# A privilege taken away stops it, and the state says so.
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER plant FROM etl');
$kafka->produce('sensors', count => 10, seed => 1, first => 2000, partitions => 1);
wait_for($node, "SELECT state FROM ingest.pipeline_status WHERE name = 'etl'", 'broken', 'a privilege is revoked: state broken');
like(value($node, "SELECT last_error FROM ingest.pipeline_status WHERE name = 'etl'"), qr/permission/, 'and why');

# ---- keys of the library that reach outside

foreach my $key ('plugin.library.paths', 'ssl.ca.location', 'sasl.kerberos.kinit.cmd', 'enable.ssl.certificate.verification',
	'test.mock.num.brokers', 'debug', 'group.id', 'auto.offset.reset', 'bootstrap.servers', 'sasl.password', 'ssl.key.password')
{
	fails_with($node, "ALTER SERVER plant OPTIONS (ADD \"rdkafka.$key\" '$wrong')", '[0-9A-Z]{5}', qr/\Q$key\E/, "rdkafka.$key");
}

# ---- the canary is nowhere but in the catalog of mappings, which a dump writes

$node->safe_psql('postgres', "SELECT ingest.stop('etl')");
my $everything = value($node, q(
	SELECT string_agg(t::text, E'\n') FROM (
		SELECT to_jsonb(s) FROM ingest.pipeline_status s UNION ALL SELECT to_jsonb(s) FROM ingest.batch_history s
		UNION ALL SELECT to_jsonb(s) FROM ingest.pipeline s UNION ALL SELECT to_jsonb(s) FROM ingest.dead_letter s
		UNION ALL SELECT to_jsonb(s) FROM ingest._state s UNION ALL SELECT to_jsonb(s) FROM ingest._pipeline s
		UNION ALL SELECT to_jsonb(s) FROM ingest.option_help s UNION ALL SELECT to_jsonb(s) FROM pg_stat_activity s
			WHERE pid <> pg_backend_pid()) t));
unlike($everything, qr/canary/, 'no password in views and catalogs');
$node->stop('fast');
my $log = slurp_file($node->logfile);
cmp_ok(length $log, '>', 1000, 'the log was looked at');
unlike($log, qr/canary/, 'no password in the log')
  or diag join "\n", grep { /canary/ } split /\n/, $log;
done_testing();
