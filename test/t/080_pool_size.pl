
# How many connections a pool has, and for how long: min_size, idle_timeout,
# max_lifetime, and the check that finds those which are dead.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $remote = make_remote(conf => "log_disconnections = on\n");
my $local = make_local();
my $control = session($local);
my $there = session($remote);
my @sessions = map { session($local) } 1 .. 4;

# Each pool has a role of its own on the remote, to be told apart there.
sub create_named_pool
{
	my ($pool, %options) = @_;

	$there->value("CREATE ROLE $pool LOGIN");
	create_pool($local, $pool, $remote, %options);
	$control->value(
		"ALTER USER MAPPING FOR CURRENT_USER SERVER $pool OPTIONS (ADD user '$pool')"
	);
	return;
}

sub pids_there
{
	my ($pool) = @_;
	return split /\n/,
	  $there->value(
		"SELECT pid FROM pg_stat_activity WHERE usename = '$pool' ORDER BY pid"
	  );
}

sub has_there
{
	my ($pool, $count) = @_;
	return $there->poll(
		"SELECT count(*) FROM pg_stat_activity WHERE usename = '$pool'",
		$count);
}

# All four sessions at a time.
sub use_four
{
	my ($pool) = @_;

	$_->send(query_sleeps($pool, 0.5)) foreach @sessions;
	is($_->wait->{err}, '', 'a statement ends well') foreach @sessions;
	return;
}

subtest 'min_size' => sub {
	create_named_pool('min3', min_size => 3, max_size => 4);
	$control->value("SELECT dbpool_ping('min3')");
	ok(has_there('min3', 3), 'so many are opened with the first use');
	ok( $control->poll(
			"SELECT idle, connecting FROM dbpool_pools WHERE pool = 'min3'",
			'3|0'),
		'they are idle');

	my @before = pids_there('min3');
	$there->value("SELECT pg_terminate_backend($_, 10000)")
	  foreach @before[ 0, 1 ];
	ok(has_there('min3', 3), 'those that are lost are made again');
	is((grep { $_ == $before[2] } pids_there('min3')) + 0,
		1, 'and the other one stays');

	$control->value("SELECT dbpool_reset('min3')");
	ok(has_there('min3', 3), 'also after a reset');
	my %old = map { $_ => 1 } @before;
	ok( wait_until(
			'they are others',
			sub {
				!grep { $old{$_} } pids_there('min3');
			}),
		'which closes all of them');
};

subtest 'idle_timeout' => sub {
	create_named_pool(
		'idle',
		min_size => 1,
		max_size => 4,
		idle_timeout => '700ms');
	use_four('idle');
	my @most = pids_there('idle');
	cmp_ok(scalar(@most), '>', 2, 'the pool has grown');
	ok(has_there('idle', 1), 'and it shrinks to min_size');
	my @left = pids_there('idle');

	# what stays is not replaced over and over
	$control->value('SELECT pg_sleep(1.5)');
	is(join(',', pids_there('idle')), join(',', @left), 'where it stays');
	is(scalar(grep { $_ == $left[0] } @most), 1, 'none of them is closed only to be opened anew');
	use_four('idle');
	ok(has_there('idle', 1), 'it grows and shrinks again');

	create_named_pool('empty', max_size => 4, idle_timeout => '500ms');
	use_four('empty');
	ok(has_there('empty', 0), 'without min_size to nothing at all');
	use_four('empty');
};

subtest 'max_lifetime' => sub {
	create_named_pool('aged', max_size => 2, max_lifetime => '1s');
	my %seen;
	my $errors = '';
	my $begin = time;

	while (time < $begin + 4)
	{
		$_->send(
			"SELECT * FROM dbpool_query('aged', 'SELECT pg_backend_pid()') AS t(pid int)"
		) foreach @sessions;
		foreach my $session (@sessions)
		{
			my $answer = $session->wait;
			$errors .= $answer->{err};
			$seen{ $answer->{out} }++;
		}
		die 'too many connections' if pids_there('aged') > 2;
	}
	is($errors, '', 'no statement sees that connections are replaced');
	cmp_ok(scalar(keys %seen), '>=', 3, 'and they are');
	# two at a time, and each up to a tenth less old than a second
	cmp_ok(scalar(keys %seen), '<=', 2 * (1 + int((time - $begin) / 0.9)), 'not more often than need be');

	# a statement may take longer than that
	is($control->query(query_sleeps('aged', 2))->{err},
		'', 'a statement outlives max_lifetime');
	ok(has_there('aged', 0), 'then the connection is closed');

	# nor needs it anybody who uses it
	create_named_pool('unused', max_lifetime => '1s', idle_timeout => '0', health_check_interval => '0');
	$control->value("SELECT dbpool_ping('unused')");
	ok(has_there('unused', 0), 'an idle connection is closed when its time comes');
};

