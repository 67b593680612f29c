
# Many migrate at once, and others work meanwhile: each migration is run once,
# whoever waits for the lock is told of it, the pool goes on without an error or
# a stall, and of many remotes one that fails does not keep the others from it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# processes are killed here
announce(qr/terminated by signal 9/);

my $remote = make_remote();
my $local = make_local(conf => "restart_after_crash = on\n");
my $control = session($local);
my $there = session($remote);

# The remote shows what was run, and has a gate to hold it up at.
$there->value(
	q{CREATE TABLE ran (version int, at timestamptz DEFAULT clock_timestamp());
	  CREATE TABLE gate ();});

# Another database of the remote, and a pool for it.
sub make_target
{
	my ($name, @texts) = @_;
	my $version = 0;

	$there->value("CREATE DATABASE $name TEMPLATE template0");
	create_pool($local, $name, $remote, dbname => $name);
	add($name, $_) foreach @texts;
	return;
}

# Register one more migration of a pool.
my %last;

sub add
{
	my ($pool, $text) = @_;
	my $version = ++$last{$pool};

	$control->value(
		"SELECT dbpool_add_migration('$pool', $version, 'step_$version', \$sql\$$text\$sql\$)"
	);
	return $version;
}

# One that waits for as long as the gate is locked.
my $at_gate = 'SELECT count(*) FROM gate';

sub waits_at_gate
{
	my ($n) = @_;

	$there->poll(
		"SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted",
		$n);
	return;
}

create_pool($local, 'p', $remote, max_size => 4);

# --- fifty of them -------------------------------------------------------------------

subtest 'fifty migrate one remote' => sub {
	my $n = 12;
	my @sessions = map { session($local) } 1 .. 50;

	foreach my $version (1 .. $n)
	{
		add(    'p',
			$version % 4
			? "INSERT INTO ran VALUES ($version)"
			: "-- no-transaction\nINSERT INTO ran VALUES ($version);"
			  . "CREATE INDEX CONCURRENTLY ran_$version ON ran (version)");
	}
	$there->value('BEGIN; LOCK TABLE gate');
	$control->value(
		qq{SELECT dbpool_add_migration('p', 100, 'at_gate', '$at_gate')});
	$last{p} = 100;
	$_->send("SELECT count(*) FROM dbpool_migrate('p')") foreach @sessions;
	waits_at_gate(1);
	$control->poll(
		q{SELECT count(*) FROM dbpool_progress_migrate WHERE phase = 'waiting for lock'},
		'49');
	is( $control->value(
			q{SELECT phase, version, name, direction, statements_done, statements_total, migrations_done, migrations_total
			  FROM dbpool_progress_migrate WHERE phase <> 'waiting for lock'}
		),
		'migrating|100|at_gate|up|0|1|12|13',
		'one is at work, the others wait');
	$there->value('COMMIT');
	my @answers = map { $_->wait } @sessions;
	is((grep { $_->{state} ne '' } @answers), 0, 'no call fails')
	  or diag((grep { $_->{state} ne '' } @answers)[0]->{err});
	is_deeply([ sort { $a <=> $b } map { $_->{out} } @answers ],
		[ (0) x 49, 13 ], 'one had all to do');
	is( (   grep {
				$_->{err} =~ /NOTICE: .*pool "p" has nothing to migrate/
			} @answers),
		49,
		'the others are told that there is nothing');
	is( $there->value(
			'SELECT count(*), count(DISTINCT version) FROM ran'),
		"$n|$n",
		'each was run once');
	is( $there->value(
			q{SELECT count(*), count(DISTINCT version), bool_and(state = 'done') FROM dbpool_migration_history}
		),
		($n + 1) . '|' . ($n + 1) . '|t',
		'and is in the history once');
	is( $control->value(
			q{SELECT count(*), bool_and(status = 'done') FROM dbpool_migration_history WHERE pool = 'p'}
		),
		($n + 1) . '|t',
		'in the local one as well');
	note('the last had its turn after '
		  . (sort { $b <=> $a } map { $_->{seconds} } @answers)[0]
		  . ' s');
	is( $control->value('SELECT count(*) FROM dbpool_progress_migrate'),
		'0', 'nothing is shown any more');
	$_->quit foreach @sessions;
};

