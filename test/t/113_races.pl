
# The two sides of a race, each held until the other has passed: what the protocols
# say of both orders (ipc/request.h, ipc/ring.c, backend/definition.c).
#
# Points of dbpool's where a process can be held are known to a server that was
# built with injection points; its module injection_points holds whoever comes to
# a point, or makes it throw.  That works in a worker, too, which is in no database:
# the module's shared memory and its condition variable need none.  But a
# process that is held there does not see that its latch is set, and so a worker
# is woken again (nudge()) when it was let go.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all =>
  'the server was built without injection points; make check-assert has one'
  if !check_pg_config('#define USE_INJECTION_POINTS 1');
chomp(my $sharedir = `pg_config --sharedir`);
plan skip_all =>
  'the server has no module injection_points; make check-assert has one'
  if !-e "$sharedir/extension/injection_points.control";

my $remote = make_remote();
my $local = make_local(conf => "dbpool.max_connections = 4\n");

create_pool($local, 'p', $remote, max_size => 1);
create_pool($local, 'nudge', $remote, max_size => 1);
$remote->safe_psql('postgres', 'CREATE TABLE ran (what text)');

my $control = session($local);
my $there = session($remote);
my $s = session($local);
my $other = session($local);

$control->value('CREATE EXTENSION injection_points');

# --- points -------------------------------------------------------------------

# From now on each process that comes to the point is held there.
sub hold
{
	my ($point) = @_;

	$control->value("SELECT injection_points_attach('$point', 'wait')");
	return;
}

# Wait until that process is held at that point.
sub await_held
{
	my ($point, $pid) = @_;

	$control->poll(
		"SELECT wait_event FROM pg_stat_activity WHERE pid = $pid", $point);
	return;
}

# Let the one go that is held there; the next is held as well.
sub let_go
{
	my ($point) = @_;

	$control->value("SELECT injection_points_wakeup('$point')");
	return;
}

# Hold nobody there any more, and let the one go that is.
sub release
{
	my ($point) = @_;

	$control->value("SELECT injection_points_detach('$point')");
	let_go($point);
	$control->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE wait_event = '$point'",
		'0');
	return;
}

# Wake the worker.
sub nudge
{
	$control->value(q{SELECT dbpool_ping('nudge')});
	return;
}

# --- calls --------------------------------------------------------------------

# A call that leaves a row behind.
sub insert_of
{
	my ($what) = @_;
	return "SELECT dbpool_exec('p', 'INSERT INTO ran VALUES (''$what'')')";
}

sub times_run
{
	my ($what) = @_;
	return $there->value("SELECT count(*) FROM ran WHERE what = '$what'");
}

sub cancel
{
	my ($session) = @_;

	$control->value('SELECT pg_cancel_backend(' . $session->pid . ')');
	return;
}

sub state_of
{
	my ($session) = @_;
	return
	  'SELECT state FROM dbpool_requests WHERE pid = ' . $session->pid;
}

sub event_of
{
	my ($session) = @_;
	return
	  'SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid;
}

# Nothing is left of what was, and the next call works.
sub check_rest
{
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	ok( $control->poll(
			q{SELECT count(*) FROM dbpool_connections WHERE state <> 'idle'},
			'0'),
		'no connection is busy');
	is( $s->value(
			q{SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)}),
		'42',
		'the next call works');
	return;
}

$s->value(q{SELECT dbpool_ping('p')});
nudge();

# --- a request is submitted while its worker leaves ---------------------------

subtest 'the worker answers before the session looks whether there is one' =>
  sub {
	hold('dbpool-submitted-before-pid-look');
	$s->send(insert_of('quick'));
	await_held('dbpool-submitted-before-pid-look', $s->pid);
	$control->poll(state_of($s), 'done');
	release('dbpool-submitted-before-pid-look');
	is($s->wait->{out}, '1', 'the session takes the answer');
	is(times_run('quick'), '1', 'the statement has run once');
	check_rest();
  };

