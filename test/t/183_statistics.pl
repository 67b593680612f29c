
# How long calls take, and where the time goes: src/ipc/histogram.c by itself, and what
# the views say of loads whose times are known. Each call counts once, however it ends;
# a pool that is split is one; the parts of the time are the whole, as a session has
# measured it.
#
# HISTOGRAM_VALUES makes the histogram's part longer, HISTOGRAM_SEED repeats it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 2, conf => "dbpool.split_threshold = 0\n");
my $control = session($local);

# What a view says of a pool; a row as an array.
sub stat_of
{
	my ($pool, $columns, $view, $where) = @_;

	$view //= 'dbpool_stat_pools';
	$where = $where ? " AND $where" : '';
	return split /\|/, $control->value("SELECT $columns FROM $view WHERE pool = '$pool'$where");
}

# How often something of a kind was counted, and in how much time half of them were done.
sub latency
{
	my ($pool, $kind) = @_;

	return stat_of($pool, 'count, coalesce(p50, -1)', 'dbpool_stat_latency', "kind = '$kind'");
}

sub is_about
{
	my ($value, $expected, $part, $what) = @_;

	ok(abs($value - $expected) <= $expected * $part, $what) or diag("$value, not $expected");
	return;
}

# --- the histogram ------------------------------------------------------------------------

