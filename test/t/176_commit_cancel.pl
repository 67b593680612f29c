
# A session that is cancelled or terminated as its remotes commit: their answers decide, and
# both sides end alike. And commits of more transactions than there are slots.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $remote = make_remote();
my $local = make_local(workers => 2, conf => "dbpool.max_requests = 8\n");
my $proxy = FaultProxy->start($remote);

# Its deferred trigger has the COMMIT of a row wait for a lock.
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id text, lock int);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock(NEW.lock); RETURN NEW; END $$;
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.lock <> 0) EXECUTE FUNCTION wait();
SQL
create_pool($local, 'p', $remote, max_size => 6);
create_pool($local, 'q', $remote);
create_pool($local, 'proxied', undef, $proxy->options);
$local->safe_psql('postgres', 'CREATE TABLE here (id text); CREATE TEMP TABLE x(y int)');

my $control = session($local);
my $theirs = session($remote);
my $s;
my $n = 0;
my $id;

# A row here, and rows at pools whose COMMIT waits for a lock, or for none.
sub begin
{
	my (%locks) = @_;

	$id = 'row' . ++$n;
	$s = session($local, options => '-c dbpool.transaction=bound') unless $s && !$s->{gone};
	$s->query('BEGIN');
	$s->query('CREATE TEMP TABLE IF NOT EXISTS mine (a int) ON COMMIT DELETE ROWS; INSERT INTO mine VALUES (1)');
	$s->value("INSERT INTO here VALUES ('$id')");
	foreach my $pool (sort keys %locks)
	{
		$s->value("SELECT dbpool_exec('$pool', 'INSERT INTO t VALUES (\$1, \$2)', '$id$pool', $locks{$pool})");
	}
	return;
}

sub hold { $theirs->value("SELECT pg_advisory_lock($_[0])"); return; }
sub let_go { $theirs->value("SELECT pg_advisory_unlock($_[0])"); return; }

# Until so many commits wait for locks.
sub commits
{
	my ($count) = @_;

	return $theirs->poll(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = 'COMMIT'}, $count);
}

# Which rows are here, and there.
sub rows
{
	return join ' ', $control->value("SELECT count(*) FROM here WHERE id = '$id'"),
	  $theirs->value("SELECT coalesce(string_agg(id, ',' ORDER BY id), '-') FROM t WHERE id LIKE '$id%'") =~ s/$id//gr;
}

sub at_rest
{
	ok($control->poll(q{SELECT count(*) FROM dbpool_transactions}, '0'), 'no transaction is left');
	ok($control->poll(q{SELECT coalesce(sum(busy + leased + cancelling + resetting), 0) FROM dbpool_pools}, '0'),
		'no connection is taken');
	return;
}

sub cancel { $control->value("SELECT pg_cancel_backend($s->{pid})"); return; }

subtest 'a COMMIT that waits at the remote is cancelled there' => sub {
	hold(1);
	begin(p => 1);
	$s->send('COMMIT');
	commits(1);
	cancel();
	my $answer = $s->wait;
	is($answer->{state}, '57014', 'the session is cancelled');
	like($answer->{err}, qr/canceling statement due to user request/, 'and told so');
	is(rows(), '0 -', 'neither side has committed');
	let_go(1);
	is(rows(), '0 -', 'nor does it later');
	is($s->value('SELECT 1'), '1', 'the session goes on');
	at_rest();

	# one that comes before the COMMIT does is sent again
	hold(1);
	begin(proxied => 1);
	my $rule = $proxy->tell('on frontend message P "COMMIT" before stall');
	$s->send('COMMIT');
	wait_until('the COMMIT is on its way', sub { $proxy->fired($rule) });
	cancel();
	$control->poll(q{SELECT cancelling FROM dbpool_pools WHERE pool = 'proxied'}, '1');
	# longer than the cancel takes
	sleep 0.2;
	$proxy->tell('resume');
	is($s->wait->{state}, '57014', 'a cancel that is faster than the COMMIT');
	is(rows(), '0 -', 'is not lost');
	let_go(1);
	at_rest();

	# a statement_timeout in a procedure is one, too
	hold(1);
	$s->value(q{CREATE OR REPLACE PROCEDURE work(id text) LANGUAGE plpgsql AS $$
		BEGIN INSERT INTO here VALUES (id);
			PERFORM dbpool_exec('p', 'INSERT INTO t VALUES ($1, 1)', id || 'p');
			COMMIT;
		END $$});
	$id = 'row' . ++$n;
	$s->query("SET statement_timeout = '300ms'");
	$answer = $s->query("CALL work('$id')");
	like($answer->{err}, qr/canceling statement due to statement timeout/, 'a timeout within a procedure');
	$s->query('RESET statement_timeout');
	is(rows(), '0 -', 'is told as what it is');
	let_go(1);
	at_rest();
};

