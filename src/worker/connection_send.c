/*
 * connection_send.c
 *	  What an open connection is given to do: statements of requests, checks.
 *
 * PIPELINING
 *
 * A flight is a statement that was sent.  A connection that is joinable may
 * have several, of several sessions, each with a Sync of its own: so each is a
 * transaction of its own, and an error ends with it.  Their answers come in
 * the order in which they were sent.
 *
 * A request of a lease may have a prelude: statements that begin the transaction or a
 * savepoint.  In a pipeline they go before its own, without a Sync between, so that
 * it does not run when they fail; else they are sent, and it when they have ended
 * (conn_prelude_ended()).
 *
 * Only a statement that is known to be plain (statement.c) is sent in libpq's
 * pipeline mode; the first run of a text, scripts and whatever else there is
 * have the connection for themselves.  Who may share is dispatch.c's to say.
 *
 * A flight whose session gives up stays as an orphan until it is answered,
 * and the connection gets no more flights until then (connection_cancel.c).
 *
 * A statement is sent again, unseen, when it failed for no fault of its own
 * and was rolled back as a whole: a cancel hit it that was meant for another,
 * or what was prepared for it is gone or out of date (wire_read.c).
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "pq/session.h"
#include "worker/batch.h"
#include "worker/hedge.h"

/* A request above this makes libpq's buffers so large that they are given up. */
#define BIG_REQUEST_BYTES	(16 * 1024 * 1024)

/* So are all transactions that a statement may begin, in a script too. */
#define MAKE_READ_ONLY_SQL	"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"

/* Is the text seen so often that preparing it pays? */
static bool
worth_preparing(const Pool *pool, const Statement *statement)
{
	return statement != NULL && pool->options.prepare_threshold > 0 &&
		pool->options.statement_cache_size > 0 &&
		statement->uses > pool->options.prepare_threshold;
}

/*
 * A statement of which it is known that it returns rows or a tag and leaves
 * nothing behind, or that looks like a write: with a Sync of its own, so that it is a
 * transaction of its own, and others may be sent behind it.  asks: with the question for
 * its number, see outcome.c.
 */
static bool
send_pipelined(Conn *conn, Request *req, Flight *flight, const char *const *values, bool asks)
{
	/* in a transaction, what has been lost could not be sent again */
	bool		prepared = req->repeats < REPEATS_UNPREPARED && !req->task.lease_ends &&
	!(conn->lease.shared != NULL && conn->pool->loses_prepared) &&
	worth_preparing(conn->pool, req->statement) &&
	(conn->lease.shared == NULL || conn->lease.statements == 1 || conn_has_room(conn, req->statement));
	int			nparams = req->task.nparams;
	bool		sent;

	if (!conn_set_pipelined(conn, true) ||
		(prepared && !conn_make_room(conn, req->statement)) ||
		!wire_send_prelude(conn, req) ||
		(trace_is_due(conn, req) && !trace_send(conn, flight, req)) ||
		(asks && !conn_prepare_question(conn, flight)))
		return false;
	/* a COMMIT leaves nothing that could be asked about */
	flight->asks_first = asks && req->task.lease_ends;
	if (flight->asks_first && !conn_send_question(conn))
		return false;
	if (prepared)
		sent = conn_send_prepared(conn, flight, req, values);
	else
		sent = wire_send_query(conn, req->sql, nparams, values);
	if (sent && asks && !flight->asks_first)
		sent = conn_send_question(conn);
	return sent && wire_send_sync(conn);
}

/* The prelude by itself, and what tells of the trace. */
static bool
send_prelude_alone(Conn *conn, Request *req)
{
	const char *end = req->prelude + req->task.prelude_len;
	StringInfoData script;

	Assert(conn->flights.n == 1);
	initStringInfo(&script);
	for (const char *sql = req->prelude; sql < end; sql += strlen(sql) + 1)
	{
		appendStringInfo(&script, "%s;", sql);
		req->flight->prelude++;
	}
	if (trace_goes_alone(conn, req))
	{
		appendStringInfoString(&script, trace_alone_sql(conn, req->flight, req));
		req->flight->prelude++;
	}
	req->flight->prelude_alone = true;
	return conn_set_pipelined(conn, false) && wire_send_script(conn, script.data);
}

