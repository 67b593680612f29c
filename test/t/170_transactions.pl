
# Transactions over calls, and all that may come between: lost connections and workers,
# sessions that end or are cancelled, those that forget them, and pools that have no
# connection left for them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote(conf => "restart_after_crash = on\n");
my $local = make_local(conf => "max_prepared_transactions = 5\n");

$remote->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0)');
create_pool($local, 'p', $remote, max_size => 3, acquire_timeout => '3s');
$local->safe_psql('postgres', 'CREATE TABLE here (id int)');

my $control = session($local);
my $theirs = session($remote);

sub bound
{
	return session($local, options => '-c dbpool.transaction=bound', @_);
}

my $s = bound();
my $id = 0;

# Has the remote the row, and nothing open?
sub rows
{
	return $theirs->value('SELECT coalesce(string_agg(id::text, \',\' ORDER BY id), \'\') FROM t');
}

sub insert
{
	my ($pool) = @_;

	$id++;
	return "SELECT dbpool_exec('" . ($pool || 'p') . "', 'INSERT INTO t VALUES (\$1)', $id)";
}

sub slow_insert
{
	my ($ms) = @_;

	$id++;
	return sprintf q{SELECT dbpool_exec('p', 'INSERT INTO t SELECT $1 FROM pg_sleep($2)', %d, %f)}, $id, $ms / 1000;
}

# Nothing is left of any transaction, here or there.
sub at_rest
{
	my ($name) = @_;

	ok( $control->poll(
			q{SELECT count(*) FROM dbpool_transactions}, '0'),
		"$name: no transaction is left");
	ok( $control->poll(
			q{SELECT coalesce(sum(busy + leased + cancelling + resetting), 0) FROM dbpool_pools}, '0'),
		"$name: no connection is taken");
	ok( $theirs->poll(
			q{SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND pid <> pg_backend_pid()}, '0'),
		"$name: the remote has none open");
	return;
}

