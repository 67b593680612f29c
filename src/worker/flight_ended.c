/*
 * flight_ended.c
 *	  What the end of something that was sent means: to its request, to what is known
 *	  of its text, and to the connection.
 *
 * Here nothing knows libpq: how a statement has failed comes as a Cause.
 */
#include "postgres.h"

#include "worker/balance.h"
#include "worker/hedge.h"
#include "worker/replay.h"

/* After an error that another preparation might have spared, none is tried so long. */
#define FUTILE_USES		100

/*
 * Was it all of a transaction that has failed with the statement, and has nobody seen
 * anything of it?
 */
static bool
is_whole(const Request *req)
{
	return req->task.one_transaction && req->task.lease == LEASE_NONE && req->rows == 0 &&
		!req->cut && !req->failed;
}

/*
 * Did the statement of a flight fail for no fault of its own, rolled back as a
 * whole?  Then it is sent again, unseen by its session.
 */
static bool
is_to_repeat(const Conn *conn, const Flight *flight, Cause cause)
{
	/* with it the transaction has failed in which it ran */
	if (flight->req == NULL || flight->req->repeats >= REPEATS_MOST ||
		conn->lease.shared != NULL || flight->batch != NULL)
		return false;
	if (cause == CAUSE_QUESTION || cause == CAUSE_TRACE)
		return true;
	if (cause == CAUSE_READ_ONLY)
		return conn->session.unsuited && is_whole(flight->req);
	/* the cancel was for another on this connection, or it stalled */
	if (cause == CAUSE_CANCEL)
		return conn->state == CONN_CANCELLING && flight->deadlock == NULL;
	if (!flight->prepared)
		return false;
	switch (cause)
	{
		case CAUSE_PLAN_OLD:
		case CAUSE_PLAN_GONE:
			return true;
		case CAUSE_PLAN_EXISTS:
			return flight->parsing;
		case CAUSE_TYPES_OLD:
			return flight->reused &&
				flight->statement->uses >= flight->statement->futile_until;
		default:
			return false;
	}
}

/*
 * The remote has rolled a statement back, as it was in the way of another's transaction.
 * May it be tried again, by its text and by what has come of it?
 */
static bool
conflict_may_be_tried_again(const Conn *conn, const Flight *flight)
{
	return flight->req != NULL && conn->pool->options.retry_on == RETRY_ON_SERIALIZATION &&
		is_whole(flight->req);
}

/* See to it that what is prepared will not fail for that cause again. */
static void
mend_prepared(Conn *conn, Flight *flight, Cause cause)
{
	if (cause == CAUSE_PLAN_GONE || cause == CAUSE_PLAN_EXISTS || cause == CAUSE_QUESTION)
		conn->pool->loses_prepared = true;
	if (cause == CAUSE_PLAN_OLD)
		conn_prepared_is_old(conn, flight->statement);
	else if (cause == CAUSE_PLAN_GONE)
		conn_unprepare(conn, flight->statement, true);
	else if (cause == CAUSE_TYPES_OLD)
		conn_unprepare(conn, flight->statement, false);
	else if (cause == CAUSE_PLAN_EXISTS)
		flight->parsing = false;
}

/* For so long a server is believed that was asked for its role since one has refused. */
#define REFUSED_AGAIN_MS	1000

/*
 * A server that should write has refused to.  It may have become a standby, or have been
 * fenced off, and will say so only with the end of the flight, or not at all; then all who
 * come next are to go where the role is proved anew.  Or it is the statement's own transaction that
 * is read-only: so a connection that was opened since is not doubted at once.
 */
static void
note_refusal(Conn *conn)
{
	Pool	   *pool = conn->pool;
	Ticks		now = ticks_now();

	if (!pool_wants_primary(pool) ||
		conn->session.adapted || conn->session.degraded || conn->lease.shared != NULL ||
		(conn->opened_at > pool->refused_at && pool->refused_at != 0 &&
		 now < ticks_plus_ms(pool->refused_at, REFUSED_AGAIN_MS)))
		return;
	pool->refused_at = now;
	conn->session.unsuited = true;
	conn->flights.joinable = false;
}

/*
 * The statement of a flight has failed.  Returns true when its session is to be
 * shown the remote's error.
 */
