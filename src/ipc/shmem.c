/*
 * shmem.c
 *	  Makes the shared memory of dbpool, see shmem.h.
 */
#include "postgres.h"

#include "ipc/endpoint.h"
#include "ipc/lease.h"
#include "ipc/request.h"
#include "ipc/shmem.h"
#include "ipc/statements.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

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
	size = add_size(size, MAXALIGN(stats_bytes()));
	size = add_size(size, MAXALIGN(samples_shmem_bytes()));
	size = add_size(size, MAXALIGN(mul_size(sizeof(ConnShared), dbpool_max_connections)));
	size = add_size(size, MAXALIGN(lease_shmem_bytes()));
	size = add_size(size, MAXALIGN(endpoint_shmem_bytes()));
	size = add_size(size, MAXALIGN(endpoint_stats_bytes()));
	size = add_size(size, request_shmem_bytes());
	size = add_size(size, statements_shmem_bytes());
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche("dbpool", 3);
}

static void
init_errands(void)
{
	SpinLockInit(&dbpool_shared->errands_mutex);
	pg_atomic_init_u32(&dbpool_shared->errands_attention, 0);
	for (int i = 0; i < ERRAND_KINDS * ERRAND_DATABASES; i++)
	{
		ErrandShared *entry = &dbpool_shared->errands[0][0] + i;

		pg_atomic_init_u32(&entry->dbid, 0);
		pg_atomic_init_u32(&entry->wanted, 0);
		pg_atomic_init_u32(&entry->pid, 0);
		pg_atomic_init_u32(&entry->failures, 0);
		pg_atomic_init_u32(&entry->lost, 0);
	}
	SpinLockInit(&dbpool_shared->alerts_mutex);
	SpinLockInit(&dbpool_shared->news.mutex);
}

static void
init_workers(void)
{
	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		WorkerShared *worker = &shmem_workers[i];

		pg_atomic_init_u32(&worker->pid, 0);
		pg_atomic_init_u32(&worker->procno, 0);
		pg_atomic_init_u32(&worker->starts, 0);
		pg_atomic_init_u32(&worker->pools_attention, 0);
		pg_atomic_init_u32(&worker->leases_attention, 0);
		pg_atomic_init_u32(&worker->endpoints_attention, 0);
		ConditionVariableInit(&worker->started_cv);
	}
}

/* What is in DbpoolShared and does not begin as zero. */
static void
init_shared(void)
{
	pg_atomic_init_u64(&dbpool_shared->shown_offset, 0);
	pg_atomic_init_u64(&dbpool_shared->definition_stamp, 1);
	pg_atomic_init_u64(&dbpool_shared->request_ticket, 1);
	ConditionVariableInit(&dbpool_shared->slot_freed_cv);
	ConditionVariableInit(&dbpool_shared->pools_cv);
	for (int i = 0; i < QUOTA_ROLES; i++)
		pg_atomic_init_u64(&dbpool_shared->roles[i], 0);
	for (int i = 0; i < QUOTA_RECORDERS; i++)
		pg_atomic_init_u64(&dbpool_shared->recorders[i], 0);
	init_errands();
	for (int i = 0; i < COMMITTED_GIDS; i++)
		pg_atomic_init_u64(&dbpool_shared->committed_gids[i], 0);
	for (int i = 0; i < DBPOOL_SHOWN_MIGRATIONS; i++)
		SpinLockInit(&dbpool_shared->migrations[i].mutex);
}

/* The arrays that have no functions of their own for that. */
static void
init_arrays(void)
{
	memset(shmem_workers, 0, sizeof(WorkerShared) * dbpool_workers);
	init_workers();
	memset(shmem_pools, 0, sizeof(PoolShared) * dbpool_max_pools);
	for (int i = 0; i < dbpool_max_pools; i++)
	{
		shmem_pools[i].index = i;
		SpinLockInit(&shmem_pools[i].mutex);
		pg_atomic_init_u32(&shmem_pools[i].workers, 1);
	}
	memset(shmem_conns, 0, sizeof(ConnShared) * dbpool_max_connections);
	for (int i = 0; i < dbpool_max_connections; i++)
		SpinLockInit(&shmem_conns[i].mutex);
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
	char	   *stats;
	char	   *samples;
	char	   *leases;
	char	   *endpoints;
	char	   *endpoint_stats;
	char	   *requests;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	dbpool_shared = ShmemInitStruct("dbpool", sizeof(DbpoolShared), &found);
	shmem_workers = ShmemInitStruct("dbpool workers",
									mul_size(sizeof(WorkerShared), dbpool_workers),
									&ignored);
	shmem_pools = ShmemInitStruct("dbpool pools",
								  mul_size(sizeof(PoolShared), dbpool_max_pools),
								  &ignored);
	shmem_conns = ShmemInitStruct("dbpool connections",
								  mul_size(sizeof(ConnShared), dbpool_max_connections),
								  &ignored);
	stats = ShmemInitStruct("dbpool statistics", stats_bytes(), &ignored);
	samples = ShmemInitStruct("dbpool samples", samples_shmem_bytes(), &ignored);
	leases = ShmemInitStruct("dbpool leases", lease_shmem_bytes(), &ignored);
	endpoints = ShmemInitStruct("dbpool endpoints", endpoint_shmem_bytes(), &ignored);
	endpoint_stats = ShmemInitStruct("dbpool endpoint statistics", endpoint_stats_bytes(), &ignored);
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
		init_shared();
		init_arrays();
	}
	stats_init(stats, found);
	samples_shmem_init(samples, &(GetNamedLWLockTranche("dbpool"))[2].lock, found);
	lease_shmem_init(leases, found);
	endpoint_shmem_init(endpoints, endpoint_stats, found);
	request_shmem_init(requests, found);
	statements_shmem_init(&(GetNamedLWLockTranche("dbpool"))[1].lock);
	LWLockRelease(AddinShmemInitLock);
	if (!IsUnderPostmaster)
	{
		on_shmem_exit(stats_file_save, (Datum) 0);
		stats_file_load();
		samples_begin();
	}
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
