
# The connection between the worker and its remote is cut at a byte of a single read or
# write, in either direction, by a reset or an end in good order. Whatever byte it is:
#
#  - a call that succeeds has the right answer, and its write is there once;
#  - one that fails by 08007 says that it may or may not have run, and its write is
#    there once or not at all; one that fails in another way is not there;
#  - one that surely did not run is run again, unseen;
#  - a write whose number had come succeeds;
#  - and the next call works.
#
# How many outcomes were unknown is counted.
#
#   CUT_SWEEP    how many bytes of each exchange, "all" of them, 12 if not said, by lot
#   PROXY_SEED   repeats a run

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;
use Test::More;

my $sweep = $ENV{CUT_SWEEP} // 12;
my $remote = make_remote();
my $local = make_local();
my $proxy = FaultProxy->start($remote);

diag('PROXY_SEED=' . $proxy->seed);
srand $proxy->seed;

my %options = (max_size => 1, acquire_timeout => '20s');
create_pool($local, 'unprepared', undef, $proxy->options(%options, prepare_threshold => 0));
create_pool($local, 'prepared', undef, $proxy->options(%options, prepare_threshold => 1));

my $s = session($local);
my $there = session($remote);

# What is read is never a number that is asked for.
$there->value(q{
	CREATE TABLE ledger (id int);
	CREATE TABLE truth (id int PRIMARY KEY, v text);
	INSERT INTO truth SELECT id, md5(id::text) FROM generate_series(1000000, 1050000) id;
	ANALYZE;});

my $next_id = 1000000;

my $insert = 'INSERT INTO ledger VALUES ($1)';
my $select = 'SELECT v FROM truth WHERE id = $1';

# How statements are sent: the pool, the call for an ID, and what is in the first message,
# the ID if not said. known: the text has been run before; here: on this connection, too;
# asks: the number of its transaction is asked for;
# new: not yet on this connection.
my @kinds = (
	{   name => 'a write, as a script',
		pool => 'unprepared',
		call => sub { return "dbpool_exec('unprepared', 'INSERT INTO ledger VALUES ($_[0])')" } },
	{   name => 'a write, its first run',
		asks => 1,
		pool => 'unprepared',
		call => sub { return "dbpool_exec('unprepared', '$insert -- $_[0]', $_[0])" } },
	{   name => 'a write',
		asks => 1,
		pool => 'unprepared',
		begins => $insert,
		known => 1,
		call => sub { return "dbpool_exec('unprepared', '$insert', $_[0])" } },
	{   name => 'a write, being prepared',
		asks => 1,
		pool => 'prepared',
		begins => $insert,
		known => 1,
		new => 1,
		call => sub { return "dbpool_exec('prepared', '$insert', $_[0])" } },
	{   name => 'a write, prepared',
		asks => 1,
		pool => 'prepared',
		known => 1,
		here => 1,
		call => sub { return "dbpool_exec('prepared', '$insert', $_[0])" } },
	{   name => 'a read, as a script',
		read => 1,
		pool => 'unprepared',
		call => sub { return "dbpool_value(NULL::text, 'unprepared', 'SELECT v FROM truth WHERE id = $_[0]')" } },
	{   name => 'a read, its first run',
		read => 1,
		pool => 'unprepared',
		call => sub { return "dbpool_value(NULL::text, 'unprepared', '$select -- $_[0]', $_[0])" } },
	{   name => 'a read',
		read => 1,
		pool => 'unprepared',
		begins => $select,
		known => 1,
		call => sub { return "dbpool_value(NULL::text, 'unprepared', '$select', $_[0])" } },
	{   name => 'a read, being prepared',
		read => 1,
		pool => 'prepared',
		begins => $select,
		known => 1,
		new => 1,
		call => sub { return "dbpool_value(NULL::text, 'prepared', '$select', $_[0])" } },
	{   name => 'a read, prepared',
		read => 1,
		pool => 'prepared',
		known => 1,
		here => 1,
		call => sub { return "dbpool_value(NULL::text, 'prepared', '$select', $_[0])" } });

