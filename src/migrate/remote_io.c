/*
 * remote_io.c
 *	  A migration's connection: waiting for it, what it says, and errors.
 */
#include "postgres.h"

#include "backend/client.h"
#include "migrate/remote_io.h"
#include "pq/error_fields.h"
#include "pq/look.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"

/* The one of this process that is open. */
Remote	   *remote_in_use;

/* Has the last one that was open reported an error? */
bool		remote_error_reported;

/* --- waiting ---------------------------------------------------------------------- */

/* Wait for the socket, or until a time; 0 for none.  Returns WL_ bits. */
int
remote_wait_for(int events, pgsocket socket, Ticks until)
{
	static uint32 wait_event;
	long		timeout = -1;
	int			rc;

	events |= WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	if (until != 0)
	{
		timeout = ticks_left_ms(until);
		events |= WL_TIMEOUT;
	}
	rc = WaitLatchOrSocket(MyLatch, events, socket, timeout,
						   compat_wait_event(&wait_event, "DbpoolMigration"));
	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return rc;
}

/* Do nothing for so long, but listen for interrupts. */
void
remote_wait(int milliseconds)
{
	Ticks		until = ticks_plus_ms(ticks_now(), milliseconds);

	while (ticks_now() < until)
		(void) remote_wait_for(0, PGINVALID_SOCKET, until);
}

/* --- errors ----------------------------------------------------------------------- */

/* What libpq says, without the end of line. */
char *
remote_libpq_message(PGconn *pg)
{
	char	   *message = error_clean_text(pg ? PQerrorMessage(pg) : "out of memory");
	size_t		len = strlen(message);

	while (len > 0 && message[len - 1] == '\n')
		message[--len] = '\0';
	return message;
}

void
remote_throw_lost(Remote *remote)
{
	char	   *message = remote_libpq_message(remote->pg);

	if (remote->committing)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("connection of a migration on pool \"%s\" was lost while it was being committed",
						remote->pool),
				 errdetail_internal("%s", message),
				 errhint("dbpool_migration_status() shows whether it was.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection of a migration on pool \"%s\" was lost", remote->pool),
			 errdetail_internal("%s", message)));
}

/* What we are connected to is no PostgreSQL, or not as it should be. */
void
remote_throw_odd(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unexpected answer of the remote of pool \"%s\"",
					remote_in_use ? remote_in_use->pool : ""),
			 errhint("Is it PostgreSQL, and is its history of migrations as it was made?")));
}

/* A value, or NULL for null. */
char *
remote_value(const RemoteRows *rows, int row, int column)
{
	if (row < 0 || row >= rows->nrows || column >= rows->ncolumns)
		remote_throw_odd();
	return rows->values[(Size) row * rows->ncolumns + column];
}

/* A value that is not null. */
char *
remote_text(const RemoteRows *rows, int row, int column)
{
	char	   *value = remote_value(rows, row, column);

	if (value == NULL)
		remote_throw_odd();
	return value;
}

/* A value that is a number from 0 on, and below a limit. */
int
remote_number(const RemoteRows *rows, int row, int column, int limit)
{
	const char *text = remote_text(rows, row, column);
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0 || number < 0 || number >= limit)
		remote_throw_odd();
	return (int) number;
}

/* A result of libpq as message.h's ErrorFields. */
static MessageReader
error_fields(const PGresult *res, int position)
{
	StringInfoData body;
	MessageReader reader;

	initStringInfo(&body);
	error_fields_put(&body, res, GetDatabaseEncoding());
	if (position > 0)
		message_put_field(&body, 'P', psprintf("%d", position));
	appendStringInfoChar(&body, '\0');
	reader.at = body.data;
	reader.end = body.data + body.len;
	return reader;
}

/*
 * An error of the remote becomes ours.  Errors without a
 * SQLSTATE are libpq's, of a connection that broke; and when the remote's
 * process ends itself (FATAL) in a commit, nobody knows how far it was.
 */
