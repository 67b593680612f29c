/*
 * pause.c
 *	  A pool is paused or disabled, and set going again; what is under way on it is waited
 *	  for.  The protocol stands in ipc/shmem.h.
 *
 * It is all pools of a server that are stopped, also those that are first used then.  If
 * none is in use, an entry of shared memory is taken to remember it by.
 */
#include "postgres.h"

#include "backend/client.h"
#include "backend/operate.h"
#include "foreign/foreign.h"
#include "ipc/news.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "compat.h"

/* How often it is tried to have an entry before somebody else takes it. */
#define ENTRY_TRIES		10

/* Is it a pool of that server? */
bool
operation_matches(const PoolKey *key, void *serverid)
{
	return key->dbid == MyDatabaseId && key->serverid == *(Oid *) serverid;
}

/* The ticket of a stop in an entry; that of one that is isolated tells so. */
static uint64 *
ticket_of(PoolShared *pool, Stop stop)
{
	return stop == STOP_PAUSED ? &pool->paused : &pool->disabled;
}

/* Those who listen are told, unless nothing has changed: then server is empty.  Does not throw. */
static void
tell_listeners(const char *event, const NameData *server)
{
	char		text[NEWS_BYTES];

	if (NameStr(*server)[0] == '\0')
		return;
	news_begin(text, event);
	news_put(text, "pool", NameStr(*server));
	news_post(MyDatabaseId, text);
}

/*
 * Set the ticket of a stop in all entries of the server, or, with 0, take it away; only
 * where it is expected, unless that is NULL.  A stop that is there is not replaced by
 * another, and its ticket is given back.  *was is the ticket that there was, or 0.
 * Returns how many entries there are.
 */
static int
set_ticket(Oid serverid, Stop stop, uint64 *ticket, const uint64 *expected, uint64 *was)
{
	static const char *const begun[] = {"paused", "disabled", "isolated"};
	static const char *const ended[] = {"resumed", "enabled", "enabled"};
	int			n = 0;
	NameData	changed = {""};

	*was = 0;
	LWLockAcquire(dbpool_shared->pools_lock, LW_EXCLUSIVE);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (pool->in_use && operation_matches(&pool->key, &serverid) && *ticket_of(pool, stop) != 0)
			*was = *ticket_of(pool, stop);
	}
	if (*ticket != 0 && *was != 0)
		*ticket = *was;
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use || !operation_matches(&pool->key, &serverid))
			continue;
		/* that of a transaction goes with it */
		n += !TransactionIdIsValid(pool->key.xid);
		if (expected != NULL && *ticket_of(pool, stop) != *expected)
			continue;
		SpinLockAcquire(&pool->mutex);
		if ((*ticket_of(pool, stop) != 0) != (*ticket != 0))
			changed = pool->server;
		*ticket_of(pool, stop) = *ticket;
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	shmem_want(operation_matches, &serverid, POOL_WANT_LOOK);
	tell_listeners(*ticket != 0 ? begun[stop] : ended[stop], &changed);
	return n;
}

/*
 * Take an entry for a server that has none, so that there is one to remember the stop by:
 * that of PUBLIC's mapping, whether there is such a mapping or not.
 */
static void
take_entry(const Operation *op)
{
	ForeignServer *server = GetForeignServer(op->serverid);
	PoolKey		key = {MyDatabaseId, op->serverid, InvalidOid, InvalidTransactionId};
	Oid			owner = superuser_arg(server->owner) ? InvalidOid : server->owner;
	PoolOptions options;
	PoolShared *entry;
	int			first;
	int			index;

	memset(&options, 0, sizeof(options));
	options_read(server->options, &options);
	index = pool_take_entry(&key, owner, shmem_first_worker(&key), false, &first);
	if (index < 0)
		ereport(ERROR,
				(errcode(index == POOL_OWNER_HAS_ENOUGH ? ERRCODE_CONFIGURATION_LIMIT_EXCEEDED :
						 ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("pool \"%s\" cannot be %s, as too many pools are in use", op->pool, op->kind->done),
				 index == POOL_OWNER_HAS_ENOUGH ?
				 errhint("A superuser can raise dbpool.role_max_pools.") :
				 errhint("Raise dbpool.max_pools in postgresql.conf, and restart the server.")));
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	entry = shmem_pool(index);
	if (entry->in_use && memcmp(&entry->key, &key, sizeof(PoolKey)) == 0)
	{
		SpinLockAcquire(&entry->mutex);
		namestrcpy(&entry->server, server->servername);
		namestrcpy(&entry->username, "public");
		entry->min_size = options.min_size;
		entry->max_size = options.max_size;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
}

/*
 * Stop all pools of the server, as one that was stopped so far or was not: op->was tells.
 * Throws when nothing can remember it; and then it has not been.
 */
void
pool_stop(Operation *op, Stop stop)
{
	uint64		ticket = pg_atomic_fetch_add_u64(&dbpool_shared->request_ticket, 1);
	uint64		was;
	int			tries = 0;

	if (definition_server_is_new(op->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pool \"%s\" cannot be %s by the transaction that makes it",
						op->pool, op->kind->done)));
	if (stop == STOP_ISOLATED)
		ticket |= TICKET_ISOLATES;
	op->stop = stop;
	op->number = ticket;
	op->own = true;
	while (set_ticket(op->serverid, stop, &ticket, NULL, &was) == 0)
	{
		if (tries++ == ENTRY_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("pool \"%s\" cannot be %s, as too many pools are in use",
							op->pool, op->kind->done),
					 errhint("Raise dbpool.max_pools in postgresql.conf, and restart the server.")));
		take_entry(op);
	}
	op->was = was != 0;
	op->own = ticket == op->number;
	op->number = ticket;

	/*
	 * Who drops the server tells other sessions first, and the entries then:
	 * one of the two has seen the other.
	 */
	AcceptInvalidationMessages();
	if (!SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(op->serverid)))
	{
		pool_stop_take_back(op);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pool \"%s\" does not exist", op->pool),
				 errdetail("It was dropped meanwhile.")));
	}
}

