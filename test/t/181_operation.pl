
# Operating pools while they are in use: disable, drain, kill; what a remote that restarts
# behind a pause costs its users.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 2);

$remote->safe_psql('postgres', q{CREATE TABLE t (id int PRIMARY KEY);
	CREATE ROLE app LOGIN PASSWORD 'one'; CREATE ROLE other LOGIN PASSWORD 'other'});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf', "local all app,other,nobody scram-sha-256\nlocal all all trust\n");
$remote->reload;
create_pool($local, 'p', $remote, max_size => 4, multiplex => 'off');

my $control = session($local);
my $theirs = session($remote);
my $s = session($local, options => '-c dbpool.transaction=bound');
my $blocked = q{SELECT dbpool_exec('p', 'SELECT pg_advisory_xact_lock(1)')};
my $id = 0;

sub insert
{
	$id++;
	return "SELECT dbpool_exec('p', 'INSERT INTO t VALUES ($id)')";
}

sub state
{
	return $control->value(q{SELECT string_agg(DISTINCT state, ' ') FROM dbpool_pools WHERE pool = 'p'});
}

sub connections
{
	return $control->value(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'p'});
}

# A session with a statement that runs until the lock is given back.
sub blocked_session
{
	my $session = session($local);

	$theirs->value('SELECT pg_advisory_lock(1)');
	$session->send($blocked);
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
	return $session;
}

sub waits
{
	my ($session) = @_;

	return $control->poll(
		qq{SELECT wait_event FROM pg_stat_activity WHERE pid = $session->{pid} AND state = 'active' AND query ~ 'dbpool_'},
		$local->pg_version >= 17 ? 'DbpoolPause' : 'Extension');
}

subtest 'disabled' => sub {
	my $slow = blocked_session();

	$s->query('BEGIN');
	$s->value(insert());
	$control->value(q{SELECT dbpool_pause('p', '0')});
	is($control->value(q{SELECT dbpool_disable('p')}), 'disabled, 1 transaction and 1 statement under way', 'what it says');
	is($s->value(insert()), '1', 'a transaction goes on');
	is($s->query('COMMIT')->{err}, '', 'to its end');
	is(session($local)->query(insert())->{state}, '55000', 'what comes is refused');
	$theirs->value('SELECT pg_advisory_unlock(1)');
	is($slow->wait->{err}, '', 'a statement goes on');
	is($control->value(q{SELECT dbpool_resume('p')}), 'resumed; is disabled still', 'it was paused as well');
	is($control->value(q{SELECT dbpool_enable('p')}), 'enabled', 'it is enabled');
	is($control->value(insert()), '1', 'and works');
};

subtest 'who waits is refused' => sub {
	my $waiting = session($local);

	$control->value(q{SELECT dbpool_pause('p')});
	$waiting->send(insert());
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	$control->value(q{SELECT dbpool_disable('p')});
	my $answer = $waiting->wait;
	is($answer->{state}, '55000', 'at once');
	like($answer->{err}, qr/pool "p" is disabled\nDETAIL:  dbpool_disable\(\) or dbpool_drain\(\) was called. The statement was not run\./, 'with the reason');
	$control->value(q{SELECT dbpool_resume('p'), dbpool_enable('p')});
	is($theirs->value("SELECT count(*) FROM t WHERE id = $id"), '0', 'and has not run');
};

subtest 'a worker that ends leaves it disabled' => sub {
	$control->value(q{SELECT dbpool_disable('p')});
	$control->value(q{SELECT pg_terminate_backend(pid) FROM dbpool_workers});
	$control->poll(q{SELECT min(starts) FROM dbpool_workers WHERE pid IS NOT NULL HAVING count(*) = 2}, '2');
	is(session($local)->query(insert())->{state}, '55000', 'refused');
	is(state(), 'disabled', 'and seen to be');
	$control->value(q{SELECT dbpool_enable('p')});
	is($control->value(insert()), '1', 'until it is enabled');
};

subtest 'kill' => sub {
	my $slow = blocked_session();
	my $writer = session($local);

	$s->query('BEGIN');
	$s->value(insert());
	my $at = $id;
	like($control->value(q{SELECT dbpool_kill('p')}),
		qr/^killed, [2-4] connections closed, 1 transaction and 1 statement ended by that$/, 'what it says');
	my $answer = $slow->wait;
	is($answer->{state}, '08007', 'a statement');
	like($answer->{err}, qr/connection of pool "p" was lost while a statement ran\nDETAIL:  It was closed by dbpool_kill\(\) or dbpool_drain\(\)\./, 'is told');
	$answer = $s->query(insert());
	is($answer->{state}, '08006', 'and a transaction');
	like($answer->{err}, qr/It was closed by dbpool_kill\(\)/, 'why');
	$s->query('ROLLBACK');
	is($writer->value(insert()), '1', 'others get new connections');
	ok($theirs->poll(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, '0'),
		'the remote has stopped what was running');
	$theirs->value('SELECT pg_advisory_unlock(1)');
	is($theirs->value("SELECT count(*) FROM t WHERE id = $at"), '0', 'and rolled back the transaction');
	is(state(), 'active', 'it works on');
};

