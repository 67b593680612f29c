# Random streams of messages against the look that is taken at what a remote sends
# (src/pq/wire.c): an honest remote is never refused, and most huge errors are.
# WIRE_SEED repeats a run, WIRE_STREAMS makes it longer.

use strict;
use warnings;

use FindBin;
use Test::More;

my $streams = $ENV{WIRE_STREAMS} // 200;
my $output = qx{'$FindBin::RealBin/../wire/wire' @{[ $ENV{WIRE_SEED} // 0 ]} $streams};

note($output);
like($output, qr/^$streams honest streams pass/m, 'no honest remote is refused');
my ($guessed, $known) = $output =~ /errors (\d+) are refused.*place known (\d+)/;
cmp_ok($guessed // 0, '>', $streams * 0.7, 'most huge errors are');
cmp_ok($known // 0, '>', $streams * 0.7, 'also where the place is known');

done_testing();
