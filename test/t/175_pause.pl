
# dbpool_pause() and dbpool_reset() wait until transactions and statements have ended: what
# goes on meanwhile, what waits, and what is so when they give up.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 2);

$remote->safe_psql('postgres', 'CREATE TABLE t (id int)');
create_pool($local, 'p', $remote, max_size => 4);
$local->safe_psql('postgres', 'CREATE ROLE alice LOGIN; GRANT USAGE ON FOREIGN SERVER p TO alice;'
	  . q{CREATE USER MAPPING FOR alice SERVER p OPTIONS (password_required 'false')});
$remote->safe_psql('postgres', 'CREATE ROLE alice LOGIN; GRANT ALL ON t TO alice');

my $control = session($local);
my $owner = session($local);
my $theirs = session($remote);
my $s = session($local, options => '-c dbpool.transaction=bound');
my $insert = q{SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1)')};

# Until the session waits for a pause, or a reset.
sub waits
{
	my ($session) = @_;

	return $control->poll(
		qq{SELECT wait_event FROM pg_stat_activity WHERE pid = $session->{pid} AND state = 'active'
			AND query ~ 'dbpool_(pause|reset)' AND EXISTS (SELECT FROM dbpool_pools WHERE pool = 'p'
				AND leased + busy > 0)},
		$local->pg_version >= 17 ? 'DbpoolPause' : 'Extension');
}

sub state
{
	return $control->value(q{SELECT string_agg(DISTINCT state, ' ') FROM dbpool_pools WHERE pool = 'p' AND state <> 'cold'});
}

# A transaction with a call in it.
sub open_transaction
{
	$s->query('BEGIN');
	is($s->value($insert), '1', 'a transaction');
	return;
}

subtest 'a pause waits for transactions' => sub {
	my $new = session($local, options => '-c dbpool.transaction=bound');

	open_transaction();
	$owner->send(q{SELECT dbpool_pause('p')});
	ok(waits($owner), 'it waits');
	is(state(), 'paused', 'the pool is paused already');
	is($s->value($insert), '1', 'a call in the transaction goes on');
	is($s->query('SAVEPOINT a')->{err}, '', 'a savepoint');
	is($s->value($insert), '1', 'and a call in that');
	$new->send($insert);
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	is($s->query('COMMIT')->{err}, '', 'the transaction ends');
	is($owner->wait->{err}, '', 'and so does the wait');
	is($control->value(q{SELECT sum(busy + leased + cancelling + resetting) FROM dbpool_pools WHERE pool = 'p'}), '0',
		'nothing runs then');
	is($control->value(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}), '1', 'who came later waits on');
	$owner->value(q{SELECT dbpool_resume('p')});
	is($new->wait->{err}, '', 'until the pool is resumed');

	$owner->value(q{SELECT dbpool_pause('p')});
	is(state(), 'paused', 'with nothing under way it returns at once');
	is($owner->query(q{SELECT dbpool_pause('p')})->{err}, '', 'and once more');
	$owner->value(q{SELECT dbpool_resume('p')});
};

subtest 'and for statements' => sub {
	my $slow = session($local);

	$theirs->value('SELECT pg_advisory_lock(1)');
	$slow->send(q{SELECT dbpool_exec('p', 'SELECT pg_advisory_xact_lock(1)')});
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
	$owner->send(q{SELECT dbpool_pause('p')});
	ok(waits($owner), 'it waits');
	my $answer = session($local)->query(q{SELECT dbpool_pause('p', '100ms')});
	is($answer->{state}, '55P03', 'another one has a timeout');
	like($answer->{err}, qr/DETAIL:  Process $slow->{pid} of role "\w+" has been running a statement for [0-9.]+ s\.\nThe pool stays paused, as it was before\./,
		'its error says what runs');
	is(state(), 'paused', 'and the pause that was before stays');
	$theirs->value('SELECT pg_advisory_unlock(1)');
	is($owner->wait->{err}, '', 'when the statement has ended, it ends');
	is($slow->wait->{err}, '', 'which was not disturbed');
	$owner->value(q{SELECT dbpool_resume('p')});
};

