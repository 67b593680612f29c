# How a pool logs in: SCRAM and MD5, right and wrong passwords, and whom the
# rules for non-superusers keep from borrowing the server's own identity.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
$remote->safe_psql(
	'postgres', q{
	SET password_encryption = 'scram-sha-256';
	CREATE ROLE scram_user LOGIN PASSWORD 'scram secret';
	CREATE ROLE odd_user LOGIN PASSWORD E'it''s "odd" \\ & @:/?#% = done';
	SET password_encryption = 'md5';
	CREATE ROLE md5_user LOGIN PASSWORD 'md5 secret';
	CREATE ROLE trust_user LOGIN PASSWORD 'unasked';
});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf(
	'pg_hba.conf', q{
local all scram_user scram-sha-256
local all odd_user scram-sha-256
local all md5_user md5
local all peer_user peer map=anybody
local all unwelcome_user reject
local all all trust
});
$remote->append_conf('pg_ident.conf', "anybody /^.*\$ peer_user\n");
$remote->safe_psql('postgres', 'CREATE ROLE peer_user LOGIN');
$remote->reload;

my $local = make_local();
my $where = sprintf q{host '%s', port '%s', dbname 'postgres'}, $remote->host,
  $remote->port;
my $whoami = q{SELECT dbpool_query('remote', 'SELECT current_user')};
my $superuser = $local->safe_psql('postgres', 'SELECT current_user');

$local->safe_psql(
	'postgres', qq{
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE SERVER remote FOREIGN DATA WRAPPER dbpool OPTIONS ($where);
	GRANT USAGE ON FOREIGN SERVER remote TO alice, bob;
});

