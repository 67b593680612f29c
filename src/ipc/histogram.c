/*
 * histogram.c
 *	  How long things took, see histogram.h.
 */
#include "postgres.h"

#include <math.h>

#include "ipc/histogram.h"

StaticAssertDecl(HISTOGRAM_BUCKETS == (32 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS,
				 "the last bucket ends where HISTOGRAM_MOST_US does");

/* Make an empty one of zeroed memory. */
void
histogram_init(Histogram *histogram)
{
	pg_atomic_init_u32(&histogram->wanted, 0);
	pg_atomic_init_u32(&histogram->obeyed, 0);
	pg_atomic_init_u64(&histogram->sum_us, 0);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		pg_atomic_init_u64(&histogram->counts[i], 0);
}

/* Have it begin anew.  For anybody. */
void
histogram_reset(Histogram *histogram)
{
	pg_atomic_fetch_add_u32(&histogram->wanted, 1);
}

/* Begin anew, as was wanted.  For its writer alone. */
void
histogram_obey(Histogram *histogram)
{
	uint32		wanted = pg_atomic_read_u32(&histogram->wanted);

	pg_atomic_write_u64(&histogram->sum_us, 0);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		pg_atomic_write_u64(&histogram->counts[i], 0);
	/* the pair is in histogram_add_to() */
	pg_write_barrier();
	pg_atomic_write_u32(&histogram->obeyed, wanted);
}

/* Add what it has to a sum; nothing, if it is to begin anew. */
void
histogram_add_to(HistogramSum *sum, Histogram *histogram)
{
	uint32		wanted = pg_atomic_read_u32(&histogram->wanted);
	uint64		counts[HISTOGRAM_BUCKETS];
	uint64		sum_us;

	if (pg_atomic_read_u32(&histogram->obeyed) != wanted)
		return;
	/* the pair is in histogram_obey() */
	pg_read_barrier();
	sum_us = pg_atomic_read_u64(&histogram->sum_us);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		counts[i] = pg_atomic_read_u64(&histogram->counts[i]);
	pg_read_barrier();
	/* meanwhile its writer may have been at it */
	if (pg_atomic_read_u32(&histogram->wanted) != wanted)
		return;
	sum->sum_us += sum_us;
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		sum->counts[i] += counts[i];
		sum->n += counts[i];
	}
}

/* Have it hold what a sum does.  When nobody else knows it. */
void
histogram_put(Histogram *histogram, const HistogramSum *sum)
{
	histogram_obey(histogram);
	pg_atomic_write_u64(&histogram->sum_us, sum->sum_us);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		pg_atomic_write_u64(&histogram->counts[i], sum->counts[i]);
}

/* The shortest time of a bucket. */
static uint64
first_us(int bucket)
{
	int			octave = (bucket >> HISTOGRAM_STEP_BITS) - 1;

	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	return (uint64) (HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << octave;
}

/* The longest time of a bucket; that of the last one has no end. */
double
histogram_bound_us(int bucket)
{
	return bucket == HISTOGRAM_BUCKETS - 1 ? INFINITY : (double) (first_us(bucket + 1) - 1);
}

/*
 * The time that stands for all of a bucket.  It is off by the same part from both ends:
 * the harmonic mean of this bucket's beginning and the next one's.
 */
double
histogram_value_us(int bucket)
{
	double		first = first_us(bucket);
	double		next = first_us(bucket + 1);

	return next - first <= 1 ? first : 2 * first * next / (first + next);
}

/* The time that so large a part of them did not exceed; NAN when there are none. */
double
histogram_quantile_us(const HistogramSum *sum, double quantile)
{
	uint64		rank = (uint64) ceil(quantile * sum->n);
	uint64		seen = 0;

	if (sum->n == 0)
		return NAN;
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		seen += sum->counts[i];
		if (seen >= Max(rank, 1))
			return histogram_value_us(i);
	}
	return histogram_value_us(HISTOGRAM_BUCKETS - 1);
}
