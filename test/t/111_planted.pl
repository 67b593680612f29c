# What dbpool itself runs, on a remote and at home, is what it means: nothing
# that somebody has planted in a schema of the search_path runs in its place,
# though operators, functions, aggregates and types of all the usual names lie
# there, before those of pg_catalog. Each tells the log that it was executed, and
# does what the original does, so that all goes on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Its own remote: so what is planted lies at both ends.
my $local = make_local();
my $path = 'planted, pg_catalog, public';

$local->safe_psql(
	'postgres', q{
	CREATE SCHEMA planted;
	CREATE FUNCTION planted.spy(what text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		RAISE LOG 'planted: %', what;
		RETURN true;
	END $$;

	-- twins of the functions that can have some
	DO $$
	DECLARE f record;
	BEGIN
		FOR f IN SELECT p.oid, p.proname, p.pronargs, p.prorettype::regtype AS result
			FROM pg_proc p
			WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
				AND NOT proretset AND provariadic = 0
				AND NOT EXISTS (SELECT FROM unnest(proargtypes || prorettype) t(o)
				                JOIN pg_type y ON y.oid = o WHERE y.typtype = 'p')
				AND proallargtypes IS NULL AND proname ~ '^[a-z]'
				AND proname !~ '(in|out|recv|send|eq|ne|lt|le|gt|ge|cmp|typmod|hash|larger|smaller)$'
		LOOP
			EXECUTE format('CREATE FUNCTION planted.%I(%s) RETURNS %s LANGUAGE plpgsql AS
				$f$ BEGIN PERFORM planted.spy(%L); RETURN pg_catalog.%I(%s); END $f$',
				f.proname, pg_get_function_arguments(f.oid), f.result, 'function ' || f.proname,
				f.proname, (SELECT string_agg('$' || n, ', ') FROM generate_series(1, f.pronargs) n));
		END LOOP;
	END $$;
	CREATE FUNCTION planted.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS
	$$ BEGIN PERFORM planted.spy('unnest'); RETURN QUERY SELECT pg_catalog.unnest($1); END $$;
	CREATE FUNCTION planted.format(text, name, name) RETURNS text LANGUAGE plpgsql AS
	$$ BEGIN PERFORM planted.spy('format'); RETURN pg_catalog.format($1, $2, $3); END $$;
	CREATE FUNCTION planted.counting(bigint) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN PERFORM planted.spy('count'); RETURN $1 + 1; END $$;
	CREATE AGGREGATE planted.count(*) (SFUNC = planted.counting, STYPE = bigint, INITCOND = '0');
	CREATE FUNCTION planted.maximum(bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN PERFORM planted.spy('max'); RETURN greatest($1, $2); END $$;
	CREATE AGGREGATE planted.max(bigint) (SFUNC = planted.maximum, STYPE = bigint);

	-- of the operators
	DO $$
	DECLARE o record;
	BEGIN
		FOR o IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result
			FROM pg_operator JOIN pg_type lt ON lt.oid = oprleft JOIN pg_type rt ON rt.oid = oprright
			WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'
				AND oprname IN ('=', '<>', '<', '>', '<=', '>=', '~', '!~', '~~', '!~~', '||', '+', '-', '*', '/')
				AND (lt.typtype <> 'p' OR lt.typname = 'anyarray') AND (rt.typtype <> 'p' OR rt.typname = 'anyarray')
		LOOP
			EXECUTE format('CREATE FUNCTION planted.op(%s, %s) RETURNS %s LANGUAGE plpgsql AS
				$f$ BEGIN PERFORM planted.spy(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$',
				o.l, o.r, o.result, 'operator ' || o.oprname, o.oprname);
			EXECUTE format('CREATE OPERATOR planted.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = planted.op)',
				o.oprname, o.l, o.r);
			EXECUTE format('ALTER FUNCTION planted.op(%s, %s) RENAME TO %I', o.l, o.r, 'op ' || o.oprname);
		END LOOP;
	END $$;

	-- and of the types whose names the grammar does not know
	DO $$
	DECLARE t text;
	BEGIN
		FOREACH t IN ARRAY '{bool,bytea,char,int2,int4,int8,jsonb,name,numeric,oid,regclass,regtype,text,timestamptz,uuid,interval}'::text[]
		LOOP
			EXECUTE format('CREATE DOMAIN planted.%I AS pg_catalog.%I CHECK (planted.spy(%L))', t, t, 'type ' || t);
		END LOOP;
	END $$;
	CREATE TABLE public.target (id int, name text);});

my $log_from = -s $local->logfile;

# What of the planted was executed since the last call.
sub planted
{
	my $log = slurp_file($local->logfile, $log_from);

	$log_from = -s $local->logfile;
	return join ', ', $log =~ /LOG:  planted: (.*)$/mg;
}

my $s = session($local);
$s->value("SET search_path = $path");

# --- that it can be ------------------------------------------------------------------

foreach my $control (
	[ q{SELECT 1 = 2}, 'operator =' ],
	[ q{SELECT current_setting('x', true) <> ''}, 'operator <>' ],
	[ q{SELECT relname FROM pg_catalog.pg_class WHERE relname LIKE 'x%'}, 'operator ~~' ],
	[ q{SELECT relname FROM pg_catalog.pg_class WHERE relkind IN ('x', 'y')}, 'operator =' ],
	[ q{SELECT 1::pg_catalog.int8 BETWEEN 0::pg_catalog.int8 AND 2::pg_catalog.int8}, 'operator >=' ],
	[ q{SELECT now()}, 'function now' ],
	[ q{SELECT make_interval(secs => 1)}, 'function make_interval' ],
	[ q{SELECT count(*) FROM pg_catalog.pg_class}, 'count' ],
	[ q{SELECT unnest('{1}'::pg_catalog.int4[])}, 'unnest' ],
	[ q{SELECT 'x'::text}, 'type text' ],
	[ q{SELECT 1::oid}, 'type oid' ])
{
	my ($sql, $what) = @$control;

	$s->value($sql);
	like(planted(), qr/\Q$what\E/, "the planted $what would be executed: $sql");
}

# --- statements ----------------------------------------------------------------------

my %where = (
	host => $local->host,
	port => $local->port,
	dbname => 'postgres',
	options => '-c search_path=planted,pg_catalog,public');

create_pool($local, 'p', undef, %where, validate_after => 0, min_size => 1);
create_pool($local, 'always', undef, %where, reset => 'always');
foreach my $pool ('p', 'always')
{
	foreach my $call (
		q{SELECT dbpool_ping('%s')},
		q{SELECT dbpool_query('%s', 'SELECT 1')},
		q{SELECT dbpool_query_json('%s', 'SELECT $1::pg_catalog.int4', 1)},
		q{SELECT * FROM dbpool_query_as(NULL::public.target, '%s', 'SELECT 1, ''x''')},
		q{SELECT dbpool_exec('%s', 'SET work_mem = ''1MB''')},
		q{SELECT dbpool_exec('%s', 'PREPARE mine AS SELECT 1')},
		q{SELECT dbpool_exec('%s', 'BEGIN; SELECT 1')},
		q{SELECT dbpool_ping('%s')},
		q{SELECT dbpool_bulk_insert('%s', 'public.target', 'SELECT 1, NULL::pg_catalog.text')},
		q{SELECT dbpool_bulk_insert('%s', 'public.target', 'SELECT 1', '{id}')},
		q{SELECT dbpool_reset('%s')},
		q{SELECT dbpool_ping('%s')})
	{
		my $sql = sprintf $call, $pool;

		# a transaction that is left open is an error, and needs a reset
		is($s->query($sql)->{state}, $sql =~ /BEGIN/ ? '25000' : '', $sql);
	}
}
$s->value("TABLE $_")
  foreach ('dbpool_pools', 'dbpool_connections', 'dbpool_requests',
	'dbpool_workers', 'dbpool_stat_pools', 'dbpool_progress_migrate',
	'dbpool_progress_bulk_insert', 'dbpool_migrations',
	'dbpool_migration_history');
is($s->value('TABLE public.target'),
	"1|\n1|\n1|\n1|", 'the bulk inserts have done their work');
is(planted(), '', 'statements, checks, resets, bulk inserts and views');

# --- migrations ----------------------------------------------------------------------

foreach my $format ('dbpool', 'refinery', 'sqlx')
{
	my $options = $format eq 'dbpool' ? '' : "history_format '$format', ";
	my $pool = "m_$format";

	$local->safe_psql(
		'postgres', qq{
		CREATE DATABASE $pool;
		CREATE SERVER $pool FOREIGN DATA WRAPPER dbpool
		    OPTIONS (${options}host '$where{host}', port '$where{port}', dbname '$pool',
		             options '$where{options}');
		CREATE USER MAPPING FOR CURRENT_USER SERVER $pool;});
	planted_copy($pool);
	$s->value(
		"SELECT dbpool_add_migration('$pool', $_, 'm$_', '-- no-transaction'
		 '\nSELECT 1', '-- no-transaction\nSELECT 2')") foreach (1, 3);
	$s->value(
		"SELECT dbpool_add_migration('$pool', $_, 'm$_', 'SELECT 1', 'SELECT 2')"
	) foreach (2, 4);
	foreach my $call (
		q{SELECT * FROM dbpool_migration_status('%s')},
		q{SELECT * FROM dbpool_migrate('%s', target => 3, dry_run => true)},
		q{SELECT * FROM dbpool_migrate('%s', target => 3)},
		q{SELECT * FROM dbpool_migration_status('%s')},
		q{SELECT * FROM dbpool_migration_rollback('%s', steps => 2)},
		q{SELECT * FROM dbpool_migrate('%s', grouped => true, target => 2)},
		q{SELECT * FROM dbpool_migrate('%s', fake => true)},
		q{SELECT * FROM dbpool_migration_repair('%s', force => true)},
		q{SELECT * FROM dbpool_migrate_all()})
	{
		my $sql = sprintf $call, $pool;
		my $answer = $s->query($sql);

		is($answer->{state}, '', $sql) or diag($answer->{err});
	}

	# one that stops in the middle
	$s->value(
		"SELECT dbpool_add_migration('$pool', 5, 'm5', '-- no-transaction'
		 '\nSELECT 1; DROP TABLE nonesuch')");
	is($s->query("SELECT * FROM dbpool_migrate('$pool')")->{state},
		'42P01', "$format: a migration stops in the middle");
	is($s->query("SELECT * FROM dbpool_migrate('$pool')")->{state},
		'55000', 'which is in the way of the next');
	$s->value("SELECT * FROM dbpool_migration_status('$pool')");
	is( $s->query("SELECT dbpool_migration_resolve('$pool', 5, 'pending')")
		  ->{state},
		'',
		'until it is resolved');
	$s->value("SELECT dbpool_drop_migration('$pool', 5)");

	# somebody else has the lock
	my $holder = session($local);
	$holder->send(
		"SELECT dbpool_add_migration('$pool', 6, 'm6', 'SELECT pg_catalog.pg_sleep(60)');
		 SELECT * FROM dbpool_migrate('$pool')");
	$local->poll_query_until(
		$pool,
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()}
	);
	is( $s->query(
			"SELECT * FROM dbpool_migrate('$pool', lock_timeout => '50ms')")
		  ->{state},
		'55P03',
		'the lock is not to be had meanwhile');
	$local->safe_psql('postgres',
		"SELECT pg_cancel_backend(@{[$holder->pid]})");
	is($holder->wait->{state}, '57014', 'a migration is cancelled');
	$holder->quit;
	is(planted(), '', "migrations with a history of format $format");
}

# A copy of the planted for the database of a pool.
sub planted_copy
{
	my ($database) = @_;
	my $dump = "$PostgreSQL::Test::Utils::tmp_check/planted.sql";

	run_log([ 'pg_dump', '-n', 'planted', '-f', $dump, $local->connstr('postgres') ])
	  unless -e $dump;
	$local->command_ok(
		[   'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $dump,
			$local->connstr($database) ],
		"the same is planted in $database");
	return;
}

# Another tool's history is taken over.
$s->value(
	q{ALTER SERVER m_sqlx OPTIONS (SET history_format 'dbpool')});
is( $s->query(
		q{SELECT dbpool_drop_migration('m_sqlx', 6); SELECT * FROM dbpool_migrate('m_sqlx', fake => true)}
	)->{state},
	'',
	'a migration with the history of sqlx');
$s->value(
	q{SELECT dbpool_add_migration('m_sqlx', 9, 'm9', 'SELECT 1'); SELECT * FROM dbpool_migrate('m_sqlx')}
);
is($local->safe_psql('m_sqlx', q{SELECT direction, count(*) FROM planted.dbpool_migration_history GROUP BY 1 ORDER BY 1}),
	"adopted|4\nup|1", 'which is adopted');
is(planted(), '', 'the same');

# A baseline, and one that is moved.
foreach my $version (1, 2)
{
	$s->value(
		"SELECT dbpool_add_migration('p', $version, 'm', 'SELECT 1'); SELECT dbpool_migration_baseline('p', $version)"
	);
}
is(planted(), '', 'a baseline');

# --- after a start -------------------------------------------------------------------

$s->quit;
$local->restart;
$s = session($local);
ok( $s->poll(
		q{SELECT count(*) FROM dbpool_connections WHERE pool = 'p' AND state = 'idle'},
		'1'),
	'a pool is warm after a start');
is(planted(), '', 'and has opened its connection');

$s->quit;
done_testing();
