
# Two servers: a statement goes through, and the helpers of the tests work.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local();

create_pool($local, 'p', $remote, max_size => 2);

my $s = session($local);

is( $s->value(
		"SELECT * FROM dbpool_query('p', 'SELECT \$1 + 1', 41) AS t(x int)"),
	'42',
	'a statement goes through');
is($s->value("SELECT busy, idle, connecting FROM dbpool_pools"),
	'0|1|0', 'its connection is idle afterwards');
is( $remote->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool'"
	),
	'1',
	'the remote has one connection');

my $answer =
  $s->query("SELECT * FROM dbpool_query('p', 'SELECT 1/0') AS t(x int)");
is($answer->{state}, '22012', 'the remote\'s SQLSTATE arrives');
like($answer->{err}, qr/statement on pool "p"/, 'and the name of the pool');

my $pid = worker_pid($s);
ok( $s->poll(
		"SELECT backend_type, wait_event_type FROM pg_stat_activity WHERE pid = $pid",
		'dbpool worker|Extension'),
	'the worker is in pg_stat_activity');
cmp_ok(rss_kb($pid), '>', 100, 'its memory can be read');

$s->quit;
done_testing();
