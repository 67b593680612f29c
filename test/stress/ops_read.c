/*
 * ops_read.c
 *	  What leaves nothing on the remote: reads, looks for what others left, errors.
 *
 * The tables and functions of the remote are in remote.sql.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

/* --- reads -------------------------------------------------------------------- */

void
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
void
make_lookup(Op *op)
{
	int			k = (int) random_below(100);

	param(op, number(op, k));
	as_query(op, "k int, v text", "SELECT k, v FROM stress_fixed WHERE k = $1");
	cell(op, number(op, k));
	cell(op, print(op, "value %d", k));
}

/* The type of v changes all the time. */
void
make_shifting(Op *op)
{
	int			k = (int) random_below(100);

	param(op, number(op, k));
	as_query(op, "v text", "SELECT v FROM stress_shifting WHERE k = $1");
	cell(op, number(op, k * 10));
}

void
make_nothing(Op *op)
{
	param(op, tag(op));
	as_query(op, "a text", "SELECT $1::text WHERE false");
	op->nrows = 0;
	op->ncells = 1;
}

void
make_row(Op *op)
{
	param(op, tag(op));
	set_sql(op, "SELECT $1::text, 7, NULL");
	op->nrows = 1;
	op->local = print(op, "SELECT dbpool_query(%s)", placeholders(op));
	cell(op, print(op, "(%s,7,)", tag(op)));
}

void
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

void
make_series(Op *op)
{
	series(op, (int) random_below(100));
}

void
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

void
make_big_value(Op *op)
{
	int			n = some_size();

	param(op, tag(op));
	param(op, number(op, n));
	as_query(op, "a text", "SELECT repeat($1, $2::int)");
	cell(op, repeat(op, op->params[0], n));
	is_slow(op);
}

void
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

void
make_sleep(Op *op)
{
	param(op, tag(op));
	param(op, print(op, "%.3f", random_below(100) / 1000.0));
	as_query(op, "a text, b text", "SELECT $1::text, pg_sleep($2::float8)");
	cell(op, op->params[0]);
	cell(op, "");
	is_slow(op);
}

void
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
void
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
void
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

void
make_notice(Op *op)
{
	op->notices = 1 + (int) random_below(3);
	param(op, print(op, "stress %s", tag(op)));
	param(op, number(op, op->notices));
	as_query(op, "a text", "SELECT stress_notice($1, $2::int)");
	cell(op, op->params[0]);
}

void
make_ping(Op *op)
{
	op->nrows = 1;
	op->sql = print(op, "ping");
	op->local = print(op, "SELECT dbpool_ping($1) IS NOT NULL AND $2 <> ''");
	cell(op, "t");
}

/* --- what must not be seen by others --------------------------------------------- */

void
make_probe(Op *op)
{
	as_query(op, "a text", "SELECT stress_probe()");
	cell(op, print(op, "%s||4MB|\"$user\", public|0|off|read committed|0|0|0|0|0",
				   op->role));
}

void
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

void
make_left_setting(Op *op)
{
	param(op, tag(op));
	as_query(op, "a text", "SELECT set_config('stress.kept', $1, false)");
	cell(op, op->params[0]);
	is_delicate(op);
}

void
make_left_lock(Op *op)
{
	param(op, number(op, op->session));
	param(op, number(op, op->serial));
	as_query(op, "a text", "SELECT pg_advisory_lock($1::int, $2::int)");
	cell(op, "");
	is_delicate(op);
}

/* Nobody can see from outside that this takes away what the pool has prepared. */
void
make_deallocate(Op *op)
{
	param(op, tag(op));
	as_query(op, "a text", "SELECT stress_deallocate($1)");
	cell(op, op->params[0]);
}

/* --- errors ----------------------------------------------------------------------- */

void
make_zero(Op *op)
{
	param(op, "0");
	as_query(op, "a int", "SELECT 1 / $1::int");
	expect_error(op, "22012", "division by zero");
}

void
make_zero_midway(Op *op)
{
	param(op, number(op, (int) random_below(1000)));
	as_query(op, "a int, b int",
			 "SELECT i, 1 / (i - $1::int) FROM generate_series(0, 1000) AS i");
	expect_error(op, "22012", "division by zero");
}

void
make_bad_cast(Op *op)
{
	param(op, tag(op));
	as_query(op, "a int", "SELECT $1::int");
	expect_error(op, "22P02", print(op, "\"%s\"", tag(op)));
}

void
make_raise(Op *op)
{
	static const char *const messages[] = {
		"", " cached plan must not change result type",
		" canceling statement due to user request",
		" prepared statement \"dbpool_1\" does not exist"
	};

	param(op, some_state());
	param(op, print(op, "%s%s", tag(op), messages[random_below(lengthof(messages))]));
	as_query(op, "a text", "SELECT stress_raise($1, $2)");
	expect_error(op, op->params[0], op->params[1]);
}

void
make_syntax(Op *op)
{
	as_query(op, "a text", "SELEC 1");
	expect_error(op, "42601", "SELEC");
}

/* Found by the local server while rows arrive. */
void
make_bad_value(Op *op)
{
	param(op, tag(op));
	as_query(op, "a int", "SELECT $1::text FROM generate_series(1, 1000)");
	expect_error(op, "22P02", print(op, "\"%s\"", tag(op)));
}

void
make_bad_shape(Op *op)
{
	as_query(op, "a int", "SELECT 1, 2 FROM generate_series(1, 1000)");
	expect_error(op, "42804", "");
}

void
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