/* Anything else, alone on the connection. */
static bool
send_alone(Conn *conn, Request *req, const char *const *values)
{
	Flight	   *flight = req->flight;

	if (!conn_set_pipelined(conn, false))
		return false;
	switch (req->task.kind)
	{
		case REQUEST_QUERY:
			if (!wire_send_query(conn, req->sql, req->task.nparams, values))
				return false;
			break;
		case REQUEST_SCRIPT:
		case REQUEST_COPY:
			if (!wire_send_script(conn, req->sql))
				return false;
			break;
		default:
			return wire_send_script(conn, "");
	}
	flight->row_mode = wire_rows_one_by_one(conn);
	return flight->row_mode;
}

typedef struct Sending
{
	Conn	   *conn;
	Request    *req;
	Flight	   *flight;			/* of the request, or of its copy */
	const char **values;		/* of its parameters */
} Sending;

static void
send_piece(void *arg)
{
	const Sending *sending = arg;
	Conn	   *conn = sending->conn;
	Request    *req = sending->req;
	bool		asks = outcome_asks(conn, req);
	bool		sent;

	/* first: libpq may send by itself, and the statement may look */
	if (conn->flights.n == 1)
		conn_show_request(conn, req);
	if (req->task.kind == REQUEST_BATCH && (req->task.batch & BATCH_EACH) && conn->lease.shared == NULL &&
		trace_goes_alone(conn, req))
		sent = send_prelude_alone(conn, req);
	else if (req->task.kind == REQUEST_BATCH)
		sent = batch_begin(conn, req);
	else if (asks || (req->task.kind == REQUEST_QUERY && statement_is_plain(req->statement)) ||
			 (req->task.one_transaction && trace_is_due(conn, req)))
		sent = send_pipelined(conn, req, sending->flight, sending->values, asks);
	else if (req->task.prelude_len > 0 || trace_goes_alone(conn, req))
		sent = send_prelude_alone(conn, req);
	else
		sent = send_alone(conn, req, sending->values);
	if (!sent || !conn_flush(conn))
		conn_lost(conn);
	else
	{
		conn_watch(conn);
		if (conn->session.home_pid != 0)
			deadlock_watch();
	}
}

/*
 * The prelude of the first flight, which was sent by itself, has been executed: send the
 * request's own statement.
 */
void
conn_prelude_ended(Conn *conn)
{
	Request    *req = conn_head_request(conn);
	const char **values = NULL;

	Assert(conn->flights.n == 1 && req != NULL && req->flight->prelude_alone);
	if (req->task.kind == REQUEST_QUERY)
		values = message_params(req->params, req->task.nparams);
	conn->io.flushed = false;
	req->flight->prelude_alone = false;
	if (!(req->task.kind == REQUEST_BATCH ? batch_begin(conn, req) : send_alone(conn, req, values)) ||
		!conn_flush(conn))
		conn_lost(conn);
}

/*
 * The request is the connection's from now on; false when its session has gone, and then
 * the connection has nothing of it.
 */
static bool
take_up(Conn *conn, Request *req)
{
	bool		opens = req->task.lease != LEASE_NONE && conn->lease.shared == NULL;

	if (opens && !lease_attach(conn, req))
		return false;
	if (opens)
		conn->lease.min_lsn = req->task.min_lsn;
	if (conn->lease.shared != NULL)
		lease_runs(conn, req);
	if (req->answer->started(req, conn))
		return true;
	if (opens)
		lease_unattach(conn);
	else if (conn->lease.shared != NULL)
		lease_rests(conn);
	return false;
}

/*
 * Run a request on a connection that is idle, has just been checked, or whose
 * statements it may ride behind.  Throws only as long as the connection has
 * nothing of the request.
 */
