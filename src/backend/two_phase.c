/*
 * two_phase.c
 *	  Transactions on several servers that end alike, whatever crashes.
 *
 * THE PROTOCOL
 *
 * At the local commit, with more than one writer (the local transaction is one if it has
 * a number):
 *	 1. For each remote writer a gid is made, which no other has or will ever have, and a
 *		row with it is written to dbpool_prepared, in the local transaction.
 *	 2. All remote writers PREPARE at the same time.  If one fails to, the local
 *		transaction does, and so there are no rows.
 *	 3. The local transaction is committed, flushed to disk, and to synchronous standbys,
 *		whatever synchronous_commit says.  The rows' fate is the decision: there is no other.
 *	 4. The leases are told, and their workers COMMIT PREPARED, or ROLLBACK PREPARED.
 *		The session waits a moment for that, since its user expects to see it, but not for
 *		longer, and throws nothing.
 *	 5. What remains, of whatever crash, is for the resolver: resolve.c.
 * One remote writer, with nothing written here, is just committed, when those that have
 * only read have ended.  Those end with the first step otherwise.
 *
 * A remote that has prepared transactions for which there is no row must be found by the
 * resolver as well.  So, before the first PREPARE at it, a row of dbpool_two_phase is
 * committed, by a process of its own, which lasts.  It has the beginning of the gids of that
 * server and mapping, so that no other database's, nor another server's, is taken
 * for one.
 *
 * Who has written?  A command tag of a write says so for sure.  A transaction of which none
 * does is asked whether it has a number, in one round trip for all.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/extension.h"
#include "backend/resolve.h"
#include "backend/tables.h"
#include "backend/transaction.h"
#include "backend/written.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ipc/errand.h"

/* Milliseconds that a commit waits for the remotes' second step. */
#define SECOND_STEP_MS		1000

/* Transactions that it waits for; it waits for no more than the first of them. */
#define SECOND_STEP_MOST	64

static uint32 wait_second_event;

/* --- who has written ------------------------------------------------------------------ */

typedef struct YesSink
{
	AnswerSink	sink;			/* must be first */
	uint64		count;
} YesSink;

static void
yes_frame(AnswerSink *base, char type, MessageReader *body)
{
	if (type == FRAME_TAG)
		message_get(body, &((YesSink *) base)->count, sizeof(uint64));
}

static bool
is_candidate(const RemoteTransaction *transaction)
{
	return transaction->two_phase && !transaction->read_only;
}

/* Ask those of which it is not known, also of those that are not to be prepared. */
static void
ask_unsure(RemoteTransaction **list, int n)
{
	Call	   *calls = palloc0(sizeof(Call) * n);
	YesSink    *sinks = palloc0(sizeof(YesSink) * n);
	AnswerSink **answers = palloc(sizeof(AnswerSink *) * n);
	int			asked = 0;

	for (int i = 0; i < n; i++)
	{
		if (list[i]->wrote || list[i]->only_read)
			continue;
		calls[asked].kind = REQUEST_SCRIPT;
		calls[asked].pool = NameStr(list[i]->pool);
		calls[asked].sql = "SELECT 1 WHERE pg_catalog.txid_current_if_assigned() IS NOT NULL";
		calls[asked].transaction = list[i];
		sinks[asked].sink.frame = yes_frame;
		answers[asked] = &sinks[asked].sink;
		asked++;
	}
	client_run_together(calls, answers, asked);
	for (int i = 0; i < asked; i++)
	{
		calls[i].transaction->wrote = sinks[i].count > 0;
		calls[i].transaction->only_read = sinks[i].count == 0;
	}
}

/* --- the beginning of a pool's gids ------------------------------------------------------ */

/* As the table has it now, whatever the transaction's snapshot is; NULL if it has none. */
static char *
read_prefix(Oid schema, const PoolKey *key)
{
	Relation	rel = tables_open(schema, "dbpool_two_phase", 4, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *prefix = NULL;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(key->serverid));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(key->userid));
	scan = systable_beginscan(rel, compat_primary_key_index(rel), true, snapshot, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;

		if (strcmp(TextDatumGetCString(heap_getattr(tuple, 4, desc, &isnull)), two_phase_origin()) == 0)
			prefix = TextDatumGetCString(heap_getattr(tuple, 3, desc, &isnull));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return prefix;
}

/* Have a process write it, and wait for that. */
static void
make_prefix(const PoolKey *key)
{
	BackgroundWorker bgw;
	BackgroundWorkerHandle *handle;

	dbpool_fill_bgworker(&bgw, "dbpool_two_phase_main", "dbpool resolver", 0);
	snprintf(bgw.bgw_name, sizeof(bgw.bgw_name), "dbpool resolver, for the first time");
	memcpy(bgw.bgw_extra, key, sizeof(*key));
	bgw.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&bgw, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there is no place for a background worker, which the first transaction in two phases needs"),
				 errhint("Raise max_worker_processes.")));
	(void) WaitForBackgroundWorkerShutdown(handle);
}

static const char *
prefix_of(Oid schema, const RemoteTransaction *transaction)
{
	const PoolKey *key = &transaction->definition.key;
	char	   *prefix = NULL;

	if (definition_is_for_others(key) && (prefix = read_prefix(schema, key)) == NULL)
	{
		/* one after the other: many sessions may come at once */
		Relation	rel = tables_open(schema, "dbpool_two_phase", 4, ShareUpdateExclusiveLock);

		prefix = read_prefix(schema, key);
		if (prefix == NULL)
		{
			make_prefix(key);
			prefix = read_prefix(schema, key);
		}
		table_close(rel, ShareUpdateExclusiveLock);
	}
	if (prefix == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the %s cannot be prepared", transaction_shown(transaction)),
				 errdetail("After a crash nobody could end it: dbpool opens connections by itself only for the user mapping of the server's owner, and for all those of a superuser's server; and server and mapping must have been committed."),
				 errhint("Set dbpool.transaction to bound, or let the server's owner make such transactions.")));
	return prefix;
}

