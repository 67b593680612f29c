/*
 * replay.c
 *	  How far the standbys of a read-only pool are behind: max_lag and dbpool.min_lsn.
 *
 * WHO IS ASKED, AND WHEN
 *
 * Each connection by itself: behind one name and port may be several servers.  It is asked
 * in place of the check before a request gets it (CONN_CHECKING), if what it has told is too
 * old, and so seldom: with max_lag once in a second or in half of max_lag, with dbpool.min_lsn
 * when it has not told so far that it has come that far.  What has been replayed
 * stays so.  A request joins others on a connection only where nothing is to be asked;
 * then nobody joins, and the connection comes free soon.
 *
 * HOW FAR BEHIND
 *
 * In bytes: from what has been replayed there to the furthest position that the server
 * itself has received, or that another host of the pool has told of a moment ago, its
 * primary if that is one of them.
 *
 * In time: nothing is as old as the last moment at which all had been replayed that there
 * was.  When all has been replayed now, that is now, however long the primary has been
 * idle.  When a position that was the furthest a while ago has been replayed, it is then.  Or
 * it is the last commit that was replayed, by the servers' own clocks; the later one
 * counts.  Only where something tells what there is does this hold: a standby that
 * receives nothing, since its primary cannot be reached, does not know, and is taken to be
 * behind since it last knew.  The time since it was asked is added.
 *
 * WHO IS BEHIND
 *
 * Its connections stay open, up to the place that others need, and are not used.  With max_lag
 * it is asked again a second later, if somebody waits or comes.  When all hosts are behind,
 * who waits is told after failover_wait.  With dbpool.min_lsn only that request waits, where it
 * is in nobody's way (QUEUE_LATER), asking more and more seldom, up to acquire_timeout.
 *
 * What remotes say is not to be trusted: it moves nothing but the verdict on hosts of the
 * same pool.  Whoever says nothing, or not what was asked, is behind.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xlogdefs.h"

#include "worker/replay.h"

/* What was told is not older than that, in milliseconds. */
#define FRESH_MS			1000

/* Who is behind is asked again after so long, at least, for max_lag. */
#define LAG_AGAIN_LEAST_MS	20

/* The same for dbpool.min_lsn; more and more, up to the second. */
#define LSN_AGAIN_MS		5
#define LSN_AGAIN_MOST_MS	100

/* A remote that does not say. */
#define LAG_UNKNOWN			INT64CONST(-1)

/* max_lag in milliseconds, or 0 */
static int
max_lag_ms(const Pool *pool)
{
	return Max(pool->options.max_lag, 0);
}

/* max_lag in bytes, or 0 */
static int64
max_lag_bytes(const Pool *pool)
{
	return pool->options.max_lag < 0 ? -(int64) pool->options.max_lag * 1024 : 0;
}

static int
fresh_ms(const Pool *pool)
{
	return max_lag_ms(pool) > 0 ? Min(FRESH_MS, max_lag_ms(pool) / 2 + max_lag_ms(pool) % 2) : FRESH_MS;
}

/* Who is behind by max_lag is asked again after that. */
static int
lag_again_ms(const Pool *pool)
{
	return Max(fresh_ms(pool), LAG_AGAIN_LEAST_MS);
}

/*
 * Is it near enough, at that time, if what it has told is true?  From when the answer came: who asked
 * for it is to be served, though the way be longer than max_lag.
 */
static bool
is_near(const Conn *conn, Ticks now)
{
	const ConnReplay *replay = &conn->replay;
	const Pool *pool = conn->pool;

	if (pool->options.max_lag == 0)
		return true;
	if (!replay->known)
		return false;
	if (max_lag_bytes(pool) > 0)
		return replay->lag_bytes <= max_lag_bytes(pool);
	return replay->lag_us != LAG_UNKNOWN &&
		replay->lag_us + (now - replay->told_at) <= max_lag_ms(pool) * INT64CONST(1000);
}