void
conn_start(Conn *conn, Request *req)
{
	Sending		sending = {conn, req, NULL, NULL};
	Flight	   *flight;

	Assert(!req->queued && req->flight == NULL && req->conn == NULL);
	Assert(conn->state == CONN_IDLE || conn->state == CONN_CHECKING || conn->state == CONN_LEASED ||
		   (conn->state == CONN_BUSY && conn->flights.joinable));
	if (req->task.kind == REQUEST_QUERY)
		sending.values = message_params(req->params, req->task.nparams);
	flight = flight_make();
	if (req->task.kind == REQUEST_BATCH && (flight->batch = batch_make(req)) == NULL)
	{
		flight_free(flight);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	req->started_at = ticks_now();
	if (!take_up(conn, req))
	{
		flight_free(flight);
		request_gone(req);
		return;
	}
	timer_stop(&req->deadline);
	if (req->task.kind == REQUEST_COPY || req->task.kind == REQUEST_BATCH)
		conn_bear_silence(conn, true);
	if (req->task.sql_len + req->task.params_len > BIG_REQUEST_BYTES)
		conn->io.big = true;
	conn->session.dirty |= (req->task.traces & TRACE_RESET) != 0;
	conn->session.spoilt |= (req->task.traces & TRACE_CLOSE) != 0;
	conn->io.flushed = false;
	if (conn->state != CONN_BUSY)
	{
		conn->flights.joinable = request_can_ride(req);
		conn->flights.makes_way = false;
		conn_move(conn, CONN_BUSY, "a statement");
	}
	flight_add(conn, flight, req);
	sending.flight = flight;
	if (conn->pool->options.hedge > 0)
		hedge_watch(conn, req);
	SpinLockAcquire(&conn->shared->mutex);
	conn->shared->statements++;
	SpinLockRelease(&conn->shared->mutex);
	(void) work_guard(send_piece, &sending, conn_recover, conn);
}

/*
 * Run a copy of a request, which runs on another connection, on an idle one (hedge.c).  Throws
 * only as long as the connection has nothing of it.
 */
void
conn_start_copy(Conn *conn, Request *req)
{
	Sending		sending = {conn, req, NULL, NULL};

	Assert(conn->state == CONN_IDLE && req->task.kind == REQUEST_QUERY && statement_is_plain(req->statement));
	sending.values = message_params(req->params, req->task.nparams);
	sending.flight = flight_make();
	conn->io.flushed = false;
	conn->flights.joinable = false;
	conn->flights.makes_way = false;
	conn_move(conn, CONN_BUSY, "a copy of a statement");
	flight_add_copy(conn, sending.flight, req);
	SpinLockAcquire(&conn->shared->mutex);
	conn->shared->statements++;
	SpinLockRelease(&conn->shared->mutex);
	(void) work_guard(send_piece, &sending, conn_recover, conn);
}

/*
 * Would the request find there what sequences gave to sessions before?  Then
 * that is put away before it runs.
 */
static bool
conn_shows_sequences(const Conn *conn, const Request *req)
{
	return (req->task.traces & TRACE_READS_SEQUENCES) &&
		conn->pool->options.reset == RESET_SMART;
}

/* Has the session perhaps another role than that which the request needs? */
static bool
conn_hides_role(const Conn *conn, const Request *req)
{
	return (req->task.traces & TRACE_LOGIN_ROLE) && conn->session.connect_sql != NULL;
}

/* Is there something to be done in the session before a request runs? */
bool
conn_needs_preparing(const Conn *conn, const Request *req)
{
	return req->doubt != NULL || conn_shows_sequences(conn, req) ||
		(req->task.traces & TRACE_READ_ONLY) != 0 || conn_hides_role(conn, req);
}

static void
check_piece(void *arg)
{
	Conn	   *conn = arg;
	Request    *req = conn->waiter;
	const char *sql = "";

	if (req != NULL && req->doubt != NULL)
		sql = outcome_question(conn, req);
	else if (req != NULL && conn_hides_role(conn, req))
	{
		conn->session.adapted = true;
		sql = "RESET ROLE";
	}
	else if (req != NULL && (req->task.traces & TRACE_READ_ONLY))
		sql = conn_shows_sequences(conn, req) ? "DISCARD SEQUENCES; " MAKE_READ_ONLY_SQL : MAKE_READ_ONLY_SQL;
	else if (req != NULL && conn_shows_sequences(conn, req))
		sql = "DISCARD SEQUENCES";
	if (conn->replay.asks)
		sql = psprintf("%s; %s", sql, CONN_REPLAY_SQL);
	if (!conn_send_simple(conn, sql))
		conn_lost(conn);
}

/* See whether the connection still works, for a request or just so. */
void
conn_check(Conn *conn, Request *req)
{
	Assert(conn->state == CONN_IDLE && conn->waiter == NULL);
	Assert(req == NULL || (!req->queued && req->conn == NULL));
	conn_move(conn, CONN_CHECKING,
			  req == NULL ? "long unused" :
			  req->doubt != NULL ? "it is asked what became of a write" :
			  "long unused, or to be prepared for a request");
	conn->waiter = req;
	if (req != NULL)
	{
		req->conn = conn;
		req->waits = true;
	}
	conn_set_deadline(conn, CONN_ANSWER_MS);
	(void) work_guard(check_piece, conn, conn_recover, conn);
}

/* A check that was to be made again is due, if somebody still waits for it. */
void
conn_check_again(Conn *conn)
{
	Assert(conn->state == CONN_CHECKING && conn->rests);
	conn->rests = false;
	if (conn->waiter == NULL)
	{
		conn_ready(conn);
		return;
	}
	conn_set_deadline(conn, CONN_ANSWER_MS);
	(void) work_guard(check_piece, conn, conn_recover, conn);
}
