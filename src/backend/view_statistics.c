/*
 * view_statistics.c
 *	  The functions behind the views of times: histograms, the last minute, where the time
 *	  went (ipc/stats.h).
 *
 * A pool that is split has an entry for each of its workers; here it is one.
 */
#include "postgres.h"

#include <math.h>

#include "backend/view_row.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_get_pool_rates);
PG_FUNCTION_INFO_V1(dbpool_get_latencies);
PG_FUNCTION_INFO_V1(dbpool_get_histograms);

static int
compare_keys(const void *a, const void *b)
{
	return memcmp(&((const PoolShared *) a)->key, &((const PoolShared *) b)->key, sizeof(PoolKey));
}

/*
 * Copies of the entries of pools that are committed, by their keys: of each pool one after
 * the other.
 */
PoolShared *
pools_by_key(int *n)
{
	int			all;
	PoolShared *pools = pools_copy(&all);

	*n = 0;
	for (int i = 0; i < all; i++)
	{
		if (pools[i].key.xid == InvalidTransactionId)
			pools[(*n)++] = pools[i];
	}
	qsort(pools, *n, sizeof(PoolShared), compare_keys);
	return pools;
}

/* How many of the entries are of the first one's pool; n is not 0. */
int
entries_of_pool(const PoolShared *pools, int n)
{
	int			same = 1;

	while (same < n && compare_keys(pools, &pools[same]) == 0)
		same++;
	return same;
}

/* The entry of them that has the pool's present name and size. */
const PoolShared *
latest_entry(const PoolShared *pools, int n)
{
	const PoolShared *latest = pools;

	for (int i = 1; i < n; i++)
	{
		if (pools[i].used_at > latest->used_at)
			latest = &pools[i];
	}
	return latest;
}

/* The rows of a view, of one pool after the other, which is given by its entries. */
Datum
put_pools_by_key(FunctionCallInfo fcinfo, void (*put) (Row *row, const PoolShared *pools, int n))
{
	Row			row = row_start(fcinfo);
	int			n;
	PoolShared *pools = pools_by_key(&n);
	int			entries;

	for (int i = 0; i < n; i += entries)
	{
		entries = entries_of_pool(&pools[i], n - i);
		put(&row, &pools[i], entries);
	}
	return (Datum) 0;
}

/*
 * Has the copy's pool its entry still?  Then it has it as long as the caller has pools_lock,
 * and so what stands beside the entry is that pool's.
 */
static bool
has_entry(const PoolShared *copy)
{
	const PoolShared *entry = shmem_pool(copy->index);

	return entry->in_use && memcmp(&entry->key, &copy->key, sizeof(PoolKey)) == 0;
}

