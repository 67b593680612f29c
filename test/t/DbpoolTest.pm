
# DbpoolTest: what the TAP tests share.
#
# A local node, which has dbpool preloaded, and a remote one, which is plain.
# A session is a psql that stays connected and can be sent a statement without
# waiting for its end.
#
#   my $remote = make_remote();
#   my $local = make_local();
#   create_pool($local, 'p', $remote, max_size => 4);
#   my $s = session($local);
#   $s->send("SELECT * FROM dbpool_query('p', 'SELECT pg_sleep(60)') AS t(x text)");
#   ...
#   my $answer = $s->wait;    # out, err, state (SQLSTATE or ''), seconds
#
# done_testing() looks, at each local node, whether dbpool has kept what always
# holds; see check_invariants().

package DbpoolTest;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  make_local make_remote create_pool session wait_until
  worker_pid rss_kb child_pids silent_listener query_sleeps
  suspend resume preload_library start_pgbench
  announce broken_invariants
);

my @nodes;
my @locals;
my @announced;

# A node that stays as quiet and small as the tests allow.
sub make_node
{
	my ($name, %params) = @_;
	my $install = $params{install};
	my $node = PostgreSQL::Test::Cluster->new($name,
		$install ? (install_path => $install) : ());

	# What those settings name is for the local server.
	delete local $ENV{TEMP_CONFIG} if $install;
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', "log_statement = none\n");
	$node->append_conf('postgresql.conf', "autovacuum = off\n");
	$node->append_conf('postgresql.conf', "max_wal_senders = 0\n");
	$node->append_conf('postgresql.conf', "$params{conf}\n") if $params{conf};
	$node->start unless $params{no_start};
	push @nodes, $node;
	return $node;
}

# The local node, with the extension in database postgres. Parameters: name,
# conf (more settings), workers, no_start.
sub make_local
{
	my (%params) = @_;
	my $workers = $params{workers} || 1;
	my $conf =
		"shared_preload_libraries = 'dbpool'\n"
	  . "log_line_prefix = '%m [%p] %b %q%a '\n"
	  . "dbpool.workers = $workers\n"
	  . "max_connections = 300\n"
	  . ($params{conf} || '');
	my $node = make_node($params{name} || 'local', %params, conf => $conf);

	push @locals, $node;
	$node->safe_psql('postgres', 'CREATE EXTENSION dbpool')
	  unless $params{no_start};
	return $node;
}

# A plain node. Parameters: name, conf, no_start. DBPOOL_REMOTE_INSTALL names the
# PostgreSQL that it is of, for the local one's.
sub make_remote
{
	my (%params) = @_;
	my $conf = "max_connections = 300\n" . ($params{conf} || '');

	return make_node($params{name} || 'remote', %params, conf => $conf,
		install => $ENV{DBPOOL_REMOTE_INSTALL});
}

# Create a pool for the superuser in the local node's database postgres. With
# a remote node it goes to that node's database postgres; options override.
sub create_pool
{
	my ($local, $pool, $remote, %options) = @_;

	if ($remote)
	{
		%options = (
			host => $remote->host,
			port => $remote->port,
			dbname => 'postgres',
			%options);
	}
	my $list = join ', ', map { "$_ '$options{$_}'" } sort keys %options;
	$local->safe_psql(
		'postgres', qq{
		CREATE SERVER "$pool" FOREIGN DATA WRAPPER dbpool OPTIONS ($list);
		CREATE USER MAPPING FOR CURRENT_USER SERVER "$pool";});
	return;
}

# A psql that stays connected. Parameters: dbname, what psql's -d takes besides
# (options => '-c statement_timeout=1s'), and no_wait: it may still be logging in, in vain
# perhaps, and its pid is not known.
sub session
{
	my ($node, %params) = @_;
	return DbpoolTest::Session->new($node, %params);
}

