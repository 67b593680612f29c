# Migrations: who may run them, what shows while they run, and what is left of
# them when somebody ends them, wherever they are.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# "At once", in seconds, on a machine that has other things to do.
my $at_once = 5;

# A word that occurs nowhere else.
my $password = 'hUshwOrd1';

# The lock that sqlx takes in a database "postgres", and so does dbpool.
my $lock_key = '368907709894077238';

my $remote = make_remote(
	conf => "wal_level = replica\nmax_wal_senders = 2\n");
$remote->safe_psql(
	'postgres', qq{
	CREATE ROLE app LOGIN PASSWORD '$password';
	CREATE ROLE trusted LOGIN;
	GRANT app TO trusted;
	CREATE TABLE gate ();
	GRANT ALL ON gate TO PUBLIC;
	CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
	\$\$ BEGIN PERFORM 1 FROM public.gate; RETURN NULL; END \$\$;});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf',
	"local all app scram-sha-256\nlocal all all trust\n");
$remote->reload;

my $local = make_local(conf => "log_min_messages = debug2\n");
my $start_of_log = -s $local->logfile;
my $control = session($local);
my $there = session($remote);
my $watch = session($remote);

# A pool whose remote is a schema of its own, with migrations 1, 2, ... of these
# texts.
sub pool
{
	my ($pool, @texts) = @_;
	my $version = 0;

	$remote->safe_psql('postgres', "CREATE SCHEMA $pool");
	create_pool($local, $pool, $remote,
		options => "-c search_path=$pool,public");
	foreach my $text (@texts)
	{
		$version++;
		$control->value(
			"SELECT dbpool_add_migration('$pool', $version, 'm$version', \$mig\$$text\$mig\$)"
		);
	}
	return $pool;
}

# The status of each migration of a pool.
sub statuses
{
	my ($pool) = @_;
	return $control->value(
		"SELECT string_agg(version || ' ' || status, ', ' ORDER BY version) FROM dbpool_migration_status('$pool')"
	);
}

# The attempts at a pool's migrations, by the local history.
sub attempts
{
	my ($pool) = @_;
	return $control->value(
		"SELECT string_agg(concat_ws(' ', version, mode, status, sqlstate), ', ' ORDER BY id) FROM dbpool_migration_history WHERE pool = '$pool'"
	);
}

# Let a migration that reads from the gate wait.
sub close_gate { $there->value('BEGIN; LOCK TABLE gate'); return; }
sub open_gate { $there->value('ROLLBACK'); return; }

# See a session come to a phase, and there to a lock that it has to wait for.
sub see
{
	my ($s, $phase) = @_;

	$control->poll(
		"SELECT count(*) FROM dbpool_progress_migrate WHERE pid = ${\$s->pid} AND phase = '$phase'",
		'1');
	$watch->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool migration' AND wait_event_type = 'Lock'",
		'1') if $phase eq 'migrating' || $phase eq 'reading history';
	return;
}

# Start something in a session of its own, and see it come to a phase.
sub start
{
	my ($sql, $phase, %params) = @_;
	my $s = session($local, %params);

	$s->send($sql);
	see($s, $phase);
	return $s;
}

