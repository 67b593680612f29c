
# dbpool_stat_history: what pools did in each span of time. Nothing is counted twice or not at
# all, whoever ends or is put back meanwhile, and percentiles are those of all workers' calls.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 2, conf => "dbpool.split_threshold = 1\ndbpool.max_pools = 6\ndbpool.history_interval = 1h\n");
my $control = session($local);

create_pool($local, 'p', $remote, max_size => 2);

sub interval
{
	my ($interval) = @_;

	$control->value("ALTER SYSTEM SET dbpool.history_interval = '$interval'");
	$control->value('SELECT pg_reload_conf()');
	return;
}

my $all_rows = 'SELECT count(*) FROM dbpool_stat_history';
my $last_end = q{SELECT coalesce(max(ended_at), '-infinity') FROM dbpool_stat_history};

# End the present span, and begin a long one.
sub end_span
{
	my $before = $control->value($last_end);

	interval('100ms');
	$control->poll(qq{SELECT max(ended_at) > '$before' FROM dbpool_stat_history});
	interval('1h');
	$control->poll(q{SELECT max(ended_at) < clock_timestamp() - interval '1 s' FROM dbpool_stat_history});
	return;
}

# What the spans of a pool that are not empty have.
sub spans
{
	my ($pool, $columns) = @_;

	return $control->value(qq{SELECT $columns FROM dbpool_stat_history WHERE pool = '$pool' AND calls > 0
		ORDER BY began_at});
}

sub calls
{
	my ($pool, $n) = @_;

	$control->value(qq{SELECT count(dbpool_exec('$pool', 'SELECT 1')) FROM generate_series(1, $n)});
	return;
}

my $errors = q{DO $$ BEGIN FOR i IN 1 .. 3 LOOP
	BEGIN PERFORM dbpool_exec('p', 'SELECT 1/0'); EXCEPTION WHEN division_by_zero THEN END; END LOOP; END $$};

# --- what is counted -------------------------------------------------------------------------

is($control->value($all_rows), '0', 'before a span has ended there is nothing');
calls('p', 10);
$control->query($errors);
$control->value(query_sleeps('p', 0.2));
end_span();
is(spans('p', 'calls, errors, timeouts'), '14|3|0', 'calls and errors of a span');
is(spans('p', 'p50 > 0 AND p50 < 200 AND p95 BETWEEN 190 AND 2000 AND p99 = p95 AND queue_p95 >= 0'), 't', 'how long they took');
is( spans('p', q{utilisation * extract(epoch FROM ended_at - began_at) BETWEEN 0.05 AND 1}), 't',
	'and how much of the pool was in use: half of it for 0.2 s at least');
my $first = $control->value(q{SELECT round(extract(epoch FROM min(began_at) - pg_postmaster_start_time())) FROM dbpool_stat_history});
cmp_ok(abs($first), '<=', 5, 'the first one begins with the server');

# one that is in vain, and one that is under way when a span ends
create_pool($local, 'w', $remote, max_size => 1, acquire_timeout => '200ms');
{
	my $holder = session($local);

	$holder->send(query_sleeps('w', 600));
	$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'w'}, '1');
	is($control->query(query_sleeps('w', 0))->{state}, '53300', 'a call gets no connection');
	end_span();
	is(spans('w', 'calls, errors, timeouts, p50 >= 190, queue_p95 >= 190'), '1|1|1|t|t', 'is one that has failed, and has waited');
	end_span();
	is($control->value(q{SELECT round(utilisation::numeric, 2), calls, p50 IS NULL, queue_p95 IS NULL
		FROM dbpool_stat_history WHERE pool = 'w' ORDER BY began_at DESC LIMIT 1}), '1.00|0|t|t', 'the other one has not ended, and its connection is in use');
	$control->value("SELECT pg_cancel_backend($holder->{pid})");
	$holder->wait;
}

# --- spans follow each other -------------------------------------------------------------------

interval('100ms');
calls('p', 50) foreach 1 .. 5;
$control->poll(q{SELECT count(*) FROM dbpool_stat_history WHERE pool = 'p'}, '60');
{
	my $oldest = $control->value(q{SELECT min(began_at) FROM dbpool_stat_history WHERE pool = 'p'});

	$control->poll(qq{SELECT min(began_at) > '$oldest' FROM dbpool_stat_history WHERE pool = 'p'});
	is($control->value(q{SELECT count(*) FROM dbpool_stat_history WHERE pool = 'p'}), '60', 'sixty are kept, and then the oldest goes');
	is( $control->value(
			q{SELECT count(*) || '/' || count(*) FILTER (WHERE began_at = before) || '/' || count(*) FILTER (WHERE ended_at - began_at < '99ms')
			FROM (SELECT *, lag(ended_at) OVER (ORDER BY began_at) AS before FROM dbpool_stat_history WHERE pool = 'p') h}),
		'60/59/0', 'each begins when the one before it ends');
	is($control->value(q{SELECT count(DISTINCT began_at) FROM (SELECT * FROM dbpool_stat_history ORDER BY began_at DESC LIMIT 2) h}),
		'1', 'the same for all pools');
}
interval('1h');

# --- what is put back, and who ends ---------------------------------------------------------------

