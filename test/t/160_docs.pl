# All SQL of README.md and of docs/, as somebody would run it who has followed README
# and then reads one document from its beginning to its end; and the examples that
# are there to be copied.
#
# A block of SQL runs in the database "app" of the local server. What follows "sql" on
# the line that begins it says otherwise:
#
#   remote          in the remote database, as the role app
#   alone           in another database, which has nothing so far
#   meanwhile       in a session beside the following blocks, which run when the
#                   statement does; the next heading ends it
#   not run: WHY    not here; it is counted as skipped, with the reason
#
# A plain block right behind is what psql shows, line by line. It has to be found in
# what was shown, but for times of the present, process and transaction numbers and
# the width of columns; after "text numbers vary" for all numbers. Errors are right
# only where the document has them.
#
# Each document finds the databases as README has left them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";

# --- the servers that the documents speak of ------------------------------------------

# db2.example.com and db3.example.com, a standby of it.
my %address = (db2 => '127.0.0.1', db3 => '127.0.0.2');
my $db2 = PostgreSQL::Test::Cluster->new('db2');
$db2->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
$db2->append_conf('postgresql.conf', "listen_addresses = '$address{db2}'\nmax_prepared_transactions = 10\n");
unlink $db2->data_dir . '/pg_hba.conf';
$db2->append_conf('pg_hba.conf', "local all all trust\nlocal replication all trust\nhost all all 127.0.0.0/8 scram-sha-256\n");
$db2->start;
$db2->safe_psql(
	'postgres', q{
	CREATE ROLE app LOGIN PASSWORD 'secret';
	CREATE DATABASE app OWNER app;});
$db2->backup('base');
my $db3 = PostgreSQL::Test::Cluster->new('db3');
$db3->init_from_backup($db2, 'base', has_streaming => 1);
$db3->append_conf('postgresql.conf', "listen_addresses = '$address{db3}'\n");
$db3->start;
my %port = (db2 => $db2->port, db3 => $db3->port);

my $local = make_local(no_start => 1, conf => "max_connections = 100\n");
$local->start;
$local->safe_psql(
	'postgres', q{
	CREATE DATABASE app;
	CREATE DATABASE alone;
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE ROLE web LOGIN;});
my $me = $local->safe_psql('app', 'SELECT current_user');
my $migrations = PostgreSQL::Test::Utils::tempdir;
append_to_file("$migrations/V5__add_notes.sql", "CREATE TABLE notes (note text);\n");

# --- blocks ---------------------------------------------------------------------------