# Nothing is left of a run, at either end.
sub nothing_left
{
	my ($name) = @_;

	ok( $watch->poll(
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool migration'",
			'0'),
		"$name: no session is left on the remote");
	is( $watch->value(
			"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
		'0', "$name: nor a lock");
	is($control->value('SELECT count(*) FROM dbpool_progress_migrate'),
		'0', "$name: nor a row of the progress view");
	ok( $control->poll(
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'",
			'0'),
		"$name: nor a recorder");
	return;
}

# --- rights ------------------------------------------------------------------------

subtest 'who may' => sub {
	my ($host, $port) = ($remote->host, $remote->port);

	$local->safe_psql(
		'postgres', qq{
		CREATE ROLE alice LOGIN;
		CREATE ROLE member LOGIN IN ROLE alice;
		CREATE ROLE deployer LOGIN;
		CREATE ROLE sub_deployer LOGIN IN ROLE deployer;
		CREATE ROLE user_only LOGIN;
		CREATE ROLE no_usage LOGIN;
		CREATE ROLE no_mapping LOGIN;
		CREATE ROLE no_password LOGIN;
		CREATE ROLE not_asked LOGIN;
		CREATE ROLE excused LOGIN;
		GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO alice;
		CREATE SERVER rights FOREIGN DATA WRAPPER dbpool OPTIONS (host '$host', port '$port', dbname 'postgres', options '-c search_path=rights');
		ALTER SERVER rights OWNER TO alice;
		GRANT USAGE ON FOREIGN SERVER rights TO deployer, user_only, no_mapping, no_password, not_asked, excused;
		CREATE USER MAPPING FOR alice SERVER rights OPTIONS (user 'app', password '$password');
		CREATE USER MAPPING FOR member SERVER rights OPTIONS (user 'app', password '$password');
		CREATE USER MAPPING FOR deployer SERVER rights OPTIONS (user 'app', password '$password');
		CREATE USER MAPPING FOR sub_deployer SERVER rights OPTIONS (user 'app', password '$password');
		CREATE USER MAPPING FOR user_only SERVER rights OPTIONS (user 'app', password '$password');
		CREATE USER MAPPING FOR no_usage SERVER rights OPTIONS (user 'app', password '$password');
		CREATE USER MAPPING FOR no_password SERVER rights OPTIONS (user 'trusted');
		CREATE USER MAPPING FOR not_asked SERVER rights OPTIONS (user 'trusted', password '$password');
		CREATE USER MAPPING FOR excused SERVER rights OPTIONS (user 'trusted', password_required 'false');
		GRANT EXECUTE ON FUNCTION dbpool_migrate TO deployer, no_usage, no_mapping, no_password, not_asked, excused;
		GRANT EXECUTE ON FUNCTION dbpool_migrate TO PUBLIC;});
	$remote->safe_psql('postgres',
		'CREATE SCHEMA rights AUTHORIZATION app'
	);
	my %s = map { $_ => session($local, user => $_) }
	  qw(alice member deployer sub_deployer user_only no_usage no_mapping no_password not_asked excused);
	my $migrate = q{SELECT version, status FROM dbpool_migrate('rights')};
	my $add = sub {
		return sprintf
		  q{SELECT dbpool_add_migration('rights', %d, 'm%d', 'CREATE TABLE t%d ()', 'DROP TABLE t%d')},
		  ($_[0]) x 4;
	};

	$s{alice}->value($add->(1));
	is($s{alice}->value($migrate), '1|applied', 'the owner');
	$s{member}->value($add->(2));
	is($s{member}->value($migrate), '2|applied', 'a member of the owner');
	$s{alice}->value($add->(3));
	is($s{deployer}->value($migrate),
		'3|applied', 'one that was granted EXECUTE');
	$s{alice}->value($add->(4));
	is($s{sub_deployer}->value($migrate),
		'4|applied', 'a member of one that was');

	# EXECUTE that PUBLIC has does not count, not even when it is granted.
	foreach my $call (
		q{dbpool_migrate('rights')},
		q{dbpool_migration_rollback('rights')},
		q{dbpool_migration_status('rights')},
		q{dbpool_migration_repair('rights')},
		q{dbpool_migration_resolve('rights', 1, 'applied')},
		q{dbpool_migration_baseline('rights', 1)},
		q{dbpool_add_migration('rights', 9, 'x', 'SELECT 1')})
	{
		my $answer = $s{user_only}->query("SELECT * FROM $call");
		is($answer->{state}, '42501', "not one that may use the pool: $call");
		like(
			$answer->{err},
			qr/permission denied for migrations of pool "rights".*DETAIL: +Role "user_only" does not own the server/s,
			'and is told why');
	}
	my $answer = $s{deployer}->query(q{SELECT * FROM dbpool_migration_rollback('rights')});
	is($answer->{state}, '42501', 'EXECUTE on one is none on another');
	is( $s{user_only}->value(
			q{SELECT pool, status, sqlstate FROM dbpool_migrate_all('{rights}')}),
		'rights|failed|42501',
		'nor is there a way round by dbpool_migrate_all');
	is( $s{deployer}->value(
			q{SELECT pool, status, sqlstate FROM dbpool_migrate_all('{rights}')}),
		'rights|failed|42501',
		'which wants a right of its own');

	$answer = $s{no_usage}->query($migrate);
	is($answer->{state}, '42501', 'EXECUTE without USAGE');
	like(
		$answer->{err},
		qr/permission denied for foreign server rights/,
		'is not enough');
	$answer = $s{no_mapping}->query($migrate);
	like(
		$answer->{err},
		qr/there is no user mapping of role "no_mapping"/,
		'without a user mapping');
	like($s{no_password}->query($migrate)->{err},
		qr/password/, 'a mapping without a password');
	$answer = $s{not_asked}->query($migrate);
	is($answer->{state}, '2F003', 'a remote that does not ask for it');
	like($answer->{err}, qr/password is required/, 'is refused');
	like(
		$s{excused}->query($migrate)->{err},
		qr/has nothing to migrate/,
		'unless a superuser has said that it need not be');

	# What the remote role may not do, no migration can.
	$s{alice}->value(
		q{SELECT dbpool_add_migration('rights', 5, 'm5', 'CREATE TABLE t5 (); CREATE ROLE mine SUPERUSER')}
	);
	$answer = $s{alice}->query($migrate);
	is($answer->{state}, '42501', 'a migration that is not the remote role\'s');
	like($answer->{err}, qr/statement 2 at line 1, column 21/, 'says where');
	is( $remote->safe_psql(
			'postgres',
			q{SELECT string_agg(DISTINCT applied_by, ',') FROM rights.dbpool_migration_history}
		),
		'app',
		'the remote knows it was the remote role');
	is( $control->value(
			q{SELECT string_agg(DISTINCT executed_by, ',') FROM dbpool_migration_history WHERE pool = 'rights'}
		),
		'alice,deployer,member,sub_deployer',
		'the local history who it was');

	# The tables are for the functions to write to.
	foreach my $sql (
		'INSERT INTO dbpool_migrations (pool, version, name, up_sql) VALUES (\'rights\', 9, \'x\', \'SELECT 1\')',
		'UPDATE dbpool_migrations SET up_sql = \'SELECT 1\'',
		'DELETE FROM dbpool_migration_history',
		'TRUNCATE dbpool_migration_history',
		'UPDATE dbpool_migration_history SET status = \'done\'')
	{
		is($s{alice}->query($sql)->{state}, '42501', "nobody may: $sql");
	}
	is($s{alice}->value('SELECT count(*) FROM dbpool_migration_history'),
		'5', 'the owner sees the attempts at her pool');
	is($s{deployer}->value('SELECT count(*) FROM dbpool_migration_history'),
		'1', 'others their own');
	is($s{user_only}->value('SELECT count(*) FROM dbpool_migration_history'),
		'0', 'or none');

	# Functions of the owner's act for her.
	$local->safe_psql(
		'postgres', q{
		CREATE FUNCTION deploy() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS
		$$ SELECT status FROM dbpool_migrate('rights') $$;
		ALTER FUNCTION deploy() OWNER TO alice;});
	$s{alice}->value(q{SELECT dbpool_drop_migration('rights', 5)});
	$s{alice}->value($add->(6));
	is($s{user_only}->value('SELECT deploy()'),
		'applied', 'a function of the owner\'s lets others do it');

	# A superuser has all rights but a mapping of her own.
	$control->value($add->(7));
	like($control->query($migrate)->{err},
		qr/there is no user mapping/, 'a superuser without a mapping');
	$local->safe_psql('postgres',
		'CREATE USER MAPPING FOR CURRENT_USER SERVER rights OPTIONS (user \'trusted\')'
	);
	like($control->query($migrate)->{err},
		qr/password is required/, 'or without a password, as others wrote what runs');
	is($control->value(
			q{SELECT count(*) FROM dbpool_migrate_all() WHERE pool = 'rights'}),
		'0', 'nor is it done unasked');
	$local->safe_psql('postgres',
		'ALTER USER MAPPING FOR CURRENT_USER SERVER rights OPTIONS (ADD password_required \'false\')'
	);
	is($control->value($migrate), '7|applied', 'a superuser');
	$_->quit foreach values %s;
	nothing_left('rights');
};

# --- what shows ----------------------------------------------------------------------

subtest 'progress' => sub {
	my $pool = pool(
		'progress',
		'CREATE TABLE t1 ()',
		'CREATE TABLE t2 (); SELECT count(*) FROM gate; SELECT 1; SELECT 2',
		'CREATE TABLE t3 (i int); CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t3 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_gate(); INSERT INTO t3 VALUES (1)'
	);
	my $view =
	  'SELECT pool, datname = current_database(), phase, version, name, direction, statements_done, statements_total, migrations_done, migrations_total, started_at <= now() FROM dbpool_progress_migrate';

	is($control->value($view), '', 'no run, no row');
	$there->value("SELECT pg_advisory_lock($lock_key)");
	my $s = start("SELECT version, status FROM dbpool_migrate('$pool', 2)",
		'waiting for lock');
	is($control->value($view),
		'progress|t|waiting for lock||||0|0|0|0|t'
		  =~ s/\|\|\|\|/|||up|/r,
		'waiting for lock');
	close_gate();
	$there->value("SELECT pg_advisory_unlock($lock_key)");
	see($s, 'migrating');
	like(
		$control->value($view),
		qr/^progress\|t\|migrating\|2\|m2\|up\|[01]\|4\|1\|2\|t$/,
		'the second migration of two, which has four statements');
	open_gate();
	my $answer = $s->wait;
	is($answer->{out}, "1|applied\n2|applied", 'it ends');
	like(
		$answer->{err},
		qr/NOTICE:  00000: migration 1 "m1" on pool "progress": applied in [0-9.]+ ms\n.*migration 2 "m2" on pool "progress": applied in [0-9.]+ ms/s,
		'and has told of both');

	close_gate();
	$s->send("SELECT version, status FROM dbpool_migrate('$pool')");
	see($s, 'committing');
	is($control->value($view),
		'progress|t|committing|3|m3|up|3|3|0|1|t',
		'committing');
	open_gate();
	is($s->wait->{out}, '3|applied', 'it has');

	# The history is being written to, by somebody who takes his time.
	$there->value(
		'BEGIN; LOCK TABLE progress.dbpool_migration_history');
	$s->send("SELECT count(*) FROM dbpool_migration_status('$pool')");
	see($s, 'reading history');
	$there->value('ROLLBACK');
	is($s->wait->{out}, '3', 'the status is shown as well');

	# A name longer than the view has room for ends between two characters.
	$control->value(
		"SELECT dbpool_add_migration('$pool', 4, repeat('ä', 60), 'SELECT count(*) FROM gate')"
	);
	close_gate();
	$s = start("SELECT version, status FROM dbpool_migrate('$pool')",
		'migrating');
	like($control->value('SELECT name FROM dbpool_progress_migrate'),
		qr/^(ä)+$/, 'a long name');
	$control->value(
		'CREATE ROLE curious LOGIN; GRANT SELECT ON dbpool_progress_migrate TO curious'
	);
	my $curious = session($local, user => 'curious');
	is( $curious->value('SELECT pid IS NOT NULL, pool, phase, version FROM dbpool_progress_migrate'),
		't|||',
		'others may see that somebody migrates, and no more');
	$curious->quit;
	open_gate();
	$s->wait;
	$s->quit;
	nothing_left('progress');
};

subtest 'the lock' => sub {
	my $pool = pool('lock', 'CREATE TABLE t1 (); SELECT count(*) FROM gate',
		'CREATE TABLE t2 ()');

	$there->value("SELECT pg_advisory_lock($lock_key)");
	my $answer = $control->query(
		"SELECT * FROM dbpool_migrate('$pool', lock_timeout => '300 ms')");
	is($answer->{state}, '55P03', 'it is held by another');
	cmp_ok($answer->{seconds}, '>', 0.29, 'not before lock_timeout');
	cmp_ok($answer->{seconds}, '<', $at_once, 'nor long after');
	my $pid = $there->pid;
	like(
		$answer->{err},
		qr/could not get the lock for migrations on pool "lock" within 300 ms\nDETAIL: +The remote's process $pid holds it: user "\w+", application "[^"]+", connected since/,
		'who that is');
	$answer = $control->query(
		"SELECT * FROM dbpool_migrate('$pool', lock_timeout => '0')");
	is($answer->{state}, '55P03', 'one look');
	cmp_ok($answer->{seconds}, '<', $at_once, 'does not wait');
	is(attempts($pool), '', 'nothing was tried');
	$there->value("SELECT pg_advisory_unlock($lock_key)");

	# The second of two waits, and finds nothing to do.
	close_gate();
	my $first = start("SELECT version FROM dbpool_migrate('$pool')",
		'migrating');
	my $second = start("SELECT version FROM dbpool_migrate('$pool')",
		'waiting for lock');
	is( $control->value(
			"SELECT count(*) FROM dbpool_migration_status('$pool')"),
		'2',
		'the status waits for nobody');
	open_gate();
	is($first->wait->{out}, "1\n2", 'the first of two runs all');
	$answer = $second->wait;
	is($answer->{out}, '', 'the second nothing');
	like($answer->{err}, qr/has nothing to migrate/, 'and says so');
	$first->quit;
	$second->quit;
	nothing_left('lock');
};

# --- whatever ends it ------------------------------------------------------------------

# A run is ended in each phase, by each of these.
my %ends = (
	cancel => [ 'pg_cancel_backend', '57014' ],
	timeout => [ '', '57014' ],
	end => [ 'pg_terminate_backend', '57P01' ]);

# Start something and see it come to a phase, end it in that way.
sub end_in
{
	my ($name, $sql, $phase, $how, $there) = @_;
	my ($function, $state) = @{ $ends{$how} };
	my $s = start($sql, $phase,
		$how eq 'timeout' ? (options => '-c statement_timeout=1500ms') : ());

	$watch->poll($there) if $there;
	my $started = time;

	$control->value("SELECT $function(${\$s->pid})") if $function;
	my $answer = $s->wait;
	is($answer->{state}, $state, "$name, $how: it ends");
	is( $watch->value(
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool migration' AND state = 'active'"
		),
		'0',
		"$name, $how: what ran on the remote has ended before") if $how ne 'end';
	cmp_ok(time - $started,
		'<', $at_once + ($function ? 0 : 2), "$name, $how: at once");
	$s->quit;
	nothing_left("$name, $how");
	return $answer;
}

foreach my $how (sort keys %ends)
{
	my $state = $ends{$how}->[1];
	my $after = $how eq 'end' ? 'interrupted' : "failed $state";

	subtest "$how while connecting" => sub {
		my $silent = silent_listener();
		my $pool = "connecting_$how";

		create_pool($local, $pool, undef,
			host => '127.0.0.1',
			port => $silent->sockport,
			connect_timeout => '60s');
		$control->value(
			"SELECT dbpool_add_migration('$pool', 1, 'm1', 'SELECT 1')");
		end_in('connecting', "SELECT * FROM dbpool_migrate('$pool')",
			'connecting', $how);
		is(attempts($pool), '', 'nothing was tried');
	};

	subtest "$how while waiting for the lock" => sub {
		my $pool = pool("waiting_$how", 'CREATE TABLE t ()');

		$there->value("SELECT pg_advisory_lock($lock_key)");
		my $s = start("SELECT * FROM dbpool_migrate('$pool')",
			'waiting for lock', $how eq 'timeout' ? (options => '-c statement_timeout=1500ms') : ());
		$control->value("SELECT $ends{$how}->[0](${\$s->pid})")
		  if $ends{$how}->[0];
		is($s->wait->{state}, $state, 'it ends');
		$s->quit;
		$there->value("SELECT pg_advisory_unlock($lock_key)");
		nothing_left('waiting for the lock');
		is(attempts($pool), '', 'nothing was tried');
	};

	subtest "$how while reading the history" => sub {
		my $pool = pool("reading_$how", 'CREATE TABLE t ()');

		$control->value("SELECT * FROM dbpool_migrate('$pool')");
		$there->value("BEGIN; LOCK TABLE $pool.dbpool_migration_history");
		end_in('reading history', "SELECT * FROM dbpool_migrate('$pool')",
			'reading history', $how);
		$there->value('ROLLBACK');
	};

	subtest "$how while a migration runs" => sub {
		my $pool = pool(
			"running_$how",
			'CREATE TABLE t1 ()',
			'CREATE TABLE t2 (); SELECT count(*) FROM gate',
			'CREATE TABLE t3 ()');

		close_gate();
		end_in('running', "SELECT * FROM dbpool_migrate('$pool')",
			'migrating', $how);
		open_gate();
		is(attempts($pool), "1 normal done, 2 normal $after",
			'what has come of it');
		is( statuses($pool),
			'1 applied, 2 failed, 3 pending',
			'what there is');
		is( $control->value("SELECT count(*) FROM dbpool_migrate('$pool')"),
			'2',
			'another run does the rest');
	};

	subtest "$how while a group runs" => sub {
		my $pool = pool(
			"group_$how",
			'CREATE TABLE t1 ()',
			'CREATE TABLE t2 (); SELECT count(*) FROM gate');

		close_gate();
		end_in('group',
			"SELECT * FROM dbpool_migrate('$pool', grouped => true)",
			'migrating', $how);
		open_gate();
		is( attempts($pool),
			$how eq 'end'
			? '1 grouped interrupted, 2 grouped interrupted'
			: "1 grouped rolled back $state, 2 grouped failed $state",
			'what has come of it');
		is($there->value("SELECT to_regclass('$pool.t1')"),
			'', 'nothing of it is there');
	};

	subtest "$how outside of a transaction" => sub {
		my $pool = pool("alone_$how",
			"-- no-transaction\nCREATE TABLE t1 ();\nSELECT count(*) FROM gate"
		);

		close_gate();
		end_in('alone', "SELECT * FROM dbpool_migrate('$pool')",
			'migrating', $how);
		open_gate();
		is(attempts($pool), "1 normal $after", 'what has come of it');
		is($there->value("SELECT to_regclass('$pool.t1')"),
			"$pool.t1", 'what it did is there');
		my $answer = $control->query("SELECT * FROM dbpool_migrate('$pool')");
		is($answer->{state}, '55000', 'the next run stops');
		like(
			$answer->{err},
			qr/was started and is not known to have ended/,
			'and says why');
		$there->value("DROP TABLE $pool.t1");
		$control->value(
			"SELECT dbpool_migration_resolve('$pool', 1, 'pending')");
		is( $control->value("SELECT status FROM dbpool_migrate('$pool')"),
			'applied',
			'it is run when that has been resolved');
	};

	# An index that is not there is not valid either.
	subtest "$how while an index is built" => sub {
		my $pool = pool("index_$how",
			"-- no-transaction\nCREATE INDEX CONCURRENTLY slow ON gate ((1))");

		$there->value('BEGIN; LOCK TABLE gate IN ROW EXCLUSIVE MODE');
		end_in('index', "SELECT * FROM dbpool_migrate('$pool')",
			'migrating', $how);
		open_gate();
		my $answer =
		  $control->query("SELECT * FROM dbpool_migrate('$pool')");
		like(
			$answer->{err},
			qr/The remote has invalid indexes.*: public\.slow\./,
			'the index is named');
		$there->value('DROP INDEX slow');
	};

	subtest "$how while committing" => sub {
		my $pool = pool("committing_$how",
			'CREATE TABLE t (i int); CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_gate(); INSERT INTO t VALUES (1)'
		);

		close_gate();
		end_in('committing', "SELECT * FROM dbpool_migrate('$pool')",
			'committing', $how);
		open_gate();
		is( attempts($pool),
			$how eq 'end'
			? '1 normal interrupted'
			: "1 normal unknown $state",
			'what has come of it');
		is($there->value("SELECT to_regclass('$pool.t')"),
			'', 'it was not committed');
		is($control->value("SELECT status FROM dbpool_migrate('$pool')"),
			'applied', 'another run does it');
	};

	# The remote has committed, and waits for a standby that there is not.
	subtest "$how when it is committed" => sub {
		my $pool = pool("committed_$how", 'CREATE TABLE t0 ()',
			'CREATE TABLE t ()');

		$control->value("SELECT * FROM dbpool_migrate('$pool', 1)");
		$remote->append_conf('postgresql.conf',
			"synchronous_standby_names = 'nonesuch'");
		$remote->reload;
		$there->poll(
			'SELECT setting FROM pg_settings WHERE name = \'synchronous_standby_names\'',
			'nonesuch');
		my $answer =
		  end_in('committed', "SELECT * FROM dbpool_migrate('$pool')",
			'committing', $how,
			q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dbpool migration' AND wait_event = 'SyncRep'});
		$remote->append_conf('postgresql.conf',
			"synchronous_standby_names = ''");
		$remote->reload;
		like(
			$answer->{err},
			qr/dbpool_migration_status\(\) shows whether/,
			'it says that nobody knows') if $how ne 'end';
		is( attempts($pool),
			'1 normal done, '
			  . (
				$how eq 'end'
				? '2 normal interrupted'
				: "2 normal unknown $state"),
			'what has come of it');
		is(statuses($pool), '1 applied, 2 applied', 'it was committed');
	};
}

# The end is local: by then the remote has it, and that is no failure.
subtest 'a cancel after the commit' => sub {
	my $pool = pool('after', 'CREATE TABLE t1 ()',
		'CREATE TABLE t2 (); SELECT count(*) FROM gate');
	my $holder = session($local);

	close_gate();
	my $s =
	  start("SELECT version FROM dbpool_migrate('$pool', grouped => true)",
		'migrating');
	$holder->value(
		'BEGIN; LOCK TABLE dbpool_migration_history IN SHARE MODE');
	open_gate();
	ok( $local->poll_query_until(
			'postgres',
			q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'dbpool recorder' AND wait_event_type = 'Lock'}
		),
		'the recorder waits');
	is($there->value("SELECT to_regclass('after.t2')"),
		'after.t2', 'the remote has committed');
	$control->value("SELECT pg_cancel_backend(${\$s->pid})");
	sleep 1;
	$holder->value('ROLLBACK');
	is($s->wait->{state}, '57014', 'it is cancelled');
	is( attempts($pool),
		'1 grouped done, 2 grouped done',
		'both were done all the same');
	$holder->quit;
	$s->quit;
	nothing_left('after');
};

subtest 'the recorder ends' => sub {
	my $pool = pool('recorder', 'CREATE TABLE t1 (); SELECT count(*) FROM gate');

	close_gate();
	my $s = start("SELECT version FROM dbpool_migrate('$pool')", 'migrating');
	$control->poll(
		q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'},
		'1');
	$control->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'},
		'0');
	$control->value("SELECT pg_cancel_backend(${\$s->pid})");
	my $answer = $s->wait;
	is($answer->{state}, '57014', 'the first error stays the one');
	like(
		$answer->{err},
		qr/WARNING: .*could not write to the history of migrations/,
		'that it was not written down is told');
	open_gate();
	# Interrupts must not be held off ever after.
	$s->send('SELECT pg_sleep(60)');
	$control->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE pid = ${\$s->pid} AND wait_event = 'PgSleep'",
		'1');
	$control->value("SELECT pg_cancel_backend(${\$s->pid})");
	$answer = $s->wait;
	is($answer->{state}, '57014', 'the session can be cancelled afterwards');
	cmp_ok($answer->{seconds}, '<', 30, 'at once');
	like(attempts($pool), qr/^1 normal (running|interrupted)$/,
		'what is known of it');
	is($control->value("SELECT version FROM dbpool_migrate('$pool')"),
		'1', 'another run does it');
	is( attempts($pool),
		'1 normal interrupted, 1 normal done',
		'and puts the history right');

	# It is no failure of a migration that is committed by then.
	$control->value("SELECT dbpool_add_migration('$pool', 2, 'm2', 'SELECT count(*) FROM gate')");
	close_gate();
	$s->send("SELECT version FROM dbpool_migrate('$pool')");
	# what it begins with is written down when the remote has it
	see($s, 'migrating');
	$control->poll(
		q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'},
		'1');
	$control->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'},
		'0');
	open_gate();
	$answer = $s->wait;
	is($answer->{state}, 'XX000', 'a migration goes on without it');
	like(
		$answer->{err},
		qr/WARNING: .*could not write to the history of migrations how .*\n.*DETAIL: +It has been committed on the remote\./,
		'and is said to be committed');
	is(statuses($pool), '1 applied, 2 applied', 'as it is');
	$s->quit;
	nothing_left('recorder');
};

