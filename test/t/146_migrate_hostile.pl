
# Migrations where things go wrong: a remote that hangs, a client that does not
# read, a commit of which nobody knows, a local history that cannot be written,
# settings that a migration leaves behind, encodings, hundreds of failures, and a
# remote that is none.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# In seconds; a remote that does not answer is given two.
my $soon = 7;

my $remote = make_remote(
	no_start => 1,
	conf => "wal_level = replica\n");
$remote->append_conf('postgresql.conf', "max_wal_senders = 2\n");
$remote->start;
my $local = make_local();
my $control = session($local);
my $there = session($remote);

# A database of the remote and a pool for it, with migrations of these texts.
sub make_target
{
	my ($name, @texts) = @_;
	my $version = 0;

	$there->value("CREATE DATABASE $name TEMPLATE template0");
	create_pool($local, $name, $remote, dbname => $name);
	foreach my $text (@texts)
	{
		$version++;
		$control->value(
			"SELECT dbpool_add_migration('$name', $version, 'step_$version', \$sql\$$text\$sql\$)"
		);
	}
	return;
}

sub migrate
{
	my ($name) = @_;
	return "SELECT count(*) FROM dbpool_migrate('$name')";
}

# Wait until the remote's session waits for that.
sub waits_there
{
	my ($event) = @_;

	$there->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool migration' AND wait_event = '$event'",
		'1');
	return $there->value(
		q{SELECT pid FROM pg_stat_activity WHERE application_name = 'dbpool migration'}
	);
}

sub is_free
{
	ok( $there->poll(
			q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool migration'},
			'0'),
		'no session is left on the remote');
	return;
}

# The last attempt on a pool.
sub last_attempt
{
	my ($name) = @_;
	return $control->value(
		"SELECT concat_ws(' ', status, sqlstate) FROM dbpool_migration_history WHERE pool = '$name' ORDER BY id DESC LIMIT 1"
	);
}

sub signal_session
{
	my ($how, $session) = @_;

	$control->value("SELECT pg_${how}_backend(" . $session->pid . ')');
	return;
}

# --- who hangs -----------------------------------------------------------------------

my %states = (cancel => '57014', terminate => '57P01');

subtest 'the remote hangs' => sub {
	make_target('hung', 'SELECT pg_sleep(600)');
	foreach my $how (sort keys %states)
	{
		foreach my $all (0, 1)
		{
			my $what = $all ? 'the whole remote' : 'its session';
			my $session = session($local);

			$session->send(migrate('hung'));
			my @pids = (waits_there('PgSleep'),
				$all ? $remote->{_pid} : ());
			suspend(@pids);
			signal_session($how, $session);
			my $answer = $session->wait;
			is($answer->{state}, $states{$how}, "$how, $what is stopped");
			resume(@pids);
			is_free();
			ok( $control->poll(
					q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'},
					'0'),
				'nor a recorder here');
			is( last_attempt('hung'),
				$how eq 'cancel' ? 'failed 57014' : 'interrupted',
				'the local history has it');
			is( $control->value('SELECT count(*) FROM dbpool_progress_migrate'),
				'0', 'the view does not');
			$session->quit;
		}
	}
	my $session = session($local);
	suspend($remote->{_pid});
	$session->send(migrate('hung'));
	$control->poll('SELECT phase FROM dbpool_progress_migrate', 'connecting');
	my $started = time;
	signal_session('cancel', $session);
	is($session->wait->{state}, '57014', 'cancelled while connecting');
	cmp_ok(time - $started, '<', $soon, 'at once');
	resume($remote->{_pid});
	$session->quit;
};

subtest 'how long that takes' => sub {
	my $session = session($local);

	$session->send(migrate('hung'));
	my $pid = waits_there('PgSleep');
	suspend($pid);
	my $started = time;
	signal_session('cancel', $session);
	is($session->wait->{state}, '57014', 'the remote is stopped');
	cmp_ok(time - $started, '<', $soon, 'the session does not wait for it');
	note(sprintf '%.1f s', time - $started);
	resume($pid);
	is_free();
	$session->quit;
};

subtest 'the client does not read' => sub {
	make_target('flood',
		q{DO $$ BEGIN LOOP RAISE NOTICE '%', repeat('x', 1000); END LOOP; END $$}
	);
	my $session = session($local);

	$session->send(migrate('flood'));
	wait_until(
		'the flood begins',
		sub {
			$session->read_some(0.1);
			return $session->{err} =~ /xxx/;
		});
	suspend($session->client_pid);
	wait_until(
		'it is dammed up',
		sub {
			return $control->value(
				'SELECT wait_event FROM pg_stat_activity WHERE pid = '
				  . $session->pid) eq 'ClientWrite';
		});
	signal_session('terminate', $session);
	ok( $control->poll(
			'SELECT count(*) FROM pg_stat_activity WHERE pid = '
			  . $session->pid,
			'0'),
		'the session can be ended');
	is_free();
	resume($session->client_pid);
	$session->kill;

	$session = session($local);
	$session->send(migrate('flood'));
	wait_until(
		'the flood begins',
		sub {
			$session->read_some(0.1);
			return $session->{err} =~ /xxx/;
		});
	signal_session('cancel', $session);
	is($session->wait->{state}, '57014', 'who reads can cancel');
	$session->quit;
};