bool
flight_failed(Conn *conn, Flight *flight, Cause cause)
{
	Assert(flight == conn_head(conn));
	if (cause == CAUSE_READ_ONLY)
		note_refusal(conn);
	/* of several errors, which only an odd remote sends, the last one counts */
	flight->fate = is_to_repeat(conn, flight, cause) ? FATE_ROLLED_BACK : FATE_FAILED;
	flight->retry = false;
	if (cause == CAUSE_CONFLICT && conflict_may_be_tried_again(conn, flight) &&
		retry_take(flight->req, 0, 0))
	{
		flight->fate = FATE_ROLLED_BACK;
		flight->retry = true;
		return false;
	}
	if (flight->fate == FATE_ROLLED_BACK)
	{
		mend_prepared(conn, flight, cause);
		return false;
	}
	/* a copy's error is not told, and its request waits for the other answer */
	if (flight->hedges != NULL)
	{
		if (flight->prepared || cause == CAUSE_QUESTION)
			mend_prepared(conn, flight, cause);
		hedge_end(flight->hedges);
	}
	hedge_speaks(flight);
	/* in a lease the session is told, and may try again */
	if (conn->lease.shared != NULL && flight->prepared &&
		(cause != CAUSE_TYPES_OLD || flight->reused))
		mend_prepared(conn, flight, cause);

	/*
	 * prepared just now it fails as well: it is not to run twice each time
	 */
	if (cause == CAUSE_TYPES_OLD && flight->prepared && flight->req != NULL &&
		flight->req->repeats > 0)
		flight->statement->futile_until = flight->statement->uses + FUTILE_USES;
	if (cause != CAUSE_CANCEL || flight->req == NULL || flight->deadlock == NULL)
		return flight->req != NULL;
	request_put_error(flight->req, "40P01", "deadlock detected", flight->deadlock,
					  HOME_DEADLOCK_HINT);
	return false;
}

/* What has been learned from a flight that took so long at the remote. */
static void
note_run(Conn *conn, Flight *flight, int64 us, bool failed)
{
	Pool	   *pool = conn->pool;
	Statement  *statement = flight->statement;

	if (!failed)
		balance_took(conn, flight, us, ticks_now());
	/* alone on its way, it also took the way there and back */
	if (flight->sent_at >= conn->flights.ended_at)
	{
		pool->rtt_us = Min(pool->rtt_us, us);
		us = Max(us - pool->rtt_us, 0);
	}
	if (statement == NULL || !conn_is_current(conn))
		return;
	statement_took(statement, us);
	/* what a parameter may do says nothing of the text */
	/* nor do statements that were run in its transaction before it */
	if (flight->req != NULL && !failed && flight->req->task.traces == 0 &&
		!(conn->lease.shared != NULL && conn->session.dirty))
		statement_ran(statement, flight->plain &&
					  ((conn->io.pipelined && statement->runs > 0) || (!conn->session.dirty && !session_changed(conn))),
					  flight->req->bytes);
}

/*
 * Is there something wrong with how a statement ended?  in_transaction is
 * known only of one that was alone.  own: what has changed in the session was
 * changed by this one.
 */
static void
check_end(Conn *conn, Request *req, bool in_transaction, bool own)
{
	const char *name = NameStr(conn->pool->options.server);
	const char *setting;

	if (req->failed)
		return;
	if (conn->lease.shared != NULL && !req->task.lease_ends && !req->task.lease_prepares &&
		(!in_transaction || conn->lease.strayed))
		request_put_error(req, "2D000",
						  psprintf(in_transaction ? "the statement began another transaction on pool \"%s\"" :
								   "the statement ended the transaction on pool \"%s\"", name),
						  in_transaction ? "That was rolled back. What it has committed on the remote server stays." :
						  "What it has committed on the remote server stays.",
						  "The transaction was begun by dbpool, and ends with the local one, or by dbpool_commit() or dbpool_rollback().");
	else if (in_transaction && conn->lease.shared == NULL)
		request_put_error(req, "25000",
						  psprintf("the statement left a transaction open on pool \"%s\"", name),
						  "The transaction was rolled back: a pooled connection belongs to its caller for one call only.",
						  "Put BEGIN, the statements and COMMIT into one string for dbpool_exec().");
	/* of independent statements, each is told */
	else if (req->rows > 0 && (req->task.batch & BATCH_EACH) == 0 && (setting = session_text_changed(conn)) != NULL)
		request_put_error(req, "0A000",
						  psprintf(own || !conn->io.pipelined ? "the statement changed \"%s\" on pool \"%s\"" :
								   "a statement of another session changed \"%s\" on a connection of pool \"%s\"",
								   setting, name),
						  "The values it returned cannot be trusted. What it did on the remote server stays.",
						  "Attach the setting to the function that makes it, by CREATE FUNCTION ... SET or ALTER FUNCTION ... SET, in place of a SET in its body: so it ends with the function.");
	else if (!req->has_outcome)
		request_put_error(req, "08P01",
						  psprintf("the remote server of pool \"%s\" broke the protocol", name),
						  "It ended the statement without a result. The statement may or may not have run.",
						  NULL);
}