# What each call has come to: ID => { outcome, and whatever is known }.
my %calls;

# Run a call, and do something meanwhile. Returns what became of it: ok, unknown, not run,
# wrong or another error.
sub run
{
	my ($kind, %known) = @_;
	my $meanwhile = delete $known{meanwhile};
	my $id = $next_id++;

	$s->send('SELECT ' . $kind->{call}->($id));
	$meanwhile->() if $meanwhile;
	my $answer = $s->wait;
	my $outcome =
		$answer->{lost} ? 'the session is lost'
	  : $answer->{err} eq '' ? ($answer->{out} eq right_answer($kind, $id) ? 'ok' : "wrong: $answer->{out}")
	  : $answer->{err} =~ /may or may not have run/ ? ($answer->{state} eq '08007' ? 'unknown' : "unknown with $answer->{state}")
	  : $answer->{err} =~ /was not run/ && $answer->{state} =~ /^08/ ? 'not run'
	  : $answer->{err};

	$calls{$id} = { outcome => $outcome, write => !$kind->{read}, %known };
	return $outcome;
}

sub right_answer
{
	my ($kind, $id) = @_;

	require Digest::MD5;
	return $kind->{read} ? Digest::MD5::md5_hex($id) : 1;
}

# The connection is there, and knows what it has to know of the text.
sub prepare
{
	my ($kind) = @_;
	my $what = $kind->{here} ? $kind
	  : { pool => $kind->{pool}, read => 1,
		call => sub { return "dbpool_value(NULL::text, '$kind->{pool}', 'SELECT md5($_[0]::text)')" } };

	# so that what a connection is asked but once is asked of it each time
	if ($kind->{new} || ($kind->{asks} && !$kind->{here}))
	{
		$s->value("SELECT dbpool_reset('$kind->{pool}')");
		$s->poll("SELECT count(*) FROM dbpool_connections WHERE pool = '$kind->{pool}'", '0');
	}
	my $outcome = run($what);
	die "a call that is not cut: $outcome" if $outcome ne 'ok';
	return;
}

# How many bytes pass in each direction by one call that is not cut.
sub measure
{
	my ($kind) = @_;

	if ($kind->{known})
	{
		run($kind) foreach 1 .. 5;
	}
	prepare($kind);
	my ($before) = link_of($kind->{pool});
	run($kind);
	my ($after) = link_of($kind->{pool});

	is($after->{number}, $before->{number}, "$kind->{name}: by the same connection");
	return map { $after->{$_}->{delivered} - $before->{$_}->{delivered} } 'frontend', 'backend';
}

sub remote_pid
{
	my ($pool) = @_;

	return $s->value("SELECT remote_pid FROM dbpool_connections WHERE pool = '$pool'");
}

sub link_of
{
	my ($pool) = @_;
	my $pid = remote_pid($pool);

	return grep { $_->{pid} == $pid } $proxy->links;
}

# At which bytes: where something begins or ends, and others by lot.
sub places
{
	my ($bytes) = @_;

	return 0 .. $bytes if $sweep eq 'all';
	my %places = map { $_ => 1 } 0, $bytes - 7 .. $bytes, map { int rand $bytes } 1 .. $sweep;
	return sort { $a <=> $b } keys %places;
}

my %count;

