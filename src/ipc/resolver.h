/*
 * resolver.h
 *	  Which databases have prepared transactions that somebody has to look after.
 *
 * Whoever leaves one behind, or may have, wants the resolver of his database
 * (backend/resolve.c).  The first worker starts it, unless it runs: "wanted" is set
 * before the worker is woken, and is cleared by the resolver before it looks; so one that
 * comes too late for a look has the next.
 */
#ifndef DBPOOL_RESOLVER_H
#define DBPOOL_RESOLVER_H

#include "dbpool.h"
#include "clock.h"
#include "port/atomics.h"

/* Most databases that can have one; the others get theirs after a restart. */
#define RESOLVER_DATABASES	64

typedef struct ResolverShared
{
	pg_atomic_uint32 dbid;		/* 0: not in use; never changes otherwise */
	pg_atomic_uint32 wanted;
	pg_atomic_uint32 pid;		/* of the resolver, 0 if it does not run */
	Ticks		started_at;		/* first worker's: when it last had it started */
} ResolverShared;

extern void resolver_want(Oid dbid);
extern ResolverShared *resolver_of(Oid dbid);

#endif							/* DBPOOL_RESOLVER_H */
