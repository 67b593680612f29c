
# However many statements hang on a remote that has stopped dead and are given
# up, other pools can still look up names and cancel.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# More than the threads that a worker would have for such things.
my $many = 80;

my $remote = make_remote(conf => "listen_addresses = '127.0.0.1'\n");
my $stuck = make_remote(name => 'stuck');
my $local = make_local();
my $control = session($local);

create_pool($local, 'good', $remote, max_size => 1);
create_pool(
	$local, 'named', undef,
	host => 'localhost',
	port => $remote->port,
	dbname => 'postgres');
create_pool($local, 'stuck', $stuck, max_size => $many);
$control->value("SELECT dbpool_ping('good')");

my @sessions = map { session($local) } 1 .. $many;
my $victim = session($local);

$_->send(query_sleeps('stuck', 60)) foreach @sessions;
$control->poll(
	q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, $many);

my $postmaster =
  (split /\n/, slurp_file($stuck->data_dir . '/postmaster.pid'))[0];
my @stopped = ($postmaster, child_pids($postmaster));
suspend(@stopped);
$control->value('SELECT pg_cancel_backend(' . $_->pid . ')')
  foreach @sessions;

my ($longest, $errors) = (0, '');
foreach my $session (@sessions)
{
	my $answer = $session->wait;
	$errors .= $answer->{err} if $answer->{state} ne '57014';
	$longest = $answer->{seconds} if $answer->{seconds} > $longest;
}
is($errors, '', 'all statements on the remote that hangs are cancelled');
note("the longest took $longest s");

# Another pool opens its first connection, by a name.
my $answer =
  $control->query(
	"SELECT * FROM dbpool_query('named', 'SELECT 42') AS t(x int)");
is($answer->{out} . $answer->{err}, '42',
	'another pool can look up its host');
cmp_ok($answer->{seconds}, '<', 3, 'at once');

# And another one cancels.
$victim->send(query_sleeps('good', 60));
$control->poll(
	q{SELECT count(*) FROM dbpool_requests WHERE pool = 'good' AND state = 'running'},
	'1');
$control->value('SELECT pg_cancel_backend(' . $victim->pid . ')');
is($victim->wait->{state},
	'57014', 'a statement of another pool is cancelled');
$answer =
  $control->query(
	"SELECT * FROM dbpool_query('good', 'SELECT 42') AS t(x int)");
is($answer->{out} . $answer->{err}, '42', 'and its connection is of use');
cmp_ok($answer->{seconds}, '<', 3, 'at once');
is( $remote->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
	),
	'0',
	'the remote does not run it any more');

# The remote goes on.
resume(@stopped);
ok( $stuck->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool' AND state = 'active'"
	),
	'when the remote goes on, it runs nothing that was cancelled');
is( $control->value(
		"SELECT * FROM dbpool_query('stuck', 'SELECT 42') AS t(x int)"),
	'42',
	'and is of use');
ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
	'no request is left');

# Many remotes take cancels and never answer them, so that each waits for its time
# to be up. Another pool's cancel does not wait for any, nor does the shutdown.
my $holes = 40;
# Where those note that they were asked something.
my $asked = PostgreSQL::Test::Utils::tempdir . '/asked';
my $ask = sub { append_to_file($asked, 'x'); sleep 300; undef };
my $greeting = setting('server_version', '15.0') . setting('client_encoding', 'UTF8');
my $fake = FakeRemote->start(
	hole => {
		statement => sub { sleep 300; undef },
		cancel => sub { sleep 300; undef }
	},
	# The key that cancels ask for, in pieces as slow as the log-in has patience for;
	# and none.
	dribble => {
		greeting => sub {
			my ($client) = @_;

			foreach my $piece ('', $greeting, 'K' . pack('N N', 12, 1), pack('n', 0), pack('n', 2))
			{
				$client->put($piece) if $piece ne '';
				select undef, undef, undef, 0.5;
			}
			$client->put(ready());
			return undef;
		},
		statement => $ask,
		cancel => sub { sleep 300; undef }
	},
	keyless => {
		greeting => sub { $greeting . ready() },
		statement => $ask,
		cancel => sub { sleep 300; undef }
	});
