
# slow_query_threshold: which calls have a line in the server's log, what stands there, whose
# parts add up, what must not stand there, and how many lines there can be.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(workers => 2, conf => "dbpool.split_threshold = 0\n");
my $control = session($local);
my $from;

# Lines about slow statements since the mark, each with its details.
sub mark { $from = -s $local->logfile; return; }

sub lines
{
	my $log = slurp_file($local->logfile, $from);

	my @found = $log =~ /^(.*LOG:  (?:00000: )?dbpool: slow statement.*\n(?:.*(?:DETAIL|HINT|CONTEXT|STATEMENT):  .*\n(?:\t.*\n)*)*)/mg;
	return @found;
}

my $parts = qr/queue ([\d.]+), worker ([\d.]+), wire ([\d.]+), remote ([\d.]+), decode ([\d.]+)/;

create_pool($local, 'off', $remote, max_size => 1);
create_pool($local, 'p', $remote, max_size => 1, slow_query_threshold => '300ms');
$control->value("SELECT dbpool_ping('off'), dbpool_ping('p')");

# --- which calls ----------------------------------------------------------------------------

mark();
$control->value(q{SELECT dbpool_exec('off', 'SELECT pg_sleep(0.4)')});
$control->value(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.1)')});
is(scalar(lines()), 0, 'nothing is logged of a pool that has no threshold, or below it');

$control->value(q{SET application_name = 'slow "app"'});
mark();
$control->value(q{SELECT count(*) FROM dbpool_query('p', 'SELECT pg_sleep(0.4), ''secret1'' FROM generate_series(1, 1)') AS t(a text, b text)});
my @lines = lines();
is(scalar(@lines), 1, 'a call that takes longer has a line');
my ($host, $port, $pid) = ($remote->host, $remote->port, $control->pid);
like($lines[0], qr/\[$pid\].* LOG:  dbpool: slow statement on pool "p" at \Q$host\E:$port: 4\d\d\.\d{3} ms \($parts\), 1 rows, process $pid, role "\w+", application "slow "app"": SELECT pg_sleep\(\?\), \? FROM generate_series\(\?, \?\)$/m,
	'which says where, how long, how many rows, who and what');
unlike($lines[0], qr/secret1|CONTEXT|STATEMENT|DETAIL/, 'without what stands in it');
{
	my ($total) = $lines[0] =~ / ([\d.]+) ms \(/;
	my @p = $lines[0] =~ $parts;
	my $sum = 0;

	$sum += $_ foreach @p;
	cmp_ok(abs($sum - $total), '<', 0.01, "the parts are the whole: $sum of $total");
	cmp_ok($p[3], '>', 390, 'which the remote took');
}

# what takes long here
mark();
$control->value(q{CREATE FUNCTION slowly(text) RETURNS boolean LANGUAGE sql AS $$ SELECT pg_sleep(0.4) IS NOT NULL $$;
	CREATE DOMAIN slow AS text CHECK (slowly(VALUE))});
$control->value(q{SELECT * FROM dbpool_query('p', 'SELECT 1') AS t(a slow)});
like((lines())[0], qr/remote [\d]\.\d{3}, decode 4\d\d\.\d{3}\), 1 rows/, 'what a session takes to make values counts');

