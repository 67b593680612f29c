
# Chaos: sessions that call pools all the time, and what each of their calls was told, how long it
# took, and what is there of it. They are driven as those of the Bank are.
#
#   Chaos::open_ledgers($remote, $other);
#   my $chaos = Chaos->start(nodes => { l => $local }, seed => 1, sessions => 64,
#       writes => ['p', 'q'], reads => ['p', 'r'], timeout => 3);
#   $chaos->go;
#   ...                            # disturb it
#   $chaos->pause;
#   my @wrong = $chaos->audit(p => $remote, q => $other);
#   $chaos->stop;
#
# A call reads what never changes, or writes rows under a number that no other has: one row, or
# several that are there together or not at all. Of those that write, "outcome":
#   ok        acknowledged: all rows are there, once
#   refused   an error that says so: none is there
#   unknown   it may have run, as the error says (08007), or it was cancelled, or the session
#             was lost: all are there once, or none
#
# With "odd", that part of the calls is of others, which leave nothing in the ledger.
#
# A session's statement_timeout is "timeout" seconds; a call may take that and "slack" more, a
# transaction of several statements that for each.

package Chaos;

use strict;
use warnings;

use parent -norequire, 'Bank';

use Bank;
use DbpoolTest;
use List::Util qw(max sum);
use Time::HiRes qw(time);

my $schema = q{
	CREATE ROLE app LOGIN PASSWORD 'right';
	CREATE TABLE ledger (id bigint, row int, pad text);
	CREATE INDEX ON ledger (id);
	CREATE TABLE fixed AS SELECT a FROM generate_series(1, 1000) AS a;
	GRANT ALL ON ledger, fixed TO app;
};

sub open_ledgers
{
	my (@nodes) = @_;

	$_->safe_psql('postgres', $schema) foreach @nodes;
	return;
}

sub any { return $_[ rand @_ ]; }

# Of each kind: a text; how many rows it writes, how many statements it has, or what it prints.
my %kinds = (
	read => sub {
		my ($pool, $id) = @_;
		my $a = $id % 1000;
		return ("SELECT a FROM dbpool_query('$pool', 'SELECT \$1::int * 2', $a) AS t(a int)", prints => $a * 2);
	},
	read_rows => sub {
		my ($pool) = @_;
		return ("SELECT count(*), sum(a) FROM dbpool_query('$pool', 'SELECT a FROM fixed') AS t(a int)", prints => '1000|500500');
	},
	read_prepared => sub {
		my ($pool, $id) = @_;
		my $a = 1 + $id % 1000;
		return ("SELECT a FROM dbpool_query('$pool', 'SELECT a FROM fixed WHERE a = \$1', $a) AS t(a int)", prints => $a);
	},
	insert => sub {
		my ($pool, $id) = @_;
		return ("SELECT dbpool_exec('$pool', 'INSERT INTO ledger VALUES (\$1, 1, repeat(''x'', 1000))', $id)", rows => 1, prints => 1);
	},
	returning => sub {
		my ($pool, $id) = @_;
		return ("SELECT a FROM dbpool_query('$pool', 'INSERT INTO ledger VALUES ($id, 1) RETURNING id') AS t(a bigint)",
			rows => 1, prints => $id);
	},
	bulk => sub {
		my ($pool, $id) = @_;
		return ("SELECT dbpool_bulk_insert('$pool', 'ledger', \$q\$SELECT $id, n, repeat('x', 500) FROM generate_series(1, 5) n\$q\$)",
			rows => 5, prints => 5);
	},
	batch => sub {
		my ($pool, $id) = @_;
		my $items = join ', ', map { "'INSERT INTO ledger VALUES ($id, $_)'" } 1 .. 3;
		return ("SELECT count(*) FROM dbpool_batch('$pool', ARRAY[$items])", rows => 3, prints => 3);
	},
	transaction => sub {
		my ($pool, $id) = @_;
		my $calls = join ";\n", map { "SELECT dbpool_exec('$pool', 'INSERT INTO ledger VALUES ($id, $_)')" } 1 .. 2;
		return ("BEGIN;\nSET LOCAL dbpool.transaction = bound;\n$calls;\n\\warn ==commit\nCOMMIT",
			rows => 2, statements => 5, prints => "1\n1");
	});
my @reads = ('read', 'read_rows', 'read_prepared');

