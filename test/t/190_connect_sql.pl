
# connect_sql that means ill, or is mistaken: that never ends, sends without end, ends its own
# server process, takes our names, fails later on. It is bounded, it is told to those who call, it
# speaks against its own pool and not against the server, and what it has changed is there for each
# call and no longer than that. test/sql/connect_sql.sql has the rest.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use feature "state";
use Test::More;
use Time::HiRes qw(sleep time);

my $remote = make_remote(conf => "max_prepared_transactions = 20\n");
my $local = make_local(conf => "restart_after_crash = on\n");
my $s = session($local);
my $there = session($remote);

create_pool($local, 'good', $remote);
create_pool($local, 'p', $remote, max_size => 1, connect_sql => '', connect_timeout => '1s', acquire_timeout => '20s');
# another pool to the same endpoint has no connection before it is asked at the end
create_pool($local, 'later', $remote);

sub connect_sql
{
	my ($sql, $pool) = @_;

	$pool //= 'p';
	$s->value("ALTER SERVER $pool OPTIONS (SET connect_sql \$sql\$$sql\$sql\$)");
	return;
}

# A call with it is told in time; what is left at the remote ends.
sub told
{
	my ($name, $sql, $why, $most) = @_;

	connect_sql("/* ill */ $sql");
	my $answer = $s->query(q{SELECT dbpool_ping('p')});

	is($answer->{state}, '08001', "$name: the call is told");
	like($answer->{err}, qr/could not open a connection of pool "p"\n.*connect_sql failed: $why/s, 'why');
	cmp_ok($answer->{seconds}, '<', $most // 2, 'in time');
	ok($there->poll(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '/* ill%'}), 'and nothing is left at the remote');
	return;
}

subtest 'it takes for ever, or sends for ever' => sub {
	my $worker = worker_pid($s);
	my $before = rss_kb($worker);
	my $late = qr/it did not end within connect_timeout, which is 1 s/;
	my $flood = qr/The remote server sent more than 262144 bytes in answer to connect_sql/;

	$there->value('SELECT pg_advisory_lock(1)');
	told('sleeps', 'SELECT pg_sleep(1000000)', $late);
	told('waits for a lock', 'SELECT pg_advisory_lock(1)', $late);
	told('computes', 'SELECT count(*) FROM generate_series(1, 1e12::bigint)', $late);
	told('gives rows', 'SELECT generate_series(1, 1e12::bigint)', $flood);
	told('gives results', join(';', ('SELECT generate_series(1, 1000)') x 100), $flood);
	told('gives rows to COPY', 'COPY (SELECT generate_series(1, 1e12::bigint)) TO STDOUT', qr/it began COPY|$flood/);
	told('gives notices', q{DO $$ BEGIN LOOP RAISE NOTICE '%', repeat('x', 1000); END LOOP; END $$}, $flood);
	told('reports settings', q{DO $$ BEGIN LOOP SET application_name = a; SET application_name = b; END LOOP; END $$}, $late);
	cmp_ok(rss_kb($worker) - $before, '<', 20_000, 'the worker has kept none of it');
	$there->value('SELECT pg_advisory_unlock(1)');
};

