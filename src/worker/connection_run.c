/*
 * connection_run.c
 *	  What an open connection does: run the statement of a request, and answer
 *	  checks.
 *
 * libpq is in non-blocking mode and gives row after row, so that what a
 * connection holds of a result is one row and libpq's input buffer.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"

/* A request above this makes libpq's buffers so large that they are given up. */
#define BIG_REQUEST_BYTES	(16 * 1024 * 1024)

/* The remote has so long for what it was asked. */
void
conn_set_deadline(Conn *conn, int ms)
{
	timer_set(&conn->deadline,
			  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms));
}

/* Take the request at the head off the connection. */
static Request *
take_head(Conn *conn)
{
	Request    *req = conn_head(conn);

	if (req != NULL)
	{
		dlist_delete(&req->node);
		req->conn = NULL;
	}
	return req;
}

/*
 * Change what the connection's socket is waited for.  libpq closes it by itself
 * when it breaks, while results may still have to be read.
 */
void
conn_want(Conn *conn, uint32 wants)
{
	pgsocket	sock = PQsocket(conn->pg);

	if (sock == conn->sock)
		loop_want(conn, wants);
	else
		loop_socket(conn, sock, sock == PGINVALID_SOCKET ? 0 : wants);
}

/* Hand what libpq has to the kernel; wait for room there if need be. */
bool
conn_flush(Conn *conn)
{
	int			left = PQflush(conn->pg);

	if (left < 0)
		return false;
	conn->flushed = left == 0;
	conn_want(conn, WL_SOCKET_READABLE | (left > 0 ? WL_SOCKET_WRITEABLE : 0));
	return true;
}

/* Account for a request that has ended. */
static void
count_request(Conn *conn, Request *req, bool failed)
{
	Pool	   *pool = conn->pool;
	PoolShared *shared = pool->shared;
	int64		us = GetCurrentTimestamp() - req->started_at;
	int64		wait = req->started_at - req->queued_at;
	Size		sent = req->slot->sql_len + req->slot->params_len;

	req->remote_us = us;
	if (!failed)
		pool_works(pool);
	pool->exec_us = pool->exec_us == 0 ? us : pool->exec_us * 0.9 + us * 0.1;
	SpinLockAcquire(&shared->mutex);
	if (failed)
		shared->counters.errors++;
	else
		shared->counters.statements++;
	shared->counters.exec_us += us;
	shared->counters.exec_max_us = Max(shared->counters.exec_max_us, (uint64) us);
	shared->counters.wait_us += wait;
	shared->counters.wait_max_us = Max(shared->counters.wait_max_us, (uint64) wait);
	shared->counters.rows += req->rows;
	shared->counters.bytes_sent += sent;
	shared->counters.bytes_received += req->bytes;
	SpinLockRelease(&shared->mutex);
}

/* Keep libpq's word on why the connection broke, before it has another. */
static void
note_error(Conn *conn)
{
	if (conn->lost_error[0] != '\0')
		return;
	strlcpy(conn->lost_error, PQerrorMessage(conn->pg), sizeof(conn->lost_error));
	conn->lost_error[strcspn(conn->lost_error, "\n")] = '\0';
}

/*
 * The connection broke.  A request whose statement was not wholly handed over
 * has not run (the Sync that commits it comes last), and goes back to the
 * queue; any other may have run, and its session is told so.
 */
void
conn_lost(Conn *conn)
{
	Pool	   *pool = conn->pool;
	Request    *req;

	note_error(conn);
	while ((req = take_head(conn)) != NULL)
	{
		if (conn->state == CONN_CHECKING || (!conn->flushed && !req->put))
			pool_requeue(req);
		else
		{
			count_request(conn, req, true);
			request_fail(req, "08007",
						 psprintf("connection of pool \"%s\" was lost while a statement ran",
								  NameStr(pool->options.server)),
						 psprintf("%s\nThe statement had been sent: it may or may not have run.",
								  conn->lost_error),
						 NULL);
		}
	}
	ereport(LOG,
			(errmsg("dbpool lost a connection of pool \"%s\": %s",
					NameStr(pool->options.server), conn->lost_error)));
	if (conn->shared->statements == 0)
		pool_back_off(pool);
	conn_close(conn, "it was lost");
	pool_dispatch(pool);
}

