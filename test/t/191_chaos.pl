
# Chaos: 64 sessions call pools all the time, and each second something fails, by lot: servers,
# links, names, passwords, disks, workers, and whoever operates them. No call takes longer than its
# timeout and a second, no answer is wrong, no write is there twice, or there when it was
# refused, or missing when it was acknowledged; each fault is over soon after it has ended; and
# at the end nothing is left of all that: no request, no connection, no descriptor.
#
#   CHAOS_SECONDS    how long, 20 if not said: then most kinds of faults come once
#   CHAOS_SESSIONS   how many, 64 if not said
#   CHAOS_SEED       the choices of an earlier run, which prints its own
#   CHAOS_FAULTS     only the faults whose names match
#   CHAOS_SLACK      seconds that a call may take beyond its timeout, 1 if not said; for a
#                    machine that is busy with other things
#   CHAOS_RECOVERY   seconds within which each pool has to serve after a fault's end, 10 if not said:
#                    a breaker that opens again and again is probed less and less often; half of
#                    the faults have to be over in one
#
# Which faults come, where and for how long, follows from the seed; what they hit, also from how
# far the sessions are by then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Bank;
use Chaos;
use DbpoolTest;
use FaultProxy;
use File::Path qw(rmtree);
use IO::Socket::UNIX;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{CHAOS_SECONDS} || 20;
my $sessions = $ENV{CHAOS_SESSIONS} || 64;
my $seed = $ENV{CHAOS_SEED} || 1 + int rand 1e9;
my $slack = $ENV{CHAOS_SLACK} || 1;
my $most_recovery = $ENV{CHAOS_RECOVERY} || 10;

diag("CHAOS_SEED=$seed, $sessions sessions, $seconds seconds");
srand $seed;

# --- servers and pools ------------------------------------------------------------------------

my $flags = PostgreSQL::Test::Utils::tempdir();

# A disk that is full: what would make a table's file longer fails as the system call does then.
my $disk = preload_library('full_disk', <<"C");
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int
full(int fd, off_t end)
{
	char		link[64], path[1024];
	struct stat st;
	ssize_t		n;

	if (access("$flags/full", F_OK) != 0 || fstat(fd, &st) != 0 || end <= st.st_size)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = 0;
	if (strstr(path, "/base/") == NULL)
		return 0;
	errno = ENOSPC;
	return 1;
}

