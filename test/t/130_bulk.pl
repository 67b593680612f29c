
# dbpool_bulk_insert: all or nothing whatever breaks, and whenever; memory that
# stays where it is; a remote that is slow holds up nobody else.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# "At once", in seconds, on a machine that has other things to do.
my $at_once = 2;

# What a process's memory may grow by, in kB.
my $room = 16 * 1024;

my $tls = system('openssl version >/dev/null 2>&1') == 0;
my $remote = make_remote(
	conf => 'restart_after_crash = on'
	  . ($tls ? "\nlisten_addresses = '127.0.0.1'" : ''));
my $local = make_local(conf => "restart_after_crash = on\n");

create_pool($local, 'p', $remote, max_size => 2, validate_after => '-1');
$remote->safe_psql(
	'postgres', q{
	CREATE TABLE t (i bigint CHECK (i <> 20000), x text);
	CREATE TABLE gate ();
	CREATE TABLE late (i bigint, x text);
	CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM 1 FROM gate; RETURN NULL; END $$;
	CREATE TRIGGER late AFTER INSERT ON late
	FOR EACH STATEMENT EXECUTE FUNCTION wait_at_gate();});

my $control = session($local);
my $there = session($remote);
my $victim;
my $pid;

# A bulk insert of so many rows, from $first on. They go in binary when they are
# of the column's type.
sub bulk
{
	my ($table, $n, $first, $type) = @_;
	$first = 100000 unless defined $first;
	$type = 'bigint' unless defined $type;
	return
	  "SELECT dbpool_bulk_insert('p', '$table', 'SELECT ($first + generate_series(1, $n))::$type, repeat(''x'', 100)')";
}

# Start one that will not end by itself, and see it copying.
sub start_endless
{
	my ($type) = @_;

	$victim = session($local,
		options => '-c client_connection_check_interval=100ms');
	$victim->send(bulk('t', '10000000000', 100000, $type));
	is_copying(10000);
	return;
}

# Wait until it has sent more rows.
sub is_copying
{
	my ($more) = @_;
	my $count =
	  "SELECT coalesce(sum(tuples_processed), 0) FROM dbpool_progress_bulk_insert WHERE phase = 'copying'";
	my $before = $control->value($count);

	$control->poll("SELECT ($count) > $before + $more");
	return;
}

# Start one that has sent all, and whose end the remote holds up.
sub start_late
{
	$there->value('BEGIN; LOCK TABLE gate');
	$victim = session($local,
		options => '-c client_connection_check_interval=100ms');
	$victim->send(bulk('late', 1000));
	$control->poll(
		"SELECT count(*) FROM dbpool_progress_bulk_insert WHERE phase = 'finishing'",
		'1');
	waits_at_gate(1);
	return;
}

# Wait until so many wait at the gate.
sub waits_at_gate
{
	my ($n) = @_;

	$there->poll(
		"SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted",
		$n);
	return;
}

sub remote_pid
{
	return $control->value(
		"SELECT remote_pid FROM dbpool_requests WHERE query LIKE 'COPY%'");
}

# The remote has nothing of a table, and the pool works.
sub check_nothing
{
	my ($table) = @_;

	$remote->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'"
	) or die 'the remote still copies';
	is($remote->safe_psql('postgres', "SELECT count(*) FROM $table"),
		'0', 'the remote has no row');
	is( $control->value(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'the next call works');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	ok( $control->poll(
			'SELECT busy, cancelling, resetting FROM dbpool_pools', '0|0|0'),
		'the pool is at rest');
	return;
}

$control->value("SELECT dbpool_ping('p')");

# --- the session gives up ------------------------------------------------------

my %causes = (
	cancelled => sub {
		$control->value('SELECT pg_cancel_backend(' . $victim->pid . ')');
		return '57014';
	},
	terminated => sub {
		$control->value('SELECT pg_terminate_backend(' . $victim->pid . ')');
		return '57P01';
	},
	disconnected => sub {
		$victim->kill;
		return '';
	});

foreach my $cause (sort keys %causes)
{
	foreach my $phase ('copying', 'stopped', 'finishing')
	{
		subtest "$cause while $phase" => sub {
			my $stopped;


			# in text, of which any part might pass for the whole
			$phase eq 'finishing' ? start_late() : start_endless('numeric');
			if ($phase eq 'stopped')
			{
				# the remote takes no more: the session sleeps
				$stopped = remote_pid();
				suspend($stopped);
				wait_until(
					'the session waits',
					sub {
						$control->value(
							'SELECT wait_event_type FROM pg_stat_activity WHERE pid = '
							  . $victim->pid) eq 'Extension';
					});
			}
			my $started = time;
			my $state = $causes{$cause}->();
			is($victim->wait->{state}, $state, 'the session is told so')
			  if $state ne '';
			$control->poll(
				'SELECT count(*) FROM dbpool_requests WHERE pid = '
				  . $victim->pid,
				'0');
			cmp_ok(time - $started, '<', $at_once, 'at once');
			resume($stopped) if $stopped;
			if ($phase eq 'finishing')
			{
				# the cancel is on its way beside the session
				waits_at_gate(0);
				$there->value('ROLLBACK');
			}
			check_nothing($phase eq 'finishing' ? 'late' : 't');
		};
	}
}