/* req may be NULL: then it is about max_lag alone. */
ReplayVerdict
replay_look(const Conn *conn, const Request *req, Ticks now)
{
	const ConnReplay *replay = &conn->replay;
	uint64		min_lsn = req != NULL ? req->task.min_lsn : 0;
	bool		is_asked = replay->asked_at != 0;

	if (conn->pool->options.max_lag != 0)
	{
		bool		fresh = is_asked && now < ticks_plus_ms(replay->told_at, fresh_ms(conn->pool));

		if (!fresh || !is_near(conn, now))
			return is_asked && !is_near(conn, replay->told_at) &&
				now < ticks_plus_ms(replay->told_at, lag_again_ms(conn->pool)) ? REPLAY_BEHIND : REPLAY_ASK;
	}
	if (min_lsn == 0 || (replay->known && replay->lsn >= min_lsn))
		return REPLAY_SUITS;
	return is_asked && now < ticks_plus_ms(replay->told_at, LSN_AGAIN_MS) ? REPLAY_BEHIND : REPLAY_ASK;
}

/* --- answers ----------------------------------------------------------------------------- */

/* What a remote says of itself. */
typedef struct Told
{
	char		role;			/* 'p', 's' */
	uint64		lsn;			/* replayed, or, as primary, flushed */
	uint64		received;		/* or 0 */
	bool		receives;		/* now */
	int64		commit_us;		/* since the last commit that was replayed, or
								 * LAG_UNKNOWN */
} Told;

/* Read an answer to CONN_REPLAY_SQL; false when it is none. */
static bool
read_answer(const char *answer, Told *told)
{
	unsigned int hi[2];
	unsigned int lo[2];
	int			receives;
	long long	commit_ms;
	int			end = 0;

	if (answer == NULL || strlen(answer) > 100 ||
		strspn(answer, "ps 0123456789ABCDEF/-") != strlen(answer) ||
		sscanf(answer, "%c %8X/%8X %8X/%8X %1d %15lld%n", &told->role, &hi[1], &lo[1], &hi[0], &lo[0],
			   &receives, &commit_ms, &end) != 7 || answer[end] != '\0')
		return false;
	told->lsn = (uint64) hi[0] << 32 | lo[0];
	told->received = (uint64) hi[1] << 32 | lo[1];
	told->receives = receives == 1;
	told->commit_us = commit_ms < 0 ? LAG_UNKNOWN : commit_ms * 1000;
	return told->lsn != 0 && (told->role == 'p' || told->role == 's');
}

/* The furthest position that a host of the pool is known to have been at, of late. */
static void
note_furthest(Pool *pool, uint64 lsn, Ticks now)
{
	if (lsn < pool->furthest && now < ticks_plus_ms(pool->furthest_at, FRESH_MS))
		return;
	pool->furthest = lsn;
	pool->furthest_at = now;
}

/* Shown in dbpool_endpoints: whatever connection it was of. */
static void
show_answer(const Conn *conn)
{
	EndpointShared *entry;

	if (conn->endpoint.at == ENDPOINT_NONE)
		return;
	entry = endpoint_shared(conn->endpoint.at);
	SpinLockAcquire(&entry->mutex);
	entry->replay_at = conn->replay.asked_at;
	entry->replay_lsn = conn->replay.lsn;
	entry->lag_bytes = conn->replay.lag_bytes;
	entry->lag_us = conn->replay.lag_us;
	SpinLockRelease(&entry->mutex);
}

/* How long is it that all had been replayed that there was? */
static int64
lag_us(ConnReplay *replay, const Told *told, uint64 target, bool knows)
{
	int64		lag = told->commit_us;

	if (knows && told->lsn >= target)
	{
		replay->complete_at = replay->asked_at;
		replay->mark = 0;
		return 0;
	}
	if (replay->mark != 0 && told->lsn >= replay->mark)
	{
		replay->complete_at = replay->mark_at;
		replay->mark = 0;
	}
	if (knows && replay->mark == 0)
	{
		replay->mark = target;
		replay->mark_at = replay->asked_at;
	}
	if (replay->complete_at != 0 &&
		(lag == LAG_UNKNOWN || replay->asked_at - replay->complete_at < lag))
		lag = replay->asked_at - replay->complete_at;
	return lag;
}

/*
 * The question was answered; NULL: by nothing that it could be.  What is asked is true of
 * when it was sent, or later.
 */
