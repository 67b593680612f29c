
# A pool whose load is too much for one worker is split over all of them. It is
# still one pool: one max_size, one row in the views, one pause.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $remote = make_remote();
my $local = make_local(workers => 3, conf => 'dbpool.split_threshold = 0');
my $control = session($local);
my $direct = session($remote);

create_pool($local, 'p', $remote, max_size => 7);
create_pool($local, 'single', $remote, max_size => 1);
create_pool($local, 'few', $remote, max_size => 3);

$direct->query('CREATE TABLE t (id serial, client int)');

my $ALL = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool'};

# Writes without an end, by many sessions.
sub load
{
	my ($pool) = @_;

	return start_pgbench(
		$local,
		"SELECT dbpool_exec('$pool', 'INSERT INTO t (client) VALUES (\$1)', :client_id);\n",
		'-c', 12, '-T', 120);
}

# --- it is split, and never larger than it may be --------------------------------------

my ($pgbench) = load('p');
my $most = 0;

ok( wait_until(
		'the pool is split',
		sub {
			my $n = $direct->value($ALL);

			$most = $n if $n > $most;
			return $control->value(
				q{SELECT workers FROM dbpool_pools WHERE pool = 'p'}) eq '3';
		}),
	'a busy pool gets all workers');
ok( wait_until(
		'all workers have connections',
		sub {
			my $n = $direct->value($ALL);

			$most = $n if $n > $most;
			return $control->value(
				q{SELECT count(*) FROM dbpool_workers WHERE connections > 0}) eq '3';
		}),
	'each of them has connections');
for (1 .. 50)
{
	my $n = $direct->value($ALL);

	$most = $n if $n > $most;
	sleep 0.02;
}
cmp_ok($most, '<=', 7, 'together they never had more than max_size');

# Seven of them are no multiple of three.
$control->query(q{ALTER SERVER p OPTIONS (ADD min_size '7')});
ok(wait_until('they have as many as min_size', sub { $direct->value($ALL) == 7 }),
	'and together they have all of it');
$control->query(q{ALTER SERVER p OPTIONS (DROP min_size)});
is($control->value(q{SELECT count(*) FROM dbpool_pools WHERE pool = 'p'}),
	'1', 'it is one row of dbpool_pools');
is($control->value(q{SELECT count(*) FROM dbpool_stat_pools WHERE pool = 'p'}),
	'1', 'and one of dbpool_stat_pools');

# --- what is done to it is done to all of it ------------------------------------------------

$control->query(q{SELECT dbpool_pause('p')});
ok( $control->poll(
		q{SELECT busy, waiting > 0 FROM dbpool_pools WHERE pool = 'p'}, '0|t'),
	'a pause holds up all of it');

my $before = $direct->value('SELECT count(*) FROM t');

sleep 0.3;
is($direct->value('SELECT count(*) FROM t'), $before, 'nobody writes meanwhile');
$control->query(q{SELECT dbpool_resume('p')});
ok( wait_until(
		'somebody writes',
		sub { $direct->value('SELECT count(*) FROM t') > $before + 100 }),
	'they all go on');

my $young = q{SELECT count(*) FROM dbpool_connections WHERE pool = 'p' AND connected_at < now()};

$control->query(q{BEGIN});
is($control->value($young) > 0, 1, 'there are connections');
$control->query(q{SELECT dbpool_reset('p')});
ok($control->poll($young, '0'), 'a reset renews those of all workers');
$control->query(q{COMMIT});

$control->query(q{ALTER SERVER p OPTIONS (SET max_size '2')});
ok(wait_until('the pool shrinks', sub { $direct->value($ALL) <= 2 }),
	'a smaller max_size holds for all of them');
ok( $control->poll(
		q{SELECT sum(connections) <= 2 FROM dbpool_workers}, 't'),
	'as the views say, once all have heard of it');
$control->query(q{ALTER SERVER p OPTIONS (SET max_size '7')});

# --- nothing is lost ---------------------------------------------------------------------------

$pgbench->signal('INT');
$pgbench->finish;
ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
	'no request is left');

# Statements that ended well, by dbpool's account, are what is in the table,
# but for those that were given up at the end.
my ($said, $cancels) = split /\|/,
  $control->value(
	q{SELECT statements, cancels FROM dbpool_stat_pools WHERE pool = 'p'});
my $there = $direct->value('SELECT count(*) FROM t');

cmp_ok($there, '>=', $said, 'what was done is there');
cmp_ok($there, '<=', $said + $cancels, 'and not more than was asked for');

# --- a pause waits for the transactions of all workers --------------------------------------------

my $owner = session($local);
my $later = session($local);
my $leased = q{SELECT worker FROM dbpool_connections WHERE pool = 'p' AND state = 'leased'};
my $write = q{SELECT dbpool_exec('p', 'INSERT INTO t (client) VALUES (100)')};
my (%bound, @others);