/* The call has failed, or its process ends: as if its stop had not been.  Throws nothing. */
void
pool_stop_take_back(Operation *op)
{
	uint64		none = 0;
	uint64		was;

	if (op->own)
		(void) set_ticket(op->serverid, op->stop, &none, &op->number, &was);
	op->own = false;
}

/* End a stop, whoever began it.  Returns false when there was none. */
bool
pool_set_going(Operation *op, Stop stop)
{
	uint64		none = 0;
	uint64		was;

	(void) set_ticket(op->serverid, stop, &none, NULL, &was);
	return was != 0;
}

/* The ticket by which it is stopped in that way, or 0. */
uint64
pool_stop_ticket(Oid serverid, Stop stop)
{
	uint64		ticket = 0;

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use || !operation_matches(&pool->key, &serverid))
			continue;
		SpinLockAcquire(&pool->mutex);
		if (*ticket_of(pool, stop) != 0)
			ticket = *ticket_of(pool, stop);
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	return ticket;
}

/* --- waiting ----------------------------------------------------------------------------- */

/*
 * Has what the call waits for come?  renewed: no connection is left from before it; else,
 * nothing runs since it has stopped the pool.  *gone: that stop has ended.
 */
static bool
has_come(Operation *op, bool renewed, bool *gone)
{
	bool		come = true;

	*gone = false;
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);
		bool		there;
		bool		waits;

		if (!pool->in_use || !operation_matches(&pool->key, &op->serverid))
			continue;
		there = shmem_worker_pid(pool->worker) != 0;
		SpinLockAcquire(&pool->mutex);
		*gone |= !renewed && *ticket_of(pool, op->stop) != op->number;
		/* a reset is not for what was made after it */
		waits = renewed ? pool->reset >= op->number && pool->renewed < op->number :
			(op->stop == STOP_PAUSED ? pool->rested : pool->drained) != op->number;
		if (waits && pool->live && there)
			come = false;
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	return come || *gone;
}

/* Wait for it, up to timeout milliseconds after the call began (-1: no limit); false: that is over. */
static bool
wait_for_it(Operation *op, bool renewed, int timeout)
{
	static uint32 wait_event;
	bool		gone;

	ConditionVariablePrepareToSleep(&dbpool_shared->pools_cv);
	while (!has_come(op, renewed, &gone))
	{
		long		left = -1;

		if (timeout >= 0)
			left = ticks_left_ms(ticks_plus_ms(op->since, timeout));
		if (timeout >= 0 && left <= 0)
		{
			ConditionVariableCancelSleep();
			return false;
		}
		(void) ConditionVariableTimedSleep(&dbpool_shared->pools_cv, left,
										   compat_wait_event(&wait_event, "DbpoolPause"));
	}
	ConditionVariableCancelSleep();
	if (gone && op->stop == STOP_PAUSED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pool \"%s\" was resumed while dbpool_pause() waited for it", op->pool),
				 errdetail("dbpool_resume() was called, another dbpool_pause() that had begun before this one failed, or the server was dropped.")));
	if (gone)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pool \"%s\" was enabled while dbpool_drain() waited for it", op->pool),
				 errdetail("dbpool_enable() was called, another dbpool_drain() that had begun before this one failed, or the server was dropped.")));
	return true;
}

/* Wait until nothing runs on the pools that the call has stopped.  False when its time is over. */
bool
pool_wait_rested(Operation *op)
{
	return wait_for_it(op, false, op->timeout);
}

/* Wait until no connection is left from before the reset whose stamp op->number is. */
bool
pool_wait_renewed(Operation *op, int timeout)
{
	return wait_for_it(op, true, timeout);
}