# The blocks of SQL of a file: where, how, text, and what the file says of the result.
sub read_blocks
{
	my ($file) = @_;
	my (@blocks, $kind, @lines);
	my $number = 0;
	my $behind = 0;
	my $section = '';

	foreach my $line (split /\n/, slurp_file($file))
	{
		$number++;
		if (!defined $kind)
		{
			die "$file: line $number: an indented block would not be run" if $line =~ /^\s+```/;
			($kind, @lines) = ($1) if $line =~ /^```(.*)/;
			$section = $line if $line =~ /^#/;
			$behind = 0 if !defined $kind;
			push @blocks, { line => $number, how => $1, section => $section } if $line =~ /^```sql *(.*)/;
		}
		elsif ($line eq '```')
		{
			if ($kind =~ /^sql/)
			{
				$blocks[-1]{sql} = join "\n", @lines, '';
				$behind = 1;
			}
			elsif ($behind && $kind =~ /^(?:text (.*))?$/)
			{
				$blocks[-1]{loosely} = defined $1 && $1 eq 'numbers vary';
				$blocks[-1]{shown} = join "\n", @lines, '';
				$blocks[-1]{fails} = grep { /^ERROR/ } @lines;
				$behind = 0;
			}
			undef $kind;
		}
		else
		{
			push @lines, $line;
		}
	}
	return @blocks;
}

# The documents' names of hosts and folders become those of here.
sub localized
{
	my ($sql) = @_;
	my ($host, $port) = ($local->host, $local->port);

	$sql =~ s{host 'db([23])\.example\.com'(?:, port '5432')?}{host '$address{"db$1"}', port '$port{"db$1"}'}g;
	$sql =~ s{host=db([23])\.example\.com}{host=$address{"db$1"} port=$port{"db$1"}}g;
	$sql =~ s{db([23])\.example\.com(?::5432)?}{$address{"db$1"}:$port{"db$1"}}g;
	$sql =~ s{host=/var/run/postgresql}{host=$host port=$port}g;
	$sql =~ s{/srv/app/migrations}{$migrations}g;
	return $sql;
}

# A result without what differs from run to run.
sub normalized
{
	my ($text, $loosely) = @_;

	$text =~ s/^psql:\S+ //mg;
	$text =~ s/\Q$address{$_}\E/$_.example.com/g foreach 'db2', 'db3';
	$text =~ s/\b$port{$_}\b/5432/g foreach 'db2', 'db3';
	$text =~ s/\b\Q$me\E\b/postgres/g;
	$text =~ s/20(?!24)\d\d-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d)?/NOW/g;
	$text =~ s/\d\d:\d\d:\d\d\.\d+/TIME/g;
	$text =~ s/\d+\.\d+ ms\b/TIME/g;
	$text =~ s/\b([Pp]rocess|transaction) \d+/$1 N/g;
	if ($loosely)
	{
		$text =~ s/TIME|[0-9]+(?:[.:][0-9]+)*/N/g;
		$text =~ s/N (?:bytes|[kMG]B)/N bytes/g;
	}
	$text =~ s/-{2,}/-/g;
	$text =~ s/[ \t]+/ /g;
	$text =~ s/^ | $//mg;
	$text =~ s/\n{2,}/\n/g;
	return $text;
}

sub psql_command
{
	my ($node, $database, @more) = @_;

	return [
		'psql', '-X', '-q', '-P', 'pager=off', '-h', $node->host, '-p', $node->port,
		'-d', $database, @more ];
}

sub run_block
{
	my ($block) = @_;
	my @where =
	    $block->{how} eq 'remote' ? ($db2, 'app', '-U', 'app')
	  : $block->{how} eq 'alone' ? ($local, 'alone')
	  :                            ($local, 'app');
	my $out = '';

	IPC::Run::run(
		psql_command(@where, '-f', '-'), '<', \localized($block->{sql}), '>&', \$out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $out;
}

# A session beside others, which runs that block until it is ended.
my $meanwhile;

sub begin_meanwhile
{
	my ($block) = @_;
	local $ENV{PGAPPNAME} = 'psql';
	my $s = session($local, dbname => 'app');

	$meanwhile = {
		section => $block->{section},
		run => IPC::Run::start(
			psql_command($local, 'app', '-c', localized($block->{sql})), '<', '/dev/null', '>&', '/dev/null') };
	wait_until(
		'the statement beside runs',
		sub {
			$s->value(
				q{SELECT count(*) FROM dbpool_requests r LEFT JOIN dbpool_progress_bulk_insert b USING (pid)
				WHERE r.state = 'running' AND (b.pid IS NULL OR b.phase = 'copying' AND b.tuples_processed > 1000)}
			) eq '1';
		});
	$s->quit;
	return;
}

sub end_meanwhile
{
	return if !$meanwhile;
	my $s = session($local, dbname => 'app');
	$s->value('SELECT pg_terminate_backend(pid, 180000) FROM dbpool_requests');
	$meanwhile->{run}->finish;
	undef $meanwhile;
	$s->quit;
	return;
}

sub try_block
{
	my ($name, $block) = @_;

	end_meanwhile() if $meanwhile && $meanwhile->{section} ne $block->{section};
  SKIP:
	{
		skip "$name: $1", 1 if $block->{how} =~ /^not run: (.*)/;
		if ($block->{how} eq 'meanwhile')
		{
			begin_meanwhile($block);
			return;
		}
		if ($block->{how} !~ /^(?:remote|alone)?$/)
		{
			fail("$name: what is \"$block->{how}\"?");
			return;
		}
		my $out = run_block($block);

		unlike($out, qr/^(?:psql:\S+ )?(?:ERROR|FATAL):/m, "$name: no error") if !$block->{fails};
		return if !defined $block->{shown};
		my ($shown, $expected) = map { normalized($_, $block->{loosely}) } $out, $block->{shown};
		$shown =~ s/^NOTICE:.*\n(?:(?:DETAIL|HINT):.*\n)*//mg if $expected !~ /^NOTICE/m;
		ok(index("\n$shown", "\n$expected") >= 0, "$name: the result is as the document has it")
		  or diag("it has\n$expected\nand this is\n$shown\nor rather\n$out");
	}
	return;
}

sub try_document
{
	my ($file) = @_;
	my @blocks = read_blocks("$top/$file");

	$db2->wait_for_catchup($db3);
	try_block("$file, line $_->{line}", $_) foreach grep { $_->{how} ne 'alone' } @blocks;
	end_meanwhile();
	return scalar @blocks;
}

# Make a database anew as a copy of another one, whoever is connected to either.
sub copy_database
{
	my ($node, $from, $to, $owner) = @_;

	$node->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$from'");
	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $to WITH (FORCE)");
	$node->safe_psql('postgres', "CREATE DATABASE $to TEMPLATE $from OWNER $owner");
	return;
}

# --- README and the documents ---------------------------------------------------------

# What is not in one of these is not seen by anybody.
my $readme = slurp_file("$top/README.md");
my (@documents, %seen);
while ($readme =~ m{\]\((docs/[a-z-]+\.md)\)}g)
{
	push @documents, $1 if !$seen{$1}++;
}
is(join(' ', sort @documents), join(' ', sort map { s{^\Q$top/\E}{}r } glob "$top/docs/*.md"),
	'README leads to all documents');

