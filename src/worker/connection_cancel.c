/*
 * connection_cancel.c
 *	  Getting the remote to stop a statement that nobody waits for any more.
 *
 * The cancel goes over a connection of its own and is sent by a thread.  The
 * remote has sent its signal when that connection is closed; only after that,
 * and with the statement's end read, may the next statement be sent.
 *
 * A cancel hits what the remote runs when it arrives.  Statements of other
 * sessions, sent behind before, may be hit as well; these are sent again
 * (connection_read.c).  As that is a waste, a statement with others behind it,
 * which is known to be short, gets some time to end by itself first.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/* Milliseconds within which the remote has to end a cancelled statement. */
#define CANCEL_MS		10000

/*
 * Most cancels that a pool has under way.  A remote that hangs holds each for
 * minutes, and other pools need threads, too.
 */
#define CANCELS_PER_POOL	4

/* All of it malloc'd, as the thread needs it. */
typedef struct Cancel
{
	CompatCancel *libpq;
	bool		delivered;
	Pool	   *pool;			/* the loop's */
} Cancel;

/* In a thread. */
static void
cancel_run(void *data)
{
	Cancel	   *cancel = data;

	cancel->delivered = compat_cancel_run(cancel->libpq);
}

static void
could_not_cancel(Conn *conn)
{
	Pool	   *pool = conn->pool;

	conn_close(conn, "its statement could not be cancelled");
	pool_dispatch(pool);
}

static bool cancel_start(Conn *conn);

/* Let the next cancel of the pool start. */
static void
start_waiting(Pool *pool)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_CANCELLING])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->cancel_waits)
		{
			conn->cancel_waits = false;
			if (!cancel_start(conn))
				could_not_cancel(conn);
			break;
		}
	}
}

/* Back in the loop. */
static void
cancel_done(void *data, void *arg)
{
	Cancel	   *cancel = data;
	Conn	   *conn = arg;
	Pool	   *pool = cancel->pool;
	bool		delivered = cancel->delivered;

	compat_cancel_free(cancel->libpq);
	free(cancel);
	pool->cancels--;
	if (conn != NULL)
	{
		conn->cancel = NULL;
		conn->cancel_ended = true;
		/* with others on it, let it end by itself if it can */
		if (delivered || conn->nflights > conn->norphans)
			conn_after_cancel(conn);
		else
			could_not_cancel(conn);
	}
	start_waiting(pool);
	if (pool_size(pool) == 0)
		timer_set_by(&pool->upkeep, GetCurrentTimestamp());
}

static bool
cancel_start(Conn *conn)
{
	Cancel	   *cancel = calloc(1, sizeof(Cancel));

	conn->cancel = NULL;
	if (cancel == NULL)
		return false;
	cancel->pool = conn->pool;
	cancel->libpq = compat_cancel_create(conn->pg);
	if (cancel->libpq != NULL)
		conn->cancel = offload_submit(OFFLOAD_CANCEL, cancel_run, cancel_done,
									  cancel, conn);
	if (conn->cancel != NULL)
	{
		conn_head(conn)->cancelled = true;
		conn->pool->cancels++;
		return true;
	}
	if (cancel->libpq != NULL)
		compat_cancel_free(cancel->libpq);
	free(cancel);
	return false;
}

/*
 * The session of a flight has given it up.  The caller sees to the request and
 * then to the connection.
 */
void
conn_orphan(Conn *conn, Flight *flight)
{
	Request    *req = flight->req;

	if (conn_head(conn) == flight)
		reply_drop_rows(conn);
	req->flight = NULL;
	req->conn = NULL;
	flight->req = NULL;
	conn->norphans++;
}

/* Have the first flight cancelled, which is an orphan; false when that fails. */
static bool
cancel_head(Conn *conn)
{
	conn_set_deadline(conn, CANCEL_MS);
	conn->cancel_ended = false;
	conn->cancel_waits = conn->pool->cancels >= CANCELS_PER_POOL;
	return conn->cancel_waits || cancel_start(conn);
}

/*
 * A flight of a cancelled connection has ended or was given up, or the cancel
 * was delivered.  The connection is of use again when both sides are through
 * with it.  Until then each orphan that comes to the front is cancelled; those
 * for whom somebody waits take as long as they take.
 */
void
conn_after_cancel(Conn *conn)
{
	Flight	   *head = conn_head(conn);

	if (conn->cancel_waits && !flight_is_orphan(head))
	{
		/* it ended by itself */
		conn->cancel_waits = false;
		conn->cancel_ended = true;
	}
	if (head != NULL && !flight_is_orphan(head))
		timer_stop(&conn->deadline);
	else if (!conn->cancel_ended)
	{
		if (!conn->deadline.armed)
			conn_set_deadline(conn, CANCEL_MS);
	}
	else if (head == NULL)
	{
		timer_stop(&conn->deadline);
		conn->used_at = GetCurrentTimestamp();
		conn->worked_at = conn->used_at;
		conn_settle(conn);
	}
	else if (!head->cancelled && !cancel_head(conn))
		could_not_cancel(conn);
}

/*
 * A request was given up: get the remote to stop, and read what still comes.
 * The caller has made an orphan of its flight, which is the first.
 */
void
conn_cancel(Conn *conn)
{
	conn_move(conn, CONN_CANCELLING);
	if (!cancel_head(conn))
	{
		conn_close(conn, "its statement could not be cancelled");
		return;
	}
	/* read on, even if the backend was too slow for us before */
	conn_want(conn, WL_SOCKET_READABLE | (conn->flushed ? 0 : WL_SOCKET_WRITEABLE));
	conn_event(conn, WL_SOCKET_READABLE);
}

static void
cancel_busy(Pool *pool)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_BUSY])
		(void) cancel_start(dlist_container(Conn, node, iter.cur));
	dlist_foreach(iter, &pool->conns[CONN_CANCELLING])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->cancel_waits)
			(void) cancel_start(conn);
	}
}

/*
 * The process ends: get the remotes to stop what it leaves behind; those short
 * statements apart that were sent behind others.  That goes on in threads, for
 * whose end nobody looks but leave_threads().
 */
void
connections_cancel(void)
{
	pools_foreach(cancel_busy);
}
