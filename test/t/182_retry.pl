
# What is tried again when the remote kills, loses, or rolls back: how often, within which
# budget, and never twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(conf => "dbpool.workers = 1\n");
my $proxy = FaultProxy->start($remote);
my $control = session($local);
my $s = session($local);
my $there = session($remote);
my $watch = session($remote);

# A commit of a row in t ends its own server process as often as doom says; one in
# conflicts fails as if another transaction had been in the way. Sequences count, as they
# are not rolled back. hold() waits for a lock.
$there->value(q{
	CREATE TABLE t (id int PRIMARY KEY);
	CREATE TABLE conflicts (id int PRIMARY KEY);
	CREATE TABLE doom (kills bigint);
	INSERT INTO doom VALUES (0);
	CREATE SEQUENCE tries;
	CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF nextval('tries') <= (SELECT kills FROM doom) THEN
			PERFORM pg_terminate_backend(pg_backend_pid());
			PERFORM pg_sleep(60);
		END IF;
		PERFORM pg_advisory_xact_lock_shared(1);
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION dies();
	CREATE FUNCTION conflict() RETURNS int LANGUAGE plpgsql AS $$
	BEGIN
		IF nextval('tries') <= (SELECT kills FROM doom) THEN
			RAISE EXCEPTION 'in the way' USING ERRCODE = '40001', DETAIL = 'By design.';
		END IF;
		RETURN 1;
	END $$;
	CREATE FUNCTION conflicts() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM conflict(); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER conflicts AFTER INSERT ON conflicts DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION conflicts();
	CREATE PROCEDURE in_two() LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO log VALUES ('first');
		COMMIT;
		PERFORM conflict();
	END $$;
	CREATE TABLE log (what text);
	CREATE TABLE counter (id int PRIMARY KEY, n int);
	INSERT INTO counter VALUES (1, 0), (2, 0);
	CREATE FUNCTION two_rows() RETURNS int LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE counter SET n = n + 1 WHERE id = 1;
		UPDATE counter SET n = n + 1 WHERE id = 2;
		RETURN 1;
	END $$;
	CREATE FUNCTION hold() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN 7; END $$;
	CREATE FUNCTION makes_writable() RETURNS text LANGUAGE plpgsql AS
		$$ BEGIN RETURN set_config('default_transaction_read_only', 'off', false); END $$});

# So many of the next tries fail.
sub doom
{
	my ($kills) = @_;

	$there->value("UPDATE doom SET kills = $kills; ALTER SEQUENCE tries RESTART");
	return;
}

sub tries { return $there->value('SELECT last_value * is_called::int FROM tries') }

sub pool
{
	my ($name, %options) = @_;

	create_pool($local, $name, $remote, max_size => 2, %options);
	return $name;
}

sub counted
{
	my ($pool) = @_;

	return $control->value("SELECT retries || ' ' || retries_refused FROM dbpool_stat_pools WHERE pool = '$pool'");
}

# How many of a table's rows have an ID.
sub rows
{
	my ($id, $table) = @_;

	$table //= 't';
	return $there->value("SELECT count(*) FROM $table WHERE id = $id");
}

sub insert
{
	my ($pool, $id, $table) = @_;

	$table //= 't';
	return $s->query("SELECT dbpool_exec('$pool', 'INSERT INTO $table VALUES (\$1)', $id)");
}

# Wait until so many are in hold().
sub held
{
	my ($n) = @_;

	$there->poll(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, $n);
	return;
}

# Wait until so many statements that match run at the remote, and end their processes.
sub terminate
{
	my ($n, $like) = @_;
	my $those = "FROM pg_stat_activity WHERE query LIKE '$like' AND state = 'active' AND pid <> pg_backend_pid()";

	$there->poll("SELECT count(*) $those", $n);
	$there->value("SELECT count(pg_terminate_backend(pid)) $those");
	return;
}

# --- what has surely not taken effect ------------------------------------------------