$control->value(
	qq{
	DO \$\$ BEGIN FOR i IN 1..$holes LOOP
		EXECUTE format('CREATE SERVER hole%s FOREIGN DATA WRAPPER dbpool OPTIONS (host %L, port %L, dbname %L, sslmode %L)',
			i, '127.0.0.' || i, '${\$fake->port}', 'hole', 'disable');
		EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER hole%s', i);
	END LOOP; END \$\$});
my @holes = map { ($_) x 4 } 1 .. $holes;
my @lost = map { session($local) } @holes;

$lost[$_]->send(query_sleeps("hole$holes[$_]", 60)) foreach 0 .. $#holes;
$control->poll(
	q{SELECT count(*) FROM dbpool_requests WHERE pool LIKE 'hole%' AND state = 'running'},
	scalar @holes);
$control->value('SELECT count(pg_cancel_backend(pid)) FROM unnest(ARRAY['
	  . join(',', map { $_->pid } @lost)
	  . ']) AS pid');
is($_->wait->{state}, '57014', 'a statement on a remote that takes cancels for nothing')
  foreach @lost;
my $begun = time;
$victim->send(query_sleeps('good', 60));
$control->poll(
	q{SELECT count(*) FROM dbpool_requests WHERE pool = 'good' AND state = 'running'},
	'1');
$control->value('SELECT pg_cancel_backend(' . $victim->pid . ')');
is($victim->wait->{state}, '57014', 'a statement of another pool is cancelled');
$answer =
  $control->query("SELECT * FROM dbpool_query('good', 'SELECT 42') AS t(x int)");
is($answer->{out}, '42', 'and its one connection is of use');
ok( $remote->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
	),
	'as its cancel has arrived');
cmp_ok(time - $begun, '<', 2, 'at once');
cmp_ok($control->value("SELECT count(*) FROM dbpool_connections WHERE pool LIKE 'hole%' AND state = 'cancelling'"),
	'>', $holes, 'while those others were on their way');

# each is given up in time, and the pool goes on
$control->poll(
	"SELECT count(*) FROM dbpool_connections WHERE pool LIKE 'hole%' AND state = 'cancelling'", '0');
cmp_ok(time - $begun, '<', 20, 'those that were never answered are given up');

# Nobody waits without end for such a remote, however it tells of its key.
foreach my $name ('dribble', 'keyless')
{
	my $session = session($local);

	create_pool($local, $name, undef, $fake->options($name));
	$session->send(query_sleeps($name, 60));
	$control->poll("SELECT count(*) FROM dbpool_requests WHERE pool = '$name' AND state = 'running'", '1');
	$control->value('SELECT pg_cancel_backend(' . $session->pid . ')');
	is($session->wait->{state}, '57014', "$name: a statement is cancelled");
	ok($control->poll("SELECT count(*) FROM dbpool_connections WHERE pool = '$name'", '0'),
		"$name: and its connection is given up");
	unlink $asked;
	$session->send("SELECT count(*) FROM dbpool_migrate('$name')");
	ok(wait_until("the remote of $name is asked", sub { -s $asked }), "$name: a migration begins");
	$begun = time;
	$control->value('SELECT pg_terminate_backend(' . $session->pid . ')');
	ok($control->poll('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $session->pid, '0'),
		"$name: a migration can be ended");
	cmp_ok(time - $begun, '<', 15, "$name: soon");
	undef $session;
}

$lost[$_]->send(query_sleeps("hole$holes[$_]", 60)) foreach 0 .. $#holes;
$control->poll(
	q{SELECT count(*) > 100 FROM dbpool_requests WHERE pool LIKE 'hole%' AND state = 'running'});
$begun = time;
$local->stop('fast');
cmp_ok(time - $begun, '<', 30, 'a shutdown waits for none of them');
$fake->stop;
done_testing();
