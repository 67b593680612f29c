/*
 * lease.c
 *	  Connections that belong to a session between statements: the worker's side of
 *	  the protocol in ipc/lease.h.
 *
 * Which connection a lease has stands in a table by the lease's number, and in the
 * connection.  Nothing here throws.
 */
#include "postgres.h"

#include "compat.h"
#include "storage/condition_variable.h"

#include "worker/connection.h"

/* By number of the lease: its connection, or NULL. */
static Conn **conns;

/*
 * A lease of this worker's whose connection is gone, if it had one: tell its session, or,
 * if that is gone as well, free it.
 */
static void
give_back(LeaseShared *lease, uint64 hold)
{
	/*
	 * all of this first: by the move it may become another's, with another
	 * worker
	 */
	int			procno = lease->procno;
	bool		awaited = lease->gid[0] != '\0';

	pg_atomic_write_u64(&lease->running, 0);
	if (!lease_move(lease, hold, LEASE_OPEN, LEASE_ENDED) &&
		lease_move(lease, hold, LEASE_RELEASED, LEASE_FREE) && awaited)
		SetLatch(compat_proc_latch(procno));	/* two_phase.c waits for it */
	ConditionVariableBroadcast(&dbpool_shared->slot_freed_cv);
}

/* Nobody knows for how long it had a connection. */
static void
count_forgotten(const LeaseShared *lease)
{
	PoolShared *pool = shmem_pool(lease->pool);

	SpinLockAcquire(&pool->mutex);
	if (lease->gid[0] != '\0')
		pool->counters.in_doubt++;
	else
		pool->counters.rolled_back++;
	SpinLockRelease(&pool->mutex);
}

/* What this worker, or the one before it, has of leases is no more. */
void
leases_forget(void)
{
	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);
		uint64		word = lease_word(lease);

		if (lease_word_worker(word) != my_worker ||
			(lease_word_state(word) != LEASE_OPEN && lease_word_state(word) != LEASE_RELEASED))
			continue;
		strlcpy(lease->sqlstate, "08006", sizeof(lease->sqlstate));
		strlcpy(lease->reason, "The dbpool worker was terminated, and with that it was rolled back.", sizeof(lease->reason));
		count_forgotten(lease);
		give_back(lease, lease_word_hold(word));
	}
}

void
leases_init(void)
{
	conns = MemoryContextAllocZero(worker_context, sizeof(Conn *) * lease_count());
	leases_forget();
}

/* The connection of the lease that a request names, or NULL. */
Conn *
lease_conn(const Request *req)
{
	Conn	   *conn;

	if (req->task.lease == LEASE_NONE)
		return NULL;
	conn = conns[req->task.lease];
	return conn != NULL && conn->lease.hold == req->task.lease_hold ? conn : NULL;
}

/* Does the request need a connection until its transaction ends, and has none? */
bool
request_opens_lease(const Request *req)
{
	return req->task.lease != LEASE_NONE && req->doubt == NULL && (req->conn == NULL || req->conn->lease.shared == NULL);
}

/*
 * Why the lease that a request names has ended, and its SQLSTATE; NULL when it has not.
 * The request is one of the lease's session, so that the lease is not another's by now.
 */
const char *
lease_why_ended(const Request *req, char *sqlstate)
{
	LeaseShared *lease = lease_entry(req->task.lease);

	if (lease_word(lease) != (req->task.lease_hold | LEASE_ENDED))
		return NULL;
	strlcpy(sqlstate, lease->sqlstate, sizeof(lease->sqlstate));
	return lease->reason;
}

/* Bytes of the first two words of a run. */
static Size
system_len(const char *run)
{
	Size		len = strcspn(run, " ");

	return run[len] == '\0' ? len : len + 1 + strcspn(run + len + 1, " ");
}

/* A request that opens a lease gets a connection.  False when its session has gone. */
bool
lease_attach(Conn *conn, Request *req)
{
	LeaseShared *lease = lease_entry(req->task.lease);

	Assert(conn->lease.shared == NULL && conns[req->task.lease] == NULL);
	lease->pool = conn->pool->index;
	if (!lease_move(lease, req->task.lease_hold, LEASE_CLAIMED, LEASE_OPEN))
		return false;
	SpinLockAcquire(&lease->mutex);
	lease->remote_pid = conn->shared->remote_pid;
	strlcpy(lease->system, conn->session.run, Min(sizeof(lease->system), system_len(conn->session.run) + 1));
	lease->home_pid = conn->session.home_pid;
	SpinLockRelease(&lease->mutex);
	conns[req->task.lease] = conn;
	conn->lease.shared = lease;
	conn->lease.hold = req->task.lease_hold;
	conn->lease.statements = 0;
	conn->lease.opened_at = ticks_now();
	conn->lease.warned = false;
	conn->lease.suspected = 0;
	conn->lease.committed = false;
	conn->lease.strayed = false;
	conn->lease.traced = false;
	conn->lease.preparing = false;
	conn->lease.prepared = false;
	conn->pool->nleased++;
	SpinLockAcquire(&conn->pool->shared->mutex);
	conn->pool->shared->counters.begun++;
	SpinLockRelease(&conn->pool->shared->mutex);
	return true;
}

static void
detach(Conn *conn)
{
	conns[lease_index(conn->lease.shared)] = NULL;
	conn->lease.shared = NULL;
	conn->lease.preparing = false;
	conn->pool->nleased--;
	Assert(conn->pool->nleased >= 0);
	pool_mark(conn->pool);
}

