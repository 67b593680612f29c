
# FaultProxy: test/tools/proxy between dbpool, or psql, and a node.
#
#   my $proxy = FaultProxy->start($remote);
#   create_pool($local, 'p', undef, $proxy->options);
#   my $rule = $proxy->tell('on after "INSERT" backend byte 10 reset');
#   ...
#   $proxy->fired($rule);      # how often
#   $proxy->stop;
#
# The commands are told in the head of test/tools/proxy.c. Parameters of start():
#
#   commands  a list, of which the proxy knows before it takes a connection
#   seed      of what is by lot; PROXY_SEED or one by chance if not said
#   tcp       1: to the node by TCP, which has to listen at 127.0.0.1
#   name      of the log, beside those of the servers
#
# A test that has failed shows the seed. With the same one, the same connections in
# the same order meet the same faults.

package FaultProxy;

use strict;
use warnings;

use File::Basename;
use FindBin;
use IPC::Open3 ();
use PostgreSQL::Test::Utils;
use Test::More;

my $started = 0;

sub start
{
	my ($class, $node, %params) = @_;
	my $name = join '_', basename($0, '.pl'), $params{name} // 'proxy', ++$started;
	my $seed = $params{seed} // $ENV{PROXY_SEED} // int rand 1e9;
	my $self = bless {
		seed => $seed,
		log => "$PostgreSQL::Test::Utils::log_path/$name.log"
	}, $class;

	open my $log, '>', $self->{log} or die "could not open $self->{log}: $!";
	$self->{pid} = IPC::Open3::open3(
		$self->{in}, $self->{out},
		'>&' . fileno $log,
		"$FindBin::RealBin/../tools/proxy", '-i',
		'127.0.0.1:0',
		$params{tcp} ? '127.0.0.1:' . $node->port : $node->host . '/.s.PGSQL.' . $node->port,
		"seed $seed", @{ $params{commands} // [] });
	($self->{port}) = ($self->hear // '') =~ /^port (\d+)$/
	  or die "the proxy does not start: " . slurp_file($self->{log});
	return $self;
}

sub port { return $_[0]->{port} }

sub seed { return $_[0]->{seed} }

# Options of a pool that leads through it, and more of them.
sub options
{
	my ($self, %options) = @_;

	return (
		host => '127.0.0.1',
		port => $self->{port},
		dbname => 'postgres',
		sslmode => 'disable',
		gssencmode => 'disable',
		%options);
}

# The same for psql; as with a node, so that session($proxy) leads through it.
sub connstr
{
	my ($self, $dbname, %options) = @_;
	my %all = $self->options(dbname => $dbname // 'postgres', %options);

	return join ' ', map { "$_='$all{$_}'" } sort keys %all;
}

sub hear
{
	my ($self) = @_;
	my $line = readline $self->{out};

	chomp $line if defined $line;
	return $line;
}

# Give it a command and wait until it is done. Returns what it says: the number of a
# rule, or lines. Dies when it does not understand.
sub tell
{
	my ($self, $command) = @_;
	my @said;

	print { $self->{in} } "$command\n" or die "the proxy has gone: $!";
	$self->{in}->flush;
	while (1)
	{
		my $line = $self->hear // die "the proxy has gone";

		last if $line eq 'ok';
		die "the proxy does not understand: $command\n$line" if $line =~ /^error: /;
		push @said, $line;
	}
	return @said == 1 && $said[0] =~ /^rule (\d+)$/ ? $1 : @said;
}

# How often a rule has fired.
sub fired
{
	my ($self, $rule) = @_;
	my ($fired) = map { /^rule $rule fired (\d+):/ ? $1 : () } $self->tell('counters');

	return $fired;
}

# Its open links, the newest last: number, pid of the server process, and for frontend and
# backend: read, delivered, messages, and the number of those of each kind.
sub links
{
	my ($self) = @_;
	my @links;

	foreach my $line ($self->tell('counters'))
	{
		my ($number, $pid, $rest) = $line =~ /^link (\d+) to process (\d+), (.*)$/ or next;
		my %link = (number => $number, pid => $pid);

		foreach my $flow (split /, /, $rest)
		{
			my ($which, $read, $delivered, $messages, $kinds) =
			  $flow =~ /^(\w+) read (\d+) delivered (\d+) messages (\d+)(.*)$/;

			$link{$which} = {
				read => $read,
				delivered => $delivered,
				messages => $messages,
				map { /^(.+):(\d+)$/ } split ' ', $kinds };
		}
		push @links, \%link;
	}
	return @links;
}

# What its rules have done so far, without the times.
sub events
{
	my ($self) = @_;

	return map { s/^[0-9.]+ //r } grep { / fires: / } split /\n/, slurp_file($self->{log});
}

sub stop
{
	my ($self) = @_;

	return unless $self->{pid};
	close $self->{in};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	diag("PROXY_SEED=$self->{seed}; its events: $self->{log}")
	  unless ${^GLOBAL_PHASE} eq 'DESTRUCT' || Test::More->builder->is_passing;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;

	$self->stop;
	return;
}

1;
