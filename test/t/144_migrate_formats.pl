# At home in projects that use refinery or sqlx: a database's history is theirs
# and dbpool's at the same time. The tools are played by this script, which does
# by plain SQL what they do, and has checksums of its own.

use strict;
use warnings;
no warnings 'portable'; # numbers of 64 bits

use FindBin;
use lib $FindBin::RealBin;

use DbpoolTest;
use Digest::SHA qw(sha384_hex);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX qw(strftime);
use Test::More;

my $remote = make_remote();
my $local = make_local();
my $control = session($local);
my $there = session($remote);

# --- checksums -----------------------------------------------------------------------

# 64-bit numbers that wrap around.
sub plus
{
	my ($x, $y) = @_;
	my $sum = do { use integer; $x + $y };
	return $sum & ~0;
}

sub rotate
{
	my ($x, $bits) = @_;
	return (($x << $bits) | ($x >> (64 - $bits))) & ~0;
}

# SipHash-1-3 with a key of zeros, of what Rust feeds it: strings and a number.
sub refinery_checksum
{
	my ($version, $name, $sql, $wide) = @_;
	my $bytes = "$name\xff" . pack($wide ? 'q<' : 'l<', $version) . "$sql\xff";
	my @v = (
		0x736f6d6570736575, 0x646f72616e646f6d,
		0x6c7967656e657261, 0x7465646279746573);
	my $round = sub {
		$v[0] = plus($v[0], $v[1]);
		$v[1] = rotate($v[1], 13) ^ $v[0];
		$v[0] = rotate($v[0], 32);
		$v[2] = plus($v[2], $v[3]);
		$v[3] = rotate($v[3], 16) ^ $v[2];
		$v[0] = plus($v[0], $v[3]);
		$v[3] = rotate($v[3], 21) ^ $v[0];
		$v[2] = plus($v[2], $v[1]);
		$v[1] = rotate($v[1], 17) ^ $v[2];
		$v[2] = rotate($v[2], 32);
	};
	my $length = length $bytes;

	# the last word has what is left, and the length in its last byte
	$bytes .= "\0" x (7 - $length % 8) . chr($length % 256);
	foreach my $word (unpack 'Q<*', $bytes)
	{
		$v[3] ^= $word;
		$round->();
		$v[0] ^= $word;
	}
	$v[2] ^= 0xff;
	$round->() foreach 1 .. 3;
	return sprintf '%u', $v[0] ^ $v[1] ^ $v[2] ^ $v[3];
}

# The CRC-32 of Ethernet and zip.
sub crc32
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;

	foreach my $byte (unpack 'C*', $bytes)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0xedb88320 : $crc >> 1
		  foreach 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

sub lock_key
{
	my ($database) = @_;
	return 0x3d32ad9e * crc32($database);
}

my $persons =
  "CREATE TABLE persons (\n    id int,\n    name varchar(255),\n    city varchar(255)\n);\n";
is(refinery_checksum(1, 'initial', $persons),
	'2959965718684201605', 'the script knows refinery\'s checksums');
is( refinery_checksum(1, 'initial', $persons, 1),
	'13938959368620441626',
	'those of its wide versions too');
is(lock_key('postgres'), '368907709894077238', 'and sqlx\' lock');

# --- migrations -------------------------------------------------------------------------

# Of a list of texts: number n has version n and a name with blanks, or what
# look like them in names of files.
sub migrations
{
	my (@texts) = @_;
	my $version = 0;

	return
	  map { $version++; { version => $version, name => "make_no_$version", sql => $_ } } @texts;
}

my @some = migrations(
	"CREATE TABLE t1 (i int);\nINSERT INTO t1 VALUES (1);\n",
	"CREATE TABLE t2 (\"ü\" int); -- €\n",
	'CREATE TABLE t3 (i int); SELECT pg_sleep(0.05)',
	'CREATE TABLE t4 (i int)');

# Register them for a pool.
sub register
{
	my ($pool, @list) = @_;

	foreach my $m (@list)
	{
		my $down = $m->{down} || "DROP TABLE t$m->{version}";
		$control->value(
			"SELECT dbpool_add_migration('$pool', $m->{version}, '$m->{name}', \$mig\$$m->{sql}\$mig\$, '$down')"
		);
	}
	return;
}

# A pool whose remote is a schema of its own.
sub pool
{
	my ($pool, $format, $schema) = @_;
	$schema ||= $pool;

	$remote->safe_psql('postgres', "CREATE SCHEMA IF NOT EXISTS $schema");
	create_pool(
		$local, $pool, $remote,
		history_format => $format,
		options => "-c search_path=$schema");
	return $pool;
}

sub statuses
{
	my ($pool) = @_;
	return $control->value(
		"SELECT string_agg(version || ' ' || status, ', ' ORDER BY version) FROM dbpool_migration_status('$pool')"
	);
}

# Migrate a pool: the versions that were run.
sub run_dbpool
{
	my ($pool) = @_;
	return $control->value(
		"SELECT string_agg(version || '', ' ') FROM dbpool_migrate('$pool')");
}

# --- the tools ----------------------------------------------------------------------------

my %table = (refinery => 'refinery_schema_history', sqlx => '_sqlx_migrations');

# What either has for its table.
my %ddl = (
	refinery =>
	  'CREATE TABLE IF NOT EXISTS refinery_schema_history (version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255))',
	sqlx =>
	  'CREATE TABLE IF NOT EXISTS _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL)'
);

# What sqlx writes of a migration that it has run.
sub sqlx_row
{
	my ($m) = @_;
	my $description = $m->{name} =~ tr/_/ /r;
	my $checksum = sha384_hex($m->{sql});

	return
	  "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES ($m->{version}, '$description', TRUE, '\\x$checksum', -1)";
}

# A run of sqlx: the versions that it has run, or why it has not.
sub run_sqlx
{
	my ($s, @list) = @_;
	my $key = lock_key('postgres');
	my @run;

	$s->value("SELECT pg_advisory_lock($key)");
	my $result = eval {
		$s->value($ddl{sqlx});
		my $dirty = $s->value(
			'SELECT version FROM _sqlx_migrations WHERE success = false ORDER BY version LIMIT 1'
		);
		die "dirty $dirty\n" if $dirty ne '';
		my %applied = map { split /\|/ } split /\n/,
		  $s->value(
			q{SELECT version, encode(checksum, 'hex') FROM _sqlx_migrations ORDER BY version});
		my %known = map { $_->{version} => 1 } @list;
		foreach my $version (sort { $a <=> $b } keys %applied)
		{
			die "missing $version\n" unless $known{$version};
		}
		foreach my $m (@list)
		{
			my $checksum = $applied{ $m->{version} };
			if (defined $checksum)
			{
				die "mismatch $m->{version}\n"
				  if $checksum ne sha384_hex($m->{sql});
				next;
			}
			$s->value('BEGIN');
			$s->value($m->{sql});
			$s->value(sqlx_row($m));
			$s->value('COMMIT');
			$s->value(
				"UPDATE _sqlx_migrations SET execution_time = 123456 WHERE version = $m->{version}"
			);
			push @run, $m->{version};
		}
		join ' ', @run;
	};
	$result = $@ =~ s/\n$//r unless defined $result;
	$s->value("SELECT pg_advisory_unlock($key)");
	return $result;
}

# What refinery writes of a migration that it has run.
sub refinery_row
{
	my ($m, $wide) = @_;
	my $checksum =
	  refinery_checksum($m->{version}, $m->{name}, $m->{sql}, $wide);
	my $now = strftime('%Y-%m-%dT%H:%M:%S', gmtime) . '.123456789Z';

	return
	  "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ($m->{version}, '$m->{name}', '$now', '$checksum')";
}

