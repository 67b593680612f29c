# A hot standby: pools work there as on the primary, with workers of its own,
# and go on working when it is promoted.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
$remote->safe_psql('postgres', 'CREATE TABLE notes (note text)');

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'dbpool'
dbpool.workers = 2
max_connections = 30
});
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION dbpool');
create_pool($primary, 'remote', $remote, max_size => 2);
create_pool($primary, 'warm', $remote, min_size => 2);

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

my $s = session($standby);
is($s->value('SELECT pg_is_in_recovery()'), 't', 'this is a standby');

# --- as a standby ---------------------------------------------------------------

foreach my $worker (1, 2)
{
	my $pid = worker_pid($s, $worker);
	is( $s->value(
			"SELECT backend_type FROM pg_stat_activity WHERE pid = $pid"),
		'dbpool worker',
		"worker $worker runs");
}
is( $s->value(
		q{SELECT * FROM dbpool_query('remote', 'SELECT $1 * 2', 21) AS t(x int)}
	),
	'42',
	'dbpool_query');
is( $s->value(q{SELECT dbpool_query_json('remote', 'SELECT 1 AS a')}),
	'{"a": 1}',
	'dbpool_query_json');
is( $s->value(q{SELECT dbpool_ping('remote') < interval '10 s'}),
	't', 'dbpool_ping');
is( $s->value(
		q{SELECT dbpool_exec('remote', $$INSERT INTO notes VALUES ('from the standby')$$)}
	),
	'1',
	'a standby may write to the remote');
is($remote->safe_psql('postgres', 'SELECT note FROM notes'),
	'from the standby', 'and has');
is( $s->query(
		q{SET dbpool.inherit_read_only = on; SELECT dbpool_exec('remote', $$INSERT INTO notes VALUES ('not this one')$$)}
	)->{state},
	'25006',
	'unless it is to inherit that the standby is read-only');
$s->value('RESET dbpool.inherit_read_only');
is( $s->value(
		q{SELECT dbpool_bulk_insert('remote', 'notes', 'SELECT ''row '' || generate_series(1, 1000)')}
	),
	'1000',
	'so it may in bulk');
is($s->query(q{SELECT dbpool_query('remote', 'SELECT 1/0')})->{state},
	'22012', 'errors arrive');
is( $s->value(
		q{SELECT state FROM dbpool_pools WHERE pool = 'remote'}),
	'active',
	'the views show the pool');
is( $s->query(
		q{SELECT dbpool_create_pool('other', 'host=/nowhere')})->{state},
	'25006',
	'a new pool cannot be made on a standby');
$s->poll(
	q{SELECT idle FROM dbpool_pools WHERE pool = 'warm'}, '2');
is($s->value(q{SELECT idle FROM dbpool_pools WHERE pool = 'warm'}),
	'2', 'a pool with a min_size is warmed on a standby');
$s->quit;
$standby->restart;
$s = session($standby);
ok($s->poll(q{SELECT idle FROM dbpool_pools WHERE pool = 'warm'}, '2'), 'and after a restart of that, before anybody calls');
is($s->value(q{SELECT sum(statements) FROM dbpool_stat_pools WHERE pool = 'warm'}), '0', 'indeed');

# What is bound to a transaction of the standby is read-only, as that is.
my $write = q{$$INSERT INTO notes VALUES ('in a transaction')$$};
my $notes = q{SELECT * FROM dbpool_query('remote', $$SELECT count(*) FROM notes WHERE note = 'in a transaction'$$) AS t(n int)};

