/*
 * resolve.c
 *	  "dbpool resolver": ends prepared transactions that were left behind; two_phase.c has
 *	  the protocol.
 *
 * A process per database, started when there may be some, and gone when there are none.
 * For each server and mapping of dbpool_two_phase it reads, in this order:
 *	 P	what is prepared at the remote,
 *	 A	what a session of this server is still about (a gid in a lease),
 *	 T	the rows of dbpool_prepared, by a new snapshot,
 *	 Q	what is prepared at the remote, again;
 * and acts on what is in P and in Q and not in A: with a row it is committed, without one
 * rolled back.  A row that is neither in P nor in Q nor in A has been dealt with, and is
 * deleted.
 *
 * Why in this order: a gid gets into a lease before it is prepared, and leaves it when
 * the local transaction's fate is there for all to see.  So what is in P and not in A has
 * met its fate before T is read.  What was in A, or came into P later, is left for the next
 * time.  And what is in P and not in Q has been ended by a worker, or a human.
 *
 * It reaches remotes through the pools, as everybody else does.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/client.h"
#include "backend/extension.h"
#include "backend/tables.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "ipc/lease.h"
#include "ipc/resolver.h"

PG_FUNCTION_INFO_V1(dbpool_resolve);

PGDLLEXPORT void dbpool_resolve_main(Datum arg);
PGDLLEXPORT void dbpool_two_phase_main(Datum arg);

/* Milliseconds between two tries; each time twice as long. */
#define TRY_FIRST_MS	500
#define TRY_LAST_MS		4000

/* Of one place; what claims to have more is not believed. */
#define GIDS_MOST		100000

/* A server seen through a mapping, where something may be prepared. */
typedef struct Place
{
	Oid			serverid;
	Oid			userid;
	char	   *prefix;
	bool		complained;		/* the log has been told that it cannot be
								 * reached */
} Place;

static ResolverShared *entry;
static MemoryContext round_context;

/* --- lists of gids --------------------------------------------------------------------- */

static bool
contains(List *gids, const char *gid)
{
	ListCell   *lc;

	foreach(lc, gids)
	{
		if (strcmp(lfirst(lc), gid) == 0)
			return true;
	}
	return false;
}

static List *
append(List *gids, const char *gid)
{
	MemoryContext old = MemoryContextSwitchTo(round_context);

	gids = lappend(gids, pstrdup(gid));
	MemoryContextSwitchTo(old);
	return gids;
}

/* --- the remote ------------------------------------------------------------------------ */

typedef struct ListSink
{
	AnswerSink	sink;			/* must be first */
	const char *prefix;			/* how those begin that are listed, or NULL */
	bool		primary;		/* the remote has said that it is no standby */
	List	   *gids;
} ListSink;

/* Is it one of ours, to the letter?  A remote may send anything. */
static bool
is_gid(const char *gid, const char *prefix)
{
	Size		len = strlen(prefix);

	return strlen(gid) == len + 17 && strncmp(gid, prefix, len) == 0 && gid[len] == '_' &&
		strspn(gid + len + 1, "0123456789abcdef") == 16;
}

static void
list_frame(AnswerSink *base, char type, MessageReader *body)
{
	ListSink   *sink = (ListSink *) base;

	if (type == FRAME_RESTART)
	{
		sink->primary = false;
		sink->gids = NIL;
	}
	/* one column, which is not NULL */
	if (type == FRAME_ROW && sink->prefix != NULL && message_get_int32(body) >= 0)
	{
		const char *gid = message_get_string(body);

		if (strcmp(gid, "primary") == 0)
			sink->primary = true;
		else if (is_gid(gid, sink->prefix))
			sink->gids = append(sink->gids, gid);
		if (list_length(sink->gids) > GIDS_MOST)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the remote server has more than %d prepared transactions of one pool", GIDS_MOST)));
	}
}

