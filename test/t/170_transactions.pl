
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
		my $answer = $s->query("SET LOCAL statement_timeout = '$ms ms'; "
			. slow_insert(rand(4)));
		$s->query('RESET statement_timeout');
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
	is($other->query(q{SELECT dbpool_rollback('brief')})->{err}, '', 'and can be rolled back all the same');
	is($other->query(q{SELECT dbpool_commit('long')})->{err}, '', 'a longer one lives on');
	at_rest('forgotten');
};

subtest 'pause, reset and drop' => sub {
	$s->query('BEGIN');
	is($s->value(insert()), '1', 'a transaction');
	$control->value(q{SELECT dbpool_pause('p')});
	is($s->value(insert()), '1', 'goes on while the pool is paused');
	is($s->query('COMMIT')->{err}, '', 'to its end');
	$control->value(q{SELECT dbpool_resume('p')});
	$s->query('BEGIN');
	is($s->value(insert()), '1', 'a transaction');
	$control->value(q{SELECT dbpool_reset('p')});
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

	$local->safe_psql('postgres', q{GRANT USAGE ON FOREIGN SERVER p TO alice; ALTER SYSTEM SET dbpool.role_max_requests = 2; SELECT pg_reload_conf()});
	$alice->quit;
	$alice = session($local, user => 'alice');
	$alice->value(q{SELECT dbpool_begin('p', 'a')});
	$alice->value(q{SELECT dbpool_begin('p', 'b')});
	is($alice->query(q{SELECT dbpool_begin('p', 'c')})->{state}, '53400', 'they count among the statements of a role');
	is($alice->query(q{SELECT dbpool_exec('a', 'SELECT 1')})->{err}, '', 'each with what runs in it');
	is($alice->query(q{SELECT dbpool_commit('a')})->{err}, '', 'and can be ended');
	$alice->quit;
	$local->safe_psql('postgres', q{ALTER SYSTEM RESET dbpool.role_max_requests; SELECT pg_reload_conf()});
	at_rest('roles');
};

done_testing();