# --- the connection breaks -------------------------------------------------------

# The error says whether rows may be there.
sub check_lost
{
	my ($state, $detail) = @_;
	my $answer = $victim->wait;

	is($answer->{state}, $state, "the session gets an error $state");
	like($answer->{err}, qr/DETAIL: .*$detail/s, 'which tells the truth');
	return $answer;
}

subtest 'the remote is terminated while copying' => sub {
	start_endless();
	$there->value('SELECT pg_terminate_backend(' . remote_pid() . ')');
	my $answer = check_lost('08006', 'No row was inserted');
	like(
		$answer->{err},
		qr/The remote server said: FATAL: .* \(SQLSTATE 57P01\)/,
		'and what the remote said');
	check_nothing('t');
};

subtest 'the remote is terminated after the last row' => sub {
	start_late();
	$there->value('SELECT pg_terminate_backend(' . remote_pid() . ')');
	check_lost('08007', 'may or may not have run');
	$there->value('ROLLBACK');
	check_nothing('late');
};

foreach my $signal ('terminated', 'terminated after the last row')
{
	subtest "the worker is $signal" => sub {
		my $late = $signal =~ /after/;

		$late ? start_late() : start_endless('numeric');
		my $worker = worker_pid($control);
		$control->value("SELECT pg_terminate_backend($worker)");
		check_lost($late ? '08007' : '08006',
			$late ? 'may or may not have run' : 'No row was inserted');
		$there->value('ROLLBACK') if $late;
		wait_until('it is another one',
			sub { worker_pid($control) != $worker });

		# the remote hears of it when it wants to read, or to write
		if ($late)
		{
			$remote->poll_query_until('postgres',
				"SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'COPY%'"
			) or die 'the remote still copies';
			$there->value('TRUNCATE late');
		}
		check_nothing($late ? 'late' : 't');
	};
}

subtest 'the remote is killed while copying' => sub {
	start_endless('numeric');
	kill 'KILL', remote_pid();
	check_lost('08006', 'No row was inserted');
	$remote->poll_query_until('postgres', 'SELECT true')
	  or die 'the remote does not come back';
	$there->kill;
	$there = session($remote);
	check_nothing('t');
};

# --- errors come early --------------------------------------------------------------

subtest 'an error of the remote ends it early' => sub {
	foreach my $pool ('p', $tls ? 'tls' : ())
	{
		if ($pool eq 'tls')
		{
			my $dir = PostgreSQL::Test::Utils::tempdir;

			system_or_bail(
				'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes',
				'-days', '2', '-subj', '/CN=localhost', '-keyout',
				"$dir/server.key", '-out', "$dir/server.crt");
			chmod 0600, "$dir/server.key";
			$remote->append_conf('postgresql.conf',
				"ssl = on\nssl_cert_file = '$dir/server.crt'\nssl_key_file = '$dir/server.key'\n"
			);
			$remote->append_conf('pg_hba.conf',
				"hostssl all all 127.0.0.1/32 trust\n");
			$remote->reload;
			create_pool(
				$local, 'tls', $remote,
				host => '127.0.0.1',
				sslmode => 'require');
			is( $remote->poll_query_until('postgres', 'SHOW ssl', 'on')
				? 'on'
				: 'off',
				'on',
				'the remote has TLS');
		}
		$victim = session($local);
		(my $sql = bulk('t', '10000000000', 0)) =~ s/'p'/'$pool'/;

		# it may happen that an error is seen only when the rows end; hardly
		# ever, and never twice
		foreach my $try (1, 2)
		{
			$victim->value("SET statement_timeout = '20s'");
			my $answer = $victim->query($sql);
			next if $answer->{state} eq '57014' && $try == 1;
			is($answer->{state}, '23514', "pool $pool: the error comes");
			like($answer->{err}, qr/COPY t, line 20000/,
				"pool $pool: with its place");
			note("pool $pool: after $answer->{seconds} s");
			last;
		}
		is( $control->value(
				"SELECT bool_and(tls) FROM dbpool_connections WHERE pool = '$pool'"
			),
			$pool eq 'tls' ? 't' : 'f',
			"pool $pool: as it was meant to be connected");
		check_nothing('t') if $pool eq 'p';
	}
	$victim->quit;
	if ($tls)
	{
		is( $control->value(
				bulk('t', 300000) =~ s/'p'/'tls'/r),
			'300000',
			'over TLS all rows arrive');
		$there->value('TRUNCATE t');
		$control->value("SELECT dbpool_drop_pool('tls')");
	}
};