/* The sum of the histograms of a pool's entries. */
void
pools_sum_latency(const PoolShared *pools, int n, LatencyKind kind, HistogramSum *sum)
{
	memset(sum, 0, sizeof(HistogramSum));
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < n; i++)
	{
		if (has_entry(&pools[i]))
			histogram_add_to(sum, &stats_of(pools[i].index)->latency[kind]);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

/* Where the time went in all of a pool's entries. */
static void
sum_split(const PoolShared *pools, int n, TimeSplit *split)
{
	memset(split, 0, sizeof(TimeSplit));
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < n; i++)
	{
		split_add(split, &pools[i].counters.split);
		if (!has_entry(&pools[i]))
			continue;
		split->worker_us += pg_atomic_read_u64(&stats_of(pools[i].index)->wake_us);
		split->decode_us += pg_atomic_read_u64(&stats_of(pools[i].index)->take_us);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

static void
put_key(Row *row, const PoolKey *key)
{
	row_put(row, ObjectIdGetDatum(key->dbid), false);
	row_put(row, ObjectIdGetDatum(key->serverid), false);
	row_put(row, ObjectIdGetDatum(key->userid), false);
}

/* Key, kind and names; false when the rest is not for the caller. */
static bool
put_latency_head(Row *row, const PoolShared *pools, int n, LatencyKind kind)
{
	const PoolShared *latest = latest_entry(pools, n);
	int			encoding;

	put_key(row, &pools->key);
	row_put(row, CStringGetTextDatum(latency_name(kind)), false);
	if (!pool_is_shown(&pools->key))
		return false;
	encoding = database_encoding(pools->key.dbid);
	row_put_name(row, NameStr(latest->server), encoding);
	row_put_name(row, NameStr(latest->username), encoding);
	return true;
}

static void
put_split(Row *row, const TimeSplit *split)
{
	row_put_mean(row, split->queue_us + split->worker_us + split->wire_us + split->remote_us +
				 split->decode_us, split->calls);
	row_put_parts(row, split);
}

/* What the last minute was, and where the time went, of one pool. */
static void
put_rates(Row *row, const PoolShared *pools, int n, Ticks now)
{
	int			max_size = latest_entry(pools, n)->max_size;
	MinutePiece minute = {0};
	TimeSplit	split;
	int64		length = 1;
	double		seconds;

	for (int i = 0; i < n; i++)
	{
		PoolShared	pool = pools[i];
		MinutePiece sum;

		minute_busy(pool.counters.minute, shmem_busy_conns(&pool), pool.conns_at, now);
		length = minute_sum(pool.counters.minute, now, &sum);
		minute.statements += sum.statements;
		minute.errors += sum.errors;
		minute.rows += sum.rows;
		minute.busy_us += sum.busy_us;
	}
	sum_split(pools, n, &split);
	seconds = length / 1e6;
	row_put(row, Float8GetDatum(minute.statements / seconds), false);
	row_put(row, Float8GetDatum(minute.errors / seconds), false);
	row_put(row, Float8GetDatum(minute.rows / seconds), false);
	row_put(row, Float8GetDatum(Min((double) minute.busy_us / length / Max(max_size, 1), 1.0)),
			max_size == 0);
	put_split(row, &split);
}

static void
put_rates_row(Row *row, const PoolShared *pools, int n)
{
	put_key(row, &pools->key);
	if (pool_is_shown(&pools->key))
		put_rates(row, pools, n, ticks_now());
	row_end(row);
}

/* What dbpool_stat_pools says of the last minute, and of where the time went. */
Datum
dbpool_get_pool_rates(PG_FUNCTION_ARGS)
{
	return put_pools_by_key(fcinfo, put_rates_row);
}

static void
put_latencies(Row *row, const PoolShared *pools, int n)
{
	for (int kind = 0; kind < LATENCY_KINDS; kind++)
	{
		if (put_latency_head(row, pools, n, kind))
		{
			HistogramSum sum;

			pools_sum_latency(pools, n, kind, &sum);
			row_put_latency(row, &sum);
		}
		row_end(row);
	}
}

/* Rows of dbpool_stat_latency. */
Datum
dbpool_get_latencies(PG_FUNCTION_ARGS)
{
	return put_pools_by_key(fcinfo, put_latencies);
}

/* The buckets that have something, and the last one. */
static void
put_buckets(Row *row, const PoolShared *pools, int n, LatencyKind kind)
{
	HistogramSum sum;
	uint64		cumulative = 0;

	pools_sum_latency(pools, n, kind, &sum);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		cumulative += sum.counts[i];
		if (i < HISTOGRAM_BUCKETS - 1 && sum.counts[i] == 0)
			continue;
		(void) put_latency_head(row, pools, n, kind);
		row_put_us(row, histogram_bound_us(i));
		row_put_count(row, sum.counts[i]);
		row_put_count(row, cumulative);
		row_end(row);
	}
}

static void
put_pool_buckets(Row *row, const PoolShared *pools, int n)
{
	for (int kind = 0; kind < LATENCY_KINDS && pool_is_shown(&pools->key); kind++)
		put_buckets(row, pools, n, kind);
}

/* Rows of dbpool_histograms. */
Datum
dbpool_get_histograms(PG_FUNCTION_ARGS)
{
	return put_pools_by_key(fcinfo, put_pool_buckets);
}
