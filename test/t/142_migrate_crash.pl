
# A run of ten migrations is broken off at each of its statements, in turn by a
# cancel, by the end of the session, by kill -9 of the remote backend, by an
# immediate stop of the remote and by kill -9 of the local session. A second run
# completes it, and then the schema, the data and the history are those of a run
# that nobody disturbed.
#
# The statements call a function of the remote, which counts its calls, and
# sleeps at the one that it is told: DDL by an event trigger, the writing of the
# history and its commit by triggers of its table. There is a database for each
# of these places, so that one blow strikes runs in all of them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

# processes are killed here
announce(qr/terminated by signal 9/);
use Time::HiRes qw(time);

# How many places each kind of end is tried at; the others are left out evenly.
# EXTRA in the environment: all of them.
my %most = (
	cancelled => 28,
	terminated => 12,
	remote_killed => 20,
	remote_stopped => 12,
	local_killed => 20);

# What the session is told.
my %state = (
	cancelled => '57014',
	terminated => '57P01',
	remote_killed => '0800[67]',
	remote_stopped => '0800[67]',
	local_killed => '(?:57P02)?');

my $remote = make_remote(
	conf => "restart_after_crash = on\n" . "max_locks_per_transaction = 256\n");
my $local = make_local(conf => "restart_after_crash = on\n"
	  . "max_worker_processes = 120\n");

# --- ten migrations ----------------------------------------------------------------

my @migrations = (
	create_account => q{
		CREATE TABLE account (id int PRIMARY KEY, owner text NOT NULL, balance int NOT NULL);
		CREATE INDEX account_owner ON account (owner);
		INSERT INTO account SELECT i, 'owner ' || i, i * 10 FROM hook.call(), generate_series(1, 20) i;},
	account_note => q{
		BEGIN;
		ALTER TABLE account ADD COLUMN note text DEFAULT 'none';
		UPDATE account SET note = 'first' FROM hook.call() WHERE id = 1;
		COMMIT;},
	rich => q{
		CREATE FUNCTION is_rich(account) RETURNS boolean LANGUAGE sql AS $$ SELECT $1.balance > 100; $$;
		CREATE VIEW rich AS SELECT id, owner FROM account a WHERE is_rich(a);},
	index_slowly => q{-- no-transaction
		CREATE INDEX CONCURRENTLY account_slow ON account (hook.slow(id)) WHERE id = 7;},
	create_entry => q{
		CREATE TABLE entry (account int NOT NULL REFERENCES account, at date NOT NULL, amount int) PARTITION BY RANGE (at);
		CREATE TABLE entry_2026 PARTITION OF entry FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
		INSERT INTO entry SELECT id, '2026-05-05', balance FROM account, hook.call();},
	wider => q{
		ALTER TABLE entry ALTER COLUMN amount TYPE bigint;
		ALTER TABLE account ADD CONSTRAINT not_in_debt CHECK (balance >= 0);},
	elsewhere => q{
		CREATE SCHEMA elsewhere;
		SET search_path = elsewhere;
		CREATE TABLE account (id int);
		DO $$ BEGIN INSERT INTO account VALUES (1); PERFORM hook.call(); INSERT INTO account VALUES (2); END $$;},
	more_indexes => q{-- no-transaction
		CREATE INDEX CONCURRENTLY account_balance ON account (balance);
		INSERT INTO account SELECT 100, 'late', 1 FROM hook.call();
		CREATE INDEX CONCURRENTLY account_note ON account (hook.slow(id), note) WHERE id = 100;},
	totals => q{
		CREATE MATERIALIZED VIEW totals AS SELECT account, sum(amount) FROM entry GROUP BY 1;
		DELETE FROM elsewhere.account USING hook.call() WHERE id = 1;},
	tidy_up => q{
		DROP VIEW rich;
		DROP FUNCTION is_rich(account);
		COMMENT ON TABLE account IS 'who has what';});

# Is all of a migration there that runs outside of a transaction, and how is it
# undone?
my %outside = (
	4 => [
		q{SELECT count(*) = 1 FROM pg_index WHERE indexrelid = to_regclass('account_slow') AND indisvalid},
		'DROP INDEX IF EXISTS account_slow'
	],
	8 => [
		q{SELECT (SELECT count(*) = 2 FROM pg_index WHERE indisvalid AND indexrelid IN
		  (to_regclass('account_balance'), to_regclass('account_note')))
		  AND EXISTS (SELECT FROM account WHERE id = 100)},
		q{DROP INDEX IF EXISTS account_balance, account_note; DELETE FROM account WHERE id = 100}
	]);