# A run of refinery: the versions that it has run, or why it has not.
sub run_refinery
{
	my ($s, @list) = @_;
	my %known = map { $_->{version} => $_ } @list;
	my $current = -1;
	my @run;

	$s->value($ddl{refinery});
	my $wide = $s->value(
		q{SELECT atttypid = 'int8'::regtype FROM pg_attribute WHERE attrelid = 'refinery_schema_history'::regclass AND attname = 'version'}
	) eq 't';
	my %applied;
	foreach my $row (
		split /\n/,
		$s->value(
			'SELECT version, name, applied_on, checksum FROM refinery_schema_history ORDER BY version ASC'
		))
	{
		my ($version, $name, $applied_on, $checksum) = split /\|/, $row;
		my $m = $known{$version};

		# anything else makes it panic
		return "unparsable $applied_on"
		  unless $applied_on =~
		  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/
		  && $checksum =~ /^\d+$/;
		return "missing $version" unless $m;
		return "divergent $version"
		  if $m->{name} ne $name
		  || $checksum ne refinery_checksum($version, $name, $m->{sql}, $wide);
		$applied{$version} = 1;
		$current = $version;
	}
	foreach my $m (grep { !$applied{ $_->{version} } } @list)
	{
		return "missing $m->{version}" if $current >= $m->{version};
		$s->value("BEGIN; $m->{sql}\n; COMMIT");
		$s->value(refinery_row($m, $wide));
		push @run, $m->{version};
	}
	return join ' ', @run;
}

# Let a tool run, in a schema.
sub run_tool
{
	my ($format, $schema, @list) = @_;
	my $s = session($remote, options => "-c search_path=$schema");
	my $result =
	  $format eq 'sqlx' ? run_sqlx($s, @list) : run_refinery($s, @list);

	$s->quit;
	return $result;
}

# The columns of a table and its primary key.
sub columns
{
	my ($schema, $name) = @_;
	return $remote->safe_psql(
		'postgres', qq{
		SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)), ', ' ORDER BY attnum)
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = '$schema.$name'::regclass AND attnum > 0
		UNION ALL
		SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '$schema.$name'::regclass AND contype = 'p'});
}

