/*
 * savepoints.c
 *	  Local subtransactions as savepoints of a bound transaction.
 *
 * A savepoint is made only when a call is made within the subtransaction, and nothing is
 * sent when one begins or ends.  It is noted, and goes with the next call, as statements
 * before its own, the prelude: those that begin it; then ROLLBACK TO the outermost savepoint
 * whose subtransaction has failed; then RELEASE of the outermost that has ended either
 * way; then SAVEPOINT for each level of nesting that has none.
 *
 * The end of a subtransaction below the depth changes nothing, as nothing was called
 * in it; any other one takes the depth down, and what was noted of deeper levels is of
 * no matter: to roll back a level, or to release it, does so with all within.
 *
 * Their names have a number of this server's in them, so that savepoints which a user makes
 * by calls do not happen to have the same.  It is always the same number: the remote's
 * statistics of statements are not to be filled with names.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "backend/transaction.h"

/* The subtransaction of that level has ended. */
void
stack_end_level(Stack *stack, int level, bool failed)
{
	if (level < 2 || level > stack->depth)
		return;
	if (failed)
		stack->rollback_to = level;
	stack->release = level;
	stack->depth = level - 1;
}

const char *
savepoint_name(int level)
{
	return psprintf("dbpool_" UINT64_FORMAT "_%d", GetSystemIdentifier(), level);
}

static void
put_statement(StringInfo prelude, const char *sql)
{
	appendBinaryStringInfo(prelude, sql, (int) strlen(sql) + 1);
}

/*
 * Put what goes before a statement at that level, and note that it was; what sequences gave
 * to sessions before may have to be put away, too.  May throw: then the stack is of no use.
 */
void
stack_enter(Stack *stack, int level, const char *begin, bool discards, StringInfo prelude)
{
	if (stack->depth == 0)
	{
		put_statement(prelude, begin);
		if (discards)
			put_statement(prelude, "DISCARD SEQUENCES");
		stack->depth = 1;
	}
	if (stack->rollback_to > 0)
		put_statement(prelude, psprintf("ROLLBACK TO SAVEPOINT %s", savepoint_name(stack->rollback_to)));
	if (stack->release > 0)
		put_statement(prelude, psprintf("RELEASE SAVEPOINT %s", savepoint_name(stack->release)));
	stack->rollback_to = 0;
	stack->release = 0;
	while (stack->depth < level)
		put_statement(prelude, psprintf("SAVEPOINT %s", savepoint_name(++stack->depth)));
}
