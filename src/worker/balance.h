/*
 * balance.h
 *	  A read-only pool over several hosts: to which of them what goes, see balance.c.
 */
#ifndef DBPOOL_BALANCE_H
#define DBPOOL_BALANCE_H

#include "worker/endpoints.h"
#include "worker/places.h"

/* A pool that was used within so many milliseconds is in use. */
#define BALANCE_IN_USE_MS	30000

/* Does the pool choose among its endpoints for each request? */
static inline bool
pool_is_balanced(const Pool *pool)
{
	return pool->options.load_balance == BALANCE_LEAST_BUSY && pool->nendpoints > 1;
}

/* May copies of its reads be sent to other endpoints?  See hedge.c. */
static inline bool
pool_is_hedged(const Pool *pool)
{
	return pool->options.hedge > 0 && pool->nendpoints > 1;
}

/* And is the first endpoint that has a connection for it to be given a request? */
static inline bool
pool_keeps_order(const Pool *pool)
{
	return pool_is_hedged(pool) && pool->options.load_balance == BALANCE_OFF;
}

/* Is it to have a connection at each of them? */
static inline bool
pool_is_spread(const Pool *pool)
{
	return pool_is_balanced(pool) || pool_is_hedged(pool) ||
		(pool->nendpoints > 1 && pool->put_off_at != 0 &&
		 ticks_now() < ticks_plus_ms(pool->put_off_at, BALANCE_IN_USE_MS));
}

extern void balance_places(Candidates *list, Pool *pool);
extern int	balance_choose(Pool *pool, const Request *req, bool rides, Ticks now);
extern void balance_took(Conn *conn, const Flight *flight, double us, Ticks now);
extern double balance_slow(const Pool *pool, int endpoint, Ticks now);
extern int	balance_poor(Pool *pool, Ticks now);
extern bool balance_made_room(Pool *pool, int poor);

#endif							/* DBPOOL_BALANCE_H */