# The one row of a migration, as the tool's own would be but for the times.
sub row_of
{
	my ($format, $schema, $version) = @_;
	my $columns =
	  $format eq 'sqlx'
	  ? q{version, description, success, encode(checksum, 'hex'), installed_on BETWEEN now() - interval '1 hour' AND now() + interval '1 s', execution_time BETWEEN 50000000 AND 50000000000}
	  : q{version, name, checksum, applied_on::timestamptz BETWEEN now() - interval '1 hour' AND now() + interval '1 s', applied_on ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$'};

	return $remote->safe_psql('postgres',
		"SELECT $columns FROM $schema.$table{$format} WHERE version = $version"
	);
}

# --- both formats -------------------------------------------------------------------------

foreach my $format ('refinery', 'sqlx')
{
	my $table = $table{$format};
	my $tool_sum = sub {
		my ($m) = @_;
		return $format eq 'sqlx'
		  ? sha384_hex($m->{sql})
		  : refinery_checksum($m->{version}, $m->{name}, $m->{sql});
	};

	subtest "$format was there before" => sub {
		my $pool = pool("${format}_before", $format);

		is(run_tool($format, $pool, @some[ 0 .. 1 ]),
			'1 2', 'the tool has run two');
		register($pool, @some[ 0 .. 2 ]);
		is( statuses($pool),
			'1 applied, 2 applied, 3 pending',
			'they are known to be applied');
		is(run_dbpool($pool), '3', 'only the third is run');
		is($remote->safe_psql('postgres', "SELECT count(*) FROM $pool.t1"),
			'1', 'the others are not again');
		is( row_of($format, $pool, 3),
			$format eq 'sqlx'
			? '3|make no 3|t|' . $tool_sum->($some[2]) . '|t|t'
			: '3|make_no_3|' . $tool_sum->($some[2]) . '|t|t',
			'its row is as the tool would have written it');
		is(run_tool($format, $pool, @some), '4', 'the tool takes a turn');
		register($pool, $some[3]);
		is( statuses($pool),
			'1 applied, 2 applied, 3 applied, 4 applied',
			'which is seen');
		is(run_dbpool($pool), '', 'nothing is left to do');
		is(run_tool($format, $pool, @some), '', 'for neither');
		is( $remote->safe_psql('postgres',
				"SELECT to_regclass('$pool.dbpool_migration_history')"),
			'',
			'and there is no other history');
	};

	subtest "$format comes later" => sub {
		my $pool = pool("${format}_later", $format);

		register($pool, @some[ 0 .. 1 ]);
		is( $control->value(
				"SELECT count(*) FROM dbpool_migrate('$pool', dry_run => true)"),
			'2',
			'a dry run');
		is($remote->safe_psql('postgres', "SELECT to_regclass('$pool.$table')"),
			'', 'leaves no table');
		is(run_dbpool($pool), '1 2', 'dbpool has run two');
		$remote->safe_psql('postgres',
			"CREATE SCHEMA ${pool}_tool; SET search_path = ${pool}_tool; $ddl{$format}"
		);
		is( columns($pool, $table),
			columns("${pool}_tool", $table),
			'its table is as the tool\'s');
		is(run_tool($format, $pool, @some), '3 4', 'the tool does the rest');
		like(
			$control->query("SELECT * FROM dbpool_migration_rollback('$pool')")->{err},
			qr/cannot roll back migration 4 "make.no.4".*It is not registered/s,
			'what is not known here cannot be rolled back');
		register($pool, @some[ 2 .. 3 ]);
		is( $control->value(
				"SELECT string_agg(version || '', ' ') FROM dbpool_migration_rollback('$pool', 2)"
			),
			'4 3',
			'what is can, whoever has run it');
		is( $remote->safe_psql('postgres',
				"SELECT string_agg(version || '', ' ' ORDER BY version) FROM $pool.$table"
			),
			'1 2',
			'and its rows are gone');
		is(run_tool($format, $pool, @some), '3 4', 'the tool runs them again');
	};

	subtest "dbpool on top of $format" => sub {
		my $pool = pool("dbpool_$format", 'dbpool');

		run_tool($format, $pool, @some[ 0 .. 1 ]);
		my $before =
		  $remote->safe_psql('postgres', "TABLE $pool.$table");
		register($pool, @some[ 0 .. 2 ]);
		is( $control->value(
				"SELECT string_agg(concat_ws(' ', version, status, detail, applied_at IS NOT NULL), ', ' ORDER BY version) FROM dbpool_migration_status('$pool')"
			),
			'1 applied adopted t, 2 applied adopted t, 3 pending f',
			'the status before');
		is( $remote->safe_psql('postgres',
				"SELECT to_regclass('$pool.dbpool_migration_history')"),
			'',
			'which makes nothing');
		my $answer = $control->query(
			"SELECT version, status FROM dbpool_migrate('$pool')");
		is($answer->{out}, '3|applied', 'only the third is run');
		like(
			$answer->{err},
			qr/NOTICE: .*adopted 2 migrations on pool "$pool" from table $pool\.$table/,
			'what has been adopted is told');
		is( $remote->safe_psql(
				'postgres',
				"SELECT version, name, direction, state, left(checksum, position(':' in checksum)) FROM $pool.dbpool_migration_history ORDER BY id"
			),
			join("\n",
				$format eq 'sqlx' ? '1|make no 1|adopted|done|sqlx:' : '1|make_no_1|adopted|done|refinery:',
				$format eq 'sqlx' ? '2|make no 2|adopted|done|sqlx:' : '2|make_no_2|adopted|done|refinery:',
				'3|make_no_3|up|done|sha256:'),
			'both are in the history');
		is($remote->safe_psql('postgres', "TABLE $pool.$table"),
			$before, 'the other history is as it was');
		is( statuses($pool),
			'1 applied, 2 applied, 3 applied',
			'the status after');
		is( $control->value(
				"SELECT string_agg(version || '', ' ') FROM dbpool_migration_rollback('$pool', 3)"
			),
			'3 2 1',
			'what was adopted can be rolled back');
		is(run_dbpool($pool), '1 2 3', 'and run again');

		# adopted, but what is registered is another text
		my $other = pool("dbpool_${format}_other", 'dbpool');

		run_tool($format, $other, @some[ 0 .. 1 ]);
		register(
			$other,
			{ %{ $some[0] }, sql => $some[0]->{sql} =~ s/\n/\r\n/gr },
			{ %{ $some[1] }, sql => 'SELECT 2' });
		is( statuses($other),
			'1 divergent, 2 divergent',
			'texts are compared in the format of the tool');
		is( $control->value(
				"SELECT version, action FROM dbpool_migration_repair('$other')"),
			"1|repaired: line ends\n2|not repaired: the texts differ",
			'and repaired if they may be');
		is(statuses($other), '1 applied, 2 divergent', 'and are as they should');
	};

	subtest "$format, and texts that differ" => sub {
		my $pool = pool("${format}_differ", $format);
		my @crlf =
		  map { { %$_, sql => $_->{sql} =~ s/\n/\r\n/gr } } @some;

		# the tool ran in a checkout with CR LF
		is(run_tool($format, $pool, @crlf[ 0 .. 1 ]), '1 2', 'the tool');
		register($pool, @some[ 0 .. 2 ]);
		is( $control->value(
				"SELECT string_agg(concat_ws(' ', version, status, detail), ', ' ORDER BY version) FROM dbpool_migration_status('$pool')"
			),
			'1 divergent the texts differ by their line ends, 2 divergent the texts differ by their line ends, 3 pending',
			'a difference of line ends is named as that');
		my $answer = $control->query("SELECT * FROM dbpool_migrate('$pool')");
		is($answer->{state}, '55000', 'it is a reason to stop');
		like(
			$answer->{err},
			qr/The texts differ by their line ends only.*SELECT dbpool_migration_repair\('$pool'\) puts the checksums right/s,
			'with a way out');
		is( $control->value(
				"SELECT version, action FROM dbpool_migration_repair('$pool', 1)"),
			'1|repaired: line ends',
			'one is repaired');
		is( statuses($pool),
			'1 applied, 2 divergent, 3 pending',
			'and only that one');
		is( $control->value(
				"SELECT version, action FROM dbpool_migration_repair('$pool')"),
			'2|repaired: line ends',
			'so is the other');
		is(run_dbpool($pool), '3', 'so it goes on');
		is(run_tool($format, $pool, @some), '4',
			'and so does the tool, from a checkout with LF');

		# the other way round
		my $back = pool("${format}_differ_back", $format);

		run_tool($format, $back, @some[ 0 .. 1 ]);
		register($back, @crlf[ 0 .. 1 ]);
		is( $control->value(
				"SELECT string_agg(DISTINCT status || ' ' || detail, ', ') FROM dbpool_migration_status('$back')"
			),
			'divergent the texts differ by their line ends',
			'the other way round');

		# another text
		my $really = pool("${format}_really", $format);
		my @changed = ($some[0], { %{ $some[1] }, sql => 'CREATE TABLE t2 ()' });

		run_tool($format, $really, @some[ 0 .. 1 ]);
		register($really, @changed);
		is(statuses($really), '1 applied, 2 divergent', 'another text');
		is( $control->value(
				"SELECT version, action FROM dbpool_migration_repair('$really')"),
			'2|not repaired: the texts differ',
			'is not repaired');
		like(
			run_tool($format, $really, @changed),
			qr/^(mismatch|divergent) 2$/,
			'the tool does not want it either');
		is( $control->value(
				"SELECT version, action FROM dbpool_migration_repair('$really', force => true)"
			),
			'2|repaired: registered text accepted',
			'unless it must be');
		is(statuses($really), '1 applied, 2 applied', 'and is');
		is(run_tool($format, $really, @changed), '', 'for the tool as well');
	};

	subtest "$format, and what has not ended" => sub {
		my $pool = pool("${format}_dirty", $format);
		my @list = migrations(
			'CREATE TABLE t1 (i int)',
			"-- no-transaction\nCREATE INDEX CONCURRENTLY t1_i ON t1 (i);\nSELECT count(*) FROM public.gate;",
			'CREATE TABLE t3 (i int)');
		my $dirty =
		  $format eq 'sqlx'
		  ? 'SELECT success FROM %s._sqlx_migrations WHERE version = 2'
		  : 'SELECT checksum <> \'0\' FROM %s.refinery_schema_history WHERE version = 2';
		my $refusal = $format eq 'sqlx' ? 'dirty 2' : 'divergent 2';

		$there->value('CREATE TABLE IF NOT EXISTS public.gate ()');
		register($pool, @list);
		$there->value('BEGIN; LOCK TABLE public.gate');
		my $s = session($local);
		$s->send(
			"SELECT string_agg(version || '', ' ') FROM dbpool_migrate('$pool')"
		);
		$control->poll(
			'SELECT version FROM dbpool_progress_migrate WHERE statements_done = 1',
			'2');
		is($remote->safe_psql('postgres', sprintf $dirty, $pool),
			'f', 'while it runs its row says so');
		$there->value('ROLLBACK');
		is($s->wait->{out}, '1 2 3', 'it ends');
		is($remote->safe_psql('postgres', sprintf $dirty, $pool),
			't', 'and so says its row');
		like(
			row_of($format, $pool, 2),
			qr/^2\|make.no.2\|(t\|)?${\$tool_sum->($list[1])}\|t\|/,
			'which is as the tool would have written it');
		is(run_tool($format, $pool, @list), '', 'the tool is content');
		$s->quit;

		# it fails in the middle
		foreach my $outcome ('applied', 'pending')
		{
			my $fails = pool("${format}_$outcome", $format);
			my @bad = @list;
			$bad[1] = {
				%{ $list[1] },
				sql =>
				  "-- no-transaction\nCREATE INDEX CONCURRENTLY t1_i ON t1 (i);\nSELECT 1 / (SELECT count(*) FROM t1)"
			};

			register($fails, @bad);
			is($control->query("SELECT * FROM dbpool_migrate('$fails')")
				  ->{state},
				'22012', 'one that fails in the middle');
			is($remote->safe_psql('postgres', sprintf $dirty, $fails),
				'f', 'its row says so');
			is(statuses($fails), '1 applied, 2 failed, 3 pending',
				'as does the status');
			is(run_tool($format, $fails, @bad),
				$refusal, 'the tool refuses to go on');
			my $answer =
			  $control->query("SELECT * FROM dbpool_migrate('$fails')");
			is($answer->{state}, '55000', 'and so does dbpool');
			like(
				$answer->{err},
				qr/migration 2 "make_no_2" on pool "$fails" was started and is not known to have ended.*dbpool_migration_resolve\('$fails', 2, 'applied'\)/s,
				'with a way out');
			$remote->safe_psql('postgres',
				"DROP INDEX $fails.t1_i; INSERT INTO $fails.t1 VALUES (1)")
			  if $outcome eq 'pending';
			$control->value(
				"SELECT dbpool_migration_resolve('$fails', 2, '$outcome')");
			is( run_tool($format, $fails, @bad[ 0 .. 1 ]),
				'', 'as applied, it is to the tool as well')
			  if $outcome eq 'applied';
			is(run_dbpool($fails), $outcome eq 'applied' ? '3' : '2 3',
				"it goes on when it is $outcome");
			is(run_tool($format, $fails, @bad),
				'', 'and the tool is content');
		}

		# what the tool has left
		my $left = pool("${format}_left", $format);

		run_tool($format, $left, $some[0]);
		$remote->safe_psql(
			'postgres',
			$format eq 'sqlx'
			? "INSERT INTO $left._sqlx_migrations VALUES (2, 'x', now(), false, 'x', -1)"
			: "INSERT INTO $left.refinery_schema_history VALUES (2, 'make_no_2', '2024-01-01T00:00:00Z', '0')"
		);
		register($left, @some[ 0 .. 1 ]);
		is(statuses($left), '1 applied, 2 failed', 'one that the tool began');
		is($control->query("SELECT * FROM dbpool_migrate('$left')")->{state},
			'55000', 'is a reason to stop');
		$local->safe_psql('postgres',
			"ALTER SERVER $left OPTIONS (SET history_format 'dbpool')");
		my $answer = $control->query("SELECT * FROM dbpool_migrate('$left')");
		is($answer->{state}, '55000', 'and cannot be adopted');
		like(
			$answer->{err},
			qr/the history of $format on pool "$left" cannot be adopted: migration 2 has not ended/,
			'for that reason');
		$local->safe_psql('postgres',
			"ALTER SERVER $left OPTIONS (SET history_format '$format')");
		$control->value(
			"SELECT dbpool_migration_resolve('$left', 2, 'pending')");
		is(run_dbpool($left), '2', 'resolved, it is run');
		is(run_tool($format, $left, @some[ 0 .. 1 ]),
			'', 'and the tool is content');
	};

	subtest "$format, and the way back outside of a transaction" => sub {
		my $pool = pool("${format}_down", $format);
		my @list = migrations('CREATE TABLE t1 (i int)');

		$list[0]->{down} =
		  "-- no-transaction\nDROP TABLE t1;\nDROP TABLE nonesuch";
		register($pool, @list);
		is(run_dbpool($pool), '1', 'there');
		is($control->query("SELECT * FROM dbpool_migration_rollback('$pool')")->{state},
			'42P01', 'half of the way back');
		is(statuses($pool), '1 failed', 'the status');
		like(
			run_tool($format, $pool, @list),
			qr/^(dirty|divergent) 1$/,
			'the tool refuses to go on');
		$control->value(
			"SELECT dbpool_migration_resolve('$pool', 1, 'pending')");
		is( $remote->safe_psql('postgres', "SELECT count(*) FROM $pool.$table"),
			'0', 'when the rest is done, the row goes');
		is(run_tool($format, $pool, @list), '1', 'and the tool runs it again');
		is($control->query("SELECT * FROM dbpool_migration_rollback('$pool')")->{state},
			'42P01', 'half of the way again');
		$remote->safe_psql('postgres', "CREATE TABLE $pool.t1 (i int)");
		$control->value(
			"SELECT dbpool_migration_resolve('$pool', 1, 'applied')");
		is(run_tool($format, $pool, @list),
			'', 'when it is undone, the row is as it was');
	};

	subtest "$format: baseline" => sub {
		my $pool = pool("${format}_baseline", $format);

		register($pool, @some);
		$remote->safe_psql('postgres',
			"CREATE TABLE $pool.t1 (); CREATE TABLE $pool.t2 ()");
		is( $control->query("SELECT dbpool_migration_baseline('$pool', 7)")
			  ->{state},
			'42704', 'at a version that is not registered');
		is($remote->safe_psql('postgres', "SELECT to_regclass('$pool.$table')"),
			'', 'nothing is made');
		$control->value("SELECT dbpool_migration_baseline('$pool', 2)");
		is( statuses($pool),
			'1 applied, 2 applied, 3 pending, 4 pending',
			'it is taken for what it is');
		is(run_tool($format, $pool, @some), '3 4', 'and so does the tool');
		is(run_dbpool($pool), '', 'nothing is left to do');
		is( $control->query("SELECT dbpool_migration_baseline('$pool', 4)")
			  ->{state},
			'55000', 'there is a history now');
	};

	subtest "$format: faked, grouped, failed" => sub {
		my $pool = pool("${format}_options", $format);
		my @list = (@some[ 0 .. 1 ],
			{ version => 3, name => 'make_no_3', sql => 'SELECT 1/0' });

		register($pool, @list);
		is( $control->query(
				"SELECT * FROM dbpool_migrate('$pool', grouped => true)")
			  ->{state},
			'22012', 'one of a group fails');
		is( $remote->safe_psql('postgres', "SELECT count(*) FROM $pool.$table"),
			'0', 'none is noted');
		$control->value(
			"SELECT * FROM dbpool_migrate('$pool', 2, grouped => true)");
		is(run_tool($format, $pool, @list[ 0 .. 1 ]),
			'', 'a group is noted as the tool would');
		$control->value("SELECT * FROM dbpool_migrate('$pool', fake => true)");
		is(run_tool($format, $pool, @list), '', 'so is what was faked');
	};

	# A history elsewhere is not one of nothing.
	foreach my $other (grep { $_ ne $format } 'dbpool', 'refinery', 'sqlx')
	{
		subtest "$format, where there is a history of $other" => sub {
			my $pool = pool("${format}_not_$other", $other);

			register($pool, migrations('CREATE TABLE IF NOT EXISTS t1 ()'));
			is(run_dbpool($pool), '1', "a history of $other");
			$local->safe_psql('postgres',
				"ALTER SERVER $pool OPTIONS (SET history_format '$format')");
			my $answer =
			  $control->query("SELECT * FROM dbpool_migrate('$pool')");
			is($answer->{state}, '55000', 'nothing is run');
			like(
				$answer->{err},
				qr/the remote of pool "$pool" has a history of migrations in format "$other"/,
				'and why');
			is( $remote->safe_psql('postgres',
					"SELECT to_regclass('$pool.$table')"),
				'',
				'nothing is made');
		};
	}
}

# --- one or the other -----------------------------------------------------------------------

subtest 'one at a time' => sub {
	my $pool = pool('exclusion', 'sqlx');
	my $tool = session($remote, options => '-c search_path=exclusion');
	my $key = lock_key('postgres');
	my @list = migrations(
		'CREATE TABLE t1 (i int)',
		'SELECT count(*) FROM public.gate2',
		'CREATE TABLE t3 (i int)');

	register($pool, @list);
	$there->value('CREATE TABLE public.gate2 ()');
	$tool->value("SELECT pg_advisory_lock($key)");
	my $answer = $control->query(
		"SELECT * FROM dbpool_migrate('$pool', lock_timeout => '200 ms')");
	is($answer->{state}, '55P03', 'while sqlx runs, dbpool does not');
	is($remote->safe_psql('postgres', 'SELECT to_regclass(\'exclusion.t1\')'),
		'', 'not at all');
	$tool->value("SELECT pg_advisory_unlock($key)");

	$there->value('BEGIN; LOCK TABLE public.gate2');
	my $s = session($local);
	$s->send(
		"SELECT string_agg(version || '', ' ') FROM dbpool_migrate('$pool')");
	$control->poll('SELECT version FROM dbpool_progress_migrate', '2');
	$tool->send("SELECT pg_advisory_lock($key)");
	ok( $remote->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = ${\$tool->pid}"
		),
		'while dbpool runs, sqlx waits');
	$there->value('ROLLBACK');
	is($s->wait->{out}, '1 2 3', 'dbpool gets to its end');
	$tool->wait;
	$tool->value("SELECT pg_advisory_unlock($key)");
	is(run_sqlx($tool, @list), '', 'and sqlx finds nothing to do');

	# What builds an index is not held up by one that waits for the lock, as
	# neither tool waits in a statement.
	register($pool,
		{ version => 4, name => 'index', sql => "-- no-transaction\nCREATE INDEX CONCURRENTLY t1_i ON t1 (i)" });
	$tool->value("SELECT pg_advisory_lock($key)");
	$s->send(
		"SELECT string_agg(version || '', ' ') FROM dbpool_migrate('$pool')");
	$control->poll('SELECT phase FROM dbpool_progress_migrate',
		'waiting for lock');
	$tool->value('CREATE INDEX CONCURRENTLY t3_i ON t3 (i)');
	$tool->value("SELECT pg_advisory_unlock($key)");
	is($s->wait->{out}, '4', 'an index that the other builds meanwhile');
	$s->quit;
	$tool->quit;
};

