/*
 * quota.h
 *	  How many requests each role has under way.
 *
 * Counted from the claim of a slot until the slot is free again, whoever frees
 * it, so that a session which gives up and tries again at once does not get
 * around the limit.
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

extern int	quota_take(Oid roleid, uint32 limit);
extern void quota_give(int quota);

/* A limit whose setting is 0: nine tenths of all, so that others have the rest. */
static inline int
quota_limit(int setting, int all)
{
	return setting > 0 ? setting : Max(all - Max(all / 10, 1), 1);
}

#endif							/* DBPOOL_QUOTA_H */
