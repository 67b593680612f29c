
# Several sessions have statements on one connection, and it is lost; or the
# worker is. Each gets its answer or an error that says whether its statement
# may have run, and none runs twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $remote = make_remote(conf => "restart_after_crash = on\n");
my $local = make_local(conf => 'dbpool.stall_timeout = 0');

create_pool($local, 'p', $remote, max_size => 1, acquire_timeout => '20s');

my $bench = make_bench($local, $remote);
my ($control, $there, $holder) = @{$bench}{qw(control there holder)};

sub remote_pid
{
	return $control->value(
		"SELECT remote_pid FROM dbpool_connections WHERE in_flight > 0");
}

# Has it got an error that says what became of its statement?  One that is run
# again waits for the holder as it did the first time: that is seen at once.
sub check_told
{
	my ($rider, $lost, $state, $fate) = @_;
	my $again = '';

	wait_until(
		'the session has its answer, or its statement runs again',
		sub {
			return 1 if $rider->{session}->is_done;
			$again = $control->value(
				'SELECT remote_pid FROM dbpool_requests WHERE pid = '
				  . $rider->{session}->pid
				  . " AND remote_pid <> $lost");
			return $again ne '';
		});
	is($again, '', 'its statement is not sent a second time');
	$holder->query('COMMIT') if $again ne '';
	my $answer = $rider->{session}->wait;

	is($answer->{state}, $state, 'its session gets an error');
	like($answer->{err}, $fate, 'which says what became of it');
	return;
}

sub check_doubtful { return check_told(@_, '08007', qr/DETAIL: .*may or may not have run/s) }

# Its process has said that it ends before the statement had ended.
sub check_rolled_back { return check_told(@_, '08006', qr/terminating connection.*was rolled back/s) }

# A session can go on; with nothing left of what was.
sub check_afterwards
{
	my ($session) = @_;

	ok(is_at_rest($control, 'p'), 'nothing is left');
	is($session->query("SELECT dbpool_query('p', 'SELECT 42')")->{out},
		'(42)', 'the next call works');
	return;
}

# What goes with a write to know its fate is prepared by the first of them alone.
subtest 'a new connection' => sub {
	my @riders = share($bench, 'p', 0, anew => 1);

	$holder->value('COMMIT');
	check_riders($bench, @riders);
	is(repeats($control, 'p'), '0', 'no statement was sent twice');
};

# The server process says that it ends: it takes one statement after the other,
# so those behind the first have not run.
foreach my $held (0, 2)
{
	subtest "the remote process is terminated, $held have ended" => sub {
		my @riders = share($bench, 'p', $held);
		my $pid = remote_pid();

		$there->value("SELECT pg_terminate_backend($pid)");
		check_rolled_back($riders[$held], $pid);
		check_riders($bench, grep { $_ != $riders[$held] } @riders);
		$holder->value('COMMIT');
		check_afterwards($riders[$held]->{session});
	};
}

# The same, but the pool's definition has changed meanwhile: those who are to
# run look it up again.
subtest 'the remote process is terminated after ALTER SERVER' => sub {
	my @riders = share($bench, 'p', 0);

	my $pid = remote_pid();
	$control->value("ALTER SERVER p OPTIONS (ADD idle_timeout '5min')");
	$there->value("SELECT pg_terminate_backend($pid)");
	check_rolled_back($riders[0], $pid);
	my $since = time;
	check_riders($bench, @riders[ 1 .. 5 ]);
	cmp_ok(time - $since, '<', 5, 'soon');
	$holder->value('COMMIT');
	check_afterwards($riders[0]->{session});
};

# It says nothing: any of them may have run.
subtest 'the remote process is killed' => sub {
	my @riders = share($bench, 'p', 1);

	my $pid = remote_pid();
	kill 'KILL', $pid;
	check_doubtful($_, $pid) foreach @riders[ 1 .. 5 ];
	is($riders[0]->{session}->wait->{out},
		"($riders[0]->{account})|0", 'the first had its answer');
	$remote->poll_query_until('postgres', 'SELECT true')
	  or die 'the remote does not come back';
	$there = $bench->{there} = session($remote);
	$holder = $bench->{holder} = session($remote);
	my $list = join ',', map { $_->{account} } @riders[ 1 .. 5 ];
	is($there->value("SELECT count(*) FROM log WHERE id IN ($list)"),
		'0', 'in truth, none has');
	check_afterwards($riders[1]->{session});
};

# A write whose last bytes have not left: the socket is full, since the remote
# does not read.
subtest 'the remote process hangs, is sent much, and is terminated' => sub {
	my ($big, $small) = @{ $bench->{sessions} };

	$there->value('CREATE TABLE texts (t text)');
	$control->value("SELECT dbpool_query('p', 'SELECT 42')");
	my $pid = $control->value(
		"SELECT remote_pid FROM dbpool_connections WHERE pool = 'p'");
	suspend($pid);
	$big->send(
		"SELECT dbpool_exec('p', 'INSERT INTO texts VALUES (\$1)', repeat('x', 15000000))"
	);
	$control->poll(
		"SELECT count(*) FROM dbpool_requests WHERE state = 'running'", '1');
	kill 'TERM', $pid;
	resume($pid);
	my $answer = $big->wait;
	like("$answer->{out}$answer->{state}", qr/^(1|08007)$/,
		'it has run on another connection, or nobody knows');
	is( $there->value('SELECT count(*) FROM texts'),
		$answer->{out} || '0',
		'and did not run without saying so');
	check_afterwards($small);
};

# --- the worker ends ----------------------------------------------------------

subtest 'the worker is terminated' => sub {
	my @riders = share($bench, 'p', 0);
	my $queued = session($local);

	$queued->send("SELECT dbpool_query('p', 'SELECT 1')");
	$control->poll("SELECT waiting FROM dbpool_pools WHERE pool = 'p'", '1');
	kill 'TERM', $bench->{worker};
	foreach my $rider (@riders)
	{
		my $answer = $rider->{session}->wait;
		is($answer->{state}, '08007', 'its session gets an error');
		like($answer->{err}, qr/worker .* was terminated.*may or may not/s,
			'which tells of the worker');
	}
	my $answer = $queued->wait;
	is($answer->{state}, '08006', 'also one that waited');
	like($answer->{err}, qr/The statement was not run/,
		'which says that it was not run');
	$holder->value('COMMIT');
	$bench->{worker} = worker_pid($control);
	check_afterwards($queued);
};

done_testing();
