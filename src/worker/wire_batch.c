/*
 * wire_batch.c
 *	  The statements of a batch, on their way from a backend's ring to the remote, and
 *	  the counting of their answers; "Statements that the backend sends" in
 *	  ipc/request.h.
 *
 * Sending and reading take turns, and neither waits: items are given to libpq while the
 * socket takes them and while few enough are unanswered, and answers are read while the
 * session takes what comes of them.  So a remote that does not read, one that
 * does not answer, and a session that does not read each end in the session's
 * waiting for room in "up"; and what is under way here is bounded.
 *
 * A batch is its flight's, as it may outlive its request: one that was given up has
 * still to be brought to its end.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "utils/memutils.h"

#include "compat.h"
#include "worker/batch.h"

/* Bytes that one batch may send before others have their turn. */
#define BATCH_TURN_BYTES	(256 * 1024)

/* Bytes after which libpq hands over what it has. */
#define BATCH_FLUSH_BYTES	(16 * 1024)

/* An item above this makes libpq's buffers so large that they are given up. */
#define BIG_ITEM_BYTES		(16 * 1024 * 1024)

/* The item that was put together is sent, or will not be. */
static void
drop_item(Batch *batch)
{
	if (batch->item != NULL)
		pfree(batch->item);
	batch->item = NULL;
}

/* Begin; the session is asked for its items. */
bool
batch_begin(Conn *conn, Request *req)
{
	Batch	   *batch = req->flight->batch;

	if (!conn_set_pipelined(conn, true))
		return false;
	batch->leased = conn->lease.shared != NULL;
	if (batch->leased)
	{
		if (!wire_send_prelude(conn, req))
			return false;
	}
	else if (batch->flags & BATCH_ONE)
	{
		batch->beginning = true;
		if (!wire_send_query(conn, "BEGIN", 0, NULL))
			return false;
	}
	if ((batch->leased || (batch->flags & BATCH_ONE)) && trace_is_due(conn, req) &&
		!trace_send(conn, req->flight, req))
		return false;
	copy_ask(req, 0);
	return true;
}

/*
 * No more items will be sent: end the pipeline, without COMMIT.  Returns false when the
 * connection is broken.
 */
bool
batch_stop(Conn *conn, Flight *flight)
{
	Batch	   *batch = flight->batch;

	if (batch->ended)
		return true;
	batch->ended = true;
	drop_item(batch);
	if (flight->req != NULL)
		flight->req->copy = COPY_ENDED;
	/* it has not begun: what is under way is no pipeline */
	if (flight->prelude_alone)
		return true;
	conn->io.flushed = false;
	if (wire_send_sync(conn) && conn_flush(conn))
		return true;
	conn_note_error(conn);
	conn->loss.broken = true;
	return false;
}

/* All items are sent: commit. */
static void
finish(Conn *conn, Request *req)
{
	Batch	   *batch = req->flight->batch;

	if (batch->flags & BATCH_ONE)
	{
		pg_atomic_write_u32(&req->slot->sent, 1);
		conn->io.flushed = false;
	}
	if ((batch->flags & BATCH_ONE) && !batch->leased)
	{
		if (!wire_send_query(conn, "COMMIT", 0, NULL))
		{
			conn_note_error(conn);
			conn->loss.broken = true;
			return;
		}
		batch->committing = true;
	}
	(void) batch_stop(conn, req->flight);
}

/* The size of the item that begins there. */
static Size
item_bytes(const Request *req, const char *at)
{
	BatchItem	header;
	Size		size;

	memcpy(&header, at, sizeof(header));
	size = sizeof(header) + (Size) header.sql_len + header.params_len;
	if (size > req->task.item_most)
		elog(ERROR, "an item of a dbpool batch is larger than it says");
	return size;
}

/* Put together an item that does not lie in the ring in one piece; NULL if more is to come. */
static const char *
gather_item(Batch *batch, const Request *req, Ring *up)
{
	Size		want = sizeof(BatchItem);

	if (batch->item == NULL)
		batch->item = MemoryContextAllocExtended(worker_context, req->task.item_most,
												 MCXT_ALLOC_HUGE);
	if (batch->gathered < want)
		batch->gathered += ring_read(up, batch->item + batch->gathered,
									 want - batch->gathered);
	if (batch->gathered < want)
		return NULL;
	want = item_bytes(req, batch->item);
	batch->gathered += ring_read(up, batch->item + batch->gathered, want - batch->gathered);
	return batch->gathered < want ? NULL : batch->item;
}

/*
 * The next item, if all of it is here, or NULL.  What is taken from the ring when it is
 * done with goes into *skip.
 */
static const char *
next_item(Batch *batch, const Request *req, Ring *up, Size *skip)
{
	Size		len;
	const char *at = ring_peek(up, &len);

	*skip = 0;
	if (batch->gathered == 0 && len >= sizeof(BatchItem))
	{
		Size		size = item_bytes(req, at);

		if (size <= len)
		{
			*skip = size;
			return at;
		}
	}
	return gather_item(batch, req, up);
}

