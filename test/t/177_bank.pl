
# The bank: two remotes and the local server, transfers at random in all modes of
# transactions by many sessions, and somebody who kills: sessions, workers, the resolver,
# the servers, the links between them, at random and at each step of the protocol. After
# each round, ten seconds after the last server has come back, nothing is prepared any
# more, nobody has done anything about it by hand, and everything is there that may be:
# Bank.pm has the rules.
#
#   BANK_SECONDS    how long, 120 if not said
#   BANK_SESSIONS   how many, 16 if not said
#   BANK_SEED       the choices of an earlier run, which prints its own
#   BANK_MATRIX     N: in place of that each victim at each step, N times with a seed each,
#                   for at most BANK_SECONDS if said
#   BANK_STEPS      only the steps whose names match
#   BANK_VICTIMS    only the victims
#   BANK_CELLS      I/N: of the matrix the Ith part of N
#
# A step is reached by a fault proxy that holds a message back, by a lock, or, in the matrix and
# where the server has them, by an injection point. Who is hit there may have gone on a little by
# then, as the machine likes; the rest follows from the seed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Bank;
use DbpoolTest;
use FaultProxy;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $matrix = $ENV{BANK_MATRIX} || 0;
my $seconds = $ENV{BANK_SECONDS} || 120;
my $sessions = $ENV{BANK_SESSIONS} || ($matrix ? 4 : 16);
my $seed = $ENV{BANK_SEED} || 1 + int rand 1e9;

# Seconds within which what is left has to be resolved when the last server is back.
my $soon = 10;

# Seconds within which a stopped process, a stalled link is to go on.
my $longest = $matrix ? 1 : 3;

diag("BANK_SEED=$seed, $sessions sessions" . ($matrix ? ', matrix' : ", $seconds seconds"));
srand $seed;

# --- servers ---------------------------------------------------------------------------

# The local WAL writer is slow, so that what nobody has flushed is lost.
my $conf = "restart_after_crash = on\nwal_writer_delay = 10s\n";
my %nodes = (
	a => make_remote(name => 'remote_a', conf => "${conf}max_prepared_transactions = 100\ndeadlock_timeout = 200ms\n"),
	b => make_remote(name => 'remote_b', conf => "${conf}max_prepared_transactions = 100\ndeadlock_timeout = 200ms\n"),
	l => make_local(
		name => 'local',
		workers => 2,
		conf => "${conf}wal_level = replica\nmax_wal_senders = 2\ndeadlock_timeout = 200ms\n"));

Bank::open_accounts(%nodes);

# before the proxies, whose pipes are not for it
my $bank = Bank->start(nodes => \%nodes, seed => $seed, sessions => $sessions,
	$matrix ? (modes => [ ('two_phase') x 4, 'bound' ], rest => 0.02) : ());
my %proxies = map { $_ => FaultProxy->start($nodes{$_}, seed => $seed, name => "proxy_$_") } 'a', 'b';

foreach my $pool ('a', 'b')
{
	create_pool($nodes{l}, $pool, undef, $proxies{$pool}->options,
		max_size => 10, acquire_timeout => '5s', connect_timeout => '3');
	$nodes{l}->safe_psql('postgres', qq{
		GRANT USAGE ON FOREIGN SERVER $pool TO bank;
		CREATE USER MAPPING FOR bank SERVER $pool OPTIONS (user 'bank', password_required 'false')});
}
announce(qr/was terminated by signal 9: Killed/);

sub local_sql { return $nodes{l}->safe_psql('postgres', @_); }

# Without a server that answers there is nothing.
sub try_sql
{
	my ($node, $sql) = @_;
	my ($status, $out) = $node->psql('postgres', $sql, on_error_stop => 1);

	return $status == 0 ? $out : undef;
}

# Likewise, by a session that is kept for as long as the server lets it: it is asked often.
my %kept;

sub ask
{
	my ($server, $sql) = @_;

	foreach (1 .. 2)
	{
		my $session = $kept{$server} //= session($nodes{$server}, no_wait => 1);
		my $answer = $session->query($sql);

		return $answer->{out} if !$answer->{lost} && $answer->{state} eq '';
		delete $kept{$server};
	}
	return;
}

