# dbpool_load_migrations: directories in each naming convention, and what is
# refused; who may; what pg_dump carries.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $local = make_local();
my $folder = PostgreSQL::Test::Utils::tempdir;
my $format = 'dbpool';
my $n = 0;

$local->safe_psql(
	'postgres', q{
	CREATE ROLE owner LOGIN;
	CREATE ROLE granted LOGIN;
	CREATE ROLE reader LOGIN IN ROLE pg_read_server_files;
	CREATE FUNCTION done(pool name, version bigint, direction text) RETURNS void LANGUAGE sql
	  AS $$ INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid)
	        VALUES ($1, $2, $3, 'single', 'done', now(), current_user, pg_backend_pid()) $$;
});
my $admin = session($local);

# A directory with these files.
sub directory
{
	my (%files) = @_;
	my $path = "$folder/" . ++$n;

	mkdir $path or die "could not make $path: $!";
	foreach my $name (keys %files)
	{
		open my $file, '>:raw', "$path/$name" or die "could not write $name: $!";
		print $file $files{$name};
		close $file;
	}
	return $path;
}

# A pool that has no migrations yet.
sub new_pool
{
	my $pool = 'p' . ++$n;

	$admin->value(
		"SET client_min_messages = warning; CREATE SERVER $pool FOREIGN DATA WRAPPER dbpool OPTIONS (history_format '$format'); RESET client_min_messages"
	);
	return $pool;
}

# A further argument of the function.
my $placeholders = '';

sub load
{
	my ($pool, $path, $session) = @_;
	return ($session || $admin)
	  ->query("SELECT * FROM dbpool_load_migrations('$pool', '$path'$placeholders)");
}

sub rows
{
	my ($pool, $columns) = @_;

	return $admin->value(
		"SELECT $columns FROM (SELECT * FROM dbpool_migrations WHERE pool = '$pool' ORDER BY version) m");
}

# Loads the files into a pool of their own; what is to come of it, as rows of
# version, name, file, status.
sub loads
{
	my ($what, $expected, %files) = @_;
	my $pool = new_pool();
	my $answer = load($pool, directory(%files));

	is($answer->{out}, $expected, $what);
	is($answer->{err}, '', "$what: without a word");
	return $pool;
}

# The same, for what is loaded with a word.
sub warns
{
	my ($what, $expected, $pattern, %files) = @_;
	my $answer = load(new_pool(), directory(%files));

	is($answer->{out}, $expected, $what);
	like($answer->{err}, $pattern, "$what: with a word");
	return;
}

# The same, for what is refused: its SQLSTATE, and what its error says.
sub refuses
{
	my ($what, $state, $pattern, %files) = @_;
	my $pool = new_pool();
	my $answer = load($pool, directory(%files));

	is($answer->{state}, $state, "$what: code");
	like($answer->{err}, $pattern, $what);
	is(rows($pool, 'count(*)'), 0, "$what: nothing is loaded");
	return;
}

# The statements of both directions of the one file 1_x.sql, with their lines, and
# whether each is a transaction.
sub has_sections
{
	my ($what, $text, $up, $down, %transaction) = @_;
	my $pool = new_pool();
	my $answer = load($pool, directory('1_x.sql' => $text));
	my @found;

	is($answer->{err}, '', "$what: without a word");
	foreach my $column ('up_sql', 'down_sql')
	{
		push @found,
		  $admin->value(
			qq{SELECT string_agg(s.line || ':' || s.statement, ' ' ORDER BY n) FROM dbpool_migrations m,
			   dbpool_migration_statements($column) WITH ORDINALITY s(line, "column", kind, statement, n) WHERE m.pool = '$pool'}
		  );
		push @found,
		  $admin->value(
			qq{SELECT coalesce($column, '') ~* '^(\\s|--[^\\n]*\\n)*-- no-transaction\\s*\\n' FROM dbpool_migrations WHERE pool = '$pool'}
		  );
	}
	$found[2] =~ s/\d+://g if defined $down && $down !~ /:/;
	is("$found[0]|$found[2]", "$up|" . (defined $down ? $down : ''), $what);
	is( "$found[1]|$found[3]",
		join('|', map { exists $transaction{$_} ? 't' : 'f' } ('up', 'down')),
		"$what: transactions");
	is(rows($pool, 'down_sql IS NULL'), defined $down ? 'f' : 't', "$what: way back");
	return;
}

# --- refinery and Flyway ---------------------------------------------------------------

$format = 'refinery';
my $pool = loads(
	'refinery',
	"1|initial|V1__initial.sql|added\n"
	  . "2|add_users_to_it|V02__add_users_to_it.sql|added\n"
	  . "3|not strict|U3__not strict.sql|added\n"
	  . "20240101120000|x__y.z|V20240101120000__x__y.z.sql|added",
	'V1__initial.sql' => "CREATE TABLE a ();\n",
	'V02__add_users_to_it.sql' => "CREATE TABLE b ();\n",
	'U3__not strict.sql' => "CREATE TABLE c ();\n",
	'V20240101120000__x__y.z.sql' => "CREATE TABLE d ();\n",
	'README.md' => 'read me',
	'mod.rs' => 'fn x() {}',
	'V4__lock.sql~' => 'x',
	'.V5__hidden.sql' => 'x',
	'V6__x.sql.bak' => 'x');
is( rows($pool, 'out_of_order, transaction, down_sql IS NULL'),
	"f|t|t\nf|t|t\nt|t|t\nf|t|t",
	'refinery: U may come out of order');
is( $admin->value(
		"SELECT dbpool_migration_checksum('refinery', version, name, up_sql) FROM dbpool_migrations WHERE pool = '$pool' AND version = 1"
	),
	$admin->value(
		"SELECT dbpool_migration_checksum('refinery', 1, 'initial', E'CREATE TABLE a ();\\n')"
	),
	'refinery: name and text are what its checksum is of');
foreach my $other ('dbpool', 'sqlx')
{
	$format = $other;
	refuses(
		"a U without V, history $other",
		'42602', qr/file "U3__drop\.sql".*There is no file V.*history_format to "refinery"/s,
		'V1__a.sql' => 'SELECT 1',
		'U3__drop.sql' => 'DROP TABLE important');
	refuses("a U alone, history $other",
		'42602', qr/file "U3__drop\.sql".*There is no file V/s,
		'U3__drop.sql' => 'DROP TABLE important');
}
$format = 'dbpool';

