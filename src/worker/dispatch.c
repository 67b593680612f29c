/*
 * dispatch.c
 *	  Who gets which connection, and when there are to be more of them.
 *
 * A request is either a rider, which may share a connection with others since
 * its text is known to be short, or a loner, which gets one for itself.
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
 * Of those that wait, first come is first served.  Waiting makes the pool grow,
 * but slowly while connections come free faster than one could be opened.
 *
 * Whatever may change who gets what marks the pool (pool_mark()), and
 * pool_dispatch() has one caller, which is the loop's turn.  So while a pool is
 * not marked, those who wait cannot be served.
 */
#include "postgres.h"

#include "worker/connection.h"
#include "worker/worker.h"

/* Of the remote's time, how much a rider has before it while there is choice. */
#define RIDE_WAIT_US		1000

/* Most flights of a connection. */
#define RIDE_MOST			64

/* Nobody rides behind a statement that has been running for so long. */
#define STALLED_US			10000

/* Riders who came so long ago still have a connection left for their like. */
#define RIDERS_STAY_US		100000

/* Microseconds a first waiter waits before the pool grows anyway. */
#define GROW_PATIENCE_US	5000

/* From so many repeats on, a request has a connection of its own. */
#define REPEATS_ALONE		2

/* How often a request is given another connection when one proved dead. */
#define MAX_ATTEMPTS		3

/* The first of those who wait, or NULL. */
Request *
pool_first_waiter(Pool *pool)
{
	Request    *rider = NULL;
	Request    *loner = NULL;

	if (!dlist_is_empty(&pool->riders))
		rider = dlist_head_element(Request, node, &pool->riders);
	if (!dlist_is_empty(&pool->loners))
		loner = dlist_head_element(Request, node, &pool->loners);
	if (rider == NULL || loner == NULL)
		return rider != NULL ? rider : loner;
	return rider->slot->ticket < loner->slot->ticket ? rider : loner;
}

/* Show how many wait, and since when. */
static void
show_waiters(Pool *pool)
{
	Request    *first = pool_first_waiter(pool);

	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->used_at = pool->used_at;
	pool->shared->waiting = pool->nwaiting;
	pool->shared->oldest_wait = first != NULL ? first->queued_at : 0;
	SpinLockRelease(&pool->shared->mutex);
}

/* Put a request into its queue, in the order of the tickets, and mark the pool. */
static void
enter_queue(Pool *pool, Request *req)
{
	dlist_head *queue = req->rides ? &pool->riders : &pool->loners;
	dlist_node *after = &queue->head;

	if (!dlist_is_empty(queue))
	{
		after = dlist_tail_node(queue);
		while (after != &queue->head &&
			   dlist_container(Request, node, after)->slot->ticket > req->slot->ticket)
			after = after->prev;
	}
	if (after == &queue->head)
		dlist_push_head(queue, &req->node);
	else
		dlist_insert_after(after, &req->node);
	req->queued = true;
	pool->nwaiting++;
	janitor_request_waits(req);
	show_waiters(pool);
	pool_mark(pool);
}

/* Take a request off the queue. */
void
pool_leave_queue(Request *req)
{
	Pool	   *pool = req->pool;

	Assert(req->queued);
	dlist_delete(&req->node);
	req->queued = false;
	pool->nwaiting--;
	show_waiters(pool);
}

/* Can a rider join the connection? */
static bool
can_join(Conn *conn, const Request *req, Ticks now)
{
	return conn->joinable && conn->nflights < RIDE_MOST && conn->flushed &&
		conn->norphans == 0 && conn->rows == NULL && !conn->dirty && !conn->big && !conn->broken &&
		conn->generation == conn->pool->generation &&
		(conn->expires_at == 0 || now < conn->expires_at) &&
	/* what is before it could not be taken off if its session gives up */
		(conn->home_pid == 0 || !(conn->synchronous || conn->pool->synchronous)) &&
		conn_head_us(conn, now) < STALLED_US + conn->pool->rtt_us;
}

/* The shared connection with the least before a rider, or NULL. */
static Conn *
find_ride(Pool *pool, const Request *req, Ticks now)
{
	Conn	   *best = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if ((best == NULL || conn->load < best->load) && can_join(conn, req, now))
			best = conn;
	}
	return best;
}

