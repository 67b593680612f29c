
# Transactions in two phases where there are standbys: of a remote, which do not know what is
# prepared, and take over; and of the local server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

sub primary
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', "autovacuum = off\nmax_prepared_transactions = 10\n$conf");
	$node->start;
	return $node;
}

sub standby_of
{
	my ($node) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($node->name . '_standby');

	$node->backup('base');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby);
	return $standby;
}

my $remote = primary('remote', '');
$remote->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY)');
my $mirror = standby_of($remote);
my $local = primary('local', "shared_preload_libraries = 'dbpool'\n");
$local->safe_psql('postgres', 'CREATE EXTENSION dbpool; CREATE TABLE t (id int)');

my $hosts = $remote->host . ',' . $mirror->host;
create_pool($local, 'hosts', undef, host => $hosts, port => $remote->port . ',' . $mirror->port, dbname => 'postgres');
create_pool($local, 'direct', $remote);

my $now = $remote;
my $id = 0;
my $in_doubt;

# A commit in two phases, after which the resolver has a look.
sub want
{
	my ($node, $pool) = @_;
	my $s = session($node, options => '-c dbpool.transaction=two_phase');

	$id++;
	$s->value("BEGIN; INSERT INTO t VALUES ($id)");
	$s->value("SELECT dbpool_exec('$pool', 'INSERT INTO t VALUES ($id)')");
	is($s->query('COMMIT')->{err}, '', "a commit on $pool");
	$s->quit;
	return;
}

# What a crash leaves of a transaction that is to be committed.
sub leave
{
	my ($pool) = @_;
	my $gid = $local->safe_psql('postgres', qq{
		SELECT prefix || '_' || lpad(to_hex($id), 16, '0') FROM dbpool_two_phase t
		JOIN pg_foreign_server s ON s.oid = t.serverid WHERE srvname = '$pool'});

	$id++;
	$in_doubt = $id;
	$now->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES ($id); PREPARE TRANSACTION '$gid'");
	$local->safe_psql('postgres', qq{
		INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid)
		SELECT '$gid', serverid, userid, '$pool', 10, 0 FROM dbpool_two_phase t
		JOIN pg_foreign_server s ON s.oid = t.serverid WHERE srvname = '$pool'});
	return;
}

sub soon
{
	my ($name, $condition) = @_;
	my $end = time + 10;

	until ($condition->())
	{
		return ok(0, $name) if time > $end;
		sleep 0.1;
	}
	return ok(1, $name);
}

sub rows { my ($node) = @_; return $node->safe_psql('postgres', 'SELECT count(*) FROM dbpool_prepared'); }
sub there { return $now->safe_psql('postgres', "SELECT count(*) FROM t WHERE id = $_[0]"); }

want($local, 'hosts');
want($local, 'direct');
soon('the rows go', sub { rows($local) eq '0' });

subtest 'a standby among the hosts' => sub {
	leave('hosts');
	# the first that is there is taken
	$local->safe_psql('postgres', "ALTER SERVER hosts OPTIONS (SET port '" . $mirror->port . ',' . $remote->port . "')");
	is($local->safe_psql('postgres', q{SELECT * FROM dbpool_query('hosts', 'SELECT pg_is_in_recovery()') AS t(x bool)}), 't', 'it is the standby');
	want($local, 'direct');
	soon('the resolver has asked it', sub { $local->safe_psql('postgres', q{SELECT attempts FROM dbpool_in_doubt WHERE pool = 'hosts'}) > 0; });
	like($local->safe_psql('postgres', q{SELECT last_error FROM dbpool_in_doubt WHERE pool = 'hosts'}),
		qr/is a standby, which does not know what is prepared/, 'and does not believe it');
	$local->safe_psql('postgres', q{ALTER SERVER hosts OPTIONS (ADD target_session_attrs 'read-write')});
	soon('the primary is believed', sub { there($in_doubt) eq '1' && rows($local) eq '0' });
};

subtest 'a failover of the remote' => sub {
	leave('hosts');
	$remote->wait_for_catchup($mirror);
	$remote->stop('immediate');
	$mirror->promote;
	$now = $mirror;
	want($local, 'hosts');
	soon('what is prepared is committed by the new primary', sub { there($in_doubt) eq '1' && rows($local) eq '0' });
};

