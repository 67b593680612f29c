/*
 * wire_read.c
 *	  What a connection reads: libpq's results, of its flights in their order, and of
 *	  checks and resets.
 *
 * libpq is in non-blocking mode and gives row after row, so that what a
 * connection holds of a result is one row and libpq's input buffer.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "access/htup_details.h"

#include "compat.h"
#include "worker/batch.h"
#include "worker/hedge.h"

/* A statement has one error, that of a remote that ends perhaps another. */
#define MAX_ERRORS		10

/* What is to be done after a result. */
typedef enum Next
{
	NEXT_RESULT,				/* libpq may have another */
	NEXT_SOCKET					/* more has to be read from the socket first */
} Next;

/* COPY needs a connection that its session can talk to; ours cannot. */
static void
refuse_copy(Conn *conn, ExecStatusType status)
{
	Flight	   *flight = conn_head(conn);
	Request    *req = flight->req;
	Ticks		now = ticks_now();

	if (status == PGRES_COPY_IN)
	{
		/* the remote ends the statement with an error of its own */
		PQputCopyEnd(conn->io.pg, "dbpool passes no COPY data");
		conn_flush(conn);
		return;
	}
	request_put_error(req, "0A000",
					  psprintf("COPY TO STDOUT is not possible through pool \"%s\"",
							   NameStr(conn->pool->options.server)),
					  "The statement was given up. What it had already completed on the remote server stays.",
					  "Use a query instead.");
	conn_count_request(conn, req, now, conn_head_us(conn, now), true);
	conn_orphan(conn, flight);
	/* first: its session releases locks when it is told */
	conn_cancel(conn);
	request_end(req);
}

/* Is the next result the question's for the number of its transaction, or its Parse's? */
static bool
question_is_next(const Flight *flight)
{
	return flight->asks && (flight->asks_parse || flight->asks_first || flight->read_to_end);
}

/*
 * Has the question failed, and not what it stands behind?  What is not there (26), and what
 * is not allowed or does not exist (42), is the question's; another error may come at
 * any statement, and is its transaction's.
 */
static bool
is_of_question(const Flight *flight, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	return (question_is_next(flight) || trace_is_next(flight)) && sqlstate != NULL &&
		(strncmp(sqlstate, "26", 2) == 0 || strncmp(sqlstate, "42", 2) == 0);
}

/*
 * The same of what tells of its trace, which fails on no PostgreSQL.  Elsewhere it is not tried
 * again; but what is prepared may be gone, as with the question.
 */
static bool
is_of_trace(Conn *conn, const Flight *flight, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	if (!trace_is_next(flight) || sqlstate == NULL ||
		(strncmp(sqlstate, "42", 2) != 0 && strncmp(sqlstate, "22", 2) != 0 && strncmp(sqlstate, "0A", 2) != 0) ||
		strcmp(sqlstate, "42P05") == 0)
		return false;
	conn->pool->no_traces = true;
	return true;
}

/* A field of the only row; NULL when there is none. */
static const char *
wire_value(const PGresult *res, int field)
{
	return PQntuples(res) == 1 && field < PQnfields(res) && !PQgetisnull(res, 0, field) ?
		PQgetvalue(res, 0, field) : NULL;
}

/* The question, or its Parse, has been answered. */
static void
question_result(Conn *conn, Flight *flight, const PGresult *res)
{
	if (flight->asks_parse)
	{
		flight->asks_parse = false;
		return;
	}
	flight->asks = false;
	flight->asks_first = false;
	outcome_numbered(flight, wire_value(res, 0), wire_value(res, 1));
}

static void
keep_words(Conn *conn, const PGresult *res, const char *severity)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	strlcpy(conn->loss.sqlstate, sqlstate ? sqlstate : "", sizeof(conn->loss.sqlstate));
	snprintf(conn->loss.error, sizeof(conn->loss.error),
			 "The remote server said: %s: %s (SQLSTATE %s)", severity,
			 PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY),
			 sqlstate ? sqlstate : "unknown");
}