# --- nobody knows ---------------------------------------------------------------------

subtest 'a commit that is not answered' => sub {
	make_target('unsure', map { "CREATE TABLE t$_ ()" } 1 .. 4);
	$control->value(q{SELECT count(*) FROM dbpool_migrate('unsure', 1)});
	$there->value(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
	$there->value('SELECT pg_reload_conf()');
	$there->poll('SHOW synchronous_standby_names', 'nobody');

	# the remote has committed, and does not say so yet
	my %strikes = (
		cancel => [ '57014', 'unknown 57014' ],
		terminate => [ '57P01', 'interrupted' ],
		remote => [ '08007', 'unknown 08007' ]);
	my $version = 1;
	foreach my $how (sort keys %strikes)
	{
		my $session = session($local);

		$version++;
		$session->send(migrate('unsure'));
		my $pid = waits_there('SyncRep');
		is( $control->value(
				'SELECT phase, version FROM dbpool_progress_migrate'),
			"committing|$version",
			"$how: it commits");
		if ($how eq 'remote')
		{
			$there->value("SELECT pg_terminate_backend($pid)");
		}
		else
		{
			signal_session($how, $session);
		}
		my $answer = $session->wait;
		is($answer->{state}, $strikes{$how}->[0], "$how: the session's error");
		like(
			$answer->{err},
			qr/dbpool_migration_status\(\) shows whether/,
			"$how: which says where to look")
		  if $how ne 'terminate';
		is_free();
		$control->poll(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'},
			'0');
		is(last_attempt('unsure'),
			$strikes{$how}->[1], "$how: the local history is not sure either");
		is( $control->value(
				"SELECT status FROM dbpool_migration_status('unsure') WHERE version = $version"
			),
			'applied',
			"$how: the remote knows");
		$session->quit;
	}
	$there->value('ALTER SYSTEM RESET synchronous_standby_names');
	$there->value('SELECT pg_reload_conf()');
	is($control->value(migrate('unsure')), '0', 'nothing is run again');
};

# --- the local history ------------------------------------------------------------------

subtest 'the local history cannot be written' => sub {
	make_target('unwritten', 'CREATE TABLE t ()');
	my $locker = session($local);
	my $session = session($local);

	$locker->value(
		'BEGIN; LOCK TABLE dbpool_migration_history IN SHARE ROW EXCLUSIVE MODE');
	foreach my $how (sort keys %states)
	{
		my $session = session($local);

		$session->send(migrate('unwritten'));
		$control->poll(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%' AND wait_event_type = 'Lock'},
			'1');
		my $started = time;
		signal_session($how, $session);
		is($session->wait->{state},
			$states{$how}, "locked: $how of who waits for it");
		cmp_ok(time - $started, '<', $soon, 'at once');
		is_free();
		$control->value(
			q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'}
		);
		$control->poll(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'},
			'0');
		$session->quit;
	}
	my $answer = $session->query(migrate('unwritten'));
	like(
		$answer->{err},
		qr/could not write the history of migrations: canceling statement due to lock timeout/,
		'it is not waited for without end');
	$locker->value('ROLLBACK; BEGIN; LOCK TABLE dbpool_migration_history');
	is($session->query(migrate('unwritten'))->{state},
		'55P03', 'nor when it cannot be read');
	is_free();
	$locker->value('ROLLBACK');
	is( $remote->safe_psql(
			'unwritten', q{SELECT count(*) FROM pg_class WHERE relname = 't'}),
		'0',
		'nothing was run');

	# the recorder is ended in the middle
	$session->send(migrate('hung'));
	waits_there('PgSleep');
	$control->value(
		q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'}
	);
	$control->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'},
		'0');
	signal_session('cancel', $session);
	$answer = $session->wait;
	is($answer->{state}, '57014', 'without a recorder it can be cancelled');
	like(
		$answer->{err},
		qr/WARNING: .*could not write to the history of migrations/,
		'and tells that it is not written');
	is($session->value(migrate('unwritten')), '1', 'the session goes on');
	$_->quit foreach ($locker, $session);
};

# --- what migrations leave behind ----------------------------------------------------------

