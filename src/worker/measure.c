/*
 * measure.c
 *	  How long requests take, and where: what ipc/stats.h has of a pool.
 */
#include "postgres.h"

#include "ipc/endpoint.h"
#include "worker/worker.h"

Ticks		turn_started_at;

/* Count a time, for the pool and the endpoint at which it was spent, or ENDPOINT_NONE. */
void
measure(const Pool *pool, int endpoint, LatencyKind kind, int64 us)
{
	histogram_record(&stats_of(pool->index)->latency[kind], us);
	if (endpoint != ENDPOINT_NONE)
		endpoint_measure(endpoint, kind, us);
}

/* Take so much of what is left, if there is so much. */
static uint64
take(int64 *left, int64 us)
{
	int64		taken = Max(Min(us, *left), 0);

	*left -= taken;
	return (uint64) taken;
}

/*
 * Split the time of a request that was sent: us before now the remote had begun with it,
 * as far as is known.
 */
static void
split_run(const Request *req, Ticks now, int64 us, TimeSplit *split)
{
	int64		left = now - req->started_at;
	int64		behind = left - us;

	split->decode_us = take(&left, req->blocked_us);
	/* the turn began since there was something to read */
	split->worker_us += take(&left, Min(us, now - turn_started_at));
	split->wire_us = take(&left, (int64) req->pool->rtt_us);
	/* as long as others' statements ran before it, it was on its way as well */
	split->queue_us += take(&left, behind - (int64) split->wire_us);
	split->remote_us = (uint64) left;
}

/*
 * Count the request, which has ended, where its statement is.  One that nobody waits for any
 * more has not come to a good end.
 */
static void
count_statement(const Request *req, Ticks now)
{
	StatementCall call = {.n = 1,.errors = req->failed || !req->has_outcome,.rows = req->counted};
	const Flight *flight = req->flight;

	if (req->task.statement.serial == 0)
		return;
	if (req->task.kind == REQUEST_BATCH)
	{
		call.n = Max(req->items_ok + req->items_failed, 1);
		call.errors = Max(req->items_failed, call.errors);
	}
	call.repeats = req->repeats + req->tries - 1;
	call.us = now - req->arrived_at;
	call.prepared = flight != NULL && flight->reused;
	call.shared = flight != NULL && request_can_ride(req);
	call.at = now;
	call.local_queryid = req->task.local_queryid;
	call.traceparent = req->task.traceparent;
	call.split = req->split;
	statement_count(&req->task.statement, &call);
}

/*
 * A request has come to its end: count the times that it took, and say where they went.
 * us is how long ago the remote had begun with it, or -1 if it was not sent.  False when
 * it has been counted, or never came to a pool.
 */
bool
request_measure(Request *req, Ticks now, int64 us)
{
	TimeSplit  *split = &req->split;
	Ticks		sent = us >= 0 ? req->started_at : now;
	int			endpoint = us >= 0 ? req->endpoint : ENDPOINT_NONE;

	if (req->measured || req->pool == NULL)
		return false;
	req->measured = true;
	if (req->blocked_since != 0)
		req->blocked_us += now - req->blocked_since;
	req->blocked_since = 0;
	req->ended_at = now;

	memset(split, 0, sizeof(TimeSplit));
	split->calls = 1;
	split->worker_us = req->received_at - req->arrived_at;
	if (req->waits || us < 0)
		split->queue_us = sent - req->received_at;
	else
		split->worker_us += sent - req->received_at;
	if (us >= 0)
		split_run(req, now, us, split);

	measure(req->pool, endpoint, LATENCY_QUEUE, (int64) split->queue_us);
	measure(req->pool, endpoint, LATENCY_TOTAL, now - req->arrived_at);
	if (us >= 0)
		measure(req->pool, endpoint, LATENCY_EXECUTION, us);
	if (!request_is_split(req))
		memset(split, 0, sizeof(TimeSplit));
	count_statement(req, now);
	return true;
}

/*
 * The same for one that ends in another way than by the end of its flight.  Throws
 * nothing.
 */
void
request_measure_end(Request *req)
{
	Ticks		now;
	PoolShared *shared;

	if (req->measured || req->pool == NULL)
		return;
	now = ticks_now();
	if (!request_measure(req, now, req->runs ? now - req->started_at : -1))
		return;
	shared = req->pool->shared;
	SpinLockAcquire(&shared->mutex);
	split_add(&shared->counters.split, &req->split);
	minute_piece(shared->counters.minute, now)->errors += req->failed;
	shared->counters.unserved += req->failed;
	SpinLockRelease(&shared->mutex);
}

/* Its session has no room for more of the answer, or has some again. */
void
request_measure_blocked(Request *req, bool blocked)
{
	if (blocked && req->blocked_since == 0)
		req->blocked_since = ticks_now();
	else if (!blocked && req->blocked_since != 0)
	{
		req->blocked_us += ticks_now() - req->blocked_since;
		req->blocked_since = 0;
	}
}