/* If with that error the remote server ends the connection, keep what it says. */
bool
wire_last_words(Conn *conn, const PGresult *res)
{
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);

	/*
	 * poolers, and servers before 9.6, have but the one that may be
	 * translated
	 */
	if (severity == NULL)
		severity = PQresultErrorField(res, PG_DIAG_SEVERITY);
	if (severity == NULL || (strcmp(severity, "FATAL") != 0 && strcmp(severity, "PANIC") != 0))
		return false;
	conn->loss.last_words = true;
	/* a pooler between us has no source to name, and knows of itself alone */
	conn->loss.remote_ended = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION) != NULL;
	keep_words(conn, res, severity);
	return true;
}

/*
 * The remote process says with a notice that it ends.  libpq has read that ahead of results that
 * it has not given yet.
 */
void
wire_quits(Conn *conn, const PGresult *res)
{
	conn->loss.remote_quits = true;
	keep_words(conn, res, "WARNING");
}

/* The remote reports an error. */
static void
error_result(Conn *conn, PGresult *res)
{
	Flight	   *flight = conn_head(conn);

	if (strlen(PQresultErrorMessage(res)) > WIRE_OTHER_LARGE)
		conn->io.big = true;
	if (wire_last_words(conn, res) || conn_is_bad(conn))
		return;
	if (flight != NULL && ++flight->errors > MAX_ERRORS)
	{
		strlcpy(conn->loss.error, "The remote server sent one error after the other.",
				sizeof(conn->loss.error));
		conn_lost(conn);
	}
	else if (flight != NULL && flight->batch != NULL && !flight->prelude_alone)
	{
		char		frame;

		(void) is_of_trace(conn, flight, res);
		if (batch_fails(conn, flight, wire_cause_of(res), &frame))
			reply_error(flight->req, res, frame);
	}
	else if (flight != NULL)
	{
		Cause		cause = is_of_trace(conn, flight, res) ? CAUSE_TRACE :
		is_of_question(flight, res) ? CAUSE_QUESTION : wire_cause_of(res);

		/* what stands behind is not executed */
		flight->asks = false;
		flight->read_to_end = true;
		if (flight_failed(conn, flight, cause))
			reply_error(flight->req, res, FRAME_ERROR);
	}
	else if (conn->state == CONN_RESETTING)
	{
		const char *message = PQresultErrorMessage(res);

		/* a line, as long as a view would show it */
		ereport(LOG,
				(errmsg("dbpool could not %s of pool \"%s\": %s%.*s",
						conn->lease.shared != NULL ? "end a prepared transaction" : "reset a connection",
						NameStr(conn->pool->options.server),
						session_runs_connect_sql(conn) ? "connect_sql failed: " : "",
						(int) Min(strcspn(message, "\n"), DBPOOL_SHOWN_ERROR), message)));
		conn_close(conn, "it could not be reset");
	}
}

/* A statement that was given up turns out to be a COPY: throw away what comes. */
static Next
drain_copy(Conn *conn, ExecStatusType status)
{
	char	   *data = NULL;
	int			len;

	if (status == PGRES_COPY_IN)
	{
		refuse_copy(conn, status);
		return NEXT_RESULT;
	}
	while ((len = PQgetCopyData(conn->io.pg, &data, 1)) > 0)
		PQfreemem(data);
	/* libpq gives the same result again, as long as rows are to come */
	return len != 0 ? NEXT_RESULT : NEXT_SOCKET;
}

static void
note_types(Conn *conn, const Flight *flight, const PGresult *res)
{
	static Oid	types[MaxTupleAttributeNumber];
	int			n = PQnfields(res);

	if (!flight->prepared || n > lengthof(types))
		return;
	for (int i = 0; i < n; i++)
		types[i] = PQftype(res, i);
	conn_note_types(conn, flight, n, types);
}

/*
 * A result of dbpool's own statements, and of connect_sql, of which nobody wants to know.  Returns
 * false when it is too much; loss.error says so.
 */
bool
wire_own_result(Conn *conn, const PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (input_gave_too_much(conn, res))
		return false;
	if (session_runs_connect_sql(conn))
		return true;
	if (status == PGRES_COMMAND_OK && strcmp(PQcmdStatus((PGresult *) res), "SET") == 0)
		conn_note_set(conn);
	else if (status == PGRES_TUPLES_OK && PQnfields(res) == 1)
		conn_note_answer(conn, PQfname(res, 0),
						 PQntuples(res) == 1 && !PQgetisnull(res, 0, 0) ? PQgetvalue(res, 0, 0) : NULL);
	return true;
}

