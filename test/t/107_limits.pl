# Too few of what is set when the server starts: worker processes, request
# slots, connections, pools. Each is a clear error with a hint, and works again
# as soon as there is room.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local();
create_pool($local, 'a', $remote);
create_pool($local, 'b', $remote);
create_pool($local, 'c', $remote);
my $s = session($local);

sub restart_with
{
	my (@settings) = @_;
	$s->quit;
	$local->append_conf('postgresql.conf', "$_\n") foreach @settings;
	$local->restart;
	$s = session($local);
	return;
}

# The remark of query_sleeps() tells how many of them the remote runs.
sub wait_for_sleepers
{
	my ($n) = @_;
	$remote->poll_query_until(
		'postgres', qq{
		SELECT count(*) = $n FROM pg_stat_activity
		WHERE query LIKE '/* sleeper */%' AND state = 'active'})
	  or die "there are not $n statements on the remote";
	return;
}

sub give_up
{
	my ($session) = @_;
	$s->value(sprintf 'SELECT pg_cancel_backend(%d)', $session->pid);
	is($session->wait->{state}, '57014', 'a statement is given up');
	return;
}

# --- worker processes -------------------------------------------------------------

restart_with('max_worker_processes = 0');
my $answer = $s->query(q{SELECT dbpool_query('a', 'SELECT 1')});
is($answer->{state}, '08000', 'no worker processes: an error');
like(
	$answer->{err},
	qr/dbpool worker 1 is not running.*not run.*HINT:.*max_worker_processes \(0\)/s,
	'no worker processes: it says what to raise');
cmp_ok($answer->{seconds}, '<', 60, 'no worker processes: in bounded time');
is($s->value('SELECT coalesce(pid::text, $$none$$) FROM dbpool_workers'),
	'none', 'no worker processes: dbpool_workers shows it');
is( $s->query(
		q{SET statement_timeout = '200ms'; SELECT dbpool_ping('a')})->{state},
	'57014',
	'no worker processes: the wait can be ended');
is($s->value(q{RESET statement_timeout; SELECT count(*) FROM dbpool_requests}),
	'0', 'no worker processes: nothing is left');

# Others take what there is: whoever comes first in the list of libraries.
restart_with('max_worker_processes = 1', 'dbpool.workers = 3');
my @callers =
  map { session($local)->send("SELECT dbpool_query('$_', 'SELECT 1')") }
  ('a', 'b', 'c');
my @answers = map { $_->wait } @callers;
$_->quit foreach @callers;
my $running = $s->value('SELECT count(pid) FROM dbpool_workers');
cmp_ok($running, '<=', 1, 'one process for three workers');
foreach my $one (@answers)
{
	ok( $one->{out} eq '(1)'
		  || $one->{err} =~
		  /worker \d is not running.*dbpool needs 3 of max_worker_processes \(1\)/s,
		'a pool works, or says that its worker does not run')
	  or diag($one->{err});
}

restart_with('max_worker_processes = 8', 'dbpool.workers = 1');
is($s->value(q{SELECT dbpool_query('a', 'SELECT 1')}),
	'(1)', 'enough worker processes: it works');

# --- request slots ------------------------------------------------------------------

restart_with('dbpool.max_requests = 2');
my @sleepers = map { session($local, options => '-c client_connection_check_interval=100ms')->send(query_sleeps('a', 600, 'sleeper')) }
  (1, 2);
wait_for_sleepers(2);
foreach my $call (
	q{dbpool_query('a', 'SELECT 1')}, q{dbpool_exec('b', 'SELECT 1')},
	q{dbpool_ping('a')})
{
	$answer = $s->query("SELECT $call");
	is($answer->{state}, '53000', "all request slots in use: $call");
	like(
		$answer->{err},
		qr/too many dbpool statements are under way.*All 2 .*dbpool\.max_requests.*not run.*HINT:.*Raise dbpool\.max_requests/s,
		'all request slots in use: it says what to raise');
}
is($s->value('SELECT count(*) FROM dbpool_requests'),
	'2', 'all request slots in use: the views work');
