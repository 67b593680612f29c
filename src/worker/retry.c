/*
 * retry.c
 *	  Which statements are tried again, when, and how often.
 *
 * WHAT
 *
 * A statement that surely has not taken effect: its connection was lost before it ran
 * (connection_close.c), or the remote has said that it was rolled back (outcome.c).
 *
 * In a pool that is read-only, a statement of which nobody knows whether it has run
 * (request_may_run_twice()).
 *
 * With retry_on, one that the remote has rolled back since it was in the way of another
 * (flight_ended.c: conflict_may_be_tried_again()).
 *
 * Nothing of a transaction that goes on: with a statement all of it would have to be run
 * again, which only the application can do.  Nothing of which the session has been given
 * rows.  A connection that cannot be opened is no try: nothing has been sent, and whether it
 * is worth waiting for the remote is not decided here.  What is sent again for a reason that
 * is dbpool's own (pool_repeat()) is no retry either, and costs nothing.
 *
 * HOW OFTEN
 *
 * retry_attempts is the number of tries of a statement, the first included.  Besides, each
 * worker keeps a budget for its part of the pool.  It has 10 tokens at first and at most; a
 * statement that ends well adds a tenth, a failure takes one, and there are retries only as
 * long as more than half are left.  So a remote that fails all the time is asked
 * once for each call, after few retries, and one that fails now and then is not
 * given more than a tenth of what it does besides.
 *
 * What is a failure?  A statement that the remote has rolled back is one.  The loss of a
 * connection is one however many statements were on it; and when several are lost
 * that were all open when the first of them was, they are the same failure: a restart
 * of the remote must not use up the budget by the number of connections that it ends.  A
 * connection that was opened since is another.
 *
 * The budget is each worker's own, since a success adds to it, and that is what almost every
 * statement is: a number that several workers write for each would cost more than it is
 * worth.  The shares of a split pool add up to the same tenth, and to some tokens more.
 *
 * WHEN
 *
 * Try n + 1 is due after a time by chance from nothing to min(5 ms * 4^(n - 1), 1 s,
 * acquire_timeout / 2): those that have failed together do not come back together, and who
 * was unlucky once hardly waits.  Meanwhile the request is in a queue from which nobody is
 * served (QUEUE_LATER), by its own timer.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "worker/connection.h"
#include "worker/worker.h"

/* Tokens of the budget, in tenths: what a failure takes, more than what has to be left. */
#define FAILURE_TOKENS		10
#define TOKENS_HALF			(RETRY_TOKENS_MOST / 2)

/* Milliseconds before a next try, at most: the first time, ever. */
#define BACK_OFF_FIRST_MS	5
#define BACK_OFF_MOST_MS	1000

/*
 * A try of the request has failed, with the loss of a connection, if lost_at is not 0, that
 * was opened before.  Is there to be another?  Then it is counted, and the
 * caller has to see to it, by retry_later().
 */
bool
retry_take(Request *req, Ticks opened_at, Ticks lost_at)
{
	Pool	   *pool = req->pool;
	bool		left;

	if (lost_at == 0 || opened_at > pool->counted_loss_at)
	{
		pool->retry_tokens = Max(pool->retry_tokens - FAILURE_TOKENS, 0);
		pool->counted_loss_at = Max(lost_at, pool->counted_loss_at);
	}
	if (req->tries >= pool->options.retry_attempts)
		return false;
	left = pool->retry_tokens > TOKENS_HALF;
	if (left)
		req->tries++;
	else
		req->retry_refused = true;
	SpinLockAcquire(&pool->shared->mutex);
	pool->shared->counters.retries += left;
	pool->shared->counters.retries_refused += !left;
	SpinLockRelease(&pool->shared->mutex);
	return left;
}

/* How long the request waits before its next try, by chance. */
static int64
back_off_us(const Request *req)
{
	int			ms = BACK_OFF_FIRST_MS;

	for (int n = 2; n < req->tries && ms < BACK_OFF_MOST_MS; n++)
		ms *= 4;
	ms = Min(ms, BACK_OFF_MOST_MS);
	return (int64) (Min(ms * 1000.0, req->pool->options.acquire_timeout * 500.0) *
					pg_prng_double(&pg_global_prng_state));
}

/*
 * The request, which is off its connection, is to be tried again later.  What its session
 * has got of the last try is void.  Throws nothing.
 */
void
retry_later(Request *req)
{
	if (!request_unstart(req) || !request_restart(req))
		return;
	req->queued_at = ticks_now() + back_off_us(req);
	req->backs_off = true;
	timer_set(&req->deadline, req->queued_at);
	pool_enter_queue(req);
}

/* Its time has come. */
void
retry_now(Request *req)
{
	Assert(req->queued && req->backs_off);
	pool_leave_queue(req);
	pool_enter_queue(req);
}

/*
 * The connection that was being checked for the request is lost: when it was opened, and
 * why it is lost.
 */
void
retry_lost(Request *req, Ticks opened_at, const char *why)
{
	char		what[DBPOOL_SHOWN_ERROR];
	char		detail[DBPOOL_SHOWN_ERROR + 100];

	if (req->doubt != NULL)
		pool_enter_queue(req);
	else if (retry_take(req, opened_at, ticks_now()))
		retry_later(req);
	else if (request_unstart(req))
	{
		snprintf(what, sizeof(what), req->tries > 1 ?
				 "connections of pool \"%s\" are lost as soon as they are used" :
				 "a connection of pool \"%s\" was lost before it was used",
				 NameStr(req->pool->options.server));
		snprintf(detail, sizeof(detail), "%s\nThe statement was not run.", why);
		request_fail(req, "08006", what, detail, NULL);
	}
}
