/*
 * ops.c
 *	  What a session may do, and what has to come of it.
 *
 * The tables and functions of the remote are in remote.sql.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stress.h"

/* A string that lives as long as the operation. */
static char *
keep(Op *op, char *string)
{
	if (string == NULL || op->nstrings == MAX_STRINGS)
		abort();
	op->strings[op->nstrings++] = string;
	return string;
}

static char *print(Op *op, const char *format,...) __attribute__((format(printf, 2, 3)));

static char *
print(Op *op, const char *format,...)
{
	va_list		args;
	char	   *string = NULL;

	va_start(args, format);
	if (vasprintf(&string, format, args) < 0)
		abort();
	va_end(args);
	return keep(op, string);
}

static char *
repeat(Op *op, const char *what, int times)
{
	size_t		len = strlen(what);
	char	   *string = malloc(len * times + 1);

	if (string == NULL)
		abort();
	for (int i = 0; i < times; i++)
		memcpy(string + i * len, what, len);
	string[len * times] = '\0';
	return keep(op, string);
}

/* The operation's name. */
static char *
tag(Op *op)
{
	return print(op, "s%d.%d", op->session, op->serial);
}

static char *
number(Op *op, int n)
{
	return print(op, "%d", n);
}

static void
param(Op *op, const char *value)
{
	op->params[op->nparams++] = value;
}

static void
cell(Op *op, const char *value)
{
	op->cells[op->ncells++] = value;
}

/* The answer is to be an error. */
static void
expect_error(Op *op, const char *state, const char *message)
{
	op->state = state;
	op->message = message;
}

/* It takes some time: worth cancelling. */
static void
is_slow(Op *op)
{
	op->act_chance = 0.2;
	op->act_within = 50;
}

/* It is worth cancelling, but does not take long. */
static void
is_delicate(Op *op)
{
	op->act_chance = 0.2;
	op->act_within = 4;
}

/*
 * The remote statement.  A remark makes the same statement known by one text,
 * by several, or by one that will not come again.
 */
static void
set_sql(Op *op, const char *sql)
{
	int			dice = (int) random_below(100);

	if (op->remark != NULL)
		op->sql = print(op, "%s %s", op->remark, sql);
	else if (dice < 45)
		op->sql = print(op, "%s", sql);
	else if (dice < 90)
		op->sql = print(op, "/* %d */ %s", dice % 10, sql);
	else
		op->sql = print(op, "/* %d.%d */ %s", op->session, op->serial, sql);
}

static char *
placeholders(Op *op)
{
	char	   *list = print(op, "$1, $2");

	for (int i = 0; i < op->nparams; i++)
		list = print(op, "%s, $%d", list, i + 3);
	return list;
}

/* Rows, with a list of columns; the parameters have been set. */
static void
as_query(Op *op, const char *columns, const char *sql)
{
	set_sql(op, sql);
	op->nrows = 1;
	op->local = print(op, "SELECT * FROM dbpool_query(%s) AS t(%s)",
					  placeholders(op), columns);
}

/* The sum of affected rows. */
static void
as_exec(Op *op, int affected, const char *sql)
{
	set_sql(op, sql);
	op->nrows = 1;
	cell(op, number(op, affected));
	op->local = print(op, "SELECT dbpool_exec(%s)", placeholders(op));
}

/* A text, or NULL.  It begins with the name, unless it is empty. */
static char *
some_text(Op *op)
{
	static const char *const ends[] = {
		"", "'", "\"", "\\", " $1 ", "%s", "\t\n\r", "{,}", "()",
		"\xc5\xbc\xc3\xb3\xc5\x82\xc4\x87", "\xf0\x9f\x90\x98", "; --", "/*"
	};
	int			dice = (int) random_below(200);

	if (dice < 10)
		return NULL;
	if (dice < 20)
		return print(op, "%s", "");
	if (dice < 22)
		return repeat(op, tag(op), 1 + (int) random_below(50000));
	if (dice < 40)
		return repeat(op, tag(op), 1 + (int) random_below(1000));
	return print(op, "s%d.%d %s", op->session, op->serial,
				 ends[random_below(lengthof(ends))]);
}

/* --- reads -------------------------------------------------------------------- */

