
# "dbpool resolver" with fifty servers and a thousand prepared transactions, of which half are
# to be committed: while the remote has no connection to spare, and while the local disk is
# full.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $SERVERS = 50;
my $EACH = 20;

# Of a file, and so of a table; a segment of the log is as large.
my $FULL = 16 * 1024 * 1024;

my $remote = make_remote(conf => "max_prepared_transactions = 1100\nmax_connections = 90\nfsync = off\n");
my $local = make_local(conf => "autovacuum = off\n");
my $host = $remote->host;
my $port = $remote->port;

$remote->safe_psql('postgres', 'CREATE TABLE t (gid text)');
$local->safe_psql('postgres', qq{
	DO \$do\$ BEGIN
		FOR i IN 1 .. $SERVERS LOOP
			EXECUTE format('CREATE SERVER r%s FOREIGN DATA WRAPPER dbpool OPTIONS (host \$o\$$host\$o\$, port \$o\$$port\$o\$, '
				'dbname \$o\$postgres\$o\$, max_size \$o\$2\$o\$, acquire_timeout \$o\$3s\$o\$)', i);
			EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER r%s', i);
		END LOOP;
	END \$do\$;
	INSERT INTO dbpool_two_phase
	SELECT s.oid, m.umuser, 'dbpool_' || lpad(to_hex(s.oid::bigint), 16, '0'),
		(SELECT system_identifier FROM pg_control_system()) || '/' || (SELECT oid FROM pg_database WHERE datname = 'postgres')
	FROM pg_foreign_server s JOIN pg_user_mapping m ON m.umserver = s.oid});

# What is left of a crash: each second one has a row.
sub leave_all
{
	my $gids = $local->safe_psql('postgres', qq{
		WITH g AS (
			SELECT t.serverid, t.userid, s.srvname, n, t.prefix || '_' || lpad(to_hex(n), 16, '0') AS gid
			FROM dbpool_two_phase t JOIN pg_foreign_server s ON s.oid = t.serverid, generate_series(1, $EACH) n),
		i AS (
			INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid)
			SELECT gid, serverid, userid, srvname, 10, 0 FROM g WHERE n % 2 = 0)
		SELECT gid FROM g ORDER BY n});

	$remote->safe_psql('postgres', join "\n",
		'TRUNCATE t;', map { "BEGIN; INSERT INTO t VALUES ('$_'); PREPARE TRANSACTION '$_';" } split /\n/, $gids);
	return;
}

sub prepared { return $remote->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'); }

# All have been ended as was decided, and the resolver has gone.
sub all_are_ended
{
	my ($name) = @_;

	ok($remote->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_prepared_xacts'), "$name: nothing is prepared any more");
	is($remote->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE right(gid, 1) ~ '[02468ace]') FROM t}),
		join('|', ($SERVERS * $EACH / 2) x 2), "$name: what had a row was committed, nothing else");
	ok($local->poll_query_until('postgres', q{SELECT count(*) = 0 FROM dbpool_prepared WHERE gid LIKE 'dbpool_%'}), "$name: the rows are gone");
	ok($local->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dbpool resolver'}),
		"$name: and so is the resolver");
	return;
}

sub resolver_pid { return $local->safe_psql('postgres', q{SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'dbpool resolver'}); }

subtest 'the remote has no connection to spare' => sub {
	leave_all();
	my @others = map { session($remote) } 1 .. 89;
	my $last = session($remote);
	is($remote->psql('postgres', 'SELECT 1'), 2, 'the remote is full');

	# the first thing that a server looks for when it starts
	$local->restart;
	my $log = -s $local->logfile;
	ok($local->poll_query_until('postgres', qq{SELECT count(DISTINCT serverid) = $SERVERS FROM dbpool_prepared WHERE attempts >= 2}),
		'it was tried at each server, more than once');
	like($local->safe_psql('postgres', 'SELECT DISTINCT last_error FROM dbpool_in_doubt'), qr/could not (open|get) a connection of pool/,
		'the view says why not');
	is($local->safe_psql('postgres', q{SELECT count(*), min(decision) FROM dbpool_in_doubt}), $SERVERS * $EACH / 2 . '|commit', 'and what there is to do');
	is($last->value('SELECT count(*) FROM pg_prepared_xacts'), $SERVERS * $EACH, 'nothing was ended so far');
	my $resolver = resolver_pid();
	my $lines = () = slurp_file($local->logfile, $log) =~ /dbpool cannot end what may be prepared on pool "r\d+" now/g;
	cmp_ok($lines, '<=', $SERVERS, 'the log is told once of each pool');
	cmp_ok(rss_kb($resolver), '<', 60_000, 'and it takes little memory');
	$_->quit foreach @others, $last;
	all_are_ended('full');
};

subtest 'the local disk is full' => sub {
	my $filler = q{INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid, last_error) SELECT 'filler ' || gen_random_uuid(), 0, 0, 'none', 10, 0};

	$local->safe_psql('postgres', "CREATE TABLE mine (id int); $filler, repeat('x', 1000) FROM generate_series(1, 12000)");
	leave_all();
	# new processes cannot make a file larger than that
	system('prlimit', '--pid', $local->{_pid}, "--fsize=$FULL:") == 0 or die 'prlimit failed';
	my $s = session($local, options => '-c dbpool.transaction=two_phase');
	foreach my $text ("repeat('x', 1000)", "''")
	{
		my $answer = $s->query("DO \$\$ BEGIN LOOP $filler, $text; COMMIT; END LOOP; END \$\$");
		like($answer->{err}, qr/could not extend file/, 'there is no room for more rows');
	}
	is($local->safe_psql('postgres', q{SELECT pg_relation_size('dbpool_prepared')}), $FULL, 'as the table cannot grow');
	my $answer = $s->query(join ' ', 'BEGIN; INSERT INTO mine VALUES (1);',
		q{SELECT dbpool_exec('r1', 'INSERT INTO t VALUES (''r1'')');}, q{SELECT dbpool_exec('r2', 'INSERT INTO t VALUES (''r2'')'); COMMIT});
	like($answer->{err}, qr/could not extend file/, 'a commit fails for that');
	$s->query('ROLLBACK');
	is($remote->safe_psql('postgres', q{SELECT count(*) FROM t WHERE gid LIKE 'r%'}), '0', 'nothing of it stays there');
	is($local->safe_psql('postgres', 'SELECT count(*) FROM mine'), '0', 'nor here');
	all_are_ended('disk');
	is($local->safe_psql('postgres', q{SELECT pg_relation_size('dbpool_prepared')}), $FULL, 'with the disk as full as before');
	$s->quit;
	system('prlimit', '--pid', $local->{_pid}, '--fsize=unlimited:') == 0 or die 'prlimit failed';
};

done_testing();
