
# A cancel hits the statement that it is for, and never the next one on that
# connection: many sessions time out about when their statements end anyway,
# while others run short statements over the same connections.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local();

create_pool($local, 'p', $remote, max_size => 4);

my $control = session($local);

# The innocent: pgbench stops at the first error. It counts on the remote how
# many of its statements ran.
$remote->safe_psql('postgres',
	'CREATE TABLE ran (n int); CREATE TABLE doomed (n int)');
my $innocent =
  "SELECT dbpool_exec('p', 'INSERT INTO ran SELECT 1 FROM pg_sleep(0.001)');\n";

# The doomed: statements of 4 ms with a time limit of about as much, and some with more,
# that end in time on a slow machine as well.
my $doomed = "$PostgreSQL::Test::Utils::tmp_check/doomed.sql";
foreach my $i (1 .. 300)
{
	my $limit = 4 + $i % 8 + ($i % 4 ? 0 : $i);
	append_to_file($doomed,
			"SET statement_timeout = $limit;\n"
		  . "SELECT dbpool_exec('p', 'INSERT INTO doomed SELECT 1 FROM pg_sleep(0.004)');\n"
	);
}

my @sessions;
foreach my $i (1 .. 3)
{
	my %run = (out => '', err => '');

	$run{handle} = IPC::Run::start(
		[   'psql', '-XAtq',
			'-v', 'VERBOSITY=sqlstate',
			'-d', $local->connstr('postgres'),
			'-f', $doomed ],
		'>',
		\$run{out},
		'2>',
		\$run{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	push @sessions, \%run;
}
my ($bench, $out) = start_pgbench($local, $innocent, '-c', 3, '-t', 1000);
ok($bench->finish, 'no innocent statement was cancelled') or diag($$out);
like($$out, qr{processed: 3000/3000}, 'all of them have run');

my ($cancelled, $ended, $other) = (0, 0, '');
foreach my $run (@sessions)
{
	$run->{handle}->finish;
	$cancelled += () = $run->{err} =~ /ERROR:  57014$/gm;
	$ended += () = $run->{out} =~ /^1$/gm;
	$other .= $1 while $run->{err} =~ /^(?!.*ERROR:  57014$)(.*\n)/gm;
}
note("$cancelled cancelled, $ended ended in time");
is($other, '', 'the others got no error but that of their time limit');
# a limit that strikes after a row was printed makes one count twice
cmp_ok($cancelled + $ended, '>=', 900, 'every one of them got an answer');
cmp_ok($cancelled, '>', 50, 'many were cancelled');
cmp_ok($ended, '>', 50, 'and many were not');

ok($control->poll('SELECT count(*) FROM dbpool_requests', '0'),
	'no request is left');
ok( $control->poll(
		'SELECT idle > 0, busy, cancelling, resetting FROM dbpool_pools',
		't|0|0|0'),
	'all connections are idle');
is($remote->safe_psql('postgres', 'SELECT count(*) FROM ran'),
	'3000', 'each innocent statement has run once');
cmp_ok($remote->safe_psql('postgres', 'SELECT count(*) FROM doomed'),
	'>=', $ended, 'and of the others those that ended well');
is( $control->value(
		"SELECT connects <= 4, cancels > 0 FROM dbpool_stat_pools WHERE pool = 'p'"
	),
	't|t',
	'no connection was given up');

$control->quit;
done_testing();
