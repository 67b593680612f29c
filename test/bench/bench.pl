#!/usr/bin/perl
#
# bench.pl: measures what the plan says and reports it. Run by scripts/bench,
# which has started the servers and says by environment variables where.
#
#   Plan.pm      peers, workloads, goals
#   Measure.pm   one peer of one workload, once
#   Report.pm    what came of it, as text and as CSV
#   Plot.pm      the same as SVG
#   *.sql        scripts for pgbench, and the tables
#
# Half a millisecond of distance to the remote is made by test/tools/proxy.c.
#
# The peers of a workload are measured in turns: for each round, for each number
# of clients, for each peer. So what happens to the machine meanwhile happens to
# all of them. The medians of the rounds are compared; their spread is shown.

use strict;
use warnings;

use Getopt::Long;

use Measure;
use Plan;
use Plot;
use Report;

sub parse_options
{
	my %options = (rows => 1_000_000, wide_rows => 1_000_000);

	GetOptions(\%options, 'quick', 'list', 'rounds=i', 'seconds=i',
		'only=s', 'peers=s', 'clients=s')
	  && !@ARGV
	  or die "see scripts/bench --help\n";
	foreach my $list (grep { defined $options{$_} } qw(only peers clients))
	{
		$options{$list} = [ split /,/, $options{$list} ];
	}
	$options{rounds} ||= $options{quick} ? 1 : 3;
	$options{seconds} ||= $options{quick} ? 2 : 4;
	$options{wide_rows} = 200_000 if $options{quick};
	return %options;
}

sub list
{
	my (%options) = @_;

	print "Workloads:\n";
	printf "  %-4s %s\n", @$_{ 'name', 'title' }
	  foreach Plan::selection(%options);
	print "Peers:\n";
	printf "  %-17s %s\n", $_, $Plan::PEERS{$_}->{label}
	  foreach sort keys %Plan::PEERS;
	return;
}

# Says aloud what cannot be measured, and leaves it out.
sub leave_out
{
	my (@workloads) = @_;
	my %said;

	foreach my $workload (@workloads)
	{
		my @there;
		foreach my $peer (@{ $workload->{peers} })
		{
			my @missing = grep { !Measure::has($_) } @{ $peer->{needs} };
			push @there, $peer unless @missing;
			foreach my $need (grep { !$said{$_}++ } @missing)
			{
				Report::say(
					"There is no $need here: what needs it is left out.");
			}
			foreach my $option (sort keys %{ $peer->{pool} || {} })
			{
				next
				  if Measure::knows_option($option, $peer->{pool}->{$option})
				  || $said{$option}++;
				Report::say(
					"dbpool has no option \"$option\" here: what sets it runs without."
				);
			}
		}
		$workload->{peers} = \@there;
	}
	return;
}

# All rounds of a workload. Returns a list of results: workload, peer, clients,
# and rounds, which are lists of metrics.
sub run
{
	my ($workload, %options) = @_;
	my (@results, %result);

	foreach my $clients (@{ $workload->{clients} })
	{
		foreach my $peer (@{ $workload->{peers} })
		{
			push @results,
			  $result{$clients}->{ $peer->{name} } = {
				workload => $workload,
				peer => $peer,
				clients => $clients,
				rounds => []
			  };
		}
	}
	my $rounds = $workload->{kind} eq 'sessions' ? 1 : $options{rounds};
	foreach my $round (1 .. $rounds)
	{
		foreach my $clients (@{ $workload->{clients} })
		{
			Report::begin_turn($workload, $clients, $round, $rounds);
			foreach my $peer (@{ $workload->{peers} })
			{
				my $metrics = Measure::measure(
					$workload, $peer,
					clients => $clients,
					seconds => $options{seconds});
				push @{ $result{$clients}->{ $peer->{name} }->{rounds} },
				  $metrics;
				Report::turn($peer, $metrics);
			}
			Report::end_turn();
		}
	}
	return @results;
}

my %options = parse_options();

if ($options{list})
{
	list(%options);
	exit 0;
}

my @workloads = Plan::selection(%options);
die "there is nothing to measure; see scripts/bench --list\n"
  unless @workloads;

# By way of END, so that nothing is left running.
$SIG{$_} = sub { exit 1 }
  foreach 'INT', 'TERM', 'HUP';

Report::open_files("$ENV{BENCH_SANDBOX}/out");
Report::say('Making tables ...');
$options{second} =
  grep { $_->{second} } map { @{ $_->{peers} } } @workloads;
Measure::prepare(%options);
Report::header(%options);
leave_out(@workloads);

my @results;
foreach my $workload (@workloads)
{
	my @new = run($workload, %options);

	Report::table($workload, @new);
	push @results, @new;
	Report::csv(@results);
	Plot::draw("$ENV{BENCH_SANDBOX}/out/results.svg",
		Report::subtitle(%options), @results);
}
Report::goals(@results);
