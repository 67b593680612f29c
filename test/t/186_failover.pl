
# The primary is killed, its standby is promoted, while clients read and write through a pool
# with both as hosts: what do they notice?

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# By hand: FAILOVER_RUNS=20 FAILOVER_CLIENTS=32, and FAILOVER_WAY for one of the ways alone.
my $runs = $ENV{FAILOVER_RUNS} || 2;
my $clients = $ENV{FAILOVER_CLIENTS} || 8;
my $local = make_local();
my $control = session($local);
my @figures;

$control->value($_) foreach (
	'CREATE UNLOGGED TABLE ends (client int, state text, message text, key bigint, seconds float8, at timestamptz)',
	'CREATE SEQUENCE keys',
	# one call after the other, each by itself, until it is told to stop
	q{CREATE PROCEDURE work(pool text, client int, writes boolean) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz;
		k bigint;
		s text;
		m text;
	BEGIN
		LOOP
			k := nextval('keys');
			s := '00000';
			m := NULL;
			began := clock_timestamp();
			BEGIN
				IF writes THEN
					PERFORM dbpool_exec(pool, 'INSERT INTO t VALUES ($1, $2)', k, client);
				ELSE
					PERFORM FROM dbpool_query(pool, 'SELECT count(*) FROM t WHERE client = $1', client) AS t(n bigint);
				END IF;
			EXCEPTION WHEN OTHERS THEN
				GET STACKED DIAGNOSTICS m = PG_EXCEPTION_DETAIL;
				s := SQLSTATE;
				m := concat_ws(': ', SQLERRM, m);
			END;
			INSERT INTO ends VALUES (client, s, m, CASE WHEN writes THEN k END,
				extract(epoch FROM clock_timestamp() - began), clock_timestamp());
			COMMIT;
			EXIT WHEN (SELECT stop FROM control);
		END LOOP;
	END $$},
	'CREATE TABLE control (stop boolean)',
	'INSERT INTO control VALUES (false)');

sub new_primary
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', "autovacuum = off\nmax_connections = 100\ntrack_commit_timestamp = on\nsynchronous_standby_names = '*'\n");
	$node->start;
	$node->safe_psql('postgres', 'SET synchronous_commit = local; CREATE TABLE t (key bigint PRIMARY KEY, client int)');
	return $node;
}