$pool = loads(
	'Flyway',
	"1|initial|V1__initial.sql|added\n2|second|V2__second.sql|added",
	'V1__initial.sql' => 'CREATE TABLE a ()',
	'U1__back_to_nothing.sql' => 'DROP TABLE a',
	'V2__second.sql' => 'CREATE TABLE b ()');
is( rows($pool, 'name, down_sql, out_of_order'),
	"initial|DROP TABLE a|f\nsecond||f",
	'Flyway: U beside V is the way back');

refuses(
	'a U without V beside others that undo',
	'42602', qr/file "U3__drop\.sql".*There is no file V/s,
	'V1__a.sql' => 'SELECT 1',
	'U1__a.sql' => 'SELECT 1',
	'U3__drop.sql' => 'DROP TABLE important');
$pool = loads(
	'Flyway: versions of several parts, and repeatable migrations',
	"1|a|V1__a.sql|added\n1.2|b|V1_2__b.sql|added\n1.9|c|V1.9__c.sql|added\n1.10|d|V1.10__d.sql|added\n"
	  . "2.0.1|e|V2_0.1__e.sql|added\n3|f|V3.0__f.sql|added\nR__all views|all views|R__all views.sql|added\nR__grants|grants|R__grants.sql|added",
	'V1__a.sql' => 'SELECT 1',
	'V1_2__b.sql' => 'SELECT 1',
	'V1.9__c.sql' => 'SELECT 1',
	'V1.10__d.sql' => 'SELECT 1',
	'U1.10__d.sql' => 'SELECT -1',
	'V2_0.1__e.sql' => 'SELECT 1',
	'V3.0__f.sql' => 'SELECT 1',
	'R__grants.sql' => 'SELECT 1',
	'R__all views.sql' => 'SELECT 1');
is(rows($pool, "string_agg(version::text || down_sql, ' ' ORDER BY version)"),
	'1.10SELECT -1', 'Flyway: the way back of one of several parts');
refuses('U of several parts alone', '42602', qr/file "U1\.2__x\.sql".*There is no file V/s,
	'U1.2__x.sql' => 'SELECT 1');
refuses("one version: $_", '42710', qr/have the same version/, 'V1__a.sql' => 'SELECT 1', $_ => 'SELECT 1')
  foreach 'V1.0__b.sql', 'V01__b.sql', 'V1_0_0__b.sql';
refuses("no version: $_", '42602', qr/several with points in between/, $_ => 'SELECT 1') foreach 'V1.__x.sql', 'V1..2__x.sql', 'V1_.2__x.sql';
refuses('a repeatable one without a name', '42602', qr/"R__\.sql".*no name/s, 'R__.sql' => 'SELECT 1');
# --- Flyway's placeholders ---------------------------------------------------------------

my @templates = (
	'V1__${schema}.sql' => "CREATE TABLE \${schema}.t (a text DEFAULT '\${a.b}'); -- \${schema}\nSELECT '\$\${x\n}\${}\${', \$\$\${schema}\$\$",
	'R__r.sql' => 'SELECT ${empty}1;');
$pool = loads('placeholders that are not given', "1|\${schema}|V1__\${schema}.sql|added\nR__r|r|R__r.sql|added", @templates);
is(rows($pool, 'up_sql') =~ tr/$/$/, 13, 'are text');
$placeholders = q{, placeholders => '{"schema": "app", "a.b": "its ${schema}", "empty": "", "unused": "x"}'};
$pool = loads('placeholders', "1|\${schema}|V1__\${schema}.sql|added\nR__r|r|R__r.sql|added", @templates);
is( rows($pool, 'up_sql'),
	"CREATE TABLE app.t (a text DEFAULT 'its \${schema}'); -- app\nSELECT '\$\${x\n}\${}\${', \$\$app\$\$\nSELECT 1;",
	'are replaced in all of the text, once');
refuses(
	'one without a value', '42P02',
	qr/placeholder "\$\{shema\}" in line 2, column 8 has no value.*HINT: .*Perhaps you meant "\$\{schema\}".*file "V2__b\.sql"/s,
	'V1__a.sql' => 'SELECT 1',
	'V2__b.sql' => "-- \${schema}\nSELECT \${shema}");
refuses('one that nothing is near to', '42P02', qr/placeholder "\$\{flyway:timestamp\}" .*HINT:  Give it a value/s,
	'V1__a.sql' => "SELECT '\${flyway:timestamp}'");
foreach my $bad ('[]', '"x"', '{"x": 1}', '{"x": null}', '{"x": {"y": "z"}}')
{
	$placeholders = qq{, placeholders => '$bad'};
	refuses("placeholders $bad", '22023', qr/must be a (JSON object|string)/, 'V1__a.sql' => 'SELECT 1');
}
$placeholders = '';

refuses('a baseline migration', '42602', qr/"B5__base\.sql".*baseline/s,
	'B5__base.sql' => 'SELECT 1');

# --- sqlx and golang-migrate -------------------------------------------------------------

$pool = loads(
	'sqlx',
	"1|_odd name|1__odd name.sql|added\n"
	  . "7|index|7_index.sql|added\n"
	  . "8|both_ways|8_both_ways.sql|added\n"
	  . "20240101120000|add_users|20240101120000_add_users.up.sql|added",
	'20240101120000_add_users.up.sql' => "BEGIN;\nCREATE TABLE a ();\nCOMMIT;\n",
	'20240101120000_add_users.down.sql' => "-- no-transaction\nDROP TABLE a;\n",
	'7_index.sql' => "-- no-transaction\nCREATE INDEX CONCURRENTLY i ON a (i);\n",
	'8_both_ways.sql' => 'SELECT 8',
	'8_both_ways.down.sql' => 'SELECT -8',
	'1__odd name.sql' => '');
is( rows($pool, q{transaction, coalesce(split_part(down_sql, E'\n', 1), '-')}),
	"t|-\nf|-\nt|SELECT -8\nt|-- no-transaction",
	'sqlx: no-transaction, ways back, an empty file');
