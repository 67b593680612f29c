
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

# "make installcheck" needs a second server: it says so before it runs anything.
SKIP:
{
	my $make = $ENV{MAKE} || 'make';
	my @unset = ('env', '-u', 'MAKEFLAGS', '-u', 'MAKELEVEL', '-u', 'DBPOOL_REMOTE_HOST', '-u', 'DBPOOL_REMOTE_PORT', '-u', 'PGOPTIONS');
	my @command = (@unset, $make, '-C', "$FindBin::RealBin/../..", $ENV{PG_CONFIG} ? "PG_CONFIG=$ENV{PG_CONFIG}" : ());

	skip 'make is not installed', 18 if system("$make --version >/dev/null 2>&1") != 0;
	foreach my $target ('installcheck', 'installcheck-regress', 'installcheck-isolation')
	{
		my ($out, $err) = ('', '');

		ok(!IPC::Run::run([ @command, $target ], '<', \undef, '>', \$out, '2>', \$err),
			"$target without a second server fails");
		like($err, qr/installcheck needs a second server: set DBPOOL_REMOTE_HOST/, 'and says why');
		unlike($out, qr/pg_regress|pg_isolation|prove/, 'before anything is run');
		ok( !IPC::Run::run([ @command, $target, 'DBPOOL_REMOTE_HOST=/nonesuch', 'DBPOOL_REMOTE_PORT=1' ],
				'<', \undef, '>', \$out, '2>', \$err),
			"$target with one that is not there fails");
		like($err, qr{/nonesuch.*installcheck cannot reach}s, 'and says why');
		unlike($out, qr/pg_regress|pg_isolation|prove/, 'before anything is run');
	}
}

done_testing();