subtest 'settings do not reach the next migration' => sub {
	$there->value('CREATE ROLE bob');
	my @texts = (
		'CREATE TABLE done (x int)',
		'SET ROLE bob',
		'CREATE SCHEMA other; SET search_path = other',
		'SET search_path = pg_catalog',
		'SET SESSION AUTHORIZATION bob',
		'SET default_transaction_read_only = on',
		"SET client_encoding = 'LATIN1'",
		'SET standard_conforming_strings = off',
		'SET lock_timeout = 1; SET statement_timeout = 1',
		'PREPARE p AS SELECT 1; DECLARE c CURSOR WITH HOLD FOR SELECT 1; LISTEN l; CREATE TEMP TABLE done (y text)',
		'PREPARE p AS SELECT 2; DECLARE c CURSOR WITH HOLD FOR SELECT 2',
		"-- no-transaction\nSET search_path = other; SET ROLE bob",
		"SET datestyle = 'SQL, DMY'; SET intervalstyle = iso_8601; SET timezone = 'Asia/Tokyo'; SET bytea_output = escape",
		'SELECT pg_sleep(0.05)',
		q{INSERT INTO done SELECT length('\ö') WHERE current_user = session_user});
	make_target('settings', @texts);
	my $answer = $control->query(migrate('settings'));
	is($answer->{out}, scalar @texts, 'all run') or diag($answer->{err});
	is($remote->safe_psql('settings', 'SELECT x FROM public.done'),
		'2', 'the last as if it were the first');
	is( $remote->safe_psql(
			'settings',
			'SELECT count(DISTINCT version), bool_and(applied_by = current_user) FROM public.dbpool_migration_history'
		),
		scalar(@texts) . '|t',
		'the history is that of the role that has connected');
};

subtest 'a migration that lets go of the lock' => sub {
	make_target('unlocked', 'SELECT pg_advisory_unlock_all()',
		'CREATE TABLE t ()');
	my $answer = $control->query(migrate('unlocked'));
	is($answer->{state}, '55000', 'the next one does not run without it');
	like(
		$answer->{err},
		qr/the lock for migrations on pool "unlocked" has been lost/,
		'and why');
	is($control->value(migrate('unlocked')), '1', 'but the next call does');
};

subtest 'a remote that says that a migration has committed' => sub {
	my $fake = FakeRemote->start(
		commits => {
			startup => sub {
				my ($client, $begin) = @_;

				$client->relay(
					$remote, $begin,
					sub {
						my ($type, $body, $sent) = @_;
						return $type eq 'Z' && $sent =~ /in the middle/ ? 'I' : $body;
					});
			}
		});

	make_target('commits', 'CREATE TABLE t (); SELECT /* in the middle */ 1',
		'CREATE TABLE u ()');
	$control->value(
		sprintf q{ALTER SERVER commits OPTIONS (SET host '127.0.0.1', SET port '%d', ADD sslmode 'disable')},
		$fake->port);
	my $answer = $control->query(migrate('commits'));
	is($answer->{state}, '25000', 'the run stops');
	like(
		$answer->{err},
		qr/a statement of the migration has ended its transaction/,
		'and says why');
	is($remote->safe_psql('commits', q{SELECT count(*) FROM pg_class WHERE relname IN ('t', 'u')}),
		'0', 'nothing of it is there');
	is(last_attempt('commits'), 'failed 25000', 'the local history has it');
	$fake->stop;
};

