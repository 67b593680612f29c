/*
 * written.h
 *	  What the session may have written through pools, see last_lsn.c.
 */
#ifndef DBPOOL_WRITTEN_H
#define DBPOOL_WRITTEN_H

#include "ipc/lease.h"
#include "ipc/shmem.h"

/* Commits in two phases that may not have come to their end, per pool. */
#define WRITTEN_GIDS	4

/* The session's pool, by whatever name. */
typedef struct WrittenKey
{
	Oid			serverid;
	Oid			userid;
} WrittenKey;

typedef struct Written
{
	WrittenKey	key;			/* must be first */
	uint64		calls;			/* that may have written */
	uint64		asked;			/* how many there were when lsn was asked */
	uint64		lsn;
	char		gids[WRITTEN_GIDS][LEASE_GID];	/* of the last ones, or empty */
	int			next_gid;
} Written;

extern void written_note(const PoolKey *key);
extern void written_note_gid(const PoolKey *key, const char *gid);
extern Written *written_find(const PoolKey *key);

#endif							/* DBPOOL_WRITTEN_H */