# The processes of a node whose titles match.
sub processes
{
	my ($node, $pattern) = @_;
	my @found;

	foreach my $pid (child_pids($node->{_pid}))
	{
		open my $file, '<', "/proc/$pid/cmdline" or next;
		my $title = <$file> // '';
		push @found, $pid if $title =~ $pattern;
	}
	return @found;
}

sub any { return $_[ rand @_ ]; }

sub await_answer
{
	my ($node) = @_;
	my ($server) = grep { $nodes{$_} == $node } keys %nodes;

	wait_until('server "' . $node->name . '" answers', sub { return defined ask($server, 'SELECT 1'); });
	return;
}

# --- victims ------------------------------------------------------------------------------
#
# Each is a list: where it is, and what is done to it, which returns what makes it good
# again, or nothing when there was nobody to hit.

sub by_signal
{
	my ($signal, $node, @pids) = @_;
	my $pid = any(@pids) // return;

	if ($signal eq 'STOP')
	{
		suspend($pid);
		return sub { resume($pid) };
	}
	kill $signal, $pid or return;
	return sub { } if $signal ne 'KILL';
	# all go with it
	return sub {
		wait_until('it is gone', sub { return !kill 0, $pid });
		await_answer($node);
	};
}

# A session, one that is committing rather than another.
sub sessions_of
{
	my ($node) = @_;
	my @committing = processes($node, qr/ bank .*COMMIT/);

	return @committing ? @committing : processes($node, qr/ bank postgres /);
}

sub resolver
{
	my $end = time + 2;
	my @pids;

	do
	{
		@pids = processes($nodes{l}, qr/dbpool resolver/);
	} while (!@pids && time < $end && sleep 0.005);
	return @pids;
}

sub stop_server
{
	my ($node) = @_;

	$node->stop('immediate');
	return sub { $node->start };
}

sub kill_server
{
	my ($node) = @_;
	my @pids = ($node->{_pid}, child_pids($node->{_pid}));

	$node->kill9;
	return sub {
		wait_until('all have noticed', sub { return !kill 0, @pids });
		$node->start;
	};
}

sub hang_server
{
	my ($node) = @_;
	my @pids = ($node->{_pid}, child_pids($node->{_pid}));

	suspend(@pids);
	return sub { resume(@pids) };
}

sub do_to_link
{
	my ($proxy, $action, $end) = @_;

	$proxy->tell("now $action");
	return sub { $proxy->tell($end) if $end };
}

my %victims = (
	'session terminated' => [ 'l', sub { by_signal('TERM', $nodes{l}, sessions_of($nodes{l})) } ],
	'session cancelled' => [ 'l', sub { by_signal('INT', $nodes{l}, sessions_of($nodes{l})) } ],
	'session killed' => [ 'l', sub { by_signal('KILL', $nodes{l}, sessions_of($nodes{l})) } ],
	'session stopped' => [ 'l', sub { by_signal('STOP', $nodes{l}, sessions_of($nodes{l})) } ],
	'worker terminated' => [ 'l', sub { by_signal('TERM', $nodes{l}, processes($nodes{l}, qr/dbpool worker/)) } ],
	'worker killed' => [ 'l', sub { by_signal('KILL', $nodes{l}, processes($nodes{l}, qr/dbpool worker/)) } ],
	'worker stopped' => [ 'l', sub { by_signal('STOP', $nodes{l}, processes($nodes{l}, qr/dbpool worker/)) } ],
	'resolver terminated' => [ 'l', sub { by_signal('TERM', $nodes{l}, resolver()) } ],
	'resolver killed' => [ 'l', sub { by_signal('KILL', $nodes{l}, resolver()) } ],
	'resolver stopped' => [ 'l', sub { by_signal('STOP', $nodes{l}, resolver()) } ],
	'local stopped' => [ 'l', sub { stop_server($nodes{l}) } ],
	'local killed' => [ 'l', sub { kill_server($nodes{l}) } ],
	'local hangs' => [ 'l', sub { hang_server($nodes{l}) } ],
	(   map {
			my ($node, $proxy) = ($nodes{$_}, $proxies{$_});

			(   "$_ session terminated" => [ $_, sub { by_signal('TERM', $node, sessions_of($node)) } ],
				"$_ session killed" => [ $_, sub { by_signal('KILL', $node, sessions_of($node)) } ],
				"$_ stopped" => [ $_, sub { stop_server($node) } ],
				"$_ killed" => [ $_, sub { kill_server($node) } ],
				"$_ hangs" => [ $_, sub { hang_server($node) } ],
				"link $_ reset" => [ "link $_", sub { do_to_link($proxy, 'reset') } ],
				"link $_ ended" => [ "link $_", sub { do_to_link($proxy, 'fin') } ],
				"link $_ stalled" => [ "link $_", sub { do_to_link($proxy, 'stall', 'resume') } ],
				"link $_ silent" => [ "link $_", sub { do_to_link($proxy, 'drop', 'now reset') } ]);
		} 'a',
		'b'));

