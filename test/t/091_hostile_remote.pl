
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
	bad_encoding => sub {
		message('T', pack('n', 1) . "a\0" . pack('N n N n N n', 0, 0, 25, 65535, 0xffffffff, 0))
		  . message('D', pack('n N', 1, 2) . "\xff\xfe")
		  . message('C', "SELECT 1\0") . $ready;
	});

# Speak with one client.
sub serve
{
	my ($client) = @_;
	my $startup = read_exactly($client, unpack('N', read_exactly($client, 4)) - 4);
	my ($database) = $startup =~ /database\0([^\0]*)/;

	syswrite $client,
	  message('R', pack('N', 0))
	  . message('S', "server_version\0" . "15.0\0")
	  . message('S', "client_encoding\0UTF8\0")
	  . message('K', pack('NN', 1, 2))
	  . $ready;
	while (1)
	{
		my $type = read_exactly($client, 1);
		my $body = read_exactly($client, unpack('N', read_exactly($client, 4)) - 4);

		exit 0 if $type eq 'X';
		if ($type eq 'Q' && $body =~ /datestyle/)
		{
			syswrite $client, message('C', "SET\0") . $ready;
			exit 0 if $database eq 'bye';
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

	$_->send("SELECT * FROM dbpool_query('$deed', 'SELECT 1') AS t(a text)") foreach @sessions;
	foreach my $session (@sessions)
	{
		my $answer = $session->wait;

		like($answer->{state}, qr/^(08...|22021|42804|54011)$/, "$deed: the session is told");
		is($session->value("SELECT a FROM dbpool_query('good', 'SELECT 42') AS t(a int)"),
			'42', "$deed: another pool works");
	}
	is($watcher->value('SELECT count(*) FROM dbpool_requests'), '0', "$deed: no request is left");
	is(worker_pid($watcher), $worker, "$deed: the worker lives");
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