# As a role of the local server: standard output, or the error with its SQLSTATE.
sub as_role
{
	my ($role, $sql) = @_;
	my ($out, $err);
	my $status = $local->psql(
		'postgres', $sql,
		connstr => $local->connstr('postgres') . " user=$role",
		stdout => \$out,
		stderr => \$err,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $status == 0 ? $out : $err;
}

sub superuser_does
{
	my ($sql) = @_;
	return $local->safe_psql('postgres', $sql);
}

# Gives a role a mapping of its own, in place of the one it has.
sub map_role
{
	my ($role, $options) = @_;
	return superuser_does(
		qq{DROP USER MAPPING IF EXISTS FOR $role SERVER remote;
		   CREATE USER MAPPING FOR $role SERVER remote OPTIONS ($options)});
}

# --- passwords ----------------------------------------------------------------

foreach my $method ('scram', 'md5')
{
	map_role('alice', "user '${method}_user', password '$method secret'");
	is(as_role('alice', $whoami), "(${method}_user)",
		"$method: the right password");

	superuser_does(
		q{ALTER USER MAPPING FOR alice SERVER remote OPTIONS (SET password 'wr0ng guess')}
	);
	is(as_role('alice', $whoami), "(${method}_user)",
		"$method: with a wrong one the connection that there is goes on serving");
	superuser_does(q{SELECT dbpool_kill('remote')});
	my $error = as_role('alice', $whoami);
	like(
		$error,
		qr/ERROR:  08001: could not open a connection of pool "remote"/,
		"$method: no other is opened by the wrong password");
	like($error, qr/password authentication failed for user "${method}_user"/,
		"$method: the remote's reason is told");
	like($error, qr/statement was not run/,
		"$method: so is what became of the statement");
	unlike($error, qr/wr0ng guess/, "$method: the password is not told");

	superuser_does(
		qq{ALTER USER MAPPING FOR alice SERVER remote OPTIONS (SET password '$method secret')}
	);
	is(as_role('alice', $whoami),
		"(${method}_user)", "$method: right again, works at once");
}

map_role('alice',
	q{user 'odd_user', password E'it''s "odd" \\ & @:/?#% = done'});
is(as_role('alice', $whoami), '(odd_user)', 'a password of odd characters');

# --- the rules for those who are not superusers ---------------------------------

map_role('alice', q{user 'trust_user'});
like(
	as_role('alice', $whoami),
	qr/ERROR:  2F003: password is required.*must provide a password in the user mapping/s,
	'a mapping without a password is refused');
map_role('alice', q{user 'trust_user', password ''});
like(
	as_role('alice', $whoami),
	qr/ERROR:  2F003: password is required/,
	'so is one with an empty password');

foreach my $method ('trust', 'peer')
{
	my ($host, $port) = ($remote->host, $remote->port);

	map_role('alice', "user '${method}_user', password 'unasked'");
	like(
		as_role('alice', $whoami),
		qr/host "\Q$host\E", port $port did not ask.*statement was not run/s,
		"$method: who did not ask for it, is told");
	foreach my $time ('first', 'second')
	{
		like(
			as_role('alice', $whoami),
			qr/ERROR:  2F003: password is required.*did not ask/s,
			"$method: a password that the remote does not ask for, $time time"
		);
	}
}

# What was refused must not have run, and other functions obey as well.
$remote->safe_psql('postgres',
	'CREATE TABLE traces (note text); GRANT ALL ON traces TO PUBLIC');
map_role('alice', q{user 'trust_user', password 'unasked'});
foreach my $call (
	q{dbpool_exec('remote', $$INSERT INTO traces VALUES ('exec')$$)},
	q{dbpool_exec('remote', $$INSERT INTO traces VALUES ($1)$$, 'parameter')},
	q{dbpool_query('remote', $$INSERT INTO traces VALUES ('query') RETURNING note$$)},
	q{dbpool_query_json('remote', $$INSERT INTO traces VALUES ('json') RETURNING note$$)},
	q{dbpool_query_as(NULL::text, 'remote', $$INSERT INTO traces VALUES ('as') RETURNING note$$)},
	q{dbpool_ping('remote')})
{
	my ($name) = $call =~ /^(\w+)/;
	like(as_role('alice', "SELECT $call"),
		qr/ERROR:  2F003:/, "$name is refused");
}
is($remote->safe_psql('postgres', 'SELECT count(*) FROM traces'),
	'0', 'nothing of what was refused has run');

# --- password_required --------------------------------------------------------

superuser_does('GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO bob');
like(
	as_role(
		'bob',
		qq{CREATE SERVER bobs FOREIGN DATA WRAPPER dbpool OPTIONS ($where);
		   CREATE USER MAPPING FOR bob SERVER bobs
		   OPTIONS (user 'trust_user', password_required 'false')}),
	qr/ERROR:  42501: password_required=false is superuser-only/,
	'password_required=false is for superusers to set');
like(
	as_role(
		'bob',
		q{CREATE USER MAPPING FOR bob SERVER bobs OPTIONS (user 'trust_user');
		  ALTER USER MAPPING FOR bob SERVER bobs
		  OPTIONS (ADD password_required 'off')}),
	qr/ERROR:  42501: password_required=false is superuser-only/,
	'nor can it be added later, in another spelling');
like(
	as_role(
		'bob',
		qq{SELECT dbpool_create_pool('bobs2', 'host=@{[$remote->host]} user=trust_user',
		   '{"password_required": false}')}),
	qr/ERROR:  42501: password_required=false is superuser-only/,
	'nor by dbpool_create_pool()');
like(
	as_role('bob', q{SELECT dbpool_ping('bobs2')}),
	qr/ERROR:  42704: pool "bobs2" does not exist/,
	'which leaves nothing behind');
foreach my $option ('passfile', 'sslkey', 'sslcert', 'sslrootcert')
{
	my $object = $option =~ /^ssl(key|cert)$/
	  ? 'USER MAPPING FOR bob SERVER bobs'
	  : 'SERVER bobs';
	like(
		as_role(
			'bob', "ALTER $object OPTIONS (ADD $option '/etc/hostname')"),
		qr/ERROR:  42501: permission denied to set option "$option"/,
		"$option names a file and is for superusers");
}

foreach my $option (
	q{gssencmode 'prefer'},
	q{options '-c session_preload_libraries=/tmp/mine'},
	q{options '-c work_mem=1MB --Session-Preload-Libraries=/tmp/mine'},
	q{options '-cloc\al_preload_libraries=mine'})
{
	like(
		as_role('bob', "ALTER SERVER bobs OPTIONS (ADD $option)"),
		qr/ERROR:  42501: permission denied to set option/,
		"what lends the server's rights is for superusers: $option");
}
is( as_role(
		'bob',
		q{ALTER SERVER bobs OPTIONS (ADD gssencmode 'disable', options '-c search_path=a -c work_mem=1MB')}
	),
	'',
	'what does not is not');

map_role('alice', q{user 'trust_user', password_required 'false'});
is(as_role('alice', $whoami),
	'(trust_user)', 'password_required=false, set by a superuser, lets her in');
superuser_does(
	q{ALTER USER MAPPING FOR alice SERVER remote OPTIONS (SET password_required 'true')}
);
like(
	as_role('alice', $whoami),
	qr/ERROR:  2F003: password is required/,
	'and no more once it is taken back');

# --- a mapping for PUBLIC, which superusers and others share ----------------------

superuser_does(
	q{DROP USER MAPPING FOR alice SERVER remote;
	  CREATE USER MAPPING FOR PUBLIC SERVER remote
	  OPTIONS (user 'trust_user', password 'unasked')});
foreach my $who ($superuser, 'alice', $superuser)
{
	like(
		as_role($who, $whoami),
		qr/ERROR:  2F003: password is required.*did not ask/s,
		'PUBLIC has to be asked for its password, whoever calls');
}
is( superuser_does(
		q{SELECT count(*) FROM dbpool_connections
		  WHERE pool = 'remote' AND user_name = 'public'}),
	'0',
	'no connection stays open');
is( superuser_does(
		q{SELECT busy || ' ' || waiting FROM dbpool_pools
		  WHERE pool = 'remote' AND user_name = 'public'}),
	'0 0',
	'nor is one stuck');

superuser_does(
	q{ALTER USER MAPPING FOR PUBLIC SERVER remote
	  OPTIONS (SET user 'scram_user', SET password 'scram secret')});
is(superuser_does($whoami), '(scram_user)', 'with a password: the superuser');
is(as_role('alice', $whoami), '(scram_user)', 'with a password: the others');
is( superuser_does(
		q{SELECT count(*) FROM dbpool_connections
		  WHERE pool = 'remote' AND user_name = 'public'}),
	'1',
	'over the same connection');

# --- rights that change under a session's feet -----------------------------------

superuser_does(
	q{DROP USER MAPPING FOR PUBLIC SERVER remote;
	  CREATE ROLE carol LOGIN SUPERUSER;
	  CREATE USER MAPPING FOR carol SERVER remote OPTIONS (user 'trust_user')});
my $carol = session($local, user => 'carol');
is($carol->value($whoami), '(trust_user)', 'a superuser without a password');
my $pid = $carol->value(q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')});
my $other = session($local);
$other->value('BEGIN; ALTER ROLE carol NOSUPERUSER');
$other->value('GRANT USAGE ON FOREIGN SERVER remote TO carol; SET LOCAL ROLE carol');
like(
	$other->query($whoami)->{err},
	qr/password is required/,
	'a transaction in which she is none any more');
$other->value('ROLLBACK');
superuser_does(
	q{ALTER USER MAPPING FOR carol SERVER remote OPTIONS (ADD password 'unasked')});
$carol->value($whoami);
$pid = $carol->value(q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')});
$other->value('BEGIN; ALTER ROLE carol NOSUPERUSER');
$other->value('GRANT USAGE ON FOREIGN SERVER remote TO carol; SET LOCAL ROLE carol');
like(
	$other->query($whoami)->{err},
	qr/password is required.*did not ask/s,
	'or with one that the remote does not ask for');
$other->value('ROLLBACK');
is($carol->value(q{SELECT dbpool_query('remote', 'SELECT pg_backend_pid()')}),
	$pid, 'has a pool of its own, and does not touch that of others');
$other->quit;
superuser_does(
	q{ALTER USER MAPPING FOR carol SERVER remote OPTIONS (DROP password)});
superuser_does('ALTER ROLE carol NOSUPERUSER');
like(
	$carol->query($whoami)->{err},
	qr/permission denied for foreign server remote/,
	'no superuser any more: no right to use the server');
superuser_does('GRANT USAGE ON FOREIGN SERVER remote TO carol');
like(
	$carol->query($whoami)->{err},
	qr/password is required/,
	'nor, with that right, to go without a password');
superuser_does(
	q{ALTER USER MAPPING FOR carol SERVER remote
	  OPTIONS (SET user 'md5_user', ADD password 'md5 secret')});
is($carol->value($whoami), '(md5_user)', 'with a password she may');
superuser_does('REVOKE USAGE ON FOREIGN SERVER remote FROM carol');
like(
	$carol->query($whoami)->{err},
	qr/permission denied for foreign server remote/,
	'until the right is revoked');
$carol->quit;

# The owner of the server counts as well: it is his to say where it leads.
superuser_does(
	q{CREATE ROLE dave SUPERUSER; ALTER SERVER remote OWNER TO dave;
	  CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user 'trust_user')});
my $boss = session($local);
is($boss->value($whoami), '(trust_user)',
	'a superuser on the server of another one');
superuser_does('ALTER ROLE dave NOSUPERUSER');
like(
	$boss->query($whoami)->{err},
	qr/password is required.*belongs to somebody who is none/s,
	'who is none any more');
superuser_does('ALTER ROLE dave SUPERUSER');
is($boss->value($whoami), '(trust_user)', 'and again');
$boss->quit;

# --- what is told of a log-in that failed: where, why, and what to do -----------------

$remote->safe_psql(
	'postgres', q{
	CREATE ROLE unwelcome_user LOGIN;
	CREATE ROLE full_user LOGIN CONNECTION LIMIT 0;
	CREATE ROLE group_user NOLOGIN;
	CREATE DATABASE closed ALLOW_CONNECTIONS false;
	CREATE DATABASE forbidden;
	REVOKE CONNECT ON DATABASE forbidden FROM PUBLIC;});

# An error of a log-in as PostgreSQL sends it, with any fields.
sub fatal
{
	my (%fields) = @_;
	return message('E', join('', map { "$_$fields{$_}\0" } sort keys %fields) . "\0");
}

sub starting
{
	return (fatal(C => '57P03', M => 'the database system is starting up', S => 'FATAL', V => 'FATAL'), 1);
}
my $fake = FakeRemote->start(
	good => {},
	starts => { startup => \&starting },
	starts_late => { greeting => \&starting },
	closes => { startup => sub { return ('', 1) } },
	lies => {
		startup => sub {
			return (
				fatal(
					C => "28P01\nLOCATION:  x",
					F => 'auth.c',
					L => '1',
					M => 'password of "app" is wr0ng',
					R => 'auth_failed',
					S => "FATAL:  3D000"),
				1);
		}
	},
	bare => { startup => sub { return (fatal(M => 'go away', S => 'FATAL'), 1) } },
	refuses_settings => { settings => sub { return (fatal(C => '42501', M => 'no settings here', S => 'ERROR', V => 'ERROR'), 1) } });
my $silent = silent_listener();
my $unused = PostgreSQL::Test::Cluster::get_free_port();
my %socket = (host => $remote->host, port => $remote->port, dbname => 'postgres');
my %trust = (%socket, user => 'trust_user');
my %fake = (host => '127.0.0.1', port => $fake->port, sslmode => 'disable', user => 'app', password => 'seCretive');
my $ask_for_password = qr/user and password.*user mapping.*SET password/;
my @failures = (
	# name, options, what is said, the hint
	[ 'wrong password', { %socket, user => 'scram_user', password => 'wr0ng guess' },
		qr/password authentication failed/, $ask_for_password ],
	[ 'wrong md5', { %socket, user => 'md5_user', password => 'wr0ng guess' },
		qr/password authentication failed/, $ask_for_password ],
	[ 'no password', { %socket, user => 'scram_user' },
		qr/no password supplied/, qr/has none.*ADD password/ ],
	[ 'pg_hba', { %socket, user => 'unwelcome_user' }, qr/pg_hba\.conf rejects/, qr/pg_hba\.conf.*LOGIN/ ],
	[ 'no role', { %socket, user => 'nobody_there' }, qr/role "nobody_there" does not exist/, qr/whether the role exists/ ],
	[ 'no login', { %socket, user => 'group_user' }, qr/not permitted to log in/, qr/has LOGIN/ ],
	[ 'no database', { %trust, dbname => 'nonesuch' }, qr/database "nonesuch" does not exist/, qr/option dbname/ ],
	[ 'a role', { %trust, options => '-c role=pg_database_owner' }, qr/permission denied to set role|role "pg_database_owner"/, qr/option "options"/ ],
	[ 'no connect', { %trust, dbname => 'forbidden' }, qr/permission denied for database/, qr/GRANT CONNECT/ ],
	[ 'closed', { %trust, dbname => 'closed' }, qr/not currently accepting connections/, qr/ALLOW_CONNECTIONS/ ],
	[ 'full', { %socket, user => 'full_user' }, qr/too many connections for role/, qr/lower max_size/ ],
	[ 'setting', { %trust, options => '-c no_such=1' }, qr/unrecognized configuration parameter/, qr/option options/ ],
	[ 'no socket', { %trust, port => '1' }, qr/No such file/, qr/Does a server run there/ ],
	[ 'refused', { %trust, host => '127.0.0.1', port => $unused }, qr/Connection refused/, qr/Does a server run there/ ],
	[ 'unknown host', { %trust, host => 'no.such.name.invalid', port => '5433' },
		qr/could not translate host name/, qr/host of the server.*look up/ ],
	[ 'no answer', { %trust, host => '127.0.0.1', port => $silent->sockport, connect_timeout => '1s' },
		qr/answer.* within/, qr/can the remote be reached.*connect_timeout/i ],
	[ 'no TLS', { %fake, dbname => 'good', sslmode => 'require' }, qr/does not support SSL/, qr/does not offer TLS.*sslmode/ ],
	[ 'starting', { %fake, dbname => 'starts' }, qr/starting up/, qr/starting, recovering/ ],
	[ 'starting late', { %fake, dbname => 'starts_late' }, qr/starting up/, qr/starting, recovering/ ],
	[ 'closing', { %fake, dbname => 'closes' }, qr/closed the connection/, undef ],
	[ 'lying', { %fake, dbname => 'lies' }, qr/is wr0ng/, undef ],
	[ 'codeless', { %fake, dbname => 'bare' }, qr/go away/, undef ],
	[ 'settings', { %fake, dbname => 'refuses_settings' }, undef, undef ]);

foreach my $failure (@failures)
{
	my ($name, $options, $said, $hint) = @$failure;
	my %mapping = map { $_ => $options->{$_} } grep { exists $options->{$_} } 'user', 'password';
	my %server = map { $_ => $options->{$_} } grep { !exists $mapping{$_} } keys %$options;
	my ($of_server, $of_mapping) =
	  map { my $list = $_; join ', ', map { "$_ '$list->{$_}'" } sort keys %$list } \%server, \%mapping;
	my $place = qr{"\Q$server{host}\E(?:"[^\n]*, port $server{port} |/\.s\.PGSQL\.$server{port}")};

	superuser_does(
		qq{CREATE SERVER fails FOREIGN DATA WRAPPER dbpool OPTIONS ($of_server);
		   CREATE USER MAPPING FOR CURRENT_USER SERVER fails OPTIONS ($of_mapping)});
	superuser_does(q{SELECT dbpool_add_migration('fails', 1, 'm1', 'SELECT 1')});
	my $log = -s $local->logfile;
	foreach my $call (q{dbpool_ping('fails')}, q{dbpool_migrate('fails')})
	{
		# what a fake one says when it has let us in is for the pool's connections alone
		next if !$said && $call =~ /migrate/;
		my $error = as_role($superuser, "SELECT $call");

		like($error, qr/ERROR:  08001: could not .*"fails"/, "$name: $call fails");
		like($error, qr/$place/, "$name: $call tells host and port");
		like($error, $said, "$name: $call tells why") if $said;
		like($error, qr/HINT:  [^\n]*$hint/, "$name: $call tells what to do") if $hint;
		unlike($error, qr/HINT/, "$name: $call knows of nothing to do") if !$hint;
		unlike($error, qr/wr0ng guess|seCretive|auth\.c|seconds/, "$name: $call tells no secret");
	}
	my $shown = superuser_does(q{SELECT connect_error FROM dbpool_pools WHERE pool = 'fails'});
	like($shown, qr/$place/, "$name: the view tells host and port");
	my $logged = slurp_file($local->logfile, $log);
	like($logged, qr/LOG:  dbpool could not open a connection of pool "fails": .*$place.*ERROR:/s,
		"$name: so does the log");
	like($logged, qr/HINT:  [^\n]*$hint/, "$name: and what to do") if $hint;
	superuser_does(q{SELECT dbpool_drop_pool('fails')});
}

# Of several places, the hint is of the one that had a server.
superuser_does(
	qq{CREATE SERVER fails FOREIGN DATA WRAPPER dbpool
	   OPTIONS (host '@{[$remote->host]},127.0.0.1', port '@{[$remote->port]},$unused', dbname 'nonesuch');
	   CREATE USER MAPPING FOR CURRENT_USER SERVER fails OPTIONS (user 'trust_user')});
like(
	as_role($superuser, q{SELECT dbpool_ping('fails')}),
	qr/"nonesuch" does not exist.*"127\.0\.0\.1", port $unused failed.*HINT:.*option dbname/s,
	'two places: both are told, with the hint of the one that answered');
superuser_does(q{SELECT dbpool_drop_pool('fails')});

# Who waits for a connection that is still being opened hears where.
superuser_does(
	qq{CREATE SERVER fails FOREIGN DATA WRAPPER dbpool
	   OPTIONS (host '127.0.0.1', port '@{[$silent->sockport]}', acquire_timeout '300ms');
	   CREATE USER MAPPING FOR CURRENT_USER SERVER fails});
like(
	as_role($superuser, q{SELECT dbpool_ping('fails')}),
	qr/08001: could not get a connection.*"127\.0\.0\.1", port @{[$silent->sockport]} has not let.*HINT:.*be reached/s,
	'acquire_timeout before connect_timeout: the place is told');
superuser_does(q{SELECT dbpool_drop_pool('fails')});
$fake->stop;

# --- libpq's own check, from 16 on ------------------------------------------------

SKIP:
{
	skip 'libpq has no require_auth before 16', 8
	  if as_role($superuser,
		q{ALTER SERVER remote OPTIONS (ADD require_auth 'none')}) =~
	  /invalid option/;

	map_role('alice', q{user 'trust_user', password 'unasked'});
	like(
		as_role('alice', $whoami),
		qr/ERROR:  2F003: password is required.*require_auth allows no method/s,
		'require_auth that allows no password');
	is(superuser_does($whoami), '(trust_user)',
		'does not matter where none is needed');
	foreach my $list ('none,scram-sha-256', '!gss')
	{
		superuser_does(
			"ALTER SERVER remote OPTIONS (SET require_auth '$list')");
		map_role('alice', q{user 'trust_user', password 'unasked'});
		like(
			as_role('alice', $whoami),
			qr/ERROR:  2F003: password is required.*did not ask/s,
			"require_auth '$list' does not lift the rule");
		map_role('alice', q{user 'scram_user', password 'scram secret'});
		is(as_role('alice', $whoami), '(scram_user)', 'nor harm who obeys it');
	}
	superuser_does(
		q{ALTER SERVER remote OPTIONS (SET require_auth '!scram-sha-256')});
	like(as_role('alice', $whoami),
		qr/ERROR:  (?:08001|2F003)/, 'what it rules out stays ruled out');
	superuser_does(q{ALTER SERVER remote OPTIONS (DROP require_auth)});
	is(as_role('alice', $whoami), '(scram_user)', 'until it does not');
}

# --- the own server as the remote, by a role that may create servers --------------

# It lets its operating-system user in without a password. So whoever gets us to
# connect there, and has planted things where we would find them, is superuser.
# The log tells what was executed; every statement of a pool's is in it.
$local->append_conf('postgresql.conf', "log_statement = 'all'\n");
$local->reload;
superuser_does(
	qq{
	CREATE ROLE lowly LOGIN;
	GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO lowly;
	GRANT CREATE ON SCHEMA public TO lowly;});
my $home = sprintf q{host '%s', port '%s', dbname 'postgres'}, $local->host,
  $local->port;
my $planted = q{options '-c search_path=public,pg_catalog'};
as_role(
	'lowly', qq{
	CREATE FUNCTION planted(text, text) RETURNS boolean LANGUAGE plpgsql AS \$\$
	BEGIN
		RAISE LOG 'planted: executed by %', current_user;
		IF (SELECT rolsuper FROM pg_catalog.pg_roles
		    WHERE rolname OPERATOR(pg_catalog.=) current_user)
		THEN EXECUTE 'ALTER ROLE lowly SUPERUSER'; END IF;
		RETURN false;
	END \$\$;
	CREATE OPERATOR public.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = planted);
	CREATE SERVER esc FOREIGN DATA WRAPPER dbpool OPTIONS ($home, $planted, min_size '1');
	CREATE USER MAPPING FOR lowly SERVER esc OPTIONS (user '$superuser', password 'anything');
	CREATE SERVER warm FOREIGN DATA WRAPPER dbpool OPTIONS ($home, $planted, min_size '1');
	CREATE USER MAPPING FOR lowly SERVER warm OPTIONS (user '$superuser');
	CREATE SERVER lent FOREIGN DATA WRAPPER dbpool OPTIONS ($home, $planted, min_size '1');
	CREATE USER MAPPING FOR "$superuser" SERVER lent OPTIONS (user '$superuser');
	CREATE SERVER everybodys FOREIGN DATA WRAPPER dbpool OPTIONS ($home, $planted, min_size '1');
	CREATE USER MAPPING FOR PUBLIC SERVER everybodys OPTIONS (user '$superuser', password 'anything');
	SELECT dbpool_add_migration(pool, 1, 'm', 'SELECT 1')
	FROM unnest('{esc,warm,lent,everybodys}'::name[]) AS pool;
	CREATE TABLE some AS SELECT 1 AS n;});

# What the log has got since then of the pools of dbpool, and of what was planted.  Connections
# that are let in are checked by empty statements.
my $log_from = -s $local->logfile;

sub executed
{
	my $log = slurp_file($local->logfile, $log_from);
	$log_from = -s $local->logfile;
	my @lines =
	  $log =~ /^.*(?:\] (?:client backend )?dbpool(?: migration)? LOG:  (?:statement: (?=\S)|execute)|planted: executed).*$/mg;
	return join "\n", @lines;
}

like(
	as_role(
		'lowly',
		q{SET search_path = public, pg_catalog; SELECT 'a'::text <> 'b'::text; SELECT 'done'}
	),
	qr/done/,
	'what is planted can be executed');
like(executed(), qr/planted: executed by lowly/, 'and the log has it');
superuser_does(
	qq{CREATE SERVER own FOREIGN DATA WRAPPER dbpool OPTIONS ($home, $planted, min_size '1');
	   CREATE USER MAPPING FOR CURRENT_USER SERVER own;
	   GRANT USAGE ON FOREIGN SERVER own TO lowly;
	   SELECT dbpool_ping('own')});
my $executed = executed();
like($executed, qr/dbpool LOG: .*SET datestyle/,
	'a superuser may have such a pool, and the log has what it does');
unlike($executed, qr/planted/, 'which is nothing of what others have planted');

my @calls = (
	q{SELECT dbpool_query('%s', 'SELECT 1')},
	q{SELECT dbpool_query_json('%s', 'SELECT $1::int', 1)},
	q{SELECT dbpool_exec('%s', 'SELECT 1; SELECT 2')},
	q{SELECT dbpool_ping('%s')},
	q{SELECT dbpool_bulk_insert('%s', 'public.some', 'SELECT 1')},
	q{SELECT * FROM dbpool_migrate('%s')},
	q{SELECT * FROM dbpool_migrate('%s', dry_run => true)},
	q{SELECT * FROM dbpool_migration_status('%s')},
	q{SELECT dbpool_migration_baseline('%s', 1)},
	q{SELECT * FROM dbpool_migration_rollback('%s')});
foreach my $try (
	[ 'lowly', 'esc' ],
	[ 'lowly', 'warm' ],
	[ 'lowly', 'everybodys' ],
	[ $superuser, 'lent' ],
	[ $superuser, 'everybodys' ])
{
	my ($who, $server) = @$try;

	foreach my $call (@calls)
	{
		my $sql = sprintf $call, $server;

		like(as_role($who, $sql),
			qr/ERROR:  2F003: password is required/,
			($who eq 'lowly' ? 'lowly' : 'a superuser') . " is refused: $sql");
	}
}
is(executed(), '', 'nothing was executed');

# Of several hosts one may ask for the password and another not.
superuser_does(
	sprintf q{
	CREATE ROLE scram_user LOGIN;
	CREATE SERVER pair FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host '%s,%s', port '%s,%s', dbname 'postgres');
	GRANT USAGE ON FOREIGN SERVER pair TO lowly;
	CREATE USER MAPPING FOR lowly SERVER pair OPTIONS (user 'scram_user', password 'scram secret');
	SELECT dbpool_add_migration('pair', 1, 'm', 'SELECT 1');
	GRANT EXECUTE ON FUNCTION dbpool_migration_status TO lowly},
	$local->host, $remote->host, $local->port, $remote->port);
