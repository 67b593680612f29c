/*
 * dispatch.c
 *	  Who gets which connection, and when there are to be more of them.
 *
 * A request is either a rider, which may share a connection with others since
 * its text is known to be short, or a loner, which gets one for itself, or opens a
 * lease: then it gets one that is its session's until the transaction ends.
 *
 * A rider takes
 *	 1. the shared connection with the least before it, if that is less than
 *		RIDE_WAIT_US of the remote's time;
 *	 2. an idle one, the one that was used last;
 *	 3. the shared one with the least before it after all; with that, riders
 *		are crowded, and the pool grows;
 *	 4. or waits.
 * So the number of connections that carry the riders follows from how many
 * statements there are at a time and how long each takes: a few for reads
 * that take some microseconds, all of them for writes that wait for a disk.
 * Those that nobody needs any more are closed by idle_timeout, as last used is
 * first taken.
 *
 * A loner takes an idle connection or waits.  Loners leave the riders one, and
 * riders make way: while the first who waits is a loner, one connection of
 * several that they share, or the only one, is not joined any more.
 *
 * A lease is like a loner, but leases have at most all connections but one, so that
 * other statements go on while sessions do nothing in their transactions.  Those who
 * wait for one that they may not have yet do not hold up others.  What belongs to a
 * lease that is open goes to its connection, at once or when that has come to rest.
 *
 * Of those that wait, first come is first served, but for pools that are overloaded (shed.c).  Waiting makes the pool grow,
 * but slowly while connections come free faster than one could be opened.
 *
 * Whatever may change who gets what marks the pool (pool_mark()), and
 * pool_dispatch() has one caller, which is the loop's turn.  So while a pool is
 * not marked, those who wait cannot be served.
 */
#include "postgres.h"

#include "worker/balance.h"
#include "worker/replay.h"
#include "worker/worker.h"

/* Of the remote's time, how much a rider has before it while there is choice. */
#define RIDE_WAIT_US		1000

/* Most flights of a connection. */
#define RIDE_MOST			64

/* Nobody rides behind a statement that has been running for so long. */
#define STALLED_US			10000

/* Riders who came so long ago still have a connection left for their like. */
#define RIDERS_STAY_US		100000

/*
 * Can a rider join the connection?  That all before it is handed to the kernel
 * (flushed) is what conn_lost() rests on: of a connection that broke, only the last
 * statement can have been sent in part, and that one has surely not run.
 */
static bool
can_join(Conn *conn, Ticks now)
{
	return conn->flights.joinable && conn->flights.n < RIDE_MOST && conn->io.flushed &&
		conn->flights.orphans == 0 && conn->rows.result == NULL && !conn->session.dirty && !conn->io.big && !conn->loss.broken &&
		conn_is_current(conn) &&
		(conn->expires_at == 0 || now < conn->expires_at) &&
	/* what is before it could not be taken off if its session gives up */
		(conn->session.home_pid == 0 || !(conn->session.synchronous || conn->pool->synchronous)) &&
		conn_head_us(conn, now) < STALLED_US + conn->pool->rtt_us;
}

/* Is it at that endpoint?  They all are at ENDPOINT_NONE. */
static bool
is_at(const Conn *conn, int endpoint)
{
	return endpoint == ENDPOINT_NONE || conn->endpoint.at == endpoint;
}

/* The shared connection at an endpoint with the least before a rider, or NULL. */
static Conn *
find_ride(Pool *pool, const Request *req, int endpoint, Ticks now)
{
	Conn	   *best = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if ((best == NULL || conn->flights.load < best->flights.load) && is_at(conn, endpoint) &&
			can_join(conn, now) && replay_verdict(conn, req, now) == REPLAY_SUITS)
			best = conn;
	}
	return best;
}

/*
 * Would a loner that took the last idle connection leave riders none, of whom there
 * were some of late?
 */
static bool
loner_starves_riders(Pool *pool, Ticks now)
{
	dlist_iter	iter;

	if (pool_max(pool) == 1 || pool->nconns[CONN_IDLE] > 1 ||
		now - pool->rider_at > RIDERS_STAY_US)
		return false;
	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		if (dlist_container(Conn, node, iter.cur)->flights.joinable)
			return false;
	}
	return pool_size(pool) >= pool_max(pool);
}

