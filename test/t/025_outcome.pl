
# The connection of a write is lost while the remote commits it. Its session is told what
# has become of it: the worker asks the remote. Here a commit takes as long as the test
# wants, by a deferred trigger that waits for a lock.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use FakeRemote;
use FaultProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;

my $remote = make_remote(conf => "restart_after_crash = on\nwal_level = replica\n");
my $local = make_local();
my $proxy = FaultProxy->start($remote);
my $control = session($local);
my $s = session($local);
my $there = session($remote);

create_pool($local, 'p', undef, $proxy->options(max_size => 2, acquire_timeout => '20s'));
create_pool($local, 'off', undef, $proxy->options(max_size => 2, resolve_outcome => 'off'));

$there->value(q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION wait();
	CREATE FUNCTION put(int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES ($1) RETURNING id';
	-- what those have done that have ended since
	CREATE VIEW committing AS
		SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted});

my $id = 0;

# Commits wait from now on; or no more.
sub commits_wait { $there->value('SELECT pg_advisory_lock(1)'); return }
sub commits_go { $there->value('SELECT pg_advisory_unlock(1)'); return }

sub committing { return $there->value('SELECT count(*) FROM committing') }

# Send a statement of the session, and wait until the remote commits.
sub send_write
{
	my ($sql) = @_;

	$s->send($sql);
	wait_until('the remote commits', sub { return committing() > 0 });
	return;
}

# What a query of a connection of its own gives, or undef if it cannot.
sub psql_try
{
	my ($sql) = @_;
	my ($ret, $out) = $remote->psql('postgres', $sql);

	return $ret == 0 ? $out : undef;
}

# Cut the connections, and wait until the worker asks. How often it asks grows fewer.
sub cut
{
	$proxy->tell('now reset');
	wait_until('the worker asks', sub {
		return $control->value(q{SELECT count(*) FROM dbpool_connections WHERE state = 'checking'}) > 0 });
	return;
}

# How often a row is there.
sub rows { return $there->value("SELECT count(*) FROM t WHERE id = $_[0]") }

my $insert = 'INSERT INTO t VALUES ($1) RETURNING id';

# Each way in which a write is sent: what it is, and the call for an ID.
my @writes = (
	[ 'its first run', sub { return "dbpool_value(NULL::int, 'p', '/* $_[0] */ -- '' \n$insert', $_[0])" } ],
	[ 'with a command tag', sub { return "dbpool_exec('p', 'INSERT INTO t VALUES (\$1)', $_[0])" } ],
	[ 'a known text', sub { return "dbpool_value(NULL::int, 'p', '$insert', $_[0])" }, 3 ],
	[ 'prepared', sub { return "dbpool_value(NULL::int, 'p', '$insert', $_[0])" }, 10 ],
	[ 'of 24 MB', sub { return "dbpool_value(NULL::int, 'p', '$insert -- ' || repeat('x', 24000000), $_[0])" } ],
	[ 'in WITH', sub { return "dbpool_value(NULL::int, 'p', 'WITH a AS ($insert) SELECT id FROM a', $_[0])" } ],
	[ 'by a function', sub { return "dbpool_value(NULL::int, 'p', 'SELECT put(\$1)', $_[0])" }, 2 ],
	[ 'by a function, later', sub { return "dbpool_value(NULL::int, 'p', 'SELECT put(\$1)', $_[0])" }, 10 ]);

foreach my $write (@writes)
{
	my ($name, $call, $runs) = @$write;
	my $right;

	$s->value('SELECT ' . $call->(++$id)) foreach 1 .. $runs // 0;

	commits_wait();
	$right = $name eq 'with a command tag' ? 1 : ++$id;
	$id++ if $name eq 'with a command tag';
	send_write('SELECT ' . $call->($id));
	cut();
	commits_go();
	my $answer = $s->wait;
	is($answer->{err}, '', "$name: committed, and so the call succeeds");
	is($answer->{out}, $right, "$name: with its result");
	is(rows($id), '1', "$name: it is there once");

	commits_wait();
	$id++;
	send_write('SELECT ' . $call->($id));
	cut();
	my $pid = $there->value('SELECT pid FROM committing');
	$there->value("SELECT pg_terminate_backend($pid)");
	# it is sent again, and waits again
	wait_until('it is sent again', sub {
		return $s->is_done || $there->value("SELECT count(*) FROM committing WHERE pid <> $pid") > 0 });
	commits_go();
	$answer = $s->wait;
	is($answer->{err}, '', "$name: not committed, and so it runs once more");
	is(rows($id), '1', "$name: and is there once");
}

