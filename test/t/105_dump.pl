# What pg_dump and pg_restore carry: the extension, servers, their options and
# rights, and user mappings; and the pools work in the database they come to.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
$remote->safe_psql(
	'postgres', q{
	CREATE ROLE app LOGIN PASSWORD 'it''s \\ a secret';
	CREATE ROLE other LOGIN PASSWORD 'plain';
});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf',
	"local all app,other scram-sha-256\nlocal all all trust\n");
$remote->reload;

my $local = make_local();
my ($host, $port) = ($remote->host, $remote->port);
$local->safe_psql(
	'postgres', qq{
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE SERVER plain FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host '$host', port '$port', dbname 'postgres');
	CREATE SERVER "Odd name, of 'a' server" FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host '$host', port '$port', dbname 'postgres',
	             acquire_timeout '7s', connect_timeout '4', health_check_interval '11s',
	             idle_timeout '3min', max_lifetime '1h', max_size '3', min_size '1',
	             reset 'always', validate_after '250ms',
	             application_name 'it''s "odd"', options '-c search_path=pg_catalog');
	GRANT USAGE ON FOREIGN SERVER plain TO alice;
	GRANT USAGE ON FOREIGN SERVER "Odd name, of 'a' server" TO PUBLIC;
	ALTER SERVER plain OWNER TO bob;
	COMMENT ON SERVER plain IS 'a pool';
	CREATE USER MAPPING FOR alice SERVER plain
	    OPTIONS (user 'app', password E'it''s \\\\ a secret');
	CREATE USER MAPPING FOR bob SERVER plain
	    OPTIONS (user 'app', password_required 'false');
	CREATE USER MAPPING FOR PUBLIC SERVER "Odd name, of 'a' server"
	    OPTIONS (user 'other', password 'plain');
	SELECT dbpool_create_pool('made', 'postgresql:///postgres?host=$host&port=$port',
	                          '{"max_size": 2, "min_size": 1}');
	CREATE VIEW remote_roles AS
	    SELECT * FROM dbpool_query('made', 'SELECT rolname FROM pg_roles') AS t(name name);
	CREATE FUNCTION who() RETURNS SETOF record LANGUAGE sql
	    RETURN dbpool_query('plain', 'SELECT current_user');
});

# pg_dump sorts options.
my $objects = q{
	SELECT 'server', srvname, srvowner::regrole, srvacl, (SELECT array_agg(o ORDER BY o) FROM unnest(srvoptions) o),
	       obj_description(oid, 'pg_foreign_server')
	FROM pg_foreign_server
	UNION ALL
	SELECT 'mapping', srvname, umuser::regrole, NULL, (SELECT array_agg(o ORDER BY o) FROM unnest(umoptions) o), NULL
	FROM pg_user_mappings
	UNION ALL
	SELECT 'wrapper', fdwname, NULL, fdwacl, (SELECT array_agg(o ORDER BY o) FROM unnest(fdwoptions) o), NULL
	FROM pg_foreign_data_wrapper
	ORDER BY 1, 2, 3};
my $before = $local->safe_psql('postgres', $objects);
is(scalar(() = $before =~ /^mapping\|/mg), 4, 'four mappings are there');

# --- each format, into the same server and into another ------------------------------

my $elsewhere = make_local(name => 'elsewhere');
$elsewhere->safe_psql('postgres',
	'DROP EXTENSION dbpool; CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN');
my $folder = PostgreSQL::Test::Utils::tempdir;

foreach my $target ($local, $elsewhere)
{
	my $to = $target->name;

	foreach my $format ('plain', 'custom')
	{
		my $database = "${format}_copy";
		my $file = "$folder/$to.$format";

		$target->safe_psql('postgres', "CREATE DATABASE $database");
		$local->command_ok(
			[ 'pg_dump', '-F', $format, '-f', $file, 'postgres' ],
			"$to, $format: pg_dump");
		$target->command_ok(
			$format eq 'plain'
			? [
				'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $file,
				$database
			  ]
			: [ 'pg_restore', '-e', '-d', $database, $file ],
			"$to, $format: restore");
		is($target->safe_psql($database, $objects),
			$before, "$to, $format: servers and mappings are the same");

		my $admin = session($target, dbname => $database);
		my $alice = session($target, dbname => $database, user => 'alice');
		is($alice->value(q{SELECT dbpool_query('plain', 'SELECT current_user')}),
			'(app)', "$to, $format: a mapping with a password");
		is( $alice->value(
				q{SELECT dbpool_query('Odd name, of ''a'' server', 'SHOW application_name')}
			),
			'("it\'s ""odd""")',
			"$to, $format: odd options");
		like(
			$alice->query(q{SELECT dbpool_ping('made')})->{err},
			qr/permission denied for foreign server made/,
			"$to, $format: rights");
		is( $admin->value(
				q{SELECT max_size, min_size FROM dbpool_pools
				  WHERE pool = 'made' AND database = current_database()}),
			'2|1',
			"$to, $format: sizes");
		is( $admin->value(
				q{SELECT count(*) FROM remote_roles WHERE name = 'app'}),
			'1',
			"$to, $format: a view over a pool");
		is( $admin->value(
				q{SELECT count(*) FROM dbpool_pools
				  WHERE database = current_database() AND state = 'active'}),
			'3',
			"$to, $format: these are pools of the database's own");
		$alice->quit;
		$admin->quit;
	}
}

# --- in the hands of pg_upgrade ------------------------------------------------------

$elsewhere->stop;
command_ok(
	[   'pg_ctl', '-w', '-D', $elsewhere->data_dir, '-l',
		$elsewhere->logfile, '-o', '-b', 'start'
	],
	'the server starts in binary upgrade mode');
