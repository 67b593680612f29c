
# The pool changes while many statements share its connections: its definition,
# its size, where it leads, a pause, a reset, connections that come of age. No
# session sees an error, and no statement is lost or runs twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolFlights;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $other = make_remote(name => 'other');
my $local = make_local(conf => 'dbpool.stall_timeout = 0');

create_pool($local, 'p', $remote, max_size => 4);

my $control = session($local);
my @hosts = ($remote, $other);
$_->safe_psql('postgres', 'CREATE TABLE writes (client int, n int)')
  foreach @hosts;

# Sessions that read and write all the time, half of what they do being writes.
my ($run, $out) = start_pgbench(
	$local, q{
\set n random(1, 1000000)
SELECT dbpool_exec('p', 'INSERT INTO writes VALUES ($1, $2)', :client_id, :n);
SELECT 1 / (v = :n)::int FROM dbpool_query('p', 'SELECT $1::int', :n) AS t(v int);
}, '-c', 12, '-T', 8);

sub goes_on
{
	my ($what) = @_;
	my $before =
	  $control->value("SELECT sum(statements) FROM dbpool_stat_pools");

	ok( $control->poll(
			"SELECT sum(statements) > $before + 100 FROM dbpool_stat_pools"),
		"statements go on $what");
	return;
}

goes_on('at first');
foreach my $round (1 .. 2)
{
	foreach my $size (1, 8, 2)
	{
		$control->value("ALTER SERVER p OPTIONS (SET max_size '$size')");
		goes_on("with max_size $size");
		ok( $control->poll(
				"SELECT count(*) <= $size FROM dbpool_connections WHERE pool = 'p'"
			),
			'in no more connections');
	}
	$control->value("SELECT dbpool_reset('p')") foreach 1 .. 5;
	goes_on('after a reset');
	$control->value("SELECT dbpool_pause('p'), dbpool_resume('p')")
	  foreach 1 .. 5;
	goes_on('after a pause');
	$control->value("ALTER SERVER p OPTIONS (ADD multiplex 'off')");
	goes_on('without multiplex');
	cmp_ok(in_flight($control, 'p'), '<=', 1, 'each on its own');
	$control->value("ALTER SERVER p OPTIONS (DROP multiplex)");
	goes_on('with multiplex');
	my ($host, $port) = ($hosts[ $round % 2 ]->host, $hosts[ $round % 2 ]->port);
	$control->value(
		"ALTER SERVER p OPTIONS (SET host '$host', SET port '$port')");
	goes_on('at another place');
}

# Connections that carry statements all the time come of age all the same.
$control->value("ALTER SERVER p OPTIONS (ADD max_lifetime '300ms')");
my $connects = $control->value("SELECT sum(connects) FROM dbpool_stat_pools");
ok( $control->poll(
		"SELECT sum(connects) > $connects + 6 FROM dbpool_stat_pools"),
	'connections are renewed');
is( $control->value(
		"SELECT count(*) FROM dbpool_connections WHERE connected_at < now() - interval '5s'"
	),
	'0',
	'and none is old');

ok($run->finish, 'no session saw an error') or diag($$out);
my ($done) = $$out =~ /processed: (\d+)/;
my $ran = 0;
$ran += $_->safe_psql('postgres', 'SELECT count(*) FROM writes') foreach @hosts;
cmp_ok($ran, '>=', $done, 'no write is lost');

# pgbench ends between the two statements of a transaction
cmp_ok($ran, '<=', $done + 12, 'and none has run twice');
ok(is_at_rest($control, 'p'), 'nothing is left');

# --- a connection that is never idle ---------------------------------------------------

# Two statements share a connection, each held up at the remote. Then something
# happens to the connection, and a third one comes; in the same turn of the worker
# the first ends. Were the third to join, it would be sent behind the second.
create_pool($local, 'steady', $remote, max_size => 1);
my $bench = make_bench($local, $remote, sessions => 2);
my $later = session($remote);
my $third = session($local);
my $look = q{dbpool_query('steady', 'SELECT pg_backend_pid(), current_setting(''TimeZone'')')};

# The account of a statement says which time zone it leaves behind.
$remote->safe_psql('postgres', q{
	CREATE TABLE zones (account int, zone text);
	CREATE FUNCTION set_zone() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('TimeZone', zone, false) FROM zones WHERE account = NEW.id;
		RETURN NEW;
	END $$;
	CREATE TRIGGER t BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION set_zone()});

sub connection
{
	return $control->value(
		q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'steady'});
}

# Returns what the third one sees: the process and its time zone.
sub comes_third
{
	my ($what, $happens) = @_;

	learn($control, $look);
	my @riders = share($bench, 'steady', 0);
	hold($later, $riders[1]);
	$happens->($riders[0]->{account});
	# nobody rides behind one that is slow; so it is when the first has ended that
	# the third could
	$control->poll(q{SELECT running_since < clock_timestamp() - interval '100 ms' FROM dbpool_requests WHERE pid = }
		  . $riders[0]->{session}->pid);
	line_up($bench, [ $third, "SELECT * FROM $look AS t(pid int, zone text)" ]);
	$bench->{holder}->value('COMMIT');
	$bench->{there}->poll('SELECT count(*) FROM pg_stat_activity WHERE '
		  . $later->pid
		  . ' = ANY (pg_blocking_pids(pid))', '1');
	resume($bench->{worker});
	$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE state = 'submitted' OR pid = }
		  . $riders[0]->{session}->pid, '0');
	is($control->value('SELECT state FROM dbpool_requests WHERE pid = ' . $third->pid),
		'queued', "$what: nobody joins any more");
	$later->value('COMMIT');
	check_riders($bench, @riders);
	return $third->wait->{out};
}

# A setting that one of them changes is put back, the second time too.
my $usual = $control->value("SELECT zone FROM $look AS t(pid int, zone text)");
my $first = connection();
foreach my $change (1 .. 3)
{
	is( comes_third(
			"change $change of a setting",
			sub { $bench->{there}->value("INSERT INTO zones VALUES ($_[0], 'Asia/Tokyo')") }),
		"$first|$usual",
		'it is put back, on the same connection');
}
isnt($usual, 'Asia/Tokyo', 'which was another one');

# After a reset of the pool nothing more is sent on it, so that it can be closed.
isnt(comes_third('a reset', sub { $control->value(q{SELECT dbpool_reset('steady', '0')}) }),
	"$first|$usual", 'it gives another connection');

# So it is with a definition that has changed.
$first = connection();
isnt(
	comes_third(
		'a new definition',
		sub {
			$control->value(q{ALTER SERVER steady OPTIONS (ADD max_lifetime '2s')});
		}),
	"$first|$usual",
	'it gives another connection');

# And when it has come of age.
$control->value("SELECT dbpool_reset('steady')");
isnt(
	comes_third(
		'a connection of age',
		sub {
			$first = connection();
			$control->poll(
				q{SELECT connected_at < clock_timestamp() - interval '2 s' FROM dbpool_connections WHERE pool = 'steady'}
			);
		}),
	"$first|$usual",
	'it is replaced');
$_->quit foreach ($later, $third, $control);
done_testing();