static void
make_echo(Op *op)
{
	char	   *n = number(op, (int) random_below(1000000) - 500000);
	char	   *text = some_text(op);

	param(op, n);
	param(op, text);
	as_query(op, "a int, b text, c int",
			 "SELECT $1::int, $2::text, octet_length($2)");
	cell(op, n);
	cell(op, text);
	cell(op, text == NULL ? NULL : number(op, (int) strlen(text)));
}

/* The parameter's type is for the remote to infer. */
static void
make_lookup(Op *op)
{
	int			k = (int) random_below(100);

	param(op, number(op, k));
	as_query(op, "k int, v text", "SELECT k, v FROM stress_fixed WHERE k = $1");
	cell(op, number(op, k));
	cell(op, print(op, "value %d", k));
}

/* The type of v changes all the time. */
static void
make_shifting(Op *op)
{
	int			k = (int) random_below(100);

	param(op, number(op, k));
	as_query(op, "v text", "SELECT v FROM stress_shifting WHERE k = $1");
	cell(op, number(op, k * 10));
}

static void
make_nothing(Op *op)
{
	param(op, tag(op));
	as_query(op, "a text", "SELECT $1::text WHERE false");
	op->nrows = 0;
	op->ncells = 1;
}

static void
make_row(Op *op)
{
	param(op, tag(op));
	set_sql(op, "SELECT $1::text, 7, NULL");
	op->nrows = 1;
	op->local = print(op, "SELECT dbpool_query(%s)", placeholders(op));
	cell(op, print(op, "(%s,7,)", tag(op)));
}

static void
make_json(Op *op)
{
	param(op, number(op, op->serial));
	param(op, some_text(op));
	set_sql(op, "SELECT $1::int AS a, $2::text AS b");
	op->nrows = 1;
	op->local = print(op,
					  "SELECT r = jsonb_build_object('a', $3::int, 'b', $4)"
					  " FROM dbpool_query_json(%s) AS r", placeholders(op));
	cell(op, "t");
}

static void
series(Op *op, int n)
{
	param(op, tag(op));
	param(op, number(op, n));
	as_query(op, "a text, i int",
			 "SELECT $1::text, i FROM generate_series(0, $2::int - 1) AS i");
	op->nrows = n;
	cell(op, op->params[0]);
	op->numbered = true;
}

static void
make_series(Op *op)
{
	series(op, (int) random_below(100));
}

static void
make_long_series(Op *op)
{
	series(op, (int) random_below(30000));
	is_slow(op);
}

/* How often to repeat a name so that it becomes a big value: up to some MB. */
static int
some_size(void)
{
	return 1 + (int) random_below(chance(0.05) ? 400000 : 50000);
}

static void
make_big_value(Op *op)
{
	int			n = some_size();

	param(op, tag(op));
	param(op, number(op, n));
	as_query(op, "a text", "SELECT repeat($1, $2::int)");
	cell(op, repeat(op, op->params[0], n));
	is_slow(op);
}

static void
make_big_param(Op *op)
{
	int			n = some_size();

	param(op, repeat(op, tag(op), n));
	as_query(op, "a int, b text", "SELECT length($1), right($1, 20)");
	cell(op, number(op, (int) strlen(op->params[0])));
	cell(op, op->params[0] + (strlen(op->params[0]) > 20 ?
							  strlen(op->params[0]) - 20 : 0));
	is_slow(op);
}

static void
make_sleep(Op *op)
{
	param(op, tag(op));
	param(op, print(op, "%.3f", random_below(100) / 1000.0));
	as_query(op, "a text, b text", "SELECT $1::text, pg_sleep($2::float8)");
	cell(op, op->params[0]);
	cell(op, "");
	is_slow(op);
}

/*
 * A statement that is short until it is not: a pool learns to let others run
 * behind it, then it takes longer and is given up.  dbpool lets it be for some
 * 20 ms more.  It ends about when the cancel comes, which may hit one of those
 * behind.  Each such text is used for a while.
 */
static double
moody_sleep(Op *op, int n)
{
	op->remark = print(op, "/* moody %d */", n / 80);
	if (n % 80 < 60 || chance(0.7))
		return 0.003;
	op->act_chance = 0.9;
	op->act_after = 3;
	return 0.022 + random_below(10) / 1000.0;
}

static void
make_moody(Op *op)
{
	static int	n;
	double		sleep = moody_sleep(op, n++);

	param(op, tag(op));
	param(op, print(op, "%.3f", sleep));
	as_query(op, "a text, b text", "SELECT $1::text, pg_sleep($2::float8)");
	cell(op, op->params[0]);
	cell(op, "");
}

