/*
 * histogram.h
 *	  How long things took: counts by length, in shared memory.
 *
 * The buckets are log-linear.  Below HISTOGRAM_STEPS microseconds each length has one of
 * its own; from there on an octave is divided into as many steps of the same width.  So a
 * length that is computed of a bucket is wrong by one part in 2 * HISTOGRAM_STEPS + 1 at
 * most, 3.03 %, from one microsecond to more than an hour; longer ones are in the last
 * bucket.  Of two histograms the sum, bucket by bucket, is that of both.
 *
 * A histogram has one writer, which needs no lock: each of its words is read and written
 * as a whole, and a reader misses at most what is being counted.  One that has several writers
 * (histogram_record_shared()) is emptied by histogram_put() alone, while there are none.
 *
 * Anybody may have it begin anew, by "wanted", which grows.  The writer obeys before it
 * counts the next time, and says so in "obeyed"; until then a reader takes the
 * histogram for empty.  The pairs of barriers are in histogram_obey() and
 * histogram_add_to().
 */
#ifndef DBPOOL_HISTOGRAM_H
#define DBPOOL_HISTOGRAM_H

#include "port/atomics.h"
#include "port/pg_bitutils.h"

#define HISTOGRAM_STEP_BITS	4
#define HISTOGRAM_STEPS		(1 << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS	464

/* The longest time that has a bucket of its own, in microseconds. */
#define HISTOGRAM_MOST_US	INT64CONST(0xFFFFFFFF)

typedef struct Histogram
{
	pg_atomic_uint32 wanted;	/* anybody's */
	/* the rest is the writer's */
	pg_atomic_uint32 obeyed;
	pg_atomic_uint64 sum_us;
	pg_atomic_uint64 counts[HISTOGRAM_BUCKETS];
} Histogram;

/* What is in one or several of them, in the memory of a process. */
typedef struct HistogramSum
{
	uint64		n;
	uint64		sum_us;
	uint64		counts[HISTOGRAM_BUCKETS];
} HistogramSum;

extern void histogram_init(Histogram *histogram);
extern void histogram_reset(Histogram *histogram);
extern void histogram_obey(Histogram *histogram);
extern void histogram_add_to(HistogramSum *sum, Histogram *histogram);
extern void histogram_put(Histogram *histogram, const HistogramSum *sum);
extern double histogram_bound_us(int bucket);
extern double histogram_value_us(int bucket);
extern double histogram_quantile_us(const HistogramSum *sum, double quantile);

/* The bucket of a time. */
static inline int
histogram_bucket(int64 us)
{
	uint64		value = us <= 0 ? 0 : (uint64) Min(us, HISTOGRAM_MOST_US);
	int			octave;

	if (value < HISTOGRAM_STEPS)
		return (int) value;
	octave = pg_leftmost_one_pos64(value) - HISTOGRAM_STEP_BITS;
	return (octave << HISTOGRAM_STEP_BITS) + (int) (value >> octave);
}

/* Count a time.  For the histogram's writer alone. */
static inline void
histogram_record(Histogram *histogram, int64 us)
{
	pg_atomic_uint64 *count = &histogram->counts[histogram_bucket(us)];

	if (unlikely(pg_atomic_read_u32(&histogram->wanted) != pg_atomic_read_u32(&histogram->obeyed)))
		histogram_obey(histogram);
	pg_atomic_write_u64(count, pg_atomic_read_u64(count) + 1);
	if (us > 0)
		pg_atomic_write_u64(&histogram->sum_us, pg_atomic_read_u64(&histogram->sum_us) + us);
}

/* The same where there are several writers. */
static inline void
histogram_record_shared(Histogram *histogram, int64 us)
{
	pg_atomic_fetch_add_u64(&histogram->counts[histogram_bucket(us)], 1);
	if (us > 0)
		pg_atomic_fetch_add_u64(&histogram->sum_us, us);
}

#endif							/* DBPOOL_HISTOGRAM_H */
