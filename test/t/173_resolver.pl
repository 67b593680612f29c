
# "dbpool resolver", and whom it may believe: remotes that hang, lie, are standbys, or are
# not there any more; transactions that are prepared after everybody has gone; databases and
# servers that were copied, dropped or altered while something was in doubt.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my @remotes = map {
	make_remote(
		name => "remote$_",
		conf => "restart_after_crash = on\nmax_prepared_transactions = 50\nlog_statement = all\n")
} 1 .. 2;
my $local = make_local(conf => "restart_after_crash = on\nwal_level = replica\n");

foreach my $i (0, 1)
{
	$remotes[$i]->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE gate ()');
	create_pool($local, 'r' . ($i + 1), $remotes[$i], max_size => 5, acquire_timeout => '2s');
}
$remotes[1]->safe_psql('postgres', q{
	CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE gate IN ACCESS SHARE MODE; RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER pass AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pass()});
$local->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY)');

my $id = 0;
my $control = session($local);

sub two_phase { return session($local, options => '-c dbpool.transaction=two_phase', @_); }
sub insert { my ($pool) = @_; return "SELECT dbpool_exec('$pool', 'INSERT INTO t VALUES ($id)')"; }

sub prepared
{
	my ($node, $database) = @_;
	return $node->safe_psql($database || 'postgres',
		'SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()');
}

sub there { my ($node) = @_; return $node->safe_psql('postgres', "SELECT count(*) FROM t WHERE id = $id"); }

sub count_in
{
	my ($node, $offset, $pattern) = @_;
	my $log = slurp_file($node->logfile, $offset);

	return scalar(() = $log =~ /$pattern/g);
}

# So many questions of the resolver were answered since.
sub wait_for_looks
{
	my ($node, $offset, $n) = @_;
	return ok(DbpoolTest::wait_until("the resolver has asked $n times",
			sub { count_in($node, $offset, 'FROM pg_catalog.pg_prepared_xacts') >= $n }), 'the resolver has looked');
}

sub soon
{
	my ($name, $condition, $seconds) = @_;
	my $end = time + ($seconds || 10);

	until ($condition->())
	{
		return ok(0, $name) if time > $end;
		sleep 0.1;
	}
	return ok(1, $name);
}

sub resolver_ends
{
	my ($name) = @_;
	return soon("$name: the resolver ends", sub {
		$local->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool resolver'}) eq '0'; });
}

# A commit in two phases on a pool wants the resolver, which deletes its row.
sub want
{
	my ($pool, $database) = @_;
	my $s = two_phase(dbname => $database || 'postgres');

	$id++;
	$s->value('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert($pool));
	is($s->query('COMMIT')->{err}, '', "a commit on $pool");
	soon('the resolver has looked', sub {
		$local->safe_psql($database || 'postgres', 'SELECT count(*) FROM dbpool_prepared WHERE pid = ' . $s->pid) eq '0'; });
	$s->quit;
	return;
}

sub prefix
{
	my ($pool, $database) = @_;
	return $local->safe_psql($database || 'postgres',
		"SELECT prefix FROM dbpool_two_phase t JOIN pg_foreign_server s ON s.oid = t.serverid WHERE srvname = '$pool'");
}

# What is left of a crash: a prepared transaction, and its row if it is to be committed.
my $number = 0;
sub leave
{
	my ($pool, $node, $decided, %params) = @_;
	my $gid = sprintf '%s_%016x', $params{prefix} || prefix($pool), ++$number;

	$id++;
	$node->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES ($id); PREPARE TRANSACTION '$gid'",
		extra_params => [ '-U', $params{user} || $node->{_user} || getpwuid($<) ]);
	$local->safe_psql('postgres', qq{
		INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid)
		SELECT '$gid', t.serverid, t.userid, srvname, 10, 0 FROM dbpool_two_phase t JOIN pg_foreign_server s ON s.oid = t.serverid
		WHERE srvname = '$pool'}) if $decided;
	return $gid;
}

sub pid_of_lease { my ($pool) = @_; return $control->value("SELECT remote_pid FROM dbpool_transactions WHERE pool = '$pool'"); }
sub rows { return $local->safe_psql($_[0] || 'postgres', 'SELECT count(*) FROM dbpool_prepared'); }

want('r1');
want('r2');

subtest 'prepared when everybody has gone' => sub {
	my $s = two_phase();

	$id++;
	$s->value('BEGIN');
	$s->value(insert('r1'));
	$s->value(insert('r2'));
	# this one finds its PREPARE in its socket when it goes on
	my $pid = pid_of_lease('r2');
	DbpoolTest::suspend($pid);
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('the first is prepared', sub { prepared($remotes[0]) eq '1' }), 'the first is prepared');
	my $offset = -s $remotes[1]->logfile;
	$local->stop('immediate');
	$local->start;
	$s->wait;
	$s->kill;
	$control = session($local);
	soon('it is rolled back', sub { prepared($remotes[0]) eq '0' });
	wait_for_looks($remotes[1], $offset, 6);
	DbpoolTest::resume($pid);
	ok(DbpoolTest::wait_until('the second prepares', sub { count_in($remotes[1], $offset, 'PREPARE TRANSACTION') > 0 }),
		'the second prepares, after its client has gone');
	soon('that is rolled back', sub { there($remotes[1]) eq '0' && prepared($remotes[1]) eq '0' });
	ok(DbpoolTest::wait_until('its process ends', sub { !-e "/proc/$pid" }), 'its process ends');
	soon('and stays so', sub { prepared($remotes[1]) eq '0' });
	resolver_ends('late');
};

