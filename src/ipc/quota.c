/*
 * quota.c
 *	  How many requests and recorders each role has, see quota.h.
 *
 * A table in shared memory, open to a search from the hash of a role's OID on.
 * An entry is one atomic word, the role in its upper half and the count in its
 * lower one, so that a count can never be another role's.  An entry that is
 * not empty never becomes so again, which is what ends a search; a role comes
 * into the table, into an empty entry or in place of one that counts nothing,
 * under pools_lock, so that no role has two entries.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"

#include "ipc/quota.h"
#include "ipc/shmem.h"

#define ROLE_OF(word)	((Oid) ((word) >> 32))
#define COUNT_OF(word)	((uint32) (word))

static inline pg_atomic_uint64 *
entry_at(Oid roleid, int step)
{
	return &dbpool_shared->roles[(hash_uint32(roleid) + step) % QUOTA_ROLES];
}

/* The role's entry, or NULL. */
static pg_atomic_uint64 *
find_entry(Oid roleid)
{
	for (int i = 0; i < QUOTA_ROLES; i++)
	{
		pg_atomic_uint64 *entry = entry_at(roleid, i);
		uint64		word = pg_atomic_read_u64(entry);

		if (ROLE_OF(word) == roleid)
			return entry;
		if (word == 0)
			return NULL;
	}
	return NULL;
}

/* Bring the role into the table; NULL when it is full of others that count. */
static pg_atomic_uint64 *
make_entry(Oid roleid)
{
	pg_atomic_uint64 *entry;

	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	entry = find_entry(roleid);
	for (int i = 0; entry == NULL && i < QUOTA_ROLES; i++)
	{
		uint64		word = pg_atomic_read_u64(entry_at(roleid, i));

		if (COUNT_OF(word) == 0 &&
			pg_atomic_compare_exchange_u64(entry_at(roleid, i), &word,
										   (uint64) roleid << 32))
			entry = entry_at(roleid, i);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	return entry;
}

/*
 * Count one request more for the role.  Returns what quota_give() takes, or
 * QUOTA_EXCEEDED, and then nothing was counted.  Throws nothing.
 */
int
quota_take(Oid roleid, uint32 limit)
{
	for (;;)
	{
		pg_atomic_uint64 *entry = find_entry(roleid);
		uint64		word;

		if (entry == NULL)
			entry = make_entry(roleid);
		if (entry == NULL)
			return QUOTA_NONE;
		word = pg_atomic_read_u64(entry);
		while (ROLE_OF(word) == roleid)
		{
			if (COUNT_OF(word) >= limit)
				return QUOTA_EXCEEDED;
			if (pg_atomic_compare_exchange_u64(entry, &word, word + 1))
				return (int) (entry - dbpool_shared->roles);
		}
		/* another role has taken the entry over */
	}
}

/* The request is over. */
void
quota_give(int quota)
{
	if (quota != QUOTA_NONE)
		pg_atomic_fetch_sub_u64(&dbpool_shared->roles[quota], 1);
}

/* Most recorders of all ordinary roles together. */
int
quota_recorders(void)
{
	int			most = (max_worker_processes - dbpool_shared->nworkers) / 2;

	return Max(Min(most, QUOTA_RECORDERS), 1);
}

/* Most recorders of one of them. */
int
quota_recorders_of_role(void)
{
	return Max(quota_recorders() - 1, 1);
}

/*
 * Take a place for a recorder that this process is about to start for the role.
 * Returns QUOTA_NONE when all are taken, QUOTA_EXCEEDED when the role has its
 * share.  Throws nothing.
 */
int
quota_take_recorder(Oid roleid)
{
	int			most = quota_recorders();
	int			of_role = 0;
	int			place = QUOTA_NONE;

	/* places become free without the lock, but are taken only with it */
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	for (int i = 0; i < most; i++)
	{
		uint64		word = pg_atomic_read_u64(&dbpool_shared->recorders[i]);

		if (word == 0)
			place = i;
		else if (ROLE_OF(word) == roleid)
			of_role++;
	}
	if (of_role >= quota_recorders_of_role())
		place = QUOTA_EXCEEDED;
	if (place >= 0)
		pg_atomic_write_u64(&dbpool_shared->recorders[place],
							((uint64) roleid << 32) | (uint32) MyProcPid);
	LWLockRelease(dbpool_shared->pools_lock);
	return place;
}

/*
 * In the recorder: the place that its session has taken is this process's now.
 * False when the session has given it back.
 */
bool
quota_adopt_recorder(int place, int session)
{
	pg_atomic_uint64 *entry = &dbpool_shared->recorders[place];
	uint64		word = pg_atomic_read_u64(entry);

	return COUNT_OF(word) == (uint32) session &&
		pg_atomic_compare_exchange_u64(entry, &word,
									   ((uint64) ROLE_OF(word) << 32) | (uint32) MyProcPid);
}

/* Give a place back, if it is this process's. */
void
quota_give_recorder(int place)
{
	uint64		word;

	if (place == QUOTA_NONE)
		return;
	word = pg_atomic_read_u64(&dbpool_shared->recorders[place]);
	if (COUNT_OF(word) == (uint32) MyProcPid)
		pg_atomic_compare_exchange_u64(&dbpool_shared->recorders[place], &word, 0);
}
