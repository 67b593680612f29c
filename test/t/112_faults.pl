
# Whatever the worker calls that may fail does fail: memory is not to be had, libpq
# returns an error. One fault point after the other fails under a small workload in
# which everything occurs, and afterwards everything works again: nobody waits,
# nothing is busy with nothing, no pool has more connections than it may have.
# See src/fault.h.
#
# By default each point fails once, at one of the times at which it is passed, which
# depends on a number that is printed; that takes a minute or two. FAULT_SWEEP=long
# has each fail at each of the times, alone and with the three after it;
# FAULT_SWEEP=N, up to N times. FAULT_SEED=N repeats a run.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# Seconds within which everything works again. The longest are 10 for a cancelled
# statement and 5 for a check or a reset that the remote does not answer.
my $bound = 20;

# Compile dbpool with fault points. Returns the folder of the library, or nothing.
sub build_with_faults
{
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/faults";
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)} = ('', '', '');

	mkdir $dir;
	system('cp', '-r', 'src', 'sql', 'Makefile', 'dbpool.control', $dir) == 0
	  or return;
	# the objects of a build without
	system("find '$dir' -name '*.o' -delete");
	system(
		"make -s -C '$dir' -j2 FAULTS=1 COPT=-O1 PG_CONFIG='$pg_config' dbpool.so"
	) == 0 or return;
	return $dir;
}

my $library = build_with_faults();
plan skip_all => 'dbpool cannot be compiled here' unless $library;

# what this test is about
announce(qr/dbpool worker (?:ERROR|FATAL):/);

my $remote = make_remote();
my $local = make_local(
	workers => 2,
	no_start => 1,
	conf => "dynamic_library_path = '$library:\$libdir'\n"
	  . "dbpool.max_connections = 12\n");
$local->append_conf('postgresql.conf',
	"shared_preload_libraries = '$library/dbpool'\n");
$local->start;
$local->safe_psql(
	'postgres', qq{
	CREATE EXTENSION dbpool;
	UPDATE pg_proc SET probin = '$library/dbpool' WHERE probin LIKE '%dbpool';
	CREATE FUNCTION fault_arm(place text, pass int, many int) RETURNS void
		LANGUAGE c STRICT AS '$library/dbpool', 'dbpool_fault_arm';
	CREATE FUNCTION fault_disarm() RETURNS void
		LANGUAGE c STRICT AS '$library/dbpool', 'dbpool_fault_disarm';
	CREATE FUNCTION fault_report() RETURNS text
		LANGUAGE c STRICT AS '$library/dbpool', 'dbpool_fault_report';
	CREATE FUNCTION fault_places() RETURNS text
		LANGUAGE c STRICT AS '$library/dbpool', 'dbpool_fault_places';});
$remote->safe_psql(
	'postgres', q{
	CREATE TABLE t (a int, b text);
	CREATE FUNCTION says(what text) RETURNS int LANGUAGE plpgsql AS
	$$BEGIN RAISE NOTICE '%', what; RETURN 1; END$$;});

my %options = (max_size => 3, min_size => 1, idle_timeout => '600s');
create_pool(
	$local, 'p', $remote, %options,
	prepare_threshold => 1,
	statement_cache_size => 2);
create_pool($local, 'c', $remote, %options, validate_after => 0);
create_pool($local, 'h', $remote, %options, host => 'localhost,' . $remote->host);