/*
 * Of the idle connections whose servers may have come as far as they should, that which was
 * used last, rather at that endpoint, and rather one whose server needs not be asked; or NULL.
 */
static Conn *
find_idle(Pool *pool, const Request *req, int endpoint, Ticks now)
{
	Conn	   *best = NULL;
	int			best_rank = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_IDLE])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);
		ReplayVerdict verdict = replay_verdict(conn, req, now);
		int			rank = (is_at(conn, endpoint) ? 2 : 0) + (verdict == REPLAY_SUITS ? 2 : 1);

		if (verdict == REPLAY_BEHIND || rank <= best_rank)
			continue;
		best = conn;
		best_rank = rank;
		if (rank == 4)
			break;
	}
	return best;
}

/* Give an idle connection to a request, after a check if it is long unused. */
static void
start_on_idle(Conn *conn, Request *req, Ticks now)
{
	Pool	   *pool = conn->pool;
	int			after = pool->options.validate_after;

	conn->replay.asks = replay_verdict(conn, req, now) == REPLAY_ASK && req->doubt == NULL;
	if ((after >= 0 && now - conn->used_at > after * INT64CONST(1000)) ||
		conn_needs_preparing(conn, req) || conn->replay.asks)
		conn_check(conn, req);
	else
		conn_start(conn, req);
}

/*
 * Find a connection for a request and start it; false when it has to wait.  May
 * throw, and then the request is its owner.
 */
static bool
try_start(Pool *pool, Request *req, Ticks now)
{
	/* its text may have turned out slow, or worse, while it waited */
	bool		rides = req->rides && statement_is_short(req->statement);
	int			endpoint = balance_choose(pool, req, rides, now);
	Conn	   *ride = rides ? find_ride(pool, req, endpoint, now) : NULL;
	Conn	   *idle = find_idle(pool, req, endpoint, now);

	if (rides && ride == NULL && idle == NULL && endpoint != ENDPOINT_NONE)
		ride = find_ride(pool, req, ENDPOINT_NONE, now);
	if (ride != NULL && ride->flights.load > RIDE_WAIT_US)
	{
		if (idle != NULL || shed_holds_back(pool, ride))
			ride = NULL;
		else
			pool->crowded = true;
	}
	if (ride == NULL && idle == NULL)
		return replay_puts_off(req, now);
	if (request_opens_lease(req) && pool_leases_are_full(pool))
		return false;
	/* a standby cannot tell what became of a write */
	if (req->doubt != NULL && pool->degraded_since != 0)
		return false;
	if (!rides && req->doubt == NULL && loner_starves_riders(pool, now))
	{
		timer_set_by(&pool->upkeep, pool->rider_at + RIDERS_STAY_US);
		return false;
	}
	if (req->queued)
		pool_leave_queue(req);
	req->rides = rides;
	if (ride != NULL)
		conn_start(ride, req);
	else
		start_on_idle(idle, req, now);
	return true;
}

typedef struct Try
{
	Pool	   *pool;
	Request    *req;
	Ticks		now;
	bool		has_to_wait;
} Try;

static void
try_piece(void *arg)
{
	Try		   *try = arg;

	try->has_to_wait = !try_start(try->pool, try->req, try->now);
}

/* Try a request that waits; false when it has to wait on. */
static bool
try_waiter(Pool *pool, Request *req, Ticks now)
{
	Try			try = {pool, req, now, false};

	(void) work_guard(try_piece, &try, request_recover, req);
	return !try.has_to_wait;
}

/* A loner is the first who waits: see that a shared connection gets free. */
static void
make_way(Pool *pool)
{
	Conn	   *best = NULL;
	int			shared = 0;
	dlist_iter	iter;

	if (pool_size(pool) < pool_max(pool) ||
		pool->nconns[CONN_CONNECTING] + pool->nconns[CONN_RESETTING] > 0)
		return;
	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->flights.makes_way)
			return;
		if (!conn->flights.joinable)
			continue;
		shared++;
		if (best == NULL || conn->flights.load < best->flights.load)
			best = conn;
	}
	if (best == NULL || (shared == 1 && pool_max(pool) > 1))
		return;
	best->flights.joinable = false;
	best->flights.makes_way = true;
}

