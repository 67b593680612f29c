# Pools with a min_size have their connections before anybody asks: after a
# start of the server, after the end of a worker, in every database.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
$remote->safe_psql('postgres', q{CREATE ROLE app LOGIN PASSWORD 'secret'});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf',
	"local all app scram-sha-256\nlocal all all trust\n");
$remote->reload;

my $local = make_local();
create_pool($local, 'two', $remote, min_size => 2);
create_pool($local, 'none', $remote);
create_pool($local, 'broken', undef,
	host => '/nowhere/at/all', min_size => 1);
$local->safe_psql(
	'postgres', sprintf q{
	CREATE ROLE alice LOGIN;
	CREATE SERVER one FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host '%1$s', port '%2$s', dbname 'postgres', min_size '1');
	GRANT USAGE ON FOREIGN SERVER one TO alice;
	CREATE USER MAPPING FOR alice SERVER one OPTIONS (user 'app', password 'secret');
	-- whose owner sees the passwords that are sent to where he points it
	CREATE ROLE bob LOGIN;
	GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO bob;
	SET ROLE bob;
	CREATE SERVER bobs FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host '%1$s', port '%2$s', dbname 'postgres', min_size '1');
	GRANT USAGE ON FOREIGN SERVER bobs TO alice;
	CREATE USER MAPPING FOR PUBLIC SERVER bobs OPTIONS (user 'app', password 'secret');
	SET ROLE alice;
	CREATE USER MAPPING FOR alice SERVER bobs OPTIONS (user 'app', password 'secret');
	RESET ROLE;
	CREATE DATABASE second;
	CREATE DATABASE closed ALLOW_CONNECTIONS false;
	CREATE DATABASE plain;
}, $remote->host, $remote->port);
$local->safe_psql(
	'second', sprintf q{
	CREATE EXTENSION dbpool;
	SELECT dbpool_create_pool('three', 'host=%s port=%s dbname=postgres',
	                          '{"min_size": 3}');
}, $remote->host, $remote->port);

# The connections of each pool that are open and free.
my $idle = q{
	SELECT string_agg(format('%s/%s/%s %s', database, pool, user_name, n), ', '
	                  ORDER BY database, pool)
	FROM (SELECT database, pool, user_name, count(*) AS n FROM dbpool_connections
	      WHERE state = 'idle' GROUP BY 1, 2, 3) c};
my $superuser = $local->safe_psql('postgres', 'SELECT current_user');
my $expected =
  "postgres/one/alice 1, postgres/two/$superuser 2, second/three/$superuser 3";

# --- a start of the server ------------------------------------------------------

$local->restart;
my $s = session($local);
ok($s->poll($idle, $expected), 'after a start the pools are warm');
is( $remote->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool'}
	),
	'6',
	'the remote has these connections');
is( $s->value('SELECT coalesce(sum(statements), 0) FROM dbpool_stat_pools'),
	'0', 'without a statement');
ok( $s->poll(
		q{SELECT count(*) FROM pg_stat_activity
		  WHERE backend_type NOT IN
		  ('autovacuum launcher', 'logical replication launcher', 'dbpool worker',
		   'client backend', 'background writer', 'checkpointer', 'walwriter',
		   'archiver', 'startup')
		  AND backend_type NOT LIKE 'io worker%'},
		'0'),
	'who warmed them is gone');
is($s->value('SELECT count(*) FROM dbpool_requests'),
	'0', 'and left no request behind');
is( $s->value(q{SELECT count(*) FROM dbpool_stat_pools WHERE pool = 'bobs'}),
	'0',
	'nobody connects for mappings of others than the owner, who is no superuser'
);
ok( $s->poll(
		q{SELECT connect_error LIKE '%/nowhere/at/all%' FROM dbpool_pools
		  WHERE pool = 'broken'}),
	'a pool that cannot connect tells why');
$s->value(q{SELECT dbpool_query('two', 'SELECT 1')});
is($s->value(q{SELECT connects FROM dbpool_stat_pools WHERE pool = 'two'}),
	'2', 'the first statement opens no connection');
is( session($local, user => 'alice')
	  ->value(q{SELECT dbpool_query('one', 'SELECT current_user')}),
	'(app)', 'a role that is no superuser finds hers');

# Nobody holds the databases.
foreach my $database ('plain', 'closed')
{
	is($s->query("DROP DATABASE $database")->{state},
		'', "DROP DATABASE $database is not in anybody's way");
}

# --- the end of the worker ----------------------------------------------------------

$local->safe_psql('postgres',
	q{CREATE USER MAPPING FOR bob SERVER bobs OPTIONS (user 'app', password 'secret')}
);
$expected = "postgres/bobs/bob 1, $expected";
$s->value(sprintf 'SELECT pg_terminate_backend(%d)', worker_pid($s));
$s->poll('SELECT starts FROM dbpool_workers', '2');
ok($s->poll($idle, $expected),
	'after the end of the worker the pools are warm again, the owner\'s too');
ok( $remote->poll_query_until(
		'postgres',
		q{SELECT count(*) = 7 FROM pg_stat_activity WHERE application_name = 'dbpool'}
	),
	'the old connections are gone');

# --- connections that are lost, limits that change -------------------------------------

$remote->stop('immediate');
$remote->start;
ok($s->poll($idle, $expected), 'after a restart of the remote as well');
$s->value(q{ALTER SERVER two OPTIONS (SET min_size '4')});
$s->value(q{SELECT dbpool_ping('two')});
ok( $s->poll(
		q{SELECT idle FROM dbpool_pools WHERE pool = 'two'}, '4'),
	'a higher min_size takes effect');
$local->restart;
$s = session($local);
ok( $s->poll(
		q{SELECT idle FROM dbpool_pools WHERE pool = 'two'}, '4'),
	'and holds after a start');

$s->quit;
done_testing();
