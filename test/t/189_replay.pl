
# Standbys that are behind: max_lag, dbpool_last_lsn() and dbpool.min_lsn.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FaultProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $local = make_local();
my $control = session($local);
my @figures;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "autovacuum = off\nmax_connections = 100\nmax_prepared_transactions = 10\nwal_retrieve_retry_interval = 500ms\n");
$primary->start;
$primary->safe_psql('postgres', 'CREATE TABLE t (key bigint PRIMARY KEY, text text); CREATE ROLE reader LOGIN; GRANT SELECT ON t TO reader');
$primary->backup('base');

sub new_standby
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'base', has_streaming => 1);
	$node->append_conf('postgresql.conf', $conf) if $conf;
	$node->start;
	return $node;
}

my $one = new_standby('one');
my $two = new_standby('two');
my %both = (host => $one->host . ',' . $two->host, port => $one->port . ',' . $two->port, dbname => 'postgres', read_only => 'true');
my $port_sql = q{'SELECT current_setting(''port'')'};

sub port
{
	my ($pool) = @_;
	return $control->value("SELECT dbpool_value(NULL::text, '$pool', $port_sql)");
}

# All that a pool answers in some calls: the ports, in order.
sub ports
{
	my ($pool, $n) = @_;
	my %seen = map { port($pool) => 1 } 1 .. ($n || 30);
	return join ' ', sort keys %seen;
}

my $key = 0;

# Commit so many kB at the primary.
sub commit_some
{
	my ($kb) = @_;
	$key += 1000;
	$primary->safe_psql('postgres', "INSERT INTO t SELECT $key + g, repeat('x', 1000) FROM generate_series(1, $kb) AS g");
	return;
}

sub pause { $_->safe_psql('postgres', 'SELECT pg_wal_replay_pause()') foreach @_; $_->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}) foreach @_; return; }
sub go_on { $_->safe_psql('postgres', 'SELECT pg_wal_replay_resume()') foreach @_; return; }
sub caught_up { $primary->wait_for_catchup($_, 'replay', $primary->lsn('flush')) foreach @_; return; }

# With both behind by so many kB: the first answer of a pool that is an error.
sub refused
{
	my ($pool, $kb) = @_;
	my $answer;

	commit_some($kb);
	$primary->poll_query_until('postgres', 'SELECT bool_and(flush_lsn = pg_current_wal_flush_lsn()) FROM pg_stat_replication');
	ok(wait_until('refused', sub { $answer = $control->query("SELECT dbpool_exec('$pool', 'SELECT 1')"); return $answer->{err} ne '' }),
		"$pool, with both behind");
	is($answer->{state}, '55000', 'a call is told so');
	return $answer;
}

caught_up($one, $two);

subtest 'bytes' => sub {
	foreach my $how ('off', 'random', 'least_busy')
	{
		my $pool = "bytes_$how";

		create_pool($local, $pool, undef, %both, load_balance => $how, max_lag => '256kB');
		ok(ports($pool) ne '', "$how: it serves");
		pause($one);
		commit_some(400);
		caught_up($two);
		# what was told is believed for a second
		ok(wait_until('asked', sub {
			ports($pool);
			return $control->value("SELECT lag_bytes > 256 * 1024 AND lag_ms > 0 FROM dbpool_endpoints WHERE host = '" . $one->host . "' AND port = '" . $one->port . "'") eq 't';
		}), 'one is behind, as is shown');
		is(ports($pool), $two->port, 'it is left');
		pause($two);
		my $answer = refused($pool, 400);
		like($answer->{err}, qr/all servers of pool "$pool" are more than 256 kB behind.*The server at .* is \d+ kB behind\..*The server at .* is \d+ kB behind\..*was not run.*max_lag/s, 'and how far');
		go_on($one, $two);
		caught_up($one, $two);
		ok(wait_until('served', sub { return $control->query("SELECT dbpool_exec('$pool', 'SELECT 1')")->{err} eq '' }), 'afterwards it serves');
		$control->value("SELECT dbpool_drop_pool('$pool')");
	}
};

