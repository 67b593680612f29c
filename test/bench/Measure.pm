# Measure: runs one peer of one workload once, and says what came of it.
#
# What the figures are, and why:
#   rate       pgbench's own progress reports, summed up. The first second, in
#              which sessions connect and caches fill, does not count.
#   p50...     latencies in milliseconds, out of pgbench's log, of a sample
#   peak       remote server processes for clients, looked at all the time
#   opened     remote sessions that the statistics counted
#   cpu_...    microseconds of processor time per transaction or row, of the
#              dbpool worker, the rest of the local server, the remote server,
#              pgbouncer, and the client program
#   others     per cent of all processors that others used meanwhile
#   worker_growth_mb   how much the worker's own memory grew meanwhile
#   memory_... of idle sessions, see measure_sessions()
# All of it comes from /proc, from pgbench, and from queries before and after:
# nothing asks the servers anything while they are measured.

package Measure;

use strict;
use warnings;

use IO::Select;
use List::Util qw(max sum0);
use POSIX ();
use Time::HiRes qw(sleep time);

my $SANDBOX = $ENV{BENCH_SANDBOX};
my $BINDIR = $ENV{BENCH_BINDIR};
my $SCRIPTS = __FILE__ =~ m{^(.*)/} ? $1 : '.';
my $LOGS = "$SANDBOX/log" if $SANDBOX;

# Nothing here takes longer, unless it hangs.
use constant PATIENCE => 120;

# The share of latencies that pgbench logs. A log of all would cost the fast
# peers more than the slow ones; those that are too slow for it have their own.
use constant SAMPLE => 0.25;

my %pid;            # postmasters of local and remote, pooler, worker
my $remote_base;    # remote processes that serve nobody
my %have;           # needs of peers that are met
my %options;        # of pools: are they known here?
my $tables_rows;

sub conninfo
{
	my ($where, $dbname) = @_;
	my $user = getpwuid $>;

	$dbname ||= 'bench';
	return "host=$SANDBOX/$where port=5432 dbname=$dbname user=$user";
}

# What psql prints. Dies of an error. Takes where to, SQL or undef, and more
# arguments of psql.
sub sql
{
	my ($where, $sql, @more) = @_;
	my @command = (
		"$BINDIR/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d',
		conninfo($where), @more);

	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
	push @command, '-c', $sql if defined $sql;
	open my $pipe, '-|', @command or die "could not run psql: $!\n";
	local $/;
	my $output = <$pipe>;
	close $pipe or die "psql failed\n";
	$output = '' unless defined $output;
	$output =~ s/\n\z//;
	return $output;
}

# The servers that are remotes; the second one is for workloads of two.
my @REMOTES = ('remote', 'remote2');

# --- before it begins ---------------------------------------------------------

# Make the tables and what peers need; find out which of them are there.
sub prepare
{
	my (%params) = @_;
	my @variables = map { ('-v', "$_=$params{$_}") } qw(rows wide_rows);

	$tables_rows = $params{rows};
	mkdir $LOGS;
	foreach my $server ('local', @REMOTES)
	{
		($pid{$server}) =
		  slurp("$SANDBOX/$server/data/postmaster.pid") =~ /^(\d+)/;
		system("$BINDIR/createdb", '-h', "$SANDBOX/$server", '-p', 5432,
			'bench') == 0
		  or die "createdb failed\n";
	}
	foreach my $need ('dblink', 'postgres_fdw', 'plproxy')
	{
		$have{$need} = sql('local',
			"SELECT count(*) FROM pg_available_extensions WHERE name = '$need'"
		);
		push @variables, '-v', "has_$need=$have{$need}";
	}
	sql($_, undef, @variables, '-f', "$SCRIPTS/remote.sql")
	  foreach $params{second} ? @REMOTES : 'remote';
	sql('local', undef, @variables, '-v', "remote=$SANDBOX/remote",
		'-f', "$SCRIPTS/local.sql");
	$have{pgbouncer} = $ENV{BENCH_POOLER_PID};
	$pid{pooler} = $ENV{BENCH_POOLER_PID};
	$pid{delay} = $ENV{BENCH_DELAY_PID};
	$have{dbpool_bulk_insert} = sql('local',
		"SELECT count(*) FROM pg_proc WHERE proname = 'dbpool_bulk_insert'");
	$remote_base = @REMOTES * sql('remote',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type <> 'client backend'"
	);
	return;
}

sub has
{
	my ($need) = @_;

	return $have{$need};
}

