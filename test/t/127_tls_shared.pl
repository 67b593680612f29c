
# Shared connections over TLS: what TLS has decrypted and libpq has not asked
# for, no socket tells of. None of thousands of statements hangs.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'openssl is not installed'
  if system('openssl version >/dev/null 2>&1') != 0;

my $certs = PostgreSQL::Test::Utils::tempdir;
system_or_bail(
	'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes',
	'-days', '2', '-subj', '/CN=localhost', '-keyout',
	"$certs/server.key", '-out', "$certs/server.crt");
chmod 0600, "$certs/server.key";

my $remote = make_remote(
	conf => qq{
listen_addresses = '127.0.0.1'
ssl = on
ssl_cert_file = '$certs/server.crt'
ssl_key_file = '$certs/server.key'
});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf(
	'pg_hba.conf', q{
local all all trust
hostssl all all 127.0.0.1/32 trust
});
$remote->reload;
my $local = make_local();

create_pool(
	$local, 'p', $remote,
	host => '127.0.0.1',
	sslmode => 'require',
	max_size => 2);
my $control = session($local);

# Small ones, and such as come in many TLS records.
my ($run, $out) = start_pgbench(
	$local, q{
\set n random(1, 15000)
SET statement_timeout = '20s';
SELECT 1 / (v = :n)::int FROM dbpool_query('p', 'SELECT $1::int', :n) AS t(v int);
SELECT 1 / (length(v) = :n)::int FROM dbpool_query('p', 'SELECT repeat($1, $2)', 'x', :n) AS t(v text);
SELECT 1 / (count(*) = :n % 500)::int FROM dbpool_query('p', 'SELECT generate_series(1, $1)', :n % 500) AS t(v int);
}, '-c', 16, '-t', 120);
ok($run->finish, 'each session gets its answers') or diag($$out);
like($$out, qr{processed: 1920/1920}, 'all of them');
is( $control->value(
		"SELECT bool_and(tls), max(statements) > 1000, count(*) <= 2 FROM dbpool_connections"
	),
	't|t|t',
	'over two connections with TLS');
ok(is_at_rest($control, 'p'), 'nothing is left');

done_testing();