/*
 * Did this flight, which shares the connection, change the session?  The remote
 * says so before the end of the flight.  Nobody joins any more then, so that
 * the session is reset before long, and the text does not share again.
 */
static bool
has_changed_session(Conn *conn, Flight *flight)
{
	if (!conn->io.pipelined || conn->session.changed || flight->chore || !session_changed(conn))
		return false;
	conn->session.changed = true;
	conn->flights.joinable = false;
	if (flight->statement != NULL)
		flight->statement->plain = false;
	return true;
}

/* The answer to the first flight is complete. */
void
conn_flight_ended(Conn *conn)
{
	Pool	   *pool = conn->pool;
	Flight	   *flight = conn_head(conn);
	Request    *req = flight->req;
	Ticks		now = ticks_now();
	int64		us = conn_head_us(conn, now);
	bool		alone = conn->flights.n == 1;
	bool		repeat = flight->fate == FATE_ROLLED_BACK;
	bool		retry = repeat && flight->retry;
	bool		stalled = flight->stalled;
	bool		changed = has_changed_session(conn, flight);

	Assert(conn->flights.n > 0);
	if (repeat && req != NULL && req->hedge.flight != NULL)
	{
		/* that is the next try */
		hedge_take_over(req);
		req = NULL;
	}
	if (pool->wanted != WANTED_ANY && !conn_suits(conn))
	{
		conn->session.unsuited = true;
		conn->flights.joinable = false;
		/* a standby may have become what is sought */
		pool->seek_at = now;
	}
	if (flight->parsing)
		conn_unprepare(conn, flight->statement, true);
	if (flight->asks_parse)
		conn->session.asks_prepared = false;
	if (flight->tracing > 1)
		conn->session.trace_prepared = false;
	if (req != NULL && !repeat)
	{
		check_end(conn, req, alone && conn_in_transaction(conn),
				  changed);
		conn_count_request(conn, req, now, us, req->failed);
	}
	if (!repeat)
		note_run(conn, flight, us, req == NULL || req->failed);
	if (req != NULL && req->task.kind == REQUEST_PING && req->task.prelude_len == 0 && !req->failed)
		pool_saw_round_trip(conn, us);
	flight_remove(conn, flight);
	conn->flights.ended_at = now;
	conn->used_at = now;
	conn->worked_at = now;
	if (req != NULL && retry)
		retry_later(req);
	else if (req != NULL && repeat)
		pool_repeat(req, stalled);
	else if (req != NULL)
		request_end(req);

	if (conn_head_request(conn) != NULL)
		conn_show_request(conn, conn_head_request(conn));
	/* what is next may stall before it would have been looked at again */
	if (stalled)
		timer_stop(&conn->watch);
	conn_watch(conn);
	if (conn->state == CONN_CANCELLING)
	{
		conn_after_cancel(conn);
		/* those behind may take long: it is not to wait for this connection */
		if (repeat)
			pool_mark(pool);
	}
	else if (conn->flights.n == 0)
		conn_settle(conn);
	else
		pool_mark(pool);
}

typedef struct Checked
{
	Conn	   *conn;
	Request    *req;
} Checked;

static void
start_piece(void *arg)
{
	Checked    *pair = arg;

	conn_start(pair->conn, pair->req);
}