# A session that has seen the worker, and a worker that has cleared its pid.
sub submit_to_one_that_leaves
{
	my ($what) = @_;

	hold('dbpool-before-submitted');
	$s->send(insert_of($what));
	await_held('dbpool-before-submitted', $s->pid);
	my $worker = worker_pid($control);
	hold('dbpool-pid-cleared-before-sweep');
	kill 'TERM', $worker;
	await_held('dbpool-pid-cleared-before-sweep', $worker);
	return;
}

subtest 'the worker sweeps before the session looks whether there is one' =>
  sub {
	submit_to_one_that_leaves('swept');
	hold('dbpool-submitted-before-pid-look');
	release('dbpool-before-submitted');
	await_held('dbpool-submitted-before-pid-look', $s->pid);
	is($control->value(state_of($s)), 'submitted', 'it is submitted');
	# no other worker comes
	suspend($local->{_pid});
	release('dbpool-pid-cleared-before-sweep');
	ok($control->poll(state_of($s), 'done'), 'the worker has let go of it');
	release('dbpool-submitted-before-pid-look');
	my $answer = $s->wait;
	is($answer->{state}, '08006', 'the session is told');
	like($answer->{err}, qr/The statement was not run/, 'what has not been');
	resume($local->{_pid});
	check_rest();
	is(times_run('swept'), '0', 'and it has not run');
  };

subtest 'the session sees that the worker leaves before that sweeps' => sub {
	submit_to_one_that_leaves('taken back');
	release('dbpool-before-submitted');
	ok($control->poll(event_of($s), 'DbpoolWorkerStart'),
		'it waits for the next worker');
	is($control->value(state_of($s)), '', 'with the request taken back');
	release('dbpool-pid-cleared-before-sweep');
	is($s->wait->{out}, '1', 'the next worker answers');
	is(times_run('taken back'), '1', 'the statement has run once');
	check_rest();
};

# --- a session gives up while its request goes on ------------------------------

# The worker has looked, and is about to move the request. What it was for has run so
# many times then.
foreach my $case (
	[ 'receiving', 'found it', 0 ],
	[ 'running', 'a connection for it', 0 ],
	[ 'done', 'its answer', 1 ])
{
	my ($next, $what, $runs) = @{$case};

	subtest "given up when the worker has $what" => sub {
		my $worker = worker_pid($control);

		hold("dbpool-before-$next");
		$s->send(insert_of("before $next"));
		await_held("dbpool-before-$next", $worker);
		cancel($s);
		is($s->wait->{state}, '57014', 'the session is free at once');
		is($control->value(state_of($s)), 'abandoned', 'its request is not');
		release("dbpool-before-$next");
		nudge();
		check_rest();
		is(times_run("before $next"), $runs, "the statement has run $runs times");
	};
}

subtest 'given up when the worker has a connection for a transaction' => sub {
	my $worker = worker_pid($control);

	$s->value('SET dbpool.transaction = bound');
	# as many as there are: the next one would miss a lease that is not free again
	foreach my $round (1 .. 4)
	{
		$s->value('BEGIN');
		hold('dbpool-before-running');
		$s->send(insert_of('bound'));
		await_held('dbpool-before-running', $worker);
		cancel($s);
		is($s->wait->{state}, '57014', 'the session is free at once');
		$s->value('ROLLBACK');
		release('dbpool-before-running');
		nudge();
		ok( $control->poll(
				'SELECT (SELECT count(*) FROM dbpool_transactions), sum(leased) FROM dbpool_pools',
				'0|0'),
			'no transaction is left');
	}
	is(times_run('bound'), '0', 'the statement has not run');
	is($s->query(insert_of('bound'))->{out}, '1', 'the next one does');
	$s->value('RESET dbpool.transaction');
	check_rest();
};

