/*
 * outcome.c
 *	  Did it run?  What has become of a write whose connection was lost.
 *
 * THE QUESTION
 *
 * With a write goes a question for the number that its transaction has at the remote
 * (CONN_NUMBER_SQL), in the same pipeline and transaction, behind it and before the
 * Sync that commits, or before the COMMIT of a lease.  A Flush behind the question has
 * the remote give the answer before it commits.  So for as long as the commit is under
 * way the worker knows the number; and with it it has the result of the statement, of
 * which nothing is missing but that it stays.
 *
 * When the connection is lost then, its request is in doubt (Request.doubt).  For its
 * session it runs on.  Here it waits for a connection like one that has to run, but that is
 * given it in CHECKING, and the check is what pg_xact_status() says:
 *
 *	 committed	  the request ends well: its answer has gone to the session before; but
 *				  see below
 *	 aborted	  it has surely not run: once more, if it is not the end of a lease
 *	 in progress  the remote has not noticed yet, or waits for something, such as a
 *				  standby: ask again later, by the same connection
 *	 NULL		  that is forgotten
 *
 * WHEN A NUMBER MEANS WHAT IT MEANT
 *
 * A server gives a number to another transaction when it has lost the first one without a
 * trace: by a crash before that was flushed, or by a failover to a standby that had not got
 * it.  So each connection asks at its log-in for the run of its server (CONN_RUN_SQL):
 * the system, the timeline, and since when there have been statistics of the background
 * writer, which a recovery from a crash throws away, and a shutdown in good order does
 * not.  A connection of the same run is believed whatever it says.  That of a standby has no
 * run, nor has one behind a pooler, which is known by the process ID that it makes up; there
 * the question and what was asked could be two servers' matters.  Who asks too much of a
 * remote that is no PostgreSQL is told at log-in, and does without.
 *
 * Another run of the same system (after a crash, on a standby that was promoted, or from a
 * backup) is believed that the transaction has not been committed, and nothing else:
 *	 - Had its commit come down to this run, its record would have been replayed, or stand
 *	   in what the server was copied from.  So the server's next number would be higher
 *	   for ever, the number nobody else's, and its status "committed".  So "aborted", whose ever it is, and a number that
 *	   has not been given yet, tell the same: there is no such commit here.  However many
 *	   recoveries there were in between, none makes another of it.
 *	 - Whether the number has been given yet is found by taking one, as pg_xact_status()
 *	   fails for those to come.
 *	 - "Committed" may be said of a later transaction with the number.  That none has got it
 *	   would have to be proved, by a position in the log from before the commit, which all
 *	   recoveries since have reached.  But a server shows the end of its last recovery at
 *	   most, in its control file, and nothing of those before: one may have lost the
 *	   transaction, the number have been given again and the log grown beyond the position,
 *	   when the next one came.  Neither timelines nor statistics tell of that.
 *	 - "In progress" is a later one as well, or the same if nothing but the statistics was
 *	   reset: it is waited for.
 * What another branch of the system's history has (an old primary that goes on unseen) is lost
 * for those who reach this one, as any commit is that a failover loses.
 *
 * But where the remote keeps the times of commits (track_commit_timestamp) the question for the
 * number asks for the time there as well, and "committed" is believed of a commit that
 *	 - was made within COMMITTED_WITHIN seconds after that, and before the loss was noticed: a
 *	   transaction takes its time as its commit begins, right behind the question, before it
 *	   waits for its WAL or a standby; only deferred triggers come between; and
 *	 - is older than what the remote has recovered from: the statistics were thrown away
 *	   after it, or no later transaction was replayed before the server was promoted
 *	   (REPLAYED_ORDER: commits are replayed in the order of the log, not of their times).
 * A later transaction with that number has begun after a recovery, so it is neither: it is newer
 * than that one.  Unless there were two; but then the first of them, and whoever got the number from
 * it, were that quick.  The clocks of a primary and its standby have to differ by less than the
 * promotion takes.
 *
 * How the number is asked for depends on the connection alone, as what is prepared for it stays.
 *
 * WHO ENDS A REQUEST IN DOUBT
 *
 * Whatever else ends it while it waits, a time that is over or a pool that is dropped, is
 * no answer to what its session wants to know: request_fail() and request_stale() make of
 * it "may or may not have run", with that as the reason why nobody could ask.  A session
 * that is cancelled as it commits goes on to wait (backend/client_together.c), and the
 * question is asked on: there is nothing left to be stopped.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "pq/session.h"
#include "worker/connection.h"

/* Texts that do not look like writes are asked about in so many first runs. */
#define ASK_FIRST		4

