/*
 * session_make.c
 *	  How a remote session is made, in steps (SessionStep), when it is new and after each
 *	  reset; and what it looks like then.
 *
 * connect_sql, an option of the server, is SQL that runs in each session of a pool before
 * that serves anybody.  A step is a message of its own, so that
 * nothing in connect_sql, such as a comment or a quote that does not end, runs into what is
 * ours.  Our settings come before it, so that its text means the same at every remote, and
 * after it, as it may have changed them.
 *
 * It may send what it likes, for as long as it likes: connect_timeout bounds the time, and
 * wire_input.c what it sends.  What it does speaks against the pool, never against the
 * server, whose endpoint other pools share.
 */
#include "postgres.h"

#include "pq/keywords.h"
#include "pq/session.h"
#include "utils/memutils.h"
#include "worker/connection.h"
#include "worker/offload.h"

/*
 * Settings that the remote reports when they change, without being asked.  As
 * to the first few, text of another meaning comes with another value.
 */
static const char *const reported[CONN_REPORTED] = {
	"client_encoding", "DateStyle", "IntervalStyle",
	"TimeZone", "session_authorization", "application_name", "search_path"
};

#define REPORTED_FOR_TEXT	3

/* The session is as it should be: note how it looks. */
void
conn_remember_settings(Conn *conn)
{
	for (int i = 0; i < CONN_REPORTED; i++)
	{
		const char *value = conn_setting(conn, reported[i]);

		char	   *copy = value ? MemoryContextStrdup(conn->context, value) : NULL;

		if (conn->session.settings[i] != NULL)
			pfree(conn->session.settings[i]);
		conn->session.settings[i] = copy;
	}
}

/* Does the session differ from what was noted?  Returns the first difference. */
static const char *
changed_setting(Conn *conn, int n)
{
	for (int i = 0; i < n; i++)
	{
		const char *value = conn_setting(conn, reported[i]);

		if (strcmp(value ? value : "", conn->session.settings[i] ? conn->session.settings[i] : "") != 0)
			return reported[i];
	}
	return NULL;
}

/*
 * Has the statement changed a setting on which the text of values depends?
 * Returns its name.
 */
const char *
session_text_changed(Conn *conn)
{
	return changed_setting(conn, REPORTED_FOR_TEXT);
}

/* Has what it says another encoding? */
static bool
encoding_changed(Conn *conn)
{
	return changed_setting(conn, 1) != NULL;
}

/* Does the session differ at all from how it was when it was new? */
bool
session_changed(Conn *conn)
{
	return changed_setting(conn, CONN_REPORTED) != NULL || session_is_writable(conn);
}

/* SQL that makes our settings in a session that is new or reset. */
static const char *
settings_sql(const Conn *conn)
{
	return conn->pool->options.read_only || conn->session.degraded ? CONN_READ_ONLY_SQL CONN_SETTINGS_SQL : CONN_SETTINGS_SQL;
}

/* The session is to be made, by what the definition says now. */
void
session_begin(Conn *conn)
{
	const char *sql = definition_value(conn->pool->definition, conn->pool->definition_len, "connect_sql");

	if (conn->session.connect_sql != NULL)
		pfree(conn->session.connect_sql);
	conn->session.connect_sql = sql != NULL ? MemoryContextStrdup(conn->context, sql) : NULL;
	session_restart(conn);
}

/* And to be made anew, after a reset. */
void
session_restart(Conn *conn)
{
	conn->session.step = conn->session.connect_sql != NULL ? SESSION_FIRST : SESSION_LAST;
	conn->session.planted = false;
}

/* What is to be sent in the present step. */
const char *
session_step_sql(const Conn *conn)
{
	const char *settings = settings_sql(conn);

	if (session_runs_connect_sql(conn))
		return conn->session.connect_sql;
	return conn->session.step == SESSION_LAST && conn->session.connect_sql != NULL ?
		psprintf("%s%s", settings, CONN_PLANTED_SQL) : settings;
}

/* What is wrong with what connect_sql has done, or NULL. */
static const char *
what_is_wrong(Conn *conn)
{
	if (conn->session.planted)
		return "it prepared a statement with a name of dbpool's";
	if (conn_in_transaction(conn))
		return "it left a transaction open";
	if (encoding_changed(conn))
		return "it changed client_encoding";
	/* later the server itself may have become another */
	if (conn->state == CONN_CONNECTING && !conn_suits(conn))
		return "it made the session one that target_session_attrs rules out";
	return NULL;
}

/*
 * The step has been answered, without an error.  Returns false if it was the last one; else
 * the next is the present one now, unless *why says what is wrong with connect_sql, whose
 * step it is then.
 */
bool
session_step_ended(Conn *conn, const char **why)
{
	*why = NULL;
	if (conn->session.step == SESSION_LAST && !conn->session.planted)
		return false;
	if (conn->session.step != SESSION_FIRST)
		*why = what_is_wrong(conn);
	conn->session.step = *why != NULL ? SESSION_CONNECT_SQL : conn->session.step + 1;
	return true;
}

static void
stopped(Pool *pool, Conn *conn, bool delivered)
{
	(void) conn;
	(void) delivered;
	pool_mark(pool);
}

/*
 * It has taken too long, and the connection is about to be closed: the remote would not
 * notice that while it sleeps, or waits for a lock.
 */
void
connect_sql_stop(Conn *conn)
{
	if (offload_has_room(OFFLOAD_CANCEL, conn->pool->cancels) && wire_cancel(conn, stopped))
		offload_abandon(&conn->cancel.job);
}