subtest 'a cancel that comes too late' => sub {
	# the answer is on its way
	begin(proxied => 0);
	my $rule = $proxy->tell('on after "COMMIT" backend byte 0 stall');
	$s->send('COMMIT');
	wait_until('the answer is on its way', sub { $proxy->fired($rule) });
	$theirs->poll("SELECT count(*) FROM t WHERE id = '${id}proxied'", '1');
	cancel();
	$control->poll("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $s->{pid}", 'Extension');
	$proxy->tell('resume');
	is($s->wait->{err}, '', 'both sides have committed');
	is(rows(), '1 proxied', 'they have');
	is($s->value('SELECT 1'), '1', 'the session goes on');
	at_rest();

	begin(proxied => 0);
	$rule = $proxy->tell('on after "COMMIT" backend byte 0 stall');
	$s->send('COMMIT');
	wait_until('the answer is on its way', sub { $proxy->fired($rule) });
	$control->value("SELECT pg_terminate_backend($s->{pid})");
	$proxy->tell('resume');
	$s->wait;
	$s->{gone} = 1;
	ok($control->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $s->{pid}", '0'), 'who is terminated goes away');
	is(rows(), '1 proxied', 'when both sides have committed');
	at_rest();
};

subtest 'no answer' => sub {
	begin(proxied => 0);
	my $rule = $proxy->tell('on after "COMMIT" backend byte 0 stall');
	$s->send('COMMIT');
	wait_until('the answer is on its way', sub { $proxy->fired($rule) });
	cancel();
	my $answer = $s->wait;
	is($answer->{state}, '08007', 'the session gives up some time');
	like($answer->{err}, qr/The transaction may or may not have been committed\. The local one is rolled back\./, 'and says what it does not know');
	$proxy->tell('resume');
	is($s->value('SELECT 1'), '1', 'the session goes on');
	at_rest();
};

subtest 'several remotes' => sub {
	# all wait
	hold(1);
	begin(p => 1, q => 1);
	$s->send('COMMIT');
	commits(2);
	cancel();
	is($s->wait->{state}, '57014', 'who all wait are cancelled');
	is(rows(), '0 -', 'all of them');
	let_go(1);
	at_rest();

	# one has committed: what is left is not made to differ
	hold(1);
	begin(p => 1, q => 0);
	$s->send('COMMIT');
	commits(1);
	$theirs->poll("SELECT count(*) FROM t WHERE id = '${id}q'", '1');
	cancel();
	# longer than anybody hesitates
	sleep 0.5;
	let_go(1);
	is($s->wait->{err}, '', 'when one has committed, the others are waited for');
	is(rows(), '1 p,q', 'and all have');
	at_rest();

	# one that fails takes the others with it, if it can
	$theirs->value('ALTER TABLE t ADD CONSTRAINT c UNIQUE (id) DEFERRABLE INITIALLY DEFERRED');
	hold(1);
	begin(p => 1, q => 0);
	$s->value("SELECT dbpool_exec('q', 'INSERT INTO t VALUES (\$1, 0)', '${id}q')");
	my $answer = $s->query('COMMIT');
	is($answer->{state}, '23505', 'an error of one');
	is(rows(), '0 -', 'is one of all');
	at_rest();
	let_go(1);
	is(rows(), '0 -', 'for good');
};

subtest 'terminated while it waits' => sub {
	hold(1);
	begin(p => 1);
	$s->send('COMMIT');
	commits(1);
	$control->value("SELECT pg_terminate_backend($s->{pid})");
	ok($control->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $s->{pid}", '0'), 'the session ends');
	is(rows(), '0 -', 'with nothing committed');
	let_go(1);
	$s->wait;
	$s->{gone} = 1;
	at_rest();
};

subtest 'dbpool_commit()' => sub {
	hold(1);
	my $named = session($local);
	$id = 'row' . ++$n;
	$named->value(q{SELECT dbpool_begin('p', 'a')});
	$named->value("SELECT dbpool_exec('a', 'INSERT INTO t VALUES (\$1, 1)', '$id')");
	$named->send(q{SELECT dbpool_commit('a')});
	commits(1);
	$control->value("SELECT pg_cancel_backend($named->{pid})");
	is($named->wait->{state}, '57014', 'it is cancelled likewise');
	is(rows(), '0 -', 'at the remote');
	let_go(1);
	at_rest();
};

# The limits of a role are for its calls, not for their end.
subtest 'more transactions than a session may have requests' => sub {
	$local->safe_psql('postgres', q{CREATE ROLE alice LOGIN; GRANT ALL ON here TO alice;
		ALTER ROLE alice SET dbpool.session_max_requests = 1; ALTER ROLE alice SET dbpool.role_max_requests = 4});
	$remote->safe_psql('postgres', 'CREATE ROLE alice LOGIN; GRANT ALL ON t TO alice');
	foreach my $pool (qw(p q proxied))
	{
		$local->safe_psql('postgres', "GRANT USAGE ON FOREIGN SERVER $pool TO alice;"
			  . "CREATE USER MAPPING FOR alice SERVER $pool OPTIONS (password_required 'false')");
	}
	foreach my $mode ('bound', 'two_phase')
	{
		my $alice = session($local, user => 'alice', options => "-c dbpool.transaction=$mode");

		$alice->query('BEGIN');
		foreach my $pool (qw(p q proxied))
		{
			is($alice->query("SELECT * FROM dbpool_query('$pool', 'SELECT 1') AS t(x int)")->{err}, '', 'a call');
		}
		is($alice->query('COMMIT')->{err}, '', "$mode: all end");
	}
	at_rest();
};

subtest 'more transactions than slots' => sub {
	my @pools = map { "many$_" } 1 .. 12;

	create_pool($local, $_, $remote, max_size => 2) foreach @pools;
	begin(map { $_ => 0 } @pools);
	is($s->query('COMMIT')->{err}, '', 'all are committed');
	is(rows() =~ tr/,//, 11, 'everywhere');
	at_rest();

	# others have all but one
	hold(2);
	my @others = map { session($local) } 1 .. 7;
	begin(map { $_ => 0 } @pools);
	$_->send(q{SELECT dbpool_exec('p', 'SELECT pg_advisory_xact_lock(2)')}) foreach @others[ 0 .. 4 ];
	$_->send(q{SELECT dbpool_exec('q', 'SELECT pg_advisory_xact_lock(2)')}) foreach @others[ 5 .. 6 ];
	$control->poll('SELECT count(*) FROM dbpool_requests', '7');
	is($s->query('COMMIT')->{err}, '', 'one slot is enough');
	is(rows() =~ tr/,//, 11, 'for all');

	# all of them: before anything is committed
	my $last = session($local);
	begin(map { $_ => 0 } @pools);
	$last->send(q{SELECT dbpool_exec('q', 'SELECT pg_advisory_xact_lock(2)')});
	$control->poll('SELECT count(*) FROM dbpool_requests', '8');
	like($s->query('COMMIT')->{err}, qr/too many dbpool statements are under way/, 'none is not');
	is(rows(), '0 -', 'and nobody has committed');
	let_go(2);
	is($_->wait->{err}, '', 'the others go on') foreach @others, $last;
	at_rest();
};

subtest 'a fast shutdown' => sub {
	hold(1);
	begin(p => 1);
	$s->send('COMMIT');
	commits(1);
	my $started = time;
	$local->stop('fast');
	cmp_ok(time - $started, '<', 10, 'does not wait for the remote');
	ok($theirs->poll(q{SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'}, '0'),
		'whose COMMIT is cancelled');
	let_go(1);
	is($theirs->value("SELECT count(*) FROM t WHERE id LIKE '$id%'"), '0', 'and rolled back');
	$local->start;
};

done_testing();
