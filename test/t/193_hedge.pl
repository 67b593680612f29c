
# Reads that take long for their text are sent to another host as well: which of both answers
# counts, what becomes of the other one, how many there are, and what it is good for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# W13 by hand: HEDGE_CALLS=2000 HEDGE_CLIENTS=8
my $calls = $ENV{HEDGE_CALLS} || 600;
my $clients = $ENV{HEDGE_CLIENTS} || 4;
my $local = make_local(workers => 1);
my $control = session($local);
my $seed = $ENV{HEDGE_SEED} || int rand 1e9;
my @figures;

# What a call does at which host is in its parameters. Who waits does so for a lock that the
# test holds. One call in 60 of answer() takes half a second at the slow host.
sub new_remote
{
	my ($name) = @_;
	my $node = make_remote(name => $name);

	$node->safe_psql('postgres', $_) foreach (
		qq{CREATE FUNCTION behave(at_slow text, at_fast text) RETURNS text LANGUAGE plpgsql AS \$\$
		DECLARE
			what text := at_$name;
		BEGIN
			IF what LIKE 'notice%' THEN RAISE NOTICE 'it begins'; END IF;
			IF what LIKE '%wait%' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
			IF what LIKE '%fail' THEN RAISE EXCEPTION 'failed at $name'; END IF;
			RETURN '$name';
		END \$\$},
		qq{CREATE FUNCTION answer(n int) RETURNS text LANGUAGE plpgsql AS \$\$
		BEGIN
			IF '$name' = 'slow' AND n % 60 = 0 THEN PERFORM pg_sleep(0.5); END IF;
			RETURN '$name';
		END \$\$},
		qq{CREATE FUNCTION by_chance(part float8) RETURNS text LANGUAGE plpgsql AS \$\$
		BEGIN
			IF random() < part THEN PERFORM pg_sleep(0.03); END IF;
			RETURN '$name';
		END \$\$});
	return $node;
}

my %node = map { $_ => new_remote($_) } 'slow', 'fast';
my %watch = map { $_ => session($node{$_}) } keys %node;
my %holder = map { $_ => session($node{$_}) } keys %node;
my %both = (
	host => join(',', map { $node{$_}->host } 'slow', 'fast'),
	port => join(',', map { $node{$_}->port } 'slow', 'fast'),
	dbname => 'postgres',
	read_only => 'true');

# Without load_balance, calls are given to the first host, and the second one gets the copies.
sub make_pool
{
	my ($pool, $size, %options) = @_;

	create_pool($local, $pool, undef, %both, min_size => $size, max_size => $size, %options);
	$control->value("SELECT dbpool_exec('$pool', 'SELECT 1')");
	$control->poll("SELECT count(*) = $size AND count(DISTINCT port) = " . ($options{hedge} ? 2 : 1)
		  . " FROM dbpool_connections WHERE pool = '$pool' AND state = 'idle'");
	return;
}

# Have the pool know how long calls take, and earn so many copies more than it uses up meanwhile, as
# it does on a busy machine.
sub train
{
	my ($pool, $copies) = @_;
	my $earned = 'statements - 50 * hedged';
	my $until = stat_of($pool, $earned) + 50 * $copies;

	until (stat_of($pool, $earned) >= $until)
	{
		$control->value("SELECT count(dbpool_value(NULL::text, '$pool', 'SELECT behave(\$1, \$2)', 'answer', 'answer')) FROM generate_series(1, 50)");
	}
	return;
}

sub stat_of
{
	my ($pool, $column) = @_;
	return $control->value("SELECT $column FROM dbpool_stat_pools WHERE pool = '$pool'");
}

sub hold { $holder{$_}->value('SELECT pg_advisory_lock(1)') foreach @_; return }
sub release { $holder{$_}->value('SELECT pg_advisory_unlock_all()') foreach @_; return }

my $waiting = q{FROM pg_stat_activity WHERE application_name = 'dbpool' AND wait_event = 'advisory'};

# So many calls wait for the lock there.
sub wait_there
{
	my ($host, $n) = @_;
	return $watch{$host}->poll("SELECT count(*) = $n $waiting");
}

