
# Pools that have several hosts, and how long opening a connection may take.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $first = make_remote(
	name => 'first',
	conf => "default_transaction_read_only = on\n");
my $second = make_remote(name => 'second');

# A resolver that knows a name with two addresses.
my $resolver = preload_library('two_addresses', <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

int
getaddrinfo(const char *name, const char *service,
			const struct addrinfo *hints, struct addrinfo **found)
{
	int			(*next) (const char *, const char *,
						 const struct addrinfo *, struct addrinfo **) =
		dlsym(RTLD_NEXT, "getaddrinfo");
	int			error;

	if (name == NULL || strcmp(name, "two.example") != 0)
		return next(name, service, hints, found);
	error = next("127.0.0.1", service, hints, found);
	return error ? error : next("127.0.0.2", service, hints, &(*found)->ai_next);
}
C
my $local = make_local(no_start => 1);
{
	local $ENV{LD_PRELOAD} = $resolver if $resolver;
	$local->start;
}
$local->safe_psql('postgres', 'CREATE EXTENSION dbpool');
my $control = session($local);
my $silent = silent_listener();
my $unused_port = PostgreSQL::Test::Cluster::get_free_port();

sub port_of
{
	my ($pool) = @_;
	return $control->query(
		"SELECT * FROM dbpool_query('$pool', 'SHOW port') AS t(port int)");
}

my %dbname = (dbname => 'postgres');

subtest 'the first host refuses' => sub {
	create_pool(
		$local, 'refused', undef,
		host => '127.0.0.1,' . $second->host,
		port => "$unused_port," . $second->port,
		%dbname);
	my $answer = port_of('refused');
	is($answer->{out} . $answer->{err},
		$second->port, 'the second one is used');
};

subtest 'the first host does not answer' => sub {
	create_pool(
		$local, 'unanswered', undef,
		host => '127.0.0.1,' . $second->host,
		port => $silent->sockport . ',' . $second->port,
		connect_timeout => '1s',
		%dbname);
	my $answer = port_of('unanswered');
	is($answer->{out} . $answer->{err},
		$second->port, 'the second one is used');
	cmp_ok($answer->{seconds}, '>', 0.9, 'after connect_timeout');
	cmp_ok($answer->{seconds}, '<', 4, 'and not much more');
};

subtest 'the first host has no such name' => sub {
	create_pool(
		$local, 'unknown', undef,
		host => 'no.such.name.invalid,' . $second->host,
		port => $second->port,
		connect_timeout => '3s',
		%dbname);
	my $answer = port_of('unknown');
	is($answer->{out} . $answer->{err},
		$second->port, 'the second one is used');
};

subtest 'no host works' => sub {
	create_pool(
		$local, 'none', undef,
		host => '127.0.0.1,127.0.0.1',
		port => "$unused_port," . $silent->sockport,
		connect_timeout => '1s',
		%dbname);
	my $answer = port_of('none');
	is($answer->{state}, '08001', 'the SQLSTATE says so');
	like(
		$answer->{err},
		qr/Connection refused/,
		'what the first one said is told');
	like(
		$answer->{err},
		qr/the server did not answer within 1 s/,
		'and that the second one said nothing');
	foreach my $port ($unused_port, $silent->sockport)
	{
		like(
			$answer->{err},
			qr/^(?:.*DETAIL: *)?connection to server at "127.0.0.1", port $port failed: /m,
			"with host and port $port");
	}
	like($answer->{err}, qr/HINT: .*reached from this machine.*connect_timeout/,
		'and what to look at');
	cmp_ok($answer->{seconds}, '<', 4, 'in good time');
};

subtest 'connect_timeout' => sub {
	create_pool(
		$local, 'silent', undef,
		host => '127.0.0.1',
		port => $silent->sockport,
		connect_timeout => '1500ms');
	my $answer = port_of('silent');
	is($answer->{state}, '08001', 'the SQLSTATE says so');
	cmp_ok($answer->{seconds}, '>', 1.4, 'not before it is over');
	cmp_ok($answer->{seconds}, '<', 4, 'and not much later');
};

subtest 'target_session_attrs' => sub {
	my %both = (
		host => $first->host . ',' . $second->host,
		port => $first->port . ',' . $second->port,
		%dbname);

	create_pool($local, 'any', undef, %both);
	is(port_of('any')->{out}, $first->port, 'any: the first one');
	create_pool($local, 'writes', undef, %both,
		target_session_attrs => 'read-write');
	is(port_of('writes')->{out},
		$second->port, 'read-write: not the one that is read-only');
	create_pool($local, 'reads', undef, %both,
		target_session_attrs => 'read-only');
	is(port_of('reads')->{out}, $first->port, 'read-only: that one');
	create_pool($local, 'standby', undef, %both,
		target_session_attrs => 'standby');
	my $answer = port_of('standby');
	is($answer->{state}, '08001', 'standby: none');
	like($answer->{err}, qr/hot standby/, 'and why');
	create_pool($local, 'prefer', undef, %both,
		target_session_attrs => 'prefer-standby');
	is(port_of('prefer')->{out},
		$first->port, 'prefer-standby: none, so the first one');
};

# The one tried first is another from time to time: of the hosts of a list, and
# of the addresses of a name.
subtest 'load_balance_hosts' => sub {
	my $answer = $control->query(
		q{CREATE SERVER knows FOREIGN DATA WRAPPER dbpool OPTIONS (load_balance_hosts 'random')}
	);
	plan skip_all => 'libpq does not know load_balance_hosts'
	  if $answer->{err} =~ /invalid option/;

	# what twenty connections, one after the other, say
	my $ask_anew = sub {
		my ($pool, $sql) = @_;
		my %seen;

		foreach (1 .. 20)
		{
			$seen{ $control->value("SELECT dbpool_query('$pool', '$sql')") }++;
			$control->value("SELECT dbpool_reset('$pool')");
		}
		return join ' ', sort keys %seen;
	};
	my %random = (load_balance_hosts => 'random', %dbname);

	create_pool(
		$local, 'random', undef,
		host => $first->host . ',' . $second->host,
		port => $first->port . ',' . $second->port,
		%random);
	is( $ask_anew->('random', 'SHOW port'),
		join(' ', sort map { '(' . $_->port . ')' } $first, $second),
		'both hosts are tried first');

	# while one is out, the others are by lot still; a reset would have it tried again
	my $twin = make_remote(name => 'twin');
	create_pool(
		$local, 'lot', undef,
		host => join(',', map { $_->host } $first, $second, $twin),
		port => join(',', map { $_->port } $first, $second, $twin),
		idle_timeout => '10ms', %random);
	$first->stop;
	my %seen;
	foreach (1 .. 40)
	{
		my $out = $control->value(q{SELECT state FROM dbpool_endpoints WHERE port = '} . $first->port . q{'}) eq 'open';
		my $port = $control->value("SELECT dbpool_query('lot', 'SHOW port')");
		$seen{$port}++ if $out;
		$control->poll(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'lot'}, '0');
	}
	is(join(' ', sort keys %seen), join(' ', sort map { '(' . $_->port . ')' } $second, $twin), 'both others are tried first');
	$first->start;
	$twin->stop;
  SKIP:
	{
		skip 'no C compiler, so no name with two addresses', 2 if !$resolver;
		my %two = (host => 'two.example', port => $second->port);
		my $address = 'SELECT host(inet_server_addr())';

		$second->append_conf('postgresql.conf',
			"listen_addresses = '127.0.0.1,127.0.0.2'");
		$second->append_conf('pg_hba.conf',
			'host all all 127.0.0.0/8 trust');
		$second->restart;
		create_pool($local, 'two', undef, %two, %dbname);
		is($ask_anew->('two', $address),
			'(127.0.0.1)', 'addresses have their order');
		create_pool($local, 'two_random', undef, %two, %random);
		is( $ask_anew->('two_random', $address),
			'(127.0.0.1) (127.0.0.2)',
			'unless they are to be tried in a random one');
	}
};

# A host that goes away is left for the other one, and found again.
subtest 'failover' => sub {
	create_pool(
		$local, 'both', undef,
		host => $first->host . ',' . $second->host,
		port => $first->port . ',' . $second->port,
		%dbname);
	is(port_of('both')->{out}, $first->port, 'the first one is used');
	$first->stop('immediate');
	my $answer = port_of('both');
	is($answer->{out} . $answer->{err},
		$second->port, 'stopped, it is left without an error');
	$first->start;
	# unless another pool looks at it just then, and keeps others out for a moment
	ok( wait_until(
			'it is found again',
			sub {
				$control->value("SELECT dbpool_reset('both')");
				return port_of('both')->{out} == $first->port;
			}),
		'and used again after a reset');
};

$control->quit;
done_testing();
