/*
 * remote.c
 *	  What a pool has learned of its remote: does it let us in, how far is it?
 */
#include "postgres.h"

#include "worker/endpoints.h"
#include "worker/worker.h"

/* Milliseconds between attempts to connect while others work: first, most. */
#define RETRY_FIRST_MS		500
#define RETRY_MOST_MS		15000

/* Most of a pool that has no connection. */
#define RETRY_ALONE_MS		750

/* Longest detail of an error about connecting; what is longer is cut. */
#define DETAIL_MOST_BYTES	16384

/*
 * Connecting failed, or the connection was lost before it was of any use: put
 * off the next attempt that nobody waits for; when that has happened a few times, any.
 */
static void
pool_back_off(Pool *pool)
{
	int			ms = RETRY_FIRST_MS << Min(pool->failures, 5);

	pool->failures++;
	pool->retry_at = ticks_plus_ms(ticks_now(),
								   Min(ms, pool_is_alone(pool) ? RETRY_ALONE_MS : RETRY_MOST_MS));
}

/* A connection was lost before it was of any use, for that reason: likewise. */
void
pool_lost_unused(Pool *pool, const char *error)
{
	pool->failed_at = ticks_now();
	pool->hint = NULL;
	snprintf(pool->error, sizeof(pool->error), "The last one was lost before it was of any use: %s", error);
	strlcpy(pool->sqlstate, "08001", sizeof(pool->sqlstate));
	pool_back_off(pool);
}

/* The remote has answered a question that costs it nothing, after so long. */
void
pool_saw_round_trip(const Conn *conn, int64 us)
{
	Pool	   *pool = conn->pool;

	measure(pool, conn->endpoint.at, LATENCY_NETWORK, us);
	/* what takes longer may have other reasons than the way */
	pool->rtt_us = pool->rtt_us == 0 ? us : Min(us, pool->rtt_us * 1.1);
}

/* A connection has been of use. */
void
pool_works(Pool *pool)
{
	pool->failures = 0;
	pool->retry_at = 0;
}

/* Has the pool neither a connection nor one that is being opened for those who wait? */
bool
pool_is_alone(Pool *pool)
{
	return pool_size(pool) == pool_probes(pool);
}

/*
 * The pool has no connection, and gets none now, for what its last attempt, or somebody
 * else's, has shown: tell those who wait and have no patience left (failover_wait).  next
 * is when it will be tried again, or 0 if nobody has waited for that so far.
 */
void
pool_tell_why(Pool *pool, Ticks next)
{
	char		what[DBPOOL_SHOWN_ERROR];
	char		detail[DETAIL_MOST_BYTES];
	char		again[100] = "";
	const char *server = NameStr(pool->options.server);
	const char *message = pool->error;
	const char *sqlstate = pool->sqlstate;
	const char *hint = pool->hint;
	Ticks		now = ticks_now();
	EndpointShared other;

	/* a standby is asked first */
	if (!pool->tried_standby && pool_may_degrade(pool))
	{
		pool_mark(pool);
		return;
	}
	if (next != 0 && pool_endpoint_out(pool, &other) != NULL && other.failed_at > pool->failed_at)
	{
		message = other.error;
		sqlstate = "08001";
		hint = "See dbpool_endpoints.";
	}
	if (next > now)
		snprintf(again, sizeof(again), "The next attempt is made in %.1f s.\n", (next - now) / 1000000.0);
	snprintf(what, sizeof(what), "could not open a connection of pool \"%s\"", server);
	if (strcmp(sqlstate, "2F003") == 0)
	{
		strlcpy(what, "password is required", sizeof(what));
		snprintf(detail, sizeof(detail),
				 "Pool \"%s\": non-superusers cannot use a connection for which the remote server did not ask for a password.\n%.*s\n%sThe statement was not run.",
				 server, (int) sizeof(detail) / 2, message, again);
		hint = "Make the remote server's authentication ask for one, or have a superuser set password_required to false in the user mapping.";
	}
	else
		snprintf(detail, sizeof(detail), "%.*s\n%sThe statement was not run.",
				 (int) sizeof(detail) / 2, message, again);
	pool_fail_impatient(pool, sqlstate, what, detail, hint);
}

/* Show it as the last error of a connect. */
void
pool_note_error(Pool *pool, const char *message)
{
	PoolShared *shared = pool->shared;

	pool->failed_at = ticks_now();
	strlcpy(pool->error, message, sizeof(pool->error));
	SpinLockAcquire(&shared->mutex);
	shared->connect_failed_at = pool->failed_at;
	strlcpy(shared->connect_error, message, sizeof(shared->connect_error));
	SpinLockRelease(&shared->mutex);
}

/* The failure that was noted last tells of the remotes, and nothing of the pool. */
void
pool_note_unwell(Pool *pool)
{
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->unwell_at = pool->failed_at;
	SpinLockRelease(&pool->shared->mutex);
}

static void
keep_failure(Pool *pool, const char *sqlstate, const char *message, const char *hint)
{
	pool_note_error(pool, message);
	pool->hint = hint;
	strlcpy(pool->sqlstate, sqlstate, sizeof(pool->sqlstate));
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.connect_failures++;
	SpinLockRelease(&pool->shared->mutex);
}

/*
 * A connection that was opened to find out about an endpoint was not let in.  The endpoint
 * knows; whether the pool goes on opening others elsewhere does not depend on it.
 */
void
pool_probe_failed(Pool *pool, const char *message, const char *hint)
{
	keep_failure(pool, "08001", message, hint);
	pool_mark(pool);
}

/*
 * A connection could not be opened.  While others work, those who wait go on
 * waiting for them, and the next attempt is put off; without any there is
 * nothing to wait for, and everybody is told why.  Throws nothing before that
 * is done.
 */
void
pool_conn_failed(Pool *pool, const char *sqlstate, const char *message,
				 const char *hint)
{
	bool		first = pool->failures == 0;

	keep_failure(pool, sqlstate, message, hint);
	pool_back_off(pool);
	if (pool_is_alone(pool))
		pool_tell_why(pool, 0);
	pool_mark(pool);
	if (first)
		ereport(LOG,
				(errmsg("dbpool could not open a connection of pool \"%s\": %s",
						NameStr(pool->options.server), message),
				 hint ? errhint("%s", hint) : 0));
}

/* A recovery, see work.h. */
void
pool_recover(void *owner, int sqlerrcode)
{
	Pool	   *pool = owner;

	pool_fail_waiters(pool, work_error_state(sqlerrcode), work_error_text(sqlerrcode),
					  "The statement was not run.", "The server's log has the error.");
	pool->hint = "The server's log has the error.";
	strlcpy(pool->error, work_error_text(sqlerrcode), sizeof(pool->error));
	strlcpy(pool->sqlstate, work_error_state(sqlerrcode), sizeof(pool->sqlstate));
	pool_back_off(pool);
	timer_set_by(&pool->upkeep, pool->retry_at);
}