foreach my $kind (@kinds)
{
	my %bytes;

	@bytes{ 'frontend', 'backend' } = measure($kind);
	foreach my $from ('frontend', 'backend')
	{
		my %outcomes;
		my @bad;

		cmp_ok($bytes{$from}, '>', 10, "$kind->{name}: $bytes{$from} bytes of the $from");
		foreach my $byte (places($bytes{$from}))
		{
			my $how = (rand() < 0.5) ? 'reset' : 'fin';
			# without the last byte it cannot run
			my $whole = $from eq 'backend' || $byte == $bytes{$from};

			prepare($kind);
			my $pid = remote_pid($kind->{pool});
			my $begins = $kind->{new} && $kind->{asks} ? 'dbpool_number' : $kind->{begins} // $next_id;
			my $rule = $proxy->tell(qq{on after "$begins" $from byte $byte $how});
			my $place = "byte $byte of the $from by $how";
			my $outcome = run($kind, whole => $whole, place => $place);

			wait_until("it is cut at $place", sub { return $proxy->fired($rule) });
			# one that is cut behind its answer is not to be given to the next call
			wait_until('the worker knows', sub { return remote_pid($kind->{pool}) ne $pid });
			push @bad, "$place: $outcome" unless $outcome =~ /^(ok|unknown|not run)$/;
			push @bad, "$place, when all had come: $outcome"
			  if $from eq 'backend' && $byte == $bytes{$from} && $outcome ne 'ok';
			# the number of its transaction comes before the last message, of 6 bytes, which
			# says that it is committed; it may have got a digit more since it was measured
			push @bad, "$place, when its number had come: $outcome"
			  if $kind->{asks} && $from eq 'backend' && $byte >= $bytes{$from} - 5 && $outcome ne 'ok';
			$outcomes{$outcome}++;
			$count{$outcome}++;
			$proxy->tell('clear');
		}
		is(join("\n", @bad), '',
			"$kind->{name}, cut at any byte of the $from: "
			  . join ', ', map { "$_ $outcomes{$_}" } sort keys %outcomes);
	}
}

# So much that it cannot all have left the worker when its connection stalls, and is reset
# then.
my %large = (
	name => 'a large write',
	pool => 'unprepared',
	call => sub { return "dbpool_exec('unprepared', 'INSERT INTO ledger SELECT \$1::int WHERE length(\$2) > 0', $_[0], repeat('x', 24000000))" });
foreach my $round (1 .. $sweep eq 'all' ? 20 : 4)
{
	my $byte = int rand 1000000;

	prepare(\%large);
	$proxy->tell(qq{on after "length(\$2)" frontend byte $byte stall});
	my $outcome = run(
		\%large,
		meanwhile => sub {
			my $full;
			wait_until(
				'the proxy takes no more',
				sub {
					($full) = grep { $_->{frontend}->{read} - $_->{frontend}->{delivered} > 4000000 } $proxy->links;
					return $full;
				});
			$proxy->tell("now link $full->{number} reset");
		});
	is($outcome, 'ok', "a large write that is cut at byte $byte is sent once more");
	$proxy->tell('clear');
}

# --- what the remote has of it ------------------------------------------------------

wait_until(
	'connections that were cut have ended there, too',
	sub {
		return $there->value(q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE application_name = 'dbpool'}) eq
		  $s->value(q{SELECT string_agg(remote_pid::text, ' ' ORDER BY remote_pid) FROM dbpool_connections});
	});
my %ledger = map { split /\|/ } split /\n/, $there->value('SELECT id, count(*) FROM ledger GROUP BY id');
my @bad;

foreach my $id (sort keys %calls)
{
	my $call = $calls{$id};
	my $n = delete $ledger{$id} // 0;
	my $right =
		!$call->{write} ? $n == 0
	  : $call->{outcome} eq 'ok' ? $n == 1
	  : $call->{outcome} eq 'unknown' ? $n <= ($call->{whole} // 1)
	  : $n == 0;

	push @bad, ($call->{place} // 'not cut') . " $call->{outcome}, and is there $n times" unless $right;
	$count{$n ? 'unknown, has run' : 'unknown, has not run'}++ if $call->{write} && $call->{outcome} eq 'unknown';
}
is(join("\n", @bad), '', 'each write is there as its call was told');
is(join(' ', keys %ledger), '', 'and nothing else');
cmp_ok($count{'unknown, has run'}, '>', 0, 'there were answers that got lost');
diag(join ', ', map { "$_: $count{$_}" } sort keys %count);

$_->quit foreach $s, $there;
$proxy->stop;
done_testing();