ssize_t
pwrite(int fd, const void *data, size_t n, off_t at)
{
	ssize_t		(*next) (int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");

	return full(fd, at + n) ? -1 : next(fd, data, n, at);
}

ssize_t
pwritev(int fd, const struct iovec *pieces, int n, off_t at)
{
	ssize_t		(*next) (int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, "pwritev");

	return full(fd, at + 1) ? -1 : next(fd, pieces, n, at);
}

int
posix_fallocate(int fd, off_t at, off_t n)
{
	int			(*next) (int, off_t, off_t) = dlsym(RTLD_NEXT, "posix_fallocate");

	return full(fd, at + n) ? ENOSPC : next(fd, at, n);
}
C

# A name that resolves, but for a while.
my $resolver = preload_library('chaos_resolver', <<"C");
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int
getaddrinfo(const char *name, const char *service,
			const struct addrinfo *hints, struct addrinfo **found)
{
	int			(*next) (const char *, const char *,
						 const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	if (name == NULL || strcmp(name, "remote.example") != 0)
		return next(name, service, hints, found);
	return access("$flags/nameless", F_OK) == 0 ? EAI_AGAIN : next("127.0.0.1", service, hints, found);
}
C
plan skip_all => 'there is no C compiler' unless $disk && $resolver;

my $conf = "restart_after_crash = on\nlog_min_messages = panic\ndeadlock_timeout = 200ms\n";
my $hba = "local all app scram-sha-256\nlocal all all trust\nhost all app 127.0.0.1/32 scram-sha-256\nlocal replication all trust\n";

sub append_hba
{
	my ($node) = @_;

	unlink $node->data_dir . '/pg_hba.conf';
	$node->append_conf('pg_hba.conf', $hba);
	return;
}

my $remote = make_remote(
	no_start => 1,
	conf => "${conf}listen_addresses = '127.0.0.1'\nmax_connections = 60\n");
append_hba($remote);

sub start_remote
{
	local $ENV{LD_PRELOAD} = $disk;
	$remote->start;
	return;
}
start_remote();

# A primary and its standby, of which either may be the other.
my $primary = PostgreSQL::Test::Cluster->new('one');
$primary->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
$primary->append_conf('postgresql.conf', "${conf}autovacuum = off\nmax_connections = 60\nwal_receiver_status_interval = 1s\n");
append_hba($primary);
$primary->start;
Chaos::open_ledgers($remote, $primary);
my $standby = PostgreSQL::Test::Cluster->new('other');
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $local = make_local(no_start => 1, workers => 2, conf => $conf);
{
	local $ENV{LD_PRELOAD} = $resolver;
	$local->start;
}
$local->safe_psql('postgres', q{
	CREATE EXTENSION dbpool;
	CREATE ROLE chaos LOGIN;
	ALTER ROLE chaos SET statement_timeout = '3s';
	ALTER ROLE chaos SET log_min_messages = 'panic';
	ALTER ROLE chaos SET dbpool.inherit_read_only = off;});

my %timeouts = (acquire_timeout => '2s', connect_timeout => '1s', validate_after => '200ms');

# before the proxy, whose pipes are not for it
my $chaos = Chaos->start(
	nodes => { l => $local }, seed => $seed, sessions => $sessions, timeout => 3, slack => $slack,
	writes => [ 'far', 'near', 'two' ],
	reads => [ 'far', 'near', 'two', 'either' ]);
my $proxy = FaultProxy->start($remote, seed => $seed);
my $both = join ',', $primary->host, $standby->host;
my $ports = join ',', $primary->port, $standby->port;
my %pools = (
	far => { $proxy->options, max_size => 6 },
	near => { host => 'remote.example', port => $remote->port, dbname => 'postgres', max_size => 5, connect_sql => 'SET work_mem = 1000' },
	two => { host => $both, port => $ports, dbname => 'postgres', target_session_attrs => 'read-write', max_size => 5, failover_wait => '1s' },
	either => { host => $both, port => $ports, dbname => 'postgres', target_session_attrs => 'prefer-standby', read_only => 'true', max_size => 4 });

foreach my $pool (sort keys %pools)
{
	create_pool($local, $pool, undef, %timeouts, %{ $pools{$pool} });
	$local->safe_psql('postgres', qq{
		GRANT USAGE ON FOREIGN SERVER $pool TO chaos;
		CREATE USER MAPPING FOR chaos SERVER $pool OPTIONS (user 'app', password 'right')});
}
my $control = session($local);
my $prober = session($local, user => 'chaos', options => '-c statement_timeout=300ms');

sub value { return $control->value(@_); }
sub any { return $_[ rand @_ ]; }

sub answers
{
	my ($node) = @_;

	wait_until('server "' . $node->name . '" answers', sub {
		return system('psql', '-XAtq', '-d', $node->connstr('postgres'), '-o', '/dev/null', '-c', 'SELECT 1') == 0;
	});
	return;
}

# --- faults --------------------------------------------------------------------------------------
#
# Each is begun by its function, which returns another that ends it.

sub app_pids
{
	my ($node) = @_;

	return split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE usename = 'app'});
}

sub terminate_some
{
	my ($node, $share) = @_;

	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND random() < $share");
	return;
}

sub flag
{
	my ($name) = @_;

	append_to_file("$flags/$name", '');
	return sub { unlink "$flags/$name" };
}

# Take all connections that the remote has, as a role that is no superuser.
sub fill
{
	my @taken;

	while (my $socket = IO::Socket::UNIX->new(Peer => $remote->host . '/.s.PGSQL.' . $remote->port))
	{
		my $body = pack('N', 196608) . "user\0filler\0database\0postgres\0\0";
		my $said = '';

		print {$socket} pack('N', 4 + length $body) . $body;
		$socket->flush;
		while ($said !~ /Z\0\0\0\x05I$/ && $said !~ /^E/)
		{
			last unless sysread $socket, $said, 8192, length $said;
		}
		last if $said !~ /Z\0\0\0\x05I$/;
		push @taken, $socket;
	}
	return @taken;
}
$remote->safe_psql('postgres', 'CREATE ROLE filler LOGIN');

# The old primary becomes the new one's standby, from the ground up.
sub rebuild
{
	my ($node, $from) = @_;
	my $port = $node->port;
	my $directory = $node->host;

	rmtree($node->data_dir);
	system_or_bail('pg_basebackup', '-D', $node->data_dir, '-d', $from->connstr('postgres'), '-R', '-X', 'stream', '-c', 'fast', '--no-sync');
	$node->append_conf('postgresql.conf', "port = $port\nunix_socket_directories = '$directory'\n");
	$node->start;
	return;
}

# Nothing that the primary acknowledges is to be lost.
sub synchronous
{
	my ($node, $names) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$node->reload;
	return;
}

sub in_step
{
	wait_until('the standby is in step', sub {
		return $primary->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'}) eq '1';
	});
	synchronous($primary, '*');
	wait_until('and counts', sub {
		return $primary->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'}) eq '1';
	});
	return;
}

# What the primary has acknowledged since is on both.
sub fail_over
{
	synchronous($standby, '');
	$primary->stop('immediate');
	$standby->promote;
	($primary, $standby) = ($standby, $primary);
	return;
}