# sqlx has blanks for underscores in its history, the name keeps them
warns('a way back from nowhere', '6|y|6_y.up.sql|added',
	qr/WARNING: .*file "5_x\.down\.sql" is left out of the migrations of pool .*the way back of none/,
	'5_x.down.sql' => 'SELECT 1', '6_y.up.sql' => 'SELECT 1');
foreach my $other ('2_b.go', 'V2__b.rs', 'V2__B.java', 'V1__a.sql.conf', 'R__b.py')
{
	warns("$other beside", '1|a|V1__a.sql|added',
		qr/NOTICE: .*file "\Q$other\E" is left out of the migrations of pool .* no SQL/,
		'V1__a.sql' => 'SELECT 1', $other => 'x');
}
refuses('another case of up', '42602', qr/"1_a\.Up\.sql".*direction is not in small letters/s,
	'1_a.Up.sql' => 'SELECT 1');
refuses('a rollback', '42602', qr/"1_a\.rollback\.sql".*way back.*1_name\.down\.sql/s,
	'1_a.sql' => 'SELECT 1', '1_a.rollback.sql' => 'SELECT 2');

# --- goose -------------------------------------------------------------------------------

$pool = loads(
	'goose',
	"1|first|00001_first.sql|added\n2|second|00002_second.sql|added\n3|third|3_third.sql|added",
	'00001_first.sql' => <<'FILE',
-- What it does

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
-- +goose StatementEnd
SELECT 1;

-- +goose Down
DROP FUNCTION f;
FILE
	'00002_second.sql' => "-- +goose NO TRANSACTION\r\n-- +GOOSE up\r\nVACUUM;\r\n--+goose down  \r\n",
	'3_third.sql' => "-- +goose Up\n-- +goose ENVSUB OFF\nSELECT '\${HOME}'\n");
is( rows($pool, 'transaction, down_sql IS NULL'),
	"t|f\nf|f\nt|t", 'goose: no transaction, no way back');
is( $admin->value(
		qq{SELECT s.line, s."column", left(statement, 17) FROM dbpool_migrations m,
		   dbpool_migration_statements(up_sql || E';\\n') s WHERE m.pool = '$pool' AND m.version = 1}
	),
	"5|1|CREATE FUNCTION f\n7|1|SELECT 1",
	'goose: statements keep their lines, up');
is( $admin->value(
		qq{SELECT s.line, s."column", statement FROM dbpool_migrations m,
		   dbpool_migration_statements(down_sql) s WHERE m.pool = '$pool' AND m.version = 1}
	),
	'10|1|DROP FUNCTION f',
	'and down');
refuses('goose: substitution', '42601',
	qr/environment variables in line 2.*file "1_x\.sql"/s,
	'1_x.sql' => "-- +goose Up\n-- +goose ENVSUB ON\nSELECT 1;\n");
refuses('goose: unknown remark', '42601', qr/unknown remark of goose in line 2/,
	'1_x.sql' => "-- +goose Up\n-- +goose Sideways\nSELECT 1;\n");
refuses('goose: down first', '42601', qr/"-- \+goose Down" before .* in line 1/,
	'1_x.sql' => "-- +goose Down\nSELECT 1;\n-- +goose Up\n");
refuses('goose: up twice', '42601', qr/second "-- \+goose Up" in line 3/,
	'1_x.sql' => "-- +goose Up\nSELECT 1;\n-- +goose Up\n");
refuses('goose: down twice', '42601', qr/second "-- \+goose Down" in line 3/,
	'1_x.sql' => "-- +goose Up\n-- +goose Down\n-- +goose Down\n");
refuses('goose: never up', '42601', qr/"-- \+goose Up" is missing/,
	'1_x.sql' => "-- +goose NO TRANSACTION\n");
refuses('goose: a statement outside', '42601', qr/statement before .* in line 2/,
	'1_x.sql' => "-- x\nSELECT 1;\n-- +goose Up\n");
refuses('goose in files of others', '42602', qr/"V1__x\.sql".*remarks of goose/s,
	'V1__x.sql' => "-- +goose Up\nSELECT 1;\n-- +goose Down\nSELECT 2;\n");
refuses('goose in one direction', '42602', qr/"1_x\.up\.sql".*remarks of goose/s,
	'1_x.up.sql' => "-- +goose Up\nSELECT 1;\n-- +goose Down\nSELECT 2;\n");
refuses('goose and sqlx', '42602',
	qr/files "2_y\.sql" and "1_x\.sql" are of different kinds/,
	'1_x.sql' => 'SELECT 1',
	'2_y.sql' => "-- +goose Up\nSELECT 1;\n");

# goose looks at the line without its blanks, and leaves out all double dashes.
foreach my $down (" -- +goose Down", "\t--+goose down", "---- +goose Down", "\f -- +goose  DOWN \r")
{
	has_sections(
		'goose: ' . $down =~ s/\s/ /gr,
		"-- +goose Up\nUP;\n$down\nDOWN;\n",
		'2:UP', '4:DOWN');
}
refuses('goose: words around a remark', '42601',
	qr/unknown remark of goose in line 3/,
	'1_x.sql' => "-- +goose Up\nSELECT 1;\n--- see: +goose Down\nSELECT 2;\n");

# --- others with both directions in a file -----------------------------------------------

# What other tools make of the same files was tried with those that could be had
# (dbmate, node-pg-migrate), and read in the sources of the others.

has_sections('dbmate', <<'FILE', '4:CREATE TABLE a ()', '7:DROP TABLE a');
-- what it does

-- migrate:up
CREATE TABLE a ();

-- migrate:down
DROP TABLE a;
FILE
has_sections('dbmate: no blank, words behind',
	"--migrate:up create it\nUP;\n--\t migrate:down \nDOWN;", '2:UP', '4:DOWN');
has_sections('dbmate: CR LF',
	"-- migrate:up\r\nUP;\r\n-- migrate:down\r\nDOWN;\r\n", '2:UP', '4:DOWN');
has_sections('dbmate: only up', "-- migrate:up\nUP;\n", '2:UP', undef);
has_sections('dbmate: what looks like a mark, and is none',
	"-- migrate:up\nUP;\n-- migrate:upper\n-- migrate:downer\nUP2;\n-- migrate:down\nDOWN",
	'2:UP 5:UP2', '7:DOWN');
has_sections(
	'dbmate: no transaction, up',
	"-- migrate:up transaction:false\nVACUUM;\n-- migrate:down\nDOWN;\n",
	'2:VACUUM', '4:DOWN', up => 0);
