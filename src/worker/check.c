/*
 * check.c
 *	  What is true of pools, requests and connections whenever a turn ends.
 *
 * Where the server has assertions, every turn ends with this.  So what a function
 * may leave undone within a turn, and what not, stands here in one place.
 */
#include "postgres.h"

#include "worker/connection.h"
#include "worker/worker.h"

#ifdef USE_ASSERT_CHECKING

/* One has no members, or as many as are counted. */
static void
check_count(dlist_head *list, int n)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
		n--;
	Assert(n == 0);
}

static void
check_flights(Conn *conn)
{
	dlist_iter	iter;
	int			orphans = 0;

	check_count(&conn->flights.list, conn->flights.n);
	dlist_foreach(iter, &conn->flights.list)
	{
		Flight	   *flight = dlist_container(Flight, node, iter.cur);
		Request    *req = flight->req;

		orphans += flight_is_orphan(flight);
		/* a request and its flight know each other, and who waits is theirs */
		Assert(req == NULL || (req->active && !req->ending && !req->queued && !flight->chore));
		Assert(req == NULL || (req->flight == flight && req->conn == conn && req->pool == conn->pool));
		/* a copy is alone, but for chores, and its request has another flight */
		Assert(flight->hedges == NULL ||
			   (req == NULL && flight->hedges->hedge.flight == flight && flight->hedges->hedge.conn == conn &&
				flight->hedges->flight != NULL && flight->hedges->conn != conn && flight->hedges->hedge.watched &&
				!flight->hedges->put && !conn->flights.joinable));
		Assert(req == NULL || req->hedge.watched || (req->hedge.flight == NULL && !req->hedge.due.armed));
		Assert(flight->awaited == NULL || (req == NULL && flight->awaited->kept));
		Assert(flight->statement == NULL || flight->statement->refs > 0);
		Assert(!flight->reused || flight->prepared);
		Assert(!flight->parsing || flight->prepared);
	}
	Assert(conn->flights.orphans == orphans);
	Assert(conn->flights.load >= 0 || conn->flights.n > 0);
}

static void
check_conn(Conn *conn, ConnState state)
{
	bool		runs = state == CONN_BUSY || state == CONN_CANCELLING;
	bool		asks = state == CONN_CHECKING || state == CONN_RESETTING;

	Assert(conn->state == state);
	Assert(conn->shared->in_use && conn->shared->worker == my_worker);
	check_flights(conn);

	/* opening */
	Assert(state == CONN_CONNECTING || (conn->io.pg != NULL && !conn->opening.lookup && !conn->opening.step));
	Assert(conn->opening.step == NULL || conn->io.pg == NULL);
	Assert(state != CONN_CONNECTING || (conn->opening.candidates != NULL && conn->generation <= conn->pool->generation));

	/* flights: only what runs has some; who waits for a check has none yet */
	Assert(runs || conn->flights.n == 0);
	Assert(state != CONN_BUSY || conn->flights.n > 0);
	Assert(conn->waiter == NULL || ((state == CONN_CHECKING || conn->lease.shared != NULL) && conn->waiter->conn == conn && !conn->waiter->queued));
	Assert(!(conn->flights.joinable && conn->flights.makes_way));
	Assert(conn->flights.n <= 1 || conn->io.pipelined);

	/* lease: what is leased has one, which it may have while it runs as well */
	Assert(state != CONN_LEASED || (conn->lease.shared != NULL && (conn->waiter == NULL || conn->go_on.marked)));
	Assert(conn->lease.shared == NULL || runs || state == CONN_LEASED ||
		   (state == CONN_RESETTING && conn->lease.prepared));

	/* replay: it is asked with a check */
	Assert(!conn->replay.asks || state == CONN_CHECKING);

	/* cancel: what waits for its turn, or for its thread, has not ended */
	Assert(!conn->cancel.waits || (state == CONN_CANCELLING && !conn->cancel.ended));
	Assert(state != CONN_CANCELLING || conn->cancel.job == NULL || !conn->cancel.ended);

	/* rows are the first flight's */
	Assert(conn->rows.result == NULL || conn->flights.n > 0);

	/* an idle one is as new, but for what is put away later */
	Assert(state != CONN_IDLE || (!conn->session.adapted && !conn->io.big && !conn->loss.broken));

	/*
	 * what the remote owes an answer to has its time, or is somebody's who
	 * waits
	 */
	Assert(!asks || conn->deadline.armed);
	Assert(state != CONN_CONNECTING || conn->deadline.armed);
}

static void
check_queue(Pool *pool, Queue queue)
{
	dlist_iter	iter;
	uint64		ticket = 0;

	check_count(&pool->queues[queue], pool->nqueued[queue]);
	dlist_foreach(iter, &pool->queues[queue])
	{
		Request    *req = dlist_container(Request, node, iter.cur);

		Assert(req->active && req->queued && !req->ending && !req->held);
		Assert(req->pool == pool && req->conn == NULL && req->flight == NULL);
		Assert(request_queue(req) == queue);
		Assert(req->deadline.armed);
		Assert(req->task.ticket > ticket);
		ticket = req->task.ticket;
	}
}

static void
check_pool(Pool *pool)
{
	int			nwaiting = 0;
	int			nleased = 0;
	dlist_iter	iter;

	for (int state = 0; state < CONN_CLOSED; state++)
	{
		check_count(&pool->conns[state], pool->nconns[state]);
		dlist_foreach(iter, &pool->conns[state])
			check_conn(dlist_container(Conn, node, iter.cur), state);
	}
	for (int i = 0; i < QUEUES; i++)
	{
		check_queue(pool, i);
		nwaiting += pool->nqueued[i];
	}
	for (int state = 0; state < CONN_CLOSED; state++)
	{
		dlist_foreach(iter, &pool->conns[state])
			nleased += dlist_container(Conn, node, iter.cur)->lease.shared != NULL;
	}
	Assert(pool->nleased == nleased);
	Assert(pool->nwaiting == nwaiting);
	Assert(pool->cancels >= 0 && pool->steps >= 0 && pool->lookups >= 0);

	/*
	 * with nothing open and nothing to come, nobody waits but for a mark or a
	 * time
	 */
	Assert(nwaiting == pool->nqueued[QUEUE_LATER] || pool->paused || pool_size(pool) > 0 || pool->look.marked ||
		   pool->upkeep.armed);
}

void
check_all(void)
{
	pools_foreach(check_pool);
}

#endif							/* USE_ASSERT_CHECKING */