my %faults = (
	'remote backend killed' => sub {
		my $pid = any(app_pids($remote));
		kill 'KILL', $pid if $pid;
		return sub { answers($remote) };
	},
	'remote backends terminated' => sub {
		terminate_some($remote, 0.5);
		return sub { };
	},
	'remote restarted' => sub {
		$remote->stop('fast');
		return \&start_remote;
	},
	'remote stopped at once' => sub {
		$remote->stop('immediate');
		return \&start_remote;
	},
	'remote hangs' => sub {
		my @pids = ($remote->{_pid}, child_pids($remote->{_pid}));
		suspend(@pids);
		return sub { resume(@pids) };
	},
	'remote backend hangs' => sub {
		my @pids = any(app_pids($remote)) // return sub { };
		suspend(@pids);
		return sub { resume(@pids) };
	},
	'links reset' => sub {
		$proxy->tell('now reset');
		return sub { };
	},
	'some links reset' => sub {
		$proxy->tell('on each backend message any chance 0.05 anywhere reset');
		return sub { $proxy->tell('clear') };
	},
	'black hole' => sub {
		$proxy->tell('always stall both');
		return sub { $proxy->tell('resume') };
	},
	'black hole that forgets' => sub {
		$proxy->tell('always drop both');
		# as what stands in between does when it is back
		return sub { $proxy->tell('resume'); $proxy->tell('now reset') };
	},
	'name does not resolve' => sub {
		my $end = flag('nameless');
		terminate_some($remote, 1);
		return $end;
	},
	'wrong password' => sub {
		$remote->safe_psql('postgres', q{ALTER ROLE app PASSWORD 'wrong'});
		terminate_some($remote, 0.7);
		return sub { $remote->safe_psql('postgres', q{ALTER ROLE app PASSWORD 'right'}) };
	},
	'no connection left' => sub {
		my @taken = fill();
		terminate_some($remote, 0.7);
		push @taken, fill();
		return sub {
			close $_ foreach @taken;
			@taken = ();
		};
	},
	'disk full' => sub { return flag('full') },
	'standby promoted' => sub {
		fail_over();
		return sub { },
		  sub { rebuild($standby, $primary); in_step() };
	},
	'lag' => sub {
		$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
		return sub { $standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()') };
	},
	'worker terminated' => sub {
		value('SELECT pg_terminate_backend(' . worker_pid($control, 1 + int rand 2) . ')');
		return sub { };
	},
	'ALTER SERVER' => sub {
		my $pool = any(sort keys %pools);
		value("ALTER SERVER $pool OPTIONS (SET max_size '" . (1 + int rand 3) . q{')});
		return sub { value("ALTER SERVER $pool OPTIONS (SET max_size '$pools{$pool}->{max_size}')") };
	},
	'connect_sql fails' => sub {
		value(q{ALTER SERVER near OPTIONS (SET connect_sql 'SELECT nothing')});
		return sub { value(q{ALTER SERVER near OPTIONS (SET connect_sql 'SET work_mem = 1000')}) };
	},
	'pause' => sub {
		my $pool = any(sort keys %pools);
		value("SELECT dbpool_pause('$pool', '0')");
		return sub { value("SELECT dbpool_resume('$pool')") };
	},
	'connections killed' => sub {
		my $pool = any(sort keys %pools);
		value("SELECT dbpool_kill('$pool')");
		return sub { value("SELECT dbpool_enable('$pool')") };
	},
	'long lock' => sub {
		my $holder = session(any($remote, $primary));
		$holder->query(q{SET lock_timeout = '1s'; BEGIN; LOCK TABLE ledger});
		return sub { $holder->kill };
	});
my @names = grep { $_ =~ ($ENV{CHAOS_FAULTS} // '.') } sort keys %faults;

# --- what is there before and after -------------------------------------------------------------

# Every pool serves, or writes if it does that: how long that takes.
sub recover
{
	my $begin = time;
	my %left = map { $_ => 1 } keys %pools;

	while (%left && time - $begin < 30)
	{
		foreach my $pool (sort keys %left)
		{
			my $answer = $prober->query("SELECT a FROM dbpool_query('$pool', 'SELECT 1') AS t(a int)");

			delete $left{$pool} if $answer->{out} eq '1';
			if ($answer->{lost})
			{
				$prober = session($local, user => 'chaos', options => '-c statement_timeout=300ms');
			}
		}
	}
	return time - $begin;
}

sub descriptors
{
	my ($pid) = @_;
	my @links = glob "/proc/$pid/fd/*";

	return scalar @links;
}

# Descriptors of the workers, without their connections; of each a list of worker and number.
sub held
{
	my %held;

	foreach my $worker (1, 2)
	{
		$held{$worker} = descriptors(worker_pid($control, $worker)) -
		  value("SELECT count(*) FROM dbpool_connections WHERE worker = $worker");
	}
	return %held;
}

# Those who call have no reason to have more of them than before.
sub held_by_sessions
{
	my $most = 0;

	foreach my $pid (split /\n/, value(q{SELECT pid FROM pg_stat_activity WHERE usename = 'chaos'}))
	{
		my $n = descriptors($pid);
		$most = $n if $n > $most;
	}
	return $most;
}

# Nothing is under way any more.
sub at_rest
{
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'), 'no request is left');
	ok($control->poll('SELECT count(*) FROM dbpool_transactions', '0'), 'no transaction');
	ok($control->poll(q{SELECT count(*) FROM dbpool_connections WHERE state <> 'idle'}, '0'), 'no connection does anything');
	is(value(q{SELECT string_agg(format('%s: %s', pool, idle), ', ') FROM dbpool_pools WHERE idle > max_size}), '', 'no pool has too many');
	ok(wait_until('the remotes have the same connections as the views', sub {
				my @here = split /\n/, value('SELECT remote_pid FROM dbpool_connections');
				my @there = map { app_pids($_) } $remote, $primary, $standby;

				return join(' ', sort @here) eq join(' ', sort @there);
			}), 'the remotes have no other connections than the views show');
	return;
}

# --- the run --------------------------------------------------------------------------------------

in_step();
answers($local);
$chaos->go;
sleep 1;
recover();
$chaos->pause;
at_rest();
my %held = held();
my $held_by_sessions = held_by_sessions();

# what was wrong with the first calls was not the faults'
my @wrong = $chaos->audit(far => $remote, two => $primary);
is(scalar @wrong, 0, 'all is well before') or diag(join "\n", @wrong[ 0 .. ($#wrong < 20 ? $#wrong : 20) ]);
is($chaos->{counts}->{refused} // 0, 0, 'no call is refused');
$chaos->go;

my (@deck, %done, @recovered);
my $begin = time;

while (time - $begin < $seconds)
{
	@deck = shuffle @names unless @deck;
	my $name = shift @deck;
	# some longer than any call may take
	my $hold = rand() < 0.1 ? 3.5 : 0.2 + rand 0.6;
	my $started = time;
	my ($end, $afterwards) = $faults{$name}->();

	sleep $hold;
	$end->();
	my $took = recover();
	push @recovered, [ $took, $name ];
	$done{$name}++;
	note(sprintf '%.1f: %s for %.2f s, over after %.2f s', $started - $begin, $name, time - $took - $started, $took);
	$afterwards->() if $afterwards;
	my $rest = $started + 1 - time;
	sleep $rest if $rest > 0;
}
$chaos->pause;
my @late = $chaos->audit(far => $remote, two => $primary);

is(scalar @late, 0, 'no call was told what is not so, and none has hung')
  or diag(scalar @late, " calls:\n", join "\n", @late[ 0 .. ($#late < 30 ? $#late : 30) ]);
diag('had ' . join ', ', map { "$_: $chaos->{counts}->{$_}" } sort keys %{ $chaos->{counts} });
diag('did ' . join ', ', map { "$_: $done{$_}" } sort keys %done);
cmp_ok($chaos->{counts}->{ok}, '>', 10 * $seconds, 'enough calls have succeeded');
cmp_ok($chaos->{counts}->{refused} // 0, '>', 0, 'and some have been refused');
is(scalar keys %done, scalar @names, 'all kinds of faults have come') if $seconds >= 60;

@recovered = sort { $a->[0] <=> $b->[0] } @recovered;
my $median = $recovered[ @recovered / 2 ]->[0];

diag(sprintf 'over after %.2f s at the median, %.2f s at worst (%s), %d of %d after more than 1 s; the longest call took %.2f s %s its timeout',
	$median, @{ $recovered[-1] }, scalar(grep { $_->[0] > 1 } @recovered), scalar @recovered,
	abs $chaos->{longest}, $chaos->{longest} > 0 ? 'more than' : 'less than');
cmp_ok($median, '<', 1, 'half of the faults are over within a second');
cmp_ok($recovered[-1]->[0], '<', $most_recovery, 'and all soon');

at_rest();
my %still_held = held();
cmp_ok($still_held{$_} - $held{$_}, '<=', 2, "worker $_ has no more descriptors open than before") foreach 1, 2;
cmp_ok(held_by_sessions() - $held_by_sessions, '<=', 2, 'nor has a session');
ok($control->poll(q{SELECT count(*) FROM dbpool_endpoints WHERE state = 'open'}, '0'), 'no breaker stays open');

$chaos->stop;
$control->quit;
$prober->quit;
$proxy->stop;
done_testing();
