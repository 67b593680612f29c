/*
 * warm.c
 *	  "dbpool warmer": opens the pools with a min_size ahead of their use.
 *
 * A worker that starts knows no pool, and may not look into any catalog.  So
 * it has this short-lived process started, attached to no database, which
 * lists the databases and has one more started in each, one after the other;
 * that one reads the definitions, asks the worker, and exits.  The first worker's
 * also sees to it that what was prepared at remotes is looked after (resolve.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "backend/client.h"
#include "backend/extension.h"
#include "backend/tables.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "executor/spi.h"
#include "ipc/errand.h"

/* How often to look for a free place in max_worker_processes, once a second. */
#define SLOT_TRIES	30

PGDLLEXPORT void dbpool_warm_main(Datum arg);
PGDLLEXPORT void dbpool_warm_database_main(Datum arg);

/* The databases that can be connected to. */
static List *
list_databases(void)
{
	List	   *list = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && database->datconnlimit != -2)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			list = lappend_oid(list, database->oid);
			MemoryContextSwitchTo(old);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return list;
}

static void
wait_a_second(void)
{
	static uint32 wait_event;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000,
					 compat_wait_event(&wait_event, "DbpoolWarmerSlot"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Warm the pools of one database, in a process of its own; wait for it.  The
 * warmers of other workers need such a place for a moment, too, and nobody
 * tells when one gets free.
 */
static void
warm_in_database(int worker, Oid dbid)
{
	BackgroundWorker bgw;
	BackgroundWorkerHandle *handle;

	dbpool_fill_bgworker(&bgw, "dbpool_warm_database_main", "dbpool warmer", worker);
	snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "dbpool warmer for database %u", dbid);
	memcpy(bgw.bgw_extra, &dbid, sizeof(dbid));
	bgw.bgw_notify_pid = MyProcPid;
	for (int tries = 1; !RegisterDynamicBackgroundWorker(&bgw, &handle); tries++)
	{
		if (tries > SLOT_TRIES)
		{
			ereport(LOG,
					(errmsg("dbpool cannot open connections ahead of their use in database %u", dbid),
					 errhint("Raise max_worker_processes.")));
			return;
		}
		wait_a_second();
	}
	(void) WaitForBackgroundWorkerShutdown(handle);
}

/* Attached to no database.  arg is the number of the worker. */
void
dbpool_warm_main(Datum arg)
{
	List	   *databases;
	ListCell   *lc;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	databases = list_databases();
	foreach(lc, databases)
		warm_in_database(DatumGetInt32(arg), lfirst_oid(lc));
}

/* A user mapping of one of our servers. */
typedef struct Mapping
{
	Oid			serverid;
	Oid			umuser;
} Mapping;

/* Those of this database. */
static List *
list_mappings(void)
{
	Oid			fdw;
	List	   *list = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	fdw = get_foreign_data_wrapper_oid("dbpool", true);
	if (OidIsValid(fdw))
	{
		rel = table_open(UserMappingRelationId, AccessShareLock);
		scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_user_mapping row = (Form_pg_user_mapping) GETSTRUCT(tuple);

			ForeignServer *server = GetForeignServerExtended(row->umserver, FSV_MISSING_OK);

			if (server != NULL && server->fdwid == fdw)
			{
				Mapping    *mapping = MemoryContextAlloc(TopMemoryContext, sizeof(Mapping));
				MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

				mapping->serverid = row->umserver;
				mapping->umuser = row->umuser;
				list = lappend(list, mapping);
				MemoryContextSwitchTo(old);
			}
		}
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return list;
}

static void
ignore_frame(AnswerSink *sink, char type, MessageReader *body)
{
	(void) sink;
	(void) type;
	(void) body;
}

/* Ask the worker for the pool of a mapping, if it is that worker's to keep. */
static void
warm_mapping(const Mapping *mapping, int worker)
{
	Definition	definition;
	Call		call = {0};
	AnswerSink	sink = {ignore_frame};

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (definition_to_warm(mapping->serverid, mapping->umuser, &definition) &&
		definition.options->min_size > 0 &&
		shmem_first_worker(&definition.key) == worker)
	{
		call.pool = NameStr(definition.options->server);
		call.definition = &definition;
		call.kind = REQUEST_WARM;
		call.sql = "";
		client_run(&call, &sink);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* An error with one pool is not to keep the others cold. */
static void
try_mapping(const Mapping *mapping, int worker)
{
	PG_TRY();
	{
		warm_mapping(mapping, worker);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/*
 * After a start, something may be left that was prepared at a remote before.  Only where
 * there has ever been such a thing is it looked for.
 */
static void
want_resolver(void)
{
	Oid			schema;

	if (RecoveryInProgress())
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	schema = extension_schema();
	if (OidIsValid(schema) && OidIsValid(get_relname_relid("dbpool_two_phase", schema)))
	{
		Tables		tables;
		const char *name = tables_begin(&tables, "dbpool_two_phase");

		tables_run(psprintf("SELECT FROM %s.dbpool_two_phase LIMIT 1", name),
				   0, NULL, NULL, NULL, SPI_OK_SELECT);
		if (SPI_processed > 0)
			(void) errand_want(ERRAND_RESOLVE, MyDatabaseId);
		tables_end(&tables);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Attached to a database.  arg is the number of the worker. */
void
dbpool_warm_database_main(Datum arg)
{
	Oid			dbid;
	ListCell   *lc;

	memcpy(&dbid, MyBgworkerEntry->bgw_extra, sizeof(dbid));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dbid, InvalidOid, 0);
	if (DatumGetInt32(arg) == 0)
		want_resolver();
	foreach(lc, list_mappings())
		try_mapping(lfirst(lc), DatumGetInt32(arg));
}