/* Give an item to libpq. */
static bool
send_item(Conn *conn, Batch *batch, const char *at)
{
	BatchItem	header;
	const char *sql = at + sizeof(header);
	const char **values;
	bool		sent;

	memcpy(&header, at, sizeof(header));
	values = message_params(sql + header.sql_len, header.nparams);
	/* what has no name stays prepared until something else has none */
	if (header.sql_len > 0)
		sent = wire_send_query(conn, sql, header.nparams, values);
	else
		sent = wire_send_prepared(conn, "", header.nparams, values, false);
	pfree(values);
	return sent && ((batch->flags & BATCH_EACH) == 0 || wire_send_sync(conn));
}

/*
 * Without a Sync, the remote may keep answers to itself until it has many: it is asked
 * for them in time, as when the window is full nothing is sent that would drive them out.
 */
static bool
ask_for_answers(Conn *conn, Batch *batch, Size size)
{
	batch->unasked++;
	batch->unasked_bytes += size;
	if ((batch->flags & BATCH_EACH) ||
		(batch->unasked < BATCH_WINDOW / 2 && batch->unasked_bytes < BATCH_WINDOW_BYTES / 2))
		return true;
	batch->unasked = 0;
	batch->unasked_bytes = 0;
	return wire_send_flush(conn);
}

static void
note_sent(Conn *conn, Batch *batch, Request *req, Size size)
{
	BatchSent  *sent = &batch->window[batch->sent % BATCH_WINDOW];

	sent->at = ticks_now();
	sent->bytes = size;
	batch->sent++;
	batch->bytes += size;
	req->copied += size;
	if (size > BIG_ITEM_BYTES)
		conn->io.big = true;
}

/* Send the item that comes next; its size, or 0 if none is here, or it cannot be sent. */
static Size
send_next(Conn *conn, Batch *batch, Request *req)
{
	Ring	   *up = request_up(req->slot);
	Size		skip;
	const char *item = next_item(batch, req, up, &skip);
	Size		size = 0;

	if (item != NULL)
	{
		size = item_bytes(req, item);
		conn->io.flushed = false;
		if (!send_item(conn, batch, item) || !ask_for_answers(conn, batch, size))
		{
			conn_note_error(conn);
			conn->loss.broken = true;
			return 0;
		}
		note_sent(conn, batch, req, size);
		batch->gathered = 0;
		/* it is not to keep the room of a large one until the end */
		if (skip == 0 && size > REQUEST_UP_SIZE)
			drop_item(batch);
	}
	ring_skip(up, skip);
	if (ring_end_wait(up))
		request_wake_backend(req->slot);
	return size;
}

/* Pass on items that lie in the ring, as far as libpq and the remote take them. */
void
batch_send(Conn *conn)
{
	Flight	   *flight = conn_head(conn);
	Batch	   *batch = flight->batch;
	Request    *req = flight->req;
	Size		turn = 0;
	Size		unflushed = 0;

	if (req == NULL || flight->prelude_alone || batch->ended || conn->loss.broken || !conn->io.flushed ||
		batch->sent - batch->done > BATCH_WINDOW / 2 || batch->bytes > BATCH_WINDOW_BYTES / 2)
		return;
	while (batch->sent - batch->done < BATCH_WINDOW && batch->bytes < BATCH_WINDOW_BYTES &&
		   turn < BATCH_TURN_BYTES)
	{
		uint32		phase = pg_atomic_read_u32(&req->slot->copy_phase);
		Size		size;

		/* in this order: the backend writes ENDED after the last item */
		pg_read_barrier();
		size = send_next(conn, batch, req);
		if (conn->loss.broken)
			return;
		if (size == 0)
		{
			if (phase == COPY_ENDED && batch->gathered == 0 && ring_used(request_up(req->slot)) == 0)
			{
				finish(conn, req);
				return;
			}
			break;
		}
		turn += size;
		unflushed += size;
		if (unflushed >= BATCH_FLUSH_BYTES)
		{
			unflushed = 0;
			if (!conn_flush(conn))
				break;
			if (!conn->io.flushed)
				return;
		}
	}
	if (!conn_flush(conn))
	{
		conn_note_error(conn);
		conn->loss.broken = true;
	}
	/* others' turn; no answer need come that would have this one go on */
	else if (turn >= BATCH_TURN_BYTES)
		conn->io.flushed = false;
}

/* All that has come is read: a session that may be waiting for answers is woken. */
void
batch_tell(Conn *conn)
{
	Request    *req = conn_head_request(conn);
	Batch	   *batch = conn_head_batch(conn);

	if (batch->untold && req != NULL)
		req->answer->wake(req);
	batch->untold = false;
}

/* Has all that was sent been answered, with more to come?  Then libpq has nothing. */
bool
batch_rests(const Flight *flight)
{
	const Batch *batch = flight->batch;

	return !batch->ended && !flight->prelude_alone && flight->prelude == 0 && flight->tracing == 0 && !batch->beginning &&
		batch->done == batch->sent;
}

/* An item has its answer: let the window go on.  Returns the microseconds that it took. */
int64
batch_item_done(Batch *batch, Request *req)
{
	BatchSent  *sent = &batch->window[batch->done % BATCH_WINDOW];
	Ticks		now = ticks_now();
	int64		us = now - Max(sent->at, batch->answered_at);

	Assert(batch->done < batch->sent);
	batch->bytes -= sent->bytes;
	batch->done++;
	batch->answered_at = now;
	if (req != NULL)
		pg_atomic_write_u64(&req->slot->items_done, batch->done);
	return us;
}
