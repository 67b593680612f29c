/*
 * connection.c
 *	  What all states of a connection share: moving, showing, closing.
 */
#include "postgres.h"

#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

static dlist_head closed_conns = DLIST_STATIC_INIT(closed_conns);

/* The legal moves; the table in connection.h says when they happen. */
static const uint8 legal_moves[CONN_NSTATES] = {
	[CONN_CONNECTING] = 1 << CONN_IDLE | 1 << CONN_CLOSED,
	[CONN_IDLE] = 1 << CONN_CHECKING | 1 << CONN_BUSY | 1 << CONN_CLOSED,
	[CONN_CHECKING] = 1 << CONN_IDLE | 1 << CONN_BUSY | 1 << CONN_RESETTING | 1 << CONN_CLOSED,
	[CONN_BUSY] = 1 << CONN_IDLE | 1 << CONN_LEASED | 1 << CONN_RESETTING | 1 << CONN_CANCELLING | 1 << CONN_CLOSED,
	[CONN_LEASED] = 1 << CONN_BUSY | 1 << CONN_RESETTING | 1 << CONN_CLOSED,
	[CONN_CANCELLING] = 1 << CONN_IDLE | 1 << CONN_LEASED | 1 << CONN_RESETTING | 1 << CONN_CLOSED,
	[CONN_RESETTING] = 1 << CONN_IDLE | 1 << CONN_CLOSED,
};

static void
show_counts(Pool *pool, Ticks now)
{
	PoolShared *shared = pool->shared;

	SpinLockAcquire(&shared->mutex);
	minute_busy(shared->counters.minute, shmem_busy_conns(shared), shared->conns_at, now);
	if (now > shared->conns_at)
		shared->counters.busy_us += shmem_busy_conns(shared) * (now - shared->conns_at);
	memcpy(shared->conns, pool->nconns, sizeof(pool->nconns));
	shared->conns_at = now;
	SpinLockRelease(&shared->mutex);
}

/* Have the pools of the same owner as many connections as are allowed? */
static bool
owner_has_all_connections(Oid owner)
{
	int			n = 0;

	if (!OidIsValid(owner))
		return false;
	for (int i = 0; i < dbpool_shared->nconns; i++)
	{
		ConnShared *shared = shmem_conn(i);

		SpinLockAcquire(&shared->mutex);
		n += shared->in_use && shared->owner == owner;
		SpinLockRelease(&shared->mutex);
	}
	return n >= quota_limit(dbpool_role_max_connections, dbpool_shared->nconns);
}

/* Take a free entry; false when there is none. */
static bool
take_free_entry(Conn *conn)
{
	for (int i = 0; i < dbpool_shared->nconns; i++)
	{
		ConnShared *shared = shmem_conn(i);
		bool		taken;

		SpinLockAcquire(&shared->mutex);
		taken = !shared->in_use;
		if (taken)
		{
			shared->in_use = true;
			shared->worker = my_worker;
			shared->pool = conn->pool->index;
			shared->owner = conn->pool->options.owner;
			shared->state = CONN_CONNECTING;
			shared->remote_pid = 0;
			shared->local_pid = 0;
			shared->roleid = InvalidOid;
			shared->tls = false;
			shared->connected_at = 0;
			shared->state_since = conn->opened_at;
			shared->statements = 0;
			shared->in_flight = 0;
			shared->prepared = 0;
			NameStr(shared->address)[0] = '\0';
			shared->port = 0;
			shared->sql[0] = '\0';
		}
		SpinLockRelease(&shared->mutex);
		if (taken)
		{
			conn->index = i;
			conn->shared = shared;
			dlist_push_head(&conn->pool->conns[CONN_CONNECTING], &conn->node);
			conn->pool->nconns[CONN_CONNECTING]++;
			show_counts(conn->pool, ticks_now());
			return true;
		}
	}
	return false;
}

/*
 * Get an entry for the views, which is what the limits count.  The workers take
 * turns where a limit is one owner's, so that together they do not exceed it.
 */