subtest 'a write whose connection is lost as it commits' => sub {
	pool('p');
	doom(2);
	is(insert('p', 1)->{err}, '', 'no error reaches the session');
	is(tries(), '3', 'it was tried three times');
	is(rows(1), '1', 'and is there once');
	is(counted('p'), '2 0', 'two retries are counted');

	pool('thrice');
	doom(1000);
	my $answer = insert('thrice', 2);
	is($answer->{state}, '08006', 'one that is lost each time fails');
	like($answer->{err}, qr/The statement was not run\.\nIt was tried 3 times\.\n/, 'and says how often it was tried');
	is(tries(), '3', 'which is true');
	is(rows(2), '0', 'it has not run');
	is(counted('thrice'), '2 0', 'and is counted');

	pool('once', retry_attempts => 1);
	doom(1000);
	$answer = insert('once', 3);
	is($answer->{state}, '08006', 'with retry_attempts 1');
	unlike($answer->{err}, qr/tried/, 'nothing is said of tries');
	is(tries(), '1', 'it is tried once');
};

# 10 tokens, one for each failure: the budget is half empty after five.
subtest 'a remote that always kills uses up the budget' => sub {
	pool('budget', retry_attempts => 2);
	doom(1000);
	foreach my $id (10, 11)
	{
		like(insert('budget', $id)->{err}, qr/It was tried 2 times\.\n/, "call $id is tried twice");
	}
	is(tries(), '4', 'that took four');
	foreach my $id (12 .. 14)
	{
		my $answer = insert('budget', $id);
		is($answer->{state}, '08006', "call $id");
		like($answer->{err}, qr/It was tried once\. It is not tried again, as too many tries of the pool have failed of late\.\n/,
			'is tried once, and says why');
	}
	is(tries(), '7', 'as the remote has seen');
	is(counted('budget'), '2 3', 'what was refused is counted');

	# 3 tokens are left: 30 good statements make them 6, so that 5 are left after the next failure
	doom(0);
	$s->value(q{SELECT count(dbpool_exec('budget', 'SELECT $1', g)) FROM generate_series(1, 30) g});
	doom(1);
	is(insert('budget', 15)->{state}, '08006', '30 good statements are not enough');
	doom(0);
	$s->value(q{SELECT count(dbpool_exec('budget', 'SELECT $1', g)) FROM generate_series(1, 12) g});
	doom(1);
	is(insert('budget', 16)->{err}, '', 'with more there is a retry again');
	is(rows(16), '1', 'which has run');
};