/* The same, with rows that have left the remote when it stalls. */
static void
make_moody_rows(Op *op)
{
	static int	n;
	double		sleep = moody_sleep(op, n++);

	param(op, tag(op));
	param(op, print(op, "%.3f", sleep));
	as_query(op, "a text, b int",
			 "SELECT repeat($1, 4), i FROM generate_series(0, 249) AS i"
			 " WHERE i < 249 OR pg_sleep($2::float8) IS NOT NULL");
	op->nrows = 250;
	cell(op, repeat(op, op->params[0], 4));
	op->numbered = true;
}

/* Several calls of one local statement. */
static void
make_lateral(Op *op)
{
	param(op, tag(op));
	set_sql(op, "SELECT $1::text, $2::int");
	op->local = print(op,
					  "SELECT t.* FROM generate_series(0, 2) AS i,"
					  " LATERAL dbpool_query($1, $2, $3, i) AS t(a text, b int)");
	op->nrows = 3;
	cell(op, op->params[0]);
	op->numbered = true;
}

static void
make_notice(Op *op)
{
	op->notices = 1 + (int) random_below(3);
	param(op, print(op, "stress %s", tag(op)));
	param(op, number(op, op->notices));
	as_query(op, "a text", "SELECT stress_notice($1, $2::int)");
	cell(op, op->params[0]);
}

static void
make_ping(Op *op)
{
	op->nrows = 1;
	op->sql = print(op, "ping");
	op->local = print(op, "SELECT dbpool_ping($1) IS NOT NULL AND $2 <> ''");
	cell(op, "t");
}

/* --- what must not be seen by others --------------------------------------------- */

static void
make_probe(Op *op)
{
	as_query(op, "a text", "SELECT stress_probe()");
	cell(op, print(op, "%s||4MB|\"$user\", public|0|off|read committed|0|0|0|0|0",
				   op->role));
}

static void
make_leftover(Op *op)
{
	static const char *const scripts[] = {
		"SET work_mem = '77MB'",
		"SET search_path = pg_catalog",
		"SET statement_timeout = '1ms'",
		"SET default_transaction_read_only = on",
		"SET default_transaction_isolation = 'serializable'",
		"SET ROLE stress_guest",
		"SET DateStyle = 'German'",
		"SET stress.kept = 'x'; SET TimeZone = 'Asia/Tokyo'",
		"CREATE TEMP TABLE stress_left (a int)",
		"LISTEN stress_left",
		"PREPARE stress_left AS SELECT 1",
		"DECLARE stress_left CURSOR WITH HOLD FOR SELECT 1",
		"BEGIN; SET stress.kept = 'x'; COMMIT",
		"BEGIN; SET stress.kept = 'x'; COMMIT;"
		" DO $$ BEGIN PERFORM pg_sleep(0.005); END $$",
		"DO $$ BEGIN PERFORM set_config('stress.kept', 'x', false); END $$",
		"DEALLOCATE ALL",
		"DISCARD PLANS",
		"DISCARD ALL",
		"RESET ALL",
	};

	as_exec(op, 0, scripts[random_below(lengthof(scripts))]);
	is_delicate(op);
	/* the same as a query, which is known by its text */
	if (strchr(op->sql, ';') == NULL && chance(0.5))
	{
		op->local = print(op, "SELECT dbpool_query_json($1, $2)");
		op->nrows = 0;
	}
}

static void
make_left_setting(Op *op)
{
	param(op, tag(op));
	as_query(op, "a text", "SELECT set_config('stress.kept', $1, false)");
	cell(op, op->params[0]);
	is_delicate(op);
}

static void
make_left_lock(Op *op)
{
	param(op, number(op, op->session));
	param(op, number(op, op->serial));
	as_query(op, "a text", "SELECT pg_advisory_lock($1::int, $2::int)");
	cell(op, "");
	is_delicate(op);
}

/* Nobody can see from outside that this takes away what the pool has prepared. */
static void
make_deallocate(Op *op)
{
	param(op, tag(op));
	as_query(op, "a text", "SELECT stress_deallocate($1)");
	cell(op, op->params[0]);
}

/* --- errors ----------------------------------------------------------------------- */

