/*
 * stop.c
 *	  Pools that are disabled or isolated take nothing new; those that are killed lose their
 *	  connections at once.
 *
 * Who stops a pool, and how it is waited for, stands in ipc/shmem.h.
 */
#include "postgres.h"

#include "worker/connection.h"

/* The pool takes nothing: tell the request, which is in no queue.  Throws nothing. */
void
pool_refuse(Pool *pool, Request *req)
{
	char		what[DBPOOL_SHOWN_ERROR];

	/*
	 * another pool stands in for one that is isolated, as it does for a
	 * remote that is away
	 */
	req->no_remote = (pool->disabled & TICKET_ISOLATES) != 0;
	snprintf(what, sizeof(what), req->no_remote ? "pool \"%s\" is isolated" : "pool \"%s\" is disabled",
			 NameStr(pool->options.server));
	request_fail(req, req->no_remote ? "08001" : "55000", what,
				 req->no_remote ? "dbpool_isolate() was called. The statement was not run." :
				 "dbpool_disable() or dbpool_drain() was called. The statement was not run.",
				 "dbpool_enable() lets the pool work again.");
}

/* Those who wait were there before, or have come back.  Those in doubt have run, perhaps. */
void
pool_refuse_waiters(Pool *pool)
{
	Request    *req;

	while ((req = pool_first_of(pool, ~(1 << QUEUE_DOUBTS))) != NULL)
	{
		pool_leave_queue(req);
		pool_refuse(pool, req);
	}
}

static void
kill_conn(Conn *conn, void *arg)
{
	(void) arg;
	if (conn->state == CONN_CONNECTING || conn->state == CONN_IDLE)
	{
		conn_close(conn, "dbpool_kill() or dbpool_drain() was called");
		return;
	}
	conn_cancel_last(conn);
	strlcpy(conn->loss.error, "It was closed by dbpool_kill() or dbpool_drain().",
			sizeof(conn->loss.error));
	conn_lost(conn);
}

/* Close all connections of a pool; what was on them meets its fate.  Throws nothing. */
void
pool_kill(Pool *pool)
{
	pool_foreach_conn(pool, kill_conn, NULL);
}
