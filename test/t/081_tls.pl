# TLS to the brokers: what cannot be verified is not talked to.
use strict;
use warnings;

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Certificates;
use IngestTest;
use KafkaPeer;

my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $year = 365 * 86400;

# ---- certificates of two authorities

make_authority($dir, 'ours');
make_authority($dir, 'theirs');
make_certificate($dir, 'ours', 'good', 'IP:127.0.0.1', -86400, $year);
make_certificate($dir, 'ours', 'elsewhere', 'DNS:kafka.example.com', -86400, $year);
make_certificate($dir, 'ours', 'expired', 'IP:127.0.0.1', -2 * $year, -$year);
make_certificate($dir, 'theirs', 'foreign', 'IP:127.0.0.1', -86400, $year);

# ---- a broker with a listener for each

my @certificates = qw(good elsewhere expired foreign);
my %port = map { $_ => KafkaPeer::free_port() } @certificates;
my $kafka = KafkaPeer->new;
my $plain = $kafka->{port};
$kafka->{config} = {
	'listeners' => join(',', "CLIENT://127.0.0.1:$plain", "CONTROLLER://127.0.0.1:$kafka->{controller}",
		map { uc($_) . "://127.0.0.1:$port{$_}" } @certificates),
	'advertised.listeners' => join(',', "CLIENT://127.0.0.1:$plain", map { uc($_) . "://127.0.0.1:$port{$_}" } @certificates),
	'listener.security.protocol.map' => join(',', 'CLIENT:PLAINTEXT', 'CONTROLLER:PLAINTEXT', map { uc($_) . ':SSL' } @certificates),
	map { ("listener.name.$_.ssl.keystore.type" => 'PEM', "listener.name.$_.ssl.keystore.location" => "$dir/$_.pem") } @certificates };
$kafka->start;
$kafka->create_topic('sensors', 1);
$kafka->produce('sensors', count => 100, seed => 1);

my $node = start_node('tls');

sub create_tls_pipeline
{
	my ($name, $port, $options) = @_;
	$node->safe_psql('postgres', "CREATE SERVER $name FOREIGN DATA WRAPPER ingest_kafka
		OPTIONS (brokers '127.0.0.1:$port', timeout '3 s', $options)");
	$node->safe_psql('postgres', "
		CREATE FOREIGN TABLE ${name}_topic (seq bigint) SERVER $name OPTIONS (topic 'sensors', format 'json');
		CREATE TABLE $name (seq bigint);
		SELECT ingest.create_pipeline('$name', '${name}_topic', '$name')");
	return;
}

my $ca = slurp_file("$dir/ours/ca.pem");
my $tls = "security_protocol 'ssl', ssl_ca '$ca'";

create_tls_pipeline('verified', $port{good}, $tls);
drain($node, 'verified');
is(value($node, 'SELECT count(*) FROM verified'), '100', 'C25: a certificate of the authority we trust');
create_tls_pipeline('no_certificate', $port{good}, "security_protocol 'ssl', ssl_ca 'ours'");
fails_with($node, "CALL ingest.run('no_certificate')", '[0-9A-Z]{5}', qr/DETAIL: .*ssl\.ca/s, 'C25: an authority that is none');

foreach my $case (
	[ 'another_authority', $port{foreign}, $tls, qr/certificate verify failed|secure connection/ ],
	[ 'another_host', $port{elsewhere}, $tls, qr/certificate verify failed|hostname mismatch|secure connection/i ],
	[ 'too_old', $port{expired}, $tls, qr/certificate (has )?expired|verify failed|secure connection/i ],
	[ 'nobody_trusted', $port{good}, "security_protocol 'ssl'", qr/certificate verify failed|secure connection/ ],
	[ 'no_tls_there', $plain, $tls, qr/SSL|TLS|secure connection|no broker of topic/ ],
	[ 'tls_there', $port{good}, "security_protocol 'plaintext'", qr/no broker of topic/ ])
{
	my ($name, $port, $options, $like) = @$case;
	create_tls_pipeline($name, $port, $options);
	my $begin = time;
	my $err = fails_with($node, "CALL ingest.run('$name')", '08001', $like, "C25: $name");
	like($err, qr/HINT/, "C25: $name: with a hint");
	cmp_ok(time - $begin, '<', 30, "C25: $name: soon");
	is(value($node, "SELECT count(*) FROM $name"), '0', "C25: $name: nothing was read");
}

# ---- B15: what fails there does not harm what works here, in one process

$node->safe_psql('postgres', "SELECT ingest.start('another_host'); SELECT ingest.start('verified')");
wait_for($node, "SELECT last_error IS NOT NULL FROM ingest.pipeline_status WHERE name = 'another_host'", 't', 'B15: one cannot connect');
$kafka->produce('sensors', count => 100, seed => 1, first => 100);
wait_for($node, 'SELECT count(*) FROM verified', '200', 'B15: the other reads on');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT count(*) FROM another_host_topic;\nSELECT count(*) FROM verified_topic", timeout => 60, on_error_stop => 0);
is($out, '200', 'B15: in one session, too');
$node->stop('fast');
done_testing();
