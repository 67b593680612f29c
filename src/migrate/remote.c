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
 *
 * Host names are resolved by libpq, which blocks; and hosts of a list are tried
 * one after the other with a deadline each, as libpq's asynchronous interface
 * does not do that.
 */
#include "postgres.h"

#include <limits.h>
#include <poll.h>
#include <libpq-fe.h>

#include "backend/client.h"
#include "migrate/remote.h"
#include "pq/error_fields.h"
#include "pq/keywords.h"
#include "lib/stringinfo.h"
#include "pq/login.h"
#include "pq/look.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "compat.h"
#include "ipc/home.h"

/* Most rows of a result that is kept; no history is that long. */
#define MAX_ROWS		1000000

/* Most bytes of a row of a result that is kept, and of all of its values. */
#define ROW_MOST		(16 * 1024 * 1024)
#define VALUES_MOST		(32 * 1024 * 1024)

/* Most bytes that are read after a cancel. */
#define DRAIN_MOST		(16 * 1024 * 1024)

/* Most bytes that are read while a text is sent, of which a server first reads all. */
#define TALK_MOST		(1024 * 1024)

/* Most bytes of settings that a remote may report. */
#define SETTINGS_MOST	(4 * 1024 * 1024)

/* How long a cancel and the end that it causes may take. */
#define CANCEL_MS		2000

struct Remote
{
	MemoryContext context;		/* all of it */
	PGconn	   *pg;
	char	   *pool;
	int			connect_timeout;	/* of the pool; milliseconds */
	char	   *encoding;		/* client_encoding at the beginning */
	PGresult   *result;			/* in hand; freed by remote_close() */
	MemoryContext notices_context;
	List	   *notices;		/* StringInfos, to be shown */
	bool		committing;		/* what is under way ends a transaction */
	int			home_pid;		/* its process, if it surely is one of this
								 * server; or 0 */
	Oid			home_role;		/* as which that runs */
	uint64		suspected;		/* signature of the deadlock that it may be
								 * in, or 0 */
	Wire		wire;			/* what it sends */
	WireMessage large;			/* and is too large, or NULL for its body */
};

/* The one of this process that is open. */
static Remote *open_remote;

static void look_for_home(Remote *remote);

/* Has the last one that was open reported an error? */
static bool reported_error;

/* --- waiting ---------------------------------------------------------------------- */

/* Wait for the socket, or until a time; 0 for none.  Returns WL_ bits. */
static int
wait_for(int events, pgsocket socket, Ticks until)
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
		(void) wait_for(0, PGINVALID_SOCKET, until);
}

/* --- errors ----------------------------------------------------------------------- */

/* What libpq says, without the end of line. */
static char *
libpq_message(PGconn *pg)
{
	char	   *message = error_clean_text(pg ? PQerrorMessage(pg) : "out of memory");
	size_t		len = strlen(message);

	while (len > 0 && message[len - 1] == '\n')
		message[--len] = '\0';
	return message;
}

static void
throw_lost(Remote *remote)
{
	char	   *message = libpq_message(remote->pg);

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
static void
throw_odd_answer(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unexpected answer of the remote of pool \"%s\"",
					open_remote ? open_remote->pool : ""),
			 errhint("Is it PostgreSQL, and is its history of migrations as it was made?")));
}

/* A value, or NULL for null. */
char *
remote_value(const RemoteRows *rows, int row, int column)
{
	if (row < 0 || row >= rows->nrows || column >= rows->ncolumns)
		throw_odd_answer();
	return rows->values[(Size) row * rows->ncolumns + column];
}

/* A value that is not null. */
char *
remote_text(const RemoteRows *rows, int row, int column)
{
	char	   *value = remote_value(rows, row, column);

	if (value == NULL)
		throw_odd_answer();
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
		throw_odd_answer();
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
static void
throw_result(Remote *remote, PGresult *res, const char *sql, RemoteWatcher *watcher, int n)
{
	const char *at = PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION);
	int			position = at ? atoi(at) : 0;
	MessageReader reader;

	if (PQresultErrorField(res, PG_DIAG_SQLSTATE) == NULL ||
		(remote->committing && PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED) != NULL &&
		 strcmp(PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED), "ERROR") != 0))
		throw_lost(remote);
	reported_error = true;
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
static void
throw_large(Remote *remote, RemoteWatcher *watcher, int n)
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

		reported_error = true;
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
 * in: keep the notice for show_notices().
 */