subtest 'a restart of the remote is one failure' => sub {
	my @sessions = map { session($local) } 1 .. 8;

	pool('many', max_size => 8, multiplex => 'off');
	doom(0);
	$there->value('SELECT pg_advisory_lock(1)');
	foreach my $i (0 .. $#sessions)
	{
		$sessions[$i]->send("SELECT dbpool_exec('many', 'INSERT INTO t /* many */ VALUES (\$1)', 2$i)");
	}
	held(8);
	$there->value(q{SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
	$control->poll(q{SELECT retries FROM dbpool_stat_pools WHERE pool = 'many'}, '8');
	held(8);
	$there->value('SELECT pg_advisory_unlock(1)');
	is(join('', map { $_->wait->{err} } @sessions), '', 'all eight are tried again');
	is($there->value('SELECT count(*) FROM t WHERE id BETWEEN 20 AND 27'), '8', 'and have run');
	is(counted('many'), '8 0', 'none was refused');
};

# --- reads ----------------------------------------------------------------------------

subtest 'a read-only pool does not write' => sub {
	pool('ro', read_only => 'true', max_size => 1);
	pool('ro_always', read_only => 'on', max_size => 1, reset => 'always');
	my @writes = (
		q{SELECT dbpool_exec('%s', 'INSERT INTO log VALUES (1)')},
		q{SELECT dbpool_exec('%s', 'INSERT INTO log VALUES ($1)', 1)},
		q{SELECT dbpool_query('%s', 'INSERT INTO log VALUES (1) RETURNING 1')},
		q{SELECT dbpool_exec('%s', 'CREATE TABLE x ()')},
		q{SELECT dbpool_exec('%s', 'CALL in_two()')},
		q{SELECT dbpool_bulk_insert('%s', 'log', 'SELECT 1')},
		q{SELECT dbpool_batch('%s', ARRAY['INSERT INTO log VALUES (1)'])},
		q{SET LOCAL dbpool.transaction = 'bound'; SELECT dbpool_exec('%s', 'INSERT INTO log VALUES (1)')},
		q{SELECT dbpool_begin('%1$s'); SELECT dbpool_exec('%1$s', 'INSERT INTO log VALUES (1)')},
		q{SELECT dbpool_begin('%s', read_only => false)},
		q{SELECT * FROM dbpool_migrate('%s')},
	);
	foreach my $pool ('ro', 'ro_always')
	{
		foreach my $sql (@writes)
		{
			my $call = sprintf $sql, $pool;
			is($s->query("BEGIN; $call")->{state}, '25006', $call);
			$s->value('ROLLBACK');
		}
	}
	is($there->value('SELECT count(*) FROM log'), '0', 'nothing was written');
	is($s->value(q{SELECT dbpool_query('ro', 'SELECT count(*) FROM log')}), '(0)', 'it reads');
	is($s->query(q{BEGIN READ ONLY; SET LOCAL dbpool.inherit_read_only = on; SELECT dbpool_exec('ro', 'SELECT 1'); COMMIT})->{err},
		'', 'also in a local transaction that is read-only');

	# what makes the session writable is put away before the next call
	foreach my $undo (q{dbpool_exec('%s', 'SET default_transaction_read_only = off')},
		q{dbpool_query('%s', 'SELECT makes_writable()')},
		q{dbpool_exec('%s', 'RESET ALL')},
		q{dbpool_exec('%s', 'SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE')},
		q{dbpool_exec('%s', 'DISCARD ALL')},
		q{dbpool_exec('%s', 'BEGIN READ WRITE; COMMIT')})
	{
		foreach my $pool ('ro', 'ro_always')
		{
			$s->value('SELECT ' . sprintf $undo, $pool);
			is($s->query(sprintf $writes[1], $pool)->{state}, '25006', 'after ' . sprintf $undo, $pool);
		}
	}
	is($control->value(q{SELECT connects FROM dbpool_stat_pools WHERE pool = 'ro'}), '1', 'all on one connection');
	is($s->query(q{ALTER SERVER ro OPTIONS (ADD reset 'never')})->{state}, 'HV024', 'which is reset in any case');
};

subtest 'a read whose connection is lost' => sub {
	pool('w');
	pool('ro2', read_only => 'on');
	foreach my $pool ('w', 'ro2')
	{
		my %expected = $pool eq 'w' ? (state => '08007', n => '0 0') : (state => '', n => '2 0');

		foreach my $call ("dbpool_query('$pool', 'SELECT hold() /* slow */')",
			"dbpool_exec('$pool', 'SELECT hold() /* slow */')")
		{
			$there->value('SELECT pg_advisory_lock(1)');
			$s->send("SELECT $call");
			held(1);
			terminate(1, '% /* slow */');
			held(1) if $pool eq 'ro2';
			$there->value('SELECT pg_advisory_unlock(1)');
			my $answer = $s->wait;
			is($answer->{state}, $expected{state}, "$call is " . ($pool eq 'w' ? 'told' : 'tried again'));
			like($answer->{err}, qr/may or may not have run\.\n(?!It was tried)/, 'once') if $pool eq 'w';
		}
		is(counted($pool), $expected{n}, 'and counted');
	}

	create_pool($local, 'reset', undef, $proxy->options(read_only => 'on'));
	$there->value('SELECT pg_advisory_lock(1)');
	$s->send(q{SELECT dbpool_query('reset', 'SELECT hold()')});
	held(1);
	$proxy->tell('now reset');
	$control->poll(q{SELECT retries FROM dbpool_stat_pools WHERE pool = 'reset'}, '1');
	$there->value('SELECT pg_advisory_unlock(1)');
	is($s->wait->{out}, '(7)', 'nor does a connection that is reset lose it');

	# what may do a part of its work, and what has been seen
	$there->value(q{CREATE PROCEDURE sleeps() LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END'});
	foreach my $never ("dbpool_exec('ro2', 'CALL /* never */ sleeps()')",
		"dbpool_exec('ro2', 'DO /* never */ \$\$BEGIN PERFORM pg_sleep(60); END\$\$')",
		"dbpool_exec('ro2', 'SELECT 1; SELECT /* never */ pg_sleep(60)')",
		"dbpool_exec('ro2', 'SET datestyle = german; SELECT /* never */ pg_sleep(60)')",
		"dbpool_batch('ro2', ARRAY['SELECT /* never */ pg_sleep(60)'])",
		"count(*) FROM dbpool_query('ro2', 'SELECT /* never */ g, CASE WHEN g = 100000 THEN pg_sleep(60) END FROM generate_series(1, 100000) g') q(g int, s text)")
	{
		my $id = 'never ' . int rand 1e9;
		my $call = $never =~ s/never/$id/r;
		$s->send("SELECT $call");
		# it has given all that it gives, as it waits for nothing but its sleep
		$there->poll("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* $id */%' AND wait_event = 'PgSleep'", '1');
		terminate(1, "%/* $id */%");
		like($s->wait->{state}, qr/^0800[67]$/, "$call is told");
	}
	is(counted('ro2'), '2 0', 'and none of them tried again');
	$s->send(q{BEGIN; SELECT dbpool_begin('ro2'); SELECT dbpool_exec('ro2', 'SELECT pg_sleep(60) /* leased */')});
	terminate(1, '%/* leased */%');
	like($s->wait->{state}, qr/^0800[67]$/, 'nor one of a transaction');
	$s->value('ROLLBACK');
};

# --- conflicts ------------------------------------------------------------------------

my %conflicts = (retry_on => 'serialization', options => '-c default_transaction_isolation=repeatable\ read -c deadlock_timeout=3s');

subtest 'two updates of one row' => sub {
	pool('s', %conflicts);
	pool('s_off', options => $conflicts{options});
	foreach my $pool ('s_off', 's')
	{
		foreach my $call ("dbpool_exec('$pool', 'UPDATE counter SET n = n + 1 WHERE id = 1 /* row */')",
			"dbpool_exec('$pool', 'UPDATE counter SET n = n + 1 WHERE id = \$1 /* row */', 1)",
			"dbpool_query('$pool', 'UPDATE counter SET n = n + 1 WHERE id = 1 /* row */ RETURNING n')")
		{
			my $before = $there->value('SELECT n FROM counter WHERE id = 1');

			$there->value('BEGIN; UPDATE counter SET n = n + 100 WHERE id = 1');
			$s->send("SELECT $call");
			$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
			$watch->poll(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* row */%' AND wait_event_type = 'Lock'}, '1');
			$there->value('COMMIT');
			my $answer = $s->wait;
			is($answer->{state}, $pool eq 's' ? '' : '40001', $call);
			is($there->value('SELECT n FROM counter WHERE id = 1') - $before, $pool eq 's' ? 101 : 100, 'has run once, or not at all');
		}
	}
	is(counted('s'), '3 0', 'three were tried again');
	is(counted('s_off'), '0 0', 'but not where it is off');
};

subtest 'a deadlock' => sub {
	$there->value(q{UPDATE counter SET n = 0; SET deadlock_timeout = '1h'});
	$there->value('BEGIN; UPDATE counter SET n = n + 100 WHERE id = 2');
	$s->send(q{SELECT dbpool_query('s', 'SELECT two_rows()')});
	$watch->poll(q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT two_rows()' AND wait_event_type = 'Lock'}, '1');
	$there->value('UPDATE counter SET n = n + 100 WHERE id = 1; COMMIT');
	is($s->wait->{out}, '(1)', 'its victim is tried again');
	is($there->value('SELECT string_agg(n::text, \' \' ORDER BY id) FROM counter'), '101 101', 'and both have run');
};

subtest 'what fails for good, and what is not tried again' => sub {
	pool('c', %conflicts);
	doom(1);
	is(insert('c', 1, 'conflicts')->{err}, '', 'a conflict at the commit, behind the result');
	is(rows(1, 'conflicts') . tries(), '12', 'is tried again');
	doom(1000);
	my $answer = insert('c', 2, 'conflicts');
	is($answer->{state}, '40001', 'one that comes each time is told');
	like($answer->{err}, qr/DETAIL:  By design\.\nIt was tried 3 times\.\n/, 'with its detail, and how often it was tried');
	is(tries(), '3', 'which is true');

	pool('not', %conflicts);
	foreach my $call ("dbpool_exec('not', 'CALL in_two()')",
		"dbpool_exec('not', 'SELECT 1; SELECT conflict()')",
		"dbpool_batch('not', ARRAY['SELECT conflict()'])",
		"dbpool_exec('not', 'DO \$\$BEGIN PERFORM conflict(); END\$\$')",
		"count(*) FROM dbpool_query('not', 'SELECT g, CASE WHEN g = 100000 THEN conflict() END FROM generate_series(1, 100000) g') q(g int, c int)",
		"dbpool_begin('not'); SELECT dbpool_query('not', 'SELECT conflict()')")
	{
		doom(1);
		is($s->query("BEGIN; SELECT $call")->{state}, '40001', $call);
		is(tries(), '1', 'is tried once');
		$s->value('ROLLBACK');
	}
	is($there->value('SELECT count(*) FROM log'), '1', 'a procedure does not do its first part twice');
	is(counted('not'), '0 0', 'nothing is counted');
	doom(1);
	is($s->value(q{SELECT dbpool_exec('not', ' /* one; */ -- ;
		SELECT conflict();  ')}), '1', 'one with a semicolon at its end is');
};

subtest 'many at a time' => sub {
	my @sessions = map { session($local) } 1 .. 6;
	my $done = 0;

	pool('crowd', %conflicts, max_size => 6, retry_attempts => 10);
	$there->value('TRUNCATE counter; INSERT INTO counter VALUES (1, 0)');
	foreach my $round (1 .. 10)
	{
		$_->send(q{SELECT dbpool_exec('crowd', 'UPDATE counter SET n = n + 1')}) foreach @sessions;
		foreach my $answer (map { $_->wait } @sessions)
		{
			$done++ unless $answer->{state};
			die $answer->{err} unless $answer->{state} =~ /^(40001)?$/;
		}
	}
	is($there->value('SELECT n FROM counter'), $done, "$done updates that have been told have run, no other");
	my ($retries, $refused) = split ' ', counted('crowd');
	is($refused, 60 - $done, 'what has failed was refused by the budget');
	note("$retries retries, $refused refused");
};

# --- overload -------------------------------------------------------------------------

# Sessions that wait for a connection of the pool behind one that holds it; the first of
# the list has it. Each call is a write of an ID of its own, from 1000 on.
sub queue_up
{
	my ($pool, $n) = @_;
	my @sessions = map { session($local) } 0 .. $n;

	$there->value('SELECT pg_advisory_lock(1)');
	$sessions[0]->send("SELECT dbpool_query('$pool', 'SELECT hold()')");
	held(1);
	foreach my $i (1 .. $n)
	{
		$sessions[$i]->send("SELECT dbpool_query('$pool', 'SELECT 100$i')");
		$control->poll("SELECT waiting FROM dbpool_pools WHERE pool = '$pool'", $i);
	}
	return @sessions;
}

# Wait until the last who came has waited for longer than it takes to be overloaded.
sub all_wait
{
	$control->poll(q{SELECT max(submitted_at) < clock_timestamp() - interval '200 ms' FROM dbpool_requests WHERE state = 'queued'}, 't');
	return;
}

sub turned_away
{
	my ($pool) = @_;

	return $control->value("SELECT refused || ' ' || shed FROM dbpool_stat_pools WHERE pool = '$pool'");
}

subtest 'no more than max_waiting wait' => sub {
	doom(0);
	pool('few', max_size => 1, max_waiting => 2);
	my @sessions = queue_up('few', 2);
	my $answer = $s->query(q{SELECT dbpool_exec('few', 'INSERT INTO t VALUES (50)')});
	is($answer->{state}, '53300', 'who comes then is refused');
	like($answer->{err}, qr/too many calls wait for a connection of pool "few"\nDETAIL:  2 do, and the server's option max_waiting \(2\) allows 2\. The statement was not run\./, 'and told why');
	is($s->query(q{BEGIN; SELECT dbpool_begin('few')})->{state}, '53300', 'so is who wants a transaction');
	$s->value('ROLLBACK');
	$there->value('SELECT pg_advisory_unlock(1)');
	is(join(' ', map { $_->wait->{out} } @sessions), '(7) (1001) (1002)', 'the others are served');
	is(turned_away('few'), '2 0', 'and the refused ones counted');
	is(rows(50), '0', 'they have not run');

	# a pool that has just begun may open its connections first
	pool('cold', max_size => 6, max_waiting => 1, multiplex => 'off');
	$there->value('SELECT pg_advisory_lock(1)');
	@sessions = map { session($local) } 1 .. 7;
	$_->send(q{SELECT dbpool_query('cold', 'SELECT hold()')}) foreach @sessions;
	held(6);
	$control->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'cold'}, '1');
	is($s->query(q{SELECT dbpool_query('cold', 'SELECT 1')})->{state}, '53300', 'six run, one waits, one is refused');
	$there->value('SELECT pg_advisory_unlock(1)');
	is(join('', map { $_->wait->{out} } @sessions), '(7)' x 7, 'all that had come before are served');

	pool('paused', max_size => 1, max_waiting => 1);
	$s->value(q{SELECT dbpool_ping('paused'); SELECT dbpool_pause('paused')});
	$sessions[0]->send(q{SELECT dbpool_query('paused', 'SELECT 1')});
	$control->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'paused'}, '1');
	like($s->query(q{SELECT dbpool_query('paused', 'SELECT 1')})->{err}, qr/53300.*dbpool_resume\(\)/s, 'also of a pool that is paused');
	$s->value(q{SELECT dbpool_resume('paused')});
	is($sessions[0]->wait->{out}, '(1)', 'which goes on with the others');
};

subtest 'who has waited too long is shed' => sub {
	pool('shed', max_size => 1, shed => 'on');
	pool('unshed', max_size => 1);
	foreach my $pool ('shed', 'unshed')
	{
		my @sessions = queue_up($pool, 3);

		all_wait();
		is(turned_away($pool), '0 0', "$pool: as long as nobody else comes they wait");
		push @sessions, session($local)->send("SELECT dbpool_exec('$pool', 'INSERT INTO t VALUES (60)')");
		if ($pool eq 'shed')
		{
			foreach my $answer (map { $sessions[$_]->wait } 1 .. 3)
			{
				is($answer->{state}, '53300', 'then they are given up');
				like($answer->{err}, qr/pool "shed" is overloaded\nDETAIL:  The call has waited for [\d.]+ ms, .*The statement was not run\.\nHINT:  Try again/, 'and told why');
			}
			@sessions = @sessions[ 0, 4 ];
		}
		$there->value('SELECT pg_advisory_unlock(1)');
		is(join(' ', map { my $a = $_->wait; $a->{err} . $a->{out} } @sessions),
			$pool eq 'shed' ? '(7) 1' : '(7) (1001) (1002) (1003) 1', 'the others are served');
		is(turned_away($pool), $pool eq 'shed' ? '0 3' : '0 0', 'and they are counted');
		$there->value('DELETE FROM t WHERE id = 60');
	}
};

subtest 'who has waited through a pause is not shed' => sub {
	pool('pause', max_size => 1, shed => 'on');
	$s->value(q{SELECT dbpool_ping('pause'); SELECT dbpool_pause('pause')});
	my @sessions = map { session($local) } 1 .. 4;

	foreach my $i (0 .. 3)
	{
		$sessions[$i]->send("SELECT dbpool_query('pause', 'SELECT $i FROM hold()')");
		$control->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'pause'}, $i + 1);
	}
	all_wait();
	$there->value('SELECT pg_advisory_lock(1)');
	$s->value(q{SELECT dbpool_resume('pause')});
	held(1);
	all_wait();
	push @sessions, session($local)->send(q{SELECT dbpool_query('pause', 'SELECT 4')});
	$control->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'pause'}, 4);
	all_wait();
	push @sessions, session($local)->send(q{SELECT dbpool_query('pause', 'SELECT 5')});
	$control->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'pause'}, 5);
	$there->value('SELECT pg_advisory_unlock(1)');
	is(join('', map { $_->wait->{out} } @sessions), '(0)(1)(2)(3)(4)(5)', 'all are served, in order');
	is(turned_away('pause'), '0 0', 'none was shed');
};

done_testing();
