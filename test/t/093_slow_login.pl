
# What a log-in costs is for the remote to say: how often SCRAM hashes the
# password, how much it sends, and whether it ever ends. None of that holds up
# other pools, and all of it ends in time.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Digest::SHA qw(sha256 hmac_sha256);
use DbpoolTest;
use FakeRemote;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# The first message of SCRAM's server, which asks for so many iterations.
sub first_message
{
	my ($client, $iterations) = @_;

	$client->put(authentication(10, "SCRAM-SHA-256\0\0"));
	my (undef, $body) = $client->get;
	my ($nonce) = $body =~ /r=([^,]+)/;
	return authentication(11, "r=${nonce}more,s=" . encode_base64('salt' x 4, '') . ",i=$iterations");
}

# Send bytes in pieces, cut where it hurts.
sub in_pieces
{
	my ($client, $bytes) = @_;

	foreach my $piece (split /(?<=i=214)|(?<=^R)/, $bytes)
	{
		$client->put($piece);
		sleep 0.2;
	}
	return;
}

my %deeds = (
	many => { auth => sub { first_message($_[0], 2147483647) } },
	ten_million => { auth => sub { first_message($_[0], 10_000_000) } },
	blanks => { auth => sub { first_message($_[0], ' +2147483647') } },
	pieces => { auth => sub { in_pieces($_[0], first_message($_[0], 2147483647)); sleep 60; undef } },
	half => { auth => sub { $_[0]->put(substr first_message($_[0], 2147483647), 0, -3); sleep 60; undef } },
	# asks for a password time and again, and reads no answer
	asks => { auth => sub { $_[0]->flood(authentication(5, 'salt')) } },
	asks_and_reads => { auth => sub { my $c = $_[0]; while (1) { $c->put(authentication(5, 'salt')); $c->get } } },
	silent => { startup => sub { sleep 60; undef } },
	dribbles => { startup => sub { my $c = $_[0]; while (1) { $c->put('R'); sleep 0.3 } } },
	old_error => { startup => sub { $_[0]->flood('E' . 'x' x 10_000) } });
my $fake = FakeRemote->start(%deeds);

# A role whose password is hashed so often. The server's own way to say that came
# with PostgreSQL 16, but what it keeps is the same.
sub verifier
{
	my ($password, $iterations) = @_;
	my $salt = 'pepperandsalt123';
	my $u = hmac_sha256("$salt\0\0\0\1", $password);
	my $sum = $u;

	foreach (2 .. $iterations)
	{
		$u = hmac_sha256($u, $password);
		$sum ^= $u;
	}
	my ($stored, $server) = (sha256(hmac_sha256('Client Key', $sum)), hmac_sha256('Server Key', $sum));

	return "SCRAM-SHA-256\$$iterations:" . encode_base64($salt, '') . '$' . encode_base64($stored, '') . ':' . encode_base64($server, '');
}

my $remote = make_remote();
my $local = make_local();
my $verifier = verifier('secret', 600_000);
$remote->safe_psql('postgres', "CREATE ROLE careful LOGIN PASSWORD '$verifier'");
is($remote->safe_psql('postgres', "SELECT rolpassword = '$verifier' FROM pg_authid WHERE rolname = 'careful'"), 't', 'the server has taken the verifier');
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf', "local all careful scram-sha-256\nlocal all all trust\n");
$remote->reload;

create_pool($local, 'good', $remote);
my $watcher = session($local);
my $worker = worker_pid($watcher);

# How long others wait at most while something is done in another session.
sub others_wait
{
	my ($session) = @_;
	my $longest = 0;

	do
	{
		my $answer = $watcher->query("SELECT a FROM dbpool_query('good', 'SELECT 42') AS t(a int)");

		die "another pool does not work: $answer->{err}" if $answer->{out} ne '42';
		$longest = $answer->{seconds} if $answer->{seconds} > $longest;
	} until $session->is_done;
	return $longest;
}