# --- what ends one that is in doubt ---------------------------------------------------

my $errors = q{SELECT errors FROM dbpool_stat_pools WHERE pool = 'p'};
my $failed;

# Who has asked the remote what became of a write.
my $asking = q{SELECT max(pid) FROM pg_stat_activity WHERE query LIKE '%dbpool\_outcome%' AND pid <> pg_backend_pid()};

# A write that is in doubt, and waits for a connection; run $end, and give the answer.
sub in_doubt
{
	my ($end) = @_;

	$failed = $s->value($errors);
	commits_wait();
	send_write("SELECT dbpool_value(NULL::int, 'p', '$insert', " . ++$id . ')');
	$proxy->tell('always stall');
	$proxy->tell('now reset');
	wait_until('it waits', sub {
		return $control->value(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'p' AND state <> 'connecting'}) eq '0'
		  && $control->value(q{SELECT waiting FROM dbpool_pools WHERE pool = 'p'}) > 0 });
	$end->();
	my $answer = $s->wait;
	$proxy->tell('resume');
	commits_go();
	return $answer;
}

sub is_unknown
{
	my ($answer, $why, $name) = @_;

	is($answer->{state}, '08007', "$name: its outcome is not known");
	is($s->value($errors), $failed + 1, "$name: which is counted");
	like($answer->{err}, qr/may or may not have run\. The remote server could not be asked: $why/, "$name: why");
	wait_until("$name: it has run", sub { return rows($id) eq '1' });
	return;
}

$s->value(q{SET statement_timeout = 0});
$control->value(q{ALTER SERVER p OPTIONS (SET acquire_timeout '1500ms')});
is_unknown(in_doubt(sub { }), 'could not get a connection of pool "p" within 1.5 s', 'no connection in time');

# That is the time for a connection. One that has waited longer for its commit has as much.
foreach my $commits (1, 0)
{
	commits_wait();
	my $begun = time;
	send_write("SELECT dbpool_value(NULL::int, 'p', '$insert', " . ++$id . ')');
	my $pid = $there->value('SELECT pid FROM committing');
	cut();
	wait_until('it has taken longer than acquire_timeout', sub { return time > $begun + 2 });
	if ($commits)
	{
		my $asks = $there->value($asking);

		$proxy->tell('now reset');
		wait_until('another connection is asked', sub { return $s->is_done || $there->value($asking) ne $asks });
	}
	else
	{
		$there->value("SELECT pg_terminate_backend($pid)");
		wait_until('it is sent again', sub {
			return $s->is_done || $there->value("SELECT count(*) FROM committing WHERE pid <> $pid") > 0 });
	}
	commits_go();
	my $answer = $s->wait;
	is($answer->{err}, '', $commits ? 'a connection that is lost while it is asked is followed by another' : 'what has waited for long runs again, too');
	is(rows($id), '1', 'and is there once');
}
$control->value(q{ALTER SERVER p OPTIONS (SET acquire_timeout '20s')});

is_unknown(in_doubt(sub {
	$control->value(q{ALTER SERVER p OPTIONS (ADD idle_timeout '9min')});
	$control->send(q{SELECT dbpool_ping('p')}) }),
	'the definition of the pool has changed', 'another definition');
$control->wait;

# A remote that is away for a while is waited for; and a pause waits for what is in doubt.
my $pauses = session($local);
my $failures = q{SELECT connect_failures FROM dbpool_stat_pools WHERE pool = 'p'};
my $before = $control->value($failures);

commits_wait();
send_write("SELECT dbpool_value(NULL::int, 'p', '$insert', " . ++$id . ')');
$proxy->tell('always reset');
wait_until('there is no connection', sub { return $control->value($failures) > $before });
$pauses->send(q{SELECT dbpool_pause('p')});
wait_until('the pool is paused', sub { return $control->value(q{SELECT state FROM dbpool_pools WHERE pool = 'p'}) eq 'paused' });
$before = $control->value($failures);
wait_until('it is tried again', sub { return $control->value($failures) > $before });
ok(!$pauses->is_done && !$s->is_done, 'both wait');
# by now its breaker is open, and who probes is not to be kept from it
wait_until('its breaker is open', sub {
	return $control->value(q{SELECT count(*) FROM dbpool_endpoints WHERE state = 'open'}) > 0 });
$before = $control->value($failures);
wait_until('it is probed, though the pool is paused', sub { return $control->value($failures) > $before + 1 });
my $resumed = time;
$proxy->tell('resume');
wait_until('the worker asks', sub {
	return $control->value(q{SELECT count(*) FROM dbpool_connections WHERE state = 'checking'}) > 0 });
