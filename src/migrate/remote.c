/*
 * remote.c
 *	  The connection of a run of migrations: dedicated, short-lived, and waited
 *	  for by the session itself.
 *
 * It is used without blocking all the same, so that a cancel or a shutdown is
 * heard at any time.  What makes the session leave before the remote has
 * answered, an error, a cancel or its own end, also makes the remote stop:
 * remote_close() cancels what still runs there and waits a moment for the end
 * of it, so that no lock is held any more when the call returns.
 */
#include "postgres.h"

#include "migrate/remote_io.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "ipc/home.h"

/* Most rows of a result that is kept; no history is that long. */
#define MAX_ROWS		1000000

/* Most bytes of a row of a result that is kept, and of all of its values. */
#define ROW_MOST		(16 * 1024 * 1024)
#define VALUES_MOST		(32 * 1024 * 1024)

/* Most bytes that are read while a text is sent, of which a server first reads all. */
#define TALK_MOST		(1024 * 1024)

/* --- statements ------------------------------------------------------------------- */

/* Send a text; of any length. */
static void
send_text(Remote *remote, const char *sql)
{
	int64		received = 0;
	int			rc;

	wire_idle(&remote->wire);
	if (PQsendQuery(remote->pg, sql) != 1 || PQsetSingleRowMode(remote->pg) != 1)
		remote_throw_lost(remote);
	while ((rc = PQflush(remote->pg)) > 0)
	{
		int			events = remote_wait_for(WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE,
											 PQsocket(remote->pg), 0);

		if (events & WL_SOCKET_READABLE)
		{
			received += compat_unread_bytes(remote->pg);
			remote_consume(remote);
		}
		remote_show_notices(remote);
		/* libpq reads at each attempt to send, and would make ever more room */
		if (received > TALK_MOST)
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("the remote of pool \"%s\" sent more than is taken of it",
							remote->pool),
					 errdetail("It did not read a statement, and sent more than %d bytes meanwhile.",
							   TALK_MOST)));
		if (remote->large.body != NULL)
			return;
	}
	if (rc < 0)
		remote_throw_lost(remote);
}

/* Is this the server that we are in? */
void
remote_look_for_home(Remote *remote)
{
	char		mark[HOME_MARK_BYTES];
	int			pid = PQbackendPID(remote->pg);

	if (!home_make_mark(pid, mark))
		return;
	(void) remote_query(remote, psprintf("%sSELECT 1", mark));
	if (home_has_mark(pid, mark, &remote->home_role))
		remote->home_pid = pid;
}

/*
 * The statement has been running for a while.  It may wait for our own locks,
 * see ipc/home.c; it is cancelled on the way out.
 */
static void
look_for_deadlock(Remote *remote)
{
	HomeDeadlock *deadlock = home_find_own_deadlock(remote->home_pid);

	if (deadlock != NULL && deadlock->signature == remote->suspected)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
				 errmsg("deadlock detected"),
				 errdetail_internal("%s", deadlock->detail),
				 errhint(HOME_DEADLOCK_HINT),
				 errcontext("statement on pool \"%s\"", remote->pool)));
	remote->suspected = deadlock != NULL ? deadlock->signature : 0;
}

/* The next result; NULL at the end, or before a message that is too large. */
static PGresult *
wait_for_result(Remote *remote)
{
	while (PQisBusy(remote->pg))
	{
		Ticks		until = 0;
		int			rc;

		remote_show_notices(remote);
		if (remote->large.body != NULL)
			return NULL;
		if (remote->home_pid != 0)
			until = ticks_plus_ms(ticks_now(), remote->suspected != 0 ? HOME_CONFIRM_MS : DeadlockTimeout);
		rc = remote_wait_for(WL_SOCKET_READABLE, PQsocket(remote->pg), until);
		if (rc & WL_TIMEOUT)
			look_for_deadlock(remote);
		if (!(rc & WL_SOCKET_READABLE))
			continue;
		remote_consume(remote);
	}
	remote_show_notices(remote);
	return PQgetResult(remote->pg);
}

/* The values of the one row in a result, to the end of the list. */
static void
keep_row(RemoteRows *rows, const PGresult *res)
{
	Size		n = (Size) rows->nrows * rows->ncolumns;

	for (int i = 0; i < PQnfields(res); i++)
		rows->bytes += PQgetlength(res, 0, i) + 1;
	if ((rows->nrows > 0 && rows->ncolumns != PQnfields(res)) ||
		rows->nrows >= MAX_ROWS || rows->bytes > VALUES_MOST)
		remote_throw_odd();
	rows->ncolumns = PQnfields(res);
	if (rows->nrows == rows->room)
	{
		Size		size;

		rows->room = Max(16, rows->room * 2);
		size = mul_size(sizeof(char *) * rows->ncolumns, rows->room);
		rows->values = rows->nrows == 0 ? palloc(size) :
			repalloc_huge(rows->values, size);
	}
	for (int i = 0; i < rows->ncolumns; i++)
	{
		(void) pg_verifymbstr(PQgetvalue(res, 0, i), PQgetlength(res, 0, i), false);
		rows->values[n + i] = PQgetisnull(res, 0, i) ? NULL :
			pstrdup(PQgetvalue(res, 0, i));
	}
	rows->nrows++;
}

