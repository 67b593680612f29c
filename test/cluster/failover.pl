
# Clients read and write through pools the whole time while a cluster's primary is changed, by its
# own tool, and while it is killed: what do they notice? Run by test/cluster/run, which has the
# name of the tool in CLUSTER_TOOL, how often in CLUSTER_RUNS, a folder to be made in CLUSTER_DIR, and
# wants figures in CLUSTER_FIGURES.
#
#   Cluster.pm         two nodes and the processes around them
#   Patroni.pm         Patroni, etcd, haproxy
#   AutoFailover.pm    pg_auto_failover

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../t";

use AutoFailover;
use Cluster;
use DbpoolTest;
use Patroni;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $clients = $ENV{CLUSTER_CLIENTS} || 32;
my $tool = $ENV{CLUSTER_TOOL};
my $runs = $ENV{CLUSTER_RUNS} || 1;
my $class = { patroni => 'Patroni', autofailover => 'AutoFailover' }->{$tool} or die "no tool \"$tool\"";
my @ways = $tool eq 'patroni' ? ('hosts', 'haproxy') : ('hosts');
my @faults = ('switchover', 'failover');

@ways = grep { $_ eq $ENV{CLUSTER_WAY} } @ways if $ENV{CLUSTER_WAY};
@faults = grep { $_ eq $ENV{CLUSTER_FAULT} } @faults if $ENV{CLUSTER_FAULT};

my $local = make_local();
my $control = session($local);

$control->value($_) foreach (
	q{CREATE UNLOGGED TABLE ends (client int, state text, message text, key bigint, stale boolean,
		seconds float8, at float8)},
	'CREATE INDEX ON ends (client, key)',
	'CREATE SEQUENCE keys',
	# One call after the other, each by itself, until it is told to stop. Each who reads looks for the last
	# key that was acknowledged to one who writes.
	q{CREATE PROCEDURE work(pool text, client int, writer int) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz;
		k bigint;
		known bigint;
		seen bigint;
		s text;
		m text;
	BEGIN
		LOOP
			k := CASE WHEN writer IS NULL THEN nextval('keys') END;
			known := (SELECT max(key) FROM ends WHERE ends.client = work.writer AND state = '00000');
			s := '00000';
			m := NULL;
			seen := NULL;
			began := clock_timestamp();
			BEGIN
				IF writer IS NULL THEN
					PERFORM dbpool_exec(pool, 'INSERT INTO t VALUES ($1, $2)', k, client);
				ELSE
					seen := n FROM dbpool_query(pool, 'SELECT coalesce(max(key), 0) FROM t WHERE client = $1', writer) AS t(n bigint);
				END IF;
			EXCEPTION WHEN OTHERS THEN
				GET STACKED DIAGNOSTICS m = PG_EXCEPTION_DETAIL;
				s := SQLSTATE;
				m := concat_ws(': ', SQLERRM, m);
			END;
			INSERT INTO ends VALUES (client, s, m, k, seen < known,
				extract(epoch FROM clock_timestamp() - began), extract(epoch FROM clock_timestamp()));
			COMMIT;
			EXIT WHEN (SELECT stop FROM control);
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$},
	'CREATE TABLE control (stop boolean)',
	'INSERT INTO control VALUES (false)');

sub now { return sprintf '%.6f', time; }

# The pools as docs/pools.md has them: writes go to the primary, and so do reads, by a pool that is
# read-only, so that a read is sent again whatever has become of it. The times are longer than any
# of the tools takes.
sub make_pools
{
	my ($cluster, $way) = @_;
	my %options = (
		host => join(',', map { '127.0.0.1' } $way eq 'haproxy' ? 1 : $cluster->nodes),
		port => join(',', $way eq 'haproxy' ? $cluster->{haproxy_port} : map { $_->port } $cluster->nodes),
		dbname => 'postgres', failover_wait => '3min', acquire_timeout => '3min', connect_timeout => '3s');

	create_pool($local, 'writes', undef, %options, target_session_attrs => 'read-write');
	create_pool($local, 'reads', undef, %options, target_session_attrs => 'primary', read_only => 'true');
	$control->value(qq{ALTER USER MAPPING FOR CURRENT_USER SERVER $_ OPTIONS (ADD user 'postgres')}) foreach 'writes', 'reads';
	return;
}

sub drop_pools
{
	$control->value("SELECT dbpool_drop_pool('$_')") foreach 'writes', 'reads';
	return;
}

# Until each client has had so many answers since then.
sub wait_for_answers
{
	my ($since, $answers) = @_;

	$control->poll(qq{SELECT count(*) = $clients FROM (SELECT FROM ends WHERE at > $since AND state = '00000'
		GROUP BY client HAVING count(*) >= $answers) s});
	return;
}