# Is that an option of pools? Older versions of dbpool do not know all.
sub knows_option
{
	my ($option, $value) = @_;

	return $options{$option} //= sql(
		'local', qq{
		DO \$\$ BEGIN
		  PERFORM dbpool_validator(ARRAY['$option=$value'], 'pg_foreign_server'::regclass);
		  SET bench.known = 1;
		EXCEPTION WHEN fdw_invalid_option_name THEN SET bench.known = 0;
		END \$\$;
		SELECT current_setting('bench.known')});
}

# --- a look at processes ------------------------------------------------------

sub slurp
{
	my ($path) = @_;

	open my $file, '<', $path or return '';
	local $/;
	my $content = <$file>;
	return defined $content ? $content : '';
}

sub children
{
	my ($pid) = @_;

	return split ' ', slurp("/proc/$pid/task/$pid/children");
}

sub remote_connections
{
	my @children = map { children($pid{$_}) } @REMOTES;

	return @children - $remote_base;
}

use constant TICK => 1 / POSIX::sysconf(POSIX::_SC_CLK_TCK());

# Processor time in seconds that a process has used, with all of its threads.
# In the usual account it comes in ticks, and many processes that each use less
# than one are many times nothing; the scheduler's own is in nanoseconds.
sub cpu_of_process
{
	my ($pid) = @_;
	my @threads =
	  map { slurp($_) =~ /^(\d+) / } glob "/proc/$pid/task/*/schedstat";

	return @threads ? sum0(@threads) / 1e9 : cpu_fields($pid, 11, 12);
}

# The same of a server. Those of its children that have ended are in the
# account of the postmaster, so each counts just once.
sub cpu_of_server
{
	my ($pid) = @_;

	return cpu_fields($pid, 13, 14) + sum0 map { cpu_of_process($_) } $pid,
	  children($pid);
}

# Some of the times in /proc/PID/stat, in seconds.
sub cpu_fields
{
	my ($pid, @which) = @_;
	my $stat = slurp("/proc/$pid/stat");

	$stat =~ s/^.*\) //;
	my @fields = split ' ', $stat;
	return @fields ? sum0(@fields[@which]) * TICK : 0;
}

# All processor time so far: by whom the report shows, by what is needed to
# measure, and by the whole machine.
sub cpu_now
{
	my ($client) = @_;
	my %cpu = (
		worker => cpu_of_process($pid{worker}),
		local => cpu_of_server($pid{local}),
		remote => sum0(map { cpu_of_server($pid{$_}) } @REMOTES),
		client => $client ? cpu_of_process($client) : (times)[2] + (times)[3],
		bench => cpu_of_process($$),
		delay => cpu_of_process($pid{delay}));

	$cpu{pooler} = cpu_of_process($pid{pooler}) if $pid{pooler};
	$cpu{local} -= $cpu{worker};
	return { by => \%cpu, machine => machine_cpu(), at => time };
}

# What all processors have done but be idle and wait for disks. It includes
# what a virtual machine was not given.
sub machine_cpu
{
	my ($user, $nice, $system, undef, undef, $irq, $softirq, $steal) =
	  slurp('/proc/stat') =~ /^cpu +(.*)/ ? split ' ', $1 : ();

	return TICK *
	  sum0(grep { defined } $user, $nice, $system, $irq, $softirq, $steal);
}

# Microseconds per unit of work, and how many per cent of all processors others
# had meanwhile, whoever they are.
sub cpu_between
{
	my ($before, $after, $units) = @_;
	my %used =
	  map { ($_ => $after->{by}->{$_} - $before->{by}->{$_}) }
	  keys %{ $after->{by} };
	my $cores = () = slurp('/proc/stat') =~ /^cpu\d/mg;
	my $others = $after->{machine} - $before->{machine} - sum0(values %used);

	return (
		others => 100 *
		  max(0, $others) /
		  $cores /
		  ($after->{at} - $before->{at}),
		map { ("cpu_$_" => $used{$_} * 1e6 / $units) } keys %used);
}

# Memory in kB that a process shares with nobody.
sub private_kb
{
	my ($pid) = @_;
	my $rollup = slurp("/proc/$pid/smaps_rollup");

	return sum0 $rollup =~ /^Private_(?:Clean|Dirty): +(\d+)/mg;
}

# Without the shared memory that it has touched.
sub anonymous_kb
{
	my ($pid) = @_;

	return slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : 0;
}

# --- around each measuring ----------------------------------------------------

