
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

# The number of a transaction and what is asked about it could be two servers' here: dbpool
# does not ask. Of the server itself it does.
create_pool($local, 'direct', $remote);
$remote->safe_psql('postgres', q{ALTER SYSTEM SET log_statement = 'all'});
$remote->reload;
$remote->poll_query_until('postgres', q{SELECT current_setting('log_statement') = 'all'})
  or die 'the remote does not log statements';
foreach my $pool ('p', 'direct')
{
	my $from = -s $remote->logfile;
	my $asked = qr/execute [^ ]+: SELECT pg_catalog\.pg_current_xact_id_if_assigned\(\)$/m;

	$control->poll("SELECT dbpool_value(NULL::text, '$pool', 'SHOW log_statement')", 'all');
	is($control->value("SELECT dbpool_exec('$pool', 'INSERT INTO log VALUES (\$1)', 0)"), '1', "$pool: a write");
	my $log = slurp_file($remote->logfile, $from);
	like($log, qr/INSERT INTO log/, "$pool: it is in the log");
	if ($pool eq 'p') { unlike($log, $asked, 'behind a pooler its number is not asked for') }
	else { like($log, $asked, 'of the server itself it is') }
}
$remote->safe_psql('postgres', 'ALTER SYSTEM RESET log_statement');
$remote->reload;
$remote->safe_psql('postgres', 'DELETE FROM log WHERE i = 0');
$control->value('DROP SERVER direct CASCADE');
$control->poll(q{SELECT count(*) FROM dbpool_stat_pools WHERE pool = 'direct'}, '0');
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

# A transaction has one server process until it ends: what it has written and set is
# there at each statement, and nothing of it afterwards.
$remote->safe_psql('postgres', 'TRUNCATE log');
($run, $out) = start_pgbench(
	$local, q{
\set v random(1, 1000000)
SET dbpool.transaction = bound;
BEGIN;
SELECT dbpool_exec('p', 'INSERT INTO log VALUES ($1)', :v);
SELECT dbpool_exec('p', 'SET LOCAL application_name = ''a:v''');
SAVEPOINT a;
SELECT dbpool_exec('p', 'INSERT INTO log VALUES (-1)');
ROLLBACK TO a;
SELECT dbpool_exec('p', 'INSERT INTO log VALUES ($1)', :v);
SELECT 1 / (x = 'a:v' AND n >= 2)::int FROM dbpool_query('p', 'SELECT current_setting(''application_name''), count(*) FROM log WHERE i = $1', :v) AS t(x text, n int);
COMMIT;
SELECT dbpool_begin('p', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO log VALUES (-1)');
SELECT dbpool_rollback('tx');
}, '-c', 6, '-t', 30);
ok($run->finish, 'transactions see what is theirs') or diag($$out);
is($remote->safe_psql('postgres', 'SELECT count(*), min(i) > 0 FROM log'),
	'360|t', 'and what they have written is there as a whole');

my $tx = session($local, options => '-c dbpool.transaction=bound');

foreach my $try (1 .. 3)
{
	$tx->value('BEGIN');
	$tx->value(q{SELECT dbpool_exec('p', 'INSERT INTO log VALUES (-2)')});
	my $answer = $tx->query(q{SET LOCAL statement_timeout = '300ms'; } . query_sleeps('p', 60));
	is($answer->{state}, '57014', 'a call of one is cancelled');
	$tx->value('ROLLBACK');
}
is($tx->value(q{SELECT * FROM dbpool_query('p', 'SELECT count(*) FROM log WHERE i = -2') AS t(n int)}),
	'0', 'and rolled back');
ok( $control->poll('SELECT sum(leased) FROM dbpool_pools', '0'), 'no connection is kept');
is($remote->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'}),
	'0', 'and none is left in a transaction');
$tx->quit;

done_testing();
