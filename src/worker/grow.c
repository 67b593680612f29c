/*
 * grow.c
 *	  When a pool is to have more connections.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "worker/balance.h"
#include "worker/replay.h"
#include "worker/worker.h"

/* Microseconds a first waiter waits before the pool grows anyway. */
#define GROW_PATIENCE_US	5000

/*
 * A pool that has connections takes the place of another pool's only when that
 * has been idle for so many milliseconds: else two that are in use would take
 * it from each other over and over.
 */
#define PLACE_IDLE_MS		1000

/* Does the pool lead there, and are there as many connections as there may be? */
static bool
is_full_for(const Pool *pool, int endpoint)
{
	static const EndpointEntry how = {0};
	Ticks		until;

	return endpoint_place(pool, endpoint) >= 0 &&
		endpoint_look(endpoint, how, ticks_now(), &until) == ENDPOINT_IS_FULL;
}

/* Whose place is to be had? */
typedef enum PlaceWanted
{
	PLACE_ANYBODYS,
	PLACE_OWNERS,				/* of pools of the same owner */
	PLACE_AT_REMOTE				/* at an endpoint of the pool's that is full */
} PlaceWanted;

/*
 * As many connections are open as there may be.  For a pool in which somebody
 * waits, close the one of another pool that has been idle longest.  Those that
 * make up a min_size stay, unless they keep a pool from its remote altogether.
 */
