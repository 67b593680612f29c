/*
 * shmem.c
 *	  The shared memory of dbpool, see shmem.h.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "ipc/request.h"
#include "ipc/shmem.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "compat.h"

DbpoolShared *dbpool_shared = NULL;

static WorkerShared *worker_array;
static PoolShared *pool_array;
static ConnShared *conn_array;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
shmem_on_request(void)
{
	Size		size = 0;

	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	size = add_size(size, MAXALIGN(sizeof(DbpoolShared)));
	size = add_size(size, MAXALIGN(mul_size(sizeof(WorkerShared), dbpool_workers)));
	size = add_size(size, MAXALIGN(mul_size(sizeof(PoolShared), dbpool_max_pools)));
	size = add_size(size, MAXALIGN(mul_size(sizeof(ConnShared), dbpool_max_connections)));
	size = add_size(size, request_shmem_bytes());
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche("dbpool", 1);
}

static void
init_workers(void)
{
	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		WorkerShared *worker = &worker_array[i];

		pg_atomic_init_u32(&worker->pid, 0);
		pg_atomic_init_u32(&worker->procno, 0);
		pg_atomic_init_u32(&worker->starts, 0);
		pg_atomic_init_u32(&worker->pools_attention, 0);
		ConditionVariableInit(&worker->started_cv);
	}
}

/*
 * Find the shared memory, and set it up if nobody has.  In the postmaster, of
 * which all processes inherit the pointers; where they are programs run anew
 * (EXEC_BACKEND), in each of them.
 */
static void
shmem_on_startup(void)
{
	bool		found;
	bool		ignored;
	char	   *requests;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	dbpool_shared = ShmemInitStruct("dbpool", sizeof(DbpoolShared), &found);
	worker_array = ShmemInitStruct("dbpool workers",
								   mul_size(sizeof(WorkerShared), dbpool_workers),
								   &ignored);
	pool_array = ShmemInitStruct("dbpool pools",
								 mul_size(sizeof(PoolShared), dbpool_max_pools),
								 &ignored);
	conn_array = ShmemInitStruct("dbpool connections",
								 mul_size(sizeof(ConnShared), dbpool_max_connections),
								 &ignored);
	requests = ShmemInitStruct("dbpool requests", request_shmem_bytes(), &ignored);

	if (!found)
	{
		memset(dbpool_shared, 0, sizeof(DbpoolShared));
		dbpool_shared->pools_lock = &(GetNamedLWLockTranche("dbpool"))->lock;
		dbpool_shared->nworkers = dbpool_workers;
		dbpool_shared->nrequests = request_count();
		dbpool_shared->npools = dbpool_max_pools;
		dbpool_shared->nconns = dbpool_max_connections;
		dbpool_shared->started_at = ticks_now();
		pg_atomic_init_u64(&dbpool_shared->shown_offset, 0);
		pg_atomic_init_u64(&dbpool_shared->definition_stamp, 1);
		pg_atomic_init_u64(&dbpool_shared->request_ticket, 1);
		ConditionVariableInit(&dbpool_shared->slot_freed_cv);
		for (int i = 0; i < QUOTA_ROLES; i++)
			pg_atomic_init_u64(&dbpool_shared->roles[i], 0);
		for (int i = 0; i < DBPOOL_SHOWN_MIGRATIONS; i++)
			SpinLockInit(&dbpool_shared->migrations[i].mutex);

		memset(worker_array, 0, sizeof(WorkerShared) * dbpool_workers);
		init_workers();
		memset(pool_array, 0, sizeof(PoolShared) * dbpool_max_pools);
		for (int i = 0; i < dbpool_max_pools; i++)
		{
			SpinLockInit(&pool_array[i].mutex);
			pg_atomic_init_u32(&pool_array[i].workers, 1);
		}
		memset(conn_array, 0, sizeof(ConnShared) * dbpool_max_connections);
		for (int i = 0; i < dbpool_max_connections; i++)
			SpinLockInit(&conn_array[i].mutex);
	}
	request_shmem_init(requests, found);
	LWLockRelease(AddinShmemInitLock);
}

/* Called by _PG_init(), where shmem_on_startup() says. */
void
shmem_register(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_on_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_on_startup;
}

WorkerShared *
shmem_worker(int worker)
{
	Assert(worker >= 0 && worker < dbpool_shared->nworkers);
	return &worker_array[worker];
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
	return &pool_array[pool];
}

ConnShared *
shmem_conn(int conn)
{
	Assert(conn >= 0 && conn < dbpool_shared->nconns);
	return &conn_array[conn];
}

/* Number of the first worker of the pool of that key; see worker/split.c. */
int
shmem_home_of(const PoolKey *key)
{
	uint32		hash = hash_bytes((const unsigned char *) key, sizeof(PoolKey));

	return (int) (hash % (uint32) dbpool_shared->nworkers);
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
 * transaction.
 */
void
shmem_want(bool (*matches) (const PoolKey *key, void *arg), void *arg,
		   uint32 want)
{
	uint64		stamp = pg_atomic_fetch_add_u64(&dbpool_shared->definition_stamp, 1);

	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	if (want & POOL_WANT_FORGET)
		dbpool_shared->forget_stamp = Max(dbpool_shared->forget_stamp, stamp);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = &pool_array[i];

		if (!pool->in_use || !matches(&pool->key, arg))
			continue;
		SpinLockAcquire(&pool->mutex);
		pool->wants |= want;
		if (want & POOL_WANT_FORGET)
			pool->forget_stamp = Max(pool->forget_stamp, stamp);
		if (want & POOL_WANT_DROP)
		{
			pool->dropped = true;
			pool->paused = false;
		}
		SpinLockRelease(&pool->mutex);
		pg_atomic_write_u32(&shmem_worker(pool->worker)->pools_attention, 1);
		shmem_wake_worker(pool->worker);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}
