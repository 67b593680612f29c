/*
 * shared.c
 *	  The ways to what is in shared memory, see shmem.h.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "ipc/shmem.h"

#include "compat.h"

DbpoolShared *dbpool_shared = NULL;
WorkerShared *shmem_workers;
PoolShared *shmem_pools;
ConnShared *shmem_conns;

WorkerShared *
shmem_worker(int worker)
{
	Assert(worker >= 0 && worker < dbpool_shared->nworkers);
	return &shmem_workers[worker];
}

/*
 * Process ID of a worker, 0 if it does not run.  What is read of the worker
 * afterwards is of that process or a later one; the pair is in
 * dbpool_worker_main().
 */
int
shmem_worker_pid(int worker)
{
	int			pid = (int) pg_atomic_read_u32(&shmem_worker(worker)->pid);

	pg_read_barrier();
	return pid;
}

PoolShared *
shmem_pool(int pool)
{
	Assert(pool >= 0 && pool < dbpool_shared->npools);
	return &shmem_pools[pool];
}

ConnShared *
shmem_conn(int conn)
{
	Assert(conn >= 0 && conn < dbpool_shared->nconns);
	return &shmem_conns[conn];
}

/* How many connections of it are in use.  The caller holds its mutex, or has a copy. */
int
shmem_busy_conns(const PoolShared *pool)
{
	return pool->conns[CONN_CHECKING] + pool->conns[CONN_BUSY] + pool->conns[CONN_LEASED] +
		pool->conns[CONN_CANCELLING] + pool->conns[CONN_RESETTING];
}

/* An entry of the pool of that key, or NULL; the caller has pools_lock. */
static PoolShared *
entry_of_key(const PoolKey *key)
{
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		if (shmem_pools[i].in_use && memcmp(&shmem_pools[i].key, key, sizeof(PoolKey)) == 0)
			return &shmem_pools[i];
	}
	return NULL;
}

/* A prepared transaction of the pool was ended by somebody else than its worker. */
void
shmem_count_resolved(const PoolKey *key)
{
	PoolShared *pool;

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	pool = entry_of_key(key);
	if (pool != NULL)
	{
		SpinLockAcquire(&pool->mutex);
		pool->counters.resolved++;
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

/* A call on the pool of that key is run on another one. */
void
pool_count_fallback(const PoolKey *key)
{
	Ticks		now = ticks_now();
	PoolShared *pool;

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	pool = entry_of_key(key);
	if (pool != NULL)
	{
		SpinLockAcquire(&pool->mutex);
		pool->counters.fallbacks++;
		pool->fell_back_at = now;
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

/* As views and the log show it. */
const char *
conn_state_name(ConnState state)
{
	static const char *const names[CONN_NSTATES] = {
		[CONN_CONNECTING] = "connecting",
		[CONN_IDLE] = "idle",
		[CONN_CHECKING] = "checking",
		[CONN_BUSY] = "busy",
		[CONN_LEASED] = "leased",
		[CONN_CANCELLING] = "cancelling",
		[CONN_RESETTING] = "resetting",
		[CONN_CLOSED] = "closed",
	};

	return names[state];
}

/* Number of the first worker of the pool of that key; see worker/split.c. */
int
shmem_first_worker(const PoolKey *key)
{
	uint32		hash = hash_bytes((const unsigned char *) key, sizeof(PoolKey));

	return (int) (hash % (uint32) dbpool_shared->nworkers);
}

/*
 * Which of the entries of a pool stands for it: that of its first worker, or the first one
 * there is.  index is that of any of them; the caller has pools_lock.
 */
int
shmem_first_entry(int index)
{
	PoolShared *entry = &shmem_pools[index];
	int			worker = shmem_first_worker(&entry->key);
	int			first = index;

	if (entry->worker == worker)
		return index;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *other = &shmem_pools[i];

		if (!other->in_use || memcmp(&other->key, &entry->key, sizeof(PoolKey)) != 0)
			continue;
		if (other->worker == worker)
			return i;
		first = Min(first, i);
	}
	return first;
}

/* Wake a worker, if it is there and asleep. */
void
shmem_wake_worker(int worker)
{
	if (shmem_worker_pid(worker) != 0)
		SetLatch(compat_proc_latch((int) pg_atomic_read_u32(&shmem_worker(worker)->procno)));
}

/*
 * Ask the workers to do something to all pools that match.  Cannot fail and
 * waits for nothing but the lock, so that it can be called at the end of a
 * transaction.  Returns the stamp of it.
 */
uint64
shmem_want(bool (*matches) (const PoolKey *key, void *arg), void *arg,
		   uint32 want)
{
	uint64		stamp;

	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	/* with the lock, so that of two at a time the later one has the higher */
	stamp = pg_atomic_fetch_add_u64(&dbpool_shared->definition_stamp, 1);
	if (want & (POOL_WANT_FORGET | POOL_WANT_RELOAD))
		dbpool_shared->forget_stamp = stamp;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = &shmem_pools[i];

		if (!pool->in_use || !matches(&pool->key, arg))
			continue;
		SpinLockAcquire(&pool->mutex);
		pool->wants |= want;
		if (want & (POOL_WANT_FORGET | POOL_WANT_RELOAD))
			pool->forget_stamp = stamp;
		if (want & POOL_WANT_RESET)
			pool->reset = stamp;
		if (want & POOL_WANT_DROP)
		{
			pool->dropped = true;
			pool->paused = 0;
			pool->disabled = 0;
		}
		SpinLockRelease(&pool->mutex);
		pg_atomic_write_u32(&shmem_worker(pool->worker)->pools_attention, 1);
		shmem_wake_worker(pool->worker);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	/* a worker that is not there tells nobody */
	ConditionVariableBroadcast(&dbpool_shared->pools_cv);
	return stamp;
}