is( as_role(
		'lowly',
		q{SELECT dbpool_query('pair', $$SELECT current_setting('port')$$)}),
	'(' . $remote->port . ')',
	'a host that does not ask for the password is passed by');
like(
	as_role(
		'lowly', q{SELECT status FROM dbpool_migration_status('pair')}),
	qr/^pending$/,
	'for migrations as well');
is(executed(), '', 'and nothing was executed there');

# The warmer passes them by. It comes to those that it warms in the end.
superuser_does(
	qq{CREATE SERVER last FOREIGN DATA WRAPPER dbpool OPTIONS ($home, min_size '1');
	   CREATE USER MAPPING FOR CURRENT_USER SERVER last});
$local->restart;
my $s = session($local);
ok( $s->poll(
		q{SELECT string_agg(pool, ',' ORDER BY pool) FROM dbpool_connections WHERE state = 'idle'},
		'last,own'),
	'after a start the pools are warm');
ok( $s->poll(
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%warm%'},
		'0'),
	'the warmer has done its work');
ok( $s->poll(
		q{SELECT count(*) FROM dbpool_connections WHERE state <> 'idle'},
		'0'),
	'and nobody connects any more');
$executed = executed();
like($executed, qr/SET datestyle/, 'the warm pools have made their settings');
unlike($executed, qr/planted/, 'but nothing of what was planted was executed');
is( $s->value(
		q{SELECT coalesce(string_agg(DISTINCT pool, ','), '') FROM dbpool_pools
		  WHERE pool IN ('warm', 'lent', 'everybodys') AND state <> 'cold'}),
	'',
	'the warmer has not even tried the mappings of others, nor those without a password');
is( $s->value(q{SELECT rolsuper FROM pg_roles WHERE rolname = 'lowly'}),
	'f', 'nobody has become superuser');
$s->quit;

done_testing();
