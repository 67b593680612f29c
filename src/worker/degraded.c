/*
 * degraded.c
 *	  read_only_when_degraded: a standby serves a pool's reads while no primary can be had.
 *
 *	 1. A connection is opened as always: each place is tried for a server that suits
 *		target_session_attrs.  When none does, and somebody who waits has done so for as
 *		long as failover_wait says, all are tried once more for a standby.
 *	 2. Such a connection is marked (session.degraded), and its session is read-only, as those
 *		of read-only pools are.  With it the pool is degraded: further connections are opened
 *		at standbys right away.  A write that is refused is told why (pool_degraded_told()).
 *		Who wants to know what became of a write before does not ask a standby.
 *	 3. Meanwhile a primary is sought: one connection at a time is tried as in 1, without the
 *		second round.  It belongs to nobody, and may be one more than max_size.  What
 *		probes an endpoint whose breaker is open finds out just as well.
 *	 4. When a connection to a primary has been opened, the pool is not degraded any more: those
 *		at standbys are closed as they come free.  So is one whose server says that it is a primary
 *		now.  Nor is the pool degraded when the last of them is gone for other reasons.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "worker/endpoints.h"
#include "worker/worker.h"

/* Milliseconds between two attempts to find a primary, more or less: of a pool that is used. */
#define SEEK_MS			1000
#define SEEK_UNUSED_MS	15000

/* Has somebody waited for a primary for as long as he is to? */
static bool
is_impatient(Pool *pool, Ticks now)
{
	for (int i = 0; i < QUEUE_DOUBTS; i++)
	{
		Request    *req;

		if (dlist_is_empty(&pool->queues[i]))
			continue;
		req = dlist_head_element(Request, node, &pool->queues[i]);
		if (now >= ticks_plus_ms(req->queued_at, pool->options.failover_wait))
			return true;
	}
	return false;
}

/* May connections to standbys be opened? */
bool
pool_may_degrade(Pool *pool)
{
	return pool->options.read_only_when_degraded && pool_wants_primary(pool) &&
		(pool->degraded_since != 0 || is_impatient(pool, ticks_now()));
}

static void
show(Pool *pool)
{
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->degraded_since = pool->degraded_since;
	SpinLockRelease(&pool->shared->mutex);
}

/* A connection to a standby has been opened, for want of a primary; pool->error says why. */
void
pool_degraded(Pool *pool)
{
	if (pool->degraded_since != 0)
		return;
	pool->degraded_since = ticks_now();
	pool->seek_at = ticks_plus_ms(pool->degraded_since, SEEK_MS);
	show(pool);
	pool_mark(pool);
	ereport(LOG,
			(errmsg("dbpool: pool \"%s\" is degraded: it is served by a standby, read-only",
					NameStr(pool->options.server)),
			 errdetail("No primary could be connected to: %s", pool->error)));
}

/* It is not any more, and how that came. */
void
pool_degraded_end(Pool *pool, const char *how)
{
	if (pool->degraded_since == 0)
		return;
	ereport(LOG,
			(errmsg("dbpool: pool \"%s\" is not degraded any more: %s",
					NameStr(pool->options.server), how)));
	pool->degraded_since = 0;
	show(pool);
	pool_mark(pool);
}

static void
count_degraded(Conn *conn, void *arg)
{
	*(int *) arg += conn->session.degraded && conn->state != CONN_CONNECTING;
}

/* A connection to a standby has gone; perhaps it was the last. */
void
pool_degraded_lost(Pool *pool)
{
	int			n = 0;

	pool_foreach_conn(pool, count_degraded, &n);
	if (n == 0)
		pool_degraded_end(pool, "it has no connection to a standby any more");
}

/* A connection to a server that suits has been opened.  Are standbys to be left? */
bool
pool_restored(Pool *pool)
{
	pool->tried_standby = false;
	if (pool->degraded_since == 0)
		return false;
	pool_degraded_end(pool, "there is a primary");
	return true;
}

static void
count_seekers(Conn *conn, void *arg)
{
	*(int *) arg += conn->state == CONN_CONNECTING && conn->opening.seeks;
}

/* Is a connection being opened to find a primary? */
bool
pool_seeks(Pool *pool)
{
	int			n = 0;

	if (pool->degraded_since != 0)
		pool_foreach_conn(pool, count_seekers, &n);
	return n > 0;
}

/* Is it time to open one?  Then the next time is set. */
bool
pool_seeks_now(Pool *pool)
{
	Ticks		now;
	bool		used;

	if (pool->degraded_since == 0 || pool->paused || pool->disabled || pool_seeks(pool))
		return false;
	now = ticks_now();
	if (now < pool->seek_at)
	{
		timer_set_by(&pool->upkeep, pool->seek_at);
		return false;
	}
	used = pool_is_in_use(pool, now);
	pool->seek_at = ticks_plus_ms(now, (int64) ((used ? SEEK_MS : SEEK_UNUSED_MS) *
												(0.8 + 0.4 * pg_prng_double(&pg_global_prng_state))));
	timer_set_by(&pool->upkeep, pool->seek_at);
	return true;
}

/* What is said of a write that was refused.  Valid until the turn ends. */
const char *
pool_degraded_told(const Pool *pool)
{
	return psprintf("Pool \"%s\" is degraded: for %.1f s it has been served by a standby, read-only, as no primary could be connected to: %s",
					NameStr(pool->options.server), (ticks_now() - pool->degraded_since) / 1000000.0,
					pool->error);
}