{
	my $values = $ENV{HISTOGRAM_VALUES} // 100000;
	my $output =
	  qx{'$FindBin::RealBin/../histogram/histogram' @{[ $ENV{HISTOGRAM_SEED} // 0 ]} $values 2>&1};

	note($output);
	is($?, 0, 'quantiles of five distributions, sums and resets are right');
	is(scalar(() = $output =~ /$values values, largest error [0-3]\.\d+ %/g), 5, 'of all five');
	cmp_ok($1, '<=', 15, 'counting takes no time') foreach $output =~ /([\d.]+) ns each$/mg;
}

# --- each call counts once -----------------------------------------------------------------

create_pool($local, 'ends', $remote, max_size => 1, acquire_timeout => '500ms');
{
	my $holder = session($local);
	my $waiter = session($local);

	$control->value(q{SELECT dbpool_exec('ends', 'SELECT 1')});
	$control->query(q{SELECT dbpool_exec('ends', 'SELECT 1/0')});
	$holder->send(query_sleeps('ends', 600));
	$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'ends'}, '1');
	is($waiter->query(q{SELECT dbpool_exec('ends', 'SELECT 2')})->{state},
		'53300', 'a call waits for a connection in vain');
	$waiter->query('SET statement_timeout = 200');
	is($waiter->query(q{SELECT dbpool_exec('ends', 'SELECT 3')})->{state},
		'57014', 'another is given up while it waits');
	$control->value('SELECT pg_cancel_backend(' . $holder->pid . ')');
	is($holder->wait->{state}, '57014', 'and one while it runs');
	$control->poll(q{SELECT cancels FROM dbpool_stat_pools WHERE pool = 'ends'}, '2');

	my ($total) = latency('ends', 'total');
	my ($queue) = latency('ends', 'queue');
	my ($execution) = latency('ends', 'execution');
	is("$total $queue $execution", '5 5 3', 'each was counted once, by what it had come to');
	cmp_ok((stat_of('ends', 'p95', 'dbpool_stat_latency', q{kind = 'queue'}))[0],
		'>', 480, 'the one that waited in vain has waited all that time');
	is((latency('ends', 'login'))[0], 1, 'one connection was opened');
	cmp_ok((latency('ends', 'network'))[0], '>=', 1, 'and its round trip measured');
	is($control->value(q{SELECT string_agg(kind || ' ' || count, ', ' ORDER BY kind) FROM dbpool_stat_endpoints WHERE kind <> 'network'}),
		'execution 3, login 1, queue 3, total 3', 'the endpoint has those that came to it');
	# who writes the name of a host into a definition
	$control->value($_) foreach 'CREATE ROLE spy', 'GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO spy', 'SET ROLE spy',
	  sprintf(q{CREATE SERVER look FOREIGN DATA WRAPPER dbpool OPTIONS (host '%s', port '%d', dbname 'none')}, $remote->host, $remote->port),
	  q{CREATE USER MAPPING FOR spy SERVER look OPTIONS (user 'spy', password 'x')};
	isnt($control->query(q{SELECT dbpool_ping('look')})->{err}, '', 'a pool that cannot log in');
	is($control->value('SELECT state FROM dbpool_endpoints'), 'closed', 'shows whether the breaker of its host is open');
	is($control->value('SELECT count(*) FROM dbpool_stat_endpoints'), '0', 'but not what others do there');
	unlike($control->value('SELECT dbpool_metrics()'), qr/dbpool_endpoint_duration_seconds_bucket/, 'in the metrics neither');
	$control->value('RESET ROLE');
	is($control->value('SELECT count(*) FROM dbpool_stat_endpoints'), '5', 'who may see all sees it');
	$control->value('DROP SERVER look CASCADE');
	is_about((stat_of('ends', 'errors_per_second * 60'))[0], 2, 0.1,
		'errors of the last minute are those that ended with one, with a connection or without');
	is_about((stat_of('ends', 'statements_per_second * 60'))[0], 1, 0.1, 'others are statements');
}

# --- what is known ------------------------------------------------------------------------

create_pool($local, 'known', $remote, max_size => 2);
{
	my @sessions = map { session($local) } 1 .. 3;

	$control->value(q{SELECT dbpool_ping('known')});
	$control->value(q{SELECT dbpool_stat_reset('known')});
	is((latency('known', 'total'))[0], 0, 'a reset leaves nothing');
	is((stat_of('known', 'count(*)', 'dbpool_histograms', 'cumulative > 0'))[0], 0, 'in no bucket');
	$_->send(query_sleeps('known', 1)) foreach @sessions;
	$_->wait foreach @sessions;
	is((latency('known', 'total'))[0], 3, 'what comes then is counted');
	is_about((latency('known', 'execution'))[1], 1000, 0.2, 'half of them took a second');
	is_about((stat_of('known', 'max(le)', 'dbpool_histograms', q{kind = 'total' AND le < 'infinity'}))[0],
		2000, 0.2, 'one took two, as it had to wait');
	is_about((stat_of('known', 'max(le)', 'dbpool_histograms', q{kind = 'queue' AND le < 'infinity'}))[0],
		1000, 0.3, 'for one of them');
	# three seconds of connections, of two times a minute
	is_about((stat_of('known', 'utilisation * 2 * 60'))[0], 3, 0.3, 'utilisation is of both connections');

	create_pool($local, 'held', $remote, max_size => 1);
	my $busy = session($local);
	$busy->send(query_sleeps('held', 600));
	$control->poll(
		q{SELECT clock_timestamp() - state_since > interval '2 s' FROM dbpool_connections WHERE pool = 'held'}, 't');
	cmp_ok((stat_of('held', 'utilisation * 60'))[0], '>=', 1.99, 'what has not ended is in use');
	$control->value('SELECT pg_cancel_backend(' . $busy->pid . ')');
	$busy->wait;

	is( $control->value(
			q{SELECT count(*) FROM (SELECT count(*) FROM dbpool_histograms GROUP BY pool, kind
				HAVING max(le) = 'infinity' AND max(cumulative) = sum(count)) AS right_ones}),
		$control->value('SELECT count(*) FROM dbpool_stat_latency'),
		'each histogram ends with the sum of its buckets');
}

# --- a pool that is split is one ------------------------------------------------------------

create_pool($local, 'split', $remote, max_size => 6);
{
	my $at_endpoint = q{SELECT count FROM dbpool_stat_endpoints WHERE kind = 'total'};
	my $before = $control->value($at_endpoint);
	my ($pgbench) = start_pgbench($local, "SELECT dbpool_exec('split', 'SELECT 1');\n", '-c', 8, '-T', 60);

	$control->poll(q{SELECT workers FROM dbpool_pools WHERE pool = 'split'}, '2');
	$pgbench->kill_kill;
	$control->poll(q{SELECT busy + waiting FROM dbpool_pools WHERE pool = 'split'}, '0');
	$control->poll(q{SELECT NOT EXISTS (SELECT FROM dbpool_requests)}, 't');
	my ($statements, $gone) = stat_of('split', 'statements, cancels');
	is($control->value(q{SELECT count(*) FROM dbpool_stat_latency WHERE pool = 'split'}),
		5, 'a pool of two workers has a row of each kind');
	is((latency('split', 'total'))[0], $statements + $gone, 'with the calls of both');
	cmp_ok($control->value($at_endpoint) - $before, '>=', $statements, 'as has their endpoint');
	is($control->value(q{SELECT count(*) FROM dbpool_stat_pools WHERE pool = 'split'}), 1, 'and one row of statistics');
}

# --- where the time went -------------------------------------------------------------------

# Calls of a pool, one after the other, and what they took by the session's own clock.
$control->query(
	q{CREATE FUNCTION timed(pool name, sql text, calls int) RETURNS float8 LANGUAGE plpgsql AS $$
	DECLARE begun timestamptz; taken interval := '0';
	BEGIN
		PERFORM dbpool_stat_reset(pool);
		FOR i IN 1 .. calls LOOP
			begun := clock_timestamp();
			-- the rows are made, and not read
			EXECUTE format('SELECT FROM dbpool_query(%L, %L) AS t(a text, b timestamptz, c numeric) LIMIT 1', pool, sql);
			taken := taken + (clock_timestamp() - begun);
		END LOOP;
		RETURN extract(epoch FROM taken) * 1000 / calls;
	END $$});

# The mean times of calls of a pool: its parts are to be the whole.
sub split_of
{
	my ($pool, $measured, $what) = @_;
	my %split;

	@split{qw(total queue worker wire remote decode)} =
	  stat_of($pool, 'total_mean, queue_mean, worker_mean, wire_mean, remote_mean, decode_mean');
	note("$what: $measured ms; ", join ', ', map { "$_ $split{$_}" } qw(total queue worker wire remote decode));
	# what the call takes by itself in the session, its plan above all
	ok($split{total} <= $measured && $split{total} >= $measured * 0.98 - 0.3, "$what: the parts are the whole")
	  or diag("$split{total}, not $measured");
	return \%split;
}

my $proxy = FaultProxy->start($remote, commands => ['always delay 20ms both']);
create_pool($local, 'far', undef, $proxy->options(max_size => 2));
create_pool($local, 'near', $remote, max_size => 2);
# so that its connection is open
$control->value(q{SELECT dbpool_ping('near')});
my $three = 'NULL::text, NULL::timestamptz, NULL::numeric';

{
	my $ms = $control->value("SELECT timed('near', 'SELECT $three FROM pg_sleep(0.1)', 5)");
	my $split = split_of('near', $ms, 'a remote that takes its time');

	is_about($split->{remote}, 100, 0.2, 'has it');
}
{
	$control->value(q{SELECT dbpool_ping('far')}) foreach 1 .. 10;
	my $ms = $control->value("SELECT timed('far', 'SELECT $three FROM pg_sleep(0.05)', 10)");
	my $split = split_of('far', $ms, 'one that is far');

	is_about($split->{wire}, 40, 0.3, 'has its way there and back');
	is_about($split->{remote}, 50, 0.4, 'and its time');
}
{
	my ($pgbench, $told) = start_pgbench($local, "SELECT * FROM dbpool_query('far', 'SELECT 1') AS t(i int);\n", '-c', 6, '-t', 100);

	# its first calls are alone, as nothing is known of the text
	$control->poll(q{SELECT statements > 100 FROM dbpool_stat_pools WHERE pool = 'far'}, 't');
	$control->value(q{SELECT dbpool_stat_reset('far')});
	my ($shared) = stat_of('far', 'max(in_flight)', 'dbpool_connections');
	$pgbench->finish;
	my ($total, $queue, $wire, $remote) = stat_of('far', 'total_mean, queue_mean, wire_mean, remote_mean');
	note("six that share a connection: total $total, queue $queue, wire $wire, remote $remote");
	cmp_ok($wire, '>', 35, 'all of those who share a connection are on their way');
	SKIP:
	{
		# as by the delays of a busy machine the text does not seem to be short
		skip 'they do not share it', 1 if $shared < 3;
		cmp_ok($queue, '<', 20, 'and do not wait for one another meanwhile');
	}
}
{
	my $rows = 'SELECT i::text, now() + i * interval $$1 s$$, i::numeric / 7 FROM generate_series(1, 200000) i';
	my $ms = $control->value("SELECT timed('near', '$rows', 2)");
	my $split = split_of('near', $ms, 'many rows');

	cmp_ok($split->{decode}, '>', $ms * 0.2, 'are made values of');
	cmp_ok($split->{queue}, '<', $ms / 10, 'and nobody waits');
}
{
	my @sessions = map { session($local) } 1 .. 6;
	my $call = "SELECT dbpool_exec('near', 'SELECT pg_sleep(0.2)')";

	$control->value(q{SELECT dbpool_stat_reset('near')});
	$_->send($call) foreach @sessions;
	my $sum = 0;
	$sum += $_->wait->{seconds} foreach @sessions;
	my ($total, $queue, $remote) = stat_of('near', 'total_mean, queue_mean, remote_mean');
	note("six at two: by their sessions " . $sum / 6 * 1000 . " ms; total $total, queue $queue, remote $remote");
	is_about($queue, 200, 0.3, 'six at two connections: they wait for one another');
	is_about($remote, 200, 0.2, 'as long as they take');
}

# --- what a session waits for ------------------------------------------------------------------

create_pool($local, 'single', $remote, max_size => 1);
{
	my $named = $control->value('SHOW server_version_num') >= 170000;
	my @sessions = map { session($local) } 1, 2;
	my $wait_event = sub {
		return sprintf(q{SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE pid = %d}, $_[0]->pid);
	};
	my $name = sub { return 'Extension ' . ($named ? $_[0] : 'Extension') };

	$sessions[0]->send(query_sleeps('single', 600));
	$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'single'}, '1');
	$sessions[1]->send(query_sleeps('single', 600));
	$control->poll($wait_event->($sessions[0]), $name->('DbpoolResult'));
	$control->poll($wait_event->($sessions[1]), $name->('DbpoolConnection'));
	$control->value('SELECT pg_cancel_backend(' . $sessions[0]->pid . ')');
	$sessions[0]->wait;
	$control->poll($wait_event->($sessions[1]), $name->('DbpoolResult'));
	pass('sessions say whether they wait for a connection or for a result');
	$control->value('SELECT pg_cancel_backend(' . $sessions[1]->pid . ')');
	$sessions[1]->wait;
	$control->poll(q{SELECT DISTINCT wait_event FROM pg_stat_activity WHERE backend_type = 'dbpool worker'},
		$named ? 'DbpoolWorkerMain' : 'Extension');
	pass('workers too');
}

