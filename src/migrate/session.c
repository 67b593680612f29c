/*
 * session.c
 *	  What all functions begin with that write to a remote's history: the
 *	  connection, the lock, the state of things; and what
 *	  dbpool_progress_migrate shows of them.
 *
 * The lock is sqlx' advisory lock of the remote database, whatever the format
 * of the history, so that all tools exclude each other.  It is polled for:
 * waiting for it in the remote would be a transaction's wait, for which a CREATE
 * INDEX CONCURRENTLY of the one that holds the lock would wait in turn.  It is a
 * session's lock, and so is only worth something while the session has one
 * process of the remote; a pooler in between may give it another for each
 * transaction.  So the process is compared with the one that the connection was
 * told of, before the lock is taken (one that nobody could release any more),
 * and each transaction looks whether it still has the lock.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "backend/client.h"
#include "migrate/migrate.h"
#include "backend/text.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/lsyscache.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How often to look whether the lock is free, in milliseconds. */
#define POLL_FIRST_MS	10
#define POLL_MAX_MS		250

/* --- what is shown --------------------------------------------------------------- */

static MigrateShared *shown;

/* Begin to show a run; if there is a place. */
static void
show_begin(const char *pool)
{
	for (int i = 0; i < DBPOOL_SHOWN_MIGRATIONS && shown == NULL; i++)
	{
		MigrateShared *entry = &dbpool_shared->migrations[i];

		SpinLockAcquire(&entry->mutex);
		if (entry->pid == 0)
		{
			shown = entry;
			entry->pid = MyProcPid;
			entry->dbid = MyDatabaseId;
			entry->roleid = GetUserId();
			entry->encoding = GetDatabaseEncoding();
			strlcpy(NameStr(entry->pool), pool, NAMEDATALEN);
			strlcpy(entry->phase, "connecting", sizeof(entry->phase));
			entry->down = false;
			entry->version[0] = '\0';
			entry->name[0] = '\0';
			entry->migrations_total = 0;
			entry->migrations_done = 0;
			entry->statements_total = 0;
			entry->statements_done = 0;
			entry->started_at = ticks_now();
		}
		SpinLockRelease(&entry->mutex);
	}
}

static void
show_end(void)
{
	if (shown == NULL)
		return;
	SpinLockAcquire(&shown->mutex);
	shown->pid = 0;
	SpinLockRelease(&shown->mutex);
	shown = NULL;
}

static void
show_end_at_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	show_end();
}

void
migrate_show_phase(const char *phase)
{
	if (shown == NULL)
		return;
	SpinLockAcquire(&shown->mutex);
	strlcpy(shown->phase, phase, sizeof(shown->phase));
	SpinLockRelease(&shown->mutex);
}

/* How many migrations there are, and how many have ended. */
void
migrate_show_progress(int done, int total)
{
	if (shown == NULL)
		return;
	SpinLockAcquire(&shown->mutex);
	shown->migrations_done = done;
	shown->migrations_total = total;
	SpinLockRelease(&shown->mutex);
}

/* Which one runs, and how many statements it has. */
void
migrate_show_migration(const Migration *migration, Direction direction, int statements)
{
	char		name[sizeof(shown->name)];
	char		version[sizeof(shown->version)];

	if (shown == NULL)
		return;
	text_clip(name, migration->name, sizeof(name));
	text_clip(version, migration->version, sizeof(version));
	SpinLockAcquire(&shown->mutex);
	memcpy(shown->version, version, sizeof(version));
	shown->down = direction == DIRECTION_DOWN;
	shown->statements_total = statements;
	shown->statements_done = 0;
	strlcpy(shown->name, name, sizeof(shown->name));
	SpinLockRelease(&shown->mutex);
}

void
migrate_show_statements(int done)
{
	if (shown != NULL)
		shown->statements_done = done;
}

/* --- the lock -------------------------------------------------------------------- */