subtest 'it speaks against the pool alone' => sub {
	# each of 12 would do, if it were the server's fault
	connect_sql('SELECT pg_terminate_backend(pg_backend_pid())');
	like($s->query(q{SELECT dbpool_ping('p')})->{err}, qr/connect_sql failed: FATAL:/, "call $_ is told") foreach 1 .. 12;
	is($s->value(q{SELECT string_agg(state || failures_in_row, ' ') FROM dbpool_endpoints}), 'closed0', 'the breaker does not mind');
	is($s->query(q{SELECT dbpool_ping('later')})->{state}, '', 'another pool gets in');

	# the same after a reset
	$there->value('CREATE TABLE switch (on_reset text)');
	connect_sql(q{DO $$ BEGIN EXECUTE (SELECT on_reset FROM switch); END $$});
	foreach my $case (
		[ q{PERFORM pg_terminate_backend(pg_backend_pid())}, qr/terminating connection/ ],
		[ q{RAISE 'not any more'}, qr/not any more/ ],
		[ q{PERFORM pg_sleep(1000000)}, qr/it did not end within connect_timeout/ ],
		[ q{SET client_encoding = latin1}, qr/it changed client_encoding/ ])
	{
		my ($sql, $why) = @{$case};
		my $offset = -s $local->logfile;
		my $sql_pid = q{SELECT pid FROM dbpool_query('p', 'SELECT pg_backend_pid()') AS t(pid int)};

		$there->value(q{DELETE FROM switch; INSERT INTO switch VALUES ('SELECT 1')});
		my $pid = $s->value($sql_pid);
		$there->value("UPDATE switch SET on_reset = \$q\$DO \$d\$ BEGIN $sql; END \$d\$\$q\$");
		is($s->query(q{SELECT dbpool_exec('p', 'SET work_mem = 100')})->{state}, '', "$sql: the call before it does not mind");
		ok($s->poll(qq{SELECT count(*) = 0 FROM dbpool_connections WHERE pool = 'p' AND remote_pid = $pid}), 'the connection is closed');
		$there->value(q{UPDATE switch SET on_reset = 'SELECT 1'});
		isnt($s->value($sql_pid), $pid, 'another serves');
		ok($local->wait_for_log(qr/dbpool (?:could not reset|lost) a connection of pool "p": .*$why/, $offset), 'the log says why');
		ok($there->poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'nothing is left at the remote');
	}

	# as many at a time as would open the breaker, with no log-in between them
	my @sessions = map { session($local) } 1 .. 7;

	$s->value(q{ALTER SERVER p OPTIONS (SET max_size '7')});
	$_->send(q{SELECT dbpool_exec('p', 'SET work_mem = 100; SELECT pg_sleep(1)')}) foreach @sessions;
	ok($there->poll(q{SELECT count(*) = 7 FROM pg_stat_activity WHERE query LIKE 'SET work_mem%' AND state = 'active'}), '7 calls');
	$there->value(q{UPDATE switch SET on_reset = 'SELECT pg_terminate_backend(pg_backend_pid())'});
	is($_->wait->{state}, '', 'the call does not mind') foreach @sessions;
	ok($s->poll(q{SELECT count(*) = 0 FROM dbpool_connections WHERE pool = 'p'}), 'all connections are lost');
	is($s->value(q{SELECT string_agg(state || failures_in_row, ' ') FROM dbpool_endpoints}), 'closed0', 'nor does the breaker mind that');
	$s->value(q{ALTER SERVER p OPTIONS (SET max_size '1')});
	connect_sql('');
	$s->value(q{SELECT dbpool_ping('p')});
};