void
remote_throw_result(Remote *remote, PGresult *res, const char *sql, RemoteWatcher *watcher, int n)
{
	const char *at = PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION);
	int			position = at ? atoi(at) : 0;
	MessageReader reader;

	if (PQresultErrorField(res, PG_DIAG_SQLSTATE) == NULL ||
		(remote->committing && PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED) != NULL &&
		 strcmp(PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED), "ERROR") != 0))
		remote_throw_lost(remote);
	remote_error_reported = true;
	/* so the commit, if it was one, has been answered */
	remote->committing = false;
	if (watcher != NULL)
		sql = watcher->failed(watcher, n, &position);
	reader = error_fields(res, position);
	error_throw(remote->pool, position > 0 ? sql : NULL, &reader);
}

/*
 * The remote has sent a message that is too large; libpq has given all before it.
 * If it is an error, what can be seen of that is thrown.
 */
void
remote_throw_large(Remote *remote, RemoteWatcher *watcher, int n)
{
	WireMessage *large = &remote->large;
	Size		len;
	bool		cut;
	const char *severity = wire_field(large, 'V', &len, &cut);
	int			position = 0;

	if (large->type == 'E' && large->certain && wire_field(large, 'C', &len, &cut) != NULL &&
		(!remote->committing || (severity != NULL && strncmp(severity, "ERROR", 6) == 0)))
	{
		StringInfoData body;
		MessageReader reader;

		remote_error_reported = true;
		remote->committing = false;
		if (watcher != NULL)
			(void) watcher->failed(watcher, n, &position);
		initStringInfo(&body);
		error_fields_put_seen(&body, large, GetDatabaseEncoding());
		appendStringInfoChar(&body, '\0');
		reader.at = body.data;
		reader.end = body.data + body.len;
		error_throw(remote->pool, NULL, &reader);
	}
	ereport(ERROR,
			(errcode(remote->committing ? ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN :
					 ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("the remote of pool \"%s\" sent more than is taken of it", remote->pool),
			 errdetail("It sent %s of %u bytes.", wire_name(large->type), large->length),
			 remote->committing ?
			 errhint("dbpool_migration_status() shows whether it was committed.") : 0));
}

/*
 * Called by libpq, which must not be left by an error and may not be waited
 * in: keep the notice for remote_show_notices().
 */
void
remote_keep_notice(void *arg, const PGresult *res)
{
	Remote	   *remote = arg;
	MemoryContext old = MemoryContextSwitchTo(remote->notices_context);
	MessageReader *reader = palloc(sizeof(MessageReader));

	*reader = error_fields(res, 0);
	remote->notices = lappend(remote->notices, reader);
	MemoryContextSwitchTo(old);
}

void
remote_drop_notice(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

/* Pass on the notices that came. */
void
remote_show_notices(Remote *remote)
{
	MemoryContext old;

	if (remote->notices == NIL)
		return;
	old = MemoryContextSwitchTo(remote->notices_context);
	while (remote->notices != NIL)
	{
		MessageReader *reader = linitial(remote->notices);

		/* first, as this may throw */
		remote->notices = list_delete_first(remote->notices);
		error_notice(remote->pool, reader);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(remote->notices_context);
}

/*
 * Before libpq reads from the socket, look at what it will read.  False when that
 * is too much: what it then gives is to be taken once more, before remote_throw_large().
 */
bool
remote_look_at_input(Remote *remote)
{
	static char window[WIRE_WINDOW];
	Wire	   *wire = &remote->wire;
	ssize_t		n;

	if (remote->large.body != NULL)
		return false;
	if (!wire_wants(wire))
		return true;
	wire->short_answers = false;
	n = look_peek(remote->pg, wire, window);
	if (n <= 0)
		return true;
	if (!look_at(remote->pg, wire, window, n, &remote->large))
		return false;
	if (wire->settings <= SETTINGS_MOST)
		return true;
	remote->large.type = 'S';
	remote->large.length = (uint32) wire->settings;
	remote->large.body = window;
	remote->large.have = 0;
	return false;
}

/* Nobody listens. */
void
remote_drop_notifications(Remote *remote)
{
	PGnotify   *notify;

	while ((notify = PQnotifies(remote->pg)) != NULL)
		PQfreemem(notify);
}

/* Read what the socket has. */
void
remote_consume(Remote *remote)
{
	(void) remote_look_at_input(remote);
	if (PQconsumeInput(remote->pg) != 1)
		remote_throw_lost(remote);
	remote_drop_notifications(remote);
}