subtest 'the connection is lost between two calls' => sub {
	$s->query('BEGIN');
	$s->value('INSERT INTO here VALUES (1)');
	is($s->value(insert()), '1', 'a call');
	$theirs->value(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'});
	$control->poll(q{SELECT state FROM dbpool_transactions}, 'ended');
	my $answer = $s->query(insert());
	is($answer->{state}, '08006', 'the next call fails');
	like($answer->{err}, qr/the transaction on pool "p" is gone/, 'and says that it is gone');
	like($answer->{err}, qr/terminating connection due to administrator command/, 'and why');
	$s->query('ROLLBACK');

	$s->query('BEGIN');
	$s->value('INSERT INTO here VALUES (1)');
	is($s->value(insert()), '1', 'a call');
	$theirs->value(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'});
	$control->poll(q{SELECT state FROM dbpool_transactions}, 'ended');
	is($s->query('COMMIT')->{state}, '08006', 'the local transaction cannot be committed');
	is($s->value('SELECT count(*) FROM here'), '0', 'and is not');
	is(rows(), '', 'nor is the remote one');

	# in a block that catches all
	$answer = $s->query(<<'SQL');
DO $$
BEGIN
	INSERT INTO here VALUES (2);
	PERFORM dbpool_exec('p', 'INSERT INTO t VALUES (1000)');
	BEGIN
		PERFORM dbpool_exec('p', 'SELECT pg_terminate_backend(pg_backend_pid())');
	EXCEPTION WHEN OTHERS THEN
		RAISE NOTICE 'caught %', SQLSTATE;
	END;
	BEGIN
		PERFORM dbpool_exec('p', 'INSERT INTO t VALUES (1001)');
	EXCEPTION WHEN OTHERS THEN
		RAISE NOTICE 'then %', SQLSTATE;
	END;
END $$
SQL
	like($answer->{err}, qr/caught 0800[67].*then 08006.*ERROR:  08006/s, 'whatever is caught, the end fails');
	is($s->value('SELECT count(*) FROM here'), '0', 'nothing here');
	is(rows(), '', 'nothing there');
	at_rest('lost');
};

subtest 'the worker is terminated' => sub {
	$s->query('BEGIN');
	is($s->value(insert()), '1', 'a call');
	my $pid = worker_pid($control);
	$control->value("SELECT pg_terminate_backend($pid)");
	$control->poll("SELECT pid <> $pid FROM dbpool_workers WHERE pid IS NOT NULL");
	my $answer = $s->query(insert());
	is($answer->{state}, '08006', 'the next call fails');
	like($answer->{err}, qr/worker was terminated/, 'and says why');
	is($s->query('COMMIT')->{err}, '', 'an aborted one can be ended');
	$s->query('BEGIN');
	is($s->value(insert()), '1', 'with the next worker');
	$pid = worker_pid($control);
	$control->value("SELECT pg_terminate_backend($pid)");
	$control->poll("SELECT pid <> $pid FROM dbpool_workers WHERE pid IS NOT NULL");
	is($s->query('COMMIT')->{state}, '08006', 'nor can it be committed');
	is(rows(), '', 'nothing there');
	at_rest('worker');
};

subtest 'the session ends' => sub {
	foreach my $how ('quit', 'kill', 'terminate', 'terminate running')
	{
		my $other = bound();

		$other->query('BEGIN');
		is($other->value(insert()), '1', "$how: a call");
		$other->value(q{SELECT dbpool_begin('p', 'tx')});
		if ($how eq 'quit') { $other->quit; }
		elsif ($how eq 'kill') { $other->kill; }
		elsif ($how eq 'terminate') { $control->value('SELECT pg_terminate_backend(' . $other->pid . ')'); }
		else
		{
			$other->send(query_sleeps('p', 60));
			$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
			$control->value('SELECT pg_terminate_backend(' . $other->pid . ')');
		}
		at_rest($how);
	}
	is(rows(), '', 'nothing there');
};

subtest 'a call is cancelled' => sub {
	foreach my $how ('statement_timeout', 'cancel')
	{
		my $answer;

		$s->query('BEGIN');
		is($s->value(insert()), '1', "$how: a call");
		my $kept = $id;
		$s->query('SAVEPOINT a');
		is($s->value(insert()), '1', 'one in a savepoint');
		if ($how eq 'cancel')
		{
			$s->send(query_sleeps('p', 60));
			$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
			$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
			$answer = $s->wait;
		}
		else
		{
			$answer = $s->query(q{SET LOCAL statement_timeout = '300ms'; } . query_sleeps('p', 60));
		}
		is($answer->{state}, '57014', 'it is cancelled');
		$s->query('ROLLBACK TO a');
		is($s->value("SELECT * FROM dbpool_query('p', 'SELECT string_agg(id::text, \$\$,\$\$) FROM t') AS t(ids text)"),
			$kept, 'what was before the savepoint is still there');
		is($s->value(insert()), '1', 'and it goes on');
		is($s->query('COMMIT')->{err}, '', 'and is committed');
		is(rows(), "$kept,$id", 'as it should');
		$theirs->value('TRUNCATE t');
	}

	# again and again, at any moment
	my $seed = $ENV{TRANSACTION_SEED} || int(rand(1e9));
	note("TRANSACTION_SEED=$seed");
	srand($seed);
	my ($done, $cancelled) = (0, 0);
	$s->query('BEGIN');
	foreach my $round (1 .. 60)
	{
		$s->query('SAVEPOINT a');
		my $ms = 2 + int(rand(6));
		# in one query, as a RESET by itself could be cancelled after a call that was not
		my $answer = $s->query("SET LOCAL statement_timeout = '$ms ms'; "
			. slow_insert(rand(4)) . '; SET LOCAL statement_timeout = 0');
		if ($answer->{err} eq '') { $done++; $s->query('RELEASE a'); }
		else
		{
			is($answer->{state}, '57014', 'cancelled') if $answer->{state} ne '57014';
			$cancelled++;
			$s->query('ROLLBACK TO a');
			$s->query('RELEASE a') if rand() < 0.5;
		}
	}
	is($s->value("SELECT * FROM dbpool_query('p', 'SELECT count(*) FROM t') AS t(n int)"), $done,
		"$done calls have run, $cancelled have not");
	is($s->query('COMMIT')->{err}, '', 'it is committed');
	is($theirs->value('SELECT count(*) FROM t'), $done, 'with just those');
	$theirs->value('TRUNCATE t');
	at_rest('cancel');
};

subtest 'the last connection is for others' => sub {
	my @holders = map { bound() } 1 .. 2;

	foreach my $holder (@holders)
	{
		$holder->query('BEGIN');
		is($holder->value(insert()), '1', 'a transaction');
	}
	is($control->value(q{SELECT dbpool_exec('p', 'SELECT 1')}), '1', 'a statement by itself runs beside');
	$s->query('BEGIN');
	$s->send(insert());
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	is($control->value(q{SELECT dbpool_exec('p', 'SELECT 1')}), '1', 'also when a third one waits');
	is($control->value(q{SELECT string_agg(state, ',' ORDER BY began_at) FROM dbpool_transactions}),
		'idle,idle,waiting', 'as the view shows');
	my $answer = $s->wait;
	is($answer->{state}, '53300', 'it gets none in time');
	like($answer->{err}, qr/2 are leased to open transactions/, 'and is told of the transactions');
	like($answer->{err}, qr/longest idle one, of process $holders[0]->{pid}, has done nothing for [0-9.]+ s/, 'and who forgets');
	$s->query('ROLLBACK');
	$s->query('BEGIN');
	$s->send(insert());
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	$holders[0]->query('ROLLBACK');
	$answer = $s->wait;
	is($answer->{err}, '', 'it gets the next that ends');
	$s->query('COMMIT');
	$holders[1]->query('COMMIT');
	is($theirs->value('SELECT count(*) FROM t'), '2', 'two were committed');
	$theirs->value('TRUNCATE t');

	# of one connection it is the one
	create_pool($local, 'single', $remote, max_size => 1, acquire_timeout => '1s');
	$s->query('BEGIN');
	is($s->value(insert('single')), '1', 'the only one can be had');
	$answer = $control->query(q{SELECT dbpool_exec('single', 'SELECT 1')});
	is($answer->{state}, '53300', 'others wait for it');
	$s->query('ROLLBACK');
	is($control->value(q{SELECT dbpool_exec('single', 'SELECT 1')}), '1', 'until it ends');
	at_rest('last');
};

# One transaction in all its states.
subtest 'what the view shows' => sub {
	my $columns = q{name, pool, mode, state, pid, remote_pid, isolation, read_only, savepoints, statements,
		idle_since IS NOT NULL AND idle_since >= began_at, left(query, 40)};
	my $shown = qq{SELECT concat_ws('|', $columns) FROM dbpool_transactions};
	my $pid = $s->pid;

	create_pool($local, 'shown', $remote, max_size => 2);
	my $holder = bound();
	$holder->query('BEGIN');
	$holder->value(insert('shown'));
	$s->query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
	$s->query('SAVEPOINT a');
	$s->send(q{SELECT dbpool_exec('shown', 'SELECT pg_sleep(60)')});
	ok($control->poll(qq{$shown WHERE pid = $pid}, "shown|bound|waiting|$pid|repeatable read|t|1|0|f|"), 'one that waits for a connection');
	$holder->query('ROLLBACK');
	ok($control->poll(qq{SELECT state FROM dbpool_transactions}, 'active'), 'it gets one');
	my $asleep = q{FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND wait_event = 'PgSleep'};
	$theirs->poll("SELECT count(*) $asleep", '1');
	my $remote_pid = $theirs->value("SELECT pid $asleep");
	is($control->value($shown), "shown|bound|active|$pid|$remote_pid|repeatable read|t|1|1|f|SELECT pg_sleep(60)", 'a savepoint is there while the first statement within runs');
	$control->value("SELECT pg_cancel_backend($pid)");
	is($s->wait->{state}, '57014', 'it is cancelled');
	ok($control->poll($shown, "shown|bound|idle|$pid|$remote_pid|repeatable read|t|1|1|t|SELECT pg_sleep(60)"), 'the transaction goes on');
	$s->query('ROLLBACK TO a');
	$s->query('RELEASE a');
	$control->value('ALTER SERVER shown RENAME TO renamed');
	is($s->value(q{SELECT dbpool_exec('renamed', 'SELECT 1')}), '1', 'it goes by the new name');
	is($control->value($shown), "renamed|bound|idle|$pid|$remote_pid|repeatable read|t|0|2|t|SELECT 1", 'which is shown');
	$theirs->value("SELECT pg_terminate_backend($remote_pid)");
	ok($control->poll($shown, "renamed|bound|ended|$pid|repeatable read|t|0|2|t|SELECT 1"), 'a lost one has no process there');
	$s->query('ROLLBACK');
	$holder->quit;
	at_rest('shown');
};

subtest 'also while connections are checked for transactions' => sub {
	my @holders = map { bound() } 1 .. 3;

	create_pool($local, 'checked', $remote, max_size => 3, min_size => 3, validate_after => 0, acquire_timeout => '60s');
	$control->poll(q{SELECT dbpool_exec('checked', 'SELECT 1')::text || (SELECT idle FROM dbpool_pools WHERE pool = 'checked')}, '13');
	$control->value(q{SELECT dbpool_pause('checked')});
	foreach my $holder (@holders)
	{
		$holder->query('BEGIN');
		$holder->send(q{SELECT dbpool_exec('checked', 'SELECT 1')});
	}
	$control->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'checked'}, '3');
	$control->value(q{SELECT dbpool_resume('checked')});
	ok($control->poll(q{SELECT string_agg(state, ',' ORDER BY state) FROM dbpool_transactions}, 'idle,idle,waiting'), 'two get one');
	is($control->value(q{SELECT dbpool_exec('checked', 'SELECT 1')}), '1', 'a statement by itself runs beside');
	foreach my $holder (sort { $b->is_done <=> $a->is_done } @holders)
	{
		is($holder->wait->{err}, '', 'the statements have run');
		$holder->query('COMMIT');
	}
	at_rest('checked');
};

