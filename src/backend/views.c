/*
 * views.c
 *	  The functions behind the views.
 *
 * What shared memory holds is copied under its locks, and made into rows
 * afterwards.
 *
 * WHO SEES WHAT
 *
 * As in pg_stat_activity, everybody sees that there is something, and whose it
 * is; what it is, is for those alone who may know, and NULL for others.
 *	 - What a session does is for members of its role.
 *	 - A pool and its connections are for the owner of the server, and for
 *	   whoever may use them: with USAGE on the server, members of the role of the
 *	   mapping, or anybody if it is that of PUBLIC.
 *	 - All is for members of pg_read_all_stats.
 */
#include "postgres.h"

#include "backend/client.h"
#include "backend/text.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "ipc/lease.h"

PG_FUNCTION_INFO_V1(dbpool_get_workers);
PG_FUNCTION_INFO_V1(dbpool_get_pools);
PG_FUNCTION_INFO_V1(dbpool_get_pool_transactions);
PG_FUNCTION_INFO_V1(dbpool_get_transactions);
PG_FUNCTION_INFO_V1(dbpool_get_connections);
PG_FUNCTION_INFO_V1(dbpool_get_requests);
PG_FUNCTION_INFO_V1(dbpool_get_bulk_inserts);
PG_FUNCTION_INFO_V1(dbpool_get_migrations);

#define MAX_VIEW_COLUMNS	48

/* The clock has been set, or has drifted, when it is off by so much. */
#define CLOCKS_APART_US		1000

/* A row in the making: columns are put one after the other. */
typedef struct Row
{
	ReturnSetInfo *rsinfo;
	int			n;
	Datum		values[MAX_VIEW_COLUMNS];
	bool		nulls[MAX_VIEW_COLUMNS];
} Row;

static void
put(Row *row, Datum value, bool isnull)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = isnull;
}

static void
put_int(Row *row, int value, bool isnull)
{
	put(row, Int32GetDatum(value), isnull);
}

static void
put_count(Row *row, uint64 value)
{
	put(row, Int64GetDatum((int64) value), false);
}

static void
put_ms(Row *row, uint64 us)
{
	put(row, Float8GetDatum(us / 1000.0), false);
}

/*
 * The time of the day of a moment.  It fits today's clock even if that was set
 * since; and as long as nobody does that, it is the same whoever looks.
 */
static TimestampTz
time_of_day(Ticks moment)
{
	int64		shown = (int64) pg_atomic_read_u64(&dbpool_shared->shown_offset);
	int64		offset = shown;

	/* both clocks at one moment, unless the processor was taken from us */
	for (int i = 0; i < 10; i++)
	{
		Ticks		before = ticks_now();

		offset = GetCurrentTimestamp() - before;
		if (ticks_now() - before < CLOCKS_APART_US / 2)
			break;
	}
	if (offset - shown >= CLOCKS_APART_US || shown - offset >= CLOCKS_APART_US)
		pg_atomic_write_u64(&dbpool_shared->shown_offset, (uint64) offset);
	else
		offset = shown;
	return moment + offset;
}

static void
put_time(Row *row, Ticks moment)
{
	put(row, TimestampTzGetDatum(time_of_day(moment)), moment == 0);
}

/*
 * Encoding of a database, from where the texts of its pools and sessions come.
 * One that is gone has none that is known.
 */
static int
encoding_of(Oid dbid)
{
	HeapTuple	row;
	int			encoding = PG_SQL_ASCII;

	if (dbid == MyDatabaseId)
		return GetDatabaseEncoding();
	row = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	if (HeapTupleIsValid(row))
	{
		encoding = ((Form_pg_database) GETSTRUCT(row))->encoding;
		ReleaseSysCache(row);
	}
	return encoding;
}

static void
put_name(Row *row, const char *name, int encoding)
{
	put(row, DirectFunctionCall1(namein, CStringGetDatum(text_from(name, encoding))), false);
}

static void
put_text(Row *row, const char *text, int encoding)
{
	put(row, CStringGetTextDatum(text_from(text, encoding)), false);
}