# --- how many at a time --------------------------------------------------------------

# Each run has a background worker, and the server has but max_worker_processes.
subtest 'runs of many' => sub {
	my ($host, $port) = ($remote->host, $remote->port);
	my %s;

	# a database each, as there is one lock per database
	my $run = sub {
		my ($role, $pool, $arguments) = @_;

		$remote->safe_psql('postgres', "CREATE DATABASE $pool OWNER app");
		$s{$pool} = session($local, user => $role);
		$s{$pool}->value("SELECT dbpool_create_pool('$pool', 'host=$host port=$port dbname=$pool user=app password=$password')");
		$s{$pool}->value("SELECT dbpool_add_migration('$pool', 1, 'm', 'CREATE TABLE t (); SELECT pg_sleep(600)')");
		return $s{$pool}->send("SELECT status FROM dbpool_migrate('$pool'$arguments)");
	};
	my $is_in = sub {
		my ($pool, $phase, $name) = @_;

		return ok(
			$control->poll(
				"SELECT coalesce(max(phase), '') FROM dbpool_progress_migrate WHERE pool = '$pool'", $phase),
			$name);
	};
	my $recorders = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'};

	$local->safe_psql(
		'postgres', q{
		CREATE ROLE many LOGIN;
		CREATE ROLE few LOGIN;
		GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO many, few;});
	is($control->value('SHOW max_worker_processes'), '8', 'there are eight processes');
	foreach my $pool ('many1', 'many2')
	{
		$run->('many', $pool, '');
		$is_in->($pool, 'migrating', "$pool runs");
	}
	my $answer = $run->('many', 'many3', q{, lock_timeout => '0'})->wait;
	is($answer->{state}, '53400', 'a role has no more than two runs');
	like($answer->{err},
		qr/could not start the process.*DETAIL:  Role "many" has 2 runs .*Nothing was run on pool "many3".*HINT: .*max_worker_processes/s,
		'it says why');
	$s{many3}->send(q{SELECT status FROM dbpool_migrate('many3')});
	$is_in->('many3', 'waiting for process', 'it can wait for one');
	$run->('few', 'few1', '');
	$is_in->('few1', 'migrating', 'another role is not held up');
	$answer = $run->('few', 'few2', q{, lock_timeout => '0'})->wait;
	is($answer->{state}, '53400', 'all roles have no more than three');
	like($answer->{err}, qr/DETAIL:  3 runs of migrations are under way, as many as roles other than superusers/, 'it says why');
	is($control->value($recorders), '3', 'three processes are taken');
	# what it is, others do not see
	my $shown = q{SELECT string_agg(DISTINCT (SELECT string_agg(k, ' ') FROM jsonb_object_keys(jsonb_strip_nulls(to_jsonb(p))) k), '|')
		FROM dbpool_progress_migrate p WHERE pid = %d};
	is($s{few2}->value(sprintf $shown, $s{many1}->pid), 'pid datid datname', 'another role sees that there is a run');
	like($control->value(sprintf $shown, $s{many1}->pid), qr/\bname\b.*\bversion\b/, 'a superuser sees which');
	like($s{few2}->value(sprintf $shown, $s{few1}->pid), qr/\bname\b.*\bversion\b/, 'and so does its own role');
	is($control->value("SELECT status FROM dbpool_migrate('${\pool('super', 'SELECT 1')}')"), 'applied', 'a superuser is not limited');

	# a run that ends, a session that ends, a process that ends: the place is free
	$control->value("SELECT pg_cancel_backend(${\$s{many1}->pid})");
	is($s{many1}->wait->{state}, '57014', 'a run ends');
	$is_in->('many3', 'migrating', 'the one that waited goes on');
	$control->value("SELECT pg_terminate_backend(${\$s{$_}->pid})") foreach 'few1', 'many2';
	$control->value("SELECT pg_cancel_backend(${\$s{many3}->pid})");
	is($s{many3}->wait->{state}, '57014', 'all have ended');
	$s{few2}->send(q{SELECT status FROM dbpool_migrate('few2')});
	$s{many1}->send(q{SELECT status FROM dbpool_migrate('many1')});
	$s{many3}->send(q{SELECT status FROM dbpool_migrate('many3')});
	$is_in->($_, 'migrating', "$_ has a place again") foreach 'few2', 'many1', 'many3';
	$control->value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'dbpool recorder'");
	$control->value("SELECT pg_cancel_backend(${\$s{$_}->pid})") foreach 'few2', 'many1', 'many3';
	$s{$_}->wait foreach 'few2', 'many1', 'many3';
	$control->poll($recorders, '0');
	$s{$_}->send("SELECT status FROM dbpool_migrate('$_')") foreach 'few2', 'many1', 'many3';
	$is_in->($_, 'migrating', "$_ has one after its process was ended") foreach 'few2', 'many1', 'many3';
	$control->value("SELECT pg_cancel_backend(${\$s{$_}->pid})") foreach 'few2', 'many1', 'many3';
	$s{$_}->wait foreach 'few2', 'many1', 'many3';
	$_->quit foreach values %s;
	nothing_left('many');
};