# The entry has what the one before it has left there, which is nobody's any more.
subtest 'looked at when it is claimed, and not filled in' => sub {
	$_->value('SET dbpool.transaction = bound') foreach $s, $other;
	$s->value('BEGIN');
	$s->value(insert_of('before'));
	$s->value('ROLLBACK');
	check_rest();
	hold('dbpool-lease-claimed');
	$other->value('BEGIN');
	$other->send(insert_of('after'));
	await_held('dbpool-lease-claimed', $other->pid);
	is($control->value('SELECT count(*) FROM dbpool_transactions'), '0', 'no transaction is shown');
	release('dbpool-lease-claimed');
	is($other->wait->{out}, '1', 'it runs');
	is($control->value('SELECT string_agg(pid::text, $$,$$) FROM dbpool_transactions'), $other->pid, 'and is shown');
	$other->value('ROLLBACK');
	$_->value('RESET dbpool.transaction') foreach $s, $other;
	check_rest();
};

# The session has looked, and is about to give up what has gone on by then.
subtest 'the worker takes it and is done before it is given up' => sub {
	my $worker = worker_pid($control);

	suspend($worker);
	$s->send(insert_of('late'));
	$control->poll(state_of($s), 'submitted');
	hold('dbpool-before-abandoned');
	cancel($s);
	await_held('dbpool-before-abandoned', $s->pid);
	resume($worker);
	$control->poll(state_of($s), 'done');
	release('dbpool-before-abandoned');
	is($s->wait->{state}, '57014', 'the session is cancelled');
	check_rest();
	is(times_run('late'), '1', 'the statement has run once');
};

subtest 'it gets a connection before it is given up' => sub {
	$there->value('SELECT pg_advisory_lock(1)');
	$other->send(
		q{SELECT dbpool_exec('p', 'SELECT pg_advisory_xact_lock(1)')});
	$control->poll(state_of($other), 'running');
	$s->send(query_sleeps('p', 600, 'from the queue'));
	$control->poll(state_of($s), 'queued');
	hold('dbpool-before-abandoned');
	cancel($s);
	await_held('dbpool-before-abandoned', $s->pid);
	$there->value('SELECT pg_advisory_unlock(1)');
	$control->poll(state_of($s), 'running');
	release('dbpool-before-abandoned');
	is($s->wait->{state}, '57014', 'the session is cancelled');
	is($other->wait->{state}, '', 'the other one is not');
	$there->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%from the queue%' AND state = 'active' AND pid <> pg_backend_pid()},
		'0');
	check_rest();
};

# --- the cancel and the answer --------------------------------------------------

# A statement of the session is under way, and the process that runs it.
sub start_locked
{
	$there->value('SELECT pg_advisory_lock(1)');
	$s->send(q{SELECT dbpool_exec('p', 'SELECT pg_advisory_xact_lock(1)')});
	$there->poll(
		q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted},
		'1');
	return $there->value(
		q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
}

# The connection, as long as one of the two is under way, takes no other statement.
sub check_next_waits
{
	my ($in_flight) = @_;

	ok( $control->poll(
			q{SELECT state, in_flight FROM dbpool_connections WHERE pool = 'p'},
			"cancelling|$in_flight"),
		"the connection waits, $in_flight statements under way");
	$other->send(insert_of("next to $in_flight"));
	ok($control->poll(state_of($other), 'queued'), 'the next statement waits');
	return;
}

sub check_next_runs
{
	my ($in_flight, $connects) = @_;

	is($other->wait->{out}, '1', 'the next statement is not hit');
	is(times_run("next to $in_flight"), '1', 'it has run once');
	is( $control->value(
			q{SELECT connects FROM dbpool_stat_pools WHERE pool = 'p'}),
		$connects,
		'on the same connection');
	check_rest();
	return;
}

my $connects_of_p = q{SELECT connects FROM dbpool_stat_pools WHERE pool = 'p'};

