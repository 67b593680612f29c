
# Many migrations and large ones: the cost grows with their number and their size,
# not faster, and memory does not grow with what the remote says.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# "At once", in seconds, on a machine that has other things to do.
my $at_once = 3;

my $mb = 1024 * 1024;
my $remote = make_remote();
my $local = make_local();
my $control = session($local);
my $there = session($remote);

# A database of the remote, and a pool for it.
sub make_target
{
	my ($name) = @_;

	$there->value("CREATE DATABASE $name TEMPLATE template0");
	create_pool($local, $name, $remote, dbname => $name);
	return;
}

# Run a statement; returns its answer, and how much larger the session's memory
# was at the most, in MB.
sub query_watched
{
	my ($session, $sql) = @_;
	my $before = rss_kb($session->pid);
	my $most = $before;

	$session->send($sql);
	until ($session->is_done)
	{
		$most = max($most, rss_kb($session->pid));
		sleep 0.005;
	}
	return ($session->wait, ($most - $before) / 1024);
}

# --- many -----------------------------------------------------------------------

subtest 'many' => sub {
	my %per;

	foreach my $n (10, 100, 1000)
	{
		my $pool = "many_$n";

		make_target($pool);
		$control->value(
			qq{SELECT count(*) FROM generate_series(1, $n) i, LATERAL
			   dbpool_add_migration('$pool', i, 'step_' || i,
			     format('CREATE TABLE t_%s (i int PRIMARY KEY); INSERT INTO t_%s VALUES (%s);', i, i, i)) f}
		);

		# the best of what the machine had time for
		my @times;
		my $session = session($local, options => '-c client_min_messages=warning');
		foreach my $round (1 .. ($n < 1000 ? 3 : 1))
		{
			$there->value("DROP DATABASE $pool");
			$there->value("CREATE DATABASE $pool TEMPLATE template0");
			$session->value("SELECT dbpool_migration_baseline('$pool', 0)");
			my $answer = $session->query(
				"SELECT count(*) FROM dbpool_migrate('$pool')");
			is($answer->{out}, $n, "$n migrations") or diag($answer->{err});
			push @times, $answer->{seconds};
		}
		my $again = $session->query(
			"SELECT count(*) FROM dbpool_migrate('$pool')");
		is($again->{out}, '0', 'again: nothing to do');
		my $status = $session->query(
			qq{SELECT count(*), count(*) FILTER (WHERE status = 'applied') FROM dbpool_migration_status('$pool') WHERE version > 0}
		);
		is($status->{out}, "$n|$n", 'all are applied');
		$per{$n} = min(@times) / $n;
		note(
			sprintf
			  '%d migrations: %.3f s, %.2f ms each; nothing to do: %.3f s; status: %.3f s',
			$n, min(@times), $per{$n} * 1000,
			$again->{seconds}, $status->{seconds});
		$session->quit;
	}
	cmp_ok($per{1000}, '<', $per{100} * 4,
		'one of a thousand costs about as much as one of a hundred');
	is( $remote->safe_psql(
			'many_1000',
			q{SELECT count(*) FROM dbpool_migration_history h JOIN pg_class c ON c.relname = 't_' || h.version}
		),
		'1000',
		'all are there');
};

# --- large ----------------------------------------------------------------------

# Register a migration by an expression that gives its text.
sub add
{
	my ($pool, $version, $name, $expression) = @_;

	$control->value(
		"SELECT dbpool_add_migration('$pool', $version, '$name', $expression)");
	return;
}

make_target('large');
my $large = session($remote, dbname => 'large');
my $wide = "repeat('x', 900)";

subtest 'fifty megabytes of statements' => sub {
	add('large', 1, 'statements',
		qq{'CREATE TABLE wide (i int, x text);' || (SELECT string_agg(format(E'\\nINSERT INTO wide VALUES (%s, %L);', i, $wide), '')
		   FROM generate_series(1, 57000) i)});
	cmp_ok(
		$control->value(
			q{SELECT length(up_sql) FROM dbpool_migrations WHERE pool = 'large'}
		),
		'>=',
		50 * $mb,
		'it is that long');
	my $session = session($local);
	my ($answer, $grown) =
	  query_watched($session, q{SELECT * FROM dbpool_migrate('large')});
	like($answer->{out}, qr/^1\|statements\|up\|applied\|/, 'it runs')
	  or diag($answer->{err});
	is( $large->value('SELECT count(*), sum(i), sum(length(x)) FROM wide'),
		'57000|1624528500|51300000',
		'all of it');
	note(sprintf 'many statements: %.1f s, %.0f MB', $answer->{seconds},
		$grown);
	cmp_ok($grown, '<', 250, 'it takes memory for some copies of the text');
	cmp_ok(rss_kb($session->pid) / 1024, '<', 100, 'and gives it back');
	my ($again, $more) =
	  query_watched($session, q{SELECT * FROM dbpool_migrate('large')});
	is($again->{state}, '', 'nothing to do');
	note(sprintf 'nothing to do: %.1f s, %.0f MB', $again->{seconds}, $more);
	$session->quit;
};

