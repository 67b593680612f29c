
# A remote that is not what it seems: it speaks the protocol as far as the
# log-in, and then breaks it. The worker must survive, tell the session, let no
# session hang, and go on serving other pools.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

my $listener = silent_listener(128);
my $port = $listener->sockport;

# A message of the protocol.
sub message
{
	my ($type, $body) = @_;
	return $type . pack('N', length($body) + 4) . $body;
}

sub read_exactly
{
	my ($socket, $wanted) = @_;
	my $bytes = '';

	while (length $bytes < $wanted)
	{
		sysread($socket, $bytes, $wanted - length $bytes, length $bytes)
		  or exit 0;
	}
	return $bytes;
}

my $ready = message('Z', 'I');
my $flood = message('N', "SNOTICE\0VNOTICE\0C00000\0M" . ('x' x 400_000) . "\0\0");

# A result of one row and one column, or of two.
sub result
{
	my ($type, $format, $value, @more) = @_;
	my @columns = ([ $type, $format, $value ], @more ? [@more] : ());

	return message('T', pack('n', scalar @columns)
		  . join('', map { "a\0" . pack('N n N n N n', 0, 0, $_->[0], 65535, 0xffffffff, $_->[1]) } @columns))
	  . message('D', pack('n', scalar @columns)
		  . join('', map { pack('N', length $_->[2]) . $_->[2] } @columns))
	  . message('C', "SELECT 1\0");
}

# Types, by their OIDs in the catalog.
my ($bool, $int8, $int4, $text, $timestamptz, $inet, $numeric, $jsonb) =
  (16, 20, 23, 25, 1184, 869, 1700, 3802);

# What the remote does instead of answering a statement; by database name.
my %misdeed = (
	copy_both => sub { message('W', "\0\0\0") },
	garbage => sub { "\x01\0\0\0\0" x 20 },
	flood_and_garbage => sub { $flood . "\x01\0\0\0\0" },
	flood_and_close => sub { ($flood, 'close') },
	close => sub { ('', 'close') },
	wrong_length => sub {
		message('T', pack('n', 1) . "a\0" . pack('N n N n N n', 0, 0, 25, 65535, 0xffffffff, 0))
		  . message('D', pack('n N', 1, 0x7fffffff)) . $ready;
	},
	many_columns => sub { message('T', pack('n', 65535) . ("a\0" . "\0" x 18) x 65535) . message('C', "SELECT 0\0") . $ready },
	bad_encoding => sub { result($text, 0, "\xff\xfe") . $ready },
	# binary that nobody has asked for, and that is not what it should be
	short_int => sub { result($int4, 1, "\0\0\1") . $ready },
	empty_int => sub { result($int4, 1, '') . $ready },
	long_int => sub { result($int4, 1, "\0\0\0\1\0") . $ready },
	other_type => sub { result($int8, 1, "\0" x 8) . $ready },
	own_type => sub { result(99999, 1, 'x') . $ready },
	one_of_two => sub { result($int4, 1, "\0\0\0\1", $int4, 0, '1') . $ready },
	binary_bad_encoding => sub { result($text, 1, "\xff\xfe") . $ready },
	binary_zero => sub { result($text, 1, "a\0b") . $ready },
	empty_jsonb => sub { result($jsonb, 1, '') . $ready },
	odd_jsonb => sub { result($jsonb, 1, "\x02{}") . $ready },
	bad_jsonb => sub { result($jsonb, 1, "\x01{") . $ready },
	bad_numeric => sub { result($numeric, 1, pack('n n n n n', 1, 0, 0, 0, 10000)) . $ready },
	short_numeric => sub { result($numeric, 1, pack('n n n n', 0x7fff, 0, 0, 0)) . $ready },
	bad_inet => sub { result($inet, 1, "\2\xff\0\4abcd") . $ready },
	bad_time => sub { result($timestamptz, 1, "\x7f" . "\xff" x 6 . "\xfe") . $ready });

# What the session expects where that is not a text, and what it is told where
# that is certain.
my %declared = (
	short_int => 'a int',
	empty_int => 'a int',
	long_int => 'a int',
	other_type => 'a int',
	one_of_two => 'a int, b int',
	empty_jsonb => 'a jsonb',
	odd_jsonb => 'a jsonb',
	bad_jsonb => 'a jsonb',
	bad_numeric => 'a numeric',
	short_numeric => 'a numeric',
	bad_inet => 'a inet',
	bad_time => 'a timestamptz');
my %state = (
	bad_encoding => '22021',
	short_int => '08P01',
	empty_int => '08P01',
	long_int => '22P03',
	other_type => '42804',
	own_type => '42804',
	one_of_two => '22021',
	binary_bad_encoding => '22021',
	binary_zero => '22021',
	empty_jsonb => '22P03',
	odd_jsonb => '22P03',
	bad_jsonb => '22P02',
	bad_numeric => '22P03',
	short_numeric => '08P01',
	bad_inet => '22P03',
	bad_time => '22008');

