/*
 * statements.c
 *	  What is known of the statements that pools were given, see statements.h.
 */
#include "postgres.h"

#include <math.h>

#include "ipc/statements.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

typedef struct StatementsShared
{
	LWLock	   *lock;			/* protects what follows */
	int			n;				/* entries in use */
	int			hand;
	uint64		last_serial;
	uint64		evicted;
	Ticks		reset_at;
	StatementShared entries[FLEXIBLE_ARRAY_MEMBER];
} StatementsShared;

/* An element of the hash table. */
typedef struct StatementIndex
{
	StatementKey key;
	int			index;
} StatementIndex;

static StatementsShared *statements_shared;
static StatementShared *statements; /* its entries */
static HTAB *statements_by_key;

static Size
entries_bytes(void)
{
	return add_size(offsetof(StatementsShared, entries),
					mul_size(sizeof(StatementShared), dbpool_max_statements));
}

Size
statements_shmem_bytes(void)
{
	if (dbpool_max_statements == 0)
		return 0;
	return add_size(MAXALIGN(entries_bytes()),
					hash_estimate_size(dbpool_max_statements, sizeof(StatementIndex)));
}

/* Find it, and set it up if nobody has.  With AddinShmemInitLock held. */
void
statements_shmem_init(LWLock *lock)
{
	HASHCTL		ctl;
	bool		found;

	if (dbpool_max_statements == 0)
		return;
	statements_shared = ShmemInitStruct("dbpool statements", entries_bytes(), &found);
	statements = statements_shared->entries;
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(StatementKey);
	ctl.entrysize = sizeof(StatementIndex);
	statements_by_key = ShmemInitHash("dbpool statements by digest", dbpool_max_statements,
									  dbpool_max_statements, &ctl, HASH_ELEM | HASH_BLOBS);
	if (found)
		return;
	memset(statements_shared, 0, entries_bytes());
	statements_shared->lock = lock;
	for (int i = 0; i < dbpool_max_statements; i++)
	{
		pg_atomic_init_u64(&statements[i].serial, 0);
		SpinLockInit(&statements[i].mutex);
	}
}

/* Is it still what the entry has? */
bool
statement_is_there(const StatementRef *ref)
{
	return ref->serial != 0 && pg_atomic_read_u64(&statements[ref->index].serial) == ref->serial;
}

/* Look it up, with the lock held. */
static bool
statement_find(const StatementKey *key, StatementRef *ref)
{
	StatementIndex *found = hash_search(statements_by_key, key, HASH_FIND, NULL);

	if (found == NULL)
		return false;
	ref->index = found->index;
	ref->serial = pg_atomic_read_u64(&statements[found->index].serial);
	return true;
}

/* Have the entry hold nothing, with the lock held. */
static void
statement_empty(StatementShared *entry)
{
	(void) hash_search(statements_by_key, &entry->key, HASH_REMOVE, NULL);
	SpinLockAcquire(&entry->mutex);
	pg_atomic_write_u64(&entry->serial, 0);
	SpinLockRelease(&entry->mutex);
	statements_shared->n--;
}

/* Has the entry not been used of late?  Winds it down. */
static bool
wind_down(StatementShared *entry)
{
	bool		idle;

	SpinLockAcquire(&entry->mutex);
	idle = entry->uses == 0;
	if (!idle)
		entry->uses--;
	SpinLockRelease(&entry->mutex);
	return idle;
}

/* The entry to be used next, which is empty, with the lock held. */
static StatementShared *
statement_free_entry(void)
{
	bool		full = statements_shared->n == dbpool_max_statements;

	for (;;)
	{
		StatementShared *entry = &statements[statements_shared->hand];

		statements_shared->hand = (statements_shared->hand + 1) % dbpool_max_statements;
		if (pg_atomic_read_u64(&entry->serial) == 0)
			return entry;
		if (full && wind_down(entry))
		{
			statement_empty(entry);
			statements_shared->evicted++;
			return entry;
		}
	}
}

/* Give an empty entry to a statement, with the lock held.  The entry's mutex is the caller's to take. */
static StatementShared *
statement_take_entry(const StatementKey *key)
{
	StatementShared *entry = statement_free_entry();
	bool		found;

	/* there are as many elements as entries, and one is free */
	StatementIndex *made = hash_search(statements_by_key, key, HASH_ENTER, &found);

	made->index = (int) (entry - statements);
	statements_shared->n++;
	return entry;
}

/* Make an entry of one that there was before.  When nobody else knows the table. */
void
statement_put(const StatementShared *statement)
{
	StatementShared *entry = statement_take_entry(&statement->key);

	memcpy(entry, statement, sizeof(StatementShared));
	SpinLockInit(&entry->mutex);
	pg_atomic_init_u64(&entry->serial, ++statements_shared->last_serial);
}

/*
 * The entry of a statement; it is made if there is none.  text is what is shown of it, shorter
 * than DBPOOL_SHOWN_SQL.
 */
