/*
 * connection_cancel.c
 *	  Getting the remote to stop a statement: one that nobody waits for any
 *	  more, or one that holds up others.
 *
 * The cancel goes over a connection of its own and is sent by a thread.  The
 * remote has sent its signal when that connection is closed; only after that,
 * and with the statement's end read, may the next statement be sent.
 *
 * A cancel that arrives before the remote has begun the statement is lost, as
 * on a remote that is busy.  So one that has not ended is cancelled again.
 *
 * A cancel hits what the remote runs when it arrives.  Statements of other
 * sessions, sent behind before, may be hit as well; these are sent again
 * (connection_read.c).  As that is a waste, an orphan with others behind it,
 * which is known to be short, gets some time to end by itself first.
 *
 * STALLS
 *
 * Those who share a connection were short so far, and one of them may stall all
 * the same: it waits for a lock, or its session does not read its answer.  Then
 *	 1. conn_look(), which a timer calls as long as somebody rides behind, finds
 *		that the first flight has been running for dbpool.stall_timeout.  The
 *		flight is stalled from now on, and its text counts as one that is not
 *		short (statement.c).
 *	 2. What its session does not read of its answer is kept, so that the answer
 *		can be read to its end (connection_reply.c).
 *	 3. It is cancelled.  The connection is in CANCELLING, where nobody joins.
 *	 4. Its answer ends.  If that is by query_canceled, it was rolled back as a
 *		whole: FRAME_RESTART voids what its session has got, and it goes to the
 *		queue for a connection of its own, as the first if nobody else there has
 *		come earlier.  If it has ended otherwise, that was its end: nothing is
 *		repeated, and the cancel, which came too late, may have hit the next one,
 *		which is.
 *	 5. Each of those behind becomes the first, and may be found to stall.
 * When its session gives up meanwhile, it is an orphan that has been cancelled.
 * When it cannot be cancelled, they all wait, as they would without.
 *
 * While a pool is paused nothing is taken off, as it would have to wait.  Nor is
 * it ever where commits wait for standbys: there the remote takes a cancel for a
 * word to wait no longer, and says that it has committed.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/* Milliseconds within which the remote has to end a cancelled statement. */
#define CANCEL_MS		10000

/* Milliseconds after which it is cancelled again; each time twice as long. */
#define AGAIN_MS		100

/* Milliseconds that others wait for an orphan to end by itself. */
#define ORPHAN_MS		20

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
	conn_close(conn, "its statement could not be cancelled");
}

static bool cancel_start(Conn *conn);

/* Is the flight to be cancelled? */
static bool
is_unwanted(const Flight *flight)
{
	return flight_is_orphan(flight) || (flight != NULL && flight->stalled);
}

/*
 * The cancel has come to its end.  If it could not be delivered, and somebody
 * waits for an answer of the connection, what runs may end by itself.
 */
static void
cancel_ended(Conn *conn, bool delivered)
{
	conn->cancel_ended = true;
	if (delivered || conn->nflights > conn->norphans)
		conn_after_cancel(conn);
	else
		could_not_cancel(conn);
}

static void
delivered_piece(void *conn)
{
	cancel_ended(conn, true);
}

static void
failed_piece(void *conn)
{
	cancel_ended(conn, false);
}

/* Let the next cancel of the pool start. */
static void
start_waiting(Pool *pool)
{
	dlist_iter	iter;
	bool		again = true;

	/* one that cannot be started must not keep the others waiting */
	while (again && pool->cancels < CANCELS_PER_POOL)
	{
		again = false;
		dlist_foreach(iter, &pool->conns[CONN_CANCELLING])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);

			if (!conn->cancel_waits)
				continue;
			conn->cancel_waits = false;
			if (!cancel_start(conn))
				(void) work_guard(failed_piece, conn, conn_recover, conn);
			again = true;
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
		(void) work_guard(delivered ? delivered_piece : failed_piece, conn,
						  conn_recover, conn);
	}
	start_waiting(pool);
	pool_mark(pool);
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

/* From now on the remote has its time to end what nobody waits for. */
static void
give_time(Conn *conn)
{
	conn->cancelled_at = ticks_now();
	conn_set_deadline(conn, CANCEL_MS);
}

/*
 * Have the first flight cancelled.  Returns false when that is not possible,
 * and nobody waits for the flight's end.
 */
static bool
cancel_head(Conn *conn)
{
	bool		orphan = flight_is_orphan(conn_head(conn));

	if (orphan)
		give_time(conn);
	else
		timer_stop(&conn->deadline);	/* of an orphan that was the first
										 * before */
	conn->cancel_ended = false;
	conn->cancel_waits = conn->pool->cancels >= CANCELS_PER_POOL;
	if (conn->cancel_waits || cancel_start(conn))
		return true;
	conn->cancel_ended = true;
	return !orphan;
}

/* How long the first flight has been given up, in milliseconds. */
static int
cancelled_ms(Conn *conn)
{
	return (int) ((ticks_now() - conn->cancelled_at) / 1000);
}

/* A cancel was delivered: look again at what has come of it. */
static void
watch_head(Conn *conn)
{
	int			ms = cancelled_ms(conn);

	conn_set_deadline(conn, Min(Max(ms, AGAIN_MS), Max(CANCEL_MS - ms, 0)));
}

/* The same for one that has stalled, and for which its session waits. */
static void
watch_stalled(Conn *conn)
{
	Ticks		now = ticks_now();
	int64		ms = conn_head_us(conn, now) / 1000;

	timer_set(&conn->watch,
			  ticks_plus_ms(now, Min(Max(ms, AGAIN_MS), CANCEL_MS)));
}