calls('p', 7);
$control->value(q{SELECT dbpool_stat_reset('p')});
is($control->value(q{SELECT count(*) FROM dbpool_stat_history WHERE pool = 'p'}), '0', 'with the statistics the history goes');
cmp_ok($control->value(q{SELECT count(*) FROM dbpool_stat_history WHERE pool = 'w'}), '>', 0, 'but that of others');
calls('p', 2);
$control->value(query_sleeps('p', 0.1));
end_span();
is(spans('p', 'sum(calls) OVER (), p99 >= 99, p50 < 99'), '3|t|t', 'what came after that is there');
is($control->value(q{SELECT min(h.began_at) >= max(s.stats_reset) FROM dbpool_stat_history h JOIN dbpool_stat_pools s USING (pool, database, user_name)
	WHERE pool = 'p'}), 't', 'and begins then');

calls('p', 4);
foreach my $worker (1, 2)
{
	my $pid = worker_pid($control, $worker);

	$control->value("SELECT pg_terminate_backend($pid)");
	$control->poll("SELECT pid <> $pid FROM dbpool_workers WHERE worker = $worker", 't');
}
calls('p', 5);
end_span();
is($control->value(q{SELECT calls FROM dbpool_stat_history WHERE pool = 'p' AND calls > 0 ORDER BY began_at DESC LIMIT 1}), '9',
	'workers that end and start again lose none');

# --- several workers ------------------------------------------------------------------------------

create_pool($local, 'split', $remote, max_size => 6);
end_span();
{
	# a worker whose connections are mostly taken by what takes long does not give half of them away
	my $script = "SELECT dbpool_exec('split', 'SELECT 1');\n"
	  . "\\if :client_id < 2\nSELECT dbpool_exec('split', 'SELECT pg_sleep(0.02)');\n\\endif\n";
	my ($pgbench) = start_pgbench($local, $script, '-c', 8, '-T', 60);

	$control->poll(q{SELECT workers FROM dbpool_pools WHERE pool = 'split'}, '2');
	$control->poll(q{SELECT count(DISTINCT worker) FROM dbpool_connections WHERE pool = 'split' AND state = 'busy'}, '2');
	$pgbench->kill_kill;
	$control->poll(q{SELECT busy + waiting FROM dbpool_pools WHERE pool = 'split'}, '0');
	$control->poll(q{SELECT NOT EXISTS (SELECT FROM dbpool_requests)}, 't');
	end_span();
	is(spans('split', 'count(*) OVER (), calls'), '1|' . $control->value(q{SELECT statements + errors FROM dbpool_stat_pools WHERE pool = 'split'}),
		'a pool of two workers has one row, with the calls of both');
	foreach my $percentile (qw(p50 p95 p99))
	{
		my $of_all = $control->value(qq{SELECT round($percentile\::numeric, 2) FROM dbpool_stat_latency WHERE pool = 'split' AND kind = 'total'});

		cmp_ok(abs(spans('split', "round($percentile\::numeric, 2)") - $of_all), '<', 0.02, "$percentile is that of all calls");
	}
	my $waited = $control->value(q{SELECT round(p95::numeric, 2) FROM dbpool_stat_latency WHERE pool = 'split' AND kind = 'queue'});

	cmp_ok(abs(spans('split', 'round(queue_p95::numeric, 2)') - $waited), '<', 0.02, 'also of the waiting');
}

# --- an entry that another pool gets ---------------------------------------------------------------

$control->value(q{DROP SERVER split CASCADE});
$control->poll(q{SELECT count(*) FROM dbpool_get_pools() WHERE pool = 'split' AND live}, '0');
foreach my $i (1 .. 4)
{
	create_pool($local, "new$i", $remote, max_size => 1);
	calls("new$i", $i);
}
end_span();
is( $control->value(
		q{SELECT string_agg(format('%s=%s', pool, n), ' ' ORDER BY pool)
		FROM (SELECT pool, sum(calls) AS n FROM dbpool_stat_history WHERE pool NOT IN ('p', 'w') GROUP BY 1) h}),
	'new1=1 new2=2 new3=3 new4=4', 'nothing is left there of the one before');

# --- who sees it, and the server's end ----------------------------------------------------------------

$control->value('CREATE ROLE nobody; CREATE ROLE monitor IN ROLE pg_monitor; CREATE ROLE owner');
$control->value('GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO owner; ALTER SERVER new2 OWNER TO owner');
my $seen = q{SELECT coalesce(string_agg(DISTINCT pool::text, ' '), 'nothing') FROM dbpool_stat_history};
is($control->value("SET ROLE nobody; $seen"), 'nothing', 'others see nothing of a pool');
is($control->value("SET ROLE owner; $seen"), 'new2', 'its owner does');
is($control->value("SET ROLE monitor; $seen"), 'new1 new2 new3 new4 p', 'and who may read all statistics');
$control->value('RESET ROLE');
$control->quit;

$local->restart;
$control = session($local);
is($control->value($all_rows), '0', 'after a restart of the server it begins anew');
calls('new3', 1);
end_span();
is($control->value(q{SELECT sum(calls) FROM dbpool_stat_history}), '1', 'and what was counted before is of no span');
is(spans('new3', 'calls, p50 = p99'), '1|t', 'nor are its times');

done_testing();