subtest 'a failover of the local server' => sub {
	my $copy = standby_of($local);

	leave('hosts');
	my $orphan = $local->safe_psql('postgres', q{SELECT prefix || '_00000000000000ff' FROM dbpool_two_phase t
		JOIN pg_foreign_server s ON s.oid = t.serverid WHERE srvname = 'hosts'});
	$mirror->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES (-1); PREPARE TRANSACTION '$orphan'");
	$local->wait_for_catchup($copy);
	my $s = session($copy, options => '-c dbpool.transaction=two_phase');
	is($s->query(qq{SELECT dbpool_resolve('$orphan', 'commit')})->{state}, '25006', 'a standby does not resolve by hand');
	is($mirror->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '2', 'nor by itself');
	$s->quit;
	$local->stop('immediate');
	$copy->promote;
	soon('the one that is promoted does: what is decided is committed', sub { there($in_doubt) eq '1' && rows($copy) eq '0' });
	soon('and what is not is rolled back', sub { $mirror->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts') eq '0' });
	is($mirror->safe_psql('postgres', 'SELECT count(*) FROM t WHERE id = -1'), '0', 'it is not there');
	want($copy, 'hosts');
	is(there($id), '1', 'and further ones are committed');
	$local = $copy;
};

# A remote that fails over to a standby which had not got what was prepared.
subtest 'what a failover of the remote has lost' => sub {
	my $old = $now;
	my $new = standby_of($old);
	my $proxy = FaultProxy->start($old);
	my $decided = '';
	my $warning = qr/WARNING:  prepared transaction "(\w+)" of pool "lossy" is not at the remote server any more, which has failed over since/;

	create_pool($local, 'lossy', undef, $proxy->options(host => '127.0.0.1,' . $new->host,
		port => $proxy->port . ',' . $new->port, target_session_attrs => 'read-write'));
	want($local, 'lossy');
	soon('the row goes', sub { rows($local) eq '0' });
	$new->stop;
	$proxy->tell('on frontend message Q "COMMIT PREPARED" before stall');
	want($local, 'lossy');
	is(there($id), '0', 'it is decided, and not committed there');
	$decided = $local->safe_psql('postgres', 'SELECT gid FROM dbpool_prepared');
	is($old->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'), $decided, 'but prepared');
	$old->stop('immediate');
	$proxy->stop;
	$new->start;
	$new->promote;
	$now = $new;
	soon('its row goes', sub { rows($local) eq '0' });
	my @lost = slurp_file($local->logfile) =~ /$warning/g;
	is("@lost", $decided, 'and the log has that it is lost, perhaps');
	is(there($id), '0', 'as it is');
	want($local, 'lossy');
	soon('the next is committed', sub { rows($local) eq '0' });
	@lost = slurp_file($local->logfile) =~ /$warning/g;
	is(scalar @lost, 1, 'of which nothing is said');
};

# And one that had got what was prepared, and not that it was committed.
subtest 'what a failover of the remote brings back' => sub {
	my $old = $now;
	my $new = standby_of($old);
	my $proxy = FaultProxy->start($old);
	my $rule;

	create_pool($local, 'back', undef, $proxy->options(host => '127.0.0.1,' . $new->host,
		port => $proxy->port . ',' . $new->port, target_session_attrs => 'read-write'));
	want($local, 'back');
	soon('the row goes', sub { rows($local) eq '0' });
	$proxy->tell('on frontend message Q "COMMIT PREPARED" before stall');
	want($local, 'back');
	my $back = $id;
	$old->wait_for_catchup($new);
	$new->stop;
	$proxy->tell('resume');
	soon('it is committed, and its row goes', sub { there($back) eq '1' && rows($local) eq '0' });
	$old->stop('immediate');
	$proxy->stop;
	$new->start;
	$new->promote;
	$now = $new;
	is($new->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '1', 'it is prepared again');
	want($local, 'back');
	soon('and is committed again', sub { there($back) eq '1' && $new->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts') eq '0' });
};

done_testing();
