
# dbpool_batch and dbpool_exec_batch: in one transaction all or nothing whatever breaks,
# and whenever; of independent statements, each row tells the truth; memory that stays
# where it is; a remote that is slow holds up nobody else.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# "At once", in seconds, on a machine that has other things to do.
my $at_once = 2;

# What a process's memory may grow by, in kB.
my $room = 16 * 1024;

my $remote = make_remote(conf => 'restart_after_crash = on');
my $local = make_local(conf =>
	  "restart_after_crash = on\ndbpool.role_max_request_memory = 4MB\n");

create_pool($local, 'p', $remote, max_size => 3, validate_after => '-1');
$remote->safe_psql(
	'postgres', q{
	CREATE TABLE t (i bigint, x text);
	CREATE TABLE gate ();
	CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM 1 FROM gate; RETURN NULL; END $$;
	CREATE TABLE late (i bigint);
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION wait_at_gate();});

my $control = session($local);
my $there = session($remote);
my $victim;

# Ways to be under way, with what the remote has of it in the end.
my $rows = 3000000;
my %phases = (
	'a statement runs' => [
		't',
		q{SELECT count(*) FROM dbpool_batch('p', ARRAY['INSERT INTO t VALUES (1)', 'SELECT 1 FROM gate', 'INSERT INTO t VALUES (2)'])}
	],
	'rows are sent' => [
		't',
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 50) FROM generate_series(1, $rows) i')"
	],
	'the remote is stopped' => [
		't',
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 50) FROM generate_series(1, $rows) i')"
	],
	'it commits' => [
		'late',
		q{SELECT count(*) FROM dbpool_batch('p', ARRAY['INSERT INTO late VALUES (1)', 'INSERT INTO late VALUES (2)'])}
	],
	'independent statements run' => [
		't',
		q{SELECT status, sqlstate FROM dbpool_batch('p', ARRAY(SELECT CASE i WHEN 3 THEN 'SELECT 1 FROM gate' ELSE format('INSERT INTO t VALUES (%s)', i) END FROM generate_series(1, 2000) i), mode => 'independent') ORDER BY number}
	]);

my $done = q{
	SELECT coalesce(max(substring(query FROM 'batch, (\d+) of')::int), 0) FROM dbpool_requests WHERE state = 'running'};

sub remote_pid
{
	return $control->value(
		"SELECT remote_pid FROM dbpool_requests WHERE query LIKE 'batch%'");
}

# Start a batch and see it in that phase. Returns what is to be resumed.
sub start
{
	my ($phase) = @_;
	my $stopped;

	$there->value('TRUNCATE t');
	$there->value('TRUNCATE late');
	$there->value('BEGIN; LOCK TABLE gate');
	$victim =
	  session($local, options => '-c client_connection_check_interval=100ms');
	$victim->send($phases{$phase}[1]);
	if ($phase =~ /^(rows|the remote)/)
	{
		$control->poll("SELECT ($done) > 1000");
	}
	else
	{
		$there->poll(
			"SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted",
			'1');
	}
	if ($phase eq 'the remote is stopped')
	{
		$stopped = remote_pid();
		suspend($stopped);
		is_stuck();
	}
	return $stopped;
}

# The session waits, and goes on waiting.
sub is_stuck
{
	wait_until(
		'the session stands still',
		sub {
			my $before = $control->value($done);
			$control->value('SELECT pg_sleep(0.2)');
			$control->value($done) eq $before;
		});
	return;
}

# The pool works, and nothing is left of the batch.
sub check_rest
{
	$there->value('ROLLBACK');
	$remote->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
	) or die 'the remote still works';
	is( $control->value(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'the next call works');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	ok( $control->poll(
			"SELECT busy, cancelling, resetting FROM dbpool_pools WHERE pool = 'p'", '0|0|0'),
		'the pool is at rest');
	return;
}