subtest 'a database of another name' => sub {
	my $name = "b\xc3\xa4ume und \xe2\x82\xac";

	$remote->safe_psql('postgres', "CREATE DATABASE \"$name\"");
	create_pool($local, 'named', $remote,
		dbname => $name, history_format => 'sqlx');
	$control->value(
		q{SELECT dbpool_add_migration('named', 1, 'm1', 'SELECT 1')});
	my $tool = session($remote, dbname => $name);
	$tool->value('SELECT pg_advisory_lock(' . lock_key($name) . ')');
	is( $control->query(
			q{SELECT * FROM dbpool_migrate('named', lock_timeout => '0')})
		  ->{state},
		'55P03', 'has a lock of its own');
	$tool->value('SELECT pg_advisory_unlock_all()');
	$tool->value('SELECT pg_advisory_lock(' . lock_key('postgres') . ')');
	is(run_dbpool('named'), '1', 'which is not that of others');
	$tool->quit;
};

# --- refinery's versions -----------------------------------------------------------------------

subtest 'wide versions of refinery' => sub {
	my %wide = (version => 20240101120000, name => 'make_t', sql => $persons);
	my $pool = pool('wide', 'refinery');

	# a table of a refinery that has them
	$remote->safe_psql('postgres',
		'SET search_path = wide; ' . $ddl{refinery} =~ s/int4/int8/r);
	register($pool,
		{ version => 1, name => 'initial', sql => $persons },
		{ %wide, sql => 'CREATE TABLE t (i int)' });
	is(run_dbpool($pool), '1 20240101120000', 'fit into its table');
	is( $remote->safe_psql('postgres',
			'SELECT checksum FROM wide.refinery_schema_history WHERE version = 1'
		),
		'13938959368620441626',
		'where checksums are wide as well');
	is( run_tool(
			'refinery', $pool,
			{ version => 1, name => 'initial', sql => $persons },
			{ %wide, sql => 'CREATE TABLE t (i int)' }),
		'',
		'as the tool has them');

	# none yet: it is made as what is registered wants it
	$pool = pool('wide_new', 'refinery');
	register($pool, { version => 1, name => 'initial', sql => $persons },
		\%wide);
	$control->value("SELECT * FROM dbpool_migrate('$pool', 1)");
	like(columns($pool, 'refinery_schema_history'),
		qr/^version bigint/, 'a table that is made is wide if need be');
	$pool = pool('wide_repair', 'refinery');
	register($pool, { version => 1, name => 'initial', sql => $persons },
		\%wide);
	$control->value("SELECT dbpool_migration_baseline('$pool', 1)");
	like(columns($pool, 'refinery_schema_history'),
		qr/^version bigint/, 'by a baseline too');

	# a narrow one, which has no room for them
	$pool = pool('narrow', 'refinery');
	register($pool, { version => 1, name => 'initial', sql => $persons });
	is(run_dbpool($pool), '1', 'a narrow one');
	is( $remote->safe_psql('postgres',
			'SELECT checksum FROM narrow.refinery_schema_history'),
		'2959965718684201605',
		'has narrow checksums');
	register($pool, { %wide, sql => 'CREATE TABLE t (i int)' });
	my $answer = $control->query("SELECT * FROM dbpool_migrate('$pool')");
	is($answer->{state}, '22003', 'and no room for wide versions');
	like(
		$answer->{err},
		qr/version 20240101120000 of a migration on pool "narrow" is out of range for refinery's history.*HINT:  Use lower versions/s,
		'which is told, by us');
	is($remote->safe_psql('postgres', q{SELECT to_regclass('narrow.t')}),
		'', 'before anything is run');
	is(statuses($pool), '1 applied, 20240101120000 pending', 'the status');
};

