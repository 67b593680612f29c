/*
 * deadlock.c
 *	  Calls that run in this very server, and wait for the session that waits for
 *	  them; and transactions there whose sessions wait for what they have locked.
 *
 * Who waits for whom, and why it is enough to see the same twice, stands in
 * ipc/home.c.  A timer looks, once a call has been running for deadlock_timeout
 * and as long as it does.  Each deadlock has one call that is given up, whichever
 * of its calls it is found from; the worker that has that call gives it up.  Where no
 * call is in it, a transaction is rolled back whose session waits for a lock: the
 * session goes on, and is told when it next asks for something in the transaction.
 *
 * Nor may a request wait for a connection, of any pool, when all that it could get are
 * leased to transactions of its own session, or of sessions that wait for it.
 */
#include "postgres.h"

#include "storage/proc.h"

#include "ipc/home.h"
#include "worker/connection.h"
#include "worker/worker.h"

/* Milliseconds until the next look, after one that failed. */
#define RECOVER_MS		1000

/* One look at all calls. */
typedef struct Look
{
	Ticks		now;
	Ticks		next;			/* when to look again; 0: never */
	Conn	   *conn;			/* of a flight that is to be given up, or NULL */
	Flight	   *flight;			/* NULL: its lease is to be */
	Request    *waiter;			/* one that waits and is to be given up, or
								 * NULL */
	char	   *detail;
} Look;

static void
look_again_by(Look *this, Ticks at)
{
	if (this->next == 0 || at < this->next)
		this->next = at;
}

static void
look_at_flight(Look *this, Conn *conn, Flight *flight)
{
	Ticks		due = ticks_plus_ms(flight->req->started_at, DeadlockTimeout);
	HomeDeadlock *deadlock;

	look_again_by(this, Max(due, ticks_plus_ms(this->now, HOME_CONFIRM_MS)));
	if (this->now < due)
		return;
	look_again_by(this, ticks_plus_ms(this->now, Max(DeadlockTimeout, HOME_CONFIRM_MS)));
	deadlock = home_find_deadlock(flight->req->slot);
	if (deadlock == NULL || deadlock->ticket != flight->req->task.ticket)
	{
		flight->suspected = 0;
		return;
	}
	if (flight->suspected == deadlock->signature)
	{
		this->conn = conn;
		this->flight = flight;
		this->detail = deadlock->detail;
	}
	flight->suspected = deadlock->signature;
	look_again_by(this, ticks_plus_ms(this->now, HOME_CONFIRM_MS));
}

/* A transaction that does nothing: does its session wait for what is locked there? */
static void
look_at_lease(Look *this, Conn *conn)
{
	Ticks		due = ticks_plus_ms(conn->lease.idle_since, DeadlockTimeout);
	HomeDeadlock *deadlock;

	look_again_by(this, Max(due, ticks_plus_ms(this->now, HOME_CONFIRM_MS)));
	if (this->now < due)
		return;
	look_again_by(this, ticks_plus_ms(this->now, Max(DeadlockTimeout, HOME_CONFIRM_MS)));
	deadlock = home_find_lease_deadlock(conn->lease.shared);
	if (deadlock == NULL || deadlock->ticket != 0 || deadlock->lease != conn->lease.shared)
	{
		conn->lease.suspected = 0;
		return;
	}
	if (conn->lease.suspected == deadlock->signature)
	{
		this->conn = conn;
		this->flight = NULL;
		this->detail = deadlock->detail;
	}
	conn->lease.suspected = deadlock->signature;
	look_again_by(this, ticks_plus_ms(this->now, HOME_CONFIRM_MS));
}

static void
look_at_conn(Conn *conn, void *arg)
{
	dlist_iter	iter;

	if (conn->session.home_pid == 0)
		return;
	if (conn->state == CONN_LEASED && conn->waiter == NULL)
		look_at_lease(arg, conn);
	dlist_foreach(iter, &conn->flights.list)
	{
		Flight	   *flight = dlist_container(Flight, node, iter.cur);

		if (flight->req != NULL && flight->deadlock == NULL)
			look_at_flight(arg, conn, flight);
	}
}

static Look *looking;

/* Does the connection come free only when the session goes on? */
static bool
conn_waits_for(Conn *conn, int session, HomeDeadlock *deadlock)
{
	if (conn->state == CONN_LEASED)
		return conn->waiter == NULL && home_lease_waits_for(conn->lease.shared, session, deadlock);
	return conn->session.home_pid != 0 && home_waits_for(conn->session.home_pid, session, deadlock);
}

