/*
 * connection_close.c
 *	  The end of a connection, and what becomes of those who are on it.
 */
#include "postgres.h"

#include "compat.h"
#include "worker/batch.h"
#include "worker/endpoints.h"
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
	lease_lost(conn, why);
	if (req == NULL)
		return;
	conn->waiter = NULL;
	req->conn = NULL;
	if (leased)
		request_fail_gone(req, "08006", why);
	else
		retry_lost(req, conn->opened_at, reason);
}

/* The first flight's request, to which that is an end; not if a copy of it runs elsewhere. */
static Request *
head_to_end(Conn *conn)
{
	Request    *req = conn_head_request(conn);

	if (req == NULL || req->hedge.flight == NULL)
		return req;
	hedge_take_over(req);
	return NULL;
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
		Doubt	   *doubt;

		req = head_to_end(conn);
		snprintf(what, sizeof(what), "It was closed because %s.", reason);
		doubt = req != NULL && conn_head(conn)->xid != 0 ?
			outcome_doubt(conn, what, conn_head_us(conn, ticks_now())) : NULL;
		reply_drop_rows(conn);
		flight_remove(conn, conn_head(conn));
		if (req == NULL)
			continue;
		if (doubt != NULL)
		{
			outcome_wait(req, doubt);
			continue;
		}
		if (request_rolls_back(req))
		{
			request_end(req);
			continue;
		}
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
	conn_leave(conn);
	conn_move(conn, CONN_CLOSED, reason);
	if (conn->session.degraded)
		pool_degraded_lost(conn->pool);
	conn_hang_up(conn);
	pool_mark(conn->pool);
	ereport(DEBUG1,
			(errmsg_internal("dbpool closed a connection of pool \"%s\" because %s",
							 NameStr(conn->pool->options.server), reason)));
}

/*
 * The remote process has ended in the midst of a statement, of which nothing stays.  Is it to be
 * run again?  Not in the midst of a transaction; nor if somebody may have terminated that session to
 * be rid of the statement: that looks as a shutdown does, which a pool with failover_wait is to
 * outlive.
 */
static bool
runs_again_when_ended(const Conn *conn)
{
	return conn->lease.shared == NULL && (conn->loss.remote_quits || conn->pool->options.failover_wait > 0);
}

/*
 * The connection broke; what has become of its first flight?  It has surely not run
 * when
 *	 - its statement was not wholly handed over: the Sync that commits it comes
 *	   last, and nothing is sent behind a flight that is not handed over; or
 *	 - only its prelude was sent; or
 *	 - the server process itself said that it ends, and answers to others were
 *	   due before (behind): it takes one statement after the other; or it has not
 *	   told the number of the transaction, which comes before it commits; or
 *	 - it is a COPY whose rows have not ended.
 * A batch's is batch_fate()'s to say.
 * A plain statement in a transaction that goes on after it was rolled back with that, and
 * of one that has only read nothing is lost.
 * Else the remote can be asked, if the number of its transaction is known (outcome.c).
 */
static Fate
fate_of_lost(Conn *conn, bool behind)
{
	const Request *req = conn_head_request(conn);

	if (conn_head_batch(conn) != NULL)
		return batch_fate(conn);
	if ((conn->flights.n == 1 && (!conn->io.flushed || conn_head(conn)->prelude_alone)) ||
		(conn->loss.remote_ended && behind) ||
		(req != NULL && task_commits_last(&req->task) && !copy_has_ended(req)))
		return FATE_NOT_RUN;
	if (conn->lease.shared != NULL && req != NULL && !req->task.lease_ends &&
		req->task.kind == REQUEST_QUERY && statement_is_plain(req->statement))
		return FATE_ROLLED_BACK;
	if (req != NULL && req->task.lease_has_read)
		return FATE_ROLLED_BACK;
	if (conn_head(conn)->asks && conn->loss.remote_ended)
		return runs_again_when_ended(conn) ? FATE_NOT_RUN : FATE_ROLLED_BACK;
	return conn_head(conn)->xid != 0 ? FATE_IN_DOUBT : FATE_UNKNOWN;
}

/*
 * Nobody knows whether the request has run.  Does it do no harm if it runs twice?  That is,
 * was it a statement that is one transaction, in a session that surely was read-only, and
 * has nobody seen anything of it?
 */
static bool
request_may_run_twice(Conn *conn, const Request *req)
{
	return (conn->pool->options.read_only || conn->session.degraded) && req->task.one_transaction &&
		req->task.lease == LEASE_NONE && req->rows == 0 && !req->cut && !req->failed &&
		!conn->session.dirty && !conn->session.changed && !session_is_writable(conn);
}