subtest 'drain' => sub {
	my $slow = blocked_session();
	my $owner = session($local);

	$owner->send(q{SELECT dbpool_drain('p')});
	ok(waits($owner), 'it waits');
	is(session($local)->query(insert())->{state}, '55000', 'what comes is refused');
	$theirs->value('SELECT pg_advisory_unlock(1)');
	is($slow->wait->{err}, '', 'what was under way ends');
	like($owner->wait->{out}, qr/^drained, [1-4] connections? closed, 1 statement ended$/, 'and then it has drained');
	is(connections(), '0', 'with no connection left');
	is(state(), 'disabled', 'and disabled');
	$control->value(q{SELECT dbpool_enable('p')});

	$slow = blocked_session();
	like($control->value(q{SELECT dbpool_drain('p', '200ms')}), qr/1 statement ended by that$/, 'when the time is over');
	is($slow->wait->{state}, '08007', 'what still runs is ended');
	is(connections(), '0', 'and no connection is left');
	$theirs->value('SELECT pg_advisory_unlock(1)');
	$control->value(q{SELECT dbpool_enable('p')});

	$slow = blocked_session();
	$owner->send(q{SELECT dbpool_drain('p', NULL)});
	ok(waits($owner), 'it waits without a limit');
	$control->value("SELECT pg_cancel_backend($owner->{pid})");
	is($owner->wait->{state}, '57014', 'and is cancelled');
	is(state(), 'active', 'it has not been');
	$owner->send(q{SELECT dbpool_drain('p', NULL)});
	ok(waits($owner), 'it waits again');
	$control->value(q{SELECT dbpool_enable('p')});
	like($owner->wait->{err}, qr/pool "p" was enabled while dbpool_drain\(\) waited for it/, 'and is told that it was enabled');
	$control->value(q{SELECT dbpool_disable('p')});
	$owner->send(q{SELECT dbpool_drain('p', NULL)});
	ok(waits($owner), 'of one that is disabled');
	$control->value("SELECT pg_cancel_backend($owner->{pid})");
	$owner->wait;
	is(state(), 'disabled', 'nothing is taken back');
	$control->value(q{SELECT dbpool_enable('p')});
	$theirs->value('SELECT pg_advisory_unlock(1)');
	$slow->wait;

	$s->query('BEGIN');
	$s->value(insert());
	is($s->query(q{SELECT dbpool_drain('p')})->{state}, '55006', 'a session with a transaction on it would wait in vain');
	$s->query('ROLLBACK');
	is(state(), 'active', 'and has it not disabled');
};

subtest 'several that wait' => sub {
	my $slow = blocked_session();
	my $owner = session($local);

	create_pool($local, 'q', $remote);
	$owner->send(q{SELECT pool, result, sqlstate FROM dbpool_pause(ARRAY['p', 'q'], '300ms')});
	my $answer = $owner->wait;
	is($answer->{out}, "p||55P03\nq|paused|", 'one has not come to rest, one has');
	like($answer->{err}, qr/pool "p" could not be paused: .*has not come to rest.*\nDETAIL:  Process $slow->{pid} /, 'the reason is told');
	is($control->value(q{SELECT string_agg(format('%s %s', pool, state), ' ' ORDER BY pool) FROM dbpool_pools WHERE pool IN ('p', 'q')}),
		'p active q paused', 'each is as it says');
	$control->value(q{SELECT dbpool_resume('q')});
	$owner->send(q{SELECT pool, result, sqlstate FROM dbpool_pause(ARRAY['p', 'q'], NULL)});
	ok(waits($owner), 'it waits');
	$control->value("SELECT pg_cancel_backend($owner->{pid})");
	is($owner->wait->{state}, '57014', 'and is cancelled');
	is($control->value(q{SELECT count(*) FROM dbpool_pools WHERE state = 'paused'}), '0', 'none has been paused');
	$theirs->value('SELECT pg_advisory_unlock(1)');
	$slow->wait;
};

# A pool as the remote's role app.
sub app_pool
{
	my ($pool, %options) = @_;
	my $list = join ', ', map { qq{"$_": "$options{$_}"} } sort keys %options;

	$control->value(sprintf q{SELECT dbpool_create_pool('%s', 'host=%s port=%s dbname=postgres user=app password=one', '{%s}')},
		$pool, $remote->host, $remote->port, $list);
	return;
}

