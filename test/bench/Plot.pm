# Plot: results as one SVG, without any library. Where there are several numbers
# of clients, lines of throughput and of p99 over them; else bars of throughput.
# A white ground and a palette that colour-blind people can tell apart.

package Plot;

use strict;
use warnings;

use List::Util qw(max min);
use POSIX qw(ceil floor);

use Plan;
use Report;

use constant {
	WIDTH => 1340,    # of everything
	PANEL => 640,     # of a panel
	MARGIN => 20,     # around everything
	LABELS => 210,    # room for names, left of bars and right of lines
	VALUES => 170,    # room for figures, right of bars
	HEIGHT => 330,    # of a panel with lines
	BAR => 24,        # from one bar to the next
	HEAD => 44,       # of a panel, above what it shows
};

my %COLOURS = (
	direct => '#444444',
	psql_copy => '#444444',
	local => '#444444',
	direct_prepared => '#9a9a9a',
	dblink => '#d55e00',
	dblink_per_call => '#e69f00',
	dblink_pgbouncer => '#cc79a7',
	postgres_fdw => '#56b4e9',
	plproxy => '#009e73',
	dbpool => '#0072b2',
	variant => '#8fbbdc');

# --- pieces of SVG ------------------------------------------------------------

sub escape
{
	my ($string) = @_;

	$string =~ s/&/&amp;/g;
	$string =~ s/</&lt;/g;
	$string =~ s/>/&gt;/g;
	return $string;
}

# An element; coordinates are rounded to what can be seen.
sub element
{
	my ($name, $content, %attributes) = @_;
	my $list = join '', map {
		my $value = $attributes{$_};
		$value = sprintf '%.4g', $value if $value =~ /^-?\d+\.\d+$/;
		qq{ $_="$value"}
	} sort keys %attributes;

	return
	  defined $content ? "<$name$list>$content</$name>\n" : "<$name$list/>\n";
}

sub text
{
	my ($x, $y, $string, %attributes) = @_;

	return element('text', escape($string), x => $x, y => $y, %attributes);
}

sub line
{
	my ($x1, $y1, $x2, $y2, %attributes) = @_;

	return element(
		'line', undef,
		x1 => $x1,
		y1 => $y1,
		x2 => $x2,
		y2 => $y2,
		%attributes);
}

sub group
{
	my ($x, $y, $content) = @_;

	return "<g transform=\"translate($x $y)\">\n$content</g>\n";
}

sub colour
{
	my ($peer) = @_;

	return $COLOURS{ $peer->{name} }
	  || ($peer->{pool} ? $COLOURS{variant} : '#777777');
}

# --- lines --------------------------------------------------------------------

# The next number above that is 1, 2, 2.5 or 5 times a power of ten.
sub round_up
{
	my ($value) = @_;
	my $power = 10**floor(log($value) / log(10));

	foreach my $step (1, 2, 2.5, 5)
	{
		return $step * $power if $step * $power >= $value * 0.999999;
	}
	return 10 * $power;
}

# A scale of values: ticks, and a function that gives the part of the height.
sub linear_scale
{
	my (@values) = @_;
	my $step = round_up(max(@values) / 5);
	my $top = $step * ceil(max(@values) / $step);

	return ([ map { $_ * $step } 0 .. $top / $step ], sub { $_[0] / $top });
}

sub log_scale
{
	my (@values) = @_;
	my $low = floor(log(min(@values)) / log(10));
	my $high = max(ceil(log(max(@values)) / log(10)), $low + 1);

	return ([ map { 10**$_ } $low .. $high ],
		sub { (log($_[0]) / log(10) - $low) / ($high - $low) });
}

