/*
 * remote_open.c
 *	  A migration's connection: its beginning and its end.
 *
 * Host names are resolved by libpq, which blocks; and hosts of a list are tried
 * one after the other with a deadline each, as libpq's asynchronous interface
 * does not do that.
 */
#include "postgres.h"

#include "backend/client.h"
#include "backend/written.h"
#include "migrate/remote_io.h"
#include "pq/keywords.h"
#include "pq/login.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "compat.h"
#include "ipc/home.h"

/* Most bytes that are read after a cancel. */
#define DRAIN_MOST		(16 * 1024 * 1024)

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
			!remote_look_at_input(remote) || PQconsumeInput(remote->pg) != 1)
			return;
		remote_drop_notifications(remote);
	}
}

/* Close it, and have the remote stop what it is doing for us.  Throws nothing. */
void
remote_close(Remote *remote)
{
	if (remote == NULL || remote_in_use != remote)
		return;
	remote_in_use = NULL;
	HOLD_INTERRUPTS();
	if (PQstatus(remote->pg) == CONNECTION_OK &&
		PQtransactionStatus(remote->pg) == PQTRANS_ACTIVE)
	{
		Ticks		until = ticks_plus_ms(ticks_now(), CANCEL_MS);
		CompatCancel *cancel = compat_cancel_create(remote->pg, &remote->wire);

		PQsetNoticeReceiver(remote->pg, remote_drop_notice, NULL);
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
	remote_close(remote_in_use);
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
		*why = remote_libpq_message(remote->pg);
		if (remote->pg != NULL)
			*hint = login_hint(remote->pg, &login, *why);
		return false;
	}
	PQsetNoticeReceiver(remote->pg, remote_keep_notice, remote);
	wire_init(&remote->wire);
	/* so that one who does not read cannot hold us either */
	(void) PQsetnonblocking(remote->pg, 1);
	for (;;)
	{
		int			events = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		int			rc = remote_wait_for(events, PQsocket(remote->pg), until);

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
		remote_show_notices(remote);
		if (status == PGRES_POLLING_OK)
			return true;
		if (status == PGRES_POLLING_FAILED)
		{
			*why = remote_libpq_message(remote->pg);
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

	if (definition->options->read_only)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("pool \"%s\" is read-only, and its remote cannot be migrated by it", pool),
				 errhint("Migrate by a pool of the same remote whose option read_only is off.")));
	if (remote_in_use != NULL)
		elog(ERROR, "a session has one connection for migrations at a time");
	written_note(&definition->key);
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
	remote_in_use = remote;
	remote_error_reported = false;
	PG_TRY();
	{
		connect_somewhere(remote, definition);
		if (PQsetnonblocking(remote->pg, 1) != 0)
			remote_throw_lost(remote);
		if (PQparameterStatus(remote->pg, "client_encoding") == NULL)
			remote_throw_odd();
		remote->encoding = MemoryContextStrdup(context, PQparameterStatus(remote->pg, "client_encoding"));
		remote_look_for_home(remote);
	}
	PG_CATCH();
	{
		remote_close(remote);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return remote;
}
