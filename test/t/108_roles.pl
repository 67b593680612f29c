# A pool is of one remote role: sessions of two local roles, mapped to two remote
# ones, never see each other's, whatever comes between.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my %role = (alice => 'app_a', bob => 'app_b');
my $seconds = 5;

my $remote = make_remote();
$remote->safe_psql(
	'postgres', q{
	CREATE ROLE app_a LOGIN PASSWORD 'a';
	CREATE ROLE app_b LOGIN PASSWORD 'b';
	CREATE TABLE of_a AS SELECT 1 AS one;
	CREATE TABLE of_b AS SELECT 1 AS one;
	ALTER TABLE of_a OWNER TO app_a;
	ALTER TABLE of_b OWNER TO app_b;
	CREATE TABLE seen (local name, remote name DEFAULT session_user);
	GRANT INSERT ON seen TO PUBLIC;
});
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf',
	"local all app_a,app_b scram-sha-256\nlocal all all trust\n");
$remote->reload;

my $local = make_local(workers => 2);
$local->safe_psql(
	'postgres', sprintf q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE SERVER shared FOREIGN DATA WRAPPER dbpool
	    OPTIONS (host '%s', port '%s', dbname 'postgres', max_size '2');
	GRANT USAGE ON FOREIGN SERVER shared TO alice, bob;
	CREATE USER MAPPING FOR alice SERVER shared OPTIONS (user 'app_a', password 'a');
	CREATE USER MAPPING FOR bob SERVER shared OPTIONS (user 'app_b', password 'b');
	CREATE TABLE answers (local name, remote name);
	GRANT ALL ON answers TO PUBLIC;
	CREATE FUNCTION ask() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO answers
		SELECT current_user, who FROM dbpool_query('shared', 'SELECT current_user') AS t(who name);
		PERFORM dbpool_exec('shared', 'INSERT INTO seen VALUES ($1)', current_user);
	END $$;
	CREATE FUNCTION ask_as_bob() RETURNS text LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT who FROM dbpool_query('shared', 'SELECT current_user') AS t(who text) $$;
	ALTER FUNCTION ask_as_bob() OWNER TO bob;
}, $remote->host, $remote->port);

# --- one session, many roles -------------------------------------------------------

my $s = session($local);
foreach my $round (1 .. 3)
{
	foreach my $who (sort keys %role)
	{
		is( $s->value(
				"SET ROLE $who; SELECT dbpool_query('shared', 'SELECT current_user')"
			),
			"($role{$who})",
			"SET ROLE $who, round $round");
	}
}
is($s->value('SET ROLE alice; SELECT ask_as_bob()'),
	'app_b', 'a function of another owner uses the owner\'s mapping');
is($s->value(q{SELECT dbpool_query('shared', 'SELECT current_user')}),
	'(app_a)', 'and the caller\'s is used after it');
is( $s->query(q{SELECT dbpool_query('shared', 'SELECT * FROM of_b')})->{state},
	'42501',
	'the remote role has no right to the other one\'s table');

# What one leaves behind must not lift the other.
is( $s->query(q{SELECT dbpool_exec('shared', 'SET ROLE app_b')})->{state},
	'42501', 'the remote role may not become another');
$s->value('RESET ROLE');

# --- under load, with definitions, connections and workers that change ---------------

my @loads;
foreach my $who (sort keys %role)
{
	my ($run, $out) = start_pgbench($local, "SELECT ask();\n",
		'-U', $who, '-c', 6, '-T', $seconds);
	push @loads, { who => $who, run => $run, out => $out };
}

# Meanwhile sessions switch between the roles, pools are reset and mappings
# change back and forth. Nothing of that may end a statement with an error.
my $end = time + $seconds;
my ($rounds, $wrong) = (0, 0);
while (time < $end)
{
	foreach my $who (sort keys %role)
	{
		my $answer = $s->query(
			"SET ROLE $who; SELECT dbpool_query('shared', 'SELECT current_user')"
		);
		$wrong++ if $answer->{out} ne "($role{$who})";
		$rounds++;
	}
	$s->value('RESET ROLE');
	$s->value(q{SELECT dbpool_reset('shared')}) if $rounds % 10 == 0;
	$s->value(
		sprintf q{ALTER SERVER shared OPTIONS (SET max_size '%d')},
		2 + $rounds % 3) if $rounds % 14 == 0;
}
foreach my $load (@loads)
{
	ok($load->{run}->finish, "the load of $load->{who} ends without an error")
	  or diag(${ $load->{out} });
}
cmp_ok($rounds, '>', 10, 'roles were switched meanwhile');
is($wrong, 0, 'and always had their own remote role');

is( $s->value(
		q{SELECT local, remote FROM answers GROUP BY 1, 2 ORDER BY 1, 2}),
	"alice|app_a\nbob|app_b",
	'every session saw its own remote role');
is( $remote->safe_psql(
		'postgres',
		q{SELECT local, remote FROM seen GROUP BY 1, 2 ORDER BY 1, 2}),
	"alice|app_a\nbob|app_b",
	'and every row was written by it');
is( $remote->safe_psql('postgres', 'SELECT count(*) FROM seen'),
	$s->value('SELECT count(*) FROM answers'),
	'every call ran once');

# --- rights that end while a session knows the pool --------------------------------

my $ask = q{SELECT dbpool_query('shared', 'SELECT current_user')};
my $super = $s->value('SELECT current_user');
$s->value(qq{
	CREATE ROLE club; CREATE ROLE inner_club; CREATE ROLE member LOGIN;
	GRANT USAGE ON FOREIGN SERVER shared TO club;
	GRANT club TO inner_club; GRANT inner_club TO member;
	CREATE USER MAPPING FOR member SERVER shared OPTIONS (user 'app_a', password 'a');
	CREATE ROLE fallen LOGIN SUPERUSER;
	GRANT USAGE ON FOREIGN SERVER shared TO fallen;
	CREATE USER MAPPING FOR fallen SERVER shared OPTIONS (user '$super')});
my $member = session($local, user => 'member');
is($member->value($ask), '(app_a)', 'a member of a club may use the pool');
$s->value('REVOKE club FROM inner_club');
is($member->query($ask)->{state}, '42501', 'and may not when the club is none of its any more');
$s->value('GRANT club TO inner_club');
is($member->value($ask), '(app_a)', 'a member again');
$s->value('REVOKE inner_club FROM member');
is($member->query($ask)->{state}, '42501', 'and not again');
$s->value('GRANT inner_club TO member');
is($member->value($ask), '(app_a)', 'a member once more');
$s->value('REVOKE USAGE ON FOREIGN SERVER shared FROM club');
is($member->query($ask)->{state}, '42501', 'the club itself loses the right');
$member->quit;

my $fallen = session($local, user => 'fallen');
is($fallen->value($ask), "($super)", 'a superuser needs no password');
$s->value('ALTER ROLE fallen NOSUPERUSER');
is($fallen->query($ask)->{state}, '2F003', 'who is none any more does');
$s->value('ALTER ROLE fallen SUPERUSER');
is($fallen->value($ask), "($super)", 'and not if he is one again');
$fallen->quit;

$s->quit;
done_testing();