# The call of a statement that sleeps on the remote for so many seconds. The
# remark makes it findable in pg_stat_activity.
sub query_sleeps
{
	my ($pool, $seconds, $remark) = @_;

	$remark = $remark ? "/* $remark */ " : '';
	return
	  "SELECT * FROM dbpool_query('$pool', '${remark}SELECT pg_sleep($seconds)') AS t(x text)";
}

# Look until the condition holds. When it does not within the usual time limit,
# returns false to those who look at what is returned; for others there is no
# point in going on.
sub wait_until
{
	my ($what, $condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($condition->())
	{
		if (time > $end)
		{
			explain();
			die "timed out waiting until $what" unless defined wantarray;
			diag("timed out waiting until $what");
			return 0;
		}
		sleep 0.02;
	}
	return 1;
}

# The process ID of a worker, 1 if not said, as soon as it runs.
sub worker_pid
{
	my ($session, $worker) = @_;
	my $pid;

	$worker ||= 1;
	wait_until(
		"worker $worker runs",
		sub {
			$pid = $session->value(
				"SELECT pid FROM dbpool_workers WHERE worker = $worker");
			return $pid ne '';
		});
	return $pid;
}

# Resident memory of a process that is its own: without shared memory, which
# grows by being touched.
sub rss_kb
{
	my ($pid) = @_;
	my (undef, $resident, $shared) = split ' ',
	  slurp_file("/proc/$pid/statm");

	return ($resident - $shared) * 4;
}

# The processes that a process has started.
sub child_pids
{
	my ($parent) = @_;
	my @children;

	# a kernel may be built without that
	if (open my $file, '<', "/proc/$parent/task/$parent/children")
	{
		return split ' ', readline($file) // '';
	}
	foreach my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $file, '<', $stat or next;
		my $line = <$file>;
		close $file;
		push @children, $1
		  if defined $line && $line =~ /^(\d+) \(.*\) \S $parent /;
	}
	return @children;
}

# Stop processes in their tracks, and let them go on. Whatever becomes of the
# test, none stays stopped: the servers could not be ended.
my %suspended;

sub suspend
{
	my (@pids) = @_;

	@suspended{@pids} = ();
	kill 'STOP', @pids;
	return;
}

sub resume
{
	my (@pids) = @_;

	kill 'CONT', @pids;
	delete @suspended{@pids};
	return;
}

END
{
	kill 'CONT', keys %suspended;
}

# A socket that takes connections (the kernel does) and never says a word.
sub silent_listener
{
	my ($backlog) = @_;
	my $socket = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Proto => 'tcp',
		Listen => defined $backlog ? $backlog : 128
	) or die "could not listen: $!";

	return $socket;
}

