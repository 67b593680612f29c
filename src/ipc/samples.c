/*
 * samples.c
 *	  What each pool did in the last hour, see samples.h.
 */
#include "postgres.h"

#include <math.h>

#include "access/transam.h"
#include "ipc/samples.h"
#include "ipc/shmem.h"

/* What has come to a pool's statistics in a span. */
typedef struct Growth
{
	uint64		calls;
	uint64		errors;
	uint64		timeouts;
	uint64		busy_us;
	int			max_size;
	HistogramSum sums[SAMPLED_KINDS];
} Growth;

static const LatencyKind sampled_kinds[SAMPLED_KINDS] = {LATENCY_TOTAL, LATENCY_QUEUE};

static PoolSamples *pool_samples;
static LWLock *samples_lock;

/* One at a time; it is large. */
static Growth growth;
static HistogramSum now_sum;

Size
samples_shmem_bytes(void)
{
	return mul_size(sizeof(PoolSamples), dbpool_max_pools);
}

void
samples_shmem_init(char *memory, LWLock *lock, bool found)
{
	pool_samples = (PoolSamples *) memory;
	samples_lock = lock;
	if (!found)
		memset(memory, 0, samples_shmem_bytes());
}

/* An entry is another pool's now.  With pools_lock, exclusively. */
void
samples_forget(int pool)
{
	memset(&pool_samples[pool], 0, sizeof(PoolSamples));
}

Ticks
samples_began_at(void)
{
	Ticks		began_at;

	LWLockAcquire(samples_lock, LW_SHARED);
	began_at = dbpool_shared->spans.began_at;
	LWLockRelease(samples_lock);
	return began_at;
}

/* --- what is new ---------------------------------------------------------------------------- */

/* What has come since then.  When the base was too much, nothing has. */
static uint64
grown(uint64 *base, uint64 now)
{
	/* a worker that ends takes with it how long its connections had been busy */
	uint64		more = now > *base ? now - *base : 0;

	*base = now;
	return more;
}

static void
add_counts(SampleBase *base, const PoolShared *copy, Ticks now, Growth *sum)
{
	const PoolCounters *counters = &copy->counters;
	uint64		errors = counters->errors + counters->unserved;
	uint64		busy_us = counters->busy_us;

	if (now > copy->conns_at)
		busy_us += shmem_busy_conns(copy) * (now - copy->conns_at);
	if (base->reset_at != counters->reset_at)
	{
		base->calls = base->errors = base->timeouts = base->busy_us = 0;
		base->reset_at = counters->reset_at;
	}
	sum->calls += grown(&base->calls, counters->statements + errors);
	sum->errors += grown(&base->errors, errors);
	sum->timeouts += grown(&base->timeouts, counters->timeouts);
	sum->busy_us += grown(&base->busy_us, busy_us);
}

/* A histogram as it is, and how often it was to begin anew by then. */
static uint32
read_histogram(Histogram *histogram, HistogramSum *sum)
{
	uint32		wanted;

	do
	{
		wanted = pg_atomic_read_u32(&histogram->wanted);
		memset(sum, 0, sizeof(HistogramSum));

		/*
		 * the pairs are those of histogram_reset(), whose add is a full
		 * barrier
		 */
		pg_read_barrier();
		histogram_add_to(sum, histogram);
		pg_read_barrier();
	} while (pg_atomic_read_u32(&histogram->wanted) != wanted);
	return wanted;
}

static void
add_histogram(SampleBase *base, int kind, Histogram *histogram, HistogramSum *sum)
{
	uint32		wanted = read_histogram(histogram, &now_sum);

	if (base->wanted[kind] != wanted)
	{
		memset(base->counts[kind], 0, sizeof(base->counts[kind]));
		base->wanted[kind] = wanted;
	}
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		uint32		more = (uint32) now_sum.counts[i] - base->counts[kind][i];

		sum->counts[i] += more;
		sum->n += more;
		base->counts[kind][i] = (uint32) now_sum.counts[i];
	}
}