subtest 'the server crashes' => sub {
	my $pool = pool('crash', 'CREATE TABLE t1 (); SELECT count(*) FROM gate');

	close_gate();
	my $s = start("SELECT version FROM dbpool_migrate('$pool')", 'migrating');
	$control->quit;
	$local->stop('immediate');
	$s->kill;
	open_gate();
	$local->start;
	$control = session($local);
	is(attempts($pool), '1 normal running', 'that is what was known last');
	$control->poll(
		"SELECT n FROM dbpool_query('$pool', 'SELECT count(*) FROM pg_stat_activity WHERE application_name = ''dbpool migration''') AS t(n int)",
		'0');
	is($control->value("SELECT version FROM dbpool_migrate('$pool')"),
		'1', 'another run does it');
	is( attempts($pool),
		'1 normal interrupted, 1 normal done',
		'and puts the history right');
	nothing_left('crash');
};

# --- where it goes --------------------------------------------------------------------

subtest 'several hosts' => sub {
	my $first = make_remote(
		name => 'first',
		conf => "default_transaction_read_only = on\n");
	my $silent = silent_listener();
	my $unused = PostgreSQL::Test::Cluster::get_free_port();
	my ($host, $port) = ($remote->host, $remote->port);
	my %hosts = (
		refused => [ "127.0.0.1,$host", "$unused,$port" ],
		silent => [ "127.0.0.1,$host", $silent->sockport . ",$port" ],
		'read-only' => [ $first->host . ",$host", $first->port . ",$port" ],
		unknown => [ "no.such.name.invalid,$host", $port ]);

	foreach my $kind (sort keys %hosts)
	{
		my $pool = $kind =~ s/\W/_/r;

		$remote->safe_psql('postgres', "CREATE SCHEMA host_$pool");
		create_pool(
			$local, "host_$pool", undef,
			host => $hosts{$kind}->[0],
			port => $hosts{$kind}->[1],
			dbname => 'postgres',
			connect_timeout => '1s',
			options => "-c search_path=host_$pool");
		$control->value(
			"SELECT dbpool_add_migration('host_$pool', 1, 'm1', 'CREATE TABLE t ()')"
		);
		my $answer =
		  $control->query("SELECT status FROM dbpool_migrate('host_$pool')");
		is($answer->{out}, 'applied',
			"the second host is used when the first is $kind")
		  or diag($answer->{err});
		cmp_ok($answer->{seconds}, '<', 1 + $at_once, 'in good time');
	}
	create_pool(
		$local, 'nowhere', undef,
		host => $first->host . ',127.0.0.1,127.0.0.1',
		port => $first->port . ",$unused," . $silent->sockport,
		connect_timeout => '1s');
	$control->value(
		"SELECT dbpool_add_migration('nowhere', 1, 'm1', 'CREATE TABLE t ()')"
	);
	my $answer = $control->query("SELECT * FROM dbpool_migrate('nowhere')");
	is($answer->{state}, '08001', 'when there is none');
	like(
		$answer->{err},
		qr/session is read-only.*Connection refused.*no answer within connect_timeout \(1000 ms\)/s,
		'all are told of');
	nothing_left('hosts');
};

