
# The fault proxy (test/tools/proxy.c) itself: each of its faults as libpq and a real
# server see it, at the byte or message that was said; and the same seed makes the same
# faults. PROXY_SEED is the seed of what is by lot.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $remote = make_remote(conf => "listen_addresses = '127.0.0.1'\n");
my $there = session($remote);
my $proxy = FaultProxy->start($remote);

$there->value('CREATE TABLE kept (id text)');

# A new connection through a proxy.
sub connect_through
{
	my ($through) = @_;

	return session($through // $proxy);
}

# What the proxy has of a session.
sub link_of
{
	my ($s) = @_;
	my ($link) = grep { $_->{pid} == $s->pid } $proxy->links;

	return $link // die 'the proxy does not know the process ' . $s->pid;
}

# How many server processes there are besides ours.
sub server_processes
{
	return q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()};
}

# How many rows the remote has of one name.
sub rows_of
{
	my ($id) = @_;

	return $there->value("SELECT count(*) FROM kept WHERE id = '$id'");
}

# The same when all other processes have ended.
sub kept
{
	my ($id) = @_;

	$there->poll(server_processes(), '0');
	return rows_of($id);
}

# All statements of a script by the extended protocol, each with its Sync. Returns what
# pgbench says.
sub run_extended
{
	my ($connstr, $script) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir() . '/extended.sql';
	my ($out, $err) = ('', '');

	append_to_file($path, $script);
	IPC::Run::run([ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-f', $path, $connstr ],
		'>', \$out, '2>', \$err);
	return "$out$err";
}

subtest 'without rules' => sub {
	my $s = connect_through();
	my $digest =
	  q{SELECT md5(string_agg(t, '')), sum(length(t)) FROM (SELECT repeat(i::text, i % 1000) AS t FROM generate_series(1, 20000) i) x};

	is($s->value($digest), $there->value($digest), 'everything passes');
	my $big = $s->value(q{SELECT repeat('x', 10000000)});
	is(length $big, 10000000, 'also much of it');
	$proxy->tell('pieces 7');
	my $text = join ',', 1 .. 20000;
	is($s->value("SELECT md5('$text')"), $there->value("SELECT md5('$text')"), 'and in small pieces');
	$proxy->tell('pieces 0');

	my $before = link_of($s)->{frontend};
	$s->value('SELECT 42');
	my $after = link_of($s)->{frontend};
	is($after->{Q} - $before->{Q}, 1, 'it counts messages by their letter');
	is($after->{messages} - $before->{messages}, 1, 'and all of them');
	is($after->{delivered} - $before->{delivered},
		5 + length("SELECT 42;\0"), 'and bytes');
	$s->quit;
	$there->poll(server_processes(), '0');
	ok(wait_until('no link is left', sub { return !$proxy->links }), 'an end is passed on');
};

subtest 'a command that is none' => sub {
	foreach my $bad (
		'cut', 'on', 'on frontend', 'on frontend byte', 'on frontend message', 'on sideways byte 1 reset',
		'on frontend byte -1 reset', 'on frontend message QQ before reset',
		'on frontend message Q reset', 'on frontend message Q 0 before reset',
		'on frontend message Q chance 2 before reset', 'on frontend message Q before',
		'on after TEXT frontend byte 1 reset', 'on after "TEXT frontend byte 1 reset',
		'now delay', 'now delay 5', 'now reset everybody', 'always', 'resume now', 'pieces 100000000')
	{
		ok(!eval { $proxy->tell($bad); 1 }, "\"$bad\" is refused");
	}
	is(scalar(grep { /^rule/ } $proxy->tell('counters')), 0, 'and nothing comes of them');
	my @command = ("$FindBin::RealBin/../tools/proxy", '127.0.0.1:0', '127.0.0.1:1');
	command_fails([ @command, 'on backend' ], 'nor of one at its start');
};

# --- resets and ends ------------------------------------------------------------

# psql prints what it got of a row only when all is there, so ask it for less: what
# has arrived is seen by how it is cut
foreach my $how ('reset', 'fin')
{
	my $says =
	  $how eq 'fin'
	  ? qr/server closed the connection unexpectedly/
	  : qr/Connection reset by peer|server closed the connection unexpectedly/;

	subtest "$how at a byte" => sub {
		my $s = connect_through();
		my $link = link_of($s);
		my $rule = $proxy->tell("on after \"mark $how\" backend byte 40 $how");

		is($s->value('SELECT 1'), '1', 'others pass');
		my $answer = $s->query("SELECT 'mark $how', repeat('x', 1000)");
		ok($answer->{lost}, 'the client loses its connection');
		like($answer->{err}, $says, 'and sees how');
		is($proxy->fired($rule), 1, 'the rule has fired');
		my ($event) = grep { /mark $how/ } $proxy->events;
		my ($byte) = $event =~ /^link \d+ backend byte (\d+) message \d+ fires/;
		is($byte, $link->{backend}->{delivered} + length_of_select_1() + 40, 'at its byte');
		ok($there->poll(server_processes(), '0'), 'the server knows, too');
		is(connect_through()->value("SELECT 'mark $how'"), "mark $how", 'once in all');
		$proxy->tell('clear');
		$s->reap;
	};
}

# What the server answers to SELECT 1: T, D, C, Z.
sub length_of_select_1
{
	return (7 + length("?column?\0") + 18) + (7 + 4 + 1) + (5 + length("SELECT 1\0")) + 6;
}

subtest 'bytes are counted from where a connection begins' => sub {
	foreach my $byte (0, 1, 8, 20)
	{
		wait_until('nobody is connected', sub { return !$proxy->links });
		my $rule = $proxy->tell("on backend byte $byte reset");
		my ($out, $err) = ('', '');

		isnt(psql_once('SELECT 1', \$out, \$err), 0, "byte $byte of it");
		is($proxy->fired($rule), 1, 'the rule has fired');
		$proxy->tell('clear');
	}
};

# Run a statement by a psql of its own. Returns its status.
sub psql_once
{
	my ($sql, $out, $err, %options) = @_;

	IPC::Run::run([ 'psql', '-XAtq', '-d', $proxy->connstr('postgres', %options), '-c', $sql ],
		'>', $out // \my $o, '2>', $err // \my $e);
	return $? >> 8;
}

# A client that sees what libpq does not tell: a socket, logged in as far as it takes
# without a password.
sub socket_through
{
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->port)
	  or die "could not connect: $!";
	my $user = $there->value('SELECT current_user');
	my $startup = pack('N', 196608) . "user\0$user\0database\0postgres\0\0";
	my $said = '';

	syswrite $socket, pack('N', 4 + length $startup) . $startup;
	until ($said =~ /Z\0\0\0\x05I\z/)
	{
		sysread $socket, $said, 65536, length $said or die 'no log-in';
	}
	return $socket;
}

# All that comes until the end. Returns it, and what the end looks like.
sub read_to_end
{
	my ($socket) = @_;
	my $got = '';

	while (1)
	{
		my $n = sysread $socket, $got, 65536, length $got;

		return ($got, $!{ECONNRESET} ? 'reset' : "$!") unless defined $n;
		return ($got, 'fin') if $n == 0;
	}
}

subtest 'what a socket sees' => sub {
	foreach my $how ('reset', 'fin')
	{
		foreach my $bytes (0, 1, 100)
		{
			my $socket = socket_through();
			my $sql = "SELECT repeat('$how', 1000000)\0";
			my $rule = $proxy->tell("on after \"$how\" backend byte $bytes $how");

			syswrite $socket, 'Q' . pack('N', 4 + length $sql) . $sql;
			wait_until('the rule has fired', sub { return $proxy->fired($rule) });
			my ($got, $end) = read_to_end($socket);

			is(length $got, $bytes, "$bytes bytes");
			is($end, $how, "and $how");
			$proxy->tell('clear');
		}
	}

	# more than fits into the socket's buffer
	my $socket = socket_through();
	my $begin = ($proxy->links)[-1]->{backend}->{delivered};
	my $sql = "SELECT repeat('more', 1000000)\0";
	my $rule = $proxy->tell('on after "more" backend byte 300000 reset');

	syswrite $socket, 'Q' . pack('N', 4 + length $sql) . $sql;
	wait_until('it is on its way',
		sub { my ($link) = reverse $proxy->links; return !$link || $link->{backend}->{delivered} >= $begin + 300000; });
	is($proxy->fired($rule), 0, 'a reset waits until all has arrived');
	my ($got, $end) = read_to_end($socket);
	is(length $got, 300000, 'all that was delivered');
	is($end, 'reset', 'and comes then');
	$proxy->tell('clear');
};

subtest 'before a message reaches the server' => sub {
	my $rule = $proxy->tell('on frontend message S 2 before reset');
	my $said = run_extended($proxy->connstr,
		"INSERT INTO kept VALUES ('first');\nINSERT INTO kept VALUES ('second');\n");

	like($said, qr/aborted|connection/, 'the client loses its connection');
	is($proxy->fired($rule), 1, 'the rule has fired');
	is(kept('first'), '1', 'the first statement has run');
	is(kept('second'), '0', 'the second lacks its Sync');
	$proxy->tell('clear');

	$rule = $proxy->tell('on frontend message S 2 after reset');
	run_extended($proxy->connstr,
		"INSERT INTO kept VALUES ('third');\nINSERT INTO kept VALUES ('fourth');\n");
	is(kept('third') . kept('fourth'), '11', 'after it, it is there');
	$proxy->tell('clear');
};

subtest 'around the answer to COMMIT' => sub {
	foreach my $where ('before', 'after')
	{
		my $s = connect_through();
		my $rule = $proxy->tell("on backend message C \"COMMIT\" $where fin");

		$s->value('BEGIN');
		$s->value("INSERT INTO kept VALUES ('COMMIT $where')");
		my $answer = $s->query('COMMIT');
		ok($answer->{lost}, "$where it the connection is cut");
		is($proxy->fired($rule), 1, 'by its rule');
		is(kept("COMMIT $where"), '1', 'what was committed is there');
		$proxy->tell('clear');
		$s->reap;
	}
};

subtest 'inside of a message' => sub {
	my $rule = $proxy->tell(q{on frontend message Q "kept in part" inside 20 reset});
	my $s = connect_through();
	my $begin = link_of($s)->{frontend}->{delivered};

	# it has to know what the message is before any of it goes on
	$proxy->tell('pieces 3');
	ok($s->query(q{INSERT INTO kept VALUES ('kept in part')})->{lost}, 'it is cut');
	is(kept('kept in part'), '0', 'what has come in part does not run');
	my ($event) = grep { /kept in part/ } $proxy->events;
	my ($byte) = $event =~ /byte (\d+)/;
	is($byte, $begin + 20, 'at its byte');
	$proxy->tell('clear');
	$proxy->tell('pieces 0');
	$s->reap;
};

# By TCP on both sides, where there is an RST.
subtest 'one side alone' => sub {
	my $tcp = FaultProxy->start($remote, tcp => 1, name => 'proxy_by_tcp');
	my $s = connect_through($tcp);

	$tcp->tell('now reset client');
	ok($s->query('SELECT 1')->{lost}, 'the client has lost its connection');
	is($there->value('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $s->pid), '1', 'the server does not know');
	$s->reap;
	$there->value('SELECT pg_terminate_backend(' . $s->pid . ')');
	ok(wait_until('the link has gone', sub { return !$tcp->links }), 'until its process ends');

	$s = connect_through($tcp);
	$tcp->tell('now reset server');
	ok($there->poll(server_processes(), '0'), 'the server has lost its connection');
	$s->send('SELECT 1');
	ok(!$s->is_done, 'the client hears nothing');
	$s->kill;
	ok(wait_until('the link has gone', sub { return !$tcp->links }), 'until it goes');

	$s = connect_through($tcp);
	$s->value('BEGIN');
	$s->value(q{INSERT INTO kept VALUES ('fin')});
	$tcp->tell('on frontend message Q "COMMIT" after fin server');
	$s->send('COMMIT');
	my $answer = $s->wait;
	is($answer->{err}, '', 'the server answers what was there before the end');
	ok($s->query('SELECT 1')->{lost}, 'and goes');
	is(kept('fin'), '1', 'what was sent has run');
	$s->reap;
	$tcp->stop;
};

# --- silence ----------------------------------------------------------------------

subtest 'the rest is dropped' => sub {
	my $s = connect_through();
	my $rule = $proxy->tell('on after "dropped" frontend message Q after drop client');

	$s->send(q{INSERT INTO kept VALUES ('dropped')});
	ok($there->poll(q{SELECT count(*) FROM kept WHERE id = 'dropped'}, '1'), 'the statement runs');
	ok(!$s->is_done, 'the client hears nothing');
	$there->value('SELECT pg_terminate_backend(' . $s->pid . ')');
	$there->poll(server_processes(), '0');
	ok(!$s->is_done, 'not even of the end');
	$s->kill;
	$proxy->tell('clear');

	$s = connect_through();
	$proxy->tell(q{on frontend message Q "no more" before drop});
	$s->send(q{INSERT INTO kept VALUES ('no more')});
	wait_until('the rule has fired', sub { return $proxy->fired(1) });
	is($there->value('SELECT state FROM pg_stat_activity WHERE pid = ' . $s->pid), 'idle', 'the server hears nothing');
	is(rows_of('no more'), '0', 'and runs nothing');
	ok(!$s->is_done, 'the client waits');
	$s->kill;
	$there->value('SELECT pg_terminate_backend(' . $s->pid . ')');
	$proxy->tell('clear');
};

subtest 'stalls' => sub {
	my $s = connect_through();

	$proxy->tell('on after "for a time" backend byte 5 stall 300ms');
	my $answer = $s->query(q{SELECT 'for a time'});
	is($answer->{out}, 'for a time', 'after a stall all comes');
	cmp_ok($answer->{seconds}, '>=', 0.3, 'so much later');
	$proxy->tell('clear');

	# of all links, until the end of it
	my $other = connect_through();
	$proxy->tell('always stall');
	$s->send(q{INSERT INTO kept VALUES ('stalled'); SELECT 'through'});
	my $late = connect_through_slowly();
	$other->send('SELECT 42');
	wait_until('the proxy has it', sub {
		my $link = link_of($s);
		return $link->{frontend}->{read} > $link->{frontend}->{delivered};
	});
	wait_until('somebody more has come', sub { return $proxy->links == 3 });
	is(rows_of('stalled'), '0', 'nothing arrives');
	ok(!$s->is_done, 'nor an answer');
	$proxy->tell('resume');
	is($s->wait->{out}, 'through', 'then it does');
	is($other->wait->{out}, '42', 'for all');
	ok($late->(), 'also for those who have come meanwhile');
	is(rows_of('stalled'), '1', 'once');

	# of one link
	$proxy->tell('now link ' . link_of($s)->{number} . ' stall client');
	$s->send(q{INSERT INTO kept VALUES ('unheard')});
	is($other->value('SELECT 43'), '43', 'others go on');
	ok($there->poll(q{SELECT count(*) FROM kept WHERE id = 'unheard'}, '1'), 'one direction goes on');
	ok(!$s->is_done, 'the other does not');
	$proxy->tell('resume');
	is($s->wait->{err}, '', 'until the end of it');
	$_->quit foreach $s, $other;
};

# A psql that connects in the background. Returns what waits for its status.
sub connect_through_slowly
{
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $proxy->connstr, '-c', 'SELECT 1' ],
		'>', \my $out, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	return sub { return $run->finish };
}

subtest 'a stalled link is bounded' => sub {
	my $s = connect_through();

	$proxy->tell('now stall client');
	$s->send(q{SELECT length(repeat('x', 1000)), repeat('x', 20000000)});
	my $read = -1;
	wait_until('no more is read', sub {
		my $now = link_of($s)->{backend}->{read};
		my $same = $now == $read;
		$read = $now;
		return $same && $read > 1000000;
	});
	cmp_ok($read, '<', 6000000, 'it does not take all of it');
	$proxy->tell('resume');
	is(length $s->wait->{out}, 20000005, 'which comes afterwards');
	$s->quit;
};

subtest 'delay' => sub {
	my $s = connect_through();
	my $t = time;

	$s->value('SELECT 1') foreach 1 .. 5;
	my $before = time - $t;
	$proxy->tell('now delay 20ms');
	$t = time;
	$s->value('SELECT 1') foreach 1 .. 5;
	cmp_ok(time - $t, '>=', 0.2, 'each direction takes so much longer');
	$proxy->tell('now delay 20ms server');
	$proxy->tell('now delay 0ms client');
	$t = time;
	$s->value('SELECT 1') foreach 1 .. 5;
	cmp_ok(time - $t, '>=', 0.1, 'or one alone');
	$proxy->tell('resume');
	$s->quit;
};

# --- before a session begins --------------------------------------------------------

subtest 'log-in, encryption, cancel' => sub {
	my ($out, $err);

	$proxy->tell('on frontend message startup after reset');
	isnt(psql_once('SELECT 1', \$out, \$err), 0, 'cut after the start-up packet');
	$proxy->tell('clear');
	is(psql_once('SELECT 1'), 0, 'and no more');

	my $ssl = $proxy->tell('on frontend message ssl before fin');
	is(psql_once('SELECT 1'), 0, 'who does not ask for encryption is not cut');
	isnt(psql_once('SELECT 1', undef, undef, sslmode => 'require'), 0, 'who does is');
	is($proxy->fired($ssl), 1, 'by the rule');
	$proxy->tell('clear');
	my $answer = $proxy->tell('on backend message answer after fin');
	isnt(psql_once('SELECT 1', undef, undef, sslmode => 'prefer'), 0, 'or after the answer');
	is($proxy->fired($answer), 1, 'by the rule');
	$proxy->tell('clear');
	is(psql_once('SELECT 1', undef, undef, sslmode => 'prefer', gssencmode => 'prefer'), 0, 'else it goes on in clear');

	my $s = connect_through();
	my $cancel = $proxy->tell('on frontend message cancel before reset');
	$s->send('SELECT pg_sleep(60)');
	$there->poll(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, '1');
	kill 'INT', $s->client_pid;
	wait_until('the cancel has come', sub { return $proxy->fired($cancel) });
	is($there->value(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}), '1', 'a cancel that is cut does not arrive');
	$there->value('SELECT pg_cancel_backend(' . $s->pid . ')');
	is($s->wait->{state}, '57014', 'there are other ways');
	$proxy->tell('clear');
	$s->quit;
};

# --- by lot ---------------------------------------------------------------------------

# Serial connections through a proxy of its own, which meet faults by lot. Returns the
# events, and what each of them has come to.
sub run_by_lot
{
	my ($seed) = @_;
	my $by_lot = FaultProxy->start($remote,
		seed => $seed,
		name => 'proxy_by_lot',
		commands => [
			'on each backend message any chance 0.02 anywhere reset',
			'on each frontend message Q chance 0.1 before fin',
			'on each backend message D chance 0.2 after stall 5ms' ]);
	my @came;

	foreach my $n (1 .. 25)
	{
		my ($out, $err) = ('', '');

		IPC::Run::run(
			[ 'psql', '-XAtq', '-d', $by_lot->connstr, map { ('-c', "SELECT $_") } 1 .. 4 ],
			'>', \$out, '2>', \$err);
		push @came, "$? " . $out =~ s/\n/,/gr;
	}
	my @events = $by_lot->events;
	$by_lot->stop;
	return (\@events, \@came);
}

subtest 'the same seed makes the same faults' => sub {
	my $seed = $proxy->seed;
	my ($events, $came) = run_by_lot($seed);
	my ($events_again, $came_again) = run_by_lot($seed);
	my ($events_else) = run_by_lot($seed + 1);

	cmp_ok(scalar @{$events}, '>', 10, 'there are faults');
	is(scalar(keys %{ { map { /fires: (.*)/ => 1 } @{$events} } }), 3, 'of all rules');
	is_deeply($events_again, $events, 'the same at the same bytes');
	is_deeply($came_again, $came, 'the same comes of them');
	isnt("@{$events_else}", "@{$events}", 'another seed makes others');
};

subtest 'a remote that is not there' => sub {
	$there->quit;
	$remote->stop;
	isnt(psql_once('SELECT 1', undef, \my $err), 0, 'nobody connects');
	$remote->start;
	is(psql_once('SELECT 1'), 0, 'when it is back everything works');
};

$proxy->stop;
done_testing();
