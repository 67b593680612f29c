
# A remote that sends without end, or messages without measure. All that dbpool
# keeps of it is bounded, in every phase of a connection's life; the session is
# told, and other pools answer meanwhile.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $HUGE = 400_000_000;

# Memory that the worker may take more than at the beginning, in kB; each
# misdeed below tries for hundreds of megabytes.
my $MOST_KB = 60_000;

# What can be sent too much of. Each gets the client; "alone": of these, a session
# that waits for its statement may be sent as many as it likes.
my $n = 0;
my %floods = (
	notices => sub { $_[0]->flood(notice('x' x 20_000)) },
	notifications => sub { $_[0]->flood(notification('x' x 20_000)) },
	settings => sub { my $c = $_[0]; $c->flood(sub { setting('setting' . $n++, 'x' x 20_000) }) },
	small_settings => sub { my $c = $_[0]; $c->flood(sub { join '', map { setting('s' . $n++, '') } 1 .. 1000 }) },
	errors => sub { $_[0]->flood(error('x' x 20_000)) },
	rows => sub { $_[0]->put(rows_begin('a')); $_[0]->flood(row('x' x 20_000)) },
	columns => sub { $_[0]->huge('T', pack('n', 65535), $HUGE) },
	huge_row => sub { $_[0]->put(rows_begin('a')); $_[0]->huge('D', pack('n N', 1, $HUGE - 6), $HUGE) },
	huge_error => sub { $_[0]->huge('E', "SERROR\0VERROR\0CP0001\0M", $HUGE) },
	odd_error => sub { $_[0]->huge('E', '', $HUGE) },
	huge_notice => sub { $_[0]->huge('N', "SNOTICE\0VNOTICE\0C00000\0M", $HUGE) },
	huge_notification => sub { $_[0]->huge('A', pack('N', 1), $HUGE) },
	copy_out => sub { $_[0]->put(message('H', "\0\0\0")); $_[0]->flood(message('d', 'x' x 20_000)) },
	copy_in => sub { $_[0]->put(message('G', "\0\0\0")); $_[0]->flood(notice('x' x 20_000)) },
	header_alone => sub { my $c = $_[0]; $c->put("E"); select undef, undef, undef, 0.1; $c->put(pack('N', $HUGE) . 'S'); $c->flood('x' x 1_000_000) },
	after_long_rows => sub { my $c = $_[0]; $c->put(rows_begin('a'), row('x' x 1000) x 300); $c->huge('E', "SERROR\0VERROR\0CP0001\0M", $HUGE) },
	after_rows => sub { my $c = $_[0]; $c->put(rows_begin('a'), row('x' x 100) x 20_000); $c->huge('E', "SERROR\0VERROR\0CP0001\0M", $HUGE) });

my %deeds;
foreach my $flood ('settings', 'huge_error', 'after_rows')
{
	$deeds{"early_$flood"} = { early => $floods{$flood} };
}
foreach my $phase ('auth', 'greeting', 'settings', 'idle', 'check', 'reset', 'statement')
{
	$deeds{"${phase}_$_"} = { $phase => $floods{$_} } foreach keys %floods;
}
my $fake = FakeRemote->start(%deeds);
my $good = make_remote();
my $local = make_local();
create_pool($local, 'good', $good);
my $watcher = session($local);
my $worker = worker_pid($watcher);

sub peak_kb
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+)/m;

	return $kb;
}

$watcher->value("SELECT a FROM dbpool_query('good', 'SELECT 42') AS t(a int)");
my $before = peak_kb($worker);

# A real server does it, too. What can be seen of the error is passed on.
my $raiser = session($local);
my $raiser_before = peak_kb($raiser->pid);
$raiser->value("SELECT a FROM dbpool_query('good', 'SELECT 42') AS t(a int)");
foreach my $level ('exception', 'notice')
{
	my $answer = $raiser->query("SELECT dbpool_exec('good', 'DO \$\$ BEGIN RAISE $level ''%'', repeat(''x'', 100000000); END \$\$')");

	is($answer->{state}, $level eq 'exception' ? 'P0001' : '08007', "a huge $level: the session is told");
	like($answer->{err}, qr/^[^\n]*x{1000}\.\.\. \(\d+ bytes left out\)$/m, 'with its beginning')
	  if $level eq 'exception';
	like($answer->{err}, qr/The remote server sent a notice of 1\d{8} bytes, and dbpool takes 4194304 at most\./, 'and why')
	  if $level eq 'notice';
}
foreach my $level ('exception', 'notice')
{
	my $answer = $raiser->query("SELECT dbpool_exec('good', 'DO \$\$ BEGIN RAISE $level ''%'', repeat(''x'', 1000000); END \$\$')");

	is($answer->{state}, $level eq 'exception' ? 'P0001' : '', "a long $level is passed on");
	like($answer->{err}, qr/x{60000}\.\.\. \(934464 bytes left out\)$/m, 'but cut');
}
cmp_ok(peak_kb($worker) - $before, '<', $MOST_KB, 'what the worker keeps is bounded');
cmp_ok(peak_kb($raiser->pid) - $raiser_before, '<', $MOST_KB, 'and what the session keeps');

