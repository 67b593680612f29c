/*
 * home.h
 *	  Connections that lead to this very server.
 */
#ifndef DBPOOL_HOME_H
#define DBPOOL_HOME_H

#include "ipc/lease.h"
#include "ipc/request.h"

/* Bytes of a mark, with its terminating zero. */
#define HOME_MARK_BYTES		64

/* Milliseconds that an abort waits for the end of what it leaves behind. */
#define HOME_STOP_MS		1000

/* What to do about one. */
#define HOME_DEADLOCK_HINT \
	"A statement that runs through a pool is in a transaction of its own: it waits for the locks of the session that called it. " \
	"End the session's own transaction before the call, or do both in one transaction."

#define LEASE_DEADLOCK_HINT \
	"The transactions that have the connections go on only when this session does. " \
	"End them before, or raise the server's option max_size."

/* Milliseconds between the first look at one and the second. */
#define HOME_CONFIRM_MS		50

/* A deadlock that was found; in the current memory context. */
typedef struct HomeDeadlock
{
	uint64		ticket;			/* of the call that is to be given up, or 0 */
	LeaseShared *lease;			/* without one, the transaction that is to be
								 * rolled back */
	Ticks		began_at;		/* that */
	uint64		signature;		/* the same for the same deadlock */
	char	   *detail;			/* who waits for whom, for people */
} HomeDeadlock;

extern bool home_make_mark(int pid, char *mark);
extern bool home_has_mark(int pid, const char *mark, Oid *role);
extern bool home_signal(int pid, Oid role, int signal);
extern HomeDeadlock *home_find_deadlock(RequestSlot *slot);
extern HomeDeadlock *home_find_own_deadlock(int runner);
extern HomeDeadlock *home_find_lease_deadlock(LeaseShared *lease);
extern bool home_waits_for(int pid, int session, HomeDeadlock *deadlock);
extern bool home_lease_waits_for(LeaseShared *lease, int session, HomeDeadlock *deadlock);

#endif							/* DBPOOL_HOME_H */