# One that keeps to the protocol, but whose column has another type when it is
# asked for binary: a pooler could lead to a server where it has.
sub changing
{
	my ($parse, $bind) = @_;

	return ($parse ? message('1', '') : '')
	  . message('2', '')
	  . (substr($bind, -2) eq "\0\1" ? result($int8, 1, pack('N N', 0, 8)) : result($int4, 0, '4'))
	  . $ready;
}

# One that dies of a statement in a pipeline, and says why before it has ended it.
my $fatal = message('E', "SFATAL\0VFATAL\0C57P01\0Mthe machine is on fire\0Ffire.c\0L1\0Rburn\0\0");
my $old_fatal = message('E', "SFATAL\0C57P01\0Mthe machine is on fire\0\0");
my $error = message('E', "SERROR\0VERROR\0C22012\0Mdivision by zero\0\0");
my $begun = message('1', '') . message('2', '');
my %last_words = (
	dies_at_once => [$fatal],
	dies_after_result => [ $begun . result($text, 0, 'x') . $fatal ],
	dies_after_error => [ $begun . $error . $fatal ],
	dies_as_of_old => [ $begun . result($text, 0, 'x') . $old_fatal ],
	dies_with_rows => [ $begun . message('T', pack('n', 1) . "a\0" . pack('N n N n N n', 0, 0, $text, 65535, 0xffffffff, 0))
		  . message('D', pack('n N', 1, 100) . 'x' x 100) x 1200 . message('C', "SELECT 1200\0") . $fatal ]);

# Speak with one client.
sub serve
{
	my ($client) = @_;
	my $startup = read_exactly($client, unpack('N', read_exactly($client, 4)) - 4);
	my ($database) = $startup =~ /database\0([^\0]*)/;

	if ($database eq 'babel')
	{
		# nobody has said yet in which encoding
		syswrite $client, message('E', "SFATAL\0VFATAL\0C28000\0Mcaf\xe9 \xff\0\0");
		exit 0;
	}
	syswrite $client,
	  message('R', pack('N', 0))
	  . message('S', "server_version\0" . "15.0\0")
	  . message('S', "client_encoding\0UTF8\0")
	  . ($database eq 'changing' ? message('S', "integer_datetimes\0on\0") : '')
	  . message('K', pack('NN', 1, 2))
	  . $ready;
	my %sent;
	while (1)
	{
		my $type = read_exactly($client, 1);
		my $body = read_exactly($client, unpack('N', read_exactly($client, 4)) - 4);

		exit 0 if $type eq 'X';
		$sent{$type} = $body;
		if ($type eq 'Q' && $body =~ /datestyle/)
		{
			syswrite $client, message('C', "SET\0") . $ready;
			exit 0 if $database eq 'bye';
		}
		elsif ($database =~ /^dies/)
		{
			next if $type ne 'S';
			if (!$sent{before}++)
			{
				syswrite $client, $begun . result($text, 0, 'x') . $ready;
				next;
			}
			syswrite $client, join('', @{ $last_words{$database} });
			exit 0;
		}
		elsif ($type eq 'S' && $database =~ /^changing/)
		{
			syswrite $client, changing($sent{P}, $sent{B});
			%sent = ();
		}
		elsif ($type eq 'Q' || $type eq 'S')
		{
			my ($bytes, $close) = $misdeed{$database}->();

			while (length $bytes)
			{
				my $n = syswrite($client, $bytes) or exit 0;
				substr($bytes, 0, $n) = '';
			}
			exit 0 if $close;
		}
	}
}

my $remote_pid = fork;
die "could not fork: $!" unless defined $remote_pid;
if ($remote_pid == 0)
{
	local $SIG{CHLD} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		next if fork;
		serve($client);
	}
	exit 0;
}

# it would keep the output of a test that dies open
END
{
	kill 'KILL', $remote_pid if $remote_pid;
}

my $good = make_remote();
my $local = make_local();
create_pool($local, 'good', $good);
my $watcher = session($local);
my $worker = worker_pid($watcher);

foreach my $deed (sort keys %misdeed)
{
	create_pool($local, $deed, undef,
		host => '127.0.0.1', port => $port, dbname => $deed,
		sslmode => 'disable', max_size => 4);
	my @sessions = map { session($local) } 1 .. 4;

	my $columns = $declared{$deed} // 'a text';
	$_->send("SELECT * FROM dbpool_query('$deed', 'SELECT 1') AS t($columns)") foreach @sessions;
	foreach my $session (@sessions)
	{
		my $answer = $session->wait;

		like($answer->{state}, $state{$deed} ? qr/^$state{$deed}$/ : qr/^(08...|42804|54011)$/,
			"$deed: the session is told");
		is($session->value("SELECT a FROM dbpool_query('good', 'SELECT 42') AS t(a int)"),
			'42', "$deed: another pool works");
	}
	is($watcher->value('SELECT count(*) FROM dbpool_requests'), '0', "$deed: no request is left");
	is(worker_pid($watcher), $worker, "$deed: the worker lives");
}