subtest 'one connection alone' => sub {
	pause($one);
	commit_some(400);
	caught_up($two);
	create_pool($local, 'narrow', undef, %both, max_lag => '256kB', max_size => 1);
	is(ports('narrow', 5), $two->port, 'the second host has it, as the first is behind');
	go_on($one);
	caught_up($one);
	$control->value("SELECT dbpool_drop_pool('narrow')");
};

# A host that is no standby does not serve the pool: it is not among those that might have caught up.
subtest 'with a primary in the list' => sub {
	my %three = (%both, host => $primary->host . ",$both{host}", port => $primary->port . ",$both{port}");

	create_pool($local, 'three', undef, %three, target_session_attrs => 'standby', max_lag => '256kB', acquire_timeout => '60s');
	isnt(port('three'), $primary->port, 'a standby serves');
	pause($one, $two);
	cmp_ok(refused('three', 400)->{seconds}, '<', 30, 'before acquire_timeout');
	go_on($one, $two);
	caught_up($one, $two);
	ok(wait_until('served', sub { return $control->query("SELECT dbpool_exec('three', 'SELECT 1')")->{err} eq '' }), 'afterwards it serves');
	$control->value("SELECT dbpool_drop_pool('three')");
};

subtest 'time' => sub {
	create_pool($local, 'time', undef, %both, load_balance => 'least_busy', max_lag => '700ms');
	create_pool($local, 'patient', undef, %both, max_lag => '700ms', failover_wait => '60s', acquire_timeout => '60s');
	ports('time');
	# nothing is committed for twice as long
	$control->value('SELECT pg_sleep(1.5)');
	is($control->query("SELECT dbpool_exec('time', 'SELECT 1')")->{err}, '', 'where there is nothing to replay nobody is behind');
	is($control->value("SELECT dbpool_exec('patient', 'SELECT 1')"), '1', 'nor for a pool that has not asked before');

	pause($one, $two);
	my $began = time;
	# by a commit that is not replayed
	my $answer = refused('time', 1);
	push @figures, sprintf 'max_lag 700 ms: refused %.2f s after a commit', time - $began;
	like($answer->{err}, qr/all servers of pool "time" are more than 0\.7 s behind.*The server at .* is \d+\.\d+ s behind\./s, 'and how far');
	my $s = session($local);
	$s->send("SELECT dbpool_exec('patient', 'SELECT 1')");
	$control->poll("SELECT waiting = 1 FROM dbpool_pools WHERE pool = 'patient'");
	go_on($one, $two);
	is($s->wait->{err}, '', 'who waits is served when one has caught up');
	$s->quit;

	# a primary that is gone might be writing, for all that a standby knows
	caught_up($one, $two);
	ok(wait_until('served', sub { return $control->query("SELECT dbpool_exec('time', 'SELECT 1')")->{err} eq '' }), 'caught up');
	$primary->stop('immediate');
	ok(wait_until('refused', sub { $answer = $control->query("SELECT dbpool_exec('time', 'SELECT 1')"); return $answer->{err} ne '' }),
		'standbys that receive nothing are behind');
	is($answer->{state}, '55000', 'as a call is told');
	$primary->start;
	ok(wait_until('served', sub { return $control->query("SELECT dbpool_exec('time', 'SELECT 1')")->{err} eq '' }), 'until they do again');
	$control->value("SELECT dbpool_drop_pool('$_')") foreach 'time', 'patient';
};

