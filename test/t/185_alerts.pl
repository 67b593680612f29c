
# What dbpool tells those who watch: news by NOTIFY to those who listen on the channel
# "dbpool", and dbpool_alerts.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $remote = make_remote();
# two places for processes beside the worker, which the warmers need
my $local = make_local(conf => "max_worker_processes = 3\nmax_logical_replication_workers = 0\n"
	  . "wal_level = replica\nmax_wal_senders = 1\nsynchronous_standby_names = 'nobody'\nsynchronous_commit = off\n"
	  . "dbpool.max_pools = 12\ndbpool.max_connections = 8\ndbpool.max_requests = 12\ndbpool.alert_wait = 500ms\n");
create_pool($local, 'p', $remote, max_size => 2);
foreach my $database (qw(other third))
{
	$local->safe_psql('postgres', "CREATE DATABASE $database");
	$local->safe_psql($database, q{CREATE EXTENSION dbpool; SELECT dbpool_create_pool('q', 'host=/nonexistent')});
}

my $control = session($local);

# Somebody who listens in a database.
my %heard;

sub listener
{
	my (%params) = @_;
	my $session = session($local, %params);

	$session->query('LISTEN dbpool');
	$heard{$session} = [];
	return $session;
}

# What a listener has heard so far, as data.
sub heard
{
	my ($listener) = @_;
	my $out = $listener->query('SELECT 1')->{out};

	push @{ $heard{$listener} }, decode_json($1)
	  while $out =~ /^Asynchronous notification "dbpool" with payload "(.*)" received from server process with PID \d+\.$/mg;
	return @{ $heard{$listener} };
}

# Wait for so many news, and forget them. Returns them.
sub hear
{
	my ($listener, $n) = @_;
	my @news;

	wait_until("$n news are heard", sub { @news = heard($listener); @news >= $n });
	$heard{$listener} = [];
	return @news;
}

sub events
{
	return join ' ', map { $_->{event} . ($_->{pool} ? ":$_->{pool}" : '') } @_;
}

# A session that holds the queue of notifications: it has notified, and waits in its commit
# for a standby that there is not.
sub hold_queue
{
	my $holder = session($local);

	$holder->query(q{SET synchronous_commit = on});
	$holder->send(q{BEGIN; CREATE TABLE IF NOT EXISTS held (x int); NOTIFY something; COMMIT});
	$control->poll(qq{SELECT wait_event FROM pg_stat_activity WHERE pid = $holder->{pid}}, 'SyncRep');
	return $holder;
}

sub release_queue
{
	my ($holder) = @_;

	$control->value("SELECT pg_cancel_backend($holder->{pid})");
	return $holder->wait;
}

my $listener = listener();

