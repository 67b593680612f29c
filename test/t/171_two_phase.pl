
# Transactions on several servers that end alike: two remotes and the local server, with
# crashes of each at each step, and what the resolver makes of what is left.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my @remotes = map {
	make_remote(
		name => "remote$_",
		conf => "restart_after_crash = on\nmax_prepared_transactions = 20\nlog_statement = all\n")
} 1 .. 2;
my $local = make_local(conf => "restart_after_crash = on\nsynchronous_commit = off\n");

foreach my $i (0, 1)
{
	$remotes[$i]->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY)');
	create_pool($local, 'r' . ($i + 1), $remotes[$i], max_size => 5, acquire_timeout => '5s');
}
$local->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY)');

my $control = session($local);
my $s;
my $id = 0;

sub two_phase { return session($local, options => '-c dbpool.transaction=two_phase', @_); }
sub remote { my ($pool, $sql) = @_; return "SELECT dbpool_exec('$pool', '$sql')"; }
sub insert { my ($pool) = @_; return remote($pool, "INSERT INTO t VALUES ($id)"); }

# Where the row is: of the first remote, the second, and here.
sub found
{
	return join ',', map { $_->safe_psql('postgres', "SELECT count(*) FROM t WHERE id = $id") } @remotes, $local;
}

