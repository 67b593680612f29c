/*
 * pool.c
 *	  Pools: their definitions, and what happens to their connections.
 *
 * A pool has one definition at a time.  A request that brings a newer one
 * replaces it: connections of the old one are closed, at once or when their
 * statement ends, and requests that wait with the old one are sent back to
 * look theirs up again.  So nobody's statement ever runs on a connection that
 * was made by another definition than its own, but for the password: see renew.c.
 */
#include "postgres.h"

#include "access/transam.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/endpoints.h"
#include "worker/worker.h"

/* A pool without connections that nobody uses for so long is let go. */
#define POOL_UNUSED_MS		(10 * 60 * 1000)

typedef struct PoolEntry
{
	PoolKey		key;			/* hash key */
	Pool	   *pool;
} PoolEntry;

static HTAB *pools_by_key;

void
pools_init(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(PoolKey);
	ctl.entrysize = sizeof(PoolEntry);
	ctl.hcxt = worker_context;
	pools_by_key = hash_create("dbpool pools", 32, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Let go of a pool that has neither connections nor waiters. */
static void
pool_remove(Pool *pool)
{
	PoolShared *entry = pool->shared;

	Assert(pool_size(pool) == 0 && pool->nwaiting == 0 && pool->cancels == 0 &&
		   pool->steps == 0 && pool->lookups == 0);
	timer_stop(&pool->upkeep);
	work_unmark(&pool->look);
	pool_leave_endpoints(pool);
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	SpinLockAcquire(&entry->mutex);
	entry->live = false;
	SpinLockRelease(&entry->mutex);
	/* a pool of one transaction leaves nothing worth remembering */
	if (TransactionIdIsValid(pool->key.xid))
		entry->in_use = false;
	LWLockRelease(dbpool_shared->pools_lock);
	ConditionVariableBroadcast(&dbpool_shared->pools_cv);
	hash_search(pools_by_key, &pool->key, HASH_REMOVE, NULL);
	dlist_delete(&pool->node);
	MemoryContextDelete(pool->context);
}

static void
count_if_older(Conn *conn, void *arg)
{
	if ((int32) (conn->generation - conn->pool->reset_generation) < 0)
		(*(int *) arg)++;
}

/* Tell those who wait for a pause, or a reset, of the pool that it has been reached. */
static void
tell_those_who_wait(Pool *pool)
{
	bool		rests = (pool->paused != pool->rested || pool->disabled != pool->drained) &&
	pool->nconns[CONN_IDLE] + pool->nconns[CONN_CONNECTING] == pool_size(pool) &&
	pool->nqueued[QUEUE_DOUBTS] == 0;
	int			older = 0;

	if (pool->reset != pool->renewed)
		pool_foreach_conn(pool, count_if_older, &older);
	if (!rests && (pool->reset == pool->renewed || older > 0))
		return;
	if (rests)
	{
		pool->rested = pool->paused;
		pool->drained = pool->disabled;
	}
	if (older == 0)
		pool->renewed = pool->reset;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->rested = pool->rested;
	pool->shared->drained = pool->drained;
	pool->shared->renewed = Max(pool->shared->renewed, pool->renewed);
	SpinLockRelease(&pool->shared->mutex);
	ConditionVariableBroadcast(&dbpool_shared->pools_cv);
}

/*
 * Look at a pool that is marked or whose time has come: let it go if it is of no
 * use, else see who gets a connection.
 */
static void
pool_run(void *owner)
{
	Pool	   *pool = owner;
	Ticks		unused_at = ticks_plus_ms(pool->used_at, POOL_UNUSED_MS);

	pool_split_progress(pool);
	if (pool->disabled)
		pool_refuse_waiters(pool);
	if (pool_size(pool) == 0 && pool->nwaiting == 0 && pool->cancels == 0 &&
		pool->steps == 0 && pool->lookups == 0 &&
		(pool->definition == NULL || pool_max(pool) == 0 ||
		 (pool_min(pool) == 0 && ticks_now() >= unused_at)))
	{
		pool_remove(pool);
		return;
	}
	pool_seek_primary(pool);
	pool_dispatch(pool);
	tell_those_who_wait(pool);
	/* one that keeps connections stays, and whoever opens them sets a timer */
	if (pool_size(pool) == 0 && pool_min(pool) == 0 && pool->nwaiting == 0 && pool->cancels == 0 &&
		pool->steps == 0 && pool->lookups == 0)
		timer_set_by(&pool->upkeep, Max(unused_at, pool->retry_at));
}

static void
pool_upkeep(void *owner)
{
	pool_mark(owner);
}

/* A pool of that key, of which nobody knows yet. */
static Pool *
make_pool(const PoolKey *key)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dbpool pool",
												  ALLOCSET_SMALL_SIZES);
	Pool	   *pool = MemoryContextAllocZero(context, sizeof(Pool));

	pool->key = *key;
	pool->context = context;
	pool->statements = statements_create(context);
	pool->retry_tokens = RETRY_TOKENS_MOST;
	for (int i = 0; i < CONN_NSTATES; i++)
		dlist_init(&pool->conns[i]);
	for (int i = 0; i < QUEUES; i++)
		dlist_init(&pool->queues[i]);
	work_init(&pool->look, pool_run, pool_recover, pool);
	timer_init(&pool->upkeep, pool_upkeep, pool_recover, pool);
	return pool;
}

