/*
 * request.c
 *	  The worker's side of requests; the protocol stands in ipc/request.h.
 *
 * For each slot the worker has a Request.  It is active from the moment the
 * worker has taken the slot until it has given it back (DONE) or freed it
 * (ABANDONED), and is released before either, since the slot may have a new
 * owner at once.
 */
#include "postgres.h"

#include "ipc/message.h"
#include "ipc/request.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/worker.h"

static Request *requests;

/*
 * Processes whose requests are done.  They are woken a little later, all at
 * once: each wakes on this processor if need be, and would take it from us.
 */
static int *to_wake;
static int	nto_wake;

/* What is known of its text is of no interest any more. */
static void
drop_statement(Request *req)
{
	if (req->statement != NULL)
		req->statement->refs--;
	req->statement = NULL;
}

/* Forget all about a request; its slot is about to change hands. */
static void
request_release(Request *req)
{
	timer_stop(&req->deadline);
	drop_statement(req);
	if (req->large != NULL)
		pfree(req->large);
	req->large = NULL;
	if (req->out.maxlen > REQUEST_DOWN_SIZE)
	{
		pfree(req->out.data);
		req->out.data = NULL;
		req->out.maxlen = 0;
	}
	req->active = false;
	req->pool = NULL;
	req->conn = NULL;
	req->flight = NULL;
}

/* Put a frame, or a part of one, on its way to the backend. */
void
request_put(Request *req, const void *data, Size len)
{
	RingWriter	writer;
	Size		written = 0;

	req->put = true;
	if (req->out.len == 0)
	{
		ring_write_begin(&writer, request_down(req->slot));
		written = ring_write(&writer, data, len);
		ring_write_end(&writer);
	}
	if (written < len)
		message_put(&req->out, (const char *) data + written, len - written);
}

static void
request_done(Request *req)
{
	RequestSlot *slot = req->slot;
	RequestState state = request_state(req);
	int			procno = slot->procno;

	request_release(req);
	if (state == REQUEST_ABANDONED || !request_move(slot, req->hold, state, REQUEST_DONE))
		request_free_abandoned(slot, req->hold);
	else
		to_wake[nto_wake++] = procno;
	if (nto_wake == dbpool_shared->nrequests)
		requests_wake();
}

/* Wake those whose requests are done. */
void
requests_wake(void)
{
	for (int i = 0; i < nto_wake; i++)
		SetLatch(compat_proc_latch(to_wake[i]));
	nto_wake = 0;
}

/*
 * End a request of which a frame is only half written: without an END frame,
 * the backend knows that something broke.
 */
void
request_break(Request *req)
{
	request_done(req);
}

/*
 * Move what had no room into the ring.  Returns true when nothing is left;
 * then a request that has ended is done, and must not be touched any more.
 */
bool
request_flush(Request *req)
{
	Ring	   *down = request_down(req->slot);

	while (req->out.len > 0)
	{
		RingWriter	writer;
		Size		written;

		ring_write_begin(&writer, down);
		written = ring_write(&writer, req->out.data + req->out.cursor,
							 req->out.len - req->out.cursor);
		ring_write_end(&writer);
		req->out.cursor += (int) written;
		if (req->out.cursor == req->out.len)
			resetStringInfo(&req->out);
		request_wake_backend(req->slot);
		if (req->out.len > 0 && ring_writer_waits(down))
			return false;
	}
	if (req->ending)
		request_done(req);
	return true;
}

/* The last of a request: an END frame, and the slot is the backend's again. */
void
request_end(Request *req)
{
	StringInfoData frame;
	int32		workers = req->pool != NULL ? pool_spread(req->pool) : 1;
	int			start;

	initStringInfo(&frame);
	start = message_begin_frame(&frame, FRAME_END);
	message_put(&frame, &req->remote_us, sizeof(req->remote_us));
	message_put(&frame, &workers, sizeof(workers));
	message_end_frame(&frame, start);
	request_put(req, frame.data, frame.len);
	pfree(frame.data);
	req->ending = true;
	req->conn = NULL;
	timer_stop(&req->deadline);
	/* it may outlive its pool, until the backend has read all */
	drop_statement(req);
	request_flush(req);
}

