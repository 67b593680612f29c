/*
 * wire_reply.c
 *	  What libpq received becomes frames for the backend (ipc/message.h).
 *
 * Values pass as they came; nothing here looks into them.
 * Rows are written straight into the ring.  When it is full, the connection
 * keeps the libpq result and the place in it, and goes on from there.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "pq/error_fields.h"
#include "worker/connection.h"

/*
 * What a session does not take of a statement that holds up others is kept up to
 * this.  It is more than the kernel usually has of a connection's answers.
 */
#define KEPT_MOST_BYTES (4 * 1024 * 1024)

static void
put_frame(Request *req, StringInfo frame, int start)
{
	message_end_frame(frame, start);
	request_put(req, frame->data, frame->len);
	pfree(frame->data);
}

/* Tell the shape of a result. */
void
reply_shape(Request *req, PGresult *res)
{
	StringInfoData frame;
	int			start;
	uint32		n = (uint32) PQnfields(res);
	int32		format = PQbinaryTuples(res);

	initStringInfo(&frame);
	start = message_begin_frame(&frame, FRAME_SHAPE);
	message_put(&frame, &n, sizeof(n));
	message_put(&frame, &format, sizeof(format));
	for (int i = 0; i < (int) n; i++)
	{
		uint32		type = PQftype(res, i);
		int32		typmod = PQfmod(res, i);

		message_put(&frame, &type, sizeof(type));
		message_put(&frame, &typmod, sizeof(typmod));
		message_put_string(&frame, PQfname(res, i));
	}
	put_frame(req, &frame, start);
}

static void
put_tag(Request *req, uint64 count, const char *tag)
{
	StringInfoData frame;
	int			start;

	initStringInfo(&frame);
	start = message_begin_frame(&frame, FRAME_TAG);
	message_put(&frame, &count, sizeof(count));
	message_put_string(&frame, tag);
	put_frame(req, &frame, start);
	/* where the last one is what is wanted, those before it are dbpool's own */
	if (req->task.kind == REQUEST_COPY || req->task.lease_ends)
		req->counted = 0;
	req->counted += count;
}

/* Tell how a statement ended. */
void
reply_tag(Request *req, PGresult *res)
{
	put_tag(req, strtoull(PQcmdTuples(res), NULL, 10), PQcmdStatus(res));
}

/* Tell how many rows statements counted, of which there is no result any more. */
void
reply_count(Request *req, uint64 count, const char *tag)
{
	put_tag(req, count, tag);
}

/* What is to be said of an error of the remote's besides; NULL: nothing. */
static const char *
told_besides(const Request *req, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *tries = retry_told(req);
	const char *degraded;

	if (req->conn == NULL || !req->conn->session.degraded || sqlstate == NULL || strcmp(sqlstate, "25006") != 0)
		return tries;
	degraded = pool_degraded_told(req->pool);
	return tries != NULL ? psprintf("%s\n%s", degraded, tries) : degraded;
}

/* Pass on an error or a notice with all its fields, each cut if it is very long. */
void
reply_error(Request *req, const PGresult *res, char type)
{
	StringInfoData frame;
	int			start;

	initStringInfo(&frame);
	start = message_begin_frame(&frame, type);
	error_fields_put(&frame, res, req->task.encoding);
	error_field_put(&frame, 'P', PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION),
					req->task.encoding);
	error_field_put(&frame, 'r', told_besides(req, res), req->task.encoding);
	appendStringInfoChar(&frame, '\0');
	put_frame(req, &frame, start);
	if (type == FRAME_ERROR)
		req->failed = true;
	else
		req->answer->wake(req);
}

/*
 * Pass on what can be seen of an error that is too large for libpq; false when
 * that does not say what went wrong.
 */
bool
reply_large_error(Request *req, const WireMessage *message)
{
	StringInfoData frame;
	int			start;
	Size		len;
	bool		cut;

	if (wire_field(message, 'C', &len, &cut) == NULL ||
		wire_field(message, 'M', &len, &cut) == NULL)
		return false;
	initStringInfo(&frame);
	start = message_begin_frame(&frame, FRAME_ERROR);
	error_fields_put_seen(&frame, message, req->task.encoding);
	error_field_put(&frame, 'r', retry_told(req), req->task.encoding);
	appendStringInfoChar(&frame, '\0');
	put_frame(req, &frame, start);
	req->failed = true;
	return true;
}

/* A result's rows are to be sent; takes over the result. */
void
reply_rows(Conn *conn, PGresult *res)
{
	Assert(conn->rows.result == NULL && conn_head_request(conn) != NULL);
	conn->rows.result = res;
	conn->rows.row = 0;
	conn->rows.piece = 0;
	conn->rows.piece_off = 0;
}

/*
 * The rows that wait are of no interest any more.  If one of them is half put,
 * its session cannot be told anything more, see request_break().
 */
void
reply_drop_rows(Conn *conn)
{
	Request    *req = conn_head_request(conn);

	if (conn->rows.result == NULL)
		return;
	if (req != NULL && (conn->rows.piece > 0 || conn->rows.piece_off > 0))
		req->cut = true;
	PQclear(conn->rows.result);
	conn->rows.result = NULL;
}