$remote->safe_psql('postgres', 'CREATE DATABASE model');
$remote->safe_psql(
	'model', q{
	CREATE SCHEMA hook;
	CREATE SEQUENCE hook.calls;
	CREATE FUNCTION hook.call(place text DEFAULT 'statement') RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		n bigint := nextval('hook.calls');
	BEGIN
		RAISE NOTICE 'place % %', n, place;
		IF n::text = current_setting('hook.stop', true) THEN
			PERFORM pg_sleep(600);
		END IF;
	END $$;
	CREATE FUNCTION hook.slow(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM hook.call('while an index is built');
		RETURN x;
	END $$;
	CREATE FUNCTION hook.history() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM hook.call(format('history %s %s', tg_name, new.state));
		RETURN new;
	END $$;
	CREATE FUNCTION hook.ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF tg_tag = 'CREATE TRIGGER' THEN
			RETURN;
		ELSIF tg_event = 'ddl_command_end' OR current_query() LIKE '%CONCURRENTLY%' THEN
			PERFORM hook.call(tg_event || ' ' || tg_tag);
		END IF;
		IF tg_event = 'ddl_command_end' AND EXISTS
			(SELECT FROM pg_event_trigger_ddl_commands()
			 WHERE object_identity = 'public.dbpool_migration_history' AND command_tag = 'CREATE TABLE')
		THEN
			CREATE TRIGGER write BEFORE INSERT OR UPDATE ON public.dbpool_migration_history
			FOR EACH ROW EXECUTE FUNCTION hook.history();
			CREATE CONSTRAINT TRIGGER commit AFTER INSERT OR UPDATE ON public.dbpool_migration_history
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hook.history();
		END IF;
	END $$;
	CREATE EVENT TRIGGER ddl_start ON ddl_command_start EXECUTE FUNCTION hook.ddl();
	CREATE EVENT TRIGGER ddl_end ON ddl_command_end EXECUTE FUNCTION hook.ddl();});

# Databases of the remote, and pools for them with the migrations. Each is given
# with the place that its run is to stop at, 0 for none.
sub make_targets
{
	my (%stop) = @_;
	my ($there, $here) = ('', '');

	foreach my $pool (sort keys %stop)
	{
		my $version = 0;

		$there .= "CREATE DATABASE $pool TEMPLATE model;
			ALTER DATABASE $pool SET hook.stop = '$stop{$pool}';\n";
		$here .= sprintf(
			"CREATE SERVER $pool FOREIGN DATA WRAPPER dbpool
			OPTIONS (host '%s', port '%s', dbname '$pool');
			CREATE USER MAPPING FOR CURRENT_USER SERVER $pool;\n",
			$remote->host, $remote->port);
		for (my $i = 0; $i < @migrations; $i += 2)
		{
			$version++;
			$here .=
			  "SELECT dbpool_add_migration('$pool', $version, '$migrations[$i]', \$sql\$$migrations[$i + 1]\$sql\$);\n";
		}
	}
	$remote->safe_psql('postgres', $there);
	$local->safe_psql('postgres', $here);
	return;
}

# All of a remote database but the times in its history.
sub contents
{
	my ($database) = @_;
	my ($dump, $err);

	IPC::Run::run(
		[   'pg_dump', '--inserts', '-N', 'hook', '--exclude-table-data',
			'public.dbpool_migration_history*',
			$remote->connstr($database) ],
		'>', \$dump, '2>', \$err) or die "pg_dump: $err";
	my @lines = grep { !/^\\(un)?restrict/ } split /\n/, $dump;
	my @rows = sort grep { /^INSERT/ } @lines;
	return join "\n", (grep { !/^INSERT/ } @lines), @rows;
}

sub history
{
	my ($database) = @_;
	return $remote->safe_psql($database,
		q{SELECT version, name, checksum, direction, state FROM dbpool_migration_history ORDER BY id}
	);
}

# What the local history has of each pool: attempts that have not ended well, and
# the versions that are done.
sub attempts
{
	my (%of);

	foreach my $line (
		split /\n/,
		$local->safe_psql(
			'postgres', q{
			SELECT pool, string_agg(concat_ws(',', version, status, sqlstate), ' ' ORDER BY id)
			             FILTER (WHERE status <> 'done'),
			       string_agg(version::text, ' ' ORDER BY version)
			       FILTER (WHERE status = 'done' AND (mode = 'normal' OR mode = 'resolve' AND direction = 'up'))
			FROM dbpool_migration_history GROUP BY pool}))
	{
		my ($pool, $failed, $done) = split /\|/, $line, -1;
		$of{$pool} = { failed => $failed, done => $done };
	}
	return %of;
}

# --- undisturbed -----------------------------------------------------------------

# The places: what is done there, and in which migration; 0 before the first.
my @places = ({});
my $contents;
my $history;

subtest 'an undisturbed run' => sub {
	make_targets(undisturbed => 0);
	my $session = session($local);
	my $answer =
	  $session->query(q{SELECT count(*) FROM dbpool_migrate('undisturbed')});
	is($answer->{out}, '10', 'ten migrations') or diag($answer->{err});
	foreach my $line (split /\n/, $answer->{err})
	{
		push @places, { what => $1 } if $line =~ /NOTICE: .*place \d+ (.*)/;
		next unless $line =~ /NOTICE: .*migration (\d+) /;
		$_->{migration} //= $1 foreach @places;
	}
	$places[1]->{migration} = 0;
	is($places[1]->{what}, 'ddl_command_end CREATE TABLE', 'the first place');
	$contents = contents('undisturbed');
	$history = history('undisturbed');
	is(scalar(split /\n/, $history), 10, 'ten rows in the history');
	cmp_ok($#places, '>', 45, 'places to break it off at');
	note(join "\n",
		map { "$_: migration $places[$_]->{migration}, $places[$_]->{what}" }
		  1 .. $#places);
	$session->quit;
};

# --- what ends a run -------------------------------------------------------------

# Which places are tried.
sub choose
{
	my ($kind) = @_;
	my $most = $ENV{EXTRA} ? $#places : $most{$kind};

	return 1 .. $#places if $most >= $#places;
	my %chosen =
	  map { 1 + int($_ * ($#places - 1) / ($most - 1)) => 1 } 0 .. $most - 1;
	return sort { $a <=> $b } keys %chosen;
}

my %strike = (
	cancelled => sub {
		my $pids = join ',', map { $_->pid } @_;
		$local->safe_psql('postgres',
			"SELECT pg_cancel_backend(pid) FROM unnest(ARRAY[$pids]) pid");
	},
	terminated => sub {
		my $pids = join ',', map { $_->pid } @_;
		$local->safe_psql('postgres',
			"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[$pids]) pid");
	},
	remote_killed => sub {
		kill 'KILL',
		  $remote->safe_psql('postgres',
			q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' LIMIT 1}
		  );
	},
	remote_stopped => sub {
		$remote->stop('immediate');
	},
	local_killed => sub {
		kill 'KILL', $_[0]->pid;
	});

# Does the remote not know whether a commit had an effect?
sub is_commit
{
	my ($place) = @_;
	return $place->{what} =~ /^history .* done/;
}

# The row of the local history that is expected of a run that was ended there.
sub expected_failure
{
	my ($kind, $place) = @_;
	my $version = $place->{migration};

	return '' if $version == 0;
	return "$version," . (is_commit($place) ? 'unknown' : 'failed') . ',57014'
	  if $kind eq 'cancelled';
	return "$version,interrupted" if $kind eq 'terminated';
	return "$version,running" if $kind eq 'local_killed';
	return is_commit($place) ? "$version,unknown,08007" :
	  "$version,failed,08006";
}

# A migration outside of a transaction has not ended. Do what the error says.
sub resolve
{
	my ($session, $database, $answer) = @_;

	return 0
	  unless $answer->{err} =~
	  /migration (\d+) "\w+" on pool "\w+" was started and is not known to have ended/;
	my ($version, $invalid) = ($1, '');
	$invalid = $1 if $answer->{err} =~ /has invalid indexes.*: (\S+)\.$/m;
	is( $invalid,
		$remote->safe_psql(
			$database,
			q{SELECT string_agg('public.' || indexrelid::regclass, ', ') FROM pg_index WHERE NOT indisvalid}
		),
		"$database: the error names the index that is invalid");
	my ($is_there, $undo) = @{ $outside{$version} };
	my $outcome =
	  $remote->safe_psql($database, $is_there) eq 't' ? 'applied' : 'pending';
	$remote->safe_psql($database, $undo) if $outcome eq 'pending';
	$session->value(
		"SELECT dbpool_migration_resolve('$database', $version, '$outcome')");
	return 1;
}

foreach my $kind ('cancelled', 'terminated', 'remote_killed',
	'remote_stopped', 'local_killed')
{
	subtest $kind => sub {
		my @chosen = choose($kind);
		my %pool = map { $_ => "${kind}_$_" } @chosen;
		my $started = time;

		make_targets(map { $pool{$_} => $_ } @chosen);
		my %session = map { $_ => session($local) } @chosen;
		$session{$_}
		  ->send("SELECT count(*) FROM dbpool_migrate('$pool{$_}')")
		  foreach @chosen;
		$remote->poll_query_until('postgres',
			q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'},
			scalar @chosen)
		  or die 'the runs do not get to where they are to be ended';
		$remote->safe_psql('postgres', 'CHECKPOINT');
		my $prepared = time;

		$strike{$kind}->(map { $session{$_} } @chosen);
		my %answer = map { $_ => $session{$_}->wait } @chosen;
		my $struck = time;
		$remote->start if $kind eq 'remote_stopped';
		foreach my $node ($local, $remote)
		{
			$node->poll_query_until('postgres', 'SELECT true')
			  or die 'a server does not come back';
		}
		ok( $remote->poll_query_until(
				'postgres',
				q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dbpool migration'}
			),
			'no session is left on the remote');
		is( $remote->safe_psql(
				'postgres',
				q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}
			),
			'0',
			'nor a lock');
		ok( $local->poll_query_until(
				'postgres',
				q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'dbpool recorder%'}
			),
			'no recorder is left here');
		my $freed = time;
		my %attempts = attempts();

		foreach my $n (@chosen)
		{
			my $place = $places[$n];
			my $where =
			  "$n, migration $place->{migration}, $place->{what}";
			my $state = $state{$kind};

			$state = '08007' if $kind =~ /^remote/ && is_commit($place);
			like($answer{$n}->{state},
				qr/^$state$/, "$where: the session's error");
			is( $attempts{ $pool{$n} }->{failed} // '',
				expected_failure($kind, $place),
				"$where: the local history");
			$session{$n}->quit;
		}

		# again, without a stop
		$remote->safe_psql('postgres',
			join '', map { "ALTER DATABASE $pool{$_} RESET hook.stop;" }
			  @chosen);
		%session = map { $_ => session($local) } @chosen;
		$session{$_}
		  ->send("SELECT count(*) FROM dbpool_migrate('$pool{$_}')")
		  foreach @chosen;
		%answer = map { $_ => $session{$_}->wait } @chosen;
		my $resolved = 0;
		my %expected;
		foreach my $n (@chosen)
		{
			my $place = $places[$n];
			my $where = "$n, migration $place->{migration}, $place->{what}";
			my $database = $pool{$n};

			if ($answer{$n}->{state} ne '')
			{
				is($answer{$n}->{state}, '55000',
					"$where: the next run stops")
				  or diag($answer{$n}->{err});
				$resolved += resolve($session{$n}, $database, $answer{$n});
				$answer{$n} = $session{$n}
				  ->query("SELECT count(*) FROM dbpool_migrate('$database')");
			}
			is($answer{$n}->{state}, '', "$where: a second run completes it")
			  or diag($answer{$n}->{err});
			is(contents($database), $contents,
				"$where: schema and data are as they should");
			is(history($database), $history, "$where: and so is the history");
			($expected{$n} = expected_failure($kind, $place)) =~
			  s/running/interrupted/;
			$session{$n}->quit;
		}
		%attempts = attempts();
		foreach my $n (@chosen)
		{
			my $had = $attempts{ $pool{$n} };

			is($had->{failed}, $expected{$n},
				"$n: what failed stays in the local history");
			is($had->{done}, '1 2 3 4 5 6 7 8 9 10',
				"$n: each was done once");
		}
		cmp_ok($resolved, '>', 0, 'some had to be resolved');
		note(sprintf
			  '%d places: %.1f s until they are reached, %.1f s until the sessions know, %.1f s until the remote is free, %.1f s to complete all',
			scalar @chosen,
			$prepared - $started,
			$struck - $prepared,
			$freed - $struck,
			time - $freed);
	};
}

done_testing();
