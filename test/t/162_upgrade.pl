
# ALTER EXTENSION dbpool UPDATE, from each version that was released: what is made under
# the old one works, before and after, and in the end every object is as CREATE EXTENSION
# makes it today.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local();
my ($host, $port) = ($remote->host, $remote->port);
my $now = $local->safe_psql('postgres',
	q{SELECT extversion FROM pg_extension WHERE extname = 'dbpool'});
my @released = sort grep { $_ ne $now }
  map { m{/dbpool--(\d+\.\d+\.\d+)\.sql$} ? $1 : () } glob "$FindBin::RealBin/../../sql/*.sql";

$local->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN');
ok(scalar(grep { $_ eq '0.1.0' } @released), '0.1.0 can still be had');

# What is written about the extension and all that hangs on it, as psql lists it.
sub members
{
	my ($database) = @_;
	my ($out, $err) = run_command(
		[ 'psql', '-XAt', '-d', $local->connstr($database), '-c', '\dx+ dbpool' ]);

	return $out;
}

# A dump without what differs from database to database: OIDs, its random key.
sub dump_of
{
	my ($database, @options) = @_;
	my ($out, $err) = run_command(
		[ 'pg_dump', '-d', $local->connstr($database), @options ]);

	is($err, '', "$database: pg_dump @options");
	$out =~ s/^\\(?:un)?restrict .*\n//mg;
	return $out;
}

# The lines that only one of two texts has.
sub differences
{
	my (@texts) = @_;
	my %count;

	$count{$_}++ foreach split /\n/, $texts[0];
	$count{$_}-- foreach split /\n/, $texts[1];
	return join "\n", map { ($count{$_} > 0 ? '- ' : '+ ') . $_ } grep { $count{$_} } sort keys %count;
}

# Each object of the extension by itself, as for pg_upgrade: definitions, comments,
# rights, what is to be dumped of its tables.
sub objects_of
{
	my ($database) = @_;
	my $dump = dump_of($database, '--schema-only', '--binary-upgrade');

	$dump =~ s/^.*binary_upgrade_set_.*\n//mg;
	$dump =~ s/\{\d+(?:,\d+)*\}/{OIDs}/g;
	$dump =~ s/\b(oid|relfrozenxid|relminmxid) = '\d+'/$1/g;
	return $dump;
}

# Pools, mappings, migrations, and what users make of dbpool's views and types.
sub fill
{
	my ($database, $schema) = @_;

	$remote->safe_psql('postgres', "CREATE DATABASE $database");
	$local->safe_psql(
		$database, qq{
		SET search_path = public, $schema;
		SELECT dbpool_create_pool('made', 'host=$host port=$port dbname=$database',
			'{"max_size": 2, "min_size": 1}');
		CREATE SERVER plain FOREIGN DATA WRAPPER dbpool
			OPTIONS (host '$host', port '$port', dbname '$database', application_name 'it''s "odd"');
		CREATE USER MAPPING FOR alice SERVER plain OPTIONS (password_required 'false');
		CREATE USER MAPPING FOR PUBLIC SERVER plain OPTIONS (user 'bob', password 'secret');
		GRANT USAGE ON FOREIGN SERVER plain TO alice;
		COMMENT ON SERVER plain IS 'a pool';
		SELECT dbpool_add_migration('made', 1, 'one', 'CREATE TABLE t (i int)', 'DROP TABLE t');
		SELECT dbpool_add_migration('made', '1.1', 'more', 'INSERT INTO t VALUES (41)');
		SELECT dbpool_add_migration('made', 2, 'two', 'UPDATE t SET i = i + 1');
		SELECT dbpool_add_migration('plain', 7, 'other', 'SELECT 1');
		SELECT dbpool_migrate('made', '1.1');
		CREATE TABLE notes (version dbpool_migration_version, note text);
		INSERT INTO notes VALUES ('1.1', 'mine');
		CREATE VIEW sizes AS SELECT max_size FROM dbpool_pools WHERE pool = 'made' AND database = current_database();
		CREATE VIEW calls AS SELECT * FROM dbpool_stat_pools;
		CREATE VIEW waiting AS SELECT * FROM dbpool_requests;
		CREATE VIEW found AS SELECT i FROM dbpool_query('made', 'SELECT i FROM t') AS t(i int);
		CREATE FUNCTION status() RETURNS SETOF record LANGUAGE sql
			RETURN dbpool_migration_status('made');
	});
	return;
}

