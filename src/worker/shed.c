/*
 * shed.c
 *	  Who is turned away when more comes than the remote can do.
 *
 * A queue that is served in the order of coming is of no use to anybody once it is as long as
 * its clients are patient: each is served when it has just given up.  What was worked for
 * the others is lost, so that what is answered in time falls to nothing while all connections
 * are busy.  There are two remedies, options of the server.
 *
 * MAX_WAITING
 *
 * Who would be one more than may wait is refused at once.  Those for whom the pool
 * may still open a connection do not count: a pool that has just been used for the
 * first time has a queue, but no limit of its own has been reached.  A pause has
 * no such connections.
 *
 * SHED
 *
 * Is a queue that there is long because many have come at a time, or since more come than
 * are served?  The first kind is over soon; in the second kind somebody waits at all
 * times.  So:
 *
 *	1. "Wait" is how long a request has been in its queue.  The wait of the queue is
 *	   that of the request which has waited for longest, as it would be served next.
 *	   It is looked at whenever the pool is: somebody comes, leaves, or is served.
 *	2. The pool is overloaded when that wait has been above 5 ms all the time for 100 ms:
 *	   short_at is when it was not, at last.
 *	3. While it is, those who came last are served first, and the others are given up when
 *	   they have waited for more than 10 ms.  The one who came last is not, as it is next.
 *	4. It is over when nobody has waited for 20 ms on end.  That nobody does for a moment is
 *	   chance, and would cost another 100 ms in which those who come first are served first.
 *
 * Whom that concerns: riders, loners, and those who want to open a lease, whatever
 * has become of tries before.  Never those in doubt, who have perhaps run and are always served
 * first; nor the statements of leases that are open, which wait for their own connection and are in no
 * queue; nor those whose next try is not due.
 *
 * Each worker of a split pool judges its own queue, as that is what its connections serve.
 *
 * Nobody is judged by what the remote cannot help: while the pool is paused, or opens
 * a connection (and the last one it tried to open was opened), and those who came meanwhile,
 * until the last of them has been served in turn.  A remote that does not let us in is none
 * of that: with the connections that there are it is as overloaded as another.
 * acquire_timeout goes on beside all that, and ends who is not given up before.
 *
 * A rider does not wait in a queue but behind others on a connection, where it cannot be
 * given up.  So with shed, and all connections open that may be, a connection is not joined
 * that has more than 5 ms of work.
 *
 * The idea is CoDel's (RFC 8289), as Facebook's folly and its "Fail at Scale" have it for requests.
 */
#include "postgres.h"

#include "worker/connection.h"
#include "worker/worker.h"

#define SHED_QUEUES		(1 << QUEUE_RIDERS | 1 << QUEUE_LONERS | 1 << QUEUE_LEASES)

/* Microseconds: a wait that is short, for how long there was none, a wait that is too long. */
#define WAIT_SHORT_US	5000
#define STANDS_US		100000
#define WAIT_MOST_US	10000

/* And for how long nobody waits when an overload is over. */
#define CALM_US			20000

#define TRY_AGAIN_HINT	"Try again after a wait that is random and grows."

static int
n_waiting(const Pool *pool)
{
	return pool->nqueued[QUEUE_RIDERS] + pool->nqueued[QUEUE_LONERS] + pool->nqueued[QUEUE_LEASES];
}

/* A request has come and would have to wait.  Returns true when it is refused instead. */
bool
shed_refuses(Request *req)
{
	Pool	   *pool = req->pool;
	int			n = n_waiting(pool);
	int			most;
	int			to_come;

	if (pool->options.max_waiting == 0)
		return false;
	most = pool_max_waiting(pool);
	to_come = pool->paused ? 0 :
		pool_max(pool) - (pool_size(pool) - pool->nconns[CONN_CONNECTING]);
	if (n < most + Max(to_come, 0))
		return false;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.refused++;
	SpinLockRelease(&pool->shared->mutex);
	request_fail(req, "53300",
				 psprintf("too many calls wait for a connection of pool \"%s\"",
						  NameStr(pool->options.server)),
				 psprintf("%d do, and the server's option max_waiting (%d) allows %s%d%s. The statement was not run.",
						  n, pool->options.max_waiting,
						  most < pool->options.max_waiting ? "this worker of the pool " : "", most,
						  to_come > 0 ? psprintf(" and %d for whom connections are being opened", to_come) : ""),
				 pool->paused ? "The pool is paused: dbpool_resume() lets it work again." :
				 TRY_AGAIN_HINT " See dbpool_connections for what the connections are doing.");
	return true;
}