/*
 * The pool of a request; made if need be.  NULL when there are too many, and
 * then *why is what pool_take_entry() says.
 */
static Pool *
find_pool(const Request *req, int *why)
{
	const PoolKey *key = &req->task.key;
	PoolEntry  *entry = hash_search(pools_by_key, key, HASH_FIND, NULL);
	Pool	   *pool;
	PoolOptions options;

	if (entry != NULL)
		return entry->pool;
	pool = make_pool(key);
	entry = hash_search(pools_by_key, key, HASH_ENTER, NULL);
	entry->pool = pool;

	/* from here on nothing can fail */
	memcpy(&options, req->definition, sizeof(options));
	pool->index = pool_take_entry(key, options.owner, my_worker, true, &pool->first);
	if (pool->index < 0)
	{
		*why = pool->index;
		hash_search(pools_by_key, key, HASH_REMOVE, NULL);
		MemoryContextDelete(pool->context);
		return NULL;
	}
	MemoryContextSetParent(pool->context, worker_context);
	dlist_push_tail(&pools, &pool->node);
	pool->shared = shmem_pool(pool->index);
	SpinLockAcquire(&pool->shared->mutex);
	pool->paused = pool->shared->paused;
	pool->disabled = pool->shared->disabled;
	pool->reset = pool->shared->reset;
	pool->renewed = pool->shared->renewed;
	/* of a worker that has ended */
	pool->shared->degraded_since = 0;
	SpinLockRelease(&pool->shared->mutex);
	return pool;
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

/* The connections that exist are not to be used any more. */
static void
new_generation(Pool *pool, const char *reason)
{
	pool->oldest = ++pool->generation;
	pool->failures = 0;
	pool->retry_at = 0;
	pool->overloaded = false;
	pool->retry_tokens = RETRY_TOKENS_MOST;
	pool->synchronous = false;
	pool->tried_standby = false;
	pool_degraded_end(pool, reason);
	pool_close_idle(pool, reason);
}

/*
 * Compare the definition that a request brings with the pool's, and take it
 * over when it is newer.  False when the request's is the older one.
 */
static bool
settle_definition(Pool *pool, Request *req)
{
	uint64		forget_stamp;
	char	   *definition;
	bool		rotated;

	SpinLockAcquire(&pool->shared->mutex);
	forget_stamp = pool->shared->forget_stamp;
	SpinLockRelease(&pool->shared->mutex);
	if (req->task.stamp < forget_stamp)
		return false;
	if (pool->definition != NULL &&
		pool->definition_len == req->task.definition_len &&
		memcmp(pool->definition, req->definition, req->task.definition_len) == 0)
	{
		pool->stamp = Max(pool->stamp, req->task.stamp);
		if (pool->looks_up)
			pool_mark(pool);
		pool->looks_up = false;
		return true;
	}
	if (pool->definition != NULL && req->task.stamp < pool->stamp)
		return false;

	definition = MemoryContextAlloc(pool->context, req->task.definition_len);
	memcpy(definition, req->definition, req->task.definition_len);
	pool_use_endpoints(pool, definition, req->task.definition_len);
	rotated = pool->definition != NULL &&
		definitions_differ_by_password(pool->definition, pool->definition_len,
									   definition, req->task.definition_len);
	pool_send_waiters_back(pool, !rotated);
	if (rotated)
		pool_renew(pool);
	else
		new_generation(pool, "the definition of the pool was changed");
	if (pool->definition != NULL)
		pfree(pool->definition);
	pool->looks_up = false;
	pool->definition = definition;
	pool->definition_len = req->task.definition_len;
	pool->stamp = req->task.stamp;
	memcpy(&pool->options, pool->definition, sizeof(PoolOptions));
	statements_mistrust(pool->statements);
	pool->no_runs = false;
	pool->no_traces = false;
	pool_set_owner(pool->shared, pool->options.owner);
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->dropped = false;
	pool->shared->server = pool->options.server;
	pool->shared->username = pool->options.username;
	pool->shared->min_size = pool->options.min_size;
	pool->shared->max_size = pool->options.max_size;
	pool->shared->leak_threshold = pool->options.leak_threshold;
	SpinLockRelease(&pool->shared->mutex);
	return true;
}

/*
 * A request that belongs to a lease has come; whatever has become of the pool's
 * definition, the lease goes on.  False when the lease has no connection so far.
 */
static bool
submit_leased(Request *req)
{
	Conn	   *conn = lease_conn(req);
	char		sqlstate[6];
	const char *why;

	if (conn != NULL)
	{
		conn->pool->used_at = req->queued_at;
		split_count(conn->pool);
		dispatch_leased(conn, req);
		return true;
	}
	if ((why = lease_why_ended(req, sqlstate)) == NULL)
		return false;
	request_fail_gone(req, sqlstate, psprintf("%s\nThe statement was not run.", why));
	return true;
}

/* A request has come. */
void
pool_submit(Request *req)
{
	int			why = POOL_TOO_MANY;
	Pool	   *pool;

	if (req->task.lease != LEASE_NONE && submit_leased(req))
		return;
	pool = find_pool(req, &why);
	if (pool == NULL && shmem_first_worker(&req->task.key) != my_worker)
	{
		/* its first worker has it, if need be for all */
		request_stale(req);
		return;
	}
	if (pool == NULL && why == POOL_OWNER_HAS_ENOUGH)
	{
		request_fail(req, "53400", "too many dbpool pools of one owner are in use",
					 psprintf("%d are, as many as dbpool.role_max_pools allows for servers of one role. The statement was not run.",
							  quota_limit(dbpool_role_max_pools, dbpool_shared->npools)),
					 "Pools go out of use some minutes after their last statement. A superuser can raise dbpool.role_max_pools.");
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
		pool_mark(pool);
		request_stale(req);
		return;
	}
	/* not ours: the session will find its first worker */
	if (pool_max(pool) == 0)
	{
		pool_close_idle(pool, "the pool has another worker");
		pool_mark(pool);
		request_stale(req);
		return;
	}
	pool->used_at = req->queued_at;
	split_count(pool);
	if (req->task.kind == REQUEST_WARM)
	{
		request_end(req);
		pool_mark(pool);
		return;
	}
	req->pool = pool;
	if (pool->disabled)
		pool_refuse(pool, req);
	else
		dispatch_submit(req);
}

/* The session of one of a connection's flights has given up. */
static void
given_up_piece(void *arg)
{
	Conn	   *conn = arg;

	if (conn_head(conn)->batch != NULL && !batch_stop(conn, conn_head(conn)))
	{
		conn_lost(conn);
		return;
	}
	if (conn->state == CONN_BUSY && conn->flights.n == 1)
	{
		conn_cancel(conn);
		pool_mark(conn->pool);
		return;
	}
	if (conn->state == CONN_CANCELLING)
		conn_after_cancel(conn);
	else
		conn_watch(conn);
	conn_pump(conn);
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
	if (flight == NULL || conn->session.home_pid == 0)
		request_gone(req);
	else
	{
		flight->awaited = req;
		request_keep(req);
	}
	if (flight != NULL)
		(void) work_guard(given_up_piece, conn, conn_recover, conn);
	/* the first who waits may be another now */
	pool_mark(pool);
}

static void
called_off_piece(void *arg)
{
	Conn	   *conn = arg;

	if (conn->state == CONN_BUSY)
		conn_cancel(conn);
	else
		conn_after_cancel(conn);
}

/*
 * The session of a request that ends a transaction wants it stopped, and waits for what
 * becomes of it.  On the connection of a lease there is no other flight.
 */
void
pool_call_off(Request *req)
{
	Conn	   *conn = req->conn;

	if (req->flight != NULL)
	{
		Assert(req->flight == conn_head(conn));
		req->flight->called_off = true;
		(void) work_guard(called_off_piece, conn, conn_recover, conn);
		return;
	}
	/* the remote will say what has become of it */
	if (req->doubt != NULL)
		return;
	if (conn != NULL)
	{
		conn->waiter = NULL;
		req->conn = NULL;
	}
	else if (req->queued)
		pool_leave_queue(req);
	request_fail(req, "57014", "canceling statement due to user request",
				 "The statement was not run.", NULL);
}

/* Do what backends want done to a pool. */
static void
pool_look(void *owner)
{
	Pool	   *pool = owner;
	PoolShared *shared = pool->shared;
	uint32		wants;

	SpinLockAcquire(&shared->mutex);
	wants = shared->wants;
	shared->wants = 0;
	pool->paused = shared->paused;
	pool->disabled = shared->disabled;
	pool->reset = shared->reset;
	SpinLockRelease(&shared->mutex);

	if (wants & POOL_WANT_FORGET)
	{
		pool_send_waiters_back(pool, true);
		new_generation(pool, "the definition of the pool was changed or dropped");
		if (pool->definition != NULL)
			pfree(pool->definition);
		pool->definition = NULL;
	}
	else if (wants & POOL_WANT_RESET)
	{
		new_generation(pool, "dbpool_reset() was called");
		pool_recheck_endpoints(pool);
	}
	if ((wants & POOL_WANT_RELOAD) && pool->definition != NULL)
	{
		pool_send_waiters_back(pool, false);
		pool->looks_up = true;
		if ((wants & POOL_WANT_RESET) == 0)
			pool_renew(pool);
	}
	if (wants & POOL_WANT_KILL)
	{
		pool_kill(pool);
		/* nothing that was lost so tells of the remote */
		pool_works(pool);
	}
	if (wants & POOL_WANT_RESET)
		pool->reset_generation = pool->generation;
	if (wants & POOL_WANT_UNPREPARE)
		statements_renew(pool->statements);
	if (wants != 0)
		pool_mark(pool);
}

void
pools_look(void)
{
	WorkerShared *shared = shmem_worker(my_worker);
	dlist_iter	iter;

	if (pg_atomic_read_u32(&shared->pools_attention) == 0)
		return;
	pg_atomic_exchange_u32(&shared->pools_attention, 0);
	compat_injection_point("dbpool-attention-before-wants");
	dlist_foreach(iter, &pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		(void) work_guard(pool_look, pool, pool_recover, pool);
	}
}