/*
 * Do all connections that a request of the pool may get wait for its session?
 * NULL if not.  leases: it opens a lease, and they have all that they may have.
 */
static HomeDeadlock *
find_in_queue(Pool *pool, int session, bool leases)
{
	static const ConnState taken[] = {CONN_BUSY, CONN_LEASED};
	HomeDeadlock *deadlock = palloc0(sizeof(HomeDeadlock));
	int			n = 0;
	dlist_iter	iter;

	deadlock->detail = psprintf("Process %d waits for a connection of pool \"%s\", and all that there may be%s are in use.",
								session, NameStr(pool->options.server),
								leases ? " for transactions" : "");
	for (int i = 0; i < lengthof(taken); i++)
	{
		dlist_foreach(iter, &pool->conns[taken[i]])
		{
			Conn	   *conn = dlist_container(Conn, node, iter.cur);

			if (leases && conn->lease.shared == NULL)
				continue;
			if (!conn_waits_for(conn, session, deadlock))
				return NULL;
			n++;
		}
	}
	/* others come free by themselves */
	return n >= (leases ? pool->nleased : pool_size(pool)) ? deadlock : NULL;
}

static void
look_at_waiter(Look *this, Request *req)
{
	bool		leases = request_opens_lease(req) && pool_leases_are_full(req->pool);
	Ticks		due = ticks_plus_ms(req->queued_at, DeadlockTimeout);
	HomeDeadlock *deadlock;

	/* without leases it is looked at as long as something runs at home */
	if (req->pool->nleased > 0)
		look_again_by(this, this->now < due ? due : ticks_plus_ms(this->now, Max(DeadlockTimeout, HOME_CONFIRM_MS)));
	if (this->now < due || (!leases && pool_size(req->pool) < pool_max(req->pool)))
		return;
	deadlock = find_in_queue(req->pool, req->task.pid, leases);
	if (deadlock != NULL && req->suspected == deadlock->signature)
	{
		this->waiter = req;
		this->detail = deadlock->detail;
	}
	req->suspected = deadlock != NULL ? deadlock->signature : 0;
	if (deadlock != NULL)
		look_again_by(this, ticks_plus_ms(this->now, HOME_CONFIRM_MS));
}

static void
look_at_pool(Pool *pool)
{
	dlist_iter	iter;

	pool_foreach_conn(pool, look_at_conn, looking);
	if (pool->nconns[CONN_BUSY] + pool->nconns[CONN_LEASED] == 0)
		return;
	for (int i = 0; i < QUEUES; i++)
	{
		dlist_foreach(iter, &pool->queues[i])
			look_at_waiter(looking, dlist_container(Request, node, iter.cur));
	}
}

static void
give_up_piece(void *arg)
{
	const Look *this = arg;

	if (this->flight != NULL)
		conn_deadlocked(this->conn, this->flight, this->detail);
	else
		conn_lease_deadlocked(this->conn, this->detail);
}

static void
fail_waiter_piece(void *arg)
{
	const Look *this = arg;

	pool_leave_queue(this->waiter);
	request_fail(this->waiter, "40P01", "deadlock detected", this->detail,
				 this->waiter->pool->nconns[CONN_LEASED] > 0 ? LEASE_DEADLOCK_HINT : HOME_DEADLOCK_HINT);
}

static void
look(void *owner)
{
	Look		this = {ticks_now()};

	(void) owner;
	looking = &this;
	pools_foreach(look_at_pool);
	looking = NULL;
	if (this.next != 0)
		timer_set(&deadlock_look, this.next);
	if (this.conn != NULL)
		(void) work_guard(give_up_piece, &this, conn_recover, this.conn);
	else if (this.waiter != NULL)
		(void) work_guard(fail_waiter_piece, &this, request_recover, this.waiter);
}

/* A recovery, see work.h: nobody depends on this look but for the next one. */
static void
look_recover(void *owner, int sqlerrcode)
{
	(void) owner;
	(void) sqlerrcode;
	timer_set_by(&deadlock_look, ticks_plus_ms(ticks_now(), RECOVER_MS));
}

void
deadlock_init(void)
{
	timer_init(&deadlock_look, look, look_recover, NULL);
}

/* The settings have changed: that counts also for those who wait now. */
void
deadlock_watch_anew(void)
{
	if (deadlock_look.armed)
		timer_set(&deadlock_look, ticks_now());
}
