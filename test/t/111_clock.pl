# Somebody sets the system's clock: no wait ends early or never, no connection
# is closed for it, the statistics stay true, and the views show times that fit
# the new clock. The local server alone lives by a clock that the test can set.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $hour = 3600;
my $clock = "$PostgreSQL::Test::Utils::tmp_check/clock";

sub step
{
	my ($seconds) = @_;

	open my $file, '+<', $clock or die "could not open $clock: $!";
	syswrite $file, pack('q', $seconds);
	close $file;
	return;
}

append_to_file($clock, pack('q', 0));
my $stepped = preload_library('stepped_clock', <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

/* Seconds by which the clock was set, first thing in a file that all map. */
static int64_t
step(void)
{
	static volatile int64_t *seconds;

	if (seconds == NULL)
	{
		int			fd = open(getenv("CLOCK"), O_RDONLY);

		seconds = mmap(NULL, sizeof(*seconds), PROT_READ, MAP_SHARED, fd, 0);
	}
	return *seconds;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	static int	(*real) (struct timeval *, void *);
	int			rc;

	if (real == NULL)
		real = (int (*) (struct timeval *, void *)) dlsym(RTLD_NEXT, "gettimeofday");
	rc = real(tv, tz);
	tv->tv_sec += step();
	return rc;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			rc;

	if (real == NULL)
		real = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(id, ts);
	if (id == CLOCK_REALTIME)
		ts->tv_sec += step();
	return rc;
}
C

plan skip_all => 'no C compiler' unless $stepped;

my $remote = make_remote();
my $local = make_local(no_start => 1);
{
	local $ENV{LD_PRELOAD} = $stepped;
	local $ENV{CLOCK} = $clock;
	$local->start;
}
$local->safe_psql('postgres', 'CREATE EXTENSION dbpool');
create_pool($local, 'one', $remote, max_size => 1, acquire_timeout => '2s');
create_pool($local, 'patient', $remote, max_size => 1, acquire_timeout => '100s');
create_pool($local, 'short', $remote, idle_timeout => '3s');
create_pool($local, 'idle', $remote, max_lifetime => '1h', idle_timeout => '1h',
	health_check_interval => '1h');

my $s = session($local);
my $holder = session($local);
my $waiter = session($local);

sub waits
{
	my ($pool) = @_;
	return $s->poll("SELECT waiting = 1 FROM dbpool_pools WHERE pool = '$pool'");
}

my $before = $s->value('SELECT extract(epoch FROM clock_timestamp())');
step(-$hour);
my $after = $s->value('SELECT extract(epoch FROM clock_timestamp())');
cmp_ok($after - $before, '<', -$hour / 2, 'the clock of the server can be set');
step(0);

# --- the clock is put back ------------------------------------------------------

$s->value("SELECT dbpool_ping('short')");
$holder->send(query_sleeps('one', 60));
$s->poll("SELECT busy = 1 FROM dbpool_pools WHERE pool = 'one'");
$waiter->send("SELECT dbpool_ping('one')");
waits('one');
step(-$hour);
my $answer = $waiter->ends('who waits in vain hears of it all the same');
is($answer->{state}, '53300', 'by an error');
cmp_ok($answer->{seconds}, '<', 30, 'in time');
like(
	$answer->{err},
	qr/the longest for \d{1,2}\.\d s/,
	'the time a statement has taken is the true one');
ok( $s->poll(
		"SELECT count(*) = 0 FROM dbpool_connections WHERE pool = 'short'"),
	'an idle connection is closed when its time has come');
is( $s->value(
		q{
	SELECT count(*) FROM dbpool_requests
	WHERE submitted_at > clock_timestamp()
	   OR clock_timestamp() - submitted_at > interval '10 min'}),
	0,
	'the times that views show fit the clock');
$s->value('SELECT pg_cancel_backend(' . $holder->pid . ')');
$holder->wait;
step(0);

# --- it is put forward ----------------------------------------------------------

$s->value("SELECT dbpool_ping('idle')");
my $connection = q{SELECT remote_pid, connected_at - clock_timestamp() > interval '-10 min'
	FROM dbpool_connections WHERE pool = 'idle'};
my $first = $s->value($connection);
my $gate = session($remote);

$gate->value('SELECT pg_advisory_lock(1)');
$holder->send(
	q{SELECT * FROM dbpool_query('patient', 'SELECT 1 FROM pg_advisory_lock(1)') AS t(x int)});
$s->poll("SELECT busy = 1 FROM dbpool_pools WHERE pool = 'patient'");
$waiter->send("SELECT dbpool_ping('patient')");
waits('patient');
step(2 * $hour);
$s->value("SELECT dbpool_ping('idle')");    # a turn of the worker
is($s->value($connection), $first,
	'no connection has grown old, and views know since when it is there');
$gate->value('SELECT pg_advisory_unlock(1)');
is($waiter->wait->{err}, '', 'nobody has waited too long');
$holder->wait;
is( $s->value(
		q{
	SELECT count(*) FROM dbpool_stat_pools
	WHERE greatest(wait_time, wait_time_max, exec_time, exec_time_max, connect_time) > 600000
	   OR least(wait_time, wait_time_max, exec_time, exec_time_max, connect_time) < 0}),
	0,
	'no statistic has counted the step');

# --- and back while a migration waits -------------------------------------------

my $silent = silent_listener();
create_pool($local, 'silent', undef,
	host => '127.0.0.1', port => $silent->sockport, connect_timeout => '3s');
$s->value(
	q{SELECT dbpool_add_migration('silent', 1, 'first', 'CREATE TABLE t ()')});
$waiter->send(q{SELECT * FROM dbpool_migrate('silent')});
$s->poll(
	q{SELECT count(*) = 1 FROM dbpool_progress_migrate WHERE phase = 'connecting'});
step(0);
$answer = $waiter->ends('connect_timeout holds for migrations');
is($answer->{state}, '08001', 'by an error');
cmp_ok($answer->{seconds}, '<', 30, 'in time');

done_testing();