# Subtransactions at random, several levels deep, with errors here and there and cancels at
# any moment: what is inserted there is inserted here as well, and so the local server
# knows what has to be there. A seed repeats what is done, not when the cancels come.
subtest 'savepoints at random' => sub {
	my $seed = $ENV{SAVEPOINT_SEED} || int(rand(1e9));
	my $rounds = $ENV{SAVEPOINT_ROUNDS} || 60;
	my (%ends, $wrong);

	note("SAVEPOINT_SEED=$seed");
	srand($seed);
	create_pool($local, $_, $remote) foreach qw(p1 p2);
	$theirs->value("CREATE TABLE $_ (id int)") foreach qw(p1 p2);
	$control->value("SET client_min_messages = warning");
	$control->value(<<'SQL');
CREATE TABLE model (pool text, id int);
CREATE SEQUENCE model_id;
CREATE SEQUENCE model_wrong START 1;
CREATE FUNCTION remote_insert(pool text, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	way float := random();
BEGIN
	IF way < 0.5 THEN
		PERFORM dbpool_exec(pool, format('INSERT INTO %s VALUES ($1)', pool), n);
	ELSIF way < 0.6 THEN
		PERFORM dbpool_exec(pool, format('INSERT INTO %s VALUES (%s); SELECT 1', pool, n));
	ELSIF way < 0.7 THEN
		PERFORM dbpool_query(pool, format('INSERT INTO %s VALUES (%s) RETURNING id', pool, n));
	ELSIF way < 0.8 THEN
		PERFORM dbpool_bulk_insert(pool, pool, format('SELECT %s', n));
	ELSE
		PERFORM dbpool_exec(pool, format('INSERT INTO %s SELECT $1 FROM pg_sleep(0.002)', pool), n);
	END IF;
END $$;
CREATE FUNCTION walk(depth int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	what float;
	chosen text;
	n int;
BEGIN
	FOR i IN 1 .. 1 + (random() * 4)::int LOOP
		what := random();
		chosen := CASE WHEN random() < 0.7 THEN 'p1' ELSE 'p2' END;
		IF what < 0.4 THEN
			n := nextval('model_id');
			INSERT INTO model VALUES (chosen, n);
			PERFORM remote_insert(chosen, n);
		ELSIF what < 0.75 THEN
			CONTINUE WHEN depth > 5;
			BEGIN
				PERFORM walk(depth + 1);
				IF random() < 0.4 THEN RAISE EXCEPTION 'undone'; END IF;
			EXCEPTION WHEN OTHERS OR query_canceled THEN NULL;
			END;
		ELSIF what < 0.85 THEN
			CONTINUE WHEN depth = 0;
			PERFORM dbpool_exec(chosen, CASE WHEN random() < 0.5 THEN 'SELECT 1 / 0' ELSE 'SELECT nothing' END);
		ELSIF (SELECT count(*) FROM model m WHERE m.pool = chosen) <>
			dbpool_value(NULL::bigint, chosen, format('SELECT count(*) FROM %s', chosen)) THEN
			PERFORM nextval('model_wrong');
		END IF;
	END LOOP;
END $$
SQL
	my $walker = bound();
	$walker->value('SELECT setseed(' . rand() . ')');
	foreach my $round (1 .. $rounds)
	{
		my @open;
		my $answer = $walker->query('BEGIN');

		foreach my $step (1 .. 2 + int(rand(8)))
		{
			my $what = rand();
			my $failed = $answer->{err} ne '';
			last if $failed && !@open;
			if ($failed || ($what < 0.2 && @open))
			{
				my $to = int(rand(@open));
				$answer = $walker->query("ROLLBACK TO $open[$to]");
				splice @open, $to + 1;
			}
			elsif ($what < 0.3 && @open)
			{
				my $to = int(rand(@open));
				$answer = $walker->query("RELEASE $open[$to]");
				splice @open, $to;
			}
			elsif ($what < 0.5)
			{
				push @open, 's' . @open;
				$answer = $walker->query("SAVEPOINT $open[-1]");
			}
			else
			{
				my $cancels = rand() < 0.5;
				$control->send("SELECT pg_cancel_backend($walker->{pid}), pg_sleep(random() * 0.02) FROM generate_series(1, 5)") if $cancels;
				$answer = $walker->query('SELECT walk(0)');
				$control->wait if $cancels;
				$ends{ $answer->{state} || 'done' }++;
				$wrong .= "round $round: $answer->{err}\n" if $answer->{err} ne '' && $answer->{state} ne '57014';
			}
		}
		$answer = $walker->query(rand() < 0.8 ? 'COMMIT' : 'ROLLBACK');
		$wrong .= "round $round: the end failed: $answer->{err}\n" if $answer->{err} ne '';
		foreach my $pool ('p1', 'p2')
		{
			my $here = $control->value("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM model WHERE pool = '$pool'");
			my $sql = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM $pool";

			# a rollback is not waited for
			next if $theirs->value($sql) eq $here;
			$wrong .= "round $round: $pool has " . $theirs->value($sql) . ", not $here\n";
		}
		last if $wrong;
	}
	is($wrong, undef, 'the remotes have what the local server has');
	is($control->value('SELECT is_called FROM model_wrong'), 'f', 'and had on the way');
	cmp_ok($ends{done} || 0, '>', 0, 'much was done: ' . join ', ', map { "$ends{$_} times $_" } sort keys %ends);
	cmp_ok($control->value('SELECT count(*) FROM model'), '>', 0, 'and kept');
	$walker->quit;
	at_rest('random');
};

subtest 'a session waits for connections that its own transactions have' => sub {
	my @s = (bound(), bound());
	my $deadlock = sub {
		my ($session, $call, $name) = @_;
		my $answer = $session->send($call)->ends("$name: it ends");

		is($answer->{state}, '40P01', 'as a deadlock');
		cmp_ok($answer->{seconds}, '<', 10, 'before long');
		like($answer->{err}, qr/Process \d+ waits for a connection of pool .*transaction of process \d+.*HINT:  .*raise .*max_size/s,
			'which is explained');
		return;
	};

	create_pool($local, 'two', $remote, max_size => 2);
	create_pool($local, 'one', $remote, max_size => 1);
	$s[0]->value(q{BEGIN; SELECT dbpool_begin('two', 'a')});
	$deadlock->($s[0], q{SELECT dbpool_begin('two', 'b')}, 'two by name');
	$s[0]->query('ROLLBACK');
	$s[0]->value('BEGIN; ' . insert('one'));
	$deadlock->($s[0], 'SET LOCAL dbpool.transaction = autonomous; ' . insert('one'), 'one bound, and a statement by itself');
	$s[0]->query('ROLLBACK');

	# the session that has it waits for a lock of the one that wants it
	$s[0]->value('BEGIN; ' . insert('two'));
	$s[1]->value('BEGIN; LOCK TABLE here');
	$s[0]->send('SELECT FROM here');
	$control->poll('SELECT count(*) FROM pg_locks WHERE NOT granted', '1');
	$deadlock->($s[1], insert('two'), 'over a local lock');
	is($s[0]->wait->{err}, '', 'the other one goes on');
	is($s[0]->query('COMMIT')->{err}, '', 'and is committed');
	$s[1]->query('ROLLBACK');

	# one that will end is waited for
	$s[0]->value('BEGIN; ' . insert('two'));
	$s[1]->value('BEGIN');
	$s[1]->send(insert('two'));
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued' AND submitted_at < clock_timestamp() - interval '3 s'}, '1');
	is($s[0]->query('COMMIT')->{err}, '', 'another one ends');
	is($s[1]->wait->{err}, '', 'and who waits goes on');
	is($s[1]->query('COMMIT')->{err}, '', 'to its end');
	$theirs->value('TRUNCATE t');
	$_->quit foreach @s;
	at_rest('own');
};

subtest 'forgotten ones' => sub {
	create_pool($local, 'short', $remote, lease_idle_timeout => '500ms', leak_threshold => '200ms');
	my $offset = -s $local->logfile;
	my $other = bound();

	$other->query('BEGIN');
	is($other->value(insert('short')), '1', 'a transaction');
	$control->poll(q{SELECT state FROM dbpool_transactions}, 'ended');
	my $answer = $other->query(insert('short'));
	is($answer->{state}, '25P03', 'it is rolled back when it is idle for too long');
	like($answer->{err}, qr/did nothing for 0\.5 s/, 'and says so');
	$other->query('ROLLBACK');
	my $log = slurp_file($local->logfile, $offset);
	my @lines = grep { /has had a transaction open on pool "short"/ } split /\n/, $log;
	is(scalar @lines, 1, 'one line of the log is about it');
	like($lines[0], qr/process $other->{pid} /, 'with its process');
	like($log, qr/DETAIL:  Its role .* last statement is: INSERT INTO t/, 'and its statement');

	$other->value(q{SELECT dbpool_begin('short', 'long', idle_timeout => '1h')});
	$other->value(q{SELECT dbpool_begin('short', 'brief', idle_timeout => '10ms')});
	$control->poll(q{SELECT state FROM dbpool_transactions WHERE name = 'brief'}, 'ended');
	is($other->query(q{SELECT dbpool_commit('brief')})->{state}, '25P03', 'a named one has its own');
	is($other->query(q{SELECT dbpool_rollback('brief')})->{state}, '25P01', 'and is none any more');
	is($other->query(q{SELECT dbpool_commit('long')})->{err}, '', 'a longer one lives on');
	at_rest('forgotten');
};

subtest 'pause, reset and drop' => sub {
	$s->query('BEGIN');
	is($s->value(insert()), '1', 'a transaction');
	$control->value(q{SELECT dbpool_pause('p', '0')});
	is($s->value(insert()), '1', 'goes on while the pool is paused');
	is($s->query('COMMIT')->{err}, '', 'to its end');
	$control->value(q{SELECT dbpool_resume('p')});
	$s->query('BEGIN');
	is($s->value(insert()), '1', 'a transaction');
	$control->value(q{SELECT dbpool_reset('p', '0')});
	is($s->value(insert()), '1', 'goes on after dbpool_reset()');
	is($s->query('COMMIT')->{err}, '', 'to its end');
	is($theirs->value('SELECT count(*) FROM t'), '4', 'all are there');
	$theirs->value('TRUNCATE t');

	$s->query('BEGIN');
	$s->value(q{ALTER SERVER p OPTIONS (SET max_size '4')});
	is($s->value(insert()), '1', 'within a transaction that alters the server');
	$s->value(q{ALTER SERVER p OPTIONS (SET max_size '5')});
	is($s->value(insert()), '1', 'twice');
	is($s->query('ROLLBACK')->{err}, '', 'and is rolled back');
	create_pool($local, 'dropped', $remote);
	$s->query('BEGIN');
	is($s->value(insert('dropped')), '1', 'a transaction');
	$s->value(q{DROP SERVER dropped CASCADE});
	is($s->query('COMMIT')->{err}, '', 'that drops its own server is committed');
	is(rows(), $id, 'there as well');
	$theirs->value('TRUNCATE t');
	at_rest('pause');
};

subtest 'prepared statements' => sub {
	create_pool($local, 'prepared', $remote, max_size => 2, prepare_threshold => '2');
	my $read = q{SELECT * FROM dbpool_query('prepared', 'SELECT * FROM changing') AS t(a text)};
	my $write = q{SELECT dbpool_exec('prepared', 'INSERT INTO changing VALUES ($1)', '3000000000')};

	$theirs->value('CREATE TABLE changing (a bigint)');
	foreach (1 .. 4)
	{
		is($s->query("BEGIN; $read; $write; COMMIT")->{err}, '', 'a transaction');
	}
	is($control->value(q{SELECT max(prepared) FROM dbpool_connections WHERE pool = 'prepared'}), '2',
		'its statements are prepared');
	$theirs->value('ALTER TABLE changing ALTER a TYPE text');
	is($s->query($read)->{state}, '0A000', 'one that would return something else fails');
	is($s->query($read)->{err}, '', 'once');
	$theirs->value('TRUNCATE changing');
	$theirs->value('ALTER TABLE changing ALTER a TYPE int USING a::int');
	$s->query($write);
	$theirs->value('ALTER TABLE changing ALTER a TYPE bigint');
	$s->query($write);
	is($s->query($write)->{err}, '', 'so does one whose parameters had another type');
	$s->value(q{SELECT dbpool_exec('prepared', 'DEALLOCATE ALL')});
	is($s->query($write)->{err}, '', 'what a session deallocates is not missed');
	at_rest('prepared');
};

subtest 'a parallel worker' => sub {
	my $p = bound();

	# somebody has said so of a function of his own
	$p->value(q{CREATE FUNCTION call(text) RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS
		$$ BEGIN RETURN dbpool_value(NULL::int, $1, 'SELECT 1'); END $$});
	$p->value(q{SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')});
	my $answer = $p->query(q{SELECT call('p')});
	is($answer->{state}, '25000', 'does not begin one');
	like($answer->{err}, qr/a parallel worker cannot run a statement in the transaction on pool "p"/, 'which is said');
	$p->query('BEGIN');
	$p->value(insert());
	is($p->query(q{SELECT call('p')})->{state}, '25000', 'nor runs a statement in one that is open');
	$p->query('ROLLBACK');
	$p->value(q{SELECT dbpool_begin('p', 'tx')});
	isnt($p->query(q{SELECT call('tx')})->{err}, '', 'or in one that has a name');
	$p->value(q{SELECT dbpool_rollback('tx')});
	is($p->value(q{SET dbpool.transaction = autonomous; SELECT call('p')}), '1', 'a call by itself it may make');
	$p->quit;
	at_rest('parallel');
};

subtest 'who may use one' => sub {
	$local->safe_psql('postgres', q{
		CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN;
		GRANT USAGE ON FOREIGN SERVER p TO alice, bob;
		CREATE USER MAPPING FOR alice SERVER p OPTIONS (password_required 'false');
		CREATE USER MAPPING FOR bob SERVER p OPTIONS (password_required 'false')});
	$remote->safe_psql('postgres', q{CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT ALL ON t TO alice, bob});
	my $alice = session($local, user => 'alice', options => '-c dbpool.transaction=bound');
	my $answer = $alice->query(q{SELECT dbpool_begin('p', 'tx')});
	is($answer->{err}, '', 'any role may begin one');
	is($alice->query('SET dbpool.transaction = bound')->{err}, '', 'and set the mode');

	my $both = session($local);
	$both->value('SET ROLE alice');
	$both->value(q{SELECT dbpool_begin('p', 'hers')});
	$both->value('SET ROLE bob');
	$answer = $both->query(q{SELECT dbpool_exec('hers', 'SELECT 1')});
	is($answer->{state}, '42501', 'another role does not get into it');
	is($both->query(q{SELECT dbpool_commit('hers')})->{state}, '42501', 'nor end it');
	$both->value('SET ROLE alice');
	is($both->query(q{SELECT dbpool_commit('hers')})->{err}, '', 'she does');
	$local->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER p FROM alice');
	is($alice->query(q{SELECT dbpool_exec('tx', 'SELECT 1')})->{state}, '42501', 'what was revoked counts at once');
	is($alice->query(q{SELECT dbpool_rollback('tx')})->{err}, '', 'but for its end');

	$local->safe_psql('postgres', q{GRANT USAGE ON FOREIGN SERVER p TO alice; ALTER SERVER p OPTIONS (SET max_size '10'); ALTER SYSTEM SET dbpool.role_max_requests = 3; SELECT pg_reload_conf()});
	$alice->quit;
	$alice = session($local, user => 'alice', options => '-c dbpool.transaction=bound');
	$alice->poll('SHOW dbpool.role_max_requests', '3');
	$alice->value(qq{SELECT dbpool_begin('p', '$_')}) foreach qw(a b c);
	is($alice->query(q{SELECT dbpool_begin('p', 'd')})->{state}, '53400', 'they count among the statements of a role');
	is($alice->value(q{SELECT dbpool_exec('a', 'SELECT 1')}), '1', 'and what runs in them does not count beside');
	$alice->query('BEGIN');
	$alice->query('SAVEPOINT s');
	is($alice->query(insert())->{state}, '53400', 'a bound one does');
	$alice->query('ROLLBACK TO s');
	is($alice->query(q{SELECT dbpool_commit('a')})->{err}, '', 'others can be ended still');
	is($alice->value(insert()), '1', 'and it goes on');
	is($alice->query(q{SELECT dbpool_begin('p', 'd')})->{state}, '53400', 'but counts now');
	$alice->query('ROLLBACK');
	is($alice->query(q{SELECT dbpool_begin('p', 'd')})->{err}, '', 'until it ends');
	$alice->quit;
	$local->safe_psql('postgres', q{ALTER SYSTEM RESET dbpool.role_max_requests; SELECT pg_reload_conf()});
	at_rest('roles');
};

done_testing();