/* Rows or a tag for the first flight.  Returns true when it has kept the result. */
static bool
take_result(Conn *conn, Flight *flight, PGresult *res, ExecStatusType status)
{
	Request    *req;

	hedge_speaks(flight);
	req = flight->req;
	if (status != PGRES_SINGLE_TUPLE)
	{
		flight->read_to_end = true;
		conn_note_tag(conn, PQcmdStatus(res));
		flight->plain &= session_tag_is_plain(PQcmdStatus(res));
	}
	if (req == NULL)
		return false;
	if (req->task.kind == REQUEST_QUERY && status != PGRES_EMPTY_QUERY &&
		status != PGRES_COMMAND_OK)
	{
		if (!flight->shape_sent)
		{
			reply_shape(req, res);
			note_types(conn, flight, res);
		}
		flight->shape_sent = true;
		if (status == PGRES_SINGLE_TUPLE)
		{
			reply_rows(conn, res);
			return true;
		}
	}
	if (status != PGRES_SINGLE_TUPLE)
	{
		if (req->task.kind == REQUEST_QUERY && PQntuples(res) > 0)
			elog(ERROR, "libpq gave the rows of a result at once");
		req->has_outcome = true;
		reply_tag(req, res);
	}
	return false;
}

/* One of the statements before that of the first flight has been executed. */
static void
prelude_result(Conn *conn, Flight *flight)
{
	/* what only tells of the trace may fail, and what was before it has run */
	if (--flight->prelude == 0 || (flight->prelude == 1 && flight->tracing_alone))
		lease_begun(conn);
	if (flight->prelude > 0)
		return;
	/* nothing comes after it */
	if (flight->req != NULL && flight->req->task.kind == REQUEST_PING)
		flight->req->has_outcome = true;
}

/* The remote wants rows, or would send some, outside of queries; this takes the result over. */
static Next
copy_result(Conn *conn, PGresult *res, ExecStatusType status)
{
	Flight	   *flight = conn_head(conn);
	Request    *req = flight != NULL ? flight->req : NULL;
	uint32		columns = (uint32) PQnfields(res);

	PQclear(res);
	if (flight == NULL)
		conn_close(conn, session_runs_connect_sql(conn) ? "connect_sql began COPY" :
				   "the remote answered what it was not asked");
	else if (flight->batch != NULL)
		conn_close(conn, "a statement of a batch began COPY");
	else if (req == NULL)
		return drain_copy(conn, status);
	else if (status == PGRES_COPY_IN && req->task.kind == REQUEST_COPY && req->copy == COPY_WAITING)
		copy_ask(req, columns);
	else
		refuse_copy(conn, status);
	return NEXT_RESULT;
}

/* One result of libpq; this takes it over. */
static Next
one_result(Conn *conn, PGresult *res)
{
	Flight	   *flight = conn_head(conn);
	ExecStatusType status = PQresultStatus(res);

	/* in a pipeline, libpq is asked anew for each command */
	if (flight != NULL && conn->io.pipelined && status != PGRES_SINGLE_TUPLE)
		flight->row_mode = false;

	switch (status)
	{
		case PGRES_SINGLE_TUPLE:
		case PGRES_TUPLES_OK:
		case PGRES_COMMAND_OK:
		case PGRES_EMPTY_QUERY:
			if (flight == NULL)
			{
				if (wire_own_result(conn, res))
					break;
				PQclear(res);
				conn_lost(conn);
				return NEXT_SOCKET;
			}
			else if (flight->prelude > 0)
				prelude_result(conn, flight);
			else if (flight->tracing > 0 && (flight->batch == NULL || !batch_begins(flight)))
				flight->tracing--;
			else if (flight->batch != NULL)
			{
				if (batch_result(conn, flight, res, status == PGRES_SINGLE_TUPLE))
					return NEXT_RESULT;
			}
			else if (question_is_next(flight))
				question_result(conn, flight, res);
			else if (flight->parsing)
				flight->parsing = false;
			else if (!flight->chore && take_result(conn, flight, res, status))
				return NEXT_RESULT;
			break;
		case PGRES_PIPELINE_SYNC:
			PQclear(res);
			if (flight != NULL && (flight->batch == NULL || batch_synced(conn, flight)))
				conn_flight_ended(conn);
			else if (flight == NULL)
				conn_close(conn, "the remote answered what it was not asked");
			return NEXT_RESULT;
		case PGRES_PIPELINE_ABORTED:
			if (flight != NULL && flight->batch != NULL)
				batch_item_aborted(conn, flight);
			break;
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
			return copy_result(conn, res, status);
		case PGRES_FATAL_ERROR:
			error_result(conn, res);
			break;
		default:
			PQclear(res);
			conn_close(conn, "the remote sent something unexpected");
			return NEXT_RESULT;
	}
	PQclear(res);
	return NEXT_RESULT;
}