subtest 'a pause that fails has not been' => sub {
	my $alice = session($local, user => 'alice');

	open_transaction();
	$alice->value(q{SELECT dbpool_begin('p', 'hers')});
	my $answer = $owner->query(q{SELECT dbpool_pause('p', '200ms')});
	is($answer->{state}, '55P03', 'a timeout');
	like($answer->{err}, qr/pool "p" has not come to rest within 0\.2 s/, 'its error');
	like($answer->{err}, qr/Process $s->{pid} of role "\w+" has a transaction open, idle for [0-9.]+ s\./, 'names one');
	like($answer->{err}, qr/Process $alice->{pid} of role "alice" has transaction "hers" open, idle for [0-9.]+ s\./,
		'and another, of another mapping');
	like($answer->{err}, qr/The pool is not paused\.\nHINT:  /, 'and says what is so now');
	is(state(), 'active', 'it is');
	$alice->value(q{SELECT dbpool_rollback('hers')});
	is($control->value($insert), '1', 'others go on');

	$owner->send(q{SELECT dbpool_pause('p', NULL)});
	ok(waits($owner), 'without a limit');
	$control->value("SELECT pg_cancel_backend($owner->{pid})");
	is($owner->wait->{state}, '57014', 'it is cancelled');
	is(state(), 'active', 'and has not been');

	my $gone = session($local);
	$gone->send(q{SELECT dbpool_pause('p')});
	ok(waits($gone), 'a session');
	$control->value("SELECT pg_terminate_backend($gone->{pid})");
	ok($control->poll(q{SELECT DISTINCT state FROM dbpool_pools WHERE pool = 'p' AND state <> 'cold'}, 'active'),
		'that is terminated leaves no pause behind');

	$answer = $owner->query(q{DO $$ BEGIN PERFORM dbpool_pause('p', '10ms'); EXCEPTION WHEN lock_not_available THEN RAISE NOTICE 'caught'; END $$});
	like($answer->{err}, qr/caught/, 'its error can be caught');
	is(state(), 'active', 'with the same outcome');

	$owner->send(q{SELECT dbpool_pause('p')});
	ok(waits($owner), 'it waits');
	$control->value(q{SELECT dbpool_resume('p')});
	$answer = $owner->wait;
	is($answer->{state}, '55000', 'who is resumed meanwhile');
	like($answer->{err}, qr/pool "p" was resumed while dbpool_pause\(\) waited/, 'is told so');

	my $second = session($local);
	$owner->send(q{SELECT dbpool_pause('p')});
	ok(waits($owner), 'one waits');
	$second->send(q{SELECT dbpool_pause('p')});
	ok(waits($second), 'and a second one');
	$control->value("SELECT pg_cancel_backend($owner->{pid})");
	is($owner->wait->{state}, '57014', 'the first one is cancelled');
	is($second->wait->{state}, '55000', 'so that the second one is told');
	is(state(), 'active', 'that the pool is not paused');

	is($owner->query(q{SELECT dbpool_pause('p', '0')})->{err}, '', 'with a timeout of 0 nothing is waited for');
	is(state(), 'paused', 'and the pool is paused');
	is($s->value($insert), '1', 'the transaction goes on');
	$owner->value(q{SELECT dbpool_resume('p')});
	is($s->query('COMMIT')->{err}, '', 'to its end');
	foreach my $bad ('-1s', '25 days')
	{
		is($owner->query("SELECT dbpool_pause('p', '$bad')")->{state}, '22023', "not $bad");
	}
	is(state(), 'active', 'which is not a pause');
};

