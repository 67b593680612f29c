/*
 * ops_transaction.c
 *	  Transactions over several calls, and batches.
 *
 * Each is one statement of the session: a function of local.sql, which makes the calls.
 */
#include <stdio.h>
#include <string.h>

#include "ops.h"

/* A row of the log, whose part is the parameter after the four of writes. */
#define ONE_PART	INSERT "VALUES (" ROW("$5::int") ")"

/* Half of those that may fail do, when they have written. */
static void
may_fail(Op *op)
{
	bool		fails = chance(0.3);

	param(op, fails ? tag(op) : NULL);
	if (fails)
	{
		op->leaves = 0;
		expect_error(op, "P0001", tag(op));
	}
}

/* The function is given the parameters; it returns the serial number. */
static void
as_function(Op *op, const char *function, const char *sql)
{
	op->function = function;
	op->sql = print(op, "%s", sql);
	op->nrows = 1;
	op->local = print(op, "SELECT %s(%s)", function, placeholders(op));
	cell(op, number(op, op->serial));
	is_delicate(op);
}

/* Two rows that stay, and one whose subtransaction fails. */
void
make_bound(Op *op)
{
	write_params(op, 2);
	may_fail(op);
	as_function(op, "stress_bound", ONE_PART);
}

void
make_named(Op *op)
{
	write_params(op, 2);
	may_fail(op);
	as_function(op, "stress_named", ONE_PART);
}

/*
 * A row here, and one by each of two pools.  All take the pools in the same order: who
 * has one may wait for the other.
 */
void
make_two_phase(Op *op)
{
	static const char *const firsts[] = {"cut", "fast", "plain"};

	op->pool = firsts[random_below(lengthof(firsts))];
	write_params(op, 2);
	may_fail(op);
	as_function(op, "stress_two_phase", ONE_PART);
}

/* How many statements, or rows. */
static void
some_rows(Op *op)
{
	int			n = 1 + (int) random_below(chance(0.05) ? 1000 : 20);

	write_params(op, n);
	param(op, number(op, n));
}

/* The last of its statements may fail. */
void
make_batch(Op *op)
{
	bool		fails = chance(0.2);

	some_rows(op);
	param(op, fails ? "SELECT 1 / 0" : NULL);
	if (fails)
	{
		op->leaves = 0;
		expect_error(op, "22012", "division by zero");
	}
	as_function(op, "stress_batch", ONE_PART);
}

/* A write among reads; what it says of that one is made an error. */
void
make_independent(Op *op)
{
	write_params(op, 1);
	as_function(op, "stress_independent", ONE_PART);
}

void
make_exec_batch(Op *op)
{
	some_rows(op);
	as_function(op, "stress_exec_batch", ONE_PART);
}