/* An error that the worker itself has to tell. */
void
request_put_error(Request *req, const char *sqlstate, const char *message,
				  const char *detail, const char *hint)
{
	StringInfoData frame;
	int			start;

	initStringInfo(&frame);
	start = message_begin_frame(&frame, FRAME_ERROR);
	message_put_field(&frame, 'C', sqlstate);
	message_put_field(&frame, 'M', message);
	message_put_field(&frame, 'D', detail);
	message_put_field(&frame, 'H', hint);
	appendStringInfoChar(&frame, '\0');
	message_end_frame(&frame, start);
	request_put(req, frame.data, frame.len);
	pfree(frame.data);
	req->failed = true;
}

/* An error that ends the request. */
void
request_fail(Request *req, const char *sqlstate, const char *message,
			 const char *detail, const char *hint)
{
	request_put_error(req, sqlstate, message, detail, hint);
	request_end(req);
}

/* The backend is to look up the definition and ask again. */
void
request_stale(Request *req)
{
	FrameHeader header = {FRAME_STALE, 0};

	request_put(req, &header, sizeof(header));
	request_end(req);
}

/* The statement runs again: what was sent of its answer is void. */
void
request_restart(Request *req)
{
	FrameHeader header = {FRAME_RESTART, 0};

	if (req->put)
		request_put(req, &header, sizeof(header));
	req->put = false;
	req->answered = false;
	req->failed = false;
	req->rows = 0;
	req->bytes = 0;
}

/* The backend has gone, and everybody who knew the request knows it: free it. */
void
request_gone(Request *req)
{
	RequestSlot *slot = req->slot;

	request_release(req);
	request_free_abandoned(slot, req->hold);
}

/* All of the request is here: find its pool. */
static void
request_received(Request *req, const char *bytes)
{
	RequestSlot *slot = req->slot;

	req->definition = bytes;
	req->sql = bytes + slot->definition_len;
	req->params = req->sql + slot->sql_len;
	req->types = req->params + slot->params_len;
	req->queued_at = ticks_now();
	if (!request_move(slot, req->hold, REQUEST_RECEIVING, REQUEST_QUEUED))
		request_gone(req);
	else
		pool_submit(req);
}

/* Take more of a request that is larger than the ring. */
static void
request_receive(Request *req)
{
	RequestSlot *slot = req->slot;
	Ring	   *up = request_up(slot);
	Size		total = request_total(slot);

	req->received += ring_read(up, req->large + req->received,
							   total - req->received);
	if (ring_should_wake_writer(up))
		request_wake_backend(slot);
	if (req->received == total)
		request_received(req, req->large);
}

