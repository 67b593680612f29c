/*
 * request.c
 *	  The worker's side of requests; the protocol stands in ipc/request.h.
 *
 * For each slot the worker has a Request.  It is active from the moment the
 * worker has taken the slot until it has given it back (DONE) or freed it
 * (ABANDONED), and is released before either, since the slot may have a new
 * owner at once.
 *
 * Ending a request neither throws nor needs memory, as recoveries do it: where
 * there is no room for its last frames, it ends without an END frame, which
 * tells the backend that something broke.  What puts something in the middle of
 * an answer may throw.
 */
#include "postgres.h"

#include <signal.h>

#include "ipc/message.h"
#include "ipc/request.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/worker.h"

/* Longest error of the worker's own; what is longer is cut. */
#define ERROR_MOST_BYTES	32768

/* One for each slot. */
Request    *requests;

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
	large_release(req);
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

/* Make room for so many more bytes that wait; false when there is no memory. */
static bool
make_room(StringInfo out, Size len)
{
	Size		needed = out->len + len;
	Size		size = Max(out->maxlen, 1024);
	char	   *data;

	if (out->data != NULL && needed <= out->maxlen)
		return true;
	while (size < needed)
		size *= 2;
	size = Min(size, MaxAllocSize);
	if (size < needed)
		return false;
	data = MemoryContextAllocExtended(worker_context, size, MCXT_ALLOC_NO_OOM);
	if (data == NULL)
		return false;
	if (out->data != NULL)
	{
		memcpy(data, out->data, out->len);
		pfree(out->data);
	}
	out->data = data;
	out->maxlen = (int) size;
	return true;
}

/*
 * Put a frame, or a part of one, on its way to the backend.  Returns false when
 * there is no memory for it: then nothing more can be put.
 */
static bool
try_put(Request *req, const void *data, Size len)
{
	RingWriter	writer;
	Size		written = 0;

	if (req->cut)
		return false;
	req->put = true;
	if (req->out.len == 0)
	{
		ring_write_begin(&writer, request_down(req->slot));
		written = ring_write(&writer, data, len);
		ring_write_end(&writer);
	}
	if (written == len)
		return true;
	if (!make_room(&req->out, len - written))
	{
		req->cut = true;
		return false;
	}
	memcpy(req->out.data + req->out.len, (const char *) data + written, len - written);
	req->out.len += (int) (len - written);
	return true;
}

/* The same for what is in the middle of an answer; throws. */
void
request_put(Request *req, const void *data, Size len)
{
	if (!try_put(req, data, len))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed on an answer of %zu bytes that its session does not read.",
						   len)));
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
	int32		workers = req->pool != NULL ? pool_spread(req->pool) : 1;
	FrameHeader header = {FRAME_END, sizeof(req->remote_us) + sizeof(workers)};
	char		frame[sizeof(header) + sizeof(req->remote_us) + sizeof(workers)];

	memcpy(frame, &header, sizeof(header));
	memcpy(frame + sizeof(header), &req->remote_us, sizeof(req->remote_us));
	memcpy(frame + sizeof(header) + sizeof(req->remote_us), &workers, sizeof(workers));
	if (!try_put(req, frame, sizeof(frame)))
	{
		request_break(req);
		return;
	}
	req->ending = true;
	req->conn = NULL;
	timer_stop(&req->deadline);
	/* it may outlive its pool, until the backend has read all */
	drop_statement(req);
	request_flush(req);
}

/*
 * Add a field of ErrorFields, or as much as there is room for, to a frame of
 * len bytes; returns its new length.
 */
static Size
add_field(char *frame, Size len, char field, const char *str)
{
	Size		most = len + 3 < ERROR_MOST_BYTES ? ERROR_MOST_BYTES - len - 3 : 0;
	Size		n = str != NULL && most > 0 ? strnlen(str, most + 1) : 0;

	if (n == 0)
		return len;
	if (n > most)
	{
		/* not within a character of UTF-8 */
		for (n = most; n > 0 && (str[n] & 0xC0) == 0x80; n--)
			;
	}
	frame[len++] = field;
	memcpy(frame + len, str, n);
	frame[len + n] = '\0';
	return len + n + 1;
}

/*
 * An error that the worker itself has to tell.  Where there is no memory for it,
 * the request will end without an END frame.
 */
void
request_put_error(Request *req, const char *sqlstate, const char *message,
				  const char *detail, const char *hint)
{
	static char frame[ERROR_MOST_BYTES];
	FrameHeader header = {FRAME_ERROR, 0};
	Size		len = sizeof(header);

	len = add_field(frame, len, 'C', sqlstate);
	len = add_field(frame, len, 'M', message);
	len = add_field(frame, len, 'H', hint);
	len = add_field(frame, len, 'D', detail);
	frame[len++] = '\0';
	header.length = (uint32) (len - sizeof(header));
	memcpy(frame, &header, sizeof(header));
	(void) try_put(req, frame, len);
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

	(void) try_put(req, &header, sizeof(header));
	request_end(req);
}

