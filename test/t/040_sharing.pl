
# Many sessions, few connections: never more than max_size, first come first
# served, and who waits in vain is told why.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote =
  make_remote(conf => "log_connections = on\nlog_line_prefix = '%p %q%a '\n");
my $local = make_local();
my $control = session($local);
my $there = session($remote);

create_pool($local, 'four', $remote, max_size => 4, acquire_timeout => '60s');
create_pool($local, 'one', $remote, max_size => 1);

subtest '200 sessions on 4 connections' => sub {
	my ($most, $samples) = (0, 0);
	my ($bench, $out) = start_pgbench(
		$local,
		"SELECT * FROM dbpool_query('four', 'SELECT 1 FROM pg_sleep(0.001)') AS t(x int);\n",
		'-c', 200, '-j', 2, '-t', 40);
	while ($bench->pumpable)
	{
		my $count = $there->value(
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool'"
		);
		$most = $count if $count > $most;
		$samples++;
		$bench->pump_nb;
	}
	ok($bench->finish, 'none gets an error') or diag($$out);
	like($$out, qr{processed: 8000/8000}, 'all get their answers');
	note("looked $samples times");
	cmp_ok($samples, '>', 10, 'the remote was looked at all the while');
	is($most, 4, 'and had four connections at most');
	my $log = slurp_file($remote->logfile);
	my $opened = () =
	  $log =~ /connection authorized: .*application_name=dbpool/g;
	is($opened, 4, 'it was logged in to four times and never more');
	is( $control->value(
			"SELECT connects, connect_failures, statements, errors, waits > 0 FROM dbpool_stat_pools WHERE pool = 'four'"
		),
		'4|0|8000|0|t',
		'and the statistics say so, too');
};

subtest 'first come, first served' => sub {
	$there->value('CREATE TABLE came (n serial, who int)');
	my @sessions = map { session($local) } 0 .. 20;

	$sessions[0]->send(query_sleeps('one', 60));
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
	foreach my $i (1 .. 20)
	{
		$sessions[$i]->send(
			"SELECT dbpool_exec('one', 'INSERT INTO came (who) VALUES (\$1)', $i)"
		);
		$control->poll(
			q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'},
			$i);
	}
	is( $control->value(
			"SELECT waiting, busy FROM dbpool_pools WHERE pool = 'one'"),
		'20|1',
		'the view shows the queue');

	# one from the middle leaves
	$control->value('SELECT pg_cancel_backend(' . $sessions[7]->pid . ')');
	is($sessions[7]->wait->{state}, '57014', 'who waits can leave the queue');
	$control->value('SELECT pg_cancel_backend(' . $sessions[0]->pid . ')');
	foreach my $i (1 .. 6, 8 .. 20)
	{
		is($sessions[$i]->wait->{err}, '', "number $i is served");
	}
	is( $there->value(
			"SELECT string_agg(who::text, ',' ORDER BY n) FROM came"),
		join(',', 1 .. 6, 8 .. 20),
		'in the order of their coming');
	$_->quit foreach @sessions;
};

subtest 'what acquire_timeout tells' => sub {

	# a role that gets two connections, so that the third has an error
	$there->value('CREATE ROLE app LOGIN CONNECTION LIMIT 2');
	create_pool(
		$local, 'limited', $remote,
		max_size => 3,
		acquire_timeout => '1500ms');
	$control->value(
		"ALTER USER MAPPING FOR CURRENT_USER SERVER limited OPTIONS (ADD user 'app')"
	);
	my @sessions = map { session($local) } 1 .. 4;

	$_->send(query_sleeps('limited', 30)) foreach @sessions[ 0, 1 ];
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '2');
	$sessions[2]->send(query_sleeps('limited', 30));
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	$sessions[3]->send(query_sleeps('limited', 30));

	my $answer = $sessions[2]->wait;
	is($answer->{state}, '53300', 'the SQLSTATE is too_many_connections');
	cmp_ok($answer->{seconds}, '>', 1.4, 'it waits as long as it may');
	cmp_ok($answer->{seconds}, '<', 4, 'and not longer');
	like($answer->{err}, qr/pool "limited" within 1.5 s/,
		'it names the pool');
	like(
		$answer->{err},
		qr/2 of at most 3 connections are busy, the longest for \d+\.\d s/,
		'it tells how many connections are busy and since when');
	like(
		$answer->{err},
		qr/1 other requests are waiting/,
		'it tells the length of the queue');
	like(
		$answer->{err},
		qr/last connect error, \d+\.\d s ago: .*too many connections for role "app"/s,
		'it tells why no connection could be opened, and when');
	like(
		$sessions[3]->wait->{err},
		qr/0 other requests are waiting/,
		'the last one has nobody beside it');
	is( $control->value(
			"SELECT timeouts FROM dbpool_stat_pools WHERE pool = 'limited'"),
		'2',
		'the statistics count them');

	$control->value('SELECT pg_cancel_backend(' . $_->pid . ')')
	  foreach @sessions[ 0, 1 ];
	$_->wait foreach @sessions[ 0, 1 ];
	is( $sessions[3]->value(
			"SELECT * FROM dbpool_query('limited', 'SELECT 42') AS t(x int)"),
		'42',
		'the next call works');
	$_->quit foreach @sessions;
};

subtest 'nobody there' => sub {
	my $silent = silent_listener();
	create_pool(
		$local, 'silent', undef,
		host => '127.0.0.1',
		port => $silent->sockport,
		acquire_timeout => '500ms',
		connect_timeout => '60s');
	my $answer = $control->query("SELECT dbpool_ping('silent')");

	is($answer->{state}, '08001',
		'without any connection it is sqlclient_unable_to_establish_sqlconnection'
	);
	like(
		$answer->{err},
		qr/1 are being opened/,
		'and the error tells that one is being opened');
	cmp_ok($answer->{seconds}, '<', 3, 'after acquire_timeout');
};

# With the only connection neither free nor busy, the error says what it is about.
foreach my $case (
	[ 'checked', { check => sub { return } }, 'validate_after', '0' ],
	[ 'reset', { reset => sub { return } }, 'reset', 'always' ])
{
	my ($what, $deed, @option) = @$case;

	subtest "all connections are being $what" => sub {
		my $fake = FakeRemote->start(hangs => $deed);
		create_pool($local, "only_$what", undef,
			$fake->options('hangs', max_size => 1, acquire_timeout => '500ms', @option));
		# which is checked before its first use already
		is($control->value("SELECT dbpool_query('only_$what', 'SELECT 42')"),
			'(42)', 'the first call has the connection')
		  if $what eq 'reset';
		my $answer = $control->query("SELECT dbpool_query('only_$what', 'SELECT 42')");
		is($answer->{state}, '53300', 'the next one waits in vain');
		like(
			$answer->{err},
			qr/DETAIL:  0 of at most 1 connections are busy, 1 are being $what; 0 other requests/,
			"and hears that the connection is being $what");
		$fake->stop;
	};
}

$_->quit foreach ($control, $there);
done_testing();