subtest 'encodings' => sub {
	$local->safe_psql('postgres',
		q{CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1'});
	$local->safe_psql('latin1', 'CREATE EXTENSION dbpool');
	my $latin1 = session($local,
		dbname => 'latin1',
		options => '-c client_encoding=UTF8');

	make_target('encodings');
	$latin1->value(
		sprintf q{CREATE SERVER encodings FOREIGN DATA WRAPPER dbpool OPTIONS (host '%s', port '%s', dbname 'encodings');
		  CREATE USER MAPPING FOR CURRENT_USER SERVER encodings},
		$remote->host, $remote->port);
	my $version = 0;
	foreach my $text (
		q{CREATE TABLE "tä" (x text); INSERT INTO "tä" VALUES ('öü')},
		q{SET client_encoding = 'LATIN1'; INSERT INTO "tä" VALUES ('é')})
	{
		$version++;
		$_->value(
			"SELECT dbpool_add_migration('encodings', $version, 'größe_$version', \$sql\$$text\$sql\$)"
		) foreach ($control, $latin1);
	}
	is($latin1->value(migrate('encodings')), '2', 'from LATIN1 to UTF8');
	is($control->value(migrate('encodings')),
		'0', 'from UTF8 the texts are the same');
	is( $remote->safe_psql(
			'encodings',
			q{SELECT string_agg(x, ' '), (SELECT string_agg(name, ' ' ORDER BY id) FROM dbpool_migration_history) FROM "tä"}
		),
		'öü é|größe_1 größe_2',
		'the remote has the right letters');
	$latin1->quit;
};

# --- hundreds of failures ---------------------------------------------------------------------

subtest 'nothing adds up' => sub {
	make_target('fails', 'CREATE TABLE t (); SELECT 1/0');
	create_pool($local, 'nowhere', undef, host => '/nowhere/at/all');
	$control->value(
		q{SELECT dbpool_add_migration('nowhere', 1, 'one', 'SELECT 1')});
	my $session =
	  session($local, options => '-c client_min_messages=error');
	my $fail = sub {
		my ($n) = @_;
		foreach my $pool ('fails', 'nowhere')
		{
			$session->query(migrate($pool)) foreach 1 .. $n;
			$session->value(
				qq{DO \$\$ BEGIN FOR i IN 1..$n LOOP
				   BEGIN PERFORM dbpool_migrate('$pool'); EXCEPTION WHEN OTHERS THEN NULL; END;
				   END LOOP; END \$\$});
		}
	};
	my $usage = sub {
		my $pid = $session->pid;
		my @sockets =
		  grep { (readlink($_) // '') =~ /^socket/ } glob "/proc/$pid/fd/*";
		my @segments =
		  grep { m{/dev/shm/} } split /\n/, slurp_file("/proc/$pid/maps");
		return (scalar @sockets, scalar @segments, rss_kb($pid));
	};

	$fail->(5);
	my @before = $usage->();
	$fail->(50);
	my @after = $usage->();
	is($after[0], $before[0], 'no socket more');
	is($after[1], $before[1], 'no segment of shared memory more');
	cmp_ok($after[2] - $before[2], '<', 2048, 'no memory more');
	note("$before[2] kB before, $after[2] kB after");
	is( $control->value(
			q{SELECT count(*), count(DISTINCT status) FROM dbpool_migration_history WHERE pool = 'fails' AND status = 'failed'}
		),
		'110|1',
		'each is in the local history');
	$session->quit;
};

# --- no PostgreSQL ------------------------------------------------------------------------------

# What one answers that has never been migrated, to those questions that want an
# answer; FakeRemote says that it is process 1.
sub new_remote
{
	my ($question, %others) = @_;
	my %answers = (
		'^SELECT pg_catalog.pg_backend_pid' => ['1'],
		'^SELECT pg_catalog.current_database' => ['fake'],
		'pg_try_advisory_lock' => ['t'],
		'to_regclass' => [ 'public', undef ],
		%others);
	my ($found) = grep { $question =~ /$_/ } sort keys %answers;
	my @values = $found ? @{ $answers{$found} } : ();
	my $row = join '', map { defined $_ ? pack('N', length $_) . $_ : pack('N', 0xffffffff) } @values;

	return rows_begin($found ? 1 .. @values : 'a')
	  . ($found ? message('D', pack('n', scalar @values) . $row) : '')
	  . tag('SELECT 1')
	  . ready();
}

subtest 'the remote makes things up' => sub {
	my %deeds = (
		# talks while it should read
		chatty => {
			statement => sub {
				my ($client, $sent) = @_;
				my $begins = $sent->{Q} =~ /^BEGIN; RESET/;

				$client->put(new_remote($sent->{Q}, '^BEGIN; RESET' => ['1']));
				$client->flood(notice('x' x 20_000)) if $begins;
				return;
			}
		},
		odd_tool => {
			statement => sub {
				my ($client, $sent) = @_;
				return new_remote($sent->{Q}, 'has_table_privilege' => [ '99999999', 'public.t', 't' ]);
			}
		});
	my $fake = FakeRemote->start(%deeds);
	my $session = session($local, options => '-c client_min_messages=error');

	foreach my $name (sort keys %deeds)
	{
		create_pool($local, $name, undef, $fake->options($name));
		$session->value("SELECT dbpool_add_migration('$name', 1, 'one', 'SELECT ''' || repeat('x', 5000000) || '''')");
	}
	foreach my $call (migrate('odd_tool'), q{SELECT count(*) FROM dbpool_migration_status('odd_tool')})
	{
		my $answer = $session->query($call);

		is($answer->{state}, '08P01', "a tool that there is not: $call");
		like($answer->{err}, qr/ERROR: .*unexpected answer of the remote of pool "odd_tool"/, 'of which pool');
	}
	my $peak_kb = sub { (slurp_file('/proc/' . $session->pid . '/status') =~ /^VmHWM:\s+(\d+)/m)[0] };
	my $before = $peak_kb->();
	$session->value("SET statement_timeout = '3s'");
	is($session->query(migrate('chatty'))->{state}, '08P01', 'notices without end to one who sends');
	cmp_ok($peak_kb->() - $before, '<', 60_000, 'they do not pile up');
	$session->quit;
	$fake->stop;
};

$_->quit foreach ($control, $there);
done_testing();