# Change the primary. Returns when it was told to, when the other node was promoted and took writes, and
# when the way there was open. That is later behind haproxy: until it has noticed both, it knows of no
# primary, or of two, and has every second connection go to the one that is none.
sub change_primary
{
	my ($cluster, $way, $fault) = @_;
	my $primary = $cluster->primary;
	my $other = $cluster->other($primary);
	my %at = (fault => now());

	$fault eq 'switchover' ? $cluster->switchover($primary) : $cluster->kill_node($primary);
	wait_until('the other node is the primary', sub { return $cluster->takes_writes($other) });
	$at{promoted} = now();
	wait_until('haproxy leads there', sub { return $cluster->is_up($other) && !$cluster->is_up($primary) }) if $way eq 'haproxy';
	$at{open} = now();
	return ($primary, \%at);
}

# What has become of each key: told to the clients, and there.
sub judge_keys
{
	my ($cluster) = @_;
	my %told = map { split /\|/ } split /\n/, $control->value('SELECT key, state FROM ends WHERE key IS NOT NULL');
	my %there = map { split /\|/ } split /\n/, $cluster->ask($cluster->primary, 'SELECT key, count(*) FROM t GROUP BY key');
	my %found = (
		lost => [ grep { $told{$_} eq '00000' && !$there{$_} } keys %told ],
		double => [ grep { $there{$_} > 1 } keys %there ],
		denied => [ grep { ($told{$_} // '') !~ /^(00000|08007)$/ } keys %there ]);

	is("@{ $found{lost} }", '', 'each key that was acknowledged is there');
	is("@{ $found{double} }", '', 'none is there twice');
	is("@{ $found{denied} }", '', 'none is there whose insert has failed');
	return map { $_ => scalar @{ $found{$_} } } keys %found;
}

sub scenario
{
	my ($cluster, $way, $fault, $run) = @_;
	my @sessions = map { session($local) } 1 .. $clients;

	$cluster->ask($cluster->primary, 'DROP TABLE IF EXISTS t; CREATE TABLE t (key bigint, client int); CREATE INDEX ON t (client, key)');
	make_pools($cluster, $way);
	$control->value('TRUNCATE ends');
	$control->value('UPDATE control SET stop = false');
	$sessions[ $_ - 1 ]->send($_ % 2 ? "CALL work('writes', $_, NULL)" : "CALL work('reads', $_, $_ - 1)") foreach 1 .. $clients;
	wait_for_answers(now() + 1, 20);

	my ($old, $at) = change_primary($cluster, $way, $fault);
	wait_for_answers($at->{open}, 20);
	my $again = now();
	$cluster->start_node($old) if $fault eq 'failover';
	$cluster->wait_until_ready;
	wait_for_answers(now(), 20);
	$control->value('UPDATE control SET stop = true');
	# a warning of the old primary, that it has waited for its standby in vain, comes through
	unlike($_->wait->{err}, qr/ERROR|FATAL/, 'a client ends well') foreach @sessions;
	$_->quit foreach @sessions;

	my %keys = judge_keys($cluster);
	my ($calls, $errors, $unknown, $stale, $longest, $later, $last) = split /\|/, $control->value(qq{
		SELECT count(*), count(*) FILTER (WHERE state NOT IN ('00000', '08007')), count(*) FILTER (WHERE state = '08007'),
			count(*) FILTER (WHERE stale),
			round(max(seconds) FILTER (WHERE at - seconds <= $at->{open})::numeric, 2),
			round(max(seconds) FILTER (WHERE at - seconds > $at->{open})::numeric, 2),
			round((max(at) FILTER (WHERE at - seconds <= $at->{open}) - $at->{open})::numeric, 2)
		FROM ends});
	my @words = split /\n/, $control->value(q{SELECT concat_ws(' ', count(*) || ' times', state, CASE WHEN key IS NULL THEN 'read' ELSE 'write' END, message)
		FROM ends WHERE state <> '00000' GROUP BY state, message, key IS NULL ORDER BY count(*) DESC});
	is($errors, '0', 'no error reaches a client but where nobody can know') || diag(join "\n", @words);
	is($stale, '0', 'no read misses what was acknowledged before');
	cmp_ok($last, '<', 3, 'three seconds after the new primary is there, all calls that had to wait have ended');
	report(sprintf '%s by %s, run %d: %d calls, %d errors, %d unknown, %d lost, %d double, %d denied, %d stale; promoted after %.1f s, '
		. 'open after %.1f s; longest call %.1f s, ended %.2f s after that; longest later %.2f s', $fault, $way, $run, $calls, $errors, $unknown,
		@keys{qw(lost double denied)}, $stale, $at->{promoted} - $at->{fault}, $at->{open} - $at->{fault}, $longest, $last, $later);
	report("    $_") foreach @words;
	drop_pools();
	return;
}

sub report
{
	my ($line) = @_;

	note($line);
	append_to_file($ENV{CLUSTER_FIGURES}, "$tool: $line\n") if $ENV{CLUSTER_FIGURES};
	return;
}

my $cluster = $class->new($ENV{CLUSTER_DIR});
$cluster->start;
foreach my $run (1 .. $runs)
{
	foreach my $way (@ways)
	{
		scenario($cluster, $way, $_, $run) foreach @faults;
	}
}
$control->quit;
$cluster->stop;
done_testing();