/* No statement of a migration can have data from elsewhere. */
static void
give_up_copy(Remote *remote, RemoteWatcher *watcher, int n)
{
	int			position = 0;

	if (watcher != NULL)
		(void) watcher->failed(watcher, n, &position);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a migration cannot use COPY FROM STDIN or TO STDOUT"),
			 errdetail("Pool \"%s\": there is nobody on the other side.", remote->pool),
			 errhint("Use INSERT, or dbpool_bulk_insert() after the migration.")));
}

/* Read all results; rows go to "rows", if it is not NULL. */
static void
collect_results(Remote *remote, const char *sql, RemoteWatcher *watcher, RemoteRows *rows)
{
	PGresult   *res;
	int			n = 0;

	while ((res = wait_for_result(remote)) != NULL)
	{
		remote->result = res;
		switch (PQresultStatus(res))
		{
			case PGRES_SINGLE_TUPLE:
				if (rows != NULL)
					keep_row(rows, res);
				break;
			case PGRES_TUPLES_OK:
			case PGRES_COMMAND_OK:
			case PGRES_EMPTY_QUERY:
				n++;
				if (watcher != NULL)
					watcher->done(watcher, n);
				break;
			case PGRES_COPY_IN:
			case PGRES_COPY_OUT:
			case PGRES_COPY_BOTH:
				give_up_copy(remote, watcher, n);
				break;
			default:
				remote_throw_result(remote, res, sql, watcher, n);
		}
		remote->result = NULL;
		PQclear(res);
	}
	if (remote->large.body != NULL)
		remote_throw_large(remote, watcher, n);
	if (PQstatus(remote->pg) == CONNECTION_BAD)
		remote_throw_lost(remote);
}

/* Run a statement, or several, for the rows of all. */
RemoteRows *
remote_query(Remote *remote, const char *sql)
{
	RemoteRows *rows = palloc0(sizeof(RemoteRows));

	remote->wire.row_most = ROW_MOST;
	remote->wire.other_most = WIRE_OTHER_MOST;
	send_text(remote, sql);
	collect_results(remote, sql, NULL, rows);
	return rows;
}

/* Run statements; their rows are thrown away.  watcher may be NULL. */
void
remote_exec(Remote *remote, const char *sql, RemoteWatcher *watcher)
{
	remote->wire.row_most = WIRE_ROW_MOST;
	remote->wire.other_most = WIRE_OTHER_MOST;
	send_text(remote, sql);
	collect_results(remote, sql, watcher, NULL);
}

/*
 * Run statements of which the last commits.  If the connection is lost
 * meanwhile, the error says that nobody knows (08007).
 */
void
remote_commit(Remote *remote, const char *sql)
{
	remote->committing = true;
	remote_exec(remote, sql, NULL);
	remote->committing = false;
}

/* Has the remote that is open, or was last, reported an error? */
bool
remote_reported_error(void)
{
	return remote_error_reported;
}

/* Has a commit been sent, and not been answered? */
bool
remote_committing(Remote *remote)
{
	return remote->committing;
}

/*
 * A migration may have set client_encoding, as those that were made of a pg_dump
 * do: that was the encoding of its file.  Its text comes in ours.
 */
void
remote_restore_encoding(Remote *remote)
{
	const char *encoding = PQparameterStatus(remote->pg, "client_encoding");

	if (encoding != NULL && strcmp(encoding, remote->encoding) != 0)
		remote_exec(remote, psprintf("SET client_encoding = '%s'", remote->encoding), NULL);
}

/* Is a transaction open, and has it not failed? */
bool
remote_in_transaction(Remote *remote)
{
	return PQtransactionStatus(remote->pg) == PQTRANS_INTRANS;
}

const char *
remote_pool(Remote *remote)
{
	return remote->pool;
}

/* What the remote reports of its settings, as "server_encoding"; or NULL. */
const char *
remote_parameter(Remote *remote, const char *name)
{
	return PQparameterStatus(remote->pg, name);
}

int
remote_version(Remote *remote)
{
	return PQserverVersion(remote->pg);
}

/* The process that the connection was said to be served by. */
int
remote_pid(Remote *remote)
{
	return PQbackendPID(remote->pg);
}