subtest 'behind pgbouncer' => sub {
	my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}),
	  '/usr/sbin';
	plan skip_all => 'pgbouncer is not installed' unless $pgbouncer;

	my $dir = PostgreSQL::Test::Utils::tempdir_short;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my ($remote_host, $remote_port) = ($remote->host, $remote->port);
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
	wait_until('pgbouncer listens', sub { -S "$dir/.s.PGSQL.$port" });
	create_pool(
		$local, 'bounced', undef,
		host => $dir,
		port => $port,
		dbname => 'postgres');
	$control->value(
		"SELECT dbpool_add_migration('bounced', 1, 'm1', 'CREATE TABLE bounced ()')"
	);
	my $answer = $control->query("SELECT * FROM dbpool_migrate('bounced')");
	is($answer->{state}, '0A000', 'refused');
	like(
		$answer->{err},
		qr/pool "bounced" reaches its remote through a connection pooler, where migrations cannot be locked.*HINT: +Make a server with the host and port of the database server itself/s,
		'and why, and what to do');
	is(statuses('bounced'), '1 pending', 'the status is shown');
	is( $watch->value(
			"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
		'0', 'no lock is left');
	is($there->value("SELECT to_regclass('bounced')"), '', 'nothing was run');
	is(attempts('bounced'), '', 'or tried');

	# What the pooler's sessions are left with is what they had.
	my $setting = q{SHOW client_connection_check_interval};
	my $of_bouncer = IPC::Run::run(
		[
			'psql', '-XAtq',
			'-d', "host=$dir port=$port dbname=postgres",
			map { ('-c', $setting) } 1 .. 6
		],
		'>', \my $out);
	is($out, "0\n" x 6, 'their settings are as they were');
	$bouncer->kill_kill;
};

