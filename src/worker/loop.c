/*
 * loop.c
 *	  The event loop of a worker.
 *
 * One turn: wait for a socket, the latch, a thread or the next timer; handle
 * the sockets, so that a connection which the remote has closed is known
 * before anybody is given it; then threads, pools' wants, requests and timers;
 * then the pools that any of those have marked; free what was closed.  Nothing
 * in a turn waits.
 *
 * Each piece of work has one owner, who recovers when it fails; see work.h.
 */
#include "postgres.h"

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/endpoints.h"
#include "worker/offload.h"
#include "worker/worker.h"

/* What a turn may wait for: the latch, the postmaster, threads, sockets. */
#define MEMBERS		4

static uint32 wait_event;

static WaitEventSet *
make_set(void)
{
	WaitEventSet *set = compat_create_wait_event_set(MEMBERS);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, offload_fd(), NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, poller_fd(), NULL, NULL);
	return set;
}

static void
run_timers(void)
{
	Ticks		now = ticks_now();
	Timer	   *timer;

	while ((timer = timer_take_due(now)) != NULL)
		work_do(&timer->work);
}

/* What is to be done when the sockets have had their turn. */
static void
do_others(bool threads)
{
	/* first, as they may have new requests by the time we look for those */
	requests_wake();
	if (threads)
		offload_collect();
	/* in this order: who paused a pool wants the next request to wait */
	pools_look();
	requests_take();
	/* after those: who has let go has given up what it ran */
	leases_look();
	errands_look();
	endpoints_look();
	run_timers();
	work_do_marked();
}

/* Run until the process is asked to end. */
void
loop_run(void)
{
	WorkerShared *shared = shmem_worker(my_worker);
	MemoryContext turn = AllocSetContextCreate(worker_context, "dbpool turn",
											   ALLOCSET_DEFAULT_SIZES);
	WaitEventSet *set = make_set();

	MemoryContextSwitchTo(turn);
	while (!ShutdownRequestPending)
	{
		WaitEvent	events[MEMBERS];
		bool		threads = false;
		bool		sockets = false;
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			connections_watch();
			deadlock_watch_anew();
			sampler_watch();
		}
		n = WaitEventSetWait(set, work_is_waiting() ? 0 : timer_wait_ms(),
							 events, MEMBERS,
							 compat_wait_event(&wait_event, "DbpoolWorkerMain"));
		shared->wakeups++;
		turn_started_at = ticks_now();
		for (int i = 0; i < n; i++)
		{
			if (events[i].events & WL_LATCH_SET)
				ResetLatch(MyLatch);
			else if (events[i].fd == offload_fd())
				threads = true;
			else if (events[i].fd == poller_fd())
				sockets = true;
		}

		/*
		 * Before the sockets: a definition that was changed before a remote
		 * answered is not to be used for what that answer lets run.
		 */
		pools_look();
		if (sockets)
			poller_run();
		do_others(threads);
		requests_wake();
		connections_free_closed();
#ifdef USE_ASSERT_CHECKING
		check_all();
#endif
		MemoryContextReset(turn);
	}
}