has_sections(
	'dbmate: no transaction, down',
	"-- x\n-- migrate:up transaction:true\nUP;\n-- migrate:down  x:y transaction:false\nVACUUM;\n",
	'3:UP', '5:VACUUM', down => 0);
has_sections('dbmate: not that option',
	"-- migrate:up transaction: false\nUP;\n-- migrate:down transaction:falsely\nDOWN;\n",
	'2:UP', '4:DOWN');
refuses('dbmate: several pairs', '42601', qr/second "-- migrate:up" in line 5/,
	'1_x.sql' => "-- migrate:up\nUP;\n-- migrate:down\nDOWN;\n-- migrate:up\nUP;\n");
refuses('dbmate: down first', '42601', qr/"-- migrate:down" before "-- migrate:up" in line 1/,
	'1_x.sql' => "-- migrate:down\nDOWN;\n-- migrate:up\nUP;\n");
refuses('dbmate: a statement before', '42601', qr/statement before "-- migrate:up" in line 1/,
	'1_x.sql' => "SELECT 1;\n-- migrate:up\nUP;\n-- migrate:down\nDOWN;\n");
refuses('dbmate in two files', '42602', qr/"1_x\.up\.sql".*remarks of dbmate.*line 2/s,
	'1_x.up.sql' => "-- x\n-- migrate:up\nUP;\n-- migrate:down\nDOWN;\n");
refuses('dbmate in a file V', '42602', qr/"V1__x\.sql".*remarks of dbmate/s,
	'V1__x.sql' => "-- migrate:up\nUP;\n-- migrate:down\nDOWN;\n");
refuses('dbmate, and another way back', '42710',
	qr/files "1_x\.sql" and "1_x\.down\.sql" both have the way back/,
	'1_x.sql' => "-- migrate:up\nUP;\n-- migrate:down\nDOWN;\n",
	'1_x.down.sql' => 'SELECT 1');
refuses('dbmate and none', '42602',
	qr/"1_x\.sql" and "2_y\.sql" are of different kinds.*dbmate/s,
	'1_x.sql' => "-- migrate:up\nUP;\n-- migrate:down\nDOWN;\n",
	'2_y.sql' => 'SELECT 1');
refuses('dbmate and goose', '42602',
	qr/"1_x\.sql" and "2_y\.sql" are of different kinds.*dbmate.*goose/s,
	'1_x.sql' => "-- migrate:up\nUP;\n",
	'2_y.sql' => "-- +goose Up\nUP;\n");
refuses('dbmate and goose in one', '42601',
	qr/marks of goose in line 1, and of dbmate in line 3/,
	'1_x.sql' => "-- +goose Up\nUP;\n-- migrate:down\nDOWN;\n");

has_sections('sql-migrate', <<'FILE', '4:CREATE TABLE a () 13:INSERT INTO a DEFAULT VALUES', '10:DROP TABLE a');
-- +migration of a
-- SQL in section 'Up' is executed when this migration is applied
-- +migrate Up
CREATE TABLE a ();
-- +migrate StatementBegin
;
-- +migrate StatementEnd

-- +migrate Down
DROP TABLE a;

-- +migrate Up
INSERT INTO a DEFAULT VALUES;
FILE
has_sections('sql-migrate: down first, and what is before does not count',
	"NEVER;\n-- +migrate Down\nDOWN;\n-- +migrate  Up x\nUP;\n", '5:UP', '3:DOWN');
has_sections(
	'sql-migrate: no transaction',
	"-- +migrate Up notransaction\nUP;\n-- +migrate Down\nDOWN;\n-- +migrate Down notransaction\nD2\n",
	'2:UP', '4:DOWN 6:D2', up => 0, down => 0);
refuses('sql-migrate: small letters', '42601', qr/unknown remark of sql-migrate in line 3/,
	'1_x.sql' => "-- +migrate Up\nUP;\n-- +migrate down\nDOWN;\n");
refuses('sql-migrate: never up', '42601', qr/"-- \+migrate Up" is missing/,
	'1_x.sql' => "-- +migrate Down\nDOWN;\n");

has_sections('rambler', <<'FILE', '3:U1 7:U2', 'D2 D1');
NEVER;
-- rambler up
U1
-- rambler down
D1
-- rambler   up
U2 -- without a semicolon
--
-- rambler down
D2
FILE
has_sections('rambler: one of each', "-- rambler up\nUP\n-- rambler down\nDOWN\n", '2:UP', '4:DOWN');
refuses('rambler: another', '42601', qr/unknown remark of rambler in line 3/,
	'1_x.sql' => "-- rambler up\nUP;\n-- rambler downwards\nDOWN;\n");

has_sections('tern', <<'FILE', '1:CREATE TABLE a ()', '6:DROP TABLE a');
CREATE TABLE a ();

---- create above / drop below ----

-- back
DROP TABLE a;
FILE
has_sections('tern: in a line', "UP; ---- create above / drop below ---- DOWN", '1:UP', '1:DOWN');
has_sections('tern: no way back', "UP;\n---- create above / drop below ----\n \n", '1:UP', undef);
has_sections(
	'tern: no transaction',
	"-- x\n---- tern: disable-tx ----\nUP;\n---- create above / drop below ----\nDOWN;\n",
	'3:UP', '5:DOWN', up => 0);
has_sections(
	'tern: no transaction, down',
	"UP;\n---- create above / drop below ----\n\n---- tern: disable-tx ----\nDOWN;\n",
	'1:UP', '5:DOWN', down => 0);
refuses('tern: no transaction, later', '42601', qr/disable-tx ----" after a statement/,
	'1_x.sql' => "UP;\n---- tern: disable-tx ----\nUP2;\n");
refuses('tern: templates', '42601', qr/template of tern in line 2/,
	'1_x.sql' => "UP;\nSELECT {{ .x }};\n---- create above / drop below ----\nDOWN;\n");
loads('tern: none beside one', "1|x|1_x.sql|added\n2|y|2_y.sql|added",
	'1_x.sql' => "UP;\n---- create above / drop below ----\nDOWN;\n",
	'2_y.sql' => 'SELECT 1');

has_sections('node-pg-migrate', <<'FILE', '4:CREATE TABLE a ()', '7:DROP TABLE a');
SELECT 'what is before it does not count';