subtest 'our names' => sub {
	my $names = q{SELECT string_agg(name, ' ' ORDER BY name) FROM dbpool_query('p', 'SELECT name FROM pg_prepared_statements') AS t(name text)};

	$s->value(q{SELECT dbpool_query('p', 'SELECT 1')}) foreach 1 .. 8;
	my ($name, $serial) = $s->value($names) =~ /(dbpool_\d+_)(\d+)/ or BAIL_OUT('nothing is prepared');

	connect_sql(join ';', map { "PREPARE $name$_ AS SELECT 'planted'" } $serial .. $serial + 20);
	like($s->query(q{SELECT dbpool_ping('p')})->{err}, qr/connect_sql failed: it prepared a statement with a name of dbpool's/, 'what is planted is found');
	connect_sql('PREPARE mine AS SELECT 1');
	foreach my $round (1 .. 3)
	{
		foreach my $i (1 .. 8)
		{
			is($s->value("SELECT a FROM dbpool_query('p', 'SELECT \$1::int + $round', $i) AS t(a int)"), $i + $round, "text $round, call $i");
		}
		# and after a reset
		$s->value(q{SELECT dbpool_exec('p', 'SET work_mem = 100')});
	}
	connect_sql('');
};

subtest 'LISTEN' => sub {
	connect_sql('LISTEN c');
	my $pid = $s->value(q{SELECT a FROM dbpool_query('p', 'SELECT pg_backend_pid()') AS t(a int)});

	$there->value("SELECT pg_notify('c', n::text) FROM generate_series(1, 500) n");
	is($s->value("SELECT a FROM dbpool_query('p', 'SELECT $_') AS t(a int)"), $_, "call $_ with what is heard") foreach 1 .. 3;
	# more than an idle remote may say
	$there->value("SELECT pg_notify('c', repeat(n::text, 1000)) FROM generate_series(1000, 1999) n");
	ok($s->poll("SELECT count(*) = 0 FROM dbpool_connections WHERE pool = 'p' AND remote_pid = $pid"), 'too much of it costs the connection');
	is($s->value(q{SELECT a FROM dbpool_query('p', 'SELECT 5') AS t(a int)}), 5, 'and another serves');
	connect_sql('');
};

# Of every call, all of its session is one definition's, and the one's that is true or was.
subtest 'changed under load' => sub {
	my ($run, $out) = start_pgbench($local,
		q{SELECT 1 / (a = b)::int FROM dbpool_query('p', 'SELECT current_setting(''my.a''), current_setting(''my.b'')') AS t(a text, b text);},
		qw(-c 4 -T 4));
	my $end = time + 3.5;

	# from here on nothing is to take too long
	$s->value(q{ALTER SERVER p OPTIONS (SET max_size '3', SET connect_timeout '20s')});
	while (time < $end)
	{
		state $n = 0;
		$n++;
		connect_sql("SET my.a = $n; SET my.b = $n");
		# log-ins that are begun and given up faster than the remote takes them would fill its queue
		$s->query(q{SELECT dbpool_ping('p')});
	}
	$run->finish;
	unlike(${$out}, qr/ERROR/, 'no call finds a session that is half one and half another');
	$s->value(q{ALTER SERVER p OPTIONS (SET max_size '1')});
	connect_sql('');
};

# A prepared transaction is ended by the role that has logged in.
subtest 'SET ROLE and two phases' => sub {
	$there->value('CREATE ROLE app; CREATE TABLE t (a int); GRANT ALL ON t TO app; CREATE TABLE gate ()');
	$there->value(q{CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE gate IN ACCESS SHARE MODE; RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER pass AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.a > 100) EXECUTE FUNCTION pass();
		GRANT ALL ON gate TO app});
	connect_sql('SET ROLE app');
	create_pool($local, 'q', $remote, max_size => 2, acquire_timeout => '20s');
	my $role = q{SELECT a FROM dbpool_query('p', 'SELECT current_user') AS t(a text)};

	foreach my $reset ('smart', 'always', 'never')
	{
		$s->value("ALTER SERVER p OPTIONS (@{[ $reset eq 'smart' ? 'ADD' : 'SET' ]} reset '$reset')");
		$s->value('BEGIN; SET LOCAL dbpool.transaction = two_phase; '
			  . "SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1)'); SELECT dbpool_exec('q', 'INSERT INTO t VALUES (1)'); COMMIT");
		is($s->value($role), 'app', "reset $reset: the role is what it was after a transaction in two phases");
	}
	is($there->value('SELECT count(*) FROM t'), '6', 'which were committed');
	$s->value(q{ALTER SERVER p OPTIONS (DROP reset)});

	# the server crashes when one is prepared, and the other is about to be
	$there->value('BEGIN; LOCK TABLE gate');
	my $lost = session($local, options => '-c dbpool.transaction=two_phase');
	$lost->send(q{BEGIN; SELECT dbpool_exec('p', 'INSERT INTO t VALUES (2)'); SELECT dbpool_exec('q', 'INSERT INTO t VALUES (200)'); COMMIT});
	ok($there->poll('SELECT count(*) = 1 FROM pg_prepared_xacts'), 'one is prepared');
	$local->stop('immediate');
	$there->value('COMMIT');
	$local->start;
	$s = session($local);
	ok($there->poll('SELECT count(*) = 0 FROM pg_prepared_xacts'), 'the resolver ends it');
	is($there->value('SELECT count(*) FROM t WHERE a IN (2, 200)'), '0', 'it is rolled back');
	is($s->value($role), 'app', 'and the role is what it was');
};

done_testing();
