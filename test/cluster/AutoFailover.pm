
# pg_auto_failover: a monitor and two nodes, with all settings as they come.

package AutoFailover;

use strict;
use warnings;

use parent -norequire, 'Cluster';
use Cluster;
use DbpoolTest;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);

sub start
{
	my ($self) = @_;
	my $monitor = $self->{monitor} = $self->make_node('monitor');

	mkdir "$self->{dir}/run";
	$self->{pgctl} = "$ENV{CLUSTER_BINDIR}/pg_ctl";
	@{$monitor}{qw(user dbname)} = ('autoctl_node', 'pg_auto_failover');
	$self->run('monitor', 'pg_autoctl', 'create', 'monitor', '--pgdata', $monitor->{data}, '--pgport', $monitor->port,
		'--pgctl', $self->{pgctl}, '--hostname', '127.0.0.1', '--auth', 'trust', '--no-ssl');
	$self->use_folder($monitor);
	$self->start_node($monitor);
	wait_until('the monitor answers', sub { sleep 0.5; return $self->ask($monitor, 'SELECT 1') eq '1' });
	foreach my $node ($self->nodes)
	{
		$self->run($node->name, 'pg_autoctl', 'create', 'postgres', '--pgdata', $node->{data}, '--pgport', $node->port,
			'--pgctl', $self->{pgctl}, '--pghost', $node->{dir}, '--hostname', '127.0.0.1', '--name', $node->name, '--username', 'postgres',
			'--monitor', "postgres://autoctl_node\@127.0.0.1:" . $monitor->port . '/pg_auto_failover', '--auth', 'trust', '--no-ssl');
		$self->use_folder($node);
		$self->start_node($node);
		sleep 5;
	}
	$self->wait_until_ready;
	return;
}

# Only those who may write to the system's folder of sockets could start a server that uses it.
sub use_folder
{
	my ($self, $node) = @_;

	append_to_file("$node->{data}/postgresql.conf",
		"unix_socket_directories = '$node->{dir}'\nshared_buffers = 64MB\ntrack_commit_timestamp = on\nlog_line_prefix = '%m [%p] %q%a '\n");
	return;
}

sub start_node
{
	my ($self, $node) = @_;

	$self->background($node->{dir}, $node->name, 'pg_autoctl', 'run', '--pgdata', $node->{data});
	return;
}

sub is_ready
{
	my ($self) = @_;

	return $self->ask($self->{monitor},
		q{SELECT string_agg(reportedstate::text, ',' ORDER BY reportedstate::text) FROM pgautofailover.node WHERE reportedstate = goalstate})
	  eq 'primary,secondary';
}

sub switchover
{
	my ($self) = @_;

	$self->background($self->{dir}, 'switchover', 'pg_autoctl', 'perform', 'switchover', '--pgdata', $self->{monitor}->{data});
	return;
}

1;