# What leaves something behind, fails, is large, or given up: that changes nothing, and is let fail.
my %odd = (
	text_of_its_own => sub { my ($pool, $id) = @_; return ("SELECT a FROM dbpool_query('$pool', 'SELECT $id') AS t(a bigint)", prints => $id); },
	error => sub { my ($pool) = @_; return "SELECT dbpool_query('$pool', 'SELECT 1 / 0')"; },
	cancelled => sub { my ($pool) = @_; return "SET statement_timeout = '100ms'; SELECT dbpool_query('$pool', 'SELECT pg_sleep(1)'); RESET statement_timeout"; },
	large => sub { my ($pool) = @_; return ("SELECT length(a) FROM dbpool_query('$pool', 'SELECT repeat(''x'', 1000000)') AS t(a text)", prints => 1000000); },
	many_rows => sub { my ($pool) = @_; return ("SELECT count(*) FROM dbpool_query('$pool', 'SELECT generate_series(1, 20000)') AS t(a int)", prints => 20000); },
	leaves_something => sub { my ($pool) = @_; return ("SELECT dbpool_exec('$pool', 'SET enable_seqscan = off; CREATE TEMP TABLE left_behind (a int)')", prints => 0); },
	json => sub { my ($pool) = @_; return ("SELECT count(*) FROM dbpool_query_json('$pool', 'SELECT a FROM fixed LIMIT 50')", prints => 50); });
my @writes = (('insert') x 3, ('returning') x 2, 'bulk', 'batch', 'transaction');

# --- in the driver ------------------------------------------------------------------------

sub make
{
	my ($self, $id) = @_;
	my $writes = rand() < 0.5;
	my $pool = any(@{ $writes ? $self->{writes} : $self->{reads} });
	my $kind = rand() < $self->{odd} ? any(sort keys %odd) : $writes ? any(@writes) : any(@reads);
	my ($text, %call) = ($kinds{$kind} // $odd{$kind})->($pool, $id);

	return { id => $id, pool => $pool, kind => $kind, text => $text, rows => 0, statements => 1, %call };
}

sub state_of { my ($err) = @_; return $err =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}):/ ? $1 : ''; }

sub outcome_of
{
	my ($call, $answer) = @_;
	my $state = state_of($answer->{err});

	# what was not committed is not there
	return 'refused' if $call->{kind} eq 'transaction' && $answer->{err} !~ /==commit/;
	return 'refused' if $call->{kind} eq 'transaction' && $answer->{err} =~ /ERROR:.*==commit/s;
	return 'unknown' if $answer->{lost} || $state eq '08007' || $state eq '57014';
	# others have been asked to commit as well
	return $state eq '' ? 'ok' : 'refused';
}

sub note
{
	my ($self, $call, $answer) = @_;
	my $outcome = outcome_of($call, $answer);
	my $out = $answer->{out} // '';
	my $wrong = $outcome eq 'ok' && $out ne ($call->{prints} // '') ? $out : '';
	my $line = join "\t", $call->{id}, $call->{pool}, $call->{kind}, $outcome, state_of($answer->{err}) || '-', $call->{rows},
	  sprintf('%.3f', $answer->{seconds} // 0), $self->{timeout} * $call->{statements}, $wrong, $answer->{err};

	print { $self->{journal} } $line =~ s/\n/ /gr, "\n";
	return;
}

# --- in the test ----------------------------------------------------------------------------

sub start
{
	my ($class, %params) = @_;

	return $class->SUPER::start(user => 'chaos', slack => 1, patience => 60, longest => -1e9, odd => 0, %params);
}

# What is wrong with the calls since the last audit. For each pool that is written to, the server
# that has its ledger.
sub audit
{
	my ($self, %servers) = @_;
	my (%found, @wrong);

	foreach my $pool (keys %servers)
	{
		foreach (split /\n/, $servers{$pool}->safe_psql('postgres',
				"SELECT id, row, count(*) FROM ledger WHERE id > $self->{audited} GROUP BY id, row"))
		{
			my ($id, $row, $n) = split /\|/;
			$found{$id}->{$row} += $n;
		}
	}
	$self->{journal}->clearerr;
	while (my $line = readline $self->{journal})
	{
		chomp $line;
		my ($id, $pool, $kind, $outcome, $state, $rows, $seconds, $timeout, $wrong) = split /\t/, $line;
		my $there = delete $found{$id} // {};
		my $n = sum(0, values %{$there});
		my $why =
		    $wrong ne '' ? 'the answer is wrong'
		  : max(0, values %{$there}) > 1 ? 'it has run more than once'
		  : $n != 0 && $n != $rows ? 'a part of it is there'
		  : $outcome eq 'ok' && $n != $rows ? 'it was acknowledged, and is missing'
		  : $outcome eq 'refused' && $n != 0 ? 'it was refused, and is there'
		  : $seconds > $timeout + $self->{slack} ? 'it has hung'
		  : '';

		push @wrong, "$why: $line" if $why ne '';
		$self->{longest} = max($self->{longest}, $seconds - $timeout);
		$self->count($outcome);
		$self->count("$outcome $state") if $outcome ne 'ok';
		$self->count($kind) if $outcome eq 'ok';
		$self->{audited} = $id if $id > $self->{audited};
	}
	return (@wrong, map { "nobody knows call $_" } sort keys %found);
}

1;
