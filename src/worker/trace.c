/*
 * trace.c
 *	  The remote is told to which trace a statement belongs.
 *
 * By a setting there, dbpool.traceparent, and not by a comment: with that in it, each text
 * would be another one, which is not prepared, shares nothing, and is counted alone.
 *
 * A statement that is sent in a pipeline has what sets it before it, in the same
 * transaction, to whose end it is set; others that share the connection have transactions of their own.
 * To be sent so, the first run of a text goes through a pipeline as well, if it surely is one statement and one
 * transaction.
 *
 * What cannot go through a pipeline, as a script, a COPY, or VACUUM, which runs in no transaction but its own, is
 * sent behind it, and so are the statements of a batch that are independent, like behind a prelude; without a transaction, that is set for the session,
 * which is reset afterwards.  A pool whose sessions are never reset does without.
 *
 * In a transaction over calls it stays set, or is put back by a ROLLBACK TO: so from the first
 * statement on that has a trace, all are told theirs, or that they have none; but for what steers
 * the transaction (call_steers()), before which nothing may come.
 */
#include "postgres.h"

#include "pq/session.h"
#include "worker/connection.h"

/* Is the remote to be told of the request's trace, or that it has none? */
bool
trace_is_due(const Conn *conn, const Request *req)
{
	if (req->task.traceparent[0] == '\0' && (conn->lease.shared == NULL || !conn->lease.traced))
		return false;

	/*
	 * nothing may come before that; and a transaction that has failed takes
	 * nothing else
	 */
	if (conn->lease.shared != NULL &&
		(req->task.steers || (req->task.prelude_len == 0 && conn_transaction_failed(conn))))
		return false;
	return !conn->pool->no_traces && !req->task.lease_ends && !req->task.lease_prepares &&
		req->task.kind != REQUEST_PING && req->task.kind != REQUEST_WARM &&
		req->repeats < REPEATS_MOST;
}

/* May it be told by itself, before what goes through no pipeline? */
bool
trace_goes_alone(const Conn *conn, const Request *req)
{
	return trace_is_due(conn, req) &&
		(conn->lease.shared != NULL || conn->pool->options.reset != RESET_NEVER);
}

/* Tell it in a pipeline, before the flight's own statement, in the same transaction. */
bool
trace_send(Conn *conn, Flight *flight, const Request *req)
{
	const char *value = req->task.traceparent;
	bool		prepares = flight->batch == NULL && conn_prepares_own(conn);
	bool		parses = prepares && !conn->session.trace_prepared;
	const char *sql = psprintf(CONN_TRACE_SQL, "$1", "true");

	conn->lease.traced |= conn->lease.shared != NULL;
	flight->tracing = parses ? 2 : 1;
	if (!prepares)
		return wire_send_query(conn, sql, 1, &value);
	/* those that are sent behind it, before its answer is in, find it there */
	conn->session.trace_prepared = true;
	return (!parses || wire_send_prepare(conn, TRACE_NAME, sql)) &&
		wire_send_prepared(conn, TRACE_NAME, 1, &value, false);
}

/* What tells it by itself; what stands there has been checked (dbpool_is_traceparent()). */
const char *
trace_alone_sql(Conn *conn, Flight *flight, const Request *req)
{
	bool		leased = conn->lease.shared != NULL;

	flight->tracing_alone = true;
	conn->lease.traced |= leased;
	conn->session.dirty |= !leased;
	return psprintf(CONN_TRACE_SQL, psprintf("'%s'", req->task.traceparent), leased ? "true" : "false");
}

/* Has it failed, and not what it stands before? */
bool
trace_is_next(const Flight *flight)
{
	return flight->tracing_alone ? flight->prelude == 1 : flight->tracing > 0 && flight->prelude == 0;
}