/*
 * Seconds after it was numbered within which a transaction has to be committed, at the most, so
 * that the commit is its own for sure, whatever has recovered since.
 */
#define COMMITTED_WITHIN	0.1

/* By how much commits may be out of the order of their times. */
#define REPLAYED_ORDER		"10ms"

/* Milliseconds after which one that is in progress is asked about again: from, to. */
#define AGAIN_FIRST_MS	10
#define AGAIN_MOST_MS	1000

/* Is the request to be sent with the question? */
bool
outcome_asks(const Conn *conn, const Request *req)
{
	const Statement *statement = req->statement;

	if (conn->session.run[0] == '\0' || req->task.kind != REQUEST_QUERY ||
		req->repeats >= REPEATS_UNPREPARED || (req->task.traces & TRACE_READ_ONLY) ||
		conn->pool->options.read_only)
		return false;
	if (conn->lease.shared != NULL)
		return req->task.lease_ends && req->task.writes &&
			(req->task.prelude_len > 0 || conn_transaction_works(conn));
	return req->task.writes ||
		(statement_is_plain(statement) && (statement->wrote || statement->asked < ASK_FIRST));
}

/* The question for the number. */
const char *
outcome_number_sql(const Conn *conn)
{
	return conn->session.timed ? CONN_NUMBER_AND_TIME_SQL : CONN_NUMBER_SQL;
}

/*
 * The answer; no number: the transaction has none, as it has written nothing so far.  at is
 * NULL where no time was asked for.
 */
void
outcome_numbered(Flight *flight, const char *number, const char *at)
{
	Statement  *statement = flight->statement;

	flight->xid = number != NULL ? strtou64(number, NULL, 10) : 0;
	flight->numbered_at = at != NULL ? strtod(at, NULL) : 0;

	/*
	 * what it is at its end it stays; but what has notified is given its
	 * number by the COMMIT
	 */
	if (number == NULL && flight->req != NULL && flight->req->task.lease_ends && !flight->req->task.lease_wrote)
		flight->req->task.lease_has_read = true;
	if (statement == NULL)
		return;
	if (statement->asked < ASK_FIRST)
		statement->asked++;
	statement->wrote |= flight->xid != 0;
}

/*
 * What there is to be known of the first flight of a connection that is lost, for its
 * request; NULL when there is no memory.
 */
Doubt *
outcome_doubt(Conn *conn, const char *lost, int64 us)
{
	Doubt	   *doubt = MemoryContextAllocExtended(worker_context, sizeof(Doubt),
												   MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);

	if (doubt == NULL)
		return NULL;
	doubt->xid = conn_head(conn)->xid;
	doubt->numbered_at = conn_head(conn)->numbered_at;
	doubt->us = us;
	doubt->sent_at = conn_head(conn)->sent_at;
	doubt->opened_at = conn->opened_at;
	doubt->lost_at = ticks_now();
	strlcpy(doubt->run, conn->session.run, sizeof(doubt->run));
	strlcpy(doubt->lost, lost, sizeof(doubt->lost));
	return doubt;
}

/* The request, which is off its connection, is in doubt. */
void
outcome_wait(Request *req, Doubt *doubt)
{
	Assert(req->doubt == NULL && req->conn == NULL && !req->queued);
	req->doubt = doubt;
	req->rides = false;
	pool_enter_queue(req);
}

/* Is the connection's server, in whatever run, of the system that the request was sent to? */
static bool
is_same_system(const Conn *conn, const Doubt *doubt)
{
	Size		len = strcspn(doubt->run, " ");

	return conn->session.run[0] != '\0' && strncmp(conn->session.run, doubt->run, len + 1) == 0;
}

static bool
is_same_run(const Conn *conn, const Doubt *doubt)
{
	return strcmp(conn->session.run, doubt->run) == 0;
}

/* What to send on a connection that is given to a request in doubt. */
const char *
outcome_question(const Conn *conn, Request *req)
{
	char	   *number = psprintf("'" UINT64_FORMAT "'::pg_catalog.xid8", req->doubt->xid);
	char	   *status;

	req->doubt->answer[0] = '\0';
	if (!is_same_system(conn, req->doubt))
		return "";
	if (is_same_run(conn, req->doubt))
		return psprintf("SELECT pg_catalog.pg_xact_status(%s) AS dbpool_outcome", number);
	status = psprintf("pg_catalog.pg_xact_status(%s)", number);
	if (req->doubt->numbered_at > 0 && conn->session.timed)
		status = psprintf("pg_catalog.concat_ws(' ', %s, (SELECT pg_catalog.date_part('epoch', t) "
						  "FROM pg_catalog.pg_xact_commit_timestamp(pg_catalog.xid(%s)) AS t "
						  "WHERE t OPERATOR(pg_catalog.<) pg_catalog.pg_stat_get_bgwriter_stat_reset_time() "
						  "OR t OPERATOR(pg_catalog.<=) (pg_catalog.pg_last_xact_replay_timestamp() "
						  "OPERATOR(pg_catalog.+) '" REPLAYED_ORDER "'::pg_catalog.interval)))", status, number);
	return psprintf("SELECT CASE WHEN %s OPERATOR(pg_catalog.>=) pg_catalog.pg_current_xact_id() THEN 'aborted' "
					"ELSE %s END AS dbpool_outcome", number, status);
}

