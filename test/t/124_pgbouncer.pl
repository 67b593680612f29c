
# Behind pgbouncer in transaction pooling mode, a connection of a pool meets
# another server process with each statement: what dbpool has prepared may be
# there or not. No session sees any of that, and no answer is another's.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}),
  '/usr/sbin';
plan skip_all => 'pgbouncer is not installed' unless $pgbouncer;

my $remote = make_remote();
my $local = make_local();

# --- pgbouncer ----------------------------------------------------------------

my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $remote_host = $remote->host;
my $remote_port = $remote->port;
my $user = $remote->safe_psql('postgres', 'SELECT current_user');
append_to_file(
	"$dir/pgbouncer.ini", qq{
[databases]
postgres = host=$remote_host port=$remote_port dbname=postgres user=$user
[pgbouncer]
listen_addr =
unix_socket_dir = $dir
listen_port = $port
auth_type = any
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
ignore_startup_parameters = extra_float_digits,options
logfile = $dir/log
pidfile = $dir/pid
});

my $bouncer = IPC::Run::start([ $pgbouncer, '-q', "$dir/pgbouncer.ini" ],
	'>', "$dir/out", '2>', "$dir/err");

END
{
	local $?;
	$bouncer->kill_kill if $bouncer;
}
wait_until('pgbouncer listens', sub { -S "$dir/.s.PGSQL.$port" });
create_pool(
	$local, 'p', undef,
	host => $dir,
	port => $port,
	dbname => 'postgres',
	max_size => 3,
	multiplex => 'off',
	prepare_threshold => 2,
	statement_cache_size => 6);

my $control = session($local);
$remote->safe_psql('postgres', 'CREATE TABLE log (i int)');
learn($control, "dbpool_query('p', 'SELECT 1')");

# Texts more than fit into the cache, from many sessions; each has an answer of
# its own, and writes count.
my ($run, $out) = start_pgbench(
	$local, q{
\set n random(1, 12)
\set v random(1, 1000000)
SELECT 1 / (v = :n * 1000000 + :v)::int FROM dbpool_query('p', 'SELECT :n * 1000000 + $1::int', :v) AS t(v int);
SELECT dbpool_exec('p', 'INSERT INTO log VALUES ($1)', :v);
}, '-c', 8, '-t', 200);
ok($run->finish, 'no session sees an error, or an answer to something else')
  or diag($$out);
is($remote->safe_psql('postgres', 'SELECT count(*) FROM log'),
	'1600', 'each write has run once');
my $stats =
  $control->value('SELECT statements, errors, repeats FROM dbpool_stat_pools');
note("statements, errors, repeats: $stats");
like($stats, qr/^\d+\|0\|\d+$/, 'nor is there one that nobody has seen');
is( $remote->safe_psql(
		'postgres',
		"SELECT count(*) <= 3 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
	),
	't',
	'all of that over the three connections of pgbouncer');

done_testing();
