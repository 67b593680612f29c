# No password is to be seen anywhere but where the user typed it: not in the
# log at its loudest, in views, in errors, in process titles or in catalogs that
# everybody may read.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Words that occur nowhere else.
my $right = 'hUshwOrd1';
my $wrong = 'hUshwOrd2';
my $inuri = 'hUshwOrd3';
my $secret = qr/hUshwOrd/;

my $remote = make_remote();
$remote->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD '$right'");
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf',
	"local all app scram-sha-256\nlocal all all trust\n");
$remote->reload;

# The log is to hold everything but what users typed.
my $local = make_local(
	conf => q{
log_min_messages = debug5
log_min_error_statement = panic
log_error_verbosity = verbose
log_connections = on
log_disconnections = on
});
my $session = session($local);
my $start_of_log = -s $local->logfile;

sub does
{
	my ($sql) = @_;
	return $session->query($sql);
}

# The titles of all server processes.
sub titles
{
	my $all = '';
	foreach my $file (glob '/proc/[0-9]*/cmdline')
	{
		my ($pid) = $file =~ /(\d+)/;
		open my $handle, '<', $file or next;
		my $line = <$handle>;
		close $handle;
		next unless defined $line && $line =~ /^postgres:/;
		$all .= "$line\n";
	}
	return $all;
}

# All rows of all views, as a session sees them.
sub all_that_shows
{
	my ($observer) = @_;
	my $all = '';
	foreach my $relation (
		'dbpool_pools', 'dbpool_connections',
		'dbpool_requests', 'dbpool_stat_pools',
		'dbpool_workers', 'dbpool_get_pools()',
		'dbpool_get_connections()', 'dbpool_get_traced_requests()')
	{
		$all .= $observer->value("SELECT * FROM $relation") . "\n";
	}
	return $all;
}

# --- use, that succeeds and that fails ------------------------------------------------

does(sprintf q{SELECT dbpool_create_pool('remote', 'host=%s port=%s dbname=postgres user=app password=%s')},
	$remote->host, $remote->port, $right);
is(does(q{SELECT dbpool_query('remote', 'SELECT current_user')})->{out},
	'(app)', 'a right password works');
is(does(q{SELECT dbpool_query('remote', 'SELECT 1/0')})->{state},
	'22012', 'a statement fails');
is(does(q{SELECT * FROM dbpool_query('remote', 'SELECT 1') AS t(a int, b int)})
	  ->{state},
	'42804', 'a result does not fit');

my $second = session($local);
$second->send(query_sleeps('remote', 60));
$session->poll(q{SELECT count(*) = 1 FROM dbpool_requests WHERE state = 'running'});
my $shown = all_that_shows($session) . titles()
  . does('SELECT * FROM pg_stat_activity')->{out};
like($shown, qr/pg_sleep/, 'a statement that runs is shown');
like($shown, qr/postgres: .*dbpool worker/, 'and the worker');
unlike($shown, $secret, 'no password while a statement runs');
does(sprintf 'SELECT pg_cancel_backend(%d)', $second->pid);
is($second->wait->{state}, '57014', 'it is cancelled');

does(
	"ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (SET password '$wrong')"
);
# the connections that there are would serve
does(q{SELECT dbpool_kill('remote')});
my $answer = does(q{SELECT dbpool_query('remote', 'SELECT 1')});
is($answer->{state}, '08001', 'a wrong password does not work');
$shown = all_that_shows($session);
like($shown, qr/password authentication failed/,
	'the reason is in the views');
unlike($shown, $secret, 'no password after a failure');

# Mistakes that have the password in their text.
my %mistakes = (
	'a URI with a parameter that is none' =>
	  "dbpool_create_pool('bad', 'postgresql://app:$inuri\@db/x?nonsense=1')",
	'a URI with a bad escape' =>
	  "dbpool_create_pool('bad', 'postgresql://app:$inuri%zz\@db/x')",
	'keywords without a value' =>
	  "dbpool_create_pool('bad', 'password=$inuri host')",
	'a quote that is not closed' =>
	  "dbpool_create_pool('bad', 'password=''$inuri host=x')",
	'the password as a keyword' =>
	  "dbpool_create_pool('bad', '$inuri=password')",
	'an unknown pool option' =>
	  "dbpool_create_pool('bad', 'password=$inuri', '{\"max_sise\": 1}')",
	'a bad pool option' =>
	  "dbpool_create_pool('bad', 'password=$inuri', '{\"max_size\": 0}')",
	'a pool that is there already' =>
	  "dbpool_create_pool('remote', 'password=$inuri')",
	'a slash in the password' =>
	  "dbpool_create_pool('bad', 'postgresql://app:p/$inuri\@127.0.0.1:5432/app')",
	'a slash behind digits in the password' =>
	  "dbpool_create_pool('bad', 'postgresql://app:12/$inuri\@127.0.0.1/app')",
	'a slash at the end of the password' =>
	  "dbpool_create_pool('bad', 'postgresql://app:$inuri/\@127.0.0.1/app')",
	'a slash in the password, and no host' =>
	  "dbpool_create_pool('bad', 'postgresql://app:12/$inuri/app')",
	'an @ in the password' =>
	  "dbpool_create_pool('bad', 'postgresql://app:p\@$inuri\@127.0.0.1/app')",
	'no @ behind the password' =>
	  "dbpool_create_pool('bad', 'postgresql://app:$inuri')",
	'a slash and a question mark' =>
	  "dbpool_create_pool('bad', 'postgresql://app:12/3?user=$inuri\@127.0.0.1/app')",
	'a port that is none' =>
	  "dbpool_create_pool('bad', 'postgresql://app:x\@127.0.0.1:$inuri/x')",
	'a colon behind the port' =>
	  "dbpool_create_pool('bad', 'postgresql://app\@127.0.0.1:1:$inuri/x')",
	'semicolons between keywords' =>
	  "dbpool_create_pool('bad', 'host=db;port=1;password=$inuri')",
	'commas between keywords' =>
	  "dbpool_create_pool('bad', 'host=db,user=app,password=$inuri')",
	'a URI for a database' =>
	  "dbpool_create_pool('bad', 'dbname=postgresql://app:$inuri\@db/x')",
	'a URI for a host' =>
	  "dbpool_create_pool('bad', 'host=postgresql://app:$inuri\@db/x')",
	'a URI of another sort for a host' =>
	  "dbpool_create_pool('bad', '', '{\"host\": \"app:$inuri\@db\"}')");
