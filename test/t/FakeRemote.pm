
# FakeRemote: a remote that speaks the protocol as far as a test wants it to.
#
# What it does instead of what is right is a deed, by database name, and for each
# phase of a connection's life: a function that gets the client and returns bytes
# to be sent in place of the proper answer, or undef for nothing, or does the
# sending itself. Without one for a phase, the answer is the proper one.
#
#   my $fake = FakeRemote->start(
#       talker => { idle => sub { $_[0]->flood(notice('x' x 1000)) } },
#       liar => { statement => sub { garbage() } });
#   create_pool($local, 'talker', undef, $fake->options('talker'));
#   ...
#   $fake->stop;
#
# It may also stand in front of a real server and change what that says, by the
# phase startup, which gets what the client has begun with:
#
#   liar => { startup => sub {
#       my ($client, $begin) = @_;
#       $client->relay($remote, $begin, sub { my ($type, $body, $sent) = @_; ...; return $body });
#   } }
#
# Phases: startup (in place of all that follows), auth (up to AuthenticationOk),
# greeting (what comes after it, up to the first ReadyForQuery), settings, early
# (right after the settings), statement, idle (some time after the first
# statement), check, reset, cancel (a connection that asks
# to cancel; the answer is to close it).

package FakeRemote;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();

our @EXPORT = qw(message ready notice error setting rows_begin row tag notification
  authentication);

# A message of the protocol.
sub message
{
	my ($type, $body) = @_;
	return $type . pack('N', length($body) + 4) . $body;
}

