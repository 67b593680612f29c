
# What serves in place of a remote that is away: another pool for reads (fallback_server), and a
# standby in place of the primary (read_only_when_degraded).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $first = make_remote(name => 'first');
my $second = make_remote(name => 'second');
my $local = make_local(conf => "dbpool.workers = 1\n");
my $control = session($local);
my $s = session($local);
my $listener = session($local);
my $role = $control->value('SELECT current_user');

foreach my $node ($first, $second)
{
	my $name = $node->name;

	$node->safe_psql('postgres', qq{
		CREATE TABLE t (name text);
		INSERT INTO t VALUES ('$name');
		CREATE FUNCTION writes() RETURNS text LANGUAGE sql AS
			\$\$ INSERT INTO t VALUES ('written') RETURNING name \$\$});
}
$listener->query('LISTEN dbpool');

sub query
{
	my ($pool, $sql, $session) = @_;

	return ($session // $s)->query("SELECT * FROM dbpool_query('$pool', \$\$$sql\$\$) AS t(name text)");
}

sub fallbacks
{
	my ($pool) = @_;

	return $control->value("SELECT sum(fallbacks) FROM dbpool_stat_pools WHERE pool = '$pool'");
}

# A call that fails as its pool's remote is away; the context says why no other stands in.
sub is_refused
{
	my ($answer, $why, $name) = @_;

	is($answer->{state}, '08001', "$name: the pool's own error");
	like($answer->{err}, qr/could not open a connection of pool/, "$name: which says what is away");
	like($answer->{err}, $why, "$name: why no other stands in") if defined $why;
	unlike($answer->{err}, qr/not used|takes no writes/, "$name: nothing was to") unless defined $why;
	return;
}

# --- reads go to the other pool, and come back ---------------------------------------------

create_pool($local, 'b', $second, read_only => 'true');
create_pool($local, 'a', $first, read_only => 'true', fallback_server => 'b');
create_pool($local, 'bw', $second);
create_pool($local, 'aw', $first, fallback_server => 'bw');
is(query('a', 'SELECT name FROM t')->{out}, 'first', 'with its remote there, a pool serves itself');
is(fallbacks('a'), 0, 'and nothing is counted');
$first->stop('immediate');
is(query('a', 'SELECT name FROM t')->{out}, 'second', 'the other pool stands in');
is(query('a', 'SELECT name FROM t')->{out}, 'second', 'again');
is($s->query(q{SELECT * FROM dbpool_query('a', 'SELECT name FROM t WHERE name = $1', 'second'::text) AS t(name text)})->{out},
	'second', 'with parameters');
is($s->query(q{SELECT dbpool_exec('a', 'SELECT name FROM t')})->{out}, '1', 'a script of one statement');
is($s->query(q{SELECT dbpool_value(NULL::text, 'a', 'SELECT name FROM t')})->{out}, 'second', 'a value');
is(fallbacks('a'), 5, 'each is counted');
is(query('a', 'SELECT 1/0 FROM t')->{state}, '22012', 'an error there is an error');
like(query('a', 'SELECT 1/0 FROM t')->{err}, qr/pool "b" stands in for pool "a": could not open a connection of pool "a"/,
	'which says whose it is');

# --- by hand -------------------------------------------------------------------------------

$first->start;
is($control->value(q{SELECT dbpool_isolate('a')}), 'isolated', 'a pool is isolated, with its remote there or not');
is(query('a', 'SELECT name FROM t')->{out}, 'second', 'its reads go to the other');
like(query('a', 'SELECT 1/0 FROM t')->{err}, qr/pool "b" stands in for pool "a": pool "a" is isolated/, 'as is said');
is($s->query(q{SELECT dbpool_ping('a')})->{state}, '08001', 'what is no read fails as if its remote were away');
is($control->value(q{SELECT dbpool_enable('a')}), 'enabled', 'it is enabled');
# as soon as a probe has found its remote
wait_until('it serves itself', sub { return query('a', 'SELECT name FROM t')->{out} eq 'first' });
is($control->value(q{SELECT dbpool_disable('a')}), 'disabled', 'it is disabled');
is(query('a', 'SELECT name FROM t')->{state}, '55000', 'and no other stands in');
$control->value(q{SELECT dbpool_enable('a')});
$first->stop('immediate');
$control->value(q{SELECT dbpool_stat_reset('a')});

# --- what is no read -----------------------------------------------------------------------

is(query('aw', 'SELECT name FROM t')->{out}, 'second', 'a read of a pool that may write');
is(query('aw', 'SELECT name FROM t')->{out}, 'second', 'whose connection is as before afterwards');
is_refused(query('aw', q{INSERT INTO t VALUES ('x') RETURNING name}), undef, 'a write');
is_refused(query('aw', 'SELECT writes()'), qr/fallback_server "bw" takes no writes/, 'a write that does not look so');
my $before = fallbacks('aw');
is_refused($s->query(q{SELECT dbpool_exec('aw', 'INSERT INTO t VALUES (''x'')')}), undef, 'a script that writes');
is(fallbacks('aw'), $before, 'which is not even sent there');
is_refused($s->query(q{SELECT dbpool_exec('aw', 'SELECT 1; SELECT 2')}), undef, 'a script');
is_refused($s->query(q{SELECT dbpool_exec('aw', 'SET default_transaction_read_only = off')}), undef, 'a setting');
is_refused($s->query(q{SELECT dbpool_ping('aw')}), undef, 'a ping');
is($second->safe_psql('postgres', 'SELECT count(*) FROM t'), '1', 'nothing was written there');
is($s->query(q{SELECT dbpool_exec('bw', 'INSERT INTO t VALUES (''y'')')})->{out}, '1', 'whose own pool writes as before');
$second->safe_psql('postgres', q{DELETE FROM t WHERE name = 'y'});

# --- transactions ----------------------------------------------------------------------------

$s->query('BEGIN');
$s->query(q{SELECT dbpool_begin('bw')});
$s->query(q{SELECT dbpool_exec('bw', 'DELETE FROM t')});
is(query('aw', 'SELECT name FROM t LIMIT 1')->{out}, 'second', 'who stands in is not in the transaction on that pool');
$s->query(q{SELECT dbpool_rollback('bw')});
$s->query('ROLLBACK');
$s->query('SET dbpool.transaction = bound');
is_refused(query('aw', 'SELECT name FROM t'), undef, 'a call of a transaction');
$s->query('RESET dbpool.transaction');

# --- one step ----------------------------------------------------------------------------------

create_pool($local, 'self', $first, fallback_server => 'self');
create_pool($local, 'chain', $first, fallback_server => 'a');
create_pool($local, 'gone', $first, fallback_server => 'nonesuch');
is_refused(query('self', 'SELECT name FROM t'), qr/fallback_server "self" is not used: it is the pool itself/, 'itself');
is_refused(query('gone', 'SELECT name FROM t'), qr/"nonesuch" is not used: there is no pool of that name/, 'one that is not there');
{
	my $answer = query('chain', 'SELECT name FROM t');

	is($answer->{state}, '08001', 'a second step is not made');
	like($answer->{err}, qr/could not open a connection of pool "a".*pool "a" stands in for pool "chain"/s, 'as is said');
}

# --- rights ------------------------------------------------------------------------------------

$control->value($_) foreach (
	'CREATE ROLE reader', 'CREATE ROLE keeper', 'GRANT CREATE ON DATABASE postgres TO keeper',
	'GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO keeper',
	'GRANT USAGE ON FOREIGN SERVER a TO reader',
	qq{CREATE USER MAPPING FOR reader SERVER a OPTIONS (user '$role', password_required 'false')});
my $reader = session($local);
$reader->query('SET ROLE reader');
is_refused(query('a', 'SELECT name FROM t', $reader), qr/"b" is not used: role "reader" has no USAGE on it/, 'no right');
$control->value('GRANT USAGE ON FOREIGN SERVER b TO reader');
is_refused(query('a', 'SELECT name FROM t', $reader), qr/"b" is not used: role "reader" has no user mapping for it/, 'no mapping');
$control->value(qq{CREATE USER MAPPING FOR reader SERVER b OPTIONS (user '$role')});
{
	my $answer = query('a', 'SELECT name FROM t', $reader);

	is($answer->{state}, '2F003', 'the rules about passwords are those of the other pool');
}
$control->value(q{ALTER USER MAPPING FOR reader SERVER b OPTIONS (password_required 'false')});
is(query('a', 'SELECT name FROM t', $reader)->{out}, 'second', 'with all rights it serves');
$control->value('ALTER SERVER a OWNER TO keeper');
is_refused(query('a', 'SELECT name FROM t', $reader), qr/the pool's owner, "keeper", has no USAGE on it/,
	'nobody has calls run on a server that he may not use');
$control->value('GRANT USAGE ON FOREIGN SERVER b TO keeper');
is(query('a', 'SELECT name FROM t', $reader)->{out}, 'second', 'but on one that he may');

# --- who is told -------------------------------------------------------------------------------

$control->poll(q{SELECT count(*) = 1 FROM dbpool_alerts WHERE alert = 'fallback' AND pool = 'aw'});
like($control->value(q{SELECT problem FROM dbpool_alerts WHERE alert = 'fallback' AND pool = 'aw'}),
	qr/its reads go to its fallback_server, .*could be opened: /s, 'the alert says why');
query('aw', 'SELECT name FROM t') foreach 1 .. 20;
$first->start;
# the breaker may be open for a moment
wait_until('the pool serves itself again', sub { return query('aw', 'SELECT name FROM t')->{out} eq 'first' });
$control->poll(q{SELECT count(*) = 0 FROM dbpool_alerts WHERE alert = 'fallback' AND pool = 'aw'});
{
	my $heard = '';

	wait_until('its end is told', sub {
		$heard .= $listener->query('SELECT 1')->{out};
		return $heard =~ /"alert": ?"fallback".{0,30}"ends".{0,60}"pool": ?"aw"/ });
	my @begins = $heard =~ /"alert": ?"fallback".{0,30}"begins".{0,60}"pool": ?"aw"/g;
	is(scalar @begins, 1, 'once for all calls');
}
is($s->query(q{SELECT dbpool_exec('aw', 'INSERT INTO t VALUES (''z'')')})->{out}, '1', 'and writes');

# --- what the option may be ----------------------------------------------------------------------

is($s->query(q{ALTER SERVER aw OPTIONS (SET fallback_server '')})->{state}, 'HV024', 'a name is not empty');
# --- a standby in place of the primary -----------------------------------------------------------

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "autovacuum = off\nmax_connections = 100\n");
$primary->start;
$primary->safe_psql('postgres', q{CREATE TABLE t (name text); CREATE TABLE n (n int); CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS
	$$ INSERT INTO n VALUES (2) RETURNING n $$; INSERT INTO t VALUES ('row')});
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

