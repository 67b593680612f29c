/*
 * queue_overdue.c
 *	  A request has waited for a connection as long as it may: what its session is told.
 */
#include "postgres.h"

#include "worker/replay.h"
#include "worker/worker.h"

static double
seconds_since(Ticks then, Ticks now)
{
	return (now - then) / 1000000.0;
}

/* Who has connections between statements? */
static void
explain_leases(StringInfo buf, Pool *pool, Ticks now)
{
	Conn	   *longest = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &pool->conns[CONN_LEASED])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (longest == NULL || conn->lease.idle_since < longest->lease.idle_since)
			longest = conn;
	}
	if (longest == NULL)
		return;
	appendStringInfo(buf, ", %d are leased to open transactions: the longest idle one, of process %d, has done nothing for %.1f s",
					 pool->nconns[CONN_LEASED], longest->lease.shared->pid,
					 seconds_since(longest->lease.idle_since, now));
}

/* Has it failed to connect since it last could? */
static bool
has_failed(const Pool *pool)
{
	return pool->failed_at != 0 && pool->failed_at > pool->shared->connected_at;
}

/* What keeps a pool's connections: for the error of one that waited in vain. */
static char *
pool_explain(Pool *pool, Ticks now)
{
	StringInfoData buf;
	dlist_iter	iter;
	Ticks		longest = now;
	Ticks		until;

	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Request    *req = conn_head_request(dlist_container(Conn, node, iter.cur));

		if (req != NULL && req->started_at < longest)
			longest = req->started_at;
	}
	initStringInfo(&buf);
	appendStringInfo(&buf, "%d of at most %d connections are busy",
					 pool->nconns[CONN_BUSY], pool_max(pool));
	if (pool->nconns[CONN_BUSY] > 0)
		appendStringInfo(&buf, ", the longest for %.1f s", seconds_since(longest, now));
	if (pool->nconns[CONN_CONNECTING] > 0)
		appendStringInfo(&buf, ", %d are being opened", pool->nconns[CONN_CONNECTING]);
	if (pool->nconns[CONN_CHECKING] > 0)
		appendStringInfo(&buf, ", %d are being checked", pool->nconns[CONN_CHECKING]);
	if (pool->nconns[CONN_RESETTING] > 0)
		appendStringInfo(&buf, ", %d are being reset", pool->nconns[CONN_RESETTING]);
	if (pool->nconns[CONN_CANCELLING] > 0)
		appendStringInfo(&buf, ", %d are being cancelled", pool->nconns[CONN_CANCELLING]);
	explain_leases(&buf, pool, now);
	appendStringInfo(&buf, "; %d other requests are waiting.", pool->nwaiting);
	if (pool_endpoints_look(pool, now, &until) == ENDPOINT_IS_FULL)
		appendStringInfo(&buf, " To its remote, as many connections are open as dbpool.max_connections_per_endpoint (%d) allows.",
						 dbpool_max_connections_per_endpoint);
	if (pool->paused)
		appendStringInfoString(&buf, " The pool is paused.");
	if (pool->nconns[CONN_CONNECTING] > 0)
	{
		Conn	   *conn = dlist_head_element(Conn, node, &pool->conns[CONN_CONNECTING]);
		const char *host;
		const char *port;

		conn_open_place(conn, &host, &port);
		appendStringInfo(&buf, "\nThe server at \"%.300s\", port %.20s has not let a connection in for %.1f s.",
						 host, port, seconds_since(conn->opened_at, now));
	}
	if (has_failed(pool))
		appendStringInfo(&buf, "\nThe last connect error, %.1f s ago: %s",
						 seconds_since(pool->failed_at, now), pool->error);
	return buf.data;
}

/* A request has waited for a connection as long as it may. */
void
pool_waited_too_long(Request *req)
{
	Pool	   *pool = req->pool;
	Ticks		now = ticks_now();
	Ticks		until;
	bool		full = pool_endpoints_look(pool, now, &until) == ENDPOINT_IS_FULL;
	bool		opened;

	opened = pool_size(pool) > pool->nconns[CONN_CONNECTING];
	/* off the queue, or off the connection that is being checked for it */
	if (req->conn == NULL)
		pool_leave_queue(req);
	else
		req->conn->waiter = NULL;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.timeouts++;
	minute_piece(pool->shared->counters.minute, ticks_now())->timeouts++;
	SpinLockRelease(&pool->shared->mutex);
	if (req->put_off && !pool->paused)
	{
		replay_tell_lsn(req, now);
		return;
	}
	req->no_remote = !opened && !pool->paused && !full;
	request_fail(req, req->no_remote ? "08001" : "53300",
				 psprintf("could not get a connection of pool \"%s\" within %g s",
						  NameStr(pool->options.server),
						  pool->options.acquire_timeout / 1000.0),
				 pool_explain(pool, now),
				 pool->paused ?
				 "dbpool_resume() lets the pool work again." :
				 pool->nconns[CONN_LEASED] > 0 ?
				 "See dbpool_transactions for who has them; the server's options max_size, acquire_timeout and lease_idle_timeout set the limits." :
				 full ?
				 "See dbpool_endpoints for how many are open there, and dbpool_connections for whose they are; max_size of these pools and dbpool.max_connections_per_endpoint set the limits." :
				 opened ?
				 "See dbpool_connections for what the connections are doing; the server's options max_size and acquire_timeout set the limits." :
				 has_failed(pool) ? pool->hint : login_hint_timeout());
}
