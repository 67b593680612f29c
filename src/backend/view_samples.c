/*
 * view_samples.c
 *	  The function behind dbpool_stat_history: what pools did in the last hour
 *	  (ipc/samples.h).
 */
#include "postgres.h"

#include <math.h>

#include "backend/view_row.h"

PG_FUNCTION_INFO_V1(dbpool_get_history);

/* A time, or none; in microseconds. */
static void
put_sampled_us(Row *row, uint32 us)
{
	row_put_us(row, us == SAMPLE_NONE ? NAN : (double) us);
}

static void
put_sample_row(Row *row, const PoolShared *pool, const PoolShared *latest, const SampleSpan *span, const Sample *sample)
{
	int			encoding = database_encoding(pool->key.dbid);

	row_put(row, ObjectIdGetDatum(pool->key.dbid), false);
	row_put_name(row, NameStr(latest->server), encoding);
	row_put_name(row, NameStr(latest->username), encoding);
	/* what it did before its statistics were put back is not in it */
	row_put_time(row, Max(span->began_at, pool->counters.reset_at));
	row_put_time(row, span->ended_at);
	row_put_count(row, sample->calls);
	row_put_count(row, sample->errors);
	row_put_count(row, sample->timeouts);
	put_sampled_us(row, sample->p50_us);
	put_sampled_us(row, sample->p95_us);
	put_sampled_us(row, sample->p99_us);
	put_sampled_us(row, sample->queue_p95_us);
	row_put(row, Float8GetDatum(sample->utilisation), false);
	row_end(row);
}

/* The samples of an entry, which is one of a pool that now has the name of the other. */
static void
put_entry_samples(Row *row, const PoolShared *pool, const PoolShared *latest)
{
	const PoolShared *entry = shmem_pool(pool->index);
	Sample		samples[SAMPLES];
	SampleSpan	spans[SAMPLES];
	bool		same;

	/* as long as we have the lock, no other pool gets it */
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	same = entry->in_use && memcmp(&entry->key, &pool->key, sizeof(PoolKey)) == 0;
	if (same)
		samples_copy(pool->index, samples, spans);
	LWLockRelease(dbpool_shared->pools_lock);
	for (int i = 0; i < SAMPLES && same; i++)
	{
		if (samples[i].number != 0 && spans[i].ended_at > pool->counters.reset_at)
			put_sample_row(row, pool, latest, &spans[i], &samples[i]);
	}
}

static void
put_pool_samples(Row *row, const PoolShared *pools, int n)
{
	for (int i = 0; i < n && pool_is_shown(&pools->key); i++)
		put_entry_samples(row, &pools[i], latest_entry(pools, n));
}

/* Rows of dbpool_stat_history: of pools that the caller may see. */
Datum
dbpool_get_history(PG_FUNCTION_ARGS)
{
	return put_pools_by_key(fcinfo, put_pool_samples);
}