# --- a worker's end ---------------------------------------------------------------------------

{
	# what was cancelled counts when the worker has seen it; checks of idle connections go on
	$control->poll(q{SELECT busy + cancelling + waiting FROM dbpool_pools WHERE pool = 'single'}, '0');
	my $what = q{SELECT string_agg(format('%s %s %s %s', pool, kind, count, p99), ',' ORDER BY pool, kind)
		FROM dbpool_stat_latency WHERE kind <> 'network'};
	my $before = $control->value($what);

	foreach my $worker (1, 2)
	{
		my $pid = worker_pid($control, $worker);
		$control->value("SELECT pg_terminate_backend($pid)");
		$control->poll("SELECT pid <> $pid FROM dbpool_workers WHERE worker = $worker", 't');
	}
	is($control->value($what), $before, 'what was counted outlives the workers');
	$control->value(q{SELECT dbpool_exec('known', 'SELECT 1')});
	isnt($control->value($what), $before, 'and is added to');
}

# --- the server's end ---------------------------------------------------------------------------

# All that is kept.
my $all = q{
	SELECT string_agg(s::text, E'\n' ORDER BY s::text) FROM (
		SELECT pool, database, user_name, statements, errors, timeouts, cancels, connects, connect_time::numeric(20, 3), waits,
			wait_time::numeric(20, 3), wait_time_max, exec_time::numeric(20, 3), exec_time_max, rows, bytes_sent, bytes_received,
			-- two clocks are read, one after the other
			date_trunc('minute', stats_reset) AS stats_reset, p50, p99_9, total_mean, decode_mean
		FROM dbpool_stat_pools) s
	UNION ALL SELECT string_agg(l::text, E'\n' ORDER BY l::text) FROM dbpool_stat_latency l WHERE kind <> 'network'
	UNION ALL SELECT string_agg(h::text, E'\n' ORDER BY h::text) FROM dbpool_histograms h WHERE kind <> 'network'};
