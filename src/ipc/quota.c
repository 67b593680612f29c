/*
 * quota.c
 *	  How many requests each role has under way, see quota.h.
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
