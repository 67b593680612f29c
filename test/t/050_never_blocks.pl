
# Nothing blocks a worker: while one pool's host name does not resolve, one
# host swallows packets and one remote has stopped dead with statements under
# way, being cancelled and being opened, point reads through another pool of
# the same worker go on at full speed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket qw(PF_INET SOCK_STREAM INADDR_LOOPBACK pack_sockaddr_in);
use Test::More;
use Time::HiRes qw(sleep time);

my $tmp = $PostgreSQL::Test::Utils::tmp_check;

# A resolver that hangs. The library that the local server loads first makes
# the look-up of such names wait, as it does when no name server answers.
my $resolver = preload_library('slow_resolver', <<'C');
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
						 const struct addrinfo *, struct addrinfo **) =
		dlsym(RTLD_NEXT, "getaddrinfo");

	if (name != NULL && strstr(name, "hangs.example") != NULL)
	{
		sleep(20);
		return EAI_AGAIN;
	}
	return next(name, service, hints, found);
}
C

# A host that swallows packets: the kernel drops SYNs when the queue of a
# socket that listens is full. Returns the socket and those that fill it.
sub swallowing_listener
{
	my $listener = silent_listener(0);
	my $address = pack_sockaddr_in($listener->sockport, INADDR_LOOPBACK);
	my @fill;

	foreach (1 .. 20)
	{
		socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
		$socket->blocking(0);
		connect($socket, $address);
		push @fill, $socket;
	}

	# now one more must get no answer
	my $probe = IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $listener->sockport,
		Timeout => 1.5);
	die 'the listener still takes connections' if $probe;
	return ($listener, @fill);
}

my $remote = make_remote();
my $stuck = make_remote(name => 'stuck');
my $local = make_local(no_start => 1);
my @swallowing = swallowing_listener();
{
	local $ENV{LD_PRELOAD} = $resolver if $resolver;
	$local->start;
}
$local->safe_psql('postgres', 'CREATE EXTENSION dbpool');

create_pool($local, 'good', $remote, max_size => 4);
create_pool(
	$local, 'stuck', $stuck,
	max_size => 12,
	connect_timeout => '3s',
	acquire_timeout => '4s');
create_pool(
	$local, 'nowhere', undef,
	host => 'hangs.example',
	acquire_timeout => '60s',
	connect_timeout => '3s');
create_pool(
	$local, 'swallowed', undef,
	host => '127.0.0.1',
	port => $swallowing[0]->sockport,
	acquire_timeout => '60s',
	connect_timeout => '3s');

