
# Correctness under speed: dozens of sessions, each with its own statements,
# parameters, transactions, batches, errors, cancels and timeouts, while connections are lost, servers
# restarted and definitions changed. Every session gets exactly its own answers;
# what it was told is there is there once, what it was told has failed is not
# there, and what may have run is there at most once.
#
# The sessions are those of test/stress/main.c; this makes the servers and
# disturbs them. Quiet phases, in which nobody may see an error that is not his
# own, alternate with loud ones, in which connections are lost.
#
#   STRESS_SECONDS    how long, 60 if not said
#   STRESS_SESSIONS   how many, 48 if not said
#   STRESS_SEED       the choices of an earlier run, which prints its own
#   STRESS_VALGRIND   1: the local server runs under valgrind, 30 times as slow

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use IPC::Open2;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{STRESS_SECONDS} || 60;
my $valgrind = $ENV{STRESS_VALGRIND};
my $nsessions = $ENV{STRESS_SESSIONS} || ($valgrind ? 12 : 48);
my $seed = $ENV{STRESS_SEED} || int(rand(1000000000));
my $stretch = $valgrind ? 10 : 1;

# What a worker's memory may grow by, in kB.
my $room = 32 * 1024;

diag("STRESS_SEED=$seed, $nsessions sessions, $seconds seconds");
srand($seed);

# --- servers and pools ------------------------------------------------------------

# Sessions log errors by the thousand.
my $remote = make_remote(conf => "restart_after_crash = on\nmax_prepared_transactions = 50\n");
my $quiet_roles =
  q{ALTER ROLE stress_a SET log_min_messages = 'panic';
	ALTER ROLE stress_b SET log_min_messages = 'panic';};
system_or_bail('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
	'-d', $remote->connstr('postgres'),
	'-f', "$FindBin::RealBin/../stress/remote.sql");
$remote->safe_psql('postgres', $quiet_roles);

my $local = make_local(
	no_start => 1,
	workers => 2,
	conf =>
	  "log_line_prefix = '%m [%p] %b %q%u '\nclient_connection_check_interval = '1s'\n"
);
my $scratch = PostgreSQL::Test::Utils::tempdir();
$valgrind ? start_under_valgrind($local) : $local->start;
$local->safe_psql(
	'postgres', "CREATE EXTENSION dbpool;
	 CREATE ROLE stress_a LOGIN;
	 CREATE ROLE stress_b LOGIN;
	 $quiet_roles");

system_or_bail('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
	'-d', $local->connstr('postgres'),
	'-f', "$FindBin::RealBin/../stress/local.sql");

sub start_under_valgrind
{
	my ($node) = @_;
	my $wrapper = "$scratch/postgres";
	my $postgres = qx(pg_config --bindir);
	chomp $postgres;

	append_to_file($wrapper, <<"END");
#!/bin/sh
exec valgrind --quiet --trace-children=yes --leak-check=no \\
	--error-markers=BEGIN-ERROR,END-ERROR \\
	--suppressions=$FindBin::RealBin/../../scripts/valgrind.supp \\
	--log-file=$scratch/%p.log $postgres/postgres "\$@"
END
	chmod 0755, $wrapper;
	system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-l',
		$node->logfile, '-p', $wrapper, 'start');
	$node->_update_pid(1);
	return;
}

# A way to the remote that loses answers, and parts of requests, when it is told to.
my $cutter = FaultProxy->start($remote,
	seed => $seed,
	commands => ['pieces 16384']);

# name => options. In "tight" nobody is sure to get a connection.
my %pools = (
	fast => { max_size => 2, multiplex => 'on' },
	one => { max_size => 1, multiplex => 'on' },
	plain => { max_size => 4, multiplex => 'off' },
	always => { max_size => 3, reset => 'always' },
	small => {
		max_size => 3,
		multiplex => 'on',
		prepare_threshold => 1,
		statement_cache_size => 3 },
	cut => {
		$cutter->options,
		max_size => 3,
		multiplex => 'on' },
	tight => { max_size => 1, acquire_timeout => 20 * $stretch . 'ms' },);

