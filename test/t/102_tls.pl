# Encrypted connections: certificates that are verified in full, authorities and
# names that are refused, certificates of clients, and a cancel over TLS.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'openssl is not installed'
  if system('openssl version >/dev/null 2>&1') != 0;
plan skip_all => 'PostgreSQL was built without OpenSSL'
  if !check_pg_config('#define USE_OPENSSL 1');

# --- certificates -------------------------------------------------------------

my $certs = PostgreSQL::Test::Utils::tempdir;

sub openssl
{
	my @command = @_;
	system_or_bail('openssl', @command);
	return;
}

# An authority of one's own.
sub make_authority
{
	my ($name) = @_;
	openssl(
		'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
		'-subj', "/CN=authority $name", '-keyout', "$certs/$name.key",
		'-out', "$certs/$name.crt");
	return;
}

# A certificate for a name, signed by an authority.
sub make_certificate
{
	my ($file, $cn, $authority) = @_;
	append_to_file("$certs/$file.ext", "subjectAltName = DNS:$cn\n");
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$cn",
		'-keyout', "$certs/$file.key", '-out', "$certs/$file.csr");
	openssl(
		'x509', '-req', '-days', '2', '-in', "$certs/$file.csr",
		'-CA', "$certs/$authority.crt", '-CAkey', "$certs/$authority.key",
		'-CAcreateserial', '-extfile', "$certs/$file.ext",
		'-out', "$certs/$file.crt");
	chmod 0600, "$certs/$file.key";
	return;
}

make_authority('ours');
make_authority('other');
make_certificate('server', 'localhost', 'ours');
make_certificate('elsewhere', 'db.example.org', 'ours');
make_certificate('client', 'cert_user', 'ours');
make_certificate('stranger', 'cert_user', 'other');

# --- servers ------------------------------------------------------------------

my $remote = make_remote(
	conf => qq{
listen_addresses = '127.0.0.1'
ssl = on
ssl_ca_file = '$certs/ours.crt'
ssl_cert_file = '$certs/server.crt'
ssl_key_file = '$certs/server.key'
});
$remote->safe_psql(
	'postgres', q{
	CREATE ROLE tls_user LOGIN PASSWORD 'secret';
	CREATE ROLE cert_user LOGIN;
	CREATE ROLE half_user LOGIN PASSWORD 'half secret';
});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf(
	'pg_hba.conf', q{
local all all trust
hostssl all cert_user 127.0.0.1/32 cert
hostssl all tls_user 127.0.0.1/32 scram-sha-256
hostnossl all tls_user 127.0.0.1/32 scram-sha-256
hostssl all half_user 127.0.0.1/32 scram-sha-256
hostnossl all half_user 127.0.0.1/32 trust
});
$remote->reload;

my $local = make_local();
my $port = $remote->port;
$local->safe_psql(
	'postgres', qq{
	CREATE SERVER remote FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host 'localhost', port '$port', dbname 'postgres', max_size '1',
	             sslmode 'verify-full', sslrootcert '$certs/ours.crt');
	CREATE USER MAPPING FOR PUBLIC SERVER remote
	    OPTIONS (user 'tls_user', password 'secret')});

