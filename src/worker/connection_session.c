/*
 * connection_session.c
 *	  What a statement may leave behind in the remote session, and how it is
 *	  put back before the next one.
 *
 * reset=smart looks for traces: the command tag, words in the text (found by
 * the backend), settings that the remote reports of its own accord, an open
 * transaction.  A plain read or write has none, and costs nothing.
 */
#include "postgres.h"

#include "compat.h"
#include "pq/session.h"
#include "worker/replay.h"

/* Send SQL that makes the session as it was when it was new; false: the connection is lost. */
static bool
send_reset(Conn *conn)
{
	session_restart(conn);
	conn_set_deadline(conn, CONN_ANSWER_MS);
	return conn_send_simple(conn, psprintf("%s%s%s", conn_in_transaction(conn) ? "ROLLBACK; " : "",
										   CONN_RESET_SQL, session_step_sql(conn)));
}

/* A tag of plain reads and writes: what has one may share a connection. */
bool
session_tag_is_plain(const char *tag)
{
	static const char *const plain[] = {
		"SELECT ", "INSERT ", "UPDATE ", "DELETE ", "MERGE "
	};

	for (int i = 0; i < lengthof(plain); i++)
	{
		if (strncmp(tag, plain[i], strlen(plain[i])) == 0)
			return true;
	}
	return false;
}

/* A command tag after which a remote session is surely as it was before. */
static bool
session_tag_is_clean(const char *tag)
{
	static const char *const clean[] = {
		"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "SHOW", "EXPLAIN",
		"CREATE TABLE", "CREATE INDEX", "CREATE VIEW", "ALTER TABLE",
		"TRUNCATE", "VACUUM", "ANALYZE", "GRANT", "REVOKE", "NOTIFY",
		"DROP TABLE", "DROP INDEX", "COMMENT", "COPY",
		"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE",
		"PREPARE TRANSACTION"
	};

	for (int i = 0; i < lengthof(clean); i++)
	{
		if (strncmp(tag, clean[i], strlen(clean[i])) == 0)
			return true;
	}
	return tag[0] == '\0';
}

/* A statement has ended with that tag: what does that say of the session? */
void
conn_note_tag(Conn *conn, const char *tag)
{
	conn->lease.committed = strcmp(tag, "COMMIT") == 0;

	/*
	 * What follows in the same script may have begun another transaction, of
	 * which its session knows nothing.  ROLLBACK AND CHAIN has, with the tag
	 * of ROLLBACK TO.
	 */
	if (conn->lease.committed || strcmp(tag, "BEGIN") == 0 || strcmp(tag, "START TRANSACTION") == 0)
		conn->lease.strayed = true;
	else if (conn->lease.shared != NULL && strcmp(tag, "ROLLBACK") == 0 &&
			 conn_head_request(conn) != NULL && (conn_head_request(conn)->task.traces & TRACE_CHAINS))
		conn->lease.strayed = true;
	conn->lease.prepared = false;
	if (conn->lease.preparing && strcmp(tag, "PREPARE TRANSACTION") == 0)
		lease_prepared(conn);
	if (session_tag_is_clean(tag))
		return;

	/*
	 * the role is put back before a transaction is prepared, to that which
	 * has logged in
	 */
	if (conn->lease.preparing && strcmp(tag, "RESET") == 0)
	{
		conn->session.adapted |= conn->session.connect_sql != NULL;
		return;
	}
	conn->session.dirty = true;
	/* what a library has set up, it does not take down */
	if (strcmp(tag, "LOAD") == 0)
		conn->session.spoilt = true;
	/* DEALLOCATE ALL, DISCARD ALL */
	if (strncmp(tag, "D", 1) == 0 && strstr(tag, " ALL") != NULL)
		conn_forget_prepared(conn);
}

/*
 * What is sent to a session that is new or reset has questions among it, and so has the
 * check for a request in doubt; column is the only one's name.  answer is NULL unless there
 * is one row, with something in it.
 */
void
conn_note_answer(Conn *conn, const char *column, const char *answer)
{
	if (conn->state == CONN_CHECKING && conn->waiter != NULL && conn->waiter->doubt != NULL)
	{
		Doubt	   *doubt = conn->waiter->doubt;

		/* who answers more than once has not answered */
		if (doubt->answer[0] != '\0')
			answer = "?";
		if (strcmp(column, "dbpool_outcome") == 0 && answer != NULL)
			strlcpy(doubt->answer, answer, sizeof(doubt->answer));
	}
	if (conn->state == CONN_CHECKING && conn->replay.asks && strcmp(column, "dbpool_replay") == 0)
		replay_answer(conn, answer);
	if (conn->state != CONN_RESETTING && conn->state != CONN_CONNECTING)
		return;
	if (strcmp(column, "dbpool_prepared") == 0)
		conn->session.foreign_prepared = answer != NULL;
	else if (strcmp(column, "dbpool_planted") == 0)
		conn->session.planted = answer != NULL;
	else if (strcmp(column, "dbpool_synchronous") == 0)
		conn->session.synchronous = answer != NULL;
	else if (strcmp(column, "dbpool_timed") == 0 && conn->opening.asks_run)
		conn->session.timed = answer != NULL;
	else if (strcmp(column, "dbpool_run") == 0 && conn->opening.asks_run &&
			 answer != NULL && strlen(answer) < sizeof(conn->session.run))
		strlcpy(conn->session.run, answer, sizeof(conn->session.run));
}

