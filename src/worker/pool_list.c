/*
 * pool_list.c
 *	  The pools of this worker, and their connections.
 */
#include "postgres.h"

#include "worker/connection.h"

dlist_head	pools = DLIST_STATIC_INIT(pools);

/* Call a function for each pool. */
void
pools_foreach(void (*fn) (Pool *pool))
{
	dlist_iter	iter;

	dlist_foreach(iter, &pools)
		fn(dlist_container(Pool, node, iter.cur));
}

/* Call a function for each connection, which may close it. */
void
pool_foreach_conn(Pool *pool, void (*fn) (Conn *conn, void *arg), void *arg)
{
	dlist_mutable_iter iter;

	for (int state = 0; state < CONN_CLOSED; state++)
	{
		dlist_foreach_modify(iter, &pool->conns[state])
			fn(dlist_container(Conn, node, iter.cur), arg);
	}
}

/* Connections that are open or being opened. */
int
pool_size(const Pool *pool)
{
	int			n = 0;

	for (int state = 0; state < CONN_CLOSED; state++)
		n += pool->nconns[state];
	return n;
}