sub does
{
	my ($sql) = @_;
	my ($out, $err);
	my $status = $local->psql('postgres', $sql, stdout => \$out,
		stderr => \$err, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $status == 0 ? $out : $err;
}

# Changes options of the server and tells whether the remote sees TLS, or the
# error.
my $encrypted = q{SELECT dbpool_query('remote',
    'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')};

sub with_options
{
	my ($options) = @_;
	return does("ALTER SERVER remote OPTIONS ($options); $encrypted");
}

# What the view says of the pool's connection.
sub view_says
{
	return does(
		q{SELECT string_agg(DISTINCT tls::text, ' ') FROM dbpool_connections
		  WHERE pool = 'remote'});
}

# --- the server's certificate ---------------------------------------------------

is(does($encrypted), '(t)', 'verify-full: encrypted');
is(view_says(), 'true', 'verify-full: dbpool_connections.tls');

# The name is looked up by a thread and the address given to libpq, which has to
# check the certificate against the name all the same.
like(
	with_options(q{SET host '127.0.0.1'}),
	qr/ERROR:  08001:.*server certificate for "localhost".* does not match host name "127\.0\.0\.1".*HINT:.*It is TLS/s,
	'verify-full: the address instead of the name is refused');
is(with_options(q{SET sslmode 'verify-ca'}),
	'(t)', 'verify-ca: the name does not matter');
is(with_options(q{SET host 'localhost', SET sslmode 'verify-full'}),
	'(t)', 'verify-full: the name again');

like(
	with_options(qq{SET sslrootcert '$certs/other.crt'}),
	qr/ERROR:  08001:.*certificate verify failed.*The statement was not run.*HINT:.*It is TLS/s,
	'verify-full: an authority that did not sign is refused');
like(
	with_options(q{SET sslmode 'verify-ca'}),
	qr/ERROR:  08001:.*certificate verify failed/s,
	'verify-ca: likewise');
like(
	with_options(qq{SET sslrootcert '$certs/nowhere.crt'}),
	qr/ERROR:  08001:.*root certificate file ".*nowhere\.crt" does not exist/s,
	'an authority that is not there is refused');
is( with_options(
		qq{SET sslmode 'verify-full', SET sslrootcert '$certs/ours.crt'}),
	'(t)',
	'the right authority again');

$remote->append_conf(
	'postgresql.conf', qq{
ssl_cert_file = '$certs/elsewhere.crt'
ssl_key_file = '$certs/elsewhere.key'
});
$remote->restart;
like(
	does($encrypted),
	qr/ERROR:  08001:.*server certificate for "db\.example\.org".* does not match host name "localhost"/s,
	'verify-full: a certificate for another name is refused');
$remote->append_conf(
	'postgresql.conf', qq{
ssl_cert_file = '$certs/server.crt'
ssl_key_file = '$certs/server.key'
});
$remote->restart;
is(does($encrypted), '(t)', 'and the right one is taken again');

is(with_options(q{SET sslmode 'disable'}), '(f)', 'disable: not encrypted');
is(view_says(), 'false', 'disable: dbpool_connections.tls');
is(with_options(q{SET sslmode 'require'}), '(t)', 'require: encrypted');
does(
	q{CREATE SERVER mistaken FOREIGN DATA WRAPPER dbpool;
	  DO $$BEGIN EXECUTE (SELECT format('ALTER SERVER mistaken OPTIONS (%s)', string_agg(format('ADD %I %L', option_name, option_value), ','))
	    FROM pg_options_to_table((SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'remote'))); END$$;
	  CREATE USER MAPPING FOR CURRENT_USER SERVER mistaken OPTIONS (user 'tls_user', password 'wrong')});
like(
	does(q{SELECT dbpool_ping('mistaken')}),
	qr/password authentication failed.*HINT:.*Look at user and password/s,
	'what the server says over TLS has its hint, too');
does(q{SELECT dbpool_drop_pool('mistaken')});
is(view_says(), 'true', 'require: dbpool_connections.tls');

# --- a cancel -----------------------------------------------------------------

is(with_options(q{SET sslmode 'verify-full'}),
	'(t)', 'before the cancel: encrypted');
my $before = does(
	q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')});
like(
	does(
		q{SET statement_timeout = '500ms';
		  SELECT dbpool_query('remote', 'SELECT pg_sleep(300)')}),
	qr/ERROR:  57014: canceling statement due to statement timeout/,
	'a statement is given up');
$remote->poll_query_until(
	'postgres',
	q{SELECT count(*) = 0 FROM pg_stat_activity
	  WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'})
  or die 'the remote statement goes on';
ok(1, 'it ends on the remote');
is(does(q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')}),
	$before, 'and the same connection works on');
is(does($encrypted), '(t)', 'encrypted as before');

# --- certificates of clients -------------------------------------------------------

sub with_mapping
{
	my ($options) = @_;
	return does(
		qq{DROP USER MAPPING FOR PUBLIC SERVER remote;
		   CREATE USER MAPPING FOR PUBLIC SERVER remote
		   OPTIONS ($options, password_required 'false');
		   SELECT dbpool_query('remote', 'SELECT current_user')});
}

is( with_mapping(
		qq{user 'cert_user', sslcert '$certs/client.crt', sslkey '$certs/client.key'}
	),
	'(cert_user)',
	'a certificate of the client lets in');
like(
	with_mapping(q{user 'cert_user'}),
	qr/ERROR:  08001:.*requires a valid client certificate/s,
	'none does not');
like(
	with_mapping(
		qq{user 'cert_user', sslcert '$certs/stranger.crt', sslkey '$certs/stranger.key'}
	),
	qr/ERROR:  08001:/,
	'nor does that of another authority');
like(
	with_mapping(
		qq{user 'tls_user', sslcert '$certs/client.crt', sslkey '$certs/client.key'}
	),
	qr/ERROR:  08001:.*no password supplied/s,
	'nor does one where a password is asked for');
chmod 0644, "$certs/client.key";
like(
	with_mapping(
		qq{user 'cert_user', sslcert '$certs/client.crt', sslkey '$certs/client.key'}
	),
	qr/ERROR:  08001:.*private key file ".*client\.key" has group or world access/s,
	'a key that others can read is refused');

# A certificate is no password: a role that is not superuser may not use one
# that a superuser put into the mapping, but for one whose password need not be
# asked for.
# With a wrong password libpq tries again without TLS, where nobody asks for it.
like(
	does(
		q{CREATE ROLE half LOGIN;
		  GRANT USAGE ON FOREIGN SERVER remote TO half;
		  CREATE USER MAPPING FOR half SERVER remote OPTIONS (user 'half_user', password 'wrong');
		  ALTER SERVER remote OPTIONS (SET sslmode 'prefer');
		  SET ROLE half;
		  SELECT dbpool_query('remote', 'SELECT current_user')}),
	qr/ERROR:  2F003: password is required/,
	'that a password was asked for over TLS does not count without');
does(q{ALTER SERVER remote OPTIONS (SET sslmode 'verify-full')});

chmod 0600, "$certs/client.key";
is( with_mapping(
		qq{user 'cert_user', password 'unasked', sslcert '$certs/client.crt', sslkey '$certs/client.key'}
	),
	'(cert_user)',
	'a certificate again');
like(
	does(
		q{ALTER USER MAPPING FOR PUBLIC SERVER remote OPTIONS (DROP password_required);
		  CREATE ROLE alice; GRANT USAGE ON FOREIGN SERVER remote TO alice;
		  SET ROLE alice;
		  SELECT dbpool_query('remote', 'SELECT current_user')}),
	qr/ERROR:  2F003: password is required/,
	'which is not for those who have to bring a password');

done_testing();