/* Does a loner leave a connection for riders, if there were any of late? */
static bool
loner_may_start(Pool *pool, Ticks now)
{
	dlist_iter	iter;

	if (pool_max(pool) == 1 || pool->nconns[CONN_IDLE] > 1 ||
		now - pool->rider_at > RIDERS_STAY_US)
		return true;
	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		if (dlist_container(Conn, node, iter.cur)->joinable)
			return true;
	}
	if (pool_size(pool) < pool_max(pool))
		return true;
	timer_set_by(&pool->upkeep, pool->rider_at + RIDERS_STAY_US);
	return false;
}

/* Give an idle connection to a request, after a check if it is long unused. */
static void
start_on_idle(Pool *pool, Request *req, Ticks now)
{
	Conn	   *conn = dlist_head_element(Conn, node, &pool->conns[CONN_IDLE]);
	int			after = pool->options.validate_after;

	if ((after >= 0 && now - conn->used_at > after * INT64CONST(1000)) ||
		conn_needs_preparing(conn, req))
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
	Conn	   *ride = rides ? find_ride(pool, req, now) : NULL;

	if (ride != NULL && ride->load > RIDE_WAIT_US)
	{
		if (pool->nconns[CONN_IDLE] > 0)
			ride = NULL;
		else
			pool->crowded = true;
	}
	if (ride == NULL &&
		(pool->nconns[CONN_IDLE] == 0 || (!rides && !loner_may_start(pool, now))))
		return false;
	if (req->queued)
		pool_leave_queue(req);
	req->rides = rides;
	if (ride != NULL)
		conn_start(ride, req);
	else
		start_on_idle(pool, req, now);
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

/*
 * Back to the queue; false when the session has gone meanwhile, or is sent
 * back for a newer definition.
 */
static bool
unstart(Request *req)
{
	RequestSlot *slot = req->slot;
	Pool	   *pool = req->pool;

	pg_atomic_write_u32(&slot->sent, 0);
	if (request_state(req) == REQUEST_RUNNING &&
		!request_move(slot, req->hold, REQUEST_RUNNING, REQUEST_QUEUED))
	{
		request_gone(req);
		return false;
	}
	if (pool->definition != NULL && pool->definition_len == slot->definition_len &&
		memcmp(pool->definition, req->definition, slot->definition_len) == 0)
		return true;
	if (request_restart(req))
		request_stale(req);
	return false;
}

/* What was done for it is done: it waits again, in its old place. */
static void
wait_again(Request *req)
{
	if (unstart(req))
		enter_queue(req->pool, req);
}

typedef struct Checked
{
	Conn	   *conn;
	Request    *req;
} Checked;

static void
checked_piece(void *arg)
{
	Checked    *checked = arg;

	conn_start(checked->conn, checked->req);
}

/* The connection was checked for a request, which is off it, and works. */
void
pool_checked(Conn *conn, Request *req)
{
	Checked		checked = {conn, req};

	if (conn->generation != conn->pool->generation)
		wait_again(req);
	else if ((req->slot->traces & TRACE_READ_ONLY) && !conn->read_only)
		request_fail(req, "0A000", "the remote server does not make transactions read-only",
					 "The statement was not run.",
					 "The local transaction is read-only, and dbpool.inherit_read_only is on.");
	else
		(void) work_guard(checked_piece, &checked, request_recover, req);
	if (conn->state == CONN_CHECKING)
		pool_conn_ready(conn);
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

		if (conn->makes_way)
			return;
		if (!conn->joinable)
			continue;
		shared++;
		if (best == NULL || conn->load < best->load)
			best = conn;
	}
	if (best == NULL || (shared == 1 && pool_max(pool) > 1))
		return;
	best->joinable = false;
	best->makes_way = true;
}

static void
open_piece(void *arg)
{
	conn_open(arg);
}

static void
open_recover(void *owner, int sqlerrcode)
{
	pool_conn_failed(owner, work_error_state(sqlerrcode), work_error_text(sqlerrcode), NULL);
}

/*
 * Would the waiters be served sooner by the connections there are than by a
 * new one?  Not when the first of them has waited so long already that the
 * averages cannot be true.
 */
