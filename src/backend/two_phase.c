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
 *	 3. The local transaction is committed, flushed to disk whatever synchronous_commit
 *		says.  The rows' fate is the decision: there is no other.
 *	 4. The leases are told, and their workers COMMIT PREPARED, or ROLLBACK PREPARED.
 *		The session waits a moment for that, since its user expects to see it, but not for
 *		longer, and throws nothing.
 *	 5. What remains, of whatever crash, is for the resolver: resolve.c.
 * One remote writer, with nothing written here, is just committed.
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

#include "access/xact.h"
#include "backend/tables.h"
#include "backend/transaction.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "ipc/resolver.h"

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

/* Ask those of which it is not known. */
static void
ask_unsure(RemoteTransaction **list, int n)
{
	Call	   *calls = palloc0(sizeof(Call) * n);
	YesSink    *sinks = palloc0(sizeof(YesSink) * n);
	AnswerSink **answers = palloc(sizeof(AnswerSink *) * n);
	int			asked = 0;

	for (int i = 0; i < n; i++)
	{
		if (!is_candidate(list[i]) || list[i]->wrote)
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
		calls[i].transaction->wrote = sinks[i].count > 0;
}

/* --- the beginning of a pool's gids ------------------------------------------------------ */

/* As the table has it; NULL if it has none. */
static char *
read_prefix(const PoolKey *key)
{
	Tables		tables;
	const char *schema;
	Oid			types[] = {OIDOID, OIDOID};
	Datum		values[] = {ObjectIdGetDatum(key->serverid), ObjectIdGetDatum(key->userid)};
	MemoryContext context = CurrentMemoryContext;
	char	   *prefix = NULL;

	/* what another process has just committed is to be seen */
	PushActiveSnapshot(GetLatestSnapshot());
	schema = tables_begin(&tables, "dbpool_two_phase");
	if (SPI_execute_with_args(psprintf("SELECT t.prefix FROM %s.dbpool_two_phase t "
									   "WHERE t.serverid OPERATOR(pg_catalog.=) $1 AND t.userid OPERATOR(pg_catalog.=) $2", schema),
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read dbpool_two_phase");
	if (SPI_processed == 1)
		prefix = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	tables_end(&tables);
	PopActiveSnapshot();
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
prefix_of(const RemoteTransaction *transaction)
{
	const PoolKey *key = &transaction->definition.key;
	char	   *prefix = read_prefix(key);

	if (prefix == NULL)
	{
		make_prefix(key);
		prefix = read_prefix(key);
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
insert_row(const RemoteTransaction *transaction)
{
	Tables		tables;
	Oid			roleid = GetUserId();
	const char *schema;
	Oid			types[] = {TEXTOID, OIDOID, OIDOID, NAMEOID, OIDOID, INT4OID};
	Datum		values[] = {
		CStringGetTextDatum(transaction->gid),
		ObjectIdGetDatum(transaction->definition.key.serverid),
		ObjectIdGetDatum(transaction->definition.key.userid),
		NameGetDatum(&transaction->pool),
		ObjectIdGetDatum(roleid),
		Int32GetDatum(MyProcPid)
	};

	/*
	 * the commands of the transaction have ended, and with them their
	 * snapshots
	 */
	PushActiveSnapshot(GetTransactionSnapshot());
	schema = tables_begin(&tables, "dbpool_prepared");
	tables_run(psprintf("INSERT INTO %s.dbpool_prepared (gid, serverid, userid, pool, roleid, pid) "
						"VALUES ($1, $2, $3, $4, $5, $6)", schema),
			   lengthof(types), types, values, NULL, SPI_OK_INSERT);
	tables_end(&tables);
	PopActiveSnapshot();
}

static void
make_gid(RemoteTransaction *transaction)
{
	const char *prefix = prefix_of(transaction);
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
	for (int i = 0; i < n; i++)
	{
		if (!is_candidate(list[i]) || !list[i]->wrote)
			continue;
		make_gid(list[i]);
		insert_row(list[i]);
	}
	/* what is acknowledged to a remote must not be lost here */
	ForceSyncCommit();
	resolver_want(MyDatabaseId);
	return true;
}

/* --- the second step -------------------------------------------------------------------------- */

/* Wait, but not for long, until the workers are through with those leases. */
static void
wait_for_workers(LeaseShared **leases, const uint64 *holds, int n)
{
	Ticks		until = ticks_plus_ms(ticks_now(), SECOND_STEP_MS);

	ConditionVariablePrepareToSleep(&dbpool_shared->slot_freed_cv);
	for (int i = 0; i < n; i++)
	{
		while (lease_word(leases[i]) == (holds[i] | LEASE_RELEASED))
		{
			long		left = ticks_left_ms(until);

			if (left <= 0)
				break;
			(void) ConditionVariableTimedSleep(&dbpool_shared->slot_freed_cv, left,
											   compat_wait_event(&wait_second_event, "DbpoolSecondPhase"));
		}
	}
	ConditionVariableCancelSleep();
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
		transaction->lease->commit_prepared = true;
		transaction_let_go(transaction);
	}
	if (n == 0)
		return;
	wait_for_workers(leases, holds, n);
	resolver_want(MyDatabaseId);
}