# Those who protect their passwords well can use pools.
create_pool($local, 'careful', $remote, max_size => 4);
$local->safe_psql('postgres', "ALTER USER MAPPING FOR CURRENT_USER SERVER careful OPTIONS (ADD user 'careful', ADD password 'secret')");
$watcher->value("SELECT dbpool_ping('good')");
my @careful = map { session($local) } 1 .. 4;
$_->send("SELECT * FROM dbpool_query('careful', 'SELECT current_user FROM pg_sleep(0.2)') AS t(a text)") foreach @careful;
cmp_ok(others_wait($careful[-1]), '<', 0.6, '600000 iterations: others do not wait for it');
is($_->wait->{out}, 'careful', '600000 iterations: logged in') foreach @careful;

foreach my $name (sort keys %deeds)
{
	create_pool($local, $name, undef,
		$fake->options($name, connect_timeout => '2s', acquire_timeout => '5s'));
	$local->safe_psql('postgres', qq{ALTER USER MAPPING FOR CURRENT_USER SERVER "$name" OPTIONS (ADD user 'someone', ADD password 'secret')});
	my $session = session($local);

	$session->send("SELECT dbpool_ping('$name')");
	my $wait = others_wait($session);
	my $answer = $session->wait;

	cmp_ok($wait, '<', 1, "$name: others do not wait for it");
	is($answer->{state}, '08001', "$name: the session is told");
	cmp_ok($answer->{seconds}, '<', 7, "$name: in time");
	like($answer->{err}, qr/could not open a connection of pool "$name"/, "$name: which pool");
	like($answer->{err}, qr/host "127.0.0.1", port \d+, .* iterations of SCRAM, and dbpool computes 1000000 at most/, "$name: and why")
	  if $name =~ /^(many|ten_million|blanks|pieces)$/;
	is(worker_pid($watcher), $worker, "$name: the worker lives");

	# it can be given up at any time
	$session->value("SET statement_timeout = '300ms'");
	$answer = $session->query("SELECT dbpool_ping('$name')");
	like($answer->{state}, qr/^(57014|08001)$/, "$name: it can be cancelled");
	cmp_ok($answer->{seconds}, '<', 2, "$name: at once");

	# migrations log in by themselves
	$session->value("SELECT dbpool_add_migration('$name', 1, 'one', 'SELECT 1')");
	$answer = $session->query("SELECT * FROM dbpool_migrate('$name')");
	like($answer->{state}, qr/^(57014|08001)$/, "$name: a migration can be cancelled");
	cmp_ok($answer->{seconds}, '<', 2, "$name: at once");
	$session->value('RESET statement_timeout');
	$answer = $session->query("SELECT * FROM dbpool_migrate('$name')");
	is($answer->{state}, '08001', "$name: a migration is told");
	cmp_ok($answer->{seconds}, '<', 4, "$name: in time");
	like($answer->{err}, qr/iterations of SCRAM, and dbpool computes 1000000 at most/, "$name: and why")
	  if $name =~ /^(many|ten_million|blanks|pieces)$/;
}
is($watcher->value('SELECT count(*) FROM dbpool_requests'), '0', 'no request is left');

# Nor does any of it, or a million iterations, hold up the end of the server.
$remote->safe_psql('postgres', "ALTER ROLE careful PASSWORD '" . verifier('secret', 1_000_000) . "'");
my @waiting = map { session($local) } sort(keys %deeds), 'careful';
$local->safe_psql('postgres', "ALTER SERVER \"$_\" OPTIONS (SET connect_timeout '60s')") foreach keys %deeds;
$watcher->value("SELECT dbpool_reset('careful')");
my @names = (sort(keys %deeds), 'careful');
$waiting[$_]->send("SELECT dbpool_ping('$names[$_]')") foreach 0 .. $#names;
$watcher->poll("SELECT count(*) > 0 FROM dbpool_connections WHERE pool = 'careful' AND state = 'connecting'");
my $started = time;
$local->stop('fast');
cmp_ok(time - $started, '<', 10, 'a shutdown is not held up');

$fake->stop;
done_testing();
