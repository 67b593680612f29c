/*
 * main.c
 *	  "dbpool worker N": the process that keeps connections.
 *
 * It is attached to no database: it reads no catalog, takes no snapshot, runs
 * no transaction, and so runs on a hot standby and stands in nobody's way.  It
 * is registered as a process that uses databases all the same, as the logical
 * replication launcher is, so that pg_stat_activity shows it, and so that it
 * answers the signals that DROP DATABASE waits for.
 *
 * However it ends, it ends with exit code 1: the postmaster starts it again.
 */
#include "postgres.h"

#include <unistd.h>

#include "ipc/shmem.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/endpoints.h"
#include "worker/offload.h"
#include "worker/worker.h"

/* Seconds until the postmaster starts a worker that ended. */
#define RESTART_SECONDS		1

/* Most seconds that an exit waits for cancels to be delivered. */
#define EXIT_CANCEL_SECONDS	1

PGDLLEXPORT void dbpool_worker_main(Datum arg);
extern void worker_register(void);

/*
 * Called by _PG_init() in the postmaster.  While pg_upgrade has the server, no
 * process is to do anything on its own.
 */
void
worker_register(void)
{
	BackgroundWorker bgw;

	if (IsBinaryUpgrade)
		return;
	for (int i = 0; i < dbpool_workers; i++)
	{
		dbpool_fill_bgworker(&bgw, "dbpool_worker_main", "dbpool worker", i);
		bgw.bgw_restart_time = RESTART_SECONDS;
		snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "dbpool worker %d", i + 1);
		RegisterBackgroundWorker(&bgw);
	}
}

/*
 * Have the pools with a min_size opened before anybody asks for them.  That
 * takes a look into the catalogs of all databases, which is not for this
 * process to do: see backend/warm.c.  Where no process can be had for it, the
 * pools open when they are first used.
 */
static void
start_warmer(void)
{
	BackgroundWorker bgw;

	dbpool_fill_bgworker(&bgw, "dbpool_warm_main", "dbpool warmer", my_worker);
	snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "dbpool warmer for worker %d",
			 my_worker + 1);
	if (!RegisterDynamicBackgroundWorker(&bgw, NULL))
		ereport(LOG,
				(errmsg("dbpool cannot open connections ahead of their use for worker %d",
						my_worker + 1),
				 errhint("Raise max_worker_processes.")));
}

/*
 * Tell everybody that this worker is gone.  The pid first: see "the worker",
 * step 6, in request.h.
 */
static void
worker_exit(int code, Datum arg)
{
	WorkerShared *shared = shmem_worker(my_worker);

	(void) code;
	(void) arg;
	shared->ended_at = ticks_now();
	pg_atomic_write_u32(&shared->pid, 0);
	/* the pair is in client_submit() */
	pg_memory_barrier();
	compat_injection_point("dbpool-pid-cleared-before-sweep");
	leases_forget();
	requests_release_all();
	connections_forget();
	endpoints_forget();
	/* with it, all that pauses and resets wait for has ended */
	ConditionVariableBroadcast(&dbpool_shared->pools_cv);
}

/* The pools that this worker's predecessor had are not in memory any more. */
static void
forget_predecessor(void)
{
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use || pool->worker != my_worker)
			continue;
		SpinLockAcquire(&pool->mutex);
		pool->live = false;
		pool->waiting = 0;
		pool->oldest_wait = 0;
		pool->wants = 0;
		memset(pool->conns, 0, sizeof(pool->conns));
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

/*
 * The last thing before exit(), when everybody has been told and nobody waits
 * but the postmaster.  Threads may be in OpenSSL or the resolver, and the exit
 * handlers of those would pull the ground from under them; a crash here would
 * make the postmaster restart everything.
 */
static void
leave_threads(int code, Datum arg)
{
	(void) arg;
	offload_wait(OFFLOAD_CANCEL, EXIT_CANCEL_SECONDS);
	if (offload_busy())
		_exit(code);
}

void
dbpool_worker_main(Datum arg)
{
	WorkerShared *shared;

	my_worker = DatumGetInt32(arg);
	fault_worker_starts();

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	on_proc_exit(leave_threads, (Datum) 0);
	worker_context = AllocSetContextCreate(TopMemoryContext, "dbpool worker",
										   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(worker_context);
	shared = shmem_worker(my_worker);
	before_shmem_exit(worker_exit, (Datum) 0);
	poller_start();
	offload_start();
	pools_init();
	split_init();
	janitor_init();
	leases_init();
	requests_init();
	deadlock_init();
	errands_init(start_warmer);
	alerts_init();
	sampler_init();
	endpoints_init();
	forget_predecessor();

	shared->started_at = ticks_now();
	pg_atomic_write_u32(&shared->procno, (uint32) compat_my_proc_number());
	pg_atomic_fetch_add_u32(&shared->starts, 1);
	/* the pair is in shmem_worker_pid() */
	pg_write_barrier();
	pg_atomic_write_u32(&shared->pid, (uint32) MyProcPid);
	ConditionVariableBroadcast(&shared->started_cv);

	/* requests may have come before this process did */
	SetLatch(MyLatch);
	ereport(DEBUG1, (errmsg_internal("dbpool worker %d started", my_worker + 1)));

	start_warmer();
	loop_run();
	connections_cancel();
	proc_exit(1);
}
