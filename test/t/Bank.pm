
# Bank: accounts on the local server and two remotes, sessions that transfer between them
# in all modes of transactions, and what has to be there of it.
#
#   Bank::open_accounts(l => $local, a => $remote, b => $other);
#   my $bank = Bank->start(nodes => {...}, seed => 1, sessions => 16);
#   $bank->go;
#   ...                        # disturb it
#   $bank->pause;              # waits until all sessions rest
#   my @wrong = $bank->audit;  # when nothing is under way at any server
#   $bank->stop;
#
# The sessions are driven by a process of its own, so that they go on while a server is being
# restarted. For each transfer it writes a line to a journal, which audit() compares with the
# ledgers of the servers. A ledger has a row per leg, and the accounts are to be what the
# rows add up to. Each mode has its own accounts.
#
# What is known of a transfer, "outcome":
#   ok        its end was acknowledged
#   failed    it has surely left nothing: an error, or the session was lost, before COMMIT
#             was sent; it was rolled back
#   refused   its COMMIT has failed
#   unknown   the session was lost after COMMIT had been sent
#
# and what that means, "all" being all its legs on all servers:
#               ok    failed  refused                          unknown
#   two_phase   all   none    none                             all or none
#   bound       all   none    not here; perhaps at remotes     all here are at all remotes
#
# With one remote and nothing else, what is refused is nowhere in both modes, unless the error
# says that this is not known (08007, or a cancel). If others have been visited, of which one has
# failed to end, the one that has written may have committed nevertheless.
#
# In autonomous mode each leg is by itself: acknowledged, it is there once; refused, not at
# all; "may or may not" (08007, a cancel, a lost session) once or not at all.

package Bank;

use strict;
use warnings;

use DbpoolTest;
use IO::Handle;
use PostgreSQL::Test::Utils;
use POSIX ();
use Time::HiRes qw(sleep time);

my $accounts = 60;
my $balance = 1000;
my @modes = ('two_phase', 'bound', 'autonomous');

my $schema = qq{
	CREATE ROLE bank LOGIN;
	ALTER ROLE bank SET lock_timeout = '2s';
	ALTER ROLE bank SET log_min_messages = 'panic';
	CREATE TABLE account (mode text, id int, balance bigint NOT NULL, PRIMARY KEY (mode, id));
	INSERT INTO account SELECT mode, id, $balance
	FROM unnest('{two_phase, bound, autonomous}'::text[]) AS mode, generate_series(1, $accounts) AS id;
	CREATE TABLE ledger (id bigint, leg int, mode text, account int, amount bigint);
	CREATE INDEX ON ledger (id);
	CREATE FUNCTION leg(bigint, int, text, int, bigint) RETURNS void LANGUAGE sql AS \$\$
		INSERT INTO ledger VALUES (\$1, \$2, \$3, \$4, \$5);
		UPDATE account SET balance = balance + \$5 WHERE mode = \$3 AND id = \$4 \$\$;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE 'account 0'; END \$\$;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.account = 0) EXECUTE FUNCTION refuse();
	GRANT ALL ON account, ledger TO bank;
};

sub open_accounts
{
	my (%nodes) = @_;

	$_->safe_psql('postgres', $schema) foreach values %nodes;
	return;
}

# --- transfers ----------------------------------------------------------------------
#
# What follows, up to the audit, is run by the driver.

sub any { return $_[ rand @_ ]; }
sub chance { my ($p) = @_; return rand() < $p; }

# The statement of a leg at its own server.
sub leg_there
{
	my ($transfer, $leg, $secretly) = @_;
	my @values = ($transfer->{id}, $leg->{number}, "'$transfer->{mode}'", $leg->{account}, $leg->{amount});

	return 'SELECT leg(' . join(', ', @values) . ')' if $secretly;
	return 'WITH l AS (INSERT INTO ledger VALUES (' . join(', ', @values) . ')) '
	  . "UPDATE account SET balance = balance + $leg->{amount} WHERE mode = '$transfer->{mode}' AND id = $leg->{account}";
}