subtest 'what would wait for itself' => sub {
	my $port = $local->port;
	my $host = $local->host;

	open_transaction();
	foreach my $what ('pause', 'reset')
	{
		$s->query('SAVEPOINT a');
		my $answer = $s->query("SELECT dbpool_$what('p')");
		is($answer->{state}, '55006', "$what by a session with a transaction");
		like($answer->{err}, qr/cannot be $what(?:d)? by a session that uses it\nDETAIL:  .* a transaction of this session, .*\nHINT:  .*dbpool_$what\('p', '0'\)/, 'is refused');
		$s->query('ROLLBACK TO a');
	}
	is(state(), 'active', 'at once');
	is($s->query(q{SELECT dbpool_reset('p', '0')})->{err}, '', 'without a wait it may');
	is($s->value($insert), '1', 'and goes on');

	# by a pool that points home
	create_pool($local, 'home', $local);
	my $answer = $s->query(q{SELECT dbpool_exec('home', 'SELECT dbpool_pause(''p'')')});
	is($answer->{state}, '55006', 'who waits for who waits');
	like($answer->{err}, qr/a transaction of process $s->{pid}, which waits for this session/, 'is refused as well');
	$s->query('ROLLBACK');
	$answer = $owner->query(q{SELECT dbpool_exec('home', 'SELECT dbpool_pause(''home'')')});
	like($answer->{err}, qr/a statement of process $owner->{pid}, which waits for this session/, 'and a statement of the pool that it pauses');
	is($owner->value(q{SELECT dbpool_exec('home', 'SELECT 1')}), '1', 'which is not paused');
	# its transaction may end before, or be on another pool
	$s->query('BEGIN');
	$s->value(q{SELECT dbpool_exec('home', 'SELECT 1')});
	is($s->query(q{SELECT dbpool_pause('p'), dbpool_resume('p')})->{err}, '', 'another pool');
	$s->query('ROLLBACK');
};

subtest 'a reset waits as well' => sub {
	open_transaction();
	my $answer = $owner->query(q{SELECT dbpool_reset('p', '200ms')});
	is($answer->{state}, '55P03', 'up to its timeout');
	like($answer->{err}, qr/pool "p" still has connections from before dbpool_reset\(\) after 0\.2 s\nDETAIL:  Process $s->{pid} .*idle for/, 'which tells for whom');
	my $new = session($local, options => '-c dbpool.transaction=bound');
	$owner->send(q{SELECT dbpool_reset('p')});
	ok(waits($owner), 'it waits');
	my $old = $s->value(q{SELECT dbpool_value(0, 'p', 'SELECT pg_backend_pid()')});
	$new->query('BEGIN');
	isnt($new->value(q{SELECT dbpool_value(0, 'p', 'SELECT pg_backend_pid()')}), $old, 'what comes meanwhile is served');
	is($s->query('COMMIT')->{err}, '', 'the transaction ends');
	is($owner->wait->{err}, '', 'and so does the wait, though another one has begun since');
	ok($theirs->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $old", '0'), 'the connection is closed');
	is($new->query('COMMIT')->{err}, '', 'the other one ends when it likes');
};

subtest 'a DROP SERVER that is taken back' => sub {
	$owner->value(q{SELECT dbpool_pause('p')});
	$control->value($_)
	  foreach 'SET client_min_messages = error', 'BEGIN', 'SAVEPOINT outer_one', 'SAVEPOINT inner_one', 'DROP SERVER p CASCADE',
	  'RELEASE inner_one', 'ROLLBACK TO outer_one', 'COMMIT', 'RESET client_min_messages';
	is(state(), 'paused', 'leaves the pool as it is');
	$owner->value(q{SELECT dbpool_resume('p')});
	is($control->value($insert), '1', 'and it works when it is resumed');
};

subtest 'what ends the wait' => sub {
	open_transaction();
	$owner->send(q{SELECT dbpool_pause('p', NULL)});
	ok(waits($owner), 'it waits');
	$control->value(q{SELECT pg_terminate_backend(pid) FROM dbpool_workers});
	is($owner->wait->{err}, '', 'with the worker, all ends');
	is($s->query('COMMIT')->{state}, '08006', 'also the transaction');
	is(state(), 'paused', 'the pool is paused');
	$owner->value(q{SELECT dbpool_resume('p')});
	is($control->value($insert), '1', 'and works when it is resumed');

	open_transaction();
	$owner->send(q{SELECT dbpool_reset('p', NULL)});
	ok(waits($owner), 'a reset waits');
	$theirs->value(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'});
	is($owner->wait->{err}, '', 'until the connection is lost');
	is($s->query('COMMIT')->{state}, '08006', 'as is the transaction');

	open_transaction();
	$owner->send(q{SELECT dbpool_pause('p', NULL)});
	ok(waits($owner), 'a pause waits');
	$control->value('DROP SERVER p CASCADE');
	is($owner->wait->{state}, '55000', 'until the server is dropped');
	is($s->query('COMMIT')->{err}, '', 'the transaction goes on to its end');
};

done_testing();