sub prepared { my ($i) = @_; return $remotes[$i]->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'); }

sub count_in_log
{
	my ($i, $offset, $pattern) = @_;
	my $log = slurp_file($remotes[$i]->logfile, $offset);

	return scalar(() = $log =~ /$pattern/g);
}

# Nothing is left behind within ten seconds.
sub settled
{
	my ($name) = @_;
	my $end = time + 10;
	my $left;

	do
	{
		$left = join ',', prepared(0), prepared(1),
		  $local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_prepared');
	} while ($left ne '0,0,0' && time < $end && sleep 0.1);
	is($left, '0,0,0', "$name: nothing is left prepared, nor a row about it");
	return;
}

# A transaction on all three, up to its COMMIT.
sub begin_all
{
	$id++;
	$s->query('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert('r1'));
	$s->value(insert('r2'));
	return;
}

$s = two_phase();
subtest 'who is prepared' => sub {
	my @offsets = map { -s $_->logfile } @remotes;

	begin_all();
	is($s->query('COMMIT')->{err}, '', 'three writers');
	is(found(), '1,1,1', 'are committed, and that is seen at once');
	is(count_in_log($_, $offsets[$_], 'PREPARE TRANSACTION'), 1, 'each remote is prepared') foreach 0, 1;
	is(count_in_log($_, $offsets[$_], 'COMMIT PREPARED'), 1, 'and then committed') foreach 0, 1;
	begin_all();
	is($s->query('ROLLBACK')->{err}, '', 'rolled back');
	is(found(), '0,0,0', 'nowhere');
	settled('all');

	@offsets = map { -s $_->logfile } @remotes;
	$id++;
	is($s->query(insert('r1'))->{err}, '', 'one remote writer alone');
	$id++;
	$s->query('BEGIN');
	$s->value(insert('r1'));
	$s->value(q{SELECT * FROM dbpool_query('r2', 'SELECT count(*) FROM t') AS t(n int)});
	is($s->query('COMMIT')->{err}, '', 'and one that has only read');
	is(count_in_log($_, $offsets[$_], 'PREPARE TRANSACTION'), 0, 'costs no PREPARE') foreach 0, 1;
	$remotes[1]->safe_psql('postgres', 'CREATE FUNCTION secretly(i int) RETURNS int LANGUAGE sql AS $$ INSERT INTO t VALUES (i) RETURNING id $$');
	$id++;
	$s->query('BEGIN');
	$s->value(insert('r1'));
	$s->value(remote('r2', "SELECT secretly($id)"));
	is($s->query('COMMIT')->{err}, '', 'one that writes by a function');
	is(count_in_log($_, $offsets[$_], 'PREPARE TRANSACTION'), 1, 'is found out') foreach 0, 1;
	is(found(), '1,1,0', 'both are committed');
	$id++;
	$s->query('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert('r1'));
	is($s->query('COMMIT')->{err}, '', 'one remote, and a local write');
	is(count_in_log(0, $offsets[0], 'PREPARE TRANSACTION'), 2, 'are two writers');
	is(found(), '1,0,1', 'and committed');
	$s->query('CREATE PROCEDURE on_all(i int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (i);'
		. q{ PERFORM dbpool_exec('r1', 'INSERT INTO t VALUES ($1)', i); PERFORM dbpool_exec('r2', 'INSERT INTO t VALUES ($1)', i);}
		. ' COMMIT; PERFORM 1 / 0; END $$');
	$id++;
	is($s->query("CALL on_all($id)")->{state}, '22012', 'a procedure that commits in between');
	is(found(), '1,1,1', 'has committed on all');
	$id++;
	$s->query('BEGIN');
	$s->query('SAVEPOINT a');
	$s->value(insert('r1'));
	$s->query('ROLLBACK TO a');
	$s->value(insert('r1'));
	$s->query('SAVEPOINT b');
	$s->value(remote('r2', 'INSERT INTO t VALUES (-1)'));
	$s->query('ROLLBACK TO b');
	$s->value(insert('r2'));
	is($s->query('COMMIT')->{err}, '', 'with savepoints');
	is(found(), '1,1,0', 'committed as they were left');
	is($remotes[1]->safe_psql('postgres', 'SELECT count(*) FROM t WHERE id < 0'), '0', 'and what was undone is not there');
	settled('writers');
};

# As long as it is not known whether a reader's end goes well, no writer is committed.
subtest 'who has only read ends first' => sub {
	my $proxy = FaultProxy->start($remotes[1]);

	create_pool($local, 'read', undef, $proxy->options(max_size => 5, acquire_timeout => '5s'));
	foreach my $mode ('two_phase', 'bound')
	{
		my $session = session($local, options => "-c dbpool.transaction=$mode");

		foreach my $case (
			[ 'frontend message P "COMMIT" before stall', 'reset', 'before its COMMIT has come' ],
			[ 'after "COMMIT" backend message C "COMMIT" before stall', 'reset', 'before it is known' ],
			[ 'after "COMMIT" backend message C "COMMIT" before stall', 'cancel', '' ],
			[ 'frontend message P "COMMIT" before stall', 'resume', '' ])
		{
			my ($where, $then, $when) = @$case;
			my $name = "$mode, $then $when";

			$id++;
			$session->query('BEGIN');
			$session->value(insert('r1'));
			$session->value(q{SELECT * FROM dbpool_query('read', 'SELECT count(*) FROM t') AS t(n int)});
			my $rule = $proxy->tell("on $where");
			$session->send('COMMIT');
			wait_until('the end has begun', sub { return $proxy->fired($rule) });
			is(found(), '0,0,0', "$name: the writer waits for it");
			$proxy->tell('now reset') if $then eq 'reset';
			$local->safe_psql('postgres', "SELECT pg_cancel_backend($session->{pid})")
			  if $then eq 'cancel' && $mode eq 'two_phase';
			$proxy->tell('resume') if $then eq 'resume' || $mode eq 'bound';
			my $answer = $session->wait;
			$proxy->tell('resume');
			$proxy->tell('clear');
			if ($then eq 'resume' || ($then eq 'cancel' && $mode eq 'bound'))
			{
				is($answer->{err}, '', "$name: the commit succeeds");
				is(found(), '1,0,0', "$name: and is there");
				next;
			}
			is($answer->{state}, $then eq 'cancel' ? '57014' : '08006', "$name: the commit fails");
			like($answer->{err}, qr/The transaction on the remote server had written nothing/, "$name: with nothing lost")
			  if $then eq 'reset';
			is(found(), '0,0,0', "$name: nothing is committed");
		}
		$session->quit;
	}
	settled('readers');
	$proxy->stop;
};

subtest 'many for the first time' => sub {
	create_pool($local, 'fresh', $remotes[0], max_size => 20);
	my @sessions = map { two_phase() } 1 .. 12;

	foreach my $session (@sessions)
	{
		$id++;
		$session->query('BEGIN');
		$session->value("INSERT INTO t VALUES ($id)");
		$session->value(insert('fresh'));
	}
	$_->send('COMMIT') foreach @sessions;
	my @errors = grep { $_ ne '' } map { $_->wait->{err} } @sessions;
	is("@errors", '', 'more than there may be background workers');
	$_->quit foreach @sessions;
	settled('first');
};

subtest 'what cannot be prepared' => sub {
	begin_all();
	$s->value(remote('r2', 'CREATE TEMP TABLE x (a int)'));
	my $answer = $s->query('COMMIT');
	is($answer->{state}, '0A000', 'a temporary table is found before the local commit');
	like($answer->{err}, qr/temporary objects/, 'and named');
	is(found(), '0,0,0', 'nothing is committed');
	settled('temporary');

	$remotes[1]->append_conf('postgresql.conf', 'max_prepared_transactions = 0');
	$remotes[1]->restart;
	begin_all();
	$answer = $s->query('COMMIT');
	is($answer->{state}, '55000', 'so is a remote that is not made for it');
	like($answer->{err}, qr/HINT:  Set "?max_prepared_transactions"? to a nonzero value/, 'with a hint');
	is(found(), '0,0,0', 'nothing is committed');
	$remotes[1]->append_conf('postgresql.conf', 'max_prepared_transactions = 20');
	$remotes[1]->restart;
	settled('not made for it');

	begin_all();
	$s->value(remote('r1', 'CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)'));
	$s->value(remote('r1', 'INSERT INTO late VALUES (1), (1)'));
	is($s->query('COMMIT')->{state}, '23505', 'what a constraint finds at the end');
	is(found(), '0,0,0', 'nothing is committed');
	settled('constraint');

	$local->safe_psql('postgres', q{
		CREATE ROLE owner LOGIN; CREATE ROLE user1 LOGIN;
		CREATE SERVER theirs FOREIGN DATA WRAPPER dbpool OPTIONS (host '} . $remotes[0]->host . q{', port '} . $remotes[0]->port . q{', dbname 'postgres');
		CREATE USER MAPPING FOR user1 SERVER theirs OPTIONS (user 'user1', password_required 'false');
		GRANT USAGE ON FOREIGN SERVER theirs TO user1; GRANT INSERT ON t TO user1});
	$local->safe_psql('postgres', q{GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO owner; ALTER SERVER theirs OWNER TO owner});
	$remotes[0]->safe_psql('postgres', q{CREATE ROLE user1 LOGIN; GRANT INSERT ON t TO user1});
	my $user = two_phase(user => 'user1');
	$id++;
	$user->query('BEGIN');
	$user->value("INSERT INTO t VALUES ($id)");
	$user->value(insert('theirs'));
	$answer = $user->query('COMMIT');
	is($answer->{state}, '55000', 'a mapping that dbpool may not use by itself');
	like($answer->{err}, qr/After a crash nobody could end it/, 'is told why');
	is(found(), '0,0,0', 'nothing is committed');
	$local->safe_psql('postgres', 'ALTER SERVER theirs OWNER TO CURRENT_USER');
	$id++;
	$user->query('BEGIN');
	$user->value("INSERT INTO t VALUES ($id)");
	$user->value(insert('theirs'));
	is($user->query('COMMIT')->{err}, '', 'an ordinary role may otherwise');
	is(found(), '1,0,1', 'committed');
	is($user->query('SELECT * FROM dbpool_in_doubt')->{err}, '', 'and may look what is left of it');
	is($user->query('SELECT * FROM dbpool_prepared')->{state}, '42501', 'but not into the table');
	is($user->query(q{SELECT dbpool_resolve(prefix || '_x', 'rollback') FROM dbpool_two_phase})->{state}, '42501', 'nor the other');
	$user->quit;
	settled('roles');
};

# A trigger of the remote stops its PREPARE or the local commit at a lock that the test holds.
sub hold
{
	my ($node) = @_;
	my $holder = session($node);

	$holder->query('BEGIN; LOCK TABLE gate');
	return $holder;
}

$_->safe_psql('postgres', q{
	CREATE TABLE gate ();
	CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE gate IN ACCESS SHARE MODE; RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER pass AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pass()}) foreach @remotes;

subtest 'crashes before the decision' => sub {
	# the second remote is at its PREPARE, the first is prepared
	foreach my $victim ('session', 'cancel', 'worker', 'local', 'second remote', 'first remote')
	{
		my $holder = hold($remotes[1]);

		begin_all();
		$s->send('COMMIT');
		ok(DbpoolTest::wait_until('the first is prepared', sub { prepared(0) eq '1' }), "$victim: half of it is prepared");
		is($control->value(q{SELECT string_agg(pool || ' ' || mode, ',' ORDER BY pool) FROM dbpool_transactions WHERE gid ~ '^dbpool_'}),
			'r1 two_phase,r2 two_phase', 'the names are shown');
		is($local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_in_doubt'), '0', 'nothing is decided');
		if ($victim eq 'session') { $local->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $s->pid . ')'); }
		elsif ($victim eq 'cancel') { $local->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $s->pid . ')'); }
		elsif ($victim eq 'worker') { $local->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM dbpool_workers}); }
		elsif ($victim eq 'local') { $local->stop('immediate'); $local->start; }
		elsif ($victim eq 'second remote') { $remotes[1]->stop('immediate'); $remotes[1]->start; }
		else { $remotes[0]->stop('immediate'); $remotes[0]->start; }
		if ($victim eq 'first remote')
		{
			# it was prepared, and is so again
			$holder->query('ROLLBACK');
			is($s->wait->{err}, '', 'it does not matter');
			settled($victim);
			is(found(), '1,1,1', 'it is everywhere');
			next;
		}
		my $answer = $s->wait;
		ok($answer->{err} ne '' || $answer->{lost}, 'the commit fails');
		$holder->quit;
		settled($victim);
		is(found(), '0,0,0', 'it is nowhere');
		$s->kill if $s->{client_pid};
		$s = two_phase();
		$control = session($local);
	}
};

