
# dbpool.traceparent: each statement finds that of its own caller in the remote session, in
# whatever way it is sent, and those of others, on the same connection, find none.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(conf => "max_prepared_transactions = 10\n");
my $control = session($local);
my @trace = map { "00-0af7651916cd43dd8448eb211c8031$_-b7ad6b7169203331-01" } 10 .. 19;

$remote->safe_psql('postgres', q{
	CREATE FUNCTION trace() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT coalesce(current_setting('dbpool.traceparent', true), '') $$;
	CREATE TABLE t (a int, trace text DEFAULT trace());});
create_pool($local, 'p', $remote, max_size => 1);

sub set_trace
{
	my ($trace) = @_;

	$control->value("SET dbpool.traceparent = '$trace'");
	return;
}

# What a statement on the pool sees.
sub seen { return $control->value("SELECT dbpool_value(NULL::text, '" . ($_[0] // 'p') . "', 'SELECT trace()')"); }

# What rows that were made since the last time have.
sub written
{
	my $rows = $remote->safe_psql('postgres', 'SELECT DISTINCT trace FROM t ORDER BY 1');

	$remote->safe_psql('postgres', 'DELETE FROM t');
	return join ' ', split /\n/, $rows;
}

# --- values ----------------------------------------------------------------------------------

my $bad = 0;
foreach my $value ('x', substr($trace[0], 1), "$trace[0]0", uc($trace[0]), 'ff' . substr($trace[0], 2), $trace[0] =~ s/-01$/_01/r,
	'00-' . '0' x 32 . '-b7ad6b7169203331-01', '00-0af7651916cd43dd8448eb211c80319c-' . '0' x 16 . '-01', $trace[0] =~ s/b7ad/b7 d/r)
{
	my $answer = $control->query("SET dbpool.traceparent = '$value'");

	$bad++ if $answer->{state} eq '22023' && $answer->{err} =~ /W3C/;
}
is($bad, 9, 'what is no traceparent is refused');
is($control->query("SET dbpool.traceparent = '$_'")->{err}, '', 'what is one is taken')
  foreach ($trace[0], $trace[0] =~ s/^00/cc/r, $trace[0] =~ s/01$/00/r, '');

# --- each run of a text -----------------------------------------------------------------------

is(seen(), '', 'without one, none is seen');
{
	my @seen;

	foreach my $i (0 .. 19)
	{
		set_trace($i % 3 ? $trace[ $i % 10 ] : '');
		push @seen, seen() eq ($i % 3 ? $trace[ $i % 10 ] : '');
	}
	is(scalar(grep { $_ } @seen), 20, 'each run of a text sees its own, or none');
	my ($calls, $prepared, $last) = split /\|/,
	  $control->value(q{SELECT calls, prepared, traceparent FROM dbpool_stat_statements WHERE query = 'SELECT trace()'});
	is($calls, 21, 'it is one statement');
	cmp_ok($prepared, '>', 5, 'which is prepared');
	is($last, $trace[9], 'and shows the last one');
}
set_trace($trace[1]);
is($control->value(q{SELECT dbpool_value(NULL::text, 'p', 'SELECT trace() AS first')}), $trace[1], 'so does the first run of another text');
is($control->value(q{SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1)'), dbpool_exec('p', 'INSERT INTO t VALUES (2);'),
	dbpool_exec('p', 'INSERT INTO t VALUES ($1)', 3), dbpool_query_json('p', 'INSERT INTO t VALUES (4) RETURNING a')}),
	'1|1|1|{"a": 4}', 'what writes');
is(written(), $trace[1], 'as well');
is($control->query(q{SELECT dbpool_exec('p', 'SELECT 1/0')})->{state}, '22012', 'an error is the own one');
set_trace('');
is(seen(), '', 'and afterwards there is none');

# --- what goes through no pipeline --------------------------------------------------------------

set_trace($trace[2]);
$control->value(q{SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)')});
$control->value(q{SELECT dbpool_bulk_insert('p', 't', 'SELECT 3', '{a}')});
$control->value(q{SELECT dbpool_exec('p', 'CREATE TABLE u AS SELECT trace()')});
is(written(), $trace[2], 'scripts and bulk inserts see theirs');
is($remote->safe_psql('postgres', 'SELECT * FROM u'), $trace[2], 'and utility commands');
is($control->query(q{SELECT dbpool_exec('p', 'VACUUM t')})->{err}, '', 'VACUUM works');
is($control->query(q{SELECT * FROM dbpool_query('p', 'VACUUM u') AS t(a text)})->{err}, '', 'as a query, too');
is($control->query(q{SELECT dbpool_exec('p', 'SELECT 1; SELECT 1/0')})->{state}, '22012', 'an error is the own one');
set_trace('');
is(seen(), '', 'nothing of it is left');

create_pool($local, 'never', $remote, max_size => 1, reset => 'never');
set_trace($trace[3]);
$control->value(q{SELECT dbpool_exec('never', 'INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)')});
is(written(), '', 'where nothing is reset, a script has none');
is(seen('never'), $trace[3], 'a statement has');
set_trace('');
is(seen('never'), '', 'and leaves none');

# --- batches ------------------------------------------------------------------------------------

set_trace($trace[4]);
is( $control->value(q{SELECT string_agg(status, ' ') FROM dbpool_batch('p', ARRAY['INSERT INTO t VALUES (1)', 'INSERT INTO t VALUES (2)'])}),
	'ok ok', 'a batch in one transaction');
is(written(), $trace[4], 'sees its trace');
is( $control->value(q{SELECT string_agg(status, ' ') FROM dbpool_batch('p',
		ARRAY['INSERT INTO t VALUES (1)', 'SELECT 1/0', 'VACUUM t', 'INSERT INTO t VALUES (2)'], mode => 'independent')}),
	'ok failed ok ok', 'independent statements');
is(written(), $trace[4], 'see theirs');
is($control->value(q{SELECT dbpool_exec_batch('p', 'INSERT INTO t VALUES ($1)', ARRAY[1, 2, 3])}), '3', 'one statement of many rows');
is(written(), $trace[4], 'sees its trace');
is($control->query(q{SELECT * FROM dbpool_batch('p', ARRAY['INSERT INTO t VALUES (1)', 'SELECT 1/0', 'SELECT 2'])})->{state}, '22012',
	'an error in a batch is the own one');
set_trace('');
is(seen(), '', 'nothing of it is left');

# --- transactions over calls ------------------------------------------------------------------------

my $value = q{SELECT dbpool_value(NULL::text, 'p', 'SELECT trace()')};
is( $control->value(qq{
		SET dbpool.transaction = bound;
		BEGIN;
		$value;
		SET dbpool.traceparent = '$trace[5]';
		$value;
		SAVEPOINT s;
		SET dbpool.traceparent = '$trace[6]';
		$value;
		SELECT dbpool_exec('p', 'CREATE TABLE v AS SELECT trace(); INSERT INTO t VALUES (1)');
		SELECT count(*) FROM dbpool_batch('p', ARRAY['INSERT INTO t VALUES (2)', 'SELECT 1']);
		SELECT dbpool_bulk_insert('p', 't', 'SELECT 3', '{a}');
		SET dbpool.traceparent = '';
		$value;
		SELECT dbpool_exec('p', 'INSERT INTO t VALUES (4); SELECT 1');
		ROLLBACK TO s;
		$value;
		SET dbpool.traceparent = '';
		$value;
		COMMIT;
		SET dbpool.traceparent = '';
		$value;}),
	join("\n", '', $trace[5], $trace[6], 2, 2, 1, '', 2, $trace[5], '', ''),
	'each call in a transaction sees its own or none');
is(written(), '', 'and what was rolled back is');
is( $control->value(qq{
		SET dbpool.traceparent = '$trace[7]';
		BEGIN;
		SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)');
		SELECT dbpool_bulk_insert('p', 't', 'SELECT 3', '{a}');
		SELECT count(*) FROM dbpool_batch('p', ARRAY['INSERT INTO t VALUES (2)', 'SELECT 1']);
		COMMIT;
		RESET dbpool.transaction; RESET dbpool.traceparent;}),
	"2\n1\n2", 'so does a script as the first, and a bulk insert');
is(written(), $trace[7], 'all of them');
is(seen(), '', 'nothing of it is left');

# What steers a transaction has nothing before it: a failed one takes nothing else.
set_trace($trace[8]);
$control->value(q{SELECT dbpool_begin('p', 'steered')});
$control->value(q{SELECT dbpool_savepoint('steered', 's')});
foreach my $back (q{dbpool_rollback_to('steered', 's')}, q{dbpool_exec('steered', 'ROLLBACK TO s')})
{
	is($control->query(q{SELECT dbpool_exec('steered', 'SELECT 1/0')})->{state}, '22012', 'the transaction has failed');
	is($control->query("SELECT $back")->{err}, '', "$back takes it back");
	is($control->value(q{SELECT dbpool_value(NULL::text, 'steered', 'SELECT trace()')}), $trace[8], 'and it goes on');
}
is($control->query(q{SELECT dbpool_rollback('steered')})->{err}, '', 'it ends');

# A batch that is given up before it has begun, while the remote is told of its trace
my $hangs = session($local);
$hangs->value("SET dbpool.traceparent = '$trace[8]'");
is($hangs->value(q{SELECT count(*) FROM dbpool_batch('p', ARRAY['SELECT 1', 'SELECT 2'])}), '2', 'a batch runs');
my $behind = $control->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'p'});
suspend($behind);
$hangs->send(q{SELECT count(*) FROM dbpool_batch('p', ARRAY['SELECT 1', 'SELECT 2'])});
$control->poll(q{SELECT count(*) FROM dbpool_requests WHERE pool = 'p' AND state = 'running'}, '1');
$control->value('SELECT pg_cancel_backend(' . $hangs->pid . ')');
is($hangs->wait->{state}, '57014', 'it is cancelled');
resume($behind);
set_trace('');
is(seen(), '', 'the pool works');
is($control->value(q{SELECT remote_pid FROM dbpool_connections WHERE pool = 'p'}), $behind, 'on the same connection');
$hangs->quit;