# --- where it comes from ---------------------------------------------------------------

subtest 'no process to be had' => sub {
	my $small = make_local(
		name => 'small',
		conf => "max_worker_processes = 2\nmax_logical_replication_workers = 1\n"
	);
	my $s = session($small);

	$remote->safe_psql('postgres', 'CREATE SCHEMA small');
	create_pool($small, 'small', $remote, options => '-c search_path=small');
	$s->value(
		"SELECT dbpool_add_migration('small', 1, 'm1', 'CREATE TABLE t ()')");
	my $answer = $s->query("SELECT * FROM dbpool_migrate('small')");
	is($answer->{state}, '53400', 'refused');
	like(
		$answer->{err},
		qr/could not start the process that writes the history of migrations.*Nothing was run on pool "small".*Raise max_worker_processes/s,
		'and what to do');
	is( $there->value(
			"SELECT count(*) FROM pg_class WHERE relnamespace = 'small'::regnamespace"
		),
		'0',
		'nothing was run');
	is( $s->value("SELECT status FROM dbpool_migration_status('small')"),
		'pending', 'the status is shown');
	$s->quit;
	$small->stop;
};

subtest 'a standby' => sub {
	my $primary = PostgreSQL::Test::Cluster->new('primary');
	$primary->init(allows_streaming => 1);
	$primary->append_conf('postgresql.conf',
		"shared_preload_libraries = 'dbpool'\nmax_connections = 30\n");
	$primary->start;
	$primary->safe_psql('postgres', 'CREATE EXTENSION dbpool');
	$remote->safe_psql('postgres', 'CREATE SCHEMA replicated');
	create_pool($primary, 'replicated', $remote,
		options => '-c search_path=replicated');
	$primary->safe_psql(
		'postgres', q{
		SELECT dbpool_add_migration('replicated', 1, 'm1', 'CREATE TABLE t1 ()');
		SELECT dbpool_add_migration('replicated', 2, 'm2', 'SELECT 1/0');});
	$primary->psql('postgres', q{SELECT dbpool_migrate('replicated')});
	$primary->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->start;
	$primary->wait_for_catchup($standby);
	my $s = session($standby);

	is( $s->value(
			q{SELECT version, status, sqlstate FROM dbpool_migration_status('replicated') s, regexp_match(detail, '22012') AS m(sqlstate) WHERE version = 2}
		) =~ s/\{|\}//gr,
		'2|failed|22012',
		'the status is shown, with what the history says');
	foreach my $call (
		q{dbpool_migrate('replicated')},
		q{dbpool_migrate('replicated', dry_run => true)},
		q{dbpool_migration_rollback('replicated')},
		q{dbpool_migration_repair('replicated')},
		q{dbpool_migration_resolve('replicated', 1, 'applied')},
		q{dbpool_migration_baseline('replicated', 1)})
	{
		my $answer = $s->query("SELECT * FROM $call");
		is($answer->{state}, '25006', "refused: $call");
		like(
			$answer->{err},
			qr/cannot migrate pool "replicated" from a standby.*Call the function on the primary/s,
			'and what to do');
	}
	$s->quit;
	$standby->stop;
	$primary->stop;
};