subtest 'crashes after the decision' => sub {
	foreach my $victim ('a remote is away', 'both are, and the local server crashes', 'the worker')
	{
		# the remotes are stopped in the moment when all is prepared
		my $holder = hold($remotes[1]);

		begin_all();
		$s->send('COMMIT');
		ok(DbpoolTest::wait_until('the first is prepared', sub { prepared(0) eq '1' }), "$victim: half of it is prepared");
		# as soon as the second is let go of it all goes on; the first one hangs
		my $pid = slurp_file($remotes[0]->data_dir . '/postmaster.pid');
		$pid =~ s/\n.*//s;
		my @stopped = $victim eq 'the worker' ? () : DbpoolTest::child_pids($pid);
		kill 'STOP', $pid, @stopped if $victim ne 'the worker';
		$holder->quit;
		my $answer = $s->wait;
		is($answer->{err}, '', 'the commit succeeds');
		cmp_ok($answer->{seconds}, '<', 20, 'without waiting for long');
		if ($victim ne 'the worker')
		{
			is($local->safe_psql('postgres', q{SELECT count(*) FROM dbpool_in_doubt WHERE decision = 'commit'}) > 0, 1, 'what is in doubt is shown');
			if ($victim =~ /local/) { $local->stop('immediate'); $local->start; $control = session($local); $s->kill; $s = two_phase(); }
			kill 'CONT', @stopped, $pid;
		}
		else
		{
			$local->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM dbpool_workers});
		}
		settled($victim);
		is(found(), '1,1,1', 'it is everywhere');
	}
};

