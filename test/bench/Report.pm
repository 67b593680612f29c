# Report: results as text, on standard output and in report.txt, and as CSV.
#
# A result has a workload, a peer, a number of clients, and a list of rounds,
# each with its metrics by name; see bench.pl.

package Report;

use strict;
use warnings;

use List::Util qw(first max);
use POSIX qw(strftime);

my $folder;
my $text;
my $terminal = -t STDOUT;

# Columns of results.csv after those that say what was measured. Rates and
# latencies come with the extremes of the rounds.
my @METRICS = qw(rate p50 p95 p99 peak opened
  cpu_worker cpu_local cpu_remote cpu_pooler cpu_client others worker_growth_mb
  memory_session_kb memory_remote_kb memory_worker_kb);
my %SPREAD = map { ($_ => 1) } qw(rate p99);

# Who used processor time, and as what in tables.
my @CPU = map { "cpu_$_" } qw(worker local remote pooler client);
my %CPU = (
	cpu_worker => 'us: worker',
	cpu_local => 'local',
	cpu_remote => 'remote',
	cpu_pooler => 'pooler',
	cpu_client => 'client');

# Per cent of the processors that others may use unmentioned. What the kernel
# does for all is in it.
use constant OTHERS => 10;

sub open_files
{
	($folder) = @_;
	open $text, '>', "$folder/report.txt" or die "$folder/report.txt: $!\n";
	$text->autoflush(1);
	STDOUT->autoflush(1);
	return;
}

sub say
{
	foreach my $line (@_)
	{
		print "$line\n";
		print $text "$line\n";
	}
	return;
}

# --- figures ------------------------------------------------------------------

# A metric's values in all rounds, in order; those that have it.
sub values_of
{
	my ($result, $metric) = @_;

	return sort { $a <=> $b }
	  grep { defined } map { $_->{$metric} } @{ $result->{rounds} };
}

