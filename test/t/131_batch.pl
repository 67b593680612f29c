
# dbpool_batch and dbpool_exec_batch: in one transaction all or nothing whatever breaks,
# and whenever; of independent statements, each row tells the truth; memory that stays
# where it is; a remote that is slow holds up nobody else.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# "At once", in seconds, on a machine that has other things to do.
my $at_once = 2;

# What a process's memory may grow by, in kB.
my $room = 16 * 1024;

my $remote = make_remote(conf => 'restart_after_crash = on');
my $local = make_local(conf =>
	  "restart_after_crash = on\ndbpool.role_max_request_memory = 4MB\n");

create_pool($local, 'p', $remote, max_size => 3, validate_after => '-1');
$remote->safe_psql(
	'postgres', q{
	CREATE TABLE t (i bigint, x text);
	CREATE TABLE gate ();
	CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM 1 FROM gate; RETURN NULL; END $$;
	CREATE TABLE late (i bigint);
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION wait_at_gate();});

my $control = session($local);
my $there = session($remote);
my $victim;

# Ways to be under way, with what the remote has of it in the end.
my $rows = 3000000;
my %phases = (
	'a statement runs' => [
		't',
		q{SELECT count(*) FROM dbpool_batch('p', ARRAY['INSERT INTO t VALUES (1)', 'SELECT 1 FROM gate', 'INSERT INTO t VALUES (2)'])}
	],
	'rows are sent' => [
		't',
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 50) FROM generate_series(1, $rows) i')"
	],
	'the remote is stopped' => [
		't',
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 50) FROM generate_series(1, $rows) i')"
	],
	'it commits' => [
		'late',
		q{SELECT count(*) FROM dbpool_batch('p', ARRAY['INSERT INTO late VALUES (1)', 'INSERT INTO late VALUES (2)'])}
	],
	'independent statements run' => [
		't',
		q{SELECT status, sqlstate FROM dbpool_batch('p', ARRAY(SELECT CASE i WHEN 3 THEN 'SELECT 1 FROM gate' ELSE format('INSERT INTO t VALUES (%s)', i) END FROM generate_series(1, 2000) i), mode => 'independent') ORDER BY number}
	]);

my $done = q{
	SELECT coalesce(max(substring(query FROM 'batch, (\d+) of')::int), 0) FROM dbpool_requests WHERE state = 'running'};

sub remote_pid
{
	return $control->value(
		"SELECT remote_pid FROM dbpool_requests WHERE query LIKE 'batch%'");
}

# Start a batch and see it in that phase. Returns what is to be resumed.
sub start
{
	my ($phase) = @_;
	my $stopped;

	$there->value('TRUNCATE t');
	$there->value('TRUNCATE late');
	$there->value('BEGIN; LOCK TABLE gate');
	$victim =
	  session($local, options => '-c client_connection_check_interval=100ms');
	$victim->send($phases{$phase}[1]);
	if ($phase =~ /^(rows|the remote)/)
	{
		$control->poll("SELECT ($done) > 1000");
	}
	else
	{
		$there->poll(
			"SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted",
			'1');
	}
	if ($phase eq 'the remote is stopped')
	{
		$stopped = remote_pid();
		suspend($stopped);
		is_stuck();
	}
	return $stopped;
}

# The session waits, and goes on waiting.
sub is_stuck
{
	wait_until(
		'the session stands still',
		sub {
			my $before = $control->value($done);
			$control->value('SELECT pg_sleep(0.2)');
			$control->value($done) eq $before;
		});
	return;
}

# The pool works, and nothing is left of the batch.
sub check_rest
{
	$there->value('ROLLBACK');
	$remote->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
	) or die 'the remote still works';
	is( $control->value(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'the next call works');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	ok( $control->poll(
			'SELECT busy, cancelling, resetting FROM dbpool_pools', '0|0|0'),
		'the pool is at rest');
	return;
}

sub check_nothing
{
	my ($table) = @_;

	check_rest();
	is($there->value("SELECT count(*) FROM $table"),
		'0', 'the remote has nothing');
	return;
}

$control->value("SELECT dbpool_ping('p')");

# --- the session gives up ------------------------------------------------------

my %causes = (
	cancelled => sub {
		$control->value('SELECT pg_cancel_backend(' . $victim->pid . ')');
		return '57014';
	},
	terminated => sub {
		$control->value('SELECT pg_terminate_backend(' . $victim->pid . ')');
		return '57P01';
	},
	disconnected => sub {
		$victim->kill;
		return '';
	});