cmp_ok(try_document('README.md'), '>', 4, 'README has examples');
try_block("README.md, line $_->{line}", $_) foreach grep { $_->{how} eq 'alone' } read_blocks("$top/README.md");
copy_database($local, 'app', 'followed', $me);
copy_database($db2, 'app', 'followed', 'app');

sub start_anew
{
	copy_database($local, 'followed', 'app', $me);
	copy_database($db2, 'followed', 'app', 'app');
	return;
}

my $examples = 0;
foreach my $document (@documents)
{
	start_anew();
	$examples += try_document($document);
}
cmp_ok($examples, '>', 50, 'the documents have examples');

# --- the memory that they say that dbpool takes -----------------------------------------

my $performance = slurp_file("$top/docs/performance.md");
my %taken = (
	requests => [100, 'requests'], connections => [256, 'connections'], pools => [128, 'pools'],
	statements => [1000, 'statements', '; and some.*'],
	samples => [128, 'pools', ', for samples'], statistics => [128, 'pools', ', for histograms'], endpoints => [128, 'pools', ', for endpoints.*']);
foreach my $what (sort keys %taken)
{
	my ($count, $setting, $purpose) = (@{ $taken{$what} }, '');
	my $size = $local->safe_psql('app', "SELECT size FROM pg_shmem_allocations WHERE name = 'dbpool $what'");
	my ($each) = $performance =~ /^ +dbpool\.max_$setting +× +(\d+) bytes$purpose$/m;
	my ($shown) = $performance =~ /^ dbpool $what +\| +(\d+) \|/m;

	cmp_ok($size - $each * $count, '>=', 0, "dbpool.max_$setting × $each bytes are taken for $what");
	cmp_ok($size - $each * $count, '<', 200, 'and next to no more');
	is($shown, $size, 'and so is what is shown of them');
}
{
	my ($each) = $performance =~ /max_pools +× +(\d+) bytes, for their histograms/;
	my ($shown) = $performance =~ /^ dbpool endpoint statistics +\| +(\d+) \|/m;

	is($each * 128, $shown, 'so many bytes are for histograms of endpoints');
	is($shown, $local->safe_psql('app', "SELECT size FROM pg_shmem_allocations WHERE name = 'dbpool endpoint statistics'"),
		'and so is what is shown of them');
}
{
	my ($each) = $performance =~ /max_requests\) × (\d+) bytes, for transactions/;

	is($each * (256 + 100), $local->safe_psql('app', "SELECT size FROM pg_shmem_allocations WHERE name = 'dbpool leases'"),
		'so many bytes are for transactions');
}