/*
 * Have libpq give the result row by row.  In a pipeline that has to be said
 * after the result before was read, and before anything looks into the input:
 * PQisBusy() does, and PQnotifies().
 */
static void
want_rows(Conn *conn)
{
	Flight	   *flight = conn_head(conn);

	if (flight != NULL && flight->prelude == 0 && flight->tracing == 0 && conn->io.pipelined &&
		!flight->row_mode && !question_is_next(flight))
		flight->row_mode = PQsetSingleRowMode(conn->io.pg) == 1;
}

/* Take the next result from libpq, or see that there is none. */
static Next
next_result(Conn *conn)
{
	PGresult   *res;
	int64		before;
	bool		busy;

	want_rows(conn);
	before = input_before(conn);
	busy = PQisBusy(conn->io.pg);
	if (input_hoards(conn, before))
	{
		conn_lost(conn);
		return NEXT_SOCKET;
	}
	conn->io.waits = busy;
	if (busy)
		return NEXT_SOCKET;
	conn->io.kept = 0;
	conn->io.looks = 0;
	res = PQgetResult(conn->io.pg);
	if (res != NULL)
	{
		conn->io.empty_results = 0;
		wire_result(&conn->io.wire);
		return one_result(conn, res);
	}

	/*
	 * In a pipeline, a gap between two commands; nothing follows a third one.
	 * Behind the first, with the connection at its end, may be the remote's
	 * last words.
	 */
	if (conn->io.pipelined && conn->flights.n > 0 && ++conn->io.empty_results < 3)
		return NEXT_RESULT;
	if (conn_head_batch(conn) != NULL && batch_rests(conn_head(conn)))
	{
		conn->io.empty_results = 0;
		return NEXT_SOCKET;
	}
	if (conn->io.pipelined && conn->flights.n > 0)
		conn_lost_at_end(conn);
	else
		conn_all_read(conn);
	return NEXT_SOCKET;
}

/* Has it nothing to read an answer of? */
static bool
is_at_rest(const Conn *conn)
{
	return conn->state == CONN_CLOSED || conn->state == CONN_IDLE || conn->state == CONN_LEASED;
}

/* Handle what libpq has read, as far as the backends keep up. */
static void
read_results(Conn *conn)
{
	while (!is_at_rest(conn))
	{
		Request    *req = conn_head_request(conn);

		if (req != NULL && !reply_pump(conn, req))
		{
			/* the backend is slow: let the remote wait */
			request_measure_blocked(req, true);
			conn_want(conn, WL_SOCKET_CLOSED);
			return;
		}
		if (req != NULL)
			request_measure_blocked(req, false);
		if (conn_copies(conn) && !copy_send(conn))
			return;
		if (conn_head_batch(conn) != NULL)
			batch_send(conn);
		if (next_result(conn) == NEXT_SOCKET)
			break;
	}
	if (is_at_rest(conn))
		return;
	if (conn_head_batch(conn) != NULL)
		batch_tell(conn);
	/* out of step with the remote, libpq gives up a socket by itself */
	if (conn->loss.broken || conn->loss.remote_quits || PQsocket(conn->io.pg) == PGINVALID_SOCKET)
		conn_lost_at_end(conn);
	else
		conn_want(conn, WL_SOCKET_READABLE | (conn->io.flushed ? 0 : WL_SOCKET_WRITEABLE));
}