/*
 * A request was on a connection that broke, and is off it.  One that has not run is tried
 * again, unless its session has got something of it, or has given rows
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

	Assert(fate != FATE_DONE && fate != FATE_FAILED && fate != FATE_IN_DOUBT);
	if (request_rolls_back(req))
	{
		/* as it was told to */
		conn_count_request(conn, req, ticks_now(), us, false);
		request_end(req);
		return;
	}
	if (((fate == FATE_NOT_RUN && !req->put && !gone) ||
		 (fate == FATE_UNKNOWN && request_may_run_twice(conn, req))) &&
		retry_take(req, conn->opened_at, ticks_now()))
	{
		retry_later(req);
		return;
	}
	conn_count_request(conn, req, ticks_now(), us, true);
	if (fate == FATE_NOT_RUN)
		outcome = copy ? "No row was inserted." : batch ? "Nothing of the batch stays." :
			"The statement was not run.";
	else if (fate == FATE_ROLLED_BACK)
		outcome = req->task.lease_has_read ? "The transaction on the remote server had written nothing." :
			"The transaction on the remote server was rolled back.";
	snprintf(what, sizeof(what), "connection of pool \"%s\" was lost while %s", name,
			 fate == FATE_NOT_RUN && copy ? "rows were sent" : batch ? "a batch ran" : "a statement ran");
	snprintf(detail, sizeof(detail), "%s\n%s", conn->loss.error, outcome);
	request_fail(req, fate == FATE_UNKNOWN ? "08007" : "08006", what, detail, NULL);
}

/*
 * Does the loss speak against the server?  Not if it is we who gave the connection up: then
 * the reason has been noted.  Nor while connect_sql runs, which may have ended its own server process.
 */
static bool
loss_is_of_server(const Conn *conn)
{
	if (session_runs_connect_sql(conn))
		return false;
	if (conn->loss.last_words)
		return login_is_unwell(conn->loss.sqlstate);
	return conn->loss.unanswered ||
		(conn->loss.broken && conn->io.pg != NULL && conn_is_bad(conn)) ||
		(conn->loss.error[0] == '\0' && conn->io.pg != NULL && conn_is_bad(conn));
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
	bool		unwell = loss_is_of_server(conn);

	conn_note_error(conn);
	if (unwell)
		conn_endpoint_lost(conn, conn->loss.error);
	conn_stop_home(conn);
	if (conn->lease.shared == NULL || conn->flights.n == 0)
		waiter_leaves(conn, conn->loss.error);
	for (; conn->flights.n > 0; behind = true)
	{
		Request    *req = head_to_end(conn);
		Fate		fate = fate_of_lost(conn, behind);
		int64		us = conn_head_us(conn, ticks_now());
		bool		opens = conn->lease.statements == 1;
		bool		gone = false;
		Doubt	   *doubt = NULL;

		if (fate == FATE_IN_DOUBT && req != NULL)
			doubt = outcome_doubt(conn, conn->loss.error, us);
		if (fate == FATE_IN_DOUBT && doubt == NULL)
			fate = FATE_UNKNOWN;
		if (conn->lease.shared != NULL)
		{
			gone = !(opens && fate == FATE_NOT_RUN && req != NULL && !req->put);
			if (gone)
				waiter_leaves(conn, conn->loss.error);
			else
				lease_unattach(conn);
		}
		reply_drop_rows(conn);
		if (req != NULL && req->put && conn_head_batch(conn) != NULL)
			batch_tell_lost(conn, fate);
		flight_remove(conn, conn_head(conn));
		if (doubt != NULL)
			outcome_wait(req, doubt);
		else if (req != NULL)
			request_lost(conn, req, fate, gone, us);
	}
	if (conn->shared->statements == 0)
		pool_lost_unused(pool, conn->loss.error);
	conn_close(conn, "it was lost");
	ereport(LOG,
			(errmsg("dbpool lost a connection of pool \"%s\": %s",
					NameStr(pool->options.server), conn->loss.error)));
}

/* The same when all that it has sent has been read, and nothing more can come. */
void
conn_lost_at_end(Conn *conn)
{
	if (conn->loss.remote_quits)
		conn->loss.remote_ended = conn->loss.last_words = true;
	conn_lost(conn);
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
				 req->doubt == NULL ? "The statement was not run." : NULL,
				 "The server's log has the error.");
}