sub check_nothing
{
	my ($table) = @_;

	check_rest();
	is($there->value("SELECT count(*) FROM $table"),
		'0', 'the remote has nothing');
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

foreach my $phase (sort keys %phases)
{
	# one cause would do for most
	foreach my $cause ($phase eq 'rows are sent' ? sort keys %causes
		: 'cancelled')
	{
		subtest "$cause while $phase" => sub {
			my $stopped = start($phase);
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

			# the cancel is on its way beside the session
			$there->poll(
				"SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted",
				'0');
			return check_nothing($phases{$phase}[0])
			  if $phase !~ /^independent/;

			# what has been sent may run, what has not may not
			check_rest();
			my $count = $there->value('SELECT count(*) FROM t');
			cmp_ok($count, '>=', 2, 'those before have run');
			cmp_ok($count, '<=', 300, 'most of the others have not');
		};
	}
}

# --- the connection breaks -------------------------------------------------------

# What the error says of the outcome.
my %lost = (
	'a statement runs' => [ '08006', 'Nothing of the batch stays' ],
	'rows are sent' => [ '08006', 'Nothing of the batch stays' ],
	'the remote is stopped' => [ '08006', 'Nothing of the batch stays' ],
	'it commits' => [ '08007', 'may or may not have run' ]);

foreach my $phase (sort keys %lost)
{
	# without a remote that reads, small batches are sent as a whole
	my ($state, $detail) =
	  $phase eq 'a statement runs'
	  ? @{ $lost{'it commits'} }
	  : @{ $lost{$phase} };

	subtest "the remote is killed while $phase" => sub {
		my $stopped = start($phase);

		kill 'KILL', $stopped || remote_pid();
		my $answer = $victim->wait;
		is($answer->{state}, $state, 'the session gets an error');
		like($answer->{err}, qr/DETAIL: .*$detail/s, 'which tells the truth');
		unlike($answer->{err}, qr/(statement|row) \d+ of the batch/,
			'and blames no statement');
		# its server may not have noticed yet
		wait_until('all its sessions end', sub { $there->query('SELECT 1')->{lost} });
		$remote->poll_query_until('postgres', 'SELECT true')
		  or die 'the remote does not come back';
		$there->kill;
		$there = session($remote);
		check_nothing($phases{$phase}[0]);
	};

	subtest "the worker is terminated while $phase" => sub {
		my $stopped = start($phase);
		my $worker = worker_pid($control);

		$control->value("SELECT pg_terminate_backend($worker)");
		my $answer = $victim->wait;
		is($answer->{state}, $state, 'the session gets an error');
		like($answer->{err}, qr/DETAIL: .*$detail/s, 'which tells the truth')
		  if $state eq '08006';
		resume($stopped) if $stopped;
		wait_until('it is another one',
			sub { worker_pid($control) != $worker });
		check_rest() if $state ne '08006';
		check_nothing($phases{$phase}[0]) if $state eq '08006';
	};
}

# How many of the rows have that status.
sub count_of
{
	my ($answer, $pattern) = @_;

	return scalar grep { /^$pattern$/ } split /\n/, $answer->{out};
}

# A way to the remote that cuts it off without a word.
my $proxy = FaultProxy->start($remote);
create_pool($local, 'cut', undef, $proxy->options(max_size => 2, acquire_timeout => '10s'));

foreach my $who ('remote', 'link', 'worker')
{
	subtest "independent statements: the $who is lost" => sub {
		my $pool = $who eq 'link' ? 'cut' : 'p';
		local $phases{'independent statements run'}[1] =
		  $phases{'independent statements run'}[1] =~ s/'p'/'$pool'/r;

		start('independent statements run');
		if ($who eq 'remote')
		{
			$there->value(
				'SELECT pg_terminate_backend(' . remote_pid() . ')');
		}
		elsif ($who eq 'link')
		{
			$proxy->tell('now reset');
			$there->value('ROLLBACK');
		}
		else
		{
			$control->value(
				'SELECT pg_terminate_backend(' . worker_pid($control) . ')');
		}
		my $answer = $victim->wait;
		is($answer->{state}, '', 'that is no error');
		my $ok = count_of($answer, 'ok\|');
		my $unknown = count_of($answer, 'unknown\|08007');
		my $not = count_of($answer, 'not run\|08006');
		is($ok + $unknown + $not, '2000', 'each has its row');
		is($ok, '2', 'two have run') if $who eq 'worker';
		is($not, '0', 'all others are run by another connection') if $who ne 'worker';
		# it says itself that it ends
		is($unknown, '1', 'of the one that was running nobody knows') if $who eq 'remote';
		cmp_ok($unknown, '>=', 1, 'of those that were sent nobody knows');
		cmp_ok($unknown, '<=', 256, 'these are some');
		check_rest();
		my $count = $there->value('SELECT count(*) FROM t');
		cmp_ok($count, '>=', $ok, 'the remote has what is said to have run');
		cmp_ok($count, '<=', $ok + $unknown, 'and not what is said to have not');
		is($there->value('SELECT max(n) FROM (SELECT count(*) AS n FROM t GROUP BY i) AS c'),
			'1', 'and nothing twice');
	};
}

subtest 'a connection that breaks time and again' => sub {
	my $kill = q{SELECT pg_terminate_backend(pg_backend_pid())};
	my $answer = $control->query(
		"SELECT status, sqlstate FROM dbpool_batch('p', ARRAY['SELECT 1', '$kill', '$kill', '$kill', '$kill', 'SELECT 2', 'SELECT 3'], mode => 'independent') ORDER BY number");

	is( $answer->{out},
		"ok|\n" . "unknown|08007\n" x 4 . "not run|08006\nnot run|08006",
		'is tried three times more, and no statement twice');
	is($control->query("SELECT number FROM dbpool_batch('p', ARRAY['SELECT 1', '$kill', 'SELECT 2'])")->{state},
		'08006', 'of one transaction nothing stays, if the remote ends before COMMIT');
	check_rest();
};

# The link is cut before or after messages of a batch, by lot.
subtest 'cut at any message' => sub {
	my $id = 0;
	my (%outcomes, @bad);

	srand $proxy->seed;
	$there->value('CREATE TABLE ledger (id int, i int)');
	foreach my $mode ('transaction', 'independent')
	{
		foreach my $from ('frontend', 'backend')
		{
			foreach my $round (1 .. 12)
			{
				my $rows = $mode eq 'transaction' ? 10 : 600;
				my $most = ($mode eq 'transaction' ? 4 : 5) * $rows;
				my $n = $round == 1 ? 1 : 1 + int rand $most;
				my $how = ('reset', 'fin')[ int rand 2 ];
				my $place = (('before', 'after')[ int rand 2 ]);
				my $text = $mode eq 'transaction' ? 'BEGIN' : 'INSERT INTO ledger';

				$id++;
				$control->value("SELECT dbpool_ping('cut')");
				$proxy->tell(qq{on after "$text" $from message any $n $place $how});
				my $answer = $control->query(
					"SELECT number, status, sqlstate FROM dbpool_batch('cut', ARRAY(SELECT format('INSERT INTO ledger VALUES ($id, %s)', i) FROM generate_series(1, $rows) i), mode => '$mode') ORDER BY number"
				);
				$proxy->tell('clear');
				$remote->poll_query_until('postgres',
					"SELECT count(*) = 0 FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND backend_type = 'client backend'");
				my %has = map { $_ => 1 } split /\n/, $there->value("SELECT i FROM ledger WHERE id = $id");
				my $has = $there->value("SELECT count(*) FROM ledger WHERE id = $id");
				my $where = "$mode, $place message $n of the $from by $how";

				push @bad, "$where: $has rows" if $has != keys %has;
				if ($mode eq 'transaction')
				{
					my $outcome = $answer->{state} || 'ok';

					$outcomes{"$mode $outcome"}++;
					push @bad, "$where: $outcome, and $has rows"
					  unless $outcome eq 'ok' ? $has == $rows
					  : $outcome eq '08006' ? $has == 0
					  : $outcome eq '08007' && ($has == 0 || $has == $rows);
					next;
				}
				my @lines = split /\n/, $answer->{out};

				push @bad, "$where: $answer->{err}" if @lines != $rows;
				foreach my $line (@lines)
				{
					my ($number, $status, $state) = split /\|/, $line;
					my $there = exists $has{$number};

					$outcomes{"$mode $status"}++;
					push @bad, "$where: statement $number is $status $state, and there: $there"
					  unless $status eq 'ok' ? $there
					  : $status eq 'unknown' && $state eq '08007';
				}
			}
		}
	}
	is(join("\n", @bad), '', 'what is told is what is there: '
		  . join ', ', map { "$_ $outcomes{$_}" } sort keys %outcomes);
};

# Remotes that answer otherwise than they are asked: what becomes of a transaction, and of
# independent statements.
subtest 'a remote that lies' => sub {
	my $begun = message('1', '') . message('2', '');
	my $one = $begun . message('n', '') . tag('INSERT 0 1');
	my $rows = $begun . rows_begin('a') . row('1') . tag('SELECT 1');
	my $fatal = message('E', "SFATAL\0VFATAL\0C57P01\0Mit ends\0Ffire.c\0L1\0Rburn\0\0");
	my $died = PostgreSQL::Test::Utils::tempdir() . '/died';
	my $unknown = qr/^(unknown\|08\w{3}\n?){3}$/;
	my $ok = qr/^(ok\|\n?){3}$/;
	my %deeds = (
		too_few => [ qr/^08007$/, $ok, sub { $one . ready() } ],
		none => [ qr/^08007$/, $unknown, sub { ready() } ],
		too_many => [ qr/^40000$/, $ok, sub { $one x 50 . ready() } ],
		more_syncs => [ qr/^08007$/, qr/^ok\|\nunknown\|08P01\nunknown\|08P01$/, sub { $one . ready() x 50 } ],
		rows_unwanted => [ qr/^08007$/, $unknown, sub { $rows x 3 . ready() } ],
		rows_for_ever => [ qr/^57014$/, qr/^(57014|(unknown\|08007\n?){3})$/, sub { $_[0]->put($one . rows_begin('a')); $_[0]->flood(row('x' x 20_000)) } ],
		results_for_ever => [ qr/^(40000|57014)$/, qr/^57014$/, sub { $_[0]->flood($one x 100) } ],
		no_end => [ qr/^08007$/, $unknown, sub { $begun . rows_begin('a') . row('1') . ready() } ],
		open => [ qr/^40000$/, $ok, sub { $one x 5 . message('Z', 'T') } ],
		rolled_back => [ qr/^(25000|40000)$/, $ok, sub { $begun . tag('BEGIN') . $one x 3 . $begun . tag('ROLLBACK') . message('Z', 'T') } ],
		errors => [ qr/^P0001$/, qr/^(failed\|P0001\n?){3}$/, sub { error('no') x 5 . $one . ready() } ],
		errors_for_ever => [ qr/^P0001$/, $unknown, sub { $_[0]->flood(error('x' x 20_000)) } ],
		notices_for_ever => [ qr/^57014$/, qr/^57014$/, sub { $_[0]->flood(notice('x' x 20_000)) } ],
		copy_in => [ qr/^08007$/, $unknown, sub { $begun . message('G', "\0\0\0") . ready() } ],
		copy_out => [ qr/^08007$/, $unknown, sub { $_[0]->put($begun . message('H', "\0\0\0")); $_[0]->flood(message('d', 'x' x 20_000)) } ],
		copy_both => [ qr/^08007$/, $unknown, sub { $begun . message('W', "\0\0\0") } ],
		closes => [ qr/^08007$/, $unknown, sub { ($one, 1) } ],
		# once, before BEGIN: nothing has run
		dies => [ $ok, $ok, sub {
			return $begun . tag('BEGIN') . $one x 3 . $begun . tag('COMMIT') . ready() if -e $died;
			append_to_file($died, '');
			return ($fatal, 1);
		} ],
		stalls => [ qr/^57014$/, qr/^57014$/, sub { $_[0]->put($one); $_[0]->get while 1 } ],
	);
	my $fake = FakeRemote->start(map { $_ => { statement => $deeds{$_}[2] } } keys %deeds);
	my $worker = worker_pid($control);
	my $before = rss_kb($worker);
	my $most = 0;

	foreach my $deed (sort keys %deeds)
	{
		create_pool($local, $deed, undef, $fake->options($deed, max_size => 4));
		foreach my $way (0 .. 3)
		{
			my ($mode, $results) = ($way % 2, $way > 1);
			my $lied_to = session($local, options => '-c statement_timeout=500ms -c client_min_messages=error');

			$lied_to->send(
				sprintf q{SELECT status, sqlstate FROM dbpool_batch('%s', ARRAY['INSERT 1', 'INSERT 2', 'INSERT 3'], mode => '%s', results => %s) ORDER BY number},
				$deed, ('transaction', 'independent')[$mode], $results ? 'true' : 'false');
			until ($lied_to->is_done)
			{
				my $now = rss_kb($worker);

				$most = $now if $now > $most;
				$control->value('SELECT pg_sleep(0.02)');
			}
			my $answer = $lied_to->wait;

			like($answer->{state} || $answer->{out}, $deeds{$deed}[$mode],
				"$deed: " . ('transaction', 'independent')[$mode] . ($results ? ', with results' : ''));
			$lied_to->quit;
		}
		$control->value("SET client_min_messages = error; DROP SERVER $deed CASCADE");
	}
	is(worker_pid($control), $worker, 'the worker lives');
	cmp_ok($most - $before, '<', 2 * $room, 'and does not grow');
	$fake->stop;
	check_rest();
};

# --- memory, and others ---------------------------------------------------------------

subtest 'a million rows, and a remote that stops' => sub {
	my $worker = worker_pid($control);
	my $stopped;

	# of what a process grows by once
	$control->value(
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 20000) i')"
	);
	$there->value('TRUNCATE t');
	$victim = session($local);
	$victim->value(
		"SELECT dbpool_exec_batch('p', 'SELECT \$1::text, \$2::text', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 20000) i')"
	);
	my $before = rss_kb($worker);
	my $session_before = rss_kb($victim->pid);
	$victim->send(
		"SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES (\$1, \$2)', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 1000000) i')"
	);
	$control->poll("SELECT ($done) > 1000");
	$stopped = remote_pid();
	suspend($stopped);
	is_stuck();
	my $turns = $control->value('SELECT wakeups FROM dbpool_workers');
	$control->value('SELECT pg_sleep(1)');
	cmp_ok($control->value('SELECT wakeups FROM dbpool_workers') - $turns,
		'<', 50, 'the worker sleeps while it cannot do anything');
	is( $control->value(
			"SELECT x FROM dbpool_query('p', 'SELECT 42') AS t(x int)"),
		'42',
		'others get on');
	cmp_ok(rss_kb($worker) - $before, '<', $room, 'the worker does not grow');
	resume($stopped);
	my ($most, $session_most) = (0, 0);
	until ($victim->is_done)
	{
		my ($now, $session_now) = (rss_kb($worker), rss_kb($victim->pid));

		$most = $now if $now > $most;
		$session_most = $session_now if $session_now > $session_most;
		$control->value('SELECT pg_sleep(0.05)');
	}
	is($victim->wait->{out}, '1000000', 'all rows are counted');
	cmp_ok($most - $before, '<', $room, 'the worker does not grow');
	cmp_ok($session_most - $session_before,
		'<', $room, 'nor does the session');
	is( $there->value(
			'SELECT count(*), count(DISTINCT i), min(length(x)) FROM t'),
		'1000000|1000000|100',
		'all rows are there');
	$there->value('TRUNCATE t');
	$victim->quit;
};

