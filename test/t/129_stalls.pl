
# A statement stalls and has others behind it on its connection. It is taken off
# there and run again, alone; the others go on. Each runs once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(conf => 'dbpool.stall_timeout = 0');

create_pool($local, 'one', $remote, max_size => 1);
create_pool($local, 'two', $remote, max_size => 2);
create_pool($local, 'brief', $remote,
	max_size => 2,
	options => '-c statement_timeout=1s');

my $bench = make_bench($local, $remote);
my ($control, $there, $holder) = @{$bench}{qw(control there holder)};

# Nobody stalls until the statements are where they are to be.
sub set_stall_timeout
{
	my ($timeout) = @_;

	$control->value("ALTER SYSTEM SET dbpool.stall_timeout = '$timeout'");
	$control->value('SELECT pg_reload_conf()');
	return;
}

# Six statements on one connection, the first of which waits for its row.
sub share_and_stall
{
	my ($pool, %params) = @_;

	set_stall_timeout(0);
	my @riders = share($bench, $pool, 0, %params);
	set_stall_timeout('50ms');
	return @riders;
}

# It has been taken off and waits again.
sub waits_alone
{
	my ($rider, $pool) = @_;
	my $pid = $rider->{session}->pid;

	return $control->poll(
		"SELECT count(*) FROM dbpool_requests r JOIN dbpool_connections c USING (remote_pid)"
		  . " WHERE r.pid = $pid AND r.state = 'running' AND c.pool = '$pool'"
		  . " AND c.state = 'busy' AND c.in_flight = 1",
		'1');
}

# The remote's postmaster takes cancels: stop it, or let it go on.
my ($postmaster) = slurp_file($remote->data_dir . '/postmaster.pid') =~ /^(\d+)/;

sub wait_for_cancel
{
	my ($pool) = @_;

	return $control->poll(
		"SELECT cancelling FROM dbpool_pools WHERE pool = '$pool'", '1');
}

# --- the first stalls ---------------------------------------------------------

foreach my $case (
	[ 'two', 0, 'those behind go on' ],
	[ 'two', 12, 'it has returned rows before' ],
	[ 'one', 0, 'there is one connection' ])
{
	my ($pool, $rows, $name) = @{$case};

	subtest $name => sub {
		my $before = repeats($control, $pool);
		my @riders = share_and_stall($pool, rows => $rows);

		check_riders($bench, @riders[ 1 .. 5 ]);
		ok(waits_alone($riders[0], $pool), 'it waits alone');
		$holder->value('COMMIT');
		check_riders($bench, $riders[0]);
		cmp_ok(repeats($control, $pool), '>', $before, 'it was sent again');
		ok(is_at_rest($control, $pool), 'nothing is left');
	};
}

