/*
 * share.c
 *	  A worker's share of a pool.
 *
 * What the workers of a split pool know of each other is one number, "workers" in
 * the first worker's PoolShared; see split.c.
 */
#include "postgres.h"

#include "worker/connection.h"

/* Is the entry that pool's?  Read without a lock, as it may soon not be. */
static bool
is_entry_of(const PoolShared *entry, const Pool *pool)
{
	return entry->in_use && memcmp(&entry->key, &pool->key, sizeof(PoolKey)) == 0;
}

/*
 * Over how many workers can the pool be split?  Each has two connections at least, so
 * that there is one for others when transactions have what they may have.
 */
int
pool_workers_most(const Pool *pool)
{
	return Max(Min(dbpool_shared->nworkers, pool->options.max_size / 2), 1);
}

/* How many workers the pool has, and which of them this one is, from 0. */
int
pool_workers(const Pool *pool, int *place)
{
	PoolShared *entry;
	int			workers;
	int			first = shmem_first_worker(&pool->key);

	*place = (my_worker - first + dbpool_shared->nworkers) % dbpool_shared->nworkers;
	if (pool->splits_to > 0)
		return pool->splits_to;
	if (pool->first < 0)
		return 1;
	/* it may be another pool's by now: then ours has but its first worker */
	entry = shmem_pool(pool->first);
	if (!is_entry_of(entry, pool))
		return 1;
	/* the pairs of both barriers are in pool_take_entry() */
	pg_read_barrier();
	workers = (int) pg_atomic_read_u32(&entry->workers);
	pg_read_barrier();
	if (!is_entry_of(entry, pool))
		return 1;
	/* max_size may have become less than what it was split over */
	return Max(Min(workers, pool_workers_most(pool)), 1);
}

static int
share(const Pool *pool, int whole)
{
	int			place;
	int			workers = pool_workers(pool, &place);

	if (place >= workers)
		return 0;
	return whole / workers + (place < whole % workers ? 1 : 0);
}

/* Connections that this worker may have for the pool. */
int
pool_max(const Pool *pool)
{
	return share(pool, pool->options.max_size);
}

/* Connections that this worker keeps open for it. */
int
pool_min(const Pool *pool)
{
	return Min(share(pool, pool->options.min_size), pool_max(pool));
}

/* Requests that may wait in this worker, if there is a limit. */
int
pool_max_waiting(const Pool *pool)
{
	return Max(share(pool, pool->options.max_waiting), 1);
}

/*
 * Have leases all connections that they may have?  That is all but one, in each worker,
 * unless there is but one.  Those that are being checked for one are as good as leased.
 */
bool
pool_leases_are_full(Pool *pool)
{
	int			most = Max(pool_max(pool) - 1, 1);
	int			n = pool->nleased;
	dlist_iter	iter;

	if (n + pool->nconns[CONN_CHECKING] < most)
		return false;
	dlist_foreach(iter, &pool->conns[CONN_CHECKING])
	{
		const Conn *conn = dlist_container(Conn, node, iter.cur);

		n += conn->waiter != NULL && request_opens_lease(conn->waiter);
	}
	return n >= most;
}

/* For the sessions: how many workers they may ask. */
int
pool_spread(const Pool *pool)
{
	int			place;

	return pool->splits_to > 0 ? 1 : pool_workers(pool, &place);
}