# Start pgbench with a script at a node's database postgres; options are what it
# takes besides. Returns a handle of IPC::Run, and a reference to what it prints.
sub start_pgbench
{
	my ($node, $script, @options) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	my $out = '';

	append_to_file($path, $script);
	my $run = IPC::Run::start(
		[   'pgbench', '-n', '-f', $path, @options,
			$node->connstr('postgres') ],
		'>&',
		\$out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return ($run, \$out);
}

# Compile a library that a server can be started with as LD_PRELOAD. Returns its
# path, and false when there is no C compiler.
sub preload_library
{
	my ($name, $source) = @_;
	my $path = "$PostgreSQL::Test::Utils::tmp_check/$name";
	my $cc = $ENV{CC} || 'cc';

	append_to_file("$path.c", $source);
	return
	  system("$cc -shared -fPIC -o '$path.so' '$path.c' -ldl") == 0 &&
	  "$path.so";
}

# What is under way at each node, for whoever looks why a test has waited in vain.
# Any of the nodes may hang.
my @explained = (
	[ 'requests', 'SELECT * FROM %s.dbpool_requests' ],
	[ 'connections', 'SELECT * FROM %s.dbpool_connections' ],
	[ 'pools', 'SELECT * FROM %s.dbpool_pools' ],
	[ 'statistics', 'SELECT * FROM %s.dbpool_stat_pools' ],
	[ 'workers', 'SELECT * FROM %s.dbpool_workers' ],
	[   'processes',
		'SELECT pid, pg_blocking_pids(pid) AS blocked_by, application_name, state, wait_event_type, wait_event, '
		  . q{clock_timestamp() - state_change AS since, left(query, 200) AS query FROM pg_stat_activity }
		  . q{WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid}
	]);

sub explain
{
	foreach my $node (@nodes)
	{
		my $name = $node->name;
		my $ask = sub {
			my ($sql) = @_;
			my ($out, $err, $late) = ('', '', 0);

			$node->psql(
				'postgres', $sql,
				stdout => \$out,
				stderr => \$err,
				timeout => 10,
				timed_out => \$late,
				extra_params => ['--expanded']);
			return $late ? ('', 'it does not answer') : ($out, $err);
		};
		my ($schema, $err) = defined $node->{_pid}
		  ? $ask->(q{SELECT 'schema=' || extnamespace::regnamespace FROM pg_extension WHERE extname = 'dbpool'})
		  : ('', 'it does not run');

		$schema = $schema =~ /schema=(.*)/ ? $1 : '';
		diag("node \"$name\": $err") if $err ne '';
		foreach my $view ($err ne '' ? () : @explained)
		{
			my ($what, $sql) = @{$view};

			next if $sql =~ /%s/ && $schema eq '';
			diag("--- node \"$name\", $what");
			diag($_) foreach $ask->($sql =~ s/%s/$schema/r);
		}
		my @log = -e $node->logfile ? split /\n/, slurp_file($node->logfile) : ();
		diag("--- node \"$name\", the end of its log");
		diag(join "\n", @log > 30 ? @log[ -30 .. -1 ] : @log);
	}
	return;
}

# Lines of a local node's log that match are what the test is about: they do not
# count as signs of a fault.
sub announce
{
	push @announced, @_;
	return;
}

# What of a node's views contradicts itself, or limits. What is under way may look
# so for a moment.
sub contradictions
{
	my ($node) = @_;
	my $schema = $node->safe_psql(
		'postgres', q{
		SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'dbpool'
		AND current_setting('shared_preload_libraries') ~ '\mdbpool\M'});

	return '' if $schema eq '';
	return $node->safe_psql(
		'postgres', qq{
		SELECT format('pool "%s" has waiting = %s', pool, waiting)
		FROM $schema.dbpool_pools WHERE waiting < 0
		UNION ALL
		SELECT format('pool "%s" has %s of at most %s connections', pool, size, max_size)
		FROM (SELECT *, connecting + idle + busy + cancelling + resetting + checking + coalesce(leased, 0) AS size
			FROM $schema.dbpool_pools) p WHERE size > max_size
		UNION ALL
		SELECT format('a connection of pool "%s" is %s with nothing under way', pool, state)
		FROM $schema.dbpool_connections WHERE state IN ('busy', 'cancelling') AND in_flight = 0
		AND state_since < clock_timestamp() - interval '5 s'
		UNION ALL
		SELECT format('a request of pool "%s" is %s, and its session %s has gone', pool, state, pid)
		FROM $schema.dbpool_requests
		WHERE NOT EXISTS (SELECT FROM pg_stat_get_activity(pid))
		UNION ALL
		SELECT format('a transaction on pool "%s" is %s, and its session %s has gone', pool, state, pid)
		FROM $schema.dbpool_transactions
		WHERE NOT EXISTS (SELECT FROM pg_stat_get_activity(pid))
		UNION ALL
		SELECT format('a connection of pool "%s" is leased, and there are fewer transactions', pool)
		FROM $schema.dbpool_pools p
		WHERE leased > (SELECT count(*) FROM $schema.dbpool_transactions t
			WHERE t.pool = p.pool AND t.database = p.database)
		UNION ALL
		SELECT format('of %s transactions on pool "%s", %s have ended and %s are open', begun, pool, ended, open)
		FROM (SELECT pool, sum(begun) AS begun, sum(committed + rolled_back + in_doubt) AS ended,
				(SELECT count(*) FROM $schema.dbpool_transactions t
				WHERE t.pool = s.pool AND t.database = s.database AND t.remote_pid IS NOT NULL) AS open
			FROM $schema.dbpool_stat_pools s GROUP BY s.pool, s.database) s
		WHERE begun > ended + open});
}

# What does not hold of a node, a line each. Whatever a test has done to it:
#  - no count is negative, no pool has more connections than it may have;
#  - each transaction that was begun is open, or was counted when it ended;
#  - no connection is busy with nothing, no request belongs to nobody;
#  - no process has crashed, no worker has thrown an error.
sub broken_invariants
{
	my ($node) = @_;
	my $found = '';
	my $log = -e $node->logfile ? slurp_file($node->logfile) : '';

	foreach my $line (split /\n/, $log)
	{
		next
		  unless $line =~
		  /PANIC:|TRAP:|terminated by signal|impossible move|\] dbpool worker (?:ERROR|FATAL):/;
		next if $line =~ /due to administrator command/;
		$found .= "$line\n" unless grep { $line =~ $_ } @announced;
	}
	return $found unless defined $node->{_pid};

	my $contradictions = '';
	my $end = time + 20;
	do
	{
		$contradictions = contradictions($node);
	} while ($contradictions ne '' && time < $end && sleep 0.1);
	return $found . $contradictions;
}

