/*
 * connection_cancel.c
 *	  Getting the remote to stop a statement: one that nobody waits for any
 *	  more, or one that holds up others.
 *
 * The cancel goes over a connection of its own and is sent by a thread, which
 * gives up after DELIVER_MS.  The
 * remote has sent its signal when that connection is closed; only after that,
 * and with the statement's end read, may the next statement be sent.
 *
 * A cancel that arrives before the remote has begun the statement is lost, as
 * on a remote that is busy.  So one that has not ended is cancelled again.
 *
 * A cancel hits what the remote runs when it arrives.  Statements of other
 * sessions, sent behind before, may be hit as well; these are sent again
 * (wire_read.c).  As that is a waste, an orphan with others behind it,
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
 *		can be read to its end (wire_reply.c).
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
 * While a pool is paused or disabled nothing is taken off, as it would have to wait.  Nor is
 * it ever where commits wait for standbys: there the remote takes a cancel for a
 * word to wait no longer, and says that it has committed.
 */
#include "postgres.h"

#include <signal.h>

#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/* Milliseconds within which the remote has to end a cancelled statement. */
#define CANCEL_MS		10000

/* Milliseconds after which it is cancelled again; each time twice as long. */
#define AGAIN_MS		100

/* The same where it costs no more than a signal, and a session waits. */
#define HOME_AGAIN_MS	10

static void
could_not_cancel(Conn *conn)
{
	conn_close(conn, "its statement could not be cancelled");
}

static void start_waiting(Pool *pool);

/* Is the flight to be cancelled? */
static bool
is_unwanted(const Flight *flight)
{
	return flight_is_orphan(flight) ||
		(flight != NULL && (flight->stalled || flight->called_off || flight->deadlock != NULL));
}

/*
 * The cancel has come to its end.  If it could not be delivered, and somebody
 * waits for an answer of the connection, what runs may end by itself.
 */
static void
cancel_ended(Conn *conn, bool delivered)
{
	conn->cancel.ended = true;
	if (delivered || conn->flights.n > conn->flights.orphans)
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

/* A cancel has been delivered, or could not be; conn is NULL when it has been closed. */
static void
cancel_done(Pool *pool, Conn *conn, bool delivered)
{
	if (conn != NULL)
		(void) work_guard(delivered ? delivered_piece : failed_piece, conn,
						  conn_recover, conn);
	start_waiting(pool);
	pool_mark(pool);
}

/* Send a cancel for the first flight; false when that cannot be done. */
static bool
cancel_start(Conn *conn)
{
	if (!wire_cancel(conn, cancel_done))
		return false;
	conn_head(conn)->cancelled = true;
	return true;
}

/* Let the next cancel of the pool start. */
static void
start_waiting(Pool *pool)
{
	dlist_iter	iter;
	bool		again = true;

	/* one that cannot be started must not keep the others waiting */
	while (again && offload_has_room(OFFLOAD_CANCEL, pool->cancels))
	{
		again = false;
		dlist_foreach(iter, &pool->conns[CONN_CANCELLING])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);

			if (!conn->cancel.waits)
				continue;
			conn->cancel.waits = false;
			if (!cancel_start(conn))
				(void) work_guard(failed_piece, conn, conn_recover, conn);
			again = true;
			break;
		}
	}
}

/*
 * The same for a process of this server, which needs no connection: when this
 * returns, the signal is there.
 */
static bool
cancel_home(Conn *conn)
{
	if (conn->session.home_pid == 0 || !home_signal(conn->session.home_pid, conn->session.home_role, SIGINT))
		return false;
	conn_head(conn)->cancelled = true;
	return true;
}

/* From now on the remote has its time to end what nobody waits for. */
static void
give_time(Conn *conn)
{
	conn->cancel.since = ticks_now();
	conn_set_deadline(conn, CANCEL_MS);
}

/* How long the first flight has been given up, in milliseconds. */
static int
cancelled_ms(Conn *conn)
{
	return (int) ((ticks_now() - conn->cancel.since) / 1000);
}

/* After how many milliseconds a cancel is sent again for the first time. */
static int
again_ms(Conn *conn)
{
	return conn->session.home_pid != 0 ? HOME_AGAIN_MS : AGAIN_MS;
}

/* A cancel was delivered: look again at what has come of it. */
static void
watch_head(Conn *conn)
{
	int			ms = cancelled_ms(conn);

	conn_set_deadline(conn, Min(Max(ms, again_ms(conn)), Max(CANCEL_MS - ms, 0)));
}