$elsewhere->_update_pid(1);
my $admin = session($elsewhere, dbname => 'custom_copy');
foreach my $call (
	q{dbpool_ping('made')},
	q{dbpool_query('made', 'SELECT 1')},
	q{dbpool_exec('made', 'CREATE TABLE t ()')},
	q{dbpool_bulk_insert('made', 't', 'SELECT 1')},
	q{dbpool_migrate('made')},
	q{dbpool_migration_status('made')})
{
	my $answer = $admin->query("SELECT $call");

	is($answer->{state}, '55000', "$call is refused there");
	like(
		$answer->{err},
		qr/binary upgrade mode.*DETAIL:.*HINT:/s,
		"$call: it is said why");
}
is( $admin->value(
		q{SELECT count(pid) FROM dbpool_workers
		  UNION ALL SELECT count(*) FROM dbpool_connections
		  UNION ALL SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool%'}
	),
	"0\n0\n0",
	'nothing of dbpool runs');
is($admin->query('ALTER SERVER made OPTIONS (SET max_size \'3\')')->{err},
	'', 'definitions can be changed');
$admin->quit;
$elsewhere->stop;
$elsewhere->start;
$admin = session($elsewhere, dbname => 'custom_copy');
is($admin->value(q{SELECT dbpool_ping('made') IS NOT NULL}),
	't', 'afterwards all is as before');
$admin->quit;

# A real one: the servers get other OIDs, and what was registered is found by their
# names again, once a superuser says so.
my ($bin) = $elsewhere->config_data('--bindir');
my $upgraded = PostgreSQL::Test::Cluster->new('upgraded');
$elsewhere->safe_psql(
	'custom_copy', q{
	SELECT dbpool_add_migration('made', 1, 'one', 'SELECT 1');
	SELECT dbpool_add_migration('plain', '1.1', 'other', 'SELECT 2');
	SELECT dbpool_create_pool('gone', 'host=localhost');
	SELECT dbpool_add_migration('gone', 1, 'gone', 'SELECT 3');
	DROP SERVER gone CASCADE;
	INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid)
	VALUES ('made', 1, 'up', 'single', 'done', now(), current_user, 1)});
$elsewhere->stop;
$upgraded->init(extra => [ '--locale=C', '--encoding=UTF8' ]);
PostgreSQL::Test::Utils::append_to_file($upgraded->data_dir . '/postgresql.conf',
	join('', grep { /^(?:extension_destdir|dynamic_library_path|extension_control_path|shared_preload_libraries|max_prepared_transactions)/ }
		  split /^/m, PostgreSQL::Test::Utils::slurp_file($elsewhere->data_dir . '/postgresql.conf')));
{
	my $folder = PostgreSQL::Test::Utils::tempdir;

	# it leaves files in the folder that it runs in
	my $ran = run_log(
		[   'sh', '-c', 'cd "$1" && shift && exec "$@"', '-', $folder,
			'pg_upgrade', '--no-sync', '-d', $elsewhere->data_dir, '-D', $upgraded->data_dir,
			'-b', $bin, '-B', $bin, '-s', $upgraded->host, '-p', $elsewhere->port, '-P', $upgraded->port ]);
	ok($ran, 'pg_upgrade');
}
$upgraded->start;
$admin = session($upgraded, dbname => 'custom_copy');
my $rows = q{SELECT pool, version, serverid = coalesce((SELECT oid FROM pg_foreign_server WHERE srvname = pool), 0) FROM dbpool_migrations ORDER BY 1, 2};
is( $admin->value(
		q{SELECT count(*) FROM dbpool_migrations m JOIN pg_foreign_server s ON s.oid = m.serverid AND s.srvname = m.pool}),
	'0', 'pg_upgrade gives servers other OIDs');
is( $admin->value(q{SELECT count(*) FROM dbpool_migration_status('made') WHERE status <> 'missing'}),
	'0', 'so nothing counts as registered');
$admin->query("ALTER SERVER $_ VERSION '2'") foreach 'made', 'plain';
$admin->query("UPDATE $_ SET pool = pool WHERE serverid <> 0 AND (serverid, pool) NOT IN (SELECT oid, srvname FROM pg_foreign_server)") foreach 'dbpool_migrations', 'dbpool_migration_history';
is($admin->value($rows), "gone|1|t\nmade|1|t\nplain|1.1|t", 'until it is found by the names');
like($admin->query(q{DELETE FROM dbpool_migrations})->{err}, qr/migration 1 of pool "made" has been applied/, 'and is protected');
$admin->quit;
$upgraded->stop;
$elsewhere->start;

# --- the end of a database -----------------------------------------------------------

# The pools of a database go with it.
$local->safe_psql('postgres', 'DROP DATABASE plain_copy');
ok( $local->poll_query_until(
		'postgres',
		q{SELECT count(*) = 0 FROM dbpool_get_connections() c
		  WHERE NOT EXISTS (SELECT FROM pg_database d WHERE d.oid = c.dbid)}),
	'DROP DATABASE closes the connections of its pools');
is( $local->safe_psql(
		'postgres',
		q{SELECT count(*) FROM dbpool_pools WHERE database IS NULL}),
	'0',
	'nothing of it is left in dbpool_pools');

# DROP EXTENSION takes all of it, CREATE EXTENSION begins anew.
$local->safe_psql('custom_copy', 'DROP EXTENSION dbpool CASCADE');
is($local->safe_psql('custom_copy', 'SELECT count(*) FROM pg_foreign_server'),
	'0', 'DROP EXTENSION ... CASCADE drops the servers');
ok( $local->poll_query_until(
		'postgres',
		q{SELECT count(*) = 0 FROM dbpool_connections WHERE database = 'custom_copy'}
	),
	'and closes their connections');
$local->safe_psql('custom_copy', 'CREATE EXTENSION dbpool');

done_testing();