--  - UP   migration of a
CREATE TABLE a ();

   -- Down Migration
DROP TABLE a;
FILE
has_sections('node-pg-migrate: down first',
	"-- Down Migration\nDOWN;\n-- Up Migration\nUP", '4:UP', '2:DOWN');
has_sections('node-pg-migrate: only up', "-- Up Migration\nUP", '2:UP', undef);
refuses('node-pg-migrate: down twice', '42601', qr/second "-- Down Migration" in line 5/,
	'1_x.sql' => "-- Up Migration\nUP;\n-- Down Migration\nDOWN;\n-- Down Migration\nDOWN;\n");
# the tool itself would run all of it
refuses('node-pg-migrate: only down', '42601',
	qr/way back seems to begin in line 2.*"-- Down Migration" looks like a mark of node-pg-migrate/s,
	'1_x.sql' => "UP;\n-- Down Migration\nDOWN;\n");
loads('node-pg-migrate: in two files', '1|x|1_x.up.sql|added',
	'1_x.up.sql' => "-- Up Migration\nUP;\n",
	'1_x.down.sql' => "-- Down Migration\nDOWN;\n");

# --- tools whose files are not understood --------------------------------------------------

my %marks = (
	'-- @UNDO' => 'MyBatis Migrations',
	'-- //@UNDO' => 'MyBatis Migrations',
	'-- ==== DOWN ====' => 'shmig',
	'--!Downs' => 'Play',
	'# --- !Downs' => 'Play',
	'-- +micrate Down' => 'micrate',
	'  -- migrate:down' => 'dbmate',
	'-- Migrate:Down' => 'dbmate',
	'-- migrate: down' => 'dbmate',
	'  -- +migrate Down' => 'sql-migrate',
	'-- create above / drop below' => 'tern',
	'-- Rambler down' => 'rambler',
	map { $_ => 'the mark of a direction' } (
		'-- down', '--DOWN', '--- Down ---', '/* down */', '-- @down', '-- @DOWN {', '-- [DOWN]',
		'-- DOWN:', '-- Down: remove it again', '-- begin down', '-- migration:down',
		'--- migration:downgrade', '-- any:down', '-- +any Down', '--;; down', '-- rollback',
		'-- ROLLBACK:', '-- Rollback script', '-- revert', '-- undo', '-- reverse migration'));
foreach my $mark (sort keys %marks)
{
	foreach my $name ('1_x.sql', '1_x.up.sql', 'V1__x.sql')
	{
		refuses("$mark in $name", '42601',
			qr/way back seems to begin in line 3.*"\Q$mark\E" looks like .*\Q$marks{$mark}\E.*file "\Q$name\E"/s,
			$name => "CREATE TABLE a ();\n\n$mark\n-- to nothing\nDROP TABLE a;\n");
	}
}
foreach my $mark ('-- up', '-- @Up', '--!Ups', '-- ====  UP  ====', '-- Up Migration', '-- upgrade')
{
	refuses("$mark in a way back", '42601',
		qr/way there seems to begin in line 2 of the way back.*"\Q$mark\E".*file "1_x\.up\.sql"/s,
		'1_x.up.sql' => 'CREATE TABLE a ()',
		'1_x.down.sql' => "DROP TABLE a;\n$mark\nCREATE TABLE a ();\n");
}
refuses('the other way first', '42601', qr/seems to begin in line 1/,
	'1_x.sql' => "-- down\nDROP TABLE a;\n-- up\nCREATE TABLE a ();\n");
refuses('Liquibase', '0A000', qr/line 1 .*changelog of Liquibase/s,
	'1_x.sql' => "--liquibase formatted sql\n--changeset a:1\nCREATE TABLE a ();\n--rollback DROP TABLE a;\n");

# Comments as people write them.
loads('ordinary comments', '1|x|1_x.sql|added', '1_x.sql' => <<'FILE');
-- Rollback
-- This goes up and down.
CREATE TABLE payments (
	-- up
	up int,
	-- down
	down int
);
-- down payment table
-- rollback: DROP TABLE payments
-- scale down
-- roll back later
-- down_payments has the rest
-- TODO: rollback
-- ROLLBACK;
CREATE TYPE direction AS ENUM ('up', 'down');
-- Rollback:
--   DROP TYPE direction;
CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	-- down
	-- migration:down
	NULL;
END $$;
/*
-- down
*/
SELECT '
-- down
';
-- Down migration of it is not possible
-- DOWN:
--   DROP FUNCTION f();
FILE
foreach my $text ("BEGIN;\nSELECT 1;\n-- ROLLBACK\nCOMMIT;\n", "SELECT 1;\n-- \@undo\n", "-- Revert\nDROP TABLE a;\n")
{
	loads('an ordinary comment: ' . $text =~ s/\s/ /gr, '1|x|1_x.up.sql|added', '1_x.up.sql' => $text);
}

# --- names -------------------------------------------------------------------------------

my @conventions = (
	qr/follows none of the naming conventions.*V1__name\.sql.*1_name\.up\.sql.*goose/s);
foreach my $name (
	'afterMigrate.sql', 'V__x.sql', 'V1_x.sql',
	'v1__x.sql', 'Vx__y.sql', 'V1__x.SQL',
	'x_1.sql', '1.sql', '1-x.sql', 'Va1__x.sql')
{
	refuses("name $name", '42602', $conventions[0], $name => 'SELECT 1');
}
refuses("no name: $_", '42602', qr/"\Q$_\E".*no name/s, $_ => 'SELECT 1')
  foreach ('V1__.sql', '1_.sql', '1_.up.sql');
loads(
	'the highest version',
	'9223372036854775807|x|V9223372036854775807__x.sql|added',
	'V9223372036854775807__x.sql' => 'SELECT 1');
refuses('one more', '42602', qr/Versions go up to 9223372036854775807/,
	'9223372036854775808_x.sql' => 'SELECT 1');
refuses('a version twice', '42710',
	qr/files "V01__b\.sql" and "V1__a\.sql" have the same version/,
	'V1__a.sql' => 'SELECT 1',
	'V01__b.sql' => 'SELECT 1');
refuses('a version twice, simple and up', '42710',
	qr/files "1_a\.up\.sql" and "1_a\.sql" have the same version/,
	'1_a.sql' => 'SELECT 1',
	'1_a.up.sql' => 'SELECT 1',
	'1_a.down.sql' => 'SELECT 1');