# what waits
{
	my $holder = session($local);

	mark();
	$holder->send(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.6) AS a')});
	$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'p'}, '1');
	$control->value(q{SELECT dbpool_exec('p', 'SELECT 2 AS b')});
	$holder->wait;
	@lines = lines();
	is(scalar(@lines), 2, 'one that waits for a connection counts');
	my ($waited) = grep { /AS b$/m } @lines;
	like($waited, qr/ at \S+: [3-6]\d\d\.\d{3} ms \(queue [3-6]\d\d\./, 'it has waited in the queue');

	# and in vain
	create_pool($local, 'short', $remote, max_size => 1, acquire_timeout => '1500ms', slow_query_threshold => '300ms');
	$control->value(q{SELECT dbpool_ping('short')});
	$holder->send(query_sleeps('short', 600));
	$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'short'}, '1');
	mark();
	is($control->query(q{SELECT dbpool_exec('short', 'SELECT ''secret2''')})->{state}, '53300', 'it may do so in vain');
	like((lines())[0], qr/on pool "short": 1[5-9]\d\d\.\d{3} ms \(queue 1[5-9].*, 0 rows, failed, process.*: SELECT \?$/m,
		'that has a line as well, and no host');

	# given up
	$control->value('SET statement_timeout = 400');
	mark();
	is($control->query(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(600), ''secret3''')})->{state}, '57014', 'a call is given up');
	like((lines())[0], qr/on pool "p": [34]\d\d\.\d{3} ms, given up while it ran, process $pid, application.*: SELECT pg_sleep\(\?\), \?$/m,
		'that is in the log, too');
	unlike((lines())[0], qr/secret3|STATEMENT|CONTEXT/, 'without what stands in it');
	$control->value('RESET statement_timeout');
	mark();
	$control->value('SELECT pg_cancel_backend(' . $holder->pid . ')');
	is($holder->wait->{state}, '57014', 'so is one that is cancelled');
	is(scalar(lines()), 1, 'in one line');
}

# an error of the remote
mark();
is($control->query(q{SELECT dbpool_exec('p', 'SELECT 1/(random() * 0)::int FROM pg_sleep(0.4)')})->{state}, '22012', 'one may fail');
like((lines())[0], qr/ at .*remote 4.*0 rows, failed, process/, 'after so long');

# bulk inserts and batches have no split
$remote->safe_psql('postgres', 'CREATE TABLE t (a int)');
mark();
$control->value(q{SELECT dbpool_bulk_insert('p', 't', 'SELECT 1 FROM pg_sleep(0.4)')});
$control->value(q{SELECT * FROM dbpool_batch('p', ARRAY['SELECT pg_sleep(0.2), ''secret4''', 'SELECT pg_sleep(0.2) AS other'])});
$control->value(q{SELECT dbpool_exec_batch('p', 'INSERT INTO t SELECT $1 FROM pg_sleep(0.1)', ARRAY[5550001, 5550002, 5550003, 5550004])});
@lines = lines();
is(scalar(@lines), 3, 'bulk inserts and batches have lines');
like($lines[0], qr/: \d+\.\d{3} ms, 1 rows, .*: COPY "t" FROM STDIN$/m, 'a bulk insert');
like($lines[1], qr/: \d+\.\d{3} ms, 2 rows, .*: a batch of 2 statements$/m, 'a batch');
like($lines[2], qr/: \d+\.\d{3} ms, 4 rows, .*: INSERT INTO t SELECT \$1 FROM pg_sleep\(\?\)$/m, 'one of one text');
unlike(join('', @lines), qr/secret4|555000/, 'without what stands in them');

# a COMMIT
$remote->safe_psql('postgres', q{CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()});
mark();
$control->value(q{BEGIN; SET LOCAL dbpool.transaction = bound; SELECT dbpool_exec('p', 'INSERT INTO t VALUES (1)'); COMMIT});
@lines = lines();
is(scalar(@lines), 1, 'a transaction that is slow to commit');
like($lines[0], qr/remote 4.*: COMMIT/, 'has a line about that');

# over a change of the threshold
$control->value(q{ALTER SERVER p OPTIONS (SET slow_query_threshold '1h')});
mark();
$control->value(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.4)')});
is(scalar(lines()), 0, 'another threshold holds at once');
$control->value(q{ALTER SERVER p OPTIONS (SET slow_query_threshold '300')});
$control->value(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.4)')});
is(scalar(lines()), 1, 'and the first one again');

# --- parameters ------------------------------------------------------------------------------

