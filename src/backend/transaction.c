/*
 * transaction.c
 *	  Transactions that a session has on connections of pools.
 *
 * Each is a lease (ipc/lease.h) and what the session knows of it.  A bound one begins
 * with the first call on its pool in a local transaction, and ends with that
 * (transaction_end.c); a named one is begun and ended by calls (transaction_named.c).
 *
 * A call that is given up while its statement runs may or may not have executed its
 * prelude (savepoints.c).  Until the worker says which, there are two stacks, one for
 * each case, and what happens locally happens to both.  The next call waits for the
 * worker's word (transaction_settle()); an abort does not, as it lets go of all.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "backend/transaction.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "ipc/errand.h"

/* Milliseconds between two looks whether what was given up has ended. */
#define SETTLE_LOOK_MS		1000

dlist_head	transactions = DLIST_STATIC_INIT(transactions);

static uint32 wait_settle_event;

/* The session has no more to do with it.  Neither waits nor throws. */
void
transaction_let_go(RemoteTransaction *transaction)
{
	LeaseShared *lease = transaction->lease;

	dlist_delete(&transaction->node);
	while (lease != NULL)
	{
		uint64		word = lease_word(lease);
		LeaseState	state = lease_word_state(word);

		Assert(lease_word_hold(word) == transaction->hold);
		if (state == LEASE_OPEN)
		{
			if (!lease_move(lease, transaction->hold, state, LEASE_RELEASED))
				continue;
			pg_atomic_write_u32(&shmem_worker(transaction->worker)->leases_attention, 1);
			shmem_wake_worker(transaction->worker);
		}
		else if (!lease_move(lease, transaction->hold, state, LEASE_FREE))
			continue;
		break;
	}
	if (transaction->gid[0] != '\0')
		(void) errand_want(ERRAND_RESOLVE, MyDatabaseId);
	pfree(transaction);
}

/* At exit, when all calls have been given up. */
void
transactions_exit(void)
{
	while (!dlist_is_empty(&transactions))
		transaction_let_go(dlist_head_element(RemoteTransaction, node, &transactions));
}

bool
transaction_has_ended(const RemoteTransaction *transaction)
{
	return transaction->lease != NULL &&
		lease_word_state(lease_word(transaction->lease)) == LEASE_ENDED;
}

/* What messages call it. */
const char *
transaction_shown(const RemoteTransaction *transaction)
{
	return NameStr(transaction->name)[0] != '\0' ?
		psprintf("transaction \"%s\" on pool \"%s\"", NameStr(transaction->name),
				 NameStr(transaction->pool)) :
		psprintf("transaction on pool \"%s\"", NameStr(transaction->pool));
}

/* It has ended, unasked.  hint says what to do about a named one, or is NULL. */
void
transaction_throw_gone(const RemoteTransaction *transaction, const char *hint)
{
	LeaseShared *lease = transaction->lease;

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(lease->sqlstate[0], lease->sqlstate[1], lease->sqlstate[2],
								   lease->sqlstate[3], lease->sqlstate[4])),
			 errmsg("the %s is gone", transaction_shown(transaction)),
			 errdetail_internal("%s", error_clean_text(lease->reason)),
			 transaction->mode == LEASE_BOUND ?
			 errhint("The local transaction cannot be committed either: roll it back and try again.") :
			 hint ? errhint("%s", hint) : 0));
}

/*
 * A call was given up while it ran: wait until the worker knows what has become of it.
 * That takes as long as a cancel does; a connection that does not obey is closed.
 */
void
transaction_settle(RemoteTransaction *transaction)
{
	LeaseShared *lease = transaction->lease;

	if (transaction->given_up == 0)
		return;
	ConditionVariablePrepareToSleep(&dbpool_shared->slot_freed_cv);
	/* the pair is in lease_runs() and lease_rests() */
	while (pg_atomic_read_u64(&lease->running) != 0 &&
		   shmem_worker_pid(transaction->worker) != 0 && !transaction_has_ended(transaction))
		(void) ConditionVariableTimedSleep(&dbpool_shared->slot_freed_cv, SETTLE_LOOK_MS,
										   compat_wait_event(&wait_settle_event, "DbpoolTransaction"));
	ConditionVariableCancelSleep();
	pg_read_barrier();
	if (pg_atomic_read_u64(&lease->begun) != transaction->given_up)
		transaction->stack = transaction->otherwise;
	transaction->given_up = 0;
}

static const char *const isolation_names[] = {
	"READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"
};

