
# DDL is never blocked by busy workers, and what it says of a pool takes effect
# at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $other = make_remote(name => 'other');
my $local = make_local();

create_pool($local, 'p', $remote, max_size => 4);

# What is blocked shall fail, not wait.
my $control = session($local, options => '-c statement_timeout=5s');
my $busy = session($local);
my $queued = session($local);

sub connections_at
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool'"
	);
}

sub make_busy
{
	my ($seconds) = @_;
	$busy->send(query_sleeps('p', $seconds || 60));
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'running'}, '1');
	return;
}

sub make_calm
{
	$control->value('SELECT pg_cancel_backend(' . $busy->pid . ')');
	return $busy->wait;
}

sub port_reached
{
	my ($session) = @_;
	return ($session || $control)
	  ->value("SELECT * FROM dbpool_query('p', 'SHOW port') AS t(port int)");
}

subtest 'databases' => sub {
	make_busy();
	foreach my $round (1 .. 3)
	{
		$control->value('CREATE DATABASE mine');

		# with a pool of its own that has connections
		$local->safe_psql('mine', 'CREATE EXTENSION dbpool');
		$local->safe_psql(
			'mine', qq{
			CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (
				host '${\$remote->host}', port '${\$remote->port}', dbname 'postgres');
			CREATE USER MAPPING FOR CURRENT_USER SERVER p;
			SELECT dbpool_ping('p')});
		is( $control->value(
				"SELECT database FROM dbpool_connections ORDER BY database"),
			"mine\npostgres",
			'two databases have pools');
		$control->value('DROP DATABASE mine');
		pass('CREATE DATABASE and DROP DATABASE are not blocked');
		ok( $control->query("SELECT pool, database, state FROM dbpool_pools")
			  ->{err} eq '',
			'the views can be read without that database');
	}

	# its template may not be in use either
	$control->value('CREATE DATABASE mine');
	$local->safe_psql('mine', 'CREATE EXTENSION dbpool');
	$control->value('CREATE DATABASE copy TEMPLATE mine');
	$control->value('ALTER DATABASE mine RENAME TO yours');
	$control->value('DROP DATABASE copy');
	$control->value('DROP DATABASE yours WITH (FORCE)');
	pass('nor are copying, renaming and dropping by force');
	like(make_calm()->{state}, qr/57014/,
		'the worker was busy all the while');
};

subtest 'extension' => sub {
	make_busy();
	is($control->query('ALTER EXTENSION dbpool UPDATE')->{state},
		'', 'ALTER EXTENSION is not blocked');
	is($control->query('DROP EXTENSION dbpool CASCADE')->{state},
		'', 'DROP EXTENSION is not blocked');
	$control->value('CREATE EXTENSION dbpool');
	create_pool($local, 'p', $remote, max_size => 4);
	is(port_reached(), $remote->port, 'made again, it works');
	$control->value('SELECT pg_cancel_backend(' . $busy->pid . ')');
	is($busy->wait->{state},
		'57014', 'what ran goes on until it is cancelled');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
	ok($control->poll('SELECT busy, cancelling FROM dbpool_pools', '0|0'),
		'no connection is left busy');
};

subtest 'another host' => sub {
	make_busy(2);
	$control->value(
		"ALTER SERVER p OPTIONS (SET host '${\$other->host}', SET port '${\$other->port}')"
	);
	is(port_reached(), $other->port,
		'the next statement goes to the new host');
	is($busy->wait->{err}, '', 'a statement that runs ends where it is');
	is(port_reached($busy), $other->port,
		'the next one of its session goes to the new host');
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool'"
		),
		'the old host is left');

	# undone
	$control->value(
		"BEGIN; ALTER SERVER p OPTIONS (SET host '${\$remote->host}', SET port '${\$remote->port}')"
	);
	is(port_reached(), $remote->port,
		'a transaction sees its own definition');
	is(port_reached($busy), $other->port, 'nobody else does');
	$control->value('ROLLBACK');
	is(port_reached(), $other->port, 'and not after a rollback');
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool'"
		),
		'the connection that was for it alone is closed');

	$control->value(
		"ALTER SERVER p OPTIONS (SET host '${\$remote->host}', SET port '${\$remote->port}')"
	);
	is(port_reached(), $remote->port, 'and back');
	ok( $other->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool'"
		),
		'the other host is left');
};