static void
keep_notice(void *arg, const PGresult *res)
{
	Remote	   *remote = arg;
	MemoryContext old = MemoryContextSwitchTo(remote->notices_context);
	MessageReader *reader = palloc(sizeof(MessageReader));

	*reader = error_fields(res, 0);
	remote->notices = lappend(remote->notices, reader);
	MemoryContextSwitchTo(old);
}

static void
drop_notice(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

/* Pass on the notices that came. */
static void
show_notices(Remote *remote)
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
 * is too much: what it then gives is to be taken once more, before throw_large().
 */
static bool
look_at_input(Remote *remote)
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
static void
drop_notifications(Remote *remote)
{
	PGnotify   *notify;

	while ((notify = PQnotifies(remote->pg)) != NULL)
		PQfreemem(notify);
}

/* Read what the socket has. */
static void
consume(Remote *remote)
{
	(void) look_at_input(remote);
	if (PQconsumeInput(remote->pg) != 1)
		throw_lost(remote);
	drop_notifications(remote);
}

/* --- the end ---------------------------------------------------------------------- */

/*
 * Read what still comes, until the remote is idle or the time is up; or until it
 * is more than what was on its way when the remote was told to stop.
 */
static void
drain(Remote *remote, Ticks until)
{
	for (int64 bytes = 0; bytes < DRAIN_MOST; bytes += compat_unread_bytes(remote->pg))
	{
		struct pollfd socket = {PQsocket(remote->pg), POLLIN, 0};
		long		left = ticks_left_ms(until);

		while (!PQisBusy(remote->pg))
		{
			PGresult   *res = PQgetResult(remote->pg);
			ExecStatusType status = PQresultStatus(res);

			PQclear(res);
			if (res == NULL || PQstatus(remote->pg) == CONNECTION_BAD)
				return;
			if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
				status == PGRES_COPY_BOTH)
				return;
		}
		if (left <= 0 || (poll(&socket, 1, (int) left) < 0 && errno != EINTR) ||
			!look_at_input(remote) || PQconsumeInput(remote->pg) != 1)
			return;
		drop_notifications(remote);
	}
}

/* Close it, and have the remote stop what it is doing for us.  Throws nothing. */
void
remote_close(Remote *remote)
{
	if (remote == NULL || open_remote != remote)
		return;
	open_remote = NULL;
	HOLD_INTERRUPTS();
	if (PQstatus(remote->pg) == CONNECTION_OK &&
		PQtransactionStatus(remote->pg) == PQTRANS_ACTIVE)
	{
		Ticks		until = ticks_plus_ms(ticks_now(), CANCEL_MS);
		CompatCancel *cancel = compat_cancel_create(remote->pg, &remote->wire);

		PQsetNoticeReceiver(remote->pg, drop_notice, NULL);
		if (cancel != NULL && compat_cancel_run(cancel, CANCEL_MS))
			drain(remote, until);
		if (cancel != NULL)
			compat_cancel_free(cancel);
		/* our locks, for which it may wait, are released next */
		if (remote->home_pid != 0 && PQtransactionStatus(remote->pg) == PQTRANS_ACTIVE)
			(void) home_signal(remote->home_pid, remote->home_role, SIGTERM);
	}
	PQclear(remote->result);
	PQfinish(remote->pg);
	ReleaseExternalFD();
	RESUME_INTERRUPTS();
	MemoryContextDelete(remote->context);
}

/* The session ends, perhaps in the middle of a run. */
static void
close_at_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	remote_close(open_remote);
}

/* --- the beginning ---------------------------------------------------------------- */

