/*
 * deadlock.c
 *	  Calls that run in this very server, and wait for the session that waits
 *	  for them.
 *
 * Who waits for whom, and why it is enough to see the same twice, stands in
 * ipc/home.c.  A timer looks, once a call has been running for deadlock_timeout
 * and as long as it does.  Each deadlock has one call that is given up, whichever
 * of its calls it is found from; the worker that has that call gives it up.
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
	Flight	   *flight;
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

static void
look_at_conn(Conn *conn, void *arg)
{
	dlist_iter	iter;

	if (conn->session.home_pid == 0)
		return;
	dlist_foreach(iter, &conn->flights.list)
	{
		Flight	   *flight = dlist_container(Flight, node, iter.cur);

		if (flight->req != NULL && flight->deadlock == NULL)
			look_at_flight(arg, conn, flight);
	}
}

static Look *looking;

/*
 * Do all connections that a request of the pool may get wait for its session?
 * NULL if not.
 */
static HomeDeadlock *
find_in_queue(Pool *pool, int session)
{
	HomeDeadlock *deadlock = palloc0(sizeof(HomeDeadlock));
	dlist_iter	iter;

	deadlock->detail = psprintf("Process %d waits for a connection of pool \"%s\", and all that there may be are in use.",
								session, NameStr(pool->options.server));
	dlist_foreach(iter, &pool->conns[CONN_BUSY])
	{
		Conn	   *conn = dlist_container(Conn, node, iter.cur);

		if (conn->session.home_pid == 0 || !home_waits_for(conn->session.home_pid, session, deadlock))
			return NULL;
	}
	return deadlock;
}

static void
look_at_waiter(Look *this, Request *req)
{
	HomeDeadlock *deadlock;

	if (this->now < ticks_plus_ms(req->queued_at, DeadlockTimeout))
		return;
	deadlock = find_in_queue(req->pool, req->task.pid);
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
	if (pool->nconns[CONN_BUSY] == 0 || pool->nconns[CONN_BUSY] < pool_max(pool) ||
		pool->nconns[CONN_BUSY] < pool_size(pool))
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

	conn_deadlocked(this->conn, this->flight, this->detail);
}

static void
fail_waiter_piece(void *arg)
{
	const Look *this = arg;

	pool_leave_queue(this->waiter);
	request_fail(this->waiter, "40P01", "deadlock detected", this->detail,
				 HOME_DEADLOCK_HINT);
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