# Who is far away is not behind, and is not asked over and over.
subtest 'a way that is as long as max_lag' => sub {
	my $proxy = FaultProxy->start($one);
	my %far = (host => '127.0.0.1', port => $proxy->port, dbname => 'postgres', sslmode => 'disable', gssencmode => 'disable', read_only => 'true');

	caught_up($one, $two);
	$proxy->tell('always delay 8ms both');
	foreach my $max_lag ('10ms', '20ms', '2147483647ms', '2147483647kB')
	{
		create_pool($local, 'far', undef, %far, max_lag => $max_lag, acquire_timeout => '20s', max_size => 1);
		is($control->query("SELECT dbpool_exec('far', 'SELECT 1')")->{err}, '', "with max_lag $max_lag it serves") foreach 1 .. 2;
		cmp_ok((sort { $b <=> $a } map { $_->{frontend}->{messages} } $proxy->links)[0] // 0, '<', 60, 'with few questions');
		$control->value("SELECT dbpool_drop_pool('far')");
	}
	# nor under dbpool.min_lsn
	create_pool($local, 'far', undef, %far, acquire_timeout => '1s', max_size => 1);
	my $min = session($local);
	$min->value(q{SET dbpool.min_lsn = 'FFFFFFFF/0'});
	my $answer = $min->query("SELECT dbpool_exec('far', 'SELECT 1')");
	is($answer->{state}, '55000', 'who waits for what nobody has replayed');
	like($answer->{err}, qr/no server of pool "far" has replayed up to FFFFFFFF\/0 within 1.*The furthest is at/s, 'is told how far it is');
	$min->quit;
	$control->value("SELECT dbpool_drop_pool('far')");
	$proxy->stop;
};

# A role that may not ask, or a remote that knows no such functions.
subtest 'a remote that does not tell' => sub {
	$primary->safe_psql('postgres', 'REVOKE EXECUTE ON FUNCTION pg_last_wal_receive_lsn() FROM PUBLIC');
	caught_up($one, $two);
	$control->value(qq{CREATE SERVER mute FOREIGN DATA WRAPPER dbpool OPTIONS (host '$both{host}', port '$both{port}', dbname 'postgres', read_only 'true', max_lag '5s')});
	$control->value(q{CREATE USER MAPPING FOR CURRENT_USER SERVER mute OPTIONS (user 'reader')});
	my $answer = $control->query("SELECT dbpool_exec('mute', 'SELECT 1')");

	is($answer->{state}, '55000', 'is not near enough');
	like($answer->{err}, qr/does not say how far it is behind/, 'and why');
	$control->value(q{ALTER SERVER mute OPTIONS (DROP max_lag)});
	is($control->value("SELECT dbpool_exec('mute', 'SELECT 1')"), '1', 'without max_lag it serves');
	my $min = session($local);
	$min->value("SET dbpool.min_lsn = '0/1'");
	$control->value(q{ALTER SERVER mute OPTIONS (ADD acquire_timeout '300ms')});
	$answer = $min->query("SELECT dbpool_exec('mute', 'SELECT 1')");
	is($answer->{state}, '55000', 'nor has it replayed anything');
	like($answer->{err}, qr/no server of pool "mute" has replayed up to 0\/1 within 0\.3.*None says how far/s, 'as is told');
	$min->quit;
	$primary->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION pg_last_wal_receive_lsn() TO PUBLIC');
	$control->value("SELECT dbpool_drop_pool('mute')");
};

subtest 'the last write' => sub {
	create_pool($local, 'rw', $primary);
	my $s = session($local);
	my $lsn = sub { return $s->value("SELECT dbpool_last_lsn('rw')") };
	my $is_after = sub {
		my ($last, $before) = @_;
		return $primary->safe_psql('postgres', "SELECT '$last'::pg_lsn > '$before'::pg_lsn AND '$last'::pg_lsn <= pg_current_wal_insert_lsn()");
	};
	my $before = $primary->lsn('insert');

	is($lsn->(), '', 'a session that has run nothing has written nothing');
	$s->value("SELECT dbpool_ping('rw')");
	$s->value("SET dbpool.inherit_read_only = on");
	$s->value("BEGIN READ ONLY; SELECT dbpool_exec('rw', 'SELECT 1'); COMMIT");
	$s->value("RESET dbpool.inherit_read_only");
	is($lsn->(), '', 'nor has one that has only read');
	$s->value("SELECT dbpool_exec('rw', 'INSERT INTO t VALUES (-1)')");
	my $first = $lsn->();
	is($is_after->($first, $before), 't', 'it is after the write');
	commit_some(1);
	is($lsn->(), $first, 'what others write does not count');
	# the commit is not on disk when the call returns
	$s->value("SELECT dbpool_exec('rw', 'BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO t VALUES (-2); COMMIT')");
	my $second = $lsn->();
	is($is_after->($second, $first), 't', 'a later one is later');

	$s->value("BEGIN; SET LOCAL dbpool.transaction = bound; SELECT dbpool_exec('rw', 'INSERT INTO t VALUES (-3)')");
	my $answer = $s->query("SELECT dbpool_last_lsn('rw')");
	is($answer->{state}, '25001', 'in a transaction there is no saying');
	$s->query('ROLLBACK');
	$s->value("BEGIN; SET LOCAL dbpool.transaction = bound; SELECT dbpool_exec('rw', 'INSERT INTO t VALUES (-3)'); COMMIT");
	my $third = $lsn->();
	is($is_after->($third, $second), 't', 'after it there is');
	$s->value("CREATE TABLE here (key int)");
	$s->value("BEGIN; SET LOCAL dbpool.transaction = two_phase; INSERT INTO here VALUES (1); SELECT dbpool_exec('rw', 'INSERT INTO t VALUES (-4)'); COMMIT");
	is($is_after->($lsn->(), $third), 't', 'so it is in two phases');
	my $migrator = session($local);
	$migrator->value("SELECT dbpool_add_migration('rw', '1', 'first', 'CREATE TABLE migrated (key int)')");
	$migrator->value("SELECT * FROM dbpool_migrate('rw')");
	isnt($migrator->value("SELECT dbpool_last_lsn('rw')"), '', 'migrations write, too');
	$migrator->quit;
	$s->value("SET dbpool.transaction = bound");
	$s->value("SELECT dbpool_exec('rw', 'INSERT INTO t VALUES (-5)')");
	$s->value("BEGIN; SELECT dbpool_last_lsn('rw'); COMMIT");
	is($control->value('SELECT count(*) FROM dbpool_transactions'), '0', 'to ask begins no transaction');
	$s->value("RESET dbpool.transaction");
	create_pool($local, 'standby', $one);
	$s->query("SELECT dbpool_exec('standby', 'SELECT 1')");
	is($s->query("SELECT dbpool_last_lsn('standby')")->{state}, '55000', 'a standby does not write');
	is($s->query("SELECT dbpool_last_lsn('nobody')")->{state}, '42704', 'a pool that there is not');
	$control->value("SELECT dbpool_drop_pool('standby')");
	$s->quit;
};

subtest 'to read what one has written' => sub {
	# which replays each commit a while later than the other
	$two->append_conf('postgresql.conf', "recovery_min_apply_delay = 40ms\n");
	$two->restart;
	create_pool($local, 'reads', undef, %both, load_balance => 'least_busy', min_size => 4);
	$control->value(q{CREATE PROCEDURE write_and_read(n int, first int, asks boolean, INOUT missed int DEFAULT 0) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN first + 1 .. first + n LOOP
				PERFORM dbpool_exec('rw', 'INSERT INTO t VALUES ($1)', i);
				IF asks THEN
					PERFORM set_config('dbpool.min_lsn', dbpool_last_lsn('rw')::text, false);
				END IF;
				missed := missed + (dbpool_value(NULL::int, 'reads', 'SELECT count(*) FROM t WHERE key = $1', i) = 0)::int;
			END LOOP;
		END $$});
	my @sessions = map { session($local) } 1 .. 4;
	my $began = time;
	$_->send('CALL write_and_read(60, 10000000 + 1000 * pg_backend_pid(), true)') foreach @sessions;
	is($_->wait->{out}, '0', 'each session finds each of its writes') foreach @sessions;
	push @figures, sprintf '4 sessions write and read 60 times under dbpool.min_lsn: %.2f s', time - $began;
	my %answered = map { $_ => 1 } split /\n/, $control->value("SELECT port FROM dbpool_connections WHERE pool = 'reads' AND statements > 0");
	ok($answered{ $one->port }, 'where it was replayed sooner');
	$_->value("SET dbpool.min_lsn = ''") foreach @sessions;
	$_->send('CALL write_and_read(60, 20000000 + 1000 * pg_backend_pid(), false)') foreach @sessions;
	my $missed = 0;
	$missed += $_->wait->{out} foreach @sessions;
	cmp_ok($missed, '>', 0, 'which they do not otherwise');
	push @figures, "without it $missed of 240 are missed";
	$_->quit foreach @sessions;
};

subtest 'to wait for it' => sub {
	my ($s, $other) = (session($local), session($local));

	caught_up($one, $two);
	pause($one, $two);
	$s->value("SELECT dbpool_exec('rw', 'INSERT INTO t VALUES (-100)')");
	my $lsn = $s->value("SELECT set_config('dbpool.min_lsn', dbpool_last_lsn('rw')::text, false)");
	$s->send("SELECT dbpool_value(NULL::int, 'reads', 'SELECT count(*) FROM t WHERE key = -100')");
	$control->poll("SELECT waiting = 1 FROM dbpool_pools WHERE pool = 'reads'");
	is($other->value("SELECT dbpool_exec('reads', 'SELECT 1')"), '1', "others' calls do not wait behind it") foreach 1 .. 20;
	go_on($one);
	is($s->wait->{out}, '1', 'when one has replayed it, it is read there');
	$s->value("SET dbpool.min_lsn = '$lsn'");
	is($s->value("SELECT dbpool_value(NULL::text, 'reads', $port_sql)"), $one->port, 'and nowhere else') foreach 1 .. 10;

	$control->value("ALTER SERVER reads OPTIONS (ADD acquire_timeout '500ms')");
	$s->value("SET dbpool.min_lsn = 'FFFFFF/0'");
	my $answer = $s->query("SELECT dbpool_exec('reads', 'SELECT 1')");
	is($answer->{state}, '55000', 'it is waited for in vain for as long as acquire_timeout');
	like($answer->{err}, qr/no server of pool "reads" has replayed up to FFFFFF\/0 within 0\.5\d* s.*The furthest is at [0-9A-F]+\/[0-9A-F]+, \d+ bytes before that.*was not run/s, 'and that is told');
	cmp_ok($answer->{seconds}, '<', 3, 'in time');
	is($s->query("SELECT dbpool_ping('reads')")->{err}, '', 'a ping asks for nothing');
	is($s->query("SELECT dbpool_exec('rw', 'SELECT 1')")->{err}, '', 'nor do pools that write');

	# a transaction has its server
	$s->value("SET dbpool.min_lsn = '0/1'");
	$s->value("BEGIN; SET LOCAL dbpool.transaction = bound; SELECT dbpool_exec('reads', 'SELECT 1')");
	$s->value("SET LOCAL dbpool.min_lsn = 'FFFFFF/0'");
	$answer = $s->query("SELECT dbpool_exec('reads', 'SELECT 1')");
	is($answer->{state}, '55000', 'and refuses what it has not');
	like($answer->{err}, qr/dbpool.min_lsn was raised within the transaction on pool "reads"/, 'as is told');
	$s->value('ROLLBACK');
	go_on($two);
	$_->quit foreach $s, $other;
};

note($_) foreach @figures;
$control->quit;
done_testing();