void
statement_enter(const StatementKey *key, const char *text, int encoding, StatementRef *ref)
{
	StatementShared *entry;
	bool		found;

	LWLockAcquire(statements_shared->lock, LW_SHARED);
	found = statement_find(key, ref);
	LWLockRelease(statements_shared->lock);
	if (found)
		return;
	LWLockAcquire(statements_shared->lock, LW_EXCLUSIVE);
	if (!statement_find(key, ref))
	{
		entry = statement_take_entry(key);
		ref->index = (int) (entry - statements);
		ref->serial = ++statements_shared->last_serial;
		SpinLockAcquire(&entry->mutex);
		entry->key = *key;
		entry->uses = 0;
		entry->encoding = encoding;
		strlcpy(entry->text, text, sizeof(entry->text));
		memset(&entry->counters, 0, sizeof(entry->counters));
		pg_atomic_write_u64(&entry->serial, ref->serial);
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(statements_shared->lock);
}

/* Count so many calls of one length. */
static void
count_bucket(uint32 *counts, int64 us, uint64 n)
{
	int			bucket = histogram_bucket(us) / 2;

	while (n > PG_UINT32_MAX - counts[bucket])
	{
		for (int i = 0; i < STATEMENT_BUCKETS; i++)
			counts[i] /= 2;
		n = Min(n, PG_UINT32_MAX / 2);
	}
	counts[bucket] += (uint32) n;
}

/* Count what has ended, if the entry is still that of its statement.  Throws nothing. */
void
statement_count(const StatementRef *ref, const StatementCall *call)
{
	StatementShared *entry = &statements[ref->index];
	StatementCounters *counters = &entry->counters;
	int64		us_each = call->us / (int64) Max(call->n, 1);

	SpinLockAcquire(&entry->mutex);
	if (pg_atomic_read_u64(&entry->serial) == ref->serial)
	{
		entry->uses = Min(entry->uses + 1, STATEMENT_USES_MOST);
		counters->calls += call->n;
		counters->errors += call->errors;
		counters->rows += call->rows;
		counters->repeats += call->repeats;
		counters->total_us += call->us;
		counters->max_us = Max(counters->max_us, (uint64) us_each);
		counters->prepared += call->prepared ? call->n : 0;
		counters->shared += call->shared ? call->n : 0;
		counters->last_at = call->at;
		counters->local_queryid = call->local_queryid;
		if (call->traceparent[0] != '\0')
			strlcpy(counters->traceparent, call->traceparent, sizeof(counters->traceparent));
		split_add(&counters->split, &call->split);
		count_bucket(counters->counts, us_each, call->n);
	}
	SpinLockRelease(&entry->mutex);
}

/* What stats_taken() adds to a pool's. */
void
statement_count_taken(const StatementRef *ref, Ticks ended_at, Ticks awake_at)
{
	StatementShared *entry = &statements[ref->index];
	Ticks		begun = Max(ended_at, awake_at);
	Ticks		now = ticks_now();

	SpinLockAcquire(&entry->mutex);
	if (pg_atomic_read_u64(&entry->serial) == ref->serial)
	{
		entry->counters.split.worker_us += begun - ended_at;
		entry->counters.split.decode_us += now - begun;
	}
	SpinLockRelease(&entry->mutex);
}

/* Copy an entry; false when it has nothing. */
bool
statement_copy(int index, StatementShared *copy)
{
	StatementShared *entry = &statements[index];

	SpinLockAcquire(&entry->mutex);
	memcpy(copy, entry, sizeof(StatementShared));
	SpinLockRelease(&entry->mutex);
	return pg_atomic_read_u64(&copy->serial) != 0;
}

/* Copy the text, into DBPOOL_SHOWN_SQL bytes; false when the entry is another one's by now. */
bool
statement_copy_text(const StatementRef *ref, char *text, int *encoding)
{
	StatementShared *entry;
	bool		there;

	if (ref->serial == 0)
		return false;
	entry = &statements[ref->index];
	SpinLockAcquire(&entry->mutex);
	there = pg_atomic_read_u64(&entry->serial) == ref->serial;
	memcpy(text, entry->text, sizeof(entry->text));
	*encoding = entry->encoding;
	SpinLockRelease(&entry->mutex);
	return there;
}

/* The time that so large a part of the calls did not exceed; NAN when there are none. */
double
statement_quantile_us(const StatementCounters *counters, double quantile)
{
	uint64		n = 0;
	uint64		seen = 0;
	uint64		rank;

	for (int i = 0; i < STATEMENT_BUCKETS; i++)
		n += counters->counts[i];
	rank = Max((uint64) ceil(quantile * n), 1);
	for (int i = 0; i < STATEMENT_BUCKETS; i++)
	{
		double		first = i == 0 ? 0 : histogram_bound_us(2 * i - 1) + 1;
		double		next = histogram_bound_us(2 * i + 1) + 1;

		seen += counters->counts[i];
		if (seen < rank)
			continue;

		/*
		 * as in histogram_value_us(); but there is no longer one than the
		 * longest
		 */
		if (!isinf(next) && next - first > 2)
			first = 2 * first * next / (first + next);
		return Min(first, (double) counters->max_us);
	}
	return NAN;
}

/* Forget those of a server, or of a database. */
void
statements_reset(Oid dbid, Oid serverid)
{
	if (dbpool_max_statements == 0)
		return;
	LWLockAcquire(statements_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < dbpool_max_statements; i++)
	{
		StatementShared *entry = &statements[i];

		if (pg_atomic_read_u64(&entry->serial) != 0 && entry->key.dbid == dbid &&
			(!OidIsValid(serverid) || entry->key.serverid == serverid))
			statement_empty(entry);
	}
	if (!OidIsValid(serverid))
	{
		statements_shared->evicted = 0;
		statements_shared->reset_at = ticks_now();
	}
	LWLockRelease(statements_shared->lock);
}

void
statements_sum_up(StatementsSummary *summary)
{
	memset(summary, 0, sizeof(StatementsSummary));
	if (dbpool_max_statements == 0)
		return;
	LWLockAcquire(statements_shared->lock, LW_SHARED);
	summary->n = statements_shared->n;
	summary->evicted = statements_shared->evicted;
	summary->reset_at = statements_shared->reset_at;
	LWLockRelease(statements_shared->lock);
}