sub all_idle
{
	my ($pool) = @_;
	return $control->poll("SELECT count(*) > 0 AND bool_and(state = 'idle') FROM dbpool_connections WHERE pool = '$pool'");
}

my @idle = map { session($local) } 1 .. 6;

# A call, in a session of its own, which is to be given back.
sub call
{
	my ($pool, $at_slow, $at_fast, $before) = @_;
	my $session = pop @idle;

	$session->value($_) foreach @{ $before // [] };
	return $session->send("SELECT dbpool_value(NULL::text, '$pool', 'SELECT behave(\$1, \$2)', '$at_slow', '$at_fast')");
}

sub ended
{
	my ($session, $name) = @_;
	my $answer = $session->ends($name);

	push @idle, $session;
	return $answer;
}

make_pool('pairs', 4, hedge => '95%');

# A pair: the locks are held where it waits, and both are there.
my $won;

sub pair
{
	my ($at_slow, $at_fast) = @_;

	train('pairs', 2);
	my $before = stat_of('pairs', 'hedged');
	$won = stat_of('pairs', 'hedge_wins');
	hold('slow', 'fast');
	my $session = call('pairs', $at_slow, $at_fast);
	$control->poll("SELECT hedged > $before FROM dbpool_stat_pools WHERE pool = 'pairs'");
	# else it may have ended
	wait_there('slow', 1) if $at_fast ne 'answer';
	wait_there('fast', 1) if $at_fast eq 'wait';
	return $session;
}

# Neither host has anything of it any more, though what it waits for has not come there.
sub is_over
{
	my ($name, @hosts) = @_;

	ok(wait_there($_, 0), "$name: nothing of it runs at the $_ host") foreach @hosts;
	release('slow', 'fast');
	ok(all_idle('pairs'), "$name: all connections serve again");
	return;
}

subtest 'the copy answers first' => sub {
	my $answer = ended(pair('wait', 'answer'), 'the call ends');

	is($answer->{out} . $answer->{err}, 'fast', 'by the answer of the other host');
	is(stat_of('pairs', 'hedge_wins'), $won + 1, 'it is counted');
	like($control->value('SELECT dbpool_metrics()'), qr/^dbpool_pool_hedge_wins_total\{[^}]*pool="pairs"[^}]*\} @{[ $won + 1 ]}$/m, 'also for Prometheus');
	is_over('the first', 'slow');
};

subtest 'the first answers after all' => sub {
	my $session = pair('wait', 'wait');
	my $slow = $watch{slow}->value("SELECT pid $waiting");

	is($control->value("SELECT remote_pid FROM dbpool_requests WHERE pool = 'pairs' AND state = 'running'"), $slow,
		'it runs at the first host meanwhile, for those who look');
	release('slow');
	my $answer = ended($session, 'the call ends');
	is($answer->{out} . $answer->{err}, 'slow', 'by that answer');
	is(stat_of('pairs', 'hedge_wins'), $won, 'the copy has not won');
	is_over('the copy', 'fast');
};

subtest 'one of them fails' => sub {
	my $session = pair('wait', 'fail');

	# it has failed by now
	$control->poll("SELECT count(*) = 1 FROM dbpool_connections WHERE pool = 'pairs' AND state <> 'idle'");
	ok(!$session->is_done, 'the error of the copy is not told');
	release('slow');
	my $answer = ended($session, 'the call ends');
	is($answer->{out} . $answer->{err}, 'slow', 'by the answer of the first');
	is_over('the copy', 'fast');

	$session = pair('wait fail', 'wait');
	release('slow');
	like(ended($session, 'the call fails')->{err}, qr/failed at slow/, 'the error of the first is told');
	is_over('the copy', 'fast');
};