/* The parameters of a request as libpq wants them. */
static const char **
request_params(Request *req)
{
	RequestSlot *slot = req->slot;
	const char **values = palloc(sizeof(char *) * Max(slot->nparams, 1));
	const char *at = req->params;

	for (int i = 0; i < slot->nparams; i++)
	{
		int32		len;

		memcpy(&len, at, sizeof(len));
		at += sizeof(len);
		values[i] = len < 0 ? NULL : at;
		if (len >= 0)
			at += len + 1;
	}
	return values;
}

static bool
send_request(Conn *conn, Request *req)
{
	switch (req->slot->kind)
	{
		case REQUEST_QUERY:
			if (PQsendQueryParams(conn->pg, req->sql, req->slot->nparams, NULL,
								  request_params(req), NULL, NULL, 0) != 1)
				return false;
			break;
		case REQUEST_SCRIPT:
			if (PQsendQuery(conn->pg, req->sql) != 1)
				return false;
			break;
		default:
			return PQsendQuery(conn->pg, "") == 1;
	}
	return PQsetSingleRowMode(conn->pg) == 1;
}

/* Run a request on an idle connection, or one that has just been checked. */
void
conn_start(Conn *conn, Request *req)
{
	RequestSlot *slot = req->slot;
	Pool	   *pool = conn->pool;

	if (!request_move(slot, REQUEST_QUEUED, REQUEST_RUNNING))
	{
		if (conn->state != CONN_IDLE)
			pool_conn_ready(conn);
		request_gone(req);
		return;
	}
	timer_stop(&req->deadline);
	timer_stop(&conn->deadline);
	req->started_at = GetCurrentTimestamp();
	if (slot->need_password && !conn->used_password)
	{
		request_fail(req, "2F003", "password is required",
					 psprintf("Pool \"%s\": non-superusers cannot use a connection for which the remote server did not ask for a password.",
							  NameStr(pool->options.server)),
					 "Make the remote server's authentication ask for one, or have a superuser set password_required to false in the user mapping.");
		if (conn->state != CONN_IDLE)
			pool_conn_ready(conn);
		return;
	}
	if (slot->sql_len + slot->params_len > BIG_REQUEST_BYTES)
		conn->big = true;
	req->conn = conn;
	dlist_push_tail(&conn->running, &req->node);
	conn->dirty |= slot->taints;
	conn->shape_sent = false;
	conn->flushed = false;
	conn_move(conn, CONN_BUSY);
	conn_show_request(conn, req);
	pg_atomic_write_u32(&slot->sent, 1);
	if (!send_request(conn, req) || !conn_flush(conn))
		conn_lost(conn);
}

/* See whether the connection still works, for a request or just so. */
void
conn_check(Conn *conn, Request *req)
{
	conn_move(conn, CONN_CHECKING);
	if (req != NULL)
	{
		req->conn = conn;
		dlist_push_tail(&conn->running, &req->node);
	}
	conn_set_deadline(conn, CONN_ANSWER_MS);
	conn->flushed = false;
	if (PQsendQuery(conn->pg, "") != 1 || !conn_flush(conn))
		conn_lost(conn);
}

/* The statement has ended. */
static void
statement_ended(Conn *conn)
{
	Request    *req = take_head(conn);
	bool		in_transaction = PQtransactionStatus(conn->pg) != PQTRANS_IDLE;
	const char *setting;

	if (in_transaction && !req->failed)
		request_put_error(req, "25000",
						  psprintf("the statement left a transaction open on pool \"%s\"",
								   NameStr(conn->pool->options.server)),
						  "The transaction was rolled back: a pooled connection belongs to its caller for one call only.",
						  "Put BEGIN, the statements and COMMIT into one string for dbpool_exec().");
	else if (!req->failed && req->rows > 0 &&
			 (setting = session_text_changed(conn)) != NULL)
		request_put_error(req, "0A000",
						  psprintf("the statement changed \"%s\" on pool \"%s\"",
								   setting, NameStr(conn->pool->options.server)),
						  "The values it returned cannot be trusted. What it did on the remote server stays.",
						  "Settings that the text of values depends on are dbpool's to make.");
	else if (!req->failed && !req->answered)
		request_put_error(req, "08P01",
						  psprintf("the remote server of pool \"%s\" broke the protocol",
								   NameStr(conn->pool->options.server)),
						  "It ended the statement without a result. The statement may or may not have run.",
						  NULL);
	count_request(conn, req, req->failed);
	conn->used_at = req->started_at + req->remote_us;
	conn->worked_at = conn->used_at;
	request_end(req);
	conn_settle(conn);
}