refuses('a way back twice', '42710',
	qr/files "1_a\.down\.sql" and "1_b\.down\.sql" have the same version/,
	'1_a.up.sql' => 'SELECT 1',
	'1_a.down.sql' => 'SELECT 1',
	'1_b.down.sql' => 'SELECT 1');
refuses('mixed conventions', '42602',
	qr/files "V1__a\.sql" and "2_b\.sql" are named by different conventions/,
	'V1__a.sql' => 'SELECT 1',
	'2_b.sql' => 'SELECT 1');
loads('an umlaut', "1|\xc3\xa4|V1__\xc3\xa4.sql|added", "V1__\xc3\xa4.sql" => 'SELECT 1');
refuses('a name that is not UTF-8', '42602', qr/not valid UTF-8 from byte 5/,
	"V1__\xe4.sql" => 'SELECT 1');
refuses('a line end in a name', '42602', qr/control characters/,
	"V1__a\nb.sql" => 'SELECT 1');

# --- texts -------------------------------------------------------------------------------

$pool = loads(
	'byte order mark, CR LF, UTF-8',
	"1|a|V1__a.sql|added\n2|b|V2__b.sql|added",
	'V1__a.sql' => "\xef\xbb\xbfSELECT '\xc3\xa4';\r\nSELECT 2;\r\n",
	'V2__b.sql' => "SELECT '\xef\xbb\xbf'");
is( rows($pool, 'encode(convert_to(up_sql, \'UTF8\'), \'escape\')'),
	"SELECT '\\303\\244';\r\nSELECT 2;\r\nSELECT '\\357\\273\\277'"
	  =~ s/;\r\nSELECT '\\357/;\r\n\nSELECT '\\357/r,
	'the mark at the start is gone, all else as it was');
refuses('not UTF-8', '22021',
	qr/not valid UTF-8.*Byte 0xe4 at offset 11 .*file "V1__a\.sql" of directory/s,
	'V1__a.sql' => "\xef\xbb\xbfSELECT '\xe4'");
refuses('UTF-16', '22021', qr/not valid UTF-8.*offset 0/s,
	'V1__a.sql' => "\xff\xfeS\0E\0");
refuses('a zero byte', '22021', qr/Byte 0x00 at offset 8 .*UTF-16/s,
	'V1__a.sql' => "SELECT '\0'");
refuses('a text that does not end', '42601',
	qr/unterminated quoted string in line 2, column 8.*up_sql of migration 2 "b" of pool.*file "V2__b\.sql"/s,
	'V1__a.sql' => 'SELECT 1',
	'V2__b.sql' => "SELECT 1;\nSELECT 'x;\n");
refuses('the same in the way back', '42601',
	qr/unterminated comment in line 1, column 1.*down_sql of migration 1 "a"/s,
	'1_a.up.sql' => 'SELECT 1',
	'1_a.down.sql' => '/*');
refuses('a COMMIT in the middle', '2D000', qr/"COMMIT" in line 2, column 1 interferes/,
	'V1__a.sql' => "SELECT 1;\nCOMMIT;\nSELECT 2;\n");
refuses('pg_dump with COPY', '0A000', qr/COPY from or to the client.* in line 2/,
	'V1__a.sql' => "CREATE TABLE t (a int);\nCOPY t FROM stdin;\n1\n\\.\n");
warns('nothing at all', '', qr/NOTICE: .*has no files of migrations\nDETAIL: .*Subdirectories are not looked at/,
	'README' => 'x');

# --- again -------------------------------------------------------------------------------

my $path = directory(
	'V1__a.sql' => "SELECT 1;\n",
	'V2__b.sql' => "SELECT 2;\n",
	'V3__c.sql' => "SELECT 3;\n");
$pool = new_pool();
load($pool, $path);
is( load($pool, $path)->{out},
	"1|a|V1__a.sql|unchanged\n2|b|V2__b.sql|unchanged\n3|c|V3__c.sql|unchanged",
	'loaded again');
$admin->value("SELECT done('$pool', 1, 'up'), done('$pool', 2, 'up')");
unlink "$path/V1__a.sql", "$path/V3__c.sql";
append_to_file("$path/V1__a.sql", "SELECT 1;\r\n");
append_to_file("$path/V3__c.sql", "SELECT 4;\n");
append_to_file("$path/V4__d.sql", "SELECT 5;\n");
is( load($pool, $path)->{out},
	"1|a|V1__a.sql|line ends differ\n2|b|V2__b.sql|unchanged\n3|c|V3__c.sql|replaced\n4|d|V4__d.sql|added",
	'loaded with changes');
is( rows($pool, q{replace(replace(up_sql, E'\r', '<CR>'), E'\n', '<LF>')}),
	"SELECT 1;<LF>\nSELECT 2;<LF>\nSELECT 4;<LF>\nSELECT 5;<LF>",
	'what was applied has the line ends it had');
append_to_file("$path/V2__b.sql", "SELECT 2.5;\n");
append_to_file("$path/V5__e.sql", "SELECT 5;\n");
my $answer = load($pool, $path);
is( $answer->{out},
	"1|a|V1__a.sql|line ends differ\n2|b|V2__b.sql|kept\n3|c|V3__c.sql|unchanged\n4|d|V4__d.sql|unchanged\n5|e|V5__e.sql|added",
	'a file that was changed after it had been applied keeps no other out');
like(
	$answer->{err},
	qr/WARNING: .*migration 2 "b" of pool "$pool" has been applied, and its file has been changed since.*File "V2__b\.sql" differs .*in: up_sql.*stays/s,
	'and is warned of');
like(rows($pool, 'up_sql'), qr/^SELECT 2;$/m, 'what was applied is what is registered');
# the way back comes along, a rename does not matter, and there is a way to insist
rename "$path/V2__b.sql", "$path/V2__bee.sql" or die;
$answer = load($pool, $path);
like($answer->{err}, qr/File "V2__bee\.sql" differs from what is registered in: name, up_sql\./, 'a file that was renamed');
is(rows($pool, 'count(*)'), '5', 'is none more');
$answer = $admin->query("SELECT * FROM dbpool_load_migrations('$pool', '$path', replace_applied => true)");
like($answer->{out}, qr/^2\|bee\|V2__bee\.sql\|replaced though applied$/m, 'it is replaced if one insists');
like($answer->{err}, qr/WARNING: .*migration 2 "bee".*replaced, though it has been applied.*dbpool_migration_repair\('$pool', 2, force => true\)/s,
	'with a warning');
