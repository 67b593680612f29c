# Without shared_preload_libraries: every function says what to do, definitions
# can be made and kept, and nothing is lost when the library is preloaded later.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(no_start => 1);
$local->append_conf('postgresql.conf',
	"shared_preload_libraries = 'auto_explain'\n");
$local->start;

my $s = session($local);
my $made = $s->query('CREATE EXTENSION dbpool');
is($made->{state}, '', 'CREATE EXTENSION works without preloading');
like(
	$made->{err},
	qr/WARNING:  55000: dbpool is not loaded via shared_preload_libraries/,
	'but warns');
# Nobody is to lose what is in the list.
like(
	$made->{err},
	qr/HINT:  Add dbpool to .*postgresql\.conf", keep what is there, .*It was started with: auto_explain\./,
	'and says what is there and stays');
$s->value('CREATE ROLE ordinary LOGIN');
my $ordinary = session($local, user => 'ordinary');
my $refused = $ordinary->query(q{SELECT dbpool_ping('x')});
is($refused->{state}, '55000', 'an ordinary role is told, too');
unlike($refused->{err}, qr/auto_explain|postgresql\.conf"/,
	'but not what it may not see');
$ordinary->quit;
is( session($local)->query(
		'DROP EXTENSION dbpool; LOAD \'dbpool\'; CREATE EXTENSION dbpool')
	  ->{err} =~ /WARNING/ ? 'warned' : 'silent',
	'warned',
	'that the session has loaded it makes no difference');

# --- definitions ----------------------------------------------------------------

create_pool($local, 'typed', $remote, max_size => 3);
is( $s->query(
		sprintf
		  q{SELECT dbpool_create_pool('made', 'host=%s port=%s dbname=postgres', '{"max_size": 2}')},
		$remote->host,
		$remote->port)->{err},
	'',
	'a pool can be defined');
is($s->query(q{ALTER SERVER typed OPTIONS (SET max_size '4')})->{err},
	'', 'and altered');
is( $s->query(
		q{CREATE SERVER bad FOREIGN DATA WRAPPER dbpool OPTIONS (nonsense 'x')}
	)->{state},
	'HV00D',
	'options are checked');
$s->value(q{SELECT dbpool_create_pool('gone', 'host=/nowhere')});
is($s->query(q{SELECT dbpool_drop_pool('gone')})->{state},
	'', 'and dropped');

# --- everything that needs the workers ----------------------------------------------

my %calls = (
	'dbpool_query' => q{SELECT dbpool_query('made', 'SELECT 1')},
	'dbpool_query in FROM' =>
	  q{SELECT * FROM dbpool_query('made', 'SELECT $1', 1) AS t(a int)},
	'dbpool_query_as' =>
	  q{SELECT dbpool_query_as(NULL::int, 'made', 'SELECT 1')},
	'dbpool_query_json' => q{SELECT dbpool_query_json('made', 'SELECT 1')},
	'dbpool_exec' => q{SELECT dbpool_exec('made', 'SELECT 1')},
	'dbpool_ping' => q{SELECT dbpool_ping('made')},
	'dbpool_ping of an unknown pool' => q{SELECT dbpool_ping('nothing')},
	'dbpool_pause' => q{SELECT dbpool_pause('made')},
	'dbpool_resume' => q{SELECT dbpool_resume('made')},
	'dbpool_reset' => q{SELECT dbpool_reset('made')},
	'dbpool_stat_reset' => q{SELECT dbpool_stat_reset('made')},
	'dbpool_workers' => q{SELECT * FROM dbpool_workers},
	'dbpool_pools' => q{SELECT * FROM dbpool_pools},
	'dbpool_connections' => q{SELECT * FROM dbpool_connections},
	'dbpool_requests' => q{SELECT * FROM dbpool_requests},
	'dbpool_stat_pools' => q{SELECT * FROM dbpool_stat_pools});
foreach my $name (sort keys %calls)
{
	my $answer = $s->query($calls{$name});
	is($answer->{state}, '55000', "$name: SQLSTATE");
	like(
		$answer->{err},
		qr/dbpool must be loaded via shared_preload_libraries/,
		"$name: message");
	like(
		$answer->{err},
		qr/HINT:  Add dbpool to shared_preload_libraries .*restart the server/,
		"$name: hint");
}
is($s->value('SELECT 1'), '1', 'the session goes on');

# Loading it by hand or for the session does not help, and does no harm.
is($s->query("LOAD 'dbpool'")->{err}, '', 'LOAD works');
is($s->query($calls{dbpool_ping})->{state},
	'55000', 'but does not replace preloading');
my $late = session($local, options => '-c session_preload_libraries=dbpool');
is($late->query($calls{dbpool_ping})->{state},
	'55000', 'nor does session_preload_libraries');
$late->quit;

# The list may come from elsewhere than postgresql.conf, where adding to it would do
# nothing.
$s->value('ALTER SYSTEM SET shared_preload_libraries = auto_explain');
$s->quit;
$local->restart;
$s = session($local);
like(
	$s->query($calls{dbpool_ping})->{err},
	qr/HINT:  Add dbpool to shared_preload_libraries by ALTER SYSTEM SET, .*It was started with: auto_explain\./,
	'a list set by ALTER SYSTEM');
$s->value('ALTER SYSTEM RESET shared_preload_libraries');
$s->quit;
$local->stop;
system_or_bail('pg_ctl', '-w', '-D', $local->data_dir, '-l', $local->logfile,
	'-o', '-c shared_preload_libraries=auto_explain', 'start');
$s = session($local);
like(
	$s->query($calls{dbpool_ping})->{err},
	qr/HINT:  Add dbpool to shared_preload_libraries in the command that starts the server, .*It was started with: auto_explain\./,
	'a list on the command line');
$s->quit;
system_or_bail('pg_ctl', '-w', '-D', $local->data_dir, '-m', 'fast', 'stop');

# --- with it --------------------------------------------------------------------------

$local->append_conf('postgresql.conf',
	"shared_preload_libraries = 'dbpool'\n");
$local->start;
$s = session($local);
foreach my $pool ('made', 'typed')
{
	is($s->value("SELECT dbpool_query('$pool', 'SELECT 1')"),
		'(1)', "pool \"$pool\" works once the library is preloaded");
}
is( $s->value(
		q{SELECT max_size FROM dbpool_pools ORDER BY pool}),
	"2\n4",
	'as it was defined');

$s->quit;
done_testing();