# One line for each peer. Takes what the panel shows, the metric, what makes a
# scale, and the results.
sub lines_panel
{
	my ($title, $metric, $scale, @results) = @_;
	my (%seen, %points, @ends);
	my @clients = grep { !$seen{$_}++ } map { $_->{clients} } @results;
	my @peers = grep { !$seen{ $_->{name} }++ } map { $_->{peer} } @results;
	my @values =
	  grep { defined } map { Report::median($_, $metric) } @results;
	my ($ticks, $share) = $scale->(@values);
	my ($left, $right, $bottom) = (56, PANEL - LABELS, HEIGHT - 40);
	my $svg = text(0, 18, $title, class => 'title');
	my $x_of = sub {
		$left + 14 + ($right - $left - 28) * $_[0] / max(1, $#clients);
	};
	my $y_of = sub { $bottom - ($bottom - HEAD) * $share->($_[0]) };

	foreach my $tick (@$ticks)
	{
		my $y = $y_of->($tick);
		my $label = $tick >= 1 ? Plan::number($tick) : $tick;
		$svg .= line($left, $y, $right, $y, class => 'grid');
		$svg .= text($left - 8, $y + 4, $label, class => 'end');
	}
	foreach my $i (0 .. $#clients)
	{
		$svg .=
		  text($x_of->($i), $bottom + 18, $clients[$i], class => 'middle');
	}
	$svg .=
	  text(($left + $right) / 2, $bottom + 36, 'clients', class => 'middle');
	foreach my $peer (@peers)
	{
		my @points;
		foreach my $i (0 .. $#clients)
		{
			my $result = Report::find(\@results, $peer->{name}, $clients[$i]);
			my $value = $result && Report::median($result, $metric);
			push @points, [ $x_of->($i), $y_of->($value) ] if defined $value;
		}
		next unless @points;
		$svg .= one_line($peer, @points);
		push @ends,
		  { peer => $peer, y => $points[-1]->[1], at => $points[-1] };
	}
	return ($svg . line_labels($right, @ends), HEIGHT + 16);
}

sub one_line
{
	my ($peer, @points) = @_;
	my $colour = colour($peer);
	my $ours = $peer->{name} eq 'dbpool';
	my $list = join ' ', map { sprintf '%.1f,%.1f', @$_ } @points;

	return element(
		'polyline', undef,
		points => $list,
		fill => 'none',
		stroke => $colour,
		'stroke-width' => $ours ? 4 : 2)
	  . join '', map {
		element(
			'circle', undef,
			cx => $_->[0],
			cy => $_->[1],
			r => $ours ? 5 : 3,
			fill => $colour)
	  } @points;
}

# Names beside the ends of lines, moved apart as far as they need.
sub line_labels
{
	my ($x, @ends) = @_;
	my $svg = '';
	my $gap = 16;

	@ends = sort { $a->{y} <=> $b->{y} } @ends;
	foreach my $i (1 .. $#ends)
	{
		$ends[$i]->{y} = max($ends[$i]->{y}, $ends[ $i - 1 ]->{y} + $gap);
	}
	# What was pushed below the axis goes up again, and what is above with it.
	my $limit = HEIGHT - 40;
	foreach my $end (reverse @ends)
	{
		$end->{y} = min($end->{y}, $limit);
		$limit = $end->{y} - $gap;
	}
	foreach my $end (@ends)
	{
		my ($peer, $y, $at) = @$end{qw(peer y at)};
		$svg .= line(
			$at->[0] + 5, $at->[1], $x + 8, $y,
			stroke => colour($peer),
			'stroke-width' => 1,
			opacity => 0.5);
		$svg .= text(
			$x + 12,
			$y + 4,
			$peer->{label},
			style => 'fill: '
			  . colour($peer)
			  . ($peer->{name} eq 'dbpool' ? '; font-weight: bold' : ''));
	}
	return $svg;
}

# --- bars ---------------------------------------------------------------------

# One bar for each peer, with a thin line from the worst round to the best.
sub bars_panel
{
	my ($title, $metric, @results) = @_;
	my $room = PANEL - LABELS - VALUES;
	my @rounds = map { [ Report::values_of($_, $metric) ] } @results;
	my $top = max(1, map { $_->[-1] } @rounds);
	my $svg = text(0, 18, $title, class => 'title');
	my $y = HEAD - 8;

	foreach my $i (0 .. $#results)
	{
		my $peer = $results[$i]->{peer};
		my $value = Report::median($results[$i], $metric);
		my ($low, $high) =
		  map { LABELS + $room * $_ / $top } @{ $rounds[$i] }[ 0, -1 ];
		my $middle = $y + BAR / 2;
		$svg .= text(LABELS - 8, $middle + 4, $peer->{label}, class => 'end');
		$svg .= element(
			'rect', undef,
			x => LABELS,
			y => $y + 3,
			width => max(1, $room * $value / $top),
			height => BAR - 6,
			fill => colour($peer));
		$svg .= line($low, $middle, $high, $middle, class => 'spread')
		  if $high - $low > 2;
		$svg .=
		  text($high + 8, $middle + 4, bar_value($results[$i], $metric));
		$y += BAR;
	}
	return ($svg, $y + 20);
}

sub bar_value
{
	my ($result, $metric) = @_;
	my $p99 = Report::median($result, 'p99');
	my $value = Plan::number(Report::median($result, $metric));

	return
		$metric ne 'rate' ? $value
	  : defined $p99      ? "$value/s, p99 " . Report::figure($p99) . ' ms'
	  :                     "$value/s";
}

# --- all of it ----------------------------------------------------------------

# The panels of one workload, each as a list of SVG and height.
sub panels
{
	my ($workload, @results) = @_;
	my $title = "$workload->{name}: $workload->{title}";
	my @clients = @{ $workload->{clients} };

	return (
		[
			lines_panel(
				"$title, per second",
				'rate', \&linear_scale, @results)
		],
		[ lines_panel("$title, p99 in ms", 'p99', \&log_scale, @results) ]
	) if @clients > 1;
	$title .= "; $clients[0] clients" if $clients[0] > 1;
	return [ bars_panel("$title: remote connections", 'peak', @results) ]
	  if $workload->{kind} eq 'sessions';
	return [ bars_panel($title, 'rate', @results) ];
}

# Writes the file. The panels go in two columns, each into the shorter one.
sub draw
{
	my ($path, $subtitle, @results) = @_;
	my @subtitle = @$subtitle;
	my @heights = (60 + 18 * @subtitle) x 2;
	my $svg =
	  text(0, 20, 'dbpool, side by side with others', class => 'head')
	  . join '',
	  map { text(0, 26 + 18 * $_, $subtitle[ $_ - 1 ]) } 1 .. @subtitle;
	my %seen;

	foreach my $workload (map { $_->{workload} } @results)
	{
		next if $seen{ $workload->{name} }++;
		my @own = grep { $_->{workload} == $workload } @results;
		foreach my $panel (panels($workload, @own))
		{
			my $column = $heights[0] <= $heights[1] ? 0 : 1;
			$svg .= group($column * (WIDTH - 2 * MARGIN - PANEL),
				$heights[$column], $panel->[0]);
			$heights[$column] += $panel->[1];
		}
	}
	my $height = max(@heights) + 2 * MARGIN;
	my ($width, $margin) = (WIDTH, MARGIN);
	open my $file, '>', $path or die "$path: $!\n";
	print $file <<"SVG", group(MARGIN, MARGIN, $svg), "</svg>\n";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height">
<style>
text { font: 13px sans-serif; fill: #222 }
.head { font-size: 20px; font-weight: bold }
.title { font-size: 14px; font-weight: bold }
.end { text-anchor: end }
.middle { text-anchor: middle }
.grid { stroke: #dddddd }
.spread { stroke: #000000; stroke-width: 1.5 }
</style>
<rect width="$width" height="$height" fill="#ffffff"/>
SVG
	close $file;
	return;
}

1;