/* A new one, of which nothing is known in shared memory. */
RemoteTransaction *
transaction_make(LeaseMode mode, const Definition *definition)
{
	RemoteTransaction *transaction;

	/* the definition's bytes lie behind it */
	transaction = MemoryContextAllocZero(TopMemoryContext,
										 sizeof(RemoteTransaction) + definition->len);
	dlist_push_tail(&transactions, &transaction->node);
	transaction->mode = mode;
	transaction->pool = definition->options->server;
	transaction->definition = *definition;
	transaction->definition.bytes = (char *) (transaction + 1);
	memcpy(transaction->definition.bytes, definition->bytes, definition->len);
	transaction->definition.options = (PoolOptions *) transaction->definition.bytes;
	transaction->roleid = GetUserId();
	transaction->idle_timeout = definition->options->lease_idle_timeout;
	return transaction;
}

/* Make the statement that begins it. */
void
transaction_set_begin(RemoteTransaction *transaction, int isolation, Access access, bool deferrable)
{
	transaction->read_only = access == ACCESS_READ_ONLY;
	snprintf(transaction->begin, sizeof(transaction->begin), "BEGIN ISOLATION LEVEL %s, %s%sDEFERRABLE",
			 isolation_names[isolation],
			 access == ACCESS_READ_ONLY ? "READ ONLY, " :
			 access == ACCESS_READ_WRITE ? "READ WRITE, " : "", deferrable ? "" : "NOT ");
}

/*
 * Is it the current role's, on the pool that the definition describes?  Roles have their
 * own even where one user mapping is for all: who has prepared the session, with a
 * temporary table or a setting, decides what a statement means in it.
 */
static bool
is_on(const RemoteTransaction *transaction, const Definition *definition)
{
	const PoolKey *key = &transaction->definition.key;

	return transaction->roleid == GetUserId() &&
		key->serverid == definition->key.serverid && key->userid == definition->key.userid;
}

RemoteTransaction *
transaction_find_named(const char *name)
{
	dlist_iter	iter;

	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (NameStr(transaction->name)[0] != '\0' && strcmp(NameStr(transaction->name), name) == 0)
			return transaction;
	}
	return NULL;
}

/* The one in which calls on the pool run that do not name one; or NULL. */
RemoteTransaction *
transaction_find_on(const Definition *definition, LeaseMode mode)
{
	dlist_iter	iter;

	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (transaction->mode == mode && NameStr(transaction->name)[0] == '\0' &&
			is_on(transaction, definition))
			return transaction;
	}
	return NULL;
}

/* Has the session one open on the pool, of whichever role, that is not read-only? */
bool
transaction_may_write_on(const Definition *definition)
{
	dlist_iter	iter;

	dlist_foreach(iter, &transactions)
	{
		const RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);
		const PoolKey *key = &transaction->definition.key;

		if (!transaction->read_only && key->serverid == definition->key.serverid &&
			key->userid == definition->key.userid)
			return true;
	}
	return false;
}

/* Its pool as that is called now; the last name if it has been dropped. */
static const char *
pool_of(RemoteTransaction *transaction)
{
	ForeignServer *server = GetForeignServerExtended(transaction->definition.key.serverid, FSV_MISSING_OK);

	if (server != NULL)
		namestrcpy(&transaction->pool, server->servername);
	return NameStr(transaction->pool);
}

/* The current role's one without a name, on the pool of that name; or NULL. */
RemoteTransaction *
transaction_find_of_pool(const char *pool)
{
	dlist_iter	iter;

	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (pool != NULL && transaction->mode == LEASE_NAMED && NameStr(transaction->name)[0] == '\0' &&
			transaction->roleid == GetUserId() && strcmp(pool_of(transaction), pool) == 0)
			return transaction;
	}
	return NULL;
}

/* The bound one on the pool, which begins now if there is none. */
static RemoteTransaction *
bound_to_local(const Definition *definition, bool two_phase)
{
	RemoteTransaction *transaction = transaction_find_on(definition, LEASE_BOUND);

	if (transaction != NULL)
		return transaction;
	transaction = transaction_make(LEASE_BOUND, definition);
	transaction->two_phase = two_phase;
	transaction_set_begin(transaction, Max(XactIsoLevel, definition->options->isolation),
						  XactReadOnly || definition->options->read_only ? ACCESS_READ_ONLY : ACCESS_DEFAULT,
						  XactDeferrable);
	return transaction;
}

/* The transaction in which a call runs that names none, or NULL. */
static RemoteTransaction *
transaction_on(const Definition *definition)
{
	RemoteTransaction *transaction = transaction_find_on(definition, LEASE_NAMED);
	int			mode = dbpool_transaction == TRANSACTION_SERVER ?
	definition->options->transaction : dbpool_transaction;

	if (transaction != NULL)
		return transaction;
	return mode == TRANSACTION_AUTONOMOUS ? NULL :
		bound_to_local(definition, mode == TRANSACTION_TWO_PHASE);
}