/* The same for one that has stalled, or was called off, and for which its session waits. */
static void
watch_stalled(Conn *conn)
{
	Ticks		now = ticks_now();
	int64		ms = conn_head_us(conn, now) / 1000;

	timer_set(&conn->watch,
			  ticks_plus_ms(now, Min(Max(ms, again_ms(conn)), CANCEL_MS)));
}

/* The first flight has been cancelled. */
static void
watch_cancelled(Conn *conn)
{
	if (flight_is_orphan(conn_head(conn)))
		watch_head(conn);
	else
		watch_stalled(conn);
}

/*
 * Have the first flight cancelled.  Returns false when that is not possible,
 * and nobody waits for the flight's end.
 */
static bool
cancel_head(Conn *conn)
{
	bool		orphan = flight_is_orphan(conn_head(conn));

	Assert(conn->state == CONN_CANCELLING && conn->cancel.job == NULL);
	compat_injection_point("dbpool-before-cancel");
	if (orphan)
		give_time(conn);
	else
		timer_stop(&conn->deadline);	/* of an orphan that was the first
										 * before */
	if (cancel_home(conn))
	{
		conn->cancel.ended = true;
		watch_cancelled(conn);
		return true;
	}
	conn->cancel.ended = false;
	conn->cancel.waits = !offload_has_room(OFFLOAD_CANCEL, conn->pool->cancels);
	if (conn->cancel.waits || cancel_start(conn))
		return true;
	conn->cancel.ended = true;
	return !orphan;
}

/*
 * The connection is about to be closed: what it runs is to end at the remote as well, if
 * a cancel can be sent at once.
 */
void
conn_cancel_last(Conn *conn)
{
	if (conn->state == CONN_BUSY && conn->flights.n > 0 && conn->session.home_pid == 0 &&
		offload_has_room(OFFLOAD_CANCEL, conn->pool->cancels))
		(void) cancel_start(conn);
}