sub check_invariants
{
	is(broken_invariants($_), '',
		'node "' . $_->name . '" has kept what always holds')
	  foreach @locals;
	return;
}

{
	my $done_testing = \&Test::More::done_testing;

	no warnings 'redefine';
	*Test::More::done_testing = sub {
		check_invariants() unless Test::More->builder->parent;
		goto &$done_testing;
	};
}

package DbpoolTest::Session;

use strict;
use warnings;

use IO::Select;
use IPC::Open3 ();
use PostgreSQL::Test::Utils;
use Symbol ();
use Test::More;
use Time::HiRes qw(time);

sub new
{
	my ($class, $node, %params) = @_;
	my $connstr = $node->connstr($params{dbname} || 'postgres');
	my $self = bless { out => '', err => '', n => 0 }, $class;
	my ($in, $out, $err) = map { Symbol::gensym() } 1 .. 3;

	$connstr .= " options='$params{options}'" if $params{options};
	$connstr .= " user='$params{user}'" if $params{user};
	$self->{client_pid} =
	  IPC::Open3::open3($in, $out, $err,
		'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connstr, '-f',
		'-');
	$in->autoflush(1);
	$self->{stdin} = $in;
	$self->{streams} = { out => $out, err => $err };
	$self->{pid} = $self->value('SELECT pg_backend_pid()') unless $params{no_wait};
	return $self;
}

# The process ID of the server process.
sub pid { return $_[0]->{pid}; }

# The process ID of psql.
sub client_pid { return $_[0]->{client_pid}; }

# Read what psql has printed; waits up to so many seconds for something.
sub read_some
{
	my ($self, $seconds) = @_;
	my $select = IO::Select->new(values %{ $self->{streams} });

	return unless $select->count;
	foreach my $ready ($select->can_read($seconds))
	{
		foreach my $name (keys %{ $self->{streams} })
		{
			next if $self->{streams}->{$name} != $ready;
			delete $self->{streams}->{$name}
			  unless
			  sysread($ready, $self->{$name}, 65536, length $self->{$name});
		}
	}
	return;
}

# Send a statement, do not wait for its end.
sub send
{
	my ($self, $sql) = @_;
	local $SIG{PIPE} = 'IGNORE';

	$sql .= ';' unless $sql =~ /;\s*$/ || $sql =~ /^\\/;
	$self->{n}++;
	$self->{started} = time;
	print { $self->{stdin} }
	  "$sql\n\\echo ==done $self->{n}==\n\\warn ==done $self->{n}==\n";
	return $self;
}

