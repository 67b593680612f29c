/*
 * intake.c
 *	  Requests come; the protocol stands in ipc/request.h.
 *
 * For each slot the worker has a Request.  It is active from the moment the
 * worker has taken the slot until it has given it back (DONE) or freed it
 * (ABANDONED), and is released before either, since the slot may have a new
 * owner at once.
 */
#include "postgres.h"

#include <signal.h>

#include "ipc/message.h"
#include "ipc/request.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/hedge.h"

/* All of the request is here: find its pool. */
static void
request_received(Request *req, const char *bytes)
{
	RequestSlot *slot = req->slot;

	req->definition = bytes;
	req->sql = bytes + req->task.definition_len;
	req->params = req->sql + req->task.sql_len;
	req->types = req->params + req->task.params_len;
	req->prelude = req->types + req->task.ntypes * sizeof(uint32);
	req->received_at = ticks_now();
	req->queued_at = req->received_at;
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
	Size		total = task_bytes(&req->task);

	req->received += ring_read(up, req->large + req->received,
							   total - req->received);
	if (ring_end_wait(up))
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
	req->task = slot->task;
	req->arrived_at = slot->submitted_at;
	shmem_worker(my_worker)->requests++;
	req->active = true;
	req->ending = false;
	req->failed = false;
	req->backs_off = false;
	req->put_off = false;
	req->retry_refused = false;
	req->no_remote = false;
	req->tries = 1;
	req->repeats = 0;
	req->flight = NULL;
	req->hedge.watched = false;
	req->hedge.flight = NULL;
	req->hedge.conn = NULL;
	req->doubt = NULL;
	req->statement = NULL;
	req->rides = false;
	req->pool = NULL;
	req->conn = NULL;
	req->started_at = 0;
	req->waits = false;
	req->runs = false;
	req->measured = false;
	req->split_told = false;
	req->blocked_since = 0;
	req->blocked_us = 0;
	req->remote_us = 0;
	req->large = NULL;
	req->large_bytes = 0;
	req->received = 0;
	req->rows = 0;
	req->counted = 0;
	req->bytes = 0;
	req->copied = 0;
	req->items_ok = 0;
	req->items_failed = 0;
	req->copy = COPY_WAITING;
	req->has_outcome = false;
	req->put = false;
	req->cut = false;
	req->called_off = false;
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
	Size		total = task_bytes(&slot->task);

	if (task_large_bytes(&slot->task) > 0 && !large_has_room(req))
	{
		large_hold(req);
		return;
	}
	if (!take_slot(req, hold))
		return;
	req->large_bytes = task_large_bytes(&req->task);
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
static void
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
						  task_large_bytes(&req->task), dbpool_role_max_request_memory),
				 "See dbpool_requests for what they are waiting for. A superuser can raise dbpool.role_max_request_memory; rows in bulk are better sent by dbpool_bulk_insert().");
}

/* It has waited as long as it may, or as it was to. */
static void
request_deadline(void *arg)
{
	Request    *req = arg;

	if (req->held)
		request_held_too_long(req);
	else if (req->backs_off)
		retry_now(req);
	else
		pool_waited_too_long(req);
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
	FAULT_POINT("a look at a request");
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
	else if (pg_atomic_read_u32(&slot->called_off) != 0 && !req->called_off)
	{
		req->called_off = true;
		pool_call_off(req);
	}
	else if (req->conn != NULL)
		(void) work_guard(pump_piece, req->conn, conn_recover, req->conn);
	else
		request_flush(req);
}

/*
 * A recovery, see work.h.  The bit that asked for the look is gone, so that nobody would
 * look again: a request that was not taken is taken, so as to be told.
 */
static void
intake_recover(void *owner, int sqlerrcode)
{
	Request    *req = owner;
	uint64		word = request_word(req->slot);
	RequestState state = request_word_state(word);

	if (request_word_worker(word) != my_worker)
		return;
	if (!req->active && state == REQUEST_ABANDONED && !req->kept)
		request_free_abandoned(req->slot, request_word_hold(word));
	/* else its session has been faster, and has asked for another look */
	else if (!req->active && (state != REQUEST_SUBMITTED || !take_slot(req, request_word_hold(word))))
		return;
	else if (req->ending)
		request_attention(req->slot, my_worker);
	else
		request_recover(req, sqlerrcode);
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
			(void) work_guard(request_look, &index, intake_recover, &requests[index]);
		}
	}
}

/* At start: requests may have come before this process did. */
void
requests_init(void)
{
	requests = MemoryContextAllocZero(worker_context,
									  sizeof(Request) * dbpool_shared->nrequests);
	answers_init();
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		requests[i].answer = &answer_slot;
		requests[i].slot = request_slot(i);
		requests[i].shown = request_slot(i)->sql;
		timer_init(&requests[i].deadline, request_deadline, request_recover,
				   &requests[i]);
		timer_init(&requests[i].hedge.due, hedge_due, hedge_recover, &requests[i]);
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
		int			procno = slot->task.procno;

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
