/*
 * places.h
 *	  Where a connection may be opened, see places.c.
 */
#ifndef DBPOOL_PLACES_H
#define DBPOOL_PLACES_H

#include "pq/keywords.h"
#include "worker/worker.h"

struct addrinfo;

typedef struct Candidates
{
	MemoryContext context;
	int			n;
	int			at;
	int			round;
	const char *session_attrs;	/* target_session_attrs, or NULL */
	bool		shuffle;		/* load_balance_hosts=random */
	Place		places[DBPOOL_MAX_PLACES];
} Candidates;

extern void places_list(Candidates *list, Pool *pool);
extern void places_put_addresses(Candidates *list, const struct addrinfo *found);
extern bool places_next(Candidates *list);

#endif							/* DBPOOL_PLACES_H */
