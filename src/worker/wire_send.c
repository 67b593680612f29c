/*
 * wire_send.c
 *	  What is put into libpq's output buffer.  conn_flush() hands that to the kernel.
 *
 * Each returns false when libpq could not, and has the reason: conn_note_error().
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "worker/connection.h"

/* A statement with its parameters, as text. */
bool
wire_send_query(Conn *conn, const char *sql, int nparams, const char *const *values)
{
	return PQsendQueryParams(conn->io.pg, sql, nparams, NULL, values, NULL, NULL, 0) == 1;
}

/* The prelude of a request in a pipeline, before its own statement. */
bool
wire_send_prelude(Conn *conn, Request *req)
{
	const char *end = req->prelude + req->task.prelude_len;

	Assert(conn->io.pipelined);
	for (const char *sql = req->prelude; sql < end; sql += strlen(sql) + 1)
	{
		if (!wire_send_query(conn, sql, 0, NULL))
			return false;
		req->flight->prelude++;
	}
	return true;
}

/* One statement or several, without parameters, as one message. */
bool
wire_send_script(Conn *conn, const char *sql)
{
	return PQsendQuery(conn->io.pg, sql) == 1;
}

/* What was sent alone is to give its rows one by one. */
bool
wire_rows_one_by_one(Conn *conn)
{
	return PQsetSingleRowMode(conn->io.pg) == 1;
}

/* The Parse of a statement under a name. */
bool
wire_send_prepare(Conn *conn, const char *name, const char *sql)
{
	Assert(conn->io.pipelined);
	return PQsendPrepare(conn->io.pg, name, sql, 0, NULL) == 1;
}

/* Run what was prepared under that name; binary: the result is to be. */
bool
wire_send_prepared(Conn *conn, const char *name, int nparams, const char *const *values,
				   bool binary)
{
	Assert(conn->io.pipelined);
	return PQsendQueryPrepared(conn->io.pg, name, nparams, values, NULL, NULL, binary) == 1;
}

/* Have the remote forget what was prepared under that name. */
bool
wire_send_close(Conn *conn, const char *name)
{
	Assert(conn->io.pipelined);
	return compat_send_close_prepared(conn->io.pg, name) == 1;
}

/* What was sent since the last one is a transaction. */
bool
wire_send_sync(Conn *conn)
{
	Assert(conn->io.pipelined);
	return compat_send_sync(conn->io.pg) == 1;
}

/* The answers to what was sent are wanted before the next Sync. */
bool
wire_send_flush(Conn *conn)
{
	Assert(conn->io.pipelined);
	return PQsendFlushRequest(conn->io.pg) == 1;
}
