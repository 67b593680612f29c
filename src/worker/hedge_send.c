/*
 * hedge_send.c
 *	  When a copy of a read is sent, and where to; what becomes of it stands in hedge.c.
 */
#include "postgres.h"

#include "worker/balance.h"
#include "worker/hedge.h"
#include "worker/replay.h"

/* With no copies left a read would have to take so many times as long as the percentile. */
#define HEDGE_LONG		8

/* When the request has taken long enough, as many copies as there are. */
static Ticks
long_enough_at(const Request *req)
{
	const Pool *pool = req->pool;
	double		times = 1 + (HEDGE_LONG - 1) * (1 - (double) pool->hedge_tokens / HEDGE_TOKENS_MOST);

	return req->started_at + (int64) (req->statement->late_us * times);
}

/* An idle connection at another endpoint than the request's, rather one that is not slow. */
static Conn *
find_other(const Request *req, Ticks now)
{
	Pool	   *pool = req->pool;
	Conn	   *best = NULL;
	double		least = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_IDLE])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);
		double		slow;

		if (conn->endpoint.at == ENDPOINT_NONE || conn->endpoint.at == req->conn->endpoint.at ||
			conn->session.home_pid != 0 || !conn_is_current(conn) ||
			endpoint_shared(conn->endpoint.at)->state == ENDPOINT_OPEN ||
			replay_verdict(conn, req, now) != REPLAY_SUITS)
			continue;
		slow = balance_slow(pool, conn->endpoint.at, now);
		if (best != NULL && slow >= least)
			continue;
		best = conn;
		least = slow;
	}
	return best;
}

/* A request that is watched has taken longer than most of its text. */
void
hedge_due(void *owner)
{
	Request    *req = owner;
	Pool	   *pool = req->pool;
	Ticks		now = ticks_now();
	Conn	   *conn = NULL;

	Assert(req->hedge.watched && req->flight != NULL && req->hedge.flight == NULL);
	/* another run of the text has shown meanwhile what it does */
	if (!statement_is_plain(req->statement))
	{
		hedge_end(req);
		return;
	}
	if (now < long_enough_at(req))
	{
		timer_set(&req->hedge.due, long_enough_at(req));
		return;
	}
	if (pool->hedge_tokens >= HEDGE_COST && pool->nwaiting == 0 && !pool->paused && !pool->disabled)
		conn = find_other(req, now);
	if (conn == NULL)
	{
		/* when it has taken twice as long */
		timer_set(&req->hedge.due, now + (now - req->started_at));
		return;
	}
	pool->hedge_tokens -= HEDGE_COST;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.hedged++;
	SpinLockRelease(&pool->shared->mutex);
	conn_start_copy(conn, req);
}

/* A recovery, see work.h: a copy that could not be sent is not missed. */
void
hedge_recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
}