/* Is that, which another run has answered, the commit of the transaction in doubt itself? */
static bool
is_its_own_commit(const Doubt *doubt)
{
	double		committed_at;

	if (strncmp(doubt->answer, "committed ", 10) != 0 || doubt->numbered_at <= 0)
		return false;
	committed_at = strtod(doubt->answer + 10, NULL);
	return committed_at >= doubt->numbered_at &&
		committed_at <= doubt->numbered_at + Min(COMMITTED_WITHIN, (doubt->lost_at - doubt->sent_at) / 1e6);
}

/* Its lease was counted as rolled back when the connection was lost, and was not. */
static void
recount_committed(Pool *pool)
{
	SpinLockAcquire(&pool->shared->mutex);
	if (pool->shared->counters.rolled_back > 0)
		pool->shared->counters.rolled_back--;
	pool->shared->counters.committed++;
	SpinLockRelease(&pool->shared->mutex);
}

/* Once it is in doubt no more, nothing throws: it must not be told that it was not run. */
static void
outcome_committed(Conn *conn, Request *req)
{
	int64		us = req->doubt->us;

	if (req->task.lease_ends)
		reply_count(req, 0, "COMMIT");
	outcome_forget(req);
	req->has_outcome = true;
	if (req->task.lease_ends)
		recount_committed(req->pool);
	conn_count_request(conn, req, ticks_now(), us, false);
	request_end(req);
}

/* Surely not. */
static void
outcome_aborted(Conn *conn, Request *req)
{
	const char *server = NameStr(req->pool->options.server);
	char		lost[DBPOOL_SHOWN_ERROR];

	if (!req->task.lease_ends && retry_take(req, req->doubt->opened_at, req->doubt->lost_at))
	{
		outcome_forget(req);
		retry_later(req);
		return;
	}
	strlcpy(lost, req->doubt->lost, sizeof(lost));
	conn_count_request(conn, req, ticks_now(), req->doubt->us, true);
	outcome_forget(req);
	request_fail(req, "08006",
				 psprintf("connection of pool \"%s\" was lost while a %s", server,
						  req->task.lease_ends ? "transaction was committed" : "statement ran"),
				 psprintf("%s\n%s", lost,
						  req->task.lease_ends ? "The transaction on the remote server was rolled back." :
						  "The statement was not run."),
				 NULL);
}

/*
 * The connection, which was given to a request in doubt, has answered; the request is off
 * it.  Returns true when it goes on waiting, and the connection is to rest until the
 * question is asked again.  May throw.
 */
bool
outcome_decide(Conn *conn, Request *req)
{
	Doubt	   *doubt = req->doubt;

	timer_stop(&req->deadline);
	/* it was not asked then, whatever it says */
	if (!is_same_system(conn, doubt))
		request_fail(req, NULL, "the remote server is another one by now", NULL, NULL);
	else if (strncmp(doubt->answer, "in progress", 11) == 0)
	{
		doubt->asked++;
		return true;
	}
	else if (strcmp(doubt->answer, "aborted") == 0)
		outcome_aborted(conn, req);
	else if (is_its_own_commit(doubt))
		outcome_committed(conn, req);
	else if (strcspn(doubt->answer, " ") != 9 || strncmp(doubt->answer, "committed", 9) != 0)
		request_fail(req, NULL, "the remote server has forgotten about that transaction", NULL, NULL);
	else if (is_same_run(conn, doubt) && doubt->answer[9] == '\0')
		outcome_committed(conn, req);
	else
		request_fail(req, NULL, "the remote server is another one by now, or has recovered from a crash, and the transaction that it has committed by the same number may be a later one", NULL, NULL);
	return false;
}

/* When to ask again, in milliseconds. */
int
outcome_again_ms(const Request *req)
{
	return Min(AGAIN_FIRST_MS << Min(req->doubt->asked, 10), AGAIN_MOST_MS);
}
