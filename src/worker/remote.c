/*
 * remote.c
 *	  What a pool has learned of its remote: does it let us in, how far is it?
 */
#include "postgres.h"

#include "worker/worker.h"

/* Milliseconds between attempts to connect while others work: first, most. */
#define RETRY_FIRST_MS		500
#define RETRY_MOST_MS		15000

/* Longest detail of an error about connecting; what is longer is cut. */
#define DETAIL_MOST_BYTES	16384

/*
 * Connecting failed, or the connection was lost before it was of any use: put
 * off the next attempt that nobody waits for.
 */
void
pool_back_off(Pool *pool)
{
	int			ms = RETRY_FIRST_MS << Min(pool->failures, 5);

	pool->failures++;
	pool->retry_at = ticks_plus_ms(ticks_now(),
								   Min(ms, RETRY_MOST_MS));
}

/* The remote has answered a question that costs it nothing, after so long. */
void
pool_saw_round_trip(Pool *pool, int64 us)
{
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
	PoolShared *shared = pool->shared;
	bool		first = pool->failures == 0;

	pool->failed_at = ticks_now();
	pool->hint = hint;
	strlcpy(pool->error, message, sizeof(pool->error));
	SpinLockAcquire(&shared->mutex);
	shared->connect_failed_at = pool->failed_at;
	strlcpy(shared->connect_error, message, sizeof(shared->connect_error));
	shared->counters.connect_failures++;
	SpinLockRelease(&shared->mutex);
	pool_back_off(pool);
	if (pool_size(pool) == 0)
	{
		char		what[DBPOOL_SHOWN_ERROR];
		char		detail[DETAIL_MOST_BYTES];
		const char *server = NameStr(pool->options.server);

		snprintf(what, sizeof(what), "could not open a connection of pool \"%s\"", server);
		snprintf(detail, sizeof(detail), "%.*s\nThe statement was not run.",
				 (int) sizeof(detail) / 2, message);
		if (strcmp(sqlstate, "2F003") == 0)
		{
			strlcpy(what, "password is required", sizeof(what));
			snprintf(detail, sizeof(detail),
					 "Pool \"%s\": non-superusers cannot use a connection for which the remote server did not ask for a password.\n%.*s\nThe statement was not run.",
					 server, (int) sizeof(detail) / 2, message);
			hint = "Make the remote server's authentication ask for one, or have a superuser set password_required to false in the user mapping.";
		}
		pool_fail_waiters(pool, sqlstate, what, detail, hint);
	}
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
	pool_back_off(pool);
	timer_set_by(&pool->upkeep, pool->retry_at);
}
