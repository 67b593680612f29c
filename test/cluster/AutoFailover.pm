
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
	$self->{pgctl} = $self->make_programs;
	@{$monitor}{qw(user dbname)} = ('autoctl_node', 'pg_auto_failover');
	$self->run('monitor', at_folder($monitor), 'pg_autoctl', 'create', 'monitor', '--pgdata', $monitor->{data}, '--pgport', $monitor->port,
		'--pgctl', $self->{pgctl}, '--hostname', '127.0.0.1', '--auth', 'trust', '--no-ssl');
	add_settings($monitor);
	$self->start_node($monitor);
	wait_until('the monitor answers', sub { sleep 0.5; return $self->ask($monitor, 'SELECT 1') eq '1' });
	foreach my $node ($self->nodes)
	{
		$self->run($node->name, at_folder($node), 'pg_autoctl', 'create', 'postgres', '--pgdata', $node->{data}, '--pgport', $node->port,
			'--pgctl', $self->{pgctl}, '--pghost', $node->{dir}, '--hostname', '127.0.0.1', '--name', $node->name, '--username', 'postgres',
			'--monitor', "postgres://autoctl_node\@127.0.0.1:" . $monitor->port . '/pg_auto_failover', '--auth', 'trust', '--no-ssl');
		add_settings($node);
		$self->start_node($node);
		sleep 5;
	}
	$self->wait_until_ready;
	return;
}

# Programs as pg_autoctl is to find them: a server that is to listen everywhere listens at loopback (one
# that is not to listen does not), and has its socket beside its data, as only some may write to the
# system's folder.
sub make_programs
{
	my ($self) = @_;
	my $from = $ENV{CLUSTER_BINDIR};
	my $to = "$self->{dir}/bin";

	mkdir $to or die "could not make $to: $!";
	symlink $_, $to . s{.*/}{/}r foreach grep { !m{/(postgres|pg_ctl)$} } glob "$from/*";
	append_to_file("$to/pg_ctl", qq{#!/bin/sh\nexec $from/pg_ctl "\$@"\n});
	append_to_file("$to/postgres", <<"SH");
#!/bin/sh
[ "\$1" != -D ] || set -- "\$@" -c unix_socket_directories="\${2%/data}"
case "\$*" in *"-h * "*) set -- "\$@" -c listen_addresses=127.0.0.1 ;; esac
exec $from/postgres "\$@"
SH
	chmod 0755, "$to/pg_ctl", "$to/postgres";
	return "$to/pg_ctl";
}

# By libpq's variable pg_autoctl finds its own server.
sub at_folder
{
	my ($node) = @_;

	return ('env', "PGHOST=$node->{dir}");
}

# What pg_autoctl has found out about the machine's memory is not meant for three on it.
sub add_settings
{
	my ($node) = @_;

	append_to_file("$node->{data}/postgresql.conf",
		"shared_buffers = 64MB\ntrack_commit_timestamp = on\nlog_line_prefix = '%m [%p] %q%a '\n");
	return;
}

sub start_node
{
	my ($self, $node) = @_;

	$self->background($node->{dir}, $node->name, at_folder($node), 'pg_autoctl', 'run', '--pgdata', $node->{data});
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
