/*
 * lease.c
 *	  Leases in shared memory, and the one function that changes their state; the
 *	  protocol stands in lease.h.
 */
#include "postgres.h"

#include "storage/shmem.h"

#include "ipc/lease.h"
#include "ipc/quota.h"
#include "ipc/request.h"

static LeaseShared *leases;

/* The legal moves of lease_move(): from, to. */
static const LeaseState moves[][2] = {
	{LEASE_CLAIMED, LEASE_OPEN},
	{LEASE_CLAIMED, LEASE_FREE},
	{LEASE_OPEN, LEASE_CLAIMED},
	{LEASE_OPEN, LEASE_ENDED},
	{LEASE_OPEN, LEASE_RELEASED},
	{LEASE_ENDED, LEASE_FREE},
	{LEASE_RELEASED, LEASE_FREE},
};

/* Each has a connection, or a request that waits for one. */
int
lease_count(void)
{
	return dbpool_max_connections + request_count();
}

Size
lease_shmem_bytes(void)
{
	return mul_size(sizeof(LeaseShared), lease_count());
}

/* Set up the entries in memory; initialize them unless that was done. */
void
lease_shmem_init(char *memory, bool found)
{
	leases = (LeaseShared *) memory;
	if (found)
		return;
	memset(leases, 0, sizeof(LeaseShared) * lease_count());
	for (int i = 0; i < lease_count(); i++)
	{
		pg_atomic_init_u64(&leases[i].word, LEASE_FREE);
		pg_atomic_init_u64(&leases[i].running, 0);
		pg_atomic_init_u64(&leases[i].begun, 0);
		leases[i].quota = QUOTA_NONE;
		SpinLockInit(&leases[i].mutex);
	}
}

LeaseShared *
lease_entry(int index)
{
	Assert(index >= 0 && index < lease_count());
	return &leases[index];
}

int
lease_index(const LeaseShared *lease)
{
	return (int) (lease - leases);
}

const char *
lease_state_name(LeaseState state)
{
	static const char *const names[] = {"free", "claimed", "open", "ended", "released"};

	return names[state];
}

/* Where the random number of a gid is noted, and the number: its end, in hexadecimal digits. */
static pg_atomic_uint64 *
committed_place(const char *gid, uint64 *number)
{
	const char *digits = strrchr(gid, '_');

	*number = digits != NULL ? (uint64) strtoull(digits + 1, NULL, 16) : 0;
	return &dbpool_shared->committed_gids[*number % COMMITTED_GIDS];
}

/* The prepared transaction was committed at its remote, which has said so. */
void
lease_note_committed(const char *gid)
{
	uint64		number;
	pg_atomic_uint64 *place = committed_place(gid, &number);

	pg_atomic_write_u64(place, number);
}

/* Has somebody seen that?  It may be forgotten, but is never wrong.  Not while a lease has it. */
bool
lease_saw_committed(const char *gid)
{
	uint64		number;
	pg_atomic_uint64 *place = committed_place(gid, &number);

	return number != 0 && pg_atomic_read_u64(place) == number;
}

/* Claim an entry, if it is free, for a transaction with that worker. */
bool
lease_claim(LeaseShared *lease, int worker, uint64 *hold)
{
	uint64		word = lease_word(lease);
	bool		claimed;

	if (lease_word_state(word) != LEASE_FREE)
		return false;
	*hold = ((word >> 16) + 1) << 16 | (uint64) worker << 8;
	SpinLockAcquire(&lease->mutex);
	claimed = pg_atomic_compare_exchange_u64(&lease->word, &word, *hold | LEASE_CLAIMED);
	/* who sees the new word is not to see what the one before has written */
	if (claimed)
		lease->pid = 0;
	SpinLockRelease(&lease->mutex);
	return claimed;
}

/*
 * Move a lease from one state to another.  Returns false when it was not in the first
 * state any more, or is not held by that hold.  All that was written before the move is
 * seen by whoever sees the new state.
 */
bool
lease_move(LeaseShared *lease, uint64 hold, LeaseState from, LeaseState to)
{
	uint64		expected = hold | from;
	int			quota = lease->quota;

	for (int i = 0; i < lengthof(moves); i++)
	{
		if (moves[i][0] != from || moves[i][1] != to)
			continue;
		if (!pg_atomic_compare_exchange_u64(&lease->word, &expected, hold | to))
			return false;
		if (to == LEASE_FREE)
			quota_give(quota);
		return true;
	}
	elog(FATAL, "impossible move of a dbpool lease from \"%s\" to \"%s\"",
		 lease_state_name(from), lease_state_name(to));
	return false;
}