/* Condition on pg_locks l for our lock. */
static char *
is_our_lock(int64 key)
{
	return psprintf("l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted "
					"AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d "
					"WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) "
					"AND l.classid OPERATOR(pg_catalog.=) '%u'::pg_catalog.oid "
					"AND l.objid OPERATOR(pg_catalog.=) '%u'::pg_catalog.oid "
					"AND l.objsubid OPERATOR(pg_catalog.=) 1",
					(uint32) ((uint64) key >> 32), (uint32) key);
}

static void
throw_locked(MigrateSession *session, int lock_timeout)
{
	RemoteRows *rows =
	remote_query(session->remote,
				 psprintf("SELECT l.pid, a.usename, a.application_name, "
						  "pg_catalog.date_trunc('second', a.backend_start) "
						  "FROM pg_catalog.pg_locks l "
						  "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid "
						  "WHERE %s LIMIT 1", is_our_lock(session->lock_key)));
	const char *user = rows->nrows > 0 ? remote_value(rows, 0, 1) : NULL;
	const char *application = rows->nrows > 0 ? remote_value(rows, 0, 2) : NULL;
	const char *since = rows->nrows > 0 ? remote_value(rows, 0, 3) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not get the lock for migrations on pool \"%s\" within %d ms",
					session->pool, lock_timeout),
			 rows->nrows > 0 ?
			 errdetail("The remote's process %s holds it: user \"%s\", application \"%s\", connected since %s.",
					   remote_value(rows, 0, 0), user ? user : "", application ? application : "",
					   since ? since : "an unknown time") :
			 errdetail("It was held by others all the time."),
			 errhint("Only one migrates a database at a time. Wait until it is done, or raise lock_timeout.")));
}

/* The remote's process that serves us must be the one that we were told of. */
static void
refuse_pooler(MigrateSession *session)
{
	RemoteRows *rows = remote_query(session->remote, "SELECT pg_catalog.pg_backend_pid()");

	if (atoi(remote_text(rows, 0, 0)) == remote_pid(session->remote))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("pool \"%s\" reaches its remote through a connection pooler, where migrations cannot be locked",
					session->pool),
			 errdetail("The connection is said to be served by process %u, and is served by process %s.",
					   remote_pid(session->remote), remote_value(rows, 0, 0)),
			 errhint("Make a server with the host and port of the database server itself, and migrate by that.")));
}

static void
take_lock(MigrateSession *session, int lock_timeout)
{
	Ticks		until = ticks_plus_ms(ticks_now(), lock_timeout);
	RemoteRows *name = remote_query(session->remote, "SELECT pg_catalog.current_database()");

	/* what each look leaves is given back, as there may be millions of them */
	MemoryContext look = AllocSetContextCreate(CurrentMemoryContext, "dbpool look at a lock",
											   ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	bool		taken;
	char	   *sql;
	int			wait = POLL_FIRST_MS;

	session->lock_key = checksum_lock_key(remote_text(name, 0, 0));
	sql = psprintf("SELECT pg_catalog.pg_try_advisory_lock(" INT64_FORMAT ")", session->lock_key);
	for (;;)
	{
		old = MemoryContextSwitchTo(look);
		taken = remote_text(remote_query(session->remote, sql), 0, 0)[0] == 't';
		MemoryContextSwitchTo(old);
		MemoryContextReset(look);
		if (taken)
			break;
		if (ticks_now() >= until)
			throw_locked(session, lock_timeout);
		migrate_show_phase("waiting for lock");
		remote_wait(wait);
		wait = Min(wait * 2, POLL_MAX_MS);
	}
	MemoryContextDelete(look);
}

/*
 * Put the remote's session back to its beginning, whatever migrations before
 * may have left there, look whether it still has the lock, and begin a
 * transaction if one is wanted.  What comes before that is a transaction of its
 * own, so that an UNLISTEN has taken effect and that a migration may choose its
 * isolation level; but it is sent with it, so that no pooler comes in between.
 */
void
migrate_begin(MigrateSession *session, bool transaction)
{
	RemoteRows *rows =
	remote_query(session->remote,
				 psprintf("BEGIN; %s; SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l "
						  "WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND %s; COMMIT%s",
						  REMOTE_PLAIN "; CLOSE ALL; UNLISTEN *; DEALLOCATE ALL; DISCARD TEMP",
						  is_our_lock(session->lock_key),
						  transaction ? "; BEGIN" : ""));

	if (strcmp(remote_text(rows, rows->nrows - 1, 0), "1") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the lock for migrations on pool \"%s\" has been lost", session->pool),
				 errdetail("The session of the remote does not hold it any more: a migration has released it (pg_advisory_unlock_all), or a connection pooler gives each transaction another process."),
				 errhint("Nothing was run without it.")));
}

