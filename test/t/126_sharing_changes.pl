
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
my $local = make_local();

create_pool($local, 'p', $remote, max_size => 4);

my $control = session($local);
my @hosts = ($remote, $other);
$_->safe_psql('postgres', 'CREATE TABLE log (client int, n int)')
  foreach @hosts;

# Sessions that read and write all the time, half of what they do being writes.
my ($run, $out) = start_pgbench(
	$local, q{
\set n random(1, 1000000)
SELECT dbpool_exec('p', 'INSERT INTO log VALUES ($1, $2)', :client_id, :n);
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
$ran += $_->safe_psql('postgres', 'SELECT count(*) FROM log') foreach @hosts;
cmp_ok($ran, '>=', $done, 'no write is lost');

# pgbench ends between the two statements of a transaction
cmp_ok($ran, '<=', $done + 12, 'and none has run twice');
ok(is_at_rest($control, 'p'), 'nothing is left');

# --- a connection that is never idle ---------------------------------------------------

# Each statement takes some milliseconds, and there are always more behind it:
# none is taken off for stalling, after which the connection would be empty.
$control->value('ALTER SYSTEM SET dbpool.stall_timeout = 0; SELECT pg_reload_conf()');
create_pool($local, 'steady', $remote, max_size => 1);
$remote->safe_psql('postgres', q{
	CREATE FUNCTION sneaky(zone text) RETURNS text LANGUAGE sql VOLATILE AS
	$$ SELECT CASE WHEN zone <> '' THEN pg_catalog.set_config('TimeZone', zone, false) END $$});
my $zone = q{SELECT v FROM dbpool_query('steady', 'SELECT current_setting(''TimeZone'')') AS t(v text)};
sub sneak
{
	my ($text, $zone) = @_;
	return $control->value("SELECT dbpool_query('steady', 'SELECT sneaky(\$1) /* $text */', '$zone')");
}

# texts that are known to be short and plain share
foreach (1 .. 4)
{
	sneak($_, '') foreach 1 .. 3;
	$control->value($zone);
}
my $usual = $control->value($zone);
isnt($usual, 'Asia/Tokyo', 'the time zone is another one at first');
my ($steady, $steady_out) = start_pgbench(
	$local, "SELECT dbpool_query('steady', 'SELECT pg_sleep(0.002)');\n",
	'-c', 60, '-T', 600);
sub is_steady
{
	return $control->poll(
		q{SELECT in_flight > 8 FROM dbpool_connections WHERE pool = 'steady' AND state = 'busy'});
}
ok(is_steady(), 'statements share one connection all the time');

# What is on the connection, and what waits before us, are some hundred statements
# at most. What comes only after many more came by chance: where the machine is
# busy, the connection may be empty for a moment after all.
sub comes_soon
{
	my ($what, $sql, $expected) = @_;
	my $statements = q{SELECT statements FROM dbpool_stat_pools WHERE pool = 'steady'};
	my $before = $control->value($statements);

	ok($control->poll($sql, $expected), $what);
	cmp_ok($control->value($statements) - $before, '<', 500, 'soon');
	return;
}

# A setting that one of them changes is put back, the second time too.
foreach my $text (1 .. 3)
{
	my ($pid) = $control->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'steady'});

	sneak($text, 'Asia/Tokyo');
	comes_soon("change $text of a setting is put back", $zone, $usual);
	is($control->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'steady'}),
		$pid, 'on the same connection');
	is_steady();
}

# After a reset of the pool nothing more is sent on it, so that it can be closed.
my $old = $control->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'steady'});
$control->value(q{SELECT dbpool_reset('steady')});
comes_soon(
	'a reset gives another connection',
	"SELECT remote_pid <> $old FROM dbpool_connections WHERE pool = 'steady' AND remote_pid > 0", 't');
is_steady();

# And it comes of age.
$old = $control->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'steady'});
$control->value("ALTER SERVER steady OPTIONS (ADD max_lifetime '1s')");
foreach my $round (1 .. 2)
{
	ok( $control->poll(
			"SELECT remote_pid <> $old FROM dbpool_connections WHERE pool = 'steady' AND remote_pid > 0"),
		"it comes of age, round $round");
	$old = $control->value(q{SELECT coalesce(max(remote_pid), 0) FROM dbpool_connections WHERE pool = 'steady'});
	is_steady();
}
$steady->signal('TERM');
eval { $steady->finish };

done_testing();
