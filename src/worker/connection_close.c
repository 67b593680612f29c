/*
 * connection_close.c
 *	  The end of a connection, and what becomes of those who are on it.
 */
#include "postgres.h"

#include "compat.h"
#include "worker/batch.h"
#include "worker/offload.h"

/*
 * The connection is of no use to whom it was checked for, or who comes next in its lease,
 * which ends with it.
 */
static void
waiter_leaves(Conn *conn, const char *reason)
{
	Request    *req = conn->waiter;
	bool		leased = conn->lease.shared != NULL;
	char		why[DBPOOL_SHOWN_ERROR];

	snprintf(why, sizeof(why), "Its connection was lost, and with that it was rolled back: %s", reason);
	lease_end(conn, "08006", why);
	if (req == NULL)
		return;
	conn->waiter = NULL;
	req->conn = NULL;
	if (leased)
		request_fail(req, "08006", "the transaction on the remote server is gone", why, NULL);
	else
		pool_requeue(req);
}

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
	waiter_leaves(conn, reason);
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
 * The connection broke; what has become of its first flight?  It has surely not run
 * when
 *	 - its statement was not wholly handed over: the Sync that commits it comes
 *	   last, and nothing is sent behind a flight that is not handed over; or
 *	 - only its prelude was sent; or
 *	 - the server process itself said that it ends, and answers to others were
 *	   due before (behind): it takes one statement after the other; or
 *	 - it is a COPY whose rows have not ended, or a batch in one transaction of which
 *	   not all was sent.
 * Of statements of a batch that are independent, some may have run in any case.
 * A plain statement in a transaction that goes on after it was rolled back with that.
 */
static Fate
fate_of_lost(Conn *conn, bool behind)
{
	const Request *req = conn_head_request(conn);

	if (req != NULL && req->task.kind == REQUEST_BATCH && !task_commits_last(&req->task))
		return FATE_UNKNOWN;
	if ((conn->flights.n == 1 && (!conn->io.flushed || conn_head(conn)->prelude_alone)) ||
		(conn->loss.remote_ended && behind) ||
		(req != NULL && task_commits_last(&req->task) && !copy_has_ended(req)))
		return FATE_NOT_RUN;
	if (conn->lease.shared != NULL && req != NULL && !req->task.lease_ends &&
		req->task.kind == REQUEST_QUERY && statement_is_plain(req->statement))
		return FATE_ROLLED_BACK;
	return FATE_UNKNOWN;
}

/*
 * A request was on a connection that broke, and is off it.  One that has not run goes
 * back to the queue, unless its session has got something of it, or has given rows
 * away for it, or it was in a transaction (gone) that is no more.
 */
static void
request_lost(Conn *conn, Request *req, Fate fate, bool gone, int64 us)
{
	const char *name = NameStr(conn->pool->options.server);
	bool		copy = req->task.kind == REQUEST_COPY;
	bool		batch = req->task.kind == REQUEST_BATCH;
	const char *outcome = batch ? "The batch had been sent: it may or may not have run." :
	"The statement had been sent: it may or may not have run.";
	char		what[DBPOOL_SHOWN_ERROR];
	char		detail[DBPOOL_SHOWN_ERROR + 100];

	Assert(fate != FATE_DONE && fate != FATE_FAILED);
	if (fate == FATE_NOT_RUN && !req->put && !gone)
	{
		pool_requeue(req);
		return;
	}
	conn_count_request(conn, req, us, true);
	if (fate == FATE_NOT_RUN)
		outcome = copy ? "No row was inserted." : batch ? "Nothing of the batch stays." :
			"The statement was not run.";
	else if (fate == FATE_ROLLED_BACK)
		outcome = "The transaction on the remote server was rolled back.";
	snprintf(what, sizeof(what), "connection of pool \"%s\" was lost while %s", name,
			 fate == FATE_NOT_RUN && copy ? "rows were sent" : batch ? "a batch ran" : "a statement ran");
	snprintf(detail, sizeof(detail), "%s\n%s", conn->loss.error, outcome);
	request_fail(req, fate == FATE_UNKNOWN ? "08007" : "08006", what, detail, NULL);
}

/*
 * The connection broke: its flights meet their fates, and it is closed.
 *
 * Throws nothing: it is part of the recovery.
 */
void
conn_lost(Conn *conn)
{
	Pool	   *pool = conn->pool;
	bool		behind = false;

	conn_note_error(conn);
	conn_stop_home(conn);
	if (conn->lease.shared == NULL || conn->flights.n == 0)
		waiter_leaves(conn, conn->loss.error);
	for (; conn->flights.n > 0; behind = true)
	{
		Fate		fate = fate_of_lost(conn, behind);
		int64		us = conn_head_us(conn, ticks_now());
		Request    *req = conn_head_request(conn);
		bool		opens = conn->lease.statements == 1;
		bool		gone = false;

		if (conn->lease.shared != NULL)
		{
			gone = !(opens && fate == FATE_NOT_RUN && req != NULL && !req->put);
			if (gone)
				waiter_leaves(conn, conn->loss.error);
			else
				lease_unattach(conn);
		}
		reply_drop_rows(conn);
		if (req != NULL && req->task.kind == REQUEST_BATCH && !task_commits_last(&req->task))
			request_put_lost(req, conn_head(conn)->batch->sent);
		flight_remove(conn, conn_head(conn));
		if (req != NULL)
			request_lost(conn, req, fate, gone, us);
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