subtest 'results that nobody asked for are not kept' => sub {
	my $worker = worker_pid($control);
	my $before = rss_kb($worker);
	my $most = 0;

	foreach my $mode ('transaction', 'independent')
	{
		$victim = session($local);
		$victim->send(
			"SELECT sum(rows) FROM dbpool_batch('p', ARRAY(SELECT 'SELECT repeat(''x'', 10000) FROM generate_series(1, 5000)' FROM generate_series(1, 4)), mode => '$mode')"
		);
		until ($victim->is_done)
		{
			my $now = rss_kb($worker);

			$most = $now if $now > $most;
			$control->value('SELECT pg_sleep(0.01)');
		}
		is($victim->wait->{out}, '20000', "mode $mode: they are counted");
		$victim->quit;
	}
	cmp_ok($most - $before, '<', $room, 'the worker holds none of them');
};

subtest 'answers that the remote would keep to itself' => sub {
	# few, while the window is full of large statements; and large ones end a turn
	# while none is due
	is( $control->value(
			"SELECT sum((result->0->>'length')::int) FROM dbpool_batch('p', ARRAY(SELECT 'SELECT length(\$1)' FROM generate_series(1, 20)), ARRAY(SELECT jsonb_build_array(repeat('x', 1000000)) FROM generate_series(1, 20)), results => true)"
		),
		'20000000',
		'they come') foreach 1 .. 20;
};