subtest 'the statement ends before the cancel is delivered' => sub {
	my $worker = worker_pid($control);
	my $connects = $control->value($connects_of_p);
	my $runner = start_locked();

	hold('dbpool-before-cancel');
	cancel($s);
	is($s->wait->{state}, '57014', 'the session is free at once');
	await_held('dbpool-before-cancel', $worker);
	$there->value('SELECT pg_advisory_unlock(1)');
	$there->poll("SELECT state FROM pg_stat_activity WHERE pid = $runner",
		'idle');
	# takes the connection of the cancel (the kernel does), and is silent
	suspend($remote->{_pid});
	release('dbpool-before-cancel');
	nudge();
	check_next_waits(0);
	resume($remote->{_pid});
	check_next_runs(0, $connects);
};

subtest 'the cancel is delivered before the statement ends' => sub {
	my $connects = $control->value($connects_of_p);
	my $runner = start_locked();

	suspend($runner);
	cancel($s);
	is($s->wait->{state}, '57014', 'the session is free at once');
	wait_until(
		'the signal is pending',
		sub {
			my ($pending) =
			  slurp_file("/proc/$runner/status") =~ /^ShdPnd:\s*(\w+)/m;
			return hex($pending) & 2;
		});
	check_next_waits(1);
	resume($runner);
	check_next_runs(1, $connects);
	$there->value('SELECT pg_advisory_unlock(1)');
};

# --- definitions ---------------------------------------------------------------

my $where =
  q{SELECT * FROM dbpool_query('q', 'SELECT current_database()') AS t(d text)};

$remote->safe_psql('postgres', "CREATE DATABASE $_") foreach 'one', 'two';
create_pool($local, 'q', $remote, dbname => 'one');

# The point is where the session has a stamp, and has not read the catalogs.
subtest 'a pool changes when a session has a stamp for it' => sub {
	is($s->value($where), 'one', 'it is there');
	# the session looks again, and has the server's row in its cache
	$control->value('CREATE ROLE anybody');
	hold('dbpool-stamp-before-catalogs');
	$s->send($where);
	await_held('dbpool-stamp-before-catalogs', $s->pid);
	$control->value(q{ALTER SERVER q OPTIONS (SET dbname 'two')});
	release('dbpool-stamp-before-catalogs');
	is($s->wait->{out}, 'two', 'that session uses the new definition');
	is($_->value($where), 'two', 'and so do all') foreach $s, $other;
	check_rest();
};

subtest 'a pool changes when a session has read its definition' => sub {
	hold('dbpool-before-submitted');
	$s->send($where);
	await_held('dbpool-before-submitted', $s->pid);
	$control->value(q{ALTER SERVER q OPTIONS (SET dbname 'one')});
	release('dbpool-before-submitted');
	is($s->wait->{out}, 'one', 'that session uses the new definition');
	is($_->value($where), 'one', 'and so do all') foreach $s, $other;
	check_rest();
};

# The worker has taken note that something is wanted, and has not looked what.
subtest 'more is wanted of pools while the worker looks' => sub {
	my $worker = worker_pid($control);
	my $idle = q{SELECT idle FROM dbpool_pools WHERE pool = 'p'};

	is($control->value($idle), '1', 'there is a connection');
	hold('dbpool-attention-before-wants');
	$control->value(q{SELECT dbpool_reset('nudge', '0')});
	await_held('dbpool-attention-before-wants', $worker);
	$control->value(q{SELECT dbpool_reset('p', '0')});
	release('dbpool-attention-before-wants');
	nudge();
	ok($control->poll($idle, '0'), 'it is closed');
	check_rest();
};

# --- rings ---------------------------------------------------------------------

