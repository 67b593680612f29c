
# The remote loses connections: its server processes are terminated or killed,
# it is restarted or stopped. Every session gets an error of class 08 that says
# whether its statement may have run; the next call works as soon as the remote
# does.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote(conf => "restart_after_crash = on\n");
my $local = make_local();

create_pool(
	$local, 'p', $remote,
	max_size => 3,
	acquire_timeout => '20s');

my $control = session($local);
my @running = map { session($local) } 1 .. 3;
my $queued = session($local);

# Three sessions whose statements run, and one that waits.
sub make_busy
{
	$_->send(query_sleeps('p', 60)) foreach @running;
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '3');
	$queued->send("SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)");
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	return;
}

# The running ones have got their errors.
sub check_running
{
	foreach my $session (@running)
	{
		my $answer = $session->wait;

		like($answer->{state}, qr/^08/,
			'the session of a running statement gets an error of class 08');
		like(
			$answer->{err},
			qr/DETAIL: .*may or may not have run/s,
			'which says that it may have run');
		cmp_ok($answer->{seconds}, '<', 30, 'and does not wait for its end');
	}
	return;
}

# The waiting one has run, or an error says that it has not; or, when a remote that
# was about to restart took it, that it may have.
sub check_queued
{
	my ($must_run) = @_;
	my $answer = $queued->wait;

	if ($must_run || $answer->{state} eq '')
	{
		is($answer->{err}, '', 'the statement that waited has no error');
		is($answer->{out}, '42', 'it has run');
	}
	else
	{
		like($answer->{state}, qr/^08/,
			'the session of a waiting statement gets an error of class 08');
		like(
			$answer->{err},
			$answer->{state} eq '08007'
			? qr/DETAIL: .*may or may not have run/s
			: qr/DETAIL: .*The statement was not run/s,
			'which says whether it has run');
	}
	return;
}

# Everybody can go on as soon as it is known to be back, without a single error.
sub check_afterwards
{
	$remote->poll_query_until('postgres', 'SELECT true')
	  or die 'the remote does not come back';
	$control->serves('p');
	foreach my $session (@running, $queued, $control)
	{
		is( $session->value(
				"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
			'42',
			'the next call works');
	}
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	is( $control->value(
			'SELECT busy, connecting, cancelling, waiting FROM dbpool_pools'),
		'0|0|0|0',
		'the pool is at rest');
	return;
}

# Bring all three connections into the idle state.
sub make_idle
{
	$_->send(query_sleeps('p', 0.3)) foreach @running;
	$_->wait foreach @running;
	return $control->poll('SELECT idle, busy FROM dbpool_pools', '3|0');
}

sub remote_pids
{
	return split /\n/,
	  $control->value(
		'SELECT remote_pid FROM dbpool_connections WHERE remote_pid > 0');
}

subtest 'remote processes terminated' => sub {
	make_busy();
	$remote->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dbpool'"
	);
	check_running();
	check_queued(1);
	check_afterwards();
};

subtest 'remote process killed' => sub {
	make_busy();
	kill 'KILL', (remote_pids())[0];
	check_running();
	check_queued(0);
	check_afterwards();
};

subtest 'idle connections terminated' => sub {
	foreach my $round (1 .. 5)
	{
		make_idle();
		my @before = remote_pids();
		$remote->safe_psql('postgres',
			"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'dbpool'"
		);

		# at once: no dead connection may be handed out
		$_->send("SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)")
		  foreach @running;
		foreach my $session (@running)
		{
			my $answer = $session->wait;
			is($answer->{out} . $answer->{err},
				'42', 'no dead connection is handed out');
		}
		my %now = map { $_ => 1 } remote_pids();
		is(scalar(grep { $now{$_} } @before),
			0, 'the dead ones are not shown any more');
	}
};

subtest 'remote restarted' => sub {
	make_busy();
	$remote->restart;
	check_running();
	check_queued(0);
	check_afterwards();
};

subtest 'remote restarted while connections were idle' => sub {
	make_idle();
	$remote->restart;
	check_afterwards();
};

subtest 'remote stopped at once and gone for a while' => sub {
	make_busy();
	$remote->stop('immediate');
	check_running();
	check_queued(0);
	my $answer = $control->query(
		"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)");
	is($answer->{state}, '08001',
		'a call meanwhile says that nobody is there');
	like(
		$answer->{err},
		qr/DETAIL: .*The statement was not run/s,
		'and that it has not run');
	cmp_ok($answer->{seconds}, '<', 5, 'without waiting long');
	my $errors = $control->value(
		'SELECT connect_error IS NOT NULL, connect_failed_at IS NOT NULL FROM dbpool_pools'
	);
	is($errors, 't|t', 'the view tells it as well');
	$remote->start;
	check_afterwards();
};

$_->quit foreach (@running, $queued, $control);
done_testing();