# The process that waits for the remotes has committed: it must not exit in the midst of that.
subtest 'the server is gone while a commit waits' => sub {
	my $holder = hold($remotes[1]);

	begin_all();
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('the first is prepared', sub { prepared(0) eq '1' }), 'half of it is prepared');
	my @stopped = ($remotes[0]->{_pid}, child_pids($remotes[0]->{_pid}));
	suspend(@stopped);
	$holder->quit;
	$control->poll('SELECT count(*) FROM dbpool_prepared', '2');
	my @gone = ($local->{_pid}, child_pids($local->{_pid}));
	$local->kill9;
	ok(DbpoolTest::wait_until('all processes have noticed', sub { return !kill 0, @gone }), 'all processes end');
	resume(@stopped);
	$local->start;
	unlike(slurp_file($local->logfile), qr/PANIC/, 'in good order');
	$_->kill foreach $s, $control;
	$s = two_phase();
	$control = session($local);
	settled('server gone');
	is(found(), '1,1,1', 'it is everywhere');
};

# What dbpool_stat_pools says of the first remote's pool: begun, committed, rolled back, prepared, in doubt, resolved.
sub counted
{
	return $local->safe_psql('postgres',
		q{SELECT concat_ws(',', begun, committed, rolled_back, prepared, in_doubt, resolved) FROM dbpool_stat_pools WHERE pool = 'r1'});
}

