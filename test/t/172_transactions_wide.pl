
# Transactions over calls where there are several workers, pools that are split, limits
# of roles and sessions, time limits here and there, and a local server that crashes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# what this test is about
announce(qr/terminated by signal 9/);

my $remote = make_remote();
my $local = make_local(
	workers => 4,
	conf => "restart_after_crash = on\ndbpool.split_threshold = 0\n"
	  . "dbpool.max_connections = 30\ndbpool.max_requests = 60\n");

$remote->safe_psql('postgres', 'CREATE TABLE t (id serial, n int)');
create_pool($local, 'four', $remote, max_size => 4, acquire_timeout => '5s');
create_pool($local, 'eight', $remote, max_size => 8, acquire_timeout => '5s');
create_pool($local, 'three', $remote, max_size => 3);
create_pool($local, "p$_", $remote, max_size => 3) foreach 1 .. 5;

my $control = session($local);
my $theirs = session($remote);

sub bound
{
	return session($local, options => '-c dbpool.transaction=bound', @_);
}

sub insert
{
	my ($pool, $n) = @_;

	return sprintf q{SELECT dbpool_exec('%s', 'INSERT INTO t (n) VALUES (%d)')}, $pool, $n || 0;
}

sub rows
{
	return $theirs->value('SELECT count(*) FROM t');
}

# Nothing is left of any transaction, here or there.
sub at_rest
{
	my ($name) = @_;

	ok($control->poll(q{SELECT count(*) FROM dbpool_transactions}, '0'),
		"$name: no transaction is left");
	$control->poll(q{SELECT count(*) FROM dbpool_connections WHERE state NOT IN ('idle', 'connecting')}, '0');
	ok( $theirs->poll(
			q{SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND pid <> pg_backend_pid()}, '0'),
		"$name: the remote has none open");
	$theirs->value('TRUNCATE t');
	return;
}

sub workers
{
	my ($pool) = @_;

	return "SELECT workers FROM dbpool_pools WHERE pool = '$pool'";
}

# --- several workers ----------------------------------------------------------------------

subtest 'more sessions than a pool has connections' => sub {
	my ($run, $out) = start_pgbench($local,
		"SET dbpool.transaction = bound; BEGIN;\n"
		  . insert('three') . ";\n" . insert('p1') . ";\nCOMMIT;\n",
		'-c', 40, '-t', 5);

	ok($run->finish, 'all of them wait for their turns') or diag($$out);
	is(rows(), '400', 'and each has written');
	at_rest('many');
};

