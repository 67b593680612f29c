# Plan: what is measured: peers, workloads, goals. All of it is data.
#
# A peer is a way from a local session to the remote database:
#   script    second half of its scripts' names, as in read_dblink.sql
#   at        whom pgbench talks to: local (if not said) or remote
#   protocol  pgbench's -M: prepared (if not said) or simple
#   conn      what dblink connects to: remote, or the pooler before it
#   pool      options of dbpool's pool, which is made anew for each measuring
#   second    has another pool, remote2, at another remote, likewise
#   sample    the share of its latencies that is logged, if not the usual one
#   needs     what has to be there; it is left out, aloud, when that is not
#
# A workload has
#   kind      rate      pgbench for some seconds; transactions per second
#             bulk      one statement, or a few, of many rows; rows per second
#             sessions  idle sessions; connections and memory
#             open      calls that come by a schedule, whoever has been answered:
#                       test/tools/arrivals.c; those answered in time per second.
#                       A peer's `load` is how many come, in multiples of what the
#                       peer without one, which comes first, could do; 100 ms to live
#   scripts   first halves of names, with weights. Latencies are of the first.
#   clients   list of numbers of clients
#   peers     names, or hashes with `name`, `as` (the peer meant) and whatever is
#             different about it here
#   quick     what is different with --quick
#   bases     the two peers that the table's ratios refer to
#   via       delay: the way to the remote takes half a millisecond
#   before    SQL on the remote before each measuring
#   goals     peer (dbpool if not said), metric (rate if not said), at how many
#             clients; `of` another peer it is a ratio; at_least, at_most or below

package Plan;

use strict;
use warnings;

our %PEERS = (
	# pgbench on the remote itself.
	direct => {
		label => 'direct, simple protocol',
		at => 'remote',
		protocol => 'simple',
		script => 'direct'
	},
	direct_prepared => {
		label => 'direct, prepared',
		at => 'remote',
		script => 'direct'
	},
	# A session that is not to leave the local server.
	local => { label => 'local SELECT 1', script => '1' },
	dblink => {
		label => 'dblink, persistent',
		script => 'dblink',
		conn => 'remote',
		needs => ['dblink']
	},
	dblink_per_call => {
		label => 'dblink, connection per call',
		sample => 1,
		script => 'dblink_call',
		conn => 'remote',
		needs => ['dblink']
	},
	# Sessions keep a connection to pgbouncer, which pools by transaction and has
	# as many connections as dbpool may have.
	dblink_pgbouncer => {
		label => 'dblink through pgbouncer',
		script => 'dblink',
		conn => 'pooler',
		needs => [ 'dblink', 'pgbouncer' ]
	},
	postgres_fdw => {
		label => 'postgres_fdw',
		script => 'fdw',
		needs => ['postgres_fdw']
	},
	plproxy => {
		label => 'PL/Proxy',
		script => 'plproxy',
		needs => ['plproxy']
	},
	dbpool => { label => 'dbpool', script => 'dbpool', pool => {} },
	# psql does without a server between: COPY out, or out and in.
	psql_copy => { label => 'psql, COPY', script => 'copy', shell => 1 },);

my @ALL = qw(direct direct_prepared dblink dblink_per_call dblink_pgbouncer
  postgres_fdw plproxy dbpool);

# The same pool without what several sessions share a connection by.
my $unshared = {
	name => 'dbpool_off',
	as => 'dbpool',
	label => 'dbpool, multiplex off',
	pool => { multiplex => 'off' }
};

# And without asking the remote for what becomes of writes.
my $unasked = {
	name => 'dbpool_unasked',
	as => 'dbpool',
	label => 'dbpool, resolve_outcome off',
	pool => { resolve_outcome => 'off' }
};

# Pools of a fixed size, for the one that finds its own.
sub fixed
{
	my (@sizes) = @_;

	return map {
		{
			name => "fixed_$_",
			as => 'dbpool',
			label => "dbpool, $_ connection" . ($_ > 1 ? "s" : ""),
			pool => { min_size => $_, max_size => $_ }
		}
	} @sizes;
}