/* The same for one in doubt. */
static void
decide_piece(void *arg)
{
	Checked    *pair = arg;

	if (!outcome_decide(pair->conn, pair->req))
		return;
	pair->conn->rests = true;
	pair->conn->waiter = pair->req;
	pair->req->conn = pair->conn;
	conn_set_deadline(pair->conn, outcome_again_ms(pair->req));
}

/* The connection was checked for a request, which is off it, and works. */
static void
check_passed(Conn *conn, Request *req)
{
	Checked		pair = {conn, req};

	Assert(conn->state == CONN_CHECKING && req->conn == NULL);
	if (req->doubt != NULL)
		(void) work_guard(decide_piece, &pair, request_recover, req);
	else if (!conn_is_current(conn))
		pool_wait_again(req);
	else if (replay_verdict(conn, req, ticks_now()) != REPLAY_SUITS)
		pool_wait_again(req);
	else if ((req->task.traces & TRACE_READ_ONLY) && !conn->session.adapted)
		request_fail(req, "0A000", "the remote server does not make transactions read-only",
					 "The statement was not run.",
					 "The local transaction is read-only, and dbpool.inherit_read_only is on.");
	else
		(void) work_guard(start_piece, &pair, request_recover, req);
	if (conn->state == CONN_CHECKING && !conn->rests)
		conn_ready(conn);
}

/* The check or the reset that the connection was asked for has been answered. */
static void
own_answered(Conn *conn)
{
	Request    *req = conn->waiter;
	Ticks		now = ticks_now();

	timer_stop(&conn->deadline);
	conn->used_at = now;
	if (conn->state == CONN_RESETTING)
	{
		if (conn->lease.shared != NULL && conn_prepared_ended(conn))
			return;
		if (conn_reset_more(conn))
			return;
		/* every statement would be told that it has changed that */
		if (session_text_changed(conn) != NULL || session_is_writable(conn))
		{
			conn_close(conn, "a reset does not make it what it was when it was new");
			return;
		}
		conn->session.dirty = false;
		conn->session.changed = false;
		conn->session.adapted = false;
		conn_ready(conn);
		return;
	}
	if (conn_is_newest(conn))
		pool_works(conn->pool);
	pool_saw_round_trip(conn, now - conn->asked_at);
	replay_asked(conn);
	conn->waiter = NULL;
	if (req == NULL)
	{
		conn_ready(conn);
		return;
	}
	req->conn = NULL;
	check_passed(conn, req);
	/* riders who came meanwhile can join */
	pool_mark(conn->pool);
}

/*
 * Was what has been answered the prelude of the first flight, and is its own statement to
 * be sent?  A ping has none: its prelude was a round trip.
 */
static bool
conn_prelude_is_over(Conn *conn)
{
	const Request *req = conn_head_request(conn);
	const Flight *flight = conn_head(conn);

	return flight->prelude_alone && flight->errors == 0 &&
		req != NULL && req->task.kind != REQUEST_PING &&
	/* a batch that was stopped before it has begun */
		!(req->task.kind == REQUEST_BATCH && req->copy == COPY_ENDED);
}

/* All results of what was sent outside a pipeline have been read. */
void
conn_all_read(Conn *conn)
{
	if (conn->loss.last_words || conn->loss.broken || conn_is_bad(conn))
		conn_lost_at_end(conn);
	else if (conn->flights.n > 0 && conn_prelude_is_over(conn))
		conn_prelude_ended(conn);
	else if (conn->flights.n > 0)
		conn_flight_ended(conn);
	else if ((conn->state == CONN_CHECKING && !conn->rests) || conn->state == CONN_RESETTING)
		own_answered(conn);
}

/* The connection of a lease is at rest, and is marked: what is there to do? */
void
conn_lease_next(Conn *conn)
{
	Checked		pair = {conn, conn->waiter};

	Assert(conn->state == CONN_LEASED);
	if (pair.req != NULL)
	{
		conn->waiter = NULL;
		pair.req->conn = NULL;
		(void) work_guard(start_piece, &pair, request_recover, pair.req);
	}
	if (conn->state == CONN_LEASED && lease_is_released(conn))
		conn_settle(conn);
}