commits_go();
is($s->wait->{out}, $id, 'a remote that comes back is asked, though the pool is paused');
cmp_ok(time - $resumed, '<', 8, 'soon');
is($pauses->wait->{err}, '', 'and then it is');
$control->value(q{SELECT dbpool_resume('p')});
cmp_ok($control->value($failures), '<', $before + 60, 'it is not stormed');
$pauses->quit;

my $answer = in_doubt(sub { $control->value('SELECT pg_cancel_backend(' . $s->pid . ')') });
is($answer->{state}, '57014', 'it can be cancelled');
wait_until('which does nothing to what has been sent', sub { return rows($id) eq '1' });

$answer = in_doubt(sub { kill 'TERM', worker_pid($control) });
is($answer->{state}, '08007', 'when the worker ends, its outcome is not known');
like($answer->{err}, qr/may or may not have run/, 'which is said');

commits_wait();
send_write("SELECT dbpool_exec('off', 'INSERT INTO t VALUES (\$1)', " . ++$id . ')');
$proxy->tell('now reset');
$answer = $s->wait;
is($answer->{state}, '08007', 'nobody asks when resolve_outcome is off');
unlike($answer->{err}, qr/could not be asked/, 'or tries to');
commits_go();

# --- the COMMIT of a transaction --------------------------------------------------------

$there->value('CREATE TABLE log (id int)');
foreach my $kind (
	[ 'bound', q{SET dbpool.transaction = bound}, sub {
		return "BEGIN; SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1)', $_[0]); INSERT INTO mine VALUES ($_[0]); COMMIT" } ],
	[ 'bound, behind a savepoint that was rolled back', '', sub {
		return "BEGIN; SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1)', $_[0]); INSERT INTO mine VALUES ($_[0]);" .
			"SAVEPOINT a; SELECT dbpool_exec('p', 'INSERT INTO log VALUES (\$1)', $_[0]); ROLLBACK TO a; COMMIT" } ],
	[ 'named', q{SET dbpool.transaction = autonomous}, sub {
		return "SELECT dbpool_begin('p', 'tx'); SELECT dbpool_exec('tx', 'INSERT INTO t VALUES (\$1)', $_[0]); INSERT INTO mine VALUES ($_[0]); SELECT dbpool_commit('tx')" } ])
{
	my ($name, $set, $sql) = @$kind;
	my $stat = q{SELECT committed, rolled_back FROM dbpool_stat_pools WHERE pool = 'p'};

	$s->value('CREATE TABLE IF NOT EXISTS mine (id int)');
	$s->value($set) if $set;
	my ($committed, $rolled_back) = split /\|/, $control->value($stat);

	commits_wait();
	send_write($sql->(++$id));
	cut();
	commits_go();
	$answer = $s->wait;
	is($answer->{err}, '', "$name: committed, and so the COMMIT succeeds");
	is(rows($id), '1', "$name: it is there");
	is($s->value("SELECT count(*) FROM mine WHERE id = $id"), '1', "$name: here as well");
	is($control->value($stat), ($committed + 1) . "|$rolled_back", "$name: and counted as committed");
	is($control->value('SELECT count(*) FROM dbpool_transactions'), '0', "$name: it has ended");

	commits_wait();
	send_write($sql->(++$id));
	cut();
	$there->value('SELECT pg_terminate_backend(pid) FROM committing');
	$answer = $s->wait;
	is($answer->{state}, '08006', "$name: not committed, and so the COMMIT fails");
	like($answer->{err}, qr/The transaction on the remote server was rolled back/, "$name: which is said");
	is($there->value("SELECT count(*) FROM t WHERE id = $id"), '0', "$name: it is not there");
	is($s->value("SELECT count(*) FROM mine WHERE id = $id"), $name eq 'named' ? '1' : '0', "$name: nor here, if it is bound");
	is($control->value($stat), ($committed + 1) . '|' . ($rolled_back + 1), "$name: and counted as rolled back");
	$s->query(q{SELECT dbpool_rollback('tx')}) if $name eq 'named';
	commits_go();
}
is($there->value('SELECT count(*) FROM log'), '0', 'what was rolled back stays so');

# What only notifies writes as it commits, and has no number before.
$s->value(q{SELECT dbpool_begin('p', 'notifies')});
$s->value(q{SELECT dbpool_exec('notifies', 'NOTIFY told')});
my $told = $proxy->tell('on after "COMMIT" backend message Z before stall');
$s->send(q{SELECT dbpool_commit('notifies')});
wait_until('its end is held back', sub { return $proxy->fired($told) });
$proxy->tell('now reset');
$proxy->tell('resume');
is($s->wait->{state}, '08007', 'a COMMIT of what has notified may have been one');