$remote->safe_psql(
	'postgres',
	'CREATE TABLE points (id int PRIMARY KEY, v text);
	 INSERT INTO points SELECT i, md5(i::text) FROM generate_series(1, 10000) i;
	 VACUUM ANALYZE points');
my $point_read =
	"\\set id random(1, 10000)\n"
  . "SELECT * FROM dbpool_query('good', 'SELECT v FROM points WHERE id = \$1', :id::int) AS t(v text);\n";

my $control = session($local);

# Point reads for so many seconds, while a piece of code is run again and again.
# Returns transactions per second, and the longest in milliseconds.
my $runs = 0;

sub point_reads
{
	my ($seconds, $meanwhile) = @_;
	my $prefix = "$tmp/points_log_" . $runs++;
	my ($bench, $out) = start_pgbench(
		$local, $point_read,
		'-M', 'prepared', '-c', 4, '-T', $seconds,
		'-l', "--log-prefix=$prefix");

	if ($meanwhile)
	{
		my $end = time + $seconds;
		while (time < $end)
		{
			$meanwhile->();
			sleep 0.05;
		}
	}
	$bench->finish or die "pgbench failed: $$out";
	my ($tps) = $$out =~ /^tps = ([\d.]+)/m or die "no tps: $$out";
	my $longest = 0;
	foreach my $log (glob "$prefix.*")
	{
		foreach my $line (split /\n/, slurp_file($log))
		{
			my $us = (split ' ', $line)[2];
			$longest = $us if $us > $longest;
		}
	}
	return ($tps, $longest / 1000);
}

sub stuck_processes
{
	my $postmaster =
	  (split /\n/, slurp_file($stuck->data_dir . '/postmaster.pid'))[0];

	return ($postmaster, child_pids($postmaster));
}

# Sessions that get into trouble; each is given a new statement when its last
# one has ended.
my @names = (('stuck') x 6, ('swallowed') x 3);
push @names, ('nowhere') x 3 if $resolver;
my @troubled = map { { pool => $_, session => session($local) } } @names;
my %errors;

sub keep_in_trouble
{
	foreach my $t (@troubled)
	{
		next if $t->{busy} && !$t->{session}->is_done;
		if ($t->{busy})
		{
			my $answer = $t->{session}->wait;
			$errors{ $t->{pool} }->{ $answer->{state} }++;
		}
		$t->{session}->send(query_sleeps($t->{pool}, 60));
		$t->{busy} = 1;
	}
	return;
}

# One of them after the other is cancelled.
my $turn = 0;

sub trouble
{
	keep_in_trouble();
	my $t = $troubled[ $turn++ % @troubled ];
	$control->value('SELECT pg_cancel_backend(' . $t->{session}->pid . ')');
	return;
}

my (%tps, %longest);
foreach my $round (1 .. 3)
{
	my ($tps, $longest) = point_reads(2);
	push @{ $tps{calm} }, $tps;
	push @{ $longest{calm} }, $longest;

	# statements are under way when the remote stops dead
	keep_in_trouble();
	$control->poll(
		q{SELECT count(*) > 2 FROM dbpool_requests WHERE pool = 'stuck' AND state = 'running'}
	);
	my @stopped = stuck_processes();
	suspend(@stopped);

	($tps, $longest) = point_reads(4, \&trouble);
	push @{ $tps{trouble} }, $tps;
	push @{ $longest{trouble} }, $longest;

	# connections that do not say good-bye are closed, too
	$control->value("SELECT dbpool_reset('stuck', '0')");
	is( $control->value(
			"SELECT * FROM dbpool_query('good', 'SELECT 42') AS t(x int)"),
		'42',
		'closing connections does not block');

	resume(@stopped);
	foreach my $t (@troubled)
	{
		$control->value(
			'SELECT pg_cancel_backend(' . $t->{session}->pid . ')');
		$errors{ $t->{pool} }->{ $t->{session}->wait->{state} }++;
		$t->{busy} = 0;
	}
}

sub total
{
	my ($list) = @_;
	my $sum = 0;
	$sum += $_ foreach @$list;
	return $sum;
}

foreach my $kind ('calm', 'trouble')
{
	note(
		sprintf '%s: %s per second, longest %s ms',
		$kind,
		join(', ', map { sprintf '%.0f', $_ } @{ $tps{$kind} }),
		join(', ', map { sprintf '%.0f', $_ } @{ $longest{$kind} }));
}
foreach my $pool (sort keys %errors)
{
	note(
		"$pool: "
		  . join(', ',
			map { "$errors{$pool}->{$_} x $_" } sort keys %{ $errors{$pool} })
	);
}

cmp_ok(total($tps{trouble}) / total($tps{calm}),
	'>=', 0.5, 'point reads go on at full speed');
cmp_ok($_, '<', 1000, 'none of them takes long')
  foreach @{ $longest{trouble} };

# There was trouble indeed.
cmp_ok($errors{$_}->{57014} || 0,
	'>', 5, "statements on pool $_ were cancelled")
  foreach 'stuck', 'swallowed';
SKIP:
{
	skip 'no C compiler, so no resolver that hangs', 2 if !$resolver;
	cmp_ok($errors{nowhere}->{57014} || 0,
		'>', 5, 'statements on pool nowhere were cancelled');
	like(
		$control->query("SELECT dbpool_ping('nowhere')")->{err},
		qr/the host name could not be looked up within 3 s/,
		'the look-up does hang');
}
like(
	$control->query("SELECT dbpool_ping('swallowed')")->{err},
	qr/the server did not answer within 3 s/,
	'packets are swallowed');
ok($control->serves('stuck'), 'a remote that goes on is of use again');

# Nor does a name that does not resolve keep a pool from its other hosts.
SKIP:
{
	skip 'no C compiler, so no resolver that hangs', 2 if !$resolver;
	my %hosts = (
		'second' => 'hangs.example,' . $remote->host,
		'first' => $remote->host . ',hangs.example');

	foreach my $which ('first', 'second')
	{
		create_pool(
			$local, $which, undef,
			host => $hosts{$which},
			port => $remote->port,
			dbname => 'postgres',
			connect_timeout => '2s');
		my $answer = $control->query(
			"SELECT * FROM dbpool_query('$which', 'SELECT 42') AS t(x int)");
		is($answer->{out} . $answer->{err},
			'42', "of two hosts the $which one, which works, is used");
	}
}

# Look-ups that hang do not keep the server.
$_->{session}->quit foreach @troubled;
$control->quit;
my $started = time;
$local->stop('fast');
cmp_ok(time - $started, '<', 5, 'the server ends in time');
done_testing();
