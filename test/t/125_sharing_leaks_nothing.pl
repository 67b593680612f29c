
# Sessions that share a connection have nothing else in common: each gets its
# own error, none sees what another has set, none waits for a slow reader.

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
my $local = make_local(conf => 'dbpool.stall_timeout = 0');

create_pool($local, 'p', $remote, max_size => 1, validate_after => -1);
create_pool($local, 'two', $remote, max_size => 2, validate_after => -1);

my $bench = make_bench($local, $remote, sessions => 8);
my ($control, $there, $holder) = @{$bench}{qw(control there holder)};
my @sessions = @{ $bench->{sessions} };

# Statements of several sessions, all of which share: given as [sql for the
# pool, parameter, what it answers]. They go behind one that waits for a lock.
sub run_together
{
	my ($pool, @calls) = @_;

	foreach my $round (1 .. 20)
	{
		my $mark = ++$bench->{texts};
		my $held = "SELECT add_to(\$1::int) -- $mark";
		learn($control, "dbpool_exec('$pool', '$held', '0')");
		foreach my $sql (map { $_->[0] } @calls)
		{
			learn($control, "dbpool_exec('$pool', \$q\$$sql -- $mark\$q\$, '4')");
		}
		$holder->value('BEGIN; SELECT FROM accounts FOR UPDATE');
		my $i = 0;
		my %expected;
		my @order = line_up(
			$bench,
			map {
				my $session = $sessions[ $i++ ];
				$expected{ $session->pid } = $_->[2];
				[ $session, "SELECT dbpool_query('$pool', \$q\$$_->[0] -- $mark\$q\$, '$_->[1]')" ]
			} @calls);
		resume($bench->{worker});
		$control->poll(
			"SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'",
			'0');
		my $shared = in_flight($control, $pool);
		$holder->value('COMMIT');
		my %answers = map { $_->pid => $_->wait } @order;
		next if $shared < @calls - 1 && $round < 20;
		return map {
			{ %{ $answers{$_} }, expected => $expected{$_} }
		} map { $_->pid } @order;
	}
}

# --- errors -------------------------------------------------------------------

$there->value(
	q{
	CREATE TABLE uniq (id int PRIMARY KEY);
	INSERT INTO uniq VALUES (1);
	CREATE TABLE ran (n int)});

my @errors = (
	[ 'SELECT add_to($1::int)', 4, '(4)' ],
	[ 'SELECT 100 / ($1::int - 5)', 5, '22012' ],
	[ 'INSERT INTO uniq SELECT $1::int WHERE $1::int < 3 RETURNING id', 1, '23505' ],
	[ 'SELECT $1::int + 1', 'x', '22P02' ],
	[ 'SELECT add_to($1::int + 0)', 5, '(5)' ],
	[ 'WITH w AS (INSERT INTO ran VALUES ($1::int) RETURNING n) SELECT 1 / (n - 6) FROM w', 6, '22012' ],
	[ 'SELECT add_to($1::int + 1)', 6, '(7)' ],
	[ 'SELECT $1::int * 2', 21, '(42)' ]);

subtest 'each has its own error' => sub {
	my @answers = run_together('p', @errors);
	is($_->{state} || $_->{out}, $_->{expected}, 'the answer is its own')
	  foreach @answers;
	is($there->value('SELECT count(*) FROM ran WHERE n = 6'),
		'0', 'what failed is rolled back alone');
	ok(is_at_rest($control, 'p'), 'nothing is left');
};

# While the first waits, a table changes under those behind it.
subtest 'a table changes under statements that are on their way' => sub {
	foreach my $round (1 .. 20)
	{
		$there->value('DROP TABLE IF EXISTS shape; CREATE TABLE shape (a int); INSERT INTO shape VALUES (1)');
		my $sql = 'SELECT * FROM shape -- ' . ++$bench->{texts};
		learn($control, "dbpool_query('p', '$sql')");
		my $before = repeats($control, 'p');
		$holder->value('BEGIN; LOCK TABLE shape');
		line_up($bench,
			map { [ $_, "SELECT dbpool_query('p', '$sql')" ] } @sessions);
		resume($bench->{worker});
		$control->poll(
			"SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'",
			'0');
		my $shared = in_flight($control, 'p');
		$holder->value("ALTER TABLE shape ADD COLUMN b text DEFAULT 'new'; COMMIT");
		my @answers = map { $_->wait } @sessions;
		next if $shared < @sessions;
		is($_->{out} . $_->{err}, '(1,new)', 'the session sees the new table')
		  foreach @answers;
		cmp_ok(repeats($control, 'p') - $before, '>=', scalar(@sessions),
			'by a second run');
		last;
	}
	ok(is_at_rest($control, 'p'), 'nothing is left');
};