my @pools = qw(p c h);
my $control = session($local);
my @sessions = map { session($local) } 1 .. 3;
my $where = $remote->host . "', port '" . $remote->port;
my @work = (
	q{
	SELECT * FROM dbpool_query('p', 'SELECT $1::int', 1) AS t(x int);
	SELECT * FROM dbpool_query('p', 'SELECT $1::int', 2) AS t(x int);
	SELECT * FROM dbpool_query('p', 'SELECT $1::int', 3) AS t(x int);
	SELECT count(*) FROM dbpool_query('p', 'SELECT repeat(''x'', 1000) FROM generate_series(1, 300)') AS t(x text);
	SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1)');
	SELECT dbpool_exec('p', 'CREATE TEMP TABLE tt (a int); SET work_mem = ''1MB''');
	SELECT dbpool_bulk_insert('p', 't', 'SELECT g, repeat(''y'', 50) FROM generate_series(1, 2000) g');
	SELECT count(*) FROM dbpool_batch('p', ARRAY['SELECT 1', 'INSERT INTO t VALUES (1)'], results => true);
	SELECT count(*) FROM dbpool_batch('p', ARRAY['SELECT 1', 'SELECT 1 / 0'], mode => 'independent', parallel => 2);
	SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES ($1, $2)', 'SELECT g, repeat(''y'', 100) FROM generate_series(1, 2500) g');
	SELECT * FROM dbpool_query('p', 'SELECT 1 / 0') AS t(x int);
	SELECT dbpool_exec('p', 'SELECT ''' || repeat('z', 100000) || '''');
	SELECT dbpool_ping('p');
	SELECT dbpool_exec('c', 'SELECT says(''hello'')');
	SELECT dbpool_exec('c', 'PREPARE x AS SELECT 1');
	BEGIN;
	SET LOCAL dbpool.transaction = bound;
	SELECT dbpool_exec('p', 'INSERT INTO t VALUES (2)');
	SAVEPOINT a;
	SELECT dbpool_exec('p', 'SELECT 1 / 0');
	ROLLBACK TO a;
	SELECT * FROM dbpool_query('p', 'SELECT $1::int', 5) AS t(x int);
	SELECT dbpool_bulk_insert('p', 't', 'SELECT g FROM generate_series(1, 100) g');
	SELECT dbpool_exec('c', 'CREATE TEMP TABLE tt (a int)');
	COMMIT;
	SELECT dbpool_exec('c', 'BEGIN')},
	qq{
	SELECT count(*) FROM (SELECT dbpool_exec('p', 'SELECT length(\$1)', g::text) FROM generate_series(1, 5) g OFFSET 0) c;
	SELECT * FROM dbpool_query('p', 'SELECT \$1::text', 'a') AS t(x text);
	SET statement_timeout = '30ms';
	SELECT * FROM dbpool_query('p', 'SELECT pg_sleep(60)') AS t(x text);
	RESET statement_timeout;
	SELECT * FROM dbpool_query('h', 'SELECT 1') AS t(x int);
	SELECT dbpool_exec('c', 'SELECT 1');
	SELECT dbpool_begin('p', 'tx');
	SELECT dbpool_exec('tx', 'INSERT INTO t VALUES (3)');
	SELECT dbpool_savepoint('tx', 'a');
	SET statement_timeout = '30ms';
	SELECT * FROM dbpool_query('tx', 'SELECT pg_sleep(60)') AS t(x text);
	RESET statement_timeout;
	SELECT dbpool_rollback_to('tx', 'a');
	SELECT dbpool_exec('tx', 'SELECT length(\$1)', 'a');
	SELECT dbpool_commit('tx');
	SELECT dbpool_rollback('tx');
	BEGIN;
	CREATE SERVER u FOREIGN DATA WRAPPER dbpool OPTIONS (host '$where', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER u;
	SELECT * FROM dbpool_query('u', 'SELECT 1') AS t(x int);
	ROLLBACK;
	SELECT dbpool_exec('h', 'SELECT pg_terminate_backend(pg_backend_pid())');
	SELECT * FROM dbpool_query('p', 'SELECT \$1::int', 4) AS t(x int)},
	q{
	SELECT count(*) FROM (SELECT dbpool_exec('p', 'SELECT length($1)', g::text) FROM generate_series(1, 5) g OFFSET 0) c;
	SELECT dbpool_pause('c');
	SELECT dbpool_resume('c');
	ALTER SERVER p OPTIONS (SET idle_timeout '@s');
	SELECT * FROM dbpool_query('p', 'SELECT 5') AS t(x int);
	SELECT dbpool_exec('p', 'SELECT pg_terminate_backend(pg_backend_pid())');
	SELECT dbpool_exec('p', 'COPY (SELECT generate_series(1, 3)) TO STDOUT');
	SELECT dbpool_reset('p');
	SELECT dbpool_exec('c', 'SELECT 2');
	SELECT dbpool_begin('h', 'brief', idle_timeout => '1ms');
	BEGIN;
	SET LOCAL dbpool.transaction = bound;
	SELECT dbpool_exec('c', 'SELECT 3');
	SELECT dbpool_exec('p', 'COMMIT; BEGIN');
	COMMIT;
	SET dbpool.transaction = bound;
	SELECT dbpool_exec('p', 'SELECT pg_terminate_backend(pg_backend_pid())');
	SELECT dbpool_exec('h', 'SELECT 4');
	RESET dbpool.transaction;
	SELECT dbpool_exec('brief', 'SELECT 5');
	SELECT dbpool_rollback('brief');
	SELECT dbpool_exec('p', 'COPY t FROM STDIN');
	SELECT dbpool_reset('h', '0')});

my $at_rest = q{
	SELECT string_agg(what, ', ') FROM (
	SELECT format('%s: connecting %s, checking %s, busy %s, leased %s, cancelling %s, resetting %s, waiting %s',
		pool, connecting, checking, busy, leased, cancelling, resetting, waiting) AS what
	FROM dbpool_pools
	WHERE (connecting, checking, busy, leased, cancelling, resetting, waiting) <> (0, 0, 0, 0, 0, 0, 0)
	UNION ALL
	SELECT format('%s transaction of pool %s', state, pool) FROM dbpool_transactions
	UNION ALL
	SELECT format('%s has %s connections', pool, count(*)) FROM dbpool_connections
	GROUP BY pool HAVING count(*) > 3
	UNION ALL
	SELECT format('%s of a session of pool %s', state, pool) FROM dbpool_requests) w};

# Everything once. Returns what did not come to its end.
my $round = 0;

sub work
{
	my $idle_timeout = 600 + ++$round % 2;

	foreach my $i (0 .. 2)
	{
		$sessions[$i]->send($work[$i] =~ s/'\@s'/'${idle_timeout}s'/r);
	}
	my $end = time + $bound;
	my $waiting;
	do
	{
		$waiting = grep { !$_->is_done } @sessions;
	} while ($waiting && time < $end && sleep 0.005);
	return "$waiting sessions wait\n" if $waiting;
	$_->wait foreach @sessions;
	return '';
}

# Does everything work? Returns what does not.
sub what_is_broken
{
	my $end = time + $bound;
	my $broken = '';

	foreach my $pool (@pools)
	{
		my $answer;
		do
		{
			$answer = $control->query(
				"SET statement_timeout = '${bound}s'; SELECT * FROM dbpool_query('$pool', 'SELECT 42') AS t(x int)"
			);
		} while ($answer->{out} ne '42' && time < $end && sleep 0.1);
		$broken .= "pool $pool: $answer->{err}\n" if $answer->{out} ne '42';
	}
	my $rest;
	do
	{
		$rest = $control->value($at_rest);
	} while ($rest ne '' && time < $end && sleep 0.02);
	$broken .= "$rest\n" if $rest ne '';
	return $broken;
}

# Have a point fail at one of the times at which it is passed, and those after it.
# Returns what is broken afterwards.
my %failed;
my %endings;
my $starts = 2;

sub try_fault
{
	my ($place, $pass, $many) = @_;

	$control->value("SELECT fault_arm('$place', $pass, $many)");
	my $broken = work();
	my ($fired, $in_recovery, $where) =
	  split /\|/, $control->value('SELECT fault_report()');
	$control->value('SELECT fault_disarm()');

	$failed{$place} += $fired > 0;
	$broken .= "a recovery has passed a fault point\n" if $in_recovery;
	$broken .= what_is_broken() if $fired || $broken;
	worker_pid($control, $_) foreach 1, 2;
	my $now = $control->value('SELECT sum(starts) FROM dbpool_workers');
	if ($now != $starts)
	{
		$endings{$where}++;
		$starts = $now;
		$broken .= "a worker has ended\n"
		  unless $where =~ m{at src/worker/main\.c:|create_wait_event_set|AddWaitEventToSet};
	}
	return $broken eq '' ? '' : "$where, failed at pass $pass of $place: $broken";
}

# once without faults, so that what comes first has come
is(work() . what_is_broken(), '', 'the work can be done');
$control->value("SELECT fault_arm('', 0, 0)");
is(work() . what_is_broken(), '', 'and done again');
my %passes = map { split /\|/ } split /\n/,
  $control->value('SELECT fault_places()');

# A place in the code that was passed only once, at the start, is tried as well.
my $most = $ENV{FAULT_SWEEP} || 1;
my $seed = $ENV{FAULT_SEED} || 1 + int(rand(1000000));
my @broken;

$most = 1000000 if $most eq 'long';
diag(scalar(keys %passes) . " fault points; FAULT_SEED=$seed");
cmp_ok(scalar keys %passes, '>', 60, 'there are fault points');
srand($seed);
foreach my $place (sort keys %passes)
{
	my $times = $passes{$place} || 1;
	my @passes = 1 .. $times;

	@passes = map { 1 + int(rand($times)) } 1 .. $most if $times > $most;
	foreach my $pass (@passes)
	{
		foreach my $many ($most > 1 ? (1, 4) : rand() < 0.25 ? 4 : 1)
		{
			my $what = @broken < 3 ? try_fault($place, $pass, $many) : '';
			push @broken, $what if $what ne '';
		}
	}
}
is(join("\n", @broken),
	'', 'whatever fails, everything works again afterwards');
cmp_ok(
	(grep { $failed{$_} } keys %failed),
	'>',
	0.8 * keys %passes,
	'nearly all of them have failed');
note(join "\n", 'did not fail', grep { !$failed{$_} } sort keys %passes);
note(join "\n", 'workers ended after', map { "$endings{$_} $_" } sort keys %endings);

is(work() . what_is_broken(), '', 'the work can still be done');

# Not only at our points: the kernel gives the workers no more memory, while they
# are asked for things that take much.
subtest 'no memory from the kernel' => sub {
	my $large = session($local);
	my %answers;
	my $broken = '';

	plan skip_all => 'there is no prlimit'
	  if system('prlimit --version >/dev/null 2>&1') != 0;
	foreach my $kb (0, 0, 100, 1000, 10000)
	{
		my @workers = map { worker_pid($control, $_) } 1, 2;

		foreach my $pid (@workers)
		{
			my ($size) = slurp_file("/proc/$pid/status") =~ /VmSize:\s+(\d+) kB/;
			my $limit = 1024 * ($size + $kb);

			system("prlimit --pid $pid --as=$limit:") == 0
			  or die 'prlimit failed';
		}
		foreach my $bytes (1000, 100000, 1000000, 30000000)
		{
			my $answer;

			$answer = $large->query($_), $answers{ $answer->{state} || 'an answer' }++
			  foreach "SELECT dbpool_exec('p', 'SELECT ''' || repeat('z', $bytes) || '''')",
			  "SELECT length(x) FROM dbpool_query('p', 'SELECT repeat(''x'', $bytes)') AS t(x text)",
			  "SELECT length(x) FROM dbpool_query('c', 'SELECT repeat(''y'', $bytes) -- $kb') AS t(x text)";
			$broken .= work();
			last if $broken;
		}
		# those that have ended meanwhile have no limit
		system("prlimit --pid $_ --as=unlimited: 2>/dev/null") foreach @workers;
		$broken .= what_is_broken();
		last if $broken;
	}
	note(join ', ', map { "$answers{$_} times $_" } sort keys %answers);
	is($broken, '', 'with memory, everything works again');
	cmp_ok(scalar keys %answers, '>', 1, 'without, some things did not');
	$large->quit;
};

$_->quit foreach $control, @sessions;
done_testing();
