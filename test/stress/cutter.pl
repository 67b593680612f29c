#!/usr/bin/perl
#
# cutter.pl SOCKET FLAG: passes connections on to a server's socket. It prints
# the TCP port where it listens, and ends with its standard input.
#
# What passes is torn into pieces at random. While there is a file FLAG,
# connections are cut: a part of a request goes on, or the answer to one that
# has run gets lost.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();

my ($path, $flag) = @ARGV;

my $listener = IO::Socket::INET->new(
	LocalAddr => '127.0.0.1',
	Proto => 'tcp',
	Listen => 128) or die "could not listen: $!";

$SIG{CHLD} = 'IGNORE';
$SIG{PIPE} = 'IGNORE';
$| = 1;
print $listener->sockport, "\n";

my $inputs = IO::Select->new($listener, \*STDIN);
while (1)
{
	foreach my $ready ($inputs->can_read)
	{
		exit if $ready != $listener;
		my $client = $listener->accept or next;
		my $pid = fork;
		die "could not fork: $!" unless defined $pid;
		serve($client) if $pid == 0;
	}
}

# One connection; never returns. A process for each direction, so that neither
# has to wait for the other.
sub serve
{
	my ($client) = @_;
	my $server = IO::Socket::UNIX->new($path) or POSIX::_exit(1);
	my $pid = fork;

	POSIX::_exit(1) unless defined $pid;
	srand;
	$pid ? carry($client, $server, 0.5) : carry($server, $client, 0);
	$_->shutdown(2) foreach $client, $server;
	POSIX::_exit(0);
}

# Pass on what comes until there is no more, or the connection is cut. Then a
# part of what came last may still go on.
sub carry
{
	my ($from, $to, $part) = @_;
	my $inputs = IO::Select->new($from, \*STDIN);

	while (!grep { $_ == \*STDIN } $inputs->can_read)
	{
		sysread($from, my $bytes, 1 + rand 65536) or return;
		if (rand() < 0.03 && -e $flag)
		{
			pass($to, substr($bytes, 0, rand length $bytes)) if rand() < $part;
			return;
		}
		pass($to, $bytes) or return;
	}
	return;
}

sub pass
{
	my ($to, $bytes) = @_;

	while (length $bytes)
	{
		my $n = syswrite($to, $bytes) or return 0;
		substr($bytes, 0, $n) = '';
	}
	return 1;
}
