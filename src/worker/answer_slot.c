/*
 * answer_slot.c
 *	  Answers for sessions that wait with a slot of shared memory (ipc/request.h).
 */
#include "postgres.h"

#include "compat.h"
#include "worker/connection.h"

/*
 * Processes whose requests are done.  They are woken a little later, all at
 * once: each wakes on this processor if need be, and would take it from us.
 */
static int *to_wake;
static int	nto_wake;

void
answers_init(void)
{
	to_wake = MemoryContextAlloc(worker_context,
								 sizeof(int) * dbpool_shared->nrequests);
}

/* Wake those whose requests are done. */
void
requests_wake(void)
{
	for (int i = 0; i < nto_wake; i++)
		SetLatch(compat_proc_latch(to_wake[i]));
	nto_wake = 0;
}

static Ring *
slot_ring(const Request *req)
{
	return request_down(req->slot);
}

static void
slot_wake(Request *req)
{
	request_wake_backend(req->slot);
}

static bool
slot_started(Request *req, const Conn *conn)
{
	RequestSlot *slot = req->slot;

	slot->home_pid = conn->session.home_pid;
	slot->home_role = conn->session.home_role;
	if (!request_move(slot, req->hold, REQUEST_QUEUED, REQUEST_RUNNING))
		return false;
	SpinLockAcquire(&slot->mutex);
	slot->running_since = req->started_at;
	slot->remote_pid = conn->shared->remote_pid;
	SpinLockRelease(&slot->mutex);
	pg_atomic_write_u32(&slot->sent, !task_commits_last(&req->task));
	/* it waits for something else now, and may have said so */
	if (req->started_at - req->arrived_at >= REQUEST_LONG_MS * 1000)
		slot_wake(req);
	return true;
}

static void
slot_moved(Request *req, const Conn *conn)
{
	SpinLockAcquire(&req->slot->mutex);
	req->slot->remote_pid = conn->shared->remote_pid;
	SpinLockRelease(&req->slot->mutex);
}

static bool
slot_unstarted(Request *req)
{
	pg_atomic_write_u32(&req->slot->sent, 0);
	if (request_state(req) != REQUEST_RUNNING)
		return true;
	if (!request_move(req->slot, req->hold, REQUEST_RUNNING, REQUEST_QUEUED))
		return false;
	slot_wake(req);
	return true;
}

static void
slot_ended(Request *req)
{
	RequestState state = request_state(req);

	if (state == REQUEST_ABANDONED || !request_move(req->slot, req->hold, state, REQUEST_DONE))
		request_free_abandoned(req->slot, req->hold);
	else
		to_wake[nto_wake++] = req->task.procno;
	if (nto_wake == dbpool_shared->nrequests)
		requests_wake();
}

static void
slot_gone(Request *req)
{
	request_free_abandoned(req->slot, req->hold);
}

const Answer answer_slot = {
	.ring = slot_ring,
	.started = slot_started,
	.moved = slot_moved,
	.unstarted = slot_unstarted,
	.wake = slot_wake,
	.ended = slot_ended,
	.gone = slot_gone
};

/*
 * The backend has gone, but waits for the end of the flight: the slot is freed
 * by request_let_go().
 */
void
request_keep(Request *req)
{
	Assert(req->active && !req->queued && req->flight == NULL);
	request_measure_end(req);
	request_release(req);
	req->kept = true;
}

void
request_let_go(Request *req)
{
	Assert(req->kept && !req->active);
	req->kept = false;
	slot_gone(req);
}