static List *
run_at(const Definition *definition, RequestKind kind, const char *sql, const char *prefix)
{
	ListSink	sink = {{list_frame}, prefix, false, NIL};
	Call		call;

	memset(&call, 0, sizeof(call));
	call.pool = NameStr(definition->options->server);
	call.definition = definition;
	call.kind = kind;
	call.sql = sql;
	client_run(&call, &sink.sink);

	/*
	 * one of several hosts perhaps: what it does not show may be prepared all
	 * the same
	 */
	if (prefix != NULL && !sink.primary)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the remote server of pool \"%s\" is a standby, which does not know what is prepared", call.pool),
				 errhint("Set target_session_attrs to read-write on the server.")));
	return sink.gids;
}

/* What is prepared there that began with this place's prefix: P, or Q. */
static List *
prepared_at(const Definition *definition, const Place *place)
{
	return run_at(definition, REQUEST_QUERY,
				  psprintf("SELECT 'primary'::pg_catalog.text WHERE NOT pg_catalog.pg_is_in_recovery() UNION ALL "
						   "SELECT p.gid FROM pg_catalog.pg_prepared_xacts p "
						   "WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database() "
						   "AND pg_catalog.left(p.gid, %d) OPERATOR(pg_catalog.=) '%s'",
						   (int) strlen(place->prefix), place->prefix),
				  place->prefix);
}

/* --- this server --------------------------------------------------------------------------- */

/* A: what sessions are still about. */
static List *
under_way(void)
{
	List	   *gids = NIL;

	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);
		char		gid[LEASE_GID];

		if (lease_word_state(lease_word(lease)) == LEASE_FREE)
			continue;
		SpinLockAcquire(&lease->mutex);
		strlcpy(gid, lease->gid, sizeof(gid));
		SpinLockRelease(&lease->mutex);
		if (gid[0] != '\0')
			gids = append(gids, gid);
	}
	return gids;
}