/* Begin to connect to one of the places of the definition. */
static PGconn *
start_connection(const Definition *definition, int place)
{
	Keywords	keywords;
	Place		where;
	const char *attrs = definition_value(definition->bytes, definition->len,
										 "target_session_attrs");

	keywords_init(&keywords, definition->bytes, definition->len);
	/* for cancels, which open a connection each */
	keywords_add(&keywords, "connect_timeout", psprintf("%d", CANCEL_MS / 1000));
	definition_place(definition->bytes, definition->len, place, &where);
	keywords_add_place(&keywords, &where);
	/* of several, the one that can be written to */
	if (definition_places(definition->bytes, definition->len) > 1)
		attrs = "read-write";
	keywords_add(&keywords, "target_session_attrs", attrs);
	keywords_add(&keywords, "fallback_application_name", "dbpool migration");
	return PQconnectStartParams(keywords.names, keywords.values, 0);
}

/*
 * Wait until a connection is there; false when it fails, with *why, and with a
 * *hint or NULL.
 */
static bool
finish_connection(Remote *remote, Ticks until, char **why, const char **hint)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	Login		login = {0};
	char		refusal[LOGIN_WHY_BYTES];

	*why = NULL;
	*hint = NULL;
	if (remote->pg == NULL || PQstatus(remote->pg) == CONNECTION_BAD)
	{
		*why = libpq_message(remote->pg);
		if (remote->pg != NULL)
			*hint = login_hint(remote->pg, &login, *why);
		return false;
	}
	PQsetNoticeReceiver(remote->pg, keep_notice, remote);
	wire_init(&remote->wire);
	/* so that one who does not read cannot hold us either */
	(void) PQsetnonblocking(remote->pg, 1);
	for (;;)
	{
		int			events = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		int			rc = wait_for(events, PQsocket(remote->pg), until);

		if (rc & events)
		{
			switch (login_look(remote->pg, &login, &remote->wire, refusal))
			{
				case LOGIN_WAIT:
					remote_wait(LOGIN_AGAIN_MS);
					break;
				case LOGIN_REFUSE:
					*why = error_clean_text(refusal);
					return false;
				default:
					status = PQconnectPoll(remote->pg);
					break;
			}
		}
		show_notices(remote);
		if (status == PGRES_POLLING_OK)
			return true;
		if (status == PGRES_POLLING_FAILED)
		{
			*why = libpq_message(remote->pg);
			*hint = login_hint(remote->pg, &login, PQerrorMessage(remote->pg));
		}
		else if (ticks_now() >= until)
		{
			*why = psprintf("no answer within connect_timeout (%d ms)",
							remote->connect_timeout);
			*hint = login_hint_timeout();
		}
		if (*why != NULL)
			return false;
	}
}

static void
throw_unasked(Remote *remote, const char *places)
{
	ereport(ERROR,
			(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
			 errmsg("password is required"),
			 errdetail("Pool \"%s\": non-superusers cannot use a connection for which the remote server did not ask for a password, nor superusers one to a server that belongs to somebody else.\n%s\nNothing was run.",
					   remote->pool, places),
			 errhint("Make the remote server's authentication ask for one, or have a superuser set password_required to false in the user mapping.")));
}

/*
 * Connect to the hosts of the definition in turn.  No SQL goes to one that does
 * not ask for the password that the definition demands.
 */
static void
connect_somewhere(Remote *remote, const Definition *definition)
{
	int			nplaces = definition_places(definition->bytes, definition->len);
	StringInfoData errors;
	bool		unasked = false;
	const char *hint = NULL;

	initStringInfo(&errors);
	for (int i = 0; i < nplaces; i++)
	{
		Ticks		until = ticks_plus_ms(ticks_now(),
										  remote->connect_timeout);
		char	   *why;
		const char *its_hint;
		char		what[LOGIN_MESSAGE_BYTES];

		remote->pg = start_connection(definition, i);
		if (finish_connection(remote, until, &why, &its_hint))
		{
			if (!definition->options->need_password || PQconnectionUsedPassword(remote->pg))
				return;
			why = NULL;
		}
		if (why == NULL ||
			(definition->options->need_password &&
			 login_missed_password(remote->pg, definition_value(definition->bytes, definition->len,
																"require_auth"))))
		{
			unasked = true;
			why = psprintf("The remote at host \"%s\", port %s did not ask for a password.",
						   PQhost(remote->pg), PQport(remote->pg));
		}
		if (remote->pg != NULL)
		{
			login_describe(what, sizeof(what), PQhost(remote->pg), PQport(remote->pg), why);
			why = error_clean_text(what);
		}
		if (its_hint != NULL)
			hint = its_hint;
		appendStringInfo(&errors, "%s%s", i > 0 ? "\n" : "", why);
		PQfinish(remote->pg);
		remote->pg = NULL;
	}
	if (unasked)
		throw_unasked(remote, errors.data);
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect to the remote of pool \"%s\" for migrations",
					remote->pool),
			 errdetail_internal("%s", errors.data),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * Connect to the remote of a pool.  The definition is only needed for this
 * call.  A session has one at a time.
 */
