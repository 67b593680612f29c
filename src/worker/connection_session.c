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

#include <libpq-fe.h>

#include "utils/memutils.h"

#include "compat.h"
#include "worker/connection.h"

/* What a session may leave behind, and our settings again (DISCARD ALL's list). */
#define RESET_SQL \
	"CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; " \
	"UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; " \
	"DISCARD TEMP; DISCARD SEQUENCES; " \
	CONN_SETTINGS_SQL

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
		const char *value = PQparameterStatus(conn->pg, reported[i]);

		if (conn->settings[i] != NULL)
			pfree(conn->settings[i]);
		conn->settings[i] = value ? MemoryContextStrdup(worker_context, value) : NULL;
	}
}

/* Does the session differ from what was noted?  Returns the first difference. */
static const char *
changed_setting(Conn *conn, int n)
{
	for (int i = 0; i < n; i++)
	{
		const char *value = PQparameterStatus(conn->pg, reported[i]);

		if (strcmp(value ? value : "", conn->settings[i] ? conn->settings[i] : "") != 0)
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

/* A command tag after which a remote session is surely as it was before. */
bool
session_tag_is_clean(const char *tag)
{
	static const char *const clean[] = {
		"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "SHOW", "EXPLAIN",
		"CREATE TABLE", "CREATE INDEX", "CREATE VIEW", "ALTER TABLE",
		"TRUNCATE", "VACUUM", "ANALYZE", "GRANT", "REVOKE", "NOTIFY",
		"DROP TABLE", "DROP INDEX", "COMMENT", "COPY"
	};

	for (int i = 0; i < lengthof(clean); i++)
	{
		if (strncmp(tag, clean[i], strlen(clean[i])) == 0)
			return true;
	}
	return tag[0] == '\0';
}

/* Put the remote session back to what it was when it was new. */
void
conn_reset(Conn *conn)
{
	bool		in_transaction = PQtransactionStatus(conn->pg) != PQTRANS_IDLE;

	conn_move(conn, CONN_RESETTING);
	conn_set_deadline(conn, CONN_ANSWER_MS);
	if (PQsendQuery(conn->pg, in_transaction ? "ROLLBACK; " RESET_SQL : RESET_SQL) != 1 ||
		!conn_flush(conn))
		conn_lost(conn);
}

/* What now, that the statement has ended and the session is ours again? */
void
conn_settle(Conn *conn)
{
	Pool	   *pool = conn->pool;
	ResetPolicy policy = pool->options.reset;
	bool		in_transaction = PQtransactionStatus(conn->pg) != PQTRANS_IDLE;

	if (conn->big)
	{
		conn_close(conn, "a large value has blown up its buffers");
		pool_dispatch(pool);
	}
	else if (in_transaction || policy == RESET_ALWAYS ||
			 (policy == RESET_SMART &&
			  (conn->dirty || changed_setting(conn, CONN_REPORTED))) ||
			 session_text_changed(conn))
		conn_reset(conn);
	else
		pool_conn_ready(conn);
}
