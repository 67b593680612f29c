/*
 * janitor.c
 *	  Everything that happens by time: deadlines of requests, of what
 *	  connections are doing, idle and aged connections, unused pools.
 *
 * Timers are armed for the earliest thing that may be due and look for
 * themselves when they fire, so that the path of a statement seldom touches
 * them.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "worker/connection.h"
#include "worker/worker.h"

static double
seconds_since(Ticks then, Ticks now)
{
	return (now - then) / 1000000.0;
}

/* What keeps a pool's connections: for the error of one that waited in vain. */
static char *
pool_explain(Pool *pool, Ticks now)
{
	StringInfoData buf;
	dlist_iter	iter;
	Ticks		longest = now;

	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Request    *req = conn_head_request(dlist_container(Conn, node, iter.cur));

		if (req != NULL && req->started_at < longest)
			longest = req->started_at;
	}
	initStringInfo(&buf);
	appendStringInfo(&buf, "%d of at most %d connections are busy",
					 pool->nconns[CONN_BUSY], pool_max(pool));
	if (pool->nconns[CONN_BUSY] > 0)
		appendStringInfo(&buf, ", the longest for %.1f s", seconds_since(longest, now));
	if (pool->nconns[CONN_CONNECTING] > 0)
		appendStringInfo(&buf, ", %d are being opened", pool->nconns[CONN_CONNECTING]);
	if (pool->nconns[CONN_CHECKING] > 0)
		appendStringInfo(&buf, ", %d are being checked", pool->nconns[CONN_CHECKING]);
	if (pool->nconns[CONN_RESETTING] > 0)
		appendStringInfo(&buf, ", %d are being reset", pool->nconns[CONN_RESETTING]);
	if (pool->nconns[CONN_CANCELLING] > 0)
		appendStringInfo(&buf, ", %d are being cancelled", pool->nconns[CONN_CANCELLING]);
	appendStringInfo(&buf, "; %d other requests are waiting.", pool->nwaiting);
	if (pool->paused)
		appendStringInfoString(&buf, " The pool is paused.");
	if (pool->nconns[CONN_CONNECTING] > 0)
	{
		Conn	   *conn = dlist_head_element(Conn, node, &pool->conns[CONN_CONNECTING]);
		const char *host;
		const char *port;

		conn_open_place(conn, &host, &port);
		appendStringInfo(&buf, "\nThe server at \"%.300s\", port %.20s has not let a connection in for %.1f s.",
						 host, port, seconds_since(conn->opened_at, now));
	}
	if (pool->failed_at != 0)
		appendStringInfo(&buf, "\nThe last connect error, %.1f s ago: %s",
						 seconds_since(pool->failed_at, now), pool->error);
	return buf.data;
}

/* A request has waited for a connection as long as it may. */
void
pool_waited_too_long(Request *req)
{
	Pool	   *pool = req->pool;
	Ticks		now = ticks_now();
	bool		opened;

	opened = pool_size(pool) > pool->nconns[CONN_CONNECTING];
	/* off the queue, or off the connection that is being checked for it */
	if (req->conn == NULL)
		pool_leave_queue(req);
	else
		req->conn->waiter = NULL;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.timeouts++;
	SpinLockRelease(&pool->shared->mutex);
	request_fail(req, opened || pool->paused ? "53300" : "08001",
				 psprintf("could not get a connection of pool \"%s\" within %g s",
						  NameStr(pool->options.server),
						  pool->options.acquire_timeout / 1000.0),
				 pool_explain(pool, now),
				 pool->paused ?
				 "dbpool_resume() lets the pool work again." :
				 opened ?
				 "See dbpool_connections for what the connections are doing; the server's options max_size and acquire_timeout set the limits." :
				 pool->failed_at != 0 ? pool->hint : login_hint_timeout());
}

/* The remote has not answered in time. */
static void
conn_deadline(void *arg)
{
	Conn	   *conn = arg;

	switch (conn->state)
	{
		case CONN_CONNECTING:
			conn_open_overdue(conn);
			break;
		case CONN_CHECKING:
			strlcpy(conn->loss.error, "The remote server did not answer a check.",
					sizeof(conn->loss.error));
			conn_lost(conn);
			break;
		case CONN_BUSY:
			if (flight_is_orphan(conn_head(conn)))
				conn_cancel(conn);
			break;
		case CONN_CANCELLING:
			conn_cancel_overdue(conn);
			break;
		case CONN_RESETTING:
			conn_close(conn, "the remote server did not reset the session in time");
			break;
		default:
			break;
	}
}

/*
 * Others may be waiting behind a connection's first flight, or it waits itself
 * for what does not make its socket ready.
 */
static void
conn_watch_fire(void *arg)
{
	Conn	   *conn = arg;

	if (conn->state == CONN_CONNECTING)
		conn_open_event(conn);
	else
		conn_look(conn);
}

/* Look what is due of an idle connection. */
static void
conn_idle_fire(void *arg)
{
	Conn	   *conn = arg;
	Pool	   *pool = conn->pool;
	const PoolOptions *options = &pool->options;
	Ticks		now = ticks_now();

	if (conn->state != CONN_IDLE)
		return;
	if (conn->expires_at != 0 && now >= conn->expires_at)
		conn_close(conn, "it has reached max_lifetime");
	else if (options->idle_timeout > 0 && pool_size(pool) > pool_min(pool) &&
			 now >= ticks_plus_ms(conn->worked_at, options->idle_timeout))
		conn_close(conn, "it has reached idle_timeout");
	else if (options->health_check_interval > 0 &&
			 now >= ticks_plus_ms(conn->used_at,
								  options->health_check_interval))
		conn_check(conn, NULL);
	else
		conn_idle(conn);
}

/* Something happened on a connection's socket. */
static void
conn_ready_socket(void *arg)
{
	Conn	   *conn = arg;
	uint32		events = conn->io.poll.events;

	if (conn->state == CONN_CONNECTING)
		conn_open_event(conn);
	else if ((events & WL_SOCKET_CLOSED) && !(events & WL_SOCKET_READABLE))
	{
		/*
		 * The remote has closed while we were not reading since the backend
		 * is slow.  What it sent before is still to be read: leave the socket
		 * out of the wait until then.
		 */
		poll_socket(&conn->io.poll, conn->io.poll.sock, 0);
	}
	else
		conn_event(conn, events);
}

/* At start: what the connections call from below. */
void
janitor_init(void)
{
	conn_handlers.ready = conn_ready_socket;
	conn_handlers.go_on = conn_go_on;
	conn_handlers.deadline = conn_deadline;
	conn_handlers.watch = conn_watch_fire;
	conn_handlers.idle = conn_idle_fire;
}
