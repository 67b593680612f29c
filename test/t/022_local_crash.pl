
# A local process is killed with -9, a session or the worker: the postmaster
# makes the shared memory anew, and the pools work afterwards.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# what this test is about
announce(qr/terminated by signal 9/);

my $remote = make_remote();
my $local = make_local(conf => "restart_after_crash = on\n");

create_pool($local, 'p', $remote, max_size => 2);

foreach my $victim ('session', 'worker')
{
	subtest "$victim killed" => sub {
		my @sessions = map { session($local) } 1 .. 4;
		my $worker = worker_pid($sessions[3]);

		$_->send(query_sleeps('p', 5)) foreach @sessions[ 0 .. 2 ];
		$sessions[3]->poll(
			q{SELECT string_agg(state, ' ' ORDER BY state) FROM dbpool_requests},
			'queued running running');
		kill 'KILL', $victim eq 'worker' ? $worker : $sessions[0]->pid;
		ok($_->wait->{lost}, 'every session is ended')
		  foreach @sessions[ 0 .. 2 ];
		$_->quit foreach @sessions;
		$local->poll_query_until('postgres', 'SELECT true')
		  or die 'the server does not come back';

		my $session = session($local);
		is( $session->value(
				"SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
			'42',
			'the next call works');
		isnt(worker_pid($session), $worker, 'by a new worker');
		is($session->value('SELECT count(*) FROM dbpool_requests'),
			'0', 'no request is left');
		is($session->value('SELECT idle, busy, waiting FROM dbpool_pools'),
			'1|0|0', 'the pool has its one connection');
		$session->quit;
	};
}

done_testing();
