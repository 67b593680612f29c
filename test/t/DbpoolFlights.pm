
# DbpoolFlights: what the tests of shared connections share.
#
# A statement shares a connection when its text is known to be short. To have
# several on one connection in a known order, nothing is left to chance: the
# worker is stopped while the sessions submit, so that it sends all of them in
# one turn when it goes on, and the first of them is held up by a row lock.
#
#   my $bench = make_bench($local, $remote, sessions => 6);
#   my @riders = share($bench, 'p', 0);
#   ... six statements are on one connection, the first waits for its row ...
#   $bench->{holder}->value('COMMIT');
#   check_riders($bench, @riders);

package DbpoolFlights;

use strict;
use warnings;

use DbpoolTest;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  learn make_bench share line_up hold check_riders in_flight is_at_rest repeats
);

# Have a pool learn that a text is short, by a call that is no script: of
# dbpool_query(), or with parameters. One run that was slow by chance is
# outweighed by many.
sub learn
{
	my ($control, $call) = @_;

	$control->value(
		"SELECT count(*) FROM (SELECT $call FROM generate_series(1, 50) OFFSET 0) calls"
	);
	return;
}

# Accounts on the remote, with a function that adds one to an account and to a
# log that refuses nothing. Sessions: control and riders at the local node,
# there and holder at the remote; holder is the one to lock rows.
sub make_bench
{
	my ($local, $remote, %params) = @_;
	my $n = $params{sessions} || 6;
	my %bench = (
		local => $local,
		control => session($local),
		there => session($remote),
		holder => session($remote),
		texts => 0,
		accounts => 10,
		sessions => [ map { session($local) } 1 .. $n ]);

	$bench{worker} = worker_pid($bench{control});
	$bench{there}->value(
		q{
		CREATE TABLE accounts (id int PRIMARY KEY, n int);
		INSERT INTO accounts SELECT i, 0 FROM generate_series(0, 1000) i;
		CREATE TABLE log (id int);
		CREATE FUNCTION add_to(account int) RETURNS int LANGUAGE plpgsql AS $$
		BEGIN
		  INSERT INTO log VALUES (account);
		  UPDATE accounts SET n = n + 1 WHERE id = account;
		  RETURN account;
		END $$;});
	return \%bench;
}

# Stop the worker and have sessions submit their statements. Returns the
# sessions in the order in which the worker will take them.
sub line_up
{
	my ($bench, @calls) = @_;
	my %by_pid = map { $_->[0]->pid => $_->[0] } @calls;
	my $submitted =
	  "FROM dbpool_requests WHERE state = 'submitted' AND pid IN ("
	  . join(',', keys %by_pid) . ')';

	suspend($bench->{worker});
	$_->[0]->send($_->[1]) foreach @calls;
	# one that waits for its answer has drawn the worker's attention to itself
	$bench->{control}->poll(
		'SELECT count(*) FROM pg_stat_activity WHERE '
		  . "wait_event_type = 'Extension' AND pid IN (SELECT pid $submitted)",
		scalar(@calls));

	# the view goes through the slots as the worker does
	return map { $by_pid{$_} } split /\n/,
	  $bench->{control}->value("SELECT pid $submitted");
}

# Each session adds to an account that nobody has used before. All their statements are on one
# connection but those before number $held, which have ended: its account is
# locked by the holder. Returns [{session, account}] in the order there. With
# rows, so many rows of 1000 bytes come before the one that adds; anew: the connection is new.
sub share
{
	my ($bench, $pool, $held, %params) = @_;
	my $rows = $params{rows} || 0;
	my ($control, $there, $holder) = @{$bench}{qw(control there holder)};
	my @sessions = @{ $bench->{sessions} };

	# a machine may be too busy for a while
	my $until = time + 60;
	while (time < $until)
	{
		# a text that has never been slow
		my $sql =
		  "SELECT CASE i WHEN 0 THEN add_to(\$1)::text ELSE repeat(\$\$x\$\$, 1000) END "
		  . "FROM generate_series($rows, 0, -1) i -- "
		  . ++$bench->{texts};
		my %account;
		my @calls;

		learn($control, "dbpool_exec('$pool', '$sql', 0)");
		$control->value("SELECT dbpool_reset('$pool')") if $params{anew};
		foreach my $session (@sessions)
		{
			$account{ $session->pid } = ++$bench->{accounts};
			push @calls,
			  [ $session,
				"SELECT format('(%s)', max(x) FILTER (WHERE x < 'x')), count(*) - 1 "
				  . "FROM dbpool_query('$pool', '$sql', $account{$session->pid}) AS t(x text)"
			  ];
		}
		my @riders =
		  map { { session => $_, account => $account{ $_->pid } } }
		  line_up($bench, @calls);
		hold($holder, $riders[$held]);
		resume($bench->{worker});
		$control->poll(
			"SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'",
			'0');
		$there->poll(
			'SELECT count(*) FROM pg_stat_activity WHERE '
			  . $holder->pid
			  . ' = ANY (pg_blocking_pids(pid))',
			'1');
		$_->{rows} = $rows foreach @riders;
		return @riders if in_flight($control, $pool) == @sessions - $held;
		note('too slow: not all are on one connection');
		$holder->value('COMMIT');
		$_->wait foreach @sessions;
	}
	die 'the statements never share a connection';
}

# Lock a rider's account, in a session at the remote.
sub hold
{
	my ($holder, $rider) = @_;

	$holder->value(
		"BEGIN; UPDATE accounts SET n = n WHERE id = $rider->{account}");
	return;
}

# Those riders get their answers, and their statements have run once.
sub check_riders
{
	my ($bench, @riders) = @_;
	my $list = join ',', map { $_->{account} } @riders;

	is_deeply(
		[   map { my $answer = $_->{session}->wait; $answer->{out} . $answer->{err} }
			  @riders ],
		[ map { "($_->{account})|$_->{rows}" } @riders ],
		'the others get their answers');
	is( $bench->{there}->value(
			"SELECT count(*), sum(n) FROM accounts WHERE n = 1 AND id IN ($list)"
		),
		@riders . '|' . @riders,
		'and their statements have run');
	is( $bench->{there}->value(
			"SELECT count(*), count(DISTINCT id) FROM log WHERE id IN ($list)"),
		@riders . '|' . @riders,
		'once, also where nothing would refuse a second time');
	return;
}

# Statements under way on the connections of a pool, the most on one.
sub in_flight
{
	my ($control, $pool) = @_;

	return $control->value(
		"SELECT coalesce(max(in_flight), 0) FROM dbpool_connections WHERE pool = '$pool'"
	);
}

# Statements of a pool that were sent again, unseen.
sub repeats
{
	my ($control, $pool) = @_;

	return $control->value(
		"SELECT repeats FROM dbpool_stat_pools WHERE pool = '$pool'");
}

# Does nothing remain: no request, no connection that is not idle?
sub is_at_rest
{
	my ($control, $pool) = @_;

	return $control->poll(
		"SELECT (SELECT count(*) FROM dbpool_requests WHERE pool = '$pool'), "
		  . "busy, cancelling, resetting, checking, waiting FROM dbpool_pools WHERE pool = '$pool'",
		'0|0|0|0|0|0');
}

1;