/* A connection at rest has something to say: a notice, a setting, or the end. */
static void
idle_event(Conn *conn)
{
	PGresult   *res;

	while (!PQisBusy(conn->io.pg) && (res = PQgetResult(conn->io.pg)) != NULL)
		PQclear(res);
	if (conn_is_bad(conn) || conn->loss.remote_quits ||
		PQsocket(conn->io.pg) == PGINVALID_SOCKET)
		conn_lost_at_end(conn);
	else if (conn->state == CONN_IDLE && conn->pool->wanted != WANTED_ANY && !conn_suits(conn))
		conn_close(conn, "its server has another role now");
}

/*
 * The message at which input_look() has stopped is the next for libpq, which has
 * given all before it: give the connection up, and tell its session.
 */
static void
too_large(Conn *conn, const WireMessage *large)
{
	Request    *req = conn_head_request(conn);
	Ticks		now = ticks_now();

	if (conn->state == CONN_CLOSED)
		return;
	input_describe_large(conn, large);
	if (large->type == 'E' && large->certain && req != NULL && conn->rows.result == NULL &&
		reply_large_error(req, large))
	{
		/* the statement has failed: that was its answer */
		conn_count_request(conn, req, now, conn_head_us(conn, now), true);
		flight_remove(conn, conn_head(conn));
		request_end(req);
	}
	conn_lost(conn);
}

/* Read what the socket has, and see what it is. */
static void
read_socket(Conn *conn)
{
	PGnotify   *notify;
	int64		before;
	WireMessage large;
	InputLook	look = input_look(conn, &large);

	if (look == INPUT_REFUSED)
	{
		conn_lost(conn);
		return;
	}
	copy_look(conn);
	want_rows(conn);
	if (PQconsumeInput(conn->io.pg) != 1)
	{
		conn_note_error(conn);
		conn->loss.broken = true;
		/* what came before the end is still to be read */
		if (is_at_rest(conn))
			conn_lost(conn);
		else
			read_results(conn);
		return;
	}
	before = input_before(conn);
	while ((notify = PQnotifies(conn->io.pg)) != NULL)
		PQfreemem(notify);
	if (input_hoards(conn, before))
	{
		conn_lost(conn);
		return;
	}
	if (is_at_rest(conn))
		idle_event(conn);
	else
		read_results(conn);
	if (look == INPUT_LARGE)
		too_large(conn, &large);
}

/*
 * TLS may hold bytes that it has read and libpq has not asked for: the socket
 * will not tell of them.
 */
static void
read_hidden(Conn *conn)
{
	while (conn->io.tls && conn->state != CONN_CLOSED && !conn->loss.broken &&
		   !(conn->io.poll.wants & WL_SOCKET_CLOSED) && compat_hidden_input(conn->io.pg))
		read_socket(conn);
}

/* The socket of an open connection is ready. */
void
conn_event(Conn *conn, uint32 events)
{
	/*
	 * With room for more of a long statement: PQconsumeInput() would flush as
	 * well, and each flush moves all that is left in libpq's buffer.
	 */
	if ((events & WL_SOCKET_WRITEABLE) && !conn_flush(conn))
		conn_lost(conn);
	else if (events != WL_SOCKET_WRITEABLE)
	{
		read_socket(conn);
		read_hidden(conn);
	}
	else if (conn_copies(conn) || conn_head_batch(conn) != NULL)
		conn_pump(conn);
}

/* The backend has made room in the ring. */
void
conn_pump(Conn *conn)
{
	if (conn->flights.n == 0)
		return;
	read_results(conn);
	read_hidden(conn);
}

/* What could be read or sent meanwhile, see conn_mark(). */
void
conn_go_on(void *owner)
{
	Conn	   *conn = owner;

	if (conn->state == CONN_LEASED)
		conn_lease_next(conn);
	else if (conn->flights.n > 0)
		conn_event(conn, WL_SOCKET_READABLE);
}
