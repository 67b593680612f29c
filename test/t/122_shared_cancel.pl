
# Several sessions have statements on one connection, and some of them give up.
# Theirs are cancelled; the others get their answers, and what a cancel hits by
# mistake runs once, not twice and not never.
#
# A busy machine may add mistakes of its own: PostgreSQL signals the process that
# is to be cancelled twice, once with its group, and the second signal may come
# when the process has taken the first and gone on to the next statement. That one
# is then sent again, when those behind it have ended. So a test may count on its
# being there, not on how many are with it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $remote = make_remote();
my $local = make_local(conf => 'dbpool.stall_timeout = 0');

create_pool($local, 'p', $remote, max_size => 1);
create_pool($local, 'two', $remote, max_size => 2);
create_pool($local, 'patient', $remote, max_size => 1);
create_pool($local, 'spare', $remote, max_size => 2);

my $bench = make_bench($local, $remote);
my ($control, $there, $holder) = @{$bench}{qw(control there holder)};

sub cancel
{
	my ($rider) = @_;

	$control->value(
		'SELECT pg_cancel_backend(' . $rider->{session}->pid . ')');
	is($rider->{session}->wait->{state}, '57014', 'it is cancelled');
	return;
}

# The cancelled one's slot and lock are of use to others at once.
sub check_victim
{
	my ($rider, $pool) = @_;

	ok( $control->poll(
			'SELECT count(*) FROM dbpool_requests WHERE pid = '
			  . $rider->{session}->pid,
			'0'),
		'its slot is free');
	is( $rider->{session}
		  ->query("SELECT dbpool_query('two', 'SELECT 42')")->{out},
		'(42)',
		'its session goes on');
	return;
}

# --- waits longer than a remote is given to end a cancelled statement ---------

# Begins here and ends with the test. The first gives up, the second waits for
# its own row.
my @patient = share($bench, 'patient', 0);
my $patient_holder = session($remote);
my $patient_since = time;
hold($patient_holder, $patient[1]);
cancel($patient[0]);
$holder->value('COMMIT');
$bench->{sessions} = [ map { session($local) } 1 .. 6 ];

# --- who gives up -------------------------------------------------------------

foreach my $victim (0, 3, 5)
{
	subtest "number $victim of six gives up, the first waits for a lock" =>
	  sub {
		my @riders = share($bench, 'p', 0);
		my @others = grep { $_ != $riders[$victim] } @riders;

		cancel($riders[$victim]);
		check_victim($riders[$victim]);
		$holder->value('COMMIT') if $victim > 0;
		check_riders($bench, @others);
		$holder->value('COMMIT') if $victim == 0;
		ok(is_at_rest($control, 'p'), 'nothing is left');
		is( $there->value(
				"SELECT n FROM accounts WHERE id = $riders[0]->{account}"),
			0,
			'what was cancelled is rolled back') if $victim == 0;
	  };
}

subtest 'the third is terminated, two have gone before' => sub {
	my @riders = share($bench, 'p', 2);
	my @others = (@riders[ 0, 1, 3, 4, 5 ]);

	$control->value('SELECT pg_terminate_backend('
		  . $riders[2]->{session}->pid . ')');
	ok($riders[2]->{session}->wait->{lost}, 'its session is gone');
	check_riders($bench, @others);
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'p'), 'nothing is left');
	$bench->{sessions} =
	  [ session($local), map { $_->{session} } @others ];
};

subtest 'all time out' => sub {
	$_->value("SET statement_timeout = '300ms'") foreach @{ $bench->{sessions} };
	my @riders = share($bench, 'p', 0);

	is($_->{session}->wait->{state}, '57014', 'it is cancelled')
	  foreach @riders;
	check_victim($_) foreach @riders;
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'p'), 'nothing is left');
	$_->value('RESET statement_timeout') foreach @{ $bench->{sessions} };
};

# --- the cancel comes late ----------------------------------------------------