give_up($sleepers[0]);
$s->poll('SELECT count(*) FROM dbpool_requests', '1');
is($s->value(q{SELECT dbpool_query('a', 'SELECT 1')}),
	'(1)', 'one slot is free: it works again');
is($sleepers[0]->value(q{SELECT dbpool_query('a', 'SELECT 1')}),
	'(1)', 'one slot is free: for anybody');
$sleepers[1]->kill;
wait_for_sleepers(0);
is( $s->value(
		q{SELECT a, b FROM dbpool_query('a', 'SELECT 1') AS a(a int),
		  dbpool_query('b', 'SELECT 2') AS b(b int)}),
	'1|2',
	'all slots are free: two pools in one statement');
$s->poll('SELECT count(*) FROM dbpool_requests', '0');
$sleepers[0]->quit;

# What a session has given up does not stand in its own way.
restart_with('dbpool.max_requests = 1');
my %seen;
foreach my $round (1 .. 50)
{
	$s->query(
		q{SET statement_timeout = '5ms'; SELECT dbpool_query('a', 'SELECT pg_sleep(60)')}
	);
	$seen{ $s->query(
			q{RESET statement_timeout; SELECT dbpool_query('a', 'SELECT 1')})
		  ->{state} }++;
}
is(join(' ', %seen), ' 50',
	'the only slot was given up: it can be used again at once');
$s->poll('SELECT count(*) FROM dbpool_requests', '0');
is($s->value(q{SELECT dbpool_query('a', 'SELECT 1')}),
	'(1)', 'the only slot was given up: it is not lost');

# --- connections -----------------------------------------------------------------------

restart_with('dbpool.max_requests = 0', 'dbpool.max_connections = 2');
@sleepers = map { session($local)->send(query_sleeps('a', 600, 'sleeper')) }
  (1, 2);
wait_for_sleepers(2);
$answer = $s->query(q{SELECT dbpool_query('b', 'SELECT 1')});
is($answer->{state}, '53300', 'all connections in use, pool without any');
like(
	$answer->{err},
	qr/could not open a connection of pool "b".*dbpool\.max_connections \(2\).*not run/s,
	'all connections in use: it says which setting');
like(
	$answer->{err},
	qr/HINT:  .*dbpool\.max_connections/,
	'all connections in use: with a hint');

# A pool that has connections lets others wait for them.
my $waiter = session($local)->send(q{SELECT dbpool_query('a', 'SELECT 1')});
$s->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'a'}, '1');
give_up($sleepers[0]);
is($waiter->wait->{out}, '(1)',
	'all connections in use: a pool that has some lets wait');
$waiter->quit;

# The connection that is idle now belongs to "a"; it makes room for "b".
is($s->value(q{SELECT dbpool_query('b', 'SELECT 1')}),
	'(1)', 'a connection of another pool is idle: it makes room');
give_up($sleepers[1]);

# Two idle ones of "a": that which has been idle longer goes.
$s->value(q{SELECT dbpool_reset('b')});
$_->send(query_sleeps('a', 600, 'sleeper')) foreach @sleepers;
wait_for_sleepers(2);
my @pids = map {
	$s->value('SELECT remote_pid FROM dbpool_requests WHERE pid = ' . $_->pid)
} @sleepers;
foreach my $i (1, 0)
{
	give_up($sleepers[$i]);
	$s->poll(
		qq{SELECT state FROM dbpool_connections WHERE remote_pid = $pids[$i]},
		'idle');
}
$s->value(q{SELECT dbpool_ping('b')});
is( $s->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'a'}),
	$pids[0], 'the one that has been idle longest makes room');

# What min_size keeps open stays open.
$s->value(q{ALTER SERVER a OPTIONS (ADD min_size '1')});
$s->value("SELECT dbpool_ping('$_')") foreach 'a', 'b';
$answer = $s->query(q{SELECT dbpool_ping('c')});
is($answer->{state} . $answer->{err}, '', 'the one above min_size makes room');
is( $s->value(
		q{SELECT string_agg(pool, ',' ORDER BY pool) FROM dbpool_connections}),
	'a,c',
	'and not the one of the pool with a min_size');
