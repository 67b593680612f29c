
# dbpool_stat_statements under load: which texts are one statement, by src/backend/digest.c
# itself; what is forgotten when there are more than there is room for; one statement over
# several workers; times that are known; what outlives what.
#
# DIGEST_PAIRS makes the digest's part longer, DIGEST_SEED repeats it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 2, conf => "dbpool.split_threshold = 0\ndbpool.max_statements = 20\n");
my $control = session($local);

# What is known of the statements of a pool whose text is like that.
sub stat_of
{
	my ($pool, $like, $columns) = @_;

	return $control->value("SELECT $columns FROM dbpool_stat_statements WHERE pool = '$pool' AND query LIKE '$like'");
}

# --- which texts are one statement ----------------------------------------------------------

{
	my $pairs = $ENV{DIGEST_PAIRS} // 20000;
	my $output = qx{'$FindBin::RealBin/../digest/digest' @{[ $ENV{DIGEST_SEED} // 0 ]} $pairs 2>&1};

	note($output);
	is($?, 0, 'what counts in a text makes another digest, what does not makes none');
	my ($same, $differ) = $output =~ /^(\d+) pairs that are the same, (\d+) that differ$/m;
	is($same + $differ, 2 * $pairs, 'of all pairs');
	cmp_ok($differ, '>', $pairs / 2, 'of which many differ');
}

# --- more statements than there is room for --------------------------------------------------

create_pool($local, 'p', $remote, max_size => 2);
{
	$control->value("SELECT dbpool_exec('p', 'SELECT 1 AS often') FROM generate_series(1, 10)");
	$control->value("SELECT dbpool_exec('p', 'SELECT 1 AS a' || i) FROM generate_series(1, 30) i");
	is( $control->value('SELECT statements, max_statements, evictions FROM dbpool_stat_statements_info'),
		'20|20|11', 'as many are kept as there is room for, and it is counted how many are not');
	is(stat_of('p', '%often', 'calls'), 10, 'one that came often is among them');
	is($control->value('SELECT count(*) FROM dbpool_stat_statements'), 20, 'all of those are shown');
	$control->value("SELECT dbpool_exec('p', 'SELECT 1 AS often')");
	is(stat_of('p', '%often', 'calls'), 11, 'and counts on');
	# the session remembers that it has been there
	$control->value("SELECT dbpool_exec('p', 'SELECT 1 AS a1')");
	is(stat_of('p', '%a1', 'calls'), 1, 'one that was forgotten begins anew');
	$control->value("SELECT dbpool_exec('p', 'SELECT 1 AS b' || i) FROM generate_series(1, 200) i");
	is(stat_of('p', '%often', 'count(*)'), 0, 'one that comes no more is forgotten at last');

	# all the time others come, on both sides of the table's end
	my ($pgbench) = start_pgbench($local,
		"\\set a random(1, 60)\nSELECT dbpool_exec('p', format('SELECT 1 AS c%s', :a));\n", '-c', 4, '-t', 500);
	$pgbench->finish;
	is($pgbench->result(0), 0, 'sessions whose statements push out each other work');
	is($control->value('SELECT statements FROM dbpool_stat_statements_info'), 20, 'no place is lost by that');
	$control->value("SELECT dbpool_stat_statements_reset('p')");
	is($control->value('SELECT statements, evictions > 100 FROM dbpool_stat_statements_info'),
		'0|t', 'a reset frees all places');
	$control->value('SELECT dbpool_stat_statements_reset()');
	is($control->value('SELECT evictions FROM dbpool_stat_statements_info'), 0, 'one of all pools counts anew');
}

# --- what is counted --------------------------------------------------------------------------

{
	my $holder = session($local);

	$control->value("SELECT dbpool_exec('p', 'SELECT pg_sleep(0.2), 1') FROM generate_series(1, 5)");
	my ($calls, $mean, $remote_mean, $max, $p95) = split /\|/,
	  stat_of('p', 'SELECT pg\_sleep(?)%', 'calls, mean, remote_mean, max, p95');
	is($calls, 5, 'calls are counted');
	cmp_ok($_, '>', 190, 'in the time that they have taken') foreach $mean, $remote_mean, $p95;
	cmp_ok($mean, '<', 400, 'each of them');

	$control->value('SELECT dbpool_stat_statements_reset()');
	$holder->send(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(600)')});
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
	is(stat_of('p', '%', 'count(*)'), 0, 'what has not ended is not there');
	$control->value('SELECT pg_cancel_backend(' . $holder->pid . ')');
	is($holder->wait->{state}, '57014', 'a call is given up');
	$control->poll(q{SELECT calls, errors FROM dbpool_stat_statements WHERE pool = 'p'}, '1|1');
	pass('and is counted as one that has not ended well');
}

# --- a pool over several workers -----------------------------------------------------------------

create_pool($local, 'split', $remote, max_size => 6);
{
	my ($pgbench) = start_pgbench($local, "SELECT dbpool_exec('split', 'SELECT 1 AS split');\n", '-c', 8, '-T', 60);

	$control->poll(q{SELECT workers FROM dbpool_pools WHERE pool = 'split'}, '2');
	$pgbench->kill_kill;
	$pgbench->finish;
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE pool = 'split'}, '0');
	$control->value(q{SELECT dbpool_stat_reset('split')});
	($pgbench) = start_pgbench($local, "SELECT dbpool_exec('split', 'SELECT \$1::int AS split', :client_id);\n", '-c', 8, '-t', 200);
	$pgbench->finish;
	is( stat_of('split', '%', 'calls, errors, rows'),
		'1600|0|1600', 'a statement whose pool has several workers is one, and no call is missing');
	my ($mean, $parts) = split /\|/,
	  stat_of('split', '%', 'mean, queue_mean + worker_mean + wire_mean + remote_mean + decode_mean');
	cmp_ok(abs($mean - $parts), '<', 0.001 * $mean, 'the parts of its time are the whole');
	my ($shared, $prepared) = split /\|/, stat_of('split', '%', 'shared, prepared');
	cmp_ok($shared, '>', 0, 'its connections were shared');
	cmp_ok($prepared, '>', 1000, 'and it was prepared');
}

# --- what outlives what ---------------------------------------------------------------------------

{
	my $before = stat_of('split', '%', 'digest, query, calls, mean, p99, last_call');
	my $pid = worker_pid($control);

	$control->value("SELECT pg_terminate_backend($pid)");
	$control->poll("SELECT count(*) FROM dbpool_workers WHERE pid IS NOT NULL AND pid <> $pid", '2');
	is(stat_of('split', '%', 'digest, query, calls, mean, p99, last_call'), $before, 'statistics outlive a worker');
	$control->quit;
	$local->restart;
	$control = session($local);
	is(stat_of('split', '%', 'digest, query, calls, mean, p99, date_trunc(\'second\', last_call) = date_trunc(\'second\', last_call)'),
		($before =~ s/\|[^|]*$/|t/r), 'and an orderly restart of the server');
	$control->value(q{SELECT dbpool_exec('split', 'SELECT $1::int AS split', 3)});
	is(stat_of('split', '%', 'calls'), '1601', 'and count on');

	$control->quit;
	$local->stop;
	$local->append_conf('postgresql.conf', "dbpool.max_statements = 1\n");
	$local->start;
	$control = session($local);
	is($control->value('SELECT statements FROM dbpool_stat_statements_info'), 1, 'with fewer places, some are lost');

	$control->quit;
	$local->append_conf('postgresql.conf', "dbpool.max_statements = 0\n");
	$local->restart;
	$control = session($local);
	is($control->value(q{SELECT dbpool_exec('split', 'SELECT 3 AS split')}), 1, 'without places calls work');
	is( $control->value(
			q{SELECT count(*), (SELECT statements FROM dbpool_stat_statements_info) FROM dbpool_stat_statements}),
		'0|0', 'and nothing is shown');
	$control->value('SELECT dbpool_stat_statements_reset()');
}

$control->quit;
done_testing();