# The statement that the session runs for it, here or through a pool.
sub leg_here
{
	my ($transfer, $leg) = @_;
	my $there = leg_there($transfer, $leg, chance(0.4));
	my $how = rand;

	return $there if $leg->{server} eq 'l';
	return "SELECT count(*) FROM dbpool_batch('$leg->{server}', ARRAY[\$b\$$there\$b\$])"
	  if $how < 0.15 && $transfer->{mode} ne 'autonomous';
	return "SELECT dbpool_exec('$leg->{server}', 'SELECT leg(\$1, \$2, \$3, \$4, \$5)', "
	  . "$transfer->{id}::bigint, $leg->{number}, '$transfer->{mode}'::text, $leg->{account}, $leg->{amount}::bigint)"
	  if $how < 0.5;
	return "SELECT dbpool_exec('$leg->{server}', \$b\$$there\$b\$)";
}

sub make_leg
{
	my ($transfer, $server, $amount) = @_;
	my $leg = {
		server => $server,
		number => scalar @{ $transfer->{legs} },
		account => 1 + int rand $accounts,
		amount => $amount,
		expect => '-' };

	push @{ $transfer->{legs} }, $leg;
	return $leg;
}

# From where to where: often over all three servers, sometimes within one.
sub make_legs
{
	my ($transfer) = @_;
	my @servers = @{ any(
		[ 'l', 'a', 'b' ], [ 'l', 'a', 'b' ], [ 'b', 'a', 'l' ], [ 'a', 'b' ], [ 'a', 'b' ],
		[ 'l', 'a' ], [ 'l', 'b' ], [ 'a', 'l', 'a' ], [ 'b', 'b' ]) };
	my $left = 0;

	while (my $server = shift @servers)
	{
		my $amount = @servers ? int(rand 200) - 100 : -$left;

		make_leg($transfer, $server, $amount);
		$left += $amount;
	}
	return;
}

# A leg that is undone, in a savepoint, before the transfer goes on.
sub undone
{
	my ($transfer) = @_;
	my $leg = make_leg($transfer, any('l', 'a', 'b'), 7);

	$leg->{expect} = 'n';
	return ("\\warn ==undo\nSAVEPOINT s", leg_here($transfer, $leg), "ROLLBACK TO s;\n\\warn ==undone\nSELECT 1");
}

# The text of a bound transfer, or of one in two phases.
sub text_of_transaction
{
	my ($transfer) = @_;
	my @legs = map { leg_here($transfer, $_) } @{ $transfer->{legs} };
	my $at = int rand @legs + 1;

	if (chance(0.2))
	{
		# a single statement, of which the end is the end of all
		my $body = join ' ', map { s/^SELECT /PERFORM /r . ';' } @legs;

		$transfer->{single} = 1;
		return ("SET dbpool.transaction = $transfer->{mode};\n\\warn ==commit\n"
			  . "DO \$do\$ BEGIN $body END \$do\$;\nRESET dbpool.transaction;\n");
	}
	splice @legs, $at, 0, undone($transfer) if chance(0.2);
	unshift @legs, 'BEGIN' . (chance(0.1) ? ' ISOLATION LEVEL REPEATABLE READ' : ''),
	  "SET LOCAL dbpool.transaction = $transfer->{mode}";
	push @legs, 'SET LOCAL synchronous_commit = off'
	  if $transfer->{mode} eq 'two_phase' && chance(0.5);
	$transfer->{rolls_back} = 1 if chance(0.03);
	return join('', map { "$_;\n" } @legs)
	  . ($transfer->{rolls_back} ? "ROLLBACK;\n" : "\\warn ==commit\nCOMMIT;\n");
}

# The text of one of which each leg is by itself.
sub text_of_legs
{
	my ($transfer) = @_;

	return join '', map { "\\warn ==leg $_->{number}\n" . leg_here($transfer, $_) . ";\n" } @{ $transfer->{legs} };
}

sub make_transfer
{
	my ($id, $modes) = @_;
	my $transfer = { id => $id, mode => any(@{$modes}), legs => [] };

	make_legs($transfer);
	any(@{ $transfer->{legs} })->{account} = 0 if chance(0.04);
	$transfer->{text} =
	  $transfer->{mode} eq 'autonomous' ? text_of_legs($transfer) : text_of_transaction($transfer);
	return $transfer;
}

# What a session is to do next: a hash of which the driver needs "text", and "vanishes" if the
# session is to be lost at some time.
sub make
{
	my ($self, $id) = @_;
	my $transfer = make_transfer($id, $self->{modes});

	$transfer->{vanishes} = time + rand 0.05 if chance(0.002);
	return $transfer;
}

# --- what has become of them ------------------------------------------------------------

sub state_of { my ($err) = @_; return $err =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}):/ ? $1 : ''; }