# Who cancels a COMMIT that is in doubt is told what the remote says.
$s->value('SET dbpool.transaction = bound');
commits_wait();
send_write("BEGIN; SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1)', " . ++$id . "); INSERT INTO mine VALUES ($id); COMMIT");
cut();
$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
# the worker has been told when the session waits for it again
$control->value(q{SELECT count(*) FROM dbpool_ping('p')}) foreach 1 .. 50;
commits_go();
$answer = $s->wait;
is($answer->{err}, '', 'a cancel does not end the question what became of a COMMIT');
is($s->value("SELECT count(*) FROM mine WHERE id = $id"), rows($id), 'both ends are alike');
$s->value('SET dbpool.transaction = autonomous');

# A ROLLBACK has its way when its connection is lost, or has been.
foreach my $when ('after "ROLLBACK" frontend byte 0 reset', 'after "ROLLBACK" backend byte 0 reset', 'before')
{
	$s->value(q{SELECT dbpool_begin('p', 'tx')});
	$s->value("SELECT dbpool_exec('tx', 'INSERT INTO t VALUES (\$1)', " . ++$id . ')');
	$proxy->tell($when eq 'before' ? 'now reset' : "on $when");
	is($s->query(q{SELECT dbpool_rollback('tx')})->{err}, '', "a transaction whose connection is lost is rolled back: $when");
	is($s->query(q{SELECT dbpool_begin('p', 'tx')})->{err}, '', 'and its name is free');
	$s->value(q{SELECT dbpool_rollback('tx')});
	is(rows($id), '0', 'what it has written is not there');
	$proxy->tell('clear');
}
# it is free when the ROLLBACK fails, too
$s->value(q{SELECT dbpool_begin('p', 'tx'); SET statement_timeout = '200ms'});
$proxy->tell('now stall');
is($s->query(q{SELECT dbpool_rollback('tx')})->{state}, '57014', 'a ROLLBACK that is cancelled');
$proxy->tell('resume');
is($s->query(q{SET statement_timeout = 0; SELECT dbpool_begin('p', 'tx')})->{err}, '', 'leaves no name behind');
$s->value(q{SELECT dbpool_rollback('tx')});
$control->poll('SELECT count(*) FROM dbpool_transactions', '0');

# --- what the question must not do --------------------------------------------------------

$there->value(q{
	CREATE FUNCTION deallocates(int) RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN EXECUTE 'DEALLOCATE ALL'; INSERT INTO t VALUES ($1); RETURN $1; END $$;
	ALTER TABLE t DISABLE TRIGGER waits});
foreach (1 .. 8)
{
	$id++;
	is($s->value("SELECT dbpool_value(NULL::int, 'p', 'SELECT deallocates(\$1)', $id)"), $id, 'what deallocates all is not hindered');
	is(rows($id), '1', 'and runs once');
}

$there->value('REVOKE EXECUTE ON FUNCTION pg_catalog.pg_current_xact_id_if_assigned() FROM PUBLIC; CREATE ROLE weak LOGIN; GRANT ALL ON t TO weak');
$control->value(q{CREATE SERVER weak FOREIGN DATA WRAPPER dbpool OPTIONS (host '} . $remote->host . q{', port '} . $remote->port . q{', dbname 'postgres')});
$control->value(q{CREATE USER MAPPING FOR CURRENT_USER SERVER weak OPTIONS (user 'weak')});
$answer = $s->query("SELECT dbpool_exec('weak', 'INSERT INTO t VALUES (\$1)', " . ++$id . ')');
is($answer->{err}, '', 'a remote that does not let us ask does not hinder what was asked of it');
is(rows($id), '1', 'which has run');
$there->value('GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_xact_id_if_assigned() TO PUBLIC');

# --- several hosts --------------------------------------------------------------------------