# Who has no room says that it waits, then looks again: here the other side has
# made room in between.
subtest 'the worker makes room while a session looks whether it has to wait' =>
  sub {
	my $worker = worker_pid($control);
	# ten seconds after it was idle, a session is woken for its statistics
	my $fresh = session($local);

	hold('dbpool-waits-before-room-look');
	$fresh->send(
		q{SELECT length(x) FROM dbpool_query('p', 'SELECT ' || quote_literal(repeat('x', 300000))) AS t(x text)}
	);
	await_held('dbpool-waits-before-room-look', $fresh->pid);
	suspend($worker);
	let_go('dbpool-waits-before-room-look');
	$control->poll(state_of($fresh), 'submitted');
	await_held('dbpool-waits-before-room-look', $fresh->pid);
	resume($worker);
	$control->poll(state_of($fresh), 'receiving');
	await_held('DbpoolWorkerMain', $worker);
	release('dbpool-waits-before-room-look');
	my $answer = $fresh->wait;
	is($answer->{out}, '300000', 'all of the statement arrives');
	cmp_ok($answer->{seconds}, '<', 8, 'with nobody woken by chance');
	$fresh->quit;
	check_rest();
  };

subtest 'a session makes room while the worker looks whether it has to wait' =>
  sub {
	my $worker = worker_pid($control);

	hold('dbpool-waits-before-room-look');
	$s->send(
		q{SELECT count(*) FROM dbpool_query('p', 'SELECT repeat(''x'', 1000) FROM generate_series(1, 1000)') AS t(x text)}
	);
	await_held('dbpool-waits-before-room-look', $worker);
	$control->poll(event_of($s), 'DbpoolAnswer');
	release('dbpool-waits-before-room-look');
	is($s->wait->{out}, '1000', 'all rows arrive');
	check_rest();
  };

# The worker has looked whether all rows are there, and not yet which.
subtest 'rows end when the worker has looked whether they have' => sub {
	my $worker = worker_pid($control);

	hold('dbpool-phase-before-rows');
	$s->send(
		q{SELECT dbpool_bulk_insert('p', 'ran', 'SELECT ''row'' FROM generate_series(1, 10)')}
	);
	await_held('dbpool-phase-before-rows', $worker);
	$control->poll('SELECT phase FROM dbpool_progress_bulk_insert',
		'finishing');
	release('dbpool-phase-before-rows');
	nudge();
	is($s->wait->{out}, '10', 'all are taken');
	is(times_run('row'), '10', 'all are there');
	check_rest();
};

# --- errors --------------------------------------------------------------------

# Where a process can be held it can fail: the session is told, and nothing is left
# behind. Not where an error has no owner (worker/work.h), nor before the worker has
# taken a request, where nothing throws.
announce(qr/error triggered for injection point/);

my $bulk =
  q{SELECT dbpool_bulk_insert('p', 'ran', 'SELECT ''failed'' FROM generate_series(1, 10)')};

foreach my $case (
	[ 'dbpool-stamp-before-catalogs', insert_of('failed') ],
	[ 'dbpool-before-submitted', insert_of('failed') ],
	[ 'dbpool-submitted-before-pid-look', insert_of('failed late') ],
	[ 'dbpool-before-queued', insert_of('failed') ],
	[ 'dbpool-before-running', insert_of('failed') ],
	[ 'dbpool-phase-before-rows', $bulk ])
{
	my ($point, $call) = @{$case};

	subtest "an error at $point" => sub {
		my $worker = worker_pid($control);

		$control->value(
			q{ALTER USER MAPPING FOR CURRENT_USER SERVER p OPTIONS (ADD user 'x');
			ALTER USER MAPPING FOR CURRENT_USER SERVER p OPTIONS (DROP user)})
		  if $point =~ /stamp/;
		$control->value("SELECT injection_points_attach('$point', 'error')");
		my $answer = $s->send($call)->ends('the call ends');
		$control->value("SELECT injection_points_detach('$point')");
		like($answer->{state}, qr/^(?:XX000|08\w{3})$/, 'by an error');
		check_rest();
		is(worker_pid($control), $worker, 'the worker goes on');
	};
}
is(times_run('failed'), '0', 'nothing of them has run');

$_->quit foreach $control, $there, $s, $other;
done_testing();