/* T: the rows of a place. */
static List *
rows_of(const Place *place)
{
	List	   *gids = NIL;
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_prepared");
	Oid			types[] = {OIDOID, OIDOID};
	Datum		values[] = {ObjectIdGetDatum(place->serverid), ObjectIdGetDatum(place->userid)};

	tables_run(psprintf("SELECT p.gid FROM %s.dbpool_prepared p "
						"WHERE p.serverid OPERATOR(pg_catalog.=) $1 AND p.userid OPERATOR(pg_catalog.=) $2", schema),
			   2, types, values, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
		gids = append(gids, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	tables_end(&tables);
	return gids;
}

static void
begin_local(void)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_local(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
delete_row(const char *gid)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_prepared");
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(gid)};

	tables_run(psprintf("DELETE FROM %s.dbpool_prepared p WHERE p.gid OPERATOR(pg_catalog.=) $1", schema),
			   1, types, values, NULL, SPI_OK_DELETE);
	tables_end(&tables);
}

/* It has been tried in vain. */
static void
note_failure(const Place *place, const char *why)
{
	Tables		tables;
	const char *schema;
	Oid			types[] = {OIDOID, OIDOID, TEXTOID};
	Datum		values[] = {
		ObjectIdGetDatum(place->serverid), ObjectIdGetDatum(place->userid), CStringGetTextDatum(why)
	};

	begin_local();
	schema = tables_begin(&tables, "dbpool_prepared");
	tables_run(psprintf("UPDATE %s.dbpool_prepared p SET attempts = p.attempts OPERATOR(pg_catalog.+) 1, "
						"last_attempt = pg_catalog.clock_timestamp(), last_error = $3 "
						"WHERE p.serverid OPERATOR(pg_catalog.=) $1 AND p.userid OPERATOR(pg_catalog.=) $2", schema),
			   3, types, values, NULL, SPI_OK_UPDATE);
	tables_end(&tables);
	end_local();
}

/* --- a round ------------------------------------------------------------------------------------ */

/* Deal with a place; returns how many are left there, for another round. */
static int
resolve_place(const Place *place)
{
	Definition	definition;
	List	   *p;
	List	   *a;
	List	   *t;
	List	   *q;
	List	   *done = NIL;
	ListCell   *lc;
	int			left = 0;

	begin_local();
	if (!definition_to_warm(place->serverid, place->userid, &definition))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the server or its user mapping was dropped, or may not be used by dbpool itself any more")));
	p = prepared_at(&definition, place);
	a = under_way();
	/* the pair of a transaction's end before its gid leaves its lease */
	pg_memory_barrier();
	PushActiveSnapshot(GetLatestSnapshot());
	t = rows_of(place);
	PopActiveSnapshot();
	q = prepared_at(&definition, place);
	foreach(lc, p)
	{
		const char *gid = lfirst(lc);

		if (!contains(q, gid) || contains(a, gid))
			continue;
		(void) run_at(&definition, REQUEST_SCRIPT,
					  psprintf("%s PREPARED '%s'", contains(t, gid) ? "COMMIT" : "ROLLBACK", gid), NULL);
		ereport(LOG,
				(errmsg("dbpool has %s the prepared transaction \"%s\" of pool \"%s\"",
						contains(t, gid) ? "committed" : "rolled back", gid,
						NameStr(definition.options->server))));
		/* its row goes when it is seen to be gone */
		left++;
	}
	foreach(lc, t)
	{
		const char *gid = lfirst(lc);

		if (!contains(p, gid) && !contains(q, gid) && !contains(a, gid))
			done = lappend(done, (void *) gid);
	}
	foreach(lc, done)
		delete_row(lfirst(lc));
	end_local();
	return left;
}

/* The same; an error with one place is not to keep the others waiting. */
static int
try_place(Place *place)
{
	volatile int left = 1;
	char	   *volatile why = NULL;

	PG_TRY();
	{
		left = resolve_place(place);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(round_context);
		HOLD_INTERRUPTS();
		if (!place->complained)
			EmitErrorReport();
		place->complained = true;
		why = CopyErrorData()->message;
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	CHECK_FOR_INTERRUPTS();
	if (why != NULL)
		note_failure(place, why);
	return left;
}

/* All places of this database. */
static List *
list_places(void)
{
	List	   *places = NIL;
	Oid			schema;

	begin_local();
	schema = extension_schema();
	if (OidIsValid(schema) && OidIsValid(get_relname_relid("dbpool_two_phase", schema)))
	{
		Tables		tables;
		const char *name = tables_begin(&tables, "dbpool_two_phase");

		tables_run(psprintf("SELECT t.serverid, t.userid, t.prefix FROM %s.dbpool_two_phase t", name),
				   0, NULL, NULL, NULL, SPI_OK_SELECT);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	row = SPI_tuptable->vals[i];
			Place	   *place = MemoryContextAllocZero(TopMemoryContext, sizeof(Place));
			MemoryContext old;
			bool		isnull;

			place->serverid = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
			place->userid = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
			place->prefix = MemoryContextStrdup(TopMemoryContext, SPI_getvalue(row, SPI_tuptable->tupdesc, 3));
			old = MemoryContextSwitchTo(TopMemoryContext);
			places = lappend(places, place);
			MemoryContextSwitchTo(old);
		}
		tables_end(&tables);
	}
	end_local();
	return places;
}

static void
resolver_exit(int code, Datum arg)
{
	(void) arg;
	pg_atomic_write_u32(&entry->pid, 0);
	/* one that has failed has not looked at all */
	if (code != 0 || pg_atomic_read_u32(&entry->wanted) != 0)
		resolver_want(MyDatabaseId);
}

static void
rest(int ms)
{
	static uint32 wait_event;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 compat_wait_event(&wait_event, "DbpoolResolver"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

void
dbpool_resolve_main(Datum arg)
{
	Oid			dbid;
	int			pause = TRY_FIRST_MS;

	(void) arg;
	memcpy(&dbid, MyBgworkerEntry->bgw_extra, sizeof(dbid));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dbid, InvalidOid, 0);
	entry = resolver_of(dbid);
	if (entry == NULL)
		return;
	pg_atomic_write_u32(&entry->pid, (uint32) MyProcPid);
	before_shmem_exit(resolver_exit, (Datum) 0);
	round_context = AllocSetContextCreate(TopMemoryContext, "dbpool resolver", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		ListCell   *lc;
		int			left = 0;

		pg_atomic_exchange_u32(&entry->wanted, 0);
		foreach(lc, list_places())
			left += try_place(lfirst(lc));
		MemoryContextReset(round_context);
		if (left == 0)
			break;
		/* who has to be started again is wanted */
		pg_atomic_exchange_u32(&entry->wanted, 1);
		rest(pause);
		pause = Min(pause * 2, TRY_LAST_MS);
	}
}

/* The first time for a pool: see two_phase.c. */
void
dbpool_two_phase_main(Datum arg)
{
	PoolKey		key;
	Definition	definition;

	(void) arg;
	memcpy(&key, MyBgworkerEntry->bgw_extra, sizeof(key));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(key.dbid, InvalidOid, 0);
	begin_local();
	if (definition_to_warm(key.serverid, key.userid, &definition))
	{
		Tables		tables;
		const char *schema = tables_begin(&tables, "dbpool_two_phase");
		Oid			types[] = {OIDOID, OIDOID, TEXTOID};
		uint64		number;
		Datum		values[3];

		if (!pg_strong_random(&number, sizeof(number)))
			elog(ERROR, "could not get a random number");
		values[0] = ObjectIdGetDatum(key.serverid);
		values[1] = ObjectIdGetDatum(key.userid);
		values[2] = CStringGetTextDatum(psprintf("dbpool_%016llx", (unsigned long long) number));
		tables_run(psprintf("INSERT INTO %s.dbpool_two_phase (serverid, userid, prefix) "
							"VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", schema),
				   3, types, values, NULL, SPI_OK_INSERT);
		tables_end(&tables);
	}
	ForceSyncCommit();
	end_local();
}

/* --- by hand ------------------------------------------------------------------------------------- */

/* Where a gid belongs: by its row, or by how it begins.  False when nobody knows it. */
static bool
place_of_gid(const char *gid, Place *place)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_two_phase");
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(gid)};
	bool		found;
	bool		isnull;

	tables_run(psprintf("SELECT t.serverid, t.userid FROM %s.dbpool_two_phase t "
						"WHERE pg_catalog.left($1, pg_catalog.length(t.prefix)) OPERATOR(pg_catalog.=) t.prefix", schema),
			   1, types, values, NULL, SPI_OK_SELECT);
	found = SPI_processed == 1;
	if (found)
	{
		place->serverid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		place->userid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	}
	tables_end(&tables);
	return found;
}