static void
make_zero(Op *op)
{
	param(op, "0");
	as_query(op, "a int", "SELECT 1 / $1::int");
	expect_error(op, "22012", "division by zero");
}

static void
make_zero_midway(Op *op)
{
	param(op, number(op, (int) random_below(1000)));
	as_query(op, "a int, b int",
			 "SELECT i, 1 / (i - $1::int) FROM generate_series(0, 1000) AS i");
	expect_error(op, "22012", "division by zero");
}

static void
make_bad_cast(Op *op)
{
	param(op, tag(op));
	as_query(op, "a int", "SELECT $1::int");
	expect_error(op, "22P02", print(op, "\"%s\"", tag(op)));
}

/* Among them those that a pool may take for a sign of something else. */
static const char *const raised[] = {
	"P0001", "40001", "40P01", "57014", "0A000", "26000", "42P05", "08006",
	"08P01", "57P01", "25P02", "53300", "XX000"
};

static void
make_raise(Op *op)
{
	static const char *const messages[] = {
		"", " cached plan must not change result type",
		" canceling statement due to user request",
		" prepared statement \"dbpool_1\" does not exist"
	};

	param(op, raised[random_below(lengthof(raised))]);
	param(op, print(op, "%s%s", tag(op), messages[random_below(lengthof(messages))]));
	as_query(op, "a text", "SELECT stress_raise($1, $2)");
	expect_error(op, op->params[0], op->params[1]);
}

static void
make_syntax(Op *op)
{
	as_query(op, "a text", "SELEC 1");
	expect_error(op, "42601", "SELEC");
}

/* Found by the local server while rows arrive. */
static void
make_bad_value(Op *op)
{
	param(op, tag(op));
	as_query(op, "a int", "SELECT $1::text FROM generate_series(1, 1000)");
	expect_error(op, "22P02", print(op, "\"%s\"", tag(op)));
}

static void
make_bad_shape(Op *op)
{
	as_query(op, "a int", "SELECT 1, 2 FROM generate_series(1, 1000)");
	expect_error(op, "42804", "");
}

static void
make_copy(Op *op)
{
	if (chance(0.5))
	{
		as_exec(op, 0, "COPY stress_fixed TO STDOUT");
		expect_error(op, "0A000", "COPY TO STDOUT");
	}
	else
	{
		as_exec(op, 0, "COPY stress_fixed FROM STDIN");
		expect_error(op, "57014", "COPY from stdin failed");
	}
}

/* --- writes ----------------------------------------------------------------------- */

/* What a row of the log has as its payload, see stress_payload(). */
static int
payload_times(const Op *op)
{
	return op->serial % 500 == 0 ? 20000 : 1 + op->serial % 40;
}

/* The first four parameters of writes. */
static void
write_params(Op *op, int rows)
{
	op->writes = true;
	op->leaves = rows;
	param(op, number(op, op->session));
	param(op, number(op, op->serial));
	param(op, print(op, "s%d.%d.", op->session, op->serial));
	param(op, number(op, payload_times(op)));
}

/* Row number "part" of a write, given those parameters. */
#define ROW(part) \
	"$1::int, $2::int, " part ", repeat($3 || " part " || ';', $4::int)"
#define INSERT	"INSERT INTO stress_log (session, serial, part, payload) "

static void
make_insert(Op *op)
{
	op->writes = true;
	op->leaves = 1;
	param(op, number(op, op->session));
	param(op, number(op, op->serial));
	param(op, repeat(op, print(op, "s%d.%d.0;", op->session, op->serial),
					 payload_times(op)));
	as_query(op, "a int, b int, c text",
			 INSERT "VALUES ($1, $2, 0, $3) RETURNING session, serial, payload");
	for (int i = 0; i < 3; i++)
		cell(op, op->params[i]);
}

static void
make_insert_exec(Op *op)
{
	write_params(op, 1);
	as_exec(op, 1, INSERT "VALUES (" ROW("0") ")");
}

static void
make_insert_many(Op *op)
{
	int			n = 1 + (int) random_below(chance(0.05) ? 1000 : 20);

	write_params(op, n);
	param(op, number(op, n));
	as_query(op, "i int",
			 INSERT "SELECT " ROW("i")
			 " FROM generate_series(0, $5::int - 1) AS i RETURNING part");
	op->nrows = n;
	op->numbered = true;
}

