/*
 * grow.c
 *	  When a pool is to have more connections.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "worker/connection.h"
#include "worker/worker.h"

/* Microseconds a first waiter waits before the pool grows anyway. */
#define GROW_PATIENCE_US	5000

/*
 * A pool that has connections takes the place of another pool's only when that
 * has been idle for so many milliseconds: else two that are in use would take
 * it from each other over and over.
 */
#define PLACE_IDLE_MS		1000

/*
 * As many connections are open as there may be.  For a pool in which somebody
 * waits, close the one of another pool that has been idle longest; those that
 * make up a min_size stay.  of_owner: it has to be one of the same owner's.
 */
static bool
make_place(Pool *pool, bool of_owner)
{
	dlist_iter	each;
	Conn	   *longest = NULL;

	if (pool->nwaiting == 0)
		return false;
	dlist_foreach(each, &pools)
	{
		Pool	   *other = dlist_container(Pool, node, each.cur);
		dlist_iter	iter;

		if (other == pool || pool_size(other) <= pool_min(other) ||
			(of_owner && other->options.owner != pool->options.owner))
			continue;
		dlist_foreach(iter, &other->conns[CONN_IDLE])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);

			if (longest == NULL || conn->worked_at < longest->worked_at)
				longest = conn;
		}
	}
	if (longest == NULL ||
		(pool_size(pool) > 0 &&
		 ticks_now() < ticks_plus_ms(longest->worked_at,
									 PLACE_IDLE_MS)))
		return false;
	conn_close(longest, "another pool needs its place");
	return true;
}

/*
 * Begin to open a connection for a pool.  Throws only as long as there is none.
 */
static void
open_one(Pool *pool)
{
	Conn	   *conn = conn_make(pool);
	EntryTaken	taken = conn_take_entry(conn);

	if (taken != ENTRY_TAKEN && make_place(pool, taken == ENTRY_OWNER_HAS_ENOUGH))
		taken = conn_take_entry(conn);
	if (taken != ENTRY_TAKEN)
	{
		char		what[200];

		MemoryContextDelete(conn->context);
		if (taken == ENTRY_OWNER_HAS_ENOUGH)
			snprintf(what, sizeof(what),
					 "the pools of the server's owner have as many connections open as dbpool.role_max_connections (%d) allows",
					 quota_limit(dbpool_role_max_connections, dbpool_shared->nconns));
		else
			snprintf(what, sizeof(what),
					 "as many connections are open as dbpool.max_connections (%d) allows",
					 dbpool_shared->nconns);
		pool_conn_failed(pool, taken == ENTRY_OWNER_HAS_ENOUGH ? "53400" : "53300", what,
						 taken == ENTRY_OWNER_HAS_ENOUGH ?
						 "Lower max_size or min_size of pools of the same owner; a superuser can raise dbpool.role_max_connections." :
						 "Raise dbpool.max_connections in postgresql.conf, and restart the server.");
		return;
	}
	conn_open(conn);
}

static void
open_piece(void *arg)
{
	open_one(arg);
}

static void
open_recover(void *owner, int sqlerrcode)
{
	pool_conn_failed(owner, work_error_state(sqlerrcode), work_error_text(sqlerrcode), NULL);
}

/*
 * Until when would the waiters be served sooner by the connections there are than
 * by a new one?  Not any more when the first of them has waited so long already that
 * the averages cannot be true.  0: they would not.
 */
static Ticks
growth_waits_until(Pool *pool, Ticks now)
{
	int			busy = pool->nconns[CONN_BUSY] + pool->nconns[CONN_CHECKING];
	Request    *first = pool_first_waiter(pool);
	Ticks		patience;

	if (first == NULL || busy == 0 || pool->exec_us == 0 || pool->connect_us == 0)
		return 0;
	patience = first->queued_at + Max((int64) pool->connect_us, GROW_PATIENCE_US);
	if (now >= patience ||
		pool->nwaiting * pool->exec_us / busy > pool->connect_us)
		return 0;
	return patience;
}

/* Why a pool is not given a connection more, for now. */
typedef enum Growth
{
	GROW,
	GROW_ENOUGH,				/* nobody would use it */
	GROW_FULL,					/* it has its share of max_size */
	GROW_CONNECTING,			/* as many are being opened as are open */
	GROW_BACK_OFF,				/* the remote did not let us in of late */
	GROW_SOONER_FREE			/* one that there is will be free sooner */
} Growth;

static const char *const growth_names[] = {
	"opens a connection", "has enough", "has all that it may have",
	"waits for those that are being opened", "waits, as the last attempt failed",
	"waits for one to come free"
};

/*
 * Does the pool need a connection more?  crowded: riders would be better off with
 * one.  *until is when to ask again, where the answer changes by time alone.
 */
static Growth
growth_due(Pool *pool, bool crowded, Ticks *until)
{
	int			size = pool_size(pool);
	int			connecting = pool->nconns[CONN_CONNECTING];
	int			open = size - connecting;

	/* those who wait for a lease, and find all taken, have no use for one */
	int			waiting = pool->nwaiting -
	(pool_leases_are_full(pool) ? pool->nqueued[QUEUE_LEASES] : 0);
	bool		short_of_min = size < pool_min(pool);
	bool		wanted = short_of_min || (crowded && connecting == 0) ||
	(waiting > connecting + pool->nconns[CONN_IDLE] && !pool->paused);
	Ticks		now;

	*until = 0;
	if (size >= pool_max(pool))
		return GROW_FULL;
	/* it doubles at most, so that a slow remote is not stormed */
	if (connecting >= Max(open, 1))
		return GROW_CONNECTING;
	if (!wanted)
		return GROW_ENOUGH;
	now = ticks_now();
	if (now < pool->retry_at && (open > 0 || waiting == 0))
	{
		*until = pool->retry_at;
		return GROW_BACK_OFF;
	}
	if (!short_of_min && (*until = growth_waits_until(pool, now)) != 0)
		return GROW_SOONER_FREE;
	return GROW;
}

/* Open connections if the pool needs more. */
void
pool_grow(Pool *pool)
{
	bool		crowded = pool->crowded;

	pool->crowded = false;
	while (pool->definition != NULL)
	{
		int			size = pool_size(pool);
		Ticks		until;
		Growth		growth = growth_due(pool, crowded, &until);

		if (growth != GROW_ENOUGH)
			elog(DEBUG2, "dbpool: pool \"%s\" %s: %d open, %d being opened, %d wait",
				 NameStr(pool->options.server), growth_names[growth],
				 size - pool->nconns[CONN_CONNECTING], pool->nconns[CONN_CONNECTING],
				 pool->nwaiting);
		if (until != 0)
			timer_set_by(&pool->upkeep, until);
		if (growth != GROW)
			break;
		(void) work_guard(open_piece, pool, open_recover, pool);
		if (pool_size(pool) == size)
			break;				/* it failed at once */
	}
}