is( $admin->value("SELECT direction, mode, status FROM dbpool_migration_history WHERE pool = '$pool' AND version = 2 ORDER BY id DESC LIMIT 1"),
	'up|replaced|done', 'which the history has');
unlike(load($pool, $path)->{err}, qr/migration 2/, 'and then it is as the file is');
my $ways = directory('1_a.up.sql' => 'CREATE TABLE a ()', '1_a.down.sql' => 'DROP TABLE b');
my $back = new_pool();
load($back, $ways);
$admin->value("SELECT done('$back', 1, 'up')");
unlink "$ways/1_a.down.sql";
append_to_file("$ways/1_a.down.sql", 'DROP TABLE a');
is(load($back, $ways)->{out}, '1|a|1_a.up.sql|way back replaced', 'the way back of what was applied is replaced');
is(rows($back, 'down_sql'), 'DROP TABLE a', 'by that of the file');
unlink "$path/V2__bee.sql", "$path/V3__c.sql", "$path/V5__e.sql";
$answer = load($pool, $path);
like(
	$answer->{err},
	qr/NOTICE: .*migration 3 "c" of pool "$pool" is still registered, but its file "V3__c\.sql" is not in the directory/,
	'a file that is gone is told of');
unlike($answer->{err}, qr/migration 2/, 'but not when it was applied');

# --- directories -------------------------------------------------------------------------

$pool = new_pool();
mkdir $local->data_dir . '/migrations' or die;
append_to_file($local->data_dir . '/migrations/1_x.sql', 'SELECT 1');
mkdir $local->data_dir . '/migrations/2_folder.sql' or die;
append_to_file($local->data_dir . '/migrations/2_folder.sql/3_y.sql', 'SELECT 1');
is(load($pool, 'migrations/')->{out},
	'1|x|1_x.sql|added', 'a relative path begins in the data directory');
$answer = load($pool, "$folder/nonesuch");
is($answer->{state}, '58P01', 'no such directory');
like($answer->{err}, qr/HINT: .*on the machine of the server/, 'with a word on where it is looked for');
$answer = load($pool, directory());
is($answer->{out}, '', 'an empty directory');
like($answer->{err}, qr/still registered/, 'with a remark');
is($admin->query("SELECT dbpool_load_migrations('$pool', NULL)")->{state},
	'22004', 'null');
$path = directory('V1__x.sql' => 'SELECT 1');
symlink "$path/V1__x.sql", "$path/V2__link.sql" or die;
is( load(new_pool(), $path)->{out},
	"1|x|V1__x.sql|added\n2|link|V2__link.sql|added",
	'a symbolic link is the file');
symlink "$path/nonesuch", "$path/V3__broken.sql" or die;
my $dangling = load(new_pool(), $path);
is($dangling->{out}, "1|x|V1__x.sql|added\n2|link|V2__link.sql|added", 'a broken one keeps no other out');
like($dangling->{err}, qr/WARNING: .*file "V3__broken\.sql" is left out.*link to nothing/s, 'and is warned of');
unlink "$path/V3__broken.sql";
SKIP:
{
	chmod 0, "$path/V1__x.sql";
	skip 'all files can be read', 1 if -r "$path/V1__x.sql";
	is(load(new_pool(), $path)->{state}, '42501', 'a file that cannot be read');
}
chmod 0600, "$path/V1__x.sql";

# --- rights ------------------------------------------------------------------------------

$pool = new_pool();
$admin->value("ALTER SERVER $pool OWNER TO owner");
my %as = map { $_ => session($local, user => $_) } ('owner', 'granted', 'reader');
like(load($pool, $path, $as{owner})->{err},
	qr/42501: permission denied to read files of the server.*pg_read_server_files/s,
	'the owner of the server may not read files');
like(load($pool, $path, $as{reader})->{err},
	qr/42501: permission denied for migrations of pool/,
	'one who may read files does not own the server');
like(load('nonesuch', $path, $as{reader})->{err}, qr/42704: pool "nonesuch"/,
	'nor knows more of pools');
$admin->value(
	'GRANT EXECUTE ON FUNCTION dbpool_load_migrations TO granted, reader');
like(load($pool, $path, $as{granted})->{err},
	qr/42501: permission denied to read files/,
	'a grant is not for reading files');
is( load($pool, $path, $as{reader})->{out},
	"1|x|V1__x.sql|added\n2|link|V2__link.sql|added",
	'with both it can be done');
is($as{reader}->value('SELECT count(*) FROM dbpool_migrations'),
	0, 'and shows nothing');
$admin->value('GRANT pg_read_server_files TO owner');
is( load($pool, $path, $as{owner})->{out},
	"1|x|V1__x.sql|unchanged\n2|link|V2__link.sql|unchanged",
	'so can the owner who may read files');
is( $as{owner}->value('SELECT DISTINCT pool, added_by FROM dbpool_migrations'),
	"$pool|reader",
	'who sees the migrations of the pool');

# The history of another session counts at once, also in an old snapshot.
$as{owner}->value('BEGIN ISOLATION LEVEL REPEATABLE READ');
$as{owner}->value('SELECT count(*) FROM dbpool_migrations');
$admin->value("SELECT done('$pool', 1, 'up')");
is($as{owner}->value('SELECT count(*) FROM dbpool_migration_history'),
	0, 'a transaction does not see what was applied since');
is($as{owner}->query("SELECT dbpool_drop_migration('$pool', 1)")->{state},
	'55000', 'but it is known');
$as{owner}->value('ROLLBACK');

# Two sessions add the same version: the second one waits, then finds it there.
$as{owner}->value('BEGIN');
$as{owner}->value("SELECT dbpool_add_migration('$pool', 10, 'ten', 'SELECT 1')");
$admin->send("SELECT dbpool_add_migration('$pool', 10, 'ten', 'SELECT 1')");
ok( $local->poll_query_until(
		'postgres',
		"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = "
		  . $admin->pid),
	'the same version at the same time waits');