# Of two ways to one server the other is taken; another server is not asked, and does not
# run it.
$there->value('ALTER TABLE t ENABLE TRIGGER waits');
foreach my $other (0, 1)
{
	my $second = $other ? make_remote(name => 'other') : $remote;
	my $by = FaultProxy->start($second, name => "proxy_$other");
	my ($p, $b) = ({ $proxy->options }, { $by->options });

	$second->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY, v text)') if $other;
	create_pool($local, "hosts$other", undef, %$p, max_size => 1, acquire_timeout => '20s', connect_timeout => 2,
		host => "$p->{host},$b->{host}", port => "$p->{port},$b->{port}");
	$proxy->tell('resume');
	$control->serves('p');
	commits_wait();
	send_write("SELECT dbpool_value(NULL::int, 'hosts$other', '$insert', " . ++$id . ')');
	$proxy->tell('always reset');
	wait_until('it is asked, or told', sub {
		return $s->is_done || $control->value(q{SELECT count(*) FROM dbpool_connections WHERE state = 'checking'}) > 0 });
	commits_go();
	my $answer = $s->wait;
	$proxy->tell('resume');
	is($answer->{state} // '', $other ? '08007' : '', $other ? 'another server is not believed' : 'another way to the same server is good');
	like($answer->{err}, qr/could not be asked: the remote server is another one by now/, 'which is said') if $other;
	wait_until('it is there', sub { return rows($id) eq '1' });
	is($second->safe_psql('postgres', "SELECT count(*) FROM t WHERE id = $id"), $other ? '0' : '1', 'it has not run there');
	$by->stop;
	$second->stop if $other;
}

# --- a session that does not read -----------------------------------------------------------

