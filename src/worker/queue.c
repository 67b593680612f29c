/*
 * queue.c
 *	  Requests that wait for a connection of their pool.
 *
 * There is a queue for riders, one for loners and one for leases (dispatch.c), each in
 * the order of the tickets.  A request comes into its queue when it finds no connection, when
 * the check of one was for nothing (pool_wait_again()), when its statement is to
 * be sent once more (pool_repeat()), and when it is tried again: then it is in the queue
 * of those for later first (retry.c).
 *
 * Nothing here throws, and nothing but the request and the counts of its pool is
 * touched: who puts a request back marks the pool, and the loop sees to the rest.
 */
#include "postgres.h"

#include "worker/worker.h"

/* The queue that is a request's. */
Queue
request_queue(const Request *req)
{
	if (req->doubt != NULL)
		return QUEUE_DOUBTS;
	if (req->backs_off)
		return QUEUE_LATER;
	if (req->task.lease != LEASE_NONE)
		return QUEUE_LEASES;
	return req->rides ? QUEUE_RIDERS : QUEUE_LONERS;
}

/* The first of those who wait in some of the queues, or NULL; queues is a set of bits. */
Request *
pool_first_of(Pool *pool, int queues)
{
	Request    *first = NULL;

	for (int i = 0; i < QUEUES; i++)
	{
		Request    *req;

		if (!(queues & (1 << i)) || dlist_is_empty(&pool->queues[i]))
			continue;
		req = dlist_head_element(Request, node, &pool->queues[i]);
		if (first == NULL || req->task.ticket < first->task.ticket)
			first = req;
	}
	return first;
}

/* The first of all who wait, or NULL. */
Request *
pool_first_waiter(Pool *pool)
{
	return pool_first_of(pool, ~0);
}

/* Show how many wait, and since when. */
static void
show_waiters(Pool *pool)
{
	Request    *first = pool_first_waiter(pool);

	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->used_at = pool->used_at;
	pool->shared->waiting = pool->nwaiting;
	pool->shared->oldest_wait = first != NULL ? first->queued_at : 0;
	SpinLockRelease(&pool->shared->mutex);
}

/* Put a request into its queue, in the order of the tickets, and mark the pool. */
void
pool_enter_queue(Request *req)
{
	Pool	   *pool = req->pool;
	dlist_head *queue = &pool->queues[request_queue(req)];
	dlist_node *after = &queue->head;

	Assert(!req->queued && req->conn == NULL && req->flight == NULL);
	if (!dlist_is_empty(queue))
	{
		after = dlist_tail_node(queue);
		while (after != &queue->head &&
			   dlist_container(Request, node, after)->task.ticket > req->task.ticket)
			after = after->prev;
	}
	if (after == &queue->head)
		dlist_push_head(queue, &req->node);
	else
		dlist_insert_after(after, &req->node);
	req->queued = true;
	req->waits = true;
	pool->nqueued[request_queue(req)]++;
	pool->nwaiting++;

	/*
	 * from when it came, however often it has been here; what has run has its
	 * time anew
	 */
	if (!req->deadline.armed)
		timer_set(&req->deadline,
				  ticks_plus_ms(req->doubt != NULL ? ticks_now() : req->queued_at,
								pool->options.acquire_timeout));
	show_waiters(pool);
	pool_mark(pool);
}

/* Take a request off the queue. */
void
pool_leave_queue(Request *req)
{
	Pool	   *pool = req->pool;

	Assert(req->queued);
	dlist_delete(&req->node);
	req->queued = false;
	pool->nqueued[request_queue(req)]--;
	pool->nwaiting--;
	req->backs_off = false;
	show_waiters(pool);
	/* a pause may be waiting for it */
	if (req->doubt != NULL)
		pool_mark(pool);
}

/*
 * Back to the queue; false when the session has gone meanwhile, or is sent
 * back for a newer definition.
 */
bool
request_unstart(Request *req)
{
	Pool	   *pool = req->pool;

	Assert(!req->queued && req->conn == NULL && req->flight == NULL);
	/* for its session it runs */
	if (req->doubt != NULL)
		return true;
	req->runs = false;
	if (!req->answer->unstarted(req))
	{
		request_gone(req);
		return false;
	}
	if (pool->definition != NULL && pool->definition_len == req->task.definition_len &&
		memcmp(pool->definition, req->definition, req->task.definition_len) == 0)
		return true;
	if (request_restart(req))
		request_stale(req);
	return false;
}

/* What was done for it is done: it waits again, in its old place. */
void
pool_wait_again(Request *req)
{
	if (request_unstart(req))
		pool_enter_queue(req);
}

/*
 * It was rolled back for no fault of its own, or since it held up others: once
 * more, unseen.  alone: on a connection of its own.
 */
void
pool_repeat(Request *req, bool alone)
{
	Pool	   *pool = req->pool;

	if (!request_unstart(req))
		return;
	if (++req->repeats >= REPEATS_ALONE || alone)
		req->rides = false;
	req->queued_at = ticks_now();
	if (!request_restart(req))
		return;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.repeats++;
	SpinLockRelease(&pool->shared->mutex);
	pool_enter_queue(req);
}

/*
 * Everybody who waits is to look the definition up again.  doubts: also who waits to learn
 * whether he has run, which is in vain then, as the remote may be another one.
 */
void
pool_send_waiters_back(Pool *pool, bool doubts)
{
	Request    *req;

	while ((req = pool_first_of(pool, doubts ? ~0 : ~(1 << QUEUE_DOUBTS))) != NULL)
	{
		pool_leave_queue(req);
		request_stale(req);
	}
}

/*
 * Tell those who wait that they wait in vain.  But for those in doubt, who have nothing
 * to lose by waiting until their time is over, and those whose next try is to come.
 */
void
pool_fail_waiters(Pool *pool, const char *sqlstate, const char *message,
				  const char *detail, const char *hint)
{
	Request    *req;

	while ((req = pool_first_of(pool, ~(1 << QUEUE_DOUBTS | 1 << QUEUE_LATER))) != NULL)
	{
		pool_leave_queue(req);
		request_fail(req, sqlstate, message, detail, hint);
	}
}

/*
 * The same for those who have waited for as long as failover_wait says; the others are
 * looked at again when they have.
 */
void
pool_fail_impatient(Pool *pool, const char *sqlstate, const char *message,
					const char *detail, const char *hint)
{
	Ticks		now = ticks_now();

	for (int i = 0; i < QUEUE_DOUBTS; i++)
	{
		dlist_mutable_iter iter;

		dlist_foreach_modify(iter, &pool->queues[i])
		{
			Request    *req = dlist_container(Request, node, iter.cur);
			Ticks		until = ticks_plus_ms(req->queued_at, pool->options.failover_wait);

			if (now < until)
			{
				timer_set_by(&pool->upkeep, until);
				continue;
			}
			pool_leave_queue(req);
			req->no_remote = strcmp(sqlstate, "08001") == 0;
			request_fail(req, sqlstate, message, detail, hint);
		}
	}
}
