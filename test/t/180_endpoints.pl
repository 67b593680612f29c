
# Endpoints: the circuit breaker, who probes, what those are told who call meanwhile.
#
# BREAKER_SECONDS and BREAKER_SESSIONS make the part with a listener that closes longer;
# BREAKER_ROUNDS that of src/ipc/endpoint.c by itself, which BREAKER_SEED repeats.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $remote = make_remote();
my $flaky = make_remote(name => 'flaky', conf => "listen_addresses = '127.0.0.1'\n");
my $late = make_remote(name => 'late', conf => "listen_addresses = '127.0.0.1'\n", no_start => 1);
my $local = make_local();
my @figures;
my $control = session($local);
my $there = session($remote);
my $seconds = $ENV{BREAKER_SECONDS} || 6;
my $callers = $ENV{BREAKER_SESSIONS} || 20;

# A listener that accepts and closes, and counts; in a process of its own, which ends with the test.
my @listeners;
END { local $?; kill 'KILL', @listeners if @listeners }
sub closing_listener
{
	my ($port) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port || 0,
		Proto => 'tcp', Listen => 1024, ReuseAddr => 1) or die "could not listen: $!";
	my $file = PostgreSQL::Test::Utils::tempdir() . '/accepted';
	my $pid = fork;

	die "could not fork: $!" unless defined $pid;
	if (!$pid)
	{
		open my $out, '>>', $file or die;
		$out->autoflush;
		while (my $socket = $listener->accept)
		{
			print $out time, "\n";
			close $socket;
		}
		POSIX::_exit(0);
	}
	push @listeners, $pid;
	my $at = $listener->sockport;
	close $listener;
	return {
		port => $at,
		pid => $pid,
		accepted => sub {
			my ($since) = (@_, 0);
			return -e $file ? scalar(grep { $_ > $since } split /\n/, slurp_file($file)) : 0;
		},
		stop => sub { kill 'KILL', $pid; waitpid $pid, 0; @listeners = grep { $_ != $pid } @listeners; }
	};
}

sub endpoint
{
	my ($port, $columns) = @_;
	return $control->value("SELECT $columns FROM dbpool_endpoints WHERE port = '$port'");
}

sub call
{
	my ($pool) = @_;
	return $control->query("SELECT dbpool_exec('$pool', 'SELECT 1')");
}