my %both = (host => $primary->host . ',' . $standby->host, port => $primary->port . ',' . $standby->port,
	dbname => 'postgres', read_only_when_degraded => 'true');
create_pool($local, 'rw', undef, %both, target_session_attrs => 'read-write', max_size => 3);
create_pool($local, 'one', undef, %both, target_session_attrs => 'primary', max_size => 1);
create_pool($local, 'patient', undef, %both, target_session_attrs => 'read-write', failover_wait => '2s');
create_pool($local, 'strict', undef, %both, target_session_attrs => 'read-write', read_only_when_degraded => 'false');

sub insert
{
	my ($pool) = @_;

	return $s->query("SELECT dbpool_exec('$pool', 'INSERT INTO n VALUES (1)')");
}

sub degraded
{
	my ($pool) = @_;

	return $control->value("SELECT coalesce(bool_or(degraded_since < now()), false) FROM dbpool_pools WHERE pool = '$pool'") eq 't';
}

# A read that is answered, though connections may be lost at first.
sub reads
{
	my ($pool) = @_;

	wait_until("a read of $pool is answered", sub { return query($pool, 'SELECT name FROM t')->{out} eq 'row' });
	return;
}

foreach my $pool (qw(rw one patient strict))
{
	is(insert($pool)->{out}, '1', "pool $pool writes while there is a primary");
	ok(!degraded($pool), 'and is not degraded');
}
$primary->stop('immediate');
reads($_) foreach qw(rw one);
ok(degraded($_), "pool $_ is degraded") foreach qw(rw one);
like($control->value(q{SELECT string_agg(DISTINCT port::text, ' ') FROM dbpool_connections WHERE pool IN ('rw', 'one')}),
	qr/^@{[ $standby->port ]}$/, 'and served by the standby');
