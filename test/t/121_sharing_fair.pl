
# Who may share a connection, and who gets one for itself: neither kind is kept
# from working by the other.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $remote = make_remote();
my $local = make_local();

create_pool($local, 'one', $remote, max_size => 1);
create_pool($local, 'two', $remote, max_size => 2);

my $control = session($local);
my $there = session($remote);
my $worker = worker_pid($control);

foreach my $pool ('one', 'two')
{
	subtest "a loner among riders, pool $pool" => sub {
		my ($riders, $out) = start_pgbench($local,
			"SELECT dbpool_query('$pool', 'SELECT pg_sleep(0.001)');\n",
			'-c', 16, '-T', 3);
		$control->poll(
			"SELECT statements > 200 FROM dbpool_stat_pools WHERE pool = '$pool'"
		);
		foreach my $i (1 .. 5)
		{
			my $start = time;
			$control->value("SELECT dbpool_query('$pool', 'SELECT $i, ''new''')");
			cmp_ok(time - $start, '<', 1, 'an unknown statement gets its turn');
		}
		ok($riders->finish, 'the riders go on') or diag($$out);
	};
}

# More slow statements than the pool has connections.
subtest 'loners leave riders a connection' => sub {
	my @slow = map { session($local) } 1 .. 3;
	my $ride = "SELECT dbpool_query('two', 'SELECT 42')";

	learn($control, "dbpool_query('two', 'SELECT 42')");
	$_->send(query_sleeps('two', 3)) foreach @slow;
	foreach my $i (1 .. 20)
	{
		my $answer = $control->query($ride);
		cmp_ok($answer->{seconds}, '<', 1, 'a short statement gets its answer')
		  if $answer->{out} ne '(42)' || $answer->{seconds} >= 1 || $i == 20;
	}
	is( $control->value("SELECT busy, waiting FROM dbpool_pools WHERE pool = 'two'"),
		'1|2',
		'while all but one connection is taken');
	$control->value('SELECT pg_cancel_backend(' . $_->pid . ')')
	  foreach reverse @slow;
	is($_->wait->{state}, '57014', 'they are cancelled') foreach @slow;
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

# A statement that waits is not forgotten, whatever comes meanwhile.
subtest 'a text waits while hundreds of others come' => sub {
	my @waiting = map { session($local) } 1 .. 2;
	my $others = session($local);

	# as long as the others, which would take its place; and these come so often
	# that they are worth preparing
	my $call = q{dbpool_query('known', 'SELECT %3d')};
	my $ours = sprintf $call, 42;

	create_pool($local, 'known', $remote, max_size => 1, prepare_threshold => 1);
	learn($control, $ours);
	$control->value("SELECT dbpool_pause('known')");
	$_->send("SELECT $ours") foreach @waiting;
	$control->poll("SELECT waiting FROM dbpool_pools WHERE pool = 'known'",
		'2');
	$others->query("SET statement_timeout = '3ms'");
	$others->send(
		join "\n",
		map { sprintf "SELECT $call; SELECT $call;", $_, $_ } 100 .. 400);
	$others->wait;
	$control->value("SELECT dbpool_resume('known')");
	is($_->wait->{out}, '(42)', 'it gets its answer') foreach @waiting;
	$_->quit foreach (@waiting, $others);
	is(worker_pid($control), $worker, 'the worker goes on');
};

# Of what a remote sends, the worker looks for where messages begin. In a value of
# bytes each can seem to begin a long row of them, which must not cost much.
subtest 'bytes that look like messages hold up nobody' => sub {
	my $begin = "SELECT count(*) FROM dbpool_query('two', \$\$SELECT pg_catalog.decode(repeat('5a00000004', 24000) || repeat('ff', 20), 'hex') FROM generate_series(1, \$1)\$\$,";
	my $flood = session($local);
	my ($n, $longest) = (0, 0);

	# prepared, so that its rows come in binary
	$control->value("$begin 1) AS t(x bytea)") foreach 1 .. 12;
	$flood->send("$begin 400) AS t(x bytea)");
	while (!$flood->is_complete && $n < 10000)
	{
		my $start = time;

		$control->value("SELECT dbpool_exec('one', 'SELECT 1')");
		$longest = time - $start if $longest < time - $start;
		$n++;
	}
	is($flood->wait->{out}, '400', 'all of it comes');
	cmp_ok($longest, '<', 1, 'others get their answers meanwhile');
};

done_testing();