static bool
make_place(Pool *pool, PlaceWanted whose)
{
	dlist_iter	each;
	Conn	   *longest = NULL;

	if (pool->nwaiting == 0)
		return false;
	dlist_foreach(each, &pools)
	{
		Pool	   *other = dlist_container(Pool, node, each.cur);
		dlist_iter	iter;

		if (other == pool ||
			(pool_size(other) <= pool_min(other) && (whose != PLACE_AT_REMOTE || pool_size(pool) > 0)) ||
			(whose == PLACE_OWNERS && other->options.owner != pool->options.owner))
			continue;
		dlist_foreach(iter, &other->conns[CONN_IDLE])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);

			if ((longest == NULL || conn->worked_at < longest->worked_at) &&
				(whose != PLACE_AT_REMOTE || is_full_for(pool, conn->endpoint.at)))
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
 * Begin to open a connection for a pool; to_probe: only to find out about that endpoint,
 * if it is not ENDPOINT_NONE; evens: as the pool has too few there; seeks: only to find a
 * primary.  Throws only as long as there is none.
 */
static void
open_one(Pool *pool, int to_probe, bool evens, bool seeks)
{
	Conn	   *conn = conn_make(pool);
	EntryTaken	taken = conn_take_entry(conn);

	if (taken != ENTRY_TAKEN && make_place(pool, taken == ENTRY_OWNER_HAS_ENOUGH ? PLACE_OWNERS : PLACE_ANYBODYS))
		taken = conn_take_entry(conn);
	if (taken != ENTRY_TAKEN)
	{
		char		what[200];

		MemoryContextDelete(conn->context);
		if (to_probe != ENDPOINT_NONE || seeks)
			return;
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
	conn->endpoint.probes = to_probe;
	conn->endpoint.evens = evens;
	conn->opening.seeks = seeks;
	conn_open(conn);
}

static void
open_piece(void *arg)
{
	open_one(arg, ENDPOINT_NONE, false, false);
}

static void
open_recover(void *owner, int sqlerrcode)
{
	pool_conn_failed(owner, work_error_state(sqlerrcode), work_error_text(sqlerrcode), NULL);
}

typedef struct Probe
{
	Pool	   *pool;
	int			endpoint;
	bool		evens;
} Probe;

static void
probe_piece(void *arg)
{
	Probe	   *probe = arg;

	open_one(probe->pool, probe->endpoint, probe->evens, false);
}

/*
 * If one of the pool's endpoints is out, and it is time to find out whether it still is,
 * open a connection for that.  A pool that has all it may have has one too many until it is
 * known: else nobody would find out.  Those that there are may be all that can be had.
 */
static void
probe(Pool *pool)
{
	/* who is in doubt waits for an answer, whatever stops the pool */
	bool		stopped = (pool->paused || pool->disabled) && pool->nqueued[QUEUE_DOUBTS] == 0;

	while (!stopped)
	{
		Ticks		until;
		Probe		arg = {pool, pool_endpoint_to_probe(pool, &until), false};
		int			size;

		if (arg.endpoint == ENDPOINT_NONE)
		{
			if (until != 0)
				timer_set_by(&pool->upkeep, until);
			break;
		}
		size = pool_size(pool);
		if (size > pool_max(pool))
			break;
		(void) work_guard(probe_piece, &arg, open_recover, pool);
		if (pool_size(pool) == size)
			break;
	}
}

/* If one of the pool's endpoints has too few connections, open one more there. */
static void
even_out(Pool *pool)
{
	Probe		arg = {pool, balance_poor(pool, ticks_now()), true};

	if (arg.endpoint != ENDPOINT_NONE && balance_made_room(pool, arg.endpoint))
		(void) work_guard(probe_piece, &arg, open_recover, pool);
}

static void
seek_piece(void *arg)
{
	open_one(arg, ENDPOINT_NONE, false, true);
}

/*
 * If the pool is served by standbys, and it is time to see whether there is a primary again,
 * open a connection for that.  It may be one more than there are to be.
 */
void
pool_seek_primary(Pool *pool)
{
	if (pool->definition == NULL || pool->looks_up || !pool_seeks_now(pool))
		return;
	pool_renew_make_place(pool);
	if (pool_size(pool) <= pool_max(pool))
		(void) work_guard(seek_piece, pool, open_recover, pool);
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

/* From so many failures in a row on, attempts are put off also if nobody works. */
#define FAILURES_MOST		5

/* Why a pool is not given a connection more, for now. */
typedef enum Growth
{
	GROW,
	GROW_ENOUGH,				/* nobody would use it */
	GROW_FULL,					/* it has its share of max_size */
	GROW_CONNECTING,			/* as many are being opened as are open */
	GROW_BACK_OFF,				/* the remote did not let us in of late */
	GROW_BEHIND,				/* all servers are too far behind */
	GROW_OUT,					/* no endpoint lets anybody in now */
	GROW_NO_PLACE,				/* as many are open at its remote as may be */
	GROW_CROWDED,				/* others are logging in, one after the other */
	GROW_SOONER_FREE			/* one that there is will be free sooner */
} Growth;

static const char *const growth_names[] = {
	"opens a connection", "has enough", "has all that it may have",
	"waits for those that are being opened", "waits, as the last attempt failed",
	"waits until a server has caught up", "waits for a probe", "waits for place at its remote",
	"waits for others of its remote",
	"waits for one to come free"
};

/* Idle connections, but those whose servers are too far behind. */
static int
idle_of_use(Pool *pool)
{
	int			n = pool->nconns[CONN_IDLE];
	Ticks		now;
	dlist_iter	iter;

	if (!replay_matters(pool, NULL))
		return n;
	now = ticks_now();
	dlist_foreach(iter, &pool->conns[CONN_IDLE])
		n -= replay_verdict(dlist_container(Conn, node, iter.cur), NULL, now) == REPLAY_BEHIND;
	return n;
}

/*
 * Who waits can be served only at a host where the pool has no connection, and it has all that
 * it may have: close one that is too far behind.
 */
static void
make_place_behind(Pool *pool)
{
	Ticks		now = ticks_now();
	dlist_iter	iter;

	if (!replay_matters(pool, NULL) || pool->nwaiting == 0 || pool_size(pool) < pool_max(pool) ||
		replay_all_are_behind(pool, now))
		return;
	dlist_foreach(iter, &pool->conns[CONN_IDLE])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (replay_verdict(conn, NULL, now) != REPLAY_BEHIND)
			continue;
		conn_close(conn, "its server is too far behind, and others need its place");
		return;
	}
}

/*
 * Does the pool need a connection more?  crowded: riders would be better off with
 * one.  *until is when to ask again, where the answer changes by time alone.
 */
static Growth
growth_due(Pool *pool, bool crowded, Ticks *until)
{
	int			size = pool_size(pool);
	int			probes = pool_probes(pool);
	int			connecting = pool->nconns[CONN_CONNECTING] - probes;
	int			open = size - connecting - probes;
	EndpointVerdict verdict;

	/* those who wait for a lease, and find all taken, have no use for one */
	int			waiting = pool->nwaiting - pool->nqueued[QUEUE_LATER] -
	(pool_leases_are_full(pool) ? pool->nqueued[QUEUE_LEASES] : 0);
	int			in_doubt = pool->nqueued[QUEUE_DOUBTS];
	int			idle = idle_of_use(pool);
	bool		short_of_min = size < pool_min(pool) && !pool->disabled;
	bool		renews = pool_renews(pool) && connecting == 0;
	bool		wanted = short_of_min || renews || (crowded && connecting == 0) ||
	((pool->paused ? in_doubt : waiting) > connecting + idle);
	Ticks		now;

	*until = 0;
	/* a new one may be one too many, until it has been opened or not */
	if (size - pool_probers(pool, NULL) >= pool_max(pool) + (renews && size == pool_max(pool) ? 1 : 0))
		return GROW_FULL;
	/* it doubles at most, so that a slow remote is not stormed */
	if (connecting >= Max(open, 1))
		return GROW_CONNECTING;
	if (!wanted)
		return GROW_ENOUGH;
	now = ticks_now();
	if (!short_of_min && replay_all_are_behind(pool, now))
		return GROW_BEHIND;
	verdict = pool_endpoints_look(pool, now, until);
	if (verdict == ENDPOINT_IS_OUT)
	{
		/* what is due is not for this pool to probe, or not now */
		*until = Max(*until, ticks_plus_ms(now, ENDPOINT_AGAIN_MS));
		return GROW_OUT;
	}
	if (now < pool->retry_at && (pool->tried_standby || !pool_may_degrade(pool)) &&
		(open > 0 || waiting == in_doubt || pool->failures >= FAILURES_MOST))
	{
		*until = pool->retry_at;
		return GROW_BACK_OFF;
	}
	if (verdict != ENDPOINT_ENTERED)
	{
		*until = ticks_plus_ms(now, ENDPOINT_AGAIN_MS);
		return verdict == ENDPOINT_IS_FULL ? GROW_NO_PLACE : GROW_CROWDED;
	}
	*until = 0;
	if (!short_of_min && !renews && (*until = growth_waits_until(pool, now)) != 0)
		return GROW_SOONER_FREE;
	return GROW;
}

/* Open connections if the pool needs more. */
void
pool_grow(Pool *pool)
{
	bool		crowded = pool->crowded;
	bool		made_place = false;

	pool->crowded = false;
	if (pool->definition != NULL && !pool->looks_up)
		probe(pool);
	make_place_behind(pool);
	while (pool->definition != NULL && !pool->looks_up)
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
		if ((growth == GROW_OUT || growth == GROW_BACK_OFF) && pool_is_alone(pool))
			pool_tell_why(pool, until);
		if (growth == GROW_NO_PLACE && !made_place && make_place(pool, PLACE_AT_REMOTE))
		{
			made_place = true;
			continue;
		}
		if (growth != GROW)
			break;
		if (pool_renews(pool))
			pool_renew_make_place(pool);
		size = pool_size(pool);
		(void) work_guard(open_piece, pool, open_recover, pool);
		if (pool_size(pool) == size)
			break;				/* it failed at once */
	}
	if (pool->definition != NULL && !pool->looks_up && pool_is_spread(pool))
		even_out(pool);
}