/* A call that runs may make others, but none in its own transaction. */
void
transaction_check_unused(const RemoteTransaction *transaction)
{
	if (transaction->in_use)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the %s has a statement under way", transaction_shown(transaction)),
				 errdetail("A transaction runs one statement at a time, and the call that has made this one still does."),
				 errhint("Set dbpool.transaction to autonomous for one of the two, or keep the rows of one in a table before.")));
}

/* May a call run in the transaction now? */
static void
check_usable(RemoteTransaction *transaction)
{
	if (IsParallelWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("a parallel worker cannot run a statement in the %s", transaction_shown(transaction))));
	transaction_check_unused(transaction);
	transaction_settle(transaction);
	if (transaction_has_ended(transaction))
		transaction_throw_gone(transaction, "dbpool_rollback() forgets it.");
	if (dbpool_inherit_read_only && XactReadOnly && !transaction->read_only)
		client_refuse_read_only(psprintf("a statement in the %s", transaction_shown(transaction)));
}

/* May the current role do something with it? */
void
transaction_check_role(const RemoteTransaction *transaction)
{
	if (transaction->roleid != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the %s", transaction_shown(transaction)),
				 errdetail("It was begun by another role of this session.")));
}

/* The definition by which a call runs in it.  What was revoked meanwhile counts. */
static const Definition *
definition_within(RemoteTransaction *transaction)
{
	const Definition *definition;
	const char *pool;

	transaction_check_role(transaction);
	pool = pool_of(transaction);
	if (GetForeignServerExtended(transaction->definition.key.serverid, FSV_MISSING_OK) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the server of the %s was dropped", transaction_shown(transaction)),
				 GetForeignServerByName(pool, true) != NULL ?
				 errdetail("The server that has its name now is another one. The statement was not run.") :
				 errdetail("The statement was not run."),
				 errhint("What the transaction has done so far can still be committed, or rolled back.")));
	definition = definition_find(pool);
	if (!is_on(transaction, definition))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the %s", transaction_shown(transaction)),
				 errdetail("The user mapping is another one than when it was begun.")));
	return definition;
}

/*
 * The transaction that a call names in place of a pool, or NULL.  A server that has got
 * the same name since is not to lose what is meant for it.
 */
static RemoteTransaction *
transaction_named(const char *name)
{
	RemoteTransaction *transaction = transaction_find_named(name);

	if (transaction != NULL && GetForeignServerByName(name, true) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" is a transaction of this session and a server", name),
				 errdetail("The server was created after the transaction was begun. The statement was not run."),
				 errhint("dbpool_commit() and dbpool_rollback() end the transaction.")));
	return transaction;
}

/* Have the call run in the transaction; what goes before it is put together. */
static void
enter(RemoteTransaction *transaction, Call *call)
{
	Stack		stack;

	check_usable(transaction);
	stack = transaction->stack;
	initStringInfo(&call->prelude);
	stack_enter(&stack, transaction->mode == LEASE_BOUND ? GetCurrentTransactionNestLevel() : 1,
				transaction->begin, transaction->definition.options->reset == RESET_SMART,
				&call->prelude);
	/* nothing fails any more */
	transaction->otherwise = transaction->stack;
	transaction->stack = stack;
}

/*
 * Find the definition of a call's pool, and the transaction that it belongs to; none of
 * a pool that stands in for its own (fallback.c).  The
 * end of one goes by what was its pool, which may have been dropped.
 */
const Definition *
transaction_enter(Call *call)
{
	RemoteTransaction *transaction = call->transaction;
	const Definition *definition = call->definition;

	if (call->stands_in_for != NULL)
		return definition_find(call->pool);
	if (call->ends_transaction)
		definition = &transaction->definition;
	else if (transaction == NULL && call->pool != NULL && definition == NULL)
		transaction = transaction_named(call->pool);
	if (transaction != NULL && definition == NULL)
		definition = definition_within(transaction);
	if (definition == NULL)
	{
		definition = definition_find(call->pool);
		if (call->kind == REQUEST_QUERY || call->kind == REQUEST_SCRIPT ||
			call->kind == REQUEST_COPY || call->kind == REQUEST_BATCH)
			transaction = transaction_on(definition);
	}
	if (transaction == NULL)
		return definition;
	if (!call->ends_transaction)
	{
		/* it may have got another name since */
		transaction->pool = definition->options->server;
		enter(transaction, call);
	}
	call->pool = NameStr(transaction->pool);
	call->transaction = transaction;
	transaction->in_use = true;
	return definition;
}

