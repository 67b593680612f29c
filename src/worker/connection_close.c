/*
 * connection_close.c
 *	  The end of a connection, and what becomes of those who are on it.
 */
#include "postgres.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/*
 * Close a connection.  Whoever still has a request on it has to have taken it
 * off before; one that is left is told that the connection was lost.  The
 * struct itself lives until the end of the turn, since events may name it.
 * Throws nothing: recoveries end here.
 */
void
conn_close(Conn *conn, const char *reason)
{
	Request    *req;

	if (conn->state == CONN_CLOSED)
		return;
	conn_stop_home(conn);
	req = conn->waiter;
	conn->waiter = NULL;
	if (req != NULL)
	{
		req->conn = NULL;
		pool_requeue(req);
	}
	while (conn->flights.n > 0)
	{
		char		what[DBPOOL_SHOWN_ERROR];

		req = conn_head_request(conn);
		reply_drop_rows(conn);
		flight_remove(conn, conn_head(conn));
		if (req == NULL)
			continue;
		snprintf(what, sizeof(what), "connection of pool \"%s\" was closed because %s",
				 NameStr(conn->pool->options.server), reason);
		request_fail(req, "08007", what, "The statement may or may not have run.", NULL);
	}
	conn_forget_prepared(conn);
	timer_stop(&conn->deadline);
	timer_stop(&conn->janitor);
	timer_stop(&conn->watch);
	work_unmark(&conn->go_on);
	offload_abandon(&conn->opening.lookup);
	offload_abandon(&conn->opening.step);
	offload_abandon(&conn->cancel.job);
	reply_drop_rows(conn);
	poll_forget(&conn->io.poll);
	conn_move(conn, CONN_CLOSED, reason);
	conn_hang_up(conn);
	pool_mark(conn->pool);
	ereport(DEBUG1,
			(errmsg_internal("dbpool closed a connection of pool \"%s\" because %s",
							 NameStr(conn->pool->options.server), reason)));
}

/*
 * The connection broke.  A request has surely not run, and goes back to the
 * queue, when
 *	 - its statement was not wholly handed over: the Sync that commits it comes
 *	   last, and nothing is sent behind a flight that is not handed over; or
 *	 - the server process itself said that it ends, and answers to others were
 *	   due before: it takes one statement after the other.
 * Any other may have run, and its session is told so; a COPY whose rows have
 * not ended has not.
 *
 * Throws nothing: it is part of the recovery.
 */
void
conn_lost(Conn *conn)
{
	Pool	   *pool = conn->pool;
	Request    *req = conn->waiter;
	bool		first = true;
	char		what[DBPOOL_SHOWN_ERROR];
	char		detail[DBPOOL_SHOWN_ERROR + 100];

	conn_note_error(conn);
	snprintf(what, sizeof(what), "connection of pool \"%s\" was lost while a statement ran",
			 NameStr(pool->options.server));
	snprintf(detail, sizeof(detail),
			 "%s\nThe statement had been sent: it may or may not have run.", conn->loss.error);
	conn_stop_home(conn);
	if (req != NULL)
	{
		conn->waiter = NULL;
		req->conn = NULL;
		pool_requeue(req);
	}
	while (conn->flights.n > 0)
	{
		Flight	   *flight = conn_head(conn);
		int64		us = conn_head_us(conn, ticks_now());
		bool		not_run = (conn->flights.n == 1 && !conn->io.flushed) ||
		(conn->loss.remote_ended && !first);

		req = flight->req;
		first = false;
		reply_drop_rows(conn);
		flight_remove(conn, flight);
		if (req == NULL)
			continue;
		if (not_run && !req->put)
			pool_requeue(req);
		else
		{
			conn_count_request(conn, req, us, true);
			if (req->task.kind == REQUEST_COPY && copy_lost(conn, req))
				continue;
			request_fail(req, "08007", what, detail, NULL);
		}
	}
	if (conn->shared->statements == 0)
		pool_back_off(pool);
	conn_close(conn, "it was lost");
	ereport(LOG,
			(errmsg("dbpool lost a connection of pool \"%s\": %s",
					NameStr(pool->options.server), conn->loss.error)));
}

/* A recovery, see work.h. */
void
conn_recover(void *owner, int sqlerrcode)
{
	Conn	   *conn = owner;
	Pool	   *pool = conn->pool;

	if (conn->state == CONN_CLOSED)
		return;
	snprintf(conn->loss.error, sizeof(conn->loss.error),
			 "There was an error: %s. The server's log has more.", work_error_text(sqlerrcode));
	if (conn->state != CONN_CONNECTING)
	{
		conn_lost(conn);
		return;
	}
	conn_close(conn, "of an internal error");
	pool_conn_failed(pool, work_error_state(sqlerrcode), work_error_text(sqlerrcode), NULL);
}

/*
 * A recovery, see work.h.  One that has been sent is its connection's, whose
 * work has a guard of its own; what failed was something else then, and nobody
 * knows how far it has come.
 */
void
request_recover(void *owner, int sqlerrcode)
{
	Request    *req = owner;

	if (!req->active || req->ending)
		return;
	if (req->flight != NULL)
	{
		conn_recover(req->conn, sqlerrcode);
		return;
	}
	if (req->queued)
		pool_leave_queue(req);
	else if (req->conn != NULL)
		req->conn->waiter = NULL;
	request_fail(req, work_error_state(sqlerrcode), work_error_text(sqlerrcode),
				 "The statement was not run.", "The server's log has the error.");
}
