
# Several workers: pools are shared out, and one worker's end is no concern of
# the others' pools.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 3);
my $control = session($local);
my @pools = map { "p$_" } 1 .. 24;

create_pool($local, $_, $remote, max_size => 2) foreach @pools;

is($control->value('SELECT count(DISTINCT pid) FROM dbpool_workers'),
	'3', 'there are three workers');
is( $control->value(
		"SELECT string_agg(DISTINCT application_name || backend_type, ',') FROM pg_stat_activity WHERE backend_type = 'dbpool worker'"
	),
	'dbpool worker',
	'which pg_stat_activity shows');

foreach my $pool (@pools)
{
	is( $control->value(
			"SELECT * FROM dbpool_query('$pool', 'SELECT 42') AS t(x int)"),
		'42',
		"pool $pool works");
}
is( $control->value(
		'SELECT string_agg(DISTINCT worker::text, \',\' ORDER BY worker::text) FROM dbpool_pools'
	),
	'1,2,3',
	'each worker has pools');
is( $control->value(
		'SELECT sum(pools), sum(connections) FROM dbpool_workers'),
	'24|24',
	'each pool has one worker');
is( $control->value(
		'SELECT count(*) FROM dbpool_connections c JOIN dbpool_pools p USING (pool) WHERE c.worker <> p.worker'
	),
	'0',
	'which has its connections');

# A pool of each worker, and a session that uses it.
my %session;
my %pool;
foreach my $worker (1 .. 3)
{
	$pool{$worker} = $control->value(
		"SELECT min(pool) FROM dbpool_pools WHERE worker = $worker");
	$session{$worker} = session($local);
	$session{$worker}->send(query_sleeps($pool{$worker}, 3));
}
$control->poll(
	q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '3');
my $pid = worker_pid($control, 2);
$control->value("SELECT pg_terminate_backend($pid)");

my $answer = $session{2}->wait;
like($answer->{state}, qr/^08/,
	'the end of a worker is told to its sessions');
is($session{$_}->wait->{err}, '', 'those of others go on') foreach 1, 3;
foreach my $worker (1 .. 3)
{
	is( $session{$worker}->value(
			"SELECT * FROM dbpool_query('$pool{$worker}', 'SELECT 42') AS t(x int)"
		),
		'42',
		"pools of worker $worker work");
}
is( $control->value(
		'SELECT string_agg(starts::text, \',\' ORDER BY worker) FROM dbpool_workers'
	),
	'1,2,1',
	'one of them was started again');
is( $control->value(
		"SELECT worker FROM dbpool_pools WHERE pool = '$pool{2}'"),
	'2',
	'and has its pools again');

# A session that uses the pools of all workers in one statement.
is( $control->value(
		'SELECT sum(x) FROM dbpool_pools, dbpool_query(pool, \'SELECT 1\') AS t(x int)'
	),
	'24',
	'one statement may use them all');
ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
	'no request is left');

$_->quit foreach ($control, values %session);
$local->stop('fast');
done_testing();