static void
request_start(Request *req, uint64 hold)
{
	RequestSlot *slot = req->slot;
	Size		total;

	if (!request_move(slot, hold, REQUEST_SUBMITTED, REQUEST_RECEIVING))
		return;
	req->hold = hold;
	shmem_worker(my_worker)->requests++;
	total = request_total(slot);
	req->active = true;
	req->ending = false;
	req->failed = false;
	req->attempts = 0;
	req->repeats = 0;
	req->flight = NULL;
	req->statement = NULL;
	req->rides = false;
	req->pool = NULL;
	req->conn = NULL;
	req->started_at = 0;
	req->remote_us = 0;
	req->large = NULL;
	req->received = 0;
	req->rows = 0;
	req->bytes = 0;
	req->copied = 0;
	req->copy = COPY_WAITING;
	req->answered = false;
	req->put = false;
	req->queued = false;
	if (req->out.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(worker_context);

		initStringInfo(&req->out);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&req->out);

	if (total <= REQUEST_UP_SIZE)
	{
		/* a fresh ring: the parts lie at its start, in one piece */
		request_received(req, request_up(slot)->data);
		return;
	}
	req->large = MemoryContextAllocExtended(worker_context, total,
											MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (req->large == NULL)
		request_fail(req, "53200", "out of memory in the dbpool worker",
					 psprintf("The request is %zu bytes long.", total), NULL);
	else
		request_receive(req);
}

/* The backend has given up. */
static void
request_abandoned(Request *req)
{
	if (req->pool == NULL || req->ending)
		request_gone(req);
	else
		pool_waiter_left(req);
}

static void
request_look(void *arg)
{
	int			index = *(int *) arg;
	Request    *req = &requests[index];
	RequestSlot *slot = request_slot(index);
	uint64		word = request_word(slot);
	RequestState state = request_word_state(word);

	if (request_word_worker(word) != my_worker)
		return;
	Assert(!req->active || request_word_hold(word) == req->hold);
	if (!req->active)
	{
		if (state == REQUEST_SUBMITTED)
			request_start(req, request_word_hold(word));
		else if (state == REQUEST_ABANDONED)
			request_free_abandoned(slot, request_word_hold(word));
	}
	else if (state == REQUEST_ABANDONED)
		request_abandoned(req);
	else if (state == REQUEST_RECEIVING)
		request_receive(req);
	else if (req->ending)
		request_flush(req);
	else if (req->conn != NULL)
		conn_pump(req->conn);
	else
		request_flush(req);
}

/* An error came up while a request was looked at: its backend must hear of it. */
static void
request_rescue(Request *req)
{
	if (!req->active || req->ending)
		return;
	if (req->conn != NULL)
		conn_close(req->conn, "of an internal error");
	else
	{
		if (req->queued)
			pool_leave_queue(req);
		request_fail(req, "XX000", "internal error in the dbpool worker",
					 "The statement was not run.", "The server's log has the error.");
	}
}

/*
 * Look at the requests that want attention, in the order of their slots; where
 * they have to wait, it is in the order of their tickets.
 */
void
requests_take(void)
{
	for (int word = 0; word < request_attention_words(); word++)
	{
		uint64		bits = request_take_attention(my_worker, word);

		while (bits != 0)
		{
			int			bit = pg_rightmost_one_pos64(bits);

			int			index = word * 64 + bit;

			bits &= bits - 1;
			if (!loop_guard(request_look, &index, NULL))
				request_rescue(&requests[index]);
		}
	}
}

/* At start: requests may have come before this process did. */
void
requests_init(void)
{
	requests = MemoryContextAllocZero(worker_context,
									  sizeof(Request) * dbpool_shared->nrequests);
	to_wake = MemoryContextAlloc(worker_context,
								 sizeof(int) * dbpool_shared->nrequests);
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		requests[i].slot = request_slot(i);
		janitor_init_request(&requests[i]);
	}
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		uint64		word = request_word(request_slot(i));

		if (request_word_state(word) != REQUEST_FREE && request_word_worker(word) == my_worker)
			request_attention(request_slot(i), my_worker);
	}
}

/* At exit: let go of what a slot may have of this worker. */
static void
release_slot(RequestSlot *slot)
{
	for (;;)
	{
		uint64		word = request_word(slot);
		uint64		hold = request_word_hold(word);
		RequestState state = request_word_state(word);
		int			procno = slot->procno;

		if (request_word_worker(word) != my_worker)
			return;
		switch (state)
		{
			case REQUEST_SUBMITTED:
			case REQUEST_RECEIVING:
			case REQUEST_QUEUED:
			case REQUEST_RUNNING:
				if (!request_move(slot, hold, state, REQUEST_DONE))
					break;
				SetLatch(compat_proc_latch(procno));
				return;
			case REQUEST_ABANDONED:
				request_free_abandoned(slot, hold);
				return;
			default:
				return;
		}
	}
}

/* At exit: let go of every request, see "the worker", step 6. */
void
requests_release_all(void)
{
	requests_wake();
	for (int i = 0; i < dbpool_shared->nrequests; i++)
		release_slot(request_slot(i));
}