/* Something was set by a statement of our own: while it is checked, one thing alone. */
void
conn_note_set(Conn *conn)
{
	if (conn->state == CONN_CHECKING)
		conn->session.adapted = true;
}

/* connect_sql, which has passed before, does not do so after a reset. */
static void
reset_failed(Conn *conn, const char *why)
{
	ereport(LOG,
			(errmsg("dbpool could not reset a connection of pool \"%s\": connect_sql failed: %s",
					NameStr(conn->pool->options.server), why)));
	conn_close(conn, "it could not be reset");
}

/*
 * What was sent for the reset has been answered; is there more to do?  Then that is sent, or
 * the connection is closed.
 */
bool
conn_reset_more(Conn *conn)
{
	const char *sql = "DEALLOCATE ALL";
	const char *why = NULL;

	if (conn->session.foreign_prepared)
	{
		conn->session.foreign_prepared = false;
		conn_forget_prepared(conn);
	}
	else if (session_step_ended(conn, &why))
		sql = session_step_sql(conn);
	else
		return false;
	if (why != NULL)
	{
		reset_failed(conn, why);
		return true;
	}
	conn_set_deadline(conn, session_runs_connect_sql(conn) ? conn->pool->options.connect_timeout : CONN_ANSWER_MS);
	if (!conn_send_simple(conn, sql))
		conn_lost(conn);
	return true;
}

/* It takes too long. */
void
conn_reset_overdue(Conn *conn)
{
	if (session_runs_connect_sql(conn))
	{
		connect_sql_stop(conn);
		reset_failed(conn, "it did not end within connect_timeout");
	}
	else
		conn_close(conn, "the remote server did not reset the session in time");
}

/* Put the remote session back to what it was when it was new. */
void
conn_reset(Conn *conn, const char *why)
{
	Assert(conn->flights.n == 0 && conn->waiter == NULL);
	conn_move(conn, CONN_RESETTING, why);
	if (!send_reset(conn))
		conn_lost(conn);
}

/*
 * Nothing but that its transactions are read-only is to be put back: to what connect_sql
 * has made of that, if there is one; at a standby in place of a primary they stay so.
 */
void
conn_reset_read_only(Conn *conn)
{
	if (conn->session.connect_sql != NULL || conn->session.degraded)
	{
		conn_reset(conn, "it was made read-only");
		return;
	}
	conn_move(conn, CONN_RESETTING, "it was made read-only");
	conn_set_deadline(conn, CONN_ANSWER_MS);
	if (!conn_send_simple(conn, "RESET default_transaction_read_only"))
		conn_lost(conn);
}

/* When an idle connection wants attention next; 0: never. */
static Ticks
idle_due(const Conn *conn)
{
	const PoolOptions *options = &conn->pool->options;
	Ticks		due = conn->expires_at;
	Ticks		at;

	if (options->idle_timeout > 0 && pool_size(conn->pool) > pool_min(conn->pool))
	{
		at = ticks_plus_ms(conn->worked_at, options->idle_timeout);
		due = due == 0 ? at : Min(due, at);
	}
	if (options->health_check_interval > 0)
	{
		at = ticks_plus_ms(conn->used_at,
						   options->health_check_interval);
		due = due == 0 ? at : Min(due, at);
	}
	return due;
}

/* A connection has become idle. */
void
conn_idle(Conn *conn)
{
	Ticks		due = idle_due(conn);

	Assert(conn->state == CONN_IDLE);
	if (due != 0)
		timer_set_by(&conn->janitor, due);
}

/* Has the pool more than it may have?  Probes, of which nothing is known yet, do not count. */
static bool
is_one_too_many(const Conn *conn)
{
	Pool	   *pool = conn->pool;

	return pool_size(pool) > pool_max(pool) &&
		pool_size(pool) - pool_probers(pool, conn) > pool_max(pool) &&
		!pool_renew_may_exceed(pool) && !pool_seeks(pool);
}

/* A connection has nothing to do: who wants it? */
void
conn_ready(Conn *conn)
{
	Pool	   *pool = conn->pool;

	Assert(conn->flights.n == 0 && conn->waiter == NULL);
	if (!conn_is_current(conn))
		conn_close(conn, "the definition of the pool was changed");
	else if (is_one_too_many(conn))
		conn_close(conn, "the pool has as many as it may have");
	else if (conn->expires_at != 0 && ticks_now() >= conn->expires_at)
		conn_close(conn, "it has reached max_lifetime");
	else if (conn->session.unsuited)
		conn_close(conn, "its server has another role now");
	else if (conn->endpoint.makes_room)
		conn_close(conn, "another host of the pool needs its place");
	else if (conn->session.adapted)
		conn_reset_read_only(conn);
	else
	{
		conn_move(conn, CONN_IDLE, "nothing is left to do");
		conn_want(conn, WL_SOCKET_READABLE);
		conn_idle(conn);
		pool_mark(pool);
	}
}