$s->value(q{ALTER SERVER c OPTIONS (ADD min_size '1')});
$s->value(q{SELECT dbpool_ping('c')});
is($s->query(q{SELECT dbpool_ping('b')})->{state},
	'53300', 'none above min_size: an error');
$_->quit foreach @sleepers;

# Pools that are in use leave each other's connections alone.
$s->value(q{ALTER SERVER a OPTIONS (DROP min_size)});
$s->value(q{ALTER SERVER c OPTIONS (DROP min_size)});
$s->value(q{SELECT dbpool_stat_reset()});
my @busy = map { session($local) } 1 .. 4;
my $wrong = '';
foreach my $round (1 .. 40)
{
	$busy[$_]->send(query_sleeps($_ % 2 ? 'a' : 'c', 0.02)) foreach 0 .. 3;
	$wrong .= $_->wait->{err} foreach @busy;
}
is($wrong, '', 'two pools with a connection each: no errors');
cmp_ok(
	$s->value(
		q{SELECT sum(connects) FROM dbpool_stat_pools WHERE pool IN ('a', 'c')}
	),
	'<=', 20,
	'and they do not take them from each other');
$_->quit foreach @busy;

# --- pools -----------------------------------------------------------------------------

restart_with('dbpool.max_connections = 256', 'dbpool.max_pools = 2');
is($s->value(q{SELECT dbpool_query('a', 'SELECT 1')}),
	'(1)', 'the first pool');
is($s->value(q{SELECT dbpool_query('b', 'SELECT 1')}),
	'(1)', 'the second pool');
$answer = $s->query(q{SELECT dbpool_query('c', 'SELECT 1')});
is($answer->{state}, '53000', 'all pools in use: an error');
like(
	$answer->{err},
	qr/too many dbpool pools are in use.*All 2 that dbpool\.max_pools allows.*not run.*HINT:  Raise dbpool\.max_pools/s,
	'all pools in use: it says what to raise');
is($s->value(q{SELECT dbpool_query('a', 'SELECT 1')}),
	'(1)', 'all pools in use: those there are work');
is($s->value('SELECT count(*) FROM dbpool_pools'),
	'3', 'all pools in use: the views show the others too');
$s->value(q{SELECT dbpool_drop_pool('a')});
$s->poll(q{SELECT count(*) FROM dbpool_get_pools() WHERE live}, '1');
is($s->value(q{SELECT dbpool_query('c', 'SELECT 1')}),
	'(1)', 'one is dropped: it works again');

# --- one role, one session -----------------------------------------------------------

restart_with('dbpool.max_requests = 10', 'dbpool.max_connections = 20', 'dbpool.max_pools = 10');
$s->value('CREATE ROLE greedy LOGIN; CREATE ROLE other LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO greedy');

# A pool of a role's own, which may log in at the remote as the superuser.
sub make_pool_of
{
	my ($role, $pool, %options) = @_;
	my $super = $s->value('SELECT current_user');

	create_pool($local, $pool, $remote, %options);
	$s->value(qq{ALTER SERVER "$pool" OWNER TO $role});
	$s->value(qq{CREATE USER MAPPING FOR $role SERVER "$pool" OPTIONS (user '$super', password_required 'false')});
	return;
}
sub session_of
{
	my ($role) = @_;
	my $session = session($local, user => $role);
	return $session;
}
make_pool_of('other', 'others');
make_pool_of('greedy', 'g0', max_size => 100);
my $other = session_of('other');
my $greedy = session_of('greedy');

# A call that calls itself has a request for each.
$s->value(q{SELECT dbpool_exec('b', 'CREATE TABLE nested (a int)')});
$s->value(q{CREATE FUNCTION nest(depth int) RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN IF depth > 0 THEN PERFORM dbpool_bulk_insert('g0', 'nested', format('SELECT nest(%s)', depth - 1)); END IF; RETURN depth; END $$});
is($greedy->value('SELECT nest(5)'), '5', 'a call that calls itself');
$s->value('ALTER SYSTEM SET dbpool.session_max_requests = 3; SELECT pg_reload_conf()');
$greedy->poll('SHOW dbpool.session_max_requests', '3');
is($greedy->value('SELECT nest(3)'), '3', 'as deep as one session may');
$answer = $greedy->query('SELECT nest(4)');
is($answer->{state}, '53400', 'and not deeper');
like($answer->{err},
	qr/statements of one session.*There are 3, as many as dbpool\.session_max_requests allows.*not run.*ALTER ROLE greedy SET dbpool\.session_max_requests/s,
	'it says which limit');