subtest 'a connection is lost' => sub {
	my $retries = stat_of('pairs', 'retries');
	my $session = pair('wait', 'wait');

	$watch{slow}->value("SELECT pg_terminate_backend(pid) $waiting");
	wait_there('slow', 0);
	is($control->poll("SELECT r.remote_pid = " . $watch{fast}->value("SELECT pid $waiting")
			  . " FROM dbpool_requests r WHERE pool = 'pairs' AND state = 'running'"), 1, 'the copy is the call now');
	release('fast');
	my $answer = ended($session, 'the call ends, the first one lost');
	is($answer->{out} . $answer->{err}, 'fast', 'by the answer of the copy');
	is(stat_of('pairs', 'retries'), $retries, 'it was not tried again');
	is_over('the first', 'slow');

	$session = pair('wait', 'wait');
	$watch{fast}->value("SELECT pg_terminate_backend(pid) $waiting");
	wait_there('fast', 0);
	release('slow');
	$answer = ended($session, 'the call ends, the copy lost');
	is($answer->{out} . $answer->{err}, 'slow', 'by the answer of the first');
	is_over('the copy', 'fast');

	$session = pair('wait', 'wait');
	$watch{$_}->value("SELECT pg_terminate_backend(pid) $waiting") foreach 'slow', 'fast';
	release('slow', 'fast');
	$answer = ended($session, 'the call ends, both lost');
	like($answer->{out} . $answer->{err}, qr/^(slow|fast)$/, 'by being tried again');
	is_over('both', 'slow', 'fast');
};

subtest 'the session gives up' => sub {
	my $session = pair('wait', 'wait');

	$control->value('SELECT pg_cancel_backend(' . $session->pid . ')');
	is(ended($session, 'the call ends')->{state}, '57014', 'as cancelled');
	is_over('both', 'slow', 'fast');

	my $gone = session($local);
	splice @idle, -1, 1, $gone;
	$session = pair('wait', 'wait');
	is($session, $gone, 'another session waits');
	$control->value('SELECT pg_terminate_backend(' . $session->pid . ')');
	is_over('it is terminated: both', 'slow', 'fast');
	push @idle, session($local);
};

subtest 'a pause' => sub {
	my $session = pair('wait', 'wait');
	my $pause = session($local);

	$pause->send("SELECT dbpool_pause('pairs')");
	release('slow');
	is(ended($session, 'the call ends')->{out}, 'slow', 'by the answer of the first');
	is($pause->ends('the pause is reached')->{err}, '', 'with the copy out of the way');
	is($watch{fast}->value("SELECT count(*) $waiting"), 0, 'nothing runs then');
	$control->value("SELECT dbpool_resume('pairs')");
	$pause->quit;
	is_over('the copy', 'fast');
};

# What has come later is hedged meanwhile, so it would have been its turn.
subtest 'what is not sent twice' => sub {
	my %before = (
		'one that has spoken' => [ 'notice wait', [] ],
		'one in a transaction' => [ 'wait', [ "SET dbpool.transaction = 'bound'", 'BEGIN', "SELECT dbpool_exec('pairs', 'SELECT 1')" ] ]);

	foreach my $what (sort keys %before)
	{
		my $session;

		# the notice may come too late, if the machine is busy
		for (;;)
		{
			train('pairs', 4);
			hold('slow');
			$session = call('pairs', $before{$what}->[0], 'answer', $before{$what}->[1]);
			wait_until('it waits, and has spoken',
				sub { return $session->is_done || ($before{$what}->[0] !~ /notice/ || $session->{err} =~ /it begins/) && $watch{slow}->value("SELECT count(*) $waiting") });
			last unless $session->is_done;
			ended($session, "$what: had a copy before");
			release('slow');
		}
		my $hedged = stat_of('pairs', 'hedged');
		is(ended(call('pairs', 'wait', 'answer'), "$what: a later one ends")->{out}, 'fast', "$what: that has a copy");
		is(stat_of('pairs', 'hedged'), $hedged + 1, "$what: it has none");
		release('slow');
		my $answer = ended($session, "$what: it ends");
		is($answer->{out}, 'slow', "$what: by the only answer");
		$session->value('ROLLBACK; RESET dbpool.transaction');
		is_over($what, 'slow');
	}
};

subtest 'how many there are' => sub {
	make_pool('few', 8, hedge => '95%');
	train('few', 2);
	my $used = stat_of('few', 'hedged');

	# but for the first two, each statement has earned a fiftieth
	my $most = int(stat_of('few', 'statements') / 50);
	hold('slow');
	my @sessions = map { call('few', 'wait', 'answer') } 1 .. 6;

	ok($control->poll("SELECT hedged = $most FROM dbpool_stat_pools WHERE pool = 'few'"), 'as many copies as have been earned');
	ok(wait_until('some end', sub { return $most - $used == grep { $_->is_done } @sessions }), 'so many calls end');
	is(stat_of('few', 'hedged'), $most, 'there are no more');
	release('slow');
	ended($_, 'a call ends') foreach @sessions;
	is($control->value('SELECT count(*) FROM dbpool_stat_pools WHERE hedged * 50 > statements + errors + cancels'), 0,
		'2 % more, at most');
};