subtest 'the second step hangs' => sub {
	my $s = two_phase();
	my $gate = session($remotes[1]);

	$gate->query('BEGIN; LOCK TABLE gate');
	$id++;
	$s->value('BEGIN');
	$s->value(insert('r1'));
	$s->value(insert('r2'));
	my $pid = pid_of_lease('r1');
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('the first is prepared', sub { prepared($remotes[0]) eq '1' }), 'the first is prepared');
	DbpoolTest::suspend($pid);
	$gate->quit;
	is($s->wait->{err}, '', 'the commit succeeds');
	my $offset = -s $remotes[0]->logfile;
	wait_for_looks($remotes[0], $offset, 4);
	is(prepared($remotes[0]), '1', 'its worker still tries to end it');
	# the remote restarts
	kill 'KILL', $pid;
	DbpoolTest::resume($pid);
	soon('then the resolver does', sub { $remotes[0]->psql('postgres', 'SELECT 1') == 0 && prepared($remotes[0]) eq '0' }, 20);
	is(there($remotes[0]), '1', 'as was decided');
	soon('the rows go', sub { rows() eq '0' });
	resolver_ends('second step');
	$s->quit;
};

# Who copies a database keeps others from entering it, and so the resolver on its way.
subtest 'a resolver that ends before it has looked' => sub {
	my $copier = session($local, dbname => 'template1');
	my $gid = leave('r1', $remotes[0], 1);
	my @found;

	leave('r2', $remotes[1], 1);
	# it waits for others to leave, in vain
	$copier->send('CREATE DATABASE copied TEMPLATE postgres');
	$control->poll(q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND mode = 'ShareLock'}, 't');
	# which wants it
	$control->query("SELECT dbpool_resolve('$gid', 'commit')");
	ok(DbpoolTest::wait_until('it is on its way', sub {
		@found = grep { (slurp_file("/proc/$_/cmdline") // '') =~ /dbpool resolver/ } DbpoolTest::child_pids($local->{_pid}) }), 'it is on its way');
	kill 'TERM', @found;
	ok(DbpoolTest::wait_until('it is gone', sub { !kill 0, @found }), 'it ends');
	$copier->wait;
	soon('another one looks', sub { prepared($remotes[1]) eq '0' });
	resolver_ends('early');
	$copier->quit;
};

subtest 'one that hangs, and others' => sub {
	my $offset = -s $local->logfile;

	leave('r1', $remotes[0], 1);
	leave('r2', $remotes[1], 1);
	my $pid = slurp_file($remotes[0]->data_dir . '/postmaster.pid');
	$pid =~ s/\n.*//s;
	my @stopped = DbpoolTest::child_pids($pid);
	DbpoolTest::suspend($pid, @stopped);
	want('r2');
	soon('the other one is committed meanwhile', sub { prepared($remotes[1]) eq '0' });
	is($local->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool resolver' AND backend_xmin IS NULL}),
		'1', 'the resolver keeps VACUUM from nothing');
	ok(DbpoolTest::wait_until('it gives up', sub {
		$local->safe_psql('postgres', 'SELECT coalesce(min(attempts), 0) FROM dbpool_in_doubt') >= 2; }), 'it tries again');
	like($local->safe_psql('postgres', 'SELECT last_error FROM dbpool_in_doubt'), qr/does not answer|could not get a connection/, 'and says why');
	is(count_in($local, $offset, 'dbpool cannot end what may be prepared on pool "r1"'), 1, 'the log is told once');
	DbpoolTest::resume(@stopped, $pid);
	soon('when it goes on it is committed', sub { prepared($remotes[0]) eq '0' && rows() eq '0' });
	resolver_ends('hanging');
};

# A warning for each that stays in doubt for a minute, which has passed here.
subtest 'what is in doubt for long' => sub {
	my $offset = -s $local->logfile;
	my $warnings = sub {
		my ($gid) = @_;
		return count_in($local, $offset, qr/WARNING:  prepared transaction "$gid" of pool "r1" has been in doubt for \d+ s/);
	};
	my $attempts = sub {
		my ($gid, $n) = @_;
		return ok(DbpoolTest::wait_until("$n attempts", sub {
				$local->safe_psql('postgres', "SELECT coalesce(max(attempts), 0) FROM dbpool_in_doubt WHERE gid = '$gid'") >= $n }), "it was tried $n times");
	};
	my $old = leave('r1', $remotes[0], 1);
	my $new = leave('r1', $remotes[0], 1);

	$local->safe_psql('postgres', "UPDATE dbpool_prepared SET prepared_at = prepared_at - interval '1 day' WHERE gid = '$old'");
	my $listener = session($local);
	$listener->query('LISTEN dbpool');
	$remotes[0]->stop('immediate');
	want('r2');
	$attempts->($old, 3);
	is($local->safe_psql('postgres', q{SELECT count(*), min(severity), bool_and(since < clock_timestamp() - interval '1 h' AND value > 86400)
		FROM dbpool_alerts WHERE alert = 'in_doubt' AND pool = 'r1'}), '1|critical|t', 'one is enough for an alert');
	soon('who listens is told', sub {
		$listener->query('SELECT 1')->{out} =~ /"alert": "in_doubt", "state": "begins", "severity": "critical", "pool": "r1", "value": 864\d\d/ });
	is($warnings->($old), 1, 'an old one is told of once');
	is($warnings->($new), 0, 'a new one is not');
	like(slurp_file($local->logfile, $offset), qr/"$old" of pool "r1" has been in doubt for 864\d\d s\n.*DETAIL:  It is to be committed, .* 1 attempt has failed: .+\n.*HINT:  dbpool goes on trying, see dbpool_in_doubt\. .* COMMIT PREPARED '$old'\./,
		'with what is to become of it, why that has failed, and what to do');
	$local->safe_psql('postgres', "UPDATE dbpool_prepared SET prepared_at = clock_timestamp() - interval '58 s', last_attempt = NULL, attempts = 0 WHERE gid = '$new'");
	ok(DbpoolTest::wait_until('the new one gets old', sub { $warnings->($new) > 0 }), 'when a minute has passed it is, too');
	$local->restart;
	$control = session($local);
	$local->safe_psql('postgres', "UPDATE dbpool_prepared SET attempts = 0");
	$attempts->($new, 2);
	is($warnings->($_), 1, 'once in all') foreach $old, $new;
	$remotes[0]->start;
	soon('the rows go', sub { prepared($remotes[0]) eq '0' && rows() eq '0' }, 30);
	resolver_ends('for long');
};

subtest 'what others have prepared under such names' => sub {
	$remotes[0]->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE other LOGIN; GRANT other TO app; GRANT ALL ON t TO app, other');
	$local->safe_psql('postgres', 'CREATE ROLE app LOGIN; GRANT INSERT ON t TO app');
	create_pool($local, 'apps', $remotes[0], max_size => 5);
	$local->safe_psql('postgres', q{GRANT USAGE ON FOREIGN SERVER apps TO app;
		CREATE USER MAPPING FOR app SERVER apps OPTIONS (user 'app', password_required 'false')});
	my $s = two_phase(user => 'app');
	my $gate = session($remotes[1]);

	# the role that is in effect at the end does not matter
	$local->safe_psql('postgres', q{GRANT USAGE ON FOREIGN SERVER r2 TO app; CREATE USER MAPPING FOR app SERVER r2 OPTIONS (user '} . getpwuid($<) . q{', password_required 'false')});
	$gate->query('BEGIN; LOCK TABLE gate');
	$id++;
	$s->value('BEGIN');
	$s->value(q{SELECT dbpool_exec('apps', 'SET ROLE other')});
	$s->value(insert('apps'));
	$s->value(insert('r2'));
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('it is prepared', sub { prepared($remotes[0]) eq '1' }), 'it is prepared');
	is($remotes[0]->safe_psql('postgres', 'SELECT owner FROM pg_prepared_xacts'), 'app', 'and belongs to who logs in');
	$local->stop('immediate');
	$gate->quit;
	$local->start;
	$s->wait;
	$s->kill;
	$control = session($local);
	soon('so the resolver can end it', sub { prepared($remotes[0]) eq '0' && prepared($remotes[1]) eq '0' });

	my $prefix = $local->safe_psql('postgres', q{SELECT prefix FROM dbpool_two_phase t JOIN pg_foreign_server s ON s.oid = t.serverid WHERE srvname = 'apps'});
	my @others = map { leave('apps', $remotes[0], 0, prefix => $prefix, user => 'other') } 1 .. 5;
	leave('apps', $remotes[0], 1, prefix => $prefix, user => 'app');
	my @mine = map { leave('apps', $remotes[0], 0, prefix => $prefix, user => 'app') } 1 .. 5;
	push @others, leave('apps', $remotes[0], 0, prefix => $prefix, user => 'other');
	want('r1');
	soon('what is refused keeps nothing else waiting', sub {
		$remotes[0]->safe_psql('postgres', q{SELECT string_agg(DISTINCT owner::text, ',') FROM pg_prepared_xacts}) eq 'other'; });
	is(prepared($remotes[0]), '6', 'what is another role\'s is left alone');
	$remotes[0]->safe_psql('postgres', "ROLLBACK PREPARED '$_'") foreach @others;
	soon('the rows go', sub { rows() eq '0' });
	resolver_ends('others');
};

subtest 'a remote that lies' => sub {
	my $offset = -s $local->logfile;

	$remotes[1]->safe_psql('postgres', 'CREATE DATABASE liar');
	$remotes[1]->safe_psql('liar', 'CREATE TABLE t (id int)');
	create_pool($local, 'liar', $remotes[1], dbname => 'liar', acquire_timeout => '1s');
	want('liar');
	my $prefix = prefix('liar');
	my $lie = sub {
		my ($select) = @_;
		$remotes[1]->safe_psql('liar', qq{
			SET allow_system_table_mods = on;
			CREATE OR REPLACE VIEW pg_catalog.pg_prepared_xacts AS
			SELECT p.transaction, p.gid, p.prepared, u.rolname AS owner, d.datname AS database
			FROM pg_prepared_xact() p LEFT JOIN pg_authid u ON p.ownerid = u.oid LEFT JOIN pg_database d ON p.dbid = d.oid
			$select});
	};
	my $invent = sub {
		my ($n) = @_;
		return "UNION ALL SELECT '1'::xid, '${prefix}_' || lpad(to_hex(g), 16, '0'), now(), current_user, current_database() FROM generate_series(1, $n) g";
	};

	resolver_ends('liar');
	$lie->($invent->(90000));
	want('liar');
	leave('r1', $remotes[0], 1);
	want('r1');
	soon('one that invents some keeps no other waiting', sub { prepared($remotes[0]) eq '0' });

	$lie->($invent->(200000));
	ok(DbpoolTest::wait_until('too many', sub {
		count_in($local, $offset, 'more than 100000 prepared transactions') > 0; }), 'one that invents too many is not believed');
	leave('r1', $remotes[0], 1);
	want('r1');
	soon('nor does that', sub { prepared($remotes[0]) eq '0' });
	is(count_in($local, $offset, 'more than 100000 prepared transactions'), 1, 'the log is told once');

	# it shows again what it has ended
	$lie->('');
	resolver_ends('too many');
	my $gid = sprintf '%s_%016x', $prefix, ++$number;
	$remotes[1]->safe_psql('liar', "BEGIN; INSERT INTO t VALUES (0); PREPARE TRANSACTION '$gid'");
	$lie->("UNION ALL SELECT '1'::xid, '$gid', now(), current_user, current_database()");
	want('r1');
	soon('what is there is rolled back', sub {
		$remotes[1]->safe_psql('liar', 'SELECT count(*) FROM pg_prepared_xact()') eq '0'; });
	ok(DbpoolTest::wait_until('it is noticed', sub { count_in($local, $offset, 'and shows it all the same') > 0; }), 'one that shows it all the same is noticed');
	wait_for_looks($remotes[1], -s $remotes[1]->logfile, 4);
	is(count_in($local, $offset, 'and shows it all the same'), 1, 'once');
	is(count_in($local, $offset, qr/ended prepared transactions of pool "liar"/), 1, 'nothing is said of what it claims to have ended again');

	# answers for ever
	$lie->('');
	resolver_ends('all the same');
	$lie->("UNION ALL SELECT '1'::xid, pg_sleep(3600)::text, now(), current_user, current_database()");
	$local->safe_psql('postgres', qq{
		INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid)
		SELECT prefix || '_00000000000000ff', serverid, userid, 'liar', 10, 0 FROM dbpool_two_phase WHERE prefix = '$prefix'});
	want('r1');
	ok(DbpoolTest::wait_until('it gives up', sub {
		$local->safe_psql('postgres', q{SELECT last_error FROM dbpool_in_doubt WHERE pool = 'liar'}) =~ /does not answer/; }),
		'one that does not come to an end is given up');
	$lie->('');
	soon('one that says the truth again is believed', sub { rows() eq '0' }, 30);
	resolver_ends('liar');
};

subtest 'settings' => sub {
	# what the database has for its sessions
	$local->safe_psql('postgres', q{
		ALTER DATABASE postgres SET default_transaction_read_only = on;
		ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
		ALTER DATABASE postgres SET dbpool.transaction = two_phase;
		ALTER DATABASE postgres SET dbpool.inherit_read_only = on});
	leave('r1', $remotes[0], 0);
	$local->restart;
	soon('a database that is read-only by default has its resolver', sub { prepared($remotes[0]) eq '0' });
	my $s = session($local);
	my $gid = prefix('r1') . '_00000000000000bb';
	$s->value('SET default_transaction_read_only = off');
	leave('r1', $remotes[0], 0);
	$s->value('BEGIN READ ONLY');
	is($s->query("SELECT dbpool_resolve('$gid', 'commit')")->{state}, '25006', 'a read-only transaction cannot resolve');
	$s->value('ROLLBACK');
	$s->value('ALTER DATABASE postgres RESET ALL');
	$s->quit;
	$control = session($local);
	want('r1');
	soon('an orphan is found', sub { prepared($remotes[0]) eq '0' });

	# the decision goes to a synchronous standby, and that there is none is noticed
	$s = two_phase();
	$local->append_conf('postgresql.conf', "max_wal_senders = 2\nsynchronous_standby_names = nobody\nsynchronous_commit = local");
	$local->restart;
	$s->kill;
	$control = session($local);
	$s = two_phase();
	$s->value('SET synchronous_commit = off');
	$id++;
	$s->value('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert('r1'));
	$s->send('COMMIT');
	ok(DbpoolTest::wait_until('it waits', sub {
		$local->safe_psql('postgres', 'SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $s->pid) eq 'SyncRep'; }),
		'the decision waits for synchronous standbys');
	is(prepared($remotes[0]), '1', 'and the remote for that');
	$local->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$local->reload;
	is($s->wait->{err}, '', 'then it is committed');
	soon('everywhere', sub { prepared($remotes[0]) eq '0' });
	is(there($remotes[0]) . there($local), '11', 'all of it');
	is($s->value('SHOW synchronous_commit'), 'off', 'the setting is as it was');
	$s->quit;
	resolver_ends('settings');
};

subtest 'servers that change' => sub {
	my $s = two_phase();

	create_pool($local, 'moved', $remotes[0]);
	$local->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER moved OPTIONS (ADD password_required 'false')});
	want('moved');
	# in the transaction itself
	$id++;
	$s->value('BEGIN');
	$s->value(q{ALTER SERVER moved OPTIONS (ADD application_name 'x')});
	$s->value(insert('moved'));
	is($s->query('COMMIT')->{state}, '55000', 'a server that this transaction has altered is not prepared at');
	$s->value('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert('moved'));
	$s->value(q{ALTER SERVER moved OPTIONS (ADD application_name 'x')});
	is($s->query('COMMIT')->{state}, '55000', 'nor one that it has altered since');
	is(there($remotes[0]), '0', 'nothing is committed');

	# to an owner who may not have it used by others
	$local->safe_psql('postgres', 'CREATE ROLE poor; GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO poor; ALTER SERVER moved OWNER TO poor');
	$id++;
	$s->value('BEGIN');
	$s->value("INSERT INTO t VALUES ($id)");
	$s->value(insert('moved'));
	is($s->query('COMMIT')->{state}, '55000', 'nor one that the resolver may not use any more');
	is(there($remotes[0]), '0', 'nothing is committed');
	want('r1');
	resolver_ends('one that it may not use');

	# renamed while in doubt
	$local->safe_psql('postgres', 'ALTER SERVER moved OWNER TO CURRENT_USER');
	my $gid = leave('moved', $remotes[0], 1);
	$local->safe_psql('postgres', 'ALTER SERVER moved RENAME TO renamed');
	is($local->safe_psql('postgres', "SELECT pool, user_name IS NULL FROM dbpool_in_doubt WHERE gid = '$gid'"), 'renamed|f', 'the view knows the name');
	want('r1');
	soon('and it is committed', sub { prepared($remotes[0]) eq '0' && rows() eq '0' });

	# dropped
	$gid = leave('renamed', $remotes[0], 1);
	$local->safe_psql('postgres', 'DROP SERVER renamed CASCADE');
	want('r1');
	resolver_ends('a dropped server');
	is($local->safe_psql('postgres', "SELECT pool, decision, last_error FROM dbpool_in_doubt"), 'renamed|commit|The server was dropped.', 'what was decided can be seen');
	my $poor = session($local, user => 'app');
	is($poor->query("SELECT dbpool_resolve('$gid', 'commit')")->{state}, '42501', 'not any role can forget it');
	$poor->quit;
	like($s->query("SELECT dbpool_resolve('$gid', 'commit')")->{err}, qr/WARNING:.*was forgotten, and not ended.*HINT:  At the remote server: COMMIT PREPARED '$gid'/s, 'a superuser can');
	is($remotes[0]->safe_psql('postgres', "COMMIT PREPARED '$gid'"), '', 'and end it there');
	is(rows(), '0', 'the row is gone');
	want('r1');
	resolver_ends('a forgotten server');
	is($local->safe_psql('postgres', 'SELECT count(*) FROM dbpool_two_phase t WHERE NOT EXISTS (SELECT FROM pg_foreign_server WHERE oid = t.serverid)'),
		'0', 'a server that was dropped is forgotten');
	$s->quit;
};

subtest 'a copy of the database' => sub {
	my $offset = -s $local->logfile;
	$local->safe_psql('postgres', 'CREATE DATABASE original');
	$local->safe_psql('original', q{CREATE EXTENSION dbpool; CREATE TABLE t (id int);
		CREATE SERVER copied FOREIGN DATA WRAPPER dbpool OPTIONS (host '} . $remotes[0]->host . q{', port '} . $remotes[0]->port . q{', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER copied});
	want('copied', 'original');
	resolver_ends('original');
	$local->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE original');
	my $gid = sprintf '%s_%016x', prefix('copied', 'original'), ++$number;
	$remotes[0]->safe_psql('postgres', "BEGIN; CREATE TABLE decided (); PREPARE TRANSACTION '$gid'");
	$local->safe_psql('original', qq{
		INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid)
		SELECT '$gid', serverid, userid, 'copied', 10, 0 FROM dbpool_two_phase});
	want('copied', 'copy');
	resolver_ends('copy');
	is(prepared($remotes[0]), '1', 'what the original has decided is none of its matters');
	isnt(prefix('copied', 'copy'), prefix('copied', 'original'), 'its names are others');
	want('copied', 'original');
	soon('the original commits', sub { prepared($remotes[0]) eq '0' });
	is($remotes[0]->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname = 'decided'}), '1', 'as was decided');
	soon('the row goes', sub { rows('original') eq '0' });

	# dropped, while its resolver has something to do
	$local->safe_psql('copy', q{ALTER SERVER copied OPTIONS (SET port '1')});
	$local->safe_psql('copy', q{INSERT INTO dbpool_prepared (gid, serverid, userid, pool, roleid, pid)
		SELECT prefix || '_00000000000000aa', serverid, userid, 'copied', 10, 0 FROM dbpool_two_phase});
	$local->restart;
	$control = session($local);
	soon('its resolver tries', sub { $local->safe_psql('copy', 'SELECT attempts > 0 FROM dbpool_prepared') eq 't' });
	$local->safe_psql('postgres', 'DROP DATABASE copy WITH (FORCE)');
	want('r1');
	resolver_ends('after the drop');
	want('r1');
	resolver_ends('and again');
	is(count_in($local, $offset, 'FATAL:  database \d+ does not exist'), 0, 'nobody looks after a database that was dropped');
};

done_testing();
