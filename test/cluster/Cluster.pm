
# Cluster: what the ways of high availability have in common. Two data nodes, and the
# processes around them, all of them below one folder, in which each is started; so whoever
# has it as its working directory is one of them, whatever has started it.
#
#   my $cluster = Patroni->new($dir, $bindir);
#   $cluster->start;                 # returns when one node follows the other synchronously
#   my $primary = $cluster->primary; # a node: name, port, connstr()
#   $cluster->switchover;            # returns at once
#   $cluster->kill_node($primary);   # kill -9 of all that belongs to a node
#   $cluster->start_node($primary);
#   $cluster->wait_until_ready;
#   $cluster->stop;

package Cluster;

use strict;
use warnings;

use Cwd ();
use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

my @clusters;

sub new
{
	my ($class, $dir) = @_;

	mkdir $dir or die "could not make $dir: $!";
	my $self = bless { dir => Cwd::realpath($dir), sessions => {} }, $class;
	$self->{nodes} = [ map { $self->make_node($_) } 'node1', 'node2' ];
	push @clusters, $self;
	return $self;
}

sub make_node
{
	my ($self, $name) = @_;
	my $dir = "$self->{dir}/$name";

	mkdir $dir or die "could not make $dir: $!";
	return bless { name => $name, dir => $dir, data => "$dir/data", port => free_port(), user => 'postgres' },
	  'Cluster::Node';
}

sub free_port { return PostgreSQL::Test::Cluster::get_free_port(); }

sub nodes { return @{ $_[0]->{nodes} }; }

# libpq's variables are those of the local server, of which nobody here is to know.
sub environment
{
	my ($self) = @_;

	delete $ENV{$_} foreach grep { /^PG[A-Z]/ } keys %ENV;
	$ENV{HOME} = $self->{dir};
	$ENV{$_} = "$self->{dir}/run" foreach qw(XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR);
	return;
}

# Start a process in a folder below the cluster's, with its output in a log there. It is the
# first of a session of its own, and ends with this one, whatever ends that.
sub background
{
	my ($self, $dir, $log, @command) = @_;
	my $pid = fork;

	die "could not fork: $!" unless defined $pid;
	return $pid if $pid;
	$self->environment;
	chdir $dir or die;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', "$self->{dir}/$log.log" or die;
	open STDERR, '>&', \*STDOUT;
	exec 'setsid', 'setpriv', '--pdeathsig=KILL', @command;
	die "could not run $command[0]: $!";
}

# Run a command to its end, and return what it prints.
sub run
{
	my ($self, $log, @command) = @_;
	my $file = "$self->{dir}/$log.log";
	my $from = -s $file || 0;
	my $pid = $self->background($self->{dir}, $log, 'timeout', '180', @command);

	waitpid $pid, 0;
	my $status = $?;
	my $out = substr slurp_file($file), $from;
	die "failed: @command\n$out" if $status;
	return $out;
}

# The processes at work in a folder.
sub processes
{
	my ($dir) = @_;
	my @pids;

	foreach my $proc (glob '/proc/[0-9]*')
	{
		my $cwd = readlink "$proc/cwd";

		push @pids, $proc =~ s{.*/}{}r if defined $cwd && "$cwd/" =~ /^\Q$dir\E\//;
	}
	return @pids;
}

# kill -9 of all of them, until there is none.
sub kill_processes
{
	my ($dir) = @_;
	my $tries = 0;

	while (my @pids = grep { !is_dead($_) } processes($dir))
	{
		kill 'KILL', @pids;
		die "processes of $dir do not end: @pids" if ++$tries > 500;
		sleep 0.01;
	}
	1 while waitpid(-1, 1) > 0;    # WNOHANG
	return;
}

sub is_dead
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return 1;
	return <$file> =~ /\) [ZX] / ? 1 : 0;
}

# All processes of a node at once, of which none can say a word any more, as when its machine is gone.
sub kill_node
{
	my ($self, $node) = @_;

	kill_processes($node->{dir});
	return;
}

# A session at a node, which is opened anew when it was lost.
sub ask
{
	my ($self, $node, $sql) = @_;
	my $sessions = $self->{sessions};

	foreach my $try (1 .. 2)
	{
		my $session = $sessions->{ $node->{name} } ||=
		  session($node, user => $node->{user}, dbname => $node->{dbname}, no_wait => 1);
		my $answer = $session->query($sql);

		return $answer->{out} unless $answer->{lost} || $answer->{state};
		delete($sessions->{ $node->{name} })->kill;
	}
	return '';
}

# pg_auto_failover promotes a node first, and lets it write when the old primary surely does not any more.
sub takes_writes
{
	my ($self, $node) = @_;

	return $self->ask($node, q{SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'}) eq 't';
}

# The node that takes writes, or undef.
sub primary
{
	my ($self) = @_;
	my @found = grep { $self->takes_writes($_) } $self->nodes;

	return @found == 1 ? $found[0] : undef;
}

sub other
{
	my ($self, $node) = @_;

	return (grep { $_ != $node } $self->nodes)[0];
}

# Wait until one node is a primary, the other one its synchronous standby, and the
# tool thinks so, too.
sub wait_until_ready
{
	my ($self) = @_;

	wait_until(
		'both nodes are well',
		sub {
			sleep 0.3;
			my $primary = $self->primary or return 0;
			return $self->ask($primary,
				q{SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming'}) eq '1'
			  && $self->is_ready;
		});
	return;
}

sub stop
{
	my ($self) = @_;

	$_->kill foreach values %{ $self->{sessions} };
	$self->{sessions} = {};
	kill_processes($self->{dir});
	return;
}

END
{
	local $?;
	$_->stop foreach @clusters;
}

package Cluster::Node;

use strict;
use warnings;

sub name { return $_[0]->{name}; }
sub port { return $_[0]->{port}; }

sub connstr
{
	my ($self, $dbname) = @_;

	return "host=127.0.0.1 port=$self->{port} dbname=$dbname connect_timeout=5";
}

1;
