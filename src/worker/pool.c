/*
 * pool.c
 *	  Pools: their definitions, and what happens to their connections.
 *
 * A pool has one definition at a time.  A request that brings a newer one
 * replaces it: connections of the old one are closed, at once or when their
 * statement ends, and requests that wait with the old one are sent back to
 * look theirs up again.  So nobody's statement ever runs on a connection that
 * was made by another definition than its own.
 */
#include "postgres.h"

#include "access/transam.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "worker/connection.h"
#include "worker/worker.h"

/*
 * A pool that has connections takes the place of another pool's only when that
 * has been idle for so many milliseconds: else two that are in use would take
 * it from each other over and over.
 */
#define PLACE_IDLE_MS		1000

/* Milliseconds between attempts to connect while others work: first, most. */
#define RETRY_FIRST_MS		500
#define RETRY_MOST_MS		15000

static HTAB *pools;

void
pools_init(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(PoolKey);
	ctl.entrysize = sizeof(Pool);
	ctl.hcxt = worker_context;
	pools = hash_create("dbpool pools", 32, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
pools_foreach(void (*fn) (Pool *pool))
{
	HASH_SEQ_STATUS seq;
	Pool	   *pool;

	hash_seq_init(&seq, pools);
	while ((pool = hash_seq_search(&seq)) != NULL)
		fn(pool);
}

/* Connections that are open or being opened. */
int
pool_size(const Pool *pool)
{
	int			n = 0;

	for (int state = 0; state < CONN_CLOSED; state++)
		n += pool->nconns[state];
	return n;
}

/* The pool of a key; made if need be; NULL when there are too many. */
static Pool *
find_pool(const PoolKey *key)
{
	Pool	   *pool = hash_search(pools, key, HASH_FIND, NULL);
	int			index;
	int			home;

	if (pool != NULL)
		return pool;
	index = pool_take_entry(key, &home);
	if (index < 0)
		return NULL;
	pool = hash_search(pools, key, HASH_ENTER, NULL);
	memset((char *) pool + sizeof(PoolKey), 0, sizeof(Pool) - sizeof(PoolKey));
	pool->index = index;
	pool->home = home;
	pool->shared = shmem_pool(index);
	for (int i = 0; i < CONN_NSTATES; i++)
		dlist_init(&pool->conns[i]);
	dlist_init(&pool->riders);
	dlist_init(&pool->loners);
	pool->statements = statements_create();
	SpinLockAcquire(&pool->shared->mutex);
	pool->paused = pool->shared->paused;
	SpinLockRelease(&pool->shared->mutex);
	janitor_init_pool(pool);
	return pool;
}

/* Let go of a pool that has neither connections nor waiters. */
void
pool_remove(Pool *pool)
{
	PoolShared *entry = pool->shared;

	Assert(pool_size(pool) == 0 && pool->nwaiting == 0);
	timer_stop(&pool->upkeep);
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	SpinLockAcquire(&entry->mutex);
	entry->live = false;
	SpinLockRelease(&entry->mutex);
	/* a pool of one transaction leaves nothing worth remembering */
	if (TransactionIdIsValid(pool->key.xid))
		entry->in_use = false;
	LWLockRelease(dbpool_shared->pools_lock);
	if (pool->definition != NULL)
		pfree(pool->definition);
	statements_destroy(pool->statements);
	hash_search(pools, &pool->key, HASH_REMOVE, NULL);
}

/* Call a function for each connection. */
void
pool_foreach_conn(Pool *pool, void (*fn) (Conn *conn, void *arg), void *arg)
{
	dlist_iter	iter;

	for (int state = 0; state < CONN_CLOSED; state++)
	{
		dlist_foreach(iter, &pool->conns[state])
			fn(dlist_container(Conn, node, iter.cur), arg);
	}
}

/* Close the connections that nobody uses. */
void
pool_close_idle(Pool *pool, const char *reason)
{
	static const ConnState unused[] = {CONN_IDLE, CONN_CONNECTING};
	dlist_mutable_iter iter;

	for (int i = 0; i < lengthof(unused); i++)
	{
		dlist_foreach_modify(iter, &pool->conns[unused[i]])
			conn_close(dlist_container(Conn, node, iter.cur), reason);
	}
}

/* Everybody who waits is to look the definition up again. */
static void
send_waiters_back(Pool *pool)
{
	Request    *req;

	while ((req = pool_first_waiter(pool)) != NULL)
	{
		pool_leave_queue(req);
		request_stale(req);
	}
}

/* The connections that exist are not to be used any more. */
static void
new_generation(Pool *pool, const char *reason)
{
	pool->generation++;
	pool->failures = 0;
	pool->retry_at = 0;
	pool->synchronous = false;
	pool_close_idle(pool, reason);
}

/*
 * Compare the definition that a request brings with the pool's, and take it
 * over when it is newer.  False when the request's is the older one.
 */
static bool
settle_definition(Pool *pool, Request *req)
{
	RequestSlot *slot = req->slot;
	uint64		forget_stamp;

	SpinLockAcquire(&pool->shared->mutex);
	forget_stamp = pool->shared->forget_stamp;
	SpinLockRelease(&pool->shared->mutex);
	if (slot->stamp < forget_stamp)
		return false;
	if (pool->definition != NULL &&
		pool->definition_len == slot->definition_len &&
		memcmp(pool->definition, req->definition, slot->definition_len) == 0)
	{
		pool->stamp = Max(pool->stamp, slot->stamp);
		return true;
	}
	if (pool->definition != NULL && slot->stamp < pool->stamp)
		return false;

	send_waiters_back(pool);
	new_generation(pool, "the definition of the pool was changed");
	if (pool->definition != NULL)
		pfree(pool->definition);
	pool->definition = MemoryContextAlloc(worker_context, slot->definition_len);
	memcpy(pool->definition, req->definition, slot->definition_len);
	pool->definition_len = slot->definition_len;
	pool->stamp = slot->stamp;
	memcpy(&pool->options, pool->definition, sizeof(PoolOptions));
	statements_mistrust(pool->statements);
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->dropped = false;
	pool->shared->server = pool->options.server;
	pool->shared->username = pool->options.username;
	pool->shared->min_size = pool->options.min_size;
	pool->shared->max_size = pool->options.max_size;
	SpinLockRelease(&pool->shared->mutex);
	return true;
}

/* A request has come. */
void
pool_submit(Request *req)
{
	Pool	   *pool = find_pool(&req->slot->key);

	if (pool == NULL && shmem_home_of(&req->slot->key) != my_worker)
	{
		/* its first worker has it, if need be for all */
		request_stale(req);
		return;
	}
	if (pool == NULL)
	{
		request_fail(req, "53000", "too many dbpool pools are in use",
					 psprintf("All %d that dbpool.max_pools allows are. The statement was not run.",
							  dbpool_shared->npools),
					 "Raise dbpool.max_pools in postgresql.conf, and restart the server.");
		return;
	}
	if (!settle_definition(pool, req))
	{
		timer_set_by(&pool->upkeep, req->queued_at);
		request_stale(req);
		return;
	}
	/* not ours: the session will find its first worker */
	if (pool_max(pool) == 0)
	{
		pool_close_idle(pool, "the pool has another worker");
		timer_set_by(&pool->upkeep, req->queued_at);
		request_stale(req);
		return;
	}
	pool->used_at = req->queued_at;
	split_count(pool);
	if (req->slot->kind == REQUEST_WARM)
	{
		request_end(req);
		pool_grow(pool);
		return;
	}
	req->pool = pool;
	dispatch_submit(req);
}

/* The session of a request that waits or runs has given up. */
void
pool_waiter_left(Request *req)
{
	Pool	   *pool = req->pool;
	Conn	   *conn = req->conn;
	Flight	   *flight = req->flight;

	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.cancels++;
	SpinLockRelease(&pool->shared->mutex);
	if (flight != NULL)
		conn_orphan(conn, flight);
	else if (conn != NULL)
		conn->waiter = NULL;
	else
		pool_leave_queue(req);
	request_gone(req);
	if (flight == NULL)
		return;
	if (conn->state == CONN_BUSY && conn->nflights == 1)
	{
		conn_cancel(conn);
		pool_dispatch(pool);
		return;
	}
	if (conn->state == CONN_CANCELLING)
		conn_after_cancel(conn);
	else
		conn_watch(conn);
	conn_pump(conn);
}

/*
 * As many connections are open as there may be.  For a pool in which somebody
 * waits, close the one of another pool that has been idle longest; those that
 * make up a min_size stay.
 */
bool
pool_make_place(Pool *pool)
{
	HASH_SEQ_STATUS seq;
	Pool	   *other;
	Conn	   *longest = NULL;

	if (pool->nwaiting == 0)
		return false;
	hash_seq_init(&seq, pools);
	while ((other = hash_seq_search(&seq)) != NULL)
	{
		dlist_iter	iter;

		if (other == pool || pool_size(other) <= pool_min(other))
			continue;
		dlist_foreach(iter, &other->conns[CONN_IDLE])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);

			if (longest == NULL || conn->worked_at < longest->worked_at)
				longest = conn;
		}
	}
	if (longest == NULL ||
		(pool_size(pool) > 0 &&
		 ticks_now() < ticks_plus_ms(longest->worked_at,
									 PLACE_IDLE_MS)))
		return false;
	conn_close(longest, "another pool needs its place");
	return true;
}

