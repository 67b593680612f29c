/*
 * statements.h
 *	  What is known of the statements that pools were given, by their digests.
 *
 * A fixed number of entries, dbpool.max_statements, and a hash table that finds them by
 * pool and digest.  A session finds or makes the entry of a text before it submits a call, and
 * remembers where that was; the worker counts the call there when it has ended, and the
 * session adds what the worker cannot know.  Neither of the two looks into the hash
 * table for that: the call has a StatementRef, which says as well what was in the entry.
 * When the entry has been given to another statement meanwhile, nothing is counted.
 *
 * Is the table full, the entry goes of which the clock finds that it was not used of
 * late: each call of a statement winds it up, by up to STATEMENT_USES_MOST, and each
 * time that the hand passes an entry it is wound down.  So texts that never come again
 * push out each other.
 *
 * Locks: StatementsShared.lock protects the hash table, the hand, and which key an entry
 * has.  An entry's mutex protects the rest of it.  Who changes what an entry is for has
 * both.
 */
#ifndef DBPOOL_STATEMENTS_H
#define DBPOOL_STATEMENTS_H

#include "dbpool.h"
#include "ipc/stats.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

/* No padding: it is a hash key.  The pool's three are those of its PoolKey. */
typedef struct StatementKey
{
	Oid			dbid;
	Oid			serverid;
	Oid			userid;
	uint32		len;			/* of the digest */
	uint64		hash[2];		/* likewise */
} StatementKey;

StaticAssertDecl(sizeof(StatementKey) == 4 * sizeof(uint32) + 2 * sizeof(uint64),
				 "a StatementKey is hashed and compared by its bytes, and has no gaps");

/* An entry, and what is in it; a serial of 0 is that of nothing. */
typedef struct StatementRef
{
	uint64		serial;
	int			index;
} StatementRef;

#define STATEMENT_USES_MOST	5

/* Two of a Histogram's buckets are one here. */
#define STATEMENT_BUCKETS	(HISTOGRAM_BUCKETS / 2)

typedef struct StatementCounters
{
	uint64		calls;
	uint64		errors;
	uint64		rows;
	uint64		total_us;		/* from arrived to ended, see stats.h */
	uint64		max_us;
	uint64		prepared;		/* that ran what had been prepared */
	uint64		shared;			/* on a connection that others could share */
	uint64		repeats;		/* times that they were sent again */
	TimeSplit	split;
	Ticks		last_at;
	int64		local_queryid;	/* of the last one; 0: not known */
	char		traceparent[TRACEPARENT_BYTES]; /* of the last that had one */
	uint32		counts[STATEMENT_BUCKETS];	/* all are halved before one of
											 * them is full */
} StatementCounters;

typedef struct StatementShared
{
	StatementKey key;
	pg_atomic_uint64 serial;	/* read without a lock, to see whether it is
								 * still that one */
	slock_t		mutex;			/* protects what follows */
	int			uses;			/* for the clock */
	int			encoding;		/* of text */
	char		text[DBPOOL_SHOWN_SQL]; /* without literals; cut if long */
	StatementCounters counters;
} StatementShared;

/* Calls that have ended: one, or all of a batch that has one text. */
typedef struct StatementCall
{
	uint64		n;
	uint64		errors;
	uint64		rows;
	uint64		repeats;
	int64		us;				/* of all together */
	bool		prepared;
	bool		shared;
	Ticks		at;
	int64		local_queryid;
	const char *traceparent;	/* or empty */
	TimeSplit	split;
} StatementCall;

/* For the view about the others. */
typedef struct StatementsSummary
{
	int			n;
	uint64		evicted;
	Ticks		reset_at;
} StatementsSummary;

extern Size statements_shmem_bytes(void);
extern void statements_shmem_init(LWLock *lock);

extern void statement_enter(const StatementKey *key, const char *text, int encoding, StatementRef *ref);
extern void statement_put(const StatementShared *statement);
extern void statement_count(const StatementRef *ref, const StatementCall *call);
extern void statement_count_taken(const StatementRef *ref, Ticks ended_at, Ticks awake_at);
extern bool statement_copy(int index, StatementShared *copy);
extern bool statement_copy_text(const StatementRef *ref, char *text, int *encoding);
extern double statement_quantile_us(const StatementCounters *counters, double quantile);
extern void statements_reset(Oid dbid, Oid serverid);
extern void statements_sum_up(StatementsSummary *summary);

extern bool statement_is_there(const StatementRef *ref);

#endif							/* DBPOOL_STATEMENTS_H */