foreach my $pool (sort keys %pools)
{
	create_pool($local, $pool, $remote,
		acquire_timeout => 30 * $stretch . 's',
		%{ $pools{$pool} });
	$local->safe_psql('postgres',
		"GRANT USAGE ON FOREIGN SERVER $pool TO stress_a, stress_b");
	$local->safe_psql('postgres',
		"CREATE USER MAPPING FOR $_ SERVER $pool OPTIONS (user '$_', password_required 'false')"
	) foreach 'stress_a', 'stress_b';
}

my $control = session($local);

sub value { return $control->value(@_); }

sub remote_value { return $remote->safe_psql('postgres', @_); }

sub any { return $_[ rand @_ ]; }

# What the local server's log should not have.
sub complaints
{
	return grep {
		/PANIC|TRAP:|terminated by signal|impossible|internal error/
		  || (/dbpool worker (ERROR|FATAL)/ && !/administrator command/)
	} split /\n/, slurp_file($local->logfile);
}

# --- the driver --------------------------------------------------------------------

my $driver = open2(
	my $said, my $tell,
	"$FindBin::RealBin/../stress/stress",
	$local->connstr('postgres'),
	$remote->connstr('postgres'),
	$seed, $nsessions, $stretch, ('one') x 4, ('fast') x 2, 'small',
	sort keys %pools);
$tell->autoflush(1);

# When it ends too early, the reason may be in the local server's log.
END
{
	if ($driver)
	{
		kill 'KILL', $driver;
		diag($_) foreach complaints();
	}
}

my %counts;
my $nfailures = 0;

# Take a line of what it says; false at its end.
sub listen_to_driver
{
	my $line = <$said>;

	return unless defined $line;
	chomp $line;
	if ($line =~ /^FAIL/)
	{
		diag($line);
		$nfailures++;
	}
	$counts{$1} = $2 if $line =~ /^count (\w+) (\d+)$/;
	return $line;
}

# Say a word, and wait until it is heard.
sub tell_driver
{
	my ($word) = @_;
	local $SIG{PIPE} = 'IGNORE';

	print {$tell} "$word\n";
	while (my $line = listen_to_driver())
	{
		return if $line eq $word;
	}
	die "the driver is gone";
}

# --- what is done to them in quiet phases -------------------------------------------

my %done;

