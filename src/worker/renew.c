/*
 * renew.c
 *	  Connections are replaced, and old ones serve until a new one has been opened.
 *
 * So it is when nothing but the password of a user mapping was changed, and after
 * dbpool_reload().  In the words of generations: those from "oldest" on may be used, and
 * new connections are of the last one.  While the two differ, the pool
 *	 1. opens one connection, whether anybody waits or not, and one more than max_size
 *		if need be; when that fails, it tries again with the usual back-off;
 *	 2. forgets the older ones, as soon as one of the last generation has been opened:
 *		idle ones at once, busy ones when they come free.
 * What an old connection does tells nothing of the new password: that alone ends a back-off
 * which has been opened by it.
 *
 * Only for the password: another user, or another place, never gets what was opened for
 * the one before.  Two definitions that differ by more make a new generation that is the
 * oldest as well (pool.c).
 */
#include "postgres.h"

#include "worker/connection.h"
#include "worker/places.h"

/*
 * Do two definitions differ by nothing but the value of the password, which both have?  They
 * are as ipc/message.h says.
 */
bool
definitions_differ_by_password(const char *a, Size a_len, const char *b, Size b_len)
{
	const char *a_end = a + a_len;
	const char *b_end = b + b_len;
	bool		differ = false;

	if (memcmp(a, b, sizeof(PoolOptions)) != 0)
		return false;
	a += sizeof(PoolOptions);
	b += sizeof(PoolOptions);
	while (a < a_end && b < b_end)
	{
		bool		password = strcmp(a, "password") == 0;

		if (strcmp(a, b) != 0)
			return false;
		a += strlen(a) + 1;
		b += strlen(b) + 1;
		if (strcmp(a, b) != 0)
		{
			if (!password)
				return false;
			differ = true;
		}
		a += strlen(a) + 1;
		b += strlen(b) + 1;
	}
	return differ && a == a_end && b == b_end;
}

/* Is a connection of the last generation to be opened, so that it takes the place of older ones? */
bool
pool_renews(const Pool *pool)
{
	return pool->oldest != pool->generation && !pool->disabled;
}

static void
count_older(Conn *conn, void *arg)
{
	*(int *) arg += !conn_is_newest(conn);
}

/* How many connections are of older generations? */
static int
older_ones(Pool *pool)
{
	int			n = 0;

	pool_foreach_conn(pool, count_older, &n);
	return n;
}

/* Connections are to be made anew; those that there are serve until one has been. */
void
pool_renew(Pool *pool)
{
	dlist_mutable_iter iter;

	pool->generation++;
	pool->failures = 0;
	pool->retry_at = 0;
	dlist_foreach_modify(iter, &pool->conns[CONN_CONNECTING])
		conn_close(dlist_container(Conn, node, iter.cur), "it is to be made anew");
	if (pool_size(pool) == 0)
		pool->oldest = pool->generation;
	pool_mark(pool);
}

/* May the pool have the one connection that is more than its share? */
bool
pool_renew_may_exceed(Pool *pool)
{
	return pool_size(pool) == pool_max(pool) + 1 && older_ones(pool) > 0;
}

/*
 * One is about to be opened, and there are as many as may be: rather than to have one too many, close
 * one that nobody uses, unless it is the only one.
 */
void
pool_renew_make_place(Pool *pool)
{
	dlist_iter	iter;

	if (pool_size(pool) < pool_max(pool) || pool_size(pool) == 1)
		return;
	dlist_foreach(iter, &pool->conns[CONN_IDLE])
	{
		conn_close(dlist_container(Conn, node, iter.cur), "its place is needed for a new one");
		return;
	}
}

static void
close_if_old(Conn *conn, void *arg)
{
	(void) arg;
	if (conn->state == CONN_IDLE && !conn_is_current(conn))
		conn_close(conn, "there is a new one in its place");
}

/* One of the last generation has been opened: older ones are not to be used any more. */
void
pool_renewed(Pool *pool)
{
	if (pool->oldest == pool->generation)
		return;
	pool->oldest = pool->generation;
	pool_works(pool);
	pool_foreach_conn(pool, close_if_old, NULL);
	pool_mark(pool);
}

static void
leave_if_standby(Conn *conn, void *arg)
{
	(void) arg;
	if (conn->state == CONN_CONNECTING ? conn->opening.candidates->round == 0 : !conn->session.degraded)
		return;
	conn->session.unsuited = true;
	conn->flights.joinable = false;
	if (conn->state == CONN_IDLE)
		conn_close(conn, "there is a primary again");
}

/* There is a primary again: what is connected to a standby in its place is closed as it comes free. */
void
pool_leave_standbys(Pool *pool)
{
	pool_foreach_conn(pool, leave_if_standby, NULL);
}