static bool
growth_can_wait(Pool *pool, Ticks now)
{
	int			busy = pool->nconns[CONN_BUSY] + pool->nconns[CONN_CHECKING];
	Request    *first = pool_first_waiter(pool);
	Ticks		patience;

	if (first == NULL || busy == 0 || pool->exec_us == 0 || pool->connect_us == 0)
		return false;
	patience = first->queued_at + Max((int64) pool->connect_us, GROW_PATIENCE_US);
	if (now >= patience ||
		pool->nwaiting * pool->exec_us / busy > pool->connect_us)
		return false;
	timer_set_by(&pool->upkeep, patience);
	return true;
}

/* Open connections if the pool needs more. */
static void
pool_grow(Pool *pool)
{
	bool		crowded = pool->crowded;

	pool->crowded = false;
	while (pool->definition != NULL)
	{
		int			size = pool_size(pool);
		int			connecting = pool->nconns[CONN_CONNECTING];
		int			open = size - connecting;
		bool		short_of_min = size < pool_min(pool);
		Ticks		now;

		if (size >= pool_max(pool) || connecting > Max(open, 1) - 1)
			break;
		if (!short_of_min && !(crowded && connecting == 0) &&
			(pool->nwaiting <= connecting + pool->nconns[CONN_IDLE] || pool->paused))
			break;
		now = ticks_now();
		if (now < pool->retry_at && (open > 0 || pool->nwaiting == 0))
		{
			timer_set_by(&pool->upkeep, pool->retry_at);
			break;
		}
		if (!short_of_min && growth_can_wait(pool, now))
			break;
		(void) work_guard(open_piece, pool, open_recover, pool);
		if (pool_size(pool) == size)
			break;				/* it failed at once */
	}
}

/* Give connections to those who wait, and open more if there are too few. */
void
pool_dispatch(Pool *pool)
{
	while (!pool->paused && pool->nwaiting > 0)
	{
		Ticks		now = ticks_now();
		Request    *first = pool_first_waiter(pool);
		dlist_head *others = first->rides ? &pool->loners : &pool->riders;

		if (try_waiter(pool, first, now))
			continue;
		if (!first->rides)
			make_way(pool);
		if (dlist_is_empty(others) ||
			!try_waiter(pool, dlist_head_element(Request, node, others), now))
			break;
	}
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
		(!pool->look.marked && dlist_is_empty(req->rides ? &pool->riders : &pool->loners));
}

/* A request has come to its pool. */
void
dispatch_submit(Request *req)
{
	Pool	   *pool = req->pool;
	RequestSlot *slot = req->slot;

	if (slot->kind == REQUEST_QUERY)
	{
		req->statement = statement_use(pool, req->sql, slot->sql_len);
		if (req->statement != NULL)
			req->statement->refs++;
	}
	req->rides = pool->options.multiplex && pool->options.reset != RESET_ALWAYS &&
		slot->traces == 0 && req->large == NULL && statement_is_short(req->statement);
	if (req->rides)
		pool->rider_at = req->queued_at;
	if (!may_go_first(pool, req) || !try_start(pool, req, req->queued_at))
	{
		enter_queue(pool, req);
		SpinLockAcquire(&pool->shared->mutex);
		pool->shared->counters.waited++;
		SpinLockRelease(&pool->shared->mutex);
	}
	else if (pool->crowded)
		pool_mark(pool);
}

/* Its connection proved dead before the statement ran: wait again. */
void
pool_requeue(Request *req)
{
	Pool	   *pool = req->pool;

	if (!unstart(req))
		return;
	if (req->started_at != 0)
		req->queued_at = ticks_now();
	if (++req->attempts >= MAX_ATTEMPTS)
	{
		char		what[DBPOOL_SHOWN_ERROR];
		char		detail[64];

		snprintf(what, sizeof(what),
				 "connections of pool \"%s\" are lost as soon as they are used",
				 NameStr(pool->options.server));
		snprintf(detail, sizeof(detail), "%d were tried. The statement was not run.",
				 req->attempts);
		request_fail(req, "08006", what, detail, NULL);
	}
	else
		enter_queue(pool, req);
}

/*
 * It was rolled back for no fault of its own, or since it held up others: once
 * more, unseen.  alone: on a connection of its own.
 */
void
pool_repeat(Request *req, bool alone)
{
	Pool	   *pool = req->pool;

	if (!unstart(req))
		return;
	if (++req->repeats >= REPEATS_ALONE || alone)
		req->rides = false;
	req->queued_at = ticks_now();
	if (!request_restart(req))
		return;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.repeats++;
	SpinLockRelease(&pool->shared->mutex);
	enter_queue(pool, req);
}
