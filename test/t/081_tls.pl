# TLS to the brokers: what cannot be verified is not talked to.
use strict;
use warnings;

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use IngestTest;
use KafkaPeer;

my $dir = abs_path(PostgreSQL::Test::Utils::tempdir);
my $year = 365 * 86400;

# ---- certificates of two authorities

sub write_file
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die $!;
	return;
}

sub openssl { PostgreSQL::Test::Utils::system_or_bail('openssl', @_); return }

sub asn1_time
{
	my @t = gmtime shift;
	return sprintf '%04d%02d%02d%02d%02d%02dZ', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ];
}

# Only "openssl ca" can make a certificate that has expired.
sub make_authority
{
	my ($name) = @_;
	my $ca = "$dir/$name";
	mkdir $ca;
	write_file("$ca/index", '');
	write_file("$ca/serial", "01\n");
	write_file("$ca/conf", <<"CONF");
[ca]
default_ca = ours
[ours]
database = $ca/index
serial = $ca/serial
new_certs_dir = $ca
certificate = $ca/ca.pem
private_key = $ca/ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
CONF
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', "/CN=$name", '-keyout', "$ca/ca.key", '-out', "$ca/ca.pem");
	return;
}

# A key and its certificate in one file, as Kafka wants them.
sub make_certificate
{
	my ($authority, $name, $host, $from, $to) = @_;
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name", '-addext', "subjectAltName=$host",
		'-keyout', "$dir/$name.key", '-out', "$dir/$name.csr");
	openssl('ca', '-batch', '-notext', '-config', "$dir/$authority/conf", '-startdate', asn1_time(time + $from),
		'-enddate', asn1_time(time + $to), '-in', "$dir/$name.csr", '-out', "$dir/$name.crt");
	write_file("$dir/$name.pem", slurp_file("$dir/$name.key") . slurp_file("$dir/$name.crt"));
	return;
}

make_authority('ours');
make_authority('theirs');
make_certificate('ours', 'good', 'IP:127.0.0.1', -86400, $year);
make_certificate('ours', 'elsewhere', 'DNS:kafka.example.com', -86400, $year);
make_certificate('ours', 'expired', 'IP:127.0.0.1', -2 * $year, -$year);
make_certificate('theirs', 'foreign', 'IP:127.0.0.1', -86400, $year);

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
