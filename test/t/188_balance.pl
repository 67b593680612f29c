
# Reads on several standbys: which connections are opened, and which of them gets what.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# By hand: BALANCE_CALLS=2000 BALANCE_CLIENTS=32 BALANCE_LONG=1, which waits until one that was slow
# is asked as often as before.
my $calls = $ENV{BALANCE_CALLS} || 150;
my $clients = $ENV{BALANCE_CLIENTS} || 8;
my $local = make_local();
my $control = session($local);
my @figures;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "autovacuum = off\nmax_connections = 100\n");
$primary->start;
$primary->safe_psql('postgres', 'CREATE TABLE t (key bigint PRIMARY KEY)');
$primary->backup('base');

sub new_standby
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'base', has_streaming => 1);
	$node->start;
	return $node;
}

my $near = new_standby('near');
my $far = new_standby('far');
my $proxy = FaultProxy->start($far);
my %both = (host => $near->host . ',127.0.0.1', port => $near->port . ',' . $proxy->port, dbname => 'postgres',
	sslmode => 'disable', gssencmode => 'disable', read_only => 'true');

$control->value($_) foreach (
	'CREATE UNLOGGED TABLE answers (pool text, port int, n bigint, slowest float8)',
	q{CREATE PROCEDURE work(pool text, calls int) LANGUAGE plpgsql AS $$
	DECLARE
		n jsonb := '{}';
		p text;
		began timestamptz;
		slowest interval := '0';
	BEGIN
		FOR i IN 1 .. calls LOOP
			began := clock_timestamp();
			p := dbpool_value(NULL::text, pool, 'SELECT current_setting(''port'')');
			slowest := greatest(slowest, clock_timestamp() - began);
			n := n || jsonb_build_object(p, coalesce((n ->> p)::int, 0) + 1);
		END LOOP;
		INSERT INTO answers SELECT pool, key::int, value::int, extract(epoch FROM slowest) FROM jsonb_each_text(n);
	END $$});

# Which part of the calls of all clients does the far one answer?
sub part_of_far
{
	my ($pool, $what) = @_;
	my $began = time;
	my @sessions = map { session($local) } 1 .. $clients;

	$control->value('TRUNCATE answers');
	$_->send("CALL work('$pool', $calls)") foreach @sessions;
	is($_->wait->{err}, '', "$what: a client ends well") foreach @sessions;
	$_->quit foreach @sessions;
	my ($part, $slowest, $all) = split /\|/, $control->value(
		'SELECT round(coalesce(sum(n) FILTER (WHERE port = ' . $far->port . '), 0) / sum(n), 3), round(max(slowest)::numeric, 3), sum(n) FROM answers');
	push @figures, sprintf '%s: %s %% of %d calls are answered by the far one, %.2f s, slowest call %s s',
	  $what, 100 * $part, $all, time - $began, $slowest;
	return $part;
}

sub connections
{
	my ($pool, $port) = @_;
	return $control->value("SELECT count(*) FROM dbpool_connections WHERE pool = '$pool' AND port = $port AND state <> 'connecting'");
}

subtest 'connections at hosts by chance' => sub {
	foreach my $how ('off', 'random')
	{
		create_pool($local, $how, undef, %both, load_balance => $how, min_size => 24, max_size => 24);
		$control->value("SELECT dbpool_exec('$how', 'SELECT 1')");
		$control->poll("SELECT count(*) = 24 FROM dbpool_connections WHERE pool = '$how' AND state = 'idle'");
	}
	is(connections('off', $proxy->port), 0, 'off: all are at the first host');
	cmp_ok(connections('random', $proxy->port), '>', 2, 'random: some are at the second');
	cmp_ok(connections('random', $near->port), '>', 2, 'and some at the first');
	$control->value("SELECT dbpool_drop_pool('$_')") foreach 'off', 'random';
};

subtest 'both are as good' => sub {
	create_pool($local, 'reads', undef, %both, load_balance => 'least_busy', max_size => 8);
	my $part = part_of_far('reads', 'both as good');

	# how many each depends on what else the machine does
	cmp_ok($part, '>', 0, 'both answer');
	cmp_ok($part, '<', 1, 'both do');
	$control->poll("SELECT count(DISTINCT port) = 2 FROM dbpool_connections WHERE pool = 'reads'");
};