/* --- the first step ---------------------------------------------------------------------- */

static void
insert_row(Oid schema, const RemoteTransaction *transaction)
{
	Relation	rel = tables_open(schema, "dbpool_prepared", 11, RowExclusiveLock);
	NameData	pool = transaction->pool;
	char		system[LEASE_SYSTEM];
	Datum		values[11] = {
		CStringGetTextDatum(transaction->gid),
		ObjectIdGetDatum(transaction->definition.key.serverid),
		ObjectIdGetDatum(transaction->definition.key.userid),
		NameGetDatum(&pool),
		ObjectIdGetDatum(GetUserId()),
		Int32GetDatum(MyProcPid),
		TimestampTzGetDatum(GetCurrentTimestamp()),
		Int32GetDatum(0)		/* attempts; the last and its error are NULL */
	};
	bool		nulls[11] = {[8] = true,[9] = true};

	SpinLockAcquire(&transaction->lease->mutex);
	strlcpy(system, transaction->lease->system, sizeof(system));
	SpinLockRelease(&transaction->lease->mutex);
	values[10] = CStringGetTextDatum(system);
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, NoLock);
}

static void
make_gid(Oid schema, RemoteTransaction *transaction)
{
	const char *prefix = prefix_of(schema, transaction);
	uint64		number;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not get a random number")));
	snprintf(transaction->gid, sizeof(transaction->gid), "%s_%016llx", prefix, (unsigned long long) number);
}

/*
 * The local transaction is about to be committed, with these bound ones.  Returns true
 * when those that have written are to be prepared: they have gids then, and rows.
 */
bool
two_phase_choose(RemoteTransaction **list, int n)
{
	bool		local = TransactionIdIsValid(GetTopTransactionIdIfAny());
	int			candidates = 0;
	int			writers = 0;
	Oid			schema;

	for (int i = 0; i < n; i++)
		candidates += is_candidate(list[i]);
	if (candidates == 0 || candidates + local < 2)
		return false;
	ask_unsure(list, n);
	for (int i = 0; i < n; i++)
		writers += is_candidate(list[i]) && list[i]->wrote;
	if (writers == 0 || writers + local < 2)
		return false;
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("remote transactions cannot be committed in two phases, as the local one is read-only"),
				 errdetail("They have written on %d servers, and the decision is written here.", writers),
				 errhint("Set dbpool.transaction to bound.")));
	schema = extension_schema();
	if (!errand_want(ERRAND_RESOLVE, MyDatabaseId))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases have prepared transactions to be looked after"),
				 errdetail("There are %d, as many as dbpool can look after at a time.", ERRAND_DATABASES),
				 errhint("Set dbpool.transaction to bound, or see to dbpool_in_doubt of the other databases.")));

	/*
	 * the transaction's commands have ended, and with them their snapshots;
	 * who writes has to have one
	 */
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < n; i++)
	{
		if (!is_candidate(list[i]) || !list[i]->wrote)
			continue;
		make_gid(schema, list[i]);
		insert_row(schema, list[i]);
	}
	PopActiveSnapshot();
	/* so that nothing is made when the local transaction has been committed */
	(void) compat_wait_event(&wait_second_event, "DbpoolSecondPhase");
	/* what is acknowledged to a remote must not be lost here */
	two_phase_force_commit();
	return true;
}

/* --- the second step -------------------------------------------------------------------------- */

/*
 * Wait, but not for long, until the workers are through with those leases.  They set this
 * process's latch when they are.  A process must not exit in the midst of a commit, which it
 * could not abort: it does not when the postmaster is gone either.
 */
static void
wait_for_workers(LeaseShared **leases, const uint64 *holds, int n)
{
	Ticks		until = ticks_plus_ms(ticks_now(), SECOND_STEP_MS);

	for (;;)
	{
		long		left = ticks_left_ms(until);

		while (n > 0 && lease_word(leases[n - 1]) != (holds[n - 1] | LEASE_RELEASED))
			n--;
		if (n == 0 || left <= 0)
			break;
		if ((WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH, left,
					   wait_second_event) & WL_POSTMASTER_DEATH) != 0)
			break;
		ResetLatch(MyLatch);
	}
}

/*
 * The local transaction has been committed.  Throws nothing, and needs no memory.
 */
void
two_phase_committed(void)
{
	static LeaseShared *leases[SECOND_STEP_MOST];
	static uint64 holds[SECOND_STEP_MOST];
	dlist_mutable_iter iter;
	int			n = 0;

	if (!dlist_is_empty(&transactions))
		compat_injection_point("dbpool-committed-before-telling");
	dlist_foreach_modify(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (transaction->gid[0] == '\0')
			continue;
		if (n < SECOND_STEP_MOST)
		{
			leases[n] = transaction->lease;
			holds[n++] = transaction->hold;
		}
		written_note_gid(&transaction->definition.key, transaction->gid);
		transaction->lease->commit_prepared = true;
		transaction_let_go(transaction);
	}
	if (n == 0)
		return;
	wait_for_workers(leases, holds, n);
	(void) errand_want(ERRAND_RESOLVE, MyDatabaseId);
}