$s->value('ALTER SYSTEM RESET dbpool.session_max_requests; SELECT pg_reload_conf()');
$greedy->poll('SHOW dbpool.session_max_requests', '16');
is($greedy->query('SET dbpool.session_max_requests = 100')->{state}, '42501', 'no role gives itself more');

# Nine tenths of the slots, whatever it does, and not one less.
$answer = $greedy->query('SELECT nest(15)');
is($answer->{state}, '53400', 'a role does not get all slots by one session');
my @hogs = map { session_of('greedy') } 1 .. 10;
$_->send(query_sleeps('g0', 600, 'sleeper')) foreach @hogs[ 0 .. 8 ];
wait_for_sleepers(9);
$answer = $hogs[9]->query(q{SELECT dbpool_ping('g0')});
is($answer->{state}, '53400', 'nor by many');
like($answer->{err},
	qr/statements of one role.*There are 9, as many as dbpool\.role_max_requests allows.*not run/s,
	'it says which limit');
is($other->value(q{SELECT dbpool_query('others', 'SELECT 1')}), '(1)', 'another role has its share');
is($s->value(q{SELECT dbpool_query('b', 'SELECT 1')}), '(1)', 'and so have superusers');
# by ALTER ROLE, of which new sessions hear
$s->value('ALTER ROLE greedy SET dbpool.role_max_requests = 10');
my $more = session_of('greedy');
is($more->query(q{SELECT dbpool_query('g0', 'SELECT 1')})->{out}, '(1)', 'a superuser raises it for a role');
$more->quit;
$s->value('ALTER ROLE greedy RESET dbpool.role_max_requests');
# what was given up does not stand in the way
my %again;
foreach my $round (1 .. 20)
{
	give_up($hogs[0]);
	my $one = $hogs[0]->query(q{SELECT dbpool_query('g0', 'SELECT 1')});
	$again{ $one->{state} . $one->{out} }++;
	$hogs[0]->send(query_sleeps('g0', 600, 'sleeper'));
	wait_for_sleepers(9);
}
is(join(' ', %again), '(1) 20', 'a slot that was given up counts no more');
give_up($_) foreach @hogs[ 0 .. 8 ];
$_->quit foreach @hogs;
wait_for_sleepers(0);
$s->poll('SELECT count(*) FROM dbpool_requests', '0');
is($greedy->value('SELECT nest(5)'), '5', 'all of them are free again');

