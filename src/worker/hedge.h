/*
 * hedge.h
 *	  A read that takes long runs once more at another host, see hedge.c.
 */
#ifndef DBPOOL_HEDGE_H
#define DBPOOL_HEDGE_H

#include "worker/connection.h"

/* The budget: a read earns one, a copy costs so many. */
#define HEDGE_COST			50
#define HEDGE_TOKENS_MOST	(10 * HEDGE_COST)

/* hedge.c */
extern void hedge_watch(Conn *conn, Request *req);
extern void hedge_answered(Request *req);
extern void hedge_wins(Flight *copy);

/* hedge_send.c */
extern void hedge_due(void *owner);
extern void hedge_recover(void *owner, int sqlerrcode);

/*
 * Something of the flight is about to be put for its session, or would be if it had one: that
 * decides who has won.
 */
static inline void
hedge_speaks(Flight *flight)
{
	if (flight->hedges != NULL)
		hedge_wins(flight);
	else if (flight->req != NULL && flight->req->hedge.watched)
		hedge_answered(flight->req);
}

#endif							/* DBPOOL_HEDGE_H */