static void
make_insert_with(Op *op)
{
	write_params(op, 2);
	as_query(op, "a int, b int",
			 "WITH a AS (" INSERT "VALUES (" ROW("0") ") RETURNING session),"
			 " b AS (" INSERT "VALUES (" ROW("1") ") RETURNING serial)"
			 " SELECT session, serial FROM a, b");
	cell(op, op->params[0]);
	cell(op, op->params[1]);
}

/* A row that all sessions write: what is lost or done twice shows in its sum. */
static void
make_hot(Op *op)
{
	write_params(op, 1);
	param(op, number(op, 1 + (int) random_below(4)));
	as_query(op, "a int, b int",
			 "WITH h AS (UPDATE stress_hot SET n = n + 1 WHERE id = $5 RETURNING id)"
			 "INSERT INTO stress_log (session, serial, part, payload, hot) SELECT "
			 ROW("0") ", true FROM h RETURNING session, serial");
	cell(op, op->params[0]);
	cell(op, op->params[1]);
}

static void
make_moody_insert(Op *op)
{
	static int	n;
	double		sleep = moody_sleep(op, n++);

	write_params(op, 1);
	param(op, print(op, "%.3f", sleep));
	as_query(op, "a int",
			 INSERT "SELECT " ROW("0") " FROM pg_sleep($5::float8) RETURNING serial");
	cell(op, op->params[1]);
}

/* Something that takes its time, before or after the write. */
static void
make_slow_insert(Op *op)
{
	write_params(op, 1);
	param(op, print(op, "%.3f", random_below(60) / 1000.0));
	if (chance(0.5))
		as_query(op, "a int, b text",
				 INSERT "SELECT " ROW("0") " FROM pg_sleep($5::float8)"
				 " RETURNING serial, NULL");
	else
		as_query(op, "a int, b text",
				 INSERT "VALUES (" ROW("0") ")"
				 " RETURNING serial, nullif(pg_sleep($5::float8)::text, '')");
	cell(op, op->params[1]);
	cell(op, NULL);
	is_slow(op);
}

/* The answer is complete before a deferred trigger runs, at the commit. */
static void
late(Op *op, const char *error)
{
	write_params(op, 1);
	param(op, error);
	as_query(op, "a int",
			 "WITH l AS (INSERT INTO stress_late VALUES ($5) RETURNING 1) "
			 INSERT "SELECT " ROW("0") " FROM l RETURNING serial");
	cell(op, op->params[1]);
	is_slow(op);
}

static void
make_slow_commit(Op *op)
{
	late(op, NULL);
}

static void
make_failing_commit(Op *op)
{
	late(op, tag(op));
	op->leaves = 0;
	expect_error(op, "23514", tag(op));
}

static void
make_script(Op *op)
{
	static const char *const scripts[] = {
		"%s; %s",
		"BEGIN; %s; %s; COMMIT",
		"%s; DO $$ BEGIN PERFORM pg_sleep(0.005); END $$; %s",
		"BEGIN; %s; SAVEPOINT a; INSERT INTO stress_fixed VALUES (1000, 'no');"
		" ROLLBACK TO a; %s; COMMIT",
	};
	int			which = (int) random_below(lengthof(scripts));
	char	   *insert[2];

	op->writes = true;
	op->leaves = 2;
	for (int i = 0; i < 2; i++)
		insert[i] = print(op, INSERT "SELECT %d, %d, %d, stress_payload(%d, %d, %d)",
						  op->session, op->serial, i, op->session, op->serial, i);
	as_exec(op, which == 3 ? 3 : 2,
			print(op, scripts[which], insert[0], insert[1]));
}

/* Committed, and not yet over: the answer may get lost, or be an error. */
static void
make_early_commit(Op *op)
{
	char	   *insert = print(op, INSERT "VALUES (%d, %d, 0, stress_payload(%d, %d, 0))",
							   op->session, op->serial, op->session, op->serial);

	op->writes = true;
	op->leaves = 1;
	is_slow(op);
	if (chance(0.8))
		as_exec(op, 1, print(op, "BEGIN; %s; COMMIT; DO $$ BEGIN"
							 " PERFORM pg_sleep(%.3f); END $$", insert,
							 random_below(60) / 1000.0));
	else
	{
		as_exec(op, 0, print(op, "BEGIN; %s; COMMIT; SELECT 1 / 0", insert));
		expect_error(op, "22012", "division by zero");
		op->runs = true;
	}
}