void
replay_answer(Conn *conn, const char *answer)
{
	ConnReplay *replay = &conn->replay;
	Pool	   *pool = conn->pool;
	Ticks		now = ticks_now();
	uint64		target;
	bool		knows;
	Told		told;

	if (!replay->asks)
		return;
	replay->asks = false;
	replay->asked_at = conn->asked_at;
	replay->told_at = now;
	replay->known = read_answer(answer, &told);
	if (!replay->known)
	{
		replay->lsn = 0;
		return;
	}
	if (told.role == 'p' || told.receives)
		note_furthest(pool, told.role == 'p' ? told.lsn : Max(told.received, told.lsn), now);
	target = told.received;
	if (now < ticks_plus_ms(pool->furthest_at, FRESH_MS))
		target = Max(target, pool->furthest);
	/* another host may be known to be further, or as far */
	knows = told.receives || (pool->furthest_at != 0 && now < ticks_plus_ms(pool->furthest_at, FRESH_MS));
	replay->lsn = told.lsn;
	replay->lag_bytes = told.role == 's' && target > told.lsn ? (int64) Min(target - told.lsn, PG_INT64_MAX) : 0;
	replay->lag_us = told.role == 'p' ? 0 : lag_us(replay, &told, target, knows);
	show_answer(conn);
}

/* The check is over; what has not been answered by now will not be. */
void
replay_asked(Conn *conn)
{
	Pool	   *pool = conn->pool;
	int			at = endpoint_place(pool, conn->endpoint.at);

	replay_answer(conn, NULL);
	if (pool->options.max_lag == 0 || conn->replay.asked_at != conn->asked_at || at < 0)
		return;
	pool->known[at].behind_at = is_near(conn, conn->replay.told_at) ? 0 : conn->replay.told_at;
	pool->known[at].lag_bytes = conn->replay.known ? conn->replay.lag_bytes : LAG_UNKNOWN;
	pool->known[at].lag_us = conn->replay.known ? conn->replay.lag_us : LAG_UNKNOWN;
}

/* --- those who wait ------------------------------------------------------------------------ */

/* Has the endpoint, by its place in the pool, just said that it is too far behind? */
bool
replay_is_behind(const Pool *pool, int at, Ticks now)
{
	return pool->options.max_lag != 0 && pool->known[at].behind_at != 0 &&
		now < ticks_plus_ms(pool->known[at].behind_at, lag_again_ms(pool));
}

/* A request has waited for as long as it may for dbpool.min_lsn. */
void
replay_tell_lsn(Request *req, Ticks now)
{
	Pool	   *pool = req->pool;
	uint64		furthest = 0;
	dlist_iter	iter;

	for (int state = 0; state < CONN_CLOSED; state++)
	{
		dlist_foreach(iter, &pool->conns[state])
			furthest = Max(furthest, dlist_container(Conn, node, iter.cur)->replay.lsn);
	}
	request_fail(req, "55000",
				 psprintf("no server of pool \"%s\" has replayed up to %X/%X within %g s",
						  NameStr(pool->options.server), LSN_FORMAT_ARGS(req->task.min_lsn),
						  (now - req->queued_at) / 1000000.0),
				 furthest == 0 ? "None says how far it has.\nThe statement was not run." :
				 psprintf("The furthest is at %X/%X, %llu bytes before that.\nThe statement was not run.",
						  LSN_FORMAT_ARGS(furthest), (unsigned long long) (req->task.min_lsn - Min(furthest, req->task.min_lsn))),
				 "dbpool.min_lsn asks for it; the server's option acquire_timeout sets how long is waited. See dbpool_endpoints.");
}

/*
 * A request found idle connections, none of which has come as far as dbpool.min_lsn says: it
 * is put off, or told, and the caller is done with it.  False when that is not why
 * it found none.
 */