is(query('strict', 'SELECT name FROM t')->{state}, '08001', 'no pool without the option is');
foreach my $write ('INSERT INTO n VALUES (1) RETURNING n::text', 'SELECT writes()::text')
{
	my $answer = query('rw', $write);

	is($answer->{state}, '25006', 'a write fails');
	like($answer->{err}, qr/Pool "rw" is degraded: for [\d.]+ s it has been served by a standby, read-only, as no primary could be connected to: .*failed/s,
		'and says why');
}
{
	my $answer = $s->query(q{SELECT dbpool_exec('rw', 'SET default_transaction_read_only = off; INSERT INTO n VALUES (1)')});

	is($answer->{state}, '25006', 'a script that writes as well');
	$s->query(q{SELECT dbpool_exec('rw', 'SET default_transaction_read_only = off')});
	is($s->query(q{SELECT DISTINCT x FROM generate_series(1, 5), dbpool_query('rw', 'SELECT current_setting(''default_transaction_read_only'')') AS t(x text)})->{out},
		'on', 'a session that was made read-write is made read-only again');
}
$s->query('BEGIN READ ONLY');
$s->query('SET LOCAL dbpool.inherit_read_only = on');
is(query('rw', 'SELECT name FROM t')->{out}, 'row', 'a call that is to be read-only');
$s->query('COMMIT');
is(query('rw', q{SELECT current_setting('default_transaction_read_only')})->{out}, 'on', 'after which the session is so still');
$s->query('BEGIN');
is($s->query(q{SELECT dbpool_begin('rw')})->{state}, '', 'a transaction begins');
is(query('rw', 'SELECT name FROM t')->{out}, 'row', 'in which can be read');
is(insert('rw')->{state}, '25006', 'but not written');
$s->query('ROLLBACK');
$control->poll(q{SELECT count(*) = 2 FROM dbpool_alerts WHERE alert = 'degraded' AND pool IN ('rw', 'one')});
like($control->value(q{SELECT problem FROM dbpool_alerts WHERE alert = 'degraded' AND pool = 'rw'}),
	qr/served by a standby and takes no writes, as no primary could be connected to: .*failed/s, 'an alert says so');