subtest 'dump and restore' => sub {
	my $folder = PostgreSQL::Test::Utils::tempdir;
	my $pool = pool(
		'dumped',
		"-- no-transaction\nCREATE TABLE t1 ()",
		"CREATE TABLE \"ü'\\\" ()",
		'SELECT 1/0');
	my $tables =
	  q{SELECT 'migration', to_jsonb(m) - 'serverid' FROM dbpool_migrations m WHERE serverid <> 0
		UNION ALL SELECT 'attempt', to_jsonb(h) - 'serverid' FROM dbpool_migration_history h WHERE serverid <> 0 ORDER BY 1, 2};

	$control->query("SELECT * FROM dbpool_migrate('$pool')");
	my $before = $control->value($tables);
	cmp_ok(scalar(() = $before =~ /^migration/mg),
		'>=', 3, 'there is something to dump');
	foreach my $format ('plain', 'custom')
	{
		my $file = "$folder/$format";

		$local->safe_psql('postgres', "CREATE DATABASE $format");
		$local->command_ok(
			[ 'pg_dump', '-F', $format, '-f', $file, 'postgres' ],
			"$format: pg_dump");
		$local->command_ok(
			$format eq 'plain'
			? [
				'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $file, $format
			  ]
			: [ 'pg_restore', '-e', '-d', $format, $file ],
			"$format: restore");
		my $s = session($local, dbname => $format);
		is($s->value($tables), $before, "$format: both tables are the same");
		is( $s->value(
				"SELECT string_agg(status, ', ' ORDER BY version) FROM dbpool_migration_status('$pool')"
			),
			'applied, applied, failed',
			"$format: and so is the status");
		$s->value(
			"SELECT dbpool_add_migration('$pool', 3, 'm3', 'SELECT 1')");
		is($s->value("SELECT status FROM dbpool_migrate('$pool', dry_run => true)"),
			'dry run', "$format: it goes on from there");
		is( $s->value(
				"SELECT count(*), count(DISTINCT id), max(id) = (array_agg(id ORDER BY started_at DESC))[1] FROM dbpool_migration_history WHERE pool = '$pool'"
			),
			'4|4|t',
			"$format: with new numbers");
		$s->quit;
	}
};

