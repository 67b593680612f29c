/*
 * ops.c
 *	  What a session may do: what all that is made of, and the choice.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

/* A string that lives as long as the operation. */
static char *
keep(Op *op, char *string)
{
	if (string == NULL || op->nstrings == MAX_STRINGS)
		abort();
	op->strings[op->nstrings++] = string;
	return string;
}

char *
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

char *
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
char *
tag(Op *op)
{
	return print(op, "s%d.%d", op->session, op->serial);
}

char *
number(Op *op, int n)
{
	return print(op, "%d", n);
}

void
param(Op *op, const char *value)
{
	op->params[op->nparams++] = value;
}

void
cell(Op *op, const char *value)
{
	op->cells[op->ncells++] = value;
}

/* The answer is to be an error. */
void
expect_error(Op *op, const char *state, const char *message)
{
	op->state = state;
	op->message = message;
}

/* It takes some time: worth cancelling. */
void
is_slow(Op *op)
{
	op->act_chance = 0.2;
	op->act_within = 50;
}

/* It is worth cancelling, but does not take long. */
void
is_delicate(Op *op)
{
	op->act_chance = 0.2;
	op->act_within = 4;
}

/*
 * The remote statement.  A remark makes the same statement known by one text,
 * by several, or by one that will not come again.
 */
void
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

char *
placeholders(Op *op)
{
	char	   *list = print(op, "$1, $2");

	for (int i = 0; i < op->nparams; i++)
		list = print(op, "%s, $%d", list, i + 3);
	return list;
}

/* Rows, with a list of columns; the parameters have been set. */
void
as_query(Op *op, const char *columns, const char *sql)
{
	set_sql(op, sql);
	op->nrows = 1;
	op->local = print(op, "SELECT * FROM dbpool_query(%s) AS t(%s)",
					  placeholders(op), columns);
}

/* The sum of affected rows. */
void
as_exec(Op *op, int affected, const char *sql)
{
	set_sql(op, sql);
	op->nrows = 1;
	cell(op, number(op, affected));
	op->local = print(op, "SELECT dbpool_exec(%s)", placeholders(op));
}

/* A text, or NULL.  It begins with the name, unless it is empty. */
char *
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

/* A SQLSTATE.  Among them are those that a pool may take for a sign of something else. */
const char *
some_state(void)
{
	static const char *const states[] = {
		"P0001", "40001", "40P01", "57014", "0A000", "26000", "42P05", "08006",
		"08P01", "57P01", "25P02", "53300", "XX000"
	};

	return states[random_below(lengthof(states))];
}

/*
 * A statement that is short until it is not: a pool learns to let others run
 * behind it, then it takes longer and is given up.  dbpool lets it be for some
 * 20 ms more.  It ends about when the cancel comes, which may hit one of those
 * behind.  Each such text is used for a while.
 */
double
moody_sleep(Op *op, int n)
{
	op->remark = print(op, "/* moody %d */", n / 80);
	if (n % 80 < 60 || chance(0.7))
		return 0.003;
	op->act_chance = 0.9;
	op->act_after = 3;
	return 0.022 + random_below(10) / 1000.0;
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
	{60, make_bound},
	{30, make_named},
	{40, make_two_phase},
	{30, make_batch},
	{20, make_independent},
	{20, make_exec_batch},
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