/* The first flight, which is cancelled, has not ended in time. */
void
conn_cancel_overdue(Conn *conn)
{
	Pool	   *pool = conn->pool;

	if (!conn->cancel_ended || cancelled_ms(conn) >= CANCEL_MS)
		conn_close(conn, "the remote server did not end a cancelled statement in time");
	/* those that were not cancelled yet come first */
	else if (pool->cancels < CANCELS_PER_POOL && cancel_start(conn))
	{
		conn->cancel_ended = false;
		conn_set_deadline(conn, Max(CANCEL_MS - cancelled_ms(conn), 0));
	}
	else
		watch_head(conn);
}

/*
 * A flight of a cancelled connection has ended or was given up, or the cancel
 * was delivered.  The connection is of use again when both sides are through
 * with it.  Until then each flight that comes to the front and is unwanted is
 * cancelled; those for whom somebody waits take as long as they take.
 */
void
conn_after_cancel(Conn *conn)
{
	Flight	   *head = conn_head(conn);

	if (conn->cancel_waits && !is_unwanted(head))
	{
		/* it ended by itself */
		conn->cancel_waits = false;
		conn->cancel_ended = true;
	}
	if (head != NULL && !flight_is_orphan(head))
		timer_stop(&conn->deadline);
	else if (!conn->deadline.armed)
		give_time(conn);
	if (!conn->cancel_ended)
		return;
	if (head == NULL)
	{
		timer_stop(&conn->deadline);
		conn->used_at = ticks_now();
		conn->worked_at = conn->used_at;
		conn_settle(conn);
	}
	else if (flight_is_orphan(head) && head->cancelled)
		watch_head(conn);
	else if (is_unwanted(head) && head->cancelled)
		watch_stalled(conn);
	else if (is_unwanted(head) && !head->cancelled && !cancel_head(conn))
		could_not_cancel(conn);
}

/*
 * A request was given up, or holds up others: get the remote to stop, and read
 * what still comes.  It is that of the first flight, and the caller has made an
 * orphan of that, or noted that it is stalled.
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

/* Since when the remote has been running the first flight, and until when it may. */
static Ticks
stalls_at(Conn *conn)
{
	Ticks		now = ticks_now();
	int64		may_take = dbpool_stall_timeout * INT64CONST(1000) +
	(int64) conn->pool->rtt_us;

	return now - conn_head_us(conn, now) + may_take;
}

/*
 * The connection has another first flight, or others have come behind it: have
 * somebody look that it does not hold them up.
 */
void
conn_watch(Conn *conn)
{
	if (conn->nflights == 0)
		return;
	if (conn->state == CONN_BUSY && flight_is_orphan(conn_head(conn)))
		conn_set_deadline(conn, ORPHAN_MS);
	if (conn->nflights > 1 && !conn->watch.armed && dbpool_stall_timeout > 0 &&
		!conn->synchronous && !conn->pool->synchronous)
		timer_set(&conn->watch, stalls_at(conn));
}

/* Does somebody wait for the end of the first flight so as to have his own? */
static bool
holds_up_others(Conn *conn)
{
	dlist_iter	iter;

	dlist_foreach(iter, &conn->flights)
	{
		Flight	   *flight = dlist_container(Flight, node, iter.cur);

		if (flight != conn_head(conn) && flight->req != NULL)
			return true;
	}
	return false;
}

/* The first flight has stalled, see "stalls". */
static void
stall(Conn *conn)
{
	Pool	   *pool = conn->pool;
	Flight	   *head = conn_head(conn);
	int64		us = conn_head_us(conn, ticks_now());

	ereport(DEBUG1,
			(errmsg_internal("dbpool takes a statement off a connection of pool \"%s\" that it shares, after %d ms",
							 NameStr(pool->options.server), (int) (us / 1000))));
	if (head->statement != NULL)
		statement_stalled(head->statement, us);
	head->stalled = true;
	/* with a row that is half written, nothing may come in between */
	if (!reply_pump(conn, head->req))
		return;
	if (conn->state == CONN_BUSY)
		conn_cancel(conn);
	else
	{
		conn_after_cancel(conn);
		conn_pump(conn);
	}
	pool_mark(pool);
}

/*
 * Others may be waiting behind the first flight: does it stall?  A new first
 * flight, and another one behind it, start the watch anew.
 */
void
conn_look(Conn *conn)
{
	Flight	   *head = conn_head(conn);
	Ticks		now = ticks_now();

	if (conn->nflights < 2 || dbpool_stall_timeout == 0 || conn->synchronous ||
		conn->pool->synchronous || head->req == NULL || !holds_up_others(conn))
		return;
	if (head->stalled)
	{
		/* the cancel may have come before the remote had begun with it */
		if (conn->state != CONN_CANCELLING || !conn->cancel_ended)
			return;
		if (conn->pool->cancels < CANCELS_PER_POOL && cancel_start(conn))
			conn->cancel_ended = false;
		else
			watch_stalled(conn);
		return;
	}
	if (now < stalls_at(conn))
		conn_watch(conn);
	else if (conn->pool->paused)
		timer_set(&conn->watch,
				  ticks_plus_ms(now, dbpool_stall_timeout));
	else
		stall(conn);
}

static void
watch_anew(Conn *conn, void *arg)
{
	(void) arg;
	timer_stop(&conn->watch);
	conn_watch(conn);
}

static void
watch_pool(Pool *pool)
{
	pool_foreach_conn(pool, watch_anew, NULL);
}

/* The settings have changed: that counts also for those who wait now. */
void
connections_watch(void)
{
	pools_foreach(watch_pool);
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