/* It has not been of use: the lease waits for another connection. */
void
lease_unattach(Conn *conn)
{
	LeaseShared *lease = conn->lease.shared;
	uint64		hold = conn->lease.hold;

	detach(conn);
	SpinLockAcquire(&conn->pool->shared->mutex);
	/* dbpool_stat_reset() may have come between */
	if (conn->pool->shared->counters.begun > 0)
		conn->pool->shared->counters.begun--;
	SpinLockRelease(&conn->pool->shared->mutex);
	SpinLockAcquire(&lease->mutex);
	lease->remote_pid = 0;
	lease->home_pid = 0;
	lease->statements = 0;
	SpinLockRelease(&lease->mutex);
	pg_atomic_write_u64(&lease->begun, 0);
	pg_atomic_write_u64(&lease->running, 0);
	if (!lease_move(lease, hold, LEASE_OPEN, LEASE_CLAIMED))
		(void) lease_move(lease, hold, LEASE_RELEASED, LEASE_FREE);
	ConditionVariableBroadcast(&dbpool_shared->slot_freed_cv);
}

/* A request of the lease is about to run; before its slot says so. */
void
lease_runs(Conn *conn, const Request *req)
{
	LeaseShared *lease = conn->lease.shared;
	Size		len = strnlen(req->shown, DBPOOL_SHOWN_SQL - 1);

	/* the pair is in transaction_settle() */
	pg_atomic_write_u64(&lease->running, req->task.ticket);
	conn->lease.statements++;
	conn->lease.preparing = req->task.lease_prepares;
	SpinLockAcquire(&lease->mutex);
	lease->idle_since = 0;
	lease->statements++;
	lease->encoding = req->task.encoding;
	memcpy(lease->sql, req->shown, len);
	lease->sql[len] = '\0';
	SpinLockRelease(&lease->mutex);
}

/* The prelude of the request that runs has been executed. */
void
lease_begun(Conn *conn)
{
	LeaseShared *lease = conn->lease.shared;

	if (lease != NULL)
		pg_atomic_write_u64(&lease->begun, pg_atomic_read_u64(&lease->running));
}

/* Nothing of it runs any more, and it goes on. */
void
lease_rests(Conn *conn)
{
	LeaseShared *lease = conn->lease.shared;

	conn->lease.idle_since = ticks_now();
	SpinLockAcquire(&lease->mutex);
	lease->idle_since = conn->lease.idle_since;
	SpinLockRelease(&lease->mutex);
	/* after begun, see lease_begun() */
	pg_write_barrier();
	pg_atomic_write_u64(&lease->running, 0);
	ConditionVariableBroadcast(&dbpool_shared->slot_freed_cv);
}

/* Has its session let go of it? */
bool
lease_is_released(const Conn *conn)
{
	return lease_word_state(lease_word(conn->lease.shared)) == LEASE_RELEASED;
}

/* Its PREPARE was answered: it goes on without a transaction of the connection. */
void
lease_prepared(Conn *conn)
{
	PoolShared *shared = conn->pool->shared;

	conn->lease.prepared = true;
	SpinLockAcquire(&shared->mutex);
	shared->counters.prepared++;
	SpinLockRelease(&shared->mutex);
}

static void
count_end(Conn *conn, bool in_doubt)
{
	PoolShared *shared = conn->pool->shared;
	uint64		us = ticks_now() - conn->lease.opened_at;

	SpinLockAcquire(&shared->mutex);
	if (in_doubt)
		shared->counters.in_doubt++;
	else if (conn->lease.committed)
		shared->counters.committed++;
	else
		shared->counters.rolled_back++;
	shared->counters.transaction_us += us;
	shared->counters.transaction_max_us = Max(shared->counters.transaction_max_us, us);
	SpinLockRelease(&shared->mutex);
}

static void
end(Conn *conn, const char *sqlstate, const char *reason, bool in_doubt)
{
	LeaseShared *lease = conn->lease.shared;

	strlcpy(lease->sqlstate, sqlstate, sizeof(lease->sqlstate));
	strlcpy(lease->reason, reason, sizeof(lease->reason));
	count_end(conn, in_doubt);
	detach(conn);
	SpinLockAcquire(&lease->mutex);
	lease->remote_pid = 0;
	lease->home_pid = 0;
	if (lease->idle_since == 0)
		lease->idle_since = ticks_now();
	SpinLockRelease(&lease->mutex);
	give_back(lease, conn->lease.hold);
}

/*
 * It has ended, for a reason (a sentence or more) that its session will be told when it
 * asks.  The connection is the pool's again, with whatever is in it.
 */
void
lease_end(Conn *conn, const char *sqlstate, const char *reason)
{
	if (conn->lease.shared != NULL)
		end(conn, sqlstate, reason, false);
}

/* The same, as its connection is lost. */
void
lease_lost(Conn *conn, const char *reason)
{
	if (conn->lease.shared != NULL)
		end(conn, "08006", reason, conn->lease.preparing);
}

/* Some sessions have let go of their leases: have the loop see to the connections. */
void
leases_look(void)
{
	WorkerShared *shared = shmem_worker(my_worker);

	if (pg_atomic_read_u32(&shared->leases_attention) == 0)
		return;
	pg_atomic_exchange_u32(&shared->leases_attention, 0);
	for (int i = 0; i < lease_count(); i++)
	{
		if (conns[i] != NULL && lease_is_released(conns[i]))
			work_mark(&conns[i]->go_on);
	}
}