EntryTaken
conn_take_entry(Conn *conn)
{
	bool		limited = OidIsValid(conn->pool->options.owner);
	EntryTaken	result;

	if (limited)
		LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	if (owner_has_all_connections(conn->pool->options.owner))
		result = ENTRY_OWNER_HAS_ENOUGH;
	else
		result = take_free_entry(conn) ? ENTRY_TAKEN : ENTRY_NONE_FREE;
	if (limited)
		LWLockRelease(dbpool_shared->pools_lock);
	return result;
}

/*
 * Move a connection to another state, that is, to another list of its pool; why is
 * for the log.
 * Idle connections are a stack: last used is first taken.  One that was merely
 * checked goes to the end, where those are that a shrinking pool closes.
 */
void
conn_move(Conn *conn, ConnState to, const char *why)
{
	Pool	   *pool = conn->pool;
	ConnState	from = conn->state;
	Ticks		now = ticks_now();

	if ((legal_moves[from] & (1 << to)) == 0)
		elog(FATAL, "impossible move of a dbpool connection from state %d to %d",
			 from, to);
	/* first, as it may fail; the end of one has a message of its own */
	if (to != CONN_CLOSED)
		ereport(DEBUG2,
				(errmsg_internal("dbpool: connection %d of pool \"%s\", %s -> %s: %s",
								 conn->index, NameStr(pool->options.server),
								 conn_state_name(from), conn_state_name(to), why)));
	dlist_delete(&conn->node);
	pool->nconns[from]--;
	conn->state = to;
	if (to == CONN_IDLE && from == CONN_CHECKING)
		dlist_push_tail(&pool->conns[to], &conn->node);
	else
		dlist_push_head(to == CONN_CLOSED ? &closed_conns : &pool->conns[to],
						&conn->node);
	if (to != CONN_CLOSED)
		pool->nconns[to]++;
	conn->io.received = 0;
	conn->io.given = 0;
	if (to == CONN_IDLE || to == CONN_LEASED || to == CONN_RESETTING)
		wire_idle(&conn->io.wire);
	show_counts(pool, now);

	SpinLockAcquire(&conn->shared->mutex);
	conn->shared->state = to;
	conn->shared->state_since = now;
	if (to != CONN_BUSY && to != CONN_CANCELLING && to != CONN_LEASED)
		conn->shared->local_pid = 0;
	if (to == CONN_CLOSED)
		conn->shared->in_use = false;
	SpinLockRelease(&conn->shared->mutex);
}

/* Show whose statement the connection runs: that of its first flight. */
void
conn_show_request(Conn *conn, const Request *req)
{
	ConnShared *shared = conn->shared;
	Size		len = strnlen(req->shown, DBPOOL_SHOWN_SQL - 1);

	SpinLockAcquire(&shared->mutex);
	shared->local_pid = req->task.pid;
	shared->roleid = req->task.roleid;
	shared->encoding = req->task.encoding;
	memcpy(shared->sql, req->shown, len);
	shared->sql[len] = '\0';
	SpinLockRelease(&shared->mutex);
}

/* End of a turn: nobody knows the closed connections any more. */
void
connections_free_closed(void)
{
	while (!dlist_is_empty(&closed_conns))
	{
		Conn	   *conn = dlist_container(Conn, node,
										   dlist_pop_head_node(&closed_conns));

		MemoryContextDelete(conn->context);
	}
}

/* At exit: the views shall not show connections that are gone. */
void
connections_forget(void)
{
	for (int i = 0; i < dbpool_shared->nconns; i++)
	{
		ConnShared *shared = shmem_conn(i);

		SpinLockAcquire(&shared->mutex);
		if (shared->worker == my_worker)
			shared->in_use = false;
		SpinLockRelease(&shared->mutex);
	}
}

/* The remote has so long for what it was asked. */
void
conn_set_deadline(Conn *conn, int ms)
{
	timer_set(&conn->deadline,
			  ticks_plus_ms(ticks_now(), ms));
}