# More rows than there is room for, and behind them the number, which has come when the
# connection is lost.
foreach my $commits (1, 0)
{
	commits_wait();
	$there->value('SELECT pg_advisory_lock(2)');
	my $pid = $s->pid;
	my $from = $id + 1;

	$control->serves('p');
	$s->send(q{SELECT count(*), sum(length(v)) FROM dbpool_query('p', 'INSERT INTO t SELECT i, repeat(''x'', 1000) }
		  . q{FROM (SELECT pg_advisory_xact_lock_shared(2) OFFSET 0) l, generate_series($1::int, $2::int) i RETURNING v', }
		  . "$from, $from + 99) AS r(v text)");
	wait_until('it has come there', sub {
		return $there->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND NOT granted}) > 0 });
	suspend($pid);
	$there->value('SELECT pg_advisory_unlock(2)');
	wait_until('the remote commits', sub { return committing() > 0 });
	$proxy->tell('now reset');
	my $backend = $there->value('SELECT pid FROM committing');
	if ($commits) { commits_go(); $there->poll("SELECT count(*) FROM t WHERE id = $from", '1'); }
	else { $there->value("SELECT pg_terminate_backend($backend)"); commits_go(); }
	resume($pid);
	my $answer = $s->wait;
	is("$answer->{out}$answer->{err}", '100|100000', 'a session that did not read ' . ($commits ? 'has all that was committed' : 'has all of the second run'));
	is($there->value("SELECT count(*) FROM t WHERE id BETWEEN $from AND $from + 99"), '100', 'and it is there once');
	$id += 100;
}

# --- a remote that lies ---------------------------------------------------------------------

# It stands before the real one. It commits a write, and goes away before it says so; when
# it is asked what has become of that, it tells something else. Each: what, and the
# SQLSTATE that the call is to have then. What it ends in is no answer.
subtest 'a remote that lies' => sub {
	my $column = 'dbpool_outcome';
	my $says = sub { return rows_begin($column) . join('', map { row($_) } @_) . tag('SELECT ' . @_) . ready() };
	my $alone = sub { return $_[0] =~ s/Z\x00\x00\x00\x05I\z//r };
	my %lies = (
		garbage => [ '08007', $says->("\x01\x7fcom") ],
		nearly => [ '08007', $says->('committed ') ],
		long => [ '08007', $says->('committed' x 10_000) ],
		nothing => [ '08007', $says->() ],
		null => [ '08007', rows_begin($column) . message('D', pack('n N', 1, 0xffffffff)) . tag('SELECT 1') . ready() ],
		no_result => [ '08007', tag('SELECT 1') . ready() ],
		empty => [ '08007', message('I', '') . ready() ],
		another => [ '08007', rows_begin('a') . row('committed') . tag('SELECT 1') . ready() ],
		two_columns => [ '08007', rows_begin($column, $column) . row('committed', 'committed') . tag('SELECT 1') . ready() ],
		several => [ '08007', $says->('aborted', 'committed') ],
		several_results => [ '08007', $alone->($says->('aborted')) . $says->('committed') ],
		twice => [ '08007', $alone->($says->('committed')) . $says->('committed') ],
		error => [ '08007', error('no') . ready() ],
		goes => [ '08007', sub { POSIX::_exit(0) } ],
		for_ever => [ '08007', sub { $_[0]->put(rows_begin($column)); $_[0]->flood(row('committed')) } ],
		notices => [ '08007', sub { $_[0]->flood(notice('x' x 1000)) } ],
		unsaid => [ '08007', sub { $_[0]->put(rows_begin($column)); $_[0]->get while 1 } ],
		another_run => [ '08007', $says->('committed') ],
		another_run_aborted => [ '08007', $says->('aborted') ],
		in_progress => [ '57014', $says->('in progress') ],
		aborted => [ '08006', $says->('aborted') ]);
	my $marks = PostgreSQL::Test::Utils::tempdir();
	my %deeds;

	foreach my $lie (keys %lies)
	{
		$deeds{$lie} = { startup => sub {
			my ($client, $begin) = @_;
			my $answer = $lies{$lie}[1];
			my $written;

			append_to_file("$marks/$lie", 'x');
			$client->relay($remote, $begin =~ s/(database\0)[^\0]*/$1postgres/r, sub {
				my ($type, $body, $sent) = @_;
				my $first = -s "$marks/$lie" == 1;

				$written = 1 if $type eq 'C' && $body =~ /^INSERT/;
				POSIX::_exit(0) if $type eq 'Z' && $written;
				# it is known what it is asked for, or that it is asked for nothing
				if ($sent =~ /dbpool_outcome/ || ($sent eq "\0" && $lie =~ /^another_run/))
				{
					return if $type ne 'Z';
					ref $answer ? $answer->($client) : $client->put($answer);
					return;
				}
				# of another system
				$body =~ s/\d(?= 0000)/x/ if !$first && $lie =~ /^another_run/ && $type eq 'D';
				return $body;
			});
		} };
	}
	my $fake = FakeRemote->start(%deeds);
	my $worker = worker_pid($control);
	my $before = rss_kb($worker);

	$there->value('CREATE TABLE believed (lie text)');
	foreach my $lie (sort keys %lies)
	{
		create_pool($local, $lie, undef, $fake->options($lie, max_size => 1, acquire_timeout => '1500ms'));
		# how long the first log-in takes is not what this is about
		wait_until("$lie lets in", sub { $s->query("SET statement_timeout = 0; SELECT dbpool_ping('$lie')")->{err} eq '' });
		my $answer = $s->query("SET statement_timeout = '2500ms'; SET client_min_messages = error; "
			  . "SELECT dbpool_exec('$lie', 'INSERT INTO believed VALUES (\$1)', '$lie'::text)");

		is($answer->{state} // '', $lies{$lie}[0], "$lie: the call");
		cmp_ok(-s "$marks/$lie", '<', 40, "$lie: it is not stormed");
		is($there->value("SELECT count(*) FROM believed WHERE lie = '$lie'"), $lie eq 'aborted' ? 3 : 1, "$lie: what it did");
		$control->value("SET client_min_messages = error; DROP SERVER \"$lie\" CASCADE");
	}
	is(worker_pid($control), $worker, 'the worker lives');
	cmp_ok(rss_kb($worker) - $before, '<', 20_000, 'and does not grow');
	$s->value('SET statement_timeout = 0');
	$fake->stop;
};

# --- restarts ------------------------------------------------------------------------------

# What fails is tried again within a budget, to which each success adds a tenth of what a failure takes.
sub refill { return $s->value(q{SELECT count(dbpool_exec('p', 'SELECT 1')) FROM generate_series(1, 100)}) }

# The remote is shut down in good order while a write is in doubt; $how runs before it starts.
sub restarted
{
	my ($how) = @_;

	refill();
	commits_wait();
	send_write("SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1)', " . ++$id . ')');
	$proxy->tell('now reset');
	$remote->stop('fast');
	$how->();
	$remote->start;
	$there->kill;
	$there = session($remote);
	return $s->wait;
}

$answer = restarted(sub { });
is($answer->{err}, '', 'a server that was shut down in good order knows that it was not committed');
is(rows($id), '1', 'and so it has run once more');

# as a standby that is promoted does, it begins another timeline
$answer = restarted(sub {
	$remote->append_conf('postgresql.conf', "restore_command = 'false'");
	append_to_file($remote->data_dir . '/recovery.signal', '') });
is($answer->{err}, '', 'so is what was not committed when another timeline began');
is(rows($id), '1', 'and has run once more');

# --- crashes -------------------------------------------------------------------------------

# A write whose commit the remote has made, and not told.
sub send_untold
{
	my ($sql) = @_;
	my $rule = $proxy->tell('on after "-- crash" backend message Z before stall');

	$there->value('ALTER TABLE t DISABLE TRIGGER waits');
	$s->send($sql);
	wait_until('it is committed', sub { return $proxy->fired($rule) });
	$there->value('ALTER TABLE t ENABLE TRIGGER waits');
	return;
}

sub is_perhaps_another
{
	my ($name) = @_;

	is($answer->{state}, '08007', "$name: a commit could be a later one's");
	like($answer->{err}, qr/could not be asked: the remote server is another one by now, or has recovered from a crash, and the transaction that it has committed by the same number may be a later one/, "$name: which is said");
	return;
}

# A server that keeps the times of commits tells one from another.
sub keep_times
{
	$there->value(q{ALTER SYSTEM SET track_commit_timestamp = 'on'});
	$there->value(q{ALTER SYSTEM SET wal_writer_delay = '10s'});
	$remote->restart;
	$there->kill;
	$there = session($remote);
	is($s->value(q{SELECT dbpool_value(NULL::text, 'p', 'SHOW track_commit_timestamp')}), 'on', 'the remote keeps times');
	return;
}

foreach my $case ('is not committed', 'is committed', 'is committed, and its time is kept')
{
	my $sql = "SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1) -- crash', " . ++$id . ')';

	keep_times() if $case =~ /time/;
	refill();
	if ($case ne 'is not committed') { send_untold($sql) }
	else { commits_wait(); send_write($sql) }
	$remote->stop('immediate');
	$remote->start;
	$proxy->tell('now reset');
	$proxy->tell('resume');
	$there->kill;
	$there = session($remote);
	$answer = $s->wait;
	is(rows($id), '1', "a crash, a write $case: it is there once");
	if ($case eq 'is committed') { is_perhaps_another($case) }
		# the remote has warned of its end
	else { unlike($answer->{err}, qr/ERROR/, "a crash, a write $case: no error") }
}

# The number, the end of the statement and the remote's last words, all at once: libpq reads the words,
# a notice, ahead of the rest.
$there->value('ALTER TABLE t DISABLE TRIGGER waits');
my $held = $proxy->tell('on after "-- at once" backend message 2 before stall');
$s->send("SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1) -- at once', " . ++$id . ')');
wait_until('its answer is held back', sub { return $proxy->fired($held) });
wait_until('it is committed', sub { return rows($id) == 1 });
$there->value('ALTER TABLE t ENABLE TRIGGER waits');
$remote->stop('immediate');
$remote->start;
$proxy->tell('resume');
$there->kill;
$there = session($remote);
is($s->wait->{err}, '', 'what has committed does so, whatever the remote says as it ends');
is(rows($id), '1', 'once');

# --- statements that have not ended -----------------------------------------------------------

# The remote ends before a statement has: the number of its transaction has not come, so it is not committed.
sub running
{
	my ($pool, $end) = @_;

	$there->value('SELECT pg_advisory_lock(2)');
	$s->send("SELECT dbpool_exec('$pool', 'INSERT INTO t SELECT \$1 WHERE pg_advisory_xact_lock_shared(2) IS NOT NULL', " . ++$id . ')');
	$there->poll(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND NOT granted}, '1');
	$end->();
	$there->kill;
	$there = session($remote);
	$answer = $s->wait;
	return;
}

sub crash
{
	my $pid = $there->pid;

	$remote->safe_psql('postgres', 'CHECKPOINT');
	kill 'KILL', $pid;
	wait_until('the remote is back', sub { return defined psql_try('SELECT 1') });
	return;
}

create_pool($local, 'patient', undef, $proxy->options(max_size => 2, acquire_timeout => '20s', failover_wait => '20s'));
$s->value(q{SELECT dbpool_exec('patient', 'SELECT 1')});
running('patient', \&crash);
unlike($answer->{err}, qr/ERROR|WARNING/, 'a crash as it runs: it runs once more');
is(rows($id), '1', 'and is there once');
running('patient', sub { $remote->stop('fast'); $remote->start });
is($answer->{err}, '', 'a shutdown as it runs, with failover_wait: it runs once more');
is(rows($id), '1', 'and is there once');
running('p', sub {
	$there->value(q{SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND NOT granted}) });
is($answer->{state}, '08006', 'who is terminated as he runs a statement does not run it again');
like($answer->{err}, qr/terminating connection due to administrator command.*\n.*was rolled back/, 'and is told so');
is(rows($id), '0', 'it is not there');

# --- numbers that are given twice ----------------------------------------------------------

# The remote crashes before a transaction was flushed. Another gets its number, and commits or not.
foreach my $ends ('COMMIT', 'ROLLBACK')
{
	$there->value('CREATE TABLE IF NOT EXISTS used (x xid8); CHECKPOINT');
	commits_wait();
	send_write("SELECT dbpool_exec('p', 'INSERT INTO t VALUES (\$1)', " . ++$id . ')');
	my $xid = $there->value('SELECT backend_xid FROM pg_stat_activity WHERE pid = (SELECT pid FROM committing)');
	my $checkpointer = $there->value(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
	$proxy->tell('always stall');
	kill 'KILL', $checkpointer;
	# $there has the lock until it is ended by the crash
	wait_until('the remote is back', sub {
		return (psql_try("SELECT pid <> $checkpointer FROM pg_stat_activity WHERE backend_type = 'checkpointer'") // '') eq 't' });
	$there->kill;
	$there = session($remote);
	my $again = 0;
	foreach (1 .. 20)
	{
		my $next = $there->value("BEGIN; INSERT INTO used VALUES (pg_current_xact_id()) RETURNING x");

		$there->value($ends);
		$again = 1 if $next == $xid;
		last if $next >= $xid;
	}
	note($again ? 'the number was given twice' : 'the number was not given twice in this run');
	$proxy->tell('resume');
	$proxy->tell('now reset');
	$answer = $s->wait;
	if ($again && $ends eq 'COMMIT')
	{
		is_perhaps_another('given twice');
		is(rows($id), '0', 'for it is not there');
	}
	else
	{
		unlike($answer->{err}, qr/ERROR/, 'what was lost, or rolled back, runs again');
		is(rows($id), '1', 'and is there once');
	}
}

# --- failovers -----------------------------------------------------------------------------

my $primary = PostgreSQL::Test::Cluster->new('primary1');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "autovacuum = off\nmax_connections = 50\ntrack_commit_timestamp = on\n");
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE TABLE t (id int PRIMARY KEY);
	CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION wait()});
create_pool($local, 'f', undef, host => 'x', port => 1, dbname => 'postgres', target_session_attrs => 'read-write',
	max_size => 2, acquire_timeout => '20s', sslmode => 'disable', gssencmode => 'disable');

# What the standby has got of the write when it takes over: nothing, all but its commit, or all; and
# whether it keeps the times of commits.
my $unknown = 0;
foreach my $case ([ 'asynchronous', 'nothing', 'on' ], [ 'asynchronous', 'its rows', 'on' ],
	[ 'asynchronous', 'its commit', 'off' ], [ 'asynchronous', 'its commit', 'on' ],
	[ 'synchronous', 'nothing', 'on' ], [ 'synchronous', 'its commit', 'on' ])
{
	my ($kind, $has, $times) = @$case;
	my $known = $has ne 'its commit' || $primary->safe_psql('postgres', 'SHOW track_commit_timestamp') . $times eq 'onon';
	my $name = "$kind standby that has got $has, times $times";
	my $standby = PostgreSQL::Test::Cluster->new('primary' . ++$id);
	my $front = FaultProxy->start($primary);

	$primary->backup("base$id");
	$standby->init_from_backup($primary, "base$id", has_streaming => 1);
	$standby->append_conf('postgresql.conf', "track_commit_timestamp = $times");
	$standby->start;
	$primary->wait_for_catchup($standby);
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = '*'}) if $kind eq 'synchronous';
	$primary->reload;
	$control->value(sprintf q{ALTER SERVER f OPTIONS (SET host '127.0.0.1,%s', SET port '%d,%d')},
		$standby->host, $front->port, $standby->port);
	$s->value(q{SELECT dbpool_exec('f', 'SELECT 1')});
	$standby->stop if $has eq 'nothing';

	my $lock = session($primary);
	my $untold;
	$lock->value('SELECT pg_advisory_lock(1)') if $has ne 'its commit' && $kind ne 'synchronous';
	$untold = $front->tell('on after "INSERT INTO t" backend message Z before stall') if $has eq 'its commit';
	$s->send("SELECT dbpool_exec('f', 'INSERT INTO t VALUES (\$1)', $id)");
	if ($has eq 'its commit') { wait_until('it is committed', sub { return $front->fired($untold) }) }
	else
	{
		$lock->poll(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = '}
			. ($kind eq 'synchronous' ? 'SyncRep' : 'advisory') . q{'}, '1');
	}
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert')) if $has ne 'nothing';
	$primary->stop('immediate');
	$lock->kill;
	$front->stop;
	$standby->start if $has eq 'nothing';
	$standby->promote;
	$answer = $s->wait;
	if ($known) { unlike($answer->{err}, qr/ERROR/, "$name: no error") }
	else { is_perhaps_another($name) }
	$unknown++ if !$known;
	is($standby->safe_psql('postgres', "SELECT count(*) FROM t WHERE id = $id"), '1', "$name: it is there once");
	$primary = $standby;
}
is($unknown, 2, 'where one of both keeps no times, that is not known');

$_->quit foreach $s, $control, $there;
$proxy->stop;
done_testing();