# The pool is made anew, so that none finds what another one has learned, and
# none keeps connections that others would be charged with.
sub make_pool
{
	my ($workload, $peer, $name) = @_;
	my %pool = (
		host => "$SANDBOX/" . ($workload->{via} || $name),
		port => 5432,
		dbname => 'bench',
		%{ $peer->{pool} });
	my $list = join ', ', map { "$_ '$pool{$_}'" }
	  grep { !exists $peer->{pool}->{$_} || knows_option($_, $pool{$_}) }
	  sort keys %pool;

	sql('local',
		"CREATE SERVER $name FOREIGN DATA WRAPPER dbpool OPTIONS ($list)");
	sql('local', "CREATE USER MAPPING FOR CURRENT_USER SERVER $name");
	return;
}

sub wait_until
{
	my ($what, $condition) = @_;
	my $end = time + PATIENCE;

	until ($condition->())
	{
		die "waited in vain until $what\n" if time > $end;
		sleep 0.02;
	}
	return;
}

sub wait_for_quiet
{
	wait_until('the remote has no connections',
		sub { remote_connections() <= 0 });
	return;
}

# Asked from another database, so that it does not count itself.
sub sessions_so_far
{
	return sum0 map {
		sql($_, "SELECT sessions FROM pg_stat_database WHERE datname = 'bench'",
			'-d', conninfo($_, 'postgres'))
	} @REMOTES;
}

# One peer, one time. Returns metrics by name.
sub measure
{
	my ($workload, $peer, %params) = @_;
	my $how = Measure->can("measure_$workload->{kind}");
	my @remotes = $peer->{second} ? @REMOTES : 'remote';

	if ($workload->{before}) { sql($_, $workload->{before}) foreach @remotes; }
	$pid{worker} = sql('local', 'SELECT pid FROM dbpool_workers LIMIT 1');
	wait_for_quiet();
	my $sessions = sessions_so_far();
	wait_for_quiet();
	if ($peer->{pool}) { make_pool($workload, $peer, $_) foreach @remotes; }
	my %result = $how->($workload, $peer, %params);
	if ($peer->{pool}) { sql('local', "DROP SERVER $_ CASCADE") foreach @remotes; }
	wait_for_quiet();
	$result{opened} = sessions_so_far() - $sessions;
	# pgbench looks around by a session of its own.
	$result{opened}-- if $peer->{at} eq 'remote';
	unlink glob "$LOGS/*";
	return \%result;
}

# --- pgbench ------------------------------------------------------------------

# How pgbench is called, but for how long.
sub pgbench_command
{
	my ($workload, $peer, $clients) = @_;
	my $where =
	  $peer->{at} eq 'local' ? 'local' : $workload->{via} || 'remote';
	my @command = (
		"$BINDIR/pgbench", '-n',
		'-h', "$SANDBOX/$where",
		'-p', 5432,
		'-M', $peer->{protocol},
		'-c', $clients,
		'-j', $clients > 1 ? 2 : 1,
		'-D', "rows=$tables_rows",
		'-D', 'connected=0');

	push @command, '-C' if $workload->{reconnect};
	push @command, '-D', "times=$workload->{times}" if $workload->{times};
	push @command, '-D', 'conn=' . dblink_conninfo($workload, $peer)
	  if $peer->{conn};
	foreach my $script (@{ $peer->{scripts} })
	{
		my ($what, $weight) = split /@/, $script;
		push @command, '-f',
		  "$SCRIPTS/${what}_$peer->{script}.sql"
		  . ($weight ? "\@$weight" : '');
	}
	return (@command, 'bench');
}

sub dblink_conninfo
{
	my ($workload, $peer) = @_;

	return conninfo('pooler', "bench" . ($workload->{pool}->{max_size} || 8))
	  if $peer->{conn} eq 'pooler';
	return conninfo($workload->{via} || 'remote');
}

my $running;    # a program that must not outlive this one

END
{
	kill 'KILL', $running if $running;
}

# Starts a program with its standard error in a pipe, which is returned; its
# output is thrown away.
sub start
{
	my (@command) = @_;

	pipe my $reader, my $writer or die "pipe: $!\n";
	my $child = fork;
	die "fork: $!\n" unless defined $child;
	unless ($child)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>&', $writer;
		exec { $command[0] } @command or POSIX::_exit(1);
	}
	close $writer;
	$running = $child;
	return $reader;
}

# Waits for its end. True if it succeeded.
sub finish
{
	waitpid $running, 0;
	undef $running;
	return $? == 0;
}