/* Add what is new of an entry, and make what it has the base of the next span. */
static void
add_entry(int index, Ticks now, Growth *sum)
{
	PoolShared *entry = shmem_pool(index);
	SampleBase *base = &pool_samples[index].base;
	PoolShared	copy;

	SpinLockAcquire(&entry->mutex);
	copy = *entry;
	SpinLockRelease(&entry->mutex);
	sum->max_size = Max(sum->max_size, copy.max_size);
	add_counts(base, &copy, now, sum);
	for (int kind = 0; kind < SAMPLED_KINDS; kind++)
		add_histogram(base, kind, &stats_of(index)->latency[sampled_kinds[kind]], &sum->sums[kind]);
}

/* --- samples -------------------------------------------------------------------------------- */

static uint32
quantile_us(const HistogramSum *sum, double quantile)
{
	return sum->n == 0 ? SAMPLE_NONE : (uint32) rint(histogram_quantile_us(sum, quantile));
}

static uint32
number_of_32_bits(uint64 value)
{
	return (uint32) Min(value, PG_UINT32_MAX);
}

static void
write_sample(Sample *sample, uint32 number, int64 length_us)
{
	const HistogramSum *total = &growth.sums[0];

	sample->number = number;
	sample->calls = number_of_32_bits(growth.calls);
	sample->errors = number_of_32_bits(growth.errors);
	sample->timeouts = number_of_32_bits(growth.timeouts);
	sample->p50_us = quantile_us(total, 0.5);
	sample->p95_us = quantile_us(total, 0.95);
	sample->p99_us = quantile_us(total, 0.99);
	sample->queue_p95_us = quantile_us(&growth.sums[1], 0.95);
	sample->utilisation = Min((double) growth.busy_us / Max(length_us, 1) / Max(growth.max_size, 1), 1);
}

static bool
is_sampled(const PoolShared *entry)
{
	return entry->in_use && !TransactionIdIsValid(entry->key.xid);
}

/* Sum up all entries of the pool whose first one this is. */
static void
sum_up(int first, Ticks now)
{
	const PoolShared *entry = shmem_pool(first);

	memset(&growth, 0, sizeof(growth));
	add_entry(first, now, &growth);
	/* those of a pool that has never been split are not looked for */
	if (entry->worker == shmem_first_worker(&entry->key) && pg_atomic_read_u32(&shmem_pool(first)->workers) <= 1)
		return;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		if (i != first && is_sampled(shmem_pool(i)) &&
			memcmp(&shmem_pool(i)->key, &entry->key, sizeof(PoolKey)) == 0)
			add_entry(i, now, &growth);
	}
}

/* End the present span: write a sample of each pool.  For the first worker; throws nothing. */
void
samples_take(void)
{
	SpansShared *spans = &dbpool_shared->spans;
	SampleSpan *span;
	Ticks		now;

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	LWLockAcquire(samples_lock, LW_EXCLUSIVE);
	now = ticks_now();
	span = &spans->spans[++spans->n % SAMPLES];
	span->began_at = spans->began_at;
	span->ended_at = now;
	spans->began_at = now;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		if (!is_sampled(shmem_pool(i)) || shmem_first_entry(i) != i)
			continue;
		sum_up(i, now);
		write_sample(&pool_samples[i].samples[spans->n % SAMPLES], spans->n, span->ended_at - span->began_at);
	}
	LWLockRelease(samples_lock);
	LWLockRelease(dbpool_shared->pools_lock);
}

/*
 * The shared memory has just been made, and statistics may have come from before: they are
 * of no span.  In the postmaster.
 */
void
samples_begin(void)
{
	dbpool_shared->spans.began_at = ticks_now();
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		if (shmem_pool(i)->in_use)
			add_entry(i, dbpool_shared->spans.began_at, &growth);
	}
}

/*
 * Copy the samples of an entry, and when their spans were; those of no span have the number
 * 0.  The oldest is first.  The caller has pools_lock.
 */
void
samples_copy(int pool, Sample *samples, SampleSpan *spans)
{
	const SpansShared *shared = &dbpool_shared->spans;

	LWLockAcquire(samples_lock, LW_SHARED);
	for (uint32 i = 0; i < SAMPLES; i++)
	{
		uint32		place = (shared->n + 1 + i) % SAMPLES;

		samples[i] = pool_samples[pool].samples[place];
		spans[i] = shared->spans[place];
		/* else it is of a span that was there before, or of none */
		if (samples[i].number != shared->n + 1 + i - SAMPLES)
			samples[i].number = 0;
	}
	LWLockRelease(samples_lock);
}
