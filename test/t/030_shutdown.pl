
# The server is shut down while pools are busy, in every mode, and started again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $remote = make_remote();
my $local = make_local(conf => "dbpool.max_connections = 20\n");
my $silent = silent_listener();

create_pool($local, 'p', $remote, max_size => 2);
create_pool(
	$local, 'silent', undef,
	host => '127.0.0.1',
	port => $silent->sockport,
	connect_timeout => '120s',
	acquire_timeout => '120s');

# Sessions with statements in all states.
sub make_busy
{
	my @sessions = map { session($local) } 1 .. 5;

	$sessions[0]->value("SELECT dbpool_ping('p')");
	$_->send(query_sleeps('p', 600)) foreach @sessions[ 0 .. 2 ];
	$sessions[3]->send(query_sleeps('silent', 60));
	$sessions[4]->poll(
		q{SELECT string_agg(pool || ' ' || state, ', ' ORDER BY pool, state DESC)
		  FROM dbpool_requests},
		'p running, p running, p queued, silent queued');
	return @sessions;
}

sub check_works
{
	is( $local->safe_psql(
			'postgres',
			"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'the pool works');
	return;
}

# What the log says about the workers since the position.
sub check_log
{
	my ($from) = @_;
	my $log = substr slurp_file($local->logfile), $from;

	unlike(
		$log,
		qr/PANIC|TRAP|dbpool worker \d+" \(PID \d+\) was terminated by signal/,
		'no worker has crashed');
	unlike($log, qr/issuing SIGKILL/, 'nobody had to be killed');
	return;
}

check_works();

foreach my $mode (qw(fast immediate))
{
	subtest $mode => sub {
		my $from = -s $local->logfile;
		my @sessions = make_busy();
		my $started = time;

		$local->stop($mode);
		cmp_ok(time - $started, '<', 5, 'the server ends in time');
		foreach my $session (@sessions[ 0 .. 3 ])
		{
			ok($session->wait->{lost}, 'the sessions are gone');
		}
		check_log($from);
		$_->quit foreach @sessions;
		ok( $remote->poll_query_until(
				'postgres',
				q{SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%'}
			),
			'the remote stops what was running') if $mode eq 'fast';

		$local->start;
		check_works();
		is( $local->safe_psql(
				'postgres', 'SELECT count(*) FROM dbpool_requests'),
			'0',
			'no request is left');
		is( $local->safe_psql(
				'postgres',
				'SELECT count(*), min(starts) FROM dbpool_workers'),
			'1|1',
			'the worker is there');
	};
}

# A remote that has stopped dead takes no cancel: nobody waits for it long.
subtest 'fast, and the remote hangs' => sub {
	my $from = -s $local->logfile;
	my @sessions = make_busy();
	my $postmaster =
	  (split /\n/, slurp_file($remote->data_dir . '/postmaster.pid'))[0];
	my $started = time;

	suspend($postmaster);
	$local->stop('fast');
	cmp_ok(time - $started, '<', 5, 'the server ends in time');
	resume($postmaster);
	$_->quit foreach @sessions;
	check_log($from);
	$local->start;
	check_works();
};

# Lets sessions end in peace, and serves them until then.
subtest 'smart' => sub {
	my $from = -s $local->logfile;
	my $session = session($local);
	my $started = time;

	$session->send(query_sleeps('p', 1));
	wait_until(
		'the statement runs',
		sub {
			$local->safe_psql('postgres',
				q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}
			) eq '1';
		});
	my $stop = IPC::Run::start(
		[ 'pg_ctl', 'stop', '-w', '-m', 'smart', '-D', $local->data_dir ],
		'>',
		\my $out,
		'2>',
		\my $err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$local->wait_for_log(qr/received smart shutdown request/, $from);

	is($session->wait->{err}, '', 'the statement that ran ends well');
	is( $session->value(
			"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'and its session can go on');
	$started = time;
	$session->quit;
	ok($stop->finish, 'the server has ended') or diag($err);
	cmp_ok(time - $started, '<', 5, 'as soon as the last session did');
	check_log($from);

	$local->_update_pid(0);
	$local->start;
	check_works();
};

# Nobody is connected: nothing keeps the server.
foreach my $mode (qw(smart fast immediate))
{
	my $from = -s $local->logfile;
	my $started = time;

	$local->stop($mode);
	cmp_ok(time - $started, '<', 5, "$mode with idle connections is quick");
	check_log($from);
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool' AND state = 'idle'"
		),
		'the remote is left without connections');
	$local->start;
	check_works();
}

done_testing();