subtest 'a pause is news' => sub {
	$control->value(q{SELECT dbpool_ping('p')});
	$control->value(q{SELECT dbpool_pause('p')});
	my ($news) = hear($listener, 1);
	is_deeply([ sort keys %{$news} ], [qw(at event id pool)], 'keys');
	is(events($news), 'paused:p', 'what has happened');
	like($news->{at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$/, 'when');
	$control->value(q{SELECT dbpool_pause('p')});
	$control->value(q{SELECT dbpool_resume('p')});
	$control->value(q{SELECT dbpool_resume('p')});
	is(events(hear($listener, 1)), 'resumed:p', 'what changes nothing is none');
	$control->poll(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbpool herald'}, '0');
};

subtest 'each is told once, in their order' => sub {
	my $user = session($local);
	my $name = $control->value(q{SELECT 'o"d\\d' || chr(252) || repeat(chr(8364), 18)});

	$control->query(q{DO $$ BEGIN FOR i IN 1 .. 10 LOOP PERFORM dbpool_pause('p'), dbpool_resume('p'); END LOOP; END $$});
	$user->query(q{SELECT dbpool_begin('p')});
	is($control->query(q{SELECT dbpool_pause('p', '50ms')})->{state}, '55P03', 'a pause that fails');
	$user->query(q{SELECT dbpool_rollback('p')});
	$control->query(q{SELECT dbpool_create_pool('o"d\\d' || chr(252) || repeat(chr(8364), 18), 'host=/nonexistent')});
	$control->query(q{SELECT dbpool_ping('o"d\\d' || chr(252) || repeat(chr(8364), 18))});
	$control->query(q{SELECT dbpool_pause('o"d\\d' || chr(252) || repeat(chr(8364), 18))});
	my @news = grep { $_->{event} ne 'alert' } hear($listener, 23);
	utf8::encode(my $heard = $news[-1]->{pool});
	is($heard, $name, 'names come as they are');
	$control->query(qq{SELECT dbpool_drop_pool('o"d\\d' || chr(252) || repeat(chr(8364), 18))});
	is(events(@news[ 0 .. 21 ]), join(' ', ('paused:p resumed:p') x 11), 'of many at a time; what fails is taken back');
	my %ids = map { $_->{id} => 1 } @news;
	is(join(' ', map { $_->{id} } @news), join(' ', sort { $a <=> $b } keys %ids), 'each has a number, that grows');
};

subtest 'databases' => sub {
	my $there = listener(dbname => 'other');
	my $session = session($local, dbname => 'other');

	$local->safe_psql('postgres',
		q{ALTER DATABASE other SET default_transaction_read_only = on;
		ALTER DATABASE other SET synchronous_commit = on; ALTER DATABASE other SET timezone = 'Asia/Tokyo';
		ALTER DATABASE other SET default_transaction_isolation = 'serializable'});
	$session->query(q{SELECT dbpool_ping('q')});
	$session->query(q{SELECT dbpool_pause('q')});
	my $news;
	wait_until('that is heard', sub { ($news) = grep { $_->{event} ne 'alert' } heard($there) });
	is(events($news), 'paused:q', 'each has its own news');
	like($news->{at}, qr/\+00:00$/, 'whatever its settings are');
	is(scalar(grep { ($_->{pool} // '') eq 'q' } heard($listener)), 0, 'and nobody elses');
};

subtest 'when they cannot be sent' => sub {
	my $there = listener(dbname => 'third');
	my $session = session($local, dbname => 'third');
	$session->query(q{SELECT dbpool_ping('q')});
	wait_until('what is wrong there is told', sub { grep { $_->{event} eq 'alert' } heard($there) });
	$heard{$listener} = [];
	my $holder = hold_queue();
	my $begun = -s $local->logfile;

	$control->value(q{SELECT dbpool_pause('p')});
	session($local, dbname => 'other')->value(q{SELECT dbpool_resume('q')});
	ok($control->poll(q{SELECT string_agg(wait_event_type, ' ') FROM pg_stat_activity WHERE backend_type = 'dbpool herald'},
		'Lock Lock'), 'another one holds the queue');
	$session->query(q{SELECT dbpool_pause('q')});
	wait_until('there is no place for a process', sub {
		slurp_file($local->logfile, $begun) =~ /dbpool cannot send notifications in database \d+ now/ });
	is($control->query(q{SELECT dbpool_resume('p')})->{err}, '', 'nobody waits for that');
	$control->query(q{DO $$ BEGIN FOR i IN 1 .. 100 LOOP PERFORM dbpool_pause('p'), dbpool_resume('p'); END LOOP; END $$});
	is(release_queue($holder)->{err} =~ /ERROR/ ? 1 : 0, 0, 'the queue is free');

	my @news;
	my $all = sub { @news = grep { $_->{event} ne 'alert' } heard($listener) };
	wait_until('they come', sub { $all->(); grep { $_->{event} eq 'lost' } @news });
	my $lost = 0;
	$lost += $_->{count} foreach grep { $_->{event} eq 'lost' } @news;
	my $told = grep { $_->{pool} } @news;
	wait_until('and all of them', sub { $all->(); $told = grep { $_->{pool} } @news; $told + $lost >= 202 });
	is($told + $lost, 202, "$told are told, $lost are known to be lost");
	cmp_ok($told, '>=', 128, 'as many as there is room for');
	is((grep { $_->{pool} } @news)[-1]->{event}, 'resumed', 'the last of them for sure');
	ok(wait_until('the other database', sub { grep { $_->{event} =~ /^(lost|paused)$/ } heard($there) }),
		'the other database is told later');
	my @complaints = slurp_file($local->logfile, $begun) =~ /dbpool cannot send notifications/g;
	is(scalar(@complaints), 1, 'the log has that once');
};

# --- alerts ----------------------------------------------------------------------------

# Wait until there is an alert of that kind, and it was told. Returns its row, as data.
sub alert_begins
{
	my ($alert, $pool) = @_;
	my $row;

	wait_until("there is alert $alert", sub {
		$row = $control->value(qq{SELECT to_jsonb(a) FROM dbpool_alerts a WHERE alert = '$alert'
			AND database IS NOT DISTINCT FROM CASE WHEN pool IS NOT NULL THEN current_database() END
			AND pool IS NOT DISTINCT FROM } . ($pool ? "'$pool'" : 'NULL'));
		$row ne '' });
	told($alert, $pool, 'begins');
	$row = decode_json($row);
	ok($row->{problem} && $row->{advice} && $row->{since}, "$alert: " . ($row->{problem} // ''));
	return $row;
}

sub told
{
	my ($alert, $pool, $state) = @_;
	my @news;

	wait_until("alert $alert $state", sub {
		@news = grep { $_->{event} eq 'alert' && $_->{alert} eq $alert && ($_->{pool} // '') eq ($pool // '') } heard($listener);
		@news && $news[-1]->{state} eq $state });
	is($news[-1]->{user}, $pool ? $control->value('SELECT current_user') : undef, "$alert $state: whose it is");
	is(scalar(@news), $state eq 'begins' ? 1 : 2, 'told once');
	return;
}

sub alert_ends
{
	my ($alert, $pool) = @_;

	told($alert, $pool, 'ends');
	is($control->value(qq{SELECT count(*) FROM dbpool_alerts WHERE alert = '$alert' AND pool IS NOT DISTINCT FROM }
		  . ($pool ? "'$pool' AND database = current_database()" : 'NULL')), '0', 'it has gone');
	return;
}

create_pool($local, 'w', $remote, max_size => 1, acquire_timeout => '3s');
create_pool($local, 'l', $remote, max_size => 2, leak_threshold => '1s');
$control->query(q{SELECT dbpool_create_pool('u', 'host=/nonexistent')});

my @kinds = ([ 'wait', 'w' ], [ 'timeouts', 'w' ], [ 'utilisation', 'w' ], [ 'errors', 'p' ], [ 'lease_held', 'l' ],
	[ 'unreachable', 'u' ], ['requests'], ['connections'], ['pools']);
my $holder = session($local);
my $waiter = session($local);
my $user = session($local);

subtest 'alerts begin' => sub {
	my %rows;

	$heard{$listener} = [];
	$holder->send(query_sleeps('w', 600));
	$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'w'}, '1');
	$waiter->send(query_sleeps('w', 0));
	$control->query(q{DO $$ BEGIN FOR i IN 1 .. 30 LOOP
		BEGIN PERFORM dbpool_query('p', 'SELECT 1/0'); EXCEPTION WHEN division_by_zero THEN END; END LOOP; END $$});
	$user->value(q{SELECT dbpool_begin('l')});
	$control->query(q{SELECT dbpool_ping('u')});
	$local->safe_psql('postgres', q{ALTER SYSTEM SET dbpool.alert_utilisation = 5; SELECT pg_reload_conf()});
	$rows{ $_->[0] } = alert_begins(@{$_}) foreach @kinds;
	is($waiter->wait->{state}, '53300', 'who waits does so in vain');
	cmp_ok($rows{wait}->{value}, '>', 0.5, 'how long it waits');
	is($rows{timeouts}->{value}, 1, 'that is counted');
	cmp_ok($rows{errors}->{value}, '>', 90, 'percent of errors');
	is(join(' ', map { "$_=$rows{$_}->{threshold}" } sort keys %rows),
		'connections=5 errors=5 lease_held=1 pools=5 requests=5 timeouts=0 unreachable=0 utilisation=5 wait=0.5', 'thresholds');
	is(join(' ', grep { $rows{$_}->{severity} eq 'critical' } sort keys %rows), 'timeouts unreachable', 'those that are critical');
	like($rows{unreachable}->{problem}, qr{/nonexistent}, 'why it cannot be reached');
	unlike(encode_json([ heard($listener) ]), qr/nonexistent/, 'news have nothing that not all may know');
};

# Names that differ, and look alike where they have to be UTF-8.
sub is_clean
{
	my ($name, $metrics) = @_;
	my %seen;

	is(join("\n", grep { !/^#/ && $seen{s/ [^ ]*$//r}++ } split /\n/, $metrics), '', "$name: no sample comes twice");
	ok(utf8::decode($metrics), "$name: it is UTF-8");
	return;
}

subtest 'a summary, and metrics' => sub {
	my $summary = '';
	$control->query(q{SELECT dbpool_create_pool(repeat('long', 15), 'host=/nonexistent')});
	$control->query(q{SELECT dbpool_isolate(repeat('long', 15))});
	# the old name is another's before the renamed one is used
	$control->query($_)
	  foreach q{SELECT dbpool_create_pool('before', 'host=/nonexistent')}, q{SELECT dbpool_isolate('before')},
	  q{ALTER SERVER before RENAME TO after}, q{SELECT dbpool_create_pool('before', 'host=/nonexistent')}, q{SELECT dbpool_isolate('before')};

	my $metrics = $control->query('SELECT dbpool_metrics()')->{out};
	my $strict = $control->query('SELECT dbpool_metrics(true)')->{out};

	like($control->value(q{SELECT string_agg(concat_ws(' ', pool, conns, wait, wrong), ', ' ORDER BY pool) FROM dbpool_summary WHERE pool ~ '^(u|w|long.*)$'}),
		qr{^longlonglong~ 0/0/10 0 isolated, u 0/0/10 0 unreachable, w 1/1/1 0 timeouts \+\d$}, 'who has what');
	my ($wide) = run_command([ 'psql', '-X', '-d', $local->connstr('postgres'), '-c', 'SELECT * FROM dbpool_summary' ]);
	cmp_ok((sort { $b <=> $a } map { length } split /\n/, $wide)[0], '<=', 80, 'in 80 columns');

	like($metrics, qr/^dbpool_pool_timeouts_total\{database="postgres",pool="w",user="\w+"\} 1$/m, 'a counter');
	like($metrics, qr/^dbpool_pool_connections\{database="postgres",pool="w",user="\w+",state="busy"\} 1$/m, 'a gauge');
	like($metrics, qr/^dbpool_pool_duration_seconds_bucket\{database="postgres",pool="p",user="\w+",part="total",le="\+Inf"\} \d+$/m, 'a histogram');
	like($metrics, qr/^dbpool_alert\{database="postgres",pool="w",user="\w+",alert="timeouts",severity="critical"\} 1$/m, 'an alert');
	like($metrics, qr/^dbpool_pool_disabled\{database="postgres",pool="(?:long){15}",user="\w*"\} 1$/m, 'what is isolated takes no calls');
	like($metrics, qr/^# EOF\n?\z/m, 'its end');
	like($strict, qr/^# TYPE dbpool_pool_timeouts counter$/m, 'names as OpenMetrics has them');
	is_clean('one renamed', $metrics);
	my %families = map { $_ => 1 } $metrics =~ /^# TYPE (\S+) /mg;
	my @orphans = grep { !$families{$_} && !$families{s/_(bucket|sum|count)$//r} } $metrics =~ /^(\w+)[ {]/mg;
	is("@orphans", '', 'each sample has a family');
	is(scalar(() = $metrics =~ /^# TYPE /mg), scalar(keys %families), 'which is there once');
	my @wrong = grep { !/^(# (HELP|TYPE|UNIT) [a-z_]+ .+|[a-z_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)+\})? -?[0-9]+(\.[0-9]+)?|# EOF)$/ } split /\n/, $metrics;
	is("@wrong", '', 'no line is anything else');
  SKIP:
	{
		my $promtool = $ENV{PROMTOOL} || '/usr/bin/promtool';
		skip 'no promtool', 1 unless -x $promtool;
		my $out = '';
		ok(IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$metrics, '>&', \$out), 'promtool has nothing to say') or diag($out);
	}
};

subtest 'who sees them' => sub {
	my $seen = sub {
		$control->query("SET ROLE $_[0]");
		my $n = $control->value(q{SELECT count(pool) || '/' || count(*) FROM dbpool_alerts});
		$control->query('RESET ROLE');
		return $n;
	};

	$control->query('CREATE ROLE nobody LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE owner LOGIN');
	$control->query('GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO owner; ALTER SERVER u OWNER TO owner');
	is($seen->('nobody'), '0/3', 'those of all pools are for everybody');
	is($seen->('owner'), '1/4', 'the owner sees his own');
	like($seen->('monitor'), qr{^(\d+)/(??{ $1 + 3 })$}, 'pg_monitor sees them all');
	$control->query(q{ALTER SERVER u OWNER TO CURRENT_USER});
};

subtest 'odd names in metrics' => sub {
	my $odd = qq{o"d\\ld\nname};

	$control->query(q{SELECT dbpool_create_pool(E'o"d\\\\ld\nname', 'host=/nonexistent')});
	$control->query(q{SELECT dbpool_ping(E'o"d\\\\ld\nname')});
	my $metrics = $control->query('SET ROLE monitor; SELECT dbpool_metrics()')->{out};
	like($metrics, qr/pool="o\\"d\\\\ld\\nname"/, 'are escaped');
	$metrics = $control->query('SET ROLE nobody; SELECT dbpool_metrics()')->{out};
	unlike($metrics, qr/pool="/, 'who sees no pool has no metrics of one');
	like($metrics, qr/^dbpool_worker_up\{worker="1"\} 1$/m, 'but of the workers');
	$control->query(q{RESET ROLE; SELECT dbpool_drop_pool(E'o"d\\\\ld\nname')});
};

subtest 'alerts end' => sub {
	$control->query(q{ALTER SERVER u OPTIONS (SET host '} . $remote->host . q{', ADD port '} . $remote->port . q{', ADD dbname 'postgres')});
	is($control->query(q{SELECT dbpool_ping('u')})->{err}, '', 'it can be reached again');
	$user->value(q{SELECT dbpool_rollback('l')});
	$control->value("SELECT pg_cancel_backend($holder->{pid})");
	$holder->wait;
	$control->query(q{SELECT dbpool_stat_reset()});
	$local->safe_psql('postgres', q{ALTER SYSTEM SET dbpool.alert_utilisation = 90; SELECT pg_reload_conf()});
	alert_ends(@{$_}) foreach @kinds;
};

# A pool tries no more when nobody uses it: that its server is well is known by others.
subtest 'a pool that nobody uses' => sub {
	my $away = make_remote(name => 'away');
	create_pool($local, $_, $away) foreach 'idle', 'other';
	create_pool($local, 'wrong', $away, dbname => 'no such');

	$control->query(q{SELECT dbpool_ping('wrong')});
	$away->stop('immediate');
	$control->query(q{SELECT dbpool_ping('idle')});
	alert_begins('unreachable', $_) foreach 'idle', 'wrong';
	$away->start;
	is($control->query(q{SELECT dbpool_ping('other')})->{err}, '', 'another pool gets in');
	alert_ends('unreachable', 'idle');
	is($control->value(q{SELECT count(*) FROM dbpool_connections WHERE pool = 'idle'}), '0', 'though it has no connection');
	is($control->value(q{SELECT string_agg(pool, ' ') FROM dbpool_alerts WHERE alert = 'unreachable' AND pool IN ('idle', 'wrong')}),
		'wrong', 'what is wrong with a pool stays so');
	$control->query(qq{DROP SERVER $_ CASCADE}) foreach 'idle', 'other', 'wrong';
	$away->stop;
};

subtest 'workers' => sub {
	my $pid = worker_pid($control);

	$control->value("SELECT pg_terminate_backend($pid)");
	my $row = $control->query(q{DO $$ BEGIN FOR i IN 1 .. 100000 LOOP
		IF EXISTS (SELECT FROM dbpool_alerts WHERE alert = 'worker_down' AND severity = 'critical' AND since <= clock_timestamp()
			AND problem = 'worker 1 is not running') THEN
			RAISE EXCEPTION 'it is down'; END IF; END LOOP; END $$});
	like($row->{err}, qr/it is down/, 'one that does not run');
	is(alert_begins('worker_restarted')->{value}, 1, 'and runs again');
};

subtest 'names that are no text' => sub {
	$control->value(q{CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
	my $there = session($local, dbname => 'bytes');

	$there->query($_) foreach 'SET client_min_messages = error', 'CREATE EXTENSION dbpool',
	  map { (qq{SELECT dbpool_create_pool(E'<\\x$_>', E'host=/nonexistent\\x$_ port=1', '{"acquire_timeout": "100ms"}')}, qq{SELECT dbpool_ping(E'<\\x$_>')}) }
	  'fe', 'ff', 'c3\xa4';
	cmp_ok($there->value(q{SELECT count(*) FROM dbpool_endpoints WHERE host ~ 'nonexistent.'}), '>=', 3, 'there are such hosts');
	is_clean('there', $there->value('SELECT dbpool_metrics()'));
	is_clean('elsewhere', $control->value('SELECT dbpool_metrics()'));
	$there->quit;
};

done_testing();
