/*
 * stats.h
 *	  What is known of the times that a pool's calls took, and of its last minute.
 *
 * A call goes these ways, by the clock that all processes share:
 *
 *	 arrived   its session submits it
 *	 received  the worker has all of it
 *	 sent	   it is handed to a connection: at once, or after it has waited for one
 *	 begun	   as far as the worker knows, the remote begins with it: when it was sent, or
 *			   when the answer to the one before it on that connection was complete
 *	 ended	   its answer is complete, and what there is of it lies in the session's ring
 *	 taken	   the session has made of it what it wants
 *
 * Histograms, all of the worker that has the pool's entry; a call is in each that it has
 * come to, once, however it ends:
 *
 *	 queue		 waiting for a connection, and on a shared one for those before it; a call that
 *				 gets none, or is given up before, has waited until then
 *	 login		 from the beginning of a connection to its first use; those that fail are not
 *				 in it
 *	 execution	 from begun to ended
 *	 network	 round trips that cost the remote nothing: log-ins' settings, checks, pings
 *	 total		 from arrived to ended, or given up
 *
 * A TimeSplit has where the time of calls went, from arrived to taken, so that its parts
 * are the whole:
 *
 *	 queue		 as above
 *	 worker		 until the worker had received it, had sent it, had seen its answer; and
 *				 until the session was awake
 *	 wire		 the way there and back, as the pool's round trips say
 *	 remote		 the rest: the remote at work
 *	 decode		 the session makes values of what has come, when the others have to wait for
 *				 that: the ring was full, or nothing more was to come
 *
 * Bulk inserts and batches, in which both sides talk, are not in it.
 */
#ifndef DBPOOL_STATS_H
#define DBPOOL_STATS_H

#include "clock.h"
#include "ipc/histogram.h"

typedef enum LatencyKind
{
	LATENCY_QUEUE = 0,
	LATENCY_LOGIN,
	LATENCY_EXECUTION,
	LATENCY_NETWORK,
	LATENCY_TOTAL
} LatencyKind;

#define LATENCY_KINDS	(LATENCY_TOTAL + 1)

/* Besides each PoolShared there is one of these. */
typedef struct PoolStats
{
	/* Added to by sessions: what the worker cannot know of a TimeSplit. */
	pg_atomic_uint64 wake_us;
	pg_atomic_uint64 take_us;

	Histogram	latency[LATENCY_KINDS];
} PoolStats;

/* Where the time went that so many calls took; sums. */
typedef struct TimeSplit
{
	uint64		calls;
	uint64		queue_us;
	uint64		worker_us;
	uint64		wire_us;
	uint64		remote_us;
	uint64		decode_us;
} TimeSplit;

/*
 * The last minute, in pieces of five seconds: those that are over, and the one that is
 * not.
 */
#define MINUTE_PIECE_US		INT64CONST(5000000)
#define MINUTE_PIECES		13

typedef struct MinutePiece
{
	int64		number;			/* of the piece, since the clock's beginning */
	uint64		statements;
	uint64		errors;			/* also of calls that got no connection */
	uint64		timeouts;		/* of these, after acquire_timeout */
	uint64		rows;
	uint64		busy_us;		/* of all connections together */
} MinutePiece;

extern const char *latency_name(LatencyKind kind);
extern void split_add(TimeSplit *split, const TimeSplit *more);

extern MinutePiece *minute_piece(MinutePiece *minute, Ticks at);
extern void minute_busy(MinutePiece *minute, int conns, Ticks from, Ticks until);
extern int64 minute_sum(const MinutePiece *minute, Ticks now, MinutePiece *sum);

extern PoolStats *stats_of(int pool);
extern Size stats_bytes(void);
extern void stats_init(char *memory, bool found);
extern void stats_reset(int pool);
extern void stats_taken(int pool, Ticks ended_at, Ticks awake_at);

#endif							/* DBPOOL_STATS_H */