# A server process that is stopped keeps its socket, and does not answer.
subtest 'health_check_interval' => sub {
	create_named_pool(
		'checked',
		min_size => 1,
		max_size => 1,
		health_check_interval => '300ms',
		validate_after => '-1');
	$control->value("SELECT dbpool_ping('checked')");
	my ($pid) = pids_there('checked');

	# one that is well is kept
	$control->value('SELECT pg_sleep(1)');
	is(join(',', pids_there('checked')),
		$pid, 'a connection that answers stays');

	suspend($pid);
	ok( $control->poll(
			"SELECT remote_pid <> $pid AND state = 'idle' FROM dbpool_connections WHERE pool = 'checked'"
		),
		'one that does not answer is replaced');
	is( $control->value(
			"SELECT * FROM dbpool_query('checked', 'SELECT 42') AS t(x int)"),
		'42',
		'before anybody needs it');
	resume($pid);
};

# Without that, it is found when it is needed.
subtest 'validate_after' => sub {
	create_named_pool(
		'needed',
		max_size => 2,
		health_check_interval => '0',
		validate_after => '0');
	$control->value("SELECT dbpool_ping('needed')");
	my ($pid) = pids_there('needed');

	suspend($pid);
	my $answer = $control->query(
		"SELECT * FROM dbpool_query('needed', 'SELECT 42') AS t(x int)");
	is($answer->{out} . $answer->{err}, '42', 'the statement runs elsewhere');
	cmp_ok($answer->{seconds}, '<', 10, 'before long');
	resume($pid);
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
};

# The pool changes while a connection is being checked for a statement: that was
# made by the old definition.
subtest 'changed while it is checked' => sub {
	create_named_pool(
		'changed',
		max_size => 1,
		application_name => 'old',
		health_check_interval => '0',
		validate_after => '0');
	$control->value("SELECT dbpool_ping('changed')");
	my ($pid) = pids_there('changed');
	my $asks = $sessions[0];

	suspend($pid);
	$asks->send(
		"SELECT * FROM dbpool_query('changed', 'SELECT current_setting(''application_name'')') AS t(x text)"
	);
	$control->poll(
		"SELECT state FROM dbpool_connections WHERE remote_pid = $pid",
		'checking');
	$control->value(
		"ALTER SERVER changed OPTIONS (SET application_name 'new')");
	resume($pid);
	my $answer = $asks->wait;
	is($answer->{out} . $answer->{err}, 'new', 'it runs on one of the new definition');
	ok($control->poll("SELECT count(*) FROM dbpool_connections WHERE remote_pid = $pid", '0'),
		'and the old one is closed');
};

# Each has been given up to a tenth less by chance: made at once, they do not end at once.
subtest '200 of an age' => sub {
	my $many = 200;
	my $ends = qr/\[(\d+)\].*disconnection: session time: 0:00:(\d\d\.\d+) user=many /;
	my %seconds;

	create_named_pool('many', max_size => $many, min_size => $many, max_lifetime => '10s', idle_timeout => '0');
	$control->value(q{SELECT dbpool_ping('many')});
	ok($control->poll(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'many' AND state = 'idle'}, $many),
		'so many are made at once');
	my %many = map { $_ => 1 } pids_there('many');

	ok(wait_until(
			'all have ended',
			sub {
				%seconds = slurp_file($remote->logfile) =~ /$ends/g;
				return !grep { !exists $seconds{$_} } keys %many;
			}),
		'all have ended');
	my @ages = sort { $a <=> $b } @seconds{ keys %many };

	cmp_ok($ages[0], '>=', 8.9, 'none is closed sooner than that');
	cmp_ok($ages[-1] - $ages[0], '>', 0.6, 'they do not all end at once');
	# more than half of them by chance: not once in a million runs
	my $most = 0;
	foreach my $from (0 .. $#ages)
	{
		my $n = grep { $_ >= $ages[$from] && $_ < $ages[$from] + 0.3 } @ages;
		$most = $n if $n > $most;
	}
	cmp_ok($most, '<', $many / 2, 'nor most of them within a third of a second');
	note(sprintf 'from %.1f to %.1f s, at most %d within 0.3 s', @ages[ 0, -1 ], $most);
};

$_->quit foreach (@sessions, $control, $there);
done_testing();
