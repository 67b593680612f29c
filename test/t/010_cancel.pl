
# A session gives up: by cancel, statement_timeout, pg_terminate_backend() or
# because its client is gone, and whatever its statement is doing. Control
# returns at once, the remote stops, and the pool is as usable as before.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

# "At once", in seconds, on a machine that has other things to do.
my $at_once = 2;

my $remote = make_remote();
my $local = make_local();
my $listener = silent_listener();

create_pool($local, 'p', $remote, max_size => 1);
create_pool(
	$local, 'silent', undef,
	host => '127.0.0.1',
	port => $listener->sockport,
	connect_timeout => '60s',
	acquire_timeout => '60s',
	max_size => 1);

create_pool($local, 'checked', $remote, max_size => 1, validate_after => '0');

my $control = session($local);
my $there = session($remote);
my $blocker = session($local);
my $worker = worker_pid($control);

my $stream =
  "SELECT count(*) FROM dbpool_query('p', '/* victim */ SELECT generate_series(1, 1000000000)') AS t(i int)";

# What a statement can be doing when its session gives up:
#   sql      the statement
#   begin    to be done before
#   reached  condition: it is in that phase. %d is the session's process ID
#   end      to be done when the session is out of it
my %phases = (
	submitted => {
		sql => query_sleeps('p', 60, 'victim'),
		begin => sub { suspend($worker) },
		reached =>
		  q{SELECT state = 'submitted' FROM dbpool_requests WHERE pid = %d},
		end => sub { resume($worker) }, },
	queued => {
		sql => query_sleeps('p', 60, 'victim'),
		begin => sub {
			$blocker->send(query_sleeps('p', 60, 'blocker'));
			$control->poll(
				"SELECT count(*) FROM dbpool_requests WHERE state = 'running'",
				'1');
		},
		reached =>
		  q{SELECT state = 'queued' FROM dbpool_requests WHERE pid = %d},
		end => sub {
			ok( $control->poll(
					"SELECT string_agg(state, ',') FROM dbpool_requests",
					'running'),
				'the statement before it goes on');
			$control->value(
				"SELECT pg_cancel_backend(" . $blocker->pid . ")");
			is($blocker->wait->{state}, '57014', 'until it is cancelled too');
		}, },
	connecting => {
		pool => 'silent',
		sql => query_sleeps('silent', 60),
		reached => q{SELECT q.state = 'queued' AND p.connecting = 1
			FROM dbpool_requests q JOIN dbpool_pools p USING (pool) WHERE q.pid = %d},
	},
	checking => {
		sql => query_sleeps('checked', 60, 'victim'),
		begin => sub { suspend(checked_pid()) },
		reached => q{SELECT q.state = 'queued' AND c.state = 'checking'
			FROM dbpool_requests q JOIN dbpool_connections c USING (pool) WHERE q.pid = %d},
		end => sub { resume(checked_pid()) }, },
	sent => {
		sql => query_sleeps('p', 60, 'victim'),
		reached =>
		  q{SELECT state = 'running' FROM dbpool_requests WHERE pid = %d},
		runs => 1, },
	streaming => {
		sql => $stream,

		# rows come and are put aside, so some have come
		reached =>
		  q{SELECT count(*) > 0 FROM pg_ls_tmpdir() WHERE name LIKE 'pgsql_tmp%d.%%'},
		runs => 1, });

# How a session gives up. Returns what the session then said, if it still can.
my %causes = (
	cancel => sub {
		my ($victim) = @_;
		$victim->{started} = Time::HiRes::time;
		$control->value('SELECT pg_cancel_backend(' . $victim->pid . ')');
		return $victim->wait;
	},
	statement_timeout => sub { return $_[0]->wait },
	terminate => sub {
		my ($victim) = @_;
		$victim->{started} = Time::HiRes::time;
		$control->value('SELECT pg_terminate_backend(' . $victim->pid . ')');
		return $victim->wait;
	},
	disconnect => sub {
		my ($victim) = @_;
		my $started = Time::HiRes::time;
		$victim->kill;
		$control->poll(
			'SELECT count(*) FROM pg_stat_activity WHERE pid = '
			  . $victim->pid,
			'0');
		return {
			lost => 1,
			state => '',
			seconds => Time::HiRes::time - $started };
	});

# Bring a session into the phase; with a timeout that is not over before.
sub bring_into
{
	my ($phase, $cause) = @_;

	foreach my $timeout (1, 5, 20)
	{
		my $victim = session($local,
			options => '-c client_connection_check_interval=100ms '
			  . '-c work_mem=1MB');
		my $reached = sprintf $phase->{reached}, $victim->pid;

		$victim->value("SET statement_timeout = '${timeout}s'")
		  if $cause eq 'statement_timeout';
		$phase->{begin}->() if $phase->{begin};
		$victim->send($phase->{sql});
		wait_until('the phase is reached',
			sub { $victim->is_done || $control->value($reached) eq 't' });
		if ($phase->{runs})
		{
			wait_until('the remote runs it',
				sub { $victim->is_done || running_there() > 0 });
		}
		return ($victim, $timeout) unless $victim->is_done;
		$phase->{end}->() if $phase->{end};
		last if $cause ne 'statement_timeout';
	}
	die "the session ended before it was to";
}

