# The server's settings of dbpool: what they show, which values they refuse, and
# that no other ones can be made up.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $local = make_local();
my $s = session($local);

# Each setting: its default, a value that it takes, values that it refuses, and how
# the second is shown if not so.
my %settings = (
	'dbpool.alert_errors' => [ 5, 10, [ -1, 101, "'many'" ] ],
	'dbpool.alert_utilisation' => [ 90, 80, [ -1, 101, "'many'" ] ],
	'dbpool.alert_wait' => [ '5s', 300, [ -1, "'1 mile'" ], '300ms' ],
	'dbpool.history_interval' => [ '1min', 5000, [ 99, 3600001, "'1 mile'" ], '5s' ],
	'dbpool.inherit_read_only' => [ 'off', 'on', ["'many'"] ],
	'dbpool.log_parameter_max_length' => [ 0, -1, [ -2, "'many'" ] ],
	'dbpool.max_connections' => [ 256, 300, [ 0, -1, 100001, "'many'" ] ],
	'dbpool.max_connections_per_endpoint' => [ 0, 20, [ -1, 100001, "'many'" ] ],
	'dbpool.max_min_size' => [ 10, 20, [ -1, 10001, "'many'" ] ],
	'dbpool.max_pools' => [ 128, 130, [ 0, -1, 100001, "'many'" ] ],
	'dbpool.max_requests' => [ 0, 40, [ -1, 100001, "'many'" ] ],
	'dbpool.max_statements' => [ 1000, 50, [ -1, 100001, "'many'" ] ],
	'dbpool.min_lsn' => [ '', "'16/B374D848'", [ "'16'", "'16/'", "'-1/0'", "'123456789/0'", "'0/0 '", 1 ], '16/B374D848' ],
	'dbpool.role_max_connections' => [ 0, 20, [ -1, 100001, "'many'" ] ],
	'dbpool.role_max_pools' => [ 0, 20, [ -1, 100001, "'many'" ] ],
	'dbpool.role_max_request_memory' => [ '128MB', 10240, [ 0, -1, "'many'" ], '10MB' ],
	'dbpool.role_max_requests' => [ 0, 20, [ -1, 100001, "'many'" ] ],
	'dbpool.session_max_requests' => [ 16, 20, [ 0, -1, 100001, "'many'" ] ],
	'dbpool.split_threshold' => [ 80, 50, [ -1, 101, "'many'" ] ],
	'dbpool.stall_timeout' => [ '100ms', 50, [ -1, "'1 mile'" ], '50ms' ],
	'dbpool.traceparent' => [ '', "'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'", [ "'00'", 1 ],
		'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' ],
	'dbpool.transaction' => [ 'server', 'bound', ["'many'", 1] ],
	'dbpool.workers' => [ 1, 2, [ 0, -1, 1000000, "'many'" ] ]);

# Who may change it, and when.
my %context = (
	'dbpool.inherit_read_only' => 'user',
	'dbpool.min_lsn' => 'user',
	'dbpool.traceparent' => 'user',
	'dbpool.transaction' => 'user',
	'dbpool.alert_errors' => 'sighup',
	'dbpool.alert_utilisation' => 'sighup',
	'dbpool.alert_wait' => 'sighup',
	'dbpool.history_interval' => 'sighup',
	'dbpool.max_connections_per_endpoint' => 'sighup',
	'dbpool.log_parameter_max_length' => 'superuser',
	'dbpool.max_min_size' => 'sighup',
	'dbpool.role_max_connections' => 'sighup',
	'dbpool.role_max_pools' => 'sighup',
	'dbpool.role_max_request_memory' => 'sighup',
	'dbpool.role_max_requests' => 'superuser',
	'dbpool.session_max_requests' => 'superuser',
	'dbpool.stall_timeout' => 'sighup');

is( $s->value(q{SELECT string_agg(name || ' ' || context, ',' ORDER BY name) FROM pg_settings
	            WHERE name LIKE 'dbpool.%'}),
	join(',', map { "$_ " . ($context{$_} || 'postmaster') } sort keys %settings),
	'every setting is tested here, and who may change it');