/* May the caller see what is done for a role? */
static bool
may_see_role(Oid roleid)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		(OidIsValid(roleid) && has_privs_of_role(GetUserId(), roleid));
}

/* May the caller see a pool? */
static bool
may_see_pool(const PoolKey *key)
{
	HeapTuple	row;
	Oid			owner;

	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return true;
	if (key->dbid != MyDatabaseId)
		return false;
	row = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(key->serverid));
	if (!HeapTupleIsValid(row))
		return false;
	owner = ((Form_pg_foreign_server) GETSTRUCT(row))->srvowner;
	ReleaseSysCache(row);
	return has_privs_of_role(GetUserId(), owner) ||
		(compat_server_usage(key->serverid, GetUserId()) == ACLCHECK_OK &&
		 (!OidIsValid(key->userid) || has_privs_of_role(GetUserId(), key->userid)));
}

static void
put_sql(Row *row, const char *sql, int encoding, Oid roleid)
{
	if (OidIsValid(roleid) && may_see_role(roleid))
		put_text(row, sql, encoding);
	else if (OidIsValid(roleid) && sql[0] != '\0')
		put(row, CStringGetTextDatum("<insufficient privilege>"), false);
	else
		put(row, (Datum) 0, true);
}

/* What has not been put of it is NULL: the caller may not see it. */
static void
end_row(Row *row)
{
	while (row->n < row->rsinfo->setDesc->natts)
		put(row, (Datum) 0, true);
	tuplestore_putvalues(row->rsinfo->setResult, row->rsinfo->setDesc,
						 row->values, row->nulls);
	row->n = 0;
}

static Row
start_rows(FunctionCallInfo fcinfo)
{
	Row			row = {0};

	client_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	row.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	return row;
}

/* Rows of dbpool_workers. */
Datum
dbpool_get_workers(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);

	for (int i = 0; i < dbpool_shared->nworkers; i++)
	{
		WorkerShared *worker = shmem_worker(i);
		int			pid = shmem_worker_pid(i);
		int			pools = 0;
		int			conns = 0;

		for (int p = 0; p < dbpool_shared->npools; p++)
			pools += shmem_pool(p)->worker == i && shmem_pool(p)->live;
		for (int c = 0; c < dbpool_shared->nconns; c++)
			conns += shmem_conn(c)->worker == i && shmem_conn(c)->in_use;
		put_int(&row, i + 1, false);
		put_int(&row, pid, pid == 0);
		put_time(&row, pid == 0 ? 0 : worker->started_at);
		put_count(&row, pg_atomic_read_u32(&worker->starts));
		put_count(&row, pools);
		put_count(&row, conns);
		put_count(&row, worker->requests);
		put_count(&row, worker->wakeups);
		end_row(&row);
	}
	return (Datum) 0;
}

static void
put_pool(Row *row, const PoolShared *pool)
{
	const PoolCounters *c = &pool->counters;
	int			encoding = encoding_of(pool->key.dbid);

	put(row, ObjectIdGetDatum(pool->key.dbid), false);
	put(row, ObjectIdGetDatum(pool->key.serverid), false);
	put(row, ObjectIdGetDatum(pool->key.userid), false);
	put(row, BoolGetDatum(pool->key.xid != 0), false);
	put_int(row, pool->worker + 1, false);
	put(row, BoolGetDatum(pool->live), false);
	if (!may_see_pool(&pool->key))
		return;
	put_name(row, NameStr(pool->server), encoding);
	put_name(row, NameStr(pool->username), encoding);
	put(row, BoolGetDatum(pool->paused), false);
	put_int(row, pool->min_size, false);
	put_int(row, pool->max_size, false);
	put_int(row, pool->conns[CONN_CONNECTING], false);
	put_int(row, pool->conns[CONN_IDLE], false);
	put_int(row, pool->conns[CONN_CHECKING], false);
	put_int(row, pool->conns[CONN_BUSY], false);
	put_int(row, pool->conns[CONN_CANCELLING], false);
	put_int(row, pool->conns[CONN_RESETTING], false);
	put_int(row, pool->waiting, false);
	put_time(row, pool->oldest_wait);
	put_time(row, pool->used_at);
	put_time(row, pool->connected_at);
	put_time(row, pool->connect_failed_at);
	if (pool->connect_error[0] != '\0')
		put_text(row, pool->connect_error, encoding);
	else
		put(row, (Datum) 0, true);
	put_count(row, c->statements);
	put_count(row, c->errors);
	put_count(row, c->timeouts);
	put_count(row, c->cancels);
	put_count(row, c->repeats);
	put_count(row, c->connects);
	put_count(row, c->connect_failures);
	put_ms(row, c->connect_us);
	put_count(row, c->waited);
	put_ms(row, c->wait_us);
	put_ms(row, c->wait_max_us);
	put_ms(row, c->exec_us);
	put_ms(row, c->exec_max_us);
	put_count(row, c->rows);
	put_count(row, c->bytes_sent);
	put_count(row, c->bytes_received);
	put_time(row, c->reset_at);
}