# --- files with both directions -----------------------------------------------------------

# A directory with these files.
sub directory
{
	my (%files) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir;

	append_to_file("$path/$_", $files{$_}) foreach keys %files;
	chmod 0755, $path;
	return $path;
}

my %both = (
	'goose' => ["-- +goose Up", '  -- +goose Down'],
	'dbmate' => ['-- migrate:up', '-- migrate:down'],
	'sql-migrate' => ['-- +migrate Up', '-- +migrate Down'],
	'rambler' => ['-- rambler up', '-- rambler down'],
	'tern' => ['--', '---- create above / drop below ----'],
	'node-pg-migrate' => ['-- Up Migration', '-- Down Migration']);
foreach my $tool (sort keys %both)
{
	subtest "files of $tool" => sub {
		my ($up, $down) = @{ $both{$tool} };
		my $pool = pool("both_$tool" =~ tr/-/_/r, 'dbpool');
		my $path = directory(
			'1_rows.sql' =>
			  "$up\nCREATE TABLE kept (i int);\nINSERT INTO kept SELECT generate_series(1, 1000);\n$down\nDROP TABLE kept;\n",
			'2_more.sql' =>
			  "$up\nALTER TABLE kept ADD j int;\n$down\nALTER TABLE kept DROP j;\n");

		is( $control->query(
				"SELECT version, status FROM dbpool_load_migrations('$pool', '$path')")
			  ->{out},
			"1|added\n2|added",
			'are loaded');
		is(run_dbpool($pool), '1 2', 'and run');
		is( $remote->safe_psql('postgres', "SELECT count(*), count(j) FROM $pool.kept"),
			'1000|0',
			'up, and not down');
		$control->value("SELECT count(*) FROM dbpool_migration_rollback('$pool')");
		is( $remote->psql('postgres', "SELECT j FROM $pool.kept"),
			3, 'the last one is taken back');
		is( $remote->safe_psql('postgres', "SELECT count(*) FROM $pool.kept"),
			'1000', 'alone');
		$control->value("SELECT count(*) FROM dbpool_migration_rollback('$pool')");
		is( $remote->safe_psql('postgres', "SELECT to_regclass('$pool.kept')"),
			'', 'and the first one');
	};
}