# It works, whatever the objects' version is.
sub works
{
	my ($name, $database, $schema, $version, $found) = @_;
	my $s = session($local, dbname => $database);

	$s->query("SET search_path = public, $schema");
	is($s->value('SELECT library, extension FROM dbpool_version()'),
		"$now|$version", "$name: both versions are told");
	is($s->value('SELECT i FROM found'), $found, "$name: a query");
	is($s->value(q{SELECT dbpool_exec('made', 'UPDATE t SET i = i WHERE i = $1', 41)}),
		$found == 41 ? '1' : '0', "$name: a statement");
	is($s->value(q{SELECT dbpool_bulk_insert('made', 't', 'SELECT 1 WHERE false')}),
		'0', "$name: a bulk insert");
	is( $s->value(q{SELECT string_agg(version::text || ' ' || status, ', ' ORDER BY version) FROM dbpool_migration_status('made')}),
		$found == 41 ? '1 applied, 1.1 applied, 2 pending' : '1 applied, 1.1 applied, 2 applied',
		"$name: migrations");
	is($s->value(q{SELECT max_size FROM sizes}), '2', "$name: a view over a view");
	foreach my $view (split /\n/, $s->value(
			q{SELECT c.oid::regclass FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
			  JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e' WHERE extname = 'dbpool' AND relkind = 'v'}))
	{
		is($s->query("SELECT * FROM $view")->{err}, '', "$name: view $view");
	}
	$s->quit;
	return;
}

my $n = 0;
foreach my $version (@released)
{
	foreach my $schema ('public', 'pools')
	{
		my $name = "$version in schema $schema";
		my $database = 'from_' . ++$n;
		my $fresh = "fresh_$n";

		$local->safe_psql('postgres', "CREATE DATABASE $database");
		$local->safe_psql($database, "CREATE SCHEMA pools") if $schema eq 'pools';
		$local->safe_psql($database, "CREATE EXTENSION dbpool SCHEMA $schema VERSION '$version'");
		fill($database, $schema);
		works($name, $database, $schema, $version, 41);

		# What a dump of the old one makes is the new one, with all that was there.
		my $file = PostgreSQL::Test::Utils::tempdir() . '/dump';
		$local->command_ok([ 'pg_dump', '-f', $file, '-d', $local->connstr($database) ],
			"$name: a dump");
		$local->safe_psql('postgres', "CREATE DATABASE $fresh");
		$local->command_ok(
			[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $local->connstr($fresh), '-f', $file ],
			"$name: comes back as $now");

		# What somebody has put there meanwhile could be in the way of what is new; what
		# a superuser has is his affair.
		my $admin = session($local, dbname => $database);

		$admin->value("GRANT CREATE ON SCHEMA $schema TO alice; CREATE FUNCTION $schema.dbpool_mine() RETURNS int LANGUAGE sql RETURN 1");
		foreach my $plant ("FUNCTION $schema.dbpool_new(text) RETURNS int LANGUAGE sql RETURN 1",
			"DOMAIN $schema.dbpool_new AS text")
		{
			my ($kind) = $plant =~ /^(\w+)/;
			my $alice = session($local, dbname => $database, user => 'alice');

			$alice->value("CREATE $plant");
			$alice->quit;
			my $answer = $admin->query('ALTER EXTENSION dbpool UPDATE');

			is($answer->{state}, '42723', "$name: a planted $kind is in the way");
			like($answer->{err}, qr/DETAIL:  (?:pools\.)?dbpool_new/, "$name: it alone is named");
			$admin->value("DROP $kind $schema.dbpool_new");
		}
		$admin->value("ALTER EXTENSION dbpool UPDATE; DROP FUNCTION $schema.dbpool_mine(); REVOKE CREATE ON SCHEMA $schema FROM alice");
		$admin->quit;
		is(differences(members($database), members($fresh)), '', "$name: the same members");
		is(differences(objects_of($database), objects_of($fresh)), '', "$name: each of them is the same");

		# OIDs of servers are the databases' own.
		my $oid = q{SELECT string_agg(srvname || ' ' || oid, ',') FROM pg_foreign_server};
		my @dumps;
		foreach my $of ($database, $fresh)
		{
			my $dump = dump_of($of);

			foreach my $server (split /,/, $local->safe_psql($of, $oid))
			{
				my ($server_name, $number) = split / /, $server;

				$dump =~ s/\t$number$/\t<$server_name>/mg;
			}
			push @dumps, $dump;
		}
		is(differences(@dumps), '', "$name: pools, mappings and migrations are the same");

		works("$name, updated", $database, $schema, $now, 41);
		is($local->safe_psql($database, "SELECT version, status FROM $schema.dbpool_migrate('made')"),
			'2|applied', "$name, updated: the migration that was left");
		works("$name, updated and migrated", $database, $schema, $now, 42);
		works("$name, from the dump", $fresh, $schema, $now, 42);
	}
}

done_testing();