subtest 'another size' => sub {
	my @sessions = map { session($local) } 1 .. 3;

	$control->value('ALTER SERVER p OPTIONS (SET max_size \'1\')');
	$_->send(query_sleeps('p', 60)) foreach @sessions;
	$control->poll(
		q{SELECT string_agg(state, ' ' ORDER BY state) FROM dbpool_requests},
		'queued queued running');

	# those who wait need not ask again
	$control->value('ALTER SERVER p OPTIONS (SET max_size \'3\')');
	ok( $control->poll(
			q{SELECT string_agg(state, ' ' ORDER BY state) FROM dbpool_requests},
			'running running running'),
		'more connections serve those who wait already');
	$control->value('SELECT pg_cancel_backend(' . $_->pid . ')')
	  foreach @sessions;
	is($_->wait->{state}, '57014', 'cancelled') foreach @sessions;
	$control->value('ALTER SERVER p OPTIONS (SET max_size \'1\')');
	is(port_reached(), $remote->port, 'with fewer again');
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dbpool'"
		),
		'the remote has as many as that');
	$_->quit foreach @sessions;
};

subtest 'another user' => sub {
	my $who =
	  "SELECT * FROM dbpool_query('p', 'SELECT current_user') AS t(u text)";
	$remote->safe_psql('postgres',
		'CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN');

	$control->value(
		"ALTER USER MAPPING FOR CURRENT_USER SERVER p OPTIONS (ADD user 'ann')"
	);
	is($control->value($who), 'ann', 'a user mapping takes effect at once');
	is($busy->value($who), 'ann', 'for other sessions, too');
	$control->value(
		"ALTER USER MAPPING FOR CURRENT_USER SERVER p OPTIONS (SET user 'bob')"
	);
	is($busy->value($who), 'bob', 'and again');
	$control->value('DROP USER MAPPING FOR CURRENT_USER SERVER p');
	isnt($busy->query($who)->{state}, '', 'dropped, it is gone');
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool'"
		),
		'and so are its connections');
	$control->value("CREATE USER MAPPING FOR CURRENT_USER SERVER p");
	is($control->query($who)->{state}, '', 'made again, it works');
};

subtest 'a statement on its way to a server that is dropped' => sub {
	my $worker = worker_pid($control);

	is(port_reached($busy), $remote->port, 'the session knows the pool');
	suspend($worker);
	$busy->send("SELECT * FROM dbpool_query('p', 'SHOW port') AS t(port int)");
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'submitted'}, '1');
	$control->value('DROP SERVER p CASCADE');
	resume($worker);
	like($busy->wait->{err}, qr/"p" does not exist/, 'finds no pool');
	ok($control->poll('SELECT count(*) FROM dbpool_pools', '0'),
		'and has not brought it back');
	create_pool($local, 'p', $remote, max_size => 1);
	is(port_reached(), $remote->port, 'made again, it works');
};

subtest 'no server' => sub {
	make_busy(2);
	$queued->send(query_sleeps('p', 60));
	$control->poll(
		q{SELECT count(*) FROM dbpool_requests WHERE state = 'queued'}, '1');
	is($control->query('DROP SERVER p CASCADE')->{state},
		'', 'DROP SERVER is not blocked');
	isnt($queued->wait->{state}, '', 'who waited for it gets an error');
	is($busy->wait->{err}, '', 'who runs a statement gets its answer');
	my $answer = $busy->query("SELECT dbpool_ping('p')");
	like(
		$answer->{err},
		qr/"p" does not exist/,
		'the next call finds no pool');
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool'"
		),
		'its connections are closed');
	ok($control->poll('SELECT count(*) FROM dbpool_pools', '0'),
		'the view does not show it any more');
	ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
		'no request is left');
};

$_->quit foreach ($control, $busy, $queued);
done_testing();