sub new_standby
{
	my ($primary, $name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$primary->backup($name);
	$node->init_from_backup($primary, $name, has_streaming => 1);
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
	$node->start;
	$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'})
	  or die 'the standby does not come';
	return $node;
}

# kill -9 of a server, whose processes see that it is gone; or of all of them at once, of which
# none can say a word any more.
sub kill_server
{
	my ($node, $all) = @_;
	my $postmaster = $node->{_pid};
	my @pids = child_pids($postmaster);

	kill 'KILL', $postmaster, $all ? @pids : ();
	wait_until('the processes are gone', sub { return !kill 0, $postmaster, @pids });
	$node->{_pid} = undef;
	return;
}

# A primary that is away for a while and comes back is found at once: the standby is no other
# host for a pool that wants a primary.
sub primary_returns
{
	my ($primary, %both) = @_;
	my $away = time + 9;

	create_pool($local, 'back', undef, %both, target_session_attrs => 'read-write', failover_wait => '0', acquire_timeout => '1s');
	is($control->query(q{SELECT dbpool_ping('back')})->{err}, '', 'there is a primary');
	$primary->stop('immediate');
	do { isnt($control->query(q{SELECT dbpool_ping('back')})->{err}, '', 'there is none'); sleep 0.5; } while (time < $away);
	$primary->start;
	my $began = time;
	ok(wait_until('it is found', sub { return $control->query(q{SELECT dbpool_ping('back')})->{err} eq '' }), 'it comes back');
	cmp_ok(time - $began, '<', 2.5, 'and is found at once');
	push @figures, sprintf 'found %.2f s after its return', time - $began;
	$control->value(q{SELECT dbpool_drop_pool('back')});
	return;
}

my @ways = (
	[ 'killed', sub { kill_server($_[0]) } ],
	[ 'killed with all its processes', sub { kill_server($_[0], 1) } ],
	[ 'stopped at once', sub { $_[0]->stop('immediate') } ],
	[ 'stopped', sub { $_[0]->stop('fast') } ]);
@ways = grep { $_->[0] eq $ENV{FAILOVER_WAY} } @ways if $ENV{FAILOVER_WAY};

foreach my $run (1 .. $runs)
{
	my $pool = "both$run";
	my $primary = new_primary("primary$run");
	my $standby = new_standby($primary, "standby$run");
	my @sessions = map { session($local) } 1 .. $clients;

	# a read that is one for the remote, too, may be sent again whatever has become of it
	my %both = (host => $primary->host . ',' . $standby->host, port => $primary->port . ',' . $standby->port,
		dbname => 'postgres', failover_wait => '60s', acquire_timeout => '60s', connect_timeout => '3s');
	create_pool($local, $pool, undef, %both, target_session_attrs => 'read-write');
	create_pool($local, "reads$run", undef, %both, read_only => 'true');
	primary_returns($primary, %both) if $run == 1;
	$control->value('TRUNCATE ends');
	$control->value('UPDATE control SET stop = false');
	for my $i (1 .. $clients)
	{
		$sessions[$i - 1]->send($i % 2 ? "CALL work('$pool', $i, true)" : "CALL work('reads$run', $i, false)");
	}
	$control->poll("SELECT count(DISTINCT client) = $clients AND count(*) > 40 * $clients FROM ends");

	my ($way, $end) = @{ $ways[($run - 1) % @ways] };
	my $killed = time;
	$end->($primary);
	$standby->promote;
	$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	my $promotion = time - $killed;
	my $at = $control->value("SELECT clock_timestamp()");
	$control->poll("SELECT count(DISTINCT client) = $clients FROM ends WHERE at > '$at'::timestamptz + '0.3s'");
	$control->value('UPDATE control SET stop = true');
	is($_->wait->{err}, '', 'a client ends well') foreach @sessions;
	$_->quit foreach @sessions;

	my ($calls, $errors, $unknown, $stall) = split /\|/, $control->value(
		q{SELECT count(*), count(*) FILTER (WHERE state NOT IN ('00000', '08007')), count(*) FILTER (WHERE state = '08007'),
			round(max(seconds)::numeric, 2) FROM ends});
	is($errors, '0', 'no error reaches a client but where nobody can know')
	  || diag($control->value(q{SELECT state, message, count(*), min(seconds), max(seconds) FROM ends WHERE state <> '00000' GROUP BY 1, 2 LIMIT 5}));
	cmp_ok($unknown, '<=', $way =~ /killed/ ? 2 * $clients : 0,
		"the primary is $way: which may be so where nobody could say a word, of a write that was under way")
	  || diag($control->value(q{SELECT string_agg(concat_ws(' ', n, message), E'\n')
		FROM (SELECT count(*) AS n, message FROM ends WHERE state = '08007' GROUP BY 2) s}));
	my %acknowledged = map { $_ => 1 } split /\n/,
	  $control->value(q{SELECT key FROM ends WHERE key IS NOT NULL AND state = '00000'});
	my %unknown = map { $_ => 1 } split /\n/, $control->value(q{SELECT key FROM ends WHERE key IS NOT NULL AND state = '08007'});
	my @there = split /\n/, $standby->safe_psql('postgres', 'SELECT key FROM t');
	my %there = map { $_ => 1 } @there;
	is((grep { !$there{$_} } keys %acknowledged) + 0, 0, 'each key that was acknowledged is there');
	is((grep { !$acknowledged{$_} && !$unknown{$_} } @there) + 0, 0, 'and no other');
	cmp_ok($stall, '<', $promotion + 5, 'the stall is not much longer than the promotion');
	push @figures, sprintf 'run %d, %s: %d calls, %d errors, %d unknown, %d keys, promotion %.2f s, longest call %.2f s',
	  $run, $way, $calls, $errors, $unknown, scalar @there, $promotion, $stall;
	$control->value("SELECT dbpool_drop_pool('$_')") foreach $pool, "reads$run";
	$standby->stop('immediate');
}
note($_) foreach @figures;
$control->quit;
done_testing();