sub ready { return message('Z', 'I') }
sub tag { return message('C', "$_[0]\0") }
sub setting { return message('S', "$_[0]\0$_[1]\0") }
sub authentication { return message('R', pack('N', $_[0]) . ($_[1] // '')) }

sub notice { return message('N', "SNOTICE\0VNOTICE\0C00000\0M$_[0]\0\0") }
sub error { return message('E', "SERROR\0VERROR\0CP0001\0M$_[0]\0\0") }
sub notification { return message('A', pack('N', 1) . "channel\0$_[0]\0") }

# The description of rows with columns of type text.
sub rows_begin
{
	my (@names) = @_;

	return message('T',
		pack('n', scalar @names) . join('', map { "$_\0" . pack('N n N n N n', 0, 0, 25, 65535, 0xffffffff, 0) } @names));
}

sub row
{
	my (@values) = @_;
	return message('D', pack('n', scalar @values) . join('', map { pack('N', length $_) . $_ } @values));
}

# Start it, at all addresses of this machine.
sub start
{
	my ($class, %deeds) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '0.0.0.0',
		Proto => 'tcp',
		Listen => 1024) or die "could not listen: $!";
	my $self = bless { port => $listener->sockport }, $class;

	$self->{pid} = fork;
	die "could not fork: $!" unless defined $self->{pid};
	return $self if $self->{pid};

	setpgrp 0, 0;
	local $SIG{CHLD} = 'IGNORE';
	while (my $socket = $listener->accept)
	{
		my $child = fork;

		next if $child;
		close $listener;
		FakeRemote::Client->new($socket, \%deeds)->serve;
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}

sub port { return $_[0]->{port} }

# Options of a pool that leads to a deed, and more of them.
sub options
{
	my ($self, $deed, %options) = @_;

	return (
		host => '127.0.0.1',
		port => $self->{port},
		dbname => $deed,
		sslmode => 'disable',
		%options);
}

sub stop
{
	my ($self) = @_;

	return unless $self->{pid};
	kill 'KILL', -$self->{pid}, $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;

	$self->stop;
	return;
}

# One connection, in a process of its own.
package FakeRemote::Client;

use strict;
use warnings;

use POSIX ();

sub new
{
	my ($class, $socket, $deeds) = @_;

	return bless { socket => $socket, deeds => $deeds }, $class;
}

# Read so many bytes; without the client there is nothing left to do.
sub read_exactly
{
	my ($self, $wanted) = @_;
	my $bytes = '';

	while (length $bytes < $wanted)
	{
		sysread($self->{socket}, $bytes, $wanted - length $bytes, length $bytes)
		  or POSIX::_exit(0);
	}
	return $bytes;
}

# Send all of it.
sub put
{
	my ($self, @pieces) = @_;

	foreach my $bytes (@pieces)
	{
		my $at = 0;

		while ($at < length $bytes)
		{
			my $n = syswrite($self->{socket}, $bytes, 1 << 20, $at);

			POSIX::_exit(0) unless $n;
			$at += $n;
		}
	}
	return;
}

# Send it time and again, for as long as the client is there; a function is asked
# each time.
sub flood
{
	my ($self, $bytes) = @_;

	$self->put(ref $bytes ? $bytes->() : $bytes) while 1;
	return;
}

# Send the head of a message of so many bytes, and then as many.
sub huge
{
	my ($self, $type, $begin, $length) = @_;
	my $piece = 'x' x (1 << 20);

	$self->put($type . pack('N', $length + 4) . $begin);
	$length -= length $begin;
	while ($length > 0)
	{
		$self->put(substr $piece, 0, $length);
		$length -= length $piece;
	}
	return;
}

# Read a message: its type and its body.
sub get
{
	my ($self) = @_;
	my $type = $self->read_exactly(1);

	return ($type, $self->read_exactly(unpack('N', $self->read_exactly(4)) - 4));
}

# Hand everything on to a node, and back. The function is given each message of the
# node, its type and its body, and the last one of the client, and returns the body
# that the client gets, or undef if it gets none.
sub relay
{
	my ($self, $node, $begin, $change) = @_;
	my $there = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  or die "could not connect to the node: $!";
	my $server = bless { socket => $there }, ref $self;
	my $select = IO::Select->new($self->{socket}, $there);
	my $sent = '';

	$server->put(pack('N', 4 + length $begin) . $begin);
	while (1)
	{
		foreach my $ready ($select->can_read)
		{
			if ($ready == $there)
			{
				my ($type, $body) = $server->get;

				$body = $change->($type, $body, $sent);
				$self->put(FakeRemote::message($type, $body)) if defined $body;
			}
			else
			{
				my ($type, $body) = $self->get;

				$sent = $body;
				$server->put(FakeRemote::message($type, $body));
			}
		}
	}
	return;
}

# Do what the deed has for a phase, or what is proper.
sub act
{
	my ($self, $phase, $proper, @more) = @_;
	my $deed = $self->{deed}->{$phase};
	my ($bytes, $close) = $deed ? $deed->($self, @more) : ($proper);

	$self->put($bytes) if defined $bytes;
	POSIX::_exit(0) if $close;
	return;
}

# Speak with the client until one of both has had enough.
sub serve
{
	my ($self) = @_;
	my $startup;

	while (1)
	{
		$startup = $self->read_exactly(unpack('N', $self->read_exactly(4)) - 4);
		my $code = unpack 'N', $startup;

		# CancelRequest; its key says whose it is
		if ($code == 80877102)
		{
			my $n = unpack 'N', substr($startup, 8);

			$self->{deed} = $self->{deeds}->{ (sort keys %{ $self->{deeds} })[ $n - 1 ] };
			$self->act('cancel');
			return;
		}
		last if $code == 196608 || $code == 196610;
		# SSLRequest, GSSENCRequest
		$self->put('N');
	}
	my ($database) = $startup =~ /database\0([^\0]*)/;
	my @names = sort keys %{ $self->{deeds} };
	my ($number) = grep { $names[ $_ - 1 ] eq $database } 1 .. @names;

	$self->{deed} = $self->{deeds}->{$database} // {};
	$self->act('startup', undef, $startup);
	$self->act('auth', FakeRemote::authentication(0));
	$self->act('greeting',
		FakeRemote::setting('server_version', '15.0')
		  . FakeRemote::setting('client_encoding', 'UTF8')
		  . ($self->{deed}->{greets_with} // '')
		  . FakeRemote::message('K', pack('NN', 1, $number // 0))
		  . FakeRemote::ready());
	my %sent;
	while (1)
	{
		my ($type, $body) = $self->get;

		return if $type eq 'X';
		$sent{$type} = $body;
		if ($type eq 'Q' && $body =~ /datestyle/)
		{
			$self->act($body =~ /RESET ALL/ ? 'reset' : 'settings',
				FakeRemote::tag('SET') . FakeRemote::ready());
			$self->act('early', '') unless $body =~ /RESET ALL/;
		}
		elsif ($type eq 'Q' && $body eq "\0")
		{
			$self->act('check', FakeRemote::message('I', '') . FakeRemote::ready());
		}
		elsif ($type eq 'Q' || $type eq 'S')
		{
			$self->act('statement',
				FakeRemote::rows_begin('a') . FakeRemote::row('42') . FakeRemote::tag('SELECT 1') . FakeRemote::ready(),
				\%sent);
			%sent = ();
			if ($self->{deed}->{idle})
			{
				select undef, undef, undef, 0.2;
				$self->act('idle');
			}
		}
	}
	return;
}

1;