my @W8 = (
	kind => 'rate',
	clients => [64],
	pool => { max_size => 20 },
	bases => ['dbpool'],
	peers => [ 'dbpool', fixed(1, 2, 4, 8, 12, 20) ],
	quick => { peers => [ 'dbpool', fixed(2, 8, 20) ] },
	goals => [ { of => qr/^fixed_/, at_least => 0.9, clients => 64 } ],);

# A thousand rows in one call, and in a call for each.
my @W10 = (
	kind => 'bulk',
	scripts => ['many'],
	clients => [1],
	rows => 1000,
	repeat => 3,
	pool => { max_size => 4 },
	before => 'TRUNCATE events',
	bases => [ 'dblink', 'dbpool_loop' ],
	peers => [
		{ name => 'dblink', label => 'dblink, 1,000 calls' },
		{
			name => 'dbpool_loop',
			as => 'dbpool',
			label => 'dbpool_exec, 1,000 calls',
			script => 'dbpool_loop'
		},
		{ name => 'dbpool', label => 'dbpool_batch' },
		{
			name => 'dbpool_rows',
			as => 'dbpool',
			label => 'dbpool_exec_batch',
			script => 'dbpool_rows'
		}
	]);

# How many times as fast one call is.
sub one_call
{
	my ($times) = @_;

	return map { { of => $_, at_least => $times, clients => 1 } }
	  qw(dbpool_loop dblink);
}