sub running_there
{
	return $there->value(
		q{SELECT count(*) FROM pg_stat_activity
		  WHERE state = 'active' AND query LIKE '/* victim */%'});
}

# The remote process of the pool that checks its connection at each use.
sub checked_pid
{
	return $control->value(
		"SELECT remote_pid FROM dbpool_connections WHERE pool = 'checked'");
}

# Make the pools' connections, so that there is something to compare with.
$control->value("SELECT dbpool_ping('p'), dbpool_ping('checked')");

foreach my $name (qw(submitted queued connecting checking sent streaming))
{
	foreach my $cause (qw(cancel statement_timeout terminate disconnect))
	{
		subtest "$cause while $name" => sub {
			my $phase = $phases{$name};
			my $pool = $phase->{pool} || 'p';
			my ($victim, $timeout) = bring_into($phase, $cause);
			my $answer = $causes{$cause}->($victim);
			my $limit = $at_once;

			$limit += $timeout if $cause eq 'statement_timeout';
			cmp_ok($answer->{seconds}, '<', $limit,
				'control returns at once');
			if ($cause eq 'cancel' || $cause eq 'statement_timeout')
			{
				is($answer->{state}, '57014',
					'with the error that is expected');
			}
			else
			{
				ok($answer->{lost}, 'the session is gone');
			}
			$phase->{end}->() if $phase->{end};

			ok( $there->poll(
					q{SELECT count(*) FROM pg_stat_activity
					  WHERE state = 'active' AND query LIKE '/* victim */%'},
					'0'),
				'the remote runs nothing any more');
			ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
				'no request is left');

			# the same session, if there is one
			my $next = $answer->{lost} ? $control : $victim;
			$next->value("SET statement_timeout = '60s'");
			is( $next->value(
					"SELECT * FROM dbpool_query('p', 'SELECT 1') AS t(x int)"
				),
				'1',
				'the next statement works');
			is( $there->value(
					"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool'"
				),
				'2',
				'over no more connections than before');
			ok( $control->poll(
					"SELECT sum(idle), sum(busy + checking + cancelling + resetting), sum(waiting), max(connecting) <= 1 FROM dbpool_pools",
					'2|0|0|t'),
				'and the pools are at rest');
			$victim->quit unless $answer->{lost};
		};
	}
}

# A remote process takes no notice of a cancel before it has read the statement:
# stopped, it finds the cancel first when it goes on.
subtest 'the cancel comes before the remote has begun' => sub {
	my $victim = session($local);
	my $before = $control->value(
		"SELECT remote_pid FROM dbpool_connections WHERE pool = 'p'");

	# so that it is not checked before its use
	$control->value("SELECT dbpool_ping('p')");
	suspend($before);
	$victim->value("SET statement_timeout = '100ms'");
	is($victim->query(query_sleeps('p', 60, 'victim'))->{state},
		'57014', 'control returns');
	ok( $there->poll(
			'SELECT count(*) FROM pg_stat_activity '
			  . "WHERE application_name = 'dbpool' AND state = 'active'",
			'0'),
		'the remote has not begun');
	Time::HiRes::sleep(0.3);
	resume($before);
	ok( $there->poll(
			q{SELECT count(*) FROM pg_stat_activity
			  WHERE state = 'active' AND query LIKE '/* victim */%'},
			'0'),
		'the remote runs nothing');
	ok( $control->poll(
			"SELECT idle, cancelling FROM dbpool_pools WHERE pool = 'p'",
			'1|0'),
		'the pool is at rest');
	is( $control->value(
			"SELECT remote_pid FROM dbpool_connections WHERE pool = 'p'"),
		$before,
		'with the same connection');
};
# One that was made read-only for a session that has gone.
subtest 'a read-only call is given up while its connection is made so' => sub {
	my $victim = session($local);
	my $before = checked_pid();

	$victim->value('SET dbpool.inherit_read_only = on; BEGIN READ ONLY');
	suspend($before);
	$victim->send(query_sleeps('checked', 60, 'victim'));
	ok( $control->poll(
			"SELECT checking FROM dbpool_pools WHERE pool = 'checked'", '1'),
		'it is being made so');
	is($causes{cancel}->($victim)->{state}, '57014', 'control returns');
	resume($before);
	is( $control->value(
			"SELECT * FROM dbpool_query('checked', 'SHOW transaction_read_only') AS t(x text)"
		),
		'off',
		'the next one is not');
	is(checked_pid(), $before, 'on the same connection');
	$victim->quit;
};
is(worker_pid($control), $worker, 'the worker has lived through all of it');

$_->quit foreach ($control, $there, $blocker);
done_testing();
