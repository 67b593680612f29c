
# A worker's memory stays where it is: large results, large values, and a
# session that reads slowly.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# What a worker's memory may grow by, in kB.
my $room = 32 * 1024;

my $remote = make_remote();
my $local = make_local();

create_pool($local, 'p', $remote, max_size => 2);

my $control = session($local);
my $reader = session($local, options => '-c work_mem=1MB');
my $worker = worker_pid($control);

$control->value("SELECT dbpool_ping('p')");
my $before = rss_kb($worker);
note("the worker has $before kB");

# Wait for the session, and return the most that the worker had meanwhile.
sub most_meanwhile
{
	my ($session) = @_;
	my $most = 0;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($session->is_done)
	{
		my $now = rss_kb($worker);
		$most = $now if $now > $most;
		sleep 0.005;
		die 'the statement does not end' if time > $end;
	}
	return $most;
}

subtest 'two million rows' => sub {
	$reader->send(
		"SELECT count(*), sum(i), count(DISTINCT length(x)) FROM dbpool_query('p',
		 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 2000000) i') AS t(i int8, x text)"
	);
	my $most = most_meanwhile($reader);
	my $answer = $reader->wait;

	is($answer->{out}, '2000000|2000001000000|1', 'all rows arrive');
	note("the worker had $most kB at most");
	cmp_ok($most - $before, '<', $room, 'the worker does not grow meanwhile');
	cmp_ok(rss_kb($worker) - $before, '<', $room, 'nor afterwards');
	is( $control->value(
			"SELECT rows >= 2000000, bytes_received > 200000000 FROM dbpool_stat_pools"
		),
		't|t',
		'they are counted');
};

subtest 'a session that reads slowly' => sub {
	my $most = 0;

	$reader->send(
		"SELECT count(*), sum(i) FROM dbpool_query('p',
		 'SELECT generate_series(1, 2000000), repeat(''x'', 200)') AS t(i int8, x text)"
	);
	$control->poll('SELECT count(*) > 0 FROM pg_ls_tmpdir()');
	my $pid = $reader->pid;
	suspend($pid);

	# the remote has to wait as soon as all that may be buffered is full
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dbpool' AND wait_event = 'ClientWrite'"
		),
		'the remote is made to wait');
	my ($longest, $n) = (0, 0);
	my $end = time + 2;
	while (time < $end)
	{
		my $answer = $control->query(
			"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)");
		die $answer->{err} if $answer->{out} ne '42';
		$longest = $answer->{seconds} if $answer->{seconds} > $longest;
		my $now = rss_kb($worker);
		$most = $now if $now > $most;
		$n++;
	}
	note("$n statements of others, the longest took $longest s");
	cmp_ok($longest, '<', 1, 'others are not held up');
	cmp_ok($n, '>', 20, 'and get on');
	cmp_ok($most - $before, '<', $room, 'the worker does not grow');
	is( $remote->safe_psql(
			'postgres',
			"SELECT wait_event FROM pg_stat_activity WHERE application_name = 'dbpool' AND state = 'active'"
		),
		'ClientWrite',
		'the remote still waits');

	# the worker must not go round and round meanwhile
	my $turns = $control->value('SELECT wakeups FROM dbpool_workers');
	$control->value('SELECT pg_sleep(1)');
	cmp_ok($control->value('SELECT wakeups FROM dbpool_workers') - $turns,
		'<', 50, 'the worker sleeps while it cannot do anything');

	resume($pid);
	is($reader->wait->{out},
		'2000000|2000001000000', 'let go, the session gets all rows');
};

subtest 'a session that reads slowly is killed' => sub {
	my $doomed = session($local, options => '-c work_mem=1MB');

	$doomed->send(
		"SELECT count(*), sum(i) FROM dbpool_query('p',
		 'SELECT generate_series(1, 100000000), repeat(''x'', 200)') AS t(i int8, x text)"
	);
	$remote->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dbpool' AND state = 'active'"
	);
	suspend($doomed->pid);
	$remote->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dbpool' AND wait_event = 'ClientWrite'"
	);
	$control->value('SELECT pg_terminate_backend(' . $doomed->pid . ')');
	resume($doomed->pid);
	ok($doomed->wait->{lost}, 'the session ends');
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool' AND state = 'active'"
		),
		'the remote stops');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
};

my $bytes = 200 * 1024 * 1024;

subtest 'a value of 200 MB' => sub {
	$reader->send(
		"SELECT length(x), md5(x) FROM dbpool_query('p', 'SELECT repeat(''0123456789abcdef'', $bytes / 16)') AS t(x text)"
	);
	note('the worker had ' . most_meanwhile($reader) . ' kB at most');
	my $answer = $reader->wait;
	my $md5 =
	  $control->value("SELECT md5(repeat('0123456789abcdef', $bytes / 16))");

	is($answer->{out} . $answer->{err}, "$bytes|$md5", 'comes');
	ok( wait_until(
			'memory goes back',
			sub { rss_kb($worker) - $before < $room }),
		'and the worker\'s memory goes back');

	$reader->send(
		"SELECT * FROM dbpool_query('p', 'SELECT length(\$1), md5(\$1)', repeat('0123456789abcdef', $bytes / 16)) AS t(l int, m text)"
	);
	note('the worker had ' . most_meanwhile($reader) . ' kB at most');
	$answer = $reader->wait;
	is($answer->{out} . $answer->{err}, "$bytes|$md5", 'goes');
	ok( wait_until(
			'memory goes back',
			sub { rss_kb($worker) - $before < $room }),
		'and the worker\'s memory goes back');
	note('afterwards it has ' . rss_kb($worker) . ' kB');
};

# Given up half way, such a value leaves nothing behind either.
subtest 'a value of 200 MB, cancelled' => sub {
	foreach my $timeout (200, 300, 500, 700)
	{
		$reader->value("SET statement_timeout = $timeout");
		$reader->query(
			"SELECT * FROM dbpool_query('p', 'SELECT \$1 || \$1', repeat('0123456789abcdef', $bytes / 16)) AS t(x text)"
		);
	}
	$reader->value('SET statement_timeout = 0');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	ok($control->poll('SELECT busy, cancelling FROM dbpool_pools', '0|0'),
		'no connection is left busy');
	ok( wait_until(
			'memory goes back',
			sub { rss_kb($worker) - $before < $room }),
		'the worker\'s memory goes back');
	is( $reader->value(
			"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'the next call works');
};
is(worker_pid($control), $worker, 'it is still the same worker');

$_->quit foreach ($control, $reader);
done_testing();