/* All results of what was sent have been read. */
static void
all_read(Conn *conn)
{
	Request    *req;

	if (conn->last_words || conn->broken || PQstatus(conn->pg) == CONNECTION_BAD)
	{
		conn_lost(conn);
		return;
	}
	switch (conn->state)
	{
		case CONN_BUSY:
			statement_ended(conn);
			break;
		case CONN_CHECKING:
			timer_stop(&conn->deadline);
			pool_works(conn->pool);
			conn->used_at = GetCurrentTimestamp();
			req = take_head(conn);
			if (req == NULL)
				pool_conn_ready(conn);
			else if (conn->generation != conn->pool->generation)
			{
				request_stale(req);
				pool_conn_ready(conn);
			}
			else
				conn_start(conn, req);
			break;
		case CONN_CANCELLING:
			conn->drained = true;
			conn_after_cancel(conn);
			break;
		case CONN_RESETTING:
			timer_stop(&conn->deadline);
			conn->dirty = false;
			conn->used_at = GetCurrentTimestamp();
			pool_conn_ready(conn);
			break;
		default:
			break;
	}
}

/* COPY needs a connection that its session can talk to; ours cannot. */
static void
refuse_copy(Conn *conn, ExecStatusType status)
{
	Request    *req;

	if (status == PGRES_COPY_IN)
	{
		/* the remote ends the statement with an error of its own */
		PQputCopyEnd(conn->pg, "dbpool passes no COPY data");
		conn_flush(conn);
		return;
	}
	req = take_head(conn);
	request_put_error(req, "0A000",
					  psprintf("COPY TO STDOUT is not possible through pool \"%s\"",
							   NameStr(conn->pool->options.server)),
					  "The statement was given up. What it had already completed on the remote server stays.",
					  "Use a query instead.");
	count_request(conn, req, true);
	request_end(req);
	conn_cancel(conn);
}

