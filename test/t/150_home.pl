
# Pools that point to the server they are in. A call there is a transaction of
# its own beside the session's, and may want its locks: a session that gives up
# its call must not let it go on by releasing them; and a call that waits for
# the session that waits for it is a deadlock.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

# Each race is tried so often; before it was looked at, most tries were lost.
my $tries = 5;

my $local = make_local(
	workers => 2,
	conf => "listen_addresses = '127.0.0.1'\ndeadlock_timeout = '60s'\n"
	  . "dbpool.stall_timeout = 0\n");

create_pool($local, 'self', $local, max_size => 3);
create_pool($local, 'tcp', $local, host => '127.0.0.1', max_size => 3);
create_pool($local, 'narrow', $local, max_size => 1);
create_pool($local, 'pair', $local, max_size => 2);

my $control = session($local);

$control->value(
	q{CREATE TABLE t (id int PRIMARY KEY, a int);
	INSERT INTO t SELECT i, 0 FROM generate_series(1, 9) AS i;
	CREATE TABLE u (id int PRIMARY KEY, b text);
	CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE FUNCTION write(n int) RETURNS text LANGUAGE sql AS
		'UPDATE t SET a = 101 WHERE id = n RETURNING ''''';
	CREATE FUNCTION put(n int, at int) RETURNS text LANGUAGE plpgsql AS
		'BEGIN IF n = at THEN INSERT INTO u VALUES (1); END IF; RETURN ''''; END'});

# The remote has nothing of dbpool's to do any more.
sub at_rest
{
	return $control->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool' AND state <> 'idle'",
		'0');
}

# The session's call waits for a lock.
sub waits
{
	my ($session) = @_;

	return $control->poll(
		'SELECT count(*) > 0 FROM dbpool_requests q JOIN pg_locks l ON l.pid = q.remote_pid '
		  . 'WHERE q.pid = '
		  . $session->pid
		  . ' AND NOT l.granted');
}

my %causes = (
	cancel => sub {
		$control->value('SELECT pg_cancel_backend(' . $_[0]->pid . ')');
		return $_[0]->wait;
	},
	terminate => sub {
		$control->value('SELECT pg_terminate_backend(' . $_[0]->pid . ')');
		return $_[0]->wait;
	},
	disconnect => sub {
		$_[0]->kill;
		$control->poll(
			'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $_[0]->pid,
			'0');
		return { state => '' };
	});

# Have a session take a lock and call what waits for it, then end the call by
# that cause, again and again: what it would have written must never be there.
sub never_commits
{
	my ($name, $cause, $lock, $call, $state) = @_;
	my $committed = 0;
	my $states = '';

	foreach my $try (1 .. $tries)
	{
		my $victim = session($local,
			options => '-c client_connection_check_interval=50ms');

		$victim->value("BEGIN; $lock");
		$victim->send($call);
		waits($victim);
		my $answer = $causes{$cause}->($victim);
		$states .= " $answer->{state}";
		$victim->quit if $cause ne 'disconnect' && !$answer->{lost};
		at_rest();
		$committed += $control->value(
			'WITH x AS (UPDATE t SET a = 0 WHERE a = 101 RETURNING 1), '
			  . 'y AS (DELETE FROM u RETURNING 1), '
			  . 'z AS (DELETE FROM late RETURNING 1) '
			  . 'SELECT (SELECT count(*) FROM x) + (SELECT count(*) FROM y) + (SELECT count(*) FROM z)');
	}
	is($committed, 0, "$name, by $cause: nothing is committed");
	is($states, " $state" x $tries, 'and it ends as it should');
	return;
}

my $update = 'UPDATE t SET a = 1 WHERE id = 1';
my $call = q{SELECT dbpool_exec('%s', 'UPDATE t SET a = 101 WHERE id = 1')};

foreach my $pool (qw(self tcp narrow))
{
	never_commits("pool $pool", 'cancel', $update, sprintf($call, $pool),
		'57014');
}
never_commits('a call', 'terminate', $update, sprintf($call, 'self'), '57P01');
never_commits('a call', 'disconnect', $update, sprintf($call, 'self'), '');
never_commits(
	'a script', 'cancel', $update,
	q{SELECT dbpool_exec('self', 'UPDATE t SET a = 101 WHERE id = 2; UPDATE t SET a = 101 WHERE id = 1')},
	'57014');
