/*
 * wire_io.c
 *	  libpq's connection: its state, its buffers, its socket.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "storage/fd.h"

#include "compat.h"
#include "worker/connection.h"

/*
 * Change what the connection's socket is waited for.  libpq closes it by itself
 * when it breaks, while results may still have to be read.
 */
void
conn_want(Conn *conn, uint32 wants)
{
	pgsocket	sock = PQsocket(conn->io.pg);

	if (sock == conn->io.poll.sock)
		poll_want(&conn->io.poll, wants);
	else
		poll_socket(&conn->io.poll, sock, sock == PGINVALID_SOCKET ? 0 : wants);
}

/*
 * Hand what libpq has to the kernel; wait for room there if need be.
 *
 * When the connection is broken, libpq throws away what it has, and says that it was
 * sent, so that its user goes on to read the remote's last words.  The kernel's word is
 * left in errno then, without TLS.
 */
bool
conn_flush(Conn *conn)
{
	int			left;

	errno = 0;
	left = PQflush(conn->io.pg);
	if (left < 0)
		return false;
	if (left == 0 && (errno == EPIPE || errno == ECONNRESET))
		conn->io.unsent = true;
	conn->io.flushed = left == 0 && !conn->io.unsent;
	conn_want(conn, WL_SOCKET_READABLE | (left > 0 ? WL_SOCKET_WRITEABLE : 0));
	return true;
}

/*
 * The remote may read nothing for as long as a statement of a batch waits for a lock, or a
 * row of a COPY: to the kernel that is a time in which it acknowledges nothing.  So there
 * is no limit to that while it lasts.
 */
void
conn_bear_silence(Conn *conn, bool bear)
{
	int			sock = PQsocket(conn->io.pg);

	if (bear)
		conn->io.user_timeout = compat_tcp_user_timeout(sock, 0);
	else if (conn->io.user_timeout > 0)
	{
		(void) compat_tcp_user_timeout(sock, conn->io.user_timeout);
		conn->io.user_timeout = 0;
	}
}

/* Keep libpq's word on why the connection broke, before it has another. */
void
conn_note_error(Conn *conn)
{
	if (conn->loss.error[0] != '\0')
		return;
	strlcpy(conn->loss.error, PQerrorMessage(conn->io.pg), sizeof(conn->loss.error));
	conn->loss.error[strcspn(conn->loss.error, "\n")] = '\0';
}

/* libpq's pipeline mode, on or off; it can be changed when nothing is under way. */
bool
conn_set_pipelined(Conn *conn, bool on)
{
	if (conn->io.pipelined == on)
		return true;
	if ((on ? PQenterPipelineMode(conn->io.pg) : PQexitPipelineMode(conn->io.pg)) != 1)
		return false;
	conn->io.pipelined = on;
	return true;
}

/* Send statements of our own on a connection that does nothing else. */
bool
conn_send_simple(Conn *conn, const char *sql)
{
	Assert(conn->flights.n == 0);
	conn->io.flushed = false;
	conn->asked_at = ticks_now();
	return conn_set_pipelined(conn, false) &&
		PQsendQuery(conn->io.pg, sql) == 1 && conn_flush(conn);
}

/* Is the remote session in a transaction, failed or not? */
bool
conn_in_transaction(const Conn *conn)
{
	return PQtransactionStatus(conn->io.pg) != PQTRANS_IDLE;
}

/* Is it in one that has not failed so far? */
bool
conn_transaction_works(const Conn *conn)
{
	return PQtransactionStatus(conn->io.pg) == PQTRANS_INTRANS;
}

/* Or in one that has, and with nothing under way? */
bool
conn_transaction_failed(const Conn *conn)
{
	return PQtransactionStatus(conn->io.pg) == PQTRANS_INERROR;
}

/* Has libpq given the connection up?  What it has read may still be taken. */
bool
conn_is_bad(const Conn *conn)
{
	return PQstatus(conn->io.pg) == CONNECTION_BAD;
}

/* A setting as the remote last reported it, or NULL when it does not report that. */
const char *
conn_setting(const Conn *conn, const char *name)
{
	return PQparameterStatus(conn->io.pg, name);
}

/* Is the server a primary or a standby, by its last word?  From 14 on it tells. */
EndpointRole
conn_role(const Conn *conn)
{
	const char *standby = PQparameterStatus(conn->io.pg, "in_hot_standby");

	return standby == NULL ? ENDPOINT_ROLE_UNKNOWN :
		strcmp(standby, "on") == 0 ? ENDPOINT_STANDBY : ENDPOINT_PRIMARY;
}

static bool
reports_on(const Conn *conn, const char *name)
{
	const char *value = PQparameterStatus(conn->io.pg, name);

	return value != NULL && strcmp(value, "on") == 0;
}

/*
 * Is the server what the pool wants, as it was when libpq let it pass?  By its last word: a
 * standby may have been promoted since, a primary have been fenced off.  From 14 on it tells.
 * A standby that serves in place of a primary suits as long as there is none.
 */
bool
conn_suits(const Conn *conn)
{
	bool		standby = reports_on(conn, "in_hot_standby");

	if (conn->session.degraded)
		return (conn->state == CONN_CONNECTING || conn->pool->degraded_since != 0) && conn_role(conn) != ENDPOINT_PRIMARY;
	if (conn_role(conn) == ENDPOINT_ROLE_UNKNOWN)
		return true;
	switch (conn->pool->wanted)
	{
		case WANTED_READ_WRITE:
			return !standby && !reports_on(conn, "default_transaction_read_only");
		case WANTED_READ_ONLY:
			return standby || reports_on(conn, "default_transaction_read_only");
		case WANTED_PRIMARY:
			return !standby;
		case WANTED_STANDBY:
			return standby;
		default:
			return true;
	}
}

/*
 * Does the remote say of a session that is to be read-only that it is not?  Servers before
 * 14 say nothing.
 */
bool
session_is_writable(Conn *conn)
{
	const char *read_only = conn->pool->options.read_only || conn->session.degraded ?
	conn_setting(conn, "default_transaction_read_only") : NULL;

	return read_only != NULL && strcmp(read_only, "on") != 0;
}

/* The remote process, as it said. */
int
conn_remote_pid(const Conn *conn)
{
	return PQbackendPID(conn->io.pg);
}

/*
 * End libpq's connection, if there is one.  Does not wait: PQsetnonblocking() was
 * called, or it is not logged in.
 */
void
conn_hang_up(Conn *conn)
{
	if (conn->io.pg == NULL)
		return;
	PQfinish(conn->io.pg);
	conn->io.pg = NULL;
	ReleaseExternalFD();
}