subtest 'the breaker by itself' => sub {
	my $output = qx{'$FindBin::RealBin/../breaker/breaker' @{[ $ENV{BREAKER_SEED} // 0 ]} @{[ $ENV{BREAKER_ROUNDS} // 300000 ]} 2>&1};

	note($output);
	is($?, 0, 'what opens it, for how long, who probes, how many may log in') || diag($output);
	like($output, qr/^in a minute it is asked \d+ times at most/m, 'to the end');
};

# Sessions that wait for a remote's return call no more, for as long as all of this takes, and for
# longer than a pool is in use after a call.
my $closed_since = time;
my $closed = closing_listener($late->port);
my $waits = session($local);
create_pool($local, 'late', undef, host => '127.0.0.1', port => $late->port, dbname => 'postgres',
	failover_wait => '5min', acquire_timeout => '5min');
$waits->send(q{SELECT dbpool_exec('late', 'SELECT 1')});

subtest 'a listener that accepts and closes' => sub {
	$flaky->stop;
	my $listener = closing_listener($flaky->port);
	my @sessions = map { session($local) } 1 .. $callers;
	my $end = time + $seconds;
	my ($calls, $slowest) = (0, 0);
	my $hears = session($local);

	$hears->value('LISTEN dbpool');
	create_pool($local, 'closing', undef, host => '127.0.0.1', port => $listener->{port}, dbname => 'postgres');
	foreach my $s (@sessions)
	{
		$s->send(q{
			DO $$
			DECLARE
				n int := 0;
				began timestamptz;
				slowest interval := '0';
			BEGIN
				WHILE clock_timestamp() < now() + '} . $seconds . q{ s' LOOP
					began := clock_timestamp();
					BEGIN
						PERFORM dbpool_exec('closing', 'SELECT 1');
						RAISE 'it has run';
					EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
						n := n + 1;
					END;
					slowest := greatest(slowest, clock_timestamp() - began);
				END LOOP;
				RAISE NOTICE 'calls % slowest %', n, extract(epoch FROM slowest);
			END $$;});
	}
	foreach my $s (@sessions)
	{
		my $answer = $s->wait($seconds + 60);

		is($answer->{state} // '', '', 'all of its calls are told so') || diag($answer->{err});
		$answer->{err} =~ /calls (\d+) slowest ([0-9.]+)/ or die $answer->{err};
		$calls += $1;
		$slowest = $2 if $2 > $slowest;
	}
	my $attempts = $listener->{accepted}->();
	push @figures, ("$calls calls, $attempts attempts in $seconds s, slowest call $slowest s");
	cmp_ok($attempts, '<=', 20, 'it sees few attempts');
	cmp_ok($attempts, '>=', 5, 'though some');
	cmp_ok($calls, '>', 20 * $attempts, 'of many calls');
	is(endpoint($listener->{port}, 'state'), 'open', 'the breaker is open');
	like($control->value(qq{SELECT concat_ws('/', severity, problem) FROM dbpool_alerts
		WHERE alert = 'breaker_open' AND endpoint = '127.0.0.1:$listener->{port}' AND since <= clock_timestamp()}),
		qr{^warning/it is unwell: .*: connection to server at}, 'there is an alert');
	like($control->value('SELECT dbpool_metrics()'), qr/^dbpool_endpoint_breaker\{host="127.0.0.1",port="$listener->{port}",state="open"\} 1$/m, 'and a metric');
	my $answer = call('closing');
	is($answer->{state}, '08001', 'a call is told at once');
	like($answer->{err}, qr/could not open a connection of pool "closing".*closed the connection unexpectedly.*The next attempt is made in [0-9.]+ s.*was not run/s,
		'why, and when it is tried again');

	# it returns
	$listener->{stop}->();
	$flaky->start;
	my $returned = time;
	until (call('closing')->{err} eq '') { sleep 0.01; die if time > $returned + 30 }
	my $works = time;
	push @figures, (sprintf 'works %.2f s after its return', $works - $returned);
	cmp_ok($works - $returned, '<', 8, 'a probe finds it');
	$_->send(q{SELECT dbpool_exec('closing', 'SELECT pg_sleep(0.5)')}) foreach @sessions;
	is($_->wait->{err}, '', 'everybody is served') foreach @sessions;
	push @figures, (sprintf 'all after %.2f s', time - $works);
	cmp_ok(time - $works, '<', 0.5 * $callers / 10 + 2, 'at the full rate soon');

	my $heard = '';
	wait_until('the last change is told', sub { $heard .= $hears->query('SELECT 1')->{out}; $heard =~ /"port": "$listener->{port}", "state": "closed"/ });
	my @told = $heard =~ /"event": "breaker", "host": "127.0.0.1", "port": "$listener->{port}", "state": "([a-z-]+)"/g;
	my @logged = slurp_file($local->logfile) =~ /LOG:  (?:00000: )?dbpool: the breaker of endpoint "127.0.0.1", port $listener->{port} is ([a-z-]+)/g;
	is("@told[ 0, -1 ]", 'open closed', 'who listens is told of it');
	is("@logged", "@told", 'and each change is a line in the log');
	$_->quit foreach @sessions;
};

# What is no fault of the server's has no effect on others.
# All that the pool may have is open elsewhere, and busy: nobody needs a connection, but the one
# that finds out.
subtest 'a full pool probes as well' => sub {
	create_pool($local, 'crammed', undef, host => '127.0.0.1,' . $remote->host,
		port => $flaky->port . ',' . $remote->port, dbname => 'postgres', max_size => 2);
	$flaky->stop('immediate');
	my @busy = map { session($local) } 1 .. 2;
	$there->value('SELECT pg_advisory_lock(5)');
	$_->send(q{SELECT dbpool_exec('crammed', 'SELECT pg_advisory_lock_shared(5)')}) foreach @busy;
	ok($control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'crammed'}, '2'), 'all of its connections are busy');
	# another pool finds out that it is away, and goes
	create_pool($local, 'flaky', undef, host => '127.0.0.1', port => $flaky->port, dbname => 'postgres');
	wait_until('its breaker is open', sub { call('flaky'); return endpoint($flaky->port, 'state') eq 'open' });
	$control->value('SET client_min_messages = error; DROP SERVER flaky CASCADE; DROP SERVER closing CASCADE');
	my $before = endpoint($flaky->port, 'login_failures');
	ok($control->poll(sprintf(q{SELECT login_failures > %d FROM dbpool_endpoints WHERE port = '%d'}, $before, $flaky->port), 't'),
		'it is probed');
	$flaky->start;
	my $returned = time;
	ok($control->poll(sprintf(q{SELECT state <> 'open' FROM dbpool_endpoints WHERE port = '%d'}, $flaky->port), 't'),
		'and found to be well');
	# that another pool, which had nothing else, has tried often does not count
	cmp_ok(time - $returned, '<', 30, 'soon');
	ok($control->poll(q{SELECT idle + busy + connecting FROM dbpool_pools WHERE pool = 'crammed'}, '2'), 'the pool has as many as it may have');
	$there->value('SELECT pg_advisory_unlock(5)');
	is($_->wait->{err}, '', 'who was served elsewhere goes on') foreach @busy;
	$control->value('SET client_min_messages = error; DROP SERVER crammed CASCADE; RESET client_min_messages');
};

subtest 'a server that answers is well' => sub {
	create_pool($local, 'good', $remote);
	create_pool($local, 'wrong', $remote, dbname => 'no_such_database');
	is(call('good')->{err}, '', 'a pool works');
	is(call('wrong')->{state}, '08001', 'another one does not') foreach 1 .. 12;
	is(endpoint($remote->port, 'state, failures_in_row, login_failures'), 'closed|0|0', 'nothing speaks against the server');
	is(endpoint($remote->port, 'role'), 'primary', 'which is a primary');
	is(call('good')->{err}, '', 'and the pool works on');
};

# The limit of a role is no fault of the server's either, though it has the code of one that is full.
subtest 'a limit of a role' => sub {
	$there->value('CREATE ROLE narrow LOGIN CONNECTION LIMIT 0');
	$control->value(sprintf q{SELECT dbpool_create_pool('narrow', 'host=%s port=%s dbname=postgres user=narrow', '{"acquire_timeout": "1s"}')},
		$remote->host, $remote->port);
	my $opened = endpoint($remote->port, 'times_opened');
	foreach (1 .. 8)
	{
		my $answer = call('narrow');

		like($answer->{err}, qr/too many connections for role/, 'it is told') or last;
	}
	is(endpoint($remote->port, q{concat_ws('/', state, failures_in_row, times_opened)}), "closed/0/$opened", 'and nothing speaks against the server');
	$control->value('SET client_min_messages = error; DROP SERVER narrow CASCADE; RESET client_min_messages');
};

subtest 'as many connections as an endpoint may have' => sub {
	my @callers = map { session($local) } 1 .. 6;

	$control->value('ALTER SYSTEM SET dbpool.max_connections_per_endpoint = 3');
	$control->value('SELECT pg_reload_conf()');
	$control->poll('SHOW dbpool.max_connections_per_endpoint', '3');
	create_pool($local, 'two', $remote, min_size => 2, max_size => 6, acquire_timeout => '1s');
	$_->send(q{SELECT dbpool_exec('two', 'SELECT pg_sleep(2)')}) foreach @callers;
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE pool = 'two' AND state = 'running'}, '2');
	is(endpoint($remote->port, 'connections'), '3', 'more are not opened');
	my @answers = map { $_->wait } @callers;
	is((grep { $_->{err} eq '' } @answers) + 0, 3, 'who has one is served, of which one was idle elsewhere');
	is((grep { $_->{err} =~ /max_connections_per_endpoint \(3\) allows/ } @answers) + 0, 3, 'the others are told why they have none');

	# what nobody uses is no reason
	create_pool($local, 'needy', $remote, acquire_timeout => '5s');
	is(endpoint($remote->port, 'connections'), '3', 'there are three, of which none is busy');
	is(call('needy')->{err}, '', 'one of them gives its place to a pool that has none');
	is(endpoint($remote->port, 'connections'), '3', 'so there are no more');
	$control->value(q{ALTER SERVER two OPTIONS (SET acquire_timeout '60s')});
	$_->send(q{SELECT dbpool_exec('two', 'SELECT pg_sleep(8)')}) foreach @callers[ 0 .. 2 ];
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE pool = 'two' AND state = 'running'}, '3');
	create_pool($local, 'poor', $remote, acquire_timeout => '1s');
	my $answer = call('poor');
	is($answer->{state}, '53300', 'one that gets none is not told that there is no remote');
	like($answer->{err}, qr/per_endpoint \(3\) allows.*HINT: .*max_connections_per_endpoint/s, 'but why');
	$_->wait foreach @callers[ 0 .. 2 ];
	$control->value('ALTER SYSTEM RESET dbpool.max_connections_per_endpoint');
	$control->value('SELECT pg_reload_conf()');
	$_->quit foreach @callers;
};