# --- no secret ---------------------------------------------------------------------------

subtest 'secrets' => sub {
	my ($host, $port) = ($remote->host, $remote->port);

	$local->safe_psql(
		'postgres', qq{
		CREATE SERVER secret FOREIGN DATA WRAPPER dbpool OPTIONS (host '$host', port '$port', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER secret OPTIONS (user 'app', password 'hUshwOrd2');
		SELECT dbpool_add_migration('secret', 1, 'm1', 'SELECT 1');});
	my $answer = $control->query("SELECT * FROM dbpool_migrate('secret')");
	is($answer->{state}, '08001', 'a wrong password');
	like($answer->{err}, qr/password authentication failed/, 'is said to be');
	unlike($answer->{err}, qr/hUshwOrd/, 'without being told');
	unlike(
		$control->value(
			'SELECT to_jsonb(h) FROM dbpool_migration_history h UNION ALL SELECT to_jsonb(m) FROM dbpool_migrations m'
		),
		qr/hUshwOrd/,
		'nor is one in the tables');
	$control->quit;
	$local->stop;
	my @told = grep { /hUshwOrd/ } split /\n/,
	  slurp_file($local->logfile, $start_of_log);
	is(join("\n", @told), '', 'nor in the log');
};

$there->quit;
done_testing();