my $file = $local->data_dir . '/pg_stat/dbpool.stat';

# --- calls that nobody answers ----------------------------------------------------------

{
	my $holds = session($local);
	my $fails = sub {
		my ($call, $state) = @_;
		is($control->query("SELECT $call")->{state}, $state, "$call: $state");
	};

	create_pool($local, 'nowhere', undef, host => '/nonexistent');
	create_pool($local, $_, $remote, max_size => 1, acquire_timeout => '200ms') foreach 'stopped', 'taken', 'breaks';
	$fails->(q{dbpool_ping('nowhere')}, '08001') foreach 1 .. 3;
	is(join('|', stat_of('nowhere', 'statements, errors, timeouts, unserved')), '0|0|0|3', 'no connection can be opened');

	$control->value(q{SELECT dbpool_disable('stopped')});
	$fails->(q{dbpool_ping('stopped')}, '55000') foreach 1 .. 2;
	$control->value(q{SELECT dbpool_enable('stopped')});
	$control->value(q{SELECT dbpool_ping('stopped')});
	is(join('|', stat_of('stopped', 'statements, errors, timeouts, unserved')), '1|0|0|2', 'the pool is disabled');

	$holds->send(q{SELECT dbpool_exec('taken', 'SELECT pg_sleep(60)')});
	$control->poll(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'taken' AND state = 'busy'}, '1');
	$fails->(q{dbpool_ping('taken')}, '53300');
	is(join('|', stat_of('taken', 'statements, errors, timeouts, unserved')), '0|0|1|1', 'none comes free');
	$control->value("SELECT pg_cancel_backend($holds->{pid})");
	$holds->wait;

	$fails->(q{dbpool_exec('breaks', 'SELECT 1/0')}, '22012');
	is(join('|', stat_of('breaks', 'errors, unserved')), '1|0', 'an error of the remote is an answer');
	$fails->(q{dbpool_exec('breaks', 'DO $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END$$')}, '08007');
	is(join('|', stat_of('breaks', 'errors, unserved')), '2|0', 'and a loss is one of a call that had a connection');
	like($control->value('SELECT dbpool_metrics()'), qr/^dbpool_pool_unserved_total\{database="postgres",pool="nowhere",user="\w+"\} 3$/m, 'a metric');
	$holds->quit;
}