/*
 * The statement runs again: what was sent of its answer is void.  Returns false
 * when there is no memory to say so, and the request has ended.
 */
bool
request_restart(Request *req)
{
	FrameHeader header = {FRAME_RESTART, 0};

	if (req->put && !try_put(req, &header, sizeof(header)))
	{
		request_break(req);
		return false;
	}
	req->put = false;
	req->answered = false;
	req->failed = false;
	req->rows = 0;
	req->bytes = 0;
	return true;
}

/* The backend has gone, and everybody who knew the request knows it: free it. */
void
request_gone(Request *req)
{
	RequestSlot *slot = req->slot;

	request_release(req);
	request_free_abandoned(slot, req->hold);
}

/*
 * The backend has gone, but waits for the end of the flight: the slot is freed
 * by request_let_go().
 */
void
request_keep(Request *req)
{
	request_release(req);
	req->kept = true;
}

void
request_let_go(Request *req)
{
	req->kept = false;
	request_free_abandoned(req->slot, req->hold);
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

/* Take a request that was submitted; false when its session has been faster. */
static bool
take_slot(Request *req, uint64 hold)
{
	RequestSlot *slot = req->slot;

	if (!request_move(slot, hold, REQUEST_SUBMITTED, REQUEST_RECEIVING))
		return false;
	large_unhold(req);
	req->hold = hold;
	shmem_worker(my_worker)->requests++;
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
	req->cut = false;
	req->queued = false;
	req->suspected = 0;
	req->out.len = 0;
	req->out.cursor = 0;
	return true;
}

static void
request_start(Request *req, uint64 hold)
{
	RequestSlot *slot = req->slot;
	Size		total = request_total(slot);

	if (total > REQUEST_UP_SIZE && !large_has_room(req))
	{
		large_hold(req);
		return;
	}
	if (!take_slot(req, hold))
		return;
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

/* Others of its role have had the room all the time. */
void
request_held_too_long(Request *req)
{
	uint64		hold = request_word_hold(request_word(req->slot));
	PoolOptions options;

	large_unhold(req);
	if (!take_slot(req, hold))
		return;
	memcpy(&options, request_up(req->slot)->data, sizeof(options));
	request_fail(req, "53400",
				 psprintf("could not take a large statement for pool \"%s\" within %g s",
						  NameStr(options.server), options.acquire_timeout / 1000.0),
				 psprintf("It has %zu bytes, and other large ones of the same role take the %d kB that dbpool.role_max_request_memory allows. The statement was not run.",
						  request_total(req->slot), dbpool_role_max_request_memory),
				 "See dbpool_requests for what they are waiting for. A superuser can raise dbpool.role_max_request_memory; rows in bulk are better sent by dbpool_bulk_insert().");
}

static void
pump_piece(void *conn)
{
	conn_pump(conn);
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
		if (state != REQUEST_SUBMITTED)
			large_unhold(req);
		if (state == REQUEST_SUBMITTED)
			request_start(req, request_word_hold(word));
		else if (state == REQUEST_ABANDONED && !req->kept)
			request_free_abandoned(slot, request_word_hold(word));
	}
	else if (state == REQUEST_ABANDONED)
		request_abandoned(req);
	else if (state == REQUEST_RECEIVING)
		request_receive(req);
	else if (req->ending)
		request_flush(req);
	else if (req->conn != NULL)
		(void) work_guard(pump_piece, req->conn, conn_recover, req->conn);
	else
		request_flush(req);
}

/*
 * A recovery, see work.h.  One that has been sent is its connection's, whose
 * work has a guard of its own; what failed was something else then, and nobody
 * knows how far it has come.
 */
void
request_recover(void *owner, int sqlerrcode)
{
	Request    *req = owner;

	if (!req->active || req->ending)
		return;
	if (req->flight != NULL)
	{
		conn_recover(req->conn, sqlerrcode);
		return;
	}
	if (req->queued)
		pool_leave_queue(req);
	else if (req->conn != NULL)
		req->conn->waiter = NULL;
	request_fail(req, work_error_state(sqlerrcode), work_error_text(sqlerrcode),
				 "The statement was not run.", "The server's log has the error.");
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
			(void) work_guard(request_look, &index, request_recover, &requests[index]);
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

		/*
		 * However this process ends: what runs in this server must not go on
		 * by the locks that its session releases when it is told
		 */
		if ((state == REQUEST_RUNNING || state == REQUEST_ABANDONED) && slot->home_pid != 0)
			(void) home_signal(slot->home_pid, slot->home_role, SIGTERM);
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