# Connections: nine tenths for the pools of one owner, with min_size or without.
restart_with('dbpool.max_requests = 50', 'dbpool.role_max_connections = 6');
$_->quit foreach $other, $greedy;
($other, $greedy) = (session_of('other'), session_of('greedy'));
make_pool_of('greedy', 'g1', max_size => 100, min_size => 3);
$answer = $greedy->query(q{ALTER SERVER g0 OPTIONS (ADD min_size '11')});
is($answer->{state}, 'HV024', 'a min_size has a limit');
like($answer->{err}, qr/min_size.*\(11\).*dbpool\.max_min_size \(10\)/, 'which is named');
is($s->query(q{ALTER SERVER g0 OPTIONS (ADD min_size '11')})->{state}, '', 'but not for superusers');
$greedy->value(q{SELECT dbpool_ping('g1')});
$s->poll(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'g1'}, '3');
$greedy->value(q{SELECT dbpool_query('g0', 'SELECT 1')});
$s->poll(q{SELECT count(*) FROM dbpool_connections WHERE pool IN ('g0', 'g1')}, '6');
@hogs = map { session_of('greedy') } 1 .. 8;
$_->send(query_sleeps('g0', 600, 'sleeper')) foreach @hogs;
wait_for_sleepers(3);
$s->poll(q{SELECT waiting FROM dbpool_pools WHERE pool = 'g0' AND user_name = 'greedy'}, '5');
is($s->value(q{SELECT count(*) FROM dbpool_connections WHERE pool IN ('g0', 'g1')}), '6', 'the pools of one owner have no more');
make_pool_of('greedy', 'g2');
$answer = $greedy->query(q{SELECT dbpool_ping('g2')});
is($answer->{state}, '53400', 'a further pool of the owner has none');
like($answer->{err}, qr/dbpool\.role_max_connections \(6\)/, 'it says which limit');
is($other->value(q{SELECT dbpool_query('others', 'SELECT 1')}), '(1)', 'others have theirs');
give_up($_) foreach @hogs;
wait_for_sleepers(0);
# one of the owner's own that is idle makes room
$s->value(q{ALTER SERVER g0 OPTIONS (DROP min_size)});
$_->send(query_sleeps('g0', 600, 'sleeper')) foreach @hogs[ 0 .. 2 ];
wait_for_sleepers(3);
give_up($_) foreach @hogs[ 0 .. 2 ];
$_->quit foreach @hogs;
$s->poll(q{SELECT count(*) FROM dbpool_connections WHERE pool IN ('g0', 'g1') AND state = 'idle'}, '6');
is($s->value(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'others' AND state = 'idle'}), '1', 'another owner has one that has been idle for longer');
is($greedy->query(q{SELECT dbpool_query('g2', 'SELECT 1')})->{out}, '(1)', 'an idle one of the owner\'s makes room');
is($s->value(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'others'}), '1', 'and not another owner\'s');

# What was allowed once counts as far as it is allowed now.
my $min_size = q{SELECT min_size FROM dbpool_pools WHERE pool = 'g1' AND user_name = 'greedy'};
is($s->value($min_size), '3', 'the min_size that it has');
$s->value('ALTER SYSTEM SET dbpool.max_min_size = 2; SELECT pg_reload_conf()');
$s->poll('SHOW dbpool.max_min_size', '2');
my $later = session_of('greedy');
$later->value(q{SELECT dbpool_ping('g1')});
is($s->value($min_size), '2', 'the setting limits one that was given before');
$later->quit;
$s->value('ALTER SYSTEM RESET dbpool.max_min_size; SELECT pg_reload_conf()');

# Pools: servers with dead ports.
$s->value(q{ALTER SERVER g1 OPTIONS (DROP min_size)});
restart_with('dbpool.role_max_connections = 0', 'dbpool.role_max_pools = 4');
$_->quit foreach $other, $greedy;
($other, $greedy) = (session_of('other'), session_of('greedy'));
make_pool_of('greedy', "dead$_", port => 1) foreach 1 .. 6;
my %states;
foreach my $n (1 .. 6)
{
	$answer = $greedy->query("SELECT dbpool_ping('dead$n')");
	$states{ $answer->{state} }++;
}
is_deeply(\%states, { '08001' => 4, '53400' => 2 }, 'one owner has no more pools than it may');
like($answer->{err}, qr/pools of one owner.*4 are, as many as dbpool\.role_max_pools/s, 'it says which limit');
is($other->value(q{SELECT dbpool_query('others', 'SELECT 1')}), '(1)', 'others have theirs');
# nor by stopping those that nobody uses
$greedy->value('SELECT count(*) FROM dbpool_disable(pools => NULL)');
make_pool_of('greedy', "cold$_", port => 1) foreach 1 .. 4;
is($greedy->query("SELECT dbpool_disable('cold$_')")->{state}, '53400', 'nor does it stop more') foreach 1 .. 4;
$greedy->value('SELECT count(*) FROM dbpool_enable(pools => NULL)');
is($other->value(q{SELECT dbpool_query('others', 'SELECT 1')}), '(1)', 'others still have theirs');
$_->quit foreach $other, $greedy;

# --- large statements that wait --------------------------------------------------------

