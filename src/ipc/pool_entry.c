/*
 * pool_entry.c
 *	  Entries of shared memory for pools: finding, taking, taking over.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "ipc/shmem.h"

/* Does it belong to its pool, so that no other one gets it? */
static bool
is_taken(const PoolShared *entry)
{
	return entry->in_use && (entry->live || entry->paused || entry->disabled);
}

/* How many entries are not to be had for other pools. */
int
pool_entries_taken(void)
{
	int			n = 0;

	for (int i = 0; i < dbpool_shared->npools; i++)
		n += is_taken(shmem_pool(i));
	return n;
}

/* An entry that may be given to another pool: unused, and longest so. */
static int
entry_to_take(void)
{
	int			best = POOL_TOO_MANY;

	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *entry = shmem_pool(i);

		if (!entry->in_use)
			return i;
		if (!is_taken(entry) &&
			(best < 0 || entry->used_at < shmem_pool(best)->used_at))
			best = i;
	}
	return best;
}

/* A pool of the same server, seen through another mapping, that is paused or disabled; or NULL. */
static PoolShared *
stopped_sibling(const PoolKey *key)
{
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *entry = shmem_pool(i);

		if (entry->in_use && entry->key.dbid == key->dbid &&
			entry->key.serverid == key->serverid && (entry->paused || entry->disabled))
			return entry;
	}
	return NULL;
}

/*
 * Has the owner as many other pools as are allowed?  One that is split counts
 * once.
 */
static bool
owner_has_all_pools(Oid owner, const PoolKey *key)
{
	int			n = 0;

	if (!OidIsValid(owner))
		return false;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *entry = shmem_pool(i);

		if (is_taken(entry) && entry->owner == owner &&
			entry->worker == shmem_first_worker(&entry->key) &&
			memcmp(&entry->key, key, sizeof(PoolKey)) != 0)
			n++;
	}
	return n >= quota_limit(dbpool_role_max_pools, dbpool_shared->npools);
}

/* An entry is another pool's now, which is stopped by these tickets, if they are not 0. */
static void
begin_entry(PoolShared *entry, uint64 paused, uint64 disabled)
{
	SpinLockAcquire(&entry->mutex);
	memset(&entry->server, 0, sizeof(NameData));
	memset(&entry->username, 0, sizeof(NameData));
	entry->min_size = 0;
	entry->max_size = 0;
	entry->leak_threshold = 0;
	entry->nendpoints = 0;
	entry->paused = paused;
	entry->rested = 0;
	entry->disabled = disabled;
	entry->drained = 0;
	entry->reset = 0;
	entry->dropped = false;
	entry->forget_stamp = dbpool_shared->forget_stamp;
	entry->waiting = 0;
	entry->oldest_wait = 0;
	entry->used_at = 0;
	entry->connected_at = 0;
	entry->connect_failed_at = 0;
	entry->unwell_at = 0;
	entry->fell_back_at = 0;
	entry->degraded_since = 0;
	entry->connect_error[0] = '\0';
	memset(entry->conns, 0, sizeof(entry->conns));
	memset(&entry->slow, 0, sizeof(entry->slow));
	memset(&entry->counters, 0, sizeof(entry->counters));
	memset(entry->alerts, 0, sizeof(entry->alerts));
	SpinLockRelease(&entry->mutex);
}

/*
 * The shared entry for a key: the one it had before, so that statistics and a
 * pause outlive the worker, or a free one, or the one longest unused.  A pool
 * that gets a new entry has forgotten what any pool was to forget so far: a
 * session which has not heard that its definition was changed or dropped, or
 * that its transaction has ended, cannot bring the pool back.
 *
 * worker is the one that takes it into its memory, if live is true.  Else a session
 * wants it for a server that nobody uses, so that it can be paused or disabled.
 *
 * POOL_TOO_MANY when there is none, POOL_OWNER_HAS_ENOUGH when that is because
 * of the limit for one owner.  *first is set to the entry of the first worker, or -1.
 */
int
pool_take_entry(const PoolKey *key, Oid owner, int worker, bool live, int *first)
{
	int			index = POOL_TOO_MANY;
	int			first_worker = shmem_first_worker(key);
	PoolShared *entry;

	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	*first = -1;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		entry = shmem_pool(i);
		if (!entry->in_use || memcmp(&entry->key, key, sizeof(PoolKey)) != 0)
			continue;
		if (entry->worker == worker)
			index = i;
		if (entry->worker == first_worker)
			*first = i;
	}
	if (first_worker == worker && owner_has_all_pools(owner, key))
		index = POOL_OWNER_HAS_ENOUGH;
	else if (index < 0 && (index = entry_to_take()) >= 0)
	{
		const PoolShared *stopped = stopped_sibling(key);

		entry = shmem_pool(index);
		/* in this order for pool_workers(), which reads without the lock */
		entry->in_use = false;
		pg_write_barrier();
		pg_atomic_write_u32(&entry->workers, 1);
		pg_write_barrier();
		entry->key = *key;
		pg_write_barrier();
		entry->in_use = true;
		entry->worker = worker;
		/* also of one that is only stopped: else nobody's limit has it */
		entry->owner = owner;
		if (worker == first_worker)
			*first = index;
		begin_entry(entry, stopped ? stopped->paused : 0, stopped ? stopped->disabled : 0);
		stats_reset(index);
		samples_forget(index);
	}
	if (index >= 0 && live)
	{
		entry = shmem_pool(index);
		entry->owner = owner;
		SpinLockAcquire(&entry->mutex);
		/* what was wanted of it while it was cold is done: it has nothing */
		entry->wants = 0;
		entry->renewed = entry->reset;
		entry->live = true;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	return index;
}

/* The definition of the entry's pool is another one, maybe of another owner. */
void
pool_set_owner(PoolShared *entry, Oid owner)
{
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	entry->owner = owner;
	LWLockRelease(dbpool_shared->pools_lock);
}