/* An entry of shared memory for it, counted as quota says; throws when there is none. */
static LeaseShared *
claim_entry(RemoteTransaction *transaction, int quota)
{
	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared *lease = lease_entry(i);

		if (!lease_claim(lease, transaction->worker, &transaction->hold))
			continue;
		lease->quota = quota;
		return lease;
	}
	quota_give(quota);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("too many dbpool transactions are open"),
			 errdetail("All %d that dbpool.max_connections and dbpool.max_requests allow together are. The statement was not run.",
					   lease_count()),
			 errhint("See dbpool_transactions. Raise dbpool.max_connections in postgresql.conf, and restart the server.")));
	return NULL;
}

/* The entry in shared memory. */
static void
claim(RemoteTransaction *transaction)
{
	LeaseShared *lease = claim_entry(transaction, limits_count());

	transaction->lease = lease;
	compat_injection_point("dbpool-lease-claimed");
	lease->procno = compat_my_proc_number();
	lease->idle_timeout = transaction->idle_timeout;
	lease->commit_prepared = false;
	pg_atomic_write_u64(&lease->running, 0);
	pg_atomic_write_u64(&lease->begun, 0);
	SpinLockAcquire(&lease->mutex);
	lease->pid = MyProcPid;
	lease->dbid = MyDatabaseId;
	lease->serverid = transaction->definition.key.serverid;
	lease->roleid = GetUserId();
	lease->mode = transaction->mode;
	lease->two_phase = transaction->two_phase;
	lease->server = transaction->pool;
	lease->name = transaction->name;
	strlcpy(lease->begin, transaction->begin, sizeof(lease->begin));
	lease->began_at = ticks_now();
	lease->remote_pid = 0;
	lease->system[0] = '\0';
	lease->idle_since = 0;
	lease->statements = 0;
	lease->savepoints = 0;
	lease->sql[0] = '\0';
	lease->gid[0] = '\0';
	SpinLockRelease(&lease->mutex);
}

/* The worker that has it; chosen with the first call. */
int
transaction_worker(RemoteTransaction *transaction, const Definition *definition)
{
	if (transaction->lease == NULL)
	{
		transaction->worker = definition_worker(definition);
		claim(transaction);
	}
	return transaction->worker;
}

/* Name the lease in a request. */
void
transaction_fill(RemoteTransaction *transaction, TaskHeader *task)
{
	LeaseShared *lease = transaction->lease;

	SpinLockAcquire(&lease->mutex);
	strlcpy(lease->gid, transaction->gid, sizeof(lease->gid));
	lease->server = transaction->pool;
	/* as it will be when the request runs; see transaction_left() */
	lease->savepoints = Max(transaction->stack.depth - 1, 0);
	SpinLockRelease(&lease->mutex);
	task->lease = lease_index(transaction->lease);
	task->lease_hold = transaction->hold;
}

/*
 * The worker did not take the definition, or is not the pool's any more: so that another
 * may be asked, the lease is given back, which has no connection.
 */
void
transaction_stale(RemoteTransaction *transaction)
{
	if (lease_move(transaction->lease, transaction->hold, LEASE_CLAIMED, LEASE_FREE))
		transaction->lease = NULL;
}

/*
 * A statement of the transaction has ended with that command tag.  What follows SELECT may
 * have written, too, by a function.
 */
void
transaction_note_tag(RemoteTransaction *transaction, const char *tag)
{
	static const char *const unsure[] = {
		"SELECT", "FETCH", "MOVE", "SHOW", "SET", "RESET", "EXPLAIN", "DECLARE CURSOR",
		"CLOSE CURSOR", "BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK"
	};

	for (int i = 0; i < lengthof(unsure); i++)
	{
		if (strncmp(tag, unsure[i], strlen(unsure[i])) == 0)
			return;
	}
	transaction->wrote = true;
}

/*
 * A call has come to its end, or was given up: running, as its statement had been sent.
 * Neither waits nor throws.
 */
void
transaction_left(RemoteTransaction *transaction, const Call *call, uint64 ticket, bool running)
{
	LeaseShared *lease = transaction->lease;

	transaction->in_use = false;
	if (call->prelude.len == 0 || call->ends_transaction)
		return;
	if (running)
		transaction->given_up = ticket;
	else if (ticket == 0 || pg_atomic_read_u64(&lease->begun) != ticket)
		transaction->stack = transaction->otherwise;
	if (lease == NULL)
		return;
	SpinLockAcquire(&lease->mutex);
	lease->savepoints = Max(transaction->stack.depth - 1, 0);
	SpinLockRelease(&lease->mutex);
}
