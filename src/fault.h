/*
 * fault.h
 *	  Faults on demand in the worker, for tests.
 *
 * A build by "make FAULTS=1" has a fault point in front of whatever the worker
 * calls that may fail: what allocates memory of PostgreSQL's throws, as it does
 * without memory; what allocates it by malloc(), starts threads or calls libpq
 * returns what it does when it fails.  dbpool_fault_arm() says which point fails,
 * and when it is passed for what time by any worker.  test/t/112_faults.pl has each
 * of them fail.
 *
 * The points themselves are in worker/fault_points.h.
 */
#ifndef DBPOOL_FAULT_H
#define DBPOOL_FAULT_H

#ifdef DBPOOL_FAULTS

#include "storage/spin.h"

/* A place in the code, with its fault point. */
typedef struct FaultPlace
{
	char		name[80];		/* empty: none */
	uint32		passed;			/* how often, since the faults were armed */
} FaultPlace;

#define FAULT_PLACES	512

typedef struct FaultShared
{
	slock_t		mutex;			/* protects all of it; zero is free */
	bool		armed;
	int			place;			/* that fails, -1: none */
	uint32		pass;			/* when it is passed for that time */
	uint32		many;			/* and so many points after that, it included */
	uint32		left;			/* of those */
	uint32		fired;
	uint32		in_recovery;	/* points passed in a recovery, which is to
								 * have none */
	char		where[512];		/* the places of those two */
	FaultPlace	places[FAULT_PLACES];
} FaultShared;

extern void fault_worker_starts(void);
extern bool fault_here(const char *function, const char *file, int line, bool throws);
extern void fault_throw(const char *function, const char *file, int line);
#ifdef LIBPQ_FE_H
extern PGresult *fault_result(PGconn *conn, const char *file, int line);
#endif

#else

#define fault_worker_starts() ((void) 0)

#endif							/* DBPOOL_FAULTS */

#endif							/* DBPOOL_FAULT_H */