# They stay in their sessions: the worker takes 16 MB of a role's, and of one by
# itself any number. Twelve of 32 MB wait for one connection.
restart_with('dbpool.role_max_pools = 0', 'dbpool.max_requests = 50', 'dbpool.role_max_request_memory = 16MB');
my $mb = 32;
my $worker = worker_pid($s);
my $length = q{SELECT n FROM dbpool_query('%s', 'SELECT length($1)', repeat('x', %d << 20)) AS t(n int)};
make_pool_of('greedy', 'slim', max_size => 1, acquire_timeout => '170s');
make_pool_of('greedy', 'hasty', acquire_timeout => '200ms');
$s->value('CREATE VIEW states AS SELECT coalesce(string_agg(n || $$ $$ || state, $$, $$ ORDER BY state), $$none$$) AS list
	FROM (SELECT state, count(*) AS n FROM dbpool_requests WHERE octet_length(query) < 100 GROUP BY 1) x');
my $states = q{SELECT list FROM states};
my $holder = session_of('greedy')->send(query_sleeps('slim', 600, 'sleeper'));
wait_for_sleepers(1);
my $before = rss_kb($worker);
my @large = map { session_of('greedy')->send(sprintf $length, 'slim', $mb) } 1 .. 12;
ok($s->poll($states, '1 queued, 1 running, 11 submitted'), 'one large statement of a role is taken, the others wait');
cmp_ok(rss_kb($worker) - $before, '<', 1.5 * $mb * 1024, 'the worker holds one of them');
$other = session_of('other');
$other->send(sprintf $length, 'others', $mb);
is($other->wait->{out}, $mb << 20, 'another role is not held up');
$greedy = session_of('greedy');
is($greedy->value(q{SELECT dbpool_query('g0', 'SELECT 1')}), '(1)', 'nor are small statements of the same');
$answer = $greedy->query(sprintf $length, 'hasty', $mb);
is($answer->{state}, '53400', 'it waits as long as acquire_timeout allows');
like($answer->{err},
	qr/could not take a large statement for pool "hasty" within 0.2 s.*dbpool\.role_max_request_memory.*not run/s,
	'it says which limit');
# those that give up, held or taken, make room
give_up($large[$_]) foreach 5, 11;
my ($taken) = grep { $s->value("SELECT count(*) FROM dbpool_requests WHERE state = 'queued' AND pid = " . $_->pid) } @large;
give_up($taken);
ok($s->poll($states, '1 queued, 1 running, 8 submitted'), 'the next one is taken');
my @rest = grep { $_ != $large[5] && $_ != $large[11] && $_ != $taken } @large;
$rest[3]->kill;
$s->value(sprintf 'SELECT pg_terminate_backend(%d)', $rest[4]->pid);
$rest[4]->wait;
splice @rest, 3, 2;
give_up($holder);
is(join(' ', map { $_->wait->{out} } @rest), join(' ', ($mb << 20) x 7), 'all of them run in the end');
$s->poll('SELECT count(*) FROM dbpool_requests', '0');
# several that fit at a time
$s->value(sprintf q{ALTER SYSTEM SET dbpool.role_max_request_memory = '%dMB'; SELECT pg_reload_conf()}, 2 * $mb + 1);
$s->poll('SHOW dbpool.role_max_request_memory', 2 * $mb + 1 . 'MB');
$holder->send(query_sleeps('slim', 600, 'sleeper'));
wait_for_sleepers(1);
$_->send(sprintf $length, 'slim', $mb) foreach @rest;
ok($s->poll($states, '2 queued, 1 running, 5 submitted'), 'as many as fit');
# the worker goes: so do they, and nothing of them was run
announce(qr/terminating background worker|dbpool worker/);
$s->value("SELECT pg_terminate_backend($worker)");
my %ends;
foreach my $one (@rest)
{
	my $end = $one->wait;
	$ends{ $end->{state} }++;
	like($end->{err}, qr/The statement was not run/, 'a worker that ends says so') if $end->{state} ne '';
}
is(join(' ', %ends), '08006 7', 'none was run');
$holder->wait;
worker_pid($s);
is($rest[0]->query(sprintf $length, 'slim', $mb)->{out}, $mb << 20, 'the next worker takes them');
$_->quit foreach $holder, $other, $greedy;

$s->quit;
done_testing();