# Values in binary are looked at with their types in mind. The second run is the
# first that is prepared, so the third asks for binary.
foreach my $database ('changing', 'changing_floats')
{
	create_pool($local, $database, undef,
		host => '127.0.0.1', port => $port, dbname => $database,
		sslmode => 'disable', max_size => 1, prepare_threshold => 1);
}
sub run_changing
{
	my $answer =
	  $watcher->query("SELECT a FROM dbpool_query('$_[0]', 'SELECT 1') AS t(a int)");

	return $answer->{state} || $answer->{out};
}
is(join(' ', map { run_changing('changing') } 1 .. 5),
	'4 4 42804 4 42804', 'changing: no value is taken for one of another type');
is(join(' ', map { run_changing('changing_floats') } 1 .. 5),
	'4 4 4 4 4', 'changing: without integer datetimes nothing is asked for in binary');
is(worker_pid($watcher), $worker, 'changing: the worker lives');

# What it says while it lets nobody in is text of ours, wherever it is kept.
create_pool($local, 'babel', undef,
	host => '127.0.0.1', port => $port, dbname => 'babel', sslmode => 'disable');
$watcher->value(q{SELECT dbpool_add_migration('babel', 1, 'one', 'SELECT 1')});
$watcher->value('CREATE TABLE babel (who text, what text)');
$watcher->value(sprintf q{
	DO $$
	DECLARE
	  detail text;
	BEGIN
	  PERFORM %s;
	EXCEPTION WHEN OTHERS THEN
	  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	  INSERT INTO babel VALUES ('%s', SQLERRM || ' ' || detail);
	END $$}, @$_)
  foreach [ q{dbpool_ping('babel')}, 'ping' ], [ q{count(*) FROM dbpool_migrate('babel')}, 'migrate' ],
  [ q{count(*) FROM dbpool_migration_status('babel')}, 'status' ];
$watcher->value('SET client_min_messages = error');
$watcher->value(q{INSERT INTO babel SELECT 'all', m::text FROM dbpool_migrate_all('{babel}') m});
$watcher->value(q{INSERT INTO babel SELECT 'view', connect_error FROM dbpool_pools WHERE pool = 'babel'});
$watcher->value(q{INSERT INTO babel SELECT 'history', h::text FROM dbpool_migration_history h WHERE pool = 'babel'});
is( $watcher->value(
		# a conversion looks at each byte
		q{SELECT string_agg(who, ' ' ORDER BY who) FROM babel WHERE convert_to(what, 'LATIN1') IS NOT NULL AND (what LIKE '%caf%' OR who = 'all')}),
	'all migrate ping status view', 'babel: no text in another encoding');

# The first run is alone, the second shares: it is told what the remote said last.
foreach my $database (sort keys %last_words)
{
	create_pool($local, $database, undef,
		host => '127.0.0.1', port => $port, dbname => $database,
		sslmode => 'disable', max_size => 1);
	is($watcher->value("SELECT dbpool_query('$database', 'SELECT 1')"),
		'(x)', "$database: the first one is answered");
	my $answer = $watcher->query("SELECT dbpool_query('$database', 'SELECT 1')");
	my ($state, $why) =
	  $database eq 'dies_after_error'
	  ? ('22012', qr/division by zero/)
	  : ('08007', qr/The remote server said: FATAL: the machine is on fire \(SQLSTATE 57P01\)/);
	is($answer->{state}, $state, "$database: SQLSTATE");
	like($answer->{err}, $why, "$database: it is told why");
}

# One that hangs up as soon as it is greeted is not called without end.
create_pool($local, 'bye', undef,
	host => '127.0.0.1', port => $port, dbname => 'bye',
	sslmode => 'disable', min_size => 2, max_size => 4);

$watcher->send("SELECT dbpool_ping('bye')");
like($watcher->wait->{state}, qr/^08/, 'bye: the session is told');
wait_until(
	'it was tried a few times',
	sub {
		$watcher->value("SELECT connects >= 3 FROM dbpool_stat_pools WHERE pool = 'bye'") eq 't';
	});
my $before = $watcher->value("SELECT connects FROM dbpool_stat_pools WHERE pool = 'bye'");
$watcher->value("SELECT pg_sleep(2)");
my $after = $watcher->value("SELECT connects FROM dbpool_stat_pools WHERE pool = 'bye'");
cmp_ok($after - $before, '<', 20, 'bye: it is not tried all the time');
is(worker_pid($watcher), $worker, 'bye: the worker lives');

kill 'KILL', $remote_pid;
waitpid $remote_pid, 0;
done_testing();
