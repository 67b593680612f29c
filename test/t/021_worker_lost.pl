
# A worker is terminated: sessions are told, it comes back, and what it counted
# is still there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local();

create_pool($local, 'p', $remote, max_size => 2);

my $control = session($local);
my @running = map { session($local) } 1 .. 2;
my $queued = session($local);
my $reader = session($local, options => '-c work_mem=1MB');

my $counters =
  q{SELECT statements, errors, connects, rows, bytes_received, exec_time
	FROM dbpool_stat_pools WHERE pool = 'p'};

foreach my $round (1 .. 2)
{
	subtest "terminated, time $round" => sub {
		my $pid = worker_pid($control);

		$control->value(
			"SELECT * FROM dbpool_query('p', 'SELECT generate_series(1, 100)') AS t(i int)"
		);
		$_->send(query_sleeps('p', 600)) foreach @running;
		$control->poll(
			q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'},
			'2');
		$queued->send(query_sleeps('p', 5));
		$control->poll(
			q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'},
			'1');
		my $before = $control->value($counters);

		is($control->value("SELECT pg_terminate_backend($pid)"),
			't', 'a worker can be terminated');

		foreach my $session (@running)
		{
			my $answer = $session->wait;
			like($answer->{state}, qr/^08/,
				'the session of a running statement gets an error of class 08'
			);
			like(
				$answer->{err},
				qr/DETAIL: .*may or may not have run/s,
				'which says that it may have run');
			cmp_ok($answer->{seconds}, '<', 4, 'at once');
		}
		my $answer = $queued->wait;
		like($answer->{state}, qr/^08/,
			'the session of a waiting statement gets an error of class 08');
		like(
			$answer->{err},
			qr/DETAIL: .*The statement was not run/s,
			'which says that it has not run');

		ok( $remote->poll_query_until(
				'postgres',
				q{SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%'}
			),
			'the remote stops what was running');

		# no waiting here: the call itself has to wait for the worker
		is( $control->value(
				"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
			'42',
			'the next call works');
		isnt(worker_pid($control), $pid, 'the worker is another process');
		is($control->value('SELECT starts FROM dbpool_workers'),
			$round + 1, 'its starts are counted');
		is($control->value('SELECT count(*) FROM dbpool_requests'),
			'0', 'no request is left');
		is($control->value('SELECT count(*) FROM dbpool_connections'),
			'1', 'no connection is shown that is gone');
		my @before = split /\|/, $before;
		my @after = split /\|/, $control->value($counters);
		is($after[0], $before[0] + 1, 'statements were not forgotten');
		is($after[2], $before[2] + 1, 'nor were connects');
		cmp_ok($after[3], '>', $before[3], 'nor rows');
		cmp_ok($after[4], '>', $before[4], 'nor bytes');
		cmp_ok($after[5], '>', $before[5], 'nor times');
	};
}

subtest 'terminated while rows stream' => sub {
	my $pid = worker_pid($control);

	$reader->send(
		"SELECT count(*) FROM dbpool_query('p', 'SELECT generate_series(1, 1000000000)') AS t(i int)"
	);
	$control->poll('SELECT count(*) > 0 FROM pg_ls_tmpdir()');
	$control->value("SELECT pg_terminate_backend($pid)");
	my $answer = $reader->wait;
	like($answer->{state}, qr/^08/,
		'the session gets an error of class 08, not a part of the rows');
	like(
		$answer->{err},
		qr/DETAIL: .*may or may not have run/s,
		'which says that it may have run');
	is( $reader->value(
			"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'the next call works');
	ok($control->poll("SELECT count(*) FROM pg_ls_tmpdir()", '0'),
		'nothing is left on disk');
};

# Many sessions call all the while: each gets an answer or an error, none hangs.
subtest 'terminated again and again' => sub {
	my @sessions =
	  (@running, $queued, $reader, map { session($local) } 1 .. 12);
	my ($answers, $errors, $other) = (0, 0, '');

	foreach my $round (1 .. 5)
	{
		my $pid = worker_pid($control);

		$_->send(
			"SELECT * FROM dbpool_query('p', 'SELECT 42 FROM pg_sleep(0.01)') AS t(x int)"
		) foreach @sessions;
		$control->value("SELECT pg_terminate_backend($pid)");
		foreach my $session (@sessions)
		{
			my $answer = $session->wait;
			if ($answer->{out} eq '42')
			{
				$answers++;
			}
			elsif ($answer->{state} =~ /^08/
				&& $answer->{err} =~ /may or may not have run|was not run/)
			{
				$errors++;
			}
			else
			{
				$other .= $answer->{err};
			}
		}
	}
	is($other, '', 'every call gets an answer or an error that is true');
	is($answers + $errors, 5 * @sessions, 'each of them exactly one');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	cmp_ok(
		$remote->safe_psql(
			'postgres',
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool' AND state = 'idle'"
		),
		'<=', 2,
		'the remote has no more connections than allowed');
	$_->quit foreach @sessions;
};

$control->quit;
done_testing();