my $with = q{SELECT dbpool_exec('p', 'SELECT pg_sleep($1::float), $2::text, $3::text', 0.4, 'it''s' || repeat('ä', 20), NULL::text)};
mark();
$control->value($with);
unlike((lines())[0], qr/DETAIL|it's/, 'no parameter is shown by default');
$control->value('SET dbpool.log_parameter_max_length = 5');
mark();
$control->value($with);
like((lines())[0], qr/DETAIL:  Parameters: \$1 = '0\.4', \$2 = 'it''s\.\.\.', \$3 = NULL$/m, 'or the beginning of each, in whole characters');
$control->value('SET dbpool.log_parameter_max_length = -1');
mark();
$control->value($with);
like((lines())[0], qr/\$2 = 'it''s(?:ä|\xc3\xa4){20}', \$3 = NULL$/m, 'or all of it');
mark();
$control->value(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.4), $1::text, $2::text, $3::text', repeat('x', 3000000), 'more', 'of them')});
my ($shown) = lines();
cmp_ok(length($shown), '<', 1024 * 1024 + 2000, 'up to a bound');
like($shown, qr/xxx\.\.\.', \.\.\.$/m, 'it is to be seen that it goes on');
$control->value('RESET dbpool.log_parameter_max_length');

$control->value(q{CREATE ROLE other LOGIN; GRANT USAGE ON FOREIGN SERVER p TO other});
is(session($local, user => 'other')->query('SET dbpool.log_parameter_max_length = -1')->{state}, '42501', 'that is for superusers');

# --- what must not be there --------------------------------------------------------------------

mark();
$control->value(q{SET client_min_messages = log; SET log_error_verbosity = verbose});
my $answer = $control->query(q{DO $$ BEGIN PERFORM dbpool_exec('p', 'SELECT pg_sleep(0.4); CREATE ROLE carl PASSWORD ''secret5''; DROP ROLE carl'); END $$});
$control->value(q{RESET client_min_messages; RESET log_error_verbosity});
unlike($answer->{err}, qr/slow statement/, 'the client is not told');
like((lines())[0], qr/: SELECT pg_sleep\(\?\); CREATE ROLE carl PASSWORD \?; DROP ROLE carl$/m, 'the log is, of all statements');
unlike(slurp_file($local->logfile, $from), qr/secret5/, 'but of no password, in whatever called');

# without statistics of statements
$local->append_conf('postgresql.conf', "dbpool.max_statements = 0\n");
$control->quit;
$local->restart;
$control = session($local);
mark();
$control->value(q{SELECT dbpool_exec('p', 'SELECT pg_sleep(0.4), ''secret6'' AS ' || repeat('x', 60) || repeat(', 1', 1600))});
like((lines())[0], qr/: SELECT pg_sleep\(\?\), \? AS x+(?:, \?)+/, 'without statistics of statements the text is the same');
cmp_ok(length((lines())[0]), '<', 1600, 'and has a bound');

# --- how many lines ------------------------------------------------------------------------------

# too small to be split, as each worker's part has lines of its own
create_pool($local, 'flood', $remote, max_size => 3, slow_query_threshold => '1ms');
mark();
my $started = Time::HiRes::time();
my ($pgbench) = start_pgbench($local, "SELECT dbpool_exec('flood', 'SELECT pg_sleep(0.0012)');\n", '-c', 8, '-t', 400);
$pgbench->finish;
my $seconds = Time::HiRes::time() - $started;
is($pgbench->result(0), 0, 'many slow statements run');
@lines = lines();
cmp_ok(scalar(@lines), '<=', 100 * (int($seconds) + 2), 'a second has a hundred lines at most');
cmp_ok(scalar(@lines), '>=', 100, 'it has them');
$control->poll(q{SELECT extract(second FROM clock_timestamp())::int % 2 = 0});
$control->poll(q{SELECT extract(second FROM clock_timestamp())::int % 2 = 1});
$control->value(q{SELECT dbpool_exec('flood', 'SELECT pg_sleep(0.01)')});
my $left_out = 0;
$left_out += $_ foreach join('', lines()) =~ /HINT:  Others of the pool .* at most: (\d+)\./g;
is($left_out + scalar(lines()), 3201, 'the others were counted, and the next line tells of them');

done_testing();