# What an owner writes into a definition is his own pool's affair.
subtest 'what comes after the log-in' => sub {
	my ($before) = endpoint($remote->port, 'times_opened');

	create_pool($local, 'ended', $remote, connect_sql => 'SELECT pg_terminate_backend(pg_backend_pid())', acquire_timeout => '1s');
	call('ended') foreach 1 .. 12;
	is(endpoint($remote->port, q{concat_ws('/', state, failures_in_row, times_opened)}), "closed/0/$before", 'says nothing against the server');

	create_pool($local, 'sleeps', $flaky, connect_sql => 'SELECT pg_sleep(600)', connect_timeout => '10min', acquire_timeout => '10min',
		failover_wait => '10min');
	create_pool($local, 'awake', $flaky, acquire_timeout => '60s');
	$flaky->stop('immediate');
	my $sleeper = session($local)->send(q{SELECT dbpool_exec('sleeps', 'SELECT 1')});
	$control->poll(sprintf(q{SELECT state FROM dbpool_endpoints WHERE port = '%d'}, $flaky->port), 'open');
	$flaky->start;
	$control->poll(q{SELECT connecting FROM dbpool_pools WHERE pool = 'sleeps'}, '1');
	$control->poll(sprintf(q{SELECT state <> 'open' FROM dbpool_endpoints WHERE port = '%d'}, $flaky->port), 't');
	my $began = time;
	is(call('awake')->{err}, '', 'and keeps nobody out');
	cmp_ok(time - $began, '<', 9, 'at all');
	$sleeper->kill;
};