our @WORKLOADS = (
	{
		name => 'W1',
		title => 'point reads by primary key',
		kind => 'rate',
		scripts => ['read'],
		clients => [ 1, 8, 32, 64, 128 ],
		pool => { max_size => 8 },
		peers => [@ALL],
		quick => {
			clients => [ 8, 64 ],
			peers => [qw(direct dblink dblink_pgbouncer plproxy dbpool)]
		},
		goals => [
			{ of => 'dblink', at_least => 1.0, clients => 1 },
			{ of => 'dblink', at_least => 1.2, clients => 8 },
			{ of => 'dblink', at_least => 1.8, clients => 32 },
			{ of => 'dblink', at_least => 2.0, clients => 64 },
			{ of => 'dblink', at_least => 2.8, clients => 128 },
			{ of => 'direct', at_least => 0.9, clients => 64 },
			{ of => 'direct', at_least => 1.0, clients => 128 },
			{ of => 'plproxy', at_least => 1.0, clients => 8 },
			{
				of => 'dblink',
				metric => 'p99',
				at_most => 0.35,
				clients => 64
			},
		],
	},
	{
		name => 'W2',
		title => 'a new local session for each point read',
		kind => 'rate',
		reconnect => 1,
		scripts => ['read'],
		clients => [8],
		pool => { max_size => 8 },
		bases => [ 'dblink', 'local' ],
		peers => [
			{ name => 'local', scripts => ['select'] },
			# There is nothing to keep a connection in.
			{
				name => 'dblink',
				as => 'dblink_per_call',
				label => 'dblink'
			},
			{
				name => 'dblink_pgbouncer',
				script => 'dblink_call'
			},
			'postgres_fdw',
			'plproxy',
			'dbpool'
		],
		quick => {
			peers => [
				{ name => 'local', scripts => ['select'] },
				{
					name => 'dblink',
					as => 'dblink_per_call',
					label => 'dblink'
				},
				'dbpool'
			]
		},
		goals => [
			{ of => 'local', at_least => 0.97, clients => 8 },
			{ of => 'dblink', at_least => 1.7, clients => 8 },
		],
	},
	{
		name => 'W3a',
		title => 'one result of %s rows of 100 bytes',
		kind => 'bulk',
		scripts => ['large'],
		clients => [1],
		times => 1,
		repeat => 3,
		bases => [ 'dblink', 'psql_copy' ],
		peers => [qw(psql_copy dblink postgres_fdw plproxy dbpool)],
		goals => [
			{ of => 'dblink', at_least => 1.2, clients => 1 },
			{ metric => 'worker_growth_mb', below => 32, clients => 1 },
		],
	},
	{
		name => 'W3b',
		title => 'one result of %s rows of 100 bytes',
		kind => 'bulk',
		scripts => ['large'],
		clients => [1],
		times => 10,
		repeat => 1,
		bases => [ 'dblink', 'psql_copy' ],
		peers => [qw(psql_copy dblink dbpool)],
		quick => { skip => 1 },
		goals => [
			{ of => 'dblink', at_least => 1.2, clients => 1 },
			{ metric => 'worker_growth_mb', below => 32, clients => 1 },
		],
	},
	{
		name => 'W4',
		title => '%s rows of 100 bytes into a remote table',
		kind => 'bulk',
		scripts => ['bulk'],
		clients => [1],
		times => 1,
		repeat => 1,
		before => 'TRUNCATE bulk',
		bases => [ 'postgres_fdw', 'psql_copy' ],
		peers => [
			'psql_copy',
			{
				name => 'postgres_fdw',
				label => 'postgres_fdw, batch_size 1000'
			},
			{ name => 'dbpool', needs => ['dbpool_bulk_insert'] }
		],
		goals => [
			{ of => 'postgres_fdw', at_least => 3.0, clients => 1 },
			{ of => 'psql_copy', at_least => 0.8, clients => 1 },
		],
	},
	{
		name => 'W5',
		title =>
		  'point reads, 1 % of them take 50 ms; latencies of the others',
		kind => 'rate',
		scripts => [ 'read@99', 'slow@1' ],
		clients => [64],
		pool => { max_size => 8 },
		bases => [ 'dblink', 'dbpool_off' ],
		peers => [
			'dblink',
			$unshared,
			{
				name => 'dbpool_quiet',
				as => 'dbpool',
				label => 'dbpool, without the slow ones',
				scripts => ['read']
			},
			'dbpool'
		],
		goals => [
			{
				of => 'dbpool_quiet',
				metric => 'p99',
				at_most => 2.0,
				clients => 64
			},
			{ of => 'dbpool_off', at_least => 1.5, clients => 64 },
		],
	},
	{
		name => 'W6',
		title => 'point reads, the remote 1 ms away (there and back)',
		kind => 'rate',
		via => 'delay',
		scripts => ['read'],
		clients => [64],
		pool => { max_size => 4 },
		bases => [ 'dblink', 'dbpool_off' ],
		peers => [ 'direct', 'dblink', $unshared, 'dbpool' ],
		quick => { peers => [ $unshared, 'dbpool' ] },
		goals => [ { of => 'dbpool_off', at_least => 6.0, clients => 64 }, ],
	},
	{
		name => 'W7',
		title => 'sessions that asked once and sit idle',
		kind => 'sessions',
		scripts => ['read'],
		clients => [300],
		pool => { max_size => 8 },
		peers => [
			{ name => 'local', scripts => ['select'] }, 'dblink',
			'dblink_pgbouncer', 'postgres_fdw',
			'plproxy', 'dbpool'
		],
		quick => {
			peers => [
				{ name => 'local', scripts => ['select'] }, 'dblink',
				'dbpool'
			]
		},
		goals => [ { metric => 'peak', at_most => 8, clients => 300 } ],
	},
	{
		name => 'W8a',
		title => 'point reads, pools of a fixed size and one left to itself',
		scripts => ['read'],
		@W8,
	},
	{
		name => 'W8b',
		title =>
		  '5 ms statements, pools of a fixed size and one left to itself',
		scripts => ['sleep'],
		@W8,
	},
	{
		name => 'W9',
		title => 'single-row INSERT ... RETURNING, the remote with fsync on',
		kind => 'rate',
		scripts => ['insert'],
		clients => [64],
		pool => { max_size => 16 },
		before => 'TRUNCATE events',
		peers =>
		  [qw(direct dblink dblink_pgbouncer postgres_fdw plproxy), $unasked, 'dbpool'],
		quick => { peers => [ qw(direct dblink), $unasked, 'dbpool' ] },
		goals => [
			{ of => 'dblink', at_least => 1.5, clients => 64 },
			{ of => 'dbpool_unasked', at_least => 0.97, clients => 64 }
		],
	},
	{
		name => 'W10a',
		title => '%s single-row INSERTs',
		goals => [ one_call(8) ],
		@W10,
	},
	{
		name => 'W10b',
		title => '%s single-row INSERTs, the remote 1 ms away',
		via => 'delay',
		goals => [ one_call(100) ],
		@W10,
	},
	{
		name => 'W11',
		title => 'a transaction of 3 writes, the remote with fsync on',
		kind => 'rate',
		scripts => ['transfer'],
		clients => [8],
		pool => { max_size => 10, transaction => 'bound' },
		before => 'TRUNCATE events',
		peers => [
			qw(dblink postgres_fdw dbpool),
			{
				name => 'both_bound',
				as => 'dbpool',
				label => 'dbpool, two remotes',
				script => 'dbpool_both',
				second => 1
			},
			{
				name => 'two_phase',
				as => 'dbpool',
				label => 'dbpool, two remotes, two_phase',
				script => 'dbpool_both',
				second => 1,
				pool => { transaction => 'two_phase' }
			},
		],
		bases => [ 'dblink', 'both_bound' ],
		goals => [
			{ of => 'dblink', at_least => 1, clients => 8 },
			{
				peer => 'two_phase',
				of => 'both_bound',
				at_least => 0.6,
				clients => 8
			}
		],
	},
	{
		name => 'W12',
		title =>
		  '10 ms statements with 100 ms to live, three times what the remote can do',
		kind => 'open',
		sql => q{SELECT dbpool_query('remote', 'SELECT pg_sleep(0.01)')},
		clients => [160],
		pool => { max_size => 4, min_size => 4 },
		bases => ['closed'],
		peers => [
			{ name => 'closed', as => 'dbpool', label => 'dbpool, as much as it can do' },
			{ name => 'calm', as => 'dbpool', label => 'dbpool, half as much', load => 0.5 },
			{ name => 'queue', as => 'dbpool', label => 'dbpool, three times as much', load => 3 },
			{
				name => 'limit',
				as => 'dbpool',
				label => 'dbpool, likewise, max_waiting 8',
				load => 3,
				pool => { max_waiting => 8 }
			},
			{
				name => 'dbpool',
				label => 'dbpool, likewise, shed on',
				load => 3,
				pool => { shed => 'on' }
			},
		],
		goals => [
			{ of => 'closed', at_least => 0.9, clients => 160 },
			{ of => 'calm', metric => 'p99', at_most => 2, clients => 160 },
		],
	},);