# that one last: a row may take memory
foreach my $name ((grep { $_ ne 'statement_huge_row' } sort keys %deeds), 'statement_huge_row')
{
	my ($phase, $flood) = $name =~ /^([a-z]+)_(.*)$/;
	create_pool($local, $name, undef,
		$fake->options($name,
			max_size => 1, connect_timeout => '3s', acquire_timeout => '4s',
			reset => $phase eq 'reset' ? 'always' : 'smart',
			validate_after => $phase eq 'check' ? 0 : '30s'));
	my $started = time;
	my $session = session($local);
	# some of these never come to an end, for which a session may wait
	$session->value("SET statement_timeout = '1s'");
	my $session_before = peak_kb($session->pid);
	my $call = "SELECT left(a, 10) FROM dbpool_query('$name', 'SELECT 1') AS t(a text)";

	if ($phase eq 'reset' || $phase eq 'idle' || $phase eq 'check')
	{
		# what comes after it, or instead of it, does no harm to it
		my $answer = $session->query($call);

		like($answer->{state}, $phase eq 'check' ? qr/^(|08...)$/ : qr/^$/,
			"$name: a first call is answered");
		if ($phase eq 'check')
		{
			$session->query($call);
			# that is a check which a session waits for
			$answer = $session->query("SELECT dbpool_ping('$name')");
			like($answer->{state}, qr/^(08...|57014|0A000|P0001)$/, "$name: a ping is told");
		}
		else
		{
			wait_until(
				"$name: the connection is given up",
				sub {
					$watcher->value("SELECT count(*) FROM dbpool_connections WHERE pool = '$name'") eq '0';
				});
		}
	}
	else
	{
		$session->send($call);
		my $good_took = $watcher->query("SELECT a FROM dbpool_query('good', 'SELECT 42') AS t(a int)");
		is($good_took->{out}, '42', "$name: another pool works");
		my $answer = $session->wait;
		like($answer->{state}, qr/^(08...|57014|0A000|P0001|42804)$/, "$name: the session is told");
		is($answer->{state}, 'P0001', "$name: with the remote's SQLSTATE")
		  if $name eq 'statement_huge_error';
	}
	if ($name ne 'statement_huge_row')
	{
		cmp_ok(peak_kb($worker) - $before, '<', $MOST_KB, "$name: what the worker keeps is bounded");
	}
	cmp_ok(peak_kb($session->pid) - $session_before, '<', $MOST_KB, "$name: and what the session keeps")
	  unless $name =~ /^statement_.*row/;
	$before = peak_kb($worker) if peak_kb($worker) - $before >= $MOST_KB;
	if ($phase eq 'greeting' || $phase eq 'statement')
	{
		$session->value("SELECT dbpool_add_migration('$name', 1, 'one', 'SELECT 1')");
		my $migrator = session($local, options => '-c statement_timeout=1s');
		my $migrator_before = peak_kb($migrator->pid);
		my $answer = $migrator->query("SELECT * FROM dbpool_migrate('$name')");

		like($answer->{state}, qr/^(08...|57014|0A000|P0001|HV000|XX000)$/, "$name: a migration is told");
		is($answer->{state}, 'P0001', "$name: with the remote's SQLSTATE")
		  if $name eq 'statement_huge_error';
		cmp_ok(peak_kb($migrator->pid) - $migrator_before, '<', $MOST_KB, "$name: and its session keeps little");
	}
	note(sprintf '%s took %.1f s, the worker had %d kB', $name, time - $started, peak_kb($worker));
	$local->safe_psql('postgres', qq{DROP SERVER "$name" CASCADE});
}
is(worker_pid($watcher), $worker, 'the worker lives');
$watcher->poll('SELECT count(*) FROM dbpool_requests', '0');

$fake->stop;
done_testing();