bool
replay_puts_off(Request *req, Ticks now)
{
	Pool	   *pool = req->pool;
	int			most = pool->options.acquire_timeout;
	int64		waited = (now - req->queued_at) / 1000;
	dlist_iter	iter;
	bool		behind = false;

	if (req->task.min_lsn == 0 || req->doubt != NULL)
		return false;
	dlist_foreach(iter, &pool->conns[CONN_IDLE])
	{
		const Conn *conn = dlist_container(Conn, node, iter.cur);

		behind |= replay_look(conn, NULL, now) == REPLAY_SUITS && replay_look(conn, req, now) == REPLAY_BEHIND;
	}
	if (!behind)
		return false;
	pool->put_off_at = now;
	if (req->queued)
		pool_leave_queue(req);
	if (waited >= most)
	{
		timer_stop(&req->deadline);
		replay_tell_lsn(req, now);
		return true;
	}
	req->put_off = true;
	req->backs_off = true;
	timer_set(&req->deadline,
			  ticks_plus_ms(now, Min(Max(Min(waited / 4, LSN_AGAIN_MOST_MS), LSN_AGAIN_MS), most - waited)));
	pool_enter_queue(req);
	return true;
}

/*
 * Are all hosts of the pool that may serve it too far behind, by max_lag?  Then it is looked at
 * again when they can be asked again, by which one of another role may show that it has changed
 * that.  Of hosts that have no entry nobody knows.
 */
bool
replay_all_are_behind(Pool *pool, Ticks now)
{
	Ticks		again = 0;
	bool		any = false;

	if (pool->options.max_lag == 0 || pool->leads_elsewhere)
		return false;
	for (int i = 0; i < pool->nendpoints; i++)
	{
		Ticks		then = ticks_plus_ms(pool->known[i].behind_at, lag_again_ms(pool));

		if (!pool_may_be_served(pool, endpoint_shared(pool->endpoints[i])))
			continue;
		if (!replay_is_behind(pool, i, now))
			return false;
		any = true;
		again = again == 0 ? then : Min(again, then);
	}
	if (any)
		timer_set_by(&pool->upkeep, again);
	return any;
}

/* All are: those who wait, and have no patience left, are told how far. */
void
replay_tell(Pool *pool, Ticks now)
{
	StringInfoData detail;

	initStringInfo(&detail);
	for (int i = 0; i < pool->nendpoints; i++)
	{
		const PoolEndpoint *known = &pool->known[i];
		const EndpointShared *entry = endpoint_shared(pool->endpoints[i]);

		if (!replay_is_behind(pool, i, now))
			continue;
		appendStringInfo(&detail, "The server at \"%.300s\", port %.20s ", entry->host, entry->port);
		if (max_lag_bytes(pool) > 0 && known->lag_bytes != LAG_UNKNOWN)
			appendStringInfo(&detail, "is " INT64_FORMAT " kB behind.\n", (known->lag_bytes + 1023) / 1024);
		else if (max_lag_bytes(pool) == 0 && known->lag_us != LAG_UNKNOWN)
			appendStringInfo(&detail, "is %.3f s behind.\n", known->lag_us / 1000000.0);
		else
			appendStringInfoString(&detail, "does not say how far it is behind.\n");
	}
	appendStringInfoString(&detail, "The statement was not run.");
	pool_fail_impatient(pool, "55000",
						max_lag_bytes(pool) > 0 ?
						psprintf("all servers of pool \"%s\" are more than " INT64_FORMAT " kB behind",
								 NameStr(pool->options.server), max_lag_bytes(pool) / 1024) :
						psprintf("all servers of pool \"%s\" are more than %g s behind",
								 NameStr(pool->options.server), max_lag_ms(pool) / 1000.0),
						detail.data,
						"The server's option max_lag sets the limit, failover_wait how long calls wait until one has caught up.");
}

/*
 * A request has come for the connection of its transaction, which cannot be another any more.
 * It is refused, and told, if dbpool.min_lsn was raised since and the server has not
 * told that it has come that far.
 */
bool
replay_refuses_leased(const Conn *conn, Request *req)
{
	if (req->task.min_lsn <= conn->lease.min_lsn || req->task.lease_ends || req->task.kind == REQUEST_PING ||
		(conn->replay.known && conn->replay.lsn >= req->task.min_lsn))
		return false;
	request_fail(req, "55000",
				 psprintf("dbpool.min_lsn was raised within the transaction on pool \"%s\"",
						  NameStr(conn->pool->options.server)),
				 "The transaction has its server already, which may not have replayed up to there.\nThe statement was not run.",
				 "Set dbpool.min_lsn before the transaction begins.");
	return true;
}
