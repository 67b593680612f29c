
# Patroni: two nodes of it, etcd, and haproxy in front, which asks Patroni who is the primary.
# Patroni's times are its defaults, haproxy's those of Patroni's own example.

package Patroni;

use strict;
use warnings;

use parent -norequire, 'Cluster';
use Cluster;
use DbpoolTest;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use PostgreSQL::Test::Utils;

sub start
{
	my ($self) = @_;
	my $dir = $self->{dir};
	my ($client, $peer) = (Cluster::free_port(), Cluster::free_port());

	mkdir "$dir/$_" foreach 'etcd', 'haproxy';
	$self->{etcd} = "127.0.0.1:$client";
	$self->background("$dir/etcd", 'etcd', 'etcd', '--data-dir', "$dir/etcd/data",
		'--listen-client-urls', "http://127.0.0.1:$client", '--advertise-client-urls', "http://127.0.0.1:$client",
		'--listen-peer-urls', "http://127.0.0.1:$peer", '--initial-advertise-peer-urls', "http://127.0.0.1:$peer",
		'--initial-cluster', "default=http://127.0.0.1:$peer");
	wait_until('etcd listens', sub { return IO::Socket::INET->new(PeerAddr => $self->{etcd}) });
	foreach my $node ($self->nodes)
	{
		$node->{rest} = Cluster::free_port();
		$self->write_settings($node);
	}
	$self->start_node(($self->nodes)[0]);
	wait_until('the first node is a primary', sub { sleep 1; return $self->primary });
	$self->start_node(($self->nodes)[1]);
	$self->start_haproxy;
	$self->wait_until_ready;
	return;
}

sub write_settings
{
	my ($self, $node) = @_;

	append_to_file("$node->{dir}/patroni.yml", <<"YML");
scope: dbpool
name: $node->{name}
restapi:
  listen: 127.0.0.1:$node->{rest}
  connect_address: 127.0.0.1:$node->{rest}
etcd3:
  hosts: $self->{etcd}
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters:
        track_commit_timestamp: 'on'
        max_connections: 100
  initdb:
    - encoding: UTF8
    - locale: C
    - auth: trust
postgresql:
  listen: 127.0.0.1:$node->{port}
  connect_address: 127.0.0.1:$node->{port}
  data_dir: $node->{data}
  bin_dir: $ENV{CLUSTER_BINDIR}
  pgpass: $node->{dir}/pgpass
  authentication:
    superuser:
      username: postgres
    replication:
      username: replicator
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
  parameters:
    unix_socket_directories: '$node->{dir}'
    shared_buffers: 64MB
    log_line_prefix: '%m [%p] %q%a '
YML
	return;
}

sub start_node
{
	my ($self, $node) = @_;

	$self->background($node->{dir}, $node->{name}, 'patroni', "$node->{dir}/patroni.yml");
	return;
}

sub start_haproxy
{
	my ($self) = @_;
	my $dir = "$self->{dir}/haproxy";
	my $servers = join '', map { "  server $_->{name} 127.0.0.1:$_->{port} maxconn 100 check port $_->{rest}\n" } $self->nodes;

	$self->{haproxy_port} = Cluster::free_port();
	append_to_file("$dir/haproxy.cfg", <<"CFG");
global
  maxconn 200
  stats socket $dir/stats

defaults
  mode tcp
  retries 2
  timeout client 30m
  timeout connect 4s
  timeout server 30m
  timeout check 5s

listen primary
  bind 127.0.0.1:$self->{haproxy_port}
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
$servers
CFG
	$self->background($dir, 'haproxy', 'haproxy', '-db', '-f', "$dir/haproxy.cfg");
	wait_until('haproxy has the primary', sub { sleep 1; my $node = $self->primary; return $node && $self->is_up($node) });
	return;
}

# Does haproxy lead to that node?  It does when it has begun to doubt, "UP 2/3".
sub is_up
{
	my ($self, $node) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => "$self->{dir}/haproxy/stats") or return 0;

	print {$socket} "show stat\n";
	my @lines = <$socket>;
	return scalar grep { /^primary,$node->{name},(?:[^,]*,){15}UP\b/ } @lines;
}

sub control
{
	my ($self, @command) = @_;

	return $self->run('patronictl', 'patronictl', '-c', ($self->nodes)[0]->{dir} . '/patroni.yml', @command);
}

sub is_ready
{
	my ($self) = @_;
	my $members = decode_json($self->control('list', '-f', 'json'));
	my $roles = join ',', sort map { "$_->{Role} $_->{State}" } @{$members};

	return $roles =~ /^Leader running,Sync Standby (?:running|streaming)$/;
}

sub switchover
{
	my ($self, $primary) = @_;

	$self->background($self->{dir}, 'switchover', 'patronictl', '-c', "$primary->{dir}/patroni.yml",
		'switchover', '--master', $primary->{name}, '--candidate', $self->other($primary)->{name}, '--force', 'dbpool');
	return;
}

1;