is( $s->value(q{SELECT count(*) FROM pg_settings WHERE name LIKE 'dbpool.%'
		  AND short_desc !~ '^[A-Z][a-z]+s .*\.$'}),
	'0',
	'each is described by a sentence that begins with a verb');

foreach my $name (sort keys %settings)
{
	my ($default, $good, $bad) = @{ $settings{$name} };

	is($s->value("SHOW $name"), $default, "$name: default");
	my $by_session = ($context{$name} || '') =~ /user/;
	is($s->query("SET $name = $good")->{state},
		$by_session ? '' : '55P02', "$name: to be changed in a session, or not");
	$s->value("RESET $name") if $by_session;
	foreach my $value (@$bad)
	{
		is($s->query("ALTER SYSTEM SET $name = $value")->{state},
			'22023', "$name: $value is refused");
	}
	is($s->query("ALTER SYSTEM SET $name = $good")->{err},
		'', "$name: $good is taken");
}

# --- after a restart -------------------------------------------------------------------

$s->quit;
$local->restart;
$s = session($local);
foreach my $name (sort keys %settings)
{
	my (undef, $good, undef, $shown) = @{ $settings{$name} };

	is( $s->value("SHOW $name"),
		defined $shown ? $shown : $good,
		"$name: after a restart");
}
is($s->value('SELECT count(*) FROM dbpool_workers'),
	'2', 'dbpool.workers is how many there are');
ok(worker_pid($s, $_), "worker $_ runs") foreach (1, 2);

# --- after a reload ------------------------------------------------------------------

# The defaults, written down: nothing is said of them, or waits for a restart.
foreach my $name (sort keys %settings)
{
	$s->value("ALTER SYSTEM RESET $name");
	$local->append_conf('postgresql.conf', "$name = '$settings{$name}->[0]'\n");
}
$s->quit;
$local->restart;
my $reloaded_at = -s $local->logfile;
$local->append_conf('postgresql.conf', "dbpool.stall_timeout = 77\n");
$local->reload;
$s = session($local);
$s->poll('SHOW dbpool.stall_timeout', '77ms');
is( $s->value(
		q{SELECT count(*) FROM pg_settings WHERE name LIKE 'dbpool.%' AND pending_restart}
	),
	'0',
	'no setting waits for a restart after a reload');
unlike(
	slurp_file($local->logfile, $reloaded_at),
	qr/cannot be changed without restarting/,
	'and the log says nothing of the kind');
is($s->value('SHOW dbpool.max_requests'),
	'0', 'what a setting shows is what was set');
$s->value(
	"ALTER SYSTEM SET $_ = $settings{$_}->[1]") foreach (sort keys %settings);
$s->quit;
$local->restart;
$s = session($local);

# --- names that are none ------------------------------------------------------------------

my $answer = $s->query(q{SET dbpool.nonsense = '1'});
is($answer->{state}, '42602', 'an unknown setting is refused');
like(
	$answer->{err},
	qr/invalid configuration parameter name "dbpool\.nonsense".*"dbpool" is a reserved prefix/s,
	'it is said why');
is($s->query(q{SELECT set_config('dbpool.worker', '2', false)})->{state},
	'42602', 'a slip of the pen is not swallowed');
is($s->query('SHOW dbpool.nonsense')->{state}, '42704', 'nor shown');
is($s->query(q{SET dbpools.other = '1'})->{err},
	'', 'other prefixes are free');

# One in the configuration file is told, and does not keep the server from
# starting.
$s->quit;
my $offset = -s $local->logfile;
$local->append_conf('postgresql.conf', "dbpool.nonsense = 1\n");
$local->restart;
like(
	slurp_file($local->logfile, $offset),
	qr/WARNING:  .*"dbpool\.nonsense"/,
	'one in postgresql.conf is told in the log');
is($local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_workers'),
	'2', 'and the server works');

# So is a bad value there; as with any library's setting, the default holds.
$local->append_conf('postgresql.auto.conf', "dbpool.workers = 'many'\n");
$offset = -s $local->logfile;
$local->restart;
like(
	slurp_file($local->logfile, $offset),
	qr/WARNING:  invalid value for parameter "dbpool\.workers": "many"/,
	'a bad value in postgresql.conf is told in the log');
is($local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_workers'),
	'1', 'and the default holds');

done_testing();
