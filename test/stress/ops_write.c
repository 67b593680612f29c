/*
 * ops_write.c
 *	  What writes on the remote, or may.
 *
 * The tables and functions of the remote are in remote.sql.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

/* What a row of the log has as its payload, see stress_payload(). */
static int
payload_times(const Op *op)
{
	return op->serial % 500 == 0 ? 20000 : 1 + op->serial % 40;
}

/* The first four parameters of writes. */
void
write_params(Op *op, int rows)
{
	op->writes = true;
	op->leaves = rows;
	param(op, number(op, op->session));
	param(op, number(op, op->serial));
	param(op, print(op, "s%d.%d.", op->session, op->serial));
	param(op, number(op, payload_times(op)));
}

void
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

void
make_insert_exec(Op *op)
{
	write_params(op, 1);
	as_exec(op, 1, INSERT "VALUES (" ROW("0") ")");
}

void
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

void
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
void
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

void
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
void
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

void
make_slow_commit(Op *op)
{
	late(op, NULL);
}

void
make_failing_commit(Op *op)
{
	late(op, tag(op));
	op->leaves = 0;
	expect_error(op, "23514", tag(op));
}

void
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
void
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
void
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

void
make_insert_zero(Op *op)
{
	write_params(op, 0);
	as_query(op, "a int",
			 INSERT "SELECT " ROW("i") " FROM generate_series(0, 100) AS i"
			 " WHERE 1 / (50 - i) IS NOT NULL RETURNING part");
	expect_error(op, "22012", "division by zero");
}

void
make_insert_twice(Op *op)
{
	write_params(op, 0);
	as_query(op, "a int",
			 "WITH l AS (" INSERT "VALUES (" ROW("0") ") RETURNING 1)"
			 " INSERT INTO stress_fixed SELECT $2::int % 100, 'twice' FROM l RETURNING k");
	expect_error(op, "23505", "stress_fixed_pkey");
}

void
make_insert_raise(Op *op)
{
	write_params(op, 0);
	param(op, some_state());
	param(op, tag(op));
	as_query(op, "a text",
			 INSERT "VALUES (" ROW("0") ") RETURNING stress_raise($5, $6)");
	expect_error(op, op->params[4], op->params[5]);
}

/* The remote has nothing against it, but its answer does not fit. */
void
make_insert_bad_value(Op *op)
{
	write_params(op, 1);
	as_query(op, "a int", INSERT "VALUES (" ROW("0") ") RETURNING 'no number'");
	expect_error(op, "22P02", "\"no number\"");
	op->runs = true;
}