subtest 'types that change in between' => sub {
	# the types are looked at, then the table is locked
	$there->value('CREATE TABLE typed (a int)');
	$there->value('BEGIN; ALTER TABLE typed ALTER a TYPE real');
	$victim = session($local);
	$victim->send(
		q{SELECT dbpool_bulk_insert('p', 'typed', 'SELECT generate_series(1, 10)')}
	);
	$there->poll(
		"SELECT count(*) FROM pg_locks WHERE relation = 'typed'::regclass AND NOT granted",
		'1');
	$there->value('COMMIT');
	my $answer = $victim->wait;
	like(
		$answer->{err},
		qr/the columns of the table have just changed/,
		'it is an error');
	check_nothing('typed');
	$victim->value(
		q{SELECT dbpool_bulk_insert('p', 'typed', 'SELECT generate_series(1, 10)')}
	);
	is($there->value('SELECT count(*), sum(a) FROM typed'),
		'10|55', 'another call finds them');
	$there->value('DROP TABLE typed');
	$victim->quit;
};

# --- memory, and others ---------------------------------------------------------------

subtest 'a remote that is slow' => sub {
	my $worker = worker_pid($control);

	$control->value(bulk('t', 10000));
	$there->value('TRUNCATE t');
	my $worker_before = rss_kb($worker);
	start_endless();
	my $before = rss_kb($victim->pid);
	my $stopped = remote_pid();
	suspend($stopped);
	wait_until(
		'the session waits',
		sub {
			$control->value(
				'SELECT wait_event_type FROM pg_stat_activity WHERE pid = '
				  . $victim->pid) eq 'Extension';
		});
	my $turns = $control->value('SELECT wakeups FROM dbpool_workers');
	$control->value('SELECT pg_sleep(1)');
	cmp_ok($control->value('SELECT wakeups FROM dbpool_workers') - $turns,
		'<', 50, 'the worker sleeps while it cannot do anything');
	my $rows = $control->value(
		'SELECT tuples_processed FROM dbpool_progress_bulk_insert');
	$control->value('SELECT pg_sleep(0.5)');
	is( $control->value(
			'SELECT tuples_processed FROM dbpool_progress_bulk_insert'),
		$rows,
		'the session stands still');

	my ($longest, $n) = (0, 0);
	my $end = time + 1;
	while (time < $end)
	{
		my $answer = $control->query(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)");
		die $answer->{err} if $answer->{out} ne '42';
		$longest = $answer->{seconds} if $answer->{seconds} > $longest;
		$n++;
	}
	cmp_ok($longest, '<', 1, 'others are not held up');
	cmp_ok($n, '>', 20, 'and get on');

	resume($stopped);
	is_copying(300000);
	cmp_ok(rss_kb($worker) - $worker_before,
		'<', $room, 'the worker does not grow');
	cmp_ok(rss_kb($victim->pid) - $before,
		'<', $room, 'nor does the session');

	# while it copies as fast as it can, others have their turn
	($longest, $n, $end) = (0, 0, time + 1);
	while (time < $end)
	{
		my $answer = $control->query(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)");
		die $answer->{err} if $answer->{out} ne '42';
		$longest = $answer->{seconds} if $answer->{seconds} > $longest;
		$n++;
	}
	note("$n statements of others, the longest took $longest s");
	cmp_ok($longest, '<', 1, 'a bulk insert leaves others their turn');
	$control->value('SELECT pg_cancel_backend(' . $victim->pid . ')');
	is($victim->wait->{state}, '57014', 'it is cancelled');
	check_nothing('t');
};

subtest 'large values' => sub {
	my $worker = worker_pid($control);
	my $before = rss_kb($worker);
	my $most = 0;

	$victim = session($local);
	$victim->send(
		"SELECT dbpool_bulk_insert('p', 't', 'SELECT i, repeat(''x'', 50000000) FROM generate_series(1, 5) i')"
	);
	until ($victim->is_done)
	{
		my $now = rss_kb($worker);
		$most = $now if $now > $most;
		sleep 0.005;
	}
	is($victim->wait->{out}, '5', 'five rows of 50 MB');
	cmp_ok($most - $before, '<', $room, 'the worker holds none of them');
	is( $there->value(
			"SELECT count(*) FROM t WHERE x = repeat('x', 50000000)"),
		'5',
		'all there');
	is( $control->value(
			'SELECT count(*) FROM dbpool_connections WHERE remote_pid > 0'),
		'2',
		'and need not close the connection');
	$there->value('TRUNCATE t');
	$victim->quit;
};

subtest 'two million rows' => sub {
	my @sessions = map { session($local) } 1 .. 2;

	$_->send(bulk('t', 1000000)) foreach @sessions;
	is($_->wait->{out}, '1000000', 'all rows are counted') foreach @sessions;
	is( $there->value(
			"SELECT count(*), sum(i), min(length(x)), max(length(x)) FROM t"),
		'2000000|1200001000000|100|100',
		'and all arrived');
	$_->quit foreach @sessions;
};

$_->quit foreach ($control, $there);
done_testing();