/* None of these may leave anything. */
static void
make_failing_script(Op *op)
{
	char	   *insert = print(op, INSERT "VALUES (%d, %d, 0, '')",
							   op->session, op->serial);
	int			dice = (int) random_below(4);

	op->writes = true;
	switch (dice)
	{
		case 0:
			as_exec(op, 0, print(op, "%s; SELECT 1 / 0", insert));
			break;
		case 1:
			as_exec(op, 0, print(op, "BEGIN; %s; SELECT 1 / 0; COMMIT", insert));
			break;
		case 2:
			as_exec(op, 0, print(op, "BEGIN; %s; %s", insert, insert));
			expect_error(op, "25000", "left a transaction open");
			return;
		case 3:
			as_exec(op, 0, "BEGIN");
			expect_error(op, "25000", "left a transaction open");
			return;
	}
	expect_error(op, "22012", "division by zero");
}

static void
make_insert_zero(Op *op)
{
	write_params(op, 0);
	as_query(op, "a int",
			 INSERT "SELECT " ROW("i") " FROM generate_series(0, 100) AS i"
			 " WHERE 1 / (50 - i) IS NOT NULL RETURNING part");
	expect_error(op, "22012", "division by zero");
}

static void
make_insert_twice(Op *op)
{
	write_params(op, 0);
	as_query(op, "a int",
			 "WITH l AS (" INSERT "VALUES (" ROW("0") ") RETURNING 1)"
			 " INSERT INTO stress_fixed SELECT $2::int % 100, 'twice' FROM l RETURNING k");
	expect_error(op, "23505", "stress_fixed_pkey");
}

static void
make_insert_raise(Op *op)
{
	write_params(op, 0);
	param(op, raised[random_below(lengthof(raised))]);
	param(op, tag(op));
	as_query(op, "a text",
			 INSERT "VALUES (" ROW("0") ") RETURNING stress_raise($5, $6)");
	expect_error(op, op->params[4], op->params[5]);
}

/* The remote has nothing against it, but its answer does not fit. */
static void
make_insert_bad_value(Op *op)
{
	write_params(op, 1);
	as_query(op, "a int", INSERT "VALUES (" ROW("0") ") RETURNING 'no number'");
	expect_error(op, "22P02", "\"no number\"");
	op->runs = true;
}

/* --- the choice -------------------------------------------------------------------- */

static const struct
{
	int			weight;
	void		(*make) (Op *op);
}			kinds[] = {
	{200, make_echo},
	{100, make_lookup},
	{60, make_shifting},
	{20, make_nothing},
	{30, make_row},
	{30, make_json},
	{50, make_series},
	{3, make_long_series},
	{3, make_big_value},
	{3, make_big_param},
	{20, make_sleep},
	{60, make_moody},
	{60, make_moody_rows},
	{15, make_lateral},
	{20, make_notice},
	{10, make_ping},
	{60, make_probe},
	{20, make_leftover},
	{10, make_left_setting},
	{10, make_left_lock},
	{5, make_deallocate},
	{15, make_zero},
	{10, make_zero_midway},
	{15, make_bad_cast},
	{25, make_raise},
	{5, make_syntax},
	{5, make_bad_value},
	{5, make_bad_shape},
	{4, make_copy},
	{150, make_insert},
	{50, make_insert_exec},
	{40, make_insert_many},
	{40, make_insert_with},
	{30, make_hot},
	{60, make_moody_insert},
	{20, make_slow_insert},
	{10, make_slow_commit},
	{10, make_failing_commit},
	{20, make_script},
	{20, make_early_commit},
	{10, make_failing_script},
	{15, make_insert_zero},
	{15, make_insert_twice},
	{15, make_insert_raise},
	{5, make_insert_bad_value},
};

/* Choose what to do; session, serial, role and pool have been set. */
void
op_make(Op *op)
{
	int			sum = 0;
	int			dice;
	int			i = 0;

	for (int k = 0; k < lengthof(kinds); k++)
		sum += kinds[k].weight;
	dice = (int) random_below(sum);
	while (dice >= kinds[i].weight)
		dice -= kinds[i++].weight;
	op->act_chance = 0.02;
	op->act_within = 4;
	kinds[i].make(op);
}

void
op_clear(Op *op)
{
	while (op->nstrings > 0)
		free(op->strings[--op->nstrings]);
}
