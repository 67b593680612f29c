/*
 * wire_settings.c
 *	  From a log-in to a session of dbpool's: what is set and asked there first.
 *
 * wire_open.c has it begin, and goes on when it has ended.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "ipc/home.h"
#include "pq/session.h"
#include "worker/hedge.h"

/*
 * Does the remote process end with that notice, and say no more?  So it does at an immediate
 * shutdown, when another process has crashed, and when it is to end while it waits for a standby.
 */
static bool
remote_quits(const PGresult *res, const char *function)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	return function != NULL && sqlstate != NULL &&
		(strcmp(function, "quickdie") == 0 ||
		 (strcmp(function, "SyncRepWaitForLSN") == 0 && strcmp(sqlstate, "57P01") == 0));
}

/*
 * A notice goes to the session of the first flight.  But libpq reads notices
 * ahead: with the answer to that one complete, but for its end, this one may be
 * the next flight's already (of its parsing or planning).  It is better lost
 * than shown to somebody else.
 */
static void
notice_receiver(void *arg, const PGresult *res)
{
	Conn	   *conn = arg;
	const char *function = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);

	/* commits wait for standbys here by now: cancel no more of them */
	if (function != NULL && strcmp(function, "SyncRepWaitForLSN") == 0)
		conn->pool->synchronous = true;
	/* while nothing runs libpq takes an error for a notice */
	if (conn->state == CONN_LEASED)
		(void) wire_last_words(conn, res);

	else if (remote_quits(res, function))
	{
		wire_quits(conn, res);

		/*
		 * of what runs once more nobody needs to know; that it has not been
		 * replicated stays true
		 */
		if (function != NULL && strcmp(function, "quickdie") == 0)
			return;
	}
	if (conn->flights.n == 0 || (conn->flights.n > 1 && conn_head(conn)->read_to_end))
		return;
	/* a copy may fail yet, which nobody is to be told */
	if (conn_head(conn)->hedges != NULL)
		return;
	hedge_speaks(conn_head(conn));
	if (conn_head_request(conn) != NULL)
		reply_error(conn_head_request(conn), res, FRAME_NOTICE);
}

/*
 * Send what the present step consists of: with the last one goes the question which run of the
 * remote server this is, if that is to be asked, and the mark, which has to be in what runs
 * there last.  Returns NULL, or why it could not be sent.
 */
static const char *
send_settings(Conn *conn)
{
	const char *sql = session_step_sql(conn);

	if (conn->session.step == SESSION_LAST)
		sql = psprintf("%s%s%s", conn->opening.home_mark, sql,
					   conn->opening.asks_run ? psprintf(CONN_RUN_SQL, PQbackendPID(conn->io.pg)) : "");
	conn->asked_at = ticks_now();
	conn->io.received = 0;
	conn->io.given = 0;
	if (PQsendQuery(conn->io.pg, sql) != 1)
		return PQerrorMessage(conn->io.pg);
	poll_socket(&conn->io.poll, PQsocket(conn->io.pg), WL_SOCKET_READABLE);
	return NULL;
}

/* Begin with it, right after the log-in.  Returns NULL, or why that failed. */
const char *
settings_begin(Conn *conn)
{
	conn->opening.phase = PHASE_SETTINGS;
	session_begin(conn);
	PQsetNoticeReceiver(conn->io.pg, notice_receiver, conn);
	if (!home_make_mark(PQbackendPID(conn->io.pg), conn->opening.home_mark))
		conn->opening.home_mark[0] = '\0';
	conn->opening.asks_run = conn->pool->options.resolve_outcome && !conn->pool->no_runs &&
		PQserverVersion(conn->io.pg) >= 130000;
	return PQsetnonblocking(conn->io.pg, 1) != 0 ? PQerrorMessage(conn->io.pg) : send_settings(conn);
}

/*
 * Our settings were refused, or what was asked with them: then they are sent once more
 * without.  Returns false when nothing was asked.
 */
static bool
without_run(Conn *conn, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	if (!conn->opening.asks_run || sqlstate == NULL || conn_is_bad(conn))
		return false;
	conn->opening.asks_run = false;
	conn->opening.again = true;
	/* no such function, or no right to call it: so it will be next time */
	conn->pool->no_runs |= strncmp(sqlstate, "42", 2) == 0 || strncmp(sqlstate, "0A", 2) == 0;
	return true;
}

/*
 * A step has been answered: begin with the next.  Returns false when there is none.  *why is
 * NULL, or what is wrong.
 */
static bool
next_step(Conn *conn, const char **why)
{
	/* what connect_sql must not change */
	if (conn->session.step == SESSION_FIRST)
		conn_remember_settings(conn);
	if (conn->opening.again)
	{
		conn->opening.again = false;
		*why = NULL;
	}
	else if (!session_step_ended(conn, why))
		return false;
	if (*why == NULL)
		*why = send_settings(conn);
	return true;
}

/* What is wrong with what came of the statements of the step, for PQgetResult(). */
static const char *
step_failed(Conn *conn, ExecStatusType status)
{
	if (session_runs_connect_sql(conn) && status != PGRES_FATAL_ERROR)
		return "it began COPY";
	return PQerrorMessage(conn->io.pg);
}

/*
 * Read what the remote answers.  SETTINGS_FAILED: why it is of no use is in *why, which
 * is valid as long as libpq's connection.
 */
SettingsStep
settings_read(Conn *conn, const char **why)
{
	PGconn	   *pg = conn->io.pg;
	const char *error = NULL;
	WireMessage large;
	InputLook	look = input_look(conn, &large);

	if (look == INPUT_LARGE)
		input_describe_large(conn, &large);
	if (look == INPUT_LARGE || look == INPUT_REFUSED)
		error = conn->loss.error;
	else if (PQconsumeInput(pg) != 1)
		error = PQerrorMessage(pg);
	while (error == NULL && !PQisBusy(pg))
	{
		PGresult   *res = PQgetResult(pg);
		ExecStatusType status;
		bool		failed;

		if (res == NULL)
		{
			if (!next_step(conn, &error))
				return SETTINGS_MADE;
			break;
		}
		status = PQresultStatus(res);
		failed = status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK &&
			!(status == PGRES_EMPTY_QUERY && session_runs_connect_sql(conn));
		if (failed && conn->session.step == SESSION_LAST && without_run(conn, res))
			failed = false;
		else if (!wire_own_result(conn, res))
			error = conn->loss.error;
		PQclear(res);
		if (failed && error == NULL)
			error = step_failed(conn, status);
	}
	if (error == NULL && PQsocket(pg) == PGINVALID_SOCKET)
		error = PQerrorMessage(pg);
	*why = error;
	return error != NULL ? SETTINGS_FAILED : SETTINGS_WAIT;
}
