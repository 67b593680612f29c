/*
 * large.c
 *	  Requests that do not fit into "up": how much of them a worker holds.
 *
 * A large request is put together in this process, and stays here until it has
 * been answered, as it may have to be sent again; libpq copies it once more while
 * it runs.  So that no role fills the worker with statements that wait, all large
 * ones of a role that are here have dbpool.role_max_request_memory bytes together;
 * one by itself may be of any size.  A batch counts with its largest statement, if
 * that does not fit into "up": it is put together in its turn (wire_batch.c).
 *
 * One for which there is no room is held.  It stays as its session has submitted it:
 * SUBMITTED, its beginning in "up", the rest in the session, which waits for room
 * in "up"; and no pool knows it.  What may become of it:
 *	 - Room: another of its role is released, or is held no more.  All that are held
 *	   are looked at again, and of one role the one that came first is taken.
 *	 - Its session gives up: ABANDONED, and freed at the next look, as of any
 *	   request that is not active.
 *	 - acquire_timeout, by the definition at the beginning of "up": it is taken
 *	   (RECEIVING), and fails.
 *	 - The definition changes: that is seen when it is taken.
 *	 - The worker ends: requests_release_all() tells its session, which then sees
 *	   that nothing was sent.  A new worker knows nothing of it.
 * Only this worker frees an ABANDONED slot, so that held is never of another
 * request than the slot's.
 *
 * Nothing here throws or allocates.
 */
#include "postgres.h"

#include "worker/worker.h"

/* Look again at all that are held. */
static void
look_again(void)
{
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		if (requests[i].held)
			request_attention(requests[i].slot, my_worker);
	}
}

/* May a request that has been submitted be taken into this process? */
bool
large_has_room(const Request *req)
{
	const RequestSlot *slot = req->slot;
	int64		bytes = 0;

	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		const Request *other = &requests[i];

		if (other == req || !(other->held || other->large_bytes > 0) ||
			other->slot->task.roleid != slot->task.roleid)
			continue;
		if (other->large_bytes > 0)
			bytes += other->large_bytes;
		else if (other->slot->task.ticket < slot->task.ticket)
			return false;
	}
	return bytes == 0 ||
		bytes + task_large_bytes(&slot->task) <= dbpool_role_max_request_memory * INT64CONST(1024);
}

/* There is no room for it now. */
void
large_hold(Request *req)
{
	PoolOptions options;

	if (req->held)
		return;
	req->held = true;
	memcpy(&options, request_up(req->slot)->data, sizeof(options));
	timer_set(&req->deadline, ticks_plus_ms(ticks_now(), options.acquire_timeout));
}

/* It is held no more, whatever has become of it. */
void
large_unhold(Request *req)
{
	if (!req->held)
		return;
	req->held = false;
	timer_stop(&req->deadline);
	look_again();
}

/* What was put together of it is of no use any more. */
void
large_release(Request *req)
{
	if (req->large_bytes == 0)
		return;
	req->large_bytes = 0;
	if (req->large != NULL)
		pfree(req->large);
	req->large = NULL;
	look_again();
}
