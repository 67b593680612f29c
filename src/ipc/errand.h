/*
 * errand.h
 *	  What has to be done in a database, where the worker is not.
 *
 * A process does it that is started for that and goes away afterwards, for each kind of
 * errand at most one in a database.  Whoever has something to do for it wants the errand,
 * when what is to be done can be seen.  The first worker starts the process, unless it
 * runs: "wanted" is set before the worker is woken, and is cleared by the process before it
 * looks; so what comes too late for a look has the next.
 */
#ifndef DBPOOL_ERRAND_H
#define DBPOOL_ERRAND_H

#include "dbpool.h"
#include "clock.h"
#include "port/atomics.h"

/* Most databases that can have an errand of one kind at a time. */
#define ERRAND_DATABASES	64

typedef enum ErrandKind
{
	ERRAND_RESOLVE = 0,			/* prepared transactions: backend/resolve.c */
	ERRAND_NEWS					/* news for who listens: backend/herald.c */
} ErrandKind;

#define ERRAND_KINDS	(ERRAND_NEWS + 1)

/*
 * An entry whose errand is neither wanted nor under way may become another database's.  That,
 * and what sets "wanted" or "pid", is done under errands_mutex.
 */
typedef struct ErrandShared
{
	pg_atomic_uint32 dbid;		/* 0: never used */
	pg_atomic_uint32 wanted;
	pg_atomic_uint32 pid;		/* of the process, 0 if there is none */
	pg_atomic_uint32 failures;	/* of starts in a row, after which the errand
								 * was not done */
	pg_atomic_uint32 lost;		/* news that had to go before they were told */
	Ticks		started_at;		/* first worker's: when it was last started */
} ErrandShared;

extern bool errand_want(ErrandKind kind, Oid dbid);
extern void errand_forget(Oid dbid);
extern ErrandShared *errand_of(ErrandKind kind, Oid dbid);
extern ErrandShared *errand_begin(ErrandKind kind);

#endif							/* DBPOOL_ERRAND_H */
