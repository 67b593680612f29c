/*
 * wire_copy.c
 *	  The rows of a COPY ... FROM STDIN, on their way from a backend's ring to
 *	  the remote; steps 2, 4 and 5 of "Rows that the backend sends" in
 *	  ipc/request.h.
 *
 * What is under way in the worker is bounded: libpq is given more only while
 * the socket has room, so that it holds what did not fit of one piece.  Then
 * the ring fills, and the backend waits.
 *
 * The remote may refuse a row at any time.  libpq does not tell: while it is
 * to be given rows it takes notices only, and leaves an error unread until it
 * is told that the rows have ended.  So a look is taken at what has come before
 * libpq reads it.  If an error should escape that look, nothing is lost but
 * time: it is found after the last row.
 */
#include "postgres.h"

#include <poll.h>

#include <libpq-fe.h>

#include "compat.h"
#include "worker/connection.h"

/* Bytes that one connection may send before others have their turn. */
#define COPY_TURN_BYTES	(256 * 1024)

/* Bytes that libpq is given at a time; a socket that has room takes as many. */
#define COPY_PIECE_BYTES	(16 * 1024)

/* As much as libpq reads at a time. */
#define COPY_LOOK_BYTES	(16 * 1024)

/* The session is asked for the rows of a request, of so many columns. */
void
copy_ask(Request *req, uint32 columns)
{
	RequestSlot *slot = req->slot;
	FrameHeader header = {FRAME_COPY, sizeof(uint32)};

	Assert(req->copy == COPY_WAITING);
	/* a request that came in one piece still lies in the ring */
	if (req->large == NULL)
		ring_skip(request_up(slot), task_bytes(&req->task));
	req->definition = NULL;
	req->sql = NULL;
	req->params = NULL;
	req->types = NULL;
	req->copy = COPY_COPYING;
	request_put(req, &header, sizeof(header));
	request_put(req, &columns, sizeof(columns));
	request_wake_backend(slot);
}

/*
 * Is there an error of the remote in what has come?  Errors and notices have
 * their severity in a field that is never translated, and fields end with a
 * zero, which no text can contain.
 */
static bool
error_has_come(Conn *conn)
{
	static const char marks[][9] = {"\0VERROR", "\0VFATAL", "\0VPANIC"};
	char		buf[COPY_LOOK_BYTES];
	ssize_t		n = compat_peek_input(conn->io.pg, buf, sizeof(buf));

	for (int i = 0; n > 0 && i < lengthof(marks); i++)
	{
		if (memmem(buf, n, marks[i], 1 + strlen(marks[i] + 1) + 1) != NULL)
			return true;
	}
	return false;
}

/* No more rows will be sent: libpq is to read what the remote has to say. */
void
copy_stop(Conn *conn, Request *req)
{
	req->copy = COPY_ENDED;
	/* the remote ignores this when it has failed, and else fails by it */
	if (PQputCopyEnd(conn->io.pg, "dbpool sends no more rows") != 1 ||
		!conn_flush(conn))
	{
		conn_note_error(conn);
		conn->loss.broken = true;
	}
}

/* Before libpq reads from the socket. */
void
copy_look(Conn *conn)
{
	if (conn_copies(conn) && error_has_come(conn))
		copy_stop(conn, conn_head_request(conn));
}

/* All rows are with libpq: end the COPY, which commits it. */
static void
end_rows(Conn *conn, Request *req)
{
	req->copy = COPY_ENDED;
	pg_atomic_write_u32(&req->slot->sent, 1);
	conn->io.flushed = false;
	if (PQputCopyEnd(conn->io.pg, NULL) != 1 || !conn_flush(conn))
	{
		conn_note_error(conn);
		conn->loss.broken = true;
	}
}

/* What the socket is ready for, at this moment. */
static int
socket_ready(Conn *conn)
{
	struct pollfd fd = {PQsocket(conn->io.pg), POLLIN | POLLOUT, 0};

	if (fd.fd < 0 || poll(&fd, 1, 0) < 0)
		return 0;
	return fd.revents;
}

/* Go on when the socket has room. */
static void
wait_for_room(Conn *conn)
{
	conn->io.flushed = false;
	conn_want(conn, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE);
}

/*
 * Pass on the rows that lie in the ring.  Returns true when there is nothing
 * more to send, and the answer may be read.
 */
bool
copy_send(Conn *conn)
{
	Request    *req = conn_head_request(conn);
	RequestSlot *slot = req->slot;
	Ring	   *up = request_up(slot);
	Size		sent = 0;

	Assert(conn_copies(conn));
	while (req->copy == COPY_COPYING)
	{
		uint32		phase = pg_atomic_read_u32(&slot->copy_phase);
		int			ready;
		const char *data;
		Size		len;

		if (conn->loss.broken || PQstatus(conn->io.pg) == CONNECTION_BAD)
		{
			conn_note_error(conn);
			copy_stop(conn, req);
			break;
		}
		compat_injection_point("dbpool-phase-before-rows");
		/* in this order: send_rows() writes ENDED after the last row */
		pg_read_barrier();
		data = ring_peek(up, &len);
		if (len == 0 && phase != COPY_ENDED)
		{
			conn_want(conn, WL_SOCKET_READABLE);
			return false;
		}
		ready = socket_ready(conn);
		if (((ready & ~POLLOUT) || compat_hidden_input(conn->io.pg)) &&
			error_has_come(conn))
		{
			copy_stop(conn, req);
			break;
		}
		if (!(ready & POLLOUT) || sent >= COPY_TURN_BYTES)
		{
			wait_for_room(conn);
			return false;
		}
		if (len == 0)
		{
			end_rows(conn, req);
			break;
		}
		len = Min(len, COPY_PIECE_BYTES);
		if (PQputCopyData(conn->io.pg, data, (int) len) != 1)
		{
			conn_note_error(conn);
			conn->loss.broken = true;
			continue;
		}
		ring_skip(up, len);
		sent += len;
		req->copied += len;
		if (ring_end_wait(up))
			request_wake_backend(slot);
	}
	return true;
}

/* Has the end of its rows been sent, which commits them? */
bool
copy_has_ended(const Request *req)
{
	return pg_atomic_read_u32(&req->slot->sent) != 0;
}