/* Give connections to those who wait, and open more if there are too few. */
void
pool_dispatch(Pool *pool)
{
	if (pool->options.shed)
		shed_look(pool, ticks_now());
	while (pool->nwaiting > 0)
	{
		Ticks		now = ticks_now();
		bool		served = false;

		/* what has been sent, a pause waits for */
		int			most = pool->paused ? 1 << QUEUE_DOUBTS : ~(1 << QUEUE_LATER);
		int			queues = most;
		Request    *req;

		while (!served && (req = shed_next(pool, queues)) != NULL)
		{
			bool		first = queues == most && !pool->paused;
			Queue		queue = request_queue(req);

			served = try_waiter(pool, req, now);
			if (!served && first && !req->rides &&
				!(queue == QUEUE_LEASES && pool_leases_are_full(pool)))
				make_way(pool);
			queues &= ~(1 << queue);
		}
		if (!served)
			break;
	}
	if (pool->options.shed)
		shed_others(pool, ticks_now());
	if (pool->nwaiting > 0 && replay_all_are_behind(pool, ticks_now()))
		replay_tell(pool, ticks_now());
	pool_grow(pool);
}

/*
 * May a request that has just come be tried before those who wait?  Only if it
 * is the first of its kind, and it is known that none of the other can be served.
 */
static bool
may_go_first(Pool *pool, const Request *req)
{
	if (pool->paused)
		return false;
	return pool->nwaiting == 0 ||
		(!pool->look.marked && dlist_is_empty(&pool->queues[request_queue(req)]));
}

/* What is known of its text? */
static void
find_statement(Request *req)
{
	if (req->task.kind != REQUEST_QUERY)
		return;
	req->statement = statement_use(req->pool, req->sql, req->task.sql_len);
	if (req->statement != NULL)
		req->statement->refs++;
}

/*
 * A request has come that belongs to a lease with a connection.  If that has not come to
 * rest, as the session has given up what it had on it before, the request waits.
 */
void
dispatch_leased(Conn *conn, Request *req)
{
	req->pool = conn->pool;
	find_statement(req);
	if (replay_refuses_leased(conn, req))
		return;
	if (conn->state == CONN_LEASED && conn->waiter == NULL)
	{
		conn_start(conn, req);
		return;
	}
	if (conn->waiter != NULL)
	{
		request_fail(req, "55006",
					 psprintf("the transaction on pool \"%s\" has a statement under way",
							  NameStr(conn->pool->options.server)),
					 "The statement was not run.", NULL);
		return;
	}
	conn->waiter = req;
	req->conn = conn;
	req->waits = true;
	timer_set(&req->deadline,
			  ticks_plus_ms(req->queued_at, conn->pool->options.acquire_timeout));
}

/* A request has come to its pool. */
void
dispatch_submit(Request *req)
{
	Pool	   *pool = req->pool;

	find_statement(req);
	/* as it is in any case */
	if (pool->options.read_only)
		req->task.traces &= ~TRACE_READ_ONLY;
	req->rides = pool->options.multiplex && pool->options.reset != RESET_ALWAYS &&
		req->task.lease == LEASE_NONE &&
		req->task.traces == 0 && req->large == NULL && statement_is_short(req->statement);
	if (req->rides)
		pool->rider_at = req->queued_at;
	if (!may_go_first(pool, req) || !try_start(pool, req, req->queued_at))
	{
		if (shed_refuses(req))
			return;
		pool_enter_queue(req);
		if (pool->nleased > 0)
			deadlock_watch();
		SpinLockAcquire(&pool->shared->mutex);
		pool->shared->counters.waited++;
		SpinLockRelease(&pool->shared->mutex);
	}
	else if (pool->crowded)
		pool_mark(pool);
}