subtest 'one statement of fifty megabytes' => sub {
	add('large', 2, 'statement',
		q{format('INSERT INTO wide VALUES (0, %L)', repeat('y', 50 * 1024 * 1024))}
	);
	my $session = session($local);
	my ($answer, $grown) =
	  query_watched($session, q{SELECT * FROM dbpool_migrate('large')});
	like($answer->{out}, qr/^2\|statement\|up\|applied\|/, 'it runs')
	  or diag($answer->{err});
	is( $large->value('SELECT length(x) FROM wide WHERE i = 0'),
		50 * $mb, 'all of it');
	note(sprintf 'one statement: %.1f s, %.0f MB', $answer->{seconds},
		$grown);
	cmp_ok($grown, '<', 500, 'it takes memory for some copies of the texts');
	$session->quit;
};

subtest 'an error at the end of fifty megabytes' => sub {
	my $lines = 57000;

	add('large', 3, 'mistake',
		qq{(SELECT string_agg(format(E'INSERT INTO wide VALUES (%s, %L);\\n', -i, $wide), '')
		   FROM generate_series(1, $lines) i) || E'\\n  SELECT 1 FROM nowhere;'});
	my $answer = $control->query(q{SELECT * FROM dbpool_migrate('large')});
	my $line = $lines + 2;

	is($answer->{state}, '42P01', 'it fails');
	like(
		$answer->{err},
		qr/migration 3 "mistake", statement ${\($lines + 1)} at line $line, column 3/,
		'at the statement that is wrong');
	cmp_ok(length($answer->{err}), '<', 2000, 'in few words');
	is($large->value('SELECT count(*) FROM wide WHERE i < 0'),
		'0', 'nothing stays');
	add('large', 4, 'long_mistake',
		q{format('SELECT %L::int', repeat('z', 50 * 1024 * 1024))});
	is( $control->query(
			q{SELECT dbpool_drop_migration('large', 3)})->{state},
		'', 'the wrong one is taken away');
	$answer = $control->query(q{SELECT * FROM dbpool_migrate('large')});
	is($answer->{state}, '22P02', 'one statement that is wrong as a whole');
	like(
		$answer->{err},
		qr/migration 4 "long_mistake", statement 1 at line 1, column 1/,
		'is named');
	is( $control->value(
			q{SELECT status FROM dbpool_migration_history ORDER BY id DESC LIMIT 1}
		),
		'failed',
		'and is in the local history');
	is( $control->query(
			q{SELECT dbpool_drop_migration('large', 4)})->{state},
		'', 'is taken away as well');
	is( $control->value(
			q{SELECT count(*) FROM dbpool_migration_status('large')}),
		'2',
		'it goes on');
};

subtest 'cancelled in the middle' => sub {
	add('large', 5, 'again',
		qq{(SELECT string_agg(format(E'INSERT INTO wide VALUES (%s, %L);\\n', -i, $wide), '')
		   FROM generate_series(1, 57000) i)});
	my $session = session($local);

	foreach my $done (0, 5000, 20000)
	{
		$session->send(q{SELECT * FROM dbpool_migrate('large')});
		$control->poll(
			"SELECT coalesce(max(statements_done), 0) >= $done AND count(*) = 1 FROM dbpool_progress_migrate WHERE phase = 'migrating'"
		);
		my $started = time;
		$control->value('SELECT pg_cancel_backend(' . $session->pid . ')');
		my $answer = $session->wait;
		is($answer->{state}, '57014', 'it is cancelled');
		cmp_ok(time - $started, '<', $at_once, 'at once');
		note(sprintf 'after %d statements: %.3f s',
			$done, time - $started);
		ok( $there->poll(
				q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbpool migration'},
				'0'),
			'no session is left on the remote');
		is($large->value('SELECT count(*) FROM wide WHERE i < 0'),
			'0', 'nothing stays');

		# interrupted: so early that the attempt had no row yet
		like(
			$control->value(
				q{SELECT status FROM dbpool_migration_history ORDER BY id DESC LIMIT 1}
			),
			$done ? qr/^failed$/ : qr/^(?:failed|interrupted)$/,
			'but the local history has it');
	}
	is($session->value(q{SELECT count(*) FROM dbpool_migrate('large')}),
		'1', 'once more, and it is done');
	$session->quit;
};

# --- what the remote says ---------------------------------------------------------

subtest 'rows and notices' => sub {
	my $session =
	  session($local, options => '-c client_min_messages=warning');

	make_target('said');
	add('said', 1, 'begin', q{'SELECT 1'});
	$session->value(q{SELECT count(*) FROM dbpool_migrate('said')});
	my %texts = (
		rows =>
		  q{'SELECT i, repeat(''x'', 100) FROM generate_series(1, 2000000) i'},
		notices =>
		  q{'DO $x$ BEGIN FOR i IN 1..200000 LOOP RAISE NOTICE ''notice %'', i; END LOOP; END $x$'},
		results => q{repeat('SELECT 1;', 100000)});
	my $version = 1;
	foreach my $what (sort keys %texts)
	{
		add('said', ++$version, $what, $texts{$what});
		my ($answer, $grown) = query_watched($session,
			q{SELECT count(*) FROM dbpool_migrate('said')});
		is($answer->{out}, '1', "many $what") or diag($answer->{err});
		cmp_ok($grown, '<', 30, 'take no memory');
		note(sprintf '%s: %.1f s, %.0f MB', $what, $answer->{seconds},
			$grown);
	}
	$session->quit;
};

$_->quit foreach ($control, $there, $large);
done_testing();