is($control->value(qq{SELECT role FROM dbpool_endpoints WHERE port = '@{[ $standby->port ]}'}), 'standby', 'and the endpoint');

# --- who waits first ---------------------------------------------------------------------------------

{
	my $answer = query('patient', 'SELECT name FROM t');

	is($answer->{out}, 'row', 'a pool that waits for a primary is degraded after that');
	cmp_ok($answer->{seconds}, '>', 1.5, 'not before');
	$answer = query('patient', 'SELECT name FROM t');
	is($answer->{out}, 'row', 'the next call');
	cmp_ok($answer->{seconds}, '<', 1, 'does not wait');
}

# --- the primary is back, and is found without a call ----------------------------------------------

$primary->start;
foreach my $pool (qw(rw one patient))
{
	wait_until("pool $pool leaves the standby", sub { return !degraded($pool) });
	is(insert($pool)->{out}, '1', "pool $pool writes again");
	is($control->value(qq{SELECT count(*) FROM dbpool_connections WHERE pool = '$pool' AND state <> 'connecting' AND port = @{[ $standby->port ]}}), '0',
		'and has left the standby');
}

# --- the standby becomes the primary ----------------------------------------------------------------

$primary->wait_for_catchup($standby);
$primary->stop('immediate');
reads($_) foreach qw(rw one);
ok(degraded($_), "pool $_ is degraded again") foreach qw(rw one);
$standby->promote;
foreach my $pool (qw(rw one patient))
{
	wait_until("pool $pool finds the new primary", sub { return insert($pool)->{out} eq '1' });
	ok(!degraded($pool), 'and is not degraded');
}
like(slurp_file($local->logfile), qr/pool "rw" is not degraded any more: there is a primary/, 'as the log says');

# --- neither ----------------------------------------------------------------------------------------

$standby->stop('immediate');
wait_until('there is nobody', sub { return query('rw', 'SELECT name FROM t')->{state} eq '08001' });
ok(!degraded('rw'), 'without a standby a pool is not degraded');

# --- what the option goes with -----------------------------------------------------------------------

is($s->query(q{ALTER SERVER bw OPTIONS (ADD read_only_when_degraded 'true')})->{state}, 'HV024', 'it is for pools that want a primary');
is($s->query(q{ALTER SERVER rw OPTIONS (ADD reset 'never')})->{state}, 'HV024', 'whose sessions are put back');
$_->quit foreach $control, $s, $listener, $reader;
done_testing();
