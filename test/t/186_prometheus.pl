
# A real Prometheus scrapes dbpool_metrics() by what examples/monitoring has, its alert rule
# fires, and each query of the dashboard is answered; so do the exporters that ask by SQL.
#
# PROMETHEUS names the folder with prometheus, promtool, prometheus-postgres-exporter and
# prometheus-sql-exporter, /usr/bin by default; what is not there is skipped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $bin = $ENV{PROMETHEUS} || '/usr/bin';
plan skip_all => "no prometheus in $bin" unless -x "$bin/prometheus" && -x "$bin/promtool";

my $examples = "$FindBin::RealBin/../../examples/monitoring";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $remote = make_remote();
my $local = make_local();
my $http = HTTP::Tiny->new(timeout => 10);
my @programs;

# Start a program that goes on; its output is kept for the log.
sub launch
{
	my (@command) = @_;
	my $log = "$PostgreSQL::Test::Utils::log_path/" . scalar(@programs) . '.program.log';

	push @programs, IPC::Run::start(\@command, '<', \undef, '>&', $log);
	return;
}

END
{
	my $status = $?;
	$_->kill_kill foreach @programs;
	$? = $status;
}

sub get
{
	my ($url) = @_;
	my $answer = $http->get($url);

	return $answer->{success} ? $answer->{content} : undef;
}

create_pool($local, 'w', $remote, max_size => 1, acquire_timeout => '200ms');
my $control = session($local);
my $holder = session($local);
$control->query('CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
$holder->send(query_sleeps('w', 600));
$control->poll(q{SELECT busy FROM dbpool_pools WHERE pool = 'w'}, '1');
is($control->query(query_sleeps('w', 0))->{state}, '53300', 'a call waits in vain');

# --- Prometheus --------------------------------------------------------------------------

my ($served, $asked) = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
{
	local @ENV{qw(PGHOST PGPORT PGUSER PGDATABASE)} = ($local->host, $local->port, 'monitor', 'postgres');
	launch("$examples/serve_metrics", "127.0.0.1:$served");
}
ok(wait_until('metrics are served', sub { (get("http://127.0.0.1:$served/metrics") // '') =~ /^dbpool_pool_timeouts_total\{.*pool="w".*\} 1$/m }),
	'metrics are served to a monitoring role');
my $metrics = get("http://127.0.0.1:$served/");
my $said = '';
ok(IPC::Run::run([ "$bin/promtool", 'check', 'metrics' ], '<', \$metrics, '>&', \$said), 'promtool check metrics') or diag($said);
ok(IPC::Run::run([ "$bin/promtool", 'check', 'rules', "$examples/alerts.yml" ], '>&', \$said), 'promtool check rules') or diag($said);

my $config = slurp_file("$examples/prometheus.yml");
$config =~ s/127\.0\.0\.1:9187/127.0.0.1:$served/;
$config =~ s/15s/1s/g;
$config =~ s{- alerts\.yml}{- $examples/alerts.yml};
append_to_file("$dir/prometheus.yml", $config);
launch("$bin/prometheus", "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data",
	"--web.listen-address=127.0.0.1:$asked");

my $api = "http://127.0.0.1:$asked/api/v1";
my $firing;
ok(wait_until('the rule fires', sub {
		my $answer = get("$api/alerts") or return 0;
		($firing) = grep { $_->{state} eq 'firing' && $_->{labels}{alertname} eq 'DbpoolCritical' && ($_->{labels}{pool} // '') eq 'w' }
		  @{ decode_json($answer)->{data}{alerts} };
		return defined $firing }), 'an alert rule fires');
is($firing->{annotations}{summary}, 'dbpool: timeouts of pool w', 'and says what is wrong');

# --- the dashboard -------------------------------------------------------------------------

my $dashboard = decode_json(slurp_file("$examples/dashboard.json"));
foreach my $panel (@{ $dashboard->{panels} })
{
	foreach my $target (@{ $panel->{targets} })
	{
		my $query = $target->{expr};

		$query =~ s/\$__rate_interval/1m/g;
		$query =~ s/\$(database|pool)/.*/g;
		unlike($query, qr/\$/, "$panel->{title}: no unknown variable");
		my $url = "$api/query?query=" . $query =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger;
		my $n;
		ok(wait_until("$query is answered", sub {
				my $answer = get($url) or return 0;
				$answer = decode_json($answer);
				$n = @{ $answer->{data}{result} };
				return $answer->{status} eq 'success' && $n > 0 }), "$panel->{title}: $target->{refId}");
	}
}
my %families = map { $_ => 1 } $metrics =~ /^(\w+)[ {]/mg;
foreach my $text ("$examples/alerts.yml", "$examples/dashboard.json")
{
	my @unknown = grep { !$families{$_} } slurp_file($text) =~ /\b(dbpool_(?:pool|worker|requests|connections|pools)\w*)/g;
	is("@unknown", '', "$text names what there is");
}

# --- exporters that ask by SQL ---------------------------------------------------------------

sub exporter
{
	my ($program, $variables, @options) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	return note("no $program") unless -x "$bin/$program";
	local @ENV{ keys %{$variables} } = values %{$variables};
	launch("$bin/$program", "--web.listen-address=127.0.0.1:$port", @options);
	ok(wait_until("$program is asked", sub { (get("http://127.0.0.1:$port/metrics") // '') =~ /^\w+\{[^}]*\balert="timeouts"[^}]*\} 1$/m }),
		"$program tells of the alert");
	return;
}

my $source = 'postgres://monitor@:' . $local->port . '/postgres?sslmode=disable&host=' . $local->host;
exporter('prometheus-postgres-exporter', { DATA_SOURCE_NAME => $source },
	"--extend.query-path=$examples/postgres_exporter.yml", '--disable-default-metrics', '--disable-settings-metrics');
exporter('prometheus-sql-exporter', { POSTGRES_URL => $source, CONFIG => "$dir/sql_exporter.yml" },
	"-config.file=$dir/sql_exporter.yml")
  if do { my $jobs = slurp_file("$examples/sql_exporter.yml"); $jobs =~ s/'\{\{POSTGRES_URL\}\}'/'$source'/; $jobs =~ s/15s/1s/; append_to_file("$dir/sql_exporter.yml", $jobs); 1 };

$control->value("SELECT pg_cancel_backend($holder->{pid})");
$holder->wait;
done_testing();
