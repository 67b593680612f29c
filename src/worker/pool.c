/*
 * pool.c
 *	  Pools: who gets a connection, and when there are to be more of them.
 *
 * A request takes the connection that was used last; with none idle it waits,
 * first come, first served.  Waiting requests make the pool grow, but slowly
 * while connections come free faster than one could be opened.
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

/* Microseconds a first waiter waits before the pool grows anyway. */
#define GROW_PATIENCE_US	5000

/* Milliseconds between attempts to connect while others work: first, most. */
#define RETRY_FIRST_MS		500
#define RETRY_MOST_MS		15000

/* How often a request is given another connection when one proved dead. */
#define MAX_ATTEMPTS		3

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

/* Show how many wait, and since when. */
static void
show_waiters(Pool *pool)
{
	TimestampTz oldest = 0;

	if (!dlist_is_empty(&pool->waiters))
		oldest = dlist_head_element(Request, node, &pool->waiters)->queued_at;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->waiting = pool->nwaiting;
	pool->shared->oldest_wait = oldest;
	SpinLockRelease(&pool->shared->mutex);
}

/* The pool of a key; made if need be; NULL when there are too many. */
static Pool *
find_pool(const PoolKey *key)
{
	Pool	   *pool = hash_search(pools, key, HASH_FIND, NULL);
	int			index;

	if (pool != NULL)
		return pool;
	index = pool_take_entry(key);
	if (index < 0)
		return NULL;
	pool = hash_search(pools, key, HASH_ENTER, NULL);
	memset((char *) pool + sizeof(PoolKey), 0, sizeof(Pool) - sizeof(PoolKey));
	pool->index = index;
	pool->shared = shmem_pool(index);
	for (int i = 0; i < CONN_NSTATES; i++)
		dlist_init(&pool->conns[i]);
	dlist_init(&pool->waiters);
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
	hash_search(pools, &pool->key, HASH_REMOVE, NULL);
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

/* Take a request off the queue. */
void
pool_leave_queue(Request *req)
{
	Pool	   *pool = req->pool;

	dlist_delete(&req->node);
	req->queued = false;
	pool->nwaiting--;
	show_waiters(pool);
}

/* Everybody who waits is to look the definition up again. */
static void
send_waiters_back(Pool *pool)
{
	while (!dlist_is_empty(&pool->waiters))
	{
		Request    *req = dlist_head_element(Request, node, &pool->waiters);

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
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->server = pool->options.server;
	pool->shared->username = pool->options.username;
	pool->shared->min_size = pool->options.min_size;
	pool->shared->max_size = pool->options.max_size;
	SpinLockRelease(&pool->shared->mutex);
	return true;
}

/* Put a request into the queue, in the order of the tickets. */
static void
enter_queue(Pool *pool, Request *req)
{
	dlist_node *after = &pool->waiters.head;

	if (!dlist_is_empty(&pool->waiters))
	{
		after = dlist_tail_node(&pool->waiters);
		while (after != &pool->waiters.head &&
			   dlist_container(Request, node, after)->slot->ticket > req->slot->ticket)
			after = after->prev;
	}
	if (after == &pool->waiters.head)
		dlist_push_head(&pool->waiters, &req->node);
	else
		dlist_insert_after(after, &req->node);
	req->queued = true;
	pool->nwaiting++;
	janitor_request_waits(req);
	show_waiters(pool);
}

/* A request has come. */
void
pool_submit(Request *req)
{
	Pool	   *pool = find_pool(&req->slot->key);

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
		request_stale(req);
		return;
	}
	pool->used_at = req->queued_at;
	if (req->slot->kind == REQUEST_WARM)
	{
		request_end(req);
		pool_grow(pool);
		return;
	}
	req->pool = pool;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->used_at = pool->used_at;
	if (pool->nwaiting > 0 || pool->paused ||
		dlist_is_empty(&pool->conns[CONN_IDLE]))
		pool->shared->counters.waited++;
	SpinLockRelease(&pool->shared->mutex);
	enter_queue(pool, req);
	pool_dispatch(pool);
}

/* Its connection proved dead before the statement was sent: wait again. */
void
pool_requeue(Request *req)
{
	Pool	   *pool = req->pool;
	RequestSlot *slot = req->slot;

	pg_atomic_write_u32(&slot->sent, 0);
	if (request_state(slot) == REQUEST_RUNNING &&
		!request_move(slot, REQUEST_RUNNING, REQUEST_QUEUED))
	{
		request_gone(req);
		return;
	}
	if (++req->attempts >= MAX_ATTEMPTS)
		request_fail(req, "08006",
					 psprintf("connections of pool \"%s\" are lost as soon as they are used",
							  NameStr(pool->options.server)),
					 psprintf("%d were tried. The statement was not run.", req->attempts),
					 NULL);
	else
		enter_queue(pool, req);
}

/* The session of a request that waits or runs has given up. */
void
pool_waiter_left(Request *req)
{
	Pool	   *pool = req->pool;
	Conn	   *conn = req->conn;

	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.cancels++;
	SpinLockRelease(&pool->shared->mutex);
	if (conn == NULL)
	{
		pool_leave_queue(req);
		request_gone(req);
		return;
	}
	dlist_delete(&req->node);
	request_gone(req);
	if (conn->state == CONN_BUSY)
	{
		conn_cancel(conn);
		pool_dispatch(pool);
	}
}

/* Give connections to those who wait. */
void
pool_dispatch(Pool *pool)
{
	while (!pool->paused && pool->nwaiting > 0 &&
		   !dlist_is_empty(&pool->conns[CONN_IDLE]))
	{
		Conn	   *conn = dlist_head_element(Conn, node, &pool->conns[CONN_IDLE]);
		Request    *req = dlist_head_element(Request, node, &pool->waiters);
		int			after = pool->options.validate_after;

		pool_leave_queue(req);
		if (after >= 0 &&
			GetCurrentTimestamp() - conn->used_at > after * INT64CONST(1000))
			conn_check(conn, req);
		else
			conn_start(conn, req);
	}
	pool_grow(pool);
}

/*
 * Would the waiters be served sooner by the connections there are than by a
 * new one?  Not when the first of them has waited so long already that the
 * averages cannot be true.
 */
static bool
growth_can_wait(Pool *pool, TimestampTz now)
{
	int			busy = pool->nconns[CONN_BUSY] + pool->nconns[CONN_CHECKING];
	Request    *first = dlist_head_element(Request, node, &pool->waiters);
	TimestampTz patience;

	if (busy == 0 || pool->exec_us == 0 || pool->connect_us == 0)
		return false;
	patience = first->queued_at + Max((int64) pool->connect_us, GROW_PATIENCE_US);
	if (now >= patience ||
		pool->nwaiting * pool->exec_us / busy > pool->connect_us)
		return false;
	timer_set_by(&pool->upkeep, patience);
	return true;
}

/* Open connections if the pool needs more. */
void
pool_grow(Pool *pool)
{
	while (pool->definition != NULL)
	{
		int			size = pool_size(pool);
		int			connecting = pool->nconns[CONN_CONNECTING];
		int			open = size - connecting;
		bool		short_of_min = size < pool->options.min_size;
		TimestampTz now;

		if (size >= pool->options.max_size || connecting > Max(open, 1) - 1)
			break;
		if (!short_of_min &&
			(pool->nwaiting <= connecting + pool->nconns[CONN_IDLE] || pool->paused))
			break;
		now = GetCurrentTimestamp();
		if (now < pool->retry_at && (open > 0 || pool->nwaiting == 0))
		{
			timer_set_by(&pool->upkeep, pool->retry_at);
			break;
		}
		if (!short_of_min && growth_can_wait(pool, now))
			break;
		conn_open(pool);
		if (pool_size(pool) == size)
			break;				/* it failed at once */
	}
}

/* A connection has been opened. */
void
pool_conn_opened(Conn *conn)
{
	Pool	   *pool = conn->pool;
	PoolShared *shared = pool->shared;
	TimestampTz now = GetCurrentTimestamp();
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
	else if (conn->expires_at != 0 && GetCurrentTimestamp() >= conn->expires_at)
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
	pool->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 Min(ms, RETRY_MOST_MS));
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

	pool->failed_at = GetCurrentTimestamp();
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
		while (!dlist_is_empty(&pool->waiters))
		{
			Request    *req = dlist_head_element(Request, node, &pool->waiters);

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
		timer_set_by(&pool->upkeep, GetCurrentTimestamp());
	}
	else if (wants & POOL_WANT_RESET)
		new_generation(pool, "dbpool_reset() was called");
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
