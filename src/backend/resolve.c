/*
 * resolve.c
 *	  "dbpool resolver": ends prepared transactions that were left behind; two_phase.c has
 *	  the protocol.
 *
 * A process per database, started when there may be some, and gone when there are none.
 * It visits each server and mapping of dbpool_two_phase (resolve_visit.c), several at a
 * time, so that one which hangs does not keep the others waiting; those where something
 * is left, or that could not be reached, again and again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/resolve.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "ipc/errand.h"

PGDLLEXPORT void dbpool_resolve_main(Datum arg);

/* Milliseconds between two visits; each time twice as long. */
#define PAUSE_FIRST_MS	500
#define PAUSE_LAST_MS	2000

/* Milliseconds after which it is noticed that somebody wants a look, if nothing happens. */
#define WANTED_LOOK_MS	1000

/* Visits at a time. */
#define VISITS_MOST		16

static ErrandShared *entry;
static List *places;
static int	nvisits;

static void
begin_local(void)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_local(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Take the error at hand: returns its message, in the context. */
static char *
catch_error(MemoryContext context)
{
	char	   *message;

	MemoryContextSwitchTo(context);
	message = CopyErrorData()->message;
	AbortCurrentTransaction();
	FlushErrorState();
	MemoryContextSwitchTo(context);
	return message;
}

static void
note_failure(Place *place, const char *why, MemoryContext context)
{
	PG_TRY();
	{
		begin_local();
		rows_note_failure(place, NULL, why);
		end_local();
	}
	PG_CATCH();
	{
		/* the log has the first error */
		(void) catch_error(context);
	}
	PG_END_TRY();
}

/* The place cannot be dealt with now: the log is told so once, its rows each time. */
static void
visit_failed(Place *place, const char *why, MemoryContext context)
{
	if (!place->complained)
		ereport(LOG,
				(errmsg("dbpool cannot end what may be prepared on pool \"%s\" now: %s",
						visit_pool(place->visit) ? visit_pool(place->visit) : "?", why),
				 errhint("It goes on trying; see dbpool_in_doubt.")));
	place->complained = true;
	place->fresh = true;
	visit_end(place);
	note_failure(place, why, context);
}

/* When the next visit is due, after one that has ended. */
static void
plan_next(Place *place, bool failed)
{
	if (!failed && !place->left)
	{
		place->complained = false;
		rows_alert_ends(place);
	}
	if (!place->left)
		place->pause = 0;
	place->pause = Min(Max(place->pause * 2, PAUSE_FIRST_MS), PAUSE_LAST_MS);
	place->due = ticks_plus_ms(ticks_now(), place->pause);
}

/* Begin to visit the place, or go on with that. */
static void
visit(Place *place)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "dbpool resolver", ALLOCSET_SMALL_SIZES);
	volatile bool over = false;
	char	   *volatile why = NULL;

	PG_TRY();
	{
		begin_local();
		if (place->visit == NULL && visit_begin(place) == NULL)
			over = true;
		else if (visit_go_on(place))
			over = true;
		end_local();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		why = catch_error(context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (why != NULL)
		visit_failed(place, why, context);
	else if (over)
		visit_end(place);
	if (why != NULL || over)
		plan_next(place, why != NULL);
	MemoryContextDelete(context);
	CHECK_FOR_INTERRUPTS();
}

/* Somebody wants a look at all places. */
static void
look_at_all(void)
{
	ListCell   *lc;

	begin_local();
	places = two_phase_places(places);
	end_local();
	foreach(lc, places)
	{
		Place	   *place = lfirst(lc);

		if (!place->listed)
			continue;
		/* one that fails is tried when that is due */
		if (!place->left)
			place->due = 0;
		place->left = true;
		place->fresh = true;
	}
}

/*
 * Do what can be done now at all places.  Returns whether there is more to do, and when,
 * if nothing happens before.
 */
static bool
look_around(Ticks *next)
{
	bool		left = false;
	uint64		requests = visit_requests;
	ListCell   *lc;

	*next = 0;
	foreach(lc, places)
	{
		Place	   *place = lfirst(lc);
		Ticks		at;

		if (place->visit != NULL ||
			(place->left && nvisits < VISITS_MOST && ticks_now() >= place->due))
		{
			nvisits += place->visit == NULL;
			visit(place);
			nvisits -= place->visit == NULL;
		}
		if (place->visit == NULL && !place->left)
			continue;
		left = true;
		if (place->visit == NULL && nvisits >= VISITS_MOST)
			continue;
		at = place->visit != NULL ? visit_deadline(place->visit) : place->due;
		if (*next == 0 || at < *next)
			*next = at;
	}

	/*
	 * what has waited for something else may have reset the latch that an
	 * answer had set: look at all of them again
	 */
	if (visit_requests != requests)
		*next = ticks_now();
	return left;
}

static void
rest(Ticks until)
{
	static uint32 wait_event;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(Max(ticks_left_ms(until), 1), WANTED_LOOK_MS), compat_wait_event(&wait_event, "DbpoolResolver"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

void
dbpool_resolve_main(Datum arg)
{
	Oid			dbid;
	Ticks		next;

	(void) arg;
	memcpy(&dbid, MyBgworkerEntry->bgw_extra, sizeof(dbid));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dbid, InvalidOid, 0);
	entry = errand_begin(ERRAND_RESOLVE);
	if (entry == NULL)
		return;
	two_phase_settings();
	for (;;)
	{
		if (pg_atomic_exchange_u32(&entry->wanted, 0) != 0)
		{
			look_at_all();
			/* whoever ends it now, it is not its fault */
			pg_atomic_write_u32(&entry->failures, 0);
		}
		if (!look_around(&next))
			break;
		rest(next);
	}
}