# Has all come that the last statement prints, or is psql gone?
sub is_complete
{
	my ($self) = @_;
	my $mark = "==done $self->{n}==\n";

	return !%{ $self->{streams} }
	  || (index($self->{out}, $mark) >= 0 && index($self->{err}, $mark) >= 0);
}

# Has what was sent come to its end?
sub is_done
{
	my ($self) = @_;

	$self->read_some(0);
	return $self->is_complete;
}

# Wait for the end of what was sent. Returns out, err, state, seconds, and lost
# when the session is gone.
sub wait
{
	my ($self) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my %answer;

	until ($self->is_complete)
	{
		if (time > $end)
		{
			DbpoolTest::explain();
			die "session $self->{pid} does not answer: $self->{err}";
		}
		$self->read_some(1);
	}
	$answer{seconds} = time - $self->{started};
	$answer{lost} = !%{ $self->{streams} };
	foreach my $stream ('out', 'err')
	{
		$answer{$stream} = $self->{$stream};
		$answer{$stream} =~ s/==done \d+==\n//g;
		$answer{$stream} =~ s/\n$//;
		$self->{$stream} = '';
	}
	$answer{state} =
	  $answer{err} =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/ ? $1 : '';
	return \%answer;
}

# Wait for the end of what was sent when it is in question whether that comes. If
# it does not, the test of that name fails, and it is cancelled.
sub ends
{
	my ($self, $name) = @_;
	my $ended = DbpoolTest::wait_until($name, sub { return $self->is_done });

	ok($ended, $name);
	CORE::kill('INT', $self->{pid}) unless $ended;
	return $self->wait;
}

# Run a statement.
sub query
{
	my ($self, $sql) = @_;
	return $self->send($sql)->wait;
}

# Run a statement that must succeed, and return what it prints.
sub value
{
	my ($self, $sql) = @_;
	my $answer = $self->query($sql);

	die "statement failed: $sql\n$answer->{err}"
	  if $answer->{lost} || $answer->{err} =~ /ERROR:|FATAL:/;
	return $answer->{out};
}

# Run a query until it prints what is expected, "t" if not said. Returns or
# dies as wait_until does.
sub poll
{
	my ($self, $sql, $expected) = @_;
	my $last = '';

	$expected = 't' unless defined $expected;
	my $found = DbpoolTest::wait_until(
		"\"$sql\" gives \"$expected\"",
		sub {
			$last = $self->value($sql);
			return $last eq $expected;
		});
	die "it gave \"$last\", not \"$expected\": $sql"
	  unless $found || defined wantarray;
	diag("last it gave: $last") unless $found;
	return $found;
}

# Wait until a call on the pool works, when its remote is back: its breaker may still be
# open for a moment.
sub serves
{
	my ($self, $pool) = @_;

	return DbpoolTest::wait_until("pool $pool serves",
		sub { return $self->query("SELECT dbpool_ping('$pool')")->{state} eq '' });
}

# Wait until psql, which has been told to end, has done so.
sub reap
{
	my ($self) = @_;
	local $SIG{PIPE} = 'IGNORE';

	waitpid($self->{client_pid}, 0) if $self->{client_pid};
	$self->{client_pid} = 0;
	# it may not have read all
	close $self->{stdin};
	return;
}

# End psql in good order.
sub quit
{
	my ($self) = @_;

	close $self->{stdin};
	$self->reap;
	return;
}

# End psql by a signal, KILL if not said, as a client that is gone.
sub kill
{
	my ($self, $signal) = @_;

	CORE::kill($signal || 'KILL', $self->{client_pid});
	$self->reap;
	return;
}

# A test that has died leaves no psql behind.
sub DESTROY
{
	my ($self) = @_;
	local $?;

	$self->kill if $self->{client_pid};
	return;
}

1;