# The state of a call behind a statement that is stuck, on the only connection.
sub state_behind
{
	my ($call) = @_;
	my ($first, $second) = @sessions;

	foreach my $round (1 .. 20)
	{
		my $held = 'SELECT add_to($1::int) -- ' . ++$bench->{texts};
		learn($control, "dbpool_exec('p', '$held', '0')");
		$holder->value('BEGIN; SELECT FROM accounts FOR UPDATE');
		my @order = line_up($bench,
			[ $first, "SELECT dbpool_exec('p', '$held', '1')" ],
			[ $second, "SELECT $call" ]);
		resume($bench->{worker});
		$control->poll("SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'", '0');
		my $state = $control->value('SELECT state FROM dbpool_requests WHERE pid = ' . $second->pid);
		$holder->value('COMMIT');
		$_->wait foreach @order;
		return $state if $order[0] == $first;
		($first, $second) = ($second, $first);
	}
	die 'never in that order';
}

# --- what a session may leave behind -------------------------------------------

subtest 'what was left behind is gone before another joins' => sub {
	my $found =
	  q{SELECT coalesce(current_setting('my.thing', true), '') || current_setting('work_mem') || current_user || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') || (SELECT count(*) FROM pg_listening_channels()) || (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()) || (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)};
	$there->value(
		q{CREATE ROLE other; CREATE FUNCTION maybe(what text) RETURNS text LANGUAGE plpgsql AS $$BEGIN IF what <> '' THEN EXECUTE what; END IF; RETURN 'done'; END$$}
	);
	$control->value("SELECT dbpool_exec('p', 'SELECT 1')");
	learn($control, "dbpool_query('p', \$q\$$found\$q\$)");
	learn($control, "dbpool_query('p', 'SELECT maybe(\$1)', '')");
	my $clean = $control->value("SELECT dbpool_query('p', \$q\$$found\$q\$)");

	foreach my $what (
		"SET work_mem = '1MB'", 'SET ROLE other',
		'SET SESSION AUTHORIZATION other', 'LISTEN x',
		'PREPARE x AS SELECT 1', 'CREATE TEMP TABLE x (a int)',
		"SET my.thing = 'x'")
	{
		$sessions[0]->value("SELECT dbpool_exec('p', \$q\$$what\$q\$)");
		is($sessions[1]->value("SELECT dbpool_query('p', \$q\$$found\$q\$)"),
			$clean, "nothing is seen of $what");
	}

	# in a parameter of a text that was plain so far
	foreach my $what (
		"PERFORM set_config('my.thing', 'x', false)",
		'PERFORM pg_advisory_lock(5)',
		'CREATE TEMP TABLE x (a int)')
	{
		my $sql = $what;
		$sql =~ s/^PERFORM/SELECT/;
		$sessions[0]->value("SELECT dbpool_query('p', 'SELECT maybe(\$1)', \$q\$$sql\$q\$)");
		is($sessions[1]->value("SELECT dbpool_query('p', \$q\$$found\$q\$)"),
			$clean, "nothing is seen of a parameter with $sql");
	}

	# nor goes it with anybody's statement: it waits for a connection that is free
	is(state_behind("dbpool_query('p', 'SELECT maybe(\$1)', 'SELECT set_config(''my.thing'', ''x'', false)')"),
		'queued', 'a text with such a parameter does not share');
	is(state_behind("dbpool_query('p', 'SELECT maybe(\$1)', '')"),
		'running', 'without it does');
};

# What is set inside a function cannot be seen beforehand. When the remote tells
# of it, nobody joins any more until it is undone.
subtest 'a function changes a setting that the remote reports' => sub {
	my $zone = q{SELECT current_setting('TimeZone'), $1::int};
	my $clean = $control->value("SELECT dbpool_query('p', \$q\$$zone\$q\$, 1)");

	learn($control, "dbpool_query('p', \$q\$$zone\$q\$, 1)");
	$there->value(
		q{CREATE FUNCTION zone(what int) RETURNS int LANGUAGE plpgsql AS $$BEGIN IF what = 1 THEN EXECUTE 'SET TimeZone = ''Asia/Tokyo'''; END IF; RETURN 1; END$$}
	);
	learn($control, "dbpool_query('p', 'SELECT zone(\$1)', 0)");
	$control->value("SELECT dbpool_query('p', 'SELECT zone(\$1)', 1)");
	is($sessions[1]->value("SELECT dbpool_query('p', \$q\$$zone\$q\$, 1)"),
		$clean, 'the next one does not see it');

	# and that text never shares again, however often it leaves nothing
	learn($control, "dbpool_query('p', 'SELECT zone(\$1)', 0)");
	is(state_behind("dbpool_query('p', 'SELECT zone(\$1)', 0)"),
		'queued', 'the text does not share any more');
};

# --- one in trouble does not wait for itself -----------------------------------

subtest 'a session whose statement is stuck goes on' => sub {
	my @riders = share($bench, 'two', 0);
	my $stuck = $riders[0]->{session};

	$control->value('SELECT pg_cancel_backend(' . $stuck->pid . ')');
	is($stuck->wait->{state}, '57014', 'its statement is given up');
	my $since = time;
	is($stuck->value("SELECT dbpool_query('two', 'SELECT $_, ''x''')"),
		"($_,x)", 'its next one works')
	  foreach 1 .. 3;
	cmp_ok(time - $since, '<', 2, 'at once');
	check_riders($bench, @riders[ 1 .. $#riders ]);
	$holder->value('COMMIT');
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

# --- a slow head, a slow reader --------------------------------------------------

subtest 'a text that was short is slow' => sub {
	my $sql = 'SELECT pg_sleep($1)';
	learn($control, "dbpool_exec('two', '$sql', 0)");
	learn($control, "dbpool_query('two', 'SELECT 7')");
	$sessions[0]->send("SELECT dbpool_query('two', '$sql', 60)");
	$there->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'},
		'1');
	$there->value('SELECT pg_sleep(0.03)');
	my $since = time;
	is($sessions[$_]->value("SELECT dbpool_query('two', 'SELECT 7')"),
		'(7)', 'others go on')
	  foreach 1 .. 5;
	cmp_ok(time - $since, '<', 2, 'at once');
	is( $control->value(
			"SELECT max(in_flight) FROM dbpool_connections WHERE pool = 'two' AND state = 'busy'"
		),
		'1',
		'nobody has joined it');
	$control->value('SELECT pg_cancel_backend(' . $sessions[0]->pid . ')');
	is($sessions[0]->wait->{state}, '57014', 'it is cancelled');
	ok(is_at_rest($control, 'two'), 'nothing is left');
};

subtest 'a text that was small returns much, and its session reads nothing' =>
  sub {
	my $sql = 'SELECT repeat(\'x\', 1000) FROM generate_series(1, $1)';
	learn($control, "dbpool_exec('two', \$q\$$sql\$q\$, 1)");
	$sessions[0]->send(
		"SELECT count(*) FROM dbpool_query('two', \$q\$$sql\$q\$, 1000000) AS t(x text)");
	$there->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, $1)' AND state = 'active'},
		'1');
	suspend($sessions[0]->pid);
	$there->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'},
		'1');
	my $since = time;
	is($sessions[$_]->value("SELECT dbpool_query('two', 'SELECT 7')"),
		'(7)', 'others go on')
	  foreach 1 .. 5;
	cmp_ok(time - $since, '<', 2, 'at once');
	kill 'INT', $sessions[0]->pid;
	resume($sessions[0]->pid);
	is($sessions[0]->wait->{state}, '57014', 'it is cancelled');
	ok(is_at_rest($control, 'two'), 'nothing is left');
  };

done_testing();