/* Bytes of a row's frame, without the header. */
static Size
row_bytes(const PGresult *res, int row, int ncols)
{
	Size		len = 0;

	for (int col = 0; col < ncols; col++)
	{
		int			value = PQgetlength(res, row, col);

		len += sizeof(int32);
		if (value > 0 || !PQgetisnull(res, row, col))
			len += value + 1;
	}
	return len;
}

/*
 * A row's frame is a sequence of pieces: the header, then per column its
 * length and its bytes.  Give piece number n; numbers is room for one that is
 * made up here.
 */
static const void *
row_piece(const PGresult *res, int row, int piece, int ncols, void *numbers,
		  Size *len)
{
	int			col = (piece - 1) / 2;

	if (piece == 0)
	{
		FrameHeader *header = numbers;

		header->type = FRAME_ROW;
		header->length = (uint32) row_bytes(res, row, ncols);
		*len = sizeof(FrameHeader);
		return header;
	}
	if (piece % 2 == 1)
	{
		int32	   *length = numbers;

		*length = PQgetisnull(res, row, col) ? -1 : PQgetlength(res, row, col);
		*len = sizeof(int32);
		return length;
	}
	*len = PQgetisnull(res, row, col) ? 0 : PQgetlength(res, row, col) + 1;
	return PQgetvalue(res, row, col);
}

/* Write a row for which there is room, all at once. */
static void
put_whole_row(const PGresult *res, int row, int ncols, Size bytes, RingWriter *writer)
{
	FrameHeader header = {FRAME_ROW, (uint32) bytes};

	ring_write(writer, &header, sizeof(header));
	for (int col = 0; col < ncols; col++)
	{
		int32		len = PQgetlength(res, row, col);

		if (len == 0 && PQgetisnull(res, row, col))
			len = -1;
		ring_write(writer, &len, sizeof(len));
		if (len >= 0)
			ring_write(writer, PQgetvalue(res, row, col), len + 1);
	}
}

/* The current row is through. */
static void
count_row(Conn *conn, Request *req, Size bytes)
{
	if (bytes > WIRE_ROW_LARGE)
		conn->io.big = true;
	req->bytes += bytes;
	req->rows++;
	conn->rows.row++;
	conn->rows.piece = 0;
}

/* Write the rest of the current row; false when the ring is full. */
static bool
put_row_piecewise(Conn *conn, RingWriter *writer, int ncols)
{
	while (conn->rows.piece < 1 + 2 * ncols)
	{
		FrameHeader numbers;
		Size		len;
		const char *data = row_piece(conn->rows.result, conn->rows.row, conn->rows.piece, ncols,
									 &numbers, &len);

		conn->rows.piece_off += ring_write(writer, data + conn->rows.piece_off,
										   len - conn->rows.piece_off);
		if (conn->rows.piece_off < len)
			return false;
		conn->rows.piece++;
		conn->rows.piece_off = 0;
	}
	return true;
}

/*
 * The session does not keep up, and others wait behind: what there is no room
 * for is kept.  Returns false when that would be too much.
 */
static bool
keep_rows(Conn *conn, Request *req)
{
	int			ncols = PQnfields(conn->rows.result);

	while (conn->rows.row < PQntuples(conn->rows.result))
	{
		Size		bytes = row_bytes(conn->rows.result, conn->rows.row, ncols);

		if (answer_kept_bytes(req) + bytes > KEPT_MOST_BYTES)
			return false;
		for (; conn->rows.piece < 1 + 2 * ncols; conn->rows.piece++)
		{
			FrameHeader numbers;
			Size		len;
			const char *data = row_piece(conn->rows.result, conn->rows.row, conn->rows.piece, ncols,
										 &numbers, &len);

			request_put(req, data + conn->rows.piece_off, len - conn->rows.piece_off);
			conn->rows.piece_off = 0;
		}
		count_row(conn, req, bytes);
	}
	reply_drop_rows(conn);
	return true;
}

/*
 * Send as much as there is room for of the frames and rows that wait.  Returns
 * true when nothing waits on the connection and more may be read from the
 * remote.
 */
bool
reply_pump(Conn *conn, Request *req)
{
	bool		keep = conn_head(conn)->stalled;
	int			ncols;

	if (!request_flush(req) && (!keep || answer_kept_bytes(req) > KEPT_MOST_BYTES))
		return false;
	if (conn->rows.result == NULL)
		return true;
	if (answer_kept_bytes(req) > 0)
		return keep_rows(conn, req);
	ncols = PQnfields(conn->rows.result);
	for (;;)
	{
		AnswerRoom	room;

		answer_open(req, &room);
		while (conn->rows.row < PQntuples(conn->rows.result))
		{
			Size		bytes = row_bytes(conn->rows.result, conn->rows.row, ncols);

			if (conn->rows.piece == 0 && conn->rows.piece_off == 0 &&
				sizeof(FrameHeader) + bytes <= ring_room(&room.writer))
				put_whole_row(conn->rows.result, conn->rows.row, ncols, bytes, &room.writer);
			else if (!put_row_piecewise(conn, &room.writer, ncols))
				break;
			count_row(conn, req, bytes);
		}
		answer_shut(req, &room);
		if (conn->rows.row == PQntuples(conn->rows.result))
			break;
		if (answer_is_full(req))
			return keep && keep_rows(conn, req);
	}
	reply_drop_rows(conn);
	return true;
}