subtest 'each finds something to do' => sub {

	# one after the other, in whatever order, each up to a version of its own
	my @versions = 101 .. 120;
	my @sessions = map { session($local) } @versions;

	add('p', "INSERT INTO ran VALUES ($_)") foreach @versions;
	foreach my $i (0 .. $#versions)
	{
		$sessions[$i]->send(
			"SELECT coalesce(string_agg(version::text, ' '), '') FROM dbpool_migrate('p', $versions[$i])"
		);
	}
	my @answers = map { $_->wait } @sessions;
	is( join(
			' ',
			sort { $a <=> $b } map { split ' ', $_->{out} } @answers),
		"@versions",
		'each migration was run by one of them');
	is( (   grep {
				$_->{state} ne ''
				  && $_->{err} !~ /22023: target version \d+ is lower than/
			} @answers),
		0,
		'those that came too late are told so');
	is( $there->value(
			q{SELECT string_agg(version::text, ' ' ORDER BY at) FROM ran WHERE version > 100}
		),
		"@versions",
		'in their order');
	$_->quit foreach @sessions;
};

# --- the lock ------------------------------------------------------------------------

# A session that holds the lock, at the gate.
sub start_holder
{
	my $holder = session($local);

	add('p', $at_gate);
	$there->value('BEGIN; LOCK TABLE gate');
	$holder->send("SELECT count(*) FROM dbpool_migrate('p')");
	waits_at_gate(1);
	return $holder;
}

sub holder_there
{
	return $there->value(
		q{SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'dbpool migration'}
	);
}

subtest 'lock_timeout' => sub {
	my $holder = start_holder();
	my $pid = holder_there();
	my $user = $there->value('SELECT current_user');
	my $answer = $control->query(
		q{SELECT * FROM dbpool_migrate('p', lock_timeout => '300ms')});

	is($answer->{state}, '55P03', 'who waits in vain gets an error');
	like(
		$answer->{err},
		qr/could not get the lock for migrations on pool "p" within 300 ms\nDETAIL:  The remote's process $pid holds it: user "$user", application "dbpool migration", connected since 20/,
		'which says who has the lock');
	cmp_ok($answer->{seconds}, '>=', 0.3, 'not before the time');
	cmp_ok($answer->{seconds}, '<', 2, 'nor long after it');
	is( $control->query(
			q{SELECT * FROM dbpool_migrate('p', lock_timeout => '0')})
		  ->{state},
		'55P03',
		'0: do not wait');
	is( $control->query(
			q{SELECT dbpool_migration_repair('p', lock_timeout => '0')})
		  ->{state},
		'55P03',
		'so does a repair');
	is( $control->query(q{SELECT count(*) FROM dbpool_migration_status('p')})
		  ->{state},
		'', 'the status does not');

	# a waiter is cancelled
	my $waiter = session($local);
	$waiter->send(q{SELECT * FROM dbpool_migrate('p')});
	$control->poll(
		q{SELECT count(*) FROM dbpool_progress_migrate WHERE phase = 'waiting for lock'},
		'1');
	$control->value('SELECT pg_cancel_backend(' . $waiter->pid . ')');
	$answer = $waiter->wait;
	is($answer->{state}, '57014', 'who waits can be cancelled');
	$there->value('ROLLBACK');
	is($holder->wait->{out}, '1', 'the holder does not notice');
	$_->quit foreach ($holder, $waiter);
};

subtest 'the lock is free at once' => sub {
	foreach my $i (1 .. 30)
	{
		my $answer = $control->query(
			q{SELECT * FROM dbpool_migrate('p', lock_timeout => '0')});

		next if $answer->{state} eq '';
		fail('a call does not meet the lock of the one before');
		diag("call $i: $answer->{err}");
		return;
	}
	pass('a call does not meet the lock of the one before');
};

subtest 'the holder is killed' => sub {
	my $holder = start_holder();
	my $version = $last{p};

	kill 'KILL', $holder->pid;
	ok($holder->wait->{lost}, 'the session is gone');
	$control->kill;
	$local->poll_query_until('postgres', 'SELECT true')
	  or die 'the server does not come back';
	$control = session($local);
	is( $control->value(
			"SELECT status FROM dbpool_migration_history WHERE pool = 'p' AND version = $version"
		),
		'running',
		'its attempt is not known to have ended');

	# the gate is still locked
	$control->send(q{SELECT count(*) FROM dbpool_migrate('p')});
	$there->poll(
		q{SELECT count(DISTINCT pid) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted},
		'1');
	$there->value('ROLLBACK');
	is($control->wait->{out}, '1', 'the next one gets the lock');
	is( $control->value(
			"SELECT string_agg(status, ' ' ORDER BY id) FROM dbpool_migration_history WHERE pool = 'p' AND version = $version"
		),
		'interrupted done',
		'and knows better');
	$holder->quit;
};

# --- a pool at work --------------------------------------------------------------------

subtest 'the pool goes on' => sub {
	make_target('busy');
	my $busy = session($remote, dbname => 'busy');
	my $n = 200;

	$busy->value(
		"CREATE TABLE item (id int PRIMARY KEY, n int, x text);
		 INSERT INTO item SELECT i, i, 'x' FROM generate_series(1, $n) i"
	);
	$control->value(q{ALTER SERVER busy OPTIONS (max_size '3')});

	# parameters of type int, rows of a table that changes, and a write
	my $count =
	  q{SELECT count FROM dbpool_query('busy', 'SELECT count(*) FROM item WHERE n = $1', '%s'::text) AS t(count bigint)};
	my $script = sprintf("%s;\n", sprintf $count, 7) . q{
		SELECT id, n FROM dbpool_query('busy', 'SELECT id, n FROM item WHERE id = $1', '3'::text) AS t(id bigint, n bigint);
		SELECT id FROM dbpool_query('busy', 'UPDATE item SET n = n + 0 WHERE id = $1 RETURNING id', '5'::text) AS t(id bigint);
		};
	my $seconds = 8;
	my ($load, $out) = start_pgbench(
		$local, $script,
		'-c' => 6,
		'-j' => 2,
		'-T' => $seconds,
		'--latency-limit' => 1000,
		'--rate' => 150);

	$control->poll(
		q{SELECT coalesce(max(prepared), 0) >= 3 FROM dbpool_connections WHERE pool = 'busy'}
	);

	# without a migration it would go wrong
	my $large = '5000000000';
	is($control->query(sprintf $count, $large)->{state},
		'22003', 'a parameter has the type of the column');
	foreach my $text (
		'ALTER TABLE item ADD COLUMN more text',
		'ALTER TABLE item ALTER COLUMN n TYPE bigint',
		"-- no-transaction\nCREATE INDEX CONCURRENTLY item_n ON item (n)",
		'ALTER TABLE item ALTER COLUMN id TYPE bigint',
		'ALTER TABLE item ADD COLUMN d date DEFAULT now()',
		'INSERT INTO item SELECT i, i FROM generate_series(1001, 2000) i')
	{
		add('busy', $text);
		is( $control->value(q{SELECT count(*) FROM dbpool_migrate('busy')}),
			'1', $text);
		next if $text =~ /COLUMN more/;
		is($control->query(sprintf $count, $large)->{err},
			'', 'right after it parameters have the new types');
	}

	# every connection
	my @sessions = map { session($local) } 1 .. 6;
	foreach my $round (1 .. 20)
	{
		$_->send(sprintf $count, $large) foreach @sessions;
		my @failed = grep { $_->{state} ne '' } map { $_->wait } @sessions;
		next unless @failed;
		fail('on every connection');
		diag($failed[0]->{err});
		last;
	}
	$load->finish;
	is($load->result(0), 0, 'no statement of the load fails') or diag($$out);
	like($$out, qr/number of failed transactions: 0 /,
		'pgbench saw no failure')
	  if $$out =~ /failed transactions/;
	like($$out, qr/above the 1000\.0 ms latency limit: 0\//,
		'none takes a second')
	  or diag($$out);
	$$out =~ /number of transactions actually processed: (\d+)/;
	cmp_ok($1, '>', 50, 'there was some');
	note($$out);
	is( $busy->value('SELECT count(*) FROM item'),
		'1200', 'all is there');
	$_->quit foreach ($busy, @sessions);
};

subtest 'prepared statements after an end that is not good' => sub {
	make_target('uneven');
	my $uneven = session($remote, dbname => 'uneven');
	my $count =
	  q{SELECT count FROM dbpool_query('uneven', 'SELECT count(*) FROM item WHERE n = $1', '%s'::text) AS t(count bigint)};
	my $large = '5000000000';

	$uneven->value('CREATE TABLE item (n int)');
	$control->value(sprintf $count, 1) foreach 1 .. 10;
	is($control->query(sprintf $count, $large)->{state},
		'22003', 'the statement is prepared');
	add('uneven',
		"-- no-transaction\nALTER TABLE item ALTER n TYPE bigint; SELECT 1/0"
	);
	is($control->query(q{SELECT * FROM dbpool_migrate('uneven')})->{state},
		'22012', 'half of a migration is there');
	is($control->query(sprintf $count, $large)->{err},
		'', 'parameters have the new types');
	$uneven->quit;
};

# --- many remotes ------------------------------------------------------------------------

subtest 'many remotes' => sub {
	my $good = 'CREATE TABLE good ()';

	make_target("many_$_", $good, $_ eq 'b' ? 'SELECT 1/0' : 'SELECT 1')
	  foreach ('a' .. 'd');
	create_pool(
		$local, 'many_c2', undef,
		host => '/nowhere/at/all',
		connect_timeout => '2s');
	add('many_c2', $good);
	my $pools =
	  q{ARRAY['many_a', 'many_b', 'many_c', 'many_c2', 'many_d']::name[]};
	my $columns = 'pool, status, migrations, version, sqlstate';

	is( $control->value(
			"SELECT $columns FROM dbpool_migrate_all($pools, dry_run => true)"
		),
		join(
			"\n",
			'many_a|dry run|2||',
			'many_b|failed|0||22012',
			'many_c|dry run|2||',
			'many_c2|failed|0||08001',
			'many_d|dry run|2||'),
		'a dry run of all');
	is( $control->value(
			"SELECT $columns FROM dbpool_migrate_all($pools, stop_on_error => true)"
		),
		join(
			"\n",
			'many_a|migrated|2|2|',
			'many_b|failed|1|1|22012',
			'many_c|skipped|0||',
			'many_c2|skipped|0||',
			'many_d|skipped|0||'),
		'with stop_on_error the rest is skipped');
	my $answer =
	  $control->query("SELECT $columns FROM dbpool_migrate_all($pools)");
	is( $answer->{out},
		join(
			"\n",
			'many_a|nothing to do|0|2|',
			'many_b|failed|0|1|22012',
			'many_c|migrated|2|2|',
			'many_c2|failed|0||08001',
			'many_d|migrated|2|2|'),
		'without, the others go on');
	like(
		$answer->{err},
		qr/NOTICE: .*pool "many_b" could not be migrated: division by zero/,
		'with a notice of why');
	is( $control->value(
			q{SELECT count(*) FROM dbpool_migrate_all() WHERE pool LIKE 'many%'}
		),
		'5',
		'all that have migrations');

	# a cancel ends all of it
	$there->value('BEGIN; LOCK TABLE gate');
	add('p', $at_gate);
	my $caller = session($local);
	add('many_a', $good =~ s/good/better/r);
	$caller->send(q{SELECT * FROM dbpool_migrate_all('{p,many_a}')});
	waits_at_gate(1);
	$control->value('SELECT pg_cancel_backend(' . $caller->pid . ')');
	is($caller->wait->{state}, '57014', 'a cancel is for all of them');
	$there->value('ROLLBACK');
	is( $control->value(
			q{SELECT status FROM dbpool_migration_status('many_a') WHERE version = 3}
		),
		'pending',
		'none is begun after it');
	$caller->quit;
};

$_->quit foreach ($control, $there);
done_testing();