/* --- opening --------------------------------------------------------------------- */

/* Read again what was applied. */
void
migrate_reread(MigrateSession *session)
{
	session->applied = history_read(session->history, &session->napplied);
	session->plan = plan_make(session->history, session->migrations, session->nmigrations,
							  session->applied, session->napplied);
}

/*
 * Make the remote's history if there is none, fit for all that is registered,
 * whichever of it is to be written first.
 */
void
migrate_create_history(MigrateSession *session)
{
	int64		highest = 0;

	for (int i = session->nmigrations - 1; i >= 0; i--)
	{
		if (version_to_number(session->migrations[i].version, &highest))
			break;
	}
	history_create(session->history, highest);
}

/*
 * Connect to a pool's remote, and read its history and what is registered.
 * With lock_timeout (milliseconds) of 0 or more, have its lock first.
 * migrate_close() is to follow, in any case.  Throws if the current role may
 * not do this by that SQL function.
 */
void
migrate_open(MigrateSession *session, const char *pool, Oid function, int lock_timeout)
{
	static bool registered = false;
	const Definition *definition;
	HistoryFormat format;
	const char *schema;

	client_require_workers();
	session->pool = pool;
	session->lock_timeout = lock_timeout;
	session->serverid = migrate_check_right(pool, function);
	if (lock_timeout >= 0 && RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot migrate pool \"%s\" from a standby", pool),
				 errdetail("What is done is written into table dbpool_migration_history, and a standby cannot be written to."),
				 errhint("Call the function on the primary.")));
	if (lock_timeout >= 0)
		client_refuse_read_only(psprintf("%s()", get_func_name(function)));
	session->migrations = source_read(session->serverid, &session->nmigrations);
	definition = definition_find(pool);
	format = (HistoryFormat) definition->options->history_format;
	schema = options_history_schema(GetForeignServer(session->serverid)->options);

	if (!registered)
		before_shmem_exit(show_end_at_exit, (Datum) 0);
	registered = true;
	show_begin(pool);
	session->remote = remote_open(pool, definition);
	if (lock_timeout >= 0)
	{
		refuse_pooler(session);
		(void) remote_query(session->remote, REMOTE_SETTINGS);
		take_lock(session, lock_timeout);
	}
	migrate_show_phase("reading history");
	session->history = history_open(session->remote, format, schema);
	migrate_reread(session);
}

/* All is well: let the next one have the lock at once. */
void
migrate_unlock(MigrateSession *session)
{
	(void) remote_query(session->remote,
						psprintf("SELECT pg_catalog.pg_advisory_unlock(" INT64_FORMAT ")",
								 session->lock_key));
}

/* Releases the lock with the connection, if it is still held. */
void
migrate_close(MigrateSession *session)
{
	remote_close(session->remote);
	session->remote = NULL;
	show_end();
}

/* --- arguments ------------------------------------------------------------------- */

const char *
migrate_pool_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		(void) definition_server(NULL, false);
	return NameStr(*PG_GETARG_NAME(0));
}

/* An interval in milliseconds. */
int
migrate_lock_timeout(FunctionCallInfo fcinfo, int argument)
{
	int			ms;

	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lock_timeout must not be null")));
	ms = interval_ms(PG_GETARG_INTERVAL_P(argument));
	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lock_timeout is out of range"),
				 errhint("The valid range is 0 to 24 days.")));
	return ms;
}