subtest 'what is counted' => sub {
	$local->safe_psql('postgres', q{SELECT dbpool_stat_reset('r1')});
	begin_all();
	is($s->query('COMMIT')->{err}, '', 'prepared, and committed');
	is(counted(), '1,1,0,1,0,0', 'one of each');
	begin_all();
	$s->query('ROLLBACK');
	ok($control->poll(q{SELECT rolled_back FROM dbpool_stat_pools WHERE pool = 'r1'}, '1'), 'one rolled back');
	is(counted(), '2,1,1,1,0,0', 'was not prepared');

	# the first is prepared, and loses its connection before the decision
	my $holder = hold($remotes[1]);
	begin_all();
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('the first is prepared', sub { prepared(0) eq '1' }), 'half of it is prepared');
	$remotes[0]->safe_psql('postgres', 'SELECT pg_terminate_backend('
		. $control->value(q{SELECT remote_pid FROM dbpool_transactions WHERE pool = 'r1'}) . ')');
	ok($control->poll(q{SELECT in_doubt FROM dbpool_stat_pools WHERE pool = 'r1'}, '1'), 'a lost one is in doubt');
	is(counted(), '3,1,1,2,1,0', 'neither committed nor rolled back');
	$holder->query('ROLLBACK');
	is($s->wait->{err}, '', 'all are committed');
	settled('counted');
	is(found(), '1,1,1', 'it is everywhere');
	is(counted(), '3,1,1,2,1,1', 'the resolver has ended it');
	is($local->safe_psql('postgres', q{SELECT transaction_time_mean = transaction_time / 3 AND transaction_time_mean <= transaction_time_max FROM dbpool_stat_pools WHERE pool = 'r1'}),
		't', 'all three have taken time');

	# a worker that ends takes two along
	$holder = hold($remotes[1]);
	my $other = two_phase();
	$other->query('BEGIN');
	$id++;
	$other->value(insert('r1'));
	begin_all();
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('the first is prepared', sub { prepared(0) eq '1' }), 'half of it is prepared');
	$local->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM dbpool_workers});
	isnt($s->wait->{err}, '', 'the commit fails');
	$holder->quit;
	settled('worker');
	is(counted(), '5,1,2,3,2,2', 'one was rolled back, the other was in doubt and resolved');
	$other->quit;
};