/* The first flight, which is cancelled, has not ended in time. */
void
conn_cancel_overdue(Conn *conn)
{
	Pool	   *pool = conn->pool;

	if (!conn->cancel.ended || cancelled_ms(conn) >= CANCEL_MS)
		conn_close(conn, "the remote server did not end a cancelled statement in time");
	else if (cancel_home(conn))
		watch_head(conn);
	/* those that were not cancelled yet come first */
	else if (offload_has_room(OFFLOAD_CANCEL, pool->cancels) && cancel_start(conn))
	{
		conn->cancel.ended = false;
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

	Assert(conn->state == CONN_CANCELLING);
	if (conn->cancel.waits && !is_unwanted(head))
	{
		/* it ended by itself */
		conn->cancel.waits = false;
		conn->cancel.ended = true;
	}
	if (head != NULL && !flight_is_orphan(head))
		timer_stop(&conn->deadline);
	else if (!conn->deadline.armed)
		give_time(conn);
	if (!conn->cancel.ended)
		return;
	if (head == NULL)
	{
		timer_stop(&conn->deadline);
		conn->used_at = ticks_now();
		conn->worked_at = conn->used_at;
		conn_settle(conn);
	}
	else if (is_unwanted(head) && head->cancelled)
		watch_cancelled(conn);
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
	const Flight *head = conn_head(conn);

	Assert(conn->state == CONN_BUSY && is_unwanted(conn_head(conn)));
	conn_move(conn, CONN_CANCELLING,
			  flight_is_orphan(head) ? "its session has given up" :
			  head->called_off ? "its session has called it off" :
			  head->stalled ? "it holds up others" : "it is in a deadlock");
	if (!cancel_head(conn))
	{
		conn_close(conn, "its statement could not be cancelled");
		return;
	}
	/* read on, even if the backend was too slow for us before */
	conn_want(conn, WL_SOCKET_READABLE | (conn->io.flushed ? 0 : WL_SOCKET_WRITEABLE));
	conn_mark(conn);
}

/*
 * How long the first flight may hold up others, in milliseconds; 0: as long as
 * it takes.  A session that waits in its abort for the end of one that was sent
 * behind it has little time.
 */
static int
stall_ms(const Conn *conn)
{
	if (conn->session.synchronous || conn->pool->synchronous)
		return 0;
	if (conn->session.home_pid != 0 && conn->flights.orphans > 0)
		return dbpool_stall_timeout == 0 ? ORPHAN_MS : Min(dbpool_stall_timeout, ORPHAN_MS);
	return dbpool_stall_timeout;
}

/* Since when the remote has been running the first flight, and until when it may. */
static Ticks
stalls_at(Conn *conn)
{
	Ticks		now = ticks_now();
	int64		may_take = stall_ms(conn) * INT64CONST(1000) +
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
	if (conn->flights.n == 0)
		return;
	if (conn->state == CONN_BUSY && flight_is_orphan(conn_head(conn)))
		conn_set_deadline(conn, conn->session.home_pid != 0 ? 0 : ORPHAN_MS);
	if (conn->flights.n > 1 && (!conn->watch.armed || conn->flights.orphans > 0) &&
		stall_ms(conn) > 0)
		timer_set_by(&conn->watch, stalls_at(conn));
}

/* Does somebody wait for the end of the first flight so as to have his own? */
static bool
holds_up_others(Conn *conn)
{
	dlist_iter	iter;

	dlist_foreach(iter, &conn->flights.list)
	{
		Flight	   *flight = dlist_container(Flight, node, iter.cur);

		if (flight != conn_head(conn) &&
			(flight->req != NULL || flight->awaited != NULL))
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
		conn_after_cancel(conn);
	conn_mark(conn);
	pool_mark(pool);
}

/* The cancel of the first flight may have come before the remote had begun with it. */
static void
cancel_again(Conn *conn)
{
	if (conn->state != CONN_CANCELLING || !conn->cancel.ended)
		return;
	if (!cancel_home(conn) && offload_has_room(OFFLOAD_CANCEL, conn->pool->cancels) &&
		cancel_start(conn))
		conn->cancel.ended = false;
	else
		watch_stalled(conn);
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

	if (head != NULL && head->called_off)
	{
		cancel_again(conn);
		return;
	}
	if (head == NULL || conn->flights.n < 2 || stall_ms(conn) == 0 || head->req == NULL ||
		!holds_up_others(conn))
		return;
	if (head->stalled)
	{
		cancel_again(conn);
		return;
	}
	if (now < stalls_at(conn))
		conn_watch(conn);
	else if ((conn->pool->paused || conn->pool->disabled) && conn->flights.orphans == 0)
		timer_set(&conn->watch,
				  ticks_plus_ms(now, dbpool_stall_timeout));
	else
		stall(conn);
}

/*
 * A flight is in a deadlock with the session that waits for it, see ipc/home.c:
 * have it cancelled, and its session told the detail.  When it is another's
 * statement before it that waits, it is enough to take that off.
 */
void
conn_deadlocked(Conn *conn, Flight *flight, const char *detail)
{
	Flight	   *head = conn_head(conn);

	if (head == NULL)
		return;
	if (flight != head)
	{
		if (head->req != NULL && !head->stalled)
			stall(conn);
		return;
	}
	flight->deadlock = MemoryContextStrdup(worker_context, detail);
	/* while it waits for rows, it takes no cancel */
	if (conn_copies(conn))
		copy_stop(conn, flight->req);
	else if (flight->batch != NULL)
		(void) batch_stop(conn, flight);
	if (conn->state == CONN_BUSY)
		conn_cancel(conn);
	else
		conn_after_cancel(conn);
	pool_mark(conn->pool);
}

/*
 * The transaction of a lease, in which nothing runs, has locked what its own session
 * waits for, see ipc/home.c: it is rolled back, so that the session can go on, which is
 * told when it asks for something in it.
 */
void
conn_lease_deadlocked(Conn *conn, const char *detail)
{
	ereport(LOG,
			(errmsg("dbpool rolls back a transaction of process %d on pool \"%s\", which is in a deadlock",
					conn->lease.shared->pid, NameStr(conn->pool->options.server)),
			 errdetail_internal("%s", detail)));
	lease_end(conn, "40P01", psprintf("A deadlock was detected, and it was rolled back.\n%s", detail));
	conn_settle(conn);
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
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->session.home_pid != 0)
			conn_stop_home(conn);
		else
			(void) cancel_start(conn);
	}
	dlist_foreach(iter, &pool->conns[CONN_CANCELLING])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->session.home_pid != 0)
			conn_stop_home(conn);
		else if (conn->cancel.waits)
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