# Runs pgbench. Looks at the number of connections and at the worker's memory
# all along, and hands each line that it says to a function.
sub run_pgbench
{
	my ($command, $on_line) = @_;
	my $pipe = start(@$command);
	my $select = IO::Select->new($pipe);
	my $end = time + PATIENCE;
	my $worker_before = anonymous_kb($pid{worker});
	my ($said, $rest, $peak, $worker) = ('', '', 0, 0);

	while (1)
	{
		my $ready = $select->can_read(0.05);
		$peak = max($peak, remote_connections());
		$worker = max($worker, anonymous_kb($pid{worker}));
		if (time > $end)
		{
			kill 'KILL', $running;
			$said .= "took longer than " . PATIENCE . " seconds\n";
		}
		next unless $ready;
		sysread($pipe, $rest, 65536, length $rest) or last;
		while ($rest =~ s/^(.*)\n//)
		{
			$said .= "$1\n";
			$on_line->($1) if $on_line;
		}
	}
	finish() or die "pgbench failed: @$command\n$said";
	return (
		peak => $peak,
		worker_growth_mb => max(0, $worker - $worker_before) / 1024);
}

# Latencies in ms out of pgbench's logs, in order: of the first script, within
# a time.
sub latencies
{
	my ($from, $to) = @_;
	my @latencies;

	foreach my $name (glob "$LOGS/latency.*")
	{
		open my $file, '<', $name or die "$name: $!\n";
		while (my $line = <$file>)
		{
			# client, number, microseconds, script, time
			my (undef, undef, $us, $script, $s, $s_us) = split ' ', $line;
			next if $script != 0;
			my $at = $s + $s_us / 1e6;
			push @latencies, $us / 1000
			  if !defined $from || ($at >= $from && $at <= $to);
		}
	}
	return [ sort { $a <=> $b } @latencies ];
}

sub percentile
{
	my ($sorted, $percent) = @_;

	return @$sorted ? $sorted->[ int($percent / 100 * $#$sorted + 0.5) ] : undef;
}

# A rate is taken between two reports of progress, and so is processor time.
# pgbench has no "so long, but at least a second to warm up" and does not
# always print the report of the last second, so it is told to run for long,
# and ended by the signal by which its own alarm would do it: all transactions
# come to their end, and a failure is told from success.
sub measure_rate
{
	my ($workload, $peer, %params) = @_;
	my ($clients, $seconds) = @params{qw(clients seconds)};
	my @reports;
	my ($before, $after);
	my $transactions = 0;
	my $failed = 0;
	my @command = pgbench_command($workload, $peer, $clients);

	splice @command, 1, 0, '-T', PATIENCE, '-P', 1, '--progress-timestamp',
	  '-l', "--log-prefix=$LOGS/latency",
	  "--sampling-rate=" . ($peer->{sample} || SAMPLE);
	my %result = run_pgbench(
		\@command,
		sub {
			my ($line) = @_;

			return if $after;
			return
			  unless $line =~
			  /^progress: ([\d.]+) s, ([\d.]+) tps.*?(\d+) failed/;
			$transactions += $2 * ($1 - $reports[-1]) if @reports;
			$failed       += $3;
			push @reports, $1;
			$before = cpu_now($running) if @reports == 1;
			return unless @reports == $seconds + 1;
			$after = cpu_now($running);
			kill 'ALRM', $running;
		});
	die "$failed transactions failed: @command\n" if $failed;
	die "no transaction ended: @command\n" unless $transactions;
	my ($from, $to) = @reports[ 0, $seconds ];
	my $latencies = latencies($from, $to);
	return (
		%result,
		rate => $transactions / ($to - $from),
		(map { ("p$_" => percentile($latencies, $_)) } 50, 95, 99),
		cpu_between($before, $after, $transactions));
}

# --- a few statements of many rows --------------------------------------------

sub measure_bulk
{
	my ($workload, $peer, %params) = @_;
	my $before = cpu_now();
	my ($seconds, %result) =
	  $peer->{shell}
	  ? time_shell($workload, $peer)
	  : time_statements($workload, $peer);

	my $rows = $workload->{rows} * ($peer->{shell} ? 1 : $workload->{repeat});
	return (
		%result,
		rate => $workload->{rows} / $seconds,
		p50 => $seconds * 1000,
		cpu_between($before, cpu_now(), $rows));
}

sub time_statements
{
	my ($workload, $peer) = @_;
	my @command = pgbench_command($workload, $peer, 1);

	splice @command, 1, 0, '-t', $workload->{repeat}, '-l',
	  "--log-prefix=$LOGS/latency";
	my %result = run_pgbench(\@command);
	return (percentile(latencies(), 50) / 1000, %result);
}

# What one would type instead.
sub time_shell
{
	my ($workload, $peer) = @_;
	my %psql = map {
		($_ => "'$BINDIR/psql' -X -q -v ON_ERROR_STOP=1 -d '"
			  . conninfo($_) . "'")
	} 'local', 'remote';
	my %commands = (
		large =>
		  "$psql{remote} -c 'COPY (SELECT id, v FROM wide, generate_series(1, $workload->{times})) TO STDOUT' >/dev/null",
		bulk =>
		  "$psql{local} -c 'COPY (SELECT id, v FROM source) TO STDOUT' | $psql{remote} -c 'COPY bulk FROM STDIN'"
	);
	my $command = $commands{ $workload->{scripts}->[0] };
	my $start = time;

	system('bash', '-o', 'pipefail', '-c', $command) == 0
	  or die "failed: $command\n";
	return (time - $start, peak => 1);
}

# --- calls that come by a schedule ----------------------------------------------

use constant LIVE_MS => 100;

my $capacity;    # calls a second of the peer that has no load

# Those who ask as soon as they are answered are as many as connections, twice.
sub measure_open
{
	my ($workload, $peer, %params) = @_;
	my $closed = !$peer->{load};
	my $sessions = $closed ? 2 * $peer->{pool}->{max_size} : $params{clients};
	my @command = (
		"$SANDBOX/arrivals",
		conninfo('local') . ' options=' . "'-c statement_timeout="
		  . ($closed ? 0 : LIVE_MS) . "'",
		$workload->{sql},
		$sessions,
		$params{seconds},
		$closed ? 0 : $capacity * $peer->{load},
		LIVE_MS);

	sql('local', 'SELECT dbpool_ping(\'remote\')');
	wait_until('the pool has its connections',
		sub { remote_connections() >= $peer->{pool}->{min_size} });
	my $before = cpu_now();
	open my $pipe, '-|', @command or die "could not run arrivals: $!\n";
	my $said = <$pipe> // '';
	close $pipe or die "arrivals failed\n";
	my %said = split ' ', $said;
	my $answered = $said{in_time} + $said{late};
	$capacity = $answered / $said{seconds} if $closed;
	return (
		rate => ($closed ? $answered : $said{in_time}) / $said{seconds},
		p50 => $said{p50},
		p99 => $said{p99},
		peak => remote_connections(),
		cpu_between($before, cpu_now(), $said{offered} || 1));
}

# --- idle sessions ------------------------------------------------------------

# Sessions that each ran the script once. Memory in kB: of a local session,
# of the remote processes that serve them per local session, and of the
# worker. Private, as the kernel counts it: shared memory is another matter.
sub measure_sessions
{
	my ($workload, $peer, %params) = @_;
	my $clients = $params{clients};
	my @before = children($pid{local});
	my @remote_before = children($pid{remote});
	my $pipe = start(idle_command($workload, $peer, $clients));

	wait_until(
		'all sessions are idle',
		sub {
			die "pgbench failed:\n", <$pipe>
			  if IO::Select->new($pipe)->can_read(0.3);
			return idle_sessions() >= $clients;
		});
	sleep 1;
	my @backends = without(\@before, children($pid{local}));
	my @remotes = without(\@remote_before, children($pid{remote}));
	my %result = (
		rate => scalar @backends,
		peak => scalar @remotes,
		memory_session_kb => sum0(map { private_kb($_) } @backends) /
		  $clients,
		memory_remote_kb => sum0(map { private_kb($_) } @remotes) / $clients,
		memory_worker_kb => private_kb($pid{worker}));
	kill 'KILL', $running;
	finish();
	return %result;
}

# pgbench with the peer's script and a long sleep after it.
sub idle_command
{
	my ($workload, $peer, $clients) = @_;
	my @command = pgbench_command($workload, $peer, $clients);

	foreach my $argument (@command)
	{
		next unless $argument =~ /\.sql$/;
		my $script = slurp($argument);
		$argument = "$LOGS/idle.sql";
		open my $file, '>', $argument or die "$argument: $!\n";
		print $file $script, "\\sleep 600 s\n";
		close $file;
	}
	splice @command, 1, 0, '-t', 1;
	return @command;
}

sub idle_sessions
{
	return sql(
		'local',
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'
		 AND state = 'idle' AND query ~ 'accounts|plproxy|SELECT 1'");
}

sub without
{
	my ($gone, @list) = @_;
	my %gone = map { ($_ => 1) } @$gone;

	return grep { !$gone{$_} } @list;
}

# Bytes of shared memory that dbpool has taken.
sub shared_memory
{
	return sql('local',
		"SELECT coalesce(sum(allocated_size), 0) FROM pg_shmem_allocations WHERE name ILIKE '%dbpool%'"
	);
}

1;