$as{owner}->value('COMMIT');
like($admin->wait->{err}, qr/is registered already/, 'and finds it there');

# --- a large file ------------------------------------------------------------------------

$path = directory();
open my $file, '>', "$path/V1__large.sql" or die;
my $line = "INSERT INTO t VALUES (1, 'some text; with a quote '' in it'); -- a comment;\n" x 1000;
my $lines = 0;
for (my $size = 0; $size < 50_000_000; $size += length $line)
{
	print $file $line;
	$lines += 1000;
}
close $file;
$pool = new_pool();
is(load($pool, $path)->{out}, '1|large|V1__large.sql|added', '50 MB are loaded');
is(rows($pool, 'length(up_sql)'), -s "$path/V1__large.sql", 'all of them');
is( $admin->value(
		"SELECT count(*), max(line) FROM dbpool_migrations m, dbpool_migration_statements(up_sql) WHERE pool = '$pool'"
	),
	"$lines|$lines",
	'and divided');
$admin->value("SELECT dbpool_drop_migration('$pool', 1)");

# --- other encodings ---------------------------------------------------------------------

$local->safe_psql('postgres',
	"CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
$local->safe_psql('latin',
	'CREATE EXTENSION dbpool; CREATE SERVER p FOREIGN DATA WRAPPER dbpool');
my $latin = session($local, dbname => 'latin');
$latin->value("SET client_encoding = 'UTF8'");
$path = directory("V1__\xc3\xa4.sql" => "\xef\xbb\xbfSELECT '\xc3\xa4'; SELECT 'x");
like(load('p', $path, $latin)->{err},
	qr/unterminated quoted string in line 1, column 20.*V1__\xc3\xa4\.sql/s,
	'LATIN1: columns are characters');
$path = directory("V1__\xc3\xa4.sql" => "\xef\xbb\xbfSELECT '\xc3\xa4'");
is(load('p', $path, $latin)->{out},
	"1|\xc3\xa4|V1__\xc3\xa4.sql|added", 'LATIN1: loaded');
is($latin->value('SELECT octet_length(up_sql), octet_length(name) FROM dbpool_migrations'),
	'10|1', 'in its own encoding');
foreach my $format ('refinery', 'sqlx', 'dbpool')
{
	is( $latin->value(
			"SELECT dbpool_migration_checksum('$format', version, name, up_sql) FROM dbpool_migrations"
		),
		$admin->value(
			"SELECT dbpool_migration_checksum('$format', 1, '\xc3\xa4', 'SELECT ''\xc3\xa4''')"
		),
		"checksum of $format does not depend on it");
}
like(load('p', directory('V2__x.sql' => "SELECT '\xe2\x82\xac'"), $latin)->{err},
	qr/22P05: .*has no equivalent in encoding "LATIN1".*V2__x\.sql/s,
	'a character that it does not have');
$latin->quit;

# --- who vouches for a text --------------------------------------------------------------

$pool = new_pool();
$admin->query($_) foreach ("ALTER SERVER $pool OWNER TO owner");
$as{owner}->query("SELECT dbpool_add_migration('$pool', $_, 'x', 'SELECT $_', 'SELECT -$_')") foreach 1, 2;
$admin->query($_) foreach (
	"INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid)
	 SELECT '$pool', v, 'up', 'single', 'done', now(), 'x', 1 FROM generate_series(1, 2) v",
	"ALTER SERVER $pool OWNER TO CURRENT_USER");
load($pool, directory('1_x.up.sql' => 'SELECT 1', '1_x.down.sql' => 'SELECT -10', '2_x.up.sql' => 'SELECT 20', '2_x.down.sql' => 'SELECT -20'));
is( rows($pool, "string_agg(concat_ws(' ', version, up_sql, down_sql, added_by = 'owner'), ', ')"),
	'1 SELECT 1 SELECT -10 f, 2 SELECT 2 SELECT -20 t',
	'who corrects a way back vouches for the way there only if he has given the same');

# --- pg_dump -----------------------------------------------------------------------------

# The server of a row has another OID there, but must be the one of that name.
my $contents = join ' UNION ALL ', map {
	"SELECT '$_', md5(string_agg(t, '' ORDER BY t)), count(*) FROM
		(SELECT (to_jsonb(m) - 'serverid')::text || s.srvname AS t FROM dbpool_$_ m
		 JOIN pg_foreign_server s ON s.oid = m.serverid AND s.srvname = m.pool) rows"
} 'migrations', 'migration_history';
$admin->query($_) foreach (
	"SELECT dbpool_create_pool('gone', 'host=localhost')",
	"SELECT dbpool_add_migration('gone', 1, 'planted', 'SELECT 1')",
	'DROP SERVER gone CASCADE');
my $before = $admin->value($contents);
like($before, qr/migrations\|\w+\|[1-9]\d+\nmigration_history\|\w+\|[1-9]/, 'there is something to dump');
foreach my $format ('plain', 'custom')
{
	my $dump = "$folder/dump.$format";

	$local->safe_psql('postgres', "CREATE DATABASE ${format}_copy");
	$local->command_ok([ 'pg_dump', '-F', $format, '-f', $dump, 'postgres' ],
		"$format: pg_dump");
	$local->command_ok(
		$format eq 'plain'
		? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, "${format}_copy" ]
		: [ 'pg_restore', '-e', '-d', "${format}_copy", $dump ],
		"$format: restore");
	my $copy = session($local, dbname => "${format}_copy");
	is($copy->value($contents), $before, "$format: the same migrations and history");
	is($copy->value("SELECT count(*) FROM dbpool_migrations WHERE pool = 'gone'"),
		0, "$format: but nothing of a pool that is gone");
	like(
		$copy->query('DELETE FROM dbpool_migrations')->{err},
		qr/has been applied and cannot be changed or removed/,
		"$format: what was applied is protected");
	is( $copy->value(
			"INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid)
			 VALUES ('x', 1, 'up', 'single', 'done', now(), 'x', 1)
			 RETURNING id > (SELECT max(id) FROM dbpool_migration_history)"),
		't',
		"$format: numbers of the history go on");
	is( session($local, dbname => "${format}_copy", user => 'reader')
		  ->value('SELECT count(*) FROM dbpool_migrations'),
		0,
		"$format: and is hidden from others");
	$copy->quit;
}

done_testing();