/* The remote reports an error. */
static void
error_result(Conn *conn, Request *req, PGresult *res)
{
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	if (severity != NULL &&
		(strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
	{
		conn->last_words = true;
		snprintf(conn->lost_error, sizeof(conn->lost_error),
				 "The remote server said: %s: %s (SQLSTATE %s)", severity,
				 PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY),
				 sqlstate ? sqlstate : "unknown");
	}
	else if (PQstatus(conn->pg) != CONNECTION_BAD)
	{
		if (req != NULL)
			reply_error(req, res, FRAME_ERROR);
		else if (conn->state == CONN_RESETTING)
		{
			ereport(LOG,
					(errmsg("dbpool could not reset a connection of pool \"%s\": %s",
							NameStr(conn->pool->options.server),
							PQresultErrorMessage(res))));
			conn_close(conn, "it could not be reset");
		}
	}
}

/* A statement that was given up turns out to be a COPY; false: more will come. */
static bool
drain_copy(Conn *conn, ExecStatusType status)
{
	char	   *data = NULL;
	int			len;

	if (status == PGRES_COPY_IN)
	{
		refuse_copy(conn, status);
		return true;
	}
	while ((len = PQgetCopyData(conn->pg, &data, 1)) > 0)
		PQfreemem(data);
	return len != 0;
}

/*
 * One result of libpq; this takes it over.  Returns false when libpq will give
 * it again, and more has to be read from the socket first.
 */
static bool
one_result(Conn *conn, PGresult *res)
{
	Request    *req = conn->state == CONN_BUSY ? conn_head(conn) : NULL;
	ExecStatusType status = PQresultStatus(res);
	bool		more = true;

	switch (status)
	{
		case PGRES_SINGLE_TUPLE:
		case PGRES_TUPLES_OK:
		case PGRES_COMMAND_OK:
		case PGRES_EMPTY_QUERY:
			if (req == NULL)
				break;
			if (!session_tag_is_clean(PQcmdStatus(res)))
				conn->dirty = true;
			if (req->slot->kind == REQUEST_QUERY && status != PGRES_EMPTY_QUERY &&
				status != PGRES_COMMAND_OK)
			{
				if (!conn->shape_sent)
					reply_shape(req, res);
				conn->shape_sent = true;
				if (status == PGRES_SINGLE_TUPLE)
				{
					reply_rows(conn, res);
					return true;
				}
			}
			if (status != PGRES_SINGLE_TUPLE)
			{
				req->answered = true;
				reply_tag(req, res);
			}
			break;
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
			if (req != NULL)
				refuse_copy(conn, status);
			else
				more = drain_copy(conn, status);
			break;
		case PGRES_FATAL_ERROR:
			error_result(conn, req, res);
			break;
		default:
			PQclear(res);
			conn_close(conn, "the remote sent something unexpected");
			return true;
	}
	PQclear(res);
	return more;
}

/* Handle what libpq has read, as far as the backend keeps up. */
static void
read_results(Conn *conn)
{
	while (conn->state != CONN_CLOSED && conn->state != CONN_IDLE)
	{
		Request    *req = conn->state == CONN_BUSY ? conn_head(conn) : NULL;
		PGresult   *res;

		if (req != NULL && !reply_pump(conn, req))
		{
			/* the backend is slow: let the remote wait */
			conn_want(conn, WL_SOCKET_CLOSED);
			return;
		}
		if (PQisBusy(conn->pg))
			break;
		res = PQgetResult(conn->pg);
		if (res == NULL)
		{
			all_read(conn);
			return;
		}
		if (!one_result(conn, res))
			break;
	}
	if (conn->state == CONN_CLOSED)
		return;
	/* out of step with the remote, libpq gives up a socket by itself */
	if (conn->broken || PQsocket(conn->pg) == PGINVALID_SOCKET)
		conn_lost(conn);
	else
		conn_want(conn, WL_SOCKET_READABLE | (conn->flushed ? 0 : WL_SOCKET_WRITEABLE));
}

/* An idle connection has something to say: a notice, a setting, or the end. */
static void
idle_event(Conn *conn)
{
	PGresult   *res;

	while (!PQisBusy(conn->pg) && (res = PQgetResult(conn->pg)) != NULL)
		PQclear(res);
	if (PQstatus(conn->pg) == CONNECTION_BAD ||
		PQsocket(conn->pg) == PGINVALID_SOCKET)
		conn_lost(conn);
}

/* Read what the socket has, and see what it is. */
static void
read_socket(Conn *conn)
{
	PGnotify   *notify;

	if (PQconsumeInput(conn->pg) != 1)
	{
		note_error(conn);
		conn->broken = true;
		/* what came before the end is still to be read */
		if (conn->state == CONN_IDLE)
			conn_lost(conn);
		else
			read_results(conn);
		return;
	}
	while ((notify = PQnotifies(conn->pg)) != NULL)
		PQfreemem(notify);
	if (conn->state == CONN_IDLE)
		idle_event(conn);
	else
		read_results(conn);
}

/*
 * TLS may hold bytes that it has read and libpq has not asked for: the socket
 * will not tell of them.
 */
static void
read_hidden(Conn *conn)
{
	while (conn->tls && conn->state != CONN_CLOSED && !conn->broken &&
		   !(conn->wants & WL_SOCKET_CLOSED) && compat_hidden_input(conn->pg))
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
}

/* The backend has made room in the ring. */
void
conn_pump(Conn *conn)
{
	if (conn->state != CONN_BUSY)
		return;
	read_results(conn);
	read_hidden(conn);
}
