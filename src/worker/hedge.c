/*
 * hedge.c
 *	  Hedged reads: one that takes long for its text is sent to another host as well, and
 *	  the first answer counts.
 *
 * WHICH
 *
 * Of a read-only pool with the option hedge, a single statement that is a transaction of its
 * own, known to be plain and to leave nothing behind: what request_may_run_twice() would
 * run again after a loss, and what shares connections, but for being short.
 * Not at home, where a session's locks and a remote's are one server's.
 *
 * STATES of a request that runs
 *
 *	 watched	its timer runs; nothing has been put for its session.
 *	 a pair		a copy of it is under way: a second flight, alone on a connection at another
 *				endpoint.  Still nothing has been put.
 *	 decided	one of both has spoken, and is the request's flight; the other is nobody's.
 *
 * WHO OWNS WHAT
 *
 * The request's flight is the first one, until the copy wins.  The copy has no request
 * (flight->req is NULL, so that nothing it reads is put anywhere), but knows whose it is
 * (flight->hedges), as the request knows the copy and its connection (req->hedge).  It is no
 * orphan before it has lost.  Both links are cut at the same time, in flight.c, before
 * either of them can be anything else's: by flight_remove() and conn_orphan(), through which
 * everything goes by which a request and a flight part.
 *
 * WHAT DECIDES
 *
 *	 the first speaks	A shape, a tag, a notice, or an error that is to be shown: the
 *						copy has lost.
 *	 the copy speaks	It has won: the first becomes an orphan, and the copy the
 *						request's flight, which goes on as if there had been no other.
 *						A notice is not enough, as an error may follow; it is not told.
 *	 the copy fails		Its error is not told, whatever it is: the other host may be a
 *						standby that has cancelled it, or lags.  The copy has lost.
 *	 the first fails, and would be repeated or tried again
 *						The copy is that already: it takes the request over.
 *	 the first's connection is lost, or closed
 *						Likewise.  Lost later, the copy is tried again as any read.
 *	 the copy's is		The copy has lost.
 *	 the session leaves	Both are orphans.
 *
 * Between the first's error and its flight's end the copy may speak: an error that is
 * to be shown has decided before (flight_failed()), and for one that is not shown it is
 * right that the copy takes over, as then the first has nobody that could be repeated.
 *
 * WHO HAS LOST
 *
 * It is an orphan: its connection takes nothing more before the orphan has ended, and it has
 * ORPHAN_MS for that, as most copies end sooner than a cancel would arrive; then it is
 * cancelled (connection_cancel.c), and the connection serves when both the cancel and
 * the answer are through.  So a loser costs a connection for a while: copies take idle
 * connections only, none while anybody waits, none is opened for them, and a pause or a drain
 * waits for a loser as for any orphan.
 *
 * WHEN, AND HOW MANY
 *
 * A text's own time is that from sending to the first word of the answer, and the percentile
 * follows it by small steps (statement_answered()); a pair counts once, by what its first
 * flight has taken.  Each read that is watched earns a fiftieth of a copy, up to ten
 * copies: so they are 2 % more statements at most.  With a percentile of 95 more reads come
 * to it than there are copies for; and those that have taken a little longer than the
 * others are not what copies are for.  So the fewer are left, the longer a read has to have
 * taken, up to HEDGE_LONG times as long as the percentile (hedge_send.c).
 */
#include "postgres.h"

#include "worker/balance.h"
#include "worker/hedge.h"

/* A text's time is known after so many runs. */
#define HEDGE_RUNS			20

/* Timers have no finer grain. */
#define HEDGE_LEAST_US		1000

/* May the request run twice, at the same time, in this pool? */
static bool
may_be_hedged(const Conn *conn, const Request *req)
{
	const Pool *pool = conn->pool;

	return pool->options.read_only && pool->nendpoints > 1 && conn->endpoint.at != ENDPOINT_NONE &&
		conn->session.home_pid == 0 && req->task.kind == REQUEST_QUERY && req->task.one_transaction &&
		req->task.lease == LEASE_NONE && req->task.traces == 0 && req->task.prelude_len == 0 &&
		req->large == NULL && !req->put && !req->failed && !req->cut && statement_is_plain(req->statement);
}

/* The request has just been sent, in a pool with the option hedge. */
void
hedge_watch(Conn *conn, Request *req)
{
	Pool	   *pool = conn->pool;

	if (!may_be_hedged(conn, req))
		return;
	req->hedge.watched = true;
	pool->hedge_tokens = Min(pool->hedge_tokens + 1, HEDGE_TOKENS_MOST);
	if (req->statement->answers >= HEDGE_RUNS)
		timer_set(&req->hedge.due,
				  req->started_at + Max((int64) req->statement->late_us, HEDGE_LEAST_US));
}

/* What the first flight of the request has taken until now is what its text takes. */
static void
note_time(const Request *req, Ticks now)
{
	if (req->statement != NULL)
		statement_answered(req->statement, now - req->started_at,
						   req->pool->options.hedge / 1000.0, HEDGE_RUNS);
}

/* The request's flight speaks first. */
void
hedge_answered(Request *req)
{
	note_time(req, ticks_now());
	hedge_end(req);
}

/* The copy speaks first: the request is its from now on. */
void
hedge_wins(Flight *copy)
{
	Request    *req = copy->hedges;
	Conn	   *loser = req->conn;
	Flight	   *lost = req->flight;
	Ticks		now = ticks_now();

	note_time(req, now);
	balance_took(loser, lost, now - lost->sent_at, now);
	hedge_take_over(req);
	if (loser->state == CONN_CANCELLING)
		conn_after_cancel(loser);
	else
		conn_watch(loser);
	conn_mark(loser);
}