# A session of the pool, which has heard of all of its workers.
sub user
{
	my ($pool) = @_;
	my $s = session($local);

	$s->value("SELECT dbpool_exec('$pool', 'SELECT 1')");
	return $s;
}

# Which worker a session has is its own matter. All connections of each but one may be leased.
$control->query(q{ALTER SERVER p OPTIONS (SET max_size '9')});
foreach (1 .. 12)
{
	last if keys %bound == 3;
	my $s = user('p');
	my @before = split /\n/, $control->value($leased);

	$s->value('SET dbpool.transaction = bound; BEGIN');
	$s->value($write);
	my ($worker) = grep { my $w = $_; !grep { $_ eq $w } @before } split /\n/, $control->value($leased);
	if (defined $worker) { $bound{$worker} = $s }
	else { $s->query('ROLLBACK'); push @others, $s }
}
is(scalar keys %bound, 3, 'a transaction with each worker');
$owner->send(q{SELECT dbpool_pause('p', '1min')});
ok($control->poll(q{SELECT state, leased FROM dbpool_pools WHERE pool = 'p'}, 'paused|3'), 'a pause');
$later->send($write);
ok($control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1'), 'holds up what is not in them');
foreach my $worker (sort keys %bound)
{
	is($bound{$worker}->query($write)->{err}, '', 'a transaction goes on');
	ok(!$owner->is_done, 'it is waited for');
	is($bound{$worker}->query('COMMIT')->{err}, '', 'it ends');
}
is($owner->wait->{err}, '', 'when the last of them has ended, so has the wait');
is($control->value(q{SELECT busy + leased + cancelling FROM dbpool_pools WHERE pool = 'p'}), '0', 'nothing runs then');
is($control->value(q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}), '1', 'what has come later waits');
$owner->value(q{SELECT dbpool_resume('p')});
is($later->wait->{err}, '', 'until the pool is resumed');
$control->query(q{ALTER SERVER p OPTIONS (SET max_size '7')});

# --- writes in doubt, of each worker -------------------------------------------------------------

my $proxy = FaultProxy->start($remote);

$direct->query(q{
	CREATE TABLE slow (id int);
	CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION wait();});
create_pool($local, 'doubtful', undef, $proxy->options(max_size => 7, acquire_timeout => '30s'));
($pgbench) = load('doubtful');
ok( $control->poll(q{SELECT workers FROM dbpool_pools WHERE pool = 'doubtful'}, '3'), 'another pool is split');
$pgbench->signal('INT');
$pgbench->finish;
# which worker a session has is by chance: so many that each has enough for its part of max_size
my $n = 36;
my @writers = map { user('doubtful') } 1 .. $n;
my $committing = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted};

$direct->value('SELECT pg_advisory_lock(1)');
$writers[$_]->send("SELECT dbpool_exec('doubtful', 'INSERT INTO slow VALUES (\$1)', $_)") foreach 0 .. $n - 1;
ok( wait_until('all connections commit', sub { $direct->value($committing) == 7 }), 'as many as there may be are committed');
my $workers = $control->value(q{SELECT count(DISTINCT worker) FROM dbpool_connections WHERE pool = 'doubtful' AND state = 'busy'});
is($workers, '3', 'by all workers');
$proxy->tell('now reset');
ok( $control->poll(q{SELECT count(*) > 0 FROM dbpool_connections WHERE pool = 'doubtful' AND state = 'checking'}, 't'), 'the remote is asked');
cmp_ok($control->value(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'doubtful'}), '<=', 7, 'by no more than there may be');
$direct->value('SELECT pg_advisory_unlock(1)');
is($_->wait->{err}, '', 'a write in doubt, or one that has waited, succeeds') foreach @writers;
is($direct->value('SELECT count(*), count(DISTINCT id) FROM slow'), "$n|$n", 'each has run once');
is($control->value('SELECT count(*) FROM dbpool_requests'), '0', 'nothing is left');
$proxy->stop;

# --- a worker ends --------------------------------------------------------------------------------

my $other = $control->value(
	q{SELECT pid FROM dbpool_workers w WHERE worker <> (SELECT worker FROM dbpool_pools WHERE pool = 'p') LIMIT 1}
);
kill 'TERM', $other;
ok( $control->poll(
		qq{SELECT count(*) FROM dbpool_workers WHERE pid <> $other}, '3'),
	'a worker that ends comes back');
foreach (1 .. 8)
{
	my $s = session($local);

	is( $s->value(
			q{SELECT * FROM dbpool_query('p', 'SELECT 42') AS t(x int)}),
		'42',
		'any session can use the pool');
	$s->quit;
}

# --- each worker has two connections at least ----------------------------------------------------------

foreach my $pool (qw(single few))
{
	($pgbench) = load($pool);
	sleep 2.5;
	is($control->value("SELECT workers FROM dbpool_pools WHERE pool = '$pool'"),
		'1', "pool $pool has too few for two workers");
	$pgbench->signal('INT');
	$pgbench->finish;
}

done_testing();