/*
 * dbpool_resolve(gid text, outcome text) returns void
 *
 * Ends a prepared transaction by hand, "commit" or "rollback", against what dbpool would
 * decide if need be; for the server's owner.  Errors: 42704 for a gid that is not
 * dbpool's, or that the remote does not know; 55006 while a session is about it.
 */
Datum
dbpool_resolve(PG_FUNCTION_ARGS)
{
	const char *gid = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *outcome = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		commit = pg_strcasecmp(outcome, "commit") == 0;
	Place		place = {0};
	Definition	definition;

	client_require_workers();
	round_context = CurrentMemoryContext;
	if (!commit && pg_strcasecmp(outcome, "rollback") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid outcome of a prepared transaction: \"%s\"", outcome),
				 errhint("Valid are \"commit\" and \"rollback\".")));
	if (!place_of_gid(gid, &place))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no prepared transaction \"%s\" of dbpool", gid),
				 errhint("See dbpool_in_doubt, and pg_prepared_xacts of the remote server.")));
	if (!compat_server_owner(place.serverid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, GetForeignServer(place.serverid)->servername);
	if (contains(under_way(), gid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a session is still about the prepared transaction \"%s\"", gid)));
	if (!definition_to_warm(place.serverid, place.userid, &definition))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the user mapping of the prepared transaction \"%s\" cannot be used", gid),
				 errhint("End it at the remote server: %s PREPARED %s.", commit ? "COMMIT" : "ROLLBACK",
						 quote_literal_cstr(gid))));
	(void) run_at(&definition, REQUEST_SCRIPT,
				  psprintf("%s PREPARED %s", commit ? "COMMIT" : "ROLLBACK", quote_literal_cstr(gid)), NULL);
	delete_row(gid);
	PG_RETURN_VOID();
}
