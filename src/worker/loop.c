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
 *
 * A wait event set cannot lose a member, so it is made anew before the next
 * wait when connections came or went, or when libpq changed a socket (it may
 * reuse the number of one it closed, which the kernel has dropped by then).
 */
#include "postgres.h"

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"
#include "worker/worker.h"

/* Members that are not connections: latch, postmaster's death, threads. */
#define OWN_MEMBERS		3

static dlist_head all_conns = DLIST_STATIC_INIT(all_conns);
static int	nall;
static WaitEventSet *event_set;
static WaitEvent *events;
static int	events_max;
static bool set_changed = true;
static uint32 wait_event;

/* A new connection, without a socket so far. */
void
loop_add(Conn *conn)
{
	conn->sock = PGINVALID_SOCKET;
	conn->wants = 0;
	conn->position = -1;
	dlist_push_tail(&all_conns, &conn->all_node);
	nall++;
}

void
loop_remove(Conn *conn)
{
	dlist_delete(&conn->all_node);
	nall--;
	set_changed = true;
}

/* The connection has a socket, perhaps another one than before. */
void
loop_socket(Conn *conn, pgsocket sock, uint32 wants)
{
	conn->sock = sock;
	conn->wants = wants;
	set_changed = true;
}

/* Change what the connection waits for.  Never nothing: the set forbids it. */
void
loop_want(Conn *conn, uint32 wants)
{
	if (conn->wants == wants)
		return;
	conn->wants = wants;
	if (conn->sock == PGINVALID_SOCKET)
		return;
	if (conn->position < 0)
		set_changed = true;
	else if (!set_changed)
		ModifyWaitEvent(event_set, conn->position, wants, NULL);
}

/* Put a connection into the set that is being made. */
static void
join_piece(void *arg)
{
	Conn	   *conn = arg;

	conn->position = -1;
	if (conn->sock != PGINVALID_SOCKET && conn->wants != 0)
		conn->position = AddWaitEventToSet(event_set, conn->wants,
										   conn->sock, NULL, conn);
}

static void
make_set(void)
{
	dlist_mutable_iter iter;
	WaitEventSet *before = event_set;

	event_set = compat_create_wait_event_set(nall + OWN_MEMBERS);
	if (before != NULL)
		FreeWaitEventSet(before);
	AddWaitEventToSet(event_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(event_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(event_set, WL_SOCKET_READABLE, offload_fd(), NULL, NULL);
	set_changed = false;
	dlist_foreach_modify(iter, &all_conns)
	{
		Conn	   *conn = dlist_container(Conn, all_node, iter.cur);

		(void) work_guard(join_piece, conn, conn_recover, conn);
	}
	if (events_max < nall + OWN_MEMBERS)
	{
		int			n = 2 * (nall + OWN_MEMBERS);
		WaitEvent  *larger = MemoryContextAlloc(worker_context, sizeof(WaitEvent) * n);

		if (events != NULL)
			pfree(events);
		events = larger;
		events_max = n;
	}
}

static void
socket_piece(void *arg)
{
	WaitEvent  *event = arg;
	Conn	   *conn = event->user_data;

	if (conn->state != CONN_CLOSED)
		conn_on_socket(conn, event->events);
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

	MemoryContextSwitchTo(turn);
	while (!ShutdownRequestPending)
	{
		int			n;
		bool		threads = false;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			connections_watch();
			deadlock_watch_anew();
		}
		while (set_changed)
			make_set();
		n = WaitEventSetWait(event_set, work_is_waiting() ? 0 : timer_wait_ms(),
							 events, events_max,
							 compat_wait_event(&wait_event, "DbpoolWorkerMain"));
		shared->wakeups++;
		for (int i = 0; i < n; i++)
		{
			if (events[i].events & WL_LATCH_SET)
				ResetLatch(MyLatch);
		}

		/*
		 * Before the sockets: a definition that was changed before a remote
		 * answered is not to be used for what that answer lets run.
		 */
		pools_look();
		for (int i = 0; i < n; i++)
		{
			if (events[i].events & WL_LATCH_SET)
				continue;
			if (events[i].user_data != NULL)
				(void) work_guard(socket_piece, &events[i], conn_recover,
								  events[i].user_data);
			else if (events[i].fd == offload_fd())
				threads = true;
		}
		do_others(threads);
		requests_wake();
		connections_free_closed();
		MemoryContextReset(turn);
	}
}
