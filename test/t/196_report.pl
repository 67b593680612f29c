
# dbpool_report(): the page is well-formed, whole by itself and bounded; it has what is so, no more
# than its caller may see, and of what others have written nothing but text.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $remote = make_remote();
my $local = make_local(conf => "dbpool.history_interval = 1h\n");
my $control = session($local);
my $has_xml = $control->query('SELECT xmlparse(document $$<a/>$$)')->{state} eq '';

# Names that would be markup, or end what they stand in.
my $odd = q{<script>x</script>&"'é</b>};
my $quoted = q{&lt;script&gt;x&lt;/script&gt;&amp;&quot;&#39;&#233;&lt;/b&gt;};

sub literal
{
	my ($text) = @_;

	return q{'} . ($text =~ s/'/''/gr) . q{'};
}

sub report
{
	my ($role) = @_;

	$control->value("SET ROLE $role") if $role;
	my $page = $control->value('SELECT dbpool_report()');
	$control->value('RESET ROLE') if $role;
	return $page;
}

# The elements that a page is made of, and their attributes.
my %elements = map { $_ => 1 } qw(html head meta title style body header h1 h2 h3 p dl dt dd div span code b i br table thead tbody tr th td
  svg path text section footer);
my %attributes = map { $_ => 1 } qw(lang charset name content id class style rowspan colspan viewBox role aria-label d x y);

# What holds for each page.
sub check_page
{
	my ($page, $what) = @_;
	my %found;

	if ($has_xml)
	{
		my $path = PostgreSQL::Test::Utils::tempdir() . '/report.html';
		open my $file, '>', $path or die "could not write $path: $!";
		print {$file} $page;
		close $file;
		is($control->query(qq{SELECT xml_is_well_formed_document(pg_read_file('$path'))})->{out}, 't', "$what: it is well-formed");
	}
	like($page, qr/\A[\n\x20-\x7e]*\z/, "$what: it is ASCII");
	my @tags = $page =~ /<\/?([^\s\/>]*)/g;
	$found{$_} = 1 foreach grep { !$elements{$_} } @tags;
	delete $found{'!DOCTYPE'};
	is(join(' ', sort keys %found), '', "$what: it has no other elements than it is made of");
	my %odd_ones = map { $_ => 1 } grep { !$attributes{$_} } map { s/"[^"]*"/""/gr =~ /([^\s"]+)=/g } $page =~ /<[^>]*>/g;
	is(join(' ', sort keys %odd_ones), '', "$what: nor other attributes");
	unlike($page, qr/http|url\(|src=|href|\@import/i, "$what: it fetches nothing");
	cmp_ok(length $page, '<', 1_000_000, "$what: it is below a megabyte, " . length $page);
	return;
}

# End the present span, so that what was called so far is shown.
sub end_span
{
	my $before = $control->value(q{SELECT coalesce(max(ended_at), '-infinity') FROM dbpool_stat_history});

	foreach my $interval ('100ms', '1h')
	{
		$control->value("ALTER SYSTEM SET dbpool.history_interval = '$interval'");
		$control->value('SELECT pg_reload_conf()');
		$control->poll(qq{SELECT max(ended_at) > '$before' FROM dbpool_stat_history});
	}
	return;
}

# Without what has names of its own.
sub without_style
{
	my ($page) = @_;

	return $page =~ s{<style>.*?</style>| class="[^"]*"}{}gsr;
}

sub section
{
	my ($page, $id) = @_;

	return $page =~ /<h2 id="$id">(.*?)(?=<h2|<footer)/s ? $1 : undef;
}

# --- nothing yet --------------------------------------------------------------------------------

my $page = report();
check_page($page, 'a server without pools');
is(join(' ', $page =~ /<h2 id="(\w+)">/g), 'alerts pools history endpoints statements', 'it has its sections');
like(section($page, 'alerts'), qr/Nothing\./, 'nothing is wrong');
like($page, qr{<dt>Connections</dt><dd>0 <span class="m">of 256<}, 'no connection is open');
like($page, qr/>Database postgres of local, as /, 'where it is');

# --- what is so -----------------------------------------------------------------------------------

create_pool($local, 'good', $remote, max_size => 3);
$control->value(sprintf q{SELECT dbpool_create_pool(%s, %s)}, literal($odd),
	literal('host=' . $remote->host . ' port=' . $remote->port . ' dbname=postgres'));
$control->value(sprintf q{SELECT dbpool_create_pool('no_such', %s)},
	literal('host=' . $remote->host . ' port=' . $remote->port . q{ dbname='<i onclick="x">&\\'é'}));
$control->value(query_sleeps('good', 0.2)) foreach 1 .. 3;
$control->value(q{SELECT dbpool_exec('good', 'SELECT 1') FROM generate_series(1, 4)});
$control->query(q{SELECT dbpool_query('good', 'SELECT 1/0')});
$control->query(sprintf q{SELECT dbpool_exec(%s, 'SELECT 1 AS "</code><img src=x onerror=alert(1)>&amp;' || chr(8238) || chr(65534) || chr(133) || chr(7) || 'ü"')}, literal($odd));
$control->query(q{SELECT dbpool_ping('no_such')});
$control->poll(q{SELECT count(*) FROM dbpool_alerts WHERE alert = 'unreachable'}, '1');
end_span();
$page = report();
check_page($page =~ s/img src=x//r, 'odd names');
unlike($page, qr/<img|<script|<i onclick|&amp;amp;amp;/, 'what would be markup is not');
{
	my $alerts = section($page, 'alerts');

	like($alerts, qr{<div class="alert critical"><h3><span class="bad">critical</span> unreachable: no_such }, 'an alert');
	like($alerts, qr{database &quot;&lt;i onclick=&quot;x&quot;&gt;&amp;&#39;&#233;&quot; does not exist}, 'what the remote says');
	like($alerts, qr{<p class="m">See to the remote, or to the options}, 'and what to do');

	my $pools = section($page, 'pools');
	like($pools, qr{<b>good</b> <span class="m">postgres &#183; \w+</span></td><td class="good">active</td><td class="n">0</td><td class="n">1</td><td class="n">3</td><td class="n">0</td>},
		'a pool, its connections');
	like($pools, qr{<b>\Q$quoted\E</b>}, 'one with an odd name');

	my $plots = section($page, 'history');
	like($plots, qr{<h3>good .*?</h3><p class="m">8 calls, <span class="bad">1 of them failed</span>}, 'its calls');
	my ($of_good) = $plots =~ m{<h3>good .*?(<svg.*?)</section>}s;
	is(scalar(() = $of_good =~ /<svg /g), 3, 'three plots');
	foreach my $line (qw(p50 p95 p99))
	{
		like($of_good, qr{<path class="line $line" d="M[\d.]+ [\d.]+H[\d.]+(?:[VHM][\d. ]+)*"/>}, "a line for $line");
	}
	like($of_good, qr{<path class="area errors" d="M[^"]+Z"/>}, 'an area for errors');
	like($of_good, qr{<text[^>]*>100 ms</text>.*<text[^>]*>1 s</text>}s, 'a scale on which 200 ms are');
	unlike($of_good, qr/nan|inf/i, 'numbers everywhere');

	like(section($page, 'endpoints'), qr{<b>[^<]+</b> <span class="m">@{[$remote->port]}</span></td><td>primary</td><td class="good">closed}, 'an endpoint');

	my $statements = section($page, 'statements');
	like($statements, qr{<tbody><tr><td class="q"><code>SELECT pg_sleep\(\?\)</code><br/><b>good</b>.*?</td><td class="n">0\.[6-9]</td>},
		'the statement that takes most of the time is first');
	my ($row) = $statements =~ m{<code>SELECT pg_sleep\(\?\)</code>(.*?)</tr>}s;
	my @cells = $row =~ m{<td class="n">([^<]*)</td>}g;
	is(scalar(@cells), 13, 'its numbers');
	is("@cells[2,3]", '3 0', 'calls, errors');
	my ($sum, $mean) = (0, $cells[4]);
	$sum += $_ foreach @cells[8 .. 12];
	cmp_ok(abs($sum - $mean), '<=', 0.03, "the parts of the mean are all of it: $sum of $mean");
	my $width = 0;
	$width += $1 while $row =~ /style="width:([\d.]+)%"/g;
	cmp_ok(abs($width - 100), '<=', 0.5, 'as is the bar');
	like($statements, qr{<code>SELECT \? AS &quot;&lt;/code&gt;&lt;img src=x onerror=alert\(1\)&gt;&amp;amp;&#65533;&#65533;&#65533;&#65533;&#252;&quot;</code>},
		'a text that is none of the best is but a text');
}

# --- who sees what ----------------------------------------------------------------------------------

$control->value(q{CREATE ROLE nobody; CREATE ROLE "<i>'&é" IN ROLE pg_monitor; CREATE ROLE owner; CREATE ROLE reader});
$control->value('GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO owner; ALTER SERVER good OWNER TO owner');
$control->value('GRANT USAGE ON FOREIGN SERVER good TO reader; CREATE USER MAPPING FOR reader SERVER good OPTIONS (user ' . literal($control->value('SELECT current_user')) . q{, password_required 'false')});
$control->value(q{SET ROLE reader; SELECT dbpool_exec('good', 'SELECT ''mine''::text')});
$control->value('RESET ROLE');
end_span();
{
	my $nobody = report('nobody');
	check_page($nobody, 'nobody');
	unlike(without_style($nobody), qr/good|script|no_such|pg_sleep/, 'who may see no pool sees none');
	like(section($nobody, 'pools'), qr/There is none/, 'and is told so');
	like($nobody, qr/as nobody may see it/, 'who it is');

	my $owner = report('owner');
	like($owner, qr/SELECT pg_sleep/, 'the owner of a server sees what it was given');
	unlike($owner, qr/no_such|script/, 'but nothing of others');

	my $reader = report('reader');
	like(section($reader, 'statements'), qr{<code>&lt;insufficient privilege&gt;</code>}, 'who uses a pool sees no texts');
	unlike($reader, qr/pg_sleep|no_such|script/, 'and nothing else');
	like(section($reader, 'history'), qr{<h3>good <span class="m">postgres &#183; reader</span></h3><p class="m">1 calls, 0 of them}, 'but his own calls');

	my $monitor = report(q{"<i>'&é"});
	like($monitor, qr/as &lt;i&gt;&#39;&amp;&#233; may see it/, 'a role with an odd name');
	like($monitor, qr/SELECT pg_sleep/, 'who may read all statistics sees them all');
}

# --- where names are looked up -----------------------------------------------------------------------

$control->value(
	q{CREATE SCHEMA trap;
	CREATE FUNCTION trap.fooled() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'fooled'; END $$;
	CREATE FUNCTION trap.to_char(timestamptz, text) RETURNS text LANGUAGE sql AS 'SELECT trap.fooled()';
	CREATE FUNCTION trap.count() RETURNS bigint LANGUAGE sql AS 'SELECT length(trap.fooled())';
	CREATE FUNCTION trap.times(float8, float8) RETURNS float8 LANGUAGE sql AS 'SELECT length(trap.fooled())';
	CREATE OPERATOR trap.* (FUNCTION = trap.times, LEFTARG = float8, RIGHTARG = float8);
	CREATE OPERATOR trap.+ (FUNCTION = trap.times, LEFTARG = float8, RIGHTARG = float8);
	CREATE OPERATOR trap./ (FUNCTION = trap.times, LEFTARG = float8, RIGHTARG = float8);
	CREATE TYPE trap.float8 AS (x int)});
is($control->query('SET search_path = trap, pg_catalog; SELECT public.dbpool_report()')->{err}, '', 'only in the catalog');
$control->value('RESET search_path');
$control->value(q{SET timezone = '<+03>-3'});
like(report(), qr/Times are of time zone &lt;\+03&gt;-3, UTC\+03:00\./, 'times are the time zone of the session, which is told');
$control->value('RESET timezone');

# --- how much of it ---------------------------------------------------------------------------------------

foreach my $i (1 .. 60)
{
	create_pool($local, sprintf('%s%02d', 'ж' x 30, $i), $i <= 26 ? $remote : undef, max_size => 1);
	$control->value(sprintf q{SELECT dbpool_exec('%s%02d', 'SELECT 1 AS "%s", ''x'' AS b%d' || repeat(', 1 AS "日"', 300))}, 'ж' x 30, $i, 'ю' x 20, $i) if $i <= 26;
}
end_span();
$control->query(sprintf q{SELECT dbpool_stat_statements_reset(%s)}, literal($_)) foreach $odd;
$page = report();
check_page($page, 'a large one');
is(scalar(() = section($page, 'pools') =~ /<tr><td/g), 50, 'no more than fifty pools');
like(section($page, 'pools'), qr/These are the first 50; <code>dbpool_pools/, 'which is told');
is(scalar(() = section($page, 'history') =~ /<section>/g), 24, 'no more than 24 plots');
like(section($page, 'history'), qr/These are the first 24/, 'which is told');
is(scalar(() = section($page, 'statements') =~ /<tr><td/g), 25, 'no more than 25 statements');
{
	my ($text) = section($page, 'statements') =~ m{<code>(SELECT \? AS &quot;&#1102;.*?)</code>};
	is(length($text =~ s/&#?\w+;/x/gr), 301, 'texts are cut after 300 characters');
	like($text, qr/&#8230;\z/, 'which can be seen');
}

# --- another encoding ----------------------------------------------------------------------------------------

$local->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0; CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0});
foreach my $database (qw(latin bytes))
{
	$local->safe_psql($database, q{CREATE EXTENSION dbpool; SELECT dbpool_create_pool('gr' || chr(252) || 'n', 'host=/nonexistent')});
	my $there = session($local, dbname => $database);
	my $its = $there->value('SELECT dbpool_report()');
	check_page($its, $database);
	like($its, $database eq 'latin' ? qr{<b>gr&#252;n</b>} : qr{<b>gr&#65533;n</b>}, "$database: a name with an umlaut");
}

done_testing();