# What waits for those who may take longer.
sub in_time
{
	value("DO 'BEGIN PERFORM " . $_[0] =~ s/'/''/gr . "; EXCEPTION WHEN lock_not_available THEN NULL; END'");
	return;
}

my %quiet = (
	'change of a definition' => sub {
		my $pool = any('fast', 'plain', 'always', 'small');
		value("ALTER SERVER $pool OPTIONS (SET max_size '"
			  . (1 + int rand 6)
			  . "')");
		sleep rand 0.5;
		value(
			"ALTER SERVER $pool OPTIONS (SET max_size '$pools{$pool}->{max_size}')"
		);
	},
	'change of a mapping' => sub {
		my ($pool, $user) = (any('fast', 'plain'), any('stress_a', 'stress_b'));
		value(
			"ALTER USER MAPPING FOR $user SERVER $pool OPTIONS (ADD password 'x')"
		);
		value(
			"ALTER USER MAPPING FOR $user SERVER $pool OPTIONS (DROP password)"
		);
	},
	'reset of a pool' => sub {
		in_time("dbpool_reset('" . any(sort keys %pools) . "', '2s')");
	},
	'pause' => sub {
		my $pool = any('fast', 'plain', 'small');
		in_time("dbpool_pause('$pool', '2s')");
		sleep rand 0.3;
		value("SELECT dbpool_resume('$pool')");
	},
	'change of a result type' => sub {
		my $type = any('int', 'bigint', 'text', 'numeric');
		remote_value(
			"ALTER TABLE stress_shifting ALTER COLUMN v TYPE $type USING v::$type"
		);
	},
	'change of an index' => sub {
		remote_value(
			'CREATE INDEX stress_new ON stress_fixed (v); DROP INDEX stress_new');
	},
	'change of a setting' => sub {
		my $timeout = any(0, 5, 15, 15, 100) * $stretch;
		value("ALTER SYSTEM SET dbpool.stall_timeout = $timeout");
		value('SELECT pg_reload_conf()');
	},
	'stopped remote process' => sub {
		my $pid = value(
			"SELECT remote_pid FROM dbpool_connections WHERE state = 'busy' ORDER BY random() LIMIT 1"
		);
		return unless $pid;
		suspend($pid);
		sleep 0.1 + rand 0.7;
		resume($pid);
	},
	'stopped session' => sub {
		my $pid = value(
			"SELECT pid FROM dbpool_requests WHERE pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
		);
		return unless $pid;
		suspend($pid);
		sleep 0.1 + rand 0.7;
		resume($pid);
	},

	# when it goes on, all have come at once
	'stopped worker' => sub {
		my $pid = worker_pid($control, 1 + int rand 2);
		foreach (1 .. 10)
		{
			suspend($pid);
			sleep rand 0.1;
			resume($pid);
			sleep rand 0.1;
		}
	},);

# --- and in loud ones ------------------------------------------------------------------

my $worker_kills = 0;

my @loud = (
	'termination of remote processes' => sub {
		foreach my $round (1 .. 10)
		{
			my $which = $round % 2 ? "AND state = 'active'" : '';
			remote_value(
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				 WHERE usename LIKE 'stress%' $which ORDER BY random() LIMIT 3"
			);
			sleep rand 0.2;
		}
	},
	'end of the workers' => sub {
		foreach (1 .. 2)
		{
			my @pids = map { worker_pid($control, $_) } 1, 2;
			value("SELECT pg_terminate_backend($_)") foreach @pids;
			$worker_kills += @pids;
			sleep 0.5 + rand 1;
		}
	},
	'restart of the remote' => sub {
		$remote->stop('immediate');
		sleep rand 0.5;
		$remote->start;
	},
	'crash of the remote' => sub {
		my $pid = value(
			'SELECT remote_pid FROM dbpool_connections WHERE remote_pid > 0 ORDER BY random() LIMIT 1'
		);
		kill 'KILL', $pid if $pid;
		sleep 0.2;
		wait_until(
			'the remote is there again',
			sub {
				return system('pg_isready', '-q', '-h', $remote->host, '-p',
					$remote->port) == 0;
			});
	},);

# All pools work again.
sub recover
{
	my $pings = join '; ', map { "SELECT dbpool_ping('$_')" } sort keys %pools;

	foreach my $user ('stress_a', 'stress_b')
	{
		wait_until(
			"the pools of $user work",
			sub {
				my ($status) = $local->psql(
					'postgres', $pings,
					on_error_stop => 1,
					extra_params => [ '-U', $user ]);
				return $status == 0;
			});
	}
	return;
}

# What both workers have in kB, without the buffers of connections, which may
# have had a value of some MB.
sub memory
{
	value("SELECT dbpool_reset('$_')") foreach keys %pools;
	sleep 0.2;
	return map { rss_kb(worker_pid($control, $_)) } 1, 2;
}

recover();
my $begin = time;
my $next_loud = 0;
my @memory;    # of both workers, from when on they are not ended any more

until (time - $begin > $seconds)
{
	my $end = time + ($seconds < 60 ? 2 : 4) * ($valgrind ? 3 : 1);
	while (time < $end)
	{
		my $what = any(sort keys %quiet);
		$quiet{$what}->();
		$done{$what}++;
		sleep rand 0.4;
	}

	# towards the end workers live on, so that their memory can be looked at
	my $late = time - $begin > $seconds * 0.6;
	@memory = memory() if $late && !@memory;
	my ($what, $how) = @loud[ $next_loud, $next_loud + 1 ];
	$next_loud = ($next_loud + 2) % @loud;
	next if $late && $what eq 'end of the workers';
	tell_driver('loud');
	$cutter->tell('on each frontend message any chance 0.01 anywhere reset');
	$cutter->tell('on each backend message any chance 0.01 anywhere fin');
	$how->();
	$cutter->tell('clear');
	$done{$what}++;
	recover();
	tell_driver('quiet');
}

my @grown = map { $_ - shift @memory } memory();
tell_driver('stop');
while (listen_to_driver()) { }
waitpid $driver, 0;
my $driver_status = $?;
$driver = 0;
$counts{repeats} = value('SELECT sum(repeats) FROM dbpool_stat_pools');

# --- what came of it ---------------------------------------------------------------------

diag('did ' . join ', ', map { "$_: $done{$_}" } sort keys %done);
diag('had ' . join ', ', map { "$_: $counts{$_}" } sort keys %counts);
diag("workers have grown by @grown kB");

is($driver_status, 0, 'the driver ends well');
is($nfailures, 0,
	'every session got its own answers, and every write is what it was told');

# It has to have happened, or nothing was tested.
my %least = (
	ok => 100 * $seconds / $stretch / $stretch,
	transactions => 5 * $seconds / $stretch / $stretch,
	rows => 100 * $seconds / $stretch / $stretch,
	expected_errors => $seconds / $stretch,
	cancelled => 0.3 * $seconds / $stretch,
	timed_out => 0.3 * $seconds / $stretch,
	killed => 0.1 * $seconds / $stretch,
	lost => $valgrind ? 1 : $seconds / 2,
	not_run => 1,
	repeats => $seconds / $stretch,
	not_acquired => 1,
	writes_ok => 30 * $seconds / $stretch / $stretch,
	writes_failed => $seconds / $stretch,
	writes_unknown_there => 1,
	writes_unknown_not_there => 1,);
foreach my $name (sort keys %least)
{
	cmp_ok($counts{$name} || 0, '>=', $least{$name}, "enough of $name");
}
is(scalar keys %done, @loud / 2 + keys %quiet, 'all kinds of disturbances')
  if $seconds >= 60 && !$valgrind;

is(value('SELECT count(*) FROM dbpool_requests'), '0', 'no request is left');
is(value('SELECT count(*) FROM dbpool_transactions'), '0', 'and no transaction');
my $both = q{SELECT string_agg(session || '.' || serial, ' ' ORDER BY session, serial) FROM };
is(value($both . 'stress_here'), remote_value($both . 'stress_there'),
	'what was written in two phases is here and there');
is( value(
		"SELECT string_agg(DISTINCT state, ' ') FROM dbpool_connections"),
	'idle',
	'all connections are idle');
is( value(
		"SELECT string_agg(pool, ' ') FROM dbpool_pools WHERE idle > max_size OR waiting > 0"
	),
	'',
	'no pool has too many');
ok( wait_until(
		'the remote has the same connections as the views',
		sub {
			return value(
				q{SELECT string_agg(remote_pid::text, ' ' ORDER BY remote_pid) FROM dbpool_connections WHERE user_name LIKE 'stress%'}
			) eq remote_value(
				q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE usename LIKE 'stress%'}
			);
		}),
	'the remote has no other connections than the views show');
is(value('SELECT sum(starts) FROM dbpool_workers'),
	2 + $worker_kills, 'workers ended only when they were told to');
if (!$valgrind)
{
	cmp_ok($_, '<', $room, 'a worker does not grow') foreach @grown;
}

$control->quit;
$cutter->stop;
$local->stop('fast');

is(join("\n", complaints()), '', 'the log of the local server has no complaints');

if ($valgrind)
{
	my @logs = map { slurp_file($_) } glob "$scratch/*.log";
	my @errors = grep { /BEGIN-ERROR/ } @logs;
	cmp_ok(scalar @logs, '>', $nsessions, 'memcheck was there');
	is(scalar @errors, 0, 'memcheck found nothing');
	diag($_) foreach @errors;
}

done_testing();