foreach my $phase (sort keys %phases)
{
	# one cause would do for most
	foreach my $cause ($phase eq 'rows are sent' ? sort keys %causes
		: 'cancelled')
	{
		subtest "$cause while $phase" => sub {
			my $stopped = start($phase);
			my $started = time;
			my $state = $causes{$cause}->();

			is($victim->wait->{state}, $state, 'the session is told so')
			  if $state ne '';
			$control->poll(
				'SELECT count(*) FROM dbpool_requests WHERE pid = '
				  . $victim->pid,
				'0');
			cmp_ok(time - $started, '<', $at_once, 'at once');
			resume($stopped) if $stopped;

			# the cancel is on its way beside the session
			$there->poll(
				"SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted",
				'0');
			return check_nothing($phases{$phase}[0])
			  if $phase !~ /^independent/;

			# what has been sent may run, what has not may not
			check_rest();
			my $count = $there->value('SELECT count(*) FROM t');
			cmp_ok($count, '>=', 2, 'those before have run');
			cmp_ok($count, '<=', 300, 'most of the others have not');
		};
	}
}

# --- the connection breaks -------------------------------------------------------

# What the error says of the outcome.
my %lost = (
	'a statement runs' => [ '08006', 'Nothing of the batch stays' ],
	'rows are sent' => [ '08006', 'Nothing of the batch stays' ],
	'the remote is stopped' => [ '08006', 'Nothing of the batch stays' ],
	'it commits' => [ '08007', 'may or may not have run' ]);

foreach my $phase (sort keys %lost)
{
	# without a remote that reads, small batches are sent as a whole
	my ($state, $detail) =
	  $phase eq 'a statement runs'
	  ? @{ $lost{'it commits'} }
	  : @{ $lost{$phase} };

	subtest "the remote is killed while $phase" => sub {
		my $stopped = start($phase);

		kill 'KILL', $stopped || remote_pid();
		my $answer = $victim->wait;
		is($answer->{state}, $state, 'the session gets an error');
		like($answer->{err}, qr/DETAIL: .*$detail/s, 'which tells the truth');
		unlike($answer->{err}, qr/(statement|row) \d+ of the batch/,
			'and blames no statement');
		$remote->poll_query_until('postgres', 'SELECT true')
		  or die 'the remote does not come back';
		$there->kill;
		$there = session($remote);
		check_nothing($phases{$phase}[0]);
	};

	subtest "the worker is terminated while $phase" => sub {
		my $stopped = start($phase);
		my $worker = worker_pid($control);

		$control->value("SELECT pg_terminate_backend($worker)");
		my $answer = $victim->wait;
		is($answer->{state}, $state, 'the session gets an error');
		like($answer->{err}, qr/DETAIL: .*$detail/s, 'which tells the truth')
		  if $state eq '08006';
		resume($stopped) if $stopped;
		wait_until('it is another one',
			sub { worker_pid($control) != $worker });
		check_rest() if $state ne '08006';
		check_nothing($phases{$phase}[0]) if $state eq '08006';
	};
}

# How many of the rows have that status.
sub count_of
{
	my ($answer, $pattern) = @_;

	return scalar grep { /^$pattern$/ } split /\n/, $answer->{out};
}

foreach my $who ('remote', 'worker')
{
	subtest "independent statements: the $who is lost" => sub {
		start('independent statements run');
		if ($who eq 'remote')
		{
			$there->value(
				'SELECT pg_terminate_backend(' . remote_pid() . ')');
		}
		else
		{
			$control->value(
				'SELECT pg_terminate_backend(' . worker_pid($control) . ')');
		}
		my $answer = $victim->wait;
		is($answer->{state}, '', 'that is no error');
		my $ok = count_of($answer, 'ok\|');
		my $unknown = count_of($answer, 'unknown\|08007');
		my $not = count_of($answer, 'not run\|080\d\d');
		is($ok, '2', 'two have run');
		cmp_ok($unknown, '>=', 1, 'of those that were sent nobody knows');
		cmp_ok($unknown, '<=', 256, 'these are some');
		is($ok + $unknown + $not, '2000', 'each has its row');
		check_rest();
		my $count = $there->value('SELECT count(*) FROM t');
		cmp_ok($count, '>=', $ok, 'the remote has what is said to have run');
		cmp_ok($count, '<=', $ok + $unknown, 'and not what is said to have not');
	};
}

# --- memory, and others ---------------------------------------------------------------