# The session has been lost there, which psql itself notices with the next statement, if there
# is one.
my $is_cut = qr/^psql:\S* (?:FATAL|PANIC|server closed the connection|no connection to the server)/m;

sub judge_legs
{
	my ($transfer, $answer) = @_;
	my (undef, %said) = split /==leg (\d+)\n/, "$answer->{err}\n", -1;
	my @tried = sort { $a <=> $b } keys %said;
	my $last = (grep { $said{$_} =~ $is_cut } @tried)[0] // $tried[-1] // -1;

	foreach my $leg (@{ $transfer->{legs} })
	{
		my $state = state_of($said{ $leg->{number} } // '');

		$leg->{expect} =
		    $leg->{number} > $last ? ($transfer->{vanished} ? '?' : 'n')
		  : $leg->{number} == $last && $answer->{lost} ? '?'
		  : $state eq '08007' || ($state eq '57014' && $leg->{server} ne 'l') ? '?'
		  : $state ne '' ? 'n'
		  : 'y';
	}
	return ('legs', state_of($answer->{err}));
}

sub judge
{
	my ($transfer, $answer) = @_;
	my ($before, $after) = split /==commit\n/, "$answer->{err}\n", 2;

	return judge_legs($transfer, $answer) if $transfer->{mode} eq 'autonomous';
	# errors are undone with the rest
	$before =~ s/==undo\n.*?==undone\n//s;
	return ('unknown', 'gone') if $transfer->{vanished} && !$transfer->{rolls_back};
	return ('failed', state_of($before)) if !defined $after || $before =~ /ERROR:/ || $before =~ $is_cut;
	# a session may be ended when it has committed
	return ('unknown', state_of($after)) if $answer->{lost};
	return ('refused', state_of($after)) if state_of($after) ne '';
	return ('ok', '');
}

# --- the driver -------------------------------------------------------------------------

sub open_session
{
	my ($self, $s) = @_;

	$s->{psql} = DbpoolTest::Session->new($self->{nodes}->{l}, user => $self->{user}, no_wait => 1);
	$s->{psql}->send('SELECT 1');
	$s->{busy} = 1;
	$s->{since} = time;
	return;
}

sub close_session
{
	my ($s) = @_;

	$s->{psql}->kill;
	delete $s->{psql};
	$s->{retry} = time + 0.1;
	return;
}

sub note
{
	my ($self, $transfer, $answer) = @_;
	my ($outcome, $state) = judge($transfer, $answer);
	my $legs = join ' ', map { "$_->{server}:$_->{number}:$_->{account}:$_->{amount}:$_->{expect}" } @{ $transfer->{legs} };
	my $says = $answer->{err} =~ s/\s+/ /gr;

	print { $self->{journal} } join("\t",
		$transfer->{id}, $transfer->{mode}, $outcome, $state || '-', $legs,
		($transfer->{single} ? 'single' : '') . ($answer->{lost} ? ' lost' : ''), $says), "\n";
	return;
}

# A session's turn: is it through with something, is there more to do?
sub serve
{
	my ($self, $s) = @_;

	if (!$s->{psql})
	{
		$self->open_session($s) if time >= ($s->{retry} // 0) && !$self->{stopping};
		return;
	}
	if ($s->{busy})
	{
		my $transfer = $s->{transfer};

		$transfer->{vanished} = 1 if $transfer && time > ($transfer->{vanishes} // 1e12);
		if (!$s->{psql}->is_done && !($transfer && $transfer->{vanished}))
		{
			die "a session does not answer: $s->{psql}->{err}\n" . ($transfer ? $transfer->{text} : '') . "\n"
			  if time - $s->{since} > $self->{patience};
			return;
		}
		my $answer = $transfer && $transfer->{vanished}
		  ? { err => $s->{psql}->{err}, lost => 1 } : $s->{psql}->wait;

		$answer->{lost} = 1 if $answer->{err} =~ $is_cut;
		$self->note($transfer, $answer) if $transfer;
		$s->{busy} = 0;
		delete $s->{transfer};
		return close_session($s) if $answer->{lost};
		# nothing is gained by thousands of failures
		$s->{retry} = time + ($answer->{err} =~ /ERROR:/ ? 0.05 : $self->{rest});
	}
	return if $self->{pausing} || $s->{number} > $self->{active} || time < ($s->{retry} // 0);
	$s->{transfer} = $self->make(++$self->{id});
	$s->{psql}->send($s->{transfer}->{text});
	$s->{busy} = 1;
	$s->{since} = time;
	return;
}

sub obey
{
	my ($self, $command) = @_;

	$self->{pausing} = $command !~ /^go (\d+)/;
	$self->{active} = $1 if !$self->{pausing};
	$self->{stopping} = $command eq 'stop';
	$self->{asked} = $command;
	return;
}

# When all rest, say so.
sub answer
{
	my ($self, $sessions) = @_;

	return if !$self->{asked} || ($self->{pausing} && grep { $_->{busy} } @{$sessions});
	$self->{journal}->flush;
	$self->{out}->print("$self->{asked} $self->{id}\n");
	delete $self->{asked};
	return;
}

sub drive
{
	my ($self, $in) = @_;
	my @sessions = map { { number => $_ } } 1 .. $self->{sessions};

	$self->{pausing} = 1;
	while (1)
	{
		my $select = IO::Select->new($in, map { $_->{psql} ? values %{ $_->{psql}->{streams} } : () } @sessions);

		foreach my $ready ($select->can_read(0.02))
		{
			next if $ready != $in;
			my $n = sysread $in, my $commands, 100;
			return if !$n;
			$self->obey($_) foreach split /\n/, $commands;
		}
		$self->serve($_) foreach @sessions;
		$self->answer(\@sessions);
		return if $self->{stopping} && !$self->{asked};
	}
}

# --- for the test ---------------------------------------------------------------------------

# Parameters: nodes, seed, sessions, modes (of the transfers, by weight), user, patience, rest.
sub start
{
	my ($class, %params) = @_;
	my $self = bless {
		modes => [ ('two_phase') x 3, ('bound') x 2, 'autonomous' ],
		user => 'bank',
		# seconds that a transfer may take: it waits for locks and connections, and for what
		# is being restarted
		patience => 90,
		# seconds that a session rests after a transfer
		rest => 0,
		id => 0,
		audited => 0,
		counts => {},
		%params }, $class;
	my $journal = PostgreSQL::Test::Utils::tempdir() . '/journal';

	pipe my $command, $self->{to} or die "pipe: $!";
	pipe $self->{from}, $self->{out} or die "pipe: $!";
	$self->{to}->autoflush(1);
	$self->{out}->autoflush(1);
	open $self->{journal}, '>', $journal or die "could not open $journal: $!";
	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		close delete $self->{to};
		srand $self->{seed};
		eval { $self->drive($command); 1 } or $self->{out}->print("FAIL $@");
		POSIX::_exit(0);
	}
	close $command;
	close $self->{out};
	open $self->{journal}, '<', $journal or die "could not open $journal: $!";
	return $self;
}

# Tell the sessions something, and wait until they obey.
sub ask
{
	my ($self, $command) = @_;
	local $SIG{PIPE} = 'IGNORE';

	print { $self->{to} } "$command\n";
	return;
}

sub wait
{
	my ($self, $command) = @_;
	my $line = readline $self->{from};
	return if defined $line && $line =~ /^$command/;
	my @rest = readline $self->{from};
	die join '', 'the sessions have gone: ', $line // '', @rest;
}

sub tell { my ($self, $command) = @_; $self->ask($command); return $self->wait($command); }

# So many of the sessions; all if not said.
sub go
{
	my ($self, $n) = @_;

	$self->{active} = $n // $self->{active} // $self->{sessions};
	return $self->tell("go $self->{active}");
}

sub pause { return $_[0]->tell('pause'); }

sub stop
{
	my ($self) = @_;

	$self->tell('stop');
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

# Whatever becomes of the test, they end with it.
sub DESTROY
{
	my ($self) = @_;
	local $?;

	close $self->{to} if $self->{to};
	waitpid $self->{pid}, 0 if $self->{pid};
	return;
}

sub count { my ($self, $what) = @_; $self->{counts}->{$what}++; return; }

# --- the audit ----------------------------------------------------------------------------

# How often each leg of the transfers since the last audit is there.
sub ledgers
{
	my ($self, $after) = @_;
	my %found;

	foreach my $server (keys %{ $self->{nodes} })
	{
		my $rows = $self->{nodes}->{$server}->safe_psql('postgres',
			"SELECT id, leg, count(*) FROM ledger WHERE id > $after GROUP BY id, leg");

		foreach (split /\n/, $rows)
		{
			my ($id, $leg, $n) = split /\|/;
			$found{$id}->{"$server:$leg"} = $n;
		}
	}
	return \%found;
}

# Why that is not what it may be; or nothing.
sub why_wrong
{
	my ($self, $mode, $outcome, $state, $legs, $found) = @_;
	my (%all, %here, %visited);

	foreach (@{$legs})
	{
		my ($server, $number, undef, undef, $expect) = split /:/;
		$visited{$server} = 1;
		my $n = delete $found->{"$server:$number"} // 0;

		return "leg $number is there $n times" if $n > 1;
		return "leg $number should not be there" if $n && $expect eq 'n';
		return "leg $number should be there" if !$n && $expect eq 'y';
		$self->count("$mode, leg " . ($expect eq 'y' ? 'acknowledged' : $expect eq 'n' ? 'refused'
			: $n ? 'unknown and there' : 'unknown and not there')) if $mode eq 'autonomous';
		next if $expect ne '-';
		$all{$server}++;
		$here{$server} += $n;
	}
	return 'there are legs of nobody' if %{$found};
	return if $mode eq 'autonomous';
	foreach my $server (keys %all)
	{
		return "a part is at \"$server\"" if $here{$server} && $here{$server} != $all{$server};
	}
	my $servers = keys %all;
	my $there = grep { $_ } values %here;
	my $remotes = grep { $_ ne 'l' } keys %all;
	my $remotes_there = grep { $_ ne 'l' && $here{$_} } keys %all;

	return 'it was acknowledged, and is missing' if $outcome eq 'ok' && $there != $servers;
	return 'it had failed, and is there' if $outcome eq 'failed' && $there;
	my $alone = $remotes == 1 && keys %visited == 1;
	my $unsure = $outcome eq 'unknown' || ($alone && ($state eq '08007' || $state eq '57014'))
	  || ($servers == 1 && keys %visited > 1);
	my $where = $there == 0 ? 'nowhere' : $there == $servers ? 'everywhere' : 'in part';
	$self->count("$mode, " . ($outcome eq 'refused' && $unsure ? 'unknown' : $outcome)
		  . ($outcome eq 'ok' || $outcome eq 'failed' ? '' : " and $where"));
	if ($mode eq 'two_phase')
	{
		return 'it was refused, and is there' if $outcome eq 'refused' && $there && !$unsure;
		return 'it is in part' if $where eq 'in part';
		return;
	}
	return 'it is here, and not at all remotes' if $here{l} && $remotes_there != $remotes;
	return 'it was refused, and is here' if $outcome eq 'refused' && $here{l};
	return 'it was refused, and is there'
	  if $outcome eq 'refused' && $alone && $there && !$unsure;
	return;
}

# What does not add up: accounts and ledgers, and all that is in two phases.
sub wrong_sums
{
	my ($self) = @_;
	my ($sum, @wrong);

	foreach my $server (sort keys %{ $self->{nodes} })
	{
		my ($off, $here) = split /\|/, $self->{nodes}->{$server}->safe_psql('postgres', qq{
			SELECT count(*) FILTER (WHERE balance <> $balance + coalesce(amount, 0)),
				sum(balance) FILTER (WHERE mode = 'two_phase')
			FROM account LEFT JOIN (SELECT mode, account AS id, sum(amount) AS amount FROM ledger GROUP BY 1, 2) l
				USING (mode, id)});
		push @wrong, "$off accounts at \"$server\" are not what its ledger says" if $off;
		$sum += $here;
	}
	push @wrong, "there is $sum in accounts of two_phase" if $sum != 3 * $accounts * $balance;
	return @wrong;
}

# What is wrong with the transfers since the last audit; with all there have been if $again.
sub audit
{
	my ($self, $again) = @_;
	my $found = $self->ledgers($again ? 0 : $self->{audited});
	my @wrong;

	if ($again)
	{
		seek $self->{journal}, 0, 0;
		$self->{counts} = {};
	}
	$self->{journal}->clearerr;
	while (my $line = readline $self->{journal})
	{
		chomp $line;
		my ($id, $mode, $outcome, $state, $legs) = split /\t/, $line;
		my $why = $self->why_wrong($mode, $outcome, $state, [ split / /, $legs ], delete $found->{$id} // {});

		push @wrong, "$why: $line" if $why;
		$self->{audited} = $id if $id > $self->{audited};
	}
	push @wrong, map { "nobody knows transfer $_" } sort keys %{$found};
	return (@wrong, $self->wrong_sums);
}

1;