# All sessions are terminated: that alone keeps nobody waiting.
subtest 'connections that are lost' => sub {
	my @callers = map { session($local) } 1 .. 8;

	create_pool($local, 'lost', $remote, max_size => 8);
	$_->send(q{SELECT dbpool_exec('lost', 'SELECT pg_sleep(1)')}) foreach @callers;
	is($_->wait->{err}, '', 'a call') foreach @callers;
	$there->value(q{SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = 'dbpool'});
	is(call('lost')->{err}, '', 'the next one works');
	isnt(endpoint($remote->port, 'losses'), '0', 'the losses were counted');
	$_->quit foreach @callers;
};

# A statement that has committed something before it was refused to write is not run again.
subtest 'a refusal to write' => sub {
	$there->value('CREATE TABLE written (n int)');
	$there->value(q{CREATE PROCEDURE writes_once() LANGUAGE plpgsql AS
		'BEGIN INSERT INTO written VALUES (1); COMMIT; SET TRANSACTION READ ONLY; INSERT INTO written VALUES (2); END'});
	$there->value(q{CREATE FUNCTION writes_never() RETURNS int LANGUAGE plpgsql AS
		'BEGIN SET TRANSACTION READ ONLY; INSERT INTO written VALUES (3); RETURN 1; END'});
	create_pool($local, 'rw', $remote, max_size => 1, target_session_attrs => 'read-write');
	my $answer = $control->query(q{SELECT dbpool_exec('rw', 'CALL writes_once()')});
	is($answer->{state}, '25006', 'a procedure is told');
	is($there->value('SELECT count(*) FROM written'), '1', 'what it had committed was done once');

	# nor are connections made anew for each such call
	my $before = $control->value(q{SELECT connects FROM dbpool_stat_pools WHERE pool = 'rw'});
	my $began = time;
	is($control->query(q{SELECT * FROM dbpool_query('rw', 'SELECT writes_never()') AS t(n int)})->{state}, '25006', 'a function is told, too')
	  foreach 1 .. 30;
	my $took = time - $began;
	my $more = $control->value(q{SELECT connects FROM dbpool_stat_pools WHERE pool = 'rw'}) - $before;
	cmp_ok($more, '<=', 2 + $took, 'about once a second it is looked for another server');
};

# An owner with long lists of hosts leaves each pool of others an entry.
subtest 'a table that is filled' => sub {
	foreach my $n (1 .. 3)
	{
		create_pool($local, "many$n", undef, host => join(',', map { "127.77.$n.$_" } 1 .. 64), connect_timeout => '2',
			port => join(',', (2) x 64), dbname => 'postgres');
		like(call("many$n")->{err}, qr/ERROR/, 'none of the hosts is there');
	}
	my $n = $control->value('SELECT count(*) FROM dbpool_endpoints');
	cmp_ok($n, '>', 64, 'many of them have an entry');
	foreach my $n (1 .. 10)
	{
		create_pool($local, "one$n", undef, host => '127.77.0.1', port => 2 + $n, dbname => 'postgres');
		call("one$n");
		is(endpoint(2 + $n, 'count(*)'), '1', 'those of others have one, too');
	}
};

subtest 'a remote for whose return somebody waits' => sub {
	wait_until('it has been away for long', sub { sleep 0.1; return time > $closed_since + 40 });
	ok(!$waits->is_done, 'a call waits');
	my $attempts = $closed->{accepted}->();
	my $late_since = $closed_since + 31;
	cmp_ok($closed->{accepted}->($late_since), '>=', (time - $late_since) / 2, 'two seconds are not let pass without a look');
	cmp_ok($attempts, '<=', 6 + (time - $closed_since) / 0.75, 'nor are there many');
	$closed->{stop}->();
	$late->start;
	my $returned = time;
	is($waits->wait->{err}, '', 'and is served');
	push @figures, sprintf 'served %.2f s after a return that was waited for %.0f s', time - $returned, $returned - $closed_since;
	cmp_ok(time - $returned, '<', 3, 'by the next look');
};

note($_) foreach @figures;
done_testing();
