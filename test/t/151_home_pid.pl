# A pool at home remembers the process that its connection leads to. When that has
# ended, and another role's process has got its number while the connection
# seems to last, that one is left alone, whatever is to be stopped.
#
# Numbers come again when the kernel has given out all others. Here all of it runs
# in a namespace of process IDs, in which the next one can be set.

use strict;
use warnings;

use Test::More;

my @unshare;

BEGIN
{
	@unshare = qw(unshare --user --map-current-user --keep-caps --pid --fork --kill-child);
	unless ($ENV{DBPOOL_PID_NAMESPACE})
	{
		plan skip_all => 'a user has no namespaces of process IDs here'
		  if system("@unshare sh -c 'echo 1000 > /proc/sys/kernel/ns_last_pid' 2>/dev/null") != 0;
		$ENV{DBPOOL_PID_NAMESPACE} = 1;
		exec @unshare, $^X, (map { "-I$_" } @INC), $0;
		die "could not run unshare: $!";
	}
}

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Utils;

my $local = make_local(conf => "listen_addresses = '127.0.0.1'\n");
my $control = session($local);

$control->value('CREATE ROLE one LOGIN SUPERUSER; CREATE ROLE two LOGIN SUPERUSER');

# What is between the worker and its server; it can keep silent.
my $between = FaultProxy->start($local, tcp => 1);

create_pool($local, 'through', undef,
	$between->options(options => '-c search_path=elsewhere'));
$control->value(
	q{CREATE SCHEMA elsewhere;
	ALTER USER MAPPING FOR CURRENT_USER SERVER through OPTIONS (ADD user 'one');
	SELECT dbpool_add_migration('through', 1, 'sleeps', 'SELECT pg_sleep(600)')});

# A session of that role whose server process has that number.
sub session_with_pid
{
	my ($role, $pid) = @_;

	# psql takes one first
	foreach my $ahead (2, 3, 2, 3, 4, 2, 3, 4)
	{
		open my $file, '>', '/proc/sys/kernel/ns_last_pid' or die "no next process ID: $!";
		syswrite $file, $pid - $ahead;
		close $file;
		my $session = session($local, user => $role);
		return $session if $session->pid == $pid;
		$session->quit;
	}
	die "no session gets the process ID $pid";
}

my %call = (
	call => query_sleeps('through', 600),
	migration => q{SELECT dbpool_migrate('through')});
my %stop = (
	cancel => sub {
		my ($s) = @_;
		$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
		return '57014';
	},
	'end of the worker' => sub {
		kill 'TERM', worker_pid($control);
		return '08007';
	});

foreach my $case (
	[ 'call', 'cancel' ],
	[ 'call', 'end of the worker' ],
	[ 'migration', 'cancel' ])
{
	my ($what, $how) = @{$case};

	subtest "$what, $how" => sub {
		my $s = session($local);
		my $there = q{FROM pg_stat_activity WHERE usename = 'one' AND wait_event = 'PgSleep'};

		$s->send($call{$what});
		$control->poll("SELECT count(*) $there", '1');
		my $pid = $control->value("SELECT pid $there");

		# the process ends, and the connection does not tell
		$between->tell('now stall');
		$control->value("SELECT pg_terminate_backend($pid)");
		$control->poll("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0');
		my $bystander = session_with_pid('two', $pid);

		is($bystander->pid, $pid, 'another one has its number');
		$bystander->send('SELECT pg_sleep(3), 5');
		$control->poll(
			"SELECT wait_event FROM pg_stat_activity WHERE pid = $pid",
			'PgSleep');
		ok(!$s->is_done, 'the call seems to run');
		my $state = $stop{$how}->($s);
		is($s->wait->{state}, $state, 'the call is given up');
		is($bystander->wait->{out}, '|5', 'nobody else is');
		$_->quit foreach ($s, $bystander);
	};
}

$between->stop;
$control->quit;
$local->stop;
done_testing();