$s->value('SET dbpool.transaction = bound');
$s->value('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($s->value($notes), '0', 'a bound transaction reads');
is($s->value(q{SELECT isolation, read_only FROM dbpool_transactions}),
	'repeatable read|t', 'as the local one does');
my $refused = $s->query("SELECT dbpool_exec('remote', $write)");
is($refused->{state}, '25006', 'it does not write');
like($refused->{err}, qr/cannot execute INSERT in a read-only transaction/, 'which is said');
is($s->query('COMMIT')->{err}, '', 'it ends');
$s->value('BEGIN; SAVEPOINT a');
is($s->query("SELECT dbpool_exec('remote', $write)")->{state}, '25006', 'nor does it in a savepoint');
$s->value('ROLLBACK TO a');
is($s->value($notes), '0', 'and goes on');
is($s->query('COMMIT')->{err}, '', 'to its end');
$s->value('RESET dbpool.transaction');
$s->value(q{SELECT dbpool_begin('remote', 'tx')});
is($s->query("SELECT dbpool_exec('tx', $write)")->{state}, '25006', 'nor does one by name');
$s->value(q{SELECT dbpool_rollback('tx')});
$s->value(q{SELECT dbpool_begin('remote', 'tx', read_only => false)});
is($s->value("SELECT dbpool_exec('tx', $write)"), '1', 'unless it is begun for that');
is($s->query(q{SELECT dbpool_commit('tx')})->{err}, '', 'and it is committed');
is($s->value($notes), '1', 'as the remote has it');

# A definition that comes by replication takes effect.
$primary->safe_psql('postgres',
	q{ALTER SERVER remote OPTIONS (ADD application_name 'renamed')});
$primary->wait_for_catchup($standby);
is( $s->value(
		q{SELECT dbpool_query('remote', 'SHOW application_name')}),
	'(renamed)',
	'ALTER SERVER on the primary takes effect on the standby');
$primary->safe_psql(
	'postgres', q{
	ALTER SERVER remote OPTIONS (DROP application_name);
	CREATE DATABASE away;
	DROP DATABASE away});
$primary->wait_for_catchup($standby);
ok(1, 'DROP DATABASE is replayed beside the workers');

# A worker that ends comes again.
my $pid = worker_pid($s);
$s->value("SELECT pg_terminate_backend($pid)");
$s->poll(q{SELECT starts FROM dbpool_workers WHERE worker = 1}, '2');
is( $s->value(q{SELECT dbpool_query('remote', 'SELECT 1')}),
	'(1)', 'a worker starts again on a standby');

# --- promotion ----------------------------------------------------------------------

# A statement that runs meanwhile goes on, and so does the connection.
my $remote_pid =
  $s->value(q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')});
my $busy = session($standby);
$remote->safe_psql('postgres', 'CREATE TABLE gate ()');
my $gate = session($remote);
$gate->value('BEGIN; LOCK TABLE gate');
$busy->send(
	q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid(), count(*) FROM gate')}
);
$s->poll(
	q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
my $workers = $s->value('SELECT pid FROM dbpool_workers ORDER BY worker');

my $open = session($standby);
$open->value(q{SELECT dbpool_begin('warm', 'tx', read_only => false)});
$open->value("SELECT dbpool_exec('tx', $write)");

# nobody can be notified there
my $news = q{SELECT dbpool_pause('remote', '0'), dbpool_resume('remote')};
is($s->query($news)->{err}, '', 'a pause, of which nobody is told');

$standby->promote;
is($s->value('SELECT pg_is_in_recovery()'), 'f', 'it is promoted');
is($s->value('SELECT pid FROM dbpool_workers ORDER BY worker'),
	$workers, 'the workers go on');
$gate->value('ROLLBACK');
my $answer = $busy->wait;
like($answer->{out}, qr/^\(\d+,0\)$/, 'so does a statement that was running');
is($s->value(q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')}),
	$remote_pid, 'and the connections');
is($open->query(q{SELECT dbpool_commit('tx')})->{err}, '', 'and a transaction that was open');
is($s->value($notes), '2', 'to its end');
$s->value('SET dbpool.transaction = bound; BEGIN');
is($s->value("SELECT dbpool_exec('remote', $write)"), '1', 'a bound one may write from now on');
is($s->query('COMMIT')->{err}, '', 'and commit');

my $listener = session($standby);
$listener->query('LISTEN dbpool');
$s->value($news);
my $heard = '';
wait_until('who listens is told', sub { $heard .= $listener->query('SELECT 1')->{out}; $heard =~ /"resumed"/ });
is(() = $heard =~ /"paused"/g, 1, 'of what came after that');
is($s->value($notes), '3', 'what it has');
$s->value('RESET dbpool.transaction');
$open->quit;

$s->value(
	sprintf
	  q{SELECT dbpool_create_pool('after', 'host=%s port=%s dbname=postgres')},
	$remote->host,
	$remote->port);
is($s->value(q{SELECT dbpool_query('after', 'SELECT 1')}),
	'(1)', 'new pools can be made after the promotion');
$s->value(q{SELECT dbpool_drop_pool('after')});
is($s->query(q{SELECT dbpool_query('after', 'SELECT 1')})->{state},
	'42704', 'and dropped');

$standby->stop('fast');
$standby->start;
$s = session($standby);
is( $s->value(q{SELECT dbpool_query('remote', 'SELECT 1')}),
	'(1)', 'it works after a restart');

$s->quit;
done_testing();
