# Authorities and their certificates, made with openssl.
package Certificates;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(write_file make_authority make_certificate);

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

# $dir/$name/ca.pem.  Only "openssl ca" can make a certificate that has expired.
sub make_authority
{
	my ($dir, $name) = @_;
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

# $dir/$name.key and .crt, and both in .pem as Kafka wants them; from and to in
# seconds from now.
sub make_certificate
{
	my ($dir, $authority, $name, $host, $from, $to) = @_;
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name", '-addext', "subjectAltName=$host",
		'-keyout', "$dir/$name.key", '-out', "$dir/$name.csr");
	openssl('ca', '-batch', '-notext', '-config', "$dir/$authority/conf", '-startdate', asn1_time(time + $from),
		'-enddate', asn1_time(time + $to), '-in', "$dir/$name.csr", '-out', "$dir/$name.crt");
	write_file("$dir/$name.pem", slurp_file("$dir/$name.key") . slurp_file("$dir/$name.crt"));
	return;
}

1;