# Of what is left behind while it looks, the resolver may have seen nothing.
subtest 'wanted while it looks' => sub {
	my $proxy = FaultProxy->start($remotes[0]);
	my $commit = sub {
		$id++;
		$s->query('BEGIN');
		$s->value("INSERT INTO t VALUES ($id)");
		$s->value(insert('held'));
		is($s->query('COMMIT')->{err}, '', 'a transaction on two servers');
	};

	settled('before');
	create_pool($local, 'held', undef, $proxy->options, max_size => 5);
	my $rule = $proxy->tell('on frontend message any 2 "pg_prepared_xacts" before stall');
	$commit->();
	ok(DbpoolTest::wait_until('the resolver looks', sub { $proxy->fired($rule) }), 'the resolver has read the rows');
	$commit->();
	# time to learn that it is wanted, of which nothing is to be seen
	sleep 3;
	$proxy->tell('clear');
	$proxy->tell('resume');
	settled('wanted');
	is(found(), '1,0,1', 'all is committed');
	$local->safe_psql('postgres', 'DROP SERVER held CASCADE');
	$proxy->stop;
};

# What is known to have been committed needs no look at the remote.
subtest 'a server is dropped right after a commit' => sub {
	my $proxy = FaultProxy->start($remotes[0]);
	my $rule;

	create_pool($local, 'dropped', undef, $proxy->options(max_size => 5, acquire_timeout => '5s'));
	$id++;
	$s->query('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert('dropped'));
	$rule = $proxy->tell('on frontend message any "pg_prepared_xacts" before stall');
	is($s->query('COMMIT')->{err}, '', 'a commit');
	ok(DbpoolTest::wait_until('the resolver asks', sub { $proxy->fired($rule) > 0 }), 'the resolver looks whether it is there');
	is(found(), '1,0,1', 'it is');
	is($local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_in_doubt'), '1', 'and the row still, too');
	$local->safe_psql('postgres', 'DROP SERVER dropped CASCADE');
	$proxy->tell('now reset');
	$proxy->tell('resume');
	settled('dropped');
	ok($control->poll(q{SELECT count(*) FROM dbpool_two_phase WHERE serverid NOT IN (SELECT oid FROM pg_foreign_server)}, '0'),
		'and the server is forgotten');
	$proxy->stop;
};

subtest 'by hand' => sub {
	my $prefix = $local->safe_psql('postgres', q{SELECT prefix FROM dbpool_two_phase t JOIN pg_foreign_server s ON s.oid = t.serverid WHERE srvname = 'r1'});
	my $gid = "${prefix}_00000000000000aa";

	$id++;
	is($control->query(q{SELECT dbpool_resolve('other', 'commit')})->{state}, '42704', 'others are none of ours');
	is($control->query(qq{SELECT dbpool_resolve('$gid', 'perhaps')})->{state}, '22023', 'there are two outcomes');
	is($control->query(qq{SELECT dbpool_resolve('$gid', 'commit')})->{state}, '42704', 'it has to be there');
	$remotes[0]->safe_psql('postgres', qq{BEGIN; INSERT INTO t VALUES ($id); PREPARE TRANSACTION '$gid'});
	is($control->query(qq{SELECT dbpool_resolve('$gid', 'commit')})->{err}, '', 'a human may decide');
	is(found(), '1,0,0', 'as he likes');
	like(counted(), qr/,3$/, 'which is counted');
	$id++;
	$remotes[0]->safe_psql('postgres', qq{BEGIN; INSERT INTO t VALUES ($id); PREPARE TRANSACTION '$gid'});
	$remotes[1]->safe_psql('postgres', qq{BEGIN; INSERT INTO t VALUES ($id); PREPARE TRANSACTION 'not ours'});
	# an orphan is rolled back with the next round
	$local->restart;
	$control = session($local);
	ok(DbpoolTest::wait_until('the orphan is gone', sub { prepared(0) eq '0' }), 'after a start orphans are looked for');
	is(found(), '0,0,0', 'and rolled back');
	is(prepared(1), '1', 'what others have prepared is left alone');
	$remotes[1]->safe_psql('postgres', q{ROLLBACK PREPARED 'not ours'});
	settled('by hand');
	ok($control->poll(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool resolver'}, '0'), 'the resolver ends when there is nothing to do');
};

done_testing();