/* Is the connection, which a rider could join, too busy for one that could be given up? */
bool
shed_holds_back(Pool *pool, const Conn *conn)
{
	return pool->options.shed && conn->flights.load > WAIT_SHORT_US &&
		pool_size(pool) >= pool_max(pool);
}

/* Step 2: is the pool overloaded? */
void
shed_look(Pool *pool, Ticks now)
{
	Request    *first = pool_first_of(pool, SHED_QUEUES);
	bool		opening = pool->nconns[CONN_CONNECTING] > 0 && pool->failures == 0;

	if (pool->paused || opening)
		pool->judged_from = now;
	if (first == NULL)
		return;
	if (first->queued_at <= pool->judged_from ||
		(pool->empty_since != 0 && now - pool->empty_since > CALM_US))
	{
		pool->overloaded = false;
		pool->short_at = now;
	}
	/* a queue that was empty is short when somebody comes */
	if (pool->empty_since != 0 || pool->short_at == 0)
		pool->short_at = Max(pool->short_at, first->queued_at);
	pool->empty_since = 0;
	if (now - first->queued_at <= WAIT_SHORT_US)
		pool->short_at = now;
	if (now - pool->short_at > STANDS_US)
		pool->overloaded = true;
}

/* The last who came of those who wait in some of the queues, or NULL. */
static Request *
last_of(Pool *pool, int queues)
{
	Request    *last = NULL;

	for (int i = 0; i < QUEUES; i++)
	{
		Request    *req;

		if (!(queues & (1 << i)) || dlist_is_empty(&pool->queues[i]))
			continue;
		req = dlist_tail_element(Request, node, &pool->queues[i]);
		if (last == NULL || req->task.ticket > last->task.ticket)
			last = req;
	}
	return last;
}

/* Who is to be served next of those who wait in some of the queues, or NULL. */
Request *
shed_next(Pool *pool, int queues)
{
	if (!pool->overloaded)
		return pool_first_of(pool, queues);
	if ((queues & (1 << QUEUE_DOUBTS)) && pool->nqueued[QUEUE_DOUBTS] > 0)
		return pool_first_of(pool, 1 << QUEUE_DOUBTS);
	return last_of(pool, queues);
}

static void
give_up(Request *req, Ticks now)
{
	Pool	   *pool = req->pool;

	pool_leave_queue(req);
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.shed++;
	SpinLockRelease(&pool->shared->mutex);
	request_fail(req, "53300",
				 psprintf("pool \"%s\" is overloaded", NameStr(pool->options.server)),
				 psprintf("The call has waited for %.1f ms, and others have waited for more than %d ms at all times for %.1f s. Until nobody waits any more, those who came last are served first, and others are given up after %d ms. The statement was not run.",
						  (now - req->queued_at) / 1000.0, WAIT_SHORT_US / 1000,
						  (now - pool->short_at) / 1000000.0, WAIT_MOST_US / 1000),
				 TRY_AGAIN_HINT " See dbpool_connections for what the connections are doing; the server's options max_size and shed have to do with it.");
}

/*
 * Step 3: those who could be served have been.  What has been tried before has its
 * old place, but waits since its last try: so it does not end the search.
 */
void
shed_others(Pool *pool, Ticks now)
{
	Request    *next = last_of(pool, SHED_QUEUES);

	if (next == NULL && pool->empty_since == 0)
		pool->empty_since = now;
	if (next == NULL || !pool->overloaded)
		return;
	for (int i = 0; i < QUEUES; i++)
	{
		dlist_mutable_iter iter;

		if (!(SHED_QUEUES & (1 << i)))
			continue;
		dlist_foreach_modify(iter, &pool->queues[i])
		{
			Request    *req = dlist_container(Request, node, iter.cur);

			if (req != next && now - req->queued_at > WAIT_MOST_US)
				give_up(req, now);
			else if (req->tries == 1 && req->repeats == 0)
				break;
		}
	}
}