# What the real dbmate makes of a directory, where there is one: DBMATE names it, or
# it is in the PATH. (npm has it as the package @dbmate/linux-x64.)
subtest 'the real dbmate' => sub {
	my ($dbmate) = grep { -x } ($ENV{DBMATE} || (), map { "$_/dbmate" } split /:/, $ENV{PATH});

	plan skip_all => 'SKIPPED: there is no dbmate here, see DBMATE' unless $dbmate;
	my $path = directory(
		'20240101120000_a.sql' => <<'FILE',
-- some words

-- migrate:up
CREATE TABLE a (i int PRIMARY KEY, t text DEFAULT '-- not a mark');
INSERT INTO a SELECT generate_series(1, 1000);
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	-- down
	RETURN 1;
END $$;

-- migrate:down
DROP FUNCTION f();
DROP TABLE a;
FILE
		'20240102120000_b.sql' =>
		  "--migrate:up transaction:false\r\nCREATE INDEX CONCURRENTLY a_t ON a (t);\r\n--  migrate:down\r\nDROP INDEX a_t;\r\n",
		'20240103120000_c.sql' =>
		  "-- migrate:up x\nALTER TABLE a ADD j int;\nUPDATE a SET j = i\n-- migrate:down transaction:false\nALTER TABLE a DROP j",
		'20240104120000_d.sql' => "-- migrate:up\n\n-- migrate:down\n");
	my $contents = sub {
		my ($schema) = @_;
		return $remote->safe_psql(
			'postgres', qq{
			SELECT format('%s %s %s', c.relname, c.relkind, (SELECT string_agg(attname || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
			FROM pg_class c WHERE relnamespace = '$schema'::regnamespace AND relname !~ 'migration' ORDER BY 1;
			SELECT proname FROM pg_proc WHERE pronamespace = '$schema'::regnamespace;
			SELECT xmlserialize(content query_to_xml('SELECT count(*), sum(hashtext(a::text)) FROM a', true, false, '') AS text) WHERE to_regclass('a') IS NOT NULL},
			extra_params => [ '-v', 'ON_ERROR_STOP=1' ],
			connstr => $remote->connstr('postgres') . " options='-c search_path=$schema'");
	};
	my $pool = pool('by_dbpool', 'dbpool');
	my $run = sub {
		my ($command) = @_;
		my $socket = $remote->host =~ s{/}{%2F}gr;

		$remote->command_ok(
			[
				$dbmate, '--no-dump-schema', '-d', $path, '--migrations-table',
				'by_dbmate.schema_migrations', '--url',
				"postgres:///postgres?host=${\$remote->host}&port=${\$remote->port}&sslmode=disable&search_path=by_dbmate",
				$command
			],
			"dbmate $command");
	};

	$remote->safe_psql('postgres', 'CREATE SCHEMA by_dbmate');
	$run->('up');
	is( $control->value("SELECT count(*) FROM dbpool_load_migrations('$pool', '$path')"),
		4, 'the same files');
	is( $control->value("SELECT count(*) FROM dbpool_migrate('$pool')"),
		4, 'migrated by dbpool');
	like($contents->($pool), qr/^a r i.*^a_t i.*^f\n.*<count>1000</ms, 'do what they say');
	is($contents->($pool), $contents->('by_dbmate'), 'have the same outcome');
	foreach my $step (1 .. 4)
	{
		$run->('rollback');
		$control->value("SELECT count(*) FROM dbpool_migration_rollback('$pool')");
		is($contents->($pool), $contents->('by_dbmate'), "$step steps back as well");
	}
	is($contents->($pool), '', 'to nothing');
};

# --- a history that is not found, or another tool's ----------------------------------------

# Refused, with these words, and nothing is run.
sub refuses
{
	my ($pool, $what, $pattern, @schemas) = @_;

	foreach my $call ("dbpool_migrate('$pool')", "dbpool_migrate('$pool', dry_run => true)")
	{
		my $answer = $control->query("SELECT * FROM $call");

		is($answer->{state}, '55000', "$what: $call");
		like($answer->{err}, $pattern, "$what: why");
	}
	my $run = $control->value(
		"SELECT error FROM dbpool_migrate_all(ARRAY['$pool']::name[])");
	like("ERROR: $run", $pattern =~ /DETAIL/ ? qr/remote/ : $pattern, "$what: all") if $run;
	is( $remote->safe_psql('postgres',
			"SELECT count(*) FROM pg_class WHERE relname = 't2' AND relnamespace = '$_'::regnamespace"
		),
		'0',
		"$what: nothing is run in $_") foreach @schemas;
	return;
}

foreach my $format ('dbpool', 'refinery', 'sqlx')
{
	subtest "$format: a second deployer with another role" => sub {
		my $pool = "second_$format";
		my @list = migrations('CREATE TABLE t1 (i int)', 'CREATE TABLE t2 (i int)');

		# the first one's tables are in his schema, the second one has one of his own
		$remote->safe_psql(
			'postgres', qq{
			CREATE ROLE ${format}_one LOGIN SUPERUSER; CREATE ROLE ${format}_two LOGIN SUPERUSER;
			CREATE SCHEMA ${format}_one; CREATE SCHEMA ${format}_two; CREATE SCHEMA "${format} History"});
		create_pool($local, $pool, $remote, history_format => $format);
		my $mapping = sub {
			my ($user) = @_;
			$local->safe_psql('postgres',
				"DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER $pool; CREATE USER MAPPING FOR CURRENT_USER SERVER $pool OPTIONS (user '$user', password_required 'false')");
		};
		$mapping->("${format}_one");
		register($pool, $list[0]);
		is(run_dbpool($pool), '1', 'the first one migrates');
		is( $remote->safe_psql('postgres', "SELECT count(*) FROM ${format}_one.t1"),
			'0', 'in his schema');
		$mapping->("${format}_two");
		register($pool, $list[1]);
		refuses(
			$pool,
			'the second one',
			qr/the remote of pool "$pool" has no history of migrations, and the history here says/,
			"${format}_two", 'public');
		my $answer = $control->query("SELECT * FROM dbpool_migrate('$pool', allow_missing => true)");
		is($answer->{state}, '55000', 'whatever may be missing');
		like(
			$answer->{err},
			qr/last version is 1 "make_no_1".*the search_path's schemas "${format}_two", "public" of database "postgres", as role "${format}_two".*HINT: .*history_schema.*dbpool_migration_forget\('$pool'\).*dbpool_migration_baseline\('$pool', /s,
			'where it was looked for, and what to do');
		is($control->query("SELECT * FROM dbpool_migration_rollback('$pool')")->{state},
			'55000', 'nothing is rolled back');
		is($control->query("SELECT * FROM dbpool_migrate('$pool', fake => true)")->{state},
			'55000', 'nor noted');
		like($control->query("SELECT * FROM dbpool_migration_status('$pool')")->{err},
			qr/WARNING: .*has no history of migrations/, 'the status says so');

		# named, it is found by both
		$local->safe_psql('postgres',
			"ALTER SERVER $pool OPTIONS (ADD history_schema '${format}_one')");
		is(statuses($pool), '1 applied, 2 pending', 'history_schema says where it is');
		is(run_dbpool($pool), '2', 'so the second one goes on');
		is( $remote->safe_psql('postgres', "SELECT count(*) FROM ${format}_two.t2"),
			'0', 'in his own schema');
		is( $remote->safe_psql('postgres',
				"SELECT to_regclass('${format}_two.dbpool_migration_history'), to_regclass('public.$table{$format}')"
			) =~ s/\|//r, '', 'the history stays where it was') if $format ne 'dbpool';
		$mapping->("${format}_one");
		is(statuses($pool), '1 applied, 2 applied', 'the first one knows');

		# moved elsewhere, and not
		$local->safe_psql('postgres',
			qq{ALTER SERVER $pool OPTIONS (SET history_schema '${format} History')});
		register($pool, { version => 3, name => 'm3', sql => 'CREATE TABLE t3 ()' });
		$answer = $control->query("SELECT * FROM dbpool_migrate('$pool')");
		is($answer->{state}, '55000', 'the option names another schema');
		like($answer->{err}, qr/is ${format}_one\..*, not in schema "$format History".*ALTER TABLE .* SET SCHEMA "$format History"/s,
			'and where the history is');
		my $name = $table{$format} || 'dbpool_migration_history';
		$remote->safe_psql('postgres',
			qq{ALTER TABLE ${format}_one.$name SET SCHEMA "$format History"});
		is(run_dbpool($pool), '3', 'it can be moved there');
		$local->safe_psql('postgres',
			"ALTER SERVER $pool OPTIONS (SET history_schema 'nowhere')");
		$answer = $control->query("SELECT * FROM dbpool_migration_status('$pool')");
		is($answer->{state}, '3F000', 'a schema that does not exist');
		like($answer->{err}, qr/has no schema "nowhere" for the history.*history_schema/s, 'by name');
	};

	subtest "$format: a new database" => sub {
		my $pool = pool("anew_$format", $format);

		register($pool, @some[ 0 .. 1 ]);
		is(run_dbpool($pool), '1 2', 'migrated');
		$remote->safe_psql('postgres', "DROP SCHEMA $pool CASCADE; CREATE SCHEMA $pool");
		refuses($pool, 'made anew', qr/has no history of migrations/, $pool);
		$control->value("SELECT dbpool_migration_baseline('$pool', 0)");
		is(run_dbpool($pool), '1 2', 'after a baseline it is migrated again');
		is(run_dbpool($pool), '', 'once');
		$remote->safe_psql('postgres', "DROP TABLE $pool." . ($table{$format} || 'dbpool_migration_history'));
		$control->value("SELECT dbpool_migration_baseline('$pool', 2)");
		is(run_dbpool($pool), '', 'or is what it is');
		is( $control->value("SELECT count(*) FROM dbpool_migration_status('$pool') WHERE status = 'applied'"),
			'2', 'which the status shows');
	};

	subtest "$format: a table that is made where history_schema says" => sub {
		my $pool = pool("made_$format", $format);
		my $name = $table{$format} || 'dbpool_migration_history';

		$remote->safe_psql('postgres', qq{CREATE SCHEMA "made in; $format"});
		$local->safe_psql('postgres',
			qq{ALTER SERVER $pool OPTIONS (ADD history_schema 'made in; $format')});
		register($pool, $some[0]);
		is(run_dbpool($pool), '1', 'migrated');
		is( $remote->safe_psql('postgres',
				qq{SELECT count(*), to_regclass('$pool.$name'), to_regclass('$pool.t1') FROM "made in; $format".$name}),
			"1||$pool.t1",
			'the history is there, and nothing else');
		$control->value("SELECT count(*) FROM dbpool_migration_rollback('$pool')");
		is(statuses($pool), '1 pending', 'and back');
	};
}

subtest 'some are missing there' => sub {
	my $pool = pool('partly', 'dbpool');

	register($pool, @some[ 0 .. 2 ]);
	is(run_dbpool($pool), '1 2 3', 'migrated');
	$remote->safe_psql('postgres',
		"DELETE FROM $pool.dbpool_migration_history WHERE version <> '1'; DROP TABLE $pool.t2, $pool.t3");
	my $answer = $control->query("SELECT * FROM dbpool_migrate('$pool')");
	is($answer->{state}, '55000', 'a backup from before');
	like(
		$answer->{err},
		qr/history of pool "$pool" lacks migrations that the history here has: 2 "make_no_2", 3 "make_no_3".*table $pool\.dbpool_migration_history, found in the search_path's schemas "$pool".*allow_missing => true/s,
		'which is told');
	is( $control->value(
			"SELECT string_agg(version || '', ' ') FROM dbpool_migrate('$pool', allow_missing => true)"),
		'2 3',
		'they are run again, if that is said');
	is( $control->value("SELECT count(*) FROM dbpool_migration_rollback('$pool', 2)"),
		2, 'what was rolled back');
	is(run_dbpool($pool), '2 3', 'is not missing');

	# another server has rolled it back
	$control->value("SELECT count(*) FROM dbpool_migration_rollback('$pool', 1)");
	$local->safe_psql('postgres',
		"DELETE FROM dbpool_migration_history WHERE pool = '$pool' AND direction = 'down'");
	is(run_dbpool($pool), '3', 'nor what others have');
};

# Tables of other tools as those make them, a row in each, and the version to go
# on from if it can be told.
my %tools = (
	'golang-migrate' => ['schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)', '(1, false)', 1],
	'goose' => [
		'goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp DEFAULT now())',
		'(1, 0, true), (2, 1, true), (3, 2, true), (4, 2, false)', 1 ],
	'Flyway' => [
		'flyway_schema_history (installed_rank int PRIMARY KEY, version varchar(50), description varchar(200) NOT NULL, type varchar(20) NOT NULL, script varchar(1000) NOT NULL, checksum int, installed_by varchar(100) NOT NULL, installed_on timestamp NOT NULL DEFAULT now(), execution_time int NOT NULL, success boolean NOT NULL)',
		q{(1, '9', 'a', 'SQL', 'V9__a.sql', 1, 'u', now(), 1, true), (2, '1', 'a', 'SQL', 'V1__a.sql', 1, 'u', now(), 1, true), (3, NULL, 'r', 'SQL', 'R__r.sql', 1, 'u', now(), 1, true), (4, '9', 'a', 'UNDO_SQL', 'U9__a.sql', 1, 'u', now(), 1, true), (5, '0.9', 'a', 'SQL', 'V0.9__a.sql', 1, 'u', now(), 1, true)}, 1 ],
	'dbmate or Rails' => ['schema_migrations (version varchar(128) PRIMARY KEY)', q{('1')}, 1],
	'Ecto' => ['schema_migrations (version bigint PRIMARY KEY, inserted_at timestamp)', '(1, now())', 1],
	'Prisma' => [
		'_prisma_migrations (id varchar(36) PRIMARY KEY, checksum varchar(64), finished_at timestamptz, migration_name varchar(255), logs text, rolled_back_at timestamptz, started_at timestamptz, applied_steps_count int)',
		q{('x', 'x', now(), '1_init', NULL, NULL, now(), 1), ('y', 'x', NULL, '2_x', NULL, NULL, now(), 1)}, 1 ],
	'Diesel' => ['__diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp)', q{('1', now())}, 1],
	'node-pg-migrate' => ['pgmigrations (id serial PRIMARY KEY, name varchar(255), run_on timestamp)', q{(1, '1_x', now())}, 1],
	'sql-migrate' => ['gorp_migrations (id text PRIMARY KEY, applied_at timestamptz)', q{('1_x.sql', now())}, 1],
	'tern' => ['schema_version (version int4 NOT NULL)', '(1)', 1],
	'rambler' => ['migrations (migration varchar(255) NOT NULL)', q{('1_x.sql')}, 1],
	'TypeORM' => ['migrations (id serial, timestamp bigint, name varchar)', q{(1, 1, 'x1')}, 1],
	'Laravel' => ['migrations (id serial, migration varchar(255), batch int)', q{(1, 'x', 1)}],
	'Django' => ['django_migrations (id bigint, app varchar(255), name varchar(255), applied timestamptz)', q{(1, 'a', '0001_initial', now())}],
	'Alembic' => ['alembic_version (version_num varchar(32))', q{('1975ea83b712')}],
	'Liquibase' => [
		'databasechangelog (id varchar(255), author varchar(255), filename varchar(255), dateexecuted timestamp, orderexecuted int, exectype varchar(10), md5sum varchar(35))',
		q{('1', 'a', 'f', now(), 1, 'EXECUTED', 'x')} ],
	'knex' => ['knex_migrations (id serial, name varchar(255), batch int, migration_time timestamptz)', q{(1, '1_x.js', 1, now())}, 1],
	'Sequelize' => ['"SequelizeMeta" (name varchar(255))', q{('1-x.js')}, 1],
	'Entity Framework' => ['"__EFMigrationsHistory" ("MigrationId" varchar(150), "ProductVersion" varchar(32))', q{('1_x', '8')}, 1],
	'MyBatis Migrations' => ['changelog (id numeric(20), applied_at varchar(25), description varchar(255))', q{(1, 'x', 'x')}, 1],
	'shmig' => ['shmig_version (version int, migrated_at timestamp)', '(1, now())', 1]);
foreach my $tool (sort keys %tools)
{
	subtest "a history of $tool" => sub {
		my ($table, $rows, $version) = @{ $tools{$tool} };
		my $pool = pool('tool_' . lc($tool =~ s/\W/_/gr), 'dbpool');

		register($pool, @some[ 0 .. 1 ]);
		# in a schema that comes later in the path
		$remote->safe_psql('postgres', "CREATE SCHEMA ${pool}_tool; CREATE TABLE ${pool}_tool.$table");
		$local->safe_psql('postgres',
			"ALTER SERVER $pool OPTIONS (SET options '-c search_path=$pool,${pool}_tool')");
		my ($name) = $table =~ /^(\S+)/;
		is( $control->value("SELECT string_agg(version || '', ' ') FROM dbpool_migrate('$pool', 1, dry_run => true)"),
			'1', 'an empty one is of no matter');
		$remote->safe_psql('postgres', "INSERT INTO ${pool}_tool.$name VALUES $rows");
		refuses(
			$pool, 'one with rows',
			qr/the remote of pool "$pool" has been migrated by \Q$tool\E, and has no history of dbpool/,
			$pool);
		my $answer = $control->query("SELECT * FROM dbpool_migrate('$pool')");
		my $wanted = $version || 'version';
		like(
			$answer->{err},
			qr/DETAIL: .*${pool}_tool\.\Q$name\E.*HINT: .*dbpool_migration_baseline\('$pool', $wanted\)/s,
			'names the table, and the way out');
		$control->value("SELECT dbpool_migration_baseline('$pool', 1)");
		is(run_dbpool($pool), '2', 'after a baseline it goes on');
	};
}

subtest 'histories of others, odd cases' => sub {
	my $pool = pool('dirty_tool', 'sqlx');

	register($pool, @some[ 0 .. 1 ]);
	$remote->safe_psql('postgres',
		"SET search_path = dirty_tool; CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL); INSERT INTO schema_migrations VALUES (2, true)");
	refuses($pool, 'dirty', qr/migrated by golang-migrate/, $pool);
	like($control->query("SELECT * FROM dbpool_migrate('$pool')")->{err},
		qr/"2", marked as dirty.*HINT: .*Mend it by the tool's own means first/s, 'is told');
	$control->value("SELECT dbpool_migration_baseline('$pool', 0)");
	is(run_dbpool($pool), '1 2', 'a baseline before all lets all of them run');

	# tables of an application that have such a name
	$pool = pool('no_tool', 'dbpool');
	register($pool, $some[0]);
	$remote->safe_psql(
		'postgres', q{
		SET search_path = no_tool;
		CREATE TABLE migrations (id int, species text, month int); INSERT INTO migrations VALUES (1, 'stork', 9);
		CREATE TABLE schema_version (version text, released date); INSERT INTO schema_version VALUES ('1', now());
		CREATE TABLE schema_migrations (id int, what text); INSERT INTO schema_migrations VALUES (1, 'x');
		CREATE TABLE changelog (id int, text text); INSERT INTO changelog VALUES (1, 'x');
		CREATE VIEW goose_db_version AS SELECT 1 AS id, 1 AS version_id, true AS is_applied, now() AS tstamp});
	is(run_dbpool($pool), '1', 'do not stop anybody');

	# one whose policies are somebody else's functions
	$pool = pool('policy_tool', 'dbpool');
	register($pool, $some[0]);
	$remote->safe_psql(
		'postgres', q{
		SET search_path = policy_tool;
		CREATE ROLE keeper; CREATE ROLE careful LOGIN; GRANT ALL ON SCHEMA policy_tool TO careful, keeper;
		CREATE TABLE seen (who text); GRANT ALL ON seen TO PUBLIC;
		CREATE FUNCTION spy() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO policy_tool.seen VALUES (current_user); RETURN true; END $$;
		CREATE TABLE goose_db_version (id int, version_id bigint, is_applied boolean, tstamp timestamp);
		INSERT INTO goose_db_version VALUES (1, 5, true, now());
		ALTER TABLE goose_db_version OWNER TO keeper; GRANT SELECT ON goose_db_version TO careful;
		ALTER TABLE goose_db_version ENABLE ROW LEVEL SECURITY;
		CREATE POLICY spy ON goose_db_version USING (policy_tool.spy())});
	$local->safe_psql('postgres',
		"ALTER USER MAPPING FOR CURRENT_USER SERVER $pool OPTIONS (ADD user 'careful', ADD password_required 'false')");
	refuses($pool, 'not read', qr/migrated by goose/, $pool);
	is($remote->safe_psql('postgres', 'SELECT count(*) FROM policy_tool.seen'),
		'0', 'no function of others is called');

	# one in a schema of its own
	$remote->safe_psql(
		'postgres', q{
		CREATE DATABASE by_sqitch});
	$remote->safe_psql(
		'by_sqitch', q{
		CREATE SCHEMA sqitch;
		CREATE TABLE sqitch.changes (change_id text, script_hash text, change text, project text, note text, committed_at timestamptz);
		INSERT INTO sqitch.changes VALUES ('x', 'x', 'app', 'app', '', now())});
	create_pool($local, 'by_sqitch', $remote, dbname => 'by_sqitch');
	register('by_sqitch', $some[0]);
	refuses('by_sqitch', 'in its own schema', qr/migrated by sqitch/);
};

# --- a remote that has dbpool itself --------------------------------------------------------------

subtest 'the extension is there too' => sub {
	$remote->safe_psql('postgres', 'CREATE DATABASE dbpool_inside');
	$remote->safe_psql('dbpool_inside',
		'CREATE EXTENSION dbpool; CREATE SCHEMA app');
	create_pool($local, 'inside', $remote, dbname => 'dbpool_inside');
	$control->value(
		q{SELECT dbpool_add_migration('inside', 1, 'm1', 'CREATE TABLE t ()')}
	);
	is(statuses('inside'), '1 pending', 'its table is not taken for a history');
	my $answer = $control->query(q{SELECT * FROM dbpool_migrate('inside')});
	is($answer->{state}, '42P07', 'the name is taken');
	like(
		$answer->{err},
		qr/the history of migrations of pool "inside" cannot be made: the remote's schema "public" has something else of the name "dbpool_migration_history".*HINT: +Have the pool use another schema/s,
		'which is told, and what to do');
	is( $remote->safe_psql('dbpool_inside',
			'SELECT count(*) FROM dbpool_migration_history'),
		'0',
		'it is left alone');
	$local->safe_psql('postgres',
		q{ALTER SERVER inside OPTIONS (ADD options '-c search_path=app')});
	is(run_dbpool('inside'), '1', 'another schema will do');
	$local->safe_psql('postgres',
		q{ALTER SERVER inside OPTIONS (SET options '-c search_path=public', ADD history_format 'sqlx')}
	);
	$control->value(
		q{SELECT dbpool_add_migration('inside', 2, 'm2', 'CREATE TABLE t2 ()', options => '{"out_of_order": true}')}
	);
	$control->value(q{SELECT dbpool_migration_baseline('inside', 0)});
	is(run_dbpool('inside'), '1 2', 'and so will another format');
};

# --- odd ones ----------------------------------------------------------------------------------------

subtest 'odd rows' => sub {
	my $pool = pool('odd', 'refinery');

	$remote->safe_psql('postgres',
		"SET search_path = odd; $ddl{refinery}; INSERT INTO refinery_schema_history VALUES (1, NULL, NULL, NULL), (2, '', 'yesterday', 'x')"
	);
	is(statuses($pool), '1 missing, 2 missing', 'nulls and nonsense');
	register($pool, @some[ 0 .. 1 ]);
	is(statuses($pool), '1 divergent, 2 divergent', 'are not what is known');
	$pool = pool('other_table', 'sqlx');
	$remote->safe_psql('postgres',
		'CREATE TABLE other_table._sqlx_migrations (version text)');
	my $answer =
	  $control->query("SELECT * FROM dbpool_migration_status('$pool')");
	isnt($answer->{state}, '', 'a table of that name that is another');
	is($local->psql(
			'postgres',
			q{CREATE SERVER bad FOREIGN DATA WRAPPER dbpool OPTIONS (history_format 'flyway')}
		),
		3,
		'a format that there is not');
};

$there->quit;
$control->quit;
done_testing();