subtest 'a million rows, and a remote that stops' => sub {
	my $worker = worker_pid($control);
	my $stopped;

	# of what a process grows by once
	$control->value(
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 20000) i')"
	);
	$there->value('TRUNCATE t');
	$victim = session($local);
	$victim->value(
		"SELECT dbpool_exec_batch('p', 'SELECT \$1::text, \$2::text', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 20000) i')"
	);
	my $before = rss_kb($worker);
	my $session_before = rss_kb($victim->pid);
	$victim->send(
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 1000000) i')"
	);
	$control->poll("SELECT ($done) > 1000");
	$stopped = remote_pid();
	suspend($stopped);
	is_stuck();
	my $turns = $control->value('SELECT wakeups FROM dbpool_workers');
	$control->value('SELECT pg_sleep(1)');
	cmp_ok($control->value('SELECT wakeups FROM dbpool_workers') - $turns,
		'<', 50, 'the worker sleeps while it cannot do anything');
	is( $control->value(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'others get on');
	cmp_ok(rss_kb($worker) - $before, '<', $room, 'the worker does not grow');
	resume($stopped);
	my ($most, $session_most) = (0, 0);
	until ($victim->is_done)
	{
		my ($now, $session_now) = (rss_kb($worker), rss_kb($victim->pid));

		$most = $now if $now > $most;
		$session_most = $session_now if $session_now > $session_most;
		$control->value('SELECT pg_sleep(0.05)');
	}
	is($victim->wait->{out}, '1000000', 'all rows are counted');
	cmp_ok($most - $before, '<', $room, 'the worker does not grow');
	cmp_ok($session_most - $session_before,
		'<', $room, 'nor does the session');
	is( $there->value(
			'SELECT count(*), count(DISTINCT i), min(length(x)) FROM t'),
		'1000000|1000000|100',
		'all rows are there');
	$there->value('TRUNCATE t');
	$victim->quit;
};

subtest 'results that nobody asked for are not kept' => sub {
	my $worker = worker_pid($control);
	my $before = rss_kb($worker);
	my $most = 0;

	foreach my $mode ('transaction', 'independent')
	{
		$victim = session($local);
		$victim->send(
			"SELECT sum(rows) FROM dbpool_batch('p', ARRAY(SELECT 'SELECT repeat(''x'', 10000) FROM generate_series(1, 5000)' FROM generate_series(1, 4)), mode => '$mode')"
		);
		until ($victim->is_done)
		{
			my $now = rss_kb($worker);

			$most = $now if $now > $most;
			$control->value('SELECT pg_sleep(0.01)');
		}
		is($victim->wait->{out}, '20000', "mode $mode: they are counted");
		$victim->quit;
	}
	cmp_ok($most - $before, '<', $room, 'the worker holds none of them');
};

subtest 'answers that the remote would keep to itself' => sub {
	# few, while the window is full of large statements; and large ones end a turn
	# while none is due
	is( $control->value(
			"SELECT sum((result->0->>'length')::int) FROM dbpool_batch('p', ARRAY(SELECT 'SELECT length(\$1)' FROM generate_series(1, 20)), ARRAY(SELECT jsonb_build_array(repeat('x', 1000000)) FROM generate_series(1, 20)), results => true)"
		),
		'20000000',
		'they come') foreach 1 .. 20;
};

subtest 'large statements count for their role' => sub {
	my $states =
	  "SELECT string_agg(state, ' ' ORDER BY state) FROM dbpool_requests";
	my @large = map { session($local) } 1 .. 2;

	$there->value('BEGIN; LOCK TABLE gate');
	$_->send(
		q{SELECT sum(rows) FROM dbpool_batch('p', ARRAY['SELECT length($1) FROM (SELECT count(*) FROM gate) g', 'SELECT 1'], ARRAY[jsonb_build_array(repeat('x', 3000000)), NULL])}
	) foreach @large;
	ok($control->poll($states, 'running submitted'),
		'one is taken, the other stays in its session');
	$there->value('ROLLBACK');
	is($_->wait->{out}, '2', 'both run') foreach @large;
	$_->quit foreach @large;
};

subtest 'a pool that points home' => sub {
	create_pool($local, 'home', $local);
	$control->value('CREATE TABLE h AS SELECT 1 AS i');
	foreach my $mode ('transaction', 'independent')
	{
		$victim = session($local);
		$victim->value('BEGIN; UPDATE h SET i = 2');
		my $answer = $victim->query(
			"SELECT status, sqlstate FROM dbpool_batch('home', ARRAY['SELECT 1', 'UPDATE h SET i = 3', 'SELECT 2'], mode => '$mode')"
		);
		if ($mode eq 'transaction')
		{
			is($answer->{state}, '40P01', 'a deadlock is found');
			like(
				$answer->{err},
				qr/statement 2 of the batch/,
				'of that statement');
		}
		else
		{
			like($answer->{out}, qr/^ok\|\nfailed\|40P01\n/,
				'and that of an independent one is a row');
		}
		$victim->quit;
	}
	is($control->value('SELECT i FROM h'), '1', 'nothing stays');
};

$_->quit foreach ($control, $there);
done_testing();