sub rows
{
	return $local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_stat_pools');
}

{
	create_pool($local, 'goes', $remote);
	$control->value(q{SELECT dbpool_ping('goes')});
	$control->value(q{DROP SERVER goes CASCADE});
	$local->safe_psql('postgres', 'CREATE DATABASE goes_too');
	$local->safe_psql('goes_too', q{CREATE EXTENSION dbpool; SELECT dbpool_create_pool('of_another', 'host=/nonexistent')});
	$local->psql('goes_too', q{SELECT dbpool_ping('of_another')});
	$local->safe_psql('postgres', 'DROP DATABASE goes_too');

	my $before = $local->safe_psql('postgres', $all);
	my $n = rows();
	unlike($before, qr/goes|of_another/, 'pools of what was dropped are not shown');

	$local->restart;
	is($local->safe_psql('postgres', $all), $before, 'all is there after an orderly restart');
	ok(!-e $file, 'and the file is not');
	$local->append_conf('postgresql.conf', "dbpool.workers = 1\n");
	$local->restart;
	is($local->safe_psql('postgres', $all), $before, 'also with fewer workers');
	$local->safe_psql('postgres', q{SELECT dbpool_exec('known', 'SELECT 1')});
	is( $local->safe_psql(
			'postgres',
			q{SELECT count(*) FROM dbpool_get_pools() WHERE pool = 'known'}),
		1, 'a pool that is used again goes on in its entry');
	isnt($local->safe_psql('postgres', $all), $before, 'and counts on');

	$local->stop('immediate');
	$local->start;
	is(rows(), 0, 'nothing is there after an end that was none');

	my $damage = sub {
		my ($how, $what) = @_;

		$local->safe_psql('postgres', q{SELECT dbpool_ping('known'), dbpool_ping('near')});
		$local->stop;
		my $bytes = slurp_file($file);
		my $log = -s $local->logfile;
		open my $out, '>:raw', $file or die "could not open $file: $!";
		print $out $how->($bytes);
		close $out;
		$local->start;
		is(rows(), 0, "$what: statistics begin anew");
		like(slurp_file($local->logfile, $log), qr/LOG:  dbpool ignores the statistics in file/, 'with a line in the log');
		ok(!-e $file, 'and the file is not there any more');
	};
	$damage->(sub { return substr $_[0], 0, -1 }, 'a file that was cut');
	$damage->(sub { return $_[0] . 'x' }, 'one that is longer');
	$damage->(sub { return '' }, 'an empty one');
	$damage->(sub { my $b = $_[0]; substr($b, 5000, 1) ^= "\1"; return $b }, 'one with a wrong bit');
	$damage->(sub { my $b = $_[0]; substr($b, 8, 4) = pack 'L', 0xFFFFFFFF; return $b }, 'one that says it is larger');

	$local->safe_psql('postgres', q{SELECT dbpool_ping('known'), dbpool_ping('near')});
	$local->append_conf('postgresql.conf', "dbpool.max_pools = 1\n");
	$local->restart;
	is(rows(), 1, 'with less room, some are kept');

	SKIP:
	{
		skip 'root may write everywhere', 2 if $> == 0;
		my $log = -s $local->logfile;
		chmod 0500, $local->data_dir . '/pg_stat';
		$local->stop;
		chmod 0700, $local->data_dir . '/pg_stat';
		like(slurp_file($local->logfile, $log), qr/LOG:  dbpool could not write its statistics to file/,
			'what cannot be written is said');
		$local->start;
		is(rows(), 0, 'and is all that happens');
	}
}

done_testing();
