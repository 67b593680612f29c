
# Reads that take long for their text are sent to another host as well (hedge.c).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# W13, by hand: HEDGE_CALLS=2000 HEDGE_CLIENTS=8
my $calls = $ENV{HEDGE_CALLS} || 600;
my $clients = $ENV{HEDGE_CLIENTS} || 4;
my $local = make_local();
my $control = session($local);
my @figures;

# One call in so many is slow at the slow host.
my $slow_one_in = 60;

sub new_remote
{
	my ($name) = @_;
	my $node = make_remote(name => $name, conf => "track_functions = 'pl'\n");

	$node->safe_psql('postgres', $_) foreach (
		q{CREATE FUNCTION dawdle() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); END $$},
		qq{CREATE FUNCTION answer(n int) RETURNS text LANGUAGE plpgsql AS \$\$ BEGIN
			IF '$name' = 'slow' AND n % $slow_one_in = 0 THEN PERFORM dawdle(); END IF;
			RETURN '$name'; END \$\$});
	return $node;
}

my $slow = new_remote('slow');
my $fast = new_remote('fast');
my %both = (host => join(',', $slow->host, $fast->host), port => join(',', $slow->port, $fast->port), dbname => 'postgres',
	read_only => 'true', max_size => 2 * $clients);

$control->value($_) foreach (
	'CREATE UNLOGGED TABLE calls (pool text, ms float8, answer text)',
	q{CREATE PROCEDURE work(pool text, calls int) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz;
		a text;
	BEGIN
		FOR i IN 1 .. calls LOOP
			began := clock_timestamp();
			a := dbpool_value(NULL::text, pool, 'SELECT answer($1::int)', i::text);
			INSERT INTO calls VALUES (pool, extract(epoch FROM clock_timestamp() - began) * 1000, a);
			COMMIT;
		END LOOP;
	END $$});

sub called
{
	my ($node, $function) = @_;
	return $node->safe_psql('postgres', "SELECT coalesce((SELECT calls FROM pg_stat_user_functions WHERE funcname = '$function'), 0)");
}

sub work
{
	my ($pool) = @_;
	my $began = time;
	my @sessions = map { session($local) } 1 .. $clients;

	$_->send("CALL work('$pool', $calls)") foreach @sessions;
	is($_->wait->{err}, '', "$pool: a client ends well") foreach @sessions;
	$_->quit foreach @sessions;
	my $figures = $control->value(qq{SELECT format('p50 %s p90 %s p95 %s p99 %s p99.5 %s p99.9 %s max %s ms, n %s, by fast %s', r(.5), r(.9), r(.95), r(.99), r(.995), r(.999), r(1), count(*), count(*) FILTER (WHERE answer = 'fast')) FROM calls, LATERAL (SELECT 1) x WHERE pool = '$pool'}) if 0;
	my $all = $control->value(qq{SELECT string_agg(round(q::numeric, 2)::text, ' ') FROM unnest((SELECT percentile_cont(array[.5,.9,.95,.98,.99,.995,.999,1]) WITHIN GROUP (ORDER BY ms) FROM calls WHERE pool = '$pool')) q});
	my $n = $control->value(qq{SELECT count(*) || ' by fast ' || count(*) FILTER (WHERE answer = 'fast') || ' slow ' || count(*) FILTER (WHERE ms > 400) FROM calls WHERE pool = '$pool'});
	my $h = $control->value(qq{SELECT hedged || ' ' || hedge_wins FROM dbpool_stat_pools WHERE pool = '$pool'});
	note sprintf '%s: .5,.9,.95,.98,.99,.995,.999,1: %s; %s; hedged, wins %s; %.2f s; dawdles %s', $pool, $all, $n, $h, time - $began, called($slow, 'dawdle');
	return;
}

create_pool($local, 'plain', undef, %both);
create_pool($local, 'hedged', undef, %both, hedge => '95%');
create_pool($local, 'hedged99', undef, %both, hedge => '99%');
work('plain');
work('hedged');
work('hedged99');
create_pool($local, 'plain_lb', undef, %both, load_balance => 'random');
create_pool($local, 'hedged_lb', undef, %both, load_balance => 'random', hedge => '95%');
work('plain_lb');
work('hedged_lb');
create_pool($local, 'plain_lbb', undef, %both, load_balance => 'least_busy');
create_pool($local, 'hedged_lbb', undef, %both, load_balance => 'least_busy', hedge => '95%');
work('plain_lbb');
work('hedged_lbb');

done_testing();