/* A connection has been opened. */
void
pool_conn_opened(Conn *conn)
{
	Pool	   *pool = conn->pool;
	PoolShared *shared = pool->shared;
	Ticks		now = ticks_now();
	int64		us = now - conn->opened_at;

	pool->connect_us = pool->connect_us == 0 ? us : pool->connect_us * 0.7 + us * 0.3;
	SpinLockAcquire(&conn->shared->mutex);
	conn->shared->connected_at = now;
	SpinLockRelease(&conn->shared->mutex);
	SpinLockAcquire(&shared->mutex);
	shared->connected_at = now;
	shared->counters.connects++;
	shared->counters.connect_us += us;
	SpinLockRelease(&shared->mutex);
	conn->used_at = now;
	conn->worked_at = now;
	conn->expires_at = janitor_lifetime_end(pool, now);
	pool_conn_ready(conn);
}

/* A connection has nothing to do: who wants it? */
void
pool_conn_ready(Conn *conn)
{
	Pool	   *pool = conn->pool;

	if (conn->generation != pool->generation)
		conn_close(conn, "the definition of the pool was changed");
	else if (pool_size(pool) > pool_max(pool))
		conn_close(conn, "another worker shares the pool");
	else if (conn->expires_at != 0 && ticks_now() >= conn->expires_at)
		conn_close(conn, "it has reached max_lifetime");
	else
	{
		conn_move(conn, CONN_IDLE);
		pool_dispatch(pool);
		if (conn->state == CONN_IDLE)
			janitor_conn_idle(conn);
		return;
	}
	pool_dispatch(pool);
}

