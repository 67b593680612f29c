# All SQL of README.md, in its order, as somebody would run it who reads it from
# the beginning to the end.
#
# A block of SQL runs in the database "app" of the local server, with the
# extension's own roles and remotes below. What follows "sql" on the line that
# begins it says otherwise:
#
#   remote          in the remote database, as the role app
#   alone           in another database, which has nothing so far
#   not run: WHY    not here; it is counted as skipped, with the reason
#
# A plain block right behind is what psql shows. It has to be found in what was
# shown, but for numbers and the width of columns; one that begins with
# "text varies" may be anything. Errors are right only where README has them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# --- the servers that README speaks of ------------------------------------------------

# db2.example.com and db3.example.com, a standby of it.
my %address = (db2 => '127.0.0.1', db3 => '127.0.0.2');
my $db2 = PostgreSQL::Test::Cluster->new('db2');
$db2->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
$db2->append_conf('postgresql.conf', "listen_addresses = '$address{db2}'\n");
$db2->append_conf('pg_hba.conf', "host all all 127.0.0.0/8 scram-sha-256\n");
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
	CREATE ROLE alice LOGIN;});
my $migrations = PostgreSQL::Test::Utils::tempdir;
append_to_file("$migrations/V5__add_notes.sql", "CREATE TABLE notes (note text);\n");

# --- README ---------------------------------------------------------------------------

# The blocks of SQL: where, how, text, and what README says of the result.
sub read_blocks
{
	my (@blocks, $kind, @lines);
	my $number = 0;
	my $behind = 0;

	foreach my $line (split /\n/, slurp_file("$FindBin::RealBin/../../README.md"))
	{
		$number++;
		if (!defined $kind)
		{
			($kind, @lines) = ($1) if $line =~ /^```(.*)/;
			$behind = 0 if !defined $kind;
			push @blocks, { line => $number, how => $1 } if $line =~ /^```sql *(.*)/;
		}
		elsif ($line eq '```')
		{
			if ($kind =~ /^sql/)
			{
				$blocks[-1]{sql} = join "\n", @lines, '';
				$behind = 1;
			}
			elsif ($behind && $kind =~ /^(?:text .*)?$/)
			{
				$blocks[-1]{shown} = join "\n", @lines if $kind ne 'text varies';
				$blocks[-1]{fails} = $lines[0] =~ /^ERROR/;
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

# README's names of hosts become those of here.
sub localized
{
	my ($sql) = @_;

	$sql =~ s{host 'db([23])\.example\.com'(?:, port '5432')?}{host '$address{"db$1"}', port '$port{"db$1"}'}g;
	$sql =~ s{host=db([23])\.example\.com}{host=$address{"db$1"} port=$port{"db$1"}}g;
	$sql =~ s{db([23])\.example\.com(?::5432)?}{$address{"db$1"}:$port{"db$1"}}g;
	$sql =~ s{/srv/app/migrations}{$migrations}g;
	return $sql;
}

# A result without what differs from run to run.
sub normalized
{
	my ($text) = @_;

	$text =~ s/^psql:\S+ //mg;
	$text =~ s/\Q$address{db2}\E/db2.example.com/g;
	$text =~ s/\Q$address{db3}\E/db3.example.com/g;
	$text =~ s/[0-9]+(?:[.:][0-9]+)*/0/g;
	$text =~ s/-{2,}/-/g;
	$text =~ s/[ \t]+/ /g;
	$text =~ s/^ | $//mg;
	$text =~ s/\n{2,}/\n/g;
	return $text;
}

sub run_block
{
	my ($block) = @_;
	my @where =
	    $block->{how} eq 'remote' ? ($db2, 'app', [ '-U', 'app' ])
	  : $block->{how} eq 'alone' ? ($local, 'alone', [])
	  :                            ($local, 'app', []);
	my ($node, $database, $more) = @where;
	my $out = '';

	IPC::Run::run(
		[ 'psql', '-X', '-q', '-P', 'pager=off', '-h', $node->host, '-p', $node->port, '-d', $database, @$more, '-f', '-' ],
		'<', \localized($block->{sql}), '>&', \$out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $out;
}

my @blocks = read_blocks();
cmp_ok(scalar @blocks, '>', 40, 'README has examples');
foreach my $block ((grep { $_->{how} ne 'alone' } @blocks), (grep { $_->{how} eq 'alone' } @blocks))
{
	my $name = "README.md, line $block->{line}";

  SKIP:
	{
		skip "$name: $1", 1 if $block->{how} =~ /^not run: (.*)/;
		if ($block->{how} !~ /^(?:remote|alone)?$/)
		{
			fail("$name: what is \"$block->{how}\"?");
			next;
		}
		my $out = run_block($block);

		unlike($out, qr/^(?:psql:\S+ )?(?:ERROR|FATAL):/m, "$name: no error") if !$block->{fails};
		next if !defined $block->{shown};
		my ($shown, $expected) = map { normalized($_) } $out, $block->{shown};
		$shown =~ s/^NOTICE:.*\n(?:(?:DETAIL|HINT):.*\n)*//mg if $expected !~ /^NOTICE/m;
		ok(index($shown, $expected) >= 0, "$name: the result is as README has it")
		  or diag("README has\n$expected\nand this is\n$shown\nor rather\n$out");
	}
}

# --- the memory that README says that dbpool takes ------------------------------------

my $readme = slurp_file("$FindBin::RealBin/../../README.md");
my %count = (requests => 100, connections => 256, pools => 128);
foreach my $what (sort keys %count)
{
	my $size = $local->safe_psql('app', "SELECT size FROM pg_shmem_allocations WHERE name = 'dbpool $what'");
	my ($each) = $readme =~ /^ +dbpool\.max_$what +× +(\d+) bytes$/m;
	my ($shown) = $readme =~ /^ dbpool $what +\| +(\d+) \|/m;

	cmp_ok($size - $each * $count{$what}, '>=', 0, "dbpool.max_$what × $each bytes are taken");
	cmp_ok($size - $each * $count{$what}, '<', 200, 'and next to no more');
	is($shown, $size, 'and so is what README shows of them');
}

done_testing();