# --- examples to copy -------------------------------------------------------------------

# What a file of examples/ prints, without the lines that psql draws.
sub run_example
{
	my ($file, @more) = @_;
	my $out = '';

	start_anew();
	my $ok = IPC::Run::run(
		[ 'psql', '-X', '-q', '-A', '-t', '-h', $local->host, '-p', $local->port, '-d', 'app', @more,
			'-f', "$top/examples/$file" ],
		'<', \undef, '>&', \$out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	ok($ok, "examples/$file") or diag($out);
	$out =~ s/^psql:\S+ //mg;
	return $out;
}

my $s;
my $out = run_example('lookups.sql');
like($out, qr/^user 42\n41\|5\|49\.75\n42\|5\|49\.75\nt\n6\n\z/m, 'lookups find what there is');
$s = session($local, dbname => 'app');
$s->value('SET ROLE shop_web');
is($s->query(q{SELECT dbpool_query('remote', 'SELECT 1')})->{state}, '42501', 'the application may use nothing else');
$s->value('RESET ROLE');
$s->value(q{ALTER SERVER remote OPTIONS (SET port '1')});
is($s->value('SELECT shop.order_count(42) IS NULL'), 't', 'a remote that is gone is no error where one can do without');
is($s->query('SELECT shop.customer(42)')->{state}, '08001', 'and is one elsewhere');
$s->quit;

$out = run_example('bulk_load.sql');
like($out, qr/NOTICE:  sent 20000, of them new: 20000\n.*NOTICE:  sent 10000, of them new: 10000\n/s, 'a load goes in batches');
like($out, qr/NOTICE:  sent 1000, of them new: 0\n0\n50000\n\z/, 'and again what has arrived is not doubled');
$s = session($local, dbname => 'app');
$s->value(q{INSERT INTO readings (sensor, at, value) VALUES (1, now(), 1)});
$s->value(q{SELECT dbpool_exec('remote', 'ALTER TABLE sensor_readings RENAME TO away')});
is($s->query('CALL load_readings()')->{state}, '42P01', 'a load that fails half way');
is($s->value('SELECT count(*) FROM readings'), '1', 'loses nothing');
$s->value(q{SELECT dbpool_exec('remote', 'ALTER TABLE away RENAME TO sensor_readings')});
$s->query('CALL load_readings()');
is($s->value(q{SELECT dbpool_value(0, 'remote', 'SELECT count(*) FROM sensor_readings')}), '50001', 'and can be called again');
$s->quit;

$out = run_example('migrate.sql', '-v', "directory=$top/examples/migrations");
like($out, qr/^1\|create_products\|applied\n2\|add_stock\|applied\n3\|index_names\|applied\nR__product_functions\|product_functions\|applied\n\z/m,
	'a folder of migrations is applied');
$s = session($local, dbname => 'app');
is($s->value(q{SELECT dbpool_value(true, 'remote', 'SELECT in_stock(1)') IS NULL}), 't', 'and is there');
is($s->value(q{SELECT count(*) FROM dbpool_migration_rollback('remote', target => 0)}), '3', 'each has its way back');
is($s->value(q{SELECT count(*) FROM dbpool_migrate('remote')}), '3', 'and the way there again');
$s->quit;

$out = run_example('monitoring.sql');
like($out, qr/^One row for a monitoring system\n\d+\|256\|/m, 'monitoring queries run');
unlike($out, qr/ERROR/, 'without an error');

done_testing();
