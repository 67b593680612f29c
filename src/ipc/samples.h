/*
 * samples.h
 *	  What each pool did in the last hour: a sample for each minute.
 *
 * Time is cut into spans, the same for all pools, each as long as dbpool.history_interval,
 * of which the last SAMPLES are kept.  When a span ends, the first worker
 * (worker/sampler.c) writes a sample of each pool: what has come to its counters and
 * histograms since the span before ended, which it finds as the difference to what it
 * wrote down then, the base.  So nothing that runs statements has anything to do with it,
 * and percentiles are those of the span, not means of others.
 *
 * All is in shared memory, also the bases and where the present span has begun:
 *	 - When the first worker ends, its successor ends that span, later than it was due.
 *	   A span has the length that it has, and nothing is counted twice or not at all.
 *	 - A pool that is split has counters in an entry for each of its workers, each with its
 *	   base.  Their differences are added up, bucket by bucket, and the sample is in one of
 *	   the entries (shmem_first_entry()).
 *	 - Statistics that were put back begin anew: the base is nothing then.  Histograms
 *	   say so by "wanted", counters by "reset_at".  Samples of spans that had ended by
 *	   then are not shown.
 *	 - An entry that is given to another pool has neither samples nor a base.
 *	 - When the server ends, it is lost.  What the pools' statistics have from before
 *	   (stats_file.c) is the base of the first span.
 *
 * Locks: samples_lock protects the spans, samples and bases, together with pools_lock:
 * the sampler has the first exclusively and the second shared, readers have both shared, and
 * who gives an entry to another pool has pools_lock exclusively.  pools_lock is
 * taken first.
 */
#ifndef DBPOOL_SAMPLES_H
#define DBPOOL_SAMPLES_H

#include "clock.h"
#include "dbpool.h"
#include "ipc/histogram.h"
#include "storage/lwlock.h"

#define SAMPLES		60

/* A percentile of nothing. */
#define SAMPLE_NONE	PG_UINT32_MAX

typedef struct SampleSpan
{
	Ticks		began_at;
	Ticks		ended_at;
} SampleSpan;

typedef struct SpansShared
{
	uint32		n;				/* spans that have ended since the server
								 * started; the n-th is at n % SAMPLES */
	Ticks		began_at;		/* the present one */
	SampleSpan	spans[SAMPLES];
} SpansShared;

/* Of a pool in a span; its place is that of the span. */
typedef struct Sample
{
	uint32		number;			/* of the span, from 1; 0: there is no sample */
	uint32		calls;			/* that ended well, or with an error */
	uint32		errors;			/* of these; also those that got no connection */
	uint32		timeouts;		/* of these, after acquire_timeout */
	uint32		p50_us;			/* of LATENCY_TOTAL */
	uint32		p95_us;
	uint32		p99_us;
	uint32		queue_p95_us;	/* of LATENCY_QUEUE */
	float4		utilisation;	/* part of max_size that was in use, 0 to 1 */
} Sample;

/* The histograms that are sampled. */
#define SAMPLED_KINDS	2

/* What an entry's statistics had when the last span ended. */
typedef struct SampleBase
{
	Ticks		reset_at;		/* of the counters */
	uint64		calls;
	uint64		errors;
	uint64		timeouts;
	uint64		busy_us;
	uint32		wanted[SAMPLED_KINDS];
	/* they wrap around, which does a difference no harm */
	uint32		counts[SAMPLED_KINDS][HISTOGRAM_BUCKETS];
} SampleBase;

/* Besides each PoolShared there is one of these. */
typedef struct PoolSamples
{
	SampleBase	base;
	Sample		samples[SAMPLES];
} PoolSamples;

extern Size samples_shmem_bytes(void);
extern void samples_shmem_init(char *memory, LWLock *lock, bool found);
extern void samples_begin(void);
extern void samples_forget(int pool);
extern Ticks samples_began_at(void);
extern void samples_take(void);
extern void samples_copy(int pool, Sample *samples, SampleSpan *spans);

#endif							/* DBPOOL_SAMPLES_H */