subtest 'answers are whole' => sub {
	make_pool('whole', 8, hedge => '90%', load_balance => 'random');
	note "HEDGE_SEED=$seed";
	$control->value(q{CREATE PROCEDURE whole(seed float8) LANGUAGE plpgsql AS $$
		DECLARE
			n int;
			got record;
		BEGIN
			PERFORM setseed(seed);
			FOR i IN 1 .. 400 LOOP
				n := 1 + floor(1500 * random() ^ 4);
				SELECT count(*) AS rows, count(DISTINCT host) AS hosts, sum(k) AS sum INTO got
				FROM dbpool_query('whole', 'SELECT h, k, repeat(''x'', k % 100) FROM by_chance(0.03) h, generate_series(1, $1::int) k', n::text)
					AS t(host text, k int, x text);
				IF got.rows <> n OR got.hosts <> 1 OR got.sum <> n::bigint * (n + 1) / 2 THEN
					RAISE EXCEPTION 'call % for % rows got %', i, n, got;
				END IF;
				COMMIT;
			END LOOP;
		END $$});
	my @sessions = map { session($local) } 1 .. 4;
	$sessions[$_]->send('CALL whole(' . ($seed + $_) / 1e10 . ')') foreach 0 .. $#sessions;
	is($_->ends('all is called')->{err}, '', 'each answer is of one host, and whole') foreach @sessions;
	$_->quit foreach @sessions;
	cmp_ok(stat_of('whole', 'hedge_wins'), '>', 0, 'copies among them');
	ok(all_idle('whole'), 'all connections serve again');
};

# W13: of both hosts, the one that is given the calls takes half a second for one in 60; so
# 1.7 % of all calls do.
subtest 'what it is good for' => sub {
	my %p99;

	$control->value($_) foreach (
		'CREATE UNLOGGED TABLE calls (pool text, ms float8)',
		q{CREATE PROCEDURE work(pool text, calls int) LANGUAGE plpgsql AS $$
		DECLARE
			began timestamptz;
		BEGIN
			FOR i IN 1 .. calls LOOP
				began := clock_timestamp();
				PERFORM dbpool_value(NULL::text, pool, 'SELECT answer($1::int)', i::text);
				INSERT INTO calls VALUES (pool, extract(epoch FROM clock_timestamp() - began) * 1000);
				COMMIT;
			END LOOP;
		END $$});
	make_pool('plain', 2 * $clients);
	make_pool('hedged', 2 * $clients, hedge => '95%');
	foreach my $pool ('plain', 'hedged')
	{
		my @sessions = map { session($local) } 1 .. $clients;

		$_->send("CALL work('$pool', $calls)") foreach @sessions;
		is($_->ends('all is called')->{err}, '', "$pool: a client ends well") foreach @sessions;
		$_->quit foreach @sessions;
		my ($n, @at) = split /\|/, $control->value(
			'SELECT count(*), ' . join(', ', map { "round(percentile_cont($_) WITHIN GROUP (ORDER BY ms)::numeric, 2)" } 0.5, 0.9, 0.99, 0.995, 0.999)
			  . " FROM calls WHERE pool = '$pool'");
		$p99{$pool} = $at[2];
		push @figures, sprintf '%s: %d calls, p50 %s ms, p90 %s, p99 %s, p99.5 %s, p99.9 %s; %d copies, %d have won', $pool, $n, @at,
		  stat_of($pool, 'hedged'), stat_of($pool, 'hedge_wins');
		cmp_ok(stat_of($pool, 'hedged') * 50, '<=', stat_of($pool, 'statements'), "$pool: at most 2 % more statements");
	}
	cmp_ok($p99{hedged} * 5, '<', $p99{plain}, 'p99 falls by 5 times at least');
};

note $_ foreach @figures;
done_testing();