# The remote session that serves a pool.
sub served_by
{
	my ($pool) = @_;

	return $control->value("SELECT dbpool_value(0, '$pool', 'SELECT pg_backend_pid()')");
}

subtest 'a password that changes' => sub {
	foreach my $size (1, 3)
	{
		my $pool = "rotates$size";
		my $mapping = "ALTER USER MAPPING FOR CURRENT_USER SERVER $pool OPTIONS";

		$theirs->value(q{ALTER ROLE app PASSWORD 'one'});
		app_pool($pool, max_size => $size);
		my $old = served_by($pool);
		# here first, when it is not known there
		$control->value("$mapping (SET password 'two')");
		is(served_by($pool), $old, "of $size: the old connection serves");
		ok($control->poll("SELECT connect_error ~ 'password authentication failed' FROM dbpool_pools WHERE pool = '$pool'", 't'),
			'and that the new password was refused is shown');
		$control->value("SELECT count(*) FROM (SELECT dbpool_value(0, '$pool', 'SELECT pg_backend_pid()') FROM generate_series(1, 5000)) t");
		is(served_by($pool), $old, 'also in the calls that follow');
		cmp_ok($control->value("SELECT connect_failures FROM dbpool_stat_pools WHERE pool = '$pool'"), '<', 8,
			'which do not have it tried each time');
		like(slurp_file($local->logfile), qr/dbpool could not open a connection of pool "$pool": .*password authentication failed/, 'the log has it');
		$theirs->value(q{ALTER ROLE app PASSWORD 'two'});
		ok($theirs->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $old", '0'),
			'when it is known there, the new one takes its place');
		isnt(served_by($pool), $old, 'and serves');
		cmp_ok($control->value("SELECT count(*) FROM dbpool_connections WHERE pool = '$pool'"), '<=', $size, 'no more than there may be');
		# there first
		$old = served_by($pool);
		$theirs->value(q{ALTER ROLE app PASSWORD 'three'});
		is(served_by($pool), $old, 'changed there first, the old connection serves as well');
		$control->value("$mapping (SET password 'three')");
		served_by($pool);
		ok($theirs->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $old", '0'), 'until it was changed here');

		# another user never gets it
		foreach my $change (q{(SET user 'other', SET password 'wrong')}, q{(SET user 'nobody')}, q{(SET user 'app', SET password 'wrong', ADD sslpassword 'x')})
		{
			$control->value("ALTER USER MAPPING FOR CURRENT_USER SERVER $pool OPTIONS (SET user 'app', SET password 'three')");
			is($control->value("SELECT dbpool_value(''::text, '$pool', 'SELECT session_user::text')"), 'app', 'as app');
			is($control->query("$mapping $change")->{err}, '', $change);
			is($control->query("SELECT dbpool_value(''::text, '$pool', 'SELECT session_user::text')")->{state}, '08001', 'is served by no connection of before');
		}
		$control->value("SELECT dbpool_drop_pool('$pool')");
	}
};

subtest 'reload' => sub {
	$theirs->value(q{ALTER ROLE app PASSWORD 'one'});
	app_pool('reloads', max_size => 3);
	my $old = served_by('reloads');
	my @sessions = map { session($local) } 1 .. 4;
	my $errors = '';

	$_->send(q{DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_class WHERE relname = 'stop') LOOP
		PERFORM dbpool_exec('reloads', 'SELECT 1'); END LOOP; END $$}) foreach @sessions;
	$control->poll(q{SELECT statements > 100 FROM dbpool_stat_pools WHERE pool = 'reloads'}, 't');
	like($control->value(q{SELECT dbpool_reload('reloads')}), qr/^reloaded, [1-3] connections? to be replaced$/, 'what it says');
	ok($theirs->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $old", '0'), 'they are replaced');
	$old = served_by('reloads');
	$theirs->value('ALTER ROLE app NOLOGIN');
	$control->value(q{SELECT dbpool_reload('reloads')});
	ok($control->poll(q{SELECT connect_error ~ 'not permitted to log in' FROM dbpool_pools WHERE pool = 'reloads'}, 't'), 'where nobody can log in');
	is($theirs->value("SELECT count(*) FROM pg_stat_activity WHERE pid = $old"), '1', 'the old ones serve');
	$theirs->value('ALTER ROLE app LOGIN');
	ok($theirs->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $old", '0'), 'until one can again');
	$control->value('CREATE TABLE stop (id int)');
	$errors .= $_->wait->{err} foreach @sessions;
	is($errors, '', 'no call has noticed');
	$control->value('DROP TABLE stop');
};

subtest 'settings of the remote role' => sub {
	my $setting = q{SELECT dbpool_value(''::text, '%s', 'SHOW work_mem')};

	app_pool('aged', max_size => 1, max_lifetime => '1s');
	is($control->value(sprintf $setting, 'reloads'), '4MB', 'as they are');
	is($control->value(sprintf $setting, 'aged'), '4MB', 'everywhere');
	$theirs->value(q{ALTER ROLE app SET work_mem = '5MB'});
	$control->value(q{SELECT dbpool_reset('reloads')});
	is($control->value(sprintf $setting, 'reloads'), '5MB', 'a change comes with a reset');
	ok($control->poll(sprintf($setting, 'aged'), '5MB'), 'and by max_lifetime');
};

subtest 'a pool that is checked when it is made' => sub {
	my $conninfo = sprintf q{host=%s port=%s dbname=postgres user=app password=%%s}, $remote->host, $remote->port;
	my $create = q{SELECT dbpool_create_pool('checked', '%s', "check" => true)};
	my $answer = $control->query(sprintf $create, sprintf $conninfo, 'wrong');

	is($answer->{state}, '08001', 'a wrong password');
	like($answer->{err}, qr/could not open a connection of pool "checked"\nDETAIL:  .*password authentication failed/, 'is told');
	is($control->value(q{SELECT count(*) FROM pg_foreign_server WHERE srvname = 'checked'}), '0', 'and nothing is made');
	is($control->query(sprintf $create, sprintf $conninfo, 'one')->{err}, '', 'a right one');
	is($control->value(q{SELECT dbpool_value(0, 'checked', 'SELECT 1')}), '1', 'makes a pool that works');
};

# The time, in hundredths of a second, after which the kernel probes the connections to a port
# that it has acknowledged all of; '' when there is none.
sub probed_after
{
	my ($port) = @_;

	foreach my $line (split /\n/, slurp_file('/proc/net/tcp'))
	{
		my @field = split ' ', $line;

		return hex $1 if $field[2] =~ /:(\w+)$/ && hex $1 == $port && $field[5] =~ /^02:(\w+)$/;
	}
	return '';
}

subtest 'a peer that is gone' => sub {
	plan skip_all => 'there is no /proc/net/tcp' if !-e '/proc/net/tcp';
	my $silent = silent_listener();
	my $asks = session($local);
	my $after = '';

	create_pool($local, 'silent', undef, host => '127.0.0.1', port => $silent->sockport, dbname => 'postgres', connect_timeout => '15s');
	$asks->send(q{SELECT dbpool_ping('silent')});
	wait_until('a connection is probed', sub { ($after = probed_after($silent->sockport)) ne '' });
	cmp_ok($after, '<=', 500, 'is probed after five seconds at most');
	$control->value("SELECT pg_cancel_backend($asks->{pid})");
	$asks->wait;
	$control->value(q{SELECT dbpool_drop_pool('silent')});
};

subtest 'a restart of the remote behind a pause' => sub {
	my @sessions = map { session($local) } 1 .. 16;
	my $errors = '';

	# each session inserts one row after the other, from a range of its own
	my $work = q{DO $$ BEGIN FOR i IN %1$d .. %1$d + 999999 LOOP
		PERFORM dbpool_exec('p', 'INSERT INTO t VALUES ($1)', i);
		EXIT WHEN EXISTS (SELECT FROM pg_class WHERE relname = 'stop');
		END LOOP; END $$};

	$theirs->quit;
	for my $n (1 .. 16)
	{
		$sessions[ $n - 1 ]->send(sprintf $work, $n * 1_000_000);
	}
	$control->poll(q{SELECT statements > 500 FROM dbpool_stat_pools WHERE pool = 'p'}, 't');
	foreach my $round (1 .. 2)
	{
		my $before;

		like($control->value(q{SELECT dbpool_pause('p', '20s')}), qr/^paused/, 'paused');
		$remote->restart;
		$before = $control->value(q{SELECT statements FROM dbpool_stat_pools WHERE pool = 'p'});
		like($control->value(q{SELECT dbpool_resume('p')}), qr/^resumed/, 'resumed');
		ok($control->poll("SELECT statements > $before + 500 FROM dbpool_stat_pools WHERE pool = 'p'", 't'), 'and on they go');
	}
	$control->value('CREATE TABLE stop (id int)');
	foreach my $session (@sessions)
	{
		my $answer = $session->wait;
		$errors .= $answer->{err} if $answer->{state} ne '';
	}
	is($errors, '', 'no call has failed');
	is( $remote->safe_psql('postgres', q{SELECT count(*) FROM (SELECT id / 1000000 AS n, count(*) AS rows, max(id) % 1000000 + 1 AS last
			FROM t WHERE id >= 1000000 GROUP BY 1) s WHERE rows = last}),
		'16', 'none was lost, none has run twice');
	$control->value('DROP TABLE stop');
};

done_testing();