subtest 'two stall' => sub {
	set_stall_timeout(0);
	my @riders = share($bench, 'two', 0);
	my $second = session($remote);
	hold($second, $riders[2]);
	set_stall_timeout('50ms');

	check_riders($bench, @riders[ 1, 3, 4, 5 ]);
	$holder->value('COMMIT');
	check_riders($bench, $riders[0]);
	$second->value('COMMIT');
	check_riders($bench, $riders[2]);
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

subtest 'its text does not share from then on' => sub {
	my @riders = share_and_stall('two');
	my $call = sub {
		my ($account) = @_;
		return
		  "SELECT dbpool_exec('two', 'SELECT CASE i WHEN 0 THEN add_to(\$1)::text ELSE repeat(\$\$x\$\$, 1000) END "
		  . "FROM generate_series(0, 0, -1) i -- $bench->{texts}', $account)";
	};

	check_riders($bench, @riders[ 1 .. 5 ]);
	$holder->value('COMMIT');
	check_riders($bench, $riders[0]);
	hold($holder, $riders[0]);
	my @sessions = line_up($bench,
		map { [ $_->{session}, $call->($riders[0]->{account}) ] }
		  @riders[ 0, 1 ]);
	resume($bench->{worker});
	is( $control->poll(
			"SELECT string_agg(in_flight::text, ' ') FROM dbpool_connections WHERE pool = 'two'",
			'1 1'),
		1,
		'two of them have two connections');
	$holder->value('COMMIT');
	is($_->wait->{out}, '1', 'and run') foreach @sessions;
};

# --- under load ---------------------------------------------------------------

subtest 'others keep the connections busy' => sub {
	set_stall_timeout(0);
	my @riders = share($bench, 'two', 0);
	my ($run, $out) = start_pgbench($local,
		"SELECT * FROM dbpool_query('two', 'SELECT 1') AS t(a int);\n",
		'-c', 4, '-t', 2000);

	$control->poll(
		"SELECT count(*) >= 4 FROM dbpool_requests WHERE pid NOT IN ("
		  . join(',', map { $_->{session}->pid } @riders)
		  . ')');
	set_stall_timeout('50ms');
	check_riders($bench, @riders[ 1 .. 5 ]);
	ok(waits_alone($riders[0], 'two'), 'it gets a connection');
	$run->finish;
	like(${$out}, qr{processed: 8000/8000}, 'and so do the others');
	$holder->value('COMMIT');
	check_riders($bench, $riders[0]);
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

# While a pool is paused, what is taken off would have to wait. Another pool tells
# when it would have been.
subtest 'a pool is paused' => sub {
	my %other = (
		%{$bench},
		holder => session($remote),
		accounts => 500,
		texts => 1000,
		sessions => [ map { session($local) } 1 .. 6 ]);
	my $before = repeats($control, 'two');

	set_stall_timeout(0);
	my @riders = share($bench, 'two', 0);
	$control->value("SELECT dbpool_pause('two', '0')");
	my @others = share(\%other, 'one', 0);
	set_stall_timeout('50ms');
	check_riders(\%other, @others[ 1 .. 5 ]);
	is(in_flight($control, 'two'), 6, 'nothing is cancelled');
	is(repeats($control, 'two'), $before, 'nor sent again');
	$control->value("SELECT dbpool_resume('two')");
	check_riders($bench, @riders[ 1 .. 5 ]);
	$_->{holder}->value('COMMIT') foreach ($bench, \%other);
	check_riders($bench, $riders[0]);
	check_riders(\%other, $others[0]);
};

# --- its session does not read ------------------------------------------------

# The first session is stopped while the answer comes: kB is how much, which the
# remote has sent as a whole or not.
sub stop_reader
{
	my ($kb) = @_;
	my $sql =
	  'INSERT INTO log SELECT $2::int FROM generate_series(1, $1::int) '
	  . 'RETURNING repeat($$x$$, 1024) -- '
	  . ++$bench->{texts};
	my $account = ++$bench->{accounts};

	set_stall_timeout(0);
	learn($control, "dbpool_exec('two', '$sql', 1, -1)");
	my ($stopped, @others) = line_up(
		$bench,
		map {
			[   $_,
				"SELECT count(*), sum(length(x)) FROM dbpool_query('two', '$sql', $kb, $account) AS t(x text)"
			]
		} @{ $bench->{sessions} });
	suspend($stopped->pid);
	set_stall_timeout('50ms');
	resume($bench->{worker});

	my $answer = "$kb|" . $kb * 1024;
	is($_->wait->{out}, $answer, 'another has its answer') foreach @others;
	ok(!$stopped->is_done, 'the one that is stopped has not');
	resume($stopped->pid);
	is($stopped->wait->{out}, $answer, 'now it has');
	is( $there->value("SELECT count(*) FROM log WHERE id = $account"),
		6 * $kb, 'each has run once');
	ok(is_at_rest($control, 'two'), 'nothing is left');
	return;
}

subtest 'a session is stopped and the remote cannot go on' =>
  sub { stop_reader(4000) };
subtest 'a session is stopped and the remote has ended' =>
  sub { stop_reader(100) };

# --- the cancel comes late ----------------------------------------------------

subtest 'it ends by itself' => sub {
	suspend($postmaster);
	my @riders = share_and_stall('two');

	wait_for_cancel('two');
	$holder->value('COMMIT');
	check_riders($bench, $riders[0]);
	resume($postmaster);
	check_riders($bench, @riders[ 1 .. 5 ]);
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

subtest 'its session gives up' => sub {
	suspend($postmaster);
	my @riders = share_and_stall('two');

	wait_for_cancel('two');
	$control->value(
		'SELECT pg_cancel_backend(' . $riders[0]->{session}->pid . ')');
	is($riders[0]->{session}->wait->{state}, '57014', 'it is cancelled');
	resume($postmaster);
	check_riders($bench, @riders[ 1 .. 5 ]);
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'two'), 'nothing is left');
	is( $there->value(
			"SELECT n FROM accounts WHERE id = $riders[0]->{account}"),
		0,
		'what was cancelled is rolled back');
};

# --- others cancel it ---------------------------------------------------------

subtest 'the remote has a limit of its own' => sub {
	my @riders = share_and_stall('brief');
	my $answer = $riders[0]->{session}->wait;

	is($answer->{state}, '57014', 'it is cancelled');
	like($answer->{err}, qr/statement timeout/, 'for that reason');
	check_riders($bench, @riders[ 1 .. 5 ]);
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'brief'), 'nothing is left');
};

subtest 'somebody cancels it on the remote' => sub {
	my @riders = share_and_stall('two');

	ok(waits_alone($riders[0], 'two'), 'it waits alone');
	$there->value(
		'SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE '
		  . $holder->pid
		  . ' = ANY (pg_blocking_pids(pid))');
	is($riders[0]->{session}->wait->{state}, '57014', 'it is cancelled');
	check_riders($bench, @riders[ 1 .. 5 ]);
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

# --- a remote whose commits wait for a standby --------------------------------

# A cancel would end that, with a warning only.
subtest 'a remote with a standby' => sub {
	my $primary = make_remote(
		name => 'primary',
		conf => "synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n"
	);
	create_pool($local, 'synchronous', $primary, max_size => 2);
	set_stall_timeout(0);
	my $other = make_bench($local, $primary);
	my @waiting = share($other, 'synchronous', 0);
	my @riders = share_and_stall('two');

	check_riders($bench, @riders[ 1 .. 5 ]);
	is(in_flight($control, 'synchronous'), 6, 'nothing is cancelled there');
	is(repeats($control, 'synchronous'), 0, 'nor sent again');
	$_->{holder}->value('COMMIT') foreach ($bench, $other);
	check_riders($other, @waiting);
	check_riders($bench, $riders[0]);
};

done_testing();