never_commits(
	'a call with parameters', 'cancel', $update,
	q{SELECT dbpool_exec('self', 'UPDATE t SET a = $1 WHERE id = 1', 101)},
	'57014');
never_commits(
	'a lock of a table', 'cancel', 'LOCK TABLE t',
	q{SELECT * FROM dbpool_query('tcp', 'UPDATE t SET a = 101 RETURNING id') AS t (id int)},
	'57014');
never_commits(
	'a bulk insert', 'cancel', 'INSERT INTO u VALUES (1)',
	q{SELECT dbpool_bulk_insert('self', 'u', 'SELECT 1, NULL::text')},
	'57014');
never_commits(
	'a bulk insert whose rows still come', 'cancel', 'INSERT INTO u VALUES (1)',
	q{SELECT dbpool_bulk_insert('self', 'u', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 1000000) AS i')},
	'57014');
never_commits(
	'in a block with EXCEPTION', 'cancel', 'SELECT 1',
	q{DO $$ BEGIN
		UPDATE t SET a = 1 WHERE id = 1;
		PERFORM dbpool_exec('self', 'UPDATE t SET a = 101 WHERE id = 1');
	EXCEPTION WHEN query_canceled THEN
		PERFORM pg_sleep(0.1);
	END $$}, '');

# It is the COMMIT of a transaction on the pool that waits for what the session has
# written.
my $late = q{INSERT INTO late VALUES (1)};

foreach my $cause (qw(cancel terminate))
{
	my $state = $cause eq 'cancel' ? '57014' : '57P01';

	never_commits('a COMMIT', $cause,
		qq{$late; SET LOCAL dbpool.transaction = bound; SELECT dbpool_exec('self', '$late')},
		'COMMIT', $state);
	never_commits('dbpool_commit()', $cause,
		qq{$late; SELECT dbpool_begin('self', 'tx'); SELECT dbpool_exec('tx', '$late')},
		q{SELECT dbpool_commit('tx')}, $state);
}

# Errors that come of something else than a cancel.
sub fails_without_commit
{
	my ($name, $call, $state, $before) = @_;
	my $committed = 0;
	my $states = '';

	foreach my $try (1 .. $tries)
	{
		my $victim = session($local);

		$victim->value("$before; BEGIN; $update");
		$victim->send($call);
		$states .= ' ' . $victim->wait->{state};
		$victim->quit;
		at_rest();
		$committed += $control->value(
			'WITH x AS (UPDATE t SET a = 0 WHERE a = 101 RETURNING 1) SELECT count(*) FROM x'
		);
	}
	is($committed, 0, "$name: nothing is committed");
	is($states, " $state" x $tries, 'and it ends as it should');
	return;
}

fails_without_commit('statement_timeout', sprintf($call, 'self'),
	'57014', "SET statement_timeout = '100ms'");
fails_without_commit(
	'rows of another shape',
	q{SELECT * FROM dbpool_query('self', 'SELECT repeat(''x'', 100000) FROM generate_series(1, 2) UNION ALL SELECT write(1)') AS t (a text, b int)},
	'42804',
	'SELECT 1');
subtest 'the worker ends' => sub {
	my $victim = session($local);

	$victim->value("BEGIN; $update");
	$victim->send(sprintf $call, 'self');
	waits($victim);
	my $there = $control->value(
		'SELECT remote_pid FROM dbpool_requests WHERE pid = ' . $victim->pid);
	$control->value(
		'SELECT pg_terminate_backend(pid) FROM dbpool_workers ORDER BY worker');
	like($victim->wait->{state}, qr/^08/, 'the session is told');
	$victim->quit;
	$control->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE pid = $there", '0');
	is($control->value('SELECT a FROM t WHERE id = 1'),
		'0', 'nothing is committed');
};

# A statement that was sent behind another's, and has not begun.
subtest 'behind another statement' => sub {
	my $innocent = session($local);
	my $committed = 0;
	my $rode = 0;

	# on a busy machine a text may not count as short
	for (my $try = 1; $rode < 3 && $try <= 20; $try++)
	{
		my $victim = session($local);
		my @workers = (worker_pid($control, 1), worker_pid($control, 2));

		# what has been slow once is not short any more: new texts each time
		my $sleep =
		  "SELECT * FROM dbpool_query('narrow', 'SELECT $try FROM pg_sleep(\$1)', %s) AS t (x int)";
		my $write =
		  "SELECT dbpool_exec('narrow', '/* $try */ UPDATE t SET a = \$1 WHERE id = \$2', %d, %d)";
		foreach (1 .. 10)
		{
			$innocent->value(sprintf $sleep, '0.0001');
			$innocent->value(sprintf $write, 0, 9);
		}
		$victim->value("BEGIN; $update");
		suspend(@workers);
		$innocent->send(sprintf $sleep, '1.5');
		$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'", '1');
		$victim->send(sprintf $write, 101, 1);
		$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'", '2');
		resume(@workers);
		$control->poll("SELECT count(*) = 2 FROM dbpool_requests WHERE state IN ('running', 'queued')");
		$rode += $control->value(
			"SELECT count(*) FROM dbpool_connections WHERE pool = 'narrow' AND in_flight = 2");
		my $answer = $causes{cancel}->($victim);
		is($answer->{state}, '57014', 'the call is cancelled');
		$victim->quit;
		is($innocent->wait->{out}, $try, 'the other one has its answer');
		at_rest();
		$committed += $control->value(
			'WITH x AS (UPDATE t SET a = 0 WHERE a = 101 RETURNING 1) SELECT count(*) FROM x'
		);
	}
	is($committed, 0, 'nothing is committed');
	is($rode, 3, 'it was sent behind');
	$innocent->quit;
};

# --- deadlocks ----------------------------------------------------------------

my $deadlock_timeout = 0.2;

$control->value("ALTER SYSTEM SET deadlock_timeout = '200ms'");
$control->value('SELECT pg_reload_conf()');

sub update
{
	my ($pool, $id) = @_;

	return "SELECT dbpool_exec('$pool', 'UPDATE t SET a = 101 WHERE id = $id')";
}

# What has to be said of a deadlock.
sub is_deadlock
{
	my ($answer, $name) = @_;

	is($answer->{state}, '40P01', "$name: a deadlock");
	like($answer->{err}, qr/DETAIL:.*Process \d+ waits for .*HINT:.*(?:own transaction|End them before)/s,
		'who waits for whom, and what to do, is said');
	cmp_ok($answer->{seconds}, '<', 5, 'and before long');
	at_rest();
	return;
}

sub deadlocks
{
	my ($session, $call, $name) = @_;

	is_deadlock($session->send($call)->ends("$name: it ends"), $name);
	return;
}

subtest 'a call waits for its own session' => sub {
	foreach my $case (
		[ $update, update('self', 1) ],
		[ $update, update('narrow', 1) ],
		[ 'SELECT pg_advisory_xact_lock(7)',
			q{SELECT * FROM dbpool_query('tcp', 'SELECT 1 FROM pg_advisory_xact_lock(7)') AS t (x int)} ],
		[ 'INSERT INTO u VALUES (1)',
			q{SELECT dbpool_exec('self', 'INSERT INTO u VALUES ($1)', 1)} ],
		[ 'INSERT INTO u VALUES (1)',
			q{SELECT dbpool_bulk_insert('self', 'u', 'SELECT 1, NULL::text')} ],
		[ 'INSERT INTO u VALUES (1)',
			q{SELECT dbpool_bulk_insert('self', 'u', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 1000000) AS i')} ],
		[ 'SELECT 1',
			q{DO $$ BEGIN
				UPDATE t SET a = 1 WHERE id = 1;
				PERFORM dbpool_exec('self', 'UPDATE t SET a = 101 WHERE id = 1');
			END $$} ],
		# the call of a call
		[ $update,
			q{SELECT dbpool_exec('self', $$SELECT dbpool_exec('tcp', 'UPDATE t SET a = 101 WHERE id = 1')$$)} ])
	{
		my ($lock, $call) = @{$case};
		my $s = session($local);

		$s->value("BEGIN; $lock");
		deadlocks($s, $call, $call);
		$s->value('ROLLBACK');
		is($s->value("SELECT dbpool_exec('self', 'UPDATE t SET a = 0')"),
			'9', 'the next call works');
		$s->quit;
	}
};

# The remote process of a bulk insert waits for rows, and the query that makes
# them for what the remote process has inserted.
subtest 'the query of a bulk insert waits for its rows' => sub {
	my $s = session($local);

	deadlocks(
		$s,
		q{SELECT dbpool_bulk_insert('self', 'u', 'SELECT i, put(i, 20000) || repeat(''x'', 100) FROM generate_series(1, 30000) AS i')},
		'a bulk insert');
	deadlocks(
		$s,
		q{SELECT dbpool_bulk_insert('self', 'u', $$SELECT i, CASE i WHEN 20000 THEN dbpool_exec('tcp', 'INSERT INTO u VALUES (1)')::text ELSE repeat('x', 100) END FROM generate_series(1, 30000) AS i$$)},
		'a call in a bulk insert');
	is($control->value('SELECT count(*) FROM u'), '0', 'nothing is inserted');
	$s->quit;
};

subtest 'two sessions, each of whose calls waits for the other' => sub {
	foreach my $pools ([ 'self', 'self' ], [ 'self', 'tcp' ], [ 'tcp', 'narrow' ])
	{
		my @s = (session($local), session($local));

		$s[$_]->value('BEGIN; UPDATE t SET a = 1 WHERE id = ' . ($_ + 1))
		  foreach 0, 1;
		$s[$_]->send(update($pools->[$_], 2 - $_)) foreach 0, 1;
		my @answers = map { $_->ends("@{$pools}: it ends") } @s;
		my ($victim) = grep { $_->{state} ne '' } @answers;
		my ($other) = grep { $_->{state} eq '' } @answers;

		# its transaction has ended with the error
		is_deadlock($victim, "@{$pools}");
		is($other->{out}, '1', 'of one only: the other one goes on');
		$_->quit foreach @s;
	}
};

subtest 'over other locks' => sub {
	my @s = (session($local), session($local));

	# the second one waits for the first one's row by itself
	$s[$_]->value('BEGIN; UPDATE t SET a = 1 WHERE id = ' . ($_ + 1)) foreach 0, 1;
	$s[1]->send('UPDATE t SET a = 1 WHERE id = 1');
	deadlocks($s[0], update('self', 2), 'over a row');
	$s[0]->value('ROLLBACK');
	is($s[1]->wait->{state}, '', 'the other one goes on');
	$s[1]->value('ROLLBACK');

	# the second one is only in the queue before the call
	$s[0]->value('BEGIN; SELECT 1 FROM t LIMIT 1');
	$s[1]->send('BEGIN; LOCK TABLE t');
	$control->poll('SELECT count(*) FROM pg_locks WHERE NOT granted', '1');
	deadlocks($s[0], "SELECT * FROM dbpool_query('self', 'SELECT 1 FROM t') AS t (x int)",
		'over a queue');
	$s[0]->value('ROLLBACK');
	is($s[1]->wait->{state}, '', 'the other one goes on');
	$_->quit foreach @s;
};

subtest 'a call waits for a connection' => sub {
	my @s = (session($local), session($local));

	$s[0]->value("BEGIN; $update");
	$s[1]->send(update('narrow', 1));
	waits($s[1]);

	# somebody for whom no connection waits has the time that he has
	my $other = session($local);
	$other->send(update('narrow', 3));
	$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'queued'", '1');
	deadlocks($s[0], update('narrow', 2), 'for a connection');
	is($s[1]->wait->{out}, '1', 'the other one goes on');
	is($other->wait->{out}, '1', 'and so does the next');
	$_->quit foreach (@s, $other);
};

# A transaction on the pool has a lock that its session waits for, and does nothing.
sub told_of_deadlock
{
	my ($answer, $name) = @_;

	is($answer->{state}, '40P01', "$name: its session is told of the deadlock");
	like($answer->{err},
		qr/DETAIL:.*deadlock.*Process (\d+) is in a transaction of process (\d+), and waits for .*Process \2 waits for .* blocked by process \d+\./s,
		'and who waited for whom');
	at_rest();
	return;
}

sub bound
{
	# what is not found ends at last
	return session($local,
		options => '-c dbpool.transaction=bound -c lock_timeout=20s');
}

subtest 'a session waits for its own transaction on the pool' => sub {
	my $s = bound();

	$control->value('UPDATE t SET a = 0');
	foreach my $pool (qw(self narrow))
	{
		$s->value('BEGIN; ' . update($pool, 1));
		my $answer = $s->query('UPDATE t SET a = 1 WHERE id = 1');
		is($answer->{state}, '', 'what has waited goes on');
		cmp_ok($answer->{seconds}, '<', 5, 'before long');
		told_of_deadlock($s->query('COMMIT'), "bound on $pool");
	}
	$s->value('BEGIN; ' . update('self', 1));
	is($s->query('UPDATE t SET a = 1 WHERE id = 1')->{state}, '', 'what has waited goes on');
	told_of_deadlock($s->query(update('self', 2)), 'at the next call');
	$s->value('ROLLBACK');

	# a lock of a subtransaction, and one that a trigger or the commit waits for
	$s->value('BEGIN; SAVEPOINT a; ' . update('self', 1));
	is($s->query('SELECT 1 FROM t FOR UPDATE')->{state}, '', 'what has waited goes on');
	told_of_deadlock($s->query('COMMIT'), 'in a savepoint');
	$s->value("BEGIN; SELECT dbpool_exec('self', '$late'); $late");
	told_of_deadlock($s->query('COMMIT'), 'at the commit');
	is($s->value('SELECT count(*) FROM late'), '0', 'nothing is committed');

	$s->value(q{SELECT dbpool_begin('self', 'tx')});
	$s->value(q{SELECT dbpool_exec('tx', 'LOCK TABLE t')});
	is($s->query('UPDATE t SET a = 0 WHERE id = 1')->{state}, '', 'what has waited goes on');
	told_of_deadlock($s->query(q{SELECT dbpool_commit('tx')}), 'by name');
	is($control->value('SELECT count(*) FROM t WHERE a <> 0'), '0', 'nothing is left');
	$s->quit;
};

subtest 'sessions wait for each other over transactions on pools' => sub {
	my @s = (bound(), bound());

	# over a session that has only local locks
	$s[0]->value('BEGIN; ' . update('self', 1));
	$s[1]->value('BEGIN; UPDATE t SET a = 1 WHERE id = 2');
	$s[1]->send('UPDATE t SET a = 1 WHERE id = 1');
	$s[0]->send('UPDATE t SET a = 1 WHERE id = 2');
	is($s[1]->wait->{state}, '', 'the other session goes on');
	$s[1]->value('ROLLBACK');
	is($s[0]->wait->{state}, '', 'and then the first one');
	told_of_deadlock($s[0]->query('COMMIT'), 'over a local lock');

	# each has what the other one wants: the transaction that began last is rolled back
	$s[$_]->value('BEGIN; ' . update($_ ? 'tcp' : 'self', $_ + 1)) foreach 0, 1;
	$s[$_]->send('UPDATE t SET a = 1 WHERE id = ' . (2 - $_)) foreach 0, 1;
	is($s[0]->wait->{state}, '', 'the first one goes on');
	ok(!$s[1]->is_done, 'the second one waits for it');
	is($s[0]->query('COMMIT')->{state}, '', 'it commits');
	is($s[1]->wait->{state}, '', 'the second one goes on');
	told_of_deadlock($s[1]->query('COMMIT'), 'over two transactions');
	is($control->value('SELECT string_agg(a::text, $$,$$ ORDER BY id) FROM t WHERE id < 3'),
		'101,1', 'both writes of one of them are there');
	$control->value('UPDATE t SET a = 0');
	$_->quit foreach @s;
};

subtest 'a call waits for a transaction of its own session' => sub {
	my $s = bound();
	my $alone = 'SET LOCAL dbpool.transaction = autonomous';

	foreach my $call (
		update('tcp', 1),
		q{SELECT dbpool_bulk_insert('tcp', 'u', 'SELECT 1, NULL::text')})
	{
		$s->value('BEGIN; ' . update('self', 1) . q{; SELECT dbpool_exec('self', 'INSERT INTO u VALUES (1)')});
		deadlocks($s, "$alone; $call", $call);
		$s->value('ROLLBACK');
	}

	# it waits for a connection
	foreach my $call (q{SELECT dbpool_exec('narrow', 'SELECT 1')}, q{SELECT dbpool_begin('narrow', 'tx')})
	{
		$s->value('BEGIN; ' . update('narrow', 1));
		deadlocks($s, "$alone; $call", $call);
		$s->value('ROLLBACK');
	}

	# for one that transactions may have; the last connection is for others
	my @s = (bound(), bound());
	$s[0]->value("BEGIN; $update");
	$s[1]->value('BEGIN');
	$s[1]->send(update('pair', 1));
	waits($s[1]);
	$s[0]->send(update('pair', 2));
	is($control->value(q{SELECT dbpool_exec('pair', 'SELECT 1')}), '1', 'a call by itself runs');
	my $answer = $s[0]->ends('it ends');
	is($answer->{state}, '40P01', 'who waits for its turn is in a deadlock');
	cmp_ok($answer->{seconds}, '<', 5, 'which ends before long');
	like($answer->{err}, qr/all that there may be for transactions are in use/, 'which is said');
	$s[0]->value('ROLLBACK');
	is($s[1]->wait->{state}, '', 'the other one goes on');
	$s[1]->value('ROLLBACK');
	$_->quit foreach ($s, @s);
};

subtest 'a COMMIT waits for its own session' => sub {
	my $s = bound();

	$s->value("BEGIN; $late; SELECT dbpool_exec('self', '$late')");
	deadlocks($s, 'COMMIT', 'bound');
	$s->value("SELECT dbpool_begin('self', 'tx'); BEGIN; $late; SELECT dbpool_exec('tx', '$late')");
	deadlocks($s, q{SELECT dbpool_commit('tx')}, 'by name');
	$s->value('ROLLBACK');
	is($s->value('SELECT count(*) FROM late'), '0', 'nothing is committed');
	$s->quit;
};

subtest 'a migration' => sub {
	my $s = session($local);

	$s->value('UPDATE t SET a = 0');

	# the history has the name of a table of the extension
	create_pool($local, 'elsewhere', $local, options => '-c search_path=elsewhere');
	$s->value('CREATE SCHEMA elsewhere');
	$s->value(
		q{SELECT dbpool_add_migration('elsewhere', 1, 'x', 'UPDATE public.t SET a = 101 WHERE id = 1')}
	);
	$s->value("BEGIN; $update");
	deadlocks($s, q{SELECT dbpool_migrate('elsewhere')}, 'a migration');
	$s->value('ROLLBACK');
	$s->value(q{BEGIN; SELECT dbpool_begin('self', 'tx'); SELECT dbpool_exec('tx', 'LOCK TABLE t')});
	deadlocks($s, q{SELECT dbpool_migrate('elsewhere')}, 'one that waits for a transaction on a pool');
	$s->value('ROLLBACK');
	is( $control->value('SELECT count(*) FROM t WHERE a = 101'),
		'0', 'nothing is committed');
	is( $s->value(q{SELECT count(*) FROM dbpool_migrate('elsewhere')}),
		'1', 'it can be run afterwards');
	$control->value('UPDATE t SET a = 0');
	$s->quit;
};

subtest 'no deadlock' => sub {
	my @s = (session($local), session($local), session($local));

	# it waits for one that waits for nobody; who waits has locks of others
	$s[0]->value("BEGIN; $update");
	$s[1]->value('BEGIN; UPDATE t SET a = 1 WHERE id = 2');
	$s[1]->send(update('self', 1));
	$s[2]->send('UPDATE t SET a = 1 WHERE id = 2');
	waits($s[1]);
	Time::HiRes::sleep(10 * $deadlock_timeout);
	ok(!$s[1]->is_done && !$s[2]->is_done, 'they wait');
	$s[0]->value('COMMIT');
	is($s[1]->wait->{out}, '1', 'and go on');
	$s[1]->value('COMMIT');
	is($s[2]->wait->{state}, '', 'both');

	# its transaction has what another one waits for, who has nothing of it
	my $s = bound();
	$s->value('BEGIN; UPDATE t SET a = 1 WHERE id = 2; ' . update('self', 1));
	$s[1]->send('UPDATE t SET a = 1 WHERE id = 1');
	Time::HiRes::sleep(10 * $deadlock_timeout);
	ok(!$s[1]->is_done, 'another one waits');
	is($s->query('COMMIT')->{state}, '', 'what it waits for is committed');
	is($s[1]->wait->{state}, '', 'and it goes on');

	# and it waits itself, but for somebody who does not wait
	$s[0]->value('BEGIN; UPDATE t SET a = 1 WHERE id = 3');
	$s->value('BEGIN; ' . update('self', 4));
	$s->send('UPDATE t SET a = 1 WHERE id = 3');
	Time::HiRes::sleep(10 * $deadlock_timeout);
	ok(!$s->is_done, 'it waits');
	$s[0]->value('COMMIT');
	is($s->wait->{state}, '', 'and goes on');
	is($s->query('COMMIT')->{state}, '', 'and is committed');
	$s->quit;

	# rows that are slow to come are no deadlock, and slow statements are none
	$s[0]->send(
		q{SELECT dbpool_bulk_insert('self', 'u', 'SELECT i, pg_sleep(0.01)::text FROM generate_series(1, 150) AS i')}
	);
	$s[1]->send("BEGIN; $update; " . query_sleeps('self', 1.5) . '; COMMIT');
	is($s[0]->wait->{out}, '150', 'a slow bulk insert');
	is($s[1]->wait->{state}, '', 'a slow statement');
	$control->value('DELETE FROM u');
	$_->quit foreach @s;
};

# --- elsewhere ----------------------------------------------------------------

# A remote that does not answer keeps no session from returning, whatever
# process ID it has: least of all for the second that one waits at home.
subtest 'a pool to another server' => sub {
	my $remote = make_remote();
	my $best = 9;

	create_pool($local, 'away', $remote, max_size => 3);
	foreach my $try (1 .. 3)
	{
		my $s = session($local);
		my $there;

		$s->value("BEGIN; SELECT dbpool_ping('away')");
		$s->send(query_sleeps('away', 60));
		$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'running'", '1');
		$there = $control->value('SELECT remote_pid FROM dbpool_requests');
		suspend($there);
		my $started = Time::HiRes::time;
		$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
		is($s->wait->{state}, '57014', 'it is cancelled');
		my $seconds = Time::HiRes::time - $started;
		$best = $seconds if $seconds < $best;
		resume($there);
		$s->quit;
	}
	cmp_ok($best, '<', 0.5, 'at once');
	diag("abort with a remote that hangs: $best s");
	$remote->stop;
};

# At home, one that hangs is waited for about a second.
subtest 'a process of this server hangs' => sub {
	my $s = session($local);

	$s->value("BEGIN; $update");
	$s->send(query_sleeps('self', 60));
	$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'running'", '1');
	my $there = $control->value('SELECT remote_pid FROM dbpool_requests');
	suspend($there);
	my $started = Time::HiRes::time;
	$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
	is($s->wait->{state}, '57014', 'it is cancelled');
	my $seconds = Time::HiRes::time - $started;
	cmp_ok($seconds, '>', 0.9, 'after a second');
	cmp_ok($seconds, '<', 5, 'and not much more');
	resume($there);
	$s->quit;
	at_rest();
};

# A remote says that it is the process of somebody's session here.
subtest 'a remote lies' => sub {
	my $listener = silent_listener();
	my $bystander = session($local);
	my $s = session($local);
	my $message = sub { return $_[0] . pack('N', length($_[1]) + 4) . $_[1] };
	my $liar = fork;

	if (!$liar)
	{
		my $buf;
		my $hello =
			$message->('R', pack 'N', 0)
		  . $message->('S', "client_encoding\0UTF8\0")
		  . $message->('K', pack 'NN', $bystander->pid, 1)
		  . $message->('Z', 'I');
		my $socket = $listener->accept;

		sysread $socket, $buf, 65536;
		syswrite $socket, $hello;

		# our settings, and then nothing more
		sysread $socket, $buf, 65536;
		syswrite $socket, $message->('C', "SET\0") x 5 . $message->('Z', 'I');
		1 while sysread $socket, $buf, 65536;
		require POSIX;
		POSIX::_exit(0);
	}
	create_pool($local, 'liar', undef,
		host => '127.0.0.1',
		port => $listener->sockport,
		sslmode => 'disable');
	$bystander->send('SELECT pg_sleep(2), 5');
	$s->send(query_sleeps('liar', 60));
	$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'running'", '1');
	is($control->value('SELECT remote_pid FROM dbpool_requests'),
		$bystander->pid, 'it is believed for the views');
	my $started = Time::HiRes::time;
	$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
	is($s->wait->{state}, '57014', 'the call is cancelled');
	cmp_ok(Time::HiRes::time - $started, '<', 0.9, 'and waits for nothing');
	is($bystander->wait->{out}, '|5', 'nobody else is');
	kill 'KILL', $liar;
	waitpid $liar, 0;
	$_->quit foreach ($s, $bystander);
};

$control->quit;
$local->stop;
done_testing();
