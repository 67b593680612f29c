/*
 * quota.h
 *	  How many requests, and processes for migrations, each role has.
 *
 * REQUESTS
 *
 * Counted from the claim of a slot until the slot is free again, whoever frees
 * it, so that a session which gives up and tries again at once does not get
 * around the limit.
 *
 * RECORDERS
 *
 * A run of migrations takes a background worker, of which the whole server has
 * max_worker_processes.  Ordinary roles have half of what dbpool's own workers
 * leave, so that others find some, and one role all of these but one.  A place
 * is the session's until the process has started, then the process's, so that
 * it is free only when the process has ended.
 */
#ifndef DBPOOL_QUOTA_H
#define DBPOOL_QUOTA_H

#include "dbpool.h"

/* Roles that can have requests under way at a time; those beyond are not counted. */
#define QUOTA_ROLES		4096

/* quota_take(): the role has as many as the limit allows already. */
#define QUOTA_EXCEEDED	(-2)

/* Not counted; quota_give() does nothing. */
#define QUOTA_NONE		(-1)

/* Most recorders that ordinary roles have together, whatever the server has. */
#define QUOTA_RECORDERS	64

extern int	quota_recorders(void);
extern int	quota_recorders_of_role(void);
extern int	quota_take_recorder(Oid roleid);
extern bool quota_adopt_recorder(int place, int session);
extern void quota_give_recorder(int place);

extern int	quota_take(Oid roleid, uint32 limit);
extern void quota_give(int quota);

/* A limit whose setting is 0: nine tenths of all, so that others have the rest. */
static inline int
quota_limit(int setting, int all)
{
	return setting > 0 ? setting : Max(all - Max(all / 10, 1), 1);
}

#endif							/* DBPOOL_QUOTA_H */