# --- sqlcommenter -------------------------------------------------------------------------------

my $with = q{SELECT dbpool_value(NULL::text, 'p', 'SELECT trace()')};
is($control->value("$with /*action='x',traceparent='$trace[0]'*/"), $trace[0], 'that of a comment at the end is taken');
is($control->value("$with /*traceparent='$trace[1]',tracestate='a%3Db'*/ ;"), $trace[1], 'of each statement');
is($control->value($with), '', 'and of that alone');
is($control->value("/* traceparent='$trace[2]' */ $with"), $trace[2], 'or of one at the beginning');
is($control->value("$with, '/*traceparent=''$trace[0]''*/' FROM (SELECT 1) x"), "|/*traceparent='$trace[0]'*/", 'a string is none');
is($control->value("$with /*$_*/"), '', "\"$_\" has none")
  foreach ('', 'traceparent=', "traceparent='", "traceparent='x'", "traceparent='" . uc($trace[0]) . q{'},
	"xtraceparent='$trace[0]'", "traceparent='$trace[0]", "traceparent='$trace[0]0'", 'x' x 5000 . ",traceparent='$trace[0]'" . ' ' x 5000);
set_trace($trace[3]);
is($control->value("$with /*traceparent='$trace[0]'*/"), $trace[3], 'the setting goes first');
set_trace('');
is( $control->value(qq{DO \$\$ BEGIN FOR i IN 1 .. 3 LOOP PERFORM dbpool_exec('p', 'INSERT INTO t VALUES (1)'); END LOOP; END \$\$ /*traceparent='$trace[4]'*/}),
	'', 'calls that a statement makes in functions');
is(written(), $trace[4], 'belong to its trace');

# --- many at once --------------------------------------------------------------------------------

create_pool($local, 'shared', $remote, max_size => 2);
{
	my $script = <<'SQL';
\set n random(0, 5)
SELECT set_config('dbpool.traceparent', CASE WHEN :n < 3 THEN '' ELSE format('00-0af7651916cd43dd8448eb211c80%s-b7ad6b7169203331-01', 1000 + :client_id * 10 + :n) END, false);
SELECT 1 / (dbpool_value(NULL::text, 'shared', 'SELECT trace()') = current_setting('dbpool.traceparent'))::int;
SELECT 1 / (dbpool_value(NULL::text, 'shared', 'INSERT INTO t VALUES ($1) RETURNING trace', :n) = current_setting('dbpool.traceparent'))::int;
SQL
	my ($pgbench) = start_pgbench($local, $script, '-c', 8, '-t', 300);

	$pgbench->finish;
	is($pgbench->result(0), 0, 'of many sessions on few connections, each sees its own or none');
	my ($shared, $prepared) = split /\|/,
	  $control->value(q{SELECT shared, prepared FROM dbpool_stat_statements WHERE pool = 'shared' AND query = 'SELECT trace()'});
	cmp_ok($shared, '>', 1000, 'which they share');
	cmp_ok($prepared, '>', 2000, 'with what is prepared');
	is($control->value(q{SELECT repeats FROM dbpool_stat_pools WHERE pool = 'shared'}), 0, 'nothing had to be sent again');
	written();
}

# --- who sees it ----------------------------------------------------------------------------------

$control->value(q{CREATE ROLE other LOGIN; ALTER SERVER p OPTIONS (ADD slow_query_threshold '100ms')});
{
	my $s = session($local);
	my $other = session($local, user => 'other');
	my $from = -s $local->logfile;

	$s->value("SET dbpool.traceparent = '$trace[8]'");
	$s->send(query_sleeps('p', 600));
	$control->poll(q{SELECT state, clock_timestamp() - submitted_at > '150ms' FROM dbpool_requests}, 'running|t');
	is($control->value(q{SELECT traceparent FROM dbpool_requests}), $trace[8], 'dbpool_requests shows it');
	is($other->value(q{SELECT count(*), max(traceparent) FROM dbpool_requests}), '1|', 'but not to others');
	$control->value('SELECT pg_cancel_backend(' . $s->pid . ')');
	is($s->wait->{state}, '57014', 'a call with one is given up');
	like(slurp_file($local->logfile, $from), qr/slow statement on pool "p": .*given up.*, traceparent $trace[8]: SELECT pg_sleep/,
		'the log of slow statements has it');
	$s->value(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.2)')});
	like(slurp_file($local->logfile, $from), qr/slow statement on pool "p" at .*, traceparent $trace[8]: SELECT pg_sleep/, 'of those that end, too');
	is(seen(), '', 'nothing of it is left');
}

# --- remotes that do not take it ----------------------------------------------------------------------

# one that has a dbpool which does not know the setting refuses it
$remote->append_conf('postgresql.conf', "dbpool.workers = 1\n");
$remote->reload;
create_pool($local, 'old', $remote, max_size => 1);
set_trace($trace[9]);
$control->poll(q{SELECT dbpool_value(NULL::text, 'old', $$SELECT current_setting('dbpool.workers', true)$$)}, '1');
is(seen('old'), '', 'a dbpool that does not know the setting is not told');
$remote->append_conf('postgresql.conf', "dbpool.traceparent = ''\n");
$remote->reload;
# each session there hears of that by itself
$control->poll(qq{SELECT dbpool_value(NULL::text, '$_', \$\$SELECT current_setting('dbpool.traceparent', true) IS NULL\$\$)}, 'f')
  foreach ('old', 'p');
is(seen('old'), $trace[9], 'one that knows it is');

# this server has one that does
create_pool($local, 'home', $local, max_size => 1);
is($control->value(q{SELECT dbpool_value(NULL::text, 'home', $$SELECT current_setting('dbpool.traceparent')$$)}), $trace[9], 'as this one is');
is( $control->value(q{SELECT dbpool_value(NULL::text, 'home', $$SELECT dbpool_value(NULL::text, 'p', 'SELECT trace()')$$)}),
	$trace[9], 'and calls that are made there belong to it');

# no PostgreSQL, or one that forbids
$remote->safe_psql('postgres', q{CREATE ROLE poor LOGIN; GRANT ALL ON t TO poor;
	REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC});
my $n = 0;
foreach my $kind ('SELECT dbpool_exec(%s, $$INSERT INTO t VALUES (1)$$)', 'SELECT dbpool_exec(%s, $$INSERT INTO t VALUES (1); SELECT 1$$)',
	'SELECT dbpool_bulk_insert(%s, $$t$$, $$SELECT 1$$, $${a}$$)')
{
	$n++;
	$control->value(sprintf(q{SELECT dbpool_create_pool('poor%d', 'host=%s port=%s dbname=postgres user=poor')}, $n, $remote->host, $remote->port));
	is($control->query(sprintf($kind, "'poor$n'"))->{err}, '', 'a remote that cannot be told is given the statement without');
	is(written(), '', 'which has run once');
	is($control->query(sprintf($kind, "'poor$n'"))->{err}, '', 'and is not told again');
	is($control->value("SELECT repeats FROM dbpool_stat_pools WHERE pool = 'poor$n'"), 1, 'it has taken one try');
	is($control->query("SELECT * FROM dbpool_batch('poor$n', ARRAY['INSERT INTO t VALUES (1)', 'SELECT 2'])")->{err}, '', 'nor of batches');
	written();
}
$control->value(sprintf(q{SELECT dbpool_create_pool('poor', 'host=%s port=%s dbname=postgres user=poor')}, $remote->host, $remote->port));
is($control->query(q{SELECT * FROM dbpool_batch('poor', ARRAY['INSERT INTO t VALUES (1)', 'SELECT 2'])})->{state}, '42501', 'a batch fails');
is(written(), '', 'as a whole');
is($control->query(q{SELECT * FROM dbpool_batch('poor', ARRAY['INSERT INTO t VALUES (1)', 'SELECT 2'])})->{err}, '', 'the first time');

done_testing();