# --- steps ----------------------------------------------------------------------------------
#
# Each makes somebody wait there, and returns two functions: whether somebody does, and
# what lets him go on, which has to work in any state of the servers, once they are back.

sub at_message
{
	my ($proxy, $rule) = @_;
	my $number = $proxy->tell("on $rule");

	return (
		sub { return $proxy->fired($number) },
		sub { $proxy->tell('clear'); $proxy->tell('resume'); });
}

# Nobody can write a row about a prepared transaction.
sub at_row
{
	my $holder = session($nodes{l});

	$holder->query('BEGIN; LOCK TABLE dbpool_prepared IN SHARE MODE');
	return (sub { return processes($nodes{l}, qr/ bank .* waiting/) }, sub { $holder->kill });
}

# The local transaction is committed, and nobody can see it yet: it waits for a standby.
sub at_commit
{
	local_sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	local_sql('SELECT pg_reload_conf()');
	return (
		sub { return processes($nodes{l}, qr/ bank .* waiting for [0-9A-F]+\//) },
		sub {
			local_sql('ALTER SYSTEM RESET synchronous_standby_names');
			local_sql('SELECT pg_reload_conf()');
		});
}

# A point of dbpool's where all are held who come by.
my $points = $matrix && check_pg_config('#define USE_INJECTION_POINTS 1')
  && $nodes{l}->psql('postgres', 'CREATE EXTENSION injection_points') == 0;

sub at_point
{
	my ($point) = @_;
	my $held = "SELECT FROM pg_stat_activity WHERE wait_event = '$point'";

	local_sql("SELECT injection_points_attach('$point', 'wait')");
	return (
		sub { return (try_sql($nodes{l}, "SELECT EXISTS ($held)") // '') eq 't' },
		sub {
			# a crash may have taken it along
			try_sql($nodes{l}, "SELECT injection_points_detach('$point')");
			while (local_sql("SELECT EXISTS ($held)") eq 't')
			{
				try_sql($nodes{l}, "SELECT injection_points_wakeup('$point')");
			}
		});
}

my %messages = (
	'PREPARE is sent' => 'frontend message any "PREPARE TRANSACTION" before stall',
	'PREPARE has arrived' => 'frontend message any "PREPARE TRANSACTION" after stall both',
	'PREPARE is answered' => 'backend message C "PREPARE TRANSACTION" before stall',
	'the answer to PREPARE has arrived' => 'after "PREPARE TRANSACTION" backend message Z after stall both',
	'COMMIT PREPARED is sent' => 'frontend message any "COMMIT PREPARED" before stall',
	'COMMIT PREPARED has arrived' => 'frontend message any "COMMIT PREPARED" after stall both',
	'COMMIT PREPARED is answered' => 'backend message C "COMMIT PREPARED" before stall',
	'the answer to COMMIT PREPARED has arrived' => 'after "COMMIT PREPARED" backend message Z after stall both',
	'ROLLBACK PREPARED is sent' => 'frontend message any "ROLLBACK PREPARED" before stall',
	'ROLLBACK PREPARED is answered' => 'backend message C "ROLLBACK PREPARED" before stall',
	'who has written is asked' => 'frontend message any "txid_current_if_assigned" before stall',
	'the resolver looks' => 'frontend message any "pg_prepared_xacts" before stall',
	'the resolver is answered' => 'after "pg_prepared_xacts" backend message Z before stall',
	'the resolver looks again' => 'frontend message any 2 "pg_prepared_xacts" before stall',
	'COMMIT is sent' => 'frontend message P "COMMIT" before stall',
	'COMMIT is answered' => 'backend message C "COMMIT" before stall');
my %steps = (
	'a row is written' => \&at_row,
	'the local commit is not seen yet' => \&at_commit);

foreach my $point ($points
	? ('prepared-before-commit', 'committed-before-telling', map { "resolver-before-$_" } 'sessions', 'rows', 'end', 'delete')
	: ())
{
	$steps{ $point =~ tr/-/ /r } = sub { return at_point("dbpool-$point"); };
}
foreach my $name (keys %messages)
{
	foreach my $at ('a', 'b')
	{
		$steps{"$at: $name"} = sub { return at_message($proxies{$at}, $messages{$name}); };
	}
}

# --- rounds -----------------------------------------------------------------------------------

my (%hit, %reached, @history);
my $longest_drain = 0;
my $longest_settling = 0;

# Do that to each of them, at that step if one is named; some time later all is made good.
sub strike
{
	my ($step, @victims) = @_;
	my ($is_reached, $go_on) = $step eq '' ? () : $steps{$step}->();
	my @mend;

	if ($is_reached)
	{
		my $end = time + 1.5;
		my $found;

		until ($found = $is_reached->()) { last if time > $end; sleep 0.005; }
		$reached{$step}++ if $found;
		push @history, ($found ? 'at' : 'not at') . " \"$step\"";
	}
	sleep rand 0.05 if rand() < 0.5;
	foreach my $victim (@victims)
	{
		my $mend = $victims{$victim}->[1]->();

		push @history, $victim . ($mend ? '' : ': nobody');
		next unless $mend;
		$hit{$victim}++;
		push @mend, $mend;
		sleep rand 0.3 if rand() < 0.5;
	}
	sleep rand(rand() < 0.3 ? $longest : 0.3);
	$_->() foreach shuffle(@mend);
	await_answer($_) foreach values %nodes;
	if ($go_on)
	{
		# what comes late may come when nobody else does anything
		$bank->ask('pause');
		sleep rand 3 if rand() < 0.3;
		$go_on->();
		$bank->wait('pause');
		$bank->go;
	}
	push @history, 'mended';
	return scalar @mend;
}

# What is under way, or left, anywhere.
sub rest
{
	my @rest;

	foreach my $server (sort keys %nodes)
	{
		my $left = ask($server, q{
			SELECT 'prepared ' || gid FROM pg_prepared_xacts
			UNION ALL SELECT state || ' ' || query FROM pg_stat_activity WHERE usename = 'bank' AND state <> 'idle'}
			. ($server eq 'l' ? q{ UNION ALL SELECT format('row %s, %s attempts, %s', gid, attempts, last_error) FROM dbpool_prepared
				UNION ALL SELECT 'transaction on ' || pool FROM dbpool_transactions} : '')) // 'it does not answer';

		push @rest, map { "$server: $_" } split /\n/, $left;
	}
	return @rest;
}

# A round has ended: all sessions rest, soon nothing is left, and everything is right.
sub is_right
{
	my ($what, $again) = @_;
	my $t = time;
	my @wrong;

	$bank->pause;
	$longest_drain = time - $t if time - $t > $longest_drain;
	$t = time;
	while (@wrong = rest())
	{
		last if time - $t > $soon;
		sleep 0.05;
	}
	DbpoolTest::explain() if @wrong;
	$longest_settling = time - $t if time - $t > $longest_settling;
	push @wrong, $bank->audit($again);
	return 1 if !@wrong;
	diag("BANK_SEED=$seed, $what: " . join ', ', @history);
	diag(join "\n", @wrong > 20 ? (@wrong[ 0 .. 19 ], '...') : @wrong);
	return 0;
}

# Cards from a shuffled deck, which is refilled when it is empty.
sub deck
{
	my (@cards) = @_;
	my @left;

	return sub {
		@left = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } @cards if !@left;
		return shift @left;
	};
}

sub chosen
{
	my ($pattern, @names) = @_;

	return sort grep { !$pattern || /$pattern/ } @names;
}

my @steps = chosen($ENV{BANK_STEPS}, keys %steps);
my @victims = chosen($ENV{BANK_VICTIMS}, keys %victims);

sub play_bank
{
	my $next_step = deck(@steps);
	my $next_victim = deck(@victims);
	my $end = time + $seconds;

	for (my $round = 1; time < $end; $round++)
	{
		# many come into each other's way; of few the one is hit that is meant
		my $active = rand() < 0.5 ? $sessions : 1 + int rand 4;

		@history = ("$active sessions");
		$bank->go($active);
		foreach (0 .. int rand 4)
		{
			my @hit = $next_victim->();

			# two at a time, if they do not come into each other's way
			push @hit, $next_victim->() if rand() < 0.3;
			pop @hit if @hit == 2 && $victims{ $hit[0] }->[0] eq $victims{ $hit[1] }->[0];
			strike(rand() < 0.6 ? $next_step->() : '', @hit);
			sleep rand 0.5;
		}
		ok(is_right("round $round"), "round $round") or return;
	}
	return;
}

my ($cells, $met) = (0, 0);

sub play_matrix
{
	my ($part, $parts) = split '/', $ENV{BANK_CELLS} // '1/1';
	my $end = time + ($ENV{BANK_SECONDS} // 1e9);
	my @all = map { my $step = $_; map { [ $step, $_ ] } @victims } @steps;

	# the server's own wait at such a point ends the process in the midst of a commit
	@all = grep { "@{$_}" ne 'committed before telling local killed' } @all;
	@all = map { shuffle(@all) } 1 .. $matrix;
	foreach my $n (grep { $_ % $parts == $part - 1 } 0 .. $#all)
	{
		my ($step, $victim) = @{ $all[$n] };

		last if time > $end;
		srand $seed + $n;
		@history = ();
		$bank->go;
		$cells++;
		$met++ if strike($step, $victim) && $history[0] =~ /^at/;
		ok(is_right("\"$victim\" at \"$step\""), "$victim at: $step") or return;
	}
	return;
}

$matrix ? play_matrix() : play_bank();
my $passing = Test::More->builder->is_passing;
ok(is_right('the end', 1), 'in the end all is there') if $passing;
$bank->stop;

my %counts = %{ $bank->{counts} };
diag('hit ' . join ', ', map { "$_: $hit{$_}" } sort keys %hit);
diag('at ' . join ', ', map { "$_: $reached{$_}" } sort keys %reached);
diag('had ' . join ', ', map { "$_: $counts{$_}" } sort keys %counts);
diag(sprintf 'sessions have come to rest within %.1f s, servers within %.1f s', $longest_drain, $longest_settling);
diag("$cells cells of the matrix, in $met of them both step and victim were met") if $matrix;

# It has to have happened, or nothing was tested.
if ($passing && !$matrix && $seconds >= 60 && !$ENV{BANK_VICTIMS} && !$ENV{BANK_STEPS})
{
	cmp_ok($counts{"$_, ok"} // 0, '>=', 3 * $seconds, "enough of $_") foreach 'two_phase', 'bound';
	cmp_ok($counts{'autonomous, leg acknowledged'} // 0, '>=', 3 * $seconds, 'enough of autonomous');
	cmp_ok($counts{'two_phase, refused and nowhere'} // 0, '>=', 5, 'some have failed at their ends');
	cmp_ok(scalar keys %hit, '>=', $seconds < 120 ? 6 : 12, 'many kinds of victims');
	cmp_ok(scalar keys %reached, '>=', $seconds < 120 ? 4 : 8, 'many of the steps');
}

$_->stop foreach values %proxies;
done_testing();