Remote *
remote_open(const char *pool, const Definition *definition)
{
	static bool registered = false;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "dbpool migration",
												  ALLOCSET_SMALL_SIZES);
	Remote	   *remote = MemoryContextAllocZero(context, sizeof(Remote));

	if (open_remote != NULL)
		elog(ERROR, "a session has one connection for migrations at a time");
	if (!registered)
		before_shmem_exit(close_at_exit, (Datum) 0);
	registered = true;
	remote->context = context;
	remote->pool = MemoryContextStrdup(context, pool);
	remote->notices_context = AllocSetContextCreate(context, "dbpool notices",
													ALLOCSET_DEFAULT_SIZES);
	remote->connect_timeout = definition->options->connect_timeout;
	if (!AcquireExternalFD())
	{
		MemoryContextDelete(context);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not open a connection for migrations: too many files are open"),
				 errhint("Raise max_files_per_process.")));
	}
	open_remote = remote;
	reported_error = false;
	PG_TRY();
	{
		connect_somewhere(remote, definition);
		if (PQsetnonblocking(remote->pg, 1) != 0)
			throw_lost(remote);
		if (PQparameterStatus(remote->pg, "client_encoding") == NULL)
			throw_odd_answer();
		remote->encoding = MemoryContextStrdup(context, PQparameterStatus(remote->pg, "client_encoding"));
		look_for_home(remote);
	}
	PG_CATCH();
	{
		remote_close(remote);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return remote;
}

/* --- statements ------------------------------------------------------------------- */

/* Send a text; of any length. */
static void
send_text(Remote *remote, const char *sql)
{
	int64		received = 0;
	int			rc;

	wire_idle(&remote->wire);
	if (PQsendQuery(remote->pg, sql) != 1 || PQsetSingleRowMode(remote->pg) != 1)
		throw_lost(remote);
	while ((rc = PQflush(remote->pg)) > 0)
	{
		int			events = wait_for(WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE,
									  PQsocket(remote->pg), 0);

		if (events & WL_SOCKET_READABLE)
		{
			received += compat_unread_bytes(remote->pg);
			consume(remote);
		}
		show_notices(remote);
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
		throw_lost(remote);
}

/* Is this the server that we are in? */
static void
look_for_home(Remote *remote)
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

		show_notices(remote);
		if (remote->large.body != NULL)
			return NULL;
		if (remote->home_pid != 0)
			until = ticks_plus_ms(ticks_now(), remote->suspected != 0 ? HOME_CONFIRM_MS : DeadlockTimeout);
		rc = wait_for(WL_SOCKET_READABLE, PQsocket(remote->pg), until);
		if (rc & WL_TIMEOUT)
			look_for_deadlock(remote);
		if (!(rc & WL_SOCKET_READABLE))
			continue;
		consume(remote);
	}
	show_notices(remote);
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
		throw_odd_answer();
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
				throw_result(remote, res, sql, watcher, n);
		}
		remote->result = NULL;
		PQclear(res);
	}
	if (remote->large.body != NULL)
		throw_large(remote, watcher, n);
	if (PQstatus(remote->pg) == CONNECTION_BAD)
		throw_lost(remote);
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
	return reported_error;
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