foreach my $mistake (sort keys %mistakes)
{
	$answer = does("SELECT $mistakes{$mistake}");
	isnt($answer->{state}, '', "$mistake is an error");
	# psql's LINE 1 echoes what the user typed
	unlike($answer->{err} =~ s/^LINE \d+:.*\n.*\^$//mr,
		$secret, "$mistake: it does not tell the password");
}
is(does(q{SELECT count(*) FROM pg_foreign_server WHERE srvname = 'bad'})->{out}, '0',
	'none of them has made a server');
$answer = does(
	"CREATE SERVER bad FOREIGN DATA WRAPPER dbpool OPTIONS (password '$inuri')");
is($answer->{state}, 'HV00D', 'a password is no option of a server');
unlike($answer->{err}, $secret, 'nor is it told');
$answer = does(
	"CREATE SERVER bad FOREIGN DATA WRAPPER dbpool OPTIONS (max_size '$inuri')");
is($answer->{state}, 'HV024', 'a password is no size');

does(
	"ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (SET password '$right')"
);
is(does(q{SELECT dbpool_query('remote', 'SELECT current_user')})->{out},
	'(app)', 'and right again');

# --- the end of the worker, of a connection, of the remote --------------------------

does(sprintf 'SELECT pg_terminate_backend(%d)', worker_pid($session));
$session->poll(q{SELECT count(*) = 1 FROM dbpool_workers WHERE starts = 2});
is(does(q{SELECT dbpool_query('remote', 'SELECT current_user')})->{out},
	'(app)', 'a new worker has the password too');
$remote->stop('immediate');
is(does(q{SELECT dbpool_query('remote', 'SELECT 1')})->{state},
	'08001', 'a remote that is down');
$remote->start;
is(does(q{SELECT dbpool_query('remote', 'SELECT current_user')})->{out},
	'(app)', 'it is up');
unlike(all_that_shows($session), $secret, 'no password in the views');

# --- catalogs, as everybody sees them -------------------------------------------------

$local->safe_psql('postgres', 'CREATE ROLE nobody_special LOGIN');
my $nobody = session($local, user => 'nobody_special');
my $catalogs = '';
foreach my $query (
	'SELECT * FROM pg_foreign_server',
	'SELECT * FROM pg_foreign_data_wrapper',
	'SELECT * FROM pg_user_mappings',
	'SELECT * FROM information_schema.user_mapping_options',
	'SELECT * FROM information_schema.foreign_server_options',
	'SELECT * FROM pg_stat_activity',
	'SELECT * FROM pg_settings')
{
	$catalogs .= $nobody->value($query) . "\n";
}
like($catalogs, qr/remote/, 'everybody may see the pool');
unlike($catalogs, $secret, 'but not its password');
is( $nobody->query('SELECT * FROM pg_user_mapping')->{state},
	'42501', 'the catalog of mappings is not for everybody');
unlike(all_that_shows($nobody), $secret,
	'nor do the views tell everybody the password');
like($nobody->query(q{SELECT dbpool_query('remote', 'SELECT 1')})->{err},
	qr/permission denied for foreign server remote/, 'or let her in');

# --- the log ----------------------------------------------------------------------------

$nobody->quit;
$second->quit;
$session->quit;
$local->stop;

my $log = slurp_file($local->logfile, $start_of_log);
like($log, qr/DEBUG:  /, 'the log is loud');
like($log, qr/dbpool closed a connection of pool "remote"/,
	'the worker\'s part of it too');
# What is left is an answer to the user alone: the value that she gave to an
# option which shows its values.
my @told =
  grep { /$secret/ && !/invalid value for option "max_size": "$inuri"/ }
  split /\n/, $log;
is(join("\n", @told), '', 'no password in the log');

done_testing();