# The workloads that are asked for, each with its peers worked out. Options:
# quick, only, peers, clients (lists of names and numbers, if given), wide_rows.
sub selection
{
	my (%options) = @_;
	my @selected;

	foreach my $workload (@WORKLOADS)
	{
		my %w = (pool => {}, bases => [ 'dblink', 'direct' ], %$workload);

		%w = (%w, %{ $w{quick} || {} }) if $options{quick};
		next if $w{skip};
		next
		  if $options{only} && !grep { $w{name} =~ /^\Q$_\E[a-z]?$/i }
		  @{ $options{only} };
		$w{clients} = $options{clients}
		  if $options{clients} && @{ $workload->{clients} } > 1;
		$w{rows} = $options{wide_rows} * $w{times} if $w{times};
		$w{title} = sprintf $w{title}, number($w{rows}) if $w{rows};
		$w{peers} = [ map { work_out($_, \%w) } @{ $w{peers} } ];
		$w{peers} = [ grep { wanted($_, $options{peers}) } @{ $w{peers} } ]
		  if $options{peers};
		push @selected, \%w if @{ $w{peers} };
	}
	return @selected;
}

# A peer as it is in this workload: what the plan says of it there comes before
# what it says of the workload, and that before what it says of the peer.
sub work_out
{
	my ($entry, $workload) = @_;

	$entry = { name => $entry } unless ref $entry;
	my $as = $PEERS{ $entry->{as} || $entry->{name} };
	my %peer = (
		at => 'local',
		protocol => 'prepared',
		needs => [],
		scripts => $workload->{scripts},
		%$as, %$entry);

	$peer{pool} = { %{ $workload->{pool} }, %{ $entry->{pool} || {} } }
	  if $as->{pool};
	return \%peer;
}

sub wanted
{
	my ($peer, $names) = @_;

	return grep { $_ eq $peer->{name} || $_ eq ($peer->{as} || '') } @$names;
}

# 1234567 as 1,234,567.
sub number
{
	my ($n) = @_;

	$n = sprintf '%.0f', $n;
	1 while $n =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return $n;
}

1;