/*
 * Connecting failed, or the connection was lost before it was of any use: put
 * off the next attempt that nobody waits for.
 */
void
pool_back_off(Pool *pool)
{
	int			ms = RETRY_FIRST_MS << Min(pool->failures, 5);

	pool->failures++;
	pool->retry_at = ticks_plus_ms(ticks_now(),
								   Min(ms, RETRY_MOST_MS));
}

/* The remote has answered a question that costs it nothing, after so long. */
void
pool_saw_round_trip(Pool *pool, int64 us)
{
	/* what takes longer may have other reasons than the way */
	pool->rtt_us = pool->rtt_us == 0 ? us : Min(us, pool->rtt_us * 1.1);
}

/* A connection has been of use. */
void
pool_works(Pool *pool)
{
	pool->failures = 0;
	pool->retry_at = 0;
}

/*
 * A connection could not be opened.  While others work, those who wait go on
 * waiting for them, and the next attempt is put off; without any there is
 * nothing to wait for, and everybody is told why.
 */
void
pool_conn_failed(Pool *pool, const char *sqlstate, const char *message)
{
	PoolShared *shared = pool->shared;

	pool->failed_at = ticks_now();
	strlcpy(pool->error, message, sizeof(pool->error));
	SpinLockAcquire(&shared->mutex);
	shared->connect_failed_at = pool->failed_at;
	strlcpy(shared->connect_error, message, sizeof(shared->connect_error));
	shared->counters.connect_failures++;
	SpinLockRelease(&shared->mutex);
	if (pool->failures == 0)
		ereport(LOG,
				(errmsg("dbpool could not open a connection of pool \"%s\": %s",
						NameStr(pool->options.server), message)));
	pool_back_off(pool);
	if (pool_size(pool) == 0)
	{
		Request    *req;

		while ((req = pool_first_waiter(pool)) != NULL)
		{
			pool_leave_queue(req);
			request_fail(req, sqlstate,
						 psprintf("could not open a connection of pool \"%s\"",
								  NameStr(pool->options.server)),
						 psprintf("%s\nThe statement was not run.", message),
						 strcmp(sqlstate, "53300") != 0 ? NULL :
						 "Raise dbpool.max_connections in postgresql.conf, and restart the server.");
		}
	}
	pool_grow(pool);
}

/* Do what backends want done to a pool. */
static void
pool_look(Pool *pool)
{
	PoolShared *shared = pool->shared;
	uint32		wants;

	SpinLockAcquire(&shared->mutex);
	wants = shared->wants;
	shared->wants = 0;
	pool->paused = shared->paused;
	SpinLockRelease(&shared->mutex);

	if (wants & POOL_WANT_FORGET)
	{
		send_waiters_back(pool);
		new_generation(pool, "the definition of the pool was changed or dropped");
		if (pool->definition != NULL)
			pfree(pool->definition);
		pool->definition = NULL;
		timer_set_by(&pool->upkeep, ticks_now());
	}
	else if (wants & POOL_WANT_RESET)
		new_generation(pool, "dbpool_reset() was called");
	if (wants & POOL_WANT_UNPREPARE)
		statements_renew(pool->statements);
	if (wants != 0)
		pool_dispatch(pool);
}

void
pools_look(void)
{
	WorkerShared *shared = shmem_worker(my_worker);

	if (pg_atomic_read_u32(&shared->pools_attention) == 0)
		return;
	pg_atomic_exchange_u32(&shared->pools_attention, 0);
	pools_foreach(pool_look);
}
