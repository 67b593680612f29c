
# A soak: sessions call pools for hours, in all the ways there are, with errors, cancels, resets,
# connections that age, texts that are never the same, and definitions that change. When it has
# warmed up, memory and descriptors of the workers, of the sessions and of the remote's
# processes stay what they are.
#
#   SOAK_SECONDS     how long; without it nothing is done, a minute shows that it works
#   SOAK_SESSIONS    how many, 64 if not said
#   SOAK_SEED        the choices of an earlier run, which prints its own
#   SOAK_GROWTH      kB that a process may grow by, 2048 if not said
#
# The first third warms up. Of what is left, the medians of the first and of the last third are
# compared.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Bank;
use Chaos;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{SOAK_SECONDS} || 0;
my $sessions = $ENV{SOAK_SESSIONS} || 64;
my $seed = $ENV{SOAK_SEED} || 1 + int rand 1e9;
my $growth = $ENV{SOAK_GROWTH} || 2048;

plan skip_all => 'it takes long: make soak' unless $seconds;
diag("SOAK_SEED=$seed, $sessions sessions, $seconds seconds");
srand $seed;

my $remote = make_remote(conf => "log_min_messages = panic\n");
Chaos::open_ledgers($remote);
my $local = make_local(workers => 2, conf => "log_min_messages = fatal\n");
$local->safe_psql('postgres', q{
	CREATE ROLE chaos LOGIN SUPERUSER;
	ALTER ROLE chaos SET statement_timeout = '10s';});

my @pools = ('shared', 'single', 'resets', 'ages');
my $chaos = Chaos->start(
	nodes => { l => $local }, seed => $seed, sessions => $sessions, timeout => 10, slack => 5,
	odd => 0.1, writes => \@pools, reads => \@pools);
my %pools = (
	shared => { max_size => 4 },
	single => { max_size => 4, multiplex => 'off', statement_cache_size => 5, prepare_threshold => 1 },
	resets => { max_size => 4, reset => 'always', connect_sql => 'SET work_mem = 1000; PREPARE mine AS SELECT 1' },
	ages => { max_size => 4, max_lifetime => '2s', idle_timeout => '1s' });

foreach my $pool (@pools)
{
	create_pool($local, $pool, $remote, %{ $pools{$pool} });
	$local->safe_psql('postgres', "CREATE USER MAPPING FOR chaos SERVER $pool OPTIONS (user 'app')");
}
my $control = session($local);

# --- samples ------------------------------------------------------------------------------------

sub descriptors { my ($pid) = @_; my @links = glob "/proc/$pid/fd/*"; return scalar @links; }

# Each kind of process: the memory in kB of the one that has most, and its descriptors.
sub sample
{
	my %sample;
	my %pids = (
		(map { ("worker $_" => [ worker_pid($control, $_) ]) } 1, 2),
		session => [ split /\n/, $control->value(q{SELECT pid FROM pg_stat_activity WHERE usename = 'chaos'}) ]);

	foreach my $kind (keys %pids)
	{
		my @kb = sort { $a <=> $b } map { rss_kb($_) } @{ $pids{$kind} };
		my @held = sort { $a <=> $b } map { descriptors($_) } @{ $pids{$kind} };

		$sample{"kB of a $kind"} = $kb[-1];
		$sample{"descriptors of a $kind"} = $held[-1];
	}
	return \%sample;
}

sub median
{
	my ($what, @samples) = @_;
	my @sorted = sort { $a <=> $b } map { $_->{$what} } @samples;

	return $sorted[ @sorted / 2 ];
}

# What an owner does now and then.
sub disturb
{
	my ($round) = @_;

	$control->value("ALTER SERVER shared OPTIONS (SET max_size '" . (3 + $round % 3) . q{')});
	$control->value(q{SELECT dbpool_reset('single', '1s')}) if $round % 5 == 0;
	$control->value('SELECT count(*) FROM dbpool_stat_pools, dbpool_alerts, dbpool_endpoints');
	$remote->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $$app$$ ORDER BY random() LIMIT 1');
	return;
}

my @samples;
my $begin = time;
my $interval = $seconds / 120 > 0.5 ? $seconds / 120 : 0.5;
my $round = 0;
my @wrong;

$chaos->go;
while (time - $begin < $seconds)
{
	sleep $interval;
	disturb(++$round);
	push @samples, sample();
	next if $round % 10 != 0;
	# the journal and the ledger are not to grow for hours
	$chaos->pause;
	push @wrong, $chaos->audit(shared => $remote);
	$remote->safe_psql('postgres', 'TRUNCATE ledger');
	$chaos->go;
	note(sprintf '%.0f s: %s', time - $begin, join ', ', map { "$_: $samples[-1]->{$_}" } sort keys %{ $samples[-1] });
}
$chaos->pause;
push @wrong, $chaos->audit(shared => $remote);

is(scalar @wrong, 0, 'no call was told what is not so') or diag(join "\n", @wrong[ 0 .. ($#wrong < 20 ? $#wrong : 20) ]);
diag('had ' . join ', ', map { "$_: $chaos->{counts}->{$_}" } sort keys %{ $chaos->{counts} });
cmp_ok($chaos->{counts}->{ok}, '>', 20 * $seconds, 'enough calls have succeeded');

splice @samples, 0, @samples / 3;
my @first = @samples[ 0 .. @samples / 3 ];
my @last = @samples[ -(@samples / 3) - 1 .. -1 ];

foreach my $what (sort keys %{ $samples[0] })
{
	my ($before, $after) = (median($what, @first), median($what, @last));

	diag("$what: $before, then $after");
	cmp_ok($after - $before, '<=', $what =~ /^kB/ ? $growth : 4, "$what: flat");
}

$chaos->stop;
$control->quit;
done_testing();