subtest 'large statements count for their role' => sub {
	my $states =
	  "SELECT string_agg(state, ' ' ORDER BY state) FROM dbpool_requests";
	my @large = map { session($local) } 1 .. 2;

	$there->value('BEGIN; LOCK TABLE gate');
	$_->send(
		q{SELECT sum(rows) FROM dbpool_batch('p', ARRAY['SELECT length($1) FROM (SELECT count(*) FROM gate) g', 'SELECT 1'], ARRAY[jsonb_build_array(repeat('x', 3000000)), NULL])}
	) foreach @large;
	ok($control->poll($states, 'running submitted'),
		'one is taken, the other stays in its session');
	$there->value('ROLLBACK');
	is($_->wait->{out}, '2', 'both run') foreach @large;
	$_->quit foreach @large;
};

subtest 'more connections than the role may have requests' => sub {
	$control->value(q{
		CREATE ROLE limited LOGIN;
		ALTER ROLE limited SET dbpool.role_max_requests = 2;
		GRANT USAGE ON FOREIGN SERVER p TO limited;
		CREATE USER MAPPING FOR limited SERVER p OPTIONS (user 'limited', password_required 'false')});
	$there->value('CREATE ROLE limited LOGIN');
	my $limited = session($local, user => 'limited');
	my $batch =
	  q{SELECT count(*), sum(rows), min(status), max(status) FROM dbpool_batch('p', ARRAY(SELECT 'SELECT 1' FROM generate_series(1, 100)), mode => 'independent', parallel => 20)};

	is($limited->value($batch), '100|100|ok|ok', 'are not used');
	# as another session has all of them
	$there->value('BEGIN; LOCK TABLE gate');
	$there->value('GRANT SELECT ON gate TO limited');
	my @others = map { session($local, user => 'limited') } 1 .. 2;
	$_->send(q{SELECT count(*) FROM dbpool_query('p', 'SELECT count(*) FROM gate') AS t(n int)}) foreach @others;
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '2'), 'others have them all');
	is($limited->query($batch)->{state}, '53400', 'but one is needed');
	$there->value('ROLLBACK');
	$_->wait foreach @others;
	$_->quit foreach $limited, @others;
};

subtest 'a pool that points home' => sub {
	create_pool($local, 'home', $local);
	$control->value('CREATE TABLE h AS SELECT 1 AS i');
	foreach my $mode ('transaction', 'independent')
	{
		$victim = session($local);
		$victim->value('BEGIN; UPDATE h SET i = 2');
		my $answer = $victim->query(
			"SELECT status, sqlstate FROM dbpool_batch('home', ARRAY['SELECT 1', 'UPDATE h SET i = 3', 'SELECT 2'], mode => '$mode')"
		);
		if ($mode eq 'transaction')
		{
			is($answer->{state}, '40P01', 'a deadlock is found');
			like(
				$answer->{err},
				qr/statement 2 of the batch/,
				'of that statement');
		}
		else
		{
			is($answer->{out}, "ok|\nfailed|40P01\nok|",
				'and that of an independent one is a row, with others after it');
		}
		$victim->quit;
	}
	is($control->value('SELECT i FROM h'), '1', 'nothing stays');
};

$_->quit foreach ($control, $there);
$proxy->stop;
done_testing();
