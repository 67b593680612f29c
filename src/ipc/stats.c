/*
 * stats.c
 *	  What is known of the times that a pool's calls took, see stats.h.
 */
#include "postgres.h"

#include "dbpool.h"
#include "ipc/stats.h"
#include "storage/shmem.h"

static PoolStats *pool_stats;

StaticAssertDecl((MINUTE_PIECES - 1) * MINUTE_PIECE_US == INT64CONST(60000000),
				 "the pieces that are over are a minute");

/* As views show it. */
const char *
latency_name(LatencyKind kind)
{
	static const char *const names[LATENCY_KINDS] = {
		[LATENCY_QUEUE] = "queue",
		[LATENCY_LOGIN] = "login",
		[LATENCY_EXECUTION] = "execution",
		[LATENCY_NETWORK] = "network",
		[LATENCY_TOTAL] = "total",
	};

	return names[kind];
}

void
split_add(TimeSplit *split, const TimeSplit *more)
{
	split->calls += more->calls;
	split->queue_us += more->queue_us;
	split->worker_us += more->worker_us;
	split->wire_us += more->wire_us;
	split->remote_us += more->remote_us;
	split->decode_us += more->decode_us;
}

/* The piece of a minute that has this moment; what was in its place before is over. */
MinutePiece *
minute_piece(MinutePiece *minute, Ticks at)
{
	int64		number = at / MINUTE_PIECE_US;
	MinutePiece *piece = &minute[number % MINUTE_PIECES];

	if (piece->number != number)
	{
		memset(piece, 0, sizeof(MinutePiece));
		piece->number = number;
	}
	return piece;
}

/* So many connections were busy all that time. */
void
minute_busy(MinutePiece *minute, int conns, Ticks from, Ticks until)
{
	/* what is over by then has no piece */
	Ticks		at = Max(from, (until / MINUTE_PIECE_US - MINUTE_PIECES + 1) * MINUTE_PIECE_US);

	if (conns == 0)
		return;
	while (at < until)
	{
		Ticks		end = Min((at / MINUTE_PIECE_US + 1) * MINUTE_PIECE_US, until);

		minute_piece(minute, at)->busy_us += conns * (end - at);
		at = end;
	}
}

/*
 * What was in the last minute, up to now.  Returns its length in microseconds: it begins
 * with a piece.
 */
int64
minute_sum(const MinutePiece *minute, Ticks now, MinutePiece *sum)
{
	int64		first = now / MINUTE_PIECE_US - (MINUTE_PIECES - 2);

	memset(sum, 0, sizeof(MinutePiece));
	for (int i = 0; i < MINUTE_PIECES; i++)
	{
		if (minute[i].number < first)
			continue;
		sum->statements += minute[i].statements;
		sum->errors += minute[i].errors;
		sum->timeouts += minute[i].timeouts;
		sum->rows += minute[i].rows;
		sum->busy_us += minute[i].busy_us;
	}
	return now - first * MINUTE_PIECE_US;
}

PoolStats *
stats_of(int pool)
{
	return &pool_stats[pool];
}

Size
stats_bytes(void)
{
	return mul_size(sizeof(PoolStats), dbpool_max_pools);
}

void
stats_init(char *memory, bool found)
{
	pool_stats = (PoolStats *) memory;
	if (found)
		return;
	for (int i = 0; i < dbpool_max_pools; i++)
	{
		pg_atomic_init_u64(&pool_stats[i].wake_us, 0);
		pg_atomic_init_u64(&pool_stats[i].take_us, 0);
		for (int kind = 0; kind < LATENCY_KINDS; kind++)
			histogram_init(&pool_stats[i].latency[kind]);
	}
}

/* Have all of a pool's begin anew.  For anybody. */
void
stats_reset(int pool)
{
	PoolStats  *stats = stats_of(pool);

	pg_atomic_write_u64(&stats->wake_us, 0);
	pg_atomic_write_u64(&stats->take_us, 0);
	for (int kind = 0; kind < LATENCY_KINDS; kind++)
		histogram_reset(&stats->latency[kind]);
}

/*
 * A session has taken all of an answer that was complete by ended_at; it was last awake
 * since awake_at.
 */
void
stats_taken(int pool, Ticks ended_at, Ticks awake_at)
{
	PoolStats  *stats = stats_of(pool);
	Ticks		begun = Max(ended_at, awake_at);

	pg_atomic_fetch_add_u64(&stats->wake_us, begun - ended_at);
	pg_atomic_fetch_add_u64(&stats->take_us, ticks_now() - begun);
}