sub median
{
	my ($result, $metric) = @_;
	my @values = values_of($result, $metric);

	return @values
	  ? ($values[ $#values / 2 ] + $values[ @values / 2 ]) / 2
	  : undef;
}

# Of another peer in the same workload, at the same number of clients.
sub ratio
{
	my ($result, $of, $metric) = @_;
	my $value = median($result, $metric || 'rate');
	my $base = $of && median($of, $metric || 'rate');

	return $base && defined $value ? $value / $base : undef;
}

sub find
{
	my ($results, $peer, $clients) = @_;

	return
	  first { $_->{peer}->{name} eq $peer && $_->{clients} == $clients }
	  @$results;
}

# Two digits after the point, or fewer.
sub figure
{
	my ($value) = @_;

	return '-' unless defined $value;
	return Plan::number($value) if $value >= 100;
	return sprintf $value >= 10 ? '%.1f' : '%.2f', $value;
}

sub counted
{
	my ($n, $what) = @_;

	return "$n $what" . ($n == 1 ? '' : 's');
}

# Of microseconds; a point for so little that it is no more than there is anyway.
sub cpu_figure
{
	my ($value, $nothing) = @_;

	return '.' if !defined $value || $value < $nothing;
	return sprintf $value < 1 ? '%.2f' : $value < 10 ? '%.1f' : '%.0f',
	  $value;
}

# --- as it goes ---------------------------------------------------------------

sub begin_turn
{
	my ($workload, $clients, $round, $rounds) = @_;

	printf STDERR '%s, %s, round %d of %d:', $workload->{name},
	  counted($clients, 'client'), $round, $rounds;
	return;
}

sub turn
{
	my ($peer, $metrics) = @_;

	printf STDERR ' %s %s', $peer->{name}, Plan::number($metrics->{rate});
	return;
}

sub end_turn
{
	print STDERR "\n";
	return;
}

# --- tables -------------------------------------------------------------------

# Rows of cells, the first column to the left and the others to the right.
sub aligned
{
	my (@rows) = @_;
	my @widths;

	foreach my $row (@rows)
	{
		$widths[$_] = max($widths[$_] || 0, length $row->[$_])
		  foreach 0 .. $#$row;
	}
	return map {
		my $row = $_;
		join '  ', map {
			sprintf $_ ? '%*s' : '%-*s', $_ ? $widths[$_] : $widths[0],
			  $row->[$_]
		} 0 .. $#$row;
	} @rows;
}

sub headline
{
	my ($line) = @_;

	print $terminal ? "\n\033[1m$line\033[0m\n" : "\n$line\n";
	print $text "\n$line\n";
	return;
}

sub table
{
	my ($workload, @results) = @_;

	foreach my $clients (@{ $workload->{clients} })
	{
		my @rows = grep { $_->{clients} == $clients } @results;
		headline("$workload->{name}: $workload->{title}; "
			  . counted($clients, 'client'));
		say(aligned(
				$workload->{kind} eq 'sessions'
				? memory_rows(@rows)
				: rate_rows($workload, @rows)));
		warn_of_others(@rows);
	}
	return;
}

# A machine that does something else as well tells little.
sub warn_of_others
{
	my (@results) = @_;
	my ($worst) =
	  sort { $b <=> $a }
	  grep { defined } map { median($_, 'others') } @results;

	say(sprintf
		  'Something else took up to %.0f %% of the processors meanwhile.',
		$worst) if $worst && $worst > OTHERS;
	return;
}

sub rate_rows
{
	my ($workload, @results) = @_;
	my $bulk = $workload->{kind} eq 'bulk';
	my @bases = grep { defined }
	  map { find(\@results, $_, $results[0]->{clients}) }
	  @{ $workload->{bases} };
	my @cpu = grep {
		my $metric = $_;
		$metric ne 'cpu_pooler'
		  || grep { ($_->{peer}->{conn} || '') eq 'pooler' }
		  @results
	} @CPU;
	my @rows = (
		[
			'',
			$bulk ? 'rows/s' : 'tx/s',
			'min..max',
			(map { "x $_->{peer}->{name}" } @bases),
			($bulk ? 'ms' : ('p50', 'p95', 'p99 ms')),
			'conns',
			(map { $CPU{$_} } @cpu)
		]);

	foreach my $result (@results)
	{
		my @rates = values_of($result, 'rate');
		push @rows,
		  [
			$result->{peer}->{label},
			figure(median($result, 'rate')),
			figure($rates[0]) . '..' . figure($rates[-1]),
			(map { figure(ratio($result, $_)) } @bases),
			(   map { figure(median($result, $_)) }
				  ($bulk ? 'p50' : ('p50', 'p95', 'p99'))),
			join('/',
				map { Plan::number(median($result, $_)) } 'peak', 'opened'),
			(   map { cpu_figure(median($result, $_), $bulk ? 0.005 : 0.05) }
				  @cpu)
		  ];
	}
	return @rows;
}

sub memory_rows
{
	my (@results) = @_;
	my @rows = (
		[
			'', 'sessions',
			'conns', 'kB/session',
			'kB on remote/session', 'kB worker'
		]);

	foreach my $result (@results)
	{
		push @rows,
		  [
			$result->{peer}->{label},
			map { Plan::number(median($result, $_)) } 'rate',
			'peak',
			'memory_session_kb',
			'memory_remote_kb',
			'memory_worker_kb'
		  ];
	}
	return @rows;
}

# --- goals --------------------------------------------------------------------

# How a value can be bound.
my %BOUNDS = (
	at_least => [ '>=', sub { $_[0] >= $_[1] } ],
	at_most => [ '<=', sub { $_[0] <= $_[1] } ],
	below => [ '<', sub { $_[0] < $_[1] } ]);

# All goals of what was measured, as a table and as CSV.
sub goals
{
	my (@results) = @_;
	my (@rows, %seen);

	open my $file, '>', "$folder/goals.csv" or die "$folder/goals.csv: $!\n";
	print $file
	  "workload,clients,peer,metric,of,value,bound,target,verdict\n";
	foreach my $workload (map { $_->{workload} } @results)
	{
		next if $seen{ $workload->{name} }++;
		my @own = grep { $_->{workload} == $workload } @results;
		foreach my $goal (@{ $workload->{goals} })
		{
			next
			  unless grep { $_ == $goal->{clients} }
			  @{ $workload->{clients} };
			my %judged = judge($goal, \@own);
			print $file goal_csv($workload, $goal, %judged);
			push @rows, goal_row($workload, $goal, %judged);
		}
	}
	close $file;
	headline('Goals');
	say(aligned(@rows));
	return;
}

# What became of a goal: metric, the peer it is compared with, value if it was
# measured, bound and target, and the verdict in words.
sub judge
{
	my ($goal, $results) = @_;
	my %judged = (
		metric => $goal->{metric} || 'rate',
		of => ref $goal->{of} ? '' : $goal->{of} || '');
	my $ours = find($results, $goal->{peer} || 'dbpool', $goal->{clients});
	my $of = base_of_goal($goal, $results);

	($judged{bound}) = grep { defined $goal->{$_} } keys %BOUNDS;
	$judged{target} = $goal->{ $judged{bound} };
	$judged{of} = $of->{peer}->{name} if $of;
	$judged{value} =
	  $goal->{of}
	  ? ratio($ours, $of, $judged{metric})
	  : median($ours, $judged{metric})
	  if $ours;
	$judged{verdict} = verdict(@judged{qw(value bound target)});
	return %judged;
}

sub verdict
{
	my ($value, $bound, $target) = @_;

	return 'not measured' unless defined $value;
	return 'met' if $BOUNDS{$bound}->[1]->($value, $target);
	return sprintf 'missed by %.0f %%', 100 * abs($value - $target) / $target;
}

# The peer that it is compared with, by name, or the best one of several.
sub base_of_goal
{
	my ($goal, $results) = @_;

	return unless $goal->{of};
	return find($results, $goal->{of}, $goal->{clients})
	  unless ref $goal->{of};
	my ($best) =
	  sort { median($b, 'rate') <=> median($a, 'rate') }
	  grep { $_->{peer}->{name} =~ $goal->{of} } @$results;
	return $best;
}

sub goal_row
{
	my ($workload, $goal, %judged) = @_;
	# Connections are counted, all else is measured.
	my ($value, $target) =
	  map { $judged{metric} eq 'peak' && defined ? $_ : figure($_) }
	  @judged{ 'value', 'target' };

	return [
		"goal $workload->{name}",
		counted($goal->{clients}, 'client'),
		($goal->{peer} ? "$goal->{peer}, " : '')
		  . $judged{metric}
		  . ($judged{of} ? " / $judged{of}" : ''),
		$value,
		$BOUNDS{ $judged{bound} }->[0],
		$target,
		$judged{verdict}
	];
}

sub goal_csv
{
	my ($workload, $goal, %judged) = @_;

	return join(',',
		$workload->{name}, $goal->{clients},
		$goal->{peer} || 'dbpool', @judged{ 'metric', 'of' },
		exact($judged{value}), @judged{ 'bound', 'target', 'verdict' })
	  . "\n";
}

# --- CSV ----------------------------------------------------------------------

sub csv
{
	my (@results) = @_;

	open my $file, '>', "$folder/results.csv"
	  or die "$folder/results.csv: $!\n";
	print $file join(',',
		qw(workload clients peer unit rounds ratio_dblink ratio_direct),
		map { $SPREAD{$_} ? ($_, "${_}_min", "${_}_max") : $_ } @METRICS),
	  "\n";
	foreach my $result (@results)
	{
		my ($workload, $peer, $clients, $rounds) =
		  @$result{qw(workload peer clients rounds)};
		my @same = grep { $_->{workload} == $workload } @results;
		my %unit = (rate => 'tx/s', bulk => 'rows/s', sessions => 'sessions', open => 'in time/s');
		print $file join(
			',',
			$workload->{name},
			$clients,
			$peer->{name},
			$unit{ $workload->{kind} },
			scalar @$rounds,
			(   map { exact(ratio($result, find(\@same, $_, $clients))) }
				  'dblink',
				'direct'),
			map { metric_cells($result, $_) } @METRICS),
		  "\n";
	}
	close $file;
	return;
}

sub metric_cells
{
	my ($result, $metric) = @_;
	my @values = values_of($result, $metric);
	my @cells = (median($result, $metric));

	push @cells, @values ? @values[ 0, -1 ] : (undef, undef)
	  if $SPREAD{$metric};
	return map { exact($_) } @cells;
}

sub exact
{
	my ($value) = @_;

	return defined $value ? sprintf '%.6g', $value : '';
}

# --- header -------------------------------------------------------------------

sub machine
{
	my ($model) = Measure::slurp('/proc/cpuinfo') =~ /^model name\s*: (.*)/m;
	my $cores = () = Measure::slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
	my ($kb) = Measure::slurp('/proc/meminfo') =~ /^MemTotal:\s+(\d+)/m;

	return sprintf '%d cores (%s), %.0f GB, Linux %s', $cores,
	  $model || 'unknown model', $kb / 1024 / 1024, (POSIX::uname())[2];
}

sub server_version
{
	return 'PostgreSQL ' . Measure::sql('local', 'SHOW server_version');
}

sub revision
{
	return $ENV{BENCH_REVISION} || 'unknown';
}

sub method
{
	my (%options) = @_;

	return counted($options{rounds}, 'round')
	  . " of $options{seconds} s, after 1 s to warm up; medians";
}

sub peer_versions
{
	my $extensions = Measure::sql(
		'local',
		"SELECT string_agg(extname || ' ' || extversion, ', ' ORDER BY extname)
		 FROM pg_extension WHERE extname NOT IN ('plpgsql', 'dbpool')");

	return join ', ', grep { $_ } $extensions, $ENV{BENCH_POOLER_VERSION};
}

sub settings
{
	my ($where) = @_;

	return join ', ',
	  map { "$_ " . Measure::sql($where, "SHOW $_") }
	  qw(shared_buffers fsync synchronous_commit max_connections
	  max_parallel_workers_per_gather jit);
}

# What the figures depend on.
sub header
{
	my (%options) = @_;
	my @facts = (
		[ 'date', strftime('%Y-%m-%d %H:%M', localtime) ],
		[ 'machine', machine() ],
		[ 'servers', server_version() . ', on Unix sockets' ],
		[ 'dbpool', revision() ],
		[ 'peers', peer_versions() ],
		[ 'local server', settings('local') ],
		[ 'remote server', settings('remote') ],
		[ 'dbpool.workers', Measure::sql('local', 'SHOW dbpool.workers') ],
		[
			'shared memory',
			sprintf '%.1f MB of dbpool',
			Measure::shared_memory() / 1024 / 1024
		],
		[ 'method', method(%options) ]);

	headline('dbpool, side by side with others');
	say(map { sprintf '%-15s  %s', @$_ } @facts);
	say('',
		'conns: the most remote connections at a time, and how many were opened.',
		'us: microseconds of processor time per transaction or row, of the dbpool worker,',
		'the local server without it, the remote server, pgbouncer, and the client.'
	);
	return;
}

# The same in two lines, for the plot.
sub subtitle
{
	my (%options) = @_;

	return [
		machine(), join '; ',
		strftime('%Y-%m-%d', localtime), server_version(),
		'dbpool ' . revision(), method(%options)
	];
}

1;