/* When the connection of a lease wants attention next; 0: never. */
static Ticks
lease_due(const Conn *conn)
{
	const PoolOptions *options = &conn->pool->options;
	int			idle = conn->lease.shared->idle_timeout;
	Ticks		due = 0;

	if (conn->state == CONN_LEASED && idle > 0 && !conn->lease.prepared)
		due = ticks_plus_ms(conn->lease.idle_since, idle);
	if (options->leak_threshold > 0 && !conn->lease.warned)
	{
		Ticks		at = ticks_plus_ms(conn->lease.opened_at, options->leak_threshold);

		due = due == 0 ? at : Min(due, at);
	}
	return due;
}

/* Have the janitor look at the connection of a lease when something is due. */
void
conn_watch_lease(Conn *conn)
{
	Ticks		due = lease_due(conn);

	if (due != 0)
		timer_set_by(&conn->janitor, due);
}

/* Who would have come next in a lease that has ended is told why. */
static void
lease_fails_waiter(Conn *conn)
{
	Request    *req = conn->waiter;
	char		sqlstate[6] = "25P01";
	const char *why = lease_why_ended(req, sqlstate);
	char		detail[DBPOOL_SHOWN_ERROR + 100];

	snprintf(detail, sizeof(detail), "%s\nThe statement was not run.", why ? why : "It has ended.");
	conn->waiter = NULL;
	req->conn = NULL;
	request_fail_gone(req, sqlstate, detail);
}

/*
 * The session has let go of a lease whose transaction is prepared: end that as the
 * session has said.
 */
static void
end_prepared(Conn *conn)
{
	LeaseShared *lease = conn->lease.shared;

	conn_move(conn, CONN_RESETTING, "its prepared transaction is to end");
	conn_set_deadline(conn, CONN_ANSWER_MS);
	if (!conn_send_simple(conn, psprintf("%s PREPARED '%s'",
										 lease->commit_prepared ? "COMMIT" : "ROLLBACK", lease->gid)))
		conn_lost(conn);
}

/*
 * The prepared transaction of a lease has ended, and with it the lease.  Returns true when
 * the session is being reset now.
 */
bool
conn_prepared_ended(Conn *conn)
{
	ResetPolicy policy = conn->pool->options.reset;

	conn->lease.committed = conn->lease.shared->commit_prepared;
	if (conn->lease.committed)
		lease_note_committed(conn->lease.shared->gid);
	lease_end(conn, "25P01", "It has ended.");
	if (!conn->session.adapted &&
		(policy == RESET_NEVER ||
		 (policy == RESET_SMART && !conn->session.dirty && !session_changed(conn))))
		return false;
	if (!send_reset(conn))
		conn_lost(conn);
	return true;
}

/*
 * A statement has ended on a connection of a lease.  Returns true when the lease goes on;
 * then the connection is at rest, or its prepared transaction is being ended.
 */
static bool
lease_goes_on(Conn *conn)
{
	if (conn->lease.prepared && lease_is_released(conn))
	{
		end_prepared(conn);
		return true;
	}
	if ((conn->lease.prepared || conn_in_transaction(conn)) && !conn->lease.strayed &&
		!lease_is_released(conn))
	{
		conn_move(conn, CONN_LEASED, "its session goes on");
		conn_want(conn, WL_SOCKET_READABLE);
		lease_rests(conn);
		conn_watch_lease(conn);
		if (conn->session.home_pid != 0 || conn->pool->nwaiting > 0)
			deadlock_watch();
		if (conn->waiter != NULL)
			conn_mark(conn);
		return true;
	}
	lease_end(conn, "25P01", "A statement has ended it.");
	if (conn->waiter != NULL)
		lease_fails_waiter(conn);
	return false;
}

/* What now, that the statement has ended and the session is ours again? */
void
conn_settle(Conn *conn)
{
	ResetPolicy policy = conn->pool->options.reset;
	bool		in_transaction = conn_in_transaction(conn);

	Assert(conn->flights.n == 0 && conn->rows.result == NULL);
	conn_bear_silence(conn, false);
	if (conn->lease.shared != NULL && lease_goes_on(conn))
		return;
	if (conn->io.big)
		conn_close(conn, "a large value has blown up its buffers");
	else if (conn->session.spoilt && policy != RESET_NEVER)
		conn_close(conn, "a statement may have left what no reset puts away");
	else if (in_transaction)
		conn_reset(conn, "a transaction was left open");
	else if (policy == RESET_ALWAYS)
		conn_reset(conn, "reset is \"always\"");
	else if (policy == RESET_SMART && conn->session.dirty)
		conn_reset(conn, "a statement may have left something");
	else if (session_text_changed(conn) ||
			 (policy == RESET_SMART && session_changed(conn)))
		conn_reset(conn, "a setting was changed");
	else
		conn_ready(conn);
}
