/*
 * view_transactions.c
 *	  The functions behind the views of transactions.
 *
 * As in views.c, what shared memory holds is copied under its locks first.
 */
#include "postgres.h"

#include "backend/view_row.h"
#include "ipc/lease.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_get_pool_transactions);
PG_FUNCTION_INFO_V1(dbpool_get_pool_retries);
PG_FUNCTION_INFO_V1(dbpool_get_transactions);

/* What dbpool_pools and dbpool_stat_pools say of transactions. */
Datum
dbpool_get_pool_transactions(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	PoolShared *pools = pools_copy(&n);

	for (int i = 0; i < n; i++)
	{
		const PoolShared *pool = &pools[i];
		const PoolCounters *c = &pool->counters;

		row_put(&row, ObjectIdGetDatum(pool->key.dbid), false);
		row_put(&row, ObjectIdGetDatum(pool->key.serverid), false);
		row_put(&row, ObjectIdGetDatum(pool->key.userid), false);
		row_put(&row, BoolGetDatum(pool->key.xid != 0), false);
		if (pool_is_shown(&pool->key))
		{
			row_put_int(&row, pool->conns[CONN_LEASED], false);
			row_put_count(&row, c->begun);
			row_put_count(&row, c->committed);
			row_put_count(&row, c->rolled_back);
			row_put_count(&row, c->prepared);
			row_put_count(&row, c->in_doubt);
			row_put_count(&row, c->resolved);
			row_put_ms(&row, c->transaction_us);
			row_put_ms(&row, c->transaction_max_us);
			row_put(&row, BoolGetDatum(pool->paused != 0), false);
			row_put(&row, BoolGetDatum(pool->disabled != 0), false);
			row_put(&row, BoolGetDatum((pool->disabled & TICKET_ISOLATES) != 0), false);
			row_put_time(&row, pool->live ? pool->degraded_since : 0);
		}
		row_end(&row);
	}
	return (Datum) 0;
}

/* What dbpool_stat_pools says of what is tried again, and of what is turned away. */
Datum
dbpool_get_pool_retries(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);
	int			n;
	PoolShared *pools = pools_copy(&n);

	for (int i = 0; i < n; i++)
	{
		const PoolShared *pool = &pools[i];

		row_put(&row, ObjectIdGetDatum(pool->key.dbid), false);
		row_put(&row, ObjectIdGetDatum(pool->key.serverid), false);
		row_put(&row, ObjectIdGetDatum(pool->key.userid), false);
		row_put(&row, BoolGetDatum(pool->key.xid != 0), false);
		if (pool_is_shown(&pool->key))
		{
			row_put_count(&row, pool->counters.retries);
			row_put_count(&row, pool->counters.retries_refused);
			row_put_count(&row, pool->counters.hedged);
			row_put_count(&row, pool->counters.hedge_wins);
			row_put_count(&row, pool->counters.refused);
			row_put_count(&row, pool->counters.shed);
			row_put_count(&row, pool->counters.fallbacks);
			row_put_count(&row, pool->counters.unserved);
		}
		row_end(&row);
	}
	return (Datum) 0;
}

/*
 * Copy a lease and its state; false when it is nobody's, or another's by then, or is about
 * to be somebody's.
 */
static bool
copy_lease(LeaseShared *lease, LeaseShared *copy, LeaseState *state)
{
	uint64		word = lease_word(lease);

	*state = lease_word_state(word);
	if (*state == LEASE_FREE || *state == LEASE_RELEASED)
		return false;
	SpinLockAcquire(&lease->mutex);
	memcpy(copy, lease, sizeof(LeaseShared));
	SpinLockRelease(&lease->mutex);
	/* who claims it changes the word before the rest */
	pg_read_barrier();
	return copy->pid != 0 && lease_word_hold(lease_word(lease)) == lease_word_hold(word);
}

/* In the moment between its connection's coming and its first statement it does not idle. */
static const char *
state_of(const LeaseShared *lease, LeaseState state, bool runs)
{
	return state == LEASE_CLAIMED ? "waiting" : state == LEASE_ENDED ? "ended" :
		runs || lease->idle_since == 0 ? "active" : "idle";
}

/* Rows of dbpool_transactions. */
Datum
dbpool_get_transactions(PG_FUNCTION_ARGS)
{
	Row			row = row_start(fcinfo);

	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared copy;
		LeaseState	state;
		bool		runs;

		if (!copy_lease(lease_entry(i), &copy, &state))
			continue;
		runs = pg_atomic_read_u64(&copy.running) != 0;
		row_put(&row, ObjectIdGetDatum(copy.dbid), false);
		row_put_int(&row, copy.pid, false);
		row_put(&row, ObjectIdGetDatum(copy.roleid), false);
		if (!role_is_shown(copy.roleid))
		{
			row_end(&row);
			continue;
		}
		row_put_name(&row, NameStr(copy.server), database_encoding(copy.dbid));
		if (NameStr(copy.name)[0] != '\0')
			row_put_name(&row, NameStr(copy.name), database_encoding(copy.dbid));
		else
			row_put(&row, (Datum) 0, true);
		row_put(&row, CStringGetTextDatum(copy.mode == LEASE_NAMED ? "named" :
										  copy.two_phase ? "two_phase" : "bound"), false);
		row_put(&row, CStringGetTextDatum(state_of(&copy, state, runs)), false);
		if (copy.gid[0] != '\0')
			row_put(&row, CStringGetTextDatum(copy.gid), false);
		else
			row_put(&row, (Datum) 0, true);
		row_put(&row, CStringGetTextDatum(copy.begin), false);
		row_put_int(&row, copy.savepoints, copy.mode != LEASE_BOUND);
		row_put_count(&row, copy.statements);
		row_put_time(&row, copy.began_at);
		row_put_time(&row, runs ? 0 : copy.idle_since);
		row_put_int(&row, copy.remote_pid, copy.remote_pid == 0);
		row_put_sql(&row, copy.sql, copy.encoding, copy.roleid);
		row_end(&row);
	}
	return (Datum) 0;
}