# The remote's postmaster takes cancels. While it is stopped, the statement that
# is to be cancelled, the first, ends; when it goes on, the next one is there,
# which waits for its own row.
sub cancel_late
{
	my ($pool, @riders) = @_;
	my ($postmaster) = slurp_file($remote->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $before = repeats($control, $pool);

	suspend($postmaster);
	cancel($riders[0]);
	$control->poll("SELECT cancelling FROM dbpool_pools WHERE pool = '$pool'",
		'1');
	$holder->value('COMMIT');
	$control->poll(
		"SELECT max(in_flight) FROM dbpool_connections WHERE pool = '$pool'",
		'5');
	resume($postmaster);
	$control->poll(
		"SELECT repeats > $before FROM dbpool_stat_pools WHERE pool = '$pool'"
	);
	return;
}

sub hit_another
{
	my ($rows) = @_;
	my @riders = share($bench, 'p', 0, rows => $rows);
	my $second = session($remote);

	hold($second, $riders[1]);
	cancel_late('p', @riders);
	$second->value('COMMIT');
	check_riders($bench, @riders[ 1 .. 5 ]);
	ok(is_at_rest($control, 'p'), 'nothing is left');
	is( $there->value(
			"SELECT n FROM accounts WHERE id = $riders[0]->{account}"),
		1,
		'what was to be cancelled has run, as it may');
	return;
}

subtest 'the cancel hits another' => sub { hit_another(0) };
subtest 'which has returned rows before' => sub { hit_another(12) };

subtest 'which need not wait for those behind it' => sub {
	my @riders = share($bench, 'spare', 0);
	my ($second, $third) = (session($remote), session($remote));

	hold($second, $riders[1]);
	hold($third, $riders[2]);
	cancel_late('spare', @riders);
	$second->value('COMMIT');
	ok( wait_until(
			'it has its answer', sub { $riders[1]->{session}->is_done }),
		'it has its answer');
	ok(!$riders[2]->{session}->is_done, 'before the next');
	$third->value('COMMIT');
	check_riders($bench, @riders[ 1 .. 5 ]);
	ok(is_at_rest($control, 'spare'), 'nothing is left');
};

# --- two give up --------------------------------------------------------------

subtest 'one after the other gives up' => sub {
	my @riders = share($bench, 'p', 0);
	my $second = session($remote);

	hold($second, $riders[1]);
	cancel($riders[0]);
	$control->poll(
		"SELECT in_flight BETWEEN 1 AND 5 FROM dbpool_connections WHERE pool = 'p'");
	cancel($riders[1]);
	check_victim($riders[1]);
	check_riders($bench, @riders[ 2 .. 5 ]);
	$_->value('COMMIT') foreach ($holder, $second);
	ok(is_at_rest($control, 'p'), 'nothing is left');
};

# --- the remote hangs ---------------------------------------------------------

subtest 'the remote hangs' => sub {
	my @riders = share($bench, 'two', 0);
	my $pid = $control->value(
		"SELECT remote_pid FROM dbpool_connections WHERE in_flight = 6");

	suspend($pid);
	cancel($riders[$_]) foreach (0, 2);
	check_victim($riders[$_]) foreach (0, 2);
	resume($pid);
	check_riders($bench, @riders[ 1, 3, 4, 5 ]);
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

# --- the patient --------------------------------------------------------------

sleep(11 - (time - $patient_since)) if time - $patient_since < 11;
cmp_ok(in_flight($control, 'patient'), '>=', 1, 'the patient still wait');
$patient_holder->value('COMMIT');
check_riders($bench, @patient[ 1 .. 5 ]);
ok(is_at_rest($control, 'patient'), 'nothing is left');
is( $control->value(
		"SELECT connects FROM dbpool_stat_pools WHERE pool IN ('p', 'patient') ORDER BY pool"
	),
	"1\n1",
	'no connection was given up');

done_testing();