subtest 'a pool that is split' => sub {
	my ($run, $out) = start_pgbench($local, insert('four') . ";\n", '-c', 8, '-T', 60);

	$control->poll(workers('four'), '2');

	# as many transactions as can be had, of sessions of all workers
	my @sessions = map { bound() } 1 .. 8;
	my $transactions = q{SELECT count(*) FROM dbpool_transactions WHERE state = 'idle'};
	my $open = 0;

	# with its first answer a session learns how many workers there are
	$_->value(q{SET dbpool.transaction = autonomous; } . insert('four') . '; RESET dbpool.transaction; BEGIN')
	  foreach @sessions;
	foreach my $s (@sessions)
	{
		my $answer = $s->query(q{SET LOCAL statement_timeout = '500ms'; } . insert('four'));

		$open++ if $answer->{state} eq '';
		$s->query('ROLLBACK') if $answer->{state} ne '';
		last if $open == 2;
	}
	is($open, 2, 'each worker has one for a transaction');
	is($control->value($transactions), '2', 'and they are open');
	my @others = map { session($local) } 1 .. 8;
	$_->value(insert('four')) foreach @others;
	$_->send(insert('four')) foreach @others;
	is($_->wait->{state}, '', 'a statement by itself goes on') foreach @others;
	is($control->value($transactions), '2', 'beside them');
	$run->signal('INT');
	$run->finish;
	# its sessions notice that it has gone when their statements end
	$control->poll(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'}, '0');
	unlike($$out, qr/aborted|ERROR/, 'and so did all others');
	$_->quit foreach (@sessions, @others);
	at_rest('split');
};

subtest 'a pool is not split when transactions would have all of a share' => sub {
	my @holders = map { bound() } 1 .. 2;

	foreach my $s (@holders)
	{
		$s->value('BEGIN');
		$s->value(insert('eight'));
	}
	my ($run, $out) = start_pgbench($local, insert('eight') . ";\n", '-c', 8, '-T', 60);
	my $looks = $control->value('SELECT sum(requests) FROM dbpool_workers');

	$control->poll('SELECT count(*) > 1 FROM dbpool_connections WHERE pool = $$eight$$');
	# three looks at the load, one a second
	select(undef, undef, undef, 3.5);
	is($control->value(workers('eight')), '1', 'it has one worker');
	cmp_ok($control->value('SELECT sum(requests) FROM dbpool_workers'), '>', $looks + 10, 'statements by themselves go on');
	is($_->query('COMMIT')->{err}, '', 'the transactions are committed') foreach @holders;
	ok($control->poll(workers('eight') =~ s/workers/workers > 1/r, 't'), 'then it is split');
	my $s = bound();
	$s->value('BEGIN');
	is($s->value(insert('eight')), '1', 'with all of which transactions can be had');
	is($s->query('COMMIT')->{err}, '', 'and committed');
	$run->signal('INT');
	$run->finish;
	# its sessions notice that it has gone when their statements end
	$control->poll(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'}, '0');
	unlike($$out, qr/aborted|ERROR/, 'no statement has failed');
	$_->quit foreach (@holders, $s);
	at_rest('not split');
};

# --- limits of a session, and of a role ------------------------------------------------------

sub limit
{
	my ($setting, $value) = @_;

	$control->value("ALTER SYSTEM SET $setting = $value; SELECT pg_reload_conf()");
	$control->poll("SHOW $setting", $value);
	return;
}

subtest 'limits' => sub {
	$local->safe_psql('postgres', q{CREATE ROLE alice LOGIN});
	$remote->safe_psql('postgres', q{CREATE ROLE alice LOGIN; GRANT ALL ON t, t_id_seq TO alice});
	$local->safe_psql('postgres',
		"GRANT USAGE ON FOREIGN SERVER p$_ TO alice; CREATE USER MAPPING FOR alice SERVER p$_ OPTIONS (password_required 'false')")
	  foreach 1 .. 5;
	limit('dbpool.session_max_requests', 2);
	limit('dbpool.role_max_requests', 4);

	my $alice = bound(user => 'alice');
	my $other = bound(user => 'alice');

	$alice->value('BEGIN');
	$alice->value(insert("p$_")) foreach 1 .. 4;
	is($other->query(insert('p5'))->{state}, '53400', 'transactions count among the statements of their role');
	is($other->query(insert('p5'))->{state}, '53400', 'at each try');
	is($other->query(<<'SQL')->{state}, '53400', 'and whatever is caught');
DO $$
BEGIN
	BEGIN
		PERFORM dbpool_exec('p5', 'SELECT 1');
	EXCEPTION WHEN configuration_limit_exceeded THEN
	END;
	PERFORM dbpool_exec('p5', 'SELECT 1');
END $$
SQL
	is($alice->query('COMMIT')->{err}, '', 'as many as are open are committed at once');
	is(rows(), '4', 'each of them');
	is($other->query(insert('p5'))->{err}, '', 'then there is room again');

	# one that was given up is counted until its connection is at rest
	limit('dbpool.role_max_requests', 1);
	my $answer = $alice->query(join ";\n", map { ('BEGIN', insert("p$_"), $_ % 2 ? 'ROLLBACK' : 'COMMIT') } (1 .. 5) x 6);
	is($answer->{err}, '', 'one after the other');
	is($alice->query(q{SELECT dbpool_begin('p1', 'tx')})->{err}, '', 'so it is by name');
	is($alice->query(q{SELECT dbpool_exec('tx', 'SELECT 1')})->{err}, '', 'with what runs in it');
	is($alice->query(q{SELECT dbpool_commit('tx')})->{err}, '', 'to its end');
	$_->quit foreach ($alice, $other);
	$control->value('ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()');
	at_rest('limits');
};

# --- limits of time --------------------------------------------------------------------------

subtest 'time limits of the remote' => sub {
	create_pool($local, 'idle', $remote, options => '-c idle_in_transaction_session_timeout=300ms');
	create_pool($local, 'brief', $remote, options => '-c lock_timeout=200ms -c statement_timeout=1s');
	my $s = bound();

	foreach my $how ('the next call', 'the commit')
	{
		$s->value('BEGIN');
		$s->value(insert('idle'));
		$control->poll(q{SELECT state FROM dbpool_transactions}, 'ended');
		my $answer = $s->query($how eq 'the commit' ? 'COMMIT' : insert('idle'));
		is($answer->{state}, '08006', "$how fails when the remote has ended an idle transaction");
		like($answer->{err}, qr/is gone.*terminating connection due to idle-in-transaction timeout/s, 'and says so');
		$s->value('ROLLBACK');
	}
	is(rows(), '0', 'nothing is there');

	my $gate = session($remote);
	$gate->value('BEGIN; LOCK TABLE t');
	foreach my $case ([ insert('brief'), '55P03' ], [ query_sleeps('brief', 60), '57014' ])
	{
		my ($call, $state) = @{$case};

		$s->value(q{BEGIN; SELECT dbpool_exec('brief', 'CREATE TEMP TABLE mine ()'); SAVEPOINT a});
		my $answer = $s->query($call);
		is($answer->{state}, $state, "a call that takes too long there: $state");
		like($answer->{err}, qr/CONTEXT:  statement on pool "brief"/, 'is told of');
		is($s->query('ROLLBACK TO a')->{err}, '', 'it is rolled back to a savepoint');
		is($s->query(q{SELECT dbpool_exec('brief', 'SELECT 1 FROM mine')})->{err}, '', 'the transaction goes on');
		is($s->query('COMMIT')->{err}, '', 'to its end');
	}
	$gate->quit;
	$s->quit;
	at_rest('their limits');
};

subtest 'time limits here' => sub {
	my $s = bound(options => '-c dbpool.transaction=bound -c idle_in_transaction_session_timeout=300ms');

	$s->send('BEGIN; ' . insert('p1') . q{; SELECT dbpool_begin('p2', 'tx'); } . insert('tx'));
	ok($s->is_done || $s->wait, 'a session does nothing in its transaction');
	$control->poll('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $s->pid, '0');
	is(rows(), '0', 'it is ended, and has written nothing');
	at_rest('idle session');

	# a lock that is local, one that is remote
	my $gate = session($remote);
	my $here = session($local);
	$here->value('CREATE TABLE here (); BEGIN; LOCK TABLE here');
	$s = bound();
	foreach my $limit ('lock_timeout', 'statement_timeout')
	{
		$s->value("BEGIN; SET LOCAL $limit = '200ms'; " . insert('p1'));
		is($s->query('SELECT FROM here')->{state}, $limit eq 'lock_timeout' ? '55P03' : '57014', "$limit ends a local statement");
		is($s->query('COMMIT')->{err}, '', 'what has failed can be ended');
		is(rows(), '0', 'nothing is there');
	}
	$here->quit;

	# while it commits: the remote one waits for a row of somebody's
	$theirs->value('CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
	$gate->value('BEGIN; INSERT INTO late VALUES (1)');
	foreach my $how ('cancel', 'lock_timeout of the remote')
	{
		my $pool = $how eq 'cancel' ? 'p1' : 'brief';

		$s->value("BEGIN; SELECT dbpool_exec('$pool', 'INSERT INTO late VALUES (1)'); CREATE TABLE mine ()");
		$s->send('COMMIT');
		if ($how eq 'cancel')
		{
			$theirs->poll(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = 'COMMIT'}, '1');
			$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
		}
		is($s->ends("$how ends a COMMIT that waits")->{state}, $how eq 'cancel' ? '57014' : '55P03', 'with its error');
		is($s->value(q{SELECT to_regclass('mine') IS NULL}), 't', 'nothing is here');
		$theirs->poll(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}, '0');
	}
	$gate->value('ROLLBACK');
	is($theirs->value('SELECT count(*) FROM late'), '0', 'nor there');
	$s->value('BEGIN');
	is($s->value(insert('p1')), '1', 'the next one works');
	is($s->query('COMMIT')->{err}, '', 'to its end');
	$_->quit foreach ($s, $gate);
	at_rest('our limits');
};

# --- what is done to a pool ------------------------------------------------------------------

subtest 'a server is renamed, altered and dropped' => sub {
	my $s = bound();

	create_pool($local, 'old', $remote);
	$s->value(q{SELECT dbpool_begin('old', 'tx')});
	$s->value(q{SELECT dbpool_begin('old')});
	$s->value('BEGIN');
	$s->value(q{ALTER SERVER old RENAME TO new});
	foreach my $who ('in the same transaction', 'afterwards')
	{
		is($s->query(insert('tx'))->{err}, '', "renamed: a named transaction goes on, $who");
		is($s->query(insert('new'))->{err}, '', 'and so does the one of the pool');
		$s->value('COMMIT') if $who eq 'in the same transaction';
	}
	$control->value(q{ALTER SERVER new OPTIONS (ADD application_name 'later')});
	is($s->query(insert('tx'))->{err}, '', 'altered by another session: it goes on');
	is($s->query(q{SELECT dbpool_commit('tx')})->{err}, '', 'to its end');
	is($s->query(q{SELECT dbpool_commit('new')})->{err}, '', 'which is asked for by the new name');
	is($theirs->value('SELECT count(*) FROM t'), '5', 'all of it is there');
	$s->value('BEGIN');
	$s->value(insert('new'));
	$control->value('DROP SERVER new CASCADE');
	is($s->query('COMMIT')->{err}, '', 'dropped by another session: it is committed');
	is($theirs->value('SELECT count(*) FROM t'), '6', 'as it should');
	$s->quit;
	at_rest('renamed');
};

# --- a local server that crashes ---------------------------------------------------------------

foreach my $how ('a session is killed', 'a worker is killed', 'the server is stopped at once')
{
	subtest $how => sub {
		my $s = bound();
		my $victim = $how eq 'a worker is killed' ? worker_pid($control, 2) : $s->pid;

		$s->value('CREATE TABLE IF NOT EXISTS ours (n int)');
		$s->value('BEGIN; INSERT INTO ours VALUES (1); ' . join '; ', map { insert("p$_") } 1 .. 4);
		$s->value(q{SELECT dbpool_begin('p5', 'tx')});
		$s->value(insert('tx'));
		if ($how =~ /stopped/)
		{
			$local->stop('immediate');
			$local->start;
		}
		else
		{
			my $checkpointer = $control->value(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});

			kill 'KILL', $victim;
			wait_until('the server has begun anew', sub {
				my ($ret, $out) = $local->psql('postgres',
					"SELECT pid <> $checkpointer FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
				return $ret == 0 && $out eq 't' });
		}
		$_->quit foreach ($s, $control);
		$control = session($local);
		at_rest($how);
		is($control->value('SELECT count(*) FROM ours'), '0', 'nothing is here');
		$s = bound();
		$s->value('BEGIN; INSERT INTO ours VALUES (1); ' . join '; ', map { insert("p$_") } 1 .. 5);
		is($s->query('COMMIT')->{err}, '', 'the next one works');
		is(rows(), '5', 'on all of its pools');
		$control->value('TRUNCATE ours');
		$s->quit;
	};
}

done_testing();