subtest 'one is slow' => sub {
	$proxy->tell('always delay 30ms client');
	my $part = part_of_far('reads', 'the far one answers 30 ms later');

	cmp_ok($part, '<', 0.1, 'the other one answers');
	create_pool($local, 'alone', undef, %both, load_balance => 'least_busy', max_size => 8, min_size => 8, multiplex => 'false');
	$control->value("SELECT dbpool_exec('alone', 'SELECT 1')");
	$control->poll("SELECT count(*) = 8 FROM dbpool_connections WHERE pool = 'alone' AND state = 'idle'");
	cmp_ok(part_of_far('alone', 'the same, each call with a connection of its own'), '<', 0.1, 'so it does');
	create_pool($local, 'chance', undef, %both, load_balance => 'random', max_size => 8, min_size => 8, multiplex => 'false');
	$control->value("SELECT dbpool_exec('chance', 'SELECT 1')");
	$control->poll("SELECT count(*) = 8 FROM dbpool_connections WHERE pool = 'chance' AND state = 'idle'");
	part_of_far('chance', 'the same by chance');
	$control->value("SELECT dbpool_drop_pool('$_')") foreach 'alone', 'chance';
	$proxy->tell('resume');
	if ($ENV{BALANCE_LONG})
	{
		ok(wait_until('it is used again', sub { return part_of_far('reads', 'it is as fast again') > 0.2 }),
			'when it is as fast again, it is used again');
	}
};

subtest 'one does not answer' => sub {
	my @stopped = split /\n/, $far->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'dbpool'});
	my @sessions = map { session($local) } 1 .. $clients;

	cmp_ok(scalar @stopped, '>', 0, 'there are connections');
	suspend(@stopped);
	$control->value('TRUNCATE answers');
	$_->send("CALL work('reads', $calls)") foreach @sessions;
	ok(wait_until('most end', sub { return (grep { $_->is_done } @sessions) >= $clients / 2 }), 'half of the clients end meanwhile');
	push @figures, (grep { $_->is_done } @sessions) . " of $clients clients do not notice a server that has stopped answering";
	resume(@stopped);
	is($_->wait->{err}, '', 'a client ends well') foreach @sessions;
	$_->quit foreach @sessions;
};

subtest 'one goes, and comes back' => sub {
	my @sessions = map { session($local) } 1 .. 2;

	$far->stop('immediate');
	is(part_of_far('reads', 'the far one is gone'), '0.000', 'the other one answers all');
	$_->send("CALL work('reads', 1000000)") foreach @sessions;
	$far->start;
	my $began = time;
	ok($control->poll("SELECT count(*) > 0 FROM dbpool_connections WHERE pool = 'reads' AND state <> 'connecting' AND port = " . $proxy->port),
		'connections are opened there again');
	push @figures, sprintf 'a connection %.1f s after its return', time - $began;
	cmp_ok(connections('reads', $near->port), '>', 0, 'and some stay where they were');
	ok(wait_until('it is used', sub { return part_of_far('reads', 'it is back') > 0.1 }), 'it is used again');
	push @figures, sprintf 'a tenth of the calls %.1f s after its return', time - $began;
	$_->kill foreach @sessions;
};

# A pool that has all its connections elsewhere when an endpoint returns, and is always busy.
subtest 'a full pool is spread anew' => sub {
	my @sessions = map { session($local) } 1 .. $clients;

	$far->stop('immediate');
	create_pool($local, 'full', undef, %both, load_balance => 'least_busy', min_size => 4, max_size => 4, multiplex => 'false');
	$_->send("CALL work('full', 1000000)") foreach @sessions;
	$control->poll("SELECT count(*) = 4 FROM dbpool_connections WHERE pool = 'full' AND state <> 'connecting'");
	$far->start;
	ok($control->poll("SELECT count(*) = 2 FROM dbpool_connections WHERE pool = 'full' AND state <> 'connecting' AND port = " . $proxy->port),
		'half of them move there');
	is(connections('full', $near->port), 2, 'and half of them stay');
	my $before = $control->value(q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM (SELECT remote_pid FROM dbpool_connections WHERE pool = 'full') AS c(pid)});
	# as often as connections may be moved
	$control->value('SELECT pg_sleep(2.5)');
	is($control->value(q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM (SELECT remote_pid FROM dbpool_connections WHERE pool = 'full') AS c(pid)}),
		$before, 'and then no more move');
	$_->kill foreach @sessions;
};

note($_) foreach @figures;
$control->quit;
$proxy->stop;
done_testing();