/* A copy of those pools that are shown, and how many they are. */
static PoolShared *
copy_pools(int *n)
{
	PoolShared *copies = palloc(sizeof(PoolShared) * dbpool_shared->npools);

	*n = 0;
	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use)
			continue;
		SpinLockAcquire(&pool->mutex);
		copies[*n] = *pool;
		SpinLockRelease(&pool->mutex);
		if (copies[*n].live || !copies[*n].dropped)
			(*n)++;
	}
	LWLockRelease(dbpool_shared->pools_lock);
	return copies;
}

/* Rows of dbpool_pools and dbpool_stat_pools. */
Datum
dbpool_get_pools(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);
	int			n;
	PoolShared *copies = copy_pools(&n);

	for (int i = 0; i < n; i++)
	{
		put_pool(&row, &copies[i]);
		end_row(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_connections. */
Datum
dbpool_get_connections(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);

	for (int i = 0; i < dbpool_shared->nconns; i++)
	{
		ConnShared	conn;
		NameData	server;
		NameData	username;
		PoolKey		key = {0};
		int			encoding;

		/* as long as we have the lock, no other pool gets this one's entry */
		LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
		SpinLockAcquire(&shmem_conn(i)->mutex);
		conn = *shmem_conn(i);
		SpinLockRelease(&shmem_conn(i)->mutex);
		if (conn.in_use)
		{
			PoolShared *pool = shmem_pool(conn.pool);

			key = pool->key;
			SpinLockAcquire(&pool->mutex);
			server = pool->server;
			username = pool->username;
			SpinLockRelease(&pool->mutex);
		}
		LWLockRelease(dbpool_shared->pools_lock);
		if (!conn.in_use)
			continue;

		encoding = encoding_of(key.dbid);
		put(&row, ObjectIdGetDatum(key.dbid), false);
		put_int(&row, conn.worker + 1, false);
		put(&row, CStringGetTextDatum(conn_state_name(conn.state)), false);
		if (!may_see_pool(&key))
		{
			end_row(&row);
			continue;
		}
		put_name(&row, NameStr(server), encoding);
		put_name(&row, NameStr(username), encoding);
		put_time(&row, conn.state_since);
		put_int(&row, conn.remote_pid, conn.remote_pid == 0);
		if (conn.address.data[0] != '\0')
			put_text(&row, NameStr(conn.address), encoding);
		else
			put(&row, (Datum) 0, true);
		put_int(&row, conn.port, conn.port == 0);
		put(&row, BoolGetDatum(conn.tls), false);
		put_int(&row, conn.local_pid, conn.local_pid == 0);
		put_time(&row, conn.connected_at);
		put_count(&row, conn.statements);
		put_int(&row, conn.in_flight, false);
		put_int(&row, conn.prepared, false);
		put_sql(&row, conn.sql, conn.encoding, conn.roleid);
		end_row(&row);
	}
	return (Datum) 0;
}

/*
 * Copy a request and its state; false when the slot has none, or another one by
 * the time it has been copied.
 */
static bool
copy_request(RequestSlot *slot, RequestSlot *copy, RequestState *state)
{
	uint64		word = request_word(slot);

	*state = request_word_state(word);
	if (*state == REQUEST_FREE || *state == REQUEST_CLAIMED)
		return false;
	SpinLockAcquire(&slot->mutex);
	memcpy(copy, slot, sizeof(RequestSlot));
	SpinLockRelease(&slot->mutex);
	/* who claims the slot changes the word before the rest */
	pg_read_barrier();
	return request_word_hold(request_word(slot)) == request_word_hold(word);
}

/* The text of a request; of a batch, how far it is before that of its first statement. */
static void
put_request(Row *row, RequestSlot *slot)
{
	StringInfoData buf;

	if (slot->task.kind != REQUEST_BATCH)
	{
		put_sql(row, slot->sql, slot->task.encoding, slot->task.roleid);
		return;
	}
	initStringInfo(&buf);
	appendStringInfo(&buf, "batch, " UINT64_FORMAT " of " UINT64_FORMAT " statements done: %s",
					 pg_atomic_read_u64(&slot->items_done), slot->task.nitems, slot->sql);
	put_sql(row, buf.data, slot->task.encoding, slot->task.roleid);
}

/* Rows of dbpool_requests. */
Datum
dbpool_get_requests(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);

	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		RequestSlot copy;
		RequestState state;

		if (!copy_request(request_slot(i), &copy, &state))
			continue;
		put(&row, ObjectIdGetDatum(copy.dbid), false);
		put_int(&row, copy.task.pid, false);
		put(&row, ObjectIdGetDatum(copy.task.roleid), false);
		put_request(&row, &copy);
		if (!may_see_role(copy.task.roleid))
		{
			end_row(&row);
			continue;
		}
		put_name(&row, NameStr(copy.server), copy.task.encoding);
		put(&row, CStringGetTextDatum(request_state_name(state)), false);
		put_time(&row, copy.submitted_at);
		put_time(&row, copy.running_since);
		put_int(&row, copy.remote_pid, copy.remote_pid == 0);
		end_row(&row);
	}
	return (Datum) 0;
}

