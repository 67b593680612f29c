/*
 * work.c
 *	  Running pieces of work, see work.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "worker/work.h"

static dlist_head marked = DLIST_STATIC_INIT(marked);
static int	nmarked;

/*
 * Run a piece of work; if it fails, report that, have its owner recover, and
 * return false.  While the owner recovers, an error ends the process.
 */
bool
work_guard(void (*piece) (void *arg), void *arg, WorkRecovery recover, void *owner)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = true;

	PG_TRY();
	{
		piece(arg);
	}
	PG_CATCH();
	{
		int			sqlerrcode = geterrcode();
		bool		before = ExitOnAnyError;

		LWLockReleaseAll();
		MemoryContextSwitchTo(context);
		ExitOnAnyError = true;
		HOLD_INTERRUPTS();
		EmitErrorReport();
		FlushErrorState();
		RESUME_INTERRUPTS();
		recover(owner, sqlerrcode);
		ExitOnAnyError = before;
		ok = false;
	}
	PG_END_TRY();
	return ok;
}

void
work_init(Work *work, void (*run) (void *owner), WorkRecovery recover, void *owner)
{
	work->run = run;
	work->recover = recover;
	work->owner = owner;
	work->marked = false;
}

void
work_do(Work *work)
{
	if (work->recover == NULL)
		work->run(work->owner);
	else
		(void) work_guard(work->run, work->owner, work->recover, work->owner);
}

/* Have it done before the turn ends. */
void
work_mark(Work *work)
{
	if (work->marked)
		return;
	work->marked = true;
	dlist_push_tail(&marked, &work->node);
	nmarked++;
}

/* Its owner goes. */
void
work_unmark(Work *work)
{
	if (!work->marked)
		return;
	work->marked = false;
	dlist_delete(&work->node);
	nmarked--;
}

/* Is anything marked? */
bool
work_is_waiting(void)
{
	return nmarked > 0;
}

/*
 * Do what is marked.  What is marked meanwhile is left for the next turn, which
 * does not wait then, so that no turn goes on for ever.
 */
void
work_do_marked(void)
{
	for (int n = nmarked; n > 0 && nmarked > 0; n--)
	{
		Work	   *work = dlist_head_element(Work, node, &marked);

		work_unmark(work);
		work_do(work);
	}
}

/* What sessions are told of an error of the worker's own; the log has the rest. */
const char *
work_error_state(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_OUT_OF_MEMORY ? "53200" : "XX000";
}

const char *
work_error_text(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_OUT_OF_MEMORY ?
		"out of memory in the dbpool worker" : "internal error in the dbpool worker";
}