/* What dbpool_pools and dbpool_stat_pools say of transactions. */
Datum
dbpool_get_pool_transactions(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);
	int			n;
	PoolShared *pools = copy_pools(&n);

	for (int i = 0; i < n; i++)
	{
		const PoolShared *pool = &pools[i];
		const PoolCounters *c = &pool->counters;

		put(&row, ObjectIdGetDatum(pool->key.dbid), false);
		put(&row, ObjectIdGetDatum(pool->key.serverid), false);
		put(&row, ObjectIdGetDatum(pool->key.userid), false);
		put(&row, BoolGetDatum(pool->key.xid != 0), false);
		if (may_see_pool(&pool->key))
		{
			put_int(&row, pool->conns[CONN_LEASED], false);
			put_count(&row, c->begun);
			put_count(&row, c->committed);
			put_count(&row, c->rolled_back);
			put_ms(&row, c->transaction_us);
			put_ms(&row, c->transaction_max_us);
		}
		end_row(&row);
	}
	return (Datum) 0;
}

/* Copy a lease and its state; false when it is nobody's, or another's by then. */
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
	return lease_word_hold(lease_word(lease)) == lease_word_hold(word);
}

/* Rows of dbpool_transactions. */
Datum
dbpool_get_transactions(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);

	for (int i = 0; i < lease_count(); i++)
	{
		LeaseShared copy;
		LeaseState	state;
		bool		runs;

		if (!copy_lease(lease_entry(i), &copy, &state))
			continue;
		runs = pg_atomic_read_u64(&copy.running) != 0;
		put(&row, ObjectIdGetDatum(copy.dbid), false);
		put_int(&row, copy.pid, false);
		put(&row, ObjectIdGetDatum(copy.roleid), false);
		if (!may_see_role(copy.roleid))
		{
			end_row(&row);
			continue;
		}
		put_name(&row, NameStr(copy.server), encoding_of(copy.dbid));
		if (NameStr(copy.name)[0] != '\0')
			put_name(&row, NameStr(copy.name), encoding_of(copy.dbid));
		else
			put(&row, (Datum) 0, true);
		put(&row, CStringGetTextDatum(copy.mode == LEASE_NAMED ? "named" :
									  copy.two_phase ? "two_phase" : "bound"), false);
		put(&row, CStringGetTextDatum(state == LEASE_CLAIMED ? "waiting" :
									  state == LEASE_ENDED ? "ended" : runs ? "active" : "idle"), false);
		if (copy.gid[0] != '\0')
			put(&row, CStringGetTextDatum(copy.gid), false);
		else
			put(&row, (Datum) 0, true);
		put(&row, CStringGetTextDatum(copy.begin), false);
		put_int(&row, copy.savepoints, copy.mode != LEASE_BOUND);
		put_count(&row, copy.statements);
		put_time(&row, copy.began_at);
		put_time(&row, runs ? 0 : copy.idle_since);
		put_int(&row, copy.remote_pid, copy.remote_pid == 0);
		put_sql(&row, copy.sql, copy.encoding, copy.roleid);
		end_row(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_progress_bulk_insert. */
Datum
dbpool_get_bulk_inserts(PG_FUNCTION_ARGS)
{
	static const char *const phases[] = {"waiting", "copying", "finishing"};
	Row			row = start_rows(fcinfo);

	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		RequestSlot copy;
		RequestState state;

		if (!copy_request(request_slot(i), &copy, &state) ||
			state == REQUEST_ABANDONED || copy.task.kind != REQUEST_COPY)
			continue;
		put_int(&row, copy.task.pid, false);
		put(&row, ObjectIdGetDatum(copy.dbid), false);
		put_sql(&row, copy.target, copy.task.encoding, copy.task.roleid);
		if (!may_see_role(copy.task.roleid))
		{
			end_row(&row);
			continue;
		}
		put_name(&row, NameStr(copy.server), copy.task.encoding);
		put(&row, CStringGetTextDatum(phases[pg_atomic_read_u32(&copy.copy_phase)]), false);
		put_count(&row, pg_atomic_read_u64(&copy.copy_bytes));
		put_count(&row, pg_atomic_read_u64(&copy.copy_rows));
		put_time(&row, copy.submitted_at);
		end_row(&row);
	}
	return (Datum) 0;
}

/* Rows of dbpool_progress_migrate. */
Datum
dbpool_get_migrations(PG_FUNCTION_ARGS)
{
	Row			row = start_rows(fcinfo);

	for (int i = 0; i < DBPOOL_SHOWN_MIGRATIONS; i++)
	{
		MigrateShared *entry = &dbpool_shared->migrations[i];
		MigrateShared copy;

		SpinLockAcquire(&entry->mutex);
		memcpy(&copy, entry, sizeof(MigrateShared));
		SpinLockRelease(&entry->mutex);
		if (copy.pid == 0)
			continue;

		put_int(&row, copy.pid, false);
		put(&row, ObjectIdGetDatum(copy.dbid), false);
		if (!may_see_role(copy.roleid))
		{
			end_row(&row);
			continue;
		}
		put_name(&row, NameStr(copy.pool), copy.encoding);
		put(&row, CStringGetTextDatum(copy.phase), false);
		if (copy.version[0] == '\0')
		{
			put(&row, (Datum) 0, true);
			put(&row, (Datum) 0, true);
		}
		else
		{
			put_text(&row, copy.version, copy.encoding);
			put_text(&row, copy.name, copy.encoding);
		}
		put(&row, CStringGetTextDatum(copy.down ? "down" : "up"), false);
		put_int(&row, copy.statements_done, false);
		put_int(&row, copy.statements_total, false);
		put_int(&row, copy.migrations_done, false);
		put_int(&row, copy.migrations_total, false);
		put_time(&row, copy.started_at);
		end_row(&row);
	}
	return (Datum) 0;
}
